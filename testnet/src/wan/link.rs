//! What becomes of packets between places: lines with a rate and a queue, distances with a delay and loss.
//!
//! A packet leaves by its sender's line, covers the distance, and comes in by its receiver's line. Pure: time comes in with
//! every call, and what happens depends on the packets, their times and the seed alone, not on how often anyone looks.
//! Start with [`Link::offer`] and [`Link::due`].

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use serde::Serialize;

/// Nanoseconds since the link was made. 64 bits are five centuries.
pub type Nanos = u64;

/// A node's place in the link, from 0.
pub type Place = usize;

/// Places of one link: fifty nodes of eleven members, with room to spare.
pub const PLACES_MAX: usize = 64;

/// Bytes that a link holds at the most, in queues and on the way: what eleven lines of 1 Gbit/s keep under way for 0.15 s,
/// twice, for as much stands in queues.
pub const HELD_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What a held packet costs besides its bytes, in bytes, so that a bound in bytes bounds small packets too.
const HELD_BYTES_PER_PACKET: u64 = 64;

/// Parts of the share of packets that are lost: per million.
const PARTS: u64 = 1_000_000;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// How a place is connected, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Bits of IP packets in a second, from 1.
    pub bits_per_second: u64,
    /// Bytes that may pass at once after a pause, so that whoever carries packets may come by at intervals only.
    pub bucket_bytes: u64,
    /// Bytes that may wait. What comes when there is no room is dropped.
    pub queue_bytes: u64,
}

/// What lies between two places, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distance {
    pub delay: Duration,
    /// Packets lost of a million.
    pub loss_ppm: u32,
}

/// How places are connected.
#[derive(Clone, Debug)]
pub struct Terrain {
    /// One for each place, both ways.
    pub lines: Vec<Line>,
    /// From each place to each place; what is missing is neither far nor lossy.
    pub distances: Vec<Vec<Distance>>,
    /// Which packets are lost.
    pub seed: u64,
}

impl Line {
    /// A line of this rate whose bucket holds what passes in a millisecond: packets are carried twice in that time.
    #[must_use]
    pub fn new(bits_per_second: u64, queue_bytes: u64) -> Self {
        Self { bits_per_second, bucket_bytes: bits_per_second / 8 / 1000, queue_bytes }
    }
}

impl Terrain {
    /// Places with the same line, and the same distance between any two.
    #[must_use]
    pub fn alike(places: usize, line: Line, distance: Distance, seed: u64) -> Self {
        Self { lines: vec![line; places], distances: vec![vec![distance; places]; places], seed }
    }
}

/// What became of packets. What was offered was delivered, lost, dropped, or is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub offered: Amount,
    pub delivered: Amount,
    /// On the way.
    pub lost: Amount,
    /// For want of room in a queue.
    pub dropped: Amount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    pub packets: u64,
    pub bytes: u64,
}

/// Packets on their ways. `P` is a packet.
#[derive(Debug)]
pub struct Link<P> {
    seed: u64,
    distances: Vec<Vec<Distance>>,
    out: Vec<Shaper>,
    into: Vec<Shaper>,
    /// How many packets have set out, from each place to each place.
    numbers: Vec<Vec<u64>>,
    /// Set out, and not there yet, the first to arrive on top.
    flying: BinaryHeap<Reverse<Flight<P>>>,
    /// Arrived, and not through the receiver's line yet, for each place.
    landed: Vec<VecDeque<Landed<P>>>,
    flights: u64,
    held: Amount,
    /// By the place that sent.
    tallies: Vec<Tally>,
}

impl<P> Link<P> {
    /// A link on which nothing is under way yet. Places beyond [`PLACES_MAX`] are left out.
    #[must_use]
    pub fn new(terrain: &Terrain) -> Self {
        let lines = || terrain.lines.iter().take(PLACES_MAX);
        let places = lines().count();
        Self {
            seed: terrain.seed,
            distances: terrain.distances.clone(),
            out: lines().map(|line| Shaper::new(*line)).collect(),
            into: lines().map(|line| Shaper::new(*line)).collect(),
            numbers: vec![vec![0; places]; places],
            flying: BinaryHeap::new(),
            landed: lines().map(|_| VecDeque::new()).collect(),
            flights: 0,
            held: Amount::default(),
            tallies: vec![Tally::default(); places],
        }
    }

    /// Takes a packet of so many bytes at `now`, which never goes back. One from or to nowhere is as if it never was.
    pub fn offer(&mut self, now: Nanos, from: Place, to: Place, bytes: u32, packet: P) {
        let Some(number) = self.numbers.get_mut(from).and_then(|numbers| numbers.get_mut(to)) else { return };
        let (Some(out), Some(tally)) = (self.out.get_mut(from), self.tallies.get_mut(from)) else { return };
        tally.offered.add(bytes);
        let full = self.held.bytes + (self.held.packets + 1) * HELD_BYTES_PER_PACKET + u64::from(bytes) > HELD_BYTES_MAX;
        let Some(left) = out.pass(now, bytes).filter(|_| !full) else {
            tally.dropped.add(bytes);
            return;
        };
        let distance = self.distances.get(from).and_then(|row| row.get(to)).copied().unwrap_or(Distance::NONE);
        *number += 1;
        if is_lost(self.seed, from, to, *number, distance.loss_ppm) {
            tally.lost.add(bytes);
            return;
        }
        let arrives = left.saturating_add(nanos(distance.delay));
        self.held.add(bytes);
        self.flights += 1;
        self.flying.push(Reverse(Flight { arrives, order: self.flights, from, to, bytes, packet }));
    }

