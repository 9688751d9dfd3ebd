//! Reading a ledger: whole and checked, for opening and for an audit, or a few entries, for a look.
//!
//! Nothing here writes. The checkpoint is read before the entries, so that an audit may run beside a node that records:
//! what the checkpoint counts does not change any more.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::{Path, PathBuf},
};

use alliance_protocol::{
    id::Sha256,
    key::PublicKey,
    ledger::{CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError, Entry, EntryError, Merkle, Origin, RECORD_BYTES_MAX},
    rotation::KeyRotation,
    time::Timestamp,
};
use serde::Serialize;

use super::{CHECKPOINT, ENTRIES, LedgerError, disk};

/// What an audit found: a ledger that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The name of the log.
    pub origin: String,
    /// The keys that its node had before, the first one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<PublicKey>,
    /// Entries committed.
    pub entries: u64,
    /// The Merkle root over them, which the checkpoint signs.
    pub root: Sha256,
    /// Bytes of the committed entries on disk.
    pub bytes: u64,
    /// When the last entry was recorded.
    pub last: Option<Timestamp>,
    /// Bytes behind the committed entries, for a warning: a commit under way, or the torn end of a crash, which the node
    /// cuts off when it starts. They are no part of the ledger.
    pub uncommitted_bytes: u64,
    /// What witnesses have signed of it.
    pub witnessed: Option<Witnessed>,
}

/// The newest head that witnesses have signed, which is part of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witnessed {
    pub entries: u64,
    /// The nodes that signed. Whether they count as witnesses, the charter and their authorities say.
    pub by: Vec<PublicKey>,
    /// When the last of them signed, by its clock.
    pub at: Option<Timestamp>,
}

/// A ledger that was read whole.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) note: String,
    pub(super) tree: Merkle,
    /// The root over the first entries that was asked for.
    pub(super) root_at: Option<Sha256>,
    /// Bytes of the committed entries.
    pub(super) length: u64,
    /// Bytes behind them.
    pub(super) tail: u64,
}

/// Checks a ledger whole, without changing anything; may run while the node does. `witnessed` is the newest head that
/// witnesses signed, where one was kept.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify(directory: &Path, node: &PublicKey, witnessed: Option<&str>) -> Result<Report, LedgerError> {
    let signed = witnessed.map(Checkpoint::parse_self_named).transpose().map_err(LedgerError::Witnessed)?;
    let (mut last, mut former) = (None, Vec::new());
    let scan = scan(directory, node, signed.as_ref().map(|signed| signed.size), &mut |entry| {
        last = Some(entry.at);
        former.extend(entry.record.key_rotation().map(|rotation| rotation.old));
    })?;
    // Witnesses may have signed it last under a key that the node had before.
    let own = |signed: &Checkpoint| signed.origin.node().is_some_and(|key| key == *node || former.contains(&key));
    if signed.as_ref().is_some_and(|signed| !own(signed)) {
        return Err(LedgerError::Witnessed(CheckpointError::Origin));
    }
    if let Some(signed) = &signed
        && scan.root_at != Some(signed.root)
    {
        return Err(LedgerError::NotWitnessed { witnessed: signed.size, size: scan.tree.size() });
    }
    let by = Checkpoint::cosignatures(witnessed.unwrap_or_default());
    let witnessed = signed.map(|signed| Witnessed {
        entries: signed.size,
        at: by.iter().map(|cosignature| cosignature.at).max(),
        by: by.iter().map(|cosignature| cosignature.witness).collect(),
    });
    Ok(Report {
        origin: Origin::of(node).to_string(),
        former,
        entries: scan.tree.size(),
        root: scan.tree.root(),
        bytes: scan.length,
        last,
        uncommitted_bytes: scan.tail,
        witnessed,
    })
}

/// The signed head and all entries that it counts, checked; may be read while the node runs.
///
/// # Errors
/// The first thing that is wrong with the ledger.
pub fn whole(directory: &Path, node: &PublicKey) -> Result<(String, Vec<Entry>), LedgerError> {
    let mut entries = Vec::new();
    let scan = scan(directory, node, None, &mut |entry| entries.push(entry))?;
    Ok((scan.note, entries))
}

/// The changes of its node's key that a ledger has recorded, with the numbers of their entries, in order. For showing, as
/// [`read`].
///
/// # Errors
/// As [`read`].
pub fn rotations(directory: &Path) -> Result<Vec<(u64, KeyRotation)>, LedgerError> {
    let (note, path) = read_checkpoint(directory)?;
    let size = Checkpoint::parse_self_named(&note).map_err(|source| LedgerError::Checkpoint { path, source })?.size;
    let mut frames = Frames::open(directory, size)?;
    let mut found = Vec::new();
    for index in 0..size {
        found.extend(decode(index, frames.next(index)?)?.record.key_rotation().map(|rotation| (index, rotation)));
    }
    Ok(found)
}

/// The key that has signed the head of a ledger, if there is a head.
#[must_use]
pub fn signed_by(directory: &Path) -> Option<PublicKey> {
    let (note, _) = read_checkpoint(directory).ok()?;
    Checkpoint::parse_self_named(&note).ok()?.origin.node()
}

