//! An exporter that faces a lying importer: requests made by hand with a good key, each wrong in one thing.

use std::collections::BTreeSet;

use alliance_protocol::{
    authority::Accreditation,
    core::{
        AskId, BulkEvent, BulkOrder, Effects,
        admin::{AdminCall, LocalModel},
    },
    crossing::{ClearanceGiven, CrossingRequest, LedgerHead, Refusal, RefusalCode},
    envelope::{Draft, Signed},
    id::{CrossingId, ManifestId, SessionBinding, Sha256, StatementId},
    key::{PublicKey, SecretKey},
    ledger::Record,
    limits,
    offer::{ComputeOffer, Terms},
    vocabulary::{Label, NodeRole, Purpose, Use},
};

use crate::{
    alliance::{DAY, HOUR, SECOND, accreditation_of, country, some_id, stranger},
    cluster::{Cluster, OPEN},
};

/// A request as a liar would send it: what it says, who signs it, and over which session by which peer it arrives.
pub(crate) struct Lie {
    pub(crate) body: CrossingRequest,
    pub(crate) signers: Vec<SecretKey>,
    pub(crate) peer: PublicKey,
    pub(crate) session: SessionBinding,
}

/// What the exporter answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Cleared(Box<ClearanceGiven>),
    /// The reason is known where the refusal was recorded.
    Refused(RefusalCode, Option<String>),
}

impl Cluster {
    /// An honest request of node 1 to node 0, made without node 1's Core.
    pub(crate) fn by_hand(&mut self, offer: StatementId, crossing: u8) -> Lie {
        let session = self.draw_session();
        let (importer, exporter) = (&self.nodes[1], &self.nodes[0]);
        let body = CrossingRequest {
            crossing: CrossingId([crossing; 32]),
            importer: importer.public(),
            exporter: exporter.public(),
            offer,
            manifest: ManifestId([7; 32]),
            parts: None,
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: BTreeSet::new(),
            safeguards: Vec::new(),
            accreditation: importer.accreditation.clone(),
            verdicts: some_id(9),
            session,
            ledger: LedgerHead { size: 0, root: Sha256([0; 32]) },
            asked: self.now,
        };
        Lie { body, signers: vec![importer.key()], peer: importer.public(), session }
    }

    /// Puts the request to the exporter; carries nothing out.
    pub(crate) fn put(&mut self, lie: &Lie) -> (AskId, Answer) {
        let draft = Draft::new(&lie.body, self.alliance.id);
        let request = lie.signers.iter().fold(draft, Draft::sign).to_bytes();
        self.put_bytes(lie.peer, lie.session, request)
    }

    pub(crate) fn put_bytes(&mut self, peer: PublicKey, session: SessionBinding, request: Vec<u8>) -> (AskId, Answer) {
        self.nodes[1].lies = true;
        let ask = self.draw_ask();
        let effects = self.tell_bulk(0, BulkEvent::Asked { ask, peer, session, request });
        (ask, self.answer_in(ask, &effects))
    }

    fn answer_in(&self, ask: AskId, effects: &Effects) -> Answer {
        match &effects.bulk[..] {
            [BulkOrder::Serve { ask: of, clearance, .. }] if *of == ask => {
                let clearance = Signed::<ClearanceGiven>::open(clearance, self.alliance.id).expect("a clearance");
                Answer::Cleared(Box::new(clearance.body().clone()))
            }
            [BulkOrder::Refuse { ask: of, refusal }] if *of == ask => {
                let refusal = Signed::<Refusal>::open(refusal, self.alliance.id).expect("a refusal");
                let reason = effects.persist.iter().find_map(|record| match record {
                    Record::Refused { decision, .. } => decision.denial.as_ref().map(|denial| denial.problem.clone()),
                    _ => None,
                });
                Answer::Refused(refusal.body().code, reason)
            }
            other => panic!("one answer to one request: {other:?}"),
        }
    }
}

fn pair_with_offer() -> (Cluster, StatementId) {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    (cluster, offer)
}

#[track_caller]
fn assert_refused(answer: &Answer, code: RefusalCode, reason: &str) {
    match answer {
        Answer::Refused(found, Some(why)) => {
            assert_eq!(*found, code, "{why}");
            assert!(why.contains(reason), "`{why}` instead of `{reason}`");
        }
        other => panic!("not refused and recorded: {other:?}"),
    }
}

