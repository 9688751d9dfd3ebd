//! Daemons that stop in every phase of a crossing, and ledgers that are put back: nothing is forgotten (I3, I4).

use alliance_protocol::{
    core::{
        StartError,
        admin::{CrossingState, Reply, Side},
    },
    ledger::Record,
    vocabulary::Label,
};

use crate::{
    alliance::{accreditation_of, country, key, stranger},
    cluster::{Cluster, OPEN},
};

/// Every parcel of a crossing, in order.
const PHASES: [&str; 7] = ["reached", "asked", "answered", "received", "delivered", "receipt offered", "settled"];

fn crash_at(phase: &str, crashed: usize, tensors: &[&str]) {
    println!("node {crashed} stops before `{phase}` of {tensors:?}");
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let pull = |cluster: &mut Cluster| {
        let mut call = cluster.pull_call(offer);
        call.tensors = tensors.iter().map(|pattern| (*pattern).to_owned()).collect();
        cluster.pull_with(1, call)
    };
    let crossing = pull(&mut cluster);
    let parcel = cluster.run_to(phase);
    cluster.wires.queue.push_front(parcel);
    cluster.crash(crashed);
    cluster.run();
    cluster.restart(crashed);
    for at in [0, 1] {
        let recorded = |record: &Record| matches!(record, Record::Requested { crossing: of, .. } | Record::Cleared { crossing: of, .. } if *of == crossing);
        if cluster.nodes[at].count(recorded) == 0 {
            continue;
        }
        let state = cluster.state(at, crossing);
        assert!(state.is_final(), "node {at}: {state:?}");
        // Before it is settled it is not done; once delivered, it stays delivered. What was sent before the crash arrives.
        let expected = match (at, phase, crashed) {
            (0, "settled", _) | (0, "receipt offered", 1) | (1, "settled", 0) => CrossingState::Done,
            (1, "delivered", 0) | (1, "receipt offered" | "settled", _) => CrossingState::DoneUnsettled,
            _ => CrossingState::Failed,
        };
        assert_eq!(state, expected, "node {at}");
        assert_eq!(cluster.status(at).crossings_running, 0);
    }
    let again = pull(&mut cluster);
    assert_ne!(again, crossing, "a fresh seed, a fresh id");
    cluster.run();
    assert_eq!(cluster.state(0, again), CrossingState::Done, "a new pull works");
    assert_eq!(cluster.state(1, again), CrossingState::Done);
}

#[test]
fn a_crash_in_any_phase_fails_the_crossing_and_a_new_pull_works() {
    for phase in PHASES {
        for tensors in [&[][..], &["*"]] {
            crash_at(phase, 0, tensors);
            crash_at(phase, 1, tensors);
        }
    }
}

#[test]
fn what_is_shown_is_the_same_after_a_restart() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let done = cluster.pull(1, offer);
    cluster.run();
    cluster.enact(country("IN"), "deny import all");
    let denied = cluster.pull(1, offer);
    let before: Vec<_> = [(0, done), (1, done), (1, denied)].map(|(at, crossing)| cluster.view(at, crossing)).into();
    for at in [0, 1] {
        cluster.crash(at);
        cluster.restart(at);
    }
    let after: Vec<_> = [(0, done), (1, done), (1, denied)].map(|(at, crossing)| cluster.view(at, crossing)).into();
    for (before, mut after) in before.into_iter().zip(after) {
        // How much there was to move is learnt while it moves and is not recorded for what moved nothing.
        after.total = before.total;
        assert_eq!(before, after);
    }
    assert_eq!((cluster.status(0).offers, cluster.status(0).models), (1, 1), "what is this node's own is kept");
    assert_eq!((cluster.status(1).offers, cluster.status(1).models), (1, 1), "what is others' comes from the catalogue");
}

#[test]
fn what_was_accepted_once_is_the_floor_after_a_restart() {
    let mut cluster = Cluster::pair();
    let member = country("IN");
    let (old_status, old_pack) = (cluster.next_status(member), cluster.pack(member).clone());
    cluster.enact(member, "deny import all");
    cluster.crash(0);
    cluster.nodes[0].catalogue.clear();
    cluster.try_start(0).expect("starts");
    let old_status = cluster.alliance.status(&alliance_protocol::authority::Status { serial: 1, ..old_status });
    for bytes in [old_status.bytes(), old_pack.bytes()] {
        let reply = cluster.adopt(0, &[bytes]);
        assert!(matches!(&reply, Reply::Failed(failure) if failure.message.contains("older than")), "{reply:?}");
    }
    let offer = cluster.offer(0, &[Label::Public]);
    let lie = cluster.by_hand(offer, 1);
    let (_, answer) = cluster.put(&lie);
    assert!(matches!(answer, crate::exporter_refuses::Answer::Refused(..)), "the law of the last epoch counts: {answer:?}");
}

#[test]
fn a_withdrawn_offer_stays_withdrawn() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    cluster.call(0, alliance_protocol::core::admin::AdminCall::Withdraw { offer, reason: String::new() });
    cluster.run();
    for at in [0, 1] {
        cluster.crash(at);
        cluster.restart(at);
        assert_eq!(cluster.status(at).offers, 0);
    }
}

