//! Congestion control that follows the path.
//!
//! Within a machine room CUBIC (RFC 9438) is best: round trips are short, losses are those of a full buffer, and it recovers
//! in no time. Over a distance it is not: at 150 ms a single lost packet costs it minutes, and lines between countries lose
//! packets without being full. There [`Distant`] keeps a model of the path instead, as BBR does (Cardwell et al., 2016;
//! draft-ietf-ccwg-bbr): how much was delivered in a round trip, and how short a round trip can be. The product is what fits
//! into the path, and about that much is kept in flight.
//!
//! Which one it is follows from the first round trips of the connection. Both are functions of what is sent, acknowledged
//! and lost; neither reads a clock.

use std::{
    any::Any,
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

use super::endpoint::window_near;

/// A shorter round trip is one within a place.
const NEAR: Duration = Duration::from_millis(2);

/// Packets that may be sent before anything is known of the path: more than a peer may leave unacknowledged, so that the
/// first round trip is not spent waiting; spread over it by the pacer.
const INITIAL_PACKETS: u64 = 128;

/// Bytes per second with which a distant path is taken up: a small part of what lines between institutions carry. A window of
/// packets would be the slower the longer the path is, where each doubling takes longest.
const INITIAL_RATE: u64 = 5_000_000;

/// Packets in flight before more is known than the round trip, at the most.
const INITIAL_PACKETS_MAX: u64 = 1024;

/// Bytes in flight with which CUBIC begins within a place.
const NEAR_WINDOW_BYTES: u64 = 384 * 1024;

/// Once most of the receiver's window, in percent, was in flight without a loss, nothing on the way holds less than the
/// receiver, and flow control alone holds the sender: a pacer would have to wake it several times in a millisecond.
const NEAR_UNPACED_PERCENT: u64 = 80;

/// Makes a [`PathControl`] for each connection.
#[derive(Debug, Default)]
pub(super) struct PathControlFactory;

impl ControllerFactory for PathControlFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let mtu = u64::from(current_mtu);
        Box::new(PathControl { mtu: current_mtu, began: now, control: Control::Unknown { window: INITIAL_PACKETS * mtu } })
    }
}

/// The control of one connection.
#[derive(Debug, Clone)]
struct PathControl {
    mtu: u16,
    began: Instant,
    control: Control,
}

#[derive(Debug, Clone)]
enum Control {
    /// Nothing came back yet.
    Unknown {
        window: u64,
    },
    Near {
        cubic: Box<Cubic>,
        /// Bytes of its window from which on nothing is paced.
        unpaced: u64,
    },
    Distant(Box<Distant>),
}

impl PathControl {
    /// Chooses by the shortest round trip so far. What looked distant because a machine was busy may turn out to be near.
    fn choose(&mut self, shortest: Duration) {
        let window = match &self.control {
            Control::Unknown { window } => *window,
            Control::Distant(distant) if shortest < NEAR => distant.window,
            Control::Near { .. } | Control::Distant(_) => return,
        };
        self.control = if shortest < NEAR {
            let mut config = CubicConfig::default();
            config.initial_window(NEAR_WINDOW_BYTES);
            let cubic = Box::new(Cubic::new(Arc::new(config), self.began, self.mtu));
            Control::Near { cubic, unpaced: percent(u64::from(window_near(shortest)), NEAR_UNPACED_PERCENT) }
        } else {
            let mtu = u64::from(self.mtu);
            Control::Distant(Box::new(Distant::new(mtu, begins_with(window, shortest, mtu))))
        };
    }
}

/// Bytes in flight with which a distant path is taken up. Where `window` has shrunk, packets were lost already.
fn begins_with(window: u64, shortest: Duration, mtu: u64) -> u64 {
    if window < INITIAL_PACKETS.saturating_mul(mtu) {
        return window;
    }
    let carried = u128::from(INITIAL_RATE).saturating_mul(shortest.as_millis()) / 1000;
    let most = INITIAL_PACKETS_MAX.saturating_mul(mtu);
    window.max(u64::try_from(carried).unwrap_or(u64::MAX).min(most))
}

