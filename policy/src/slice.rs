//! Which rules can speak to a crossing at all: what is certain about a condition without asking Cedar.
//!
//! A rule is passed over only where a part of its condition that must hold certainly does not. Where the parts that are
//! understood here all hold, Cedar is asked about the rest of the rule. Everything else is "perhaps", and Cedar is asked about
//! it. Cedar's answer stays what it would be of the whole rule; a test compares both over a million crossings.

use std::collections::BTreeSet;

use alliance_protocol::{
    gate::{Facts, Volume},
    time::Timestamp,
    vocabulary::{Artefact, Circumstance, Country, Label, OrganisationRole, Purpose, Use, Zone},
};
use serde_json::Value;

/// Nesting of one condition that is looked at; what lies deeper is "perhaps".
const DEPTH_MAX: usize = 48;

/// Which end of a crossing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    From,
    To,
}

/// Which people of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Ordinary,
    Sensitive,
}

/// What is known of a condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Known {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// One of these labels is there.
    Label(BTreeSet<Label>),
    Circumstance(BTreeSet<Circumstance>),
    Role(End, BTreeSet<OrganisationRole>),
    Artefact(BTreeSet<Artefact>),
    Purpose(BTreeSet<Purpose>),
    Use(BTreeSet<Use>),
    Country(End, BTreeSet<Country>),
    Controller(End, BTreeSet<Country>),
    Origin(BTreeSet<Country>),
    /// Somebody of these countries is concerned.
    Subject(BTreeSet<Country>),
    NoSubject,
    /// At least so many people.
    People(Counted, i64),
    /// None stands for the country outside its zones.
    Zone(End, BTreeSet<Option<Zone>>),
    Ban,
    StateControlled(End),
    /// At this instant or after it.
    Since(Timestamp),
    Perhaps,
}

/// What of a crossing is looked at here.
pub(crate) struct Look<'a> {
    pub(crate) facts: &'a Facts,
    /// That of the facts; none where it could be any.
    pub(crate) volume: Option<Volume>,
    pub(crate) ban: bool,
    pub(crate) at: Timestamp,
}

/// A policy, taken apart.
pub(crate) struct Parts {
    /// What is known of its `when` clauses.
    pub(crate) known: Known,
    /// The policy without the parts of its `when` clauses that are wholly understood, for any action: where `known` is not
    /// certainly false, it holds exactly if the whole does. An `unless` stays in it.
    pub(crate) rest: Value,
}

/// Takes a policy apart that cannot fail. One that can is left whole, and everything about it is "perhaps".
pub(crate) fn parts(policy: &Value) -> Parts {
    let mut rest = policy.clone();
    if let Some(action) = rest.get_mut("action") {
        *action = serde_json::json!({ "op": "All" });
    }
    if can_fail(policy) {
        return Parts { known: Known::Perhaps, rest };
    }
    let mut known = Vec::new();
    if let Some(conditions) = rest.get_mut("conditions").and_then(Value::as_array_mut) {
        for clause in conditions.iter_mut().filter(|clause| clause.get("kind").and_then(Value::as_str) == Some("when")) {
            let Some(body) = clause.get_mut("body") else { continue };
            let mut left: Option<Value> = None;
            let mut conjuncts = Vec::new();
            conjoined(body, DEPTH_MAX, &mut conjuncts);
            for conjunct in conjuncts {
                let of = read(&conjunct, DEPTH_MAX);
                if !of.is_certain() {
                    left = Some(match left {
                        None => conjunct,
                        Some(before) => serde_json::json!({ "&&": { "left": before, "right": conjunct } }),
                    });
                }
                known.push(of);
            }
            *body = left.unwrap_or_else(|| serde_json::json!({ "Value": true }));
        }
    }
    Parts { known: Known::All(known), rest }
}

/// The parts of a condition that must all hold, in their order.
fn conjoined(expression: &Value, depth: usize, into: &mut Vec<Value>) {
    match (sides(expression, "&&"), depth.checked_sub(1)) {
        (Some((left, right)), Some(depth)) => {
            conjoined(left, depth, into);
            conjoined(right, depth, into);
        }
        _ => into.push(expression.clone()),
    }
}

