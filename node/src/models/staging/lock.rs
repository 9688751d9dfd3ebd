//! The lock of a staging directory. The kernel holds it, so that a crash releases it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{StagingError, disk};
use crate::durable;

/// How often a lock that its holder removes at the same moment is tried again.
const ATTEMPTS_MAX: u32 = 16;

/// The right to use a staging directory; given back when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    directory: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

/// Whether a directory is a real one, this user's, and closed to all others. Its name can be foretold, so that in a place
/// where others may write it could be theirs, or a link to elsewhere.
fn is_private(directory: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(directory)?;
    Ok(metadata.is_dir() && metadata.uid() == durable::own_uid()? && durable::open_to_others(&metadata) == 0)
}

impl Lock {
    /// Creates the directory, for this user only, and takes its lock.
    pub(super) fn take(directory: &Path) -> Result<Self, StagingError> {
        let path = directory.join("lock");
        for _ in 0..ATTEMPTS_MAX {
            match DirBuilder::new().mode(0o700).create(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(disk("create", directory, error));
                }
                Ok(()) | Err(_) => {}
            }
            match is_private(directory) {
                Ok(true) => {}
                Ok(false) => {
                    let why = "belongs to someone else, or others may enter it".to_owned();
                    return Err(StagingError::Occupied { path: directory.to_owned(), why });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(disk("read", directory, error)),
            }
            let file = match OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path) {
                Ok(file) => file,
                // Its holder has just removed the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(disk("create", &path, error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(StagingError::Busy { path: directory.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(disk("lock", &path, error)),
            }
            // Its holder may have removed the file between our opening and our locking it: then nobody else sees this lock.
            let ours = file.metadata().map_err(|error| disk("read", &path, error))?;
            if fs::symlink_metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Self { directory: directory.to_owned(), _file: file });
            }
        }
        Err(StagingError::Busy { path: directory.to_owned() })
    }

    /// Removes the lock file, and the directory if it holds nothing else. It stays locked until it is dropped.
    pub(super) fn remove(&self) {
        // What cannot be removed is taken up or removed by the next attempt.
        let _ = fs::remove_file(self.directory.join("lock"));
        let _ = fs::remove_dir(&self.directory);
    }
}
