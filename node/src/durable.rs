//! Small files, read with a bound and written whole or not at all. Never for artefact bytes.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// A file could not be read or written; says which one and what was tried.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} `{}`", path.display())]
pub struct FileError {
    /// What was tried: `read`, `write`, ...
    pub verb: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The owner alone: mode 0600.
    Owner,
    /// Whoever the umask admits: mode 0644.
    All,
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Replace,
    /// An error of kind [`io::ErrorKind::AlreadyExists`].
    Keep,
}

/// Wraps an error with the path and what was tried.
pub(crate) fn at<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { verb, path: path.to_owned(), source }
}

/// The whole of a file that has at most `bytes_max` bytes.
///
/// # Errors
/// It cannot be read, is not a plain file, or is larger.
pub fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, FileError> {
    // Without waiting for whoever might write to a pipe; it is no plain file, and refused then.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(at("read", path))?;
    read_open(&file, path, bytes_max)
}

/// As [`read`], of a file that is open already.
pub(crate) fn read_open(file: &File, path: &Path, bytes_max: usize) -> Result<Vec<u8>, FileError> {
    let invalid = |text: String| at("read", path)(io::Error::new(io::ErrorKind::InvalidData, text));
    if !file.metadata().map_err(at("read", path))?.is_file() {
        return Err(invalid("it is not a plain file".to_owned()));
    }
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(at("read", path))?;
    if bytes.len() > bytes_max {
        return Err(invalid(format!("it has more than the {bytes_max} bytes that such a file may have")));
    }
    Ok(bytes)
}

/// As [`read`], of an open file with a secret in it: no copy is left in memory once the result is dropped.
pub(crate) fn read_open_secret(file: &File, path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let invalid = |text: &str| at("read", path)(io::Error::new(io::ErrorKind::InvalidData, text));
    if !file.metadata().map_err(at("read", path))?.is_file() {
        return Err(invalid("it is not a plain file"));
    }
    // A buffer of its final size, filled in place: one that grows leaves what it held behind, and is not wiped there.
    let mut bytes = Zeroizing::new(vec![0; bytes_max.saturating_add(1)]);
    let mut filled: usize = 0;
    let mut file = file;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(at("read", path)(error)),
        }
    }
    if filled > bytes_max {
        return Err(invalid("it has more bytes than such a file may have"));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// As [`read`], of UTF-8 text.
///
/// # Errors
/// As [`read`], or it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: usize) -> Result<String, FileError> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|error| at("read", path)(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// As [`read`], but `None` where there is no such file.
///
/// # Errors
/// As [`read`], but for the file being absent.
pub fn read_if_there(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, FileError> {
    match read(path, bytes_max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file so that a crash leaves either what was there or the whole of the new one. What all may read never replaces a
/// private key: a slip of the hand must not cost one.
///
/// # Errors
/// The disk failed, or the file exists and must be kept.
pub fn write(path: &Path, bytes: &[u8], readers: Readers, existing: Existing) -> Result<(), FileError> {
    let fail = |source| FileError { verb: "write", path: path.to_owned(), source };
    if (readers, existing) == (Readers::All, Existing::Replace) && holds_private_key(path).map_err(fail)? {
        let text = "a private key is there; choose another place, or move it away";
        return Err(fail(io::Error::new(io::ErrorKind::AlreadyExists, text)));
    }
    let folder = folder_of(path);
    let name = path.file_name().ok_or_else(|| fail(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), random_name().map_err(fail)?));
    let done = write_temporary(&temporary, bytes, readers).and_then(|()| match existing {
        Existing::Replace => fs::rename(&temporary, path),
        // A link fails where the name is taken; a rename would replace it.
        Existing::Keep => fs::hard_link(&temporary, path).and_then(|()| fs::remove_file(&temporary)),
    });
    if let Err(error) = done {
        // The error that matters is the first one; a left-over temporary file does no harm.
        let _ = fs::remove_file(&temporary);
        return Err(fail(error));
    }
    // Without this the new name may be gone after a power cut.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
}

/// Removes what crashes have left of earlier writings of this file beside it, and makes that durable.
///
/// # Errors
/// The disk does not permit it.
pub(crate) fn sweep(path: &Path) -> Result<(), FileError> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let folder = folder_of(path);
    let begin = format!(".{}.", name.to_string_lossy());
    let random = |middle: &str| middle.len() == RANDOM_DIGITS && middle.bytes().all(|byte| byte.is_ascii_hexdigit());
    for entry in fs::read_dir(folder).map_err(at("read", folder))? {
        let entry = entry.map_err(at("read", folder))?;
        let found = entry.file_name().to_string_lossy().into_owned();
        let left = found.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(".tmp")).is_some_and(random);
        if left && entry.file_type().map_err(at("read", &entry.path()))?.is_file() {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", &entry.path())(error)),
                Ok(()) | Err(_) => {}
            }
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at("write", folder))
}

/// What files of private keys have in their first [`KEY_MARK_BYTES`], of whichever program: PEM (RFC 7468), OpenSSH, age, and
/// the plain line of our own.
const KEY_MARKS: [&[u8]; 4] = [b"PRIVATE KEY-----", b"alliance-ed25519-seed", b"AGE-SECRET-KEY-1", b"age-encryption.org/"];
/// Enough for the lines of comment that tools put before a key.
const KEY_MARK_BYTES: u64 = 4096;

fn holds_private_key(path: &Path) -> io::Result<bool> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut head = Zeroizing::new(Vec::with_capacity(KEY_MARK_BYTES.try_into().unwrap_or(0)));
    file.take(KEY_MARK_BYTES).read_to_end(&mut head)?;
    Ok(KEY_MARKS.iter().any(|mark| head.windows(mark.len()).any(|window| window == *mark)))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn write_temporary(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::All => 0o644,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a directory that only its owner may enter, with the directories above it; one that exists is left as it is.
///
/// # Errors
/// The disk does not permit it.
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("make", path))
}

