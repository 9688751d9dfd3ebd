//! Steps and attestations on their own: what they must be, and every way in which they are not.

use serde_json::{Value, json};

use super::*;
use base64::{Engine as _, prelude::BASE64_STANDARD};

const ALLIANCE: AllianceId = AllianceId([9; 32]);
const NOW: Timestamp = Timestamp(1_790_812_800_000);

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn named(n: u8) -> Named {
    Named { name: format!("usp/model-{n}"), manifest: ManifestId([n; 32]), root: Sha256([n; 32]) }
}

fn data(n: u8, labels: &[Label], subjects: &[&str]) -> Data {
    Data {
        name: format!("usp/data-{n}"),
        manifest: ManifestId([n; 32]),
        labels: labels.iter().copied().collect(),
        subjects: subjects.iter().map(|code| code.parse().expect("assigned")).collect(),
    }
}

/// A step of the node with this seed, in India where that is even and else in Brazil, to the model of this number; an hour
/// long, and a day after that of the parents.
fn step(seed: u8, product: u8, parents: &[u8]) -> Step {
    let process = match parents.len() {
        0 => Process::PreTraining,
        1 => Process::FineTuning,
        _ => Process::Merging,
    };
    Step {
        node: key(seed).public(),
        country: if seed.is_multiple_of(2) { "IN" } else { "BR" }.parse().expect("assigned"),
        process,
        product: named(product),
        files: vec![("model.safetensors".parse().expect("a path"), Sha256([1; 32]))],
        code: vec![Code { name: "train.py".into(), digest: CodeDigest::Sha256(Sha256([2; 32])) }],
        parents: parents.iter().map(|parent| named(*parent)).collect(),
        data: vec![data(100 + product, &[Label::Personal], &["BR"])],
        started: NOW.plus_ms(u64::from(product) * 86_400_000),
        finished: NOW.plus_ms(u64::from(product) * 86_400_000 + 3_600_000),
    }
}

fn signed(seed: u8, step: Step) -> SignedStep {
    SignedStep::sign(step, ALLIANCE, &key(seed)).expect("signed")
}

fn known(steps: &[SignedStep]) -> BTreeMap<ManifestId, SignedStep> {
    steps.iter().map(|step| (step.step().product.manifest, step.clone())).collect()
}

fn accreditation(_: &Step) -> Option<(Vec<u8>, String)> {
    Some((vec![7; 40], "usp".into()))
}

fn make(product: u8, steps: &[SignedStep]) -> Result<Attestation, TrainingError> {
    Attestation::make(named(product), &known(steps), accreditation, ALLIANCE, &key(1), NOW.plus_ms(12_345))
}

/// 1 and 2 are pre-trained, 3 is tuned from 2 in India, 4 merged from 1 and 3.
fn four() -> Vec<SignedStep> {
    let mut merged = step(1, 4, &[1, 3]);
    merged.data.clear();
    vec![
        signed(1, step(1, 1, &[])),
        signed(3, step(3, 2, &[])),
        signed(2, Step { data: vec![data(7, &[Label::Health], &["IN"])], ..step(2, 3, &[2]) }),
        signed(1, merged),
    ]
}

#[test]
fn steps_come_back_as_they_were_signed() {
    let commit = Code { name: "git+https://example.org/x".into(), digest: CodeDigest::GitCommit("a1".repeat(20)) };
    let mut given = step(1, 3, &[2]);
    given.code.push(commit);
    let one = signed(1, given.clone());
    let read = SignedStep::open(one.line(), ALLIANCE).expect("a step");
    assert_eq!((&read, read.step()), (&one, &given));
    assert_eq!(SignedStep::open(&format!("{}\n", one.line()), ALLIANCE).expect("a step"), one);
}

