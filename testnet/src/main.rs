//! `alliance-testnet`: a whole alliance on one machine, from real daemons.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use alliance_protocol::vocabulary::Country;
use alliance_testnet::{
    bench::{
        self, BenchError, Bulk, fanout, gateway,
        process::{BenchEnd, be_an_end},
        resume, wan as bench_wan,
    },
    network::{Network, NetworkError, Options},
    report::{self, Report},
    tour::{Tour, TourError},
    wan::{Wan, atlas},
};
use clap::{Parser, Subcommand, ValueEnum};

/// A whole alliance on one machine: every member with its authority and its nodes, each node a process of its own.
#[derive(Parser)]
#[command(name = "alliance-testnet", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start an alliance, take a tour of crossings, and stay up until Ctrl-C.
    ///
    /// Each crossing is printed with what the law decided, which rules decided and what they cite, how many bytes moved and
    /// how long it took. Example: alliance-testnet up --members BR,CN --exit
    Up(Up),
    /// Measure: contenders run in turn in one run, and ratios are printed
    #[command(subcommand)]
    Bench(Bench),
    /// Be one end of a contender (used by `bench` for its children).
    #[command(hide = true, subcommand)]
    BenchEnd(BenchEnd),
    /// Be one node of a test network (used by `up` for its children).
    #[command(hide = true)]
    Daemon {
        #[arg(long)]
        home: PathBuf,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// A model from node to node, file to file, beside stock quinn and HTTPS
    ///
    /// Ours is cleared by the law of both sides, verified and recorded. Stock quinn moves memory to memory and verifies
    /// nothing. HTTPS moves a file to a file, whose BLAKE3 is then taken. Example: alliance-testnet bench bulk --mib 1024
    Bulk(Bulk),
    /// The same over a long path that loses packets, beside TCP and stock quinn; as root
    ///
    /// Each node has a network namespace of its own, and every contender the same path with the same losses. What is slow is
    /// stopped, and what has come by then counts. Example: alliance-testnet bench wan --rtt-ms 150 --loss-ppm 5000 --mbit 500
    Wan(bench_wan::Settings),
    /// Several importers that pull one model at once, each with its own line; as root
    ///
    /// What counts is how long the last of them takes, beside a single pull. Example: alliance-testnet bench fanout --peers 4
    Fanout(fanout::Settings),
    /// A pull whose importer is killed half way, and what is sent again
    ///
    /// Example: alliance-testnet bench resume --mib 4096
    Resume(resume::Settings),
    /// A model through the gateway, across the border and from the disk, beside `alliance pull` and nginx
    ///
    /// Example: alliance-testnet bench gateway --mib 1024 --clients VENV
    Gateway(gateway::Settings),
}

#[derive(clap::Args)]
struct Up {
    /// The countries that are members, by ISO 3166-1 code.
    #[arg(long, value_delimiter = ',', default_value = "BR,RU,IN,CN,ZA", value_name = "CC,..")]
    members: Vec<Country>,
    /// Stop after the tour. The exit status is 0 only if every crossing went as the law says.
    #[arg(long)]
    exit: bool,
    /// Keep keys, ledgers and models of all nodes here; without it they are thrown away at the end.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Share this model (a directory as a hub keeps it) instead of a sample made up on the spot.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Put each node into a network of its own, as far from the others as the countries' capitals are; as root.
    #[arg(long)]
    wan: bool,
    /// How to print: text for people, or one JSON object for each crossing.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Why `up` did not come to a good end.
#[derive(Debug, thiserror::Error)]
enum UpError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Tour(#[from] TourError),
    #[error("`{}` is not a directory; --model names one with a model's files", .0.display())]
    Model(PathBuf),
    #[error("cannot write the report")]
    Output(#[source] io::Error),
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// Exit status: a crossing did not go as the law says.
const EXIT_WRONG: u8 = 1;
/// Exit status: the network could not be started or broke.
const EXIT_BROKEN: u8 = 2;
/// Exit status: ended by a signal, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match std::env::args_os().next().as_deref().map(Path::new).and_then(Path::file_stem).and_then(|name| name.to_str()) {
        // Under these names, by a link, this program is the real ones: so one build gives everything.
        Some("alliance") => return alliance_node::cli::main(std::env::args_os()).into(),
        Some("allianced") => return alliance_node::daemon::command().into(),
        _ => {}
    }
    match Arguments::parse().command {
        Command::Daemon { home } => alliance_testnet::network::be_a_node(&home),
        Command::BenchEnd(end) => be_an_end(end),
        Command::Bench(bench) => {
            let measured = match &bench {
                Bench::Bulk(bulk) => measure(bench::bulk(bulk)),
                Bench::Wan(settings) => measure(bench_wan::run(settings)),
                Bench::Fanout(settings) => measure(fanout::run(settings)),
                Bench::Resume(settings) => measure(resume::run(settings)),
                Bench::Gateway(settings) => measure(gateway::run(settings)),
            };
            match measured {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => broken(&error),
            }
        }
        Command::Up(up) => match run(&up) {
            Ok(code) => code,
            Err(error) => broken(&error),
        },
    }
}

/// Says why it came to no good end.
fn broken(error: &dyn std::error::Error) -> ExitCode {
    let mut text = format!("alliance-testnet: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!("\n  because: {cause}"));
        source = cause.source();
    }
    eprintln!("{text}");
    ExitCode::from(EXIT_BROKEN)
}

fn measure(bench: impl Future<Output = Result<(), BenchError>>) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let cannot = |source| BenchError::Io { what: "start".to_owned(), source };
    runtime.map_err(cannot)?.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(cannot)?;
        // Dropped, it ends its processes and removes its files.
        tokio::select! {
            outcome = bench => outcome,
            _ = tokio::signal::ctrl_c() => Err(BenchError::Interrupted),
            _ = terminate.recv() => Err(BenchError::Interrupted),
        }
    })
}

