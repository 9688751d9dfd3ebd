//! `bench wan`: one path, long and lossy, and what each contender makes of it.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{
    BenchError, MIB, Output, Round, as_f64, directory, io_error, median, ours,
    process::{Contender, End},
    punctuality,
};
use crate::{
    network::Network,
    wan::{
        Carried, Wan,
        link::{Distance, Line, Terrain},
    },
};

/// How `bench wan` is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// How much is moved, in MiB, if there is time for it
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub mib: u64,
    /// How often each contender runs; medians are printed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// The round trip, in milliseconds, half of it each way
    #[arg(long, default_value_t = 150, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=2000))]
    pub rtt_ms: u64,
    /// Packets lost of a million, each way
    #[arg(long, default_value_t = 5000, value_name = "PPM", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub loss_ppm: u32,
    /// The rate of every node's line, in Mbit/s, each way; the queue before it holds what comes in a round trip
    #[arg(long, default_value_t = 500, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub mbit: u64,
    /// Which packets are lost: with the same number the same ones
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Seconds after which a contender is stopped; what has come by then counts
    #[arg(long, default_value_t = 20, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub within: u64,
    /// Where the files lie [default: /dev/shm, else the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How to print: text for people, or one JSON object for each contender
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// One run of one contender, and what the network saw of it.
#[derive(Clone, Debug, Serialize)]
struct Trip {
    round: Round,
    carried: Carried,
}

struct Runs {
    contender: String,
    trips: Vec<Trip>,
}

/// What is printed of a contender. Medians.
#[derive(Clone, Debug, Serialize)]
struct Row<'a> {
    contender: &'a str,
    mbit_per_second: f64,
    share_of_link: f64,
    /// How many times faster ours is.
    ours_is_faster: f64,
    sender_cpu_seconds_per_gb: f64,
    receiver_cpu_seconds_per_gb: f64,
    /// Bytes of packets that the sender sent, for each byte that came.
    sent_per_byte: f64,
    /// Whether it was stopped before all had come, in any round.
    stopped: bool,
    rounds: &'a [Trip],
}

/// The least that a queue holds, in bytes: what ends send at once.
pub(super) const QUEUE_BYTES_MIN: u64 = 256 * 1024;

const OURS: &str = "ours, cleared and verified, file to file";

/// Where the kernel says what congestion controls it has.
const CONGESTION_CONTROLS: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Runs `bench wan`.
///
/// # Errors
/// This is not root, a contender does not run, or the disk is full.
pub async fn run(settings: &Settings) -> Result<(), BenchError> {
    let rate = settings.mbit * 1_000_000;
    let line = Line::new(rate, (rate / 8 * settings.rtt_ms / 1000).max(QUEUE_BYTES_MIN));
    let distance = Distance { delay: Duration::from_micros(settings.rtt_ms * 500), loss_ppm: settings.loss_ppm };
    let places = Network::countries(&ours::members(1)).len();
    let wan = Arc::new(Wan::up(Terrain::alike(places, line, distance, settings.seed))?);
    let dir = directory(settings.dir.as_deref())?;
    let (bytes, within) = (settings.mib * MIB, Duration::from_secs(settings.within));

    let others = others(&wan, within)?;
    let mut runs = vec![Runs { contender: OURS.to_owned(), trips: Vec::new() }];
    runs.extend(others.iter().map(|other| Runs { contender: other.name.clone(), trips: Vec::new() }));
    for round in 0..settings.rounds {
        eprintln!("round {} of {}", round + 1, settings.rounds);
        let [first, rest @ ..] = runs.as_mut_slice() else { break };
        first.trips.push(pull(&wan, &dir.path().join(format!("round-{round}")), bytes, within).await?);
        for (runs, other) in rest.iter_mut().zip(&others) {
            wan.renew().await?;
            let round = other.run(Path::new(""), Path::new(""), bytes).await?;
            runs.trips.push(Trip { round, carried: wan.renew().await? });
        }
    }
    print(settings, &runs).map_err(io_error("write the results".to_owned()))
}

fn others(wan: &Arc<Wan>, within: Duration) -> Result<Vec<Contender>, BenchError> {
    let known = std::fs::read_to_string(CONGESTION_CONTROLS);
    let known = known.map_err(io_error(format!("read `{CONGESTION_CONTROLS}`")))?;
    let mut others = vec![("stock quinn, as shipped, memory to memory", End::Quinn { ours: false })];
    for (name, control) in [("TCP with BBR, memory to memory", "bbr"), ("TCP with CUBIC, memory to memory", "cubic")] {
        if known.split_whitespace().any(|known| known == control) {
            others.push((name, End::Tcp(control)));
        } else {
            eprintln!("left out: {name}: this kernel does not have it; try `modprobe tcp_{control}`");
        }
    }
    Ok(others.into_iter().map(|(name, end)| Contender::new(name, end).over(wan, within)).collect())
}

