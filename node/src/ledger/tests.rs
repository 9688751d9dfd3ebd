//! The ledger on a real file system: what is kept, what is noticed, and what is never touched.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use alliance_protocol::{
    id::CrossingId,
    ledger::{Record, Tiles, leaf_hash, verify_inclusion},
    time::Timestamp,
};
use tempfile::TempDir;

use super::*;

pub(super) fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

pub(super) fn entry(number: u64) -> Entry {
    let receipt = vec![0xee; usize::try_from(number % 5).expect("small") * 9];
    Entry {
        at: Timestamp(1000 + number),
        record: Record::Received { crossing: CrossingId([1; 32]), receipt: receipt.into(), part: None },
    }
}

pub(super) fn entries(numbers: std::ops::Range<u64>) -> Vec<Entry> {
    numbers.map(entry).collect()
}

/// A ledger of three commits with 1, 0 and 3 entries.
fn ledger() -> TempDir {
    let home = tempfile::tempdir().expect("a directory");
    let (mut ledger, found) = LedgerFile::open(&home.path().join("ledger"), &key()).expect("founds");
    assert!(found.is_empty());
    ledger.commit(&entries(0..1)).expect("commits");
    ledger.commit(&[]).expect("commits nothing");
    ledger.commit(&entries(1..4)).expect("commits");
    home
}

fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("lists")
        .map(|file| file.expect("a file"))
        .map(|file| (file.file_name().into_string().expect("UTF-8"), fs::read(file.path()).expect("reads")))
        .collect();
    files.sort();
    files
}

/// Neither an audit nor a start accepts the ledger, and neither changes it.
fn assert_refused(directory: &Path, what: &str) -> LedgerError {
    let before = contents(directory);
    assert!(verify(directory, &key().public(), None).is_err(), "verify: {what}");
    let error = LedgerFile::open(directory, &key()).map(|(ledger, _)| ledger.size()).expect_err(what);
    assert_eq!(contents(directory), before, "{what}: the ledger was changed");
    error
}

#[test]
fn what_is_committed_is_there_after_a_restart() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let (ledger, found) = LedgerFile::open(&directory, &key()).expect("opens");
    assert_eq!(found, entries(0..4));
    assert_eq!((ledger.size(), ledger.recovered_bytes(), ledger.is_poisoned()), (4, 0, false));
    let expected: Merkle = found.iter().map(|entry| leaf_hash(&entry.encode().expect("encodes"))).collect();
    assert_eq!(ledger.root(), expected.root());
    let head = Checkpoint::parse_verified(ledger.checkpoint(), &key().public(), &Origin::of(&key().public()));
    assert_eq!(head.map(|head| (head.size, head.root)), Ok((4, expected.root())));
    let names: Vec<_> = contents(&directory).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [CHECKPOINT, ENTRIES]);
}

#[test]
fn an_audit_needs_the_public_key_only_and_reports() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let report = verify(&directory, &key().public(), None).expect("verifies");
    let bytes = fs::metadata(directory.join(ENTRIES)).expect("exists").len();
    assert_eq!((report.entries, report.bytes, report.uncommitted_bytes), (4, bytes, 0));
    assert_eq!(report.last, Some(Timestamp(1003)));
    assert_eq!(report.origin, format!("alliance/{}", key().public()));

    let leaves: Vec<_> = read(&directory, 0, 10)
        .expect("reads")
        .iter()
        .map(|(_, entry)| leaf_hash(&entry.encode().expect("encodes")))
        .collect();
    let proof = leaves.iter().copied().collect::<Tiles>().prove_inclusion(2, report.entries).expect("is there");
    assert_eq!(verify_inclusion(leaves[2], 2, report.entries, report.root, &proof), Ok(()));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let home = ledger();
    let directory = home.path().join("ledger");
    for name in [ENTRIES, CHECKPOINT] {
        let path = directory.join(name);
        let good = fs::read(&path).expect("reads");
        assert!(good.len() > 100, "{name} is there");
        for at in 0..good.len() {
            for flip in (0..8).map(|bit| 1_u8 << bit).chain([0xff]) {
                let mut bad = good.clone();
                bad[at] ^= flip;
                fs::write(&path, &bad).expect("writes");
                assert!(verify(&directory, &key().public(), None).is_err(), "{name}, byte {at} ^ {flip:#04x}");
            }
            assert_refused(&directory, name);
        }
        fs::write(&path, &good).expect("writes");
    }
    verify(&directory, &key().public(), None).expect("is whole again");
}

