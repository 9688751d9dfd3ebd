//! Frames of the one stream of a crossing: a kind (1 byte), a length (4 bytes, big endian), and so many bytes.
//!
//! ```text
//! importer                            exporter
//!    Request           ->
//!                      <-    Refusal                      (and the end)
//!                      <-    Clearance, Manifest
//!                      <-    Have                         (more as it comes, where it is still coming)
//!    Want              ->
//!                      <-    Groups                       (as often as the importer wants some)
//!    Receipt           ->
//!                      <-    Receipt, countersigned       (and the end)
//! ```
//!
//! The length is checked against the bound of the kind before anything is allocated, and memory grows with what has
//! arrived, not with what is announced.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use alliance_protocol::{core::BulkFailure, crossing::RefusalCode, limits, manifest::RUN_BYTES};
use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use super::ending::{read_failed, write_failed};

/// Bytes of a frame before its payload.
pub(super) const HEADER_BYTES: usize = 5;

/// Bytes that are set aside for a payload before any of it has arrived.
const FIRST_ALLOCATION_BYTES: usize = 64 * 1024;

/// Bytes of groups in one frame: so often other frames can come between.
pub(super) const GROUPS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Segments taken from the stream at a time, under one lock of the connection.
const CHUNKS_PER_READ: usize = 64;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Clearance,
    Refusal,
    Manifest,
    Receipt,
    /// Runs of groups that the importer wants.
    Want,
    /// Runs of groups that the exporter has, beyond those that it has said before.
    Have,
    /// Groups that were wanted, one after the other in the order in which they were.
    Groups,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Request,
        Self::Clearance,
        Self::Refusal,
        Self::Manifest,
        Self::Receipt,
        Self::Want,
        Self::Have,
        Self::Groups,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Clearance => 2,
            Self::Refusal => 3,
            Self::Manifest => 4,
            Self::Receipt => 5,
            Self::Want => 6,
            Self::Have => 7,
            Self::Groups => 8,
        }
    }

    /// Bytes that a payload may have.
    const fn bytes_max(self) -> usize {
        match self {
            Self::Request => limits::REQUEST_BYTES_MAX,
            Self::Clearance => limits::CLEARANCE_BYTES_MAX,
            Self::Refusal | Self::Receipt => limits::STATEMENT_BYTES_MAX,
            Self::Manifest => limits::MANIFEST_BYTES_MAX,
            Self::Want | Self::Have => limits::RUNS_PER_FRAME_MAX.saturating_mul(RUN_BYTES),
            Self::Groups => GROUPS_BYTES_MAX,
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
    #[error("a {0:?} frame of nothing")]
    Empty(Kind),
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
    // What says nothing could be said without end.
    if bytes == 0 && matches!(kind, Kind::Want | Kind::Have | Kind::Groups) {
        return Err(FrameError::Empty(kind));
    }
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
    announce(stream, kind, payload.len()).await?;
    stream.write_chunk(Bytes::from(payload)).await.map_err(|error| write_failed(&error))
}

/// Sends the header of a frame whose payload follows by itself.
pub(super) async fn announce(stream: &mut SendStream, kind: Kind, bytes: usize) -> Result<(), BulkFailure> {
    // Only this node's own Core can hand over too much: that is not the peer's fault.
    let header = header(kind, bytes).map_err(|error| {
        tracing::error!(%error, "a frame that the protocol does not allow was to be sent");
        BulkFailure::EndedHere(RefusalCode::BadRequest)
    })?;
    stream.write_all(&header).await.map_err(|error| write_failed(&error))
}

/// What arrives on a stream, frame by frame; large payloads are handed on as they come, without a copy.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) stream: RecvStream,
    /// Read from the stream and not taken yet.
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    /// Room for a read.
    chunks: Vec<Bytes>,
}

