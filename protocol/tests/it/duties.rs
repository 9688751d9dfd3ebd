//! Duties that a node enforces (LAW-41 to 44), bans of a regulator, and the people that are counted over a year.

use std::collections::BTreeSet;

use alliance_protocol::{
    authority::{Approval, Ban},
    core::{
        BulkEvent, BulkOrder, Input,
        admin::{AdminCall, CrossingState, FailureKind, LocalModel, Reply},
    },
    crossing::RefusalCode,
    envelope::{Draft, Signed},
    gate::{Pack, PackOwner, People},
    id::{ManifestId, StatementId},
    key::{PublicKey, SecretKey},
    offer::Provenance,
    time::Validity,
    vocabulary::{Circumstance, Evidence, Label, Purpose, Use},
};

use crate::{
    alliance::{DAY, HOUR, country, key},
    cluster::{Cluster, OPEN},
};

impl Cluster {
    /// Pulls an offer from node 0 to node 1, and says how it ended.
    fn ends(&mut self, offer: StatementId) -> (CrossingState, Option<RefusalCode>) {
        let crossing = self.pull(1, offer);
        self.run();
        let view = self.view(1, crossing);
        (view.state, view.refusal)
    }

    pub(crate) fn approval(&self, on_behalf: PackOwner, ms: u64) -> Approval {
        Approval {
            on_behalf,
            manifest: ManifestId([7; 32]),
            exporter: self.nodes[0].public(),
            importer: Some(self.nodes[1].public()),
            purpose: Purpose::Research,
            use_: Use::Inference,
            granted: true,
            reason: String::new(),
            validity: Validity::lasting_ms(self.now, ms),
        }
    }

    pub(crate) fn approve(&mut self, at: usize, approval: &Approval, signers: &[&SecretKey]) -> Reply {
        let draft = Draft::new(approval, self.alliance.id);
        let signed = signers.iter().fold(draft, |draft, signer| draft.sign(signer)).to_bytes();
        self.adopt(at, &[&signed])
    }

    fn about(&self, people: u64, manifest: u8) -> LocalModel {
        LocalModel {
            name: format!("usp/people-{people}-{manifest}"),
            manifest: ManifestId([manifest; 32]),
            provenance: Provenance { people: Some(people), ..Provenance::default() },
            ..self.model(0, &[Label::Personal])
        }
    }

    pub(crate) fn offer_people(&mut self, people: u64, manifest: u8) -> StatementId {
        let model = self.about(people, manifest);
        self.offer_of(0, model, OPEN)
    }

    /// The authority bans, in its next status.
    fn ban(&mut self, member: &str, ban: Ban) {
        self.ban_in_status(country(member), ban);
    }
}

const DENIED: (CrossingState, Option<RefusalCode>) = (CrossingState::Denied, Some(RefusalCode::ObligationUnmet));
const DONE: (CrossingState, Option<RefusalCode>) = (CrossingState::Done, None);

fn house(cluster: &mut Cluster, at: usize, text: &str, approvers: &[PublicKey]) {
    cluster.nodes[at].house = Some(Pack::new(PackOwner::House, 1, text, ""));
    cluster.nodes[at].approvers = approvers.iter().copied().collect();
    cluster.restart(at);
    cluster.run();
}

#[test]
fn nothing_is_cleared_before_enough_officers_of_the_house_approve() {
    let mut cluster = Cluster::pair();
    let (one, two, three) = (key(210), key(211), key(212));
    house(&mut cluster, 0, "duty export approval(2)", &[one.public(), two.public(), three.public()]);
    let offer = cluster.offer(0, &[Label::Public]);
    assert_eq!(cluster.ends(offer), DENIED);
    let approval = cluster.approval(PackOwner::House, DAY);
    assert!(matches!(cluster.approve(0, &approval, &[&one]), Reply::Adopted { accepted: 1, .. }));
    assert_eq!(cluster.ends(offer), DENIED, "one is not two");
    assert!(matches!(cluster.approve(0, &approval, &[&one]), Reply::Adopted { known: 1, .. }));
    let longer = cluster.approval(PackOwner::House, 2 * DAY);
    assert!(matches!(cluster.approve(0, &longer, &[&one]), Reply::Adopted { accepted: 1, .. }));
    assert_eq!(cluster.ends(offer), DENIED, "the same officer twice is one");
    assert!(matches!(cluster.approve(0, &approval, &[&three]), Reply::Adopted { .. }));
    assert_eq!(cluster.ends(offer), DONE);
    // It lasts over a restart, and ends with its validity.
    cluster.restart(0);
    cluster.run();
    assert_eq!(cluster.ends(offer), DONE);
    cluster.advance_to(cluster.now.plus_ms(DAY + HOUR));
    cluster.renew(country("BR"));
    cluster.renew(country("IN"));
    assert_eq!(cluster.ends(offer), DENIED, "run out");
}

