//! Changing a node's key: the next one is drawn beside it, and takes its place once the authority has accredited it.
//!
//! The ledger decides. Its checkpoint is signed by the old key until the record of the change is committed, and by the new
//! one from then on; what is left to do after that is to rename two files, which the next start does where a crash came
//! between. So at any instant the home is that of one of the two keys. The old secret goes with the last rename.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
};

use alliance_protocol::{
    authority::Accreditation,
    crossing::LedgerHead,
    envelope::Signed,
    key::{PublicKey, SecretKey},
    ledger::{Entry, Record},
    limits,
    rotation::{KeyRotation, sign},
};

use super::{Home, HomeError, Papers, PapersError};
use crate::{
    durable::{self, Existing, Readers, at},
    keys::{self, KeyFileError, PassphraseFrom, Protection},
    ledger::{self, LedgerFile},
    node::Clock,
};

/// A key that waits to take the place of the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextKey {
    pub old: PublicKey,
    pub new: PublicKey,
    /// Whether it was drawn now.
    pub drawn: bool,
    /// What the old key is accredited as.
    pub accreditation: Accreditation,
}

/// A key that has taken the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    pub old: PublicKey,
    pub new: PublicKey,
    /// The number of the entry that records it.
    pub entry: u64,
}

impl Home {
    /// The key that waits to take the node's place.
    #[must_use]
    pub fn next_key_path(&self) -> PathBuf {
        self.root.join("node.next.key")
    }

    fn next_accreditation_path(&self) -> PathBuf {
        self.root.join("accreditation.next.alliance")
    }

    /// The public half of the key that waits to take the node's place, if one does.
    #[must_use]
    pub fn next_key(&self) -> Option<PublicKey> {
        keys::inspect(&self.next_key_path()).ok().map(|facts| facts.public)
    }

