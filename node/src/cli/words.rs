//! Arguments that are more than a word: spans of time, names of artefacts, pairs.

use std::{fmt, path::PathBuf, str::FromStr};

use alliance_protocol::{
    offer::{BadName, split_name},
    vocabulary::{Country, SafeguardKind, Seat, UnknownWord},
};

/// A span of time in milliseconds, written `90s`, `45m`, `12h`, `30d` or `2w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) ms: u64,
}

/// `organisation/name`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(pub(super) String);

/// `kind@CC`: a safeguard of this kind, issued by the authority of this country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Presented {
    pub(super) kind: SafeguardKind,
    pub(super) issuer: Country,
}

/// `CC=FILE`: the public file of a member's authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberFile {
    pub(super) member: Country,
    pub(super) file: PathBuf,
}

/// A member and what it may do, as in `ZA=suspended`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberSeat {
    pub(super) member: Country,
    pub(super) seat: Seat,
}

/// Why an argument makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadWord {
    #[error("`{0}` is not a span of time; write a number above 0 and a unit: 90s, 45m, 12h, 30d, 2w")]
    Span(String),
    #[error("`{0}` is not of the form KIND@CC, such as tia@BR")]
    Presented(String),
    #[error("`{0}` is not of the form CC=FILE, such as BR=br/authority.json")]
    MemberFile(String),
    #[error("`{0}` is not of the form CC=SEAT, such as ZA=suspended")]
    MemberSeat(String),
    #[error("{0}")]
    Unknown(String),
}

impl FromStr for Span {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let fail = || BadWord::Span(text.chars().take(32).collect());
        let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
        let (number, unit) = text.split_at_checked(at).ok_or_else(fail)?;
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "w" => 7 * 24 * 60 * 60,
            _ => return Err(fail()),
        };
        let number: u64 = number.parse().map_err(|_| fail())?;
        let ms = number.checked_mul(seconds).and_then(|seconds| seconds.checked_mul(1000));
        ms.filter(|ms| *ms > 0).map(|ms| Self { ms }).ok_or_else(fail)
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        split_name(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Presented {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let (kind, issuer) = text.split_once('@').ok_or_else(|| BadWord::Presented(text.chars().take(64).collect()))?;
        Ok(Self {
            kind: kind.parse().map_err(|error: UnknownWord| BadWord::Unknown(error.to_string()))?,
            issuer: country(issuer)?,
        })
    }
}

impl FromStr for MemberFile {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        match text.split_once('=') {
            Some((member, file)) if !file.is_empty() => Ok(Self { member: country(member)?, file: file.into() }),
            Some(_) | None => Err(BadWord::MemberFile(text.chars().take(128).collect())),
        }
    }
}

impl FromStr for MemberSeat {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let (member, seat) = text.split_once('=').ok_or_else(|| BadWord::MemberSeat(text.chars().take(128).collect()))?;
        let seat = seat.parse().map_err(|error: UnknownWord| BadWord::Unknown(error.to_string()))?;
        Ok(Self { member: country(member)?, seat })
    }
}

fn country(text: &str) -> Result<Country, BadWord> {
    text.parse().map_err(|error: alliance_protocol::vocabulary::UnknownCountry| BadWord::Unknown(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_number_and_a_unit() {
        for (text, ms) in
            [("1s", 1000), ("45m", 2_700_000), ("12h", 43_200_000), ("30d", 2_592_000_000), ("2w", 1_209_600_000)]
        {
            assert_eq!(text.parse(), Ok(Span { ms }), "{text}");
        }
        for text in [
            "",
            "0s",
            "30",
            "d",
            "-1d",
            "1.5h",
            "1 d",
            "1D",
            "1y",
            "1\u{e9}",
            "18446744073709551615s",
            "9999999999999999999999s",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_have_two_known_halves() {
        assert!("tia@BR".parse::<Presented>().is_ok());
        for text in ["tia", "tia@", "tia@XX", "@BR", "tea@BR", "BR@tia"] {
            assert!(text.parse::<Presented>().is_err(), "{text}");
        }
        assert_eq!("BR=a=b".parse::<MemberFile>().expect("a pair").file, PathBuf::from("a=b"));
        for text in ["BR", "BR=", "=x", "XX=x"] {
            assert!(text.parse::<MemberFile>().is_err(), "{text}");
        }
    }

    #[test]
    fn seats_are_of_members() {
        let suspended = MemberSeat { member: "ZA".parse().expect("a country"), seat: Seat::Suspended };
        assert_eq!("ZA=suspended".parse(), Ok(suspended));
        for text in ["ZA", "ZA=", "ZA=out", "XX=full", "=full"] {
            assert!(text.parse::<MemberSeat>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_checked() {
        assert!("usp/amazonia-7b".parse::<Name>().is_ok());
        assert!("../etc/passwd".parse::<Name>().is_err());
    }
}
