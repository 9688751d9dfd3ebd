//! Tells by their content the files that run code when they are loaded: Python pickles, and the archives of pickles that
//! PyTorch writes. A name proves nothing and is not looked at.
//!
//! Never unpickles and never unpacks. Pickles of protocol 0 and 1 are plain text without a mark; only those that name a
//! callable at the start, as an attack on a loader does, are told.

use std::{fmt, io};

/// Bytes at the start of a file that [`detect`] looks at. A tar header has 512; the rest is for names of callables.
const HEAD_BYTES: u64 = 1024;

/// Bytes of the directory of a zip archive. A checkpoint of 100,000 tensors has about 8 MiB.
const ZIP_DIRECTORY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes from the end in which the end record of a zip archive lies: 22 of its own and a comment of up to 65,535.
const ZIP_END_BYTES_MAX: u64 = 22 + 65_535;

/// Entries of a tar archive that are looked at. PyTorch's old form has four.
const TAR_ENTRIES_MAX: u32 = 64;

/// How a file would run code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pickle {
    /// A bare pickle, PyTorch's oldest form among them.
    Bare,
    /// A zip archive that holds one: what `torch.save` writes.
    Zip,
    /// A zip archive that cannot be looked into.
    UnreadableZip,
    /// A tar archive that holds one.
    Tar,
}

impl fmt::Display for Pickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "a Python pickle",
            Self::Zip => "a PyTorch archive with a pickle inside",
            Self::UnreadableZip => "a zip archive that cannot be looked into",
            Self::Tar => "a tar archive with a pickle inside",
        })
    }
}

/// Reads a range of the file that is looked at: offset, then a buffer to fill.
pub(crate) type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>;

/// Looks at a file of `bytes` bytes.
///
/// # Errors
/// It cannot be read.
pub(crate) fn detect(bytes: u64, read_at: ReadAt<'_>) -> io::Result<Option<Pickle>> {
    let head = read(read_at, 0, bytes.min(HEAD_BYTES))?;
    if is_pickle(&head) {
        return Ok(Some(Pickle::Bare));
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Ok(match zip_names(bytes, read_at)? {
            None => Some(Pickle::UnreadableZip),
            Some(names) if names.iter().any(|name| holds_pickle(name)) => Some(Pickle::Zip),
            Some(_) => None,
        });
    }
    if head.get(257..262) == Some(b"ustar") && tar_holds_pickle(bytes, read_at)? {
        return Ok(Some(Pickle::Tar));
    }
    Ok(None)
}

/// Whether these bytes are the start of a pickle.
fn is_pickle(head: &[u8]) -> bool {
    match head {
        // PROTO, and an opcode after it: a file that begins with the number 0x280 (a safetensors header) has a zero there.
        [0x80, 0..=5, opcode, ..] => OPCODES.contains(opcode) || (0x80..=0x98).contains(opcode),
        // GLOBAL with a module and a name in it, possibly after a MARK.
        [b'(', b'c', rest @ ..] | [b'c', rest @ ..] => {
            let mut lines = rest.split(|byte| *byte == b'\n');
            let dotted = |line: Option<&[u8]>| {
                line.is_some_and(|line| {
                    !line.is_empty() && line.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
                })
            };
            // What follows a callable in a pickle: a mark, an empty tuple or a memo.
            dotted(lines.next())
                && dotted(lines.next())
                && lines.next().is_some_and(|next| matches!(next.first(), Some(b'(' | b')' | b'p' | b'q')))
                && lines.next().is_some()
        }
        _ => false,
    }
}

/// The opcodes below 0x80, from Python's `pickletools`.
const OPCODES: &[u8] = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu])}GBC";

fn holds_pickle(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    [b".pkl".as_slice(), b".pickle"].iter().any(|end| lower.ends_with(end))
}

