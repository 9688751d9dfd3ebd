//! One side of one crossing, put together from the entries of its ledger, and what it must agree with in itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    export::concerned,
    findings::{Finding, FindingKind, Outcome},
};
use crate::{
    border::Decision,
    charter::Chartered,
    core::admin::Side,
    crossing::{ClearanceGiven, CrossingRequest, LedgerHead, Receipt, Refusal},
    envelope::{Signed, Statement},
    id::{AllianceId, CrossingId, ManifestId, Sha256, StatementId},
    key::PublicKey,
    ledger::{Entry, Record},
    rotation::KeyRotation,
    time::Timestamp,
    training::{Attestation, Attested},
    vocabulary::Country,
};

/// What one ledger has of one crossing. The statements are verified.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) crossing: CrossingId,
    pub(super) node: PublicKey,
    pub(super) peer: Option<PublicKey>,
    pub(super) side: Side,
    pub(super) name: String,
    pub(super) manifest: Option<ManifestId>,
    pub(super) began: Timestamp,
    pub(super) from: Option<Country>,
    pub(super) to: Option<Country>,
    pub(super) concerned: Option<BTreeSet<Country>>,
    pub(super) request: Option<Signed<CrossingRequest>>,
    pub(super) clearance: Option<Signed<ClearanceGiven>>,
    pub(super) refusal: Option<Signed<Refusal>>,
    pub(super) receipt: Option<Signed<Receipt>>,
    pub(super) failed: bool,
    /// Bytes of the artefact that a crossing which failed had moved, by the word of this side.
    pub(super) moved: u64,
    pub(super) denied_at_home: bool,
    /// The importer's own side denied it once more was known than before it asked.
    pub(super) declined: bool,
    /// It was accepted, received or settled.
    pub(super) taken: bool,
}

/// What the halves of one ledger are made with.
pub(super) struct Ledger<'a> {
    /// Whose it is, by the key of now.
    pub(super) of: PublicKey,
    /// The key that it had when the entries were made that come next.
    pub(super) node: PublicKey,
    /// Keys that made way for others, as entries show that hold, and when.
    pub(super) former: Vec<(PublicKey, Timestamp)>,
    pub(super) alliance: AllianceId,
    pub(super) chartered: &'a Chartered,
    /// The heads that the ledger is proved to continue, by their size.
    pub(super) heads: &'a BTreeMap<u64, Sha256>,
    pub(super) halves: BTreeMap<CrossingId, Half>,
    pub(super) findings: Vec<Finding>,
}

impl Half {
    pub(super) fn outcome(&self) -> Outcome {
        let both = |receipt: &Signed<Receipt>| receipt.signers().len() == 2;
        match (&self.clearance, &self.receipt, &self.refusal) {
            _ if self.denied_at_home => Outcome::DeniedAtHome,
            (_, None, _) if self.declined => Outcome::Declined,
            (_, Some(receipt), _) if both(receipt) => Outcome::Settled,
            (_, Some(_), _) => Outcome::Unsettled,
            (_, None, Some(refusal)) => Outcome::Refused(refusal.body().code),
            (Some(_), None, None) if self.failed => Outcome::Failed,
            (Some(_), None, None) => Outcome::Cleared,
            (None, None, None) if self.failed => Outcome::Failed,
            (None, None, None) => Outcome::Unanswered,
        }
    }

    /// Whether the other side has signed something of it, so that it must have a half too.
    pub(super) fn signed_by_both(&self) -> bool {
        match self.side {
            Side::Exporter => self.request.is_some(),
            Side::Importer => self.clearance.is_some() || self.refusal.is_some(),
        }
    }

    pub(super) fn exporter(&self) -> PublicKey {
        match self.side {
            Side::Exporter => self.node,
            Side::Importer => self.peer.unwrap_or(self.node),
        }
    }

    pub(super) fn importer(&self) -> PublicKey {
        match self.side {
            Side::Importer => self.node,
            Side::Exporter => self.peer.unwrap_or(self.node),
        }
    }
}

