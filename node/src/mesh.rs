//! The mesh: QUIC connections to other nodes, greetings, gossip of statements and their synchronisation.
//!
//! A struct in the node's one loop: [`Mesh::next`] reports what happened, [`Mesh::apply`] does what Core orders. Only this
//! module and the files under it name libp2p.
//!
//! - A peer is a stranger until Core admits it: it may greet, and nothing else it sends reaches anyone.
//! - Nothing is forwarded before Core has judged it.
//! - Payloads are bounded in length and otherwise unverified; the mesh never looks into a statement and never decides
//!   whom to trust.
//! - No tensor travels here.

mod behaviour;
mod bootstrap;
mod door;
mod gossip;
mod peers;
mod react;
mod translate;
mod wire;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error,
    time::{Duration, Instant},
};

use alliance_protocol::{
    core::{Judgement, MeshEvent, MeshOrder, MessageId, SyncAnswer, SyncId, SyncRequest, WitnessAnswer, WitnessAsk},
    id::AllianceId,
    key::{PublicKey, SecretKey},
    limits,
};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm, gossipsub, quic,
    request_response::{OutboundRequestId, ResponseChannel},
    swarm::{
        SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use serde_bytes::ByteBuf;

pub use self::translate::ParseAddressError;
use self::{
    behaviour::{Behaviour, BehaviourEvent},
    bootstrap::Bootstrap,
    peers::{Held, Peer, Remarks, Standing},
    translate::{acceptance, happening, parse_address, peer_of},
    wire::{Answer, Request},
};

/// Addresses to listen on and bootstrap addresses, each.
const ADDRESSES_MAX: usize = 32;

/// Time to wait for a listener to say where it listens. It is a matter of microseconds.
const LISTENING_WITHIN: Duration = Duration::from_secs(10);

/// How long a message waits for its judgement; after that libp2p has forgotten it.
const JUDGED_WITHIN: Duration = Duration::from_secs(10);

/// Expelled peers that are remembered, and peers with a bad score, each. More are accredited in no alliance.
const REMARKS_MAX: usize = 1024;

/// Questions to one peer that may wait for its answer. Core asks page by page.
const ASKED_PER_PEER_MAX: usize = 4;

/// How to take part.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Addresses to listen on: `/ip4/0.0.0.0/udp/4001/quic-v1`. Port 0 lets the system choose.
    pub listen: Vec<String>,
    /// The alliance; nodes of another one are disconnected.
    pub alliance: AllianceId,
    /// Addresses of nodes to connect to first, `/p2p/<peer id>` at the end being optional.
    pub bootstrap: Vec<String>,
    pub limits: MeshLimits,
}

impl MeshConfig {
    /// Takes part in an alliance without listening or connecting anywhere, under the default limits.
    #[must_use]
    pub fn new(alliance: AllianceId) -> Self {
        Self { listen: Vec::new(), alliance, bootstrap: Vec::new(), limits: MeshLimits::default() }
    }
}

/// Bounds that an operator may have a reason to change.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshLimits {
    /// Connections to this node whose handshake is under way. 64: at 100 ms each, 640 new peers in a second.
    pub pending_in: usize,
    /// Connections by this node whose handshake is under way.
    pub pending_out: usize,
    /// Connections to this node.
    pub inbound: u32,
    /// Connections by this node.
    pub outbound: u32,
    /// Connections with one peer: two, because both sides may connect at the same moment.
    pub per_peer: u32,
    /// Peers that are connected and not admitted.
    pub strangers: usize,
    /// Of these, from one IPv4 address or IPv6 /64; the loopback is not counted.
    pub strangers_per_network: usize,
    /// Time within which a peer must be admitted.
    pub admission: Duration,
    /// Time for which an expelled peer is not let back. Core would refuse it again anyway; this spares the work.
    pub expelled_for: Duration,
    /// Admitted peers on one IP address above which their scores suffer; none for no such bound. Accreditation limits how
    /// many nodes there are, and testnets and institutes have many behind one address.
    pub peers_per_ip: Option<u32>,
    /// Part of the host's memory that the process may use before new connections are refused.
    pub memory_fraction: f64,
}

impl Default for MeshLimits {
    fn default() -> Self {
        Self {
            pending_in: 64,
            pending_out: 32,
            inbound: 512,
            outbound: 256,
            per_peer: 2,
            strangers: 64,
            strangers_per_network: 16,
            admission: Duration::from_secs(10),
            expelled_for: Duration::from_secs(600),
            peers_per_ip: None,
            memory_fraction: 0.6,
        }
    }
}