/// What other tools read: an in-toto statement with SLSA provenance.
#[test]
fn a_step_is_slsa_provenance() {
    let one = signed(1, step(1, 3, &[2]));
    let envelope: Value = serde_json::from_str(one.line()).expect("JSON");
    let payload = BASE64_STANDARD.decode(envelope["payload"].as_str().expect("text")).expect("base64");
    let statement: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], "03".repeat(32));
    let predicate = &statement["predicate"];
    assert_eq!(predicate["runDetails"]["builder"]["id"], format!("alliance:node/{}", key(1).public()));
    assert_eq!(predicate["runDetails"]["metadata"]["startedOn"], "2026-10-04T00:00:00Z");
    let dependencies = predicate["buildDefinition"]["resolvedDependencies"].as_array().expect("an array");
    let roles: Vec<_> = dependencies.iter().map(|one| one["annotations"]["role"].as_str().expect("a role")).collect();
    assert_eq!(roles, ["code", "parent", "data"]);
    assert_eq!(dependencies[2]["annotations"], json!({ "role": "data", "labels": ["personal"], "subjects": ["BR"] }));
}

#[test]
fn what_a_step_may_not_be() {
    let good = step(1, 3, &[2]);
    let refused = |change: &dyn Fn(&mut Step)| {
        let mut step = good.clone();
        change(&mut step);
        SignedStep::sign(step, ALLIANCE, &key(1)).expect_err("refused").to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut Step);
    let table: &[(Change<'_>, &str)] = &[
        (&|step| step.process = Process::PreTraining, "begins with weights"),
        (&|step| step.parents.clear(), "names no weights"),
        (&|step| step.data.clear(), "names no data"),
        (&|step| step.process = Process::Merging, "fewer than two"),
        (&|step| (step.process, step.parents) = (Process::Conversion, Vec::new()), "one parent"),
        (&|step| (step.process, step.parents) = (Process::Quantisation, vec![named(1), named(2)]), "one parent"),
        (&|step| step.parents = vec![named(3)], "its own product"),
        (&|step| step.data.push(step.data[0].clone()), "twice"),
        (&|step| (step.process, step.parents) = (Process::Merging, vec![named(2), named(2)]), "twice"),
        (&|step| step.data[0].manifest = step.product.manifest, "its own product"),
        (&|step| step.code[0].name = "a\u{202e}b".into(), "names no code"),
        (&|step| step.code.clear(), "names no code"),
        (&|step| step.code[0].name.clear(), "names no code"),
        (&|step| step.code[0].name = "a\u{7}".into(), "names no code"),
        (&|step| step.code[0].digest = CodeDigest::GitCommit("A1".repeat(20)), "names no code"),
        (&|step| step.code[0].digest = CodeDigest::GitCommit("a1".into()), "names no code"),
        (&|step| step.data[0].labels.clear(), "without a label"),
        (&|step| step.product.name = "x".into(), "organisation/name"),
        (&|step| step.parents[0].name = "../x".into(), "organisation/name"),
        (&|step| step.data[0].name = "x/y z".into(), "organisation/name"),
        (&|step| step.started = step.finished.plus_ms(1000), "ends before"),
        (&|step| step.finished = step.finished.plus_ms(1), "to the second"),
        (&|step| step.data = vec![step.data[0].clone(); MATERIALS_MAX + 1], "more code, parents"),
        (&|step| step.files = vec![step.files[0].clone(); FILES_NAMED_MAX + 1], "more code, parents"),
        (&|step| step.node = key(3).public(), "another node's"),
        (&|step| step.code = vec![Code { name: "x".repeat(1000), ..step.code[0].clone() }; 20], "bytes are more"),
    ];
    for (change, expected) in table {
        let found = refused(change);
        assert!(found.contains(expected), "`{found}` instead of `{expected}`");
    }
}

/// The payload of a line, changed and signed again; with white space, and so never in its one form.
fn resigned(line: &str, seed: u8, change: impl FnOnce(&mut Value)) -> String {
    let envelope: Value = serde_json::from_str(line).expect("JSON");
    let payload = BASE64_STANDARD.decode(envelope["payload"].as_str().expect("text")).expect("base64");
    let mut statement: Value = serde_json::from_slice(&payload).expect("JSON");
    change(&mut statement);
    let payload = serde_json::to_string_pretty(&statement).expect("JSON");
    Envelope::sign(IN_TOTO, payload.as_bytes(), Signer::Ed25519(&key(seed))).expect("signed").to_json().expect("JSON")
}

#[test]
fn other_statements_are_no_steps() {
    let one = signed(1, step(1, 3, &[2]));
    // Even unchanged it is not in its one form.
    assert!(matches!(SignedStep::open(&resigned(one.line(), 1, |_| {}), ALLIANCE), Err(TrainingError::Form)));
    assert!(matches!(SignedStep::open(one.line(), AllianceId([8; 32])), Err(TrainingError::Alliance)));
    for change in [
        |value: &mut Value| value["_type"] = json!("x"),
        |value: &mut Value| value["predicateType"] = json!("x"),
        |value: &mut Value| value["subject"] = json!([]),
        |value: &mut Value| value["more"] = json!(1),
        |value: &mut Value| value["predicate"]["buildDefinition"]["buildType"] = json!("x"),
        |value: &mut Value| value["predicate"]["runDetails"]["builder"]["id"] = json!("x"),
        |value: &mut Value| value["predicate"]["runDetails"]["metadata"]["startedOn"] = json!("yesterday"),
        |value: &mut Value| value["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] = json!({}),
    ] {
        let line = resigned(one.line(), 1, change);
        let found = SignedStep::open(&line, ALLIANCE);
        assert!(matches!(found, Err(TrainingError::Form | TrainingError::Shape(_))), "{found:?}");
    }
    // Signed by a key that it does not name as its node.
    let other = resigned(one.line(), 5, |_| {});
    assert!(matches!(SignedStep::open(&other, ALLIANCE), Err(TrainingError::Step { .. })));
    for bad in ["", "{}", "x", one.line().get(1..).expect("text")] {
        assert!(matches!(SignedStep::open(bad, ALLIANCE), Err(TrainingError::Envelope { line: 1, .. })), "{bad}");
    }
    let mut unnamed: Value = serde_json::from_str(one.line()).expect("JSON");
    unnamed["signatures"][0]["keyid"] = json!("");
    assert!(matches!(SignedStep::open(&unnamed.to_string(), ALLIANCE), Err(TrainingError::Key { line: 1 })));
}

#[test]
fn steps_roll_up_to_what_follows_from_them() {
    let steps = four();
    let all = make(4, &steps).expect("attested");
    let order: Vec<_> = all.steps().iter().map(|attested| attested.step.step().product.name.clone()).collect();
    assert_eq!(order, ["usp/model-4", "usp/model-1", "usp/model-3", "usp/model-2"]);
    let countries: Vec<_> = all.findings().countries.iter().map(Country::as_str).collect();
    assert_eq!(countries, ["BR", "IN"]);
    assert_eq!(all.findings().labels, [Label::Personal, Label::Health].into());
    assert_eq!(all.findings().subjects.len(), 2);
    assert_eq!((all.by(), all.product()), (key(1).public(), &named(4)));
    let read = Attestation::open(all.text().as_bytes(), ALLIANCE).expect("an attestation");
    assert_eq!(read, all);
    // Only what leads there.
    assert_eq!(make(2, &steps).expect("attested").steps().len(), 1);
}

#[test]
fn a_missing_step_or_accreditation_is_named() {
    let steps = four();
    for missing in 0..4 {
        let rest: Vec<_> = (0..4).filter(|at| *at != missing).map(|at| steps[at].clone()).collect();
        let error = make(4, &rest).expect_err("refused");
        let name = &steps[missing].step().product.name;
        assert!(matches!(&error, TrainingError::Missing { name: found, .. } if found == name), "{error}");
    }
    let nobody = |step: &Step| accreditation(step).filter(|_| step.node != key(2).public());
    let error = Attestation::make(named(4), &known(&steps), nobody, ALLIANCE, &key(1), NOW).expect_err("refused");
    assert!(matches!(error, TrainingError::Unaccredited { node, .. } if node == key(2).public()), "{error}");
}

/// What no honest node makes, signed well by the one that rolls up.
#[test]
fn attestations_that_lie_are_refused() {
    let all = make(4, &four()).expect("attested");
    let lines: Vec<&str> = all.text().lines().collect();
    let open = |lines: &[&str]| Attestation::open(format!("{}\n", lines.join("\n")).as_bytes(), ALLIANCE);
    assert_eq!(open(&lines).expect("whole"), all);

    // A line left out, twice, or in another order.
    for at in 1..lines.len() {
        let without: Vec<&str> =
            lines.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, line)| *line).collect();
        assert!(matches!(open(&without), Err(TrainingError::OtherSteps)), "{at}");
        let mut twice = lines.clone();
        twice.push(lines[at]);
        assert!(matches!(open(&twice), Err(TrainingError::OtherSteps)), "{at}");
    }
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    assert!(matches!(open(&swapped), Err(TrainingError::OtherSteps)));
    assert!(matches!(open(&lines[..1]), Err(TrainingError::NoStep)));
    assert!(matches!(Attestation::open(lines.join("\n").as_bytes(), ALLIANCE), Err(TrainingError::Text)));
    assert!(matches!(Attestation::open(b"\xff\n", ALLIANCE), Err(TrainingError::Text)));
    assert!(matches!(Attestation::open(all.text().as_bytes(), AllianceId([8; 32])), Err(TrainingError::Alliance)));
    let huge = vec![b' '; limits::ATTESTATION_BYTES_MAX + 1];
    assert!(matches!(Attestation::open(&huge, ALLIANCE), Err(TrainingError::TooLarge { .. })));

    // Findings that do not follow, and steps that are not the ones that are named.
    for (change, expected) in [
        (&(|value: &mut Value| value["predicate"]["trainedIn"] = json!(["BR"])) as &dyn Fn(&mut Value), "follow"),
        (&|value: &mut Value| value["predicate"]["labels"] = json!([]), "follow"),
        (&|value: &mut Value| value["predicate"]["subjects"] = json!(["IN"]), "follow"),
        (
            &|value: &mut Value| value["predicate"]["steps"][0]["digest"]["sha256"] = json!("00".repeat(32)),
            "those that it names",
        ),
        (
            &|value: &mut Value| value["predicate"]["steps"][0]["node"] = json!(key(9).public().to_string()),
            "those that it names",
        ),
        (&|value: &mut Value| value["subject"][0]["digest"]["blake3"] = json!("01".repeat(32)), "leads nowhere"),
        (&|value: &mut Value| value["subject"][0]["digest"]["sha256"] = json!("01".repeat(32)), "something else"),
        (&|value: &mut Value| value["predicate"]["madeOn"] = json!("x"), "another kind"),
        (&|_: &mut Value| {}, "another kind"),
    ] {
        let first = resigned(lines[0], 1, change);
        let mut changed = lines.clone();
        changed[0] = &first;
        let error = open(&changed).expect_err("refused").to_string();
        assert!(error.contains(expected), "`{error}` instead of `{expected}`");
    }
}

