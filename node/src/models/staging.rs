//! The importer's side: where received groups lie until the whole artefact is verified and cleared to be delivered.
//!
//! Beside the destination `DIR/NAME` stands `DIR/.NAME.xxxxxxxx.partial`, named after the manifest too, and after what is
//! wanted of the artefact where that is not all, with:
//!
//! ```text
//! lock        held by the one pull that uses it; a crash releases it
//! manifest    what is being received
//! files/      the files under their final names, at their full length
//! journal     which groups were verified and written, so that a later attempt goes on after them
//! ```
//!
//! Delivery renames `files` to the destination, in one step and on one file system. Whatever happens before, nothing stands
//! under the final name. Only [`Staging::deliver`] makes an artefact visible, and it takes an [`Inbound`] by value.

mod deliver;
mod journal;
mod layout;
mod lock;
mod resume;
#[cfg(test)]
mod tests;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use alliance_protocol::{
    border::Inbound,
    core::BulkFailure,
    id::ManifestId,
    manifest::{Extent, Manifest, Place, Selection, Untrue, runs_of},
};
use rustix::{
    fs::{FallocateFlags, OFlags},
    io::Errno,
};

use self::{journal::Journal, layout::Layout, lock::Lock, resume::Syncing};
use super::{
    compared::Compared,
    durable,
    import::read_bounded,
    inspect::FormatError,
    pattern::TensorPattern,
    tree::{TreeError, open_inside, survey},
};

/// Files held open for writing at a time. Groups of a few files are in flight together.
const OPEN_FILES_MAX: usize = 16;

/// File systems that are this machine's own, by their numbers (statfs(2)): tmpfs, ramfs, ext2 to ext4, XFS, Btrfs, F2FS, ZFS,
/// and layers of them.
const LOCAL: [i128; 8] =
    [0x0102_1994, 0x8584_58f6, 0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x794c_7630];

/// The place where one artefact is received. Held by one pull at a time.
#[derive(Debug)]
pub struct Staging {
    /// Absolute.
    to: PathBuf,
    partial: PathBuf,
    id: ManifestId,
    lock: Lock,
    layout: Option<Layout>,
    /// For each group, whether it is verified and written, or not wanted.
    held: Vec<bool>,
    /// The destination holds the artefact already: nothing is written and nothing is renamed.
    in_place: bool,
    /// What is here of it was taken from the journal of an earlier attempt, at least in part, and not hashed again.
    believed: bool,
    /// What the files are, once everything was checked and made durable.
    finished: Option<Manifest>,
    /// The files that were used last, the latest at the end.
    open: Vec<(u32, File)>,
    /// Tells a later attempt what is there; none before the manifest is known.
    journal: Option<Journal>,
    /// What was written and is not yet durable.
    syncing: Syncing,
}

/// Why an artefact cannot be received here.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    #[error("`{}` is not a place for a model; name a directory that does not exist yet", .path.display())]
    NoName { path: PathBuf },
    #[error("`{}` exists and {why}; choose another directory, or move what is there away", .path.display())]
    Occupied { path: PathBuf, why: String },
    #[error("another pull of the same model to `{}` is running; wait for it, or choose another directory", .path.display())]
    Busy { path: PathBuf },
    #[error("cannot {doing} `{}`: {source}; {}", .path.display(), next_step(.source))]
    Disk { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("manifest {found} instead of {expected}")]
    OtherManifest { found: ManifestId, expected: ManifestId },
    #[error("nothing can be written before the manifest is known")]
    NotBegun,
    #[error("group {index} is not one of this artefact")]
    Group { index: u64 },
    #[error("the part of the artefact cannot be by itself: {0}")]
    Part(String),
    #[error("{what} is not what the manifest says")]
    Tampered { what: String },
    #[error("{missing} of {groups} groups are missing")]
    Incomplete { missing: u64, groups: u64 },
    #[error("`{path}` does not have the parts that the manifest says; do not trust who sent it")]
    Untrue { path: String },
    #[error(transparent)]
    Format(FormatError),
    #[error(transparent)]
    Tree(TreeError),
}

