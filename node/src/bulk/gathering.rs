//! What is on its way to one directory, from however many sources.
//!
//! All pulls to one directory share a [`Gathering`]: the staging place, owned here, and the [`Board`] that says who brings
//! what. Each source has a [`Seat`]; when the last one leaves before the artefact was delivered, the staging place is closed,
//! and what came is kept for a later attempt. What is here already can be read while the rest still comes, so that this node
//! may serve it.
//!
//! Two locks, never held together: `staging` is taken by threads that may wait for the disk, `progress` by the thread that
//! moves packets, and never for long.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use alliance_protocol::{
    border::{Cleared, Inbound},
    core::{BulkFailure, PartTaken},
    crossing::RefusalCode,
    id::{CrossingId, ManifestId},
    manifest::{Extent, Manifest, Selection, runs_of},
};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, watch},
    time::timeout,
};

use super::{
    board::{Board, Piece, SourceId},
    receive::Alive,
    task::blocking,
};
use crate::models::{Source, Staging, Taking, TensorPattern, fill_from, load_manifest};

/// Pieces that a source is asked for at once: choosing each looks at all that are missing.
const PIECES_AT_ONCE: usize = 32;

/// All that is on its way to this node, by the directory that it goes to.
#[derive(Debug, Default)]
pub(super) struct Gatherings(Mutex<HashMap<PathBuf, Weak<Gathering>>>);

/// One artefact on its way to one directory.
#[derive(Debug)]
pub(super) struct Gathering {
    to: PathBuf,
    id: ManifestId,
    /// What is wanted of it; all, where none.
    tensors: Vec<TensorPattern>,
    seed: u64,
    began: Instant,
    staging: Mutex<Place>,
    progress: Mutex<Progress>,
    /// Grows with everything that somebody may wait for.
    changed: watch::Sender<u64>,
    opened: OnceCell<()>,
    begun: OnceCell<()>,
    finished: OnceCell<()>,
}

/// Where the artefact lies.
#[derive(Debug)]
enum Place {
    Nowhere,
    Staging(Box<Staging>),
    /// All of it is in the staging place, of which these are the files, and is being made durable.
    Finishing(PathBuf, Option<Source>),
    /// Under its final name; opened when somebody reads it.
    Delivered(Option<Source>),
}

#[derive(Debug, Default)]
struct Progress {
    phase: Phase,
    manifest: Option<Manifest>,
    /// None until the manifest is known and the disk is prepared.
    board: Option<Board>,
    /// Which groups are verified and written.
    here: Vec<bool>,
    /// Bytes that were to come from elsewhere when it began.
    wanted_bytes: u64,
    /// Of a part, what was left out of it, and then what it is.
    left_out: u32,
    part: Option<PartTaken>,
    seats: Vec<SourceId>,
    next_seat: u32,
    /// Sources that hold the others up.
    dropped: Vec<SourceId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Coming,
    Delivered,
    /// It will not come by this attempt.
    Gone,
}

/// One source's part in a gathering. Gives back what it was asked for when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    gathering: Arc<Gathering>,
    id: SourceId,
}

impl Gatherings {
    /// Takes a seat at what goes to a directory; opens it where nobody has.
    pub(super) fn join(&self, to: &Path, id: ManifestId, tensors: &[TensorPattern], crossing: CrossingId) -> Arc<Seat> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, gathering| gathering.strong_count() > 0);
        let same = |open: &Arc<Gathering>| open.id == id && open.tensors == tensors;
        let coming = |open: &Arc<Gathering>| same(open) && open.progress().phase == Phase::Coming;
        let gathering = known.get(to).and_then(Weak::upgrade).filter(coming).unwrap_or_else(|| {
            let seed = crossing.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            let gathering = Arc::new(Gathering::new(to.to_owned(), id, tensors.to_vec(), seed));
            known.insert(to.to_owned(), Arc::downgrade(&gathering));
            gathering
        });
        let id = gathering.take_seat();
        Arc::new(Seat { gathering, id })
    }

    /// What is on its way to a directory, all of it.
    pub(super) fn find(&self, to: &Path, id: ManifestId) -> Option<Arc<Gathering>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(to).and_then(Weak::upgrade).filter(|gathering| gathering.id == id && gathering.tensors.is_empty())
    }
}

