//! How much one node and one member may bring: catalogues are bounded, whoever fills them.

use alliance_protocol::{core::Judgement, key::SecretKey, limits};

use crate::{cluster::Cluster, mesh::offer_of};

fn hand(n: usize) -> SecretKey {
    let mut seed = [77; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(&seed)
}

impl Cluster {
    fn introduce(&mut self, hand: &SecretKey) -> Judgement {
        let record = self.alliance.signed(hand, &self.record_of(hand, "thu"));
        self.judged(record.bytes())
    }

    fn bring(&mut self, hand: &SecretKey, offer: usize) -> Judgement {
        let offer = self.alliance.signed(hand, &offer_of(hand, &format!("thu/{offer}")));
        self.judged(offer.bytes())
    }
}

#[test]
fn offers_are_limited_by_node_and_by_member() {
    let mut cluster = Cluster::pair();
    let nodes = limits::OFFERS_PER_MEMBER_MAX / limits::OFFERS_PER_NODE_MAX;
    for node in 0..nodes {
        assert_eq!(cluster.introduce(&hand(node)), Judgement::Accept);
        for offer in 0..limits::OFFERS_PER_NODE_MAX {
            assert_eq!(cluster.bring(&hand(node), offer), Judgement::Accept, "offer {offer} of node {node}");
        }
        if node + 1 < nodes {
            assert_eq!(cluster.bring(&hand(node), limits::OFFERS_PER_NODE_MAX), Judgement::Ignore, "one node's are full");
        }
    }
    assert_eq!(cluster.introduce(&hand(nodes)), Judgement::Accept);
    assert_eq!(cluster.bring(&hand(nodes), 0), Judgement::Ignore, "one member's are full");
    assert_eq!(cluster.status(1).offers as usize, limits::OFFERS_PER_MEMBER_MAX);
}

#[test]
fn nodes_are_limited_by_member() {
    let mut cluster = Cluster::pair();
    for node in 0..limits::NODES_PER_MEMBER_MAX {
        assert_eq!(cluster.introduce(&hand(node)), Judgement::Accept, "node {node}");
    }
    assert_eq!(cluster.introduce(&hand(limits::NODES_PER_MEMBER_MAX)), Judgement::Ignore);
}
