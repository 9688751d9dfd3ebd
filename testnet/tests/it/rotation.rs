//! A node that gets another key, as its operator does it, with real daemons: what goes on under the new key, what becomes of
//! whoever has a copy of the home as it was, and what is left where the command is killed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use alliance_protocol::{
    charter::WitnessRule,
    core::admin::{AdminCall, CrossingView, NodeStatus, Reply, Side},
};
use serde_json::Value;
use tokio::process::Child;

use crate::harness::{Ran, SMALL, Stage, copy, ended, text, until};

/// What comes here may be kept for a month.
const HOUSE: &str = r#"
@id("HOUSE-01") @title("Deleted after a month") @house("by-laws of the laboratory") @status("house")
@obligation("retain_at_most(30d)")
permit (principal, action, resource);
"#;

/// How many people the model of Brazil is about.
const PEOPLE: u64 = 1_234;

/// Brazil has got a model with a duty to delete it, and sent one that people are counted for.
async fn busy(witnesses: Option<WitnessRule>) -> (Stage, String, String) {
    let mut stage = Stage::found_under(&["BR", "CN"], witnesses);
    fs::write(stage.node("BR").home().house_path(), HOUSE).expect("written");
    stage.network.start().await.expect("started");
    stage.open_law("BR", &["BR", "CN"]).await;
    let (theirs, _) = stage.offer("CN", "BR", SMALL, &[]).await;
    let (dir, ours) = (stage.path("counted"), format!("{}/counted", stage.node("BR").organisation()));
    alliance_testnet::sample::write_sample(&dir, 3, SMALL).expect("written");
    let people = PEOPLE.to_string();
    let import = ["model", "import", text(&dir), "--name", &ours, "--labels", "personal", "--subjects", "BR"];
    stage.cli("BR", &[&import[..], &["--people", &people]].concat()).await.good();
    stage.cli("BR", &["offer", "publish", &ours]).await.good();
    stage.known("CN", &ours).await;
    stage.cli("BR", &["pull", &theirs, "--to", text(&stage.path("got"))]).await.good();
    stage.cli("CN", &["pull", &ours, "--to", text(&stage.path("sent"))]).await.good();
    (stage, ours, theirs)
}

fn papers(stage: &Stage, country: &str) -> (PathBuf, PathBuf) {
    let root = stage.network.root();
    (root.join("authorities").join(country), root.join("charter.alliance"))
}

/// The authority of a member accredits a key for an organisation.
async fn accredit(stage: &Stage, country: &str, node: &str, organisation: &str, out: &Path) {
    let (authority, charter) = papers(stage, country);
    let words = ["authority", "accredit", "--dir", text(&authority), "--charter", text(&charter), "--node", node];
    let roles = ["--organisation", organisation, "--organisation-roles", "controller,university", "--out", text(out)];
    stage.bin.alliance(words.into_iter().chain(roles)).await.good();
}

/// Draws the next key of Brazil's node and has it accredited; gives it and its accreditation.
async fn drawn(stage: &Stage) -> (String, PathBuf) {
    let said = stage.cli_json("BR", &["key", "rotate"]).await.good().json();
    let new = said["new"].as_str().expect("a key").to_owned();
    let paper = stage.path("new.alliance");
    accredit(stage, "BR", &new, stage.node("BR").organisation(), &paper).await;
    (new, paper)
}

async fn crossings(stage: &Stage, country: &str) -> Vec<CrossingView> {
    match stage.node(country).call(&AdminCall::Crossings).await.expect("an answer") {
        Reply::Crossings(crossings) => crossings,
        other => panic!("{other:?}"),
    }
}

async fn audited(stage: &Stage, when: &str, countries: &[&str]) -> Value {
    let mut files = Vec::new();
    for country in countries {
        let file = stage.path(&format!("{country}-{when}.audit"));
        stage.cli(country, &["audit", "export", "--out", text(&file)]).await.good();
        files.push(file);
    }
    let words = ["-o", "json", "audit", "verify"].into_iter().chain(files.iter().map(|file| text(file)));
    stage.bin.alliance(words).await.good().json()
}

/// Waits until everything in the ledgers is witnessed.
async fn witnessed(stage: &Stage) {
    for country in ["BR", "CN"] {
        let done = |status: &NodeStatus| status.witnessed.size == status.ledger_size;
        stage.node(country).until("a ledger that is witnessed", done).await.expect("witnessed");
    }
}

