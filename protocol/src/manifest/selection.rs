//! A part of an artefact that is an artefact by itself: some tensors, and some files.
//!
//! What is taken crosses as groups of the whole, and each is verified by the manifest of the whole. Where it comes to lie is
//! decided here. A file of which everything is taken stands as it is. One of which only some tensors are taken is *rewritten*:
//! a new header, then these tensors in the order of the whole, without holes. So what follows each other and is taken
//! together stays together, and tensors that the safetensors library put in order, those with the largest elements first,
//! stay aligned. Of what is not taken nothing is told, not even a name.
//!
//! It never sees a byte of a tensor. The SHA-256 of a rewritten file is therefore unknown until its bytes are there:
//! [`Selection::manifest`] takes it last. Everything else was checked when the selection was made. Start with
//! [`Selection::new`]; what a manifest is stands in `specs/`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, iter};

use super::{
    Extent, File, Manifest, ManifestError, Part, Segment, SegmentKind,
    header::{HeaderFault, write_header},
};
use crate::{
    id::{ManifestId, Sha256},
    limits,
    model_signing::SIGNATURE_FILE,
    vocabulary::Label,
};

/// What is taken of an artefact, and where it comes to lie.
#[derive(Clone, Debug)]
pub struct Selection {
    whole: Manifest,
    /// The partial artefact, but for the SHA-256 of rewritten files, which are zero. Never handed out.
    draft: Manifest,
    /// The headers of the rewritten files, by the numbers of these files in `draft`; ascending.
    headers: Vec<(u32, Vec<u8>)>,
    /// Ascending by group.
    stretches: Vec<Stretch>,
    runs: Vec<(u64, u64)>,
    left_out: u32,
}

/// What can be taken by itself.
#[derive(Clone, Copy, Debug)]
pub enum Candidate<'a> {
    /// A tensor of a file.
    Tensor { file: &'a File, segment: &'a Segment, name: &'a str },
    /// A file without tensors: opaque, empty, or a header alone. Only as it is.
    File(&'a File),
}

/// A file of the partial artefact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialFile<'a> {
    /// The same as in the whole.
    pub path: &'a str,
    /// Its length, with the header.
    pub bytes: u64,
    pub content: Content<'a>,
}

/// What a file of the partial artefact consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// The same as in the whole: all of it is fetched.
    Whole,
    /// This header, which whoever writes the file puts at its beginning, and behind it tensors that are fetched.
    Rewritten { header: &'a [u8] },
}

/// Where bytes of the whole come to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of the file among [`Selection::files`].
    pub file: u32,
    /// Where they begin in it.
    pub offset: u64,
}

/// Why something cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("{}", nothing(*left_out))]
    Nothing { left_out: u32 },
    #[error(
        "`{path}` would need a header of {bytes} bytes or more, above the {max} allowed; take fewer of its tensors",
        max = limits::SAFETENSORS_HEADER_BYTES_MAX
    )]
    HeaderTooLarge { path: String, bytes: u64 },
    #[error("`{path}` has a tensor named `__metadata__`, which no safetensors file can have; do not trust who made it")]
    ReservedName { path: String },
    #[error("what fits cannot be an artefact by itself: {0}")]
    Manifest(#[source] ManifestError),
    #[error("{given} SHA-256 for {files} rewritten files")]
    Digests { files: usize, given: usize },
}

fn nothing(left_out: u32) -> String {
    match left_out {
        0 => "no tensor and no file of the artefact fits; check the pattern".to_owned(),
        some => format!("all that fits, {some} tensors or files, may not cross"),
    }
}

/// Groups that lie one after the other in the whole and in the partial artefact.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: u64,
    end: u64,
    /// Where they begin in their file of the whole.
    from: u64,
    to: Place,
}

impl Selection {
    /// Takes what `wants` says of an artefact, as far as `admits` lets it: nothing with labels that it does not admit. `wants`
    /// is asked once about each tensor and about each file without tensors, in the order of the manifest, but for the signature
    /// over the whole, which is never taken. The labels of what is taken stay; the partial artefact has their union, and a new
    /// header the labels of all its tensors.
    ///
    /// # Errors
    /// Nothing is taken, or what is taken cannot be an artefact.
    pub fn new(
        whole: &Manifest,
        admits: impl Fn(&BTreeSet<Label>) -> bool,
        mut wants: impl FnMut(Candidate<'_>) -> bool,
    ) -> Result<Self, SelectionError> {
        let mut taken = Taken::default();
        for file in whole.files() {
            taken.file(whole.own_labels(), file, &admits, &mut wants)?;
        }
        if taken.files.is_empty() {
            return Err(SelectionError::Nothing { left_out: taken.left_out });
        }
        let Taken { files, headers, stretches, left_out, .. } = taken;
        let (labels, files) = labelled(whole.own_labels(), files);
        let draft = Manifest::new(whole.artefact(), labels, files).map_err(SelectionError::Manifest)?;
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for stretch in &stretches {
            match runs.last_mut() {
                Some((_, end)) if *end == stretch.first => *end = stretch.end,
                _ => runs.push((stretch.first, stretch.end)),
            }
        }
        Ok(Self { whole: whole.clone(), draft, headers, stretches, runs, left_out })
    }

    /// The artefact of which this is a part.
    #[must_use]
    pub fn whole(&self) -> &Manifest {
        &self.whole
    }

    /// The groups of the whole that are to be fetched: ascending and apart from each other. None where only tensors without
    /// elements, or empty files, are taken. There may be as many as tensors.
    #[must_use]
    pub fn runs(&self) -> &[(u64, u64)] {
        &self.runs
    }

    /// Bytes of these groups.
    #[must_use]
    pub fn fetched_bytes(&self) -> u64 {
        self.whole.bytes_of_runs(&self.runs)
    }

    /// Bytes of the partial artefact: what is fetched, and the new headers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.draft.bytes()
    }

