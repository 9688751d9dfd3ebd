//! An exporter whose offer or manifest is a lie from the start. Every group is then what the manifest says.

use std::collections::BTreeSet;

use alliance_protocol::{
    core::admin::{AdminCall, CrossingState, Reply},
    crossing::{ClearanceGiven, RefusalCode},
    id::{ManifestId, Sha256},
    manifest::{File, Manifest, Segment, SegmentKind},
    offer::ModelOffer,
    vocabulary::{Artefact, Label},
};

use crate::{
    artefact::{GROUP, Goods, noise, plain, safetensors},
    raw::{CLEARANCE, Guest, MANIFEST},
    scene::{Outcome, Scene, assert_undelivered},
    world::{EXPORTER, IMPORTER, World},
};

/// A manifest of files without structure.
fn opaque(labels: BTreeSet<Label>, files: &[(&str, &[u8])]) -> Manifest {
    let file = |(path, bytes): &(&str, &[u8])| File {
        path: (*path).to_owned(),
        bytes: bytes.len() as u64,
        sha256: Sha256([0; 32]),
        segments: vec![Segment::of(SegmentKind::Opaque, bytes)],
    };
    Manifest::new(Artefact::Weights, labels, files.iter().map(file).collect()).expect("sound in itself")
}

impl Scene {
    /// Offers falsely, and sends this manifest and these bytes.
    async fn swindle(
        &mut self,
        what: &str,
        manifest: &[u8],
        bytes: &[u8],
        change: impl FnOnce(&mut ModelOffer),
    ) -> Outcome {
        let (offer, to) = (self.offer_falsely(change), self.fresh());
        let script = async |guest: Guest, _: &Goods| guest.send_all(manifest, bytes).await;
        let outcome = self.pull_from_liar(offer, &to, script).await;
        assert_undelivered(what, &to);
        self.assert_damaged(what, &outcome);
        // The truth, under the same name.
        self.pull_well(&to).await;
        outcome
    }
}

#[tokio::test]
async fn a_manifest_other_than_the_cleared_one_is_not_taken() {
    let mut scene = Scene::new();
    let total = usize::try_from(scene.model.bytes).expect("small");
    let bytes = noise(total, 99);
    let other = opaque([Label::Public].into(), &[("model.bin", &bytes)]);
    assert_eq!(other.bytes(), scene.model.bytes);
    let true_bytes = scene.goods.stream(&[]);
    let files = scene.goods.manifest.files().to_vec();
    let labels = [Label::Public, Label::Personal].into();
    let labelled = Manifest::new(Artefact::Weights, labels, files.clone()).expect("sound");
    let code = Manifest::new(Artefact::Code, [Label::Public].into(), files).expect("sound");
    let cases = [
        ("another model of the same length", other, bytes),
        ("a label more", labelled, true_bytes.clone()),
        ("another class", code, true_bytes),
    ];
    for (what, manifest, bytes) in cases {
        let to = scene.fresh();
        let encoded = manifest.encode();
        let script = async |guest: Guest, _: &Goods| guest.send_all(&encoded, &bytes).await;
        let outcome = scene.damaged(what, &to, script).await;
        assert!(outcome.problem.contains("instead of"), "{what}: {}", outcome.problem);
        assert_eq!(scene.pull_well(&to).await.held_bytes, 0, "{what}");
    }
}

#[tokio::test]
async fn a_manifest_that_declares_more_than_the_offer_is_not_taken() {
    let mut scene = Scene::new();
    let manifest = opaque([Label::Public, Label::Health].into(), &[("model.bin", &noise(GROUP, 1))]);
    let (encoded, bytes) = (manifest.encode(), noise(GROUP, 1));
    let outcome = scene
        .swindle("a label that law was not asked about", &encoded, &bytes, |offer| {
            (offer.manifest, offer.bytes) = (manifest.id(), manifest.bytes());
        })
        .await;
    assert!(outcome.problem.contains("`health`"), "{}", outcome.problem);
}

