//! What is typed or handed over wrongly: an exit code, what is wrong and where, and nothing changed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use alliance_testnet::sample;

use crate::harness::{Bin, SMALL, Stage, digests, text};

/// A directory with one file of these bytes.
fn with_file(stage: &Stage, dir: &str, file: &str, bytes: &[u8]) -> PathBuf {
    let dir = stage.path(dir);
    fs::create_dir_all(&dir).expect("made");
    fs::write(dir.join(file), bytes).expect("written");
    dir
}

/// A safetensors file with this header and so many bytes behind it.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = u64::try_from(header.len()).expect("short").to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(std::iter::repeat_n(7, data));
    bytes
}

const ONE: &str = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;

/// Directories that are no models, the code, and what is said of each.
fn no_models(stage: &Stage) -> Vec<(PathBuf, i32, Vec<&'static str>)> {
    let file = |dir: &str, bytes: &[u8]| with_file(stage, dir, "model.safetensors", bytes);
    let tensors = "model.safetensors";
    let two = |second: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[4],"data_offsets":[0,16]}},{second}}}"#);
    let mut pickle =
        b"\x80\x02}q\x00(X\x01\x00\x00\x00wq\x01cos\nsystem\nq\x02X\x02\x00\x00\x00idq\x03\x85q\x04Rq\x05u.".to_vec();
    pickle.resize(4096, 0);
    let outside = with_file(stage, "outside", "secret.txt", b"secret");
    let linked = with_file(stage, "linked", "config.json", b"{}");
    symlink(outside.join("secret.txt"), linked.join("weights.txt")).expect("linked");
    let upwards = with_file(stage, "upwards", "config.json", b"{}");
    symlink("../outside", upwards.join("more")).expect("linked");
    let empty = stage.path("empty");
    fs::create_dir_all(&empty).expect("made");
    let gone = stage.path("gone");
    let plain = outside.join("secret.txt");
    vec![
        (file("short", &[1, 2, 3]), 2, vec![tensors, "too few", "fetch it again"]),
        (file("cut", &safetensors(ONE, 15)), 2, vec![tensors, "truncated", "fetch it again"]),
        (file("head", &safetensors(ONE, 0)[..20]), 2, vec![tensors, "truncated"]),
        (file("long", &safetensors(ONE, 17)), 2, vec![tensors, "after its last tensor"]),
        (file("huge", &[0xff; 64]), 2, vec![tensors, "header"]),
        (file("json", &safetensors("{\"a\":", 0)), 2, vec![tensors, "header"]),
        (file("type", &safetensors(&ONE.replace("F32", "F33"), 16)), 2, vec![tensors, "unknown type `F33`"]),
        (
            file("hole", &safetensors(&two(r#""b":{"dtype":"U8","shape":[4],"data_offsets":[20,24]}"#), 24)),
            2,
            vec!["hole of 4"],
        ),
        (
            file("over", &safetensors(&two(r#""b":{"dtype":"U8","shape":[8],"data_offsets":[12,20]}"#), 20)),
            2,
            vec!["overlaps"],
        ),
        (file("twice", &safetensors(&two(ONE.trim_matches(['{', '}'])).replace("]}}", "]}"), 16)), 2, vec![tensors]),
        (with_file(stage, "pickle", "pytorch_model.bin", &pickle), 2, vec!["pytorch_model.bin", "pickle"]),
        (with_file(stage, "hidden-pickle", "notes.txt", &pickle), 2, vec!["notes.txt", "pickle"]),
        (linked, 2, vec!["weights.txt", "link"]),
        (upwards, 2, vec!["more", "link"]),
        (empty, 2, vec!["empty"]),
        (gone, 2, vec!["gone", "not a directory"]),
        (plain, 2, vec!["secret.txt", "not a directory"]),
    ]
}

#[tokio::test]
async fn what_is_no_model_is_not_imported() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let size = stage.ledger_size("BR").await;
    for (dir, code, says) in no_models(&stage) {
        let words = ["model", "import", text(&dir), "--name", "ipe-lab/bad", "--labels", "public"];
        let ran = stage.cli("BR", &words).await;
        assert_eq!(ran.code, Some(code), "{}: {ran:?}", dir.display());
        let ran = ran.says(&["error: "]).says(&says);
        assert!(ran.out.is_empty() && !ran.err.contains("panicked"), "{ran:?}");
        let problem = stage.cli_json("BR", &words).await.with(code).problem();
        let message = problem["message"].as_str().expect("a message").to_owned();
        assert!(says.iter().all(|part| message.contains(part)), "{problem}");
    }
    assert_eq!(stage.ledger_size("BR").await, size, "nothing was recorded");
    assert_eq!(stage.cli("BR", &["model", "list"]).await.good().out, "none\n");
    assert_eq!(crate::harness::names(&stage.home("BR").join("manifests")), Vec::<String>::new());
    stage.stop().await;
}

/// What is typed, the exit code, and what is said.
type Wrong<'a> = (Vec<&'a str>, i32, Vec<&'a str>);

/// Types all of it, for people and for programs, and checks that the node recorded nothing.
async fn check_wrong(stage: &Stage, table: &[Wrong<'_>]) {
    let size = stage.ledger_size("BR").await;
    for (words, code, says) in table {
        let ran = stage.cli("BR", words).await;
        assert_eq!(ran.code, Some(*code), "{words:?}: {ran:?}");
        let ran = ran.says(says);
        assert!(!ran.err.contains("panicked") && ran.out.is_empty(), "{words:?}: {ran:?}");
        if !words.is_empty() && !words.contains(&"yaml") {
            let ran = stage.cli_json("BR", words).await.with(*code);
            assert!(ran.problem()["message"].as_str().is_some_and(|message| !message.is_empty()), "{ran:?}");
        }
    }
    assert_eq!(stage.ledger_size("BR").await, size, "nothing was recorded");
    assert_eq!(stage.cli("BR", &["offer", "list"]).await.good().out, "none\n");
}

#[tokio::test]
async fn what_is_wrong_of_a_model_or_an_offer_changes_nothing() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let model = stage.path("model");
    sample::write_sample(&model, 3, SMALL).expect("written");
    let dir = text(&model);
    stage.cli("BR", &["model", "import", dir, "--name", "ipe-lab/m", "--labels", "public,non_personal"]).await.good();
    let (long, longer) = ("x".repeat(200), "x".repeat(2000));
    let table: Vec<Wrong> = vec![
        (vec!["model", "import", dir, "--name", "ipe-lab/m", "--labels", "publik"], 2, vec!["publik", "non_personal"]),
        (vec!["model", "import", dir, "--name", "ipe-lab/m"], 2, vec!["--labels"]),
        (vec!["model", "import", dir, "--name", "ipe-lab/m", "--labels", ""], 2, vec!["--labels"]),
        (vec!["model", "import", dir, "--name", "m", "--labels", "public"], 2, vec!["`m`"]),
        (vec!["model", "import", dir, "--name", "../m", "--labels", "public"], 2, vec!["../m"]),
        (vec!["model", "import", dir, "--name", "ipe-lab/../m", "--labels", "public"], 2, vec!["ipe-lab/../m"]),
        (vec!["model", "import", dir, "--name", "other/m", "--labels", "public"], 2, vec!["`ipe-lab`"]),
        (vec!["model", "import", dir, "--name", "ipe-lab/m", "--labels", "public", "--origin", "XX"], 2, vec!["XX"]),
        (vec!["model", "import", dir, "--name", "ipe-lab/m", "--labels", "public", "--subjects", "br"], 2, vec!["br"]),
        (
            vec!["model", "import", dir, "--name", "ipe-lab/m", "--labels", "public", "--artefact", "brain"],
            2,
            vec!["brain", "weights"],
        ),
        (
            vec!["model", "import", dir, "--name", "ipe-lab/m", "--labels", "public", "--licence", &long],
            2,
            vec!["licence", "128"],
        ),
        (vec!["model", "show", "ipe-lab/none"], 4, vec!["ipe-lab/none", "next: alliance model list"]),
        (vec!["model", "verify", "ipe-lab/none"], 4, vec!["ipe-lab/none"]),
        (vec!["offer", "publish", "ipe-lab/none"], 4, vec!["ipe-lab/none", "model import"]),
        (vec!["offer", "publish", "ipe-lab/m", "--purposes", "fun"], 2, vec!["fun", "research"]),
        (vec!["offer", "publish", "ipe-lab/m", "--to", "Brazil"], 2, vec!["Brazil"]),
        (vec!["offer", "publish", "ipe-lab/m", "--ttl", "tomorrow"], 2, vec!["tomorrow", "30d"]),
        (vec!["offer", "publish", "ipe-lab/m", "--ttl", "0d"], 2, vec!["0d"]),
        (vec!["offer", "publish", "ipe-lab/m", "--ttl", "400d"], 2, vec!["366 days"]),
        (vec!["offer", "publish", "other/m"], 2, vec!["`ipe-lab`"]),
        (vec!["offer", "publish", "ipe-lab/g", "--compute"], 2, vec!["--accelerator"]),
        (
            vec![
                "offer",
                "publish",
                "ipe-lab/g",
                "--compute",
                "--accelerator",
                &long,
                "--count",
                "1",
                "--memory-mib",
                "1",
                "--hours",
                "1",
            ],
            2,
            vec!["accelerator"],
        ),
        (
            vec![
                "offer",
                "publish",
                "ipe-lab/g",
                "--compute",
                "--accelerator",
                "cpu",
                "--count",
                "0",
                "--memory-mib",
                "1",
                "--hours",
                "1",
            ],
            2,
            vec!["count"],
        ),
        (vec!["offer", "publish", "ipe-lab/m", "--to", "XX"], 2, vec!["XX"]),
        (vec!["model", "import", dir, "--name", &longer, "--labels", "public"], 2, vec!["`organisation/name`"]),
    ];
    check_wrong(&stage, &table).await;
    stage.stop().await;
}

#[tokio::test]
async fn words_that_nobody_knows_change_nothing() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let no_file = stage.path("none.alliance");
    let key = stage.node("CN").key().to_string();
    let table: Vec<Wrong> = vec![
        (vec!["offer", "withdraw", "ipe-lab/m"], 4, vec!["no offer `ipe-lab/m` stands"]),
        (vec!["offer", "show", "ffff"], 4, vec!["ffff"]),
        (vec!["offer", "show", ""], 4, vec!["offer list"]),
        (vec!["pull", "yunhai-lab/none"], 4, vec!["yunhai-lab/none", "offer list"]),
        (vec!["pull", "../../etc"], 2, vec!["../../etc", "ORG/NAME"]),
        (vec!["pull", "yunhai-lab/m", "--purpose", "fun"], 2, vec!["fun"]),
        (vec!["pull", "yunhai-lab/m", "--use", "fun"], 2, vec!["fun", "inference"]),
        (vec!["pull", "yunhai-lab/m", "--safeguard", text(&no_file)], 4, vec!["none.alliance"]),
        (vec!["crossing", "show", "ffff"], 4, vec!["ffff", "crossing list"]),
        (vec!["crossing", "show", ""], 4, vec!["crossing list"]),
        (vec!["ledger", "show", "999999"], 4, vec!["999999"]),
        (vec!["ledger", "show", "first"], 2, vec!["first"]),
        (vec!["lodger"], 2, vec!["lodger"]),
        (vec![], 2, vec!["Usage"]),
        (vec!["-o", "yaml", "status"], 2, vec!["yaml", "json"]),
        (vec!["authority", "revoke", "--dir", "/nonexistent", "--node", &key], 4, vec!["/nonexistent", "authority init"]),
        (vec!["authority", "revoke", "--dir", "/nonexistent", "--node", "00"], 2, vec!["--node"]),
    ];
    check_wrong(&stage, &table).await;
    stage.stop().await;
}

#[tokio::test]
async fn a_pull_is_never_written_over_what_is_there() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    let full = with_file(&stage, "full", "mine.txt", b"mine");
    let file = full.join("mine.txt");
    for to in [&full, &file] {
        let ran = stage.cli("CN", &["pull", &name, "--to", text(to)]).await.with(9);
        ran.says(&["exists and", text(to), "choose another directory"]);
    }
    assert_eq!(fs::read(&file).expect("read"), b"mine");
    assert_eq!(crate::harness::names(&full), ["mine.txt"]);
    // A safeguard that is none does not count; one that is too long is not sent.
    let (one, two) = (stage.path("one"), stage.path("two"));
    let junk = with_file(&stage, "junk", "safeguard.alliance", &[0xff; 300]).join("safeguard.alliance");
    let pull = ["pull", &name, "--to", text(&one), "--safeguard", text(&junk)];
    let view = stage.cli_json("CN", &pull).await.good().json();
    assert!(view["safeguards_ignored"].as_array().is_some_and(|ignored| ignored.len() == 1), "{view}");
    let large = with_file(&stage, "large", "safeguard.alliance", &[0xff; 20_000]).join("safeguard.alliance");
    let pull = ["pull", &name, "--to", text(&two), "--safeguard", text(&large)];
    stage.cli("CN", &pull).await.with(2).says(&["safeguard.alliance", "more than the 16384 bytes"]);
    stage.stop().await;
}

/// The founding law of Brazil, changed.
fn law(change: impl Fn(&str) -> String) -> String {
    let (law, _) = alliance_policy::founding_pack_text("BR".parse().expect("a country")).expect("a pack");
    let changed = change(law);
    assert_ne!(law, changed);
    changed
}

#[tokio::test]
async fn law_that_does_not_hold_is_neither_signed_nor_published() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let root = stage.network.root().to_owned();
    let (authority, charter) = (root.join("authorities/BR"), root.join("charter.alliance"));
    let size = stage.ledger_size("BR").await;
    let (book, epoch) = (digests(&authority), stage.node("BR").status().await.expect("a status").members[0].epoch);
    let table = [
        ("syntax", law(|law| law.replacen("forbid (", "forbid ((", 1)), vec!["line"]),
        (
            "type",
            law(|law| {
                format!(
                    "{law}\n@id(\"BR-90\") @title(\"a\") @law(\"a\") @native(\"a\") @from(\"2020-01-01\") @status(\"in_force\") @confidence(\"high\") @source(\"https://example.org\")\nforbid (principal, action, resource) when {{ context.labels == 7 }};\n"
                )
            }),
            vec!["BR-90"],
        ),
        ("label", law(|law| law.replacen("Label::\"", "Label::\"un", 1)), vec![]),
        ("date", law(|law| law.replacen("@from(\"2", "@from(\"13/5/2", 1)), vec!["13/5/2"]),
        ("bare", "forbid (principal, action, resource);".to_owned(), vec!["@id"]),
        ("other", law(|law| law.replace("BR-", "CN-")), vec!["CN-", "BR"]),
    ];
    for (name, text_of_law, says) in table {
        let file = with_file(&stage, "law", &format!("{name}.cedar"), text_of_law.as_bytes()).join(format!("{name}.cedar"));
        let ran = stage.bin.alliance(["policy", "lint", text(&file), "--member", "BR"]).await;
        assert_eq!(ran.code, Some(1), "{name}: {ran:?}");
        ran.says(&says).says(&["next: mend the text"]);
        let home = stage.home("BR");
        let publish = [
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
        let ran = stage.bin.alliance(publish).await;
        assert_eq!(ran.code, Some(2), "{name}: {ran:?}");
        ran.says(&says).says(&["next: mend the text; alliance policy lint"]);
    }
    assert_eq!(digests(&authority), book, "no number was spent");
    assert_eq!(stage.ledger_size("BR").await, size);
    assert_eq!(stage.node("BR").status().await.expect("a status").members[0].epoch, epoch);
    stage.stop().await;
}

#[tokio::test]
async fn commands_on_files_say_which_file_is_missing_or_none() {
    let bin = Bin::new();
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("junk"), b"junk").expect("written");
    let (none, junk, made) = (at("none"), at("junk"), at("made"));
    let (none, junk) = (text(&none), text(&junk));
    let member_none = format!("BR={none}");
    let member_junk = format!("BR={junk}");
    let check = ["policy", "check", "--from", "BR", "--to", "CN", "--artefact", "weights", "--labels", "public"];
    let with = |words: &[&'static str]| check.iter().chain(words).copied().collect::<Vec<_>>();
    let home = at("home");
    let made = text(&made);
    let table: Vec<(Vec<&str>, i32, Vec<&str>)> = vec![
        (vec!["policy", "lint", none, "--member", "BR"], 4, vec![none]),
        (vec!["policy", "lint", junk, "--member", "br"], 2, vec!["br"]),
        (with(&["--purpose", "research", "--at", "2026-13-01"]), 2, vec!["2026-13-01"]),
        (with(&["--purpose", "research", "--at", "yesterday"]), 2, vec!["yesterday"]),
        (with(&["--purpose", "fun"]), 2, vec!["fun", "research"]),
        (with(&[]), 2, vec!["--purpose"]),
        (with(&["--purpose", "research", "--safeguards", "tia"]), 2, vec!["tia", "KIND@CC"]),
        (with(&["--purpose", "research", "--to", "US"]), 2, vec!["--to"]),
        (vec!["charter", "show", none], 4, vec![none]),
        (vec!["charter", "show", junk], 6, vec![]),
        (vec!["charter", "new", "--name", "x", "--out", made, "--member", &member_none], 4, vec![none]),
        (vec!["charter", "new", "--name", "x", "--out", made, "--member", &member_junk], 8, vec![junk]),
        (vec!["charter", "new", "--name", "x", "--out", made, "--member", "BR"], 2, vec!["CC=FILE"]),
        (vec!["charter", "new", "--name", "x", "--out", made], 2, vec!["--member"]),
        (vec!["authority", "init", "--member", "XX", "--name", "x", "--dir", made], 2, vec!["XX"]),
        (vec!["authority", "init", "--member", "BR", "--name", "", "--dir", made], 2, vec!["name"]),
        (
            vec![
                "authority",
                "init",
                "--member",
                "BR",
                "--name",
                "x",
                "--officers",
                "2",
                "--threshold",
                "3",
                "--dir",
                made,
            ],
            2,
            vec!["threshold"],
        ),
        (
            vec!["authority", "init", "--member", "BR", "--name", "x", "--officers", "99", "--dir", made],
            2,
            vec!["16 officers"],
        ),
        (vec!["authority", "publish", "--dir", none, "--charter", none], 4, vec![none]),
        (vec!["--home", text(&home), "init", "--charter", none], 4, vec![none]),
        (vec!["--home", text(&home), "init", "--bulk-listen", "0.0.0.0:1"], 2, vec!["bulk.announce"]),
        (vec!["--home", text(&home), "init", "--mesh-listen", "here"], 2, vec!["`here` is not a mesh address"]),
        (vec!["--home", text(&home), "status"], 7, vec!["no daemon runs", "next: start it: allianced"]),
        (vec!["--home", text(&home), "ledger", "verify"], 4, vec!["there is no home"]),
        (vec!["--home", text(&home), "ledger", "list"], 4, vec!["ledger"]),
    ];
    for (words, code, says) in &table {
        let ran = bin.alliance(words).await;
        assert_eq!(ran.code, Some(*code), "{words:?}: {ran:?}");
        let ran = ran.says(says);
        assert!(!ran.err.contains("panicked") && ran.out.is_empty(), "{words:?}: {ran:?}");
        let ran = bin.alliance(["-o", "json"].iter().chain(words)).await.with(*code);
        assert!(ran.problem()["code"].is_string(), "{ran:?}");
    }
    assert_eq!(crate::harness::names(dir.path()), ["junk"], "nothing was made");
    assert_eq!(fs::read(Path::new(junk)).expect("read"), b"junk");
    // Papers that do not hold are not installed; the key that was drawn for them stays.
    let ran = bin.alliance(["--home", text(&home), "init", "--charter", junk]).await.with(6);
    ran.says(&["the charter does not hold"]);
    assert!(!home.join("charter.alliance").exists());
}
