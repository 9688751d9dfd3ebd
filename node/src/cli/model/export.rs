//! `alliance model export`: a copy of a model for people who have no node, with a card and the signed statements of the crossing
//! by which it came.

use std::path::{Path, PathBuf};

use alliance_protocol::{
    core::admin::{AdminCall, LocalModel, Reply},
    crossing::{ClearanceGiven, CrossingRequest, Receipt},
    envelope::{Signed, Statement},
    id::{AllianceId, CrossingId, StatementId},
    ledger::{Entry, Record},
    model_signing::SIGNATURE_FILE,
    offer::Offer,
    time::Timestamp,
};
use serde::Serialize;

use super::{
    super::{
        Context, Problem, crossing, figures,
        problem::{disk, unexpected},
        progress,
        screen::Fields,
        status,
        words::Name,
    },
    find,
};
use crate::{
    api::ApiClient,
    exit::Exit,
    ledger,
    models::{
        SourceError,
        card::{
            CARD_FILE,
            written::{Came, Passport},
        },
        export::{Export, ExportError},
        load_manifest,
    },
};

/// The stem of the file with the signed statements.
const STATEMENTS_STEM: &str = "alliance-receipt";

/// What was written, and what whoever has the copy should know.
#[derive(Debug, Serialize)]
struct Exported {
    name: String,
    to: PathBuf,
    files: u32,
    bytes: u64,
    /// Under which name the card lies that the model had.
    original_card: Option<String>,
    crossing: Option<CrossingId>,
    /// The file with the signed statements of the crossing.
    statements: Option<String>,
    delete_by: Option<Timestamp>,
    notes: Vec<String>,
}

/// The signed statements of the crossings by which a model came.
#[derive(Debug, Serialize)]
struct Statements {
    /// The name of this form, with its version.
    format: &'static str,
    alliance: AllianceId,
    crossings: Vec<Crossed>,
}

#[derive(Debug, Serialize)]
struct Crossed {
    crossing: CrossingId,
    statements: Vec<SignedStatement>,
}

/// A statement as it was signed (`specs/01-statements.md`).
#[derive(Debug, Serialize)]
struct SignedStatement {
    kind: &'static str,
    id: StatementId,
    /// In hexadecimal digits.
    bytes: String,
}

pub(super) async fn run(context: &Context, daemon: &ApiClient, name: &Name, to: &Path) -> Result<Exit, Problem> {
    let model = readable(daemon, name).await?;
    let manifest = load_manifest(&context.home()?.manifests_path(), model.manifest)?;
    let crossed = match model.crossing {
        Some(crossing) => Some(gather(context, daemon, crossing).await?),
        None => None,
    };
    let bar = progress::bytes_bar(&context.screen, "copying");
    let (shown, from, wanted, compared) = (bar.clone(), model.path.clone(), to.to_owned(), manifest.clone());
    let copying = tokio::task::spawn_blocking(move || {
        Export::copy(&from, &compared, &wanted, &mut |done, total| {
            shown.set_length(total);
            shown.set_position(done);
        })
    });
    let export = copying.await.map_err(|error| Problem::of(Exit::Failed, &error))?;
    bar.finish_and_clear();
    let mut export = export?;
    let came = crossed.map(|(came, statements)| add_statements(&mut export, came, &statements)).transpose()?;
    let original_card = export.original_card().map(str::to_owned);
    let passport = Passport { model: &model, original_card: original_card.as_deref(), came: came.as_ref() };
    let kept = export.write_card(&passport)?;
    // Copying takes a while, and a duty may have fallen due meanwhile.
    if readable(daemon, name).await?.manifest != model.manifest {
        let message = format!("`{name}` was imported again while it was copied");
        return Err(Problem::new(Exit::TryAgain, message).hint("export it again"));
    }
    let to = export.finish()?;
    let signed = manifest.files().iter().any(|file| file.path == SIGNATURE_FILE);
    let exported = Exported {
        notes: notes(&model, came.as_ref(), original_card.as_deref(), kept, signed),
        name: model.name,
        to,
        files: model.files,
        bytes: model.bytes,
        original_card,
        crossing: model.crossing,
        statements: came.as_ref().map(|came| came.statements.clone()),
        delete_by: came.as_ref().and_then(|came| came.delete_by),
    };
    Ok(context.screen.one(&exported, || text(context, &exported)))
}

