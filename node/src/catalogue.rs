//! The catalogue on disk: statements of other nodes, kept so that a node that starts again need not ask for all of them.
//!
//! Only this module names sled. sled 0.34 calls itself beta, so nothing is kept here that cannot be had again from the
//! mesh, and whatever goes wrong inside it (an error, a panic) ends in an error here or in an empty catalogue, never in a
//! lost ledger. Statements are handed back as bytes: whoever opens them verifies their signatures. All calls may block on
//! the disk; make them away from the node's loop.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use alliance_protocol::{core::CatalogueChange, envelope::Statement as _, id::StatementId, offer::NodeRecord};

/// Bytes of one statement: a node record is the largest that is kept here.
pub const KEPT_STATEMENT_BYTES_MAX: usize = NodeRecord::BYTES_MAX;

/// Bytes of statements read back at a start: 64 members with 4,096 offers of 1 KiB each. The rest comes from the mesh.
const READ_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of sled's page cache. The node reads the catalogue once and keeps what it needs in memory.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// How long opening waits for the lock of the store: its threads may hold it a moment longer than the catalogue that was
/// closed before.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How often the lock is tried meanwhile.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// A store of statements by their id.
#[derive(Clone)]
pub struct Catalogue {
    db: sled::Db,
    path: PathBuf,
}

/// Why the catalogue could not do something.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the catalogue `{path}` is in use by another process", path = path.display())]
    Locked { path: PathBuf },
    #[error("the damaged catalogue `{path}` cannot be put aside", path = path.display())]
    Aside {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what} the catalogue `{path}`", path = path.display())]
    Store {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: sled::Error,
    },
    #[error("the store of the catalogue `{path}` broke down trying to {what} it", path = path.display())]
    BrokeDown { what: &'static str, path: PathBuf },
    #[error("a statement of {bytes} bytes is larger than the {max} that are kept", max = KEPT_STATEMENT_BYTES_MAX)]
    TooLarge { bytes: usize },
}

impl CatalogueError {
    /// Whether there is no room, and nothing worse.
    fn is_full_disk(&self) -> bool {
        match self {
            Self::Store { source: sled::Error::Io(error), .. } => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Store { .. }
            | Self::Locked { .. }
            | Self::Aside { .. }
            | Self::BrokeDown { .. }
            | Self::TooLarge { .. } => false,
        }
    }
}

impl Catalogue {
    /// Opens the catalogue in a directory of its own, or makes it, and reads all statements in it. One that cannot be read
    /// is renamed to `<directory>.damaged`, in place of an earlier one, and an empty one is made.
    ///
    /// # Errors
    /// Another process has it open, the disk is full, or no catalogue can be made there.
    pub fn open(directory: &Path) -> Result<(Self, Vec<Vec<u8>>), CatalogueError> {
        Self::open_within(directory, LOCK_WAIT)
    }