impl Ledger<'_> {
    fn find(&mut self, kind: FindingKind, crossing: CrossingId, what: String) {
        self.findings.push(Finding { kind, node: self.of, crossing: Some(crossing), what });
    }

    /// The node's key made way for another, in this place and at this time.
    fn rotated(&mut self, index: u64, at: Timestamp, bytes: &[u8]) {
        let problem = match Signed::<KeyRotation>::open(bytes, self.alliance) {
            Ok(rotation) => {
                let problem = self.problem_of(&rotation, index, at);
                let body = rotation.body();
                // Wherever and whenever that was: both keys and the authority say whose the old one is.
                if !matches!(problem, Some((FindingKind::Untrusted, _))) {
                    self.former.push((body.old, body.at));
                }
                self.node = body.new;
                problem
            }
            Err(error) => Some((FindingKind::Altered, error.to_string())),
        };
        if let Some((kind, why)) = problem {
            let what = format!("the change of its key in entry {index} does not hold: {why}");
            self.findings.push(Finding { kind, node: self.of, crossing: None, what });
        }
    }

    fn problem_of(&self, rotation: &Signed<KeyRotation>, index: u64, at: Timestamp) -> Option<(FindingKind, String)> {
        let body = rotation.body();
        let papers = [&body.old_accreditation, &body.new_accreditation].map(|bytes| self.chartered.accredited(bytes));
        let [Some(old), Some(new)] = papers else {
            return Some((FindingKind::Untrusted, "no authority has accredited one of the two keys".to_owned()));
        };
        if let Err(error) = KeyRotation::check(rotation, &old, &new, at) {
            return Some((FindingKind::Untrusted, error.to_string()));
        }
        if body.old != self.node {
            return Some((FindingKind::Untrusted, "it is of another key than the entries before it".to_owned()));
        }
        if body.at != at {
            return Some((FindingKind::BackDated, format!("it is recorded with {at}, and was signed at {}", body.at)));
        }
        if body.ledger.size != index {
            return Some((FindingKind::Reordered, format!("it was recorded as entry {}", body.ledger.size)));
        }
        match self.heads.get(&index) {
            Some(root) if *root == body.ledger.root => None,
            Some(_) => Some((FindingKind::Altered, "the entries before it are not those that both keys signed".to_owned())),
            None => Some((FindingKind::Missing, "the file does not show the head that both keys signed".to_owned())),
        }
    }

    /// Takes the next disclosed entry into the half that it belongs to.
    pub(super) fn take(&mut self, index: u64, entry: &Entry) {
        if let Record::KeyRotated { rotation } = &entry.record {
            return self.rotated(index, entry.at, rotation);
        }
        let Some(crossing) = entry.record.crossing() else { return };
        let side = match &entry.record {
            Record::Cleared { .. } | Record::Refused { .. } => Side::Exporter,
            Record::CrossingFailed { side, .. } => *side,
            Record::Settled { .. } => self.halves.get(&crossing).map_or(Side::Importer, |half| half.side),
            _ => Side::Importer,
        };
        let node = self.node;
        let half = self.halves.entry(crossing).or_insert_with(|| Half::begun(crossing, node, side, entry.at));
        if let Some(decision) = entry.record.decision() {
            half.concerned = half.concerned.take().or_else(|| concerned(decision));
            let ends = decision.facts.as_ref().map(|facts| (facts.from.country, facts.to.country));
            (half.from, half.to) = (half.from.or(ends.map(|ends| ends.0)), half.to.or(ends.map(|ends| ends.1)));
        }
        match &entry.record {
            Record::Requested { request, name, .. } => {
                self.named(crossing, name, None);
                self.requested(crossing, request);
                self.pinned(crossing, index, entry.at, |half| {
                    half.request.as_ref().map(|request| (request.body().ledger, request.body().asked))
                });
            }
            Record::RequestDenied { name, peer, manifest, .. } => {
                self.named(crossing, name, Some((*peer, *manifest)));
                if let Some(half) = self.halves.get_mut(&crossing) {
                    half.denied_at_home = true;
                }
            }
            Record::Cleared { request, clearance, name, decision, .. } => {
                self.named(crossing, name, None);
                self.requested(crossing, request);
                self.cleared(crossing, clearance);
                self.trained(crossing, decision);
                self.pinned(crossing, index, entry.at, |half| {
                    half.clearance.as_ref().map(|clearance| (clearance.body().ledger, clearance.body().validity.from))
                });
            }
            Record::Refused { request, refusal, name, .. } => {
                self.named(crossing, name, None);
                self.requested(crossing, request);
                self.refused(crossing, refusal);
                self.timed(crossing, entry.at, |half| half.refusal.as_ref().map(|refusal| refusal.body().at));
            }
            Record::ClearanceAccepted { clearance, decision, .. } => {
                self.cleared(crossing, clearance);
                self.trained(crossing, decision);
                self.answered(crossing, |half| &mut half.taken);
            }
            Record::ClearanceDeclined { clearance, decision, .. } => {
                self.cleared(crossing, clearance);
                self.trained(crossing, decision);
                self.answered(crossing, |half| &mut half.declined);
            }
            Record::RefusalAccepted { refusal, .. } => self.refused(crossing, refusal),
            Record::Received { receipt, .. } => {
                self.receipt(crossing, receipt);
                self.pinned(crossing, index, entry.at, |half| {
                    half.receipt.as_ref().map(|receipt| (receipt.body().ledger, receipt.body().finished))
                });
                self.answered(crossing, |half| &mut half.taken);
            }
            Record::Settled { receipt, .. } => {
                self.receipt(crossing, receipt);
                self.answered(crossing, |half| &mut half.taken);
            }
            Record::CrossingFailed { bytes, .. } => {
                if let Some(half) = self.halves.get_mut(&crossing) {
                    (half.failed, half.moved) = (true, *bytes);
                }
            }
            _ => {}
        }
    }

    /// What became of a clearance at the importer: it was declined or something was taken by it, never both, in whichever order.
    fn answered(&mut self, crossing: CrossingId, answer: impl Fn(&mut Half) -> &mut bool) {
        let Some(half) = self.halves.get_mut(&crossing) else { return };
        let both = half.declined && half.taken;
        *answer(half) = true;
        if !both && half.declined && half.taken {
            let what = "it was declined, and something was taken by it all the same".to_owned();
            self.find(FindingKind::Altered, crossing, what);
        }
    }

    fn named(&mut self, crossing: CrossingId, name: &str, known: Option<(PublicKey, ManifestId)>) {
        if let Some(half) = self.halves.get_mut(&crossing) {
            name.clone_into(&mut half.name);
            if let Some((peer, manifest)) = known {
                (half.peer, half.manifest) = (Some(peer), Some(manifest));
            }
        }
    }

    /// Opens a statement of a crossing; says so where it does not hold.
    fn open<T: Statement>(
        &mut self,
        crossing: CrossingId,
        bytes: &[u8],
        of: impl Fn(&T) -> CrossingId,
    ) -> Option<Signed<T>> {
        match Signed::<T>::open(bytes, self.alliance) {
            Ok(statement) if of(statement.body()) == crossing => Some(statement),
            Ok(_) => {
                self.find(FindingKind::Altered, crossing, format!("its {} is of another crossing", T::KIND));
                None
            }
            Err(error) => {
                self.find(FindingKind::Altered, crossing, format!("its {} does not hold: {error}", T::KIND));
                None
            }
        }
    }

    fn requested(&mut self, crossing: CrossingId, bytes: &[u8]) {
        let Some(request) = self.open::<CrossingRequest>(crossing, bytes, |request| request.crossing) else { return };
        let body = request.body();
        let (peer, manifest, own) = match self.halves.get(&crossing).map(|half| half.side) {
            Some(Side::Exporter) => (body.importer, body.manifest, body.exporter),
            _ => (body.exporter, body.manifest, body.importer),
        };
        if !request.signed_only_by(&body.importer) || own != self.node {
            let what = "its request is not signed by its importer, or is between others".to_owned();
            return self.find(FindingKind::Untrusted, crossing, what);
        }
        let exports = self.halves.get(&crossing).is_some_and(|half| half.side == Side::Exporter);
        let paper = self.chartered.accredited(&body.accreditation);
        let from = paper.filter(|paper| paper.node == body.importer).map(|paper| paper.member);
        if exports && from.is_none() {
            self.find(FindingKind::Untrusted, crossing, "no authority has accredited its importer".to_owned());
        }
        if let Some(half) = self.halves.get_mut(&crossing) {
            if exports && from.is_some() && half.to.is_some() && half.to != from {
                let what = "it is recorded as to another country than that of its importer".to_owned();
                self.findings.push(Finding { kind: FindingKind::Altered, node: self.of, crossing: Some(crossing), what });
            }
            (half.peer, half.manifest, half.request) = (Some(peer), Some(manifest), Some(request));
        }
    }

    fn cleared(&mut self, crossing: CrossingId, bytes: &[u8]) {
        let Some(clearance) = self.open::<ClearanceGiven>(crossing, bytes, |clearance| clearance.crossing) else { return };
        let Some(half) = self.halves.get_mut(&crossing) else { return };
        let body = clearance.body();
        if !clearance.signed_only_by(&body.exporter) || body.exporter != half.exporter() || body.importer != half.importer()
        {
            let what = "its clearance is not signed by its exporter, or is between others".to_owned();
            return self.find(FindingKind::Untrusted, crossing, what);
        }
        let (asked, answered) = (half.request.as_ref().map(Signed::id), body.request);
        half.clearance = Some(clearance);
        self.follows(crossing, asked, answered, "clearance", "request");
    }

    /// What was decided of where the artefact was trained must follow from the attestation in the clearance.
    fn trained(&mut self, crossing: CrossingId, decision: &Decision) {
        let Some(stated) = decision.facts.as_ref().and_then(|facts| facts.trained_in.as_ref()) else { return };
        let clearance = self.halves.get(&crossing).and_then(|half| half.clearance.as_ref());
        let Some(clearance) = clearance.map(Signed::body) else { return };
        let attestation = clearance.training.as_ref().and_then(|bytes| Attestation::open(bytes, self.alliance).ok());
        let accredited = |attested: &Attested| {
            self.chartered.accredited(attested.accreditation()).is_some_and(|paper| attested.is_of(&paper).is_ok())
        };
        let follows = attestation.is_some_and(|attestation| {
            attestation.product().manifest == clearance.manifest
                && attestation.findings().countries == *stated
                && attestation.steps().iter().all(accredited)
        });
        if !follows {
            let what = "what it says of where the artefact was trained does not follow from its clearance".to_owned();
            self.find(FindingKind::Untrusted, crossing, what);
        }
    }

    fn refused(&mut self, crossing: CrossingId, bytes: &[u8]) {
        let Some(refusal) = self.open::<Refusal>(crossing, bytes, |refusal| refusal.crossing) else { return };
        let Some(half) = self.halves.get_mut(&crossing) else { return };
        let body = refusal.body();
        if !refusal.signed_only_by(&body.exporter) || body.exporter != half.exporter() {
            let what = "its refusal is not signed by its exporter".to_owned();
            return self.find(FindingKind::Untrusted, crossing, what);
        }
        let (asked, answered) = (half.request.as_ref().map(Signed::id), body.request);
        half.refusal = Some(refusal);
        self.follows(crossing, asked, answered, "refusal", "request");
    }

    fn receipt(&mut self, crossing: CrossingId, bytes: &[u8]) {
        let Some(receipt) = self.open::<Receipt>(crossing, bytes, |receipt| receipt.crossing) else { return };
        let Some(half) = self.halves.get_mut(&crossing) else { return };
        let body = receipt.body();
        let ends = [half.exporter(), half.importer()];
        let by_both_or_importer = receipt.signed_by(&ends[1]) && receipt.signers().iter().all(|key| ends.contains(key));
        if !by_both_or_importer || [body.exporter, body.importer] != ends {
            let what = "its receipt is not signed by its two ends, or is between others".to_owned();
            return self.find(FindingKind::Untrusted, crossing, what);
        }
        let same = half.receipt.as_ref().is_none_or(|earlier| earlier.id() == receipt.id());
        let (given, under) = (half.clearance.as_ref().map(Signed::id), body.clearance);
        half.receipt = Some(receipt);
        if !same {
            self.find(FindingKind::Altered, crossing, "it has two receipts that say different things".to_owned());
        }
        self.follows(crossing, given, under, "receipt", "clearance");
    }

    /// What a statement names as the one before it must be the one that is there.
    fn follows(
        &mut self,
        crossing: CrossingId,
        there: Option<StatementId>,
        named: StatementId,
        what: &'static str,
        before: &'static str,
    ) {
        match there {
            Some(id) if id == named => {}
            Some(_) => self.find(FindingKind::Altered, crossing, format!("its {what} follows another {before}")),
            None => {
                self.find(FindingKind::Missing, crossing, format!("it has the {what}, and lacks the {before} before it"))
            }
        }
    }

    /// An entry whose statement names the head before it, and the instant: it stands in that place, with that time.
    fn pinned(
        &mut self,
        crossing: CrossingId,
        index: u64,
        at: Timestamp,
        of: impl Fn(&Half) -> Option<(LedgerHead, Timestamp)>,
    ) {
        let Some((head, signed)) = self.halves.get(&crossing).and_then(of) else { return };
        if head.size != index {
            let what = format!("entry {index} was recorded as entry {}", head.size);
            self.find(FindingKind::Reordered, crossing, what);
        }
        if self.heads.get(&head.size).is_some_and(|root| *root != head.root) {
            let what =
                format!("the {} entries before it are not those that its node signed when it was recorded", head.size);
            self.find(FindingKind::Altered, crossing, what);
        }
        if !self.heads.contains_key(&head.size) {
            let what = format!("the file does not show the head of {} entries that its node signed for it", head.size);
            self.find(FindingKind::Missing, crossing, what);
        }
        self.timed(crossing, at, |_| Some(signed));
    }

    /// An entry has the time at which its statement was signed.
    fn timed(&mut self, crossing: CrossingId, at: Timestamp, of: impl Fn(&Half) -> Option<Timestamp>) {
        let Some(signed) = self.halves.get(&crossing).and_then(of) else { return };
        if at != signed {
            self.find(FindingKind::BackDated, crossing, format!("it is recorded with {at}, and was signed at {signed}"));
        }
    }
}

impl Half {
    fn begun(crossing: CrossingId, node: PublicKey, side: Side, began: Timestamp) -> Self {
        Self {
            crossing,
            node,
            peer: None,
            side,
            name: String::new(),
            manifest: None,
            began,
            from: None,
            to: None,
            concerned: None,
            request: None,
            clearance: None,
            refusal: None,
            receipt: None,
            failed: false,
            moved: 0,
            denied_at_home: false,
            declined: false,
            taken: false,
        }
    }
}
