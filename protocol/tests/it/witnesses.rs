//! Ledgers before witnesses: nothing crosses without them, an old copy of a home is recognised, and two histories of one
//! ledger come out.

use alliance_protocol::{
    charter::WitnessRule,
    core::{
        MeshEvent, SyncId, WitnessAnswer, WitnessAsk,
        admin::{AdminCall, CrossingState, FailureKind, Reply},
    },
    crossing::RefusalCode,
    id::CrossingId,
    key::PublicKey,
    ledger::{AddCheckpoint, Checkpoint, Origin, Record, Tiles, leaf_hash},
    vocabulary::Label,
};

use crate::{
    alliance::{SECOND, country},
    cluster::Cluster,
    exporter_refuses::Answer,
    routes::{Parcel, Said},
};

const GRACE: u64 = 120 * SECOND;

/// Nodes in three other countries, of which two must sign.
const TWO: WitnessRule = WitnessRule { countries: 2, grace_ms: GRACE };

fn four() -> Cluster {
    Cluster::witnessed(TWO, &[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct"), ("CN", "thu")])
}

/// Time for new entries to be shown and signed.
fn settle(cluster: &mut Cluster) {
    cluster.advance_to(cluster.now.plus_ms(4 * SECOND));
}

fn refused(cluster: &mut Cluster, at: usize, crossing: CrossingId) -> (CrossingState, Option<RefusalCode>, String) {
    let view = cluster.view(at, crossing);
    (view.state, view.refusal, view.problem.unwrap_or_default())
}

#[test]
fn heads_are_signed_in_as_many_countries_as_the_charter_demands() {
    let mut cluster = four();
    cluster.offer(0, &[Label::Public]);
    settle(&mut cluster);
    for at in 0..4 {
        let status = cluster.status(at);
        let (size, witnessed) = (status.ledger_size, status.witnessed);
        assert_eq!((witnessed.size, witnessed.needed, witnessed.problem), (size, 2, None), "node {at}");
        assert!(witnessed.by.len() >= 2 && !witnessed.by.contains(&cluster.nodes[at].member), "{:?}", witnessed.by);
        assert_eq!(witnessed.unwitnessed_since, None);
        let note = cluster.nodes[at].witnessed.clone().expect("kept");
        let signed = |node: &&crate::cluster::Node| Checkpoint::cosignature(&note, &node.public()).is_some();
        assert!(cluster.nodes.iter().filter(signed).count() >= 2);
        let checkpoint =
            Checkpoint::parse_verified(&note, &cluster.nodes[at].public(), &Origin::of(&cluster.nodes[at].public()));
        assert_eq!(checkpoint.expect("signed by the log").size, size);
    }
    let before: Vec<_> = (0..4).map(|at| cluster.status(at).ledger_size).collect();
    cluster.advance_to(cluster.now.plus_ms(300 * SECOND));
    let after: Vec<_> = (0..4).map(|at| cluster.status(at).ledger_size).collect();
    assert_eq!(before, after, "to witness leaves no entries, which would have to be witnessed in turn");
}

#[test]
fn what_crosses_names_the_heads_of_both_ledgers() {
    let mut cluster = four();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
    let tiles = |at: usize| -> Tiles {
        let entries = cluster.nodes[at].entries.iter();
        entries.map(|entry| entry.leaf_hash(&entry.encode().expect("encodes")).expect("a leaf")).collect()
    };
    let (exporter, importer) = (tiles(0), tiles(1));
    let mut heads = Vec::new();
    for entry in &cluster.nodes[1].entries {
        use alliance_protocol::{crossing, envelope::Signed};
        let alliance = cluster.alliance.id;
        match &entry.record {
            Record::Requested { request, .. } => {
                let request = Signed::<crossing::CrossingRequest>::open(request, alliance).expect("a request");
                heads.push((&importer, request.body().ledger));
            }
            Record::ClearanceAccepted { clearance, .. } => {
                let clearance = Signed::<crossing::ClearanceGiven>::open(clearance, alliance).expect("a clearance");
                heads.push((&exporter, clearance.body().ledger));
            }
            Record::Settled { receipt, .. } => {
                let receipt = Signed::<crossing::Receipt>::open(receipt, alliance).expect("a receipt");
                heads.push((&importer, receipt.body().ledger));
            }
            _ => {}
        }
    }
    assert_eq!(heads.len(), 3);
    for (tiles, head) in heads {
        assert_eq!(tiles.root_at(head.size), Some(head.root));
    }
}

#[test]
fn nothing_crosses_before_witnesses_have_confirmed_that_the_ledger_is_the_newest() {
    let mut cluster = Cluster::witnessed(TWO, &[("BR", "usp"), ("IN", "iitb")]);
    let offer = cluster.offer(0, &[Label::Public]);
    let call = cluster.pull_call(offer);
    let Reply::Failed(failure) = cluster.call(1, AdminCall::Pull(call)) else { panic!("it began") };
    assert_eq!(failure.kind, FailureKind::Busy);
    assert!(failure.message.contains("nodes of 1 other countries have confirmed"), "{}", failure.message);
    // Nor does the other side release anything, which has confirmed as little.
    let lie = cluster.by_hand(offer, 9);
    let (_, answer) = cluster.put(&lie);
    assert!(matches!(answer, Answer::Refused(RefusalCode::CannotRecord, Some(_))), "{answer:?}");
    cluster.nodes[1].lies = false;
    assert!(cluster.status(1).witnessed.problem.is_some());
    // What the law says of the offer is shown all the same.
    let preview = match cluster.call(1, AdminCall::Offers) {
        Reply::Offers(offers) => offers[0].preview.clone(),
        other => panic!("{other:?}"),
    };
    assert!(preview.iter().any(|(_, allowed)| *allowed));
    cluster.join("ZA", "uct");
    let crossing = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
}

#[test]
fn egress_stops_when_the_ledger_has_gone_unwitnessed_for_too_long_and_goes_on_afterwards() {
    let mut cluster = Cluster::witnessed(TWO, &[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    let offer = cluster.offer(0, &[Label::Public]);
    settle(&mut cluster);
    cluster.crash(2);
    let crossing = cluster.pull(1, offer);
    cluster.run_to("received");
    assert_eq!(cluster.state(1, crossing), CrossingState::Cleared);
    // Within the grace it runs, behind it both sides cut it.
    cluster.advance_to(cluster.now.plus_ms(GRACE - SECOND));
    assert_eq!(cluster.state(1, crossing), CrossingState::Cleared);
    cluster.advance_to(cluster.now.plus_ms(2 * SECOND));
    let (state, _, problem) = refused(&mut cluster, 1, crossing);
    assert_eq!(state, CrossingState::Failed);
    assert!(problem.contains("has not been witnessed by nodes of 2 other countries since"), "{problem}");
    let denied = cluster.pull(1, offer);
    cluster.run();
    let (state, code, _) = refused(&mut cluster, 1, denied);
    assert_eq!((state, code), (CrossingState::Denied, Some(RefusalCode::CannotRecord)));

    cluster.restart(2);
    cluster.advance_to(cluster.now.plus_ms(15 * SECOND));
    assert_eq!(cluster.status(1).witnessed.problem, None);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
}

#[test]
fn a_witness_that_keeps_silent_costs_one_round() {
    let mut cluster = four();
    settle(&mut cluster);
    // One that is asked and does not answer; its place is taken by another.
    cluster.offer(0, &[Label::Public]);
    cluster.now = cluster.now.plus_ms(4 * SECOND);
    let effects = cluster.tell(0, alliance_protocol::core::Input::Tick);
    cluster.route(0, effects);
    let from = cluster.nodes[0].public();
    let mut lost = 0;
    cluster.wires.queue.retain(|parcel| match &parcel.said {
        Said::WitnessAsked { from: asker, ask: WitnessAsk::Add { .. }, .. } if *asker == from && lost < 2 => {
            lost += 1;
            false
        }
        _ => true,
    });
    assert_eq!(lost, 2);
    cluster.run();
    assert!(cluster.status(0).witnessed.size < cluster.status(0).ledger_size);
    cluster.advance_to(cluster.now.plus_ms(25 * SECOND));
    assert_eq!(cluster.status(0).witnessed.size, cluster.status(0).ledger_size);
}

#[test]
fn a_home_that_was_restored_from_yesterday_clears_nothing_and_shows_nothing() {
    let mut cluster = four();
    let offer = cluster.offer(0, &[Label::Public]);
    settle(&mut cluster);
    let yesterday = (cluster.nodes[0].entries.clone(), cluster.nodes[0].held.clone(), cluster.nodes[0].witnessed.clone());
    let crossing = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
    settle(&mut cluster);
    let today = (cluster.nodes[0].entries.clone(), cluster.nodes[0].held.clone(), cluster.nodes[0].witnessed.clone());
    assert!(today.0.len() > yesterday.0.len());

    cluster.crash(0);
    (cluster.nodes[0].entries, cluster.nodes[0].held, cluster.nodes[0].witnessed) = yesterday;
    cluster.restart(0);
    let status = cluster.status(0);
    let problem = status.witnessed.problem.expect("recognised");
    assert!(problem.contains(&format!("a checkpoint of {} entries", today.0.len())), "{problem}");
    let denied = cluster.pull(1, offer);
    cluster.run();
    let (state, code, _) = refused(&mut cluster, 1, denied);
    assert_eq!((state, code), (CrossingState::Denied, Some(RefusalCode::Unproven)));
    // It signs nothing for others to see: that would be the second history.
    cluster.advance_to(cluster.now.plus_ms(600 * SECOND));
    let forks = |cluster: &Cluster| {
        cluster.nodes.iter().map(|node| node.count(|record| matches!(record, Record::ForkFound { .. }))).sum::<usize>()
    };
    assert_eq!(forks(&cluster), 0);
    assert!((1..4).all(|at| cluster.nodes[at].held.iter().all(|(_, note)| Checkpoint::parse_self_named(note).is_ok())));

    // With the newest copy it goes on.
    cluster.crash(0);
    (cluster.nodes[0].entries, cluster.nodes[0].held, cluster.nodes[0].witnessed) = today;
    cluster.restart(0);
    cluster.advance_to(cluster.now.plus_ms(15 * SECOND));
    let status = cluster.status(0);
    assert_eq!((status.witnessed.problem, status.witnessed.size), (None, status.ledger_size));
    assert_eq!(forks(&cluster), 0);
}

#[test]
fn a_witness_goes_on_where_it_was_after_a_restart_and_after_a_loss() {
    let mut cluster = four();
    settle(&mut cluster);
    for keeps in [true, false] {
        for at in 1..4 {
            cluster.crash(at);
            if !keeps {
                cluster.nodes[at].held.clear();
            }
            cluster.restart(at);
        }
        cluster.offer(0, &[Label::Public]);
        cluster.advance_to(cluster.now.plus_ms(15 * SECOND));
        assert_eq!(cluster.status(0).witnessed.size, cluster.status(0).ledger_size, "kept: {keeps}");
    }
}

/// A head of an invented history of node 0, signed by it.
fn invented(cluster: &Cluster, size: u64, history: u8) -> AddCheckpoint {
    let key = cluster.nodes[0].key();
    let tiles: Tiles = (0..size).map(|n| leaf_hash(&[history, u8::try_from(n).expect("few")])).collect();
    let checkpoint = Checkpoint::sign(&key, &Origin::of(&key.public()), size, tiles.root());
    AddCheckpoint { old: 0, proof: Vec::new(), checkpoint }
}

/// Shows a head to one witness, in the name of node 0.
fn show(cluster: &mut Cluster, to: usize, request: &AddCheckpoint) {
    let from = cluster.nodes[0].public();
    let ask = WitnessAsk::Add { body: request.to_body() };
    cluster.deliver(Parcel { to, said: Said::WitnessAsked { from, number: u64::MAX, ask } });
    cluster.run();
}

fn forked(cluster: &Cluster, at: usize, node: PublicKey) -> usize {
    cluster.nodes[at].count(|record| matches!(record, Record::ForkFound { node: found, .. } if *found == node))
}

#[test]
fn two_histories_of_one_size_are_proof_within_a_minute_and_end_all_crossings() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct"), ("CN", "thu")]);
    let offer = cluster.offer(0, &[Label::Public]);
    let liar = cluster.nodes[0].public();
    for (witness, history) in [(1, 1), (2, 2)] {
        let head = invented(&cluster, 20, history);
        show(&mut cluster, witness, &head);
        assert!(cluster.nodes[witness].held.contains_key(&liar), "each sees one history, and signs");
    }
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    for at in 1..4 {
        assert_eq!(forked(&cluster, at, liar), 1, "node {at} has it in its ledger, once");
        let doubts = cluster.status(at).witnessed.doubts;
        assert!(doubts[&liar].contains("has forked"), "{doubts:?}");
    }
    let crossing = cluster.pull(1, offer);
    let (state, code, problem) = refused(&mut cluster, 1, crossing);
    assert_eq!((state, code), (CrossingState::Denied, Some(RefusalCode::Unproven)));
    assert!(problem.contains("usp: its ledger has forked"), "{problem}");
    // Nobody signs for it any more, also after a restart.
    cluster.crash(1);
    cluster.restart(1);
    assert!(cluster.status(1).witnessed.doubts.contains_key(&liar));
    let longer = invented(&cluster, 30, 1);
    show(&mut cluster, 1, &longer);
    assert!(cluster.nodes[1].held[&liar].contains("\n20\n"));
}

#[test]
fn histories_of_different_sizes_are_a_doubt_until_the_log_connects_them() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    let offer = cluster.offer(0, &[Label::Public]);
    let liar = cluster.nodes[0].public();
    let (first, second) = (invented(&cluster, 5, 1), invented(&cluster, 6, 2));
    show(&mut cluster, 1, &first);
    show(&mut cluster, 2, &second);
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    for at in [1, 2] {
        let doubts = cluster.status(at).witnessed.doubts;
        assert!(doubts[&liar].contains("5 and 6 entries") || doubts[&liar].contains("6 and 5 entries"), "{doubts:?}");
        let wake = cluster.nodes[at].core.as_ref().expect("up").next_wake();
        assert!(wake >= cluster.now.plus_ms(SECOND), "a doubt is nothing to be awake for");
    }
    let crossing = cluster.pull(1, offer);
    let (state, code, _) = refused(&mut cluster, 1, crossing);
    assert_eq!((state, code), (CrossingState::Denied, Some(RefusalCode::Unproven)));
    // A doubt that stands keeps nobody awake: what is asked again is asked every ten seconds.
    cluster.tick();
    let wake = cluster.nodes[1].core.as_ref().map(alliance_protocol::core::Core::next_wake);
    assert!(wake > Some(cluster.now.plus_ms(1)), "{wake:?} at {:?}", cluster.now);
}

/// Whether the longer of two histories is heard of first, or the shorter one, neither witness keeps its own to itself.
#[test]
fn a_witness_speaks_of_the_head_that_it_signed_though_a_larger_one_that_nothing_proves_came_first() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    let liar = cluster.nodes[0].public();
    let (first, second) = (invented(&cluster, 5, 1), invented(&cluster, 6, 2));
    show(&mut cluster, 1, &first);
    show(&mut cluster, 2, &second);
    cluster.deliver(Parcel { to: 1, said: Said::Gossiped { from: liar, bytes: second.checkpoint.into_bytes() } });
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    for at in [1, 2] {
        let doubts = cluster.status(at).witnessed.doubts;
        let doubt = doubts.get(&liar).map_or("", String::as_str);
        assert!(doubt.contains("5 and 6 entries") || doubt.contains("6 and 5 entries"), "node {at}: {doubts:?}");
    }
}

#[test]
fn an_honest_ledger_that_some_see_later_than_others_is_no_doubt() {
    let mut cluster = four();
    settle(&mut cluster);
    // One node misses what the others hear, and hears the next.
    cluster.disconnect(0, 3);
    cluster.disconnect(1, 3);
    cluster.disconnect(2, 3);
    cluster.offer(0, &[Label::Public]);
    settle(&mut cluster);
    for at in 0..3 {
        cluster.connect(at, 3);
    }
    cluster.run();
    cluster.offer(0, &[Label::Health]);
    cluster.advance_to(cluster.now.plus_ms(120 * SECOND));
    for at in 0..4 {
        let witnessed = cluster.status(at).witnessed;
        assert!(witnessed.doubts.is_empty() && witnessed.problem.is_none(), "node {at}: {witnessed:?}");
    }
}

#[test]
fn strangers_and_those_who_lie_get_no_signature_and_harm_nobody() {
    let mut cluster = four();
    settle(&mut cluster);
    let stranger = crate::alliance::stranger().public();
    let head = invented(&cluster, 5, 1);
    let body = head.to_body();
    let before = cluster.nodes[1].held.clone();
    let event = |peer, ask| MeshEvent::WitnessAsked { question: SyncId(u64::MAX), peer, ask };
    let effects = cluster.tell_mesh(1, event(stranger, WitnessAsk::Add { body: body.clone() }));
    assert!(effects.keep.is_empty());
    // A peer that shows another history of a third node, whose signature it does not have.
    let forged = body.replace("\n5\n", "\n6\n");
    let peer = cluster.nodes[2].public();
    let effects = cluster.tell_mesh(1, event(peer, WitnessAsk::Add { body: forged }));
    assert!(effects.keep.is_empty() && effects.persist.is_empty());
    assert_eq!(cluster.nodes[1].held, before);
    for ask in [
        WitnessAsk::Held { log: "no origin at all".into() },
        WitnessAsk::Held { log: String::new() },
        WitnessAsk::Prove { first: 9, second: 3 },
        WitnessAsk::Prove { first: 0, second: u64::MAX },
        WitnessAsk::Add { body: String::new() },
    ] {
        let effects = cluster.tell_mesh(1, event(peer, ask));
        assert!(effects.keep.is_empty() && effects.persist.is_empty());
    }
    // Answers to what was never asked.
    for number in [0, 1, u64::MAX] {
        let answer = WitnessAnswer { status: 200, body: body.clone().into_bytes() };
        let effects = cluster.tell_mesh(1, MeshEvent::WitnessAnswered { number, answer: Some(answer) });
        assert!(effects.persist.is_empty() && effects.keep.is_empty());
    }
    assert_eq!(cluster.status(1).witnessed.problem, None);
    let _members = country("BR");
}

/// A checkpoint of this node that it never signed does not frighten it.
#[test]
fn a_witness_cannot_invent_a_loss() {
    let mut cluster = four();
    let from = cluster.nodes[1].public();
    let me = cluster.nodes[0].public();
    let liar = cluster.nodes[1].key();
    let invented = Checkpoint::sign(&liar, &Origin::of(&me), 500, leaf_hash(b"nothing"));
    cluster.deliver(Parcel { to: 0, said: Said::Gossiped { from, bytes: invented.clone().into_bytes() } });
    cluster.disconnect(0, 1);
    cluster.connect(0, 1);
    let Parcel { to, said } = cluster.run_to("witness asked");
    assert_eq!(to, 1, "node 0 asks what is held of its ledger");
    let Said::WitnessAsked { number, .. } = said else { panic!("{said:?}") };
    let answer = WitnessAnswer { status: 200, body: invented.into_bytes() };
    cluster.deliver(Parcel { to: 0, said: Said::WitnessAnswered { number, answer: Some(answer) } });
    cluster.run();
    cluster.advance_to(cluster.now.plus_ms(30 * SECOND));
    let witnessed = cluster.status(0).witnessed;
    assert_eq!((witnessed.problem, witnessed.size), (None, cluster.status(0).ledger_size));
}

/// The only witness that has seen the newest head is away: the old copy waits for it as long as the grace lasts.
#[test]
fn an_old_copy_waits_for_those_who_signed_last() {
    let one = WitnessRule { countries: 1, grace_ms: GRACE };
    let mut cluster = Cluster::witnessed(one, &[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    settle(&mut cluster);
    let copy = |cluster: &Cluster| {
        let node = &cluster.nodes[0];
        (node.entries.clone(), node.held.clone(), node.witnessed.clone(), node.witnesses.clone())
    };
    let yesterday = copy(&cluster);
    cluster.crash(2);
    cluster.offer(0, &[Label::Public]);
    settle(&mut cluster);
    assert_eq!(cluster.status(0).witnessed.by, [country("IN")].into());
    cluster.crash(0);
    cluster.crash(1);
    {
        let node = &mut cluster.nodes[0];
        (node.entries, node.held, node.witnessed, node.witnesses) = yesterday;
    }
    cluster.restart(0);
    cluster.restart(2);
    let problem = cluster.status(0).witnessed.problem.expect("it waits");
    assert!(problem.contains("those of IN, who signed it last, are waited for"), "{problem}");
    cluster.advance_to(cluster.now.plus_ms(GRACE / 2));
    assert!(cluster.status(0).witnessed.problem.is_some());
    cluster.restart(1);
    let problem = cluster.status(0).witnessed.problem.expect("recognised");
    assert!(problem.contains("older copy of itself"), "{problem}");
}

#[test]
fn one_that_has_forgotten_what_it_signed_confirms_nothing() {
    let mut cluster = Cluster::witnessed(TWO, &[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    settle(&mut cluster);
    for at in 0..3 {
        cluster.crash(at);
        if at > 0 {
            cluster.nodes[at].held.clear();
        }
    }
    for at in 0..3 {
        cluster.restart(at);
    }
    assert!(cluster.status(0).witnessed.problem.is_some_and(|problem| problem.contains("0 other countries")));
}

/// Whatever a witness writes beside its signature would go out, and be kept, under the name of the log.
#[test]
fn a_witness_gets_nothing_but_its_own_line_under_a_head() {
    let lies: [fn(&str, &str) -> String; 4] = [
        |line, log| format!("{line}\u{2014} {log} AAAAAAAA\n"),
        |line, _| format!("\n{line}"),
        |line, _| format!("{line}{line}"),
        |line, log| line.replacen("alliance/", &format!("{log} x"), 1),
    ];
    for lie in lies {
        let one = WitnessRule { countries: 1, grace_ms: GRACE };
        let mut cluster = Cluster::witnessed(one, &[("BR", "usp"), ("IN", "iitb")]);
        settle(&mut cluster);
        cluster.offer(0, &[Label::Public]);
        let before = cluster.status(0).witnessed.size;
        cluster.now = cluster.now.plus_ms(4 * SECOND);
        let effects = cluster.tell(0, alliance_protocol::core::Input::Tick);
        cluster.route(0, effects);
        let Parcel { said, .. } = cluster.run_to("witness asked");
        let Said::WitnessAsked { number, ask: WitnessAsk::Add { body }, .. } = said else { panic!("{said:?}") };
        let note = AddCheckpoint::parse(body.as_bytes()).expect("a request").checkpoint;
        let line = Checkpoint::cosign(&note, &cluster.nodes[1].key(), cluster.now).expect("a line");
        let log = Origin::of(&cluster.nodes[0].public()).to_string();
        let answer = WitnessAnswer { status: 200, body: lie(&line, &log).into_bytes() };
        cluster.deliver(Parcel { to: 0, said: Said::WitnessAnswered { number, answer: Some(answer) } });
        assert_eq!(cluster.status(0).witnessed.size, before, "{}", lie(&line, &log));
    }
}

#[test]
fn a_fork_comes_out_when_one_who_was_away_comes_back() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    let liar = cluster.nodes[0].public();
    let head = invented(&cluster, 20, 1);
    show(&mut cluster, 1, &head);
    cluster.crash(1);
    let head = invented(&cluster, 20, 2);
    show(&mut cluster, 2, &head);
    cluster.advance_to(cluster.now.plus_ms(300 * SECOND));
    assert_eq!(forked(&cluster, 2, liar), 0);
    cluster.restart(1);
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    for at in [1, 2] {
        assert_eq!(forked(&cluster, at, liar), 1, "node {at}");
    }
}

/// A log that gossips its head to its witness alone: the witness tells the others.
#[test]
fn a_head_that_only_its_witness_is_told_reaches_the_others() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    let liar = cluster.nodes[0].public();
    let (first, second) = (invented(&cluster, 20, 1), invented(&cluster, 20, 2));
    show(&mut cluster, 1, &first);
    show(&mut cluster, 2, &second);
    for (to, head) in [(1, &first), (2, &second)] {
        cluster.deliver(Parcel { to, said: Said::Gossiped { from: liar, bytes: head.checkpoint.clone().into_bytes() } });
    }
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    for at in [1, 2] {
        assert_eq!(forked(&cluster, at, liar), 1, "node {at}");
    }
}

#[test]
fn old_heads_that_are_passed_on_again_raise_no_doubt_about_a_log_that_cannot_be_asked() {
    let mut cluster = four();
    settle(&mut cluster);
    let old = cluster.nodes[0].witnessed.clone().expect("kept");
    cluster.offer(0, &[Label::Public]);
    settle(&mut cluster);
    for other in 1..4 {
        cluster.disconnect(0, other);
    }
    let (from, log) = (cluster.nodes[2].public(), cluster.nodes[0].public());
    // One that is known, and one that never came here.
    let never = {
        let entries = &cluster.nodes[0].entries;
        let leaf =
            |entry: &alliance_protocol::ledger::Entry| entry.leaf_hash(&entry.encode().expect("encodes")).expect("a leaf");
        let tiles: Tiles = entries.iter().map(leaf).collect();
        Checkpoint::sign(&cluster.nodes[0].key(), &Origin::of(&log), 2, tiles.root_at(2).expect("so many"))
    };
    for bytes in [old.into_bytes(), never.into_bytes()] {
        cluster.deliver(Parcel { to: 1, said: Said::Gossiped { from, bytes } });
    }
    cluster.wires.sparse = true;
    cluster.advance_to(cluster.now.plus_ms(100 * SECOND));
    assert!(!cluster.status(1).witnessed.doubts.contains_key(&log), "it was not there to be asked");
    cluster.connect(0, 1);
    cluster.run();
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    assert!(cluster.status(1).witnessed.doubts.is_empty());
}
