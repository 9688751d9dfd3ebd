//! Where a node stands on the earth, and how long light takes from one place to another.
//!
//! A measured round trip can only contradict a place, never prove one: a path can be longer than the straight line, but
//! nothing arrives before light does. The bound is light in glass; a path of another kind (hollow fibre, radio) may be up to
//! half as fast again, and whoever uses one should not claim a place to which it is measured.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Steps of a degree: a hundred metres or so, which says in which building of a city a node stands to nobody.
const STEPS_PER_DEGREE: i32 = 1_000;

/// Kilometres that light travels in glass in a microsecond: c divided by 1.468, the index of standard single-mode fibre
/// (ITU-T G.652).
const KM_PER_US: f64 = 0.299_792_458 / 1.468;

/// The mean radius of the earth in kilometres (IUGG).
const EARTH_KM: f64 = 6_371.009;

/// What of a distance is taken off before it is held against anybody: the earth is no sphere, which makes up to 0.56 percent.
const FLATTENED: f64 = 0.994;

/// Kilometres that are taken off besides, for places that are rounded.
const ROUNDED_KM: f64 = 1.0;

/// A point on the earth, to a thousandth of a degree (WGS 84).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Thousandths of a degree, positive to the north.
    latitude: i32,
    /// Thousandths of a degree, positive to the east.
    longitude: i32,
}

/// The text or the numbers name no point on the earth.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a place: latitude and longitude in degrees, as in `-23.551,-46.633`")]
pub struct NoPlace(String);

impl Place {
    /// The point at this latitude and longitude, in thousandths of a degree.
    ///
    /// # Errors
    /// It lies beyond a pole or the antimeridian.
    pub fn new(latitude: i32, longitude: i32) -> Result<Self, NoPlace> {
        let within = |steps: i32, degrees: u32| steps.unsigned_abs() <= degrees * STEPS_PER_DEGREE.unsigned_abs();
        let here = within(latitude, 90) && within(longitude, 180);
        let place = Self { latitude, longitude };
        if here { Ok(place) } else { Err(NoPlace(place.to_string())) }
    }

    /// Kilometres along the surface to another place, at least: what rounding and the shape of the earth may have added is
    /// taken off.
    #[must_use]
    pub fn km_at_least(&self, other: &Self) -> f64 {
        let radians = |steps: i32| (f64::from(steps) / f64::from(STEPS_PER_DEGREE)).to_radians();
        let (from, to) = (radians(self.latitude), radians(other.latitude));
        let (rise, turn) = ((to - from) / 2.0, radians(other.longitude.saturating_sub(self.longitude)) / 2.0);
        let chord = rise.sin().powi(2) + from.cos() * to.cos() * turn.sin().powi(2);
        let km = 2.0 * EARTH_KM * chord.clamp(0.0, 1.0).sqrt().asin();
        (km * FLATTENED - ROUNDED_KM).max(0.0)
    }

    /// Microseconds below which no round trip to another place through fibre can be.
    #[must_use]
    pub fn round_trip_us_at_least(&self, other: &Self) -> u64 {
        let us = 2.0 * self.km_at_least(other) / KM_PER_US;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and below 0.2 million")]
        let us = us as u64;
        us
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let degrees = |steps: i32| {
            let (steps, sign) = (steps.unsigned_abs(), if steps < 0 { "-" } else { "" });
            let per = STEPS_PER_DEGREE.unsigned_abs();
            format!("{sign}{}.{:03}", steps / per, steps % per)
        };
        write!(f, "{},{}", degrees(self.latitude), degrees(self.longitude))
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    /// Reads degrees with a decimal point, latitude first. What is finer than a thousandth is rounded.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || NoPlace(text.chars().take(64).collect());
        let steps = |degrees: &str| {
            let degrees: f64 = degrees.trim().parse().map_err(|_| fail())?;
            let steps = (degrees * f64::from(STEPS_PER_DEGREE)).round();
            // What is no number at all is in no range.
            let furthest = f64::from(180 * STEPS_PER_DEGREE);
            if !(-furthest..=furthest).contains(&steps) {
                return Err(fail());
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most 180,000, and whole")]
            let steps = steps as i32;
            Ok(steps)
        };
        let (latitude, longitude) = text.split_once(',').ok_or_else(fail)?;
        Self::new(steps(latitude)?, steps(longitude)?).map_err(|_| fail())
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            latitude: i32,
            longitude: i32,
        }
        let Fields { latitude, longitude } = Fields::deserialize(deserializer)?;
        Self::new(latitude, longitude).map_err(D::Error::custom)
    }
}

/// Where a node cannot be, by what was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Misplacement {
    At(Vec<Place>),
    /// It was said to be at so many places at which it was not that no other is believed.
    Everywhere,
}

impl Misplacement {
    /// Whether it is contradicted that the node is at this place.
    pub(crate) fn excludes(&self, place: &Place) -> bool {
        match self {
            Self::At(places) => places.contains(place),
            Self::Everywhere => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().expect("a place")
    }

    #[test]
    fn places_are_read_and_shown() {
        for (text, shown) in [
            ("-23.551,-46.633", "-23.551,-46.633"),
            ("0,0", "0.000,0.000"),
            (" 55.75222 , 37.61556 ", "55.752,37.616"),
            ("-0.0004,180", "0.000,180.000"),
            ("90,-180", "90.000,-180.000"),
        ] {
            assert_eq!(place(text).to_string(), shown);
        }
        for bad in ["", "1", "1;2", "91,0", "0,181", "-90.001,0", "NaN,0", "inf,0", "1e9,0", "a,b", "1,2,3", "1,"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
        assert!(Place::new(90_001, 0).is_err() && Place::new(i32::MIN, i32::MIN).is_err());
    }

    /// Distances between the capitals, from their coordinates with Vincenty's formula on WGS 84: never more than these, and
    /// not much less.
    #[test]
    fn distances_are_lower_bounds() {
        let [brasilia, moscow, delhi, beijing, pretoria] =
            ["-15.794,-47.883", "55.752,37.616", "28.614,77.209", "39.904,116.407", "-25.746,28.188"].map(place);
        for (one, other, km) in [
            (brasilia, moscow, 11_176.0),
            (moscow, delhi, 4_341.0),
            (delhi, beijing, 3_784.0),
            (beijing, pretoria, 11_606.0),
            (brasilia, brasilia, 0.0),
        ] {
            let least = one.km_at_least(&other);
            assert!(least <= km && least >= km * 0.98 - 2.0, "{one} {other}: {least} of {km}");
            assert_eq!(one.km_at_least(&other), other.km_at_least(&one));
        }
        // Across the antimeridian it is near.
        assert!(place("0,179.9").km_at_least(&place("0,-179.9")) < 30.0);
        assert!(place("90,0").km_at_least(&place("-90,0")) > 19_800.0);
    }

    #[test]
    fn light_takes_its_time() {
        let (delhi, beijing) = (place("28.614,77.209"), place("39.904,116.407"));
        let us = delhi.round_trip_us_at_least(&beijing);
        assert!((36_000..37_100).contains(&us), "{us}");
        assert_eq!(delhi.round_trip_us_at_least(&delhi), 0);
    }
}
