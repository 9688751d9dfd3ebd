//! Which rules decided, what duties come with a crossing, and what would turn a denial into permission.
//!
//! It explains a decision that was made. It makes none.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alliance_protocol::{
    gate::{Action, Pack, PackOwner, RuleCited, RuleRole, Verdict},
    vocabulary::SafeguardKind,
};
use serde::{Deserialize, Serialize};

use crate::{conditions::smallest, pack::Law};

/// Alternatives that are worked out for one pack. Beyond it the shortest are kept.
const REMEDIES_MAX: usize = 64;

/// What one pack lacks: any one of these sets of safeguards, issued by the member whose pack it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remedy {
    pub pack: PackOwner,
    /// Smallest sets only, the shortest first. Never empty.
    pub any_of: Vec<BTreeSet<SafeguardKind>>,
}

/// What would turn all denials into permission: one set of safeguards from each of these packs.
///
/// `None` where nothing would: a rule that nothing satisfies, a pack that nothing permits, or one that could not be asked.
/// An empty list where nothing is denied. A remedy of the alliance's baseline has to come from both ends of the crossing.
#[must_use]
pub fn remedies<V: Borrow<Verdict>>(verdicts: &[V]) -> Option<Vec<Remedy>> {
    let mut needed: BTreeMap<PackOwner, BTreeSet<BTreeSet<SafeguardKind>>> = BTreeMap::new();
    for verdict in verdicts.iter().map(Borrow::borrow).filter(|verdict| !verdict.allowed) {
        let denying = || verdict.rules.iter().filter(|rule| rule.role == RuleRole::Denies);
        if verdict.error.is_some() || denying().next().is_none() {
            return None;
        }
        for rule in denying() {
            let ways = needed.entry(verdict.pack).or_insert_with(|| [BTreeSet::new()].into());
            *ways = both(ways, &rule.remedies);
            if ways.is_empty() {
                return None;
            }
        }
    }
    let shortest_first = |ways: BTreeSet<BTreeSet<SafeguardKind>>| {
        let mut ways: Vec<_> = ways.into_iter().collect();
        ways.sort_by_key(BTreeSet::len);
        ways
    };
    Some(needed.into_iter().map(|(pack, ways)| Remedy { pack, any_of: shortest_first(ways) }).collect())
}

/// The smallest sets that satisfy what was needed so far and one more rule.
fn both(ways: &BTreeSet<BTreeSet<SafeguardKind>>, more: &[BTreeSet<SafeguardKind>]) -> BTreeSet<BTreeSet<SafeguardKind>> {
    let joined = smallest(&ways.iter().flat_map(|one| more.iter().map(move |other| one | other)).collect());
    let mut joined: Vec<_> = joined.into_iter().collect();
    joined.sort_by_key(BTreeSet::len);
    joined.into_iter().take(REMEDIES_MAX).collect()
}

/// What a pack says: the rules that deny; or those that safeguards satisfied and those that permit, or, where there is none
/// of them, the residual.
pub(crate) fn verdict(pack: &Pack, action: Action, denying: &[&Law], satisfied: &[&Law], permitting: &[&Law]) -> Verdict {
    let said = |allowed, rules, obligations| Verdict {
        pack: pack.owner,
        epoch: pack.epoch,
        action,
        allowed,
        rules,
        obligations,
        error: None,
    };
    if !denying.is_empty() || permitting.is_empty() {
        return said(false, cited(denying, RuleRole::Denies), BTreeSet::new());
    }
    let (residual, permits): (Vec<&Law>, Vec<&Law>) = permitting.iter().partition(|law| law.rule.residual);
    let permits = if satisfied.is_empty() && permits.is_empty() { residual } else { permits };
    let obligations = satisfied.iter().chain(&permits).flat_map(|law| law.rule.obligations.iter().cloned()).collect();
    let mut rules = cited(satisfied, RuleRole::Satisfied);
    rules.extend(cited(&permits, RuleRole::Permits));
    said(true, rules, obligations)
}

/// The rules as they are shown and recorded, in the order of their ids.
fn cited(laws: &[&Law], role: RuleRole) -> Vec<Arc<RuleCited>> {
    let mut rules: Vec<Arc<RuleCited>> = laws.iter().map(|law| law.rule.cited(role)).collect();
    rules.sort_by(|one, other| one.id.cmp(&other.id));
    rules
}
