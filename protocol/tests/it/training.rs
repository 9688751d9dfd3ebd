//! Where a model was trained, as a fact that law can ask for: recorded, attested, claimed by an offer, proven with a clearance.

use alliance_protocol::{
    charter::Chartered,
    core::{
        BulkOrder, MeshEvent, MessageId,
        admin::{AdminCall, CrossingState, Failure, LocalModel, OfferDraft, Reply, StepDraft, TrainingView},
    },
    crossing::{ClearanceGiven, RefusalCode},
    envelope::Signed,
    gate::Volume,
    id::{ManifestId, Sha256, StatementId},
    ledger::{Entry, Record},
    offer::{Offer, Offered, Terms},
    training::{Attestation, Code, CodeDigest, Named, SignedStep, Step},
    trust::Trust,
    vocabulary::{Artefact, Label, Process},
};

use crate::{
    alliance::{DAWN, HOUR, accreditation_of, country},
    cluster::{Cluster, OPEN},
    importer_refuses::Asking,
};

/// A model of a node here, of which nothing is known yet.
fn imported(cluster: &mut Cluster, at: usize, name: &str, seed: u8, artefact: Artefact) -> LocalModel {
    let organisation = cluster.nodes[at].organisation.clone();
    let model = LocalModel {
        name: format!("{organisation}/{name}"),
        manifest: ManifestId([seed; 32]),
        artefact,
        ..cluster.model(at, &[Label::Public])
    };
    assert!(matches!(cluster.call(at, AdminCall::Import(Box::new(model.clone()))), Reply::Imported(_)));
    model
}

fn root(name: &str) -> Sha256 {
    Sha256(*blake3::hash(name.as_bytes()).as_bytes())
}

fn draft(product: &str, parents: &[&str], data: &[&str], hour: u64) -> StepDraft {
    // Which manifest they have is looked up where the step is recorded.
    let with_root = |name: &str| Named { name: name.to_owned(), manifest: ManifestId([0; 32]), root: root(name) };
    StepDraft {
        process: match parents.len() {
            0 => Process::PreTraining,
            1 => Process::FineTuning,
            _ => Process::Merging,
        },
        product: with_root(product),
        files: vec![("model.safetensors".to_owned(), Sha256([5; 32]))],
        code: vec![Code { name: "train.py".to_owned(), digest: CodeDigest::Sha256(Sha256([6; 32])) }],
        parents: parents.iter().map(|name| with_root(name)).collect(),
        data: data.iter().map(|name| (*name).to_owned()).collect(),
        started: DAWN.plus_ms(hour * HOUR),
        finished: DAWN.plus_ms(hour * HOUR + HOUR),
    }
}

fn record(cluster: &mut Cluster, at: usize, draft: StepDraft) -> Result<String, Failure> {
    let draft = looked_up(cluster, at, draft);
    record_as_is(cluster, at, draft).map(|(line, _)| line)
}

/// As the operator's program draws it up.
fn looked_up(cluster: &mut Cluster, at: usize, mut draft: StepDraft) -> StepDraft {
    let Reply::Models(models) = cluster.call(at, AdminCall::Models) else { panic!("models") };
    for named in draft.parents.iter_mut().chain([&mut draft.product]) {
        let here = models.iter().find(|model| model.name == named.name);
        named.manifest = here.map_or(named.manifest, |model| model.manifest);
    }
    draft
}

