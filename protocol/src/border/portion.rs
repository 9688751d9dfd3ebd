//! Which parts of an artefact a crossing is about: all of it, or what of it may cross.
//!
//! Law is asked about labels, so that a part is what has the same labels. Whoever asks for a portion gets no part that is
//! denied by itself, and must be allowed all the others together. The part with the artefact's own labels is always in:
//! names and paths have these, and the manifest tells them.

use std::{borrow::Cow, collections::BTreeSet, slice};

use super::{Attempt, Border, Decision, Denial, PartDecided, keep};
use crate::{manifest::Part, offer::ModelOffer, vocabulary::Label};

/// The labels of parts of an artefact; never of none.
pub type PartLabels = BTreeSet<BTreeSet<Label>>;

/// What of an artefact a clearance lets cross.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared(pub(super) Option<PartLabels>);

impl Cleared {
    /// Whether it is the whole artefact.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether what has these labels may cross.
    #[must_use]
    pub fn admits(&self, labels: &BTreeSet<Label>) -> bool {
        self.0.as_ref().is_none_or(|parts| parts.contains(labels))
    }
}

/// What of an artefact a crossing is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Portion {
    /// All of it or nothing.
    All,
    /// What is allowed of the parts with these labels; the others are left out.
    AllowedOf(PartLabels),
    /// The parts with these labels, all of them or nothing.
    Only(PartLabels),
}

impl Portion {
    /// What of an artefact may cross, whichever that is.
    pub(crate) fn allowed_of(model: &ModelOffer) -> Self {
        Self::AllowedOf(model.parts.iter().map(|part| part.labels.clone()).collect())
    }

    /// What a request asks for.
    pub(crate) fn asked(parts: Option<&PartLabels>) -> Self {
        parts.map_or(Self::All, |parts| Self::AllowedOf(parts.clone()))
    }

    /// What a clearance gives.
    pub(crate) fn cleared(parts: Option<&PartLabels>) -> Self {
        parts.map_or(Self::All, |parts| Self::Only(parts.clone()))
    }

    /// Whether it is one of this artefact.
    pub(crate) fn fits(&self, model: &ModelOffer) -> bool {
        match self {
            Self::All => true,
            Self::AllowedOf(parts) | Self::Only(parts) => {
                let names = model.parts.first().is_some_and(|first| parts.contains(&first.labels));
                names && parts.iter().all(|labels| model.parts.iter().any(|part| part.labels == *labels))
            }
        }
    }

    /// What an offer would say of it alone.
    pub(crate) fn of<'a>(&self, model: &'a ModelOffer) -> Cow<'a, ModelOffer> {
        match self {
            Self::All => Cow::Borrowed(model),
            Self::AllowedOf(parts) | Self::Only(parts) => {
                Cow::Owned(with(model, model.parts.iter().filter(|part| parts.contains(&part.labels))))
            }
        }
    }
}

/// The artefact with some of its parts only.
fn with<'a>(model: &ModelOffer, parts: impl IntoIterator<Item = &'a Part>) -> ModelOffer {
    let parts: Vec<Part> = parts.into_iter().cloned().collect();
    ModelOffer {
        bytes: parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes)),
        tensors: parts.iter().fold(0, |sum, part| sum.saturating_add(part.tensors)),
        labels: parts.iter().flat_map(|part| &part.labels).copied().collect(),
        parts,
        ..model.clone()
    }
}

impl Decision {
    /// The labels of the parts that it allows.
    pub(crate) fn allowed_parts(&self) -> PartLabels {
        self.parts.iter().map(|decided| decided.part.labels.clone()).collect()
    }
}

impl Border<'_> {
    /// Leaves out each part that would be denied by itself; says which, and why. What is left is still to be decided on.
    pub(super) fn leave_out(
        &self,
        attempt: &Attempt<'_>,
        model: &ModelOffer,
        decision: &mut Decision,
    ) -> Result<ModelOffer, Denial> {
        let mut left = Vec::new();
        for (at, part) in model.parts.iter().enumerate() {
            let alone = with(model, [part]);
            let facts = self.facts(attempt, &alone, &mut Vec::new());
            let mut against = BTreeSet::new();
            for question in self.all_questions(attempt, &alone, &facts)? {
                let verdict = self.judge(question.pack, question.action, &question.facts);
                if !verdict.permits() || self.unmet(attempt, &alone, slice::from_ref(&verdict)).is_some() {
                    against.insert(keep(&mut decision.against, verdict));
                }
            }
            // Without the first there is nothing that could be told of the others.
            if at == 0 || against.is_empty() {
                left.push(part);
            } else {
                decision.left_out.push(PartDecided { part: part.clone(), verdicts: against });
            }
        }
        Ok(with(model, left))
    }
}
