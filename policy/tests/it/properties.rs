//! What must hold of every crossing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use alliance_policy::{CedarGate, FOUNDING_MEMBERS};
use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackOwner, People, RuleRole, Volume},
    vocabulary::{Artefact, Circumstance, Country, Label, OrganisationRole, Purpose, SafeguardKind, Tier, Use, Zone},
};
use proptest::{collection::btree_set, prelude::*, sample::select};

use crate::{at, country, issue, open_model, packs};

static GATE: LazyLock<CedarGate> = LazyLock::new(CedarGate::new);

const ZONES: [Option<Zone>; 3] = [None, Some(Zone::AeDifc), Some(Zone::AeAdgm)];

fn countries() -> impl Strategy<Value = Country> {
    select(vec!["BR", "RU", "IN", "CN", "ZA", "EG", "ET", "IR", "AE", "ID", "SA", "PT", "US"]).prop_map(country)
}

fn safeguards() -> impl Strategy<Value = BTreeSet<SafeguardKind>> {
    btree_set(select(SafeguardKind::ALL), 0..6)
}

prop_compose! {
    pub(crate) fn crossings()(
        from in countries(),
        to in countries(),
        controlled_by in countries(),
        roles in btree_set(select(OrganisationRole::ALL), 0..3),
        state_controlled in any::<bool>(),
        artefact in select(Artefact::ALL),
        labels in btree_set(select(Label::ALL), 1..4),
        (origin, subjects) in (countries(), btree_set(countries(), 0..3)),
        (purpose, use_) in (select(Purpose::ALL), select(Use::ALL)),
        issued in proptest::collection::btree_map(countries(), safeguards(), 0..3),
        (circumstances, people) in (btree_set(select(Circumstance::ALL), 0..2), select(vec![0, 1, 99_999, 1_000_000])),
        (bans, zones) in (btree_set(countries(), 0..2), (select(ZONES.to_vec()), select(ZONES.to_vec()))),
        tiers in (select(Tier::ALL), select(Tier::ALL)),
        trained_in in proptest::option::of(btree_set(countries(), 1..3)),
    ) -> Facts {
        let mut facts = open_model(from.as_str(), to.as_str());
        facts.to.controlled_by = controlled_by;
        facts.to.state_controlled = state_controlled;
        (facts.from.roles, facts.to.roles) = (roles.clone(), roles);
        (facts.from.zone, facts.to.zone) = zones;
        (facts.from.tier, facts.to.tier) = tiers;
        let volume = Volume::of(&labels, Some(people));
        let mut facts =
            Facts { artefact, labels, origin, trained_in, subjects, purpose, use_, circumstances, volume, bans, ..facts };
        issued.into_iter().for_each(|(issuer, kinds)| issue(&mut facts, issuer, kinds));
        facts
    }
}

fn actions() -> impl Strategy<Value = Action> {
    select(vec![Action::Export, Action::Import, Action::Concern])
}

fn days() -> impl Strategy<Value = &'static str> {
    select(vec!["1999-01-01", "2020-09-18", "2023-03-01", "2025-07-01", "2026-11-23", "2027-05-13", "2099-12-31"])
}

fn counts() -> impl Strategy<Value = u64> {
    select(vec![0, 1, 150, 9_999, 10_000, 99_999, 100_000, 1_000_000, u64::MAX])
}

/// Rules of a house that look at counts in other ways than law does.
const WITHIN: &str = r#"
@id("HOUSE-00") @title("The rest") @house("by-laws") @status("residual")
permit (principal, action, resource);
@id("HOUSE-01") @title("In between") @house("by-laws") @status("house")
forbid (principal, action == Action::"import", resource)
when { context.labels.contains(Label::"public") && context.volume.people > 100 && context.volume.people <= 200 };
@id("HOUSE-02") @title("More of the one than of the other") @house("by-laws") @status("house")
forbid (principal, action == Action::"export", resource)
when { context.purpose == Purpose::"commercial" && context.volume.people < context.volume.sensitive_people };
"#;

