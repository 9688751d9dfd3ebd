//! Between libp2p's words and ours: keys, addresses, judgements and events.
//!
//! Total functions without side effects, apart from a line in the log for words of libp2p that this version does not know.

use std::time::Duration;

use alliance_protocol::{core::Judgement, key::PublicKey};
use libp2p::{
    Multiaddr, PeerId, gossipsub, identify, identity,
    multiaddr::Protocol,
    ping,
    request_response::{self, OutboundFailure, OutboundRequestId, ResponseChannel},
    swarm::{ConnectionId, DialError, SwarmEvent},
};

use super::{
    behaviour::BehaviourEvent,
    bootstrap::Miss,
    wire::{Answer, Request},
};

/// Everything that libp2p can report and that matters here.
#[derive(Debug)]
pub(super) enum Happening {
    /// A connection stands; `first` if it is the only one to the peer.
    Joined { peer: PeerId, connection: ConnectionId, first: bool },
    /// The last connection to the peer is gone.
    Left { peer: PeerId },
    /// A connection that this node was making has failed.
    NotReached { connection: ConnectionId, miss: Miss, reason: String },
    /// The peer named the protocol of its alliance.
    Identified { peer: PeerId, protocol: String },
    /// A message that waits for its judgement.
    Gossiped { from: PeerId, id: gossipsub::MessageId, bytes: Vec<u8> },
    /// A peer asks.
    Asked { peer: PeerId, request: Request, channel: ResponseChannel<Answer> },
    /// A peer answers.
    Answered { peer: PeerId, id: OutboundRequestId, answer: Answer },
    /// The peer answered a ping.
    Measured { peer: PeerId, round_trip: Duration },
    /// A peer does not answer; `foreign` if it does not speak the protocol of this alliance.
    NotAnswered { peer: PeerId, id: OutboundRequestId, foreign: bool, reason: String },
    /// The node no longer listens on some of its addresses.
    ListenerLost { addresses: Vec<Multiaddr>, reason: String },
}

/// The text is not an address that this node can connect to or listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    #[error("it is no multiaddr")]
    Syntax,
    #[error("it is not of the form /ip4/<address>/udp/<port>/quic-v1 or /ip6/<address>/udp/<port>/quic-v1")]
    Form,
    #[error("the peer id in it is not that of an Ed25519 key")]
    Peer,
}

/// The key of a peer. None if it is not an Ed25519 key.
pub(super) fn key_of(peer: &PeerId) -> Option<PublicKey> {
    let hash = peer.as_ref();
    // 0 is the identity: such an id holds the key itself, as all of Ed25519 do.
    if hash.code() != 0 {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    key.try_into_ed25519().ok().map(|key| PublicKey(key.to_bytes()))
}

/// The peer with a key. None if the bytes are no point of the curve.
pub(super) fn peer_of(key: &PublicKey) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&key.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// Reads `/ip4/../udp/../quic-v1`, with or without `/p2p/<peer id>` at its end, which is returned apart.
pub(super) fn parse_address(text: &str) -> Result<(Multiaddr, Option<PeerId>), ParseAddressError> {
    let address: Multiaddr = text.parse().map_err(|_| ParseAddressError::Syntax)?;
    let mut parts = address.iter();
    let form = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
    let (
        Some(ip @ (Protocol::Ip4(_) | Protocol::Ip6(_))),
        Some(udp @ Protocol::Udp(_)),
        Some(Protocol::QuicV1),
        last,
        None,
    ) = form
    else {
        return Err(ParseAddressError::Form);
    };
    let peer = match last {
        None => None,
        Some(Protocol::P2p(peer)) if key_of(&peer).is_some() => Some(peer),
        Some(Protocol::P2p(_)) => return Err(ParseAddressError::Peer),
        Some(_) => return Err(ParseAddressError::Form),
    };
    Ok((Multiaddr::empty().with(ip).with(udp).with(Protocol::QuicV1), peer))
}

/// What a judgement is called there.
pub(super) const fn acceptance(judgement: Judgement) -> gossipsub::MessageAcceptance {
    match judgement {
        Judgement::Accept => gossipsub::MessageAcceptance::Accept,
        Judgement::Ignore => gossipsub::MessageAcceptance::Ignore,
        Judgement::Reject => gossipsub::MessageAcceptance::Reject,
    }
}

/// Whether a failed connection tells that the address is this node's own.
pub(super) const fn miss(error: &DialError) -> Miss {
    match error {
        // Without other addresses, those that remain are left out only for being listened on here.
        DialError::LocalPeerId { .. } | DialError::NoAddresses => Miss::Own,
        DialError::DialPeerConditionFalse(_)
        | DialError::Aborted
        | DialError::WrongPeerId { .. }
        | DialError::Denied { .. }
        | DialError::Transport(_) => Miss::Failed,
    }
}

/// What an event of the swarm means here, if anything.
pub(super) fn happening(event: SwarmEvent<BehaviourEvent>) -> Option<Happening> {
    match event {
        SwarmEvent::Behaviour(event) => of_behaviour(event),
        SwarmEvent::ConnectionEstablished { peer_id, connection_id, num_established, .. } => {
            Some(Happening::Joined { peer: peer_id, connection: connection_id, first: num_established.get() == 1 })
        }
        SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => Some(Happening::Left { peer: peer_id }),
        SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
            Some(Happening::NotReached { connection: connection_id, miss: miss(&error), reason: error.to_string() })
        }
        SwarmEvent::ListenerClosed { addresses, reason, .. } => {
            let reason = reason.err().map_or_else(|| "it was closed".to_owned(), |error| error.to_string());
            Some(Happening::ListenerLost { addresses, reason })
        }
        SwarmEvent::ConnectionClosed { .. }
        | SwarmEvent::IncomingConnection { .. }
        | SwarmEvent::IncomingConnectionError { .. }
        | SwarmEvent::NewListenAddr { .. }
        | SwarmEvent::ExpiredListenAddr { .. }
        | SwarmEvent::ListenerError { .. }
        | SwarmEvent::Dialing { .. }
        | SwarmEvent::NewExternalAddrCandidate { .. }
        | SwarmEvent::ExternalAddrConfirmed { .. }
        | SwarmEvent::ExternalAddrExpired { .. }
        | SwarmEvent::NewExternalAddrOfPeer { .. } => None,
        other => {
            tracing::debug!(event = ?other, "an event of the swarm that this version does not know");
            None
        }
    }
}

