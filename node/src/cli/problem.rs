//! Why a command did not do what was asked: an exit code, what happened, and the next step.

use std::{error::Error, io};

use alliance_protocol::{charter::CharterError, core::StartError};

use crate::{
    api::ClientError,
    authority::AuthorityError,
    bulk::BulkError,
    catalogue::CatalogueError,
    daemon::DaemonError,
    durable::FileError,
    exit::Exit,
    home::{HomeError, PapersError},
    keys::{KeyFileError, PassphraseError},
    ledger::{LedgerError, PublishError},
    limits::LimitsError,
    mesh::MeshError,
    models::{ImportError, LoadError, TreeError},
};

/// What goes to stderr when a command fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub exit: Exit,
    pub message: String,
    /// What to do about it; empty where there is nothing to say.
    pub hint: String,
}

impl Problem {
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: String::new() }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// A problem with the whole chain of an error as its message.
    pub(super) fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, chain(error))
    }
}

/// An error with its causes, without saying anything twice.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

pub(super) fn disk(source: &io::Error) -> Exit {
    match source.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        io::ErrorKind::AlreadyExists => Exit::Conflict,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Exit::Usage,
        _ => Exit::Disk,
    }
}

impl From<alliance_protocol::gate::PackError> for Problem {
    fn from(error: alliance_protocol::gate::PackError) -> Self {
        Self::of(Exit::Failed, &error).hint("mend the text; `alliance policy lint` says where it is wrong")
    }
}

impl From<alliance_protocol::envelope::OpenError> for Problem {
    fn from(error: alliance_protocol::envelope::OpenError) -> Self {
        Self::of(Exit::Untrusted, &error)
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        let hint = match error.source.kind() {
            io::ErrorKind::AlreadyExists => "give another name, or move that file away first: it is not replaced",
            io::ErrorKind::NotFound => "give a file that exists",
            _ => "",
        };
        Self::of(disk(&error.source), &error).hint(hint)
    }
}

impl From<KeyFileError> for Problem {
    fn from(error: KeyFileError) -> Self {
        Self::of(key(&error), &error)
    }
}

fn key(error: &KeyFileError) -> Exit {
    match error {
        KeyFileError::File(file) => disk(&file.source),
        KeyFileError::Missing(_) => Exit::NotFound,
        KeyFileError::Exists(_) => Exit::Conflict,
        KeyFileError::Open { .. } | KeyFileError::Owner { .. } => Exit::Untrusted,
        KeyFileError::Corrupt(_) | KeyFileError::CostTooHigh(_) => Exit::Damaged,
        KeyFileError::Scheme(_) => Exit::Usage,
        KeyFileError::WrongPassphrase(_) => Exit::Untrusted,
        KeyFileError::Linked { .. } => Exit::Conflict,
        KeyFileError::Passphrase(error) => passphrase(error),
        KeyFileError::Random(_) | KeyFileError::Encrypt(_) => Exit::Failed,
    }
}

fn passphrase(error: &PassphraseError) -> Exit {
    match error {
        PassphraseError::File(file) => disk(&file.source),
        PassphraseError::Open { .. } | PassphraseError::Owner { .. } => Exit::Untrusted,
        PassphraseError::Interrupted => Exit::Interrupted,
        PassphraseError::Terminal(_) => Exit::Failed,
        PassphraseError::Nowhere(_)
        | PassphraseError::NotGiven(_)
        | PassphraseError::NotOneLine(_)
        | PassphraseError::Length
        | PassphraseError::Differ => Exit::Usage,
    }
}