#[test]
fn a_ledger_cut_short_is_noticed() {
    let home = ledger();
    let directory = home.path().join("ledger");
    for name in [ENTRIES, CHECKPOINT] {
        let path = directory.join(name);
        let good = fs::read(&path).expect("reads");
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).expect("writes");
            let error = assert_refused(&directory, name);
            assert!(name == CHECKPOINT || matches!(error, LedgerError::TooShort { size: 4, .. }), "{error}");
        }
        fs::write(&path, &good).expect("writes");
    }
}

#[test]
fn a_torn_end_is_reported_by_an_audit_and_cut_off_by_a_start() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let path = directory.join(ENTRIES);
    let good = fs::read(&path).expect("reads");
    let next = entry(4).encode().expect("encodes");
    let mut torn = u32::try_from(next.len()).expect("short").to_be_bytes().to_vec();
    torn.extend_from_slice(&next);
    for length in 1..=torn.len() {
        fs::write(&path, [good.as_slice(), &torn[..length]].concat()).expect("writes");
        let tail = u64::try_from(length).expect("small");
        assert_eq!(verify(&directory, &key().public(), None).expect("verifies").uncommitted_bytes, tail);
        assert_eq!(read(&directory, 0, 10).expect("reads").len(), 4);
        let (mut ledger, found) = LedgerFile::open(&directory, &key()).expect("opens");
        assert_eq!((ledger.recovered_bytes(), found), (tail, entries(0..4)));
        assert_eq!(fs::read(&path).expect("reads"), good);
        if length == torn.len() {
            ledger.commit(&entries(7..9)).expect("goes on");
            assert_eq!(verify(&directory, &key().public(), None).expect("verifies").entries, 6);
        }
    }
}

#[test]
fn missing_files_are_noticed_and_not_made_up() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let (entries_path, checkpoint_path) = (directory.join(ENTRIES), directory.join(CHECKPOINT));
    let checkpoint = fs::read(&checkpoint_path).expect("reads");

    fs::remove_file(&checkpoint_path).expect("removes");
    assert!(matches!(assert_refused(&directory, "no checkpoint"), LedgerError::NoCheckpoint { .. }));
    assert!(matches!(read(&directory, 0, 1), Err(LedgerError::NoCheckpoint { .. })));

    fs::write(&checkpoint_path, &checkpoint).expect("writes");
    fs::remove_file(&entries_path).expect("removes");
    assert!(matches!(assert_refused(&directory, "no entries"), LedgerError::NoEntries { .. }));

    fs::write(&entries_path, []).expect("writes");
    assert!(matches!(assert_refused(&directory, "empty entries"), LedgerError::TooShort { index: 0, size: 4 }));

    let nowhere = home.path().join("nowhere");
    assert!(matches!(verify(&nowhere, &key().public(), None), Err(LedgerError::Absent { .. })));
    assert!(matches!(read(&nowhere, 0, 1), Err(LedgerError::Absent { .. })));
    assert!(!nowhere.exists());
}

#[test]
fn a_founding_that_a_crash_cut_short_is_repeated() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("ledger");
    fs::create_dir(&directory).expect("makes");
    LedgerFile::open(&directory, &key()).expect("founds in an empty directory");
    fs::remove_file(directory.join(CHECKPOINT)).expect("removes");
    fs::write(directory.join(NEXT), b"half a check").expect("writes");
    let (ledger, found) = LedgerFile::open(&directory, &key()).expect("founds over an empty file");
    assert_eq!((ledger.size(), found.len()), (0, 0));
    assert_eq!(verify(&directory, &key().public(), None).expect("verifies").entries, 0);
}