/// A model whose bytes may be read here now.
async fn readable(daemon: &ApiClient, name: &Name) -> Result<LocalModel, Problem> {
    let model = find(daemon, name).await?;
    let readable = match daemon.call(&AdminCall::ReadableModels).await? {
        Reply::Models(models) => models,
        _ => return Err(unexpected()),
    };
    permitted(model, &readable)
}

/// A model that lies here, if it is among those that may be read.
fn permitted(model: LocalModel, readable: &[LocalModel]) -> Result<LocalModel, Problem> {
    if readable.iter().any(|other| (&other.name, &other.path) == (&model.name, &model.path)) {
        return Ok(model);
    }
    let message = format!("`{}` has to be deleted by now, as a duty says; nobody reads it any more", model.name);
    let problem = Problem::new(Exit::Denied, message);
    Err(match model.crossing {
        Some(crossing) => problem.hint(format!("alliance crossing show {}", crossing.short())),
        None => problem,
    })
}

/// How a model came, and what was signed of it, from this node's records.
async fn gather(context: &Context, daemon: &ApiClient, lead: CrossingId) -> Result<(Came, Statements), Problem> {
    let view = crossing::ask(daemon, lead).await?;
    let serving = match daemon.call(&AdminCall::Sources(lead)).await? {
        Reply::Crossings(crossings) => crossings,
        _ => return Err(unexpected()),
    };
    let alliance = status::ask(daemon).await?.alliance;
    let home = context.home()?;
    let (_, entries) = ledger::whole(&home.ledger_path(), &home.public()?)?;
    let missing = |what: &str| {
        Problem::new(Exit::Damaged, format!("the ledger has no {what} of crossing {lead}, by which the model came"))
            .hint("alliance ledger verify")
    };
    let mut crossings = Vec::new();
    // The first that was asked comes first.
    let ids = std::iter::once(lead).chain(serving.iter().map(|view| view.crossing).filter(|other| *other != lead));
    for crossing in ids {
        let signed = signed_in(&entries, crossing);
        // One that was refused moved nothing.
        if signed.clearance.is_some() {
            crossings.push(Crossed { crossing, statements: signed.statements(alliance)? });
        }
    }
    let signed = signed_in(&entries, lead);
    let facts = view.facts.as_ref().ok_or_else(|| missing("decision"))?;
    let clearance = Signed::<ClearanceGiven>::open(signed.clearance.ok_or_else(|| missing("clearance"))?, alliance)?;
    let request = Signed::<CrossingRequest>::open(signed.request.ok_or_else(|| missing("request"))?, alliance)?;
    let receipt = signed.receipt.map(|bytes| Signed::<Receipt>::open(bytes, alliance)).transpose()?;
    let came = Came {
        crossing: lead,
        exporter: clearance.body().exporter,
        organisation: facts.from.organisation.clone(),
        country: facts.from.country,
        purpose: clearance.body().purpose,
        use_: request.body().use_,
        cleared: clearance.body().validity.from,
        clearance: clearance.id(),
        receipt: receipt.map(|receipt| receipt.id()),
        statements: String::new(),
        delete_by: view.delete_by,
    };
    Ok((came, Statements { format: "alliance-receipt-1", alliance, crossings }))
}

/// What both sides signed of one crossing, as it is recorded.
#[derive(Clone, Copy, Debug, Default)]
struct SignedIn<'a> {
    offer: Option<&'a [u8]>,
    request: Option<&'a [u8]>,
    clearance: Option<&'a [u8]>,
    receipt: Option<&'a [u8]>,
}

