//! What people upload: files on their way to be a model of this node.
//!
//! Under `uploads` in the home:
//!
//! ```text
//! blobs/SHA256                files that were sent of late, for commits that ask for them
//! blobs/SHA256.asked-for      when a commit was last about to
//! named/ORG/NAME/state.json   what was made under this name, and which version is the newest
//! named/ORG/NAME/vDIGITS/     the files of a version; those of a model of this node stay there
//! ```
//!
//! A version is whole or not there at all. Nothing here is offered to anyone, or read by anyone: that takes labels. What a crash
//! left half done is removed at the next start. A version stays until the next but one, for those who still read it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use alliance_protocol::{
    id::Sha256,
    manifest::{Manifest, PathError, check_path},
    offer::split_name,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio::runtime::Handle;

use crate::{
    durable::{self, Existing, FileError, Readers, at},
    models::{TreeError, open_inside, survey},
};

/// Bytes of the file that says what there is of one name.
const STATE_BYTES_MAX: usize = 64 * 1024;

/// Bytes that are copied at a time.
const COPIED_BYTES: usize = 1024 * 1024;

/// How long a file is kept after it was sent, or asked for.
const BLOB_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The end of the name of a note beside a file.
const ASKED_FOR: &str = "asked-for";

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
    #[error("`{path}` is not as it was imported; import the model again, and then upload")]
    Changed { path: String },
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
        for name in self.names()? {
            match self.get(&name) {
                Ok(Some(state)) => found.push((name, state)),
                Ok(None) => {}
                // What is damaged must not hide the others.
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, name, "an upload cannot be read"),
            }
        }
        Ok(found)
    }

    fn names(&self) -> Result<Vec<String>, ShelfError> {
        let (named, mut names) = (self.root.join("named"), Vec::new());
        for organisation in folders(&named)? {
            let inside = folders(&named.join(&organisation))?.into_iter().map(|name| format!("{organisation}/{name}"));
            names.extend(inside.filter(|name| split_name(name).is_ok()));
        }
        Ok(names)
    }

    /// Makes room for something of this name; false where there is some.
    ///
    /// # Errors
    /// The disk failed.
    pub fn create(&self, name: &str, private: bool, dataset: bool, now: Timestamp) -> Result<bool, ShelfError> {
        durable::private_dir(&self.place(name))?;
        match self.write(name, &Shelved { private, dataset, created: now, version: None }, Existing::Keep) {
            Err(ShelfError::File(error)) if error.source.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Says that something of this name is not to be offered.
    ///
    /// # Errors
    /// The disk failed.
    pub fn set_private(&self, name: &str) -> Result<(), ShelfError> {
        match self.get(name)? {
            Some(state) if !state.private => self.write(name, &Shelved { private: true, ..state }, Existing::Replace),
            _ => Ok(()),
        }
    }

    /// Where the files of the newest version are.
    #[must_use]
    pub fn files(&self, name: &str, version: &Version) -> PathBuf {
        self.place(name).join(&version.dir)
    }

    /// As [`Shelf::has_blob`]; one that is here is kept for another day.
    #[must_use]
    pub fn hold_blob(&self, oid: Sha256, bytes: u64) -> bool {
        // One that is forgotten meanwhile is sent again.
        self.has_blob(oid, bytes) && self.note_asked_for(oid).is_ok() && self.has_blob(oid, bytes)
    }

    /// In a file of its own: the file itself is also one of versions, which may be read just now, and nobody changes it.
    fn note_asked_for(&self, oid: Sha256) -> io::Result<()> {
        let note = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.asked_for(oid))?;
        note.set_modified(SystemTime::now())
    }

    /// Whether a file of this hash and length was uploaded of late.
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
            temporary: Temporary::of(path),
            to: self.blob(oid),
            oid,
            bytes,
            came: 0,
            hash: sha2::Sha256::new(),
        })
    }

    /// Forgets files that were sent and asked for more than a day ago; versions that have them keep them. Others may come and go
    /// meanwhile.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sweep(&self, now: SystemTime) -> Result<(), ShelfError> {
        let is_old = |path: &Path| {
            let changed = fs::metadata(path).and_then(|found| found.modified());
            changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > BLOB_KEPT_FOR))
        };
        for entry in entries(&self.root.join("blobs"))? {
            let (path, note) = (entry.path(), entry.path().with_extension(ASKED_FOR));
            // A note goes with its file.
            if path == note && !path.with_extension("").exists() {
                remove(&note);
            } else if path != note && is_old(&path) && (is_old(&note) || !note.exists()) {
                remove(&path);
                remove(&note);
            }
        }
        Ok(())
    }

    /// Removes what a crash has left half done. To be called before anything is uploaded.
    ///
    /// # Errors
    /// The disk failed.
    pub fn clear_away(&self) -> Result<(), ShelfError> {
        let mut places = vec![self.root.join("blobs")];
        places.extend(self.names()?.iter().map(|name| self.place(name)));
        for place in places {
            let half_done = |entry: &&fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
            entries(&place)?.iter().filter(half_done).for_each(|entry| remove(&entry.path()));
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
        Ok(Draft { shelf: self.clone(), name: name.to_owned(), files: Temporary::of(path), removed: Vec::new() })
    }

    /// Makes a version the newest, and forgets those before it, but for those that somebody may be reading, or about to
    /// label. What was not
    /// made before is made, as a data set or not.
    ///
    /// # Errors
    /// The disk failed.
    pub fn accept(&self, name: &str, dataset: bool, finished: Finished, spared: &[PathBuf]) -> Result<(), ShelfError> {
        let version = finished.keep();
        let (kept, created) = (version.dir.clone(), version.at);
        let state = self.get(name)?.unwrap_or(Shelved { private: false, dataset, created, version: None });
        self.write(name, &Shelved { version: Some(version), ..state }, Existing::Replace)?;
        let olds = folders(&self.place(name))?
            .into_iter()
            .filter(|dir| dir.starts_with('v') && *dir != kept)
            .map(|dir| self.place(name).join(dir));
        olds.filter(|old| !spared.contains(old)).for_each(|old| remove(&old));
        Ok(())
    }

    fn write(&self, name: &str, state: &Shelved, existing: Existing) -> Result<(), ShelfError> {
        let path = self.place(name).join("state.json");
        // Nothing in it can fail to be written as JSON.
        let text = serde_json::to_vec_pretty(state).unwrap_or_default();
        Ok(durable::write(&path, &text, Readers::Owner, existing)?)
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.join("named").join(name)
    }

    /// Whose time is when the file was last asked for.
    fn asked_for(&self, oid: Sha256) -> PathBuf {
        self.blob(oid).with_extension(ASKED_FOR)
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
        fs::rename(&self.temporary.path, &self.to).map_err(at("write", &self.to))?;
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
    /// What is not to be taken over, and whether there was any such thing.
    removed: Vec<(String, bool)>,
}

/// The version before: where its files lie, and which they are; those of an upload without labels are all that lie there.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    pub from: &'a Path,
    pub manifest: Option<&'a Manifest>,
}

