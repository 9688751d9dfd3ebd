//! Peers that cannot be where they are said to be: a round trip to them took less time than light does.
//!
//! What is measured contradicts one place as seen from another, so it counts as long as both accreditations name these: it is
//! forgotten when either node gets another. It lowers the tier of a node and is shown to the operator; what a tier is good
//! for is for the rules to say. Where the key answers is all that can be measured, not where the bytes go from there.

use super::{admin::Misplaced, *};
use crate::place::{Misplacement, Place as Site};

/// Owner of what measurements contradict.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// By node, all as seen from one place; no more of each than [`limits::PLACES_CONTRADICTED_MAX`].
    contradicted: BTreeMap<PublicKey, Vec<Contradiction>>,
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
        let known = self.contradicted.entry(node).or_default();
        known.retain(|other| other.seen_from == seen_from && other.place != place);
        known.push(Contradiction { place, seen_from, round_trip_us });
    }

    /// The places that nodes cannot be at, as seen from here.
    pub(super) fn misplaced(&self, here: Option<Site>) -> BTreeMap<PublicKey, Misplacement> {
        self.contradicted.keys().map(|node| (*node, self.misplacement(node, here))).collect()
    }

    /// The places that this node cannot be at, as seen from here.
    fn misplacement(&self, node: &PublicKey, here: Option<Site>) -> Misplacement {
        let places: Vec<Site> = self.seen(node, here).map(|one| one.place).collect();
        if places.len() < limits::PLACES_CONTRADICTED_MAX { Misplacement::At(places) } else { Misplacement::Everywhere }
    }

    /// What the operator should know of a node that is said to be at this place.
    pub(super) fn alarm(&self, node: &PublicKey, place: Site, here: Option<Site>) -> Option<String> {
        if let Some(known) = self.seen(node, here).find(|one| one.place == place) {
            let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
            return Some(format!(
                "it cannot stand at {place}: an answer took {}, light in fibre takes {} to there and back",
                ms(known.round_trip_us),
                ms(known.seen_from.round_trip_us_at_least(&place)),
            ));
        }
        let places = self.seen(node, here).count();
        let nowhere = self.misplacement(node, here).excludes(&place);
        nowhere.then(|| format!("it was said to stand at {places} places, and could be at none of them"))
    }

    fn seen(&self, node: &PublicKey, here: Option<Site>) -> impl Iterator<Item = &Contradiction> {
        self.contradicted.get(node).into_iter().flatten().filter(move |one| Some(one.seen_from) == here)
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
        let known = self.placing.misplacement(&peer, Some(seen_from)).excludes(&place);
        if known || round_trip_us >= seen_from.round_trip_us_at_least(&place) {
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
        self.placing.alarm(&accreditation.node, accreditation.place?, self.accreditation.body().place)
    }
}
