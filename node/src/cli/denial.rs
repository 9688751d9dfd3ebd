//! What a person reads when law packs were asked: per pack the verdict, the rules with their citations, and what would
//! satisfy those that deny. Pure: verdicts in, text out.

use std::{borrow::Borrow, fmt::Write as _, sync::Arc};

use alliance_policy::Remedy;
use alliance_protocol::{
    core::admin::CrossingView,
    gate::{Facts, PackOwner, RuleCited, RuleNature, RuleRole, Verdict},
    obligation::{Duty, Obligation},
};

use super::{figures, screen::plain};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// The packs that deny, and why.
    Denials,
    /// Every pack asked, with the rules that decided and the duties that come with a crossing.
    All,
}

/// One line: what was to cross, from where to where, for what.
pub(super) fn route(facts: &Facts) -> String {
    let Facts { from, to, artefact, purpose, use_, .. } = facts;
    let organisation = |name: &str| if name.is_empty() { String::new() } else { format!(" ({name})") };
    plain(&format!(
        "{artefact} from {}{} to {}{}, for {purpose}, {use_}",
        from.country,
        organisation(&from.organisation),
        to.country,
        organisation(&to.organisation),
    ))
}

/// What the packs said.
pub(super) fn verdicts<V: Borrow<Verdict>>(verdicts: &[V], detail: Detail) -> String {
    let mut out = String::new();
    for verdict in verdicts.iter().map(Borrow::borrow).filter(|verdict| detail == Detail::All || !verdict.allowed) {
        one_pack(&mut out, verdict, detail);
    }
    out
}

/// What would turn a denial into permission: from each pack one of its smallest sets of safeguards.
pub(super) fn ways_out(remedies: Option<&[Remedy]>) -> String {
    let mut out = String::new();
    let Some(remedies) = remedies else {
        line(
            &mut out,
            0,
            "nothing would make it allowed: a rule that denies admits no safeguard, or a pack could not be asked",
        );
        return out;
    };
    line(&mut out, 0, "what would make it allowed:");
    for remedy in remedies {
        let issuer = match remedy.pack {
            PackOwner::Member(country) => format!("issued by the authority of {country}"),
            PackOwner::Alliance => "issued by the authorities of both ends".to_owned(),
            PackOwner::House => "for the rules of the house, issued by any authority".to_owned(),
        };
        match remedy.any_of.as_slice() {
            [only] => line(&mut out, 2, &format!("{}, {issuer}", figures::words(only, "nothing"))),
            several => {
                line(&mut out, 2, &format!("any one of these, {issuer}:"));
                several.iter().for_each(|set| line(&mut out, 4, &figures::words(set, "nothing")));
            }
        }
    }
    out
}

/// A crossing that did not happen, for the one who asked for it.
pub(super) fn crossing(view: &CrossingView) -> String {
    let mut out = String::new();
    let code = view.refusal.map(|code| format!(" ({code})")).unwrap_or_default();
    let problem = view.problem.as_deref().unwrap_or("no reason was given");
    line(&mut out, 0, &format!("denied{code}: {} may not cross: {problem}", view.name));
    if let Some(facts) = &view.facts {
        line(&mut out, 2, &route(facts));
        line(&mut out, 2, &format!("labels: {}", figures::words(&facts.labels, "none")));
    }
    line(&mut out, 2, &format!("crossing {}", view.crossing));
    let said = verdicts(&view.verdicts, Detail::Denials);
    if !said.is_empty() {
        out.push('\n');
        out.push_str(&said);
    }
    if !view.safeguards_ignored.is_empty() {
        out.push_str("\nsafeguards that did not count:\n");
        for ignored in &view.safeguards_ignored {
            line(&mut out, 2, ignored);
        }
    }
    out
}

