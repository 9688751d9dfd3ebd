//! What can wake a node, and what a node can do: two closed lists.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::admin::{AdminCall, Reply};
use crate::{
    border::{Inbound, Outbound},
    crossing::RefusalCode,
    id::{CrossingId, ManifestId, SessionBinding, StatementId},
    key::PublicKey,
    ledger::Record,
};

/// Everything that can happen to a node.
#[derive(Debug)]
pub enum Input {
    /// The local operator asks.
    Admin(RequestId, AdminCall),
    /// A peer on the mesh did something.
    Mesh(MeshEvent),
    /// A transfer did something.
    Bulk(BulkEvent),
    /// Time passed: the instant named by `Core::next_wake` has come.
    Tick,
}

/// What is to be done, in this order: the shell makes `persist` durable before it carries out anything else.
#[derive(Debug, Default)]
pub struct Effects {
    /// 1. made durable in the ledger, in one commit ...
    pub persist: Vec<Record>,
    /// ... and beside it ...
    pub keep: Vec<Keep>,
    /// Changes of the rebuildable catalogue; not waited for.
    pub catalogue: Vec<CatalogueChange>,
    /// 2. ... before anything becomes visible.
    pub mesh: Vec<MeshOrder>,
    pub bulk: Vec<BulkOrder>,
    pub replies: Vec<(RequestId, Reply)>,
}

/// Heads of ledgers with the signatures of witnesses. They are no entries: each would make a new head, to be signed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As a witness: the last head of another node's ledger that this node signed. To be durable before the answer is sent.
    Held { log: PublicKey, note: String },
    /// The newest head of this node's ledger that enough witnesses signed.
    Witnessed {
        note: String,
        /// The signed accreditations of the witnesses, so that it can be told later in which countries they were.
        witnesses: Vec<(PublicKey, Vec<u8>)>,
    },
}

/// A change of what is known of other nodes. It can be lost: the mesh gives it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueChange {
    Put { id: StatementId, bytes: Vec<u8> },
    Remove { id: StatementId },
}

/// A waiting call of the local API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A crossing that a peer asks of this node; numbered by the bulk plane, unique while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// A gossip message that waits for its verdict; numbered by the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// A synchronisation request that waits for its answer; numbered by the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncId(pub u64);

/// What the mesh reports. Payloads are bounded in length and otherwise unverified.
#[derive(Debug)]
pub enum MeshEvent {
    /// The first connection to a peer stands; it is not admitted yet.
    Connected { peer: PublicKey },
    /// The last connection to a peer is gone.
    Disconnected { peer: PublicKey },
    /// A peer presented its node record.
    Introduced { peer: PublicKey, record: Vec<u8> },
    /// A gossip message arrived; it is forwarded only after `MeshOrder::Judge`.
    Gossiped { message: MessageId, from: PublicKey, bytes: Vec<u8> },
    /// An admitted peer asks for statements that this node may have and it has not.
    SyncAsked { sync: SyncId, peer: PublicKey, request: SyncRequest },
    /// The answer to `MeshOrder::AskSync`.
    SyncAnswered { peer: PublicKey, answer: SyncAnswer },
    /// An admitted peer asks this node as a witness, or for a proof of its ledger.
    WitnessAsked { question: SyncId, peer: PublicKey, ask: WitnessAsk },
    /// An admitted peer answered a question that nobody else could, after so many microseconds.
    Measured { peer: PublicKey, round_trip_us: u64 },
    /// What became of `MeshOrder::AskWitness`; none where the peer did not answer.
    WitnessAnswered { number: u64, answer: Option<WitnessAnswer> },
}

/// What the mesh is told to do.
#[derive(Debug)]
pub enum MeshOrder {
    /// Present this node record to every peer, now and from now on.
    Introduce {
        record: Vec<u8>,
    },
    /// Let the peer take part in gossip and synchronisation.
    Admit {
        peer: PublicKey,
    },
    /// Disconnect the peer and do not let it back for a while.
    Expel {
        peer: PublicKey,
    },
    /// Disconnect the peer; it may come back.
    Dismiss {
        peer: PublicKey,
    },
    /// Connect to a peer at its multiaddrs, unless connected.
    Dial {
        peer: PublicKey,
        addresses: Vec<String>,
    },
    /// Say what becomes of a gossip message.
    Judge {
        message: MessageId,
        judgement: Judgement,
    },
    /// Gossip a statement to all.
    Publish {
        bytes: Vec<u8>,
    },
    AskSync {
        peer: PublicKey,
        request: SyncRequest,
    },
    AnswerSync {
        sync: SyncId,
        answer: SyncAnswer,
    },
    /// Each is answered by one `MeshEvent::WitnessAnswered` of the same number.
    AskWitness {
        number: u64,
        peer: PublicKey,
        ask: WitnessAsk,
    },
    AnswerWitness {
        question: SyncId,
        answer: WitnessAnswer,
    },
}

/// What one node asks of another about a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum WitnessAsk {
    /// "What did you sign last of the log of this origin?" (C2SP `tlog-witness`, the monitor's retrieval)
    Held { log: String },
    /// "Sign this." The body of `add-checkpoint` of C2SP `tlog-witness`.
    Add { body: String },
    /// "How do the first `second` entries of your ledger continue the first `first`?"
    Prove { first: u64, second: u64 },
}

/// Status code and body, as HTTP would carry them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessAnswer {
    pub status: u16,
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// What becomes of a gossip message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Good and new: forward it.
    Accept,
    /// Nothing wrong, but of no use: already known, or not for now.
    Ignore,
    /// Bad: drop it and count it against the peer.
    Reject,
}

