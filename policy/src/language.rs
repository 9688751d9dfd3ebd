//! The words in which a crossing is put to Cedar: the schema, and the question built from the facts.
//!
//! It passes on facts as they are. It derives none, and no rule lives here. Questions are made of Cedar's own values, so
//! that nothing is parsed for a decision; that they fit the schema follows from the closed vocabulary they are made from, and
//! is tested against the validating way.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use alliance_protocol::{
    gate::{Action, Facts, Party},
    time::Timestamp,
    vocabulary::{Artefact, Circumstance, Country, Label, OrganisationRole, Purpose, SafeguardKind, Tier, Use, Zone},
};
use cedar_policy::{EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema};
use cedar_policy_core::{
    ast::{self, Eid, EntityType, EntityUIDEntry, Literal, Name, Value},
    evaluator::RestrictedEvaluator,
    extensions::Extensions,
};
use smol_str::SmolStr;

use crate::sight::{Kinds, Sight};

/// The schema of every law pack.
pub const SCHEMA: &str = include_str!("../alliance.cedarschema");

/// What every evaluation needs of the schema, made once.
#[derive(Debug)]
pub(crate) struct Language {
    pub(crate) schema: Schema,
    action: EntityTypeName,
    organisation: EntityType,
    country: EntityType,
    labels: Vec<Arc<ast::EntityUID>>,
    artefacts: Vec<Arc<ast::EntityUID>>,
    purposes: Vec<Arc<ast::EntityUID>>,
    uses: Vec<Arc<ast::EntityUID>>,
    roles: Vec<Arc<ast::EntityUID>>,
    circumstances: Vec<Arc<ast::EntityUID>>,
    safeguards: Vec<Arc<ast::EntityUID>>,
    tiers: Vec<Arc<ast::EntityUID>>,
    /// The country outside its zones comes first.
    zones: Vec<Arc<ast::EntityUID>>,
    actions: [Arc<ast::EntityUID>; 3],
}

/// The question could not be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LanguageError {
    #[error("the schema cannot be used: {0}")]
    Schema(Arc<str>),
    #[error("the instant {0} cannot be put to a pack")]
    Time(Timestamp),
}

static LANGUAGE: LazyLock<Result<Language, LanguageError>> = LazyLock::new(|| Language::read(SCHEMA));

/// The language of the schema that the program comes with.
pub(crate) fn language() -> Result<&'static Language, LanguageError> {
    LANGUAGE.as_ref().map_err(Clone::clone)
}

/// The attributes of the context, in the order of [`Language::question`].
pub(crate) const ATTRIBUTES: [&str; 14] = [
    "time",
    "from",
    "to",
    "labels",
    "origin",
    "training",
    "subjects",
    "purpose",
    "use",
    "circumstances",
    "volume",
    "regulator_ban",
    "safeguards",
    "mutual_safeguards",
];

/// The bit of `volume` among [`ATTRIBUTES`].
pub(crate) const VOLUME: u32 = 1 << 10;

/// What of a question depends on more than the facts.
pub(crate) struct Asked {
    pub(crate) action: Action,
    pub(crate) ban: bool,
    pub(crate) at: Timestamp,
    /// The attributes of the context that any rule asked looks at, a bit each in the order of [`ATTRIBUTES`]. The others are
    /// left out: nobody would read them.
    pub(crate) attributes: u32,
}