impl Inbox {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, ready: VecDeque::new(), ready_bytes: 0, chunks: vec![Bytes::new(); CHUNKS_PER_READ] }
    }

    /// Takes what has arrived from the stream, or waits for it. Nothing is lost where this is dropped.
    async fn more(&mut self) -> Result<(), BulkFailure> {
        let read = self.stream.read_chunks(&mut self.chunks).await.map_err(|error| read_failed(&error))?;
        let count = read.ok_or_else(|| BulkFailure::Protocol("the stream ended before all was said".to_owned()))?;
        for chunk in self.chunks.iter_mut().take(count).map(std::mem::take) {
            self.ready_bytes = self.ready_bytes.saturating_add(chunk.len());
            self.ready.push_back(chunk);
        }
        Ok(())
    }

    /// Reads the header of a frame of one of the `allowed` kinds. Nothing is lost where this is dropped.
    pub(super) async fn header(&mut self, allowed: &[Kind]) -> Result<(Kind, usize), BulkFailure> {
        while self.ready_bytes < HEADER_BYTES {
            self.more().await?;
        }
        let mut header = [0; HEADER_BYTES];
        for byte in &mut header {
            if let Some(first) = self.split(1).and_then(|chunk| chunk.first().copied()) {
                *byte = first;
            }
        }
        parse_header(header, allowed).map_err(|error| BulkFailure::Protocol(error.to_string()))
    }

    /// Reads the payload that a header has announced. `activity` grows with every byte, for a watchdog.
    pub(super) async fn payload(&mut self, bytes: usize, activity: &AtomicU64) -> Result<Vec<u8>, BulkFailure> {
        let mut payload = Vec::with_capacity(bytes.min(FIRST_ALLOCATION_BYTES));
        while payload.len() < bytes {
            let chunk = self.chunk(bytes.saturating_sub(payload.len())).await?;
            activity.fetch_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
            payload.extend_from_slice(&chunk);
        }
        Ok(payload)
    }

    /// A whole frame.
    pub(super) async fn frame(&mut self, allowed: &[Kind], activity: &AtomicU64) -> Result<(Kind, Vec<u8>), BulkFailure> {
        let (kind, bytes) = self.header(allowed).await?;
        Ok((kind, self.payload(bytes, activity).await?))
    }

    /// The next bytes of a payload, at least one and at most `most`. Nothing is lost where this is dropped.
    pub(super) async fn chunk(&mut self, most: usize) -> Result<Bytes, BulkFailure> {
        loop {
            if let Some(chunk) = self.split(most) {
                return Ok(chunk);
            }
            self.more().await?;
        }
    }

    /// Moves the next bytes of a payload to `into`, at least one and at most `most`: all that are here, or the first that come.
    /// Gives how many. Nothing is lost where this is dropped.
    pub(super) async fn drain(&mut self, most: usize, into: &mut Vec<Bytes>) -> Result<usize, BulkFailure> {
        if self.ready.is_empty() {
            self.more().await?;
        }
        let mut moved = 0_usize;
        while let Some(chunk) = self.split(most.saturating_sub(moved)) {
            moved = moved.saturating_add(chunk.len());
            into.push(chunk);
        }
        Ok(moved)
    }

    /// As [`Inbox::chunk`], of what is here already; nothing where no more is wanted.
    fn split(&mut self, most: usize) -> Option<Bytes> {
        let first = self.ready.front_mut().filter(|_| most > 0)?;
        let chunk = if first.len() > most { first.split_to(most) } else { self.ready.pop_front()? };
        self.ready_bytes = self.ready_bytes.saturating_sub(chunk.len());
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_at_their_bounds() {
        for kind in Kind::ALL {
            for bytes in [1, 255, 256, kind.bytes_max()] {
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
        for code in (0..=u8::MAX).filter(|code| !(1..=8).contains(code)) {
            assert_eq!(parse_header([code, 0, 0, 0, 0], &Kind::ALL), Err(FrameError::Unknown(code)));
        }
        assert_eq!(parse_header([4, 0, 0, 0, 0], &[Kind::Request]), Err(FrameError::OutOfTurn(Kind::Manifest)));
        assert_eq!(
            parse_header([1, 255, 255, 255, 255], &[Kind::Request]),
            Err(FrameError::TooLarge { kind: Kind::Request, bytes: 0xffff_ffff })
        );
        for kind in [Kind::Want, Kind::Have, Kind::Groups] {
            assert_eq!(parse_header([kind.code(), 0, 0, 0, 0], &[kind]), Err(FrameError::Empty(kind)));
        }
    }

    #[test]
    fn the_wire_is_fixed() {
        assert_eq!(header(Kind::Request, 0x0102), Ok([1, 0, 0, 1, 2]));
        assert_eq!(header(Kind::Receipt, 7), Ok([5, 0, 0, 0, 7]));
        assert_eq!(header(Kind::Want, 16), Ok([6, 0, 0, 0, 16]));
        assert_eq!(header(Kind::Groups, 1 << 20), Ok([8, 0, 16, 0, 0]));
    }
}
