//! What was received already, across restarts.
//!
//! After each group that was verified and written, a record says so; a process that is killed loses at most the one that was
//! being written. The records are believed as long as the machine has not been restarted since, for the kernel keeps what was
//! written, and as long as no file was changed later than the last record. After a loss of power only that is believed which
//! had been made durable; the rest of what is recorded is hashed again.
//!
//! ```text
//! header   "alliance-journal" (16 bytes), manifest (32), boot (36, the text of boot_id)
//! records  kind (8 bytes: 1 written, 2 durable), first group (8), the one after the last (8), check (8); little endian
//! ```
//!
//! The check is the start of the BLAKE3 of the header and the rest of the record, so that a torn record ends the journal.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use alliance_protocol::id::ManifestId;

use crate::models::durable::write_atomically;

const MAGIC: &[u8; 16] = b"alliance-journal";
const BOOT_BYTES: usize = 36;
const HEADER_BYTES: usize = 16 + 32 + BOOT_BYTES;
const RECORD_BYTES: usize = 32;

/// Bytes of a journal that are read: a record for each group that an artefact may have, several times over.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;

/// How long records may wait before they are made durable.
const DURABLE_EVERY: Duration = Duration::from_secs(1);

/// How much later than the last record a file may have been changed: its own writer was killed between the two, or the kernel's
/// clock for files, which moves every few milliseconds, has moved. Whoever changes a file later than that is found out.
const CHANGED_AFTER_MAX: Duration = Duration::from_millis(50);

/// What a record says of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They are verified and handed to the kernel.
    Written,
    /// They are on the disk, whatever happens.
    Durable,
}

/// The journal of a pull that runs.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    header: Vec<u8>,
    /// When records were last made durable, or began to be.
    durable: Instant,
    /// The thread that does it, so that who writes does not wait for the disk.
    syncing: Option<JoinHandle<io::Result<()>>>,
}

/// Whether the machine was started again since a journal was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Boot {
    /// It runs since then without interruption.
    Same,
    /// It was: what can be read now has come from the disk.
    Other,
    /// The kernel does not tell.
    #[default]
    Unknown,
}

/// What the journal of an earlier attempt says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) boot: Boot,
    pub(super) written: Vec<(u64, u64)>,
    pub(super) durable: Vec<(u64, u64)>,
    /// A file that was changed later was changed by someone else.
    pub(super) changed_max: Option<SystemTime>,
}

/// The kernel's name for the time since it was started; none where it has none.
fn boot() -> Option<[u8; BOOT_BYTES]> {
    let text = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    text.first_chunk().copied()
}

fn header(id: ManifestId, boot: [u8; BOOT_BYTES]) -> Vec<u8> {
    [MAGIC.as_slice(), &id.0, &boot].concat()
}

fn record(header: &[u8], kind: Kind, (first, end): (u64, u64)) -> [u8; RECORD_BYTES] {
    let kind: u64 = match kind {
        Kind::Written => 1,
        Kind::Durable => 2,
    };
    let mut record = [0; RECORD_BYTES];
    let check = blake3::Hasher::new()
        .update(header)
        .update(&kind.to_le_bytes())
        .update(&first.to_le_bytes())
        .update(&end.to_le_bytes())
        .finalize();
    let parts = [kind.to_le_bytes(), first.to_le_bytes(), end.to_le_bytes()];
    let check = check.as_bytes().iter();
    for (to, from) in record.iter_mut().zip(parts.as_flattened().iter().chain(check)) {
        *to = *from;
    }
    record
}

impl Journal {
    /// Begins a journal in the place of an earlier one, with what is known already.
    pub(super) fn begin(path: &Path, id: ManifestId, known: &[(Kind, (u64, u64))]) -> io::Result<Self> {
        // Where there is no name for it, no later start of the machine is the same.
        let header = header(id, boot().unwrap_or([b'?'; BOOT_BYTES]));
        let mut bytes = header.clone();
        bytes.extend(known.iter().flat_map(|(kind, groups)| record(&header, *kind, *groups)));
        write_atomically(path, &bytes)?;
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().append(true).custom_flags(flags).open(path)?;
        Ok(Self { file, header, durable: Instant::now(), syncing: None })
    }

    /// Records groups that were just written.
    pub(super) fn written(&mut self, groups: (u64, u64)) -> io::Result<()> {
        self.file.write_all(&record(&self.header, Kind::Written, groups))?;
        if self.durable.elapsed() >= DURABLE_EVERY { self.start_syncing() } else { Ok(()) }
    }

    /// Records runs of groups whose files were made durable after they were written.
    pub(super) fn durable(&mut self, runs: &[(u64, u64)]) -> io::Result<()> {
        let records: Vec<u8> = runs.iter().flat_map(|run| record(&self.header, Kind::Durable, *run)).collect();
        self.file.write_all(&records)?;
        self.start_syncing()
    }

