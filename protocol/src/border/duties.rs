//! Duties that a side meets before a crossing: evidence that is declared, and the approval of named people.

use std::{collections::BTreeMap, sync::Arc};

use super::{Attempt, Border};
use crate::{
    gate::{PackOwner, Verdict},
    key::PublicKey,
    obligation::Duty,
    offer::ModelOffer,
    time::Timestamp,
};

/// What those whose word counts have said of a crossing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The last word of each: whether it was yes, and why.
    words: BTreeMap<PublicKey, (Timestamp, bool, String)>,
    /// Whether there is a yes that was said of a key which one of the ends had before.
    of_former_key: bool,
}

/// What approvals are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ToApprove {
    pub(crate) manifest: crate::id::ManifestId,
    pub(crate) exporter: PublicKey,
    pub(crate) importer: PublicKey,
    pub(crate) purpose: crate::vocabulary::Purpose,
    pub(crate) use_: crate::vocabulary::Use,
}

impl Said {
    pub(crate) fn granted(&self) -> usize {
        self.words.values().filter(|(_, granted, _)| *granted).count()
    }

    /// Who refused, and why.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&PublicKey, &str)> {
        self.words.iter().filter(|(_, (_, granted, _))| !granted).map(|(key, (.., reason))| (key, reason.as_str()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PublicKey, bool)> {
        self.words.iter().map(|(key, (_, granted, _))| (key, *granted))
    }
}

impl Border<'_> {
    /// The first duty that a node enforces before a crossing and that is not met.
    pub(super) fn unmet(&self, attempt: &Attempt<'_>, model: &ModelOffer, verdicts: &[Arc<Verdict>]) -> Option<String> {
        let duties =
            verdicts.iter().flat_map(|verdict| verdict.obligations.iter().map(|duty| (verdict.pack, duty, duty.duty())));
        for (pack, words, duty) in duties {
            match duty {
                Duty::Require(evidence) if !model.provenance.evidence.contains(&evidence) => {
                    return Some(format!(
                        "the rules of {pack} demand `{words}`, and the exporter declares no `{evidence}` for the artefact"
                    ));
                }
                Duty::Approval { officers } if self.approves_here(pack, attempt) => {
                    let what = ToApprove {
                        manifest: model.manifest,
                        exporter: attempt.exporter.body().node,
                        importer: attempt.importer.body().node,
                        purpose: attempt.purpose,
                        use_: attempt.use_,
                    };
                    let said = self.said(pack, what);
                    if said.granted() < usize::from(officers) {
                        return Some(self.not_approved(pack, words.as_str(), officers, &said));
                    }
                }
                Duty::Require(_)
                | Duty::Approval { .. }
                | Duty::DeleteWithin { .. }
                | Duty::RetainAtMost { .. }
                | Duty::Told => {}
            }
        }
        None
    }

    fn not_approved(&self, pack: PackOwner, words: &str, officers: u8, said: &Said) -> String {
        let whose = match pack {
            PackOwner::Member(member) if self.trust.has_experts(member) => {
                format!("named experts of the authority of {member}")
            }
            PackOwner::Member(member) => format!("officers of the authority of {member}"),
            PackOwner::House | PackOwner::Alliance => "officers of this house".to_owned(),
        };
        let granted = said.granted();
        let mut text = format!("the rules of {pack} demand `{words}`: {granted} of {officers} {whose} have approved");
        if said.of_former_key {
            text.push_str("; a yes was given for a key that an end had before: have it given again for its key of now");
        }
        for (key, reason) in said.refusals() {
            text.push_str(&format!("; {} refused: {reason}", self.trust.named(pack, key)));
        }
        text
    }

    /// Whether this side is the one that holds the approvals which a pack demands: each end for its own country and house,
    /// and both for anyone else.
    fn approves_here(&self, pack: PackOwner, attempt: &Attempt<'_>) -> bool {
        let ends = [attempt.exporter.body().member, attempt.importer.body().member];
        match pack {
            PackOwner::House | PackOwner::Alliance => true,
            PackOwner::Member(member) => member == self.home || !ends.contains(&member),
        }
    }

    /// The last word of each whose word counts for a pack. Of two of one instant the refusal counts.
    pub(crate) fn said(&self, pack: PackOwner, what: ToApprove) -> Said {
        let counts = |signer: &PublicKey| match pack {
            PackOwner::Member(member) => self.trust.approvers(member).any(|(key, _)| key == *signer),
            PackOwner::House | PackOwner::Alliance => self.approvers.contains(signer),
        };
        let mut said = Said::default();
        for approval in self.approvals.values() {
            let body = approval.body();
            let ends = std::iter::once((body.exporter, what.exporter));
            let ends: Vec<_> = ends.chain(body.importer.map(|importer| (importer, what.importer))).collect();
            let now = ends.iter().all(|(named, node)| named == node);
            let ever =
                |(named, node): &(PublicKey, PublicKey)| named == node || self.trust.former_keys(node).contains(named);
            let about = (body.manifest, body.purpose, body.use_) == (what.manifest, what.purpose, what.use_);
            // A refusal counts until the same person says yes.
            let counts_now = !body.granted || body.validity.check(self.now).is_ok();
            if !about || body.on_behalf != pack || !counts_now || !(now || ends.iter().all(ever)) {
                continue;
            }
            // A yes was said of one key. A no holds on where another has taken its place.
            if body.granted && !now {
                said.of_former_key = true;
                continue;
            }
            for signer in approval.signers().iter().filter(|signer| counts(signer)) {
                let word = (body.validity.from, body.granted, body.reason.clone());
                let newer = said.words.get(signer).is_none_or(|(at, granted, _)| (*at, !granted) < (word.0, !word.1));
                if newer {
                    said.words.insert(*signer, word);
                }
            }
        }
        said
    }
}
