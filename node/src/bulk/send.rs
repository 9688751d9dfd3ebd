//! The exporter's door: the only code that puts artefact bytes on a wire.
//!
//! [`send_artefact`] takes the permission by value, checks that it is for this peer, this session and this manifest, and
//! only then sends the clearance, the manifest and the groups that the importer wants, each of them once. Nothing is sent that
//! is not what the manifest says, so that a file that was changed since its import does not leave; each of its bytes passes
//! through [`put`], which counts it. Files are read by a thread of their own, a few groups ahead, so that memory does not
//! depend on the artefact. What is still on its way to this node is sent on as it comes.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alliance_protocol::{
    border::{Cleared, Outbound},
    core::{BulkFailure, admin::Side},
    crossing::RefusalCode,
    id::{ManifestId, SessionBinding},
    key::PublicKey,
    limits,
    manifest::{Extent, Manifest, decode_runs, encode_runs},
};
use bytes::Bytes;
use quinn::{SendStream, StoppedError, VarInt};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    ending::{ended_by_peer, write_failed},
    frame::{self, Inbox, Kind},
    gathering::{Files, Gathering},
    gauge::Gauge,
    task::{Link, Plane, blocking, no_progress, stalled},
};
use crate::{
    buffers::Buffers,
    models::{Compared, Source, load_manifest},
};

/// Extents that are handed over at a time: 1 MiB, so that a hop between threads is paid once for many packets.
const EXTENTS_PER_BATCH: usize = 4;

/// Batches that are read ahead of the wire.
const BATCHES_AHEAD: usize = 2;

/// Buffers that are kept to be used again: as much as may wait for an acknowledgement.
const BUFFERS_MAX: usize = 80;

/// Frames of wanted groups that wait for their turn; beyond that the importer is not heard.
const WANTS_WAITING: usize = 256;

/// Between two announcements of groups that have come.
const NEWS_EVERY: Duration = Duration::from_millis(50);

/// What is to be sent: the manifest, as it is and as bytes, and where its groups are.
#[derive(Debug)]
pub(super) struct Artefact {
    manifest: Manifest,
    encoded: Vec<u8>,
    content: Content,
}

/// Where groups come from.
#[derive(Debug)]
enum Content {
    /// Files of this node.
    Here(Source),
    /// What another node is sending here.
    Arriving(Files),
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
}

/// Reads the manifest `id` from `manifests` and opens its files under `files`, or those that are arriving there.
pub(super) async fn open_artefact(
    plane: &Plane,
    id: ManifestId,
    files: &Path,
    arriving: bool,
) -> Result<Artefact, BulkFailure> {
    if arriving {
        let gathering = plane.gatherings.find(files, id).ok_or(BulkFailure::EndedHere(RefusalCode::Ended))?;
        let manifest = gathering.known_manifest(plane.deadlines.order).await?;
        return Ok(Artefact { encoded: manifest.encode(), manifest, content: Content::Arriving(Files::of(gathering)) });
    }
    let (manifests, files) = (plane.manifests.clone(), files.to_owned());
    blocking(move || {
        let manifest = load_manifest(&manifests, id)?;
        let encoded = manifest.encode();
        let content = Content::Here(Source::open(&files, manifest.clone())?);
        Ok(Artefact { manifest, encoded, content })
    })
    .await
}

/// Sends the clearance, the manifest and every group that the importer wants, until it presents its receipt, which this
/// gives. `sent` grows with the bytes of groups that were handed to the connection, which is what may have left this node
/// when this fails.
pub(super) async fn send_artefact(
    plane: &Plane,
    link: &mut Link,
    outbound: Outbound,
    clearance: Vec<u8>,
    artefact: Artefact,
    sent: &AtomicU64,
) -> Result<Vec<u8>, BulkFailure> {
    let Artefact { manifest, encoded, content } = artefact;
    check(&outbound, link.peer, link.session, &manifest).map_err(|error| {
        tracing::error!(crossing = %outbound.crossing(), %error, "the permission is not for this connection; nothing is sent");
        BulkFailure::EndedHere(RefusalCode::BadRequest)
    })?;
    let running = plane.gauges.begin(outbound.crossing(), Side::Exporter, link.peer)?;
    let (stall, idle) = (plane.deadlines.stall, plane.deadlines.receipt);
    let Link { send, inbox, activity, .. } = link;
    let (gauge, activity, owed) = (running.gauge(), &*activity, AtomicU64::new(0));
    let stopped = stopped(send.stopped());
    let outlet = Outlet { plane, gauge, sent, activity, owed: &owed };
    let work = async {
        frame::write(send, Kind::Clearance, clearance).await?;
        frame::write(send, Kind::Manifest, encoded).await?;
        let news = News::of(&content, &manifest);
        let (wants, wanted) = mpsc::channel(WANTS_WAITING);
        let (batches, read) = mpsc::channel(BATCHES_AHEAD);
        let (reading, compared) = (manifest.clone(), Arc::clone(&plane.compared));
        tokio::task::spawn_blocking(move || read_groups(content, &reading, wanted, &compared, &batches));
        let listening = listen(inbox, (&manifest, outbound.cleared()), wants, outlet);
        let ((), receipt) = tokio::try_join!(send_groups(outlet, send, read, news), listening)?;
        Ok(receipt)
    };
    let owes = || owed.load(Ordering::Relaxed) > 0;
    tokio::select! {
        outcome = work => outcome,
        failure = stopped => Err(failure),
        () = stalled(activity, owes, stall) => Err(no_progress(stall)),
        // An importer that wants nothing is busy elsewhere: with other sources, or with its disk. It may be so for long.
        () = stalled(activity, || !owes(), idle) => Err(no_progress(idle)),
    }
}

