//! One artefact from one node over several connections: each a crossing of its own, on threads of its own at both ends.

use alliance_node::bulk::Deadlines;
use alliance_protocol::core::admin::{CrossingState, CrossingView};

use crate::{
    artefact::{GROUP, awkward, plain, tree},
    world::{EXPORTER, IMPORTER, World},
};

const LANES: usize = 3;

fn sources(world: &mut World, lead: alliance_protocol::id::CrossingId) -> Vec<CrossingView> {
    match world.call(IMPORTER, alliance_protocol::core::admin::AdminCall::Sources(lead)) {
        alliance_protocol::core::admin::Reply::Crossings(views) => views,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_large_artefact_comes_over_several_connections() {
    let mut world = World::with_lanes(Deadlines::default(), LANES);
    // 3 MiB are enough here for three of them.
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 200));
    let to = world.fresh(IMPORTER);
    let lead = world.pull(IMPORTER, offer, &to);
    let all_over = |world: &mut World| {
        let views = sources(world, lead);
        views.iter().all(|view| view.state.is_final())
    };
    world.run_until("all of them", all_over).await;
    assert!(tree(&to) == tree(&model.path));
    let views = sources(&mut world, lead);
    assert_eq!(views.len(), LANES, "{views:?}");
    assert!(views.iter().all(|view| view.state == CrossingState::Done), "{views:?}");
    let mut moved = 0;
    for view in &views {
        assert_eq!(world.settle(EXPORTER, view.crossing).await.state, CrossingState::Done);
        let receipt = world.receipt(EXPORTER, view.crossing).body().clone();
        assert_eq!(receipt.bytes + receipt.held_bytes, model.bytes);
        moved += receipt.bytes;
    }
    assert_eq!(moved, model.bytes, "each byte once");
    assert_eq!(world.nodes[EXPORTER].sent(), model.bytes);
    assert!(views.iter().filter(|view| view.bytes > 0).count() > 1, "the work was divided: {views:?}");
}

#[tokio::test]
async fn a_small_artefact_comes_over_one() {
    let mut world = World::with_lanes(Deadlines::default(), LANES);
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 4));
    let to = world.fresh(IMPORTER);
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert_eq!(receipt.bytes, 4 * GROUP as u64 + model.bytes % GROUP as u64);
}

#[tokio::test]
async fn planes_of_one_thread_and_of_several_understand_each_other() {
    let mut world = World::with_lanes(Deadlines::default(), LANES);
    world.lanes = 1;
    let third = world.join("ZA", "uct", Deadlines::default());
    for (from, to) in [(EXPORTER, third), (third, EXPORTER)] {
        let (offer, model) = world.offer(from, awkward);
        let place = world.fresh(to);
        let crossing = world.pull(to, offer, &place);
        assert_eq!(world.settle(to, crossing).await.state, CrossingState::Done);
        assert!(tree(&place) == tree(&model.path));
    }
}
