//! Tests of staging: what is kept, what is refused, and what is never mistaken for the artefact.

use alliance_protocol::{
    id::Sha256,
    manifest::{self, Group, Segment, SegmentKind},
    vocabulary::{Artefact, Label},
};

use std::time::{Duration, SystemTime};

use super::*;
use crate::models::{
    Source,
    compared::Stamp,
    import::{
        import, load_manifest,
        tests::{model, request, safetensors},
    },
};

/// A model at its origin, with its manifest and a place to pull it to.
struct World {
    _origin: tempfile::TempDir,
    _manifests: tempfile::TempDir,
    disk: tempfile::TempDir,
    manifest: Manifest,
    source: Source,
}

impl World {
    fn new() -> Self {
        let (origin, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let local = import(origin.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let manifest = load_manifest(manifests.path(), local.manifest).expect("loaded");
        let source = Source::open(origin.path(), manifest.clone()).expect("opens");
        let disk = tempfile::tempdir().expect("a directory");
        Self { _origin: origin, _manifests: manifests, disk, manifest, source }
    }

    fn to(&self) -> PathBuf {
        self.disk.path().join("pulled/model")
    }

    fn open(&self) -> Staging {
        Staging::open(&self.to(), self.manifest.id()).expect("opens")
    }

    /// Writes the groups that `wanted` picks.
    fn receive(&mut self, staging: &mut Staging, wanted: impl Fn(u64) -> bool) {
        let mut buffer = Vec::new();
        let groups: Vec<Group> = self.manifest.groups().filter(|group| wanted(group.index)).collect();
        // Out of order, as they come.
        for group in groups.iter().rev() {
            self.source.read_group(group, &mut buffer).expect("reads");
            staging.write(&group.into(), &buffer).expect("writes");
        }
    }

    fn all(&self) -> Vec<(u64, u64)> {
        vec![(0, self.manifest.group_count())]
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.to().parent().expect("a parent")).expect("read");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("read").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

#[test]
fn what_is_received_is_delivered_whole() {
    let mut world = World::new();
    let mut staging = world.open();
    assert!(staging.manifest().is_none() && staging.runs_held().is_empty() && !staging.is_complete());
    assert!(matches!(
        staging.write(&(&world.manifest.group(0).expect("a group")).into(), b"x"),
        Err(StagingError::NotBegun)
    ));
    staging.begin(&world.manifest).expect("begun");
    assert!(staging.runs_held().is_empty(), "reserved zeros are not held");
    world.receive(&mut staging, |_| true);
    assert_eq!(staging.runs_held(), world.all());
    assert!(!world.to().exists(), "nothing is visible before delivery");
    let compared = Compared::default();
    let place = staging.put_in_place(&compared).expect("delivered");
    for (number, file) in (0..).zip(world.manifest.files()) {
        let stamp = Stamp::of(&fs::metadata(place.join(&file.path)).expect("there"));
        let groups = world.manifest.groups_in(number, &(0..file.bytes));
        let is_known = compared.holds(world.manifest.id(), number, &stamp, &groups);
        assert_eq!(is_known, !groups.is_empty(), "`{}` was verified before it was written", file.path);
    }
    assert_eq!(place, world.to());
    assert_eq!(world.names(), ["model"], "nothing is left beside it");
    let report = crate::models::import::verify(&place, &world.manifest, &mut |_, _| {}).expect("read");
    assert!(report.is_intact(), "{report:?}");
    assert!(survey(&place).expect("an artefact").skipped.is_empty());
}

#[test]
fn an_interrupted_pull_keeps_what_verifies() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |index| index % 3 != 0);
    let held = staging.runs_held();
    // As after a kill: nothing but the disk remains.
    drop(staging);
    assert!(!world.to().exists());
    assert_eq!(world.names(), [format!(".model.{}.partial", world.manifest.id().short())]);

    let mut staging = world.open();
    assert_eq!(staging.manifest(), Some(&world.manifest));
    assert_eq!(staging.runs_held(), held);
    let missing = StagingError::Incomplete { missing: 0, groups: 0 };
    let count = staging.flags().iter().filter(|here| !**here).count() as u64;
    match staging.put_in_place(&Compared::default()) {
        Err(StagingError::Incomplete { missing, .. }) => assert_eq!(missing, count),
        other => panic!("{other:?} instead of {missing}"),
    }
    staging = world.open();
    assert_eq!(staging.runs_held(), held, "a refused delivery loses nothing");
    staging.begin(&world.manifest).expect("begun");
    assert_eq!(staging.runs_held(), held, "to begin again loses nothing");
    world.receive(&mut staging, |index| index % 3 == 0);
    assert!(!staging.is_own_work(), "some of it was believed");
    let compared = Compared::default();
    let place = staging.put_in_place(&compared).expect("delivered");
    for (number, file) in (0..).zip(world.manifest.files()) {
        let stamp = Stamp::of(&fs::metadata(place.join(&file.path)).expect("there"));
        let groups = world.manifest.groups_in(number, &(0..file.bytes));
        assert!(!compared.holds(world.manifest.id(), number, &stamp, &groups), "`{}` is compared when read", file.path);
    }
}

#[test]
fn damage_between_attempts_is_found() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |_| true);
    let files = staging.files();
    drop(staging);
    let weights = File::options().write(true).open(files.join("model.safetensors")).expect("opens");
    let offset = weights.metadata().expect("read").len() - 1;
    let old = fs::read(files.join("model.safetensors")).expect("read");
    weights.write_all_at(&[old[old.len() - 1] ^ 1], offset).expect("written");
    // Long after the pull has ended; what follows it within moments is taken for its own last write.
    weights.set_modified(SystemTime::now() + Duration::from_secs(3600)).expect("set");
    fs::remove_file(files.join("config.json")).expect("removed");
    File::options().write(true).open(files.join("original/model.gguf")).expect("opens").set_len(5).expect("cut");

    let mut staging = world.open();
    let missing = world.manifest.groups().zip(staging.flags()).filter(|(_, here)| !**here);
    let again: Vec<String> = missing.map(|(group, _)| world.manifest.describe_group(&group)).collect();
    assert!(again[0].starts_with("`config.json`"), "{again:?}");
    assert!(again[1].starts_with("`model.safetensors`, tensor `layer.5`"), "{again:?}");
    assert!(again[2..].iter().all(|group| group.starts_with("`original/model.gguf`")), "{again:?}");
    world.receive(&mut staging, |_| true);
    staging.put_in_place(&Compared::default()).expect("delivered");
}

