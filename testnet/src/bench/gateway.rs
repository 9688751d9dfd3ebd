//! `bench gateway`: a model through the gateway, across the border and from the disk, beside `alliance pull` and beside nginx.
//!
//! A plain HTTP client writes what it gets to a file; nginx serves the same file to it. With `--clients` the command `hf` of that
//! virtual environment does it too, from its start to its end; nginx answers it with what it asks of a Hub.

use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use alliance_node::tokens;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::{BenchError, MIB, Output, as_f64, directory, io_error, median, ours, wan::QUEUE_BYTES_MIN, warm};
use crate::{
    network::Network,
    wan::{
        Wan,
        link::{Distance, Line, Terrain},
    },
};

/// The file of a model that is moved.
const FILE: &str = "model.safetensors";

/// The revision that nginx gives the model.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The round trip of a link: that between capitals of two continents.
const RTT_MS: u64 = 100;

/// How long nginx may take to listen. It only ends a hang.
const NGINX_WITHIN: Duration = Duration::from_secs(10);

/// How `bench gateway` is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// How much is moved, in MiB
    #[arg(long, default_value_t = 512, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=16_384))]
    pub mib: u64,
    /// How often it is done; medians are printed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// Where the files lie [default: /dev/shm, else the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A virtual environment with `huggingface_hub`, whose `hf` is measured too
    #[arg(long, value_name = "DIR")]
    pub clients: Option<PathBuf>,
    /// The rate of a link between the nodes, 100 ms long, in Mbit/s, for `alliance pull` and `hf`; as root [default: on loopback]
    #[arg(long, requires = "clients", value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub mbit: Option<u64>,
    /// How to print: text for people, or one JSON object for each contender
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// What was measured, in the order in which it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Pull,
    Cold,
    Warm,
    Nginx,
    HfCold,
    HfWarm,
    HfNginx,
}

/// A contender, its name, and what it is compared with.
type Compared = (Contender, &'static str, Option<(Contender, &'static str)>);

const CONTENDERS: [Compared; 7] = [
    (Contender::Pull, "alliance pull", None),
    (Contender::Cold, "GET, across the border", Some((Contender::Pull, "alliance pull"))),
    (Contender::Warm, "GET, from the node's disk", Some((Contender::Nginx, "nginx"))),
    (Contender::Nginx, "GET, from nginx", None),
    (Contender::HfCold, "hf download, across the border", Some((Contender::Pull, "alliance pull"))),
    (Contender::HfWarm, "hf download, from the node's disk", Some((Contender::HfNginx, "hf download from nginx"))),
    (Contender::HfNginx, "hf download, from nginx", None),
];

/// What is printed of a contender. Medians.
#[derive(Clone, Debug, Serialize)]
struct Row {
    contender: &'static str,
    gb_per_second: f64,
    /// How many times as fast it is as what it is compared with.
    ratio: Option<f64>,
    of: Option<&'static str>,
    seconds: Vec<f64>,
}

/// What was measured: seconds.
type Measured = Vec<(Contender, f64)>;

/// A node that was set up for one round, and what its clients need.
struct Scene<'a> {
    daemons: ours::Daemons,
    place: &'a Path,
    tensors: [(u64, u64); 1],
    address: SocketAddr,
    token: String,
}

/// Runs `bench gateway`.
///
/// # Errors
/// A contender does not run, the disk is full, or this is not root and a link is wanted.
pub async fn run(settings: &Settings) -> Result<(), BenchError> {
    let dir = directory(settings.dir.as_deref())?;
    let wan = settings.mbit.map(link).transpose()?;
    let bytes = settings.mib * MIB;
    let mut measured = Vec::new();
    for round in 0..settings.rounds {
        eprintln!("round {} of {}", round + 1, settings.rounds);
        let place = dir.path().join(format!("round-{round}"));
        measured.extend(one_round(&place, bytes, settings.clients.as_deref(), wan.as_ref()).await?);
        fs::remove_dir_all(&place).map_err(io_error(format!("remove `{}`", place.display())))?;
    }
    let rows = rows(bytes, &measured);
    let Settings { mib, rounds, mbit, .. } = settings;
    let between = mbit.map_or("on loopback".to_owned(), |mbit| format!("{mbit} Mbit/s and {RTT_MS} ms apart"));
    let about = format!("gateway: {mib} MiB, {rounds} rounds, all on this machine, nodes {between}; medians");
    print(settings.output, &about, &rows).map_err(io_error("write the results".to_owned()))
}

