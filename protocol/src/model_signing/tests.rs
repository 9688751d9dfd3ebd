//! Signatures over models: ours, those of other tools, and what is none.

use serde_json::{Value, json};

use super::*;
use crate::key::SecretKey;

/// Made by `tests/vectors/generate.py`, with none of our code: by hand, by hand as before version 1.1, and by the tool.
const HAND: &str = include_str!("../../tests/vectors/model_signing/hand.sig.json");
const LEGACY: &str = include_str!("../../tests/vectors/model_signing/legacy.sig.json");
const TOOL: &str = include_str!("../../tests/vectors/model_signing/tool.sig.json");

fn key() -> ModelSigningKey {
    ModelSigningKey::from_pem(include_str!("../../tests/vectors/model_signing/key.pem")).expect("a key")
}

fn public() -> ModelVerifyingKey {
    key().public().clone()
}

fn path(text: &str) -> ModelPath {
    text.parse().expect("a path")
}

fn model_sig() -> ModelPath {
    path(SIGNATURE_FILE)
}

fn files_of(files: &[(&str, &[u8])]) -> ModelFiles {
    let hash = |(name, bytes): &(&str, &[u8])| (path(name), Sha256(sha2::Sha256::digest(bytes).into()));
    ModelFiles::new(files.iter().map(hash)).expect("files")
}

/// The model of the vectors.
const MODEL: &[(&str, &[u8])] = &[
    ("config.json", b"{}\n"),
    ("model.safetensors", b"weights"),
    ("sub-a", b"one"),
    ("sub.txt", b"three"),
    ("sub/x", b"two"),
    ("sub/\u{434}\u{430}.txt", b""),
];

fn model() -> ModelFiles {
    files_of(MODEL)
}

fn with(more: &[(&'static str, &'static [u8])]) -> ModelFiles {
    files_of(&[MODEL, more].concat())
}

fn without(name: &str) -> ModelFiles {
    files_of(&MODEL.iter().filter(|(file, _)| *file != name).copied().collect::<Vec<_>>())
}

fn ours() -> Bundle {
    sign("mdl", &model(), Some(&model_sig()), &key()).expect("signed")
}

fn payload_of(bundle: &str) -> Value {
    let bundle: Value = serde_json::from_str(bundle).expect("JSON");
    let payload = bundle["dsseEnvelope"]["payload"].as_str().expect("a text");
    serde_json::from_slice(&BASE64_STANDARD.decode(payload).expect("base64")).expect("JSON")
}

/// Our bundle with a change outside of what is signed.
fn changed(change: impl FnOnce(&mut Value)) -> Result<SignedModel, BundleError> {
    let mut bundle = serde_json::from_str(&ours().json).expect("JSON");
    change(&mut bundle);
    SignedModel::open(bundle.to_string().as_bytes(), &public())
}

/// A bundle around any payload, signed well.
fn signed(payload: &[u8]) -> Result<SignedModel, BundleError> {
    let key = key();
    let envelope = Envelope::sign(IN_TOTO, payload, Signer::P256(&key)).expect("signed");
    changed(|bundle| bundle["dsseEnvelope"] = serde_json::to_value(&envelope).expect("a value"))
}

/// Our statement with a change, signed well.
fn restated(change: impl FnOnce(&mut Value)) -> Result<SignedModel, BundleError> {
    let mut statement = payload_of(&ours().json);
    change(&mut statement);
    signed(statement.to_string().as_bytes())
}

#[test]
fn bundles_of_others_verify() {
    let by_code_points = ours().root;
    for (bundle, root) in [(HAND, Some(by_code_points)), (LEGACY, Some(by_code_points)), (TOOL, None)] {
        let signed = verify(bundle.as_bytes(), &public(), &model(), Some(&model_sig())).expect("verified");
        assert_eq!((signed.name(), signed.files()), ("mdl", &model()));
        // The tool puts `sub/x` before `sub-a` and `sub.txt`, and so has another root for the same files.
        assert_eq!(signed.root() == by_code_points, root.is_some());
        let named = payload_of(bundle)["subject"][0]["digest"]["sha256"].as_str().map(str::to_owned);
        assert_eq!(named, Some(signed.root().to_string()));
    }
}

