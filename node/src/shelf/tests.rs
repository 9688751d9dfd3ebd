//! Versions that follow each other, what is refused, and what is left over.

use super::*;

const NAME: &str = "usp/m";

fn shelf() -> (tempfile::TempDir, Shelf) {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::of_home(dir.path());
    (dir, shelf)
}

fn oid(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

fn blob(shelf: &Shelf, bytes: &[u8]) -> Sha256 {
    let mut receiver = shelf.receive(oid(bytes), bytes.len() as u64).expect("begun");
    bytes.chunks(3).for_each(|part| receiver.write(part).expect("written"));
    receiver.finish().expect("kept");
    oid(bytes)
}

#[test]
fn versions_follow_each_other_and_only_the_newest_stays() {
    let (_dir, shelf) = shelf();
    let now = Timestamp(1);
    assert!(shelf.create(NAME, false, false, now).expect("made") && !shelf.create(NAME, true, false, now).expect("known"));
    let large = blob(&shelf, b"weights");
    let mut draft = shelf.begin(NAME).expect("begun");
    draft.put("config.json", b"{}").expect("put");
    draft.put("a/b.txt", b"x").expect("put");
    draft.put_blob("model.bin", large, 7).expect("put");
    draft.put_blob("copy.bin", large, 7).expect("put");
    let finished = draft.finish("maria", now).expect("finished");
    let first = finished.path().to_owned();
    shelf.accept(NAME, false, finished, &[]).expect("accepted");
    assert!(shelf.hold_blob(large, 7), "another may ask for it");
    let state = shelf.get(NAME).expect("read").expect("there");
    assert_eq!(shelf.files(NAME, state.version.as_ref().expect("one")), first);
    assert_eq!(fs::read(first.join("copy.bin")).expect("read"), b"weights");

    let mut draft = shelf.begin(NAME).expect("begun");
    draft.put("config.json", b"{1}").expect("replaced");
    draft.remove("a/").expect("to be removed");
    draft.remove("copy.bin").expect("to be removed");
    draft.take_over(Some(Base { from: &first, manifest: None })).expect("taken over");
    let finished = draft.finish("maria", now).expect("finished");
    let second = finished.path().to_owned();
    assert_eq!(fs::read(first.join("config.json")).expect("read"), b"{}", "the version before stays as it was");
    shelf.accept(NAME, false, finished, &[]).expect("accepted");
    assert!(!first.exists() && second.join("model.bin").is_file() && !second.join("a").exists());
    assert_eq!(shelf.all().expect("read").len(), 1);
}

#[test]
fn what_is_wrong_is_refused_and_leaves_nothing() {
    let (dir, shelf) = shelf();
    shelf.create(NAME, false, false, Timestamp(1)).expect("made");
    let mut receiver = shelf.receive(oid(b"other"), 5).expect("begun");
    receiver.write(b"bytes").expect("written");
    assert!(matches!(receiver.finish(), Err(ShelfError::OtherFile)));
    let mut receiver = shelf.receive(oid(b"ab"), 2).expect("begun");
    assert!(matches!(receiver.write(b"abc"), Err(ShelfError::OtherFile)));
    drop(receiver);
    let mut draft = shelf.begin(NAME).expect("begun");
    for path in ["", "/etc/passwd", "../x", "a/../../x", ".git/config", "a//b", "a\\b", "a/"] {
        assert!(matches!(draft.put(path, b"x"), Err(ShelfError::Path { .. })), "{path}");
    }
    assert!(matches!(draft.remove("../.."), Err(ShelfError::Path { .. })));
    draft.put("a", b"x").expect("put");
    assert!(matches!(draft.put("a/b", b"x"), Err(ShelfError::InTheWay { .. })));
    draft.put("c/d", b"x").expect("put");
    assert!(matches!(draft.put("c", b"x"), Err(ShelfError::InTheWay { .. })));
    draft.remove("none").expect("nothing is known of it yet");
    assert!(matches!(draft.take_over(None), Err(ShelfError::Absent { path }) if path == "none"));
    assert!(matches!(draft.put_blob("m", oid(b"m"), 1), Err(ShelfError::NotUploaded(_))));
    drop(draft.finish("maria", Timestamp(1)).expect("finished"));
    let left = |path: &str| fs::read_dir(dir.path().join("uploads").join(path)).expect("read").count();
    assert_eq!((left("named/usp/m"), left("blobs")), (1, 0), "the state alone");
    fs::write(dir.path().join("uploads/named/usp/m/state.json"), "{").expect("written");
    assert!(matches!(shelf.get(NAME), Err(ShelfError::State { .. })));
    shelf.create("usp/whole", true, true, Timestamp(1)).expect("made");
    assert_eq!(shelf.all().expect("read").len(), 1, "what is damaged hides nothing else");
}

#[test]
fn what_was_promised_stays_and_what_a_crash_left_is_removed() {
    let (_dir, shelf) = shelf();
    shelf.create(NAME, false, false, Timestamp(1)).expect("made");
    let finished = || {
        let mut draft = shelf.begin(NAME).expect("begun");
        assert!(draft.is_empty());
        draft.put("a", b"x").expect("put");
        assert!(!draft.is_empty());
        draft.finish("maria", Timestamp(1)).expect("finished")
    };
    let (mut promised, mut given_up) = (finished(), finished());
    promised.stay();
    given_up.stay();
    let (kept, gone) = (promised.path().to_owned(), given_up.path().to_owned());
    drop(promised);
    given_up.give_up();
    assert!(kept.is_dir() && !gone.exists());
    // A process that was killed drops nothing.
    std::mem::forget((shelf.begin(NAME).expect("begun"), shelf.receive(oid(b"x"), 1).expect("begun")));
    shelf.clear_away().expect("cleared");
    let left = |place: &Path| fs::read_dir(place).expect("read").count();
    assert_eq!((left(kept.parent().expect("a place")), left(&shelf.root.join("blobs"))), (2, 0), "state and version");
    shelf.set_private(NAME).expect("set");
    assert!(shelf.get(NAME).expect("read").expect("there").private);
}

#[test]
fn files_that_nobody_asks_for_are_forgotten_after_a_day() {
    let (_dir, shelf) = shelf();
    let kept = blob(&shelf, b"x");
    let hours = |hours: u64| SystemTime::now() + Duration::from_secs(hours * 3600);
    shelf.sweep(hours(23)).expect("swept");
    assert!(shelf.has_blob(kept, 1));
    shelf.sweep(hours(25)).expect("swept");
    assert!(!shelf.has_blob(kept, 1));
    // One that was asked for is kept for another day, and not touched.
    let kept = blob(&shelf, b"x");
    let times = || fs::metadata(shelf.blob(kept)).and_then(|found| found.modified()).expect("there");
    let long_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
    File::options().write(true).open(shelf.blob(kept)).expect("opened").set_modified(long_ago).expect("set");
    assert!(shelf.hold_blob(kept, 1) && !shelf.hold_blob(oid(b"y"), 1));
    assert_eq!(times(), long_ago);
    shelf.sweep(hours(23)).expect("swept");
    assert!(shelf.has_blob(kept, 1));
    shelf.sweep(hours(25)).expect("swept");
    assert!(!shelf.has_blob(kept, 1));
    assert_eq!(entries(&shelf.root.join("blobs")).expect("read").len(), 0, "its note is gone too");
}

#[test]
fn a_home_behind_a_link_is_the_same_home() {
    let (dir, _) = shelf();
    let home = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &home).expect("linked");
    let shelf = Shelf::of_home(&home);
    let mut draft = shelf.begin(NAME).expect("begun");
    draft.put("a", b"x").expect("put");
    let finished = draft.finish("maria", Timestamp(1)).expect("finished");
    let mut next = shelf.begin(NAME).expect("begun");
    next.take_over(Some(Base { from: finished.path(), manifest: None })).expect("taken over");
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path.join("a")).expect("there"));
    assert_eq!(inode(&next.files.path), inode(finished.path()), "linked, for nothing changes it");
}

