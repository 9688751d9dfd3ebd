//! Law that is adopted ahead of its date: known before, told before, and in force at its instant without another word of
//! the authority. The true time lies in an interval around the clock, so that for as long both laws are asked.

use alliance_protocol::{
    authority::{Adoption, Status},
    core::admin::{AdminCall, CrossingState, EndingOf, OutlookView, Reply},
    crossing::RefusalCode,
    limits::CLOCK_SKEW_MS_MAX,
    time::{Timestamp, Validity},
    trust::{Course, Distrust, Stale, Trust},
    vocabulary::Label,
};

use crate::{
    alliance::{Alliance, DAWN, HOUR, SECOND, country, status_of},
    cluster::Cluster,
    tabled_gate::TabledGate,
};

/// When the law changes in these tests.
const TURN: Timestamp = Timestamp(DAWN.0 + HOUR);

/// The authority of Brazil publishes a law that comes into force at [`TURN`], and a status that names it.
fn adopt_ahead(cluster: &mut Cluster, law: &str, hand_over: bool) {
    let brazil = country("BR");
    let epoch = cluster.pack(brazil).body().epoch + 1;
    let next = cluster.alliance.law(brazil, epoch, law);
    let status =
        Status { upcoming: vec![Adoption { from: TURN, law_pack: next.id(), epoch }], ..cluster.next_status(brazil) };
    let status = cluster.alliance.status(&status);
    if hand_over {
        cluster.adopt(0, &[next.bytes(), status.bytes()]);
    } else {
        cluster.adopt(0, &[status.bytes()]);
    }
    cluster.run();
}

fn outlook(cluster: &mut Cluster, at: usize) -> OutlookView {
    match cluster.call(at, AdminCall::Outlook) {
        Reply::Outlook(view) => view,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_runs_ends_on_both_sides_when_the_new_law_may_be_in_force() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    adopt_ahead(&mut cluster, "deny export all", true);
    cluster.advance_to(TURN.minus_ms(CLOCK_SKEW_MS_MAX + 10 * SECOND));
    let crossing = cluster.pull(1, offer);
    cluster.run_to("received");
    cluster.advance_to(TURN.minus_ms(CLOCK_SKEW_MS_MAX + 1));
    for at in [0, 1] {
        assert!(!cluster.state(at, crossing).is_final(), "node {at}: it runs until then");
    }
    cluster.advance_to(TURN.minus_ms(CLOCK_SKEW_MS_MAX));
    for at in [0, 1] {
        let view = cluster.view(at, crossing);
        assert_eq!(view.state, CrossingState::Failed, "node {at}");
        let why = view.problem.expect("a reason");
        assert!(why.contains("denied by the rules of BR"), "node {at}: {why}");
    }
    let again = cluster.pull(1, offer);
    assert_eq!(cluster.view(1, again).refusal, Some(RefusalCode::DeniedByLaw));
}

#[test]
fn what_a_new_law_allows_is_allowed_once_the_old_one_is_surely_over() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "deny export all");
    let offer = cluster.offer(0, &[Label::Public]);
    adopt_ahead(&mut cluster, "", true);
    for (at, expected) in [
        (DAWN.plus_ms(SECOND), CrossingState::Denied),
        (TURN, CrossingState::Denied),
        (TURN.plus_ms(CLOCK_SKEW_MS_MAX - 1), CrossingState::Denied),
        (TURN.plus_ms(CLOCK_SKEW_MS_MAX), CrossingState::Done),
    ] {
        cluster.advance_to(at);
        let crossing = cluster.pull(1, offer);
        cluster.run();
        assert_eq!(cluster.state(1, crossing), expected, "{at}");
    }
    // Whoever starts in between knows it from the ledger.
    cluster.crash(0);
    cluster.restart(0);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
}

#[test]
fn a_law_that_is_not_here_when_it_comes_into_force_stops_everything() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    adopt_ahead(&mut cluster, "", false);
    let before = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, before), CrossingState::Done);
    let view = outlook(&mut cluster, 1);
    assert!(view.turns[0].causes[0].contains("which is not here"), "{view:?}");
    cluster.advance_to(TURN);
    let after = cluster.pull(1, offer);
    let view = cluster.view(1, after);
    assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(RefusalCode::Stale)));
    assert!(view.problem.expect("a reason").contains("the law pack of BR, epoch 2, is not known here"));
}

#[test]
fn both_sides_are_told_before_what_will_end_and_why() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    assert_eq!(outlook(&mut cluster, 0), OutlookView { turns: Vec::new(), complete: true });
    adopt_ahead(&mut cluster, "deny export all", true);
    let crossing = cluster.pull(1, offer);
    cluster.run_to("received");
    for (at, other) in [(0, "IN"), (1, "BR")] {
        let view = outlook(&mut cluster, at);
        assert!(view.complete);
        let [turn] = view.turns.as_slice() else { panic!("{view:?}") };
        assert_eq!(turn.at, TURN);
        assert_eq!(turn.causes, ["the law pack of BR, epoch 2, comes into force"]);
        let found: Vec<_> = turn.endings.iter().map(|ending| (ending.of, ending.country)).collect();
        assert_eq!(found, [(EndingOf::Crossing(crossing), country(other)), (EndingOf::Offer(offer), country(other))]);
        assert!(turn.endings.iter().all(|ending| ending.why.contains("denied by the rules of BR")), "{turn:?}");
        assert_eq!(turn.endings[1].purposes.len(), 3);
    }
    assert!(!cluster.state(1, crossing).is_final(), "to be told ends nothing");
}

