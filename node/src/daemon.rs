//! Starting a node on its home: refuse what cannot be trusted, bind, replay, run.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use alliance_policy::CedarGate;
use alliance_protocol::{
    core::{Config, Core, Origin, StartError},
    gate::{Pack, PackOwner},
    key::SecretKey,
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    api::{ApiError, ApiServer, Waiting},
    bulk::{Bulk, BulkConfig, BulkError, lanes_usual},
    catalogue::{Catalogue, CatalogueError},
    cli::Problem,
    durable::FileError,
    exit::Exit,
    gateway::Gateway,
    home::{Home, HomeError, OpenHome, SocketError},
    keys::PassphraseFrom,
    ledger::{LedgerError, LedgerFile},
    limits::{LimitsError, read_limits},
    mesh::{Mesh, MeshConfig, MeshError},
    node::{Clock, Fatal, Node, Spent},
    notes::Notes,
    shelf::Shelf,
    tokens,
    witness::WitnessServer,
};

/// Why a daemon does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("the ledger of this home cannot be trusted")]
    Ledger(#[source] LedgerError),
    #[error("what this node signed as a witness cannot be read")]
    Notes(#[source] FileError),
    #[error("the catalogue cannot be opened")]
    Catalogue(#[source] CatalogueError),
    #[error("the mesh endpoint cannot be opened")]
    Mesh(#[source] MeshError),
    #[error("the bulk endpoint cannot be opened")]
    Bulk(#[source] BulkError),
    #[error("the witness cannot listen on `{listen}`")]
    Witness {
        listen: std::net::SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the gateway cannot listen on `{listen}`")]
    Gateway {
        listen: std::net::SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the limits of transfers cannot be used")]
    Limits(#[from] LimitsError),
    #[error("there is no place for the socket of the local API")]
    Socket(#[source] SocketError),
    #[error("the local API cannot be opened")]
    Api(#[source] ApiError),
    #[error("the node cannot start from what its home holds")]
    Start(#[source] StartError),
    #[error("no randomness can be had from the system: {0}")]
    Randomness(getrandom::Error),
    #[error(transparent)]
    Fatal(#[from] Fatal),
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    #[error("the signal handler cannot be installed")]
    Signal(#[source] io::Error),
}

/// Bytes of an artefact for each connection over which it is pulled from one node: half a second's work for a processor. What
/// is smaller is moved before a further crossing would have been cleared and recorded.
const CONNECTION_BYTES: u64 = 256 * 1024 * 1024;

/// Calls of the local API that may wait for Core at a time; more wait at their socket.
const CALLS_WAITING_MAX: usize = 64;

/// Runs a node until SIGINT, SIGTERM or `stop`.
async fn run(home: &Home, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let (node, _faces, _opened) = start(home).await?;
    let signal = shutdown_signal().map_err(DaemonError::Signal)?;
    let shutdown = async {
        tokio::select! {
            () = signal => {}
            () = stop => {}
        }
    };
    node.run(shutdown).await?;
    Ok(())
}

/// What others talk to, for as long as it lives.
struct Faces {
    _api: ApiServer,
    _witness: Option<WitnessServer>,
    _gateway: Option<Gateway>,
}

/// Opens everything. The servers and the lock on the home live as long as what is returned.
async fn start(home: &Home) -> Result<(Node, Faces, OpenHome), DaemonError> {
    let mut clock = Clock::default();
    let opened = home.open_for_daemon(clock.now())?;
    let (ledger, entries) = LedgerFile::open(&home.ledger_path(), &opened.key).map_err(DaemonError::Ledger)?;
    if let Some(last) = entries.last() {
        clock.not_before(last.at);
    }
    if ledger.recovered_bytes() > 0 {
        warn!(bytes = ledger.recovered_bytes(), "dropped the unfinished end of the ledger, which a crash had left");
    }
    let (notes, kept) = Notes::open(&home.notes_path()).map_err(DaemonError::Notes)?;
    let (catalogue, statements) = Catalogue::open(&home.catalogue_path()).map_err(DaemonError::Catalogue)?;

    let config = &opened.config;
    let mesh = MeshConfig {
        listen: config.mesh.listen.iter().map(ToString::to_string).collect(),
        bootstrap: config.mesh.bootstrap.iter().map(ToString::to_string).collect(),
        ..MeshConfig::new(opened.charter.alliance())
    };
    let mesh = Mesh::start(&opened.key, mesh).await.map_err(DaemonError::Mesh)?;
    let lanes = config.bulk.threads.unwrap_or_else(lanes_usual);
    let bulk = BulkConfig { mtu: config.bulk.mtu, lanes, ..BulkConfig::new(config.bulk.listen, home.manifests_path()) };
    let bulk = Bulk::start(&opened.key, bulk).map_err(DaemonError::Bulk)?;
    for limit in read_limits(&home.limits_path())? {
        bulk.limit(limit);
    }
    let mesh_addresses = announced(&config.mesh.announce, mesh.listen_addresses());
    let bulk_addresses = announced(&config.bulk.announce, vec![bulk.local_addr().to_string()]);
    info!(?mesh_addresses, ?bulk_addresses, "listening");

    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(DaemonError::Randomness)?;
    let core_config = Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mesh_addresses,
        bulk_addresses,
        model_key: opened.model_binding.clone(),
        baseline: alliance_policy::baseline(),
        house: opened.house.as_deref().map(|text| Pack::new(PackOwner::House, 0, text, "")),
        approvers: config.house.approvers.iter().copied().collect(),
        connections: u32::try_from(lanes).unwrap_or(1),
        connection_bytes: CONNECTION_BYTES,
        seed,
    };
    let origin = Origin {
        key: SecretKey::from_seed(&opened.key.to_seed()),
        charter: opened.charter.to_log(),
        accreditation: opened.accreditation.bytes().to_vec(),
        entries,
        catalogue: statements,
        held: kept.held,
        witnessed: kept.witnessed,
        witnesses: Notes::witnesses(&home.notes_path()).map_err(DaemonError::Notes)?,
    };
    let gate = CedarGate::default();
    let now = clock.now();
    let (core, effects) = Core::start(origin, core_config, now, &gate).map_err(DaemonError::Start)?;

    let (sender, calls) = mpsc::channel(CALLS_WAITING_MAX);
    let socket = home.socket_for_daemon().map_err(DaemonError::Socket)?;
    let witness = match config.witness.listen {
        Some(listen) => {
            let witness = WitnessServer::start(listen, sender.clone()).await;
            let witness = witness.map_err(|source| DaemonError::Witness { listen, source })?;
            info!(address = %witness.address(), "the witness listens for other logs");
            Some(witness)
        }
        None => None,
    };
    let gateway = start_gateway(home, config.gateway.listen, &bulk, sender.clone()).await?;
    let api = ApiServer::start(&socket, sender).map_err(DaemonError::Api)?;
    let mut node = Node {
        core,
        gate,
        ledger,
        notes,
        catalogue,
        mesh,
        bulk,
        calls,
        manifests: home.manifests_path(),
        limits: home.limits_path(),
        charter: home.charter_path(),
        gateway: gateway.as_ref().map(Gateway::address),
        waiting: BTreeMap::new(),
        requests: 0,
        clock,
        spent: Spent::default(),
    };
    node.begin((now, effects))?;
    Ok((node, Faces { _api: api, _witness: witness, _gateway: gateway }, opened))
}

/// Starts the gateway, if there is to be one.
async fn start_gateway(
    home: &Home,
    listen: Option<std::net::SocketAddr>,
    bulk: &Bulk,
    calls: mpsc::Sender<Waiting>,
) -> Result<Option<Gateway>, DaemonError> {
    let Some(listen) = listen else { return Ok(None) };
    let (tokens, shelf) = (tokens::of_home(home.root()), Shelf::of_home(home.root()));
    let places = (home.manifests_path(), home.models_path());
    let gateway = Gateway::start(listen, tokens, places, shelf, bulk.arrivals(), calls).await;
    let gateway = gateway.map_err(|source| DaemonError::Gateway { listen, source })?;
    info!(address = %gateway.address(), "the gateway listens for clients of this machine");
    Ok(Some(gateway))
}

/// What the operator announces, or where the endpoints really listen.
fn announced(configured: &[impl ToString], listening: Vec<String>) -> Vec<String> {
    if configured.is_empty() { listening } else { configured.iter().map(ToString::to_string).collect() }
}

#[cfg(unix)]
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The whole life of a daemon process: logging to stderr, a small runtime, one node.
///
/// # Errors
/// Why it did not start, or what stopped it.
pub fn main(home: &Home) -> Result<(), DaemonError> {
    main_until(home, std::future::pending())
}

/// As [`main`], but stops also when `stop` resolves.
///
/// # Errors
/// Why it did not start, or what stopped it.
pub fn main_until(home: &Home, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    // A second subscriber in one process (tests) keeps the first.
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let outcome = runtime.block_on(run(home, stop));
    // Not dropped, which would wait for disk work that nobody can interrupt. What that leaves is what a crash leaves.
    runtime.shutdown_timeout(BLOCKED_MAX);
    outcome
}

/// Run a node of an alliance.
///
/// The home must have been made with `alliance init` and hold a charter and an accreditation. The daemon refuses to start on
/// a home that it cannot trust and says what to do. It stops on SIGINT or SIGTERM.
#[derive(clap::Parser)]
#[command(
    name = "allianced",
    version,
    after_help = "Log detail: RUST_LOG=debug. Talk to a running node: alliance --home DIR status"
)]
struct Arguments {
    /// The node's home directory; without it ALLIANCE_HOME, or else ~/.alliance.
    #[arg(long, value_name = "DIR")]
    home: Option<std::path::PathBuf>,
    /// The file that holds the passphrase of the node's key, on one line; without it ALLIANCE_PASSPHRASE_FILE, or the terminal.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<std::path::PathBuf>,
}

/// The command `allianced`: reads its arguments and runs the daemon.
#[must_use]
pub fn command() -> Exit {
    let arguments = <Arguments as clap::Parser>::parse();
    let passphrases = PassphraseFrom::locate(arguments.passphrase_file.as_deref());
    let home = Home::locate(arguments.home.as_deref()).map(|home| home.with_passphrases(passphrases));
    report(home.map_err(DaemonError::Home).and_then(|home| main(&home)))
}

/// What is logged without `RUST_LOG`: our own records and orders, and what libraries warn of.
const DEFAULT_LOG: &str = "warn,alliance_node=info";

/// Threads for the loop, the mesh and the local API. Transfers have a thread of their own.
const WORKERS: usize = 2;

/// Threads for what blocks, other than the files of transfers.
const BLOCKING_THREADS_MAX: usize = 16;

/// How long the end of a daemon waits for disk work that is still under way.
const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// Says on stderr why a daemon did not start or stopped, with its causes and the next step; gives the exit code.
#[must_use]
pub fn report(outcome: Result<(), DaemonError>) -> Exit {
    let Err(error) = outcome else { return Exit::Done };
    let problem = Problem::from(error);
    let mut text = format!("allianced: {}\n", problem.message);
    if !problem.hint.is_empty() {
        text.push_str(&format!("  next: {}\n", problem.hint));
    }
    // The log may lie on the disk that is full; the exit code says it all the same.
    let _ = io::stderr().write_all(text.as_bytes());
    problem.exit
}
