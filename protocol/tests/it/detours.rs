//! What a node got, and offers on: nothing crosses that could not go to the same importer from the first exporter itself
//! (CROSSING-45).

use alliance_protocol::{
    authority::Ban,
    core::{
        BulkOrder, MeshEvent, MessageId,
        admin::{AdminCall, CrossingState, LocalModel, OfferDraft, Reply},
    },
    crossing::RefusalCode,
    id::{CrossingId, ManifestId, StatementId},
    manifest::Part,
    offer::{Offer, Offered, Terms, Withdrawal},
    vocabulary::{Label, Purpose},
};

use crate::{
    alliance::{DAY, HOUR, MEMBERS, STATUS_MS, contract_of, country, some_id},
    cluster::{Cluster, MODEL_BYTES, ONWARD, OPEN},
    exporter_refuses::Answer,
    routes::Parcel,
};

/// The one that offers on is in China, the importer in India, the first exporter in Brazil.
pub(crate) const BETWEEN: usize = 0;
pub(crate) const IMPORTER: usize = 1;
pub(crate) const FIRST: usize = 2;

pub(crate) const NODES: [(&str, &str); 4] = [("CN", "thu"), ("IN", "iitb"), ("BR", "usp"), ("CN", "iss")];

/// The offer of the first exporter, and what the node between makes of it.
pub(crate) fn offered_on() -> (Cluster, StatementId, StatementId) {
    offered_on_as(&[Label::Public], ONWARD, Purpose::Research)
}

fn offered_on_as(labels: &[Label], terms: Terms, purpose: Purpose) -> (Cluster, StatementId, StatementId) {
    let mut cluster = Cluster::new(&NODES);
    let root = cluster.offer_of(FIRST, cluster.model(FIRST, labels), terms);
    let mut call = cluster.pull_call(root);
    (call.onward, call.purpose) = (true, purpose);
    cluster.pull_with(BETWEEN, call);
    cluster.run();
    let onward = cluster.onward_of(BETWEEN, root).expect("it is offered on");
    (cluster, root, onward)
}

