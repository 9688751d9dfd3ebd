//! The manifest of an artefact: its files, their segments (header, tensors, or opaque bytes) and the groups in which they are
//! moved and verified.
//!
//! Holding a [`Manifest`] proves that it is whole: paths are safe and distinct, segments cover each file without holes, the
//! length of a tensor follows from its shape, and the chaining values of the groups of a segment give its hash. It never says
//! that the bytes on a disk are these; [`Manifest::verify_group`] does, one group at a time. Specified in `specs/`.

mod check;
mod dtype;
mod extents;
mod hash;
mod header;
mod parts;
mod path;
mod runs;
mod selection;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub use self::{
    check::{FileFault, ManifestError},
    dtype::{Dtype, UnknownDtype},
    extents::{Extent, Placed, Untrue},
    hash::SegmentHasher,
    parts::{Part, PartsError, check_parts},
    path::{PathError, check_path, is_printable},
    runs::{RUN_BYTES, decode_runs, encode_runs, runs_of},
    selection::{Candidate, Content, PartialFile, Place, Selection, SelectionError},
};
use crate::{
    envelope::{self, at_most},
    id::{ContentId, ManifestId, Sha256},
    limits,
    vocabulary::{Artefact, Label},
};

/// The only version of the encoding so far.
const VERSION: u32 = 1;

/// Bytes of a tensor's name. The longest in use have about 120.
pub const TENSOR_NAME_BYTES_MAX: usize = limits::PATH_BYTES_MAX;

/// What an artefact consists of. Cheap to clone; never changes.
#[derive(Clone)]
pub struct Manifest(Arc<Inner>);

struct Inner {
    body: Body,
    id: ManifestId,
    bytes: u64,
    tensors: u32,
    group_count: u64,
    parts: Vec<Part>,
    /// One for each segment that has groups, in order.
    starts: Vec<Start>,
}

/// Where the groups of a segment begin.
struct Start {
    /// The number of its first group.
    group: u64,
    file: u32,
    segment: u32,
    /// Where the segment begins in its file.
    offset: u64,
    /// Bytes of the artefact before the segment.
    before: u64,
    bytes: u64,
}

/// The encoded form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(deserialize_with = "at_most::<_, _, { limits::FILES_PER_MANIFEST_MAX }>")]
    files: Vec<File>,
    labels: BTreeSet<Label>,
    version: u32,
    artefact: Artefact,
}

/// One file of an artefact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Relative, with `/` between its parts; see [`check_path`].
    pub path: String,
    pub bytes: u64,
    /// What the exporter says the SHA-256 is, for existing clients. Not checked while the bytes move.
    pub sha256: Sha256,
    /// In order, without holes: none for an empty file, one opaque segment, or a header and then tensors.
    #[serde(deserialize_with = "at_most::<_, _, { limits::TENSORS_PER_FILE_MAX + 1 }>")]
    pub segments: Vec<Segment>,
}

/// A range of a file that has a hash of its own. Short names keep the manifest of 100,000 tensors small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    #[serde(rename = "b")]
    pub bytes: u64,
    /// The chaining values of the groups, 32 bytes each; empty where the segment has one group or none.
    #[serde(rename = "g", default, skip_serializing_if = "is_empty")]
    pub groups: ByteBuf,
    /// BLAKE3 of the bytes.
    #[serde(rename = "h")]
    pub hash: ContentId,
    #[serde(rename = "k")]
    pub kind: SegmentKind,
    /// The labels of this segment where they differ from the artefact's.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeSet<Label>>,
}

/// What a segment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum SegmentKind {
    /// The length and the JSON at the start of a safetensors file.
    #[serde(rename = "h")]
    Header,
    #[serde(rename = "t")]
    Tensor {
        #[serde(rename = "n")]
        name: String,
        #[serde(rename = "d")]
        dtype: Dtype,
        #[serde(rename = "s", deserialize_with = "at_most::<_, _, { limits::DIMENSIONS_MAX }>")]
        shape: Vec<u64>,
    },
    /// A whole file without known structure.
    #[serde(rename = "o")]
    Opaque,
}

/// The unit in which bytes are moved and verified. Only a [`Manifest`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number among all groups of the artefact.
    pub index: u64,
    /// The number of its file in [`Manifest::files`].
    pub file: u32,
    /// Where it begins in its file.
    pub offset: u64,
    /// Its length, at most [`limits::GROUP_BYTES`] and at least 1.
    pub bytes: u32,
    /// The number of its segment in its file.
    segment: u32,
    proof: Proof,
}