impl From<HomeError> for Problem {
    fn from(error: HomeError) -> Self {
        let exit = match &error {
            HomeError::Nowhere | HomeError::NotADirectory(_) | HomeError::Config(_) | HomeError::KeyLog => Exit::Usage,
            HomeError::Missing(_) | HomeError::Papers(PapersError::NoCharter | PapersError::NoAccreditation) => {
                Exit::NotFound
            }
            HomeError::Running { .. } | HomeError::Papers(PapersError::OtherAlliance | PapersError::OtherVersions) => {
                Exit::Conflict
            }
            HomeError::Open { .. } | HomeError::Owner { .. } => Exit::Untrusted,
            HomeError::Papers(PapersError::Charter(_) | PapersError::Accreditation(_) | PapersError::Standing(_)) => {
                Exit::Untrusted
            }
            HomeError::NoModelKey => Exit::NotFound,
            HomeError::ModelKey { .. } => Exit::Usage,
            HomeError::Binding(_) => Exit::Untrusted,
            HomeError::Ledger(_) => Exit::Disk,
            HomeError::NotRecorded(error) => ledger(error),
            HomeError::LedgerGone(_) => Exit::Damaged,
            HomeError::NoNextKey(_) => Exit::NotFound,
            HomeError::ForNextKey => Exit::Conflict,
            HomeError::NextPapers(_) | HomeError::NotRotated(_) => Exit::Untrusted,
            HomeError::Unfinished => Exit::TryAgain,
            HomeError::Key(error) => key(error),
            HomeError::File(error) => disk(&error.source),
        };
        Self::of(exit, &error).hint(error.next_step())
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let (exit, hint) = match &error {
            ClientError::NotRunning { home, .. } => {
                (Exit::NoDaemon, format!("start it: allianced --home {}", home.display()))
            }
            ClientError::NotPermitted { .. } => (Exit::NoDaemon, "run as the user whom the node's home belongs to".into()),
            ClientError::OtherVersion { .. } => {
                (Exit::NoDaemon, "restart the daemon after an update, or use the program of its release".into())
            }
            ClientError::Connect { .. } | ClientError::Lost(_) | ClientError::Late | ClientError::Answer(_) => {
                (Exit::NoDaemon, "look at the daemon's log, and try again".into())
            }
            ClientError::TooLarge { .. } => (Exit::Usage, String::new()),
            ClientError::Nonsense(_) => (Exit::Failed, String::new()),
            ClientError::Refused(failure) => (failure.kind.into(), String::new()),
        };
        // The cause of a daemon that does not run is always the same and helps nobody.
        match &error {
            ClientError::NotRunning { .. } | ClientError::Refused(_) => Self::new(exit, error.to_string()).hint(hint),
            _ => Self::of(exit, &error).hint(hint),
        }
    }
}

impl From<CharterError> for Problem {
    fn from(error: CharterError) -> Self {
        let hint = match &error {
            CharterError::TooFewMembers { .. } | CharterError::TooFewOf { .. } | CharterError::Unwilling(_) => {
                "have more members sign it: alliance charter sign"
            }
            CharterError::Skipped { .. } => "give the whole log; who has it writes it with alliance charter log --out FILE",
            CharterError::OtherPast { .. } => "draw it up anew from the version in force: alliance charter propose",
            CharterError::Forked { .. } => {
                "crossings go on under the version that came first; ask the members which is theirs"
            }
            CharterError::Open(_)
            | CharterError::Malformed(_)
            | CharterError::NotFounding { .. }
            | CharterError::Stranger(_)
            | CharterError::Older { .. }
            | CharterError::BackDated { .. }
            | CharterError::Moved { .. }
            | CharterError::TooManyVersions
            | CharterError::Log(_) => "",
        };
        Self::of(Exit::Untrusted, &error).hint(hint)
    }
}

