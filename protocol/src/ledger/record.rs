//! What a node records: a closed list, with the instant, in one encoding (canonical DAG-CBOR).
//!
//! Statements are recorded as the bytes that were verified, so that an auditor can verify them again, offline, years later.
//! What is only the node's own word (facts, verdicts, reasons) stands beside them.

use std::{borrow::Cow, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest as _, Sha256 as Hasher};

use super::leaf_hash;
use crate::{
    border::Decision,
    core::{
        PartTaken,
        admin::{LocalModel, Side},
    },
    envelope::recorded_body,
    gate::Pack,
    id::{CrossingId, ManifestId, Sha256, StatementId},
    key::PublicKey,
    limits,
    place::Place,
    rotation::KeyRotation,
    time::Timestamp,
};

/// Bytes of one encoded entry: the largest statement or request, with an offer, facts and verdicts of every member.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

const _: () = assert!(limits::LAW_PACK_BYTES_MAX + limits::REQUEST_BYTES_MAX < RECORD_BYTES_MAX);

/// Bytes of one leaf: what a length of 16 bits can say in a C2SP entry bundle.
pub const LEAF_BYTES_MAX: usize = 65_535;

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When it was recorded, by the node's clock.
    pub at: Timestamp,
    pub record: Record,
}

/// What happened. Fields of type `ByteBuf` are the bytes of signed statements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Record {
    /// The alliance that this node belongs to.
    Founded { charter: ByteBuf },
    /// The next version of the charter was accepted; no older one will be.
    CharterAccepted { charter: ByteBuf },
    /// This node's own accreditation.
    Accredited { accreditation: ByteBuf },
    /// The rules that are nobody's statement and that this node goes by from now on: the baseline of its release, and those of
    /// its house.
    RulesLoaded { baseline: PackText, house: Option<PackText> },
    /// A member's status was accepted; no older one will be.
    StatusAccepted { status: ByteBuf },
    /// A member's law pack was accepted; no older one will be.
    PackAccepted { pack: ByteBuf },
    /// This node's key made way for another; from here on the ledger is signed by that one.
    KeyRotated { rotation: ByteBuf },
    /// Another node's key made way for another.
    RotationAccepted { rotation: ByteBuf },
    /// Officers approved crossings of this node.
    ApprovalAccepted { approval: ByteBuf },
    /// A step in the making of a model of this node: the envelope, as a line of JSON ([`crate::training::SignedStep`]).
    StepRecorded { step: ByteBuf },
    /// The steps behind a model of this node, rolled up ([`crate::training::Attestation`]).
    TrainingAttested { attestation: ByteBuf },
    /// A model was registered, or came by a crossing.
    ModelImported { model: LocalModel },
    /// This node published an offer.
    OfferPublished { offer: ByteBuf },
    /// This node took an offer back.
    OfferWithdrawn { withdrawal: ByteBuf },
    /// Importer: its own side allows; the request is about to be sent.
    Requested {
        crossing: CrossingId,
        request: ByteBuf,
        name: String,
        offer: ByteBuf,
        decision: Decision,
        /// Where the files shall go.
        to: PathBuf,
    },
    /// Importer: its own side denies; nothing was sent.
    RequestDenied {
        crossing: CrossingId,
        name: String,
        offer: StatementId,
        peer: PublicKey,
        manifest: ManifestId,
        /// Whether only a part was wanted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partial: bool,
        decision: Decision,
    },
    /// Exporter: the crossing may happen; the clearance is about to be sent.
    Cleared { crossing: CrossingId, request: ByteBuf, clearance: ByteBuf, name: String, decision: Decision },
    /// Exporter: the crossing may not happen; the refusal is about to be sent.
    Refused {
        crossing: CrossingId,
        peer: PublicKey,
        /// Empty where what the peer sent is not a believable request.
        request: ByteBuf,
        refusal: ByteBuf,
        name: String,
        decision: Decision,
    },
    /// Importer: the exporter's clearance was verified, and this side decided again with what the exporter counted.
    ClearanceAccepted { crossing: CrossingId, clearance: ByteBuf, decision: Decision },
    /// Importer: the exporter's clearance was verified; decided again with what came with it, this side denies.
    ClearanceDeclined { crossing: CrossingId, clearance: ByteBuf, decision: Decision },
    /// Importer: the exporter's refusal was verified.
    RefusalAccepted { crossing: CrossingId, refusal: ByteBuf },
    /// Importer: everything arrived and was verified; the receipt has this node's signature. Nothing is delivered yet.
    Received {
        crossing: CrossingId,
        receipt: ByteBuf,
        /// What it is, where only a part was wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<PartTaken>,
    },
    /// Importer: the part of an artefact that was wanted is in its place. It is no model that could be offered on.
    PartDelivered { crossing: CrossingId },
    /// Either side: the receipt has both signatures.
    Settled { crossing: CrossingId, receipt: ByteBuf },
    /// Importer: what came was deleted, in fulfilment of a duty that came with it.
    Deleted { crossing: CrossingId },
    /// A node has signed two histories of its ledger; both checkpoints are the proof.
    ForkFound { node: PublicKey, first: String, second: String },
    /// An answer of a node came sooner than light from the place that its accreditation names: seen from this node's own.
    PlaceContradicted {
        node: PublicKey,
        place: Place,
        seen_from: Place,
        /// Microseconds from the question to the answer.
        round_trip_us: u64,
    },
    /// Either side: it was allowed, and did not come to its end.
    CrossingFailed {
        crossing: CrossingId,
        side: Side,
        /// Bytes of the artefact that this crossing moved.
        bytes: u64,
        problem: String,
        /// Whether bytes arrived that are not what the manifest says.
        tampered: bool,
    },
}

