//! The mesh over real QUIC on the loopback. The tests play Core: they judge, admit and expel.
//!
//! Time limits are against hanging only; what must *not* happen is waited for by letting something else happen that
//! comes after it.

#[cfg(test)]
mod harness;
#[cfg(test)]
mod intruder;

use alliance_node::mesh::{Mesh, MeshError};
use alliance_protocol::{
    core::{Judgement, MeshEvent, MeshOrder, SyncAnswer, SyncRequest, WitnessAnswer, WitnessAsk},
    id::StatementId,
    limits,
};
use harness::{Node, admit_each_other, connect, key};
use intruder::Intruder;
use serde_bytes::ByteBuf;

fn sync_request() -> SyncRequest {
    SyncRequest { digest: StatementId([7; 32]), after: None }
}

fn page() -> SyncAnswer {
    SyncAnswer {
        statements: vec![ByteBuf::from(vec![1; 1000]), ByteBuf::from(vec![2; limits::LAW_PACK_BYTES_MAX])],
        next: Some(StatementId([9; 32])),
    }
}

/// Asks and answers once, so that whatever was sent before has arrived.
async fn round_trip(asker: &mut Node, other: &mut Node) {
    harness::round_trip(asker, other, &mut [], sync_request()).await;
}

#[tokio::test]
async fn both_sides_are_introduced_and_a_new_record_is_presented_again() {
    let (mut a, mut b) = (Node::start(1, &[]).await, Node::start(2, &[]).await);
    a.order(MeshOrder::Introduce { record: b"a".to_vec() });
    // b does not know its record yet when they connect.
    connect(&mut a, &mut b).await;
    harness::until(&mut [&mut b, &mut a], |at, event| {
        at == 0 && matches!(event, MeshEvent::Introduced { record, .. } if record == b"a")
    })
    .await;
    b.order(MeshOrder::Introduce { record: b"b".to_vec() });
    let b_key = b.key;
    let introduced = |record: &'static [u8]| {
        move |at: usize, event: &MeshEvent| {
            at == 0 && matches!(event, MeshEvent::Introduced { peer, record: it } if *peer == b_key && it == record)
        }
    };
    harness::until(&mut [&mut a, &mut b], introduced(b"b")).await;
    b.order(MeshOrder::Introduce { record: b"b, later".to_vec() });
    harness::until(&mut [&mut a, &mut b], introduced(b"b, later")).await;
    let records = |node: &Node| node.seen.iter().filter(|event| matches!(event, MeshEvent::Introduced { .. })).count();
    assert_eq!((records(&a), records(&b)), (2, 1), "the same record is reported once");
}

#[tokio::test]
async fn a_stranger_hears_nothing_says_nothing_and_is_cut() {
    let mut a = Node::start_with(1, &[], |limits| limits.admission = std::time::Duration::from_secs(4)).await;
    let mut b = Node::start(2, &[]).await;
    connect(&mut a, &mut b).await;
    // b believes a; a does not admit b.
    b.order(MeshOrder::Admit { peer: a.key });
    let mut n = 0_u8;
    loop {
        a.order(MeshOrder::Publish { bytes: vec![1, n] });
        b.order(MeshOrder::Publish { bytes: vec![2, n] });
        if n == 3 {
            b.order(MeshOrder::AskSync { peer: a.key, request: sync_request() });
            b.order(MeshOrder::AskSync { peer: a.key, request: sync_request() });
        }
        n = n.wrapping_add(1);
        let event = harness::next_of(&mut [&mut a, &mut b]).await;
        if matches!(event, Some((_, MeshEvent::Disconnected { .. }))) {
            break;
        }
    }
    harness::until(&mut [&mut a, &mut b], |_, event| matches!(event, MeshEvent::Disconnected { .. })).await;
    for node in [&a, &b] {
        for event in &node.seen {
            let passed = matches!(event, MeshEvent::Gossiped { .. } | MeshEvent::SyncAsked { .. });
            assert!(!passed, "{event:?} got through");
        }
    }
    let counters = a.mesh.counters();
    assert_eq!((counters.strangers_cut, counters.connected, counters.admitted), (1, 0, 0));
    assert_eq!(counters.sync_refused, 1, "one question is held, a second one refused");
}