impl Controller for PathControl {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        match &mut self.control {
            Control::Unknown { .. } => {}
            Control::Near { cubic, .. } => cubic.on_sent(now, bytes, last_packet_number),
            Control::Distant(distant) => distant.on_sent(last_packet_number),
        }
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.choose(rtt.min());
        match &mut self.control {
            Control::Unknown { .. } => {}
            Control::Near { cubic, .. } => cubic.on_ack(now, sent, bytes, app_limited, rtt),
            Control::Distant(distant) => distant.on_ack(now, sent, bytes),
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        match &mut self.control {
            Control::Unknown { .. } => {}
            Control::Near { cubic, .. } => cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked),
            Control::Distant(distant) => distant.on_end_acks(now, app_limited, largest_packet_num_acked),
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        match &mut self.control {
            Control::Unknown { window } => *window = (*window / 2).max(2 * u64::from(self.mtu)),
            Control::Near { cubic, .. } => cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes),
            Control::Distant(distant) => distant.on_lost(is_persistent_congestion, lost_bytes),
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        match &mut self.control {
            Control::Unknown { .. } => {}
            Control::Near { cubic, .. } => cubic.on_mtu_update(new_mtu),
            Control::Distant(distant) => distant.mtu = u64::from(new_mtu),
        }
    }

