//! The limits of transfers in the node's home, so that they outlast a restart.

use std::path::Path;

use alliance_protocol::core::transfers::{LIMITS_MAX, ScopedLimit};

use crate::durable::{self, Existing, FileError, Readers};

/// Bytes of the file: a few hundred for each limit.
const LIMITS_BYTES_MAX: usize = LIMITS_MAX * 512;

/// Why the limits cannot be used. A daemon that cannot read them does not start: without them it would take what it was
/// told not to take.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{path}` holds no limits of transfers: {reason}; repair it, or remove it and set them again")]
    Syntax { path: String, reason: String },
}

/// Reads the limits; none where none were ever set.
///
/// # Errors
/// The file cannot be read, or is not one of limits.
pub fn read_limits(path: &Path) -> Result<Vec<ScopedLimit>, LimitsError> {
    let Some(bytes) = durable::read_if_there(path, LIMITS_BYTES_MAX)? else { return Ok(Vec::new()) };
    let bad = |reason: String| LimitsError::Syntax { path: path.display().to_string(), reason };
    let limits: Vec<ScopedLimit> = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    match limits.iter().find_map(|limit| limit.limit.problem()) {
        None => Ok(limits),
        Some(problem) => Err(bad(problem)),
    }
}

/// Keeps the limits.
///
/// # Errors
/// The file cannot be written.
pub fn write_limits(path: &Path, limits: &[ScopedLimit]) -> Result<(), FileError> {
    // Nothing in a limit can fail to be written as JSON.
    let text = serde_json::to_vec_pretty(limits).unwrap_or_default();
    durable::write(path, &text, Readers::Owner, Existing::Replace)
}

#[cfg(test)]
mod tests {
    use alliance_protocol::core::transfers::{LimitScope, TransferLimit};

    use super::*;

    #[test]
    fn limits_outlast_a_restart_and_damage_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("limits.json");
        assert_eq!(read_limits(&path).expect("read"), []);
        let limit = TransferLimit { out: Some(5_000_000), at_a_time: Some(2), ..TransferLimit::default() };
        let limits = [LimitScope::All, LimitScope::Member("BR".parse().expect("a country"))];
        let limits = limits.map(|scope| ScopedLimit { scope, limit });
        write_limits(&path, &limits).expect("written");
        assert_eq!(read_limits(&path).expect("read"), limits);
        for bad in ["", "{}", "[{}]", r#"[{"scope":"all","limit":{"out":1}}]"#, r#"[{"scope":"all","limit":{"up":1}}]"#] {
            std::fs::write(&path, bad).expect("written");
            let error = read_limits(&path).expect_err(bad);
            assert!(error.to_string().contains("limits.json"), "{error}");
        }
    }
}
