//! A node's home: the directory with its key, papers, configuration and everything it keeps.
//!
//! The daemon opens a home only where nobody else can read or change it, where its papers hold, and where no other daemon
//! runs on it. A home never overwrites a key. Every small file in it is written whole or not at all.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use alliance_protocol::{
    authority::Accreditation,
    charter::Chartered,
    envelope::Signed,
    key::{PublicKey, SecretKey},
    limits,
    model_key::{BindingError, ModelKeyError},
    rotation::NotRotated,
    time::Timestamp,
    trust::Distrust,
};

use crate::{
    config::{Config, ConfigError},
    durable::{self, Existing, FileError, Readers, at},
    keys::{self, KeyFileError, PassphraseFrom, Protection},
    ledger::{self, LedgerError, LedgerFile},
};

mod model_key;
mod papers;
mod rotation;
mod socket;

pub use papers::{Papers, PapersError};
pub use rotation::{NextKey, Rotated};
pub use socket::SocketError;

/// A directory that is, or is to be, a node's home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    /// Where the passphrase of its key comes from, if that has one.
    passphrases: PassphraseFrom,
}

/// A home that passed every check, locked against a second daemon while this value lives.
#[derive(Debug)]
pub struct OpenHome {
    pub home: Home,
    pub key: SecretKey,
    pub config: Config,
    pub charter: Chartered,
    pub accreditation: Signed<Accreditation>,
    /// The operator's own rules, as Cedar text.
    pub house: Option<String>,
    /// What binds the key with which this node signs models to its own.
    pub model_binding: Option<Vec<u8>>,
    _lock: File,
}