/// Takes what the importer wants until it presents its receipt. No group is sent twice under one clearance.
async fn listen(
    inbox: &mut Inbox,
    (manifest, cleared): (&Manifest, &Cleared),
    wants: mpsc::Sender<Vec<(u64, u64)>>,
    outlet: Outlet<'_>,
) -> Result<Vec<u8>, BulkFailure> {
    let admitted = manifest.runs_admitted(|labels| cleared.admits(labels));
    let is_cleared = |(first, end): &(u64, u64)| {
        let at = admitted.partition_point(|run| run.1 <= *first);
        admitted.get(at).is_some_and(|run| run.0 <= *first && *end <= run.1)
    };
    let mut wanted = vec![false; usize::try_from(manifest.group_count()).unwrap_or_default()];
    loop {
        let (kind, payload) = inbox.frame(&[Kind::Want, Kind::Receipt], outlet.activity).await?;
        if kind == Kind::Receipt {
            return Ok(payload);
        }
        let runs = decode_runs(&payload, manifest.group_count());
        let runs = runs.ok_or_else(|| BulkFailure::Protocol("it wants groups that are none of the artefact".to_owned()))?;
        if !runs.iter().all(is_cleared) {
            return Err(BulkFailure::Protocol("it wants a group that was not cleared".to_owned()));
        }
        for (first, end) in &runs {
            let index = |group: &u64| usize::try_from(*group).unwrap_or(usize::MAX);
            let asked = wanted.get_mut(index(first)..index(end)).unwrap_or_default();
            if asked.iter().any(|asked| *asked) {
                return Err(BulkFailure::Protocol("it wants a group twice".to_owned()));
            }
            asked.fill(true);
        }
        let bytes = manifest.bytes_of_runs(&runs);
        outlet.gauge.ask(bytes);
        outlet.owed.fetch_add(bytes, Ordering::Relaxed);
        if wants.send(runs).await.is_err() {
            // The thread that reads has ended early, and has said why.
            return std::future::pending().await;
        }
    }
}

/// Which groups are here, for the importer.
struct News {
    /// None where all of them are, and were from the beginning.
    arriving: Option<Arc<Gathering>>,
    told: Vec<bool>,
    unsaid: Vec<(u64, u64)>,
}

impl News {
    fn of(content: &Content, manifest: &Manifest) -> Self {
        match content {
            Content::Here(_) => {
                let unsaid = if manifest.group_count() > 0 { vec![(0, manifest.group_count())] } else { Vec::new() };
                Self { arriving: None, told: Vec::new(), unsaid }
            }
            Content::Arriving(files) => {
                Self { arriving: Some(Arc::clone(files.gathering())), told: Vec::new(), unsaid: Vec::new() }
            }
        }
    }