impl Draft {
    /// Takes over the files of the version before, but for those that were removed or that others have replaced. Those of this
    /// shelf are linked, because nothing changes them; others are copied, and compared with what was imported.
    ///
    /// # Errors
    /// They are not there as they were, or the disk failed; or what was to be removed never was.
    pub fn take_over(&mut self, base: Option<Base<'_>>) -> Result<(), ShelfError> {
        if let Some(Base { from, manifest }) = base {
            let root = from.canonicalize().map_err(|_| TreeError::NotADirectory { path: from.to_owned() })?;
            let files: Vec<(String, Option<Sha256>)> = match manifest {
                Some(manifest) => manifest.files().iter().map(|file| (file.path.clone(), Some(file.sha256))).collect(),
                None => survey(&root)?.files.into_iter().map(|found| (found.path, None)).collect(),
            };
            for (path, sha256) in files {
                if !self.removes(&path) && !self.files.path.join(&path).is_file() {
                    self.take_over_file(&root, &path, sha256)?;
                }
            }
        }
        match self.removed.iter().find(|(_, there_was)| !there_was) {
            Some((path, _)) => Err(ShelfError::Absent { path: path.clone() }),
            None => Ok(()),
        }
    }

    /// Whether a file of the version before was removed, itself or with its folder.
    fn removes(&mut self, path: &str) -> bool {
        let inside = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let mut removed = false;
        for (folder, there_was) in self.removed.iter_mut().filter(|(folder, _)| inside(folder)) {
            *there_was = true;
            removed |= !folder.is_empty();
        }
        removed
    }