fn record_as_is(cluster: &mut Cluster, at: usize, draft: StepDraft) -> Result<(String, Option<String>), Failure> {
    match cluster.call(at, AdminCall::RecordStep(Box::new(draft))) {
        Reply::Step { line, note } => Ok((line, note)),
        Reply::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn attest(cluster: &mut Cluster, at: usize, name: &str, steps: &[String]) -> Result<String, Failure> {
    let call = AdminCall::Attest { name: name.to_owned(), steps: steps.to_vec(), accreditations: Vec::new() };
    match cluster.call(at, call) {
        Reply::Training(view) => Ok(view.attestation.expect("attested")),
        Reply::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn training(cluster: &mut Cluster, at: usize, name: &str) -> TrainingView {
    match cluster.call(at, AdminCall::Training { name: name.to_owned() }) {
        Reply::Training(view) => *view,
        other => panic!("{other:?}"),
    }
}

fn offer(cluster: &mut Cluster, at: usize, name: &str) -> StatementId {
    let Reply::Models(models) = cluster.call(at, AdminCall::Models) else { panic!("models") };
    let model = models.into_iter().find(|model| model.name == name).expect("it lies here");
    cluster.offer_of(at, model, Terms { onward: true, ..OPEN })
}

/// The hours of the steps are over.
const LATER: u64 = 5 * HOUR;

/// Brazil has data, and weights that were made from it; nothing is said of that yet.
fn untrained(cluster: &mut Cluster) {
    imported(cluster, 0, "corpus", 31, Artefact::Dataset);
    imported(cluster, 0, "base", 32, Artefact::Weights);
}

/// Brazil has trained a model from nothing, and says so.
pub(crate) fn trained_at_home(cluster: &mut Cluster) -> StatementId {
    untrained(cluster);
    cluster.let_pass(LATER);
    record(cluster, 0, draft("usp/base", &[], &["usp/corpus"], 1)).expect("recorded");
    attest(cluster, 0, "usp/base", &[]).expect("attested");
    offer(cluster, 0, "usp/base")
}

pub(crate) fn pulled(cluster: &mut Cluster, at: usize, offer: StatementId) -> CrossingState {
    let crossing = cluster.pull(at, offer);
    cluster.run();
    cluster.state(at, crossing)
}

/// LAW-47: both ends find the same, each from what was signed.
#[test]
fn what_was_trained_at_home_may_go_where_the_rest_may_not() {
    for denying in ["BR", "IN"] {
        let mut cluster = Cluster::pair();
        let action = if denying == "BR" { "export" } else { "import" };
        let home = trained_at_home(&mut cluster);
        cluster.enact(country(denying), &format!("deny {action} trained-outside:BR"));
        assert_eq!(pulled(&mut cluster, 1, home), CrossingState::Done);
        let facts = |record: &Record| record.decision().and_then(|decision| decision.facts.clone());
        for at in [0, 1] {
            let entries = &cluster.nodes[at].entries;
            let facts = entries.iter().rev().find_map(|entry| facts(&entry.record)).expect("decided");
            assert_eq!(facts.trained_in, Some([country("BR")].into()), "{at}");
        }
        // Without an attestation it is denied, whatever the offer's origin says.
        imported(&mut cluster, 0, "other", 33, Artefact::Weights);
        let other = offer(&mut cluster, 0, "usp/other");
        assert_eq!(pulled(&mut cluster, 1, other), CrossingState::Denied);
    }
}

/// A step abroad, or none: then it was not all at home.
#[test]
fn one_step_abroad_or_missing_fails() {
    let mut cluster = Cluster::pair();
    let home = trained_at_home(&mut cluster);
    assert_eq!(pulled(&mut cluster, 1, home), CrossingState::Done);
    imported(&mut cluster, 1, "notes", 41, Artefact::Dataset);
    imported(&mut cluster, 1, "tuned", 42, Artefact::Weights);
    // The step of the base came with it.
    let foreign = record(&mut cluster, 1, draft("iitb/tuned", &["usp/base"], &["iitb/notes"], 3)).expect("recorded");
    let text = attest(&mut cluster, 1, "iitb/tuned", &[]).expect("attested");
    let alliance = cluster.alliance.id;
    let all = Attestation::open(text.as_bytes(), alliance).expect("an attestation");
    assert_eq!((all.steps().len(), &all.findings().countries), (2, &[country("BR"), country("IN")].into()));
    let tuned = offer(&mut cluster, 1, "iitb/tuned");
    cluster.enact(country("IN"), "deny export trained-outside:IN");
    assert_eq!(pulled(&mut cluster, 0, tuned), CrossingState::Denied);
    cluster.enact(country("IN"), "");
    assert_eq!(pulled(&mut cluster, 0, tuned), CrossingState::Done);

    // A model whose base nobody speaks for.
    imported(&mut cluster, 0, "found", 43, Artefact::Weights);
    imported(&mut cluster, 0, "on-found", 44, Artefact::Weights);
    record(&mut cluster, 0, draft("usp/on-found", &["usp/found"], &["usp/corpus"], 3)).expect("recorded");
    let failure = attest(&mut cluster, 0, "usp/on-found", &[]).expect_err("refused");
    assert!(failure.message.contains("`usp/found`") && failure.message.contains("missing"), "{failure:?}");
    // The step that was missing, from a file, is another node's.
    assert!(attest(&mut cluster, 0, "usp/on-found", &[foreign]).is_err());
    assert!(attest(&mut cluster, 0, "usp/on-found", &["{}".to_owned()]).is_err());
}

/// What the operator says must go with what lies here.
#[test]
fn steps_that_cannot_be_are_refused_with_words() {
    let mut cluster = Cluster::pair();
    untrained(&mut cluster);
    let private = LocalModel {
        name: "usp/private".into(),
        manifest: ManifestId([35; 32]),
        artefact: Artefact::Dataset,
        subjects: [country("BR")].into(),
        ..cluster.model(0, &[Label::Personal])
    };
    assert!(matches!(cluster.call(0, AdminCall::Import(Box::new(private))), Reply::Imported(_)));
    let good = draft("usp/base", &[], &["usp/corpus"], 1);
    let failed = |cluster: &mut Cluster, draft: StepDraft| record(cluster, 0, draft).expect_err("refused").message;
    assert!(failed(&mut cluster, good.clone()).contains("yet to come"));
    cluster.let_pass(LATER);
    for (draft, expected) in [
        (draft("usp/none", &[], &["usp/corpus"], 1), "no model `usp/none`"),
        (draft("usp/base", &["usp/none"], &["usp/corpus"], 1), "no model `usp/none`"),
        (draft("usp/base", &[], &["usp/none"], 1), "no model `usp/none`"),
        (draft("usp/base", &[], &["usp/private"], 1), "does not have `personal`"),
        (draft("usp/base", &[], &[], 1), "names no data"),
        (StepDraft { code: Vec::new(), ..good.clone() }, "names no code"),
        (StepDraft { files: vec![("../x".to_owned(), Sha256([0; 32]))], ..good.clone() }, "name that cannot be signed"),
    ] {
        let found = failed(&mut cluster, draft);
        assert!(found.contains(expected), "`{found}` instead of `{expected}`");
    }
    assert_eq!(training(&mut cluster, 0, "usp/base"), TrainingView::default());
    let unrecorded = attest(&mut cluster, 0, "usp/base", &[]).expect_err("refused");
    assert!(unrecorded.message.contains("alliance training record"), "{unrecorded:?}");
    record(&mut cluster, 0, good).expect("recorded");
    // What came from elsewhere is for its maker to attest.
    attest(&mut cluster, 0, "usp/base", &[]).expect("attested");
    let home = offer(&mut cluster, 0, "usp/base");
    assert_eq!(pulled(&mut cluster, 1, home), CrossingState::Done);
    let foreign = attest(&mut cluster, 1, "usp/base", &[]).expect_err("refused");
    assert!(foreign.message.contains("came by a crossing"), "{foreign:?}");
    assert!(training(&mut cluster, 1, "usp/base").attestation.is_some());
}

/// LAW-47: what is proven is asked again whenever something changes, on both sides.
#[test]
fn a_revoked_node_proves_nothing_any_more() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("BR", "ufmg")]);
    imported(&mut cluster, 2, "corpus", 51, Artefact::Dataset);
    imported(&mut cluster, 2, "base", 52, Artefact::Weights);
    imported(&mut cluster, 0, "corpus", 53, Artefact::Dataset);
    imported(&mut cluster, 0, "tuned", 54, Artefact::Weights);
    cluster.let_pass(LATER);
    record(&mut cluster, 2, draft("ufmg/base", &[], &["ufmg/corpus"], 1)).expect("recorded");
    attest(&mut cluster, 2, "ufmg/base", &[]).expect("attested");
    let base = offer(&mut cluster, 2, "ufmg/base");
    assert_eq!(pulled(&mut cluster, 0, base), CrossingState::Done);
    record(&mut cluster, 0, draft("usp/tuned", &["ufmg/base"], &["usp/corpus"], 3)).expect("recorded");
    attest(&mut cluster, 0, "usp/tuned", &[]).expect("attested");
    let tuned = offer(&mut cluster, 0, "usp/tuned");
    cluster.enact(country("BR"), "deny export trained-outside:BR");
    let crossing = cluster.pull(1, tuned);
    cluster.run_to("received");
    cluster.revoke(country("BR"), cluster.nodes[2].public());
    cluster.run();
    for at in [0, 1] {
        assert_eq!(cluster.state(at, crossing), CrossingState::Failed, "{at}");
    }
    assert!(training(&mut cluster, 0, "usp/tuned").problem.expect("a problem").contains("revoked"));
    assert_eq!(pulled(&mut cluster, 1, tuned), CrossingState::Denied);
}

/// Steps, attestations and what came with clearances are in the ledger.
#[test]
fn it_survives_a_restart_and_an_import_of_the_same() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
    let home = trained_at_home(&mut cluster);
    assert_eq!(pulled(&mut cluster, 1, home), CrossingState::Done);
    let before = [0, 1].map(|at| training(&mut cluster, at, "usp/base"));
    for at in [0, 1] {
        cluster.crash(at);
        cluster.restart(at);
    }
    assert_eq!([0, 1].map(|at| training(&mut cluster, at, "usp/base")), before);
    assert!(before.iter().all(|view| view.attestation.is_some() && view.problem.is_none()));
    cluster.enact(country("BR"), "deny export trained-outside:BR");
    assert_eq!(pulled(&mut cluster, 2, home), CrossingState::Done);

    // The same files again: what was attested of them still holds. Other files: it does not.
    let Reply::Models(models) = cluster.call(0, AdminCall::Models) else { panic!("models") };
    let mut model = models.into_iter().find(|model| model.name == "usp/base").expect("it lies here");
    let claim = model.provenance.training.take();
    let Reply::Imported(again) = cluster.call(0, AdminCall::Import(Box::new(model.clone()))) else { panic!("imported") };
    assert_eq!(again.provenance.training, claim);
    model.manifest = ManifestId([99; 32]);
    model.provenance.training = claim;
    let Reply::Imported(other) = cluster.call(0, AdminCall::Import(Box::new(model))) else { panic!("imported") };
    assert_eq!(other.provenance.training, None);
}

