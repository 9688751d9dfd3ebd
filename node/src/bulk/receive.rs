//! The importer's door: the only code that takes artefact bytes off a wire and hands them to anyone.
//!
//! A group is verified before it is written, and nothing that was written is visible under its final name until
//! [`deliver_artefact`] has taken the permission by value. Groups are verified and written as they come ([`super::assembly`]):
//! memory does not depend on the artefact.
//!
//! A source that is alone is asked for everything at once. One of several is asked for so much that it does not run dry, and
//! for its share of what is left at the end ([`super::board`]).

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alliance_protocol::{
    border::Inbound,
    core::{BulkEvent, BulkFailure, PartTaken, admin::Side},
    id::{CrossingId, ManifestId},
    limits,
    manifest::{Manifest, decode_runs, encode_runs},
};
use quinn::{Connection, SendStream};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    assembly::{Assembly, Intake, intake},
    board::Piece,
    frame::{self, Inbox, Kind},
    gathering::Seat,
    gauge::Gauge,
    shaper::Flow,
    task::{Link, Plane, Report, blocking, no_progress, stalled},
};
use crate::models::store_manifest;

/// Milliseconds between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Bytes that one of several sources owes at the least, and how much longer than two round trips it has something to send
/// beyond them. What is asked of one cannot be had from another that gets it in the meantime, so that it is little.
const OWED_BYTES: u64 = 2 * 1024 * 1024;
const OWED_FOR: Duration = Duration::from_millis(50);

/// Between two looks at whether a source that has nothing to do waits for another that is too slow.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Held by everything that may still write; when all are gone, nothing does.
pub(super) type Alive = mpsc::Sender<Infallible>;

/// How a source is used.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    /// It is asked for one piece after the other: others may be asked for the same, or somebody reads what comes.
    pub(super) piecewise: bool,
    /// Artefacts that lie here, in which parts of this one may be found.
    pub(super) local: Vec<(ManifestId, PathBuf)>,
}

/// An artefact that is on disk and verified, not yet delivered.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) inbound: Inbound,
    /// Bytes that this crossing moved.
    pub(super) bytes: u64,
    /// Bytes that are here from elsewhere.
    pub(super) held_bytes: u64,
    /// What it is, where only a part was wanted.
    pub(super) part: Option<PartTaken>,
}

/// What a source was asked for and has not sent.
#[derive(Debug, Default)]
pub(super) struct Debt {
    bytes: AtomicU64,
    /// All that is missing was asked for before it was known how much that is.
    everything: bool,
}

/// Asks for what is missing together with the request, where it is clear that this source will bring all of it: a round trip
/// less.
pub(super) async fn ask_ahead(link: &mut Link, seat: &Seat, usage: &Usage) -> Result<Debt, BulkFailure> {
    let mut debt = Debt::default();
    // Of a part it is known what is missing when it is known what was cleared.
    if usage.piecewise || seat.is_of_part() {
        return Ok(debt);
    }
    if seat.knows_what_is_missing() {
        debt.ask(&mut link.send, &seat.take_all()).await?;
    } else if usage.local.is_empty() {
        debt.everything = true;
        frame::write(&mut link.send, Kind::Want, encode_runs(&[(0, u64::MAX)])).await?;
    }
    Ok(debt)
}

impl Debt {
    async fn ask(&mut self, send: &mut SendStream, pieces: &[Piece]) -> Result<(), BulkFailure> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for piece in pieces {
            match runs.last_mut() {
                Some((_, end)) if *end == piece.first => *end = piece.end,
                _ => runs.push((piece.first, piece.end)),
            }
            self.bytes.fetch_add(piece.bytes, Ordering::Relaxed);
        }
        // The frame's runs ascend; pieces that were chosen in another order go into frames of their own.
        for ascending in runs.chunk_by(|one, next| one.1 <= next.0) {
            for runs in ascending.chunks(limits::RUNS_PER_FRAME_MAX) {
                frame::write(send, Kind::Want, encode_runs(runs)).await?;
            }
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn pay(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes.min(self.bytes()), Ordering::Relaxed);
    }
}

