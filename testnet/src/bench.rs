//! Benchmarks: contenders run in turn in one run, and what is printed are ratios. Figures depend on the machine.
//!
//! - `data`: what is moved
//! - `process`: what a process used, and the ends of a contender as processes of their own
//! - `ours`: daemons and pulls
//! - `stock_quinn`, `https`, `tcp`: the others
//! - `wan`, `fanout`: over a long path that loses packets, and to several at once
//! - `resume`: after the importer was killed
//! - `gateway`: through the gateway, beside nginx
//!
//! Nothing here is a test: no figure fails anything.

pub mod data;
pub mod fanout;
pub mod gateway;
pub mod https;
pub mod ours;
pub mod process;
pub mod resume;
pub mod stock_quinn;
pub mod tcp;
pub mod wan;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use tempfile::TempDir;

use self::process::{Contender, End, Spent, Usage};
use crate::{
    network::NetworkError,
    wan::{Carried, WanError},
};

/// How a benchmark is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Bulk {
    /// How much is moved in one pull, in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=65_536))]
    pub mib: u64,
    /// How often each contender runs; medians are printed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// Where the files lie [default: /dev/shm, else the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the nodes keep their ledgers: a disk, so that a record costs what it costs [default: the directory for temporary
    /// files]
    #[arg(long, value_name = "DIR")]
    pub homes: Option<PathBuf>,
    /// Leave out the others, to look at ours with a profiler
    #[arg(long)]
    pub ours_only: bool,
    /// How to print: text for people, or one JSON object for each contender
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// Why a benchmark did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Wan(#[from] WanError),
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("interrupted")]
    Interrupted,
    #[error("{contender}: {problem}")]
    Contender { contender: String, problem: String },
}

/// One run of one contender.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    pub bytes: u64,
    pub seconds: f64,
    pub sender: Usage,
    pub receiver: Usage,
}

/// The runs of one contender.
#[derive(Clone, Debug, Serialize)]
pub struct Runs {
    pub contender: String,
    pub rounds: Vec<Round>,
}

/// What is printed of a contender.
#[derive(Clone, Debug, Serialize)]
struct Row<'a> {
    contender: &'a str,
    bytes: u64,
    /// Medians.
    gb_per_second: f64,
    /// How many times faster ours is.
    ours_is_faster: f64,
    sender_cpu_seconds_per_gb: f64,
    receiver_cpu_seconds_per_gb: f64,
    sender_peak_mib: f64,
    receiver_peak_mib: f64,
    /// None for those that decide and record nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    deciding_and_recording: Option<Overhead>,
    rounds: &'a [Round],
}

/// What decisions and records were of one pull.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Overhead {
    /// The time of both ends together, of the time that the pull took.
    share: f64,
    sender: Spent,
    receiver: Spent,
    pull_seconds: f64,
}

const MIB: u64 = 1024 * 1024;

/// Small tensors: as many, and as large, as adapters and mixtures of experts have.
const SMALL_TENSORS: u64 = 10_000;
const SMALL_TENSOR_BYTES: u64 = 16 * 1024;