impl Gathering {
    fn new(to: PathBuf, id: ManifestId, tensors: Vec<TensorPattern>, seed: u64) -> Self {
        let (changed, _) = watch::channel(0);
        let (opened, begun, finished) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        let (staging, progress) = (Mutex::new(Place::Nowhere), Mutex::default());
        Self { to, id, tensors, seed, began: Instant::now(), staging, progress, changed, opened, begun, finished }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Each change is whole by itself; what a panicking thread left is at worst a group that is asked for again.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn staging(&self) -> MutexGuard<'_, Place> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_change(&self) {
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn take_seat(&self) -> SourceId {
        let mut progress = self.progress();
        let id = SourceId(progress.next_seat);
        progress.next_seat = progress.next_seat.saturating_add(1);
        progress.seats.push(id);
        if let Some(board) = &mut progress.board {
            board.join(id);
        }
        id
    }

    fn leave(&self, seat: SourceId) {
        let mut progress = self.progress();
        progress.seats.retain(|other| *other != seat);
        if let Some(board) = &mut progress.board {
            board.leave(seat);
        }
        if progress.seats.is_empty() && progress.phase == Phase::Coming {
            progress.phase = Phase::Gone;
        }
        drop(progress);
        self.note_change();
    }

    /// Closes the staging place where nobody has a seat any more, so that a later attempt finds it free.
    pub(super) async fn let_go(self: Arc<Self>) -> Result<(), BulkFailure> {
        if self.progress().phase != Phase::Gone {
            return Ok(());
        }
        blocking(move || {
            *self.staging() = Place::Nowhere;
            Ok(())
        })
        .await
    }

    /// Everything that changes after this was called wakes the receiver.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The manifest, as soon as there is a place for what comes; for one that serves it on.
    pub(super) async fn known_manifest(&self, limit: Duration) -> Result<Manifest, BulkFailure> {
        let mut changes = self.changes();
        let known = async {
            loop {
                changes.borrow_and_update();
                {
                    let progress = self.progress();
                    match (&progress.manifest, progress.phase) {
                        (Some(manifest), Phase::Coming | Phase::Delivered) => return Ok(manifest.clone()),
                        (_, Phase::Gone) => return Err(gone()),
                        (None, Phase::Coming | Phase::Delivered) => {}
                    }
                }
                if changes.changed().await.is_err() {
                    return Err(gone());
                }
            }
        };
        timeout(limit, known).await.unwrap_or_else(|_| Err(gone()))
    }

    /// The groups that are here and of which `told` does not say so yet; from then on it does. Fails where no more will come.
    pub(super) fn news(&self, told: &mut Vec<bool>) -> Result<Vec<(u64, u64)>, BulkFailure> {
        let progress = self.progress();
        match progress.phase {
            Phase::Coming | Phase::Delivered => Ok(news_of(told, &progress.here)),
            Phase::Gone => Err(gone()),
        }
    }

    /// Reads groups, as soon as they are here, and compares them with the manifest once more. Blocks; not for longer than until
    /// the next groups have come where they are not wanted any more.
    pub(super) fn read(&self, extent: &Extent, buffer: &mut [u8], is_wanted: impl Fn() -> bool) -> Result<(), BulkFailure> {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if !is_wanted() {
                return Err(gone());
            }
            let ready = {
                let progress = self.progress();
                if progress.phase == Phase::Gone {
                    return Err(gone());
                }
                let index = |group: u64| usize::try_from(group).unwrap_or(usize::MAX);
                let here = progress.here.get(index(extent.first)..index(extent.end));
                progress.manifest.clone().filter(|_| here.is_some_and(|here| here.iter().all(|here| *here)))
            };
            if let Some(manifest) = ready {
                self.read_place(&manifest, extent, buffer)?;
                let changed = |untrue: alliance_protocol::manifest::Untrue| BulkFailure::Tampered(untrue.to_string());
                return manifest.verify_extent(extent, buffer).map_err(changed);
            }
            if Handle::current().block_on(changes.changed()).is_err() {
                return Err(gone());
            }
        }
    }