#[test]
fn the_ledger_of_another_node_is_refused() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let stranger = SecretKey::from_seed(&[8; 32]);
    assert!(matches!(verify(&directory, &stranger.public(), None), Err(LedgerError::Checkpoint { .. })));
    assert!(matches!(LedgerFile::open(&directory, &stranger), Err(LedgerError::Checkpoint { .. })));
}

#[test]
fn entries_of_another_tree_under_a_good_checkpoint_are_refused() {
    let (home, other) = (ledger(), tempfile::tempdir().expect("a directory"));
    let (mut ledger, _) = LedgerFile::open(other.path(), &key()).expect("founds");
    ledger.commit(&entries(4..8)).expect("commits");
    let directory = home.path().join("ledger");
    fs::copy(other.path().join(ENTRIES), directory.join(ENTRIES)).expect("copies");
    assert!(matches!(assert_refused(&directory, "other entries"), LedgerError::OtherRoot { size: 4 }));
}

#[test]
fn an_announced_length_is_not_believed() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let path = directory.join(ENTRIES);
    let good = fs::read(&path).expect("reads");
    for (length, expected) in [(u32::MAX, "entry 0 of the ledger is damaged"), (1024 * 1024, "the ledger ends in entry 0")]
    {
        fs::write(&path, [&length.to_be_bytes(), &good[4..]].concat()).expect("writes");
        let error = assert_refused(&directory, "a length");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn a_part_can_be_read() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let numbers = |from, limit| -> Vec<u64> {
        let some = read(&directory, from, limit).expect("reads");
        some.into_iter().map(|(number, found)| if found == entry(number) { number } else { u64::MAX }).collect()
    };
    assert_eq!(numbers(0, 2), [0, 1]);
    assert_eq!(numbers(2, 10), [2, 3]);
    assert_eq!(numbers(3, 1), [3]);
    for (from, limit) in [(4, 1), (u64::MAX, 1), (0, 0)] {
        assert!(numbers(from, limit).is_empty());
    }
}

#[test]
fn an_entry_that_cannot_be_written_leaves_the_others_out_and_the_ledger_as_it_was() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let before = contents(&directory);
    let (mut ledger, _) = LedgerFile::open(&directory, &key()).expect("opens");
    let large = Entry { at: Timestamp(1), record: Record::Founded { charter: vec![0; 1024 * 1024].into() } };
    assert!(matches!(ledger.commit(&[entry(4), large]), Err(LedgerError::Entry(EntryError::TooLarge { .. }))));
    assert_eq!((ledger.size(), contents(&directory)), (4, before));
    ledger.commit(&entries(4..5)).expect("goes on");
}

#[test]
fn an_audit_may_run_beside_a_node_that_records() {
    let home = ledger();
    let directory = home.path().join("ledger");
    let (mut ledger, _) = LedgerFile::open(&directory, &key()).expect("opens");
    let (done, checked) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut size = 0;
            while !done.load(Ordering::SeqCst) {
                let report = verify(&directory, &key().public(), None).expect("is whole at any time");
                assert!(report.entries >= size);
                size = report.entries;
                checked.store(true, Ordering::SeqCst);
            }
        });
        let mut next = 4;
        while next < 60 || !checked.load(Ordering::SeqCst) {
            ledger.commit(&entries(next..next + 3)).expect("commits");
            next += 3;
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[cfg(unix)]
#[test]
fn a_ledger_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = ledger();
    let directory = home.path().join("ledger");
    let mode = |path: &Path| fs::metadata(path).expect("exists").permissions().mode() & 0o077;
    assert_eq!(mode(&directory), 0);
    assert_eq!(mode(&directory.join(ENTRIES)), 0);
    assert_eq!(mode(&directory.join(CHECKPOINT)), 0);
}