    /// Draws the key that shall take the place of the node's, or gives the one that waits. The daemon may run meanwhile. It is
    /// encrypted with a passphrase where that comes from somewhere.
    ///
    /// # Errors
    /// The node was never accredited, so that its key is known to nobody; or the disk or the passphrase are not to be had.
    pub fn draw_next_key(&self, protect: Option<&PassphraseFrom>) -> Result<NextKey, HomeError> {
        let old = self.public()?;
        let accreditation = self.own_accreditation()?.body().clone();
        let path = self.next_key_path();
        let (new, drawn) = match keys::inspect(&path) {
            Ok(facts) => (facts.public, false),
            Err(KeyFileError::Missing(_)) => {
                let protection = match protect {
                    Some(from) => Protection::Passphrase(from.choose(&path).map_err(KeyFileError::from)?),
                    None => Protection::Plain,
                };
                (keys::write_new(&path, &keys::generate()?, &protection)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(NextKey { old, new, drawn, accreditation })
    }

    /// Lets the key that waits take the place of the node's, with the accreditation that its authority has given it. May be
    /// called again after a crash or a failure at any step.
    ///
    /// # Errors
    /// The daemon runs, no key waits, the accreditation is not one that others will believe, or the disk does not take it.
    /// The home is then that of the old key, or, where only the last step failed, of the new one.
    pub fn rotate(
        &self,
        accreditation: &[u8],
        reason: &str,
        next_passphrases: &PassphraseFrom,
    ) -> Result<Rotated, HomeError> {
        self.check_owned()?;
        let _lock = self.lock()?;
        if self.finish_rotation()? {
            return self.last_rotation();
        }
        let new = keys::inspect(&self.next_key_path()).map_err(|error| match error {
            KeyFileError::Missing(path) => HomeError::NoNextKey(path),
            other => other.into(),
        })?;
        let mut clock = Clock::default();
        let charter = durable::read_if_there(&self.charter_path(), limits::CHARTER_LOG_BYTES_MAX)?;
        let charter = charter.ok_or(PapersError::NoCharter)?;
        let papers = Papers::open(&charter, accreditation, new.public, clock.now()).map_err(HomeError::NextPapers)?;
        let old_accreditation = self.own_accreditation()?;
        let old = keys::read(&self.key_path(), &mut |key| self.passphrases.ask(key))?;
        let new = keys::read(&self.next_key_path(), &mut |key| next_passphrases.ask(key))?;

        let (ledger, recorded) = self.ledger_of(&old, &mut clock)?;
        let body = KeyRotation {
            old: old.public(),
            new: new.public(),
            at: clock.now(),
            reason: reason.to_owned(),
            ledger: LedgerHead { size: ledger.size(), root: ledger.root() },
            old_accreditation: old_accreditation.bytes().to_vec(),
            new_accreditation: accreditation.to_vec(),
        };
        let recorded = recorded.iter().map(Vec::as_slice);
        let rotation = sign(&papers.charter, recorded, &body, (&old, &new), body.at).map_err(HomeError::NotRotated)?;
        durable::write(&self.next_accreditation_path(), accreditation, Readers::Owner, Existing::Replace)?;
        let entry = Entry { at: body.at, record: Record::KeyRotated { rotation: rotation.bytes().to_vec().into() } };
        // From here on the home is that of the new key. A crash before leaves two files that the next try writes anew.
        ledger.hand_over(&new, &entry).map_err(HomeError::NotRecorded)?;
        self.finish_rotation()?;
        Ok(Rotated { old: body.old, new: body.new, entry: body.ledger.size })
    }

    /// Ends a change of key that a crash has left, if one did.
    ///
    /// # Errors
    /// The daemon runs, or the disk does not take it.
    pub fn finish(&self) -> Result<Option<Rotated>, HomeError> {
        self.check_owned()?;
        if !self.is_unfinished() {
            return Ok(None);
        }
        let _lock = self.lock()?;
        self.finish_rotation()?;
        self.last_rotation().map(Some)
    }

    /// The accreditation of the home, whether or not it counts now.
    fn own_accreditation(&self) -> Result<Signed<Accreditation>, HomeError> {
        let alliance = self.charter_id().ok_or(PapersError::NoCharter)?;
        let bytes = durable::read_if_there(&self.accreditation_path(), limits::STATEMENT_BYTES_MAX)?;
        let opened = Signed::open(&bytes.ok_or(PapersError::NoAccreditation)?, alliance);
        Ok(opened.map_err(|error| PapersError::Accreditation(error.into()))?)
    }

    /// The ledger under the old key, and the rotations that it has recorded.
    fn ledger_of(&self, old: &SecretKey, clock: &mut Clock) -> Result<(LedgerFile, Vec<Vec<u8>>), HomeError> {
        if !ledger::exists(&self.ledger_path()) {
            return Err(HomeError::LedgerGone(self.ledger_path()));
        }
        let (mut recorded, mut last) = (Vec::new(), None);
        let opened = LedgerFile::open_each(&self.ledger_path(), old, &mut |entry| {
            last = Some(entry.at);
            if let Record::KeyRotated { rotation } = entry.record {
                recorded.push(rotation.into_vec());
            }
        });
        let ledger = opened.map_err(HomeError::NotRecorded)?;
        if let Some(last) = last {
            clock.not_before(last);
        }
        Ok((ledger, recorded))
    }

    /// Whether the change to the key that waits is recorded, and its files are not yet in their places.
    pub(super) fn is_unfinished(&self) -> bool {
        let signed_by = ledger::signed_by(&self.ledger_path());
        self.next_key().is_some_and(|next| signed_by == Some(next))
    }

    /// Puts the files of a key that has taken over in their places, where that is still to be done. Says whether it was.
    pub(super) fn finish_rotation(&self) -> Result<bool, HomeError> {
        if !self.is_unfinished() {
            return Ok(false);
        }
        let rename = |from: PathBuf, to: PathBuf| match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(at("rename", &from)),
        };
        let sync = || File::open(&self.root).and_then(|root| root.sync_all()).map_err(at("sync", &self.root));
        rename(self.next_accreditation_path(), self.accreditation_path())?;
        sync()?;
        // Last: as long as it waits under its own name, what is above is done again.
        rename(self.next_key_path(), self.key_path())?;
        sync()?;
        Ok(true)
    }

    /// The change of key that the ledger has last.
    fn last_rotation(&self) -> Result<Rotated, HomeError> {
        let rotations = ledger::rotations(&self.ledger_path()).map_err(HomeError::NotRecorded)?;
        let (entry, last) = rotations.into_iter().next_back().ok_or_else(|| HomeError::NoNextKey(self.next_key_path()))?;
        Ok(Rotated { old: last.old, new: last.new, entry })
    }
}
