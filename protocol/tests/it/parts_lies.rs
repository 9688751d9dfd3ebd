//! Who says something else of the parts of an artefact than its offer, its law or the other side does: requests, clearances
//! and receipts, each wrong in one thing (CROSSING-51, CROSSING-52).

use alliance_protocol::{
    border::PartLabels,
    core::{
        AskId, BulkEvent, BulkOrder, Input, RequestId,
        admin::{AdminCall, CrossingState},
    },
    crossing::{ClearanceGiven, Receipt, RefusalCode},
    envelope::Signed,
    gate::Volume,
    id::{CrossingId, StatementId},
    ledger::Record,
    vocabulary::Label,
};

use crate::{
    alliance::STATUS_MS,
    cluster::Cluster,
    exporter_refuses::{Answer, Lie},
    importer_refuses::Asking,
    parts::{DP, FIRST, GOV, Parts, Rule, assert_left_out, labels_of, set, sets},
    routes::Said,
};

impl Cluster {
    /// A request of node 1 for these parts, made without its Core.
    pub(crate) fn by_hand_of(&mut self, offer: StatementId, crossing: u8, parts: &[&[Label]]) -> Lie {
        let mut lie = self.by_hand(offer, crossing);
        lie.body.parts = Some(sets(parts));
        lie
    }
}

/// Label sets that no artefact of these tests has, so many.
fn others(count: usize) -> PartLabels {
    let sets = Label::ALL.windows(3).map(set);
    sets.filter(|labels| !labels.contains(&Label::Public)).take(count).collect()
}

#[test]
fn a_request_for_other_parts_than_are_offered_is_refused_before_law_is_asked() {
    let first = || sets(&[FIRST]);
    let lies: [(&str, PartLabels); 9] = [
        ("of nothing", PartLabels::new()),
        ("without the first", sets(&[GOV, DP])),
        ("one that is not there", sets(&[FIRST, &[Label::Synthetic]])),
        ("a label of one that is there", sets(&[FIRST, &[Label::Gov]])),
        ("more labels than one that is there", sets(&[FIRST, &[Label::Dp, Label::Gov]])),
        ("all labels together", sets(&[FIRST, &[Label::Public, Label::Gov, Label::Dp]])),
        ("one without a label", sets(&[FIRST, &[]])),
        ("as many as an artefact may have", others(15).into_iter().chain(first()).collect()),
        ("more than an artefact may have", others(16).into_iter().chain(first()).collect()),
    ];
    assert_eq!(lies.last().map(|(_, parts)| parts.len()), Some(17));
    for (what, parts) in lies {
        let (mut cluster, offer) = Cluster::ruled(&[]);
        let mut lie = cluster.by_hand(offer, 1);
        lie.body.parts = Some(parts);
        match cluster.put(&lie).1 {
            Answer::Refused(RefusalCode::BadRequest, Some(why)) => assert!(why.contains("parts"), "{what}: {why}"),
            other => panic!("{what}: {other:?}"),
        }
        let Record::Refused { decision, .. } = cluster.nodes[0].last() else { panic!("{what}: not recorded") };
        assert_eq!((&decision.facts, decision.verdicts.len(), decision.left_out.len()), (&None, 0, 0), "{what}");
    }
}

#[test]
fn a_request_for_some_of_what_is_offered_gets_what_of_it_may_cross() {
    let all: Parts = &[FIRST, GOV, DP];
    let table: [(Parts, Parts); 4] =
        [(&[FIRST], &[FIRST]), (&[FIRST, DP], &[FIRST, DP]), (&[FIRST, GOV], &[FIRST]), (all, &[FIRST, DP])];
    for (asked, cleared) in table {
        // It does not believe that the importer's own law was asked.
        let (mut cluster, offer) = Cluster::ruled(&[("IN", "deny import label:gov")]);
        let lie = cluster.by_hand_of(offer, 1, asked);
        let Answer::Cleared(given) = cluster.put(&lie).1 else { panic!("{asked:?}: not cleared") };
        assert_eq!(given.parts, Some(sets(cleared)), "{asked:?}");
        assert_eq!(given.labels, cleared.iter().copied().flatten().copied().collect());
    }
    let (mut cluster, offer) = Cluster::ruled(&[("IN", "deny import label:gov")]);
    let whole = cluster.by_hand(offer, 1);
    assert!(matches!(cluster.put(&whole).1, Answer::Refused(RefusalCode::DeniedByLaw, Some(_))), "all or nothing");
}

/// A pull of what may cross, of which the importer's own house left out what has `gov`; the exporter would clear all.
fn asking() -> Asking {
    let (mut cluster, offer) = Cluster::ruled(&[("the importer's house", "deny import label:gov")]);
    let crossing = cluster.pull_part(offer);
    let asking = Asking::under_way(cluster, crossing);
    assert_eq!(asking.request.body().parts, Some(sets(&[FIRST, DP])));
    asking
}

