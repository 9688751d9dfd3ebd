//! The importer's end of a crossing: decided here first, asked, cleared, verified, delivered, settled.

use std::{collections::BTreeSet, path::PathBuf};

use super::{
    BulkFailure, BulkOrder, Core, Effects, PartTaken, RequestId,
    admin::{CrossingState, CrossingView, Failure, FailureKind, LocalModel, PullCall, Reply, Side},
};
use crate::{
    authority::Accreditation,
    border::{Attempt, Border, Counted, Decision, Declined, Denial, NotCleared, Portion, Root, Training},
    core::{offers::Offers, sources::Wanted},
    crossing::{CrossingRequest, Receipt, Refusal, RefusalCode},
    envelope::{Signed, kind_of},
    gate::Gate,
    id::{CrossingId, SessionBinding, StatementId},
    key::PublicKey,
    ledger::Record,
    limits,
    offer::{Offer, Offered},
    time::Timestamp,
    training::Attestation,
    trust::Course,
    vocabulary::{Circumstance, Purpose, Use},
};

/// A crossing that this node pulls now.
#[derive(Debug)]
pub(super) struct Pull {
    /// The first crossing for what the operator asked for; this one, or one that it shares the work with.
    pub(super) lead: CrossingId,
    offer: Signed<Offer>,
    exporter: Signed<Accreditation>,
    purpose: Purpose,
    use_: Use,
    circumstances: BTreeSet<Circumstance>,
    safeguards: Vec<serde_bytes::ByteBuf>,
    portion: Portion,
    /// The attestation of where it was trained that came with the clearance; none before that.
    training: Option<Attestation>,
    /// What the exporter says that it counted; until then, this artefact alone.
    counted: Counted,
    pub(super) to: PathBuf,
    pub(super) began: Timestamp,
    /// When the first of the papers that it rests on runs out.
    pub(super) papers_until: Timestamp,
    /// Why it was ended while it was being put in place; its last event is awaited.
    pub(super) ended: Option<String>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Reaching,
    Asked { request: Signed<CrossingRequest> },
    Receiving { clearance: StatementId },
    Delivering { receipt: Signed<Receipt>, part: Option<PartTaken> },
    Delivered { receipt: Signed<Receipt> },
}

impl Pull {
    pub(super) fn new(
        lead: CrossingId,
        call: &PullCall,
        offer: Signed<Offer>,
        exporter: Signed<Accreditation>,
        now: Timestamp,
    ) -> Self {
        let portion = match &offer.body().what {
            Offered::Model(model) if !call.tensors.is_empty() => Portion::allowed_of(model),
            Offered::Model(_) | Offered::Compute(_) => Portion::All,
        };
        Self {
            lead,
            counted: Counted::NOTHING,
            training: None,
            portion,
            offer,
            exporter,
            purpose: call.purpose,
            use_: call.use_,
            circumstances: call.circumstances.clone(),
            safeguards: call.safeguards.clone(),
            to: call.to.clone(),
            began: now,
            papers_until: Timestamp(u64::MAX),
            ended: None,
            stage: Stage::Reaching,
        }
    }

    pub(super) fn offer(&self) -> &Signed<Offer> {
        &self.offer
    }

    pub(super) fn exporter(&self) -> PublicKey {
        self.offer.body().node
    }

