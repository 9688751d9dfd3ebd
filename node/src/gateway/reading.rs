//! The bytes of a file for a client on this machine: as they were imported or received, or not at all.

use std::{io, ops::Range, path::PathBuf, sync::Arc};

use alliance_protocol::{core::BulkFailure, manifest::Manifest};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use tokio::sync::Semaphore;

use super::crossings::Content;
use crate::{
    buffers::Buffers,
    bulk::ArrivalReader,
    models::{Compared, Source, SourceError},
};

/// Bytes that are read at once for a client, and one group at most beyond.
const PIECE_BYTES: u64 = 1024 * 1024;

/// Buffers that each download uses in turn: one is read into, others are on their way to the client.
const BUFFERS_MAX: usize = 3;

/// What of a file a client wants, by the `Range` that it sent (RFC 9110, section 14.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<u64>),
    /// `bytes=0-0` of an empty file. There is no such byte; clients that learn a length by it want an answer all the same.
    NothingOfNothing,
    /// There is nothing in that range.
    Beyond,
}

impl Wanted {
    /// What is no range of bytes, and ranges that do not lie one after the other, are answered with the whole, as the RFC has it.
    pub(super) fn of(range: Option<&str>, bytes: u64) -> Self {
        let Some(Ok(parsed)) = range.map(http_range_header::parse_range_header) else { return Self::Whole };
        if bytes == 0 {
            let first = parsed.validate(1).is_ok_and(|ranges| ranges == [0..=0])
                && range.is_some_and(|range| range.ends_with("-0"));
            return if first { Self::NothingOfNothing } else { Self::Whole };
        }
        match parsed.validate(bytes).as_deref() {
            Ok([one]) => Self::Part(*one.start()..one.end().saturating_add(1)),
            Ok(_) => Self::Whole,
            Err(_) => Self::Beyond,
        }
    }
}

/// Why no bytes come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("reading was given up")]
    Task(#[from] tokio::task::JoinError),
    #[error("what is on its way here does not come")]
    Coming(#[from] BulkFailure),
    #[error("the token opens nothing any more, or the model is gone")]
    Over,
}

/// A range of a file of an artefact, as a body. What is not as the manifest says ends it before its end, so that no client
/// takes it for the whole; in the first piece, it is an error at once. What is on its way here comes as it arrives. `goes_on` is
/// asked before each piece.
///
/// # Errors
/// The file is missing, or not what the manifest says.
pub(super) async fn body(
    content: Content,
    manifest: Manifest,
    (number, range): (u32, Range<u64>),
    compared: Arc<Compared>,
    places: Arc<Semaphore>,
    goes_on: impl Fn() -> bool + Send + 'static,
) -> Result<Body, Stopped> {
    let Range { start: next, end } = manifest.groups_in(number, &range);
    if next >= end {
        return Ok(Body::empty());
    }
    let from = match content {
        Content::Here(dir) => {
            let opened = manifest.clone();
            tokio::task::spawn_blocking(move || Ok::<_, SourceError>(Feed::Here(Source::lazy(&dir, opened)?, dir)))
                .await??
        }
        Content::Coming(arrival) => Feed::Coming(arrival.reader(next..end)),
    };
    let is_here = matches!(from, Feed::Here(..));
    let buffers = Buffers::new(BUFFERS_MAX);
    let mut reading = Reading { from, manifest, range, next, end, compared, buffers };
    let mut first = None;
    if is_here {
        let (piece, rest) = reading.piece_of(&places).await?;
        (first, reading) = (Some(Ok(piece)), rest);
    }
    let rest = stream::unfold(Some((reading, places, goes_on)), |state| async move {
        let (reading, places, goes_on) = state.filter(|(reading, ..)| reading.next < reading.end)?;
        let piece = if goes_on() && reading.is_there() { reading.piece_of(&places).await } else { Err(Stopped::Over) };
        match piece {
            Ok((piece, reading)) => Some((Ok(piece), Some((reading, places, goes_on)))),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a download over the gateway was ended");
                Some((Err(io::Error::other(error)), None))
            }
        }
    });
    Ok(Body::from_stream(futures::StreamExt::chain(stream::iter(first), rest)))
}

/// Where the groups of an artefact come from.
enum Feed {
    /// Files of this node, in this directory.
    Here(Source, PathBuf),
    /// Another node sends them.
    Coming(ArrivalReader),
}

/// A file that a client reads.
struct Reading {
    from: Feed,
    manifest: Manifest,
    range: Range<u64>,
    /// The group that comes next, and the one after the last.
    next: u64,
    end: u64,
    compared: Arc<Compared>,
    buffers: Buffers,
}

impl Reading {
    /// Reads what comes next on a thread for it. The place is held no longer: a client that waits keeps neither.
    async fn piece_of(self, places: &Semaphore) -> Result<(Bytes, Self), Stopped> {
        let ready = match &self.from {
            Feed::Here(..) => self.end,
            Feed::Coming(reader) => reader.ready(self.next..self.end).await?,
        };
        // INVARIANT: nobody closes the semaphore.
        let _place = places.acquire().await;
        tokio::task::spawn_blocking(move || self.piece(ready)).await?
    }

    /// Whether it may still be read: what is deleted under a duty is not read to its end by whoever has it open.
    fn is_there(&self) -> bool {
        match &self.from {
            Feed::Here(source, dir) => dir.is_dir() && source.has_names(),
            Feed::Coming(reader) => reader.is_there(),
        }
    }