    fn read_place(&self, manifest: &Manifest, extent: &Extent, buffer: &mut [u8]) -> Result<(), BulkFailure> {
        match &mut *self.staging() {
            Place::Staging(staging) => Ok(staging.read(extent, buffer)?),
            Place::Finishing(_, Some(source)) | Place::Delivered(Some(source)) => Ok(source.read(extent, buffer)?),
            Place::Finishing(files, unopened) => {
                Ok(unopened.insert(Source::open(files, manifest.clone())?).read(extent, buffer)?)
            }
            Place::Delivered(unopened) => {
                Ok(unopened.insert(Source::open(&self.to, manifest.clone())?).read(extent, buffer)?)
            }
            Place::Nowhere => Err(gone()),
        }
    }

    /// Takes over a staging place that was opened. Where the manifest is known, so is what is missing.
    fn use_staging(&self, staging: Staging) {
        let known =
            staging.manifest().cloned().map(|manifest| (manifest, staging.flags().to_vec(), staging.wanted_bytes()));
        *self.staging() = Place::Staging(Box::new(staging));
        if let Some((manifest, here, wanted_bytes)) = known {
            self.use_manifest(manifest, here, wanted_bytes);
        }
    }

    /// Says what is missing, unless that is known already.
    fn use_manifest(&self, manifest: Manifest, here: Vec<bool>, wanted_bytes: u64) {
        // Before the lock is taken: it looks at every group.
        let mut board = Board::new(&manifest, runs_of(here.iter().map(|here| !here)), self.seed);
        let mut progress = self.progress();
        if progress.board.is_none() {
            for seat in &progress.seats {
                board.join(*seat);
            }
            (progress.board, progress.manifest, progress.here) = (Some(board), Some(manifest), here);
            progress.wanted_bytes = wanted_bytes;
        }
        drop(progress);
        self.note_change();
    }

    fn begin(
        &self,
        manifest: Manifest,
        cleared: &Cleared,
        manifests: &Path,
        local: &[(ManifestId, PathBuf)],
    ) -> Result<(), BulkFailure> {
        let selection = if self.tensors.is_empty() { None } else { Some(self.select(&manifest, cleared)?) };
        let (here, wanted_bytes) = {
            let mut place = self.staging();
            let Place::Staging(staging) = &mut *place else { return Err(gone()) };
            let is_new = staging.manifest().is_none();
            match &selection {
                Some(selection) => staging.begin_part(selection)?,
                None => staging.begin(&manifest)?,
            }
            if is_new {
                let found = fill_from(staging, &manifest, manifests, local)?;
                if found > 0 {
                    tracing::info!(bytes = found, "parts of an artefact lay here already");
                }
            }
            (staging.flags().to_vec(), staging.wanted_bytes())
        };
        self.progress().left_out = selection.map_or(0, |selection| selection.left_out());
        self.use_manifest(manifest, here, wanted_bytes);
        Ok(())
    }

    /// The part that is wanted and cleared.
    fn select(&self, manifest: &Manifest, cleared: &Cleared) -> Result<Selection, BulkFailure> {
        let mut taking = Taking::new(&self.tensors);
        let selection = Selection::new(manifest, |labels| cleared.admits(labels), |candidate| taking.takes(candidate));
        if let Some(unused) = taking.unused() {
            return Err(BulkFailure::Unwanted(format!("`{}` fits no tensor and no file of it", unused.as_str())));
        }
        selection.map_err(|error| BulkFailure::Unwanted(error.to_string()))
    }
}

impl Seat {
    pub(super) fn gathering(&self) -> &Arc<Gathering> {
        &self.gathering
    }

