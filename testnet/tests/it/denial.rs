//! What arrives is what left, byte for byte; what is denied never leaves, and the stranger learns only a code.

use std::{fs, path::Path};

use alliance_protocol::core::admin::{AdminCall, CrossingState, Reply};
use serde_json::Value;

use crate::harness::{Ran, SMALL, Stage, digests, text};

/// UDP payload that a denied crossing may cost: handshake, request, refusal. A small model has fifteen times as much.
const DENIED_SOCKET_BYTES_MAX: u64 = 64 * 1024;

/// A rule that only the exporter has and only the exporter knows.
const HOUSE: &str = r#"
@id("HOUSE-00") @title("The rest") @house("by-laws of the laboratory") @status("residual")
permit (principal, action, resource);

@id("HOUSE-01") @title("Nothing for a laboratory on the list of rivals") @house("minutes of the board, 14 May")
@status("house")
forbid (principal, action == Action::"export", resource)
when { context.purpose == Purpose::"evaluation" };
"#;

/// Bytes of artefacts, and of everything, that a node's bulk socket has sent.
async fn sent(stage: &Stage, country: &str) -> (u64, u64) {
    let status = stage.node(country).status().await.expect("a status");
    (status.artefact_bytes_sent, status.bulk_socket_bytes_sent)
}

#[tokio::test]
async fn every_file_arrives_with_its_sha256() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, original) = stage.offer("BR", "CN", SMALL, &[]).await;
    let to = stage.path("pulled");
    let before = sent(&stage, "BR").await;
    let ran = stage.cli_json("CN", &["pull", &name, "--to", text(&to)]).await.good();
    let after = sent(&stage, "BR").await;

    let files = digests(&original);
    assert!(files.len() >= 7 && files.contains_key(Path::new("model.safetensors")), "{files:?}");
    assert_eq!(digests(&to), files);
    let view = ran.json();
    let bytes: u64 = files.keys().map(|path| fs::metadata(original.join(path)).expect("there").len()).sum();
    assert_eq!((&view["state"], &view["bytes"]), (&"done".into(), &bytes.into()), "{view}");
    assert_eq!(after.0 - before.0, bytes, "counted where it is written");
    assert!(after.1 - before.1 > bytes, "and on the socket, with everything around it");
    assert_eq!(sent(&stage, "CN").await.0, 0, "nothing of it came back");
    stage.stop().await;
}

/// Checks that a pull was refused by the exporter, and that nothing of the artefact moved.
async fn check_refused(stage: &Stage, before: (u64, u64), words: &[&str]) -> (Ran, Value) {
    let to = stage.path("denied");
    let ran = stage.cli_json("CN", &[&["pull"], words, &["--to", text(&to)]].concat()).await.with(3);
    let after = sent(stage, "BR").await;
    assert_eq!(after.0, before.0, "not a byte of the artefact");
    assert!(after.1 > before.1, "it was asked over the wire");
    assert!(after.1 - before.1 < DENIED_SOCKET_BYTES_MAX, "{before:?} {after:?}");
    assert!(!to.exists());
    let left: Vec<_> = crate::harness::names(stage.dir.path()).into_iter().filter(|name| name.contains("denied")).collect();
    assert_eq!(left, Vec::<String>::new());
    let view = ran.json();
    (ran, view)
}

#[tokio::test]
async fn the_house_of_the_exporter_denies_over_the_wire_and_keeps_its_reasons() {
    let mut stage = Stage::found(&["BR", "CN"]);
    fs::write(stage.node("BR").home().house_path(), HOUSE).expect("written");
    stage.network.start().await.expect("started");
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    let before = sent(&stage, "BR").await;
    let (ran, view) = check_refused(&stage, before, &[&name, "--purpose", "evaluation"]).await;

    assert_eq!((&view["state"], &view["refusal"]), (&"denied".into(), &"denied_by_terms".into()), "{view}");
    let verdicts = view["verdicts"].as_array().expect("verdicts");
    assert!(!verdicts.is_empty() && verdicts.iter().all(|verdict| verdict["allowed"] == true), "its own side allows");
    assert_eq!(ran.problem()["code"], "denied");
    let people = stage.cli("CN", &["pull", &name, "--purpose", "evaluation", "--to", text(&stage.path("denied"))]).await;
    let people = people.with(3);
    assert!(people.out.contains("denied (denied_by_terms)"), "{people:?}");
    let ledger = stage.cli("CN", &["-o", "json", "ledger", "list"]).await.good();
    for secret in ["HOUSE", "rivals", "minutes", "board"] {
        for told in [&ran.out, &ran.err, &people.out, &people.err, &ledger.out] {
            assert!(!told.contains(secret), "`{secret}` leaked: {told}");
        }
    }

    let id = view["crossing"].as_str().expect("an id");
    let shown = stage.cli("BR", &["crossing", "show", id]).await.good();
    for part in ["HOUSE-01", "Nothing for a laboratory on the list of rivals", "minutes of the board", "denied_by_terms"] {
        assert!(shown.out.contains(part), "the exporter's operator reads `{part}`: {}", shown.out);
    }
    let kinds: Vec<_> = stage.cli_json("BR", &["ledger", "list", "--crossing", id]).await.good().lines();
    assert_eq!(kinds.iter().map(|entry| entry["kind"].as_str().expect("a kind")).collect::<Vec<_>>(), ["refused"]);

    // The same offer for another purpose: it was the rule, and nothing else, that stopped it.
    stage.cli("CN", &["pull", &name, "--to", text(&stage.path("allowed"))]).await.good();
    stage.verify_ledgers().await;
    stage.stop().await;
}

