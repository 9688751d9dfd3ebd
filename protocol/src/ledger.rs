//! The ledger of a node as mathematics: what is recorded, the Merkle tree over it, and signed checkpoints of that tree.
//!
//! Nothing here touches a disk or a clock. How entries are kept is the shell's business; what they mean and whether they
//! are the ones that were committed is decided here.
//!
//! - [`Record`], [`Entry`]: what a node records, and its one encoding
//! - [`Merkle`]: the tree of RFC 6962 and RFC 9162, with proofs of inclusion and consistency
//! - [`Checkpoint`]: the head of the tree, signed in the C2SP formats that witnesses and monitors read

mod checkpoint;
mod merkle;
mod record;

pub use checkpoint::{BadOrigin, CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError, Origin};
pub use merkle::{BadProof, Merkle, leaf_hash, prove_consistency, prove_inclusion, verify_consistency, verify_inclusion};
pub use record::{Entry, EntryError, RECORD_BYTES_MAX, Record};
