//! From the bytes of a stream to groups that are verified and in their place.
//!
//! Where the bulk plane has one thread, which is where processors are few, this happens on it, with bytes that are still in
//! its cache: another thread would have to be waited for, and while it is, the window of the path runs full or dry. Where
//! there are more, or once the disk makes itself felt, a thread of its own does it, which is handed batches of packets.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use alliance_protocol::{core::BulkFailure, limits, manifest::Extent};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

use super::{gathering::Seat, gauge::Gauge, receive::Alive, task::blocking};

/// Bytes that are handed over at a time, so that a hop between threads is paid once for many packets; few enough that what
/// waits is not much to send again after a crash.
const BATCH_BYTES: usize = 256 * 1024;

/// Pieces of packets in a batch: a little more than fill it. Each holds the packet that it came in, however short it is.
const CHUNKS_PER_BATCH: usize = 256;

/// Batches that wait for the writing thread. Beyond that the stream is not read, and flow control holds the sender.
const BATCHES_WAITING: usize = 2;

/// Bytes over which the time that writes take is added up, so that a moment on a busy machine is not taken for a disk.
const WATCHED_BYTES: usize = 4 * 1024 * 1024;

/// Assembles, verifies and writes the groups of one source, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Assembly {
    seat: Arc<Seat>,
    gauge: Arc<Gauge>,
    /// What is left of the piece that comes.
    extents: VecDeque<Extent>,
    /// What is here of the first of them.
    bytes: Vec<u8>,
}

impl Assembly {
    pub(super) fn new(seat: Arc<Seat>, gauge: Arc<Gauge>) -> Self {
        let bytes = Vec::with_capacity(usize::try_from(limits::GROUP_BYTES).unwrap_or_default());
        Self { seat, gauge, extents: VecDeque::new(), bytes }
    }

    /// Takes bytes, whatever the boundaries in which they came. Blocks where the disk does.
    fn take(&mut self, mut chunk: &[u8]) -> Result<(), BulkFailure> {
        loop {
            if self.extents.is_empty() {
                if chunk.is_empty() {
                    return Ok(());
                }
                let Some((manifest, piece)) = self.seat.expected() else {
                    return Err(BulkFailure::Protocol("more bytes than were wanted".to_owned()));
                };
                self.extents.extend(manifest.extents_in(vec![(piece.first, piece.end)]));
            }
            let Some(extent) = self.extents.front() else {
                return Err(BulkFailure::Protocol("bytes where none were wanted".to_owned()));
            };
            if !fill(&mut self.bytes, usize::try_from(extent.bytes).unwrap_or(usize::MAX), &mut chunk) {
                return Ok(());
            }
            // Compared with the manifest there, before it is written.
            self.seat.write(extent, &self.bytes)?;
            self.gauge.add(u64::from(extent.bytes));
            self.bytes.clear();
            self.extents.pop_front();
            if self.extents.is_empty() {
                self.seat.arrived();
            }
        }
    }

    /// Takes what is handed over until there is no more.
    fn take_all(mut self, mut batches: mpsc::Receiver<Vec<Bytes>>) -> Result<(), BulkFailure> {
        while let Some(batch) = batches.blocking_recv() {
            for chunk in batch {
                self.take(&chunk)?;
            }
        }
        if self.bytes.is_empty() { Ok(()) } else { Err(BulkFailure::Lost("the transfer was cut".to_owned())) }
    }
}

/// Moves bytes from the front of `chunk` to `buffer` until that has `wanted`; says whether it has.
fn fill(buffer: &mut Vec<u8>, wanted: usize, chunk: &mut &[u8]) -> bool {
    let missing = wanted.saturating_sub(buffer.len());
    let (now, later) = chunk.split_at_checked(missing).unwrap_or((chunk, &[]));
    buffer.extend_from_slice(now);
    *chunk = later;
    buffer.len() == wanted
}