/// Why a home cannot be made or used. [`HomeError::next_step`] says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("neither --home, ALLIANCE_HOME nor HOME says where the node's home is")]
    Nowhere,
    #[error("there is no home at `{}`", .0.display())]
    Missing(PathBuf),
    #[error("`{}` is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("the home `{}` can be entered or changed by others (mode {mode:03o})", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("the home `{}` belongs to another user (uid {owner})", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("another allianced{pid} runs on the home `{}`", path.display())]
    Running { path: PathBuf, pid: String },
    #[error("SSLKEYLOGFILE is set: the session keys of every connection would be written to a file")]
    KeyLog,
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Papers(#[from] PapersError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("this node has no key for signing models")]
    NoModelKey,
    #[error("the key for signing models `{}` cannot be used", path.display())]
    ModelKey {
        path: PathBuf,
        #[source]
        source: ModelKeyError,
    },
    #[error("the key for signing models is not bound to this node")]
    Binding(#[source] BindingError),
    #[error("the ledger cannot be begun")]
    Ledger(#[source] LedgerError),
    #[error("the ledger `{}` is gone", .0.display())]
    LedgerGone(PathBuf),
    #[error("no key waits to take the place of the node's: there is no `{}`", .0.display())]
    NoNextKey(PathBuf),
    #[error("the accreditation is not one of the key that waits")]
    NextPapers(#[source] PapersError),
    #[error("the accreditation is of the key that waits to take the place of the node's")]
    ForNextKey,
    #[error("others would not believe that the key was changed")]
    NotRotated(#[source] Distrust),
    #[error("the ledger does not take the change of its node's key")]
    NotRecorded(#[source] LedgerError),
    #[error("the change of this node's key is recorded, and its files are not yet in their places")]
    Unfinished,
}

impl HomeError {
    /// What the operator can do about it; empty where the error says it all.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::Nowhere => "give --home DIR".into(),
            Self::Missing(path) => format!("make one: alliance --home {} init", path.display()),
            Self::NotADirectory(_) => "give another --home".into(),
            Self::Open { path, .. } => format!("close it: chmod 700 {}", path.display()),
            Self::Owner { .. } => "run as the user whom the home belongs to".into(),
            Self::Running { .. } => "stop that one first, or give another --home".into(),
            Self::KeyLog => "unset SSLKEYLOGFILE and start again".into(),
            Self::Key(KeyFileError::Missing(_)) => "make the key: alliance init".into(),
            Self::Key(KeyFileError::Open { path, .. }) => {
                format!("assume that it was read: make a new one, or at least chmod 600 {}", path.display())
            }
            Self::Key(KeyFileError::Corrupt(_)) => "restore it from a copy; a new key needs a new accreditation".into(),
            Self::Key(KeyFileError::WrongPassphrase(_)) => "try again, or restore the key from a copy".into(),
            Self::Key(KeyFileError::Scheme(_) | KeyFileError::CostTooHigh(_)) => {
                "restore the file as `alliance key protect` had written it".into()
            }
            Self::Key(_) | Self::File(_) | Self::Config(ConfigError::File(_)) => String::new(),
            Self::Config(ConfigError::Syntax { .. } | ConfigError::Meaning { .. }) => {
                "mend the file and start again".into()
            }
            Self::Papers(error) => error.next_step().into(),
            Self::NoModelKey => "make one: alliance model signing-key".into(),
            Self::ModelKey { .. } => "restore it, or move it away and make another: alliance model signing-key".into(),
            Self::Binding(_) => "bind it again: alliance model signing-key".into(),
            Self::Ledger(_) => String::new(),
            Self::NotRecorded(_) => "repair what is wrong, and run alliance key rotate again".into(),
            Self::NoNextKey(_) => "draw one, and have it accredited: alliance key rotate".into(),
            Self::NextPapers(_) => {
                "`alliance key rotate` says what the authority has to accredit; give what it signs then".into()
            }
            Self::NotRotated(Distrust::Rotation(NotRotated::OtherOrganisation { .. })) => {
                "have the new key accredited by the same authority for the same organisation as the old one".into()
            }
            Self::NotRotated(_) => String::new(),
            Self::ForNextKey => {
                "stop the daemon, and let that one take over: alliance key rotate --accreditation FILE".into()
            }
            Self::Unfinished => "start the daemon, or run alliance key rotate again: either puts them there".into(),
            Self::LedgerGone(_) => {
                "restore it from a backup; without its ledger this node cannot prove anything, and a new \
                                    one needs a new home and key"
                    .into()
            }
        }
    }
}

/// Directories of a home that are made with it.
const FOLDERS: [&str; 5] = ["ledger", "witness", "catalogue", "manifests", "models"];

impl Home {
    /// The home that is named on the command line, or else in the environment, or else `~/.alliance`.
    ///
    /// # Errors
    /// Nothing says where it is.
    pub fn locate(named: Option<&Path>) -> Result<Self, HomeError> {
        let from = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = match named {
            Some(path) => path.to_owned(),
            None => from("ALLIANCE_HOME")
                .or_else(|| from("HOME").map(|home| home.join(".alliance")))
                .ok_or(HomeError::Nowhere)?,
        };
        Self::at(&root)
    }

    /// The home at a path, which is made absolute; nothing is touched.
    ///
    /// # Errors
    /// The path is empty or the current directory is gone.
    pub fn at(root: &Path) -> Result<Self, HomeError> {
        let root = std::path::absolute(root).map_err(at("use", root))?;
        Ok(Self { root, passphrases: PassphraseFrom::locate(None) })
    }

    /// The same home, with the passphrase of its key from elsewhere.
    #[must_use]
    pub fn with_passphrases(self, passphrases: PassphraseFrom) -> Self {
        Self { passphrases, ..self }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.root.join("node.key")
    }

    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    #[must_use]
    pub fn charter_path(&self) -> PathBuf {
        self.root.join("charter.alliance")
    }

    #[must_use]
    pub fn accreditation_path(&self) -> PathBuf {
        self.root.join("accreditation.alliance")
    }

    /// The private key with which this node signs models, if it has one.
    #[must_use]
    pub fn model_key_path(&self) -> PathBuf {
        self.root.join("model-key.pem")
    }

    /// The statement that binds that key to the node.
    #[must_use]
    pub fn model_binding_path(&self) -> PathBuf {
        self.root.join("model-key.alliance")
    }

    /// The operator's own rules, if there are any.
    #[must_use]
    pub fn house_path(&self) -> PathBuf {
        self.root.join("house.cedar")
    }

    /// The ledger: the truth of the node.
    #[must_use]
    pub fn ledger_path(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// How much transfers may take, as the operator has set it.
    #[must_use]
    pub fn limits_path(&self) -> PathBuf {
        self.root.join("limits.json")
    }

    /// Heads of ledgers with the signatures of witnesses.
    #[must_use]
    pub fn notes_path(&self) -> PathBuf {
        self.root.join("witness")
    }

    /// What can be rebuilt.
    #[must_use]
    pub fn catalogue_path(&self) -> PathBuf {
        self.root.join("catalogue")
    }

    #[must_use]
    pub fn manifests_path(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// Where what is pulled goes unless the operator says otherwise.
    #[must_use]
    pub fn models_path(&self) -> PathBuf {
        self.root.join("models")
    }

    fn lock_path(&self) -> PathBuf {
        self.root.join("allianced.lock")
    }

    /// Makes the home with a new key and a configuration. In a home that exists, only what is missing is added. A new key is
    /// encrypted with a passphrase where `protect` says so.
    ///
    /// # Errors
    /// The place is open to others or another user's, its key is unusable, there is no passphrase, or the disk does not permit
    /// it.
    pub fn create(&self, config: &Config, protect: bool) -> Result<Created, HomeError> {
        durable::private_dir(&self.root)?;
        self.check_owned()?;
        for folder in FOLDERS {
            durable::private_dir(&self.root.join(folder))?;
        }
        let (node, new_key) = match keys::inspect(&self.key_path()) {
            Ok(facts) => (facts.public, None),
            Err(KeyFileError::Missing(path)) => {
                let protection = match protect {
                    true => Protection::Passphrase(self.passphrases.choose(&path).map_err(KeyFileError::from)?),
                    false => Protection::Plain,
                };
                let key = keys::generate()?;
                (keys::write_new(&path, &key, &protection)?, Some(key))
            }
            Err(error) => return Err(error.into()),
        };
        // Begun before the node has ever been accredited, and never again: a ledger that is gone later is noticed.
        if !self.accreditation_path().exists() && (new_key.is_some() || !ledger::exists(&self.ledger_path())) {
            let key = match &new_key {
                Some(key) => SecretKey::from_seed(&key.to_seed()),
                None => self.key()?,
            };
            LedgerFile::open(&self.ledger_path(), &key).map_err(HomeError::Ledger)?;
        }
        let new_key = new_key.is_some();
        let new_config = !self.config_path().exists();
        if new_config {
            durable::write(&self.config_path(), config.to_text().as_bytes(), Readers::Owner, Existing::Keep)?;
        }
        Ok(Created { node, new_key, new_config })
    }

    /// The node's key.
    ///
    /// # Errors
    /// There is none, or it is unusable.
    pub fn key(&self) -> Result<SecretKey, HomeError> {
        self.check_owned()?;
        if self.is_unfinished() {
            return Err(HomeError::Unfinished);
        }
        Ok(keys::read(&self.key_path(), &mut |key| self.passphrases.ask(key))?)
    }

    /// The public half of the node's key, for which no passphrase is needed.
    ///
    /// # Errors
    /// There is none, or it is unusable.
    pub fn public(&self) -> Result<PublicKey, HomeError> {
        self.check_owned()?;
        if self.is_unfinished() {
            return Err(HomeError::Unfinished);
        }
        Ok(keys::inspect(&self.key_path())?.public)
    }

    /// Opens the home for a daemon, and locks it.
    ///
    /// # Errors
    /// The first thing that must not be so, in the order: environment, place, second daemon, configuration, key, papers.
    pub fn open_for_daemon(&self, now: Timestamp) -> Result<OpenHome, HomeError> {
        self.open_in(std::env::var_os("SSLKEYLOGFILE").is_some(), now)
    }

    fn open_in(&self, key_log: bool, now: Timestamp) -> Result<OpenHome, HomeError> {
        if key_log {
            return Err(HomeError::KeyLog);
        }
        self.check_owned()?;
        let lock = self.lock()?;
        let config = Config::read(&self.config_path())?;
        if self.finish_rotation()? {
            tracing::info!("put the files of the new key in their places, which a crash had left undone");
        }
        let key = keys::read(&self.key_path(), &mut |key| self.passphrases.ask(key))?;
        let Papers { charter, accreditation } = self.papers(key.public(), now)?;
        let house = durable::read_if_there(&self.house_path(), limits::LAW_PACK_BYTES_MAX)?;
        let house = house
            .map(String::from_utf8)
            .transpose()
            .map_err(|error| at("read", &self.house_path())(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        if !ledger::exists(&self.ledger_path()) {
            return Err(HomeError::LedgerGone(self.ledger_path()));
        }
        for folder in FOLDERS {
            durable::private_dir(&self.root.join(folder))?;
        }
        let model_binding = self.model_binding(&key, &charter, now)?;
        let home = self.clone();
        Ok(OpenHome { home, key, config, charter, accreditation, house, model_binding, _lock: lock })
    }

    /// The directory is there, is this user's, and nobody else may enter it.
    fn check_owned(&self) -> Result<(), HomeError> {
        let path = self.root.clone();
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(HomeError::Missing(path)),
            Err(error) => return Err(at("open", &path)(error).into()),
        };
        if !metadata.is_dir() {
            return Err(HomeError::NotADirectory(path));
        }
        let own = durable::own_uid().map_err(at("open", &path))?;
        if metadata.uid() != own {
            return Err(HomeError::Owner { path, owner: metadata.uid() });
        }
        match durable::open_to_others(&metadata) {
            0 => Ok(()),
            _ => Err(HomeError::Open { path, mode: metadata.mode() & 0o7777 }),
        }
    }

    /// Takes the lock, which the system lets go when the process ends, however it ends.
    fn lock(&self) -> Result<File, HomeError> {
        let path = self.lock_path();
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = options.map_err(at("open", &path))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).map_err(at("write", &path))?;
                file.write_all(std::process::id().to_string().as_bytes()).map_err(at("write", &path))?;
                Ok(file)
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = Read::by_ref(&mut file).take(16).read_to_string(&mut text);
                let pid = text.parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (pid {pid})"));
                Err(HomeError::Running { path: self.root.clone(), pid })
            }
            Err(TryLockError::Error(error)) => Err(at("lock", &path)(error).into()),
        }
    }
}

/// What [`Home::create`] found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    pub node: PublicKey,
    pub new_key: bool,
    pub new_config: bool,
}

#[cfg(test)]
mod tests;
