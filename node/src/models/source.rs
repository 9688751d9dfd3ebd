//! The exporter's side: reads groups out of the files of an artefact, where they lie.
//!
//! Opens each file when it is first needed and keeps few open. Never follows a link out of the directory, and never decides
//! whether bytes may be sent. What is read is what is on the disk now: whoever must not send anything else compares it with
//! [`Manifest::verify_extent`].

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use alliance_protocol::{
    core::BulkFailure,
    manifest::{Extent, Group, Manifest, Untrue},
};

use super::{
    compared::{Compared, Stamp},
    tree::{TreeError, open_inside},
};

/// Files held open at a time by one transfer. Groups are read in order, so one is enough but for the seams.
const OPEN_FILES_MAX: usize = 4;

/// The files of an artefact, ready to be read.
#[derive(Debug)]
pub struct Source {
    root: PathBuf,
    manifest: Manifest,
    /// The files that were used last, the latest at the end.
    open: Vec<(u32, File)>,
}

/// Why a group cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("`{path}` has {found} bytes, its manifest says {expected}; import the model again")]
    Length { path: String, expected: u64, found: u64 },
    #[error("group {index} is not one of this artefact")]
    Group { index: u64 },
    #[error("{what} is not what was imported; import the model again")]
    Changed { what: String },
    #[error("cannot read {what}: {source}; check the disk, and import the model again if it was changed")]
    Read { what: String, source: io::Error },
}

impl From<SourceError> for BulkFailure {
    fn from(error: SourceError) -> Self {
        let text = error.to_string();
        match error {
            SourceError::Length { .. } | SourceError::Changed { .. } | SourceError::Tree(_) => Self::Tampered(text),
            // It was cut after it was opened.
            SourceError::Read { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => Self::Tampered(text),
            SourceError::Group { .. } | SourceError::Read { .. } => Self::Disk(text),
        }
    }
}

impl Source {
    /// Opens the directory in which an artefact lies. Every file must be there with its length; content is not compared.
    ///
    /// # Errors
    /// What is missing or altered.
    pub fn open(dir: &Path, manifest: Manifest) -> Result<Self, SourceError> {
        let source = Self::lazy(dir, manifest)?;
        for file in source.manifest.files() {
            let (_, metadata) = open_inside(&source.root, &file.path)?;
            if metadata.len() != file.bytes {
                let (path, expected, found) = (file.path.clone(), file.bytes, metadata.len());
                return Err(SourceError::Length { path, expected, found });
            }
        }
        Ok(source)
    }

    /// As [`Source::open`], but each file is looked at when it is read: for who reads a few of many.
    ///
    /// # Errors
    /// The directory is not there.
    pub fn lazy(dir: &Path, manifest: Manifest) -> Result<Self, SourceError> {
        let root = dir.canonicalize().map_err(|_| TreeError::NotADirectory { path: dir.to_owned() })?;
        Ok(Self { root, manifest, open: Vec::new() })
    }

    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads the bytes of a group into `buffer`, which has exactly these bytes afterwards.
    ///
    /// # Errors
    /// The group is not one of this artefact, or the disk failed.
    pub fn read_group(&mut self, group: &Group, buffer: &mut Vec<u8>) -> Result<(), SourceError> {
        // At most one group; an exact resize keeps what a buffer that is used again has.
        buffer.resize(usize::try_from(group.bytes).unwrap_or(usize::MAX), 0);
        self.read(&Extent::from(group), buffer)
    }

    /// Reads the bytes of an extent into `buffer`, which is as long as the extent.
    ///
    /// # Errors
    /// The extent is not one of this artefact, or the disk failed.
    pub fn read(&mut self, extent: &Extent, buffer: &mut [u8]) -> Result<(), SourceError> {
        if usize::try_from(extent.bytes) != Ok(buffer.len()) {
            return Err(SourceError::Group { index: extent.first });
        }
        let read = self.file(extent.file)?.read_exact_at(buffer, extent.offset);
        let describe = || self.manifest.group(extent.first).map(|group| self.manifest.describe_group(&group));
        read.map_err(|source| SourceError::Read { what: describe().unwrap_or_default(), source })
    }

    /// As [`Source::read`], of nothing but what the manifest says: the bytes are hashed, unless that was done before and the
    /// file has not been written since.
    ///
    /// # Errors
    /// As [`Source::read`], or the file was altered.
    pub fn read_true(&mut self, extent: &Extent, buffer: &mut [u8], compared: &Compared) -> Result<(), SourceError> {
        let (id, groups) = (self.manifest.id(), extent.first..extent.end);
        let before = self.stamp(extent)?;
        self.read(extent, buffer)?;
        // Taken after the bytes: whoever wrote to the file while they were read has left a later one.
        let after = self.stamp(extent)?;
        if before == after && compared.holds(id, extent.file, &after, &groups) {
            return Ok(());
        }
        self.manifest.verify_extent(extent, buffer).map_err(|Untrue { what, good: _ }| SourceError::Changed { what })?;
        if before == after {
            compared.note(id, extent.file, &after, groups, SystemTime::now());
        }
        Ok(())
    }

