//! An auditor with files from both sides: what is true is found true, and every way to lie has a name.

use std::collections::BTreeSet;

use alliance_protocol::{
    audit::{AuditFile, FindingKind, Match, NotAnAuditFile, NotExported, Outcome, Report, Source, verify},
    charter::WitnessRule,
    core::{
        BulkEvent, BulkFailure,
        admin::{CrossingState, PullCall},
    },
    crossing::RefusalCode,
    gate::{Pack, PackOwner},
    id::CrossingId,
    ledger::{Checkpoint, Entry, Origin, Record, Tiles},
    time::Timestamp,
    vocabulary::{Country, Label, Purpose},
};

use crate::{
    alliance::{SECOND, country},
    cluster::{Cluster, MODEL_BYTES},
};

/// The file that the operator of a node makes of these entries, whatever they are: it has the node's key.
pub(crate) fn file_of(cluster: &Cluster, at: usize, entries: &[Entry], of: Option<Country>, since: Timestamp) -> AuditFile {
    let node = &cluster.nodes[at];
    let leaf = |entry: &Entry| entry.leaf_hash(&entry.encode().expect("encodes")).expect("a leaf");
    let tiles: Tiles = entries.iter().map(leaf).collect();
    let source = Source {
        node: node.public(),
        charter: cluster.alliance.charter.clone(),
        accreditation: node.accreditation.clone(),
        home: node.member,
        entries,
        checkpoint: Checkpoint::sign(&node.key(), &Origin::of(&node.public()), tiles.size(), tiles.root()),
        witnessed: node.witnessed.clone(),
        witnesses: node.witnesses.clone(),
    };
    let file = source.export(of, since, cluster.now).expect("the ledger is whole");
    // As it is written and read.
    AuditFile::open(&file.seal(&node.key())).expect("an audit file")
}

fn file(cluster: &Cluster, at: usize) -> AuditFile {
    file_of(cluster, at, &cluster.nodes[at].entries, None, Timestamp(0))
}

/// Brazil exports to India: one crossing is settled, one broke off, one is refused, one denied at home.
fn busy() -> (Cluster, [CrossingId; 4]) {
    let mut cluster = Cluster::pair();
    cluster.crash(0);
    cluster.nodes[0].house = Some(Pack::new(PackOwner::House, 1, "deny export purpose:military", ""));
    cluster.restart(0);
    cluster.enact(country("IN"), "deny import purpose:commercial");
    let offer = cluster.offer(0, &[Label::Public]);
    let settled = cluster.pull(1, offer);
    cluster.run();
    let failed = cluster.pull(1, offer);
    cluster.run_to("received");
    let failure = || BulkFailure::Lost("gone".into());
    let effects = cluster.tell_bulk(1, BulkEvent::PullFailed { crossing: failed, failure: failure() });
    cluster.route(1, effects);
    cluster.silence_streams();
    cluster.run();
    let with = |cluster: &mut Cluster, purpose| {
        let call = PullCall { purpose, ..cluster.pull_call(offer) };
        let crossing = cluster.pull_with(1, call);
        cluster.run();
        crossing
    };
    let refused = with(&mut cluster, Purpose::Military);
    let denied = with(&mut cluster, Purpose::Commercial);
    (cluster, [settled, failed, refused, denied])
}

fn of(report: &Report, crossing: CrossingId) -> (Outcome, Match) {
    let found = report.crossings.iter().find(|found| found.crossing == crossing).expect("is there");
    (found.outcome, found.halves)
}

