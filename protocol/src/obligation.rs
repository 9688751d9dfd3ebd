//! Duties that come with a crossing: words of a pack, some of which a node enforces by itself.
//!
//! What is enforced is a closed list; everything else is shown and recorded. Specified in `specs/04-law.md`, LAW-40 to 44.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{limits, vocabulary::Evidence};

/// A duty in the words of the pack: its one spelling. To hold it is the proof that it is well-formed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Obligation(String);

/// What a duty demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// `approval(2)`: so many officers must have approved this crossing before it is cleared: of the member's authority whose
    /// pack demands it; where it is a house's, of those that the house names.
    Approval { officers: u8 },
    /// `delete_within(24h)`: the importer's node deletes what it received so many hours after it was delivered.
    DeleteWithin { hours: u32 },
    /// `retain_at_most(30d)`: the same in days.
    RetainAtMost { days: u32 },
    /// `require(ai_label)`: nothing is cleared unless the exporter declares this evidence for the artefact.
    Require(Evidence),
    /// Any other word: for people.
    Told,
}

/// The text is not a duty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a duty: write one word of letters, digits and `_`, or approval(N), delete_within(Nh), retain_at_most(Nd), \
     require(EVIDENCE)"
)]
pub struct NotADuty(String);

/// Hours in a span that is given in days.
const HOURS_PER_DAY: u32 = 24;

/// Days that a duty may span at most: a century.
const DAYS_MAX: u32 = 36_525;

impl Obligation {
    /// The words, as they stand in the pack and in records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it demands.
    #[must_use]
    pub fn duty(&self) -> Duty {
        // INVARIANT: the text was read by `read` when this value was made.
        read(&self.0).unwrap_or(Duty::Told)
    }
}

impl Duty {
    /// How many hours after delivery the artefact must be gone, where it must.
    #[must_use]
    pub const fn kept_hours(self) -> Option<u32> {
        match self {
            Self::DeleteWithin { hours } => Some(hours),
            Self::RetainAtMost { days } => Some(days.saturating_mul(HOURS_PER_DAY)),
            Self::Approval { .. } | Self::Require(_) | Self::Told => None,
        }
    }
}

fn read(text: &str) -> Option<Duty> {
    if text.is_empty() || text.len() > limits::NAME_BYTES_MAX {
        return None;
    }
    let word = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let Some((name, rest)) = text.split_once('(') else { return word(text).then_some(Duty::Told) };
    let argument = rest.strip_suffix(')')?;
    // One spelling for each number.
    let number = |digits: &str, max: u32| {
        let number: u32 = digits.parse().ok()?;
        (number >= 1 && number <= max && number.to_string() == digits).then_some(number)
    };
    match name {
        "approval" => {
            let officers = number(argument, u32::try_from(limits::OFFICERS_MAX).ok()?)?;
            Some(Duty::Approval { officers: u8::try_from(officers).ok()? })
        }
        "delete_within" => {
            Some(Duty::DeleteWithin { hours: number(argument.strip_suffix('h')?, DAYS_MAX * HOURS_PER_DAY)? })
        }
        "retain_at_most" => Some(Duty::RetainAtMost { days: number(argument.strip_suffix('d')?, DAYS_MAX)? }),
        "require" => Some(Duty::Require(argument.parse().ok()?)),
        _ => None,
    }
}

impl FromStr for Obligation {
    type Err = NotADuty;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match read(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(NotADuty(text.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for Obligation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Obligation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Obligation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duties_have_one_spelling_each() {
        let good = [
            ("primary_db_in_RU", Duty::Told),
            ("approval(2)", Duty::Approval { officers: 2 }),
            ("delete_within(24h)", Duty::DeleteWithin { hours: 24 }),
            ("retain_at_most(30d)", Duty::RetainAtMost { days: 30 }),
            ("require(ai_label)", Duty::Require(Evidence::AiLabel)),
        ];
        for (text, duty) in good {
            let obligation: Obligation = text.parse().expect(text);
            assert_eq!((obligation.duty(), obligation.as_str()), (duty, text));
        }
        let bad = [
            "",
            "a b",
            "a,b",
            "a|b",
            "approval()",
            "approval(0)",
            "approval(17)",
            "approval(02)",
            "approval(2",
            "approval(+2)",
            "delete_within(24)",
            "delete_within(24d)",
            "delete_within(0h)",
            "delete_within(99999999999h)",
            "retain_at_most(1h)",
            "require(love)",
            "require()",
            "delete_withn(24h)",
            "forget(1)",
            "a)",
            "\u{0430}",
        ];
        for text in bad {
            assert!(text.parse::<Obligation>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_hours() {
        assert_eq!(Duty::DeleteWithin { hours: 24 }.kept_hours(), Some(24));
        assert_eq!(Duty::RetainAtMost { days: 2 }.kept_hours(), Some(48));
        assert_eq!(Duty::Told.kept_hours(), None);
    }
}
