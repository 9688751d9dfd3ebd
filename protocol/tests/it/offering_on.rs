//! What a node got is offered on by it: who may, what is served while it still arrives (CROSSING-46), and when such an offer is
//! taken back.

use alliance_protocol::{
    core::{
        BulkEvent, BulkFailure, BulkOrder, Input, RequestId,
        admin::{AdminCall, CrossingState, FailureKind, LocalModel, OfferDraft, Reply},
    },
    crossing::RefusalCode,
    id::{CrossingId, ManifestId, StatementId},
    ledger::Record,
    offer::Terms,
    vocabulary::{Label, NodeRole, Purpose},
};

use crate::{
    alliance::{DAY, HOUR, MEMBERS, SECOND, STATUS_MS, accreditation_of, country},
    cluster::{Cluster, ONWARD, OPEN},
    detours::{BETWEEN, FIRST, IMPORTER, NODES, assert_crosses, offered_on, published},
    exporter_refuses::Answer,
    routes::{Parcel, Said},
};

#[test]
fn terms_that_the_operator_gives_are_those_that_stand() {
    let (mut cluster, root, automatic) = offered_on();
    assert_eq!(published(&mut cluster, ONWARD), automatic, "the same again is the same");
    let narrow = Terms { purposes: [Purpose::Commercial].into(), ..ONWARD };
    let narrow_id = published(&mut cluster, narrow.clone());
    let views = cluster.offers(BETWEEN);
    let view = views.iter().find(|view| view.offer == narrow_id).expect("it stands");
    assert_eq!((view.root, &view.terms), (Some(root), &narrow));
}

#[test]
fn a_node_that_may_not_offer_on_is_told_so() {
    // The first exporter does not want it.
    let mut cluster = Cluster::new(&NODES);
    let root = cluster.offer_of(FIRST, cluster.model(FIRST, &[Label::Public]), OPEN);
    assert_may_not(&mut cluster, root, "the terms of `usp/model` do not admit that it is offered on");

    // The authority does not.
    let mut cluster = Cluster::new(&NODES);
    let mut body = accreditation_of(country("CN"), cluster.nodes[BETWEEN].public(), "thu");
    body.roles = [NodeRole::Importer].into();
    cluster.nodes[BETWEEN].accreditation = cluster.alliance.spoken(country("CN"), &body).bytes().to_vec();
    cluster.crash(BETWEEN);
    cluster.restart(BETWEEN);
    let root = cluster.offer_of(FIRST, cluster.model(FIRST, &[Label::Public]), ONWARD);
    assert_may_not(&mut cluster, root, "this node is not accredited as an exporter");
}

#[track_caller]
fn assert_may_not(cluster: &mut Cluster, root: StatementId, reason: &str) {
    let mut call = cluster.pull_call(root);
    call.onward = true;
    let refused = |reply: Reply, kind| match reply {
        Reply::Failed(failure) => assert!(failure.kind == kind && failure.message.contains(reason), "{failure:?}"),
        other => panic!("{other:?}"),
    };
    refused(cluster.call(BETWEEN, AdminCall::Pull(call)), FailureKind::Usage);
    assert_eq!(cluster.status(BETWEEN).crossings_running, 0, "nothing is begun");
    let crossing = cluster.pull(BETWEEN, root);
    cluster.run();
    assert_eq!(cluster.state(BETWEEN, crossing), CrossingState::Done, "to have it is another thing");
    let draft = OfferDraft { name: "usp/model".into(), compute: None, terms: OPEN, ttl_ms: DAY };
    refused(cluster.call(BETWEEN, AdminCall::Publish(draft)), FailureKind::Conflict);
    let published = |record: &Record| matches!(record, Record::OfferPublished { .. });
    assert_eq!(cluster.nodes[BETWEEN].count(published), 0);
}

