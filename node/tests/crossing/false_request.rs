//! An importer that asks for what it may not have, or in a way that does not hold. No artefact byte leaves.

use std::collections::BTreeSet;

use alliance_protocol::{
    core::admin::{AdminCall, CrossingState, OfferDraft, Reply},
    crossing::{ClearanceGiven, CrossingRequest, LedgerHead, Refusal, RefusalCode},
    envelope::{Draft, Signed},
    id::{CrossingId, ManifestId, SessionBinding, Sha256, StatementId},
    key::SecretKey,
    offer::{ComputeOffer, Terms},
    time::{Timestamp, Validity},
    vocabulary::{Label, Purpose, Use},
};

use crate::{
    alliance::{DAY, HOUR, country, key},
    artefact::{awkward, plain},
    raw::{BAD_REQUEST, CLEARANCE, MANIFEST, RECEIPT, REFUSAL, REQUEST, RawImporter, Wire},
    world::{EXPORTER, IMPORTER, World},
};

/// What came back.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Cleared,
    /// The code, and whether the refusal is about this request.
    Refused(RefusalCode, bool),
    /// The connection ended with this code.
    Ended(u64),
}

const fn refused(code: RefusalCode) -> Answer {
    Answer::Refused(code, true)
}

/// What a stranger gets to see: a code about the bytes that it sent.
const fn brushed_off(code: RefusalCode) -> Answer {
    Answer::Refused(code, false)
}

impl World {
    /// A request that holds, of the importer, but for what a test does to it.
    fn request(&mut self, offer: StatementId, manifest: ManifestId, session: SessionBinding) -> CrossingRequest {
        let number = self.fresh(IMPORTER).display().to_string();
        CrossingRequest {
            crossing: CrossingId(*blake3::hash(number.as_bytes()).as_bytes()),
            importer: self.nodes[IMPORTER].public(),
            exporter: self.nodes[EXPORTER].public(),
            offer,
            manifest,
            parts: None,
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: BTreeSet::new(),
            safeguards: Vec::new(),
            accreditation: self.nodes[IMPORTER].accreditation.clone(),
            verdicts: StatementId([0; 32]),
            session,
            ledger: LedgerHead { size: 0, root: Sha256([0; 32]) },
            asked: self.now,
        }
    }

    async fn reach(&mut self, raw: &RawImporter) -> Wire {
        let address = self.nodes[EXPORTER].bulk.local_addr();
        self.during(raw.connect(address, 1_000_000)).await
    }

    /// Signs and sends a request; what the exporter answers.
    async fn ask(&mut self, wire: Wire, request: &CrossingRequest, signer: &SecretKey) -> Answer {
        let request = Signed::sign(request, self.alliance.id, signer).expect("small");
        self.send(wire, request.bytes()).await
    }

    async fn send(&mut self, mut wire: Wire, bytes: &[u8]) -> Answer {
        let answered = self
            .during(async {
                wire.frame(REQUEST, bytes).await;
                let answer = wire.read().await;
                wire.close(0);
                answer
            })
            .await;
        let exporter = self.nodes[EXPORTER].public();
        match answered {
            Ok((CLEARANCE, clearance)) => {
                let clearance = Signed::<ClearanceGiven>::open(&clearance, self.alliance.id).expect("a clearance");
                assert!(clearance.signed_only_by(&exporter));
                Answer::Cleared
            }
            Ok((REFUSAL, refusal)) => {
                let refusal = Signed::<Refusal>::open(&refusal, self.alliance.id).expect("a refusal");
                assert!(refusal.signed_only_by(&exporter));
                let request = Signed::<CrossingRequest>::open(bytes, self.alliance.id);
                let about = request.is_ok_and(|request| refusal.body().request == request.id());
                if !about {
                    assert_eq!(refusal.body().request, StatementId(*blake3::hash(bytes).as_bytes()));
                }
                Answer::Refused(refusal.body().code, about)
            }
            Ok((kind, _)) => panic!("a frame of kind {kind}"),
            Err(code) => Answer::Ended(code),
        }
    }

    fn records(&self) -> usize {
        self.nodes[EXPORTER].entries.len()
    }
}