#[tokio::test]
async fn a_node_goes_on_with_another_key() {
    let (mut stage, ours, theirs) = busy(None).await;
    let before = stage.node("BR").status().await.expect("a status");
    let old_crossings = crossings(&stage, "BR").await;
    let due = old_crossings.iter().find(|view| view.side == Side::Importer).and_then(|view| view.delete_by);
    assert!(due.is_some(), "{old_crossings:?}");
    assert_eq!(before.volume.people, alliance_protocol::gate::People::new(PEOPLE));

    stage.cli("BR", &["model", "signing-key"]).await.good();
    // The daemon runs while the key is drawn and accredited, and not while it is changed.
    let (new, paper) = drawn(&stage).await;
    let again = stage.cli("BR", &["key", "rotate"]).await.good();
    again.shows(&["key that waits", &new, "alliance authority accredit", "--organisation-roles controller,university"]);
    stage.cli("BR", &["key", "show"]).await.good().shows(&["key that waits", &new]);
    stage
        .cli("BR", &["init", "--accreditation", text(&paper)])
        .await
        .with(5)
        .says(&["alliance key rotate --accreditation"]);
    let rotate = ["key", "rotate", "--accreditation", text(&paper), "--reason", "a laptop was stolen"];
    stage.cli("BR", &rotate).await.with(5).says(&["another allianced", "stop that one first"]);
    witnessed(&stage).await;
    stage.node_mut("BR").stop().await;
    let wrong = stage.path("wrong.alliance");
    accredit(&stage, "BR", &new, "another-lab", &wrong).await;
    let with = ["key", "rotate", "--accreditation", text(&wrong)];
    stage.cli("BR", &with).await.with(6).says(&["another-lab", "for the same organisation"]);
    let mine = stage.path("old.alliance");
    accredit(&stage, "BR", &before.node.to_string(), &before.organisation, &mine).await;
    let with = ["key", "rotate", "--accreditation", text(&mine)];
    stage.cli("BR", &with).await.with(6).says(&["not one of the key that waits"]);
    stage.cli("BR", &["ledger", "verify"]).await.good();

    let done = stage.cli_json("BR", &rotate).await.good().json();
    assert_eq!((&done["old"], &done["new"]), (&before.node.to_string().into(), &new.as_str().into()));
    stage.cli("BR", &["key", "show"]).await.good().shows(&["keys before", &before.node.to_string(), &new]);
    stage.cli("BR", &["ledger", "show", &done["entry"].to_string()]).await.good().shows(&["a laptop was stolen"]);
    let secrets = crate::harness::names(&stage.home("BR"));
    assert!(!secrets.iter().any(|name| name.contains("next")), "{secrets:?}");
    stage.cli("BR", &["ledger", "verify"]).await.good();
    // What witnesses signed of it under the old key is shown until they sign again.
    audited(&stage, "between", &["BR"]).await;

    crate::crash::restart(&mut stage, "BR").await;
    let status = stage.node("BR").status().await.expect("a status");
    assert_eq!((status.node.to_string(), &status.former), (new.clone(), &vec![before.node]));
    assert_eq!((status.volume, status.models, status.offers), (before.volume, before.models, before.offers));
    stage.cli("BR", &["status"]).await.good().shows(&["keys before", &before.node.to_string()]);
    let kept = crossings(&stage, "BR").await;
    assert_eq!(kept.iter().find(|view| view.side == Side::Importer).and_then(|view| view.delete_by), due);

    // Both ways, under the new key.
    let offered = until("the offer under the new key", || async {
        let offer = stage.known("CN", &ours).await;
        (offer.node.to_string() == new).then_some(offer)
    })
    .await;
    assert!(!offered.own);
    // The key for models was bound to the old one; the daemon has bound it to that of now, and others hear of it.
    until("the key for models, of the new key", || async {
        let mut peers = stage.peers("CN").await.into_iter();
        peers.find(|peer| peer.node.to_string() == new && peer.model_key.is_some())
    })
    .await;
    stage.cli("CN", &["pull", &ours, "--to", text(&stage.path("sent-again"))]).await.good();
    stage.cli("BR", &["pull", &theirs, "--to", text(&stage.path("got-again"))]).await.good();
    witnessed(&stage).await;
    let after = stage.node("BR").status().await.expect("a status");
    assert_eq!(after.volume, before.volume, "the same people once");
    assert!(stage.node("CN").status().await.expect("a status").witnessed.doubts.is_empty());

    let report = audited(&stage, "after", &["BR", "CN"]).await;
    assert_eq!(report["findings"], serde_json::json!([]), "{report}");
    let settled = report["crossings"].as_array().expect("an array");
    assert!(settled.iter().all(|found| found["halves"] == "both"), "{report}");
    assert_eq!(settled.len(), 4, "{report}");
    assert_eq!(report["files"][0]["former"], serde_json::json!([before.node]), "{report}");
    for view in crossings(&stage, "BR").await {
        let again = stage.cli_json("BR", &["crossing", "replay", &view.crossing.to_string()]).await.good().json();
        assert_eq!(again["same"], true, "{again}");
    }
    stage.verify_ledgers().await;
    stage.stop().await;
}

