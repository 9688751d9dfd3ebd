//! The examples of `specs/vectors`, which were made without this crate, hold for it.
//!
//! A failure here means that the code and the specification have come apart: one of them has a bug.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::{collections::BTreeSet, fs, path::Path};

use alliance_protocol::{
    authority::{Accreditation, Approval, LawPack, Safeguard, Status},
    charter::{Charter, Chartered},
    crossing::{ClearanceGiven, CrossingRequest, Receipt, Refusal},
    envelope::{OpenError, Signed, Statement},
    id::AllianceId,
    key::{PublicKey, SecretKey},
    ledger::{Checkpoint, Merkle, Origin, leaf_hash},
    manifest::Manifest,
    model_key::ModelKeyBinding,
    offer::{NodeRecord, Offer, Withdrawal},
    rotation::KeyRotation,
    training::{Attestation, SignedStep},
};
use serde_json::Value;

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs/vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("a vector file is JSON")
}

fn cases<'a>(file: &'a Value, list: &str) -> &'a [Value] {
    let cases = file[list].as_array().expect("a list of cases");
    assert!(!cases.is_empty(), "{list}");
    cases
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field} of {case}"))
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(case, field)).expect("hexadecimal")
}

/// What opening a statement gives: id, signers and bytes.
type Opened = Result<(String, Vec<String>, Vec<u8>), OpenError>;

fn open(kind: &str, statement: &[u8], alliance: AllianceId) -> Opened {
    fn opened<T: Statement>(statement: &[u8], alliance: AllianceId) -> Opened {
        let signed = Signed::<T>::open(statement, alliance)?;
        let signers = signed.signers().iter().map(ToString::to_string).collect();
        Ok((signed.id().to_string(), signers, signed.bytes().to_vec()))
    }
    match kind {
        Charter::KIND => opened::<Charter>(statement, alliance),
        Accreditation::KIND => opened::<Accreditation>(statement, alliance),
        Status::KIND => opened::<Status>(statement, alliance),
        LawPack::KIND => opened::<LawPack>(statement, alliance),
        Safeguard::KIND => opened::<Safeguard>(statement, alliance),
        NodeRecord::KIND => opened::<NodeRecord>(statement, alliance),
        Offer::KIND => opened::<Offer>(statement, alliance),
        Withdrawal::KIND => opened::<Withdrawal>(statement, alliance),
        CrossingRequest::KIND => opened::<CrossingRequest>(statement, alliance),
        ClearanceGiven::KIND => opened::<ClearanceGiven>(statement, alliance),
        ModelKeyBinding::KIND => opened::<ModelKeyBinding>(statement, alliance),
        Approval::KIND => opened::<Approval>(statement, alliance),
        Refusal::KIND => opened::<Refusal>(statement, alliance),
        Receipt::KIND => opened::<Receipt>(statement, alliance),
        KeyRotation::KIND => opened::<KeyRotation>(statement, alliance),
        other => panic!("`{other}` is not a kind of statement"),
    }
}

/// STATEMENT-1 to STATEMENT-6, STATEMENT-10 to STATEMENT-13, STATEMENT-20 to STATEMENT-37.
#[test]
fn statements_open_as_specified() {
    let file = read("statements.json");
    let mut kinds = BTreeSet::new();
    for case in cases(&file, "valid") {
        let alliance = text(case, "alliance").parse().expect("an alliance");
        let statement = bytes(case, "statement");
        let reason = text(case, "reason");
        let (id, signers, kept) = open(text(case, "kind"), &statement, alliance).expect(reason);
        let expected: Vec<&str> = cases(case, "signers").iter().filter_map(Value::as_str).collect();
        assert_eq!((id.as_str(), kept), (text(case, "id"), statement), "{reason}");
        assert_eq!(signers, expected, "{reason}");
        if text(case, "kind") == ModelKeyBinding::KIND {
            let node = expected.first().and_then(|key| key.parse().ok()).expect("a signer");
            ModelKeyBinding::key_of(&bytes(case, "statement"), &node, alliance).expect("bound by both");
        }
        kinds.insert(text(case, "kind"));
    }
    assert_eq!(kinds.len(), 15, "there is a vector for each kind");
}

#[test]
fn the_charter_of_the_vectors_founds_the_alliance_of_the_others() {
    let file = read("statements.json");
    let [charter, following, next, ..] = cases(&file, "valid") else { panic!("a charter, its next version and more") };
    let mut chartered = Chartered::found(&bytes(charter, "statement")).expect("a founding charter");
    assert_eq!(chartered.alliance().to_string(), text(next, "alliance"));
    chartered.succeed(&bytes(following, "statement")).expect("it follows");
    assert_eq!(chartered.charter().version, 2);
}

/// STATEMENT-3, STATEMENT-4, STATEMENT-5, STATEMENT-8, STATEMENT-10, STATEMENT-11, STATEMENT-13, STATEMENT-15.
#[test]
fn statements_are_refused_as_specified() {
    for case in cases(&read("statements.json"), "refused") {
        let alliance = text(case, "alliance").parse().expect("an alliance");
        let error = open(text(case, "kind"), &bytes(case, "statement"), alliance).expect_err(text(case, "reason"));
        let why = match error {
            OpenError::TooLarge { .. } => "too_large",
            OpenError::Envelope => "envelope",
            OpenError::Kind { .. } => "kind",
            OpenError::Alliance { .. } => "alliance",
            OpenError::Unsigned => "unsigned",
            OpenError::TooManySignatures { .. } => "too_many_signatures",
            OpenError::SignatureOrder(_) => "signature_order",
            OpenError::Signature(_) => "signature",
            OpenError::Payload { .. } => "payload",
        };
        assert_eq!(why, text(case, "refused_for"), "{}: {error}", text(case, "reason"));
    }
}