    /// Tells what has come since the last time.
    async fn tell(&mut self, stream: &mut SendStream) -> Result<(), BulkFailure> {
        if let Some(gathering) = &self.arriving {
            self.unsaid = gathering.news(&mut self.told)?;
        }
        for runs in std::mem::take(&mut self.unsaid).chunks(limits::RUNS_PER_FRAME_MAX) {
            frame::write(stream, Kind::Have, encode_runs(runs)).await?;
        }
        Ok(())
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
    Ok(())
}

/// Reads the groups in the order in which they are wanted until nothing more can be, one cannot be read, or nobody takes them
/// any more.
fn read_groups(
    mut content: Content,
    manifest: &Manifest,
    mut wanted: mpsc::Receiver<Vec<(u64, u64)>>,
    compared: &Compared,
    batches: &mpsc::Sender<Result<Vec<Bytes>, BulkFailure>>,
) {
    let mut buffers = Buffers::new(BUFFERS_MAX);
    while let Some(runs) = wanted.blocking_recv() {
        let mut batch = Vec::with_capacity(EXTENTS_PER_BATCH);
        for extent in manifest.extents_in(runs) {
            match read_extent(&mut content, &extent, &mut buffers, compared, || !batches.is_closed()) {
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
        if !batch.is_empty() && batches.blocking_send(Ok(batch)).is_err() {
            return;
        }
    }
}

/// Reads one extent, if it is what the manifest says: what was changed on the disk since the import was not decided on, and
/// must not leave.
fn read_extent(
    content: &mut Content,
    extent: &Extent,
    buffers: &mut Buffers,
    compared: &Compared,
    is_wanted: impl Fn() -> bool,
) -> Result<Bytes, BulkFailure> {
    let mut bytes = buffers.take(usize::try_from(extent.bytes).unwrap_or_default());
    match content {
        Content::Here(source) => source.read_true(extent, &mut bytes, compared)?,
        Content::Arriving(files) => files.read_true(extent, &mut bytes, is_wanted)?,
    }
    Ok(buffers.lend(bytes))
}

/// What counts the bytes of one transfer on their way out.
#[derive(Clone, Copy)]
struct Outlet<'a> {
    plane: &'a Plane,
    gauge: &'a Gauge,
    /// Bytes handed to the connection, which may have left.
    sent: &'a AtomicU64,
    activity: &'a AtomicU64,
    /// Bytes that the importer wants and that were not handed over yet, for the watchdog.
    owed: &'a AtomicU64,
}

/// Sends what is read, and between two batches what is to be told of groups that have come.
async fn send_groups(
    outlet: Outlet<'_>,
    stream: &mut SendStream,
    mut batches: mpsc::Receiver<Result<Vec<Bytes>, BulkFailure>>,
    mut news: News,
) -> Result<(), BulkFailure> {
    let mut ticks = interval(NEWS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    news.tell(stream).await?;
    loop {
        tokio::select! {
            batch = batches.recv() => match batch {
                Some(batch) => {
                    let batch = batch.inspect_err(|error| tracing::error!(%error, "the artefact on disk cannot be sent"))?;
                    send_batch(outlet, stream, batch).await?;
                }
                None => return Ok(()),
            },
            _ = ticks.tick(), if news.arriving.is_some() => news.tell(stream).await?,
        }
    }
}

/// Sends groups as one frame, as fast as the limits permit.
async fn send_batch(outlet: Outlet<'_>, stream: &mut SendStream, mut batch: Vec<Bytes>) -> Result<(), BulkFailure> {
    frame::announce(stream, Kind::Groups, batch.iter().map(Bytes::len).sum()).await?;
    let (shaper, flow) = (&outlet.plane.gauges.shaper, &outlet.gauge.flow);
    let turn = shaper.turn(flow);
    if turn == usize::MAX {
        return put(outlet, stream, &mut batch).await;
    }
    for mut bytes in batch {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(turn));
            shaper.pass(flow, part.len()).await;
            put(outlet, stream, &mut [part]).await?;
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
        outlet.owed.fetch_sub(bytes.min(outlet.owed.load(Ordering::Relaxed)), Ordering::Relaxed);
        chunks = chunks.get_mut(written.chunks..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alliance_protocol::id::CrossingId;

    use super::*;
    use crate::bulk::tests::{links, plane, soon};

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
            let running = plane.gauges.begin(CrossingId([1; 32]), Side::Exporter, exporter.peer).expect("begins");
            let owed = AtomicU64::new(0);
            let gauge = running.gauge();
            let outlet = Outlet { plane: &plane, gauge, sent: &sent, activity: &exporter.activity, owed: &owed };
            let news = News { arriving: None, told: Vec::new(), unsaid: vec![(0, 33)] };
            let outcome = send_groups(outlet, &mut exporter.send, read, news).await;
            exporter.send.finish().expect("open");
            outcome
        };
        let taking = async {
            let (activity, mut groups) = (AtomicU64::new(0), Vec::new());
            let (kind, runs) = importer.inbox.frame(&[Kind::Have], &activity).await.expect("what is here");
            assert_eq!((kind, decode_runs(&runs, 33)), (Kind::Have, Some(vec![(0, 33)])));
            while let Ok((_, bytes)) = importer.inbox.frame(&[Kind::Groups], &activity).await {
                groups.extend(bytes);
            }
            groups
        };
        let (outcome, (), taken) = soon(futures::future::join3(sending, reading, taking)).await;
        assert_eq!(outcome, Err(BulkFailure::Disk("the disk is gone".to_owned())));
        assert_eq!(taken.len(), 32 * 256 * 1024 + 3);
        assert!(taken.chunks(256 * 1024).zip(0..32u8).all(|(bytes, n)| bytes.iter().all(|byte| *byte == n)));
        let count = u64::try_from(taken.len()).expect("small");
        assert_eq!(sent.load(Ordering::Relaxed), count);
        assert_eq!(plane.artefact.sent.load(Ordering::Relaxed), count);
        assert_eq!(exporter.activity.load(Ordering::Relaxed), count);
    }
}
