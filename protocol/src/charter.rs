//! The charter: which countries are members, who speaks for each, and how many must sign.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    envelope::{Draft, OpenError, Signed, Statement},
    id::{AllianceId, StatementId},
    key::PublicKey,
    limits,
    time::Timestamp,
    vocabulary::Country,
};

/// The founding document, one version of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// What people call the alliance.
    pub name: String,
    /// 1, 2, 3, ...
    pub version: u32,
    /// When this version was drawn up.
    pub issued: Timestamp,
    /// How many members' authorities must sign this version.
    pub threshold: u32,
    /// The version before this one; none for the first.
    pub previous: Option<StatementId>,
    pub members: BTreeMap<Country, Authority>,
}

/// A member's supervisory body: its officers, and how many of them speak for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Its name, for people.
    pub name: String,
    pub officers: Vec<PublicKey>,
    pub threshold: u32,
}

impl Statement for Charter {
    const KIND: &'static str = "charter";
    const BYTES_MAX: usize = limits::CHARTER_BYTES_MAX;
    const SIGNATURES_MAX: usize = limits::SIGNATURES_PER_STATEMENT_MAX;
}

/// A charter that enough members signed: the root of all trust of a node.
#[derive(Clone, Debug)]
pub struct Chartered {
    statement: Signed<Charter>,
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
    #[error("the charter is version {found}; only the founding version 1 can be adopted here")]
    NotFounding { found: u32 },
    #[error("{0} signed, but is an officer of no member")]
    Stranger(PublicKey),
}

impl Charter {
    /// Checks that the numbers make sense: this is a body that may be signed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn well_formed(&self) -> Result<(), CharterError> {
        let members = self.members.len();
        let fail = |what| Err(CharterError::Malformed(what));
        if !(2..=limits::MEMBERS_MAX).contains(&members) {
            return fail("an alliance has from 2 to 64 members");
        }
        if self.name.is_empty() || self.name.len() > limits::NAME_BYTES_MAX {
            return fail("its name is empty or longer than 128 bytes");
        }
        if self.threshold as usize > members || (self.threshold as usize) * 2 <= members {
            return fail("the threshold must be more than half of the members, and not more than all");
        }
        let mut officers = std::collections::BTreeSet::new();
        for authority in self.members.values() {
            let count = authority.officers.len();
            if authority.name.len() > limits::NAME_BYTES_MAX || count == 0 || count > limits::OFFICERS_MAX {
                return fail("each authority has a short name and from 1 to 16 officers");
            }
            if authority.threshold == 0 || authority.threshold as usize > count {
                return fail("an authority's threshold must be between 1 and the number of its officers");
            }
            if !authority.officers.iter().all(|officer| officers.insert(*officer)) {
                return fail("one key is the officer of two seats");
            }
        }
        Ok(())
    }
}

impl Authority {
    /// Whether enough of its officers signed for it to have spoken.
    #[must_use]
    pub fn spoke(&self, signers: &[PublicKey]) -> bool {
        let signed = self.officers.iter().filter(|officer| signers.contains(officer)).count();
        self.threshold > 0 && signed >= self.threshold as usize
    }
}

impl Chartered {
    /// Verifies a founding charter.
    ///
    /// # Errors
    /// It is not signed by as many members as it demands, or not a charter.
    pub fn found(bytes: &[u8]) -> Result<Self, CharterError> {
        let statement = Signed::<Charter>::open(bytes, AllianceId::NONE)?;
        let charter = statement.body();
        charter.well_formed()?;
        if charter.version != 1 || charter.previous.is_some() {
            return Err(CharterError::NotFounding { found: charter.version });
        }
        let known = |key: &&PublicKey| charter.members.values().any(|authority| authority.officers.contains(key));
        if let Some(stranger) = statement.signers().iter().find(|key| !known(key)) {
            return Err(CharterError::Stranger(*stranger));
        }
        let signed = charter.members.values().filter(|authority| authority.spoke(statement.signers())).count();
        if signed < charter.threshold as usize {
            let (members, threshold) = (charter.members.len(), charter.threshold);
            return Err(CharterError::TooFewMembers { signed, members, threshold });
        }
        let alliance = AllianceId(statement.id().0);
        Ok(Self { statement, alliance })
    }

    /// A draft of a founding charter, to be signed by the members.
    ///
    /// # Errors
    /// The body makes no sense.
    pub fn draft(charter: &Charter) -> Result<Draft<Charter>, CharterError> {
        charter.well_formed()?;
        Ok(Draft::new(charter, AllianceId::NONE))
    }

    #[must_use]
    pub fn alliance(&self) -> AllianceId {
        self.alliance
    }

    #[must_use]
    pub fn charter(&self) -> &Charter {
        self.statement.body()
    }

    #[must_use]
    pub fn statement(&self) -> &Signed<Charter> {
        &self.statement
    }

    /// The authority of a member.
    #[must_use]
    pub fn authority(&self, member: Country) -> Option<&Authority> {
        self.charter().members.get(&member)
    }
}
