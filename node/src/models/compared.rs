//! What this process has compared with its manifest, and nobody has written since.
//!
//! An exporter never sends bytes that are not those of the manifest (CROSSING-24). The first time that it reads a group it
//! hashes it, unless this process has received it: that was hashed before it was written. When it reads it again, for the next importer, the file's times tell whether anything can have changed: the
//! kernel sets the change time (`st_ctime`, inode(7)) with every write, and no program can set it back. What is remembered
//! is lost with the process.
//!
//! A program that has mapped a file for writing before it was compared can alter it without a trace until the kernel writes
//! the page out. The importer, which hashes everything, finds that.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::Metadata,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alliance_protocol::{id::ManifestId, manifest::Manifest};

/// Files that are remembered; the one that was used longest ago goes first. A model has some hundred at the most.
const FILES_MAX: usize = 4096;

/// A file that was changed so lately could be changed once more without its times showing it: the kernel's clock for them
/// ticks every few milliseconds.
const SETTLED: Duration = Duration::from_secs(2);

/// What the kernel says of a file's content without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When it was changed last; none where the file system does not say it by more than seconds.
    fn changed_exactly(&self) -> Option<SystemTime> {
        let (seconds, nanoseconds) = self.changed;
        let (seconds, nanoseconds) = (u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
        if nanoseconds == 0 { None } else { UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)) }
    }

    /// Whether the last change was long enough ago for the next one to show. A time in the future never is.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, _) = self.changed;
        // One second more, in the place of the fraction.
        let changed = u64::try_from(seconds).ok().and_then(|seconds| seconds.checked_add(1));
        let changed = changed.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let settled = changed.and_then(|changed| changed.checked_add(SETTLED));
        settled.is_some_and(|settled| settled <= now)
    }
}

/// Between two ticks of the kernel's clock for the times of files, at most (`CONFIG_HZ` is 100 or more).
const TICK: Duration = Duration::from_millis(10);

/// The files of an artefact, as this process has written them where nobody else could.
#[derive(Debug)]
pub(super) struct Sealed(Vec<(u32, Stamp, Range<u64>)>);

impl Sealed {
    /// Takes the stamps of all files under `root`, and returns when whatever anybody writes to them will show. Those of which
    /// that cannot be said are left out: on a file system that counts in whole seconds, or where the clock was set back.
    pub(super) fn of(root: &Path, manifest: &Manifest) -> Self {
        let mut sealed = Vec::new();
        let mut last = None;
        for (number, file) in (0..).zip(manifest.files()).take(FILES_MAX) {
            // One that is not found is compared when it is read, and the reason told then.
            let Ok(metadata) = root.join(&file.path).symlink_metadata() else { continue };
            let stamp = Stamp::of(&metadata);
            let Some(changed) = stamp.changed_exactly() else { continue };
            last = last.max(Some(changed));
            sealed.push((number, stamp, manifest.groups_in(number, &(0..file.bytes))));
        }
        let passed = last.and_then(|last| SystemTime::now().duration_since(last).ok());
        match passed {
            Some(passed) => std::thread::sleep(TICK.saturating_mul(2).saturating_sub(passed)),
            None => sealed.clear(),
        }
        Self(sealed)
    }
}

/// The memory of one daemon.
#[derive(Debug, Default)]
pub struct Compared(Mutex<VecDeque<Known>>);

/// The groups of one file of one artefact that were compared while it had this stamp.
#[derive(Debug)]
struct Known {
    manifest: ManifestId,
    file: u32,
    stamp: Stamp,
    /// First group and the one after the last, of runs that do not touch.
    runs: BTreeMap<u64, u64>,
}

impl Compared {
    /// Whether these groups of a file were compared while it had exactly this stamp.
    pub(super) fn holds(&self, manifest: ManifestId, file: u32, stamp: &Stamp, groups: &Range<u64>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = known.iter().position(|known| known.manifest == manifest && known.file == file) else {
            return false;
        };
        let holds = known.get(at).is_some_and(|known| {
            let run = known.runs.range(..=groups.start).next_back();
            known.stamp == *stamp && run.is_some_and(|(_, end)| *end >= groups.end)
        });
        // Used last, at the end.
        if at.saturating_add(1) < known.len()
            && let Some(used) = known.remove(at)
        {
            known.push_back(used);
        }
        holds
    }

    /// Remembers that these groups of a file were compared and are right. The stamp is that of before and after.
    pub(super) fn note(&self, manifest: ManifestId, file: u32, stamp: &Stamp, groups: Range<u64>, now: SystemTime) {
        if stamp.is_settled(now) {
            self.keep(manifest, file, stamp, groups);
        }
    }

    /// Remembers the files of an artefact that nobody has written to but this process, with what it had verified.
    pub(super) fn note_sealed(&self, manifest: ManifestId, sealed: Sealed) {
        for (file, stamp, groups) in sealed.0 {
            self.keep(manifest, file, &stamp, groups);
        }
    }

