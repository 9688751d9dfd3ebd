//! What is on its way to this node, for those of its own organisation who read it meanwhile.
//!
//! An [`Arrival`] is had only of what a permission let in, and gives out only groups that were verified. When the crossing
//! ends before everything is there, so does what is read of it.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use alliance_protocol::{
    core::BulkFailure,
    id::ManifestId,
    manifest::{Extent, Manifest},
};

use super::{super::board::ReaderId, Files, Gathering, Gatherings, Phase, gone};
use crate::models::Compared;

/// Groups that are looked at for what can be read next, while whoever brings them waits: several times what is read at once.
const LOOKED_AT_MAX: u64 = 4096;

/// Where to look for what is on its way to this node.
#[derive(Clone, Debug)]
pub struct Arrivals(Arc<Gatherings>);

/// An artefact that was cleared for this node and is on its way to a directory.
#[derive(Clone, Debug)]
pub struct Arrival {
    gathering: Arc<Gathering>,
    manifest: Manifest,
}

/// One that reads groups while they come. They are fetched before all else, until it is dropped.
#[derive(Debug)]
pub struct ArrivalReader {
    gathering: Arc<Gathering>,
    files: Files,
    id: ReaderId,
}

impl Arrivals {
    pub(in crate::bulk) fn of(gatherings: Arc<Gatherings>) -> Self {
        Self(gatherings)
    }

    /// What this node knows to lie where it was delivered as it was verified.
    #[must_use]
    pub fn compared(&self) -> Arc<Compared> {
        Arc::clone(&self.0.compared)
    }

    /// What comes to a directory now, if it is all of this artefact and was cleared.
    #[must_use]
    pub fn find(&self, to: &Path, id: ManifestId) -> Option<Arrival> {
        let gathering = self.0.find(to, id)?;
        let manifest = {
            let progress = gathering.progress();
            let coming = progress.phase == Phase::Coming && progress.is_readable();
            progress.manifest.clone().filter(|_| coming)?
        };
        Some(Arrival { gathering, manifest })
    }

    /// As [`Arrivals::find`], as soon as there is something to find.
    pub async fn await_one(&self, to: &Path, id: ManifestId) -> Arrival {
        let mut cleared = self.0.cleared.subscribe();
        loop {
            cleared.borrow_and_update();
            if let Some(found) = self.find(to, id) {
                return found;
            }
            // The sender lives as long as this does.
            if cleared.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Arrival {
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Begins to read groups, in their order.
    #[must_use]
    pub fn reader(&self, groups: Range<u64>) -> ArrivalReader {
        static READERS: AtomicU64 = AtomicU64::new(0);
        let id = ReaderId(READERS.fetch_add(1, Ordering::Relaxed));
        if let Some(board) = &mut self.gathering.progress().board {
            board.read(id, groups);
        }
        self.gathering.note_change();
        let gathering = Arc::clone(&self.gathering);
        ArrivalReader { files: Files::of(Arc::clone(&gathering)), gathering, id }
    }
}

impl ArrivalReader {
    /// Waits until the first of these groups is here; the group after those that are here one after the other, or after so many
    /// of them as are looked at.
    ///
    /// # Errors
    /// No more will come.
    pub async fn ready(&self, groups: Range<u64>) -> Result<u64, BulkFailure> {
        let mut changes = self.gathering.changes();
        loop {
            changes.borrow_and_update();
            {
                let progress = self.gathering.progress();
                if !progress.is_readable() {
                    return Err(gone());
                }
                let is_here = |group: &u64| {
                    usize::try_from(*group).ok().and_then(|group| progress.here.get(group)).is_some_and(|here| *here)
                };
                let looked_at = groups.start..groups.end.min(groups.start.saturating_add(LOOKED_AT_MAX));
                let end = looked_at.clone().find(|group| !is_here(group)).unwrap_or(looked_at.end);
                if end > groups.start {
                    return Ok(end);
                }
            }
            changes.changed().await.map_err(|_| gone())?;
        }
    }

    /// Reads groups that are here. Blocks.
    ///
    /// # Errors
    /// They are not here, or not any more, or not as they were.
    pub fn read(&mut self, extent: &Extent, buffer: &mut [u8]) -> Result<(), BulkFailure> {
        if !self.gathering.progress().is_readable() {
            return Err(gone());
        }
        let manifest = self.gathering.holds(extent)?.ok_or_else(gone)?;
        self.files.read(&manifest, extent, buffer)
    }

    /// Whether what is read may still be: it comes, or lies where it was put.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let (readable, phase) = {
            let progress = self.gathering.progress();
            (progress.is_readable(), progress.phase)
        };
        readable && (phase == Phase::Coming || (self.gathering.to.is_dir() && self.files.has_names()))
    }
}

impl Drop for ArrivalReader {
    fn drop(&mut self) {
        if let Some(board) = &mut self.gathering.progress().board {
            board.unread(self.id);
        }
    }
}
