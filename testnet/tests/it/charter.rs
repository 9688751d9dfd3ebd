//! The charter changes while the alliance runs: thresholds, a suspension, new officers, a new member. Officers work on files
//! and sign with the command line; daemons hear of it over the mesh.
//!
//! How long what runs takes to end is printed and asserted nowhere.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use alliance_protocol::core::admin::CrossingState;
use tokio::process::Child;

use crate::{
    crash::under_way,
    harness::{SMALL, Stage, digests, over, until},
};

/// Bytes that take far longer at the limit that is set than anything else here.
const LARGE: u64 = 256 * 1024 * 1024;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn authority(stage: &Stage, country: &str) -> PathBuf {
    stage.network.root().join("authorities").join(country)
}

/// Proposes a version at a member's node, has it signed in these directories, and hands it in at another's.
async fn amend(stage: &Stage, changes: &[&str], signers: &[PathBuf], submitted_at: &str) {
    let draft = stage.path("next.alliance");
    let _none_before = std::fs::remove_file(&draft);
    let propose = [&["charter", "propose"], changes, &["--out", text(&draft)]].concat();
    stage.cli("IN", &propose).await.good().shows(&["not yet"]);
    for dir in signers {
        stage.cli("IN", &["charter", "sign", text(&draft), "--dir", text(dir)]).await.good();
    }
    stage.cli("IN", &["charter", "show", text(&draft)]).await.good().shows(&["holds", "yes"]);
    stage.cli(submitted_at, &["charter", "submit", text(&draft)]).await.good().shows(&["is in force"]);
    stage.cli(submitted_at, &["charter", "submit", text(&draft)]).await.good().shows(&["known already"]);
}

/// Waits until every member's node knows a version.
async fn all_know(stage: &Stage, version: u32) {
    for node in stage.network.nodes_all() {
        node.until("the version of the charter", |status| status.charter == version).await.expect("heard");
    }
}

#[tokio::test]
async fn a_member_is_suspended_and_restored_while_it_pulls() {
    let stage = Stage::up(&["BR", "IN", "CN"]).await;
    let dirs = ["BR", "IN", "CN"].map(|country| authority(&stage, country));
    let (name, original) = stage.offer("BR", "CN", LARGE, &[]).await;

    // Two of three are to decide from now on; all three must agree to that.
    let draft = stage.path("few.alliance");
    stage.cli("IN", &["charter", "propose", "--threshold", "2", "--out", text(&draft)]).await.good();
    stage.cli("IN", &["charter", "sign", text(&draft), "--dir", text(&dirs[0])]).await.good();
    let refused = stage.cli("IN", &["charter", "submit", text(&draft)]).await.with(6);
    refused.says(&["1 of the 3 full members of version 1 have signed; 3 must", "next:"]);
    amend(&stage, &["--threshold", "2"], &dirs, "BR").await;
    all_know(&stage, 2).await;

    stage.cli("BR", &["transfer", "limit", "--out", "100M"]).await.good();
    let to = stage.path("pulled");
    let view = under_way(&stage, "CN", &name, &to).await;
    let began = Instant::now();
    amend(&stage, &["--seat", "CN=suspended"], &dirs[..2], "IN").await;
    for country in ["BR", "CN"] {
        let ended = over(stage.node(country), view.crossing).await;
        println!("{country}: {} ms after the command began", began.elapsed().as_millis());
        assert_eq!(ended.state, CrossingState::Failed, "{ended:?}");
        let problem = ended.problem.unwrap_or_default();
        // Whoever hears of it later is told by the other side that it ended.
        assert!(problem.contains("CN is suspended by version 3") || problem.contains("ended"), "{country}: {problem}");
    }
    all_know(&stage, 3).await;
    assert!(!to.exists());
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.with(6).shows(&["suspended by version 3"]);
    stage.cli("BR", &["status"]).await.good().shows(&["suspended"]);

    amend(&stage, &["--seat", "CN=full"], &dirs, "BR").await;
    all_know(&stage, 4).await;
    stage.cli("BR", &["transfer", "limit", "--remove"]).await.good();
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.good();
    assert_eq!(digests(&to), digests(&original));
    let shown = stage.cli("CN", &["charter", "log"]).await.good();
    shown.shows(&[
        "founded",
        "2 full members must sign, not 3",
        "CN: full becomes suspended",
        "CN: suspended becomes full",
    ]);
    stage.verify_ledgers().await;
    stage.stop().await;
}

