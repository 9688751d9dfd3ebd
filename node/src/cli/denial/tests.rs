//! What a person reads, word for word.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alliance_protocol::{
    core::admin::{CrossingState, Side},
    crossing::RefusalCode,
    gate::{Action, Party, Volume},
    id::{CrossingId, ManifestId, StatementId},
    key::PublicKey,
    time::Timestamp,
    vocabulary::{Artefact, Country, Label, Purpose, SafeguardKind, Tier, Use},
};

use super::*;

fn country(code: &str) -> Country {
    code.parse().expect("a country")
}

fn party(code: &str, organisation: &str) -> Party {
    let country = country(code);
    Party {
        country,
        zone: None,
        organisation: organisation.into(),
        roles: [].into(),
        controlled_by: country,
        state_controlled: false,
        tier: Tier::default(),
    }
}

fn rule(id: &str, role: RuleRole, remedies: Vec<BTreeSet<SafeguardKind>>) -> RuleCited {
    RuleCited {
        id: id.into(),
        title: "Notice before personal data leaves".into(),
        role,
        nature: RuleNature::Law,
        citation: "Federal Law 152-FZ, art. 12(3)".into(),
        native: "152-\u{424}\u{417}, \u{447}. 3 \u{441}\u{442}. 12".into(),
        since: "2023-03-01".into(),
        confidence: "high".into(),
        remedies,
    }
}

fn verdict(owner: PackOwner, allowed: bool, rules: Vec<RuleCited>) -> Arc<Verdict> {
    let obligations = ["keep_the_receipt".parse().expect("a duty"), "delete_within(24h)".parse().expect("a duty")].into();
    let rules = rules.into_iter().map(Arc::new).collect();
    Verdict { pack: owner, epoch: 3, action: Action::Export, allowed, rules, obligations, error: None }.into()
}

fn view() -> CrossingView {
    let facts = Facts {
        from: party("RU", "isp"),
        to: party("BR", "usp"),
        artefact: Artefact::Weights,
        labels: [Label::Personal, Label::Health].into(),
        origin: country("RU"),
        trained_in: None,
        subjects: [country("RU")].into(),
        purpose: Purpose::Research,
        use_: Use::Inference,
        circumstances: [].into(),
        volume: Volume::default(),
        bans: [].into(),
        safeguards: BTreeMap::new(),
    };
    let any = vec![
        BTreeSet::from([SafeguardKind::RegulatorNotification, SafeguardKind::WaitingPeriodElapsed]),
        BTreeSet::from([SafeguardKind::RegulatorApproval]),
    ];
    let member = PackOwner::Member(country("RU"));
    let verdicts = vec![
        verdict(PackOwner::Alliance, true, vec![]),
        verdict(member, false, vec![rule("ru-notice", RuleRole::Denies, any), rule("ru-secret", RuleRole::Denies, vec![])]),
        verdict(PackOwner::House, false, vec![]),
        Verdict::failed(PackOwner::Member(country("BR")), 1, Action::Import, "a rule \u{1b}[31mfailed".into()).into(),
    ];
    CrossingView {
        crossing: CrossingId([0xab; 32]),
        side: Side::Importer,
        state: CrossingState::Denied,
        peer: PublicKey([1; 32]),
        offer: StatementId([2; 32]),
        name: "isp/taiga".into(),
        manifest: ManifestId([3; 32]),
        facts: Some(facts),
        verdicts,
        parts: vec![],
        partial: false,
        left_out: vec![],
        against: vec![],
        part: None,
        refusal: Some(RefusalCode::DeniedByLaw),
        problem: Some("denied by the rules of RU, BR".into()),
        safeguards_ignored: vec!["tia of BR: it is for crossings from BR to IN".into()],
        began: Timestamp(0),
        ended: Some(Timestamp(1)),
        bytes: 0,
        total: 0,
        to: None,
        lead: None,
        delete_by: None,
        deleted: None,
    }
}

#[test]
fn a_denial_says_which_rule_and_what_would_satisfy_it() {
    let expected = "\
denied (denied_by_law): isp/taiga may not cross: denied by the rules of RU, BR
  weights from RU (isp) to BR (usp), for research, inference
  labels: personal, health
  crossing abababababababababababababababababababababababababababababababab

the law of RU, asked about export, denies (epoch 3)
  ru-notice denies: Notice before personal data leaves
    law: Federal Law 152-FZ, art. 12(3)
    original: 152-\u{424}\u{417}, \u{447}. 3 \u{441}\u{442}. 12
    in force since 2023-03-01
    what would satisfy it, any one of these, issued by the authority of RU:
      regulator_notification, waiting_period_elapsed
      regulator_approval
  ru-secret denies: Notice before personal data leaves
    law: Federal Law 152-FZ, art. 12(3)
    original: 152-\u{424}\u{417}, \u{447}. 3 \u{441}\u{442}. 12
    in force since 2023-03-01
    no safeguard satisfies it
  each of these rules must be satisfied
the rules of this house, asked about export, denies (epoch 3)
  no rule permits it, and what is not permitted is denied
the law of BR, asked about import, denies (epoch 1)
  it could not be asked, and what cannot be asked denies: a rule \u{fffd}[31mfailed

safeguards that did not count:
  tia of BR: it is for crossings from BR to IN
";
    assert_eq!(crossing(&view()), expected);
}

#[test]
fn the_refusal_of_the_other_side_says_no_more_than_is_known() {
    let view = CrossingView {
        facts: None,
        verdicts: vec![],
        safeguards_ignored: vec![],
        problem: Some("refused by the exporter; its own records say why".into()),
        ..view()
    };
    let expected = "\
denied (denied_by_law): isp/taiga may not cross: refused by the exporter; its own records say why
  crossing abababababababababababababababababababababababababababababababab
";
    assert_eq!(crossing(&view), expected);
}

#[test]
fn an_explanation_names_what_permits_and_the_duties() {
    let permits = RuleCited { nature: RuleNature::Directive, ..rule("ru-open", RuleRole::Permits, vec![]) };
    let expected = "\
the law of RU, asked about export, allows (epoch 3)
  ru-open permits: Notice before personal data leaves
    directive of the authority, not a statute: Federal Law 152-FZ, art. 12(3)
    original: 152-\u{424}\u{417}, \u{447}. 3 \u{441}\u{442}. 12
    in force since 2023-03-01
    confidence of the encoding: high
  duties that come with it:
    delete_within(24h) (enforced: the importer's node deletes it then)
    keep_the_receipt
";
    let said = verdicts(&[verdict(PackOwner::Member(country("RU")), true, vec![permits])], Detail::All);
    assert_eq!(said, expected);
}
