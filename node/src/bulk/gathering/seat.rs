//! One source's part in what comes to a directory.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use alliance_protocol::{
    border::{Cleared, Inbound},
    core::{BulkFailure, PartTaken},
    id::ManifestId,
    manifest::{Extent, Manifest},
};

use super::{
    super::{
        board::{Board, Piece, SourceId},
        receive::Alive,
        task::blocking,
    },
    Gathering, Phase, Place, gone,
};
use crate::models::{Staging, load_manifest};

/// Pieces that a source is asked for at once: choosing each looks at all that are missing.
const PIECES_AT_ONCE: usize = 32;

/// One source's part in a gathering. Gives back what it was asked for when it is dropped.
#[derive(Debug)]
pub(in crate::bulk) struct Seat {
    gathering: Arc<Gathering>,
    id: SourceId,
}

impl Seat {
    pub(super) fn new(gathering: Arc<Gathering>, id: SourceId) -> Self {
        Self { gathering, id }
    }

    pub(in crate::bulk) fn gathering(&self) -> &Arc<Gathering> {
        &self.gathering
    }

    /// Opens the staging place, once for all seats, and looks at what an earlier attempt left.
    pub(in crate::bulk) async fn open(&self, manifests: &Path, alive: &Alive) -> Result<(), BulkFailure> {
        let opening = || {
            let (gathering, manifests, alive) = (Arc::clone(&self.gathering), manifests.to_owned(), alive.clone());
            blocking(move || {
                let _alive = alive;
                // A manifest that cannot be read is as good as none: the exporter sends it.
                let known = load_manifest(&manifests, gathering.id).ok();
                gathering.use_staging(Staging::open_known(&gathering.to, gathering.id, known, &gathering.tensors)?);
                Ok(())
            })
        };
        self.gathering.opened.get_or_try_init(opening).await.copied()
    }

    /// Whether it is known from an earlier attempt what is missing.
    pub(in crate::bulk) fn knows_what_is_missing(&self) -> bool {
        self.gathering.progress().board.is_some()
    }

    /// Prepares the disk for what was cleared of an artefact, once for all seats, and takes what lies here already: `local`
    /// names the manifests and the directories in which to look.
    pub(in crate::bulk) async fn begin(
        &self,
        (manifest, cleared): (Manifest, Cleared),
        manifests: &Path,
        local: Vec<(ManifestId, PathBuf)>,
        alive: &Alive,
    ) -> Result<(), BulkFailure> {
        let beginning = || {
            let (gathering, manifests, alive) = (Arc::clone(&self.gathering), manifests.to_owned(), alive.clone());
            blocking(move || {
                let _alive = alive;
                gathering.begin(manifest, &cleared, &manifests, &local)
            })
        };
        self.gathering.begun.get_or_try_init(beginning).await.copied()?;
        self.gathering.clear(self.id);
        Ok(())
    }

    /// The crossing is over. The seat is left once nothing is at work for it any more.
    pub(in crate::bulk) fn over(&self) {
        self.gathering.unclear(self.id);
    }

    /// Says which groups the source has.
    pub(in crate::bulk) fn learn(&self, runs: &[(u64, u64)]) {
        if let Some(board) = &mut self.gathering.progress().board {
            board.learn(self.id, runs);
        }
    }

    /// Pieces to ask the source for, so that it owes at most `owed_max` bytes where it owes `owed` now, and no more than its
    /// share of what is left.
    pub(in crate::bulk) fn take(&self, mut owed: u64, owed_max: u64) -> Vec<Piece> {
        let now_ms = self.gathering.now_ms();
        let mut pieces = Vec::new();
        let mut progress = self.gathering.progress();
        let Some(board) = &mut progress.board else { return pieces };
        // One of several gets less and less of what is left, so that none of them comes last alone.
        let sources = u64::try_from(board.sources()).unwrap_or(u64::MAX);
        let share = |free: u64| if sources > 1 { free / sources.saturating_mul(2) } else { u64::MAX };
        while pieces.len() < PIECES_AT_ONCE && (owed == 0 || owed < owed_max.min(share(board.free_bytes()))) {
            let Some(piece) = board.take(self.id, now_ms) else { break };
            owed = owed.saturating_add(piece.bytes);
            pieces.push(piece);
        }
        pieces
    }

    /// As [`Seat::take`], of a source that is alone: all that is missing.
    pub(in crate::bulk) fn take_all(&self) -> Vec<Piece> {
        let now_ms = self.gathering.now_ms();
        self.gathering.progress().board.as_mut().map_or_else(Vec::new, |board| board.take_all(self.id, now_ms))
    }

    /// Whether every group is here.
    pub(in crate::bulk) fn is_complete(&self) -> bool {
        let progress = self.gathering.progress();
        progress.phase == Phase::Delivered || progress.board.as_ref().is_some_and(Board::is_complete)
    }

