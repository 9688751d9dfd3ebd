//! What people upload: files on their way to be a model of this node.
//!
//! Under `uploads` in the home:
//!
//! ```text
//! blobs/SHA256                files that no commit has asked for yet
//! named/ORG/NAME/state.json   what was made under this name, and which version is the newest
//! named/ORG/NAME/vXXXX/       the files of a version; those of a model of this node stay there
//! ```
//!
//! A version is whole or not there at all. Nothing here is offered to anyone, or read by anyone: that takes labels.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use alliance_protocol::{
    id::Sha256,
    manifest::{PathError, check_path},
    offer::split_name,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::{
    durable::{self, Existing, FileError, Readers, at},
    models::{TreeError, survey},
};

/// Bytes of the file that says what there is of one name.
const STATE_BYTES_MAX: usize = 64 * 1024;

/// How long a file is kept for which no commit asks.
const BLOB_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The shelf of one node.
#[derive(Clone, Debug)]
pub struct Shelf {
    root: PathBuf,
}

/// What was made under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shelved {
    /// Whether whoever made it wants it to be offered to nobody.
    pub private: bool,
    /// Whether it was made as a data set.
    pub dataset: bool,
    pub created: Timestamp,
    /// The newest version; none where nothing was uploaded yet.
    pub version: Option<Version>,
}

/// The files of one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The directory of them, beside the state.
    dir: String,
    /// How clients name it as long as it is no model: 40 random hexadecimal digits.
    pub commit: String,
    pub at: Timestamp,
    /// Who uploaded it.
    pub user: String,
}

/// Why something is not kept.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{}` is damaged: {reason}; remove the directory around it and upload again", path.display())]
    State { path: PathBuf, reason: String },
    #[error("`{path}` cannot be a path in a model: {source}")]
    Path { path: String, source: PathError },
    #[error("`{path}` is in the way of a file or folder of the same name")]
    InTheWay { path: String },
    #[error("there is no `{path}` to take away")]
    Absent { path: String },
    #[error("the file {0} was not uploaded before the commit that asks for it; upload again")]
    NotUploaded(Sha256),
    #[error("what came is not the file that was announced: it has another length or SHA-256; upload again")]
    OtherFile,
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("no randomness can be had from the system: {0}")]
    Randomness(getrandom::Error),
}

impl Shelf {
    #[must_use]
    pub fn of_home(home: &Path) -> Self {
        Self { root: home.join("uploads") }
    }

    /// What there is of this name, `organisation/name`.
    ///
    /// # Errors
    /// The disk failed, or what it holds is none.
    pub fn get(&self, name: &str) -> Result<Option<Shelved>, ShelfError> {
        let path = self.place(name).join("state.json");
        let Some(bytes) = durable::read_if_there(&path, STATE_BYTES_MAX)? else { return Ok(None) };
        let state = serde_json::from_slice(&bytes);
        state.map(Some).map_err(|error| ShelfError::State { path, reason: error.to_string() })
    }

    /// All that there is, by name.
    ///
    /// # Errors
    /// As [`Shelf::get`].
    pub fn all(&self) -> Result<Vec<(String, Shelved)>, ShelfError> {
        let mut found = Vec::new();
        let named = self.root.join("named");
        for organisation in folders(&named)? {
            for repository in folders(&named.join(&organisation))? {
                let name = format!("{organisation}/{repository}");
                if split_name(&name).is_ok()
                    && let Some(state) = self.get(&name)?
                {
                    found.push((name, state));
                }
            }
        }
        Ok(found)
    }

    /// Makes room for something of this name; false where there is some.
    ///
    /// # Errors
    /// The disk failed.
    pub fn create(&self, name: &str, private: bool, dataset: bool, now: Timestamp) -> Result<bool, ShelfError> {
        if self.get(name)?.is_some() {
            return Ok(false);
        }
        durable::private_dir(&self.place(name))?;
        self.keep(name, &Shelved { private, dataset, created: now, version: None })?;
        Ok(true)
    }

    /// Where the files of the newest version are.
    #[must_use]
    pub fn files(&self, name: &str, version: &Version) -> PathBuf {
        self.place(name).join(&version.dir)
    }

    /// Whether a file of this hash and length was uploaded and not used yet.
    #[must_use]
    pub fn has_blob(&self, oid: Sha256, bytes: u64) -> bool {
        fs::metadata(self.blob(oid)).is_ok_and(|found| found.is_file() && found.len() == bytes)
    }

