//! Key files: one line, `alliance-ed25519-seed <64 hexadecimal digits>`, readable by the owner alone.
//!
//! A key file is never overwritten, never printed, and never read where others could have read or changed it.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use alliance_protocol::key::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::durable::{self, Existing, FileError, Readers};

/// The word that a key file begins with.
const WORD: &str = "alliance-ed25519-seed";

/// Bytes of a key file: the word, a space, 64 digits, a line end, and room for a second line end.
const KEY_FILE_BYTES_MAX: usize = 128;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("there is no key `{}`", .0.display())]
    Missing(PathBuf),
    #[error("`{}` holds a key already", .0.display())]
    Exists(PathBuf),
    #[error("the key `{}` can be read or changed by others (mode {mode:03o})", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("the key `{}` belongs to another user (uid {owner})", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("`{}` is not a key: it must be one line, `{WORD}` and 64 hexadecimal digits", .0.display())]
    Corrupt(PathBuf),
    #[error("the system gives no random numbers")]
    Random(#[source] io::Error),
}

/// Draws a new key.
///
/// # Errors
/// The system gives no random numbers.
pub fn generate() -> Result<SecretKey, KeyFileError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| KeyFileError::Random(io::Error::other(error.to_string())))?;
    Ok(SecretKey::from_seed(&seed))
}

/// Writes a key to a new file of mode 0600.
///
/// # Errors
/// There is one already, or the disk does not permit it.
pub fn write_new(path: &Path, key: &SecretKey) -> Result<PublicKey, KeyFileError> {
    let digits = Zeroizing::new(hex::encode(key.to_seed().as_slice()));
    let line = Zeroizing::new(format!("{WORD} {}\n", digits.as_str()));
    durable::write(path, line.as_bytes(), Readers::Owner, Existing::Keep).map_err(|error| match error.source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
        _ => error.into(),
    })?;
    Ok(key.public())
}

/// Reads a key file.
///
/// # Errors
/// It is missing, damaged, another user's, or open to others.
pub fn read(path: &Path) -> Result<SecretKey, KeyFileError> {
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => durable::at("read", path)(source).into(),
    })?;
    // Asked of the open file, so that it cannot be exchanged between the check and the reading.
    let metadata = file.metadata().map_err(durable::at("read", path))?;
    let mode = metadata.mode() & 0o7777;
    if durable::open_to_others(&metadata) != 0 {
        return Err(KeyFileError::Open { path: path.to_owned(), mode });
    }
    let own = durable::own_uid().map_err(durable::at("read", path))?;
    if metadata.uid() != own {
        return Err(KeyFileError::Owner { path: path.to_owned(), owner: metadata.uid() });
    }
    let bytes = durable::read_open(&file, path, KEY_FILE_BYTES_MAX).map_err(|error| match error.source.kind() {
        // Too long, or no plain file.
        io::ErrorKind::InvalidData => KeyFileError::Corrupt(path.to_owned()),
        _ => error.into(),
    })?;
    let bytes = Zeroizing::new(bytes);
    parse(&bytes).ok_or_else(|| KeyFileError::Corrupt(path.to_owned()))
}

fn parse(bytes: &[u8]) -> Option<SecretKey> {
    let line = std::str::from_utf8(bytes).ok()?;
    let line = line.strip_suffix('\n').unwrap_or(line);
    let digits = line.strip_suffix('\r').unwrap_or(line).strip_prefix(WORD)?.strip_prefix(' ')?;
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, seed.as_mut_slice()).ok()?;
    Some(SecretKey::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_key_comes_back_and_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.key");
        let key = generate().expect("drawn");
        assert_eq!(write_new(&path, &key).expect("written"), key.public());
        assert_eq!(read(&path).expect("read").public(), key.public());
        let other = generate().expect("drawn");
        assert!(matches!(write_new(&path, &other), Err(KeyFileError::Exists(_))));
        assert_eq!(read(&path).expect("read").public(), key.public());
    }

    #[test]
    fn a_key_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.key");
        write_new(&path, &generate().expect("drawn")).expect("written");
        for mode in [0o640, 0o604, 0o660, 0o644, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            assert!(matches!(read(&path), Err(KeyFileError::Open { mode: found, .. }) if found == mode), "{mode:o}");
        }
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let good = format!("{WORD} {}", "0a".repeat(32));
        assert!(parse(good.as_bytes()).is_some());
        assert!(parse(format!("{good}\n").as_bytes()).is_some());
        let bad = [
            String::new(),
            "0a".repeat(32),
            format!("{WORD} {}", "0a".repeat(31)),
            format!("{WORD} {}", "0a".repeat(33)),
            format!("{WORD}  {}", "0a".repeat(32)),
            format!("{WORD} {}", "0g".repeat(32)),
            format!("{good}\n\n"),
        ];
        for text in bad {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.key");
        durable::write(&path, good.repeat(2).as_bytes(), Readers::Owner, Existing::Keep).expect("written");
        assert!(matches!(read(&path), Err(KeyFileError::Corrupt(_))), "longer than any key");
    }
}
