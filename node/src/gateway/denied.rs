//! A denial in one line, for people who read it in a client that shows no more. Pure: a crossing in, text out.

use std::collections::BTreeSet;

use alliance_protocol::{
    core::admin::CrossingView,
    gate::{PackOwner, RuleCited, RuleRole, Verdict},
    id::CrossingId,
    vocabulary::SafeguardKind,
};
use serde_json::{Value, json};

/// Bytes of the line. Clients show a header of this length; they refuse long ones.
pub(super) const LINE_BYTES_MAX: usize = 300;

/// Bytes of the name in it.
const NAME_BYTES_MAX: usize = 80;

/// Bytes of the citation: with a rule's name it is found.
const CITATION_BYTES_MAX: usize = 100;

/// Why files may not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) crossing: CrossingId,
    /// Which country's rule denies, where it stands, and what would satisfy it; at most [`LINE_BYTES_MAX`] of ASCII.
    pub(super) line: String,
    /// Every rule that denies, for programs.
    pub(super) rules: Value,
}

impl Denied {
    pub(super) fn of(view: &CrossingView) -> Self {
        let denying: Vec<&Verdict> = view.verdicts.iter().map(|verdict| &**verdict).filter(|it| !it.allowed).collect();
        // Law of a country first: it is what people can look up and ask for.
        let law = denying.iter().find(|verdict| matches!(verdict.pack, PackOwner::Member(_)));
        let first = law.or_else(|| denying.first());
        let rules: Vec<(PackOwner, &RuleCited)> = denying.iter().flat_map(|verdict| denying_rules(verdict)).collect();
        let begin = format!("{} may not cross: ", cut(&ascii(&view.name), NAME_BYTES_MAX));
        let end = format!("; alliance crossing show {}", view.crossing.short());
        let room = LINE_BYTES_MAX.saturating_sub(begin.len()).saturating_sub(end.len());
        let why = match first {
            Some(verdict) => because(verdict, rules.len(), room),
            None => ascii(view.problem.as_deref().unwrap_or("no reason was given")),
        };
        let rules = rules.iter().map(|(pack, rule)| {
            json!({
                "pack": pack.to_string(),
                "rule": rule.id,
                "title": rule.title,
                "citation": rule.citation,
                "satisfied_by": rule.remedies,
            })
        });
        Self { crossing: view.crossing, line: format!("{begin}{}{end}", cut(&why, room)), rules: rules.collect() }
    }
}

fn denying_rules(verdict: &Verdict) -> impl Iterator<Item = (PackOwner, &RuleCited)> {
    verdict.rules.iter().filter(|rule| rule.role == RuleRole::Denies).map(|rule| (verdict.pack, &**rule))
}

/// What one pack says, where so many rules of all packs deny.
fn because(verdict: &Verdict, rules: usize, room: usize) -> String {
    let pack = match verdict.pack {
        PackOwner::Alliance => "the baseline of the alliance".to_owned(),
        PackOwner::Member(country) => format!("the law of {country}"),
        PackOwner::House => "the rules of this house".to_owned(),
    };
    let Some((_, rule)) = denying_rules(verdict).next() else {
        return match &verdict.error {
            Some(error) => ascii(&format!("{pack} could not be asked: {error}")),
            None => format!("{pack} permits it by no rule"),
        };
    };
    let more = match rules {
        0 | 1 => String::new(),
        2 => " (and 1 more rule)".to_owned(),
        more => format!(" (and {} more rules)", more.saturating_sub(1)),
    };
    let citation = cut(&ascii(&rule.citation), CITATION_BYTES_MAX);
    let said = ascii(&format!("{pack} denies by {} ({citation}); ", rule.id));
    let room = room.saturating_sub(said.len()).saturating_sub(more.len());
    format!("{said}{}{more}", way_out(verdict.pack, &rule.remedies, room))
}

/// What would satisfy a rule: of its alternatives those for which there is room.
fn way_out(pack: PackOwner, sets: &[BTreeSet<SafeguardKind>], room: usize) -> String {
    let issuer = match pack {
        PackOwner::Member(country) => format!(" of {country}"),
        PackOwner::Alliance | PackOwner::House => String::new(),
    };
    let words: Vec<String> = sets.iter().map(together).collect();
    let of_first = |count: usize| {
        let named = words.iter().take(count).cloned().collect::<Vec<_>>().join(" or ");
        match words.len().saturating_sub(count) {
            0 => format!("satisfied by {named}{issuer}"),
            more => format!("satisfied by {named} or {more} more{issuer}"),
        }
    };
    let fitting = (1..=words.len()).rev().map(of_first).find(|text| text.len() <= room);
    fitting.unwrap_or_else(|| match words.len() {
        0 => "no safeguard satisfies it".to_owned(),
        several => format!("satisfied by {several} safeguards{issuer}"),
    })
}