fn signed_in(entries: &[Entry], crossing: CrossingId) -> SignedIn<'_> {
    let mut found = SignedIn::default();
    for entry in entries.iter().filter(|entry| entry.record.crossing() == Some(crossing)) {
        match &entry.record {
            Record::Requested { request, offer, .. } => {
                (found.request, found.offer) = (Some(request.as_slice()), Some(offer.as_slice()));
            }
            Record::ClearanceAccepted { clearance, .. } => found.clearance = Some(clearance.as_slice()),
            // The one with both signatures comes later.
            Record::Received { receipt, .. } | Record::Settled { receipt, .. } => found.receipt = Some(receipt.as_slice()),
            _ => {}
        }
    }
    found
}

impl SignedIn<'_> {
    /// Verified, in the order in which they were signed.
    fn statements(self, alliance: AllianceId) -> Result<Vec<SignedStatement>, Problem> {
        let all = [
            signed_statement::<Offer>(self.offer, alliance)?,
            signed_statement::<CrossingRequest>(self.request, alliance)?,
            signed_statement::<ClearanceGiven>(self.clearance, alliance)?,
            signed_statement::<Receipt>(self.receipt, alliance)?,
        ];
        Ok(all.into_iter().flatten().collect())
    }
}

fn signed_statement<T: Statement>(bytes: Option<&[u8]>, alliance: AllianceId) -> Result<Option<SignedStatement>, Problem> {
    let Some(bytes) = bytes else { return Ok(None) };
    let id = Signed::<T>::open(bytes, alliance)?.id();
    Ok(Some(SignedStatement { kind: T::KIND, id, bytes: hex::encode(bytes) }))
}

fn add_statements(export: &mut Export, came: Came, statements: &Statements) -> Result<Came, Problem> {
    let file = export.free_name(STATEMENTS_STEM, "json");
    let mut json = serde_json::to_vec_pretty(statements).map_err(|error| Problem::of(Exit::Failed, &error))?;
    json.push(b'\n');
    export.add(&file, &json)?;
    Ok(Came { statements: file, ..came })
}

fn notes(model: &LocalModel, came: Option<&Came>, original: Option<&str>, kept: bool, signed: bool) -> Vec<String> {
    let mut notes = vec![match came.and_then(|came| came.delete_by) {
        Some(due) => format!(
            "a duty says that it has to be deleted by {due}: the node deletes what it keeps, and this copy is yours to delete"
        ),
        None => "the copy is outside the node's care: whoever takes it away answers for where it goes".to_owned(),
    }];
    if let (Some(original), false) = (original, kept) {
        notes.push(format!("the card has a new front matter: the old one could not be kept, and is in `{original}`"));
    }
    if signed {
        notes.push(format!("`{SIGNATURE_FILE}` is of the files as they came: it does not hold for this directory"));
    }
    if model.parts.len() > 1 {
        notes.push("parts of it have labels of their own; the card has those of all of it".to_owned());
    }
    notes
}

fn text(context: &Context, exported: &Exported) -> String {
    let mut fields = Fields::default();
    fields.add("name", &exported.name);
    fields.add("to", exported.to.display());
    fields.add("copied", format!("{} files, {}, each byte compared", exported.files, figures::size(exported.bytes)));
    let original = exported.original_card.as_ref().map(|original| format!("; as it was: {original}")).unwrap_or_default();
    fields.add("card", format!("{CARD_FILE}{original}"));
    if let (Some(crossing), Some(statements)) = (exported.crossing, &exported.statements) {
        fields.add("crossing", crossing);
        fields.add("statements", statements);
    }
    if let Some(due) = exported.delete_by {
        fields.add("to be deleted", figures::instant(due, context.now));
    }
    let notes: String = exported.notes.iter().map(|note| format!("\nnote: {note}")).collect();
    format!("exported\n{fields}{}", notes.trim_start_matches('\n'))
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        let exit = match &error {
            ExportError::Occupied(_) => Exit::Conflict,
            ExportError::Name(_) | ExportError::Inside(_) => Exit::Usage,
            ExportError::Disk { source, .. } => disk(source),
            ExportError::Source(SourceError::Length { .. } | SourceError::Changed { .. } | SourceError::Tree(_)) => {
                Exit::Damaged
            }
            ExportError::Source(SourceError::Read { .. }) => Exit::Disk,
            ExportError::Source(SourceError::Group { .. }) => Exit::Failed,
        };
        let problem = Self::of(exit, &error);
        if exit == Exit::Damaged { problem.hint("alliance model verify NAME says what differs") } else { problem }
    }
}

