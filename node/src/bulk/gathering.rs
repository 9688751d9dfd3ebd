//! What is on its way to one directory, from however many sources.
//!
//! All pulls to one directory share a [`Gathering`]: the staging place, owned here, and the [`Board`] that says who brings
//! what. Each source has a [`Seat`]; when the last one leaves before the artefact was delivered, the staging place is closed,
//! and what came is kept for a later attempt. What is here already can be read while the rest still comes, so that this node
//! may serve it.
//!
//! Two locks, never held together: `staging` is taken by who may wait for the disk, and `progress` never for long.

mod arrival;
mod files;
mod seat;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use alliance_protocol::{
    border::{Cleared, Inbound},
    core::{BulkFailure, PartTaken},
    crossing::RefusalCode,
    id::ManifestId,
    key::PublicKey,
    manifest::{Manifest, Selection, SelectionError, runs_of},
};
use tokio::{
    sync::{OnceCell, watch},
    time::timeout,
};

pub use self::arrival::{Arrival, ArrivalReader, Arrivals};
pub(super) use self::{files::Files, seat::Seat};
use super::{
    board::{Board, SourceId},
    pull::Reach,
    task::blocking,
};
use crate::models::{Compared, Staging, Taking, TensorPattern, fill_from};

/// All that is on its way to this node, by the directory that it goes to.
#[derive(Debug)]
pub(super) struct Gatherings {
    me: PublicKey,
    compared: Arc<Compared>,
    coming: Mutex<HashMap<PathBuf, Weak<Gathering>>>,
    /// Grows whenever something that comes was cleared.
    cleared: watch::Sender<u64>,
}

/// One artefact on its way to one directory.
#[derive(Debug)]
pub(super) struct Gathering {
    to: PathBuf,
    id: ManifestId,
    /// What is wanted of it; all, where none.
    tensors: Vec<TensorPattern>,
    me: PublicKey,
    seed: u64,
    began: Instant,
    staging: Mutex<Place>,
    progress: Mutex<Progress>,
    /// What is read is compared with the manifest: others than this process can write to the files, or soon can, or not all of it
    /// was verified by this process.
    exposed: AtomicBool,
    /// The thread that moves packets does not write here: a disk was slow, or may be.
    writes_apart: AtomicBool,
    compared: Arc<Compared>,
    /// Grows with everything that somebody may wait for.
    changed: watch::Sender<u64>,
    /// Of all that comes.
    cleared: watch::Sender<u64>,
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
    Finishing(PathBuf),
    /// Under its final name.
    Delivered,
}

#[derive(Debug, Default)]
struct Progress {
    phase: Phase,
    /// The seats for which a permission let it in, and whose crossing runs. What an earlier attempt left lies here before there
    /// is one.
    cleared: Vec<SourceId>,
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
    /// Each with the number by which everyone knows its source.
    seats: Vec<(SourceId, u64)>,
    next_seat: u32,
    /// Sources that hold the others up.
    dropped: Vec<SourceId>,
}

