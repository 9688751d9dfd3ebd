//! What the local operator can ask of a node, and the answers; the same types serve the local API and the CLI.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    PartTaken,
    transfers::{ScopedLimit, TransferCall, TransferView},
};
use crate::{
    authority::Approval,
    border::PartDecided,
    crossing::RefusalCode,
    gate::{Facts, PackOwner, Verdict, Volume},
    id::{AllianceId, CrossingId, ManifestId, Sha256, StatementId},
    key::PublicKey,
    manifest::Part,
    offer::{ModelOffer, Offered, Provenance, Terms},
    place::Place,
    time::Timestamp,
    training::{Code, Named},
    vocabulary::{Artefact, Circumstance, Country, Label, NodeRole, Process, Purpose, Seat, Tier, Use},
};

/// A question or an order of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum AdminCall {
    Status,
    /// Every version of the charter.
    Charter,
    /// What law that is known today will end when it comes into force.
    Outlook,
    Peers,
    Offers,
    Models,
    /// The models whose bytes may be read here now: without those that should be gone, whether or not they are.
    ReadableModels,
    Crossings,
    Crossing(CrossingId),
    /// The crossings that serve the same pull as this one.
    Sources(CrossingId),
    /// What waits for approval, and what was approved and refused.
    Approvals,
    /// Register a model whose manifest the shell has made.
    Import(Box<LocalModel>),
    /// The same, if the model of that name is still this one, or if there is none.
    Replace {
        model: Box<LocalModel>,
        before: Option<Box<LocalModel>>,
    },
    /// Publish an offer in this node's name.
    Publish(OfferDraft),
    Withdraw {
        offer: StatementId,
        reason: String,
    },
    Pull(PullCall),
    /// End a crossing that runs. What came is kept for a later attempt.
    Cancel(CrossingId),
    Transfers(TransferCall),
    /// `add-checkpoint` of C2SP `tlog-witness`, from a log that is not on the mesh.
    AddCheckpoint(serde_bytes::ByteBuf),
    /// The last checkpoint that this node signed of the log whose origin has this SHA-256, in lower-case hexadecimal.
    HeldCheckpoint {
        origin_hash: String,
    },
    /// Sign a step in the making of a model of this node.
    RecordStep(Box<StepDraft>),
    /// Roll up the steps behind a model of this node. `steps` and `accreditations` are of other nodes, given as files.
    Attest {
        name: String,
        steps: Vec<String>,
        accreditations: Vec<serde_bytes::ByteBuf>,
    },
    /// Where a model was trained.
    Training {
        name: String,
    },
    /// Take in statements, given as files: versions of the charter, statuses, law packs, and approvals of officers.
    Adopt(Vec<serde_bytes::ByteBuf>),
}

/// A model that lies at this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalModel {
    /// `organisation/name`.
    pub name: String,
    pub manifest: ManifestId,
    pub artefact: Artefact,
    /// The union of the labels of its parts.
    pub labels: BTreeSet<Label>,
    pub parts: Vec<Part>,
    pub origin: Country,
    pub subjects: BTreeSet<Country>,
    pub provenance: Provenance,
    pub licence: String,
    pub bytes: u64,
    pub files: u32,
    pub tensors: u32,
    /// The directory that holds its files, which stay where they are.
    pub path: PathBuf,
    /// The crossing it came by, or none where it was made or first imported here.
    pub crossing: Option<CrossingId>,
    /// Who signed it, where that was verified when it was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Box<SignedBy>>,
}

/// A verified signature over the files of a model (OpenSSF Model Signing).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBy {
    /// What the bundle names the model by.
    pub root: Sha256,
    /// [`crate::model_key::ModelVerifyingKey::hint`] of the key.
    pub key: String,
    /// The node to which the key is bound; none where the operator gave the key.
    pub node: Option<PublicKey>,
}

impl LocalModel {
    /// What an offer says of it.
    #[must_use]
    pub fn offered(&self) -> ModelOffer {
        ModelOffer {
            artefact: self.artefact,
            manifest: self.manifest,
            bytes: self.bytes,
            files: self.files,
            tensors: self.tensors,
            labels: self.labels.clone(),
            parts: self.parts.clone(),
            origin: self.origin,
            subjects: self.subjects.clone(),
            provenance: self.provenance.clone(),
            licence: self.licence.clone(),
        }
    }

    /// Whether an offer is of this model, with the facts that it has here.
    #[must_use]
    pub fn is_offered_as(&self, offer: &ModelOffer) -> bool {
        let facts = (self.manifest, self.artefact, &self.parts, self.origin, &self.subjects, &self.provenance);
        facts == (offer.manifest, offer.artefact, &offer.parts, offer.origin, &offer.subjects, &offer.provenance)
    }
}

