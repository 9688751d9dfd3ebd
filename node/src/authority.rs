//! An authority's directory: its officers' keys, what it said last, and the making of everything that it signs.
//!
//! Numbers only rise: what was signed is noted durably before it is handed out, and the directory is locked while it is
//! open, so that one number is never given to two different statements. A law pack that does not pass the strict checks is
//! never signed. Handing statements to nodes is the caller's work.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use alliance_policy::CedarGate;
use alliance_protocol::{
    authority::{Accreditation, Adoption, Ban, Expert, LawPack, Organisation, Safeguard, Status},
    charter::{Authority, CharterError, Chartered, Membership},
    envelope::{Draft, OpenError, Signed, Statement},
    gate::{Pack, PackError, PackOwner},
    id::StatementId,
    key::{PublicKey, SecretKey},
    limits,
    place::Place,
    time::{Timestamp, Validity},
    trust::{Distrust, Trust},
    vocabulary::{Country, Label, NodeRole, SafeguardKind, Tier, Zone},
};
use serde::{Deserialize, Serialize};

use crate::{
    durable::{self, Existing, FileError, Readers, at},
    keys::{self, KeyFileError, PassphraseFrom, Protection},
};

mod publish;
mod rotation;
mod supervision;

/// An authority's directory, open and locked.
#[derive(Debug)]
pub struct AuthorityDir {
    path: PathBuf,
    book: Book,
    /// The officers' keys that lie here; there may be fewer than officers.
    officers: Vec<OfficerKey>,
    /// Those of the officers who come after them.
    next: Vec<OfficerKey>,
    /// Where the passphrases of the keys come from, if those have any.
    passphrases: PassphraseFrom,
    lock: File,
}

/// `authority.toml`: who the authority is and what it said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    member: Country,
    name: String,
    threshold: u32,
    /// The epoch of the newest law pack; 0 before the first.
    epoch: u64,
    /// The serial of the newest status; 0 before the first.
    serial: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    law_pack: Option<StatementId>,
    officers: Vec<PublicKey>,
    revoked: BTreeSet<PublicKey>,
    #[serde(default)]
    bans: BTreeSet<Ban>,
    /// Who approves for the authority. Ascending by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    experts: Vec<Expert>,
    /// The highest epoch that was ever given to a pack, also to one that was taken back; 0 where none was.
    #[serde(default)]
    given: u64,
    /// Milliseconds for which what runs may outlast a status.
    #[serde(default)]
    grace_ms: u64,
    /// Packs that come into force later, as the status says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    upcoming: Vec<Adoption>,
    /// Officers who were before these. Their keys may still lie here and sign nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    retired: BTreeSet<PublicKey>,
    /// Officers who come after these, once a version of the charter says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Officers>,
}

/// Who speaks for an authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Officers {
    threshold: u32,
    officers: Vec<PublicKey>,
}

/// `authority.json`: what the authority hands to those who draw up the charter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicAuthority {
    pub member: Country,
    pub name: String,
    pub officers: Vec<PublicKey>,
    pub threshold: u32,
}

/// What is asked of [`AuthorityDir::accredit`].
#[derive(Clone, Debug)]
pub struct AccreditRequest {
    pub node: PublicKey,
    pub organisation: Organisation,
    pub zone: Option<Zone>,
    pub roles: BTreeSet<NodeRole>,
    /// How well it is established where the node is.
    pub tier: Tier,
    pub place: Option<Place>,
    /// From when on it counts; none is now. What ran before can be proven only of a node that was accredited then.
    pub from: Option<Timestamp>,
    /// For how long, in milliseconds from then.
    pub valid_ms: u64,
}

