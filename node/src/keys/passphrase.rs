//! Passphrases of key files, and where they come from: a file, or else the terminal. Never an argument, nor the value of an
//! environment variable: both can be read by others and end up in logs. A passphrase is never printed.

use std::{
    fmt,
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::terminal::{self, NoLine};
use crate::durable::{self, FileError};

/// The environment variable that names the file with the passphrase.
const VARIABLE: &str = "ALLIANCE_PASSPHRASE_FILE";

/// Bytes of a passphrase that is chosen. Fewer are found by trying, whatever each try costs.
const PASSPHRASE_BYTES_MIN: usize = 12;

/// Bytes of a passphrase that is chosen. OpenSSL reads no more from a file or a terminal, and would open the key no longer.
const PASSPHRASE_BYTES_MAX: usize = 1023;

/// Bytes of a file with a passphrase: room for one that another tool has set.
const PASSPHRASE_FILE_BYTES_MAX: usize = 4096;

/// What is called with the path of a key when its passphrase is needed.
pub type Ask<'a> = dyn FnMut(&Path) -> Result<Passphrase, PassphraseError> + 'a;

/// A passphrase, good or bad. Never printed; wiped when dropped. Its bytes are used as they are, in UTF-8.
pub struct Passphrase(Zeroizing<String>);

/// A passphrase that a key may be protected with.
#[derive(Debug)]
pub struct NewPassphrase(Passphrase);

/// Where passphrases come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassphraseFrom {
    /// The only line of a file that others cannot read.
    File(PathBuf),
    /// The terminal that controls this process, without echo.
    Terminal,
}

/// Why a passphrase cannot be had, or cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    #[error(
        "the key `{}` needs a passphrase, and there is no terminal to ask for it: name a file that holds it, with \
         --passphrase-file FILE or in {VARIABLE}",
        .0.display()
    )]
    Nowhere(PathBuf),
    #[error("no passphrase was given for the key `{}`", .0.display())]
    NotGiven(PathBuf),
    #[error("interrupted; nothing was changed")]
    Interrupted,
    #[error("the terminal does not take a passphrase")]
    Terminal(#[source] io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the passphrase in `{}` can be read or changed by others (mode {mode:03o}): chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("the passphrase in `{}` belongs to another user (uid {owner})", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("`{}` does not hold a passphrase: it must be one line of text", .0.display())]
    NotOneLine(PathBuf),
    #[error("a passphrase must have from {PASSPHRASE_BYTES_MIN} to {PASSPHRASE_BYTES_MAX} bytes: take five words or more")]
    Length,
    #[error("the two passphrases differ; nothing was changed")]
    Differ,
}

/// For where no passphrase can be had: only plain keys are read then.
///
/// # Errors
/// Always [`PassphraseError::Nowhere`].
pub fn no_passphrase(key: &Path) -> Result<Passphrase, PassphraseError> {
    Err(PassphraseError::Nowhere(key.to_owned()))
}

impl Passphrase {
    /// Takes what was typed or read, of any length.
    #[must_use]
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl NewPassphrase {
    /// Takes a passphrase to protect keys with.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn choose(passphrase: Passphrase) -> Result<Self, PassphraseError> {
        match passphrase.as_bytes().len() {
            PASSPHRASE_BYTES_MIN..=PASSPHRASE_BYTES_MAX => Ok(Self(passphrase)),
            _ => Err(PassphraseError::Length),
        }
    }

    pub(super) fn passphrase(&self) -> &Passphrase {
        &self.0
    }
}

impl PassphraseFrom {
    /// The file that is named on the command line, or else in the environment, or else the terminal.
    #[must_use]
    pub fn locate(named: Option<&Path>) -> Self {
        let variable = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        named.map(Path::to_owned).or_else(variable).map_or(Self::Terminal, Self::File)
    }

    /// The passphrase of a key that has one. Asks once; the caller may ask again.
    ///
    /// # Errors
    /// The file is not there, is open to others or holds none; there is no terminal, or nothing was typed.
    pub fn ask(&self, key: &Path) -> Result<Passphrase, PassphraseError> {
        match self {
            Self::File(path) => from_file(path),
            Self::Terminal => asked(key, &mut |prompt| from_terminal(key, prompt)),
        }
    }

