//! What the gate answers when a pack is broken, fails or says nothing.

use alliance_policy::CedarGate;
use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackOwner, RuleNature, Verdict},
    time::Timestamp,
    vocabulary::{OrganisationRole, SafeguardKind, Tier, Zone},
};

use crate::{TODAY, at, country, issue, open_model, packs};

/// A house pack: a residual and one more rule.
fn house(rule: &str) -> Pack {
    let law = format!(
        r#"@id("HOUSE-00") @title("the rest") @house("by-laws") @status("residual")
           permit (principal, action, resource);
           @id("HOUSE-01") @title("a test") @house("by-laws") @status("house")
           {rule};"#
    );
    Pack::new(PackOwner::House, 3, &law, "")
}

fn export(pack: &Pack, instant: Timestamp) -> Verdict {
    Verdict::clone(&CedarGate::new().judge(pack, Action::Export, &open_model("BR", "ZA"), instant))
}

#[track_caller]
fn check_failure(pack: &Pack, instant: Timestamp, error: &str) {
    let verdict = export(pack, instant);
    let found = verdict.error.clone().unwrap_or_default();
    assert!(found.contains(error), "{found}");
    let expected = Verdict::failed(pack.owner, pack.epoch, Action::Export, found);
    assert_eq!(verdict, expected);
}

#[test]
fn a_rule_that_cannot_be_evaluated_denies() {
    // Cedar passes over such a rule, and the residual would allow the crossing.
    for effect in ["forbid", "permit"] {
        let overflow = format!("{effect} (principal, action, resource) when {{ 9223372036854775807 + 1 > 0 }}");
        check_failure(&house(&overflow), at(TODAY), "`HOUSE-01`");
        let late = format!(
            r#"{effect} (principal, action, resource) when {{
                context.time.offset(duration("9223372036854775807ms")) > datetime("2026-01-01")
            }}"#
        );
        check_failure(&house(&late), at(TODAY), "`HOUSE-01`");
    }
}

#[test]
fn a_failure_while_telling_what_safeguards_satisfied_denies() {
    let rule = r#"@satisfied_by("scc_br") forbid (principal, action, resource)
        when { context.safeguards.isEmpty() && 9223372036854775807 + 1 > 0 }
        unless { context.safeguards.contains(Safeguard::"scc_br") }"#;
    let mut facts = open_model("BR", "ZA");
    issue(&mut facts, country("BR"), [SafeguardKind::SccBr]);
    let verdict = CedarGate::new().judge(&house(rule), Action::Export, &facts, at(TODAY));
    assert_eq!((verdict.allowed, verdict.rules.len()), (false, 0));
    assert!(verdict.error.as_ref().is_some_and(|error| error.contains("`HOUSE-01`")));
}