/// Why the mesh could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    #[error("`{address}` is not an address of the mesh")]
    Address { address: String, source: ParseAddressError },
    #[error("there are {count} addresses, and {ADDRESSES_MAX} are allowed")]
    TooManyAddresses { count: usize },
    #[error("the port of `{address}` is in use already")]
    PortInUse { address: String },
    #[error("cannot listen on `{address}`")]
    Listen { address: String, source: std::io::Error },
    #[error("`{address}` did not come up")]
    NotListening { address: String },
    #[error("the node's key is not accepted")]
    Key(#[source] Box<dyn Error + Send + Sync>),
    #[error("gossip cannot be set up: {0}")]
    Gossip(String),
}

/// What the mesh has counted since it was started, and how many peers there are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshCounters {
    /// Peers connected now, admitted or not.
    pub connected: u32,
    /// Peers admitted now.
    pub admitted: u32,
    /// Admitted peers whose gossip is dropped now because of what they sent before.
    pub graylisted: u32,
    /// Messages that wait for their judgement now.
    pub unjudged: u32,
    /// Messages that Core rejected.
    pub gossip_rejected: u64,
    /// Messages dropped because too many were waiting, or because their sender is not admitted.
    pub gossip_dropped: u64,
    /// Questions refused, because their author is not admitted or asks too much.
    pub sync_refused: u64,
    /// Strangers disconnected because nobody admitted them.
    pub strangers_cut: u64,
    /// Breaches of the protocol.
    pub breaches: u64,
    /// Orders that could not be carried out as they exceed a bound.
    pub orders_refused: u64,
}

/// The node's end of the mesh. Dropping it closes all connections.
pub struct Mesh {
    swarm: Swarm<Behaviour>,
    topic: gossipsub::IdentTopic,
    /// The name of this alliance's protocol, which peers must name too.
    protocol: String,
    limits: MeshLimits,
    /// Our node record, once known.
    record: Option<ByteBuf>,
    peers: HashMap<PeerId, Peer>,
    bootstrap: Bootstrap,
    /// Peers not to be let back for a while.
    expelled: Remarks<()>,
    /// Scores of peers that left with a bad one, so that they cannot shed it by coming back.
    grudges: Remarks<f64>,
    unjudged: BTreeMap<MessageId, Unjudged>,
    /// Questions of peers that wait for Core's answer.
    questions: BTreeMap<SyncId, Question>,
    /// Questions of Core that wait for a peer's answer. libp2p reports an end of each.
    asked: HashMap<OutboundRequestId, Asked>,
    events: VecDeque<MeshEvent>,
    counters: MeshCounters,
    last_id: u64,
}

/// A message that waits for its judgement.
struct Unjudged {
    id: gossipsub::MessageId,
    from: PeerId,
    until: Instant,
}

/// A question of Core that waits for a peer's answer.
struct Asked {
    peer: PeerId,
    /// The number of a question about ledgers; none where it is about statements.
    witness: Option<u64>,
}

/// A question that waits for Core's answer.
struct Question {
    peer: PeerId,
    channel: ResponseChannel<Answer>,
}

impl Mesh {
    /// Binds all addresses and begins to connect to the bootstrap addresses. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// An address is malformed, taken or not of this host; or the key or the limits make no sense.
    pub async fn start(key: &SecretKey, config: MeshConfig) -> Result<Self, MeshError> {
        let listen = parse_all(&config.listen)?;
        let bootstrap = parse_all(&config.bootstrap)?;
        let mut mesh = Self {
            swarm: behaviour::swarm(key, &config.alliance, &config.limits)?,
            topic: gossip::topic(&config.alliance),
            protocol: wire::protocol_name(&config.alliance),
            record: None,
            peers: HashMap::new(),
            bootstrap: Bootstrap::new(bootstrap, Instant::now()),
            expelled: Remarks::new(config.limits.expelled_for, REMARKS_MAX),
            grudges: Remarks::new(config.limits.expelled_for, REMARKS_MAX),
            limits: config.limits,
            unjudged: BTreeMap::new(),
            questions: BTreeMap::new(),
            asked: HashMap::new(),
            events: VecDeque::new(),
            counters: MeshCounters::default(),
            last_id: 0,
        };
        for (address, _) in listen {
            let text = address.to_string();
            let listening = tokio::time::timeout(LISTENING_WITHIN, mesh.listen(address));
            listening.await.map_err(|_| MeshError::NotListening { address: text })??;
        }
        Ok(mesh)
    }

