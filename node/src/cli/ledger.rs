//! `alliance ledger`: reads and verifies the ledger from its files. It never writes, and a daemon may run meanwhile.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use alliance_protocol::{
    id::{AllianceId, CrossingId},
    key::PublicKey,
    ledger::Entry,
    time::Timestamp,
};
use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use super::{
    Context, Problem, figures,
    screen::{Fields, Table, Tone, plain},
};
use crate::{exit::Exit, ledger, notes::Notes};

mod readable;

#[derive(Debug, Subcommand)]
pub(super) enum Ledger {
    /// List entries, the newest last
    #[command(after_help = "Examples:\n  alliance ledger list --last 20\n  alliance ledger list --crossing 4f0c12ab")]
    List {
        /// How many of the newest that fit
        #[arg(long, default_value_t = 50, value_name = "N")]
        last: usize,
        /// Only entries of this crossing, by its id or the beginning of it
        #[arg(long, value_name = "ID")]
        crossing: Option<String>,
        /// Only entries of this kind, such as cleared, refused, settled
        #[arg(long)]
        kind: Option<String>,
    },
    /// Show one entry, with the statements in it opened
    #[command(after_help = "Example:\n  alliance ledger show 12")]
    Show {
        /// The number of the entry; the first is 0
        number: u64,
    },
    /// Check every entry against the signed checkpoint, and that against what witnesses have signed
    #[command(after_help = "Example:\n  alliance ledger verify\n\nExits with 8 if the ledger was changed.")]
    Verify,
    /// Write the ledger to a directory as a C2SP tlog-tiles log, for a web server and for the tools of others
    ///
    /// The tiles hold hashes; with --entries the entries are written too, for everybody to read whom the server lets in.
    /// What is there already of the same log is left as it is, so that it can be done again and again.
    #[command(after_help = "Example:\n  alliance ledger publish /srv/www/tlog")]
    Publish {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Also write the entries themselves
        #[arg(long)]
        entries: bool,
    },
}

/// An entry in the form in which it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Shown {
    number: u64,
    at: Timestamp,
    kind: String,
    crossing: Option<CrossingId>,
    record: Value,
}

/// Entries read at a time while the newest are looked for.
const PAGE_ENTRIES: usize = 4096;

impl Ledger {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Problem> {
        let home = context.home()?;
        let path = home.ledger_path();
        // Statements in entries are opened under the charter of the home; without one they are shown as bytes.
        let alliance = home.charter_id();
        match self {
            Self::List { last, crossing, kind } => {
                let fits = |entry: &Shown| {
                    let id = entry.crossing.map(|id| id.to_string()).unwrap_or_default();
                    crossing.as_ref().is_none_or(|begins| !id.is_empty() && id.starts_with(begins.as_str()))
                        && kind.as_ref().is_none_or(|kind| *kind == entry.kind)
                };
                let entries = newest(&path, alliance, last, fits)?;
                Ok(context.screen.list(&entries, || table(context, &entries)))
            }
            Self::Show { number } => {
                let found = ledger::read(&path, number, 1)?.pop();
                let (number, entry) = found.ok_or_else(|| {
                    Problem::new(Exit::NotFound, format!("the ledger has no entry {number}")).hint("alliance ledger list")
                })?;
                let entry = shown(number, &entry, alliance);
                Ok(context.screen.one(&entry, || text(context, &entry)))
            }
            Self::Verify => {
                let node = home.public()?;
                let witnessed = Notes::own(&home.notes_path())?;
                let report = ledger::verify(&path, &node, witnessed.as_deref())?;
                Ok(context.screen.one(&report, || verified(context, &report)))
            }
            Self::Publish { dir, entries } => {
                let witnessed = Notes::own(&home.notes_path())?;
                let node = home.public()?;
                let published = ledger::publish(&path, &node, witnessed.as_deref(), &dir, entries)?;
                Ok(context.screen.one(&published, || {
                    let mut fields = Fields::default();
                    fields.add("log", &published.origin);
                    fields.add("verifier key", &published.verifier_key);
                    fields.add("entries", published.entries);
                    fields.add("files written", published.files);
                    fields.to_string()
                }))
            }
        }
    }
}

/// The last `count` entries that fit, oldest first, with memory for that many and one page.
fn newest(
    path: &Path,
    alliance: Option<AllianceId>,
    count: usize,
    fits: impl Fn(&Shown) -> bool,
) -> Result<Vec<Shown>, Problem> {
    let mut kept = VecDeque::new();
    let mut from = 0;
    loop {
        let page = ledger::read(path, from, PAGE_ENTRIES)?;
        let full = page.len() >= PAGE_ENTRIES;
        for (number, entry) in page {
            from = number.saturating_add(1);
            let entry = shown(number, &entry, alliance);
            if fits(&entry) {
                kept.push_back(entry);
            }
            if kept.len() > count {
                kept.pop_front();
            }
        }
        if !full {
            return Ok(kept.into());
        }
    }
}

fn shown(number: u64, entry: &Entry, alliance: Option<AllianceId>) -> Shown {
    let record = serde_json::to_value(&entry.record).unwrap_or_default();
    let (kind, fields) = match record {
        Value::Object(map) => map.into_iter().next().unwrap_or_default(),
        other => (other.as_str().unwrap_or_default().to_owned(), Value::Null),
    };
    let record = readable::opened(fields, alliance);
    Shown { number, at: entry.at, kind, crossing: readable::crossing(&record), record }
}

fn table(context: &Context, entries: &[Shown]) -> String {
    let mut table = Table::new(["entry", "recorded", "kind", "crossing", "about"]);
    for entry in entries {
        table.row([
            entry.number.to_string(),
            figures::instant(entry.at, context.now),
            entry.kind.clone(),
            entry.crossing.map(|crossing| crossing.short()).unwrap_or_default(),
            readable::about(&entry.record),
        ]);
    }
    table.to_string()
}

fn text(context: &Context, entry: &Shown) -> String {
    let mut fields = Fields::default();
    fields.add("entry", entry.number);
    fields.add("recorded", figures::instant(entry.at, context.now));
    fields.add("kind", &entry.kind);
    let record = serde_json::to_string_pretty(&entry.record).unwrap_or_default();
    format!("{fields}\n{}", plain(&record))
}

fn verified(context: &Context, report: &ledger::Report) -> String {
    let mut fields = Fields::default();
    fields.add("log", &report.origin);
    if !report.former.is_empty() {
        fields.add("keys before", figures::words(&report.former, ""));
    }
    fields.add("entries", report.entries);
    fields.add("root", report.root);
    fields.add("size", figures::size(report.bytes));
    if let Some(last) = report.last {
        fields.add("last entry", figures::instant(last, context.now));
    }
    match &report.witnessed {
        Some(witnessed) => {
            let by = figures::words(witnessed.by.iter().map(PublicKey::short), "nobody");
            let at = witnessed.at.map_or_else(String::new, |at| format!(", {}", figures::instant(at, context.now)));
            fields.add("witnessed", format!("{} entries, by {by}{at}", witnessed.entries));
        }
        None => fields.add("witnessed", "by nobody"),
    }
    if report.uncommitted_bytes > 0 {
        fields.add(
            "not committed",
            format!("{} bytes behind the last entry, no part of the ledger", report.uncommitted_bytes),
        );
    }
    format!("{}\n{fields}", context.screen.paint(Tone::Good, "the ledger is whole"))
}