#[tokio::test]
async fn a_request_that_does_not_hold_is_refused() {
    type Change = fn(&mut CrossingRequest);
    const BAD: RefusalCode = RefusalCode::BadRequest;
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, awkward);
    let raw = RawImporter::open(&world.nodes[IMPORTER].key);
    // What it says of itself is false: a stranger for all that is known, who leaves no trace in the ledger.
    let stranger: [(&str, RefusalCode, Change); 4] = [
        ("of another importer", BAD, |request| request.importer = key(1).public()),
        ("without an accreditation", RefusalCode::NotAccredited, |request| request.accreditation.clear()),
        ("with half of one", RefusalCode::NotAccredited, |request| request.accreditation.truncate(100)),
        ("with an altered one", RefusalCode::NotAccredited, |request| {
            let at = request.accreditation.windows(4).position(|window| window == b"iitb").expect("its name");
            request.accreditation[at] = b'u';
        }),
    ];
    // It is a node of the alliance, and what it asks makes no sense. That is recorded.
    let known: [(&str, RefusalCode, Change); 8] = [
        ("another session", BAD, |request| request.session = SessionBinding([1; 32])),
        ("another exporter", BAD, |request| request.exporter = key(1).public()),
        ("from yesterday", BAD, |request| request.asked = request.asked.minus_ms(DAY)),
        ("from tomorrow", BAD, |request| request.asked = request.asked.plus_ms(DAY)),
        ("from the end of time", BAD, |request| request.asked = Timestamp(u64::MAX)),
        ("another manifest", RefusalCode::NoOffer, |request| request.manifest = ManifestId([1; 32])),
        ("another offer", RefusalCode::NoOffer, |request| request.offer = StatementId([1; 32])),
        ("too many safeguards", BAD, |request| request.safeguards = vec![vec![0; 10].into(); 17]),
    ];
    for (cases, recorded) in [(&stranger[..], 0), (&known[..], 1)] {
        for (what, code, change) in cases {
            let (before, wire) = (world.records(), world.reach(&raw).await);
            let mut request = world.request(offer, model.manifest, wire.session);
            change(&mut request);
            let answer = world.ask(wire, &request, &raw.key).await;
            let expected = if recorded == 1 { refused(*code) } else { brushed_off(*code) };
            assert_eq!(answer, expected, "{what}");
            assert_eq!(world.records() - before, recorded, "{what}");
            if recorded == 1 {
                assert_eq!(world.nodes[EXPORTER].kinds(request.crossing), ["refused"], "{what}");
                let view = world.view(EXPORTER, request.crossing).expect("recorded");
                assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(*code)), "{what}");
            }
        }
    }
    assert_eq!((world.nodes[EXPORTER].sent(), world.running(EXPORTER)), (0, 0));
    let to = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &model, &to).await;
}

#[tokio::test]
async fn a_request_needs_the_signature_of_the_key_that_the_connection_proved() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, awkward);
    let honest = RawImporter::open(&world.nodes[IMPORTER].key);
    let thief = RawImporter::open(&key(7));
    let before = world.records();

    // Signed by somebody else, over a connection of the importer.
    let wire = world.reach(&honest).await;
    let request = world.request(offer, model.manifest, wire.session);
    assert_eq!(world.ask(wire, &request, &key(7)).await, brushed_off(RefusalCode::BadRequest));
    // The importer's good request, for the thief's session, over the thief's connection.
    let wire = world.reach(&thief).await;
    let request = world.request(offer, model.manifest, wire.session);
    let importer = SecretKey::from_seed(&honest.key.to_seed());
    assert_eq!(world.ask(wire, &request, &importer).await, brushed_off(RefusalCode::BadRequest));
    // In its own name, with the importer's accreditation.
    let wire = world.reach(&thief).await;
    let mut request = world.request(offer, model.manifest, wire.session);
    request.importer = thief.key.public();
    assert_eq!(world.ask(wire, &request, &thief.key).await, brushed_off(RefusalCode::NotAccredited));
    // With one that it has signed itself.
    let wire = world.reach(&thief).await;
    let mut request = world.request(offer, model.manifest, wire.session);
    request.importer = thief.key.public();
    let trusted = world.alliance.accreditation(country("IN"), thief.key.public(), "thieves");
    let body = Signed::<alliance_protocol::authority::Accreditation>::open(&trusted, world.alliance.id).expect("one");
    request.accreditation = world.alliance.signed(&thief.key, body.body()).bytes().to_vec();
    assert_eq!(world.ask(wire, &request, &thief.key).await, brushed_off(RefusalCode::NotAccredited));
    // Signed by two.
    let wire = world.reach(&honest).await;
    let request = world.request(offer, model.manifest, wire.session);
    let both = Draft::new(&request, world.alliance.id).sign(&honest.key).sign(&thief.key).to_bytes();
    assert_eq!(world.send(wire, &both).await, brushed_off(RefusalCode::BadRequest));

    assert_eq!(world.records(), before, "strangers leave no trace");
    assert_eq!(world.nodes[EXPORTER].sent(), 0);
    let to = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &model, &to).await;
}