    pub(super) fn attempt<'a>(&'a self, me: &'a Signed<Accreditation>, root: Option<Root<'a>>) -> Attempt<'a> {
        Attempt {
            course: self.course(),
            exporter: &self.exporter,
            importer: me,
            offer: &self.offer,
            root,
            portion: &self.portion,
            purpose: self.purpose,
            use_: self.use_,
            circumstances: &self.circumstances,
            counted: self.counted,
            safeguards: &self.safeguards,
            training: match self.stage {
                Stage::Reaching | Stage::Asked { .. } => Training::Claimed,
                Stage::Receiving { .. } | Stage::Delivering { .. } | Stage::Delivered { .. } => {
                    Training::Shown(self.training.as_ref())
                }
            },
        }
    }

    /// It runs once both sides have allowed it; what is only asked for is decided as if it were new.
    fn course(&self) -> Course {
        match self.stage {
            Stage::Reaching | Stage::Asked { .. } => Course::New,
            Stage::Receiving { .. } | Stage::Delivering { .. } | Stage::Delivered { .. } => Course::Running,
        }
    }

    /// Once the artefact is in place nothing can be taken back.
    pub(super) fn is_delivered(&self) -> bool {
        matches!(self.stage, Stage::Delivered { .. })
    }

    /// Being put in place cannot be cut, so it is known only afterwards whether it was.
    pub(super) fn is_being_delivered(&self) -> bool {
        matches!(self.stage, Stage::Delivering { .. })
    }

    /// Whether this side would still allow it now.
    pub(super) fn still_allowed(
        &self,
        border: &Border<'_>,
        me: &Signed<Accreditation>,
        offers: &Offers,
        root: Option<Root<'_>>,
    ) -> Result<(), Denial> {
        if offers.is_withdrawn(self.offer.id()) {
            return Err(Denial { code: RefusalCode::NoOffer, problem: "the offer was withdrawn".to_owned() });
        }
        border.decide(&self.attempt(me, root)).denial.map_or(Ok(()), Err)
    }
}

impl Core {
    /// The operator wants an artefact. This side decides before anybody is asked.
    pub(super) fn pull(&mut self, id: RequestId, call: PullCall, now: Timestamp, gate: &dyn Gate, effects: &mut Effects) {
        let reply = match self.begin_pull(call, now, gate, effects) {
            Ok(crossing) => Reply::Pulling { crossing },
            Err(failure) => Reply::Failed(failure),
        };
        effects.replies.push((id, reply));
    }

    fn begin_pull(
        &mut self,
        call: PullCall,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) -> Result<CrossingId, Failure> {
        let fail = |kind, message: String| Failure { kind, message };
        let offer = self.find_offer(&call.offer, now)?;
        let body = offer.body();
        let Offered::Model(model) = &body.what else {
            let message = format!("`{}` is an offer of compute; only models and other artefacts can be pulled", body.name);
            return Err(fail(FailureKind::Usage, message));
        };
        if body.node == self.me() {
            return Err(fail(FailureKind::Usage, format!("`{}` is this node's own offer", body.name)));
        }
        if !call.to.is_absolute() {
            return Err(fail(FailureKind::Usage, format!("`{}` is not an absolute path", call.to.display())));
        }
        if call.safeguards.len() > limits::SAFEGUARDS_PER_REQUEST_MAX {
            let message = format!("at most {} safeguards may be presented", limits::SAFEGUARDS_PER_REQUEST_MAX);
            return Err(fail(FailureKind::Usage, message));
        }
        if call.tensors.len() > limits::TENSOR_PATTERNS_MAX {
            let message = format!("at most {} patterns say what is wanted", limits::TENSOR_PATTERNS_MAX);
            return Err(fail(FailureKind::Usage, message));
        }
        if call.onward && !call.tensors.is_empty() {
            let message = "a part of a model is not offered on; pull all of it, or do not offer it on".to_owned();
            return Err(fail(FailureKind::Usage, message));
        }
        if call.onward {
            let root = self.offers.root_of(body).map_or(body, Signed::body);
            self.may_offer_on(root).map_err(|why| fail(FailureKind::Usage, why))?;
        }
        if self.running() >= limits::CROSSINGS_RUNNING_MAX {
            let message = format!("{} crossings are running; wait for one to end", self.running());
            return Err(fail(FailureKind::Busy, message));
        }
        if self.is_unconfirmed(now) {
            let why = self.ledger_problem(now).map_or_else(String::new, |denial| denial.problem);
            return Err(fail(FailureKind::Busy, format!("nothing can be pulled yet: {why}")));
        }
        if self.pulls.values().any(|pull| pull.to == call.to) {
            return Err(fail(FailureKind::Conflict, format!("another pull is writing to `{}`", call.to.display())));
        }
        let Some(known) = self.peers.get(&body.node) else {
            let message = format!("the node that offers `{}` is not known here now; try again later", body.name);
            return Err(fail(FailureKind::NotFound, message));
        };
        let crossing = self.randomness.crossing();
        let pull = Pull::new(crossing, &call, offer.clone(), known.accreditation.clone(), now);
        let (peer, name, manifest) = (body.node, body.name.clone(), model.manifest);
        let decision = self.border(gate, now).decide(&pull.attempt(&self.accreditation, self.root_of(body)));
        if decision.denial.is_some() {
            let partial = pull.portion != Portion::All;
            let record = Record::RequestDenied { crossing, name, offer: offer.id(), peer, manifest, partial, decision };
            self.record(record, now, effects);
            return Ok(crossing);
        }
        self.wanted.insert(crossing, Wanted::new(call, &offer, model.clone()));
        self.set_out(crossing, pull, decision, now, gate, effects);
        self.ask_more_sources(now, gate, effects);
        Ok(crossing)
    }

