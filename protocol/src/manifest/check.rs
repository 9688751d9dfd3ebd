//! What must hold of a manifest. Nothing is repaired here: a body either holds or is refused.

use std::collections::HashSet;

use super::{
    Body, File, Segment, SegmentKind, TENSOR_NAME_BYTES_MAX, VERSION,
    hash::{CHAINING_VALUE_BYTES, merge},
    path::{PathError, check_path, find_clash, is_printable},
};
use crate::limits;

/// Why bytes or files are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error(
        "the manifest would have {bytes} bytes, more than the {max} allowed; split the artefact in two",
        max = limits::MANIFEST_BYTES_MAX
    )]
    TooLarge { bytes: usize },
    #[error("not a manifest in canonical DAG-CBOR: {0}")]
    Encoding(String),
    #[error("version {0} of the manifest's encoding is not known here; a newer release may read it")]
    Version(u32),
    #[error("the artefact declares no label; declare at least one")]
    NoLabel,
    #[error("the artefact has no file")]
    NoFile,
    #[error("{files} files are more than the {max} that one artefact may have", max = limits::FILES_PER_MANIFEST_MAX)]
    TooManyFiles { files: usize },
    #[error("`{path}` cannot be the path of a file: {fault}")]
    Path {
        path: String,
        #[source]
        fault: PathError,
    },
    #[error("the files are not in the order of their paths, at `{0}`")]
    Order(String),
    #[error("`{0}` clashes with another path (the same but for capital letters, or a file where a directory is needed)")]
    Clash(String),
    #[error("`{path}`: {fault}")]
    File {
        path: String,
        #[source]
        fault: FileFault,
    },
    #[error(
        "the artefact has more than {max} sets of labels; give more of its tensors the same",
        max = limits::PARTS_PER_ARTEFACT_MAX
    )]
    TooManyParts,
    #[error("the lengths do not fit into 64 bits")]
    Overflow,
}

/// What is wrong with the description of one file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    #[error("its parts have {parts} bytes together, the file {bytes}")]
    Length { bytes: u64, parts: u64 },
    #[error("its parts are neither one opaque part nor a header followed by tensors")]
    Structure,
    #[error("its header has {0} bytes, more than allowed")]
    HeaderTooLong(u64),
    #[error("more than {max} tensors", max = limits::TENSORS_PER_FILE_MAX)]
    TooManyTensors,
    #[error("part {part} is empty but not a tensor")]
    EmptyPart { part: usize },
    #[error("part {part} has {found} bytes of group hashes instead of {expected}")]
    GroupCount { part: usize, expected: u64, found: u64 },
    #[error("the group hashes of part {part} do not give its hash")]
    GroupHashes { part: usize },
    #[error("part {part} has an empty set of labels")]
    NoLabel { part: usize },
    #[error("part {part} has a tensor name that is empty, too long or has control characters")]
    TensorName { part: usize },
    #[error("two tensors are named `{0}`")]
    TwoTensors(String),
    #[error("tensor `{name}` has {bytes} bytes, which its type and shape do not give")]
    TensorLength { name: String, bytes: u64 },
    #[error("tensor `{0}` has more than {max} dimensions", max = limits::DIMENSIONS_MAX)]
    TooManyDimensions(String),
}

impl Body {
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        if self.version != VERSION {
            return Err(ManifestError::Version(self.version));
        }
        if self.labels.is_empty() {
            return Err(ManifestError::NoLabel);
        }
        if self.files.is_empty() {
            return Err(ManifestError::NoFile);
        }
        if self.files.len() > limits::FILES_PER_MANIFEST_MAX {
            return Err(ManifestError::TooManyFiles { files: self.files.len() });
        }
        for file in &self.files {
            check_path(&file.path).map_err(|fault| ManifestError::Path { path: shown(&file.path), fault })?;
        }
        if let Some(file) = self.files.iter().zip(self.files.iter().skip(1)).find(|(one, next)| one.path > next.path) {
            return Err(ManifestError::Order(file.1.path.clone()));
        }
        if let Some(path) = find_clash(self.files.iter().map(|file| file.path.as_str())) {
            return Err(ManifestError::Clash(path.to_owned()));
        }
        self.files
            .iter()
            .try_for_each(|file| file.check().map_err(|fault| ManifestError::File { path: file.path.clone(), fault }))
    }
}

