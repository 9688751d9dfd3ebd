//! The last step: check that the files are what they claim, make them durable, rename them into place.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use alliance_protocol::manifest::Manifest;

use super::{Staging, StagingError, disk};
use crate::models::{
    compared::{Compared, Sealed},
    durable::sync_directory,
    inspect::{FormatError, inspect},
    tree::{open_inside, survey},
};

impl Staging {
    /// Checks that everything is there and is what the manifest says of it, and makes it durable. Takes as long as the disk
    /// needs, so that what is left to do after the last decision is one rename.
    ///
    /// # Errors
    /// Something is missing, is not what it is said to be, or the disk does not take it.
    pub fn finish(&mut self) -> Result<(), StagingError> {
        let layout = self.layout.clone().ok_or(StagingError::NotBegun)?;
        if !self.is_complete() {
            let missing = self.held.iter().filter(|held| !**held).count();
            let missing = u64::try_from(missing).unwrap_or(u64::MAX);
            return Err(StagingError::Incomplete { missing, groups: layout.manifest().group_count() });
        }
        if self.finished.is_some() {
            return Ok(());
        }
        let manifest = layout.made(&self.lies_at())?;
        if self.in_place {
            self.finished = Some(manifest);
            return Ok(());
        }
        self.open.clear();
        let files = self.files();
        if let Err(error) = check_files(&files, &manifest) {
            let lie = matches!(
                error,
                StagingError::Untrue { .. }
                    | StagingError::Format(FormatError::Safetensors { .. } | FormatError::Pickle { .. })
            );
            if lie {
                // Every group is what the manifest says, so no further attempt can make it better.
                self.remove_received()?;
            }
            return Err(error);
        }
        sync_files(&files, &manifest)?;
        self.finished = Some(manifest);
        Ok(())
    }

    /// Delivers without asking for a clearance; [`Staging::deliver`] has.
    pub(super) fn put_in_place(mut self, compared: &Compared) -> Result<PathBuf, StagingError> {
        self.finish()?;
        if self.in_place {
            return Ok(self.to.clone());
        }
        let files = self.files();
        // Until here nobody but this process could write to them.
        let own = self.finished.as_ref().filter(|_| self.is_own_work());
        let sealed = own.map(|manifest| (manifest.id(), Sealed::of(&files, manifest)));
        match fs::rename(&files, &self.to) {
            Ok(()) => {}
            Err(error) if is_taken(&error) => {
                let why = "was filled while the model was received".to_owned();
                return Err(StagingError::Occupied { path: self.to.clone(), why });
            }
            Err(error) => return Err(disk("rename into place", &self.to, error)),
        }
        if let Some((manifest, sealed)) = sealed {
            compared.note_sealed(manifest, sealed);
        }
        let parent = self.to.parent().unwrap_or(&self.to);
        if let Err(error) = sync_directory(parent) {
            // It is in place. Should the machine lose power now, the next pull finds it under its old name and moves it.
            tracing::warn!(place = %self.to.display(), %error, "the new name of an artefact may not outlast a loss of power");
        }
        // From here on the artefact is delivered: what remains to be removed goes when this is dropped.
        self.in_place = true;
        Ok(self.to.clone())
    }
}

/// Whether the files have the kinds and the parts that the manifest gives them. Groups have been verified; this is about what
/// the manifest says of them, which the exporter could have made up.
fn check_files(files: &Path, manifest: &Manifest) -> Result<(), StagingError> {
    let found = survey(files).map_err(StagingError::Tree)?;
    let listed = manifest.files().iter().map(|file| &file.path);
    if !found.skipped.is_empty() || !found.files.iter().map(|file| &file.path).eq(listed) {
        return Err(StagingError::Untrue { path: files.display().to_string() });
    }
    for file in manifest.files() {
        let (opened, metadata) = open_inside(&found.root, &file.path).map_err(StagingError::Tree)?;
        let plan = inspect(&file.path, &opened, metadata.len()).map_err(StagingError::Format)?;
        let parts = file.segments.iter().map(|segment| (&segment.kind, segment.bytes));
        if metadata.len() != file.bytes || !plan.parts.iter().map(|(kind, bytes)| (kind, *bytes)).eq(parts) {
            return Err(StagingError::Untrue { path: file.path.clone() });
        }
    }
    Ok(())
}

/// Makes the content of every file durable, then the names in every directory, the innermost first.
fn sync_files(files: &Path, manifest: &Manifest) -> Result<(), StagingError> {
    let mut directories = BTreeSet::from([files.to_owned()]);
    for file in manifest.files() {
        let path = files.join(&file.path);
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| disk("make durable", &path, source))?;
        directories.extend(path.ancestors().skip(1).take_while(|parent| *parent != files).map(Path::to_owned));
    }
    // A directory sorts before what it holds.
    for directory in directories.iter().rev() {
        sync_directory(directory).map_err(|source| disk("make durable", directory, source))?;
    }
    Ok(())
}

/// Whether a rename failed because something stands under the new name.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory)
}
