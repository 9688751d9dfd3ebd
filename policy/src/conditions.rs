//! Whether the condition of a rule says what its annotations say: the days in force and what satisfies it.
//!
//! Reads the JSON form of a rule. It judges no crossing: that is left to Cedar.

use std::collections::BTreeSet;

use alliance_protocol::vocabulary::{SafeguardKind, UnknownWord};
use jiff::civil::Date;
use serde_json::Value;

use crate::rule::{ALTERNATIVES_MAX, Rule};

/// Nesting of `&&` and `||` in one condition. A condition of a founding pack has six.
const NESTING_MAX: usize = 64;

/// Characters and wildcards of one pattern: as long as a name may be. No founding pack has a pattern.
const PATTERN_PARTS_MAX: usize = 128;

/// The condition of a rule does not say what its annotations say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConditionError {
    #[error("the condition must say `context.time >= datetime(\"{0}\")`, because `@from` does")]
    From(Date),
    #[error("the condition must say `context.time < datetime(\"{0}\")`, because `@until` names the last day")]
    Until(Date),
    #[error("`@until` is the last day that there is")]
    Endless,
    #[error("a rule that can be satisfied needs both `unless` and `@satisfied_by`")]
    OneSided,
    #[error("`unless` is satisfied by `{found}`, but `@satisfied_by` says `{said}`")]
    SatisfiedBy { found: String, said: String },
    #[error(
        "`unless` may only name safeguards, with contains, containsAny, containsAll, && and ||; put the rest into `when`"
    )]
    NotSafeguards,
    #[error("`unless` names an unknown safeguard: {0}")]
    Safeguard(#[from] UnknownWord),
    #[error("`context` is used as a whole; name the attribute that is meant")]
    WholeContext,
    #[error("a pattern of `like` has more than {PATTERN_PARTS_MAX} characters and wildcards")]
    Pattern,
    #[error("the condition is nested too deep or has too many alternatives")]
    TooMuch,
    #[error("`context.mutual_safeguards` holds what other members issued too, which cannot satisfy a member's law")]
    Mutual,
}

type Alternatives = BTreeSet<BTreeSet<SafeguardKind>>;

/// Checks the condition of a rule, given as Cedar's JSON, against its annotations.
pub(crate) fn check(rule: &Rule, policy: &Value) -> Result<(), ConditionError> {
    let mut facts = Vec::new();
    for body in clauses(policy, "when") {
        conjuncts(body, NESTING_MAX, &mut facts)?;
    }
    if let Some(from) = rule.from
        && !facts.iter().any(|fact| compares_time(fact, ">=", from))
    {
        return Err(ConditionError::From(from));
    }
    if let Some(until) = rule.until {
        let after = until.tomorrow().map_err(|_| ConditionError::Endless)?;
        if !facts.iter().any(|fact| compares_time(fact, "<", after)) {
            return Err(ConditionError::Until(after));
        }
    }
    if rule.forbids { check_satisfaction(rule, policy) } else { Ok(()) }
}

