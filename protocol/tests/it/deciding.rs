//! What is asked before anything crosses: standing, each pack concerned, safeguards. Seen from the exporter, which faces an
//! importer whose own node would have said no.

use std::collections::BTreeSet;

use alliance_protocol::{
    authority::{Safeguard, Status},
    core::admin::{CrossingState, LocalModel, Reply},
    crossing::RefusalCode,
    gate::{Action, Pack, PackOwner},
    ledger::Record,
    manifest::Part,
    vocabulary::{Country, Label, Purpose},
};

use crate::{
    alliance::{DAWN, HOUR, MEMBERS, STATUS_MS, contract_of, country, some_id, stranger},
    cluster::{Cluster, OPEN},
    exporter_refuses::Answer,
};

fn put(cluster: &mut Cluster, labels: &[Label]) -> Answer {
    let offer = cluster.offer(0, labels);
    let lie = cluster.by_hand(offer, 1);
    cluster.put(&lie).1
}

#[track_caller]
fn assert_code(answer: &Answer, expected: Option<RefusalCode>, reason: &str) {
    match (answer, expected) {
        (Answer::Cleared(_), None) => {}
        (Answer::Refused(code, Some(why)), Some(expected)) => {
            assert_eq!(*code, expected, "{why}");
            assert!(why.contains(reason), "`{why}` instead of `{reason}`");
        }
        other => panic!("{reason}: {other:?}"),
    }
}

/// Laws of the members in the order BR (exporter), IN (importer), CN (whose people the data may be about), baseline, house.
#[test]
fn every_pack_concerned_is_asked_in_its_capacity() {
    use RefusalCode::{DeniedByLaw, DeniedByTerms};
    let cases: &[(&str, &str, &str, Option<RefusalCode>, &str)] = &[
        // The exporter's country
        ("BR", "deny export label:state_secret", "state_secret", Some(DeniedByLaw), "rules of BR"),
        ("BR", "deny export label:state_secret", "public", None, ""),
        ("BR", "deny import all", "public", None, ""),
        ("BR", "deny concern all", "public", None, ""),
        // The importer's
        ("IN", "deny import purpose:research", "public", Some(DeniedByLaw), "rules of IN"),
        ("IN", "deny export all", "public", None, ""),
        ("IN", "deny concern all", "public", None, ""),
        // The country that the data is about
        ("CN", "deny concern use:inference", "public", Some(DeniedByLaw), "rules of CN"),
        ("CN", "deny export all\ndeny import all", "public", None, ""),
        // A country that has nothing to do with it
        ("ZA", "deny export all\ndeny import all\ndeny concern all", "public", None, ""),
        // What cannot be evaluated denies, whatever it claims
        ("BR", "error export", "public", Some(DeniedByLaw), "rules of BR"),
        ("IN", "error import", "public", Some(DeniedByLaw), "rules of IN"),
        ("CN", "error concern", "public", Some(DeniedByLaw), "rules of CN"),
        ("BR", "lying-error export", "public", Some(DeniedByLaw), "rules of BR"),
        ("alliance", "deny export all", "public", Some(DeniedByLaw), "rules of alliance"),
        ("alliance", "deny import all", "public", Some(DeniedByLaw), "rules of alliance"),
        ("house", "deny export all", "public", Some(DeniedByTerms), "this house"),
        ("house", "deny import all", "public", Some(DeniedByTerms), "this house"),
        ("house", "lying-error import", "public", Some(DeniedByTerms), "this house"),
    ];
    for (owner, law, label, code, reason) in cases {
        let mut cluster = Cluster::pair();
        match *owner {
            "alliance" => {
                cluster.crash(0);
                cluster.nodes[0].baseline = Pack::new(PackOwner::Alliance, 1, law, "");
                cluster.restart(0);
            }
            "house" => {
                cluster.crash(0);
                cluster.nodes[0].house = Some(Pack::new(PackOwner::House, 1, law, ""));
                cluster.restart(0);
            }
            member => cluster.enact(country(member), law),
        }
        let mut model = cluster.model(0, &[label.parse().expect("a label")]);
        model.subjects = [country("CN"), country("FR")].into();
        let offer = cluster.offer_of(0, model, OPEN);
        let lie = cluster.by_hand(offer, 1);
        println!("{owner}: {law}");
        assert_code(&cluster.put(&lie).1, *code, reason);
    }
}