impl Progress {
    /// Whether those of this node's organisation may read what is here.
    fn is_readable(&self) -> bool {
        match self.phase {
            Phase::Coming => !self.cleared.is_empty(),
            Phase::Delivered => true,
            Phase::Gone => false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Coming,
    Delivered,
    /// It will not come by this attempt.
    Gone,
}

impl Gatherings {
    pub(super) fn new(me: PublicKey, compared: Arc<Compared>) -> Self {
        Self { me, compared, coming: Mutex::default(), cleared: watch::channel(0).0 }
    }

    /// Takes a seat at what goes to a directory; opens it where nobody has.
    pub(super) fn join(&self, reach: &Reach) -> Arc<Seat> {
        let mut known = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, gathering| gathering.strong_count() > 0);
        let same = |open: &Arc<Gathering>| open.id == reach.manifest && open.tensors == reach.tensors;
        let coming = |open: &Arc<Gathering>| same(open) && open.progress().phase == Phase::Coming;
        let gathering = known.get(&reach.to).and_then(Weak::upgrade).filter(coming).unwrap_or_else(|| {
            let gathering = Arc::new(Gathering::new(reach, self.me, Arc::clone(&self.compared), self.cleared.clone()));
            known.insert(reach.to.clone(), Arc::downgrade(&gathering));
            gathering
        });
        let id = gathering.take_seat(reach.peer);
        Arc::new(Seat::new(gathering, id))
    }

    /// What is on its way to a directory, all of it.
    pub(super) fn find(&self, to: &Path, id: ManifestId) -> Option<Arc<Gathering>> {
        let known = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(to).and_then(Weak::upgrade).filter(|gathering| gathering.id == id && gathering.tensors.is_empty())
    }
}

impl Gathering {
    fn new(reach: &Reach, me: PublicKey, compared: Arc<Compared>, cleared: watch::Sender<u64>) -> Self {
        let (changed, _) = watch::channel(0);
        let seed = reach.crossing.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self {
            to: reach.to.clone(),
            id: reach.manifest,
            tensors: reach.tensors.clone(),
            me,
            seed,
            began: Instant::now(),
            staging: Mutex::new(Place::Nowhere),
            progress: Mutex::default(),
            exposed: AtomicBool::new(false),
            writes_apart: AtomicBool::new(false),
            compared,
            changed,
            cleared,
            opened: OnceCell::new(),
            begun: OnceCell::new(),
            finished: OnceCell::new(),
        }
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

    fn take_seat(&self, source: PublicKey) -> SourceId {
        let mut progress = self.progress();
        let id = SourceId(progress.next_seat);
        progress.next_seat = progress.next_seat.saturating_add(1);
        progress.seats.push((id, number_of(source)));
        if let Some(board) = &mut progress.board {
            board.join(id, number_of(source));
        }
        id
    }

    fn leave(&self, seat: SourceId) {
        let mut progress = self.progress();
        progress.seats.retain(|(other, _)| *other != seat);
        progress.cleared.retain(|other| *other != seat);
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

    /// Takes over a staging place that was opened. Where the manifest is known, so is what is missing.
    fn use_staging(&self, staging: Staging) {
        self.exposed.store(!staging.is_own_work(), Ordering::Release);
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
        let mut board = Board::new(&manifest, runs_of(here.iter().map(|here| !here)), number_of(self.me), self.seed);
        let mut progress = self.progress();
        if progress.board.is_none() {
            for (seat, number) in &progress.seats {
                board.join(*seat, *number);
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
            if !staging.is_local() {
                self.writes_apart.store(true, Ordering::Relaxed);
            }
            (staging.flags().to_vec(), staging.wanted_bytes())
        };
        self.progress().left_out = selection.map_or(0, |selection| selection.left_out());
        self.use_manifest(manifest, here, wanted_bytes);
        Ok(())
    }

    /// A permission for a seat was opened.
    fn clear(&self, seat: SourceId) {
        self.progress().cleared.push(seat);
        self.cleared.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// The crossing of a seat is over, however long the disk is still at work for it: nothing is read of it from now on.
    fn unclear(&self, seat: SourceId) {
        self.progress().cleared.retain(|other| *other != seat);
        self.note_change();
    }

    /// The part that is wanted and cleared.
    fn select(&self, manifest: &Manifest, cleared: &Cleared) -> Result<Selection, BulkFailure> {
        let mut taking = Taking::new(&self.tensors);
        let selection = Selection::new(manifest, |labels| cleared.admits(labels), |candidate| taking.takes(candidate));
        if let Some(unused) = taking.unused() {
            return Err(BulkFailure::Unwanted(format!("`{}` fits no tensor and no file of it", unused.as_str())));
        }
        selection.map_err(|error| match error {
            SelectionError::Nothing { left_out: 1.. } => BulkFailure::Barred(error.to_string()),
            error => BulkFailure::Unwanted(error.to_string()),
        })
    }
}

impl Gathering {
    /// Makes durable what was received. It can be read meanwhile, however long the disk takes.
    fn finish(&self) -> Result<(), BulkFailure> {
        let mut staging = {
            let mut place = self.staging();
            match std::mem::replace(&mut *place, Place::Nowhere) {
                Place::Staging(staging) => {
                    *place = Place::Finishing(staging.lies_at());
                    staging
                }
                Place::Delivered => {
                    *place = Place::Delivered;
                    return Ok(());
                }
                Place::Nowhere | Place::Finishing(_) => return Err(gone()),
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
        if matches!(*place, Place::Finishing(_)) {
            *place = Place::Staging(staging);
        }
        Ok(outcome?)
    }

    fn deliver(&self, inbound: Inbound, keep: impl Fn(&Manifest) -> Result<(), BulkFailure>) -> Result<(), BulkFailure> {
        let mut place = self.staging();
        match std::mem::replace(&mut *place, Place::Nowhere) {
            Place::Staging(staging) => {
                // Of a part also the manifest of the whole: by it the same part is known again.
                let made = staging.made().filter(|made| made.id() != self.id);
                for manifest in staging.manifest().into_iter().chain(made) {
                    keep(manifest)?;
                }
                self.exposed.store(true, Ordering::Release);
                let delivered = staging.deliver(inbound, &self.compared)?;
                tracing::info!(place = %delivered.display(), "an artefact was delivered");
                *place = Place::Delivered;
            }
            Place::Delivered if inbound.manifest() == self.id => *place = Place::Delivered,
            Place::Nowhere | Place::Finishing(_) | Place::Delivered => return Err(gone()),
        }
        Ok(())
    }
}

/// A number by which a node is known to everyone who pulls the same.
fn number_of(node: PublicKey) -> u64 {
    node.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
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

    use alliance_protocol::id::CrossingId;

    use super::*;
    use crate::bulk::{board::tests::manifest, receive::Usage};

    #[tokio::test]
    async fn nobody_waits_for_groups_that_are_not_wanted_any_more() {
        let manifest = manifest(1);
        let key = PublicKey([1; 32]);
        let usage = Usage { piecewise: true, local: Vec::new() };
        let (to, manifest_id) = (PathBuf::from("/nowhere"), manifest.id());
        let (crossing, addresses, tensors) = (CrossingId([1; 32]), Vec::new(), Vec::new());
        let reach = Reach { crossing, peer: key, addresses, manifest: manifest_id, to, tensors, usage };
        let seat = Gatherings::new(key, Arc::default()).join(&reach);
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
                Files::of(gathering).read_true(&extent, &mut vec![0; 1000], is_wanted)
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

    /// A gathering of which everything is said to be here, with one source.
    fn gathering(key: PublicKey) -> (Arc<Gatherings>, Arc<Seat>, Manifest) {
        let manifest = manifest(2);
        let usage = Usage { piecewise: true, local: Vec::new() };
        let (crossing, addresses, tensors) = (CrossingId([1; 32]), Vec::new(), Vec::new());
        let to = PathBuf::from("/nowhere");
        let reach = Reach { crossing, peer: key, addresses, manifest: manifest.id(), to, tensors, usage };
        let gatherings = Arc::new(Gatherings::new(key, Arc::default()));
        let seat = gatherings.join(&reach);
        let here = vec![true; usize::try_from(manifest.group_count()).expect("few")];
        seat.gathering().use_manifest(manifest.clone(), here, manifest.bytes());
        (gatherings, seat, manifest)
    }

    #[tokio::test]
    async fn what_comes_is_read_only_while_a_crossing_for_it_is_cleared() {
        let (gatherings, seat, manifest) = gathering(PublicKey([1; 32]));
        let arrivals = Arrivals::of(gatherings);
        let to = Path::new("/nowhere");
        assert!(arrivals.find(to, manifest.id()).is_none(), "an earlier attempt left it, and nothing is cleared");
        seat.gathering().clear(SourceId(0));
        assert!(arrivals.find(Path::new("/elsewhere"), manifest.id()).is_none());
        let arrival = arrivals.await_one(to, manifest.id()).await;
        let mut reader = arrival.reader(0..2);
        assert_eq!(reader.ready(0..2).await, Ok(2));
        assert!(reader.is_there());
        // The crossing is cut; its threads may be at the disk for long.
        seat.over();
        assert!(arrivals.find(to, manifest.id()).is_none() && !reader.is_there());
        assert_eq!(reader.ready(0..2).await, Err(gone()));
        let extent = manifest.extents_in(vec![(0, 1)]).next().expect("a group");
        let read = tokio::task::spawn_blocking(move || reader.read(&extent, &mut vec![0; 1000])).await.expect("it ran");
        assert_eq!(read, Err(gone()));
    }

    #[test]
    fn news_is_told_once() {
        let mut told = Vec::new();
        assert_eq!(news_of(&mut told, &[true, true, false, true]), [(0, 2), (3, 4)]);
        assert_eq!(news_of(&mut told, &[true, true, false, true]), []);
        assert_eq!(news_of(&mut told, &[true, true, true, true, true]), [(2, 3), (4, 5)]);
    }
}
