//! A law that is published ahead of its date, with real daemons: both sides are told before, and what runs ends at its date
//! without another word of the authority.
//!
//! How late that is is printed and asserted nowhere.

use std::{fs, time::SystemTime};

use alliance_protocol::{core::admin::CrossingState, limits::CLOCK_SKEW_MS_MAX, time::Timestamp};

use crate::{
    crash::under_way,
    harness::{Stage, over, until},
};

/// Bytes that take far longer at the limit that is set than anything else here.
const LARGE: u64 = 256 * 1024 * 1024;

/// Milliseconds from the publication until the new law may be in force: the pull is under way by then.
const AHEAD_MS: u64 = 8_000;

const DIRECTIVE: &str = r#"@id("BR-D01") @title("Nothing leaves") @directive("Test 1/2026") @status("directive")
forbid (principal, action == Action::"export", resource);
"#;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later");
    Timestamp(u64::try_from(since.as_millis()).expect("fits"))
}

#[tokio::test]
async fn what_runs_ends_on_both_sides_when_law_that_was_adopted_ahead_comes_into_force() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", LARGE, &[]).await;
    stage.cli("BR", &["transfer", "limit", "--out", "30M"]).await.good();
    stage.cli("CN", &["policy", "upcoming"]).await.good();
    let root = stage.network.root();
    let (dir, charter) = (root.join("authorities/BR"), root.join("charter.alliance"));
    let directives = stage.path("directives.cedar");
    fs::write(&directives, DIRECTIVE).expect("written");
    // Decisions are made for an interval around the clock, so that it is as good as in force that much earlier.
    let (from, home) = (now().plus_ms(AHEAD_MS + CLOCK_SKEW_MS_MAX).to_string(), stage.home("BR"));
    // As written, which is to the second.
    let turn: Timestamp = from.parse().expect("an instant");
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let directives = text(&directives);
    let (dir, charter, home) = (text(&dir), text(&charter), text(&home));
    let publish = ["authority", "publish", "--dir", &dir, "--charter", &charter, "--node-home", &home];
    let ahead = [&publish[..], &["--directives", &directives, "--from", &from]].concat();
    stage.cli("BR", &ahead).await.good().shows(&["to come", "epoch 2"]);
    // Said again and nothing new, it does not count twice; in between the law is what it was.
    stage.cli("BR", &ahead).await.with(2).says(&["in force by then already"]);
    stage.cli("BR", &publish).await.good().shows(&["epoch 1, unchanged", "epoch 2"]);

    let view = under_way(&stage, "CN", &name, &stage.path("pulled")).await;
    for country in ["BR", "CN"] {
        until("word of the new law", || async {
            let shown = stage.cli(country, &["policy", "upcoming"]).await.good();
            (shown.out.contains("the law pack of BR, epoch 2, comes into force")
                && shown.out.contains(&format!("crossing {}", view.crossing.short()))
                && shown.out.contains("denied by the rules of BR"))
            .then_some(())
        })
        .await;
    }
    let effective = turn.minus_ms(CLOCK_SKEW_MS_MAX);
    let mut problems = Vec::new();
    for country in ["BR", "CN"] {
        let ended = over(stage.node(country), view.crossing).await;
        assert_eq!(ended.state, CrossingState::Failed, "{ended:?}");
        let at = ended.ended.expect("over");
        assert!(at >= effective, "not before its date");
        println!("{country}: {} ms after the new law may be in force", at.0 - effective.0);
        problems.push(ended.problem.unwrap_or_default());
    }
    assert!(problems.iter().any(|problem| problem.contains("denied by the rules of BR")), "{problems:?}");
    let to = stage.path("again");
    stage.cli("CN", &["pull", &name, "--to", &text(&to)]).await.with(3).shows(&["BR-D01"]);
    stage.verify_ledgers().await;
    stage.stop().await;
}
