//! Copies the files of a model out of a node's care: into a directory of its own, with a card that says where it comes from.
//!
//! Every byte is compared with the manifest while it is copied. All is written under a temporary name beside the destination
//! and renamed at the end, so that nothing half-written stands under the final name; what is given up is removed.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use alliance_protocol::manifest::Manifest;

use super::{
    card::{
        CARD_FILE,
        written::{LOOKED_AT_BYTES, Passport, Written, write},
    },
    compared::Compared,
    durable::sync_directory,
    source::{Source, SourceError},
};

/// A copy that is not in its place yet. Removed when it is dropped before it is finished.
#[derive(Debug)]
pub struct Export {
    /// Where it is written.
    temporary: PathBuf,
    to: PathBuf,
    /// Paths that the copy has so far.
    taken: BTreeSet<String>,
    /// Under which name the card lies that the model had.
    original_card: Option<String>,
    finished: bool,
}

/// Why a model was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("`{}` is there already and is no empty directory; give a directory that is not there yet", .0.display())]
    Occupied(PathBuf),
    #[error("`{}` cannot be a directory for the copy; give a name in a directory that is there", .0.display())]
    Name(PathBuf),
    #[error("`{}` lies inside the model itself; give another directory", .0.display())]
    Inside(PathBuf),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot {verb} `{}`: {source}; check that the disk has room and can be written", path.display())]
    Disk { verb: &'static str, path: PathBuf, source: io::Error },
}

fn disk<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ExportError + 'a {
    move |source| ExportError::Disk { verb, path: path.to_owned(), source }
}

impl Export {
    /// Copies the files of an artefact that lies in `from`, for a directory `to` that is not there yet or is empty. Its card is
    /// put aside for the new one. `progress` is told how many bytes have been copied, and of how many.
    ///
    /// # Errors
    /// The destination will not do, what lies in `from` is not what the manifest says, or the disk failed.
    pub fn copy(
        from: &Path,
        manifest: &Manifest,
        to: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ExportError> {
        let mut source = Source::lazy(from, manifest.clone())?;
        let mut export = Self::begin(from, to)?;
        let paths: BTreeSet<&str> = manifest.files().iter().map(|file| file.path.as_str()).collect();
        if paths.contains(CARD_FILE) {
            export.original_card = Some(free("README.original", "md", &|name| paths.contains(name)));
        }
        let mut places = Vec::with_capacity(manifest.files().len());
        for file in manifest.files() {
            let name = match (file.path.as_str(), &export.original_card) {
                (CARD_FILE, Some(original)) => original.clone(),
                (path, _) => path.to_owned(),
            };
            places.push(export.create(&name)?);
        }
        let (compared, mut buffer, mut done) = (Compared::default(), Vec::new(), 0_u64);
        let mut current: Option<(u32, File)> = None;
        for extent in manifest.extents_in(vec![(0, manifest.group_count())]) {
            buffer.resize(usize::try_from(extent.bytes).unwrap_or(usize::MAX), 0);
            source.read_true(&extent, &mut buffer, &compared)?;
            let place = usize::try_from(extent.file).ok().and_then(|at| places.get(at));
            let place = place.ok_or(SourceError::Group { index: extent.first })?;
            let mut file = match current.take() {
                Some((number, file)) if number == extent.file => file,
                other => {
                    finish_file(other.map(|(_, file)| file), place)?;
                    OpenOptions::new().append(true).open(place).map_err(disk("write", place))?
                }
            };
            file.write_all(&buffer).map_err(disk("write", place))?;
            current = Some((extent.file, file));
            done = done.saturating_add(u64::from(extent.bytes));
            progress(done, manifest.bytes());
        }
        finish_file(current.map(|(_, file)| file), &export.temporary)?;
        Ok(export)
    }

    fn begin(from: &Path, to: &Path) -> Result<Self, ExportError> {
        let unfit = || ExportError::Name(to.to_owned());
        let name = to.file_name().and_then(|name| name.to_str()).ok_or_else(unfit)?;
        let parent = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = parent.canonicalize().map_err(|_| unfit())?;
        let to = parent.join(name);
        match fs::read_dir(&to).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(ExportError::Occupied(to)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(ExportError::Occupied(to)),
            Err(error) => return Err(disk("read", &to)(error)),
        }
        if from.canonicalize().is_ok_and(|from| to.starts_with(from)) {
            return Err(ExportError::Inside(to));
        }
        let random = crate::durable::random_name().map_err(disk("write", &to))?;
        let temporary = parent.join(format!(".{name}.{random}.tmp"));
        fs::create_dir(&temporary).map_err(disk("make", &temporary))?;
        Ok(Self { temporary, to, taken: BTreeSet::new(), original_card: None, finished: false })
    }

    /// Makes an empty file, with the directories above it.
    fn create(&mut self, name: &str) -> Result<PathBuf, ExportError> {
        let place = self.temporary.join(name);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(disk("make", parent))?;
        }
        OpenOptions::new().write(true).create_new(true).open(&place).map_err(disk("write", &place))?;
        self.taken.insert(name.to_owned());
        Ok(place)
    }

