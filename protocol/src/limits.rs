//! Every bound of the protocol: its value, its unit and the reason. A bound is named in the clause of `specs/` that uses it.

/// Milliseconds by which two honest clocks may differ. Law is asked at both ends of this interval.
pub const CLOCK_SKEW_MS_MAX: u64 = 60_000;

/// Signatures on one statement. A version of the charter of eleven members with three officers each that replaces all of them
/// has 66.
pub const SIGNATURES_PER_STATEMENT_MAX: usize = 128;

/// Bytes of one statement other than a law pack. An offer or a node record needs about 1 KiB.
pub const STATEMENT_BYTES_MAX: usize = 16 * 1024;

/// Places that measurements contradict of one node, as seen from one place. From then on it is believed to be at none, and
/// nothing more is recorded of it: whoever gets it one place after another must not fill the ledgers of others.
pub const PLACES_CONTRADICTED_MAX: usize = 4;

/// Bytes of an attestation of where a model was trained: a few steps of 2 KiB or so each, with room for many materials. It
/// travels with a clearance, and both ledgers hold it.
pub const ATTESTATION_BYTES_MAX: usize = 128 * 1024;

/// Bytes of a clearance: a statement and an attestation.
pub const CLEARANCE_BYTES_MAX: usize = STATEMENT_BYTES_MAX + ATTESTATION_BYTES_MAX;

/// Bytes of a charter: eleven members with five officers' keys each, twice over.
pub const CHARTER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a law pack. The longest pack of one country with citations in two scripts is about 40 KiB.
pub const LAW_PACK_BYTES_MAX: usize = 192 * 1024;

/// Bytes of one gossip message: the largest statement and the framing around it.
pub const GOSSIP_BYTES_MAX: usize = LAW_PACK_BYTES_MAX + 4 * 1024;

/// Bytes of a crossing request: a statement, the accreditation and up to [`SAFEGUARDS_PER_REQUEST_MAX`] safeguards.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;

/// Safeguards in one request. No rule set of a member needs more than six at once.
pub const SAFEGUARDS_PER_REQUEST_MAX: usize = 16;

/// Patterns that say which part of an artefact a pull is of. A person writes a few.
pub const TENSOR_PATTERNS_MAX: usize = 64;

/// Runs of groups in one frame that wants or announces some. More go into further frames.
pub const RUNS_PER_FRAME_MAX: usize = 4096;

/// Bytes of a manifest: about 400,000 tensors.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Files of one artefact. The largest published models have about 200 shards.
pub const FILES_PER_MANIFEST_MAX: usize = 4096;

/// Tensors of one file; bounds the header before anything is allocated for it.
pub const TENSORS_PER_FILE_MAX: usize = 200_000;

/// Sets of labels in one artefact: each costs a decision, and a place in its offer. A model with adapters has two or three.
pub const PARTS_PER_ARTEFACT_MAX: usize = 16;

/// Dimensions of one tensor. Frameworks stop at 8 or so.
pub const DIMENSIONS_MAX: usize = 16;

/// Bytes of the JSON header of a safetensors file. The format's own reader allows 100 MB; 100,000 tensors need 12 MB.
pub const SAFETENSORS_HEADER_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// Bytes of a verified group: fits a core's L2 cache with room, and is a power of two of BLAKE3 chunks (1 KiB).
pub const GROUP_BYTES: u64 = 256 * 1024;

/// Bytes of a name of an artefact, an organisation or a file path component.
pub const NAME_BYTES_MAX: usize = 128;

/// Names of one kind in what a model card claims. Cards of models for many languages list two hundred.
pub const CARD_NAMES_MAX: usize = 256;

/// Bytes of all names in what a model card claims, together: less than half of an offer, so that the rest has its room.
pub const CARD_BYTES_MAX: usize = 3 * 1024;

/// Bytes of a path inside an artefact.
pub const PATH_BYTES_MAX: usize = 512;

/// Bytes of a free text field (a reason, a reference, a title).
pub const TEXT_BYTES_MAX: usize = 1024;

/// Versions of one charter: with four in a year, sixty years.
pub const CHARTER_VERSIONS_MAX: usize = 256;

/// Bytes of all versions of a charter in one piece: as many as there may be, as large as they may be, with their framing.
pub const CHARTER_LOG_BYTES_MAX: usize = CHARTER_VERSIONS_MAX * (CHARTER_BYTES_MAX + 8) + 8;

/// Members of one alliance. There are 249 country codes; eleven countries are BRICS members in 2026.
pub const MEMBERS_MAX: usize = 64;

/// Officers of one authority.
pub const OFFICERS_MAX: usize = 16;

/// Revoked keys listed in one status.
pub const REVOCATIONS_MAX: usize = 256;

/// Law packs that one status adopts ahead of their date: the next amendment, and one more.
pub const UPCOMING_MAX: usize = 2;

/// Bans listed in one status: with [`REVOCATIONS_MAX`] revocations and [`OFFICERS_MAX`] signatures it still fits a statement.
pub const BANS_MAX: usize = 64;

/// Milliseconds for which crossings that run may outlast a status: as long as a status usually counts. With more, what was
/// revoked in a status that does not arrive would go on for longer than anybody expects of an authority that is silent.
pub const STATUS_GRACE_MS_MAX: u64 = 60 * 60 * 1000;