    /// The newest standing offer of this name, or the offer of this id.
    fn find_offer(&self, wanted: &str, now: Timestamp) -> Result<Signed<Offer>, Failure> {
        let fail = |message| Failure { kind: FailureKind::NotFound, message };
        if let Ok(id) = wanted.parse::<StatementId>() {
            let offer = self.offers.get(id).cloned();
            let gone = if self.offers.is_withdrawn(id) {
                "was withdrawn by its node"
            } else {
                "does not stand or is not known here"
            };
            return offer.ok_or_else(|| fail(format!("the offer {wanted} {gone}")));
        }
        let named =
            self.offers.iter().filter(|offer| offer.body().name == wanted && offer.body().validity.check(now).is_ok());
        // What others offer on is found through the offer that it goes back to.
        let named = named.filter(|offer| offer.body().root.is_none());
        let (own, others): (Vec<_>, Vec<_>) = named.partition(|offer| offer.body().node == self.me());
        let newest = others.iter().copied().max_by_key(|offer| offer.body().validity.from);
        let Some(newest) = newest.or_else(|| own.first().copied()) else {
            return Err(fail(format!(
                "no offer named `{wanted}` stands; it may have expired or been withdrawn (`alliance offer list`)"
            )));
        };
        if others.iter().any(|offer| offer.body().node != newest.body().node) {
            // Two authorities may have accredited organisations of one name; which is meant is not for this node to guess.
            let ids: Vec<_> = others.iter().map(|offer| offer.id().to_string()).collect();
            let message = format!("several nodes offer `{wanted}`; pull one by its id: {}", ids.join(", "));
            return Err(Failure { kind: FailureKind::Conflict, message });
        }
        Ok(newest.clone())
    }

