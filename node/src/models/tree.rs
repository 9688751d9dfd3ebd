//! The files of an artefact in a directory: which belong to it, and how they are opened without leaving it.
//!
//! Hidden names are skipped. A link may point at a file inside the directory and nowhere else. Devices, sockets and pipes are
//! refused before they are opened.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use alliance_protocol::{
    limits,
    manifest::{PathError, check_path},
};
use rustix::fs::{Mode, OFlags};

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The directory itself, without links.
    pub root: PathBuf,
    /// Ascending by path.
    pub files: Vec<Found>,
    /// Hidden files and directories that do not belong to the artefact, such as `.git` or `.cache`.
    pub skipped: Vec<String>,
}

/// One file of an artefact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Relative to the directory, with `/` between its parts.
    pub path: String,
    pub bytes: u64,
}

/// Why a directory cannot be an artefact.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("`{}` is not a directory; name the directory that holds the model's files", .path.display())]
    NotADirectory { path: PathBuf },
    #[error("`{}` holds no files; name the directory that holds the model's files", .path.display())]
    Empty { path: PathBuf },
    #[error("`{}` has more than {max} files; split it or remove what does not belong", .path.display(), max = limits::FILES_PER_MANIFEST_MAX)]
    TooManyFiles { path: PathBuf },
    #[error("`{}` has a name that is not UTF-8; rename it", .path.display())]
    NotUtf8 { path: PathBuf },
    #[error("`{path}` cannot be a path in an artefact: {source}; rename it")]
    Path { path: String, source: PathError },
    #[error("`{path}` is not there")]
    Missing { path: String },
    #[error(
        "`{path}` is a link that leads out of the directory; \
         use a directory with the real files (`hf download --local-dir` makes one)"
    )]
    LeavesDirectory { path: String },
    #[error("`{path}` is a link to a directory; put the directory itself in its place")]
    LinkToDirectory { path: String },
    #[error("`{path}` is neither a file nor a directory; remove it")]
    Special { path: String },
    #[error("cannot read `{}`: {source}", .path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// Lists the files of an artefact.
///
/// # Errors
/// The first thing that cannot be part of one.
pub fn survey(directory: &Path) -> Result<Survey, TreeError> {
    let disk = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => TreeError::NotADirectory { path: directory.to_owned() },
        _ => TreeError::Disk { path: directory.to_owned(), source },
    };
    let root = directory.canonicalize().map_err(disk)?;
    if !fs::metadata(&root).map_err(disk)?.is_dir() {
        return Err(TreeError::NotADirectory { path: directory.to_owned() });
    }
    let mut survey = Survey { root: root.clone(), files: Vec::new(), skipped: Vec::new() };
    survey.walk(&root, "")?;
    if survey.files.is_empty() {
        return Err(TreeError::Empty { path: directory.to_owned() });
    }
    survey.files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    survey.skipped.sort_unstable();
    Ok(survey)
}

/// Opens a file of an artefact for reading; `root` has been made canonical.
///
/// # Errors
/// It is not a file inside the directory, or cannot be opened.
pub(crate) fn open_inside(root: &Path, path: &str) -> Result<(File, fs::Metadata), TreeError> {
    check_path(path).map_err(|source| TreeError::Path { path: path.to_owned(), source })?;
    let joined = root.join(path);
    let disk = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => TreeError::Missing { path: path.to_owned() },
        _ => TreeError::Disk { path: joined.clone(), source },
    };
    let real = joined.canonicalize().map_err(disk)?;
    if !real.starts_with(root) {
        return Err(TreeError::LeavesDirectory { path: path.to_owned() });
    }
    // The path has no link left: one that appears now is refused. A pipe must not make the opening wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(&real, flags, Mode::empty()).map_err(|error| disk(error.into()))?);
    let metadata = file.metadata().map_err(disk)?;
    if !metadata.is_file() {
        return Err(TreeError::Special { path: path.to_owned() });
    }
    Ok((file, metadata))
}