/// Experts whom one authority names. A panel has a dozen or two.
pub const EXPERTS_MAX: usize = 32;

/// Rules that one safeguard may satisfy. The kind that most rules of a founding pack name is named by eight.
pub const RULES_PER_SAFEGUARD_MAX: usize = 32;

/// Approvals that a node keeps at a time. One crossing needs at most a few dozen.
pub const APPROVALS_MAX: usize = 256;

/// Network addresses in one node record, mesh and bulk each.
pub const ADDRESSES_MAX: usize = 8;

/// Milliseconds that a clearance may be used after it was signed.
pub const CLEARANCE_TTL_MS_MAX: u64 = 60_000;

/// Milliseconds a crossing may be in progress before it has to be asked for again.
pub const CROSSING_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Milliseconds for which an offer may stand. Longer ones must be published again.
pub const OFFER_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// Offers that one node may have in the catalogues of others: standing, or withdrawn before their end.
pub const OFFERS_PER_NODE_MAX: usize = 256;

/// The same of all nodes of one member.
pub const OFFERS_PER_MEMBER_MAX: usize = 4096;

/// Node records of one member.
pub const NODES_PER_MEMBER_MAX: usize = 1024;

/// Times that one node changes its key: with one each year, thirty years. Each change costs a look at the chain behind it.
pub const KEY_ROTATIONS_MAX: usize = 32;

/// Keys of one member's nodes that have ended and are remembered, by every node and for ever: four of each node that there may be.
pub const KEY_ROTATIONS_PER_MEMBER_MAX: usize = 4 * NODES_PER_MEMBER_MAX;

/// Peers that one artefact is pulled from at a time. Four fill most links.
pub const SOURCES_MAX: u32 = 8;

/// Times that one pull asks a node, all nodes together: each costs a record on both sides.
pub const SOURCES_ASKED_MAX: u32 = 32;

/// Offers of one artefact that a node publishes anew, until it is restarted, after it took the one before back: each stands in
/// the catalogues of others until it would have ended.
pub const ONWARD_OFFERS_MAX: u32 = 8;

/// Artefacts of this node in which parts of another are looked for: the largest, since each costs reading a manifest.
pub const LOCAL_ARTEFACTS_MAX: usize = 32;

/// Crossings that one node serves and pulls at a time, together.
pub const CROSSINGS_RUNNING_MAX: usize = 64;

/// Crossings that one node serves at a time: the rest of the places is for what its own operator pulls.
pub const CROSSINGS_SERVED_MAX: usize = 48;

/// Crossings that one peer may run at a time against this node.
pub const CROSSINGS_PER_PEER_MAX: usize = 8;

/// Crossings of one peer in one window that this node records and that come to nothing: refused, or broken off. Further ones
/// are cut off without a record. A person who tries again after a denial stays far below it.
pub const FRUITLESS_PER_WINDOW_MAX: u32 = 64;

/// New statuses and law packs of one member in one window; further ones are left for later. One status an hour is usual.
pub const AUTHORITY_STATEMENTS_PER_WINDOW_MAX: u32 = 128;

/// Milliseconds of those windows.
pub const WINDOW_MS: u64 = 60 * 60 * 1000;

/// Milliseconds for which the entries of a ledger may be without witnesses, at the least: two rounds of asking, and time to
/// connect.
pub const WITNESS_GRACE_MS_MIN: u64 = 60_000;

/// The same at the most. Longer, and what a node did in a day could still be rewritten.
pub const WITNESS_GRACE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Peers of one member of which a node knows what they signed of its ledger. One of them is asked; the others take its place, and
/// a country with many nodes does not take that of others.
pub const WITNESSES_PER_MEMBER_MAX: usize = 8;

/// Heads of ledgers that one peer may pass on in one window: of fifty busy nodes.
pub const CHECKPOINTS_PER_WINDOW_MAX: u32 = 65_536;

/// Bytes of a head that is gossiped: with the signatures of witnesses in sixteen countries.
pub const CHECKPOINT_GOSSIP_BYTES_MAX: usize = 8 * 1024;

/// Bytes of the verdicts of one recorded decision. Longer ones lose their texts, and then the last of
/// their rules, but never a duty that a node enforces.
pub const VERDICTS_BYTES_MAX: usize = 256 * 1024;

/// Bytes of statements in one answer to a synchronisation request; one law pack must fit.
pub const SYNC_BYTES_MAX: usize = LAW_PACK_BYTES_MAX + 32 * 1024;

const _: () = assert!(STATEMENT_BYTES_MAX <= LAW_PACK_BYTES_MAX);
const _: () = assert!(CHARTER_BYTES_MAX <= LAW_PACK_BYTES_MAX);
const _: () = assert!(GROUP_BYTES.is_power_of_two() && GROUP_BYTES >= 1024);
const _: () = assert!(CROSSINGS_SERVED_MAX < CROSSINGS_RUNNING_MAX);
const _: () = assert!(CLEARANCE_TTL_MS_MAX < CROSSING_MS_MAX);
const _: () = assert!(STATUS_GRACE_MS_MAX < CROSSING_MS_MAX);
