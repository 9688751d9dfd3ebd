//! Tokens of the people and programs that use this node over its gateway.
//!
//! Only the SHA-256 of a token is kept, in a file that the owner of the home alone can read; but for that owner's own, which lies
//! beside it as it is. The command line changes the file; the daemon reads it again whenever it has changed, so that a token that is
//! revoked opens nothing from then on, and ends what it had opened.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use alliance_protocol::{
    id::Sha256,
    manifest::is_printable,
    time::Timestamp,
    vocabulary::{Circumstance, Purpose, Use},
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use zeroize::Zeroizing;

use crate::durable::{self, Existing, FileError, Readers, at};

/// Tokens of one node: one for each person and program of an organisation.
pub const TOKENS_MAX: usize = 1024;

/// Bytes of the file: [`TOKENS_MAX`] of some 250 bytes, and room.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the file with the token of the owner of the home.
const OWN_BYTES_MAX: usize = 128;

/// Who uses that token.
const OWNER: &str = "owner of the node";

/// Characters of the name of who uses a token.
const USER_CHARACTERS_MAX: usize = 64;

/// Digits behind `hf_`: 238 bits. Clients of the Hugging Face Hub take a token of at least 34 digits, letters among them.
const SECRET_DIGITS: usize = 40;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See what there is, and read what lies at this node.
    Read,
    /// Start crossings in the name of the organisation, for what others offer.
    Pull,
    /// Upload models, which become models of the organisation, and are offered.
    Write,
}

impl Scope {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Read, Self::Pull, Self::Write];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pull => "pull",
            Self::Write => "write",
        }
    }
}

/// What the holder of a token says of the crossings that they start: the law asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    pub purpose: Purpose,
    #[serde(rename = "use")]
    pub use_: Use,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub circumstances: BTreeSet<Circumstance>,
}