/// Up to `limit` committed entries from the one numbered `from` (the first is 0), with their numbers. For showing: each
/// entry must be readable, but only [`verify`] checks them against the signed root.
///
/// # Errors
/// There is no ledger, or what was asked for cannot be read.
pub fn read(directory: &Path, from: u64, limit: usize) -> Result<Vec<(u64, Entry)>, LedgerError> {
    let (note, path) = read_checkpoint(directory)?;
    let size = Checkpoint::parse_self_named(&note).map_err(|source| LedgerError::Checkpoint { path, source })?.size;
    let mut frames = Frames::open(directory, size)?;
    let mut entries = Vec::new();
    for index in 0..size {
        if entries.len() >= limit {
            break;
        }
        if index < from {
            frames.skip(index)?;
        } else {
            entries.push((index, decode(index, frames.next(index)?)?));
        }
    }
    Ok(entries)
}

/// Reads a ledger whole, checks it against its checkpoint and hands each entry over, in order. What `each` has seen counts
/// only if this returns `Ok`. Of the first `mark` entries the root is given too.
pub(super) fn scan(
    directory: &Path,
    node: &PublicKey,
    mark: Option<u64>,
    each: &mut dyn FnMut(Entry),
) -> Result<Scan, LedgerError> {
    let (note, path) = read_checkpoint(directory)?;
    let checkpoint = Checkpoint::parse_verified(&note, node, &Origin::of(node))
        .map_err(|source| LedgerError::Checkpoint { path, source })?;
    let mut frames = Frames::open(directory, checkpoint.size)?;
    let mut tree = Merkle::default();
    let mut root_at = (mark == Some(0)).then(|| tree.root());
    for index in 0..checkpoint.size {
        let bytes = frames.next(index)?;
        let entry = decode(index, bytes)?;
        tree.append(entry.leaf_hash(bytes).map_err(|source| LedgerError::Damaged { index, source })?);
        if mark == Some(tree.size()) {
            root_at = Some(tree.root());
        }
        each(entry);
    }
    if tree.root() != checkpoint.root {
        return Err(LedgerError::OtherRoot { size: checkpoint.size });
    }
    let all = disk::length_of(&frames.path)?.unwrap_or(0);
    Ok(Scan { note, tree, root_at, length: frames.offset, tail: all.saturating_sub(frames.offset) })
}

/// The text of the checkpoint, and its path for what is said of it.
fn read_checkpoint(directory: &Path) -> Result<(String, PathBuf), LedgerError> {
    let path = directory.join(CHECKPOINT);
    let bytes = match read_bounded(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(match disk::length_of(&directory.join(ENTRIES))? {
                Some(_) => LedgerError::NoCheckpoint { path },
                None => LedgerError::Absent { path: directory.to_owned() },
            });
        }
        Err(source) => return Err(LedgerError::Io { what: "read", path, source }),
    };
    if bytes.len() > CHECKPOINT_BYTES_MAX {
        return Err(LedgerError::Checkpoint { path, source: CheckpointError::TooLarge });
    }
    match String::from_utf8(bytes) {
        Ok(note) => Ok((note, path)),
        Err(_) => Err(LedgerError::Checkpoint { path, source: CheckpointError::Note }),
    }
}

/// A file as long as a checkpoint may be, or one byte more of a longer one.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(CHECKPOINT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode(index: u64, bytes: &[u8]) -> Result<Entry, LedgerError> {
    Entry::decode(bytes).map_err(|source| LedgerError::Damaged { index, source })
}

/// Walks over the committed frames. Holds one entry at a time.
struct Frames {
    reader: BufReader<File>,
    path: PathBuf,
    /// Entries that there must be.
    size: u64,
    /// Bytes walked over.
    offset: u64,
    entry: Vec<u8>,
}

impl Frames {
    fn open(directory: &Path, size: u64) -> Result<Self, LedgerError> {
        let path = directory.join(ENTRIES);
        match File::open(&path) {
            Ok(file) => {
                let reader = BufReader::with_capacity(64 * 1024, file);
                Ok(Self { reader, path, size, offset: 0, entry: Vec::new() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LedgerError::NoEntries { path }),
            Err(source) => Err(LedgerError::Io { what: "open", path, source }),
        }
    }

    /// The length of the entry that comes now.
    fn length(&mut self, index: u64) -> Result<u32, LedgerError> {
        let mut length = [0; 4];
        self.reader.read_exact(&mut length).map_err(|error| self.failed(index, error))?;
        let length = u32::from_be_bytes(length);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes > RECORD_BYTES_MAX {
            return Err(LedgerError::Damaged { index, source: EntryError::TooLarge { bytes } });
        }
        self.offset = self.offset.saturating_add(4).saturating_add(length.into());
        Ok(length)
    }

    fn next(&mut self, index: u64) -> Result<&[u8], LedgerError> {
        let length = self.length(index)?;
        // Grows with what is there, not with what is announced.
        self.entry.clear();
        let read = (&mut self.reader).take(length.into()).read_to_end(&mut self.entry);
        match read.map(u32::try_from) {
            Ok(Ok(read)) if read == length => Ok(&self.entry),
            Ok(_) => Err(LedgerError::TooShort { index, size: self.size }),
            Err(error) => Err(self.failed(index, error)),
        }
    }

    fn skip(&mut self, index: u64) -> Result<(), LedgerError> {
        let length = self.length(index)?;
        self.reader.seek_relative(length.into()).map_err(|error| self.failed(index, error))
    }

    fn failed(&self, index: u64, error: io::Error) -> LedgerError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            LedgerError::TooShort { index, size: self.size }
        } else {
            LedgerError::Io { what: "read", path: self.path.clone(), source: error }
        }
    }
}