/// A stranger learns a code and costs no record.
#[track_caller]
fn assert_brushed_off(answer: &Answer, code: RefusalCode) {
    assert!(matches!(answer, Answer::Refused(found, None) if *found == code), "{answer:?}");
}

#[test]
fn the_honest_request_is_cleared() {
    let (mut cluster, offer) = pair_with_offer();
    let honest = cluster.by_hand(offer, 1);
    let (_, answer) = cluster.put(&honest);
    let Answer::Cleared(given) = answer else { panic!("{answer:?}") };
    let asked = &honest.body;
    assert_eq!((given.crossing, given.importer, given.session), (asked.crossing, asked.importer, asked.session));
    assert_eq!(given.validity.until, cluster.now.plus_ms(limits::CLEARANCE_TTL_MS_MAX));
    assert_eq!(given.epochs, [(country("BR"), 1), (country("IN"), 1)]);
}

#[test]
fn what_breaks_the_protocol_is_refused_and_recorded() {
    type Change = fn(&mut Lie, &Cluster);
    let skew = limits::CLOCK_SKEW_MS_MAX;
    assert_eq!(skew, 60 * SECOND, "the cases below are made for it");
    let cases: &[(&str, Change, RefusalCode)] = &[
        ("for another exporter", |lie, cluster| lie.body.exporter = cluster.nodes[2].public(), RefusalCode::BadRequest),
        ("for another session", |lie, _| lie.body.session = SessionBinding([1; 32]), RefusalCode::BadRequest),
        ("for another session", |lie, _| lie.session = SessionBinding([1; 32]), RefusalCode::BadRequest),
        ("too old", |lie, cluster| lie.body.asked = cluster.now.minus_ms(120 * SECOND + 1), RefusalCode::BadRequest),
        ("from the future", |lie, cluster| lie.body.asked = cluster.now.plus_ms(60 * SECOND + 1), RefusalCode::BadRequest),
        ("too many safeguards", |lie, _| lie.body.safeguards = vec![vec![].into(); 17], RefusalCode::BadRequest),
        ("no such offer stands", |lie, _| lie.body.offer = some_id(1), RefusalCode::NoOffer),
        ("manifest is not", |lie, _| lie.body.manifest = ManifestId([8; 32]), RefusalCode::NoOffer),
    ];
    for (reason, change, code) in cases {
        let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
        let offer = cluster.offer(0, &[Label::Public]);
        let mut lie = cluster.by_hand(offer, 1);
        change(&mut lie, &cluster);
        let (_, answer) = cluster.put(&lie);
        assert_refused(&answer, *code, reason);
    }
}

#[test]
fn the_bounds_themselves_are_kept() {
    type Change = fn(&mut Lie, &Cluster);
    let cases: &[(&str, Change)] = &[
        ("as old as may be", |lie, cluster| lie.body.asked = cluster.now.minus_ms(120 * SECOND)),
        ("a clock that is fast", |lie, cluster| lie.body.asked = cluster.now.plus_ms(60 * SECOND)),
        ("as many safeguards as may be", |lie, _| lie.body.safeguards = vec![vec![].into(); 16]),
    ];
    for (name, change) in cases {
        let (mut cluster, offer) = pair_with_offer();
        let mut lie = cluster.by_hand(offer, 1);
        change(&mut lie, &cluster);
        let (_, answer) = cluster.put(&lie);
        assert!(matches!(answer, Answer::Cleared(_)), "{name}: {answer:?}");
    }
}

