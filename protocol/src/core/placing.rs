//! Peers that cannot be where they are said to be: a round trip to them took less time than light does.
//!
//! What is measured contradicts one place as seen from another, so it counts as long as both accreditations name these: it is
//! forgotten when either node gets another. It lowers the tier of a node and is shown to the operator; what a tier is good
//! for is for the rules to say. Where the key answers is all that can be measured, not where the bytes go from there.

use super::{admin::Misplaced, *};
use crate::place::Place as Site;

/// Owner of what measurements contradict.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// By node. One place of each, the one contradicted last: an accreditation has one.
    contradicted: BTreeMap<PublicKey, Contradiction>,
}

/// A place that a node cannot be at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Contradiction {
    place: Site,
    seen_from: Site,
    round_trip_us: u64,
}

impl Placing {
    /// Takes in what was recorded.
    pub(super) fn recorded(&mut self, node: PublicKey, place: Site, seen_from: Site, round_trip_us: u64) {
        self.contradicted.insert(node, Contradiction { place, seen_from, round_trip_us });
    }

    /// Nodes that cannot be at this place, as seen from here.
    pub(super) fn misplaced(&self, here: Option<Site>) -> BTreeMap<PublicKey, Site> {
        let counts = self.contradicted.iter().filter(|(_, known)| Some(known.seen_from) == here);
        counts.map(|(node, known)| (*node, known.place)).collect()
    }

    /// What the operator should know of where a node is said to be.
    pub(super) fn alarm(&self, node: &PublicKey, place: Option<Site>, here: Option<Site>) -> Option<String> {
        let known =
            self.contradicted.get(node).filter(|known| Some(known.place) == place && Some(known.seen_from) == here)?;
        let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
        Some(format!(
            "it cannot stand at {}: an answer took {}, light in fibre takes {} to there and back",
            known.place,
            ms(known.round_trip_us),
            ms(known.seen_from.round_trip_us_at_least(&known.place)),
        ))
    }
}

impl Core {
    /// A peer answered after so many microseconds.
    pub(super) fn measured(
        &mut self,
        peer: PublicKey,
        round_trip_us: u64,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let Some(seen_from) = self.accreditation.body().place else { return };
        let Some(place) = self.peers.get(&peer).and_then(|known| known.accreditation.body().place) else { return };
        if round_trip_us >= seen_from.round_trip_us_at_least(&place)
            || self.placing.misplaced(Some(seen_from)).get(&peer) == Some(&place)
        {
            return;
        }
        self.record(Record::PlaceContradicted { node: peer, place, seen_from, round_trip_us }, now, effects);
        self.decide_running_again(now, gate, effects);
    }

    /// Every node that is known and cannot be where it is said to be.
    pub(super) fn misplaced(&self) -> Vec<Misplaced> {
        let misplaced = |known: &peers::Known| {
            let body = known.accreditation.body();
            let why = self.place_alarm(body)?;
            Some(Misplaced { node: body.node, organisation: body.organisation.name.clone(), why })
        };
        self.peers.iter().filter_map(misplaced).collect()
    }

    /// What the operator should know of where a node is said to be, if anything.
    pub(super) fn place_alarm(&self, accreditation: &Accreditation) -> Option<String> {
        self.placing.alarm(&accreditation.node, accreditation.place, self.accreditation.body().place)
    }
}