impl Default for Declared {
    /// As where nothing is said to `alliance pull`.
    fn default() -> Self {
        Self { purpose: Purpose::Research, use_: Use::Inference, circumstances: BTreeSet::new() }
    }
}

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The first digits of its SHA-256.
    pub id: String,
    /// Who uses it.
    pub user: String,
    pub scopes: BTreeSet<Scope>,
    #[serde(default)]
    pub declared: Declared,
    pub created: Timestamp,
    /// From when on it opens nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    sha256: Sha256,
}

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{}` holds no tokens: {reason}; repair it, or remove it and create them anew", path.display())]
    Syntax { path: PathBuf, reason: String },
    #[error("a name of a user has from 1 to {USER_CHARACTERS_MAX} characters that can be printed")]
    User,
    #[error("there are {TOKENS_MAX} tokens, which is as many as are kept; revoke some first")]
    TooMany,
    #[error("there is no token with that id")]
    Unknown,
    #[error("more than one token has an id that begins so; give more digits of it, or the token itself")]
    Ambiguous,
    #[error("no randomness can be had from the system: {0}")]
    Randomness(getrandom::Error),
}

/// The tokens in a file.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// All tokens, the oldest first; none where none was ever created.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(&self) -> Result<Vec<Token>, TokenError> {
        let Some(bytes) = durable::read_if_there(&self.path, FILE_BYTES_MAX)? else { return Ok(Vec::new()) };
        serde_json::from_slice(&bytes)
            .map_err(|error| TokenError::Syntax { path: self.path.clone(), reason: error.to_string() })
    }

    /// Creates a token; returns it, and its secret, which is not kept here.
    ///
    /// # Errors
    /// There are too many, the name is none, or the disk failed.
    pub fn create(
        &self,
        user: &str,
        (scopes, declared): (BTreeSet<Scope>, Declared),
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(Token, Zeroizing<String>), TokenError> {
        if user.trim().is_empty() || user.chars().count() > USER_CHARACTERS_MAX || !is_printable(user) {
            return Err(TokenError::User);
        }
        self.change(|tokens| {
            let (token, secret) = draw(user, (scopes, declared), until, now)?;
            add(tokens, token.clone())?;
            Ok((token, secret))
        })
    }

    /// The secret of the owner of the home, which lies in a file of its own as long as it counts; a new one otherwise.
    ///
    /// # Errors
    /// As [`TokenFile::create`].
    pub fn own(&self, now: Timestamp) -> Result<Zeroizing<String>, TokenError> {
        let path = self.path.with_file_name("gateway.token");
        self.change(|tokens| {
            if let Some(bytes) = durable::read_if_there(&path, OWN_BYTES_MAX)? {
                let kept = Zeroizing::new(String::from_utf8_lossy(&bytes).trim().to_owned());
                let sha256 = digest(&kept);
                if let Some(token) = tokens.iter_mut().find(|token| token.sha256 == sha256 && token.counts(now)) {
                    // Of an earlier version, which knew fewer.
                    token.scopes.extend(Scope::ALL);
                    return Ok(kept);
                }
            }
            let (token, secret) = draw(OWNER, (Scope::ALL.into(), Declared::default()), None, now)?;
            // First, so that no token counts that nobody has.
            durable::write(&path, secret.as_bytes(), Readers::Owner, Existing::Replace)?;
            add(tokens, token)?;
            Ok(secret)
        })
    }

    /// Removes the one token whose id begins so, or that is given itself.
    ///
    /// # Errors
    /// There is none or more than one, or the disk failed.
    pub fn revoke(&self, id: &str) -> Result<Token, TokenError> {
        self.change(|tokens| {
            let given = digest(id);
            let named =
                |token: &Token| token.sha256 == given || (!id.is_empty() && token.sha256.to_string().starts_with(id));
            let mut found = tokens.iter().enumerate().filter(|(_, token)| named(token));
            let (place, _) = found.next().ok_or(TokenError::Unknown)?;
            if found.next().is_some() {
                return Err(TokenError::Ambiguous);
            }
            Ok(tokens.remove(place))
        })
    }

    /// Changes the file while nobody else does.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Token>) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let path = self.path.with_extension("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        // Held until it is dropped.
        let lock: File = lock.map_err(at("open", &path))?;
        lock.lock().map_err(at("lock", &path))?;
        let mut tokens = self.read()?;
        let before = tokens.clone();
        let done = change(&mut tokens)?;
        if tokens == before {
            return Ok(done);
        }
        // Nothing in a token can fail to be written as JSON.
        let text = serde_json::to_vec_pretty(&tokens).unwrap_or_default();
        durable::write(&self.path, &text, Readers::Owner, Existing::Replace)?;
        Ok(done)
    }
}

impl Token {
    fn counts(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

fn draw(
    user: &str,
    (scopes, declared): (BTreeSet<Scope>, Declared),
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(Token, Zeroizing<String>), TokenError> {
    let secret = secret().map_err(TokenError::Randomness)?;
    let sha256 = digest(&secret);
    let id = sha256.to_string().chars().take(8).collect();
    Ok((Token { id, user: user.to_owned(), scopes, declared, created: now, until, sha256 }, secret))
}

fn add(tokens: &mut Vec<Token>, token: Token) -> Result<(), TokenError> {
    if tokens.len() >= TOKENS_MAX {
        return Err(TokenError::TooMany);
    }
    tokens.push(token);
    Ok(())
}

/// The tokens as the daemon knows them: read again when the file has changed.
#[derive(Debug)]
pub struct Doorkeeper {
    file: TokenFile,
    known: Vec<Token>,
    /// Of the file that `known` was read from; none where there was none.
    stamp: Option<Stamp>,
}

/// What changes whenever the file is written: it is another file then.
type Stamp = (u64, i64, i64, u64);

impl Doorkeeper {
    #[must_use]
    pub fn new(file: TokenFile) -> Self {
        Self { file, known: Vec::new(), stamp: None }
    }

    /// The token with this secret, if there is one and it has not ended.
    ///
    /// # Errors
    /// The file cannot be read; then nobody is let in.
    pub fn admit(&mut self, secret: &str, now: Timestamp) -> Result<Option<&Token>, TokenError> {
        self.refresh()?;
        // The hash is compared and not the secret: how long that takes tells nothing of one.
        let sha256 = digest(secret);
        Ok(self.known.iter().find(|token| token.sha256 == sha256 && token.counts(now)))
    }

    /// Whether a token that was admitted would be now.
    ///
    /// # Errors
    /// As [`Doorkeeper::admit`].
    pub fn counts(&mut self, token: &Token, now: Timestamp) -> Result<bool, TokenError> {
        self.refresh()?;
        Ok(self.known.iter().any(|known| known == token && known.counts(now)))
    }

    fn refresh(&mut self) -> Result<(), TokenError> {
        let stamp = self.look()?;
        if stamp.is_none() || stamp != self.stamp {
            // Forgotten first: what cannot be read lets nobody in.
            (self.known, self.stamp) = (Vec::new(), None);
            self.known = self.file.read()?;
            self.stamp = stamp;
        }
        Ok(())
    }

    fn look(&self) -> Result<Option<Stamp>, TokenError> {
        match fs::metadata(&self.file.path) {
            Ok(metadata) => Ok(Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", &self.file.path)(error).into()),
        }
    }
}

fn digest(secret: &str) -> Sha256 {
    Sha256(sha2::Sha256::digest(secret.as_bytes()).into())
}

/// `hf_` and random digits.
fn secret() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut secret = Zeroizing::new(String::with_capacity(3 + SECRET_DIGITS));
    secret.push_str("hf_");
    secret.push_str(&random_digits()?);
    Ok(secret)
}

/// What nobody guesses: random digits, each of the 62 as likely as the others.
///
/// # Errors
/// The system has no randomness to give.
pub fn random_digits() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut drawn = Zeroizing::new(String::with_capacity(SECRET_DIGITS));
    while drawn.len() < SECRET_DIGITS {
        let mut bytes = Zeroizing::new([0_u8; SECRET_DIGITS]);
        getrandom::fill(bytes.as_mut_slice())?;
        // 248 is the largest multiple of 62 that a byte holds.
        let digits = bytes.iter().filter(|byte| **byte < 248).filter_map(|byte| DIGITS.get(usize::from(byte % 62)));
        let room = SECRET_DIGITS - drawn.len();
        for digit in digits.take(room) {
            drawn.push(char::from(*digit));
        }
    }
    Ok(drawn)
}

/// Where the tokens of the node with this home are kept.
#[must_use]
pub fn of_home(home: &Path) -> TokenFile {
    TokenFile::at(home.join("tokens.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> (BTreeSet<Scope>, Declared) {
        ([Scope::Read].into(), Declared::default())
    }

    #[test]
    fn a_token_opens_until_it_is_revoked_or_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = of_home(dir.path());
        let mut door = Doorkeeper::new(file.clone());
        let now = Timestamp(1_000);
        assert!(door.admit("hf_", now).expect("read").is_none());
        let (first, secret) = file.create("maria", read(), None, now).expect("created");
        let (second, short) = file.create("ci", read(), Some(Timestamp(2_000)), now).expect("created");
        assert_eq!(door.admit(&secret, now).expect("read"), Some(&first));
        assert_eq!(door.admit(&short, Timestamp(1_999)).expect("read"), Some(&second));
        assert_eq!(door.admit(&short, Timestamp(2_000)).expect("read"), None);
        assert_eq!(door.admit(&format!("{}0", *secret), now).expect("read"), None);
        assert_eq!(file.revoke(&first.id).expect("revoked"), first);
        assert_eq!(door.admit(&secret, now).expect("read"), None, "at once");
        assert!(!door.counts(&first, now).expect("read") && door.counts(&second, now).expect("read"));
        assert!(matches!(file.revoke(&first.id), Err(TokenError::Unknown)));
        assert!(matches!(file.revoke(""), Err(TokenError::Unknown)));
        let own = file.own(now).expect("made");
        assert_eq!(file.own(now).expect("kept"), own);
        assert_eq!(file.revoke(&own).expect("by itself").user, OWNER);
        assert_ne!(file.own(now).expect("made anew"), own);
        fs::write(&file.path, "[{}]").expect("written");
        assert!(door.admit(&short, now).is_err(), "what cannot be read lets nobody in");
        fs::remove_file(&file.path).expect("removed");
        assert_eq!(door.admit(&short, now).expect("read"), None);
    }

    #[test]
    fn secrets_have_the_form_that_clients_take_and_are_not_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = of_home(dir.path());
        let (token, secret) = file.create("maria", read(), None, Timestamp(1)).expect("created");
        let digits = secret.strip_prefix("hf_").expect("as the Hub's");
        assert!(digits.len() == SECRET_DIGITS && digits.bytes().all(|digit| DIGITS.contains(&digit)), "{digits}");
        let kept = fs::read_to_string(dir.path().join("tokens.json")).expect("kept");
        assert!(!kept.contains(digits) && !format!("{token:?}").contains(digits));
        assert_eq!(durable::open_to_others(&fs::metadata(&file.path).expect("there")), 0);
        for user in ["", " ", "a\nb", "a\u{202e}b", &"x".repeat(65)] {
            assert!(matches!(file.create(user, read(), None, Timestamp(1)), Err(TokenError::User)), "{user:?}");
        }
    }
}
