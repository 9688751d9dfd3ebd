//! A gate without Cedar: the text of a pack is a list of rules, one to a line, so that a test reads like a law.
//!
//! ```text
//! deny export label:state_secret             never, where the artefact has the label
//! deny-both export label:public label:genetic    never, where the artefact has both
//! deny import purpose:military               never, for the purpose
//! require export label:personal scc_br       only with the safeguard, issued by the pack's own member
//! deny-from export 1790812800000             not any more, from that instant
//! deny-until import 1790812800000            not yet, until that instant
//! deny-banned export                         where the member's authority has banned it
//! deny-people export 100000                  from so many people of this year on
//! deny-people-within import 100 200          from so many people of this year on, and below so many
//! deny export to-below:corroborated          where less is established of the importer's place
//! deny export trained-outside:BR             unless it is proven that all of it was trained there
//! duty export delete_within(24h)             allows under a duty
//! duty-on export label:gov approval(1)       allows under a duty, where the artefact has the label
//! error concern                              cannot be evaluated
//! lying-error import                         says yes and that it met an error
//! unreadable                                 `check` refuses the pack
//! ```

use std::{collections::BTreeSet, sync::Arc};

use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackError, PackOwner, PackSummary, Verdict},
    time::Timestamp,
};

#[derive(Debug, Default)]
pub(crate) struct TabledGate;

/// Whether the words name something that is true of the crossing.
fn concerns(facts: &Facts, what: &str) -> bool {
    match what.split_once(':') {
        Some(("label", label)) => facts.labels.iter().any(|known| known.as_str() == label),
        Some(("purpose", purpose)) => facts.purpose.as_str() == purpose,
        Some(("use", use_)) => facts.use_.as_str() == use_,
        Some(("to", country)) => facts.to.country.as_str() == country,
        Some(("to-below", tier)) => facts.to.tier < tier.parse().expect("a tier"),
        // Not proven, or not all of it there.
        Some(("trained-outside", country)) => {
            !facts.trained_in.as_ref().is_some_and(|all| all.iter().all(|one| one.as_str() == country))
        }
        _ => what == "all",
    }
}

fn instant(text: &str) -> Timestamp {
    Timestamp(text.parse().expect("milliseconds"))
}

impl Gate for TabledGate {
    fn judge(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> Arc<Verdict> {
        let mut yes = Verdict {
            pack: pack.owner,
            epoch: pack.epoch,
            action,
            allowed: true,
            rules: Vec::new(),
            obligations: BTreeSet::new(),
            error: None,
        };
        let no = Verdict { allowed: false, ..yes.clone() };
        let filed: BTreeSet<&str> = match pack.owner {
            PackOwner::Member(member) => {
                facts.safeguards.get(&member).into_iter().flatten().map(|(kind, _)| kind.as_str()).collect()
            }
            PackOwner::Alliance | PackOwner::House => BTreeSet::new(),
        };
        for line in pack.law.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let denied = match words[..] {
                [_, asked, ..] if asked != action.as_str() => false,
                ["deny", _, what] => concerns(facts, what),
                ["deny-both", _, one, other] => concerns(facts, one) && concerns(facts, other),
                ["require", _, what, kind] => concerns(facts, what) && !filed.contains(kind),
                ["deny-from", _, from] => at >= instant(from),
                ["deny-until", _, until] => at < instant(until),
                ["deny-banned", _] => facts.bans.iter().any(|member| pack.owner == PackOwner::Member(*member)),
                ["deny-people-within", _, from, to] => {
                    let bounds = [from, to].map(|bound| bound.parse().expect("a number"));
                    (bounds[0]..bounds[1]).contains(&facts.volume.people.get())
                }
                ["deny-people", _, from] => facts.volume.people.get() >= from.parse().expect("a number"),
                ["duty", _, words] => {
                    yes.obligations.insert(words.parse().expect("a duty"));
                    false
                }
                ["duty-on", _, what, words] => {
                    if concerns(facts, what) {
                        yes.obligations.insert(words.parse().expect("a duty"));
                    }
                    false
                }
                ["error", _] => {
                    return Verdict::failed(pack.owner, pack.epoch, action, "no such attribute".into()).into();
                }
                ["lying-error", _] => return Verdict { error: Some("no such attribute".into()), ..yes }.into(),
                _ => panic!("`{line}` is not a rule of the tests"),
            };
            if denied {
                return no.into();
            }
        }
        yes.into()
    }

    fn next_turn(&self, pack: &Pack, after: Timestamp) -> Option<Timestamp> {
        let turns = pack.law.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["deny-from" | "deny-until", _, at] => Some(instant(at)),
            _ => None,
        });
        turns.filter(|turn| *turn > after).min()
    }

    fn heeds_volume(&self, pack: &Pack, action: Action, _: &Facts, _: Timestamp) -> bool {
        pack.law.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            matches!(words[..], ["deny-people" | "deny-people-within", asked, ..] if asked == action.as_str())
        })
    }

    fn check(&self, pack: &Pack) -> Result<PackSummary, PackError> {
        if pack.law.contains("unreadable") {
            return Err(PackError { owner: pack.owner, reason: "line 1".into() });
        }
        Ok(PackSummary { owner: pack.owner, rules: Vec::new() })
    }
}