#[test]
fn who_is_not_who_he_says_is_brushed_off() {
    type Change = fn(&mut Lie, &Cluster);
    use RefusalCode::{BadRequest, NotAccredited};
    fn accredited(cluster: &Cluster, body: &Accreditation, by: &str) -> Vec<u8> {
        cluster.alliance.spoken(country(by), body).bytes().to_vec()
    }
    let cases: &[(&str, Change, RefusalCode)] = &[
        ("signed by another key than the peer's", |lie, _| lie.signers = vec![stranger()], BadRequest),
        ("signed by the peer and another", |lie, _| lie.signers.push(stranger()), BadRequest),
        ("signed by nobody", |lie, _| lie.signers.clear(), BadRequest),
        ("over the session of another", |lie, _| lie.peer = stranger().public(), BadRequest),
        ("names another importer", |lie, cluster| lie.body.importer = cluster.nodes[0].public(), BadRequest),
        (
            "the accreditation of another node",
            |lie, cluster| lie.body.accreditation = cluster.nodes[0].accreditation.clone(),
            NotAccredited,
        ),
        (
            "an accreditation by a foreign authority",
            |lie, cluster| {
                lie.body.accreditation = accredited(cluster, &accreditation_of(country("IN"), lie.peer, "iitb"), "CN")
            },
            NotAccredited,
        ),
        (
            "an accreditation by one officer of two",
            |lie, cluster| {
                let body = accreditation_of(country("IN"), lie.peer, "iitb");
                let officer = cluster.alliance.officer(country("IN"), 0);
                lie.body.accreditation = cluster.alliance.signed(officer, &body).bytes().to_vec();
            },
            NotAccredited,
        ),
        (
            "an accreditation that it signed itself",
            |lie, cluster| {
                let body = accreditation_of(country("IN"), lie.peer, "iitb");
                lie.body.accreditation = cluster.alliance.signed(&cluster.nodes[1].key(), &body).bytes().to_vec();
            },
            NotAccredited,
        ),
        ("no accreditation", |lie, _| lie.body.accreditation = Vec::new(), NotAccredited),
        (
            "a member that is none",
            |lie, cluster| {
                lie.body.accreditation = accredited(cluster, &accreditation_of(country("FR"), lie.peer, "ens"), "IN")
            },
            NotAccredited,
        ),
    ];
    for (name, change, code) in cases {
        let (mut cluster, offer) = pair_with_offer();
        let mut lie = cluster.by_hand(offer, 1);
        change(&mut lie, &cluster);
        let records = cluster.nodes[0].entries.len();
        let (_, answer) = cluster.put(&lie);
        println!("{name}");
        assert_brushed_off(&answer, *code);
        assert_eq!(cluster.nodes[0].entries.len(), records, "{name}: strangers cost no record");
    }
}

#[test]
fn bytes_that_are_no_request_are_brushed_off() {
    let (mut cluster, offer) = pair_with_offer();
    let honest = cluster.by_hand(offer, 1);
    let request = cluster.alliance.signed(&honest.signers[0], &honest.body);
    let mut altered = request.bytes().to_vec();
    altered[200] ^= 1;
    let offer_bytes = cluster.nodes[1].catalogue[&offer].clone();
    for bytes in [Vec::new(), vec![0xa0], altered, offer_bytes, vec![0; limits::REQUEST_BYTES_MAX + 1]] {
        let (_, answer) = cluster.put_bytes(honest.peer, honest.session, bytes);
        assert_brushed_off(&answer, RefusalCode::BadRequest);
    }
}

/// The standing of the importer, as its authority sees it.
#[test]
fn who_has_lost_standing_is_refused() {
    let refused = |change: fn(&mut Accreditation), reason: &str| {
        let (mut cluster, offer) = pair_with_offer();
        let mut lie = cluster.by_hand(offer, 1);
        let mut body = accreditation_of(country("IN"), lie.peer, "iitb");
        change(&mut body);
        lie.body.accreditation = cluster.alliance.spoken(country("IN"), &body).bytes().to_vec();
        let (_, answer) = cluster.put(&lie);
        assert_refused(&answer, RefusalCode::NotAccredited, reason);
    };
    refused(|body| body.validity.until = crate::alliance::DAWN, "it ran out");
    refused(|body| body.validity.from = body.validity.from.plus_ms(2 * HOUR), "not valid before");
    refused(|body| body.roles = [NodeRole::Exporter].into(), "not accredited as importer");

    let (mut cluster, offer) = pair_with_offer();
    cluster.revoke(country("IN"), cluster.nodes[1].public());
    let lie = cluster.by_hand(offer, 1);
    let (_, answer) = cluster.put(&lie);
    assert_refused(&answer, RefusalCode::NotAccredited, "IN has revoked");
}

