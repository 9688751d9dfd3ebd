//! The importer's door: the only code that takes artefact bytes off a wire and hands them to anyone.
//!
//! A group is verified before it is written, and nothing that was written is visible under its final name until
//! [`deliver_artefact`] has taken the permission by value. Packets are collected into batches, which one thread assembles
//! into groups, verifies and writes: memory does not depend on the artefact.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alliance_protocol::{
    border::Inbound,
    core::{BulkEvent, BulkFailure, admin::Side},
    crossing::RefusalCode,
    id::CrossingId,
    limits,
    manifest::{Manifest, runs_valid},
};
use bytes::Bytes;
use quinn::RecvStream;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    ending::read_failed,
    frame::Kind,
    gauge::Gauge,
    shaper::Flow,
    task::{Link, Plane, Report, blocking, no_progress, stalled},
};
use crate::models::{Staging, store_manifest};

/// Bytes that are handed over at a time, so that a hop between threads is paid once for many packets.
const BATCH_BYTES: usize = 1024 * 1024;

/// Batches that wait for the writing thread. Beyond that the stream is not read, and flow control holds the sender.
const BATCHES_WAITING: usize = 2;

/// Segments taken from the stream at a time, under one lock of the connection.
const CHUNKS_PER_READ: usize = 64;

/// Milliseconds between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Held by everything that may still write; when all are gone, nothing does.
pub(super) type Alive = mpsc::Sender<Infallible>;

/// An artefact that is on disk and verified, not yet delivered.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) staging: Staging,
    pub(super) inbound: Inbound,
    /// Bytes that this crossing moved.
    pub(super) bytes: u64,
    /// Bytes that were here before.
    pub(super) held_bytes: u64,
}

/// Takes the manifest and every group that is not held.
pub(super) async fn receive_artefact(
    plane: &Plane,
    link: &mut Link,
    crossing: CrossingId,
    inbound: Inbound,
    staging: Staging,
    alive: &Alive,
) -> Result<Received, BulkFailure> {
    let limit = plane.deadlines.stall;
    let Link { recv, activity, .. } = link;
    let activity = &*activity;
    let work = async {
        let (_, encoded) = super::frame::read(recv, &[Kind::Manifest], activity).await?;
        let (manifest, inbound, staging) = begin(inbound, encoded, staging, alive.clone()).await?;
        let held_bytes = manifest.bytes_of_runs(inbound.held());
        let bytes = manifest.bytes().saturating_sub(held_bytes);
        let running = plane.gauges.begin(crossing, Side::Importer, inbound.exporter(), bytes)?;
        let gauge = running.gauge();
        let (batches, waiting) = mpsc::channel(BATCHES_WAITING);
        let writing = {
            let (held, gauge, alive) = (inbound.held().to_vec(), Arc::clone(gauge), alive.clone());
            blocking(move || {
                let _alive = alive;
                write_groups(staging, &manifest, &held, Packets::new(waiting), &gauge)
            })
        };
        let taking = take_groups(plane, recv, &gauge.flow, bytes, batches, activity);
        let staging = tokio::select! {
            outcome = async { tokio::try_join!(writing, taking) } => outcome.map(|(staging, ())| staging),
            never = show_progress(plane, crossing, gauge, bytes) => match never {},
        }?;
        Ok(Received { staging, inbound, bytes, held_bytes })
    };
    let received = tokio::select! {
        outcome = work => outcome,
        () = stalled(activity, limit) => Err(no_progress(limit)),
    }?;
    finish(received, alive.clone()).await
}

/// Makes durable what was received. The exporter has nothing to send meanwhile, so this is no stall.
async fn finish(mut received: Received, alive: Alive) -> Result<Received, BulkFailure> {
    blocking(move || {
        let _alive = alive;
        received.staging.finish()?;
        Ok(received)
    })
    .await
}

/// Puts the verified artefact in place under its final name.
pub(super) async fn deliver_artefact(
    plane: &Plane,
    staging: Staging,
    inbound: Inbound,
    alive: Alive,
) -> Result<(), BulkFailure> {
    let manifests = plane.manifests.clone();
    blocking(move || {
        let _alive = alive;
        // Kept beside the manifests of models that were imported here, so that what came can be verified and offered on.
        if let Some(manifest) = staging.manifest() {
            store_manifest(&manifests, manifest).map_err(|error| BulkFailure::Disk(error.to_string()))?;
        }
        let place = staging.deliver(inbound)?;
        tracing::info!(place = %place.display(), "an artefact was delivered");
        Ok(())
    })
    .await
}