#[test]
fn what_was_changed_right_after_the_stop_is_found() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |_| true);
    let (journal, path) = (staging.journal_path(), staging.files().join("model.safetensors"));
    drop(staging);
    let modified = |path: &Path| fs::metadata(path).expect("there").modified().expect("a time");
    let weights = File::options().write(true).open(&path).expect("opens");
    let last = fs::read(&path).expect("read").len() - 1;
    let altered = [fs::read(&path).expect("read")[last] ^ 1];
    // Until its time shows it, which is soon.
    while modified(&path) <= modified(&journal) + Duration::from_millis(60) {
        weights.write_all_at(&altered, last as u64).expect("written");
    }
    let staging = world.open();
    let missing = world.manifest.groups().zip(staging.flags()).filter(|(_, here)| !**here);
    let again: Vec<String> = missing.map(|(group, _)| world.manifest.describe_group(&group)).collect();
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(again[0].starts_with("`model.safetensors`, tensor `layer.5`"), "{again:?}");
}

#[test]
fn what_is_recorded_is_not_hashed_again() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |index| index % 3 != 0);
    let (held, journal, path) = (staging.runs_held(), staging.journal_path(), staging.files().join("model.safetensors"));
    drop(staging);
    // Nobody looks at the content while the record is believed. An alteration before it shows that, for it is not found.
    let weights = File::options().write(true).open(&path).expect("opens");
    let content = fs::read(&path).expect("read");
    let last = content.len() - 1;
    weights.write_all_at(&[content[last] ^ 1], last as u64).expect("written");
    // However long that took, it was "at once".
    let later = SystemTime::now() + Duration::from_secs(3600);
    File::options().write(true).open(&journal).expect("opens").set_modified(later).expect("set");
    let staging = world.open();
    assert_eq!(staging.runs_held(), held);
    // What was believed is not vouched for: whoever reads it compares it.
    assert!(!staging.is_own_work());
    drop(staging);
    // Without a record, everything is hashed.
    fs::remove_file(&journal).expect("removed");
    let staging = world.open();
    assert!(staging.is_own_work());
    assert_ne!(staging.runs_held(), held);
    assert!(staging.runs_held().iter().all(|run| held.iter().any(|(first, end)| *first <= run.0 && run.1 <= *end)));
    let found = staging.runs_held();
    drop(staging);
    let recorded = journal::claims(&journal, world.manifest.id(), world.manifest.group_count());
    let recorded = recorded.expect("read").expect("a journal");
    assert_eq!((&recorded.written, recorded.durable.len()), (&found, 0), "what was read may not be on the disk");
    assert_eq!(world.open().runs_held(), found, "what was found is recorded");
    // A record that is cut short is none, and loses no other.
    let mut staging = world.open();
    world.receive(&mut staging, |index| index == 0);
    drop(staging);
    let records = File::options().write(true).open(&journal).expect("opens");
    records.set_len(records.metadata().expect("read").len() - 1).expect("cut");
    assert_eq!(world.open().runs_held(), found);
    let mut staging = world.open();
    world.receive(&mut staging, |index| index == 0);
    drop(staging);
    assert_eq!(world.open().runs_held().first().map(|(first, _)| *first), Some(0));
}