    /// Waits for the next event. Cancel-safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> MeshEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let time = self.next_time();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                () = sleep_until(time) => self.on_time(Instant::now()),
            }
        }
    }

    /// Does what Core orders, at once. What comes of it is reported by [`Self::next`].
    pub fn apply(&mut self, order: MeshOrder) {
        let now = Instant::now();
        match order {
            MeshOrder::Introduce { record } => self.introduce(record),
            MeshOrder::Admit { peer } => self.admit(&peer),
            MeshOrder::Expel { peer } => self.expel(&peer, now),
            MeshOrder::Dismiss { peer } => {
                if let Some(id) = peer_of(&peer) {
                    self.dismiss(id);
                }
            }
            MeshOrder::Dial { peer, addresses } => self.dial(&peer, &addresses),
            MeshOrder::Judge { message, judgement } => self.judge(message, judgement),
            MeshOrder::Publish { bytes } => self.publish(bytes),
            MeshOrder::AskSync { peer, request } => self.ask(&peer, request),
            MeshOrder::AnswerSync { sync, answer } => self.answer_question(sync, answer),
            MeshOrder::AskWitness { number, peer, ask } => self.ask_witness(number, &peer, ask),
            MeshOrder::AnswerWitness { question, answer } => self.answer_witness(question, answer),
        }
    }

    /// The multiaddrs this node listens on, with their real ports and without its peer id.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        self.swarm.listeners().map(ToString::to_string).collect()
    }

    /// What was counted, and how many peers there are now.
    #[must_use]
    pub fn counters(&self) -> MeshCounters {
        let gossip = &self.swarm.behaviour().gossip;
        let graylisted = |peer: &PeerId| gossip.peer_score(peer).is_some_and(|score| score < gossip::GRAYLIST_SCORE);
        let admitted = || self.peers.iter().filter(|(_, peer)| peer.is_admitted());
        MeshCounters {
            connected: count(self.peers.len()),
            admitted: count(admitted().count()),
            graylisted: count(admitted().filter(|(id, _)| graylisted(id)).count()),
            unjudged: count(self.unjudged.len()),
            ..self.counters
        }
    }

    /// Listens on one address and waits until the system says where.
    async fn listen(&mut self, address: Multiaddr) -> Result<(), MeshError> {
        let text = address.to_string();
        let fail = |error: std::io::Error| {
            if is_in_use(&error) {
                MeshError::PortInUse { address: text.clone() }
            } else {
                MeshError::Listen { address: text.clone(), source: error }
            }
        };
        let listener = self.swarm.listen_on(address).map_err(|error| match error {
            libp2p::TransportError::MultiaddrNotSupported(_) => fail(std::io::ErrorKind::Unsupported.into()),
            libp2p::TransportError::Other(error) => fail(error),
        })?;
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, .. } if listener_id == listener => return Ok(()),
                SwarmEvent::ListenerError { listener_id, error } if listener_id == listener => return Err(fail(error)),
                SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } if listener_id == listener => {
                    return Err(fail(error));
                }
                // Somebody connects to an address that is up already.
                other => self.on_swarm_event(other),
            }
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        if let Some(happening) = happening(event) {
            self.react(happening, Instant::now());
        }
    }

    fn introduce(&mut self, record: Vec<u8>) {
        if !wire::record_fits(&record) {
            return self.refuse_order("a node record of a length that is not allowed");
        }
        if self.record.as_deref() == Some(&record) {
            return;
        }
        self.record = Some(ByteBuf::from(record));
        let is_here = |peer: &Peer| !matches!(peer.standing, Standing::Leaving);
        let present: Vec<PeerId> = self.peers.iter().filter(|(_, peer)| is_here(peer)).map(|(id, _)| *id).collect();
        for peer in present {
            self.greet(&peer);
        }
    }

    fn admit(&mut self, key: &PublicKey) {
        let Some(id) = peer_of(key) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let held = match std::mem::replace(&mut peer.standing, Standing::Admitted) {
            Standing::Stranger { held, .. } => held,
            Standing::Admitted => None,
            Standing::Leaving => {
                peer.standing = Standing::Leaving;
                return;
            }
        };
        let score = self.grudges.get(&id).copied().unwrap_or(gossip::NEUTRAL_SCORE);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.door.admit(&id);
        behaviour.gossip.set_application_score(&id, score);
        if let Some(Held { request, channel }) = held {
            self.pass_question(id, request, channel);
        }
        self.report_round_trip(id);
    }

    fn expel(&mut self, key: &PublicKey, now: Instant) {
        let Some(id) = peer_of(key) else { return };
        self.dismiss(id);
        self.swarm.behaviour_mut().blocked.block_peer(id);
        if let Some(forgotten) = self.expelled.insert(id, (), now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(forgotten);
        }
    }

    fn dial(&mut self, key: &PublicKey, addresses: &[String]) {
        let Some(id) = peer_of(key) else { return };
        if self.swarm.is_connected(&id) || id == *self.swarm.local_peer_id() {
            return;
        }
        let usable = |text: &String| match parse_address(text) {
            Ok((address, expected)) if expected.is_none_or(|expected| expected == id) => Some(address),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(address = text, %error, "an address of a peer is of no use");
                None
            }
        };
        let addresses: Vec<Multiaddr> = addresses.iter().filter_map(usable).take(limits::ADDRESSES_MAX).collect();
        let options = DialOpts::peer_id(id).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addresses);
        if let Err(error) = self.swarm.dial(options.build()) {
            tracing::debug!(peer = %id, %error, "a peer is not dialled");
        }
    }

    fn judge(&mut self, message: MessageId, judgement: Judgement) {
        let Some(waiting) = self.unjudged.remove(&message) else {
            tracing::debug!(?message, "a judgement came too late");
            return;
        };
        if judgement == Judgement::Reject {
            self.counters.gossip_rejected = self.counters.gossip_rejected.saturating_add(1);
        }
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(&waiting.id, &waiting.from, acceptance(judgement));
    }

    fn publish(&mut self, bytes: Vec<u8>) {
        if bytes.len() > gossip::PAYLOAD_BYTES_MAX {
            return self.refuse_order("a statement that is too long to be gossiped");
        }
        // Who is not reached now gets it by synchronisation.
        if let Err(error) = self.swarm.behaviour_mut().gossip.publish(self.topic.hash(), bytes) {
            tracing::debug!(%error, "a statement was not gossiped");
        }
    }

    fn ask(&mut self, key: &PublicKey, request: SyncRequest) {
        let Some(id) = peer_of(key) else { return };
        if !self.peers.get(&id).is_some_and(Peer::is_admitted) {
            tracing::debug!(peer = %id, "a peer that is not admitted is not asked");
            return;
        }
        if self.asked.values().filter(|asked| asked.peer == id && asked.witness.is_none()).count() >= ASKED_PER_PEER_MAX {
            return self.refuse_order("too many questions to one peer");
        }
        let request = self.swarm.behaviour_mut().talk.send_request(&id, Request::Sync { request });
        self.asked.insert(request, Asked { peer: id, witness: None });
    }

    /// Asks a peer about a ledger. Core is told what became of it in any case.
    fn ask_witness(&mut self, number: u64, key: &PublicKey, ask: WitnessAsk) {
        let id = peer_of(key).filter(|id| self.peers.get(id).is_some_and(Peer::is_admitted));
        let asked = |id: &PeerId| self.asked.values().filter(|asked| asked.peer == *id && asked.witness.is_some()).count();
        match id.filter(|id| asked(id) < ASKED_PER_PEER_MAX) {
            Some(id) => {
                let request = self.swarm.behaviour_mut().talk.send_request(&id, Request::Witness { ask });
                self.asked.insert(request, Asked { peer: id, witness: Some(number) });
            }
            None => self.events.push_back(MeshEvent::WitnessAnswered { number, answer: None }),
        }
    }

    fn answer_witness(&mut self, question: SyncId, answer: WitnessAnswer) {
        let Some(question) = self.questions.remove(&question) else {
            tracing::debug!(?question, "an answer came too late");
            return;
        };
        self.answer(question.channel, Answer::Witness { answer });
    }

    fn answer_question(&mut self, sync: SyncId, answer: SyncAnswer) {
        let Some(question) = self.questions.remove(&sync) else {
            tracing::debug!(?sync, "an answer came too late");
            return;
        };
        if wire::page_fits(&answer) {
            self.answer(question.channel, Answer::Sync { answer });
        } else {
            self.refuse_order("a page of statements that is too long");
            self.answer(question.channel, Answer::Refused);
        }
    }

    fn refuse_order(&mut self, what: &'static str) {
        self.counters.orders_refused = self.counters.orders_refused.saturating_add(1);
        tracing::error!(what, "an order to the mesh was not carried out");
    }

    fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }
}

/// Reads all addresses, or says which is malformed.
fn parse_all(texts: &[String]) -> Result<Vec<(Multiaddr, Option<PeerId>)>, MeshError> {
    if texts.len() > ADDRESSES_MAX {
        return Err(MeshError::TooManyAddresses { count: texts.len() });
    }
    let parse = |text: &String| parse_address(text).map_err(|source| MeshError::Address { address: text.clone(), source });
    texts.iter().map(parse).collect()
}

/// Whether the system said that the port is taken. The transport wraps its answer twice.
fn is_in_use(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<quic::Error>());
    let kind = match inner {
        Some(quic::Error::Io(error)) => error.kind(),
        Some(_) | None => error.kind(),
    };
    kind == std::io::ErrorKind::AddrInUse
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