/// A daemon on a home that is none of the network's.
struct Daemon {
    home: PathBuf,
    process: Child,
}

impl Daemon {
    fn start(stage: &Stage, home: &Path) -> Self {
        let log = fs::File::create(home.join("log")).expect("made");
        let mut command = stage.bin.command("allianced");
        let command = command.arg("--home").arg(home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self { home: home.to_owned(), process: command.spawn().expect("started") }
    }

    async fn status(&mut self, stage: &Stage) -> Value {
        until("a daemon that answers", || async {
            let ran = stage.bin.alliance(["--home", text(&self.home), "-o", "json", "status"]).await;
            if ran.code != Some(0) {
                let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
                assert!(!log.contains("allianced:"), "{log}");
            }
            (ran.code == Some(0)).then(|| ran.json())
        })
        .await
    }

    async fn kill(mut self) {
        self.process.kill().await.expect("killed");
    }
}

#[tokio::test]
async fn a_copy_of_the_home_as_it_was_is_refused() {
    let (mut stage, _, theirs) = busy(Some(WitnessRule::NONE)).await;
    let (_, paper) = drawn(&stage).await;
    stage.node_mut("BR").stop().await;
    let (home, stolen) = (stage.home("BR"), stage.path("stolen"));
    copy(&home, &stolen);
    fs::remove_file(stolen.join("node.next.key")).expect("removed");
    let old = stage.bin.alliance(["--home", text(&stolen), "-o", "json", "key", "show"]).await.good().json();
    let done = stage.cli_json("BR", &["key", "rotate", "--accreditation", text(&paper)]).await.good().json();
    assert_eq!(done["old"], old["key"]);
    crate::crash::restart(&mut stage, "BR").await;
    let heard = |kind: &'static str| {
        let stage = &stage;
        async move { stage.cli_json("CN", &["ledger", "list", "--kind", kind]).await.good().lines() }
    };
    until("word of the new key", || async { (heard("rotation_accepted").await.len() == 1).then_some(()) }).await;

    let mut thief = Daemon::start(&stage, &stolen);
    let status = thief.status(&stage).await;
    assert_eq!(status["node"], old["key"], "it has not heard");
    let to = stage.path("stolen-model");
    let words = ["--home", text(&stolen), "-o", "json", "pull", &theirs, "--to", text(&to), "--retries", "0"];
    let denied = stage.bin.alliance(words).await.with(6).json();
    assert_eq!((&denied["state"], &denied["refusal"]), (&"denied".into(), &"not_accredited".into()), "{denied}");
    assert!(!to.exists());
    let refused = heard("refused").await;
    let why = refused.last().expect("recorded")["record"]["decision"]["denial"]["problem"].to_string();
    assert!(why.contains("was replaced by") && why.contains(done["new"].as_str().expect("a key")), "{why}");
    thief.kill().await;
    // The node itself is served as before.
    stage.cli("BR", &["pull", &theirs, "--to", text(&stage.path("mine"))]).await.good();
    stage.stop().await;
}

/// What a kill at each step leaves, put together from the home before and after.
struct Halfway {
    stage: Stage,
    before: PathBuf,
    after: PathBuf,
    paper: PathBuf,
    copies: usize,
}

impl Halfway {
    /// A copy of the home before, with these files of the home after.
    fn left(&mut self, files: &[(&str, &str)]) -> PathBuf {
        self.copies += 1;
        let home = self.stage.path(&format!("left-{}", self.copies));
        copy(&self.before, &home);
        for (from, to) in files {
            let from = if *from == "paper" { self.paper.clone() } else { self.after.join(from) };
            fs::copy(&from, home.join(to)).expect("copied");
            fs::set_permissions(home.join(to), fs::Permissions::from_mode(0o600)).expect("set");
        }
        // It meets nobody.
        fs::remove_dir_all(home.join("catalogue")).expect("removed");
        let config = fs::read_to_string(home.join("config.toml")).expect("read");
        let config = config.lines().filter(|line| !line.starts_with("bootstrap")).collect::<Vec<_>>().join("\n");
        fs::write(home.join("config.toml"), config).expect("written");
        home
    }

    async fn rotate(&self, home: &Path) -> Ran {
        let mut command = self.stage.bin.command("alliance");
        let words = ["-o", "json", "key", "rotate", "--accreditation", text(&self.paper)];
        ended(command.arg("--home").arg(home).args(words)).await
    }
}

