//! Crossings that run while law, standing, offers or time change: both sides end them, and say so.

use alliance_protocol::{
    core::{
        BulkEvent, BulkFailure, BulkOrder, Core, Input, MeshEvent, RequestId,
        admin::{AdminCall, CrossingState, OfferDraft},
    },
    crossing::RefusalCode,
    id::CrossingId,
    ledger::Record,
    limits,
    time::Timestamp,
    vocabulary::Label,
};

use crate::{
    alliance::{DAWN, DAY, HOUR, STATUS_MS, contract_of, country},
    cluster::{Cluster, OPEN},
    routes::Parcel,
};

/// A crossing whose bytes are on their way; `Received` is in the test's hand.
fn under_way() -> (Cluster, CrossingId, Parcel) {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let received = cluster.run_to("received");
    cluster.run();
    assert_eq!(cluster.state(0, crossing), CrossingState::Cleared);
    assert_eq!(cluster.state(1, crossing), CrossingState::Cleared);
    (cluster, crossing, received)
}

#[track_caller]
fn assert_ended(cluster: &mut Cluster, crossing: CrossingId, received: Parcel, reason: &str) {
    for at in [0, 1] {
        let view = cluster.view(at, crossing);
        assert_eq!(view.state, CrossingState::Failed, "side {at}");
        assert_eq!(cluster.status(at).crossings_running, 0);
    }
    let problem = |cluster: &mut Cluster, at| cluster.view(at, crossing).problem.unwrap_or_default();
    let problems = [problem(cluster, 0), problem(cluster, 1)];
    assert!(problems.iter().any(|problem| problem.contains(reason)), "{problems:?}");
    // What arrives after the end is not delivered.
    let input = cluster.input(received);
    let effects = cluster.tell(1, input);
    assert!(effects.bulk.is_empty() && effects.persist.is_empty());
}

#[test]
fn a_law_of_a_new_epoch_ends_what_it_does_not_allow() {
    for (member, law) in [("BR", "deny export to:IN"), ("IN", "deny import label:public")] {
        let (mut cluster, crossing, received) = under_way();
        cluster.enact(country(member), law);
        assert_ended(&mut cluster, crossing, received, &format!("denied by the rules of {member}"));
    }
}

#[test]
fn a_law_of_a_new_epoch_lets_go_on_what_it_allows() {
    let (mut cluster, crossing, received) = under_way();
    for member in ["BR", "IN", "CN"] {
        cluster.enact(country(member), "deny export label:state_secret");
    }
    cluster.deliver(received);
    cluster.run();
    assert_eq!(cluster.state(0, crossing), CrossingState::Done);
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
}

#[test]
fn each_side_orders_its_own_transfer_to_stop() {
    // Told apart: what each side does when it alone hears of the new law.
    for (at, member) in [(0, "IN"), (1, "BR")] {
        let (mut cluster, crossing, _) = under_way();
        let pack = cluster.alliance.law(country(member), 2, "deny export all\ndeny import all");
        let mut status = cluster.next_status(country(member));
        (status.law_pack, status.epoch) = (pack.id(), 2);
        let status = cluster.alliance.status(&status);
        let from = cluster.nodes[2].public();
        let mut orders = Vec::new();
        for bytes in [pack.bytes(), status.bytes()] {
            let message = alliance_protocol::core::MessageId(u64::MAX);
            let effects = cluster.tell_mesh(at, MeshEvent::Gossiped { message, from, bytes: bytes.to_vec() });
            orders.extend(effects.bulk);
        }
        match (&orders[..], at) {
            ([BulkOrder::AbortServe { code: RefusalCode::Ended, .. }], 0) => {}
            ([BulkOrder::AbortPull { code: RefusalCode::Ended, crossing: of }], 1) => assert_eq!(*of, crossing),
            other => panic!("{other:?}"),
        }
        if let [BulkOrder::AbortServe { ask, .. }] = orders[..] {
            // The exporter records it once it knows how much had left by then.
            let failure = BulkFailure::EndedHere(RefusalCode::Ended);
            cluster.tell_bulk(at, BulkEvent::ServeFailed { ask, bytes: 300, failure });
            assert_eq!(cluster.view(at, crossing).bytes, 300);
        }
        assert!(matches!(cluster.nodes[at].last(), Record::CrossingFailed { .. }), "and recorded");
    }
}