/// A link between nodes, each in a network namespace, with a queue that holds what comes in a round trip.
fn link(mbit: u64) -> Result<Arc<Wan>, BenchError> {
    let rate = mbit * 1_000_000;
    let line = Line::new(rate, (rate / 8 * RTT_MS / 1000).max(QUEUE_BYTES_MIN));
    let distance = Distance { delay: Duration::from_millis(RTT_MS / 2), loss_ppm: 0 };
    let places = Network::countries(&ours::members(1)).len();
    Ok(Arc::new(Wan::up(Terrain::alike(places, line, distance, 1))?))
}

async fn one_round(
    place: &Path,
    bytes: u64,
    clients: Option<&Path>,
    wan: Option<&Arc<Wan>>,
) -> Result<Measured, BenchError> {
    let scene = Scene::set(place, bytes, wan).await?;
    let mut measured = vec![(Contender::Pull, scene.pull().await?)];
    let cold = scene.daemons.offer("cold", &scene.tensors).await?;
    // nginx and the plain client are here, and the node is where only what runs beside it reaches it.
    let nginx = if wan.is_none() { nginx(place, cold.name()).await? } else { None };
    if wan.is_none() {
        measured.extend(scene.plain(cold.name(), nginx.as_ref()).await?);
    }
    if let Some(clients) = clients {
        measured.extend(scene.tool(clients, (cold.name(), nginx.as_ref())).await?);
    }
    if let Some(nginx) = nginx {
        nginx.stop().await;
    }
    scene.daemons.down().await;
    Ok(measured)
}

impl<'a> Scene<'a> {
    async fn set(place: &'a Path, bytes: u64, wan: Option<&Arc<Wan>>) -> Result<Self, BenchError> {
        let daemons = ours::Daemons::up(place, place, 1, wan.cloned()).await?;
        let tensors = [(bytes / 8, 8)];
        // One that nobody measures: what is read first is read from a cold cache.
        daemons.pull(&daemons.offer("unmeasured", &tensors).await?).await?;
        let node = daemons.importer()?;
        let status = node.status().await?;
        let address = status.gateway.and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| failed("ours", "the node has no gateway"))?;
        let token = tokens::of_home(node.home().root()).own(status.now);
        let token = token.map_err(|error| failed("ours", &error.to_string()))?.to_string();
        Ok(Self { daemons, place, tensors, address, token })
    }

    /// Touches what a contender writes to, the node and its client.
    fn warm(&self) -> Result<(), BenchError> {
        warm(self.place, 2 * self.tensors.iter().map(|(bytes, count)| bytes * count).sum::<u64>())
    }

    async fn pull(&self) -> Result<f64, BenchError> {
        let offered = self.daemons.offer("pulled", &self.tensors).await?;
        self.warm()?;
        Ok(self.daemons.pull(&offered).await?.seconds)
    }

    /// What a plain client gets of a model.
    async fn plain(&self, name: &str, nginx: Option<&Nginx>) -> Result<Measured, BenchError> {
        let taken = self.place.join("taken.bin");
        let mut measured = Vec::new();
        for contender in [Contender::Cold, Contender::Warm] {
            let path = format!("/hf/{name}/resolve/main/{FILE}");
            self.warm()?;
            measured.push((contender, get(self.address, &path, Some(&self.token), &taken).await?));
        }
        if let Some(nginx) = nginx {
            let path = format!("/{name}/resolve/{COMMIT}/{FILE}");
            self.warm()?;
            measured.push((Contender::Nginx, get(nginx.address, &path, None, &taken).await?));
        }
        Ok(measured)
    }

    /// What `hf` gets of a model that nobody has asked for, and of one that nginx has.
    async fn tool(&self, clients: &Path, (lies_there, nginx): (&str, Option<&Nginx>)) -> Result<Measured, BenchError> {
        let offered = self.daemons.offer("tool", &self.tensors).await?;
        let hub = format!("http://{}/hf", self.address);
        let mut downloads =
            vec![(Contender::HfCold, hub.clone(), offered.name()), (Contender::HfWarm, hub, offered.name())];
        if let Some(nginx) = nginx {
            downloads.push((Contender::HfNginx, format!("http://{}", nginx.address), lies_there));
        }
        let mut measured = Vec::new();
        for (contender, hub, name) in downloads {
            let into = self.place.join("downloaded");
            self.warm()?;
            let command = self.daemons.importer()?.beside(clients.join("bin").join("hf"))?;
            measured.push((contender, download(command, (&hub, &self.token), name, &into).await?));
            fs::remove_dir_all(&into).map_err(io_error(format!("remove `{}`", into.display())))?;
        }
        Ok(measured)
    }
}