#[test]
fn an_approval_that_nobody_may_give_is_not_adopted() {
    let mut cluster = Cluster::pair();
    house(&mut cluster, 0, "duty export approval(1)", &[key(210).public()]);
    let refused = |reply: Reply| matches!(reply, Reply::Failed(failure) if failure.kind == FailureKind::Untrusted);
    let approval = cluster.approval(PackOwner::House, DAY);
    assert!(refused(cluster.approve(0, &approval, &[&key(99)])), "no officer of the house");
    let other = Approval { on_behalf: PackOwner::Alliance, ..approval.clone() };
    assert!(refused(cluster.approve(0, &other, &[&key(210)])), "nobody approves for the alliance");
    let other = Approval { on_behalf: PackOwner::Member(country("BR")), ..approval.clone() };
    assert!(refused(cluster.approve(0, &other, &[&key(210)])), "not an officer of that authority");
    let other = Approval { exporter: key(98).public(), importer: Some(key(99).public()), ..approval.clone() };
    assert!(refused(cluster.approve(0, &other, &[&key(210)])), "between other nodes");
    let other = Approval { validity: Validity::lasting_ms(cluster.now, 0), ..approval.clone() };
    assert!(refused(cluster.approve(0, &other, &[&key(210)])), "run out");
    for other in [
        Approval { purpose: Purpose::Commercial, ..approval.clone() },
        Approval { use_: Use::FineTuning, ..approval.clone() },
        Approval { manifest: ManifestId([8; 32]), ..approval },
    ] {
        assert!(matches!(cluster.approve(0, &other, &[&key(210)]), Reply::Adopted { accepted: 1, .. }));
    }
    let offer = cluster.offer(0, &[Label::Public]);
    assert_eq!(cluster.ends(offer), DENIED, "another purpose, another use, another artefact");
}

#[test]
fn evidence_that_a_rule_requires_has_to_be_declared() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("IN"), "duty import require(ai_label)");
    let offer = cluster.offer(0, &[Label::Public]);
    assert_eq!(cluster.ends(offer), DENIED);
    let mut model = cluster.model(0, &[Label::Public]);
    model.name = "usp/labelled".into();
    model.provenance.evidence.insert(Evidence::AiLabel);
    let offer = cluster.offer_of(0, model, OPEN);
    assert_eq!(cluster.ends(offer), DONE);
}

