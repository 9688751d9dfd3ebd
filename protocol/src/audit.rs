//! What an auditor gets and checks, offline and years later: a part of a node's ledger that proves itself, and the comparison
//! of the two halves of every crossing.
//!
//! - [`AuditFile`]: entries of one ledger with their places in the tree, the signed head, and what is needed to believe them
//! - [`verify`]: checks such files, each by itself and against each other, and names what is wrong
//!
//! A file says what one operator discloses. That nothing was left out shows only together with the files of the other sides.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    envelope::{decode, encode},
    id::Sha256,
    key::{PublicKey, SecretKey, Signature},
    ledger::{Checkpoint, CheckpointError},
    time::Timestamp,
    vocabulary::Country,
};

mod export;
mod findings;
mod halves;
mod verify;

pub use export::{NotExported, Source};
pub use findings::{CrossingFound, FileFound, Finding, FindingKind, Match, Outcome, Report, WitnessFound};
pub use verify::verify;

/// Bytes of an audit file: a hundred thousand entries of a usual size.
pub const AUDIT_FILE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// The first field of every audit file.
const FORMAT: &str = "alliance-audit/1";

/// What a node signs of an audit file begins with this, and nothing else that its key signs does.
const DOMAIN: &[u8] = b"alliance-audit-v1\0";

/// An audit file as it lies on disk: its node answers for all of it, what it says it covers included.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    audit: ByteBuf,
    signature: Signature,
}

/// A part of the ledger of one node, as canonical DAG-CBOR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditFile {
    format: String,
    /// Whose ledger it is.
    pub node: PublicKey,
    /// Only crossings that concern this country are in it; all, where none.
    pub country: Option<Country>,
    /// Only crossings that began then or later are in it.
    pub since: Timestamp,
    /// When it was made, by the clock of the machine that made it.
    pub made: Timestamp,
    /// The log of the charter.
    charter: ByteBuf,
    /// The node's signed accreditation.
    accreditation: ByteBuf,
    /// The signed head of the ledger.
    checkpoint: String,
    /// The newest head that witnesses signed.
    witnessed: Option<WitnessedHead>,
    /// The accreditations of those witnesses.
    witnesses: Vec<ByteBuf>,
    /// Heads that the node has signed into statements of these crossings.
    heads: Vec<ProvedHead>,
    /// Ascending by number.
    entries: Vec<Disclosed>,
}

/// A head with the signatures of witnesses, and the proof that the ledger continues it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WitnessedHead {
    note: String,
    proof: Vec<Sha256>,
}

/// An earlier head of the ledger, and the proof that the ledger continues it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProvedHead {
    size: u64,
    root: Sha256,
    proof: Vec<Sha256>,
}

/// An entry, and the proof of its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disclosed {
    index: u64,
    entry: ByteBuf,
    proof: Vec<Sha256>,
}

/// A head of a ledger, signed with one of the keys that its node has had.
fn head_of(note: &str, keys: &BTreeSet<PublicKey>) -> Result<Checkpoint, CheckpointError> {
    let head = Checkpoint::parse_self_named(note)?;
    let own = head.origin.node().is_some_and(|node| keys.contains(&node));
    if own { Ok(head) } else { Err(CheckpointError::Origin) }
}

/// Why bytes are not an audit file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAuditFile {
    #[error("{bytes} bytes are more than the {max} that an audit file may have", max = AUDIT_FILE_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("not an audit file: {0}")]
    Decode(String),
    #[error("an audit file of the format `{0}`, which this version does not know")]
    Format(String),
    #[error("the node {0} has not signed this file")]
    Signature(PublicKey),
}

impl AuditFile {
    /// The file, signed by its node.
    #[must_use]
    pub fn seal(&self, key: &SecretKey) -> Vec<u8> {
        let audit = encode(self);
        let signature = key.sign(&[DOMAIN, &audit].concat());
        encode(&Sealed { audit: ByteBuf::from(audit), signature })
    }

    /// Reads an audit file that its node has signed. That what it says is so is not believed by that: see [`verify`].
    ///
    /// # Errors
    /// It is none.
    pub fn open(bytes: &[u8]) -> Result<Self, NotAnAuditFile> {
        if bytes.len() > AUDIT_FILE_BYTES_MAX {
            return Err(NotAnAuditFile::TooLarge { bytes: bytes.len() });
        }
        let fail = |_: String| NotAnAuditFile::Decode("it is not in its encoding".to_owned());
        let sealed: Sealed = decode(bytes).map_err(fail)?;
        let file: Self = decode(&sealed.audit).map_err(fail)?;
        if file.format != FORMAT {
            return Err(NotAnAuditFile::Format(file.format.chars().take(32).collect()));
        }
        let signed = file.node.verify(&[DOMAIN, &sealed.audit].concat(), &sealed.signature);
        signed.map_err(|_| NotAnAuditFile::Signature(file.node))?;
        Ok(file)
    }

    /// How many entries it discloses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
