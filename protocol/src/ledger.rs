//! The ledger of a node as mathematics: what is recorded, the Merkle tree over it, and signed checkpoints of that tree.
//!
//! Nothing here touches a disk or a clock. How entries are kept is the shell's business; what they mean and whether they
//! are the ones that were committed is decided here.
//!
//! - [`Record`], [`Entry`]: what a node records, and its one encoding
//! - [`Merkle`], [`Tiles`]: the tree of RFC 6962 and RFC 9162, its edge alone and whole, with proofs
//! - [`Checkpoint`]: the head of the tree, signed in the C2SP formats that witnesses and monitors read
//! - [`Witness`]: signs heads of other nodes' trees, each once it has seen that it continues the one before

mod checkpoint;
mod merkle;
mod note;
mod record;
mod tiles;
mod witness;

pub use checkpoint::{BadOrigin, CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError, Cosignature, Origin};
pub use merkle::{BadProof, Merkle, leaf_hash, verify_consistency, verify_inclusion};
pub use record::{Entry, EntryError, LEAF_BYTES_MAX, PackText, RECORD_BYTES_MAX, Record};
pub use tiles::{BundleAt, TILE_WIDTH, TileAt, Tiles};
pub use witness::{ADD_CHECKPOINT_BYTES_MAX, AddCheckpoint, Cosigned, Held, NotCosigned, Witness};