/// The clearance of these parts, honest in everything else.
fn clearing(asking: &Asking, parts: Option<Parts>) -> ClearanceGiven {
    let whole: Parts = &[FIRST, GOV, DP];
    let labels = parts.unwrap_or(whole).iter().copied().flatten().copied().collect();
    ClearanceGiven { parts: parts.map(sets), labels, volume: Volume::default(), ..asking.clearance() }
}

#[test]
fn a_clearance_of_other_parts_than_were_asked_for_lets_nothing_in() {
    let lies: [(&str, Option<Parts>); 9] = [
        ("all", None),
        ("every part", Some(&[FIRST, GOV, DP])),
        ("one that was left out", Some(&[FIRST, GOV])),
        ("without the first", Some(&[DP])),
        ("one that is not there besides", Some(&[FIRST, DP, &[Label::Synthetic]])),
        ("one that is not there instead", Some(&[FIRST, &[Label::Gov]])),
        ("none", Some(&[])),
        ("one without a label", Some(&[FIRST, &[]])),
        ("all labels together", Some(&[&[Label::Public, Label::Gov, Label::Dp]])),
    ];
    for (what, parts) in lies {
        let mut asking = asking();
        let given = clearing(&asking, parts);
        println!("{what}");
        let effects = asking.answer(asking.signed(&given));
        asking.assert_not_taken(&effects, "its parts does not match");
    }
    let mut asking = asking();
    let given = ClearanceGiven { parts: Some(others(17)), ..clearing(&asking, Some(&[FIRST])) };
    let effects = asking.answer(asking.signed(&given));
    asking.assert_not_taken(&effects, "its parts does not match");
}

#[test]
fn a_clearance_of_parts_where_all_was_asked_for_lets_nothing_in() {
    for parts in [&[FIRST, GOV, DP][..], &[FIRST]] {
        let (mut cluster, offer) = Cluster::ruled(&[]);
        let crossing = cluster.pull(1, offer);
        let mut asking = Asking::under_way(cluster, crossing);
        assert_eq!(asking.request.body().parts, None);
        let given = clearing(&asking, Some(parts));
        let effects = asking.answer(asking.signed(&given));
        asking.assert_not_taken(&effects, "its parts does not match");
    }
}

#[test]
fn the_labels_of_a_clearance_are_those_of_its_parts() {
    let lies: [&[Label]; 4] =
        [&[Label::Public], &[Label::Dp], &[Label::Public, Label::Gov, Label::Dp], &[Label::Public, Label::Dp, Label::Cii]];
    for labels in lies {
        let mut asking = asking();
        let given = ClearanceGiven { labels: set(labels), ..clearing(&asking, Some(&[FIRST, DP])) };
        let effects = asking.answer(asking.signed(&given));
        asking.assert_not_taken(&effects, "its labels does not match");
    }
}

#[test]
fn a_clearance_of_some_or_all_that_was_asked_for_is_taken_for_what_it_names() {
    for parts in [&[FIRST, DP][..], &[FIRST]] {
        let mut asking = asking();
        let given = clearing(&asking, Some(parts));
        let effects = asking.answer(asking.signed(&given));
        let [BulkOrder::Receive { inbound, .. }] = &effects.bulk[..] else { panic!("{:?}", effects.bulk) };
        let admitted = [FIRST, GOV, DP].into_iter().filter(|part| inbound.cleared().admits(&set(part)));
        assert_eq!(admitted.collect::<Vec<_>>(), parts);
        let view = asking.cluster.view(1, asking.crossing);
        assert_eq!(labels_of(&view.parts), sets(parts));
        let by_house: crate::parts::LeftOut = (GOV, &[("house", alliance_protocol::gate::Action::Import)]);
        let left_out = if parts.len() == 2 { vec![by_house] } else { vec![by_house, (DP, &[])] };
        assert_left_out(&view, &left_out, "what the exporter left out has nobody's verdict here");
    }
}

#[test]
fn a_clearance_of_a_part_that_is_not_allowed_here_any_more_lets_nothing_in() {
    // What was asked for is not left out now: the exporter says that it comes.
    for (law, code, reason) in [
        ("deny import label:dp", RefusalCode::DeniedByLaw, "denied by the rules of IN, for what is labelled dp"),
        ("duty-on import label:dp require(ai_label)", RefusalCode::ObligationUnmet, "the rules of IN demand"),
    ] {
        let mut asking = asking();
        asking.cluster.enact_at(1, "IN", law);
        let view = asking.cluster.view(1, asking.crossing);
        assert_eq!(view.state, CrossingState::Asked, "it could still be left out: {:?}", view.problem);
        let given = clearing(&asking, Some(&[FIRST, DP]));
        let effects = asking.answer(asking.signed(&given));
        asking.assert_declined(&effects, code, reason);
    }
    let mut asking = asking();
    asking.cluster.let_pass(STATUS_MS);
    let given = clearing(&asking, Some(&[FIRST]));
    let effects = asking.answer(asking.signed(&given));
    asking.assert_declined(&effects, RefusalCode::Stale, "the status of");
}

