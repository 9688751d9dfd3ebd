//! What an authority puts in force: law packs, at once or ahead of their date, and the status that names them.

use alliance_protocol::{
    authority::{Adoption, LawPack, Status},
    charter::Chartered,
    envelope::Signed,
    gate::{Gate, Pack, PackOwner},
    id::StatementId,
    limits,
    time::Timestamp,
};

use super::{AuthorityDir, AuthorityError, Book, PublishRequest, Published, STATUS_MS_MAX, malformed, span};
use crate::durable::{self, Existing, Readers};

impl Book {
    /// Takes what has come into force by an instant for what is in force.
    fn turn(&mut self, now: Timestamp) {
        let begun = self.upcoming.iter().take_while(|next| next.from <= now).count();
        if let Some(last) = self.upcoming.drain(..begun).next_back() {
            (self.epoch, self.law_pack) = (last.epoch, Some(last.law_pack));
        }
    }

    /// The highest epoch that was ever given to a pack.
    fn highest(&self) -> u64 {
        self.upcoming.last().map_or(self.epoch, |last| last.epoch).max(self.given)
    }
}

impl AuthorityDir {
    /// Makes a new status, and before it a new law pack if the text changed; writes both into the directory.
    ///
    /// # Errors
    /// The text does not pass the strict checks, the charter does not know this authority, or the disk does not permit it.
    pub fn publish(
        &mut self,
        charter: &Chartered,
        request: &PublishRequest,
        now: Timestamp,
        gate: &dyn Gate,
    ) -> Result<Published, AuthorityError> {
        self.settle(charter)?;
        let validity = span(now, request.status_ms, STATUS_MS_MAX)?;
        let mut book = self.book.clone();
        book.given = book.highest();
        book.turn(now);
        if request.drop_upcoming {
            book.upcoming.clear();
        }
        book.grace_ms = request.grace_ms.unwrap_or(book.grace_ms);
        if book.grace_ms > limits::STATUS_GRACE_MS_MAX {
            return Err(AuthorityError::Grace);
        }
        let mut upcoming = Vec::new();
        for next in &book.upcoming {
            upcoming.push(self.signed_now(charter, self.read_pack(charter, next.epoch, next.law_pack)?)?);
        }
        let current = book.law_pack.map(|id| self.read_pack(charter, book.epoch, id)).transpose()?;
        let (law_pack, new_law) = match (request.from, current) {
            (Some(from), Some(current)) => {
                let next = self.pack_to_come(charter, request, from, upcoming.last().unwrap_or(&current), now, gate)?;
                if book.upcoming.last().is_some_and(|last| last.from >= from) {
                    return Err(AuthorityError::FromTooEarly { from });
                }
                if book.upcoming.len() >= limits::UPCOMING_MAX {
                    return Err(AuthorityError::TooManyUpcoming);
                }
                book.upcoming.push(Adoption { from, law_pack: next.id(), epoch: next.body().epoch });
                upcoming.push(next);
                (self.signed_now(charter, current)?, true)
            }
            (Some(_), None) => return Err(AuthorityError::NothingInForce),
            (None, current) => {
                let (pack, new) = self.pack_for(charter, request, current, &book, now, gate)?;
                if let Some(next) = book.upcoming.first().filter(|_| new) {
                    return Err(AuthorityError::UpcomingWaits { epoch: next.epoch });
                }
                (pack, new)
            }
        };
        (book.epoch, book.law_pack) = (law_pack.body().epoch, Some(law_pack.id()));
        book.serial = book.serial.saturating_add(1);
        let status = Status {
            member: book.member,
            serial: book.serial,
            validity,
            law_pack: law_pack.id(),
            epoch: book.epoch,
            upcoming: book.upcoming.clone(),
            revoked: book.revoked.clone(),
            bans: book.bans.clone(),
            experts: book.experts.clone(),
            grace_ms: book.grace_ms,
        };
        let status = self.sign(charter, &status)?;
        // A crash after the packs and before the book leaves files that the next publication overwrites; a crash after the
        // book leaves numbers that are never used. Nothing has been handed out in either case.
        self.book = book;
        for pack in upcoming.iter().chain([&law_pack]) {
            durable::write(&self.pack_path(pack.body().epoch), pack.bytes(), Readers::All, Existing::Replace)?;
        }
        self.save()?;
        durable::write(&self.status_path(), status.bytes(), Readers::All, Existing::Replace)?;
        Ok(Published { law_pack, upcoming, status, new_law })
    }

