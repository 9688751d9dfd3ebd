//! Compares a directory with the manifest of an artefact, byte for byte, and names everything that differs.

use std::{
    fmt,
    io::{self},
    path::Path,
};

use alliance_protocol::manifest::{self, Manifest};

use super::{
    digest::{BUFFER_BYTES, FileDigest},
    tree::{TreeError, open_inside},
};

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Bytes that were read and compared.
    pub bytes: u64,
    /// Files that are exactly what the manifest says.
    pub files_intact: u32,
    /// In the order of the manifest.
    pub problems: Vec<VerifyProblem>,
}

/// One difference between a directory and a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyProblem {
    /// A file is not there, or is not a file of its own.
    Missing { path: String, why: String },
    /// A file has another length. Its content is not looked at.
    Length { path: String, expected: u64, found: u64 },
    /// A part of a file has other bytes: a tensor where it has a name, else the header or the whole file.
    Differs { path: String, tensor: Option<String> },
    /// The bytes are those of the manifest, but their SHA-256 is not the one that it states. Existing clients that compare it
    /// will refuse the file; whoever made the manifest is to blame, not the disk.
    Sha256 { path: String },
}

impl VerifyReport {
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for VerifyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { why, .. } => f.write_str(why),
            Self::Length { path, expected, found } => write!(f, "`{path}` has {found} bytes instead of {expected}"),
            Self::Differs { path, tensor: Some(tensor) } => write!(f, "`{path}`: tensor `{tensor}` has other bytes"),
            Self::Differs { path, tensor: None } => write!(f, "`{path}` has other bytes"),
            Self::Sha256 { path } => write!(f, "`{path}` is intact, but the manifest states a wrong SHA-256 for it"),
        }
    }
}

/// Reads every file of an artefact again and compares BLAKE3 and SHA-256. `progress` is told how many bytes have been read,
/// and of how many.
///
/// # Errors
/// The disk failed; what differs is no error but stands in the report.
pub fn verify(dir: &Path, manifest: &Manifest, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, TreeError> {
    let root = dir.canonicalize().map_err(|_| TreeError::NotADirectory { path: dir.to_owned() })?;
    let mut report = VerifyReport::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    for file in manifest.files() {
        let before = report.problems.len();
        verify_file(&root, file, &mut buffer, &mut report, &mut |done| progress(done, manifest.bytes()))?;
        if report.problems.len() == before {
            report.files_intact = report.files_intact.saturating_add(1);
        }
    }
    Ok(report)
}

fn verify_file(
    root: &Path,
    expected: &manifest::File,
    buffer: &mut [u8],
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(u64),
) -> Result<(), TreeError> {
    let path = &expected.path;
    let (mut file, metadata) = match open_inside(root, path) {
        Ok(opened) => opened,
        Err(error @ TreeError::Disk { .. }) => return Err(error),
        Err(error) => {
            report.problems.push(VerifyProblem::Missing { path: path.clone(), why: error.to_string() });
            return Ok(());
        }
    };
    if metadata.len() != expected.bytes {
        let (path, found) = (path.clone(), metadata.len());
        report.problems.push(VerifyProblem::Length { path, expected: expected.bytes, found });
        return Ok(());
    }
    let parts = expected.segments.iter().map(|segment| (segment.kind.clone(), segment.bytes));
    let mut digest = FileDigest::new(parts);
    let bytes = &mut report.bytes;
    digest
        .update_from(&mut file, buffer, &mut |count| {
            *bytes = bytes.saturating_add(count);
            progress(*bytes);
        })
        .map_err(|source: io::Error| TreeError::Disk { path: root.join(path), source })?;
    let Some((segments, sha256)) = digest.finish() else {
        // It had the right length when it was opened.
        report.problems.push(VerifyProblem::Differs { path: path.clone(), tensor: None });
        return Ok(());
    };
    let before = report.problems.len();
    for (found, wanted) in segments.iter().zip(&expected.segments) {
        if found.hash != wanted.hash {
            let tensor = match &wanted.kind {
                manifest::SegmentKind::Tensor { name, .. } => Some(name.clone()),
                manifest::SegmentKind::Header | manifest::SegmentKind::Opaque => None,
            };
            report.problems.push(VerifyProblem::Differs { path: path.clone(), tensor });
        }
    }
    if report.problems.len() == before && sha256 != expected.sha256 {
        report.problems.push(VerifyProblem::Sha256 { path: path.clone() });
    }
    Ok(())
}