/// Opens the manifest under the permission and prepares the disk for it.
async fn begin(
    inbound: Inbound,
    encoded: Vec<u8>,
    mut staging: Staging,
    alive: Alive,
) -> Result<(Manifest, Inbound, Staging), BulkFailure> {
    blocking(move || {
        let _alive = alive;
        let manifest = inbound.open_manifest(&encoded).map_err(|error| BulkFailure::Tampered(error.to_string()))?;
        if !runs_valid(inbound.held(), manifest.group_count()) {
            tracing::error!("the groups that are said to be held are not groups of the manifest");
            return Err(BulkFailure::EndedHere(RefusalCode::BadRequest));
        }
        staging.begin(&manifest)?;
        Ok((manifest, inbound, staging))
    })
    .await
}

/// Takes exactly `wanted` bytes from the stream, as they come, in batches.
async fn take_groups(
    plane: &Plane,
    stream: &mut RecvStream,
    flow: &Flow,
    wanted: u64,
    batches: mpsc::Sender<Vec<Bytes>>,
    activity: &AtomicU64,
) -> Result<(), BulkFailure> {
    let shaper = &plane.gauges.shaper;
    let (mut left, mut allowed) = (wanted, 0_usize);
    let (mut batch, mut batch_bytes) = (Vec::new(), 0usize);
    let mut chunks: Vec<Bytes> = vec![Bytes::new(); CHUNKS_PER_READ];
    while left > 0 {
        let read = stream.read_chunks(&mut chunks).await.map_err(|error| read_failed(&error))?;
        let count = read.ok_or_else(|| BulkFailure::Protocol("the stream ended before the last group".to_owned()))?;
        let taken: usize = chunks.iter().take(count).map(Bytes::len).sum();
        // What is not taken yet fills the window, and holds the sender. A turn is waited for as a whole, so that it has the
        // length that the priority gives it, however the bytes arrive.
        while allowed < taken {
            let turn = shaper.turn(flow);
            shaper.pass(flow, turn).await;
            // An order to limit it may come at any time, so that what is not limited is let pass read by read.
            allowed = if turn == usize::MAX { taken } else { allowed.saturating_add(turn) };
        }
        allowed = allowed.saturating_sub(taken);
        for chunk in chunks.iter_mut().take(count).map(std::mem::take) {
            let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            plane.artefact.received.fetch_add(bytes, Ordering::Relaxed);
            activity.fetch_add(bytes, Ordering::Relaxed);
            left = left
                .checked_sub(bytes)
                .ok_or_else(|| BulkFailure::Protocol("more bytes than the manifest has".to_owned()))?;
            batch_bytes = batch_bytes.saturating_add(chunk.len());
            batch.push(chunk);
        }
        if batch_bytes >= BATCH_BYTES || left == 0 {
            batch_bytes = 0;
            // The writing thread has ended early; it says why.
            if batches.send(std::mem::take(&mut batch)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Assembles, verifies and writes the groups in the order of the manifest.
fn write_groups(
    mut staging: Staging,
    manifest: &Manifest,
    held: &[(u64, u64)],
    mut packets: Packets,
    gauge: &Gauge,
) -> Result<Staging, BulkFailure> {
    let mut bytes = Vec::with_capacity(usize::try_from(limits::GROUP_BYTES).unwrap_or_default());
    for extent in manifest.extents_except(held) {
        bytes.clear();
        if !packets.fill(&mut bytes, usize::try_from(extent.bytes).unwrap_or(usize::MAX)) {
            return Err(BulkFailure::Lost("the transfer was cut".to_owned()));
        }
        // Compared with the manifest there, before it is written.
        staging.write(&extent, &bytes)?;
        gauge.add(u64::from(extent.bytes));
    }
    Ok(staging)
}

/// The bytes of the stream, without the boundaries in which they came.
struct Packets {
    batches: mpsc::Receiver<Vec<Bytes>>,
    ready: VecDeque<Bytes>,
}

impl Packets {
    fn new(batches: mpsc::Receiver<Vec<Bytes>>) -> Self {
        Self { batches, ready: VecDeque::new() }
    }

    /// Appends bytes until `buffer` has `wanted`; false where the stream is cut before.
    fn fill(&mut self, buffer: &mut Vec<u8>, wanted: usize) -> bool {
        while buffer.len() < wanted {
            let missing = wanted.saturating_sub(buffer.len());
            match self.ready.front_mut() {
                Some(packet) if packet.len() > missing => buffer.extend_from_slice(&packet.split_to(missing)),
                Some(packet) => {
                    buffer.extend_from_slice(packet);
                    self.ready.pop_front();
                }
                None => match self.batches.blocking_recv() {
                    Some(batch) => self.ready = VecDeque::from(batch),
                    None => return false,
                },
            }
        }
        true
    }
}

/// Tells Core how far the pull is, at most ten times a second, and not while Core is behind.
async fn show_progress(plane: &Plane, crossing: CrossingId, gauge: &Gauge, total: u64) -> Infallible {
    let mut ticks = interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = 0;
    loop {
        ticks.tick().await;
        let bytes = gauge.bytes();
        let report = Report::Event(BulkEvent::Progressed { crossing, bytes, total });
        if bytes != shown && plane.reports.try_send(report).is_ok() {
            shown = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::{
        ending::Ending,
        tests::{links, plane, soon},
    };

    /// What comes of `sent` bytes and then an end of the stream, or a reset, where `wanted` are to come.
    async fn take(sent: usize, wanted: u64, reset: Option<RefusalCode>) -> (Result<(), BulkFailure>, u64) {
        let (plane, (mut exporter, mut importer, _lines)) = (plane(), links().await);
        let (batches, mut waiting) = mpsc::channel::<Vec<Bytes>>(BATCHES_WAITING);
        let sending = async {
            exporter.send.write_all(&vec![7; sent]).await.expect("sent");
            match reset {
                Some(code) => exporter.send.reset(Ending::Refused(code).into()).expect("open"),
                None => exporter.send.finish().expect("open"),
            }
        };
        let collecting = async {
            let mut bytes = 0;
            while let Some(batch) = waiting.recv().await {
                bytes += batch.iter().map(Bytes::len).sum::<usize>();
            }
            bytes
        };
        let flow = Flow { side: Side::Importer, peer: importer.peer, member: None };
        let taking = take_groups(&plane, &mut importer.recv, &flow, wanted, batches, &importer.activity);
        let ((), collected, outcome) = soon(futures::future::join3(sending, collecting, taking)).await;
        let received = plane.artefact.received.load(Ordering::Relaxed);
        if outcome.is_ok() {
            assert_eq!((u64::try_from(collected).expect("small"), received), (wanted, wanted));
        }
        (outcome, received)
    }

    #[tokio::test]
    async fn exactly_the_wanted_bytes_are_taken() {
        for bytes in [0, 1, 262_144, 5_000_000] {
            let (outcome, _) = take(bytes, u64::try_from(bytes).expect("small"), None).await;
            assert_eq!(outcome, Ok(()), "{bytes}");
        }
        let (outcome, received) = take(1000, 1001, None).await;
        assert!(matches!(&outcome, Err(BulkFailure::Protocol(why)) if why.contains("before the last")), "{outcome:?}");
        assert_eq!(received, 1000);
        let (outcome, _) = take(1001, 1000, None).await;
        assert!(matches!(&outcome, Err(BulkFailure::Protocol(why)) if why.contains("more bytes")), "{outcome:?}");
        let (outcome, _) = take(1000, 1_000_000, Some(RefusalCode::DeniedByLaw)).await;
        assert_eq!(outcome, Err(BulkFailure::EndedByPeer(RefusalCode::DeniedByLaw)));
    }

    #[test]
    fn packets_become_groups_whatever_their_boundaries() {
        let stream: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for packet_bytes in [1, 7, 1000, 9_999, 10_000] {
            let (batches, waiting) = mpsc::channel(16);
            let packets: Vec<Bytes> = stream.chunks(packet_bytes).map(Bytes::copy_from_slice).collect();
            for batch in packets.chunks(packets.len().div_ceil(16)) {
                batches.try_send(batch.to_vec()).expect("room");
            }
            drop(batches);
            let mut packets = Packets::new(waiting);
            let mut seen = Vec::new();
            for group_bytes in [1, 4096, 4096, 1807] {
                let mut group = Vec::new();
                assert!(packets.fill(&mut group, group_bytes), "{packet_bytes}");
                assert_eq!(group.len(), group_bytes);
                seen.extend(group);
            }
            assert_eq!(seen, stream);
            assert!(!packets.fill(&mut Vec::new(), 1), "there is no more");
        }
    }
}
