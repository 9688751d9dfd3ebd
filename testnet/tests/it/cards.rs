//! Model cards: what one says stands in at an import, crosses as a claim, and comes out again with an export.

use std::{fs, path::Path};

use alliance_testnet::sample;
use serde_json::{Value, json};

use crate::harness::{SMALL, Stage, digests, text};

const CARD: &str = "\
---
license: apache-2.0
language: [pt, en]
base_model: usp/amazonia-base
datasets:
- usp/corpus
alliance:
  labels: [public, non_personal]
  origin: BR
---
# Amazonia

Text.
";

#[tokio::test]
async fn a_card_is_read_crosses_and_is_written_again() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (dir, to, out) = (stage.path("model"), stage.path("pulled"), stage.path("exported"));
    sample::write_sample(&dir, 5, SMALL).expect("written");
    fs::write(dir.join("README.md"), CARD).expect("written");
    let name = format!("{}/amazonia", stage.node("BR").organisation());
    let imported = stage.cli("BR", &["model", "import", text(&dir), "--name", &name]).await.good();
    imported.shows(&[
        "from the card: labels, origin, licence, languages, datasets, base models",
        "Apache-2.0",
        "made from",
    ]);
    let claims = json!({"languages": ["en", "pt"], "datasets": ["usp/corpus"], "base_models": ["usp/amazonia-base"]});
    let model = stage.cli_json("BR", &["model", "show", &name]).await.good().json();
    assert_eq!(model["provenance"]["card"], claims);
    stage.cli("BR", &["offer", "publish", &name]).await.good();
    stage.known("CN", &name).await;
    stage.cli("CN", &["offer", "show", &name]).await.good().shows(&["usp/amazonia-base, says its card"]);
    stage.cli("CN", &["pull", &name, "--to", text(&to), "--purpose", "research"]).await.good();
    let model = stage.cli_json("CN", &["model", "show", &name]).await.good().json();
    assert_eq!(model["provenance"]["card"], claims);

    let said = stage.cli_json("CN", &["model", "export", &name, "--to", text(&out)]).await.good().json();
    assert_eq!(
        (&said["original_card"], &said["statements"]),
        (&json!("README.original.md"), &json!("alliance-receipt.json"))
    );
    let (mut before, mut after) = (digests(&dir), digests(&out));
    assert_eq!(before.remove(Path::new("README.md")), after.remove(Path::new("README.original.md")));
    after.remove(Path::new("README.md")).expect("a card");
    after.remove(Path::new("alliance-receipt.json")).expect("the statements");
    assert_eq!(after, before);
    let card = fs::read_to_string(out.join("README.md")).expect("there");
    let receipt: Value =
        serde_json::from_str(&fs::read_to_string(out.join("alliance-receipt.json")).expect("there")).expect("JSON");
    let statements = receipt["crossings"][0]["statements"].as_array().expect("statements");
    let kinds: Vec<&str> = statements.iter().filter_map(|statement| statement["kind"].as_str()).collect();
    assert_eq!(kinds, ["offer", "crossing-request", "clearance", "receipt"]);
    let id = |at: usize| statements[at]["id"].as_str().expect("an id");
    for part in [
        "license: apache-2.0\nlanguage: [pt, en]\n",
        &format!("    clearance: \"{}\"\n    receipt: \"{}\"\n", id(2), id(3)),
        &format!("    id: {}\n", model["crossing"]),
        &format!("    exporter: \"{}\"\n", stage.node("BR").key()),
        "    country: \"BR\"\n",
        "    purpose: research\n",
        "\n---\n# Amazonia\n\nText.\n",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    // Whoever imports the copy knows what it is.
    let own = format!("{}/copy", stage.node("CN").organisation());
    let copy = stage.cli_json("CN", &["model", "import", text(&out), "--name", &own]).await.good().json();
    for field in ["labels", "origin", "subjects", "licence", "artefact", "provenance"] {
        assert_eq!(copy[field], model[field], "{field}");
    }

    // What is there is not replaced, and what was altered is not copied.
    stage.cli("CN", &["model", "export", &name, "--to", text(&out)]).await.with(5).says(&["is there already"]);
    stage.cli("CN", &["model", "export", "ipe-lab/none", "--to", text(&out)]).await.with(4).says(&["ipe-lab/none"]);
    fs::write(to.join("config.json"), "{}").expect("written");
    let other = stage.path("other");
    stage.cli("CN", &["model", "export", &name, "--to", text(&other)]).await.with(8).says(&["config.json", "model verify"]);
    assert!(!other.exists());
    // One that was made here has no crossing.
    let said = stage.cli_json("BR", &["model", "export", &name, "--to", text(&other)]).await.good().json();
    assert_eq!((&said["crossing"], &said["statements"]), (&Value::Null, &Value::Null));
    assert!(!fs::read_to_string(other.join("README.md")).expect("there").contains("crossing:"));
    stage.stop().await;
}

#[tokio::test]
async fn a_card_without_labels_or_without_sense_is_told_what_to_do() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (dir, size) = (stage.path("model"), stage.ledger_size("BR").await);
    sample::write_sample(&dir, 5, SMALL).expect("written");
    let import = ["model", "import", text(&dir), "--name", "ipe-lab/m"];
    let said = ["--labels", "the card suggests `public`", "Apache-2.0", "--name ipe-lab/m --labels public,non_personal"];
    stage.cli("BR", &import).await.with(2).says(&said);
    fs::write(dir.join("README.md"), "---\nlicense: mit\nalliance:\n  labels: [foo]\n---\n").expect("written");
    let said = ["`README.md`, line 4", "`alliance.labels`", "`foo` is not a label", "--no-card"];
    stage.cli("BR", &import).await.with(2).says(&said);
    stage.cli("BR", &[&import[..], &["--labels", "public"]].concat()).await.with(2).says(&said);
    fs::write(dir.join("README.md"), "---\nlicense: [mit\n---\n").expect("written");
    stage.cli("BR", &import).await.with(2).says(&["`README.md`: line", "--no-card"]);
    assert_eq!(stage.ledger_size("BR").await, size, "nothing was recorded");
    let ran = stage.cli_json("BR", &[&import[..], &["--no-card", "--labels", "public"]].concat()).await.good().json();
    assert_eq!((&ran["licence"], ran["provenance"].get("card")), (&json!("other"), None));
    fs::write(dir.join("README.md"), CARD).expect("written");
    let ran = stage.cli("BR", &[&import[..], &["--labels", "public", "--licence", "MIT"]].concat()).await.good();
    ran.shows(&["the card says otherwise of: labels, licence", "from the card: origin, languages"]);
    stage.stop().await;
}
