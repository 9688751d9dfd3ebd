//! An importer that faces a lying exporter, and an exporter that faces a lying receipt.

use alliance_protocol::{
    core::{BulkEvent, BulkOrder, Effects, admin::CrossingState},
    crossing::{ClearanceGiven, CrossingRequest, Receipt, Refusal, RefusalCode},
    envelope::Signed,
    gate::Volume,
    id::{CrossingId, ManifestId, SessionBinding, StatementId},
    key::SecretKey,
    ledger::Record,
    time::Validity,
    vocabulary::{Label, Purpose},
};

use crate::{
    alliance::{DAWN, HOUR, SECOND, STATUS_MS, country, some_id, stranger},
    cluster::{Cluster, MODEL_BYTES},
    routes::Said,
};

/// A pull whose request is on its way to the exporter, and an exporter's key to answer it with.
pub(crate) struct Asking {
    pub(crate) cluster: Cluster,
    pub(crate) crossing: CrossingId,
    pub(crate) request: Signed<CrossingRequest>,
    exporter: SecretKey,
}

impl Asking {
    fn begin() -> Self {
        let mut cluster = Cluster::pair();
        let offer = cluster.offer(0, &[Label::Public, Label::Health]);
        let crossing = cluster.pull(1, offer);
        Self::under_way(cluster, crossing)
    }

    /// A pull that has begun, of node 1 from node 0.
    pub(crate) fn under_way(mut cluster: Cluster, crossing: CrossingId) -> Self {
        let Said::Asked { request, .. } = cluster.run_to("asked").said else { panic!("asked") };
        let request = Signed::open(&request, cluster.alliance.id).expect("a request");
        let exporter = cluster.nodes[0].key();
        cluster.nodes[0].lies = true;
        Self { cluster, crossing, request, exporter }
    }

    /// The clearance that an honest exporter would give.
    pub(crate) fn clearance(&self) -> ClearanceGiven {
        let asked = self.request.body();
        ClearanceGiven {
            crossing: asked.crossing,
            request: self.request.id(),
            exporter: asked.exporter,
            importer: asked.importer,
            manifest: asked.manifest,
            labels: [Label::Public, Label::Health].into(),
            parts: None,
            purpose: asked.purpose,
            epochs: vec![(country("BR"), 1), (country("IN"), 1)],
            people: None,
            volume: Volume::of(&[Label::Public, Label::Health].into(), None),
            session: asked.session,
            ledger: asked.ledger,
            training: None,
            validity: Validity::lasting_ms(self.cluster.now, 60 * SECOND),
        }
    }

    pub(crate) fn signed(&self, clearance: &ClearanceGiven) -> Vec<u8> {
        self.cluster.alliance.signed(&self.exporter, clearance).bytes().to_vec()
    }

    pub(crate) fn answer(&mut self, answer: Vec<u8>) -> Effects {
        self.cluster.tell_bulk(1, BulkEvent::Answered { crossing: self.crossing, answer })
    }

    /// Nothing is taken, both that and what was decided are recorded, and the exporter gets a code.
    #[track_caller]
    pub(crate) fn assert_declined(&mut self, effects: &Effects, code: RefusalCode, reason: &str) {
        let [BulkOrder::AbortPull { code: told, .. }] = &effects.bulk[..] else { panic!("{:?}", effects.bulk) };
        assert_eq!(*told, code);
        let [Record::ClearanceDeclined { decision, .. }] = &effects.persist[..] else { panic!("{:?}", effects.persist) };
        assert_eq!(decision.denial.as_ref().map(|denial| denial.code), Some(code));
        let view = self.cluster.view(1, self.crossing);
        assert_eq!((view.state, view.refusal, &view.verdicts), (CrossingState::Denied, Some(code), &decision.verdicts));
        let why = view.problem.expect("a reason");
        assert!(why.contains(reason), "`{why}` instead of `{reason}`");
    }

    /// Nothing is taken, the pull is given up, and the record says why.
    #[track_caller]
    pub(crate) fn assert_not_taken(&mut self, effects: &Effects, reason: &str) {
        assert!(matches!(effects.bulk[..], [BulkOrder::AbortPull { .. }]), "{:?}", effects.bulk);
        assert!(matches!(effects.persist[..], [Record::CrossingFailed { .. }]), "{:?}", effects.persist);
        let view = self.cluster.view(1, self.crossing);
        assert_eq!(view.state, CrossingState::Failed);
        let why = view.problem.expect("a reason");
        assert!(why.contains(reason), "`{why}` instead of `{reason}`");
    }
}