#[tokio::test]
async fn gossip_goes_on_only_after_it_was_accepted() {
    // a - b - c; a and c are not connected.
    let (mut a, mut b, mut c) = (Node::start(1, &[]).await, Node::start(2, &[]).await, Node::start(3, &[]).await);
    connect(&mut a, &mut b).await;
    connect(&mut c, &mut b).await;
    admit_each_other(&mut a, &mut b);
    admit_each_other(&mut c, &mut b);

    let mut judged = Vec::new();
    for (statement, judgement) in [(b"ignored", Judgement::Ignore), (b"allowed", Judgement::Accept)] {
        let (bytes, message) = harness::publish_until_heard(&mut a, &mut b, &mut [&mut c], statement).await;
        b.order(MeshOrder::Judge { message, judgement });
        judged.push((bytes, judgement));
    }
    let heard =
        harness::until(&mut [&mut c, &mut b, &mut a], |at, event| at == 0 && matches!(event, MeshEvent::Gossiped { .. }))
            .await;
    let MeshEvent::Gossiped { from, bytes, .. } = heard else { panic!("{heard:?}") };
    assert_eq!(from, b.key);
    assert_eq!(bytes, judged[1].0, "the accepted statement, and not the ignored one before it");
    assert!(judged[0].0.starts_with(b"ignored"));
}

#[tokio::test]
async fn three_rejected_messages_silence_a_peer_and_coming_back_does_not_help() {
    let (mut a, mut b) = (Node::start(1, &[]).await, Node::start(2, &[]).await);
    connect(&mut a, &mut b).await;
    admit_each_other(&mut a, &mut b);
    for n in 0..3 {
        assert_eq!(b.mesh.counters().graylisted, 0, "after {n} rejected messages");
        let (_, message) = harness::publish_until_heard(&mut a, &mut b, &mut [], b"bad").await;
        b.order(MeshOrder::Judge { message, judgement: Judgement::Reject });
    }
    assert_eq!(b.mesh.counters().graylisted, 1);
    assert_eq!(b.mesh.counters().gossip_rejected, 3);

    let heard_before = b.gossip_heard();
    for n in 0..10 {
        a.order(MeshOrder::Publish { bytes: vec![9, n] });
        round_trip(&mut a, &mut b).await;
    }
    assert_eq!(b.gossip_heard(), heard_before, "nothing it gossips is looked at");

    // It goes away and comes back with the same key.
    drop(a);
    harness::until(&mut [&mut b], |_, event| matches!(event, MeshEvent::Disconnected { .. })).await;
    // libp2p forgets the score within a second; were it only libp2p that knows it, this would show.
    for _ in 0..10 {
        harness::next_of(&mut [&mut b]).await;
    }
    let mut a = Node::start(1, &[]).await;
    connect(&mut a, &mut b).await;
    admit_each_other(&mut a, &mut b);
    assert_eq!(b.mesh.counters().graylisted, 1);
}

#[tokio::test]
async fn statements_are_synchronised() {
    let (mut a, mut b) = (Node::start(1, &[]).await, Node::start(2, &[]).await);
    connect(&mut a, &mut b).await;
    // b asks before a has admitted it: its question waits for that.
    b.order(MeshOrder::Admit { peer: a.key });
    b.order(MeshOrder::AskSync { peer: a.key, request: sync_request() });
    a.order(MeshOrder::Introduce { record: b"a".to_vec() });
    harness::until(&mut [&mut b, &mut a], |at, event| at == 0 && matches!(event, MeshEvent::Introduced { .. })).await;
    assert!(!a.seen.iter().any(|event| matches!(event, MeshEvent::SyncAsked { .. })));
    a.order(MeshOrder::Admit { peer: b.key });

    let asked =
        harness::until(&mut [&mut a, &mut b], |at, event| at == 0 && matches!(event, MeshEvent::SyncAsked { .. })).await;
    let MeshEvent::SyncAsked { sync, peer, request } = asked else { panic!("{asked:?}") };
    assert_eq!((peer, request), (b.key, sync_request()));
    a.order(MeshOrder::AnswerSync { sync, answer: page() });
    let is_answer = |at: usize, event: &MeshEvent| at == 0 && matches!(event, MeshEvent::SyncAnswered { .. });
    let answered = harness::until(&mut [&mut b, &mut a], is_answer).await;
    let MeshEvent::SyncAnswered { peer, answer } = answered else { panic!("{answered:?}") };
    assert_eq!((peer, answer), (a.key, page()));
}