/// Matching a pattern costs time by its length times that of the name that is matched.
pub(crate) fn patterns_are_short(policy: &Value) -> Result<(), ConditionError> {
    match policy {
        Value::Object(entries) => {
            let pattern = entries.get("like").and_then(|like| like.get("pattern")).and_then(Value::as_array);
            match pattern {
                Some(pattern) if pattern.len() > PATTERN_PARTS_MAX => Err(ConditionError::Pattern),
                _ => entries.values().try_for_each(patterns_are_short),
            }
        }
        Value::Array(values) => values.iter().try_for_each(patterns_are_short),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Every use of the context names an attribute: what a rule looks at decides what it is shown and how long its answer lasts.
pub(crate) fn names_what_it_looks_at(policy: &Value) -> Result<(), ConditionError> {
    match policy {
        Value::Object(_) if context_attribute(policy).is_some() => Ok(()),
        Value::Object(entries) if entries.get("Var").and_then(Value::as_str) == Some("context") => {
            Err(ConditionError::WholeContext)
        }
        Value::Object(entries) => entries.values().try_for_each(names_what_it_looks_at),
        Value::Array(values) => values.iter().try_for_each(names_what_it_looks_at),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// A member's law looks only at what its own authority issued.
pub(crate) fn looks_only_at_its_own(policy: &Value) -> Result<(), ConditionError> {
    match policy {
        Value::Object(_) if context_attribute(policy) == Some("mutual_safeguards") => Err(ConditionError::Mutual),
        Value::Object(entries) => entries.values().try_for_each(looks_only_at_its_own),
        Value::Array(values) => values.iter().try_for_each(looks_only_at_its_own),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Every word that a policy names, with its type.
pub(crate) fn words(policy: &Value, into: &mut BTreeSet<(String, String)>) {
    match policy {
        Value::Object(entries) => {
            let text = |entity: &Value, part: &str| entity.get(part).and_then(Value::as_str).map(str::to_owned);
            for place in ["__entity", "entity"] {
                if let Some(entity) = entries.get(place)
                    && let (Some(kind), Some(id)) = (text(entity, "type"), text(entity, "id"))
                {
                    into.insert((kind, id));
                }
            }
            entries.values().for_each(|value| words(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| words(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a policy looks at safeguards at all.
pub(crate) fn looks_at_safeguards(policy: &Value) -> bool {
    match policy {
        Value::Object(_) if matches!(context_attribute(policy), Some("safeguards" | "mutual_safeguards")) => true,
        Value::Object(entries) => entries.values().any(looks_at_safeguards),
        Value::Array(values) => values.iter().any(looks_at_safeguards),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// What people are told would satisfy a rule must be what does.
fn check_satisfaction(rule: &Rule, policy: &Value) -> Result<(), ConditionError> {
    let mut found = Alternatives::new();
    for body in clauses(policy, "unless") {
        found.extend(alternatives(body, NESTING_MAX)?);
    }
    if found.is_empty() != rule.satisfied_by.is_empty() {
        return Err(ConditionError::OneSided);
    }
    let (found, said) = (smallest(&found), smallest(&rule.satisfied_by));
    if found == said { Ok(()) } else { Err(ConditionError::SatisfiedBy { found: show(&found), said: show(&said) }) }
}

fn clauses<'a>(policy: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let conditions = policy.get("conditions").and_then(Value::as_array);
    let of_kind = move |clause: &&Value| clause.get("kind").and_then(Value::as_str) == Some(kind);
    conditions.into_iter().flatten().filter(of_kind).filter_map(|clause| clause.get("body"))
}

/// The parts of a condition that must all hold.
fn conjuncts<'a>(body: &'a Value, depth: usize, into: &mut Vec<&'a Value>) -> Result<(), ConditionError> {
    let depth = depth.checked_sub(1).ok_or(ConditionError::TooMuch)?;
    match sides(body, "&&") {
        Some((left, right)) => {
            conjuncts(left, depth, into)?;
            conjuncts(right, depth, into)
        }
        None => {
            into.push(body);
            Ok(())
        }
    }
}

fn sides<'a>(body: &'a Value, operator: &str) -> Option<(&'a Value, &'a Value)> {
    let operands = body.get(operator)?;
    Some((operands.get("left")?, operands.get("right")?))
}

fn compares_time(fact: &Value, operator: &str, day: Date) -> bool {
    let Some((left, right)) = sides(fact, operator) else { return false };
    let literal = right.get("datetime").and_then(Value::as_array).and_then(|arguments| arguments.first());
    let text = literal.and_then(|literal| literal.get("Value")).and_then(Value::as_str);
    context_attribute(left) == Some("time") && text == Some(day.to_string().as_str())
}

/// The name in `context.NAME`.
fn context_attribute(expression: &Value) -> Option<&str> {
    let access = expression.get(".")?;
    let variable = access.get("left")?.get("Var")?.as_str()?;
    (variable == "context").then_some(())?;
    access.get("attr")?.as_str()
}

/// The sets of safeguards, any one of which makes the expression true.
fn alternatives(body: &Value, depth: usize) -> Result<Alternatives, ConditionError> {
    let depth = depth.checked_sub(1).ok_or(ConditionError::TooMuch)?;
    if let Some((left, right)) = sides(body, "||") {
        let mut either = alternatives(left, depth)?;
        either.extend(alternatives(right, depth)?);
        return bounded(either);
    }
    if let Some((left, right)) = sides(body, "&&") {
        let (left, right) = (alternatives(left, depth)?, alternatives(right, depth)?);
        return bounded(left.iter().flat_map(|one| right.iter().map(move |other| one | other)).collect());
    }
    for (operator, all) in [("contains", true), ("containsAll", true), ("containsAny", false)] {
        let Some((left, right)) = sides(body, operator) else { continue };
        if !matches!(context_attribute(left), Some("safeguards" | "mutual_safeguards")) {
            return Err(ConditionError::NotSafeguards);
        }
        let named = safeguards(right)?;
        return Ok(if all { [named].into() } else { named.into_iter().map(|kind| [kind].into()).collect() });
    }
    Err(ConditionError::NotSafeguards)
}

fn bounded(alternatives: Alternatives) -> Result<Alternatives, ConditionError> {
    if alternatives.len() > ALTERNATIVES_MAX { Err(ConditionError::TooMuch) } else { Ok(alternatives) }
}

/// A literal safeguard, or a literal set of them that is not empty.
fn safeguards(expression: &Value) -> Result<BTreeSet<SafeguardKind>, ConditionError> {
    let one = |expression: &Value| {
        let entity = expression.get("Value").and_then(|value| value.get("__entity"));
        let id = entity.and_then(|entity| entity.get("id")).and_then(Value::as_str);
        Ok(id.ok_or(ConditionError::NotSafeguards)?.parse()?)
    };
    match expression.get("Set").and_then(Value::as_array) {
        Some(set) if set.is_empty() => Err(ConditionError::NotSafeguards),
        Some(set) => set.iter().map(one).collect(),
        None => Ok([one(expression)?].into()),
    }
}

/// Without the sets that contain another one.
pub(crate) fn smallest(alternatives: &Alternatives) -> Alternatives {
    let needless = |set: &&BTreeSet<_>| !alternatives.iter().any(|other| other != *set && other.is_subset(set));
    alternatives.iter().filter(needless).cloned().collect()
}

fn show(alternatives: &Alternatives) -> String {
    let one = |set: &BTreeSet<SafeguardKind>| set.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" + ");
    alternatives.iter().map(one).collect::<Vec<_>>().join(" | ")
}
