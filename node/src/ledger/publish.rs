//! The ledger as a C2SP `tlog-tiles` log: a directory that any web server can serve and other implementations read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use alliance_protocol::{
    key::PublicKey,
    ledger::{BundleAt, Checkpoint, LEAF_BYTES_MAX, Origin, TileAt, Tiles},
};

use super::LedgerError;
use crate::durable::{self, Existing, FileError, Readers};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Published {
    /// The name of the log.
    pub origin: String,
    /// With what the tools of others verify its checkpoints.
    pub verifier_key: String,
    /// Entries of the checkpoint that was published.
    pub entries: u64,
    /// Tiles and bundles written; those that were there already do not change.
    pub files: u64,
}

/// Why a ledger was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{}` holds another log, or a longer history of this one", .0.display())]
    OtherLog(PathBuf),
}

/// Writes the tiles, with `bundles` also the entries, and then the checkpoint: the newest that witnesses signed, where there is
/// one, else that of the ledger. What a directory holds of the same log already is left as it is.
///
/// # Errors
/// The ledger is not whole, the directory holds something else, or the disk does not take it.
pub fn publish(
    ledger: &Path,
    node: &PublicKey,
    witnessed: Option<&str>,
    to: &Path,
    bundles: bool,
) -> Result<Published, PublishError> {
    let (note, entries) = super::whole(ledger, node)?;
    let mut leaves = Vec::with_capacity(entries.len());
    let mut tiles = Tiles::default();
    for entry in &entries {
        let bytes = entry.encode().map_err(LedgerError::Entry)?;
        let leaf = entry.leaf(&bytes).map_err(LedgerError::Entry)?.into_owned();
        tiles.append(alliance_protocol::ledger::leaf_hash(&leaf));
        leaves.push(leaf);
    }
    let origin = Origin::of(node);
    // What was signed under a key that the node had before is of a log of another name.
    let ours = |text: &&str| Checkpoint::parse_self_named(text).map_or(true, |head| head.origin == origin);
    let witnessed = witnessed.filter(ours);
    let own = |text: &str| Checkpoint::parse_verified(text, node, &origin).map_err(LedgerError::Witnessed);
    let (note, head) = match witnessed {
        Some(text) => (text, own(text)?),
        None => (note.as_str(), own(&note)?),
    };
    let size = head.size;
    if tiles.root_at(size) != Some(head.root) {
        return Err(LedgerError::NotWitnessed { witnessed: size, size: tiles.size() }.into());
    }
    check_same_log(to, &tiles, node)?;
    let mut files = 0;
    for at in TileAt::new_between(0, size) {
        let hashes = tiles.tile(at).unwrap_or_default();
        files +=
            u64::from(write_once(&to.join(at.to_string()), &hashes.iter().flat_map(|hash| hash.0).collect::<Vec<_>>())?);
    }
    for at in BundleAt::new_between(0, size).filter(|_| bundles) {
        let mut bundle = Vec::new();
        for index in at.entries() {
            let leaf = usize::try_from(index).ok().and_then(|index| leaves.get(index));
            let leaf = leaf.filter(|leaf| leaf.len() <= LEAF_BYTES_MAX).map_or(&[][..], Vec::as_slice);
            bundle.extend_from_slice(&u16::try_from(leaf.len()).unwrap_or_default().to_be_bytes());
            bundle.extend_from_slice(leaf);
        }
        files += u64::from(write_once(&to.join(at.to_string()), &bundle)?);
    }
    // Last: what a checkpoint names is there.
    durable::write(&to.join("checkpoint"), note.as_bytes(), Readers::All, Existing::Replace)?;
    Ok(Published { origin: origin.to_string(), verifier_key: Origin::verifier_key(node), entries: size, files })
}

/// A directory that holds a log already must hold this one, no longer than it is.
fn check_same_log(to: &Path, tiles: &Tiles, node: &PublicKey) -> Result<(), PublishError> {
    let path = to.join("checkpoint");
    let Some(bytes) = durable::read_if_there(&path, alliance_protocol::ledger::CHECKPOINT_BYTES_MAX)? else {
        return Ok(());
    };
    let text = String::from_utf8(bytes).unwrap_or_default();
    let same = Checkpoint::parse_verified(&text, node, &Origin::of(node))
        .is_ok_and(|head| tiles.root_at(head.size) == Some(head.root));
    if same { Ok(()) } else { Err(PublishError::OtherLog(path)) }
}

/// Writes a file that never changes, unless it is there. Says whether it was written.
fn write_once(path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == bytes.len() as u64) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(durable::at("make", folder))?;
    }
    durable::write(path, bytes, Readers::All, Existing::Replace)?;
    Ok(true)
}
