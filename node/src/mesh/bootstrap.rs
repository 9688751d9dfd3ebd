//! When to connect to the bootstrap addresses, again and again until connected to whoever is there.
//!
//! It decides times only; it opens no connection, and the clock and the jitter are arguments.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

/// Wait after the first failure. Nodes of one organisation often start together, and then the second try succeeds.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest wait between two tries, before jitter: an operator who restarts a node wants to see it join soon.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// Milliseconds of jitter added to each wait, at most, so that a restarted bootstrap node is not met by all at once.
const JITTER_MS_MAX: u32 = 3000;

/// The bootstrap addresses and how it stands with each.
#[derive(Debug)]
pub(super) struct Bootstrap {
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    address: Multiaddr,
    /// The peer that must be there, where the operator named it.
    expected: Option<PeerId>,
    /// The peer that was there last.
    found: Option<PeerId>,
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Due(Instant),
    Dialling(ConnectionId),
    Connected,
    /// The address is this node's own.
    Own,
}

/// A connection that is to be tried now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Try {
    pub(super) address: Multiaddr,
    pub(super) expected: Option<PeerId>,
    target: usize,
}

/// Why a try came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nobody answered, or not the one expected.
    Failed,
    /// This node itself is there.
    Own,
}

impl Bootstrap {
    pub(super) fn new(addresses: Vec<(Multiaddr, Option<PeerId>)>, now: Instant) -> Self {
        let target =
            |(address, expected)| Target { address, expected, found: expected, failures: 0, state: State::Due(now) };
        Self { targets: addresses.into_iter().map(target).collect() }
    }

    /// When the next try is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.targets
            .iter()
            .filter_map(|target| match target.state {
                State::Due(at) => Some(at),
                State::Dialling(_) | State::Connected | State::Own => None,
            })
            .min()
    }

    /// A try that is due. The caller makes it and says [`Self::dialling`] or [`Self::missed`].
    pub(super) fn due(&self, now: Instant) -> Option<Try> {
        let is_due = |target: &Target| matches!(target.state, State::Due(at) if at <= now);
        let (index, target) = self.targets.iter().enumerate().find(|(_, target)| is_due(target))?;
        Some(Try { address: target.address.clone(), expected: target.expected, target: index })
    }

    pub(super) fn dialling(&mut self, attempt: &Try, connection: ConnectionId) {
        if let Some(target) = self.targets.get_mut(attempt.target) {
            target.state = State::Dialling(connection);
        }
    }

    /// The try could not even be begun.
    pub(super) fn missed(&mut self, attempt: &Try, miss: Miss, now: Instant, random: u32) {
        if let Some(target) = self.targets.get_mut(attempt.target) {
            target.miss(miss, now, random);
        }
    }

    /// A connection that was being made has failed.
    pub(super) fn on_failed(&mut self, connection: ConnectionId, miss: Miss, now: Instant, random: u32) {
        for target in self.targets.iter_mut().filter(|target| target.state == State::Dialling(connection)) {
            target.miss(miss, now, random);
        }
    }

    /// A connection stands, whichever side made it.
    pub(super) fn on_connected(&mut self, connection: ConnectionId, peer: PeerId) {
        for target in &mut self.targets {
            if target.state == State::Dialling(connection) {
                target.found = Some(peer);
            }
            if target.found == Some(peer) && target.state != State::Own {
                target.state = State::Connected;
                target.failures = 0;
            }
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn on_disconnected(&mut self, peer: PeerId, now: Instant, random: u32) {
        let is_there = |target: &&mut Target| target.found == Some(peer) && target.state == State::Connected;
        for target in self.targets.iter_mut().filter(is_there) {
            target.miss(Miss::Failed, now, random);
        }
    }
}

impl Target {
    fn miss(&mut self, miss: Miss, now: Instant, random: u32) {
        self.state = match miss {
            Miss::Own => State::Own,
            Miss::Failed => {
                let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(8)).min(LONGEST_WAIT);
                self.failures = self.failures.saturating_add(1);
                State::Due(now + wait + Duration::from_millis(u64::from(random % JITTER_MS_MAX)))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::translate::peer_of;
    use alliance_protocol::key::SecretKey;

    fn peer(n: u8) -> PeerId {
        peer_of(&SecretKey::from_seed(&[n; 32]).public()).expect("a key")
    }

    fn bootstrap(expected: Option<PeerId>, now: Instant) -> Bootstrap {
        Bootstrap::new(vec![("/ip4/10.0.0.1/udp/1/quic-v1".parse().expect("an address"), expected)], now)
    }

    fn connection(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn waits_grow_to_a_bound_and_never_end() {
        let mut now = Instant::now();
        let mut bootstrap = bootstrap(None, now);
        let mut waits = Vec::new();
        for n in 0..8 {
            let attempt = bootstrap.due(now).expect("due");
            bootstrap.dialling(&attempt, connection(n));
            assert_eq!((bootstrap.due(now), bootstrap.next_due()), (None, None), "one try at a time");
            bootstrap.on_failed(connection(n), Miss::Failed, now, 0);
            let at = bootstrap.next_due().expect("another try");
            waits.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 12, 12, 12, 12]);
    }

    #[test]
    fn jitter_is_bounded() {
        let now = Instant::now();
        let mut bootstrap = bootstrap(None, now);
        let attempt = bootstrap.due(now).expect("due");
        bootstrap.missed(&attempt, Miss::Failed, now, u32::MAX);
        let wait = bootstrap.next_due().expect("another try") - now;
        assert!(wait >= FIRST_WAIT && wait < FIRST_WAIT + Duration::from_millis(u64::from(JITTER_MS_MAX)));
    }

    #[test]
    fn it_rests_while_connected_and_tries_again_afterwards() {
        let now = Instant::now();
        let mut bootstrap = bootstrap(None, now);
        let attempt = bootstrap.due(now).expect("due");
        bootstrap.dialling(&attempt, connection(1));
        bootstrap.on_connected(connection(1), peer(1));
        assert_eq!(bootstrap.next_due(), None);
        bootstrap.on_disconnected(peer(2), now, 0);
        assert_eq!(bootstrap.next_due(), None, "another peer left");
        bootstrap.on_disconnected(peer(1), now, 0);
        assert_eq!(bootstrap.next_due(), Some(now + FIRST_WAIT));
        bootstrap.on_connected(connection(2), peer(1));
        assert_eq!(bootstrap.next_due(), None, "the peer came by itself");
    }

    #[test]
    fn an_expected_peer_counts_however_it_came() {
        let now = Instant::now();
        let mut bootstrap = bootstrap(Some(peer(1)), now);
        bootstrap.on_connected(connection(7), peer(2));
        assert!(bootstrap.due(now).is_some());
        bootstrap.on_connected(connection(8), peer(1));
        assert_eq!(bootstrap.due(now), None);
    }

    #[test]
    fn a_node_does_not_keep_calling_itself() {
        let now = Instant::now();
        let mut bootstrap = bootstrap(None, now);
        let attempt = bootstrap.due(now).expect("due");
        bootstrap.dialling(&attempt, connection(1));
        bootstrap.on_failed(connection(1), Miss::Own, now, 0);
        assert_eq!(bootstrap.next_due(), None);
    }
}