/// Runs `bench bulk`.
///
/// # Errors
/// A contender does not run, or the disk is full.
pub async fn bulk(bulk: &Bulk) -> Result<(), BenchError> {
    let dir = directory(bulk.dir.as_deref())?;
    let homes = directory(Some(bulk.homes.as_deref().unwrap_or(&std::env::temp_dir())))?;
    let bytes = bulk.mib * MIB;
    let flat = dir.path().join("flat.bin");
    data::write_noise(&flat, bytes).map_err(io_error(format!("write `{}`", flat.display())))?;

    let ours = ours::Daemons::up(&dir.path().join("network"), homes.path(), 1, None).await?;
    let large = ours.offer("large", &[(bytes / 8, 8)]).await?;
    let many = ours.offer("many", &[(SMALL_TENSOR_BYTES, SMALL_TENSORS)]).await?;
    let one = ours.offer("one", &[(SMALL_TENSOR_BYTES * SMALL_TENSORS, 1)]).await?;
    let mut others = vec![
        Contender::new("stock quinn, as shipped, memory to memory", End::Quinn { ours: false }),
        Contender::new("stock quinn, our settings, memory to memory", End::Quinn { ours: true }),
        Contender::new("HTTPS over TCP, file to file, then BLAKE3", End::Https),
    ];
    if bulk.ours_only {
        others.clear();
    }

    let named = |name: &str| Runs { contender: name.to_owned(), rounds: Vec::new() };
    let mut runs = vec![named("ours, cleared and verified, file to file")];
    runs.extend(others.iter().map(|other| named(&other.name)));
    let mut small = vec![named("ours, 10,000 tensors of 16 KiB"), named("ours, one tensor of the same size")];
    // One that nobody measures: what is read first is read from a cold cache.
    ours.pull(&large).await?;
    for round in 0..bulk.rounds {
        eprintln!("round {} of {}", round + 1, bulk.rounds);
        let [first, rest @ ..] = runs.as_mut_slice() else { break };
        warm(dir.path(), bytes)?;
        first.rounds.push(ours.pull(&large).await?);
        for (runs, other) in rest.iter_mut().zip(&others) {
            warm(dir.path(), bytes)?;
            runs.rounds.push(other.run(&flat, &dir.path().join("taken.bin"), bytes).await?);
        }
        for (runs, offer) in small.iter_mut().zip([&many, &one]) {
            warm(dir.path(), SMALL_TENSOR_BYTES * SMALL_TENSORS)?;
            runs.rounds.push(ours.pull(offer).await?);
        }
    }
    ours.down().await;
    let [files, ledgers] = [&dir, &homes].map(|made| made.path().parent().unwrap_or(made.path()).display());
    let about = format!(
        "bulk: {} MiB, {} rounds, files in {files}, ledgers in {ledgers}, both ends on this machine; medians",
        bulk.mib, bulk.rounds,
    );
    print(bulk.output, &about, &[&runs, &small]).map_err(io_error("write the results".to_owned()))
}

/// A directory for the files of a run, removed at its end.
fn directory(dir: Option<&Path>) -> Result<TempDir, BenchError> {
    let place = place(dir)?;
    let made = tempfile::Builder::new().prefix("alliance-bench-").tempdir_in(&place);
    made.map_err(io_error(format!("make a directory in `{}`", place.display())))
}

/// Touches as much memory as a run writes to files, and a quarter more. On a virtual machine a page that was not used of late may
/// cost several times what one does that was, perhaps because free memory goes back to the host: who writes files would pay for
/// that, and who keeps everything in memory would not. It makes this less, and not nothing.
fn warm(dir: &Path, bytes: u64) -> Result<(), BenchError> {
    let path = dir.join("warm");
    let bytes = bytes.saturating_add(bytes / 4);
    let written = std::fs::File::create(&path).and_then(|mut file| {
        let chunk = vec![0; 1024 * 1024];
        (0..bytes / MIB).try_for_each(|_| file.write_all(&chunk))
    });
    // A disk that is too small for this is not for what follows; that says so itself.
    let removed = std::fs::remove_file(&path);
    written.and(removed).map_err(io_error(format!("write {} MiB under `{}`", bytes / MIB, dir.display())))
}

/// Memory, where the machine has a file system there: the disk is not what is measured.
fn place(dir: Option<&Path>) -> Result<PathBuf, BenchError> {
    let memory = Path::new("/dev/shm");
    let place = match dir {
        Some(dir) => dir.to_owned(),
        None if memory.is_dir() => memory.to_owned(),
        None => std::env::temp_dir(),
    };
    place.canonicalize().map_err(io_error(format!("use `{}`", place.display())))
}

/// Prints groups of contenders; in each, the first is what the others are compared with.
fn print(output: Output, about: &str, groups: &[&[Runs]]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if output == Output::Text {
        writeln!(out, "{about}\n")?;
        writeln!(out, "{:<46}{:>8}{:>12}{:>20}{:>16}", "", "GB/s", "ours ÷ it", "CPU s/GB (from, to)", "peak MiB")?;
    }
    for group in groups {
        let ours = group.first().map_or(0.0, |first| rate(&first.rounds));
        for runs in *group {
            let row = row(runs, ours);
            match output {
                Output::Json => writeln!(out, "{}", serde_json::to_string(&row).map_err(io::Error::from)?)?,
                Output::Text => writeln!(
                    out,
                    "{:<46}{:>8.3}{:>12.2}{:>20}{:>16}",
                    row.contender,
                    row.gb_per_second,
                    row.ours_is_faster,
                    format!("{:.2}, {:.2}", row.sender_cpu_seconds_per_gb, row.receiver_cpu_seconds_per_gb),
                    format!("{:.0}, {:.0}", row.sender_peak_mib, row.receiver_peak_mib),
                )?,
            }
            if output == Output::Text
                && let Some(Overhead { share, sender, receiver, pull_seconds }) = row.deciding_and_recording
            {
                let [from, to] = [sender, receiver]
                    .map(|spent| format!("{:.1} + {:.1} ms", spent.deciding_seconds * 1e3, spent.recording_seconds * 1e3));
                let of = format!("exporter {from}, importer {to} of {pull_seconds:.2} s");
                writeln!(out, "  deciding and recording, both ends: {:.2} % of the pull ({of})", share * 100.0)?;
            }
        }
        if output == Output::Text {
            writeln!(out)?;
        }
    }
    out.flush()
}