#[test]
fn a_rule_that_is_not_reached_does_not_fail() {
    let verdict = export(&house(r#"forbid (principal, action, resource) when { context.zone_free() }"#), at(TODAY));
    assert!(verdict.error.is_some(), "an unknown method is refused when the pack is read");
    let verdict = export(
        &house(r#"forbid (principal, action == Action::"import", resource) when { 9223372036854775807 + 1 > 0 }"#),
        at(TODAY),
    );
    assert_eq!((verdict.allowed, verdict.error), (true, None));
}

#[test]
fn an_instant_that_cannot_be_told_denies() {
    for pack in packs() {
        check_failure(&pack, Timestamp(u64::MAX), "cannot be put to a pack");
    }
}

#[test]
fn a_text_that_is_no_pack_denies() {
    check_failure(
        &Pack::new(PackOwner::House, 3, "as the minister pleases", ""),
        at(TODAY),
        "the pack of house cannot be used",
    );
}

#[test]
fn an_empty_pack_denies_without_a_rule() {
    let verdict = export(&Pack::new(PackOwner::House, 3, "", ""), at(TODAY));
    assert_eq!((verdict.allowed, verdict.rules.len(), verdict.error), (false, 0, None));
}

#[test]
fn a_house_rule_names_itself_and_a_recipient() {
    let mut facts = open_model("BR", "ZA");
    facts.to.organisation = "Лаборатория \"№ 1\"".to_owned();
    facts.to.zone = Some(Zone::AeDifc);
    facts.to.roles.insert(OrganisationRole::University);
    let pack = house(
        r#"forbid (principal == Organisation::"Лаборатория \"№ 1\"", action, resource)
           when { context.to.zone == Zone::"AE-DIFC" && context.to.roles.contains(Role::"university") }"#,
    );
    let gate = CedarGate::new();
    let verdict = gate.judge(&pack, Action::Import, &facts, at(TODAY));
    assert_eq!(verdict.error, None);
    let rules: Vec<_> = verdict.rules.iter().map(|rule| (rule.id.as_str(), rule.nature)).collect();
    assert_eq!(rules, [("HOUSE-01", RuleNature::House)]);
    facts.to.zone = None;
    assert!(gate.judge(&pack, Action::Import, &facts, at(TODAY)).allowed);
}

#[test]
fn what_is_cited_as_law_is_law() {
    let gate = CedarGate::new();
    for pack in packs() {
        for rule in gate.check(&pack).expect("a founding pack").rules {
            let residual = rule.id.ends_with("-00");
            let nature = match pack.owner {
                PackOwner::Member(_) if rule.id.contains("-D") => RuleNature::Directive,
                PackOwner::Member(_) if !residual => RuleNature::Law,
                PackOwner::Member(_) | PackOwner::Alliance | PackOwner::House => RuleNature::DesignChoice,
            };
            assert_eq!(rule.nature, nature, "{}", rule.id);
            assert_eq!(rule.since.is_empty(), nature != RuleNature::Law, "{}", rule.id);
        }
    }
}

#[test]
fn a_gate_answers_many_questions() {
    let gate = CedarGate::new();
    let packs = packs();
    for n in 0..300_u64 {
        let facts = open_model("BR", "ZA");
        let pack = &packs[usize::try_from(n).expect("small") % packs.len()];
        let verdict = gate.judge(pack, Action::Export, &facts, at(TODAY).plus_ms(n));
        assert!(verdict.allowed, "{}: {:?}", pack.owner, verdict);
    }
}

#[test]
fn what_was_said_under_another_epoch_is_not_repeated() {
    let gate = CedarGate::new();
    let texts = [("forbid (principal, action, resource)", false), ("permit (principal, action, resource)", true)];
    let facts = open_model("BR", "ZA");
    for epoch in 1..5 {
        for (text, allowed) in texts {
            let pack = Pack::new(PackOwner::House, epoch, &house(text).law, "");
            for _ in 0..2 {
                let verdict = gate.judge(&pack, Action::Export, &facts, at(TODAY));
                assert_eq!((verdict.allowed, verdict.epoch), (allowed, epoch));
            }
        }
    }
}

#[test]
fn a_remembered_answer_ends_with_the_second_in_which_a_rule_begins() {
    let gate = CedarGate::new();
    let pack = house(
        r#"forbid (principal, action, resource)
           when { context.time >= datetime("2026-11-24") && context.time < datetime("2026-11-25") }"#,
    );
    let facts = open_model("BR", "ZA");
    let (midnight, next) = (at("2026-11-24"), at("2026-11-25"));
    let asked = [(midnight.minus_ms(1), true), (midnight, false), (next.minus_ms(1), false), (next, true)];
    for (instant, allowed) in asked.into_iter().chain(asked.into_iter().rev()) {
        assert_eq!(gate.judge(&pack, Action::Export, &facts, instant).allowed, allowed, "{instant}");
    }
}

#[test]
fn a_token_for_one_rule_satisfies_no_other() {
    let pack = house("forbid (principal, action, resource)");
    assert!(!export(&pack, at(TODAY)).allowed);
    let mut facts = open_model("ZA", "BR");
    facts.labels = [alliance_protocol::vocabulary::Label::UniqueId].into();
    facts.use_ = alliance_protocol::vocabulary::Use::RecordLinkage;
    issue(&mut facts, country("ZA"), [SafeguardKind::PriorAuthorisation, SafeguardKind::Bcr]);
    let gate = CedarGate::new();
    let za = crate::pack("ZA");
    assert!(gate.judge(&za, Action::Export, &facts, at(TODAY)).allowed);
    let grants = facts.safeguards.get_mut(&country("ZA")).expect("issued");
    grants.get_mut(&SafeguardKind::PriorAuthorisation).expect("issued").rules = ["ZA-02".to_owned()].into();
    let verdict = gate.judge(&za, Action::Export, &facts, at(TODAY));
    let ids: Vec<_> = verdict.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!((verdict.allowed, ids), (false, vec!["ZA-03"]));
}

/// A rule can demand a tier of a node, and proof of where a model was trained.
#[test]
fn tiers_and_proven_training_can_be_demanded() {
    let gate = CedarGate::new();
    let tier = house(
        r#"forbid (principal, action, resource)
            when { !context.to.tiers.contains(Tier::"corroborated") || context.from.tiers == [Tier::"declared"] }"#,
    );
    let allowed = |pack: &Pack, facts: &Facts| {
        let verdict = gate.judge(pack, Action::Export, facts, at(TODAY));
        assert_eq!(verdict.error, None);
        verdict.allowed
    };
    for (from, to, expected) in [
        (Tier::Accredited, Tier::Corroborated, true),
        (Tier::Attested, Tier::Attested, true),
        (Tier::Declared, Tier::Attested, false),
        (Tier::Attested, Tier::Accredited, false),
        (Tier::Attested, Tier::Declared, false),
    ] {
        let mut facts = open_model("BR", "ZA");
        (facts.from.tier, facts.to.tier) = (from, to);
        assert_eq!(allowed(&tier, &facts), expected, "{from} {to}");
    }

    let home = house(
        r#"forbid (principal, action, resource) when {
            !(context.training.proven && [Country::"BR"].containsAll(context.training.countries)) }"#,
    );
    for (trained_in, expected) in
        [(None, false), (Some(&["BR"][..]), true), (Some(&["BR", "IN"]), false), (Some(&["IN"]), false)]
    {
        let trained_in = trained_in.map(|codes| codes.iter().map(|code| country(code)).collect());
        let facts = Facts { trained_in: trained_in.clone(), ..open_model("BR", "ZA") };
        assert_eq!(allowed(&home, &facts), expected, "{trained_in:?}");
    }
}