/// What to do about a failure of the disk.
fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or choose a directory on a larger disk"
        }
        io::ErrorKind::ReadOnlyFilesystem => "choose a directory on a disk that can be written",
        io::ErrorKind::PermissionDenied => "let the daemon's user write there, or choose another directory",
        io::ErrorKind::InvalidFilename => "choose a shorter name",
        io::ErrorKind::FileTooLarge => "choose a directory on a file system that takes larger files",
        _ => "check the disk, then pull again: what was received is kept",
    }
}

impl Staging {
    /// Prepares to receive the artefact with this manifest for the directory `to`. What an earlier attempt left is kept. It is
    /// hashed again only as far as it cannot be believed, which can take as long as reading the artefact.
    ///
    /// # Errors
    /// The destination is taken, another pull is running, or the disk failed.
    pub fn open(to: &Path, manifest: ManifestId) -> Result<Self, StagingError> {
        Self::open_known(to, manifest, None, &[])
    }

    /// As [`Staging::open`], for a node that has the manifest from an earlier pull: a destination that holds exactly this
    /// artefact is then accepted, and nothing of it is asked for again. With `tensors` it is for the part of the artefact that
    /// fits them, and what is there is looked at when [`Staging::begin_part`] says what that is.
    ///
    /// # Errors
    /// As [`Staging::open`].
    pub fn open_known(
        to: &Path,
        id: ManifestId,
        known: Option<Manifest>,
        tensors: &[TensorPattern],
    ) -> Result<Self, StagingError> {
        let to = std::path::absolute(to).map_err(|_| StagingError::NoName { path: to.to_owned() })?;
        let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
            return Err(StagingError::NoName { path: to });
        };
        let partial = parent.join(partial(name, id, tensors));
        let known = known.filter(|manifest| manifest.id() == id);
        let occupied = is_occupied(&to)?;
        if occupied && known.is_none() && !partial.join("manifest").exists() {
            return Err(StagingError::Occupied { path: to, why: "is not empty".to_owned() });
        }
        fs::create_dir_all(parent).map_err(|source| disk("create", parent, source))?;
        let lock = Lock::take(&partial)?;
        let mut staging = Self::empty(to, partial, id, lock);
        let stored = staging.stored_manifest()?;
        if !tensors.is_empty() {
            return Ok(staging);
        }
        if occupied {
            let why = "is not empty".to_owned();
            let manifest = stored.or(known).ok_or_else(|| StagingError::Occupied { path: staging.to.clone(), why })?;
            staging.accept_in_place(Layout::Whole(manifest))?;
        } else {
            staging.take_up(stored)?;
        }
        Ok(staging)
    }

    /// Removes what earlier attempts left for a directory, of the artefact and of parts of it. What was delivered stays.
    ///
    /// # Errors
    /// A pull is running, or the disk failed.
    pub fn clear_away(to: &Path, id: ManifestId) -> Result<(), StagingError> {
        let to = std::path::absolute(to).map_err(|_| StagingError::NoName { path: to.to_owned() })?;
        let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
            return Err(StagingError::NoName { path: to });
        };
        let entries = match fs::read_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|source| disk("read", parent, source))?,
        };
        for entry in entries {
            let found = entry.map_err(|source| disk("read", parent, source))?.file_name();
            if is_partial(&found, name, id) {
                let partial = parent.join(found);
                let lock = Lock::take(&partial)?;
                Self::empty(to.clone(), partial, id, lock).discard()?;
            }
        }
        Ok(())
    }

    fn empty(to: PathBuf, partial: PathBuf, id: ManifestId, lock: Lock) -> Self {
        let (held, open, journal, syncing) = (Vec::new(), Vec::new(), None, Syncing::default());
        let (in_place, believed, finished) = (false, false, None);
        Self { to, partial, id, lock, layout: None, held, in_place, believed, finished, open, journal, syncing }
    }

    /// The manifest, once it is known: from an earlier attempt or from [`Staging::begin`].
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.layout.as_ref().map(Layout::manifest)
    }

    /// For each group, whether it is verified and written, or not wanted; empty before the manifest is known.
    #[must_use]
    pub fn flags(&self) -> &[bool] {
        &self.held
    }

    /// The same as runs.
    fn runs_held(&self) -> Vec<(u64, u64)> {
        runs_of(self.held.iter().copied())
    }

    /// Whether every group is verified and written.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.layout.is_some() && self.held.iter().all(|held| *held)
    }

    /// Keeps the manifest and creates every file at its full length, so that a full disk is found before bytes move. Does
    /// nothing where an earlier attempt has done it.
    ///
    /// # Errors
    /// It is another manifest than the one that was announced, or the disk failed or is full.
    pub fn begin(&mut self, manifest: &Manifest) -> Result<(), StagingError> {
        if manifest.id() != self.id {
            return Err(StagingError::OtherManifest { found: manifest.id(), expected: self.id });
        }
        if self.layout.is_some() {
            return Ok(());
        }
        self.begin_layout(Layout::Whole(manifest.clone()))
    }

    /// As [`Staging::begin`], for a part of the artefact. What an earlier attempt at the same part left is kept; a destination
    /// that holds exactly this part is accepted.
    ///
    /// # Errors
    /// As [`Staging::begin`], or the destination holds something else.
    pub fn begin_part(&mut self, selection: &Selection) -> Result<(), StagingError> {
        let found = selection.whole().id();
        if found != self.id {
            return Err(StagingError::OtherManifest { found, expected: self.id });
        }
        if self.layout.is_some() {
            return Ok(());
        }
        let layout = Layout::Part(Arc::new(selection.clone()));
        if is_occupied(&self.to)? {
            return self.accept_in_place(layout);
        }
        if self.stored_manifest()?.is_some() && self.has_journal_of(&layout)? {
            return self.take_up_layout(layout);
        }
        // Of another part: what may cross has changed.
        self.remove_received()?;
        self.begin_layout(layout)
    }

    fn begin_layout(&mut self, layout: Layout) -> Result<(), StagingError> {
        let path = self.partial.join("manifest");
        let begun = durable::write_atomically(&path, &layout.manifest().encode())
            .map_err(|source| disk("write", &path, source))
            .and_then(|()| self.create_files(&layout))
            .and_then(|()| self.begin_journal(layout.id(), &[]));
        if let Err(error) = begun {
            // What was reserved is of no use to anyone and must not fill the disk.
            let _ = fs::remove_dir_all(self.files());
            let _ = fs::remove_file(self.journal_path());
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.held = resume::unwanted(&layout);
        self.layout = Some(layout);
        Ok(())
    }

    /// Verifies the groups of an extent and writes them to their place. The only check that their bytes get, and enough.
    ///
    /// # Errors
    /// The bytes are not what the manifest says, or the disk failed. Of the extent only what comes before the first wrong
    /// group is written then.
    pub fn write(&mut self, extent: &Extent, bytes: &[u8]) -> Result<(), StagingError> {
        let manifest = self.manifest().ok_or(StagingError::NotBegun)?;
        let Err(Untrue { good, what }) = manifest.verify_extent(extent, bytes) else {
            return self.write_verified(extent, bytes);
        };
        let good_bytes = usize::try_from(good.bytes).ok().and_then(|good| bytes.get(..good)).unwrap_or_default();
        if !good_bytes.is_empty() {
            self.write_verified(&good, good_bytes)?;
        }
        Err(StagingError::Tampered { what })
    }

    fn write_verified(&mut self, extent: &Extent, bytes: &[u8]) -> Result<(), StagingError> {
        let index = |index: u64| usize::try_from(index).map_err(|_| StagingError::Group { index });
        let groups = index(extent.first)?..index(extent.end)?;
        if self.held.get(groups.clone()).is_some_and(|held| held.iter().all(|held| *held)) {
            return Ok(());
        }
        let place = self.place(extent)?;
        let (file, path) = self.file(place.file)?;
        file.write_all_at(bytes, place.offset).map_err(|source| disk("write", &path, source))?;
        if let Some(held) = self.held.get_mut(groups) {
            held.fill(true);
        }
        self.note_written(extent, place.file)
    }

    fn place(&self, extent: &Extent) -> Result<Place, StagingError> {
        let layout = self.layout.as_ref().ok_or(StagingError::NotBegun)?;
        layout.place(extent).ok_or(StagingError::Group { index: extent.first })
    }

    /// The manifest of what is to be delivered, once [`Staging::finish`] has found it to be so; that of the part, of a part.
    #[must_use]
    pub fn made(&self) -> Option<&Manifest> {
        self.finished.as_ref()
    }

    /// Whether it lies where the kernel takes what is written and nobody else is waited for: in memory, or on a disk of this
    /// machine. What is not known is not.
    #[must_use]
    pub fn is_local(&self) -> bool {
        rustix::fs::statfs(self.files()).is_ok_and(|system| LOCAL.iter().any(|local| i128::from(system.f_type) == *local))
    }

    /// Bytes that are to be received from elsewhere: all of the artefact, or of the part without its new headers.
    #[must_use]
    pub fn wanted_bytes(&self) -> u64 {
        self.layout.as_ref().map_or(0, |layout| layout.manifest().bytes_of_runs(&layout.runs()))
    }

    /// The directory in which the files of the artefact are: the staging place, or the destination where it was there before.
    #[must_use]
    pub fn lies_at(&self) -> PathBuf {
        if self.in_place { self.to.clone() } else { self.files() }
    }

    /// Whether this process has verified all that is here, and nobody else could write to it since.
    #[must_use]
    pub fn is_own_work(&self) -> bool {
        !self.in_place && !self.believed
    }

    /// Makes the artefact durable and puts it in place. The one way in which received bytes reach anyone. If this process
    /// has verified all of it, `compared` knows from then on that its files are as they were.
    ///
    /// # Errors
    /// It was not this artefact that was cleared, a group is missing, a file is not what it claims to be, the destination was
    /// taken meanwhile, or the disk failed. Nothing is delivered then.
    pub fn deliver(self, inbound: Inbound, compared: &Compared) -> Result<PathBuf, StagingError> {
        let cleared = inbound.manifest();
        if cleared != self.id {
            return Err(StagingError::OtherManifest { found: self.id, expected: cleared });
        }
        drop(inbound);
        self.put_in_place(compared)
    }

    /// Removes everything that was received.
    ///
    /// # Errors
    /// The disk failed.
    pub fn discard(mut self) -> Result<(), StagingError> {
        self.remove_received()
    }

    fn files(&self) -> PathBuf {
        self.partial.join("files")
    }

    /// The manifest of an earlier attempt; none where there is none, or where it is not the one that is announced.
    fn stored_manifest(&self) -> Result<Option<Manifest>, StagingError> {
        let path = self.partial.join("manifest");
        match read_bounded(&path) {
            Ok(bytes) => Ok(Manifest::decode(&bytes).ok().filter(|manifest| manifest.id() == self.id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(disk("read", &path, source)),
        }
    }

    /// Accepts a destination that holds exactly this.
    fn accept_in_place(&mut self, layout: Layout) -> Result<(), StagingError> {
        let occupied = |why: String| StagingError::Occupied { path: self.to.clone(), why };
        let is_not = |why: String| occupied(format!("is not this model ({why})"));
        let found = survey(&self.to).map_err(|error| is_not(error.to_string()))?;
        if !found.files.iter().map(|file| (file.path.as_str(), file.bytes)).eq(layout.files().map(|f| (f.path, f.bytes))) {
            return Err(occupied("holds other files than this model".to_owned()));
        }
        let read = |path: &str, offset: u64, bytes: u64| {
            let (file, _) = open_inside(&found.root, path).map_err(|error| is_not(error.to_string()))?;
            let mut buffer = vec![0; usize::try_from(bytes).unwrap_or_default()];
            file.read_exact_at(&mut buffer, offset).map_err(|error| is_not(format!("`{path}`: {error}")))?;
            Ok(buffer)
        };
        for file in layout.files() {
            if read(file.path, 0, u64::try_from(file.header.len()).unwrap_or_default())? != file.header {
                return Err(is_not(format!("the header of `{}` differs", file.path)));
            }
        }
        let manifest = layout.manifest();
        for extent in manifest.extents_in(layout.runs()) {
            let place = layout.place(&extent).ok_or(StagingError::Group { index: extent.first })?;
            let file = layout.file(place.file).ok_or(StagingError::Group { index: extent.first })?;
            let buffer = read(file.path, place.offset, u64::from(extent.bytes))?;
            if let Err(Untrue { good, .. }) = manifest.verify_extent(&extent, &buffer) {
                let differs = manifest.group(good.end).map(|group| manifest.describe_group(&group)).unwrap_or_default();
                return Err(is_not(format!("{differs} differs")));
            }
        }
        self.held = vec![true; usize::try_from(manifest.group_count()).unwrap_or(usize::MAX)];
        self.layout = Some(layout);
        self.in_place = true;
        Ok(())
    }

    /// Creates every file at its full length; those that are there keep their content. Headers that nobody sends are written.
    fn create_files(&self, layout: &Layout) -> Result<(), StagingError> {
        let files = self.files();
        fs::create_dir_all(&files).map_err(|source| disk("create", &files, source))?;
        let in_memory = is_in_memory(&files).map_err(|source| disk("look at", &files, source))?;
        for file in layout.files() {
            let path = files.join(file.path);
            let parent = path.parent().unwrap_or(&files);
            fs::create_dir_all(parent).map_err(|source| disk("create", parent, source))?;
            let created = open_to_write(&path, true).map_err(|source| disk("create", &path, source))?;
            let reserved = if in_memory { created.set_len(file.bytes) } else { reserve(&created, file.bytes) };
            reserved.map_err(|source| disk("reserve space for", &path, source))?;
            created.write_all_at(file.header, 0).map_err(|source| disk("write", &path, source))?;
        }
        Ok(())
    }

    fn file(&mut self, number: u32) -> Result<(&File, PathBuf), StagingError> {
        let missing = || StagingError::Group { index: u64::from(number) };
        let layout = self.layout.as_ref().ok_or(StagingError::NotBegun)?;
        let path = self.files().join(layout.file(number).ok_or_else(missing)?.path);
        if let Some(at) = self.open.iter().position(|(open, _)| *open == number) {
            let used = self.open.remove(at);
            self.open.push(used);
        } else {
            let opened = open_to_write(&path, false).map_err(|source| disk("open", &path, source))?;
            if self.open.len() >= OPEN_FILES_MAX {
                self.open.remove(0);
            }
            self.open.push((number, opened));
        }
        let file = self.open.last().map(|(_, file)| file).ok_or_else(missing)?;
        Ok((file, path))
    }

    /// Empties the staging directory but for the lock.
    fn remove_received(&mut self) -> Result<(), StagingError> {
        self.open.clear();
        self.journal = None;
        self.layout = None;
        self.held.clear();
        let (files, manifest) = (self.files(), self.partial.join("manifest"));
        // The manifest goes first: files without one are never believed.
        let removed = [fs::remove_file(&manifest), fs::remove_file(self.journal_path()), fs::remove_dir_all(&files)];
        for removed in removed {
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(disk("remove", &self.partial, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    /// Leaves nothing behind where nothing was received, and everything for the next attempt where something was.
    fn drop(&mut self) {
        if self.in_place {
            let _ = self.remove_received();
        }
        if self.layout.is_none() {
            self.lock.remove();
        }
    }
}

impl From<StagingError> for BulkFailure {
    fn from(error: StagingError) -> Self {
        let text = error.to_string();
        match error {
            StagingError::Tampered { .. } | StagingError::Untrue { .. } | StagingError::OtherManifest { .. } => {
                Self::Tampered(text)
            }
            StagingError::Format(FormatError::Safetensors { .. } | FormatError::Pickle { .. }) => Self::Tampered(text),
            StagingError::Format(FormatError::Disk { .. })
            | StagingError::NoName { .. }
            | StagingError::Occupied { .. }
            | StagingError::Busy { .. }
            | StagingError::Disk { .. }
            | StagingError::NotBegun
            | StagingError::Group { .. }
            | StagingError::Part(_)
            | StagingError::Incomplete { .. }
            | StagingError::Tree(_) => Self::Disk(text),
        }
    }
}

/// The name of the directory in which an artefact for `name` is received, or the part of it that fits `tensors`. What is
/// received of one part is of no use for another.
fn partial(name: &OsStr, id: ManifestId, tensors: &[TensorPattern]) -> OsString {
    let mut partial = partial_begins(name, id);
    if !tensors.is_empty() {
        let mut patterns: Vec<&str> = tensors.iter().map(TensorPattern::as_str).collect();
        patterns.sort_unstable();
        patterns.dedup();
        // No name has a line break.
        let of = ManifestId(*blake3::hash(patterns.join("\n").as_bytes()).as_bytes());
        partial.push(format!("-{}", of.short()));
    }
    partial.push(".partial");
    partial
}

fn partial_begins(name: &OsStr, id: ManifestId) -> OsString {
    let mut begins = OsString::from(".");
    begins.push(name);
    begins.push(format!(".{}", id.short()));
    begins
}

/// Whether something has the name of such a directory, for whatever part.
fn is_partial(found: &OsStr, name: &OsStr, id: ManifestId) -> bool {
    let begins = partial_begins(name, id);
    let rest = found.as_encoded_bytes().strip_prefix(begins.as_encoded_bytes());
    let of = rest.and_then(|rest| rest.strip_suffix(b".partial"));
    of.is_some_and(|of| of.is_empty() || (of.len() == 9 && of.starts_with(b"-")))
}

/// Whether the destination holds anything. One that does not exist, or an empty directory, does not.
fn is_occupied(to: &Path) -> Result<bool, StagingError> {
    match fs::symlink_metadata(to) {
        Ok(metadata) if metadata.is_dir() => {
            let first = fs::read_dir(to).map_err(|source| disk("read", to, source))?.next();
            Ok(first.is_some())
        }
        Ok(_) => Err(StagingError::Occupied { path: to.to_owned(), why: "is not a directory".to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(disk("read", to, source)),
    }
}

fn open_to_write(path: &Path, create: bool) -> io::Result<File> {
    // A link in the place of a file is not one of ours.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(true).create(create).truncate(false).custom_flags(flags).open(path)
}

/// Whether a directory lies on a file system that is memory. There every page is cleared when it is reserved, long before
/// it is written, and what is reserved is taken from programs: a full one is found when it is written to.
fn is_in_memory(dir: &Path) -> io::Result<bool> {
    /// The types of tmpfs and ramfs, from statfs(2).
    const IN_MEMORY: [rustix::fs::FsWord; 2] = [0x0102_1994, 0x8584_58f6];
    let found = rustix::fs::statfs(dir)?;
    Ok(IN_MEMORY.contains(&found.f_type))
}

/// Gives a file its full length, on disk where the file system can reserve.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    if bytes > 0 {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.set_len(bytes)
}

fn disk(doing: &'static str, path: &Path, source: io::Error) -> StagingError {
    StagingError::Disk { doing, path: path.to_owned(), source }
}
