//! Frames of the one stream of a crossing: a kind (1 byte), a length (4 bytes, big endian), and so many bytes.
//!
//! ```text
//! importer                            exporter
//!    Request           ->
//!                      <-    Refusal                      (and the end)
//!                      <-    Clearance, Manifest, groups without framing
//!    Receipt           ->
//!                      <-    Receipt, countersigned       (and the end)
//! ```
//!
//! The length is checked against the bound of the kind before anything is allocated, and memory grows with what has
//! arrived, not with what is announced.

use std::sync::atomic::{AtomicU64, Ordering};

use alliance_protocol::{core::BulkFailure, crossing::RefusalCode, limits};
use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use super::ending::{read_exact_failed, read_failed, write_failed};

/// Bytes of a frame before its payload.
pub(super) const HEADER_BYTES: usize = 5;

/// Bytes that are set aside for a payload before any of it has arrived.
const FIRST_ALLOCATION_BYTES: usize = 64 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Clearance,
    Refusal,
    Manifest,
    Receipt,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Request, Self::Clearance, Self::Refusal, Self::Manifest, Self::Receipt];

    const fn code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Clearance => 2,
            Self::Refusal => 3,
            Self::Manifest => 4,
            Self::Receipt => 5,
        }
    }

    /// Bytes that a payload may have.
    const fn bytes_max(self) -> usize {
        match self {
            Self::Request => limits::REQUEST_BYTES_MAX,
            Self::Clearance | Self::Refusal | Self::Receipt => limits::STATEMENT_BYTES_MAX,
            Self::Manifest => limits::MANIFEST_BYTES_MAX,
        }
    }
}

/// Why a frame is not taken or not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("{0} is not a kind of frame")]
    Unknown(u8),
    #[error("a {0:?} frame out of turn")]
    OutOfTurn(Kind),
    #[error("a {kind:?} frame of {bytes} bytes, more than {max}", max = kind.bytes_max())]
    TooLarge { kind: Kind, bytes: usize },
}

/// Reads a header; only the kinds in `allowed` are in turn.
pub(super) fn parse_header(header: [u8; HEADER_BYTES], allowed: &[Kind]) -> Result<(Kind, usize), FrameError> {
    let [code, length @ ..] = header;
    let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code).ok_or(FrameError::Unknown(code))?;
    if !allowed.contains(&kind) {
        return Err(FrameError::OutOfTurn(kind));
    }
    let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if bytes > kind.bytes_max() { Err(FrameError::TooLarge { kind, bytes }) } else { Ok((kind, bytes)) }
}

/// The header of a frame of `kind` with `bytes` bytes.
pub(super) fn header(kind: Kind, bytes: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    let too_large = FrameError::TooLarge { kind, bytes };
    if bytes > kind.bytes_max() {
        return Err(too_large);
    }
    let [a, b, c, d] = u32::try_from(bytes).map_err(|_| too_large)?.to_be_bytes();
    Ok([kind.code(), a, b, c, d])
}

/// Sends a frame.
pub(super) async fn write(stream: &mut SendStream, kind: Kind, payload: Vec<u8>) -> Result<(), BulkFailure> {
    // Only this node's own Core can hand over too much: that is not the peer's fault.
    let header = header(kind, payload.len()).map_err(|error| {
        tracing::error!(%error, "a frame that the protocol does not allow was to be sent");
        BulkFailure::EndedHere(RefusalCode::BadRequest)
    })?;
    stream.write_all(&header).await.map_err(|error| write_failed(&error))?;
    stream.write_chunk(Bytes::from(payload)).await.map_err(|error| write_failed(&error))
}

/// Receives a frame of one of the `allowed` kinds. `activity` grows with every byte, for a watchdog.
pub(super) async fn read(
    stream: &mut RecvStream,
    allowed: &[Kind],
    activity: &AtomicU64,
) -> Result<(Kind, Vec<u8>), BulkFailure> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.map_err(|error| read_exact_failed(&error))?;
    let (kind, bytes) = parse_header(header, allowed).map_err(|error| BulkFailure::Protocol(error.to_string()))?;
    let mut payload = Vec::with_capacity(bytes.min(FIRST_ALLOCATION_BYTES));
    while payload.len() < bytes {
        let left = bytes.saturating_sub(payload.len());
        let chunk = stream.read_chunk(left, true).await.map_err(|error| read_failed(&error))?;
        let chunk = chunk.ok_or_else(|| BulkFailure::Protocol("the stream ended within a frame".to_owned()))?;
        activity.fetch_add(u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        payload.extend_from_slice(&chunk.bytes);
    }
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_at_their_bounds() {
        for kind in Kind::ALL {
            for bytes in [0, 1, 255, 256, kind.bytes_max()] {
                let header = header(kind, bytes).expect("within the bound");
                assert_eq!(parse_header(header, &Kind::ALL), Ok((kind, bytes)));
            }
            let bytes = kind.bytes_max() + 1;
            assert_eq!(header(kind, bytes), Err(FrameError::TooLarge { kind, bytes }));
            let [a, b, c, d] = u32::try_from(bytes).expect("small").to_be_bytes();
            assert_eq!(parse_header([kind.code(), a, b, c, d], &[kind]), Err(FrameError::TooLarge { kind, bytes }));
        }
    }

    #[test]
    fn strange_headers_are_refused() {
        for code in (0..=u8::MAX).filter(|code| !(1..=5).contains(code)) {
            assert_eq!(parse_header([code, 0, 0, 0, 0], &Kind::ALL), Err(FrameError::Unknown(code)));
        }
        assert_eq!(parse_header([4, 0, 0, 0, 0], &[Kind::Request]), Err(FrameError::OutOfTurn(Kind::Manifest)));
        assert_eq!(
            parse_header([1, 255, 255, 255, 255], &[Kind::Request]),
            Err(FrameError::TooLarge { kind: Kind::Request, bytes: 0xffff_ffff })
        );
    }

    #[test]
    fn the_wire_is_fixed() {
        assert_eq!(header(Kind::Request, 0x0102), Ok([1, 0, 0, 1, 2]));
        assert_eq!(header(Kind::Receipt, 7), Ok([5, 0, 0, 0, 7]));
    }
}
