//! What becomes of a ledger whose node's key made way for another: its heads, its witnesses, its audits and its decisions
//! (LEDGER-33 to 36 and 44).

use alliance_protocol::{
    audit::{AuditFile, FindingKind, Match, verify},
    charter::WitnessRule,
    core::{
        MeshOrder,
        admin::{AdminCall, CrossingState},
    },
    crossing::{LedgerHead, RefusalCode},
    envelope::{Draft, Signed},
    id::Sha256,
    key::{PublicKey, SecretKey},
    ledger::{Checkpoint, Entry, Origin, Record},
    limits,
    rotation::KeyRotation,
    time::Timestamp,
    vocabulary::Label,
};

use crate::{
    alliance::{SECOND, accreditation_of, country, key, stranger},
    audit::file_of,
    cluster::Cluster,
    exporter_refuses::Answer,
    rotation::{NEW, THIRD, settle, thief, tiles},
    routes::{Parcel, Said},
};

const ONE: WitnessRule = WitnessRule { countries: 1, grace_ms: 120 * SECOND };

fn witnessed() -> Cluster {
    let mut cluster = Cluster::witnessed(ONE, &[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    cluster.offer(0, &[Label::Public]);
    settle(&mut cluster);
    cluster
}

fn doubts(cluster: &mut Cluster, at: usize) -> Vec<PublicKey> {
    cluster.status(at).witnessed.doubts.into_keys().collect()
}

/// LEDGER-33 and 34: the tree goes on, under the origin of the new key, and witnesses go on with it.
#[test]
fn the_ledger_goes_on_and_witnesses_with_it() {
    let mut cluster = witnessed();
    let before = cluster.nodes[0].entries.len() as u64;
    for (at, new) in [(0, NEW), (1, 122), (0, THIRD)] {
        cluster.stop_and_rotate(at, new);
        assert_eq!(cluster.status(at).witnessed.problem, None, "what witnesses signed before counts");
        settle(&mut cluster);
        let status = cluster.status(at);
        assert_eq!((status.witnessed.problem, status.witnessed.size), (None, status.ledger_size));
        let note = cluster.nodes[at].witnessed.clone().expect("kept");
        let head = Checkpoint::parse_verified(&note, &key(new).public(), &Origin::of(&key(new).public()));
        assert_eq!(head.expect("under the new key").size, status.ledger_size);
    }
    assert!(cluster.status(0).ledger_size > before);
    for at in 0..3 {
        assert_eq!(doubts(&mut cluster, at), []);
        cluster.crash(at);
        cluster.restart(at);
        settle(&mut cluster);
        assert_eq!((doubts(&mut cluster, at), cluster.status(at).witnessed.problem), (vec![], None), "node {at}");
    }
    assert_eq!((cluster.pulled(1, 0), cluster.pulled(2, 0)), (CrossingState::Done, CrossingState::Done));
}

/// LEDGER-36: the home was an older copy when its key was changed.
#[test]
fn an_old_copy_is_not_made_new_by_a_new_key() {
    let mut cluster = witnessed();
    let yesterday = {
        let node = &cluster.nodes[0];
        (node.entries.clone(), node.held.clone(), node.witnessed.clone(), node.witnesses.clone())
    };
    cluster.call(0, AdminCall::Import(Box::new(cluster.model(0, &[Label::NonPersonal]))));
    settle(&mut cluster);
    let size = cluster.status(0).ledger_size;
    cluster.crash(0);
    {
        let node = &mut cluster.nodes[0];
        (node.entries, node.held, node.witnessed, node.witnesses) = yesterday;
    }
    cluster.rotate(0, NEW);
    cluster.restart(0);
    let problem = cluster.status(0).witnessed.problem.expect("it is not confirmed");
    assert!(
        problem.contains(&format!("a head of {size} entries that a key signed which this node had before")),
        "{problem}"
    );
    assert_eq!(cluster.pulled(1, 0), CrossingState::Denied, "and lets nothing out");
    // If it showed its head all the same, others would find out by themselves, and go on with that after a restart.
    shown(&mut cluster, 0);
    for at in [1, 2] {
        assert_eq!(doubts(&mut cluster, at), [key(NEW).public()], "node {at}");
        cluster.crash(at);
        cluster.restart(at);
        shown(&mut cluster, 0);
        assert_eq!(doubts(&mut cluster, at), [key(NEW).public()], "node {at}");
    }
    assert!(cluster.status(0).witnessed.problem.is_some());
}

/// The head that a node has now comes to all others, and they have time to ask about it.
fn shown(cluster: &mut Cluster, at: usize) {
    let (from, tiles) = (cluster.nodes[at].key(), tiles(&cluster.nodes[at].entries));
    let note = Checkpoint::sign(&from, &Origin::of(&from.public()), tiles.size(), tiles.root());
    for to in (0..cluster.nodes.len()).filter(|to| *to != at) {
        let said = Said::Gossiped { from: from.public(), bytes: note.clone().into_bytes() };
        cluster.deliver(Parcel { to, said });
    }
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
}

/// LEDGER-34: the ledger was rewritten by whoever has the keys, and has as many entries as others know of it.
#[test]
fn a_fork_at_the_rotation_is_found() {
    let mut cluster = witnessed();
    cluster.crash(0);
    let known = cluster.nodes[0].entries.len();
    let node = &mut cluster.nodes[0];
    // What was published never was.
    node.entries.retain(|entry| !matches!(entry.record, Record::OfferPublished { .. } | Record::ModelImported { .. }));
    (node.witnessed, node.held) = (None, std::collections::BTreeMap::new());
    let filler = node.entries.last().cloned().expect("a ledger");
    while cluster.nodes[0].entries.len() + 1 < known {
        cluster.nodes[0].entries.push(filler.clone());
    }
    cluster.rotate(0, NEW);
    assert_eq!(cluster.nodes[0].entries.len(), known);
    cluster.restart(0);
    shown(&mut cluster, 0);
    for at in [1, 2] {
        assert!(doubts(&mut cluster, at).contains(&key(NEW).public()), "node {at}");
    }
    assert!(cluster.status(0).witnessed.problem.is_some());
}

/// LEDGER-34: a node that is known to have forked does not shake that off.
#[test]
fn who_has_forked_has_forked_under_the_next_key_too() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb")]);
    let old = cluster.nodes[0].key();
    for root in [1, 2] {
        let note = Checkpoint::sign(&old, &Origin::of(&old.public()), 99, Sha256([root; 32]));
        let said = Said::Gossiped { from: old.public(), bytes: note.into_bytes() };
        cluster.deliver(Parcel { to: 1, said });
    }
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    assert_eq!(doubts(&mut cluster, 1), [old.public()]);
    cluster.stop_and_rotate(0, NEW);
    for _ in 0..2 {
        assert!(doubts(&mut cluster, 1).contains(&key(NEW).public()));
        cluster.crash(1);
        cluster.restart(1);
    }
}

/// LEDGER-35: whoever has the old key can neither raise a doubt about the ledger any more nor have anything signed.
#[test]
fn heads_under_the_old_key_are_nobodys_word() {
    let mut cluster = witnessed();
    let old = cluster.nodes[0].key();
    cluster.stop_and_rotate(0, NEW);
    settle(&mut cluster);
    let size = cluster.status(0).ledger_size;
    let invented = Checkpoint::sign(&old, &Origin::of(&old.public()), size - 1, Sha256([5; 32]));
    let from = cluster.nodes[2].public();
    for to in [0, 1] {
        cluster.deliver(Parcel { to, said: Said::Gossiped { from, bytes: invented.clone().into_bytes() } });
        let body =
            alliance_protocol::ledger::AddCheckpoint { old: 0, proof: vec![], checkpoint: invented.clone() }.to_body();
        let ask = alliance_protocol::core::WitnessAsk::Add { body };
        let question = alliance_protocol::core::SyncId(u64::MAX);
        let event = alliance_protocol::core::MeshEvent::WitnessAsked { question, peer: from, ask };
        let effects = cluster.tell_mesh(to, event);
        let refused = |order: &MeshOrder| matches!(order, MeshOrder::AnswerWitness { answer, .. } if answer.status == 404);
        assert!(effects.mesh.iter().any(refused) && effects.keep.is_empty(), "node {to}");
    }
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    assert_eq!((doubts(&mut cluster, 1), cluster.status(0).witnessed.problem), (vec![], None));
    assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
}

// Audits.

fn file(cluster: &Cluster, at: usize, entries: &[Entry]) -> AuditFile {
    file_of(cluster, at, entries, None, Timestamp(0))
}

/// LEDGER-44.
#[test]
fn both_halves_agree_across_rotations_of_both_sides() {
    let mut cluster = witnessed();
    cluster.offer(1, &[Label::Public]);
    assert_eq!((cluster.pulled(1, 0), cluster.pulled(0, 1)), (CrossingState::Done, CrossingState::Done));
    let early = file(&cluster, 1, &cluster.nodes[1].entries);
    for (at, new) in [(0, NEW), (1, 122), (0, THIRD)] {
        cluster.stop_and_rotate(at, new);
        // Before witnesses have signed under the new key, what they signed under the old one is shown.
        let alone = verify(&[file(&cluster, at, &cluster.nodes[at].entries)], None);
        assert_eq!(alone.findings, [], "node {at}");
        settle(&mut cluster);
        assert_eq!((cluster.pulled(1, 0), cluster.pulled(0, 1)), (CrossingState::Done, CrossingState::Done));
    }
    settle(&mut cluster);
    let files = [0, 1].map(|at| file(&cluster, at, &cluster.nodes[at].entries));
    let report = verify(&files, None);
    assert_eq!(report.findings, []);
    assert_eq!(report.crossings.len(), 8);
    assert!(report.crossings.iter().all(|found| found.halves == Match::Both), "{:?}", report.crossings);
    assert_eq!(report.files[0].former, [key(100).public(), key(NEW).public()]);
    // A file from before the change is one of the same ledger.
    let report = verify(&[files[1].clone(), early.clone()], None);
    assert_eq!(report.findings, []);
    let mut entries = cluster.nodes[1].entries.clone();
    cluster.nodes[1].witnessed = None;
    entries[2].at = entries[2].at.plus_ms(1);
    let report = verify(&[file(&cluster, 1, &entries), early], None);
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::Forked), "{:?}", report.findings);
}