#[test]
fn the_honest_clearance_is_taken_and_only_once() {
    let mut asking = Asking::begin();
    let honest = asking.signed(&asking.clearance());
    let effects = asking.answer(honest.clone());
    assert!(matches!(effects.bulk[..], [BulkOrder::Receive { .. }]), "{:?}", effects.bulk);
    let BulkOrder::Receive { inbound, .. } = &effects.bulk[0] else { panic!("receives") };
    assert_eq!((inbound.exporter(), inbound.manifest()), (asking.exporter.public(), ManifestId([7; 32])));
    let again = asking.answer(honest);
    assert!(again.bulk.is_empty() && again.persist.is_empty(), "{:?}", again.bulk);
}

#[test]
fn a_clearance_of_anything_else_lets_nothing_in() {
    type Change = fn(&mut ClearanceGiven);
    let cases: &[(&str, Change)] = &[
        ("its crossing", |given| given.crossing = CrossingId([1; 32])),
        ("its request", |given| given.request = some_id(1)),
        ("its signer", |given| given.exporter = stranger().public()),
        ("its importer", |given| given.importer = stranger().public()),
        ("its manifest", |given| given.manifest = ManifestId([1; 32])),
        ("its labels", |given| given.labels = [Label::Public].into()),
        ("its labels", |given| given.labels.extend([Label::StateSecret])),
        ("its purpose", |given| given.purpose = Purpose::Commercial),
        ("its session", |given| given.session = SessionBinding([1; 32])),
        ("it ran out", |given| given.validity.until = DAWN),
        ("not valid before", |given| given.validity = Validity::lasting_ms(DAWN.plus_ms(HOUR), SECOND)),
    ];
    for (reason, change) in cases {
        let mut asking = Asking::begin();
        let mut given = asking.clearance();
        change(&mut given);
        let effects = asking.answer(asking.signed(&given));
        asking.assert_not_taken(&effects, reason);
    }
}

#[test]
fn a_clearance_that_another_signed_lets_nothing_in() {
    let signers: [(&[SecretKey], &str); 2] =
        [(&[stranger()], "its signer"), (&[crate::alliance::key(100), stranger()], "2 signatures")];
    for (keys, reason) in signers {
        let mut asking = Asking::begin();
        let draft = alliance_protocol::envelope::Draft::new(&asking.clearance(), asking.cluster.alliance.id);
        let signed = keys.iter().fold(draft, alliance_protocol::envelope::Draft::sign).to_bytes();
        let effects = asking.answer(signed);
        asking.assert_not_taken(&effects, reason);
    }
}

#[test]
fn an_answer_that_is_no_clearance_lets_nothing_in() {
    let mut asking = Asking::begin();
    let mut altered = asking.signed(&asking.clearance());
    altered[100] ^= 1;
    let request = asking.request.bytes().to_vec();
    for answer in [Vec::new(), altered, request] {
        let mut asking = Asking::begin();
        let effects = asking.answer(answer);
        asking.assert_not_taken(&effects, "not a clearance");
    }
    // An honest answer that comes too late, to a pull that was given up.
    let honest = asking.signed(&asking.clearance());
    asking.answer(Vec::new());
    let effects = asking.answer(honest);
    assert!(effects.bulk.is_empty() && effects.persist.is_empty());
}

#[test]
fn a_clearance_for_a_law_that_has_run_out_meanwhile_lets_nothing_in() {
    // The node has not been woken since; the door looks at the clock itself.
    let mut asking = Asking::begin();
    asking.cluster.let_pass(STATUS_MS);
    let effects = asking.answer(asking.signed(&asking.clearance()));
    asking.assert_declined(&effects, RefusalCode::Stale, "the status of");
}

/// What only the exporter knows is in its answer; before that, nothing is wanted of it where it can change the decision here.
#[test]
fn what_the_exporter_counted_can_make_the_answer_here_a_no() {
    for (labels, law, ahead) in [
        ([Label::Public, Label::Health], "", true),
        ([Label::Public, Label::Health], "deny-people import 40000", false),
        // A rule that the least and the most pass, and something in between does not.
        ([Label::Public, Label::NonPersonal], "deny-people-within import 100 200", false),
        ([Label::Public, Label::NonPersonal], "deny-people export 40000", true),
        ([Label::Public, Label::NonPersonal], "", true),
        ([Label::Public, Label::NonPersonal], "deny-people import 40000", false),
    ] {
        let mut cluster = Cluster::pair();
        cluster.enact(country("IN"), law);
        let offer = cluster.offer(0, &labels);
        let crossing = cluster.pull(1, offer);
        let Said::Reached { crossing: of, session } = cluster.run_to("reached").said else { panic!("reached") };
        assert_eq!(of, crossing);
        let effects = cluster.tell_bulk(1, BulkEvent::Reached { crossing, session });
        let [BulkOrder::Ask { ahead: may, .. }] = effects.bulk[..] else { panic!("{:?}", effects.bulk) };
        assert_eq!(may, ahead);
    }
}

