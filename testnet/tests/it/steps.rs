//! From nothing to a revoked node with the two commands alone, as a reader of the manual types them, each command with JSON.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use alliance_testnet::sample;
use serde_json::Value;
use tokio::process::Child;

use crate::harness::{Bin, HANG, Ran, SMALL, digests, signal, text, until};

/// The directory of an alliance that is made step by step.
struct Desk {
    bin: Bin,
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Desk {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `alliance -o json` with these words; those that name a file here are given with `@`.
    async fn run(&self, words: &[&str]) -> Ran {
        let place = |word: &&str| match word.split_once('@') {
            Some((before, name)) => format!("{before}{}", text(&self.path(name))),
            None => (*word).to_owned(),
        };
        let words: Vec<String> = ["-o", "json"].iter().chain(words).map(place).collect();
        self.bin.alliance(words).await
    }

    /// As [`Desk::run`], which must succeed and print one value.
    async fn one(&self, words: &[&str]) -> Value {
        self.run(words).await.good().json()
    }

    /// As [`Desk::run`], which must succeed and print a list.
    async fn list(&self, words: &[&str]) -> Vec<Value> {
        self.run(words).await.good().lines()
    }

    async fn start(&mut self, home: &str) -> Value {
        let mut command = self.bin.command("allianced");
        let log = std::fs::File::create(self.path(&format!("{home}.log"))).expect("made");
        command.arg("--home").arg(self.path(home)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemons.push(command.spawn().expect("started"));
        self.status(home, |_| true).await
    }

    /// Waits until a node answers with a status as wanted.
    async fn status(&self, home: &str, good: impl Fn(&Value) -> bool) -> Value {
        let home_word = format!("@{home}");
        until("the status of a node", || async {
            let ran = self.run(&["--home", &home_word, "status"]).await;
            match ran.code {
                Some(0) => Some(ran.json()).filter(&good),
                // Not up yet.
                Some(7) => None,
                _ => panic!("{ran:?} {}", std::fs::read_to_string(self.path(&format!("{home}.log"))).expect("read")),
            }
        })
        .await
    }

    async fn offered(&self, home: &str, name: &str) -> Value {
        let home = format!("@{home}");
        until("an offer", || async {
            let offers = self.list(&["--home", &home, "offer", "list"]).await;
            offers.into_iter().find(|offer| offer["name"] == name)
        })
        .await
    }

    async fn stop(mut self) {
        for mut daemon in std::mem::take(&mut self.daemons) {
            signal(daemon.id().expect("running"), "TERM").await;
            let status = tokio::time::timeout(HANG, daemon.wait()).await.expect("it ends").expect("waited");
            assert!(status.success(), "a daemon that is asked to end ends well: {status}");
        }
    }
}

fn str_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
}

/// The beginning of an id, long enough for it alone.
fn short(id: &str) -> &str {
    id.get(..12).expect("an id is longer")
}

/// Two authorities, their charter, two nodes with papers that run.
async fn founded() -> Desk {
    let mut desk = Desk { bin: Bin::new(), dir: tempfile::tempdir().expect("a directory"), daemons: Vec::new() };
    for (dir, member, officers) in [("@br", "BR", "3"), ("@in", "IN", "1")] {
        let threshold = if officers == "3" { "2" } else { "1" };
        let made = desk
            .one(&[
                "authority",
                "init",
                "--member",
                member,
                "--name",
                "Test",
                "--officers",
                officers,
                "--threshold",
                threshold,
                "--dir",
                dir,
            ])
            .await;
        assert_eq!(made["officers"].as_array().map(Vec::len), officers.parse().ok());
    }
    let members = ["--member", "BR=@br/authority.json", "--member", "IN=@in/authority.json"];
    let new = [&["charter", "new", "--name", "Two", "--out", "@charter.alliance"][..], &members].concat();
    let charter = desk.one(&new).await;
    assert_eq!((&charter["threshold"], &charter["holds"]), (&2.into(), &false.into()));
    let ran = desk.run(&new).await.with(5);
    assert_eq!(ran.problem()["code"], "conflict", "a charter is not overwritten");
    desk.one(&["charter", "sign", "@charter.alliance", "--dir", "@br"]).await;
    let half = desk.one(&["charter", "show", "@charter.alliance"]).await;
    assert_eq!((half["holds"].as_bool(), str_of(&half, "problem")), (Some(false), "1 of 2 members have signed; 2 must"));
    let charter = desk.one(&["charter", "sign", "@charter.alliance", "--dir", "@in"]).await;
    assert_eq!((&charter["holds"], &charter["problem"]), (&true.into(), &Value::Null));

    let mut bootstrap = Vec::new();
    for (home, authority, organisation) in [("@usp", "@br", "usp"), ("@iisc", "@in", "iisc")] {
        let mut init = vec![
            "--home",
            home,
            "init",
            "--mesh-listen",
            ANY_PORT,
            "--bulk-listen",
            "127.0.0.1:0",
            "--gateway-listen",
            "127.0.0.1:0",
        ];
        init.extend(bootstrap.iter().flat_map(|address: &String| ["--bootstrap", address.as_str()]));
        let made = desk.one(&init).await;
        assert_eq!((&made["new_key"], &made["organisation"]), (&true.into(), &Value::Null));
        let again = desk.one(&["--home", home, "init"]).await;
        assert_eq!((&again["new_key"], &again["node"]), (&false.into(), &made["node"]), "a key is never overwritten");
        desk.run(&init).await.with(5);
        let paper = format!("{authority}-{organisation}.alliance");
        let accreditation = desk
            .one(&[
                "authority",
                "accredit",
                "--dir",
                authority,
                "--charter",
                "@charter.alliance",
                "--node",
                str_of(&made, "node"),
                "--organisation",
                organisation,
                "--organisation-roles",
                "university",
                "--out",
                &paper,
            ])
            .await;
        assert_eq!(accreditation["body"]["organisation"]["name"], organisation);
        let papers = ["--charter", "@charter.alliance", "--accreditation", &paper];
        let installed = desk.one(&[&["--home", home, "init"][..], &papers].concat()).await;
        assert_eq!(installed["organisation"], organisation);
        let status = desk.start(organisation).await;
        assert_eq!(status["organisation"], organisation, "{status}");
        assert!(status["members"].as_array().is_some_and(|all| all.iter().all(|member| member["fresh"] == false)));
        bootstrap.push(status["mesh_addresses"][0].as_str().expect("an address").to_owned());
    }
    desk
}

const ANY_PORT: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

const PUBLISH: [&str; 4] = ["authority", "publish", "--charter", "@charter.alliance"];

/// Publishes both laws, each through the member's own node.
async fn in_force(desk: &Desk) {
    for (dir, home) in [("@br", "@usp"), ("@in", "@iisc")] {
        let published = desk.one(&[&PUBLISH[..], &["--dir", dir, "--node-home", home]].concat()).await;
        assert_eq!((&published["epoch"], &published["nodes"][0]["accepted"]), (&1.into(), &2.into()), "{published}");
        assert_eq!(published["nodes"][0]["error"], Value::Null, "{published}");
    }
    for home in ["usp", "iisc"] {
        let ready = |status: &Value| {
            let fresh = status["members"].as_array().is_some_and(|all| all.iter().all(|member| member["fresh"] == true));
            fresh && status["peers_admitted"] == 1
        };
        desk.status(home, ready).await;
    }
    let peers = desk.list(&["--home", "@usp", "peers"]).await;
    assert_eq!((peers.len(), &peers[0]["organisation"], &peers[0]["connected"]), (1, &"iisc".into(), &true.into()));
}

/// Imports a sample under a name and offers it.
async fn offered(desk: &Desk, name: &str, adapter: bool) -> PathBuf {
    let word = name.split_once('/').expect("a name").1;
    let dir = desk.path(word);
    let at = format!("@{word}");
    let labels: &[&str] = if adapter {
        sample::write_adapter(&dir, 5).expect("written");
        &["--artefact", "adapter", "--labels", "personal,health", "--subjects", "BR"]
    } else {
        sample::write_sample(&dir, 5, SMALL).expect("written");
        &["--labels", "public,non_personal", "--licence", "Apache-2.0"]
    };
    let import = [&["--home", "@usp", "model", "import", &at, "--name", name][..], labels].concat();
    let model = desk.one(&import).await;
    assert_eq!(str_of(&model, "name"), name);
    assert_eq!(desk.one(&import).await, model, "importing again changes nothing");
    let listed = desk.list(&["--home", "@usp", "model", "list"]).await;
    assert!(listed.contains(&model), "{listed:?}");
    assert_eq!(desk.one(&["--home", "@usp", "model", "show", name]).await, model);
    let verified = desk.one(&["--home", "@usp", "model", "verify", name]).await;
    assert_eq!((&verified["intact"], &verified["bytes"]), (&true.into(), &model["bytes"]));
    let offer = desk.one(&["--home", "@usp", "offer", "publish", name, "--ttl", "2d"]).await;
    let seen = desk.offered("iisc", name).await;
    assert_eq!((&seen["offer"], &seen["own"]), (&offer["offer"], &false.into()));
    let shown = desk.one(&["--home", "@iisc", "offer", "show", short(str_of(&offer, "offer"))]).await;
    assert_eq!(shown, seen, "by the beginning of its id");
    dir
}

#[tokio::test]
async fn two_organisations_share_a_model_from_nothing() {
    let desk = founded().await;
    in_force(&desk).await;
    let original = offered(&desk, "usp/open", false).await;
    let pulled = desk.one(&["--home", "@iisc", "pull", "usp/open", "--to", "@pulled"]).await;
    assert_eq!((&pulled["state"], &pulled["bytes"]), (&"done".into(), &pulled["total"]), "{pulled}");
    assert_eq!(digests(&desk.path("pulled")), digests(&original));
    check_records(&desk, str_of(&pulled, "crossing")).await;
    // Without --to it goes to the home, and the model that came can be shown and checked like one's own.
    desk.one(&["--home", "@iisc", "pull", "usp/open"]).await;
    assert_eq!(digests(&desk.path("iisc/models/usp/open")), digests(&original));
    let model = desk.one(&["--home", "@iisc", "model", "show", "usp/open"]).await;
    assert!(model["crossing"].is_string(), "{model}");
    desk.one(&["--home", "@iisc", "model", "verify", "usp/open"]).await;
    let path = desk.path("iisc/models/usp/open/README.md");
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[0] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let damaged = desk.run(&["--home", "@iisc", "model", "verify", "usp/open"]).await.with(8).json();
    assert_eq!(damaged["intact"], false);
    assert!(
        str_of(&damaged, "name") == "usp/open" && damaged["problems"][0].as_str().is_some_and(|p| p.contains("README"))
    );

    let withdrawn = desk.one(&["--home", "@usp", "offer", "withdraw", "usp/open", "--reason", "replaced"]).await;
    assert!(withdrawn["withdrawn"]["offer"].is_string(), "{withdrawn}");
    until("the end of the offer", || async {
        desk.list(&["--home", "@iisc", "offer", "list"]).await.is_empty().then_some(())
    })
    .await;
    let problem = desk.run(&["--home", "@iisc", "pull", "usp/open", "--to", "@again"]).await.with(4).problem();
    assert!(str_of(&problem, "message").contains("withdrawn"), "{problem}");
    desk.stop().await;
}

/// Both sides list and show the crossing, and what they recorded of it verifies.
async fn check_records(desk: &Desk, id: &str) {
    for (home, side, kinds) in [
        ("@usp", "exporter", vec!["cleared", "settled"]),
        ("@iisc", "importer", vec!["requested", "clearance_accepted", "received", "model_imported", "settled"]),
    ] {
        let listed = desk.list(&["--home", home, "crossing", "list"]).await;
        assert_eq!((listed.len(), &listed[0]["side"], &listed[0]["state"]), (1, &side.into(), &"done".into()));
        let shown = desk.one(&["--home", home, "crossing", "show", short(id)]).await;
        assert_eq!(shown, listed[0]);
        let entries = desk.list(&["--home", home, "ledger", "list", "--crossing", id]).await;
        assert_eq!(entries.iter().map(|entry| str_of(entry, "kind")).collect::<Vec<_>>(), kinds, "{home}");
        let last = entries.last().expect("entries");
        let number = last["number"].to_string();
        let entry = desk.one(&["--home", home, "ledger", "show", &number]).await;
        assert_eq!(&entry, last);
        let report = desk.one(&["--home", home, "ledger", "verify"]).await;
        assert!(report["entries"].as_u64() > entry["number"].as_u64(), "{report}");
    }
}

#[tokio::test]
async fn a_safeguard_opens_what_the_law_closes_and_a_revocation_closes_all() {
    let desk = founded().await;
    in_force(&desk).await;
    let original = offered(&desk, "usp/clinic", true).await;
    let pull = ["--home", "@iisc", "pull", "usp/clinic", "--to", "@pulled"];
    let denied = desk.run(&pull).await.with(3);
    let view = denied.json();
    let verdicts = view["verdicts"].as_array().expect("verdicts");
    let remedies: Vec<(&str, &str)> = verdicts
        .iter()
        .filter(|verdict| verdict["allowed"] == false)
        .flat_map(|verdict| verdict["rules"].as_array().expect("rules").iter().map(move |rule| (verdict, rule)))
        .filter(|(_, rule)| rule["role"] == "denies")
        .flat_map(|(verdict, rule)| {
            let first = rule["remedies"][0].as_array().expect("a remedy");
            first.iter().map(|kind| (verdict["pack"]["member"].as_str().unwrap_or("?"), kind.as_str().expect("a kind")))
        })
        .collect();
    assert!(!remedies.is_empty(), "{view}");
    let mut presented = Vec::new();
    for (number, (issuer, kind)) in remedies.iter().enumerate() {
        let (file, dir) = (format!("@safeguard-{number}.alliance"), format!("@{}", issuer.to_lowercase()));
        let issued = desk
            .one(&[
                "authority",
                "issue-safeguard",
                "--dir",
                &dir,
                "--charter",
                "@charter.alliance",
                "--kind",
                kind,
                "--from",
                "BR",
                "--to",
                "IN",
                "--labels",
                "personal,health",
                "--reference",
                "case 1",
                "--out",
                &file,
            ])
            .await;
        assert_eq!(issued["body"]["kind"], *kind);
        presented.extend(["--safeguard".to_owned(), file]);
    }
    let words: Vec<&str> = pull.iter().copied().chain(presented.iter().map(String::as_str)).collect();
    let pulled = desk.one(&words).await;
    assert_eq!((&pulled["state"], &pulled["safeguards_ignored"]), (&"done".into(), &Value::Array(Vec::new())), "{pulled}");
    assert_eq!(digests(&desk.path("pulled")), digests(&original));

    let node = desk.one(&["--home", "@iisc", "status"]).await;
    let revoke = ["authority", "revoke", "--dir", "@in", "--node", str_of(&node, "node")];
    assert_eq!(desk.one(&revoke).await["new"], true);
    assert_eq!(desk.one(&revoke).await["new"], false);
    // It takes effect with the next status, which the authority hands to any node.
    let published = desk.one(&[&PUBLISH[..], &["--dir", "@in", "--node-home", "@usp", "--out", "@public"]].concat()).await;
    assert_eq!((&published["serial"], &published["new_law"]), (&2.into(), &false.into()));
    assert!(Path::new(str_of(&published, "status")).is_file());
    desk.status("usp", |status| status["members"].as_array().is_some_and(|all| all.iter().any(|m| m["revoked"] == 1)))
        .await;
    let words: Vec<&str> = words.iter().map(|word| if *word == "@pulled" { "@again" } else { *word }).collect();
    let denied = desk.run(&words).await.with(6);
    assert_eq!(denied.json()["refusal"], "not_accredited", "{denied:?}");
    assert_eq!(denied.problem()["code"], "untrusted");
    assert!(!desk.path("again").exists());
    let accredit = [
        "authority",
        "accredit",
        "--dir",
        "@in",
        "--charter",
        "@charter.alliance",
        "--node",
        str_of(&node, "node"),
        "--organisation",
        "iisc",
        "--out",
        "@new.alliance",
    ];
    assert_eq!(desk.run(&accredit).await.with(5).problem()["code"], "conflict", "a revoked key is not accredited again");
    desk.stop().await;
}