#[test]
fn what_may_be_kept_for_a_time_is_deleted_then_also_after_a_restart() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "duty export delete_within(24h)\nduty export retain_at_most(30d)");
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    cluster.run();
    let due = cluster.view(1, crossing).delete_by.expect("the shorter of both");
    assert_eq!(due, cluster.now.plus_ms(24 * HOUR));
    cluster.restart(1);
    cluster.run();
    assert_eq!(cluster.view(1, crossing).delete_by, Some(due));
    cluster.let_pass(24 * HOUR - 1);
    let readable = |cluster: &mut Cluster| match cluster.call(1, AdminCall::ReadableModels) {
        Reply::Models(models) => models.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(readable(&mut cluster), 1);
    let effects = cluster.tell(1, Input::Tick);
    assert!(!effects.bulk.iter().any(|order| matches!(order, BulkOrder::Delete { .. })), "not before it is due");
    cluster.let_pass(1);
    let effects = cluster.tell(1, Input::Tick);
    assert!(effects.bulk.iter().any(|order| matches!(order, BulkOrder::Delete { crossing: of, .. } if *of == crossing)));
    // A disk that refuses is told of, and asked again.
    let problem = Some("read-only".to_owned());
    let effects = cluster.tell(1, Input::Bulk(BulkEvent::Deleted { crossing, problem }));
    assert!(effects.persist.is_empty());
    assert!(cluster.view(1, crossing).problem.expect("told").contains("read-only"));
    assert_eq!(readable(&mut cluster), 0, "it is there, and is read no more");
    assert!(matches!(cluster.call(1, AdminCall::Models), Reply::Models(models) if models.len() == 1));
    cluster.let_pass(HOUR);
    let effects = cluster.tell(1, Input::Tick);
    cluster.route(1, effects);
    cluster.run();
    let view = cluster.view(1, crossing);
    assert_eq!((view.deleted, view.problem), (Some(cluster.now), None));
    assert!(matches!(cluster.call(1, AdminCall::Models), Reply::Models(models) if models.is_empty()));
    cluster.restart(1);
    cluster.run();
    assert!(cluster.view(1, crossing).deleted.is_some());
    cluster.let_pass(DAY);
    let effects = cluster.tell(1, Input::Tick);
    assert!(!effects.bulk.iter().any(|order| matches!(order, BulkOrder::Delete { .. })), "once");
}

#[test]
fn a_ban_of_a_regulator_denies_and_cuts_what_runs() {
    for ban in
        [|cluster: &Cluster| Ban::Recipient(cluster.nodes[1].public()), |_: &Cluster| Ban::Destination(country("IN"))]
    {
        let mut cluster = Cluster::pair();
        cluster.enact(country("BR"), "deny-banned export");
        let offer = cluster.offer(0, &[Label::Public]);
        assert_eq!(cluster.ends(offer), DONE);
        let crossing = cluster.pull(1, offer);
        let _running = cluster.run_to("received");
        let ban = ban(&cluster);
        cluster.ban("BR", ban);
        assert_eq!(cluster.state(1, crossing), CrossingState::Failed, "cut while it ran");
        assert_eq!(cluster.ends(offer), (CrossingState::Denied, Some(RefusalCode::DeniedByLaw)));
        let elsewhere = Ban::Destination(country("ZA"));
        let mut cluster = Cluster::pair();
        cluster.enact(country("BR"), "deny-banned export");
        cluster.ban("BR", elsewhere);
        let offer = cluster.offer(0, &[Label::Public]);
        assert_eq!(cluster.ends(offer), DONE, "a ban of another destination");
    }
}

#[test]
fn people_are_counted_over_the_year_by_the_exporter_and_splitting_does_not_help() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "deny-people export 100000");
    let denied = (CrossingState::Denied, Some(RefusalCode::DeniedByLaw));
    let offers: Vec<_> = (0..5).map(|part| cluster.offer_people(24_999, 20 + part)).collect();
    for (at, offer) in offers.iter().enumerate() {
        let ended = if at < 4 { DONE } else { denied };
        assert_eq!(cluster.ends(*offer), ended, "part {at}");
    }
    assert_eq!(cluster.status(0).volume.people, People::new(4 * 24_999));
    assert_eq!(cluster.ends(offers[0]), DONE, "what was counted is not counted again");
    cluster.restart(0);
    cluster.run();
    assert_eq!(cluster.status(0).volume.people, People::new(4 * 24_999), "the ledger remembers");
    assert_eq!(cluster.ends(offers[4]), denied);
    let uncounted = cluster.offer(0, &[Label::Personal]);
    assert_eq!(cluster.ends(uncounted), denied, "unknown is more than any number");
}

#[test]
fn a_law_that_counts_people_ends_on_each_side_what_runs_with_too_many_before_it() {
    // The importer knows of those before it by the clearance.
    for (people, ends) in [(40_000, true), (50_000, false)] {
        for at in [0, 1] {
            let mut cluster = Cluster::pair();
            let offers = [cluster.offer_people(24_999, 20), cluster.offer_people(24_999, 21)];
            assert_eq!(cluster.ends(offers[0]), DONE);
            cluster.pull(1, offers[1]);
            let _received = cluster.run_to("received");
            let orders = cluster.hears(at, "BR", &format!("deny-people export {people}")).bulk;
            assert_eq!(orders.len(), usize::from(ends), "{people}: side {at} orders {orders:?}");
        }
    }
}

