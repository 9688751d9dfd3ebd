//! The protocols of the mesh, put together: one network behaviour, deniers first, and the QUIC transport under it.
//!
//! It sets bounds and nothing else; no decision about a peer or a message is made here.

use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use alliance_protocol::{id::AllianceId, key::SecretKey};
use libp2p::{
    Swarm, Transport as _, allow_block_list, allow_block_list::BlockedPeers, core::muxing::StreamMuxerBox, identify,
    identity::Keypair, memory_connection_limits, ping, quic, request_response, request_response::ProtocolSupport, swarm,
    swarm::NetworkBehaviour,
};

use super::{
    MeshError, MeshLimits,
    door::Door,
    gossip::{Gossip, gossip},
    wire::{self, Answer, Request},
};

/// Time for the handshake of a connection. Three round trips of the longest line on Earth need less than two seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without a packet after which a connection is dead. Keep-alive packets are sent at a third of it.
const SILENCE_MAX_MS: u32 = 15_000;

/// Streams that a peer may have open on one connection: gossip has one, requests [`REQUESTS_AT_ONCE`] each way.
const STREAMS_MAX: u32 = 64;

/// Bytes that a peer may have under way on one stream: the longest answer in one go, so that it needs one round trip.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// Bytes that a peer may have under way on one connection: with 64 strangers of two connections each, 128 MiB.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Time for a request and its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests at a time on one connection, both directions together.
const REQUESTS_AT_ONCE: usize = 16;

/// Addresses of one peer that are tried at a time.
const DIALS_AT_ONCE: NonZeroU8 = NonZeroU8::MIN.saturating_add(3);

/// Events that a connection may have waiting for the loop, and the loop for a connection.
const EVENTS_WAITING: usize = 16;

/// Gossip keeps alive only connections that are mesh links, and requests and pings keep none. An admitted peer outside
/// our few mesh links must stay, so no connection is closed for being idle: strangers are cut by their deadline, and
/// dead connections by QUIC itself.
const IDLE_FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

pub(super) type Talk = request_response::cbor::Behaviour<Request, Answer>;

/// All protocols of the mesh. The order counts: a connection refused by the first three is never known to the others.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// Bounds on connections and strangers.
    pub(super) door: Door,
    /// Peers that were expelled.
    pub(super) blocked: allow_block_list::Behaviour<BlockedPeers>,
    /// No new connections when memory runs short.
    memory: memory_connection_limits::Behaviour,
    /// Tells the alliance of a peer; shares no addresses.
    identify: identify::Behaviour,
    /// Notices peers that stopped answering.
    ping: ping::Behaviour,
    /// Greetings and synchronisation.
    pub(super) talk: Talk,
    /// Statements to all.
    pub(super) gossip: Gossip,
}

impl Behaviour {
    fn new(key: &Keypair, alliance: &AllianceId, limits: &MeshLimits) -> Result<Self, MeshError> {
        let protocol = wire::protocol(alliance).ok_or_else(|| MeshError::Gossip("the protocol has no name".to_owned()))?;
        let codec = request_response::cbor::codec::Codec::default()
            .set_request_size_maximum(u64::try_from(wire::REQUEST_BYTES_MAX).unwrap_or(u64::MAX))
            .set_response_size_maximum(u64::try_from(wire::ANSWER_BYTES_MAX).unwrap_or(u64::MAX));
        let talk_config = request_response::Config::default()
            .with_request_timeout(REQUEST_TIMEOUT)
            .with_max_concurrent_streams(REQUESTS_AT_ONCE);
        // No cache of addresses: those of a peer come from its node record, which is signed.
        let identify_config = identify::Config::new(wire::protocol_name(alliance), key.public())
            .with_agent_version("alliance".to_owned())
            .with_hide_listen_addrs(true)
            .with_cache_size(0);
        Ok(Self {
            door: Door::new(limits.clone()),
            blocked: allow_block_list::Behaviour::default(),
            memory: memory_connection_limits::Behaviour::with_max_percentage(limits.memory_fraction),
            identify: identify::Behaviour::new(identify_config),
            ping: ping::Behaviour::default(),
            talk: Talk::with_codec(codec, [(protocol, ProtocolSupport::Full)], talk_config),
            gossip: gossip(alliance, limits.peers_per_ip)?,
        })
    }
}

/// The swarm of a node, not listening yet.
pub(super) fn swarm(key: &SecretKey, alliance: &AllianceId, limits: &MeshLimits) -> Result<Swarm<Behaviour>, MeshError> {
    let mut seed = key.to_seed();
    let key = Keypair::ed25519_from_bytes(seed.as_mut_slice()).map_err(|error| MeshError::Key(Box::new(error)))?;
    let behaviour = Behaviour::new(&key, alliance, limits)?;

    let mut quic = quic::Config::new(&key);
    quic.handshake_timeout = HANDSHAKE_TIMEOUT;
    quic.max_idle_timeout = SILENCE_MAX_MS;
    quic.keep_alive_interval = Duration::from_millis(u64::from(SILENCE_MAX_MS / 3));
    quic.max_concurrent_stream_limit = STREAMS_MAX;
    quic.max_stream_data = STREAM_WINDOW_BYTES;
    quic.max_connection_data = CONNECTION_WINDOW_BYTES;
    let transport = quic::tokio::Transport::new(quic).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed();

    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_FOREVER)
        .with_max_negotiating_inbound_streams(usize::try_from(STREAMS_MAX).unwrap_or(usize::MAX))
        .with_dial_concurrency_factor(DIALS_AT_ONCE)
        .with_per_connection_event_buffer_size(EVENTS_WAITING)
        .with_notify_handler_buffer_size(NonZeroUsize::MIN.saturating_add(EVENTS_WAITING - 1));
    Ok(Swarm::new(transport, behaviour, key.public().to_peer_id(), config))
}
