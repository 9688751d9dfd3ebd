//! The conformance vectors: what every implementation must say, written by another one (`tests/vectors/generate.py`).

#![expect(clippy::panic, reason = "vectors that cannot be read fail the test, naming the file and the vector")]

use std::collections::{BTreeMap, BTreeSet};

use alliance_policy::{CedarGate, FOUNDING_MEMBERS, remedies};
use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackOwner, RuleRole, Verdict},
    obligation::Obligation,
    time::Timestamp,
    vocabulary::{Artefact, SafeguardKind},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{issue, pack};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    pack: String,
    defaults: Map<String, Value>,
    vectors: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    action: Action,
    at: String,
    /// What differs from the defaults.
    facts: Map<String, Value>,
    allowed: bool,
    rules: BTreeSet<Decided>,
    obligations: BTreeSet<Obligation>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
struct Decided {
    id: String,
    role: String,
}

/// A vector, read.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) action: Action,
    pub(crate) at: Timestamp,
    pub(crate) facts: Facts,
    allowed: bool,
    rules: BTreeSet<Decided>,
    obligations: BTreeSet<Obligation>,
}

impl Vector {
    /// What the pack says differs from what every implementation must say.
    pub(crate) fn differs(&self, gate: &CedarGate, pack: &Pack) -> Option<String> {
        let verdict = gate.judge(pack, self.action, &self.facts, self.at);
        let role = |role| match role {
            RuleRole::Denies => "denies",
            RuleRole::Satisfied => "satisfied",
            RuleRole::Permits => "permits",
        };
        let decided = verdict.rules.iter().map(|rule| Decided { id: rule.id.clone(), role: role(rule.role).to_owned() });
        let found = (verdict.allowed, decided.collect::<BTreeSet<_>>(), &verdict.obligations, &verdict.error);
        let expected = (self.allowed, self.rules.clone(), &self.obligations, &None);
        (found != expected).then(|| format!("{}: {}\n  found    {found:?}\n  expected {expected:?}", pack.owner, self.name))
    }
}