/// It is not a yes to everything: where the conditions beside the count do not hold, the count does not matter.
#[test]
fn a_count_matters_where_the_rest_of_the_rule_holds() {
    let house = Pack::new(PackOwner::House, 1, WITHIN, "");
    let facts = open_model("BR", "CN");
    let heeded = |facts: &Facts, action| GATE.heeds_volume(&house, action, facts, at("2026-11-23"));
    assert!(heeded(&facts, Action::Import), "{:?}", facts.labels);
    assert!(!heeded(&facts, Action::Export), "{}", facts.purpose);
    let other = Facts { labels: [Label::NonPersonal].into(), purpose: Purpose::Commercial, ..facts };
    assert!(!heeded(&other, Action::Import) && heeded(&other, Action::Export));
    for pack in packs() {
        for action in [Action::Export, Action::Import] {
            let open = open_model("BR", "CN");
            assert!(!GATE.heeds_volume(&pack, action, &open, at("2026-11-23")), "{} {action:?}", pack.owner);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_safeguard_more_never_turns_permission_into_denial(
        facts in crossings(), action in actions(), day in days(), more in safeguards(),
    ) {
        for pack in packs() {
            let before = GATE.judge(&pack, action, &facts, at(day));
            let mut richer = facts.clone();
            for issuer in FOUNDING_MEMBERS.map(country) {
                issue(&mut richer, issuer, more.iter().copied());
            }
            let after = GATE.judge(&pack, action, &richer, at(day));
            prop_assert!(after.allowed || !before.allowed, "{} {:?} {:?}", pack.owner, before, after);
        }
    }

    #[test]
    fn safeguards_of_another_member_never_matter(
        facts in crossings(), action in actions(), day in days(), more in safeguards(), issuer in countries(),
    ) {
        for pack in packs() {
            let PackOwner::Member(member) = pack.owner else { continue };
            if member == issuer {
                continue;
            }
            let before = GATE.judge(&pack, action, &facts, at(day));
            let mut richer = facts.clone();
            issue(&mut richer, issuer, more.iter().copied());
            prop_assert_eq!(before, GATE.judge(&pack, action, &richer, at(day)));
        }
    }

    #[test]
    fn a_label_more_never_turns_denial_into_permission(
        facts in crossings(), action in actions(), day in days(), more in btree_set(select(Label::ALL), 1..3),
    ) {
        for pack in packs() {
            let before = GATE.judge(&pack, action, &facts, at(day));
            let stricter = Facts { labels: &facts.labels | &more, ..facts.clone() };
            let after = GATE.judge(&pack, action, &stricter, at(day));
            prop_assert!(before.allowed || !after.allowed, "{} {:?} {:?}", pack.owner, before, after);
        }
    }

    /// An importer wants groups before it hears what was counted only where this says that it does not matter.
    #[test]
    fn a_volume_that_is_not_heeded_never_matters(
        facts in crossings(), action in actions(), day in days(), counts in (counts(), counts()),
    ) {
        let house = Pack::new(PackOwner::House, 1, WITHIN, "");
        for pack in packs().into_iter().chain([house]) {
            if GATE.heeds_volume(&pack, action, &facts, at(day)) {
                continue;
            }
            let volume = Volume { people: People::new(counts.0), sensitive_people: People::new(counts.1) };
            let other = Facts { volume, ..facts.clone() };
            prop_assert_eq!(GATE.judge(&pack, action, &facts, at(day)), GATE.judge(&pack, action, &other, at(day)));
        }
    }

    #[test]
    fn every_verdict_names_its_reasons(facts in crossings(), action in actions(), day in days()) {
        for pack in packs() {
            let verdict = GATE.judge(&pack, action, &facts, at(day));
            prop_assert_eq!(&verdict.error, &None);
            prop_assert!(!verdict.rules.is_empty());
            let denies = verdict.rules.iter().all(|rule| rule.role == RuleRole::Denies);
            prop_assert_eq!(denies, !verdict.allowed);
            let ids: BTreeMap<_, _> = verdict.rules.iter().map(|rule| (&rule.id, rule)).collect();
            prop_assert_eq!(ids.len(), verdict.rules.len());
        }
    }
}

/// Conditions over everything that is decided without Cedar, and some that is not.
fn conditions() -> impl Strategy<Value = String> {
    let atoms = select(vec![
        "context.labels.contains(Label::\"health\")",
        "context.labels.containsAny([Label::\"personal\", Label::\"gov\"])",
        "context.labels.containsAll([Label::\"personal\", Label::\"gov\"])",
        "context.circumstances.contains(Circumstance::\"collection\")",
        "context.from.roles.containsAny([Role::\"university\", Role::\"ciio\"])",
        "resource == Artefact::\"weights\"",
        "context.purpose != Purpose::\"research\"",
        "context.use == Use::\"inference\"",
        "context.to.country == Country::\"BR\"",
        "context.to.country == context.from.country",
        "context.to.controlled_by != Country::\"ZA\"",
        "context.origin == Country::\"IN\"",
        "context.from.zone == Zone::\"none\"",
        "context.to.state_controlled",
        "context.regulator_ban",
        "context.subjects.isEmpty()",
        "context.subjects.contains(Country::\"CN\")",
        "context.volume.people >= 1",
        "context.volume.sensitive_people < 100000",
        "context.time >= datetime(\"2026-11-23\")",
        "context.time >= datetime(\"2026-11-23T00:00:00.500Z\")",
        "context.time < datetime(\"2026-11-22T23:59:59.999Z\")",
    ]);
    atoms.prop_map(str::to_owned).prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} && {other})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} || {other})")),
            inner.prop_map(|one| format!("!({one})")),
        ]
    })
}