/// A step that this node is to sign. Models and data are those that lie here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDraft {
    pub process: Process,
    /// As it was when the operator's program looked at it.
    pub product: Named,
    /// Files of the product that are named besides the whole, by path.
    pub files: Vec<(String, Sha256)>,
    pub code: Vec<Code>,
    pub parents: Vec<Named>,
    pub data: Vec<String>,
    /// To the second.
    pub started: Timestamp,
    pub finished: Timestamp,
}

/// What is known of where a model was trained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingView {
    /// The [`crate::training::Attestation`]; none where nothing is attested.
    pub attestation: Option<String>,
    /// Why it proves nothing now, if it does not.
    pub problem: Option<String>,
}

/// What the operator wants to offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferDraft {
    /// `organisation/name`. For a model: the name it was imported under.
    pub name: String,
    /// Compute to offer; none offers the model of that name.
    pub compute: Option<crate::offer::ComputeOffer>,
    pub terms: Terms,
    /// How long the offer stands, in milliseconds.
    pub ttl_ms: u64,
}

impl OfferDraft {
    /// How long an offer stands of which nothing else is said.
    pub const USUAL_MS: u64 = 30 * 24 * 60 * 60 * 1000;

    /// An offer of a model of which nothing is said: to all members, for all that the law admits, and not to be offered on.
    #[must_use]
    pub fn usual(name: &str) -> Self {
        let terms = Terms { purposes: BTreeSet::new(), to: BTreeSet::new(), onward: false };
        Self { name: name.to_owned(), compute: None, terms, ttl_ms: Self::USUAL_MS }
    }
}

/// What the operator wants to pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullCall {
    /// The name of an offer, or its id in hexadecimal.
    pub offer: String,
    pub purpose: Purpose,
    #[serde(rename = "use")]
    pub use_: Use,
    /// What is true of the movement: it will reach the public, ...
    pub circumstances: BTreeSet<Circumstance>,
    /// The bytes of signed safeguards.
    pub safeguards: Vec<serde_bytes::ByteBuf>,
    /// Where the files shall go; absolute.
    pub to: PathBuf,
    /// Peers to pull from at a time, at the most: the one of the offer, and others that offer the same on.
    pub sources: u32,
    /// Whether to offer it on while it comes and afterwards.
    pub onward: bool,
    /// What is wanted of it: patterns of the names of tensors and files. All, where none; otherwise what may not cross is
    /// left out.
    pub tensors: Vec<String>,
    /// Whether somebody reads what comes while it comes, in an order of their own.
    #[serde(default)]
    pub read_meanwhile: bool,
}

/// The answer to an [`AdminCall`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Reply {
    Status(Box<NodeStatus>),
    /// The log of the charter, as [`crate::charter::Chartered::open`] reads it.
    Charter {
        log: serde_bytes::ByteBuf,
    },
    Outlook(OutlookView),
    Peers(Vec<PeerView>),
    Offers(Vec<OfferView>),
    Models(Vec<LocalModel>),
    /// A signed step: one line of JSON.
    Step {
        line: String,
        /// What stands in the way of attesting it.
        note: Option<String>,
    },
    Training(Box<TrainingView>),
    Crossings(Vec<CrossingView>),
    Crossing(Box<CrossingView>),
    Approvals {
        pending: Vec<PendingApproval>,
        standing: Vec<ApprovalView>,
    },
    /// What HTTP would carry.
    Witness {
        status: u16,
        content_type: String,
        body: String,
    },
    Imported(Box<LocalModel>),
    Published(Box<OfferView>),
    Withdrawn {
        offer: StatementId,
    },
    /// The crossing has begun or was refused; `Crossing` tells how it goes on.
    Pulling {
        crossing: CrossingId,
    },
    Cancelled {
        crossing: CrossingId,
    },
    Transfers(Vec<TransferView>),
    Limits(Vec<ScopedLimit>),
    Adopted {
        accepted: u32,
        known: u32,
    },
    Failed(Failure),
}

/// Why a call was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

/// Whose fault it is, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The call makes no sense.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// It exists already, or is in a state that does not allow this.
    Conflict,
    /// A statement was not believed.
    Untrusted,
    /// Too much at once.
    Busy,
    /// The node itself could not do it (disk, ledger).
    Internal,
}

