//! Limits that the operator has set: how fast, how many at a time, and who comes first.
//!
//! Each limit is a lane that lets bytes pass at its rate, one turn after the other (a generic cell rate algorithm, ITU-T
//! I.371: the instant at which the next turn is due moves on by what each turn takes). Who waits in a lane waits in the order
//! of arrival, so that transfers share it evenly; a transfer of a higher priority takes more in its turn. Where nothing is
//! limited, nothing waits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use alliance_protocol::{
    core::{
        admin::Side,
        transfers::{LimitScope, Priority, ScopedLimit, TransferLimit},
    },
    key::PublicKey,
    vocabulary::Country,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

/// What a lane may let pass at once after it was idle.
const BURST: Duration = Duration::from_millis(50);

/// Bytes in a turn of each priority.
const fn turn(priority: Priority) -> usize {
    match priority {
        Priority::Low => 16 * 1024,
        Priority::Normal => 64 * 1024,
        Priority::High => 256 * 1024,
    }
}

/// The limits of a node, and the lanes that keep them.
#[derive(Debug, Default)]
pub(super) struct Shaper {
    limits: RwLock<BTreeMap<LimitScope, TransferLimit>>,
    lanes: RwLock<HashMap<(LimitScope, Way), Arc<Lane>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    Out,
    In,
}

/// When the next turn is due.
#[derive(Debug)]
struct Lane(Mutex<Instant>);

/// A transfer, as limits see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) side: Side,
    pub(super) peer: PublicKey,
    pub(super) member: Option<Country>,
}

impl Flow {
    /// What it falls under, the narrowest first.
    pub(super) fn scopes(&self) -> impl Iterator<Item = LimitScope> + use<> {
        [Some(LimitScope::Peer(self.peer)), self.member.map(LimitScope::Member), Some(LimitScope::All)]
            .into_iter()
            .flatten()
    }

    fn way(&self) -> Way {
        match self.side {
            Side::Exporter => Way::Out,
            Side::Importer => Way::In,
        }
    }
}

impl Shaper {
    pub(super) fn set(&self, ScopedLimit { scope, limit }: ScopedLimit) {
        let mut limits = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        if limit.is_empty() {
            limits.remove(&scope);
            let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
            lanes.retain(|(of, _), _| *of != scope);
        } else {
            limits.insert(scope, limit);
        }
    }

    pub(super) fn limits(&self) -> Vec<ScopedLimit> {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        limits.iter().map(|(scope, limit)| ScopedLimit { scope: *scope, limit: *limit }).collect()
    }

    /// Transfers at a time that are let run under a scope.
    pub(super) fn at_a_time(&self, scope: LimitScope) -> Option<u32> {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).get(&scope).and_then(|limit| limit.at_a_time)
    }

    /// The rates that a flow has to keep, in bits per second, and the bytes that it may take in a turn; none where it is not
    /// limited.
    fn rates(&self, flow: &Flow) -> Option<(Vec<(LimitScope, u64)>, usize)> {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        if limits.is_empty() {
            return None;
        }
        let rate = |limit: &TransferLimit| match flow.way() {
            Way::Out => limit.out,
            Way::In => limit.in_,
        };
        let of = |scope: LimitScope| limits.get(&scope);
        let rates: Vec<_> = flow.scopes().filter_map(|scope| Some((scope, of(scope).and_then(rate)?))).collect();
        let priority = flow.scopes().find_map(|scope| of(scope).and_then(|limit| limit.priority)).unwrap_or_default();
        (!rates.is_empty()).then_some((rates, turn(priority)))
    }

    /// Bytes that a flow may move before it asks again; as many as it likes where it is not limited.
    pub(super) fn turn(&self, flow: &Flow) -> usize {
        self.rates(flow).map_or(usize::MAX, |(_, turn)| turn)
    }

    /// Waits until `bytes` of a flow may move.
    pub(super) async fn pass(&self, flow: &Flow, bytes: usize) {
        let Some((rates, _)) = self.rates(flow) else { return };
        for (scope, rate) in rates {
            self.lane(scope, flow.way()).pass(bytes, rate).await;
        }
    }

    fn lane(&self, scope: LimitScope, way: Way) -> Arc<Lane> {
        let found = self.lanes.read().unwrap_or_else(PoisonError::into_inner).get(&(scope, way)).cloned();
        found.unwrap_or_else(|| {
            let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lanes.entry((scope, way)).or_insert_with(|| Arc::new(Lane(Mutex::new(Instant::now())))))
        })
    }
}

