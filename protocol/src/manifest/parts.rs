//! The parts of an artefact: what of it has the same labels, taken together. The law is asked about each.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Body, Manifest, ManifestError, Segment, SegmentKind};
use crate::{limits, vocabulary::Label};

/// What of an artefact has exactly these labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Never empty.
    pub labels: BTreeSet<Label>,
    /// Tensors that have these labels.
    pub tensors: u32,
    /// Bytes that have these labels: of tensors, of headers, and of files without tensors.
    pub bytes: u64,
}

/// Why a list of parts is not that of any artefact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    #[error("it has no part")]
    None,
    #[error("more than {max} sets of labels in one artefact", max = limits::PARTS_PER_ARTEFACT_MAX)]
    TooMany,
    #[error("a part has no label")]
    NoLabel,
    #[error("two parts have the same labels")]
    SameLabels,
    #[error("the labels of the parts are not those of the artefact")]
    Labels,
    #[error("the tensors or the bytes of the parts do not add up to those of the artefact")]
    Sum,
}

/// Checks that parts are those of an artefact with these labels, tensors and bytes.
///
/// # Errors
/// The first thing that does not hold.
pub fn check_parts(parts: &[Part], labels: &BTreeSet<Label>, tensors: u32, bytes: u64) -> Result<(), PartsError> {
    if parts.is_empty() {
        return Err(PartsError::None);
    }
    if parts.len() > limits::PARTS_PER_ARTEFACT_MAX {
        return Err(PartsError::TooMany);
    }
    if parts.iter().any(|part| part.labels.is_empty()) {
        return Err(PartsError::NoLabel);
    }
    if parts.iter().map(|part| &part.labels).collect::<BTreeSet<_>>().len() != parts.len() {
        return Err(PartsError::SameLabels);
    }
    if parts.iter().flat_map(|part| &part.labels).copied().collect::<BTreeSet<_>>() != *labels {
        return Err(PartsError::Labels);
    }
    let sums = parts.iter().try_fold((0_u32, 0_u64), |(tensors, bytes), part| {
        Some((tensors.checked_add(part.tensors)?, bytes.checked_add(part.bytes)?))
    });
    if sums == Some((tensors, bytes)) { Ok(()) } else { Err(PartsError::Sum) }
}

impl Part {
    /// The parts of an artefact that has the same labels everywhere.
    #[must_use]
    pub fn alone(labels: BTreeSet<Label>, tensors: u32, bytes: u64) -> Vec<Self> {
        vec![Self { labels, tensors, bytes }]
    }
}

impl Body {
    /// The parts, in the order in which they first appear. The first has the artefact's own labels, also where no segment
    /// has them: names and paths do.
    pub(super) fn parts(&self) -> Result<Vec<Part>, ManifestError> {
        let mut parts = Part::alone(self.labels.clone(), 0, 0);
        for segment in self.files.iter().flat_map(|file| &file.segments) {
            let at = match &segment.labels {
                None => 0,
                Some(labels) => match parts.iter().position(|part| part.labels == *labels) {
                    Some(at) => at,
                    None if parts.len() == limits::PARTS_PER_ARTEFACT_MAX => return Err(ManifestError::TooManyParts),
                    None => {
                        parts.push(Part { labels: labels.clone(), tensors: 0, bytes: 0 });
                        parts.len().saturating_sub(1)
                    }
                },
            };
            if let Some(part) = parts.get_mut(at) {
                let tensors = u32::from(matches!(segment.kind, SegmentKind::Tensor { .. }));
                part.tensors = part.tensors.checked_add(tensors).ok_or(ManifestError::Overflow)?;
                part.bytes = part.bytes.checked_add(segment.bytes).ok_or(ManifestError::Overflow)?;
            }
        }
        Ok(parts)
    }
}

impl Manifest {
    /// The groups of the segments whose labels are admitted.
    #[must_use]
    pub fn runs_admitted(&self, admits: impl Fn(&BTreeSet<Label>) -> bool) -> Vec<(u64, u64)> {
        let (mut runs, mut next): (Vec<(u64, u64)>, u64) = (Vec::new(), 0);
        for segment in self.files().iter().flat_map(|file| &file.segments) {
            let first = next;
            next = next.saturating_add(segment.group_count());
            match runs.last_mut() {
                _ if first == next || !admits(segment.labels_in(self.own_labels())) => {}
                Some((_, end)) if *end == first => *end = next,
                _ => runs.push((first, next)),
            }
        }
        runs
    }
}