/// The bytes of a segment: extended output of BLAKE3 over its seed.
fn content(segment: &Value) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(segment["bytes"].as_u64().expect("a length")).expect("fits")];
    let seed = segment["seed"].as_u64().expect("a seed");
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

/// MANIFEST-1 to MANIFEST-8, MANIFEST-10 to MANIFEST-14.
#[test]
fn manifests_verify_each_group_as_specified() {
    for case in cases(&read("manifest.json"), "valid") {
        let encoded = bytes(case, "manifest");
        let manifest = Manifest::decode(&encoded).expect("a manifest");
        assert_eq!((manifest.id().to_string().as_str(), manifest.encode()), (text(case, "id"), encoded));
        let labels: Vec<&str> = cases(case, "labels").iter().filter_map(Value::as_str).collect();
        assert!(manifest.labels().iter().map(|label| label.as_str()).eq(labels));
        assert_eq!(serde_json::to_value(manifest.parts()).expect("plain"), case["parts"]);

        let files: Vec<Vec<u8>> = cases(case, "content")
            .iter()
            .map(|file| file["segments"].as_array().expect("segments").iter().flat_map(content).collect())
            .collect();
        let expected = cases(case, "groups");
        assert_eq!(manifest.group_count(), expected.len() as u64);
        for (group, expected) in manifest.groups().zip(expected) {
            let file = usize::try_from(group.file).expect("fits");
            assert_eq!(manifest.files()[file].path, text(expected, "file"));
            assert_eq!(
                (Some(group.offset), Some(u64::from(group.bytes))),
                (expected["offset"].as_u64(), expected["bytes"].as_u64())
            );
            let from = usize::try_from(group.offset).expect("fits");
            let mut part = files[file][from..from + group.bytes as usize].to_vec();
            assert!(manifest.verify_group(&group, &part), "group {}", group.index);
            part[0] ^= 1;
            assert!(!manifest.verify_group(&group, &part), "group {}, changed", group.index);
        }
    }
}

/// MANIFEST-1, MANIFEST-4 to MANIFEST-7, MANIFEST-13, MANIFEST-15.
#[test]
fn manifests_are_refused_as_specified() {
    for case in cases(&read("manifest.json"), "refused") {
        assert!(Manifest::decode(&bytes(case, "manifest")).is_err(), "{}", text(case, "reason"));
    }
}

/// TRAINING-1 to TRAINING-4, TRAINING-6.
#[test]
fn training_is_attested_as_specified() {
    let file = read("training.json");
    let alliance: AllianceId = text(&file, "alliance").parse().expect("an alliance");
    let secret = SecretKey::from_seed(&[0x0a; 32]);
    for case in cases(&file, "steps") {
        let step = SignedStep::open(text(case, "line"), alliance).expect("a step");
        let again = SignedStep::sign(step.step().clone(), alliance, &secret).expect("signed");
        assert_eq!(again.line(), text(case, "line"), "the same bytes");
    }
    for case in cases(&file, "valid") {
        let attestation = Attestation::open(text(case, "text").as_bytes(), alliance).expect("an attestation");
        let product = &case["product"];
        let digests = (attestation.product().root.to_string(), attestation.product().manifest.to_string());
        assert_eq!((digests.0.as_str(), digests.1.as_str()), (text(product, "sha256"), text(product, "blake3")));
        assert_eq!(Some(attestation.steps().len() as u64), case["steps"].as_u64());
        let found = attestation.findings();
        assert_eq!(serde_json::to_value(&found.countries).expect("plain"), case["trained_in"]);
        assert_eq!(serde_json::to_value(&found.labels).expect("plain"), case["labels"]);
    }
    for case in cases(&file, "refused") {
        assert!(Attestation::open(text(case, "text").as_bytes(), alliance).is_err(), "{}", text(case, "reason"));
    }
}

/// LEDGER-5 to LEDGER-7.
#[test]
fn trees_and_checkpoints_are_as_specified() {
    let file = read("ledger.json");
    let key: PublicKey = text(&file, "key").parse().expect("a key");
    let secret = SecretKey::from_seed(&[0x0a; 32]);
    assert_eq!(secret.public(), key);
    let origin = Origin::of(&key);
    let mut tree = Merkle::default();
    let mut entries = cases(&file, "entries").iter().filter_map(Value::as_str);
    for case in cases(&file, "trees") {
        assert_eq!((Some(tree.size()), tree.root().to_string().as_str()), (case["size"].as_u64(), text(case, "root")));
        let note = text(case, "checkpoint");
        assert_eq!(Checkpoint::sign(&secret, &origin, tree.size(), tree.root()), note);
        let read = Checkpoint::parse_verified(note, &key, &origin).expect("it verifies");
        assert_eq!((read.size, read.root), (tree.size(), tree.root()));
        if let Some(entry) = entries.next() {
            tree.append(leaf_hash(&hex::decode(entry).expect("hexadecimal")));
        }
    }
}
