//! The language in which an operator names tensors and files of an artefact: to give them labels, and to take only them.

use std::str::FromStr;

use alliance_protocol::{limits, manifest::Candidate};
use globset::{Glob, GlobMatcher};

/// Bytes of a pattern: as long as the longest path that it can fit.
const PATTERN_BYTES_MAX: usize = limits::PATH_BYTES_MAX;

/// `PATTERN`: the tensors, and the files without tensors, whose names fit a pattern of `*`, `?`, `[...]` and `{...}`.
/// `FILES::TENSORS`: the tensors of some files only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPattern {
    /// As it was written, for messages.
    text: String,
    files: Option<Glob>,
    names: Glob,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("`{0}` is not a pattern of 1 to {max} bytes, such as 'model.layers.0.*'", max = PATTERN_BYTES_MAX)]
    Length(String),
    #[error("the pattern `{text}` cannot be used: {reason}")]
    Glob { text: String, reason: String },
}

/// A pattern, ready to be compared with many names.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    files: Option<GlobMatcher>,
    names: GlobMatcher,
}

/// What each pattern of several takes of an artefact, and which of them have taken something.
#[derive(Debug)]
pub struct Taking<'a>(Vec<(&'a TensorPattern, Matcher, bool)>);

impl FromStr for TensorPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let shown = || text.chars().take(limits::NAME_BYTES_MAX).collect::<String>();
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(BadPattern::Length(shown()));
        }
        let unusable = |error: globset::Error| BadPattern::Glob { text: shown(), reason: error.kind().to_string() };
        let (files, names) = match text.split_once("::") {
            Some((files, names)) => (Some(Glob::new(files).map_err(unusable)?), names),
            None => (None, text),
        };
        Ok(Self { text: text.to_owned(), files, names: Glob::new(names).map_err(unusable)? })
    }
}

impl TensorPattern {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn matcher(&self) -> Matcher {
        Matcher { files: self.files.as_ref().map(Glob::compile_matcher), names: self.names.compile_matcher() }
    }
}

impl Matcher {
    /// Whether it fits a tensor of this name in the file with this path.
    pub(super) fn fits_tensor(&self, path: &str, name: &str) -> bool {
        self.files.as_ref().is_none_or(|files| files.is_match(path)) && self.names.is_match(name)
    }

    /// Whether it fits the file with this path, which has no tensors.
    pub(super) fn fits_file(&self, path: &str) -> bool {
        self.files.is_none() && self.names.is_match(path)
    }
}

impl<'a> Taking<'a> {
    #[must_use]
    pub fn new(patterns: &'a [TensorPattern]) -> Self {
        Self(patterns.iter().map(|pattern| (pattern, pattern.matcher(), false)).collect())
    }

    /// Whether one of the patterns takes this.
    pub fn takes(&mut self, candidate: Candidate<'_>) -> bool {
        let mut taken = false;
        for (_, matcher, used) in &mut self.0 {
            let fits = match candidate {
                Candidate::Tensor { file, name, .. } => matcher.fits_tensor(&file.path, name),
                Candidate::File(file) => matcher.fits_file(&file.path),
            };
            *used |= fits;
            taken |= fits;
        }
        taken
    }

    /// The first pattern that has fitted nothing, which is a mistake of whoever wrote it.
    #[must_use]
    pub fn unused(&self) -> Option<&'a TensorPattern> {
        self.0.iter().find(|(_, _, used)| !used).map(|(pattern, ..)| *pattern)
    }
}

#[cfg(test)]
mod tests;