#[test]
fn the_record_names_every_pack_that_was_asked() {
    let mut cluster = Cluster::pair();
    cluster.crash(0);
    cluster.nodes[0].house = Some(Pack::new(PackOwner::House, 1, "", ""));
    cluster.restart(0);
    let mut model = cluster.model(0, &[Label::Public]);
    model.subjects = [country("CN"), country("IN"), country("FR")].into();
    let offer = cluster.offer_of(0, model, OPEN);
    let lie = cluster.by_hand(offer, 1);
    cluster.put(&lie);
    let Record::Cleared { decision, .. } = cluster.nodes[0].last() else { panic!("cleared") };
    let asked: Vec<_> = decision.verdicts.iter().map(|verdict| (verdict.pack, verdict.action)).collect();
    let member = |code| PackOwner::Member(country(code));
    let expected = [
        (PackOwner::Alliance, Action::Export),
        (PackOwner::Alliance, Action::Import),
        (member("BR"), Action::Export),
        (member("IN"), Action::Import),
        (member("CN"), Action::Concern),
        (member("IN"), Action::Concern),
        (PackOwner::House, Action::Export),
        (PackOwner::House, Action::Import),
    ];
    assert_eq!(asked, expected);
    assert_eq!(decision.epochs(), [(country("BR"), 1), (country("CN"), 1), (country("IN"), 1)]);
}

#[test]
fn within_one_country_no_export_law_applies_but_its_law_must_be_in_force() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("BR", "ufmg")]);
    cluster.enact(country("BR"), "deny export all\ndeny import all");
    assert_code(&put(&mut cluster, &[Label::Public]), None, "no border");

    let mut cluster = Cluster::new(&[("BR", "usp"), ("BR", "ufmg")]);
    cluster.enact(country("BR"), "deny concern all");
    let mut model = cluster.model(0, &[Label::Public]);
    model.subjects = [country("BR")].into();
    let offer = cluster.offer_of(0, model, OPEN);
    let lie = cluster.by_hand(offer, 1);
    assert_code(&cluster.put(&lie).1, Some(RefusalCode::DeniedByLaw), "rules of BR");

    let mut cluster = Cluster::new(&[("BR", "usp"), ("BR", "ufmg")]);
    let unknown = Status { law_pack: some_id(1), ..cluster.next_status(country("BR")) };
    let unknown = cluster.alliance.status(&unknown);
    cluster.adopt(0, &[unknown.bytes()]);
    assert_code(&put(&mut cluster, &[Label::Public]), Some(RefusalCode::Stale), "law pack of BR");
}

#[test]
fn law_is_asked_at_both_ends_of_the_interval_of_the_clock() {
    let skew = alliance_protocol::limits::CLOCK_SKEW_MS_MAX;
    let cases = [
        (format!("deny-from export {}", DAWN.plus_ms(skew).0), true, "in force within the skew"),
        (format!("deny-from export {}", DAWN.plus_ms(skew + 1).0), false, "in force after it"),
        (format!("deny-until export {}", DAWN.minus_ms(skew - 1).0), true, "still in force within the skew"),
        (format!("deny-until export {}", DAWN.minus_ms(skew).0), false, "repealed before it"),
    ];
    for (law, denied, name) in cases {
        let mut cluster = Cluster::pair();
        cluster.enact(country("BR"), &law);
        let code = denied.then_some(RefusalCode::DeniedByLaw);
        println!("{name}");
        assert_code(&put(&mut cluster, &[Label::Public]), code, "rules of BR");
    }
}