#[test]
fn what_both_ends_declare_of_the_movement_is_asked_together() {
    let mut cluster = Cluster::pair();
    let mut model = cluster.model(0, &[Label::Public]);
    model.provenance.circumstances.insert(Circumstance::OutboundInvestment);
    let offer = cluster.offer_of(0, model, OPEN);
    let mut call = cluster.pull_call(offer);
    call.circumstances.insert(Circumstance::PublicAudience);
    let crossing = cluster.pull_with(1, call);
    cluster.run();
    let both = BTreeSet::from([Circumstance::OutboundInvestment, Circumstance::PublicAudience]);
    for at in [0, 1] {
        assert_eq!(cluster.view(at, crossing).facts.expect("asked").circumstances, both, "side {at}");
    }
}

#[test]
fn a_clearance_with_another_count_than_the_artefact_alone_demands_is_refused() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer_people(10, 20);
    let crossing = cluster.pull(1, offer);
    let mut answered = cluster.run_to("answered");
    let crate::routes::Said::Answered { answer, .. } = &mut answered.said else { panic!("answered") };
    let given = Signed::<alliance_protocol::crossing::ClearanceGiven>::open(answer, cluster.alliance.id).expect("good");
    let less = alliance_protocol::crossing::ClearanceGiven { volume: Default::default(), ..given.body().clone() };
    *answer = cluster.alliance.signed(&cluster.nodes[0].key(), &less).bytes().to_vec();
    cluster.deliver(answered);
    cluster.run();
    let view = cluster.view(1, crossing);
    assert_eq!(view.state, CrossingState::Failed);
    assert!(view.problem.expect("told").contains("volume"));
}

#[test]
fn a_daemon_that_dies_while_it_delivers_still_deletes() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "duty export delete_within(24h)");
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let _delivered_but_never_said = cluster.run_to("delivered");
    cluster.restart(1);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Failed, "nobody knows that it is in place");
    cluster.let_pass(25 * HOUR);
    let effects = cluster.tell(1, Input::Tick);
    assert!(effects.bulk.iter().any(|order| matches!(order, BulkOrder::Delete { crossing: of, .. } if *of == crossing)));
}

#[test]
fn what_a_broken_pull_left_is_deleted_too() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "duty export delete_within(24h)");
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let _never_comes = cluster.run_to("received");
    cluster.restart(1);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Failed);
    let view = cluster.view(1, crossing);
    assert!(view.delete_by.is_some() && view.deleted.is_none(), "{view:?}");
    cluster.let_pass(25 * HOUR);
    let orders = cluster.tell(1, Input::Tick).bulk;
    let discards = |order: &BulkOrder| matches!(order, BulkOrder::Discard { crossing: of, .. } if *of == crossing);
    assert!(orders.iter().any(discards), "{orders:?}");
    cluster.tell(1, Input::Bulk(BulkEvent::Deleted { crossing, problem: None }));
    assert!(cluster.view(1, crossing).deleted.is_some());
    cluster.let_pass(HOUR);
    assert!(!cluster.tell(1, Input::Tick).bulk.iter().any(discards), "once");
}

#[test]
fn what_came_in_two_attempts_is_deleted_once_from_where_it_was_delivered() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "duty export delete_within(24h)");
    let offer = cluster.offer(0, &[Label::Public]);
    let call = cluster.pull_call(offer);
    let first = cluster.pull_with(1, call.clone());
    let _never_comes = cluster.run_to("received");
    cluster.restart(1);
    cluster.run();
    let second = cluster.pull_with(1, call);
    cluster.run();
    assert_eq!((cluster.state(1, first), cluster.state(1, second)), (CrossingState::Failed, CrossingState::Done));
    cluster.let_pass(30 * HOUR);
    let orders = cluster.tell(1, Input::Tick).bulk;
    assert!(!orders.iter().any(|order| matches!(order, BulkOrder::Discard { .. })), "{orders:?}");
    assert!(orders.iter().any(|order| matches!(order, BulkOrder::Delete { crossing, .. } if *crossing == second)));
}

