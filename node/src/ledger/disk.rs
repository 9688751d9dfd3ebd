//! The file operations of a commit, one call for each point at which a crash or a full disk can strike.
//!
//! Nothing here decides what to do about a failure; [`super::LedgerFile`] does.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{CHECKPOINT, ENTRIES, LedgerError, NEXT};

/// What a commit asks of the disk. Each call may fail having done nothing, a part, or everything.
pub(super) trait Disk: fmt::Debug + Send {
    /// Writes frames at this offset of the entries.
    fn append(&mut self, at: u64, frames: &[u8]) -> io::Result<()>;
    /// Makes the entries durable.
    fn sync_entries(&mut self) -> io::Result<()>;
    /// Writes the next checkpoint beside the one in force.
    fn write_next(&mut self, note: &str) -> io::Result<()>;
    /// Makes the next checkpoint durable under its temporary name.
    fn sync_next(&mut self) -> io::Result<()>;
    /// Renames the next checkpoint over the one in force.
    fn publish_next(&mut self) -> io::Result<()>;
    /// Makes the rename durable.
    fn sync_directory(&mut self) -> io::Result<()>;
    /// The checkpoint in force, as the system sees it now.
    fn published(&self) -> io::Result<Vec<u8>>;
    /// Cuts the entries to this length, durably, and drops a next checkpoint.
    fn roll_back(&mut self, length: u64) -> io::Result<()>;
}

/// The real files.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    entries: File,
    next: Option<File>,
}

impl Files {
    /// Opens the entries for writing.
    ///
    /// # Errors
    /// They cannot be opened.
    pub(super) fn open(directory: &Path) -> Result<Self, LedgerError> {
        let path = directory.join(ENTRIES);
        let entries = OpenOptions::new().read(true).write(true).open(&path).map_err(|source| LedgerError::Io {
            what: "open",
            path,
            source,
        })?;
        Ok(Self { directory: directory.to_owned(), entries, next: None })
    }
}

impl Disk for Files {
    fn append(&mut self, at: u64, frames: &[u8]) -> io::Result<()> {
        self.entries.seek(SeekFrom::Start(at))?;
        self.entries.write_all(frames)
    }

    fn sync_entries(&mut self) -> io::Result<()> {
        self.entries.sync_data()
    }

    fn write_next(&mut self, note: &str) -> io::Result<()> {
        let mut next = private().write(true).create(true).truncate(true).open(self.directory.join(NEXT))?;
        next.write_all(note.as_bytes())?;
        self.next = Some(next);
        Ok(())
    }

    fn sync_next(&mut self) -> io::Result<()> {
        match self.next.take() {
            Some(next) => next.sync_all(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn publish_next(&mut self) -> io::Result<()> {
        fs::rename(self.directory.join(NEXT), self.directory.join(CHECKPOINT))
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn published(&self) -> io::Result<Vec<u8>> {
        super::scan::read_bounded(&self.directory.join(CHECKPOINT))
    }

    fn roll_back(&mut self, length: u64) -> io::Result<()> {
        self.next = None;
        self.entries.set_len(length)?;
        self.entries.sync_all()?;
        match fs::remove_file(self.directory.join(NEXT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A ledger names crossings and reasons: it is for its owner to read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Whether there is no ledger, and never was one: no checkpoint, and no entry.
///
/// # Errors
/// That cannot be found out.
pub(super) fn is_absent(directory: &Path) -> Result<bool, LedgerError> {
    Ok(length_of(&directory.join(CHECKPOINT))?.is_none() && length_of(&directory.join(ENTRIES))?.unwrap_or(0) == 0)
}

/// The length of a file, or none if it does not exist.
pub(super) fn length_of(path: &Path) -> Result<Option<u64>, LedgerError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LedgerError::Io { what: "look at", path: path.to_owned(), source }),
    }
}

/// Makes an empty ledger whose checkpoint is `note`. A crash half way leaves what [`is_absent`] takes for none.
///
/// # Errors
/// The disk does not take it.
pub(super) fn found(directory: &Path, note: &str) -> Result<(), LedgerError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        private().write(true).create(true).truncate(false).open(directory.join(ENTRIES))?.sync_all()?;
        let mut next = private().write(true).create(true).truncate(true).open(directory.join(NEXT))?;
        next.write_all(note.as_bytes())?;
        next.sync_all()?;
        fs::rename(directory.join(NEXT), directory.join(CHECKPOINT))?;
        File::open(directory)?.sync_all()?;
        match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            Some(_) => File::open(".")?.sync_all(),
            None => Ok(()),
        }
    };
    make().map_err(|source| LedgerError::Io { what: "make a ledger in", path: directory.to_owned(), source })
}