/// What stands in the tree for an entry that is longer than a leaf may be: its hash.
#[derive(Debug, Serialize)]
struct Detached<'a> {
    at: Timestamp,
    /// The kind of its record.
    detached: &'a str,
    /// Its length in bytes.
    length: usize,
    /// SHA-256 of its encoding.
    sha256: Sha256,
}

/// The text of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackText {
    pub epoch: u64,
    pub law: String,
    pub directives: String,
}

impl From<&Pack> for PackText {
    fn from(pack: &Pack) -> Self {
        Self { epoch: pack.epoch, law: pack.law.to_string(), directives: pack.directives.to_string() }
    }
}

/// Why an entry cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("an entry of {bytes} bytes is larger than the {max} that one may have", max = RECORD_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("the entry cannot be encoded: {0}")]
    Encode(String),
    #[error("not an entry that this version knows: {0}")]
    Decode(String),
}

impl Entry {
    /// Its one encoding.
    ///
    /// # Errors
    /// It is too large, or holds a path that is not UTF-8.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let bytes = serde_ipld_dagcbor::to_vec(self).map_err(|error| EntryError::Encode(error.to_string()))?;
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// The leaf of the tree that stands for this entry, whose encoding `bytes` are: these bytes, or, where they are more than
    /// [`LEAF_BYTES_MAX`], a short map that names their hash.
    ///
    /// # Errors
    /// That map cannot be encoded.
    pub fn leaf<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, EntryError> {
        if bytes.len() <= LEAF_BYTES_MAX {
            return Ok(Cow::Borrowed(bytes));
        }
        let sha256 = Sha256(Hasher::digest(bytes).into());
        let detached = Detached { at: self.at, detached: self.record.kind(), length: bytes.len(), sha256 };
        let leaf = serde_ipld_dagcbor::to_vec(&detached).map_err(|error| EntryError::Encode(error.to_string()))?;
        Ok(Cow::Owned(leaf))
    }

    /// The hash of its leaf; `bytes` are its encoding.
    ///
    /// # Errors
    /// As [`Self::leaf`].
    pub fn leaf_hash(&self, bytes: &[u8]) -> Result<Sha256, EntryError> {
        Ok(leaf_hash(&self.leaf(bytes)?))
    }

    /// Reads an entry; it must be in its one encoding.
    ///
    /// # Errors
    /// It is too large, or not such an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: bytes.len() });
        }
        let entry: Self = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| EntryError::Decode(error.to_string()))?;
        if entry.encode()? == bytes { Ok(entry) } else { Err(EntryError::Decode("not the canonical encoding".to_owned())) }
    }
}

