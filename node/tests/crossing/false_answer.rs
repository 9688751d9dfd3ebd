//! An exporter whose answer is not an answer: clearances and refusals that do not hold, and bytes that are no frames.

use alliance_protocol::{
    core::admin::CrossingState,
    crossing::{ClearanceGiven, Receipt, Refusal, RefusalCode},
    envelope::{Draft, Signed},
    id::{CrossingId, ManifestId, SessionBinding, StatementId},
    time::Validity,
    vocabulary::{Label, Purpose},
};

use crate::{
    alliance::key,
    artefact::{Goods, tree},
    raw::{BAD_REQUEST, CLEARANCE, ENDED, Guest, MANIFEST, RECEIPT, REFUSAL, REQUEST},
    scene::{Scene, assert_undelivered},
    world::IMPORTER,
};

impl Guest {
    /// Sends this as a clearance and everything after it at once, without waiting for anybody.
    async fn press_on(mut self, clearance: &[u8], goods: &Goods) -> u64 {
        self.wire.frame(CLEARANCE, clearance).await;
        self.wire.frame(MANIFEST, &goods.manifest.encode()).await;
        self.wire.groups(&goods.stream(&[])).await;
        self.wire.told().await
    }

    fn refusal(&self, code: RefusalCode) -> Refusal {
        let asked = self.request.body();
        Refusal { crossing: asked.crossing, request: self.request.id(), exporter: asked.exporter, code, at: asked.asked }
    }
}

#[tokio::test]
async fn a_clearance_counts_for_one_request_in_one_session() {
    type Change = fn(&mut ClearanceGiven);
    let mut scene = Scene::new();
    let cases: [(&str, &str, Change); 13] = [
        ("another crossing", "its crossing", |clearance| clearance.crossing = CrossingId([1; 32])),
        ("another request", "its request", |clearance| clearance.request = StatementId([1; 32])),
        ("another exporter", "its signer", |clearance| clearance.exporter = key(1).public()),
        ("another importer", "its importer", |clearance| clearance.importer = key(1).public()),
        ("another manifest", "its manifest", |clearance| clearance.manifest = ManifestId([1; 32])),
        ("a label more", "its labels", |clearance| clearance.labels.extend([Label::Health])),
        ("no label", "its labels", |clearance| clearance.labels.clear()),
        ("another purpose", "its purpose", |clearance| clearance.purpose = Purpose::Military),
        ("another session", "its session", |clearance| clearance.session = SessionBinding([1; 32])),
        ("run out", "ran out", |clearance| {
            clearance.validity = Validity::lasting_ms(clearance.validity.from.minus_ms(10), 9)
        }),
        ("not yet", "not valid before", |clearance| {
            clearance.validity = Validity::lasting_ms(clearance.validity.from.plus_ms(120_000), 60_000);
        }),
        ("for ever", "its validity", |clearance| clearance.validity.until = clearance.validity.from.plus_ms(u64::MAX)),
        ("backwards", "", |clearance| {
            clearance.validity = Validity { from: clearance.validity.until, until: clearance.validity.from };
        }),
    ];
    let to = scene.fresh();
    for (what, problem, change) in cases {
        let script = async |guest: Guest, goods: &Goods| {
            let mut clearance = guest.clearance();
            change(&mut clearance);
            let clearance = guest.signed(&clearance);
            guest.press_on(&clearance, goods).await
        };
        let outcome = scene.refuted(what, &to, script).await;
        assert!(outcome.problem.contains(problem), "{what}: {}", outcome.problem);
        assert_eq!((outcome.told, outcome.view.refusal), (BAD_REQUEST, None), "{what}: {}", outcome.problem);
        assert_eq!(scene.world.nodes[IMPORTER].kinds(outcome.crossing), ["requested", "crossing_failed"], "{what}");
    }
    assert_eq!(scene.world.nodes[IMPORTER].received(), 0, "no byte was even looked at");
    assert_eq!(scene.pull_well(&to).await.held_bytes, 0);
}

