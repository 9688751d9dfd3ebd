//! A witness (C2SP `tlog-witness`): it signs a checkpoint of a log once it has seen that it continues the last that it signed.
//!
//! Pure: a request and the state give an answer, and what has to be durable before the answer is given. Over which wire the
//! request came is none of its business; requests and answers are the specification's, to the letter.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    checkpoint::{Checkpoint, CheckpointError, Origin, parse_size},
    merkle::{Merkle, verify_consistency},
};
use crate::{
    id::Sha256,
    key::{PublicKey, SecretKey},
    time::Timestamp,
};

/// Hashes of one consistency proof; a tree of 2^63 leaves needs no more (C2SP `tlog-witness`).
const PROOF_HASHES_MAX: usize = 63;

/// Bytes of a request: a checkpoint and the proof before it.
pub const ADD_CHECKPOINT_BYTES_MAX: usize = super::CHECKPOINT_BYTES_MAX + 64 * 64;

/// What a witness has signed last of each log.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    held: BTreeMap<String, Held>,
}

/// The last checkpoint of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub size: u64,
    pub root: Sha256,
    /// With the log's signature and this witness's.
    pub note: String,
}

/// A request as it was read; nothing of the checkpoint is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    pub old: u64,
    pub proof: Vec<Sha256>,
    pub checkpoint: String,
}

/// A signature that was given. It counts once what is held is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// The signature line, which is the body of the answer.
    pub line: String,
    /// The checkpoint, with that line.
    pub note: String,
    pub checkpoint: Checkpoint,
    /// Size and root of what was signed before.
    pub before: (u64, Sha256),
}

/// Why no signature was given. Each has the HTTP status of the specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCosigned {
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    #[error("the log `{0}` is not one that this witness signs for")]
    UnknownOrigin(String),
    #[error("the checkpoint is not signed by its log: {0}")]
    Signature(#[from] CheckpointError),
    #[error("the old size {old} is larger than the {size} of the checkpoint")]
    OldAfterNew { old: u64, size: u64 },
    #[error("the last checkpoint signed has {known} entries, not {old}")]
    OtherSize { known: u64, old: u64 },
    #[error("a checkpoint of {size} entries with another root than the one signed before")]
    OtherRoot { size: u64 },
    #[error("the proof does not show that {size} entries continue the {old} signed before")]
    Proof { old: u64, size: u64 },
}

impl NotCosigned {
    /// The status code of the specification.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::OldAfterNew { .. } => 400,
            Self::UnknownOrigin(_) => 404,
            Self::Signature(_) => 403,
            Self::OtherSize { .. } => 409,
            Self::OtherRoot { .. } | Self::Proof { .. } => 422,
        }
    }

    /// The content type and body of the answer: the size held after a conflict, else what is wrong, for people.
    #[must_use]
    pub fn answer(&self) -> (&'static str, String) {
        match self {
            Self::OtherSize { known, .. } => ("text/x.tlog.size", format!("{known}\n")),
            other => ("text/plain; charset=utf-8", format!("{other}\n")),
        }
    }
}

impl AddCheckpoint {
    /// The body of the request.
    #[must_use]
    pub fn to_body(&self) -> String {
        let mut body = format!("old {}\n", self.old);
        for hash in &self.proof {
            body.push_str(&BASE64_STANDARD.encode(hash.0));
            body.push('\n');
        }
        body.push('\n');
        body.push_str(&self.checkpoint);
        body
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(body: &[u8]) -> Result<Self, NotCosigned> {
        let bad = NotCosigned::Malformed;
        if body.len() > ADD_CHECKPOINT_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let body = std::str::from_utf8(body).map_err(|_| bad("it is not UTF-8"))?;
        let (before, checkpoint) = body.split_once("\n\n").ok_or(bad("no empty line before the checkpoint"))?;
        let mut lines = before.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_size);
        let old = old.ok_or(bad("the first line is not `old` and a size"))?;
        let hash = |line: &str| Some(Sha256(BASE64_STANDARD.decode(line).ok()?.try_into().ok()?));
        let proof: Option<Vec<_>> = lines.take(PROOF_HASHES_MAX + 1).map(hash).collect();
        let proof = proof.ok_or(bad("a line of the proof is not a hash"))?;
        if proof.len() > PROOF_HASHES_MAX {
            return Err(bad("the proof has more than 63 lines"));
        }
        Ok(Self { old, proof, checkpoint: checkpoint.to_owned() })
    }
}

