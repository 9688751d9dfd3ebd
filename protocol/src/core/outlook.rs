//! What law that is adopted ahead, or that begins or ends on a date, will do to what stands now: told before it happens.
//!
//! Only the law is of then; offers, papers and bans are those of now. Nothing is cleared by it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Core,
    admin::{Ending, EndingOf, OutlookView, Turn},
    local::PREVIEWED,
};
use crate::{
    authority::Accreditation,
    border::{Attempt, Border, Counted, Portion, Training},
    envelope::Signed,
    gate::{Gate, Pack, PackOwner},
    limits,
    offer::{Offer, Offered},
    time::Timestamp,
    trust::{Course, turns_of},
    vocabulary::{Country, Purpose, Use},
};

/// Milliseconds that are looked ahead: a year, as amendments of law are dated.
const AHEAD_MS: u64 = 366 * 24 * 60 * 60 * 1000;

/// Instants that are looked at, and those that one pack may have among them.
const TURNS_MAX: usize = 32;
const TURNS_OF_PACK_MAX: usize = 8;

/// Decisions that one answer may cost: about a tenth of a second.
const DECISIONS_MAX: usize = 4_000;

/// A crossing that could be: an offer, to one importer, for one purpose.
struct Possible<'a> {
    offer: &'a Signed<Offer>,
    exporter: &'a Signed<Accreditation>,
    importer: &'a Signed<Accreditation>,
    purpose: Purpose,
}

impl Core {
    /// When a rule of a pack that may be asked next begins or ends, as a decision sees it.
    pub(super) fn next_turn_of_law(&self, now: Timestamp, gate: &dyn Gate) -> Option<Timestamp> {
        let of_members = self.trust.chartered().charter().members.keys();
        let laws = of_members.filter_map(|member| self.trust.laws(*member, Course::Running, now).ok()).flatten();
        let packs = laws.chain([&self.config.baseline]).chain(&self.config.house);
        // From the earlier end of the interval on: what has begun for the one end may not have for the other.
        let early = now.minus_ms(limits::CLOCK_SKEW_MS_MAX);
        let turns = packs.flat_map(|pack| {
            let first = gate.next_turn(pack, early);
            let later = gate.next_turn(pack, now.plus_ms(limits::CLOCK_SKEW_MS_MAX));
            [first, later].into_iter().flatten().flat_map(turns_of)
        });
        turns.filter(|turn| *turn > now).min()
    }

    /// Which running crossings and standing offers end when law that is known today comes into force or ends.
    pub(super) fn outlook(&self, now: Timestamp, gate: &dyn Gate) -> OutlookView {
        let now_border = Border { ledger: None, ..self.border(gate, now) };
        let mut left = DECISIONS_MAX;
        let mut view = OutlookView { turns: Vec::new(), complete: true };
        let mut standing = self.possible();
        standing.retain(|possible| self.crosses(possible, &now_border, &mut left));
        let mut ended = BTreeSet::new();
        for (at, causes) in self.turns_ahead(now, gate) {
            let then = Border { outlook: Some(at), ledger: None, ..self.border(gate, now) };
            let mut endings = Vec::new();
            for (crossing, name, country, why) in self.running_under(&then) {
                if ended.insert(crossing) {
                    endings.push(Ending { of: EndingOf::Crossing(crossing), name, country, purposes: [].into(), why });
                }
            }
            let mut lost = BTreeMap::new();
            standing.retain(|possible| {
                if left == 0 {
                    return true;
                }
                left -= 1;
                let Some(denial) = denial_of(self, possible, &then) else { return true };
                let country = if self.is_own(possible) { possible.importer } else { possible.exporter }.body().member;
                let place = lost.entry((possible.offer.id(), country)).or_insert_with(|| {
                    let name = possible.offer.body().name.clone();
                    Ending { of: EndingOf::Offer(possible.offer.id()), name, country, purposes: [].into(), why: denial }
                });
                place.purposes.insert(possible.purpose);
                false
            });
            endings.extend(lost.into_values());
            view.turns.push(Turn { at, causes, endings });
        }
        view.complete = left > 0;
        view
    }

    fn is_own(&self, possible: &Possible<'_>) -> bool {
        possible.offer.body().node == self.me()
    }