#[test]
fn a_member_whose_status_has_run_out_stops_every_crossing_that_involves_it() {
    // Exporter, importer, and the country that the data is about; and one that is not involved.
    for (stale, expected) in [("BR", true), ("IN", true), ("CN", true), ("ZA", false)] {
        let mut cluster = Cluster::pair();
        cluster.let_pass(STATUS_MS - HOUR);
        for member in MEMBERS.iter().filter(|member| **member != stale) {
            cluster.renew(country(member));
        }
        cluster.let_pass(HOUR);
        let mut model = cluster.model(0, &[Label::Public]);
        model.subjects = [country("CN")].into();
        let offer = cluster.offer_of(0, model, OPEN);
        let lie = cluster.by_hand(offer, 1);
        let (_, answer) = cluster.put(&lie);
        assert_code(&answer, expected.then_some(RefusalCode::Stale), &format!("status of {stale}"));
    }
}

#[test]
fn a_member_of_whom_nothing_is_known_stops_every_crossing_that_involves_it() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    // The exporter's ledger as it would be had it never heard of India.
    let india = |record: &Record| match record {
        Record::StatusAccepted { status } => *status == *cluster_status(&cluster, "IN"),
        _ => false,
    };
    let entries: Vec<_> = cluster.nodes[0].entries.iter().filter(|entry| !india(&entry.record)).cloned().collect();
    assert_eq!(entries.len() + 1, cluster.nodes[0].entries.len());
    cluster.crash(0);
    cluster.nodes[0].entries = entries;
    cluster.try_start(0).expect("starts");
    let lie = cluster.by_hand(offer, 1);
    assert_code(&cluster.put(&lie).1, Some(RefusalCode::Stale), "no status of IN is known");
}

fn cluster_status(cluster: &Cluster, member: &str) -> serde_bytes::ByteBuf {
    let status = Status { serial: 1, ..cluster.next_status(country(member)) };
    cluster.alliance.status(&status).bytes().to_vec().into()
}

#[test]
fn a_status_that_names_another_pack_than_is_known_denies() {
    let mut cluster = Cluster::pair();
    let status = Status { law_pack: some_id(1), ..cluster.next_status(country("IN")) };
    let status = cluster.alliance.status(&status);
    assert!(matches!(cluster.adopt(0, &[status.bytes()]), Reply::Adopted { accepted: 1, .. }));
    assert_code(
        &put(&mut cluster, &[Label::Public]),
        Some(RefusalCode::Stale),
        "the law pack of IN, epoch 1, is not known",
    );

    let mut cluster = Cluster::pair();
    let status = Status { law_pack: some_id(1), epoch: 2, ..cluster.next_status(country("IN")) };
    let status = cluster.alliance.status(&status);
    cluster.adopt(0, &[status.bytes()]);
    assert_code(&put(&mut cluster, &[Label::Public]), Some(RefusalCode::Stale), "epoch 2");
}

/// Four hundred tensors that are public, three that are about people's health, under three laws.
#[test]
fn each_part_of_an_artefact_is_decided_by_itself_and_all_of_it_together() {
    let table: [(&str, &str, [bool; 2]); 4] = [
        ("", "", [true, true]),
        ("deny export label:health", "denied by the rules of BR, for what is labelled personal health", [true, false]),
        ("deny export all", "denied by the rules of BR", [false, false]),
        ("deny-both export label:public label:health", "denied by the rules of BR, for its parts together", [true, true]),
    ];
    for (law, reason, each) in table {
        let mut cluster = Cluster::pair();
        cluster.enact(country("BR"), law);
        let labels = [Label::Public, Label::Personal, Label::Health];
        let of_tensors = Part { labels: [Label::Personal, Label::Health].into(), tensors: 3, bytes: 10 };
        let model = cluster.model(0, &labels);
        let parts =
            vec![Part { labels: [Label::Public].into(), tensors: 400, bytes: model.bytes - 10 }, of_tensors.clone()];
        let model = LocalModel { parts: parts.clone(), tensors: 403, ..model };
        let offer = cluster.offer_of(0, model, OPEN);
        let lie = cluster.by_hand(offer, 1);
        let answer = cluster.put(&lie).1;
        assert_code(&answer, (!reason.is_empty()).then_some(RefusalCode::DeniedByLaw), reason);
        let decision = cluster.nodes[0]
            .entries
            .iter()
            .find_map(|entry| match &entry.record {
                Record::Cleared { decision, .. } | Record::Refused { decision, .. } => Some(decision.clone()),
                _ => None,
            })
            .expect("recorded");
        assert_eq!(decision.denial.map(|denial| denial.problem).unwrap_or_default(), reason);
        let said: Vec<(Part, bool)> = decision
            .parts
            .iter()
            .map(|decided| (decided.part.clone(), decided.of(&decision.verdicts).all(|verdict| verdict.permits())))
            .collect();
        let expected: Vec<(Part, bool)> = parts.into_iter().zip(each).collect();
        assert_eq!(said, expected, "{law}");
    }
}

