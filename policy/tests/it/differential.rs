//! The gate against plain Cedar: every rule of a pack, a question that Cedar parses and validates, nothing remembered.
//!
//! A few thousand crossings with every `cargo test`; a million with
//! `ALLIANCE_CROSSINGS=1000000 cargo test --release -p alliance-policy differential -- --nocapture`.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use alliance_policy::{CedarGate, SCHEMA};
use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackOwner, Party, RuleRole, Verdict},
    time::Timestamp,
    vocabulary::{Country, SafeguardKind},
};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityId, EntityTypeName, EntityUid, PolicyId, PolicySet, Request,
    RestrictedExpression, Schema,
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{at, packs, properties::crossings};

/// Crossings of one run, unless `ALLIANCE_CROSSINGS` says otherwise.
const CROSSINGS: usize = 3000;

/// A pack as Cedar alone reads it.
struct Plain {
    schema: Schema,
    policies: PolicySet,
    residual: BTreeSet<String>,
    satisfiable: BTreeSet<String>,
}

fn uid(kind: &str, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(EntityTypeName::from_str(kind).expect("a type"), EntityId::new(id))
}

fn one(kind: &str, id: &str) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid(kind, id))
}

fn set<'a>(kind: &str, ids: impl IntoIterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(ids.into_iter().map(|id| one(kind, id)))
}

fn record<const N: usize>(fields: [(&str, RestrictedExpression); N]) -> RestrictedExpression {
    RestrictedExpression::new_record(fields.map(|(name, value)| (name.to_owned(), value))).expect("no name twice")
}

fn party(party: &Party) -> RestrictedExpression {
    record([
        ("organisation", one("Organisation", &party.organisation)),
        ("country", one("Country", party.country.as_str())),
        ("zone", one("Zone", party.zone.map_or("none", |zone| zone.as_str()))),
        ("roles", set("Role", party.roles.iter().map(|role| role.as_str()))),
        ("controlled_by", one("Country", party.controlled_by.as_str())),
        ("state_controlled", RestrictedExpression::new_bool(party.state_controlled)),
        ("tiers", set("Tier", party.tier.reached().map(|tier| tier.as_str()))),
    ])
}