impl Known {
    /// Whether [`Known::holds`] always says yes or no where the volume is known.
    fn is_certain(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().all(Self::is_certain),
            Self::Not(inner) => inner.is_certain(),
            Self::Perhaps => false,
            Self::Label(_)
            | Self::Circumstance(_)
            | Self::Role(..)
            | Self::Artefact(_)
            | Self::Purpose(_)
            | Self::Use(_)
            | Self::Country(..)
            | Self::Controller(..)
            | Self::Origin(_)
            | Self::Subject(_)
            | Self::NoSubject
            | Self::People(..)
            | Self::Zone(..)
            | Self::Ban
            | Self::StateControlled(_)
            | Self::Since(_) => true,
        }
    }

    /// Whether it holds, or `None` where that is for Cedar to say, or for whoever knows the volume.
    pub(crate) fn holds(&self, look: &Look<'_>) -> Option<bool> {
        let facts = look.facts;
        let end = |end: &End| match end {
            End::From => &facts.from,
            End::To => &facts.to,
        };
        Some(match self {
            Self::All(parts) => {
                let mut certain = true;
                for part in parts {
                    match part.holds(look) {
                        Some(false) => return Some(false),
                        Some(true) => {}
                        None => certain = false,
                    }
                }
                return certain.then_some(true);
            }
            Self::Any(parts) => {
                let mut certain = true;
                for part in parts {
                    match part.holds(look) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => certain = false,
                    }
                }
                return certain.then_some(false);
            }
            Self::Not(inner) => !inner.holds(look)?,
            Self::Label(any) => facts.labels.iter().any(|label| any.contains(label)),
            Self::Circumstance(any) => facts.circumstances.iter().any(|one| any.contains(one)),
            Self::Role(side, any) => end(side).roles.iter().any(|role| any.contains(role)),
            Self::Artefact(any) => any.contains(&facts.artefact),
            Self::Purpose(any) => any.contains(&facts.purpose),
            Self::Use(any) => any.contains(&facts.use_),
            Self::Country(side, any) => any.contains(&end(side).country),
            Self::Controller(side, any) => any.contains(&end(side).controlled_by),
            Self::Origin(any) => any.contains(&facts.origin),
            Self::Subject(any) => facts.subjects.iter().any(|country| any.contains(country)),
            Self::NoSubject => facts.subjects.is_empty(),
            Self::People(counted, least) => {
                let volume = look.volume?;
                let people = match counted {
                    Counted::Ordinary => volume.people,
                    Counted::Sensitive => volume.sensitive_people,
                };
                i64::try_from(people.get()).unwrap_or(i64::MAX) >= *least
            }
            Self::Zone(side, any) => any.contains(&end(side).zone),
            Self::Ban => look.ban,
            Self::StateControlled(side) => end(side).state_controlled,
            Self::Since(since) => look.at >= *since,
            Self::Perhaps => return None,
        })
    }
}

/// The attribute behind `context.`, and the one behind that.
enum Path<'a> {
    Context(&'a str),
    Of(End, &'a str),
    People(Counted),
    Resource,
}

fn path(expression: &Value) -> Option<Path<'_>> {
    if expression.get("Var").and_then(Value::as_str) == Some("resource") {
        return Some(Path::Resource);
    }
    let access = expression.get(".")?;
    let (left, attribute) = (access.get("left")?, access.get("attr")?.as_str()?);
    if left.get("Var").and_then(Value::as_str) == Some("context") {
        return Some(Path::Context(attribute));
    }
    match path(left)? {
        Path::Context("from") => Some(Path::Of(End::From, attribute)),
        Path::Context("to") => Some(Path::Of(End::To, attribute)),
        Path::Context("volume") => match attribute {
            "people" => Some(Path::People(Counted::Ordinary)),
            "sensitive_people" => Some(Path::People(Counted::Sensitive)),
            _ => None,
        },
        Path::Context(_) | Path::Of(..) | Path::People(_) | Path::Resource => None,
    }
}

fn sides<'a>(expression: &'a Value, operator: &str) -> Option<(&'a Value, &'a Value)> {
    let operands = expression.get(operator)?;
    Some((operands.get("left")?, operands.get("right")?))
}

fn read(expression: &Value, depth: usize) -> Known {
    understood(expression, depth).unwrap_or(Known::Perhaps)
}