    fn keep(&self, manifest: ManifestId, file: u32, stamp: &Stamp, groups: Range<u64>) {
        if groups.is_empty() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter_mut().find(|known| known.manifest == manifest && known.file == file);
        let known = match found {
            Some(known) if known.stamp == *stamp => known,
            Some(known) => {
                known.stamp = *stamp;
                known.runs.clear();
                known
            }
            None => {
                if all.len() >= FILES_MAX {
                    all.pop_front();
                }
                all.push_back(Known { manifest, file, stamp: *stamp, runs: BTreeMap::new() });
                let Some(known) = all.back_mut() else { return };
                known
            }
        };
        known.add(groups);
    }
}

impl Known {
    fn add(&mut self, groups: Range<u64>) {
        let Range { mut start, mut end } = groups;
        // Every run that touches the new one becomes part of it.
        while let Some((first, last)) = self.runs.range(..=end).next_back().map(|(first, last)| (*first, *last)) {
            if last < start {
                break;
            }
            self.runs.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.runs.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write as _,
    };

    use super::*;
    use crate::models::import::{
        import, load_manifest,
        tests::{model, request},
    };

    const ID: ManifestId = ManifestId([7; 32]);

    fn stamp(changed: i64) -> Stamp {
        Stamp { device: 1, inode: 2, bytes: 3, modified: (4, 5), changed: (changed, 0) }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_sealed_is_known_until_anybody_writes_to_it() {
        let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let local = import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        let manifest = load_manifest(manifests.path(), local.manifest).expect("loaded");
        for (number, file) in (0..).zip(manifest.files()) {
            // Lately, by this process.
            let path = dir.path().join(&file.path);
            let stamp = || Stamp::of(&fs::metadata(&path).expect("there"));
            fs::write(&path, fs::read(&path).expect("read")).expect("written");
            let compared = Compared::default();
            compared.note_sealed(manifest.id(), Sealed::of(dir.path(), &manifest));
            let groups = manifest.groups_in(number, &(0..file.bytes));
            assert_eq!(compared.holds(manifest.id(), number, &stamp(), &groups), !groups.is_empty(), "{}", file.path);
            // At once, by another: the same bytes, of which nobody can know that they are.
            let content = fs::read(&path).expect("read");
            File::options().write(true).open(&path).expect("opened").write_all(&content).expect("written");
            assert!(!compared.holds(manifest.id(), number, &stamp(), &groups), "{}", file.path);
        }
        assert!(Sealed::of(&dir.path().join("elsewhere"), &manifest).0.is_empty());
    }

    #[test]
    fn what_was_compared_is_known_until_the_file_changes() {
        let compared = Compared::default();
        assert!(!compared.holds(ID, 0, &stamp(100), &(0..1)));
        for groups in [4..6, 0..2, 8..9, 2..4, 20..30] {
            compared.note(ID, 0, &stamp(100), groups, at(200));
        }
        for (groups, known) in [(0..6, true), (3..5, true), (0..7, false), (8..9, true), (6..8, false), (25..30, true)] {
            assert_eq!(compared.holds(ID, 0, &stamp(100), &groups), known, "{groups:?}");
        }
        assert!(!compared.holds(ID, 1, &stamp(100), &(0..1)), "another file");
        assert!(!compared.holds(ManifestId([8; 32]), 0, &stamp(100), &(0..1)), "another artefact");
        for other in [
            stamp(101),
            Stamp { inode: 9, ..stamp(100) },
            Stamp { bytes: 9, ..stamp(100) },
            Stamp { modified: (4, 6), ..stamp(100) },
            Stamp { changed: (100, 1), ..stamp(100) },
        ] {
            assert!(!compared.holds(ID, 0, &other, &(0..1)), "{other:?}");
        }
        compared.note(ID, 0, &stamp(150), 0..1, at(200));
        assert!(compared.holds(ID, 0, &stamp(150), &(0..1)) && !compared.holds(ID, 0, &stamp(150), &(1..2)));
        assert!(!compared.holds(ID, 0, &stamp(100), &(0..1)), "only the latest counts");
    }

    #[test]
    fn what_was_changed_just_now_is_not_believed() {
        for (changed, now, known) in
            [(100, 103, true), (100, 102, false), (100, 100, false), (100, 50, false), (-1, 50, false)]
        {
            let compared = Compared::default();
            compared.note(ID, 0, &stamp(changed), 0..1, at(now));
            assert_eq!(compared.holds(ID, 0, &stamp(changed), &(0..1)), known, "{changed} at {now}");
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let compared = Compared::default();
        for file in 0..5000 {
            compared.note(ID, file, &stamp(100), 0..1, at(200));
            assert!(compared.holds(ID, 0, &stamp(100), &(0..1)), "what is used stays");
        }
        assert_eq!(compared.0.lock().expect("whole").len(), FILES_MAX);
        assert!(!compared.holds(ID, 1, &stamp(100), &(0..1)));
    }

    #[test]
    fn a_write_shows_in_the_stamp() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, b"one").expect("written");
        let stamp = || Stamp::of(&fs::metadata(&path).expect("there"));
        let before = stamp();
        assert_eq!(before, stamp());
        // The times of a file tick slower than the processor.
        let tick = std::time::Instant::now();
        while stamp() == before {
            fs::write(&path, b"two").expect("written");
            assert!(tick.elapsed() < Duration::from_secs(60), "a write does not show");
        }
    }
}