/// What the bytes of a group are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// It is its whole segment, which has this hash.
    Whole([u8; 32]),
    /// It is the subtree that begins at this offset of its segment and has this chaining value.
    Subtree(u64, [u8; 32]),
}

impl Manifest {
    /// Puts a manifest together; files may come in any order and stand by their path afterwards.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn new(artefact: Artefact, labels: BTreeSet<Label>, mut files: Vec<File>) -> Result<Self, ManifestError> {
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        let body = Body { files, labels, version: VERSION, artefact };
        body.check()?;
        let encoded = envelope::encode(&body);
        if encoded.len() > limits::MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { bytes: encoded.len() });
        }
        body.index(&encoded)
    }

    /// Reads a manifest in its one canonical encoding.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > limits::MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { bytes: bytes.len() });
        }
        let body: Body = envelope::decode(bytes).map_err(ManifestError::Encoding)?;
        body.check()?;
        body.index(bytes)
    }

    /// The canonical encoding (DAG-CBOR).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        envelope::encode(&self.0.body)
    }

    /// BLAKE3 of the encoding.
    #[must_use]
    pub fn id(&self) -> ManifestId {
        self.0.id
    }

    #[must_use]
    pub fn artefact(&self) -> Artefact {
        self.0.body.artefact
    }

    /// The union of the labels of the artefact and of all its segments.
    #[must_use]
    pub fn labels(&self) -> BTreeSet<Label> {
        self.0.parts.iter().flat_map(|part| &part.labels).copied().collect()
    }

    /// The labels of every segment that has none of its own.
    #[must_use]
    pub fn own_labels(&self) -> &BTreeSet<Label> {
        &self.0.body.labels
    }

    /// What of it has the same labels, taken together: at least one, each with labels of its own. The first has the labels
    /// of [`Self::own_labels`], the others stand in the order in which they first appear.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0.parts
    }

    /// Ascending by path.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.0.body.files
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    #[must_use]
    pub fn tensors(&self) -> u32 {
        self.0.tensors
    }

    #[must_use]
    pub fn group_count(&self) -> u64 {
        self.0.group_count
    }

    /// The group with this number.
    #[must_use]
    pub fn group(&self, index: u64) -> Option<Group> {
        if index >= self.0.group_count {
            return None;
        }
        let start = self.start_of(index)?;
        let within = index.checked_sub(start.group)?.checked_mul(limits::GROUP_BYTES)?;
        let segment = self.segment(start.file, start.segment)?;
        let bytes = u32::try_from(segment.bytes.checked_sub(within)?.min(limits::GROUP_BYTES)).ok()?;
        let proof = if segment.groups.is_empty() {
            Proof::Whole(segment.hash.0)
        } else {
            let at = usize::try_from(index.checked_sub(start.group)?).ok()?;
            let (values, _) = segment.groups.as_chunks::<{ hash::CHAINING_VALUE_BYTES }>();
            Proof::Subtree(within, *values.get(at)?)
        };
        let offset = start.offset.checked_add(within)?;
        Some(Group { index, file: start.file, offset, bytes, segment: start.segment, proof })
    }

    /// Every group, in order.
    pub fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        (0..self.0.group_count).filter_map(|index| self.group(index))
    }

    /// Bytes of the groups in these runs, which are taken to be valid.
    #[must_use]
    pub fn bytes_of_runs(&self, runs: &[(u64, u64)]) -> u64 {
        let bytes = |(first, end): &(u64, u64)| self.bytes_before(*end).saturating_sub(self.bytes_before(*first));
        runs.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Whether these are the bytes of the group.
    #[must_use]
    pub fn verify_group(&self, group: &Group, bytes: &[u8]) -> bool {
        // A group of another manifest, or an altered one, verifies nothing.
        if self.group(group.index).as_ref() != Some(group) || u32::try_from(bytes.len()) != Ok(group.bytes) {
            return false;
        }
        match group.proof {
            Proof::Whole(hash) => *blake3::hash(bytes).as_bytes() == hash,
            Proof::Subtree(offset, value) => hash::subtree(offset, bytes) == Some(value),
        }
    }

    /// Where a group lies, for messages: file, tensor, bytes.
    #[must_use]
    pub fn describe_group(&self, group: &Group) -> String {
        let Some(file) = usize::try_from(group.file).ok().and_then(|at| self.files().get(at)) else {
            return format!("group {}", group.index);
        };
        let what = self.segment(group.file, group.segment).map_or_else(String::new, |segment| segment.kind.describe());
        let end = group.offset.saturating_add(u64::from(group.bytes));
        format!("`{}`{what}, bytes {}..{end}", file.path, group.offset)
    }

    fn segment(&self, file: u32, segment: u32) -> Option<&Segment> {
        let file = self.files().get(usize::try_from(file).ok()?)?;
        file.segments.get(usize::try_from(segment).ok()?)
    }

    fn start_of(&self, index: u64) -> Option<&Start> {
        let after = self.0.starts.partition_point(|start| start.group <= index);
        self.0.starts.get(after.checked_sub(1)?)
    }

    /// Bytes of all groups before this one.
    fn bytes_before(&self, index: u64) -> u64 {
        if index >= self.0.group_count {
            return self.0.bytes;
        }
        self.start_of(index).map_or(0, |start| {
            let within = index.saturating_sub(start.group).saturating_mul(limits::GROUP_BYTES);
            start.before.saturating_add(within.min(start.bytes))
        })
    }
}

