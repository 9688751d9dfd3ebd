//! Every step of a commit fails, in every way, and then the machine crashes or goes on. The disk is a model that knows what
//! is durable and what only seems to be; what it holds after a crash is opened as a real ledger.

use std::{
    fs,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    scan::Scan,
    tests::{entries, key},
    *,
};

/// What happens in one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is done, and an error is returned.
    Nothing,
    /// A part is done, and an error is returned.
    Half,
    /// It is done, and an error is returned all the same.
    Done,
}

/// Which operation fails, counted from the start of a commit, and how.
#[derive(Clone, Copy, Debug)]
struct Plan {
    at: usize,
    fault: Fault,
    kind: ErrorKind,
    /// Whether everything after it fails too.
    dead: bool,
}

#[derive(Debug, Default)]
struct State {
    plan: Option<Plan>,
    calls: usize,
    struck: bool,
    entries: Vec<u8>,
    durable_entries: Vec<u8>,
    /// Content, and whether it is durable.
    next: Option<(Vec<u8>, bool)>,
    checkpoint: (Vec<u8>, bool),
    durable_checkpoint: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Model(Arc<Mutex<State>>);

impl Model {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panicked")
    }

    /// Runs an operation, or fails as planned; `half` is what a partial failure leaves.
    fn strike(&self, whole: impl FnOnce(&mut State), half: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state();
        let (call, plan) = (state.calls, state.plan);
        state.calls += 1;
        match plan {
            Some(plan) if call == plan.at => {
                state.struck = true;
                match plan.fault {
                    Fault::Nothing => {}
                    Fault::Half => half(&mut state),
                    Fault::Done => whole(&mut state),
                }
                Err(plan.kind.into())
            }
            Some(plan) if call > plan.at && plan.dead => Err(plan.kind.into()),
            _ => {
                whole(&mut state);
                Ok(())
            }
        }
    }

    /// Every pair of entries and checkpoint that a crash may leave now.
    fn after_a_crash(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = self.state();
        let mut files = vec![state.entries.clone(), state.durable_entries.clone()];
        if let Some(unsynced) = state.entries.strip_prefix(state.durable_entries.as_slice()) {
            // Written in part, or grown without having been written.
            let half = &unsynced[..unsynced.len() / 2];
            files.push([&state.durable_entries, half].concat());
            files.push([&state.durable_entries, half, &vec![0; unsynced.len() - half.len()]].concat());
        }
        let mut checkpoints = vec![state.durable_checkpoint.clone(), state.checkpoint.0.clone()];
        if !state.checkpoint.1 {
            checkpoints.push(Vec::new());
        }
        files.iter().flat_map(|file| checkpoints.iter().map(|note| (file.clone(), note.clone()))).collect()
    }
}

impl Disk for Model {
    fn append(&mut self, at: u64, frames: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).expect("small");
        let write = |state: &mut State, bytes: &[u8]| {
            assert!(at <= state.entries.len(), "a hole in the entries");
            let end = (at + bytes.len()).max(state.entries.len());
            state.entries.resize(end, 0);
            state.entries[at..at + bytes.len()].copy_from_slice(bytes);
        };
        self.strike(|state| write(state, frames), |state| write(state, &frames[..frames.len() / 2]))
    }

    fn sync_entries(&mut self) -> io::Result<()> {
        self.strike(|state| state.durable_entries = state.entries.clone(), |_| {})
    }

    fn write_next(&mut self, note: &str) -> io::Result<()> {
        let (whole, half) = (note.as_bytes().to_vec(), note.as_bytes()[..note.len() / 2].to_vec());
        self.strike(|state| state.next = Some((whole, false)), |state| state.next = Some((half, false)))
    }

    fn sync_next(&mut self) -> io::Result<()> {
        let sync = |state: &mut State| state.next = state.next.take().map(|(note, _)| (note, true));
        self.strike(sync, |_| {})
    }

    fn publish_next(&mut self) -> io::Result<()> {
        self.strike(|state| state.checkpoint = state.next.take().expect("a next checkpoint"), |_| {})
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.strike(|state| state.durable_checkpoint = state.checkpoint.0.clone(), |_| {})
    }

    fn published(&self) -> io::Result<Vec<u8>> {
        self.strike(|_| {}, |_| {})?;
        Ok(self.state().checkpoint.0.clone())
    }

    fn roll_back(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).expect("small");
        let cut = |state: &mut State| state.entries.truncate(length);
        let whole = |state: &mut State| {
            cut(state);
            state.durable_entries = state.entries.clone();
            state.next = None;
        };
        self.strike(whole, cut)
    }
}