fn run(up: &Up) -> Result<ExitCode, UpError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    runtime.map_err(UpError::Runtime)?.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(UpError::Signal)?;
        let mut network = None;
        let outcome = tokio::select! {
            outcome = tour_and_stay(up, &mut network) => outcome,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(UpError::Signal)?;
                Ok(ExitCode::from(EXIT_INTERRUPTED))
            }
            _ = terminate.recv() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        };
        // Whatever happened, no process of the network outlives this one.
        if let Some(network) = network {
            network.stop().await;
        }
        outcome
    })
}

async fn tour_and_stay(up: &Up, slot: &mut Option<Network>) -> Result<ExitCode, UpError> {
    if let Some(model) = up.model.as_ref().filter(|model| !model.is_dir()) {
        return Err(UpError::Model(model.clone()));
    }
    let mut say = Speaker { json: up.output == Output::Json };
    say.line(&format!("Starting {} members, each with its authority and its nodes ...", up.members.len()))?;
    let members = up.members.clone();
    let wan = if up.wan { Some(Arc::new(between_capitals(&members, &mut say)?)) } else { None };
    let options = Options { members, nodes: None, home: up.home.clone(), program: None, wan, witnesses: None };
    let network = slot.insert(Network::found(options)?);
    network.start().await?;
    say.line(&format!("{} nodes are connected; every law pack is in force.", network.nodes_all().count()))?;

    let tour = Tour::prepare(network, up.model.as_deref())?;
    for line in tour.offer_compute().await? {
        say.line(&line)?;
    }
    let mut failed = None;
    let good = tour
        .run(&mut |number, report| {
            if let Err(error) = say.report(number, report) {
                failed.get_or_insert(error);
            }
        })
        .await?;
    if let Some(error) = failed {
        return Err(error);
    }
    let verdict =
        if good { "Every crossing went as the law says." } else { "NOT every crossing went as the law says; see above." };
    say.line(&format!("\n{verdict}"))?;
    if up.exit {
        return Ok(ExitCode::from(if good { 0 } else { EXIT_WRONG }));
    }
    say.line(&network.how_to_talk()?)?;
    say.line("Ctrl-C stops every process.")?;
    network.watch().await?;
    Ok(ExitCode::SUCCESS)
}

/// A network in which the members' nodes are as far from each other as their capitals are.
fn between_capitals(members: &[Country], say: &mut Speaker) -> Result<Wan, UpError> {
    let countries = Network::countries(members);
    let wan = Wan::up(atlas::terrain(&countries)).map_err(NetworkError::Wan)?;
    for (at, from) in members.iter().enumerate() {
        let delays = members.iter().skip(at + 1).map(|to| format!("{to} {} ms", atlas::delay(*from, *to).as_millis()));
        let delays = delays.collect::<Vec<_>>().join(", ");
        if !delays.is_empty() {
            say.line(&format!("  one way from {from} to: {delays}"))?;
        }
    }
    Ok(wan)
}

/// Where the words go: reports to standard output; with JSON, everything else to standard error.
struct Speaker {
    json: bool,
}

impl Speaker {
    fn line(&mut self, text: &str) -> Result<(), UpError> {
        let written = if self.json { writeln!(io::stderr(), "{text}") } else { writeln!(io::stdout(), "{text}") };
        written.map_err(UpError::Output)
    }

    fn report(&mut self, number: usize, report: &Report) -> Result<(), UpError> {
        let mut out = io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer(&mut out, report).map_err(io::Error::from).and_then(|()| writeln!(out))
        } else {
            report::print_text(&mut out, number, report)
        };
        written.and_then(|()| out.flush()).map_err(UpError::Output)
    }
}