fn understood(expression: &Value, depth: usize) -> Option<Known> {
    let depth = depth.checked_sub(1)?;
    let both = |(left, right): (&Value, &Value)| vec![read(left, depth), read(right, depth)];
    if let Some(operands) = sides(expression, "&&") {
        return Some(Known::All(both(operands)));
    }
    if let Some(operands) = sides(expression, "||") {
        return Some(Known::Any(both(operands)));
    }
    if let Some(inner) = expression.get("!") {
        return Some(Known::Not(Box::new(read(inner.get("arg")?, depth))));
    }
    if let Some((left, right)) = sides(expression, "==") {
        return one_of(left, [right]);
    }
    if let Some((left, right)) = sides(expression, "!=") {
        return Some(Known::Not(Box::new(one_of(left, [right])?)));
    }
    if let Some((left, right)) = sides(expression, ">=") {
        return reached(left, right);
    }
    if let Some((left, right)) = sides(expression, "<") {
        return Some(Known::Not(Box::new(reached(left, right)?)));
    }
    if let Some(inner) = expression.get("isEmpty") {
        return match path(inner.get("arg")?)? {
            Path::Context("subjects") => Some(Known::NoSubject),
            Path::Context(_) | Path::Of(..) | Path::People(_) | Path::Resource => None,
        };
    }
    if let Some((left, right)) = sides(expression, "contains") {
        return match left.get("Set").and_then(Value::as_array) {
            Some(set) => one_of(right, set),
            None => some_of(left, [right]),
        };
    }
    if let Some((left, right)) = sides(expression, "containsAny") {
        return some_of(left, right.get("Set")?.as_array()?);
    }
    match path(expression)? {
        Path::Context("regulator_ban") => Some(Known::Ban),
        Path::Of(end, "state_controlled") => Some(Known::StateControlled(end)),
        Path::Context(_) | Path::Of(..) | Path::People(_) | Path::Resource => None,
    }
}

/// A single word is one of these.
fn one_of<'a>(place: &Value, words: impl IntoIterator<Item = &'a Value>) -> Option<Known> {
    let words = words.into_iter();
    Some(match path(place)? {
        Path::Resource => Known::Artefact(parsed(words)?),
        Path::Context("purpose") => Known::Purpose(parsed(words)?),
        Path::Context("use") => Known::Use(parsed(words)?),
        Path::Context("origin") => Known::Origin(parsed(words)?),
        Path::Of(end, "country") => Known::Country(end, parsed(words)?),
        Path::Of(end, "controlled_by") => Known::Controller(end, parsed(words)?),
        Path::Of(end, "zone") => {
            let zone = |word: &Value| match id(word)? {
                "none" => Some(None),
                name => name.parse().ok().map(Some),
            };
            Known::Zone(end, words.map(zone).collect::<Option<_>>()?)
        }
        Path::Context(_) | Path::Of(..) | Path::People(_) => return None,
    })
}

/// A set of words holds one of these.
fn some_of<'a>(place: &Value, words: impl IntoIterator<Item = &'a Value>) -> Option<Known> {
    let words = words.into_iter();
    Some(match path(place)? {
        Path::Context("labels") => Known::Label(parsed(words)?),
        Path::Context("circumstances") => Known::Circumstance(parsed(words)?),
        Path::Context("subjects") => Known::Subject(parsed(words)?),
        Path::Of(end, "roles") => Known::Role(end, parsed(words)?),
        Path::Context(_) | Path::Of(..) | Path::People(_) | Path::Resource => return None,
    })
}

fn parsed<'a, T: std::str::FromStr + Ord>(mut words: impl Iterator<Item = &'a Value>) -> Option<BTreeSet<T>> {
    words.try_fold(BTreeSet::new(), |mut set, word| {
        set.insert(id(word)?.parse().ok()?);
        Some(set)
    })
}

fn id(word: &Value) -> Option<&str> {
    word.get("Value")?.get("__entity")?.get("id")?.as_str()
}

/// A quantity has reached a literal.
fn reached(left: &Value, right: &Value) -> Option<Known> {
    match path(left)? {
        Path::Context("time") => Some(Known::Since(literal_time(right)?)),
        Path::People(counted) => Some(Known::People(counted, right.get("Value")?.as_i64()?)),
        Path::Context(_) | Path::Of(..) | Path::Resource => None,
    }
}

/// The instant of a `datetime("..")`, as far as this crate reads instants like Cedar: dates, and whole seconds in UTC.
fn literal_time(expression: &Value) -> Option<Timestamp> {
    let [argument] = expression.get("datetime")?.as_array()?.as_slice() else { return None };
    let text = argument.get("Value")?.as_str()?;
    let began = |day: jiff::civil::Date| (day.year() < 1970).then_some(Timestamp(0));
    // A day before the first instant is as good as the first instant.
    text.parse().ok().or_else(|| text.parse().ok().and_then(began))
}