impl Plain {
    fn read(pack: &Pack) -> Self {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).expect("the schema");
        let mut plain =
            Self { schema, policies: PolicySet::new(), residual: BTreeSet::new(), satisfiable: BTreeSet::new() };
        for text in [&pack.law, &pack.directives] {
            let parsed: PolicySet = text.parse().expect("a pack");
            for policy in parsed.policies() {
                let id = policy.annotation("id").expect("an id").to_owned();
                if policy.annotation("status") == Some("residual") {
                    plain.residual.insert(id.clone());
                }
                if policy.annotation("satisfied_by").is_some() {
                    plain.satisfiable.insert(id.clone());
                }
                plain.policies.add(policy.new_id(PolicyId::new(&id))).expect("ids are unique");
            }
        }
        plain
    }

    /// What Cedar says, with all safeguards that count before the pack, or with none.
    fn ask(
        &self,
        owner: PackOwner,
        action: Action,
        facts: &Facts,
        instant: Timestamp,
        shown: bool,
    ) -> (bool, BTreeSet<String>) {
        let kinds = |country: Country| -> BTreeSet<SafeguardKind> {
            let mut kinds: BTreeSet<_> =
                facts.safeguards.get(&country).into_iter().flatten().map(|(kind, _)| *kind).collect();
            // Every notification of these crossings was filed long ago.
            if owner == PackOwner::Member("RU".parse().expect("assigned"))
                && kinds.contains(&SafeguardKind::RegulatorNotification)
            {
                kinds.insert(SafeguardKind::WaitingPeriodElapsed);
            } else {
                kinds.remove(&SafeguardKind::WaitingPeriodElapsed);
            }
            kinds
        };
        let (own, mutual) = match owner {
            _ if !shown => Default::default(),
            PackOwner::Member(country) => (kinds(country), BTreeSet::new()),
            PackOwner::Alliance | PackOwner::House => (
                facts.safeguards.keys().flat_map(|country| kinds(*country)).collect(),
                &kinds(facts.from.country) & &kinds(facts.to.country),
            ),
        };
        let ban = match owner {
            PackOwner::Member(country) => facts.bans.contains(&country),
            PackOwner::Alliance | PackOwner::House => !facts.bans.is_empty(),
        };
        let people = |people: u64| RestrictedExpression::new_long(i64::try_from(people).expect("bounded"));
        let context = [
            ("time", RestrictedExpression::new_datetime(instant.to_string())),
            ("from", party(&facts.from)),
            ("to", party(&facts.to)),
            ("labels", set("Label", facts.labels.iter().map(|word| word.as_str()))),
            ("origin", one("Country", facts.origin.as_str())),
            (
                "training",
                record([
                    ("proven", RestrictedExpression::new_bool(facts.trained_in.is_some())),
                    ("countries", set("Country", facts.trained_in.iter().flatten().map(Country::as_str))),
                ]),
            ),
            ("subjects", set("Country", facts.subjects.iter().map(Country::as_str))),
            ("purpose", one("Purpose", facts.purpose.as_str())),
            ("use", one("Use", facts.use_.as_str())),
            ("circumstances", set("Circumstance", facts.circumstances.iter().map(|word| word.as_str()))),
            (
                "volume",
                record([
                    ("people", people(facts.volume.people.get())),
                    ("sensitive_people", people(facts.volume.sensitive_people.get())),
                ]),
            ),
            ("regulator_ban", RestrictedExpression::new_bool(ban)),
            ("safeguards", set("Safeguard", own.iter().map(|word| word.as_str()))),
            ("mutual_safeguards", set("Safeguard", mutual.iter().map(|word| word.as_str()))),
        ];
        let context = Context::from_pairs(context.map(|(name, value)| (name.to_owned(), value))).expect("a context");
        let request = Request::new(
            uid("Organisation", &facts.to.organisation),
            uid("Action", action.as_str()),
            uid("Artefact", facts.artefact.as_str()),
            context,
            Some(&self.schema),
        );
        let request = request.expect("a question that fits the schema");
        let response = Authorizer::new().is_authorized(&request, &self.policies, &Entities::empty());
        assert_eq!(response.diagnostics().errors().count(), 0);
        let rules = response.diagnostics().reason().map(|id| id.to_string()).collect();
        (response.decision() == Decision::Allow, rules)
    }

    /// Decision, rules with their roles, and obligations.
    fn judge(&self, owner: PackOwner, action: Action, facts: &Facts, instant: Timestamp) -> Answer {
        let (allowed, rules) = self.ask(owner, action, facts, instant, true);
        if !allowed {
            return (false, rules.into_iter().map(|id| (id, RuleRole::Denies as u8)).collect(), BTreeSet::new());
        }
        let (_, without) = self.ask(owner, action, facts, instant, false);
        let satisfied: BTreeSet<String> = without.into_iter().filter(|id| self.satisfiable.contains(id)).collect();
        let permits: BTreeSet<String> = &rules - &self.residual;
        let permits = if satisfied.is_empty() && permits.is_empty() { rules } else { permits };
        let duties = satisfied.iter().chain(&permits).filter_map(|id| {
            let policy = self.policies.policy(&PolicyId::new(id)).expect("a rule of the pack");
            policy.annotation("obligation")
        });
        let duties = duties.flat_map(|duties| duties.split(',')).map(|duty| duty.trim().to_owned()).collect();
        let satisfied = satisfied.into_iter().map(|id| (id, RuleRole::Satisfied as u8));
        (true, satisfied.chain(permits.into_iter().map(|id| (id, RuleRole::Permits as u8))).collect(), duties)
    }
}

type Answer = (bool, BTreeMap<String, u8>, BTreeSet<String>);

fn answer(verdict: &Verdict) -> Answer {
    assert_eq!(verdict.error, None);
    let rules = verdict.rules.iter().map(|rule| (rule.id.clone(), rule.role as u8)).collect();
    (verdict.allowed, rules, verdict.obligations.iter().map(ToString::to_string).collect())
}

#[test]
fn the_gate_says_what_plain_cedar_says() {
    let crossings_asked = std::env::var("ALLIANCE_CROSSINGS").ok().map(|n| n.parse().expect("a number"));
    let count: usize = crossings_asked.unwrap_or(CROSSINGS);
    let packs: Vec<(Pack, Plain)> = packs().into_iter().map(|pack| (pack.clone(), Plain::read(&pack))).collect();
    let gate = CedarGate::new();
    let days =
        ["2015-07-01", "2020-09-18", "2023-03-01", "2024-03-22", "2025-11-02", "2026-11-23", "2027-05-13", "2031-01-01"];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let actions = [Action::Export, Action::Import, Action::Concern];
    for n in 0..count {
        let facts = crossings().new_tree(&mut runner).expect("a crossing").current();
        let (pack, plain) = &packs[n % packs.len()];
        let (action, instant) = (actions[n / packs.len() % 3], at(days[n / 7 % days.len()]));
        // Safeguards are dated so that none is too old and every notification was filed long before.
        let mut facts = facts;
        for grant in facts.safeguards.values_mut().flat_map(BTreeMap::values_mut) {
            (grant.since, grant.filed) = (instant.minus_ms(1), Some(instant.minus_ms(90 * 86_400_000)));
        }
        let expected = plain.judge(pack.owner, action, &facts, instant);
        for _ in 0..2 {
            let found = answer(&gate.judge(pack, action, &facts, instant));
            assert_eq!(found, expected, "{} {action:?} at {instant}: {facts:?}", pack.owner);
        }
    }
    println!("{count} crossings, no disagreement");
}
