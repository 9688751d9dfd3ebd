//! One artefact from several peers: which of them are asked, each by a crossing of its own, and how a pull ends that some of
//! them fail (CROSSING-47).

use alliance_protocol::{
    core::{
        BulkFailure, BulkOrder, Input, RequestId,
        admin::{AdminCall, CrossingState, CrossingView, FailureKind, OfferView, Reply},
    },
    crossing::{Receipt, RefusalCode},
    envelope::Signed,
    id::{CrossingId, StatementId},
    ledger::Record,
    limits,
    vocabulary::Label,
};

use crate::{
    alliance::{SECOND, country},
    cluster::{Cluster, MODEL_BYTES, ONWARD},
    routes::{Parcel, Said},
};

/// The first exporter is in Brazil; the others are there to get from it, and to give to each other.
pub(crate) const FIRST: usize = 0;

impl Cluster {
    /// So many nodes beside the first exporter, in other countries, and its offer, which may be offered on.
    pub(crate) fn with_takers(takers: usize) -> (Self, StatementId) {
        let members = ["IN", "CN", "ZA"];
        let organisations: Vec<String> = (1..=takers).map(|at| format!("taker-{at}")).collect();
        let takers = organisations.iter().zip(members.iter().cycle()).map(|(name, member)| (*member, name.as_str()));
        let nodes: Vec<(&str, &str)> = std::iter::once(("BR", "usp")).chain(takers).collect();
        let mut cluster = Self::new(&nodes);
        let root = cluster.offer_of(FIRST, cluster.model(FIRST, &[Label::Public]), ONWARD);
        (cluster, root)
    }

    /// Begins a pull from up to so many peers.
    pub(crate) fn pull_from(&mut self, at: usize, offer: StatementId, sources: u32) -> CrossingId {
        let mut call = self.pull_call(offer);
        call.sources = sources;
        self.pull_with(at, call)
    }

    /// Begins a pull that offers on what comes.
    pub(crate) fn pull_onward(&mut self, at: usize, offer: StatementId) -> CrossingId {
        let mut call = self.pull_call(offer);
        call.onward = true;
        self.pull_with(at, call)
    }

    /// A node gets the artefact and offers it on; everybody hears of it.
    pub(crate) fn gets(&mut self, at: usize, root: StatementId) -> StatementId {
        let crossing = self.pull_onward(at, root);
        self.run();
        assert_eq!(self.state(at, crossing), CrossingState::Done);
        self.onward_of(at, root).expect("it offers it on")
    }

    pub(crate) fn offers(&mut self, at: usize) -> Vec<OfferView> {
        match self.call(at, AdminCall::Offers) {
            Reply::Offers(offers) => offers,
            other => panic!("{other:?}"),
        }
    }

    /// The offer by which this node offers on, if one stands.
    pub(crate) fn onward_of(&mut self, at: usize, root: StatementId) -> Option<StatementId> {
        self.offers(at).into_iter().find(|view| view.own && view.root == Some(root)).map(|view| view.offer)
    }

    /// All crossings that serve one pull.
    pub(crate) fn sources(&mut self, at: usize, crossing: CrossingId) -> Vec<CrossingView> {
        match self.call(at, AdminCall::Sources(crossing)) {
            Reply::Crossings(sources) => sources,
            other => panic!("{other:?}"),
        }
    }

    /// The crossings of one pull that are not over.
    pub(crate) fn running_sources(&mut self, at: usize, crossing: CrossingId) -> Vec<CrossingView> {
        let sources = self.sources(at, crossing);
        sources.into_iter().filter(|view| !view.state.is_final()).collect()
    }

    fn receipt(&self, at: usize, crossing: CrossingId) -> Signed<Receipt> {
        let settled = self.nodes[at].entries.iter().find_map(|entry| match &entry.record {
            Record::Settled { crossing: of, receipt } if *of == crossing => Some(receipt),
            _ => None,
        });
        Signed::open(settled.expect("settled"), self.alliance.id).expect("a receipt")
    }

