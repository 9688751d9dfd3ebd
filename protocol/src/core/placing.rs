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
        let of = |known: &Vec<Contradiction>| {
            let places: Vec<Site> = known.iter().filter(|one| Some(one.seen_from) == here).map(|one| one.place).collect();
            let nowhere = places.len() >= limits::PLACES_CONTRADICTED_MAX;
            if nowhere { Misplacement::Everywhere } else { Misplacement::At(places) }
        };
        self.contradicted.iter().map(|(node, known)| (*node, of(known))).collect()
    }

    /// What the operator should know of where a node is said to be.
    pub(super) fn alarm(&self, node: &PublicKey, place: Option<Site>, here: Option<Site>) -> Option<String> {
        let known = self.contradicted.get(node)?;
        let mut counting = known.iter().filter(|one| Some(one.seen_from) == here);
        let Some(known) = counting.clone().find(|one| Some(one.place) == place) else {
            let places = counting.by_ref().count();
            let nowhere = place.is_some() && places >= limits::PLACES_CONTRADICTED_MAX;
            return nowhere.then(|| format!("it was said to stand at {places} places, and could be at none of them"));
        };
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
        let known = self.placing.misplaced(Some(seen_from)).get(&peer).is_some_and(|known| known.is_of(&place));
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
        self.placing.alarm(&accreditation.node, accreditation.place, self.accreditation.body().place)
    }
}
