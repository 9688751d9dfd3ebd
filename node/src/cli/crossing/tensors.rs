//! `alliance crossing show --tensors`: what was decided of each tensor of an artefact, from the record and the manifest.

use std::{collections::BTreeSet, sync::Arc};

use alliance_protocol::{
    border::PartDecided,
    core::admin::CrossingView,
    gate::{RuleRole, Verdict},
    manifest::{Manifest, SegmentKind},
    vocabulary::Label,
};
use serde::Serialize;

use super::super::{Context, Problem, figures, screen::Table};
use crate::{
    exit::Exit,
    models::{LoadError, load_manifest},
};

/// What was decided of one tensor, or of a file or a header that has no tensor.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct TensorDecided<'a> {
    file: &'a str,
    /// The state of the whole crossing: what the law says of a tensor alone does not let it cross.
    crossing: &'static str,
    /// None for a header, and for a file without tensors.
    tensor: Option<&'a str>,
    bytes: u64,
    labels: &'a BTreeSet<Label>,
    /// Whether it was decided on at all.
    asked: bool,
    allowed: bool,
    /// The rules that denied it, with their packs.
    denied_by: &'a [String],
}

/// Shows what was decided of each tensor of a crossing.
pub(super) fn show(context: &Context, view: &CrossingView) -> Result<Exit, Problem> {
    if view.parts.is_empty() {
        let message = "it did not come to asking the law, so nothing was decided of any tensor".to_owned();
        return Err(Problem::new(Exit::NotFound, message).hint(format!("alliance crossing show {}", view.crossing.short())));
    }
    let manifest = load_manifest(&context.home()?.manifests_path(), view.manifest).map_err(|error| match error {
        LoadError::Missing(id) => {
            let message =
                format!("manifest {id} is not here; it comes with the artefact, so what was denied has none here");
            Problem::new(Exit::NotFound, message)
                .hint(format!("the parts are recorded: alliance crossing show {}", view.crossing.short()))
        }
        other => other.into(),
    })?;
    let left_out = view.left_out.iter().map(|left_out| {
        let by = against(&view.against, left_out);
        (left_out, if by.is_empty() { vec!["the exporter".to_owned()] } else { by })
    });
    let said: Vec<(&PartDecided, Vec<String>)> =
        view.parts.iter().map(|decided| (decided, denied_by(&view.verdicts, decided))).chain(left_out).collect();
    let tensors = decided(&manifest, &said, super::state(view.state), view.partial)?;
    Ok(context.screen.list(&tensors, || {
        // The law may allow each tensor and not all of them together; terms and duties are not asked of tensors at all.
        let outcome = match (&view.refusal, &view.problem) {
            (Some(code), Some(problem)) => format!("\nthe crossing as a whole was refused ({code}): {problem}"),
            (Some(code), None) => format!("\nthe crossing as a whole was refused ({code})"),
            (None, _) => String::new(),
        };
        format!("{}{outcome}", table(&tensors))
    }))
}

/// What spoke against a part that was left out: the rules that deny it, and the packs that demand a duty that is not met.
pub(super) fn against(verdicts: &[Arc<Verdict>], decided: &PartDecided) -> Vec<String> {
    let duties = decided.of(verdicts).filter(|verdict| verdict.permits());
    let duties = duties.map(|verdict| format!("{} (a duty is not met)", verdict.pack));
    denied_by(verdicts, decided).into_iter().chain(duties).collect()
}

/// The rules that deny a part, with their packs; the pack alone where no rule did. Empty where every pack allows it.
pub(super) fn denied_by(verdicts: &[Arc<Verdict>], decided: &PartDecided) -> Vec<String> {
    let mut by = Vec::new();
    for verdict in decided.of(verdicts).filter(|verdict| !verdict.permits()) {
        let rules: Vec<&str> =
            verdict.rules.iter().filter(|rule| rule.role == RuleRole::Denies).map(|rule| rule.id.as_str()).collect();
        by.push(match rules.as_slice() {
            [] => verdict.pack.to_string(),
            rules => format!("{} ({})", verdict.pack, rules.join(" ")),
        });
    }
    by
}

fn decided<'a>(
    manifest: &'a Manifest,
    said: &'a [(&'a PartDecided, Vec<String>)],
    crossing: &'static str,
    partial: bool,
) -> Result<Vec<TensorDecided<'a>>, Problem> {
    let own = manifest.own_labels();
    let mut all = Vec::new();
    for file in manifest.files() {
        for segment in &file.segments {
            let labels = segment.labels_in(own);
            let found = said.iter().find(|(decided, _)| decided.part.labels == *labels);
            let asked = found.is_some();
            let denied_by = found.map(|(_, by)| by.as_slice()).or(partial.then_some(&[]));
            let Some(denied_by) = denied_by else {
                let message = format!("manifest {} has labels that were not decided on", manifest.id());
                return Err(Problem::new(Exit::Damaged, message).hint("alliance ledger verify"));
            };
            let tensor = match &segment.kind {
                SegmentKind::Tensor { name, .. } => Some(name.as_str()),
                SegmentKind::Header | SegmentKind::Opaque => None,
            };
            let (file, bytes) = (file.path.as_str(), segment.bytes);
            let allowed = asked && denied_by.is_empty();
            all.push(TensorDecided { crossing, file, tensor, bytes, labels, asked, allowed, denied_by });
        }
    }
    Ok(all)
}

fn table(tensors: &[TensorDecided<'_>]) -> String {
    let mut table = Table::new(["file", "tensor", "size", "labels", "decided", "denied by"]);
    for tensor in tensors {
        table.row([
            tensor.file.to_owned(),
            tensor.tensor.unwrap_or("-").to_owned(),
            figures::size(tensor.bytes),
            figures::words(tensor.labels, "none"),
            match (tensor.asked, tensor.allowed) {
                (false, _) => "not asked",
                (true, true) => "allowed",
                (true, false) => "denied",
            }
            .to_owned(),
            figures::words(tensor.denied_by, ""),
        ]);
    }
    table.to_string()
}
