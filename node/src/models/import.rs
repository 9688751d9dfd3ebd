//! Makes the manifest of a directory, keeps it, and checks a directory against it later.
//!
//! Each file is read once, with a constant amount of memory, and stays where it is. A file that changes while it is read is
//! refused: the manifest would describe bytes that never stood on the disk together.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io::{self, Read as _, Seek as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use alliance_protocol::{
    core::{BulkFailure, admin::LocalModel},
    id::{CrossingId, ManifestId},
    limits,
    manifest::{self, Manifest, ManifestError},
    offer::{BadName, Provenance, split_name},
    vocabulary::{Artefact, Country, Label},
};

pub use super::verify::{VerifyProblem, VerifyReport, verify};
use super::{
    digest::{BUFFER_BYTES, FileDigest},
    durable,
    inspect::{FormatError, Plan, inspect},
    labelling::{Labelling, LabelsOf},
    tree::{Found, TreeError, open_inside, survey},
};

/// What the operator says of an artefact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRequest {
    /// `organisation/name`.
    pub name: String,
    pub artefact: Artefact,
    /// At least one.
    pub labels: BTreeSet<Label>,
    /// Tensors and files that have other labels.
    pub labels_of: Vec<LabelsOf>,
    pub origin: Country,
    pub subjects: BTreeSet<Country>,
    pub provenance: Provenance,
    /// An SPDX expression, or `other`.
    pub licence: String,
    /// The crossing by which it came, if it did.
    pub crossing: Option<CrossingId>,
}

/// Why a directory was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error("the licence is empty or longer than {max} bytes; name it by its SPDX expression, or `other`", max = limits::NAME_BYTES_MAX)]
    Licence,
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("`{path}` changed while it was read; import again when nothing writes to it")]
    Changed { path: String },
    #[error("cannot read `{path}`: {source}; check the disk")]
    Read { path: String, source: io::Error },
    #[error(
        "the artefact has {bytes} bytes, more than a manifest can describe ({max}); split it in two",
        max = ARTEFACT_BYTES_MAX
    )]
    TooLarge { bytes: u64 },
    #[error("no tensor and no file fits `{pattern}`; say what has these labels, or leave it out")]
    NothingFits { pattern: String },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("cannot keep the manifest in `{}`: {source}; check that the disk has room and can be written", .path.display())]
    Store { path: PathBuf, source: io::Error },
}

/// Why a manifest cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("there is no manifest {0}; import the model again")]
    Missing(ManifestId),
    #[error("the file of manifest {id} is damaged: {source}; import the model again")]
    Damaged { id: ManifestId, source: ManifestError },
    #[error("the file of manifest {id} holds another one, {found}; import the model again")]
    Other { id: ManifestId, found: ManifestId },
    #[error("cannot read `{}`: {source}", .path.display())]
    Disk { path: PathBuf, source: io::Error },
}

impl From<LoadError> for BulkFailure {
    fn from(error: LoadError) -> Self {
        let text = error.to_string();
        match error {
            LoadError::Missing(_) | LoadError::Damaged { .. } | LoadError::Other { .. } => Self::Tampered(text),
            LoadError::Disk { .. } => Self::Disk(text),
        }
    }
}

/// Bytes of an artefact whose group hashes, 32 bytes for each group, fill a manifest. Found out before anything is hashed.
const ARTEFACT_BYTES_MAX: u64 = limits::MANIFEST_BYTES_MAX as u64 / 32 * limits::GROUP_BYTES;

