//! The transfers that run: who, how far, how fast.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use alliance_protocol::{
    core::{BulkFailure, admin::Side, transfers::TransferView},
    crossing::RefusalCode,
    id::CrossingId,
    key::PublicKey,
    vocabulary::Country,
};

use super::shaper::{Flow, Shaper};

/// Milliseconds over which a rate is taken, in so many slots.
const SLOT_MS: u64 = 500;
const SLOTS: usize = 8;

/// Peers whose member is remembered.
const MEMBERS_MAX: usize = 16_384;

/// All transfers of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    running: Mutex<HashMap<(CrossingId, Side), Arc<Gauge>>>,
    members: Mutex<HashMap<PublicKey, Country>>,
    pub(super) shaper: Shaper,
}

/// One transfer.
#[derive(Debug)]
pub(super) struct Gauge {
    crossing: CrossingId,
    pub(super) flow: Flow,
    bytes: AtomicU64,
    total: AtomicU64,
    began: Instant,
    meter: Mutex<Meter>,
}

/// A transfer while it runs; it is listed until this is dropped.
#[derive(Debug)]
pub(super) struct Running<'a> {
    gauges: &'a Gauges,
    gauge: Arc<Gauge>,
}

impl Gauges {
    /// Core knows whose node a peer is.
    pub(super) fn belongs(&self, peer: PublicKey, member: Country) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.len() >= MEMBERS_MAX {
            members.clear();
        }
        members.insert(peer, member);
    }

    /// Lists a transfer, unless as many run as the operator lets run.
    pub(super) fn begin(&self, crossing: CrossingId, side: Side, peer: PublicKey) -> Result<Running<'_>, BulkFailure> {
        let flow = self.flow(side, peer);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(&running, &flow)?;
        let (bytes, total, began, meter) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now(), Mutex::default());
        let gauge = Arc::new(Gauge { crossing, flow, bytes, total, began, meter });
        running.insert((crossing, side), Arc::clone(&gauge));
        Ok(Running { gauges: self, gauge })
    }

    /// Whether another transfer with this peer may begin, so that nobody is asked for one that may not.
    pub(super) fn admits(&self, side: Side, peer: PublicKey) -> Result<(), BulkFailure> {
        self.check(&self.running.lock().unwrap_or_else(PoisonError::into_inner), &self.flow(side, peer))
    }

    fn flow(&self, side: Side, peer: PublicKey) -> Flow {
        let member = self.members.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).copied();
        Flow { side, peer, member }
    }

    fn check(&self, running: &HashMap<(CrossingId, Side), Arc<Gauge>>, flow: &Flow) -> Result<(), BulkFailure> {
        for scope in flow.scopes() {
            let same = running.values().filter(|gauge| gauge.flow.scopes().any(|other| other == scope)).count();
            if self.shaper.at_a_time(scope).is_some_and(|most| u32::try_from(same).unwrap_or(u32::MAX) >= most) {
                tracing::info!(peer = %flow.peer, ?scope, "as many transfers run as are let run at a time");
                return Err(BulkFailure::EndedHere(RefusalCode::Busy));
            }
        }
        Ok(())
    }

    /// The transfers that run, those that began first first.
    pub(super) fn list(&self) -> Vec<TransferView> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gauges: Vec<_> = running.values().cloned().collect();
        drop(running);
        gauges.sort_by_key(|gauge| gauge.began);
        gauges.iter().map(|gauge| gauge.view()).collect()
    }
}

impl Running<'_> {
    pub(super) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.gauges.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&(self.gauge.crossing, self.gauge.flow.side));
    }
}

impl Gauge {
    /// Counts bytes that moved.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).add(self.running_ms(), bytes);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes that were asked for and are to move.
    pub(super) fn ask(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes per second over the last seconds.
    pub(super) fn rate(&self) -> u64 {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).rate(self.running_ms())
    }

    fn running_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn view(&self) -> TransferView {
        let running_ms = self.running_ms();
        TransferView {
            crossing: self.crossing,
            side: self.flow.side,
            peer: self.flow.peer,
            member: self.flow.member,
            bytes: self.bytes(),
            total: self.total(),
            bytes_per_second: self.rate(),
            running_ms,
        }
    }
}

