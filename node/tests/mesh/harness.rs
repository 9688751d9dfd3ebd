//! Nodes of the mesh whose Core is the test.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use alliance_node::mesh::{Mesh, MeshConfig, MeshLimits};
use alliance_protocol::{
    core::{MeshEvent, MeshOrder, MessageId, SyncAnswer, SyncRequest},
    id::AllianceId,
    key::{PublicKey, SecretKey},
};

/// Against hanging, and nothing else.
pub(crate) const HANG: Duration = Duration::from_secs(30);

/// The alliance of all tests.
pub(crate) const ALLIANCE: AllianceId = AllianceId([0x5a; 32]);

pub(crate) struct Node {
    pub(crate) key: PublicKey,
    pub(crate) mesh: Mesh,
    /// Everything it reported.
    pub(crate) seen: Vec<MeshEvent>,
    published: u32,
}

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn config(listen: Vec<String>, bootstrap: &[String]) -> MeshConfig {
    // Admission must not depend on how fast this machine is, except where a test is about it.
    let limits = MeshLimits { admission: Duration::from_secs(600), ..MeshLimits::default() };
    MeshConfig { listen, bootstrap: bootstrap.to_vec(), limits, ..MeshConfig::new(ALLIANCE) }
}

impl Node {
    pub(crate) async fn start(n: u8, bootstrap: &[String]) -> Self {
        Self::start_with(n, bootstrap, |_| {}).await
    }

    pub(crate) async fn start_with(n: u8, bootstrap: &[String], change: impl FnOnce(&mut MeshLimits)) -> Self {
        let mut config = config(vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()], bootstrap);
        change(&mut config.limits);
        Self::with(n, config).await
    }

    pub(crate) async fn with(n: u8, config: MeshConfig) -> Self {
        let mesh = Mesh::start(&key(n), config).await.expect("it starts");
        Self { key: key(n).public(), mesh, seen: Vec::new(), published: 0 }
    }

    pub(crate) fn order(&mut self, order: MeshOrder) {
        self.mesh.apply(order);
    }

    pub(crate) fn gossip_heard(&self) -> usize {
        self.seen.iter().filter(|event| matches!(event, MeshEvent::Gossiped { .. })).count()
    }
}

/// Runs all nodes until one reports something, or for a heartbeat or so if none does.
pub(crate) async fn next_of(nodes: &mut [&mut Node]) -> Option<(usize, MeshEvent)> {
    let (at, event) = {
        let mut futures: Vec<_> = nodes.iter_mut().map(|node| Box::pin(node.mesh.next())).collect();
        let any = poll_fn(|context| {
            for (at, future) in futures.iter_mut().enumerate() {
                if let Poll::Ready(event) = future.as_mut().poll(context) {
                    return Poll::Ready((at, event));
                }
            }
            Poll::Pending
        });
        tokio::time::timeout(Duration::from_millis(200), any).await.ok()?
    };
    nodes[at].seen.push(copy(&event));
    Some((at, event))
}

/// Runs all nodes until `wanted` is said of an event, and returns it.
pub(crate) async fn until(nodes: &mut [&mut Node], mut wanted: impl FnMut(usize, &MeshEvent) -> bool) -> MeshEvent {
    let found = async {
        loop {
            if let Some((at, event)) = next_of(nodes).await
                && wanted(at, &event)
            {
                return event;
            }
        }
    };
    let found = pin!(found);
    tokio::time::timeout(HANG, found).await.expect("it does not hang")
}

/// Lets `from` connect to `to`; both have reported it afterwards.
pub(crate) async fn connect(from: &mut Node, to: &mut Node) {
    let addresses = to.mesh.listen_addresses();
    from.order(MeshOrder::Dial { peer: to.key, addresses });
    let keys = [to.key, from.key];
    let mut connected = [false, false];
    until(&mut [from, to], |at, event| {
        connected[at] |= matches!(event, MeshEvent::Connected { peer } if *peer == keys[at]);
        connected == [true, true]
    })
    .await;
}

pub(crate) fn admit_each_other(a: &mut Node, b: &mut Node) {
    a.order(MeshOrder::Admit { peer: b.key });
    b.order(MeshOrder::Admit { peer: a.key });
}

/// Publishes statements that begin with `statement` until `to` hears one; a subscription may not have arrived yet.
pub(crate) async fn publish_until_heard(
    from: &mut Node,
    to: &mut Node,
    others: &mut [&mut Node],
    statement: &[u8],
) -> (Vec<u8>, MessageId) {
    let from_key = from.key;
    let heard = async {
        loop {
            from.published += 1;
            let mut bytes = statement.to_vec();
            bytes.extend(from.published.to_be_bytes());
            from.order(MeshOrder::Publish { bytes });
            let mut all: Vec<&mut Node> = vec![&mut *to, &mut *from];
            all.extend(others.iter_mut().map(|node| &mut **node));
            while let Some((at, event)) = next_of(&mut all).await {
                if let (0, MeshEvent::Gossiped { message, from: sender, bytes }) = (at, event)
                    && sender == from_key
                    && bytes.starts_with(statement)
                {
                    return (bytes, message);
                }
            }
        }
    };
    tokio::time::timeout(HANG, heard).await.expect("it does not hang")
}

/// One question and its answer, while other nodes run as well.
pub(crate) async fn round_trip(asker: &mut Node, other: &mut Node, bystanders: &mut [&mut Node], request: SyncRequest) {
    asker.order(MeshOrder::AskSync { peer: other.key, request });
    let asker_key = asker.key;
    let mut nodes: Vec<&mut Node> = vec![&mut *other, &mut *asker];
    nodes.extend(bystanders.iter_mut().map(|node| &mut **node));
    let asked =
        until(&mut nodes, |at, event| at == 0 && matches!(event, MeshEvent::SyncAsked { peer, .. } if *peer == asker_key))
            .await;
    let MeshEvent::SyncAsked { sync, .. } = asked else { panic!("{asked:?}") };
    nodes[0].order(MeshOrder::AnswerSync { sync, answer: SyncAnswer::default() });
    until(&mut nodes, |at, event| at == 1 && matches!(event, MeshEvent::SyncAnswered { .. })).await;
}

fn copy(event: &MeshEvent) -> MeshEvent {
    match event {
        MeshEvent::Connected { peer } => MeshEvent::Connected { peer: *peer },
        MeshEvent::Disconnected { peer } => MeshEvent::Disconnected { peer: *peer },
        MeshEvent::Introduced { peer, record } => MeshEvent::Introduced { peer: *peer, record: record.clone() },
        MeshEvent::Gossiped { message, from, bytes } => {
            MeshEvent::Gossiped { message: *message, from: *from, bytes: bytes.clone() }
        }
        MeshEvent::Measured { peer, round_trip_us } => MeshEvent::Measured { peer: *peer, round_trip_us: *round_trip_us },
        MeshEvent::SyncAsked { sync, peer, request } => {
            MeshEvent::SyncAsked { sync: *sync, peer: *peer, request: request.clone() }
        }
        MeshEvent::SyncAnswered { peer, answer } => MeshEvent::SyncAnswered { peer: *peer, answer: answer.clone() },
        MeshEvent::WitnessAsked { question, peer, ask } => {
            MeshEvent::WitnessAsked { question: *question, peer: *peer, ask: ask.clone() }
        }
        MeshEvent::WitnessAnswered { number, answer } => {
            MeshEvent::WitnessAnswered { number: *number, answer: answer.clone() }
        }
    }
}
