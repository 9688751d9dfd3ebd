//! A real network between namespaces, where there can be one: this takes root and devices.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;
use crate::wan::link::{Distance, Line};

/// How long anything may take. It only ends a hang.
const HANG: Duration = Duration::from_secs(60);

/// A network, where this machine and user can have one.
fn wan(places: usize) -> Option<Wan> {
    let distance = Distance { delay: Duration::from_millis(20), loss_ppm: 0 };
    match Wan::up(Terrain::alike(places, Line::new(100_000_000, 1_000_000), distance, 1)) {
        Ok(wan) => Some(wan),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Answers one packet with its own words.
const ECHO: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], 0)); print(s.getsockname()[1], flush=True)
words, who = s.recvfrom(2048); s.sendto(words, who)";

/// Sends a packet, and prints what comes back and whether it took as long as both ways.
const ASK: &str = "import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); began = time.monotonic()
s.sendto(b'hello', (sys.argv[1], int(sys.argv[2]))); words = s.recv(2048)
print(words.decode(), time.monotonic() - began >= 0.04)";

#[tokio::test]
async fn packets_go_between_namespaces_and_take_their_time() {
    let Some(wan) = wan(3) else { return };
    if !Path::new("/usr/bin/python3").exists() {
        return eprintln!("skipped: there is no python3");
    }
    let python = |place, script: &str| {
        let mut command = wan.command(place, "python3").expect("a place");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    };
    let mut echo = python(2, ECHO).arg(Wan::address(2).to_string()).spawn().expect("started");
    let mut port = String::new();
    let mut lines = BufReader::new(echo.stdout.take().expect("piped"));
    tokio::time::timeout(HANG, lines.read_line(&mut port)).await.expect("in time").expect("a port");
    let ask = python(0, ASK).arg(Wan::address(2).to_string()).arg(port.trim()).output();
    let said = tokio::time::timeout(HANG, ask).await.expect("in time").expect("ran").stdout;
    assert_eq!(String::from_utf8_lossy(&said), "hello True\n");
    // The process is the program itself.
    let stays = wan.command(0, "cat").expect("a place").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut stays = stays.expect("started");
    stays.stdin.as_mut().expect("piped").write_all(b"x\n").await.expect("written");
    let mut line = String::new();
    BufReader::new(stays.stdout.as_mut().expect("piped")).read_line(&mut line).await.expect("read");
    let named = std::fs::read_to_string(format!("/proc/{}/comm", stays.id().expect("it runs"))).expect("a process");
    assert_eq!(named, "cat\n");
    drop(stays.stdin.take());
    stays.wait().await.expect("ended");

    let carried = wan.renew().await.expect("carried");
    assert_eq!(carried.tallies.iter().map(|tally| tally.delivered.packets).collect::<Vec<_>>(), [1, 0, 1]);
    assert_eq!(wan.renew().await.expect("carried").tallies[0], link::Tally::default());
    let names = wan.namespaces.clone();
    drop(wan);
    for name in names {
        assert!(!Path::new("/run/netns").join(name).exists());
    }
}
