//! `alliance audit`: a part of the ledger for an auditor, and what an auditor finds. Works on files, without a daemon.

use std::path::{Path, PathBuf};

use alliance_protocol::{
    audit::{
        AUDIT_FILE_BYTES_MAX, AuditFile, CrossingFound, FileFound, Match, NotAnAuditFile, NotExported, Report, Source,
        verify,
    },
    authority::Accreditation,
    charter::Chartered,
    envelope::Signed,
    key::PublicKey,
    limits,
    time::Timestamp,
    vocabulary::Country,
};
use clap::Subcommand;
use serde::Serialize;

use super::{
    Context, Problem, figures,
    screen::{Fields, Table, Tone},
};
use crate::{
    durable::{self, Existing, Readers},
    exit::Exit,
    home::Home,
    ledger,
    notes::Notes,
};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Write the part of the ledger that concerns a country to a file that proves itself
    ///
    /// It holds the crossings from and to that country and those about its people, with both sides' signed statements, this
    /// node's reasons, and the proof that each entry stands where it stands in the ledger that witnesses have signed.
    #[command(after_help = "Examples:\n  alliance audit export --country IN --since 2026-01-01 -o usp.audit\n  \
        alliance audit export --out all.audit")]
    Export {
        /// Only crossings that concern this country [default: all]
        #[arg(long, value_name = "CC")]
        country: Option<Country>,
        /// Only crossings that began on this day or later, as 2026-01-31 [default: all]
        #[arg(long, value_name = "DATE")]
        since: Option<Timestamp>,
        /// Where the file goes; -o FILE says the same
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check audit files, each by itself and the two halves of every crossing against each other
    #[command(after_help = "Examples:\n  alliance audit verify usp.audit iitb.audit\n  \
        alliance audit verify usp.audit --charter charter.alliance\n\n\
        Exits with 8 if anything is missing, altered, reordered, back-dated, forked, unwitnessed or untrusted.")]
    Verify {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The charter of the alliance, or its log, as you know it: the files must be of this alliance
        #[arg(long, value_name = "FILE")]
        charter: Option<PathBuf>,
    },
}

#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    entries: usize,
    bytes: usize,
}

impl Audit {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Problem> {
        match self {
            Self::Export { country, since, out } => {
                let out = out
                    .or_else(|| context.out.clone())
                    .ok_or_else(|| Problem::new(Exit::Usage, "say where the file goes").hint("--out FILE, or -o FILE"))?;
                export(context, &context.home()?, country, since.unwrap_or(Timestamp(0)), &out)
            }
            Self::Verify { files, charter } => {
                let known = charter.map(|path| durable::read(&path, limits::CHARTER_LOG_BYTES_MAX)).transpose()?;
                let known = known.map(|bytes| Chartered::open(&bytes)).transpose();
                let known = known.map_err(|error| Problem::of(Exit::Untrusted, &error))?;
                let files = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
                let report = verify(&files, known.as_ref());
                let other =
                    |found: &&FileFound| known.as_ref().is_some_and(|known| found.alliance != Some(known.alliance()));
                if let Some(found) = report.files.iter().find(other) {
                    let message = format!("the file of node {} is not of the alliance of that charter", found.node);
                    return Err(Problem::new(Exit::Untrusted, message));
                }
                context.screen.one(&report, || text(context, &report, known.is_some()));
                Ok(if report.findings.is_empty() { Exit::Done } else { Exit::Damaged })
            }
        }
    }
}

fn export(context: &Context, home: &Home, country: Option<Country>, since: Timestamp, out: &Path) -> Result<Exit, Problem> {
    let key = home.key()?;
    let charter = durable::read(&home.charter_path(), limits::CHARTER_LOG_BYTES_MAX)?;
    let accreditation = durable::read(&home.accreditation_path(), limits::STATEMENT_BYTES_MAX)?;
    let chartered = Chartered::open(&charter).map_err(|error| Problem::of(Exit::Untrusted, &error))?;
    let accredited = Signed::<Accreditation>::open(&accreditation, chartered.alliance());
    let member = accredited.map_err(|error| Problem::of(Exit::Untrusted, &error))?.body().member;
    // Before the ledger, which only grows: what witnesses have signed is part of what is read then.
    let (witnessed, witnesses) = (Notes::own(&home.notes_path())?, Notes::witnesses(&home.notes_path())?);
    let (checkpoint, entries) = ledger::whole(&home.ledger_path(), &key.public())?;
    let source = Source {
        node: key.public(),
        charter,
        accreditation,
        home: member,
        entries: &entries,
        checkpoint,
        witnessed,
        witnesses,
    };
    let file = source.export(country, since, context.now)?;
    let bytes = file.seal(&key);
    if bytes.len() > AUDIT_FILE_BYTES_MAX {
        let message = format!("the file would have {}, more than may be read", figures::size(bytes.len() as u64));
        return Err(Problem::new(Exit::Usage, message).hint("choose less: --country CC, --since DATE"));
    }
    durable::write(out, &bytes, Readers::Owner, Existing::Keep)?;
    let exported = Exported { file: out.to_owned(), entries: file.len(), bytes: bytes.len() };
    Ok(context.screen.one(&exported, || {
        let mut fields = Fields::default();
        fields.add("file", out.display());
        fields.add("entries", format!("{} of {}", file.len(), entries.len()));
        fields.add("size", figures::size(bytes.len() as u64));
        fields.to_string()
    }))
}