#[test]
fn what_an_earlier_attempt_wrote_is_made_durable_with_the_rest() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    assert!(staging.syncing.files().is_empty());
    world.receive(&mut staging, |index| index == 0);
    assert_eq!(staging.syncing.files().len(), 1);
    drop(staging);
    // The groups of the first attempt are among those that are said to be durable.
    assert_eq!(world.open().syncing.files().len(), world.manifest.files().len());
}

#[test]
fn tampered_groups_are_not_written() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    let mut buffer = Vec::new();
    for group in world.manifest.clone().groups() {
        world.source.read_group(&group, &mut buffer).expect("reads");
        let at = buffer.len() / 2;
        buffer[at] ^= 1;
        assert!(matches!(staging.write(&(&group).into(), &buffer), Err(StagingError::Tampered { .. })));
    }
    assert!(staging.runs_held().is_empty());
    drop(staging);
    assert!(world.open().runs_held().is_empty());
}

#[test]
fn a_place_that_is_taken_is_refused_before_bytes_move() {
    let world = World::new();
    fs::create_dir_all(world.to()).expect("made");
    // An empty directory is a place.
    drop(world.open());
    assert_eq!(world.names(), ["model"]);
    fs::write(world.to().join("thesis.tex"), b"years of work").expect("written");
    let error = Staging::open(&world.to(), world.manifest.id()).expect_err("occupied");
    assert!(matches!(error, StagingError::Occupied { .. }), "{error}");
    let error =
        Staging::open_known(&world.to(), world.manifest.id(), Some(world.manifest.clone()), &[]).expect_err("occupied");
    assert!(matches!(error, StagingError::Occupied { .. }), "{error}");
    assert_eq!(world.names(), ["model"], "nothing is left beside it");
    assert_eq!(fs::read(world.to().join("thesis.tex")).expect("read"), b"years of work");

    let file = world.disk.path().join("file");
    fs::write(&file, b"x").expect("written");
    assert!(matches!(Staging::open(&file, world.manifest.id()), Err(StagingError::Occupied { .. })));
    assert!(matches!(Staging::open(&file.join("x"), world.manifest.id()), Err(StagingError::Disk { .. })));
    assert!(matches!(Staging::open(Path::new("/"), world.manifest.id()), Err(StagingError::NoName { .. })));
    let link = world.disk.path().join("link");
    std::os::unix::fs::symlink(world.disk.path(), &link).expect("linked");
    assert!(matches!(Staging::open(&link, world.manifest.id()), Err(StagingError::Occupied { .. })));
}

#[test]
fn a_place_that_is_taken_meanwhile_is_not_overwritten() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |_| true);
    fs::create_dir_all(world.to()).expect("made");
    fs::write(world.to().join("thesis.tex"), b"years of work").expect("written");
    assert!(matches!(staging.put_in_place(&Compared::default()), Err(StagingError::Occupied { .. })));
    assert_eq!(fs::read(world.to().join("thesis.tex")).expect("read"), b"years of work");
    fs::remove_file(world.to().join("thesis.tex")).expect("removed");
    let staging = world.open();
    assert_eq!(staging.runs_held(), world.all());
    staging.put_in_place(&Compared::default()).expect("delivered over the empty directory");
}

