//! Reads the header of a safetensors file, strictly: only the one form in which every byte of the file is accounted for.
//!
//! Tensors must follow each other from the first byte after the header to the last of the file, without a hole and without
//! overlap; names are unique; the length of each follows from its type and shape. Never reads tensor data, and never
//! allocates more than the header's bound.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use alliance_protocol::{
    limits,
    manifest::{Dtype, SegmentKind, TENSOR_NAME_BYTES_MAX, is_printable},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Bytes of the length that stands before the header.
pub(crate) const PREFIX_BYTES: u64 = 8;

/// Bytes of all keys and values of `__metadata__`. Training tools write tens of KiB there; it is no place for cargo.
const METADATA_BYTES_MAX: usize = 1024 * 1024;

/// Why a file is not a safetensors file in canonical form. Each message follows the name of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SafetensorsError {
    #[error("has {bytes} bytes, too few for a safetensors file; fetch it again")]
    TooShort { bytes: u64 },
    #[error(
        "says that its header has {} bytes, more than the {} allowed; it is not a safetensors file, or not one to trust",
        grouped(*.bytes), grouped(limits::SAFETENSORS_HEADER_BYTES_MAX)
    )]
    HeaderTooLong { bytes: u64 },
    #[error("is truncated: its header has {} bytes, the file {} in all; fetch it again", grouped(*.header), grouped(*.bytes))]
    HeaderCut { header: u64, bytes: u64 },
    #[error("is truncated: header says {} bytes of tensors, the file has {}; fetch it again", grouped(*.said), grouped(*.found))]
    Truncated { said: u64, found: u64 },
    #[error(
        "has {} bytes after its last tensor, where nothing belongs; save it again with the safetensors library",
        grouped(*.bytes)
    )]
    Trailing { bytes: u64 },
    #[error("has a header that is not a JSON object padded with spaces only; save it again with the safetensors library")]
    Form,
    #[error("has a malformed header: {reason}; save it again with the safetensors library")]
    Header { reason: String },
    #[error("has tensor `{tensor}` of unknown type `{dtype}`; a newer release may know it")]
    Dtype { tensor: String, dtype: String },
    #[error(
        "has tensor `{tensor}` in {} bytes, which type {dtype} and shape {shape:?} do not give; \
         save it again with the safetensors library", grouped(*.bytes)
    )]
    Length { tensor: String, dtype: Dtype, shape: Vec<u64>, bytes: u64 },
    #[error("has tensor `{tensor}` that ends before it begins; save it again with the safetensors library")]
    Backwards { tensor: String },
    #[error("has a hole of {} bytes before tensor `{tensor}`; save it again with the safetensors library", grouped(*.bytes))]
    Hole { tensor: String, bytes: u64 },
    #[error("has tensor `{tensor}` that overlaps the one before it by {} bytes; do not trust this file", grouped(*.bytes))]
    Overlap { tensor: String, bytes: u64 },
}

/// The length of the header, from the first eight bytes of a file of `file_bytes`.
///
/// # Errors
/// The file cannot have such a header.
pub(crate) fn header_bytes(prefix: [u8; 8], file_bytes: u64) -> Result<u64, SafetensorsError> {
    let header = u64::from_le_bytes(prefix);
    if header > limits::SAFETENSORS_HEADER_BYTES_MAX {
        return Err(SafetensorsError::HeaderTooLong { bytes: header });
    }
    let room = file_bytes.checked_sub(PREFIX_BYTES).ok_or(SafetensorsError::TooShort { bytes: file_bytes })?;
    if header > room {
        return Err(SafetensorsError::HeaderCut { header, bytes: file_bytes });
    }
    Ok(header)
}

