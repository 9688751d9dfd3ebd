//! `bench resume`: a pull whose importer is killed half way, and what the second attempt has to do again.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use serde::Serialize;

use super::{BenchError, MIB, Output, as_f64, directory, io_error, median, ours};

/// How `bench resume` is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// How much is pulled, in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=65_536))]
    pub mib: u64,
    /// How often it is done; medians are printed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// Where the files lie [default: /dev/shm, else the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How to print: text for people, or one JSON object
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// A pull that was interrupted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Resumed {
    /// Bytes of the model.
    pub bytes: u64,
    /// Bytes that had come when the importer was killed.
    pub came: u64,
    /// Bytes of groups that the exporter put on the wire, in both attempts together.
    pub sent: u64,
    /// From the order of the second attempt to the first new byte.
    pub seconds_to_go_on: f64,
    /// The whole second attempt.
    pub seconds: f64,
}

/// What is printed. Medians.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    mib: u64,
    killed_at: f64,
    /// Bytes sent more than once, for each byte of the model: what was on its way when the importer was killed.
    sent_again_per_byte: f64,
    mib_sent_again: f64,
    seconds_to_go_on: f64,
    seconds: f64,
    rounds: Vec<Resumed>,
}

/// Runs `bench resume`.
///
/// # Errors
/// A pull does not end well, or the disk is full.
pub async fn run(settings: &Settings) -> Result<(), BenchError> {
    let dir = directory(settings.dir.as_deref())?;
    let bytes = settings.mib * MIB;
    let mut rounds = Vec::new();
    for round in 0..settings.rounds {
        eprintln!("round {} of {}", round + 1, settings.rounds);
        let home = dir.path().join(format!("round-{round}"));
        let mut daemons = ours::Daemons::up(&home, &home, 1, None).await?;
        let offered = daemons.offer("large", &[(bytes / 8, 8)]).await?;
        rounds.push(daemons.interrupted(&offered).await?);
        daemons.down().await;
        std::fs::remove_dir_all(&home).map_err(io_error(format!("remove `{}`", home.display())))?;
    }
    print(settings.output, &summary(settings, rounds)).map_err(io_error("write the results".to_owned()))
}

fn summary(settings: &Settings, rounds: Vec<Resumed>) -> Summary {
    let again = |round: &Resumed| as_f64(round.sent.saturating_sub(round.bytes));
    Summary {
        mib: settings.mib,
        killed_at: median(rounds.iter().map(|round| as_f64(round.came) / as_f64(round.bytes))),
        sent_again_per_byte: median(rounds.iter().map(|round| again(round) / as_f64(round.bytes))),
        mib_sent_again: median(rounds.iter().map(|round| again(round) / as_f64(MIB))),
        seconds_to_go_on: median(rounds.iter().map(|round| round.seconds_to_go_on)),
        seconds: median(rounds.iter().map(|round| round.seconds)),
        rounds,
    }
}

fn print(output: Output, summary: &Summary) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if output == Output::Json {
        return writeln!(out, "{}", serde_json::to_string(summary).map_err(io::Error::from)?);
    }
    let Summary { mib, killed_at, sent_again_per_byte, mib_sent_again, seconds_to_go_on, seconds, rounds } = summary;
    writeln!(
        out,
        "resume: {mib} MiB, {} rounds; the importer is killed with SIGKILL and started again; medians\n",
        rounds.len()
    )?;
    writeln!(out, "{:<46}{:>8.1} %", "had come when it was killed", killed_at * 100.0)?;
    writeln!(out, "{:<46}{:>8.3} %", "sent again, of the model", sent_again_per_byte * 100.0)?;
    writeln!(out, "{:<46}{mib_sent_again:>8.1} MiB", "")?;
    writeln!(out, "{:<46}{seconds_to_go_on:>8.3} s", "from the second order to the next new byte")?;
    writeln!(out, "{:<46}{seconds:>8.3} s", "the second attempt as a whole")
}