/// A pull that offers on what comes, whose bytes are on their way: the offer, and `Received` in the test's hand.
fn arriving() -> (Cluster, StatementId, CrossingId, Parcel) {
    let mut cluster = Cluster::new(&NODES);
    let root = cluster.offer_of(FIRST, cluster.model(FIRST, &[Label::Public]), ONWARD);
    let crossing = cluster.pull_onward(BETWEEN, root);
    let answered = cluster.run_to("answered");
    assert_eq!(cluster.onward_of(BETWEEN, root), None, "nothing was cleared yet");
    cluster.deliver(answered);
    let onward = cluster.onward_of(BETWEEN, root).expect("from the first clearance on");
    let received = cluster.run_to("received");
    cluster.run();
    assert!(cluster.knows(IMPORTER, onward));
    (cluster, onward, crossing, received)
}

/// Asks the node between for what it offers on; gives whether it serves it from what is still arriving, and from where.
#[track_caller]
fn served(cluster: &mut Cluster, onward: StatementId) -> (bool, String) {
    cluster.pull(IMPORTER, onward);
    let parcel = cluster.run_to("asked");
    let input = cluster.input(parcel);
    let effects = cluster.tell(BETWEEN, input);
    let [BulkOrder::Serve { arriving, path, .. }] = &effects.bulk[..] else { panic!("not served: {:?}", effects.bulk) };
    (*arriving, path.display().to_string())
}

#[test]
fn what_was_not_cleared_yet_is_not_taken_for_what_arrives() {
    let (mut cluster, onward, crossing, _received) = arriving();
    let to = cluster.view(BETWEEN, crossing).to.expect("known").display().to_string();
    let root = cluster.view(BETWEEN, crossing).offer;
    // The same once more, and again, each on its way to somebody who does not answer.
    for _ in 0..7 {
        cluster.pull(BETWEEN, root);
        cluster.wires.queue.clear();
        assert_eq!(served(&mut cluster, onward), (true, to.clone()));
    }
    cluster.call(BETWEEN, AdminCall::Cancel(crossing));
    assert_eq!(cluster.onward_of(BETWEEN, root), None, "nothing of it comes here any more");
}

#[test]
fn what_arrives_is_served_as_it_comes_and_afterwards_from_its_place() {
    let (mut cluster, onward, crossing, received) = arriving();
    let to = cluster.view(BETWEEN, crossing).to.expect("known").display().to_string();
    assert_eq!(served(&mut cluster, onward), (true, to.clone()));
    cluster.deliver(received);
    let delivered = cluster.run_to("delivered");
    assert_eq!(served(&mut cluster, onward), (true, to.clone()), "until it is in its place");
    cluster.deliver(delivered);
    assert_eq!(served(&mut cluster, onward), (false, to.clone()));
    cluster.run();
    assert_eq!(served(&mut cluster, onward), (false, to));
}

#[test]
fn what_lies_here_is_served_from_its_place_while_the_same_is_pulled_to_another() {
    let (mut cluster, root, onward) = offered_on();
    let Reply::Models(models) = cluster.call(BETWEEN, AdminCall::Models) else { panic!("no models") };
    cluster.pull(BETWEEN, root);
    let _received = cluster.run_to("received");
    assert_eq!(served(&mut cluster, onward), (false, models[0].path.display().to_string()));
}

#[test]
fn a_crossing_of_what_still_arrives_is_a_crossing_like_any_other() {
    let (mut cluster, onward, crossing, received) = arriving();
    let second = cluster.pull(IMPORTER, onward);
    let theirs = cluster.run_to("received");
    for parcel in [received, theirs] {
        cluster.deliver(parcel);
        cluster.run();
    }
    assert_eq!(cluster.state(BETWEEN, crossing), CrossingState::Done);
    assert_eq!(cluster.state(BETWEEN, second), CrossingState::Done);
    assert_eq!(cluster.state(IMPORTER, second), CrossingState::Done);
}