    fn take_over_file(&mut self, root: &Path, path: &str, sha256: Option<Sha256>) -> Result<(), ShelfError> {
        let to = self.room_for(path)?;
        let shelf = self.shelf.root.canonicalize().map_err(at("find", &self.shelf.root))?;
        if root.starts_with(&shelf) {
            return Ok(fs::hard_link(root.join(path), &to).map_err(at("write", &to))?);
        }
        let (mut source, _) = open_inside(root, path)?;
        let copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to);
        let mut copy = copy.map_err(at("write", &to))?;
        let (mut hash, mut buffer) = (sha2::Sha256::new(), vec![0; COPIED_BYTES]);
        loop {
            let read = source.read(&mut buffer).map_err(at("read", &to))?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
            hash.update(part);
            copy.write_all(part).map_err(at("write", &to))?;
        }
        match sha256.is_none_or(|sha256| sha256 == Sha256(hash.finalize().into())) {
            true => Ok(()),
            false => Err(ShelfError::Changed { path: path.to_owned() }),
        }
    }

    /// Puts a file in its place, where another may have been.
    ///
    /// # Errors
    /// The path is none, or the disk failed or is full.
    pub fn put(&mut self, path: &str, content: &[u8]) -> Result<(), ShelfError> {
        let to = self.room_for(path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to);
        Ok(file.and_then(|mut file| file.write_all(content)).map_err(at("write", &to))?)
    }

    /// As [`Draft::put`], a file that was uploaded before.
    ///
    /// # Errors
    /// As [`Draft::put`], or it was not.
    pub fn put_blob(&mut self, path: &str, oid: Sha256, bytes: u64) -> Result<(), ShelfError> {
        if !self.shelf.has_blob(oid, bytes) {
            return Err(ShelfError::NotUploaded(oid));
        }
        let to = self.room_for(path)?;
        Ok(fs::hard_link(self.shelf.blob(oid), &to).map_err(at("write", &to))?)
    }

    /// Whether there is no file in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(survey(&self.files.path), Err(TreeError::Empty { .. }))
    }

    /// Takes a file away, or a folder with what is in it: of what was put here, and of what is yet to be taken over.
    ///
    /// # Errors
    /// The path is none, or the disk failed.
    pub fn remove(&mut self, path: &str) -> Result<(), ShelfError> {
        let path = path.trim_end_matches('/');
        check_path(path).map_err(|source| ShelfError::Path { path: path.to_owned(), source })?;
        let place = self.files.path.join(path);
        let removed = if place.is_dir() { fs::remove_dir_all(&place) } else { fs::remove_file(&place) };
        let there_was = match removed {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => false,
            removed => {
                removed.map_err(at("remove", &place))?;
                true
            }
        };
        self.removed.push((path.to_owned(), there_was));
        Ok(())
    }

    /// Gives it its final place. It is the newest version once [`Shelf::accept`] has said so.
    ///
    /// # Errors
    /// The disk failed.
    pub fn finish(self, user: &str, now: Timestamp) -> Result<Finished, ShelfError> {
        let dir = format!("v{}", random(16)?);
        let to = self.shelf.place(&self.name).join(&dir);
        let version = Version { dir, commit: random(40)?, at: now, user: user.to_owned() };
        fs::rename(&self.files.path, &to).map_err(at("write", &to))?;
        let finished = Finished { version, files: Temporary::of(to) };
        // All at once: thousands of small files, each by itself, would take long.
        let root = File::open(finished.path()).map_err(at("open", finished.path()))?;
        rustix::fs::syncfs(&root).map_err(|error| at("write", finished.path())(error.into()))?;
        Ok(finished)
    }

    /// An empty place for a file, with the folders around it.
    fn room_for(&self, path: &str) -> Result<PathBuf, ShelfError> {
        check_path(path).map_err(|source| ShelfError::Path { path: path.to_owned(), source })?;
        let to = self.files.path.join(path);
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
}

impl Finished {
    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.files.path
    }

    /// From now on it stays, whatever becomes of whoever waits: somebody may hear of it who will not be asked again.
    pub fn stay(&mut self) {
        self.files.stays = true;
    }

    /// Removes it after all.
    pub fn give_up(mut self) {
        self.files.stays = false;
    }

    fn keep(mut self) -> Version {
        self.stay();
        self.version.clone()
    }
}

/// A file or directory that is removed when it is dropped, if it is still there and does not stay.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    stays: bool,
}

impl Temporary {
    fn of(path: PathBuf) -> Self {
        Self { path, stays: false }
    }
}

impl Drop for Temporary {
    /// That may take long: it keeps no thread that others wait for.
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let path = std::mem::take(&mut self.path);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || remove(&path))),
            Err(_) => remove(&path),
        }
    }
}

/// Removes what is of no use, if it is there. It does no harm where it cannot be removed, but that it takes room.
fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "what was left of an upload is not removed");
        }
        Ok(()) | Err(_) => {}
    }
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
mod tests;