#[test]
fn a_rule_that_begins_on_a_date_is_looked_at_on_that_date_and_told_before() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), &format!("deny-from export {}", TURN.0));
    let offer = cluster.offer(0, &[Label::Public]);
    let view = outlook(&mut cluster, 1);
    assert_eq!(view.turns.len(), 1, "{view:?}");
    assert_eq!((view.turns[0].at, view.turns[0].endings.len()), (TURN, 1));
    cluster.advance_to(TURN.minus_ms(CLOCK_SKEW_MS_MAX + 3 * SECOND));
    let crossing = cluster.pull(1, offer);
    cluster.run_to("received");
    cluster.advance_to(TURN.minus_ms(CLOCK_SKEW_MS_MAX + 1));
    assert!(!cluster.state(0, crossing).is_final());
    cluster.advance_to(TURN.minus_ms(CLOCK_SKEW_MS_MAX));
    assert_eq!([cluster.state(0, crossing), cluster.state(1, crossing)], [CrossingState::Failed; 2]);
}

/// A status of Brazil, issued at an instant, with what comes later.
fn issued(alliance: &Alliance, at: Timestamp, serial: u64, epoch: u64, upcoming: &[(u64, u64)]) -> Vec<u8> {
    let brazil = country("BR");
    let adoption = |(epoch, ms): &(u64, u64)| Adoption {
        from: DAWN.plus_ms(*ms),
        law_pack: alliance.law(brazil, *epoch, "").id(),
        epoch: *epoch,
    };
    let status = Status {
        validity: Validity::lasting_ms(at, 6 * HOUR),
        upcoming: upcoming.iter().map(adoption).collect(),
        ..status_of(brazil, serial, &alliance.law(brazil, epoch, ""))
    };
    alliance.status(&status).bytes().to_vec()
}

#[test]
fn what_is_to_come_may_be_taken_back_and_what_has_come_may_not() {
    let alliance = Alliance::found();
    let mut trust = Trust::new(alliance.chartered());
    trust.accept_status(&issued(&alliance, DAWN, 1, 1, &[(2, HOUR)])).expect("accepted");
    trust.accept_status(&issued(&alliance, DAWN.plus_ms(1), 2, 1, &[])).expect("taken back");
    trust.accept_status(&issued(&alliance, DAWN.plus_ms(2), 3, 1, &[(3, HOUR)])).expect("another");
    let later = DAWN.plus_ms(HOUR);
    let refused = trust.accept_status(&issued(&alliance, later, 4, 1, &[]));
    assert!(matches!(refused, Err(Distrust::Older { what: "epoch", found: 1, known: 3, .. })), "{refused:?}");
    let refused = trust.accept_status(&issued(&alliance, later, 4, 2, &[]));
    assert!(matches!(refused, Err(Distrust::Older { found: 2, known: 3, .. })), "{refused:?}");
    trust.accept_status(&issued(&alliance, later, 4, 1, &[(3, HOUR)])).expect("the same, said again");
    trust.accept_status(&issued(&alliance, later.plus_ms(1), 5, 3, &[])).expect("what has come");
    // Neither by a date in the past nor by an adoption that has begun already.
    for (at, upcoming) in [(DAWN, &[][..]), (later.plus_ms(2), &[(3, HOUR)])] {
        let refused = trust.accept_status(&issued(&alliance, at, 6, 1, upcoming));
        assert!(matches!(refused, Err(Distrust::Older { found: 1, known: 3, .. })), "{refused:?}");
    }
}

#[test]
fn a_status_whose_adoptions_are_not_in_order_is_malformed() {
    let alliance = Alliance::found();
    let mut trust = Trust::new(alliance.chartered());
    let tables: [&[(u64, u64)]; 5] =
        [&[(1, HOUR)], &[(0, HOUR)], &[(3, HOUR), (2, 2 * HOUR)], &[(2, HOUR), (3, HOUR)], &[(2, 1), (3, 2), (4, 3)]];
    for upcoming in tables {
        let refused = trust.accept_status(&issued(&alliance, DAWN, 1, 1, upcoming));
        assert!(matches!(refused, Err(Distrust::Malformed(_))), "{upcoming:?}: {refused:?}");
    }
}

#[test]
fn packs_that_a_status_names_are_kept_whatever_else_is_published() {
    let (alliance, brazil) = (Alliance::found(), country("BR"));
    let mut trust = Trust::new(alliance.chartered());
    for epoch in 1..=3 {
        trust.accept_pack(alliance.law(brazil, epoch, "").bytes(), &TabledGate).expect("accepted");
    }
    trust.accept_status(&issued(&alliance, DAWN, 1, 1, &[(2, HOUR), (3, 2 * HOUR)])).expect("accepted");
    for epoch in 4..=9 {
        trust.accept_pack(alliance.law(brazil, epoch, "").bytes(), &TabledGate).expect("accepted");
    }
    for (at, epoch) in [(DAWN, 1), (DAWN.plus_ms(HOUR), 2), (DAWN.plus_ms(2 * HOUR), 3)] {
        assert_eq!(trust.law(brazil, at).map(|pack| pack.epoch), Ok(epoch));
    }
    let around = trust.laws(brazil, Course::New, DAWN.plus_ms(HOUR)).expect("both");
    assert_eq!(around.iter().map(|pack| pack.epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(trust.law_on(country("IN"), DAWN).err(), Some(Stale::NoStatus(country("IN"))));
}
