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

use super::{BenchError, MIB, Output, as_f64, directory, io_error, median, ours, warm};

/// The file of a model that is moved.
const FILE: &str = "model.safetensors";

/// The revision that nginx gives the model.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

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

/// Where a node is reached by clients.
struct Gateway {
    address: SocketAddr,
    token: String,
}

/// Runs `bench gateway`.
///
/// # Errors
/// A contender does not run, or the disk is full.
pub async fn run(settings: &Settings) -> Result<(), BenchError> {
    let dir = directory(settings.dir.as_deref())?;
    let bytes = settings.mib * MIB;
    let mut measured: Vec<(Contender, f64)> = Vec::new();
    for round in 0..settings.rounds {
        eprintln!("round {} of {}", round + 1, settings.rounds);
        let place = dir.path().join(format!("round-{round}"));
        measured.extend(one_round(&place, bytes, settings.clients.as_deref()).await?);
        fs::remove_dir_all(&place).map_err(io_error(format!("remove `{}`", place.display())))?;
    }
    let rows = rows(bytes, &measured);
    let about = format!("gateway: {} MiB, {} rounds, all on this machine; medians", settings.mib, settings.rounds);
    print(settings.output, &about, &rows).map_err(io_error("write the results".to_owned()))
}

async fn one_round(place: &Path, bytes: u64, clients: Option<&Path>) -> Result<Vec<(Contender, f64)>, BenchError> {
    let daemons = ours::Daemons::up(place, place, 1, None).await?;
    let tensors = [(bytes / 8, 8)];
    // By the node and by its client.
    let written = 2 * bytes;
    // One that nobody measures: what is read first is read from a cold cache.
    daemons.pull(&daemons.offer("unmeasured", &tensors).await?).await?;
    let offered = daemons.offer("pulled", &tensors).await?;
    warm(place, written)?;
    let mut measured = vec![(Contender::Pull, daemons.pull(&offered).await?.seconds)];
    let node = daemons.importer()?;
    let address = node.status().await?.gateway.and_then(|address| address.parse().ok());
    let address = address.ok_or_else(|| failed("ours", "the node has no gateway"))?;
    let now = node.status().await?.now;
    let token = tokens::of_home(node.home().root()).own(now).map_err(|error| failed("ours", &error.to_string()))?;
    let gateway = Gateway { address, token: token.to_string() };
    let taken = place.join("taken.bin");

    let cold = daemons.offer("cold", &tensors).await?;
    for contender in [Contender::Cold, Contender::Warm] {
        let path = format!("/hf/{}/resolve/main/{FILE}", cold.name());
        warm(place, written)?;
        measured.push((contender, get(gateway.address, &path, Some(&gateway.token), &taken).await?));
    }
    let nginx = nginx(place, cold.name()).await?;
    if let Some(nginx) = &nginx {
        let path = format!("/{}/resolve/{COMMIT}/{FILE}", cold.name());
        warm(place, written)?;
        measured.push((Contender::Nginx, get(nginx.address, &path, None, &taken).await?));
    }
    if let Some(clients) = clients {
        let offered = daemons.offer("tool", &tensors).await?;
        let hub = format!("http://{}/hf", gateway.address);
        let mut downloads =
            vec![(Contender::HfCold, hub.clone(), offered.name()), (Contender::HfWarm, hub, offered.name())];
        if let Some(nginx) = &nginx {
            downloads.push((Contender::HfNginx, format!("http://{}", nginx.address), cold.name()));
        }
        for (contender, hub, name) in downloads {
            let into = place.join("downloaded");
            warm(place, written)?;
            measured.push((contender, download(clients, (&hub, &gateway.token), name, &into).await?));
            fs::remove_dir_all(&into).map_err(io_error(format!("remove `{}`", into.display())))?;
        }
    }
    if let Some(nginx) = nginx {
        nginx.stop().await;
    }
    daemons.down().await;
    Ok(measured)
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
async fn download(clients: &Path, (hub, token): (&str, &str), name: &str, into: &Path) -> Result<f64, BenchError> {
    let program = clients.join("bin").join("hf");
    let mut command = Command::new(&program);
    command.args(["download", name, "--local-dir"]).arg(into).env("HF_HOME", into.join("cache"));
    command.env("HF_ENDPOINT", hub).env("HF_TOKEN", token);
    for name in ["HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK"] {
        command.env(name, "1");
    }
    let began = Instant::now();
    let ran = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let ran = ran.map_err(io_error(format!("run `{}`", program.display())))?;
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
    // One process, which is gone when it is killed.
    let text = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx.log; events {{}}\n\
         http {{ access_log off; sendfile on; server {{ listen {address}; default_type application/octet-stream; \
         location = /api/models/{name}/revision/main {{ default_type application/json; return 200 '{info}'; }} \
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