/// Says how far the network kept to its own word, of what it has carried.
fn punctuality<'a>(carried: impl Iterator<Item = &'a Carried> + Clone) -> String {
    let late: u64 = carried.clone().map(|carried| carried.late).sum();
    let tallies = carried.clone().flat_map(|carried| &carried.tallies);
    let all: u64 = tallies.map(|tally| tally.delivered.packets).sum();
    let latest = carried.map(|carried| carried.late_ms_max).fold(0.0, f64::max);
    let share = as_f64(late) * 100.0 / as_f64(all.max(1));
    format!("The network gave {share:.2} % of the packets more than 1 ms late, and one {latest:.1} ms.")
}

fn row(runs: &Runs, ours: f64) -> Row<'_> {
    let rounds = &runs.rounds;
    let per_gb = |of: fn(&Round) -> f64| median(rounds.iter().map(|round| of(round) * 1e9 / as_f64(round.bytes)));
    let peak = |of: fn(&Round) -> u64| median(rounds.iter().map(|round| as_f64(of(round)) / as_f64(MIB)));
    let gb_per_second = rate(rounds);
    Row {
        contender: &runs.contender,
        bytes: rounds.first().map_or(0, |round| round.bytes),
        gb_per_second,
        ours_is_faster: ours / gb_per_second,
        sender_cpu_seconds_per_gb: per_gb(|round| round.sender.cpu_seconds),
        receiver_cpu_seconds_per_gb: per_gb(|round| round.receiver.cpu_seconds),
        sender_peak_mib: peak(|round| round.sender.peak_bytes),
        receiver_peak_mib: peak(|round| round.receiver.peak_bytes),
        deciding_and_recording: overhead(rounds),
        rounds,
    }
}

/// Of the round in which the share is the median, so that the figures belong together.
fn overhead(rounds: &[Round]) -> Option<Overhead> {
    let of = |round: &Round| {
        let (sender, receiver) = (round.sender.spent?, round.receiver.spent?);
        let share = (sender.seconds() + receiver.seconds()) / round.seconds;
        Some(Overhead { share, sender, receiver, pull_seconds: round.seconds })
    };
    let mut rounds: Vec<_> = rounds.iter().filter_map(of).collect();
    rounds.sort_by(|one, other| one.share.total_cmp(&other.share));
    rounds.get(rounds.len() / 2).copied()
}

/// GB (10^9 bytes) in a second, the median.
fn rate(rounds: &[Round]) -> f64 {
    median(rounds.iter().map(|round| as_f64(round.bytes) / 1e9 / round.seconds))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "figures for people; 53 bits are enough")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

fn io_error(what: String) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_is_that_of_both_ends_in_the_median_round() {
        let spent = |deciding_seconds, recording_seconds| Spent { deciding_seconds, recording_seconds };
        let round = |seconds, sender, receiver| {
            let end = |spent| Usage { spent, ..Usage::default() };
            Round { bytes: 1, seconds, sender: end(sender), receiver: end(receiver) }
        };
        let (sender, receiver) = (spent(0.0, 0.125), spent(0.125, 0.25));
        let rounds = [
            round(4.0, Some(spent(1.0, 1.0)), Some(spent(0.0, 0.0))),
            round(2.0, Some(sender), Some(receiver)),
            round(1.0, Some(spent(0.0, 0.0)), Some(spent(0.0, 0.0))),
        ];
        assert_eq!(overhead(&rounds), Some(Overhead { share: 0.25, sender, receiver, pull_seconds: 2.0 }));
        assert_eq!(overhead(&[round(1.0, None, None)]), None);
    }
}