/// The instants at which the answer of a policy may change, or `None` where it may change at any.
pub(crate) fn turning_points(policy: &Value, into: &mut BTreeSet<Timestamp>) -> Option<()> {
    match policy {
        Value::Object(entries) => {
            for operator in [">=", "<"] {
                if let Some((left, right)) = sides(policy, operator)
                    && let Some(Path::Context("time")) = path(left)
                {
                    into.insert(literal_time(right)?);
                    return Some(());
                }
            }
            if let Some(Path::Context("time")) = path(policy) {
                return None;
            }
            entries.values().try_for_each(|value| turning_points(value, into))
        }
        Value::Array(values) => values.iter().try_for_each(|value| turning_points(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(()),
    }
}

/// Whether evaluating the policy can fail although it is valid: arithmetic overflows, and functions of extensions refuse.
pub(crate) fn can_fail(policy: &Value) -> bool {
    match policy {
        Value::Object(entries) => entries.iter().any(|(name, value)| {
            let harmless = match name.as_str() {
                "==" | "!=" | "&&" | "||" | "!" | "<" | "<=" | ">" | ">=" | "contains" | "containsAny" | "containsAll"
                | "isEmpty" | "." | "Var" | "Value" | "Set" | "left" | "right" | "arg" | "attr" | "conditions" | "kind"
                | "body" | "effect" | "principal" | "action" | "resource" | "annotations" | "op" | "entity"
                | "entities" | "__entity" | "type" | "id" | "if-then-else" | "if" | "then" | "else" | "in" | "is"
                | "entity_type" | "like" | "pattern" | "Wildcard" | "Literal" | "has" => true,
                // A literal was checked when the pack was validated.
                "datetime" => matches!(value.as_array().map(Vec::as_slice), Some([one]) if one.get("Value").is_some()),
                _ => false,
            };
            // Annotations are text, and the words of entities are names.
            !harmless || (!matches!(name.as_str(), "annotations" | "__entity") && can_fail(value))
        }),
        Value::Array(values) => values.iter().any(can_fail),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The attributes of the context that a policy looks at, by their place in `names`; all of them where it looks at the context
/// in a way that is not understood.
pub(crate) fn attributes(policy: &Value, names: &[&str]) -> u32 {
    match policy {
        Value::Object(entries) => {
            if let Some(Path::Context(name)) = path(policy) {
                return names.iter().position(|known| *known == name).map_or(u32::MAX, |place| 1 << place);
            }
            if entries.get("Var").and_then(Value::as_str) == Some("context") {
                return u32::MAX;
            }
            let inner = entries.iter().filter(|(name, _)| !matches!(name.as_str(), "annotations" | "__entity"));
            inner.fold(0, |all, (_, value)| all | attributes(value, names))
        }
        Value::Array(values) => values.iter().fold(0, |all, value| all | attributes(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;

    fn taken_apart(when: &str) -> Parts {
        let text = format!("forbid (principal, action == Action::\"export\", resource) when {{ {when} }};");
        parts(&Policy::parse(None, text).expect("a policy").to_json().expect("its JSON"))
    }

    fn rest(parts: &Parts) -> String {
        Policy::from_json(None, parts.rest.clone()).expect("a policy").to_string()
    }

    #[test]
    fn what_is_understood_is_taken_out_and_the_rest_stays() {
        let parts = taken_apart(
            "context.labels.contains(Label::\"health\") && context.volume.people >= 10 && \
             !(context.subjects.isEmpty() || context.subjects.contains(Country::\"BR\")) && \
             context.circumstances.containsAll([Circumstance::\"collection\"]) && \
             !(context.to.country == Country::\"BR\" || [Purpose::\"research\"].contains(context.purpose))",
        );
        let rest = rest(&parts);
        assert!(rest.contains("collection"), "{rest}");
        for gone in ["labels", "Country", "volume", "subjects"] {
            assert!(!rest.contains(gone), "{rest}");
        }
        assert!(!rest.contains("export"), "the chapter has chosen the action: {rest}");
    }

    #[test]
    fn a_rule_that_can_fail_stays_whole() {
        let whole = "context.labels.contains(Label::\"health\") && context.volume.people + 1 > 2";
        let parts = taken_apart(whole);
        assert_eq!(parts.known, Known::Perhaps);
        assert!(rest(&parts).contains("labels"));
    }

    #[test]
    fn what_is_half_understood_is_left_to_cedar() {
        for half in [
            "context.labels.containsAll([Label::\"health\"])",
            "context.labels == [Label::\"health\"]",
            "context.time > datetime(\"2026-01-01\")",
            "if context.regulator_ban then true else false",
            "context.to.country == context.from.country",
            "context.to == context.from",
        ] {
            let parts = taken_apart(half);
            assert!(!parts.known.is_certain(), "{half}");
            assert!(rest(&parts).contains("context"), "{half}");
        }
    }

    #[test]
    fn attributes_are_those_that_are_looked_at() {
        let names = ["time", "labels", "to"];
        let of = |when: &str| attributes(&taken_apart(when).rest, &names);
        assert_eq!(
            of("context.to == context.from && context.labels == [Label::\"health\"]"),
            u32::MAX,
            "from is not named"
        );
        assert_eq!(of("context.to == context.to && context.labels == [Label::\"health\"]"), 0b110);
        assert_eq!(of("context.labels.contains(Label::\"health\")"), 0);
    }
}
