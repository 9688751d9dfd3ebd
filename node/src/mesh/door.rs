//! Who may be connected: bounds on connections, decided before any other protocol hears of them.
//!
//! Every bound of the mesh on the number of connections is kept here, those of the whole node and those of strangers
//! (peers that Core has not admitted). The door holds memory only for connections that stand or are being made, never
//! for peers that have gone: `libp2p-connection-limits` 0.7 keeps an entry for every peer it ever saw, which a stranger
//! with fresh keys could grow without end.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse, util::unreachable},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        dummy,
    },
};

use super::{MeshLimits, translate::key_of};

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotLetIn {
    #[error("too many connections are being made to this node")]
    PendingIn,
    #[error("too many connections are being made by this node")]
    PendingOut,
    #[error("too many peers have connected to this node")]
    Inbound,
    #[error("this node has connected to too many peers")]
    Outbound,
    #[error("there are enough connections with this peer")]
    PerPeer,
    #[error("too many peers wait to be admitted")]
    Strangers,
    #[error("too many peers of one network wait to be admitted")]
    StrangersOfNetwork,
    #[error("the peer's key is not an Ed25519 key")]
    Key,
}

/// What a stranger can hardly have many of: an IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

/// The connections of one peer that stand now.
#[derive(Debug)]
struct Presence {
    inbound: u32,
    outbound: u32,
    admitted: bool,
    /// Where it first connected from; none for peers that this node connected to, and on the loopback.
    network: Option<Network>,
}

/// The behaviour that refuses connections beyond the bounds. It speaks no protocol.
#[derive(Debug)]
pub(super) struct Door {
    limits: MeshLimits,
    pending_in: HashSet<ConnectionId>,
    pending_out: HashSet<ConnectionId>,
    peers: HashMap<PeerId, Presence>,
}

impl Door {
    pub(super) fn new(limits: MeshLimits) -> Self {
        Self { limits, pending_in: HashSet::new(), pending_out: HashSet::new(), peers: HashMap::new() }
    }

    /// Counts the peer as a stranger no more, while it stays connected.
    pub(super) fn admit(&mut self, peer: &PeerId) {
        if let Some(presence) = self.peers.get_mut(peer) {
            presence.admitted = true;
        }
    }

    fn check_established(&self, peer: &PeerId, from: Option<&Multiaddr>) -> Result<(), NotLetIn> {
        if key_of(peer).is_none() {
            return Err(NotLetIn::Key);
        }
        let presence = self.peers.get(peer);
        if presence.is_some_and(|it| it.inbound.saturating_add(it.outbound) >= self.limits.per_peer) {
            return Err(NotLetIn::PerPeer);
        }
        let Some(from) = from else {
            let outbound = self.peers.values().fold(0_u32, |sum, it| sum.saturating_add(it.outbound));
            return if outbound >= self.limits.outbound { Err(NotLetIn::Outbound) } else { Ok(()) };
        };
        let inbound = self.peers.values().fold(0_u32, |sum, it| sum.saturating_add(it.inbound));
        if inbound >= self.limits.inbound {
            return Err(NotLetIn::Inbound);
        }
        // A second connection of a peer that is here already makes no further stranger.
        if presence.is_some() { Ok(()) } else { self.check_strangers(network_of(from)) }
    }

    fn check_strangers(&self, network: Option<Network>) -> Result<(), NotLetIn> {
        let strangers = || self.peers.values().filter(|it| !it.admitted);
        if strangers().count() >= self.limits.strangers {
            return Err(NotLetIn::Strangers);
        }
        let Some(network) = network else { return Ok(()) };
        if strangers().filter(|it| it.network == Some(network)).count() >= self.limits.strangers_per_network {
            return Err(NotLetIn::StrangersOfNetwork);
        }
        Ok(())
    }

    fn enter(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        self.pending_in.remove(&connection);
        self.pending_out.remove(&connection);
        let network = match endpoint {
            ConnectedPoint::Listener { send_back_addr, .. } => network_of(send_back_addr),
            ConnectedPoint::Dialer { .. } => None,
        };
        let presence = self.peers.entry(peer).or_insert(Presence { inbound: 0, outbound: 0, admitted: false, network });
        match endpoint {
            ConnectedPoint::Listener { .. } => presence.inbound = presence.inbound.saturating_add(1),
            ConnectedPoint::Dialer { .. } => presence.outbound = presence.outbound.saturating_add(1),
        }
    }

    fn leave(&mut self, peer: &PeerId, endpoint: &ConnectedPoint, remaining: usize) {
        if remaining == 0 {
            self.peers.remove(peer);
        } else if let Some(presence) = self.peers.get_mut(peer) {
            match endpoint {
                ConnectedPoint::Listener { .. } => presence.inbound = presence.inbound.saturating_sub(1),
                ConnectedPoint::Dialer { .. } => presence.outbound = presence.outbound.saturating_sub(1),
            }
        }
    }
}

