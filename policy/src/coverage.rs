//! Which rule of the researched law is encoded where, and why one is not: the table behind `alliance policy coverage`.
//!
//! A list of facts, kept beside the packs and checked against them. It decides nothing.

use std::sync::LazyLock;

use alliance_protocol::obligation::Obligation;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// What became of one rule of the researched law.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Covered {
    /// Its id, by which the Cedar rules are named.
    pub id: String,
    /// The country, or `BX` for what concerns all of them.
    pub country: String,
    pub title: String,
    /// How it stands in the legal order.
    pub status: Standing,
    /// First and last day in force, where they are known.
    pub from: Option<Date>,
    pub until: Option<Date>,
    pub disposition: Disposition,
    /// The duties that come with it.
    pub duties: Vec<Obligation>,
    /// The Cedar rules that carry it.
    pub rules: Vec<String>,
    /// Why it is not simply encoded.
    pub reason: String,
}

/// How a rule stands in the legal order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    InForce,
    /// In force, while an act, a list or an authority that it needs is missing.
    InForceDormant,
    NotCommenced,
    Draft,
    Unverified,
    SoftLaw,
    /// What authorities do, without the force of law.
    Practice,
    /// A choice of this project.
    DesignChoice,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// A rule forbids by it.
    Encoded,
    /// It is carried as a duty, or cited as an exemption.
    Obligation,
    /// A machine cannot decide it.
    NotEncodable,
    /// A draft, or not verified: never a rule.
    NotInForce,
    /// Soft law or practice: never a rule of law.
    NotLaw,
    /// Kept apart from law, in the baseline or in directives.
    Choice,
}

static TABLE: LazyLock<Result<Vec<Covered>, String>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../coverage.json")).map_err(|error| error.to_string()));

/// The table, in the order of the research.
///
/// # Errors
/// The table that the program was built with cannot be read.
pub fn coverage() -> Result<&'static [Covered], &'static str> {
    match &*TABLE {
        Ok(table) => Ok(table),
        Err(error) => Err(error),
    }
}

impl Standing {
    /// The word in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::InForceDormant => "in force, dormant",
            Self::NotCommenced => "not commenced",
            Self::Draft => "draft",
            Self::Unverified => "unverified",
            Self::SoftLaw => "soft law",
            Self::Practice => "practice",
            Self::DesignChoice => "design choice",
        }
    }
}

impl Disposition {
    /// The word in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encoded => "encoded",
            Self::Obligation => "obligation",
            Self::NotEncodable => "not encodable",
            Self::NotInForce => "not in force",
            Self::NotLaw => "not law",
            Self::Choice => "choice, kept apart",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use alliance_protocol::gate::{Gate as _, Pack, PackOwner, RuleRole};

    use super::*;
    use crate::{CedarGate, FOUNDING_MEMBERS, baseline, founding_pack_text};

    /// Rules of this project that stand for nothing in the research: residuals, choices and an example of a directive.
    fn is_own(id: &str) -> bool {
        id.ends_with("-00") || ["BX-08", "BX-09", "IN-D01"].contains(&id)
    }

    fn every_rule() -> BTreeMap<String, RuleRole> {
        let member = |code: &str| {
            let country = code.parse().expect("a country");
            let (law, directives) = founding_pack_text(country).expect("a pack");
            Pack::new(PackOwner::Member(country), 1, law, directives)
        };
        let packs = FOUNDING_MEMBERS.iter().map(|code| member(code)).chain([baseline()]);
        let summaries = packs.map(|pack| CedarGate::new().check(&pack).expect("a pack that can be used"));
        summaries.flat_map(|summary| summary.rules).map(|rule| (rule.id.clone(), rule.role)).collect()
    }

