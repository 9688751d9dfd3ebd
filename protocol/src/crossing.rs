//! What the two ends of a crossing say to each other, each signed: request, clearance or refusal, receipt.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    border::PartLabels,
    envelope::Statement,
    gate::Volume,
    id::{CrossingId, ManifestId, SessionBinding, Sha256, StatementId},
    key::PublicKey,
    limits,
    time::{Timestamp, Validity},
    vocabulary::{Circumstance, Country, Label, Purpose, Use},
};

/// The importer asks; by signing it says that its own law allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossingRequest {
    pub crossing: CrossingId,
    pub importer: PublicKey,
    pub exporter: PublicKey,
    pub offer: StatementId,
    pub manifest: ManifestId,
    /// Of which parts the importer wants what may cross, by their labels. All or nothing, where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartLabels>,
    pub purpose: Purpose,
    #[serde(rename = "use")]
    pub use_: Use,
    /// What the importer declares of the movement.
    pub circumstances: BTreeSet<Circumstance>,
    /// The bytes of signed [`crate::authority::Safeguard`]s.
    pub safeguards: Vec<serde_bytes::ByteBuf>,
    /// The bytes of the importer's signed accreditation.
    #[serde(with = "serde_bytes")]
    pub accreditation: Vec<u8>,
    /// BLAKE3 of the importer's recorded verdicts.
    pub verdicts: StatementId,
    pub session: SessionBinding,
    /// The importer's ledger when it asked.
    pub ledger: LedgerHead,
    pub asked: Timestamp,
}

/// The exporter permits one crossing, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearanceGiven {
    pub crossing: CrossingId,
    /// The request it answers.
    pub request: StatementId,
    pub exporter: PublicKey,
    pub importer: PublicKey,
    pub manifest: ManifestId,
    /// The labels that were decided on; what crosses has no others.
    pub labels: BTreeSet<Label>,
    /// The parts that may cross, by their labels. All, where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartLabels>,
    pub purpose: Purpose,
    /// The epochs of the law that was asked.
    pub epochs: Vec<(Country, u64)>,
    /// How many people the artefact is about, as the exporter declared.
    pub people: Option<u64>,
    /// What the exporter counted of this year, this crossing included; only it can know.
    pub volume: Volume,
    pub session: SessionBinding,
    /// The [`crate::training::Attestation`] that the offer names, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<serde_bytes::ByteBuf>,
    /// The exporter's ledger when it answered.
    pub ledger: LedgerHead,
    pub validity: Validity,
}

/// The exporter refuses. A stranger learns a code, no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub crossing: CrossingId,
    pub request: StatementId,
    pub exporter: PublicKey,
    pub code: RefusalCode,
    pub at: Timestamp,
}

/// What really crossed, signed by the importer and then by the exporter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    pub crossing: CrossingId,
    /// The clearance under which it crossed.
    pub clearance: StatementId,
    pub exporter: PublicKey,
    pub importer: PublicKey,
    pub manifest: ManifestId,
    /// Bytes of the artefact that this crossing moved.
    pub bytes: u64,
    /// Bytes of the artefact that the importer has from elsewhere: it held them before, or they came by another crossing.
    pub held_bytes: u64,
    /// The importer's ledger when all had come: with its acceptance of the clearance.
    pub ledger: LedgerHead,
    pub finished: Timestamp,
}

/// Why a crossing is refused, as far as the other side may know. The words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The request is not what the protocol allows.
    BadRequest,
    /// The asker is not accredited, or not any more.
    NotAccredited,
    /// A member's status has run out.
    Stale,
    /// The offer is unknown, ended or was withdrawn.
    NoOffer,
    /// A law, a directive or the baseline of the exporter's side denies.
    DeniedByLaw,
    /// The terms of the offer or a rule of the house deny.
    DeniedByTerms,
    /// The artefact on disk is not what its manifest says.
    Damaged,
    /// Too many crossings; ask again later.
    Busy,
    /// One side cannot record, or its witnesses cannot be reached, and so nothing is released.
    CannotRecord,
    /// What was allowed when it began is not allowed any more.
    Ended,
    /// The law allows under a duty that is not met: an approval or a piece of evidence is missing.
    ObligationUnmet,
    /// The ledger of one side proves nothing: it is not the newest, or contradicts itself, or that may be so.
    Unproven,
}

/// The head of a ledger: how many entries it has, and the Merkle root over them. Each side's stands in what it signs for a
/// crossing, so that either ledger holds heads of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerHead {
    pub size: u64,
    pub root: Sha256,
}

impl RefusalCode {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::NotAccredited => "not_accredited",
            Self::Stale => "stale",
            Self::NoOffer => "no_offer",
            Self::DeniedByLaw => "denied_by_law",
            Self::DeniedByTerms => "denied_by_terms",
            Self::Damaged => "damaged",
            Self::Busy => "busy",
            Self::CannotRecord => "cannot_record",
            Self::Ended => "ended",
            Self::ObligationUnmet => "obligation_unmet",
            Self::Unproven => "unproven",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Statement for CrossingRequest {
    const KIND: &'static str = "crossing-request";
    const BYTES_MAX: usize = limits::REQUEST_BYTES_MAX;
}

impl Statement for ClearanceGiven {
    const KIND: &'static str = "clearance";
    const BYTES_MAX: usize = limits::CLEARANCE_BYTES_MAX;
}

impl Statement for Refusal {
    const KIND: &'static str = "refusal";
}

impl Statement for Receipt {
    const KIND: &'static str = "receipt";
    /// The importer's and the exporter's.
    const SIGNATURES_MAX: usize = 2;
}
