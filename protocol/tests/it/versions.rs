//! Versions of the charter: what follows what, who must have signed, and what that does to crossings.

use std::collections::BTreeSet;

use alliance_protocol::{
    charter::{Authority, Charter, CharterError, Chartered, Membership},
    core::admin::{CrossingState, Reply},
    crossing::RefusalCode,
    envelope::Draft,
    id::{AllianceId, StatementId},
    key::SecretKey,
    ledger::Record,
    trust::{Accepted, Course, Distrust, NoStanding, Stale, Trust},
    vocabulary::{Label, NodeRole, Seat},
};

use crate::{
    alliance::{Alliance, DAWN, accreditation_of, country, key, status_of, stranger},
    cluster::Cluster,
    tabled_gate::TabledGate,
};

const ENOUGH: [&str; 3] = ["BR", "IN", "CN"];

fn seat(charter: &mut Charter, code: &str, seat: Seat) {
    charter.members.get_mut(&country(code)).expect("a member").seat = seat;
}

fn authority<'a>(charter: &'a mut Charter, code: &str) -> &'a mut Authority {
    &mut charter.members.get_mut(&country(code)).expect("a member").authority
}

/// Whether a version follows, as the word that the error begins with.
fn outcome(chartered: &Chartered, bytes: &[u8]) -> String {
    match chartered.clone().succeed(bytes) {
        Ok(accepted) => format!("{accepted:?}"),
        Err(error) => format!("{error:?}"),
    }
}

type Change<'a> = &'a dyn Fn(&mut Charter);

