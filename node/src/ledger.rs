//! The ledger on disk: the one thing a node must never lose. Append, sync, sign, rename, sync; then it is recorded.
//!
//! A directory holds two files: `entries`, frames of a 32-bit big-endian length and an encoded [`Entry`], and `checkpoint`,
//! the signed head of the Merkle tree over them. The checkpoint decides: what it counts is committed, what lies behind that
//! is the torn end of a crash and was never acted on.
//!
//! This module never repairs committed data, never skips an entry that it cannot read, and never shortens `entries` below
//! what any checkpoint that may be on disk counts. It does not lock the directory; the owner of the home does.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use alliance_protocol::{
    id::Sha256,
    key::{PublicKey, SecretKey},
    ledger::{Checkpoint, CheckpointError, Entry, EntryError, Merkle, Origin},
};

use self::disk::{Disk, Files};

mod disk;
mod publish;
mod scan;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;

pub use self::{
    publish::{PublishError, Published, publish},
    scan::{Report, Witnessed, read, rotations, signed_by, verify, whole},
};

/// The file of frames.
const ENTRIES: &str = "entries";
/// The signed head.
const CHECKPOINT: &str = "checkpoint";
/// The next signed head, before it is renamed.
const NEXT: &str = "checkpoint.new";

/// An open ledger, at its end, ready to grow.
#[derive(Debug)]
pub struct LedgerFile {
    disk: Box<dyn Disk>,
    key: SecretKey,
    origin: Origin,
    tree: Merkle,
    /// Bytes of `entries` that are committed.
    length: u64,
    /// The signed head of what is committed.
    note: String,
    recovered: u64,
    /// Why it takes nothing more, once it does not.
    poison: Option<String>,
}

/// Why a ledger cannot be read, or something could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot {what} `{path}`", path = path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no ledger in `{path}`", path = path.display())]
    Absent { path: PathBuf },
    #[error("`{path}` is missing, but there are entries; restore the ledger from a backup", path = path.display())]
    NoCheckpoint { path: PathBuf },
    #[error("`{path}` is missing, but its checkpoint is there; restore the ledger from a backup", path = path.display())]
    NoEntries { path: PathBuf },
    #[error("the checkpoint `{path}` is not this node's; restore the ledger from a backup", path = path.display())]
    Checkpoint {
        path: PathBuf,
        #[source]
        source: CheckpointError,
    },
    #[error("the ledger ends in entry {index}, but its checkpoint counts {size}; restore the ledger from a backup")]
    TooShort { index: u64, size: u64 },
    #[error("entry {index} of the ledger is damaged; restore the ledger from a backup")]
    Damaged {
        index: u64,
        #[source]
        source: EntryError,
    },
    #[error("the {size} entries of the ledger are not those that its checkpoint signs; restore the ledger from a backup")]
    OtherRoot { size: u64 },
    #[error("what was kept of the witnesses is no checkpoint of this node")]
    Witnessed(#[source] CheckpointError),
    #[error(
        "witnesses have signed a head of {witnessed} entries that the {size} of the ledger do not begin with; bring back the \
         newest copy of the ledger"
    )]
    NotWitnessed { witnessed: u64, size: u64 },
    #[error("an entry cannot be recorded")]
    Entry(#[from] EntryError),
    #[error("cannot {step}; nothing was recorded")]
    Commit {
        step: Step,
        #[source]
        source: io::Error,
    },
    #[error("the ledger takes no entries after a failure ({0}); make the disk work and start the node again")]
    Poisoned(String),
}

/// The steps of a commit, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Append,
    SyncEntries,
    WriteCheckpoint,
    SyncCheckpoint,
    PublishCheckpoint,
    SyncDirectory,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Append => "append to the entries of the ledger",
            Self::SyncEntries => "sync the entries of the ledger",
            Self::WriteCheckpoint => "write the next checkpoint of the ledger",
            Self::SyncCheckpoint => "sync the next checkpoint of the ledger",
            Self::PublishCheckpoint => "put the next checkpoint of the ledger in place",
            Self::SyncDirectory => "sync the directory of the ledger",
        })
    }
}

/// Whether a ledger was ever begun in `directory`. Both of its files gone means that it is gone.
#[must_use]
pub fn exists(directory: &Path) -> bool {
    !disk::is_absent(directory).unwrap_or(false)
}

impl LedgerFile {
    /// Opens the ledger of the node with this key and reads it whole; see [`Self::open_each`], which bounds memory.
    ///
    /// # Errors
    /// As [`Self::open_each`].
    pub fn open(directory: &Path, key: &SecretKey) -> Result<(Self, Vec<Entry>), LedgerError> {
        let mut entries = Vec::new();
        let ledger = Self::open_each(directory, key, &mut |entry| entries.push(entry))?;
        Ok((ledger, entries))
    }

    /// Opens the ledger of the node with this key, or founds an empty one where there is none. Every entry is checked and
    /// handed to `each` in order; what `each` has seen counts only if this returns `Ok`. Bytes behind the committed entries
    /// are cut off; [`Self::recovered_bytes`] says how many there were.
    ///
    /// # Errors
    /// What is wrong with it, and what to do. Nothing is changed then.
    pub fn open_each(directory: &Path, key: &SecretKey, each: &mut dyn FnMut(Entry)) -> Result<Self, LedgerError> {
        let public = key.public();
        let origin = Origin::of(&public);
        if disk::is_absent(directory)? {
            let note = Checkpoint::sign(key, &origin, 0, Merkle::default().root());
            disk::found(directory, &note)?;
        }
        let scan = scan::scan(directory, &public, None, each)?;
        let mut files = Files::open(directory)?;
        if scan.tail > 0 {
            let path = directory.join(ENTRIES);
            files.roll_back(scan.length).map_err(|source| LedgerError::Io { what: "cut the torn end of", path, source })?;
            tracing::warn!(bytes = scan.tail, "cut off the torn end that a crash left in the ledger");
        }
        Ok(Self::resume(Box::new(files), key, scan))
    }