impl Record {
    /// The name of the variant, as it is encoded; for lists and filters.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Founded { .. } => "founded",
            Self::CharterAccepted { .. } => "charter_accepted",
            Self::Accredited { .. } => "accredited",
            Self::RulesLoaded { .. } => "rules_loaded",
            Self::StatusAccepted { .. } => "status_accepted",
            Self::PackAccepted { .. } => "pack_accepted",
            Self::KeyRotated { .. } => "key_rotated",
            Self::RotationAccepted { .. } => "rotation_accepted",
            Self::ApprovalAccepted { .. } => "approval_accepted",
            Self::StepRecorded { .. } => "step_recorded",
            Self::TrainingAttested { .. } => "training_attested",
            Self::ModelImported { .. } => "model_imported",
            Self::OfferPublished { .. } => "offer_published",
            Self::OfferWithdrawn { .. } => "offer_withdrawn",
            Self::Requested { .. } => "requested",
            Self::RequestDenied { .. } => "request_denied",
            Self::Cleared { .. } => "cleared",
            Self::Refused { .. } => "refused",
            Self::ClearanceAccepted { .. } => "clearance_accepted",
            Self::ClearanceDeclined { .. } => "clearance_declined",
            Self::RefusalAccepted { .. } => "refusal_accepted",
            Self::Received { .. } => "received",
            Self::PartDelivered { .. } => "part_delivered",
            Self::Settled { .. } => "settled",
            Self::Deleted { .. } => "deleted",
            Self::ForkFound { .. } => "fork_found",
            Self::PlaceContradicted { .. } => "place_contradicted",
            Self::CrossingFailed { .. } => "crossing_failed",
        }
    }

    /// The decision that it records.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Requested { decision, .. }
            | Self::RequestDenied { decision, .. }
            | Self::Cleared { decision, .. }
            | Self::Refused { decision, .. }
            | Self::ClearanceAccepted { decision, .. }
            | Self::ClearanceDeclined { decision, .. } => Some(decision),
            _ => None,
        }
    }

    /// What this node's key made way for, where the record is of that.
    #[must_use]
    pub fn key_rotation(&self) -> Option<KeyRotation> {
        match self {
            Self::KeyRotated { rotation } => recorded_body(rotation),
            _ => None,
        }
    }

    /// The crossing that it is about, for lists and filters.
    #[must_use]
    pub fn crossing(&self) -> Option<CrossingId> {
        match self {
            Self::Founded { .. }
            | Self::CharterAccepted { .. }
            | Self::Accredited { .. }
            | Self::RulesLoaded { .. }
            | Self::StatusAccepted { .. }
            | Self::PackAccepted { .. }
            | Self::KeyRotated { .. }
            | Self::RotationAccepted { .. }
            | Self::ApprovalAccepted { .. }
            | Self::OfferPublished { .. }
            | Self::OfferWithdrawn { .. }
            | Self::ForkFound { .. }
            | Self::PlaceContradicted { .. }
            | Self::StepRecorded { .. }
            | Self::TrainingAttested { .. } => None,
            Self::ModelImported { model } => model.crossing,
            Self::Requested { crossing, .. }
            | Self::RequestDenied { crossing, .. }
            | Self::Cleared { crossing, .. }
            | Self::Refused { crossing, .. }
            | Self::ClearanceAccepted { crossing, .. }
            | Self::ClearanceDeclined { crossing, .. }
            | Self::RefusalAccepted { crossing, .. }
            | Self::Received { crossing, .. }
            | Self::PartDelivered { crossing }
            | Self::Settled { crossing, .. }
            | Self::Deleted { crossing }
            | Self::CrossingFailed { crossing, .. } => Some(*crossing),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    use super::*;
    use crate::{
        border::{Denial, PartDecided},
        core::admin::SignedBy,
        crossing::{CrossingRequest, LedgerHead, RefusalCode},
        envelope::Signed,
        gate::{Action, Facts, Grant, PackOwner, Party, People, RuleCited, RuleNature, RuleRole, Verdict, Volume},
        id::{AllianceId, ManifestId, SessionBinding, StatementId},
        key::{PublicKey, SecretKey},
        manifest::Part,
        vocabulary::{Artefact, Circumstance, Country, Label, OrganisationRole, Purpose, SafeguardKind, Tier, Use, Zone},
    };

    const CROSSING: CrossingId = CrossingId([3; 32]);
    const AT: Timestamp = Timestamp(1_790_000_000_000);

    fn country(code: &str) -> Country {
        code.parse().expect("a country")
    }

    fn party(code: &str) -> Party {
        Party {
            country: country(code),
            zone: Some(Zone::AeDifc),
            organisation: "usp".into(),
            roles: BTreeSet::from([OrganisationRole::University, OrganisationRole::Controller]),
            controlled_by: country(code),
            state_controlled: true,
            tier: Tier::Corroborated,
        }
    }

    fn facts() -> Facts {
        Facts {
            from: party("BR"),
            to: party("IN"),
            artefact: Artefact::Weights,
            labels: BTreeSet::from([Label::Health, Label::Genetic]),
            origin: country("BR"),
            trained_in: Some(BTreeSet::from([country("BR"), country("IN")])),
            subjects: BTreeSet::from([country("BR"), country("ZA")]),
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: BTreeSet::from([Circumstance::Collection]),
            volume: Volume { people: People::new(7), sensitive_people: People::UNKNOWN },
            bans: BTreeSet::from([country("ZA")]),
            safeguards: BTreeMap::from([(
                country("BR"),
                BTreeMap::from([(
                    SafeguardKind::SccBr,
                    Grant { rules: BTreeSet::from(["BR-01".to_owned()]), since: AT, filed: Some(AT) },
                )]),
            )]),
        }
    }

    fn verdicts() -> Vec<Arc<Verdict>> {
        let rule = RuleCited {
            id: "br.lgpd.33".into(),
            title: "International transfer".into(),
            role: RuleRole::Denies,
            nature: RuleNature::Law,
            citation: "LGPD, art. 33".into(),
            native: "Lei n\u{ba} 13.709/2018, art. 33".into(),
            since: "2020-09-18".into(),
            confidence: "high".into(),
            remedies: vec![BTreeSet::from([SafeguardKind::SccBr])],
        };
        let mut verdict = Verdict::failed(PackOwner::Member(country("BR")), 4, Action::Export, "unreadable".into());
        verdict.rules.push(rule.into());
        vec![verdict.into(), Verdict::failed(PackOwner::House, 0, Action::Import, String::new()).into()]
    }

    fn request() -> Vec<u8> {
        let key = SecretKey::from_seed(&[1; 32]);
        let request = CrossingRequest {
            crossing: CROSSING,
            importer: key.public(),
            exporter: key.public(),
            offer: StatementId([1; 32]),
            manifest: ManifestId([2; 32]),
            parts: None,
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: BTreeSet::new(),
            safeguards: vec![],
            accreditation: vec![1, 2, 3],
            verdicts: StatementId([4; 32]),
            session: SessionBinding([5; 32]),
            ledger: LedgerHead { size: 1, root: Sha256([6; 32]) },
            asked: AT,
        };
        Signed::sign(&request, AllianceId([9; 32]), &key).expect("signs").bytes().to_vec()
    }

    fn model() -> LocalModel {
        LocalModel {
            name: "usp/amazonia".into(),
            manifest: ManifestId([2; 32]),
            artefact: Artefact::Weights,
            labels: facts().labels,
            parts: Part::alone(facts().labels, 400, 1 << 40),
            origin: country("BR"),
            subjects: facts().subjects,
            provenance: crate::offer::Provenance::default(),
            licence: "Apache-2.0".into(),
            bytes: 1 << 40,
            files: 3,
            tensors: 400,
            path: "/srv/models/amazonia".into(),
            crossing: None,
            signed: Some(Box::new(SignedBy {
                root: Sha256([4; 32]),
                key: "ab".to_owned(),
                node: Some(PublicKey([1; 32])),
            })),
        }
    }

    fn part() -> PartTaken {
        PartTaken { manifest: ManifestId([8; 32]), bytes: 1 << 30, files: 1, tensors: 40, left_out: 2 }
    }

    #[test]
    fn a_long_entry_is_a_short_leaf() {
        let entry = |length| Entry { at: AT, record: Record::PackAccepted { pack: vec![7; length].into() } };
        let short = entry(60_000);
        let bytes = short.encode().expect("encodes");
        assert_eq!(short.leaf(&bytes).expect("a leaf"), bytes);
        let (long, other) = (entry(70_000), entry(70_001));
        let bytes = long.encode().expect("encodes");
        let leaf = long.leaf(&bytes).expect("a leaf").into_owned();
        let sha256 = Sha256(Hasher::digest(&bytes).into());
        let expected = Detached { at: AT, detached: "pack_accepted", length: bytes.len(), sha256 };
        assert_eq!(leaf, serde_ipld_dagcbor::to_vec(&expected).expect("encodes"));
        assert!(leaf.len() < 200 && Entry::decode(&leaf).is_err(), "it cannot pass as an entry");
        let hash = |entry: &Entry| entry.leaf_hash(&entry.encode().expect("encodes")).expect("a leaf");
        assert_ne!(hash(&long), hash(&other));
    }

    /// One of each kind, with the crossing that it is about.
    fn samples() -> Vec<(Record, Option<CrossingId>)> {
        let (crossing, name, bytes) = (CROSSING, "usp/amazonia".to_owned(), ByteBuf::from(vec![7; 40]));
        let peer = PublicKey([6; 32]);
        let problem = "no ground".to_owned();
        let decision = Decision {
            facts: Some(facts()),
            direct: Some(facts()),
            verdicts: verdicts(),
            parts: vec![PartDecided { part: model().parts[0].clone(), verdicts: [0, 1].into() }],
            left_out: vec![PartDecided { part: model().parts[0].clone(), verdicts: [1].into() }],
            against: verdicts(),
            ignored: vec!["expired".to_owned()],
            denial: Some(Denial { code: RefusalCode::DeniedByLaw, problem: problem.clone() }),
        };
        let own = vec![
            Record::Founded { charter: bytes.clone() },
            Record::Accredited { accreditation: bytes.clone() },
            Record::RulesLoaded {
                baseline: PackText {
                    epoch: 1,
                    law: "permit (principal, action, resource);".into(),
                    directives: String::new(),
                },
                house: Some(PackText { epoch: 0, law: String::new(), directives: String::new() }),
            },
            Record::StatusAccepted { status: bytes.clone() },
            Record::PackAccepted { pack: bytes.clone() },
            Record::KeyRotated { rotation: bytes.clone() },
            Record::RotationAccepted { rotation: bytes.clone() },
            Record::ApprovalAccepted { approval: bytes.clone() },
            Record::StepRecorded { step: bytes.clone() },
            Record::TrainingAttested { attestation: bytes.clone() },
            Record::ModelImported { model: model() },
            Record::OfferPublished { offer: bytes.clone() },
            Record::OfferWithdrawn { withdrawal: bytes.clone() },
            Record::ForkFound { node: peer, first: "one".to_owned(), second: "other".to_owned() },
            Record::PlaceContradicted {
                node: peer,
                place: Place::new(-23_551, -46_633).expect("a place"),
                seen_from: Place::new(28_614, 77_209).expect("a place"),
                round_trip_us: 9,
            },
        ];
        let of_a_crossing = vec![
            Record::ModelImported { model: LocalModel { crossing: Some(crossing), ..model() } },
            Record::Requested {
                crossing,
                request: request().into(),
                name: name.clone(),
                offer: bytes.clone(),
                decision: decision.clone(),
                to: "/srv/in".into(),
            },
            Record::RequestDenied {
                crossing,
                name: name.clone(),
                offer: StatementId([1; 32]),
                peer,
                manifest: ManifestId([2; 32]),
                partial: true,
                decision: decision.clone(),
            },
            Record::Cleared {
                crossing,
                request: request().into(),
                clearance: bytes.clone(),
                name: name.clone(),
                decision: decision.clone(),
            },
            Record::Refused {
                crossing,
                peer,
                request: ByteBuf::new(),
                refusal: bytes.clone(),
                name,
                decision: decision.clone(),
            },
            Record::ClearanceAccepted { crossing, clearance: bytes.clone(), decision: decision.clone() },
            Record::ClearanceDeclined { crossing, clearance: bytes.clone(), decision: decision.clone() },
            Record::RefusalAccepted { crossing, refusal: bytes.clone() },
            Record::Received { crossing, receipt: bytes.clone(), part: None },
            Record::Received { crossing, receipt: bytes.clone(), part: Some(part()) },
            Record::PartDelivered { crossing },
            Record::Settled { crossing, receipt: bytes },
            Record::Deleted { crossing },
            Record::CrossingFailed { crossing, side: Side::Importer, bytes: u64::MAX, problem, tampered: true },
        ];
        let own = own.into_iter().map(|record| (record, None));
        own.chain(of_a_crossing.into_iter().map(|record| (record, Some(CROSSING)))).collect()
    }

    #[test]
    fn every_kind_round_trips_and_is_named_as_it_is_encoded() {
        let mut kinds = BTreeSet::new();
        for (record, crossing) in samples() {
            assert_eq!(record.crossing(), crossing, "{}", record.kind());
            let entry = Entry { at: AT, record };
            let bytes = entry.encode().expect("encodes");
            assert_eq!(Entry::decode(&bytes).as_ref(), Ok(&entry));
            // A map of two (`at`, `record`), and in `record` a map of one, from the kind.
            let kind = entry.record.kind();
            let named = [&[0x60 | u8::try_from(kind.len().min(23)).expect("small")], kind.as_bytes()].concat();
            assert!(bytes.windows(named.len()).any(|window| window == named), "{kind}");
            kinds.insert(kind);
        }
        assert_eq!(kinds.len(), 27);
    }

    #[test]
    fn the_encoding_does_not_change() {
        let entry = Entry {
            at: Timestamp(1000),
            record: Record::Received { crossing: CROSSING, receipt: vec![1, 2].into(), part: None },
        };
        let expected = format!("a26261741903e8667265636f7264a1687265636569766564a2677265636569707442010268{}", {
            format!("{}5820{}", hex::encode("crossing"), "03".repeat(32))
        });
        assert_eq!(hex::encode(entry.encode().expect("encodes")), expected);
    }

    #[test]
    fn damaged_entries_do_not_pass_and_do_not_panic() {
        for (record, _) in samples() {
            let entry = Entry { at: AT, record };
            let bytes = entry.encode().expect("encodes");
            for length in 0..bytes.len() {
                assert!(Entry::decode(&bytes[..length]).is_err(), "{} cut to {length}", entry.record.kind());
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(Entry::decode(&longer).is_err());
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x20;
                if let Ok(other) = Entry::decode(&bad) {
                    assert_ne!(other, entry);
                }
            }
        }
    }

    #[test]
    fn another_spelling_is_refused() {
        let entry = Entry { at: Timestamp(5), record: Record::Founded { charter: ByteBuf::new() } };
        let bytes = entry.encode().expect("encodes");
        // The 5 of `at` in two bytes instead of one; `record` before `at`; a field that no version knows.
        let text = hex::encode(&bytes);
        let (at, record) = ("62617405", text.strip_prefix("a262617405").expect("`at` comes first"));
        for bad in [format!("a26261741805{record}"), format!("a2{record}{at}"), format!("a3{at}6162f6{record}")] {
            assert!(Entry::decode(&hex::decode(&bad).expect("hex")).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let large = Entry { at: AT, record: Record::Founded { charter: vec![0; RECORD_BYTES_MAX].into() } };
        assert!(matches!(large.encode(), Err(EntryError::TooLarge { .. })));
        assert!(matches!(Entry::decode(&vec![0; RECORD_BYTES_MAX + 1]), Err(EntryError::TooLarge { .. })));
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStringExt as _;
            let path = PathBuf::from(std::ffi::OsString::from_vec(vec![b'/', 0xff]));
            let odd = Entry { at: AT, record: Record::ModelImported { model: LocalModel { path, ..model() } } };
            assert!(matches!(odd.encode(), Err(EntryError::Encode(_))));
        }
    }
}