/// What a thief does with the old key is not held against the node that has given it up.
#[test]
fn what_is_done_with_a_key_that_ended_is_somebody_elses() {
    let mut cluster = Cluster::pair();
    cluster.offer(0, &[Label::Public]);
    assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
    let thief = thief(&mut cluster, 1);
    cluster.wires.sparse = true;
    cluster.crash(1);
    cluster.rotate(1, NEW);
    cluster.let_pass(2 * limits::CLOCK_SKEW_MS_MAX);
    // Nobody has heard of it yet: the thief is served.
    cluster.try_start(thief).expect("as far as it knows, its papers hold");
    cluster.connect(thief, 0);
    cluster.run();
    assert_eq!(cluster.pulled(thief, 0), CrossingState::Done);
    cluster.crash(thief);
    let report = verify(&[0, 1].map(|at| file(&cluster, at, &cluster.nodes[at].entries)), None);
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((finding.kind, finding.node), (FindingKind::Untrusted, cluster.nodes[0].public()));
    assert!(finding.what.contains("had given up before"), "{finding:?}");
    // From when it is heard of, it is refused, and there is nothing to say of that.
    cluster.restart(1);
    cluster.connect(1, 0);
    cluster.run();
    cluster.try_start(thief).expect("starts");
    let offer = cluster.offers(1).into_iter().find(|offer| offer.node == cluster.nodes[0].public()).expect("stands");
    let mut lie = cluster.by_hand(offer.offer, 9);
    (lie.body.importer, lie.body.accreditation) = (key(101).public(), cluster.nodes[thief].accreditation.clone());
    (lie.signers, lie.peer) = (vec![key(101)], key(101).public());
    let (_, answer) = cluster.put(&lie);
    assert!(matches!(answer, Answer::Refused(RefusalCode::NotAccredited, Some(_))), "{answer:?}");
    let report = verify(&[0, 1].map(|at| file(&cluster, at, &cluster.nodes[at].entries)), None);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    let refused = report.crossings.iter().find(|found| found.crossing == lie.body.crossing).expect("is there");
    assert_eq!(refused.halves, Match::OneGiven);
}