/// A pull between daemons that have never met: none knows the path from before, and none is on it while others run.
async fn pull(wan: &Arc<Wan>, dir: &Path, bytes: u64, within: Duration) -> Result<Trip, BenchError> {
    let daemons = ours::Daemons::up(dir, dir, 1, Some(Arc::clone(wan))).await?;
    let offered = daemons.offer("large", &[(bytes / 8, 8)]).await?;
    wan.renew().await?;
    let rounds = daemons.pulls(&offered, 1, within, ours::Sources::ExporterAlone).await?;
    let carried = wan.renew().await?;
    daemons.down().await;
    std::fs::remove_dir_all(dir).map_err(io_error(format!("remove `{}`", dir.display())))?;
    let missing = || BenchError::Contender { contender: OURS.to_owned(), problem: "there was no pull".to_owned() };
    Ok(Trip { round: rounds.into_iter().next().ok_or_else(missing)?, carried })
}

fn print(settings: &Settings, runs: &[Runs]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Settings { mib, rounds, rtt_ms, loss_ppm, mbit, within, .. } = settings;
    let ours = runs.first().map_or(f64::NAN, |ours| rate(&ours.trips));
    let rows: Vec<_> = runs.iter().map(|runs| row(settings, runs, ours)).collect();
    if settings.output == Output::Json {
        for row in &rows {
            writeln!(out, "{}", serde_json::to_string(row).map_err(io::Error::from)?)?;
        }
        return out.flush();
    }
    writeln!(out, "wan: {mbit} Mbit/s, {rtt_ms} ms, {loss_ppm} of a million packets lost each way")?;
    writeln!(out, "{mib} MiB, {within} s at the most, {rounds} rounds, both ends on this machine; medians\n")?;
    let [cpu, sent] = ["CPU s/GB (from, to)", "sent ÷ moved"];
    writeln!(out, "{:<44}{:>8}{:>9}{:>12}{cpu:>21}{sent:>14}", "", "Mbit/s", "of link", "ours ÷ it")?;
    for row in &rows {
        writeln!(
            out,
            "{:<44}{:>8.1}{:>9}{:>12}{:>21}{:>14.3}{}",
            row.contender,
            row.mbit_per_second,
            format!("{:.1} %", row.share_of_link * 100.0),
            // The slowest are slower by three orders of magnitude.
            format!("{:.*}", if row.ours_is_faster < 1.0 { 4 } else { 2 }, row.ours_is_faster),
            format!("{:.2}, {:.2}", row.sender_cpu_seconds_per_gb, row.receiver_cpu_seconds_per_gb),
            row.sent_per_byte,
            if row.stopped { " *" } else { "" },
        )?;
    }
    writeln!(out)?;
    if rows.iter().any(|row| row.stopped) {
        writeln!(out, "* stopped after {within} s, before all had come")?;
    }
    let trips = runs.iter().flat_map(|runs| &runs.trips);
    writeln!(out, "{}", punctuality(trips.map(|trip| &trip.carried)))?;
    out.flush()
}

fn row<'a>(settings: &Settings, runs: &'a Runs, ours: f64) -> Row<'a> {
    let trips = &runs.trips;
    let per_gb = |of: fn(&Round) -> f64| median(trips.iter().map(|trip| of(&trip.round) * 1e9 / as_f64(trip.round.bytes)));
    let sent = |trip: &Trip| trip.carried.tallies.first().map_or(0, |sender| sender.offered.bytes);
    let mbit_per_second = rate(trips);
    Row {
        contender: &runs.contender,
        mbit_per_second,
        share_of_link: mbit_per_second / as_f64(settings.mbit),
        ours_is_faster: ours / mbit_per_second,
        sender_cpu_seconds_per_gb: per_gb(|round| round.sender.cpu_seconds),
        receiver_cpu_seconds_per_gb: per_gb(|round| round.receiver.cpu_seconds),
        sent_per_byte: median(trips.iter().map(|trip| as_f64(sent(trip)) / as_f64(trip.round.bytes))),
        stopped: trips.iter().any(|trip| trip.round.bytes < settings.mib * MIB),
        rounds: trips,
    }
}

/// Mbit in a second, the median.
fn rate(trips: &[Trip]) -> f64 {
    median(trips.iter().map(|trip| as_f64(trip.round.bytes) * 8.0 / 1e6 / trip.round.seconds))
}
