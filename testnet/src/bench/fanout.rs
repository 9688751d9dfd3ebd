//! `bench fanout`: one exporter, several importers that pull the same at once, and how much longer that takes than one pull.
//! They give to each other what they have, each crossing cleared by itself.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{BenchError, MIB, Output, Round, as_f64, directory, io_error, median, ours, ours::Sources, punctuality, warm};
use crate::{
    network::Network,
    wan::{
        Carried, Wan,
        link::{Distance, Line, Terrain},
    },
};

/// How `bench fanout` is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// How much each importer pulls, in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub mib: u64,
    /// How often it is done; medians are printed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// The rate of every node's line, in Mbit/s, each way
    #[arg(long, default_value_t = 400, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub mbit: u64,
    /// How many pull at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10))]
    pub peers: u64,
    /// The round trip between any two, in milliseconds
    #[arg(long, default_value_t = 10, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=2000))]
    pub rtt_ms: u64,
    /// Let each importer pull from the exporter alone
    #[arg(long)]
    pub alone: bool,
    /// Where the files lie [default: /dev/shm, else the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How to print: text for people, or one JSON object
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// What is printed. Medians.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    mib: u64,
    mbit: u64,
    peers: u64,
    rtt_ms: u64,
    /// One pull, with nothing else under way.
    single_seconds: f64,
    /// From the order to the end of the last of all pulls at once.
    last_seconds: f64,
    /// The one by the other; 1 would be as fast for all as for one.
    last_by_single: f64,
    /// Bytes of packets that the exporter sent while all pulled, for each byte of the model.
    sent_by_exporter_per_byte: f64,
    exporter_cpu_seconds: f64,
    /// How punctual the network was.
    punctuality: String,
}

/// The pulls that were ordered at once, and what the network saw of them.
struct Pulls {
    rounds: Vec<Round>,
    carried: Carried,
}

/// Milliseconds that a line takes to send what its queue holds, as in many routers; and the least that it holds, in bytes.
const QUEUE_MS: u64 = 100;
const QUEUE_BYTES_MIN: u64 = 256 * 1024;

/// How long pulls may take. It only ends a hang.
const PULLS_MAX: Duration = Duration::from_secs(3600);

/// Runs `bench fanout`.
///
/// # Errors
/// This is not root, a pull does not end well, or the disk is full.
pub async fn run(settings: &Settings) -> Result<(), BenchError> {
    let peers = usize::try_from(settings.peers).unwrap_or(usize::MAX);
    let rate = settings.mbit * 1_000_000;
    let line = Line::new(rate, (rate / 8 * QUEUE_MS / 1000).max(QUEUE_BYTES_MIN));
    let distance = Distance { delay: Duration::from_micros(settings.rtt_ms * 500), loss_ppm: 0 };
    let places = Network::countries(&ours::members(peers)).len();
    let wan = Arc::new(Wan::up(Terrain::alike(places, line, distance, 0))?);
    let dir = directory(settings.dir.as_deref())?;
    let bytes = settings.mib * MIB;

    let (mut single, mut all) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        eprintln!("round {} of {}", round + 1, settings.rounds);
        for (importers, pulls) in [(1, &mut single), (peers, &mut all)] {
            // New daemons each time: what one pull leaves behind would help the next.
            let home = dir.path().join(format!("round-{round}-{importers}"));
            let daemons = ours::Daemons::up(&home, &home, peers, Some(Arc::clone(&wan))).await?;
            let offered = daemons.offer("large", &[(bytes / 8, 8)]).await?;
            warm(dir.path(), bytes.saturating_mul(settings.peers))?;
            wan.renew().await?;
            let sources = if settings.alone { Sources::ExporterAlone } else { Sources::Together };
            let rounds = daemons.pulls(&offered, importers, PULLS_MAX, sources).await?;
            pulls.push(Pulls { rounds, carried: wan.renew().await? });
            daemons.down().await;
            std::fs::remove_dir_all(&home).map_err(io_error(format!("remove `{}`", home.display())))?;
        }
    }
    print(settings.output, &summary(settings, &single, &all)).map_err(io_error("write the results".to_owned()))
}

fn summary(settings: &Settings, single: &[Pulls], all: &[Pulls]) -> Summary {
    let most = |pulls: &Pulls, of: fn(&Round) -> f64| pulls.rounds.iter().map(of).fold(0.0, f64::max);
    let last = |pulls: &[Pulls]| median(pulls.iter().map(|pulls| most(pulls, |round| round.seconds)));
    let sent = |pulls: &Pulls| pulls.carried.tallies.first().map_or(0, |exporter| exporter.offered.bytes);
    let (single_seconds, last_seconds) = (last(single), last(all));
    Summary {
        mib: settings.mib,
        mbit: settings.mbit,
        peers: settings.peers,
        rtt_ms: settings.rtt_ms,
        single_seconds,
        last_seconds,
        last_by_single: last_seconds / single_seconds,
        sent_by_exporter_per_byte: median(all.iter().map(|pulls| as_f64(sent(pulls)) / as_f64(settings.mib * MIB))),
        // The last to end has seen all that the exporter used.
        exporter_cpu_seconds: median(all.iter().map(|pulls| most(pulls, |round| round.sender.cpu_seconds))),
        punctuality: punctuality(single.iter().chain(all).map(|pulls| &pulls.carried)),
    }
}

fn print(output: Output, summary: &Summary) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if output == Output::Json {
        return writeln!(out, "{}", serde_json::to_string(summary).map_err(io::Error::from)?);
    }
    let Summary { mib, mbit, peers, rtt_ms, single_seconds, last_seconds, last_by_single, .. } = summary;
    writeln!(out, "fanout: {mib} MiB from one node to {peers}, every line {mbit} Mbit/s, {rtt_ms} ms; medians\n")?;
    writeln!(out, "{:<46}{single_seconds:>8.2} s", "one pull")?;
    writeln!(out, "{:<46}{last_seconds:>8.2} s", format!("{peers} pulls at once, the last of them"))?;
    writeln!(out, "{:<46}{last_by_single:>8.2}", "the last ÷ one")?;
    writeln!(out, "{:<46}{:>8.2}", "sent by the exporter ÷ the model", summary.sent_by_exporter_per_byte)?;
    writeln!(out, "{:<46}{:>8.2} s", "CPU of the exporter", summary.exporter_cpu_seconds)?;
    writeln!(out, "\n{}", summary.punctuality)
}
