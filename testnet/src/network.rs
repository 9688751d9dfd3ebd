//! An alliance of real processes: for every member an authority and its nodes, each with a home of its own; all on loopback,
//! or each in a network namespace of its own, with distances between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use alliance_node::{
    api::{ApiClient, ClientError},
    authority::{AccreditRequest, AuthorityDir, AuthorityError, PublishRequest, SafeguardRequest},
    config::Config,
    daemon,
    home::{Home, HomeError},
};
use alliance_protocol::{
    authority::Organisation,
    charter::{Charter, CharterError, Chartered, WitnessRule},
    core::admin::{AdminCall, NodeStatus, OfferView, Reply},
    id::StatementId,
    key::PublicKey,
    time::Timestamp,
    vocabulary::{Country, Label, NodeRole, OrganisationRole, SafeguardKind, Tier},
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::wan::{Wan, WanError, link::Place};

/// What a network is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub members: Vec<Country>,
    /// How many nodes there are, as many of each member as of any other, or one more of the last ones. Without it, one of each
    /// and a second one of the last.
    pub nodes: Option<usize>,
    /// Where everything is kept; none throws it away at the end.
    pub home: Option<PathBuf>,
    /// The program that the nodes run; none is this one. It must be an `alliance-testnet`.
    pub program: Option<PathBuf>,
    /// Where the nodes are: in the order of [`Network::countries_of`], each at the place of its number. None is loopback.
    pub wan: Option<Arc<Wan>>,
    /// How ledgers are witnessed; without it, as suits that many members.
    pub witnesses: Option<WitnessRule>,
}

/// Members, authorities, nodes. [`Network::stop`] ends every process; dropping kills them.
pub struct Network {
    root: PathBuf,
    program: PathBuf,
    chartered: Chartered,
    members: Vec<Member>,
    /// Removes everything at the end, unless the user keeps it.
    _temporary: Option<TempDir>,
}

struct Member {
    country: Country,
    /// The authority's directory; opened only while it is used, so that its officers can work in it too.
    authority: PathBuf,
    nodes: Vec<TestNode>,
}

/// One node: its home, and its process while it runs.
pub struct TestNode {
    country: Country,
    organisation: String,
    key: PublicKey,
    home: Home,
    program: PathBuf,
    process: Option<Child>,
    site: Site,
}

/// Where a node runs.
#[derive(Clone, Debug)]
enum Site {
    Loopback,
    Wan(Arc<Wan>, Place),
}