/// The names in the directory of a zip archive; none where it cannot be read within bounds.
fn zip_names(bytes: u64, read_at: ReadAt<'_>) -> io::Result<Option<Vec<Vec<u8>>>> {
    let tail_at = bytes.saturating_sub(ZIP_END_BYTES_MAX);
    let tail = read(read_at, tail_at, bytes.saturating_sub(tail_at))?;
    let Some(at) = tail.windows(4).rposition(|window| window == b"PK\x05\x06") else { return Ok(None) };
    let end = tail.get(at..).unwrap_or_default();
    let (Some(mut length), Some(mut start)) = (u32_at(end, 12).map(u64::from), u32_at(end, 16).map(u64::from)) else {
        return Ok(None);
    };
    if length == u64::from(u32::MAX) || start == u64::from(u32::MAX) {
        // Zip64: a locator of 20 bytes stands before the end record and points at the large one.
        let locator = at.checked_sub(20).and_then(|from| tail.get(from..at)).unwrap_or_default();
        let Some(large_at) = u64_at(locator, 8).filter(|_| locator.starts_with(b"PK\x06\x07")) else { return Ok(None) };
        if large_at.checked_add(56).is_none_or(|large_end| large_end > bytes) {
            return Ok(None);
        }
        let large = read(read_at, large_at, 56)?;
        let (Some(large_length), Some(large_start)) = (u64_at(&large, 40), u64_at(&large, 48)) else { return Ok(None) };
        (length, start) = (large_length, large_start);
    }
    let inside = start.checked_add(length).is_some_and(|directory_end| directory_end <= bytes);
    if !inside || length > ZIP_DIRECTORY_BYTES_MAX {
        return Ok(None);
    }
    Ok(directory_names(&read(read_at, start, length)?))
}

fn directory_names(directory: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut names, mut rest) = (Vec::new(), directory);
    while !rest.is_empty() {
        if !rest.starts_with(b"PK\x01\x02") {
            return None;
        }
        let length = |at| u16_at(rest, at).map(usize::from);
        let (name, extra, comment) = (length(28)?, length(30)?, length(32)?);
        names.push(rest.get(46..)?.get(..name)?.to_vec());
        rest = rest.get(46_usize.checked_add(name)?.checked_add(extra)?.checked_add(comment)?..)?;
    }
    Some(names)
}

fn tar_holds_pickle(bytes: u64, read_at: ReadAt<'_>) -> io::Result<bool> {
    let mut at = 0_u64;
    for _ in 0..TAR_ENTRIES_MAX {
        if at.checked_add(512).is_none_or(|end| end > bytes) {
            return Ok(false);
        }
        let header = read(read_at, at, 512)?;
        let field = |range: std::ops::Range<usize>| {
            header.get(range).unwrap_or_default().split(|byte: &u8| *byte == 0).next().unwrap_or_default()
        };
        let name = field(0..100);
        if name == b"pickle" || name.ends_with(b"/pickle") || holds_pickle(name) {
            return Ok(true);
        }
        let size = std::str::from_utf8(field(124..136)).ok().and_then(|text| u64::from_str_radix(text.trim(), 8).ok());
        let Some(next) = size.and_then(|size| at.checked_add(512)?.checked_add(size.checked_next_multiple_of(512)?)) else {
            return Ok(false);
        };
        at = next;
    }
    Ok(false)
}