/// Vectors write instants as people do; facts hold milliseconds.
fn dates_to_ms(facts: &mut Value) {
    match facts {
        Value::Object(entries) => {
            for (name, value) in entries.iter_mut() {
                match (name.as_str(), value.as_str().and_then(|text| text.parse::<Timestamp>().ok())) {
                    ("since" | "filed", Some(instant)) => *value = instant.0.into(),
                    // A number is not how a vector writes an instant.
                    ("since" | "filed", None) if value.is_number() => *value = true.into(),
                    _ => dates_to_ms(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(dates_to_ms),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The file of a pack's vectors.
fn text(owner: &str) -> String {
    let file = format!("{}/../specs/vectors/policy/{}.json", env!("CARGO_MANIFEST_DIR"), owner.to_lowercase());
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

pub(crate) fn vectors(owner: &str) -> Vec<Vector> {
    let table: Table = serde_json::from_str(&text(owner)).expect("a table of vectors");
    assert_eq!(table.pack, owner);
    let read = |row: Row| {
        let mut facts = table.defaults.clone();
        facts.extend(row.facts);
        let mut facts = facts.into();
        dates_to_ms(&mut facts);
        let facts = serde_json::from_value(facts).unwrap_or_else(|error| panic!("{owner}: {}: {error}", row.name));
        let at = row.at.parse().expect("an instant");
        let Row { name, action, allowed, rules, obligations, .. } = row;
        Vector { name, action, at, facts, allowed, rules, obligations }
    };
    table.vectors.into_iter().map(read).collect()
}

pub(crate) fn owners() -> impl Iterator<Item = &'static str> {
    FOUNDING_MEMBERS.into_iter().chain(["alliance"])
}

#[test]
fn every_pack_says_what_the_vectors_say() {
    let (gate, mut count, mut wrong) = (CedarGate::new(), 0, Vec::new());
    for owner in owners() {
        let pack = pack(owner);
        for vector in vectors(owner) {
            count += 1;
            wrong.extend(vector.differs(&gate, &pack));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong[..wrong.len().min(12)].join("\n"));
    assert!(count >= 300, "{count} vectors");
}

#[test]
fn every_rule_decides_in_one_vector_and_does_not_in_another() {
    let gate = CedarGate::new();
    for owner in owners() {
        let mut decides: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let (mut quiet, mut classes) = (BTreeSet::new(), BTreeSet::new());
        let ids: BTreeSet<String> =
            gate.check(&pack(owner)).expect("a pack").rules.into_iter().map(|rule| rule.id.clone()).collect();
        for vector in vectors(owner) {
            classes.insert(vector.facts.artefact);
            let named: BTreeSet<String> = vector.rules.iter().map(|rule| rule.id.clone()).collect();
            quiet.extend(ids.difference(&named).cloned());
            for rule in vector.rules {
                decides.entry(rule.id).or_default().insert(rule.role);
            }
        }
        for rule in gate.check(&pack(owner)).expect("a pack").rules {
            let role = if rule.role == RuleRole::Denies { "denies" } else { "permits" };
            assert!(decides.get(&rule.id).is_some_and(|roles| roles.contains(role)), "{} never {role}", rule.id);
            assert!(quiet.contains(&rule.id), "{} always decides", rule.id);
        }
        assert_eq!(classes.len(), Artefact::ALL.len(), "{owner}: every class of artefact");
    }
}

/// Facts that must not be read at all: a missing, unknown or misspelt word never reaches a rule.
#[test]
fn facts_that_are_not_facts_are_refused() {
    #[derive(Deserialize)]
    struct Invalid {
        vectors: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        name: String,
        facts: Value,
    }
    let invalid: Invalid = serde_json::from_str(&text("invalid")).expect("a table");
    assert!(invalid.vectors.len() >= 60);
    for mut case in invalid.vectors {
        dates_to_ms(&mut case.facts);
        assert!(serde_json::from_value::<Facts>(case.facts).is_err(), "{}", case.name);
    }
}

/// What people are told would satisfy a denial does, and where they are told that nothing would, nothing does.
#[test]
fn what_is_said_to_satisfy_a_denial_does() {
    let gate = CedarGate::new();
    for owner in owners() {
        let pack = pack(owner);
        for vector in vectors(owner).into_iter().filter(|vector| !vector.allowed) {
            let verdict = gate.judge(&pack, vector.action, &vector.facts, vector.at);
            check_remedies(&gate, &pack, &vector, &verdict);
        }
    }
}

fn check_remedies(gate: &CedarGate, pack: &Pack, vector: &Vector, verdict: &Verdict) {
    let name = format!("{}: {}", pack.owner, vector.name);
    let issuers = match pack.owner {
        PackOwner::Member(country) => vec![country],
        PackOwner::Alliance | PackOwner::House => vec![vector.facts.from.country, vector.facts.to.country],
    };
    let with = |kinds: &BTreeSet<SafeguardKind>| {
        let mut facts = vector.facts.clone();
        for issuer in &issuers {
            issue(&mut facts, *issuer, kinds.iter().copied());
            for (kind, grant) in facts.safeguards.get_mut(issuer).into_iter().flatten() {
                if kinds.contains(kind) || *kind == SafeguardKind::RegulatorNotification {
                    (grant.since, grant.filed) = (vector.at.minus_ms(1), Some(vector.at.minus_ms(60 * 86_400_000)));
                }
            }
        }
        gate.judge(pack, vector.action, &facts, vector.at)
    };
    let Some(found) = remedies(std::slice::from_ref(verdict)) else {
        let everything = SafeguardKind::ALL.iter().copied().collect();
        return assert!(!with(&everything).allowed, "{name}: a way exists but was not found");
    };
    for set in found.iter().flat_map(|remedy| &remedy.any_of) {
        let after = with(set);
        // Presenting more can make a rule speak that looks at what is presented (BR-04); then its own remedy is named next.
        let named: BTreeSet<_> = verdict.rules.iter().map(|rule| &rule.id).collect();
        let still = after.rules.iter().filter(|rule| rule.role == RuleRole::Denies && named.contains(&rule.id)).count();
        assert_eq!(still, 0, "{name}: {set:?} should satisfy");
    }
}