#[tokio::test]
async fn a_question_about_a_ledger_is_answered_or_its_asker_told() {
    let (mut a, mut b) = (Node::start(1, &[]).await, Node::start(2, &[]).await);
    let held = |log: &str| WitnessAsk::Held { log: log.to_owned() };
    let ask = |number, peer, ask| MeshOrder::AskWitness { number, peer, ask };
    let answered = |at: usize, event: &MeshEvent| at == 0 && matches!(event, MeshEvent::WitnessAnswered { .. });
    // Nobody is there yet.
    b.order(ask(1, a.key, held("alliance/a")));
    let told = harness::until(&mut [&mut b, &mut a], answered).await;
    assert!(matches!(told, MeshEvent::WitnessAnswered { number: 1, answer: None }), "{told:?}");

    // A stranger's question is refused.
    connect(&mut a, &mut b).await;
    b.order(MeshOrder::Admit { peer: a.key });
    b.order(ask(2, a.key, held("alliance/a")));
    let told = harness::until(&mut [&mut b, &mut a], answered).await;
    assert!(matches!(told, MeshEvent::WitnessAnswered { number: 2, answer: None }), "{told:?}");

    a.order(MeshOrder::Admit { peer: b.key });
    b.order(ask(3, a.key, held("alliance/a")));
    let asked =
        harness::until(&mut [&mut a, &mut b], |at, event| at == 0 && matches!(event, MeshEvent::WitnessAsked { .. })).await;
    let MeshEvent::WitnessAsked { question, peer, ask: found } = asked else { panic!("{asked:?}") };
    assert_eq!((peer, found), (b.key, held("alliance/a")));
    let answer = WitnessAnswer { status: 409, body: b"12\n".to_vec() };
    a.order(MeshOrder::AnswerWitness { question, answer: answer.clone() });
    let told = harness::until(&mut [&mut b, &mut a], answered).await;
    let MeshEvent::WitnessAnswered { number: 3, answer: Some(found) } = told else { panic!("{told:?}") };
    assert_eq!(found, answer);

    // One that is too long is refused by the other side.
    b.order(ask(4, a.key, WitnessAsk::Add { body: "x".repeat(40 * 1024) }));
    let told = harness::until(&mut [&mut b, &mut a], answered).await;
    assert!(matches!(told, MeshEvent::WitnessAnswered { number: 4, answer: None }), "{told:?}");
    assert_eq!(a.mesh.counters().breaches, 1);
}

#[tokio::test]
async fn what_is_too_long_is_not_sent() {
    let (mut a, mut b) = (Node::start(1, &[]).await, Node::start(2, &[]).await);
    connect(&mut a, &mut b).await;
    admit_each_other(&mut a, &mut b);
    a.order(MeshOrder::Publish { bytes: vec![0; limits::GOSSIP_BYTES_MAX] });
    a.order(MeshOrder::Introduce { record: vec![0; 64 * 1024] });
    a.order(MeshOrder::Introduce { record: Vec::new() });
    assert_eq!(a.mesh.counters().orders_refused, 3);

    // The largest statement there is passes.
    let largest = vec![3; limits::LAW_PACK_BYTES_MAX];
    let (bytes, _) = harness::publish_until_heard(&mut a, &mut b, &mut [], &largest).await;
    assert!(bytes.len() >= limits::LAW_PACK_BYTES_MAX);
}

#[tokio::test]
async fn an_expelled_peer_is_not_let_back() {
    let (mut a, mut b) = (Node::start(1, &[]).await, Node::start(2, &[]).await);
    connect(&mut a, &mut b).await;
    admit_each_other(&mut a, &mut b);
    b.order(MeshOrder::Expel { peer: a.key });
    let mut gone = [false, false];
    harness::until(&mut [&mut a, &mut b], |at, event| {
        gone[at] |= matches!(event, MeshEvent::Disconnected { .. });
        gone == [true, true]
    })
    .await;

    let connected = |node: &Node| node.seen.iter().filter(|event| matches!(event, MeshEvent::Connected { .. })).count();
    let before = connected(&b);
    a.order(MeshOrder::Dial { peer: b.key, addresses: b.mesh.listen_addresses() });
    // c comes after a and is let in.
    let mut c = Node::start(3, &[]).await;
    connect(&mut c, &mut b).await;
    for _ in 0..3 {
        a.order(MeshOrder::Dial { peer: b.key, addresses: b.mesh.listen_addresses() });
        admit_each_other(&mut c, &mut b);
        harness::round_trip(&mut c, &mut b, &mut [&mut a], sync_request()).await;
    }
    assert_eq!(connected(&b), before + 1, "c, and not a");
}

#[tokio::test]
async fn the_loop_may_run_in_any_task() {
    let mut a = Node::start(1, &[]).await;
    let address = a.mesh.listen_addresses().remove(0);
    let other = tokio::spawn(async move {
        harness::until(&mut [&mut a], |_, event| matches!(event, MeshEvent::Connected { .. })).await;
        a
    });
    let mut b = Node::start(2, &[address]).await;
    harness::until(&mut [&mut b], |_, event| matches!(event, MeshEvent::Connected { .. })).await;
    assert_eq!(other.await.expect("it ends").mesh.counters().connected, 1);
}

#[tokio::test]
async fn bootstrap_addresses_are_dialled() {
    let mut a = Node::start(1, &[]).await;
    let address = a.mesh.listen_addresses().remove(0);
    // Its own address in the list is no trouble, and neither is one where nobody is.
    let mut b = Node::start(2, &[address, "/ip4/127.0.0.1/udp/1/quic-v1".to_owned()]).await;
    harness::until(&mut [&mut b, &mut a], |at, event| at == 0 && matches!(event, MeshEvent::Connected { .. })).await;
}

