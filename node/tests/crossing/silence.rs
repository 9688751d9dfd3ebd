//! Ends that say nothing more. Here, and only here, the limits are short.

use std::time::Duration;

use alliance_node::bulk::Deadlines;
use alliance_protocol::core::admin::CrossingState;

use crate::{
    artefact::{Goods, plain, tree},
    raw::{CLEARANCE, GAVE_UP, GROUPS, Guest, MANIFEST, RECEIPT},
    scene::Scene,
    valve::Valve,
    world::{EXPORTER, IMPORTER, World, assert_absent},
};

const SHORT: Duration = Duration::from_millis(600);

#[tokio::test]
async fn an_exporter_that_falls_silent_is_left() {
    // How far it goes before it falls silent.
    const STEPS: [&str; 6] = ["nothing", "half an answer", "an answer", "half a manifest", "a manifest", "half of a group"];
    let mut scene = Scene::with(Deadlines { stall: SHORT, answer: SHORT, ..Deadlines::default() });
    let to = scene.fresh();
    for (at, what) in STEPS.into_iter().enumerate() {
        let script = async |mut guest: Guest, goods: &Goods| {
            let (clearance, manifest) = (guest.signed(&guest.clearance()), goods.manifest.encode());
            let frame = |kind: u8, payload: &[u8]| {
                [&[kind][..], &u32::try_from(payload.len()).expect("short").to_be_bytes(), payload].concat()
            };
            let (clearance, manifest) = (frame(CLEARANCE, &clearance), frame(MANIFEST, &manifest));
            let bytes = frame(GROUPS, &goods.groups[0]);
            let parts =
                [&clearance[..100], &clearance[100..], &manifest[..100], &manifest[100..], &bytes[..bytes.len() / 2]];
            for part in &parts[..at] {
                guest.wire.bytes(part).await;
            }
            guest.wire.told().await
        };
        let outcome = scene.refuted(what, &to, script).await;
        assert_eq!((outcome.told, outcome.view.refusal), (GAVE_UP, None), "{what}: {}", outcome.problem);
        let reason = if at < 2 { "no answer within" } else { "no progress for" };
        assert!(outcome.problem.contains(reason), "{what}: {}", outcome.problem);
    }
    scene.world.restart(IMPORTER, Deadlines::default()).await;
    scene.pull_well(&to).await;
}

#[tokio::test]
async fn an_exporter_that_never_countersigns_is_left_with_the_delivery_done() {
    let mut scene = Scene::with(Deadlines { answer: SHORT, ..Deadlines::default() });
    let to = scene.fresh();
    let script = async |mut guest: Guest, goods: &Goods| {
        guest.clear().await;
        guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
        guest.wire.groups(&goods.stream(&[])).await;
        assert_eq!(guest.wire.read().await.expect("a receipt").0, RECEIPT);
        guest.wire.told().await
    };
    let outcome = scene.pull_from_liar(scene.offer, &to, script).await;
    assert_eq!((outcome.view.state, outcome.told), (CrossingState::DoneUnsettled, GAVE_UP), "{}", outcome.problem);
    assert!(tree(&to) == tree(&scene.model.path));
}

#[tokio::test]
async fn a_path_that_dies_ends_it_on_both_sides() {
    let short = Deadlines { stall: SHORT, linger: SHORT, ..Deadlines::default() };
    let mut world = World::with(short);
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 64));
    let valve = Valve::new(world.nodes[EXPORTER].bulk.local_addr(), 2_000_000).await;
    world.move_to(EXPORTER, valve.address());
    let to = world.fresh(IMPORTER);
    let crossing = world.pull(IMPORTER, offer, &to);
    for at in [IMPORTER, EXPORTER] {
        let view = world.settle(at, crossing).await;
        assert_eq!((view.state, view.refusal), (CrossingState::Failed, None), "{at}: {view:?}");
    }
    assert_absent(&to);
    for at in [IMPORTER, EXPORTER] {
        world.restart(at, Deadlines::default()).await;
    }
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert!(receipt.held_bytes > 0, "{receipt:?}");
}