/// The tensors that a header describes, in the order of their bytes, each with its length; `data_bytes` follow the header.
///
/// # Errors
/// The first thing that is not canonical.
pub(crate) fn parse_header(header: &[u8], data_bytes: u64) -> Result<Vec<(SegmentKind, u64)>, SafetensorsError> {
    let text = std::str::from_utf8(header).map_err(|_| SafetensorsError::Form)?.trim_end_matches(' ');
    if !text.starts_with('{') || !text.ends_with('}') {
        return Err(SafetensorsError::Form);
    }
    let header: Header =
        serde_json::from_str(text).map_err(|error| SafetensorsError::Header { reason: error.to_string() })?;
    let mut tensors = header.0;
    // Empty tensors begin where the next one begins: they come first. The sort is stable, so the header decides the rest.
    tensors.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end = 0;
    let mut parts = Vec::with_capacity(tensors.len());
    for (tensor, Entry { dtype, shape, data_offsets: (from, to) }) in tensors {
        let dtype: Dtype = match dtype.parse() {
            Ok(dtype) => dtype,
            Err(_) => return Err(SafetensorsError::Dtype { tensor, dtype: dtype.chars().take(32).collect() }),
        };
        let Some(bytes) = to.checked_sub(from) else { return Err(SafetensorsError::Backwards { tensor }) };
        if from > end {
            return Err(SafetensorsError::Hole { tensor, bytes: from.saturating_sub(end) });
        }
        if from < end {
            return Err(SafetensorsError::Overlap { tensor, bytes: end.saturating_sub(from) });
        }
        if dtype.bytes(&shape.0) != Some(bytes) {
            return Err(SafetensorsError::Length { tensor, dtype, shape: shape.0, bytes });
        }
        end = to;
        parts.push((SegmentKind::Tensor { name: tensor, dtype, shape: shape.0 }, bytes));
    }
    match end.cmp(&data_bytes) {
        std::cmp::Ordering::Greater => Err(SafetensorsError::Truncated { said: end, found: data_bytes }),
        std::cmp::Ordering::Less => Err(SafetensorsError::Trailing { bytes: data_bytes.saturating_sub(end) }),
        std::cmp::Ordering::Equal => Ok(parts),
    }
}

