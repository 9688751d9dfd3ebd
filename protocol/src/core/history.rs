//! Crossings as recorded: built from ledger records alone, live and after a restart alike.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::admin::{CrossingState, CrossingView, Side};
use crate::{
    border::{Decision, PartDecided},
    crossing::{CrossingRequest, Receipt, Refusal, RefusalCode},
    envelope::recorded_body,
    id::{CrossingId, ManifestId, StatementId},
    key::PublicKey,
    ledger::Record,
    time::Timestamp,
};

/// What became of each crossing. Only [`History::apply`] changes what lasts.
#[derive(Debug, Default)]
pub(super) struct History {
    crossings: BTreeMap<CrossingId, CrossingView>,
    order: VecDeque<CrossingId>,
}

/// Crossings shown without reading the ledger file. The ledger keeps all.
const CROSSINGS_SHOWN_MAX: usize = 10_000;

impl History {
    pub(super) fn get(&self, crossing: CrossingId) -> Option<&CrossingView> {
        self.crossings.get(&crossing)
    }

    /// Newest last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &CrossingView> {
        self.order.iter().filter_map(|id| self.crossings.get(id))
    }

    pub(super) fn bytes(&self, crossing: CrossingId) -> u64 {
        self.get(crossing).map_or(0, |view| view.bytes)
    }

    pub(super) fn unfinished(&self) -> Vec<(CrossingId, Side)> {
        self.iter().filter(|view| !view.state.is_final()).map(|view| (view.crossing, view.side)).collect()
    }

    /// Shows how far a running crossing is. Does not last.
    pub(super) fn progress(&mut self, crossing: CrossingId, bytes: u64, total: u64) {
        if let Some(view) = self.crossings.get_mut(&crossing).filter(|view| !view.state.is_final()) {
            (view.bytes, view.total) = (bytes, total);
        }
    }

    /// Shows a crossing that is not recorded yet: the exporter is being reached.
    pub(super) fn begin(&mut self, view: CrossingView) {
        self.insert(view);
    }

    /// Shows that a crossing ended before anybody was asked.
    pub(super) fn fail_unasked(&mut self, crossing: CrossingId, problem: String, at: Timestamp) {
        self.change(crossing, |view| {
            view.state = CrossingState::Failed;
            view.problem = Some(problem);
            view.ended = Some(at);
        });
    }

    /// Shows what else is to be said of a crossing. Does not last.
    pub(super) fn remark(&mut self, crossing: CrossingId, problem: String) {
        self.change(crossing, |view| view.problem = Some(problem));
    }

    /// Shows until when what came may be kept. Worked out anew from the records after a restart.
    pub(super) fn delete_by(&mut self, crossing: CrossingId, due: Timestamp) {
        self.change(crossing, |view| view.delete_by = Some(due));
    }

    /// Shows that what came should be gone and is not. Does not last; it is tried again.
    pub(super) fn cannot_delete(&mut self, crossing: CrossingId, problem: String) {
        self.change(crossing, |view| view.problem = Some(format!("it should be deleted, and cannot be: {problem}")));
    }

    fn insert(&mut self, view: CrossingView) {
        if self.crossings.insert(view.crossing, view.clone()).is_none() {
            self.order.push_back(view.crossing);
        }
        while self.order.len() > CROSSINGS_SHOWN_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.crossings.remove(&oldest);
        }
    }

    /// Exporter: a request was refused; of what is no request there is nothing to show but that.
    fn refused(
        &mut self,
        crossing: CrossingId,
        peer: PublicKey,
        request: &[u8],
        name: &str,
        decision: &Decision,
        at: Timestamp,
    ) {
        let asked = recorded_body::<CrossingRequest>(request);
        let none = (StatementId([0; 32]), ManifestId([0; 32]), false);
        let (offer, manifest, partial) = asked.map_or(none, |body| (body.offer, body.manifest, body.parts.is_some()));
        let mut view = begun(crossing, Side::Exporter, peer, offer, manifest, name, decision, at);
        view.partial = partial;
        self.insert(ended(view, CrossingState::Denied, at));
    }

    /// Importer: it may be had; parts that only the exporter's side had let through are left out.
    fn accepted(&mut self, crossing: CrossingId, decision: &Decision) {
        self.change(crossing, |view| {
            let cleared = |part: &PartDecided| decision.parts.iter().any(|decided| decided.part == part.part);
            for part in view.parts.iter().filter(|part| !cleared(part)) {
                view.left_out.push(PartDecided { verdicts: BTreeSet::new(), ..part.clone() });
            }
            view.state = CrossingState::Cleared;
            view.facts.clone_from(&decision.facts);
            view.verdicts.clone_from(&decision.verdicts);
            view.parts.clone_from(&decision.parts);
        });
    }

    /// Importer: with what came with the clearance, its own answer is no.
    fn declined(&mut self, crossing: CrossingId, decision: &Decision, at: Timestamp) {
        self.change(crossing, |view| {
            let denial = decision.denial.as_ref();
            view.facts.clone_from(&decision.facts);
            view.verdicts.clone_from(&decision.verdicts);
            view.parts.clone_from(&decision.parts);
            view.safeguards_ignored.clone_from(&decision.ignored);
            view.refusal = denial.map(|denial| denial.code);
            view.problem = denial.map(|denial| denial.problem.clone());
            view.state = CrossingState::Denied;
            view.ended = Some(at);
        });
    }

    /// Takes a record into account. Records of other things than crossings change nothing here.
    pub(super) fn apply(&mut self, record: &Record, at: Timestamp) {
        match record {
            Record::Requested { crossing, request, name, decision, to, .. } => {
                let Some(body) = recorded_body::<CrossingRequest>(request) else { return };
                let mut view =
                    begun(*crossing, Side::Importer, body.exporter, body.offer, body.manifest, name, decision, at);
                view.state = CrossingState::Asked;
                view.partial = body.parts.is_some();
                view.to = Some(to.clone());
                view.lead = self.get(*crossing).and_then(|known| known.lead);
                self.insert(view);
            }
            Record::RequestDenied { crossing, name, offer, peer, manifest, partial, decision } => {
                let mut view = begun(*crossing, Side::Importer, *peer, *offer, *manifest, name, decision, at);
                view.partial |= partial;
                self.insert(ended(view, CrossingState::Denied, at));
            }
            Record::Cleared { crossing, request, name, decision, .. } => {
                let Some(body) = recorded_body::<CrossingRequest>(request) else { return };
                let mut view =
                    begun(*crossing, Side::Exporter, body.importer, body.offer, body.manifest, name, decision, at);
                view.state = CrossingState::Cleared;
                view.partial = body.parts.is_some();
                self.insert(view);
            }
            Record::Refused { crossing, peer, request, name, decision, .. } => {
                self.refused(*crossing, *peer, request, name, decision, at);
            }
            Record::ClearanceAccepted { crossing, decision, .. } => self.accepted(*crossing, decision),
            Record::ClearanceDeclined { crossing, decision, .. } => self.declined(*crossing, decision, at),
            Record::RefusalAccepted { crossing, refusal } => {
                let code = recorded_body::<Refusal>(refusal).map(|refusal| refusal.code);
                self.change(*crossing, |view| {
                    view.refusal = code;
                    view.problem = Some("refused by the exporter; its own records say why".to_owned());
                    view.state = CrossingState::Denied;
                    view.ended = Some(at);
                });
            }
            Record::Received { crossing, part, .. } => self.change(*crossing, |view| {
                view.state = CrossingState::Delivering;
                view.part.clone_from(part);
            }),
            Record::PartDelivered { crossing } => {
                self.change(*crossing, |view| view.state = CrossingState::Delivered);
            }
            Record::Settled { crossing, receipt } => {
                let bytes = recorded_body::<Receipt>(receipt).map(|receipt| receipt.bytes);
                self.change(*crossing, |view| {
                    view.bytes = bytes.unwrap_or(view.bytes);
                    view.total = view.total.max(view.bytes);
                    view.state = CrossingState::Done;
                    view.ended = Some(at);
                });
            }
            Record::CrossingFailed { crossing, bytes, problem, tampered, .. } => self.change(*crossing, |view| {
                let delivered = view.state == CrossingState::Delivered;
                view.state = if delivered { CrossingState::DoneUnsettled } else { CrossingState::Failed };
                view.refusal = if *tampered { Some(RefusalCode::Damaged) } else { view.refusal };
                view.bytes = (*bytes).max(view.bytes);
                view.problem = Some(problem.clone());
                view.ended = Some(at);
            }),
            Record::ModelImported { model } => {
                if let Some(crossing) = model.crossing {
                    self.change(crossing, |view| {
                        view.state = CrossingState::Delivered;
                        view.to = Some(model.path.clone());
                    });
                }
            }
            Record::Deleted { crossing } => self.change(*crossing, |view| {
                view.deleted = Some(at);
                view.problem = None;
            }),
            Record::RulesLoaded { .. }
            | Record::ForkFound { .. }
            | Record::PlaceContradicted { .. }
            | Record::StepRecorded { .. }
            | Record::TrainingAttested { .. }
            | Record::Founded { .. }
            | Record::CharterAccepted { .. }
            | Record::Accredited { .. }
            | Record::StatusAccepted { .. }
            | Record::PackAccepted { .. }
            | Record::KeyRotated { .. }
            | Record::RotationAccepted { .. }
            | Record::ApprovalAccepted { .. }
            | Record::OfferPublished { .. }
            | Record::OfferWithdrawn { .. } => {}
        }
    }

    fn change(&mut self, crossing: CrossingId, change: impl FnOnce(&mut CrossingView)) {
        if let Some(view) = self.crossings.get_mut(&crossing) {
            change(view);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of the view, each from another place")]
fn begun(
    crossing: CrossingId,
    side: Side,
    peer: PublicKey,
    offer: StatementId,
    manifest: ManifestId,
    name: &str,
    decision: &Decision,
    at: Timestamp,
) -> CrossingView {
    CrossingView {
        crossing,
        side,
        state: CrossingState::Reaching,
        peer,
        offer,
        name: name.to_owned(),
        manifest,
        facts: decision.facts.clone(),
        verdicts: decision.verdicts.clone(),
        parts: decision.parts.clone(),
        partial: !decision.left_out.is_empty(),
        left_out: decision.left_out.clone(),
        against: decision.against.clone(),
        part: None,
        refusal: decision.denial.as_ref().map(|denial| denial.code),
        problem: decision.denial.as_ref().map(|denial| denial.problem.clone()),
        safeguards_ignored: decision.ignored.clone(),
        began: at,
        ended: None,
        bytes: 0,
        total: decision.parts.iter().fold(0, |sum, decided| sum.saturating_add(decided.part.bytes)),
        to: None,
        lead: None,
        delete_by: None,
        deleted: None,
    }
}

fn ended(mut view: CrossingView, state: CrossingState, at: Timestamp) -> CrossingView {
    view.state = state;
    view.ended = Some(at);
    view
}