#[test]
fn a_version_follows_where_both_thresholds_have_signed() {
    let mut alliance = Alliance::found();
    let egypt = alliance.appoint(country("EG"), 60);
    let chartered = alliance.chartered();
    let admit = |charter: &mut Charter, seat| {
        charter.members.insert(country("EG"), Membership { seat, authority: egypt.clone() });
    };
    let cases: &[(&str, Change<'_>, &[&str])] = &[
        ("New", &|charter| admit(charter, Seat::Full), &["BR", "IN", "CN", "EG"]),
        ("New", &|charter| admit(charter, Seat::Partner), &["BR", "IN", "CN", "EG"]),
        ("New", &|charter| seat(charter, "ZA", Seat::Suspended), &ENOUGH),
        ("New", &|charter| seat(charter, "ZA", Seat::Partner), &ENOUGH),
        ("New", &|charter| drop(charter.members.remove(&country("ZA"))), &ENOUGH),
        ("New", &|charter| charter.threshold = 4, &["BR", "IN", "CN", "ZA"]),
        ("New", &|charter| charter.name.push('!'), &ENOUGH),
        ("Unwilling(EG)", &|charter| admit(charter, Seat::Full), &ENOUGH),
        ("Unwilling(EG)", &|charter| admit(charter, Seat::Suspended), &ENOUGH),
        ("Unwilling(ZA)", &|charter| authority(charter, "ZA").threshold = 3, &["BR", "IN", "CN", "ZA"]),
        ("Unwilling(ZA)", &|charter| authority(charter, "ZA").officers[2] = key(99).public(), &ENOUGH),
        ("TooFewOf { version: 1, signed: 2, members: 4, threshold: 3 }", &|charter| charter.name.push('!'), &["BR", "IN"]),
        ("TooFewOf { version: 2, signed: 3, members: 4, threshold: 4 }", &|charter| charter.threshold = 4, &ENOUGH),
        ("TooFewOf { version: 1, signed: 2", &|charter| admit(charter, Seat::Full), &["BR", "IN", "EG"]),
        ("TooFewOf { version: 2, signed: 2", &|charter| seat(charter, "ZA", Seat::Suspended), &["BR", "IN", "ZA"]),
        ("Malformed", &|charter| charter.threshold = 2, &ENOUGH),
        ("Open(Unsigned)", &|charter| charter.name.push('!'), &[]),
        ("BackDated { version: 2 }", &|charter| charter.issued = DAWN.minus_ms(1), &ENOUGH),
        ("OtherPast { version: 2, before: 1 }", &|charter| charter.previous = Some(StatementId([1; 32])), &ENOUGH),
        ("OtherPast { version: 2, before: 1 }", &|charter| charter.previous = None, &ENOUGH),
        ("Skipped { found: 3, known: 1 }", &|charter| charter.version = 3, &ENOUGH),
        ("Older { found: 0, known: 1 }", &|charter| charter.version = 0, &ENOUGH),
        ("Older { found: 1, known: 1 }", &|charter| charter.version = 1, &ENOUGH),
        (
            "Moved",
            &|charter| {
                let officer = authority(charter, "IN").officers.remove(2);
                authority(charter, "BR").officers.push(officer);
            },
            &ENOUGH,
        ),
    ];
    for (expected, change, signers) in cases {
        let found = outcome(&chartered, &alliance.signed_by(&Alliance::next(&chartered, change), signers));
        assert!(found.starts_with(expected), "{found} instead of {expected}");
    }
}

#[test]
fn a_strangers_signature_or_another_alliance_spoils_it() {
    let alliance = Alliance::found();
    let chartered = alliance.chartered();
    let next = Alliance::next(&chartered, |charter| charter.name.push('!'));
    let bytes = alliance.signed_by(&next, &ENOUGH);
    let draft = Draft::<Charter>::open(&bytes).expect("a draft").sign(&stranger());
    assert_eq!(outcome(&chartered, &draft.to_bytes()), format!("Stranger({:?})", stranger().public()));
    let far = Alliance::next(&chartered, |charter| charter.version = 9);
    let invented = Draft::new(&far, alliance.id).sign(&stranger()).to_bytes();
    assert_eq!(outcome(&chartered, &invented), format!("Stranger({:?})", stranger().public()), "no version is missing");
    for other in [AllianceId::NONE, AllianceId([9; 32])] {
        let keys = ENOUGH.iter().flat_map(|code| [0, 1].map(|seat| alliance.officer(country(code), seat)));
        let bytes = keys.fold(Draft::new(&next, other), Draft::sign).to_bytes();
        assert!(outcome(&chartered, &bytes).starts_with("Open(Alliance"), "{other}");
    }
}

#[test]
fn one_version_is_one_whoever_signed_this_copy_and_a_second_is_a_split() {
    let alliance = Alliance::found();
    let mut chartered = alliance.chartered();
    let next = Alliance::next(&chartered, |charter| charter.name.push('!'));
    let other = Alliance::next(&chartered, |charter| charter.name.push('?'));
    assert_eq!(chartered.succeed(&alliance.signed_by(&next, &ENOUGH)), Ok(Accepted::New));
    assert_eq!(chartered.succeed(&alliance.signed_by(&next, &["IN", "CN", "ZA"])), Ok(Accepted::Known));
    assert_eq!(
        chartered.succeed(&alliance.charter),
        Err(CharterError::Open(alliance_protocol::envelope::OpenError::Alliance { found: AllianceId::NONE }))
    );
    let split = alliance.signed_by(&other, &["IN", "CN", "ZA"]);
    assert_eq!(chartered.succeed(&split), Err(CharterError::Forked { version: 2 }));
    let claimed = alliance.signed_by(&other, &["IN", "CN"]);
    assert!(matches!(chartered.succeed(&claimed), Err(CharterError::TooFewOf { .. })), "two members split nothing");
    assert!(chartered.charter().name.ends_with('!'), "the first stays");
    let third = Alliance::next(&chartered, |charter| charter.name.push('!'));
    assert_eq!(chartered.succeed(&alliance.signed_by(&third, &ENOUGH)), Ok(Accepted::New));
    assert_eq!(chartered.succeed(&alliance.signed_by(&next, &ENOUGH)), Ok(Accepted::Known), "it was in force once");
}

#[test]
fn a_suspended_or_partner_member_does_not_decide() {
    for lost in [Seat::Suspended, Seat::Partner] {
        let alliance = Alliance::found();
        let mut chartered = alliance.chartered();
        let next = Alliance::next(&chartered, |charter| {
            seat(charter, "ZA", lost);
            charter.threshold = 2;
        });
        assert_eq!(chartered.succeed(&alliance.signed_by(&next, &ENOUGH)), Ok(Accepted::New));
        let back = Alliance::next(&chartered, |charter| {
            seat(charter, "ZA", Seat::Full);
            charter.threshold = 3;
        });
        let few = chartered.clone().succeed(&alliance.signed_by(&back, &["BR", "ZA"]));
        assert_eq!(few, Err(CharterError::TooFewOf { version: 2, signed: 1, members: 3, threshold: 2 }));
        // Restored, it counts again towards the new version, and the others decide under the old one.
        assert_eq!(chartered.succeed(&alliance.signed_by(&back, &["BR", "IN", "ZA"])), Ok(Accepted::New));
    }
}

#[test]
fn a_log_reads_back_and_every_damage_to_it_is_found() {
    let alliance = Alliance::found();
    let mut chartered = alliance.chartered();
    assert_eq!(chartered.to_log(), alliance.charter, "a founding charter is its own log");
    for _ in 0..2 {
        let next = Alliance::next(&chartered, |charter| charter.name.push('!'));
        chartered.succeed(&alliance.signed_by(&next, &ENOUGH)).expect("follows");
    }
    let log = chartered.to_log();
    let again = Chartered::open(&log).expect("holds");
    let ids = |chartered: &Chartered| chartered.versions().map(|version| version.id()).collect::<Vec<_>>();
    assert_eq!((ids(&again), again.alliance()), (ids(&chartered), alliance.id));
    for at in (0..log.len()).step_by(7) {
        let mut damaged = log.clone();
        damaged[at] ^= 1;
        assert!(Chartered::open(&damaged).is_err(), "byte {at}");
        assert!(Chartered::open(&log[..at]).is_err(), "cut to {at}");
    }
}

/// Replaces all officers of the member, who sign with the members that decide.
pub(crate) fn rotate(alliance: &mut Alliance, chartered: &Chartered, code: &str, seed: u8) -> Vec<u8> {
    let old: Vec<SecretKey> =
        [0, 1].map(|seat| SecretKey::from_seed(&alliance.officer(country(code), seat).to_seed())).into();
    let officers = alliance.appoint(country(code), seed);
    let next = Alliance::next(chartered, |charter| *authority(charter, code) = officers);
    let bytes = alliance.signed_by(&next, &["BR", "IN", "CN"]);
    old.iter().fold(Draft::<Charter>::open(&bytes).expect("a draft"), Draft::sign).to_bytes()
}

#[test]
fn what_former_officers_said_is_said_again_under_numbers_that_stay() {
    let mut alliance = Alliance::found();
    let mut trust = Trust::new(alliance.chartered());
    let brazil = country("BR");
    let pack = alliance.law(brazil, 4, "");
    let status = alliance.status(&status_of(brazil, 7, &pack));
    let (node, body) = (key(100).public(), accreditation_of(brazil, key(100).public(), "usp"));
    let accreditation = alliance.spoken(brazil, &body);
    for accepted in [trust.accept_pack(pack.bytes(), &TabledGate), trust.accept_status(status.bytes())] {
        assert_eq!(accepted, Ok(Accepted::New));
    }
    assert_eq!(trust.standing(&accreditation, &node, NodeRole::Exporter, Course::New, DAWN), Ok(()));

    let next = rotate(&mut alliance, &trust.chartered().clone(), "BR", 70);
    assert_eq!(trust.accept_charter(&next), Ok(Accepted::New));
    let lost = trust.standing(&accreditation, &node, NodeRole::Exporter, Course::New, DAWN);
    assert_eq!(lost, Err(NoStanding::Accreditation(Distrust::NotTheAuthority(brazil))));
    assert_eq!(trust.law(brazil, DAWN).err(), Some(Stale::NoStatus(brazil)));
    assert_eq!(trust.accept_status(status.bytes()), Err(Distrust::NotTheAuthority(brazil)), "not by those signatures");

    let older = alliance.status(&status_of(brazil, 6, &pack));
    assert!(matches!(trust.accept_status(older.bytes()), Err(Distrust::Older { found: 6, known: 7, .. })));
    let fewer = alliance.law(brazil, 3, "");
    assert!(matches!(trust.accept_pack(fewer.bytes(), &TabledGate), Err(Distrust::Older { found: 3, known: 4, .. })));
    let another = alliance.law(brazil, 4, "another");
    let refused = trust.accept_pack(another.bytes(), &TabledGate);
    assert!(matches!(refused, Err(Distrust::Equivocation { number: 4, .. })), "epoch 4 was another");

    let again = alliance.spoken(brazil, status.body());
    assert_eq!(again.id(), status.id());
    assert_eq!(trust.accept_pack(alliance.spoken(brazil, pack.body()).bytes(), &TabledGate), Ok(Accepted::New));
    assert_eq!(trust.accept_status(again.bytes()), Ok(Accepted::New), "the same, by those who speak now");
    assert_eq!(trust.accept_status(again.bytes()), Ok(Accepted::Known));
    let renewed = alliance.spoken(brazil, &body);
    assert_eq!(trust.standing(&renewed, &node, NodeRole::Exporter, Course::New, DAWN), Ok(()));
    assert!(trust.law(brazil, DAWN).is_ok());
}

#[test]
fn who_was_revoked_stays_so_when_officers_change() {
    let mut alliance = Alliance::found();
    let mut trust = Trust::new(alliance.chartered());
    let (brazil, node) = (country("BR"), key(100).public());
    let body = accreditation_of(brazil, node, "usp");
    let pack = alliance.law(brazil, 1, "");
    let revokes = alliance_protocol::authority::Status { revoked: [node].into(), ..status_of(brazil, 7, &pack) };
    trust.accept_status(alliance.status(&revokes).bytes()).expect("accepted");
    let next = rotate(&mut alliance, &trust.chartered().clone(), "BR", 70);
    trust.accept_charter(&next).expect("follows");
    let again = alliance.spoken(brazil, &body);
    assert!(matches!(trust.admission(&again, &node, DAWN), Err(NoStanding::Revoked { .. })));
}

#[test]
fn a_node_that_is_behind_all_whom_it_could_believe_says_so() {
    let mut cluster = Cluster::pair();
    cluster.crash(1);
    let next = {
        let chartered = cluster.alliance.chartered();
        let old: Vec<_> =
            [0, 1].map(|seat| SecretKey::from_seed(&cluster.alliance.officer(country("BR"), seat).to_seed())).into();
        let officers = cluster.alliance.appoint(country("BR"), 70);
        let next = Alliance::next(&chartered, |charter| *authority(charter, "BR") = officers);
        let bytes = cluster.alliance.signed_by(&next, &["BR", "IN", "CN"]);
        old.iter().fold(Draft::<Charter>::open(&bytes).expect("a draft"), Draft::sign).to_bytes()
    };
    cluster.adopt(0, &[&next]);
    cluster.crash(0);
    let body = accreditation_of(country("BR"), cluster.nodes[0].public(), "usp");
    cluster.nodes[0].accreditation = cluster.alliance.spoken(country("BR"), &body).bytes().to_vec();
    cluster.restart(0);
    cluster.restart(1);
    let status = cluster.status(1);
    assert_eq!((status.charter, status.peers_admitted), (1, 0));
    assert!(status.charter_alarm.expect("an alarm").contains("version 2 of the charter"));
    cluster.adopt(1, &[&next]);
    cluster.run();
    assert_eq!(cluster.status(1).charter_alarm, None);
}

#[test]
fn a_member_that_leaves_and_comes_back_does_not_go_back() {
    let alliance = Alliance::found();
    let mut trust = Trust::new(alliance.chartered());
    let south_africa = country("ZA");
    let pack = alliance.law(south_africa, 4, "");
    let status = alliance.status(&status_of(south_africa, 7, &pack));
    trust.accept_pack(pack.bytes(), &TabledGate).expect("accepted");
    trust.accept_status(status.bytes()).expect("accepted");
    let was = trust.chartered().charter().members[&south_africa].clone();
    let leaves = Alliance::next(trust.chartered(), |charter| drop(charter.members.remove(&south_africa)));
    assert_eq!(trust.accept_charter(&alliance.signed_by(&leaves, &ENOUGH)), Ok(Accepted::New));
    assert_eq!(trust.law(south_africa, DAWN).err(), Some(Stale::NotAMember(south_africa)));
    assert_eq!(trust.accept_status(status.bytes()), Err(Distrust::NotAMember(south_africa)));
    assert!(trust.members(DAWN).all(|(member, ..)| member != south_africa));
    assert_eq!(trust.statements().count(), 1, "the version that it left with");

    let back = Alliance::next(trust.chartered(), |charter| drop(charter.members.insert(south_africa, was)));
    assert_eq!(trust.accept_charter(&alliance.signed_by(&back, &["BR", "IN", "CN", "ZA"])), Ok(Accepted::New));
    let older = alliance.status(&status_of(south_africa, 6, &pack));
    assert!(matches!(trust.accept_status(older.bytes()), Err(Distrust::Older { .. })));
    trust.accept_pack(pack.bytes(), &TabledGate).expect("accepted");
    assert_eq!(trust.accept_status(status.bytes()), Ok(Accepted::New));
}

#[test]
fn a_suspension_cuts_what_runs_on_both_sides_and_ends_with_the_next_version() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    cluster.run_to("received");
    let mut chartered = cluster.alliance.chartered();
    let suspended = Alliance::next(&chartered, |charter| seat(charter, "IN", Seat::Suspended));
    let bytes = cluster.alliance.signed_by(&suspended, &["BR", "CN", "ZA"]);
    assert!(matches!(cluster.adopt(2, &[&bytes]), Reply::Adopted { accepted: 1, known: 0 }));
    cluster.run();
    for at in [0, 1] {
        let view = cluster.view(at, crossing);
        assert_eq!(view.state, CrossingState::Failed);
        let why = view.problem.expect("a reason");
        assert!(why.contains("IN is suspended by version 2 of the charter"), "node {at}: {why}");
        assert_eq!(cluster.status(at).charter, 2);
    }
    let again = cluster.pull(1, offer);
    cluster.run();
    let view = cluster.view(1, again);
    assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(RefusalCode::NotAccredited)));

    chartered.succeed(&bytes).expect("follows");
    let restored = Alliance::next(&chartered, |charter| seat(charter, "IN", Seat::Full));
    let bytes = cluster.alliance.signed_by(&restored, &["BR", "CN", "ZA", "IN"]);
    cluster.adopt(1, &[&bytes]);
    cluster.run();
    let last = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, last), CrossingState::Done);
    assert_eq!(cluster.state(0, last), CrossingState::Done);
}