/// Why a network cannot be made, started or used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("an alliance needs from 2 to 11 different members, and {0} are given")]
    Members(usize),
    #[error("every member has a node, so that {nodes} are too few for {members} members")]
    Nodes { nodes: usize, members: usize },
    #[error("no law pack of {0} is part of this program; choose from {known}", known = alliance_policy::FOUNDING_MEMBERS.join(", "))]
    NoLaw(Country),
    #[error("`{}` is not empty; give an empty or a new directory as --home", .0.display())]
    NotEmpty(PathBuf),
    #[error("cannot {what} `{}`", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("the charter does not hold")]
    Charter(#[from] CharterError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Wan(#[from] WanError),
    #[error("the daemon of {node} ended ({status}); its log says:\n{log}")]
    Ended { node: String, status: String, log: String },
    #[error("{what} did not come about within {} s", WAIT_MAX.as_secs())]
    Waited { what: String },
    #[error("{node} does not answer")]
    Api {
        node: String,
        #[source]
        source: ClientError,
    },
    #[error("{node} answered {reply} to {call}")]
    Answer { node: String, call: &'static str, reply: String },
}

/// How long anything of the network may take to come about. It takes moments; this only ends a hang.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Nodes that begin at a time: each connects to all others, and must be admitted by them within seconds.
const AT_ONCE: u32 = 12;

/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// How long a daemon may take to end before it is killed.
const STOPPING_MAX: Duration = Duration::from_secs(5);

/// How long entries of a ledger may stand without witnesses in a test network.
const WITNESS_GRACE_MS: u64 = 10 * 60 * 1000;

/// How long a status of a test authority counts: a working day at the screen.
const STATUS_MS: u64 = 12 * 60 * 60 * 1000;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Fictional organisations of the members.
const ORGANISATIONS: [(&str, &str, &str); 11] = [
    ("BR", "ipe-lab", "Autoridade de Teste (BR)"),
    ("RU", "onega-institute", "Test authority (RU)"),
    ("IN", "sagar-labs", "Test authority (IN)"),
    ("CN", "yunhai-lab", "Test authority (CN)"),
    ("ZA", "karoo-ai", "Test authority (ZA)"),
    ("EG", "siwa-lab", "Test authority (EG)"),
    ("ET", "tana-lab", "Test authority (ET)"),
    ("IR", "alborz-lab", "Test authority (IR)"),
    ("AE", "liwa-lab", "Test authority (AE)"),
    ("ID", "toba-lab", "Test authority (ID)"),
    ("SA", "asir-lab", "Test authority (SA)"),
];

impl Network {
    /// Founds an alliance: authorities, a charter that all of them sign, and for each member its nodes with their
    /// accreditations. No process is started yet.
    ///
    /// # Errors
    /// The members make no alliance, or the disk does not permit it.
    pub fn found(options: Options) -> Result<Self, NetworkError> {
        let members: BTreeSet<_> = options.members.iter().copied().collect();
        if members.len() != options.members.len() || !(2..=11).contains(&members.len()) {
            return Err(NetworkError::Members(members.len()));
        }
        if let Some(country) = members.iter().find(|country| alliance_policy::founding_pack_text(**country).is_none()) {
            return Err(NetworkError::NoLaw(*country));
        }
        let countries = Self::countries_of(&options.members, options.nodes);
        if countries.len() < members.len() {
            return Err(NetworkError::Nodes { nodes: countries.len(), members: members.len() });
        }
        let (root, temporary) = place(options.home)?;
        let program =
            options.program.map_or_else(std::env::current_exe, Ok).map_err(file("find the program for", &root))?;
        let now = now();

        let mut members = Vec::new();
        let mut seats = BTreeMap::new();
        for country in &options.members {
            let (_, name) = organisation(*country);
            let authority = root.join("authorities").join(country.as_str());
            fs::create_dir_all(root.join("authorities")).map_err(file("make", &authority))?;
            seats.insert(*country, AuthorityDir::create(&authority, *country, name, 3, 2)?.public().into());
            members.push(Member { country: *country, authority, nodes: Vec::new() });
        }
        let charter = Charter {
            name: "Test alliance".to_owned(),
            version: 1,
            issued: now,
            threshold: u32::try_from(members.len()).unwrap_or(u32::MAX),
            previous: None,
            witnesses: options.witnesses.unwrap_or(WitnessRule {
                // One country's nodes may be down without stopping the others.
                countries: if members.len() > 3 { 2 } else { 1 },
                grace_ms: WITNESS_GRACE_MS,
            }),
            members: seats,
        };
        let mut bytes = Chartered::draft(&charter)?.to_bytes();
        for member in &members {
            bytes = AuthorityDir::open(&member.authority)?.sign_charter(&bytes, None)?.bytes().to_vec();
        }
        let chartered = Chartered::found(&bytes)?;
        write(&root.join("charter.alliance"), &bytes)?;
        fs::create_dir_all(root.join("nodes")).map_err(file("make", &root))?;

        let maker = Maker { root: &root, program: &program, chartered: &chartered, now };
        for (country, site) in countries.iter().zip(sites(options.wan, countries.len())?) {
            for member in members.iter_mut().filter(|member| member.country == *country) {
                let (name, _) = organisation(member.country);
                let name = match member.nodes.len() {
                    0 => name.to_owned(),
                    1 => format!("{name}-archive"),
                    before => format!("{name}-{}", before + 1),
                };
                member.nodes.push(maker.node(member, &name, site.clone())?);
            }
        }
        Ok(Self { root, program, chartered, members, _temporary: temporary })
    }

    /// The countries of the nodes that a network of these members has, in their order.
    #[must_use]
    pub fn countries(members: &[Country]) -> Vec<Country> {
        Self::countries_of(members, None)
    }

    /// As [`Network::countries`], where it has so many nodes ([`Options::nodes`]).
    #[must_use]
    pub fn countries_of(members: &[Country], nodes: Option<usize>) -> Vec<Country> {
        let nodes = nodes.unwrap_or(members.len() + 1);
        let share = nodes.checked_div(members.len()).unwrap_or(0);
        let with_one_more = members.len().saturating_sub(nodes - share * members.len());
        let of = |(at, member): (usize, &Country)| vec![*member; share + usize::from(at >= with_one_more)];
        members.iter().enumerate().flat_map(of).collect()
    }

    /// Starts every node, publishes every member's law and status, and waits until all nodes know all of it.
    ///
    /// # Errors
    /// A daemon does not start, or the mesh does not come about.
    pub async fn start(&mut self) -> Result<(), NetworkError> {
        let mut bootstrap = Vec::new();
        for (before, node) in (0_u32..).zip(self.members.iter_mut().flat_map(|member| &mut member.nodes)) {
            node.bootstrap(&bootstrap)?;
            node.launch()?;
            if bootstrap.is_empty() {
                bootstrap = node.until_up().await?.mesh_addresses;
            } else if before % AT_ONCE == 0 {
                node.until("its peers", |status| status.peers_admitted >= before).await?;
            }
        }
        for member in &self.members {
            for node in &member.nodes {
                node.until_up().await?;
            }
            self.publish(member).await?;
        }
        let all = self.nodes_all().count();
        for node in self.nodes_all() {
            let ready = |status: &NodeStatus| {
                usize::try_from(status.peers_admitted).unwrap_or(0) + 1 == all
                    && status.members.iter().all(|member| member.fresh)
                    && status.witnessed.problem.is_none()
            };
            node.until("a mesh of all nodes with all law in force", ready).await?;
        }
        Ok(())
    }

    /// Publishes the member's law pack and status through its first node.
    async fn publish(&self, member: &Member) -> Result<(), NetworkError> {
        let request = PublishRequest { status_ms: STATUS_MS, ..PublishRequest::default() };
        let mut authority = AuthorityDir::open(&member.authority)?;
        let published = authority.publish(&self.chartered, &request, now(), &alliance_policy::CedarGate::default())?;
        let Some(node) = member.nodes.first() else { return Ok(()) };
        let statements = [published.law_pack.bytes(), published.status.bytes()];
        let statements = statements.into_iter().map(|bytes| bytes.to_vec().into()).collect();
        match node.call(&AdminCall::Adopt(statements)).await? {
            Reply::Adopted { .. } => Ok(()),
            other => Err(node.answered("adopt", &other)),
        }
    }

    /// The authority of a node revokes it, and publishes that through its other node.
    ///
    /// # Errors
    /// The authority or its node fails, or a node does not hear of it.
    pub async fn revoke(&self, node: &TestNode) -> Result<(), NetworkError> {
        for member in self.members.iter().filter(|member| member.country == node.country) {
            AuthorityDir::open(&member.authority)?.revoke(node.key)?;
            self.publish(member).await?;
        }
        // The others stop talking to the revoked node as soon as they hear of it, so that it may not hear of it itself.
        for other in self.nodes_all().filter(|other| other.key != node.key) {
            let heard = |status: &NodeStatus| status.members.iter().any(|m| m.country == node.country && m.revoked > 0);
            other.until("word of the revocation", heard).await?;
        }
        Ok(())
    }

    /// A safeguard that a member's authority issues.
    ///
    /// # Errors
    /// There is no such member, or its authority cannot sign.
    pub fn safeguard(
        &self,
        issuer: Country,
        kind: SafeguardKind,
        from: Country,
        to: Country,
        labels: &BTreeSet<Label>,
        recipient: Option<PublicKey>,
    ) -> Result<Vec<u8>, NetworkError> {
        let member = self.members.iter().find(|member| member.country == issuer).ok_or(NetworkError::NoLaw(issuer))?;
        let request = SafeguardRequest {
            kind,
            from,
            to,
            labels: labels.clone(),
            recipient,
            rules: BTreeSet::new(),
            // Long enough ago for every waiting period.
            filed: (kind == SafeguardKind::RegulatorNotification).then(|| now().minus_ms(60 * DAY_MS)),
            valid_ms: 30 * DAY_MS,
            reference: format!("{issuer}/{kind}/2026/1"),
        };
        let authority = AuthorityDir::open(&member.authority)?;
        Ok(authority.issue_safeguard(&self.chartered, &request, now())?.bytes().to_vec())
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The first node of each member, in the order in which the members were given.
    pub fn nodes(&self) -> impl Iterator<Item = &TestNode> {
        self.members.iter().filter_map(|member| member.nodes.first())
    }

    pub fn nodes_all(&self) -> impl Iterator<Item = &TestNode> {
        self.members.iter().flat_map(|member| &member.nodes)
    }

    pub fn nodes_all_mut(&mut self) -> impl Iterator<Item = &mut TestNode> {
        self.members.iter_mut().flat_map(|member| &mut member.nodes)
    }

    /// The first node of a member, by its code.
    #[must_use]
    pub fn node_of(&self, country: &str) -> Option<&TestNode> {
        self.nodes().find(|node| node.country.as_str() == country)
    }

    /// The first node of the member that was given last.
    #[must_use]
    pub fn last_member(&self) -> Option<&TestNode> {
        self.nodes().last()
    }

    /// The node that can be revoked without anything else depending on it: the second one of the last member.
    #[must_use]
    pub fn revocable(&self) -> Option<&TestNode> {
        self.nodes_all().last()
    }

    /// Waits until a node's catalogue has an offer of this name.
    ///
    /// # Errors
    /// It does not come about, or the node does not answer.
    pub async fn until_offered(&self, node: &TestNode, name: &str) -> Result<(), NetworkError> {
        let has = |offers: &[OfferView]| offers.iter().any(|view| view.name == name);
        node.until_offers("an offer of that name in the catalogue", has).await
    }

    /// Waits until a node's catalogue has an offer, or has it no longer.
    ///
    /// # Errors
    /// It does not come about, or the node does not answer.
    pub async fn until_known(&self, node: &TestNode, offer: StatementId, known: bool) -> Result<(), NetworkError> {
        let what = if known { "an offer in the catalogue" } else { "the end of an offer in the catalogue" };
        node.until_offers(what, |offers| offers.iter().any(|view| view.offer == offer) == known).await
    }

    /// Links `alliance` and `allianced` to this program, and tells how to talk to each node.
    ///
    /// # Errors
    /// The links cannot be made.
    pub fn how_to_talk(&self) -> Result<String, NetworkError> {
        let bin = self.root.join("bin");
        fs::create_dir_all(&bin).map_err(file("make", &bin))?;
        for name in ["alliance", "allianced"] {
            let link = bin.join(name);
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file("replace", &link)(error)),
                Ok(()) | Err(_) => {}
            }
            std::os::unix::fs::symlink(&self.program, &link).map_err(file("make", &link))?;
        }
        let mut text = format!("\nTalk to the nodes, in another terminal:\n\n    export PATH={}:$PATH\n", bin.display());
        for node in self.nodes_all() {
            text.push_str(&format!("    alliance --home {} status    # {}\n", node.home.root().display(), node.country));
        }
        text.push_str("\nTry also: peers, offer list, crossing list, ledger verify, pull NAME.");
        Ok(text)
    }

    /// Waits for ever, unless a daemon ends.
    ///
    /// # Errors
    /// Which daemon ended, and what its log says.
    pub async fn watch(&mut self) -> Result<(), NetworkError> {
        loop {
            for node in self.nodes_all_mut() {
                node.check_alive()?;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Ends every process: asks all first, then kills what does not end.
    pub async fn stop(mut self) {
        self.stop_all().await;
    }

    /// Ends every process; the network can be started again.
    pub async fn stop_all(&mut self) {
        for node in self.nodes_all_mut() {
            node.ask_to_end();
        }
        for node in self.nodes_all_mut() {
            node.wait_for_end().await;
        }
    }
}

impl TestNode {
    #[must_use]
    pub fn country(&self) -> Country {
        self.country
    }

    #[must_use]
    pub fn organisation(&self) -> &str {
        &self.organisation
    }

    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The id of the process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Child::id)
    }

    fn bootstrap(&self, addresses: &[String]) -> Result<(), NetworkError> {
        let mut config = self.site.config();
        config.mesh.bootstrap = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        write(&self.home.config_path(), config.to_text().as_bytes())
    }

    /// A program that runs where the daemon runs, so that it reaches what that serves on loopback.
    ///
    /// # Errors
    /// Its network is gone.
    pub fn beside(&self, program: impl AsRef<OsStr>) -> Result<Command, NetworkError> {
        Ok(match &self.site {
            Site::Loopback => Command::new(program),
            Site::Wan(wan, place) => wan.command(*place, program)?,
        })
    }

    /// Starts the daemon as a child process whose life depends on this one: it ends when its standard input does.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn launch(&mut self) -> Result<(), NetworkError> {
        let log = self.log_path();
        let output = fs::File::options().create(true).append(true).open(&log).map_err(file("open", &log))?;
        let child = self
            .beside(&self.program)?
            .arg("daemon")
            .arg("--home")
            .arg(self.home.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        self.process = Some(child.map_err(file("run", &self.program))?);
        Ok(())
    }

    /// Ends the daemon without a chance to say anything, as SIGKILL does.
    ///
    /// # Errors
    /// The process cannot be killed.
    pub async fn kill(&mut self) -> Result<(), NetworkError> {
        if let Some(mut process) = self.process.take() {
            let path = self.home.root().to_owned();
            process.kill().await.map_err(file("kill the daemon of", &path))?;
        }
        Ok(())
    }

    /// Ends the daemon in good order.
    pub async fn stop(&mut self) {
        self.ask_to_end();
        self.wait_for_end().await;
    }

    fn ask_to_end(&mut self) {
        if let Some(process) = &mut self.process {
            // The daemon ends when its standard input does.
            drop(process.stdin.take());
        }
    }

    async fn wait_for_end(&mut self) {
        if let Some(mut process) = self.process.take()
            && tokio::time::timeout(STOPPING_MAX, process.wait()).await.is_err()
            && let Err(error) = process.kill().await
        {
            eprintln!("alliance-testnet: the daemon of {} cannot be killed: {error}", self.organisation);
        }
    }

    fn check_alive(&mut self) -> Result<(), NetworkError> {
        match self.process.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Err(self.ended(status.to_string())),
            Some(Err(error)) => Err(self.ended(error.to_string())),
            Some(Ok(None)) | None => Ok(()),
        }
    }

    fn ended(&self, status: String) -> NetworkError {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(12).collect();
        let log = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        NetworkError::Ended { node: self.organisation.clone(), status, log }
    }

    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.home.root().join("allianced.log")
    }

    /// Asks the node over its local API. A refusal of the node is an answer.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn call(&self, call: &AdminCall) -> Result<Reply, NetworkError> {
        let client = ApiClient::connect(&self.home).await;
        let api = |source| NetworkError::Api { node: self.organisation.clone(), source };
        match client.map_err(api)?.call(call).await {
            Err(ClientError::Refused(failure)) => Ok(Reply::Failed(failure)),
            answer => answer.map_err(api),
        }
    }

    /// The node's status.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self) -> Result<NodeStatus, NetworkError> {
        match self.call(&AdminCall::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(self.answered("status", &other)),
        }
    }

    fn answered(&self, call: &'static str, reply: &Reply) -> NetworkError {
        NetworkError::Answer { node: self.organisation.clone(), call, reply: format!("{reply:?}") }
    }

    async fn until_offers(&self, what: &str, good: impl Fn(&[OfferView]) -> bool) -> Result<(), NetworkError> {
        let until = Instant::now() + WAIT_MAX;
        while Instant::now() < until {
            match self.call(&AdminCall::Offers).await? {
                Reply::Offers(offers) if good(&offers) => return Ok(()),
                Reply::Offers(_) => tokio::time::sleep(LOOK).await,
                other => return Err(self.answered("offers", &other)),
            }
        }
        Err(NetworkError::Waited { what: format!("{what} of {}", self.organisation) })
    }

    /// Waits until the daemon answers.
    ///
    /// # Errors
    /// It ended, or does not answer in time.
    pub async fn until_up(&self) -> Result<NodeStatus, NetworkError> {
        self.until("an answer of the daemon", |_| true).await
    }

    /// Waits until the node's status is as wanted.
    ///
    /// # Errors
    /// It does not come about; with the end of the node's log.
    pub async fn until(&self, what: &str, good: impl Fn(&NodeStatus) -> bool) -> Result<NodeStatus, NetworkError> {
        let until = Instant::now() + WAIT_MAX;
        while Instant::now() < until {
            match self.status().await {
                Ok(status) if good(&status) => return Ok(status),
                Ok(_) | Err(NetworkError::Api { .. }) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(self.ended(format!("{what} did not come about within {} s", WAIT_MAX.as_secs())))
    }
}

/// What all nodes of a network are made from.
struct Maker<'a> {
    root: &'a Path,
    program: &'a Path,
    chartered: &'a Chartered,
    now: Timestamp,
}

