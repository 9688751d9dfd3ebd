//! The words in which a crossing is put to Cedar: the schema, its types, and the question built from the facts.
//!
//! It passes on facts as they are. It derives none, and no rule lives here.

use std::{
    collections::BTreeSet,
    str::FromStr,
    sync::{Arc, LazyLock},
};

use alliance_protocol::{
    gate::{Action, Facts, PackOwner, Party},
    time::Timestamp,
    vocabulary::{Country, SafeguardKind},
};
use cedar_policy::{Context, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema};

/// The schema of every law pack.
pub const SCHEMA: &str = include_str!("../alliance.cedarschema");

/// What every evaluation needs of the schema, made once.
#[derive(Debug)]
pub(crate) struct Language {
    pub(crate) schema: Schema,
    organisation: EntityTypeName,
    artefact: EntityTypeName,
    label: EntityTypeName,
    purpose: EntityTypeName,
    use_: EntityTypeName,
    safeguard: EntityTypeName,
    role: EntityTypeName,
    country: EntityTypeName,
    action: EntityTypeName,
}

/// The question could not be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LanguageError {
    #[error("the schema cannot be used: {0}")]
    Schema(Arc<str>),
    #[error("the crossing cannot be put to a pack: {0}")]
    Question(String),
}

/// Which safeguards are shown to the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Safeguards,
    /// Tells which rules the safeguards satisfied.
    None,
}

static LANGUAGE: LazyLock<Result<Language, LanguageError>> = LazyLock::new(|| Language::read(SCHEMA));

/// The language of the schema that the program comes with.
pub(crate) fn language() -> Result<&'static Language, LanguageError> {
    LANGUAGE.as_ref().map_err(Clone::clone)
}

impl Language {
    fn read(schema: &str) -> Result<Self, LanguageError> {
        fn named(name: &str) -> Result<EntityTypeName, LanguageError> {
            EntityTypeName::from_str(name).map_err(|error| LanguageError::Schema(error.to_string().into()))
        }
        let (schema, _warnings) =
            Schema::from_cedarschema_str(schema).map_err(|error| LanguageError::Schema(error.to_string().into()))?;
        Ok(Self {
            schema,
            organisation: named("Organisation")?,
            artefact: named("Artefact")?,
            label: named("Label")?,
            purpose: named("Purpose")?,
            use_: named("Use")?,
            safeguard: named("Safeguard")?,
            role: named("Role")?,
            country: named("Country")?,
            action: named("Action")?,
        })
    }

    /// The question whether `owner`'s pack allows the crossing, checked against the schema.
    pub(crate) fn question(
        &self,
        owner: PackOwner,
        action: Action,
        facts: &Facts,
        at: Timestamp,
        shown: Shown,
    ) -> Result<Request, LanguageError> {
        let (safeguards, mutual) = match shown {
            Shown::Safeguards => (safeguards_before(owner, facts), mutual_safeguards(facts)),
            Shown::None => (BTreeSet::new(), BTreeSet::new()),
        };
        let context = [
            ("time", RestrictedExpression::new_datetime(at.to_string())),
            ("from", self.party(&facts.from)?),
            ("to", self.party(&facts.to)?),
            ("labels", set(&self.label, facts.labels.iter().map(|label| label.as_str()))),
            ("origin", one(&self.country, facts.origin.as_str())),
            ("subjects", set(&self.country, facts.subjects.iter().map(Country::as_str))),
            ("purpose", one(&self.purpose, facts.purpose.as_str())),
            ("use", one(&self.use_, facts.use_.as_str())),
            ("safeguards", set(&self.safeguard, safeguards.iter().map(|kind| kind.as_str()))),
            ("mutual_safeguards", set(&self.safeguard, mutual.iter().map(|kind| kind.as_str()))),
        ];
        let context = Context::from_pairs(context.map(|(name, value)| (name.to_owned(), value))).map_err(question)?;
        Request::new(
            uid(&self.organisation, &facts.to.organisation),
            self.action(action),
            uid(&self.artefact, facts.artefact.as_str()),
            context,
            Some(&self.schema),
        )
        .map_err(question)
    }