#[test]
fn ours_says_what_the_one_by_hand_says() {
    let (ours, hand) = (ours().json, serde_json::from_str::<Value>(HAND).expect("JSON"));
    assert_eq!(payload_of(&ours), payload_of(HAND));
    let mut ours: Value = serde_json::from_str(&ours).expect("JSON");
    // ECDSA draws a number, and the spelling of the statement is free.
    for free in ["/dsseEnvelope/payload", "/dsseEnvelope/signatures/0/sig"] {
        *ours.pointer_mut(free).expect("there") = hand.pointer(free).expect("there").clone();
    }
    assert_eq!(ours, hand);
    assert_eq!(self::ours(), self::ours());
}

#[test]
fn what_is_signed_comes_back() {
    let bundle = ours();
    let found = with(&[(".gitignore", b"x"), (".git/config", b"x"), (SIGNATURE_FILE, b"x")]);
    let signed = verify(bundle.json.as_bytes(), &public(), &found, Some(&model_sig())).expect("verified");
    assert_eq!((signed.root(), signed.files()), (bundle.root, &model()));
    let unsigned = signed.check(&found, Some(&model_sig())).expect("the same");
    assert_eq!(unsigned, [&path(".git/config"), &path(".gitignore"), &model_sig()]);
    // Left out when signing as well.
    assert_eq!(sign("mdl", &found, Some(&model_sig()), &key()).expect("signed"), bundle);
    // A signature that does not lie in the model is not among what it leaves out.
    let outside = sign("mdl", &model(), None, &key()).expect("signed");
    assert!(verify(outside.json.as_bytes(), &public(), &model(), None).is_ok());
    let ignored = payload_of(&outside.json)["predicate"]["serialization"]["ignore_paths"].clone();
    assert_eq!(ignored, json!([".git", ".gitattributes", ".github", ".gitignore"]));
}

#[test]
fn every_difference_names_its_file() {
    let (bundle, signature) = (ours().json, model_sig());
    let check = |found: &ModelFiles, signature| {
        SignedModel::open(bundle.as_bytes(), &public()).expect("a bundle").check(found, signature).map(|_| ())
    };
    for (name, bytes) in MODEL {
        assert_eq!(check(&without(name), Some(&signature)), Err(Mismatch::Missing(path(name))));
        let mut altered = without(name).0;
        let (signed, found) = (Sha256(sha2::Sha256::digest(bytes).into()), Sha256([7; 32]));
        altered.insert(path(name), found);
        let expected = Mismatch::Altered { path: path(name), signed, found };
        assert_eq!(check(&ModelFiles(altered), Some(&signature)), Err(expected));
    }
    for name in ["a", "sub/z", "sub/.gitignore", ".gitmodules", "model.sig/x", "Config.json", "config.json2"] {
        assert_eq!(check(&with(&[(name, b"")]), Some(&signature)), Err(Mismatch::Unexpected(path(name))));
    }
    assert_eq!(check(&ModelFiles::default(), Some(&signature)), Err(Mismatch::Missing(path("config.json"))));
    // Another signature file than the one that was left out.
    for other in [None, Some(&path("other.sig"))] {
        assert_eq!(check(&model(), other), Err(Mismatch::Ignored(signature.clone())));
    }
}