    fn window(&self) -> u64 {
        match &self.control {
            Control::Unknown { window } => *window,
            // The pacer does nothing for a window beyond 4 GiB.
            Control::Near { cubic, unpaced } if cubic.window() >= *unpaced => u64::MAX,
            Control::Near { cubic, .. } => cubic.window(),
            Control::Distant(distant) => distant.window,
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * u64::from(self.mtu)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Round trips in which the best delivery still counts: longer than a cycle, so that each probe is felt.
const RATES_KEPT: usize = 10;

/// Growth of the delivery rate in a round trip, in percent, below which a path is taken to be full; and in how many of them.
const STARTUP_GROWTH_PERCENT: u64 = 125;
const STARTUP_FLAT_ROUNDS: u32 = 2;

/// What is kept in flight, in percent of what fits into the path. In a cycle of round trips once more, to find out whether
/// the path has become faster; once less, to empty what that has queued; and then what keeps a short queue, so that the path
/// never runs dry: less of it where the queue of the path cannot hold it.
const CYCLE_ROUNDS: usize = 8;
const PROBE_GAIN: u64 = 130;
const DRAIN_GAIN: u64 = 95;
const CRUISE_GAIN_MAX: u64 = 115;
const CRUISE_GAIN_MIN: u64 = 100;
const CRUISE_GAIN_STEP: u64 = 5;

/// Packets lost beyond those lost with an empty queue, of a million, that tell of a queue that is too short.
const OVERFLOW_PPM: u64 = 10_000;

/// The same while the rate of the path is not known: each round trip doubles what is in flight.
const STARTUP_GAIN: u64 = 200;

/// Packets lost in a round trip, of a million, that are taken as the path's own. More of them come from a full queue.
const LOSS_PPM: u64 = 80_000;

/// What may be in flight beyond the model: packets that wait for an acknowledgement which is sent for many of them, as long
/// as that is delayed, but no more than there can be.
const SLACK_MS: u64 = 5;
const SLACK_PACKETS_MAX: u64 = 64;
const SLACK_PACKETS_MIN: u64 = 4;

/// The same where the path has room for it: round trips are longer than the shortest while others fill queues on the way, or
/// the machines at its ends are busy, and who does not count that in gives way until nothing is left.
const PATIENCE_MS: u64 = 10;

/// A path over a distance: what it delivers, how long it takes, and what follows for the bytes in flight.
#[derive(Debug, Clone)]
struct Distant {
    mtu: u64,
    /// Bytes that may be in flight.
    window: u64,
    /// Bytes per second delivered in the last round trips, the latest at the end.
    rates: VecDeque<u64>,
    /// The shortest round trip.
    shortest: Option<Duration>,
    phase: Phase,
    round: Option<Round>,
    last_sent: u64,
    /// Bytes acknowledged in the batch that is being told.
    batch: u64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Doubles until the rate grows no more.
    Startup { best: u64, flat: u32 },
    /// Stays at what fits.
    Cruise(Cycle),
}

/// Where a path is in its cycle.
#[derive(Debug, Clone, Copy)]
struct Cycle {
    /// The round trip, of [`CYCLE_ROUNDS`].
    at: usize,
    /// What is in flight in most of them, in percent of what fits.
    gain: u64,
    /// Packets lost in the round trip with an empty queue, of a million.
    own_loss_ppm: u64,
    /// The most that were lost in one of those after it.
    loss_ppm: u64,
}

impl Cycle {
    /// Begins by emptying the queue.
    const START: Self = Self { at: 1, gain: CRUISE_GAIN_MAX, own_loss_ppm: 0, loss_ppm: 0 };

    fn percent(self) -> u64 {
        match self.at {
            // Where the queue holds less, a probe beyond it finds nothing but losses.
            0 => PROBE_GAIN.saturating_sub(CRUISE_GAIN_MAX.saturating_sub(self.gain)),
            1 => DRAIN_GAIN,
            _ => self.gain,
        }
    }

    /// How much of the patience with others the path has room for: none while its queue is being emptied.
    fn patience_percent(self) -> u64 {
        if self.percent() == DRAIN_GAIN {
            return 0;
        }
        self.gain.saturating_sub(CRUISE_GAIN_MIN) * 100 / (CRUISE_GAIN_MAX - CRUISE_GAIN_MIN)
    }

    fn after(mut self, loss_ppm: u64) -> Self {
        match self.at {
            0 => {}
            // What was queued by the probe may be lost in the round trip after it.
            1 | 2 => {
                self.own_loss_ppm = if self.at == 1 { loss_ppm } else { self.own_loss_ppm.min(loss_ppm) };
                self.loss_ppm = 0;
            }
            _ => self.loss_ppm = self.loss_ppm.max(loss_ppm),
        }
        self.at = (self.at + 1) % CYCLE_ROUNDS;
        if self.at == 0 {
            let overflows = self.loss_ppm > self.own_loss_ppm.saturating_add(OVERFLOW_PPM);
            self.gain = if overflows {
                self.gain.saturating_sub(2 * CRUISE_GAIN_STEP).max(CRUISE_GAIN_MIN)
            } else {
                self.gain.saturating_add(CRUISE_GAIN_STEP).min(CRUISE_GAIN_MAX)
            };
        }
        self
    }
}

/// From the sending of a packet to its acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Round {
    began: Instant,
    /// The acknowledgement of a later packet ends it.
    last_packet: u64,
    acked: u64,
    lost: u64,
}

impl Round {
    fn loss_ppm(&self) -> u64 {
        let all = u128::from(self.acked.saturating_add(self.lost)).max(1);
        u64::try_from(u128::from(self.lost).saturating_mul(1_000_000) / all).unwrap_or(u64::MAX)
    }
}

impl Distant {
    fn new(mtu: u64, window: u64) -> Self {
        Self {
            mtu,
            window,
            rates: VecDeque::with_capacity(RATES_KEPT),
            shortest: None,
            phase: Phase::Startup { best: 0, flat: 0 },
            round: None,
            last_sent: 0,
            batch: 0,
        }
    }

    fn on_sent(&mut self, packet: u64) {
        self.last_sent = packet;
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let took = now.saturating_duration_since(sent);
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.batch = self.batch.saturating_add(bytes);
    }

    fn on_lost(&mut self, persistent: bool, bytes: u64) {
        if let Some(round) = &mut self.round {
            round.lost = round.lost.saturating_add(bytes);
        }
        if persistent {
            // Nothing came through for several round trips: what is known of the path is of another path.
            *self = Self { last_sent: self.last_sent, ..Self::new(self.mtu, self.floor()) };
        }
    }

    fn on_end_acks(&mut self, now: Instant, app_limited: bool, largest: Option<u64>) {
        let acked = std::mem::take(&mut self.batch);
        let last_packet = self.last_sent;
        let round = self.round.get_or_insert(Round { began: now, last_packet, acked: 0, lost: 0 });
        round.acked = round.acked.saturating_add(acked);
        let ended = if largest.is_some_and(|largest| largest > round.last_packet) { self.round.take() } else { None };
        if let Some(ended) = ended {
            self.round = Some(Round { began: now, last_packet, acked: 0, lost: 0 });
            self.end_round(now, ended, app_limited);
        }
        match self.phase {
            Phase::Startup { .. } => {
                let fits = self.fits().map_or(u64::MAX, |fits| percent(fits, STARTUP_GAIN));
                // Not less than before: the first rates are those of a handshake.
                self.window = self.window.saturating_add(acked).min(self.with_slack(fits)).max(self.window);
            }
            Phase::Cruise(cycle) => {
                let patience = percent(self.delivered_in(PATIENCE_MS), cycle.patience_percent());
                let fits = percent(self.fits().unwrap_or_default(), cycle.percent());
                let wanted = self.with_slack(fits).saturating_add(patience);
                // Up as packets arrive, down at once.
                self.window = wanted.min(self.window.saturating_add(acked)).max(self.floor());
            }
        }
    }

    /// Learns from a round trip.
    fn end_round(&mut self, now: Instant, round: Round, app_limited: bool) {
        let took = now.saturating_duration_since(round.began).as_nanos().max(1);
        let rate = u128::from(round.acked).saturating_mul(1_000_000_000) / took;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let congested = round.loss_ppm() > LOSS_PPM;
        let best = self.rates.iter().copied().max().unwrap_or_default();
        if congested {
            // More was sent than goes through: what went through is what is known.
            self.rates.clear();
        }
        // Where there was nothing more to send, a low rate says nothing.
        if congested || !app_limited || rate > best {
            if self.rates.len() >= RATES_KEPT {
                self.rates.pop_front();
            }
            self.rates.push_back(rate);
        }
        self.phase = match self.phase {
            Phase::Startup { .. } if congested => Phase::Cruise(Cycle::START),
            Phase::Startup { best, flat } if app_limited => Phase::Startup { best, flat },
            Phase::Startup { best, .. } if rate >= percent(best, STARTUP_GROWTH_PERCENT) => {
                Phase::Startup { best: rate, flat: 0 }
            }
            Phase::Startup { best, flat } if flat + 1 < STARTUP_FLAT_ROUNDS => Phase::Startup { best, flat: flat + 1 },
            Phase::Startup { .. } => Phase::Cruise(Cycle::START),
            Phase::Cruise(cycle) => Phase::Cruise(cycle.after(round.loss_ppm())),
        };
    }

    /// Bytes that fit into the path; none before a round trip is over.
    fn fits(&self) -> Option<u64> {
        let (rate, shortest) = (self.rates.iter().copied().max()?, self.shortest?);
        let bytes = u128::from(rate).saturating_mul(shortest.as_nanos()) / 1_000_000_000;
        Some(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    fn with_slack(&self, bytes: u64) -> u64 {
        let packets = |packets: u64| packets.saturating_mul(self.mtu);
        let delayed = self.delivered_in(SLACK_MS);
        bytes.saturating_add(delayed.clamp(packets(SLACK_PACKETS_MIN), packets(SLACK_PACKETS_MAX)))
    }

    /// Bytes that are delivered in so many milliseconds; without end where nothing is known yet.
    fn delivered_in(&self, ms: u64) -> u64 {
        self.rates.iter().copied().max().unwrap_or(u64::MAX).saturating_mul(ms) / 1000
    }

    /// Less is never in flight, or nothing would be learnt any more.
    fn floor(&self) -> u64 {
        4_u64.saturating_mul(self.mtu)
    }
}

fn percent(of: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(of).saturating_mul(u128::from(percent)) / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1452;

    /// A path, and a sender that is driven by the control as quinn drives it, in steps of a millisecond.
    struct Path {
        /// Bytes in a millisecond.
        rate: u64,
        one_way_ms: u64,
        /// Of a million packets.
        loss_ppm: u64,
        queue_bytes: u64,
    }

    /// What came of some seconds.
    struct Outcome {
        /// Bytes that were delivered in the last half of the time, in percent of what the path can carry.
        utilised: u64,
        /// Packets lost in the last half, of a million.
        lost_ppm: u64,
        /// The longest that a packet was queued, in milliseconds, in the last half.
        queued_ms: u64,
    }

    impl Path {
        fn run(&self, seconds: u64) -> Outcome {
            let mut path = PathControl {
                mtu: 1452,
                began: Instant::now(),
                control: Control::Unknown { window: INITIAL_PACKETS * MTU },
            };
            path.choose(Duration::from_millis(2 * self.one_way_ms));
            let Control::Distant(mut control) = path.control else { panic!("a distant path") };
            let start = Instant::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
            let mut random = move || {
                // xorshift64 (Marsaglia 2003)
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed
            };
            let (mut in_flight, mut next_packet, mut queue, mut tokens) = (0_u64, 1_u64, 0_u64, 0_u64);
            // Packets on their way: number, sent, acknowledged at (none: lost).
            let mut flying: VecDeque<(u64, u64, Option<u64>)> = VecDeque::new();
            let (mut srtt, half) = (2 * self.one_way_ms, seconds * 500);
            let (mut delivered, mut lost_packets, mut sent_packets, mut queued) = (0, 0, 0, 0);
            for ms in 0..seconds * 1000 {
                // Acknowledgements that have arrived; a hole before one is a loss.
                let newest = flying.iter().rev().find(|(_, _, acked)| acked.is_some_and(|acked| acked <= ms));
                if let Some((largest, sent, _)) = newest.copied() {
                    srtt = (7 * srtt + (ms - sent)) / 8;
                    while let Some((number, sent, acked)) =
                        flying.front().copied().filter(|(number, ..)| *number <= largest)
                    {
                        flying.pop_front();
                        in_flight -= MTU;
                        if acked.is_some_and(|acked| acked <= ms) {
                            control.on_ack(at(ms), at(sent), MTU);
                            delivered += if ms >= half { MTU } else { 0 };
                        } else {
                            control.on_lost(false, MTU);
                            lost_packets += u64::from(ms >= half);
                        }
                        assert!(number <= largest);
                    }
                    control.on_end_acks(at(ms), false, Some(largest));
                }
                // The queue of the path moves on.
                queue = queue.saturating_sub(self.rate);
                // The sender: as its window and its pacer let it.
                tokens = (tokens + control.window * 5 / 4 / srtt.max(1)).min(256 * MTU);
                while tokens >= MTU && in_flight + MTU <= control.window {
                    tokens -= MTU;
                    in_flight += MTU;
                    sent_packets += u64::from(ms >= half);
                    control.on_sent(next_packet);
                    let fits = queue + MTU <= self.queue_bytes + self.rate;
                    let arrives = fits && random() % 1_000_000 >= self.loss_ppm;
                    queue += if fits { MTU } else { 0 };
                    let waits = queue / self.rate;
                    queued = if ms >= half { queued.max(waits) } else { queued };
                    flying.push_back((next_packet, ms, arrives.then_some(ms + waits + 2 * self.one_way_ms)));
                    next_packet += 1;
                }
            }
            let could = self.rate * half;
            Outcome {
                utilised: delivered * 100 / could,
                lost_ppm: lost_packets * 1_000_000 / sent_packets.max(1),
                queued_ms: queued,
            }
        }
    }

    /// A path with a queue of so many percent of what fits into it.
    fn path(mbit: u64, rtt_ms: u64, loss_ppm: u64, queue_percent: u64) -> Path {
        let rate = mbit * 125;
        Path { rate, one_way_ms: rtt_ms / 2, loss_ppm, queue_bytes: rate * rtt_ms * queue_percent / 100 }
    }

    #[test]
    fn a_distant_path_is_filled_although_it_loses_packets() {
        for (mbit, rtt, loss, queue) in [
            (500, 150, 5_000, 100),
            (500, 150, 0, 100),
            (100, 300, 10_000, 100),
            (1000, 80, 1_000, 50),
            (20, 40, 20_000, 100),
            (200, 10, 0, 100),
        ] {
            let outcome = path(mbit, rtt, loss, queue).run(20);
            assert!(outcome.utilised >= 95, "{mbit} Mbit/s, {rtt} ms, {loss} ppm: {} %", outcome.utilised);
            assert!(outcome.queued_ms <= rtt * 45 / 100 + 8, "{mbit} Mbit/s, {rtt} ms: {} ms queued", outcome.queued_ms);
        }
    }

    #[test]
    fn a_short_queue_is_not_flooded() {
        let outcome = path(100, 100, 0, 10).run(30);
        assert!(outcome.utilised >= 95, "{} %, {}", outcome.utilised, outcome.lost_ppm);
        assert!(outcome.lost_ppm <= 35_000, "{} of a million", outcome.lost_ppm);
    }

    #[test]
    fn the_path_decides_which_control_it_is() {
        let now = Instant::now();
        let mut control =
            PathControl { mtu: 1452, began: now, control: Control::Unknown { window: INITIAL_PACKETS * MTU } };
        assert_eq!(control.window(), INITIAL_PACKETS * MTU);
        control.choose(Duration::from_millis(30));
        assert!(matches!(control.control, Control::Distant(_)));
        control.choose(Duration::from_millis(20));
        assert!(matches!(control.control, Control::Distant(_)));
        control.choose(Duration::from_micros(300));
        assert!(matches!(control.control, Control::Near { .. }), "a busy machine is not a distant one");
        assert_eq!(control.window(), NEAR_WINDOW_BYTES);
        control.choose(Duration::from_millis(30));
        assert!(matches!(control.control, Control::Near { .. }));
    }

    #[test]
    fn a_longer_path_begins_with_more_in_flight() {
        let begins = |rtt_ms: u64, lost: bool| {
            let mut path = PathControl {
                mtu: 1452,
                began: Instant::now(),
                control: Control::Unknown { window: INITIAL_PACKETS * MTU },
            };
            if lost {
                path.on_congestion_event(Instant::now(), Instant::now(), false, MTU);
            }
            path.choose(Duration::from_millis(rtt_ms));
            path.window() / MTU
        };
        assert_eq!([5, 30, 150, 600].map(|rtt| begins(rtt, false)), [128, 128, 516, 1024]);
        assert_eq!(begins(150, true), 64, "not where the first packets were lost already");
    }

    #[test]
    fn persistent_congestion_begins_anew() {
        let mut distant = Distant::new(MTU, 10_000_000);
        distant.on_sent(70);
        distant.on_lost(true, 1452);
        assert_eq!((distant.window, distant.mtu, distant.last_sent), (4 * 1452, 1452, 70));
        assert!(distant.fits().is_none());
    }
}