impl Witness {
    /// Takes up again what was signed earlier, from a note that this witness kept. False if it is none that it signed.
    pub fn restore(&mut self, note: &str, key: &PublicKey) -> bool {
        let Ok(checkpoint) = Checkpoint::parse_self_named(note) else { return false };
        if Checkpoint::cosignature(note, key).is_none() {
            return false;
        }
        self.hold(note.to_owned(), &checkpoint);
        true
    }

    /// A log goes on under another name: what was signed of it last counts there too, unless something was signed there.
    pub fn carry(&mut self, from: &Origin, to: &Origin) {
        if let (Some(held), None) = (self.held.get(from.as_str()).cloned(), self.held.get(to.as_str())) {
            self.held.insert(to.as_str().to_owned(), held);
        }
    }

    /// What was signed last of a log.
    #[must_use]
    pub fn held(&self, origin: &Origin) -> Option<&Held> {
        self.held.get(origin.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.held.iter().map(|(origin, held)| (origin.as_str(), held))
    }

    /// Answers a request. `key_of` knows the logs that this witness signs for, and `key` signs. What is held from now on must
    /// be durable before the answer is given.
    ///
    /// # Errors
    /// Why it is not signed, in the order in which the specification has it.
    pub fn add_checkpoint(
        &mut self,
        body: &[u8],
        key_of: impl FnOnce(&Origin) -> Option<PublicKey>,
        key: &SecretKey,
        now: Timestamp,
    ) -> Result<Cosigned, NotCosigned> {
        let request = AddCheckpoint::parse(body)?;
        let named = request.checkpoint.split('\n').next().unwrap_or_default();
        let origin: Origin = named.parse().map_err(|_| NotCosigned::Malformed("the checkpoint names no log"))?;
        let log = key_of(&origin).ok_or_else(|| NotCosigned::UnknownOrigin(origin.to_string()))?;
        let checkpoint = Checkpoint::parse_verified(&request.checkpoint, &log, &origin).map_err(|error| match error {
            CheckpointError::Body | CheckpointError::Note | CheckpointError::TooLarge => {
                NotCosigned::Malformed("what follows the proof is not a checkpoint")
            }
            other => NotCosigned::Signature(other),
        })?;
        let before = self.check(&request, &checkpoint)?;
        let line = Checkpoint::cosign(&request.checkpoint, key, now)?;
        let note = Checkpoint::with_cosignatures(&request.checkpoint, [line.as_str()])?;
        self.hold(note.clone(), &checkpoint);
        Ok(Cosigned { line, note, checkpoint, before })
    }

    /// Whether a checkpoint continues the one that was signed last; gives the size and the root of that.
    fn check(&self, request: &AddCheckpoint, checkpoint: &Checkpoint) -> Result<(u64, Sha256), NotCosigned> {
        let (old, size) = (request.old, checkpoint.size);
        if old > size {
            return Err(NotCosigned::OldAfterNew { old, size });
        }
        let known = self.held.get(checkpoint.origin.as_str()).map(|held| (held.size, held.root));
        let (known, root) = known.unwrap_or((0, Merkle::default().root()));
        if known != old {
            return Err(NotCosigned::OtherSize { known, old });
        }
        if old == size && root != checkpoint.root {
            return Err(NotCosigned::OtherRoot { size });
        }
        verify_consistency((old, root), (size, checkpoint.root), &request.proof)
            .map(|()| (old, root))
            .map_err(|_| NotCosigned::Proof { old, size })
    }

    fn hold(&mut self, note: String, checkpoint: &Checkpoint) {
        let held = Held { size: checkpoint.size, root: checkpoint.root, note };
        self.held.insert(checkpoint.origin.as_str().to_owned(), held);
    }
}

#[cfg(test)]
mod tests;
