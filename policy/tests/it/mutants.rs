//! Breaking any single rule must show: each rule is deleted, and each word, date, number and duty of it altered, one at a
//! time, and at least one vector must then come out otherwise, or the pack not load.
//!
//! `ALLIANCE_MUTANTS=all cargo test --release -p alliance-policy mutants -- --nocapture` tries all and prints how many there are and which survive.

#![expect(
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "texts are cut at ASCII that was found in them; a mistake fails the test"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use alliance_policy::{CedarGate, coverage};
use alliance_protocol::gate::{Gate, Pack, PackOwner};
use cedar_policy::PolicySet;

use crate::{
    pack,
    vectors::{Vector, owners, vectors},
};

/// A pack with one thing broken.
struct Mutant {
    what: String,
    law: String,
    directives: String,
}

/// The rules of a text, each from its `@id` to its semicolon.
fn rules(text: &str) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("@id(\"").map(|at| from + at) {
        let next = text[start + 1..].find("@id(\"").map_or(text.len(), |at| start + 1 + at);
        let end = text[start..next].rfind("};").map(|at| start + at + 2);
        let end = end.or_else(|| text[start..next].rfind(");").map(|at| start + at + 2)).expect("a rule ends");
        let id = text[start + 5..].split('"').next().expect("an id").to_owned();
        found.push((start, end, id));
        from = end;
    }
    found
}

/// Each place of a word in a code, with the code after the change.
fn replaced(code: &str, word: &str, by: &str) -> Vec<String> {
    code.match_indices(word).map(|(at, _)| format!("{}{by}{}", &code[..at], &code[at + word.len()..])).collect()
}

/// Words in quotes behind a type, as `Label::"personal"`, each taken out of its set or swapped for another.
fn word_mutants(code: &str, kind: &str, other: &str) -> Vec<(String, String)> {
    let mut mutants = Vec::new();
    for (at, _) in code.match_indices(&format!("{kind}::\"")) {
        let end = at + kind.len() + 3 + code[at + kind.len() + 3..].find('"').expect("a quote") + 1;
        let word = &code[at..end];
        let swapped = format!("{kind}::\"{other}\"");
        if word != swapped {
            mutants.push((format!("{word} becomes {other}"), format!("{}{swapped}{}", &code[..at], &code[end..])));
        }
        let (before, after) = (code[..at].trim_end(), code[end..].trim_start());
        if let Some(rest) = after.strip_prefix(',') {
            mutants.push((format!("{word} taken out"), format!("{}{rest}", &code[..at])));
        } else if before.ends_with(',') && after.starts_with(']') {
            mutants.push((format!("{word} taken out"), format!("{}{}", &before[..before.len() - 1], &code[end..])));
        }
    }
    mutants
}

/// Dates moved by a day, in the annotation and the condition alike, so that the pack still loads.
fn date_mutants(code: &str) -> Vec<(String, String)> {
    let mut mutants = Vec::new();
    for name in ["from", "until"] {
        let Some((_, rest)) = code.split_once(&format!("@{name}(\"")) else { continue };
        let day: jiff::civil::Date = rest[..10].parse().expect("a date");
        for moved in [day.tomorrow().expect("a day"), day.yesterday().expect("a day")] {
            let in_code = |day: jiff::civil::Date| match name {
                "from" => format!("datetime(\"{day}\")"),
                _ => format!("datetime(\"{}\")", day.tomorrow().expect("a day")),
            };
            let changed = code
                .replace(&format!("@{name}(\"{day}\")"), &format!("@{name}(\"{moved}\")"))
                .replace(&in_code(day), &in_code(moved));
            mutants.push((format!("@{name} {day} becomes {moved}"), changed));
        }
    }
    mutants
}

