//! Key files of mode 0600: an Ed25519 seed, plain or encrypted with a passphrase.
//!
//! A plain one is the line `alliance-ed25519-seed <64 hexadecimal digits>`. A protected one is the line
//! `alliance-ed25519-public <64 hexadecimal digits>` and a PEM block `ENCRYPTED PRIVATE KEY` (RFC 5958, RFC 7468), which
//! `openssl pkey` opens: start reading in `sealed`. Where passphrases come from is in `passphrase`.
//!
//! A key file is never overwritten, except by [`protect`] with the same key; never printed; and never read where others
//! could have read or changed it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use alliance_protocol::key::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::durable::{self, Existing, FileError, Readers};

mod passphrase;
mod sealed;
mod terminal;

pub use passphrase::{Ask, NewPassphrase, Passphrase, PassphraseError, PassphraseFrom, no_passphrase};
use sealed::{COST, Cost, Damage, Sealed};

/// The word that a plain key file begins with.
const WORD: &str = "alliance-ed25519-seed";

/// Bytes of a key file: a protected one has about 400, with room for other line ends and a longer salt.
const KEY_FILE_BYTES_MAX: usize = 1024;

/// How a key lies on the disk.
#[derive(Debug)]
pub enum Protection {
    /// Whoever reads the file has the key.
    Plain,
    /// Whoever reads the file needs the passphrase as well.
    Passphrase(NewPassphrase),
}

/// What a key file says without its passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// Of a protected key this is what the file claims, and it is checked whenever the key is read: enough to name the key,
    /// and to verify what its owner signed.
    pub public: PublicKey,
    pub kept: Kept,
}

/// Whether a key file can be used without a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Plain,
    Protected,
}

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
    #[error(
        "`{}` is not a key: it must be one line, `{WORD}` and 64 hexadecimal digits, or one line, `{}` and 64 hexadecimal \
         digits, with an encrypted key in PEM below",
        .0.display(), sealed::WORD
    )]
    Corrupt(PathBuf),
    #[error("the key `{}` is encrypted in another way than PBES2 with scrypt and AES-256-CBC", .0.display())]
    Scheme(PathBuf),
    #[error("to open the key `{}` would take more memory or time than a key of ours may", .0.display())]
    CostTooHigh(PathBuf),
    #[error("the passphrase does not open the key `{}`: it is another one, or the file is damaged", .0.display())]
    WrongPassphrase(PathBuf),
    /// The passphrase, old or new, cannot be had.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    #[error("the key `{}` has {names} names and would stay as it is under the others: remove those first", path.display())]
    Linked { path: PathBuf, names: u64 },
    #[error("the key for `{}` could not be encrypted; nothing was written", .0.display())]
    Encrypt(PathBuf),
    #[error("the system gives no random numbers")]
    Random(#[source] io::Error),
}

/// Draws a new key.
///
/// # Errors
/// The system gives no random numbers.
pub fn generate() -> Result<SecretKey, KeyFileError> {
    Ok(SecretKey::from_seed(&Zeroizing::new(random()?)))
}

/// Writes a key to a new file of mode 0600.
///
/// # Errors
/// There is one already, or the disk does not permit it.
pub fn write_new(path: &Path, key: &SecretKey, protection: &Protection) -> Result<PublicKey, KeyFileError> {
    let text = encode(path, key, protection, COST)?;
    durable::write(path, text.as_bytes(), Readers::Owner, Existing::Keep).map_err(|error| match error.source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
        _ => error.into(),
    })?;
    Ok(key.public())
}

/// Reads a key file. `ask` is called with its path, once, and only where the key is protected.
///
/// # Errors
/// It is missing, damaged, another user's, or open to others; the passphrase cannot be had, or is another one.
pub fn read(path: &Path, ask: &mut Ask<'_>) -> Result<SecretKey, KeyFileError> {
    match load(path)? {
        Loaded::Plain(key) => Ok(key),
        Loaded::Sealed(sealed) => sealed.open(&ask(path)?).map_err(|damage| named(path, damage)),
    }
}

/// Whose key a file holds and how it is kept. Needs no passphrase.
///
/// # Errors
/// It is missing, damaged, another user's, or open to others.
pub fn inspect(path: &Path) -> Result<KeyFacts, KeyFileError> {
    Ok(match load(path)? {
        Loaded::Plain(key) => KeyFacts { public: key.public(), kept: Kept::Plain },
        Loaded::Sealed(sealed) => KeyFacts { public: sealed.public(), kept: Kept::Protected },
    })
}