#[tokio::test]
async fn a_clearance_needs_the_exporters_signature_and_no_other() {
    let mut scene = Scene::new();
    let to = scene.fresh();
    let alliance = scene.world.alliance.id;
    type Sign = fn(Draft<ClearanceGiven>, &Guest) -> Vec<u8>;
    let cases: [(&str, Sign); 4] = [
        ("of another key", |draft, _| draft.sign(&key(1)).to_bytes()),
        ("of two keys", |draft, guest| draft.sign(&guest.key).sign(&key(1)).to_bytes()),
        ("of nobody", |draft, _| draft.to_bytes()),
        ("of the exporter, and then altered", |draft, guest| {
            let mut bytes = draft.sign(&guest.key).to_bytes();
            let at = bytes.windows(8).position(|window| window == b"research").expect("the purpose");
            bytes[at..at + 8].copy_from_slice(b"judicial");
            bytes
        }),
    ];
    for (what, sign) in cases {
        let script = async |guest: Guest, goods: &Goods| {
            let clearance = sign(Draft::new(&guest.clearance(), alliance), &guest);
            guest.press_on(&clearance, goods).await
        };
        assert_eq!(scene.refuted(what, &to, script).await.told, BAD_REQUEST, "{what}");
    }
    // A clearance that was good once, in an earlier session.
    let mut earlier = Vec::new();
    let script = async |guest: Guest, goods: &Goods| {
        earlier = guest.signed(&guest.clearance());
        let mut bytes = goods.stream(&[]);
        bytes[0] ^= 1;
        guest.send_all(&goods.manifest.encode(), &bytes).await
    };
    scene.damaged("used once", &to, script).await;
    let received = scene.world.nodes[IMPORTER].received();
    let script = async |guest: Guest, goods: &Goods| guest.press_on(&earlier, goods).await;
    let outcome = scene.refuted("used again", &to, script).await;
    assert!(outcome.problem.contains("another crossing"), "{}", outcome.problem);
    assert_eq!((outcome.told, scene.world.nodes[IMPORTER].received()), (BAD_REQUEST, received));
    scene.pull_well(&to).await;
}

#[tokio::test]
async fn a_refusal_counts_if_the_exporter_signed_it() {
    let mut scene = Scene::new();
    let to = scene.fresh();
    let alliance = scene.world.alliance.id;
    let genuine = async |mut guest: Guest, _: &Goods| {
        let refusal = Signed::sign(&guest.refusal(RefusalCode::Busy), alliance, &guest.key).expect("small");
        guest.wire.frame(REFUSAL, refusal.bytes()).await;
        guest.wire.told().await
    };
    let outcome = scene.pull_from_liar(scene.offer, &to, genuine).await;
    assert_eq!((outcome.view.state, outcome.view.refusal), (CrossingState::Denied, Some(RefusalCode::Busy)));

    type Change = fn(&mut Refusal);
    let cases: [(&str, u8, Change); 3] = [
        ("another key", 1, |_| {}),
        ("another request", 100, |refusal| refusal.request = StatementId([1; 32])),
        ("another crossing", 100, |refusal| refusal.crossing = CrossingId([1; 32])),
    ];
    for (what, seed, change) in cases {
        let script = async |mut guest: Guest, _: &Goods| {
            let mut refusal = guest.refusal(RefusalCode::DeniedByLaw);
            change(&mut refusal);
            let refusal = Signed::sign(&refusal, alliance, &key(seed)).expect("small");
            guest.wire.frame(REFUSAL, refusal.bytes()).await;
            guest.wire.told().await
        };
        let outcome = scene.refuted(what, &to, script).await;
        assert_eq!(outcome.view.refusal, None, "{what}: a law is not blamed for what nobody said");
        assert!(outcome.problem.contains("does not answer"), "{what}: {}", outcome.problem);
    }
    scene.pull_well(&to).await;
}

#[tokio::test]
async fn an_answer_in_the_wrong_frame_ends_it() {
    let mut scene = Scene::new();
    let to = scene.fresh();
    let alliance = scene.world.alliance.id;
    let script = async |mut guest: Guest, goods: &Goods| {
        let clearance = guest.signed(&guest.clearance());
        guest.wire.frame(REFUSAL, &clearance).await;
        guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
        guest.wire.groups(&goods.stream(&[])).await;
        guest.wire.told().await
    };
    scene.refuted("a clearance in a refusal's frame", &to, script).await;
    let script = async |mut guest: Guest, _: &Goods| {
        let refusal = Signed::sign(&guest.refusal(RefusalCode::Stale), alliance, &guest.key).expect("small");
        guest.wire.frame(CLEARANCE, refusal.bytes()).await;
        guest.wire.told().await
    };
    let outcome = scene.pull_from_liar(scene.offer, &to, script).await;
    assert_eq!((outcome.view.state, outcome.view.refusal), (CrossingState::Denied, Some(RefusalCode::Stale)));
    assert_eq!(outcome.told, ENDED);
    assert_undelivered("a refusal in a clearance's frame", &to);
    assert_eq!(scene.world.nodes[IMPORTER].received(), 0);
    scene.pull_well(&to).await;
}