fn kinds(report: &Report) -> BTreeSet<FindingKind> {
    report.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn what_is_true_is_found_true() {
    let (cluster, [settled, failed, refused, denied]) = busy();
    let report = verify(&[file(&cluster, 0), file(&cluster, 1)], None);
    assert_eq!(report.findings, []);
    assert_eq!(of(&report, settled), (Outcome::Settled, Match::Both));
    assert_eq!(of(&report, failed).1, Match::Both);
    assert_eq!(of(&report, refused), (Outcome::Refused(RefusalCode::DeniedByTerms), Match::Both));
    assert_eq!(of(&report, denied), (Outcome::DeniedAtHome, Match::OneExpected));
    let first = report.crossings.iter().find(|found| found.crossing == settled).expect("is there");
    assert_eq!((first.from, first.to, first.bytes), (Some(country("BR")), Some(country("IN")), Some(MODEL_BYTES)));
    assert_eq!(report.files.iter().map(|file| file.organisation.as_str()).collect::<Vec<_>>(), ["usp", "iitb"]);
    // One file alone holds, and says that the other half was not looked at.
    for at in [0, 1] {
        let alone = verify(&[file(&cluster, at)], None);
        assert_eq!(alone.findings, []);
        assert_eq!(of(&alone, settled), (Outcome::Settled, Match::OneGiven));
    }
}

/// What only the exporter knew made the importer's answer a no: both halves are there, and the file replays it.
#[test]
fn what_the_importer_declined_is_not_taken_for_a_failure() {
    let mut cluster = Cluster::pair();
    cluster.crash(1);
    cluster.nodes[1].house = Some(Pack::new(PackOwner::House, 1, "deny-people import 40000", ""));
    cluster.restart(1);
    let [before, offer] = [cluster.offer_people(24_999, 20), cluster.offer_people(24_999, 21)];
    cluster.pull(1, before);
    cluster.run();
    let crossing = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Denied);
    assert_eq!(cluster.view(0, crossing).bytes, 0);
    let report = verify(&[file(&cluster, 0), file(&cluster, 1)], None);
    assert_eq!(report.findings, []);
    assert_eq!(of(&report, crossing), (Outcome::Declined, Match::Both));
    // A ledger in which something was taken, before or after it was declined.
    let entries = cluster.nodes[1].entries.clone();
    let declined = entries.iter().position(|entry| matches!(entry.record, Record::ClearanceDeclined { .. })).expect("one");
    let Record::ClearanceDeclined { clearance, decision, .. } = entries[declined].record.clone() else { panic!("it is") };
    let at = entries[declined].at;
    let accepted = Entry { at, record: Record::ClearanceAccepted { crossing, clearance, decision } };
    for place in [declined, declined + 1] {
        let mut entries = entries.clone();
        entries.insert(place, accepted.clone());
        let lied = verify(&[file_of(&cluster, 1, &entries, None, Timestamp(0))], None);
        let found = lied.findings.iter().filter(|finding| finding.what.contains("taken by it all the same"));
        assert_eq!(found.count(), 1, "{place}: {lied:?}");
    }
    // Bytes that left before the importer's answer are shown.
    let mut entries = cluster.nodes[0].entries.clone();
    for entry in &mut entries {
        if let Record::CrossingFailed { bytes, .. } = &mut entry.record {
            *bytes = 77;
        }
    }
    let report = verify(&[file_of(&cluster, 0, &entries, None, Timestamp(0)), file(&cluster, 1)], None);
    let shown = report.crossings.iter().find(|found| found.crossing == crossing).expect("is there");
    assert_eq!((shown.bytes, shown.outcome), (Some(77), Outcome::Declined));
    let facts = cluster.view(1, crossing).facts.expect("decided on");
    assert_eq!(facts.volume.people, alliance_protocol::gate::People::new(49_998));
    cluster.restart(1);
    assert_eq!(cluster.state(1, crossing), CrossingState::Denied, "the ledger remembers");
}