    pub(crate) fn action(&self, action: Action) -> EntityUid {
        uid(&self.action, action.as_str())
    }

    fn party(&self, party: &Party) -> Result<RestrictedExpression, LanguageError> {
        let fields = [
            ("organisation", one(&self.organisation, &party.organisation)),
            ("country", one(&self.country, party.country.as_str())),
            ("zone", RestrictedExpression::new_string(party.zone.clone().unwrap_or_default())),
            ("roles", set(&self.role, party.roles.iter().map(|role| role.as_str()))),
            ("controlled_by", one(&self.country, party.controlled_by.as_str())),
            ("state_controlled", RestrictedExpression::new_bool(party.state_controlled)),
        ];
        RestrictedExpression::new_record(fields.map(|(name, value)| (name.to_owned(), value))).map_err(question)
    }
}

/// Whether any safeguard is shown to `owner`'s pack.
pub(crate) fn shows_safeguards(owner: PackOwner, facts: &Facts) -> bool {
    !safeguards_before(owner, facts).is_empty() || !mutual_safeguards(facts).is_empty()
}

/// A member's law counts what its own authority issued. The baseline and house rules, which only tighten, see all.
fn safeguards_before(owner: PackOwner, facts: &Facts) -> BTreeSet<SafeguardKind> {
    match owner {
        PackOwner::Member(country) => facts.safeguards.get(&country).cloned().unwrap_or_default(),
        PackOwner::Alliance | PackOwner::House => facts.safeguards.values().flatten().copied().collect(),
    }
}

fn mutual_safeguards(facts: &Facts) -> BTreeSet<SafeguardKind> {
    match (facts.safeguards.get(&facts.from.country), facts.safeguards.get(&facts.to.country)) {
        (Some(from), Some(to)) => from & to,
        _ => BTreeSet::new(),
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn one(kind: &EntityTypeName, id: &str) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid(kind, id))
}

fn set<'a>(kind: &EntityTypeName, ids: impl Iterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(ids.map(|id| one(kind, id)))
}

fn question(error: impl std::error::Error) -> LanguageError {
    LanguageError::Question(error.to_string())
}

#[cfg(test)]
mod tests {
    use alliance_protocol::vocabulary::{Artefact, Label, OrganisationRole, Purpose, Use};

    use super::*;

    /// The words of `entity NAME enum [..]` in the schema.
    fn words(name: &str) -> BTreeSet<&'static str> {
        let start = format!("entity {name} enum [");
        let (_, rest) = SCHEMA.split_once(&start).expect("the type is in the schema");
        let (list, _) = rest.split_once("];").expect("the list ends");
        list.split(',').map(|word| word.trim().trim_matches('"')).collect()
    }

    #[test]
    fn the_schema_knows_exactly_the_vocabulary() {
        assert_eq!(words("Artefact"), Artefact::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Label"), Label::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Purpose"), Purpose::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Use"), Use::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Safeguard"), SafeguardKind::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Role"), OrganisationRole::ALL.iter().map(|w| w.as_str()).collect());
        let codes = (b'A'..=b'Z').flat_map(|a| (b'A'..=b'Z').map(move |b| [a, b]));
        let codes: BTreeSet<String> = codes
            .map(|code| code.iter().map(|b| char::from(*b)).collect())
            .filter(|c: &String| c.parse::<Country>().is_ok())
            .collect();
        assert_eq!(words("Country"), codes.iter().map(String::as_str).collect());
    }

    #[test]
    fn the_schema_can_be_used() {
        assert!(language().is_ok());
        assert!(matches!(Language::read("entity Organisation enum [];"), Err(LanguageError::Schema(_))));
    }
}