fn read(read_at: ReadAt<'_>, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    // Every caller bounds `bytes` by a constant above.
    let mut out = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    read_at(at, &mut out)?;
    Ok(out)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A zip archive of empty files with these names, stored.
    pub(crate) fn zip(names: &[&str], zip64: bool) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for name in names {
            let length = u16::try_from(name.len()).expect("short").to_le_bytes();
            directory.extend(b"PK\x01\x02");
            directory.extend([0; 24]);
            directory.extend(length);
            directory.extend([0; 16]);
            directory.extend(name.as_bytes());
            out.extend(b"PK\x03\x04");
            out.extend([0; 22]);
            out.extend(length);
            out.extend([0; 2]);
            out.extend(name.as_bytes());
        }
        let (start, length) = (out.len() as u64, directory.len() as u64);
        out.extend(directory);
        let large_at = out.len() as u64;
        if zip64 {
            out.extend(b"PK\x06\x06");
            out.extend([0; 36]);
            out.extend(length.to_le_bytes());
            out.extend(start.to_le_bytes());
            out.extend(b"PK\x06\x07\0\0\0\0");
            out.extend(large_at.to_le_bytes());
            out.extend([0; 4]);
        }
        let short = |number: u64| if zip64 { u32::MAX } else { u32::try_from(number).expect("short") };
        out.extend(b"PK\x05\x06");
        out.extend([0; 8]);
        out.extend(short(length).to_le_bytes());
        out.extend(short(start).to_le_bytes());
        out.extend([0; 2]);
        out
    }

    /// A tar archive of empty files with these names.
    fn tar(names: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for name in names {
            let mut header = [0_u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..135].copy_from_slice(b"00000000000");
            header[257..262].copy_from_slice(b"ustar");
            out.extend(header);
        }
        out
    }

    fn found(bytes: &[u8]) -> Option<Pickle> {
        let read_at = |at: u64, buffer: &mut [u8]| -> io::Result<()> {
            let from = usize::try_from(at).map_err(io::Error::other)?;
            let source = bytes.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(source);
            Ok(())
        };
        detect(bytes.len() as u64, &read_at).expect("reads")
    }

    #[test]
    fn pickles_are_told_by_content() {
        let table: &[(&str, Vec<u8>, Option<Pickle>)] = &[
            ("empty", Vec::new(), None),
            ("json", b"{\"a\": 1}".to_vec(), None),
            ("text", b"cat\ndog\nfish\n".to_vec(), None),
            ("text in parentheses", b"(c) 2026\nAll rights\n".to_vec(), None),
            ("gguf", b"GGUF\x03\0\0\0".to_vec(), None),
            ("protocol 2, empty dict", b"\x80\x02}q\0.".to_vec(), Some(Pickle::Bare)),
            ("protocol 4, framed", b"\x80\x04\x95\x10\0\0\0\0\0\0\0".to_vec(), Some(Pickle::Bare)),
            ("protocol 5, list", b"\x80\x05]\x94.".to_vec(), Some(Pickle::Bare)),
            ("legacy torch", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), Some(Pickle::Bare)),
            ("protocol 0, attack", b"cos\nsystem\n(S'id'\ntR.".to_vec(), Some(Pickle::Bare)),
            ("protocol 0, marked attack", b"(cposix\nsystem\np0\nS'id'\no.".to_vec(), Some(Pickle::Bare)),
            ("a length of 640, as in safetensors", b"\x80\x02\0\0\0\0\0\0{".to_vec(), None),
            ("torch archive", zip(&["archive/data.pkl", "archive/data/0"], false), Some(Pickle::Zip)),
            ("torch archive, last", zip(&["a", "b", "x/DATA.PKL"], false), Some(Pickle::Zip)),
            ("torch archive, zip64", zip(&["archive/data.pkl"], true), Some(Pickle::Zip)),
            ("other archive", zip(&["config.json", "weights.npy"], false), None),
            ("other archive, zip64", zip(&["config.json"], true), None),
            ("empty archive", zip(&[], false), None),
            ("cut archive", zip(&["archive/data.pkl"], false)[..40].to_vec(), Some(Pickle::UnreadableZip)),
            ("old torch tar", tar(&["sys_info", "pickle"]), Some(Pickle::Tar)),
            ("other tar", tar(&["a", "b"]), None),
        ];
        for (what, bytes, expected) in table {
            assert_eq!(found(bytes), *expected, "{what}");
        }
    }

    #[test]
    fn a_directory_that_points_outside_is_unreadable() {
        let mut bytes = zip(&["a"], false);
        let at = bytes.len() - 6;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.saturating_sub(1).to_le_bytes());
        assert_eq!(found(&bytes), Some(Pickle::UnreadableZip));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(start in 0_usize..4, mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mark: &[u8] = [b"".as_slice(), b"PK\x03\x04", b"PK\x05\x06", b"\x80\x04"][start];
            let length = mark.len().min(bytes.len());
            bytes[..length].copy_from_slice(&mark[..length]);
            let _ = found(&bytes);
        }
    }
}
