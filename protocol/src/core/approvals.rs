//! Approvals by named people, where the rules demand them: taken in, kept until they run out, and shown with what waits for
//! them.

use super::{
    Core, Effects,
    admin::{ApprovalView, Approver, CrossingState, Failure, FailureKind, NeededApproval, PendingApproval, Side},
};
use crate::{
    authority::Approval,
    border::ToApprove,
    crossing::RefusalCode,
    envelope::Signed,
    gate::{Gate, PackOwner},
    id::StatementId,
    key::PublicKey,
    ledger::Record,
    limits,
    obligation::Duty,
    time::Timestamp,
    trust::Accepted,
};

/// Questions that are shown as waiting for approval, the newest first, and earlier crossings of each.
const PENDING_MAX: usize = 64;

impl Core {
    /// Takes in an approval or a refusal that was handed over. It stays here: it is for this node's own crossings.
    pub(super) fn take_approval(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Accepted, Failure> {
        let untrusted = |why: String| Failure { kind: FailureKind::Untrusted, message: format!("not adopted: {why}") };
        let approval = self.trust.approval(bytes, now).map_err(|error| untrusted(error.to_string()))?;
        let body = approval.body();
        if ![Some(body.exporter), body.importer].contains(&Some(self.me())) {
            return Err(untrusted("it is about a crossing between other nodes".to_owned()));
        }
        if !approval.signers().iter().any(|signer| self.approves(body.on_behalf, signer)) {
            return Err(untrusted(format!("none of its signers is one who approves for {}", body.on_behalf)));
        }
        let key = approval_key(bytes);
        if self.approvals.contains_key(&key) {
            return Ok(Accepted::Known);
        }
        if self.approvals.len() >= limits::APPROVALS_MAX {
            let message = format!("{} approvals stand; wait for some to run out", self.approvals.len());
            return Err(Failure { kind: FailureKind::Busy, message });
        }
        self.record(Record::ApprovalAccepted { approval: bytes.to_vec().into() }, now, effects);
        self.approvals.insert(key, approval);
        // A refusal ends what runs.
        self.next_round = self.next_round.min(now.plus_ms(1));
        Ok(Accepted::New)
    }

    fn approves(&self, on_behalf: PackOwner, signer: &PublicKey) -> bool {
        match on_behalf {
            PackOwner::Member(member) => self.trust.approvers(member).any(|(key, _)| key == *signer),
            PackOwner::House => self.config.approvers.contains(signer),
            PackOwner::Alliance => false,
        }
    }

    /// What was approved and refused, and still counts.
    pub(super) fn approval_views(&self) -> Vec<ApprovalView> {
        let view = |(id, approval): (&StatementId, &Signed<Approval>)| ApprovalView {
            approval: *id,
            body: approval.body().clone(),
            by: approval.signers().iter().map(|key| self.approver(approval.body().on_behalf, key)).collect(),
        };
        self.approvals.iter().map(view).collect()
    }

    fn approver(&self, pack: PackOwner, key: &PublicKey) -> Approver {
        let name = match pack {
            PackOwner::Member(member) => self.trust.approvers(member).find(|(known, _)| known == key).map(|(_, name)| name),
            PackOwner::House | PackOwner::Alliance => None,
        };
        Approver { key: *key, name: name.unwrap_or_default().to_owned(), granted: None }
    }

    /// Crossings that were denied because somebody has not approved them, each question once, the newest first.
    pub(super) fn pending_approvals(&self, now: Timestamp, gate: &dyn Gate) -> Vec<PendingApproval> {
        let border = self.border(gate, now);
        let mut pending: Vec<PendingApproval> = Vec::new();
        let denied = self
            .history
            .iter()
            .filter(|view| view.state == CrossingState::Denied && view.refusal == Some(RefusalCode::ObligationUnmet));
        let mut denied: Vec<_> = denied.filter_map(|view| Some((view, view.facts.as_ref()?))).collect();
        denied.sort_by_key(|(view, _)| std::cmp::Reverse(view.began));
        for (view, facts) in denied {
            let (exporter, importer) = match view.side {
                Side::Exporter => (self.me(), self.trust.newest_key(&view.peer)),
                Side::Importer => (self.trust.newest_key(&view.peer), self.me()),
            };
            let (manifest, purpose, use_) = (view.manifest, facts.purpose, facts.use_);
            let what = ToApprove { manifest, exporter, importer, purpose, use_ };
            let same = |one: &&mut PendingApproval| {
                (one.manifest, one.exporter, one.importer, one.purpose, one.use_)
                    == (manifest, exporter, importer, purpose, use_)
            };
            if let Some(known) = pending.iter_mut().find(same) {
                if known.earlier.len() < PENDING_MAX {
                    known.earlier.push(view.crossing);
                }
                continue;
            }
            if pending.len() >= PENDING_MAX {
                continue;
            }
            let mut needed = Vec::new();
            for verdict in &view.verdicts {
                let officers = verdict.obligations.iter().filter_map(|duty| match duty.duty() {
                    Duty::Approval { officers } => Some(officers),
                    _ => None,
                });
                let Some(officers) = officers.max() else { continue };
                let ends = [facts.from.country, facts.to.country];
                let home = self.accreditation.body().member;
                let here = match verdict.pack {
                    PackOwner::Member(member) => member == home || !ends.contains(&member),
                    PackOwner::House => true,
                    PackOwner::Alliance => false,
                };
                if here && needed.iter().all(|known: &NeededApproval| known.on_behalf != verdict.pack) {
                    needed.push(self.needed(verdict.pack, officers, &border.said(verdict.pack, what)));
                }
            }
            if !needed.is_empty() {
                pending.push(PendingApproval {
                    crossing: view.crossing,
                    earlier: Vec::new(),
                    name: view.name.clone(),
                    manifest,
                    exporter,
                    importer,
                    from: facts.from.country,
                    to: facts.to.country,
                    purpose,
                    use_,
                    denied: view.began,
                    needed,
                });
            }
        }
        pending
    }

    /// Whose approval a pack demands, and what they have said.
    fn needed(&self, pack: PackOwner, officers: u8, said: &crate::border::Said) -> NeededApproval {
        let named: Vec<_> = match pack {
            PackOwner::Member(member) => self.trust.approvers(member).map(|(key, name)| (key, name.to_owned())).collect(),
            PackOwner::House => self.config.approvers.iter().map(|key| (*key, String::new())).collect(),
            PackOwner::Alliance => Vec::new(),
        };
        let word = |key: &PublicKey| said.iter().find(|(known, _)| *known == key).map(|(_, granted)| granted);
        let approvers = named.into_iter().map(|(key, name)| Approver { granted: word(&key), key, name }).collect();
        NeededApproval { on_behalf: pack, officers: officers.into(), approvers }
    }
}

/// Under which an approval is kept: two officers may have signed the same body, each by himself.
pub(super) fn approval_key(bytes: &[u8]) -> StatementId {
    StatementId(*blake3::hash(bytes).as_bytes())
}