fn one_pack(out: &mut String, verdict: &Verdict, detail: Detail) {
    let said = if verdict.allowed { "allows" } else { "denies" };
    let pack = owner(verdict.pack);
    line(out, 0, &format!("{pack}, asked about {}, {said} (epoch {})", verdict.action.as_str(), verdict.epoch));
    if let Some(error) = &verdict.error {
        line(out, 2, &format!("it could not be asked, and what cannot be asked denies: {error}"));
    }
    let told = |rule: &&Arc<RuleCited>| detail == Detail::All || rule.role == RuleRole::Denies;
    for rule in verdict.rules.iter().filter(told) {
        one_rule(out, verdict.pack, rule, detail);
    }
    if verdict.rules.iter().filter(|rule| rule.role == RuleRole::Denies).count() > 1 {
        line(out, 2, "each of these rules must be satisfied");
    }
    if verdict.rules.is_empty() && verdict.error.is_none() && !verdict.allowed {
        line(out, 2, "no rule permits it, and what is not permitted is denied");
    }
    if detail == Detail::All && !verdict.obligations.is_empty() {
        line(out, 2, "duties that come with it:");
        for duty in &verdict.obligations {
            line(out, 4, &duty_text(duty));
        }
    }
}

/// A duty, with what the node does about it.
pub(super) fn duty_text(duty: &Obligation) -> String {
    let enforced = match duty.duty() {
        Duty::Approval { officers } => format!(" (enforced: nothing is cleared before {officers} officers have approved)"),
        Duty::DeleteWithin { .. } | Duty::RetainAtMost { .. } => {
            " (enforced: the importer's node deletes it then)".to_owned()
        }
        Duty::Require(evidence) => format!(" (enforced: nothing is cleared unless `{evidence}` is declared)"),
        Duty::Told => String::new(),
    };
    format!("{duty}{enforced}")
}

fn one_rule(out: &mut String, pack: PackOwner, rule: &RuleCited, detail: Detail) {
    let did = match rule.role {
        RuleRole::Denies => "denies",
        RuleRole::Satisfied => "is satisfied",
        RuleRole::Permits => "permits",
    };
    line(out, 2, &format!("{} {did}: {}", rule.id, rule.title));
    let nature = match rule.nature {
        RuleNature::Law => "law",
        RuleNature::Directive => "directive of the authority, not a statute",
        RuleNature::DesignChoice => "choice of the alliance, not law",
        RuleNature::House => "rule of this house, not law",
    };
    line(out, 4, &format!("{nature}: {}", rule.citation));
    if !rule.native.is_empty() && rule.native != rule.citation {
        line(out, 4, &format!("original: {}", rule.native));
    }
    if !rule.since.is_empty() {
        line(out, 4, &format!("in force since {}", rule.since));
    }
    if detail == Detail::All && !rule.confidence.is_empty() {
        line(out, 4, &format!("confidence of the encoding: {}", rule.confidence));
    }
    if rule.role == RuleRole::Denies {
        remedies(out, pack, rule);
    }
}

fn remedies(out: &mut String, pack: PackOwner, rule: &RuleCited) {
    let issuer = match pack {
        PackOwner::Member(country) => format!(", issued by the authority of {country}"),
        PackOwner::Alliance | PackOwner::House => String::new(),
    };
    match rule.remedies.as_slice() {
        [] => line(out, 4, "no safeguard satisfies it"),
        [only] => line(out, 4, &format!("what would satisfy it: {}{issuer}", figures::words(only, "nothing more"))),
        several => {
            line(out, 4, &format!("what would satisfy it, any one of these{issuer}:"));
            for set in several {
                line(out, 6, &figures::words(set, "nothing more"));
            }
        }
    }
}

fn owner(pack: PackOwner) -> String {
    match pack {
        PackOwner::Alliance => "the baseline of the alliance".to_owned(),
        PackOwner::Member(country) => format!("the law of {country}"),
        PackOwner::House => "the rules of this house".to_owned(),
    }
}

/// Text of packs may hold line ends; they are indented like the rest.
fn line(out: &mut String, indent: usize, text: &str) {
    for part in plain(text).lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:indent$}{part}", "");
    }
}

#[cfg(test)]
mod tests;
