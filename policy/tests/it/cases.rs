//! Tables of crossings, one file for each pack, with the rules that must decide each.

use std::collections::{BTreeMap, BTreeSet};

use alliance_policy::{CedarGate, remedies};
use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackOwner, RuleRole, Verdict},
    vocabulary::{Artefact, Country, Label, OrganisationRole, Purpose, SafeguardKind, Use},
};
use serde::Deserialize;

use crate::{TODAY, at, issue, open_model, pack};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    pack: String,
    cases: Vec<Case>,
}

/// A crossing; what is left out is as in an open model that crosses for research today.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    action: Option<Action>,
    from: String,
    to: String,
    artefact: Option<Artefact>,
    labels: BTreeSet<Label>,
    origin: Option<Country>,
    #[serde(default)]
    subjects: BTreeSet<Country>,
    purpose: Option<Purpose>,
    #[serde(rename = "use")]
    use_: Option<Use>,
    at: Option<String>,
    #[serde(default)]
    from_roles: BTreeSet<OrganisationRole>,
    #[serde(default)]
    to_roles: BTreeSet<OrganisationRole>,
    to_controlled_by: Option<Country>,
    #[serde(default)]
    to_state_controlled: bool,
    #[serde(default)]
    safeguards: BTreeMap<Country, BTreeSet<SafeguardKind>>,
    allowed: bool,
    /// Exactly the rules that decide.
    rules: BTreeSet<String>,
    /// Rules that come close and must not decide.
    #[serde(default)]
    misses: BTreeSet<String>,
    /// Some of the duties that come with it.
    #[serde(default)]
    obligations: BTreeSet<String>,
}

impl Case {
    fn facts(&self) -> Facts {
        let mut facts = open_model(&self.from, &self.to);
        facts.artefact = self.artefact.unwrap_or(facts.artefact);
        facts.labels.clone_from(&self.labels);
        facts.origin = self.origin.unwrap_or(facts.origin);
        facts.subjects.clone_from(&self.subjects);
        facts.purpose = self.purpose.unwrap_or(facts.purpose);
        facts.use_ = self.use_.unwrap_or(facts.use_);
        facts.from.roles.clone_from(&self.from_roles);
        facts.to.roles.clone_from(&self.to_roles);
        facts.to.controlled_by = self.to_controlled_by.unwrap_or(facts.to.controlled_by);
        facts.to.state_controlled = self.to_state_controlled;
        facts.safeguards.clone_from(&self.safeguards);
        facts
    }

    fn ask(&self, gate: &CedarGate, pack: &Pack, facts: &Facts) -> Verdict {
        let instant = at(self.at.as_deref().unwrap_or(TODAY));
        gate.judge(pack, self.action.unwrap_or(Action::Export), facts, instant)
    }
}

fn ids(verdict: &Verdict, role: RuleRole) -> BTreeSet<String> {
    verdict.rules.iter().filter(|rule| rule.role == role).map(|rule| rule.id.clone()).collect()
}

#[track_caller]
fn check(text: &str) {
    let table: Table = serde_json::from_str(text).expect("a table");
    let (gate, pack) = (CedarGate::new(), pack(&table.pack));
    let (mut denying, mut quiet, mut permitting) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for case in &table.cases {
        let name = format!("{}: {}", table.pack, case.name);
        let facts = case.facts();
        let verdict = case.ask(&gate, &pack, &facts);
        assert_eq!(verdict.error, None, "{name}");
        let decided: BTreeSet<String> = verdict.rules.iter().map(|rule| rule.id.clone()).collect();
        assert_eq!((verdict.allowed, &decided), (case.allowed, &case.rules), "{name}");
        assert!(case.obligations.is_subset(&verdict.obligations), "{name}: {:?}", verdict.obligations);
        assert!(decided.is_disjoint(&case.misses), "{name}");
        if case.allowed {
            quiet.extend(case.misses.iter().cloned());
            quiet.extend(ids(&verdict, RuleRole::Satisfied));
            permitting.extend(ids(&verdict, RuleRole::Permits));
        } else {
            assert_eq!(ids(&verdict, RuleRole::Denies), decided, "{name}");
            assert!(verdict.obligations.is_empty(), "{name}");
            denying.extend(decided);
            check_remedies(&name, case, &gate, &pack, &verdict);
        }
    }
    for rule in gate.check(&pack).expect("a pack").rules {
        if rule.role == RuleRole::Denies {
            assert!(denying.contains(&rule.id), "no case in which {} denies", rule.id);
            assert!(quiet.contains(&rule.id), "no case in which {} does not deny", rule.id);
        } else {
            assert!(permitting.contains(&rule.id), "no case in which {} permits", rule.id);
        }
    }
}

/// What people are told would satisfy the rules does.
fn check_remedies(name: &str, case: &Case, gate: &CedarGate, pack: &Pack, verdict: &Verdict) {
    let hopeless = verdict.rules.iter().any(|rule| rule.remedies.is_empty());
    let Some(found) = remedies(std::slice::from_ref(verdict)) else {
        return assert!(hopeless, "{name}: a way exists but was not found");
    };
    assert!(!hopeless && found.len() == 1, "{name}");
    for set in found.iter().flat_map(|remedy| &remedy.any_of) {
        let mut facts = case.facts();
        let issuers = match pack.owner {
            PackOwner::Member(country) => vec![country],
            PackOwner::Alliance | PackOwner::House => vec![facts.from.country, facts.to.country],
        };
        for issuer in issuers {
            issue(&mut facts, issuer, set.iter().copied());
        }
        let after = case.ask(gate, pack, &facts);
        assert!(after.allowed, "{name}: {set:?} should satisfy, but {:?}", ids(&after, RuleRole::Denies));
    }
}

#[test]
fn brazil() {
    check(include_str!("../cases/br.json"));
}

#[test]
fn russia() {
    check(include_str!("../cases/ru.json"));
}

#[test]
fn india() {
    check(include_str!("../cases/in.json"));
}

#[test]
fn china() {
    check(include_str!("../cases/cn.json"));
}

#[test]
fn south_africa() {
    check(include_str!("../cases/za.json"));
}

#[test]
fn the_baseline() {
    check(include_str!("../cases/alliance.json"));
}
