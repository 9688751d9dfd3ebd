//! A crossing from offer to receipt, and the ways in which it ends early without anybody lying.

use alliance_protocol::{
    core::{
        BulkFailure,
        admin::{AdminCall, CrossingState, FailureKind, Reply, Side},
    },
    crossing::RefusalCode,
    ledger::Record,
    vocabulary::{Label, Purpose},
};

use crate::{
    alliance::{contract_of, country},
    cluster::{Cluster, MODEL_BYTES},
    routes::Said,
};

#[test]
fn an_offer_is_pulled_and_both_sides_record_the_receipt() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    for (at, side) in [(0, Side::Exporter), (1, Side::Importer)] {
        let view = cluster.view(at, crossing);
        assert_eq!((view.state, view.side, view.bytes), (CrossingState::Done, side, MODEL_BYTES));
        assert_eq!(view.verdicts.len(), 4, "the baseline twice and both laws");
    }
    let receipts: Vec<_> = cluster.nodes.iter().map(|node| node.last().clone()).collect();
    assert!(matches!(&receipts[0], Record::Settled { .. }));
    assert_eq!(receipts[0], receipts[1], "the same receipt, byte for byte");
    assert_eq!((cluster.status(0).crossings_running, cluster.status(1).crossings_running), (0, 0));
}

#[test]
fn a_safeguard_that_counts_lets_personal_data_cross() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "require export label:personal scc_br");
    let offer = cluster.offer(0, &[Label::Personal, Label::Public]);
    let bare = cluster.pull(1, offer);
    assert_eq!(cluster.state(1, bare), CrossingState::Denied);
    assert!(matches!(cluster.nodes[1].last(), Record::RequestDenied { .. }), "nobody was asked");

    let contract = contract_of(country("BR"), country("BR"), country("IN"));
    let contract = cluster.alliance.spoken(country("BR"), &contract);
    let mut call = cluster.pull_call(offer);
    call.safeguards = vec![contract.bytes().to_vec().into()];
    let crossing = cluster.pull_with(1, call);
    cluster.run();
    assert_eq!(cluster.state(0, crossing), CrossingState::Done);
}

#[test]
fn a_pull_that_makes_no_sense_is_not_begun() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let good = cluster.pull_call(offer);
    let reply = |cluster: &mut Cluster, at, call| match cluster.call(at, AdminCall::Pull(call)) {
        Reply::Failed(failure) => failure.kind,
        other => panic!("{other:?}"),
    };
    let mut many = good.clone();
    many.safeguards = vec![serde_bytes::ByteBuf::new(); 17];
    assert_eq!(reply(&mut cluster, 1, many), FailureKind::Usage);
    assert_eq!(reply(&mut cluster, 0, good.clone()), FailureKind::Usage, "its own offer");
    let mut unknown = good.clone();
    unknown.offer = "usp/nothing".into();
    assert_eq!(reply(&mut cluster, 1, unknown), FailureKind::NotFound);
    let mut relative = good.clone();
    relative.to = "models/here".into();
    assert_eq!(reply(&mut cluster, 1, relative), FailureKind::Usage);
    let running = cluster.pull_with(1, good.clone());
    assert_eq!(reply(&mut cluster, 1, good), FailureKind::Conflict, "the same directory");
    cluster.run();
    assert_eq!(cluster.state(1, running), CrossingState::Done);
}

#[test]
fn an_offer_is_found_by_name() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let mut call = cluster.pull_call(offer);
    call.offer = "usp/model".into();
    let crossing = cluster.pull_with(1, call);
    cluster.run();
    assert_eq!(cluster.view(1, crossing).offer, offer);
}

#[test]
fn an_exporter_that_cannot_be_reached_fails_the_pull() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let records = cluster.nodes[1].entries.len();
    cluster.crash(0);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    let view = cluster.view(1, crossing);
    assert_eq!(view.state, CrossingState::Failed);
    assert!(view.problem.is_some_and(|problem| problem.contains("cannot be reached")));
    assert_eq!(cluster.nodes[1].entries.len(), records, "nothing was asked, so nothing is recorded");
}

#[test]
fn tampered_bytes_are_recorded_as_such() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let mut parcel = cluster.run_to("received");
    parcel.said = Said::PullFailed { crossing, failure: BulkFailure::Tampered("group 3".into()) };
    cluster.deliver(parcel);
    assert!(matches!(cluster.nodes[1].last(), Record::CrossingFailed { tampered: true, side: Side::Importer, .. }));
    assert_eq!(cluster.view(1, crossing).refusal, Some(RefusalCode::Damaged));
}

#[test]
fn a_delivery_without_the_exporters_signature_is_done_unsettled() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let mut parcel = cluster.run_to("settled");
    parcel.said = Said::PullFailed { crossing, failure: BulkFailure::Lost("reset".into()) };
    cluster.deliver(parcel);
    assert_eq!(cluster.state(1, crossing), CrossingState::DoneUnsettled);
}

#[test]
fn the_bulk_plane_may_repeat_itself() {
    // Each report is taken once, in its place; a repeated or late one changes nothing. The invariants watch.
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    for name in ["reached", "answered", "received", "delivered", "receipt offered", "settled"] {
        let parcel = cluster.run_to(name);
        cluster.deliver(parcel.clone());
        let records = cluster.nodes[parcel.to].entries.len();
        let input = cluster.input(parcel.clone());
        let effects = cluster.tell(parcel.to, input);
        assert_eq!((effects.bulk.len(), effects.persist.len()), (0, 0), "{name} again: {:?}", effects.bulk);
        assert_eq!(cluster.nodes[parcel.to].entries.len(), records);
    }
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
}

#[test]
fn a_pull_for_a_purpose_that_the_importers_law_denies_is_recorded_and_asks_nobody() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("IN"), "deny import purpose:military");
    let offer = cluster.offer(0, &[Label::Public]);
    let mut call = cluster.pull_call(offer);
    call.purpose = Purpose::Military;
    let crossing = cluster.pull_with(1, call);
    assert!(cluster.wires.queue.is_empty(), "nobody is asked");
    let view = cluster.view(1, crossing);
    assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(RefusalCode::DeniedByLaw)));
}

#[test]
fn a_name_that_two_nodes_offer_is_not_guessed() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "usp"), ("CN", "iss")]);
    let offers = [cluster.offer(0, &[Label::Public]), cluster.offer(1, &[Label::Public])];
    let mut call = cluster.pull_call(offers[0]);
    call.offer = "usp/model".into();
    match cluster.call(2, AdminCall::Pull(call.clone())) {
        Reply::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Conflict);
            for offer in offers {
                assert!(failure.message.contains(&offer.to_string()), "{}", failure.message);
            }
        }
        other => panic!("{other:?}"),
    }
    call.offer = offers[1].to_string();
    let crossing = cluster.pull_with(2, call);
    cluster.run();
    assert_eq!(cluster.state(2, crossing), CrossingState::Done);
}