#[cfg(test)]
mod tests {
    use alliance_protocol::{crossing::LedgerHead, id::Sha256, key::SecretKey, vocabulary::Label};

    use super::*;
    use crate::models::{
        import,
        import::tests::{model, request},
    };

    const HERE: AllianceId = AllianceId([7; 32]);
    const CROSSING: CrossingId = CrossingId([3; 32]);

    fn local() -> LocalModel {
        let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let model = import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
        LocalModel { crossing: Some(CROSSING), ..model }
    }

    #[test]
    fn what_should_be_deleted_is_not_copied() {
        let model = local();
        assert_eq!(permitted(model.clone(), std::slice::from_ref(&model)).expect("readable"), model);
        let elsewhere = LocalModel { path: "/elsewhere".into(), ..model.clone() };
        for readable in [vec![], vec![elsewhere]] {
            let problem = permitted(model.clone(), &readable).expect_err("overdue");
            assert_eq!((problem.exit, problem.hint.as_str()), (Exit::Denied, "alliance crossing show 03030303"));
        }
    }

    #[test]
    fn the_receipt_with_both_signatures_is_the_one_that_is_given() {
        let (importer, exporter) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let receipt = Receipt {
            crossing: CROSSING,
            clearance: StatementId([4; 32]),
            exporter: exporter.public(),
            importer: importer.public(),
            manifest: local().manifest,
            bytes: 1,
            held_bytes: 0,
            ledger: LedgerHead { size: 1, root: Sha256([6; 32]) },
            finished: Timestamp(1),
        };
        let first = Signed::sign(&receipt, HERE, &importer).expect("signed").bytes().to_vec();
        let later = Signed::sign(&Receipt { bytes: 2, ..receipt }, HERE, &importer).expect("signed").bytes().to_vec();
        let entry = |record| Entry { at: Timestamp(1), record };
        let entries = [
            entry(Record::Received { crossing: CROSSING, receipt: first.into(), part: None }),
            entry(Record::Settled { crossing: CROSSING, receipt: later.clone().into() }),
            entry(Record::Settled { crossing: CrossingId([9; 32]), receipt: vec![1].into() }),
        ];
        let signed = signed_in(&entries, CROSSING);
        assert_eq!(signed.receipt, Some(later.as_slice()));
        let statements = signed.statements(HERE).expect("they verify");
        assert_eq!(statements.iter().map(|statement| statement.kind).collect::<Vec<_>>(), ["receipt"]);
        assert_eq!(statements[0].bytes, hex::encode(&later));
        assert!(signed.statements(AllianceId([8; 32])).is_err(), "of another alliance");
    }

    #[test]
    fn who_takes_a_copy_away_is_told_what_it_means() {
        let model = local();
        let only = notes(&model, None, None, false, false);
        assert_eq!(only.len(), 1);
        let mut parts = model.parts.clone();
        parts.push(alliance_protocol::manifest::Part { labels: [Label::Health].into(), ..parts[0].clone() });
        let all = notes(&LocalModel { parts, ..model }, None, Some("README.original.md"), false, true).join("\n");
        for said in ["answers for where it goes", "`README.original.md`", "`model.sig`", "labels of their own"] {
            assert!(all.contains(said), "{said}: {all}");
        }
    }
}