#[test]
fn the_nodes_of_a_member_that_leaves_are_let_go_with_their_offers() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
    let offer = cluster.offer(1, &[Label::Public]);
    assert!(cluster.knows(0, offer));
    let leaves = Alliance::next(&cluster.alliance.chartered(), |charter| drop(charter.members.remove(&country("IN"))));
    cluster.adopt(2, &[&cluster.alliance.signed_by(&leaves, &["BR", "CN", "ZA"])]);
    cluster.run();
    cluster.advance_to(cluster.now.plus_ms(3_000));
    assert!(!cluster.knows(0, offer));
    assert_eq!((cluster.status(0).peers_admitted, cluster.status(2).peers_admitted), (1, 1));
    let problem = cluster.status(1).problem.expect("it has no standing any more");
    assert!(problem.contains("IN is not a member"), "{problem}");
}

#[test]
fn a_node_that_slept_through_several_versions_catches_up_whatever_their_order() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
    cluster.crash(1);
    let mut chartered = cluster.alliance.chartered();
    for _ in 0..5 {
        let next = Alliance::next(&chartered, |charter| charter.name.push('!'));
        let bytes = cluster.alliance.signed_by(&next, &["BR", "CN", "ZA"]);
        chartered.succeed(&bytes).expect("follows");
        cluster.adopt(0, &[&bytes]);
    }
    cluster.run();
    cluster.restart(1);
    assert_eq!(cluster.status(1).charter, 6);
    // From its own ledger, with the founding charter in its home.
    cluster.crash(1);
    cluster.crash(0);
    cluster.crash(2);
    cluster.restart(1);
    assert_eq!(cluster.status(1).charter, 6);
    let versions = cluster.nodes[1].count(|record| matches!(record, Record::CharterAccepted { .. }));
    assert_eq!(versions, 5, "each is recorded once");
}