    /// Tensors, and files without tensors, that were wanted and not admitted.
    #[must_use]
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// The same for every selection that takes the same of the same artefact, and for no other.
    #[must_use]
    pub fn id(&self) -> ManifestId {
        // Hashes of rewritten files are not in it; but what they consist of is.
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.whole.id().0).update(&self.draft.id().0);
        ManifestId(*hasher.finalize().as_bytes())
    }

    /// What of the partial artefact has the same labels, as [`Manifest::parts`].
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        self.draft.parts()
    }

    /// The files of the partial artefact, ascending by path.
    pub fn files(&self) -> impl Iterator<Item = PartialFile<'_>> {
        (0_u32..).map_while(|number| self.file(number))
    }

    /// The one of [`Self::files`] with this number.
    #[must_use]
    pub fn file(&self, number: u32) -> Option<PartialFile<'_>> {
        let file = self.draft.files().get(usize::try_from(number).ok()?)?;
        let header = self.headers.binary_search_by_key(&number, |(of, _)| *of).ok().and_then(|at| self.headers.get(at));
        let content = header.map_or(Content::Whole, |(_, header)| Content::Rewritten { header });
        Some(PartialFile { path: &file.path, bytes: file.bytes, content })
    }

    /// Where the groups of an extent of the whole come to lie, which is in one place; none where one of them is not taken, or
    /// the extent is none of the whole. For a group, ask with `Extent::from(&group)`.
    #[must_use]
    pub fn place(&self, extent: &Extent) -> Option<Place> {
        let at = self.stretches.partition_point(|stretch| stretch.end <= extent.first);
        let stretch = self.stretches.get(at)?;
        if extent.first < stretch.first || extent.end > stretch.end {
            return None;
        }
        let first = self.whole.group(extent.first)?;
        let last = self.whole.group(extent.end.checked_sub(1)?)?;
        let end = last.offset.checked_add(u64::from(last.bytes))?;
        let found = (first.file, first.offset, end.checked_sub(first.offset)?);
        if found != (extent.file, extent.offset, u64::from(extent.bytes)) {
            return None;
        }
        let offset = stretch.to.offset.checked_add(first.offset.checked_sub(stretch.from)?)?;
        Some(Place { file: stretch.to.file, offset })
    }

    /// The manifest of the partial artefact. `rewritten` has the SHA-256 of each rewritten file, in the order of
    /// [`Self::files`].
    ///
    /// # Errors
    /// Their number is not that of the rewritten files.
    pub fn manifest(&self, rewritten: &[Sha256]) -> Result<Manifest, SelectionError> {
        if rewritten.len() != self.headers.len() {
            return Err(SelectionError::Digests { files: self.headers.len(), given: rewritten.len() });
        }
        let mut files = self.draft.files().to_vec();
        for ((at, _), sha256) in self.headers.iter().zip(rewritten) {
            if let Some(file) = usize::try_from(*at).ok().and_then(|at| files.get_mut(at)) {
                file.sha256 = *sha256;
            }
        }
        let labels = self.draft.own_labels().clone();
        Manifest::new(self.draft.artefact(), labels, files).map_err(SelectionError::Manifest)
    }
}

/// What has been taken of the files so far. Each segment has its labels, also where they are the artefact's.
#[derive(Default)]
struct Taken {
    files: Vec<File>,
    headers: Vec<(u32, Vec<u8>)>,
    stretches: Vec<Stretch>,
    /// The number of the next file's first group.
    group: u64,
    left_out: u32,
}

