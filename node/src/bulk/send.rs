//! The exporter's door: the only code that puts artefact bytes on a wire.
//!
//! [`send_artefact`] takes the permission by value, checks that it is for this peer, this session and this manifest, and
//! only then sends the clearance, the manifest and the groups. Nothing is sent that is not what the manifest says, so that
//! a file that was changed since its import does not leave; each of its bytes passes through [`put`], which counts it.
//! Files are read by a thread of their own, a few groups ahead, so that memory does not depend on the artefact.

use std::{
    collections::VecDeque,
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use alliance_protocol::{
    border::Outbound,
    core::{BulkFailure, admin::Side},
    crossing::RefusalCode,
    id::{ManifestId, SessionBinding},
    key::PublicKey,
    limits,
    manifest::{Extent, Manifest, runs_valid},
};
use bytes::{Bytes, BytesMut};
use quinn::{SendStream, StoppedError, VarInt};
use tokio::sync::mpsc;

use super::{
    ending::{ended_by_peer, write_failed},
    frame::Kind,
    gauge::Gauge,
    task::{Link, Plane, blocking, no_progress, stalled},
};
use crate::models::{Compared, Source, load_manifest};

/// Extents that are handed over at a time: 1 MiB, so that a hop between threads is paid once for many packets.
const EXTENTS_PER_BATCH: usize = 4;

/// Batches that are read ahead of the wire.
const BATCHES_AHEAD: usize = 2;

/// Buffers that are kept to be used again: as much as may wait for an acknowledgement.
const BUFFERS_MAX: usize = 80;

/// What is to be sent: the manifest, as it is and as bytes, and the files that it describes.
#[derive(Debug)]
pub(super) struct Artefact {
    manifest: Manifest,
    encoded: Vec<u8>,
    source: Source,
}

/// Why a permission does not open the door here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum WrongDoor {
    #[error("the clearance is for {cleared}, the peer is {found}")]
    Importer { cleared: PublicKey, found: PublicKey },
    #[error("the clearance is for another session")]
    Session,
    #[error("the clearance is for the manifest {cleared}, loaded is {found}")]
    Manifest { cleared: ManifestId, found: ManifestId },
    #[error("the runs of groups that the importer holds are not ascending within {groups} groups")]
    Held { groups: u64 },
}

/// Reads the manifest `id` from `manifests` and opens its files under `files`.
pub(super) async fn open_artefact(plane: &Plane, id: ManifestId, files: &Path) -> Result<Artefact, BulkFailure> {
    let (manifests, files) = (plane.manifests.clone(), files.to_owned());
    blocking(move || {
        let manifest = load_manifest(&manifests, id)?;
        let encoded = manifest.encode();
        let source = Source::open(&files, manifest.clone())?;
        Ok(Artefact { manifest, encoded, source })
    })
    .await
}

/// Sends the clearance, the manifest and every group that the importer does not hold. `sent` grows with the bytes of
/// groups that were handed to the connection, which is what may have left this node when this fails.
pub(super) async fn send_artefact(
    plane: &Plane,
    link: &mut Link,
    outbound: Outbound,
    clearance: Vec<u8>,
    artefact: Artefact,
    sent: &AtomicU64,
) -> Result<(), BulkFailure> {
    let Artefact { manifest, encoded, source } = artefact;
    check(&outbound, link.peer, link.session, &manifest).map_err(|error| {
        tracing::error!(crossing = %outbound.crossing(), %error, "the permission is not for this connection; nothing is sent");
        BulkFailure::EndedHere(RefusalCode::BadRequest)
    })?;
    let total = manifest.bytes().saturating_sub(manifest.bytes_of_runs(outbound.held()));
    let running = plane.gauges.begin(outbound.crossing(), Side::Exporter, link.peer, total)?;
    let limit = plane.deadlines.stall;
    let Link { send, activity, .. } = link;
    let stopped = stopped(send.stopped());
    let work = async {
        super::frame::write(send, Kind::Clearance, clearance).await?;
        super::frame::write(send, Kind::Manifest, encoded).await?;
        let (batches, read) = mpsc::channel(BATCHES_AHEAD);
        let (held, compared) = (outbound.held().to_vec(), Arc::clone(&plane.compared));
        tokio::task::spawn_blocking(move || read_groups(source, &manifest, &held, &compared, &batches));
        let outlet = Outlet { plane, gauge: running.gauge(), sent, activity };
        send_groups(outlet, send, read).await
    };
    tokio::select! {
        outcome = work => outcome,
        failure = stopped => Err(failure),
        () = stalled(activity, limit) => Err(no_progress(limit)),
    }
}

