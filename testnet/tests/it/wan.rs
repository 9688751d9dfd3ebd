//! `alliance-testnet up --wan`: daemons in network namespaces find each other, and nothing of it stays behind.

use std::{fs, process::Stdio};

use alliance_testnet::wan::{
    Wan,
    link::{Distance, Line, Terrain},
};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::{HANG, program};

/// Milliseconds between Brasilia and Beijing and back.
const ROUND_TRIP_MS: u64 = 2 * 127;

/// Whether this machine and user can have namespaces and devices.
fn possible() -> bool {
    match Wan::up(Terrain::alike(2, Line::new(1_000_000, 100_000), Distance::NONE, 1)) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

#[tokio::test]
async fn the_tour_between_capitals_goes_as_on_loopback_and_takes_longer() {
    if !possible() {
        return;
    }
    let mut command = Command::new(program());
    command.args(["up", "--wan", "--members", "BR,CN", "--exit", "-o", "json"]).kill_on_drop(true);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let ours = format!("alliance-wan-{}-", child.id().expect("it runs"));
    let output = tokio::time::timeout(HANG, child.wait_with_output()).await.expect("it ends").expect("waited");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("one way from BR to: CN 127 ms"), "{said}");
    let reports = String::from_utf8(output.stdout).expect("UTF-8");
    let reports: Vec<Value> = reports.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let moved: Vec<_> = reports.iter().filter(|report| report["bytes"] != 0).collect();
    assert!(!moved.is_empty(), "{reports:?}");
    // A handshake, then a request and what it brings.
    assert!(moved.iter().all(|report| report["ms"].as_u64() >= Some(2 * ROUND_TRIP_MS)), "{moved:?}");
    let names = fs::read_dir("/run/netns").into_iter().flatten().filter_map(Result::ok);
    let left: Vec<_> = names.map(|name| name.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(&ours)), "{left:?}");
}