/// Steps whose times or hashes do not go together, by nodes that lie to each other.
#[test]
fn steps_that_do_not_go_together_are_refused() {
    let early = Step { finished: NOW.plus_ms(20 * 86_400_000), ..step(3, 2, &[]) };
    let error = make(3, &[signed(3, early), signed(2, step(2, 3, &[2]))]).expect_err("refused");
    assert!(error.to_string().contains("ended after its product was used"), "{error}");

    let mut other = step(2, 3, &[2]);
    other.parents[0].root = Sha256([0; 32]);
    let error = make(3, &[signed(3, step(3, 2, &[])), signed(2, other)]).expect_err("refused");
    assert!(error.to_string().contains("something else than what is used"), "{error}");

    // Two models that each claim to come from the other.
    let (mut one, mut two) = (step(1, 1, &[2]), step(1, 2, &[1]));
    (one.started, one.finished) = (NOW, NOW);
    (two.started, two.finished) = (NOW, NOW);
    assert!(matches!(make(1, &[signed(1, one), signed(1, two)]), Err(TrainingError::Circle)));

    // One model that goes into two others is no circle, whichever of them comes first.
    let steps = [signed(3, step(3, 1, &[])), signed(1, step(1, 2, &[1])), signed(1, step(1, 3, &[1, 2]))];
    assert_eq!(make(3, &steps).expect("attested").steps().len(), 3);
}

/// Every bit of an attestation is signed, or a hint without which nothing is found.
#[test]
fn every_flipped_bit_is_found() {
    let all = make(2, &four()).expect("attested");
    let bytes = all.text().as_bytes();
    for at in 0..bytes.len() {
        for bit in [0, 3, 6] {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << bit;
            let found = Attestation::open(&changed, ALLIANCE);
            assert!(!found.is_ok_and(|found| found.findings() != all.findings()), "byte {at}");
        }
    }
}