#[test]
fn a_copy_does_not_displace_a_model_that_was_made_here() {
    // Two nodes of one organisation offer different models under one name; each pulls the other's.
    let mut cluster = Cluster::new(&[("BR", "usp"), ("BR", "usp")]);
    let mut other = cluster.model(1, &[Label::Public]);
    other.manifest = alliance_protocol::id::ManifestId([8; 32]);
    let own = cluster.offer(0, &[Label::Public]);
    let theirs = cluster.offer_of(1, other, OPEN);
    cluster.pull(0, theirs);
    cluster.run();
    cluster.crash(0);
    cluster.restart(0);
    let crossing = cluster.pull(1, own);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done, "its own offer still stands for its own model");
}

#[test]
fn a_node_does_not_start_from_what_does_not_hold() {
    type Break = fn(&mut Cluster);
    let cases: &[(&str, Break)] = &[
        ("StartError::Charter", |cluster| cluster.alliance.charter[40] ^= 1),
        ("OtherCharter", |cluster| {
            if let Record::Founded { charter } = &mut cluster.nodes[0].entries[0].record {
                charter.push(0);
            }
        }),
        ("Accreditation", |cluster| cluster.nodes[0].accreditation = cluster.nodes[1].accreditation.clone()),
        ("Accreditation", |cluster| {
            let body = accreditation_of(country("BR"), cluster.nodes[0].public(), "usp");
            cluster.nodes[0].accreditation = cluster.alliance.signed(&stranger(), &body).bytes().to_vec();
        }),
        ("Accreditation", |cluster| cluster.let_pass(400 * crate::alliance::DAY)),
        ("Accreditation", |cluster| cluster.nodes[0].seed = 240),
        ("Ledger", |cluster| {
            for entry in &mut cluster.nodes[0].entries {
                if let Record::StatusAccepted { status } = &mut entry.record {
                    status[60] ^= 1;
                }
            }
        }),
        ("Ledger", |cluster| {
            for entry in &mut cluster.nodes[0].entries {
                if let Record::PackAccepted { pack } = &mut entry.record {
                    pack[60] ^= 1;
                }
            }
        }),
        ("Record", |cluster| {
            for entry in &mut cluster.nodes[0].entries {
                if let Record::OfferPublished { offer } = &mut entry.record {
                    offer[60] ^= 1;
                }
            }
        }),
        ("Held", |cluster| cluster.nodes[0].witnessed = Some("alliance/a note that nobody signed\n".into())),
        ("Held", |cluster| {
            let peer = cluster.nodes[1].public();
            cluster.nodes[0].held.insert(peer, "alliance/a note that nobody signed\n".into());
        }),
        ("Pack", |cluster| {
            let owner = alliance_protocol::gate::PackOwner::House;
            cluster.nodes[0].house = Some(alliance_protocol::gate::Pack::new(owner, 1, "unreadable", ""));
        }),
        ("Pack", |cluster| {
            let owner = alliance_protocol::gate::PackOwner::Alliance;
            cluster.nodes[0].baseline = alliance_protocol::gate::Pack::new(owner, 1, "unreadable", "");
        }),
    ];
    for (expected, damage) in cases {
        let mut cluster = Cluster::pair();
        cluster.offer(0, &[Label::Public]);
        cluster.crash(0);
        damage(&mut cluster);
        let error = cluster.try_start(0).expect_err(expected);
        let found = match error {
            StartError::Charter(_) => "StartError::Charter",
            StartError::OtherCharter => "OtherCharter",
            StartError::Versions(_) => "Versions",
            StartError::Accreditation(_) => "Accreditation",
            StartError::Ledger(_) => "Ledger",
            StartError::Record(..) => "Record",
            StartError::Held(_) => "Held",
            StartError::Pack(_) => "Pack",
            StartError::OtherKey(_) => "OtherKey",
            StartError::OwnRecord(_) => "OwnRecord",
        };
        assert_eq!(found, *expected);
    }
}

#[test]
fn a_revoked_node_does_not_start() {
    let mut cluster = Cluster::pair();
    cluster.revoke(country("BR"), cluster.nodes[0].public());
    cluster.crash(0);
    assert!(matches!(cluster.try_start(0), Err(StartError::Accreditation(_))));
}

#[test]
fn a_ledger_is_begun_once_and_notes_each_new_accreditation() {
    let mut cluster = Cluster::pair();
    let founded = |record: &Record| matches!(record, Record::Founded { .. });
    let accredited = |record: &Record| matches!(record, Record::Accredited { .. });
    cluster.crash(0);
    cluster.restart(0);
    assert_eq!((cluster.nodes[0].count(founded), cluster.nodes[0].count(accredited)), (1, 1));
    cluster.crash(0);
    let mut renewed = accreditation_of(country("BR"), key(100).public(), "usp");
    renewed.organisation.state_controlled = true;
    cluster.nodes[0].accreditation = cluster.alliance.spoken(country("BR"), &renewed).bytes().to_vec();
    cluster.restart(0);
    assert_eq!((cluster.nodes[0].count(founded), cluster.nodes[0].count(accredited)), (1, 2));
    let size = cluster.status(0).ledger_size;
    assert_eq!(usize::try_from(size).expect("small"), cluster.nodes[0].entries.len());
}

#[test]
fn a_failure_that_a_restart_records_names_its_side() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    cluster.pull(1, offer);
    cluster.run_to("received");
    for (at, side) in [(0, Side::Exporter), (1, Side::Importer)] {
        cluster.crash(at);
        cluster.try_start(at).expect("starts");
        let named = |record: &Record| matches!(record, Record::CrossingFailed { side: of, .. } if *of == side);
        assert_eq!(cluster.nodes[at].count(named), 1);
    }
}
