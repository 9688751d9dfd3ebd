//! Where the members' capitals are, and how long light in a cable takes between them.

use std::time::Duration;

use alliance_protocol::vocabulary::Country;

use super::link::{Distance, Line, Terrain};

/// Capitals: degrees north and east, to about ten kilometres.
const CAPITALS: [(&str, f64, f64); 11] = [
    ("BR", -15.8, -47.9),
    ("RU", 55.8, 37.6),
    ("IN", 28.6, 77.2),
    ("CN", 39.9, 116.4),
    ("ZA", -25.7, 28.2),
    ("EG", 30.0, 31.2),
    ("ET", 9.0, 38.7),
    ("IR", 35.7, 51.4),
    ("AE", 24.5, 54.4),
    ("ID", -6.2, 106.8),
    ("SA", 24.7, 46.7),
];

/// Kilometres: the mean radius of the earth (IUGG).
const EARTH_KM: f64 = 6371.0;

/// Kilometres that light goes in a second in glass, whose refractive index is 1.5.
const LIGHT_IN_GLASS_KM: f64 = 200_000.0;

/// How much longer cables are than the shortest way: they follow coasts and avoid countries.
const DETOUR: f64 = 1.5;

/// Between two nodes in one city, and the least between any.
const CITY: Duration = Duration::from_micros(500);

/// Bits in a second of every node's line.
const ACCESS_BITS_PER_SECOND: u64 = 1_000_000_000;

/// Bytes that wait at a line: what 1 Gbit/s brings in 0.26 s, the round trip between the capitals that are farthest apart.
const QUEUE_BYTES: u64 = 32_500_000;

/// Nodes in these countries, with lines of 1 Gbit/s and nothing lost on the way.
#[must_use]
pub fn terrain(countries: &[Country]) -> Terrain {
    let line = Line::new(ACCESS_BITS_PER_SECOND, QUEUE_BYTES);
    let distance = |from: &Country, to: &Country| Distance { delay: delay(*from, *to), loss_ppm: 0 };
    Terrain {
        lines: vec![line; countries.len()],
        distances: countries.iter().map(|from| countries.iter().map(|to| distance(from, to)).collect()).collect(),
        seed: 0,
    }
}

/// How long a packet takes from one country to another.
#[must_use]
pub fn delay(from: Country, to: Country) -> Duration {
    let place = |country: Country| {
        CAPITALS.iter().find(|(code, ..)| *code == country.as_str()).map(|(_, north, east)| (*north, *east))
    };
    let (Some(from), Some(to)) = (place(from), place(to)) else { return CITY };
    Duration::from_secs_f64(kilometres(from, to) * DETOUR / LIGHT_IN_GLASS_KM).max(CITY)
}

/// The great-circle distance, by the haversine formula.
fn kilometres(from: (f64, f64), to: (f64, f64)) -> f64 {
    let half_sine_squared = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
    let cosines = from.0.to_radians().cos() * to.0.to_radians().cos();
    let square = half_sine_squared(from.0, to.0) + cosines * half_sine_squared(from.1, to.1);
    2.0 * EARTH_KM * square.sqrt().min(1.0).asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn country(code: &str) -> Country {
        code.parse().expect("a country")
    }

    #[test]
    fn distances_are_those_of_the_globe() {
        // Kilometres, to a few in a hundred: more would be a matter of where in a capital one stands, and of the ellipsoid.
        for (from, to, km) in [("BR", "CN", 16_930.0), ("RU", "ZA", 9120.0), ("AE", "SA", 780.0), ("ID", "BR", 16_500.0)] {
            let measured = delay(country(from), country(to)).as_secs_f64() * LIGHT_IN_GLASS_KM / DETOUR;
            assert!((measured - km).abs() < km / 25.0, "{from} - {to}: {measured} km");
        }
    }

    #[test]
    fn delays_are_the_same_both_ways_and_never_nothing() {
        for from in alliance_policy::FOUNDING_MEMBERS.map(country) {
            for to in alliance_policy::FOUNDING_MEMBERS.map(country) {
                let there = delay(from, to);
                assert_eq!(there, delay(to, from));
                assert_eq!(there == CITY, from == to, "{from} - {to}: is a capital missing?");
                assert!(there < Duration::from_millis(130), "{from} - {to}: the queues are too short");
            }
        }
    }
}