#[tokio::test]
async fn a_request_is_answered_once() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 1));
    let raw = RawImporter::open(&world.nodes[IMPORTER].key);
    let mut wire = world.reach(&raw).await;
    let request = world.request(offer, model.manifest, wire.session);
    let bytes = world.alliance.signed(&raw.key, &request).bytes().to_vec();
    // It is cleared and served; the importer is not seen again.
    let first = world
        .during(async {
            wire.frame(REQUEST, &bytes).await;
            let answer = wire.read().await;
            let _manifest = wire.read().await;
            wire.close(1);
            answer
        })
        .await;
    assert!(matches!(first, Ok((CLEARANCE, _))), "{first:?}");
    assert_eq!(world.settle(EXPORTER, request.crossing).await.state, CrossingState::Failed);
    let (sent, records) = (world.nodes[EXPORTER].sent(), world.nodes[EXPORTER].kinds(request.crossing));

    for restart in [false, true] {
        if restart {
            world.restart(EXPORTER, alliance_node::bulk::Deadlines::default()).await;
        }
        let sent = world.nodes[EXPORTER].sent();
        // The same bytes in a new session, and the same crossing asked for anew.
        let wire = world.reach(&raw).await;
        assert_eq!(world.send(wire, &bytes).await, refused(RefusalCode::BadRequest));
        let wire = world.reach(&raw).await;
        let again = CrossingRequest { session: wire.session, asked: world.now, ..request.clone() };
        assert_eq!(world.ask(wire, &again, &raw.key).await, refused(RefusalCode::BadRequest));
        assert_eq!(world.nodes[EXPORTER].kinds(request.crossing), records, "what was recorded stays");
        assert_eq!(world.nodes[EXPORTER].sent(), sent, "no artefact byte");
    }
    assert!(sent <= model.bytes);
}

#[tokio::test]
async fn what_law_or_the_offer_denies_is_refused_whatever_the_importer_says() {
    let mut world = World::pair();
    let secret = world.import(EXPORTER, &[Label::StateSecret], awkward);
    let health = world.import(EXPORTER, &[Label::Health, Label::Personal], |dir| plain(dir, 1));
    let open = world.import(EXPORTER, &[Label::Public], |dir| plain(dir, 2));
    let private = world.import(EXPORTER, &[Label::Public], |dir| plain(dir, 3));
    let offers = [&secret, &health, &open].map(|model| world.publish(EXPORTER, model));
    let compute = {
        let compute = ComputeOffer { accelerator: "H100".into(), count: 8, memory_mib: 80_000, hours: 10 };
        let terms = Terms { purposes: BTreeSet::new(), to: BTreeSet::new(), onward: false };
        let draft = OfferDraft { name: "usp/cluster".into(), compute: Some(compute), terms, ttl_ms: DAY };
        match world.call(EXPORTER, AdminCall::Publish(draft)) {
            Reply::Published(view) => view.offer,
            other => panic!("{other:?}"),
        }
    };
    let raw = RawImporter::open(&world.nodes[IMPORTER].key);
    let garbage = vec![serde_bytes::ByteBuf::from(vec![0xa1; 3000]); 16];
    let cases = [
        ("a state secret", offers[0], secret.manifest, RefusalCode::DeniedByLaw),
        ("health data without a ground", offers[1], health.manifest, RefusalCode::DeniedByLaw),
        ("what is not offered", offers[2], private.manifest, RefusalCode::NoOffer),
        ("a secret under the offer of another model", offers[2], secret.manifest, RefusalCode::NoOffer),
        ("compute", compute, open.manifest, RefusalCode::NoOffer),
    ];
    for (what, offer, manifest, code) in cases {
        for safeguards in [Vec::new(), garbage.clone()] {
            let wire = world.reach(&raw).await;
            let request = CrossingRequest { safeguards, ..world.request(offer, manifest, wire.session) };
            assert_eq!(world.ask(wire, &request, &raw.key).await, refused(code), "{what}");
            assert_eq!(world.nodes[EXPORTER].kinds(request.crossing), ["refused"], "{what}");
        }
    }
    // Revoked in the meantime, by its own authority.
    let importer = world.nodes[IMPORTER].public();
    world.renew(country("IN"), HOUR, &[importer]);
    let wire = world.reach(&raw).await;
    let request = world.request(offers[2], open.manifest, wire.session);
    assert_eq!(world.ask(wire, &request, &raw.key).await, refused(RefusalCode::NotAccredited));
    // Nobody says any more that it is not.
    world.let_pass(6 * HOUR);
    let wire = world.reach(&raw).await;
    let request = world.request(offers[2], open.manifest, wire.session);
    let answer = world.ask(wire, &request, &raw.key).await;
    assert!(matches!(answer, Answer::Refused(RefusalCode::Stale | RefusalCode::NotAccredited, true)), "{answer:?}");
    assert_eq!((world.nodes[EXPORTER].sent(), world.running(EXPORTER)), (0, 0));
}

