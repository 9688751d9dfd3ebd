//! What many pulls leave behind in daemons that live long: records, and nothing else.

use std::fs;

use alliance_protocol::core::admin::{CrossingState, CrossingView};

use crate::{
    harness::{SMALL, Stage, begin_pull, digests, names, over, until},
    memory::figure,
};

/// Pulls after the warm-up, unless `ALLIANCE_PULLS` says otherwise.
const PULLS: u64 = 150;

/// Pulls after which everything that is made once is there: pools of threads, caches, arenas of the allocator.
const WARM_UP: u64 = 10;

/// Files, sockets and the like that may be open beyond those after the warm-up: a question of the test that is being
/// answered, and a file of the catalogue that is being written in its own time.
const OPEN_MORE_MAX: usize = 3;

/// Threads beyond those after the warm-up: of those for files as many stay for a while as were busy at once.
const THREADS_MORE_MAX: usize = 2;

/// What the allocator may keep more than after the warm-up, however few pulls there were.
const MEMORY_MORE_MAX: u64 = 4 * 1024 * 1024;

/// What a daemon may keep of each pull: the view of its crossing with the facts, the verdicts and their words, as long as
/// it is among the last ten thousand, its leaf in the tree of the ledger, and what the packs answered.
const MEMORY_PER_PULL_MAX: u64 = 16 * 1024;

/// What a process has at a time.
#[derive(Clone, Copy, Debug)]
struct Held {
    open: usize,
    threads: usize,
    memory: u64,
}

fn held(stage: &Stage, country: &str) -> Held {
    let pid = stage.node(country).pid().expect("running");
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("read").count();
    Held { open: count("fd"), threads: count("task"), memory: figure(pid, "VmRSS") }
}

/// Pulls to the end, over the local API alone; both sides are done then.
async fn pull(stage: &Stage, name: &str) -> CrossingView {
    let to = stage.path("pulled");
    let crossing = begin_pull(stage.node("CN"), name, &to).await;
    for country in ["CN", "BR"] {
        let ended = over(stage.node(country), crossing).await;
        assert_eq!(ended.state, CrossingState::Done, "{country}: {ended:?}");
    }
    let view = stage.crossing("CN", crossing).await;
    assert_eq!(view.bytes, view.total, "nothing was there before: {view:?}");
    view
}

#[tokio::test]
async fn many_pulls_leave_records_and_nothing_else() {
    let pulls = std::env::var("ALLIANCE_PULLS").map_or(PULLS, |text| text.parse().expect("a number"));
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, original) = stage.offer("BR", "CN", SMALL, &[]).await;
    let to = stage.path("pulled");
    let mut before = None;
    for number in 0..WARM_UP + pulls {
        if number == WARM_UP {
            before = Some(["BR", "CN"].map(|country| held(&stage, country)));
        }
        if number > 0 {
            fs::remove_dir_all(&to).expect("removed");
        }
        pull(&stage, &name).await;
        if number % 100 == 9 {
            println!("{number}: {:?}", ["BR", "CN"].map(|country| held(&stage, country)));
        }
    }
    assert_eq!(digests(&to), digests(&original));
    assert_eq!(names(stage.dir.path()).len(), 2, "what was offered, and what was pulled");
    for (country, before) in ["BR", "CN"].into_iter().zip(before.expect("warmed up")) {
        // What ends in its own time is waited for.
        let after = until("as few files and threads as after the warm-up", || async {
            let after = held(&stage, country);
            let few = after.open <= before.open + OPEN_MORE_MAX && after.threads <= before.threads + THREADS_MORE_MAX;
            few.then_some(after)
        })
        .await;
        println!("{country}: {pulls} pulls, before {before:?}, after {after:?}");
        let most = before.memory + MEMORY_MORE_MAX + pulls * MEMORY_PER_PULL_MAX;
        assert!(after.memory <= most, "{country}: {before:?} {after:?}");
    }
    stage.verify_ledgers().await;
    stage.stop().await;
}