    /// The pull is over, and each of the crossings that did not fail is settled on both sides.
    pub(crate) fn assert_well(&mut self, at: usize, crossing: CrossingId) {
        let sources = self.sources(at, crossing);
        let done: Vec<_> = sources.iter().filter(|view| view.state == CrossingState::Done).collect();
        assert!(!done.is_empty() && sources.iter().all(|view| view.state.is_final()), "{sources:#?}");
        for view in done {
            let exporter = self.node_of(view.peer).expect("a node");
            assert_eq!(self.state(exporter, view.crossing), CrossingState::Done);
        }
        assert_eq!((self.status(at).models, self.status(at).crossings_running), (1, 0));
    }
}

/// Reports that a source failed, in the place of what its bulk plane was about to say.
fn fail(cluster: &mut Cluster, Parcel { to, said }: Parcel, failure: BulkFailure) {
    let crossing = crossing_of(&said);
    let exporter_hears = cluster.wires.queue.len();
    cluster.deliver(Parcel { to, said: Said::PullFailed { crossing, failure } });
    assert!(cluster.wires.queue.len() >= exporter_hears);
}

fn crossing_of(said: &Said) -> CrossingId {
    match said {
        Said::Reached { crossing, .. }
        | Said::Answered { crossing, .. }
        | Said::Received { crossing, .. }
        | Said::Delivered { crossing, .. } => *crossing,
        other => panic!("of no pull: {other:?}"),
    }
}

#[test]
fn what_one_node_offers_on_is_another_source_of_a_pull_that_begins_later() {
    let (mut cluster, root) = Cluster::with_takers(2);
    let onward = cluster.gets(1, root);
    let listed = cluster.offers(2).into_iter().find(|view| view.offer == onward).expect("listed");
    assert_eq!((listed.root, listed.node, listed.name.as_str()), (Some(root), cluster.nodes[1].public(), "usp/model"));
    assert!(!listed.preview.is_empty() && listed.preview.iter().all(|(_, allowed)| *allowed), "{:?}", listed.preview);

    // By its name it is the first exporter's; both are asked.
    let mut call = cluster.pull_call(root);
    (call.offer, call.sources) = ("usp/model".into(), 2);
    let crossing = cluster.pull_with(2, call);
    cluster.run();
    cluster.assert_well(2, crossing);
    let sources = cluster.sources(2, crossing);
    let found: Vec<_> = sources.iter().map(|view| (view.peer, view.offer, view.lead)).collect();
    let nodes = [cluster.nodes[FIRST].public(), cluster.nodes[1].public()];
    assert_eq!(found, [(nodes[0], root, None), (nodes[1], onward, Some(crossing))]);
    assert_eq!(cluster.sources(2, sources[1].crossing), sources, "whichever of them is named");
}

#[test]
fn each_source_has_a_request_a_clearance_and_a_receipt_of_its_own() {
    let (mut cluster, root) = Cluster::with_takers(2);
    cluster.gets(1, root);
    let crossing = cluster.pull_from(2, root, 2);
    // The first brings 700 bytes, the other the rest.
    for bytes in [700, 300] {
        let mut parcel = cluster.run_to("received");
        if let Said::Received { bytes: moved, held_bytes, .. } = &mut parcel.said {
            (*moved, *held_bytes) = (bytes, MODEL_BYTES - bytes);
        }
        cluster.wires.queue.push_back(parcel);
    }
    cluster.run();
    cluster.assert_well(2, crossing);
    let sources = cluster.sources(2, crossing);
    let mut moved = 0;
    for view in &sources {
        let about = |record: &Record| record.crossing() == Some(view.crossing);
        let kinds = |at: usize| -> Vec<&str> {
            let entries = cluster.nodes[at].entries.iter();
            entries.filter(|entry| about(&entry.record)).map(|entry| entry.record.kind()).collect()
        };
        let exporter = cluster.node_of(view.peer).expect("a node");
        assert_eq!(kinds(2), ["requested", "clearance_accepted", "received", "model_imported", "settled"]);
        assert_eq!(kinds(exporter), ["cleared", "settled"]);
        let receipt = cluster.receipt(2, view.crossing);
        assert_eq!(receipt.bytes(), cluster.receipt(exporter, view.crossing).bytes(), "both keep the same");
        let body = receipt.body();
        assert_eq!((body.crossing, body.exporter), (view.crossing, view.peer));
        assert_eq!(body.bytes + body.held_bytes, MODEL_BYTES);
        assert_eq!(view.bytes, body.bytes);
        moved += body.bytes;
    }
    assert_eq!((sources.len(), moved), (2, MODEL_BYTES), "every byte by one of them");
    let sessions: Vec<_> = sources.iter().map(|view| cluster.receipt(2, view.crossing).body().clearance).collect();
    assert_ne!(sessions[0], sessions[1]);
}