impl Survey {
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Adds what lies under `prefix`, which is empty or ends with `/`. A path has a bounded length, so this ends.
    fn walk(&mut self, directory: &Path, prefix: &str) -> Result<(), TreeError> {
        let disk = |source| TreeError::Disk { path: directory.to_owned(), source };
        for entry in fs::read_dir(directory).map_err(disk)? {
            let entry = entry.map_err(disk)?;
            let name = entry.file_name().into_string().map_err(|_| TreeError::NotUtf8 { path: entry.path() })?;
            let path = format!("{prefix}{name}");
            if name.starts_with('.') {
                self.skipped.push(path);
                continue;
            }
            check_path(&path).map_err(|source| TreeError::Path { path: path.escape_debug().to_string(), source })?;
            let kind = entry.file_type().map_err(disk)?;
            if kind.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"))?;
                continue;
            }
            let bytes = self.measure(&entry, kind, &path)?;
            if self.files.len() == limits::FILES_PER_MANIFEST_MAX {
                return Err(TreeError::TooManyFiles { path: self.root.clone() });
            }
            self.files.push(Found { path, bytes });
        }
        Ok(())
    }

    /// The length of a file, or of the file inside the directory that a link points at.
    fn measure(&self, entry: &fs::DirEntry, kind: fs::FileType, path: &str) -> Result<u64, TreeError> {
        let disk = |source| TreeError::Disk { path: entry.path(), source };
        if kind.is_file() {
            return Ok(entry.metadata().map_err(disk)?.len());
        }
        if !kind.is_symlink() {
            return Err(TreeError::Special { path: path.to_owned() });
        }
        let real = match entry.path().canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(TreeError::Missing { path: format!("{path} (a link to nothing)") });
            }
            Err(error) => return Err(disk(error)),
        };
        if !real.starts_with(&self.root) {
            return Err(TreeError::LeavesDirectory { path: path.to_owned() });
        }
        let metadata = fs::metadata(&real).map_err(disk)?;
        if metadata.is_dir() {
            Err(TreeError::LinkToDirectory { path: path.to_owned() })
        } else if metadata.is_file() {
            Ok(metadata.len())
        } else {
            Err(TreeError::Special { path: path.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("sub")).expect("made");
        fs::write(dir.path().join("b.json"), b"12").expect("written");
        fs::write(dir.path().join("sub/a.json"), b"123").expect("written");
        dir
    }

    #[test]
    fn files_are_sorted_and_hidden_ones_named() {
        let dir = tree();
        fs::create_dir(dir.path().join(".git")).expect("made");
        fs::write(dir.path().join(".git/config"), b"x").expect("written");
        fs::write(dir.path().join("sub/.gitignore"), b"x").expect("written");
        let survey = survey(dir.path()).expect("an artefact");
        let files: Vec<(&str, u64)> = survey.files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
        assert_eq!(files, [("b.json", 2), ("sub/a.json", 3)]);
        assert_eq!(survey.skipped, [".git", "sub/.gitignore"]);
        assert_eq!(survey.bytes(), 5);
    }

    #[test]
    fn links_may_only_point_at_files_inside() {
        let dir = tree();
        symlink("sub/a.json", dir.path().join("inside")).expect("linked");
        let found = survey(dir.path()).expect("an artefact");
        assert_eq!(found.files[1], Found { path: "inside".into(), bytes: 3 });
        let root = dir.path().canonicalize().expect("real");
        assert_eq!(open_inside(&root, "inside").expect("opens").1.len(), 3);

        symlink("/etc/hostname", dir.path().join("outside")).expect("linked");
        assert!(matches!(survey(dir.path()), Err(TreeError::LeavesDirectory { path }) if path == "outside"));
        assert!(matches!(open_inside(&root, "outside"), Err(TreeError::LeavesDirectory { .. })));
        fs::remove_file(dir.path().join("outside")).expect("removed");

        symlink("sub", dir.path().join("way")).expect("linked");
        assert!(matches!(survey(dir.path()), Err(TreeError::LinkToDirectory { path }) if path == "way"));
        fs::remove_file(dir.path().join("way")).expect("removed");

        symlink("nothing", dir.path().join("dangling")).expect("linked");
        assert!(matches!(survey(dir.path()), Err(TreeError::Missing { .. })));
        fs::remove_file(dir.path().join("dangling")).expect("removed");

        symlink(std::env::temp_dir(), dir.path().join("up")).expect("linked");
        assert!(matches!(open_inside(&root, "up/x"), Err(TreeError::Missing { .. } | TreeError::LeavesDirectory { .. })));
    }

    #[test]
    fn what_is_no_artefact_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(survey(dir.path()), Err(TreeError::Empty { .. })));
        assert!(matches!(survey(&dir.path().join("nothing")), Err(TreeError::NotADirectory { .. })));
        let file = dir.path().join("file");
        fs::write(&file, b"x").expect("written");
        assert!(matches!(survey(&file), Err(TreeError::NotADirectory { .. })));
        fs::write(dir.path().join("a\\b"), b"x").expect("written");
        assert!(matches!(survey(dir.path()), Err(TreeError::Path { source: PathError::Backslash, .. })));
        fs::remove_file(dir.path().join("a\\b")).expect("removed");
        let name = std::os::unix::ffi::OsStringExt::from_vec(b"\xff".to_vec());
        let name: std::ffi::OsString = name;
        fs::write(dir.path().join(&name), b"x").expect("written");
        assert!(matches!(survey(dir.path()), Err(TreeError::NotUtf8 { .. })));
        fs::remove_file(dir.path().join(&name)).expect("removed");
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).expect("bound");
        assert!(matches!(survey(dir.path()), Err(TreeError::Special { path }) if path == "socket"));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("real");
        let made = std::process::Command::new("mkfifo").arg(root.join("pipe")).status().expect("runs");
        assert!(made.success());
        assert!(matches!(open_inside(&root, "pipe"), Err(TreeError::Special { .. })));
        assert!(matches!(survey(dir.path()), Err(TreeError::Special { .. })));
    }
}
