//! `alliance-testnet up`: the tour as a program sees it, and that no process stays behind however it ends.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::harness::{HANG, Ran, ended, processes_of, program, signal, text, until};

fn up(words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("up").args(words).kill_on_drop(true);
    command
}

fn ids(report: &Value) -> Vec<&str> {
    report["rules"].as_array().expect("rules").iter().map(|rule| rule["id"].as_str().expect("an id")).collect()
}

/// What every line of the report has, whatever came of the crossing.
fn check_form(report: &Value) {
    let object = report.as_object().expect("an object");
    for field in ["crossing", "from", "to", "artefact", "labels", "purpose", "allowed", "rules", "bytes", "ms"] {
        assert!(object.contains_key(field), "{field} is missing in {report}");
    }
    assert!(report["crossing"].is_null() || report["crossing"].as_str().is_some_and(|id| id.len() == 64), "{report}");
    assert!(report["labels"].as_array().is_some_and(|labels| !labels.is_empty()), "{report}");
    assert!(report["allowed"].is_boolean() && report["bytes"].is_u64() && report["ms"].is_u64(), "{report}");
    assert_eq!(report["unexpected"], json!(null), "{report}");
    for rule in report["rules"].as_array().expect("rules") {
        for field in ["pack", "id", "title"] {
            assert!(rule[field].as_str().is_some_and(|text| !text.is_empty()), "{field} is missing in {rule}");
        }
    }
    // The promise of the whole: what is denied does not move.
    if report["allowed"] == false {
        assert_eq!(report["bytes"], 0, "{report}");
        assert_eq!(report["artefact_bytes_sent"], 0, "{report}");
        assert!(report["socket_bytes_sent"].as_u64().is_some_and(|bytes| bytes < 65_536), "{report}");
    }
}

fn check_story(reports: &[Value]) {
    let [open @ .., adapter, safeguarded, purpose, stays, withdrawn, expired, tampered, revoked] = reports else {
        panic!("{} crossings only", reports.len());
    };
    assert_eq!(
        open.iter().map(|report| report["to"].as_str().expect("a country")).collect::<Vec<_>>(),
        ["RU", "IN", "CN", "ZA"]
    );
    for report in open {
        assert_eq!((&report["from"], &report["outcome"]), (&"BR".into(), &"delivered".into()), "{report}");
        assert!(report["bytes"].as_u64().is_some_and(|bytes| bytes >= 64 * 1024 * 1024), "{report}");
        assert_eq!(report["bytes"], report["artefact_bytes_sent"]);
        assert!(report["socket_bytes_sent"].as_u64() > report["bytes"].as_u64(), "{report}");
    }

    assert_eq!((&adapter["artefact"], &adapter["outcome"]), (&"adapter".into(), &"denied".into()), "{adapter}");
    assert_eq!((ids(adapter), &adapter["refusal"]), (vec!["BR-01", "BR-06"], &"denied_by_law".into()));
    assert!(adapter["safeguards"].as_array().is_some_and(Vec::is_empty));
    assert_eq!((&safeguarded["name"], &safeguarded["outcome"]), (&adapter["name"], &"delivered".into()), "{safeguarded}");
    assert!(safeguarded["safeguards"].as_array().is_some_and(|presented| !presented.is_empty()), "{safeguarded}");
    assert!(ids(adapter).iter().all(|id| ids(safeguarded).contains(id)), "the rules that denied are satisfied");

    assert_eq!((&purpose["purpose"], &purpose["to"]), (&"national_security".into(), &"IN".into()));
    assert!(ids(purpose).contains(&"IN-D01"), "{purpose}");
    assert_eq!((&stays["from"], ids(stays)), (&"IN".into(), vec!["IN-07"]), "{stays}");
    assert!(stays["safeguards"].as_array().is_some_and(|presented| presented.len() == 3), "{stays}");
    for (report, why) in [(withdrawn, "withdrawn"), (expired, "does not stand")] {
        assert!(report["problem"].as_str().is_some_and(|problem| problem.contains(why)), "{report}");
    }
    assert!(withdrawn["crossing"].is_null(), "it did not come to a crossing: {withdrawn}");
    // In the moment of its end an offer may still be there to be refused.
    assert!(expired["crossing"].is_null() || expired["refusal"] == "no_offer", "{expired}");
    assert_eq!((&tampered["outcome"], &tampered["allowed"]), (&"tampered".into(), &true.into()), "{tampered}");
    assert_eq!((&revoked["refusal"], &revoked["outcome"]), (&"not_accredited".into(), &"denied".into()), "{revoked}");
}

fn reports(ran: &Ran) -> Vec<Value> {
    let reports = ran.lines();
    reports.iter().for_each(check_form);
    reports
}

