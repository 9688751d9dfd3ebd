//! Going on where an earlier attempt has stopped.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alliance_protocol::{
    id::ManifestId,
    manifest::{Extent, Manifest},
};

use super::{
    Staging, StagingError, disk,
    journal::{self, Boot, Claims, Journal, Kind},
    layout::Layout,
};
use crate::models::tree::open_inside;

/// Bytes that may be written before they are made durable: so much is hashed again after a loss of power, at the most.
const DURABLE_EVERY_BYTES: u64 = 1024 * 1024 * 1024;

/// What is being made durable while more is received.
#[derive(Debug, Default)]
pub(super) struct Syncing {
    /// Written since the last time.
    bytes: u64,
    /// The files that it went to.
    files: BTreeSet<u32>,
    running: Option<Running>,
}

/// A thread that waits for the disk.
#[derive(Debug)]
struct Running {
    thread: JoinHandle<io::Result<()>>,
    /// The runs of groups that are durable when it has ended.
    runs: Vec<(u64, u64)>,
}

impl Syncing {
    #[cfg(test)]
    pub(super) fn files(&self) -> &BTreeSet<u32> {
        &self.files
    }
}

impl Staging {
    pub(super) fn journal_path(&self) -> PathBuf {
        self.partial.join("journal")
    }

    pub(super) fn begin_journal(&mut self, id: ManifestId, known: &[(Kind, (u64, u64))]) -> Result<(), StagingError> {
        let path = self.journal_path();
        self.journal = Some(Journal::begin(&path, id, known).map_err(|source| disk("write", &path, source))?);
        Ok(())
    }

    /// Records an extent that was written to a file.
    pub(super) fn note_written(&mut self, extent: &Extent, file: u32) -> Result<(), StagingError> {
        let path = self.journal_path();
        let journal = self.journal.as_mut().ok_or(StagingError::NotBegun)?;
        journal.written((extent.first, extent.end)).map_err(|source| disk("write", &path, source))?;
        self.syncing.bytes = self.syncing.bytes.saturating_add(u64::from(extent.bytes));
        self.syncing.files.insert(file);
        if self.syncing.running.as_ref().is_some_and(|running| running.thread.is_finished()) {
            self.note_durable()?;
        }
        if self.syncing.bytes >= DURABLE_EVERY_BYTES && self.syncing.running.is_none() {
            self.start_syncing();
        }
        Ok(())
    }

    /// Lets a thread wait for the disk, so that the transfer does not.
    fn start_syncing(&mut self) {
        let Some(layout) = &self.layout else { return };
        let written = self.syncing.files.iter().filter_map(|file| layout.file(*file));
        let paths: Vec<PathBuf> = written.map(|file| self.files().join(file.path)).collect();
        let runs = self.runs_held();
        let syncing = thread::Builder::new()
            .name("durable".to_owned())
            .spawn(move || paths.iter().try_for_each(|path| File::open(path)?.sync_data()));
        match syncing {
            Ok(thread) => {
                self.syncing.files.clear();
                self.syncing.running = Some(Running { thread, runs });
            }
            Err(error) => tracing::warn!(%error, "what was received is made durable later"),
        }
        self.syncing.bytes = 0;
    }

    fn note_durable(&mut self) -> Result<(), StagingError> {
        let Some(Running { thread, runs }) = self.syncing.running.take() else { return Ok(()) };
        let path = self.journal_path();
        let synced =
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that waits for the disk broke off")));
        synced.map_err(|source| disk("make durable", &self.files(), source))?;
        let journal = self.journal.as_mut().ok_or(StagingError::NotBegun)?;
        journal.durable(&runs).map_err(|source| disk("write", &path, source))
    }

    /// Goes on from an earlier attempt, or clears away what cannot be one.
    pub(super) fn take_up(&mut self, stored: Option<Manifest>) -> Result<(), StagingError> {
        match stored {
            Some(manifest) => self.take_up_layout(Layout::Whole(manifest)),
            None => self.remove_received(),
        }
    }

    /// Whether an earlier attempt was at this.
    pub(super) fn has_journal_of(&self, layout: &Layout) -> Result<bool, StagingError> {
        Ok(self.claims(layout)?.is_some())
    }

    fn claims(&self, layout: &Layout) -> Result<Option<Claims>, StagingError> {
        let path = self.journal_path();
        let claims = journal::claims(&path, layout.id(), layout.manifest().group_count());
        claims.map_err(|source| disk("read", &path, source))
    }

