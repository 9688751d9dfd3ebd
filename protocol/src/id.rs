//! Hashes with a name: 32 bytes of BLAKE3, one newtype for each thing that is named by one.
//!
//! On the wire they are byte strings; for people and in JSON they are 64 lower-case hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not 64 hexadecimal digits")]
pub struct ParseIdError(pub(crate) String);

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The first eight hexadecimal digits, for tables.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(self.0.get(..4).unwrap_or_default())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError(text.to_owned()))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_bytes(&self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_bytes(deserializer).map(Self)
            }
        }
    )*};
}

ids! {
    /// An alliance: the id of the first version of its charter.
    AllianceId;
    /// A signed statement: the BLAKE3 of what was signed, so that signatures do not change it.
    StatementId;
    /// A manifest: the BLAKE3 of its canonical bytes.
    ManifestId;
    /// A segment of a file: the BLAKE3 of its bytes.
    ContentId;
    /// One attempt to move an artefact; drawn at random by the importer.
    CrossingId;
    /// A SHA-256, kept beside BLAKE3 where existing clients need it.
    Sha256;
    /// What binds a request to one TLS session (RFC 9266 style exporter, label in `specs/`).
    SessionBinding;
}

impl AllianceId {
    /// What stands for the alliance in the statement that founds it.
    pub const NONE: Self = Self([0; 32]);
}

pub(crate) fn serialize_bytes<const N: usize, S: Serializer>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&hex::encode(bytes))
    } else {
        serializer.serialize_bytes(bytes)
    }
}

pub(crate) fn deserialize_bytes<'de, const N: usize, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; N], D::Error> {
    if deserializer.is_human_readable() {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| D::Error::custom(format!("not {} hexadecimal digits", 2 * N)))?;
        Ok(bytes)
    } else {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        <[u8; N]>::try_from(bytes.as_slice())
            .map_err(|_| D::Error::invalid_length(bytes.len(), &"the length of the hash or key"))
    }
}