#[test]
fn what_is_offered_on_while_a_pull_runs_is_a_source_of_it_and_what_comes_after_is_not() {
    let (mut cluster, root) = Cluster::with_takers(3);
    let crossing = cluster.pull_from(2, root, 2);
    let received = cluster.run_to("received");
    assert_eq!(cluster.sources(2, crossing).len(), 1);
    cluster.gets(1, root);
    assert_eq!(cluster.sources(2, crossing).len(), 2, "as soon as it was heard of");
    cluster.deliver(received);
    cluster.run();
    cluster.assert_well(2, crossing);

    cluster.gets(3, root);
    cluster.let_pass(20 * SECOND);
    cluster.tick();
    assert_eq!(cluster.sources(2, crossing).len(), 2, "it is over");
}

#[test]
fn one_that_was_asked_for_by_its_own_offer_is_not_the_only_source() {
    let (mut cluster, root) = Cluster::with_takers(2);
    let onward = cluster.gets(1, root);
    for (sources, expected) in [(0, vec![1]), (1, vec![1]), (2, vec![1, FIRST])] {
        let crossing = cluster.pull_from(2, onward, sources);
        cluster.run();
        let asked: Vec<_> = cluster.sources(2, crossing).iter().map(|view| view.peer).collect();
        let expected: Vec<_> = expected.into_iter().map(|at: usize| cluster.nodes[at].public()).collect();
        assert_eq!(asked, expected, "{sources}");
        cluster.assert_well(2, crossing);
    }
}

#[test]
fn no_more_are_asked_than_the_operator_wants_and_no_more_than_a_bound() {
    let most = usize::try_from(limits::SOURCES_MAX).expect("few");
    let (mut cluster, root) = Cluster::with_takers(most + 2);
    let last = most + 2;
    for at in 1..last {
        cluster.gets(at, root);
    }
    for wanted in [0, 1, 2, limits::SOURCES_MAX, limits::SOURCES_MAX + 1, u32::MAX] {
        let crossing = cluster.pull_from(last, root, wanted);
        let expected = usize::try_from(wanted).expect("fits").clamp(1, most);
        let _received = cluster.run_to("received");
        assert_eq!(cluster.running_sources(last, crossing).len(), expected, "{wanted}");
        cluster.call(last, AdminCall::Cancel(crossing));
        cluster.run();
        assert_eq!(cluster.sources(last, crossing).len(), expected, "{wanted}: nobody is asked for what was cancelled");
    }
}

