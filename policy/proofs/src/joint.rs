//! One policy set for a crossing from X to Y: it denies exactly where X's export rules, Y's import rules or the baseline
//! do. Each member's rules see only what its own authority issued or banned.

use std::collections::BTreeSet;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, SchemaFragment};
use serde_json::{Value, json};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum JointError {
    #[error("the schema cannot be extended: {0}")]
    Schema(String),
    #[error("rule {0} cannot be rewritten: {1}")]
    Rule(PolicyId, String),
    #[error("rule {0} uses `{1}` in a way that has no equivalent for two members")]
    Use(PolicyId, String),
    #[error("the rules do not make one set: {0}")]
    Set(String),
}

/// Whose rules, and so whose safeguards and bans they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The member the artefact leaves.
    X,
    /// The member it enters.
    Y,
    /// The alliance: what any authority issued, what those of both ends issued, what any banned.
    Baseline,
}

impl Side {
    fn prefix(self) -> &'static str {
        match self {
            Self::X => "x",
            Self::Y => "y",
            Self::Baseline => "baseline",
        }
    }
}

/// Of the attributes that differ by member: one for X, one for Y and one for everybody else.
const SPLIT: [&str; 2] = ["safeguards", "regulator_ban"];
const SUFFIXES: [&str; 3] = ["x", "y", "other"];

/// The schema with `safeguards` and `regulator_ban` split by member, and `cross` as its only action.
pub(crate) fn joint_schema(source: &str) -> Result<Schema, JointError> {
    let failed = |error: &dyn std::fmt::Display| JointError::Schema(error.to_string());
    let (fragment, _) = SchemaFragment::from_cedarschema_str(source).map_err(|error| failed(&error))?;
    let mut schema = fragment.to_json_value().map_err(|error| failed(&error))?;
    let missing = |what: &str| JointError::Schema(format!("{what} is missing"));
    // The namespace without a name is "".
    let attributes = schema
        .pointer_mut("//commonTypes/Crossing/attributes")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| missing("Crossing"))?;
    for name in SPLIT {
        let kind = attributes.remove(name).ok_or_else(|| missing(name))?;
        for suffix in SUFFIXES {
            attributes.insert(format!("{name}_{suffix}"), kind.clone());
        }
    }
    attributes.remove("mutual_safeguards");
    let actions = schema.pointer_mut("//actions").and_then(Value::as_object_mut).ok_or_else(|| missing("actions"))?;
    let export = actions.remove("export").ok_or_else(|| missing("export"))?;
    actions.clear();
    actions.insert("cross".to_owned(), export);
    Schema::from_json_value(schema).map_err(|error| failed(&error))
}

/// The rules of one side that forbid the action, rewritten.
pub(crate) fn forbids(pack: &PolicySet, side: Side, action: &str) -> Result<Vec<Policy>, JointError> {
    let mut rewritten = Vec::new();
    for policy in pack.policies().filter(|policy| policy.effect() == Effect::Forbid) {
        if let Some(policy) = rewrite(policy, side, action)? {
            rewritten.push(policy);
        }
    }
    Ok(rewritten)
}

/// The rules as a set that allows what none of them forbids.
pub(crate) fn set(rules: impl IntoIterator<Item = Policy>) -> Result<PolicySet, JointError> {
    let failed = |error: &dyn std::fmt::Display| JointError::Set(error.to_string());
    let residual = Policy::parse(Some(PolicyId::new("residual")), "permit (principal, action, resource);")
        .map_err(|error| failed(&error))?;
    PolicySet::from_policies(rules.into_iter().chain([residual])).map_err(|error| failed(&error))
}

/// The rule for the action `cross`; None where it does not apply to the action.
fn rewrite(policy: &Policy, side: Side, action: &str) -> Result<Option<Policy>, JointError> {
    let failed = |error: &dyn std::fmt::Display| JointError::Rule(policy.id().clone(), error.to_string());
    let mut rule = policy.to_json().map_err(|error| failed(&error))?;
    let is = |entity: &Value| entity.get("id").and_then(Value::as_str) == Some(action);
    let scope = rule.get("action").cloned().unwrap_or_default();
    let applies = match scope.get("op").and_then(Value::as_str) {
        Some("All") => true,
        Some("==") => scope.get("entity").is_some_and(is),
        Some("in") => {
            scope.get("entity").is_some_and(is)
                || scope.get("entities").and_then(Value::as_array).is_some_and(|entities| entities.iter().any(is))
        }
        _ => return Err(failed(&"unknown action constraint")),
    };
    if !applies {
        return Ok(None);
    }
    if let Some(action) = rule.get_mut("action") {
        *action = json!({ "op": "All" });
    }
    let conditions = rule.get_mut("conditions").ok_or_else(|| failed(&"no conditions"))?;
    *conditions = split(conditions.take(), side).map_err(|what| JointError::Use(policy.id().clone(), what))?;
    let id = annotation(policy, "id").unwrap_or_else(|| policy.id().to_string());
    Policy::from_json(Some(PolicyId::new(format!("{}:{id}", side.prefix()))), rule)
        .map(Some)
        .map_err(|error| failed(&error))
}

