//! A part of an artefact: what each side leaves out, whom it names for it, and what that leaves to cross (CROSSING-50 to 52).

use std::collections::BTreeSet;

use alliance_protocol::{
    border::{Cleared, PartDecided, PartLabels},
    core::{
        BulkOrder,
        admin::{AdminCall, CrossingState, CrossingView, FailureKind, LocalModel, OfferDraft, PullCall, Reply},
    },
    crossing::{ClearanceGiven, CrossingRequest, RefusalCode},
    envelope::Signed,
    gate::{
        Action::{self, Concern, Export, Import},
        Pack, PackOwner, Verdict, Volume,
    },
    id::{CrossingId, StatementId},
    ledger::Record,
    limits,
    manifest::Part,
    offer::{Provenance, Terms},
    vocabulary::Label,
};

use crate::{
    alliance::{DAY, country, key},
    cluster::{Cluster, MODEL_BYTES, ONWARD, OPEN},
    routes::part_taken,
};

pub(crate) const FIRST: &[Label] = &[Label::Public];
/// Has a label of the first as well: what is said of sets is not said of labels.
pub(crate) const GOV: &[Label] = &[Label::Public, Label::Gov];
pub(crate) const DP: &[Label] = &[Label::Dp];

/// Parts, by their labels.
pub(crate) type Parts = &'static [&'static [Label]];

pub(crate) fn set(labels: &[Label]) -> BTreeSet<Label> {
    labels.iter().copied().collect()
}

pub(crate) fn sets(parts: &[&[Label]]) -> PartLabels {
    parts.iter().map(|labels| set(labels)).collect()
}

/// A rule, and whose: a member's law, the baseline, or the house of one end.
pub(crate) type Rule = (&'static str, &'static str);

impl Cluster {
    /// A model of node 0 with these parts, the first of them its own labels. The second has 100 bytes, the third 200, and so
    /// on; the first has the rest.
    pub(crate) fn parted(&self, parts: &[&[Label]]) -> LocalModel {
        let labels: Vec<Label> = parts.iter().copied().flatten().copied().collect();
        let part = |(labels, hundreds): (&&[Label], u64)| Part { labels: set(labels), tensors: 2, bytes: 100 * hundreds };
        let mut parts: Vec<Part> = parts.iter().zip(0..).map(part).collect();
        parts[0].bytes = MODEL_BYTES - parts.iter().map(|part| part.bytes).sum::<u64>();
        let tensors = parts.iter().map(|part| part.tensors).sum();
        LocalModel { parts, tensors, ..self.model(0, &labels) }
    }

    /// A pair under these rules, and the offer of a model of three parts.
    pub(crate) fn ruled(rules: &[Rule]) -> (Self, StatementId) {
        let mut cluster = Self::pair();
        rules.iter().for_each(|(whose, text)| cluster.rule(whose, text));
        let model = LocalModel { subjects: [country("CN")].into(), ..cluster.parted(&[FIRST, GOV, DP]) };
        let offer = cluster.offer_of(0, model, OPEN);
        (cluster, offer)
    }

    fn rule(&mut self, whose: &str, text: &str) {
        let pack = |owner| Pack::new(owner, 1, text, "");
        let (ends, owner) = match whose {
            "baseline" => (vec![0, 1], PackOwner::Alliance),
            "the exporter's house" => (vec![0], PackOwner::House),
            "the importer's house" => (vec![1], PackOwner::House),
            member => return self.enact(country(member), text),
        };
        for at in ends {
            self.crash(at);
            match owner {
                PackOwner::House => self.nodes[at].house = Some(pack(owner)),
                PackOwner::Alliance | PackOwner::Member(_) => self.nodes[at].baseline = pack(owner),
            }
            self.restart(at);
        }
    }

    pub(crate) fn part_call(&mut self, offer: StatementId) -> PullCall {
        PullCall { tensors: vec!["*".into()], ..self.pull_call(offer) }
    }

    /// Begins a pull of what may cross.
    pub(crate) fn pull_part(&mut self, offer: StatementId) -> CrossingId {
        let call = self.part_call(offer);
        self.pull_with(1, call)
    }