/// What the importer says when it stops taking. A write that flow control holds up does not always hear of it.
async fn stopped(stopped: impl Future<Output = Result<Option<VarInt>, StoppedError>>) -> BulkFailure {
    match stopped.await {
        Ok(Some(code)) => ended_by_peer(code),
        // The write says why the connection is gone.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

fn check(outbound: &Outbound, peer: PublicKey, session: SessionBinding, manifest: &Manifest) -> Result<(), WrongDoor> {
    if outbound.importer() != peer {
        return Err(WrongDoor::Importer { cleared: outbound.importer(), found: peer });
    }
    if outbound.session() != session {
        return Err(WrongDoor::Session);
    }
    if outbound.manifest() != manifest.id() {
        return Err(WrongDoor::Manifest { cleared: outbound.manifest(), found: manifest.id() });
    }
    let groups = manifest.group_count();
    if runs_valid(outbound.held(), groups) { Ok(()) } else { Err(WrongDoor::Held { groups }) }
}

/// Reads the groups in their order until all are read, one cannot be read, or nobody takes them any more.
fn read_groups(
    mut source: Source,
    manifest: &Manifest,
    held: &[(u64, u64)],
    compared: &Compared,
    batches: &mpsc::Sender<Result<Vec<Bytes>, BulkFailure>>,
) {
    let mut buffers = Buffers::default();
    let mut batch = Vec::with_capacity(EXTENTS_PER_BATCH);
    for extent in manifest.extents_except(held) {
        match read_extent(&mut source, &extent, &mut buffers, compared) {
            Ok(bytes) => batch.push(bytes),
            Err(error) => {
                // Nobody to tell means that the transfer is over already.
                let _ = batches.blocking_send(Err(error));
                return;
            }
        }
        if batch.len() >= EXTENTS_PER_BATCH && batches.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return;
        }
    }
    if !batch.is_empty() {
        let _ = batches.blocking_send(Ok(batch));
    }
}

/// Reads one extent, if it is what the manifest says: what was changed on the disk since the import was not decided on, and
/// must not leave.
fn read_extent(
    source: &mut Source,
    extent: &Extent,
    buffers: &mut Buffers,
    compared: &Compared,
) -> Result<Bytes, BulkFailure> {
    let mut bytes = buffers.take(usize::try_from(extent.bytes).unwrap_or_default());
    source.read_true(extent, &mut bytes, compared)?;
    Ok(buffers.lend(bytes))
}

/// What was sent, until it is acknowledged and can be overwritten: memory that was never used costs more than what is read
/// into it, and memory that was used lately is still in the processor's cache.
#[derive(Default)]
struct Buffers(VecDeque<Bytes>);

impl Buffers {
    /// A buffer of this length, with any content.
    fn take(&mut self, bytes: usize) -> BytesMut {
        // What was sent first is acknowledged first.
        let is_free = self.0.front().is_some_and(Bytes::is_unique);
        let free = if is_free { self.0.pop_front() } else { None };
        let free = free.and_then(|oldest| oldest.try_into_mut().ok());
        let mut buffer = free.filter(|free| free.capacity() >= bytes).unwrap_or_else(|| {
            BytesMut::with_capacity(usize::try_from(limits::GROUP_BYTES).unwrap_or_default().max(bytes))
        });
        buffer.resize(bytes, 0);
        buffer
    }

    /// The bytes to be sent. They come back when nobody else has them any more.
    fn lend(&mut self, buffer: BytesMut) -> Bytes {
        let bytes = buffer.freeze();
        if self.0.len() < BUFFERS_MAX {
            self.0.push_back(bytes.clone());
        }
        bytes
    }
}

/// What counts the bytes of one transfer on their way out.
#[derive(Clone, Copy)]
struct Outlet<'a> {
    plane: &'a Plane,
    gauge: &'a Gauge,
    /// Bytes handed to the connection, which may have left.
    sent: &'a AtomicU64,
    activity: &'a AtomicU64,
}

