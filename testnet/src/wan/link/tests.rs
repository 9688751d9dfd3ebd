//! Tables and properties of the link.

use proptest::prelude::*;

use super::*;

const MBIT: u64 = 1_000_000;
const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1000 * MS;

/// So wide that nothing waits.
const WIDE: Line = Line { bits_per_second: 1_000_000 * MBIT, bucket_bytes: 1 << 40, queue_bytes: 1 << 40 };

fn two(line: Line, distance: Distance, seed: u64) -> Link<u64> {
    Link::new(&Terrain::alike(2, line, distance, seed))
}

/// All that is delivered, and when, looking at every time that the link names.
fn run(link: &mut Link<u64>) -> Vec<(Nanos, Place, u64)> {
    let mut delivered = Vec::new();
    while let Some(now) = link.next() {
        while let Some(due) = link.due(now) {
            assert_eq!(due.0, now);
            delivered.push(due);
        }
    }
    delivered
}

fn times(delivered: &[(Nanos, Place, u64)]) -> Vec<Nanos> {
    delivered.iter().map(|(at, ..)| *at).collect()
}

#[test]
fn a_packet_takes_both_lines_and_the_distance() {
    // (megabits in a second, milliseconds, bytes, nanoseconds until it is there)
    let table = [
        (8, 0, 1000, 2_000_000),
        (8, 75, 1000, 77_000_000),
        (500, 75, 1500, 75_048_000),
        (1000, 0, 1500, 24_000),
        // 8 * 1000 / 3 microseconds, rounded up to a nanosecond at each line.
        (3, 0, 1000, 2_666_667 + 2_666_667),
    ];
    for (mbit, ms, bytes, there) in table {
        let line = Line { bits_per_second: mbit * MBIT, bucket_bytes: 0, queue_bytes: 10_000 };
        let mut link = two(line, Distance { delay: Duration::from_millis(ms), loss_ppm: 0 }, 1);
        link.offer(0, 0, 1, bytes, 7);
        assert_eq!(run(&mut link), [(there, 1, 7)], "{mbit} Mbit/s, {ms} ms, {bytes} bytes");
    }
}

#[test]
fn a_full_bucket_lets_pass_at_once_what_is_in_it() {
    let line = Line { bits_per_second: 8 * MBIT, bucket_bytes: 3000, queue_bytes: 10_000 };
    let lines = vec![line, WIDE];
    let mut link = Link::new(&Terrain { lines, distances: Vec::new(), seed: 1 });
    for packet in 0..5 {
        link.offer(SECOND, 0, 1, 1000, packet);
    }
    let after = |ms: u64| SECOND + ms * MS;
    assert_eq!(times(&run(&mut link)), [after(0), after(0), after(0), after(1), after(2)]);
}

#[test]
fn what_finds_no_room_in_the_queue_is_dropped() {
    // (bytes of the queue, packets of 1000 bytes that it takes at once)
    for (queue_bytes, fit) in [(0, 0), (999, 0), (1000, 1), (2999, 2), (3000, 3), (100_000, 5)] {
        let line = Line { bits_per_second: 8 * MBIT, bucket_bytes: 0, queue_bytes };
        let mut link = Link::new(&Terrain { lines: vec![line, WIDE], distances: Vec::new(), seed: 1 });
        (0..5).for_each(|packet| link.offer(SECOND, 0, 1, 1000, packet));
        // After a millisecond the first has passed, and there is room for one more.
        (5..7).for_each(|packet| link.offer(SECOND + MS, 0, 1, 1000, packet));
        let there: Vec<_> = run(&mut link).into_iter().map(|(.., packet)| packet).collect();
        let expected: Vec<_> =
            if fit == 5 { (0..7).collect() } else { (0..fit).chain((0..fit.min(1)).map(|_| 5)).collect() };
        assert_eq!(there, expected, "a queue of {queue_bytes}");
        let dropped = 7 - u64::try_from(there.len()).expect("few");
        assert_eq!(link.tallies()[0].dropped, Amount { packets: dropped, bytes: dropped * 1000 });
    }
}

#[test]
fn a_receivers_line_is_shared_by_its_senders_in_the_order_of_arrival() {
    let narrow = Line { bits_per_second: 8 * MBIT, bucket_bytes: 0, queue_bytes: 10_000 };
    let far = Distance { delay: Duration::from_millis(10), loss_ppm: 0 };
    let near = Distance { delay: Duration::from_millis(5), loss_ppm: 0 };
    let distances = vec![vec![Distance::NONE, Distance::NONE, far], vec![Distance::NONE, Distance::NONE, near]];
    let mut link = Link::new(&Terrain { lines: vec![WIDE, WIDE, narrow], distances, seed: 1 });
    link.offer(SECOND, 0, 2, 1000, 0);
    link.offer(SECOND + MS, 1, 2, 1000, 1);
    link.offer(SECOND + 5 * MS, 1, 2, 1000, 2);
    let delivered = run(&mut link);
    let expected = [(7, 1), (11, 0), (12, 2)].map(|(ms, packet)| (SECOND + ms * MS, 2, packet));
    assert_eq!(delivered, expected);
}

