//! Whatever a path does to datagrams, what is delivered is what was offered, byte for byte, or nothing is.

use std::{path::PathBuf, time::Duration};

use alliance_node::bulk::Deadlines;
use alliance_protocol::{
    core::admin::{CrossingState, LocalModel},
    id::StatementId,
};

use crate::{
    artefact::{GROUP, awkward, many_small, plain},
    path::{Ills, Path, Turn, Weather},
    scene::assert_undelivered,
    world::{EXPORTER, HANG, IMPORTER, World},
};

/// Each alone is tried with each of these.
const SEEDS: [u64; 2] = [1, 2];

/// Where datagrams are lost, a handshake waits for seconds before it tries again.
fn patient() -> Deadlines {
    Deadlines { connect: HANG, request: HANG, ..Deadlines::default() }
}

/// Two nodes, and what one has for the other: four files of unlike kinds in thousands of tensors, small and large.
fn pair(deadlines: Deadlines) -> (World, StatementId, LocalModel) {
    let mut world = World::with(deadlines);
    let (offer, model) = world.offer(EXPORTER, |dir| {
        awkward(dir);
        many_small(dir);
    });
    assert!(model.tensors > 2000 && model.bytes > 12 * GROUP as u64);
    (world, offer, model)
}

/// Pulls over a path with these ills, with the checks of [`World::pull_well`]; gives how often each was met.
async fn pull_over(ills: Ills, seed: u64) -> Ills {
    // Only shown when it fails.
    println!("seed {seed}: {ills:?}");
    let (mut world, offer, model) = pair(patient());
    let path = Path::new(world.nodes[EXPORTER].bulk.local_addr(), Weather::new(seed, ills), Turn::Never).await;
    world.move_to(EXPORTER, path.address());
    let to = world.fresh(IMPORTER);
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert_eq!((receipt.bytes, receipt.held_bytes), (model.bytes, 0), "each byte is counted once");
    let met = path.met();
    println!("{met:?}");
    met
}

#[tokio::test]
async fn a_path_without_ills_changes_nothing() {
    assert_eq!(pull_over(Ills::default(), 0).await, Ills::default());
}

#[tokio::test]
async fn datagrams_that_are_lost_are_sent_again() {
    for seed in SEEDS {
        assert!(pull_over(Ills { lost: 100, ..Ills::default() }, seed).await.lost > 0);
    }
}

#[tokio::test]
async fn datagrams_that_come_late_find_their_place() {
    for seed in SEEDS {
        assert!(pull_over(Ills { late: 200, ..Ills::default() }, seed).await.late > 0);
    }
}

#[tokio::test]
async fn datagrams_that_come_twice_count_once() {
    for seed in SEEDS {
        assert!(pull_over(Ills { twice: 300, ..Ills::default() }, seed).await.twice > 0);
    }
}

#[tokio::test]
async fn datagrams_with_a_flipped_bit_are_not_believed() {
    for seed in SEEDS {
        assert!(pull_over(Ills { flipped: 100, ..Ills::default() }, seed).await.flipped > 0);
    }
}

#[tokio::test]
async fn datagrams_that_are_cut_short_are_not_believed() {
    for seed in SEEDS {
        assert!(pull_over(Ills { short: 100, ..Ills::default() }, seed).await.short > 0);
    }
}

#[tokio::test]
async fn all_of_it_together_changes_no_byte() {
    for seed in [1, 2, 3, 4] {
        let met = pull_over(Ills { lost: 30, late: 50, twice: 50, flipped: 30, short: 30 }, seed).await;
        for times in [met.lost, met.late, met.twice, met.flipped, met.short] {
            assert!(times > 0, "{met:?}");
        }
    }
}

/// A pull of 16 MiB over a path that turns after two, and how it ended: on both sides, with nothing delivered.
async fn broken(turn: Turn, ills: Ills) -> (World, Path, StatementId, LocalModel, PathBuf) {
    // The path gives no sign any more; how long that is borne is not what this is about.
    let stall = Duration::from_secs(2);
    let mut world = World::with(Deadlines { stall, linger: stall, ..patient() });
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 64));
    let path = Path::new(world.nodes[EXPORTER].bulk.local_addr(), Weather::new(1, ills), turn).await;
    world.move_to(EXPORTER, path.address());
    let to = world.fresh(IMPORTER);
    let crossing = world.pull(IMPORTER, offer, &to);
    world.during(path.turned()).await;
    for at in [IMPORTER, EXPORTER] {
        let view = world.settle(at, crossing).await;
        assert_eq!((view.state, view.refusal), (CrossingState::Failed, None), "{at}: {view:?}");
        assert!(!world.nodes[at].failure(crossing).2, "nobody lied: {view:?}");
        assert_eq!(world.running(at), 0);
        assert!(!world.nodes[at].kinds(crossing).contains(&"settled"));
    }
    assert_undelivered("the path broke", &to);
    let sent = world.nodes[EXPORTER].sent();
    assert_eq!(world.nodes[EXPORTER].failure(crossing).0, sent, "what may have left is recorded");
    assert!(world.nodes[IMPORTER].received() <= sent && sent < model.bytes, "{sent}");
    for at in [IMPORTER, EXPORTER] {
        world.restart(at, Deadlines::default()).await;
    }
    (world, path, offer, model, to)
}

const TWO_MIB: u64 = 8 * GROUP as u64;

#[tokio::test]
async fn a_path_that_ends_for_good_delivers_nothing() {
    for ills in [Ills::default(), Ills { lost: 30, late: 50, twice: 50, flipped: 30, short: 30 }] {
        let (mut world, _path, offer, model, to) = broken(Turn::Ends(TWO_MIB), ills).await;
        // What had come was good, and is not sent again.
        let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
        assert!(receipt.held_bytes > 0, "{receipt:?}");
    }
}

/// A connection stays where it began (`node/src/bulk/endpoint.rs`); the next one goes on where it was.
#[tokio::test]
async fn an_importer_that_is_suddenly_elsewhere_goes_on_with_its_next_pull() {
    let (mut world, _path, offer, model, to) = broken(Turn::Moves(TWO_MIB), Ills::default()).await;
    let receipt = world.pull_well(IMPORTER, offer, &model, &to).await;
    assert!(receipt.held_bytes > 0, "{receipt:?}");
}