    /// Goes on from an earlier attempt at this.
    pub(super) fn take_up_layout(&mut self, layout: Layout) -> Result<(), StagingError> {
        let claims = self.claims(&layout)?;
        let (files, changed_max) = (self.files(), claims.as_ref().and_then(|claims| claims.changed_max));
        // Before they are created anew where they are missing.
        let untouched: Vec<bool> =
            layout.files().map(|file| is_untouched(&files.join(file.path), file.bytes, changed_max)).collect();
        self.create_files(&layout)?;
        (self.held, self.believed) = self.look_over(&layout, claims.as_ref(), &untouched)?;
        let claims = claims.unwrap_or_default();
        let kind = if claims.boot == Boot::Other { Kind::Durable } else { Kind::Written };
        let mut known: Vec<(Kind, (u64, u64))> = self.runs_held().into_iter().map(|run| (kind, run)).collect();
        if untouched.iter().all(|untouched| *untouched) {
            let held = |run: &(u64, u64)| (run.0..run.1).all(|index| is_set(&self.held, index));
            known.extend(claims.durable.into_iter().filter(held).map(|run| (Kind::Durable, run)));
        }
        // What the earlier attempt wrote may not be on the disk yet, in whichever file.
        self.syncing.files = (0..).zip(layout.files()).map(|(number, _)| number).collect();
        let id = layout.id();
        self.layout = Some(layout);
        self.begin_journal(id, &known)
    }

    /// Which groups are there, and whether that is believed of any of them. What the journal claims is believed of files that nobody else has touched, as far as it was
    /// durable or the machine runs since then; the rest of what it claims is hashed, and without a journal everything is.
    fn look_over(
        &self,
        layout: &Layout,
        claims: Option<&Claims>,
        untouched: &[bool],
    ) -> Result<(Vec<bool>, bool), StagingError> {
        let (files, manifest) = (self.files(), layout.manifest());
        let root = files.canonicalize().map_err(|source| disk("read", &files, source))?;
        let (mut claimed, mut believed) = (vec![claims.is_none(); index(manifest.group_count())], Vec::new());
        believed.resize(claimed.len(), false);
        if let Some(claims) = claims {
            set(&mut claimed, claims.written.iter().chain(&claims.durable));
            set(&mut believed, &claims.durable);
            set(&mut believed, if claims.boot == Boot::Same { claims.written.as_slice() } else { &[] });
        }
        let (mut held, mut buffer, mut current, mut believes) = (unwanted(layout), Vec::new(), None, false);
        for (group, held) in manifest.groups().zip(&mut held).filter(|(_, held)| !**held) {
            let place = layout.place(&Extent::from(&group)).ok_or(StagingError::Group { index: group.index })?;
            let is_untouched = untouched.get(index(u64::from(place.file))).copied().unwrap_or_default();
            if is_set(&believed, group.index) && is_untouched {
                (*held, believes) = (true, true);
            } else if is_set(&claimed, group.index) {
                let file = match current.take().filter(|(number, _)| *number == place.file) {
                    Some((_, file)) => file,
                    None => open_received(&root, layout, place.file)?,
                };
                buffer.resize(usize::try_from(group.bytes).unwrap_or_default(), 0);
                file.read_exact_at(&mut buffer, place.offset).map_err(|source| disk("read", &root, source))?;
                *held = manifest.verify_group(&group, &buffer);
                current = Some((place.file, file));
            }
        }
        Ok((held, believes))
    }
}

/// Whether a file is as its writer left it: there, with its length, and not changed later than it can have been.
fn is_untouched(path: &Path, bytes: u64, changed_max: Option<SystemTime>) -> bool {
    let (Ok(metadata), Some(changed_max)) = (fs::symlink_metadata(path), changed_max) else { return false };
    let changed = u64::try_from(metadata.ctime()).ok().map(Duration::from_secs).and_then(|at| UNIX_EPOCH.checked_add(at));
    let modified = metadata.modified().ok();
    let in_time = |at: Option<SystemTime>| at.is_some_and(|at| at <= changed_max);
    metadata.is_file() && metadata.len() == bytes && in_time(changed) && in_time(modified)
}

fn open_received(root: &Path, layout: &Layout, number: u32) -> Result<File, StagingError> {
    let file = layout.file(number).ok_or(StagingError::Group { index: u64::from(number) })?;
    Ok(open_inside(root, file.path).map_err(StagingError::Tree)?.0)
}

/// For each group, whether it is not to be received.
pub(super) fn unwanted(layout: &Layout) -> Vec<bool> {
    let mut unwanted = vec![true; index(layout.manifest().group_count())];
    for (first, end) in layout.runs() {
        if let Some(wanted) = unwanted.get_mut(index(first)..index(end)) {
            wanted.fill(false);
        }
    }
    unwanted
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn is_set(flags: &[bool], at: u64) -> bool {
    flags.get(index(at)).copied().unwrap_or_default()
}

fn set<'a>(flags: &mut [bool], runs: impl IntoIterator<Item = &'a (u64, u64)>) {
    for (first, end) in runs {
        if let Some(flags) = flags.get_mut(index(*first)..index(*end)) {
            flags.fill(true);
        }
    }
}
