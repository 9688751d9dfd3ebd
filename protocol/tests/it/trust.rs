//! Trust on its own: what it accepts, in which order, and what it says of standing and law.

use alliance_protocol::{
    authority::Status,
    time::{NotValid, Validity},
    trust::{Accepted, Course, Distrust, NoStanding, SafeguardIgnored, Scope, Stale, Trust},
    vocabulary::{Label, NodeRole},
};

use crate::{
    alliance::{
        Alliance, DAWN, HOUR, STATUS_MS, accreditation_of, contract_of, country, key, some_id, status_of, stranger,
    },
    tabled_gate::TabledGate,
};

fn begun() -> (Alliance, Trust) {
    let alliance = Alliance::found();
    let trust = Trust::new(alliance.chartered());
    (alliance, trust)
}

#[test]
fn a_pack_is_in_force_when_a_fresh_status_names_it() {
    let (alliance, mut trust) = begun();
    let member = country("BR");
    assert_eq!(trust.law(country("FR"), DAWN), Err(Stale::NotAMember(country("FR"))));
    assert_eq!(trust.law(member, DAWN), Err(Stale::NoStatus(member)));
    let (first, second) = (alliance.law(member, 1, "one"), alliance.law(member, 2, "two"));
    for pack in [&first, &second] {
        assert_eq!(trust.accept_pack(pack.bytes(), &TabledGate), Ok(Accepted::New));
        assert_eq!(trust.accept_pack(pack.bytes(), &TabledGate), Ok(Accepted::Known));
    }
    assert_eq!(trust.law(member, DAWN), Err(Stale::NoStatus(member)), "a pack alone is not in force");

    let status = alliance.status(&status_of(member, 1, &first));
    assert_eq!(trust.accept_status(status.bytes()), Ok(Accepted::New));
    assert_eq!(trust.law(member, DAWN).map(|pack| pack.law.to_string()), Ok("one".into()));
    let end = DAWN.plus_ms(STATUS_MS);
    assert_eq!(trust.law(member, end), Err(Stale::Status { member, why: NotValid::AnyMore(end) }));
    assert_eq!(trust.next_change(DAWN), Some(end));
    assert_eq!(trust.next_change(end), None);

    let status = alliance.status(&status_of(member, 2, &second));
    assert_eq!(trust.accept_status(status.bytes()), Ok(Accepted::New));
    assert_eq!(trust.law(member, DAWN).map(|pack| pack.law.to_string()), Ok("two".into()));
    assert_eq!(trust.statements().count(), 2, "the pack that was overtaken is let go");
}

#[test]
fn a_status_before_its_pack_waits_for_it() {
    let (alliance, mut trust) = begun();
    let member = country("BR");
    let pack = alliance.law(member, 5, "");
    assert_eq!(trust.accept_status(alliance.status(&status_of(member, 1, &pack)).bytes()), Ok(Accepted::New));
    assert_eq!(trust.law(member, DAWN), Err(Stale::NoPack { member, epoch: 5 }));
    let older = alliance.law(member, 4, "");
    let refused = Distrust::Older { what: "law pack", member, found: 4, known: 5 };
    assert_eq!(trust.accept_pack(older.bytes(), &TabledGate), Err(refused));
    assert_eq!(trust.accept_pack(pack.bytes(), &TabledGate), Ok(Accepted::New));
    assert!(trust.law(member, DAWN).is_ok());
}

#[test]
fn an_old_status_is_refused_even_where_the_newer_one_has_run_out() {
    let (alliance, mut trust) = begun();
    let member = country("BR");
    let pack = alliance.law(member, 1, "");
    let short = Status { validity: Validity::lasting_ms(DAWN, 1), ..status_of(member, 9, &pack) };
    trust.accept_status(alliance.status(&short).bytes()).expect("accepted");
    let older = alliance.status(&status_of(member, 8, &pack));
    let refused = Distrust::Older { what: "status", member, found: 8, known: 9 };
    assert_eq!(trust.accept_status(older.bytes()), Err(refused));
}

#[test]
fn a_third_signature_makes_no_other_status() {
    let (alliance, mut trust) = begun();
    let member = country("BR");
    let status = alliance.status(&status_of(member, 1, &alliance.law(member, 1, "")));
    trust.accept_status(status.bytes()).expect("accepted");
    let more = status.countersign(alliance.officer(member, 2)).expect("signs");
    assert_eq!(trust.accept_status(more.bytes()), Ok(Accepted::Known));
}

