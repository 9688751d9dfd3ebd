//! The local API: HTTP and JSON over a Unix socket, for the operator of this machine and nobody else.
//!
//! `POST /v1/call` carries one [`AdminCall`] and answers one [`Reply`]; `GET /v1/version` says who answers. The socket is
//! private to its owner, and every connection's user is asked of the kernel as well. Nothing is decided here: calls go to
//! the node's loop and its replies come back. Never reachable over a network.

use alliance_protocol::core::admin::{AdminCall, Reply};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

mod client;
mod server;

pub use client::{ApiClient, ClientError};
pub use server::{ApiError, ApiServer};

/// A call that waits for its answer.
pub type Waiting = (AdminCall, oneshot::Sender<Reply>);

/// What `GET /v1/version` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The release of the daemon.
    pub version: String,
    /// The version of the calls and replies. Client and server must have the same.
    pub api: u32,
}

impl Version {
    /// This program's.
    #[must_use]
    pub fn own() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), api: 1 }
    }
}

/// Bytes of the body of a call. A law pack and a status as JSON, four digits and commas to the byte, need 850 KiB.
pub(crate) const CALL_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the body of an answer. Ten thousand offers with their terms need about 16 MiB.
pub(crate) const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests;
