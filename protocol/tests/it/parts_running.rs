//! Pulls of a part that run while law or offers change, stop in the middle, come from several peers, or end under a duty
//! (CROSSING-53).

use alliance_protocol::{
    core::{
        BulkEvent, BulkFailure, BulkOrder, Core, Effects, Input, RequestId,
        admin::{AdminCall, CrossingState, PullCall},
    },
    crossing::RefusalCode,
    gate::Action::{Export, Import},
    id::{CrossingId, ManifestId},
    ledger::Record,
    vocabulary::Label,
};

use crate::{
    alliance::{DAY, HOUR, SECOND, contract_of, country},
    cluster::{Cluster, OPEN},
    parts::{DP, FIRST, GOV, LeftOut, Rule, assert_left_out, labels_of, sets},
    routes::{Parcel, Said, part_taken},
};

impl Cluster {
    /// One node alone hears of a new law that is in force; gives what it orders, and carries nothing out.
    pub(crate) fn hears(&mut self, at: usize, member: &str, law: &str) -> Effects {
        let member = country(member);
        let pack = self.alliance.law(member, self.pack(member).body().epoch + 1, law);
        let mut status = self.next_status(member);
        (status.law_pack, status.epoch) = (pack.id(), pack.body().epoch);
        let status = self.alliance.status(&status);
        let statements = [pack.bytes(), status.bytes()].map(|bytes| bytes.to_vec().into());
        self.tell(at, Input::Admin(RequestId(0), AdminCall::Adopt(statements.into())))
    }

    pub(crate) fn enact_at(&mut self, at: usize, member: &str, law: &str) {
        let effects = self.hears(at, member, law);
        self.route(at, effects);
    }
}

/// A pull of what may cross whose bytes are on their way; `Received` is in the test's hand.
fn under_way(rules: &[Rule]) -> (Cluster, CrossingId, Parcel) {
    let (mut cluster, offer) = Cluster::ruled(rules);
    let crossing = cluster.pull_part(offer);
    let received = cluster.run_to("received");
    cluster.run();
    (cluster, crossing, received)
}

/// One side alone has ended it; both get to know, and what comes after that is not delivered.
#[track_caller]
fn assert_ended(cluster: &mut Cluster, at: usize, effects: Effects, (crossing, received): (CrossingId, Parcel), why: &str) {
    match (&effects.bulk[..], at) {
        ([BulkOrder::AbortServe { code: RefusalCode::Ended, .. }], 0) => {}
        ([BulkOrder::AbortPull { code: RefusalCode::Ended, crossing: of }], 1) => assert_eq!(*of, crossing),
        (other, _) => panic!("{why}: side {at} orders {other:?}"),
    }
    cluster.route(at, effects);
    cluster.run();
    for side in [0, 1] {
        let view = cluster.view(side, crossing);
        assert_eq!(view.state, CrossingState::Failed, "{why}: side {side}");
        assert_eq!(cluster.status(side).crossings_running, 0);
    }
    let problem = cluster.view(at, crossing).problem.unwrap_or_default();
    assert!(problem.contains(why), "side {at}: `{problem}` instead of `{why}`");
    let input = cluster.input(received);
    let late = cluster.tell(1, input);
    assert!(late.bulk.is_empty() && late.persist.is_empty(), "{why}: {:?}", late.bulk);
}

#[test]
fn a_part_that_was_cleared_and_is_denied_meanwhile_ends_it_on_each_side() {
    let cases: [(&[Rule], &str, &str, &str); 6] = [
        (&[], "IN", "deny import label:gov", "denied by the rules of IN, for what is labelled public gov"),
        (&[], "BR", "deny export label:dp", "denied by the rules of BR, for what is labelled dp"),
        (&[], "CN", "deny concern label:public", "denied by the rules of CN, for what is labelled public; or public gov"),
        (&[], "BR", "deny-both export label:gov label:dp", "denied by the rules of BR, for its parts together"),
        (&[], "IN", "duty-on import label:dp require(ai_label)", "demand `require(ai_label)`"),
        (&[("BR", "deny export label:gov")], "IN", "deny import label:dp", "rules of IN, for what is labelled dp"),
    ];
    for (rules, member, law, why) in cases {
        for at in [0, 1] {
            let (mut cluster, crossing, received) = under_way(rules);
            let effects = cluster.hears(at, member, law);
            assert_ended(&mut cluster, at, effects, (crossing, received), why);
        }
    }
}