#[test]
fn a_new_members_node_starts_from_the_log() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb")]);
    let egypt = cluster.alliance.appoint(country("EG"), 60);
    let mut chartered = cluster.alliance.chartered();
    let admits = Alliance::next(&chartered, |charter| drop(charter.members.insert(country("EG"), egypt.into())));
    let bytes = cluster.alliance.signed_by(&admits, &["BR", "IN", "CN", "EG"]);
    chartered.succeed(&bytes).expect("follows");
    cluster.adopt(0, &[&bytes]);
    cluster.run();
    cluster.alliance.charter = chartered.to_log();
    let node = cluster.join("EG", "siwa");
    cluster.enact(country("EG"), "");
    let offer = cluster.offer(node, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
    let seats: BTreeSet<_> = cluster.status(0).members.iter().map(|member| (member.country, member.fresh)).collect();
    assert!(seats.contains(&(country("EG"), true)));
}

#[test]
fn a_home_with_other_versions_than_the_ledger_does_not_start() {
    let mut cluster = Cluster::pair();
    let chartered = cluster.alliance.chartered();
    let next = |sign: char| Alliance::next(&chartered, |charter| charter.name.push(sign));
    cluster.adopt(0, &[&cluster.alliance.signed_by(&next('!'), &ENOUGH)]);
    cluster.crash(0);
    let mut other = chartered.clone();
    other.succeed(&cluster.alliance.signed_by(&next('?'), &ENOUGH)).expect("follows");
    cluster.alliance.charter = other.to_log();
    let error = cluster.try_start(0).expect_err("the members have split");
    assert!(matches!(error, alliance_protocol::core::StartError::Versions(_)), "{error:?}");
}

#[test]
fn a_split_is_an_alarm_and_the_first_version_stays() {
    let mut cluster = Cluster::pair();
    let chartered = cluster.alliance.chartered();
    let next = |sign: char| Alliance::next(&chartered, |charter| charter.name.push(sign));
    cluster.adopt(0, &[&cluster.alliance.signed_by(&next('!'), &ENOUGH)]);
    assert!(matches!(cluster.adopt(0, &[&cluster.alliance.signed_by(&next('?'), &ENOUGH)]), Reply::Failed(_)));
    let status = cluster.status(0);
    assert!(status.alliance_name.ends_with('!'));
    assert!(status.charter_alarm.expect("an alarm").contains("two different versions 2"));
}
