//! `alliance key`: how a key lies on the disk, and how a node gets another one. Works on files, without a daemon.

use std::path::{Path, PathBuf};

use alliance_protocol::key::PublicKey;
use clap::Subcommand;
use serde::Serialize;

use super::{Context, Problem, figures, screen::Fields};
use crate::{
    exit::Exit,
    home::{Home, HomeError},
    keys::{self, Kept, PassphraseError, PassphraseFrom, Protection},
    ledger,
};

mod rotate;

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Show the public half of a key, and whether a passphrase protects it
    #[command(after_help = "Examples:\n  alliance key show\n  alliance key show br/officer-1.key")]
    Show {
        /// The key [default: that of the node's home]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Encrypt a key with a passphrase, or give it another one
    ///
    /// The file is then a PKCS#8 key as `openssl pkey` opens it. Whoever uses the key is asked for the passphrase: on the
    /// terminal, or it is read from the file that --passphrase-file or ALLIANCE_PASSPHRASE_FILE names; a daemon that nobody
    /// watches needs the latter. A key that others may have read is to be replaced, not protected.
    #[command(
        after_help = "Examples:\n  alliance key protect\n  alliance key protect br/officer-1.key --new-passphrase-file /run/secrets/br"
    )]
    Protect {
        /// The key [default: that of the node's home]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The file that holds the new passphrase, on one line [default: the terminal]
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Take the passphrase off a key
    #[command(after_help = "Example:\n  alliance key unprotect br/officer-1.key")]
    Unprotect {
        /// The key [default: that of the node's home]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    Rotate(rotate::Rotate),
}

#[derive(Debug, Serialize)]
struct Shown {
    file: PathBuf,
    key: PublicKey,
    protected: bool,
    /// The keys that the node had before, the first one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    former: Vec<PublicKey>,
    /// The key that waits to take its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<PublicKey>,
}

impl Key {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Problem> {
        let path = |file: Option<PathBuf>| match file {
            Some(file) => Ok(file),
            None => context.home().map(|home| home.key_path()),
        };
        match self {
            Self::Show { file: Some(file) } => show(context, &file, None),
            Self::Show { file: None } => {
                let home = context.home()?;
                if let Err(error @ HomeError::Unfinished) = home.public() {
                    return Err(error.into());
                }
                show(context, &home.key_path(), Some(&home))
            }
            Self::Rotate(command) => command.run(context),
            Self::Protect { file, new_passphrase_file } => {
                let file = path(file)?;
                let new = match new_passphrase_file {
                    Some(named) => PassphraseFrom::File(named),
                    None => PassphraseFrom::Terminal,
                };
                let chosen = new.choose(&file).map_err(|error| match error {
                    PassphraseError::Nowhere(_) => {
                        let message = "there is no terminal to ask for the new passphrase";
                        Problem::new(Exit::Usage, message).hint("name a file that holds it: --new-passphrase-file FILE")
                    }
                    other => keys::KeyFileError::from(other).into(),
                });
                let protection = Protection::Passphrase(chosen?);
                keys::protect(&file, &mut |key| context.passphrases.ask(key), &protection)?;
                show(context, &file, None)
            }
            Self::Unprotect { file } => {
                let file = path(file)?;
                keys::protect(&file, &mut |key| context.passphrases.ask(key), &Protection::Plain)?;
                show(context, &file, None)
            }
        }
    }
}

fn show(context: &Context, file: &Path, home: Option<&Home>) -> Result<Exit, Problem> {
    let facts = keys::inspect(file)?;
    let protected = facts.kept == Kept::Protected;
    // A home without a ledger has no keys before, and says so by itself when it is used.
    let rotations = home.and_then(|home| ledger::rotations(&home.ledger_path()).ok()).unwrap_or_default();
    let former = rotations.into_iter().map(|(_, rotation)| rotation.old).collect();
    let next = home.and_then(Home::next_key);
    let shown = Shown { file: file.to_owned(), key: facts.public, protected, former, next };
    Ok(context.screen.one(&shown, || {
        let mut fields = Fields::default();
        fields.add("file", shown.file.display());
        fields.add("key", shown.key);
        fields.add("protected", if protected { "by a passphrase" } else { "by the permissions of the file alone" });
        if !shown.former.is_empty() {
            fields.add("keys before", figures::words(&shown.former, ""));
        }
        if let Some(next) = shown.next {
            fields.add("key that waits", format!("{next} (alliance key rotate)"));
        }
        fields.to_string()
    }))
}