/// Both ends say no, for the same reason: the importer asks nobody, and the exporter refuses one that asks all the same.
#[track_caller]
fn assert_denied(mut cluster: Cluster, onward: StatementId, code: RefusalCode, reason: &str) {
    let crossing = cluster.pull(IMPORTER, onward);
    assert!(cluster.wires.queue.is_empty(), "{reason}: nobody is asked");
    let view = cluster.view(IMPORTER, crossing);
    assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(code)), "{reason}: {:?}", view.problem);
    let problem = view.problem.expect("a reason");
    assert!(problem.contains(reason), "`{problem}` instead of `{reason}`");

    let lie = cluster.by_hand(onward, 1);
    match cluster.put(&lie).1 {
        Answer::Refused(found, Some(why)) => assert!(found == code && why.contains(reason), "{found}: {why}"),
        other => panic!("{reason}: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_crosses(cluster: &mut Cluster, to: usize, onward: StatementId) {
    let crossing = cluster.pull(to, onward);
    cluster.run();
    let view = cluster.view(to, crossing);
    assert_eq!(view.state, CrossingState::Done, "{:?}", view.problem);
    assert_eq!(cluster.state(BETWEEN, crossing), CrossingState::Done);
}

#[test]
fn what_is_offered_on_crosses_without_the_first_exporter() {
    let (mut cluster, _, onward) = offered_on();
    let records = cluster.nodes[FIRST].entries.len();
    assert_crosses(&mut cluster, IMPORTER, onward);
    assert_eq!(cluster.nodes[FIRST].entries.len(), records, "it was not asked");
    let Reply::Models(models) = cluster.call(IMPORTER, AdminCall::Models) else { panic!("no models") };
    assert_eq!((models.len(), models[0].name.as_str(), models[0].origin), (1, "usp/model", country("BR")));
}

#[test]
fn nothing_crosses_under_an_offer_whose_root_has_come_to_an_end() {
    type End = fn(&mut Cluster, StatementId);
    let ends: [(End, RefusalCode, &str); 3] = [
        (
            |cluster, root| {
                cluster.call(FIRST, AdminCall::Withdraw { offer: root, reason: String::new() });
                cluster.run();
            },
            RefusalCode::NoOffer,
            "goes back to does not stand",
        ),
        (
            |cluster, _| cluster.revoke(country("BR"), cluster.nodes[FIRST].public()),
            RefusalCode::NoOffer,
            "goes back to does not stand",
        ),
        (
            |cluster, _| {
                cluster.advance_to(cluster.now.plus_ms(STATUS_MS - HOUR));
                MEMBERS.iter().filter(|member| **member != "BR").for_each(|member| cluster.renew(country(member)));
                cluster.advance_to(cluster.now.plus_ms(HOUR));
            },
            RefusalCode::Stale,
            "status of BR",
        ),
    ];
    for (end, code, reason) in ends {
        let (mut cluster, root, onward) = offered_on();
        end(&mut cluster, root);
        assert_denied(cluster, onward, code, reason);
    }
}

#[test]
fn the_law_of_the_first_exporter_holds_over_a_third_country() {
    // Each of them lets China have it, and would let China give it to India.
    let laws = ["deny export to:IN", "deny-both export to:IN purpose:research", "error export", "lying-error export"];
    for law in laws {
        let (mut cluster, _, onward) = offered_on();
        cluster.enact(country("BR"), law);
        assert_denied(cluster, onward, RefusalCode::DeniedByLaw, "denied by the rules of BR");
    }
    // What it says of others, and of imports, does not concern this one.
    for law in ["deny export to:ZA", "deny import all"] {
        let (mut cluster, _, onward) = offered_on();
        cluster.enact(country("BR"), law);
        assert_crosses(&mut cluster, IMPORTER, onward);
    }
}

#[test]
fn a_ban_by_the_first_exporters_authority_holds_over_a_third_country() {
    let bans = [
        |cluster: &Cluster| Ban::Recipient(cluster.nodes[IMPORTER].public()),
        |_: &Cluster| Ban::Destination(country("IN")),
    ];
    for ban in bans {
        let (mut cluster, _, onward) = offered_on();
        cluster.enact(country("BR"), "deny-banned export");
        let ban = ban(&cluster);
        cluster.ban_in_status(country("BR"), ban);
        assert_denied(cluster, onward, RefusalCode::DeniedByLaw, "denied by the rules of BR");
    }
    let (mut cluster, _, onward) = offered_on();
    cluster.enact(country("BR"), "deny-banned export");
    cluster.ban_in_status(country("BR"), Ban::Destination(country("ZA")));
    assert_crosses(&mut cluster, IMPORTER, onward);
}

#[test]
fn the_law_of_the_first_exporter_is_asked_about_each_part() {
    let labels = [Label::Public, Label::Health].map(|label| [label].into());
    let mut model = Cluster::new(&NODES).model(FIRST, &[Label::Public, Label::Health]);
    model.parts = labels.map(|labels| Part { labels, tensors: 1, bytes: MODEL_BYTES / 2 }).into();
    model.tensors = 2;
    let mut cluster = Cluster::new(&NODES);
    let root = cluster.offer_of(FIRST, model, ONWARD);
    cluster.pull_onward(BETWEEN, root);
    cluster.run();
    let onward = cluster.onward_of(BETWEEN, root).expect("it is offered on");
    cluster.enact(country("BR"), "deny-both export to:IN label:health");
    assert_denied(cluster, onward, RefusalCode::DeniedByLaw, "denied by the rules of BR, for what is labelled health");
}

#[test]
fn a_safeguard_for_the_direct_way_counts_for_the_law_of_the_first_exporter() {
    let (mut cluster, _, onward) = offered_on_as(&[Label::Personal], ONWARD, Purpose::Research);
    cluster.enact(country("BR"), "require export label:personal scc_br");
    let safeguard = |cluster: &Cluster, from| {
        let contract = contract_of(country("BR"), country(from), country("IN"));
        vec![cluster.alliance.spoken(country("BR"), &contract).bytes().to_vec().into()]
    };
    for (from, state) in [("BR", CrossingState::Done), ("ZA", CrossingState::Denied)] {
        let mut call = cluster.pull_call(onward);
        call.safeguards = safeguard(&cluster, from);
        let crossing = cluster.pull_with(IMPORTER, call);
        cluster.run();
        let view = cluster.view(IMPORTER, crossing);
        assert_eq!(view.state, state, "{from}: {:?}", view.problem);
    }
    assert_denied(cluster, onward, RefusalCode::DeniedByLaw, "denied by the rules of BR");
}

#[test]
fn within_one_country_the_law_of_the_first_exporter_is_asked_all_the_same() {
    let (mut cluster, _, onward) = offered_on();
    let neighbour = 3;
    cluster.enact(country("BR"), "deny export to:CN");
    let crossing = cluster.pull(neighbour, onward);
    let view = cluster.view(neighbour, crossing);
    assert_eq!(view.refusal, Some(RefusalCode::DeniedByLaw), "{:?}", view.problem);
    // Back home no border is crossed but that of the node between.
    let home = cluster.join("BR", "unicamp");
    cluster.enact(country("BR"), "deny export all");
    assert_crosses(&mut cluster, home, onward);
}

#[test]
fn the_terms_of_the_root_hold_as_well_as_those_of_the_offer() {
    let terms = |purposes: &[Purpose], to: &[&str]| Terms {
        purposes: purposes.iter().copied().collect(),
        to: to.iter().map(|code| country(code)).collect(),
        onward: true,
    };
    let commercial = terms(&[Purpose::Commercial], &[]);
    let (cluster, _, onward) = offered_on_as(&[Label::Public], commercial, Purpose::Commercial);
    assert_denied(cluster, onward, RefusalCode::DeniedByTerms, "does not admit the purpose `research`");
    let (cluster, _, onward) = offered_on_as(&[Label::Public], terms(&[], &["CN"]), Purpose::Research);
    assert_denied(cluster, onward, RefusalCode::DeniedByTerms, "does not admit IN");

    // What the node between says is narrower; what it says is wider changes nothing.
    for (own, reason) in [
        (terms(&[Purpose::Commercial], &[]), "does not admit the purpose `research`"),
        (terms(&[], &["ZA"]), "does not admit IN"),
    ] {
        let (mut cluster, _, wider) = offered_on();
        cluster.call(BETWEEN, AdminCall::Withdraw { offer: wider, reason: String::new() });
        let onward = published(&mut cluster, own.clone());
        assert_denied(cluster, onward, RefusalCode::DeniedByTerms, reason);
    }
    let (mut cluster, _, narrower) = offered_on_as(&[Label::Public], terms(&[], &["CN"]), Purpose::Research);
    cluster.call(BETWEEN, AdminCall::Withdraw { offer: narrower, reason: String::new() });
    let onward = published(&mut cluster, OPEN);
    assert_denied(cluster, onward, RefusalCode::DeniedByTerms, "does not admit IN");
}

/// The operator of the node between offers on what lies there.
pub(crate) fn published(cluster: &mut Cluster, terms: Terms) -> StatementId {
    let draft = OfferDraft { name: "usp/model".into(), compute: None, terms, ttl_ms: DAY };
    let reply = cluster.call(BETWEEN, AdminCall::Publish(draft));
    cluster.run();
    match reply {
        Reply::Published(view) => view.offer,
        other => panic!("{other:?}"),
    }
}

/// A false offer in the name of the node between.
type Lie = fn(&mut Cluster, &mut Offer);

#[test]
fn an_offer_that_does_not_follow_its_root_lets_nothing_in() {
    let lies: [(&str, Lie, RefusalCode, &str); 9] = [
        ("unknown", |_, offer| offer.root = Some(some_id(9)), RefusalCode::NoOffer, "does not stand"),
        ("another name", |_, offer| offer.name = "usp/other".into(), RefusalCode::NoOffer, "not of what the one says"),
        (
            "another manifest",
            |_, offer| model_of(offer).manifest = ManifestId([8; 32]),
            RefusalCode::NoOffer,
            "not of what",
        ),
        ("another origin", |_, offer| model_of(offer).origin = country("CN"), RefusalCode::NoOffer, "not of what"),
        ("another licence", |_, offer| model_of(offer).licence = "MIT".into(), RefusalCode::NoOffer, "not of what"),
        (
            "fewer labels",
            |_, offer| {
                model_of(offer).labels = [Label::Public].into();
                model_of(offer).parts = Part::alone([Label::Public].into(), 1, MODEL_BYTES);
            },
            RefusalCode::NoOffer,
            "not of what",
        ),
        (
            "a root that has a root",
            |cluster, offer| offer.root = cluster.offers(3).iter().find(|view| view.own).map(|view| view.offer),
            RefusalCode::NoOffer,
            "first exporter",
        ),
        (
            "an offer of its own",
            |cluster, offer| {
                let own = cluster.offer_of(BETWEEN, cluster.model(BETWEEN, &[Label::Public, Label::Dp]), ONWARD);
                (offer.name, offer.root) = ("thu/model".into(), Some(own));
            },
            RefusalCode::NoOffer,
            "first exporter",
        ),
        (
            "one that may not be offered on",
            |cluster, offer| {
                let model = LocalModel { name: "usp/closed".into(), ..cluster.model(FIRST, &[Label::Public, Label::Dp]) };
                let closed = cluster.offer_of(FIRST, model, OPEN);
                (offer.name, offer.root) = ("usp/closed".into(), Some(closed));
            },
            RefusalCode::DeniedByTerms,
            "does not admit offering on",
        ),
    ];
    for (what, lie, code, reason) in lies {
        let mut cluster = Cluster::new(&NODES);
        let root = cluster.offer_of(FIRST, cluster.model(FIRST, &[Label::Public, Label::Dp]), ONWARD);
        cluster.gets(3, root);
        let mut offer = honest(&cluster, root);
        lie(&mut cluster, &mut offer);
        let id = spread(&mut cluster, &offer);
        let crossing = cluster.pull(IMPORTER, id);
        let view = cluster.view(IMPORTER, crossing);
        assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(code)), "{what}: {:?}", view.problem);
        assert!(view.problem.as_ref().is_some_and(|problem| problem.contains(reason)), "{what}: {:?}", view.problem);
        // Nor is the liar asked besides others.
        let crossing = cluster.pull_from(IMPORTER, root, 8);
        let liar = cluster.nodes[BETWEEN].public();
        assert!(cluster.sources(IMPORTER, crossing).iter().all(|view| view.peer != liar), "{what}");
    }
}