#[test]
fn the_same_packets_are_lost_with_the_same_seed_only() {
    let lost = |seed: u64, to: Place| {
        let distances = vec![vec![Distance { delay: Duration::ZERO, loss_ppm: 5000 }; 3]; 3];
        let mut link = Link::new(&Terrain { lines: vec![WIDE; 3], distances, seed });
        (0..200_000).for_each(|packet| link.offer(SECOND + packet, 0, to, 100, packet));
        let there: std::collections::HashSet<u64> = run(&mut link).iter().map(|(.., packet)| *packet).collect();
        (0..200_000).filter(|packet| !there.contains(packet)).collect::<Vec<_>>()
    };
    assert_eq!(lost(1, 1), lost(1, 1));
    assert_ne!(lost(1, 1), lost(2, 1));
    assert_ne!(lost(1, 1), lost(1, 2));
}

#[test]
fn losses_are_the_given_share_and_do_not_come_in_bursts() {
    for ppm in [100_u32, 5000, 250_000, 1_000_000] {
        let packets = 1_000_000_u64;
        let lost: Vec<_> = (0..packets).map(|number| is_lost(7, 0, 1, number, ppm)).collect();
        let share = f64::from(ppm) / 1e6;
        let expected = share * 1e6;
        let count = lost.iter().map(|lost| f64::from(u8::from(*lost))).sum::<f64>();
        // Five standard deviations of a binomial distribution.
        let bound = 5.0 * (expected * (1.0 - share)).sqrt();
        assert!((count - expected).abs() <= bound, "{count} of {packets} at {ppm} ppm");
        let pairs = lost.windows(2).map(|pair| f64::from(u8::from(pair[0] && pair[1]))).sum::<f64>();
        let expected = expected * share;
        assert!((pairs - expected).abs() <= 5.0 * expected.sqrt() + 1.0, "{pairs} pairs at {ppm} ppm");
    }
    assert!((0..100_000).all(|number| !is_lost(7, 0, 1, number, 0)));
}

#[test]
fn what_is_held_is_bounded() {
    let far = Distance { delay: Duration::from_secs(10), loss_ppm: 0 };
    let mut link = two(WIDE, far, 1);
    let (bytes, packets) = (1 << 20, 600_u64);
    (0..packets).for_each(|packet| link.offer(SECOND, 0, 1, bytes, packet));
    assert!(link.held().bytes <= HELD_BYTES_MAX);
    let tally = link.tallies()[0];
    assert_eq!(tally.dropped.packets + link.held().packets, packets);
    assert!(tally.dropped.packets > 0);
    // Packets without bytes are bounded too.
    let mut link = two(WIDE, far, 1);
    let most = HELD_BYTES_MAX / HELD_BYTES_PER_PACKET;
    (0..=most).for_each(|packet| link.offer(SECOND, 0, 1, 0, packet));
    assert_eq!((link.held().packets, link.tallies()[0].dropped.packets), (most, 1));
}

#[test]
fn a_place_that_is_not_there_gets_nothing() {
    let mut link = two(WIDE, Distance::NONE, 1);
    link.offer(0, 0, 2, 100, 1);
    link.offer(0, 2, 0, 100, 2);
    assert_eq!((link.next(), link.held()), (None, Amount::default()));
}

/// A packet: sent by, so long after the one before, from, to, and its bytes.
type Sent = (Nanos, Place, Place, u32);

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec((0..2 * MS, 0_usize..3, 0_usize..3, 20_u32..=1500), 1..200)
}

fn terrain() -> impl Strategy<Value = Terrain> {
    let line = (1_u64..2000 * MBIT, 0_u64..100_000, 0_u64..200_000)
        .prop_map(|(bits_per_second, bucket_bytes, queue_bytes)| Line { bits_per_second, bucket_bytes, queue_bytes });
    let distance =
        (0_u64..20_000, 0_u32..300_000).prop_map(|(us, loss_ppm)| Distance { delay: Duration::from_micros(us), loss_ppm });
    let distances = prop::collection::vec(prop::collection::vec(distance, 3), 3);
    (prop::collection::vec(line, 3), distances, any::<u64>()).prop_map(|(lines, distances, seed)| Terrain {
        lines,
        distances,
        seed,
    })
}

/// Offers everything, and returns when and in which order it was delivered: packet, place, bytes.
fn carried(terrain: &Terrain, sent: &[Sent]) -> (Link<u64>, Vec<(Nanos, Place, u64)>) {
    let mut link = Link::new(terrain);
    let (mut now, mut delivered) = (0, Vec::new());
    for (number, (after, from, to, bytes)) in sent.iter().enumerate() {
        now += after;
        while let Some(at) = link.next().filter(|at| *at <= now) {
            while let Some(due) = link.due(at) {
                delivered.push(due);
            }
        }
        link.offer(now, *from, *to, *bytes, u64::try_from(number).expect("few"));
    }
    delivered.extend(run(&mut link));
    (link, delivered)
}