#[tokio::test]
async fn a_manifest_with_other_labels_on_its_tensors_than_were_offered_is_not_taken() {
    let mut scene = Scene::new();
    let (small, large) = (noise(10, 1), noise(1000, 2));
    let file = |path: &str, bytes: &[u8], labels: Option<BTreeSet<Label>>| File {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        sha256: Sha256([0; 32]),
        segments: vec![Segment { labels, ..Segment::of(SegmentKind::Opaque, bytes) }],
    };
    let made_up = Some(BTreeSet::from([Label::Public, Label::Synthetic]));
    let manifest = |of_small, of_large| {
        let files = vec![file("large.bin", &large, of_large), file("small.bin", &small, of_small)];
        Manifest::new(Artefact::Weights, [Label::Public].into(), files).expect("sound in itself")
    };
    let (sent, offered) = (manifest(made_up.clone(), None), manifest(None, made_up));
    assert_eq!((offered.labels(), offered.bytes()), (sent.labels(), sent.bytes()));
    let what = "most was said to be synthetic, and little is";
    let (encoded, bytes, labels) = (sent.encode(), [large.clone(), small.clone()].concat(), sent.labels());
    let offer = scene.offer_falsely(|offer| {
        (offer.manifest, offer.bytes, offer.files, offer.tensors) = (sent.id(), sent.bytes(), 2, 0);
        (offer.labels, offer.parts) = (offered.labels(), offered.parts().to_vec());
    });
    let script = async |mut guest: Guest, _: &Goods| {
        let clearance = ClearanceGiven { labels: labels.clone(), ..guest.clearance() };
        let clearance = guest.signed(&clearance);
        guest.wire.frame(CLEARANCE, &clearance).await;
        guest.wire.frame(MANIFEST, &encoded).await;
        guest.wire.groups(&bytes).await;
        guest.wire.told().await
    };
    let to = scene.fresh();
    let outcome = scene.pull_from_liar(offer, &to, script).await;
    assert_undelivered(what, &to);
    scene.assert_damaged(what, &outcome);
    assert!(outcome.problem.contains("labels that were decided on"), "{}", outcome.problem);
}

#[tokio::test]
async fn a_manifest_of_another_class_or_length_than_was_offered_is_not_taken() {
    let mut scene = Scene::new();
    let (encoded, bytes) = (scene.goods.manifest.encode(), scene.goods.stream(&[]));
    let outcome =
        scene.swindle("law was asked about code", &encoded, &bytes, |offer| offer.artefact = Artefact::Code).await;
    assert!(outcome.problem.contains("`weights`"), "{}", outcome.problem);
    for wrong in [0, 1, scene.model.bytes - 1, u64::MAX] {
        let outcome = scene.swindle("another length was offered", &encoded, &bytes, |offer| offer.bytes = wrong).await;
        assert!(outcome.problem.contains("bytes"), "{}", outcome.problem);
    }
    assert_eq!(scene.world.nodes[IMPORTER].kinds(outcome.crossing).last(), Some(&"crossing_failed"));
}

#[tokio::test]
async fn a_manifest_that_leads_out_of_the_directory_is_not_taken() {
    let mut scene = Scene::new();
    let (encoded, bytes) = (scene.goods.manifest.encode(), scene.goods.stream(&[]));
    for path in ["../outside1", "/tmp/outsid", "a/../../out", "a//outside1", ".\0outside12", "./outside12"] {
        let mut manifest = encoded.clone();
        let at = manifest.windows(11).position(|window| window == b"config.json").expect("the file");
        manifest[at..at + 11].copy_from_slice(&path.as_bytes()[..11]);
        let id = ManifestId(*blake3::hash(&manifest).as_bytes());
        scene.swindle(path, &manifest, &bytes, |offer| offer.manifest = id).await;
    }
}

#[tokio::test]
async fn files_that_are_not_what_their_names_say_are_not_delivered() {
    let mut scene = Scene::new();
    let pickle: &[u8] = b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.";
    let overlapping = {
        let header = br#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}  "#;
        [&(header.len() as u64).to_le_bytes()[..], header, &[7; 12]].concat()
    };
    let sound = safetensors(&[100]);
    let cases: [(&str, &str, &[u8]); 3] = [
        ("code that runs when it is loaded", "weights.bin", pickle),
        ("tensors that overlap", "model.safetensors", &overlapping),
        ("a tensor file without its tensors", "model.safetensors", &sound),
    ];
    for (what, path, bytes) in cases {
        let manifest = opaque([Label::Public].into(), &[(path, bytes)]);
        scene
            .swindle(what, &manifest.encode(), bytes, |offer| {
                (offer.manifest, offer.bytes) = (manifest.id(), manifest.bytes());
            })
            .await;
    }
}

#[tokio::test]
async fn a_node_that_offers_a_model_under_fewer_labels_than_its_manifest_is_caught_by_the_importer() {
    let mut world = World::pair();
    let mut model = world.import(EXPORTER, &[Label::Public, Label::Health], |dir| plain(dir, 64));
    model.labels = [Label::Public].into();
    model.parts[0].labels = [Label::Public].into();
    assert!(matches!(world.call(EXPORTER, AdminCall::Import(Box::new(model.clone()))), Reply::Imported(_)));
    let (offer, to) = (world.publish(EXPORTER, &model), world.fresh(IMPORTER));
    let crossing = world.pull(IMPORTER, offer, &to);
    for at in [EXPORTER, IMPORTER] {
        let view = world.settle(at, crossing).await;
        assert_eq!((view.state, view.refusal), (CrossingState::Failed, Some(RefusalCode::Damaged)), "{at}: {view:?}");
    }
    assert_undelivered("fewer labels", &to);
    assert_eq!(world.nodes[IMPORTER].received(), 0);
    let sent = world.nodes[EXPORTER].sent();
    assert_eq!(world.nodes[EXPORTER].failure(crossing).0, sent, "what may have left is recorded");
}