    /// Opens the staging place, once for all seats, and looks at what an earlier attempt left.
    pub(super) async fn open(&self, manifests: &Path, alive: &Alive) -> Result<(), BulkFailure> {
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
    pub(super) fn knows_what_is_missing(&self) -> bool {
        self.gathering.progress().board.is_some()
    }

    /// Prepares the disk for what was cleared of an artefact, once for all seats, and takes what lies here already: `local`
    /// names the manifests and the directories in which to look.
    pub(super) async fn begin(
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
        self.gathering.begun.get_or_try_init(beginning).await.copied()
    }

    /// Says which groups the source has.
    pub(super) fn learn(&self, runs: &[(u64, u64)]) {
        if let Some(board) = &mut self.gathering.progress().board {
            board.learn(self.id, runs);
        }
    }

    /// Pieces to ask the source for, so that it owes at most `owed_max` bytes where it owes `owed` now, and no more than its
    /// share of what is left.
    pub(super) fn take(&self, mut owed: u64, owed_max: u64) -> Vec<Piece> {
        let now_ms = self.gathering.now_ms();
        let mut pieces = Vec::new();
        let mut progress = self.gathering.progress();
        let Some(board) = &mut progress.board else { return pieces };
        let sources = u64::try_from(board.sources()).unwrap_or(u64::MAX).max(1);
        while pieces.len() < PIECES_AT_ONCE
            && (owed == 0 || owed < owed_max.min(board.free_bytes() / sources.saturating_mul(2)))
        {
            let Some(piece) = board.take(self.id, now_ms) else { break };
            owed = owed.saturating_add(piece.bytes);
            pieces.push(piece);
        }
        pieces
    }

    /// As [`Seat::take`], of a source that is alone: all that is missing.
    pub(super) fn take_all(&self) -> Vec<Piece> {
        let now_ms = self.gathering.now_ms();
        self.gathering.progress().board.as_mut().map_or_else(Vec::new, |board| board.take_all(self.id, now_ms))
    }

    /// Whether every group is here.
    pub(super) fn is_complete(&self) -> bool {
        let progress = self.gathering.progress();
        progress.phase == Phase::Delivered || progress.board.as_ref().is_some_and(Board::is_complete)
    }

    /// Fails where the others wait for this source, or the artefact will not come any more. Where this one has nothing to do,
    /// it looks whom it waits for.
    pub(super) fn check(&self) -> Result<(), BulkFailure> {
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
    pub(super) fn expected(&self) -> Option<(Manifest, Piece)> {
        let progress = self.gathering.progress();
        let piece = progress.board.as_ref().and_then(|board| board.expected(self.id))?;
        Some((progress.manifest.clone()?, piece))
    }

    /// Verifies groups and writes them to their place. Blocks.
    pub(super) fn write(&self, extent: &Extent, bytes: &[u8]) -> Result<(), BulkFailure> {
        match &mut *self.gathering.staging() {
            Place::Staging(staging) => staging.write(extent, bytes)?,
            Place::Nowhere | Place::Finishing(..) | Place::Delivered(_) => return Err(gone()),
        }
        let index = |group: u64| usize::try_from(group).unwrap_or(usize::MAX);
        if let Some(here) = self.gathering.progress().here.get_mut(index(extent.first)..index(extent.end)) {
            here.fill(true);
        }
        Ok(())
    }

    /// The piece that the source was to bring next is verified and written.
    pub(super) fn arrived(&self) {
        if let Some(board) = &mut self.gathering.progress().board {
            board.arrived(self.id);
        }
        self.gathering.note_change();
    }

    /// Makes durable what was received, once for all seats.
    pub(super) async fn finish(&self, alive: &Alive) -> Result<(), BulkFailure> {
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
    pub(super) fn deliver(
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
    pub(super) async fn dropped(&self) -> BulkFailure {
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
    pub(super) fn is_of_part(&self) -> bool {
        !self.gathering.tensors.is_empty()
    }

    /// What was taken of it, once that is finished; none where all was.
    pub(super) fn part(&self) -> Option<PartTaken> {
        self.gathering.progress().part.clone()
    }

    /// Bytes that were to come from elsewhere when the first attempt began.
    pub(super) fn wanted_bytes(&self) -> u64 {
        self.gathering.progress().wanted_bytes
    }

    /// Bytes that are not here yet.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.gathering.progress().board.as_ref().map_or(0, Board::missing_bytes)
    }
}

impl Gathering {
    /// Makes durable what was received. It can be read meanwhile, however long the disk takes.
    fn finish(&self) -> Result<(), BulkFailure> {
        let mut staging = {
            let mut place = self.staging();
            match std::mem::replace(&mut *place, Place::Nowhere) {
                Place::Staging(staging) => {
                    *place = Place::Finishing(staging.lies_at(), None);
                    staging
                }
                Place::Delivered(source) => {
                    *place = Place::Delivered(source);
                    return Ok(());
                }
                Place::Nowhere | Place::Finishing(..) => return Err(gone()),
            }
        };
        let outcome = staging.finish();
        if let (Some(made), false) = (staging.made(), self.tensors.is_empty()) {
            let mut progress = self.progress();
            progress.part = Some(PartTaken {
                manifest: made.id(),
                bytes: made.bytes(),
                files: u32::try_from(made.files().len()).unwrap_or(u32::MAX),
                tensors: made.tensors(),
                left_out: progress.left_out,
            });
        }
        let mut place = self.staging();
        if matches!(*place, Place::Finishing(..)) {
            *place = Place::Staging(staging);
        }
        Ok(outcome?)
    }

    fn deliver(&self, inbound: Inbound, keep: impl Fn(&Manifest) -> Result<(), BulkFailure>) -> Result<(), BulkFailure> {
        let mut place = self.staging();
        match std::mem::replace(&mut *place, Place::Nowhere) {
            Place::Staging(staging) => {
                // Of a part also the manifest of the whole: by it the same part is known again.
                for manifest in [staging.manifest(), staging.made()].into_iter().flatten() {
                    keep(manifest)?;
                }
                let delivered = staging.deliver(inbound)?;
                tracing::info!(place = %delivered.display(), "an artefact was delivered");
                *place = Place::Delivered(None);
            }
            delivered @ Place::Delivered(_) if inbound.manifest() == self.id => *place = delivered,
            Place::Nowhere | Place::Finishing(..) | Place::Delivered(_) => return Err(gone()),
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gathering.leave(self.id);
    }
}

/// The artefact does not come any more; why, the pull that brought it has said.
fn gone() -> BulkFailure {
    BulkFailure::EndedHere(RefusalCode::Ended)
}

/// The runs of `here` that `told` does not have; it has them afterwards.
fn news_of(told: &mut Vec<bool>, here: &[bool]) -> Vec<(u64, u64)> {
    told.resize(here.len(), false);
    let news = runs_of(told.iter().zip(here).map(|(told, here)| *here && !*told));
    told.iter_mut().zip(here).for_each(|(told, here)| *told |= *here);
    news
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::bulk::board::tests::manifest;

    #[tokio::test]
    async fn nobody_waits_for_groups_that_are_not_wanted_any_more() {
        let manifest = manifest(1);
        let seat = Gatherings::default().join(Path::new("/nowhere"), manifest.id(), &[], CrossingId([1; 32]));
        let gathering = Arc::clone(seat.gathering());
        let missing = vec![false; usize::try_from(manifest.group_count()).expect("few")];
        gathering.use_manifest(manifest.clone(), missing, manifest.bytes());

        let (wanted, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let reading = {
            let (gathering, wanted, asked) = (Arc::clone(&gathering), Arc::clone(&wanted), Arc::clone(&asked));
            tokio::task::spawn_blocking(move || {
                let extent = manifest.extents_in(vec![(0, 1)]).next().expect("a group");
                let is_wanted = || {
                    asked.fetch_add(1, Ordering::SeqCst);
                    wanted.load(Ordering::SeqCst)
                };
                gathering.read(&extent, &mut vec![0; 1000], is_wanted)
            })
        };
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // The importer leaves, and groups come that nobody waits for.
        wanted.store(false, Ordering::SeqCst);
        gathering.note_change();
        let ended = timeout(Duration::from_secs(60), reading).await.expect("it hangs").expect("it ran");
        assert_eq!(ended, Err(gone()));
    }

    #[test]
    fn news_is_told_once() {
        let mut told = Vec::new();
        assert_eq!(news_of(&mut told, &[true, true, false, true]), [(0, 2), (3, 4)]);
        assert_eq!(news_of(&mut told, &[true, true, false, true]), []);
        assert_eq!(news_of(&mut told, &[true, true, true, true, true]), [(2, 3), (4, 5)]);
    }
}