impl File {
    fn check(&self) -> Result<(), FileFault> {
        let parts = self.segments.iter().try_fold(0_u64, |sum, segment| sum.checked_add(segment.bytes));
        if parts != Some(self.bytes) {
            return Err(FileFault::Length { bytes: self.bytes, parts: parts.unwrap_or(u64::MAX) });
        }
        if self.segments.len() > limits::TENSORS_PER_FILE_MAX.saturating_add(1) {
            return Err(FileFault::TooManyTensors);
        }
        let is_tensor = |segment: &Segment| matches!(segment.kind, SegmentKind::Tensor { .. });
        let plausible = match self.segments.split_first() {
            None => true,
            Some((first, rest)) => match first.kind {
                SegmentKind::Opaque => rest.is_empty(),
                SegmentKind::Header => rest.iter().all(is_tensor),
                SegmentKind::Tensor { .. } => false,
            },
        };
        if !plausible {
            return Err(FileFault::Structure);
        }
        let mut names = HashSet::new();
        for (part, segment) in self.segments.iter().enumerate() {
            segment.check(part)?;
            if let SegmentKind::Tensor { name, .. } = &segment.kind
                && !names.insert(name)
            {
                return Err(FileFault::TwoTensors(name.clone()));
            }
        }
        Ok(())
    }
}

impl Segment {
    fn check(&self, part: usize) -> Result<(), FileFault> {
        match &self.kind {
            SegmentKind::Header if self.bytes > limits::SAFETENSORS_HEADER_BYTES_MAX.saturating_add(8) => {
                return Err(FileFault::HeaderTooLong(self.bytes));
            }
            SegmentKind::Header | SegmentKind::Opaque if self.bytes == 0 => return Err(FileFault::EmptyPart { part }),
            SegmentKind::Header | SegmentKind::Opaque => {}
            SegmentKind::Tensor { name, dtype, shape } => {
                if name.is_empty() || name.len() > TENSOR_NAME_BYTES_MAX || !is_printable(name) {
                    return Err(FileFault::TensorName { part });
                }
                if shape.len() > limits::DIMENSIONS_MAX {
                    return Err(FileFault::TooManyDimensions(name.clone()));
                }
                if dtype.bytes(shape) != Some(self.bytes) {
                    return Err(FileFault::TensorLength { name: name.clone(), bytes: self.bytes });
                }
            }
        }
        if self.labels.as_ref().is_some_and(std::collections::BTreeSet::is_empty) {
            return Err(FileFault::NoLabel { part });
        }
        self.check_groups(part)
    }

    fn check_groups(&self, part: usize) -> Result<(), FileFault> {
        let groups = self.group_count();
        let value_bytes = u64::try_from(CHAINING_VALUE_BYTES).unwrap_or(u64::MAX);
        let expected = if groups > 1 { groups.saturating_mul(value_bytes) } else { 0 };
        let found = u64::try_from(self.groups.len()).unwrap_or(u64::MAX);
        if found != expected {
            return Err(FileFault::GroupCount { part, expected, found });
        }
        let holds = match groups {
            0 => self.hash.0 == *blake3::hash(&[]).as_bytes(),
            // One group is verified by the hash itself when its bytes come.
            1 => true,
            _ => merge(&self.groups) == Some(self.hash),
        };
        if holds { Ok(()) } else { Err(FileFault::GroupHashes { part }) }
    }
}

/// A path that may be anything, shortened and made fit for a terminal.
fn shown(path: &str) -> String {
    path.chars().take(limits::NAME_BYTES_MAX).flat_map(char::escape_debug).collect()
}
