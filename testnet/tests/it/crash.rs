//! What ends a crossing while bytes move: a daemon that is killed, a law that changes. Nothing half-done is visible, and
//! nothing is fetched twice.

use std::{fs, path::Path};

use alliance_protocol::core::admin::{CrossingState, CrossingView};

use crate::harness::{Stage, begin_pull, digests, names, signal, text, until};

/// Bytes that take long enough to be interrupted, and no longer.
const LARGE: u64 = 256 * 1024 * 1024;

/// Bytes that must have come before a side is killed.
const COME: u64 = 8 * 1024 * 1024;

/// Begins a pull to this place and gives the crossing as soon as enough of it has come.
pub(crate) async fn under_way(stage: &Stage, importer: &str, name: &str, to: &Path) -> CrossingView {
    let crossing = begin_pull(stage.node(importer), name, to).await;
    let view = until("progress of the pull", || async {
        let view = stage.crossing(importer, crossing).await;
        (view.bytes > COME || view.state.is_final()).then_some(view)
    })
    .await;
    assert_eq!(view.state, CrossingState::Cleared, "it was to be caught under way: {view:?}");
    view
}

/// Nothing that looks like the model is there, and what came is hidden.
fn check_hidden(dir: &Path, to: &Path) {
    assert!(!to.exists(), "nothing stands under the final name");
    let name = to.file_name().expect("a name").to_str().expect("UTF-8");
    let found: Vec<_> = names(dir).into_iter().filter(|entry| entry.contains(name)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with('.') && found[0].ends_with(".partial"), "{found:?}");
}

/// Pulls with the command line to the end; gives the bytes that this moved and those that were held.
pub(crate) async fn finish(stage: &Stage, importer: &str, name: &str, to: &Path) -> (u64, u64) {
    let view = stage.cli_json(importer, &["pull", name, "--to", text(to)]).await.good().json();
    assert_eq!(view["state"], "done", "{view}");
    let id = view["crossing"].as_str().expect("an id");
    let entries = stage.cli_json(importer, &["ledger", "list", "--crossing", id, "--kind", "settled"]).await.good().lines();
    let receipt = &entries[0]["record"]["receipt"]["body"];
    let number = |field: &str| receipt[field].as_u64().unwrap_or_else(|| panic!("{field} in {}", entries[0]));
    assert_eq!(view["bytes"], number("bytes"), "what is shown is what was signed");
    (number("bytes"), number("held_bytes"))
}

pub(crate) async fn restart(stage: &mut Stage, country: &str) {
    stage.node_mut(country).launch().expect("started");
    stage.node(country).until_up().await.expect("up");
    let all = stage.network.nodes_all().count();
    for node in stage.network.nodes_all() {
        let meets = |status: &alliance_protocol::core::admin::NodeStatus| {
            usize::try_from(status.peers_admitted).expect("few") + 1 == all && status.witnessed.problem.is_none()
        };
        node.until("all its peers", meets).await.expect("the mesh comes about again");
    }
}

/// Kills one of the two sides twice while an artefact crosses, then lets it finish.
async fn killed_twice(exporter: &str, importer: &str, victim: &str) {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let (name, original) = stage.offer(exporter, importer, LARGE, &[]).await;
    let to = stage.path("pulled");
    let total: u64 = digests(&original).keys().map(|path| original.join(path).metadata().expect("there").len()).sum();

    let (mut wanted, mut killed) = (total, Vec::new());
    for round in 0..2 {
        let view = under_way(&stage, importer, &name, &to).await;
        assert!(view.total <= wanted, "round {round}: it asks for {} again, of {wanted}", view.total);
        assert!(round == 0 || view.total < wanted, "round {round}: what had come is not asked for again");
        wanted = view.total;
        stage.node_mut(victim).kill().await.expect("killed");
        if victim == exporter {
            // The importer notices, and says that it may be tried again.
            let ended = until("the end of the pull", || async {
                let view = stage.crossing(importer, view.crossing).await;
                view.state.is_final().then_some(view)
            })
            .await;
            assert_eq!(ended.state, CrossingState::Failed, "{ended:?}");
            assert_eq!(ended.refusal, None, "nobody refused: {ended:?}");
        }
        check_hidden(stage.dir.path(), &to);
        restart(&mut stage, victim).await;
        // What it had not yet written of its catalogue it learns again from its peers.
        stage.known(importer, &name).await;
        killed.push(view.crossing);
    }
    let (moved, held) = finish(&stage, importer, &name, &to).await;
    assert_eq!(moved + held, total);
    assert!(moved < wanted && held > 2 * COME, "moved {moved}, held {held} of {total}");
    assert_eq!(digests(&to), digests(&original));
    assert_eq!(names(stage.dir.path()).iter().filter(|name| name.ends_with(".partial")).count(), 0);
    // What was under way when one side was killed is closed in the record of both.
    for (country, crossing) in [exporter, importer].into_iter().flat_map(|at| killed.iter().map(move |id| (at, *id))) {
        let view = until("the end of a crossing in the record", || async {
            let view = stage.crossing(country, crossing).await;
            view.state.is_final().then_some(view)
        })
        .await;
        assert_eq!(view.state, CrossingState::Failed, "{country}: {view:?}");
    }
    stage.verify_ledgers().await;
    stage.stop().await;
}

