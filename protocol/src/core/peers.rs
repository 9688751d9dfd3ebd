//! The nodes that this one knows: their records, who is connected, who is admitted.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::{
    authority::Accreditation, envelope::Signed, id::StatementId, key::PublicKey, offer::NodeRecord, time::Timestamp,
    vocabulary::Country,
};

/// Owner of what is known of other nodes. Everything in it was verified by the caller.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<PublicKey, Known>,
    connected: BTreeSet<PublicKey>,
    admitted: BTreeSet<PublicKey>,
    /// How far a synchronisation of several pages has come with an admitted peer.
    pages: BTreeMap<PublicKey, Pages>,
    /// Which absent peer was dialled last; they take turns.
    dialled: Option<PublicKey>,
    /// Which admitted peer was asked last to synchronise; they take turns.
    turn: Option<PublicKey>,
}

/// A node as it presented itself.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) record: Signed<NodeRecord>,
    pub(super) accreditation: Signed<Accreditation>,
}

#[derive(Debug)]
struct Pages {
    after: StatementId,
    count: u32,
}

/// Pages of one synchronisation; a catalogue at its bounds has fewer.
const PAGES_MAX: u32 = 1024;

impl Peers {
    pub(super) fn insert(&mut self, known: Known) {
        self.known.insert(known.record.body().node, known);
    }

    pub(super) fn get(&self, node: &PublicKey) -> Option<&Known> {
        self.known.get(node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    pub(super) fn of_member(&self, member: Country) -> usize {
        self.known.values().filter(|known| known.accreditation.body().member == member).count()
    }

    pub(super) fn connect(&mut self, peer: PublicKey) {
        self.connected.insert(peer);
    }

    pub(super) fn disconnect(&mut self, peer: &PublicKey) {
        self.connected.remove(peer);
        self.admitted.remove(peer);
        self.pages.remove(peer);
    }

    /// Where the next page of a synchronisation begins, if there is one. Pages must rise and end, or the peer is not
    /// asked on.
    pub(super) fn next_page(&mut self, peer: PublicKey, next: Option<StatementId>) -> Option<StatementId> {
        let before = self.pages.remove(&peer);
        let after = next?;
        let count = before.as_ref().map_or(0, |pages| pages.count) + 1;
        if count > PAGES_MAX || before.is_some_and(|pages| after <= pages.after) {
            return None;
        }
        self.pages.insert(peer, Pages { after, count });
        Some(after)
    }

    pub(super) fn admit(&mut self, peer: PublicKey) -> bool {
        self.connected.contains(&peer) && self.admitted.insert(peer)
    }

    pub(super) fn is_connected(&self, peer: &PublicKey) -> bool {
        self.connected.contains(peer)
    }

    pub(super) fn is_admitted(&self, peer: &PublicKey) -> bool {
        self.admitted.contains(peer)
    }

    pub(super) fn admitted(&self) -> usize {
        self.admitted.len()
    }

    /// Forgets a node; gives the id of its record and whether it was connected.
    pub(super) fn purge(&mut self, node: &PublicKey) -> (Option<StatementId>, bool) {
        let record = self.known.remove(node).map(|known| known.record.id());
        self.admitted.remove(node);
        self.pages.remove(node);
        (record, self.connected.remove(node))
    }

    /// The nodes whose records or accreditations have run out.
    pub(super) fn expired(&self, now: Timestamp) -> Vec<PublicKey> {
        let ran_out =
            |known: &&Known| known.record.body().validity.until.min(known.accreditation.body().validity.until) <= now;
        self.iter().filter(ran_out).map(|known| known.record.body().node).collect()
    }

    /// The next peers to dial of those that are not connected, at most `count`, all of them in turn.
    pub(super) fn next_absent(&mut self, count: usize) -> Vec<&Known> {
        let absent = |(node, _): &(&PublicKey, &Known)| !self.connected.contains(node);
        let start = self.dialled.map_or(Bound::Unbounded, Bound::Excluded);
        let after = self.known.range((start, Bound::Unbounded)).filter(absent);
        let before =
            self.known.iter().filter(absent).take_while(|(node, _)| self.dialled.is_some_and(|last| **node <= last));
        let next: Vec<_> = after.chain(before).take(count).collect();
        self.dialled = next.last().map(|(node, _)| **node).or(self.dialled);
        next.into_iter().map(|(_, known)| known).collect()
    }

    /// The next admitted peer to synchronise with.
    pub(super) fn next_turn(&mut self) -> Option<PublicKey> {
        let after = self.turn.and_then(|last| self.admitted.iter().find(|peer| **peer > last));
        self.turn = after.or_else(|| self.admitted.first()).copied();
        self.turn
    }
}
