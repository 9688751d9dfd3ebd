//! Which rules decided, what duties come with a crossing, and what would turn a denial into permission.
//!
//! It explains a decision that was made. It makes none.

use std::collections::{BTreeMap, BTreeSet};

use alliance_protocol::{
    gate::{PackOwner, RuleRole, Verdict},
    vocabulary::SafeguardKind,
};
use serde::{Deserialize, Serialize};

use crate::{conditions::smallest, decide::Judgement, pack::Compiled, rule::Rule};

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
pub fn remedies(verdicts: &[Verdict]) -> Option<Vec<Remedy>> {
    let mut needed: BTreeMap<PackOwner, BTreeSet<BTreeSet<SafeguardKind>>> = BTreeMap::new();
    for verdict in verdicts.iter().filter(|verdict| !verdict.allowed) {
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

/// A denial by the rules that forbid. None of them: nothing permits.
pub(crate) fn denial(compiled: &Compiled, forbids: &BTreeSet<String>) -> Judgement {
    let rules = known(compiled, forbids).map(|rule| rule.cited(RuleRole::Denies)).collect();
    Judgement { allowed: false, rules, obligations: BTreeSet::new() }
}

/// A permission: the rules that safeguards satisfied and those that permit, or, where there is none of them, the residual.
pub(crate) fn permission(compiled: &Compiled, permits: &BTreeSet<String>, satisfied: &BTreeSet<String>) -> Judgement {
    let satisfied: Vec<&Rule> = known(compiled, satisfied).collect();
    let (residual, permits): (Vec<&Rule>, Vec<&Rule>) = known(compiled, permits).partition(|rule| rule.residual);
    let permits = if satisfied.is_empty() && permits.is_empty() { residual } else { permits };
    let all = || satisfied.iter().chain(&permits);
    let obligations = all().flat_map(|rule| rule.obligations.iter().cloned()).collect();
    let satisfied = satisfied.iter().map(|rule| rule.cited(RuleRole::Satisfied));
    let permits = permits.iter().map(|rule| rule.cited(RuleRole::Permits));
    Judgement { allowed: true, rules: satisfied.chain(permits).collect(), obligations }
}

fn known<'a>(compiled: &'a Compiled, ids: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Rule> {
    ids.iter().filter_map(|id| compiled.rules.get(id))
}
