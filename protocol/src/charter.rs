//! The charter: which countries are members, who speaks for each, and how many must sign.
//!
//! Nobody changes it alone: each version is signed as the one before and the new one demand (TUF's rule for its root role), and
//! names the one before. [`Chartered`] is the sequence from the founding version to the one in force.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    envelope::Statement, id::StatementId, key::PublicKey, limits, time::Timestamp, vocabulary::Country, vocabulary::Seat,
};

mod chain;

pub use self::chain::{CharterError, Chartered};

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
    /// How many full members' authorities must sign this version, and the one that follows it.
    pub threshold: u32,
    /// The version before this one; none for the first.
    pub previous: Option<StatementId>,
    /// Who must have seen a node's ledger before anything crosses to or from it.
    pub witnesses: WitnessRule,
    pub members: BTreeMap<Country, Membership>,
}

/// How ledgers are witnessed in the alliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessRule {
    /// In how many other countries a node must have signed the head of a ledger. 0 demands none.
    pub countries: u32,
    /// Milliseconds for which entries may stand without them.
    pub grace_ms: u64,
}

impl WitnessRule {
    /// Ledgers are shown to nobody.
    pub const NONE: Self = Self { countries: 0, grace_ms: limits::WITNESS_GRACE_MS_MIN };
}

/// A country in the alliance: what it may do there, and who speaks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    pub seat: Seat,
    pub authority: Authority,
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

impl Charter {
    /// Checks that the numbers make sense: this is a body that may be signed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn well_formed(&self) -> Result<(), CharterError> {
        let fail = |what| Err(CharterError::Malformed(what));
        let voting = self.voting().count();
        if self.members.len() > limits::MEMBERS_MAX || voting < 2 {
            return fail("an alliance has from 2 to 64 members, and at least 2 of them are full members");
        }
        if self.name.is_empty() || self.name.len() > limits::NAME_BYTES_MAX {
            return fail("its name is empty or longer than 128 bytes");
        }
        if self.threshold as usize > voting || (self.threshold as usize) * 2 <= voting {
            return fail("the threshold must be more than half of the full members, and not more than all");
        }
        if self.witnesses.countries as usize >= self.members.len() {
            return fail("as many countries must be witnesses as there are members, or more; each is witnessed by others");
        }
        if !(limits::WITNESS_GRACE_MS_MIN..=limits::WITNESS_GRACE_MS_MAX).contains(&self.witnesses.grace_ms) {
            return fail("a ledger may be without witnesses for one minute at the least and for one day at the most");
        }
        let mut officers = BTreeSet::new();
        for Membership { authority, .. } in self.members.values() {
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

    /// The members whose signatures decide about the charter.
    pub fn voting(&self) -> impl Iterator<Item = (&Country, &Authority)> {
        let full = self.members.iter().filter(|(_, member)| member.seat == Seat::Full);
        full.map(|(country, member)| (country, &member.authority))
    }

    /// Whose officer a key is.
    #[must_use]
    pub fn seat_of(&self, officer: &PublicKey) -> Option<Country> {
        let holds = |(_, member): &(&Country, &Membership)| member.authority.officers.contains(officer);
        self.members.iter().find(holds).map(|(country, _)| *country)
    }

    /// How many of the members that decide about it have signed.
    fn signed(&self, signers: &[PublicKey]) -> usize {
        self.voting().filter(|(_, authority)| authority.spoke(signers)).count()
    }
}

impl Authority {
    /// Whether enough of its officers signed for it to have spoken.
    #[must_use]
    pub fn spoke(&self, signers: &[PublicKey]) -> bool {
        let signed = self.officers.iter().filter(|officer| signers.contains(officer)).count();
        self.threshold > 0 && signed >= self.threshold as usize
    }

    /// Whether the same officers speak for it in the same way, whatever it is called.
    #[must_use]
    pub fn speaks_as(&self, other: &Self) -> bool {
        let officers = |authority: &Self| authority.officers.iter().copied().collect::<BTreeSet<_>>();
        self.threshold == other.threshold && officers(self) == officers(other)
    }
}

impl From<Authority> for Membership {
    /// A full member.
    fn from(authority: Authority) -> Self {
        Self { seat: Seat::Full, authority }
    }
}