    /// Begins to take a file of this hash and length.
    ///
    /// # Errors
    /// The disk failed.
    pub fn receive(&self, oid: Sha256, bytes: u64) -> Result<Receiver, ShelfError> {
        let place = self.root.join("blobs");
        durable::private_dir(&place)?;
        let path = place.join(format!(".{}", random(16)?));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(at("make", &path))?;
        Ok(Receiver {
            file,
            temporary: Temporary(path),
            to: self.blob(oid),
            oid,
            bytes,
            came: 0,
            hash: sha2::Sha256::new(),
        })
    }

    /// Forgets files for which no commit has asked in a day.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sweep(&self, now: SystemTime) -> Result<(), ShelfError> {
        let place = self.root.join("blobs");
        for entry in entries(&place)? {
            let path = entry.path();
            let changed = entry.metadata().and_then(|found| found.modified()).map_err(at("read", &path))?;
            if now.duration_since(changed).is_ok_and(|age| age > BLOB_KEPT_FOR) {
                fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Begins a version of something of this name, with no files.
    ///
    /// # Errors
    /// The disk failed.
    pub fn begin(&self, name: &str) -> Result<Draft, ShelfError> {
        let path = self.place(name).join(format!(".{}", random(16)?));
        durable::private_dir(&path)?;
        Ok(Draft { shelf: self.clone(), name: name.to_owned(), files: Temporary(path), blobs: Vec::new() })
    }

    /// Makes a version the newest, and forgets those before it.
    ///
    /// # Errors
    /// The disk failed.
    pub fn accept(&self, name: &str, state: Shelved, version: Version) -> Result<(), ShelfError> {
        let kept = version.dir.clone();
        self.keep(name, &Shelved { version: Some(version), ..state })?;
        let place = self.place(name);
        for entry in entries(&place)? {
            let path = entry.path();
            if path.is_dir() && entry.file_name().to_string_lossy() != kept {
                fs::remove_dir_all(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }

    fn keep(&self, name: &str, state: &Shelved) -> Result<(), ShelfError> {
        let path = self.place(name).join("state.json");
        // Nothing in it can fail to be written as JSON.
        let text = serde_json::to_vec_pretty(state).unwrap_or_default();
        Ok(durable::write(&path, &text, Readers::Owner, Existing::Replace)?)
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.join("named").join(name)
    }

    fn blob(&self, oid: Sha256) -> PathBuf {
        self.root.join("blobs").join(oid.to_string())
    }
}

/// A file that comes.
#[derive(Debug)]
pub struct Receiver {
    file: File,
    temporary: Temporary,
    to: PathBuf,
    oid: Sha256,
    bytes: u64,
    came: u64,
    hash: sha2::Sha256,
}

impl Receiver {
    /// Takes what comes next.
    ///
    /// # Errors
    /// It is more than was announced, or the disk failed or is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ShelfError> {
        self.came = self.came.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.came > self.bytes {
            return Err(ShelfError::OtherFile);
        }
        self.hash.update(bytes);
        Ok(self.file.write_all(bytes).map_err(at("write", &self.to))?)
    }

    /// Keeps it, if it is what was announced.
    ///
    /// # Errors
    /// It is not, or the disk failed.
    pub fn finish(self) -> Result<(), ShelfError> {
        if self.came != self.bytes || Sha256(self.hash.finalize().into()) != self.oid {
            return Err(ShelfError::OtherFile);
        }
        self.file.sync_all().map_err(at("write", &self.to))?;
        fs::rename(&self.temporary.0, &self.to).map_err(at("write", &self.to))?;
        let folder = self.to.parent().unwrap_or(&self.to);
        Ok(File::open(folder).and_then(|folder| folder.sync_all()).map_err(at("write", folder))?)
    }
}

/// A version in the making. What is left of one that is given up is removed.
#[derive(Debug)]
pub struct Draft {
    shelf: Shelf,
    name: String,
    files: Temporary,
    /// Used, and not needed any more once the version stands.
    blobs: Vec<PathBuf>,
}

impl Draft {
    /// Takes over the files of the version before. Those of this shelf are linked, because nothing changes them; others are
    /// copied.
    ///
    /// # Errors
    /// They cannot be read, or the disk failed.
    pub fn take_over(&mut self, from: &Path) -> Result<(), ShelfError> {
        let survey = survey(from)?;
        let own = from.starts_with(&self.shelf.root);
        for found in &survey.files {
            let (source, to) = (survey.root.join(&found.path), self.room_for(&found.path)?);
            let made = if own { fs::hard_link(&source, &to) } else { fs::copy(&source, &to).map(|_| ()) };
            made.map_err(at("write", &to))?;
        }
        Ok(())
    }

    /// Puts a file in its place, where another may have been.
    ///
    /// # Errors
    /// The path is none, or the disk failed or is full.
    pub fn put(&mut self, path: &str, content: &[u8]) -> Result<(), ShelfError> {
        let to = self.room_for(path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to);
        Ok(file.and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all())).map_err(at("write", &to))?)
    }

    /// As [`Draft::put`], a file that was uploaded before.
    ///
    /// # Errors
    /// As [`Draft::put`], or it was not.
    pub fn put_blob(&mut self, path: &str, oid: Sha256, bytes: u64) -> Result<(), ShelfError> {
        if !self.shelf.has_blob(oid, bytes) {
            return Err(ShelfError::NotUploaded(oid));
        }
        let (blob, to) = (self.shelf.blob(oid), self.room_for(path)?);
        fs::hard_link(&blob, &to).map_err(at("write", &to))?;
        self.blobs.push(blob);
        Ok(())
    }

    /// Whether there is a file at a path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        check_path(path).is_ok() && self.files.0.join(path).is_file()
    }

    /// Takes a file away, or a folder with what is in it.
    ///
    /// # Errors
    /// It is not there, or the disk failed.
    pub fn remove(&mut self, path: &str) -> Result<(), ShelfError> {
        let path = path.trim_end_matches('/');
        check_path(path).map_err(|source| ShelfError::Path { path: path.to_owned(), source })?;
        let place = self.files.0.join(path);
        let removed = if place.is_dir() { fs::remove_dir_all(&place) } else { fs::remove_file(&place) };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ShelfError::Absent { path: path.to_owned() }),
            removed => Ok(removed.map_err(at("remove", &place))?),
        }
    }

    /// Where the files are, for as long as this is a draft.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.files.0
    }

    /// Gives it its final place. It is the newest version once [`Shelf::accept`] has said so.
    ///
    /// # Errors
    /// The disk failed.
    pub fn finish(self, user: &str, now: Timestamp) -> Result<Finished, ShelfError> {
        let dir = format!("v{}", random(16)?);
        let to = self.shelf.place(&self.name).join(&dir);
        sync_all(&self.files.0)?;
        fs::rename(&self.files.0, &to).map_err(at("write", &to))?;
        let version = Version { dir, commit: random(40)?, at: now, user: user.to_owned() };
        Ok(Finished { version, files: Temporary(to), blobs: self.blobs })
    }

    /// An empty place for a file, with the folders around it.
    fn room_for(&self, path: &str) -> Result<PathBuf, ShelfError> {
        check_path(path).map_err(|source| ShelfError::Path { path: path.to_owned(), source })?;
        let to = self.files.0.join(path);
        let in_the_way = || ShelfError::InTheWay { path: path.to_owned() };
        if let Some(folder) = to.parent() {
            match fs::DirBuilder::new().recursive(true).mode(0o700).create(folder) {
                Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) => {
                    return Err(in_the_way());
                }
                made => made.map_err(at("make", folder))?,
            }
        }
        if to.is_dir() {
            return Err(in_the_way());
        }
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &to)(error).into()),
            Ok(()) | Err(_) => Ok(to),
        }
    }
}