/// A pack that forbids to export under this condition, and nothing else.
fn forbids(condition: &str) -> Pack {
    let text = format!(
        "@id(\"HOUSE-00\") @title(\"t\") @house(\"h\") @status(\"residual\") permit (principal, action, resource);\n\
         @id(\"HOUSE-01\") @title(\"t\") @house(\"h\") @status(\"house\")\n\
         forbid (principal, action == Action::\"export\", resource) when {{ {condition} }};"
    );
    Pack::new(PackOwner::House, 1, &text, "")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    /// What stands in an `if` is left to Cedar; the same condition by itself is decided without it as far as may be.
    #[test]
    fn what_is_decided_without_cedar_is_what_cedar_decides(
        condition in conditions(),
        facts in proptest::collection::vec(crossings(), 8),
        ms in proptest::collection::vec(select(vec![-86_400_000_i64, -1000, -999, -1, 0, 1, 499, 500, 501, 999, 1000, 86_400_000]), 8),
    ) {
        let alone = forbids(&condition);
        let whole = forbids(&format!("if ({condition}) then true else false"));
        // A condition that can never hold is refused, however it is written.
        if let (Ok(_), Ok(_)) = (GATE.check(&alone), GATE.check(&whole)) {
            for (facts, ms) in facts.iter().zip(&ms) {
                let midnight = at("2026-11-23");
                let time = if *ms < 0 { midnight.minus_ms(ms.unsigned_abs()) } else { midnight.plus_ms(ms.unsigned_abs()) };
                let said = [&alone, &whole].map(|pack| GATE.judge(pack, Action::Export, facts, time));
                prop_assert_eq!(said[0].permits(), said[1].permits(), "{} at {} ms", condition, ms);
                prop_assert!(said.iter().all(|verdict| verdict.error.is_none()), "{said:?}");
                // Remembered or not, it is the same.
                let anew = GATE.judge_anew(&alone, Action::Export, facts, time);
                prop_assert_eq!(anew.permits(), said[0].permits());
            }
        }
    }
}