#[test]
fn nothing_else_may_be_left_out() {
    for name in ["weights", "sub", "sub/.git", ".gitmodules", "config.json"] {
        let signed = restated(|statement| {
            statement["predicate"]["serialization"]["ignore_paths"].as_array_mut().expect("a list").push(json!(name));
        });
        let refused = signed.expect("a bundle").check(&model(), Some(&model_sig())).map(|_| ());
        assert_eq!(refused, Err(Mismatch::Ignored(path(name))));
    }
    for bad in ["", ".", "..", "../x", "/etc", "*\n"] {
        let signed = restated(|statement| statement["predicate"]["serialization"]["ignore_paths"] = json!([bad]));
        assert!(matches!(signed, Err(BundleError::Path(_))), "{bad}");
    }
    // The list may be absent (before version 1.1) or shorter, for then nothing more is left out.
    for fewer in [None, Some(json!([])), Some(json!([".git"]))] {
        let signed = restated(|statement| {
            let serialization = statement["predicate"]["serialization"].as_object_mut().expect("an object");
            serialization.remove("ignore_paths");
            serialization.extend(fewer.map(|list| ("ignore_paths".to_owned(), list)));
        });
        assert!(signed.expect("a bundle").check(&model(), None).is_ok());
    }
}

/// `model_signing sign key --no-ignore-git-paths` signs these too, and then they count.
#[test]
fn files_of_git_that_were_signed_are_compared() {
    let digest = Sha256([7; 32]);
    let signed = restated(|statement| {
        let resources = statement["predicate"]["resources"].as_array_mut().expect("a list");
        resources.insert(0, json!({"name": ".gitignore", "algorithm": "sha256", "digest": digest.to_string()}));
        let hashes = resources.iter().map(|file| file["digest"].as_str().expect("a text").parse().expect("a hash"));
        let root = root_of(hashes.collect::<Vec<Sha256>>().iter());
        statement["subject"][0]["digest"]["sha256"] = json!(root.to_string());
    });
    let signed = signed.expect("a bundle");
    let check = |found: &ModelFiles| signed.check(found, Some(&model_sig())).map(|_| ());
    assert_eq!(check(&model()), Err(Mismatch::Missing(path(".gitignore"))));
    assert!(matches!(check(&with(&[(".gitignore", b"x")])), Err(Mismatch::Altered { .. })));
    let mut same = model().0;
    same.insert(path(".gitignore"), digest);
    assert_eq!(check(&ModelFiles(same)), Ok(()));
}

#[test]
fn every_flipped_bit_is_refused() {
    let small = files_of(&[("a", b"1"), ("sub/b", b"2")]);
    let bundle = sign("m", &small, Some(&model_sig()), &key()).expect("signed").json;
    assert!(verify(bundle.as_bytes(), &public(), &small, Some(&model_sig())).is_ok());
    for at in 0..bundle.len() * 8 {
        let mut bytes = bundle.clone().into_bytes();
        bytes[at / 8] ^= 1 << (at % 8);
        let refused = verify(&bytes, &public(), &small, Some(&model_sig()));
        assert!(matches!(refused, Err(VerifyError::Bundle(_))), "bit {at}: {refused:?}");
    }
    for length in 0..bundle.len() {
        assert!(SignedModel::open(&bundle.as_bytes()[..length], &public()).is_err(), "{length}");
    }
}

#[test]
fn what_stands_around_the_envelope() {
    let material = |name: &'static str, value: Value| changed(move |bundle| bundle["verificationMaterial"][name] = value);
    let shape = |opened: Result<SignedModel, BundleError>| matches!(opened, Err(BundleError::Shape(_)));
    // Permitted, and passed over.
    assert!(material("tlogEntries", Value::Null).is_ok());
    assert!(material("tlogEntries", json!([{"logIndex": "1"}])).is_ok());
    assert!(material("timestampVerificationData", json!({"rfc3161Timestamps": []})).is_ok());
    let absent = changed(|bundle| {
        bundle["verificationMaterial"].as_object_mut().expect("an object").remove("tlogEntries");
    });
    assert!(absent.is_ok());
    for keyid in [json!(""), Value::Null, json!("a name")] {
        assert!(changed(|bundle| bundle["dsseEnvelope"]["signatures"][0]["keyid"] = keyid).is_ok());
    }
    // Not permitted.
    for other in [
        "application/vnd.dev.sigstore.bundle+json;version=0.3",
        "application/vnd.dev.sigstore.bundle.v0.4+json",
        "application/vnd.dev.sigstore.bundle.v0.3+json ",
        "",
    ] {
        assert_eq!(changed(|bundle| bundle["mediaType"] = json!(other)), Err(BundleError::MediaType), "{other}");
    }
    assert_eq!(material("certificate", json!({"rawBytes": ""})), Err(BundleError::Certificate));
    assert_eq!(material("x509CertificateChain", json!({"certificates": []})), Err(BundleError::Certificate));
    assert!(shape(material("more", json!(1))));
    assert!(shape(changed(|bundle| bundle["more"] = json!(1))));
    assert!(shape(changed(|bundle| bundle["messageSignature"] = json!({}))));
    for removed in ["mediaType", "verificationMaterial", "dsseEnvelope"] {
        assert!(shape(changed(|bundle| {
            bundle.as_object_mut().expect("an object").remove(removed);
        })));
    }
    assert!(SignedModel::open(b"", &public()).is_err());
    let padded = format!("{}{}", ours().json, " ".repeat(BUNDLE_BYTES_MAX));
    let bytes = padded.len();
    assert_eq!(SignedModel::open(padded.as_bytes(), &public()), Err(BundleError::TooLarge { bytes }));
}