#[test]
fn a_file_has_what_concerns_a_country_since_a_day() {
    let (mut cluster, [settled, ..]) = busy();
    let entries = |cluster: &Cluster| cluster.nodes[0].entries.clone();
    let of_country = |code| file_of(&cluster, 0, &entries(&cluster), Some(country(code)), Timestamp(0));
    assert!(verify(&[of_country("IN")], None).crossings.iter().any(|found| found.crossing == settled));
    assert_eq!(verify(&[of_country("ZA")], None).crossings, []);
    cluster.let_pass(600 * SECOND);
    let later = cluster.now;
    let offer = cluster.offer(0, &[Label::Public]);
    let second = cluster.pull(1, offer);
    cluster.run();
    let since = file_of(&cluster, 0, &entries(&cluster), Some(country("BR")), later);
    let report = verify(&[since.clone(), file(&cluster, 1)], None);
    assert_eq!(report.findings, [], "what is before that day is not missed");
    assert!(since.len() < file(&cluster, 0).len());
    assert_eq!(of(&report, second), (Outcome::Settled, Match::Both));
    assert_eq!(of(&report, settled), (Outcome::Settled, Match::NotCovered));
}

/// Changes what a ledger says of a crossing.
type Lie = Box<dyn Fn(&mut Vec<Entry>, CrossingId)>;

/// What an operator could do to its own ledger with its own key, and what it is called.
#[test]
fn every_way_to_lie_has_a_name() {
    let (cluster, [settled, _, refused, denied]) = busy();
    let change = |entries: &mut Vec<Entry>, crossing, kind: &str, change: &dyn Fn(&mut Entry)| {
        let fits = |entry: &&mut Entry| entry.record.crossing() == Some(crossing) && entry.record.kind() == kind;
        change(entries.iter_mut().find(fits).expect("is there"));
    };
    let forget = |entries: &mut Vec<Entry>, crossing| entries.retain(|entry| entry.record.crossing() != Some(crossing));
    let remove = |kind: &'static str| {
        move |entries: &mut Vec<Entry>, crossing| {
            entries.retain(|entry| entry.record.crossing() != Some(crossing) || entry.record.kind() != kind);
        }
    };
    let swap = |entries: &mut Vec<Entry>, crossing| {
        let of = |entry: &Entry| entry.record.crossing() == Some(crossing);
        let first = entries.iter().position(of).expect("is there");
        entries.swap(first, first - 1);
        let (one, other) = (entries[first].at, entries[first - 1].at);
        (entries[first].at, entries[first - 1].at) = (one.max(other), one.min(other));
    };
    let lies: Vec<(usize, CrossingId, FindingKind, Lie)> = vec![
        (0, settled, FindingKind::Missing, Box::new(forget)),
        (1, settled, FindingKind::Missing, Box::new(forget)),
        (0, refused, FindingKind::Missing, Box::new(forget)),
        (1, refused, FindingKind::Missing, Box::new(forget)),
        (0, settled, FindingKind::Missing, Box::new(remove("settled"))),
        (0, settled, FindingKind::Missing, Box::new(remove("cleared"))),
        (1, settled, FindingKind::Missing, Box::new(remove("clearance_accepted"))),
        (0, settled, FindingKind::Reordered, Box::new(swap)),
        (1, settled, FindingKind::Reordered, Box::new(swap)),
        (
            0,
            settled,
            FindingKind::BackDated,
            Box::new(move |entries, crossing| change(entries, crossing, "cleared", &|entry| entry.at.0 -= 1000)),
        ),
        (
            1,
            settled,
            FindingKind::BackDated,
            Box::new(move |entries, crossing| change(entries, crossing, "received", &|entry| entry.at.0 += 1000)),
        ),
        (
            0,
            refused,
            FindingKind::BackDated,
            Box::new(move |entries, crossing| change(entries, crossing, "refused", &|entry| entry.at.0 += 1000)),
        ),
        // What only this side said: its own facts. The head that it signed afterwards is another.
        (
            1,
            settled,
            FindingKind::Altered,
            Box::new(move |entries, crossing| {
                change(entries, crossing, "requested", &|entry| {
                    let Record::Requested { name, .. } = &mut entry.record else { panic!("{entry:?}") };
                    name.push_str("-harmless");
                });
            }),
        ),
        (
            0,
            settled,
            FindingKind::Altered,
            Box::new(move |entries, crossing| {
                change(entries, crossing, "cleared", &|entry| {
                    let Record::Cleared { request, .. } = &mut entry.record else { panic!("{entry:?}") };
                    request[100] ^= 1;
                });
            }),
        ),
    ];
    for (number, (at, crossing, kind, lie)) in lies.iter().enumerate() {
        let mut entries = cluster.nodes[*at].entries.clone();
        lie(&mut entries, *crossing);
        let lying = file_of(&cluster, *at, &entries, None, Timestamp(0));
        let honest = file(&cluster, 1 - *at);
        let report = verify(&[lying, honest], None);
        let node = cluster.nodes[*at].public();
        assert!(
            report.findings.iter().any(|finding| finding.kind == *kind && finding.node == node),
            "lie {number}: {:?}",
            report.findings
        );
        if *kind != FindingKind::Altered {
            assert_eq!(of(&report, *crossing).1, Match::Wrong, "lie {number}");
        }
        let innocent = cluster.nodes[1 - *at].public();
        let accused: Vec<_> = report.findings.iter().filter(|finding| finding.node == innocent).collect();
        assert!(accused.is_empty(), "lie {number}: {accused:?}");
    }
    let _has_no_other_half = denied;
}