/// A ledger on a model of a disk, with entries 0 to 3 recorded.
fn ledger() -> (LedgerFile, Model) {
    let tree = Merkle::default();
    let note = Checkpoint::sign(&key(), &Origin::of(&key().public()), 0, tree.root());
    let state = State {
        checkpoint: (note.clone().into_bytes(), true),
        durable_checkpoint: note.clone().into_bytes(),
        ..State::default()
    };
    let model = Model(Arc::new(Mutex::new(state)));
    let scan = Scan { note, tree, root_at: None, length: 0, tail: 0 };
    let mut ledger = LedgerFile::resume(Box::new(model.clone()), &key(), scan);
    ledger.commit(&entries(0..3)).expect("commits");
    model.state().calls = 0;
    (ledger, model)
}

/// Opens what each possible crash leaves; all must be ledgers. Returns what they hold.
fn opened(model: &Model, what: &str) -> Vec<Vec<Entry>> {
    let states = model.after_a_crash();
    assert!(states.len() >= 4, "{what}");
    let mut found: Vec<Vec<Entry>> = Vec::new();
    for (frames, note) in states {
        let home = tempfile::tempdir().expect("a directory");
        fs::write(home.path().join(ENTRIES), frames).expect("writes");
        fs::write(home.path().join(CHECKPOINT), note).expect("writes");
        let (mut ledger, held) =
            LedgerFile::open(home.path(), &key()).unwrap_or_else(|error| panic!("{what}: after a crash: {error}"));
        ledger.commit(&entries(20..21)).unwrap_or_else(|error| panic!("{what}: after a restart: {error}"));
        if !found.contains(&held) {
            found.push(held);
        }
    }
    found
}

fn plans() -> impl Iterator<Item = Plan> {
    let kinds = [ErrorKind::StorageFull, ErrorKind::Other];
    let faults = [Fault::Nothing, Fault::Half, Fault::Done];
    // A commit has six operations; a failed one up to two more.
    (0..8).flat_map(move |at| {
        faults.into_iter().flat_map(move |fault| {
            kinds.into_iter().flat_map(move |kind| [false, true].map(|dead| Plan { at, fault, kind, dead }))
        })
    })
}

#[test]
fn a_commit_that_succeeds_is_durable() {
    let (mut ledger, model) = ledger();
    ledger.commit(&entries(3..6)).expect("commits");
    assert_eq!(model.state().calls, 6);
    assert_eq!(opened(&model, "no fault"), [entries(0..6)]);
}

#[test]
fn a_commit_that_fails_leaves_a_ledger_whatever_happens() {
    for plan in plans() {
        let (mut ledger, model) = ledger();
        model.state().plan = Some(plan);
        let outcome = ledger.commit(&entries(3..6));
        let what = format!("{plan:?}");
        assert_eq!(outcome.is_err(), plan.at < 6, "{what}");
        assert_eq!(model.state().struck, plan.at < 6, "{what}");
        for held in opened(&model, &what) {
            // What was there is there, and what was to be recorded is there wholly or not at all.
            assert!(held == entries(0..3) || held == entries(0..6), "{what}: {held:?}");
            assert!(outcome.is_err() || held.len() == 6, "{what}: recorded and lost");
        }
    }
}

