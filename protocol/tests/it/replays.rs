//! A recorded decision is made again from the ledger alone, as of its day, and comes out the same.

use alliance_protocol::{
    border::Decision,
    core::admin::{CrossingState, PullCall},
    gate::{Pack, PackOwner},
    id::CrossingId,
    ledger::{Entry, Record},
    replay::{Again, NotReplayed, Replayed, replay},
    vocabulary::{Label, Purpose},
};

use crate::{
    alliance::{SECOND, country},
    cluster::{Cluster, ONWARD},
    tabled_gate::TabledGate,
};

fn replayed(cluster: &Cluster, at: usize, crossing: CrossingId) -> Vec<Replayed> {
    replay(&cluster.nodes[at].entries, crossing, &TabledGate).expect("it is there")
}

/// Every decision of every node with facts comes out the same; gives how many there were.
fn all_the_same(cluster: &Cluster) -> usize {
    let mut count = 0;
    for (at, node) in cluster.nodes.iter().enumerate() {
        let crossings: std::collections::BTreeSet<_> = node
            .entries
            .iter()
            .filter(|entry| entry.record.decision().is_some())
            .filter_map(|it| it.record.crossing())
            .collect();
        for crossing in crossings {
            for found in replayed(cluster, at, crossing) {
                assert!(matches!(found.again, Again::Same { .. } | Again::NotAsked), "node {at}: {found:?}");
                count += usize::from(matches!(found.again, Again::Same { .. }));
            }
        }
    }
    count
}

#[test]
fn each_decision_comes_out_as_it_was_whatever_law_came_later() {
    let mut cluster = Cluster::pair();
    cluster.crash(0);
    cluster.nodes[0].house = Some(Pack::new(PackOwner::House, 1, "deny export purpose:military", ""));
    cluster.restart(0);
    let offer = cluster.offer(0, &[Label::Public]);
    let pull = |cluster: &mut Cluster, purpose| {
        let call = PullCall { purpose, ..cluster.pull_call(offer) };
        let crossing = cluster.pull_with(1, call);
        cluster.run();
        crossing
    };
    let allowed = pull(&mut cluster, Purpose::Research);
    let by_house = pull(&mut cluster, Purpose::Military);
    cluster.let_pass(SECOND);
    cluster.enact(country("IN"), "deny import purpose:research");
    let denied = pull(&mut cluster, Purpose::Research);
    cluster.let_pass(SECOND);
    cluster.enact(country("BR"), "deny export label:public");
    let refused = pull(&mut cluster, Purpose::Statistical);
    // The house changes its rules at a restart.
    cluster.crash(0);
    cluster.nodes[0].house = None;
    cluster.restart(0);
    cluster.enact(country("BR"), "");
    let again = pull(&mut cluster, Purpose::Military);
    assert_eq!(cluster.state(1, again), CrossingState::Done);

    assert!(all_the_same(&cluster) >= 10);
    let of = |at, crossing| replayed(&cluster, at, crossing).iter().map(|it| it.allowed).collect::<Vec<_>>();
    assert_eq!((of(0, allowed), of(1, allowed)), (vec![true], vec![true, true]));
    assert_eq!((of(0, by_house), of(1, by_house)), (vec![false], vec![true]));
    assert_eq!(of(1, denied), vec![false]);
    assert_eq!(of(1, refused).len(), 1);
    assert_eq!(of(0, again), vec![true]);
    let rules = cluster.nodes[0].count(|record| matches!(record, Record::RulesLoaded { .. }));
    assert_eq!(rules, 3, "recorded when they change, and not at every start");
}

#[test]
fn what_goes_on_from_a_third_country_comes_out_as_it_was() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    cluster.enact(country("BR"), "deny export label:genetic");
    let model = cluster.model(0, &[Label::Public]);
    let offer = cluster.offer_of(0, model, ONWARD);
    let call = PullCall { onward: true, ..cluster.pull_call(offer) };
    let first = cluster.pull_with(1, call);
    cluster.run();
    assert_eq!(cluster.state(1, first), CrossingState::Done);
    let call = PullCall { sources: 2, ..cluster.pull_call(offer) };
    cluster.pull_with(2, call);
    cluster.run();
    let direct = |decision: &Decision| decision.direct.is_some();
    let on = |node: &crate::cluster::Node| node.count(|record| record.decision().is_some_and(direct));
    assert!(on(&cluster.nodes[2]) > 0, "what the first exporter's law was asked is recorded");
    assert!(all_the_same(&cluster) >= 5);
}

#[test]
fn a_record_that_was_changed_does_not_come_out() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "deny export label:genetic");
    let offer = cluster.offer(0, &[Label::Genetic]);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    let change = |how: &dyn Fn(&mut Decision)| -> Vec<Entry> {
        let mut entries = cluster.nodes[1].entries.clone();
        for entry in &mut entries {
            if let Record::RequestDenied { decision, .. } = &mut entry.record {
                how(decision);
            }
        }
        entries
    };
    let lies: [&dyn Fn(&mut Decision); 3] = [
        &|decision| drop(decision.verdicts.pop()),
        &|decision| decision.facts.as_mut().expect("facts").labels = [Label::Public].into(),
        &|decision| std::sync::Arc::make_mut(&mut decision.verdicts[2]).allowed = true,
    ];
    for lie in lies {
        let found = replay(&change(lie), crossing, &TabledGate).expect("it is there");
        assert!(matches!(found[0].again, Again::Different { .. }), "{found:?}");
    }
    let honest = replay(&cluster.nodes[1].entries, crossing, &TabledGate).expect("it is there");
    assert!(matches!(honest[0].again, Again::Same { .. }), "{honest:?}");
    let nowhere = CrossingId([9; 32]);
    assert_eq!(replay(&cluster.nodes[1].entries, nowhere, &TabledGate), Err(NotReplayed::NotThere(nowhere)));
    let entries: Vec<_> = change(&|_| {});
    let without = |kind: &str| entries.iter().filter(|entry| entry.record.kind() != kind).cloned().collect::<Vec<_>>();
    assert!(matches!(replay(&without("rules_loaded"), crossing, &TabledGate), Err(NotReplayed::NoRules { .. })));
    assert_eq!(replay(&without("founded"), crossing, &TabledGate), Err(NotReplayed::NoCharter));
    let found = replay(&without("status_accepted"), crossing, &TabledGate).expect("it is there");
    assert!(matches!(found[0].again, Again::NoLaw { .. }), "{found:?}");
}