#[test]
fn a_forged_safeguard_that_has_run_out_sets_no_clock() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let mut lie = cluster.by_hand(offer, 9);
    let mut forged = crate::alliance::contract_of(country("BR"), country("BR"), country("IN"));
    forged.validity.until = alliance_protocol::time::Timestamp(1);
    lie.body.safeguards = vec![cluster.alliance.signed(&key(99), &forged).bytes().to_vec().into()];
    let (_, answer) = cluster.put(&lie);
    assert!(matches!(answer, crate::exporter_refuses::Answer::Cleared(_)), "{answer:?}");
    for _ in 0..3 {
        let _effects = cluster.tell(0, Input::Tick);
        let wake = cluster.nodes[0].core.as_ref().expect("up").next_wake();
        assert!(wake >= cluster.now.plus_ms(1000), "woken again at once");
        cluster.let_pass(1000);
    }
}

#[test]
fn a_ban_of_a_country_reaches_whom_its_law_can_compel() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "deny-banned export");
    cluster.ban("BR", Ban::Destination(country("US")));
    let offer = cluster.offer(0, &[Label::Public]);
    let mut body = crate::alliance::accreditation_of(country("IN"), cluster.nodes[1].public(), "iitb");
    body.organisation.controlled_by = Some(country("US"));
    let mut lie = cluster.by_hand(offer, 9);
    lie.body.accreditation = cluster.alliance.spoken(country("IN"), &body).bytes().to_vec();
    let (_, answer) = cluster.put(&lie);
    assert!(!matches!(answer, crate::exporter_refuses::Answer::Cleared(_)), "{answer:?}");
}

#[test]
fn data_about_nobody_is_data_about_nobody_knows_how_many() {
    let mut cluster = Cluster::pair();
    cluster.enact(country("BR"), "deny-people export 100000");
    let offer = cluster.offer_people(0, 20);
    assert_eq!(cluster.ends(offer), (CrossingState::Denied, Some(RefusalCode::DeniedByLaw)));
}

#[test]
fn personal_data_names_whose_people_it_is_about() {
    let mut cluster = Cluster::pair();
    let model = LocalModel { subjects: BTreeSet::new(), ..cluster.about(10, 20) };
    let what = alliance_protocol::offer::Offered::Model(model.offered());
    assert_eq!(what.within_bounds(), Err(alliance_protocol::offer::OutOfBounds::NoSubjects), "no peer passes it on");
    let reply = cluster.call(0, AdminCall::Import(Box::new(model)));
    assert!(matches!(reply, Reply::Failed(failure) if failure.kind == FailureKind::Usage));
}

