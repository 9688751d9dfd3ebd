//! What the tests stand on: a network of real daemons, the command line under its real name, and the waiting for things.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    future::Future,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use alliance_protocol::{
    charter::WitnessRule,
    core::admin::{AdminCall, CrossingView, NodeStatus, OfferView, PeerView, PullCall, Reply},
    id::CrossingId,
    vocabulary::{Purpose, Use},
};
use alliance_testnet::{
    network::{Network, Options, TestNode},
    sample,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::process::Command;

/// Nothing here takes so long; this only ends a hang.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Bytes of a small model, more than what a denied crossing may cost on the wire.
pub(crate) const SMALL: u64 = 1_000_000;

/// The program under test.
pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_alliance-testnet").into()
}

/// The commands under their own names, in a directory of their own.
pub(crate) struct Bin(TempDir);

impl Bin {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["alliance", "allianced"] {
            std::os::unix::fs::symlink(program(), dir.path().join(name)).expect("linked");
        }
        Self(dir)
    }

    /// A command with an environment in which nothing says where a home is.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.0.path().join(name));
        command.env_remove("ALLIANCE_HOME").env_remove("SSLKEYLOGFILE").env_remove("RUST_LOG").kill_on_drop(true);
        command
    }

    /// `alliance` with these arguments.
    pub(crate) async fn alliance<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        ended(self.command("alliance").args(arguments)).await
    }

    /// `allianced` on a home, to its end.
    pub(crate) async fn allianced(&self, home: &Path) -> Ran {
        ended(self.command("allianced").arg("--home").arg(home)).await
    }
}

/// What a process said, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Fails unless it ended with this code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Fails unless it succeeded.
    #[track_caller]
    pub(crate) fn good(self) -> Self {
        self.with(0)
    }

    /// Fails unless it said every one of these on standard error.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is missing: {self:?}");
        }
        self
    }

    /// Fails unless it printed every one of these on standard output.
    #[track_caller]
    pub(crate) fn shows(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.out.contains(part), "`{part}` is missing: {self:?}");
        }
        self
    }

    /// The one value that was printed as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The values that were printed as JSON, one a line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        self.out.lines().map(parse).collect()
    }

    /// The problem that was printed as JSON.
    #[track_caller]
    pub(crate) fn problem(&self) -> Value {
        let last = self.err.lines().last().unwrap_or_default();
        serde_json::from_str::<Value>(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))["error"].clone()
    }
}

/// Runs a command to its end.
pub(crate) async fn ended(command: &mut Command) -> Ran {
    let running = command.stdin(Stdio::null()).output();
    let output = tokio::time::timeout(HANG, running).await.expect("it ends").expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Looks until there is something to see.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = Instant::now() + HANG;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < end, "{what} did not come about");
        tokio::time::sleep(LOOK).await;
    }
}

/// A running network and the commands to talk to it.
pub(crate) struct Stage {
    pub(crate) bin: Bin,
    pub(crate) network: Network,
    /// For artefacts and what is pulled.
    pub(crate) dir: TempDir,
}

impl Stage {
    /// A network of these members in which nothing runs yet.
    pub(crate) fn found(members: &[&str]) -> Self {
        Self::found_under(members, None)
    }

    /// As [`Stage::found`], with ledgers witnessed as this rule demands.
    pub(crate) fn found_under(members: &[&str], witnesses: Option<WitnessRule>) -> Self {
        let members = members.iter().map(|country| country.parse().expect("a country")).collect();
        Self::found_with(Options { members, nodes: None, home: None, program: Some(program()), wan: None, witnesses })
    }

    /// A network as described, in which nothing runs yet.
    pub(crate) fn found_with(options: Options) -> Self {
        let network = Network::found(options).expect("founded");
        Self { bin: Bin::new(), network, dir: tempfile::tempdir().expect("a directory") }
    }