#[test]
fn an_exporter_that_is_no_exporter_clears_nothing() {
    let (mut cluster, offer) = pair_with_offer();
    cluster.crash(0);
    let mut body = accreditation_of(country("BR"), cluster.nodes[0].public(), "usp");
    body.roles.remove(&NodeRole::Exporter);
    cluster.nodes[0].accreditation = cluster.alliance.spoken(country("BR"), &body).bytes().to_vec();
    cluster.restart(0);
    let lie = cluster.by_hand(offer, 1);
    let (_, answer) = cluster.put(&lie);
    assert_refused(&answer, RefusalCode::NotAccredited, "usp is not accredited as exporter");
}

#[test]
fn a_crossing_is_cleared_once() {
    let (mut cluster, offer) = pair_with_offer();
    let honest = cluster.by_hand(offer, 1);
    assert!(matches!(cluster.put(&honest).1, Answer::Cleared(_)));
    // The same bytes again: the answer is no, and the record of the clearance stays as it is.
    let records = cluster.nodes[0].entries.len();
    assert!(matches!(cluster.put(&honest).1, Answer::Refused(RefusalCode::BadRequest, None)));
    // The same crossing in a new session.
    let again = cluster.by_hand(offer, 1);
    assert!(matches!(cluster.put(&again).1, Answer::Refused(RefusalCode::BadRequest, None)));
    // And after a restart, at once and when the request would be too old anyway.
    cluster.crash(0);
    cluster.restart(0);
    assert!(matches!(cluster.put(&honest).1, Answer::Refused(RefusalCode::BadRequest, None)));
    cluster.advance_to(cluster.now.plus_ms(600 * SECOND));
    let late = cluster.by_hand(offer, 1);
    assert!(matches!(cluster.put(&late).1, Answer::Refused(RefusalCode::BadRequest, None)));
    assert_eq!(cluster.nodes[0].entries.len(), records + 1, "but for the failure that the restart records");
}

#[test]
fn a_refused_crossing_is_not_cleared_later() {
    let (mut cluster, offer) = pair_with_offer();
    cluster.enact(country("BR"), "deny export all");
    let lie = cluster.by_hand(offer, 1);
    assert_refused(&cluster.put(&lie).1, RefusalCode::DeniedByLaw, "denied by the rules of BR");
    cluster.enact(country("BR"), "");
    assert!(matches!(cluster.put(&lie).1, Answer::Refused(RefusalCode::BadRequest, None)));
}

#[test]
fn the_id_of_a_crossing_that_this_node_pulls_is_not_taken_for_another() {
    // Whoever serves this node knows the id; asking for something under it must not overwrite what is recorded.
    let (mut cluster, offer) = pair_with_offer();
    let theirs = cluster.offer(1, &[Label::Public]);
    let crossing = cluster.pull(0, theirs);
    cluster.run();
    let mut lie = cluster.by_hand(offer, 1);
    lie.body.crossing = crossing;
    let before = cluster.view(0, crossing);
    assert!(matches!(cluster.put(&lie).1, Answer::Refused(RefusalCode::BadRequest, None)));
    assert_eq!(cluster.view(0, crossing), before);
}

#[test]
fn offers_that_do_not_stand_are_refused() {
    // Withdrawn.
    let (mut cluster, offer) = pair_with_offer();
    cluster.call(0, AdminCall::Withdraw { offer, reason: String::new() });
    let lie = cluster.by_hand(offer, 1);
    assert_refused(&cluster.put(&lie).1, RefusalCode::NoOffer, "the offer was withdrawn");

    // Ended, and the node has not looked at the clock since.
    let (mut cluster, offer) = pair_with_offer();
    cluster.let_pass(30 * DAY - HOUR);
    for member in crate::alliance::MEMBERS {
        cluster.renew(country(member));
    }
    cluster.let_pass(HOUR);
    let lie = cluster.by_hand(offer, 1);
    assert_refused(&cluster.put(&lie).1, RefusalCode::NoOffer, "the offer does not stand");

    // Another node's, of the same organisation, of which a copy lies here.
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("BR", "usp")]);
    let offer = cluster.offer(2, &[Label::Public]);
    cluster.pull(0, offer);
    cluster.run();
    let lie = cluster.by_hand(offer, 1);
    assert_refused(&cluster.put(&lie).1, RefusalCode::NoOffer, "no such offer stands");

    // Of compute, under the name of a model that lies here.
    let (mut cluster, _) = pair_with_offer();
    let compute = ComputeOffer { accelerator: "H200".into(), count: 1, memory_mib: 1, hours: 1 };
    let name = "usp/model".to_owned();
    let draft = alliance_protocol::core::admin::OfferDraft { name, compute: Some(compute), terms: OPEN, ttl_ms: DAY };
    let alliance_protocol::core::admin::Reply::Published(view) = cluster.call(0, AdminCall::Publish(draft)) else {
        panic!("not published")
    };
    let lie = cluster.by_hand(view.offer, 1);
    assert_refused(&cluster.put(&lie).1, RefusalCode::NoOffer, "not of a model");
}