    /// Every offer of a model for each purpose that its terms admit: what others offer to this node, and what this node offers to one
    /// node of each member that it knows.
    fn possible(&self) -> Vec<Possible<'_>> {
        let mut importers = BTreeMap::<Country, &Signed<Accreditation>>::new();
        for known in self.peers.iter() {
            importers.entry(known.accreditation.body().member).or_insert(&known.accreditation);
        }
        let mut possible = Vec::new();
        for offer in self.offers.iter().filter(|offer| matches!(offer.body().what, Offered::Model(_))) {
            let body = offer.body();
            let purposes: Vec<Purpose> = match body.terms.purposes.is_empty() {
                true => PREVIEWED.to_vec(),
                false => body.terms.purposes.iter().copied().collect(),
            };
            let own = body.node == self.me();
            let pairs: Vec<_> = match (own, self.peers.get(&body.node)) {
                (true, _) => importers.values().map(|importer| (&self.accreditation, *importer)).collect(),
                (false, Some(known)) => vec![(&known.accreditation, &self.accreditation)],
                (false, None) => Vec::new(),
            };
            for (exporter, importer) in pairs {
                possible.extend(purposes.iter().map(|purpose| Possible { offer, exporter, importer, purpose: *purpose }));
            }
        }
        possible
    }

    fn crosses(&self, possible: &Possible<'_>, border: &Border<'_>, left: &mut usize) -> bool {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        denial_of(self, possible, border).is_none()
    }

    /// Running crossings that a border would not let go on, with the offer's name, the other side's country, and why.
    fn running_under(&self, border: &Border<'_>) -> Vec<(crate::id::CrossingId, String, Country, String)> {
        let root = |offer: &Signed<Offer>| self.root_of(offer.body());
        let exports = self.exports.values().filter(|export| export.ended.is_none()).filter_map(|export| {
            let allowed = export.still_allowed(
                border,
                &self.accreditation,
                &self.offers,
                root(export.offer()),
                self.attestation_of(export.offer().body()),
            );
            let member = export.importer().member;
            Some((export.crossing(), export.offer().body().name.clone(), member, allowed.err()?.problem))
        });
        let pulls = self.pulls.iter().filter(|(_, pull)| pull.ended.is_none()).filter_map(|(crossing, pull)| {
            let allowed = pull.still_allowed(border, &self.accreditation, &self.offers, root(pull.offer()));
            let member = self.member_of(&pull.exporter()).unwrap_or(border.home);
            Some((*crossing, pull.offer().body().name.clone(), member, allowed.err()?.problem))
        });
        exports.chain(pulls).collect()
    }

    /// The instants ahead at which law changes, with the reasons.
    fn turns_ahead(&self, now: Timestamp, gate: &dyn Gate) -> BTreeMap<Timestamp, Vec<String>> {
        let until = now.plus_ms(AHEAD_MS);
        let mut turns = BTreeMap::<Timestamp, Vec<String>>::new();
        let mut packs: Vec<&Pack> = vec![&self.config.baseline];
        packs.extend(&self.config.house);
        packs.extend(self.trust.members(now).filter_map(|(member, ..)| self.trust.law_on(member, now).ok()));
        for (member, next, pack) in self.trust.upcoming().filter(|(_, next, _)| next.from > now && next.from <= until) {
            let missing = if pack.is_some() { "" } else { ", which is not here: nothing that needs it will cross" };
            let cause = format!("the law pack of {member}, epoch {}, comes into force{missing}", next.epoch);
            turns.entry(next.from).or_default().push(cause);
            packs.extend(pack);
        }
        for pack in packs {
            let mut at = now;
            for _ in 0..TURNS_OF_PACK_MAX {
                let Some(turn) = gate.next_turn(pack, at).filter(|turn| *turn <= until) else { break };
                let whose = match pack.owner {
                    PackOwner::Member(member) => format!("the law of {member}"),
                    PackOwner::Alliance => "the baseline of the alliance".to_owned(),
                    PackOwner::House => "the rules of this house".to_owned(),
                };
                turns.entry(turn).or_default().push(format!("a rule of {whose}, epoch {}, begins or ends", pack.epoch));
                at = turn;
            }
        }
        while turns.len() > TURNS_MAX {
            turns.pop_last();
        }
        turns
    }
}

/// Why a possible crossing would be denied, if it would be.
fn denial_of(core: &Core, possible: &Possible<'_>, border: &Border<'_>) -> Option<String> {
    let attempt = Attempt {
        course: Course::New,
        exporter: possible.exporter,
        importer: possible.importer,
        offer: possible.offer,
        root: core.root_of(possible.offer.body()),
        portion: &Portion::All,
        purpose: possible.purpose,
        use_: Use::Inference,
        circumstances: &BTreeSet::new(),
        counted: Counted::NOTHING,
        safeguards: &[],
        training: Training::Claimed,
    };
    border.decide(&attempt).denial.map(|denial| denial.problem)
}