    /// The text that is in force at an instant, as a pack: what was published last, or what has come into force since.
    ///
    /// # Errors
    /// The file of the pack is not what was published.
    pub fn in_force(&self, charter: &Chartered, at: Timestamp) -> Result<Option<Pack>, AuthorityError> {
        let current = self.current_pack(charter, at)?;
        Ok(current.map(|pack| {
            let body = pack.body();
            Pack::new(PackOwner::Member(body.member), body.epoch, &body.law, &body.directives)
        }))
    }

    pub(super) fn current_pack(
        &self,
        charter: &Chartered,
        at: Timestamp,
    ) -> Result<Option<Signed<LawPack>>, AuthorityError> {
        let mut book = self.book.clone();
        book.turn(at);
        book.law_pack.map(|id| self.read_pack(charter, book.epoch, id)).transpose()
    }

    fn read_pack(&self, charter: &Chartered, epoch: u64, id: StatementId) -> Result<Signed<LawPack>, AuthorityError> {
        let path = self.pack_path(epoch);
        let pack = Signed::<LawPack>::open(&durable::read(&path, limits::LAW_PACK_BYTES_MAX)?, charter.alliance())?;
        if pack.id() == id { Ok(pack) } else { Err(malformed(&path, "it is not the pack that was published")) }
    }

    /// The pack, signed by officers of now: former officers' signatures count no more, and the same text is the same pack.
    fn signed_now(&self, charter: &Chartered, pack: Signed<LawPack>) -> Result<Signed<LawPack>, AuthorityError> {
        let speaks = charter.authority(self.book.member).is_some_and(|authority| authority.spoke(pack.signers()));
        if speaks { Ok(pack) } else { self.sign(charter, pack.body()) }
    }

    /// A pack for a new text that comes after another one.
    fn pack_to_come(
        &self,
        charter: &Chartered,
        request: &PublishRequest,
        from: Timestamp,
        after: &Signed<LawPack>,
        now: Timestamp,
        gate: &dyn Gate,
    ) -> Result<Signed<LawPack>, AuthorityError> {
        let before = after.body();
        let law = request.law.clone().unwrap_or_else(|| before.law.clone());
        let directives = request.directives.clone().unwrap_or_else(|| before.directives.clone());
        if (&law, &directives) == (&before.law, &before.directives) {
            return Err(AuthorityError::NothingNew);
        }
        if from <= now {
            return Err(AuthorityError::FromTooEarly { from });
        }
        self.new_pack(charter, self.book.highest().max(before.epoch).saturating_add(1), law, directives, now, gate)
    }

    fn new_pack(
        &self,
        charter: &Chartered,
        epoch: u64,
        law: String,
        directives: String,
        now: Timestamp,
        gate: &dyn Gate,
    ) -> Result<Signed<LawPack>, AuthorityError> {
        let member = self.book.member;
        gate.check(&Pack::new(PackOwner::Member(member), epoch, &law, &directives))?;
        self.sign(charter, &LawPack { member, epoch, issued: now, law, directives })
    }

    /// The pack for what is to count at once; whether its text is new.
    fn pack_for(
        &self,
        charter: &Chartered,
        request: &PublishRequest,
        current: Option<Signed<LawPack>>,
        book: &Book,
        now: Timestamp,
        gate: &dyn Gate,
    ) -> Result<(Signed<LawPack>, bool), AuthorityError> {
        let member = self.book.member;
        let (old_law, old_directives) = match (&current, &request.law) {
            (Some(pack), _) => (pack.body().law.clone(), pack.body().directives.clone()),
            (None, Some(_)) => (String::new(), String::new()),
            (None, None) => {
                let (law, directives) =
                    alliance_policy::founding_pack_text(member).ok_or(AuthorityError::NoFoundingPack(member))?;
                (law.to_owned(), directives.to_owned())
            }
        };
        let law = request.law.clone().unwrap_or(old_law);
        let directives = request.directives.clone().unwrap_or(old_directives);
        if let Some(pack) = current
            && (&pack.body().law, &pack.body().directives) == (&law, &directives)
        {
            return Ok((self.signed_now(charter, pack)?, false));
        }
        // Numbers of texts that were taken back are not given to others.
        let epoch = self.book.highest().max(book.highest()).saturating_add(1);
        Ok((self.new_pack(charter, epoch, law, directives, now, gate)?, true))
    }
}
