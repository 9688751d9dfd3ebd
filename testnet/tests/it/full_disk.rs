//! A disk that is full: the one that a pull writes to, and the one that the home of a node lies on. Both are small file
//! systems in memory, which only root can mount; where that is not permitted, the tests say so and do nothing.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command as Plain,
};

use alliance_testnet::network::NetworkError;

use crate::harness::{HANG, Stage, copy, digests, names, text};

/// A small file system; unmounted when it goes.
struct Mounted(PathBuf);

impl Mounted {
    /// None where mounting is not permitted.
    fn new(at: &Path, mebibytes: u32) -> Option<Self> {
        let options = format!("size={mebibytes}m,mode=700");
        let done = Plain::new("mount").args(["-t", "tmpfs", "-o", &options, "alliance-test"]).arg(at).output();
        match done {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            refused => {
                println!("skipped: a file system cannot be mounted here: {refused:?}");
                None
            }
        }
    }

    fn enlarge(&self, mebibytes: u32) {
        let size = format!("remount,size={mebibytes}m");
        let done = Plain::new("mount").args(["-o", &size]).arg(&self.0).status().expect("started");
        assert!(done.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a process that still runs when a test fails must not keep it.
        let _ = Plain::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_pull_to_a_full_disk_is_taken_up_when_there_is_room() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let place = stage.path("small");
    fs::create_dir(&place).expect("made");
    let Some(mounted) = Mounted::new(&place, 8) else { return stage.stop().await };
    let (name, original) = stage.offer("BR", "CN", 24 * 1024 * 1024, &[]).await;
    let to = place.join("model");
    for words in [["pull", &name, "--to", text(&to)], ["pull", &name, "--to", text(&to)]] {
        let ran = stage.cli("CN", &words).await.with(9);
        ran.says(&["error: ", &name, text(&place), "free some space", "next: make room, and pull again"]);
        let seen: Vec<_> = names(&place).into_iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(seen, Vec::<String>::new(), "nothing that looks like the model");
    }
    assert_eq!(stage.cli("CN", &["model", "list"]).await.good().out, "none\n");
    mounted.enlarge(64);
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.good();
    assert_eq!(digests(&to), digests(&original));
    assert_eq!(names(&place), ["model"]);
    stage.verify_ledgers().await;
    // Before the directories go, which could not be removed with something mounted in them.
    drop(mounted);
    stage.stop().await;
}

/// Fills what is left of a file system to the last byte.
fn fill(file: &Path) {
    let mut filler = fs::File::create(file).expect("made");
    for size in [1 << 20, 1 << 12, 1] {
        let block = vec![1; size];
        while filler.write_all(&block).is_ok() {}
    }
}

#[tokio::test]
async fn a_node_that_cannot_record_stops_and_goes_on_when_there_is_room() {
    let mut stage = Stage::found(&["BR", "CN"]);
    let (home, aside) = (stage.home("CN"), stage.path("aside"));
    copy(&home, &aside);
    let Some(mounted) = Mounted::new(&home, 64) else { return stage.stop().await };
    for name in names(&aside) {
        let (from, to) = (aside.join(&name), home.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copied");
        }
    }
    stage.network.start().await.expect("started");
    let before = stage.cli_json("CN", &["ledger", "verify"]).await.good().json();

    let filler = home.join("filler");
    fill(&filler);
    let publish = [
        "offer",
        "publish",
        "yunhai-lab/gpu",
        "--compute",
        "--accelerator",
        "cpu",
        "--count",
        "1",
        "--memory-mib",
        "1",
        "--hours",
        "1",
    ];
    let ran = stage.cli("CN", &publish).await;
    // It depends on the moment whether the answer still comes.
    let told = ran.code == Some(1) && ran.err.contains("the daemon is stopping");
    assert!(told || ran.code == Some(7), "{ran:?}");
    match stage.network.watch().await {
        // Its log lies on the full disk too, so that nothing can be said there.
        Err(NetworkError::Ended { node, status, .. }) => {
            assert_eq!((node.as_str(), status.as_str()), ("yunhai-lab", "exit status: 9"));
        }
        other => panic!("{other:?}"),
    }
    // Nor does it start while the disk is full, and it says why.
    let ran = stage.bin.allianced(&home).await.with(9);
    let ran = ran.says(&["allianced: ", "No space left", "next: free or repair the disk, and start again"]);
    assert!(!ran.err.contains("panicked") && !ran.err.contains("unreadable"), "{ran:?}");
    assert!(!home.join("catalogue.damaged").exists(), "what cannot be read now is not given up");
    let full = stage.cli_json("CN", &["ledger", "verify"]).await.good().json();
    assert_eq!((&full["entries"], &full["root"]), (&before["entries"], &before["root"]), "what was recorded is whole");
    assert_eq!(stage.cli("BR", &["offer", "list"]).await.good().out, "none\n", "what is not recorded is not published");

    fs::remove_file(&filler).expect("removed");
    stage.node_mut("CN").launch().expect("started");
    stage.node("CN").until_up().await.expect("up");
    let offer = stage.cli_json("CN", &publish).await.good().json()["offer"].clone();
    stage.known("BR", "yunhai-lab/gpu").await;

    // Once more, with a log that lies elsewhere.
    stage.node_mut("CN").kill().await.expect("killed");
    let log = stage.path("log");
    let mut daemon = stage.bin.command("allianced");
    let daemon = daemon.arg("--home").arg(&home).stderr(fs::File::create(&log).expect("made"));
    let mut daemon = daemon.spawn().expect("started");
    stage.node("CN").until_up().await.expect("up");
    fill(&filler);
    let withdraw = ["offer", "withdraw", offer.as_str().expect("an id")];
    assert_ne!(stage.cli("CN", &withdraw).await.code, Some(0));
    let status = tokio::time::timeout(HANG, daemon.wait()).await.expect("it ends").expect("waited");
    let said = fs::read_to_string(&log).expect("read");
    assert_eq!(status.code(), Some(9), "{said}");
    for part in
        ["the ledger cannot be written, so nothing may be released", "No space left", "next: free or repair the disk"]
    {
        assert!(said.contains(part), "`{part}` is missing: {said}");
    }
    fs::remove_file(&filler).expect("removed");
    stage.node_mut("CN").launch().expect("started");
    stage.node("CN").until_up().await.expect("up");
    assert_eq!(stage.cli_json("CN", &["offer", "list"]).await.good().lines().len(), 1, "it was not withdrawn");
    stage.cli("CN", &withdraw).await.good();
    let after = stage.cli_json("CN", &["ledger", "verify"]).await.good().json();
    assert!(after["entries"].as_u64() > before["entries"].as_u64(), "{after}");
    stage.node_mut("CN").kill().await.expect("killed");
    drop(mounted);
    stage.stop().await;
}