/// The network that an address counts for. The loopback is none: whoever is there is on this host already.
fn network_of(address: &Multiaddr) -> Option<Network> {
    let ip = address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        _ => None,
    })?;
    match ip {
        ip if ip.is_loopback() => None,
        IpAddr::V4(ip) => Some(Network::V4(ip)),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = Ipv6Addr::segments(&ip);
            Some(Network::V6([a, b, c, d]))
        }
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.pending_in.len() >= self.limits.pending_in {
            return Err(ConnectionDenied::new(NotLetIn::PendingIn));
        }
        self.pending_in.insert(connection);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_in.remove(&connection);
        self.check_established(&peer, Some(from)).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.pending_out.len() >= self.limits.pending_out {
            return Err(ConnectionDenied::new(NotLetIn::PendingOut));
        }
        self.pending_out.insert(connection);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_out.remove(&connection);
        self.check_established(&peer, None).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(it) => self.enter(it.peer_id, it.connection_id, it.endpoint),
            FromSwarm::ConnectionClosed(it) => self.leave(&it.peer_id, it.endpoint, it.remaining_established),
            FromSwarm::DialFailure(it) => {
                self.pending_out.remove(&it.connection_id);
            }
            FromSwarm::ListenFailure(it) => {
                self.pending_in.remove(&it.connection_id);
            }
            // Foreign and open-ended: nothing else opens or closes a connection.
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        unreachable(event)
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::translate::peer_of;
    use alliance_protocol::key::SecretKey;

    fn peer(n: u16) -> PeerId {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        peer_of(&SecretKey::from_seed(&seed).public()).expect("a key")
    }

    fn inbound_from(text: &str) -> ConnectedPoint {
        ConnectedPoint::Listener {
            local_addr: "/ip4/127.0.0.1/udp/1/quic-v1".parse().expect("an address"),
            send_back_addr: text.parse().expect("an address"),
        }
    }

    /// Lets peers in, one after the other, until one is refused; returns how many came in and why no more did.
    fn fill(door: &mut Door, address: impl Fn(u16) -> String) -> (u16, NotLetIn) {
        for n in 0..u16::MAX {
            let address = address(n);
            let from: Multiaddr = address.parse().expect("an address");
            if let Err(reason) = door.check_established(&peer(n), Some(&from)) {
                return (n, reason);
            }
            door.enter(peer(n), ConnectionId::new_unchecked(usize::from(n)), &inbound_from(&address));
        }
        panic!("nobody was refused");
    }

    #[test]
    fn strangers_are_bounded_and_leave_nothing_behind() {
        let mut door = Door::new(MeshLimits::default());
        let address = |n: u16| format!("/ip4/10.0.{}.{}/udp/1/quic-v1", n >> 8, n & 255);
        assert_eq!(fill(&mut door, address), (64, NotLetIn::Strangers));

        door.admit(&peer(0));
        let from: Multiaddr = address(64).parse().expect("an address");
        assert_eq!(door.check_established(&peer(64), Some(&from)), Ok(()), "an admitted peer frees its place");

        for n in 0..64 {
            door.leave(&peer(n), &inbound_from(&address(n)), 0);
        }
        assert!(door.peers.is_empty() && door.pending_in.is_empty() && door.pending_out.is_empty());
    }

    #[test]
    fn strangers_of_one_network_are_bounded_but_not_on_the_loopback() {
        let one_ipv4 = |n: u16| format!("/ip4/10.0.0.1/udp/{}/quic-v1", n + 1);
        assert_eq!(fill(&mut Door::new(MeshLimits::default()), one_ipv4), (16, NotLetIn::StrangersOfNetwork));
        let one_ipv6_network = |n: u16| format!("/ip6/2001:db8:1:2::{n:x}/udp/1/quic-v1");
        assert_eq!(fill(&mut Door::new(MeshLimits::default()), one_ipv6_network), (16, NotLetIn::StrangersOfNetwork));
        let loopback = |n: u16| format!("/ip4/127.0.0.1/udp/{}/quic-v1", n + 1);
        assert_eq!(fill(&mut Door::new(MeshLimits::default()), loopback), (64, NotLetIn::Strangers));
    }

    #[test]
    fn a_peer_has_two_connections_at_most() {
        let mut door = Door::new(MeshLimits::default());
        let endpoint = inbound_from("/ip4/10.0.0.1/udp/1/quic-v1");
        for n in 0..2 {
            assert_eq!(door.check_established(&peer(1), Some(endpoint.get_remote_address())), Ok(()));
            door.enter(peer(1), ConnectionId::new_unchecked(n), &endpoint);
        }
        assert_eq!(door.check_established(&peer(1), None), Err(NotLetIn::PerPeer));
        door.leave(&peer(1), &endpoint, 1);
        assert_eq!(door.check_established(&peer(1), None), Ok(()));
    }
}