fn together(set: &BTreeSet<SafeguardKind>) -> String {
    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ")
}

/// What every client takes in a header.
pub(super) fn ascii(text: &str) -> String {
    text.chars().map(|it| if it.is_ascii() && !it.is_ascii_control() { it } else { '?' }).collect()
}

/// The beginning of ASCII, with a sign that it is not all.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    text.get(..most.saturating_sub(3)).map(|begin| format!("{begin}...")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alliance_protocol::{
        core::admin::Side,
        crossing::RefusalCode,
        gate::{Action, RuleNature},
        id::{ManifestId, StatementId},
        key::PublicKey,
        time::Timestamp,
    };

    use super::*;

    fn rule(id: &str, citation: &str, remedies: &[&[&str]]) -> Arc<RuleCited> {
        let set = |words: &&[&str]| words.iter().map(|word| word.parse().expect("a safeguard")).collect();
        Arc::new(RuleCited {
            id: id.to_owned(),
            title: "A title".to_owned(),
            role: RuleRole::Denies,
            nature: RuleNature::Law,
            citation: citation.to_owned(),
            native: String::new(),
            since: String::new(),
            confidence: String::new(),
            remedies: remedies.iter().map(set).collect(),
        })
    }

    fn verdict(pack: PackOwner, rules: Vec<Arc<RuleCited>>) -> Arc<Verdict> {
        let action = Action::Export;
        Arc::new(Verdict { pack, epoch: 1, action, allowed: false, rules, obligations: [].into(), error: None })
    }

    fn denied(verdicts: Vec<Arc<Verdict>>) -> Denied {
        Denied::of(&CrossingView {
            crossing: CrossingId([0xab; 32]),
            side: Side::Importer,
            state: alliance_protocol::core::admin::CrossingState::Denied,
            peer: PublicKey([1; 32]),
            offer: StatementId([2; 32]),
            name: "isp/taiga".into(),
            manifest: ManifestId([3; 32]),
            facts: None,
            verdicts,
            parts: vec![],
            partial: false,
            left_out: vec![],
            against: vec![],
            part: None,
            refusal: Some(RefusalCode::DeniedByLaw),
            problem: Some("the offer does not admit the purpose \u{ab}research\u{bb}\r\n".into()),
            safeguards_ignored: vec![],
            began: Timestamp(0),
            ended: None,
            bytes: 0,
            total: 0,
            to: None,
            lead: None,
            delete_by: None,
            deleted: None,
        })
    }

    fn member(code: &str) -> PackOwner {
        PackOwner::Member(code.parse().expect("a country"))
    }

    #[test]
    fn the_line_names_the_country_the_rule_the_citation_and_the_way_out() {
        let remedies: [&[&str]; 2] = [&["regulator_notification", "waiting_period_elapsed"], &["regulator_approval"]];
        let law = verdict(member("RU"), vec![rule("ru-notice", "Federal Law 152-FZ, art. 12(3)", &remedies)]);
        let own = verdict(PackOwner::House, vec![rule("house-1", "", &[])]);
        let both = denied(vec![own, law]);
        let line = "isp/taiga may not cross: the law of RU denies by ru-notice (Federal Law 152-FZ, art. 12(3)); satisfied by \
                    regulator_notification + waiting_period_elapsed or regulator_approval of RU (and 1 more rule); \
                    alliance crossing show abababab";
        assert_eq!(both.line, line);
        assert_eq!(both.rules.as_array().map(Vec::len), Some(2));
        assert_eq!(both.rules[1]["satisfied_by"][1][0], "regulator_approval");
        let without = denied(vec![verdict(member("BR"), vec![])]);
        assert_eq!(
            without.line,
            "isp/taiga may not cross: the law of BR permits it by no rule; alliance crossing show abababab"
        );
        let terms = denied(vec![]);
        assert!(terms.line.contains("does not admit the purpose ?research???;"), "{}", terms.line);
    }

    #[test]
    fn the_line_fits_into_a_header_whatever_a_law_pack_says() {
        for citation in ["\u{4e2d}\u{534e}".repeat(500), "x\r\nSet-Cookie: a=b".repeat(100), String::new()] {
            for id in ["a".repeat(10), "b".repeat(1000)] {
                let line = denied(vec![verdict(member("CN"), vec![rule(&id, &citation, &[])])]).line;
                assert!(
                    line.len() <= LINE_BYTES_MAX && line.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_control())
                );
                assert!(
                    line.contains("the law of CN denies by") && line.ends_with("alliance crossing show abababab"),
                    "{line}"
                );
            }
        }
    }
}
