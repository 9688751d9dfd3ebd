//! Names of files in a model, as OpenSSF Model Signing v1.0 writes them (section 6.1.2).

use std::{cmp::Ordering, fmt, str::FromStr};

/// Bytes of the path of a file: the bound that manifests have.
pub const PATH_BYTES_MAX: usize = crate::limits::PATH_BYTES_MAX;

/// Names at the top of a model that signatures leave out, with what lies beneath (section 6.2).
const GIT_NAMES: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// The path of a file from the root of its model: `/` between its parts, none of which is empty, `.` or `..`, and no
/// character that a terminal would act on. Ordered by code points, the order in which files stand in what we sign.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelPath(String);

/// The text cannot name a file of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} does not name a file in a model: a relative path of at most {max} bytes, with `/` between its parts, no `.` \
     or `..`, no backslash and nothing unprintable",
    max = PATH_BYTES_MAX
)]
pub struct BadModelPath(String);

impl ModelPath {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a signature at `signature` leaves this file out: what belongs to git at the top, and the signature itself.
    #[must_use]
    pub fn is_left_out(&self, signature: Option<&Self>) -> bool {
        GIT_NAMES.contains(&self.0.split('/').next().unwrap_or_default()) || Some(self) == signature
    }

    /// What signatures leave out by default, in the order in which the specification records it.
    pub(super) fn left_out(signature: Option<&Self>) -> impl Iterator<Item = &str> {
        GIT_NAMES.into_iter().chain(signature.map(Self::as_str))
    }

    /// The order of the reference implementation: part by part, so that `sub/x` stands before `sub-a`.
    pub(super) fn cmp_by_parts(&self, other: &Self) -> Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}

impl fmt::Display for ModelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ModelPath {
    type Err = BadModelPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        if text.len() <= PATH_BYTES_MAX && text.split('/').all(plain) && text.chars().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadModelPath(text.chars().take(PATH_BYTES_MAX).collect()))
        }
    }
}

/// No control character, none that turns the direction of the text around it, and no separator of another system.
pub(super) fn is_plain(letter: char) -> bool {
    let turns = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    !letter.is_control() && !turns && letter != '\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_and_are_plain() {
        let (long, longer) = ("x".repeat(PATH_BYTES_MAX), "x".repeat(PATH_BYTES_MAX + 1));
        for good in ["a", "a/b/c", ".hidden", "a/.git", "..a", "a..", "a:0:5", "a b", "\u{43c}\u{43e}", long.as_str()] {
            assert_eq!(good.parse::<ModelPath>().map(|path| path.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "./a",
            "../a",
            "a/./b",
            "a/../b",
            "a\\b",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            "a\u{202e}b",
            "\u{feff}a",
            longer.as_str(),
        ] {
            assert!(bad.parse::<ModelPath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_at_the_top() {
        let path = |text: &str| text.parse::<ModelPath>().expect("a path");
        let signature = path("out/model.sig");
        for (text, expected) in [
            (".git", true),
            (".git/config", true),
            (".github/a/b", true),
            (".gitattributes", true),
            (".gitignore", true),
            (".gitmodules", false),
            (".gitignore2", false),
            ("sub/.git", false),
            ("sub/.gitignore", false),
            ("out/model.sig", true),
            ("out/model.sig/x", false),
            ("model.sig", false),
        ] {
            assert_eq!(path(text).is_left_out(Some(&signature)), expected, "{text}");
        }
        assert!(!signature.is_left_out(None));
    }

    #[test]
    fn the_two_orders_differ() {
        let (below, beside) = ("sub/x".parse::<ModelPath>().expect("a path"), "sub-a".parse().expect("a path"));
        assert_eq!((below.cmp(&beside), below.cmp_by_parts(&beside)), (Ordering::Greater, Ordering::Less));
    }
}
