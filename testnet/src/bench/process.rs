//! What a process used, and contenders whose two ends are processes of their own.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{BenchError, Round, as_f64, https, io_error, stock_quinn, tcp};
use crate::wan::{Wan, link::Place};

/// What a process used during a run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    pub cpu_seconds: f64,
    /// Memory that was resident at a time, at the most.
    pub peak_bytes: u64,
    /// None where nothing is decided or recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
}

/// Wall-clock time that a daemon spent on what a file server does not do, whether a transfer waited for it or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// On everything that Core was handed.
    pub deciding_seconds: f64,
    /// On everything that went to the ledger, until the disk had it.
    pub recording_seconds: f64,
}

impl Spent {
    /// Both together.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.deciding_seconds + self.recording_seconds
    }
}

/// How long an end may take for anything. It only ends a hang.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// One end of a contender, as a process of this program. It prints one line when it is ready or done, and stays until its
/// standard input ends, so that what it used can be read.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BenchEnd {
    /// Sends so many bytes out of memory.
    QuinnSend {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        bytes: u64,
        #[arg(long)]
        ours: bool,
    },
    /// Takes bytes into nothing.
    QuinnTake {
        #[arg(long)]
        from: SocketAddr,
        #[arg(long)]
        certificate: String,
        #[arg(long)]
        ours: bool,
        /// Seconds after which it is done with what has come.
        #[arg(long)]
        within: Option<u64>,
    },
    /// Sends so many bytes out of memory.
    TcpSend {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        bytes: u64,
        /// The congestion control, by the kernel's name for it.
        #[arg(long)]
        congestion: String,
    },
    /// Takes bytes into nothing.
    TcpTake {
        #[arg(long)]
        from: SocketAddr,
        #[arg(long)]
        within: Option<u64>,
    },
    /// Serves one file.
    HttpsServe {
        #[arg(long)]
        file: PathBuf,
    },
    /// Takes the file, writes it, and hashes what it wrote.
    HttpsTake {
        #[arg(long)]
        from: SocketAddr,
        #[arg(long)]
        certificate: String,
        #[arg(long)]
        to: PathBuf,
    },
}

/// What went wrong in an end.
pub type EndError = Box<dyn std::error::Error + Send + Sync>;