    #[test]
    fn the_table_and_the_packs_name_the_same_rules() {
        let (table, rules) = (coverage().expect("a table"), every_rule());
        let mut named = BTreeSet::new();
        for entry in table {
            for rule in &entry.rules {
                assert!(rules.contains_key(rule), "{}: there is no rule {rule}", entry.id);
                assert!(rule.starts_with(&entry.id) || rule.contains("-D"), "{} is carried by {rule}", entry.id);
                assert!(named.insert(rule.clone()), "{rule} stands twice");
            }
        }
        let unnamed: Vec<_> = rules.keys().filter(|id| !named.contains(*id) && !is_own(id)).collect();
        assert!(unnamed.is_empty(), "rules that no entry names: {unnamed:?}");
    }

    #[test]
    fn every_disposition_is_what_the_packs_do() {
        let rules = every_rule();
        for entry in coverage().expect("a table") {
            let forbids = entry.rules.iter().any(|id| rules[id] == RuleRole::Denies);
            let allowed = match entry.status {
                Standing::InForce | Standing::InForceDormant | Standing::NotCommenced => match entry.disposition {
                    Disposition::Encoded => forbids,
                    Disposition::Obligation => !forbids && !entry.rules.is_empty(),
                    Disposition::NotEncodable => entry.rules.is_empty(),
                    // UN measures whose force members dispute are a default of the project.
                    Disposition::Choice => entry.id == "BX-04",
                    Disposition::NotInForce | Disposition::NotLaw => false,
                },
                Standing::Draft | Standing::Unverified => {
                    entry.disposition == Disposition::NotInForce && entry.rules.is_empty()
                }
                Standing::Practice => entry.disposition == Disposition::NotLaw && entry.rules.is_empty(),
                Standing::SoftLaw | Standing::DesignChoice => match entry.disposition {
                    Disposition::Choice => true,
                    Disposition::NotLaw => entry.rules.is_empty(),
                    _ => false,
                },
            };
            assert!(allowed, "{}: {:?} {:?} {:?}", entry.id, entry.status, entry.disposition, entry.rules);
            let explained = !entry.reason.is_empty() || entry.disposition == Disposition::Encoded;
            assert!(explained, "{} is not explained", entry.id);
        }
    }

    #[test]
    fn rules_of_law_begin_when_the_research_says() {
        let mut since = BTreeMap::new();
        for code in FOUNDING_MEMBERS {
            let country = code.parse().expect("a country");
            let (law, _) = founding_pack_text(country).expect("a pack");
            let pack = Pack::new(PackOwner::Member(country), 1, law, "");
            let rules = CedarGate::new().check(&pack).expect("a pack that can be used").rules;
            since.extend(rules.into_iter().map(|rule| (rule.id.clone(), rule.since.clone())));
        }
        for entry in coverage().expect("a table").iter().filter(|entry| entry.country != "BX") {
            for rule in entry.rules.iter().filter(|rule| !rule.contains("-D")) {
                assert_eq!(since[rule], entry.from.expect("a rule of law has a day").to_string(), "{rule}");
            }
        }
    }

    #[test]
    fn every_rule_of_the_research_is_there_once() {
        let table = coverage().expect("a table");
        let ids: BTreeSet<_> = table.iter().map(|entry| &entry.id).collect();
        assert_eq!((ids.len(), table.len()), (118, 118));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        table.iter().for_each(|entry| *counts.entry(&entry.country).or_default() += 1);
        let expected = [
            ("AE", 7),
            ("BR", 12),
            ("BX", 7),
            ("CN", 20),
            ("EG", 6),
            ("ET", 6),
            ("ID", 7),
            ("IN", 15),
            ("IR", 6),
            ("RU", 17),
            ("SA", 7),
            ("ZA", 8),
        ];
        assert_eq!(counts, expected.into());
        for (at, entry) in table.iter().enumerate() {
            let number = table.iter().take(at).filter(|other| other.country == entry.country).count() + 1;
            assert_eq!(entry.id, format!("{}-{number:02}", entry.country));
        }
    }
}
