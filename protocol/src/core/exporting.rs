//! The exporter's end of a crossing: asked, decided, recorded, cleared or refused; receipt or failure.

use super::{AskId, BulkFailure, BulkOrder, Core, Effects, admin::Side};
use crate::{
    authority::Accreditation,
    border::{Attempt, Border, Counted, Decision, Denial, Portion, Root, Training},
    core::offers::Offers,
    crossing::{ClearanceGiven, CrossingRequest, Receipt, Refusal, RefusalCode},
    envelope::Signed,
    gate::Gate,
    id::{CrossingId, ManifestId, SessionBinding},
    key::PublicKey,
    ledger::Record,
    limits,
    offer::{Offer, Offered},
    time::Timestamp,
    training::Attestation,
    trust::Course,
};

/// A crossing that this node serves now.
#[derive(Debug)]
pub(super) struct Export {
    request: Signed<CrossingRequest>,
    clearance: Signed<ClearanceGiven>,
    importer: Signed<Accreditation>,
    offer: Signed<Offer>,
    pub(super) began: Timestamp,
    /// When the first of the papers that it rests on runs out.
    pub(super) papers_until: Timestamp,
    /// Why it was ended while it ran; its last event is awaited.
    pub(super) ended: Option<String>,
}

impl Export {
    pub(super) fn crossing(&self) -> CrossingId {
        self.request.body().crossing
    }

    pub(super) fn importer(&self) -> &Accreditation {
        self.importer.body()
    }

    pub(super) fn offer(&self) -> &Signed<Offer> {
        &self.offer
    }

    /// Whether it would be cleared again now.
    pub(super) fn still_allowed(
        &self,
        border: &Border<'_>,
        me: &Signed<Accreditation>,
        offers: &Offers,
        root: Option<Root<'_>>,
        training: Option<&Attestation>,
    ) -> Result<(), Denial> {
        if offers.get(self.offer.id()).is_none() {
            return Err(Denial { code: RefusalCode::NoOffer, problem: "the offer ended or was withdrawn".to_owned() });
        }
        let body = self.request.body();
        let attempt = Attempt {
            course: Course::Running,
            exporter: me,
            importer: &self.importer,
            offer: &self.offer,
            root,
            portion: &Portion::cleared(self.clearance.body().parts.as_ref()),
            purpose: body.purpose,
            use_: body.use_,
            circumstances: &body.circumstances,
            // Counted when it was cleared.
            counted: Counted::Said(self.clearance.body().volume),
            safeguards: &body.safeguards,
            training: Training::Shown(training),
        };
        border.decide(&attempt).denial.map_or(Ok(()), Err)
    }
}

/// A request that was matched to its sender, its session and an offer of this node; law is asked next.
struct Asked {
    request: Signed<CrossingRequest>,
    importer: Signed<Accreditation>,
    offer: Signed<Offer>,
    path: std::path::PathBuf,
    /// Whether it is still on its way to there.
    arriving: bool,
}

/// A refusal before law was asked, with what was understood of the request.
struct Unasked {
    denial: Denial,
    request: Option<Signed<CrossingRequest>>,
    /// Whether an authority has ever accredited the asker: refusals of strangers are not recorded, so that nobody can fill
    /// the ledger.
    accredited: bool,
}