    fn open_within(directory: &Path, mut wait: Duration) -> Result<(Self, Vec<Vec<u8>>), CatalogueError> {
        while is_locked(directory) {
            wait = wait.checked_sub(LOCK_RETRY).ok_or_else(|| CatalogueError::Locked { path: directory.to_owned() })?;
            thread::sleep(LOCK_RETRY);
        }
        match Self::open_as_it_is(directory) {
            Ok(opened) => Ok(opened),
            // A disk that is full says nothing about what lies on it.
            Err(error) if error.is_full_disk() => Err(error),
            Err(error) => {
                let aside = put_aside(directory)?;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    aside = %aside.display(),
                    "the catalogue was unreadable and starts empty; it fills again from the mesh"
                );
                Self::open_as_it_is(directory)
            }
        }
    }

    fn open_as_it_is(directory: &Path) -> Result<(Self, Vec<Vec<u8>>), CatalogueError> {
        let db = guarded("open", directory, || {
            sled::Config::new()
                .path(directory)
                .mode(sled::Mode::LowSpace)
                .cache_capacity(CACHE_BYTES)
                // No thread of the store that flushes behind our back: closing would wait for ever for one that panicked.
                .flush_every_ms(None)
                .open()
        })?;
        let catalogue = Self { db, path: directory.to_owned() };
        let statements = catalogue.all()?;
        Ok((catalogue, statements))
    }

    /// All statements, in the order of their ids.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn all(&self) -> Result<Vec<Vec<u8>>, CatalogueError> {
        guarded("read", &self.path, || {
            let (mut statements, mut bytes) = (Vec::new(), 0_usize);
            for pair in self.db.iter() {
                let (key, statement) = pair?;
                bytes = bytes.saturating_add(statement.len());
                if bytes > READ_BYTES_MAX {
                    tracing::warn!(limit = READ_BYTES_MAX, "the catalogue is larger than what is read of it");
                    break;
                }
                if key.len() == size_of::<StatementId>() && statement.len() <= KEPT_STATEMENT_BYTES_MAX {
                    statements.push(statement.to_vec());
                }
            }
            Ok(statements)
        })
    }

    /// Keeps the bytes of a signed statement, in place of those with the same id.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn put(&self, id: StatementId, bytes: Vec<u8>) -> Result<(), CatalogueError> {
        self.apply(&[CatalogueChange::Put { id, bytes }])
    }

    /// Forgets a statement; nothing happens if there is none.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn remove(&self, id: StatementId) -> Result<(), CatalogueError> {
        self.apply(&[CatalogueChange::Remove { id }])
    }

    /// Makes changes, in order, all or none. They last once [`Self::flush`] was called.
    ///
    /// # Errors
    /// A statement is too large, or the store does not take them.
    pub fn apply(&self, changes: &[CatalogueChange]) -> Result<(), CatalogueError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                CatalogueChange::Put { bytes, .. } if bytes.len() > KEPT_STATEMENT_BYTES_MAX => {
                    return Err(CatalogueError::TooLarge { bytes: bytes.len() });
                }
                CatalogueChange::Put { id, bytes } => batch.insert(&id.0, bytes.as_slice()),
                CatalogueChange::Remove { id } => batch.remove(&id.0),
            }
        }
        guarded("write", &self.path, || self.db.apply_batch(batch))
    }

    /// Makes all changes so far durable.
    ///
    /// # Errors
    /// The disk does not take them.
    pub fn flush(&self) -> Result<(), CatalogueError> {
        guarded("flush", &self.path, || self.db.flush()).map(|_bytes| ())
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Runs a call of the store, which may also panic on damaged files: that must not take the node down.
fn guarded<T>(what: &'static str, path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, CatalogueError> {
    // Nothing of ours is left half changed: the closure owns or only reads what it touches.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(CatalogueError::Store { what, path: path.to_owned(), source }),
        Err(_panic) => Err(CatalogueError::BrokeDown { what, path: path.to_owned() }),
    }
}