/// A node that offers on proves with what it got, and what the first exporter's law demands holds there too.
#[test]
fn what_is_offered_on_keeps_its_proof() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
    let home = trained_at_home(&mut cluster);
    assert_eq!(pulled(&mut cluster, 1, home), CrossingState::Done);
    cluster.enact(country("BR"), "deny export trained-outside:BR");
    cluster.enact(country("CN"), "deny import trained-outside:BR");
    let terms = Terms { onward: true, ..OPEN };
    let draft = OfferDraft { name: "usp/base".to_owned(), compute: None, terms, ttl_ms: HOUR };
    let Reply::Published(on) = cluster.call(1, AdminCall::Publish(draft)) else { panic!("published") };
    cluster.run();
    let on = on.offer;
    assert_eq!(pulled(&mut cluster, 2, on), CrossingState::Done);
}

/// A clearance for a pull of node 1 that waits for one, by an exporter that may say what it likes.
fn cleared(asking: &Asking, offer: &Offer, training: Option<Vec<u8>>) -> Vec<u8> {
    let Offered::Model(model) = &offer.what else { panic!("a model") };
    let given = ClearanceGiven {
        labels: model.labels.clone(),
        volume: Volume::of(&model.labels, None),
        training: training.map(Into::into),
        ..asking.clearance()
    };
    asking.signed(&given)
}