impl Core {
    /// A peer asks for a crossing.
    #[expect(clippy::too_many_arguments, reason = "the parts of one event, and time, law and effects")]
    pub(super) fn asked(
        &mut self,
        ask: AskId,
        peer: PublicKey,
        session: SessionBinding,
        bytes: &[u8],
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let asked = match self.match_request(peer, session, bytes, now) {
            Ok(asked) => asked,
            Err(unasked) => return self.refuse(ask, peer, bytes, *unasked, now, effects),
        };
        let body = asked.request.body();
        let people = match &asked.offer.body().what {
            Offered::Model(model) => model.provenance.people,
            Offered::Compute(_) => None,
        };
        let attempt = Attempt {
            course: Course::New,
            exporter: &self.accreditation,
            importer: &asked.importer,
            offer: &asked.offer,
            root: self.root_of(asked.offer.body()),
            portion: &Portion::asked(body.parts.as_ref()),
            purpose: body.purpose,
            use_: body.use_,
            circumstances: &body.circumstances,
            counted: self.volumes.before(body.manifest, people, now),
            safeguards: &body.safeguards,
            training: Training::Shown(self.attestation_of(asked.offer.body())),
        };
        let papers_until = self.border(gate, now).papers_until(&attempt);
        let head = self.witnessing.head();
        let cleared = self.border(gate, now).clear_export(&self.key, &asked.request, &attempt, session, head);
        let (crossing, name) = (body.crossing, asked.offer.body().name.clone());
        self.answered.insert(crossing, now);
        match cleared {
            Ok(exporting) => {
                let record = Record::Cleared {
                    crossing,
                    request: asked.request.bytes().to_vec().into(),
                    clearance: exporting.clearance.bytes().to_vec().into(),
                    name,
                    decision: exporting.decision,
                };
                self.record(record, now, effects);
                let clearance = exporting.clearance.bytes().to_vec();
                effects.bulk.push(BulkOrder::Serve {
                    ask,
                    clearance,
                    outbound: exporting.outbound,
                    path: asked.path,
                    arriving: asked.arriving,
                });
                let Asked { request, importer, offer, .. } = asked;
                let export = Export {
                    request,
                    clearance: exporting.clearance,
                    importer,
                    offer,
                    began: now,
                    papers_until,
                    ended: None,
                };
                self.next_round = self.next_round.min(papers_until);
                self.exports.insert(ask, export);
            }
            Err(decision) => self.refuse_recorded(ask, peer, Some(&asked.request), name, *decision, now, effects),
        }
    }