#[test]
fn what_becomes_of_a_part_that_was_left_out_changes_nothing() {
    const BY_LAW: &[Rule] = &[("BR", "deny export label:gov")];
    const BY_HOUSE: &[Rule] = &[("the exporter's house", "deny export label:gov")];
    let cases = [
        ("allowed", BY_LAW, "BR", ""),
        ("denied by another", BY_LAW, "IN", "deny import label:gov"),
        ("denied with others", BY_LAW, "IN", "deny-both import label:gov label:dp"),
        ("under a duty", BY_LAW, "IN", "duty-on import label:gov require(ai_label)"),
        ("denied by law", BY_HOUSE, "IN", "deny import label:gov"),
        ("denied by the exporter's law", BY_HOUSE, "BR", "deny export label:gov"),
    ];
    for (what, rules, member, law) in cases {
        for at in [0, 1] {
            let (mut cluster, crossing, received) = under_way(rules);
            let before = [0, 1].map(|side| cluster.view(side, crossing));
            assert_eq!(before[1].left_out.len(), 1);
            let effects = cluster.hears(at, member, law);
            assert!(effects.bulk.is_empty(), "{what}: side {at} orders {:?}", effects.bulk);
            cluster.deliver(received);
            cluster.run();
            for (side, before) in before.into_iter().enumerate() {
                let view = cluster.view(side, crossing);
                assert_eq!(view.state, CrossingState::Done, "{what}: side {side}: {:?}", view.problem);
                assert_eq!((view.parts, view.left_out, view.against), (before.parts, before.left_out, before.against));
            }
        }
    }
}

/// The parcel before which a law changes, the rules until then, the change, and what each side leaves out.
type Change = (&'static str, &'static [Rule], Rule, &'static [LeftOut], &'static [LeftOut]);

#[test]
fn each_step_before_the_clearance_decides_anew_what_is_left_out() {
    const LAW: Rule = ("IN", "deny import label:gov");
    const BY_LAW: &[LeftOut] = &[(GOV, &[("IN", Import)])];
    let cases: [Change; 4] = [
        ("reached", &[], LAW, BY_LAW, &[]),
        ("reached", &[LAW], ("IN", ""), &[], &[]),
        // It was asked for, and the exporter leaves it out.
        ("asked", &[], LAW, &[(GOV, &[])], BY_LAW),
        // It was not asked for, and is not given.
        ("asked", &[LAW], ("IN", ""), BY_LAW, &[]),
    ];
    for (parcel, rules, (member, law), importer, exporter) in cases {
        let (mut cluster, offer) = Cluster::ruled(rules);
        let crossing = cluster.pull_part(offer);
        let parcel = cluster.run_to(parcel);
        cluster.enact(country(member), law);
        cluster.deliver(parcel);
        cluster.run();
        let what = format!("{rules:?}, then {law}");
        for (at, left_out) in [(1, importer), (0, exporter)] {
            let view = cluster.view(at, crossing);
            assert_eq!(view.state, CrossingState::Done, "{what}: {:?}", view.problem);
            assert_left_out(&view, left_out, &what);
        }
        let cleared = if importer.is_empty() { sets(&[FIRST, GOV, DP]) } else { sets(&[FIRST, DP]) };
        assert_eq!(cluster.papers(crossing).1.parts, Some(cleared), "{what}");
    }
}

#[test]
fn what_would_be_left_and_is_denied_meanwhile_ends_it_before_the_answer() {
    for law in ["deny import label:public", "deny-both import label:gov label:dp"] {
        for (name, kinds) in [("reached", &[][..]), ("asked", &["requested", "crossing_failed"])] {
            let (mut cluster, offer) = Cluster::ruled(&[]);
            let crossing = cluster.pull_part(offer);
            let parcel = cluster.run_to(name);
            cluster.enact_at(1, "IN", law);
            cluster.deliver(parcel);
            cluster.run();
            assert_eq!((cluster.state(1, crossing), cluster.kinds(1, crossing)), (CrossingState::Failed, kinds.to_vec()));
            assert_eq!(cluster.status(0).crossings_running, 0, "{law}: {name}");
        }
    }
}

#[test]
fn an_offer_that_is_withdrawn_ends_a_pull_of_a_part_on_each_side() {
    for at in [0, 1] {
        let (mut cluster, crossing, received) = under_way(&[("BR", "deny export label:gov")]);
        let offer = cluster.view(0, crossing).offer;
        let (node, now, reason) = (cluster.nodes[0].public(), cluster.now, String::new());
        let effects = if at == 0 {
            cluster.tell(0, Input::Admin(RequestId(0), AdminCall::Withdraw { offer, reason }))
        } else {
            let withdrawal = alliance_protocol::offer::Withdrawal { node, offer, at: now, reason };
            let bytes = cluster.alliance.signed(&cluster.nodes[0].key(), &withdrawal).bytes().to_vec();
            cluster.tell(1, Input::Admin(RequestId(0), AdminCall::Adopt(vec![bytes.into()])))
        };
        assert_ended(&mut cluster, at, effects, (crossing, received), "withdrawn");
    }
}