#[tokio::test]
async fn officers_are_replaced_and_what_they_said_is_said_again() {
    let mut stage = Stage::up(&["BR", "IN", "CN"]).await;
    let dirs = ["BR", "IN", "CN"].map(|country| authority(&stage, country));
    let (name, original) = stage.offer("BR", "CN", SMALL, &[]).await;
    let (log, br) = (stage.path("log.alliance"), text(&dirs[0]).to_owned());
    stage.cli("BR", &["charter", "log", "--out", text(&log)]).await.good();
    let rotate = ["authority", "rotate", "--dir", &br, "--charter", text(&log), "--officers", "3", "--threshold", "2"];
    stage.cli("BR", &rotate).await.good();
    stage.cli("BR", &rotate).await.with(5).says(&["waiting to be adopted"]);
    let officers = format!("BR={br}/authority.next.json");
    amend(&stage, &["--officers", &officers], &dirs, "CN").await;
    all_know(&stage, 2).await;

    // Nobody speaks for the node of Brazil until the new officers have spoken.
    let to = stage.path("pulled");
    let refused = stage.cli("CN", &["pull", &name, "--to", text(&to)]).await;
    assert!(matches!(refused.code, Some(4 | 6)), "{refused:?}");
    stage.cli("BR", &["status"]).await.good().shows(&["not signed by enough officers of the authority of BR"]);

    stage.cli("BR", &["charter", "log", "--out", text(&log)]).await.good();
    let (node, accreditation) = (stage.node("BR").key().to_string(), stage.path("br.accreditation"));
    let organisation = stage.node("BR").organisation().to_owned();
    let accredit = [
        "authority",
        "accredit",
        "--dir",
        &br,
        "--charter",
        text(&log),
        "--node",
        &node,
        "--organisation",
        &organisation,
        "--organisation-roles",
        "university",
        "--out",
        text(&accreditation),
    ];
    stage.cli("BR", &accredit).await.good();
    let home = stage.home("BR");
    let publish = ["authority", "publish", "--dir", &br, "--charter", text(&log), "--node-home", text(&home)];
    stage.cli("BR", &publish).await.good();
    stage.node_mut("BR").kill().await.expect("killed");
    stage.cli("BR", &["init", "--accreditation", text(&accreditation)]).await.good();
    stage.node_mut("BR").launch().expect("launched");
    stage.node("CN").until("the law of all", |status| status.members.iter().all(|m| m.fresh)).await.expect("heard");
    until("the exporter's standing", || async {
        let peers = stage.cli_json("CN", &["peers"]).await.good().lines();
        peers.iter().any(|peer| peer["node"] == node.as_str() && peer["problem"].is_null()).then_some(())
    })
    .await;
    stage.known("CN", &name).await;
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.good();
    assert_eq!(digests(&to), digests(&original));

    // The former officers sign nothing any more, and the new ones sign the next version.
    amend(&stage, &["--name", "Another name"], &dirs, "BR").await;
    all_know(&stage, 3).await;
    stage.cli("BR", &rotate).await.good();
    stage.verify_ledgers().await;
    stage.stop().await;
}

/// A daemon beside those of the network, ended when it is dropped.
fn launch(stage: &Stage, home: &Path) -> Child {
    stage.bin.command("allianced").arg("--home").arg(home).spawn().expect("started")
}

#[tokio::test]
async fn a_partner_is_admitted_and_its_node_takes_part() {
    let stage = Stage::up(&["BR", "IN", "CN"]).await;
    let mut dirs = ["BR", "IN", "CN"].map(|country| authority(&stage, country)).to_vec();
    let (egypt, home) = (stage.path("eg"), stage.path("eg-node"));
    let init = ["authority", "init", "--member", "EG", "--name", "PDPC", "--officers", "2", "--threshold", "2", "--dir"];
    stage.bin.alliance(init.iter().copied().chain([text(&egypt)])).await.good();
    let partner = format!("EG={}/authority.json", text(&egypt));

    // Without its own signature it does not become a member, whatever the others say.
    let draft = stage.path("unwilling.alliance");
    stage.cli("IN", &["charter", "propose", "--partner", &partner, "--out", text(&draft)]).await.good();
    for dir in &dirs {
        stage.cli("IN", &["charter", "sign", text(&draft), "--dir", text(dir)]).await.good();
    }
    stage
        .cli("BR", &["charter", "submit", text(&draft)])
        .await
        .with(6)
        .says(&["the authority of EG is new", "has not signed"]);
    dirs.push(egypt.clone());
    amend(&stage, &["--partner", &partner], &dirs, "BR").await;
    all_know(&stage, 2).await;

    let log = stage.path("log.alliance");
    stage.cli("CN", &["charter", "log", "--out", text(&log)]).await.good();
    let bootstrap = stage.node("BR").status().await.expect("a status").mesh_addresses[0].clone();
    let alone =
        |words: &[&str]| [&["--home", text(&home)], words].concat().iter().map(ToString::to_string).collect::<Vec<_>>();
    let addresses = [
        "--mesh-listen",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "--bulk-listen",
        "127.0.0.1:0",
        "--gateway-listen",
        "127.0.0.1:0",
        "--bootstrap",
        &bootstrap,
    ];
    let made = stage.bin.alliance(alone(&[&["-o", "json", "init"], addresses.as_slice()].concat())).await.good().json();
    let (node, accreditation) = (made["node"].as_str().expect("a key"), stage.path("eg.accreditation"));
    let words = ["--node", node, "--organisation", "siwa-lab", "--organisation-roles", "university"];
    let files = ["--dir", text(&egypt), "--charter", text(&log), "--out", text(&accreditation)];
    stage.bin.alliance([&["authority", "accredit"], &words[..], &files[..]].concat()).await.good();
    let papers = ["init", "--charter", text(&log), "--accreditation", text(&accreditation)];
    stage.bin.alliance(alone(&papers)).await.good();
    let _daemon = launch(&stage, &home);
    until("the new daemon", || async { (stage.bin.alliance(alone(&["status"])).await.code == Some(0)).then_some(()) })
        .await;
    let publish = ["authority", "publish", "--dir", text(&egypt), "--charter", text(&log), "--node-home", text(&home)];
    stage.bin.alliance(publish).await.good();
    for node in stage.network.nodes_all() {
        let all =
            |status: &alliance_protocol::core::admin::NodeStatus| status.members.iter().filter(|m| m.fresh).count() == 4;
        node.until("the law of the partner", all).await.expect("heard");
    }

    let (name, original) = stage.offer("BR", "IN", SMALL, &[]).await;
    let to = stage.path("pulled");
    until("the offer at the new node", || async {
        stage.bin.alliance(alone(&["offer", "list"])).await.out.contains(&name).then_some(())
    })
    .await;
    stage.bin.alliance(alone(&["pull", &name, "--to", text(&to)])).await.good();
    assert_eq!(digests(&to), digests(&original));
    stage.stop().await;
}
