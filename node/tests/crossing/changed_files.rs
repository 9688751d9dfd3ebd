//! An exporter whose files were changed after it imported them, by somebody else on its machine.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use alliance_protocol::{core::admin::CrossingState, crossing::RefusalCode};

use crate::{
    artefact::{Goods, awkward},
    world::{EXPORTER, IMPORTER, World, assert_absent},
};

/// A change of `model.safetensors`, or of another file.
type Change = fn(&Path);

fn tensors(dir: &Path) -> PathBuf {
    dir.join("model.safetensors")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn what_was_changed_does_not_leave() {
    let cases: [(&str, Change); 9] = [
        ("one byte of the header", |dir| flip(&tensors(dir), 100)),
        ("one byte of a tensor", |dir| flip(&tensors(dir), 1_500_000)),
        ("one byte of a small file", |dir| flip(&dir.join("config.json"), 3)),
        ("a byte less", |dir| {
            let bytes = fs::read(tensors(dir)).expect("read");
            fs::write(tensors(dir), &bytes[..bytes.len() - 1]).expect("written");
        }),
        ("a byte more", |dir| {
            let bytes = fs::read(tensors(dir)).expect("read");
            fs::write(tensors(dir), [&bytes[..], &[0]].concat()).expect("written");
        }),
        ("a link to the same bytes outside", |dir| {
            let outside = dir.parent().expect("inside").join(format!("outside-{}", dir.display().to_string().len()));
            fs::rename(tensors(dir), &outside).expect("moved");
            symlink(outside, tensors(dir)).expect("linked");
        }),
        ("a link to a secret", |dir| {
            fs::remove_file(dir.join("config.json")).expect("removed");
            symlink("/etc/hostname", dir.join("config.json")).expect("linked");
        }),
        ("a file that is gone", |dir| fs::remove_file(tensors(dir)).expect("removed")),
        ("a directory in its place", |dir| {
            fs::remove_file(tensors(dir)).expect("removed");
            fs::create_dir(tensors(dir)).expect("made");
        }),
    ];
    let mut world = World::pair();
    for (what, change) in cases {
        let (offer, model) = world.offer(EXPORTER, awkward);
        let goods = Goods::of(&model, &world.nodes[EXPORTER].manifests());
        change(&model.path);
        let (sent, to) = (world.nodes[EXPORTER].sent(), world.fresh(IMPORTER));
        let crossing = world.pull(IMPORTER, offer, &to);
        for at in [IMPORTER, EXPORTER] {
            let view = world.settle(at, crossing).await;
            let found = (view.state, view.refusal);
            assert_eq!(found, (CrossingState::Failed, Some(RefusalCode::Damaged)), "{what}, {at}: {:?}", view.problem);
            assert!(world.nodes[at].failure(crossing).2, "{what}: tampered");
            assert_eq!(world.running(at), 0);
        }
        assert_absent(&to);
        let sent = world.nodes[EXPORTER].sent() - sent;
        assert_eq!(world.nodes[EXPORTER].failure(crossing).0, sent, "{what}");
        // The first group that is not what it was, and nothing after it.
        let good: u64 = match what {
            "one byte of a tensor" => before(&goods, 1_500_000),
            "one byte of the header" => before(&goods, 100),
            _ => 0,
        };
        assert!(sent <= good, "{what}: {sent} > {good}");

        // Repaired, it can be pulled.
        let _ = fs::remove_dir(tensors(&model.path));
        for path in [tensors(&model.path), model.path.join("config.json")] {
            let _ = fs::remove_file(path);
        }
        awkward(&model.path);
        world.pull_well(IMPORTER, offer, &model, &to).await;
    }
}

/// Bytes of all groups before the one that holds this byte of `model.safetensors`.
fn before(goods: &Goods, byte: u64) -> u64 {
    let manifest = &goods.manifest;
    let file = manifest.files().iter().position(|file| file.path == "model.safetensors").expect("a file");
    let changed = manifest.groups().find(|group| {
        let range = group.offset..group.offset + u64::from(group.bytes);
        usize::try_from(group.file) == Ok(file) && range.contains(&byte)
    });
    manifest.bytes_of_runs(&[(0, changed.expect("a group").index)])
}

#[tokio::test]
async fn a_manifest_that_is_lost_or_damaged_lets_nothing_leave() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, awkward);
    let kept = world.nodes[EXPORTER].manifests().join(format!("{}.manifest", model.manifest));
    let good = fs::read(&kept).expect("a manifest");
    let changes: [(&str, Option<Vec<u8>>); 3] =
        [("gone", None), ("empty", Some(Vec::new())), ("cut", Some(good[..good.len() - 1].to_vec()))];
    for (what, bytes) in changes {
        match bytes {
            Some(bytes) => fs::write(&kept, bytes).expect("written"),
            None => fs::remove_file(&kept).expect("removed"),
        }
        let to = world.fresh(IMPORTER);
        let crossing = world.pull(IMPORTER, offer, &to);
        for at in [IMPORTER, EXPORTER] {
            let view = world.settle(at, crossing).await;
            let found = (view.state, view.refusal);
            assert_eq!(found, (CrossingState::Failed, Some(RefusalCode::Damaged)), "{what}, {at}: {:?}", view.problem);
        }
        assert_absent(&to);
        assert_eq!(world.nodes[EXPORTER].sent(), 0, "{what}");
        fs::write(&kept, &good).expect("written");
    }
    let to = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &model, &to).await;
}