/// A version that stands in its place, and is removed again unless it is kept.
#[derive(Debug)]
pub struct Finished {
    pub version: Version,
    files: Temporary,
    blobs: Vec<PathBuf>,
}

impl Finished {
    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.files.0
    }

    /// Keeps it; what was used for it is forgotten.
    #[must_use]
    pub fn keep(mut self) -> Version {
        self.files.0 = PathBuf::new();
        for blob in &self.blobs {
            if let Err(error) = fs::remove_file(blob) {
                tracing::debug!(%error, blob = %blob.display(), "an uploaded file is not needed any more and stays for a day");
            }
        }
        self.version.clone()
    }
}

/// A file or directory that is removed when it is dropped, if it is still there. An empty path is none.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        let removed = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.0.display(), "what was left of an upload is not removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Makes the names in a directory and in those below it durable; the files are.
fn sync_all(dir: &Path) -> Result<(), ShelfError> {
    for entry in entries(dir)? {
        if entry.path().is_dir() {
            sync_all(&entry.path())?;
        }
    }
    Ok(File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("write", dir))?)
}

/// What is in a directory; nothing where there is none.
fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, ShelfError> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => Ok(found.and_then(Iterator::collect).map_err(at("read", dir))?),
    }
}

/// The names of the directories in one.
fn folders(dir: &Path) -> Result<Vec<String>, ShelfError> {
    let mut names: Vec<String> = entries(dir)?
        .into_iter()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// So many random hexadecimal digits.
fn random(digits: usize) -> Result<String, ShelfError> {
    let mut bytes = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut bytes).map_err(ShelfError::Randomness)?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "usp/m";

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::of_home(dir.path());
        (dir, shelf)
    }

    fn oid(bytes: &[u8]) -> Sha256 {
        Sha256(sha2::Sha256::digest(bytes).into())
    }

    fn blob(shelf: &Shelf, bytes: &[u8]) -> Sha256 {
        let mut receiver = shelf.receive(oid(bytes), bytes.len() as u64).expect("begun");
        bytes.chunks(3).for_each(|part| receiver.write(part).expect("written"));
        receiver.finish().expect("kept");
        oid(bytes)
    }

    #[test]
    fn versions_follow_each_other_and_only_the_newest_stays() {
        let (_dir, shelf) = shelf();
        let now = Timestamp(1);
        assert!(
            shelf.create(NAME, false, false, now).expect("made") && !shelf.create(NAME, true, false, now).expect("known")
        );
        let large = blob(&shelf, b"weights");
        let mut draft = shelf.begin(NAME).expect("begun");
        draft.put("config.json", b"{}").expect("put");
        draft.put("a/b.txt", b"x").expect("put");
        draft.put_blob("model.bin", large, 7).expect("put");
        draft.put_blob("copy.bin", large, 7).expect("put");
        let finished = draft.finish("maria", now).expect("finished");
        let first = finished.path().to_owned();
        let state = shelf.get(NAME).expect("read").expect("there");
        shelf.accept(NAME, state, finished.keep()).expect("accepted");
        assert!(!shelf.has_blob(large, 7), "used");
        let state = shelf.get(NAME).expect("read").expect("there");
        assert_eq!(shelf.files(NAME, state.version.as_ref().expect("one")), first);
        assert_eq!(fs::read(first.join("copy.bin")).expect("read"), b"weights");

        let mut draft = shelf.begin(NAME).expect("begun");
        draft.take_over(&first).expect("taken over");
        draft.put("config.json", b"{1}").expect("replaced");
        draft.remove("a").expect("removed");
        draft.remove("copy.bin").expect("removed");
        let finished = draft.finish("maria", now).expect("finished");
        let second = finished.path().to_owned();
        assert_eq!(fs::read(first.join("config.json")).expect("read"), b"{}", "the version before stays as it was");
        shelf.accept(NAME, state, finished.keep()).expect("accepted");
        assert!(!first.exists() && second.join("model.bin").is_file() && !second.join("a").exists());
        assert_eq!(shelf.all().expect("read").len(), 1);
    }

    #[test]
    fn what_is_wrong_is_refused_and_leaves_nothing() {
        let (dir, shelf) = shelf();
        shelf.create(NAME, false, false, Timestamp(1)).expect("made");
        let mut receiver = shelf.receive(oid(b"other"), 5).expect("begun");
        receiver.write(b"bytes").expect("written");
        assert!(matches!(receiver.finish(), Err(ShelfError::OtherFile)));
        let mut receiver = shelf.receive(oid(b"ab"), 2).expect("begun");
        assert!(matches!(receiver.write(b"abc"), Err(ShelfError::OtherFile)));
        drop(receiver);
        let mut draft = shelf.begin(NAME).expect("begun");
        for path in ["", "/etc/passwd", "../x", "a/../../x", ".git/config", "a//b", "a\\b", "a/"] {
            assert!(matches!(draft.put(path, b"x"), Err(ShelfError::Path { .. })), "{path}");
            assert!(!draft.has(path));
        }
        assert!(matches!(draft.remove("../.."), Err(ShelfError::Path { .. })));
        draft.put("a", b"x").expect("put");
        assert!(matches!(draft.put("a/b", b"x"), Err(ShelfError::InTheWay { .. })));
        draft.put("c/d", b"x").expect("put");
        assert!(matches!(draft.put("c", b"x"), Err(ShelfError::InTheWay { .. })));
        assert!(matches!(draft.remove("none"), Err(ShelfError::Absent { .. })));
        assert!(matches!(draft.put_blob("m", oid(b"m"), 1), Err(ShelfError::NotUploaded(_))));
        drop(draft.finish("maria", Timestamp(1)).expect("finished"));
        let left = |path: &str| fs::read_dir(dir.path().join("uploads").join(path)).expect("read").count();
        assert_eq!((left("named/usp/m"), left("blobs")), (1, 0), "the state alone");
        fs::write(dir.path().join("uploads/named/usp/m/state.json"), "{").expect("written");
        assert!(matches!(shelf.get(NAME), Err(ShelfError::State { .. })));
    }

    #[test]
    fn files_that_nobody_asks_for_are_forgotten_after_a_day() {
        let (_dir, shelf) = shelf();
        let kept = blob(&shelf, b"x");
        let hours = |hours: u64| SystemTime::now() + Duration::from_secs(hours * 3600);
        shelf.sweep(hours(23)).expect("swept");
        assert!(shelf.has_blob(kept, 1));
        shelf.sweep(hours(25)).expect("swept");
        assert!(!shelf.has_blob(kept, 1));
    }
}