#[tokio::test]
async fn the_tour_of_all_members_tells_its_story_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().expect("a directory");
    let running = tokio::spawn({
        let mut command = up(&["--exit", "-o", "json", "--home", text(home.path())]);
        async move { ended(&mut command).await }
    });
    // Five members, one of them with two nodes, and the testnet itself.
    until("all processes of the network", || async { (processes_of(text(home.path())).len() == 7).then_some(()) }).await;
    let ran = running.await.expect("joined").good();
    assert_eq!(processes_of(text(home.path())), Vec::<u32>::new(), "nothing is left");
    let reports = reports(&ran);
    check_story(&reports);
    // What was kept can be read afterwards, by the ids that were printed.
    let ids: Vec<&str> = reports.iter().filter_map(|report| report["crossing"].as_str()).collect();
    assert!((10..=11).contains(&ids.len()), "{ids:?}");
    assert!(home.path().join("nodes/ipe-lab/ledger/checkpoint").is_file());
}

#[tokio::test]
async fn two_members_are_enough_for_a_tour() {
    let ran = ended(&mut up(&["--members", "BR,CN", "--exit", "-o", "json"])).await.good();
    let reports = reports(&ran);
    assert!(reports.iter().all(|report| ["BR", "CN"].contains(&report["to"].as_str().expect("a country"))));
    assert!(reports.iter().any(|report| report["allowed"] == true));
    assert!(reports.iter().any(|report| ids(report).contains(&"CN-10")), "data that never leaves China");
    assert!(ran.err.contains("Every crossing went as the law says."), "{}", ran.err);
}

#[tokio::test]
async fn what_makes_no_alliance_is_refused_before_anything_is_made() {
    let home = tempfile::tempdir().expect("a directory");
    let new = home.path().join("new");
    let table: [(&str, &[&str]); 5] = [
        ("BR", &["2 to 11 different members", "1 are given"]),
        ("BR,BR", &["2 to 11 different members"]),
        ("BR,XX", &["XX"]),
        ("BR,US", &["no law pack of US", "BR, RU, IN, CN, ZA"]),
        ("", &["--members"]),
    ];
    for (members, says) in table {
        ended(&mut up(&["--members", members, "--exit", "--home", text(&new)])).await.with(2).says(says);
        assert!(!new.exists(), "{members}");
    }
    std::fs::write(home.path().join("mine.txt"), "mine").expect("written");
    let ran = ended(&mut up(&["--members", "BR,CN", "--exit", "--home", text(home.path())])).await;
    ran.with(2).says(&["is not empty", text(home.path())]);
    assert_eq!(crate::harness::names(home.path()), ["mine.txt"], "nothing was put beside it");
    let missing = home.path().join("no-model");
    let ran = ended(&mut up(&["--members", "BR,CN", "--exit", "--model", text(&missing)])).await;
    ran.with(2).says(&["no-model"]);
}

/// A network of two members that stays up, once it has said that it does.
async fn staying(home: &Path) -> (Child, Vec<u32>) {
    let mut child = up(&["--members", "BR,CN", "--home", text(home)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let waiting = async {
        while let Some(line) = lines.next_line().await.expect("read") {
            if line.starts_with("Ctrl-C") {
                return;
            }
        }
        panic!("it ended before it stayed up");
    };
    tokio::time::timeout(HANG, waiting).await.expect("it comes up");
    // Standard output may be closed from here on: it has nothing more to say.
    let pids = processes_of(text(home));
    assert_eq!(pids.len(), 4, "the testnet and three nodes");
    (child, pids)
}

async fn gone(home: &Path) {
    until("the end of every process", || async { processes_of(text(home)).is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn an_interrupt_ends_every_process() {
    for name in ["INT", "TERM"] {
        let home = tempfile::tempdir().expect("a directory");
        let (mut child, _) = staying(home.path()).await;
        signal(child.id().expect("running"), name).await;
        let status = tokio::time::timeout(HANG, child.wait()).await.expect("it ends").expect("waited");
        assert_eq!(status.code(), Some(130), "{name}");
        assert_eq!(processes_of(text(home.path())), Vec::<u32>::new(), "nothing is left after {name}");
    }
}

#[tokio::test]
async fn the_nodes_end_when_the_testnet_is_killed() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut child, _) = staying(home.path()).await;
    child.kill().await.expect("killed");
    gone(home.path()).await;
}

#[tokio::test]
async fn a_node_that_dies_ends_the_network_with_its_name() {
    let home = tempfile::tempdir().expect("a directory");
    let mut child = up(&["--members", "BR,CN", "--home", text(home.path())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    while let Some(line) = tokio::time::timeout(HANG, lines.next_line()).await.expect("it comes up").expect("read") {
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    let [victim] = processes_of(text(&home.path().join("nodes/yunhai-lab-archive")))[..] else { panic!("one node") };
    signal(victim, "KILL").await;
    let output = tokio::time::timeout(HANG, child.wait_with_output()).await.expect("it ends").expect("waited");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("yunhai-lab-archive") && said.contains("signal: 9"), "{said}");
    assert_eq!(processes_of(text(home.path())), Vec::<u32>::new());
}