#[test]
fn a_rotation_that_was_tampered_with_is_named() {
    let mut cluster = Cluster::pair();
    cluster.offer(0, &[Label::Public]);
    assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
    cluster.let_pass(SECOND);
    cluster.stop_and_rotate(0, NEW);
    assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
    let entries = cluster.nodes[0].entries.clone();
    let at = entries.iter().position(|entry| matches!(entry.record, Record::KeyRotated { .. })).expect("is there");
    let Record::KeyRotated { rotation } = &entries[at].record else { panic!() };
    let honest = Signed::<KeyRotation>::open(rotation, cluster.alliance.id).expect("holds").body().clone();
    let with = |body: &KeyRotation, keys: &[&SecretKey]| {
        let signed = keys.iter().fold(Draft::new(body, cluster.alliance.id), |draft, key| draft.sign(key)).to_bytes();
        let mut entries = entries.clone();
        entries[at].record = Record::KeyRotated { rotation: signed.into() };
        entries
    };
    let (old, new) = (key(100), key(NEW));
    let mut gone = entries.clone();
    gone.remove(at);
    let mut moved = entries.clone();
    moved.swap(at, at - 1);
    let head = LedgerHead { root: Sha256([1; 32]), ..honest.ledger };
    let mut dated = entries.clone();
    dated[at].at = dated[at].at.plus_ms(1);
    let unspoken =
        cluster.alliance.signed(&stranger(), &accreditation_of(country("BR"), new.public(), "usp")).bytes().to_vec();
    let table = [
        ("it is not there", gone, FindingKind::Untrusted),
        ("it stands elsewhere", moved, FindingKind::Reordered),
        ("by the new key alone", with(&honest, &[&new]), FindingKind::Untrusted),
        ("of another ledger", with(&KeyRotation { ledger: head, ..honest.clone() }, &[&old, &new]), FindingKind::Altered),
        ("at another time", dated, FindingKind::BackDated),
        ("no paper", with(&KeyRotation { new_accreditation: unspoken, ..honest }, &[&old, &new]), FindingKind::Untrusted),
    ];
    assert_eq!(verify(&[file(&cluster, 0, &entries)], None).findings, []);
    for (why, entries, kind) in table {
        let report = verify(&[file(&cluster, 0, &entries), file(&cluster, 1, &cluster.nodes[1].entries)], None);
        assert!(report.findings.iter().any(|finding| finding.kind == kind), "{why}: {:?}", report.findings);
    }
}

#[test]
fn decisions_come_out_again_across_a_rotation() {
    let mut cluster = Cluster::pair();
    cluster.offer(0, &[Label::Public]);
    cluster.pulled(1, 0);
    cluster.stop_and_rotate(0, NEW);
    cluster.pulled(1, 0);
    let cleared: Vec<_> = cluster.nodes[0]
        .entries
        .iter()
        .filter_map(|entry| match &entry.record {
            Record::Cleared { crossing, .. } => Some(*crossing),
            _ => None,
        })
        .collect();
    assert_eq!(cleared.len(), 2);
    for crossing in cleared {
        let again = alliance_protocol::replay::replay(&cluster.nodes[0].entries, crossing, &crate::tabled_gate::TabledGate);
        let again = again.expect("decided again");
        assert!(again.iter().all(|one| matches!(one.again, alliance_protocol::replay::Again::Same { .. })), "{again:?}");
    }
}