    /// A network of these members with every law in force.
    pub(crate) async fn up(members: &[&str]) -> Self {
        Self::found(members).started().await
    }

    /// With every daemon up and every law in force.
    pub(crate) async fn started(mut self) -> Self {
        self.network.start().await.expect("started");
        self
    }

    /// What the node of a country knows of others.
    pub(crate) async fn peers(&self, country: &str) -> Vec<PeerView> {
        match self.node(country).call(&AdminCall::Peers).await.expect("an answer") {
            Reply::Peers(peers) => peers,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn node(&self, country: &str) -> &TestNode {
        self.network.node_of(country).expect("a member")
    }

    pub(crate) fn node_mut(&mut self, country: &str) -> &mut TestNode {
        self.network.nodes_all_mut().find(|node| node.country().as_str() == country).expect("a member")
    }

    pub(crate) fn home(&self, country: &str) -> PathBuf {
        self.node(country).home().root().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `alliance --home HOME` with these words.
    pub(crate) async fn cli(&self, country: &str, words: &[&str]) -> Ran {
        let mut command = self.bin.command("alliance");
        ended(command.arg("--home").arg(self.home(country)).args(words)).await
    }

    /// As [`Stage::cli`], with JSON.
    pub(crate) async fn cli_json(&self, country: &str, words: &[&str]) -> Ran {
        self.cli(country, &[&["-o", "json"], words].concat()).await
    }

    /// Writes a sample model, imports it at a node with the command line, offers it with these further words, and waits until
    /// the other node knows of it. Gives the offer's name and the model's directory.
    pub(crate) async fn offer(&self, from: &str, to: &str, bytes: u64, terms: &[&str]) -> (String, PathBuf) {
        let word = format!("model-{bytes}-{}", terms.concat().replace(['-', ',', ' '], ""));
        let name = format!("{}/{word}", self.node(from).organisation());
        let dir = self.path(&word);
        if bytes > 2 * SMALL {
            write_noise(&dir, bytes);
        } else {
            sample::write_sample(&dir, 7, bytes).expect("written");
        }
        let dir_text = dir.to_str().expect("UTF-8");
        self.cli(from, &["model", "import", dir_text, "--name", &name, "--labels", "public,non_personal"]).await.good();
        self.cli(from, &[&["offer", "publish", &name], terms].concat()).await.good();
        self.known(to, &name).await;
        (name, dir)
    }

    /// Waits until a node knows an offer of this name.
    pub(crate) async fn known(&self, country: &str, name: &str) -> OfferView {
        let node = self.node(country);
        until("an offer in a catalogue", || async {
            match node.call(&AdminCall::Offers).await {
                Ok(Reply::Offers(offers)) => offers.into_iter().find(|offer| offer.name == name),
                other => panic!("{other:?}"),
            }
        })
        .await
    }

    /// The authority of a member publishes a law that forbids nothing; until these nodes have it.
    pub(crate) async fn open_law(&self, member: &str, nodes: &[&str]) {
        let (file, root) = (self.path("open.cedar"), self.network.root());
        let heads = format!("@id(\"{member}-00\") @title(\"The rest\") @design(\"for a test\") @status(\"residual\")");
        let law = format!("{heads}\npermit (principal, action, resource);\n");
        fs::write(&file, law).expect("written");
        let (authority, charter, home) =
            (root.join("authorities").join(member), root.join("charter.alliance"), self.home(nodes[0]));
        let publish =
            ["authority", "publish", "--dir", text(&authority), "--charter", text(&charter), "--law", text(&file)];
        self.bin.alliance(publish.into_iter().chain(["--node-home", text(&home)])).await.good();
        let member = member.parse().expect("a country");
        for country in nodes {
            let new =
                |status: &NodeStatus| status.members.iter().any(|known| known.country == member && known.epoch == Some(2));
            self.node(country).until("the new law", new).await.expect("in force");
        }
    }

    pub(crate) async fn crossing(&self, country: &str, id: CrossingId) -> CrossingView {
        match self.node(country).call(&AdminCall::Crossing(id)).await.expect("an answer") {
            Reply::Crossing(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    /// Fails unless the ledgers of all members are whole.
    pub(crate) async fn verify_ledgers(&self) {
        for node in self.network.nodes() {
            self.cli(node.country().as_str(), &["ledger", "verify"]).await.good();
        }
    }

    /// The size of a node's ledger, from its files.
    pub(crate) async fn ledger_size(&self, country: &str) -> u64 {
        self.cli_json(country, &["ledger", "verify"]).await.good().json()["entries"].as_u64().expect("a number")
    }

    pub(crate) async fn stop(self) {
        self.network.stop().await;
    }
}

/// Begins a pull over the local API, for inference in research.
pub(crate) async fn begin_pull(importer: &TestNode, name: &str, to: &Path) -> CrossingId {
    let pull = PullCall {
        offer: name.to_owned(),
        purpose: Purpose::Research,
        use_: Use::Inference,
        circumstances: [].into(),
        safeguards: Vec::new(),
        to: to.to_owned(),
        sources: 1,
        onward: false,
        tensors: Vec::new(),
        read_meanwhile: false,
    };
    match importer.call(&AdminCall::Pull(pull)).await.expect("an answer") {
        Reply::Pulling { crossing } => crossing,
        other => panic!("{other:?}"),
    }
}

/// Waits until a crossing is over at a node.
pub(crate) async fn over(node: &TestNode, crossing: CrossingId) -> CrossingView {
    until("the end of a crossing", || async {
        match node.call(&AdminCall::Crossing(crossing)).await.expect("an answer") {
            Reply::Crossing(view) => Some(*view).filter(|view| view.state.is_final()),
            other => panic!("{other:?}"),
        }
    })
    .await
}

/// Writes a model of one tensor of noise: quicker than a sample, and no part of it is like another.
pub(crate) fn write_noise(dir: &Path, bytes: u64) {
    fs::create_dir(dir).expect("made");
    let header = format!(r#"{{"noise":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let length = u64::try_from(header.len()).expect("short").to_le_bytes();
    let mut file = fs::File::create(dir.join("model.safetensors")).expect("made");
    let noise = blake3::Hasher::new().finalize_xof().take(bytes);
    let written = io::copy(&mut io::Read::chain(&length[..], header.as_bytes()), &mut file)
        .and_then(|_| io::copy(&mut io::BufReader::with_capacity(1 << 20, noise), &mut file));
    assert_eq!(written.expect("written"), bytes);
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Every file below a directory with its SHA-256, by its path in it.
pub(crate) fn digests(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("read").path();
            let kind = fs::symlink_metadata(&path).expect("there").file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(root).expect("inside").to_owned();
                found.insert(name, sha256(&path).expect("read"));
            }
        }
    }
    found
}

fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut buffer) = (fs::File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Copies a directory with the permissions of everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("read") {
        let path = entry.expect("read").path();
        let place = to.join(path.file_name().expect("a name"));
        let kind = fs::symlink_metadata(&path).expect("there").file_type();
        if kind.is_dir() {
            copy(&path, &place);
        } else if kind.is_file() {
            fs::copy(&path, &place).expect("copied");
        }
    }
    fs::set_permissions(to, fs::metadata(from).expect("there").permissions()).expect("set");
}

/// The names in a directory; none if it does not exist.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The ids of running processes whose command line holds a text.
pub(crate) fn processes_of(text: &str) -> Vec<u32> {
    let numbered = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<u32>().ok();
    let speaks = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    let mut pids: Vec<u32> = fs::read_dir("/proc").expect("read").filter_map(numbered).filter(speaks).collect();
    pids.retain(|pid| *pid != std::process::id());
    pids
}

/// Sends a signal to a process that the test started.
pub(crate) async fn signal(pid: u32, name: &str) {
    ended(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")])).await.good();
}