#[test]
fn the_key_that_a_bundle_names_is_the_expected_one() {
    let named = |value: Value| changed(|bundle| bundle["verificationMaterial"]["publicKey"] = value);
    let (hint, pem) = (public().hint(), BASE64_STANDARD.encode(public().pem()));
    assert!(named(json!({"hint": hint})).is_ok());
    assert!(named(json!({"rawBytes": pem, "keyDetails": "PKIX_ECDSA_P256_SHA_256"})).is_ok());
    assert!(named(json!({"rawBytes": pem, "hint": hint})).is_ok());
    for none in [Value::Null, json!({}), json!({"hint": null}), json!({"keyDetails": "x"})] {
        assert_eq!(named(none.clone()), Err(BundleError::NoKey), "{none}");
    }
    for other in [
        json!({"hint": ""}),
        json!({"hint": hint.to_uppercase()}),
        json!({"hint": hint, "rawBytes": "AAAA"}),
        json!({"hint": "x", "rawBytes": pem}),
        json!({"rawBytes": "*"}),
    ] {
        assert_eq!(named(other.clone()), Err(BundleError::OtherKey), "{other}");
    }
    let stranger = ModelSigningKey::from_scalar(&[7; 32]).expect("encoded").expect("a key");
    let opened = SignedModel::open(ours().json.as_bytes(), stranger.public());
    assert_eq!(opened, Err(BundleError::OtherKey));
    // A stranger that names our key.
    let mut forged: Value =
        serde_json::from_str(&sign("mdl", &model(), None, &stranger).expect("signed").json).expect("JSON");
    forged["verificationMaterial"]["publicKey"]["hint"] = json!(hint);
    let opened = SignedModel::open(forged.to_string().as_bytes(), &public());
    assert_eq!(opened, Err(BundleError::Envelope(EnvelopeError::NotVerified)));
    // The envelope of a node's key is no bundle of a publisher's.
    let node = SecretKey::from_seed(&[7; 32]);
    let payload = payload_of(HAND).to_string();
    let envelope = Envelope::sign(IN_TOTO, payload.as_bytes(), Signer::Ed25519(&node)).expect("signed");
    let opened = changed(|bundle| bundle["dsseEnvelope"] = serde_json::to_value(&envelope).expect("a value"));
    assert_eq!(opened, Err(BundleError::Envelope(EnvelopeError::NotVerified)));
}

