//! Named experts of an authority supervise what is released: with real daemons and the command line.

use std::fs;

use alliance_protocol::core::admin::CrossingState;

use crate::{
    crash::under_way,
    harness::{SMALL, Stage, text, until},
};

/// A rule under which two experts have to approve what leaves.
const SUPERVISED: &str = r#"
@id("BR-91") @title("Models leave with the word of two experts") @law("Lei de teste") @native("Lei de teste")
@from("2020-01-01") @status("in_force") @confidence("high") @source("https://example.org") @obligation("approval(2)")
permit (principal, action == Action::"export", resource) when { context.time >= datetime("2020-01-01") };
"#;

/// Bytes that take a moment.
const LARGE: u64 = 256 * 1024 * 1024;

#[tokio::test]
async fn two_of_three_named_experts_release_a_model_and_one_takes_it_back() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let root = stage.network.root();
    let (authority, charter, home) = (root.join("authorities/BR"), root.join("charter.alliance"), stage.home("BR"));
    for name in ["ana", "rui", "eva"] {
        let key = stage.path(&format!("{name}.key"));
        let made = stage.bin.alliance(["-o", "json", "approval", "new-key", "--out", text(&key)]).await.good().json();
        let public = made["key"].as_str().expect("a key").to_owned();
        let words = ["authority", "expert", "--dir", text(&authority), "--key", &public, "--name", name];
        stage.bin.alliance(words).await.good();
    }
    stage.bin.alliance(["authority", "expert", "--dir", text(&authority)]).await.good().shows(&["ana", "eva", "rui"]);
    let (law, _) = alliance_policy::founding_pack_text("BR".parse().expect("a country")).expect("a pack");
    let file = stage.path("br.cedar");
    fs::write(&file, format!("{law}\n{SUPERVISED}")).expect("written");
    let publish = ["authority", "publish", "--dir", text(&authority), "--charter", text(&charter), "--law", text(&file)];
    stage.bin.alliance(publish.into_iter().chain(["--node-home", text(&home)])).await.good();
    let new = |status: &alliance_protocol::core::admin::NodeStatus| {
        status.members.iter().any(|member| member.country.as_str() == "BR" && member.epoch == Some(2))
    };
    stage.node("CN").until("the new law", new).await.expect("in force");

    let (name, _) = stage.offer("BR", "CN", LARGE, &[]).await;
    let to = stage.path("pulled");
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.with(3);
    let listed = stage.cli_json("BR", &["approval", "list"]).await.good().json();
    let pending = listed["pending"].as_array().expect("an array");
    assert_eq!((pending.len(), &pending[0]["needed"][0]["officers"]), (1, &2.into()), "{listed}");
    let id = pending[0]["crossing"].as_str().expect("an id").to_owned();
    stage.cli("BR", &["approval", "show", &id]).await.good().shows(&["ana", "rui", "eva", "none"]);
    stage.cli("BR", &["approval", "list"]).await.good().shows(&["0 of 2 for BR"]);

    // Nobody else has a word in it, and a refusal says why.
    let officer = authority.join("officer-1.key");
    let key = |name: &str| stage.path(&format!("{name}.key"));
    stage.cli("BR", &["approval", "grant", &id, "--key", text(&officer)]).await.with(6);
    stage.cli("BR", &["approval", "refuse", &id, "--key", text(&key("ana"))]).await.with(2);
    stage.cli("BR", &["approval", "grant", "ffffffff", "--key", text(&key("ana"))]).await.with(4);
    stage.cli("BR", &["approval", "grant", &id, "--key", text(&key("ana")), "--reason", "evaluated"]).await.good();
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.with(3);
    stage.cli("BR", &["approval", "grant", &id, "--key", text(&key("rui"))]).await.good();

    // What was allowed runs, and ends when one of them takes it back.
    stage.cli("CN", &["transfer", "limit", "--in", "200M"]).await.good();
    let view = under_way(&stage, "CN", &name, &to).await;
    let reason = "it repeats its training data";
    stage.cli("BR", &["approval", "refuse", &id, "--key", text(&key("rui")), "--reason", reason]).await.good();
    let ended = until("the end of the export", || async {
        let view = stage.crossing("BR", view.crossing).await;
        view.state.is_final().then_some(view)
    })
    .await;
    assert_eq!(ended.state, CrossingState::Failed, "{ended:?}");
    let problem = ended.problem.expect("a reason");
    assert!(problem.contains("1 of 2 named experts of the authority of BR") && problem.contains(reason), "{problem}");
    assert!(!to.exists());

    // It is recorded, signed and dated.
    let entries = stage.cli_json("BR", &["ledger", "list", "--kind", "approval_accepted"]).await.good().lines();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[2]["record"]["approval"]["body"]["reason"], reason, "{}", entries[2]);
    stage.cli("BR", &["approval", "list"]).await.good().shows(&["1 refused", reason]);

    // The third approves the offer for everybody, from a file that was signed elsewhere.
    let paper = stage.path("eva.approval");
    let eva = key("eva");
    let words = ["approval", "grant", &id, "--key", text(&eva), "--to-all", "--out", text(&paper)];
    stage.cli("BR", &words).await.good();
    stage.cli("CN", &["pull", &name, "--to", text(&to), "--retries", "0"]).await.with(3);
    stage.cli("BR", &["approval", "submit", text(&paper)]).await.good();
    stage.cli("CN", &["transfer", "limit", "--in", "40G"]).await.good();
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.good();
    assert!(SMALL < LARGE && to.exists());
    stage.stop().await;
}
