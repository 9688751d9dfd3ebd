//! Who signed a model and where it was trained, with real daemons and the command line.

use std::{fs, path::Path};

use alliance_protocol::time::Timestamp;
use alliance_testnet::sample;

use crate::harness::{SMALL, Stage, digests, text, until};

/// The house takes only what was wholly trained in Brazil.
const HOUSE: &str = r#"
@id("HOUSE-00") @title("the rest") @house("by-laws") @status("residual")
permit (principal, action, resource);
@id("HOUSE-01") @title("Trained in Brazil") @house("by-laws") @status("house")
forbid (principal, action == Action::"import", resource)
when { !(context.training.proven && [Country::"BR"].containsAll(context.training.countries)) };
"#;

impl Stage {
    async fn import(&self, country: &str, dir: &Path, name: &str, more: &[&str]) -> crate::harness::Ran {
        let words = ["model", "import", text(dir), "--name", name, "--labels", "public,non_personal"];
        self.cli(country, &[&words[..], more].concat()).await
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(u64::try_from(since.as_millis()).expect("before the end of time"))
}

#[tokio::test]
async fn a_signature_over_a_model_is_made_crosses_and_is_verified() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let (public, dir, to) = (stage.path("usp.pub"), stage.path("signed"), stage.path("pulled"));
    sample::write_sample(&dir, 11, SMALL).expect("written");
    stage.cli("BR", &["model", "sign", text(&dir)]).await.with(4).says(&["alliance model signing-key"]);
    let made = stage.cli_json("BR", &["model", "signing-key", "--out", text(&public)]).await.good().json();
    let again = stage.cli_json("BR", &["model", "signing-key"]).await.good().json();
    assert_eq!(
        (&again["key"], again["public_key"].as_str()),
        (&made["key"], Some(fs::read_to_string(&public).expect("there").as_str()))
    );
    let other = stage.path("other.pem");
    fs::write(&other, "-----BEGIN PRIVATE KEY-----\n").expect("written");
    stage.cli("BR", &["model", "signing-key", "--import", text(&other)]).await.with(2).says(&["P-256"]);
    stage.cli("BR", &["model", "sign", text(&dir)]).await.good();
    // Others hear of the key with the node's record.
    stage.node_mut("BR").stop().await;
    stage.node_mut("BR").launch().expect("launched");
    stage.node("BR").until_up().await.expect("up");

    let name = format!("{}/signed", stage.node("BR").organisation());
    let node = stage.node("BR").key().to_string();
    stage.import("BR", &dir, &name, &["--require-signature"]).await.good().shows(&["verified, by node"]);
    // The tool of OpenSSF, where the caller says where it is.
    if let Ok(tool) = std::env::var("ALLIANCE_MODEL_SIGNING") {
        let signature = dir.join("model.sig");
        let mut command = tokio::process::Command::new(tool);
        command.args(["verify", "key", text(&dir), "--public_key", text(&public), "--signature", text(&signature)]);
        crate::harness::ended(&mut command).await.good();
    }
    stage.cli("BR", &["offer", "publish", &name]).await.good();
    stage.known("CN", &name).await;
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.good();
    assert_eq!(digests(&to), digests(&dir));
    let short = node.get(..8).expect("longer");
    until("the key at the other node", || async {
        let ran = stage.cli("CN", &["model", "verify", &name]).await.good();
        ran.out.contains(&format!("verified, by node {short}")).then_some(())
    })
    .await;

    // What was changed on the way, by whoever passed it on, is not taken in.
    let copy = stage.path("copy");
    crate::harness::copy(&to, &copy);
    let own = format!("{}/copy", stage.node("CN").organisation());
    stage.import("CN", &copy, &own, &["--require-signature"]).await.good().shows(&["verified, by node"]);
    fs::write(copy.join("config.json"), "{\"changed\": true}").expect("written");
    stage.import("CN", &copy, &own, &[]).await.with(8).says(&["signature", "not the one that was signed"]);
    fs::remove_file(copy.join("model.sig")).expect("removed");
    stage.import("CN", &copy, &own, &["--require-signature"]).await.with(6).says(&["no `model.sig`"]);
    stage.import("CN", &copy, &own, &["--signature-key", text(&public)]).await.with(6);
    stage.import("CN", &copy, &own, &[]).await.good();
    // One that this node signed itself is not one that the other did.
    stage.cli("CN", &["model", "signing-key"]).await.good();
    stage.cli("CN", &["model", "sign", text(&copy)]).await.good();
    stage.import("CN", &copy, &own, &["--signature-key", text(&public)]).await.with(6);
    stage.import("CN", &copy, &own, &["--require-signature"]).await.good().shows(&["verified, by node"]);
    stage.stop().await;
}