fn read(path: &Path) -> Result<AuditFile, Problem> {
    let bytes = durable::read(path, AUDIT_FILE_BYTES_MAX)?;
    AuditFile::open(&bytes).map_err(|error| {
        let exit = match error {
            NotAnAuditFile::Format(_) => Exit::Usage,
            NotAnAuditFile::TooLarge { .. } | NotAnAuditFile::Decode(_) | NotAnAuditFile::Signature(_) => Exit::Damaged,
        };
        let hint = "give files that `alliance audit export` has written";
        Problem::new(exit, format!("`{}`: {error}", path.display())).hint(hint)
    })
}

impl From<NotExported> for Problem {
    fn from(error: NotExported) -> Self {
        let hint = "alliance ledger verify says what is wrong with it";
        Self::of(Exit::Damaged, &error).hint(hint)
    }
}

fn text(context: &Context, report: &Report, anchored: bool) -> String {
    let mut files = Table::new(["node", "organisation", "country", "disclosed", "of", "witnessed", "alliance"]);
    for file in &report.files {
        let witnessed = file.witnessed.as_ref().map_or_else(String::new, |found| {
            let at = found.at.map_or_else(String::new, |at| format!(", {}", figures::instant(at, context.now)));
            format!("{} entries, by {}{at}", found.entries, figures::words(&found.by, "nobody"))
        });
        files.row([
            file.node.short(),
            file.organisation.clone(),
            file.country.map(|country| country.to_string()).unwrap_or_default(),
            format!("{} of {} entries", file.disclosed, file.entries),
            scope(file),
            witnessed,
            file.alliance.map(|alliance| alliance.to_string().chars().take(16).collect::<String>()).unwrap_or_default(),
        ]);
    }
    let mut crossings =
        Table::new(["crossing", "artefact", "from", "to", "purpose", "bytes", "outcome", "halves", "began"]);
    for found in &report.crossings {
        let country = |country: Option<Country>| country.map(|country| country.to_string()).unwrap_or_default();
        crossings.row([
            found.crossing.short(),
            found.name.clone(),
            country(found.from),
            country(found.to),
            found.purpose.map(|purpose| purpose.to_string()).unwrap_or_default(),
            found.bytes.map(figures::size).unwrap_or_default(),
            found.outcome.word(),
            halves(found).to_owned(),
            figures::instant(found.began, context.now),
        ]);
    }
    let mut out = format!("{files}\n");
    for file in report.files.iter().filter(|file| !file.former.is_empty()) {
        let before = figures::words(file.former.iter().map(PublicKey::short), "");
        out.push_str(&format!("node {} had these keys before: {before}\n", file.node.short()));
    }
    if report.crossings.is_empty() {
        out.push_str("\nno crossing is in these files\n");
    } else {
        out.push_str(&format!("\n{crossings}\n"));
    }
    if report.findings.is_empty() {
        out.push_str(&context.screen.paint(Tone::Good, "\nEverything in these files holds."));
        if report.crossings.iter().any(|found| matches!(found.halves, Match::OneGiven | Match::NotCovered)) {
            out.push_str(" Of some crossings the other half was not given.");
        }
        if !anchored {
            out.push_str(" Whether this alliance is the one you know was not asked: --charter FILE.");
        }
        return out;
    }
    let mut findings = Table::new(["finding", "in the ledger of", "crossing", "what"]);
    for finding in &report.findings {
        let file = report.files.iter().find(|file| file.node == finding.node);
        findings.row([
            finding.kind.to_string(),
            file.map_or_else(|| finding.node.short(), |file| format!("{} {}", file.organisation, finding.node.short())),
            finding.crossing.map(|crossing| crossing.short()).unwrap_or_default(),
            finding.what.clone(),
        ]);
    }
    out.push_str(&format!("\n{findings}\n"));
    out.push_str(&context.screen.paint(Tone::Bad, "\nNot everything in these files holds."));
    out
}

/// What a file says that it covers.
fn scope(file: &FileFound) -> String {
    let country = file.scope.map_or_else(|| "everything".to_owned(), |country| format!("what concerns {country}"));
    if file.since.0 == 0 { country } else { format!("{country}, since {}", file.since) }
}

const fn halves(found: &CrossingFound) -> &'static str {
    match found.halves {
        Match::Both => "both agree",
        Match::OneGiven => "one given",
        Match::NotCovered => "one, not covered by the other file",
        Match::OneExpected => "one, no other expected",
        Match::Wrong => "wrong",
    }
}