/// What is asked of [`AuthorityDir::issue_safeguard`].
#[derive(Clone, Debug)]
pub struct SafeguardRequest {
    pub kind: SafeguardKind,
    pub from: Country,
    pub to: Country,
    pub labels: BTreeSet<Label>,
    /// The importing node it is limited to, or any.
    pub recipient: Option<PublicKey>,
    /// The rules that it may satisfy; none means every rule of the law in force, and of the baseline, that names the kind.
    pub rules: BTreeSet<String>,
    /// When what it confirms was filed.
    pub filed: Option<Timestamp>,
    /// For how long, in milliseconds from now.
    pub valid_ms: u64,
    /// Where it is filed.
    pub reference: String,
}

/// What is asked of [`AuthorityDir::publish`].
#[derive(Clone, Debug, Default)]
pub struct PublishRequest {
    /// Cedar text of the law; none keeps what is in force, and takes the founding pack the first time.
    pub law: Option<String>,
    /// Cedar text of the directives; none keeps what is in force.
    pub directives: Option<String>,
    /// When the new text comes into force; at once, where none is given.
    pub from: Option<Timestamp>,
    /// Whether what was to come into force later is taken back.
    pub drop_upcoming: bool,
    /// For how long the status counts, in milliseconds from now.
    pub status_ms: u64,
    /// For how long crossings that run may go on after it has run out; none keeps what was said last, which at first is not at
    /// all.
    pub grace_ms: Option<u64>,
}

/// What [`AuthorityDir::publish`] made; all is to be handed to nodes, the packs first.
#[derive(Clone, Debug)]
pub struct Published {
    pub law_pack: Signed<LawPack>,
    /// Packs that come into force later, the next one first.
    pub upcoming: Vec<Signed<LawPack>>,
    pub status: Signed<Status>,
    /// Whether the text changed, so that the pack is a new one.
    pub new_law: bool,
}