#[test]
fn two_files_of_one_ledger_that_are_not_of_one_history_are_a_fork() {
    let (cluster, [settled, ..]) = busy();
    let mut other = cluster.nodes[0].entries.clone();
    other.retain(|entry| entry.record.crossing() != Some(settled));
    let other = file_of(&cluster, 0, &other, None, Timestamp(0));
    let report = verify(&[file(&cluster, 0), other], None);
    assert!(kinds(&report).contains(&FindingKind::Forked), "{:?}", report.findings);
    // An earlier file of the same history is none.
    let entries = &cluster.nodes[0].entries;
    let earlier = file_of(&cluster, 0, &entries[..entries.len() - 3], None, Timestamp(0));
    assert_eq!(verify(&[earlier, file(&cluster, 0)], None).findings, []);
}

#[test]
fn every_flipped_bit_of_a_file_is_found_when_it_is_opened() {
    let cluster = Cluster::pair();
    let sealed = file(&cluster, 0).seal(&cluster.nodes[0].key());
    assert!(AuditFile::open(&sealed).is_ok());
    for at in (0..sealed.len() * 8).step_by(5) {
        let mut bytes = sealed.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(AuditFile::open(&bytes).is_err(), "bit {at}");
    }
    for cut in 0..sealed.len().min(300) {
        assert!(AuditFile::open(&sealed[..cut]).is_err());
    }
    // Another node cannot speak for this one.
    let other = file(&cluster, 0).seal(&cluster.nodes[1].key());
    assert_eq!(AuditFile::open(&other), Err(NotAnAuditFile::Signature(cluster.nodes[0].public())));
}