#[test]
fn what_is_there_already_is_accepted() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |_| true);
    staging.put_in_place(&Compared::default()).expect("delivered");
    let again = || Staging::open_known(&world.to(), world.manifest.id(), Some(world.manifest.clone()), &[]);
    let mut staging = again().expect("the same model");
    assert_eq!(staging.runs_held(), world.all());
    staging.begin(&world.manifest).expect("begun");
    staging.put_in_place(&Compared::default()).expect("still there");
    assert_eq!(world.names(), ["model"]);
    // One byte more, one file more: another model.
    fs::write(world.to().join("extra.json"), b"{}").expect("written");
    assert!(matches!(again(), Err(StagingError::Occupied { .. })));
    fs::remove_file(world.to().join("extra.json")).expect("removed");
    let config = world.to().join("config.json");
    let content = fs::read(&config).expect("read");
    fs::write(&config, content.to_ascii_uppercase()).expect("written");
    let error = again().expect_err("altered");
    assert!(error.to_string().contains("`config.json`, bytes 0..39 differs"), "{error}");
    assert_eq!(world.names(), ["model"]);
}

#[test]
fn a_crash_after_the_rename_is_recovered() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |_| true);
    fs::rename(staging.files(), world.to()).expect("renamed");
    drop(staging);
    let staging = world.open();
    assert_eq!(staging.runs_held(), world.all());
    staging.put_in_place(&Compared::default()).expect("delivered");
    assert_eq!(world.names(), ["model"]);
}

#[test]
fn two_pulls_do_not_collide() {
    let world = World::new();
    let mut first = world.open();
    first.begin(&world.manifest).expect("begun");
    assert!(matches!(Staging::open(&world.to(), world.manifest.id()), Err(StagingError::Busy { .. })));
    drop(first);
    let second = world.open();
    second.discard().expect("removed");
    assert!(world.names().is_empty());
}

#[test]
fn what_was_not_delivered_can_be_cleared_away_and_nothing_else() {
    let mut world = World::new();
    let clear = |world: &World| Staging::clear_away(&world.to(), world.manifest.id());
    clear(&world).expect("nothing is there");
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |group| group < 2);
    assert!(matches!(clear(&world), Err(StagingError::Busy { .. })), "a pull is running");
    drop(staging);
    assert_eq!(world.names().len(), 1, "kept for another attempt");
    fs::create_dir(world.to()).expect("made");
    fs::write(world.to().join("mine.txt"), b"mine").expect("written");
    clear(&world).expect("cleared");
    assert_eq!(world.names(), ["model"]);
    assert_eq!(fs::read(world.to().join("mine.txt")).expect("kept"), b"mine");
}

#[test]
fn another_manifest_is_refused_and_its_leavings_are_removed() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |_| true);
    let partial = staging.partial.clone();
    drop(staging);
    // Same first eight digits, another manifest.
    let mut twin = world.manifest.id();
    twin.0[31] ^= 1;
    let mut other = Staging::open(&world.to(), twin).expect("opens");
    assert_eq!(other.partial, partial);
    assert!(other.manifest().is_none() && other.runs_held().is_empty());
    assert!(!other.files().exists(), "files of another artefact are never delivered with this one");
    assert!(matches!(other.begin(&world.manifest), Err(StagingError::OtherManifest { .. })));
}

#[test]
fn a_damaged_manifest_of_an_earlier_attempt_is_forgotten() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |_| true);
    let path = staging.partial.join("manifest");
    drop(staging);
    fs::write(&path, b"\0torn").expect("written");
    let mut staging = world.open();
    assert!(staging.manifest().is_none() && staging.runs_held().is_empty());
    staging.begin(&world.manifest).expect("begun");
    assert!(staging.runs_held().is_empty());
    world.receive(&mut staging, |_| true);
    staging.put_in_place(&Compared::default()).expect("delivered");
}