#[tokio::test]
async fn an_importer_that_is_killed_twice_goes_on_where_it_was() {
    killed_twice("BR", "CN", "CN").await;
}

#[tokio::test]
async fn an_importer_that_others_met_first_finds_them_again() {
    killed_twice("CN", "BR", "BR").await;
}

#[tokio::test]
async fn an_exporter_that_is_killed_twice_is_asked_again() {
    killed_twice("CN", "BR", "CN").await;
}

/// A rule that was not there when the crossing began.
const STOP: &str = r#"
@id("BR-90") @title("Nothing leaves any more") @law("Lei de teste") @native("Lei de teste") @from("2020-01-01")
@status("in_force") @confidence("high") @source("https://example.org")
forbid (principal, action == Action::"export", resource) when { context.time >= datetime("2020-01-01") };
"#;

#[tokio::test]
async fn a_law_that_comes_into_force_stops_what_is_under_way() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", LARGE, &[]).await;
    let to = stage.path("pulled");
    let view = under_way(&stage, "CN", &name, &to).await;
    // The importer stands still meanwhile, so that what is under way stays so until the law is there.
    let pid = stage.node("CN").pid().expect("running");
    signal(pid, "STOP").await;
    let (law, _) = alliance_policy::founding_pack_text("BR".parse().expect("a country")).expect("a pack");
    let (file, root) = (stage.path("br.cedar"), stage.network.root());
    fs::write(&file, format!("{law}\n{STOP}")).expect("written");
    let (authority, charter, home) = (root.join("authorities/BR"), root.join("charter.alliance"), stage.home("BR"));
    let words = [
        "-o",
        "json",
        "authority",
        "publish",
        "--dir",
        text(&authority),
        "--charter",
        text(&charter),
        "--law",
        text(&file),
        "--node-home",
        text(&home),
    ];
    let published = stage.bin.alliance(words).await.good().json();
    assert_eq!((&published["epoch"], &published["new_law"]), (&2.into(), &true.into()), "{published}");
    let exporter = until("the end of the export", || async {
        let view = stage.crossing("BR", view.crossing).await;
        view.state.is_final().then_some(view)
    })
    .await;
    assert_eq!(exporter.state, CrossingState::Failed, "{exporter:?}");
    assert!(exporter.problem.as_ref().is_some_and(|why| why.contains("BR")), "{exporter:?}");
    let sent = stage.node("BR").status().await.expect("a status").artefact_bytes_sent;

    signal(pid, "CONT").await;
    let importer = until("the end of the pull", || async {
        let view = stage.crossing("CN", view.crossing).await;
        view.state.is_final().then_some(view)
    })
    .await;
    assert_eq!(importer.state, CrossingState::Failed, "{importer:?}");
    assert!(importer.bytes < importer.total, "{importer:?}");
    check_hidden(stage.dir.path(), &to);
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.with(3);
    let after = stage.node("BR").status().await.expect("a status").artefact_bytes_sent;
    assert_eq!(after, sent, "nothing of it is sent any more");
    stage.verify_ledgers().await;
    stage.stop().await;
}