#[test]
fn a_source_that_fails_is_replaced_at_once_whatever_went_wrong() {
    let failures = [
        ("reached", BulkFailure::Unreachable("no answer".into())),
        ("answered", BulkFailure::Lost("reset".into())),
        ("received", BulkFailure::Lost("reset".into())),
        ("received", BulkFailure::Tampered("group 3".into())),
        ("received", BulkFailure::EndedByPeer(RefusalCode::Ended)),
        ("received", BulkFailure::Protocol("more bytes than were wanted".into())),
    ];
    for (at, failure) in failures {
        let (mut cluster, root) = Cluster::with_takers(4);
        for taker in 1..4 {
            cluster.gets(taker, root);
        }
        let crossing = cluster.pull_from(4, root, 2);
        // One after the other but for the last, without a tick in between.
        for failed in 1..=3 {
            let parcel = cluster.run_to(at);
            fail(&mut cluster, parcel, failure.clone());
            let running = cluster.running_sources(4, crossing).len();
            assert_eq!(running, 2_usize.min(4 - failed), "{failure}: {failed} have failed");
        }
        cluster.run();
        cluster.assert_well(4, crossing);
        let sources = cluster.sources(4, crossing);
        let peers: std::collections::BTreeSet<_> = sources.iter().map(|view| view.peer).collect();
        assert_eq!((sources.len(), peers.len()), (4, 4), "{failure}: each of them once");
        let failed = |view: &&CrossingView| view.state == CrossingState::Failed;
        assert_eq!(sources.iter().filter(failed).count(), 3, "{failure}");
    }
}

#[test]
fn a_source_that_refuses_is_replaced() {
    let (mut cluster, root) = Cluster::with_takers(3);
    let onward = cluster.gets(1, root);
    cluster.gets(2, root);
    // It takes its offer back, and the importer has not heard of it.
    let effects = cluster.tell(1, Input::Admin(RequestId(0), AdminCall::Withdraw { offer: onward, reason: String::new() }));
    assert!(effects.bulk.is_empty());
    let crossing = cluster.pull_from(3, onward, 2);
    cluster.run();
    cluster.assert_well(3, crossing);
    let states: Vec<_> = cluster.sources(3, crossing).iter().map(|view| view.state).collect();
    assert_eq!(states, [CrossingState::Denied, CrossingState::Done, CrossingState::Done]);
}

#[test]
fn a_peer_to_which_this_side_would_say_no_is_not_asked() {
    // The pair is allowed with the first exporter and not with the one that offers on, in China.
    let (mut cluster, root) = Cluster::with_takers(3);
    cluster.gets(2, root);
    cluster.enact(country("CN"), "deny export to:ZA");
    let requests = cluster.nodes[3].entries.len();
    let crossing = cluster.pull_from(3, root, 3);
    cluster.run();
    cluster.assert_well(3, crossing);
    assert_eq!(cluster.sources(3, crossing).len(), 1);
    let denied = |record: &Record| matches!(record, Record::RequestDenied { .. });
    assert_eq!(cluster.nodes[3].count(denied), 0, "nobody has asked for it by name: {requests}");
}

#[test]
fn a_pull_whose_sources_all_fail_has_failed() {
    let (mut cluster, root) = Cluster::with_takers(3);
    for taker in 1..3 {
        cluster.gets(taker, root);
    }
    let crossing = cluster.pull_from(3, root, 2);
    for _ in 0..3 {
        let parcel = cluster.run_to("received");
        fail(&mut cluster, parcel, BulkFailure::Lost("reset".into()));
    }
    cluster.run();
    assert!(cluster.sources(3, crossing).iter().all(|view| view.state == CrossingState::Failed));
    assert_eq!((cluster.status(3).models, cluster.status(3).crossings_running), (0, 0));
    cluster.let_pass(20 * SECOND);
    cluster.tick();
    assert_eq!(cluster.sources(3, crossing).len(), 3, "nobody is asked for what nobody waits for");
    // The directory is free.
    let mut call = cluster.pull_call(root);
    call.to = cluster.view(3, crossing).to.expect("known");
    let again = cluster.pull_with(3, call);
    cluster.run();
    assert_eq!(cluster.state(3, again), CrossingState::Done);
}

