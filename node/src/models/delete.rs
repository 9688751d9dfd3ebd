//! Deletes what a crossing delivered, when a duty says so: the files of its manifest, and nothing else that lies there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use alliance_protocol::id::ManifestId;

use super::import::{LoadError, load_manifest};

/// Why what was delivered is still there.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error(transparent)]
    Manifest(#[from] LoadError),
    #[error("`{}` is not the file that was delivered any more; look at it and delete it by hand", .0.display())]
    Changed(PathBuf),
    #[error("cannot delete `{}`: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// Deletes the files of a manifest under a directory, and the directories that are empty then. What is gone already is fine.
/// A link is deleted, never followed. A file of another length than was delivered is left, and said.
///
/// # Errors
/// The first file that is still there, and why. Everything that can be deleted is.
pub fn delete(manifests: &Path, id: ManifestId, under: &Path) -> Result<(), DeleteError> {
    let manifest = load_manifest(manifests, id)?;
    let mut first = None;
    let mut directories: Vec<PathBuf> = vec![under.to_owned()];
    for file in manifest.files() {
        let path = under.join(&file.path);
        directories.extend(path.ancestors().skip(1).take_while(|parent| *parent != under).map(Path::to_owned));
        if let Err(error) = delete_one(&path, file.bytes) {
            first = first.or(Some(error));
        }
    }
    // A directory sorts before what it holds.
    directories.sort();
    directories.dedup();
    for directory in directories.iter().rev() {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            // Something else lies there, or it is gone.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {}
            Err(source) => first = first.or(Some(DeleteError::Disk { path: directory.clone(), source })),
        }
    }
    first.map_or(Ok(()), Err)
}

fn delete_one(path: &Path, bytes: u64) -> Result<(), DeleteError> {
    let disk = |source| DeleteError::Disk { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(disk(error)),
        Ok(found) if found.is_file() && found.len() != bytes => Err(DeleteError::Changed(path.to_owned())),
        Ok(found) if found.is_dir() => Err(DeleteError::Changed(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(disk),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alliance_protocol::{
        offer::Provenance,
        vocabulary::{Artefact, Label},
    };

    use super::*;
    use crate::models::import::{ImportRequest, import};

    fn delivered(dir: &Path) -> (PathBuf, PathBuf, ManifestId) {
        let (under, manifests) = (dir.join("model"), dir.join("manifests"));
        fs::create_dir_all(under.join("sub")).expect("made");
        fs::create_dir_all(&manifests).expect("made");
        fs::write(under.join("a.txt"), b"one").expect("written");
        fs::write(under.join("sub/b.txt"), b"two").expect("written");
        let request = ImportRequest {
            name: "usp/model".into(),
            artefact: Artefact::Dataset,
            labels: [Label::Public].into(),
            labels_of: Vec::new(),
            origin: "BR".parse().expect("assigned"),
            subjects: BTreeSet::new(),
            provenance: Provenance::default(),
            licence: "MIT".into(),
            crossing: None,
        };
        let model = import(&under, request, &manifests, &mut |_, _| {}).expect("imported");
        (under, manifests, model.manifest)
    }

    #[test]
    fn only_what_was_delivered_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let (under, manifests, id) = delivered(dir.path());
        fs::write(under.join("notes.md"), b"mine").expect("written");
        delete(&manifests, id, &under).expect("deleted");
        assert!(!under.join("a.txt").exists() && !under.join("sub").exists());
        assert_eq!(fs::read(under.join("notes.md")).expect("kept"), b"mine");
        delete(&manifests, id, &under).expect("nothing is left to delete");
        fs::remove_file(under.join("notes.md")).expect("removed");
        delete(&manifests, id, &under).expect("the empty directory goes");
        assert!(!under.exists());
        delete(&manifests, id, &under).expect("gone is gone");
    }

    #[test]
    fn what_was_changed_is_left_and_said_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (under, manifests, id) = delivered(dir.path());
        fs::write(under.join("a.txt"), b"changed").expect("written");
        let elsewhere = dir.path().join("precious");
        fs::write(&elsewhere, b"two").expect("written");
        fs::remove_file(under.join("sub/b.txt")).expect("removed");
        std::os::unix::fs::symlink(&elsewhere, under.join("sub/b.txt")).expect("linked");
        assert!(matches!(delete(&manifests, id, &under), Err(DeleteError::Changed(_))));
        assert!(under.join("a.txt").exists() && !under.join("sub").exists());
        assert!(elsewhere.exists());
        let unknown = ManifestId([0; 32]);
        assert!(matches!(delete(&manifests, unknown, &under), Err(DeleteError::Manifest(_))));
    }
}