    /// Matches a request to its sender, this node, the session and a standing offer.
    fn match_request(
        &self,
        peer: PublicKey,
        session: SessionBinding,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<Asked, Box<Unasked>> {
        let stranger = |code, problem: String| {
            Box::new(Unasked { denial: Denial { code, problem }, request: None, accredited: false })
        };
        let request = Signed::<CrossingRequest>::open(bytes, self.trust.alliance())
            .map_err(|error| stranger(RefusalCode::BadRequest, error.to_string()))?;
        let body = request.body();
        if !(request.signed_only_by(&peer) && body.importer == peer) {
            return Err(stranger(RefusalCode::BadRequest, "the request is not signed by the peer that sent it".to_owned()));
        }
        let importer = self
            .trust
            .accreditation(&body.accreditation)
            .map_err(|error| stranger(RefusalCode::NotAccredited, error.to_string()))?;
        if importer.body().node != peer {
            let problem = "the accreditation is another node's".to_owned();
            return Err(stranger(RefusalCode::NotAccredited, problem));
        }

        let known = |code, problem: &str| {
            let denial = Denial { code, problem: problem.to_owned() };
            Box::new(Unasked { denial, request: Some(request.clone()), accredited: true })
        };
        let skew = limits::CLOCK_SKEW_MS_MAX;
        let bad = [
            (body.exporter != self.me(), "the request is for another exporter"),
            (body.session != session, "the request was signed for another session"),
            (
                body.asked > now.plus_ms(skew) || now > body.asked.plus_ms(2 * skew),
                "the request is too old or from the future",
            ),
            (
                self.answered.contains_key(&body.crossing) || self.history.get(body.crossing).is_some(),
                "a crossing of this id was answered before",
            ),
            (body.safeguards.len() > limits::SAFEGUARDS_PER_REQUEST_MAX, "the request presents too many safeguards"),
        ];
        if let Some((_, problem)) = bad.into_iter().find(|(wrong, _)| *wrong) {
            return Err(known(RefusalCode::BadRequest, problem));
        }
        let same_peer = |export: &&Export| export.request.body().importer == peer;
        if self.fruitless.is_spent(peer, now)
            || self.running() >= limits::CROSSINGS_RUNNING_MAX
            || self.exports.len() >= limits::CROSSINGS_SERVED_MAX
            || self.exports.values().filter(same_peer).count() >= limits::CROSSINGS_PER_PEER_MAX
        {
            return Err(known(RefusalCode::Busy, "too many crossings are running"));
        }
        let offer = self.offers.get(body.offer).filter(|offer| offer.body().node == self.me());
        let Some(offer) = offer else {
            let problem =
                if self.offers.is_withdrawn(body.offer) { "the offer was withdrawn" } else { "no such offer stands" };
            return Err(known(RefusalCode::NoOffer, problem));
        };
        if let Offered::Model(model) = &offer.body().what
            && !Portion::asked(body.parts.as_ref()).fits(model)
        {
            return Err(known(RefusalCode::BadRequest, "it asks for parts that the artefact does not have"));
        }
        let arrives_at = self.arrives_at(offer.body()).filter(|_| model_is(offer.body(), body.manifest));
        if let Some(path) = arrives_at.filter(|_| !self.lies_here_as(offer.body())) {
            return Ok(Asked { path: path.to_owned(), offer: offer.clone(), arriving: true, request, importer });
        }
        let (Offered::Model(model), Some(local)) = (&offer.body().what, self.models.get(&offer.body().name)) else {
            return Err(known(RefusalCode::NoOffer, "the offer is not of a model that lies here"));
        };
        if model.manifest != body.manifest || local.manifest != body.manifest {
            return Err(known(RefusalCode::NoOffer, "the manifest is not the one that is offered"));
        }
        if !local.is_offered_as(model) {
            return Err(known(RefusalCode::NoOffer, "the model was imported again with other facts than are offered"));
        }
        let (offer, path) = (offer.clone(), local.path.clone());
        Ok(Asked { request, importer, offer, path, arriving: false })
    }

    fn refuse(
        &mut self,
        ask: AskId,
        peer: PublicKey,
        bytes: &[u8],
        unasked: Unasked,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Unasked { denial, request, accredited } = unasked;
        if accredited {
            let decision = Decision { denial: Some(denial), ..Decision::default() };
            let offer = request.as_ref().and_then(|request| self.offers.get(request.body().offer));
            let name = offer.map(|offer| offer.body().name.clone()).unwrap_or_default();
            return self.refuse_recorded(ask, peer, request.as_ref(), name, decision, now, effects);
        }
        // The answer to a stranger binds to what it sent, and costs this node no record.
        let about = crate::id::StatementId(*blake3::hash(bytes).as_bytes());
        let refusal =
            Refusal { crossing: CrossingId(about.0), request: about, exporter: self.me(), code: denial.code, at: now };
        if let Ok(refusal) = Signed::sign(&refusal, self.trust.alliance(), &self.key) {
            effects.bulk.push(BulkOrder::Refuse { ask, refusal: refusal.bytes().to_vec() });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a refusal consists of, and time and effects")]
    fn refuse_recorded(
        &mut self,
        ask: AskId,
        peer: PublicKey,
        request: Option<&Signed<CrossingRequest>>,
        name: String,
        decision: Decision,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let code = decision.denial.as_ref().map_or(RefusalCode::BadRequest, |denial| denial.code);
        let Some(request) = request else {
            effects.bulk.push(BulkOrder::AbortServe { ask, code });
            return;
        };
        let crossing = request.body().crossing;
        let refusal = Refusal { crossing, request: request.id(), exporter: self.me(), code, at: now };
        let Ok(refusal) = Signed::sign(&refusal, self.trust.alliance(), &self.key) else {
            effects.bulk.push(BulkOrder::AbortServe { ask, code });
            return;
        };
        // The record of an earlier answer to the same crossing must not be overwritten by that of a replay.
        let replayed = self.history.get(crossing).is_some();
        if !replayed && !self.fruitless.admits(peer, now) {
            // It learns nothing and costs nothing until it comes more slowly.
            effects.bulk.push(BulkOrder::AbortServe { ask, code: RefusalCode::Busy });
            return;
        }
        self.answered.entry(crossing).or_insert(now);
        if !replayed {
            let record = Record::Refused {
                crossing,
                peer,
                request: request.bytes().to_vec().into(),
                refusal: refusal.bytes().to_vec().into(),
                name,
                decision,
            };
            self.record(record, now, effects);
        }
        effects.bulk.push(BulkOrder::Refuse { ask, refusal: refusal.bytes().to_vec() });
    }

    /// The importer presents the receipt that it signed.
    pub(super) fn receipt_offered(
        &mut self,
        ask: AskId,
        bytes: u64,
        receipt: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(export) = self.exports.remove(&ask) else { return };
        let crossing = export.crossing();
        if let Some(problem) = export.ended {
            // It was cut before the receipt came. What the receipt says is true, but not that this side let it go on.
            let side = Side::Exporter;
            let record = Record::CrossingFailed { crossing, side, bytes, problem, tampered: false };
            return self.record(record, now, effects);
        }
        let settled = export
            .check_receipt(receipt, bytes, self.trust.alliance())
            .and_then(|receipt| receipt.countersign(&self.key).map_err(|_| "the receipt cannot be countersigned"));
        match settled {
            Ok(receipt) => {
                let receipt = receipt.bytes().to_vec();
                self.record(Record::Settled { crossing, receipt: receipt.clone().into() }, now, effects);
                effects.bulk.push(BulkOrder::Countersign { ask, receipt });
            }
            Err(problem) => {
                let record = Record::CrossingFailed {
                    crossing,
                    side: Side::Exporter,
                    bytes,
                    problem: format!("the importer's receipt does not hold: {problem}"),
                    tampered: false,
                };
                self.record(record, now, effects);
                effects.bulk.push(BulkOrder::AbortServe { ask, code: RefusalCode::BadRequest });
            }
        }
    }

    /// The serving ended without a receipt.
    pub(super) fn serve_failed(
        &mut self,
        ask: AskId,
        bytes: u64,
        failure: &BulkFailure,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(export) = self.exports.remove(&ask) else { return };
        // Asking, being cleared and hanging up costs this node records as well.
        let _counted = self.fruitless.admits(export.request.body().importer, now);
        let record = Record::CrossingFailed {
            crossing: export.crossing(),
            side: Side::Exporter,
            bytes,
            problem: export.ended.unwrap_or_else(|| failure.to_string()),
            tampered: matches!(failure, BulkFailure::Tampered(_) | BulkFailure::EndedByPeer(RefusalCode::Damaged)),
        };
        self.record(record, now, effects);
    }
}

impl Export {
    /// The receipt must say what this node knows: this crossing, this clearance, and exactly the bytes that it sent.
    fn check_receipt(
        &self,
        receipt: &[u8],
        sent: u64,
        alliance: crate::id::AllianceId,
    ) -> Result<Signed<Receipt>, &'static str> {
        let receipt = Signed::<Receipt>::open(receipt, alliance).map_err(|_| "it is not a receipt of this alliance")?;
        let (body, given) = (receipt.body(), self.clearance.body());
        let total = match &self.offer.body().what {
            Offered::Model(model) => Portion::cleared(given.parts.as_ref()).of(model).bytes,
            Offered::Compute(_) => return Err("compute has no receipt of bytes"),
        };
        let sum = body.bytes.checked_add(body.held_bytes);
        // What the importer wanted of the parts that were cleared is its business.
        let adds_up = if given.parts.is_none() { sum == Some(total) } else { sum.is_some_and(|sum| sum <= total) };
        let wrong = [
            (!receipt.signed_only_by(&given.importer), "it is not signed by the importer"),
            (body.crossing != given.crossing || body.clearance != self.clearance.id(), "it is for another crossing"),
            (body.importer != given.importer || body.exporter != given.exporter, "it names other parties"),
            (body.manifest != given.manifest, "it names another manifest"),
            (body.bytes != sent, "it counts other bytes than were sent"),
            (!adds_up, "its bytes do not add up to the artefact"),
        ];
        match wrong.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, problem)) => Err(problem),
            None => Ok(receipt),
        }
    }
}

fn model_is(offer: &Offer, manifest: ManifestId) -> bool {
    matches!(&offer.what, Offered::Model(model) if model.manifest == manifest)
}
