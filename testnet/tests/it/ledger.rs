//! The record of a node is checked from its files: whole, it verifies; with any byte changed, it does not, and no daemon runs
//! on it.

use std::{fs, path::PathBuf};

use crate::harness::{SMALL, Stage, copy, digests, text};

/// Positions spread over a file, its ends among them, and never the same distance apart.
fn positions(length: usize, count: usize) -> Vec<usize> {
    let mut at: Vec<usize> = (0..count).map(|n| (n * length / count + n * n * 31) % length).collect();
    at.extend([0, length - 1]);
    at.sort_unstable();
    at.dedup();
    at
}

#[tokio::test]
async fn any_changed_byte_is_found_and_no_daemon_starts_on_it() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    stage.cli("CN", &["pull", &name, "--to", text(&stage.path("pulled"))]).await.good();
    stage.cli("CN", &["pull", &name, "--purpose", "military"]).await.with(3);
    for country in ["BR", "CN"] {
        let report = stage.cli_json(country, &["ledger", "verify"]).await.good().json();
        let entries = report["entries"].as_u64().expect("a number");
        assert!(entries >= 5, "{report}");
        assert!(report["origin"].as_str().is_some_and(|origin| origin.contains(&stage.node(country).key().to_string())));
        assert_eq!(stage.node(country).status().await.expect("a status").ledger_size, entries);
    }
    let home = stage.home("CN");
    let copies = tempfile::tempdir().expect("a directory");
    let copied = copies.path().join("home");
    stage.node_mut("CN").kill().await.expect("killed");
    copy(&home, &copied);
    let bin = &stage.bin;
    let verify = ["--home", text(&copied), "ledger", "verify"];
    bin.alliance(verify).await.good();

    let mut changed = 0;
    for (file, count) in [("entries", 30), ("checkpoint", 10)] {
        let path: PathBuf = copied.join("ledger").join(file);
        let bytes = fs::read(&path).expect("read");
        for at in positions(bytes.len(), count) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).expect("written");
            let ran = bin.alliance(verify).await;
            assert_eq!(ran.code, Some(8), "byte {at} of {file}: {ran:?}");
            assert!(ran.err.contains("restore the ledger from a backup"), "{ran:?}");
            changed += 1;
        }
        // The last one is still changed.
        let before = digests(&copied.join("ledger"));
        bin.allianced(&copied).await.with(8).says(&["allianced: ", "restore the ledger from a backup"]);
        assert_eq!(digests(&copied.join("ledger")), before, "a daemon changes nothing in what it refuses");
        fs::write(&path, &bytes).expect("written");
    }
    assert!(changed >= 40, "{changed}");

    for (file, code) in [("entries", 8), ("checkpoint", 8)] {
        let (path, aside) = (copied.join("ledger").join(file), copies.path().join("aside"));
        fs::rename(&path, &aside).expect("moved");
        bin.alliance(verify).await.with(code).says(&["is missing", "restore the ledger from a backup"]);
        bin.allianced(&copied).await.with(code).says(&["is missing"]);
        fs::rename(&aside, &path).expect("moved");
    }
    // Cut at the end of an entry and in the middle of one.
    let path = copied.join("ledger/entries");
    let bytes = fs::read(&path).expect("read");
    for length in [bytes.len() - 1, bytes.len() / 2, 0] {
        fs::write(&path, &bytes[..length]).expect("written");
        bin.alliance(verify).await.with(8).says(&["the ledger ends in entry"]);
        bin.allianced(&copied).await.with(8).says(&["the ledger ends in entry"]);
        assert_eq!(fs::read(&path).expect("read"), &bytes[..length]);
    }
    fs::write(&path, &bytes).expect("written");
    bin.alliance(verify).await.good();
    stage.stop().await;
}

#[tokio::test]
async fn the_torn_end_of_a_crash_is_no_part_of_the_ledger() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    stage.offer("BR", "CN", SMALL, &[]).await;
    stage.node_mut("BR").kill().await.expect("killed");
    let before = stage.cli_json("BR", &["ledger", "verify"]).await.good().json();
    let path = stage.home("BR").join("ledger/entries");
    let mut bytes = fs::read(&path).expect("read");
    bytes.extend_from_slice(&[0, 0, 1, 0, 42, 42, 42]);
    fs::write(&path, &bytes).expect("written");
    let torn = stage.cli_json("BR", &["ledger", "verify"]).await.good().json();
    assert_eq!((&torn["entries"], &torn["root"]), (&before["entries"], &before["root"]));
    assert_eq!(torn["uncommitted_bytes"], 7);

    stage.node_mut("BR").launch().expect("started");
    stage.node("BR").until_up().await.expect("up");
    let log = fs::read_to_string(stage.node("BR").log_path()).expect("read");
    assert!(log.contains("cut off the torn end"), "{log}");
    let after = stage.cli_json("BR", &["ledger", "verify"]).await.good().json();
    assert_eq!(after["uncommitted_bytes"], 0);
    assert!(after["entries"].as_u64() >= before["entries"].as_u64());
    stage.stop().await;
}
