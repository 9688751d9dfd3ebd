//! How many people's data this node has sent abroad in a calendar year: laws such as China's set tiers by it.
//!
//! Rebuilt from the clearances in the ledger. Counted before the transfer, so that one that breaks off counts; each artefact
//! counts once for those of each kind, so that trying again does not. Parts of a whole that was split add up to the whole.

use std::collections::BTreeMap;

use crate::{
    border::{Counted, InYear},
    gate::Volume,
    id::ManifestId,
    limits,
    time::Timestamp,
};

/// The counter. Keeps this year and the one before.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    years: BTreeMap<i64, Year>,
}

#[derive(Debug, Default)]
struct Year {
    total: Volume,
    /// What was counted of each, with the number that was declared for it: a new declaration counts anew.
    counted: BTreeMap<(ManifestId, Option<u64>), Volume>,
}

/// Artefacts of one year that are remembered as counted. Further ones count each time, which errs towards the stricter tier.
const COUNTED_MAX: usize = 100_000;

impl Volumes {
    /// What was counted before the artefact, or a part of it, is sent abroad now.
    pub(super) fn before(&self, manifest: ManifestId, people: Option<u64>, now: Timestamp) -> Counted {
        let mut in_years =
            years(now).map(|year| self.years.get(&year).map(|year| year.before(manifest, people)).unwrap_or_default());
        Counted::Before(in_years.next().unwrap_or_default(), in_years.next())
    }

    /// What was counted this year so far.
    pub(super) fn so_far(&self, now: Timestamp) -> Volume {
        years(now).filter_map(|year| self.years.get(&year)).fold(Volume::default(), |sum, year| sum.larger(year.total))
    }

    /// Counts an artefact that is sent abroad.
    pub(super) fn count(&mut self, manifest: ManifestId, people: Option<u64>, own: Volume, at: Timestamp) {
        if own == Volume::default() {
            return;
        }
        for year in years(at) {
            let kept = self.years.entry(year).or_default();
            let before = kept.before(manifest, people);
            kept.total = before.with(own);
            if kept.counted.len() < COUNTED_MAX || kept.counted.contains_key(&(manifest, people)) {
                kept.counted.insert((manifest, people), before.of_it.larger(own));
            }
        }
        while self.years.len() > 2 {
            self.years.pop_first();
        }
    }
}

impl Year {
    fn before(&self, manifest: ManifestId, people: Option<u64>) -> InYear {
        InYear { total: self.total, of_it: self.counted.get(&(manifest, people)).copied().unwrap_or_default() }
    }
}

/// The year, or at its turn both years, in which the true time lies. Years and days are those of UTC.
fn years(at: Timestamp) -> impl Iterator<Item = i64> {
    let skew = limits::CLOCK_SKEW_MS_MAX;
    let ends = [at.minus_ms(skew), at.plus_ms(skew)].map(year);
    let [early, late] = ends;
    std::iter::once(early).chain((late != early).then_some(late))
}

fn year(at: Timestamp) -> i64 {
    let stamp = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    // After the last instant that the calendar knows, everything is one year.
    stamp.map_or(i64::MAX, |stamp| i64::from(stamp.to_zoned(jiff::tz::TimeZone::UTC).year()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gate::People, vocabulary::Label};

    fn of(people: u64) -> Volume {
        Volume::of(&[Label::Personal].into(), Some(people))
    }

    fn id(n: u8) -> ManifestId {
        ManifestId([n; 32])
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    #[test]
    fn splitting_does_not_help_and_trying_again_does_not_hurt() {
        let now = at("2026-05-01");
        let mut volumes = Volumes::default();
        for part in 0..10 {
            volumes.count(id(part), Some(10_000), of(10_000), now);
            volumes.count(id(part), Some(10_000), of(10_000), now);
        }
        assert_eq!(volumes.so_far(now), of(100_000));
        assert_eq!(volumes.before(id(0), Some(10_000), now).with(of(10_000)), of(100_000));
        assert_eq!(volumes.before(id(0), Some(20_000), now).with(of(20_000)), of(120_000), "declared anew, counted anew");
        assert_eq!(volumes.before(id(99), Some(1), now).with(of(1)), of(100_001));
    }

    #[test]
    fn those_of_each_kind_count_once_whichever_part_crosses_first() {
        let now = at("2026-05-01");
        let special = Volume::of(&[Label::Health].into(), Some(10));
        let (both, parts) = (of(10).and(special), [of(10), special]);
        for first in [0, 1] {
            let mut volumes = Volumes::default();
            volumes.count(id(1), Some(10), parts[first], now);
            assert_eq!(volumes.so_far(now), parts[first]);
            let before = volumes.before(id(1), Some(10), now);
            assert_eq!((before.with(parts[first]), before.with(parts[1 - first])), (parts[first], both));
            assert_eq!(before.with(Volume::NONE), parts[first]);
            for _ in 0..2 {
                volumes.count(id(1), Some(10), parts[1 - first], now);
                assert_eq!(volumes.so_far(now), both);
            }
            let before = volumes.before(id(1), Some(10), now);
            assert!(parts.into_iter().all(|part| before.with(part) == both));
        }
        assert_eq!(Counted::Said(special).with(of(10)), special, "what the exporter says has it in it");
    }

    #[test]
    fn at_the_turn_of_a_year_the_larger_of_both_is_asked_about() {
        let turn = at("2026-12-31T23:59:30Z");
        for counted in ["2026-12-31T12:00:00Z", "2027-01-01T12:00:00Z"] {
            let mut volumes = Volumes::default();
            volumes.count(id(1), Some(7), of(7), at(counted));
            assert_eq!(volumes.before(id(2), Some(3), turn).with(of(3)), of(10), "{counted}");
            assert_eq!(volumes.before(id(1), Some(7), turn).with(of(7)), of(7), "{counted}");
        }
    }

    #[test]
    fn a_year_begins_in_utc_and_both_count_at_its_turn() {
        let mut volumes = Volumes::default();
        volumes.count(id(1), Some(7), of(7), at("2026-12-31T12:00:00Z"));
        assert_eq!(volumes.so_far(at("2026-12-31T23:59:30Z")), of(7));
        assert_eq!(volumes.so_far(at("2027-01-01T00:00:30Z")), of(7), "the true time may lie in either year");
        assert_eq!(volumes.so_far(at("2027-01-01T00:01:01Z")), Volume::default());
        volumes.count(id(2), Some(3), of(3), at("2027-01-01T00:00:30Z"));
        assert_eq!(volumes.so_far(at("2026-12-31T12:00:00Z")), of(10));
        assert_eq!(volumes.so_far(at("2027-06-01")), of(3));
    }

    #[test]
    fn what_nobody_counted_is_more_than_any_number() {
        let mut volumes = Volumes::default();
        let unknown = Volume::of(&[Label::Health].into(), None);
        volumes.count(id(1), None, unknown, at("2026-05-01"));
        let total = volumes.before(id(2), Some(1), at("2026-05-01")).with(Volume::of(&[Label::Health].into(), Some(1)));
        assert_eq!((total.people, total.sensitive_people), (People::default(), People::UNKNOWN));
    }
}