#[tokio::test]
async fn only_what_is_proven_to_be_trained_at_home_may_cross() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    stage.node_mut("CN").stop().await;
    fs::write(stage.home("CN").join("house.cedar"), HOUSE).expect("written");
    stage.node_mut("CN").launch().expect("launched");
    stage.node("CN").until_up().await.expect("up");
    let organisation = stage.node("BR").organisation().to_owned();
    let [corpus, base, bare] = ["corpus", "base", "bare"].map(|word| format!("{organisation}/{word}"));
    for (seed, name) in [(21, &corpus), (22, &base), (23, &bare)] {
        let dir = stage.path(&seed.to_string());
        sample::write_sample(&dir, seed, SMALL).expect("written");
        let artefact = if name == &corpus { "dataset" } else { "weights" };
        stage.import("BR", &dir, name, &["--artefact", artefact]).await.good();
    }
    let code = stage.path("train.py");
    fs::write(&code, "print('trained')\n").expect("written");
    let (at, step, bundle) = (now().to_string(), stage.path("base.step.json"), stage.path("base.intoto.jsonl"));
    let record = ["training", "record", &base, "--process", "pre_training", "--code", text(&code)];
    let when = ["--started", &at, "--finished", &at];
    stage.cli("BR", &[&record[..], &when].concat()).await.with(2).says(&["names no data"]);
    stage.cli("BR", &["training", "attest", &base]).await.with(4).says(&["alliance training record"]);
    stage.cli("BR", &["training", "show", &base]).await.with(4);
    let data = ["--data", &corpus, "--out", text(&step)];
    stage.cli("BR", &[&record[..], &when, &data].concat()).await.good();
    stage.cli("BR", &["training", "attest", &base, "--out", text(&bundle)]).await.good().shows(&["BR", "proven"]);
    for name in [&base, &bare] {
        stage.cli("BR", &["offer", "publish", name]).await.good();
        stage.known("CN", name).await;
    }

    let to = stage.path("pulled");
    stage.cli("CN", &["pull", &bare, "--to", text(&to)]).await.with(3).shows(&["HOUSE-01"]);
    stage.cli("CN", &["pull", &base, "--to", text(&to)]).await.good();
    let shown = stage.cli_json("CN", &["training", "show", &base]).await.good().json();
    assert_eq!((&shown["trained_in"][0], &shown["problem"]), (&"BR".into(), &serde_json::Value::Null), "{shown}");
    // From files alone, by anybody who has the charter.
    let charter = stage.network.root().join("charter.alliance");
    let verify = ["training", "verify", text(&bundle), "--charter", text(&charter)];
    stage.bin.alliance(verify).await.good().shows(&["BR", "pre_training"]);
    let lied = fs::read_to_string(&bundle).expect("there").replacen("\"sig\":\"", "\"sig\":\"A", 1);
    fs::write(&bundle, lied).expect("written");
    stage.bin.alliance(verify).await.with(6).says(&["line 1"]);

    // Both sides decided on what was proven, and say so again from their ledgers.
    for country in ["BR", "CN"] {
        let crossings = stage.cli_json(country, &["crossing", "list"]).await.good().lines();
        let done = crossings.iter().find(|one| one["state"] == "done").expect("one");
        assert_eq!(done["facts"]["trained_in"][0], "BR", "{done}");
        let id = done["crossing"].as_str().expect("an id");
        stage.cli(country, &["crossing", "replay", id]).await.good();
    }
    // A daemon that starts again still knows.
    stage.node_mut("BR").kill().await.expect("killed");
    stage.node_mut("BR").launch().expect("launched");
    stage.node("BR").until_up().await.expect("up");
    stage.cli("BR", &["training", "show", &base]).await.good().shows(&["proven"]);
    stage.stop().await;
}