/// The state of a node on one screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeStatus {
    pub version: String,
    pub node: PublicKey,
    /// The keys that it had before, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<PublicKey>,
    pub alliance: AllianceId,
    pub alliance_name: String,
    pub country: Country,
    pub organisation: String,
    pub roles: BTreeSet<NodeRole>,
    pub accredited_until: Timestamp,
    /// The version of the charter in force.
    pub charter: u32,
    /// What the alliance must be asked about, if anything: its members have signed two versions of one number.
    pub charter_alarm: Option<String>,
    /// Why this node may take part in nothing now, if it may not.
    pub problem: Option<String>,
    pub mesh_addresses: Vec<String>,
    pub bulk_addresses: Vec<String>,
    /// Where clients of the node's machine reach it, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    pub peers_admitted: u32,
    pub offers: u32,
    pub models: u32,
    pub crossings_running: u32,
    pub ledger_size: u64,
    pub witnessed: WitnessedView,
    /// How many people's data this node has sent abroad this year.
    pub volume: Volume,
    /// Nodes that cannot be where they are said to be, by what was measured here.
    pub misplaced: Vec<Misplaced>,
    pub members: Vec<MemberView>,
    /// Bytes of artefacts put on the wire since the daemon started, counted where they are written.
    pub artefact_bytes_sent: u64,
    /// Bytes of UDP payload that the bulk socket sent since the daemon started.
    pub bulk_socket_bytes_sent: u64,
    /// Microseconds of wall-clock time spent on decisions since the daemon started: on all that Core was handed.
    pub deciding_us: u64,
    /// Microseconds of wall-clock time spent on records since the daemon started, until the disk had them.
    pub recording_us: u64,
    pub now: Timestamp,
}

/// What others have signed of this node's ledger, and what this node thinks of theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessedView {
    /// In how many other countries a node must sign; 0 where the charter demands none.
    pub needed: u32,
    /// Milliseconds for which entries may stand without them.
    pub grace_ms: u64,
    /// Entries that enough countries have signed.
    pub size: u64,
    /// Which countries signed these; empty where that was before the start.
    pub by: BTreeSet<Country>,
    pub at: Option<Timestamp>,
    /// When the oldest entry was recorded that they have not signed.
    pub unwitnessed_since: Option<Timestamp>,
    /// Why nothing crosses because of it, if nothing does.
    pub problem: Option<String>,
    /// Nodes whose ledgers are not relied on, and why.
    pub doubts: BTreeMap<PublicKey, String>,
}

/// A node that cannot be where it is said to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Misplaced {
    pub node: PublicKey,
    pub organisation: String,
    pub why: String,
}

/// What this node knows of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberView {
    pub country: Country,
    pub authority: String,
    /// What it may do in the alliance.
    pub seat: Seat,
    /// The epoch of the law pack in force, if one is known.
    pub epoch: Option<u64>,
    /// When the newest status runs out, if one is known.
    pub status_until: Option<Timestamp>,
    /// Milliseconds for which crossings that run then may go on.
    pub grace_ms: u64,
    /// Whether crossings with this member are possible now.
    pub fresh: bool,
    pub revoked: u32,
    /// What its authority must be asked about, if anything: it has contradicted itself.
    pub alarm: Option<String>,
}

/// What law that is known today will do to what stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutlookView {
    /// The instants at which law changes, the next one first.
    pub turns: Vec<Turn>,
    /// Whether everything was looked at; where there is very much, some may be missing.
    pub complete: bool,
}

/// One instant at which law changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    pub at: Timestamp,
    pub causes: Vec<String>,
    /// What is possible until then and not from then on.
    pub endings: Vec<Ending>,
}

/// A crossing or an offer that ends by a change of law.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    pub of: EndingOf,
    pub name: String,
    /// The country of the other side.
    pub country: Country,
    /// Of an offer: the purposes for which it does not cross any more, without safeguards.
    pub purposes: BTreeSet<Purpose>,
    pub why: String,
}

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndingOf {
    Crossing(CrossingId),
    Offer(StatementId),
}

/// A crossing that was denied because not enough have approved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingApproval {
    /// The last that was denied.
    pub crossing: CrossingId,
    /// Earlier ones of the same question.
    pub earlier: Vec<CrossingId>,
    pub name: String,
    pub manifest: ManifestId,
    pub exporter: PublicKey,
    pub importer: PublicKey,
    pub from: Country,
    pub to: Country,
    pub purpose: Purpose,
    #[serde(rename = "use")]
    pub use_: Use,
    pub denied: Timestamp,
    pub needed: Vec<NeededApproval>,
}

/// Whose approval the rules of one pack demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeededApproval {
    pub on_behalf: PackOwner,
    /// How many must approve.
    pub officers: u32,
    /// Those whose word counts.
    pub approvers: Vec<Approver>,
}

/// Somebody whose word counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    pub key: PublicKey,
    /// The name, where the authority has given one.
    pub name: String,
    /// The last word; none where there is none.
    pub granted: Option<bool>,
}

/// An approval or a refusal that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalView {
    /// The hash of its bytes.
    pub approval: StatementId,
    pub body: Approval,
    pub by: Vec<Approver>,
}