/// Gets a file and writes it; the seconds that it took.
async fn get(address: SocketAddr, path: &str, token: Option<&str>, to: &Path) -> Result<f64, BenchError> {
    let http = |error: &dyn std::error::Error| failed("GET", &format!("{path}: {error}"));
    let began = Instant::now();
    let stream = TcpStream::connect(address).await.map_err(|error| http(&error))?;
    let (mut ask, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| http(&error))?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().uri(path).header("host", address.to_string());
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| http(&error))?;
    let answer = ask.send_request(request).await.map_err(|error| http(&error))?;
    if !answer.status().is_success() {
        return Err(failed("GET", &format!("{path}: {}", answer.status())));
    }
    let mut file = File::create(to).map_err(io_error(format!("write `{}`", to.display())))?;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(part) = frame.map_err(|error| http(&error))?.into_data() {
            file.write_all(&part).map_err(io_error(format!("write `{}`", to.display())))?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    connection.abort();
    Ok(seconds)
}

/// Runs `hf download`; the seconds that it took.
async fn download(mut command: Command, (hub, token): (&str, &str), name: &str, into: &Path) -> Result<f64, BenchError> {
    command.args(["download", name, "--local-dir"]).arg(into).env("HF_HOME", into.join("cache"));
    command.env("HF_ENDPOINT", hub).env("HF_TOKEN", token);
    for name in ["HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK"] {
        command.env(name, "1");
    }
    let began = Instant::now();
    let ran = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let ran = ran.map_err(io_error("run `hf`".to_owned()))?;
    match ran.status.success() {
        true => Ok(began.elapsed().as_secs_f64()),
        false => Err(failed("hf", &String::from_utf8_lossy(&ran.stderr))),
    }
}

/// nginx, while it runs.
struct Nginx {
    address: SocketAddr,
    child: Child,
}

impl Nginx {
    async fn stop(mut self) {
        // It is killed when it is dropped; this waits for that.
        let _ = self.child.kill().await;
    }
}