impl Segment {
    /// The labels that it has in an artefact whose own labels these are.
    #[must_use]
    pub fn labels_in<'a>(&'a self, artefact: &'a BTreeSet<Label>) -> &'a BTreeSet<Label> {
        self.labels.as_ref().unwrap_or(artefact)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::{
        runs_of,
        tests::{made, opaque, tensors},
    };

    fn labels(labels: &[Label]) -> BTreeSet<Label> {
        labels.iter().copied().collect()
    }

    #[test]
    fn parts_are_those_of_one_artefact_or_refused() {
        let part = |of: &[Label], tensors, bytes| Part { labels: labels(of), tensors, bytes };
        let whole = labels(&[Label::Public, Label::Health]);
        let (open, closed) = (part(&[Label::Public], 3, 30), part(&[Label::Public, Label::Health], 2, 20));
        let good = vec![open.clone(), closed.clone()];
        let many = vec![open.clone(); limits::PARTS_PER_ARTEFACT_MAX + 1];
        let table = [
            (good.clone(), Ok(())),
            (Part::alone(whole.clone(), 5, 50), Ok(())),
            (vec![], Err(PartsError::None)),
            (many, Err(PartsError::TooMany)),
            (vec![open.clone(), part(&[], 2, 20)], Err(PartsError::NoLabel)),
            (vec![open.clone(), closed.clone(), part(&[Label::Public], 0, 0)], Err(PartsError::SameLabels)),
            (vec![open.clone(), part(&[Label::Genetic], 2, 20)], Err(PartsError::Labels)),
            (vec![part(&[Label::Public], 5, 50)], Err(PartsError::Labels)),
            (vec![open.clone(), part(&[Label::Health], 1, 20)], Err(PartsError::Sum)),
            (vec![open.clone(), part(&[Label::Health], 2, 21)], Err(PartsError::Sum)),
            (vec![open, part(&[Label::Health], 2, u64::MAX)], Err(PartsError::Sum)),
        ];
        for (at, (parts, expected)) in table.into_iter().enumerate() {
            assert_eq!(check_parts(&parts, &whole, 5, 50), expected, "case {at}");
        }
        assert_eq!(check_parts(&good, &whole, 4, 50), Err(PartsError::Sum));
    }

    /// The sets of labels that segments have here: that of the artefact, left out or written, and others.
    const SETS: [Option<&[Label]>; 4] =
        [None, Some(&[Label::Public]), Some(&[Label::Health]), Some(&[Label::Public, Label::Health])];

    /// The labels of the segment that a group lies in, found by where it begins in its file.
    fn labels_of_group(manifest: &Manifest, index: u64) -> BTreeSet<Label> {
        let group = manifest.group(index).expect("a group");
        let mut end = 0;
        let segments = &manifest.files()[group.file as usize].segments;
        let segment = segments.iter().find(|segment| {
            end += segment.bytes;
            group.offset < end
        });
        segment.expect("it lies in one").labels.clone().unwrap_or_else(|| labels(&[Label::Public]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_runs_that_are_admitted_are_those_of_each_group_by_itself(
            // Nothing, less than a group, a group, a little more, several.
            segments in prop::collection::vec((prop::sample::select(vec![0, 1, 262_144, 262_145, 600_000]), 0..4_usize), 0..8),
            (before, between) in (0..4_usize, prop::sample::select(vec![0, 3, 300_000])),
            admitted in any::<[bool; 3]>(),
        ) {
            let labelled = |at: usize| SETS[at].map(labels);
            let (mut one, _) = tensors("a", &segments.iter().map(|(length, _)| *length).collect::<Vec<_>>());
            one.segments[0].labels = labelled(before);
            for (segment, (_, at)) in one.segments.iter_mut().skip(1).zip(&segments) {
                segment.labels = labelled(*at);
            }
            let (mut other, _) = tensors("c", &[5]);
            other.segments[1].labels = labelled(2);
            let manifest = made(vec![one, opaque("b", &vec![7; between]), other]).expect("a manifest");
            let admits = |of: &BTreeSet<Label>| {
                let at = SETS.iter().skip(1).position(|known| known.map(labels).as_ref() == Some(of));
                admitted[at.expect("one of those")]
            };
            let each = (0..manifest.group_count()).map(|index| admits(&labels_of_group(&manifest, index)));
            prop_assert_eq!(manifest.runs_admitted(admits), runs_of(each));
            prop_assert_eq!(manifest.runs_admitted(|_| true), runs_of((0..manifest.group_count()).map(|_| true)));
            prop_assert_eq!(manifest.runs_admitted(|_| false), vec![]);
            let bytes: u64 =
                manifest.parts().iter().filter(|part| admits(&part.labels)).map(|part| part.bytes).sum();
            prop_assert_eq!(manifest.bytes_of_runs(&manifest.runs_admitted(admits)), bytes);
        }
    }
}