#[test]
fn standing_is_asked_in_every_part() {
    let (alliance, mut trust) = begun();
    let member = country("IN");
    let node = key(101).public();
    let opened = |body: &alliance_protocol::authority::Accreditation| {
        trust_of(&alliance).accreditation(alliance.spoken(member, body).bytes()).expect("opens")
    };
    let body = accreditation_of(member, node, "iitb");
    let good = opened(&body);
    let importer = NodeRole::Importer;
    assert_eq!(trust.standing(&good, &node, importer, Course::New, DAWN), Err(Stale::NoStatus(member).into()));
    let pack = alliance.law(member, 1, "");
    trust.accept_status(alliance.status(&status_of(member, 1, &pack)).bytes()).expect("accepted");
    assert_eq!(trust.standing(&good, &node, importer, Course::New, DAWN), Ok(()));
    let other = stranger().public();
    assert_eq!(trust.standing(&good, &other, importer, Course::New, DAWN), Err(NoStanding::OtherKey(node)));
    assert!(matches!(trust.standing(&good, &node, NodeRole::Witness, Course::New, DAWN), Err(NoStanding::Role { .. })));
    let mut late = body.clone();
    late.validity = Validity::lasting_ms(DAWN.plus_ms(HOUR), HOUR);
    assert!(matches!(trust.standing(&opened(&late), &node, importer, Course::New, DAWN), Err(NoStanding::NotValid { .. })));
    let revokes = Status { revoked: [node].into(), ..status_of(member, 2, &pack) };
    trust.accept_status(alliance.status(&revokes).bytes()).expect("accepted");
    assert!(matches!(trust.standing(&good, &node, importer, Course::New, DAWN), Err(NoStanding::Revoked { .. })));
    assert!(matches!(trust.admission(&good, &node, DAWN), Err(NoStanding::Revoked { .. })));
}

fn trust_of(alliance: &Alliance) -> Trust {
    Trust::new(alliance.chartered())
}

#[test]
fn open_labels_need_no_cover() {
    let (alliance, trust) = begun();
    let (from, to) = (country("BR"), country("IN"));
    let contract = alliance.spoken(from, &contract_of(from, from, to));
    let scoped = |labels: &[Label]| {
        let labels = labels.iter().copied().collect();
        let scope = Scope { from, to, recipient: key(101).public(), labels: &labels };
        trust.safeguard(contract.bytes(), &scope, DAWN).map(|statement| statement.id())
    };
    let open = [Label::Public, Label::NonPersonal, Label::Aggregated, Label::Dp, Label::Synthetic, Label::Anonymised];
    assert_eq!(scoped(&open), Ok(contract.id()));
    assert_eq!(scoped(&[&open[..], &[Label::Personal]].concat()), Ok(contract.id()));
    for label in Label::ALL.iter().filter(|label| !open.contains(label) && **label != Label::Personal) {
        assert_eq!(scoped(&[Label::Personal, *label]), Err(SafeguardIgnored::Label(*label)));
    }
}

#[test]
fn another_alliances_words_do_not_count() {
    let (alliance, mut trust) = begun();
    let member = country("BR");
    let elsewhere = alliance_protocol::id::AllianceId(some_id(3).0);
    let status = status_of(member, 1, &alliance.law(member, 1, ""));
    let draft = alliance_protocol::envelope::Draft::new(&status, elsewhere);
    let signed = draft.sign(alliance.officer(member, 0)).sign(alliance.officer(member, 1)).to_bytes();
    assert!(matches!(trust.accept_status(&signed), Err(Distrust::Open(_))));
}

#[test]
fn few_packs_are_kept_whatever_is_published_ahead() {
    let (alliance, mut trust) = begun();
    let member = country("BR");
    let first = alliance.law(member, 1, "");
    trust.accept_pack(first.bytes(), &TabledGate).expect("accepted");
    trust.accept_status(alliance.status(&status_of(member, 1, &first)).bytes()).expect("accepted");
    for epoch in (2..10).chain(20..30) {
        trust.accept_pack(alliance.law(member, epoch, "").bytes(), &TabledGate).expect("newer");
        assert!(trust.statements().count() <= 1 + 4, "a status and four packs");
    }
    assert!(trust.law(member, DAWN).is_ok(), "the one in force is among them");
    let overtaken = alliance.law(member, 10, "");
    assert!(matches!(trust.accept_pack(overtaken.bytes(), &TabledGate), Err(Distrust::Older { known: 27, .. })));
}