/// Encrypts a key file, decrypts it or gives it another passphrase. At any instant, and after a crash at any instant, the
/// file holds the whole key, as it was or as it shall be. Once this has succeeded, neither the file as it was nor what a crash
/// had left of an earlier try has a name any more. The disk may still hold its blocks, and copies of it are not known here: a
/// key that may have been copied is to be replaced, not protected.
///
/// `ask` gives the passphrase of now, and is called only where there is one.
///
/// # Errors
/// The key cannot be read, has other names (hard links), or cannot be written. It is as it was, unless the disk failed in
/// the last step; then it is as it was or as it shall be.
pub fn protect(path: &Path, ask: &mut Ask<'_>, protection: &Protection) -> Result<PublicKey, KeyFileError> {
    // A rename would replace a symbolic link, and the key would stay where the link points.
    let path = &fs::canonicalize(path).map_err(|source| unread(path, source))?;
    let key = read(path, ask)?;
    let text = encode(path, &key, protection, COST)?;
    // What a crash left of an earlier try may hold the plain key, and may be a second name of this very file.
    durable::sweep(path)?;
    let names = fs::metadata(path).map_err(durable::at("read", path))?.nlink();
    if names > 1 {
        return Err(KeyFileError::Linked { path: path.clone(), names });
    }
    // A crash before the rename in here leaves the old file and a new one that the next try sweeps away.
    durable::write(path, text.as_bytes(), Readers::Owner, Existing::Replace)?;
    Ok(key.public())
}

/// A key file, taken apart.
enum Loaded {
    Plain(SecretKey),
    Sealed(Sealed),
}

fn load(path: &Path) -> Result<Loaded, KeyFileError> {
    let file = File::open(path).map_err(|source| unread(path, source))?;
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
    let bytes = durable::read_open_secret(&file, path, KEY_FILE_BYTES_MAX).map_err(|error| match error.source.kind() {
        // Too long, or no plain file.
        io::ErrorKind::InvalidData => KeyFileError::Corrupt(path.to_owned()),
        _ => error.into(),
    })?;
    parse(&bytes).map_err(|damage| named(path, damage))
}

fn unread(path: &Path, source: io::Error) -> KeyFileError {
    match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => durable::at("read", path)(source).into(),
    }
}

fn named(path: &Path, damage: Damage) -> KeyFileError {
    let path = path.to_owned();
    match damage {
        Damage::Corrupt => KeyFileError::Corrupt(path),
        Damage::Scheme => KeyFileError::Scheme(path),
        Damage::CostTooHigh => KeyFileError::CostTooHigh(path),
        Damage::WrongPassphrase => KeyFileError::WrongPassphrase(path),
    }
}

fn parse(bytes: &[u8]) -> Result<Loaded, Damage> {
    let text = std::str::from_utf8(bytes).map_err(|_| Damage::Corrupt)?;
    match plain(text) {
        Some(key) => Ok(Loaded::Plain(key)),
        None => Ok(Loaded::Sealed(Sealed::parse(text)?)),
    }
}

fn plain(text: &str) -> Option<SecretKey> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let digits = line.strip_suffix('\r').unwrap_or(line).strip_prefix(WORD)?.strip_prefix(' ')?;
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, seed.as_mut_slice()).ok()?;
    Some(SecretKey::from_seed(&seed))
}

/// The text of a key file, of which it is certain that it gives back the key.
fn encode(path: &Path, key: &SecretKey, protection: &Protection, cost: Cost) -> Result<Zeroizing<String>, KeyFileError> {
    match protection {
        Protection::Plain => {
            let digits = Zeroizing::new(hex::encode(key.to_seed().as_slice()));
            Ok(Zeroizing::new(format!("{WORD} {}\n", digits.as_str())))
        }
        Protection::Passphrase(new) => {
            let (salt, iv) = (random()?, random()?);
            let text =
                sealed::seal(key, new.passphrase(), cost, salt, iv).map_err(|_| KeyFileError::Encrypt(path.to_owned()))?;
            // The old file is given up for this one: a key that does not come back from it would be lost.
            let back = Sealed::parse(&text).and_then(|sealed| sealed.open(new.passphrase()));
            match back {
                Ok(back) if back.public() == key.public() => Ok(text),
                Ok(_) | Err(_) => Err(KeyFileError::Encrypt(path.to_owned())),
            }
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], KeyFileError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyFileError::Random(io::Error::other(error.to_string())))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