/// A pull from two sources, in the test's hand, and what either of them is about to report.
fn from_two() -> (Cluster, [CrossingId; 2], [Parcel; 2]) {
    let (mut cluster, root) = Cluster::with_takers(2);
    cluster.gets(1, root);
    let crossing = cluster.pull_from(2, root, 2);
    let parcels = [cluster.run_to("received"), cluster.run_to("received")];
    let crossings = parcels.clone().map(|parcel| crossing_of(&parcel.said));
    assert_eq!(crossings[0], crossing);
    (cluster, crossings, parcels)
}

#[test]
fn a_pull_is_cancelled_as_a_whole_whichever_of_its_crossings_is_named() {
    for named in [0, 1] {
        let (mut cluster, crossings, parcels) = from_two();
        let reply = cluster.call(2, AdminCall::Cancel(crossings[named]));
        assert!(matches!(reply, Reply::Cancelled { .. }), "{reply:?}");
        cluster.run();
        for (crossing, exporter) in crossings.into_iter().zip([FIRST, 1]) {
            assert_eq!(cluster.state(2, crossing), CrossingState::Failed);
            assert_eq!(cluster.state(exporter, crossing), CrossingState::Failed, "and {exporter} knows");
        }
        parcels.into_iter().for_each(|parcel| cluster.deliver(parcel));
        cluster.run();
        assert_eq!((cluster.status(2).models, cluster.status(2).crossings_running), (0, 0), "what comes late is not kept");
    }
}

#[test]
fn what_is_in_its_place_or_on_its_way_there_is_not_cancelled_by_another_of_its_crossings() {
    for delivered in [false, true] {
        let (mut cluster, crossings, [first, second]) = from_two();
        cluster.deliver(first);
        if delivered {
            let parcel = cluster.run_to("delivered");
            cluster.deliver(parcel);
            let _never_settled = cluster.run_to("receipt offered");
        }
        let call = AdminCall::Cancel(crossings[1]);
        let effects = cluster.tell(2, Input::Admin(RequestId(0), call));
        let [(_, Reply::Failed(failure))] = &effects.replies[..] else { panic!("{:?}", effects.replies) };
        assert_eq!(failure.kind, FailureKind::Conflict, "{}", failure.message);
        assert!(effects.bulk.is_empty() && effects.persist.is_empty(), "{:?}", effects.bulk);
        cluster.deliver(second);
        cluster.run();
        assert_eq!(cluster.state(2, crossings[1]), CrossingState::Done);
    }
}

#[test]
fn an_importer_that_stops_in_the_middle_records_that_every_source_failed() {
    let (mut cluster, crossings, _parcels) = from_two();
    cluster.crash(2);
    cluster.run();
    cluster.restart(2);
    for (crossing, exporter) in crossings.into_iter().zip([FIRST, 1]) {
        assert_eq!(cluster.state(2, crossing), CrossingState::Failed);
        assert_eq!(cluster.state(exporter, crossing), CrossingState::Failed);
    }
    cluster.let_pass(20 * SECOND);
    cluster.tick();
    assert_eq!((cluster.status(2).models, cluster.status(2).crossings_running), (0, 0));
}