/// What satisfies a rule, with one alternative or one part of an alternative gone, in the annotation and the condition.
fn satisfaction_mutants(code: &str) -> Vec<(String, String)> {
    let Some((head, rest)) = code.split_once("@satisfied_by(\"") else { return Vec::new() };
    let (said, tail) = rest.split_once('"').expect("a quote");
    let sets: Vec<Vec<&str>> = said.split('|').map(|set| set.split('+').map(str::trim).collect()).collect();
    let mut changed: Vec<Vec<Vec<&str>>> = Vec::new();
    for at in 0..sets.len() {
        if sets.len() > 1 {
            let mut fewer = sets.clone();
            fewer.remove(at);
            changed.push(fewer);
        }
        for part in 0..sets[at].len() {
            if sets[at].len() > 1 {
                let mut fewer = sets.clone();
                fewer[at].remove(part);
                changed.push(fewer);
            }
        }
    }
    let unless = tail.rfind("unless {").expect("what can be satisfied has an unless");
    let write = |sets: Vec<Vec<&str>>| {
        let said = sets.iter().map(|set| set.join(" + ")).collect::<Vec<_>>().join(" | ");
        let mutual = if tail[unless..].contains("mutual_safeguards") { "mutual_safeguards" } else { "safeguards" };
        let one = |set: &Vec<&str>| {
            let words = set.iter().map(|kind| format!("Safeguard::\"{kind}\"")).collect::<Vec<_>>().join(", ");
            format!("context.{mutual}.containsAll([{words}])")
        };
        let condition = sets.iter().map(one).collect::<Vec<_>>().join(" || ");
        (
            format!("satisfied by {said}"),
            format!("{head}@satisfied_by(\"{said}\"{}unless {{ {condition} }};", &tail[..unless]),
        )
    };
    changed.into_iter().map(write).collect()
}

fn annotation_mutants(code: &str) -> Vec<(String, String)> {
    let mut mutants = Vec::new();
    if let Some((head, rest)) = code.split_once("@obligation(\"") {
        let (said, tail) = rest.split_once('"').expect("a quote");
        let duties: Vec<&str> = said.split(',').map(str::trim).collect();
        for at in 0..duties.len() {
            let mut fewer = duties.clone();
            let gone = fewer.remove(at);
            let text = match fewer.is_empty() {
                true => format!("{head}{}", tail.trim_start_matches([')', '\n'])),
                false => format!("{head}@obligation(\"{}\"{tail}", fewer.join(", ")),
            };
            mutants.push((format!("without the duty {gone}"), text));
        }
    }
    if let Some((head, rest)) = code.split_once("@waits(\"") {
        let (days, tail) = rest.split_once(' ').expect("a number");
        let days: u32 = days.parse().expect("a number");
        for moved in [days - 1, days + 1] {
            mutants.push((format!("waits {moved}"), format!("{head}@waits(\"{moved} {tail}")));
        }
    }
    if let Some((head, rest)) = code.split_once("@days_off(\"") {
        let (said, tail) = rest.split_once('"').expect("a quote");
        for part in said.split(", ") {
            let fewer: Vec<&str> = said.split(", ").filter(|other| *other != part).collect();
            mutants.push((format!("works on {part}"), format!("{head}@days_off(\"{}\"{tail}", fewer.join(", "))));
        }
    }
    if let Some((head, rest)) = code.split_once("@valid_for(\"") {
        let (said, tail) = rest.split_once('"').expect("a quote");
        for (n, entry) in said.split(", ").enumerate() {
            for years in ["2 years", "4 years"] {
                let changed = said.split(", ").enumerate().map(|(m, other)| match m == n {
                    true => other.replace("3 years", years),
                    false => other.to_owned(),
                });
                let changed = changed.collect::<Vec<_>>().join(", ");
                mutants.push((format!("{entry} becomes {years}"), format!("{head}@valid_for(\"{changed}\"{tail}")));
            }
        }
    }
    mutants
}