/// A rule that only the importer has, of what only the exporter knows.
const COUNTING_HOUSE: &str = r#"
@id("HOUSE-00") @title("The rest") @house("by-laws of the laboratory") @status("residual")
permit (principal, action, resource);

@id("HOUSE-01") @title("Not from whom so much has gone abroad") @house("by-laws, 7") @status("house")
forbid (principal, action == Action::"import", resource)
when { context.volume.people > 1000 };
"#;

/// The exporter has counted more than the importer's house admits: no byte is asked for before the importer has said so.
#[tokio::test]
async fn the_house_of_the_importer_denies_what_it_hears_with_the_clearance() {
    let mut stage = Stage::found(&["BR", "CN"]);
    fs::write(stage.node("CN").home().house_path(), COUNTING_HOUSE).expect("written");
    stage.network.start().await.expect("started");
    stage.open_law("BR", &["BR", "CN"]).await;
    let import = async |seed: u64, said: &[&str]| {
        let (dir, name) = (stage.path(&seed.to_string()), format!("{}/{seed}", stage.node("BR").organisation()));
        alliance_testnet::sample::write_sample(&dir, seed, SMALL).expect("written");
        let words = ["model", "import", text(&dir), "--name", &name];
        stage.cli("BR", &[&words[..], said].concat()).await.good();
        stage.cli("BR", &["offer", "publish", &name]).await.good();
        stage.known("CN", &name).await;
        name
    };
    let people = ["--labels", "personal", "--subjects", "BR", "--people", "600"];
    let (first, second) = (import(31, &people).await, import(32, &people).await);
    let third = import(33, &["--labels", "public,non_personal"]).await;
    stage.cli("CN", &["pull", &first, "--to", text(&stage.path("allowed"))]).await.good();

    let before = sent(&stage, "BR").await;
    let (ran, view) = check_refused(&stage, before, &[&second]).await;
    assert_eq!((&view["state"], &view["refusal"]), (&"denied".into(), &"denied_by_terms".into()), "{view}");
    assert_eq!(view["facts"]["volume"]["people"], 1200, "{view}");
    assert_eq!(ran.problem()["code"], "denied");
    let id = view["crossing"].as_str().expect("an id");
    stage.cli("CN", &["crossing", "show", id]).await.good().shows(&["HOUSE-01", "by-laws, 7"]);
    stage.cli("CN", &["crossing", "replay", id]).await.good();
    // The exporter hears a code, and nothing of the house.
    let theirs = stage.cli_json("BR", &["crossing", "show", id]).await.good();
    assert_eq!((&theirs.json()["state"], &theirs.json()["bytes"]), (&"failed".into(), &0.into()), "{theirs:?}");
    assert!(theirs.out.contains("denied_by_terms") && !theirs.out.contains("HOUSE"), "{theirs:?}");
    // It is about nobody, and the count of the exporter stands with it all the same.
    let before = sent(&stage, "BR").await;
    let (_, view) = check_refused(&stage, before, &[&third]).await;
    assert_eq!(view["facts"]["volume"]["people"], 1200, "{view}");
    stage.verify_ledgers().await;
    stage.stop().await;
}

#[tokio::test]
async fn an_importer_that_knows_the_terms_does_not_even_ask() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &["--purposes", "public_service"]).await;
    let before = sent(&stage, "BR").await;
    let ran = stage.cli_json("CN", &["pull", &name, "--to", text(&stage.path("denied"))]).await.with(3);
    assert_eq!(ran.json()["refusal"], "denied_by_terms", "{ran:?}");
    assert!(ran.problem()["message"].as_str().is_some_and(|said| said.contains("`research`")), "{ran:?}");
    assert_eq!(sent(&stage, "BR").await, before, "nothing at all went over the bulk socket");
    match stage.node("BR").call(&AdminCall::Crossings).await.expect("an answer") {
        Reply::Crossings(crossings) => assert!(crossings.is_empty(), "{crossings:?}"),
        other => panic!("{other:?}"),
    }
    match stage.node("CN").call(&AdminCall::Crossings).await.expect("an answer") {
        Reply::Crossings(crossings) => assert_eq!(crossings[0].state, CrossingState::Denied),
        other => panic!("{other:?}"),
    }
    stage.stop().await;
}