async fn send_groups(
    outlet: Outlet<'_>,
    stream: &mut SendStream,
    mut batches: mpsc::Receiver<Result<Vec<Bytes>, BulkFailure>>,
) -> Result<(), BulkFailure> {
    let (shaper, flow) = (&outlet.plane.gauges.shaper, &outlet.gauge.flow);
    while let Some(batch) = batches.recv().await {
        let mut batch = batch.inspect_err(|error| tracing::error!(%error, "the artefact on disk cannot be sent"))?;
        let turn = shaper.turn(flow);
        if turn == usize::MAX {
            put(outlet, stream, &mut batch).await?;
            continue;
        }
        for mut bytes in batch {
            while !bytes.is_empty() {
                let part = bytes.split_to(bytes.len().min(turn));
                shaper.pass(flow, part.len()).await;
                put(outlet, stream, &mut [part]).await?;
            }
        }
    }
    Ok(())
}

/// Hands artefact bytes to the connection and counts them, without copying them.
async fn put(outlet: Outlet<'_>, stream: &mut SendStream, mut chunks: &mut [Bytes]) -> Result<(), BulkFailure> {
    while !chunks.is_empty() {
        let written = stream.write_chunks(chunks).await.map_err(|error| write_failed(&error))?;
        let bytes = u64::try_from(written.bytes).unwrap_or(u64::MAX);
        outlet.plane.artefact.sent.fetch_add(bytes, Ordering::Relaxed);
        outlet.sent.fetch_add(bytes, Ordering::Relaxed);
        outlet.activity.fetch_add(bytes, Ordering::Relaxed);
        outlet.gauge.add(bytes);
        chunks = chunks.get_mut(written.chunks..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alliance_protocol::id::CrossingId;

    use super::*;
    use crate::bulk::tests::{links, plane, soon};

    #[test]
    fn buffers_come_back_when_nobody_else_has_them() {
        let mut buffers = Buffers::default();
        let mut lent = Vec::new();
        for n in 0..3_u8 {
            let mut buffer = buffers.take(1000);
            buffer.fill(n);
            lent.push(buffers.lend(buffer));
        }
        let places: Vec<*const u8> = lent.iter().map(|bytes| bytes.as_ptr()).collect();
        assert_eq!(buffers.take(2000).len(), 2000, "a new one, while all are lent");
        assert!(lent.iter().zip(0..3).all(|(bytes, n)| bytes.iter().all(|byte| *byte == n)), "nobody writes into them");
        lent.clear();
        for place in places {
            let buffer = buffers.take(1500);
            assert_eq!((buffer.as_ptr(), buffer.len()), (place, 1500), "the oldest first");
            drop(buffer);
        }
        assert!(buffers.0.is_empty());
    }

    #[tokio::test]
    async fn groups_go_out_in_order_and_every_byte_is_counted() {
        let (plane, (mut exporter, mut importer, _lines)) = (plane(), links().await);
        let (batches, read) = mpsc::channel(BATCHES_AHEAD);
        let sent = AtomicU64::new(0);
        let group = |n: u8| Bytes::from(vec![n; 256 * 1024]);
        let reading = async {
            for n in 0..8u8 {
                batches
                    .send(Ok(vec![group(4 * n), group(4 * n + 1), group(4 * n + 2), group(4 * n + 3)]))
                    .await
                    .expect("taken");
            }
            batches.send(Ok(vec![Bytes::from_static(b"end")])).await.expect("taken");
            batches.send(Err(BulkFailure::Disk("the disk is gone".to_owned()))).await.expect("taken");
        };
        let sending = async {
            let running = plane.gauges.begin(CrossingId([1; 32]), Side::Exporter, exporter.peer, 1).expect("begins");
            let outlet = Outlet { plane: &plane, gauge: running.gauge(), sent: &sent, activity: &exporter.activity };
            let outcome = send_groups(outlet, &mut exporter.send, read).await;
            exporter.send.finish().expect("open");
            outcome
        };
        let taking = importer.recv.read_to_end(usize::MAX);
        let (outcome, (), taken) = soon(futures::future::join3(sending, reading, taking)).await;
        assert_eq!(outcome, Err(BulkFailure::Disk("the disk is gone".to_owned())));
        let taken = taken.expect("all that was sent");
        assert_eq!(taken.len(), 32 * 256 * 1024 + 3);
        assert!(taken.chunks(256 * 1024).zip(0..32u8).all(|(bytes, n)| bytes.iter().all(|byte| *byte == n)));
        let count = u64::try_from(taken.len()).expect("small");
        assert_eq!(sent.load(Ordering::Relaxed), count);
        assert_eq!(plane.artefact.sent.load(Ordering::Relaxed), count);
        assert_eq!(exporter.activity.load(Ordering::Relaxed), count);
    }
}
