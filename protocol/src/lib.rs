//! The pure centre of Alliance: what is said between nodes, what is believed, what is decided and what is recorded.
//!
//! Nothing here opens a file, a socket or a clock. Time, randomness and keys are arguments; whatever must happen in the
//! world is returned as an effect. Start with [`core::Core::handle`]: every input of a node goes through it.
//!
//! - [`envelope`]: signed statements; the only way to a verified value
//! - [`charter`], [`authority`], [`offer`], [`crossing`]: the bodies of the statements
//! - [`trust`]: who has standing now, from charter, accreditation and status
//! - [`place`]: where nodes stand, and how fast light is
//! - [`training`]: where models were trained, step by step
//! - [`gate`]: the question put to a law pack, and its verdict
//! - [`obligation`]: duties that come with a crossing
//! - [`border`]: the one door; the only maker of clearances
//! - [`manifest`]: files, tensors and their verified groups
//! - [`dsse`], [`model_signing`]: signatures that tools outside of the alliance understand
//! - [`ledger`]: the append-only Merkle log
//! - [`replay`]: recorded decisions, made again from a ledger alone
//! - [`core`]: input in, effects out
//! - [`audit`]: a part of a ledger that proves itself, and the halves of crossings compared

pub mod audit;
pub mod authority;
pub mod border;
pub mod charter;
pub mod core;
pub mod crossing;
pub mod dsse;
pub mod envelope;
pub mod gate;
pub mod id;
pub mod key;
pub mod ledger;
pub mod limits;
pub mod manifest;
pub mod model_key;
pub mod model_signing;
pub mod obligation;
pub mod offer;
pub mod place;
pub mod replay;
pub mod rotation;
pub mod time;
pub mod training;
pub mod trust;
pub mod vocabulary;