/// Is one end until its standard input ends.
#[must_use]
pub fn be_an_end(end: BenchEnd) -> ExitCode {
    // One thread at each end: what is fastest where two ends share two cores.
    let outcome =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EndError::from).and_then(|runtime| {
            runtime.block_on(async {
                let span = |seconds: Option<u64>| seconds.map_or(WAIT_MAX, Duration::from_secs);
                match end {
                    BenchEnd::QuinnSend { listen, bytes, ours } => stock_quinn::send(listen, bytes, ours).await,
                    BenchEnd::QuinnTake { from, certificate, ours, within } => {
                        stock_quinn::take(from, &certificate, ours, span(within)).await
                    }
                    BenchEnd::TcpSend { listen, bytes, congestion } => tcp::send(listen, bytes, &congestion).await,
                    BenchEnd::TcpTake { from, within } => tcp::take(from, span(within)).await,
                    BenchEnd::HttpsServe { file } => https::serve(&file).await,
                    BenchEnd::HttpsTake { from, certificate, to } => https::take(from, &certificate, &to).await,
                }
            })
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("alliance-testnet: an end of a benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tells the benchmark something in one line.
pub fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Waits until the benchmark closes this process's standard input.
pub async fn until_dismissed() {
    let waiting = tokio::task::spawn_blocking(|| {
        let mut nothing = [0; 64];
        while matches!(io::stdin().lock().read(&mut nothing), Ok(1..)) {}
    });
    // Whatever happens to the thread, there is nothing more to do.
    let _ = waiting.await;
}

/// What the two ends of a contender are.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Quinn {
        ours: bool,
    },
    Https,
    /// With this congestion control.
    Tcp(&'static str),
}

/// A contender with two ends.
#[derive(Clone, Debug)]
pub struct Contender {
    pub name: String,
    end: End,
    /// Where the ends are: the sender at the first place, the receiver at the second. None is loopback.
    wan: Option<Arc<Wan>>,
    /// When to be done with what has come.
    within: Option<Duration>,
}

impl Contender {
    #[must_use]
    pub fn new(name: &str, end: End) -> Self {
        Self { name: name.to_owned(), end, wan: None, within: None }
    }

    /// The same over this network, done after so long at the latest.
    #[must_use]
    pub fn over(self, wan: &Arc<Wan>, within: Duration) -> Self {
        Self { wan: Some(Arc::clone(wan)), within: Some(within), ..self }
    }

    /// Moves the bytes once, from `file` to `to` where files are moved, or as many as there is time for.
    ///
    /// # Errors
    /// An end does not start, or says something else than it should.
    pub async fn run(&self, file: &Path, to: &Path, bytes: u64) -> Result<Round, BenchError> {
        let mut sender = Running::start(&self.name, &self.sender(file, bytes), self.wan.as_deref(), 0)?;
        let ready = sender.line("ready").await?;
        let began = sender.usage()?;
        let problem = |problem: &str| BenchError::Contender { contender: self.name.clone(), problem: problem.to_owned() };
        let (from, certificate) = ready.split_once(' ').unwrap_or((&ready, ""));
        let mut receiver = Running::start(&self.name, &self.receiver(from, certificate, to), self.wan.as_deref(), 1)?;
        let done = receiver.line("done").await?;
        let (taken, seconds) = done.split_once(' ').ok_or_else(|| problem("it is done, and does not say when"))?;
        let taken: u64 = taken.parse().map_err(|_| problem("it does not say how much came"))?;
        let seconds: f64 = seconds.parse().map_err(|_| problem("it does not say how long it took"))?;
        let had_time = self.within.is_none_or(|within| seconds < within.as_secs_f64());
        if taken > bytes || (had_time && taken < bytes) {
            return Err(problem(&format!("{taken} of {bytes} bytes came")));
        }
        let (sent, received) = (sender.usage()?, receiver.usage()?);
        sender.dismiss().await;
        receiver.dismiss().await;
        let sender = Usage { cpu_seconds: sent.cpu_seconds - began.cpu_seconds, ..sent };
        Ok(Round { bytes: taken, seconds, sender, receiver: received })
    }

    fn sender(&self, file: &Path, bytes: u64) -> Vec<String> {
        let address = self.wan.as_ref().map_or(Ipv4Addr::LOCALHOST, |_| Wan::address(0));
        let (listen, bytes) = (SocketAddr::from((address, 0)).to_string(), bytes.to_string());
        match self.end {
            End::Quinn { ours: false } => words(&["quinn-send", "--listen", &listen, "--bytes", &bytes]),
            End::Quinn { ours: true } => words(&["quinn-send", "--listen", &listen, "--bytes", &bytes, "--ours"]),
            End::Https => words(&["https-serve", "--file", &file.display().to_string()]),
            End::Tcp(name) => words(&["tcp-send", "--listen", &listen, "--bytes", &bytes, "--congestion", name]),
        }
    }

    fn receiver(&self, from: &str, certificate: &str, to: &Path) -> Vec<String> {
        let mut arguments = match self.end {
            End::Quinn { .. } => words(&["quinn-take", "--from", from, "--certificate", certificate]),
            End::Https => {
                words(&["https-take", "--from", from, "--certificate", certificate, "--to", &to.display().to_string()])
            }
            End::Tcp(_) => words(&["tcp-take", "--from", from]),
        };
        if let End::Quinn { ours: true } = self.end {
            arguments.push("--ours".to_owned());
        }
        if let Some(within) = self.within {
            arguments.extend(["--within".to_owned(), within.as_secs().to_string()]);
        }
        arguments
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A process of this program that is one end.
struct Running {
    contender: String,
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(contender: &str, arguments: &[String], wan: Option<&Wan>, place: Place) -> Result<Self, BenchError> {
        let cannot = |source| BenchError::Io { what: format!("start an end of `{contender}`"), source };
        let program = std::env::current_exe().map_err(cannot)?;
        let mut command = match wan {
            Some(wan) => wan.command(place, program)?,
            None => Command::new(program),
        };
        let child = command
            .arg("bench-end")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(cannot)?;
        let lines = child.stdout.take().ok_or_else(|| cannot(io::Error::other("it has no standard output")))?;
        Ok(Self { contender: contender.to_owned(), child, lines: BufReader::new(lines) })
    }

    /// What follows `word` in the next line.
    async fn line(&mut self, word: &str) -> Result<String, BenchError> {
        let mut line = String::new();
        let problem = |problem: String| BenchError::Contender { contender: self.contender.clone(), problem };
        match timeout(WAIT_MAX, self.lines.read_line(&mut line)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(problem(error.to_string())),
            Err(_) => return Err(problem(format!("it says nothing for {} s", WAIT_MAX.as_secs()))),
        }
        let rest = line.trim_end().strip_prefix(word).map(|rest| rest.trim_start().to_owned());
        rest.ok_or_else(|| problem(format!("it says `{}` instead of `{word}`", line.trim_end())))
    }

    fn usage(&self) -> Result<Usage, BenchError> {
        usage(self.child.id())
    }

    async fn dismiss(mut self) {
        drop(self.child.stdin.take());
        // It is killed when it is dropped.
        let _ = timeout(Duration::from_secs(5), self.child.wait()).await;
    }
}

/// What a process has used so far.
///
/// # Errors
/// It is gone, or this is not Linux.
pub fn usage(pid: Option<u32>) -> Result<Usage, BenchError> {
    let gone = || io_error("find a process that is measured".to_owned())(io::ErrorKind::NotFound.into());
    let pid = pid.ok_or_else(gone)?;
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).map_err(io_error(format!("read `{path}`")))
    };
    // proc(5): utime and stime are fields 14 and 15; the second field is in brackets and may hold spaces.
    let stat = read("stat")?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).ok_or_else(gone)?;
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let status = read("status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    let second = as_f64(rustix::param::clock_ticks_per_second());
    Ok(Usage { cpu_seconds: as_f64(ticks) / second, peak_bytes: peak.unwrap_or_default() * 1024, spent: None })
}

/// Counts the peak of a process's memory anew.
///
/// # Errors
/// It is gone, or not one of this user's.
pub fn forget_peak(pid: Option<u32>) -> Result<(), BenchError> {
    let path = format!("/proc/{}/clear_refs", pid.unwrap_or_default());
    // proc(5): 5 resets the peak resident set size.
    fs::write(&path, "5").map_err(io_error(format!("write `{path}`")))
}