fn model_of(offer: &mut Offer) -> &mut alliance_protocol::offer::ModelOffer {
    match &mut offer.what {
        Offered::Model(model) => model,
        Offered::Compute(_) => panic!("of a model"),
    }
}

/// What the node between would say if it had the artefact.
fn honest(cluster: &Cluster, root: StatementId) -> Offer {
    let (node, validity) =
        (cluster.nodes[BETWEEN].public(), alliance_protocol::time::Validity::lasting_ms(cluster.now, DAY));
    let what = Offered::Model(cluster.model(FIRST, &[Label::Public, Label::Dp]).offered());
    Offer { node, name: "usp/model".into(), what, terms: ONWARD, root: Some(root), validity }
}

fn spread(cluster: &mut Cluster, offer: &Offer) -> StatementId {
    let signed = cluster.alliance.signed(&cluster.nodes[BETWEEN].key(), offer);
    let reply = cluster.adopt(FIRST, &[signed.bytes()]);
    assert!(matches!(reply, Reply::Adopted { accepted: 1, .. }), "its peers pass it on: {reply:?}");
    cluster.run();
    signed.id()
}

#[test]
fn an_offer_does_not_outlast_its_root() {
    let mut cluster = Cluster::new(&NODES);
    let model = cluster.model(FIRST, &[Label::Public, Label::Dp]);
    cluster.call(FIRST, AdminCall::Import(Box::new(model)));
    let draft = OfferDraft { name: "usp/model".into(), compute: None, terms: ONWARD, ttl_ms: HOUR };
    let Reply::Published(view) = cluster.call(FIRST, AdminCall::Publish(draft)) else { panic!("not published") };
    cluster.run();
    let onward = cluster.gets(3, view.offer);
    let until = cluster.offers(3).into_iter().find(|view| view.offer == onward).map(|view| view.until);
    assert_eq!(until, Some(view.until), "an honest one ends with it");
    // A liar's says that it lasts longer.
    let offer = honest(&cluster, view.offer);
    let lie = spread(&mut cluster, &offer);
    let crossing = cluster.pull(IMPORTER, lie);
    assert_eq!(cluster.state(IMPORTER, crossing), CrossingState::Reaching);
    let received = cluster.wires.queue.clone();
    cluster.advance_to(cluster.now.plus_ms(HOUR));
    assert!(!received.is_empty() && cluster.running_sources(IMPORTER, crossing).is_empty());
    let crossing = cluster.pull(IMPORTER, lie);
    assert_eq!(cluster.view(IMPORTER, crossing).refusal, Some(RefusalCode::NoOffer));
    assert!(!cluster.knows(IMPORTER, lie), "it is not shown either");
}