fn body_of(cluster: &Cluster, id: StatementId) -> Offer {
    let of = |entry: &Entry| match &entry.record {
        Record::OfferPublished { offer } => Signed::<Offer>::open(offer, cluster.alliance.id).ok(),
        _ => None,
    };
    let offers = cluster.nodes[0].entries.iter().filter_map(of);
    offers.into_iter().find(|offer| offer.id() == id).expect("published").body().clone()
}

/// CROSSING-16: the attestation is the one that the offer names, and there is one exactly if it names one.
#[test]
fn a_clearance_without_the_proof_that_was_claimed_lets_nothing_in() {
    for lie in ["honest", "none", "garbage", "longer"] {
        let mut cluster = Cluster::pair();
        let home = trained_at_home(&mut cluster);
        cluster.enact(country("IN"), "deny import trained-outside:BR");
        let (offer, text) = (body_of(&cluster, home), training(&mut cluster, 0, "usp/base").attestation.expect("one"));
        let crossing = cluster.pull(1, home);
        let mut asking = Asking::under_way(cluster, crossing);
        let given = match lie {
            "honest" => Some(text.into_bytes()),
            "none" => None,
            "garbage" => Some(b"{}\n".to_vec()),
            _ => Some(format!("{text}\n").into_bytes()),
        };
        let answer = cleared(&asking, &offer, given);
        let effects = asking.answer(answer);
        if lie == "honest" {
            assert!(matches!(effects.bulk[..], [BulkOrder::Receive { .. }]), "{:?}", effects.bulk);
        } else {
            asking.assert_not_taken(&effects, "its training");
        }
    }
    // One that nobody claimed.
    let mut cluster = Cluster::pair();
    trained_at_home(&mut cluster);
    let text = training(&mut cluster, 0, "usp/base").attestation.expect("one");
    imported(&mut cluster, 0, "other", 33, Artefact::Weights);
    let other = offer(&mut cluster, 0, "usp/other");
    let body = body_of(&cluster, other);
    let crossing = cluster.pull(1, other);
    let mut asking = Asking::under_way(cluster, crossing);
    let answer = cleared(&asking, &body, Some(text.into_bytes()));
    let effects = asking.answer(answer);
    asking.assert_not_taken(&effects, "its training");
}