/// The permission bits that group and others have on something that must be the owner's alone; zero is what is wanted.
pub(crate) fn open_to_others(metadata: &fs::Metadata) -> u32 {
    metadata.permissions().mode() & 0o077
}

/// The user that this process acts as.
///
/// # Errors
/// The system does not tell.
pub fn own_uid() -> io::Result<u32> {
    if let Ok(metadata) = fs::metadata("/proc/self") {
        return Ok(metadata.uid());
    }
    // Where there is no /proc: what one makes is one's own.
    let path = std::env::temp_dir().join(format!(".alliance-{}", random_name()?));
    let uid = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.metadata()?.uid();
    fs::remove_file(&path)?;
    Ok(uid)
}

/// Digits of the random part of a temporary name.
const RANDOM_DIGITS: usize = 16;

/// Digits that nobody can foresee, for the name of a temporary file.
pub(crate) fn random_name() -> io::Result<String> {
    let mut bytes = [0; RANDOM_DIGITS / 2];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_whole_private_and_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("note");
        write(&path, b"one", Readers::Owner, Existing::Keep).expect("written");
        assert_eq!(open_to_others(&fs::metadata(&path).expect("there")), 0);
        let again = write(&path, b"two", Readers::Owner, Existing::Keep).expect_err("kept");
        assert_eq!(again.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path, 3).expect("read"), b"one");
        write(&path, b"three", Readers::All, Existing::Replace).expect("replaced");
        assert!(read(&path, 4).is_err());
        assert!(read(dir.path(), 4).is_err());
        assert!(read_if_there(&dir.path().join("absent"), 4).expect("no error").is_none());
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_all_may_read_never_replaces_a_private_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("out");
        for (there, replaced) in [
            ("-----BEGIN PUBLIC KEY-----", true),
            ("{}", true),
            ("", true),
            ("alliance-ed25519-seed 00", false),
            ("alliance-ed25519-public 00\n-----BEGIN ENCRYPTED PRIVATE KEY-----\n", false),
            ("Bag Attributes\n-----BEGIN EC PRIVATE KEY-----\n", false),
            ("# created: today\nAGE-SECRET-KEY-1QQ", false),
        ] {
            fs::write(&path, there).expect("written");
            let written = write(&path, b"new", Readers::All, Existing::Replace);
            assert_eq!(written.is_ok(), replaced, "{there}");
            assert_eq!(fs::read(&path).expect("read"), if replaced { b"new".as_slice() } else { there.as_bytes() });
        }
        write(&path, b"new", Readers::Owner, Existing::Replace).expect("a key replaces a key");
    }

    #[test]
    fn only_files_that_writing_leaves_are_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        let [file, folder] =
            ["0123456789abcdef", "fedcba9876543210"].map(|random| dir.path().join(format!(".out.{random}.tmp")));
        fs::write(&file, "").expect("written");
        fs::create_dir(&folder).expect("made");
        sweep(&dir.path().join("out")).expect("swept");
        assert_eq!((file.exists(), folder.exists()), (false, true));
    }

    #[test]
    fn one_owns_what_one_makes() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(own_uid().expect("known"), fs::metadata(dir.path()).expect("there").uid());
    }
}
