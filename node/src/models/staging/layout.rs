//! What is received: all of an artefact, or a part of it that is an artefact by itself.
//!
//! Groups have the numbers of the whole, and are verified by its manifest, in either case. Of a part, some lie elsewhere, and
//! the headers of its files are written here.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use alliance_protocol::{
    id::{ManifestId, Sha256},
    manifest::{Content, Extent, Manifest, Place, Selection},
};
use sha2::Digest as _;

use super::{StagingError, disk};
use crate::models::{digest::BUFFER_BYTES, tree::open_inside};

/// All of an artefact, or a part.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    Whole(Manifest),
    Part(Arc<Selection>),
}

/// A file as it is to lie on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned<'a> {
    pub(super) path: &'a str,
    pub(super) bytes: u64,
    /// What it begins with and nobody sends; nothing, where all of it is sent.
    pub(super) header: &'a [u8],
}

impl Layout {
    /// The manifest by which groups are numbered and verified.
    pub(super) fn manifest(&self) -> &Manifest {
        match self {
            Self::Whole(manifest) => manifest,
            Self::Part(selection) => selection.whole(),
        }
    }

    /// The same for what lies in the same places.
    pub(super) fn id(&self) -> ManifestId {
        match self {
            Self::Whole(manifest) => manifest.id(),
            Self::Part(selection) => selection.id(),
        }
    }

    /// The groups that are to be received.
    pub(super) fn runs(&self) -> Vec<(u64, u64)> {
        match self {
            Self::Whole(manifest) if manifest.group_count() > 0 => vec![(0, manifest.group_count())],
            Self::Whole(_) => Vec::new(),
            Self::Part(selection) => selection.runs().to_vec(),
        }
    }

    /// Ascending by path.
    pub(super) fn files(&self) -> impl Iterator<Item = Planned<'_>> {
        (0_u32..).map_while(|number| self.file(number))
    }

    pub(super) fn file(&self, number: u32) -> Option<Planned<'_>> {
        match self {
            Self::Whole(manifest) => {
                let file = manifest.files().get(usize::try_from(number).ok()?)?;
                Some(Planned { path: &file.path, bytes: file.bytes, header: &[] })
            }
            Self::Part(selection) => {
                let file = selection.file(number)?;
                let header = match file.content {
                    Content::Whole => &[],
                    Content::Rewritten { header } => header,
                };
                Some(Planned { path: file.path, bytes: file.bytes, header })
            }
        }
    }

    /// Where groups lie; none where they are not to be received.
    pub(super) fn place(&self, extent: &Extent) -> Option<Place> {
        match self {
            Self::Whole(_) => Some(Place { file: extent.file, offset: extent.offset }),
            Self::Part(selection) => selection.place(extent),
        }
    }

    /// The manifest of what lies under `files`, when all of it is there.
    pub(super) fn made(&self, files: &Path) -> Result<Manifest, StagingError> {
        let selection = match self {
            Self::Whole(manifest) => return Ok(manifest.clone()),
            Self::Part(selection) => selection,
        };
        let root = files.canonicalize().map_err(|source| disk("read", files, source))?;
        let rewritten = self.files().filter(|file| !file.header.is_empty());
        let digests = rewritten.map(|file| {
            let (opened, _) = open_inside(&root, file.path).map_err(StagingError::Tree)?;
            sha256_of(opened).map_err(|source| disk("read", &root.join(file.path), source))
        });
        let digests = digests.collect::<Result<Vec<_>, _>>()?;
        selection.manifest(&digests).map_err(|error| StagingError::Part(error.to_string()))
    }
}

fn sha256_of(mut file: File) -> io::Result<Sha256> {
    let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0; BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Sha256(hasher.finalize().into())),
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
