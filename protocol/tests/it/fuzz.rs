//! Arbitrary bytes and arbitrary interleavings: nothing panics, and the invariants hold after every step.

use alliance_protocol::{
    core::{
        BulkEvent, BulkFailure, Input, MeshEvent, MessageId, SyncAnswer, SyncId, SyncRequest,
        admin::{AdminCall, Reply},
    },
    crossing::RefusalCode,
    id::{CrossingId, SessionBinding, StatementId},
    vocabulary::{Label, Purpose},
};
use proptest::prelude::*;

use crate::{
    alliance::{MEMBERS, SECOND, country, some_id},
    cluster::{Cluster, ONWARD},
    envelopes::{Collect, visit_all},
    parts::{FIRST, GOV},
    routes::{Parcel, Said},
};

/// Garbage, or a statement that is good but for a few bytes, or good for something else.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let mut examples = Collect::default();
    visit_all(&mut examples);
    let statements: Vec<Vec<u8>> = examples.0.into_iter().map(|(_, bytes)| bytes).collect();
    let damaged = (prop::sample::select(statements.clone()), any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::sample::select(statements),
        damaged.prop_map(|(mut bytes, at, with, cut)| {
            let at = at.index(bytes.len());
            bytes[at] = with;
            if cut {
                bytes.truncate(at);
            }
            bytes
        }),
    ]
}