/// LAW-47: an offer that claims more than its attestation proves is decided on without it.
#[test]
fn a_claim_that_is_not_what_is_proven_counts_for_nothing() {
    for lie in ["honest", "countries", "model"] {
        let mut cluster = Cluster::pair();
        let home = trained_at_home(&mut cluster);
        cluster.enact(country("IN"), "deny import trained-outside:BR");
        let text = training(&mut cluster, 0, "usp/base").attestation.expect("one");
        let mut offer = body_of(&cluster, home);
        let Offered::Model(model) = &mut offer.what else { panic!("a model") };
        let claim = model.provenance.training.as_mut().expect("a claim");
        match lie {
            "countries" => cluster.enact(country("IN"), "deny import trained-outside:CN"),
            "model" => model.manifest = ManifestId([77; 32]),
            _ => {}
        }
        if lie == "countries" {
            claim.countries = [country("CN")].into();
        }
        offer.validity.from = offer.validity.from.plus_ms(1);
        let signed = cluster.alliance.signed(&cluster.nodes[0].key(), &offer);
        let (from, bytes) = (cluster.nodes[0].public(), signed.bytes().to_vec());
        cluster.nodes[0].lies = true;
        cluster.tell_mesh(1, MeshEvent::Gossiped { message: MessageId(7), from, bytes });
        let crossing = cluster.pull(1, signed.id());
        let mut asking = Asking::under_way(cluster, crossing);
        let answer = cleared(&asking, &offer, Some(text.into_bytes()));
        let effects = asking.answer(answer);
        if lie == "honest" {
            assert!(matches!(effects.bulk[..], [BulkOrder::Receive { .. }]), "{:?}", effects.bulk);
        } else {
            asking.assert_declined(&effects, RefusalCode::DeniedByLaw, "denied by the rules of IN");
            let ignored = asking.cluster.view(1, crossing).safeguards_ignored;
            assert!(ignored.iter().any(|why| why.starts_with("the attestation of training: ")), "{ignored:?}");
        }
    }
}