/// Operators and numbers of the condition.
fn logic_mutants(code: &str) -> Vec<(String, String)> {
    let (annotations, condition) = match code.find("\nforbid (").or_else(|| code.find("\npermit (")) {
        Some(at) => code.split_at(at),
        None => return Vec::new(),
    };
    let swaps = [
        ("&&", "||"),
        ("containsAny", "containsAll"),
        ("!=", "=="),
        (" == Country", " != Country"),
        (" == Artefact", " != Artefact"),
        (" == Purpose", " != Purpose"),
        (" == Use", " != Use"),
        (" == Zone", " != Zone"),
        ("!context", "context"),
        ("![", "["),
        ("!(", "("),
        ("context.to.", "context.from."),
        ("context.from.", "context.to."),
        ("context.regulator_ban", "!context.regulator_ban"),
        ("Action::\"export\"", "Action::\"import\""),
        ("Action::\"import\"", "Action::\"export\""),
        ("Action::\"concern\"", "Action::\"export\""),
        (">= 1000000", ">= 1000001"),
        (">= 1000000", ">= 999999"),
        (">= 100000 ", ">= 100001 "),
        (">= 100000 ", ">= 99999 "),
        ("< 100000 ", "< 100001 "),
        ("< 100000 ", "< 99999 "),
        (">= 10000)", ">= 10001)"),
        (">= 10000)", ">= 9999)"),
        (">= 1)", ">= 2)"),
        ("_people < 1 ", "_people < 2 "),
        ("volume.people", "volume.sensitive_people"),
        ("volume.sensitive_people", "volume.people"),
        ("\nforbid (", "\npermit ("),
        ("\npermit (", "\nforbid ("),
    ];
    let swapped = swaps.iter().flat_map(|(from, to)| {
        let changed = replaced(condition, from, to).into_iter().enumerate();
        changed
            .map(move |(n, code)| (format!("{} becomes {} ({n})", from.trim(), to.trim()), format!("{annotations}{code}")))
    });
    swapped.collect()
}

fn mutants(owner: &str) -> Vec<Mutant> {
    let whole = pack(owner);
    let mut mutants = Vec::new();
    for (in_law, text) in [(true, &*whole.law), (false, &*whole.directives)] {
        for (start, end, id) in rules(text) {
            let code = &text[start..end];
            let mut changed = vec![("deleted".to_owned(), String::new())];
            for (kind, other) in [
                ("Label", "commercial_secret"),
                ("Artefact", "manifest"),
                ("Purpose", "evaluation"),
                ("Use", "storage"),
                ("Role", "affiliate"),
                ("Circumstance", "in_sdf_specified"),
                ("Country", "AQ"),
                ("Zone", "AE-ADGM"),
            ] {
                changed.extend(word_mutants(code, kind, other));
            }
            changed.extend(date_mutants(code));
            changed.extend(satisfaction_mutants(code));
            changed.extend(annotation_mutants(code));
            changed.extend(logic_mutants(code));
            for (what, code) in changed {
                let text = format!("{}{code}{}", &text[..start], &text[end..]);
                let (law, directives) = match in_law {
                    true => (text, whole.directives.to_string()),
                    false => (whole.law.to_string(), text),
                };
                mutants.push(Mutant { what: format!("{id}: {what}"), law, directives });
            }
        }
    }
    mutants
}

/// Mutants that say the same as the rule, and why.
const EQUAL: [(&str, &str); 3] = [
    (
        "RU-04: satisfied by waiting_period_elapsed | vital_interest",
        "a waiting period is only seen beside its notification",
    ),
    ("IN-02: Label::\"aadhaar_biometric\" taken out", "IN-07 denies all of it, so no permit is cited"),
    ("IN-11: Label::\"aadhaar_biometric\" taken out", "IN-07 denies all of it, so no permit is cited"),
];