impl Language {
    fn read(schema: &str) -> Result<Self, LanguageError> {
        let failed = |error: String| LanguageError::Schema(error.into());
        let (schema, _warnings) = Schema::from_cedarschema_str(schema).map_err(|error| failed(error.to_string()))?;
        let kind = |name: &str| {
            let name = Name::parse_unqualified_name(name).map_err(|error| failed(error.to_string()))?;
            Ok::<_, LanguageError>(EntityType::EntityType(name))
        };
        fn words<'a>(kind: &EntityType, words: impl Iterator<Item = &'a str>) -> Vec<Arc<ast::EntityUID>> {
            words.map(|word| uid(kind, word)).collect()
        }
        let action = kind("Action")?;
        let none = std::iter::once("none");
        Ok(Self {
            schema,
            action: "Action".parse().map_err(|error: cedar_policy::ParseErrors| failed(error.to_string()))?,
            organisation: kind("Organisation")?,
            country: kind("Country")?,
            labels: words(&kind("Label")?, Label::ALL.iter().map(|word| word.as_str())),
            artefacts: words(&kind("Artefact")?, Artefact::ALL.iter().map(|word| word.as_str())),
            purposes: words(&kind("Purpose")?, Purpose::ALL.iter().map(|word| word.as_str())),
            uses: words(&kind("Use")?, Use::ALL.iter().map(|word| word.as_str())),
            roles: words(&kind("Role")?, OrganisationRole::ALL.iter().map(|word| word.as_str())),
            circumstances: words(&kind("Circumstance")?, Circumstance::ALL.iter().map(|word| word.as_str())),
            safeguards: words(&kind("Safeguard")?, SafeguardKind::ALL.iter().map(|word| word.as_str())),
            tiers: words(&kind("Tier")?, Tier::ALL.iter().map(|word| word.as_str())),
            zones: words(&kind("Zone")?, none.chain(Zone::ALL.iter().map(|word| word.as_str()))),
            actions: [Action::Export, Action::Import, Action::Concern].map(|one| uid(&action, one.as_str())),
        })
    }

    /// An instant as Cedar sees it: to the second, in UTC.
    fn time(&self, at: Timestamp) -> Result<Value, LanguageError> {
        let expression = RestrictedExpression::new_datetime(at.to_string());
        let expression: &ast::RestrictedExpr = expression.as_ref();
        let evaluator = RestrictedEvaluator::new(Extensions::all_available());
        evaluator.interpret(expression.as_borrowed()).map_err(|_| LanguageError::Time(at))
    }

    /// The question of a crossing, as a rule with this sight meets it.
    ///
    /// # Errors
    /// The instant cannot be put to a pack.
    pub(crate) fn question(&self, facts: &Facts, asked: &Asked, sight: Sight) -> Result<ast::Request, LanguageError> {
        let names = ATTRIBUTES.iter().enumerate().filter(|(place, _)| asked.attributes & (1 << place) != 0);
        let context: BTreeMap<SmolStr, Value> = names
            .map(|(_, name)| Ok((SmolStr::new_static(name), self.attribute(name, facts, asked, sight)?)))
            .collect::<Result<_, LanguageError>>()?;
        Ok(ast::Request::new_unchecked(
            entry(uid(&self.organisation, &facts.to.organisation)),
            entry(Arc::clone(self.action_uid(asked.action))),
            entry(at(&self.artefacts, facts.artefact as usize)),
            Some(ast::Context::Value(Arc::new(context))),
        ))
    }

    fn attribute(&self, name: &str, facts: &Facts, asked: &Asked, sight: Sight) -> Result<Value, LanguageError> {
        let people = |people: u64| Value::from(i64::try_from(people).unwrap_or(i64::MAX));
        Ok(match name {
            "time" => self.time(asked.at)?,
            "from" => self.party(&facts.from),
            "to" => self.party(&facts.to),
            "labels" => set(&self.labels, facts.labels.iter().map(|word| *word as usize)),
            "origin" => entity(self.country(facts.origin)),
            "training" => record([
                ("proven", Value::from(facts.trained_in.is_some())),
                ("countries", self.countries(facts.trained_in.iter().flatten())),
            ]),
            "subjects" => self.countries(facts.subjects.iter()),
            "purpose" => word(&self.purposes, facts.purpose as usize),
            "use" => word(&self.uses, facts.use_ as usize),
            "circumstances" => set(&self.circumstances, facts.circumstances.iter().map(|word| *word as usize)),
            "volume" => record([
                ("people", people(facts.volume.people.get())),
                ("sensitive_people", people(facts.volume.sensitive_people.get())),
            ]),
            "regulator_ban" => Value::from(asked.ban),
            "safeguards" => self.kinds(sight.safeguards),
            // The last of ATTRIBUTES.
            _ => self.kinds(sight.mutual),
        })
    }

    pub(crate) fn action(&self, action: Action) -> EntityUid {
        EntityUid::from_type_name_and_id(self.action.clone(), EntityId::new(action.as_str()))
    }

    fn action_uid(&self, action: Action) -> &Arc<ast::EntityUID> {
        let [export, import, concern] = &self.actions;
        match action {
            Action::Export => export,
            Action::Import => import,
            Action::Concern => concern,
        }
    }

    fn party(&self, party: &Party) -> Value {
        record([
            ("organisation", entity(uid(&self.organisation, &party.organisation))),
            ("country", entity(self.country(party.country))),
            ("zone", word(&self.zones, party.zone.map_or(0, |zone| zone as usize + 1))),
            ("roles", set(&self.roles, party.roles.iter().map(|word| *word as usize))),
            ("controlled_by", entity(self.country(party.controlled_by))),
            ("state_controlled", Value::from(party.state_controlled)),
            ("tiers", set(&self.tiers, party.tier.reached().map(|word| word as usize))),
        ])
    }

    fn country(&self, country: Country) -> Arc<ast::EntityUID> {
        uid(&self.country, country.as_str())
    }

    fn countries<'a>(&self, countries: impl Iterator<Item = &'a Country>) -> Value {
        Value::set_of_lits(countries.map(|country| Literal::EntityUID(self.country(*country))), None)
    }

    fn kinds(&self, kinds: Kinds) -> Value {
        set(&self.safeguards, kinds.iter().map(|kind| kind as usize))
    }
}