/// "Give me what you have after this id, unless we have the same."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// BLAKE3 over the ids of all statements held, ascending. Equal digests mean nothing to send.
    pub digest: StatementId,
    /// Where the last page ended.
    pub after: Option<StatementId>,
}

/// One page of statements, ascending by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncAnswer {
    pub statements: Vec<serde_bytes::ByteBuf>,
    /// Set where there is more: ask again after this id.
    pub next: Option<StatementId>,
}

/// What the bulk plane reports. It knows nothing of policy.
#[derive(Debug)]
pub enum BulkEvent {
    /// Exporter: a peer, proved by its certificate to hold `peer`, asks for a crossing.
    Asked { ask: AskId, peer: PublicKey, session: SessionBinding, request: Vec<u8> },
    /// Exporter: the importer has everything and presents the receipt it signed. `bytes` were put on the wire.
    ReceiptOffered { ask: AskId, bytes: u64, receipt: Vec<u8> },
    /// Exporter: the serving ended without a receipt. `bytes` were put on the wire.
    ServeFailed { ask: AskId, bytes: u64, failure: BulkFailure },
    /// Importer: the exporter is connected, and what an earlier attempt left was looked at.
    Reached { crossing: CrossingId, session: SessionBinding },
    /// Importer: the exporter answered with a clearance or a refusal.
    Answered { crossing: CrossingId, answer: Vec<u8> },
    /// Importer: bytes that this crossing brought so far, of those that were missing when it began.
    Progressed { crossing: CrossingId, bytes: u64, total: u64 },
    /// Importer: every group is verified and on disk, not yet delivered. Of a part it is said what it is.
    Received { crossing: CrossingId, bytes: u64, held_bytes: u64, part: Option<PartTaken> },
    /// Importer: the artefact is in place under its final name.
    Delivered { crossing: CrossingId },
    /// Importer: the exporter countersigned the receipt.
    Settled { crossing: CrossingId, receipt: Vec<u8> },
    /// Importer: what `BulkOrder::Delete` or `BulkOrder::Discard` named is gone, or why it is not.
    Deleted { crossing: CrossingId, problem: Option<String> },
    /// Importer: the pull ended. Nothing was delivered unless `Delivered` came before.
    PullFailed { crossing: CrossingId, failure: BulkFailure },
}

/// What a pull of a part of an artefact brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartTaken {
    /// Of what lies at the destination: an artefact by itself.
    pub manifest: ManifestId,
    pub bytes: u64,
    pub files: u32,
    pub tensors: u32,
    /// Tensors, and files without tensors, that were wanted and may not cross.
    pub left_out: u32,
}

/// What the bulk plane is told to do.
#[derive(Debug)]
pub enum BulkOrder {
    /// Exporter: answer with a refusal; no artefact byte moves.
    Refuse { ask: AskId, refusal: Vec<u8> },
    /// Exporter: answer with the clearance and send the files that lie under `path`, or that are arriving there.
    Serve { ask: AskId, clearance: Vec<u8>, outbound: Outbound, path: PathBuf, arriving: bool },
    /// Exporter: return the receipt with both signatures and close.
    Countersign { ask: AskId, receipt: Vec<u8> },
    /// Exporter: cut the serving.
    AbortServe { ask: AskId, code: RefusalCode },
    /// Importer: connect to the exporter and look at what is held.
    Reach {
        crossing: CrossingId,
        peer: PublicKey,
        addresses: Vec<String>,
        manifest: ManifestId,
        to: PathBuf,
        /// Whether it is asked for piece by piece: others may be asked for the same at the same time, or somebody reads what
        /// comes and may want another piece first.
        piecewise: bool,
        /// Artefacts that lie here and may have parts in common with it, and where.
        local: Vec<(ManifestId, PathBuf)>,
        /// What is wanted of it, as patterns of names; all, where none.
        tensors: Vec<String>,
    },
    /// Importer: send the request.
    Ask {
        crossing: CrossingId,
        request: Vec<u8>,
        /// Whether groups may be wanted before the exporter has answered: nothing in its answer can change this side's.
        ahead: bool,
    },
    /// Importer: take what was cleared.
    Receive { crossing: CrossingId, inbound: Inbound },
    /// Importer: put the verified artefact in place and present the receipt.
    Deliver { crossing: CrossingId, receipt: Vec<u8> },
    /// Importer: delete the files that a crossing delivered under `path`, and nothing else there.
    Delete { crossing: CrossingId, manifest: ManifestId, path: PathBuf },
    /// Importer: delete what has come for the directory `to` and was not delivered, and nothing else.
    Discard { crossing: CrossingId, manifest: ManifestId, to: PathBuf },
    /// Importer: give the pull up; what was verified stays for a later attempt.
    AbortPull { crossing: CrossingId, code: RefusalCode },
}

/// Why a transfer ended early. The text is for the operator of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum BulkFailure {
    /// No address of the peer answered, or what answered is not the peer.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// The connection was lost or the peer went away.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Bytes that do not match the manifest.
    #[error("the bytes are not what the manifest says: {0}")]
    Tampered(String),
    /// What was wanted of it is not in it, or cannot be by itself.
    #[error("nothing was taken: {0}")]
    Unwanted(String),
    /// What was wanted of it is there, and may not cross.
    #[error("nothing may be taken: {0}")]
    Barred(String),
    /// The local disk failed or is full.
    #[error("the local disk: {0}")]
    Disk(String),
    /// The peer cut the transfer, saying why.
    #[error("the other side ended it: {0}")]
    EndedByPeer(RefusalCode),
    /// This node cut the transfer.
    #[error("ended here: {0}")]
    EndedHere(RefusalCode),
}