/// Whether the rules of a text begin on other days or carry other duties than the table of coverage says. A day before 1970
/// and a duty of a rule that nothing satisfies never show in an answer.
fn differs_from_the_table(mutant: &Mutant) -> bool {
    let mut rules: BTreeMap<String, (Option<String>, BTreeSet<String>)> = BTreeMap::new();
    for text in [&mutant.law, &mutant.directives] {
        let parsed: PolicySet = text.parse().expect("a pack that was read");
        for policy in parsed.policies() {
            let duties = policy.annotation("obligation").unwrap_or_default().split(',').map(str::trim);
            let duties = duties.filter(|duty| !duty.is_empty()).map(str::to_owned).collect();
            let id = policy.annotation("id").expect("an id").to_owned();
            rules.insert(id, (policy.annotation("from").map(str::to_owned), duties));
        }
    }
    coverage().expect("a table").iter().any(|entry| {
        let carried: Vec<_> = entry.rules.iter().filter_map(|rule| rules.get(rule)).collect();
        let duties: BTreeSet<String> = carried.iter().flat_map(|(_, duties)| duties.iter().cloned()).collect();
        let expected = entry.duties.iter().map(ToString::to_string).collect();
        let days = entry.from.map(|day| day.to_string());
        let is_law = entry.country != "BX" && !entry.rules.iter().any(|rule| rule.contains("-D"));
        !carried.is_empty()
            && entry.id != "BX-04"
            && (duties != expected || (is_law && carried.iter().any(|(from, _)| *from != days)))
    })
}

#[test]
fn the_packs_carry_the_duties_and_days_of_the_table() {
    for name in owners() {
        let whole = pack(name);
        let what = name.to_owned();
        let mutant = Mutant { what, law: whole.law.to_string(), directives: whole.directives.to_string() };
        assert!(!differs_from_the_table(&mutant), "{name}");
    }
}

/// What becomes of a mutant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Refused,
    FoundOut,
    Survives,
}

fn fate(owner: PackOwner, mutant: &Mutant, vectors: &[Vector]) -> Fate {
    let gate = CedarGate::new();
    let pack = Pack::new(owner, 1, &mutant.law, &mutant.directives);
    match gate.check(&pack) {
        Err(_) => Fate::Refused,
        // The vectors of the rule that was broken come first.
        Ok(_) => {
            let id = mutant.what.split(':').next().unwrap_or_default();
            let (about, others): (Vec<&Vector>, Vec<&Vector>) = vectors.iter().partition(|vector| vector.name.contains(id));
            let found = about.into_iter().chain(others).any(|vector| vector.differs(&gate, &pack).is_some());
            if found || differs_from_the_table(mutant) { Fate::FoundOut } else { Fate::Survives }
        }
    }
}

/// Every so many mutants are tried: all with `ALLIANCE_MUTANTS=all`, as the check script does, and a sample otherwise.
fn step() -> usize {
    if std::env::var_os("ALLIANCE_MUTANTS").is_some_and(|wanted| wanted == "all") { 1 } else { 17 }
}

#[test]
fn no_broken_rule_goes_unseen() {
    let (mut count, mut refused, mut equal, mut survivors) = (0, 0, 0, Vec::new());
    let owners: Vec<&str> = owners().collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(owners.len());
    let next = AtomicUsize::new(0);
    let fates = std::thread::scope(|scope| {
        let work = || {
            let mut fates = Vec::new();
            while let Some(name) = owners.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (owner, vectors) = (pack(name).owner, vectors(name));
                for mutant in mutants(name).into_iter().step_by(step()) {
                    fates.push((fate(owner, &mutant, &vectors), mutant.what));
                }
            }
            fates
        };
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect::<Vec<_>>()
    });
    for (fate, what) in fates {
        count += 1;
        match fate {
            Fate::Refused => refused += 1,
            Fate::FoundOut => {}
            Fate::Survives if EQUAL.iter().any(|(same, _)| *same == what) => equal += 1,
            Fate::Survives => survivors.push(what),
        }
    }
    println!(
        "{count} mutants, {refused} of them refused when they are read, {equal} that say the same, {} survive",
        survivors.len()
    );
    assert!(survivors.is_empty(), "{} of {count} mutants survive:\n{}", survivors.len(), survivors.join("\n"));
}