#[test]
fn a_revoked_end_ends_the_crossing() {
    for (at, member) in [(0, "BR"), (1, "IN")] {
        let (mut cluster, crossing, received) = under_way();
        cluster.revoke(country(member), cluster.nodes[at].public());
        assert_ended(&mut cluster, crossing, received, &format!("{member} has revoked"));
    }
}

#[test]
fn an_offer_that_is_withdrawn_ends_its_crossings() {
    let (mut cluster, crossing, received) = under_way();
    let offer = cluster.view(0, crossing).offer;
    let call = AdminCall::Withdraw { offer, reason: "a mistake".into() };
    let effects = cluster.tell(0, Input::Admin(RequestId(0), call));
    assert!(matches!(effects.bulk[..], [BulkOrder::AbortServe { .. }]), "the exporter stops by itself: {:?}", effects.bulk);
    cluster.route(0, effects);
    cluster.run();
    assert_ended(&mut cluster, crossing, received, "withdrawn");
}

#[test]
fn a_receipt_that_comes_after_the_end_settles_nothing() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let offered = cluster.run_to("receipt offered");
    let call = AdminCall::Withdraw { offer, reason: "a mistake".into() };
    let effects = cluster.tell(0, Input::Admin(RequestId(0), call));
    assert!(matches!(effects.bulk[..], [BulkOrder::AbortServe { .. }]), "{:?}", effects.bulk);
    // The two have crossed on the way.
    cluster.deliver(offered);
    cluster.run();
    let view = cluster.view(0, crossing);
    assert_eq!(view.state, CrossingState::Failed, "{view:?}");
    assert!(view.problem.as_deref().is_some_and(|problem| problem.contains("withdrawn")), "{view:?}");
    assert!(view.bytes > 0, "what left is recorded");
}

#[test]
fn an_importer_that_alone_hears_of_a_withdrawal_stops() {
    let (mut cluster, crossing, _) = under_way();
    let offer = cluster.view(0, crossing).offer;
    let withdrawal = alliance_protocol::offer::Withdrawal {
        node: cluster.nodes[0].public(),
        offer,
        at: cluster.now,
        reason: String::new(),
    };
    let bytes = cluster.alliance.signed(&cluster.nodes[0].key(), &withdrawal).bytes().to_vec();
    let from = cluster.nodes[2].public();
    let message = alliance_protocol::core::MessageId(u64::MAX);
    let effects = cluster.tell_mesh(1, MeshEvent::Gossiped { message, from, bytes });
    assert!(matches!(effects.bulk[..], [BulkOrder::AbortPull { .. }]), "{:?}", effects.bulk);
}

#[test]
fn an_offer_that_ends_ends_its_crossings() {
    let mut cluster = Cluster::pair();
    let draft = OfferDraft { name: "usp/model".into(), compute: None, terms: OPEN, ttl_ms: HOUR };
    let model = cluster.model(0, &[Label::Public]);
    cluster.call(0, AdminCall::Import(Box::new(model)));
    cluster.call(0, AdminCall::Publish(draft));
    cluster.run();
    let mut call = cluster.pull_call(crate::alliance::some_id(0));
    call.offer = "usp/model".into();
    let crossing = cluster.pull_with(1, call);
    let received = cluster.run_to("received");
    cluster.advance_to(DAWN.plus_ms(HOUR - 1));
    assert_eq!(cluster.state(0, crossing), CrossingState::Cleared);
    cluster.advance_to(DAWN.plus_ms(HOUR));
    assert_ended(&mut cluster, crossing, received, "offer");
}

#[test]
fn a_status_that_runs_out_ends_what_involves_its_member_at_that_instant() {
    let (mut cluster, crossing, received) = under_way();
    cluster.advance_to(DAWN.plus_ms(STATUS_MS - HOUR));
    for member in ["BR", "CN", "ZA"] {
        cluster.renew(country(member));
    }
    cluster.advance_to(DAWN.plus_ms(STATUS_MS - 1));
    assert_eq!(cluster.state(1, crossing), CrossingState::Cleared, "until its last millisecond");
    let wakes: Vec<Timestamp> = cluster.nodes.iter().filter_map(|node| node.core.as_ref().map(Core::next_wake)).collect();
    assert!(wakes.iter().all(|wake| *wake <= DAWN.plus_ms(STATUS_MS)), "each asked to be woken in time: {wakes:?}");
    cluster.advance_to(DAWN.plus_ms(STATUS_MS));
    assert_ended(&mut cluster, crossing, received, "status of IN");
}