    /// A passphrase for a key that shall have one. On a terminal it is asked for twice.
    ///
    /// # Errors
    /// As [`PassphraseFrom::ask`], or it is too short or too long, or the two differ.
    pub fn choose(&self, key: &Path) -> Result<NewPassphrase, PassphraseError> {
        match self {
            Self::File(path) => NewPassphrase::choose(from_file(path)?),
            Self::Terminal => chosen(key, &mut |prompt| from_terminal(key, prompt)),
        }
    }
}

/// What is called with a prompt and gives what was typed.
type Prompt<'a> = dyn FnMut(&str) -> Result<Zeroizing<String>, PassphraseError> + 'a;

fn asked(key: &Path, prompt: &mut Prompt<'_>) -> Result<Passphrase, PassphraseError> {
    let typed = prompt(&format!("Passphrase of the key `{}`: ", key.display()))?;
    if typed.is_empty() { Err(PassphraseError::NotGiven(key.to_owned())) } else { Ok(Passphrase::new(typed)) }
}

fn chosen(key: &Path, prompt: &mut Prompt<'_>) -> Result<NewPassphrase, PassphraseError> {
    let typed = prompt(&format!("New passphrase for the key `{}`: ", key.display()))?;
    // Before the second time, which would be in vain.
    let new = NewPassphrase::choose(Passphrase::new(typed))?;
    let again = prompt("The same again: ")?;
    if again.as_bytes() == new.passphrase().as_bytes() { Ok(new) } else { Err(PassphraseError::Differ) }
}

fn from_terminal(key: &Path, prompt: &str) -> Result<Zeroizing<String>, PassphraseError> {
    terminal::ask(prompt).map_err(|error| match error {
        NoLine::Nowhere => PassphraseError::Nowhere(key.to_owned()),
        NoLine::Interrupted => PassphraseError::Interrupted,
        NoLine::Io(source) => PassphraseError::Terminal(source),
    })
}

fn from_file(path: &Path) -> Result<Passphrase, PassphraseError> {
    let file = File::open(path).map_err(durable::at("read", path))?;
    // Asked of the open file, so that it cannot be exchanged between the check and the reading.
    let metadata = file.metadata().map_err(durable::at("read", path))?;
    let own = durable::own_uid().map_err(durable::at("read", path))?;
    match trust(&Placed::of(&metadata), own) {
        Trust::Good => {}
        Trust::OtherOwner => return Err(PassphraseError::Owner { path: path.to_owned(), owner: metadata.uid() }),
        Trust::OpenToOthers => {
            return Err(PassphraseError::Open { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
        }
    }
    let bytes = durable::read_open_secret(&file, path, PASSPHRASE_FILE_BYTES_MAX)?;
    line(&bytes).ok_or_else(|| PassphraseError::NotOneLine(path.to_owned()))
}

fn line(bytes: &[u8]) -> Option<Passphrase> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let whole = !text.is_empty() && !text.contains(['\n', '\r', '\0']);
    whole.then(|| Passphrase::new(Zeroizing::new(text.to_owned())))
}

/// Whose a file is and who may do what with it.
#[derive(Clone, Copy, Debug)]
struct Placed {
    uid: u32,
    gid: u32,
    mode: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Good,
    OtherOwner,
    OpenToOthers,
}

impl Placed {
    fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() }
    }
}

