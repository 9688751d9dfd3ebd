//! Writes the header of a safetensors file: eight bytes of length, then JSON that names the tensors behind it.
//!
//! One list of tensors has one header: the names in the order of their bytes, no space but the padding. It never repeats what
//! another header said beside the tensors (`__metadata__`), because whoever takes a part does not have that header. Reading
//! headers is the business of whoever has files.

use std::fmt::Write as _;

use super::{Segment, SegmentKind};
use crate::limits;

/// The key that the format keeps for itself; no tensor can be named so.
const RESERVED: &str = "__metadata__";

/// How each header begins. A loader that finds no `format` takes PyTorch's for granted, and older ones fail, so it is said.
const BEGINNING: &str = r#"{"__metadata__":{"format":"pt"}"#;

/// The JSON is padded with spaces to a multiple of this, so that the tensors begin where any element may lie.
const ALIGNMENT_BYTES: usize = 8;

/// Why tensors have no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// The JSON has this many bytes or more.
    TooLarge { bytes: u64 },
    /// A tensor is named `__metadata__`.
    ReservedName,
}

/// The header of a file that consists of it and these tensors, in this order; other segments are passed over. Allocates little
/// more than the bound of a header, however many there are.
pub(super) fn write_header<'a>(tensors: impl IntoIterator<Item = &'a Segment>) -> Result<Vec<u8>, HeaderFault> {
    let mut json = BEGINNING.to_owned();
    let mut offset = 0_u64;
    for segment in tensors {
        let SegmentKind::Tensor { name, dtype, shape } = &segment.kind else { continue };
        if name == RESERVED {
            return Err(HeaderFault::ReservedName);
        }
        let end = offset.saturating_add(segment.bytes);
        json.push(',');
        push_text(&mut json, name);
        // Writing to a `String` does not fail. A list of numbers is written as JSON has it, but for its spaces.
        let _ = write!(json, r#":{{"dtype":"{dtype}","shape":["#);
        for (at, dimension) in shape.iter().enumerate() {
            let _ = write!(json, "{}{dimension}", if at > 0 { "," } else { "" });
        }
        let _ = write!(json, r#"],"data_offsets":[{offset},{end}]}}"#);
        check_length(&json)?;
        offset = end;
    }
    json.push('}');
    while !json.len().is_multiple_of(ALIGNMENT_BYTES) {
        json.push(' ');
    }
    let bytes = check_length(&json)?;
    Ok([bytes.to_le_bytes().as_slice(), json.as_bytes()].concat())
}

/// Appends a JSON string.
fn push_text(json: &mut String, text: &str) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            // No tensor of a manifest has one in its name.
            '\0'..='\x1f' => {
                let _ = write!(json, "\\u{:04x}", u32::from(letter));
            }
            _ => json.push(letter),
        }
    }
    json.push('"');
}

fn check_length(json: &str) -> Result<u64, HeaderFault> {
    let bytes = u64::try_from(json.len()).unwrap_or(u64::MAX);
    if bytes > limits::SAFETENSORS_HEADER_BYTES_MAX { Err(HeaderFault::TooLarge { bytes }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{id::ContentId, manifest::Dtype};

    fn tensor(name: &str, dtype: Dtype, shape: &[u64]) -> Segment {
        let bytes = dtype.bytes(shape).expect("whole bytes");
        let kind = SegmentKind::Tensor { name: name.into(), dtype, shape: shape.into() };
        Segment { bytes, groups: Vec::new().into(), hash: ContentId([0; 32]), kind, labels: None }
    }

    fn json(tensors: &[Segment]) -> String {
        let header = write_header(tensors).expect("a header");
        let (length, json) = header.split_at(8);
        assert_eq!(u64::from_le_bytes(length.try_into().expect("eight")), json.len() as u64);
        assert_eq!(header.len() % 8, 0);
        String::from_utf8(json.to_vec()).expect("text")
    }

    #[test]
    fn headers_have_one_form() {
        let begin = r#"{"__metadata__":{"format":"pt"}"#;
        let table: &[(&[Segment], &str)] = &[
            (&[], ""),
            (&[tensor("a", Dtype::F32, &[2, 3])], r#","a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}"#),
            (
                &[tensor("b", Dtype::U8, &[]), tensor("none", Dtype::F16, &[0, 7]), tensor("a", Dtype::F4, &[4])],
                r#","b":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"none":{"dtype":"F16","shape":[0,7],"data_offsets":[1,1]},"a":{"dtype":"F4","shape":[4],"data_offsets":[1,3]}"#,
            ),
            (
                &[tensor("a\"b\\c/д", Dtype::F8_E4M3FNUZ, &[1])],
                r#","a\"b\\c/д":{"dtype":"F8_E4M3FNUZ","shape":[1],"data_offsets":[0,1]}"#,
            ),
        ];
        for (tensors, expected) in table {
            assert_eq!(json(tensors).trim_end_matches(' '), format!("{begin}{expected}}}"));
        }
    }

    #[test]
    fn what_has_no_header_is_refused() {
        assert_eq!(write_header(&[tensor(RESERVED, Dtype::U8, &[1])]), Err(HeaderFault::ReservedName));
        // Stops at the first tensor too many: there is no end to these.
        let one = tensor("x", Dtype::U8, &[1]);
        let fault = write_header(std::iter::repeat(&one)).expect_err("endless");
        assert!(matches!(fault, HeaderFault::TooLarge { bytes } if bytes < limits::SAFETENSORS_HEADER_BYTES_MAX + 200));
    }

    proptest! {
        #[test]
        fn any_name_is_read_back(name in any::<String>(), shape in prop::collection::vec(0_u64..9, 0..4)) {
            let read: serde_json::Value = serde_json::from_str(&json(&[tensor(&name, Dtype::U16, &shape)])).expect("JSON");
            let bytes: u64 = 2 * shape.iter().product::<u64>();
            let expected = serde_json::json!({ "dtype": "U16", "shape": shape, "data_offsets": [0, bytes] });
            prop_assert_eq!(read.get(&name), Some(&expected));
        }
    }
}