/// TRAINING-5: a node does not say of what came from elsewhere, or of what it has attested, that it was made otherwise.
#[test]
fn a_node_does_not_contradict_what_it_knows() {
    let mut cluster = Cluster::pair();
    let home = trained_at_home(&mut cluster);
    assert_eq!(pulled(&mut cluster, 1, home), CrossingState::Done);
    let again = record(&mut cluster, 0, draft("usp/base", &[], &["usp/corpus"], 2)).expect_err("refused");
    assert!(again.message.contains("attested already"), "{again:?}");
    imported(&mut cluster, 1, "notes", 41, Artefact::Dataset);
    // The same files under a name of its own.
    imported(&mut cluster, 1, "mine", 32, Artefact::Weights);
    let claimed = record(&mut cluster, 1, draft("iitb/mine", &[], &["iitb/notes"], 2)).expect_err("refused");
    assert!(claimed.message.contains("`usp/base`"), "{claimed:?}");
    imported(&mut cluster, 1, "tuned", 42, Artefact::Weights);
    let as_data = record(&mut cluster, 1, draft("iitb/tuned", &[], &["usp/base"], 2)).expect_err("refused");
    assert!(as_data.message.contains("no data"), "{as_data:?}");
}

/// Between the look at the files and the signature, the model became another.
#[test]
fn a_model_that_was_imported_again_meanwhile_is_not_signed_about() {
    let mut cluster = Cluster::pair();
    untrained(&mut cluster);
    cluster.let_pass(LATER);
    let seen = looked_up(&mut cluster, 0, draft("usp/base", &[], &["usp/corpus"], 1));
    imported(&mut cluster, 0, "base", 33, Artefact::Weights);
    let refused = record_as_is(&mut cluster, 0, seen).expect_err("another by now");
    assert!(refused.message.contains("imported again"), "{refused:?}");
}

/// A step that ran before its node was accredited is signed, with a note; once its authority has accredited it from then on,
/// it can be attested.
#[test]
fn an_accreditation_that_is_dated_back_covers_what_ran_before() {
    let mut cluster = Cluster::pair();
    untrained(&mut cluster);
    cluster.let_pass(LATER);
    let early = StepDraft {
        started: DAWN.minus_ms(30 * 24 * HOUR),
        finished: DAWN.minus_ms(29 * 24 * HOUR),
        ..draft("usp/base", &[], &["usp/corpus"], 1)
    };
    let early = looked_up(&mut cluster, 0, early);
    let (_, note) = record_as_is(&mut cluster, 0, early.clone()).expect("recorded");
    assert!(note.is_some_and(|note| note.contains("--from")));
    assert!(attest(&mut cluster, 0, "usp/base", &[]).is_err());
    let mut body = accreditation_of(country("BR"), cluster.nodes[0].public(), "usp");
    body.validity.from = early.started;
    cluster.nodes[0].accreditation = cluster.alliance.spoken(country("BR"), &body).bytes().to_vec();
    cluster.crash(0);
    cluster.restart(0);
    let (_, note) = record_as_is(&mut cluster, 0, early).expect("recorded");
    assert_eq!(note, None);
    let unsigned =
        AdminCall::Attest { name: "usp/base".to_owned(), steps: Vec::new(), accreditations: vec![vec![0].into()] };
    let Reply::Failed(unsigned) = cluster.call(0, unsigned) else { panic!("an accreditation that is none") };
    assert!(unsigned.message.starts_with("accreditation 1 of those given does not count: "), "{unsigned:?}");
    attest(&mut cluster, 0, "usp/base", &[]).expect("attested");
}