/// Why an authority could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("`{}` is no authority's directory: it has no authority.toml", .0.display())]
    Missing(PathBuf),
    #[error("`{}` is an authority's directory already", .0.display())]
    Exists(PathBuf),
    #[error("a waiting period is worked out from a filing: issue `regulator_notification` with its filing date")]
    WorkedOut,
    #[error("the accreditation would have ended at {0}, before now")]
    Past(Timestamp),
    #[error("a tier above `accredited` is of a place, and none is named")]
    NoPlace,
    #[error("say when the notification was filed: waiting periods are counted from then")]
    NotFiled,
    #[error("rule `{rule}` does not name `{kind}`; those that do: {naming}")]
    OtherRule { rule: String, kind: SafeguardKind, naming: String },
    #[error("no rule of {member} in force, nor of the baseline, names `{kind}`: the safeguard would satisfy nothing")]
    NoRule { member: Country, kind: SafeguardKind },
    #[error("a status lists at most {} bans", limits::BANS_MAX)]
    TooManyBans,
    #[error("a status names at most {} experts", limits::EXPERTS_MAX)]
    TooManyExperts,
    #[error("an expert's name has from 1 to {} bytes and no control characters", limits::NAME_BYTES_MAX)]
    ExpertName,
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("another command is working in `{}`", .0.display())]
    Locked(PathBuf),
    #[error("`{}` cannot be read: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("an authority has from 1 to {max} officers, and a threshold from 1 to their number", max = limits::OFFICERS_MAX)]
    Numbers,
    #[error("its name is empty or longer than {max} bytes", max = limits::NAME_BYTES_MAX)]
    Name,
    #[error("the key `{}` is of none of the authority's officers", .0.display())]
    OtherKey(PathBuf),
    #[error("{have} of its officers' keys are in the directory; {need} must sign")]
    TooFewKeys { have: usize, need: u32 },
    #[error("the charter knows {0} by other officers than these, or not at all")]
    NotInCharter(Country),
    #[error("officers are waiting to be adopted; propose and submit `{}` first", .0.display())]
    RotationWaits(PathBuf),
    #[error("new officers wait here, and whether they speak already is not known: the version before is missing")]
    VersionBefore,
    #[error("an authority has had {} officers, as many as its directory keeps apart", OFFICER_FILES_MAX)]
    TooManyOfficers,
    #[error(transparent)]
    Charter(#[from] CharterError),
    #[error("the node {0} is revoked")]
    Revoked(PublicKey),
    #[error("{max} keys are revoked already, as many as a status may list", max = limits::REVOCATIONS_MAX)]
    TooManyRevoked,
    #[error("the validity must be more than nothing and at most {max_ms} ms")]
    TooLong { max_ms: u64 },
    #[error("what runs may outlast a status by at most {} minutes", limits::STATUS_GRACE_MS_MAX / 60_000)]
    Grace,
    #[error("the reference is empty or longer than {max} bytes", max = limits::TEXT_BYTES_MAX)]
    Reference,
    #[error("there is no founding pack for {0}; the text of its law must be given")]
    NoFoundingPack(Country),
    #[error("a new text that is to come into force at {from} must do so later than now, and than what comes before it")]
    FromTooEarly { from: Timestamp },
    #[error("nothing is in force yet; publish that first, without a date")]
    NothingInForce,
    #[error("the text is what is in force by then already")]
    NothingNew,
    #[error("{} new texts wait to come into force, as many as a status may name", limits::UPCOMING_MAX)]
    TooManyUpcoming,
    #[error("the law pack of epoch {epoch} waits to come into force; a text that is to count before it would be overtaken")]
    UpcomingWaits { epoch: u64 },
    #[error("what was signed would not be believed")]
    NotBelieved(#[from] Distrust),
    #[error("the statement cannot be made")]
    Statement(#[from] OpenError),
}

/// Milliseconds for which a status may count: a member whose authority falls silent is to be noticed within weeks.
pub const STATUS_MS_MAX: u64 = 31 * DAY_MS;

/// Milliseconds for which an accreditation or a safeguard may count: three years, then it is looked at again.
pub const PAPER_MS_MAX: u64 = 3 * 366 * DAY_MS;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The highest number of an officer's key file: officers who follow each other count on.
const OFFICER_FILES_MAX: u32 = 256;

/// Bytes of `authority.toml` with all revocations, and of `authority.json`.
const BOOK_BYTES_MAX: usize = 128 * 1024;

/// The key of an officer, as it lies here.
#[derive(Clone, Debug)]
struct OfficerKey {
    file: PathBuf,
    /// Its public half, by what the file says until it is read.
    public: PublicKey,
}

impl Drop for AuthorityDir {
    fn drop(&mut self) {
        // Closing the file is not enough where another thread is just starting a process, which has the file open until it
        // is another program.
        let _ = self.lock.unlock();
    }
}

impl AuthorityDir {
    /// Makes the directory of a new authority, with a key for each of its officers.
    ///
    /// # Errors
    /// There is one already, the numbers make no sense, or the disk does not permit it.
    pub fn create(path: &Path, member: Country, name: &str, officers: u32, threshold: u32) -> Result<Self, AuthorityError> {
        Self::create_with(path, member, name, (officers, threshold), &Protection::Plain)
    }

    /// As [`AuthorityDir::create`], with the officers' keys protected like this.
    ///
    /// # Errors
    /// As [`AuthorityDir::create`].
    pub fn create_with(
        path: &Path,
        member: Country,
        name: &str,
        (officers, threshold): (u32, u32),
        protection: &Protection,
    ) -> Result<Self, AuthorityError> {
        numbers(officers, threshold)?;
        if name.is_empty() || name.len() > limits::NAME_BYTES_MAX {
            return Err(AuthorityError::Name);
        }
        durable::private_dir(path)?;
        let lock = lock(path)?;
        if book_path(path).exists() {
            return Err(AuthorityError::Exists(path.to_owned()));
        }
        let mut files = Vec::new();
        for number in 1..=officers {
            let file = officer_path(path, number);
            let public = keys::write_new(&file, &keys::generate()?, protection)?;
            files.push(OfficerKey { file, public });
        }
        let book = Book {
            member,
            name: name.to_owned(),
            threshold,
            epoch: 0,
            serial: 0,
            law_pack: None,
            officers: files.iter().map(|key| key.public).collect(),
            revoked: BTreeSet::new(),
            bans: BTreeSet::new(),
            experts: Vec::new(),
            given: 0,
            grace_ms: 0,
            upcoming: Vec::new(),
            retired: BTreeSet::new(),
            next: None,
        };
        let passphrases = PassphraseFrom::locate(None);
        let made = Self { path: path.to_owned(), book, officers: files, next: Vec::new(), passphrases, lock };
        made.save()?;
        made.save_public(&made.public_path(), &made.public())?;
        Ok(made)
    }

    /// Opens an authority's directory and locks it.
    ///
    /// # Errors
    /// It is none, is in use, or something in it is damaged.
    pub fn open(path: &Path) -> Result<Self, AuthorityError> {
        if !book_path(path).exists() {
            return Err(AuthorityError::Missing(path.to_owned()));
        }
        let lock = lock(path)?;
        let text = durable::read_text(&book_path(path), BOOK_BYTES_MAX)?;
        let book: Book = toml::from_str(&text).map_err(|error| malformed(&book_path(path), error.message()))?;
        let (mut officers, mut next) = (Vec::new(), Vec::new());
        let comes = |key: &PublicKey| book.next.as_ref().is_some_and(|next| next.officers.contains(key));
        for number in 1..=OFFICER_FILES_MAX {
            let file = officer_path(path, number);
            match keys::inspect(&file).map(|facts| facts.public) {
                Ok(public) if book.officers.contains(&public) => officers.push(OfficerKey { file, public }),
                Ok(public) if comes(&public) => next.push(OfficerKey { file, public }),
                Ok(public) if book.retired.contains(&public) => {}
                Ok(_) => return Err(AuthorityError::OtherKey(file)),
                Err(KeyFileError::Missing(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let passphrases = PassphraseFrom::locate(None);
        Ok(Self { path: path.to_owned(), book, officers, next, passphrases, lock })
    }

    /// The same, with the passphrases of its keys from elsewhere.
    #[must_use]
    pub fn with_passphrases(mut self, passphrases: PassphraseFrom) -> Self {
        self.passphrases = passphrases;
        self
    }

    #[must_use]
    pub fn member(&self) -> Country {
        self.book.member
    }

    /// What those who draw up the charter need to know.
    #[must_use]
    pub fn public(&self) -> PublicAuthority {
        let Book { member, name, officers, threshold, .. } = self.book.clone();
        PublicAuthority { member, name, officers, threshold }
    }

    /// The file with [`AuthorityDir::public`].
    #[must_use]
    pub fn public_path(&self) -> PathBuf {
        self.path.join("authority.json")
    }

    /// The file with what is public of the officers who come after those of now.
    #[must_use]
    pub fn next_public_path(&self) -> PathBuf {
        self.path.join("authority.next.json")
    }

    /// The file with the newest status.
    #[must_use]
    pub fn status_path(&self) -> PathBuf {
        self.path.join("status.alliance")
    }

    /// The file with the law pack in force, as of the last publication.
    #[must_use]
    pub fn law_pack_path(&self) -> PathBuf {
        self.pack_path(self.book.epoch)
    }

    fn pack_path(&self, epoch: u64) -> PathBuf {
        self.path.join(format!("law-pack-{epoch}.alliance"))
    }

    /// Nodes whose accreditation has been withdrawn.
    #[must_use]
    pub fn revoked(&self) -> &BTreeSet<PublicKey> {
        &self.book.revoked
    }

    /// Accredits a node.
    ///
    /// # Errors
    /// The charter does not know this authority, the node is revoked, or the request makes no sense.
    pub fn accredit(
        &self,
        charter: &Chartered,
        request: &AccreditRequest,
        now: Timestamp,
    ) -> Result<Signed<Accreditation>, AuthorityError> {
        if self.book.revoked.contains(&request.node) {
            return Err(AuthorityError::Revoked(request.node));
        }
        if request.tier > Tier::Accredited && request.place.is_none() {
            return Err(AuthorityError::NoPlace);
        }
        let body = Accreditation {
            member: self.book.member,
            node: request.node,
            organisation: request.organisation.clone(),
            zone: request.zone,
            roles: request.roles.clone(),
            tier: request.tier,
            place: request.place,
            validity: span(request.from.unwrap_or(now), request.valid_ms, PAPER_MS_MAX)?,
        };
        if body.validity.until <= now {
            return Err(AuthorityError::Past(body.validity.until));
        }
        let signed = self.sign(charter, &body)?;
        Ok(Trust::new(charter.clone()).accreditation(signed.bytes())?)
    }

    /// Withdraws a node's accreditation; it takes effect with the next status. Returns whether it is new.
    ///
    /// # Errors
    /// Too many are revoked, or the disk does not permit it.
    pub fn revoke(&mut self, node: PublicKey) -> Result<bool, AuthorityError> {
        if self.book.revoked.contains(&node) {
            return Ok(false);
        }
        if self.book.revoked.len() >= limits::REVOCATIONS_MAX {
            return Err(AuthorityError::TooManyRevoked);
        }
        self.book.revoked.insert(node);
        self.save()?;
        Ok(true)
    }

    /// Issues a safeguard before this member's law.
    ///
    /// # Errors
    /// The charter does not know this authority, or the request makes no sense.
    pub fn issue_safeguard(
        &self,
        charter: &Chartered,
        request: &SafeguardRequest,
        now: Timestamp,
    ) -> Result<Signed<Safeguard>, AuthorityError> {
        if request.reference.is_empty() || request.reference.len() > limits::TEXT_BYTES_MAX {
            return Err(AuthorityError::Reference);
        }
        if request.kind == SafeguardKind::WaitingPeriodElapsed {
            return Err(AuthorityError::WorkedOut);
        }
        if request.kind == SafeguardKind::RegulatorNotification && request.filed.is_none() {
            return Err(AuthorityError::NotFiled);
        }
        let rules = self.rules_for(charter, request, now)?;
        let body = Safeguard {
            issuer: self.book.member,
            kind: request.kind,
            reference: request.reference.clone(),
            from: request.from,
            to: request.to,
            labels: request.labels.clone(),
            recipient: request.recipient,
            rules,
            filed: request.filed,
            validity: span(now, request.valid_ms, PAPER_MS_MAX)?,
        };
        self.sign(charter, &body)
    }

    /// The rules that a safeguard is issued for: those asked for, which must name its kind, or all that do.
    fn rules_for(
        &self,
        charter: &Chartered,
        request: &SafeguardRequest,
        now: Timestamp,
    ) -> Result<BTreeSet<String>, AuthorityError> {
        let member = self.book.member;
        let law = match self.current_pack(charter, now)? {
            Some(pack) => Some((pack.body().epoch, pack.body().law.clone(), pack.body().directives.clone())),
            None => alliance_policy::founding_pack_text(member).map(|(law, more)| (1, law.to_owned(), more.to_owned())),
        };
        let (epoch, law, directives) = law.ok_or(AuthorityError::NoFoundingPack(member))?;
        let gate = CedarGate::new();
        let own = Pack::new(PackOwner::Member(member), epoch, &law, &directives);
        let mut naming = gate.rules_that_name(&own, request.kind)?;
        naming.extend(gate.rules_that_name(&alliance_policy::baseline(), request.kind)?);
        if let Some(other) = request.rules.difference(&naming).next() {
            return Err(AuthorityError::OtherRule { rule: other.clone(), kind: request.kind, naming: listed(&naming) });
        }
        let rules = if request.rules.is_empty() { naming } else { request.rules.clone() };
        if rules.is_empty() {
            return Err(AuthorityError::NoRule { member, kind: request.kind });
        }
        Ok(rules)
    }

    /// Signs with as many officers' keys as the threshold demands.
    fn sign<T: Statement>(&self, charter: &Chartered, body: &T) -> Result<Signed<T>, AuthorityError> {
        let draft = Draft::new(body, charter.alliance());
        Ok(self.signing_keys(charter)?.iter().fold(draft, |draft, key| draft.sign(key)).finish()?)
    }

    /// The keys of the officers who speak for the authority under this charter.
    fn signing_keys(&self, charter: &Chartered) -> Result<Vec<SecretKey>, AuthorityError> {
        let member = self.book.member;
        let known = charter.authority(member).ok_or(AuthorityError::NotInCharter(member))?;
        let (keys, need) = match &self.book.next {
            _ if known.speaks_as(&self.authority()) => (&self.officers, self.book.threshold),
            Some(next) if known.speaks_as(&self.named(next)) => (&self.next, next.threshold),
            Some(_) | None => return Err(AuthorityError::NotInCharter(member)),
        };
        let enough = usize::try_from(need).ok().and_then(|count| keys.get(..count));
        enough.ok_or(AuthorityError::TooFewKeys { have: keys.len(), need })?.iter().map(|key| self.unlock(key)).collect()
    }

    /// Reads the key of an officer, for which a passphrase may be needed.
    fn unlock(&self, key: &OfficerKey) -> Result<SecretKey, AuthorityError> {
        let secret = keys::read(&key.file, &mut |file| self.passphrases.ask(file))?;
        if secret.public() == key.public { Ok(secret) } else { Err(AuthorityError::OtherKey(key.file.clone())) }
    }

    fn authority(&self) -> Authority {
        self.public().into()
    }

    fn save(&self) -> Result<(), AuthorityError> {
        let path = book_path(&self.path);
        let text = toml::to_string(&self.book).map_err(|error| malformed(&path, &error.to_string()))?;
        Ok(durable::write(&path, text.as_bytes(), Readers::Owner, Existing::Replace)?)
    }
}

fn numbers(officers: u32, threshold: u32) -> Result<(), AuthorityError> {
    let max = u32::try_from(limits::OFFICERS_MAX).unwrap_or(u32::MAX);
    if officers == 0 || officers > max || threshold == 0 || threshold > officers {
        return Err(AuthorityError::Numbers);
    }
    Ok(())
}

fn listed(rules: &BTreeSet<String>) -> String {
    if rules.is_empty() { "none".to_owned() } else { rules.iter().cloned().collect::<Vec<_>>().join(", ") }
}

impl PublicAuthority {
    /// Reads an `authority.json`.
    ///
    /// # Errors
    /// It cannot be read or is none.
    pub fn read(path: &Path) -> Result<Self, AuthorityError> {
        let bytes = durable::read(path, BOOK_BYTES_MAX)?;
        serde_json::from_slice(&bytes).map_err(|error| malformed(path, &error.to_string()))
    }
}

impl From<PublicAuthority> for Membership {
    /// A full member.
    fn from(public: PublicAuthority) -> Self {
        Authority::from(public).into()
    }
}

impl From<PublicAuthority> for Authority {
    fn from(public: PublicAuthority) -> Self {
        let PublicAuthority { name, officers, threshold, .. } = public;
        Self { name, officers, threshold }
    }
}

fn span(now: Timestamp, ms: u64, max_ms: u64) -> Result<Validity, AuthorityError> {
    if ms == 0 || ms > max_ms { Err(AuthorityError::TooLong { max_ms }) } else { Ok(Validity::lasting_ms(now, ms)) }
}

fn malformed(path: &Path, reason: &str) -> AuthorityError {
    AuthorityError::Malformed { path: path.to_owned(), reason: reason.to_owned() }
}

fn book_path(path: &Path) -> PathBuf {
    path.join("authority.toml")
}

fn officer_path(path: &Path, number: u32) -> PathBuf {
    path.join(format!("officer-{number}.key"))
}

fn lock(path: &Path) -> Result<File, AuthorityError> {
    let name = path.join("authority.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&name);
    let file = file.map_err(at("open", &name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuthorityError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(at("lock", &name)(error).into()),
    }
}

#[cfg(test)]
mod tests;