    /// Begins to make the records durable, unless that is under way: then soon. Says how it went the last time.
    fn start_syncing(&mut self) -> io::Result<()> {
        if self.syncing.as_ref().is_some_and(|syncing| !syncing.is_finished()) {
            return Ok(());
        }
        if let Some(syncing) = self.syncing.take() {
            syncing.join().unwrap_or_else(|_| Err(io::Error::other("the thread that waits for the disk broke off")))?;
        }
        let file = self.file.try_clone()?;
        let syncing = thread::Builder::new().name("durable".to_owned()).spawn(move || file.sync_data());
        self.syncing = Some(syncing?);
        self.durable = Instant::now();
        Ok(())
    }
}

/// Reads the journal of an earlier attempt to receive this artefact of so many groups; none where there is none that can be read.
pub(super) fn claims(path: &Path, id: ManifestId, group_count: u64) -> io::Result<Option<Claims>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if metadata.len() > JOURNAL_BYTES_MAX {
        return Ok(None);
    }
    let bytes = fs::read(path)?;
    let mut claims = parse(&bytes, id, group_count, boot());
    if let Some(claims) = &mut claims {
        claims.changed_max = metadata.modified()?.checked_add(CHANGED_AFTER_MAX);
    }
    Ok(claims)
}

/// What the records say, up to the first that is none.
fn parse(bytes: &[u8], id: ManifestId, group_count: u64, boot: Option<[u8; BOOT_BYTES]>) -> Option<Claims> {
    let (own, records) = bytes.split_at_checked(HEADER_BYTES)?;
    let then: [u8; BOOT_BYTES] = own.last_chunk().copied()?;
    if own != header(id, then) {
        return None;
    }
    let boot = match boot {
        Some(now) if now == then => Boot::Same,
        Some(_) => Boot::Other,
        None => Boot::Unknown,
    };
    let mut claims = Claims { boot, ..Claims::default() };
    for bytes in records.as_chunks::<RECORD_BYTES>().0 {
        let [kind, first, end, _] = bytes.as_chunks::<8>().0 else { break };
        let groups = (u64::from_le_bytes(*first), u64::from_le_bytes(*end));
        let kind = if u64::from_le_bytes(*kind) == 2 { Kind::Durable } else { Kind::Written };
        if *bytes != record(own, kind, groups) || groups.0 >= groups.1 || groups.1 > group_count {
            break;
        }
        match kind {
            Kind::Written => claims.written.push(groups),
            Kind::Durable => claims.durable.push(groups),
        }
    }
    Some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ManifestId = ManifestId([7; 32]);

    fn read(dir: &Path) -> Claims {
        claims(&dir.join("journal"), ID, 12).expect("read").expect("a journal")
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        assert_eq!(claims(&path, ID, 12).expect("read"), None);
        let mut journal = Journal::begin(&path, ID, &[(Kind::Written, (0, 3))]).expect("begun");
        journal.written((3, 4)).expect("recorded");
        journal.durable(&[(0, 4)]).expect("recorded");
        journal.written((9, 12)).expect("recorded");
        let claims = read(dir.path());
        assert_eq!((claims.written, claims.durable), (vec![(0, 3), (3, 4), (9, 12)], vec![(0, 4)]));
        assert_eq!(claims.boot == Boot::Same, boot().is_some());
        let modified = fs::metadata(&path).expect("there").modified().expect("a time");
        assert_eq!(claims.changed_max, modified.checked_add(CHANGED_AFTER_MAX));
        // Begun again, only what is known counts.
        Journal::begin(&path, ID, &[(Kind::Durable, (1, 2))]).expect("begun");
        assert_eq!((read(dir.path()).written, read(dir.path()).durable), (vec![], vec![(1, 2)]));
    }

    #[test]
    fn a_torn_or_altered_record_ends_it() {
        let boot = [b'b'; BOOT_BYTES];
        let own = header(ID, boot);
        let runs = [(0, 1), (1, 5), (7, 9)];
        let whole = [own.clone(), runs.iter().flat_map(|run| record(&own, Kind::Written, *run)).collect()].concat();
        let written = |bytes: &[u8]| parse(bytes, ID, 12, Some(boot)).map(|claims| claims.written.len());
        for cut in 0..=whole.len() {
            let expected = cut.checked_sub(HEADER_BYTES).map(|records| records / RECORD_BYTES);
            assert_eq!(written(&whole[..cut]), expected, "{cut}");
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 0x40;
            let expected = at.checked_sub(HEADER_BYTES).map(|records| records / RECORD_BYTES);
            // A header of another boot is a header, and none of its records verify.
            let of_boot = (16 + 32..HEADER_BYTES).contains(&at);
            assert_eq!(written(&altered), if of_boot { Some(0) } else { expected }, "{at}");
        }
        assert_eq!(parse(&whole, ManifestId([8; 32]), 12, Some(boot)), None, "of another artefact");
        assert_eq!(parse(&whole, ID, 12, None).expect("a journal").boot, Boot::Unknown);
        assert_eq!(parse(&whole, ID, 12, Some([b'c'; BOOT_BYTES])).expect("a journal").boot, Boot::Other);
        for strange in [(5, 5), (6, 5), (0, 13), (0, u64::MAX)] {
            let bytes = [own.clone(), record(&own, Kind::Written, strange).to_vec()].concat();
            assert_eq!(written(&bytes), Some(0), "{strange:?}");
        }
    }
}