/// A manifest that says of one file what the exporter likes.
fn claimed(path: &str, content: &[u8], segments: Vec<Segment>) -> Manifest {
    let sha256 = Sha256([0; 32]);
    let file = manifest::File { path: path.into(), bytes: content.len() as u64, sha256, segments };
    Manifest::new(Artefact::Weights, [Label::Public].into(), vec![file]).expect("a manifest")
}

#[test]
fn files_that_are_not_what_they_claim_are_not_delivered() {
    let weights = safetensors(&[4, 8]);
    let header = weights.len() - 12;
    let tensor = |name: &str, bytes: &[u8]| {
        let shape = vec![bytes.len() as u64];
        Segment::of(SegmentKind::Tensor { name: name.into(), dtype: manifest::Dtype::U8, shape }, bytes)
    };
    let cut = |first: &str, middle: usize| {
        vec![
            Segment::of(SegmentKind::Header, &weights[..header]),
            tensor(first, &weights[header..header + middle]),
            tensor("layer.1", &weights[header + middle..]),
        ]
    };
    let opaque = |bytes: &[u8]| vec![Segment::of(SegmentKind::Opaque, bytes)];
    let pickle = b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.";
    let cases = [
        ("as it is", "m.safetensors", weights.as_slice(), cut("layer.0", 4), true),
        ("another name", "m.safetensors", &weights, cut("layer.7", 4), false),
        ("other lengths", "m.safetensors", &weights, cut("layer.0", 5), false),
        ("opaque", "m.safetensors", &weights, opaque(&weights), false),
        ("tensors in a text", "m.txt", &weights, cut("layer.0", 4), false),
        ("no weights", "m.safetensors", b"{\"a\": 1}", opaque(b"{\"a\": 1}"), false),
        ("a pickle", "m.bin", pickle, opaque(pickle), false),
    ];
    for (what, path, content, segments, good) in cases {
        let disk = tempfile::tempdir().expect("a directory");
        let to = disk.path().join("model");
        let manifest = claimed(path, content, segments);
        let mut staging = Staging::open(&to, manifest.id()).expect("opens");
        staging.begin(&manifest).expect("begun");
        for group in manifest.groups() {
            let from = usize::try_from(group.offset).expect("fits");
            staging.write(&(&group).into(), &content[from..from + group.bytes as usize]).expect("writes");
        }
        assert_eq!(staging.put_in_place(&Compared::default()).is_ok(), good, "{what}");
        let left: Vec<_> = fs::read_dir(disk.path()).expect("read").map(|entry| entry.expect("read").file_name()).collect();
        assert_eq!(left, if good { vec!["model"] } else { Vec::new() }, "{what}");
    }
}

#[test]
fn a_foreign_file_among_the_received_is_not_delivered() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    world.receive(&mut staging, |_| true);
    fs::write(staging.files().join("install.sh"), b"#!/bin/sh").expect("written");
    assert!(matches!(staging.put_in_place(&Compared::default()), Err(StagingError::Untrue { .. })));
    assert!(!world.to().exists());
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let mut world = World::new();
    let mut staging = world.open();
    staging.begin(&world.manifest).expect("begun");
    let secret = world.disk.path().join("secret");
    fs::write(&secret, b"do not touch").expect("written");
    let config = staging.files().join("config.json");
    fs::remove_file(&config).expect("removed");
    std::os::unix::fs::symlink(&secret, &config).expect("linked");
    let group = world.manifest.group(0).expect("a group");
    let mut buffer = Vec::new();
    world.source.read_group(&group, &mut buffer).expect("reads");
    assert!(matches!(staging.write(&(&group).into(), &buffer), Err(StagingError::Disk { .. })));
    drop(staging);
    assert!(Staging::open(&world.to(), world.manifest.id()).is_err());
    assert_eq!(fs::read(&secret).expect("read"), b"do not touch");
}

#[test]
fn a_full_disk_is_named() {
    let full = disk("reserve space for", Path::new("/x/y"), io::Error::from(io::ErrorKind::StorageFull));
    assert_eq!(
        full.to_string(),
        "cannot reserve space for `/x/y`: no storage space; free some space, or choose a directory on a larger disk"
    );
}

/// The first and the last tensor of the model, and its configuration.
const PART: [&str; 2] = ["layer.[03]", "config.json"];