#[test]
fn what_has_no_label_does_not_cross() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    // No call and no gossip brings an unlabelled artefact in; a ledger of an older version might.
    for entry in &mut cluster.nodes[0].entries {
        match &mut entry.record {
            Record::ModelImported { model } => model.labels.clear(),
            Record::OfferPublished { offer: bytes } => {
                let mut body = alliance_protocol::envelope::Signed::<alliance_protocol::offer::Offer>::open(
                    bytes,
                    cluster.alliance.id,
                )
                .expect("an offer")
                .body()
                .clone();
                if let alliance_protocol::offer::Offered::Model(model) = &mut body.what {
                    model.labels.clear();
                }
                *bytes = cluster.alliance.signed(&crate::alliance::key(100), &body).bytes().to_vec().into();
            }
            _ => {}
        }
    }
    let unlabelled = cluster.nodes[0].entries.iter().find_map(|entry| match &entry.record {
        Record::OfferPublished { offer } => {
            Some(alliance_protocol::envelope::Signed::<alliance_protocol::offer::Offer>::open(offer, cluster.alliance.id))
        }
        _ => None,
    });
    let unlabelled = unlabelled.expect("published").expect("an offer").id();
    assert_ne!(unlabelled, offer);
    cluster.crash(0);
    cluster.try_start(0).expect("starts");
    let lie = cluster.by_hand(unlabelled, 1);
    assert_code(&cluster.put(&lie).1, Some(RefusalCode::DeniedByLaw), "nothing unlabelled crosses");
}

/// Brazil wants a filed contract for personal data. Each safeguard below is wrong in one thing.
#[test]
fn a_safeguard_counts_only_for_what_it_says() {
    fn spoken(cluster: &Cluster, by: &str, change: impl Fn(&mut Safeguard)) -> Vec<u8> {
        let mut contract = contract_of(country("BR"), country("BR"), country("IN"));
        change(&mut contract);
        cluster.alliance.spoken(country(by), &contract).bytes().to_vec()
    }
    type Make = fn(&Cluster) -> Vec<u8>;
    let cases: &[(&str, Make)] = &[
        ("", |cluster| spoken(cluster, "BR", |_| {})),
        ("", |cluster| spoken(cluster, "BR", |safeguard| safeguard.recipient = Some(cluster.nodes[1].public()))),
        ("not signed by enough officers of the authority of BR", |cluster| spoken(cluster, "IN", |_| {})),
        ("not signed by enough officers", |cluster| {
            let contract = contract_of(country("BR"), country("BR"), country("IN"));
            cluster.alliance.signed(cluster.alliance.officer(country("BR"), 0), &contract).bytes().to_vec()
        }),
        ("not signed by enough officers", |cluster| {
            let contract = contract_of(country("BR"), country("BR"), country("IN"));
            cluster.alliance.signed(&stranger(), &contract).bytes().to_vec()
        }),
        ("FR is not a member", |cluster| spoken(cluster, "BR", |safeguard| safeguard.issuer = country("FR"))),
        ("it ran out", |cluster| spoken(cluster, "BR", |safeguard| safeguard.validity.until = DAWN)),
        ("not valid before", |cluster| spoken(cluster, "BR", |safeguard| safeguard.validity.from = DAWN.plus_ms(HOUR))),
        ("from BR to CN", |cluster| spoken(cluster, "BR", |safeguard| safeguard.to = country("CN"))),
        ("from IN to IN", |cluster| spoken(cluster, "BR", |safeguard| safeguard.from = country("IN"))),
        ("another recipient", |cluster| spoken(cluster, "BR", |safeguard| safeguard.recipient = Some(stranger().public()))),
        ("does not cover the label `personal`", |cluster| {
            spoken(cluster, "BR", |safeguard| safeguard.labels = BTreeSet::from([Label::Health]))
        }),
        ("a `law-pack` statement", |cluster| cluster.pack(country("BR")).bytes().to_vec()),
        ("not an envelope", |_| vec![1, 2, 3]),
    ];
    for (ignored, make) in cases {
        let mut cluster = Cluster::pair();
        cluster.enact(country("BR"), "require export label:personal scc_br");
        let offer = cluster.offer(0, &[Label::Personal, Label::Synthetic]);
        let mut lie = cluster.by_hand(offer, 1);
        lie.body.safeguards = vec![make(&cluster).into()];
        let (_, answer) = cluster.put(&lie);
        println!("{ignored}");
        if ignored.is_empty() {
            assert_code(&answer, None, "");
            continue;
        }
        assert_code(&answer, Some(RefusalCode::DeniedByLaw), "rules of BR");
        let Record::Refused { decision, .. } = cluster.nodes[0].last() else { panic!("refused") };
        assert!(decision.ignored.iter().any(|why| why.contains(ignored)), "{:?}", decision.ignored);
    }
}