    /// Fails where the others wait for this source, or the artefact will not come any more. Where this one has nothing to do,
    /// it looks whom it waits for.
    pub(in crate::bulk) fn check(&self) -> Result<(), BulkFailure> {
        self.may_stay()?;
        let now_ms = self.gathering.now_ms();
        let mut progress = self.gathering.progress();
        let slow = progress.board.as_ref().and_then(|board| board.overdue(self.id, now_ms));
        if let Some(slow) = slow.filter(|slow| !progress.dropped.contains(slow)) {
            progress.dropped.push(slow);
            drop(progress);
            self.gathering.note_change();
        }
        Ok(())
    }

    /// The piece that the source brings next.
    pub(in crate::bulk) fn expected(&self) -> Option<(Manifest, Piece)> {
        let progress = self.gathering.progress();
        let piece = progress.board.as_ref().and_then(|board| board.expected(self.id))?;
        Some((progress.manifest.clone()?, piece))
    }

    /// Whether groups are written by a thread of its own, because the disk was slow or may be.
    pub(in crate::bulk) fn writes_apart(&self) -> bool {
        self.gathering.writes_apart.load(Ordering::Relaxed)
    }

    /// From now on they are, whoever brings them.
    pub(in crate::bulk) fn write_apart(&self) {
        self.gathering.writes_apart.store(true, Ordering::Relaxed);
    }

    /// Verifies groups and writes them to their place. Blocks.
    pub(in crate::bulk) fn write(&self, extent: &Extent, bytes: &[u8]) -> Result<(), BulkFailure> {
        match &mut *self.gathering.staging() {
            Place::Staging(staging) => staging.write(extent, bytes)?,
            Place::Nowhere | Place::Finishing(_) | Place::Delivered => return Err(gone()),
        }
        let index = |group: u64| usize::try_from(group).unwrap_or(usize::MAX);
        if let Some(here) = self.gathering.progress().here.get_mut(index(extent.first)..index(extent.end)) {
            here.fill(true);
        }
        Ok(())
    }

    /// The piece that the source was to bring next is verified and written.
    pub(in crate::bulk) fn arrived(&self) {
        if let Some(board) = &mut self.gathering.progress().board {
            board.arrived(self.id);
        }
        self.gathering.note_change();
    }

    /// Makes durable what was received, once for all seats.
    pub(in crate::bulk) async fn finish(&self, alive: &Alive) -> Result<(), BulkFailure> {
        let finishing = || {
            let (gathering, alive) = (Arc::clone(&self.gathering), alive.clone());
            blocking(move || {
                let _alive = alive;
                gathering.finish()
            })
        };
        self.gathering.finished.get_or_try_init(finishing).await.copied()
    }

    /// Puts the artefact in its place; where another source was first, it is there already. `keep` is given the manifest
    /// before. Blocks.
    pub(in crate::bulk) fn deliver(
        &self,
        inbound: Inbound,
        keep: impl Fn(&Manifest) -> Result<(), BulkFailure>,
    ) -> Result<(), BulkFailure> {
        let outcome = self.gathering.deliver(inbound, keep);
        self.gathering.progress().phase = if outcome.is_ok() { Phase::Delivered } else { Phase::Gone };
        self.gathering.note_change();
        outcome
    }

    /// Waits until the others have to go on without this source, in whatever it is just now.
    pub(in crate::bulk) async fn dropped(&self) -> BulkFailure {
        let mut changes = self.gathering.changes();
        loop {
            changes.borrow_and_update();
            if let Err(failure) = self.may_stay() {
                return failure;
            }
            if changes.changed().await.is_err() {
                return gone();
            }
        }
    }

    fn may_stay(&self) -> Result<(), BulkFailure> {
        let progress = self.gathering.progress();
        if progress.dropped.contains(&self.id) {
            return Err(BulkFailure::Lost("it was too slow: all else had come from others".to_owned()));
        }
        if progress.phase == Phase::Gone { Err(gone()) } else { Ok(()) }
    }

    /// Whether only a part of the artefact is wanted.
    pub(in crate::bulk) fn is_of_part(&self) -> bool {
        !self.gathering.tensors.is_empty()
    }

    /// What was taken of it, once that is finished; none where all was.
    pub(in crate::bulk) fn part(&self) -> Option<PartTaken> {
        self.gathering.progress().part.clone()
    }

    /// Bytes that were to come from elsewhere when the first attempt began.
    pub(in crate::bulk) fn wanted_bytes(&self) -> u64 {
        self.gathering.progress().wanted_bytes
    }

    /// Bytes that are not here yet.
    pub(in crate::bulk) fn missing_bytes(&self) -> u64 {
        self.gathering.progress().board.as_ref().map_or(0, Board::missing_bytes)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gathering.leave(self.id);
    }
}