    /// Reads what comes next and is `ready`, and says how to go on.
    fn piece(mut self, ready: u64) -> Result<(Bytes, Self), Stopped> {
        let manifest = self.manifest.clone();
        let first = self.next;
        let mut bytes = 0;
        while self.next < ready && bytes < PIECE_BYTES {
            bytes += manifest.group(self.next).map_or(0, |group| u64::from(group.bytes));
            self.next = self.next.saturating_add(1);
        }
        let mut buffer = self.buffers.take(usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut rest = buffer.as_mut();
        let mut begins = None;
        for extent in manifest.extents_in(vec![(first, self.next)]) {
            let own = usize::try_from(extent.bytes).ok().and_then(|bytes| rest.split_at_mut_checked(bytes));
            let (own, after) = own.ok_or(SourceError::Group { index: extent.first })?;
            match &mut self.from {
                Feed::Here(source, _) => source.read_true(&extent, own, &self.compared)?,
                Feed::Coming(reader) => reader.read(&extent, own)?,
            }
            begins = begins.or(Some(extent.offset));
            rest = after;
        }
        // Groups of a file follow each other without holes; the first and the last may reach beyond what is wanted.
        let begins = begins.unwrap_or(self.range.start);
        let place = |at: u64| usize::try_from(at.saturating_sub(begins)).unwrap_or(usize::MAX).min(buffer.len());
        let wanted = place(self.range.start)..place(self.range.end);
        Ok((self.buffers.lend(buffer).slice(wanted), self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::import::tests::{model, request};

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (range, bytes, wanted) in [
            (None, 10, Wanted::Whole),
            (Some("bytes=0-0"), 10, Wanted::Part(0..1)),
            (Some("bytes=2-5"), 10, Wanted::Part(2..6)),
            (Some("bytes=2-"), 10, Wanted::Part(2..10)),
            (Some("bytes=2-99"), 10, Wanted::Part(2..10)),
            (Some("bytes=-3"), 10, Wanted::Part(7..10)),
            (Some("bytes=10-"), 10, Wanted::Beyond),
            (Some("bytes=0-1,4-5"), 10, Wanted::Whole),
            (Some("lines=1-2"), 10, Wanted::Whole),
            (Some("bytes=5-2"), 10, Wanted::Whole),
            (Some("bytes=0-0"), 0, Wanted::NothingOfNothing),
            (Some("bytes= 0-0"), 0, Wanted::NothingOfNothing),
            (Some("bytes=0-"), 0, Wanted::Whole),
            (Some("bytes=-5"), 0, Wanted::Whole),
            (None, 0, Wanted::Whole),
        ] {
            assert_eq!(Wanted::of(range, bytes), wanted, "{range:?} of {bytes}");
        }
    }

    #[tokio::test]
    async fn a_download_ends_before_its_end_where_it_may_not_go_on() {
        let (dir, manifests) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        std::fs::write(dir.path().join("notes.txt"), "x".repeat(4 * 1024 * 1024)).expect("written");
        let local =
            crate::models::import::import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let manifest = crate::models::load_manifest(manifests.path(), local.manifest).expect("loaded");
        let bytes = manifest.files()[0].bytes;
        let (kept, file) = (manifests.path().join("kept"), dir.path().join("notes.txt"));
        std::fs::hard_link(&file, &kept).expect("linked");
        let read = async |what: &'static str, pieces: u32| {
            let (root, manifest) = (dir.path().to_owned(), manifest.clone());
            let (compared, free) = (Arc::new(Compared::default()), Arc::new(Semaphore::new(1)));
            let left = std::sync::atomic::AtomicU32::new(pieces);
            let goes_on = move || left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) > 0;
            let body = body(Content::Here(root), manifest, (0, 0..bytes), compared, free, goes_on).await;
            let body = body.expect("opened");
            if what == "deleted" {
                std::fs::remove_file(&file).expect("removed");
                std::fs::remove_file(&kept).expect("removed");
            }
            axum::body::to_bytes(body, usize::MAX).await.is_ok()
        };
        assert!(!read("no leave any more", 1).await);
        assert!(read("leave", 100).await);
        assert!(!read("deleted", 100).await, "while the directory stays");
    }

    #[tokio::test]
    async fn every_range_of_every_file_is_what_lies_there() {
        let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let local =
            crate::models::import::import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let manifest = crate::models::load_manifest(manifests.path(), local.manifest).expect("loaded");
        let (compared, free) = (Arc::new(Compared::default()), Arc::new(Semaphore::new(1)));
        for (number, file) in (0..).zip(manifest.files()) {
            let content = std::fs::read(dir.path().join(&file.path)).expect("read");
            let ends = [0, 1, 7, 100, file.bytes / 2, file.bytes.saturating_sub(1), file.bytes];
            for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (*from, *to))) {
                if from > to || to > file.bytes {
                    continue;
                }
                let (root, manifest) = (dir.path().to_owned(), manifest.clone());
                let (compared, free) = (Arc::clone(&compared), Arc::clone(&free));
                let part = (number, from..to);
                let body = body(Content::Here(root), manifest, part, compared, free, || true).await.expect("opened");
                let read = axum::body::to_bytes(body, usize::MAX).await.expect("read");
                let at = |at: u64| usize::try_from(at).expect("small");
                assert_eq!(read, content[at(from)..at(to)], "{} {from}..{to}", file.path);
            }
        }
    }
}
