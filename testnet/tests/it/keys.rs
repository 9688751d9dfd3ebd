//! Keys that a passphrase protects, as people use them: the daemon, the officers, and another tool.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tokio::process::Command;

use crate::harness::{Ran, Stage, ended, text};

const GOOD: &str = "correct horse battery staple";

fn passphrase(stage: &Stage, name: &str, words: &str) -> std::path::PathBuf {
    let path = stage.path(name);
    fs::write(&path, format!("{words}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    path
}

/// Runs a command with a file that holds a passphrase in the environment, and without a terminal.
async fn with(stage: &Stage, file: &Path, words: &[&str]) -> Ran {
    let mut command = stage.bin.command("alliance");
    ended(command.env("ALLIANCE_PASSPHRASE_FILE", file).args(words)).await
}

/// No file of a directory, and nothing that was said, has one of these in it.
fn nowhere(secrets: &[&str], ran: &[&Ran]) {
    for secret in secrets {
        assert!(ran.iter().all(|ran| !ran.out.contains(secret) && !ran.err.contains(secret)));
    }
}

#[tokio::test]
async fn a_node_whose_key_is_protected_runs_with_its_passphrase_and_not_without() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let (good, bad) = (passphrase(&stage, "good", GOOD), passphrase(&stage, "bad", "another passphrase"));
    let open = stage.path("open");
    fs::write(&open, GOOD).expect("written");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("set");
    let home = stage.home("BR");
    let key = home.join("node.key");
    let plain = fs::read_to_string(&key).expect("read");
    let seed = plain.split_whitespace().nth(1).expect("a seed").to_owned();
    stage.node_mut("BR").stop().await;

    let show = ["--home", text(&home), "-o", "json", "key", "show"];
    let before = stage.bin.alliance(show).await.good().json();
    assert_eq!(before["protected"], false, "{before}");
    let short = passphrase(&stage, "short", "short");
    let protect = |file: &Path| ["key", "protect", text(&key), "--new-passphrase-file", text(file)].map(str::to_owned);
    stage.bin.alliance(protect(&short)).await.with(2).says(&["from 12 to 1023 bytes"]);
    stage.bin.alliance(protect(&open)).await.with(6).says(&["chmod 600"]);
    assert_eq!(fs::read_to_string(&key).expect("read"), plain, "nothing was changed");
    let protected = stage.bin.alliance(protect(&good)).await.good();
    let after = stage.bin.alliance(show).await.good().json();
    assert_eq!((&after["key"], &after["protected"]), (&before["key"], &true.into()));
    assert!(!fs::read_to_string(&key).expect("read").contains(&seed));
    assert_eq!(fs::metadata(&key).expect("there").permissions().mode() & 0o777, 0o600);

    // The daemon, without a terminal.
    let none = stage.bin.allianced(&home).await.with(2).says(&["needs a passphrase", "--passphrase-file"]);
    let daemon = |file: &Path| {
        let mut command = stage.bin.command("allianced");
        command.arg("--home").arg(&home).arg("--passphrase-file").arg(file);
        command
    };
    let wrong = ended(&mut daemon(&bad)).await.with(6).says(&["does not open the key"]);
    let mut running = daemon(&good).stderr(std::process::Stdio::piped()).spawn().expect("started");
    stage.node("BR").until_up().await.expect("up");
    // What needs no key needs no passphrase.
    stage.bin.alliance(["--home", text(&home), "ledger", "verify"]).await.good();
    let audit = stage.path("br.audit");
    let export = ["--home", text(&home), "audit", "export", "--out", text(&audit)];
    stage.bin.alliance(export).await.with(2).says(&["needs a passphrase"]);
    with(&stage, &good, &export).await.good();
    running.kill().await.expect("killed");
    let log = String::from_utf8(running.wait_with_output().await.expect("ended").stderr).expect("UTF-8");
    assert!(!log.contains(&seed) && !log.contains(GOOD) && log.contains("listening"), "{log}");
    nowhere(&[&seed, GOOD, "another passphrase"], &[&protected, &none, &wrong]);

    // Another tool opens it, and the passphrase comes off again.
    if Command::new("openssl").arg("version").output().await.is_ok_and(|it| it.status.success()) {
        let from = format!("file:{}", text(&good));
        let words = ["pkey", "-in", text(&key), "-passin", &from, "-text", "-noout"];
        let said = ended(Command::new("openssl").args(words)).await.good();
        assert!(said.out.replace([':', '\n', ' '], "").contains(&seed), "{said:?}");
    }
    with(&stage, &bad, &["key", "unprotect", text(&key)]).await.with(6);
    with(&stage, &good, &["key", "unprotect", text(&key)]).await.good();
    assert_eq!(fs::read_to_string(&key).expect("read"), plain);
    stage.stop().await;
}

#[tokio::test]
async fn officers_whose_keys_are_protected_sign_with_their_passphrases() {
    let stage = Stage::found(&["BR", "CN"]);
    let good = passphrase(&stage, "good", GOOD);
    let (br, india) = (stage.path("br"), stage.path("in"));
    let init = |dir, member: &'static str| {
        [
            "authority",
            "init",
            "--member",
            member,
            "--name",
            "A",
            "--officers",
            "2",
            "--threshold",
            "2",
            "--protect",
            "--dir",
            dir,
        ]
    };
    stage.bin.alliance(init(text(&br), "BR")).await.with(2).says(&["needs a passphrase"]);
    with(&stage, &good, &init(text(&br), "BR")).await.good();
    with(&stage, &good, &init(text(&india), "IN")).await.good();
    let charter = stage.path("charter");
    let members = [format!("BR={}/authority.json", text(&br)), format!("IN={}/authority.json", text(&india))];
    let new =
        ["charter", "new", "--name", "Two", "--member", &members[0], "--member", &members[1], "--out", text(&charter)];
    stage.bin.alliance(new).await.good();
    for dir in [&br, &india] {
        let sign = ["charter", "sign", text(&charter), "--dir", text(dir)];
        stage.bin.alliance(sign).await.with(2).says(&["needs a passphrase"]);
        with(&stage, &good, &sign).await.good();
    }
    // What signs nothing asks for nothing.
    let node = stage.node("BR").key().to_string();
    stage.bin.alliance(["authority", "revoke", "--dir", text(&br), "--node", &node]).await.good();
    let publish = ["authority", "publish", "--dir", text(&br), "--charter", text(&charter)];
    stage.bin.alliance(publish).await.with(2).says(&["officer-1.key", "needs a passphrase"]);
    with(&stage, &good, &publish).await.good();
    let home = stage.path("home");
    let made = with(&stage, &good, &["--home", text(&home), "init", "--protect"]).await.good();
    nowhere(&[GOOD], &[&made]);
    stage.bin.alliance(["--home", text(&home), "key", "show"]).await.good().shows(&["by a passphrase"]);
    // A second time there is nothing to ask for.
    stage.bin.alliance(["--home", text(&home), "init"]).await.good();
}
