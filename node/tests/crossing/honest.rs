//! Two honest nodes: what arrives is what was offered, and both ledgers agree on how much moved.

use std::time::Duration;

use alliance_node::bulk::Deadlines;
use alliance_protocol::core::admin::CrossingState;

use crate::{
    artefact::{GROUP, Goods, awkward, many_small, plain, tree},
    raw::{MANIFEST, RawExporter},
    valve::Valve,
    world::{EXPORTER, IMPORTER, World, assert_absent},
};

#[tokio::test]
async fn a_model_arrives_as_it_was_and_a_second_pull_moves_nothing() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, awkward);
    let to = world.fresh(IMPORTER);
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert_eq!((receipt.bytes, receipt.held_bytes), (model.bytes, 0));
    let again = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert_eq!((again.bytes, again.held_bytes), (0, model.bytes));
    assert_eq!((world.running(EXPORTER), world.running(IMPORTER)), (0, 0));
}

#[tokio::test]
async fn many_small_tensors_arrive() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, many_small);
    assert!(model.tensors > 2000);
    let to = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &model, &to).await;
}

#[tokio::test]
async fn where_the_disk_is_slow_a_thread_goes_on_in_the_middle() {
    let mut world = World::with(Deadlines { write: Duration::ZERO, ..Deadlines::default() });
    for goods in [awkward, many_small] {
        let (offer, model) = world.offer(EXPORTER, goods);
        let to = world.fresh(IMPORTER);
        world.pull_well(IMPORTER, offer, &model, &to).await;
        assert!(tree(&to) == tree(&model.path));
    }
}

#[tokio::test]
async fn several_pulls_at_once_do_not_mix() {
    let mut world = World::pair();
    let offers: Vec<_> = (1..=4).map(|groups| world.offer(EXPORTER, |dir| plain(dir, groups))).collect();
    let mut pulls = Vec::new();
    for (offer, _) in &offers {
        let to = world.fresh(IMPORTER);
        pulls.push((world.pull(IMPORTER, *offer, &to), to));
    }
    for ((crossing, to), (_, model)) in pulls.into_iter().zip(&offers) {
        assert_eq!(world.settle(IMPORTER, crossing).await.state, CrossingState::Done);
        assert!(tree(&to) == tree(&model.path));
    }
    let all: u64 = offers.iter().map(|(_, model)| model.bytes).sum();
    assert_eq!(world.nodes[EXPORTER].sent(), all);
}

#[tokio::test]
async fn what_arrived_before_the_exporter_went_away_is_not_sent_again() {
    // Written as it comes, however busy the machine is.
    let mut world = World::with(Deadlines { write: Duration::MAX, ..Deadlines::default() });
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 16));
    let goods = Goods::of(&model, &world.nodes[EXPORTER].manifests());
    let raw = RawExporter::open(&world.nodes[EXPORTER].key, world.alliance.id);
    let to = world.fresh(IMPORTER);

    // The same exporter dies after ten groups and a half.
    world.move_to(EXPORTER, raw.address());
    let crossing = world.pull(IMPORTER, offer, &to);
    let arrived: usize = goods.groups.iter().take(10).map(Vec::len).sum();
    let half = arrived + goods.groups[10].len() / 2;
    let guest = world
        .during(async {
            let mut guest = raw.accept().await;
            guest.clear().await;
            guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
            guest.wire.groups(&goods.stream(&[])[..half]).await;
            guest
        })
        .await;
    // All of it has arrived before the connection goes.
    let wanted = u64::try_from(half).expect("small");
    world.run_until("half of it", |world| world.nodes[IMPORTER].received() >= wanted).await;
    guest.wire.close(1);
    let view = world.settle(IMPORTER, crossing).await;
    assert_eq!((view.state, view.refusal), (CrossingState::Failed, None), "{view:?}");
    assert_absent(&to);

    world.move_home(EXPORTER);
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    // But for a group of which not all was here.
    let held = usize::try_from(receipt.held_bytes).expect("small");
    assert!((arrived - GROUP..=arrived).contains(&held), "{receipt:?}");
}

#[tokio::test]
async fn a_pull_goes_on_after_both_daemons_were_restarted() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 64));
    let valve = Valve::new(world.nodes[EXPORTER].bulk.local_addr(), 8 * GROUP as u64).await;
    world.move_to(EXPORTER, valve.address());
    let to = world.fresh(IMPORTER);
    let crossing = world.pull(IMPORTER, offer, &to);
    world.during(valve.shut()).await;
    world.some_progress(IMPORTER).await;
    world.restart(EXPORTER, Deadlines::default()).await;
    world.restart(IMPORTER, Deadlines::default()).await;
    for at in [EXPORTER, IMPORTER] {
        let view = world.view(at, crossing).expect("recorded");
        assert_eq!(view.state, CrossingState::Failed, "{view:?}");
        assert_eq!(world.running(at), 0);
    }
    assert_absent(&to);
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert!(receipt.held_bytes > 0, "{receipt:?}");
}

#[tokio::test]
async fn a_destination_that_holds_something_else_is_left_alone() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, awkward);
    let other = world.fresh(IMPORTER);
    std::fs::create_dir_all(&other).expect("made");
    std::fs::write(other.join("thesis.txt"), b"years of work").expect("written");
    let file = world.fresh(IMPORTER);
    std::fs::create_dir_all(file.parent().expect("inside")).expect("made");
    std::fs::write(&file, b"years of work").expect("written");
    // A model that was pulled and then changed by its owner.
    let changed = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &model, &changed).await;
    std::fs::write(changed.join("config.json"), b"{}").expect("written");

    let (sent, records) = (world.nodes[EXPORTER].sent(), world.nodes[EXPORTER].entries.len());
    for to in [&other, &file, &changed] {
        let before = (tree(to), std::fs::read(to).ok());
        let crossing = world.pull(IMPORTER, offer, to);
        let view = world.settle(IMPORTER, crossing).await;
        assert_eq!(view.state, CrossingState::Failed, "{view:?}");
        assert!(view.problem.as_ref().is_some_and(|problem| problem.contains("exists and")), "{view:?}");
        assert!(before == (tree(to), std::fs::read(to).ok()), "it is left alone");
    }
    assert_eq!(world.nodes[EXPORTER].sent(), sent, "no artefact byte");
    assert_eq!(world.nodes[EXPORTER].entries.len(), records, "nobody was asked");
}
