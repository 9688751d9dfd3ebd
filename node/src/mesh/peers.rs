//! What the mesh remembers of peers: their standing while connected, and for a while whom it must not trust at once.
//!
//! All of it is bounded, and the clock is an argument.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use alliance_protocol::{core::SyncRequest, key::PublicKey};
use libp2p::{PeerId, request_response::ResponseChannel};

use super::wire::Answer;

/// Greetings with a new record that a peer may send at once. An honest node greets once and again when its record changes.
const GREETINGS_AT_ONCE: u32 = 8;

/// Time after which a peer may greet once more.
const GREETING_EVERY: Duration = Duration::from_secs(10);

/// Pages that a peer may ask for at once: a full catalogue of one member, twice over.
const PAGES_AT_ONCE: u32 = 256;

/// Time after which a peer may ask for one more page.
const PAGE_EVERY: Duration = Duration::from_millis(250);

/// A peer that is connected.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: PublicKey,
    pub(super) standing: Standing,
    /// The BLAKE3 of the record it presented last, so that the same one is not reported twice.
    pub(super) presented: Option<blake3::Hash>,
    pub(super) greetings: Allowance,
    pub(super) pages: Allowance,
    /// How fast it answered before it was admitted, to be reported when it is.
    pub(super) round_trip: Option<Duration>,
}

/// What a connected peer may do.
#[derive(Debug)]
pub(super) enum Standing {
    /// It may greet, and must be admitted before `deadline`.
    Stranger { deadline: Instant, held: Option<Held> },
    /// It takes part in gossip and synchronisation.
    Admitted,
    /// It is being disconnected; nothing it says counts.
    Leaving,
}

/// A question that came just before its author was admitted. Both sides greet at once, and the one that is admitted first
/// asks first; without this its question would be lost.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) request: SyncRequest,
    pub(super) channel: ResponseChannel<Answer>,
}

impl Peer {
    pub(super) fn stranger(key: PublicKey, now: Instant, admission: Duration) -> Self {
        Self {
            key,
            standing: Standing::Stranger { deadline: now + admission, held: None },
            presented: None,
            greetings: Allowance::new(GREETINGS_AT_ONCE, GREETING_EVERY, now),
            pages: Allowance::new(PAGES_AT_ONCE, PAGE_EVERY, now),
            round_trip: None,
        }
    }

    /// When the peer has to be disconnected if nothing happens.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.standing {
            Standing::Stranger { deadline, .. } => Some(deadline),
            Standing::Admitted | Standing::Leaving => None,
        }
    }

    pub(super) const fn is_admitted(&self) -> bool {
        matches!(self.standing, Standing::Admitted)
    }
}

/// A token bucket: so many at once, and one more after each interval.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    at_once: u32,
    every: Duration,
    since: Instant,
}

impl Allowance {
    pub(super) const fn new(at_once: u32, every: Duration, now: Instant) -> Self {
        Self { left: at_once, at_once, every, since: now }
    }

    /// Uses one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < self.at_once && now.saturating_duration_since(self.since) >= self.every {
            self.left += 1;
            self.since += self.every;
        }
        if self.left == self.at_once {
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Peers with a remark each, which is forgotten after a fixed time, or earlier where there are too many.
#[derive(Debug)]
pub(super) struct Remarks<V> {
    /// Oldest first; as all are kept equally long, also soonest to be forgotten first.
    entries: VecDeque<(Instant, PeerId, V)>,
    kept_for: Duration,
    max: usize,
}

impl<V> Remarks<V> {
    pub(super) const fn new(kept_for: Duration, max: usize) -> Self {
        Self { entries: VecDeque::new(), kept_for, max }
    }

    /// Remembers `remark`, instead of an earlier one. Returns the peer that had to be forgotten for it.
    pub(super) fn insert(&mut self, peer: PeerId, remark: V, now: Instant) -> Option<PeerId> {
        self.entries.retain(|(_, other, _)| *other != peer);
        let forgotten = if self.entries.len() >= self.max { self.entries.pop_front() } else { None };
        self.entries.push_back((now + self.kept_for, peer, remark));
        forgotten.map(|(_, peer, _)| peer)
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&V> {
        self.entries.iter().find(|(_, other, _)| other == peer).map(|(_, _, remark)| remark)
    }

    /// When the next remark is due to be forgotten.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.front().map(|(until, _, _)| *until)
    }

    /// Forgets one remark that is due, and says whose.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<PeerId> {
        if self.next_due()? > now {
            return None;
        }
        self.entries.pop_front().map(|(_, peer, _)| peer)
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

    #[test]
    fn an_allowance_is_used_up_and_grows_again() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut allowance = Allowance::new(2, second, start);
        assert!(allowance.take(start) && allowance.take(start));
        assert!(!allowance.take(start + second / 2));
        assert!(allowance.take(start + second));
        assert!(!allowance.take(start + second));
        let later = start + 100 * second;
        assert!(allowance.take(later) && allowance.take(later) && !allowance.take(later), "it never exceeds its size");
    }

    #[test]
    fn remarks_run_out_and_are_bounded() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let mut remarks = Remarks::new(minute, 2);
        assert_eq!(remarks.insert(peer(1), "a", start), None);
        assert_eq!(remarks.insert(peer(2), "b", start + minute / 2), None);
        assert_eq!(remarks.insert(peer(1), "c", start + minute / 2), None, "a newer remark replaces the older one");
        assert_eq!(remarks.get(&peer(1)), Some(&"c"));
        assert_eq!(remarks.insert(peer(3), "d", start + minute), Some(peer(2)), "the oldest makes room");
        assert_eq!(remarks.get(&peer(2)), None);
        assert_eq!(remarks.pop_due(start + minute), None);
        assert_eq!(remarks.pop_due(start + 2 * minute), Some(peer(1)));
        assert_eq!(remarks.pop_due(start + 2 * minute), Some(peer(3)));
        assert_eq!(remarks.next_due(), None);
    }
}
