//! What a daemon needs of memory: little when idle, and no more for a large artefact than for a small one.

use std::fs;

use crate::harness::{Stage, text, write_noise};

const MIB: u64 = 1024 * 1024;

/// Resident memory of an idle daemon.
const IDLE_MAX: u64 = 80 * MIB;

/// The most that a daemon has had while artefacts crossed, built without optimisation.
const PEAK_MAX: u64 = 150 * MIB;

/// What eight times as large an artefact may cost more. Its manifest is larger, and buffers fill further.
const GROWTH_MAX: u64 = 40 * MIB;

/// A figure from the kernel about a process, in bytes.
pub(crate) fn figure(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {status}"));
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn peaks(stage: &Stage) -> [u64; 2] {
    ["BR", "CN"].map(|country| figure(stage.node(country).pid().expect("running"), "VmHWM"))
}

async fn cross(stage: &Stage, bytes: u64) {
    let word = format!("noise-{bytes}");
    let (name, dir) = (format!("ipe-lab/{word}"), stage.path(&word));
    write_noise(&dir, bytes);
    stage.cli("BR", &["model", "import", text(&dir), "--name", &name, "--labels", "public,non_personal"]).await.good();
    stage.cli("BR", &["offer", "publish", &name]).await.good();
    stage.known("CN", &name).await;
    let to = stage.path(&format!("pulled-{bytes}"));
    let view = stage.cli_json("CN", &["pull", &name, "--to", text(&to)]).await.good().json();
    assert!(view["bytes"].as_u64().is_some_and(|moved| moved > bytes), "{view}");
    fs::remove_dir_all(&to).expect("removed");
}

#[tokio::test]
async fn memory_does_not_grow_with_the_artefact() {
    let stage = Stage::up(&["BR", "CN"]).await;
    for node in stage.network.nodes_all() {
        let idle = figure(node.pid().expect("running"), "VmRSS");
        println!("idle, {}: {} MiB", node.organisation(), idle / MIB);
        assert!(idle > MIB && idle < IDLE_MAX, "{} bytes in {}", idle, node.organisation());
    }
    cross(&stage, 64 * MIB).await;
    let small = peaks(&stage);
    cross(&stage, 512 * MIB).await;
    let large = peaks(&stage);
    for ((small, large), side) in small.into_iter().zip(large).zip(["exporter", "importer"]) {
        println!("{side}: {} MiB at most with 64 MiB, {} MiB with 512 MiB", small / MIB, large / MIB);
        assert!(large < PEAK_MAX, "{side}: {large} bytes");
        assert!(large - small < GROWTH_MAX, "{side}: from {small} to {large} bytes");
    }
    stage.stop().await;
}
