//! The versions of a charter that lead from the founding to the one in force.

use serde_bytes::ByteBuf;

use super::{Authority, Charter};
use crate::{
    authority::Accreditation,
    envelope::{Draft, OpenError, Signed, decode, encode},
    id::AllianceId,
    key::PublicKey,
    limits,
    trust::Accepted,
    vocabulary::{Country, Seat},
};

/// A charter that enough members signed, with every version before it: the root of all trust of a node.
#[derive(Clone, Debug)]
pub struct Chartered {
    founding: Signed<Charter>,
    /// The versions after it, in their order; the last is in force.
    later: Vec<Signed<Charter>>,
    alliance: AllianceId,
}

/// Why a charter does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharterError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the charter is malformed: {0}")]
    Malformed(&'static str),
    #[error("{signed} of {members} members have signed; {threshold} must")]
    TooFewMembers { signed: usize, members: usize, threshold: u32 },
    #[error("{signed} of the {members} full members of version {version} have signed; {threshold} must")]
    TooFewOf { version: u32, signed: usize, members: usize, threshold: u32 },
    #[error("the charter is version {found}, and no founding version 1; give the whole log of the charter")]
    NotFounding { found: u32 },
    #[error("{0} signed, but is an officer of no member")]
    Stranger(PublicKey),
    #[error("version {found} is older than version {known}, which was accepted before")]
    Older { found: u32, known: u32 },
    #[error("version {found} does not follow version {known}; those in between are missing")]
    Skipped { found: u32, known: u32 },
    #[error("version {version} does not go back to the version {before} that is known here")]
    OtherPast { version: u32, before: u32 },
    #[error("the members have signed two different versions {version}: the alliance has split, and must be asked")]
    Forked { version: u32 },
    #[error("version {version} was drawn up before the one that it follows")]
    BackDated { version: u32 },
    #[error("{officer} is an officer of {from} and may not become one of {to}")]
    Moved { officer: PublicKey, from: Country, to: Country },
    #[error("the authority of {0} is new, or its officers are, and it has not signed itself")]
    Unwilling(Country),
    #[error("the charter has {max} versions, more than are kept", max = limits::CHARTER_VERSIONS_MAX)]
    TooManyVersions,
    #[error("not a charter, and not a log of its versions: {0}")]
    Log(String),
}

impl Chartered {
    /// Verifies a founding charter.
    ///
    /// # Errors
    /// It is not signed by as many members as it demands, or not a charter.
    pub fn found(bytes: &[u8]) -> Result<Self, CharterError> {
        let founding = Signed::<Charter>::open(bytes, AllianceId::NONE)?;
        let charter = founding.body();
        charter.well_formed()?;
        if charter.version != 1 || charter.previous.is_some() {
            return Err(CharterError::NotFounding { found: charter.version });
        }
        if let Some(stranger) = founding.signers().iter().find(|key| charter.seat_of(key).is_none()) {
            return Err(CharterError::Stranger(*stranger));
        }
        let (signed, members, threshold) =
            (charter.signed(founding.signers()), charter.voting().count(), charter.threshold);
        if signed < threshold as usize {
            return Err(CharterError::TooFewMembers { signed, members, threshold });
        }
        let alliance = AllianceId(founding.id().0);
        Ok(Self { founding, later: Vec::new(), alliance })
    }

    /// Verifies a log of all versions, or a founding charter alone.
    ///
    /// # Errors
    /// A version of it does not hold.
    pub fn open(bytes: &[u8]) -> Result<Self, CharterError> {
        let Ok(versions) = decode::<Vec<ByteBuf>>(bytes) else { return Self::found(bytes) };
        let [founding, later @ ..] = versions.as_slice() else {
            return Err(CharterError::Log("it is empty".to_owned()));
        };
        let mut chartered = Self::found(founding)?;
        for version in later {
            chartered.succeed(version)?;
        }
        Ok(chartered)
    }

    /// All versions in one piece, as [`Self::open`] reads it: a founding charter is its own log.
    #[must_use]
    pub fn to_log(&self) -> Vec<u8> {
        if self.later.is_empty() {
            return self.founding.bytes().to_vec();
        }
        encode(&self.versions().map(|version| ByteBuf::from(version.bytes().to_vec())).collect::<Vec<_>>())
    }

    /// A draft of a founding charter, to be signed by the members.
    ///
    /// # Errors
    /// The body makes no sense.
    pub fn draft(charter: &Charter) -> Result<Draft<Charter>, CharterError> {
        charter.well_formed()?;
        Ok(Draft::new(charter, AllianceId::NONE))
    }

    /// A draft of the version that follows this one. What [`Self::succeed`] would refuse whoever signed is refused now.
    ///
    /// # Errors
    /// The body makes no sense, or does not follow.
    pub fn draft_next(&self, next: &Charter) -> Result<Draft<Charter>, CharterError> {
        next.well_formed()?;
        follows(self.latest(), next)?;
        Ok(Draft::new(next, self.alliance))
    }

