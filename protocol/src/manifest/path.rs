//! Paths inside an artefact: relative, plain, and safe to create on any disk.
//!
//! A path never leaves the artefact's directory, never names a hidden file (so that an artefact can bring no `.git` and no
//! file of our own staging), and never clashes with another one on a disk that ignores the case of letters.

use std::collections::HashSet;

use crate::limits;

/// Why a path cannot stand in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {max} bytes", max = limits::PATH_BYTES_MAX)]
    TooLong,
    #[error("it is absolute")]
    Absolute,
    #[error("a part of it is empty")]
    EmptyComponent,
    #[error("a part of it is longer than {max} bytes", max = limits::NAME_BYTES_MAX)]
    ComponentTooLong,
    #[error("a part of it starts with a dot")]
    Dot,
    #[error("it has a backslash")]
    Backslash,
    #[error("it has a control or direction character")]
    Unprintable,
}

/// Checks one path.
///
/// # Errors
/// The first rule it breaks.
pub fn check_path(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() > limits::PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    if path.starts_with('/') {
        return Err(PathError::Absolute);
    }
    if path.contains('\\') {
        return Err(PathError::Backslash);
    }
    if !is_printable(path) {
        return Err(PathError::Unprintable);
    }
    for component in path.split('/') {
        if component.is_empty() {
            return Err(PathError::EmptyComponent);
        }
        // Covers `.` and `..` too.
        if component.starts_with('.') {
            return Err(PathError::Dot);
        }
        if component.len() > limits::NAME_BYTES_MAX {
            return Err(PathError::ComponentTooLong);
        }
    }
    Ok(())
}

/// Whether a name from a peer or a file can be shown on a terminal as it is: no control characters, and none that turns the
/// direction of the text around it.
#[must_use]
pub fn is_printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'))
}

/// The first path that clashes with another: equal but for the case of ASCII letters, or a file where another path needs a
/// directory.
pub(super) fn find_clash<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let mut files = HashSet::new();
    for path in paths.clone() {
        if !files.insert(path.to_ascii_lowercase()) {
            return Some(path);
        }
    }
    paths.into_iter().find(|path| {
        let lower = path.to_ascii_lowercase();
        let mut parent = lower.as_str();
        std::iter::from_fn(|| {
            parent = parent.rsplit_once('/')?.0;
            Some(files.contains(parent))
        })
        .any(|taken| taken)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let long = "x".repeat(limits::NAME_BYTES_MAX);
        let deep = ["x"; 257].join("/");
        let table: &[(&str, Result<(), PathError>)] = &[
            ("config.json", Ok(())),
            ("a/b/c.safetensors", Ok(())),
            ("модель/веса.safetensors", Ok(())),
            (&long, Ok(())),
            ("", Err(PathError::Empty)),
            ("/etc/passwd", Err(PathError::Absolute)),
            ("//x", Err(PathError::Absolute)),
            ("..", Err(PathError::Dot)),
            (".", Err(PathError::Dot)),
            ("./a", Err(PathError::Dot)),
            ("../a", Err(PathError::Dot)),
            ("a/../../b", Err(PathError::Dot)),
            ("a/..", Err(PathError::Dot)),
            (".git/hooks/post-checkout", Err(PathError::Dot)),
            ("a/.env", Err(PathError::Dot)),
            ("a//b", Err(PathError::EmptyComponent)),
            ("a/", Err(PathError::EmptyComponent)),
            ("a\\..\\b", Err(PathError::Backslash)),
            ("a\0b", Err(PathError::Unprintable)),
            ("a\u{1b}[2Jb", Err(PathError::Unprintable)),
            ("a\u{202e}gpj.exe", Err(PathError::Unprintable)),
            (&deep, Err(PathError::TooLong)),
        ];
        for (path, expected) in table {
            assert_eq!(check_path(path), *expected, "{path:?}");
        }
        assert_eq!(check_path(&format!("{long}x")), Err(PathError::ComponentTooLong));
    }

    #[test]
    fn clashes_are_found() {
        let table: &[(&[&str], Option<&str>)] = &[
            (&["a", "b", "c/d", "c/e"], None),
            (&["a", "a"], Some("a")),
            (&["README.md", "readme.md"], Some("readme.md")),
            (&["a", "a/b"], Some("a/b")),
            (&["A", "a/b/c"], Some("a/b/c")),
            (&["ab", "a/b"], None),
        ];
        for (paths, expected) in table {
            assert_eq!(find_clash(paths.iter().copied()), *expected, "{paths:?}");
        }
    }
}