impl From<AuthorityError> for Problem {
    fn from(error: AuthorityError) -> Self {
        let (exit, hint) = match &error {
            AuthorityError::File(file) => (disk(&file.source), ""),
            AuthorityError::Key(error) => (key(error), ""),
            AuthorityError::Missing(_) => (Exit::NotFound, "make it: alliance authority init"),
            AuthorityError::Exists(_) => (Exit::Conflict, "its keys are kept; choose another --dir"),
            AuthorityError::Locked(_) => (Exit::TryAgain, "wait for it to end"),
            AuthorityError::Malformed { .. } | AuthorityError::OtherKey(_) => (Exit::Damaged, "restore it from a copy"),
            AuthorityError::Numbers | AuthorityError::Name | AuthorityError::TooLong { .. } | AuthorityError::Reference => {
                (Exit::Usage, "")
            }
            AuthorityError::TooFewKeys { .. } => (Exit::Untrusted, "bring the key files of more officers together"),
            AuthorityError::NotInCharter(_) => (Exit::Untrusted, "is this the right --charter, and the right --dir?"),
            AuthorityError::Charter(_) | AuthorityError::NotBelieved(_) | AuthorityError::Statement(_) => {
                (Exit::Untrusted, "")
            }
            AuthorityError::Revoked(_) | AuthorityError::TooManyRevoked => (Exit::Conflict, ""),
            AuthorityError::NoFoundingPack(_) => (Exit::NotFound, "give the text of the law: --law FILE"),
            AuthorityError::WorkedOut | AuthorityError::OtherRule { .. } => (Exit::Usage, ""),
            AuthorityError::RotationWaits(_) => {
                (Exit::Conflict, "alliance charter propose --officers CC=FILE; or give them up and draw others: --again")
            }
            AuthorityError::VersionBefore => (Exit::Usage, "give the log of the versions before: --after LOG"),
            AuthorityError::TooManyOfficers => (Exit::Conflict, "make a new directory: alliance authority init"),
            AuthorityError::FromTooEarly { .. } => (Exit::Usage, "give a later date with --from"),
            AuthorityError::NothingInForce => (Exit::Conflict, "alliance authority publish without --from"),
            AuthorityError::NothingNew => (Exit::Usage, "give the new text: --law FILE"),
            AuthorityError::TooManyUpcoming | AuthorityError::UpcomingWaits { .. } => {
                (Exit::Conflict, "take back what waits: --drop-upcoming")
            }
            AuthorityError::Past(_) => (Exit::Usage, "give more days or a later date: --days N, --from TIME"),
            AuthorityError::NoPlace => (Exit::Usage, "add --place LATITUDE,LONGITUDE"),
            AuthorityError::NotFiled => (Exit::Usage, "add --filed DATE"),
            AuthorityError::Grace => (Exit::Usage, "give a shorter one: --grace 60m"),
            AuthorityError::NoRule { .. } => (Exit::Usage, "alliance policy explain says which kinds satisfy a rule"),
            AuthorityError::TooManyBans => (Exit::Conflict, "lift one first: --lift"),
            AuthorityError::TooManyExperts => (Exit::Conflict, "remove one first: --remove"),
            AuthorityError::ExpertName => (Exit::Usage, ""),
            AuthorityError::Pack(_) => (Exit::Usage, "mend the text; alliance policy lint shows what is wrong"),
        };
        Self::of(exit, &error).hint(hint)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        Self::of(ledger(&error), &error)
    }
}

fn ledger(error: &LedgerError) -> Exit {
    match error {
        LedgerError::Io { .. } | LedgerError::Commit { .. } | LedgerError::Poisoned(_) => Exit::Disk,
        LedgerError::Absent { .. } => Exit::NotFound,
        LedgerError::NoCheckpoint { .. }
        | LedgerError::NoEntries { .. }
        | LedgerError::Checkpoint { .. }
        | LedgerError::TooShort { .. }
        | LedgerError::Damaged { .. }
        | LedgerError::OtherRoot { .. }
        | LedgerError::Witnessed(_)
        | LedgerError::NotWitnessed { .. }
        | LedgerError::Entry(_) => Exit::Damaged,
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Ledger(error) => error.into(),
            PublishError::File(error) => error.into(),
            PublishError::OtherLog(_) => Self::of(Exit::Conflict, &error)
                .hint("give another directory; under another key of its node a ledger is another log, which begins with the same entries"),
        }
    }
}

