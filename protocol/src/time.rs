//! Instants and spans of validity. The clock itself is an argument, never read here.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds (POSIX time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The instant `ms` milliseconds later; saturates at the end of time.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The instant `ms` milliseconds earlier; saturates at the epoch.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        match stamp {
            Some(stamp) => write!(f, "{}", stamp.strftime("%Y-%m-%dT%H:%M:%SZ")),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// The text is neither an RFC 3339 instant nor a calendar date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a date (2026-11-23) or an instant (2026-11-23T12:00:00Z) after 1970")]
pub struct ParseTimestampError(String);

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    /// Reads an RFC 3339 instant, or a date, which means midnight UTC at its start.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseTimestampError(text.to_owned());
        let stamp = match text.parse::<jiff::Timestamp>() {
            Ok(stamp) => stamp,
            // A civil date reads a date and time as well, which without an offset is no instant.
            Err(_) if text.len() != "2026-11-23".len() => return Err(fail()),
            Err(_) => {
                let date: jiff::civil::Date = text.parse().map_err(|_| fail())?;
                date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| fail())?.timestamp()
            }
        };
        u64::try_from(stamp.as_millisecond()).map(Self).map_err(|_| fail())
    }
}

/// When a statement counts: from `from`, inclusive, until `until`, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Why a statement does not count at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotValid {
    #[error("it is not valid before {0}")]
    Yet(Timestamp),
    #[error("it ran out at {0}")]
    AnyMore(Timestamp),
}

impl Validity {
    /// A span of `ms` milliseconds that starts at `from`.
    #[must_use]
    pub const fn lasting_ms(from: Timestamp, ms: u64) -> Self {
        Self { from, until: from.plus_ms(ms) }
    }

    /// Whether it counts at `now`. A start may lie up to the permitted clock skew in the future, so that a statement
    /// signed this second by a slightly faster clock is not refused; an end is taken as it is.
    ///
    /// # Errors
    /// Which bound is not met.
    pub fn check(&self, now: Timestamp) -> Result<(), NotValid> {
        if self.from > now.plus_ms(crate::limits::CLOCK_SKEW_MS_MAX) {
            Err(NotValid::Yet(self.from))
        } else if now >= self.until {
            Err(NotValid::AnyMore(self.until))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_instants_round_trip() {
        let midnight: Timestamp = "2026-11-23".parse().expect("a date");
        assert_eq!(midnight.to_string(), "2026-11-23T00:00:00Z");
        assert_eq!("2026-11-23T00:00:00Z".parse::<Timestamp>(), Ok(midnight));
        for bad in ["", "1969-12-31", "2026-13-01", "yesterday", "2026-11-23T00:00:00"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn validity_is_half_open() {
        let span = Validity::lasting_ms(Timestamp(1_000_000), 10);
        let skew = crate::limits::CLOCK_SKEW_MS_MAX;
        assert_eq!(span.check(Timestamp(1_000_000 - skew - 1)), Err(NotValid::Yet(Timestamp(1_000_000))));
        assert_eq!(span.check(Timestamp(1_000_000 - skew)), Ok(()));
        assert_eq!(span.check(Timestamp(1_000_009)), Ok(()));
        assert_eq!(span.check(Timestamp(1_000_010)), Err(NotValid::AnyMore(Timestamp(1_000_010))));
    }
}
