//! Whole crossings, asked of every pack concerned as a node asks them.

use std::{collections::BTreeSet, sync::Arc};

use alliance_policy::{CedarGate, FOUNDING_MEMBERS, Remedy, remedies};
use alliance_protocol::{
    gate::{Action, Facts, Gate, PackOwner, People, RuleRole, Verdict, Volume},
    vocabulary::{Artefact, Label, Purpose, SafeguardKind},
};

use crate::{TODAY, at, country, issue, open_model, pack};

/// The exporter's, the importer's and the subjects' packs, and the baseline.
fn ask(facts: &Facts) -> Vec<Arc<Verdict>> {
    let gate = CedarGate::new();
    let ends = [(facts.from.country, Action::Export), (facts.to.country, Action::Import)];
    let subjects = facts.subjects.iter().map(|country| (*country, Action::Concern));
    let members = ends.into_iter().chain(subjects).map(|(country, action)| (country.to_string(), action));
    let baseline = ("alliance".to_owned(), Action::Export);
    members.chain([baseline]).map(|(owner, action)| gate.judge(&pack(&owner), action, facts, at(TODAY))).collect()
}

fn denying(verdicts: &[Arc<Verdict>]) -> BTreeSet<&str> {
    let rules = verdicts.iter().flat_map(|verdict| &verdict.rules);
    rules.filter(|rule| rule.role == RuleRole::Denies).map(|rule| rule.id.as_str()).collect()
}

#[test]
fn an_open_model_crosses_between_all_founding_members() {
    let mut pairs = 0;
    for from in FOUNDING_MEMBERS {
        for to in FOUNDING_MEMBERS.into_iter().filter(|to| *to != from) {
            let verdicts = ask(&open_model(from, to));
            assert!(verdicts.iter().all(|verdict| verdict.allowed), "{from} to {to}: {verdicts:?}");
            pairs += 1;
        }
    }
    assert_eq!(pairs, 110);
}

#[test]
fn an_adapter_made_from_health_data_goes_from_brazil_to_south_africa() {
    let mut facts = open_model("BR", "ZA");
    facts.artefact = Artefact::Adapter;
    facts.labels = [Label::Personal].into();
    assert_eq!(denying(&ask(&facts)), ["BR-01"].into());

    facts.labels.insert(Label::Health);
    facts.subjects = [country("BR")].into();
    let verdicts = ask(&facts);
    assert_eq!(denying(&verdicts), ["BR-01", "BR-06"].into());

    // What would satisfy both, each with one of the grounds of article 33.
    let found = remedies(&verdicts).expect("there is a way");
    let [Remedy { pack: PackOwner::Member(member), any_of }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((*member, any_of.len()), (country("BR"), 9));
    let scc: BTreeSet<_> = [SafeguardKind::SccBr, SafeguardKind::Art11Basis].into();
    assert!(any_of.contains(&scc));

    issue(&mut facts, country("BR"), [SafeguardKind::SccBr]);
    assert_eq!(denying(&ask(&facts)), ["BR-06"].into());
    issue(&mut facts, country("BR"), [SafeguardKind::Art11Basis]);
    let verdicts = ask(&facts);
    assert!(verdicts.iter().all(|verdict| verdict.allowed), "{verdicts:?}");
    let satisfied: Vec<_> = verdicts[0].rules.iter().map(|rule| (rule.id.as_str(), rule.role)).collect();
    let expected = [("BR-01", RuleRole::Satisfied), ("BR-06", RuleRole::Satisfied), ("BR-03", RuleRole::Permits)];
    assert_eq!(satisfied, expected);
}

#[test]
fn each_side_asks_for_its_own_safeguards() {
    // A model about people of Russia and India, from Russia to China, and back the other way.
    let mut facts = open_model("RU", "CN");
    facts.labels = [Label::Pseudonymised].into();
    facts.subjects = [country("RU"), country("IN")].into();
    facts.volume = Volume { people: People::new(200_000), ..Volume::default() };
    assert_eq!(denying(&ask(&facts)), ["RU-02", "RU-09"].into());
    issue(&mut facts, country("RU"), [SafeguardKind::RegulatorNotification, SafeguardKind::Tia]);
    assert!(ask(&facts).iter().all(|verdict| verdict.allowed));

    let mut facts = Facts { origin: country("CN"), ..facts };
    std::mem::swap(&mut facts.from, &mut facts.to);
    assert_eq!(denying(&ask(&facts)), ["CN-04"].into());
    issue(&mut facts, country("CN"), [SafeguardKind::StandardContractFiled]);
    assert!(ask(&facts).iter().all(|verdict| verdict.allowed));
}

#[test]
fn some_denials_have_no_remedy_and_some_need_both_ends() {
    let mut facts = open_model("BR", "IN");
    facts.purpose = Purpose::NationalSecurity;
    let verdicts = ask(&facts);
    assert_eq!(denying(&verdicts), ["BR-10", "BX-02", "IN-D01"].into());
    assert_eq!(remedies(&verdicts), None, "the directive admits no foreign model");

    facts.origin = country("IN");
    let found = remedies(&ask(&facts)).expect("there is a way");
    let mandate: Vec<BTreeSet<_>> = vec![[SafeguardKind::PublicAuthorityMandate].into()];
    let brazil = Remedy { pack: PackOwner::Member(country("BR")), any_of: mandate.clone() };
    assert_eq!(found, [Remedy { pack: PackOwner::Alliance, any_of: mandate }, brazil]);
    issue(&mut facts, country("BR"), [SafeguardKind::PublicAuthorityMandate]);
    assert_eq!(denying(&ask(&facts)), ["BX-02"].into());
    issue(&mut facts, country("IN"), [SafeguardKind::PublicAuthorityMandate]);
    assert!(ask(&facts).iter().all(|verdict| verdict.allowed));
}

#[test]
fn nothing_denied_needs_nothing() {
    assert_eq!(remedies(&ask(&open_model("BR", "ZA"))), Some(Vec::new()));
    let verdict = Verdict::failed(PackOwner::House, 1, Action::Export, "broken".to_owned());
    assert_eq!(remedies(&[verdict]), None);
}