#[test]
fn an_offer_of_what_lies_here_no_more_is_refused() {
    let (mut cluster, offer) = pair_with_offer();
    let mut lie = cluster.by_hand(offer, 1);
    lie.body.manifest = ManifestId([8; 32]);
    assert_refused(&cluster.put(&lie).1, RefusalCode::NoOffer, "the manifest is not");
    // The same again is the same; anything else takes the offer back, here and everywhere.
    let same = cluster.model(0, &[Label::Public]);
    cluster.call(0, AdminCall::Import(Box::new(same.clone())));
    assert!(cluster.knows(1, offer));
    let other = LocalModel { manifest: ManifestId([8; 32]), ..same.clone() };
    let labelled = LocalModel { origin: country("ZA"), ..same };
    for newer in [other, labelled] {
        let (mut cluster, offer) = pair_with_offer();
        cluster.call(0, AdminCall::Import(Box::new(newer)));
        cluster.run();
        assert!(!cluster.knows(1, offer), "its peers have heard of it");
        let lie = cluster.by_hand(offer, 2);
        assert_refused(&cluster.put(&lie).1, RefusalCode::NoOffer, "the offer was withdrawn");
    }
}

#[test]
fn terms_can_only_tighten() {
    let terms = |purposes: &[Purpose], to: &[&str]| Terms {
        purposes: purposes.iter().copied().collect(),
        to: to.iter().map(|code| country(code)).collect(),
        onward: false,
    };
    let cases = [
        (terms(&[Purpose::Commercial], &[]), Some("does not admit the purpose `research`")),
        (terms(&[], &["CN", "ZA"]), Some("does not admit IN")),
        (terms(&[Purpose::Research, Purpose::Commercial], &["IN"]), None),
    ];
    for (terms, reason) in cases {
        let mut cluster = Cluster::pair();
        let offer = cluster.offer_of(0, cluster.model(0, &[Label::Public]), terms);
        let lie = cluster.by_hand(offer, 1);
        let (_, answer) = cluster.put(&lie);
        match reason {
            Some(reason) => assert_refused(&answer, RefusalCode::DeniedByTerms, reason),
            None => assert!(matches!(answer, Answer::Cleared(_)), "{answer:?}"),
        }
    }
}

#[test]
fn only_so_many_crossings_run_at_a_time() {
    // Of one peer.
    let (mut cluster, offer) = pair_with_offer();
    let peers = u8::try_from(limits::CROSSINGS_PER_PEER_MAX).expect("few");
    for crossing in 0..peers {
        let lie = cluster.by_hand(offer, crossing);
        assert!(matches!(cluster.put(&lie).1, Answer::Cleared(_)));
    }
    let lie = cluster.by_hand(offer, peers);
    assert_refused(&cluster.put(&lie).1, RefusalCode::Busy, "too many");

    // Of all, this node's own pulls among them.
    let (mut cluster, offer) = pair_with_offer();
    let theirs = cluster.offer(1, &[Label::Public]);
    for _ in 0..limits::CROSSINGS_RUNNING_MAX {
        cluster.pull(0, theirs);
    }
    let lie = cluster.by_hand(offer, 1);
    assert_refused(&cluster.put(&lie).1, RefusalCode::Busy, "too many");
    let call = cluster.pull_call(theirs);
    let reply = cluster.call(0, AdminCall::Pull(call));
    assert!(
        matches!(&reply, alliance_protocol::core::admin::Reply::Failed(failure)
            if failure.kind == alliance_protocol::core::admin::FailureKind::Busy),
        "{reply:?}"
    );
}