#[test]
fn what_a_node_shows_of_parts_is_the_same_after_a_restart() {
    let rules: &[Rule] = &[("IN", "deny import label:dp"), ("the exporter's house", "deny export label:gov")];
    for phase in ["answered", "received", "delivered", "receipt offered", "settled", "never"] {
        let (mut cluster, offer) = Cluster::ruled(rules);
        let crossing = cluster.pull_part(offer);
        if phase == "never" {
            cluster.run();
        } else {
            let parcel = cluster.run_to(phase);
            cluster.wires.queue.clear();
            drop(parcel);
        }
        cluster.enact(country("IN"), "deny import label:public");
        let denied = cluster.pull_part(offer);
        assert_eq!(cluster.view(1, denied).left_out.len(), 1);
        let shown = |cluster: &mut Cluster| {
            [(1, crossing), (0, crossing), (1, denied)].map(|(at, crossing)| {
                let view = cluster.view(at, crossing);
                let told = (view.parts, view.left_out, view.against, view.part, view.verdicts, view.facts);
                (told, view.partial, view.refusal, view.to)
            })
        };
        let before = shown(&mut cluster);
        for at in [0, 1] {
            cluster.crash(at);
            cluster.wires.queue.clear();
            cluster.restart(at);
        }
        assert_eq!(shown(&mut cluster), before, "{phase}");
        let part = matches!(phase, "delivered" | "receipt offered" | "settled" | "never").then(part_taken);
        assert_eq!(before[0].0.3, part, "{phase}");
        let expected = if phase == "answered" { sets(&[FIRST, GOV]) } else { sets(&[FIRST]) };
        assert_eq!(labels_of(&before[0].0.0), expected, "{phase}");
        let state = match phase {
            "never" => CrossingState::Done,
            "receipt offered" | "settled" => CrossingState::DoneUnsettled,
            _ => CrossingState::Failed,
        };
        assert_eq!(cluster.state(1, crossing), state, "{phase}");
    }
}

/// What a node orders to be deleted, and of which manifest.
fn deletions(effects: &Effects) -> Vec<(&'static str, CrossingId, ManifestId, String)> {
    let orders = effects.bulk.iter().filter_map(|order| match order {
        BulkOrder::Delete { crossing, manifest, path } => Some(("delete", *crossing, *manifest, path)),
        BulkOrder::Discard { crossing, manifest, to } => Some(("discard", *crossing, *manifest, to)),
        _ => None,
    });
    orders.map(|(what, crossing, manifest, path)| (what, crossing, manifest, path.display().to_string())).collect()
}

#[test]
fn what_came_of_an_artefact_is_deleted_under_the_duty_that_came_with_it() {
    let whole = ManifestId([7; 32]);
    let cases = [
        ("never", false, ("delete", part_taken().manifest)),
        ("never", true, ("delete", part_taken().manifest)),
        // Nobody knows whether it is in its place.
        ("delivered", true, ("delete", part_taken().manifest)),
        ("received", true, ("discard", whole)),
    ];
    for (phase, restart, (what, manifest)) in cases {
        let (mut cluster, offer) = Cluster::ruled(&[("BR", "duty export delete_within(24h)\ndeny export label:gov")]);
        let crossing = cluster.pull_part(offer);
        if phase == "never" {
            cluster.run();
        } else {
            drop(cluster.run_to(phase));
        }
        let to = cluster.view(1, crossing).to.expect("known").display().to_string();
        if restart {
            cluster.crash(1);
            cluster.restart(1);
        }
        assert_eq!(cluster.view(1, crossing).delete_by, Some(cluster.now.plus_ms(24 * HOUR)), "{phase}");
        cluster.let_pass(24 * HOUR - 1);
        assert_eq!(deletions(&cluster.tell(1, Input::Tick)), [], "{phase}: not before it is due");
        cluster.let_pass(1);
        assert_eq!(deletions(&cluster.tell(1, Input::Tick)), [(what, crossing, manifest, to)], "{phase}");
        cluster.tell(1, Input::Bulk(BulkEvent::Deleted { crossing, problem: None }));
        assert!(matches!(cluster.nodes[1].last(), Record::Deleted { crossing: of } if *of == crossing));
        assert_eq!(cluster.view(1, crossing).deleted, Some(cluster.now));
        cluster.crash(1);
        cluster.restart(1);
        cluster.let_pass(DAY);
        assert_eq!(deletions(&cluster.tell(1, Input::Tick)), [], "{phase}: once");
    }
}