#[test]
fn a_law_that_changes_between_request_and_clearance_ends_the_pull() {
    let mut asking = Asking::begin();
    asking.cluster.enact(country("IN"), "deny import label:health");
    assert_eq!(asking.cluster.state(1, asking.crossing), CrossingState::Failed);
    let honest = asking.signed(&asking.clearance());
    let effects = asking.answer(honest);
    assert!(effects.bulk.is_empty() && effects.persist.is_empty());
}

#[test]
fn what_was_received_under_a_law_that_has_run_out_is_not_delivered() {
    let mut asking = Asking::begin();
    let honest = asking.signed(&asking.clearance());
    asking.answer(honest);
    asking.cluster.let_pass(STATUS_MS);
    let crossing = asking.crossing;
    let effects =
        asking.cluster.tell_bulk(1, BulkEvent::Received { crossing, bytes: MODEL_BYTES, held_bytes: 0, part: None });
    asking.assert_not_taken(&effects, "not delivered");
}

#[test]
fn nothing_is_asked_where_the_law_has_run_out_while_connecting() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let reached = cluster.run_to("reached");
    cluster.let_pass(STATUS_MS);
    let input = cluster.input(reached);
    let effects = cluster.tell(1, input);
    assert!(matches!(effects.bulk[..], [BulkOrder::AbortPull { .. }]), "{:?}", effects.bulk);
    assert_eq!(cluster.view(1, crossing).refusal, Some(RefusalCode::Stale));
}

fn refusal(asking: &Asking) -> Refusal {
    Refusal {
        crossing: asking.crossing,
        request: asking.request.id(),
        exporter: asking.exporter.public(),
        code: RefusalCode::DeniedByTerms,
        at: asking.cluster.now,
    }
}

#[test]
fn a_refusal_is_taken_only_from_the_exporter_and_for_this_request() {
    let mut asking = Asking::begin();
    let honest = asking.cluster.alliance.signed(&asking.exporter, &refusal(&asking)).bytes().to_vec();
    let effects = asking.answer(honest);
    assert!(matches!(effects.persist[..], [Record::RefusalAccepted { .. }]));
    let view = asking.cluster.view(1, asking.crossing);
    assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(RefusalCode::DeniedByTerms)));

    type Change = fn(&mut Refusal);
    let cases: &[(Change, bool)] = &[
        (|refusal| refusal.crossing = CrossingId([1; 32]), true),
        (|refusal| refusal.request = some_id(1), true),
        (|_| {}, false),
    ];
    for (change, by_exporter) in cases {
        let mut asking = Asking::begin();
        let mut lie = refusal(&asking);
        change(&mut lie);
        let signer = if *by_exporter { crate::alliance::key(100) } else { stranger() };
        let answer = asking.cluster.alliance.signed(&signer, &lie).bytes().to_vec();
        let effects = asking.answer(answer);
        asking.assert_not_taken(&effects, "does not answer the request");
    }
}

/// A pull that is delivered, its receipt on its way to the exporter.
fn delivered() -> (Cluster, CrossingId, Signed<Receipt>) {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let Said::ReceiptOffered { receipt, .. } = cluster.run_to("receipt offered").said else { panic!("offered") };
    let receipt = Signed::open(&receipt, cluster.alliance.id).expect("a receipt");
    (cluster, crossing, receipt)
}