#[test]
fn a_status_that_is_renewed_in_time_ends_nothing() {
    let (mut cluster, crossing, received) = under_way();
    cluster.let_pass(STATUS_MS - HOUR);
    for member in crate::alliance::MEMBERS {
        cluster.renew(country(member));
    }
    cluster.let_pass(2 * HOUR);
    cluster.tick();
    cluster.deliver(received);
    cluster.run();
    assert_eq!(cluster.state(0, crossing), CrossingState::Done);
}

#[test]
fn a_safeguard_that_runs_out_ends_the_crossing_at_the_next_round() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "require export label:personal scc_br");
    let offer = cluster.offer(0, &[Label::Personal]);
    let mut contract = contract_of(country("BR"), country("BR"), country("IN"));
    contract.validity.until = DAWN.plus_ms(HOUR);
    let mut call = cluster.pull_call(offer);
    call.safeguards = vec![cluster.alliance.spoken(country("BR"), &contract).bytes().to_vec().into()];
    let crossing = cluster.pull_with(1, call);
    let received = cluster.run_to("received");
    cluster.let_pass(HOUR - 1);
    cluster.tick();
    assert_eq!(cluster.state(0, crossing), CrossingState::Cleared);
    cluster.let_pass(10_001);
    cluster.tick();
    assert_ended(&mut cluster, crossing, received, "rules of BR");
}

fn renewed_to(cluster: &mut Cluster, until: Timestamp) {
    while cluster.now < until {
        let rest = until.0 - cluster.now.0;
        cluster.let_pass(rest.min(STATUS_MS / 2));
        cluster.tick();
        for member in crate::alliance::MEMBERS {
            cluster.renew(country(member));
        }
    }
}

#[test]
fn a_crossing_that_takes_too_long_is_ended() {
    let (mut cluster, crossing, received) = under_way();
    renewed_to(&mut cluster, DAWN.plus_ms(limits::CROSSING_MS_MAX - 1));
    assert_eq!(cluster.state(0, crossing), CrossingState::Cleared);
    cluster.let_pass(1);
    cluster.tick();
    assert_ended(&mut cluster, crossing, received, "longer than a crossing may");
}

#[test]
fn a_receipt_that_never_comes_back_does_not_keep_the_node_awake() {
    let (mut cluster, crossing, received) = under_way();
    cluster.deliver(received);
    cluster.run_to("receipt offered");
    cluster.run();
    cluster.silence_streams();
    assert_eq!(cluster.state(1, crossing), CrossingState::Delivered);
    // Nothing can be taken back, whatever the law says now.
    cluster.enact(country("IN"), "deny import all");
    assert_eq!(cluster.state(1, crossing), CrossingState::Delivered);
    renewed_to(&mut cluster, DAWN.plus_ms(DAY + HOUR));
    assert_eq!(cluster.state(1, crossing), CrossingState::DoneUnsettled);
    let wake = cluster.nodes[1].core.as_ref().map(Core::next_wake);
    cluster.tell(1, Input::Tick);
    assert!(wake > Some(cluster.now.plus_ms(1)), "it sleeps until the next round");
}

#[test]
fn what_ends_before_the_next_round_is_looked_at_when_it_ends() {
    let soon = |cluster: &Cluster| cluster.nodes.iter().filter_map(|node| node.core.as_ref()).map(Core::next_wake).max();
    let mut cluster = Cluster::pair();
    cluster.tick();
    let status = alliance_protocol::authority::Status {
        validity: alliance_protocol::time::Validity::lasting_ms(DAWN, 3_000),
        ..cluster.next_status(country("CN"))
    };
    let status = cluster.alliance.status(&status);
    cluster.adopt(0, &[status.bytes()]);
    cluster.run();
    assert_eq!(soon(&cluster), Some(DAWN.plus_ms(3_000)), "a status, wherever it was heard");

    let mut cluster = Cluster::pair();
    cluster.tick();
    let model = cluster.model(0, &[Label::Public]);
    let draft = OfferDraft { name: model.name.clone(), compute: None, terms: OPEN, ttl_ms: 4_000 };
    cluster.call(0, AdminCall::Import(Box::new(model)));
    cluster.call(0, AdminCall::Publish(draft));
    cluster.run();
    assert_eq!(soon(&cluster), Some(DAWN.plus_ms(4_000)), "an offer, here and elsewhere");
    cluster.advance_to(DAWN.plus_ms(4_000));
    assert_eq!((cluster.status(0).offers, cluster.status(1).offers), (0, 0));
}