/// Named experts of the authority, not its officers, decide about what it has put under supervision.
#[test]
fn experts_whom_the_authority_has_named_approve_and_refuse() {
    let mut cluster = Cluster::pair();
    let (ana, rui, eva) = (key(220), key(221), key(222));
    let brazil = country("BR");
    cluster.name_experts(brazil, &[(&ana, "Ana"), (&rui, "Rui"), (&eva, "Eva")]);
    cluster.enact(brazil, "duty export approval(2)");
    let offer = cluster.offer(0, &[Label::Public]);
    assert_eq!(cluster.ends(offer), DENIED);
    let pending = |cluster: &mut Cluster| match cluster.call(0, AdminCall::Approvals) {
        Reply::Approvals { pending, standing } => (pending, standing),
        other => panic!("{other:?}"),
    };
    let (waiting, standing) = pending(&mut cluster);
    assert_eq!((waiting.len(), standing.len()), (1, 0));
    let needed = &waiting[0].needed;
    assert_eq!((needed.len(), needed[0].officers, needed[0].on_behalf), (1, 2, PackOwner::Member(brazil)));
    let names: BTreeSet<_> = needed[0].approvers.iter().map(|approver| approver.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["Ana", "Eva", "Rui"]));

    // An officer of the authority is no expert of it.
    let approval = cluster.approval(PackOwner::Member(brazil), DAY);
    let officer = SecretKey::from_seed(&cluster.alliance.officer(brazil, 0).to_seed());
    assert!(matches!(cluster.approve(0, &approval, &[&officer]), Reply::Failed(_)));
    assert!(matches!(cluster.approve(0, &approval, &[&ana]), Reply::Adopted { accepted: 1, .. }));
    assert!(matches!(cluster.approve(0, &approval, &[&rui]), Reply::Adopted { accepted: 1, .. }));
    assert_eq!(cluster.ends(offer), DONE);

    // A refusal needs a reason, counts from then on, and takes an earlier yes back.
    cluster.let_pass(1000);
    let refusal = Approval { granted: false, ..cluster.approval(PackOwner::Member(brazil), DAY) };
    assert!(matches!(cluster.approve(0, &refusal, &[&rui]), Reply::Failed(_)), "no reason");
    let crossing = cluster.pull(1, offer);
    cluster.run_to("received");
    let refusal = Approval { reason: "it leaks prompts".into(), ..refusal };
    assert!(matches!(cluster.approve(0, &refusal, &[&rui]), Reply::Adopted { accepted: 1, .. }));
    cluster.tick();
    cluster.advance_to(cluster.now.plus_ms(10));
    assert_eq!(cluster.view(1, crossing).state, CrossingState::Failed, "what runs ends");
    assert_eq!(cluster.ends(offer), DENIED);
    let (waiting, standing) = pending(&mut cluster);
    let words: Vec<_> = waiting[0].needed[0].approvers.iter().map(|it| (it.name.as_str(), it.granted)).collect();
    assert!(
        words.contains(&("Ana", Some(true))) && words.contains(&("Rui", Some(false))) && words.contains(&("Eva", None))
    );
    assert_eq!(standing.len(), 3);
    let crossing = waiting[0].crossing;
    let problem = cluster.view(0, crossing).problem.expect("a reason");
    assert!(
        problem.contains("1 of 2 named experts of the authority of BR have approved; Rui refused: it leaks prompts"),
        "{problem}"
    );

    // Eva approves the offer, for whoever asks.
    cluster.let_pass(1000);
    let to_all = Approval { importer: None, ..cluster.approval(PackOwner::Member(brazil), DAY) };
    assert!(matches!(cluster.approve(0, &to_all, &[&eva]), Reply::Adopted { accepted: 1, .. }));
    assert_eq!(cluster.ends(offer), DONE);
    // She is named no longer: her word does not count, nor does it after a restart.
    cluster.name_experts(brazil, &[(&ana, "Ana"), (&rui, "Rui")]);
    assert_eq!(cluster.ends(offer), DENIED);
    cluster.restart(0);
    cluster.run();
    assert_eq!(cluster.ends(offer), DENIED);
}

#[test]
fn a_refusal_that_runs_out_does_not_bring_an_earlier_yes_back() {
    let mut cluster = Cluster::pair();
    let one = key(210);
    house(&mut cluster, 0, "duty export approval(1)", &[one.public()]);
    let offer = cluster.offer(0, &[Label::Public]);
    let yes = cluster.approval(PackOwner::House, 30 * DAY);
    assert!(matches!(cluster.approve(0, &yes, &[&one]), Reply::Adopted { accepted: 1, .. }));
    assert_eq!(cluster.ends(offer), DONE);
    cluster.let_pass(1000);
    let no = Approval { granted: false, reason: "not yet".into(), ..cluster.approval(PackOwner::House, HOUR) };
    assert!(matches!(cluster.approve(0, &no, &[&one]), Reply::Adopted { accepted: 1, .. }));
    assert_eq!(cluster.ends(offer), DENIED);
    cluster.advance_to(cluster.now.plus_ms(2 * HOUR));
    assert_eq!(cluster.ends(offer), DENIED, "a no stands until the same person says yes");
    cluster.restart(0);
    cluster.run();
    assert_eq!(cluster.ends(offer), DENIED);
    let again = cluster.approval(PackOwner::House, DAY);
    assert!(matches!(cluster.approve(0, &again, &[&one]), Reply::Adopted { accepted: 1, .. }));
    assert_eq!(cluster.ends(offer), DONE);
}