#[test]
fn the_time_for_which_a_part_may_be_kept_begins_when_it_is_in_its_place() {
    let (mut cluster, offer) = Cluster::ruled(&[("BR", "duty export delete_within(24h)")]);
    let crossing = cluster.pull_part(offer);
    for (name, state) in [("received", CrossingState::Delivering), ("delivered", CrossingState::Delivered)] {
        let parcel = cluster.run_to(name);
        cluster.let_pass(SECOND);
        cluster.deliver(parcel);
        let view = cluster.view(1, crossing);
        assert_eq!((view.state, view.delete_by), (state, Some(cluster.now.plus_ms(24 * HOUR))), "{name}");
    }
}

#[test]
fn a_safeguard_for_one_part_lets_that_part_cross_and_ends_it_when_it_runs_out() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "require export label:personal scc_br\nrequire export label:health scc_br");
    let model = cluster.parted(&[FIRST, &[Label::Personal], &[Label::Health]]);
    let offer = cluster.offer_of(0, model, OPEN);
    let mut contract = contract_of(country("BR"), country("BR"), country("IN"));
    contract.validity.until = cluster.now.plus_ms(5 * SECOND);
    let call = PullCall {
        safeguards: vec![cluster.alliance.spoken(country("BR"), &contract).bytes().to_vec().into()],
        ..cluster.part_call(offer)
    };
    cluster.tick();
    let crossing = cluster.pull_with(1, call);
    let _received = cluster.run_to("received");
    let view = cluster.view(1, crossing);
    assert_left_out(&view, &[(&[Label::Health], &[("BR", Export)])], "it covers no label of that part");
    assert_eq!(labels_of(&view.parts), sets(&[FIRST, &[Label::Personal]]));
    assert_eq!(view.safeguards_ignored.len(), 0, "it counts for what is left");
    let wakes = cluster.nodes.iter().filter_map(|node| node.core.as_ref().map(Core::next_wake));
    assert!(wakes.into_iter().all(|wake| wake == contract.validity.until), "each side looks at it when that runs out");
    cluster.advance_to(contract.validity.until);
    for at in [0, 1] {
        assert_eq!(cluster.state(at, crossing), CrossingState::Failed, "side {at}");
    }
}

#[test]
fn a_duty_comes_with_the_parts_that_crossed() {
    const DUTY: Rule = ("BR", "duty-on export label:gov delete_within(24h)");
    let cases: [(&[Rule], bool); 4] = [
        (&[DUTY], true),
        (&[DUTY, ("IN", "deny import label:gov")], false),
        // This side had expected it to come, until the clearance.
        (&[DUTY, ("the exporter's house", "deny export label:gov")], false),
        (&[DUTY, ("IN", "deny import label:dp")], true),
    ];
    for (rules, due) in cases {
        let (mut cluster, offer) = Cluster::ruled(rules);
        let crossing = cluster.pull_part(offer);
        cluster.run();
        let view = cluster.view(1, crossing);
        assert_eq!((view.state, view.delete_by.is_some()), (CrossingState::Done, due), "{rules:?}");
    }
}

#[test]
fn what_an_earlier_attempt_left_is_discarded_besides_the_part_that_was_delivered() {
    // Also where the part turned out to be all of it: it is not known what the first attempt was of.
    let whole = ManifestId([7; 32]);
    for manifest in [part_taken().manifest, whole] {
        let (mut cluster, offer) = Cluster::ruled(&[("BR", "duty export delete_within(24h)")]);
        let call = cluster.part_call(offer);
        let first = cluster.pull_with(1, call.clone());
        drop(cluster.run_to("received"));
        cluster.crash(1);
        cluster.run();
        cluster.restart(1);
        let second = cluster.pull_with(1, call.clone());
        let mut received = cluster.run_to("received");
        if let Said::Received { part: Some(part), .. } = &mut received.said {
            part.manifest = manifest;
        }
        cluster.deliver(received);
        cluster.run();
        assert_eq!((cluster.state(1, first), cluster.state(1, second)), (CrossingState::Failed, CrossingState::Done));
        cluster.let_pass(24 * HOUR);
        let mut orders = deletions(&cluster.tell(1, Input::Tick));
        orders.sort_unstable();
        let to = call.to.display().to_string();
        assert_eq!(orders, [("delete", second, manifest, to.clone()), ("discard", first, whole, to)]);
    }
}