/// A node that this one knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerView {
    pub node: PublicKey,
    pub country: Country,
    pub organisation: String,
    pub connected: bool,
    /// Why it has no standing now, if it has none.
    pub problem: Option<String>,
    /// How well it is established where it is, by its authority.
    pub tier: Tier,
    /// Where it is said to stand.
    pub place: Option<Place>,
    /// Why it cannot be there, where that was measured. It counts as `declared` then.
    pub place_alarm: Option<String>,
    /// The key with which it signs models, in PEM, if it has said which.
    pub model_key: Option<String>,
    pub mesh_addresses: Vec<String>,
    pub bulk_addresses: Vec<String>,
}

/// An offer with what would become of it here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferView {
    pub offer: StatementId,
    pub name: String,
    pub node: PublicKey,
    pub country: Country,
    pub organisation: String,
    pub own: bool,
    pub what: Offered,
    pub terms: Terms,
    /// From when on it stands: of several of one name by one node, the newest is meant.
    pub from: Timestamp,
    pub until: Timestamp,
    /// The offer that it goes back to, where the node offers on what it got.
    pub root: Option<StatementId>,
    /// Whether it could cross to this node without safeguards, for each purpose. Empty for own and compute offers.
    pub preview: Vec<(Purpose, bool)>,
}

/// A crossing as this node recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossingView {
    pub crossing: CrossingId,
    pub side: Side,
    pub state: CrossingState,
    pub peer: PublicKey,
    pub offer: StatementId,
    pub name: String,
    pub manifest: ManifestId,
    /// What the packs were asked; none where it did not come to that.
    pub facts: Option<Facts>,
    pub verdicts: Vec<Arc<Verdict>>,
    /// What was said of each part of the artefact.
    pub parts: Vec<PartDecided>,
    /// Whether what may cross was asked for, and not all of it or nothing.
    pub partial: bool,
    /// Parts that were left out, and numbers of verdicts in `against`: none where the other side left them out.
    pub left_out: Vec<PartDecided>,
    /// What spoke against the parts that were left out here.
    pub against: Vec<Arc<Verdict>>,
    /// What of the artefact came, where only a part was wanted.
    pub part: Option<PartTaken>,
    /// The refusal of this or the other side.
    pub refusal: Option<RefusalCode>,
    /// What went wrong, for the operator.
    pub problem: Option<String>,
    /// Safeguards that were presented and did not count, and why.
    pub safeguards_ignored: Vec<String>,
    pub began: Timestamp,
    pub ended: Option<Timestamp>,
    /// Bytes that this crossing moved so far.
    pub bytes: u64,
    /// Bytes that there are to move, once known.
    pub total: u64,
    /// The directory it was delivered to, on the importer's side.
    pub to: Option<PathBuf>,
    /// The first crossing of the pull that this one serves, where that is another: the artefact comes from several peers.
    pub lead: Option<CrossingId>,
    /// When it has to be gone from here, where a duty says so.
    pub delete_by: Option<Timestamp>,
    /// When it was deleted, in fulfilment of that duty.
    pub deleted: Option<Timestamp>,
}

impl CrossingView {
    /// Whether what was to cross is here, or was sent.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, CrossingState::Done | CrossingState::DoneUnsettled)
    }

    /// Of the crossings that serve one pull, the one that says how it ended: one that is done, or else the last that broke off
    /// and not one that was refused, or else the first that was asked.
    pub fn decisive<'a>(views: impl IntoIterator<Item = &'a Self> + Clone) -> Option<&'a Self> {
        let all = || views.clone().into_iter();
        let broke_off = all().filter(|view| view.state == CrossingState::Failed).max_by_key(|view| view.ended);
        all().find(|view| view.is_done()).or(broke_off).or_else(|| all().min_by_key(|view| view.lead.is_some()))
    }
}

/// Which end of a crossing this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Exporter,
    Importer,
}

/// How far a crossing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrossingState {
    /// Importer: connecting.
    Reaching,
    /// Importer: asked, no answer yet.
    Asked,
    /// Cleared; bytes may be moving.
    Cleared,
    /// Importer: everything is verified and being put in place.
    Delivering,
    /// Importer: in place; the exporter's signature under the receipt is awaited.
    Delivered,
    /// Both sides signed the receipt.
    Done,
    /// Delivered, but the exporter's signature under the receipt did not come.
    DoneUnsettled,
    /// This side's or the other side's decision was no.
    Denied,
    /// It was cleared and broke off.
    Failed,
}

impl CrossingState {
    /// Whether nothing more will happen to it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::DoneUnsettled | Self::Denied | Self::Failed)
    }
}
