//! Hashes a file in one pass: BLAKE3 of each of its parts with their groups, and SHA-256 of the whole.

use std::io::{self, Read};

use alliance_protocol::{
    id::Sha256,
    manifest::{Segment, SegmentHasher, SegmentKind},
};
use sha2::Digest as _;

/// Bytes read at a time: large enough that the disk and BLAKE3 run at full speed, small enough to stay in a core's cache.
pub(super) const BUFFER_BYTES: usize = 1024 * 1024;

/// Hashes the bytes of one file as they come.
pub(super) struct FileDigest<I> {
    parts: I,
    /// The part that is being hashed and the bytes it still lacks.
    current: Option<(SegmentKind, u64, SegmentHasher)>,
    segments: Vec<Segment>,
    sha256: sha2::Sha256,
}

impl<I: Iterator<Item = (SegmentKind, u64)>> FileDigest<I> {
    /// A digest of a file with these parts and their lengths.
    pub(super) fn new(parts: I) -> Self {
        let mut digest = Self { parts, current: None, segments: Vec::new(), sha256: sha2::Sha256::new() };
        digest.advance();
        digest
    }

    /// Takes the next bytes. Bytes after the last part count only for SHA-256.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.sha256.update(bytes);
        while let Some((_, lacking, hasher)) = &mut self.current {
            let take = usize::try_from(*lacking).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(take);
            hasher.update(now);
            *lacking = lacking.saturating_sub(u64::try_from(take).unwrap_or(u64::MAX));
            bytes = later;
            if *lacking > 0 {
                return;
            }
            self.advance();
        }
    }

    /// Takes everything that a reader gives; tells `progress` how many bytes came.
    pub(super) fn update_from(
        &mut self,
        reader: &mut impl Read,
        buffer: &mut [u8],
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        loop {
            let count = match reader.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.update(buffer.get(..count).unwrap_or_default());
            progress(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// The segments and the SHA-256; none where bytes were missing.
    pub(super) fn finish(self) -> Option<(Vec<Segment>, Sha256)> {
        let sha256 = Sha256(self.sha256.finalize().into());
        self.current.is_none().then_some((self.segments, sha256))
    }

    /// Closes the current part, and the empty ones after it, and begins the next.
    fn advance(&mut self) {
        if let Some((kind, _, hasher)) = self.current.take() {
            self.segments.push(Segment::hashed(kind, hasher));
        }
        for (kind, bytes) in self.parts.by_ref() {
            if bytes > 0 {
                self.current = Some((kind, bytes, SegmentHasher::new()));
                return;
            }
            self.segments.push(Segment::hashed(kind, SegmentHasher::new()));
        }
    }
}