/// A rate over the last seconds. Time is given in milliseconds since the beginning.
#[derive(Debug, Default)]
struct Meter {
    /// The number of the slot, and the bytes in it.
    slots: [(u64, u64); SLOTS],
}

impl Meter {
    fn add(&mut self, ms: u64, bytes: u64) {
        let number = ms / SLOT_MS;
        let at = usize::try_from(number).unwrap_or_default() % SLOTS;
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = if slot.0 == number { (number, slot.1.saturating_add(bytes)) } else { (number, bytes) };
        }
    }

    /// Bytes per second.
    fn rate(&self, ms: u64) -> u64 {
        let now = ms / SLOT_MS;
        let slots = u64::try_from(SLOTS).unwrap_or(u64::MAX);
        let first = now.saturating_sub(slots.saturating_sub(1));
        let bytes = self.slots.iter().filter(|(number, _)| (first..=now).contains(number)).map(|(_, bytes)| bytes);
        let span_ms = ms.saturating_sub(first.saturating_mul(SLOT_MS)).max(1);
        bytes.fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)).saturating_mul(1000) / span_ms
    }
}

#[cfg(test)]
mod tests {
    use alliance_protocol::core::transfers::{LimitScope, ScopedLimit, TransferLimit};

    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.rate(0), 0);
        for ms in (0..10_000).step_by(10) {
            meter.add(ms, 1000);
        }
        let rate = meter.rate(10_000);
        assert!((90_000..=101_000).contains(&rate), "{rate}");
        // Nothing since.
        assert!(meter.rate(11_500) < rate && meter.rate(11_500) > 0);
        assert_eq!(meter.rate(15_000), 0);
        // After a pause, old slots do not count.
        meter.add(60_000, 4000);
        assert!(meter.rate(60_100) <= 1200, "{}", meter.rate(60_100));
        // At the beginning the time is short.
        let mut meter = Meter::default();
        meter.add(100, 1000);
        assert_eq!(meter.rate(100), 10_000);
    }

    #[test]
    fn transfers_are_listed_while_they_run() {
        let gauges = Gauges::default();
        let (peer, brazil) = (PublicKey([1; 32]), "BR".parse().expect("a country"));
        gauges.belongs(peer, brazil);
        let first = gauges.begin(CrossingId([1; 32]), Side::Exporter, peer).expect("begins");
        first.gauge().ask(100);
        first.gauge().add(40);
        let second = gauges.begin(CrossingId([1; 32]), Side::Importer, PublicKey([2; 32])).expect("begins");
        second.gauge().ask(7);
        let list = gauges.list();
        assert_eq!(
            list.iter().map(|view| (view.side, view.member, view.bytes, view.total)).collect::<Vec<_>>(),
            [(Side::Exporter, Some(brazil), 40, 100), (Side::Importer, None, 0, 7)]
        );
        drop(second);
        assert_eq!(gauges.list().len(), 1);
        drop(first);
        assert!(gauges.list().is_empty());
    }

    #[test]
    fn no_more_run_at_a_time_than_are_let() {
        let gauges = Gauges::default();
        let (one, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let limit = |at_a_time| TransferLimit { at_a_time: Some(at_a_time), ..TransferLimit::default() };
        gauges.shaper.set(ScopedLimit { scope: LimitScope::Peer(one), limit: limit(1) });
        gauges.shaper.set(ScopedLimit { scope: LimitScope::All, limit: limit(2) });
        let begin = |number, peer| gauges.begin(CrossingId([number; 32]), Side::Exporter, peer);
        let first = begin(1, one).expect("begins");
        assert_eq!(begin(2, one).expect_err("busy"), BulkFailure::EndedHere(RefusalCode::Busy));
        let _second = begin(3, other).expect("begins");
        assert!(begin(4, other).is_err(), "two in all");
        assert!(gauges.admits(Side::Importer, other).is_err());
        drop(first);
        assert!(gauges.admits(Side::Importer, one).is_ok() && begin(2, one).is_ok());
    }
}