#[test]
fn what_an_operator_imported_is_taken_over_as_it_was_imported() {
    let (_dir, shelf) = shelf();
    let (model, manifests) = (crate::models::import::tests::model(), tempfile::tempdir().expect("a directory"));
    let request = crate::models::import::tests::request();
    let local = crate::models::import::import(model.path(), request, manifests.path(), &mut |_, _| {}).expect("imported");
    let manifest = crate::models::load_manifest(manifests.path(), local.manifest).expect("loaded");
    let base = Some(Base { from: model.path(), manifest: Some(&manifest) });
    // What came there since is no part of it.
    fs::write(model.path().join("since.txt"), "x").expect("written");
    let mut draft = shelf.begin(NAME).expect("begun");
    draft.take_over(base).expect("taken over");
    assert!(!draft.files.path.join("since.txt").exists());
    let first = &manifest.files()[0].path;
    fs::write(model.path().join(first), "other").expect("written");
    let mut draft = shelf.begin(NAME).expect("begun");
    assert!(matches!(draft.take_over(base), Err(ShelfError::Changed { path }) if path == *first));
    fs::remove_file(model.path().join(first)).expect("removed");
    let mut draft = shelf.begin(NAME).expect("begun");
    assert!(matches!(draft.take_over(base), Err(ShelfError::Tree(_))));
    // What is replaced or removed is not looked at.
    let mut draft = shelf.begin(NAME).expect("begun");
    draft.put(first, b"new").expect("put");
    draft.take_over(base).expect("taken over");
}

#[test]
fn a_version_that_is_about_to_be_labelled_is_spared() {
    let (_dir, shelf) = shelf();
    let version = |content: &[u8]| {
        let mut draft = shelf.begin(NAME).expect("begun");
        draft.put("a", content).expect("put");
        draft.finish("maria", Timestamp(1)).expect("finished")
    };
    shelf.accept(NAME, false, version(b"1"), &[]).expect("accepted");
    let first = shelf.get(NAME).expect("read").expect("there").version.expect("one");
    shelf.accept(NAME, false, version(b"2"), &[shelf.files(NAME, &first)]).expect("accepted");
    assert!(shelf.files(NAME, &first).is_dir());
    shelf.accept(NAME, false, version(b"3"), &[]).expect("accepted");
    assert!(!shelf.files(NAME, &first).exists());
}