    /// The exporter is connected: this side decides again, records, and asks.
    pub(super) fn reached(
        &mut self,
        crossing: CrossingId,
        session: SessionBinding,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let Some(pull) = self.pulls.get(&crossing).filter(|pull| matches!(pull.stage, Stage::Reaching)) else { return };
        let root = self.root_of(pull.offer.body());
        let attempt = pull.attempt(&self.accreditation, root);
        let border = self.border(gate, now);
        let decision = border.decide(&attempt);
        let ahead = decision.denial.is_none() && border.is_settled(&attempt);
        let offer = pull.offer.body();
        let (name, offer_id, peer) = (offer.name.clone(), pull.offer.id(), offer.node);
        let Offered::Model(model) = &offer.what else { return };
        let manifest = model.manifest;
        if decision.denial.is_some() {
            let partial = pull.portion != Portion::All;
            self.forget_pull(crossing);
            effects.bulk.push(BulkOrder::AbortPull { crossing, code: RefusalCode::Ended });
            let record = Record::RequestDenied { crossing, name, offer: offer_id, peer, manifest, partial, decision };
            return self.record(record, now, effects);
        }
        let request = CrossingRequest {
            crossing,
            importer: self.me(),
            exporter: peer,
            offer: offer_id,
            manifest,
            parts: (pull.portion != Portion::All).then(|| decision.allowed_parts()),
            purpose: pull.purpose,
            use_: pull.use_,
            circumstances: pull.circumstances.clone(),
            safeguards: pull.safeguards.clone(),
            accreditation: self.accreditation.bytes().to_vec(),
            verdicts: decision.digest(),
            session,
            ledger: self.witnessing.head(),
            asked: now,
        };
        let (offer_bytes, to) = (pull.offer.bytes().to_vec(), pull.to.clone());
        let request = match Signed::sign(&request, self.trust.alliance(), &self.key) {
            Ok(request) => request,
            Err(error) => {
                let failure = BulkFailure::Protocol(format!("the request cannot be made: {error}"));
                effects.bulk.push(BulkOrder::AbortPull { crossing, code: RefusalCode::BadRequest });
                return self.pull_failed(crossing, &failure, now, effects);
            }
        };
        let bytes = request.bytes().to_vec();
        let record =
            Record::Requested { crossing, request: bytes.clone().into(), offer: offer_bytes.into(), name, decision, to };
        self.record(record, now, effects);
        effects.bulk.push(BulkOrder::Ask { crossing, request: bytes, ahead });
        if let Some(pull) = self.pulls.get_mut(&crossing) {
            pull.stage = Stage::Asked { request };
        }
    }

    /// The exporter answered: a clearance lets the bytes in, if it is for this request and this side still allows.
    pub(super) fn answered(
        &mut self,
        crossing: CrossingId,
        answer: &[u8],
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let Some(Pull { stage: Stage::Asked { request }, .. }) = self.pulls.get(&crossing) else { return };
        let request = request.clone();
        if kind_of(answer).is_ok_and(|kind| kind == <Refusal as crate::envelope::Statement>::KIND) {
            return self.refused(crossing, &request, answer, now, effects);
        }
        let Some(pull) = self.pulls.get(&crossing) else { return };
        let root = self.root_of(pull.offer.body());
        match self.border(gate, now).clear_import(&request, &pull.attempt(&self.accreditation, root), answer) {
            Ok(importing) => {
                let lead = pull.lead;
                let clearance = importing.clearance.bytes().to_vec().into();
                let decision = importing.decision;
                self.record(Record::ClearanceAccepted { crossing, clearance, decision }, now, effects);
                effects.bulk.push(BulkOrder::Receive { crossing, inbound: importing.inbound });
                if let Some(pull) = self.pulls.get_mut(&crossing) {
                    let given = importing.clearance.body();
                    (pull.counted, pull.portion) = (Counted::Said(given.volume), Portion::cleared(given.parts.as_ref()));
                    pull.training = importing.training;
                    pull.stage = Stage::Receiving { clearance: importing.clearance.id() };
                }
                if let Some(wanted) = self.wanted.get_mut(&lead) {
                    wanted.cleared = true;
                }
                self.offer_on(lead, now, effects);
                self.widen(crossing, now, gate, effects);
            }
            Err(NotCleared::Declined(declined)) => self.declined(crossing, *declined, now, effects),
            Err(error) => {
                effects.bulk.push(BulkOrder::AbortPull { crossing, code: RefusalCode::BadRequest });
                self.pull_failed(crossing, &BulkFailure::Protocol(error.to_string()), now, effects);
            }
        }
    }

    /// With what the exporter counted, or with the proof that it gave, or by now, this side's answer is no.
    fn declined(&mut self, crossing: CrossingId, declined: Declined, now: Timestamp, effects: &mut Effects) {
        let Declined { clearance, decision } = declined;
        self.forget_pull(crossing);
        self.take_back_onward(now, effects);
        let code = decision.denial.as_ref().map_or(RefusalCode::Ended, |denial| denial.code);
        effects.bulk.push(BulkOrder::AbortPull { crossing, code });
        let clearance = clearance.bytes().to_vec().into();
        self.record(Record::ClearanceDeclined { crossing, clearance, decision }, now, effects);
    }

