//! What an audit finds, in words that are stable for scripts and plain for people.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use crate::{
    crossing::RefusalCode,
    id::{AllianceId, CrossingId, ManifestId},
    key::PublicKey,
    time::Timestamp,
    vocabulary::{Country, Purpose},
};

/// All that an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub files: Vec<FileFound>,
    /// By the time they began.
    pub crossings: Vec<CrossingFound>,
    /// What is wrong. Empty where everything holds.
    pub findings: Vec<Finding>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFound {
    pub node: PublicKey,
    /// The keys that it had before, by rotations that hold; the first one first.
    pub former: Vec<PublicKey>,
    pub organisation: String,
    pub country: Option<Country>,
    pub alliance: Option<AllianceId>,
    /// Only crossings that concern this country are in it.
    pub scope: Option<Country>,
    pub since: Timestamp,
    /// Entries disclosed, of how many.
    pub disclosed: u64,
    pub entries: u64,
    pub witnessed: Option<WitnessFound>,
}

/// What witnesses signed of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WitnessFound {
    pub entries: u64,
    /// Other countries in which a node signed.
    pub by: BTreeSet<Country>,
    /// In how many one must.
    pub needed: u32,
    /// When the last of them signed.
    pub at: Option<Timestamp>,
}

/// One crossing, as its halves have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CrossingFound {
    pub crossing: CrossingId,
    pub name: String,
    pub exporter: PublicKey,
    pub importer: PublicKey,
    pub from: Option<Country>,
    pub to: Option<Country>,
    pub manifest: Option<ManifestId>,
    pub purpose: Option<Purpose>,
    /// Bytes of the artefact that crossed, by the receipt.
    pub bytes: Option<u64>,
    pub began: Timestamp,
    pub outcome: Outcome,
    pub halves: Match,
}

/// How a crossing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The importer's own side denied it; nobody was asked.
    DeniedAtHome,
    /// The exporter refused.
    Refused(RefusalCode),
    /// Asked, and no answer is recorded.
    Unanswered,
    /// Cleared, and no end is recorded.
    Cleared,
    /// Everything came, and the exporter's signature under the receipt did not.
    Unsettled,
    /// Both signed the receipt.
    Settled,
    /// It was cleared, and the importer's own side denied it with what came with the clearance; nothing was taken.
    Declined,
    /// It was cleared and broke off.
    Failed,
}

/// Whether the two halves of a crossing agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Both are there and say the same.
    Both,
    /// The other side's file was not given.
    OneGiven,
    /// The other side's file was given, and by what it says of itself it does not cover this crossing.
    NotCovered,
    /// There is no other half: nobody was asked, or no answer came.
    OneExpected,
    /// Something is wrong; the findings say what.
    Wrong,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// In whose ledger.
    pub node: PublicKey,
    pub crossing: Option<CrossingId>,
    pub what: String,
}

/// What sort of wrong it is. The words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Something that must be there is not.
    Missing,
    /// It says something else than was signed, or than the other side has.
    Altered,
    /// It is not in the place in which it was recorded.
    Reordered,
    /// It has another time than that at which it was signed.
    BackDated,
    /// Two histories of one ledger.
    Forked,
    /// Not as many witnesses have signed it as the charter demands.
    Unwitnessed,
    /// Somebody says it who may not, or nobody has signed it.
    Untrusted,
}

impl FindingKind {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Altered => "altered",
            Self::Reordered => "reordered",
            Self::BackDated => "back_dated",
            Self::Forked => "forked",
            Self::Unwitnessed => "unwitnessed",
            Self::Untrusted => "untrusted",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Outcome {
    /// The word.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::DeniedAtHome => "denied at home".to_owned(),
            Self::Refused(code) => format!("refused: {code}"),
            Self::Unanswered => "unanswered".to_owned(),
            Self::Cleared => "cleared".to_owned(),
            Self::Unsettled => "unsettled".to_owned(),
            Self::Settled => "settled".to_owned(),
            Self::Declined => "declined by the importer".to_owned(),
            Self::Failed => "failed".to_owned(),
        }
    }
}
