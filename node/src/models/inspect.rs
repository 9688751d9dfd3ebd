//! What kind of file this is, by its content: how it is cut into segments, or why it is refused.
//!
//! Used on both sides: before a file enters a manifest, and before received files are delivered.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use alliance_protocol::manifest::SegmentKind;

use super::{
    pickle::{self, Pickle},
    safetensors::{self, PREFIX_BYTES, SafetensorsError},
};

/// How a file is cut.
pub(super) struct Plan {
    /// The bytes of the header segment, if the file has one; they were checked, so they are what must be hashed.
    pub(super) header: Vec<u8>,
    /// Each part with its length, in order, without holes.
    pub(super) parts: Vec<(SegmentKind, u64)>,
}

/// Why a file cannot be part of an artefact.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("`{path}` {source}")]
    Safetensors { path: String, source: SafetensorsError },
    #[error("`{path}` is {what}, and can run code when it is loaded; convert it to safetensors and remove it")]
    Pickle { path: String, what: Pickle },
    #[error("cannot read `{path}`: {source}")]
    Disk { path: String, source: io::Error },
}

/// Looks at a file of `bytes` bytes; `path` is its name in the artefact.
pub(super) fn inspect(path: &str, file: &File, bytes: u64) -> Result<Plan, FormatError> {
    let disk = |source| FormatError::Disk { path: path.to_owned(), source };
    let is_safetensors = path.rsplit_once('.').is_some_and(|(_, end)| end.eq_ignore_ascii_case("safetensors"));
    let malformed = if is_safetensors {
        match read_header(file, bytes).map_err(disk)? {
            Ok(plan) => return Ok(plan),
            Err(malformed) => Some(malformed),
        }
    } else {
        None
    };
    // A pickle under a safetensors name is better told to be one.
    if let Some(what) = pickle::detect(bytes, &|at, buffer| file.read_exact_at(buffer, at)).map_err(disk)? {
        return Err(FormatError::Pickle { path: path.to_owned(), what });
    }
    match malformed {
        Some(source) => Err(FormatError::Safetensors { path: path.to_owned(), source }),
        None if bytes == 0 => Ok(Plan { header: Vec::new(), parts: Vec::new() }),
        None => Ok(Plan { header: Vec::new(), parts: vec![(SegmentKind::Opaque, bytes)] }),
    }
}

fn read_header(file: &File, bytes: u64) -> io::Result<Result<Plan, SafetensorsError>> {
    if bytes < PREFIX_BYTES {
        return Ok(Err(SafetensorsError::TooShort { bytes }));
    }
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0)?;
    let length = match safetensors::header_bytes(prefix, bytes) {
        Ok(length) => length,
        Err(error) => return Ok(Err(error)),
    };
    let header_bytes = PREFIX_BYTES.saturating_add(length);
    let mut header = vec![0; usize::try_from(header_bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut header, 0)?;
    // What is parsed must be what is hashed: the length was read before the rest.
    let Some(json) = header.strip_prefix(&prefix) else {
        return Err(io::Error::other("the file is being changed"));
    };
    match safetensors::parse_header(json, bytes.saturating_sub(header_bytes)) {
        Ok(tensors) => {
            let parts = std::iter::once((SegmentKind::Header, header_bytes)).chain(tensors).collect();
            Ok(Ok(Plan { header, parts }))
        }
        Err(error) => Ok(Err(error)),
    }
}
