//! What was decided of a crossing: recorded as it is, and bounded so that it can be.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    crossing::RefusalCode,
    envelope::encode,
    gate::{Facts, PackOwner, Verdict},
    id::StatementId,
    limits,
    manifest::Part,
    obligation::Duty,
    trust::NoStanding,
    vocabulary::Country,
};

/// What was decided of a crossing, and why; recorded as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// What the packs were asked; none where it did not come to that.
    pub facts: Option<Facts>,
    /// What the law of the first exporter's country was asked, where the artefact is offered on: the way from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Facts>,
    /// What the packs said of the whole artefact, and then what they said otherwise of one of its parts.
    pub verdicts: Vec<Arc<Verdict>>,
    /// What was said of each part; empty where it did not come to that. A tensor's part is in the manifest, so that this
    /// says of every tensor what was decided.
    pub parts: Vec<PartDecided>,
    /// Parts that were left out of what was decided on, because each would be denied by itself. Their numbers are those of
    /// verdicts in [`Decision::against`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<PartDecided>,
    /// What spoke against the parts that were left out: a denial, or a duty that is not met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<Arc<Verdict>>,
    /// Safeguards that were presented and did not count, and why.
    pub ignored: Vec<String>,
    /// Why it is denied; none where it is allowed.
    pub denial: Option<Denial>,
}

/// What was decided of one part of an artefact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartDecided {
    pub part: Part,
    /// The numbers of its verdicts in [`Decision::verdicts`].
    pub verdicts: BTreeSet<u32>,
}

/// A no: the code for the other side, the reason for this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{problem}")]
#[serde(deny_unknown_fields)]
pub struct Denial {
    pub code: RefusalCode,
    pub problem: String,
}

impl Decision {
    pub(crate) fn denied(code: RefusalCode, problem: String) -> Self {
        Self { denial: Some(Denial { code, problem }), ..Self::default() }
    }

    /// Gives up texts, then rules, of verdicts that would not fit into a record. What was decided stays, and so does every
    /// duty that a node enforces: of those with a span the shortest of each verdict, which is the one that counts.
    pub(super) fn fit(&mut self) {
        let too_large = |all: &Self| encode(&(&all.verdicts, &all.against)).len() > limits::VERDICTS_BYTES_MAX;
        if !too_large(self) {
            return;
        }
        for verdict in self.verdicts.iter_mut().chain(&mut self.against) {
            let verdict = Arc::make_mut(verdict);
            let shortest = verdict.obligations.iter().filter_map(|duty| duty.duty().kept_hours()).min();
            verdict.obligations.retain(|obligation| match obligation.duty() {
                Duty::Told => false,
                Duty::Approval { .. } | Duty::Require(_) => true,
                duty @ (Duty::DeleteWithin { .. } | Duty::RetainAtMost { .. }) => duty.kept_hours() == shortest,
            });
            for rule in verdict.rules.iter_mut().map(Arc::make_mut) {
                (rule.native, rule.citation) = (String::new(), "too long to record; see the pack".to_owned());
                rule.title = rule.title.chars().take(TITLE_CHARS_MAX).collect();
            }
        }
        if too_large(self) {
            let count = self.verdicts.len().saturating_add(self.against.len()).max(1);
            let share = limits::VERDICTS_BYTES_MAX / count / RULE_BYTES;
            let all = self.verdicts.iter_mut().chain(&mut self.against);
            all.for_each(|verdict| Arc::make_mut(verdict).rules.truncate(share));
        }
    }

    /// BLAKE3 of the recorded verdicts and of which parts they are about: what a request commits to.
    #[must_use]
    pub fn digest(&self) -> StatementId {
        StatementId(*blake3::hash(&encode(&(&self.verdicts, &self.parts))).as_bytes())
    }

    /// The packs that deny, the house's or the others, with the parts of the artefact that they deny where it has several.
    pub(super) fn deniers(&self, house: bool) -> Option<String> {
        let denies = |verdict: &Verdict| !verdict.permits() && (verdict.pack == PackOwner::House) == house;
        let packs: BTreeSet<String> =
            self.verdicts.iter().filter(|verdict| denies(verdict)).map(|verdict| verdict.pack.to_string()).collect();
        if packs.is_empty() {
            return None;
        }
        let packs = packs.into_iter().collect::<Vec<_>>().join(", ");
        if self.parts.len() < 2 {
            return Some(packs);
        }
        let denied: Vec<String> = self
            .parts
            .iter()
            .filter(|decided| decided.of(&self.verdicts).any(denies))
            .map(|decided| decided.part.labels.iter().map(|label| label.as_str()).collect::<Vec<_>>().join(" "))
            .collect();
        Some(match denied.as_slice() {
            [] => format!("{packs}, for its parts together"),
            several if several.len() == self.parts.len() => packs,
            several => format!("{packs}, for what is labelled {}", several.join("; or ")),
        })
    }

    /// The epochs of the members' law that was asked.
    #[must_use]
    pub fn epochs(&self) -> Vec<(Country, u64)> {
        let epochs = self.verdicts.iter().filter_map(|verdict| match verdict.pack {
            PackOwner::Member(country) => Some((country, verdict.epoch)),
            PackOwner::Alliance | PackOwner::House => None,
        });
        epochs.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl PartDecided {
    /// The verdicts on this part, of all that were given in the same decision.
    pub fn of<'a>(&'a self, verdicts: &'a [Arc<Verdict>]) -> impl Iterator<Item = &'a Verdict> {
        let numbers = self.verdicts.iter().filter_map(|number| usize::try_from(*number).ok());
        numbers.filter_map(|number| verdicts.get(number)).map(Arc::as_ref)
    }
}

/// Keeps what a pack said, once however often it said so; gives its number.
pub(super) fn keep(verdicts: &mut Vec<Arc<Verdict>>, verdict: Arc<Verdict>) -> u32 {
    let at = verdicts.iter().position(|known| *known == verdict).unwrap_or_else(|| {
        verdicts.push(verdict);
        verdicts.len().saturating_sub(1)
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl From<NoStanding> for Denial {
    fn from(error: NoStanding) -> Self {
        Self { code: error.code(), problem: error.to_string() }
    }
}

/// Characters of the title of a rule in an oversized verdict.
const TITLE_CHARS_MAX: usize = 400;

/// Bytes of a rule without its texts, at the most, by which those of an oversized verdict are counted.
const RULE_BYTES: usize = 4 * 1024;
