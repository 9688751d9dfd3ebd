//! The papers of a node: the charter it trusts and the accreditation it shows. Neither is believed before it is verified.

use alliance_protocol::{
    authority::Accreditation,
    charter::{CharterError, Chartered},
    envelope::Signed,
    id::AllianceId,
    key::PublicKey,
    limits,
    time::Timestamp,
    trust::{Distrust, NoStanding, Trust},
};

use super::{Home, HomeError};
use crate::durable::{self, Existing, Readers};

/// A charter and an accreditation under it that hold now.
#[derive(Clone, Debug)]
pub struct Papers {
    pub charter: Chartered,
    pub accreditation: Signed<Accreditation>,
}

/// Why the papers of a node do not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PapersError {
    #[error("the home has no charter")]
    NoCharter,
    #[error("the home has no accreditation")]
    NoAccreditation,
    #[error("the charter does not hold")]
    Charter(#[source] CharterError),
    #[error("the accreditation is not to be believed under this charter")]
    Accreditation(#[source] Distrust),
    #[error("the accreditation does not let this node take part")]
    Standing(#[source] NoStanding),
    #[error("the home belongs to another alliance; its charter is not replaced")]
    OtherAlliance,
    #[error("the versions of the charter are not those in the home; members may have signed two of one number")]
    OtherVersions,
}

impl PapersError {
    pub(super) const fn next_step(&self) -> &'static str {
        match self {
            Self::NoCharter => {
                "get the alliance's charter and install it: alliance init --charter FILE --accreditation FILE"
            }
            Self::NoAccreditation => {
                "hand the node's public key (alliance init prints it) to the authority, and install what it signs: \
                 alliance init --accreditation FILE"
            }
            Self::Charter(_) => "get the charter from the alliance again and install it: alliance init --charter FILE",
            Self::Accreditation(_) | Self::Standing(_) => {
                "ask the authority for an accreditation of this node's key under this charter, and install it: \
                 alliance init --accreditation FILE; where its officers are new, with the log of the charter as well: \
                 alliance init --charter LOG --accreditation FILE"
            }
            Self::OtherVersions => "ask the members which is theirs; compare: alliance charter log --charter FILE",
            Self::OtherAlliance => "make another home for a node of another alliance",
        }
    }
}

impl Papers {
    /// Verifies a charter and an accreditation for a node.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn open(charter: &[u8], accreditation: &[u8], node: PublicKey, now: Timestamp) -> Result<Self, PapersError> {
        let charter = Chartered::open(charter).map_err(PapersError::Charter)?;
        let trust = Trust::new(charter.clone());
        let accreditation = trust.accreditation(accreditation).map_err(PapersError::Accreditation)?;
        trust.admission(&accreditation, &node, now).map_err(PapersError::Standing)?;
        Ok(Self { charter, accreditation })
    }
}

impl Home {
    /// The alliance of the home's charter, if there is a charter that holds.
    #[must_use]
    pub fn charter_id(&self) -> Option<AllianceId> {
        let bytes = durable::read(&self.charter_path(), limits::CHARTER_LOG_BYTES_MAX).ok()?;
        Some(Chartered::open(&bytes).ok()?.alliance())
    }

    /// The papers of the home, verified for its node.
    ///
    /// # Errors
    /// They are missing or do not hold.
    pub fn papers(&self, node: PublicKey, now: Timestamp) -> Result<Papers, HomeError> {
        let charter = durable::read_if_there(&self.charter_path(), limits::CHARTER_LOG_BYTES_MAX)?;
        let charter = charter.ok_or(PapersError::NoCharter)?;
        let accreditation = durable::read_if_there(&self.accreditation_path(), limits::STATEMENT_BYTES_MAX)?;
        let accreditation = accreditation.ok_or(PapersError::NoAccreditation)?;
        Ok(Papers::open(&charter, &accreditation, node, now)?)
    }

    /// Installs a charter, an accreditation or both, after verification. What is not given is taken from the home; a
    /// charter alone is installed where there is no accreditation yet. The charter of another alliance is never installed.
    ///
    /// # Errors
    /// What does not hold; nothing was installed then.
    pub fn install(
        &self,
        charter: Option<&[u8]>,
        accreditation: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Option<Papers>, HomeError> {
        let node = self.public()?;
        let old = durable::read_if_there(&self.charter_path(), limits::CHARTER_LOG_BYTES_MAX)?;
        let mut chosen = charter.or(old.as_deref()).ok_or(PapersError::NoCharter)?;
        let chartered = Chartered::open(chosen).map_err(PapersError::Charter)?;
        if let (Some(bytes), Some(old)) = (&old, old.as_deref().and_then(|old| Chartered::open(old).ok())) {
            if old.alliance() != chartered.alliance() {
                return Err(PapersError::OtherAlliance.into());
            }
            let ids = |charter: &Chartered| charter.versions().map(Signed::id).collect::<Vec<_>>();
            if !ids(&chartered).starts_with(&ids(&old)) && !ids(&old).starts_with(&ids(&chartered)) {
                return Err(PapersError::OtherVersions.into());
            }
            // What is here already is not given up for an older log.
            if ids(&old).len() > ids(&chartered).len() {
                chosen = bytes;
            }
        }
        let held = durable::read_if_there(&self.accreditation_path(), limits::STATEMENT_BYTES_MAX)?;
        let papers = match accreditation.or(held.as_deref()) {
            Some(bytes) => Some(Papers::open(chosen, bytes, node, now).map_err(|error| self.of_next(error))?),
            None => None,
        };
        if old.as_deref() != Some(chosen) {
            durable::write(&self.charter_path(), chosen, Readers::Owner, Existing::Replace)?;
        }
        if let Some(accreditation) = accreditation {
            durable::write(&self.accreditation_path(), accreditation, Readers::Owner, Existing::Replace)?;
        }
        Ok(papers)
    }

    /// Papers that do not hold for the node's key may be those of the one that waits.
    fn of_next(&self, error: PapersError) -> HomeError {
        match error {
            PapersError::Standing(NoStanding::OtherKey(key)) if Some(key) == self.next_key() => HomeError::ForNextKey,
            other => other.into(),
        }
    }
}