    fn refused(
        &mut self,
        crossing: CrossingId,
        request: &Signed<CrossingRequest>,
        answer: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let asked = request.body();
        let refusal = Signed::<Refusal>::open(answer, self.trust.alliance());
        let genuine = refusal.is_ok_and(|refusal| {
            let body = refusal.body();
            refusal.signed_only_by(&asked.exporter) && body.crossing == crossing && body.request == request.id()
        });
        self.forget_pull(crossing);
        self.take_back_onward(now, effects);
        effects.bulk.push(BulkOrder::AbortPull { crossing, code: RefusalCode::Ended });
        let record = if genuine {
            Record::RefusalAccepted { crossing, refusal: answer.to_vec().into() }
        } else {
            let problem =
                "the exporter's refusal does not answer the request; it may not know this node's accreditation".to_owned();
            Record::CrossingFailed { crossing, side: Side::Importer, bytes: 0, problem, tampered: false }
        };
        self.record(record, now, effects);
    }

    /// Everything is verified and on disk: bytes that this crossing moved, and those that were here. If this side still allows,
    /// it is delivered, and the receipt signed.
    pub(super) fn received(
        &mut self,
        crossing: CrossingId,
        (bytes, held_bytes): (u64, u64),
        part: Option<PartTaken>,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let Some(pull) = self.pulls.get(&crossing) else { return };
        let Stage::Receiving { clearance } = pull.stage else { return };
        let Offered::Model(model) = &pull.offer.body().what else { return };
        if part.is_some() != (pull.portion != Portion::All) {
            // A part that were taken for the whole would be registered, and could be offered on.
            let failure = BulkFailure::Protocol("what came is not the portion that was cleared".to_owned());
            effects.bulk.push(BulkOrder::AbortPull { crossing, code: RefusalCode::Ended });
            return self.pull_failed(crossing, &failure, now, effects);
        }
        let root = self.root_of(pull.offer.body());
        let denial = pull.still_allowed(&self.border(gate, now), &self.accreditation, &self.offers, root).err();
        let receipt = Receipt {
            crossing,
            clearance,
            exporter: pull.offer.body().node,
            importer: self.me(),
            manifest: model.manifest,
            bytes,
            held_bytes,
            ledger: self.witnessing.head(),
            finished: now,
        };
        let receipt = match (denial, Signed::sign(&receipt, self.trust.alliance(), &self.key)) {
            (None, Ok(receipt)) => receipt,
            (denial, _) => {
                let why = denial.map_or_else(|| "the receipt cannot be made".to_owned(), |denial| denial.problem);
                effects.bulk.push(BulkOrder::AbortPull { crossing, code: RefusalCode::Ended });
                return self.end_pull(crossing, format!("not delivered: {why}"), false, now, effects);
            }
        };
        let record = Record::Received { crossing, receipt: receipt.bytes().to_vec().into(), part: part.clone() };
        self.record(record, now, effects);
        effects.bulk.push(BulkOrder::Deliver { crossing, receipt: receipt.bytes().to_vec() });
        self.history.progress(crossing, bytes, bytes);
        if let Some(pull) = self.pulls.get_mut(&crossing) {
            pull.stage = Stage::Delivering { receipt, part };
        }
    }