/// Takes the manifest, and then groups until all are here, from this source or from others.
pub(super) async fn receive_artefact(
    plane: &Plane,
    link: &mut Link,
    inbound: Inbound,
    (seat, usage, debt): (&Arc<Seat>, Usage, Debt),
    alive: &Alive,
) -> Result<Received, BulkFailure> {
    let (limit, idle) = (plane.deadlines.stall, plane.deadlines.receipt);
    let crossing = inbound.crossing();
    let Link { connection, send, inbox, activity, .. } = link;
    let activity = &*activity;
    let (manifest, inbound) = {
        let taking = async {
            let (_, encoded) = inbox.frame(&[Kind::Manifest], activity).await?;
            open_manifest(inbound, encoded).await
        };
        tokio::select! {
            outcome = taking => outcome?,
            () = stalled(activity, || true, limit) => return Err(no_progress(limit)),
        }
    };
    let cleared = inbound.cleared().clone();
    seat.begin((manifest.clone(), cleared), &plane.manifests, usage.local.clone(), alive).await?;
    let running = plane.gauges.begin(crossing, Side::Importer, inbound.exporter())?;
    let gauge = running.gauge();
    let assembly = Assembly::new(Arc::clone(seat), Arc::clone(gauge));
    let (intake, writing) = intake(assembly, plane.writes_apart, plane.deadlines.write);
    let owed = AtomicU64::new(0);
    let (piecewise, wanted) = (usage.piecewise, seat.missing_bytes());
    let source = Taking { plane, connection, seat, gauge, piecewise, manifest: &manifest, activity, owed: &owed };
    let taking = source.take(send, inbox, debt, intake);
    tokio::select! {
        outcome = async { tokio::try_join!(writing.run(alive.clone()), taking) } => outcome.map(|((), ())| ()),
        () = stalled(activity, || owed.load(Ordering::Relaxed) > 0, limit) => Err(no_progress(limit)),
        // Also in the middle of a frame, which may take for ever.
        failure = seat.dropped() => Err(failure),
        // One that has nothing that is missing here. It may be so for long, as its exporter sees it.
        () = stalled(activity, || owed.load(Ordering::Relaxed) == 0, idle) => Err(no_progress(idle)),
        never = show_progress(plane, crossing, gauge, wanted) => match never {},
    }?;
    seat.finish(alive).await?;
    let bytes = gauge.bytes();
    Ok(Received { inbound, bytes, held_bytes: seat.wanted_bytes().saturating_sub(bytes), part: seat.part() })
}

/// Opens the manifest under the permission.
async fn open_manifest(inbound: Inbound, encoded: Vec<u8>) -> Result<(Manifest, Inbound), BulkFailure> {
    blocking(move || {
        let manifest = inbound.open_manifest(&encoded).map_err(|error| BulkFailure::Tampered(error.to_string()))?;
        Ok((manifest, inbound))
    })
    .await
}

/// Puts the verified artefact in place under its final name.
pub(super) async fn deliver_artefact(
    plane: &Plane,
    seat: &Arc<Seat>,
    inbound: Inbound,
    alive: Alive,
) -> Result<(), BulkFailure> {
    let (manifests, seat) = (plane.manifests.clone(), Arc::clone(seat));
    blocking(move || {
        let _alive = alive;
        // Given back before that is dropped.
        let seat = seat;
        // Kept beside the manifests of models that were imported here, so that what came can be verified and offered on.
        seat.deliver(inbound, |manifest| {
            store_manifest(&manifests, manifest).map_err(|error| BulkFailure::Disk(error.to_string()))
        })
    })
    .await
}

/// One source, while groups come from it.
struct Taking<'a> {
    plane: &'a Plane,
    connection: &'a Connection,
    seat: &'a Seat,
    gauge: &'a Gauge,
    piecewise: bool,
    manifest: &'a Manifest,
    activity: &'a AtomicU64,
    /// The source's debt, for the watchdog.
    owed: &'a AtomicU64,
}