#[test]
fn statements_that_were_signed_and_are_none_of_ours() {
    let shape = |opened: Result<SignedModel, BundleError>| matches!(opened, Err(BundleError::Statement(_)));
    for bad in ["", "{}", "[]", "null", "\u{feff}{}"] {
        assert!(shape(signed(bad.as_bytes())), "{bad}");
    }
    assert!(shape(restated(|statement| statement["more"] = json!(1))));
    assert!(shape(restated(|statement| statement["predicate"]["more"] = json!(1))));
    assert!(shape(restated(|statement| statement["predicate"]["serialization"]["more"] = json!(1))));
    assert!(restated(|statement| statement["predicate"]["resources"][0]["annotations"] = json!({})).is_ok());
    let twice = payload_of(HAND).to_string().replacen('{', "{\"_type\":\"x\",", 1);
    assert!(shape(signed(twice.as_bytes())));

    let put = |pointer: &'static str, value: Value| {
        restated(move |statement| *statement.pointer_mut(pointer).expect("there") = value)
    };
    assert_eq!(put("/_type", json!("https://in-toto.io/Statement/v0.1")), Err(BundleError::StatementType));
    for other in ["https://model_signing/Digests/v0.1", "https://slsa.dev/provenance/v1", ""] {
        assert_eq!(put("/predicateType", json!(other)), Err(BundleError::PredicateType));
    }
    let subject = payload_of(HAND)["subject"][0].clone();
    for subjects in [json!([]), json!([subject, subject])] {
        assert_eq!(put("/subject", subjects), Err(BundleError::Subject));
    }
    assert!(shape(put("/subject", json!([subject, subject, subject]))));
    assert_eq!(put("/subject/0/name", json!("")), Err(BundleError::Subject));
    let long = "x".repeat(MODEL_NAME_BYTES_MAX);
    for (name, shown) in [("a/b", "a/b"), ("a\nb\u{202e}", "a?b?"), (&format!("{long}x"), &long)] {
        assert_eq!(put("/subject/0/name", json!(name)).expect("a bundle").name(), shown);
    }
    assert!(restated(|statement| statement["subject"][0]["digest"]["sha512"] = json!("00")).is_ok());
    assert!(restated(|statement| statement["subject"][0]["uri"] = json!("x")).is_ok());
    let root = "/subject/0/digest/sha256";
    for bad in [Sha256([7; 32]).to_string(), ours().root.to_string().to_uppercase(), String::new()] {
        assert_eq!(put(root, json!(bad)), Err(BundleError::Root));
    }
}

#[test]
fn files_that_were_signed_in_a_way_that_is_not_known() {
    let serialization =
        |name: &'static str, value: Value| restated(move |statement| statement["predicate"]["serialization"][name] = value);
    assert_eq!(serialization("method", json!("shards")), Err(BundleError::Shards));
    // As the tool writes it.
    let shards = restated(|statement| {
        let serialization = &mut statement["predicate"]["serialization"];
        (serialization["method"], serialization["shard_size"]) = (json!("shards"), json!(1000.0));
        statement["predicate"]["resources"][0]["name"] = json!("config.json:0:3");
    });
    assert_eq!(shards, Err(BundleError::Shards));
    assert_eq!(serialization("method", json!("tensors")), Err(BundleError::Method));
    assert_eq!(serialization("shard_size", json!(1)), Err(BundleError::Method));
    assert_eq!(serialization("hash_type", json!("blake3")), Err(BundleError::Hash));
    assert_eq!(serialization("allow_symlinks", json!(true)), Err(BundleError::Symlinks));
    let shape = serialization("allow_symlinks", json!("false"));
    assert!(matches!(shape, Err(BundleError::Statement(_))));

    let resources = |value: Value| restated(move |statement| statement["predicate"]["resources"] = value);
    let file = |name: &str, algorithm: &str, digest: &str| json!({"name": name, "algorithm": algorithm, "digest": digest});
    let hash = Sha256([0xab; 32]).to_string();
    assert_eq!(resources(json!([])), Err(BundleError::Empty));
    assert_eq!(resources(json!([file("a", "blake2b", &hash)])), Err(BundleError::Hash));
    for bad in ["", "/a", "../a", "a/", "a:\n", "a\\b"] {
        assert!(matches!(resources(json!([file(bad, "sha256", &hash)])), Err(BundleError::Path(_))), "{bad}");
    }
    for bad in ["", &hash.to_uppercase(), &format!("{hash}00"), "xx"] {
        assert_eq!(resources(json!([file("a", "sha256", bad)])), Err(BundleError::Digest(path("a"))), "{bad}");
    }
    let ordered = |names: &[&str]| resources(names.iter().map(|name| file(name, "sha256", &hash)).collect::<Value>());
    assert_eq!(ordered(&["a", "a"]), Err(BundleError::Order(path("a"))));
    assert_eq!(ordered(&["b", "a"]), Err(BundleError::Order(path("a"))));
    assert_eq!(ordered(&["a", "b", "a"]), Err(BundleError::Order(path("a"))));
    // Neither order throughout: the first two stand by parts, the last two by code points.
    assert_eq!(ordered(&["s/x", "s-a", "t-a", "t/x"]), Err(BundleError::Order(path("t/x"))));
    for good in [["s-a", "s/x", "t-a", "t/x"], ["s/x", "s-a", "t/x", "t-a"]] {
        assert_eq!(ordered(&good), Err(BundleError::Root), "in order, and only the root is that of other files");
    }
}