    /// The artefact is in place.
    pub(super) fn delivered(&mut self, crossing: CrossingId, now: Timestamp, effects: &mut Effects) {
        let Some(pull) = self.pulls.get_mut(&crossing) else { return };
        let Stage::Delivering { receipt, part } = &pull.stage else { return };
        let is_part = part.is_some();
        pull.stage = Stage::Delivered { receipt: receipt.clone() };
        let offer = pull.offer.body();
        let Offered::Model(model) = &offer.what else { return };
        let model = LocalModel {
            name: offer.name.clone(),
            manifest: model.manifest,
            artefact: model.artefact,
            labels: model.labels.clone(),
            parts: model.parts.clone(),
            origin: model.origin,
            subjects: model.subjects.clone(),
            provenance: model.provenance.clone(),
            licence: model.licence.clone(),
            bytes: model.bytes,
            files: model.files,
            tensors: model.tensors,
            path: pull.to.clone(),
            crossing: Some(crossing),
            signed: None,
        };
        if let Some(wanted) = self.wanted.get_mut(&pull.lead) {
            wanted.delivered = true;
        }
        if is_part {
            return self.record(Record::PartDelivered { crossing }, now, effects);
        }
        self.keep_model(&model);
        self.record(Record::ModelImported { model }, now, effects);
    }

    /// The exporter's signature came under the receipt.
    pub(super) fn settled(&mut self, crossing: CrossingId, bytes: &[u8], now: Timestamp, effects: &mut Effects) {
        let Some(Pull { stage: Stage::Delivered { receipt: mine }, offer, .. }) = self.pulls.get(&crossing) else { return };
        let exporter = offer.body().node;
        let both = Signed::<Receipt>::open(bytes, self.trust.alliance()).is_ok_and(|receipt| {
            receipt.id() == mine.id()
                && receipt.signers().len() == 2
                && receipt.signed_by(&exporter)
                && receipt.signed_by(&self.key.public())
        });
        if both {
            self.forget_pull(crossing);
            self.record(Record::Settled { crossing, receipt: bytes.to_vec().into() }, now, effects);
        } else {
            let failure = BulkFailure::Protocol("the receipt came back without both signatures".to_owned());
            self.pull_failed(crossing, &failure, now, effects);
        }
    }

    /// The pull ended early; what was delivered before that stays delivered.
    pub(super) fn pull_failed(
        &mut self,
        crossing: CrossingId,
        failure: &BulkFailure,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let tampered = matches!(failure, BulkFailure::Tampered(_) | BulkFailure::EndedByPeer(RefusalCode::Damaged));
        if matches!(failure, BulkFailure::Lost(_) | BulkFailure::Unreachable(_)) {
            self.ask_again_later(crossing, now);
        }
        self.end_pull(crossing, failure.to_string(), tampered, now, effects);
    }

    pub(super) fn end_pull(
        &mut self,
        crossing: CrossingId,
        problem: String,
        tampered: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(pull) = self.forget_pull(crossing) else { return };
        self.take_back_onward(now, effects);
        let problem = pull.ended.unwrap_or(problem);
        if matches!(pull.stage, Stage::Reaching) {
            // Nothing was asked of anybody, so there is nothing in the ledger that this could end.
            self.history.fail_unasked(crossing, problem, now);
            return;
        }
        let bytes = self.history.bytes(crossing);
        self.record(Record::CrossingFailed { crossing, side: Side::Importer, bytes, problem, tampered }, now, effects);
    }
}

pub(super) fn reaching(
    crossing: CrossingId,
    pull: &Pull,
    name: String,
    decision: Decision,
    now: Timestamp,
    total: u64,
) -> CrossingView {
    let offer = pull.offer.body();
    let manifest = match &offer.what {
        Offered::Model(model) => model.manifest,
        Offered::Compute(_) => crate::id::ManifestId([0; 32]),
    };
    CrossingView {
        crossing,
        side: Side::Importer,
        state: CrossingState::Reaching,
        peer: offer.node,
        offer: pull.offer.id(),
        name,
        manifest,
        facts: decision.facts,
        verdicts: decision.verdicts,
        parts: decision.parts,
        partial: pull.portion != Portion::All,
        left_out: decision.left_out,
        against: decision.against,
        part: None,
        refusal: None,
        problem: None,
        safeguards_ignored: decision.ignored,
        began: now,
        ended: None,
        bytes: 0,
        total,
        to: Some(pull.to.clone()),
        lead: (pull.lead != crossing).then_some(pull.lead),
        delete_by: None,
        deleted: None,
    }
}