    /// Records that its node's key made way for another, as the first entry that this one signs the head of.
    ///
    /// # Errors
    /// As [`Self::commit`]; the ledger is still the old key's, or, where that cannot be known, one of the two's.
    pub fn hand_over(mut self, new: &SecretKey, rotated: &Entry) -> Result<Self, LedgerError> {
        self.key = SecretKey::from_seed(&new.to_seed());
        self.origin = Origin::of(&new.public());
        self.commit(std::slice::from_ref(rotated))?;
        Ok(self)
    }

    fn resume(disk: Box<dyn Disk>, key: &SecretKey, scan: scan::Scan) -> Self {
        Self {
            disk,
            // A second handle on the same key: secret keys are not cloned in passing.
            key: SecretKey::from_seed(&key.to_seed()),
            origin: Origin::of(&key.public()),
            tree: scan.tree,
            length: scan.length,
            note: scan.note,
            recovered: scan.tail,
            poison: None,
        }
    }

    /// Records entries, all or none. On `Ok` they are durable.
    ///
    /// # Errors
    /// They are not recorded, as far as can be known. After [`LedgerError::Commit`] the ledger may still be good (the disk
    /// was full) or not; if not, every later call gives [`LedgerError::Poisoned`], and opening it again, after a restart,
    /// finds out which entries it has: those before, or those and these.
    pub fn commit(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        if let Some(reason) = &self.poison {
            return Err(LedgerError::Poisoned(reason.clone()));
        }
        if entries.is_empty() {
            return Ok(());
        }
        let (mut tree, mut frames) = (self.tree.clone(), Vec::new());
        for entry in entries {
            let bytes = entry.encode()?;
            let length = u32::try_from(bytes.len()).map_err(|_| EntryError::TooLarge { bytes: bytes.len() })?;
            frames.extend_from_slice(&length.to_be_bytes());
            frames.extend_from_slice(&bytes);
            tree.append(entry.leaf_hash(&bytes)?);
        }
        let note = Checkpoint::sign(&self.key, &self.origin, tree.size(), tree.root());
        self.store(&frames, &note)?;
        self.length = self.length.saturating_add(u64::try_from(frames.len()).unwrap_or(u64::MAX));
        self.tree = tree;
        self.note = note;
        Ok(())
    }

    fn store(&mut self, frames: &[u8], note: &str) -> Result<(), LedgerError> {
        if let Err((step, source)) = self.prepare(frames, note) {
            // A failed sync may have dropped pages that the system now takes for written, those of committed entries among
            // them. Only a full disk is known to leave them alone.
            if step == Step::SyncEntries && !is_full(&source) {
                self.poison(step, &source);
            } else {
                self.roll_back(step, &source);
            }
            return Err(LedgerError::Commit { step, source });
        }
        if let Err(source) = self.disk.publish_next() {
            // The rename may have been made all the same. Entries are cut only if the old checkpoint is surely in place.
            let step = Step::PublishCheckpoint;
            if self.disk.published().is_ok_and(|there| there == self.note.as_bytes()) {
                self.roll_back(step, &source);
            } else {
                self.poison(step, &source);
            }
            return Err(LedgerError::Commit { step, source });
        }
        if let Err(source) = self.disk.sync_directory() {
            // Either checkpoint may survive a crash now, and the entries serve both. Going on could sign a second tree of
            // the same size.
            let step = Step::SyncDirectory;
            self.poison(step, &source);
            return Err(LedgerError::Commit { step, source });
        }
        Ok(())
    }

    /// Everything that does not touch the checkpoint in force.
    fn prepare(&mut self, frames: &[u8], note: &str) -> Result<(), (Step, io::Error)> {
        self.disk.append(self.length, frames).map_err(|error| (Step::Append, error))?;
        self.disk.sync_entries().map_err(|error| (Step::SyncEntries, error))?;
        self.disk.write_next(note).map_err(|error| (Step::WriteCheckpoint, error))?;
        self.disk.sync_next().map_err(|error| (Step::SyncCheckpoint, error))
    }

    fn roll_back(&mut self, step: Step, cause: &io::Error) {
        match self.disk.roll_back(self.length) {
            Ok(()) => tracing::warn!(%step, error = %cause, "could not record; the ledger is as it was before"),
            Err(error) => self.poison(step, &error),
        }
    }

    fn poison(&mut self, step: Step, cause: &io::Error) {
        tracing::error!(%step, error = %cause, "could not record, and the ledger takes no more entries");
        self.poison = Some(format!("could not {step}: {cause}"));
    }

    /// Entries committed.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The Merkle root over them.
    #[must_use]
    pub fn root(&self) -> Sha256 {
        self.tree.root()
    }

    /// The signed checkpoint of what is committed.
    #[must_use]
    pub fn checkpoint(&self) -> &str {
        &self.note
    }

    /// The node whose ledger it is.
    #[must_use]
    pub fn node(&self) -> PublicKey {
        self.key.public()
    }

    /// Bytes of a torn end that opening cut off. They had not been committed, so nothing was done on their account.
    #[must_use]
    pub fn recovered_bytes(&self) -> u64 {
        self.recovered
    }

    /// Whether it takes no more entries until it is opened again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }
}

/// Whether an error means that there is no room, and nothing worse.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