#[test]
fn bounds_hold_at_both_ends() {
    let long = |number: usize| path(&format!("{number:0>width$}", width = PATH_BYTES_MAX));
    let many = |count: usize| ModelFiles::new((0..count).map(|number| (long(number), Sha256([0xff; 32]))));
    assert_eq!(many(FILES_MAX + 1), Err(ModelFilesError::TooMany));
    assert_eq!(ModelFiles::new([0, 1].map(|byte| (path("a"), Sha256([byte; 32])))), Err(ModelFilesError::Twice(path("a"))));
    let most = many(FILES_MAX).expect("files");
    let name = "x".repeat(MODEL_NAME_BYTES_MAX);
    let bundle = sign(&name, &most, Some(&model_sig()), &key()).expect("fits").json;
    assert!(verify(bundle.as_bytes(), &public(), &most, Some(&model_sig())).is_ok());
    let more = restated(|statement| {
        let resource = json!({"name": "a", "algorithm": "sha256", "digest": ""});
        statement["predicate"]["resources"] = Value::Array(vec![resource; FILES_MAX + 1]);
    });
    assert!(matches!(more, Err(BundleError::Statement(_))));
    let ignored = restated(|statement| {
        statement["predicate"]["serialization"]["ignore_paths"] = json!(vec![".git"; 17]);
    });
    assert!(matches!(ignored, Err(BundleError::Statement(_))));
}

#[test]
fn what_is_not_signed() {
    let made = |name: &str, files: &ModelFiles| sign(name, files, Some(&model_sig()), &key());
    assert!(matches!(made("mdl", &ModelFiles::default()), Err(SignError::Empty)));
    assert!(matches!(made("mdl", &files_of(&[(".gitignore", b""), (SIGNATURE_FILE, b"")])), Err(SignError::Empty)));
    for bad in ["", "a/b", "a\0", &"x".repeat(MODEL_NAME_BYTES_MAX + 1)] {
        assert!(matches!(made(bad, &model()), Err(SignError::Name(_))), "{bad}");
    }
    // Each quote takes two bytes in JSON.
    let quotes = |number: usize| path(&format!("{}{number:04}", "\"".repeat(PATH_BYTES_MAX - 4)));
    let large = ModelFiles::new((0..FILES_MAX).map(|number| (quotes(number), Sha256([0; 32])))).expect("files");
    assert!(matches!(made("mdl", &large), Err(SignError::Seal(SealError::TooLarge { .. }))));
}

#[test]
fn the_key_that_a_bundle_names_can_be_looked_up() {
    for bundle in [HAND, LEGACY, TOOL] {
        assert_eq!(hint(bundle.as_bytes()), Ok(public().hint()));
    }
    assert!(matches!(hint(b"{}"), Err(BundleError::Shape(_))));
    let root = SignedModel::open(ours().json.as_bytes(), &public()).expect("good").root();
    assert_eq!(model().root_without(Some(&model_sig())), root);
}
