//! New officers: drawn ahead, adopted by a version of the charter, and who signs which version of it.

use std::path::{Path, PathBuf};

use alliance_protocol::{
    charter::{Authority, Charter, Chartered},
    envelope::{Draft, Signed},
    key::SecretKey,
};

use super::{
    AuthorityDir, AuthorityError, OFFICER_FILES_MAX, OfficerKey, Officers, PublicAuthority, malformed, numbers,
    officer_path,
};
use crate::{
    durable::{self, Existing, Readers},
    keys::{self, Protection},
};

impl AuthorityDir {
    /// Draws keys for officers who shall come after those of now, and writes what those who draw up the next version of the
    /// charter need. Those of now speak until that version is in force. `again` gives up officers who wait to be adopted.
    ///
    /// # Errors
    /// The numbers make no sense, others are waiting to be adopted, or the disk does not permit it.
    pub fn rotate(
        &mut self,
        charter: &Chartered,
        officers: u32,
        threshold: u32,
        again: bool,
        protection: &Protection,
    ) -> Result<PathBuf, AuthorityError> {
        numbers(officers, threshold)?;
        self.settle(charter)?;
        if !charter.authority(self.book.member).is_some_and(|known| known.speaks_as(&self.authority())) {
            return Err(AuthorityError::NotInCharter(self.book.member));
        }
        match self.book.next.clone() {
            Some(given_up) if again => self.book.retired.extend(given_up.officers),
            Some(waits) => {
                // A crash may have come before it was written.
                self.save_next_public(&waits)?;
                return Err(AuthorityError::RotationWaits(self.next_public_path()));
            }
            None => {}
        }
        // Numbers are given once: a file that lies elsewhere for safety comes back beside the others.
        let given = self.book.officers.len().saturating_add(self.book.retired.len());
        let there = (1..=OFFICER_FILES_MAX).filter(|number| officer_path(&self.path, *number).exists()).max();
        let first = u32::try_from(given).unwrap_or(u32::MAX).max(there.unwrap_or(0)).saturating_add(1);
        if first.saturating_add(officers) > OFFICER_FILES_MAX {
            return Err(AuthorityError::TooManyOfficers);
        }
        let drawn = (0..officers).map(|_| keys::generate()).collect::<Result<Vec<_>, _>>()?;
        let files = (first..)
            .zip(&drawn)
            .map(|(number, key)| OfficerKey { file: officer_path(&self.path, number), public: key.public() });
        let files: Vec<_> = files.collect();
        let next = Officers { threshold, officers: drawn.iter().map(SecretKey::public).collect() };
        // The book first: it can name a key that a crash kept from its file, and such officers are given up; a file with a key
        // that no book names would be in the way.
        self.book.next = Some(next.clone());
        self.save()?;
        for (file, key) in files.iter().zip(&drawn) {
            keys::write_new(&file.file, key, protection)?;
        }
        self.next = files;
        self.save_next_public(&next)?;
        Ok(self.next_public_path())
    }

    /// Takes the next officers for those of now, where the charter says so.
    pub(super) fn settle(&mut self, charter: &Chartered) -> Result<(), AuthorityError> {
        let known = charter.authority(self.book.member);
        let Some(next) = self.book.next.clone() else { return Ok(()) };
        if !known.is_some_and(|known| known.speaks_as(&self.named(&next))) {
            return Ok(());
        }
        let former = std::mem::replace(&mut self.book.officers, next.officers);
        self.book.retired.extend(former);
        (self.book.threshold, self.book.next) = (next.threshold, None);
        self.officers = std::mem::take(&mut self.next);
        self.save()?;
        self.save_public(&self.public_path(), &self.public())
    }

    pub(super) fn save_public(&self, path: &Path, public: &PublicAuthority) -> Result<(), AuthorityError> {
        let text = serde_json::to_vec_pretty(public).map_err(|error| malformed(path, &error.to_string()))?;
        Ok(durable::write(path, &text, Readers::All, Existing::Replace)?)
    }

    fn save_next_public(&self, next: &Officers) -> Result<(), AuthorityError> {
        let public = PublicAuthority { officers: next.officers.clone(), threshold: next.threshold, ..self.public() };
        self.save_public(&self.next_public_path(), &public)
    }

    pub(super) fn named(&self, officers: &Officers) -> Authority {
        Authority { name: self.book.name.clone(), officers: officers.officers.clone(), threshold: officers.threshold }
    }

    /// Signs a charter, or a draft of one, with the officers' keys that lie here: as many as must sign, or as there are, so that
    /// officers who keep theirs apart sign one after the other. Whoever has a seat in the version before or in this one signs; a
    /// signature of anybody else would spoil it.
    ///
    /// # Errors
    /// Neither version knows these officers, it is not known which of them speak, or no key is here.
    pub fn sign_charter(&self, bytes: &[u8], before: Option<&Chartered>) -> Result<Signed<Charter>, AuthorityError> {
        let member = self.book.member;
        if self.officers.is_empty() && self.next.is_empty() {
            return Err(AuthorityError::TooFewKeys { have: 0, need: 1 });
        }
        // A body is only given out from under a signature; this copy, signed by nobody's key, is thrown away.
        let nobody = SecretKey::from_seed(blake3::hash(bytes).as_bytes());
        let copy = Draft::<Charter>::open(bytes)?.sign(&nobody).finish()?;
        let body = copy.body();
        body.well_formed()?;
        let before = before.and_then(|log| log.versions().find(|version| Some(version.id()) == body.previous));
        if body.version > 1 && before.is_none() && self.book.next.is_some() {
            return Err(AuthorityError::VersionBefore);
        }
        let in_this = body.members.get(&member).map(|member| &member.authority);
        let in_before = before.and_then(|version| version.body().members.get(&member)).map(|member| &member.authority);
        let has_seat = |who: &Authority| [in_before, in_this].into_iter().flatten().any(|known| known.speaks_as(who));
        // A member signs that it leaves; that it is one is not known without the version before.
        let leaves = body.version > 1 && before.is_none() && in_this.is_none();
        let mut draft = Draft::<Charter>::open(bytes)?;
        let mut seated = false;
        let next = self.book.next.as_ref().map(|next| (self.named(next), &self.next));
        for (authority, keys) in [Some((self.authority(), &self.officers)), next].into_iter().flatten() {
            if has_seat(&authority) || leaves {
                let enough = usize::try_from(authority.threshold).unwrap_or(usize::MAX);
                for key in keys.iter().take(enough) {
                    draft = draft.sign(&self.unlock(key)?);
                }
                seated = true;
            }
        }
        if seated { Ok(draft.finish()?) } else { Err(AuthorityError::NotInCharter(member)) }
    }
}