impl Maker<'_> {
    fn node(&self, member: &Member, organisation: &str, site: Site) -> Result<TestNode, NetworkError> {
        let home = Home::at(&self.root.join("nodes").join(organisation))?;
        let key = home.create(&site.config(), false)?.node;
        let request = AccreditRequest {
            node: key,
            organisation: Organisation {
                name: organisation.to_owned(),
                roles: BTreeSet::from([OrganisationRole::Controller, OrganisationRole::University]),
                controlled_by: None,
                state_controlled: false,
            },
            zone: None,
            roles: BTreeSet::from([NodeRole::Exporter, NodeRole::Importer]),
            tier: Tier::default(),
            place: None,
            from: None,
            valid_ms: 365 * DAY_MS,
        };
        let accreditation = AuthorityDir::open(&member.authority)?.accredit(self.chartered, &request, self.now)?;
        home.install(Some(&self.chartered.to_log()), Some(accreditation.bytes()), self.now)?;
        let (country, organisation) = (member.country, organisation.to_owned());
        Ok(TestNode { country, organisation, key, home, program: self.program.to_owned(), process: None, site })
    }
}

/// What a child process does: runs the daemon until its standard input ends, a signal comes or it fails.
#[must_use]
pub fn be_a_node(home: &Path) -> ExitCode {
    let parent_gone = async {
        let mut input = tokio::io::stdin();
        let mut nothing = [0; 64];
        // Bytes mean nothing; the end, or an error, means that the parent has gone.
        while matches!(tokio::io::AsyncReadExt::read(&mut input, &mut nothing).await, Ok(1..)) {}
    };
    let outcome = Home::at(home).map_err(daemon::DaemonError::Home).and_then(|home| daemon::main_until(&home, parent_gone));
    let code = daemon::report(outcome);
    // A blocked read of standard input would keep the runtime's thread, and with it the process, alive.
    std::process::exit(i32::from(code.number()))
}

