//! How far and how fast what an authority says spreads, where messages are lost.

use alliance_protocol::{core::admin::CrossingState, vocabulary::Label};

use crate::{alliance::SECOND, cluster::Cluster};

/// Fifty nodes, each connected to a few; one message of the mesh in ten is lost.
#[test]
fn a_revocation_reaches_fifty_nodes_within_half_a_minute_though_a_tenth_of_all_messages_is_lost() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct"), ("CN", "thu")]);
    cluster.wires.sparse = true;
    for n in 4_usize..50 {
        let member = crate::alliance::MEMBERS[n % 4];
        // Two neighbours that are near and two that are far, as nodes come and go.
        let others = [n - 1, n - 2, n / 2, n / 3];
        cluster.join_beside(member, &format!("org{n}"), &others);
    }
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    cluster.wires.lost_percent = 10;
    let offer = cluster.offer(4, &[Label::Public]);
    cluster.advance_to(cluster.now.plus_ms(60 * SECOND));
    let crossing = cluster.pull(3, offer);
    cluster.run_to("received");
    let revoked = cluster.nodes[4].public();
    let member = cluster.nodes[4].member;
    let until = cluster.now.plus_ms(30 * SECOND);
    cluster.revoke(member, revoked);
    let knows = |cluster: &mut Cluster, at| {
        let status = cluster.status(at);
        status.members.iter().any(|known| known.country == member && known.revoked == 1)
    };
    let first = (0..50).filter(|at| *at != 4 && knows(&mut cluster, *at)).count();
    cluster.advance_to(until);
    let missing: Vec<_> = (0..50).filter(|at| *at != 4 && !knows(&mut cluster, *at)).collect();
    assert_eq!(missing, Vec::<usize>::new(), "{first} of 49 had it at once");
    assert_eq!(cluster.view(3, crossing).state, CrossingState::Failed, "what runs with it ends");
}
