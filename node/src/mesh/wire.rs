//! The words of the mesh protocol: one request, one answer, both closed and bounded.
//!
//! They carry signed statements as bytes and never look into them; whether to believe them is decided in Core.

use alliance_protocol::{
    core::{SyncAnswer, SyncRequest, WitnessAnswer, WitnessAsk},
    id::AllianceId,
    limits,
};
use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Bytes of an encoded request. A node record with its accreditation is about 2 KiB; the largest two statements fit.
pub(super) const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an encoded answer: a page of statements and, for each of them, up to five bytes of CBOR framing.
pub(super) const ANSWER_BYTES_MAX: usize = limits::SYNC_BYTES_MAX + 32 * 1024;

/// Bytes of a node record in a greeting: what a request holds, less its framing.
pub(super) const RECORD_BYTES_MAX: usize = REQUEST_BYTES_MAX - 1024;

/// Bytes of a question or an answer about a ledger: a proof of 63 hashes in base64, a note of a node and the signatures of
/// a witness in each member country.
pub(super) const WITNESS_BYTES_MAX: usize = 32 * 1024;

const _: () = assert!(WITNESS_BYTES_MAX < REQUEST_BYTES_MAX);

/// Statements in one page. The smallest signed statement is about 150 bytes, so that the bytes run out first.
pub(super) const STATEMENTS_PER_PAGE_MAX: usize = 4096;

/// What one node asks of another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum Request {
    /// "This is who I am." The only request that a stranger may make.
    Hello { record: ByteBuf },
    /// "Give me what you have and I have not."
    Sync { request: SyncRequest },
    /// About a ledger: what was signed of it, to sign it, how it goes on.
    Witness { ask: WitnessAsk },
}

/// What the other node answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum Answer {
    Hello {
        record: ByteBuf,
    },
    Sync {
        answer: SyncAnswer,
    },
    Witness {
        answer: WitnessAnswer,
    },
    /// Not now, or not to you.
    Refused,
}

/// The name under which the protocol of one alliance is negotiated. Nodes of two alliances have none in common.
pub(super) fn protocol_name(alliance: &AllianceId) -> String {
    let id: String = alliance.to_string().chars().take(16).collect();
    format!("/alliance/{id}/mesh/1")
}

/// The same name, for a stream.
pub(super) fn protocol(alliance: &AllianceId) -> Option<StreamProtocol> {
    StreamProtocol::try_from_owned(protocol_name(alliance)).ok()
}

/// Whether a node record has a length that may be sent or received.
pub(super) const fn record_fits(record: &[u8]) -> bool {
    !record.is_empty() && record.len() <= RECORD_BYTES_MAX
}

/// Whether a question about a ledger has a length that may be sent or received: the note of a log, a proof, and no more.
pub(super) fn ask_fits(ask: &WitnessAsk) -> bool {
    match ask {
        WitnessAsk::Held { log } => log.len() <= limits::TEXT_BYTES_MAX,
        WitnessAsk::Add { body } => body.len() <= WITNESS_BYTES_MAX,
        WitnessAsk::Prove { .. } => true,
    }
}

/// Whether a page keeps to the bounds of the protocol.
pub(super) fn page_fits(page: &SyncAnswer) -> bool {
    let bytes = page.statements.iter().fold(0_usize, |sum, statement| sum.saturating_add(statement.len()));
    page.statements.len() <= STATEMENTS_PER_PAGE_MAX && bytes <= limits::SYNC_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_named_after_the_alliance() {
        let name = protocol_name(&AllianceId([0xab; 32]));
        assert_eq!(name, "/alliance/abababababababab/mesh/1");
        assert!(protocol(&AllianceId([0xab; 32])).is_some());
    }

    #[test]
    fn pages_are_bounded_in_bytes_and_in_number() {
        let page = |sizes: &[usize]| SyncAnswer {
            statements: sizes.iter().map(|size| ByteBuf::from(vec![0; *size])).collect(),
            next: None,
        };
        assert!(page_fits(&page(&[])));
        assert!(page_fits(&page(&[limits::SYNC_BYTES_MAX - 1, 1])));
        assert!(!page_fits(&page(&[limits::SYNC_BYTES_MAX, 1])));
        assert!(page_fits(&page(&[1; STATEMENTS_PER_PAGE_MAX])));
        assert!(!page_fits(&page(&[1; STATEMENTS_PER_PAGE_MAX + 1])));
    }

    #[test]
    fn records_are_bounded() {
        assert!(!record_fits(&[]));
        assert!(record_fits(&[0]));
        assert!(record_fits(&vec![0; RECORD_BYTES_MAX]));
        assert!(!record_fits(&vec![0; RECORD_BYTES_MAX + 1]));
    }
}
