//! A new version of a model of which most lies here: what is the same is copied from there, verified, and does not cross again
//! (CROSSING-42).

use std::{fs, path::Path};

use alliance_protocol::{
    core::admin::{CrossingState, LocalModel},
    id::StatementId,
    vocabulary::Label,
};

use crate::{
    artefact::{GROUP, noise, safetensors, tree},
    world::{EXPORTER, IMPORTER, World},
};

/// Bytes of each tensor, in the order of the file.
const TENSORS: [usize; 5] = [8 * GROUP, 1000, 4 * GROUP + 7, 6 * GROUP, 3 * GROUP];

/// The tensor that differs from version to version, and the bytes behind its beginning.
const CHANGED: usize = 3;
const BEHIND: usize = TENSORS[3] + TENSORS[4];

/// A version of the model: one tensor and one small file are its own.
fn version(dir: &Path, number: u64) {
    let mut bytes = safetensors(&TENSORS);
    let from = bytes.len() - BEHIND;
    bytes[from..from + TENSORS[CHANGED]].copy_from_slice(&noise(TENSORS[CHANGED], 1000 + number));
    fs::write(dir.join("model.safetensors"), bytes).expect("written");
    fs::write(dir.join("config.json"), format!("{{\"version\": {number}}}")).expect("written");
    fs::write(dir.join("tokenizer.json"), noise(2 * GROUP, 7)).expect("written");
}

/// Bytes of a version that are in no other.
fn own_bytes(dir: &Path) -> u64 {
    fs::metadata(dir.join("config.json")).expect("there").len() + TENSORS[CHANGED] as u64
}

struct Versions {
    world: World,
    first: LocalModel,
    second: (StatementId, LocalModel),
}

impl Versions {
    /// The importer has the first of two versions.
    async fn new() -> Self {
        let mut world = World::pair();
        let (offer, first) = world.offer(EXPORTER, |dir| version(dir, 1));
        let second = world.offer(EXPORTER, |dir| version(dir, 2));
        let to = world.fresh(IMPORTER);
        world.pull_well(IMPORTER, offer, &first, &to).await;
        let first = LocalModel { path: to, ..first };
        Self { world, first, second }
    }

    /// Pulls the second version; gives the bytes that crossed.
    async fn pull(&mut self) -> u64 {
        let to = self.world.fresh(IMPORTER);
        let (offer, model) = &self.second;
        self.world.pull_well(IMPORTER, *offer, model, &to).await.bytes
    }
}

#[tokio::test]
async fn only_what_changed_crosses() {
    let mut versions = Versions::new().await;
    let own = own_bytes(&versions.second.1.path);
    let before = tree(&versions.first.path);
    assert_eq!(versions.pull().await, own);
    assert!(tree(&versions.first.path) == before, "the other is as it was");
}

#[tokio::test]
async fn what_was_changed_on_the_disk_since_is_fetched_instead() {
    let mut versions = Versions::new().await;
    let own = own_bytes(&versions.second.1.path);
    // One byte of the first tensor: its groups up to there are good.
    let path = versions.first.path.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    let first = bytes.len() - TENSORS.iter().sum::<usize>();
    bytes[first + 5 * GROUP] ^= 1;
    fs::write(&path, &bytes).expect("written");
    assert_eq!(versions.pull().await, own + 3 * GROUP as u64);
}

#[tokio::test]
async fn a_copy_that_is_gone_or_cut_short_costs_nothing_but_bytes() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("gone", |dir| fs::remove_dir_all(dir).expect("removed")),
        ("a file is gone", |dir| fs::remove_file(dir.join("model.safetensors")).expect("removed")),
        ("empty", |dir| fs::write(dir.join("model.safetensors"), b"").expect("written")),
        ("a directory in its place", |dir| {
            fs::remove_file(dir.join("tokenizer.json")).expect("removed");
            fs::create_dir(dir.join("tokenizer.json")).expect("made");
        }),
    ];
    for (what, harm) in harms {
        let mut versions = Versions::new().await;
        harm(&versions.first.path);
        let crossed = versions.pull().await;
        assert!(crossed > own_bytes(&versions.second.1.path), "{what}: {crossed}");
    }
}

#[tokio::test]
async fn what_another_organisation_made_is_not_looked_at() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| version(dir, 2));
    // Whoever offers a copy under other words must neither get it out that way nor find out that it is here.
    world.import(IMPORTER, &[Label::Public], |dir| version(dir, 1));
    let to = world.fresh(IMPORTER);
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert_eq!((receipt.bytes, receipt.held_bytes), (model.bytes, 0));
}

#[tokio::test]
async fn what_is_the_same_in_full_crosses_not_at_all_and_is_recorded_like_any_other() {
    let mut world = World::pair();
    let (offer, first) = world.offer(EXPORTER, |dir| version(dir, 1));
    let to = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &first, &to).await;
    // All of its content in other files, so that it is another artefact.
    let (offer, model) = world.offer(EXPORTER, |dir| {
        version(dir, 1);
        fs::rename(dir.join("config.json"), dir.join("settings.json")).expect("renamed");
    });
    let to = world.fresh(IMPORTER);
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert_eq!((receipt.bytes, receipt.held_bytes), (0, model.bytes));
}

#[tokio::test]
async fn several_sources_bring_only_what_changed() {
    let mut world = World::pair();
    let holder = world.join("ZA", "uct", alliance_node::bulk::Deadlines::default());
    let (offer, first) = world.offer(EXPORTER, |dir| version(dir, 1));
    let (second, model) = world.offer_onward(EXPORTER, |dir| version(dir, 2));
    let theirs = world.fresh(holder);
    let got = world.pull_from(holder, second, &theirs, 1, true);
    assert_eq!(world.settle(holder, got).await.state, CrossingState::Done);
    let to = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &first, &to).await;

    let received = world.nodes[IMPORTER].received();
    let to = world.fresh(IMPORTER);
    let lead = world.pull_from(IMPORTER, second, &to, 2, false);
    assert_eq!(world.settle(IMPORTER, lead).await.state, CrossingState::Done);
    assert!(tree(&to) == tree(&model.path));
    assert_eq!(world.nodes[IMPORTER].received() - received, own_bytes(&model.path));
}