    /// The request and the clearance of a crossing, as the exporter recorded them.
    pub(crate) fn papers(&self, crossing: CrossingId) -> (CrossingRequest, ClearanceGiven) {
        let papers = self.nodes[0].entries.iter().find_map(|entry| match &entry.record {
            Record::Cleared { crossing: of, request, clearance, .. } if *of == crossing => Some((request, clearance)),
            _ => None,
        });
        let (request, clearance) = papers.expect("cleared");
        let request = Signed::<CrossingRequest>::open(request, self.alliance.id).expect("a request");
        let clearance = Signed::<ClearanceGiven>::open(clearance, self.alliance.id).expect("a clearance");
        (request.body().clone(), clearance.body().clone())
    }

    /// What the records of a node say of a crossing, in order.
    pub(crate) fn kinds(&self, at: usize, crossing: CrossingId) -> Vec<&'static str> {
        let entries = self.nodes[at].entries.iter();
        entries.filter(|entry| entry.record.crossing() == Some(crossing)).map(|entry| entry.record.kind()).collect()
    }
}

/// Labels that were left out, and who spoke against them.
pub(crate) type LeftOut = (&'static [Label], &'static [(&'static str, Action)]);

#[track_caller]
pub(crate) fn assert_left_out(view: &CrossingView, expected: &[LeftOut], what: &str) {
    let who = |verdict: &Verdict| (verdict.pack.to_string(), verdict.action);
    let found: Vec<_> = view
        .left_out
        .iter()
        .map(|it| (it.part.labels.clone(), it.of(&view.against).map(who).collect::<Vec<_>>()))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(labels, against)| {
            (set(labels), against.iter().map(|(pack, action)| ((*pack).to_owned(), *action)).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(found, expected, "{what}: {:?}", view.side);
}

pub(crate) fn labels_of(parts: &[PartDecided]) -> PartLabels {
    parts.iter().map(|decided| decided.part.labels.clone()).collect()
}

/// Runs a pull to its end; gives what the permissions of both ends admit.
fn cross(cluster: &mut Cluster, crossing: CrossingId) -> [Cleared; 2] {
    let permissions = [("asked", 0), ("answered", 1)].map(|(name, at)| {
        let parcel = cluster.run_to(name);
        assert_eq!(parcel.to, at);
        let input = cluster.input(parcel);
        let effects = cluster.tell(at, input);
        let permission = effects.bulk.iter().find_map(|order| match order {
            BulkOrder::Serve { outbound, .. } => Some(outbound.cleared().clone()),
            BulkOrder::Receive { crossing: of, inbound } if *of == crossing => Some(inbound.cleared().clone()),
            _ => None,
        });
        cluster.route(at, effects);
        permission.expect("permitted")
    });
    cluster.run();
    permissions
}

/// What the rules are, and what each side leaves out for them.
type Case = (&'static [Rule], &'static [LeftOut], &'static [LeftOut]);

const GOV_EXPORT: &[Rule] = &[("BR", "deny export label:gov")];

const CASES: &[Case] = &[
    (&[], &[], &[]),
    (GOV_EXPORT, &[(GOV, &[("BR", Export)])], &[]),
    (&[("IN", "deny import label:gov")], &[(GOV, &[("IN", Import)])], &[]),
    (&[("CN", "deny concern label:dp")], &[(DP, &[("CN", Concern)])], &[]),
    (&[("baseline", "deny import label:dp")], &[(DP, &[("alliance", Import)])], &[]),
    (&[("the importer's house", "deny import label:gov")], &[(GOV, &[("house", Import)])], &[]),
    // The other side's house says nothing to this one; what it left out is seen in the clearance.
    (&[("the exporter's house", "deny export label:gov")], &[(GOV, &[])], &[(GOV, &[("house", Export)])]),
    // What is said of two labels is said of the part that has both.
    (&[("BR", "deny-both export label:public label:gov")], &[(GOV, &[("BR", Export)])], &[]),
    (
        &[("BR", "deny export label:gov"), ("IN", "deny import label:gov\ndeny import label:dp")],
        &[(GOV, &[("BR", Export), ("IN", Import)]), (DP, &[("IN", Import)])],
        &[],
    ),
    (
        &[("IN", "deny import label:dp"), ("the exporter's house", "deny export label:gov")],
        &[(DP, &[("IN", Import)]), (GOV, &[])],
        &[(GOV, &[("house", Export)])],
    ),
    // Duties that are not met.
    (&[("BR", "duty-on export label:gov require(ai_label)")], &[(GOV, &[("BR", Export)])], &[]),
    (&[("IN", "duty-on import label:dp approval(1)")], &[(DP, &[("IN", Import)])], &[]),
    (&[("the importer's house", "duty-on import label:dp approval(1)")], &[(DP, &[("house", Import)])], &[]),
    // Approvals of the exporter's side are not this side's business.
    (&[("BR", "duty-on export label:gov approval(1)")], &[(GOV, &[])], &[(GOV, &[("BR", Export)])]),
    (&[("the exporter's house", "duty-on export label:dp approval(1)")], &[(DP, &[])], &[(DP, &[("house", Export)])]),
];

#[test]
fn what_is_denied_by_itself_is_left_out_and_the_rest_crosses() {
    for (rules, importer, exporter) in CASES {
        let what = format!("{rules:?}");
        let (mut cluster, offer) = Cluster::ruled(rules);
        let crossing = cluster.pull_part(offer);
        let by_itself: Vec<LeftOut> = importer.iter().copied().filter(|(_, against)| !against.is_empty()).collect();
        assert_left_out(&cluster.view(1, crossing), &by_itself, &what);
        let permissions = cross(&mut cluster, crossing);
        let without = |left_out: &[LeftOut]| {
            let kept = [FIRST, GOV, DP].into_iter().filter(|part| left_out.iter().all(|(labels, _)| labels != part));
            kept.collect::<Vec<_>>()
        };
        // In the end the importer's view has what either side left out.
        let (asked, cleared) = (without(&by_itself), without(importer));
        let (request, clearance) = cluster.papers(crossing);
        assert_eq!(request.parts, Some(sets(&asked)), "{what}: what is asked for");
        assert_eq!(clearance.parts, Some(sets(&cleared)), "{what}: what is cleared");
        assert_eq!(clearance.labels, cleared.iter().copied().flatten().copied().collect(), "{what}");
        for permission in permissions {
            let admitted = [FIRST, GOV, DP, &[Label::Gov]].into_iter().filter(|labels| permission.admits(&set(labels)));
            assert_eq!((admitted.collect(), permission.is_all()), (cleared.clone(), false), "{what}: what is permitted");
        }
        for (at, left_out, part) in [(1, importer, Some(part_taken())), (0, exporter, None)] {
            let view = cluster.view(at, crossing);
            assert_eq!((view.state, view.refusal, &view.problem), (CrossingState::Done, None, &None), "{what}");
            assert_eq!((labels_of(&view.parts), view.part.clone(), view.partial), (sets(&cleared), part, true), "{what}");
            assert!(view.parts.iter().all(|it| it.of(&view.verdicts).count() > 0), "{what}: each was decided");
            assert_eq!(view.facts.as_ref().map(|facts| &facts.labels), Some(&clearance.labels), "{what}");
            assert_left_out(&view, left_out, &what);
        }
        let of_importer = ["requested", "clearance_accepted", "received", "part_delivered", "settled"];
        assert_eq!(cluster.kinds(1, crossing), of_importer, "{what}");
        assert_eq!(cluster.kinds(0, crossing), ["cleared", "settled"], "{what}");
    }
}

#[test]
fn a_pull_of_the_whole_leaves_nothing_out() {
    for (rules, importer, _) in CASES {
        let (mut cluster, offer) = Cluster::ruled(rules);
        let crossing = cluster.pull(1, offer);
        cluster.run();
        let view = cluster.view(1, crossing);
        let expected = if importer.is_empty() { CrossingState::Done } else { CrossingState::Denied };
        assert_eq!((view.state, view.part.clone(), view.partial), (expected, None, false), "{rules:?}: {:?}", view.problem);
        assert!(view.left_out.is_empty() && view.against.is_empty(), "{rules:?}: {:?}", view.left_out);
        if expected == CrossingState::Done {
            let (request, clearance) = cluster.papers(crossing);
            assert_eq!((request.parts, clearance.parts), (None, None));
            assert_eq!((cluster.status(1).models, clearance.labels), (1, set(&[Label::Public, Label::Gov, Label::Dp])));
        }
    }
}

/// The rules, the code, the reason at the side that denies, and what this side left out before.
type Denied = (&'static [Rule], RefusalCode, &'static str, &'static [LeftOut]);

#[test]
fn where_the_first_part_is_denied_or_all_together_nobody_is_asked() {
    use RefusalCode::{DeniedByLaw, DeniedByTerms, ObligationUnmet};
    let by_importer: &[Denied] = &[
        (
            &[("BR", "deny export label:public")],
            DeniedByLaw,
            "rules of BR, for what is labelled",
            &[(GOV, &[("BR", Export)])],
        ),
        (&[("IN", "deny import all")], DeniedByLaw, "rules of IN", &[(GOV, &[("IN", Import)]), (DP, &[("IN", Import)])]),
        (&[("baseline", "error export")], DeniedByLaw, "rules of alliance", &[(GOV, ALLIANCE), (DP, ALLIANCE)]),
        (&[("baseline", "lying-error export")], DeniedByLaw, "rules of alliance", &[(GOV, ALLIANCE), (DP, ALLIANCE)]),
        (
            &[("the importer's house", "deny import label:public")],
            DeniedByTerms,
            "rules of this house",
            &[(GOV, &[("house", Import)])],
        ),
        (&[("BR", "deny-both export label:gov label:dp")], DeniedByLaw, "for its parts together", &[]),
        (
            &[("IN", "duty-on import label:public require(ai_label)")],
            ObligationUnmet,
            "demand `require(ai_label)`",
            &[(GOV, &[("IN", Import)])],
        ),
    ];
    for (rules, code, reason, left_out) in by_importer {
        let (mut cluster, offer) = Cluster::ruled(rules);
        let crossing = cluster.pull_part(offer);
        assert!(cluster.wires.queue.is_empty(), "{rules:?}: nobody is asked");
        let view = cluster.view(1, crossing);
        assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(*code)), "{rules:?}: {:?}", view.problem);
        assert!(view.problem.as_ref().is_some_and(|why| why.contains(reason)), "{rules:?}: {:?}", view.problem);
        assert_eq!(cluster.kinds(1, crossing), ["request_denied"]);
        assert_left_out(&view, left_out, reason);
    }
}

#[test]
fn where_the_exporter_denies_the_first_part_or_all_together_nothing_crosses() {
    use RefusalCode::{DeniedByTerms, ObligationUnmet};
    let by_exporter: &[Denied] = &[
        (
            &[("the exporter's house", "deny export label:public")],
            DeniedByTerms,
            "this house, for what is labelled public",
            &[(GOV, &[("house", Export)])],
        ),
        (
            &[("the exporter's house", "deny-both export label:gov label:dp")],
            DeniedByTerms,
            "house, for its parts together",
            &[],
        ),
        (
            &[("BR", "duty-on export label:public approval(1)")],
            ObligationUnmet,
            "0 of 1 officers of the authority of BR",
            &[(GOV, &[("BR", Export)])],
        ),
    ];
    for (rules, code, reason, left_out) in by_exporter {
        let (mut cluster, offer) = Cluster::ruled(rules);
        let crossing = cluster.pull_part(offer);
        cluster.run();
        for at in [0, 1] {
            let view = cluster.view(at, crossing);
            let found = (view.state, view.bytes, view.partial);
            assert_eq!(found, (CrossingState::Denied, 0, true), "{rules:?}: {:?}", view.problem);
            assert_eq!(view.refusal, Some(*code), "{rules:?}: {:?}", view.problem);
        }
        let view = cluster.view(0, crossing);
        assert!(view.problem.as_ref().is_some_and(|why| why.contains(reason)), "{rules:?}: {:?}", view.problem);
        assert_left_out(&view, left_out, reason);
        assert_eq!(cluster.kinds(1, crossing), ["requested", "refusal_accepted"]);
    }
}

const ALLIANCE: &[(&str, Action)] = &[("alliance", Export)];

#[test]
fn what_holds_for_the_whole_holds_for_a_part() {
    let mut cluster = Cluster::pair();
    let model = cluster.parted(&[FIRST, DP]);
    let offer = cluster.offer_of(0, model, Terms { to: [country("ZA")].into(), ..OPEN });
    let crossing = cluster.pull_part(offer);
    let view = cluster.view(1, crossing);
    assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(RefusalCode::DeniedByTerms)));
    let lie = cluster.by_hand_of(offer, 1, &[FIRST, DP]);
    let answer = cluster.put(&lie).1;
    assert!(matches!(answer, crate::exporter_refuses::Answer::Refused(RefusalCode::DeniedByTerms, _)), "{answer:?}");

    let (mut cluster, offer) = Cluster::ruled(&[]);
    cluster.let_pass(crate::alliance::STATUS_MS);
    let crossing = cluster.pull_part(offer);
    let view = cluster.view(1, crossing);
    assert_eq!((view.refusal, view.left_out.len()), (Some(RefusalCode::Stale), 0));
}

#[test]
fn an_approval_lets_in_what_was_left_out_for_want_of_it() {
    // The second key is that of an officer of the authority.
    let member = PackOwner::Member(country("BR"));
    for (whose, officer, owner) in [("the exporter's house", key(210), PackOwner::House), ("BR", key(10), member)] {
        let mut cluster = Cluster::pair();
        cluster.nodes[0].approvers = [key(210).public()].into();
        cluster.rule("the exporter's house", "");
        cluster.rule(whose, "duty-on export label:gov approval(1)");
        let model = cluster.parted(&[FIRST, GOV, DP]);
        let offer = cluster.offer_of(0, model, OPEN);
        for (approved, expected) in [(false, sets(&[FIRST, DP])), (true, sets(&[FIRST, GOV, DP]))] {
            if approved {
                let approval = cluster.approval(owner, DAY);
                assert!(matches!(cluster.approve(0, &approval, &[&officer]), Reply::Adopted { accepted: 1, .. }));
            }
            let crossing = cluster.pull_part(offer);
            cluster.run();
            let view = cluster.view(1, crossing);
            assert_eq!((view.state, labels_of(&view.parts)), (CrossingState::Done, expected), "{whose}: {approved}");
        }
    }
}

#[test]
fn the_law_of_the_first_exporter_leaves_out_parts_of_what_is_offered_on() {
    use crate::detours::{BETWEEN, FIRST as ROOT, IMPORTER, NODES};
    let mut cluster = Cluster::new(&NODES);
    let model = LocalModel { name: "usp/model".into(), origin: country("BR"), ..cluster.parted(&[FIRST, GOV, DP]) };
    let root = cluster.offer_of(ROOT, model, ONWARD);
    let onward = cluster.gets(BETWEEN, root);
    cluster.enact(country("BR"), "deny-both export to:IN label:gov");
    let crossing = cluster.pull_part(onward);
    assert_eq!(IMPORTER, 1, "it is the one that pulls parts here");
    cluster.run();
    let view = cluster.view(IMPORTER, crossing);
    assert_eq!(view.state, CrossingState::Done, "{:?}", view.problem);
    assert_left_out(&view, &[(GOV, &[("BR", Export)])], "the direct way");
    assert_eq!(cluster.papers(crossing).1.parts, Some(sets(&[FIRST, DP])));
}

#[test]
fn a_part_is_no_model_that_lies_here_and_is_not_offered_on() {
    let mut cluster = Cluster::pair();
    let model = cluster.parted(&[FIRST, GOV, DP]);
    let offer = cluster.offer_of(0, model, ONWARD);
    let crossing = cluster.pull_part(offer);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
    let is_model = |record: &Record| matches!(record, Record::ModelImported { .. });
    assert_eq!((cluster.status(1).models, cluster.nodes[1].count(is_model)), (0, 0));
    assert_eq!(cluster.onward_of(1, offer), None);
    let draft = OfferDraft { name: "usp/model".into(), compute: None, terms: OPEN, ttl_ms: DAY };
    let reply = cluster.call(1, AdminCall::Publish(draft));
    assert!(matches!(&reply, Reply::Failed(failure) if failure.kind == FailureKind::Usage), "{reply:?}");
    cluster.crash(1);
    cluster.restart(1);
    assert_eq!((cluster.status(1).models, cluster.onward_of(1, offer)), (0, None), "nor after a restart");
}

#[test]
fn a_call_for_a_part_that_makes_no_sense_is_refused() {
    let mut cluster = Cluster::pair();
    let model = cluster.parted(&[FIRST, DP]);
    let offer = cluster.offer_of(0, model, ONWARD);
    let call = cluster.part_call(offer);
    let onward = PullCall { onward: true, ..call.clone() };
    let many = PullCall { tensors: vec!["*".into(); limits::TENSOR_PATTERNS_MAX + 1], ..call.clone() };
    for (call, reason) in [(onward, "not offered on"), (many, "at most 64 patterns")] {
        let records = cluster.nodes[1].entries.len();
        let reply = cluster.call(1, AdminCall::Pull(call));
        let Reply::Failed(failure) = reply else { panic!("{reason}: {reply:?}") };
        assert!(failure.kind == FailureKind::Usage && failure.message.contains(reason), "{failure:?}");
        assert!(cluster.wires.queue.is_empty() && cluster.nodes[1].entries.len() == records, "{reason}");
    }
    let most = PullCall { tensors: vec!["*".into(); limits::TENSOR_PATTERNS_MAX], ..call };
    let crossing = cluster.pull_with(1, most);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Done);
}

/// A model of which one part is about people and another about their health.
fn about_people(cluster: &Cluster, people: Option<u64>) -> LocalModel {
    let model = cluster.parted(&[FIRST, &[Label::Personal], &[Label::Health]]);
    LocalModel { provenance: Provenance { people, ..Provenance::default() }, ..model }
}

#[test]
fn people_are_counted_for_the_parts_that_cross_and_for_no_others() {
    for people in [Some(20_000), None] {
        let mut cluster = Cluster::pair();
        let offer = cluster.offer_of(0, about_people(&cluster, people), OPEN);
        let of = |labels: &[Label]| Volume::of(&set(labels), people);
        let both = of(&[Label::Personal]).and(of(&[Label::Health]));
        let steps = [
            ("deny export label:personal\ndeny export label:health", Volume::default()),
            ("deny export label:health", of(&[Label::Personal])),
            ("deny export label:health", of(&[Label::Personal])),
            // What was sent before without what is of a special category does not pass for having been sent with it.
            ("deny export label:personal", both),
            ("", both),
        ];
        for (at, (law, counted)) in steps.into_iter().enumerate() {
            cluster.enact(country("BR"), law);
            let crossing = cluster.pull_part(offer);
            cluster.run();
            let view = cluster.view(1, crossing);
            assert_eq!(view.state, CrossingState::Done, "{people:?}: {law}: {:?}", view.problem);
            assert_eq!(cluster.status(0).volume, counted, "{people:?}: step {at}");
            let asked = view.facts.expect("asked").volume;
            assert_eq!(asked.larger(counted), asked, "{people:?}: step {at}: the law was asked about what is counted");
        }
    }
}

#[test]
fn a_law_that_counts_people_is_asked_about_those_of_each_part() {
    // Of the whole only those of a special category would count.
    let mut cluster = Cluster::pair();
    let offer = cluster.offer_of(0, about_people(&cluster, Some(20_000)), OPEN);
    cluster.enact(country("BR"), "deny export label:health\ndeny-people export 20000");
    let crossing = cluster.pull_part(offer);
    cluster.run();
    let view = cluster.view(1, crossing);
    assert_eq!(view.state, CrossingState::Done, "{:?}", view.problem);
    assert_left_out(&view, &[(&[Label::Personal], &[("BR", Export)]), (&[Label::Health], &[("BR", Export)])], "each");
    // The exporter asks by itself.
    let lie = cluster.by_hand_of(offer, 1, &[FIRST, &[Label::Personal]]);
    let crate::exporter_refuses::Answer::Cleared(given) = cluster.put(&lie).1 else { panic!("not cleared") };
    assert_eq!(given.parts, Some(sets(&[FIRST])));
}
