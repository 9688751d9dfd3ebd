//! What a crossing of the tour came to, as a line for people and as a JSON object for programs.

use std::{collections::BTreeSet, io::Write};

use alliance_protocol::{
    core::admin::{CrossingState, CrossingView},
    crossing::RefusalCode,
    gate::{RuleCited, RuleNature, RuleRole, Verdict},
    id::CrossingId,
    vocabulary::{Artefact, Country, Label, Purpose},
};
use serde::Serialize;

/// One crossing of the tour.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the crossing is to show.
    pub step: String,
    /// None where it did not come to a crossing, because no such offer stood.
    pub crossing: Option<CrossingId>,
    pub from: Country,
    pub to: Country,
    pub name: String,
    pub artefact: Artefact,
    pub labels: BTreeSet<Label>,
    pub purpose: Purpose,
    pub safeguards: Vec<String>,
    /// Whether both sides allowed it.
    pub allowed: bool,
    pub outcome: Outcome,
    pub rules: Vec<Rule>,
    /// Why it ended as it did, where the rules do not say.
    pub problem: Option<String>,
    pub refusal: Option<RefusalCode>,
    /// Bytes of the artefact that moved: by the receipt, or, where there is none, by the exporter's counter.
    pub bytes: u64,
    /// Bytes of artefacts that the exporter put on the wire meanwhile, by its own counter.
    pub artefact_bytes_sent: u64,
    /// Bytes of UDP payload that the exporter's bulk socket sent meanwhile.
    pub socket_bytes_sent: u64,
    pub ms: u64,
    /// What did not go as the law says, or not with the bytes; none where all did.
    pub unexpected: Option<String>,
}

/// How a crossing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// In place, every file equal to the original, receipt signed by both.
    Delivered,
    /// A decision was no; nothing moved.
    Denied,
    /// It was allowed, and the bytes were not what the manifest says.
    Tampered,
    /// It broke off.
    Failed,
}

/// A rule that decided, as far as one line goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub pack: String,
    pub id: String,
    pub role: RuleRole,
    pub nature: RuleNature,
    pub title: String,
    pub citation: String,
    pub native: String,
    pub satisfied_by: Vec<Vec<String>>,
}

impl Rule {
    fn of(verdict: &Verdict, rule: &RuleCited) -> Self {
        let names = |set: &BTreeSet<_>| {
            set.iter().map(|kind: &alliance_protocol::vocabulary::SafeguardKind| kind.to_string()).collect()
        };
        Self {
            pack: verdict.pack.to_string(),
            id: rule.id.clone(),
            role: rule.role,
            nature: rule.nature,
            title: rule.title.clone(),
            citation: rule.citation.clone(),
            native: rule.native.clone(),
            satisfied_by: rule.remedies.iter().map(names).collect(),
        }
    }

    /// The rules that decided: those that deny, if any; else those that were satisfied or permit.
    #[must_use]
    pub fn deciding(view: &CrossingView) -> Vec<Self> {
        let denied = view.verdicts.iter().any(|verdict| !verdict.allowed);
        if view.state == CrossingState::Denied && !denied {
            // This side allowed; why the other did not is in its own records.
            return Vec::new();
        }
        let mut rules: Vec<Self> = Vec::new();
        for verdict in view.verdicts.iter().filter(|verdict| verdict.allowed != denied) {
            for rule in &verdict.rules {
                let rule = Self::of(verdict, rule);
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        rules
    }
}

impl Outcome {
    /// How a crossing that is over ended.
    #[must_use]
    pub fn of(view: &CrossingView) -> Self {
        match view.state {
            CrossingState::Done => Self::Delivered,
            CrossingState::Denied => Self::Denied,
            CrossingState::Failed if view.refusal == Some(RefusalCode::Damaged) => Self::Tampered,
            CrossingState::Failed
            | CrossingState::DoneUnsettled
            | CrossingState::Reaching
            | CrossingState::Asked
            | CrossingState::Cleared
            | CrossingState::Delivering
            | CrossingState::Delivered => Self::Failed,
        }
    }
}

/// Writes the report for people.
///
/// # Errors
/// The output is closed.
pub fn print_text(out: &mut impl Write, number: usize, report: &Report) -> std::io::Result<()> {
    let words = |labels: &BTreeSet<Label>| labels.iter().map(|label| label.as_str()).collect::<Vec<_>>().join(",");
    let outcome = match report.outcome {
        Outcome::Delivered => "ALLOWED, delivered",
        Outcome::Denied => "DENIED",
        Outcome::Tampered => "ALLOWED, but the bytes were TAMPERED with: refused",
        Outcome::Failed => "FAILED",
    };
    writeln!(out, "\n{number:>2}. {}", report.step)?;
    writeln!(
        out,
        "    {} -> {}  {} `{}`  labels {}  purpose {}",
        report.from,
        report.to,
        report.artefact,
        report.name,
        words(&report.labels),
        report.purpose
    )?;
    if !report.safeguards.is_empty() {
        writeln!(out, "    safeguards presented: {}", report.safeguards.join(", "))?;
    }
    let moved = match report.bytes {
        0 => "no byte of it moved".to_owned(),
        bytes if report.outcome == Outcome::Delivered => format!("{bytes} bytes moved"),
        bytes => format!("{bytes} bytes moved, none delivered"),
    };
    writeln!(out, "    {outcome}; {moved}; {} ms", report.ms)?;
    for rule in &report.rules {
        let role = match rule.role {
            RuleRole::Denies => "denies",
            RuleRole::Satisfied => "satisfied",
            RuleRole::Permits => "permits",
        };
        let nature = match rule.nature {
            RuleNature::Law => "",
            RuleNature::Directive => " (a directive of the authority, not law)",
            RuleNature::DesignChoice => " (a choice of this project, not law)",
            RuleNature::House => " (a rule of the house, not law)",
        };
        writeln!(out, "      {} {role}: {}{nature}", rule.id, rule.title)?;
        if rule.nature == RuleNature::Law {
            writeln!(out, "        {}; {}", rule.citation, rule.native)?;
        }
        if rule.role == RuleRole::Denies {
            let sets: Vec<_> = rule.satisfied_by.iter().map(|set| set.join(" + ")).collect();
            let sets = if sets.is_empty() {
                "nothing would satisfy it".to_owned()
            } else {
                format!("would satisfy it: {}", sets.join(", or "))
            };
            writeln!(out, "        {sets}")?;
        }
    }
    if let Some(problem) = report.problem.as_ref().filter(|_| report.rules.is_empty() || report.outcome != Outcome::Denied)
    {
        writeln!(out, "      {problem}")?;
    }
    if let Some(wrong) = &report.unexpected {
        writeln!(out, "    NOT AS EXPECTED: {wrong}")?;
    }
    Ok(())
}
