//! Which tensors and files of an artefact have labels of their own.

use std::{collections::BTreeSet, str::FromStr};

use alliance_protocol::{
    limits,
    manifest::{Segment, SegmentKind},
    vocabulary::Label,
};
use globset::{Glob, GlobMatcher};

/// Bytes of a pattern: as long as the longest path that it can fit.
const PATTERN_BYTES_MAX: usize = limits::PATH_BYTES_MAX;

/// `PATTERN=LABELS`: labels of the tensors, and of the files without tensors, whose names fit a pattern of `*`, `?`, `[...]`
/// and `{...}`. `FILES::TENSORS=LABELS` is for the tensors of some files only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelsOf {
    /// As it was written, for messages.
    text: String,
    files: Option<Glob>,
    pattern: Glob,
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
    files: Option<GlobMatcher>,
    names: GlobMatcher,
    of: &'a LabelsOf,
    used: bool,
}

impl FromStr for LabelsOf {
    type Err = BadLabelsOf;

    fn from_str(text: &str) -> Result<Self, BadLabelsOf> {
        let shown = || text.chars().take(limits::NAME_BYTES_MAX).collect::<String>();
        let (pattern, labels) = text.rsplit_once('=').ok_or_else(|| BadLabelsOf::Form(shown()))?;
        if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX || labels.is_empty() {
            return Err(BadLabelsOf::Form(shown()));
        }
        let unusable = |error: globset::Error| BadLabelsOf::Pattern { text: shown(), reason: error.kind().to_string() };
        let (files, names) = match pattern.split_once("::") {
            Some((files, names)) => (Some(Glob::new(files).map_err(unusable)?), names),
            None => (None, pattern),
        };
        let (text, pattern) = (pattern.to_owned(), Glob::new(names).map_err(unusable)?);
        let labels: Result<_, _> = labels.split(',').map(|label| label.trim().parse()).collect();
        let labels =
            labels.map_err(|error: alliance_protocol::vocabulary::UnknownWord| BadLabelsOf::Label(error.to_string()))?;
        Ok(Self { text, files, pattern, labels })
    }
}

impl<'a> Labelling<'a> {
    pub(super) fn new(artefact: &'a BTreeSet<Label>, own: &'a [LabelsOf]) -> Self {
        let compiled = |of: &'a LabelsOf| Pattern {
            files: of.files.as_ref().map(Glob::compile_matcher),
            names: of.pattern.compile_matcher(),
            of,
            used: false,
        };
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
                SegmentKind::Tensor { name, .. } => self.fitting(Some(path), name),
                SegmentKind::Opaque => self.fitting(None, path),
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
        self.patterns.iter().find(|pattern| !pattern.used).map(|pattern| pattern.of.text.clone())
    }

    /// The labels of a tensor of this name in a file, or of a file of this name that holds none.
    fn fitting(&mut self, file: Option<&str>, name: &str) -> Option<BTreeSet<Label>> {
        let mut found = BTreeSet::new();
        for pattern in &mut self.patterns {
            let in_file = match (&pattern.files, file) {
                (None, _) => true,
                (Some(files), Some(file)) => files.is_match(file),
                (Some(_), None) => false,
            };
            if in_file && pattern.names.is_match(name) {
                pattern.used = true;
                found.extend(pattern.of.labels.iter().copied());
            }
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
        assert_eq!("a=b=public".parse::<LabelsOf>().expect("good").text, "a=b");
        let long = format!("{}=public", "a".repeat(PATTERN_BYTES_MAX + 1));
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