fn part_of(manifest: &Manifest) -> (Vec<TensorPattern>, Selection) {
    let patterns: Vec<TensorPattern> = PART.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
    let mut taking = crate::models::Taking::new(&patterns);
    let selection = Selection::new(manifest, |_| true, |candidate| taking.takes(candidate)).expect("some of it");
    (patterns, selection)
}

#[test]
fn a_part_is_kept_apart_and_its_leavings_are_cleared_away_with_all_others() {
    let mut world = World::new();
    let (patterns, selection) = part_of(&world.manifest);
    assert!(selection.runs() != world.all() && !selection.runs().is_empty());
    let open = |world: &World| Staging::open_known(&world.to(), world.manifest.id(), None, &patterns).expect("opens");
    let wants = |index: u64| selection.runs().iter().any(|(first, end)| (*first..*end).contains(&index));
    let mut whole = world.open();
    whole.begin(&world.manifest).expect("begun");
    world.receive(&mut whole, |index| index < 2);
    let mut part = open(&world);
    assert!(part.manifest().is_none());
    part.begin_part(&selection).expect("begun");
    assert_eq!(part.wanted_bytes(), selection.fetched_bytes());
    let last = selection.runs().last().expect("some").1 - 1;
    world.receive(&mut part, |index| wants(index) && index != last);
    assert!(!part.is_complete());
    let other = (0..world.manifest.group_count()).find(|index| !wants(*index)).expect("one that is not wanted");
    let mut buffer = Vec::new();
    let group = world.manifest.group(other).expect("a group");
    world.source.read_group(&group, &mut buffer).expect("reads");
    part.write(&(&group).into(), &buffer).expect("it has no place and needs none");
    drop(part);
    // As after a kill.
    let mut part = open(&world);
    part.begin_part(&selection).expect("taken up");
    let missing = part.flags().iter().filter(|here| !**here).count();
    assert_eq!(missing, 1);
    world.receive(&mut part, |index| index == last);
    let place = part.put_in_place(&Compared::default()).expect("delivered");
    assert_eq!(fs::read_dir(&place).expect("read").count(), selection.files().count());
    assert_eq!(world.names().len(), 2, "what came of the whole is kept");
    drop(whole);
    let mut part = open_beside(&world, &patterns);
    part.begin_part(&selection).expect("begun");
    drop(part);
    Staging::clear_away(&world.to().with_file_name("other"), world.manifest.id()).expect("cleared");
    Staging::clear_away(&world.to(), world.manifest.id()).expect("cleared");
    assert_eq!(world.names(), ["model"], "nothing but what was delivered");
}

fn open_beside(world: &World, patterns: &[TensorPattern]) -> Staging {
    Staging::open_known(&world.to().with_file_name("other"), world.manifest.id(), None, patterns).expect("opens")
}

#[test]
fn what_came_of_another_selection_is_not_mistaken_for_this_one() {
    let mut world = World::new();
    let (patterns, selection) = part_of(&world.manifest);
    let open = |world: &World| Staging::open_known(&world.to(), world.manifest.id(), None, &patterns).expect("opens");
    let mut part = open(&world);
    part.begin_part(&selection).expect("begun");
    world.receive(&mut part, |index| selection.runs().iter().any(|(first, end)| (*first..*end).contains(&index)));
    drop(part);
    // The same patterns; of what fits less may cross.
    let less = Selection::new(
        &world.manifest,
        |_| true,
        |candidate| matches!(candidate, manifest::Candidate::Tensor { name: "layer.3", .. }),
    );
    let less = less.expect("one tensor");
    let mut part = open(&world);
    part.begin_part(&less).expect("begun anew");
    let missing = part.flags().iter().filter(|here| !**here).count() as u64;
    assert_eq!(missing, less.runs().iter().map(|(first, end)| end - first).sum::<u64>());
    assert!(matches!(part.finish(), Err(StagingError::Incomplete { .. })));
    let mut other = world.manifest.clone();
    let file = manifest::File { path: "else".into(), ..other.files()[0].clone() };
    other = Manifest::new(other.artefact(), other.own_labels().clone(), vec![file]).expect("a manifest");
    let foreign = Selection::new(&other, |_| true, |_| true).expect("all of it");
    assert!(matches!(open_beside(&world, &patterns).begin_part(&foreign), Err(StagingError::OtherManifest { .. })));
}
