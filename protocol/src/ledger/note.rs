//! C2SP `signed-note`: a text, an empty line, and signature lines under it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256 as Hasher};

use super::checkpoint::{CHECKPOINT_BYTES_MAX, Origin};
use crate::key::PublicKey;

/// What every signature line starts with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// Signatures under one note: the log's, and of a witness in each member country.
const SIGNATURES_MAX: usize = 1 + crate::limits::MEMBERS_MAX;

/// Which signature a line holds. Both are by Ed25519 keys; their names tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureKind {
    /// Over the text.
    Ed25519,
    /// Over the text and an instant (C2SP `tlog-cosignature`).
    Cosignature,
}

/// A note that was taken apart and of which nothing is verified.
#[derive(Debug)]
pub(super) struct Note<'a> {
    /// The text, with its last newline.
    pub(super) body: &'a str,
    pub(super) lines: Vec<Line<'a>>,
}

#[derive(Debug)]
pub(super) struct Line<'a> {
    /// The line as it stands, with its newline.
    pub(super) text: &'a str,
    pub(super) name: &'a str,
    id: [u8; 4],
    pub(super) signature: Vec<u8>,
}

impl SignatureKind {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }

    /// The first bytes of every such signature that this key makes under this name.
    pub(super) fn key_id(self, name: &Origin, key: &PublicKey) -> [u8; 4] {
        let mut hasher = Hasher::new();
        hasher.update(name.as_str().as_bytes());
        hasher.update([b'\n', self.byte()]);
        hasher.update(key.0);
        let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
        [a, b, c, d]
    }
}

impl<'a> Note<'a> {
    /// Takes a note apart, or none if it is not one.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > CHECKPOINT_BYTES_MAX || text.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return None;
        }
        let (before, signatures) = text.rsplit_once("\n\n")?;
        let body = text.get(..=before.len())?;
        if !signatures.ends_with('\n') {
            return None;
        }
        // One more than there may be, so that too many are noticed and not read.
        let lines =
            signatures.split_inclusive('\n').take(SIGNATURES_MAX + 1).map(Line::parse).collect::<Option<Vec<_>>>()?;
        if lines.len() > SIGNATURES_MAX {
            return None;
        }
        Some(Self { body, lines })
    }

    /// The signatures that this key may have made under this name.
    pub(super) fn signatures(&self, name: &Origin, kind: SignatureKind, key: &PublicKey) -> Vec<&[u8]> {
        let id = kind.key_id(name, key);
        let of = self.lines.iter().filter(|line| line.name == name.as_str() && line.id == id);
        of.map(|line| line.signature.as_slice()).collect()
    }
}

impl<'a> Line<'a> {
    /// Whether its name and number are those of such a signature by this key.
    pub(super) fn is_by(&self, kind: SignatureKind, key: &PublicKey) -> bool {
        self.name.parse::<Origin>().is_ok_and(|name| self.id == kind.key_id(&name, key))
    }

    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (name, encoded) = text.strip_suffix('\n')?.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
        let _is_a_name: Origin = name.parse().ok()?;
        let bytes = BASE64_STANDARD.decode(encoded).ok()?;
        let (id, signature) = bytes.split_first_chunk::<4>()?;
        Some(Self { text, name, id: *id, signature: signature.to_vec() })
    }
}

pub(super) fn signature_line(name: &Origin, kind: SignatureKind, key: &PublicKey, signature: &[u8]) -> String {
    let mut bytes = kind.key_id(name, key).to_vec();
    bytes.extend_from_slice(signature);
    format!("{SIGNATURE_PREFIX}{name} {}\n", BASE64_STANDARD.encode(bytes))
}