/// A pull whose receipt is offered, of all or of what may cross.
fn offered(rules: &[Rule], part: bool) -> (Cluster, CrossingId, AskId, Receipt) {
    let (mut cluster, offer) = Cluster::ruled(rules);
    let crossing = if part { cluster.pull_part(offer) } else { cluster.pull(1, offer) };
    let Said::ReceiptOffered { ask, receipt, .. } = cluster.run_to("receipt offered").said else { panic!("offered") };
    let honest = Signed::<Receipt>::open(&receipt, cluster.alliance.id).expect("a receipt").body().clone();
    (cluster, crossing, ask, honest)
}

#[test]
fn the_receipt_of_a_part_says_no_more_bytes_than_were_cleared() {
    const MAX: u64 = u64::MAX;
    // All of 1000 bytes was asked for, 900 were cleared.
    let rules: &[Rule] = &[("the exporter's house", "deny export label:gov")];
    let fits = [(900, 0), (0, 900), (100, 20), (0, 0), (1, 899)];
    let lies = [(901, 0), (0, 901), (900, 1), (1, 900), (1000, 0), (MAX, 0), (0, MAX), (MAX, 1), (1, MAX), (MAX, MAX)];
    let all = fits.map(|sum| (sum, true)).into_iter().chain(lies.map(|sum| (sum, false)));
    for ((bytes, held_bytes), holds) in all {
        let (mut cluster, crossing, ask, honest) = offered(rules, true);
        let receipt = Receipt { bytes, held_bytes, ..honest };
        let receipt = cluster.alliance.signed(&cluster.nodes[1].key(), &receipt).bytes().to_vec();
        let effects = cluster.tell_bulk(0, BulkEvent::ReceiptOffered { ask, bytes, receipt });
        let view = cluster.view(0, crossing);
        let (state, problem) = (view.state, view.problem.unwrap_or_default());
        if holds {
            assert!(matches!(effects.bulk[..], [BulkOrder::Countersign { .. }]), "{bytes} and {held_bytes}: {problem}");
            assert_eq!((state, view.bytes), (CrossingState::Done, bytes));
        } else {
            assert!(matches!(effects.bulk[..], [BulkOrder::AbortServe { .. }]), "{bytes} and {held_bytes}");
            assert!(
                state == CrossingState::Failed && problem.contains("do not add up"),
                "{bytes}, {held_bytes}: {problem}"
            );
        }
    }
}

#[test]
fn the_receipt_of_a_part_counts_what_was_sent() {
    let (mut cluster, crossing, ask, honest) = offered(&[], true);
    let receipt = cluster.alliance.signed(&cluster.nodes[1].key(), &honest).bytes().to_vec();
    cluster.tell_bulk(0, BulkEvent::ReceiptOffered { ask, bytes: honest.bytes + 1, receipt });
    assert!(cluster.view(0, crossing).problem.is_some_and(|why| why.contains("other bytes than were sent")));
}

#[test]
fn the_receipt_of_the_whole_says_every_byte() {
    for (bytes, held_bytes, state) in [
        (1000, 0, CrossingState::Done),
        (0, 1000, CrossingState::Done),
        (999, 0, CrossingState::Failed),
        (100, 20, CrossingState::Failed),
        (1001, 0, CrossingState::Failed),
    ] {
        let (mut cluster, crossing, ask, honest) = offered(&[], false);
        let receipt = Receipt { bytes, held_bytes, ..honest };
        let receipt = cluster.alliance.signed(&cluster.nodes[1].key(), &receipt).bytes().to_vec();
        cluster.tell_bulk(0, BulkEvent::ReceiptOffered { ask, bytes, receipt });
        assert_eq!(cluster.state(0, crossing), state, "{bytes} and {held_bytes}");
    }
}

#[test]
fn a_receipt_for_a_part_that_was_taken_back_settles_nothing() {
    let (mut cluster, crossing, ask, honest) = offered(&[], true);
    let offer = cluster.view(0, crossing).offer;
    cluster.tell(0, Input::Admin(RequestId(0), AdminCall::Withdraw { offer, reason: String::new() }));
    let receipt = cluster.alliance.signed(&cluster.nodes[1].key(), &honest).bytes().to_vec();
    cluster.tell_bulk(0, BulkEvent::ReceiptOffered { ask, bytes: honest.bytes, receipt });
    assert_eq!(cluster.state(0, crossing), CrossingState::Failed);
}