#[test]
fn what_does_not_come_is_not_offered_on() {
    type Ending = fn(&mut Cluster, CrossingId);
    let endings: [(&str, Ending); 3] = [
        ("failed", |cluster, crossing| {
            let failure = BulkFailure::Lost("reset".into());
            cluster.deliver(Parcel { to: BETWEEN, said: Said::PullFailed { crossing, failure } });
        }),
        ("cancelled", |cluster, crossing| drop(cluster.call(BETWEEN, AdminCall::Cancel(crossing)))),
        ("forbidden", |cluster, _| cluster.enact(country("CN"), "deny import all")),
    ];
    for (what, end) in endings {
        let (mut cluster, onward, crossing, _) = arriving();
        end(&mut cluster, crossing);
        cluster.run();
        assert!(!cluster.knows(BETWEEN, onward) && !cluster.knows(IMPORTER, onward), "{what}: everybody hears of it");
        assert_eq!(cluster.nodes[BETWEEN].count(|record| matches!(record, Record::OfferWithdrawn { .. })), 1, "{what}");
        let lie = cluster.by_hand(onward, 1);
        assert!(matches!(cluster.put(&lie).1, Answer::Refused(RefusalCode::NoOffer, _)), "{what}");
    }
}

#[test]
fn a_refusal_of_the_last_source_takes_the_offer_back_at_once() {
    let mut cluster = Cluster::new(&NODES);
    let root = cluster.offer_of(FIRST, cluster.model(FIRST, &[Label::Public]), ONWARD);
    let theirs = cluster.gets(3, root);
    let mut call = cluster.pull_call(root);
    (call.onward, call.sources) = (true, 2);
    let crossing = cluster.pull_with(BETWEEN, call);
    let [first, second] = [cluster.run_to("reached"), cluster.run_to("reached")];
    cluster.deliver(first);
    let _never_comes = cluster.run_to("received");
    let onward = cluster.onward_of(BETWEEN, root).expect("it is offered on");
    // The other takes its offer back, and this node has not heard of it.
    let effects = cluster.tell(3, Input::Admin(RequestId(0), AdminCall::Withdraw { offer: theirs, reason: String::new() }));
    assert!(effects.bulk.is_empty());
    cluster
        .deliver(Parcel { to: BETWEEN, said: Said::PullFailed { crossing, failure: BulkFailure::Lost("reset".into()) } });
    assert!(cluster.knows(BETWEEN, onward), "the other may bring it");
    cluster.deliver(second);
    cluster.run();
    let states: Vec<_> = cluster.sources(BETWEEN, crossing).iter().map(|view| view.state).collect();
    assert_eq!(states, [CrossingState::Failed, CrossingState::Denied]);
    assert_eq!([BETWEEN, IMPORTER].map(|at| cluster.knows(at, onward)), [false, false]);
}

#[test]
fn what_is_deleted_is_not_offered_on_also_after_a_restart() {
    for restarts in [false, true] {
        let mut cluster = Cluster::new(&NODES);
        cluster.enact(country("BR"), "duty export delete_within(24h)");
        let root = cluster.offer_of(FIRST, cluster.model(FIRST, &[Label::Public]), ONWARD);
        let onward = cluster.gets(BETWEEN, root);
        renewed_for(&mut cluster, 25 * HOUR);
        if restarts {
            cluster.crash(BETWEEN);
            cluster.restart(BETWEEN);
        }
        assert!(!cluster.knows(BETWEEN, onward) && !cluster.knows(IMPORTER, onward));
        assert_eq!(cluster.status(BETWEEN).models, 0);
    }
}