/// One's own file has to be closed to all others. The system's may be one that root lets this user read, as systemd does with a
/// credential of a service: it is root's, and the bits of its group, root's as well, show the entry of the user in its access
/// list.
fn trust(placed: &Placed, own: u32) -> Trust {
    let Placed { uid, gid, mode } = *placed;
    if uid != own && uid != 0 {
        return Trust::OtherOwner;
    }
    let credential = uid == 0 && gid == 0 && mode & 0o037 == 0;
    if mode & 0o077 == 0 || credential { Trust::Good } else { Trust::OpenToOthers }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const KEY: &str = "/keys/node.key";

    fn given(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn only_passphrases_of_some_length_are_set() {
        for (bytes, good) in [(0, false), (11, false), (12, true), (1023, true), (1024, false)] {
            let chosen = NewPassphrase::choose(given(&"x".repeat(bytes)));
            assert_eq!(chosen.is_ok(), good, "{bytes}");
            assert!(chosen.is_ok() || matches!(chosen, Err(PassphraseError::Length)));
        }
    }

    #[test]
    fn a_new_passphrase_is_typed_twice_and_an_old_one_once() {
        fn run<T>(typed: &[&str], f: impl Fn(&mut Prompt<'_>) -> T) -> (T, usize) {
            let mut typed: VecDeque<&str> = typed.iter().copied().collect();
            let had = typed.len();
            let done = f(&mut |_| Ok(Zeroizing::new(typed.pop_front().expect("not asked so often").to_owned())));
            (done, had - typed.len())
        }
        let key = Path::new(KEY);
        let (new, times) = run(&["correct horse", "correct horse"], |prompt| chosen(key, prompt));
        assert_eq!((new.expect("chosen").passphrase().as_bytes(), times), (b"correct horse".as_slice(), 2));
        let (new, _) = run(&["correct horse", "correct horsf"], |prompt| chosen(key, prompt));
        assert!(matches!(new, Err(PassphraseError::Differ)));
        let (new, times) = run(&["short", "short"], |prompt| chosen(key, prompt));
        assert!(matches!((new, times), (Err(PassphraseError::Length), 1)));
        let (old, times) = run(&["short", "-"], |prompt| asked(key, prompt));
        assert_eq!((old.expect("given").as_bytes(), times), (b"short".as_slice(), 1));
        let (old, _) = run(&[""], |prompt| asked(key, prompt));
        assert!(matches!(old, Err(PassphraseError::NotGiven(_))));
    }

    #[test]
    fn a_file_holds_one_line_that_others_cannot_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pass");
        let from = PassphraseFrom::locate(Some(&path));
        assert_eq!(from, PassphraseFrom::File(path.clone()));
        assert!(matches!(from.ask(Path::new(KEY)), Err(PassphraseError::File(_))), "it is not there");
        let table: [(&[u8], Option<&[u8]>); 9] = [
            (b"correct horse", Some(b"correct horse")),
            (b"correct horse\n", Some(b"correct horse")),
            (b"correct horse\r\n", Some(b"correct horse")),
            (b" spaces stay \n", Some(b" spaces stay ")),
            (b"", None),
            (b"\n", None),
            (b"one\ntwo\n", None),
            (b"nul\0", None),
            (b"\xff\xfe", None),
        ];
        for (bytes, expected) in table {
            fs::write(&path, bytes).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
            match (from.ask(Path::new(KEY)), expected) {
                (Ok(found), Some(expected)) => assert_eq!(found.as_bytes(), expected),
                (Err(PassphraseError::NotOneLine(_)), None) => {}
                (found, _) => panic!("{bytes:?}: {found:?}"),
            }
        }
        fs::write(&path, "x".repeat(PASSPHRASE_FILE_BYTES_MAX + 1)).expect("written");
        assert!(matches!(from.ask(Path::new(KEY)), Err(PassphraseError::File(_))), "too long");
        fs::write(&path, "too short").expect("written");
        assert!(matches!(from.choose(Path::new(KEY)), Err(PassphraseError::Length)));
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            fs::write(&path, "correct horse").expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            // Where the tests run as root, a file that its own group may read looks like a credential.
            let credential = mode == 0o640 && fs::metadata(&path).is_ok_and(|it| (it.uid(), it.gid()) == (0, 0));
            let found = from.ask(Path::new(KEY));
            assert!(credential || matches!(found, Err(PassphraseError::Open { mode: m, .. }) if m == mode), "{mode:o}");
        }
    }

    #[test]
    fn files_of_the_user_and_credentials_of_systemd_are_trusted() {
        let table = [
            (1000, 1000, 0o100_600, Trust::Good),
            (1000, 1000, 0o100_400, Trust::Good),
            (1000, 0, 0o100_640, Trust::OpenToOthers),
            (1000, 1000, 0o100_440, Trust::OpenToOthers),
            (0, 0, 0o100_400, Trust::Good),
            (0, 0, 0o100_440, Trust::Good),
            (0, 50, 0o100_440, Trust::OpenToOthers),
            (0, 0, 0o100_460, Trust::OpenToOthers),
            (0, 0, 0o100_444, Trust::OpenToOthers),
            (1001, 1001, 0o100_600, Trust::OtherOwner),
        ];
        for (uid, gid, mode, expected) in table {
            assert_eq!(trust(&Placed { uid, gid, mode }, 1000), expected, "{uid} {gid} {mode:o}");
        }
    }

    #[test]
    fn where_nobody_can_be_asked_the_error_says_what_to_do() {
        let error = no_passphrase(Path::new(KEY)).expect_err("none");
        let text = error.to_string();
        assert!([KEY, "--passphrase-file", VARIABLE].iter().all(|word| text.contains(word)), "{text}");
    }
}