#[test]
fn a_receipt_settles_only_with_both_signatures() {
    let (cluster, crossing, mine) = delivered();
    let (exporter, importer) = (cluster.nodes[0].key(), cluster.nodes[1].key());
    let by = |body: &Receipt, keys: &[&SecretKey]| {
        let draft = alliance_protocol::envelope::Draft::new(body, cluster.alliance.id);
        keys.iter().fold(draft, |draft, key| draft.sign(key)).to_bytes()
    };
    let mut altered = mine.body().clone();
    altered.bytes += 1;
    let body = mine.body();
    let cases = [
        ("both", by(body, &[&exporter, &importer]), CrossingState::Done),
        ("the importer alone", mine.bytes().to_vec(), CrossingState::DoneUnsettled),
        ("the exporter alone", by(body, &[&exporter]), CrossingState::DoneUnsettled),
        ("a stranger for the exporter", by(body, &[&importer, &stranger()]), CrossingState::DoneUnsettled),
        ("a stranger for the importer", by(body, &[&exporter, &stranger()]), CrossingState::DoneUnsettled),
        ("a stranger beside them", by(body, &[&exporter, &importer, &stranger()]), CrossingState::DoneUnsettled),
        ("another receipt", by(&altered, &[&exporter, &importer]), CrossingState::DoneUnsettled),
        ("nothing", Vec::new(), CrossingState::DoneUnsettled),
    ];
    for (name, receipt, state) in cases {
        let (mut cluster, same, _) = delivered();
        assert_eq!(same, crossing, "the same seed, the same crossing");
        cluster.tell_bulk(1, BulkEvent::Settled { crossing, receipt });
        assert_eq!(cluster.state(1, crossing), state, "{name}");
    }
}

#[test]
fn the_exporter_signs_only_the_receipt_of_what_it_sent() {
    type Change = fn(&mut Receipt);
    let cases: &[(&str, Change)] = &[
        ("another crossing", |receipt| receipt.crossing = CrossingId([1; 32])),
        ("another crossing", |receipt| receipt.clearance = some_id(1)),
        ("other parties", |receipt| receipt.importer = stranger().public()),
        ("other parties", |receipt| receipt.exporter = stranger().public()),
        ("another manifest", |receipt| receipt.manifest = ManifestId([1; 32])),
        ("other bytes", |receipt| receipt.bytes -= 1),
        ("do not add up", |receipt| receipt.held_bytes = 1),
        ("do not add up", |receipt| receipt.held_bytes = u64::MAX),
    ];
    let offered = |sign: &dyn Fn(&Cluster, &Signed<Receipt>) -> Vec<u8>, reason: &str| {
        let mut cluster = Cluster::pair();
        let offer = cluster.offer(0, &[Label::Public]);
        let crossing = cluster.pull(1, offer);
        let Said::ReceiptOffered { ask, bytes, receipt } = cluster.run_to("receipt offered").said else {
            panic!("offered")
        };
        let honest = Signed::open(&receipt, cluster.alliance.id).expect("a receipt");
        let receipt = sign(&cluster, &honest);
        let effects = cluster.tell_bulk(0, BulkEvent::ReceiptOffered { ask, bytes, receipt });
        assert!(matches!(effects.bulk[..], [BulkOrder::AbortServe { .. }]), "{reason}: {:?}", effects.bulk);
        let view = cluster.view(0, crossing);
        assert_eq!(view.state, CrossingState::Failed);
        let why = view.problem.expect("a reason");
        assert!(why.contains(reason), "`{why}` instead of `{reason}`");
    };
    for (reason, change) in cases {
        let lie = |cluster: &Cluster, honest: &Signed<Receipt>| {
            let mut body = honest.body().clone();
            change(&mut body);
            cluster.alliance.signed(&cluster.nodes[1].key(), &body).bytes().to_vec()
        };
        offered(&lie, reason);
    }
    let by_stranger =
        |cluster: &Cluster, honest: &Signed<Receipt>| cluster.alliance.signed(&stranger(), honest.body()).bytes().to_vec();
    offered(&by_stranger, "not signed by the importer");
    offered(&|_, honest| honest.countersign(&stranger()).expect("signs").bytes().to_vec(), "not signed by the importer");
    offered(&|_, _| vec![0xa0], "not a receipt");
}

#[test]
fn a_receipt_of_a_resumed_pull_counts_what_was_held() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    let crossing = cluster.pull(1, offer);
    let mut received = cluster.run_to("received");
    received.said = Said::Received { crossing, bytes: 600, held_bytes: 400, part: None };
    cluster.deliver(received);
    let mut offered = cluster.run_to("receipt offered");
    if let Said::ReceiptOffered { bytes, .. } = &mut offered.said {
        *bytes = 600;
    }
    cluster.deliver(offered);
    cluster.run();
    let view = cluster.view(1, crossing);
    assert_eq!((view.state, view.bytes), (CrossingState::Done, 600));
    assert_eq!(cluster.state(0, crossing), CrossingState::Done);
}

#[test]
fn a_request_commits_to_the_recorded_verdicts() {
    let asking = Asking::begin();
    let recorded = asking.cluster.nodes[1].entries.iter().find_map(|entry| match &entry.record {
        Record::Requested { decision, .. } => Some(decision.digest()),
        _ => None,
    });
    let committed: StatementId = asking.request.body().verdicts;
    assert_eq!(recorded, Some(committed));
}