impl Taken {
    /// Takes of the next file of the whole what is wanted and admitted.
    fn file(
        &mut self,
        own: &BTreeSet<Label>,
        file: &File,
        admits: impl Fn(&BTreeSet<Label>) -> bool,
        mut wants: impl FnMut(Candidate<'_>) -> bool,
    ) -> Result<(), SelectionError> {
        // A signature is over the whole, and of a part it would say that something is wrong with it.
        if file.path == SIGNATURE_FILE {
            self.pass(file);
            return Ok(());
        }
        let mut takes = |candidate, admitted: bool| {
            let wanted = wants(candidate);
            self.left_out = self.left_out.saturating_add(u32::from(wanted && !admitted));
            wanted && admitted
        };
        let admitted = |segment: &Segment| admits(segment.labels_in(own));
        let asked = file.segments.iter().map(|segment| match &segment.kind {
            SegmentKind::Tensor { name, .. } => Some(takes(Candidate::Tensor { file, segment, name }, admitted(segment))),
            SegmentKind::Header | SegmentKind::Opaque => None,
        });
        let asked: Vec<Option<bool>> = asked.collect();
        let admits_all = file.segments.iter().all(admitted);
        let mut tensors = asked.iter().flatten();
        let entire = if tensors.clone().next().is_none() {
            takes(Candidate::File(file), admits_all && (!file.segments.is_empty() || admits(own)))
        } else {
            // Its header tells of tensors, and has labels too.
            tensors.all(|taken| *taken) && admits_all
        };
        if entire {
            self.entire(own, file)
        } else if asked.contains(&Some(true)) {
            let kept: Vec<bool> = asked.into_iter().map(|taken| taken == Some(true)).collect();
            self.rewritten(own, file, &kept)
        } else {
            self.pass(file);
            Ok(())
        }
    }

    /// Takes nothing of a file.
    fn pass(&mut self, file: &File) {
        self.group = file.segments.iter().map(Segment::group_count).fold(self.group, u64::saturating_add);
    }

    fn entire(&mut self, own: &BTreeSet<Label>, file: &File) -> Result<(), SelectionError> {
        self.lay(file.segments.iter().map(|segment| (segment, true)), 0)?;
        let segments = file.segments.iter().map(|segment| explicit(own, segment)).collect();
        self.files.push(File { path: file.path.clone(), segments, ..*file });
        Ok(())
    }

    /// Takes the segments for which `kept` says so, which are tensors, and writes a header for them.
    fn rewritten(&mut self, own: &BTreeSet<Label>, file: &File, kept: &[bool]) -> Result<(), SelectionError> {
        let segments = || file.segments.iter().zip(kept.iter().copied());
        let tensors = || segments().filter_map(|(segment, kept)| kept.then_some(segment));
        let path = || file.path.clone();
        let header = write_header(tensors()).map_err(|fault| match fault {
            HeaderFault::TooLarge { bytes } => SelectionError::HeaderTooLarge { path: path(), bytes },
            HeaderFault::ReservedName => SelectionError::ReservedName { path: path() },
        })?;
        let labels = tensors().flat_map(|tensor| tensor.labels_in(own)).copied().collect();
        let first = Segment { labels: Some(labels), ..Segment::of(SegmentKind::Header, &header) };
        self.headers.push((self.number()?, header));
        let bytes = self.lay(segments(), first.bytes)?;
        let segments = iter::once(first).chain(tensors().map(|tensor| explicit(own, tensor))).collect();
        self.files.push(File { path: path(), bytes, sha256: Sha256([0; 32]), segments });
        Ok(())
    }

    /// Lays the segments of a file of the whole that are taken one after the other, from `offset`; returns where they end.
    fn lay<'a>(
        &mut self,
        segments: impl Iterator<Item = (&'a Segment, bool)>,
        mut offset: u64,
    ) -> Result<u64, SelectionError> {
        let overflow = SelectionError::Manifest(ManifestError::Overflow);
        let file = self.number()?;
        let mut from = 0_u64;
        for (segment, taken) in segments {
            let first = self.group;
            self.group = first.saturating_add(segment.group_count());
            if taken {
                match self.stretches.last_mut() {
                    // Two segments that follow each other, but for empty ones, do so in both artefacts.
                    Some(last) if last.end == first && last.to.file == file => last.end = self.group,
                    _ if segment.bytes == 0 => {}
                    _ => self.stretches.push(Stretch { first, end: self.group, from, to: Place { file, offset } }),
                }
                offset = offset.checked_add(segment.bytes).ok_or_else(|| overflow.clone())?;
            }
            from = from.checked_add(segment.bytes).ok_or_else(|| overflow.clone())?;
        }
        Ok(offset)
    }

    /// The number of the next file of the partial artefact.
    fn number(&self) -> Result<u32, SelectionError> {
        u32::try_from(self.files.len()).map_err(|_| SelectionError::Manifest(ManifestError::Overflow))
    }
}

/// The segment with its labels written out, in an artefact that has these of its own.
fn explicit(own: &BTreeSet<Label>, segment: &Segment) -> Segment {
    Segment { labels: Some(segment.labels_in(own).clone()), ..segment.clone() }
}

/// The labels of the partial artefact, and its files with the labels that differ from them. They are the whole's where
/// anything that is taken has these; an empty file has them by its name. Otherwise they are the union of what is taken.
fn labelled(whole: &BTreeSet<Label>, mut files: Vec<File>) -> (BTreeSet<Label>, Vec<File>) {
    let segments = || files.iter().flat_map(|file| &file.segments);
    let has_own = files.iter().any(|file| file.segments.is_empty())
        || segments().any(|segment| segment.labels.as_ref() == Some(whole));
    let labels: BTreeSet<Label> =
        if has_own { whole.clone() } else { segments().flat_map(|segment| segment.labels_in(whole)).copied().collect() };
    for segment in files.iter_mut().flat_map(|file| &mut file.segments) {
        segment.labels = segment.labels.take().filter(|own| *own != labels);
    }
    (labels, files)
}
