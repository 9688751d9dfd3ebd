//! Where a command prints: answers to stdout, errors and progress to stderr, for people or as JSON.
//!
//! Text from elsewhere (names, reasons, citations) never reaches a terminal with control characters in it.

use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
};

use comfy_table::{ContentArrangement, presets};
use serde::Serialize;

use super::Problem;
use crate::exit::Exit;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Tables and text, for people
    #[default]
    Table,
    /// JSON; lists as one object per line
    Json,
}

/// The terminal, or whatever stands in its place.
#[derive(Debug)]
pub(super) struct Screen {
    format: Format,
    colour: bool,
}

/// What stands out, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    Warning,
}

impl Screen {
    pub(super) fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { format, colour: wanted && std::io::stdout().is_terminal() }
    }

    /// Whether people read this.
    pub(super) fn for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// Prints one thing.
    pub(super) fn one<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Exit {
        match self.format {
            Format::Table => out(&text()),
            Format::Json => out(&json(serde_json::to_string_pretty(value))),
        }
        Exit::Done
    }

    /// Prints a list.
    pub(super) fn list<T: Serialize>(&self, values: &[T], table: impl FnOnce() -> String) -> Exit {
        match self.format {
            Format::Table => out(&table()),
            Format::Json => values.iter().for_each(|value| out(&json(serde_json::to_string(value)))),
        }
        Exit::Done
    }

    /// Prints a problem and gives its exit code.
    pub(super) fn problem(&self, problem: &Problem) -> Exit {
        let Problem { exit, message, hint } = problem;
        match self.format {
            Format::Table if hint.is_empty() => err(&format!("error: {}", plain(message))),
            Format::Table => err(&format!("error: {}\n  next: {}", plain(message), plain(hint))),
            Format::Json => {
                let body = serde_json::json!({ "code": exit.word(), "message": message, "hint": hint });
                err(&serde_json::json!({ "error": body }).to_string());
            }
        }
        *exit
    }

    /// A word that stands out where the terminal can show it.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Warning => "33",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn json(text: serde_json::Result<String>) -> String {
    text.unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}

/// A reader that went away (`| head`) is no error of this command.
pub(super) fn out(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end_matches('\n'));
}

fn err(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end_matches('\n'));
}

/// Text without characters that steer a terminal or hide what it says: controls and changes of writing direction.
pub(super) fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A table with a heading, or the word `none`.
#[derive(Debug)]
pub(super) struct Table {
    table: comfy_table::Table,
    empty: bool,
}

impl Table {
    pub(super) fn new<const N: usize>(heading: [&str; N]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(heading.map(str::to_uppercase));
        Self { table, empty: true }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A line feed in a name would make a row that nobody wrote.
        self.table.add_row(cells.map(|cell| plain(&cell).replace('\n', "\u{fffd}")));
        self.empty = false;
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.empty { f.write_str("none") } else { write!(f, "{}", self.table.trim_fmt()) }
    }
}

/// Names and values, one pair a line.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    pub(super) fn add(&mut self, name: &'static str, value: impl fmt::Display) {
        self.0.push((name, plain(&value.to_string())));
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.0 {
            // What has several lines stays in its column, so that it cannot look like another field.
            let mut lines = value.split('\n');
            writeln!(f, "{name:width$}  {}", lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(f, "{:width$}  {line}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\rc\u{202e}d\u{9b}e"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e");
        let mut table = Table::new(["name"]);
        assert_eq!(table.to_string(), "none");
        table.row(["\u{1b}]0;title\u{7}".to_owned()]);
        assert!(!table.to_string().contains(['\u{1b}', '\u{7}']));
        let mut table = Table::new(["name", "state"]);
        table.row(["usp\nusp/x  proven".to_owned(), "denied".to_owned()]);
        assert_eq!(table.to_string().lines().count(), 2);
    }

    #[test]
    fn fields_are_aligned() {
        let mut fields = Fields::default();
        fields.add("a", 1);
        fields.add("longer", "x");
        fields.add("b", "y\nproven  yes");
        assert_eq!(fields.to_string(), "a       1\nlonger  x\nb       y\n        proven  yes\n");
    }
}