#[tokio::test]
async fn a_change_of_key_that_is_killed_leaves_one_of_the_two_keys_and_is_done_again() {
    let (mut stage, ..) = busy(Some(WitnessRule::NONE)).await;
    let (new, paper) = drawn(&stage).await;
    stage.node_mut("BR").stop().await;
    let (home, before) = (stage.home("BR"), stage.path("before"));
    copy(&home, &before);
    stage.cli("BR", &["key", "rotate", "--accreditation", text(&paper)]).await.good();
    let old = stage.node("BR").key().to_string();
    let mut halfway = Halfway { stage, before, after: home, paper, copies: 0 };

    let waits = ("paper", "accreditation.next.alliance");
    let (entries, checkpoint) = (("ledger/entries", "ledger/entries"), ("ledger/checkpoint", "ledger/checkpoint"));
    let table: [(&str, &[(&str, &str)]); 6] = [
        (&old, &[]),
        (&old, &[waits]),
        (&old, &[waits, entries]),
        (&old, &[waits, entries, ("ledger/checkpoint", "ledger/checkpoint.new")]),
        (&new, &[waits, entries, checkpoint]),
        (&new, &[entries, checkpoint, ("accreditation.alliance", "accreditation.alliance")]),
    ];
    for (key, files) in table {
        // As it is, the daemon starts with the one key or the other.
        let left = halfway.left(files);
        let mut daemon = Daemon::start(&halfway.stage, &left);
        assert_eq!(daemon.status(&halfway.stage).await["node"], key, "{files:?}");
        daemon.kill().await;
        // Or the command is run again.
        let left = halfway.left(files);
        let verify = ["--home", text(&left), "ledger", "verify"];
        if key == new {
            let ran = halfway.stage.bin.alliance(verify).await.with(10);
            ran.says(&["not yet in their places", "start the daemon, or run alliance key rotate again"]);
        }
        let done = halfway.rotate(&left).await.good().json();
        assert_eq!((&done["old"], &done["new"]), (&old.as_str().into(), &new.as_str().into()), "{files:?}");
        halfway.stage.bin.alliance(verify).await.good();
        let names = crate::harness::names(&left);
        assert!(!names.iter().any(|name| name.contains("next")), "{files:?}: {names:?}");
        halfway.rotate(&left).await.with(4).says(&["no key waits"]);
        let mut daemon = Daemon::start(&halfway.stage, &left);
        let status = daemon.status(&halfway.stage).await;
        assert_eq!((&status["node"], &status["former"]), (&new.as_str().into(), &serde_json::json!([old])), "{files:?}");
        daemon.kill().await;
    }
    halfway.stage.stop().await;
}

#[tokio::test]
async fn a_kill_may_come_at_any_time() {
    let (mut stage, ..) = busy(Some(WitnessRule::NONE)).await;
    let (new, paper) = drawn(&stage).await;
    stage.node_mut("BR").stop().await;
    let home = stage.home("BR");
    let old = stage.node("BR").key().to_string();
    let head = |home: &Path| fs::read(home.join("ledger/checkpoint")).expect("there");
    // What a step leaves, after which the kill comes as soon as that is seen.
    let steps: [&dyn Fn(&Path) -> bool; 4] = [
        &|_| true,
        &|left| left.join("accreditation.next.alliance").exists(),
        &|left| left.join("ledger/checkpoint.new").exists(),
        &|left| head(left) != head(&home),
    ];
    for (round, step) in steps.into_iter().chain(steps).enumerate() {
        let left = stage.path(&format!("killed-{round}"));
        copy(&home, &left);
        let mut command = stage.bin.command("alliance");
        let words = ["--home", text(&left), "-o", "json", "key", "rotate", "--accreditation", text(&paper)];
        let mut process = command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        // Where it is over before, it is done, which is as good.
        while !step(&left) && process.try_wait().expect("its state").is_none() {
            std::hint::spin_loop();
        }
        process.kill().await.expect("killed");
        let again = stage.bin.alliance(words).await;
        match again.code {
            Some(0) => {
                let done = again.json();
                assert_eq!((&done["old"], &done["new"]), (&old.as_str().into(), &new.as_str().into()), "round {round}");
            }
            _ => drop(again.with(4).says(&["no key waits"])),
        }
        let verified = stage.bin.alliance(["--home", text(&left), "ledger", "verify"]).await.good();
        verified.shows(&["keys before", &old, &new]);
        let shown = stage.bin.alliance(["--home", text(&left), "-o", "json", "key", "show"]).await.good().json();
        assert_eq!(shown["key"], new.as_str(), "round {round}");
    }
    stage.stop().await;
}