/// Where packets go: to an [`Assembly`], here or on another thread.
#[derive(Debug)]
pub(super) struct Intake {
    /// None once it was handed over.
    here: Option<(Assembly, oneshot::Sender<Assembly>)>,
    /// For [`WATCHED_BYTES`] to be written here. Where it takes longer, all other transfers wait for the disk of this one.
    limit: Duration,
    /// Bytes that were taken since it was last looked at, and how long that took.
    taken: (usize, Duration),
    batches: mpsc::Sender<Vec<Bytes>>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
}

/// The thread that writes, if it comes to one.
#[derive(Debug)]
pub(super) struct Writing {
    handed: oneshot::Receiver<Assembly>,
    batches: mpsc::Receiver<Vec<Bytes>>,
}

/// Packets go to `assembly`: here until [`WATCHED_BYTES`] take longer than `limit`, or on a thread of its own from the
/// beginning where they are to be written `apart`.
pub(super) fn intake(assembly: Assembly, apart: bool, limit: Duration) -> (Intake, Writing) {
    let is_apart = assembly.seat.writes_apart();
    let (hand_over, handed) = oneshot::channel();
    let (batches, waiting) = mpsc::channel(BATCHES_WAITING);
    let here = Some((assembly, hand_over));
    let mut intake = Intake { here, limit, taken: (0, Duration::ZERO), batches, batch: Vec::new(), batch_bytes: 0 };
    if apart || is_apart {
        intake.hand_over();
    }
    (intake, Writing { handed, batches: waiting })
}

impl Writing {
    /// Writes what is handed over until there is no more; nothing where all was written as it came.
    pub(super) async fn run(self, alive: Alive) -> Result<(), BulkFailure> {
        let Self { handed, batches } = self;
        let Ok(assembly) = handed.await else { return Ok(()) };
        blocking(move || {
            let _alive = alive;
            // Its seat is given back before that is dropped.
            assembly.take_all(batches)
        })
        .await
    }
}

impl Intake {
    /// Whether the writing thread has ended early; it says why.
    pub(super) fn is_over(&self) -> bool {
        self.batches.is_closed()
    }

    /// Where the next packets are to be put; [`Intake::pass_on`] takes them.
    pub(super) fn packets(&mut self) -> &mut Vec<Bytes> {
        &mut self.batch
    }

    /// Passes on the `bytes` that were put there. What is `last` does not wait for more. What a thread is handed when it has
    /// ended is dropped.
    pub(super) async fn pass_on(&mut self, bytes: usize, last: bool) -> Result<(), BulkFailure> {
        if let Some((assembly, _)) = &mut self.here {
            let began = Instant::now();
            for chunk in self.batch.drain(..) {
                assembly.take(&chunk)?;
            }
            let (before, spent) = self.taken;
            self.taken = (before.saturating_add(bytes), spent.saturating_add(began.elapsed()));
            if self.taken.1 > self.limit {
                assembly.seat.write_apart();
            }
            if self.taken.0 >= WATCHED_BYTES {
                self.taken = (0, Duration::ZERO);
            }
            if assembly.seat.writes_apart() {
                self.hand_over();
            }
            // After a loss much is ready at once; packets of this connection and of others come first.
            yield_now().await;
            return Ok(());
        }
        self.batch_bytes = self.batch_bytes.saturating_add(bytes);
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= CHUNKS_PER_BATCH || last {
            self.batch_bytes = 0;
            // Told by `is_over`.
            let _ended = self.batches.send(std::mem::take(&mut self.batch)).await;
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        if let Some((assembly, to)) = self.here.take() {
            // Nobody takes it where the transfer is over.
            let _over = to.send(assembly);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_become_groups_whatever_their_boundaries() {
        let stream: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let sizes = [1, 4096, 4096, 1807];
        for packet_bytes in [1, 7, 1000, 9_999, 10_000] {
            let (mut groups, mut group) = (Vec::new(), Vec::new());
            for mut packet in stream.chunks(packet_bytes) {
                while !packet.is_empty() {
                    if fill(&mut group, sizes[groups.len()], &mut packet) {
                        groups.push(std::mem::take(&mut group));
                    }
                }
            }
            assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{packet_bytes}");
            assert_eq!(groups.concat(), stream, "{packet_bytes}");
            assert!(!fill(&mut group, 1, &mut &[][..]), "there is no more");
        }
    }
}