#[tokio::test]
async fn safeguards_that_are_garbage_are_ignored_and_named() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 1));
    let raw = RawImporter::open(&world.nodes[IMPORTER].key);
    let accreditation = world.nodes[IMPORTER].accreditation.clone();
    let safeguards: Vec<serde_bytes::ByteBuf> =
        [Vec::new(), vec![0xff; 1000], accreditation].into_iter().map(Into::into).collect();
    let wire = world.reach(&raw).await;
    let request = CrossingRequest { safeguards, ..world.request(offer, model.manifest, wire.session) };
    assert_eq!(world.ask(wire, &request, &raw.key).await, Answer::Cleared);
    let view = world.settle(EXPORTER, request.crossing).await;
    assert_eq!(view.safeguards_ignored.len(), 3, "{view:?}");
    assert!(view.facts.is_some_and(|facts| facts.safeguards.is_empty()));
}

#[tokio::test]
async fn bytes_that_are_no_request_get_no_further() {
    let frame = |kind: u8, announced: u32, payload: &[u8]| [&[kind][..], &announced.to_be_bytes(), payload].concat();
    let largest = 256 * 1024;
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, awkward);
    let before = world.records();
    // The exporter ends these without asking its Core.
    let broken = [
        vec![0; 5],
        vec![0xff; 5],
        frame(REQUEST, largest + 1, &[0; 100]),
        frame(REQUEST, u32::MAX, &[0; 100]),
        frame(REQUEST, 1000, &[0; 999]),
        frame(CLEARANCE, 10, &[0; 10]),
        frame(MANIFEST, 10, &[0; 10]),
        frame(RECEIPT, 10, &[0; 10]),
        vec![REQUEST],
        Vec::new(),
    ];
    for (at, bytes) in broken.into_iter().enumerate() {
        let raw = RawImporter::open(&if at % 2 == 0 { key(7) } else { key(101) });
        let mut wire = world.reach(&raw).await;
        let told = world
            .during(async {
                wire.bytes(&bytes).await;
                let _stopped = wire.send.finish();
                wire.told().await
            })
            .await;
        assert_eq!(told, BAD_REQUEST, "{:02x?}", &bytes[..bytes.len().min(8)]);
    }
    // These are requests, as far as the wire goes.
    let payloads = [Vec::new(), vec![0; 1], vec![0x81; 200_000], vec![0xff; usize::try_from(largest).expect("small")]];
    for payload in payloads {
        let raw = RawImporter::open(&key(101));
        let wire = world.reach(&raw).await;
        let answer = world.send(wire, &payload).await;
        assert_eq!(answer, brushed_off(RefusalCode::BadRequest), "{} bytes", payload.len());
    }
    assert_eq!((world.records(), world.nodes[EXPORTER].sent()), (before, 0));
    let to = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &model, &to).await;
}

/// A status that is not the importer's own to publish changes nothing.
#[tokio::test]
async fn an_importer_cannot_speak_for_its_authority() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 1));
    let importer = world.nodes[IMPORTER].public();
    let real = world.alliance.status(country("IN"), Validity::lasting_ms(world.now, HOUR), &[importer]);
    let body = Signed::<alliance_protocol::authority::Status>::open(&real, world.alliance.id).expect("a status");
    let mut own = body.body().clone();
    (own.serial, own.revoked) = (own.serial + 1, BTreeSet::new());
    world.adopt(EXPORTER, real);
    let forged = world.alliance.signed(&world.nodes[IMPORTER].key, &own).bytes().to_vec();
    let reply = world.call(EXPORTER, AdminCall::Adopt(vec![forged.into()]));
    assert!(matches!(reply, Reply::Failed(_)), "{reply:?}");
    let raw = RawImporter::open(&world.nodes[IMPORTER].key);
    let wire = world.reach(&raw).await;
    let request = world.request(offer, model.manifest, wire.session);
    assert_eq!(world.ask(wire, &request, &raw.key).await, refused(RefusalCode::NotAccredited));
    assert_eq!(world.nodes[EXPORTER].sent(), 0);
}