#[tokio::test]
async fn a_taken_port_and_a_bad_address_are_errors() {
    let a = Node::start(1, &[]).await;
    let taken = a.mesh.listen_addresses();
    let error = Mesh::start(&key(2), harness::config(taken.clone(), &[])).await.err();
    assert!(matches!(&error, Some(MeshError::PortInUse { address }) if *address == taken[0]), "{error:?}");

    for bad in ["", "127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001"] {
        let error = Mesh::start(&key(2), harness::config(vec![bad.to_owned()], &[])).await.err();
        assert!(matches!(&error, Some(MeshError::Address { address, .. }) if address == bad), "{error:?}");
    }
    let elsewhere = harness::config(vec!["/ip4/192.0.2.1/udp/0/quic-v1".to_owned()], &[]);
    let error = Mesh::start(&key(2), elsewhere).await.err();
    assert!(matches!(error, Some(MeshError::Listen { .. })), "{error:?}");
}

#[tokio::test]
async fn a_peer_of_another_alliance_is_cut() {
    let mut a = Node::start(1, &[]).await;
    let mut config = harness::config(vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()], &[]);
    config.alliance.0[0] ^= 1;
    let mut b = Node::with(2, config).await;
    a.order(MeshOrder::Introduce { record: b"a".to_vec() });
    connect(&mut a, &mut b).await;
    harness::until(&mut [&mut a, &mut b], |at, event| at == 0 && matches!(event, MeshEvent::Disconnected { .. })).await;
    assert_eq!(a.mesh.counters().strangers_cut, 0, "it did not take the deadline");
}

#[tokio::test]
async fn garbage_on_every_protocol_does_no_harm() {
    let mut node = Node::start(1, &[]).await;
    let mut friend = Node::start(2, &[]).await;
    connect(&mut friend, &mut node).await;
    admit_each_other(&mut friend, &mut node);

    for admitted in [false, true] {
        for garbage in intruder::garbage() {
            let mut intruder = Intruder::connect(&mut node).await;
            if admitted {
                node.order(MeshOrder::Admit { peer: intruder.key });
            }
            let answer = intruder.send(garbage.clone(), &mut [&mut node, &mut friend]).await.unwrap_or_default();
            assert!(answer.is_empty() || answer == b"\x67refused", "{garbage:?} was answered with {answer:?}");
            // Node and friend go on as if nothing were.
            round_trip(&mut friend, &mut node).await;
            let from_intruder = |event: &MeshEvent| match event {
                MeshEvent::Connected { .. } | MeshEvent::Disconnected { .. } => false,
                MeshEvent::WitnessAnswered { .. } => false,
                MeshEvent::Introduced { peer, .. }
                | MeshEvent::Gossiped { from: peer, .. }
                | MeshEvent::Measured { peer, .. }
                | MeshEvent::SyncAsked { peer, .. }
                | MeshEvent::WitnessAsked { peer, .. }
                | MeshEvent::SyncAnswered { peer, .. } => *peer == intruder.key,
            };
            assert!(!node.seen.iter().any(from_intruder), "{garbage:?} was taken for a word");
        }
    }
    let (_, message) = harness::publish_until_heard(&mut friend, &mut node, &mut [], b"good").await;
    node.order(MeshOrder::Judge { message, judgement: Judgement::Accept });
}

#[tokio::test]
async fn only_an_admitted_peer_is_heard_whatever_it_pretends() {
    let mut node = Node::start(1, &[]).await;
    let gossip = || intruder::Bytes::Gossip(intruder::statement(&intruder::statements_topic(), b"a statement"));
    let heard = |node: &Node| node.seen.iter().filter(|it| matches!(it, MeshEvent::Gossiped { .. })).count();

    let mut intruder = Intruder::connect(&mut node).await;
    intruder.send(gossip(), &mut [&mut node]).await;
    intruder.send(intruder::Bytes::Request(intruder::hello(b"record")), &mut [&mut node]).await;
    assert_eq!(heard(&node), 0);
    let introduced = |event: &MeshEvent| matches!(event, MeshEvent::Introduced { record, .. } if record == b"record");
    assert!(node.seen.iter().any(introduced), "a greeting is heard");

    // The same bytes, from the same peer: this shows that nothing but the admission was missing.
    node.order(MeshOrder::Admit { peer: intruder.key });
    intruder.send(gossip(), &mut [&mut node]).await;
    if heard(&node) == 0 {
        harness::until(&mut [&mut node], |_, event| matches!(event, MeshEvent::Gossiped { .. })).await;
    }
    assert_eq!(heard(&node), 1);
}