/// Whether a process holds the lock of the store. Asked first, because a store in use must not be taken for a damaged one.
fn is_locked(directory: &Path) -> bool {
    File::open(directory.join("db")).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Renames the directory, replacing what was put aside before, so that at most one damaged catalogue takes up room.
fn put_aside(directory: &Path) -> Result<PathBuf, CatalogueError> {
    let fail = |source| CatalogueError::Aside { path: directory.to_owned(), source };
    let mut name = directory.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".damaged");
    let aside = directory.with_file_name(name);
    let removed = match fs::symlink_metadata(&aside) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(&aside),
        Ok(_) => fs::remove_file(&aside),
        Err(_) => Ok(()),
    };
    removed.map_err(fail)?;
    match fs::rename(directory, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
        _ => Ok(aside),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn id(number: u8) -> StatementId {
        StatementId([number; 32])
    }

    fn bytes(number: u8) -> Vec<u8> {
        vec![number; 100 + usize::from(number)]
    }

    fn put(number: u8) -> CatalogueChange {
        CatalogueChange::Put { id: id(number), bytes: bytes(number) }
    }

    /// A catalogue of statements 1 to 40, closed.
    fn catalogue() -> (TempDir, PathBuf) {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("catalogue");
        let (catalogue, found) = Catalogue::open(&path).expect("makes");
        assert!(found.is_empty());
        catalogue.apply(&(1..=40).map(put).collect::<Vec<_>>()).expect("applies");
        catalogue.flush().expect("flushes");
        (home, path)
    }

    fn aside(path: &Path) -> PathBuf {
        path.with_file_name("catalogue.damaged")
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let (_home, path) = catalogue();
        let (catalogue, found) = Catalogue::open(&path).expect("opens");
        assert_eq!(found, (1..=40).map(bytes).collect::<Vec<_>>());
        catalogue.remove(id(7)).expect("removes");
        catalogue.remove(id(200)).expect("removes what is not there");
        catalogue.put(id(3), bytes(9)).expect("replaces");
        catalogue.apply(&[put(50), CatalogueChange::Remove { id: id(50) }]).expect("in order");
        let expected: Vec<_> = (1..=40).filter(|n| *n != 7).map(|n| bytes(if n == 3 { 9 } else { n })).collect();
        assert_eq!(catalogue.all().expect("reads"), expected);
        catalogue.flush().expect("flushes");
        drop(catalogue);
        assert_eq!(Catalogue::open(&path).expect("opens").1, expected);
        assert!(!aside(&path).exists());
    }

    #[test]
    fn a_batch_with_a_statement_too_large_changes_nothing() {
        let (_home, path) = catalogue();
        let (catalogue, found) = Catalogue::open(&path).expect("opens");
        let large = CatalogueChange::Put { id: id(99), bytes: vec![0; KEPT_STATEMENT_BYTES_MAX + 1] };
        assert!(matches!(catalogue.apply(&[put(98), large]), Err(CatalogueError::TooLarge { .. })));
        assert_eq!(catalogue.all().expect("reads"), found);
        catalogue.put(id(99), vec![1; KEPT_STATEMENT_BYTES_MAX]).expect("the largest fits");
        assert_eq!(catalogue.all().expect("reads").len(), 41);
    }

    #[test]
    fn a_catalogue_in_use_is_left_alone() {
        let (_home, path) = catalogue();
        let (catalogue, found) = Catalogue::open(&path).expect("opens");
        assert!(matches!(Catalogue::open_within(&path, Duration::ZERO), Err(CatalogueError::Locked { .. })));
        assert!(matches!(Catalogue::open_within(&path, 2 * LOCK_RETRY), Err(CatalogueError::Locked { .. })));
        assert!(!aside(&path).exists());
        assert_eq!(catalogue.all().expect("reads"), found);
    }

    #[test]
    fn an_unreadable_catalogue_is_put_aside_and_starts_empty() {
        let (_home, path) = catalogue();
        // A file where the directory should be, twice over, then rubbish in the store's own files.
        for round in 0..2 {
            fs::remove_dir_all(&path).expect("removes");
            fs::write(&path, [round]).expect("writes");
            let (catalogue, found) = Catalogue::open(&path).expect("starts again");
            assert!(found.is_empty());
            assert_eq!(fs::read(aside(&path)).expect("kept"), [round]);
            catalogue.put(id(1), bytes(1)).expect("works");
            catalogue.flush().expect("flushes");
        }
        fs::write(path.join("conf"), b"segment_size: 7\nuse_compression: maybe\nversion: 0.0 and more rubbish")
            .expect("writes");
        let (catalogue, found) = Catalogue::open(&path).expect("starts again");
        assert!(found.is_empty());
        assert!(aside(&path).join("conf").exists());
        catalogue.put(id(2), bytes(2)).expect("works");
        catalogue.flush().expect("flushes");
        drop(catalogue);
        assert_eq!(Catalogue::open(&path).expect("opens").1, [bytes(2)]);
    }

    #[test]
    fn damage_anywhere_in_the_store_ends_in_a_catalogue() {
        let (_home, path) = catalogue();
        let db = path.join("db");
        let good = fs::read(&db).expect("reads");
        let copies = tempfile::tempdir().expect("a directory");
        let used = good.iter().rposition(|byte| *byte != 0).expect("not empty");
        let stride = used / 60 + 1;
        for (number, at) in (0..used).step_by(stride).enumerate() {
            let damaged: [Vec<u8>; 2] = [
                good[..at].to_vec(),
                good.iter().enumerate().map(|(n, byte)| if n / 16 == at / 16 { !byte } else { *byte }).collect(),
            ];
            for (kind, damaged) in damaged.into_iter().enumerate() {
                let copy = copies.path().join(format!("{number}-{kind}"));
                fs::create_dir(&copy).expect("makes");
                fs::copy(path.join("conf"), copy.join("conf")).expect("copies");
                fs::write(copy.join("db"), damaged).expect("writes");
                let (catalogue, _found) = Catalogue::open(&copy).expect("opens or starts again");
                catalogue.put(id(77), bytes(77)).expect("works");
                assert!(catalogue.all().expect("reads").contains(&bytes(77)));
            }
        }
    }
}