/// A number with commas between groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len().saturating_add(digits.len() / 3));
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The JSON object: tensors by name, and the metadata, which is checked and dropped.
struct Header(Vec<(String, Entry)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape(Vec<u64>);

/// `__metadata__`: strings by name.
struct Metadata;

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;

        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut tensors, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("the name {name:?} stands twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<Metadata>()?;
                        continue;
                    }
                    if name.is_empty() || name.len() > TENSOR_NAME_BYTES_MAX || !is_printable(&name) {
                        let shown: String = name.chars().take(64).collect();
                        return Err(A::Error::custom(format!("the name {shown:?} is empty, too long or unprintable")));
                    }
                    if tensors.len() == limits::TENSORS_PER_FILE_MAX {
                        return Err(A::Error::custom(format!("more than {} tensors", limits::TENSORS_PER_FILE_MAX)));
                    }
                    tensors.push((name, map.next_value()?));
                }
                Ok(Header(tensors))
            }
        }

        deserializer.deserialize_map(Tensors)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dimensions;

        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {} dimensions", limits::DIMENSIONS_MAX)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while shape.len() < limits::DIMENSIONS_MAX {
                    match seq.next_element()? {
                        Some(dimension) => shape.push(dimension),
                        None => return Ok(Shape(shape)),
                    }
                }
                match seq.next_element::<IgnoredAny>()? {
                    Some(_) => Err(A::Error::custom(format!("more than {} dimensions", limits::DIMENSIONS_MAX))),
                    None => Ok(Shape(shape)),
                }
            }
        }

        deserializer.deserialize_seq(Dimensions)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;

        impl<'de> Visitor<'de> for Strings {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let (mut seen, mut bytes) = (HashMap::new(), 0_usize);
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
                    if bytes > METADATA_BYTES_MAX {
                        return Err(A::Error::custom(format!("more than {METADATA_BYTES_MAX} bytes of metadata")));
                    }
                    if seen.insert(name, ()).is_some() {
                        return Err(A::Error::custom("a name in the metadata stands twice"));
                    }
                }
                Ok(Metadata)
            }
        }

        deserializer.deserialize_map(Strings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(header: &str, data_bytes: u64) -> Result<Vec<(SegmentKind, u64)>, String> {
        parse_header(header.as_bytes(), data_bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn canonical_headers_are_read_in_file_order() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"F32","shape":[2,2],"data_offsets":[4,20]},
            "none":{"dtype":"F16","shape":[0,8],"data_offsets":[4,4]},
            "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},
            "scalar":{"dtype":"I64","shape":[],"data_offsets":[20,28]}}   "#;
        let parts = parse(header, 28).expect("canonical");
        let names: Vec<(String, u64)> = parts
            .into_iter()
            .map(|(kind, bytes)| match kind {
                SegmentKind::Tensor { name, .. } => (name, bytes),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, [("a".into(), 4), ("none".into(), 0), ("b".into(), 16), ("scalar".into(), 8)]);
        assert_eq!(parse("{}", 0), Ok(Vec::new()));
    }

    #[test]
    fn malformed_headers_are_refused() {
        let t = |name: &str, dtype: &str, shape: &str, from: u64, to: u64| {
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let of = |entries: &[String]| format!("{{{}}}", entries.join(","));
        let one = of(&[t("a", "U8", "[4]", 0, 4)]);
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        let long = of(&[t(&"x".repeat(600), "U8", "[4]", 0, 4)]);
        let cargo = format!(r#"{{"__metadata__":{{"x":"{}"}}}}"#, "y".repeat(METADATA_BYTES_MAX));
        let table: &[(&str, String, u64, &str)] = &[
            ("truncated", one.clone(), 3, "is truncated: header says 4 bytes of tensors, the file has 3"),
            ("trailing bytes", one.clone(), 5, "has 1 bytes after its last tensor"),
            ("hole at the start", of(&[t("a", "U8", "[4]", 1, 5)]), 5, "hole of 1 bytes before tensor `a`"),
            (
                "hole inside",
                of(&[t("a", "U8", "[1]", 0, 1), t("b", "U8", "[1]", 2, 3)]),
                3,
                "hole of 1 bytes before tensor `b`",
            ),
            (
                "overlap",
                of(&[t("a", "U8", "[4]", 0, 4), t("b", "U8", "[4]", 2, 6)]),
                6,
                "tensor `b` that overlaps the one before it by 2",
            ),
            ("same range twice", of(&[t("a", "U8", "[4]", 0, 4), t("b", "U8", "[4]", 0, 4)]), 4, "overlaps"),
            ("backwards", of(&[t("a", "U8", "[4]", 4, 0)]), 4, "ends before it begins"),
            ("length and shape", of(&[t("a", "F32", "[4]", 0, 4)]), 4, "type F32 and shape [4] do not give"),
            ("overflowing shape", of(&[t("a", "F32", "[4294967296,4294967296,4]", 0, 4)]), 4, "do not give"),
            ("half a byte", of(&[t("a", "F4", "[3]", 0, 2)]), 2, "do not give"),
            ("unknown type", of(&[t("a", "F7", "[4]", 0, 4)]), 4, "unknown type `F7`"),
            ("negative offset", one.replace("[0,4]", "[-4,0]"), 4, "malformed header"),
            ("fraction", one.replace("[0,4]", "[0.0,4]"), 4, "malformed header"),
            ("offset too large", one.replace("[0,4]", "[0,18446744073709551616]"), 4, "malformed header"),
            ("three offsets", one.replace("[0,4]", "[0,4,4]"), 4, "malformed header"),
            ("duplicate tensor", of(&[t("a", "U8", "[4]", 0, 4), t("a", "U8", "[4]", 4, 8)]), 8, "stands twice"),
            ("duplicate by escape", of(&[t("a", "U8", "[4]", 0, 4), t("\\u0061", "U8", "[4]", 4, 8)]), 8, "stands twice"),
            ("duplicate field", one.replace("\"shape\"", "\"dtype\":\"U8\",\"shape\""), 4, "duplicate field"),
            ("unknown field", one.replace("\"shape\"", "\"strides\":[1],\"shape\""), 4, "unknown field"),
            ("missing field", one.replace("\"dtype\":\"U8\",", ""), 4, "missing field"),
            ("too many dimensions", of(&[t("a", "U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", 0, 1)]), 1, "16 dimensions"),
            ("empty name", of(&[t("", "U8", "[4]", 0, 4)]), 4, "empty, too long or unprintable"),
            ("long name", long, 4, "empty, too long or unprintable"),
            ("name with escape codes", of(&[t("\\u001b[2J", "U8", "[4]", 0, 4)]), 4, "unprintable"),
            ("metadata not strings", r#"{"__metadata__":{"x":1}}"#.into(), 0, "malformed header"),
            ("metadata twice", r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, "stands twice"),
            ("metadata name twice", r#"{"__metadata__":{"x":"1","x":"2"}}"#.into(), 0, "stands twice"),
            ("too much metadata", cargo, 0, "bytes of metadata"),
            ("leading space", format!(" {one}"), 4, "not a JSON object"),
            ("padding that is no space", format!("{one}\n"), 4, "not a JSON object"),
            ("padding with zeros", format!("{one}\0"), 4, "not a JSON object"),
            ("two objects", format!("{one}{one}"), 4, "malformed header"),
            ("a list", "[]".into(), 0, "not a JSON object"),
            ("nothing", String::new(), 0, "not a JSON object"),
            ("deep nesting", deep, 0, "not a JSON object"),
            ("deep nesting, closed", format!("{{\"a\":{}}}", "[".repeat(100_000)), 0, "malformed header"),
        ];
        for (what, header, data, expected) in table {
            let error = parse(header, *data).expect_err(what);
            assert!(error.contains(expected), "{what}: {error}");
        }
        assert_eq!(parse_header(b"{\"\xff\":1}", 0), Err(SafetensorsError::Form));
    }

    #[test]
    fn the_length_is_checked_before_anything_is_read() {
        assert_eq!(header_bytes(10_u64.to_le_bytes(), 18), Ok(10));
        assert_eq!(header_bytes(10_u64.to_le_bytes(), 17), Err(SafetensorsError::HeaderCut { header: 10, bytes: 17 }));
        assert_eq!(header_bytes([0; 8], 7), Err(SafetensorsError::TooShort { bytes: 7 }));
        for bytes in [limits::SAFETENSORS_HEADER_BYTES_MAX + 1, u64::MAX] {
            assert_eq!(header_bytes(bytes.to_le_bytes(), u64::MAX), Err(SafetensorsError::HeaderTooLong { bytes }));
        }
    }

    #[test]
    fn numbers_are_easy_to_read() {
        let shown: Vec<String> = [0, 999, 1000, 91_000_000].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "91,000,000"]);
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), data in any::<u64>()) {
            let _ = parse_header(&bytes, data);
        }

        #[test]
        fn what_is_accepted_accounts_for_every_byte(ends in prop::collection::vec((0_u64..9, 0_u64..9), 0..5), data in 0_u64..12) {
            let entries: Vec<String> = ends
                .iter()
                .enumerate()
                .map(|(at, (from, to))| {
                    format!(r#""t{at}":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#, to.saturating_sub(*from))
                })
                .collect();
            if let Ok(parts) = parse_header(format!("{{{}}}", entries.join(",")).as_bytes(), data) {
                prop_assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), data);
                prop_assert_eq!(parts.len(), ends.len());
            }
        }
    }
}