/// Makes the manifest of a directory and keeps it under `manifests` as `ID.manifest`, as [`read`] and [`keep`] do one after
/// the other.
///
/// # Errors
/// What is wrong with the request or the directory. Nothing is left behind then.
pub fn import(
    dir: &Path,
    request: ImportRequest,
    manifests: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<LocalModel, ImportError> {
    let (model, manifest) = read(dir, request, progress)?;
    keep(manifests, &manifest)?;
    Ok(model)
}

/// Keeps the manifest of what was read, so that a node can serve it.
///
/// # Errors
/// The disk failed or is full.
pub fn keep(manifests: &Path, manifest: &Manifest) -> Result<(), ImportError> {
    store_manifest(manifests, manifest).map_err(|source| ImportError::Store { path: manifests.to_owned(), source })
}

/// Reads a directory and makes its manifest; writes nothing. `progress` is told how many bytes have been read, and of how many.
///
/// # Errors
/// What is wrong with the request or the directory.
pub fn read(
    dir: &Path,
    request: ImportRequest,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(LocalModel, Manifest), ImportError> {
    request.check()?;
    let survey = survey(dir)?;
    for skipped in &survey.skipped {
        tracing::info!(directory = %survey.root.display(), skipped, "a hidden name is not part of the artefact");
    }
    let total = survey.bytes();
    if total > ARTEFACT_BYTES_MAX {
        return Err(ImportError::TooLarge { bytes: total });
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut done = 0_u64;
    let mut advance = |bytes: u64| {
        done = done.saturating_add(bytes);
        progress(done, total);
    };
    let mut files = Vec::with_capacity(survey.files.len());
    let mut labelling = Labelling::new(&request.labels, &request.labels_of);
    for found in &survey.files {
        let mut file = read_file(&survey.root, found, &mut buffer, &mut advance)?;
        labelling.apply(&file.path, &mut file.segments);
        files.push(file);
    }
    if let Some(pattern) = labelling.unused() {
        return Err(ImportError::NothingFits { pattern });
    }
    let manifest = Manifest::new(request.artefact, request.labels.clone(), files)?;
    let model = request.describe(&manifest, survey.root);
    Ok((model, manifest))
}

/// Keeps a manifest under `manifests`, whole and durably; one that is there already is left alone.
///
/// # Errors
/// The disk failed or is full.
pub fn store_manifest(manifests: &Path, manifest: &Manifest) -> io::Result<()> {
    if load_manifest(manifests, manifest.id()).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(manifests)?;
    durable::write_atomically(&manifest_path(manifests, manifest.id()), &manifest.encode())
}

/// Loads the manifest with this id from `manifests`.
///
/// # Errors
/// It is not there, or the file holds something else.
pub fn load_manifest(manifests: &Path, id: ManifestId) -> Result<Manifest, LoadError> {
    let path = manifest_path(manifests, id);
    match read_bounded(&path) {
        Ok(bytes) => match Manifest::decode(&bytes) {
            Ok(manifest) if manifest.id() == id => Ok(manifest),
            Ok(other) => Err(LoadError::Other { id, found: other.id() }),
            Err(source) => Err(LoadError::Damaged { id, source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LoadError::Missing(id)),
        Err(source) => Err(LoadError::Disk { path, source }),
    }
}

/// Reads a file that should hold a manifest; one byte more than a manifest may have, at most.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(limits::MANIFEST_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn manifest_path(manifests: &Path, id: ManifestId) -> PathBuf {
    manifests.join(format!("{id}.manifest"))
}

impl ImportRequest {
    /// What the node keeps about an artefact with this manifest that lies at `path`: for one that was pulled, whose manifest
    /// came with it, as well as for one that was imported.
    #[must_use]
    pub fn describe(self, manifest: &Manifest, path: PathBuf) -> LocalModel {
        LocalModel {
            name: self.name,
            manifest: manifest.id(),
            artefact: manifest.artefact(),
            labels: manifest.labels(),
            parts: manifest.parts().to_vec(),
            origin: self.origin,
            subjects: self.subjects,
            provenance: self.provenance,
            licence: self.licence,
            bytes: manifest.bytes(),
            files: u32::try_from(manifest.files().len()).unwrap_or(u32::MAX),
            tensors: manifest.tensors(),
            path,
            crossing: self.crossing,
            signed: None,
        }
    }

    /// What can be told before a hundred gigabytes are hashed.
    fn check(&self) -> Result<(), ImportError> {
        split_name(&self.name)?;
        if self.licence.is_empty() || self.licence.len() > limits::NAME_BYTES_MAX {
            return Err(ImportError::Licence);
        }
        if self.labels.is_empty() {
            return Err(ManifestError::NoLabel.into());
        }
        Ok(())
    }
}

fn read_file(
    root: &Path,
    found: &Found,
    buffer: &mut [u8],
    advance: &mut dyn FnMut(u64),
) -> Result<manifest::File, ImportError> {
    let path = &found.path;
    let (mut file, before) = open_inside(root, path)?;
    let changed = || ImportError::Changed { path: path.clone() };
    let read = |source| ImportError::Read { path: path.clone(), source };
    let bytes = before.len();
    if bytes != found.bytes {
        return Err(changed());
    }
    let Plan { header, parts } = inspect(path, &file, bytes)?;
    let header_bytes = u64::try_from(header.len()).unwrap_or(u64::MAX);
    let mut digest = FileDigest::new(parts.into_iter());
    digest.update(&header);
    drop(header);
    advance(header_bytes);
    file.seek(io::SeekFrom::Start(header_bytes)).map_err(read)?;
    digest.update_from(&mut file, buffer, advance).map_err(read)?;
    let (_, named) = open_inside(root, path)?;
    let after = file.metadata().map_err(read)?;
    if stamp(&before) != stamp(&after) || stamp(&before) != stamp(&named) {
        return Err(changed());
    }
    let (segments, sha256) = digest.finish().ok_or_else(changed)?;
    Ok(manifest::File { path: path.clone(), bytes, sha256, segments })
}

/// What changes when a file is written to or replaced. Not when it was changed (ctime): that moves with each link to it too, and
/// files of uploads have several.
fn stamp(metadata: &Metadata) -> impl PartialEq + use<> {
    let (dev, ino, bytes) = (metadata.dev(), metadata.ino(), metadata.size());
    (dev, ino, bytes, metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(test)]
pub(crate) mod tests;