#[test]
fn a_safeguard_counts_only_before_the_law_of_its_issuer() {
    // India's authority says that a Brazilian contract is filed; Brazil's law is not moved.
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "require export label:personal scc_br");
    let offer = cluster.offer(0, &[Label::Personal]);
    let mut lie = cluster.by_hand(offer, 1);
    let contract = contract_of(country("IN"), country("BR"), country("IN"));
    lie.body.safeguards = vec![cluster.alliance.spoken(country("IN"), &contract).bytes().to_vec().into()];
    assert_code(&cluster.put(&lie).1, Some(RefusalCode::DeniedByLaw), "rules of BR");
}

#[test]
fn the_preview_of_an_offer_says_what_a_pull_would() {
    use alliance_protocol::core::admin::AdminCall;
    let mut cluster = Cluster::pair();
    cluster.enact(country("IN"), "deny import purpose:commercial");
    let offer = cluster.offer(0, &[Label::Public]);
    let Reply::Offers(views) = cluster.call(1, AdminCall::Offers) else { panic!("offers") };
    let preview = &views.iter().find(|view| view.offer == offer).expect("listed").preview;
    assert_eq!(preview[..], [(Purpose::Research, true), (Purpose::Commercial, false), (Purpose::PublicService, true)]);
    for (purpose, allowed) in preview.clone() {
        let mut call = cluster.pull_call(offer);
        call.purpose = purpose;
        let crossing = cluster.pull_with(1, call);
        cluster.run();
        let expected = if allowed { CrossingState::Done } else { CrossingState::Denied };
        assert_eq!(cluster.state(1, crossing), expected, "{purpose}");
    }
}

#[test]
fn the_facts_are_what_the_authorities_said() {
    let mut cluster = Cluster::pair();
    let mut body = crate::alliance::accreditation_of(country("IN"), cluster.nodes[1].public(), "iitb");
    body.organisation.controlled_by = Some("US".parse::<Country>().expect("assigned"));
    body.organisation.state_controlled = true;
    let offer = cluster.offer(0, &[Label::Public]);
    let mut lie = cluster.by_hand(offer, 1);
    lie.body.accreditation = cluster.alliance.spoken(country("IN"), &body).bytes().to_vec();
    cluster.put(&lie);
    let Record::Cleared { decision, .. } = cluster.nodes[0].last() else { panic!("cleared") };
    let facts = decision.facts.as_ref().expect("packs were asked");
    assert_eq!((facts.from.country, facts.from.controlled_by), (country("BR"), country("BR")));
    assert_eq!((facts.to.country, facts.to.controlled_by), (country("IN"), country("US")));
    assert_eq!((facts.to.state_controlled, facts.to.zone), (true, None));
}