/// Starts nginx on a model under a directory, as it serves files at its best, under the addresses at which
/// `hf download` asks for them; none where it is not installed.
async fn nginx(root: &Path, name: &str) -> Result<Option<Nginx>, BenchError> {
    let there = env::var_os("PATH").is_some_and(|paths| env::split_paths(&paths).any(|dir| dir.join("nginx").is_file()));
    if !there {
        eprintln!("nginx is not installed: what the gateway gives from the disk is compared with nothing");
        return Ok(None);
    }
    let free = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).and_then(|listener| listener.local_addr());
    let address = free.map_err(io_error("find a free port".to_owned()))?;
    let (config, at) = (root.join("nginx.conf"), root.display());
    let info = serde_json::json!({ "id": name, "sha": COMMIT, "siblings": [{ "rfilename": FILE }] });
    let bytes = fs::metadata(root.join("cold").join(FILE)).map_err(io_error(format!("read `{FILE}`")))?.len();
    let tree = serde_json::json!([{ "type": "file", "path": FILE, "oid": COMMIT, "size": bytes }]);
    // One process, which is gone when it is killed.
    let text = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx.log; events {{}}\n\
         http {{ access_log off; sendfile on; server {{ listen {address}; default_type application/octet-stream; \
         location = /api/models/{name}/revision/main {{ default_type application/json; return 200 '{info}'; }} \
         location /api/models/{name}/tree/{COMMIT} {{ default_type application/json; return 200 '{tree}'; }} \
         location /{name}/resolve/{COMMIT}/ {{ alias {at}/cold/; add_header X-Repo-Commit {COMMIT}; }} }} }}\n"
    );
    fs::write(&config, text).map_err(io_error(format!("write `{}`", config.display())))?;
    let child =
        Command::new("nginx").arg("-c").arg(&config).arg("-e").arg(root.join("nginx.log")).kill_on_drop(true).spawn();
    let nginx = Nginx { address, child: child.map_err(io_error("start nginx".to_owned()))? };
    let until = Instant::now() + NGINX_WITHIN;
    while TcpStream::connect(address).await.is_err() {
        if Instant::now() > until {
            return Err(failed("nginx", "it does not listen"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(Some(nginx))
}

fn rows(bytes: u64, measured: &[(Contender, f64)]) -> Vec<Row> {
    let seconds = |wanted: Contender| -> Vec<f64> {
        measured.iter().filter(|(contender, _)| *contender == wanted).map(|(_, seconds)| *seconds).collect()
    };
    let rate = |wanted| as_f64(bytes) / 1e9 / median(seconds(wanted).into_iter());
    let run = CONTENDERS.iter().filter(|(contender, ..)| !seconds(*contender).is_empty());
    run.map(|(contender, name, with)| {
        let with = with.filter(|(other, _)| !seconds(*other).is_empty());
        Row {
            contender: name,
            gb_per_second: rate(*contender),
            ratio: with.map(|(other, _)| rate(*contender) / rate(other)),
            of: with.map(|(_, name)| name),
            seconds: seconds(*contender),
        }
    })
    .collect()
}

fn print(output: Output, about: &str, rows: &[Row]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if output == Output::Text {
        writeln!(out, "{about}\n")?;
    }
    for row in rows {
        if output == Output::Json {
            writeln!(out, "{}", serde_json::to_string(row).map_err(io::Error::from)?)?;
            continue;
        }
        let ratio = row.ratio.zip(row.of).map(|(ratio, of)| format!("{ratio:>8.2} of {of}")).unwrap_or_default();
        writeln!(out, "{:<36}{:>8.3} GB/s{ratio}", row.contender, row.gb_per_second)?;
    }
    out.flush()
}

fn failed(contender: &str, problem: &str) -> BenchError {
    BenchError::Contender { contender: contender.to_owned(), problem: problem.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_compared_with_what_it_is_to_be_compared_with_if_that_ran() {
        let measured = [
            (Contender::Pull, 1.0),
            (Contender::Cold, 2.0),
            (Contender::Cold, 1.25),
            (Contender::Cold, 0.5),
            (Contender::Warm, 0.5),
        ];
        let rows = rows(1_000_000_000, &measured);
        let ratios: Vec<_> = rows.iter().map(|row| (row.contender, row.gb_per_second, row.ratio)).collect();
        assert_eq!(
            ratios,
            [
                ("alliance pull", 1.0, None),
                ("GET, across the border", 0.8, Some(0.8)),
                ("GET, from the node's disk", 2.0, None),
            ]
        );
    }
}