#[test]
fn what_one_of_two_sources_made_to_be_deleted_is_not_offered_on_whichever_was_last() {
    // Only what comes from China has to be deleted.
    for china_is_last in [false, true] {
        let mut cluster = Cluster::new(&[("ZA", "uct"), ("IN", "iitb"), ("BR", "usp"), ("CN", "iss")]);
        let root = cluster.offer_of(FIRST, cluster.model(FIRST, &[Label::Public]), ONWARD);
        cluster.gets(3, root);
        cluster.enact(country("CN"), "duty export delete_within(24h)");
        let mut call = cluster.pull_call(root);
        (call.onward, call.sources) = (true, 2);
        let crossing = cluster.pull_with(BETWEEN, call);
        let parcels = [cluster.run_to("received"), cluster.run_to("received")];
        let ordered =
            if china_is_last { parcels } else { parcels.into_iter().rev().collect::<Vec<_>>().try_into().expect("two") };
        for parcel in ordered {
            cluster.deliver(parcel);
            cluster.run();
        }
        cluster.assert_well(BETWEEN, crossing);
        let onward = cluster.onward_of(BETWEEN, root).expect("it is offered on");
        renewed_for(&mut cluster, 25 * HOUR);
        for restarts in [false, true] {
            if restarts {
                cluster.crash(BETWEEN);
                cluster.restart(BETWEEN);
            }
            assert_eq!(cluster.status(BETWEEN).models, 0, "china is last: {china_is_last}, after a restart: {restarts}");
            assert!(!cluster.knows(BETWEEN, onward));
        }
    }
}

/// Time passes, and authorities say so.
fn renewed_for(cluster: &mut Cluster, ms: u64) {
    let until = cluster.now.plus_ms(ms);
    while cluster.now < until {
        cluster.let_pass((until.0 - cluster.now.0).min(STATUS_MS / 2));
        cluster.tick();
        MEMBERS.iter().for_each(|member| cluster.renew(country(member)));
    }
}

#[test]
fn a_node_that_stops_in_the_middle_does_not_offer_on_what_it_does_not_have() {
    let (mut cluster, onward, crossing, _) = arriving();
    cluster.crash(BETWEEN);
    cluster.run();
    cluster.restart(BETWEEN);
    assert_eq!(cluster.state(BETWEEN, crossing), CrossingState::Failed);
    cluster.let_pass(SECOND);
    cluster.tick();
    assert!(!cluster.knows(BETWEEN, onward) && !cluster.knows(IMPORTER, onward), "everybody hears of it");
    // One that it has is offered as before.
    let (mut cluster, _, onward) = offered_on();
    cluster.crash(BETWEEN);
    cluster.run();
    cluster.restart(BETWEEN);
    cluster.let_pass(SECOND);
    cluster.tick();
    assert!(cluster.knows(BETWEEN, onward) && cluster.knows(IMPORTER, onward));
    assert_crosses(&mut cluster, IMPORTER, onward);
}

#[test]
fn a_newer_version_under_the_same_name_takes_the_place_of_what_was_offered_on() {
    let (mut cluster, _, onward) = offered_on();
    let newer = LocalModel { manifest: ManifestId([8; 32]), ..cluster.model(FIRST, &[Label::Public]) };
    let newer = cluster.offer_of(FIRST, newer, ONWARD);
    cluster.gets(BETWEEN, newer);
    cluster.let_pass(20 * SECOND);
    cluster.tick();
    assert!(!cluster.knows(BETWEEN, onward) && !cluster.knows(IMPORTER, onward));
    assert!(cluster.onward_of(BETWEEN, newer).is_some());
}

#[test]
fn a_serving_of_what_is_arriving_that_the_bulk_plane_ends_is_recorded() {
    let (mut cluster, onward, _, _) = arriving();
    let crossing = cluster.pull(IMPORTER, onward);
    let parcel = cluster.run_to("asked");
    let input = cluster.input(parcel);
    let effects = cluster.tell(BETWEEN, input);
    let [BulkOrder::Serve { ask, .. }] = effects.bulk[..] else { panic!("{:?}", effects.bulk) };
    let failure = BulkFailure::EndedHere(RefusalCode::Ended);
    let effects = cluster.tell(BETWEEN, Input::Bulk(BulkEvent::ServeFailed { ask, bytes: 300, failure }));
    assert!(matches!(effects.persist[..], [Record::CrossingFailed { bytes: 300, tampered: false, .. }]));
    assert_eq!(cluster.state(BETWEEN, crossing), CrossingState::Failed);
    let effects = cluster.tell(BETWEEN, Input::Admin(RequestId(0), AdminCall::Cancel(crossing)));
    assert!(matches!(&effects.replies[..], [(_, Reply::Failed(_))]), "it is over");
}
