//! Which tensors and files of an artefact have labels of their own.

use std::{collections::BTreeSet, str::FromStr};

use alliance_protocol::{
    limits,
    manifest::{Segment, SegmentKind},
    vocabulary::Label,
};

use super::pattern::{BadPattern, Matcher, TensorPattern};

/// `PATTERN=LABELS`: labels of what a pattern fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelsOf {
    pattern: TensorPattern,
    labels: BTreeSet<Label>,
}

/// Why an argument does not say which labels something has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabelsOf {
    #[error("`{0}` is not of the form PATTERN=LABELS, such as 'lora_*=personal,health'")]
    Form(String),
    #[error("the pattern of `{text}` cannot be used: {reason}")]
    Pattern { text: String, reason: String },
    #[error("{0}")]
    Label(String),
}

/// The patterns of one import, and which of them have fitted something.
pub(super) struct Labelling<'a> {
    /// What has no label of its own has these.
    artefact: &'a BTreeSet<Label>,
    patterns: Vec<Pattern<'a>>,
}

struct Pattern<'a> {
    matcher: Matcher,
    of: &'a LabelsOf,
    used: bool,
}

impl FromStr for LabelsOf {
    type Err = BadLabelsOf;

    fn from_str(text: &str) -> Result<Self, BadLabelsOf> {
        let shown = || text.chars().take(limits::NAME_BYTES_MAX).collect::<String>();
        let (pattern, labels) = text.rsplit_once('=').ok_or_else(|| BadLabelsOf::Form(shown()))?;
        if labels.is_empty() {
            return Err(BadLabelsOf::Form(shown()));
        }
        let pattern = pattern.parse().map_err(|error| match error {
            BadPattern::Length(_) => BadLabelsOf::Form(shown()),
            BadPattern::Glob { reason, .. } => BadLabelsOf::Pattern { text: shown(), reason },
        })?;
        let labels: Result<_, _> = labels.split(',').map(|label| label.trim().parse()).collect();
        let labels =
            labels.map_err(|error: alliance_protocol::vocabulary::UnknownWord| BadLabelsOf::Label(error.to_string()))?;
        Ok(Self { pattern, labels })
    }
}

impl<'a> Labelling<'a> {
    pub(super) fn new(artefact: &'a BTreeSet<Label>, own: &'a [LabelsOf]) -> Self {
        let compiled = |of: &'a LabelsOf| Pattern { matcher: of.pattern.matcher(), of, used: false };
        let patterns = own.iter().map(compiled).collect();
        Self { artefact, patterns }
    }

    /// Gives the segments of a file their labels. What several patterns fit has the labels of all of them. The header of a
    /// file tells of its tensors, so it has all their labels.
    pub(super) fn apply(&mut self, path: &str, segments: &mut [Segment]) {
        if self.patterns.is_empty() {
            return;
        }
        let mut of_tensors = BTreeSet::new();
        for segment in segments.iter_mut() {
            segment.labels = match &segment.kind {
                SegmentKind::Tensor { name, .. } => self.fitting(|pattern| pattern.fits_tensor(path, name)),
                SegmentKind::Opaque => self.fitting(|pattern| pattern.fits_file(path)),
                SegmentKind::Header => None,
            };
            if matches!(segment.kind, SegmentKind::Tensor { .. }) {
                of_tensors.extend(segment.labels_in(self.artefact).iter().copied());
            }
        }
        if let [header, _, ..] = segments
            && header.kind == SegmentKind::Header
        {
            header.labels = Some(of_tensors).filter(|labels| labels != self.artefact);
        }
    }

    /// The first pattern that has fitted nothing, which is a mistake of whoever wrote it.
    pub(super) fn unused(&self) -> Option<String> {
        self.patterns.iter().find(|pattern| !pattern.used).map(|pattern| pattern.of.pattern.as_str().to_owned())
    }

    /// The labels that the patterns which fit give together.
    fn fitting(&mut self, fits: impl Fn(&Matcher) -> bool) -> Option<BTreeSet<Label>> {
        let mut found = BTreeSet::new();
        for pattern in self.patterns.iter_mut().filter(|pattern| fits(&pattern.matcher)) {
            pattern.used = true;
            found.extend(pattern.of.labels.iter().copied());
        }
        Some(found).filter(|labels| !labels.is_empty() && labels != self.artefact)
    }
}

#[cfg(test)]
mod tests {
    use alliance_protocol::manifest::Dtype;

    use super::*;

    fn labels(labels: &[Label]) -> BTreeSet<Label> {
        labels.iter().copied().collect()
    }

    fn segments(tensors: &[&str]) -> Vec<Segment> {
        let tensor = |name: &&str| SegmentKind::Tensor { name: (*name).to_owned(), dtype: Dtype::U8, shape: vec![1] };
        let kinds = std::iter::once(SegmentKind::Header).chain(tensors.iter().map(tensor));
        kinds.map(|kind| Segment::of(kind, &[0])).collect()
    }

    #[test]
    fn patterns_are_parsed_or_refused() {
        let good: LabelsOf = "model.*.lora_?=personal, health".parse().expect("good");
        assert_eq!(good.labels, labels(&[Label::Personal, Label::Health]));
        assert_eq!("a=b=public".parse::<LabelsOf>().expect("good").pattern.as_str(), "a=b");
        let long = format!("{}=public", "a".repeat(limits::PATH_BYTES_MAX + 1));
        for bad in ["", "public", "=public", "a=", "a=,", "a=secret", "a[=public", &long] {
            assert!(bad.parse::<LabelsOf>().is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_go_to_what_fits_and_a_header_has_those_of_its_tensors() {
        let artefact = labels(&[Label::Public]);
        let own: Vec<LabelsOf> =
            ["*lora*=personal", "*lora_b=health", "adapter*::*=synthetic", "base.0=public", "nothing=public"]
                .map(|text| text.parse().expect("good"))
                .into();
        let mut labelling = Labelling::new(&artefact, &own);
        let mut base = segments(&["base.0", "base.0.lora_a", "base.0.lora_b"]);
        labelling.apply("model.safetensors", &mut base);
        let found: Vec<_> = base.iter().map(|segment| segment.labels_in(&artefact).clone()).collect();
        let (personal, health) = ([Label::Personal], [Label::Personal, Label::Health]);
        let header = labels(&[Label::Public, Label::Personal, Label::Health]);
        assert_eq!(found, [header, artefact.clone(), labels(&personal), labels(&health)]);
        assert_eq!(base[1].labels, None, "the labels of the artefact are not written again");
        let mut adapter = segments(&["x"]);
        labelling.apply("adapter.safetensors", &mut adapter);
        assert!(adapter.iter().all(|segment| segment.labels == Some(labels(&[Label::Synthetic]))));
        assert_eq!(labelling.unused(), Some("nothing".to_owned()));
    }
}