    /// The name under which the card lies that the model had, if it had one.
    #[must_use]
    pub fn original_card(&self) -> Option<&str> {
        self.original_card.as_deref()
    }

    /// A name for a further file that no file of the model has: `STEM.EXTENSION`, or that with a number.
    #[must_use]
    pub fn free_name(&self, stem: &str, extension: &str) -> String {
        free(stem, extension, &|name| self.taken.contains(name))
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The disk failed.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let place = self.create(name)?;
        let written = OpenOptions::new().append(true).open(&place).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(disk("write", &place))
    }

    /// Writes the card. Its text is that of the card that the model had. Gives whether the front matter of that was kept.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write_card(&mut self, passport: &Passport<'_>) -> Result<bool, ExportError> {
        let original = self.original_card.as_ref().map(|name| self.temporary.join(name));
        let mut opened = None;
        if let Some(path) = &original {
            let file = File::open(path).map_err(disk("read", path))?;
            let (mut head, limit) = (Vec::new(), u64::try_from(LOOKED_AT_BYTES).unwrap_or(u64::MAX));
            (&file).take(limit).read_to_end(&mut head).map_err(disk("read", path))?;
            opened = Some((file, head));
        }
        let Written { front, body_at, kept } = write(opened.as_ref().map(|(_, head)| head.as_slice()), passport);
        let place = self.create(CARD_FILE)?;
        let mut card = OpenOptions::new().append(true).open(&place).map_err(disk("write", &place))?;
        card.write_all(front.as_bytes()).map_err(disk("write", &place))?;
        match opened {
            Some((mut file, _)) => {
                let from = io::SeekFrom::Start(u64::try_from(body_at).unwrap_or(u64::MAX));
                let copied = file.seek(from).and_then(|_| io::copy(&mut file, &mut card));
                copied.map_err(disk("write", &place))?;
            }
            None => {
                let title = format!("\n# {}\n", passport.model.name);
                card.write_all(title.as_bytes()).map_err(disk("write", &place))?;
            }
        }
        card.sync_all().map_err(disk("write", &place))?;
        Ok(kept)
    }

    /// Makes the names durable and puts the copy in its place.
    ///
    /// # Errors
    /// Something else is there by now, or the disk failed. The copy is removed then.
    pub fn finish(mut self) -> Result<PathBuf, ExportError> {
        let mut directories = BTreeSet::from([self.temporary.clone()]);
        for name in &self.taken {
            let place = self.temporary.join(name);
            let above = place.ancestors().skip(1).take_while(|parent| *parent != self.temporary);
            directories.extend(above.map(Path::to_owned));
        }
        // A directory sorts before what it holds.
        for directory in directories.iter().rev() {
            sync_directory(directory).map_err(disk("make durable", directory))?;
        }
        // An empty directory gives way, and nothing else does.
        match fs::rename(&self.temporary, &self.to) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(ExportError::Occupied(self.to.clone()));
            }
            Err(error) => return Err(disk("rename into place", &self.to)(error)),
        }
        self.finished = true;
        let parent = self.to.parent().unwrap_or(&self.to);
        sync_directory(parent).map_err(disk("make durable", parent))?;
        Ok(self.to.clone())
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        // What cannot be removed is hidden, and named for what it is.
        if !self.finished
            && let Err(error) = fs::remove_dir_all(&self.temporary)
        {
            tracing::warn!(place = %self.temporary.display(), %error, "what was copied so far cannot be removed");
        }
    }
}

fn finish_file(file: Option<File>, place: &Path) -> Result<(), ExportError> {
    file.map_or(Ok(()), |file| file.sync_all()).map_err(disk("write", place))
}

/// `STEM.EXTENSION` if that is not taken, or the first of `STEM.2.EXTENSION`, `STEM.3.EXTENSION`, ... that is not. There are
/// fewer files than numbers.
fn free(stem: &str, extension: &str, taken: &dyn Fn(&str) -> bool) -> String {
    let plain = format!("{stem}.{extension}");
    let numbered = (2_u32..).map(|number| format!("{stem}.{number}.{extension}"));
    std::iter::once(plain.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(plain)
}

#[cfg(test)]
mod tests;