    /// Takes in the next version. One that is known changes nothing.
    ///
    /// # Errors
    /// It is older, skips one, goes back to something else, or is not signed by whom it must be; nothing has changed then.
    pub fn succeed(&mut self, bytes: &[u8]) -> Result<Accepted, CharterError> {
        let next = Signed::<Charter>::open(bytes, self.alliance)?;
        let (found, known) = (next.body().version, self.charter().version);
        if self.versions().any(|version| version.id() == next.id()) {
            return Ok(Accepted::Known);
        }
        if found <= known {
            // One that never could have followed is no sign of a split; whoever wrote it has nothing to say.
            let before = self.versions().find(|version| version.body().version.saturating_add(1) == found);
            before.ok_or(CharterError::Older { found, known }).and_then(|before| verify(before, &next))?;
            return Err(CharterError::Forked { version: found });
        }
        if found > known.saturating_add(1) {
            // One that nobody signed who is known here is no sign of versions that are missing.
            let known_here = |key: &PublicKey| self.charter().seat_of(key).is_some();
            let stranger = next.signers().first().filter(|_| !next.signers().iter().any(known_here));
            return Err(stranger.map_or(CharterError::Skipped { found, known }, |key| CharterError::Stranger(*key)));
        }
        verify(self.latest(), &next)?;
        if self.later.len() + 1 >= limits::CHARTER_VERSIONS_MAX {
            return Err(CharterError::TooManyVersions);
        }
        self.later.push(next);
        Ok(Accepted::New)
    }

    #[must_use]
    pub fn alliance(&self) -> AllianceId {
        self.alliance
    }

    /// The version in force.
    #[must_use]
    pub fn charter(&self) -> &Charter {
        self.latest().body()
    }

    #[must_use]
    pub fn founding(&self) -> &Signed<Charter> {
        &self.founding
    }

    #[must_use]
    pub fn latest(&self) -> &Signed<Charter> {
        self.later.last().unwrap_or(&self.founding)
    }

    /// From the founding version to the one in force.
    pub fn versions(&self) -> impl Iterator<Item = &Signed<Charter>> {
        std::iter::once(&self.founding).chain(&self.later)
    }

    /// The body of an accreditation that an authority has signed, under any version of the charter.
    #[must_use]
    pub fn accredited(&self, bytes: &[u8]) -> Option<Accreditation> {
        let accreditation = Signed::<Accreditation>::open(bytes, self.alliance).ok()?;
        let member = accreditation.body().member;
        let mut authorities = self.versions().filter_map(|version| version.body().members.get(&member));
        authorities.any(|seat| seat.authority.spoke(accreditation.signers())).then(|| accreditation.body().clone())
    }

    /// The authority of a member.
    #[must_use]
    pub fn authority(&self, member: Country) -> Option<&Authority> {
        self.charter().members.get(&member).map(|member| &member.authority)
    }

    /// What a member may do in the alliance.
    #[must_use]
    pub fn seat(&self, member: Country) -> Option<Seat> {
        self.charter().members.get(&member).map(|member| member.seat)
    }
}

/// Whether a body can be the version after `before`, whoever signs it.
fn follows(before: &Signed<Charter>, next: &Charter) -> Result<(), CharterError> {
    let old = before.body();
    if next.previous != Some(before.id()) || Some(next.version) != old.version.checked_add(1) {
        return Err(CharterError::OtherPast { version: next.version, before: old.version });
    }
    if next.issued < old.issued {
        return Err(CharterError::BackDated { version: next.version });
    }
    for (to, member) in &next.members {
        for officer in &member.authority.officers {
            if let Some(from) = old.seat_of(officer).filter(|from| from != to) {
                return Err(CharterError::Moved { officer: *officer, from, to: *to });
            }
        }
    }
    Ok(())
}

/// Whether a version follows `before` and is signed by whom both demand (STATEMENT-42).
fn verify(before: &Signed<Charter>, next: &Signed<Charter>) -> Result<(), CharterError> {
    let (old, new, signers) = (before.body(), next.body(), next.signers());
    new.well_formed()?;
    follows(before, new)?;
    if let Some(stranger) = signers.iter().find(|key| old.seat_of(key).or(new.seat_of(key)).is_none()) {
        return Err(CharterError::Stranger(*stranger));
    }
    for charter in [old, new] {
        let (signed, members, threshold) = (charter.signed(signers), charter.voting().count(), charter.threshold);
        if signed < threshold as usize {
            return Err(CharterError::TooFewOf { version: charter.version, signed, members, threshold });
        }
    }
    // Nobody becomes a member, and no key an officer's, by what others say of it: they show that they hold the keys.
    for (country, member) in &new.members {
        let unchanged = old.members.get(country).is_some_and(|was| was.authority.speaks_as(&member.authority));
        if !unchanged && !member.authority.spoke(signers) {
            return Err(CharterError::Unwilling(*country));
        }
    }
    Ok(())
}