impl Lane {
    async fn pass(&self, bytes: usize, rate: u64) {
        // Held while waiting: whoever comes later waits behind.
        let mut due = self.0.lock().await;
        let now = Instant::now();
        let start = now.checked_sub(BURST).map_or(*due, |earliest| earliest.max(*due));
        *due = start.checked_add(takes(bytes, rate)).unwrap_or(start);
        if start > now {
            sleep_until(start).await;
        }
    }
}

/// How long bytes take at a rate in bits per second.
fn takes(bytes: usize, rate: u64) -> Duration {
    let bits = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(8);
    let nanoseconds = bits.saturating_mul(1_000_000_000) / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const PEER: PublicKey = PublicKey([1; 32]);

    fn flow(peer: PublicKey, member: &str) -> Flow {
        Flow { side: Side::Exporter, peer, member: member.parse().ok() }
    }

    fn limit(scope: LimitScope, out: u64) -> ScopedLimit {
        ScopedLimit { scope, limit: TransferLimit { out: Some(out), ..TransferLimit::default() } }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_what_is_not_limited_never_waits() {
        let shaper = Shaper::default();
        let began = Instant::now();
        shaper.pass(&flow(PEER, "BR"), usize::MAX).await;
        shaper.set(limit(LimitScope::Member("CN".parse().expect("a country")), 8_000_000));
        shaper.pass(&flow(PEER, "BR"), usize::MAX).await;
        shaper.pass(&Flow { side: Side::Importer, ..flow(PEER, "CN") }, usize::MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        // One megabyte in a second.
        for _ in 0..100 {
            shaper.pass(&flow(PEER, "CN"), 10_000).await;
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_millis(1010)).contains(&took), "{took:?}");
        shaper.set(ScopedLimit {
            limit: TransferLimit::default(),
            ..limit(LimitScope::Member("CN".parse().expect("a country")), 1)
        });
        assert!(shaper.limits().is_empty());
        shaper.pass(&flow(PEER, "CN"), usize::MAX).await;
        assert_eq!(began.elapsed(), took);
    }

    #[tokio::test(start_paused = true)]
    async fn the_narrowest_of_several_limits_holds() {
        let shaper = Shaper::default();
        shaper.set(limit(LimitScope::All, 80_000_000));
        shaper.set(limit(LimitScope::Peer(PEER), 8_000_000));
        let began = Instant::now();
        for _ in 0..100 {
            shaper.pass(&flow(PEER, "CN"), 10_000).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
        let began = Instant::now();
        for _ in 0..100 {
            shaper.pass(&flow(PublicKey([2; 32]), "CN"), 10_000).await;
        }
        assert!(began.elapsed() <= Duration::from_millis(110), "{:?}", began.elapsed());
    }

    /// Bytes that flows of these priorities move in ten seconds through one lane.
    async fn shares(priorities: &[Priority]) -> Vec<usize> {
        let shaper = Shaper::default();
        shaper.set(limit(LimitScope::All, 80_000_000));
        let until = Instant::now() + Duration::from_secs(10);
        let flows = priorities.iter().zip(1..).map(|(priority, number)| {
            let peer = PublicKey([number; 32]);
            let limit = TransferLimit { priority: Some(*priority), ..TransferLimit::default() };
            shaper.set(ScopedLimit { scope: LimitScope::Peer(peer), limit });
            (peer, &shaper)
        });
        let flows: Vec<_> = flows.collect();
        join_all(flows.into_iter().map(|(peer, shaper)| async move {
            let (flow, mut moved) = (flow(peer, "CN"), 0);
            while Instant::now() < until {
                let turn = shaper.turn(&flow);
                shaper.pass(&flow, turn).await;
                moved += turn;
            }
            moved
        }))
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn equals_share_evenly_and_priorities_by_their_weight() {
        let moved = shares(&[Priority::Normal; 4]).await;
        let (least, most) = (moved.iter().min().expect("some"), moved.iter().max().expect("some"));
        assert!(most - least <= 2 * 64 * 1024, "{moved:?}");
        let moved = shares(&[Priority::Low, Priority::Normal, Priority::High]).await;
        let parts: Vec<usize> = moved.iter().map(|bytes| bytes * 100 / moved.iter().sum::<usize>()).collect();
        assert!((3..=6).contains(&parts[0]) && (17..=21).contains(&parts[1]) && (74..=79).contains(&parts[2]), "{parts:?}");
    }
}
