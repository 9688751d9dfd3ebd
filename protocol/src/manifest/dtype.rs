//! Element types of tensors, as the safetensors format names them, and the length that a shape gives.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A word that is not an element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a known element type; known are: {known}")]
pub struct UnknownDtype {
    word: String,
    known: String,
}

macro_rules! dtypes {
    ($($variant:ident = $word:literal, $bits:literal;)*) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(non_camel_case_types, reason = "the names of the format")]
        pub enum Dtype { $($variant,)* }

        impl Dtype {
            /// Every type, in the order of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word as it stands in files and manifests.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Bits of one element.
            #[must_use]
            pub const fn bits(self) -> u64 {
                match self { $(Self::$variant => $bits,)* }
            }
        }
    };
}

dtypes! {
    Bool = "BOOL", 8;
    F4 = "F4", 4;
    F6_E2M3 = "F6_E2M3", 6;
    F6_E3M2 = "F6_E3M2", 6;
    U8 = "U8", 8;
    I8 = "I8", 8;
    F8_E5M2 = "F8_E5M2", 8;
    F8_E4M3 = "F8_E4M3", 8;
    F8_E8M0 = "F8_E8M0", 8;
    F8_E4M3FNUZ = "F8_E4M3FNUZ", 8;
    F8_E5M2FNUZ = "F8_E5M2FNUZ", 8;
    I16 = "I16", 16;
    U16 = "U16", 16;
    F16 = "F16", 16;
    BF16 = "BF16", 16;
    I32 = "I32", 32;
    U32 = "U32", 32;
    F32 = "F32", 32;
    C64 = "C64", 64;
    F64 = "F64", 64;
    I64 = "I64", 64;
    U64 = "U64", 64;
}

impl Dtype {
    /// Bytes of a tensor of this type and shape; none where the product overflows or is not a whole number of bytes.
    #[must_use]
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        let elements = shape.iter().try_fold(1_u64, |product, dimension| product.checked_mul(*dimension))?;
        let bits = elements.checked_mul(self.bits())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Dtype {
    type Err = UnknownDtype;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|known| known.as_str() == word).ok_or_else(|| UnknownDtype {
            word: word.chars().take(32).collect(),
            known: Self::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Serialize for Dtype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_from_shapes() {
        let table: &[(Dtype, &[u64], Option<u64>)] = &[
            (Dtype::F32, &[], Some(4)),
            (Dtype::F32, &[2, 3], Some(24)),
            (Dtype::BF16, &[0, 7], Some(0)),
            (Dtype::F4, &[4], Some(2)),
            (Dtype::F4, &[3], None),
            (Dtype::F6_E2M3, &[4], Some(3)),
            (Dtype::U8, &[u64::MAX], None),
            (Dtype::F64, &[1 << 32, 1 << 32], None),
        ];
        for (dtype, shape, bytes) in table {
            assert_eq!(dtype.bytes(shape), *bytes, "{dtype} {shape:?}");
        }
    }

    #[test]
    fn words_round_trip() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.as_str().parse(), Ok(*dtype));
        }
        assert!("f32".parse::<Dtype>().is_err());
    }
}
