//! What the operator sees of transfers that run, and what can be done about them.

use std::time::{Duration, Instant};

use alliance_protocol::core::admin::CrossingState;

use crate::{
    crash::{finish, restart, under_way},
    harness::{SMALL, Stage, begin_pull, digests, over, until},
};

/// Bytes that take long enough to be interrupted at the limit that is set, and are fetched in moments without.
const LARGE: u64 = 128 * 1024 * 1024;

/// Bytes in a second at the limit that is set.
const LIMIT: u64 = 12_500_000;

#[tokio::test]
async fn a_transfer_can_be_seen_limited_and_ended() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let (name, original) = stage.offer("BR", "CN", LARGE, &[]).await;
    let to = stage.path("pulled");
    stage.cli("BR", &["transfer", "limit"]).await.good().shows(&["no limits are set"]);
    stage.cli("BR", &["transfer", "limit", "--out", "100M"]).await.good().shows(&["100 Mbit/s"]);
    assert!(stage.cli_json("BR", &["transfer", "list"]).await.good().lines().is_empty());

    let view = under_way(&stage, "CN", &name, &to).await;
    for (country, side, member) in [("BR", "exporter", "CN"), ("CN", "importer", "BR")] {
        let running = stage.cli_json(country, &["transfer", "list"]).await.good().lines();
        let [running] = running.as_slice() else { panic!("{country}: {running:?}") };
        assert_eq!((&running["side"], &running["member"]), (&side.into(), &member.into()), "{running}");
        assert_eq!(running["crossing"], view.crossing.to_string());
        let number = |field: &str| running[field].as_u64().unwrap_or_else(|| panic!("{field} in {running}"));
        // No more than the limit permits, what it lets pass at once and what is on its way included.
        let most = LIMIT * number("running_ms") / 1000 + 4 * 1024 * 1024;
        assert!(number("bytes") <= most && number("bytes") > 0, "{running}");
        assert_eq!(number("total"), view.total);
    }
    // No more at a time than are let: nobody is asked for one that would be too much.
    stage.cli("CN", &["transfer", "limit", "--member", "BR", "--at-a-time", "1"]).await.good();
    let other = stage.path("other");
    let busy = stage.cli("CN", &["pull", &name, "--to", crate::harness::text(&other)]).await.with(10);
    assert!(busy.err.contains("busy") && !other.exists(), "{busy:?}");
    let asked = stage.cli_json("BR", &["crossing", "list"]).await.good().lines();
    assert_eq!(asked.len(), 1, "{asked:?}");
    stage.cli("CN", &["transfer", "limit", "--member", "BR", "--remove"]).await.good();
    let short = view.crossing.short();
    stage.cli("CN", &["transfer", "show", &short]).await.good().shows(&[name.as_str()]);
    stage.cli("CN", &["transfer", "cancel", &short]).await.good().shows(&[view.crossing.to_string().as_str()]);
    for country in ["CN", "BR"] {
        let ended = until("the end of the crossing", || async {
            let view = stage.crossing(country, view.crossing).await;
            view.state.is_final().then_some(view)
        })
        .await;
        assert_eq!(ended.state, CrossingState::Failed, "{ended:?}");
    }
    let problem = stage.crossing("CN", view.crossing).await.problem.expect("a reason");
    assert!(problem.contains("cancelled by the operator"), "{problem}");
    stage.cli("CN", &["transfer", "cancel", &view.crossing.to_string()]).await.with(5);

    stage.cli("BR", &["transfer", "limit", "--remove"]).await.good().shows(&["no limits are set"]);
    let (moved, held) = finish(&stage, "CN", &name, &to).await;
    assert!(held > 0 && moved < view.total, "moved {moved}, held {held}");
    assert_eq!(digests(&to), digests(&original));

    // A limit outlasts the daemon.
    stage.cli("CN", &["transfer", "limit", "--member", "BR", "--at-a-time", "1", "--priority", "low"]).await.good();
    stage.node_mut("CN").kill().await.expect("killed");
    restart(&mut stage, "CN").await;
    stage.cli("CN", &["transfer", "limit"]).await.good().shows(&["member BR"]).shows(&["low"]);
    for wrong in [&["--out", "10K"][..], &["--at-a-time", "0"], &["--in", "fast"], &["--member", "XX", "--out", "1M"]] {
        stage.cli("CN", &[&["transfer", "limit"], wrong].concat()).await.with(2);
    }
    stage.cli("CN", &["transfer", "show", "0123"]).await.with(4);
    stage.stop().await;
}

#[tokio::test]
async fn a_pull_adds_to_the_time_spent_on_decisions_and_records_at_both_ends() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    let status = async |country| stage.node(country).status().await.expect("a status");
    let began = Instant::now();
    let before = [status("BR").await, status("CN").await];
    let crossing = begin_pull(stage.node("CN"), &name, &stage.path("pulled")).await;
    for country in ["CN", "BR"] {
        assert_eq!(over(stage.node(country), crossing).await.state, CrossingState::Done, "{country}");
    }
    let after = [status("BR").await, status("CN").await];
    let elapsed = began.elapsed();
    for (before, after) in before.into_iter().zip(after) {
        let deciding = after.deciding_us - before.deciding_us;
        let recording = after.recording_us - before.recording_us;
        assert!(after.ledger_size > before.ledger_size && deciding > 0 && recording > 0, "{before:?} {after:?}");
        // One loop does both, so that neither is counted twice.
        assert!(Duration::from_micros(deciding + recording) <= elapsed, "{elapsed:?}, {before:?} {after:?}");
    }
    stage.stop().await;
}