fn uid(kind: &EntityType, id: &str) -> Arc<ast::EntityUID> {
    Arc::new(ast::EntityUID::from_components(kind.clone(), Eid::new(id), None))
}

/// A word by its place in the vocabulary.
fn at(words: &[Arc<ast::EntityUID>], place: usize) -> Arc<ast::EntityUID> {
    #[expect(clippy::indexing_slicing, reason = "the table has an entry for each word of the vocabulary, in its order")]
    Arc::clone(&words[place])
}

fn entity(uid: Arc<ast::EntityUID>) -> Value {
    Value::new(Literal::EntityUID(uid), None)
}

fn word(words: &[Arc<ast::EntityUID>], place: usize) -> Value {
    entity(at(words, place))
}

fn set(words: &[Arc<ast::EntityUID>], places: impl Iterator<Item = usize>) -> Value {
    Value::set_of_lits(places.map(|place| Literal::EntityUID(at(words, place))), None)
}

fn record<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    let fields: BTreeMap<_, _> = fields.into_iter().map(|(name, value)| (SmolStr::new_static(name), value)).collect();
    Value::record_arc(Arc::new(fields), None)
}

fn entry(euid: Arc<ast::EntityUID>) -> EntityUIDEntry {
    EntityUIDEntry::Known { euid, loc: None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_bit_of_the_volume_is_where_its_name_stands() {
        assert_eq!(ATTRIBUTES.iter().position(|name| *name == "volume"), Some(VOLUME.trailing_zeros() as usize));
    }

    /// The words of `entity NAME enum [..]` in the schema.
    fn words(name: &str) -> BTreeSet<&'static str> {
        let start = format!("entity {name} enum [");
        let (_, rest) = SCHEMA.split_once(&start).expect("the type is in the schema");
        let (list, _) = rest.split_once("];").expect("the list ends");
        let lines = list.lines().map(|line| line.split("//").next().unwrap_or_default());
        lines.flat_map(|line| line.split(',')).map(|word| word.trim().trim_matches('"')).filter(|w| !w.is_empty()).collect()
    }

    #[test]
    fn the_schema_knows_exactly_the_vocabulary() {
        assert_eq!(words("Artefact"), Artefact::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Label"), Label::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Purpose"), Purpose::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Use"), Use::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Safeguard"), SafeguardKind::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Tier"), Tier::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Role"), OrganisationRole::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Circumstance"), Circumstance::ALL.iter().map(|w| w.as_str()).collect());
        assert_eq!(words("Zone"), Zone::ALL.iter().map(|w| w.as_str()).chain(["none"]).collect());
        let codes = (b'A'..=b'Z').flat_map(|a| (b'A'..=b'Z').map(move |b| [a, b]));
        let codes: BTreeSet<String> = codes
            .map(|code| code.iter().map(|b| char::from(*b)).collect())
            .filter(|c: &String| c.parse::<Country>().is_ok())
            .collect();
        assert_eq!(words("Country"), codes.iter().map(String::as_str).collect());
    }

    #[test]
    fn every_word_stands_at_its_place() {
        let language = language().expect("the schema");
        let id = |uid: &Arc<ast::EntityUID>| uid.eid().escaped().to_string();
        for label in Label::ALL {
            assert_eq!(id(&language.labels[*label as usize]), label.as_str());
        }
        for kind in SafeguardKind::ALL {
            assert_eq!(id(&language.safeguards[*kind as usize]), kind.as_str());
        }
        for zone in Zone::ALL {
            assert_eq!(id(&language.zones[*zone as usize + 1]), zone.as_str());
        }
    }

    #[test]
    fn the_schema_can_be_used() {
        assert!(language().is_ok());
        assert!(matches!(Language::read("entity Organisation enum [];"), Err(LanguageError::Schema(_))));
    }
}