#[test]
fn a_part_comes_from_one_peer_and_from_no_other_if_that_fails() {
    let (mut cluster, root) = Cluster::with_takers(4);
    for taker in 1..4 {
        cluster.gets(taker, root);
    }
    let call = PullCall { sources: 8, ..cluster.part_call(root) };
    let effects = cluster.tell(4, Input::Admin(RequestId(0), AdminCall::Pull(call.clone())));
    let [BulkOrder::Reach { tensors, piecewise, crossing, .. }] = &effects.bulk[..] else { panic!("{:?}", effects.bulk) };
    assert_eq!((tensors, *piecewise), (&call.tensors, false));
    let crossing = *crossing;
    cluster.route(4, effects);
    let received = cluster.run_to("received");
    // Another offers it on while it runs.
    assert_eq!(cluster.running_sources(4, crossing).len(), 1);
    let failure = BulkFailure::Lost("reset".into());
    cluster.deliver(Parcel { to: received.to, said: Said::PullFailed { crossing, failure } });
    cluster.run();
    for _ in 0..5 {
        cluster.let_pass(20 * SECOND);
        cluster.tick();
    }
    let sources = cluster.sources(4, crossing);
    assert_eq!((sources.len(), sources[0].state), (1, CrossingState::Failed));
    assert_eq!(cluster.status(4).crossings_running, 0);

    // One that is pulled whole beside it has as many as were wanted.
    let crossing = cluster.pull_from(4, root, 8);
    assert_eq!(cluster.running_sources(4, crossing).len(), 4);
}

#[test]
fn a_part_that_is_on_its_way_here_keeps_no_offer_of_the_whole() {
    let (mut cluster, root) = Cluster::with_takers(2);
    let whole = cluster.pull_onward(1, root);
    let _received = cluster.run_to("received");
    assert!(cluster.onward_of(1, root).is_some());
    let call = cluster.part_call(root);
    let part = cluster.pull_with(1, call);
    let _received = cluster.run_to("received");
    cluster.call(1, AdminCall::Cancel(whole));
    cluster.run();
    assert_eq!((cluster.state(1, part), cluster.onward_of(1, root)), (CrossingState::Cleared, None));
}

#[test]
fn a_part_may_be_pulled_from_a_node_that_offers_on() {
    let (mut cluster, root) = Cluster::with_takers(2);
    let onward = cluster.gets(1, root);
    let call = cluster.part_call(onward);
    let effects = cluster.tell(2, Input::Admin(RequestId(0), AdminCall::Pull(call)));
    let [BulkOrder::Reach { piecewise, crossing, .. }] = &effects.bulk[..] else { panic!("{:?}", effects.bulk) };
    assert!(*piecewise, "what another offers on may still be on its way to there");
    let crossing = *crossing;
    cluster.route(2, effects);
    cluster.run();
    let view = cluster.view(2, crossing);
    assert_eq!((view.state, view.part, view.peer), (CrossingState::Done, Some(part_taken()), cluster.nodes[1].public()));
}

#[test]
fn a_part_that_is_not_allowed_when_it_has_come_is_not_delivered() {
    let (mut cluster, crossing, received) = under_way(&[]);
    // Nobody has woken it since; the door looks at the clock itself.
    cluster.let_pass(crate::alliance::STATUS_MS);
    let input = cluster.input(received);
    let effects = cluster.tell(1, input);
    assert!(matches!(effects.bulk[..], [BulkOrder::AbortPull { .. }]), "{:?}", effects.bulk);
    let view = cluster.view(1, crossing);
    assert!(view.problem.is_some_and(|why| why.contains("not delivered")) && view.part.is_none());
}

#[test]
fn an_exporter_that_alone_leaves_out_says_why_in_its_own_record_and_nowhere_else() {
    let (mut cluster, offer) = Cluster::ruled(&[("the exporter's house", "deny export label:gov")]);
    let crossing = cluster.pull_part(offer);
    cluster.run();
    let (request, clearance) = cluster.papers(crossing);
    assert_eq!((request.parts, clearance.parts), (Some(sets(&[FIRST, GOV, DP])), Some(sets(&[FIRST, DP]))));
    assert_left_out(&cluster.view(0, crossing), &[(GOV, &[("house", Export)])], "its own");
    assert!(cluster.view(1, crossing).against.is_empty());
    assert!(clearance.labels.iter().all(|label| *label != Label::Gov));
}