#[test]
fn a_ledger_that_witnesses_have_seen_cannot_be_rewritten_and_one_that_they_have_not_is_named() {
    let rule = WitnessRule { countries: 2, grace_ms: 120 * SECOND };
    let mut cluster = Cluster::witnessed(rule, &[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    cluster.advance_to(cluster.now.plus_ms(5 * SECOND));
    let good = verify(&[file(&cluster, 0), file(&cluster, 1)], None);
    assert_eq!(good.findings, []);
    let witnessed = good.files[0].witnessed.clone().expect("witnessed");
    assert_eq!(witnessed.by, BTreeSet::from([country("IN"), country("ZA")]));
    assert_eq!((witnessed.needed, witnessed.entries), (2, cluster.nodes[0].entries.len() as u64));

    // Without the accreditation of one of them it is not known where it is.
    let papers = std::mem::take(&mut cluster.nodes[0].witnesses);
    cluster.nodes[0].witnesses = papers[..1].to_vec();
    let report = verify(&[file(&cluster, 0)], None);
    assert_eq!(kinds(&report), BTreeSet::from([FindingKind::Unwitnessed]));
    cluster.nodes[0].witnesses = papers;

    // Rewritten, it does not go with what they signed, and no file is made of it; nor is one without them believed.
    let mut rewritten = cluster.nodes[0].entries.clone();
    rewritten.retain(|entry| entry.record.crossing() != Some(crossing));
    let node = cluster.nodes[0].public();
    let leaf = |entry: &Entry| entry.leaf_hash(&entry.encode().expect("encodes")).expect("a leaf");
    let tiles: Tiles = rewritten.iter().map(leaf).collect();
    let source = Source {
        node,
        charter: cluster.alliance.charter.clone(),
        accreditation: cluster.nodes[0].accreditation.clone(),
        home: country("BR"),
        entries: &rewritten,
        checkpoint: Checkpoint::sign(&cluster.nodes[0].key(), &Origin::of(&node), tiles.size(), tiles.root()),
        witnessed: cluster.nodes[0].witnessed.clone(),
        witnesses: cluster.nodes[0].witnesses.clone(),
    };
    assert_eq!(source.export(None, Timestamp(0), cluster.now), Err(NotExported::Witnessed));
    cluster.nodes[0].witnessed = None;
    let report = verify(&[file_of(&cluster, 0, &rewritten, None, Timestamp(0)), file(&cluster, 1)], None);
    let found = kinds(&report);
    assert!(found.contains(&FindingKind::Unwitnessed) && found.contains(&FindingKind::Missing), "{found:?}");
}

#[test]
fn a_half_that_the_other_file_does_not_cover_is_not_taken_for_one_that_nobody_expects() {
    let (cluster, [settled, _, refused, _]) = busy();
    let importer = file(&cluster, 1);
    let later = cluster.now.plus_ms(86_400 * SECOND);
    for narrow in [
        file_of(&cluster, 0, &cluster.nodes[0].entries, None, later),
        file_of(&cluster, 0, &cluster.nodes[0].entries, Some(country("ZA")), Timestamp(0)),
    ] {
        let report = verify(&[narrow, importer.clone()], None);
        assert_eq!(report.findings, []);
        assert_eq!(of(&report, settled), (Outcome::Settled, Match::NotCovered));
    }
    // Files of what concerns the importer's country have what was refused too, whether or not law was asked.
    let of_india = |at| file_of(&cluster, at, &cluster.nodes[at].entries, Some(country("IN")), Timestamp(0));
    let report = verify(&[of_india(0), of_india(1)], None);
    assert_eq!(report.findings, []);
    assert_eq!(of(&report, refused).1, Match::Both);
    // A file beside itself is one half.
    let report = verify(&[file(&cluster, 0), file(&cluster, 0)], None);
    assert_eq!(of(&report, settled), (Outcome::Settled, Match::OneGiven));
}

#[test]
fn nobody_is_accused_by_what_another_has_written_down() {
    let (cluster, [settled, ..]) = busy();
    let mut entries = cluster.nodes[1].entries.clone();
    for entry in &mut entries {
        if let Record::Requested { decision, crossing, .. } = &mut entry.record
            && *crossing == settled
        {
            decision.facts.as_mut().expect("facts").subjects.insert(country("ZA"));
        }
    }
    let lying = file_of(&cluster, 1, &entries, Some(country("ZA")), Timestamp(0));
    let honest = file_of(&cluster, 0, &cluster.nodes[0].entries, Some(country("ZA")), Timestamp(0));
    let report = verify(&[honest, lying], None);
    let node = cluster.nodes[0].public();
    assert!(report.findings.iter().all(|finding| finding.node != node), "{:?}", report.findings);
}

#[test]
fn a_clock_that_was_put_right_is_no_lie_and_one_that_was_put_back_far_is() {
    let (cluster, _) = busy();
    let earlier = |ms: u64| {
        let mut entries = cluster.nodes[0].entries.clone();
        // Something that nobody else has signed, recorded after the rest.
        let accredited = entries.iter().find(|entry| entry.record.kind() == "accredited").cloned().expect("is there");
        entries.push(Entry { at: cluster.now.minus_ms(ms), ..accredited });
        kinds(&verify(&[file_of(&cluster, 0, &entries, None, Timestamp(0))], None))
    };
    assert_eq!(earlier(30 * SECOND), BTreeSet::new());
    assert_eq!(earlier(300 * SECOND), BTreeSet::from([FindingKind::BackDated]));
}

#[test]
fn what_witnesses_have_not_signed_in_time_is_named() {
    let rule = WitnessRule { countries: 2, grace_ms: 120 * SECOND };
    let mut cluster = Cluster::witnessed(rule, &[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    cluster.advance_to(cluster.now.plus_ms(5 * SECOND));
    let old = (cluster.nodes[0].witnessed.clone(), cluster.nodes[0].witnesses.clone());
    let offer = cluster.offer(0, &[Label::Public]);
    cluster.pull(1, offer);
    cluster.run();
    // What has only just been recorded may still stand without them.
    (cluster.nodes[0].witnessed, cluster.nodes[0].witnesses) = old.clone();
    assert_eq!(verify(&[file(&cluster, 0)], None).findings, []);
    cluster.advance_to(cluster.now.plus_ms(200 * SECOND));
    assert_eq!(verify(&[file(&cluster, 0)], None).findings, []);
    (cluster.nodes[0].witnessed, cluster.nodes[0].witnesses) = old;
    assert_eq!(kinds(&verify(&[file(&cluster, 0)], None)), BTreeSet::from([FindingKind::Unwitnessed]));
}

#[test]
fn a_file_tells_of_approvals_of_its_own_artefacts_alone() {
    use alliance_protocol::{authority::Approval, id::ManifestId};
    let (mut cluster, _) = busy();
    let officer = cluster.alliance.officer(country("BR"), 0).to_seed();
    let officer = alliance_protocol::key::SecretKey::from_seed(&officer);
    let own = cluster.approval(PackOwner::Member(country("BR")), 1_000_000);
    let other = Approval { manifest: ManifestId([99; 32]), ..own.clone() };
    for approval in [&own, &other] {
        cluster.approve(0, approval, &[&officer]);
    }
    let count = |of| file_of(&cluster, 0, &cluster.nodes[0].entries, of, Timestamp(0)).len();
    let approvals = cluster.nodes[0].count(|record| matches!(record, Record::ApprovalAccepted { .. }));
    assert_eq!(approvals, 2);
    let (all, none) = (count(None), count(Some(country("ZA"))));
    let without = cluster.nodes[0].entries.iter().filter(|entry| entry.record.kind() != "approval_accepted");
    let without: Vec<_> = without.cloned().collect();
    let bare = |of| file_of(&cluster, 0, &without, of, Timestamp(0)).len();
    assert_eq!((all - bare(None), none - bare(Some(country("ZA")))), (1, 0));
}

/// LEDGER-42: what a node says of where a model was trained is checked against what was signed.
#[test]
fn training_that_does_not_follow_from_the_clearance_is_named() {
    let mut cluster = Cluster::pair();
    let home = crate::training::trained_at_home(&mut cluster);
    assert_eq!(crate::training::pulled(&mut cluster, 1, home), CrossingState::Done);
    assert_eq!(verify(&[file(&cluster, 0), file(&cluster, 1)], None).findings, []);
    for at in [0, 1] {
        let mut entries = cluster.nodes[at].entries.clone();
        for entry in &mut entries {
            if let Record::Cleared { decision, .. } | Record::ClearanceAccepted { decision, .. } = &mut entry.record {
                decision.facts.as_mut().expect("facts").trained_in = Some([country("CN")].into());
            }
        }
        let lied = file_of(&cluster, at, &entries, None, Timestamp(0));
        let report = verify(&[lied], None);
        let named = |finding: &alliance_protocol::audit::Finding| {
            finding.kind == FindingKind::Untrusted && finding.what.contains("trained")
        };
        assert!(report.findings.iter().any(named), "{at}: {:?}", report.findings);
    }
}