impl Taking<'_> {
    /// Asks for groups and takes them, until all of the artefact are here.
    async fn take(
        &self,
        send: &mut SendStream,
        inbox: &mut Inbox,
        mut debt: Debt,
        mut intake: Intake,
    ) -> Result<(), BulkFailure> {
        let mut changes = self.seat.gathering().changes();
        let mut allowed = 0_usize;
        if debt.everything {
            debt.bytes = AtomicU64::new(self.seat.take_all().iter().map(|piece| piece.bytes).sum());
        }
        self.gauge.ask(debt.bytes());
        let mut announced = 0_u64;
        while !intake.is_over() {
            changes.borrow_and_update();
            self.seat.check()?;
            if self.piecewise || debt.bytes() == 0 {
                let bounded = || self.seat.take(debt.bytes(), self.owed_max());
                let pieces = if self.piecewise { bounded() } else { self.seat.take_all() };
                let before = debt.bytes();
                debt.ask(send, &pieces).await?;
                self.gauge.ask(debt.bytes().saturating_sub(before));
            }
            self.owed.store(debt.bytes(), Ordering::Relaxed);
            if debt.bytes() == 0 && self.seat.is_complete() {
                return Ok(());
            }
            tokio::select! {
                header = inbox.header(&[Kind::Have, Kind::Groups]) => match header? {
                    (Kind::Groups, bytes) => {
                        self.take_groups(inbox, bytes, &debt, &mut allowed, &mut intake).await?;
                    }
                    (_, bytes) => {
                        // What it has is no sign that it gives any of it.
                        let runs = inbox.payload(bytes, &AtomicU64::new(0)).await?;
                        let groups = self.manifest.group_count();
                        let wrong = || BulkFailure::Protocol("it has groups that are none of the artefact".to_owned());
                        let runs = decode_runs(&runs, groups).ok_or_else(wrong)?;
                        announced = runs.iter().fold(announced, |sum, (first, end)| sum.saturating_add(end.saturating_sub(*first)));
                        if announced > groups {
                            return Err(BulkFailure::Protocol("it says twice that it has a group".to_owned()));
                        }
                        self.seat.learn(&runs);
                    }
                },
                // The gathering, and the sender with it, lives as long as the seat.
                _ = changes.changed() => {}
                () = sleep(LOOK_AGAIN), if debt.bytes() == 0 => {}
            }
        }
        // The writing thread has ended early; it says why.
        Ok(())
    }

    /// Bytes that a source may owe: what it sends until more can be asked of it.
    fn owed_max(&self) -> u64 {
        let time = self.connection.rtt().saturating_mul(2).saturating_add(OWED_FOR);
        let ahead = u128::from(self.gauge.rate()).saturating_mul(time.as_micros()) / 1_000_000;
        OWED_BYTES.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX))
    }

    /// Takes exactly the `bytes` of one frame from the stream, as they come.
    async fn take_groups(
        &self,
        inbox: &mut Inbox,
        bytes: usize,
        debt: &Debt,
        allowed: &mut usize,
        intake: &mut Intake,
    ) -> Result<(), BulkFailure> {
        if u64::try_from(bytes).unwrap_or(u64::MAX) > debt.bytes() {
            return Err(BulkFailure::Protocol("more bytes than were wanted".to_owned()));
        }
        let mut left = bytes;
        while left > 0 && !intake.is_over() {
            let taken = inbox.drain(left, intake.packets()).await?;
            self.pass(taken, allowed).await;
            let count = u64::try_from(taken).unwrap_or(u64::MAX);
            self.plane.artefact.received.fetch_add(count, Ordering::Relaxed);
            self.activity.fetch_add(count, Ordering::Relaxed);
            debt.pay(count);
            left = left.saturating_sub(taken);
            intake.pass_on(taken, left == 0).await?;
        }
        Ok(())
    }

    /// Waits until `taken` bytes may move. What is not taken yet fills the window, and holds the sender. A turn is waited for
    /// as a whole, so that it has the length that the priority gives it, however the bytes arrive.
    async fn pass(&self, taken: usize, allowed: &mut usize) {
        let (shaper, flow): (_, &Flow) = (&self.plane.gauges.shaper, &self.gauge.flow);
        while *allowed < taken {
            let turn = shaper.turn(flow);
            shaper.pass(flow, turn).await;
            // An order to limit it may come at any time, so that what is not limited is let pass bit by bit.
            *allowed = if turn == usize::MAX { taken } else { allowed.saturating_add(turn) };
        }
        *allowed = allowed.saturating_sub(taken);
    }
}

/// Tells Core how far the pull is, at most ten times a second, and not while Core is behind.
async fn show_progress(plane: &Plane, crossing: CrossingId, gauge: &Gauge, wanted: u64) -> Infallible {
    let mut ticks = interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = 0;
    loop {
        ticks.tick().await;
        let bytes = gauge.bytes();
        let report = Report::Event(BulkEvent::Progressed { crossing, bytes, total: wanted });
        if bytes != shown && plane.reports.try_send(report).is_ok() {
            shown = bytes;
        }
    }
}