/// A crossing from the node between whose bytes are on their way; `Received` is in the test's hand.
fn under_way() -> (Cluster, StatementId, CrossingId, Parcel) {
    let (mut cluster, root, onward) = offered_on();
    let crossing = cluster.pull(IMPORTER, onward);
    let received = cluster.run_to("received");
    assert_eq!(cluster.state(BETWEEN, crossing), CrossingState::Cleared);
    (cluster, root, crossing, received)
}

#[test]
fn what_happens_to_the_root_ends_what_runs_under_it() {
    type Happening = fn(&mut Cluster, StatementId);
    let happenings: [(&str, Happening); 4] = [
        ("withdrawn", |cluster, offer| drop(cluster.call(FIRST, AdminCall::Withdraw { offer, reason: String::new() }))),
        ("revoked", |cluster, _| cluster.revoke(country("BR"), cluster.nodes[FIRST].public())),
        ("forbidden", |cluster, _| cluster.enact(country("BR"), "deny export to:IN")),
        ("run out", |cluster, _| {
            cluster.let_pass(STATUS_MS - HOUR);
            MEMBERS.iter().filter(|member| **member != "BR").for_each(|member| cluster.renew(country(member)));
            cluster.advance_to(cluster.now.plus_ms(HOUR));
        }),
    ];
    for (what, happening) in happenings {
        let (mut cluster, root, crossing, received) = under_way();
        happening(&mut cluster, root);
        cluster.run();
        for at in [BETWEEN, IMPORTER] {
            let view = cluster.view(at, crossing);
            assert_eq!(view.state, CrossingState::Failed, "{what}: side {at}");
            assert_eq!(cluster.status(at).crossings_running, 0);
        }
        cluster.deliver(received);
        assert_eq!(cluster.status(IMPORTER).models, 0, "{what}");
    }
}

#[test]
fn each_side_that_alone_hears_of_the_withdrawal_of_the_root_stops() {
    for at in [BETWEEN, IMPORTER] {
        let (mut cluster, root, _, _) = under_way();
        let (first, now) = (cluster.nodes[FIRST].public(), cluster.now);
        let withdrawal = Withdrawal { node: first, offer: root, at: now, reason: String::new() };
        let bytes = cluster.alliance.signed(&cluster.nodes[FIRST].key(), &withdrawal).bytes().to_vec();
        let (message, from) = (MessageId(u64::MAX), cluster.nodes[3].public());
        let orders = cluster.tell_mesh(at, MeshEvent::Gossiped { message, from, bytes }).bulk;
        match (&orders[..], at) {
            ([BulkOrder::AbortServe { code: RefusalCode::Ended, .. }], BETWEEN) => {}
            ([BulkOrder::AbortPull { code: RefusalCode::Ended, .. }], IMPORTER) => {}
            other => panic!("{other:?}"),
        }
    }
}