    /// The next packet that is there by `now`, since when, and where; for each place in the order in which they come.
    pub fn due(&mut self, now: Nanos) -> Option<(Nanos, Place, P)> {
        self.land(now);
        let ready = |queue: &VecDeque<Landed<P>>| queue.front().is_some_and(|landed| landed.passes <= now);
        let to = self.landed.iter().position(ready)?;
        let Landed { passes, from, bytes, packet } = self.landed.get_mut(to)?.pop_front()?;
        self.held.remove(bytes);
        self.tallies.get_mut(from)?.delivered.add(bytes);
        Some((passes, to, packet))
    }

    /// When to ask again; none while nothing is under way. A packet may turn out not to be there yet.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        let landed = self.landed.iter().filter_map(|queue| queue.front()).map(|landed| landed.passes);
        landed.chain(self.flying.peek().map(|Reverse(flight)| flight.arrives)).min()
    }

    /// What became of the packets that each place sent.
    #[must_use]
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// What is under way or waits now.
    #[must_use]
    pub fn held(&self) -> Amount {
        self.held
    }

    /// Takes what has arrived by `now` to the lines of its receivers, in the order and at the times of its arrival.
    fn land(&mut self, now: Nanos) {
        while self.flying.peek().is_some_and(|Reverse(flight)| flight.arrives <= now) {
            let Some(Reverse(Flight { arrives, from, to, bytes, packet, .. })) = self.flying.pop() else { return };
            let (Some(into), Some(landed)) = (self.into.get_mut(to), self.landed.get_mut(to)) else { return };
            match (into.pass(arrives, bytes), self.tallies.get_mut(from)) {
                (Some(passes), _) => landed.push_back(Landed { passes, from, bytes, packet }),
                (None, Some(tally)) => {
                    tally.dropped.add(bytes);
                    self.held.remove(bytes);
                }
                (None, None) => self.held.remove(bytes),
            }
        }
    }
}

impl Distance {
    /// Next to each other.
    pub const NONE: Self = Self { delay: Duration::ZERO, loss_ppm: 0 };
}

impl Amount {
    fn add(&mut self, bytes: u32) {
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }

    fn remove(&mut self, bytes: u32) {
        self.packets = self.packets.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(bytes));
    }
}

/// A packet between two lines.
#[derive(Debug)]
struct Flight<P> {
    arrives: Nanos,
    /// Between packets that arrive at once, the one that set out first is first.
    order: u64,
    from: Place,
    to: Place,
    bytes: u32,
    packet: P,
}

impl<P> Flight<P> {
    fn key(&self) -> (Nanos, u64) {
        (self.arrives, self.order)
    }
}

impl<P> PartialEq for Flight<P> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<P> Eq for Flight<P> {}

impl<P> PartialOrd for Flight<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Flight<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// A packet that its receiver's line lets pass at a time.
#[derive(Debug)]
struct Landed<P> {
    passes: Nanos,
    from: Place,
    bytes: u32,
    packet: P,
}

/// A token bucket behind a drop-tail queue.
#[derive(Debug)]
struct Shaper {
    line: Line,
    /// The time up to which the line's capacity is used up, times its bits per second. At `t` the bucket has what lies
    /// between this and `t`. In this unit a bit is 10^9, whatever the rate, so nothing is ever rounded and no rate drifts.
    used: u128,
    /// What waits, and until when; what has passed is removed at the next packet.
    queue: VecDeque<(Nanos, u32)>,
    queued_bytes: u64,
}

impl Shaper {
    fn new(line: Line) -> Self {
        let line = Line { bits_per_second: line.bits_per_second.max(1), ..line };
        Self { line, used: 0, queue: VecDeque::new(), queued_bytes: 0 }
    }

    /// When a packet that comes at `now` has passed, or none if there is no room for it.
    fn pass(&mut self, now: Nanos, bytes: u32) -> Option<Nanos> {
        while let Some((until, bytes)) = self.queue.front().copied()
            && until <= now
        {
            self.queue.pop_front();
            self.queued_bytes = self.queued_bytes.saturating_sub(u64::from(bytes));
        }
        let waiting = self.queued_bytes + u64::from(bytes);
        let rate = u128::from(self.line.bits_per_second);
        let full_bucket = (u128::from(now) * rate).saturating_sub(cost(self.line.bucket_bytes));
        let used = self.used.max(full_bucket) + cost(u64::from(bytes));
        let until = u64::try_from(used.div_ceil(rate)).unwrap_or(Nanos::MAX).max(now);
        // What passes at once needs no room.
        if until > now && waiting > self.line.queue_bytes {
            return None;
        }
        self.used = used;
        if until > now {
            self.queued_bytes = waiting;
            self.queue.push_back((until, bytes));
        }
        Some(until)
    }
}

fn cost(bytes: u64) -> u128 {
    u128::from(bytes) * 8 * NANOS_PER_SECOND
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Whether the packet of this number, counted from one place to another, is lost: the same answer for ever.
fn is_lost(seed: u64, from: Place, to: Place, number: u64, ppm: u32) -> bool {
    let pair = u64::try_from(from * PLACES_MAX + to).unwrap_or_default();
    let drawn = mixed(mixed(seed ^ mixed(pair)).wrapping_add(number));
    // The upper half, scaled to parts: off by less than one part in 4000 of a part.
    ((drawn >> 32) * PARTS) >> 32 < u64::from(ppm)
}

/// A bijection that scatters its argument (splitmix64, Steele, Lea and Flood, OOPSLA 2014).
fn mixed(value: u64) -> u64 {
    let mut x = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