impl From<DaemonError> for Problem {
    fn from(error: DaemonError) -> Self {
        let (exit, hint) = match &error {
            DaemonError::Home(_) | DaemonError::Ledger(_) => (Exit::Failed, ""),
            DaemonError::Mesh(MeshError::PortInUse { .. }) => {
                (Exit::Conflict, "stop what uses the port, or change `mesh.listen` in config.toml")
            }
            DaemonError::Bulk(BulkError::PortInUse { .. }) => {
                (Exit::Conflict, "stop what uses the port, or change `bulk.listen` in config.toml")
            }
            DaemonError::Start(StartError::OtherCharter) => {
                (Exit::Conflict, "restore the charter of this home, or make another home for the other alliance")
            }
            DaemonError::Start(StartError::Accreditation(_)) => {
                (Exit::Untrusted, "ask the authority for a new accreditation: alliance init --accreditation FILE")
            }
            DaemonError::Start(StartError::OtherKey(_)) => {
                (Exit::Conflict, "restore the newest copy of the home, with the key that it has now")
            }
            DaemonError::Start(StartError::Pack(_)) => {
                (Exit::Usage, "mend house.cedar until `alliance policy lint house.cedar --house` takes it")
            }
            DaemonError::Witness { .. } => {
                (Exit::Conflict, "stop what uses the port, or change `witness.listen` in config.toml")
            }
            DaemonError::Gateway { .. } => {
                (Exit::Conflict, "stop what uses the port, or change `gateway.listen` in config.toml")
            }
            DaemonError::Limits(LimitsError::Syntax { .. }) => (Exit::Usage, ""),
            DaemonError::Limits(LimitsError::File(_)) => (Exit::Disk, ""),
            DaemonError::Start(StartError::Held(_)) => (
                Exit::Damaged,
                "restore the folder `witness` of the home from a backup, or remove the note of that ledger from it: this node \
                 then begins anew as its witness",
            ),
            DaemonError::Start(_) => (Exit::Untrusted, ""),
            DaemonError::Notes(_) => {
                (Exit::Disk, "repair the disk, or restore the folder `witness` of the home from a backup")
            }
            DaemonError::Fatal(_) => (Exit::Disk, "free or repair the disk, and start again"),
            DaemonError::Catalogue(CatalogueError::Locked { .. }) => (Exit::Conflict, "stop the process that has it open"),
            DaemonError::Catalogue(_) => (Exit::Disk, "free or repair the disk, and start again"),
            DaemonError::Api(_) | DaemonError::Socket(_) => (Exit::Disk, ""),
            DaemonError::Mesh(_)
            | DaemonError::Bulk(_)
            | DaemonError::Randomness(_)
            | DaemonError::Signal(_)
            | DaemonError::Runtime(_) => (Exit::Failed, ""),
        };
        match error {
            DaemonError::Home(error) => error.into(),
            DaemonError::Ledger(error) => error.into(),
            error => Self::of(exit, &error).hint(hint),
        }
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        let exit = match &error {
            ImportError::Read { .. } | ImportError::Store { .. } => Exit::Disk,
            ImportError::Changed { .. } => Exit::TryAgain,
            _ => Exit::Usage,
        };
        Self::of(exit, &error)
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        let exit = match &error {
            LoadError::Missing(_) => Exit::NotFound,
            LoadError::Damaged { .. } | LoadError::Other { .. } => Exit::Damaged,
            LoadError::Disk { .. } => Exit::Disk,
        };
        Self::of(exit, &error)
    }
}

impl From<TreeError> for Problem {
    fn from(error: TreeError) -> Self {
        Self::of(Exit::Disk, &error)
    }
}

/// The daemon answered another question than the one that was asked.
pub(super) fn unexpected() -> Problem {
    Problem::new(Exit::Failed, "the daemon's answer does not fit the question")
        .hint("use the program and the daemon of one release")
}