fn annotation(policy: &Policy, name: &str) -> Option<String> {
    policy.annotation(name).map(ToOwned::to_owned)
}

fn context(name: &str) -> Value {
    json!({ ".": { "left": { "Var": "context" }, "attr": name } })
}

fn context_attribute(expression: &Value) -> Option<&str> {
    let access = expression.get(".")?;
    if access.get("left")?.get("Var")?.as_str()? != "context" {
        return None;
    }
    access.get("attr")?.as_str()
}

fn joined(operator: &str, terms: Vec<Value>) -> Option<Value> {
    terms.into_iter().reduce(|left, right| json!({ operator: { "left": left, "right": right } }))
}

/// Replaces every use of a split attribute. The error is the attribute that cannot be replaced.
fn split(expression: Value, side: Side) -> Result<Value, String> {
    if let Some(name) = context_attribute(&expression) {
        let name = name.to_owned();
        return match (side, name.as_str()) {
            (Side::X, name) if SPLIT.contains(&name) => Ok(context(&format!("{name}_x"))),
            (Side::Y, name) if SPLIT.contains(&name) => Ok(context(&format!("{name}_y"))),
            (Side::Baseline, "regulator_ban") => {
                let bans = SUFFIXES.iter().map(|suffix| context(&format!("regulator_ban_{suffix}"))).collect();
                joined("||", bans).ok_or(name)
            }
            (_, "safeguards" | "mutual_safeguards") => Err(name),
            _ => Ok(expression),
        };
    }
    if let Some(replaced) = split_union(&expression, side)? {
        return Ok(replaced);
    }
    match expression {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| Ok((name, split(value, side)?)))
            .collect::<Result<serde_json::Map<_, _>, String>>()
            .map(Value::Object),
        Value::Array(values) => {
            values.into_iter().map(|value| split(value, side)).collect::<Result<_, _>>().map(Value::Array)
        }
        other => Ok(other),
    }
}

/// Cedar has no union or intersection of sets, but it has them of tests: an element is in the union of the safeguards
/// (what any authority issued) when it is in one of them, and in the intersection (mutual) when it is in X's and in Y's.
fn split_union(expression: &Value, side: Side) -> Result<Option<Value>, String> {
    for test in ["contains", "containsAny", "containsAll"] {
        let Some(call) = expression.get(test) else { continue };
        let (Some(left), Some(right)) = (call.get("left"), call.get("right")) else { continue };
        let Some(name) = context_attribute(left) else { continue };
        let (suffixes, each): (&[&str], &str) = match (side, name) {
            (Side::Baseline, "safeguards") => (&SUFFIXES, "||"),
            (_, "mutual_safeguards") => (&SUFFIXES[..2], "&&"),
            _ => continue,
        };
        let elements = match (test, right.get("Set")) {
            ("contains", _) => vec![right.clone()],
            (_, Some(Value::Array(elements))) => elements.clone(),
            _ => return Err(name.to_owned()),
        };
        let over_elements = if test == "containsAll" { "&&" } else { "||" };
        let terms = elements
            .iter()
            .filter_map(|element| {
                let places = suffixes
                    .iter()
                    .map(|suffix| json!({ "contains": { "left": context(&format!("safeguards_{suffix}")), "right": element } }))
                    .collect();
                joined(each, places)
            })
            .collect();
        return joined(over_elements, terms).map(Some).ok_or_else(|| name.to_owned());
    }
    Ok(None)
}

/// The rules with one attribute replaced by a set of every word: as if that party held everything.
pub(crate) fn with_everything(
    rules: &[Policy],
    attribute: &str,
    words: &BTreeSet<String>,
) -> Result<Vec<Policy>, JointError> {
    fn replace(expression: Value, attribute: &str, everything: &Value) -> Value {
        if context_attribute(&expression) == Some(attribute) {
            return everything.clone();
        }
        match expression {
            Value::Object(fields) => Value::Object(
                fields.into_iter().map(|(name, value)| (name, replace(value, attribute, everything))).collect(),
            ),
            Value::Array(values) => {
                Value::Array(values.into_iter().map(|value| replace(value, attribute, everything)).collect())
            }
            other => other,
        }
    }
    let words: Vec<_> =
        words.iter().map(|word| json!({ "Value": { "__entity": { "type": "Safeguard", "id": word } } })).collect();
    let everything = json!({ "Set": words });
    rules
        .iter()
        .map(|policy| {
            let failed = |error: &dyn std::fmt::Display| JointError::Rule(policy.id().clone(), error.to_string());
            let rule = policy.to_json().map_err(|error| failed(&error))?;
            Policy::from_json(Some(policy.id().clone()), replace(rule, attribute, &everything))
                .map_err(|error| failed(&error))
        })
        .collect()
}