/// What a node was accredited as when a step ran is in its ledger.
#[test]
fn a_step_is_attested_after_a_restart_and_under_a_former_accreditation() {
    let mut cluster = Cluster::pair();
    untrained(&mut cluster);
    cluster.let_pass(LATER);
    cluster.crash(0);
    cluster.restart(0);
    record(&mut cluster, 0, draft("usp/base", &[], &["usp/corpus"], 1)).expect("recorded");
    // Renewed: the new paper begins after the step.
    let mut body = accreditation_of(country("BR"), cluster.nodes[0].public(), "usp");
    body.validity.from = cluster.now;
    cluster.nodes[0].accreditation = cluster.alliance.spoken(country("BR"), &body).bytes().to_vec();
    cluster.crash(0);
    cluster.restart(0);
    attest(&mut cluster, 0, "usp/base", &[]).expect("attested");
}

/// What others attest of something else that lies at their place is not taken for what is behind a model here.
#[test]
fn steps_come_from_the_attestation_that_the_model_came_with() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("BR", "ufmg")]);
    let home = trained_at_home(&mut cluster);
    // A lie of India about the same files, attested before it knew of them.
    imported(&mut cluster, 1, "notes", 41, Artefact::Dataset);
    imported(&mut cluster, 1, "mine", 32, Artefact::Weights);
    record(&mut cluster, 1, draft("iitb/mine", &[], &["iitb/notes"], 1)).expect("recorded");
    attest(&mut cluster, 1, "iitb/mine", &[]).expect("attested");
    let lie = offer(&mut cluster, 1, "iitb/mine");
    assert_eq!(pulled(&mut cluster, 2, home), CrossingState::Done);
    imported(&mut cluster, 2, "corpus", 51, Artefact::Dataset);
    imported(&mut cluster, 2, "tuned", 52, Artefact::Weights);
    record(&mut cluster, 2, draft("ufmg/tuned", &["usp/base"], &["ufmg/corpus"], 3)).expect("recorded");
    // Its clearance was accepted, and nothing came of it.
    cluster.pull(2, lie);
    cluster.run_to("received");
    let text = attest(&mut cluster, 2, "ufmg/tuned", &[]).expect("attested");
    let all = Attestation::open(text.as_bytes(), cluster.alliance.id).expect("an attestation");
    assert_eq!(all.findings().countries, [country("BR")].into());
    // Once both lie here, nobody can tell.
    cluster.run();
    assert_eq!(pulled(&mut cluster, 2, lie), CrossingState::Done);
    imported(&mut cluster, 2, "more", 53, Artefact::Weights);
    record(&mut cluster, 2, draft("ufmg/more", &["usp/base"], &["ufmg/corpus"], 3)).expect("recorded");
    let unclear = attest(&mut cluster, 2, "ufmg/more", &[]).expect_err("refused");
    assert!(unclear.message.contains("different things"), "{unclear:?}");
}

/// A node that two members have accredited says itself under which of them a step ran; nobody who rolls it up can say otherwise.
#[test]
fn a_step_ran_in_the_country_that_it_names() {
    let mut cluster = Cluster::pair();
    untrained(&mut cluster);
    cluster.let_pass(LATER);
    let line = record(&mut cluster, 0, draft("usp/base", &[], &["usp/corpus"], 1)).expect("recorded");
    let (alliance, node) = (cluster.alliance.id, cluster.nodes[0].public());
    let step = SignedStep::open(&line, alliance).expect("a step");
    let product = step.step().product.clone();
    let known = [(product.manifest, step)].into();
    let trust = Trust::new(Chartered::open(&cluster.alliance.charter).expect("a charter"));
    for (member, holds) in [("BR", true), ("IN", false)] {
        let paper = cluster.alliance.spoken(country(member), &accreditation_of(country(member), node, "usp"));
        let papers = |_: &Step| Some((paper.bytes().to_vec(), "usp".to_owned()));
        let key = cluster.nodes[1].key();
        let all = Attestation::make(product.clone(), &known, papers, alliance, &key, cluster.now).expect("holds by itself");
        assert_eq!(all.findings().countries, [country("BR")].into());
        assert_eq!(all.check_nodes(&trust).is_ok(), holds, "{member}");
    }
}
