//! Asking on the terminal without echo. It reads one line from the terminal that controls the process, never from standard
//! input, and leaves the terminal as it was, also after Ctrl-C.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
};

use rustix::{
    process::getpgrp,
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};
use zeroize::Zeroizing;

/// Bytes of a line: as many as a terminal of Linux keeps of one.
const LINE_BYTES_MAX: usize = 4096;

/// What Ctrl-C sends.
const CTRL_C: u8 = 3;

/// Why a line cannot be had.
#[derive(Debug)]
pub(super) enum NoLine {
    /// There is no terminal, or the process is in its background.
    Nowhere,
    Interrupted,
    Io(io::Error),
}

/// A terminal without echo; it is again as it was once this is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

/// Asks for a line and gives it without its end.
///
/// # Errors
/// There is no terminal to ask at, or it was answered with Ctrl-C or with what is no text.
pub(super) fn ask(prompt: &str) -> Result<Zeroizing<String>, NoLine> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| NoLine::Nowhere)?;
    // A process in the background would be stopped as soon as it touched the terminal, and nobody would see why.
    match tcgetpgrp(&terminal) {
        Ok(foreground) if foreground == getpgrp() => {}
        Ok(_) | Err(_) => return Err(NoLine::Nowhere),
    }
    // A buffer that does not grow: one that does leaves what it held behind.
    let mut buffer = Zeroizing::new(vec![0; LINE_BYTES_MAX]);
    let read = {
        let _quiet = Quiet::new(&terminal).map_err(NoLine::Io)?;
        // After the echo is off, so that nothing that answers it is shown.
        (&terminal).write_all(prompt.as_bytes()).map_err(NoLine::Io)?;
        read_line(&terminal, &mut buffer)
    };
    (&terminal).write_all(b"\n").map_err(NoLine::Io)?;
    line(buffer.get(..read.map_err(NoLine::Io)?).unwrap_or_default())
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        // A signal would end the process before the echo is back. Ctrl-C ends the line instead, and is seen in it.
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG;
        quiet.local_modes |= LocalModes::ICANON;
        quiet.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        // What was typed before the question is no answer to it, and was shown.
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no mending.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Reads up to the end of a line, or of the input, and says how many bytes.
fn read_line(mut terminal: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled: usize = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match terminal.read(room) {
            Ok(0) => break,
            Ok(count) => {
                let ended = room.get(..count).is_some_and(|read| read.ends_with(b"\n") || read.ends_with(&[CTRL_C]));
                filled = filled.saturating_add(count);
                if ended {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The text of a line that was typed.
fn line(bytes: &[u8]) -> Result<Zeroizing<String>, NoLine> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.ends_with(&[CTRL_C]) {
        return Err(NoLine::Interrupted);
    }
    let invalid = || NoLine::Io(io::Error::new(io::ErrorKind::InvalidData, "what was typed is no line of text"));
    let text = std::str::from_utf8(bytes).map_err(|_| invalid())?;
    // Such as an arrow key: one does not see what one typed, and would not type it again.
    if text.chars().any(char::is_control) || bytes.len() >= LINE_BYTES_MAX {
        return Err(invalid());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_line_is_text_or_nothing() {
        let long = vec![b'x'; LINE_BYTES_MAX];
        let table: [(&[u8], Option<&str>); 8] = [
            (b"correct horse\n", Some("correct horse")),
            (b"ends with the input", Some("ends with the input")),
            (b"\n", Some("")),
            (b"", Some("")),
            ("\u{79d8}\u{5bc6}\n".as_bytes(), Some("\u{79d8}\u{5bc6}")),
            (b"arrow \x1b[D\n", None),
            (b"\xff\n", None),
            (&long, None),
        ];
        for (bytes, expected) in table {
            match (line(bytes), expected) {
                (Ok(found), Some(expected)) => assert_eq!(*found, expected),
                (Err(NoLine::Io(_)), None) => {}
                (found, _) => panic!("{bytes:?}: {}", found.is_ok()),
            }
        }
        assert!(matches!(line(b"half\x03"), Err(NoLine::Interrupted)));
    }
}