#[tokio::test]
async fn bytes_that_are_no_answer_end_it() {
    let frame = |kind: u8, announced: u32, payload: &[u8]| [&[kind][..], &announced.to_be_bytes(), payload].concat();
    let whole = |kind: u8, payload: &[u8]| frame(kind, u32::try_from(payload.len()).expect("short"), payload);
    let mut scene = Scene::new();
    let to = scene.fresh();
    let (manifest, statement) = (64 * 1024 * 1024, 16 * 1024);
    // What is sent in the place of the answer, or after it in the place of the manifest.
    let instead_of_answer = [
        Vec::new(),
        vec![CLEARANCE, 0],
        vec![0; 100],
        vec![0xff; 100_000],
        frame(9, 0, b""),
        whole(REQUEST, b"what?"),
        whole(MANIFEST, &scene.goods.manifest.encode()),
        whole(RECEIPT, b"thank you"),
        whole(CLEARANCE, b""),
        whole(CLEARANCE, b"\xa1"),
        whole(CLEARANCE, &vec![0x81; statement]),
        frame(CLEARANCE, u32::try_from(statement).expect("small") + 1, &vec![0; statement + 1]),
        frame(CLEARANCE, u32::MAX, &[0; 1000]),
        frame(REFUSAL, 1000, &[0; 999]),
    ];
    let instead_of_manifest = [
        Vec::new(),
        whole(CLEARANCE, b""),
        whole(RECEIPT, b""),
        frame(MANIFEST, manifest + 1, &[0; 1000]),
        frame(MANIFEST, 1000, &[0; 999]),
        vec![0; 5],
    ];
    // These are frames, and what is in them is not what was cleared.
    let no_manifests = [
        whole(MANIFEST, b""),
        whole(MANIFEST, &vec![0x81; 1_000_000]),
        whole(MANIFEST, &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        whole(MANIFEST, &scene.goods.manifest.encode()[1..]),
        whole(MANIFEST, &[&scene.goods.manifest.encode()[..], b"\0"].concat()),
    ];
    // A frame of the right kind and length is an answer; what is in it decides Core.
    let no_refusal = (false, whole(REFUSAL, &[0xa0; 100]), 0);
    let answers = instead_of_answer.into_iter().map(|bytes| (false, bytes, BAD_REQUEST)).chain([no_refusal]);
    let manifests = instead_of_manifest.into_iter().map(|bytes| (true, bytes, BAD_REQUEST));
    let lies = no_manifests.into_iter().map(|bytes| (true, bytes, crate::raw::DAMAGED));
    for (cleared, bytes, code) in answers.chain(manifests).chain(lies) {
        let what = format!("cleared: {cleared}, then {} bytes: {:02x?}", bytes.len(), &bytes[..bytes.len().min(8)]);
        let script = async |mut guest: Guest, _: &Goods| {
            if cleared {
                guest.clear().await;
            }
            guest.wire.bytes(&bytes).await;
            let _stopped = guest.wire.send.finish();
            guest.wire.told().await
        };
        let outcome = scene.refuted(&what, &to, script).await;
        assert_eq!(outcome.told, code, "{what}: {}", outcome.problem);
    }
    assert_eq!(scene.world.nodes[IMPORTER].received(), 0);
    assert_eq!(scene.pull_well(&to).await.held_bytes, 0);
}

#[tokio::test]
async fn a_receipt_that_comes_back_wrong_leaves_the_delivery_unsettled() {
    type Answer = fn(&Guest, Signed<Receipt>) -> Option<Vec<u8>>;
    let cases: [(&str, Answer); 6] = [
        ("none", |_, _| None),
        ("as it was", |_, receipt| Some(receipt.bytes().to_vec())),
        ("nothing in it", |_, _| Some(Vec::new())),
        ("signed by a third", |_, receipt| Some(receipt.countersign(&key(1)).expect("small").bytes().to_vec())),
        ("signed by all three", |guest, receipt| {
            let draft = Draft::<Receipt>::open(receipt.bytes()).expect("a receipt");
            Some(draft.sign(&guest.key).sign(&key(1)).to_bytes())
        }),
        ("other bytes", |guest, receipt| {
            let body = Receipt { bytes: 1, ..receipt.body().clone() };
            Some(Signed::sign(&body, guest.alliance, &guest.key).expect("small").bytes().to_vec())
        }),
    ];
    let mut scene = Scene::new();
    for (what, answer) in cases {
        let to = scene.fresh();
        let script = async |mut guest: Guest, goods: &Goods| {
            guest.clear().await;
            guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
            guest.wire.groups(&goods.stream(&[])).await;
            let (kind, receipt) = guest.wire.read().await.expect("a receipt");
            assert_eq!(kind, RECEIPT);
            let receipt = Signed::<Receipt>::open(&receipt, guest.alliance).expect("a receipt");
            assert_eq!((receipt.body().bytes, receipt.body().held_bytes), (goods.manifest.bytes(), 0));
            match answer(&guest, receipt) {
                Some(bytes) => {
                    guest.wire.frame(RECEIPT, &bytes).await;
                    guest.wire.told().await
                }
                None => {
                    guest.wire.close(0);
                    0
                }
            }
        };
        let outcome = scene.pull_from_liar(scene.offer, &to, script).await;
        assert_eq!(outcome.view.state, CrossingState::DoneUnsettled, "{what}: {:?}", outcome.view);
        let kinds = scene.world.nodes[IMPORTER].kinds(outcome.crossing);
        let expected = ["requested", "clearance_accepted", "received", "model_imported", "crossing_failed"];
        assert_eq!(kinds, expected, "{what}");
        assert!(tree(&to) == tree(&scene.model.path), "{what}: it was verified and delivered");
    }
}
