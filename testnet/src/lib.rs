//! A whole alliance on one machine: real daemons with homes, keys and ledgers of their own, and a tour of crossings.
//!
//! - [`network`]: members, authorities, nodes as processes
//! - [`tour`]: the crossings that are shown, and the checks on each
//! - [`report`]: what is printed of them
//! - [`wan`]: distances between them, with rates and losses
//! - [`mod@bench`]: how fast it is, beside others
//! - [`sample`]: the artefacts that are shared

pub mod bench;
pub mod network;
pub mod report;
pub mod sample;
pub mod tour;
pub mod wan;