impl Segment {
    /// The segment that these bytes are, with the labels of its artefact.
    #[must_use]
    pub fn of(kind: SegmentKind, bytes: &[u8]) -> Self {
        let mut hasher = SegmentHasher::new();
        hasher.update(bytes);
        Self::hashed(kind, hasher)
    }

    /// The segment whose bytes a hasher has taken, with the labels of its artefact.
    #[must_use]
    pub fn hashed(kind: SegmentKind, hasher: SegmentHasher) -> Self {
        let bytes = hasher.bytes();
        let (hash, groups) = hasher.finish();
        Self { bytes, groups: ByteBuf::from(groups), hash, kind, labels: None }
    }

    /// How many groups it has.
    #[must_use]
    pub const fn group_count(&self) -> u64 {
        self.bytes.div_ceil(limits::GROUP_BYTES)
    }
}

impl SegmentKind {
    /// What it is, to follow the name of its file in a message.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Header => ", header".to_owned(),
            Self::Tensor { name, .. } => format!(", tensor `{name}`"),
            Self::Opaque => String::new(),
        }
    }
}

impl Body {
    /// Numbers the groups. The encoding is the canonical one of this body, which has been checked.
    fn index(self, encoded: &[u8]) -> Result<Manifest, ManifestError> {
        let id = ManifestId(*blake3::hash(encoded).as_bytes());
        let parts = self.parts()?;
        let (mut bytes, mut tensors, mut group_count, mut starts) = (0_u64, 0_u32, 0_u64, Vec::new());
        for (at, file) in self.files.iter().enumerate() {
            let mut offset = 0_u64;
            for (part, segment) in file.segments.iter().enumerate() {
                if matches!(segment.kind, SegmentKind::Tensor { .. }) {
                    tensors = tensors.checked_add(1).ok_or(ManifestError::Overflow)?;
                }
                if segment.bytes > 0 {
                    let file = u32::try_from(at).map_err(|_| ManifestError::Overflow)?;
                    let part = u32::try_from(part).map_err(|_| ManifestError::Overflow)?;
                    let (group, before) = (group_count, bytes);
                    starts.push(Start { group, file, segment: part, offset, before, bytes: segment.bytes });
                }
                group_count = group_count.checked_add(segment.group_count()).ok_or(ManifestError::Overflow)?;
                offset = offset.checked_add(segment.bytes).ok_or(ManifestError::Overflow)?;
                bytes = bytes.checked_add(segment.bytes).ok_or(ManifestError::Overflow)?;
            }
        }
        Ok(Manifest(Arc::new(Inner { body: self, id, bytes, tensors, group_count, parts, starts })))
    }
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Manifest {}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("id", &self.id())
            .field("artefact", &self.artefact())
            .field("files", &self.files().len())
            .field("tensors", &self.tensors())
            .field("bytes", &self.bytes())
            .finish()
    }
}

fn is_empty(bytes: &ByteBuf) -> bool {
    bytes.is_empty()
}