#[test]
fn the_bulk_plane_learns_that_the_work_is_divided_where_it_may_be() {
    let (mut cluster, root) = Cluster::with_takers(2);
    cluster.gets(1, root);
    let closed = cluster.offer_of(1, cluster.model(1, &[Label::Public]), crate::cluster::OPEN);
    let cases = [(root, 1, false), (root, 2, true), (closed, 1, false), (closed, 4, false)];
    for (offer, sources, divided) in cases {
        let mut call = cluster.pull_call(offer);
        call.sources = sources;
        let effects = cluster.tell(2, Input::Admin(RequestId(0), AdminCall::Pull(call)));
        let reached: Vec<bool> = effects
            .bulk
            .iter()
            .map(|order| match order {
                BulkOrder::Reach { piecewise, .. } => *piecewise,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(!reached.is_empty() && reached.iter().all(|piecewise| *piecewise == divided), "{sources}: {reached:?}");
    }
}

#[test]
fn the_artefacts_that_lie_here_are_named_where_parts_of_another_may_be_found() {
    let (mut cluster, root) = Cluster::with_takers(1);
    cluster.gets(1, root);
    let held =
        cluster.sources(1, cluster.nodes[1].entries.iter().rev().find_map(|entry| entry.record.crossing()).expect("one"));
    let newer = alliance_protocol::core::admin::LocalModel {
        manifest: alliance_protocol::id::ManifestId([8; 32]),
        ..cluster.model(FIRST, &[Label::Public])
    };
    let newer = cluster.offer_of(FIRST, newer, ONWARD);
    let call = cluster.pull_call(newer);
    let effects = cluster.tell(1, Input::Admin(RequestId(0), AdminCall::Pull(call)));
    let [BulkOrder::Reach { local, .. }] = &effects.bulk[..] else { panic!("{:?}", effects.bulk) };
    assert_eq!(*local, [(held[0].manifest, held[0].to.clone().expect("delivered"))]);
}

#[test]
fn what_is_declared_otherwise_is_not_named_as_a_place_to_copy_from() {
    type Change = fn(&mut alliance_protocol::core::admin::LocalModel, &Cluster);
    let changes: [(&str, Change); 4] = [
        ("labels", |model, _| {
            model.labels = [Label::Public, Label::NonPersonal].into();
            model.parts = alliance_protocol::manifest::Part::alone(model.labels.clone(), model.tensors, model.bytes);
        }),
        ("origin", |model, cluster| model.origin = cluster.nodes[1].member),
        ("subjects", |model, cluster| model.subjects = [cluster.nodes[1].member].into()),
        ("people", |model, _| model.provenance.people = Some(1)),
    ];
    for (what, change) in changes {
        let (mut cluster, root) = Cluster::with_takers(1);
        cluster.gets(1, root);
        let mut newer = alliance_protocol::core::admin::LocalModel {
            manifest: alliance_protocol::id::ManifestId([8; 32]),
            ..cluster.model(FIRST, &[Label::Public])
        };
        change(&mut newer, &cluster);
        let newer = cluster.offer_of(FIRST, newer, ONWARD);
        let call = cluster.pull_call(newer);
        let effects = cluster.tell(1, Input::Admin(RequestId(0), AdminCall::Pull(call)));
        let [BulkOrder::Reach { local, .. }] = &effects.bulk[..] else { panic!("{what}: {:?}", effects.bulk) };
        assert!(local.is_empty(), "{what}");
    }
}

#[test]
fn a_large_artefact_is_asked_for_over_several_connections_and_each_is_recorded() {
    // As much as is worth four of them, where three are of use.
    for (connections, expected) in [(1, 1), (3, 3), (9, 4)] {
        let mut cluster = Cluster::over(connections, &[("BR", "usp"), ("IN", "iitb")]);
        let offer = cluster.offer(0, &[Label::Public]);
        let lead = cluster.pull(1, offer);
        cluster.run();
        let sources = cluster.sources(1, lead);
        assert_eq!(sources.len(), expected, "{connections}");
        cluster.assert_well(1, lead);
        let cleared = |cluster: &Cluster| cluster.nodes[0].count(|record| matches!(record, Record::Cleared { .. }));
        assert_eq!(cleared(&cluster), expected);
    }
}

#[test]
fn a_part_and_what_was_refused_are_asked_for_once() {
    let mut cluster = Cluster::over(3, &[("BR", "usp"), ("IN", "iitb")]);
    let offer = cluster.offer(0, &[Label::Public]);
    let mut call = cluster.pull_call(offer);
    call.tensors = vec!["*".into()];
    let lead = cluster.pull_with(1, call);
    cluster.run();
    assert_eq!(cluster.sources(1, lead).len(), 1);
    let gone = cluster.pull(1, offer);
    cluster.call(0, AdminCall::Withdraw { offer, reason: String::new() });
    cluster.run();
    assert_eq!(cluster.sources(1, gone).len(), 1, "nobody asks again after a no");
}