fn bytes_of(sent: &[Sent], packet: u64) -> u64 {
    u64::from(sent[index(packet)].3)
}

fn index(packet: u64) -> usize {
    usize::try_from(packet).expect("few")
}

fn amount(sizes: &[u64]) -> (u64, u64) {
    (u64::try_from(sizes.len()).expect("few"), sizes.iter().sum())
}

proptest! {
    #[test]
    fn no_byte_comes_from_nowhere_or_goes_there(terrain in terrain(), sent in sent()) {
        let (link, delivered) = carried(&terrain, &sent);
        for (place, tally) in link.tallies().iter().enumerate() {
            let sum = |of: fn(&Amount) -> u64| [tally.delivered, tally.lost, tally.dropped].iter().map(of).sum::<u64>();
            prop_assert_eq!((sum(|it| it.packets), sum(|it| it.bytes)), (tally.offered.packets, tally.offered.bytes));
            let sizes: Vec<_> = sent.iter().filter(|sent| sent.1 == place).map(|sent| u64::from(sent.3)).collect();
            prop_assert_eq!((tally.offered.packets, tally.offered.bytes), amount(&sizes));
            let came = delivered.iter().map(|(.., packet)| *packet).filter(|packet| sent[index(*packet)].1 == place);
            let sizes: Vec<_> = came.map(|packet| bytes_of(&sent, packet)).collect();
            prop_assert_eq!((tally.delivered.packets, tally.delivered.bytes), amount(&sizes));
        }
        prop_assert_eq!(link.held(), Amount::default());
    }

    #[test]
    fn between_two_places_the_order_is_kept(terrain in terrain(), sent in sent()) {
        let (_, delivered) = carried(&terrain, &sent);
        for from in 0..3 {
            for to in 0..3 {
                let of_pair = delivered.iter().map(|(.., packet)| *packet).filter(|packet| {
                    let (_, f, t, _) = sent[index(*packet)];
                    (f, t) == (from, to)
                });
                prop_assert!(of_pair.is_sorted());
            }
        }
    }

    #[test]
    fn the_rate_is_kept_over_any_window(terrain in terrain(), sent in sent()) {
        let (_, delivered) = carried(&terrain, &sent);
        for (place, line) in terrain.lines.iter().enumerate() {
            let came: Vec<_> = delivered.iter().filter(|(_, to, _)| *to == place).collect();
            for (first, (begin, ..)) in came.iter().enumerate() {
                let mut bytes = 0;
                for (at, _, packet) in &came[first..] {
                    bytes += bytes_of(&sent, *packet);
                    // A packet is delivered when its last bit is there, at a whole nanosecond.
                    let passed = u128::from(at - begin + 1) * u128::from(line.bits_per_second);
                    let largest = came[first..].iter().map(|(.., packet)| bytes_of(&sent, *packet)).max().unwrap_or(0);
                    let bucket = line.bucket_bytes.max(largest);
                    prop_assert!(cost(bytes) <= passed + cost(bucket), "{bytes} bytes from {begin} to {at}");
                }
            }
        }
    }

    #[test]
    fn a_busy_line_is_never_idle(bits_per_second in 1_000_000_u64..2_000_000_000, sizes in prop::collection::vec(20_u32..=1500, 1..300)) {
        let line = Line { bits_per_second, bucket_bytes: 0, queue_bytes: 1 << 30 };
        let mut link = Link::new(&Terrain { lines: vec![line, WIDE], distances: Vec::new(), seed: 0 });
        for bytes in &sizes {
            link.offer(SECOND, 0, 1, *bytes, 0);
        }
        let bytes: u64 = sizes.iter().map(|bytes| u64::from(*bytes)).sum();
        let last = times(&run(&mut link)).last().copied();
        // All of them together take as long as one of their size, to the nanosecond.
        prop_assert_eq!(last, u64::try_from(u128::from(SECOND) + cost(bytes).div_ceil(bits_per_second.into())).ok());
    }

    #[test]
    fn how_often_one_looks_changes_nothing(terrain in terrain(), sent in sent()) {
        let (exact, delivered) = carried(&terrain, &sent);
        let mut link = Link::new(&terrain);
        let (mut now, mut seen) = (0, Vec::new());
        for (number, (after, from, to, bytes)) in sent.iter().enumerate() {
            now += after;
            link.offer(now, *from, *to, *bytes, u64::try_from(number).expect("few"));
        }
        while let Some(due) = link.due(Nanos::MAX) {
            seen.push(due);
        }
        prop_assert_eq!(link.tallies(), exact.tallies());
        for place in 0..3 {
            let of = |all: &[(Nanos, Place, u64)]| all.iter().copied().filter(|(_, to, _)| *to == place).collect::<Vec<_>>();
            prop_assert_eq!(of(&seen), of(&delivered));
        }
    }
}
