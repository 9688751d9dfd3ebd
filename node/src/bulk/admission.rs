//! Who may hold a place on the exporter's side: bounded places for the undecided, per source address and per key.
//!
//! A stranger costs a place until Core has decided on its request, and no more than a constant of them are held whatever
//! the number of strangers. Keys are cheap to make, so the source address is bounded as well.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use alliance_protocol::{key::PublicKey, limits};

/// Connections at a time whose request is not decided yet, handshakes included.
const UNDECIDED_MAX: usize = 64;

/// Of these, from one address. Not applied to this machine, where many nodes may be run for a trial.
const UNDECIDED_PER_SOURCE_MAX: usize = 16;

/// Counts places by what they are held by; a key without places is not in the map.
#[derive(Debug)]
struct Places<K: Eq + Hash> {
    held: Mutex<(usize, HashMap<K, usize>)>,
    total_max: usize,
    each_max: usize,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place<K: Eq + Hash + Copy> {
    places: Arc<Places<K>>,
    holder: K,
}

impl<K: Eq + Hash + Copy> Places<K> {
    fn new(total_max: usize, each_max: usize) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new((0, HashMap::new())), total_max, each_max })
    }

    fn take(self: &Arc<Self>, holder: K, bounded: bool) -> Option<Place<K>> {
        // A count is right whatever a panicking holder did: it is changed in one step.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, each) = &mut *held;
        let mine = each.get(&holder).copied().unwrap_or_default();
        if *total >= self.total_max || (bounded && mine >= self.each_max) {
            return None;
        }
        *total = total.saturating_add(1);
        each.insert(holder, mine.saturating_add(1));
        Some(Place { places: Arc::clone(self), holder })
    }

    fn total(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl<K: Eq + Hash + Copy> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, each) = &mut *held;
        *total = total.saturating_sub(1);
        if let Some(mine) = each.get_mut(&self.holder) {
            *mine = mine.saturating_sub(1);
            if *mine == 0 {
                each.remove(&self.holder);
            }
        }
    }
}

/// The places of an exporter.
#[derive(Debug)]
pub(super) struct Admission {
    sources: Arc<Places<IpAddr>>,
    peers: Arc<Places<PublicKey>>,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self {
            sources: Places::new(UNDECIDED_MAX, UNDECIDED_PER_SOURCE_MAX),
            peers: Places::new(UNDECIDED_MAX.saturating_add(limits::CROSSINGS_RUNNING_MAX), limits::CROSSINGS_PER_PEER_MAX),
        }
    }

    /// A place for a connection attempt, held until Core has decided.
    pub(super) fn source(&self, address: IpAddr) -> Option<Place<IpAddr>> {
        self.sources.take(network_of(address), !address.to_canonical().is_loopback())
    }

    /// A place for a peer that has proved its key, held until its crossing is over.
    pub(super) fn peer(&self, peer: PublicKey) -> Option<Place<PublicKey>> {
        self.peers.take(peer, true)
    }

    /// Whether strangers should first show that they can be reached under the address that they send from.
    pub(super) fn crowded(&self) -> bool {
        self.sources.total() >= UNDECIDED_MAX / 2
    }
}

/// What one party commonly holds: an IPv4 address, or the 64 bit prefix of an IPv6 address.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_hold_all_places() {
        let admission = Admission::new();
        let source: IpAddr = "192.0.2.1".parse().expect("an address");
        let held: Vec<_> = (0..100).map_while(|_| admission.source(source)).collect();
        assert_eq!(held.len(), UNDECIDED_PER_SOURCE_MAX);
        assert!(admission.source("::ffff:192.0.2.1".parse().expect("an address")).is_none(), "the same in other words");
        assert!(admission.source("192.0.2.2".parse().expect("an address")).is_some());
        drop(held);
        assert!(admission.source(source).is_some());
        assert_eq!(admission.sources.total(), 0);
        assert!(admission.sources.held.lock().expect("whole").1.is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn many_sources_meet_the_bound_for_all() {
        let admission = Admission::new();
        let held: Vec<_> = (0..1000u32).map_while(|n| admission.source(IpAddr::from(n.to_be_bytes()))).collect();
        assert_eq!(held.len(), UNDECIDED_MAX);
        assert!(admission.crowded());
    }

    #[test]
    fn a_prefix_counts_as_one_source() {
        let admission = Admission::new();
        let held: Vec<_> =
            (0..100u16).map_while(|n| admission.source(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]))).collect();
        assert_eq!(held.len(), UNDECIDED_PER_SOURCE_MAX);
    }

    #[test]
    fn a_key_has_its_share() {
        let admission = Admission::new();
        let held: Vec<_> = (0..100).map_while(|_| admission.peer(PublicKey([1; 32]))).collect();
        assert_eq!(held.len(), limits::CROSSINGS_PER_PEER_MAX);
        assert!(admission.peer(PublicKey([2; 32])).is_some());
    }
}