    /// Whether what was opened last has a name yet: whoever deletes a file leaves it to those who have it open.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.open.iter().all(|(_, file)| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0))
    }

    fn stamp(&mut self, extent: &Extent) -> Result<Stamp, SourceError> {
        let metadata = self.file(extent.file)?.metadata();
        metadata.map(|metadata| Stamp::of(&metadata)).map_err(|source| {
            let what = usize::try_from(extent.file).ok().and_then(|at| self.manifest.files().get(at));
            SourceError::Read { what: what.map_or_else(String::new, |file| format!("`{}`", file.path)), source }
        })
    }

    fn file(&mut self, number: u32) -> Result<&File, SourceError> {
        if let Some(at) = self.open.iter().position(|(open, _)| *open == number) {
            let used = self.open.remove(at);
            self.open.push(used);
        } else {
            let missing = || SourceError::Group { index: u64::from(number) };
            let file = usize::try_from(number).ok().and_then(|at| self.manifest.files().get(at)).ok_or_else(missing)?;
            let (opened, metadata) = open_inside(&self.root, &file.path)?;
            if metadata.len() != file.bytes {
                let (path, expected, found) = (file.path.clone(), file.bytes, metadata.len());
                return Err(SourceError::Length { path, expected, found });
            }
            if self.open.len() >= OPEN_FILES_MAX {
                self.open.remove(0);
            }
            self.open.push((number, opened));
        }
        self.open.last().map(|(_, file)| file).ok_or(SourceError::Group { index: u64::from(number) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::models::import::tests::{model, request};

    #[test]
    fn every_group_is_read_from_its_place() {
        let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let local =
            crate::models::import::import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let manifest = crate::models::import::load_manifest(manifests.path(), local.manifest).expect("loaded");
        let mut source = Source::open(dir.path(), manifest.clone()).expect("opens");
        let mut buffer = Vec::new();
        // Backwards and in jumps too, so that files are closed and opened again.
        let mut groups: Vec<Group> = manifest.groups().collect();
        groups.extend(manifest.groups().collect::<Vec<_>>().into_iter().rev());
        for group in groups {
            source.read_group(&group, &mut buffer).expect("reads");
            assert!(manifest.verify_group(&group, &buffer), "{}", manifest.describe_group(&group));
            assert!(source.open.len() <= OPEN_FILES_MAX);
        }
    }

    #[test]
    fn what_was_altered_is_not_read_whatever_was_known() {
        let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let local =
            crate::models::import::import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let manifest = crate::models::import::load_manifest(manifests.path(), local.manifest).expect("loaded");
        let mut source = Source::open(dir.path(), manifest.clone()).expect("opens");
        let extent = manifest.extents_in(vec![(0, manifest.group_count())]).next().expect("an extent");
        let mut buffer = vec![0; usize::try_from(extent.bytes).expect("small")];
        // As if it had been compared long ago.
        let compared = Compared::default();
        let stamp = source.stamp(&extent).expect("there");
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        compared.note(manifest.id(), extent.file, &stamp, extent.first..extent.end, later);
        source.read_true(&extent, &mut buffer, &compared).expect("true");
        let path = dir.path().join(&manifest.files()[usize::try_from(extent.file).expect("small")].path);
        let mut content = fs::read(&path).expect("read");
        content[0] ^= 1;
        // Written in place, the same file with the same length, until its times show it.
        while source.stamp(&extent).expect("there") == stamp {
            fs::write(&path, &content).expect("written");
        }
        let error = source.read_true(&extent, &mut buffer, &compared).expect_err("altered");
        assert!(matches!(error, SourceError::Changed { .. }), "{error}");
    }

    #[test]
    fn altered_directories_are_told() {
        let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let local =
            crate::models::import::import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let manifest = crate::models::import::load_manifest(manifests.path(), local.manifest).expect("loaded");
        let mut source = Source::open(dir.path(), manifest.clone()).expect("opens");
        let config = dir.path().join("config.json");
        let content = fs::read(&config).expect("read");
        fs::write(&config, b"shorter").expect("written");
        let error = Source::open(dir.path(), manifest.clone()).expect_err("altered");
        assert!(error.to_string().contains("`config.json` has 7 bytes"), "{error}");
        let mut buffer = Vec::new();
        let group = manifest.group(0).expect("a group");
        assert!(source.read_group(&group, &mut buffer).is_err());
        fs::remove_file(&config).expect("removed");
        assert!(matches!(Source::open(dir.path(), manifest.clone()), Err(SourceError::Tree(TreeError::Missing { .. }))));
        let elsewhere = manifests.path().join("secret");
        fs::write(&elsewhere, &content).expect("written");
        std::os::unix::fs::symlink(&elsewhere, &config).expect("linked");
        let error = Source::open(dir.path(), manifest).expect_err("leaves");
        assert!(matches!(error, SourceError::Tree(TreeError::LeavesDirectory { .. })));
        assert!(source.read_group(&group, &mut buffer).is_err());
    }
}