/// Every event that carries what a stranger wrote.
fn events_of(cluster: &mut Cluster, bytes: &[u8], id: [u8; 32]) -> Vec<Input> {
    let peer = cluster.nodes[0].public();
    let (crossing, session) = (CrossingId(id), SessionBinding(id));
    let bytes = bytes.to_vec();
    let ask = cluster.draw_ask();
    let request = SyncRequest { digest: StatementId(id), after: Some(StatementId(id)) };
    let answer = SyncAnswer { statements: vec![bytes.clone().into(), bytes.clone().into()], next: Some(StatementId(id)) };
    let failure = BulkFailure::EndedByPeer(RefusalCode::Damaged);
    vec![
        Input::Mesh(MeshEvent::Gossiped { message: MessageId(1), from: peer, bytes: bytes.clone() }),
        Input::Mesh(MeshEvent::SyncAsked { sync: SyncId(1), peer, request }),
        Input::Mesh(MeshEvent::SyncAnswered { peer, answer }),
        Input::Bulk(BulkEvent::Asked { ask, peer, session, request: bytes.clone() }),
        Input::Bulk(BulkEvent::Answered { crossing, answer: bytes.clone() }),
        Input::Bulk(BulkEvent::ReceiptOffered { ask, bytes: 1, receipt: bytes.clone() }),
        Input::Bulk(BulkEvent::Settled { crossing, receipt: bytes.clone() }),
        Input::Bulk(BulkEvent::Reached { crossing, session }),
        Input::Bulk(BulkEvent::Progressed { crossing, bytes: u64::MAX, total: 0 }),
        Input::Bulk(BulkEvent::Received { crossing, bytes: u64::MAX, held_bytes: u64::MAX, part: None }),
        Input::Bulk(BulkEvent::Delivered { crossing }),
        Input::Bulk(BulkEvent::ServeFailed { ask, bytes: u64::MAX, failure: failure.clone() }),
        Input::Bulk(BulkEvent::PullFailed { crossing, failure }),
        Input::Mesh(MeshEvent::Introduced { peer, record: bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_payload_makes_a_node_panic_or_act(bytes in payload(), id in any::<[u8; 32]>()) {
        let mut cluster = Cluster::pair();
        for input in events_of(&mut cluster, &bytes, id) {
            let effects = cluster.tell(1, input);
            prop_assert!(effects.persist.is_empty(), "strangers cost no record: {:?}", effects.persist);
        }
    }

    #[test]
    fn no_answer_of_an_exporter_but_the_right_one_is_taken(bytes in payload(), phase in 0..3usize) {
        let mut cluster = Cluster::pair();
        let offer = cluster.offer(0, &[Label::Public]);
        let crossing = cluster.pull(1, offer);
        let name = ["asked", "receipt offered", "settled"][phase];
        let Parcel { to, said } = cluster.run_to(name);
        let input = match said {
            Said::Asked { .. } => Input::Bulk(BulkEvent::Answered { crossing, answer: bytes }),
            Said::ReceiptOffered { ask, .. } => Input::Bulk(BulkEvent::ReceiptOffered { ask, bytes: 1, receipt: bytes }),
            _ => Input::Bulk(BulkEvent::Settled { crossing, receipt: bytes }),
        };
        let at = if phase == 0 { 1 } else { to };
        let records = cluster.nodes[at].entries.len();
        cluster.tell(at, input);
        prop_assert_eq!(cluster.nodes[at].entries.len(), records + 1);
        prop_assert!(cluster.state(at, crossing).is_final());
    }
}

/// What may happen next, with numbers to choose by.
#[derive(Clone, Debug)]
enum Happening {
    /// Deliver the n-th parcel under way, out of order.
    Deliver(usize),
    /// Deliver it, and keep it under way.
    Repeat(usize),
    Lose(usize),
    Alter(usize, usize, u8),
    /// Give a request another session or another peer.
    Swap(usize, bool),
    /// Who, under which offer, what for, from how many, and whether it is offered on.
    Pull(usize, usize, Purpose, u32, bool),
    /// The n-th offer of another node that goes back to one is pulled.
    PullOnward(usize, usize),
    /// Who, and under which offer.
    PullPart(usize, usize),
    Cancel(usize),
    Withdraw(usize),
    Enact(usize, usize),
    Renew(usize),
    Revoke(usize),
    Pass(u64),
    Tick,
    Crash(usize),
    Run,
}

const LAWS: [&str; 5] = [
    "",
    "deny export purpose:military\ndeny import to:IN",
    "error import",
    "require export label:personal scc_br",
    "deny export label:gov",
];

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{
        Alter, Cancel, Crash, Deliver, Enact, Lose, Pass, Pull, PullOnward, PullPart, Renew, Repeat, Revoke, Run, Swap,
        Tick, Withdraw,
    };
    let near = 0..4usize;
    prop_oneof![
        30 => near.clone().prop_map(Deliver),
        6 => near.clone().prop_map(Repeat),
        2 => near.clone().prop_map(Lose),
        3 => (near.clone(), any::<usize>(), any::<u8>()).prop_map(|(n, at, with)| Alter(n, at, with)),
        2 => (near.clone(), any::<bool>()).prop_map(|(n, session)| Swap(n, session)),
        8 => (0..3usize, 0..3usize, prop::sample::select(&[Purpose::Research, Purpose::Military][..]), 0..4u32, any::<bool>())
            .prop_map(|(at, of, purpose, sources, onward)| Pull(at, of, purpose, sources, onward)),
        3 => (0..3usize, near).prop_map(|(at, n)| PullOnward(at, n)),
        4 => (0..3usize, 0..3usize).prop_map(|(at, of)| PullPart(at, of)),
        1 => (0..3usize).prop_map(Cancel),
        1 => (0..3usize).prop_map(Withdraw),
        2 => (0..MEMBERS.len(), 0..LAWS.len()).prop_map(|(member, law)| Enact(member, law)),
        2 => (0..MEMBERS.len()).prop_map(Renew),
        1 => (0..3usize).prop_map(Revoke),
        3 => prop::sample::select(&[1, 10 * SECOND, 61 * SECOND, 7 * 3_600 * SECOND][..]).prop_map(Pass),
        3 => Just(Tick),
        2 => (0..3usize).prop_map(Crash),
        4 => Just(Run),
    ]
}

fn happen(cluster: &mut Cluster, offers: &[StatementId], what: Happening) {
    let nth = |cluster: &Cluster, n: usize| {
        let under_way = cluster.wires.queue.len();
        (under_way > 0).then(|| n % under_way)
    };
    let take = |cluster: &mut Cluster, n: usize| nth(cluster, n).and_then(|n| cluster.wires.queue.remove(n));
    match what {
        Happening::Deliver(n) => {
            if let Some(parcel) = take(cluster, n) {
                cluster.deliver(parcel);
            }
        }
        Happening::Repeat(n) => {
            if let Some(parcel) = nth(cluster, n).and_then(|n| cluster.wires.queue.get(n).cloned()) {
                cluster.deliver(parcel);
            }
        }
        Happening::Lose(n) => drop(take(cluster, n)),
        Happening::Alter(n, at, with) => {
            if let Some(mut parcel) = take(cluster, n) {
                if let Some(bytes) = parcel.said.payload().filter(|bytes| !bytes.is_empty()) {
                    let at = at % bytes.len();
                    bytes[at] = with;
                }
                cluster.deliver(parcel);
            }
        }
        Happening::Swap(n, swap_session) => {
            if let Some(mut parcel) = take(cluster, n) {
                if let Said::Asked { peer, session, .. } = &mut parcel.said {
                    if swap_session {
                        *session = SessionBinding([1; 32]);
                    } else {
                        *peer = cluster.nodes[(n + 1) % 3].public();
                    }
                }
                cluster.deliver(parcel);
            }
        }
        Happening::Pull(at, of, purpose, sources, onward) => {
            let mut call = cluster.pull_call(offers[of]);
            (call.purpose, call.sources, call.onward) = (purpose, sources, onward);
            // Its own offer, one that it has not heard of, a daemon that is down: the reply is as good as any.
            if cluster.nodes[at].core.is_some() {
                cluster.call(at, AdminCall::Pull(call));
            }
        }
        Happening::PullOnward(at, n) => {
            if cluster.nodes[at].core.is_some() {
                let onward: Vec<_> =
                    cluster.offers(at).into_iter().filter(|view| view.root.is_some() && !view.own).collect();
                if let Some(view) = onward.get(n % onward.len().max(1)) {
                    // Its node may be forgotten by now, with the offer still standing; then it is refused.
                    let call = cluster.pull_call(view.offer);
                    cluster.call(at, AdminCall::Pull(call));
                }
            }
        }
        Happening::PullPart(at, of) => {
            let call = cluster.part_call(offers[of]);
            if cluster.nodes[at].core.is_some() {
                cluster.call(at, AdminCall::Pull(call));
            }
        }
        Happening::Cancel(at) => {
            if cluster.nodes[at].core.is_some() {
                let Reply::Crossings(crossings) = cluster.call(at, AdminCall::Crossings) else { panic!("no crossings") };
                if let Some(running) = crossings.iter().find(|view| !view.state.is_final()) {
                    cluster.call(at, AdminCall::Cancel(running.crossing));
                }
            }
        }
        Happening::Withdraw(at) => {
            if cluster.nodes[at].core.is_some() {
                cluster.call(at, AdminCall::Withdraw { offer: offers[at], reason: String::new() });
            }
        }
        Happening::Enact(member, law) => cluster.enact(country(MEMBERS[member]), LAWS[law]),
        Happening::Renew(member) => cluster.renew(country(MEMBERS[member])),
        Happening::Revoke(at) => {
            let (member, node) = (cluster.nodes[at].member, cluster.nodes[at].public());
            cluster.revoke(member, node);
        }
        Happening::Pass(ms) => cluster.let_pass(ms),
        Happening::Tick => cluster.tick(),
        Happening::Crash(at) => {
            cluster.crash(at);
            // A revoked node does not come back.
            if cluster.try_start(at).is_ok() {
                (0..3).filter(|other| *other != at).for_each(|other| cluster.connect(at, other));
            }
        }
        Happening::Run => cluster.run(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold(story in prop::collection::vec(happening(), 20..120)) {
        let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
        let models = [cluster.parted(&[FIRST, GOV]), cluster.model(1, &[Label::Personal]), cluster.model(2, &[Label::Health])];
        let offers: Vec<_> = models.into_iter().enumerate().map(|(at, model)| cluster.offer_of(at, model, ONWARD)).collect();
        prop_assert_ne!(offers[0], some_id(0));
        for what in story {
            if cluster.nodes.iter().all(|node| node.core.is_none()) {
                break;
            }
            happen(&mut cluster, &offers, what);
        }
        cluster.run();
        // When all is quiet, whatever is recorded as begun has ended or can still end, and says so. What is offered on is here,
        // or on its way.
        cluster.let_pass(11 * SECOND);
        cluster.tick();
        for at in 0..3 {
            if cluster.nodes[at].core.is_some() {
                let status = cluster.status(at);
                let onward = cluster.offers(at).into_iter().any(|view| view.own && view.root.is_some());
                prop_assert!(!onward || status.models > 1 || status.crossings_running > 0);
            }
        }
    }
}