#[test]
fn after_a_failed_commit_the_ledger_goes_on_or_refuses() {
    let (mut went_on, mut refused) = (0, 0);
    for plan in plans().filter(|plan| plan.at < 6) {
        let (mut ledger, model) = ledger();
        model.state().plan = Some(plan);
        let what = format!("{plan:?}");
        assert!(matches!(ledger.commit(&entries(3..6)), Err(LedgerError::Commit { .. })), "{what}");
        let poisoned = ledger.is_poisoned();
        assert_eq!(ledger.size(), 3, "{what}");
        // The disk is repaired; a poisoned ledger does not trust it.
        model.state().plan = None;
        let again = ledger.commit(&entries(10..12));
        if poisoned {
            refused += 1;
            assert!(matches!(again, Err(LedgerError::Poisoned(_))), "{what}");
            for held in opened(&model, &what) {
                assert!(held == entries(0..3) || held == entries(0..6), "{what}");
            }
        } else {
            went_on += 1;
            again.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(opened(&model, &what), [[entries(0..3), entries(10..12)].concat()], "{what}");
        }
    }
    assert!(went_on > 0 && refused > 0);
}

#[test]
fn a_full_disk_does_not_stop_the_ledger_for_good() {
    for at in 0..5 {
        for fault in [Fault::Nothing, Fault::Half] {
            let (mut ledger, model) = ledger();
            model.state().plan = Some(Plan { at, fault, kind: ErrorKind::StorageFull, dead: false });
            assert!(ledger.commit(&entries(3..6)).is_err());
            assert!(!ledger.is_poisoned(), "operation {at}, {fault:?}");
        }
    }
}

#[test]
fn a_rename_that_may_have_happened_is_not_undone() {
    let (mut ledger, model) = ledger();
    model.state().plan = Some(Plan { at: 4, fault: Fault::Done, kind: ErrorKind::Other, dead: false });
    assert!(ledger.commit(&entries(3..6)).is_err());
    assert!(ledger.is_poisoned());
    let held = opened(&model, "a rename that reports an error");
    assert!(held.contains(&entries(0..6)), "the new checkpoint found its entries");
}

#[test]
fn a_failed_sync_is_not_trusted_unless_the_disk_was_full() {
    for (kind, poisoned) in [(ErrorKind::Other, true), (ErrorKind::StorageFull, false), (ErrorKind::QuotaExceeded, false)] {
        let (mut ledger, model) = ledger();
        model.state().plan = Some(Plan { at: 1, fault: Fault::Nothing, kind, dead: false });
        assert!(ledger.commit(&entries(3..6)).is_err());
        assert_eq!(ledger.is_poisoned(), poisoned, "{kind:?}");
    }
}

#[test]
fn a_ledger_that_cannot_be_rolled_back_takes_nothing_more() {
    for at in 0..5 {
        let (mut ledger, model) = ledger();
        model.state().plan = Some(Plan { at, fault: Fault::Half, kind: ErrorKind::StorageFull, dead: true });
        assert!(ledger.commit(&entries(3..6)).is_err());
        model.state().plan = None;
        assert!(matches!(ledger.commit(&entries(10..12)), Err(LedgerError::Poisoned(_))), "operation {at}");
    }
}

/// While the key changes, a crash at any step leaves a ledger of one of the two keys: the old one without the record, or the
/// new one with it.
#[test]
fn a_ledger_whose_key_changes_is_that_of_one_of_the_two() {
    let new = SecretKey::from_seed(&[77; 32]);
    let (mut as_it_was, mut changed) = (0, 0);
    for plan in plans().map(Some).chain([None]) {
        let (ledger, model) = ledger();
        model.state().plan = plan;
        let [rotated] = &entries(3..4)[..] else { panic!("one entry") };
        let outcome = ledger.hand_over(&new, rotated).map(drop);
        let what = format!("{plan:?}: {outcome:?}");
        for (frames, note) in model.after_a_crash() {
            let home = tempfile::tempdir().expect("a directory");
            fs::write(home.path().join(ENTRIES), frames).expect("writes");
            fs::write(home.path().join(CHECKPOINT), note).expect("writes");
            let signed_by = signed_by(home.path()).expect("a head");
            let (key, size) = if signed_by == new.public() { (&new, 4) } else { (&key(), 3) };
            let (_, held) = LedgerFile::open(home.path(), key).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(held, entries(0..size), "{what}");
            assert!(outcome.is_err() || size == 4, "{what}: recorded and lost");
            if size == 4 { changed += 1 } else { as_it_was += 1 }
        }
    }
    assert!(as_it_was > 0 && changed > 0);
}
