//! Heads of ledgers with the signatures of witnesses, kept beside the ledger: what this node signed of others, so that it
//! never signs two histories, and what others signed of its own.
//!
//! One small file for each, written whole and synced before anything is answered. They are no entries of the ledger: each
//! entry makes a new head, which would have to be signed again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use alliance_protocol::{core::Keep, ledger::CHECKPOINT_BYTES_MAX, limits};

use crate::durable::{self, Existing, FileError, Readers, at};

/// The name of the note about the own ledger.
const OWN: &str = "own.note";

/// What the names of the notes end with.
const SUFFIX: &str = ".note";

/// What the names of the accreditations of witnesses end with.
const PAPER: &str = ".accreditation";

/// Notes that are read: of every node that there may be in an alliance.
const NOTES_MAX: usize = limits::MEMBERS_MAX * limits::NODES_PER_MEMBER_MAX;

/// The directory of notes.
#[derive(Debug)]
pub struct Notes {
    directory: PathBuf,
}

/// What was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Heads of others' ledgers, with this node's signature.
    pub held: Vec<String>,
    /// The newest head of the own ledger that enough witnesses signed.
    pub witnessed: Option<String>,
}

impl Notes {
    /// Opens the directory, or makes it, and reads what was kept. Nothing of it is verified here.
    ///
    /// # Errors
    /// It cannot be made, or a note cannot be read.
    pub fn open(directory: &Path) -> Result<(Self, Kept), FileError> {
        durable::private_dir(directory)?;
        let mut kept = Kept::default();
        for entry in fs::read_dir(directory).map_err(at("read", directory))?.take(NOTES_MAX) {
            let path = entry.map_err(at("read", directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // What a crash left half written has another name.
            if !name.ends_with(SUFFIX) || name.starts_with('.') {
                continue;
            }
            let note = durable::read_text(&path, CHECKPOINT_BYTES_MAX)?;
            if name == OWN {
                kept.witnessed = Some(note);
            } else {
                kept.held.push(note);
            }
        }
        Ok((Self { directory: directory.to_owned() }, kept))
    }

    /// Makes a note durable, in place of the one before.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn keep(&self, keep: &Keep) -> Result<(), FileError> {
        let write =
            |name: &str, bytes: &[u8]| durable::write(&self.directory.join(name), bytes, Readers::Owner, Existing::Replace);
        match keep {
            Keep::Held { log, note } => write(&format!("{log}{SUFFIX}"), note.as_bytes()),
            Keep::Witnessed { note, witnesses } => {
                for (witness, accreditation) in witnesses {
                    let name = format!("{witness}{PAPER}");
                    let path = self.directory.join(&name);
                    if durable::read_if_there(&path, limits::STATEMENT_BYTES_MAX)?.as_ref() != Some(accreditation) {
                        write(&name, accreditation)?;
                    }
                }
                write(OWN, note.as_bytes())
            }
        }
    }

    /// The accreditations of those who have signed heads of the own ledger.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn witnesses(directory: &Path) -> Result<Vec<Vec<u8>>, FileError> {
        let mut papers = Vec::new();
        for entry in fs::read_dir(directory).map_err(at("read", directory))?.take(NOTES_MAX) {
            let path = entry.map_err(at("read", directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(PAPER) && !name.starts_with('.') {
                papers.push(durable::read(&path, limits::STATEMENT_BYTES_MAX)?);
            }
        }
        Ok(papers)
    }

    /// The note about the ledger of the node whose notes lie in `directory`, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn own(directory: &Path) -> Result<Option<String>, FileError> {
        let path = directory.join(OWN);
        let bytes = durable::read_if_there(&path, CHECKPOINT_BYTES_MAX)?;
        bytes
            .map(|bytes| String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
            .transpose()
            .map_err(at("read", &path))
    }
}

#[cfg(test)]
mod tests {
    use alliance_protocol::key::PublicKey;

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_replaces_what_was_there() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("witness");
        let (notes, kept) = Notes::open(&directory).expect("made");
        assert_eq!(kept, Kept::default());
        let held = |log, note: &str| Keep::Held { log: PublicKey([log; 32]), note: note.to_owned() };
        let witnesses = vec![(PublicKey([3; 32]), b"paper".to_vec())];
        let own = Keep::Witnessed { note: "d".to_owned(), witnesses };
        for keep in [held(1, "a"), held(2, "b"), held(1, "c"), own] {
            notes.keep(&keep).expect("kept");
        }
        assert_eq!(Notes::witnesses(&directory).expect("read"), [b"paper"]);
        fs::write(directory.join(".half.note.tmp"), "torn").expect("written");
        let (_, mut kept) = Notes::open(&directory).expect("opened");
        kept.held.sort();
        assert_eq!(kept, Kept { held: vec!["b".to_owned(), "c".to_owned()], witnessed: Some("d".to_owned()) });
        assert_eq!(Notes::own(&directory).expect("read"), Some("d".to_owned()));
        fs::write(directory.join("other.note"), [0xff]).expect("written");
        assert!(Notes::open(&directory).is_err(), "what is not text is no note");
    }
}