fn of_behaviour(event: BehaviourEvent) -> Option<Happening> {
    match event {
        BehaviourEvent::Door(never) | BehaviourEvent::Blocked(never) | BehaviourEvent::Memory(never) => match never {},
        // The answer repeats 32 random bytes, so that nobody can give it before the question came.
        BehaviourEvent::Ping(ping::Event { peer, result: Ok(round_trip), .. }) => {
            Some(Happening::Measured { peer, round_trip })
        }
        BehaviourEvent::Ping(ping::Event { result: Err(_), .. }) => None,
        BehaviourEvent::Identify(event) => of_identify(event),
        BehaviourEvent::Talk(event) => of_talk(event),
        BehaviourEvent::Gossip(event) => of_gossip(event),
    }
}

fn of_identify(event: identify::Event) -> Option<Happening> {
    match event {
        identify::Event::Received { peer_id, info, .. } => {
            Some(Happening::Identified { peer: peer_id, protocol: info.protocol_version })
        }
        identify::Event::Sent { .. } | identify::Event::Pushed { .. } | identify::Event::Error { .. } => None,
    }
}

fn of_talk(event: request_response::Event<Request, Answer>) -> Option<Happening> {
    match event {
        request_response::Event::Message { peer, message, .. } => Some(match message {
            request_response::Message::Request { request, channel, .. } => Happening::Asked { peer, request, channel },
            request_response::Message::Response { request_id, response } => {
                Happening::Answered { peer, id: request_id, answer: response }
            }
        }),
        request_response::Event::OutboundFailure { peer, request_id, error, .. } => Some(Happening::NotAnswered {
            peer,
            id: request_id,
            foreign: matches!(error, OutboundFailure::UnsupportedProtocols),
            reason: error.to_string(),
        }),
        request_response::Event::InboundFailure { .. } | request_response::Event::ResponseSent { .. } => None,
    }
}

fn of_gossip(event: gossipsub::Event) -> Option<Happening> {
    match event {
        gossipsub::Event::Message { propagation_source, message_id, message } => {
            Some(Happening::Gossiped { from: propagation_source, id: message_id, bytes: message.data })
        }
        gossipsub::Event::Subscribed { .. }
        | gossipsub::Event::Unsubscribed { .. }
        | gossipsub::Event::GossipsubNotSupported { .. }
        | gossipsub::Event::SlowPeer { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alliance_protocol::key::SecretKey;

    #[test]
    fn keys_and_peers_correspond() {
        for seed in 0..32 {
            let secret = SecretKey::from_seed(&[seed; 32]);
            let peer = peer_of(&secret.public()).expect("a key");
            assert_eq!(key_of(&peer), Some(secret.public()));
            let mut bytes = secret.to_seed();
            let pair = identity::Keypair::ed25519_from_bytes(bytes.as_mut_slice()).expect("a key");
            assert_eq!(pair.public().to_peer_id(), peer, "as libp2p derives it");
        }
    }

    #[test]
    fn other_keys_are_no_keys() {
        // An id by SHA-256, as RSA keys have, and a random one that holds no key.
        let rsa: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().expect("a peer id");
        assert_eq!(key_of(&rsa), None);
        assert_eq!(key_of(&PeerId::from_bytes(&[0, 1, 7]).expect("a peer id")), None);
    }

    #[test]
    fn addresses_have_one_form() {
        let peer = peer_of(&SecretKey::from_seed(&[1; 32]).public()).expect("a key");
        let plain = "/ip4/10.0.0.1/udp/4001/quic-v1";
        assert_eq!(parse_address(plain), Ok((plain.parse().expect("an address"), None)));
        assert_eq!(parse_address(&format!("{plain}/p2p/{peer}")), Ok((plain.parse().expect("an address"), Some(peer))));
        assert!(parse_address("/ip6/::1/udp/0/quic-v1").is_ok());
        for (bad, why) in [
            ("", ParseAddressError::Form),
            ("10.0.0.1:4001", ParseAddressError::Syntax),
            ("/ip4/10.0.0.1", ParseAddressError::Form),
            ("/ip4/10.0.0.1/tcp/4001", ParseAddressError::Form),
            ("/ip4/10.0.0.1/udp/4001", ParseAddressError::Form),
            ("/ip4/10.0.0.1/udp/4001/quic", ParseAddressError::Form),
            ("/dns4/node.example/udp/4001/quic-v1", ParseAddressError::Form),
            ("/ip4/10.0.0.1/udp/4001/quic-v1/webtransport", ParseAddressError::Form),
            ("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", ParseAddressError::Peer),
        ] {
            assert_eq!(parse_address(bad), Err(why), "{bad}");
        }
        assert_eq!(parse_address(&format!("{plain}/p2p/{peer}/p2p-circuit")), Err(ParseAddressError::Form));
    }
}