fn place(home: Option<PathBuf>) -> Result<(PathBuf, Option<TempDir>), NetworkError> {
    let fail = |path: &Path| file("use", path);
    match home {
        Some(path) => {
            fs::create_dir_all(&path).map_err(fail(&path))?;
            let path = fs::canonicalize(&path).map_err(fail(&path))?;
            match fs::read_dir(&path).map_err(fail(&path))?.next() {
                None => Ok((path, None)),
                Some(_) => Err(NetworkError::NotEmpty(path)),
            }
        }
        None => {
            let directory = tempfile::Builder::new().prefix("alliance-").tempdir().map_err(fail(&std::env::temp_dir()))?;
            Ok((directory.path().to_owned(), Some(directory)))
        }
    }
}

/// Where so many nodes are.
fn sites(wan: Option<Arc<Wan>>, nodes: usize) -> Result<impl Iterator<Item = Site>, NetworkError> {
    match &wan {
        Some(wan) if wan.places() < nodes => Err(WanError::Places(nodes).into()),
        _ => Ok((0..nodes).map(move |place| wan.clone().map_or(Site::Loopback, |wan| Site::Wan(wan, place)))),
    }
}

impl Site {
    /// A configuration for any free ports here.
    fn config(&self) -> Config {
        let address = match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Wan(_, place) => Wan::address(*place),
        };
        let mut config = Config::default();
        config.mesh.listen = format!("/ip4/{address}/udp/0/quic-v1").parse().into_iter().collect();
        config.bulk.listen = SocketAddr::from((address, 0));
        config.gateway.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        config
    }
}

fn organisation(country: Country) -> (&'static str, &'static str) {
    let known = ORGANISATIONS.iter().find(|(code, ..)| *code == country.as_str());
    known.map_or(("lab", "Test authority"), |(_, name, authority)| (*name, *authority))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), NetworkError> {
    fs::write(path, bytes).map_err(file("write", path))
}

/// Says which file it was that an operation failed on.
fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError + use<> {
    let path = path.to_owned();
    move |source| NetworkError::File { what, path, source }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
