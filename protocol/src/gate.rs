//! The question that is put to a law pack, and its answer. The policy crate implements [`Gate`]; nothing here knows Cedar.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    obligation::Obligation,
    time::Timestamp,
    vocabulary::{Artefact, Circumstance, Country, Label, OrganisationRole, Purpose, SafeguardKind, Tier, Use, Zone},
};

/// Asks one law pack about one crossing. A pure function of its arguments; an implementation may remember compiled packs.
pub trait Gate: Send + Sync {
    /// What the pack says at an instant. Never fails: whatever goes wrong inside is a verdict that denies, with `error` set.
    fn judge(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> Arc<Verdict>;

    /// Whether what the pack says of these facts at an instant could be another with another `volume`. A yes may be wrong, a no
    /// never is.
    fn heeds_volume(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> bool;

    /// Reads and strictly validates the text of a pack.
    ///
    /// # Errors
    /// Where the text is wrong, for the officer who wrote it.
    fn check(&self, pack: &Pack) -> Result<PackSummary, PackError>;

    /// The first instant after `after` at which a rule of the pack begins or ends. None where there is none, or where that
    /// cannot be foretold: whoever asks looks again in a while.
    fn next_turn(&self, pack: &Pack, after: Timestamp) -> Option<Timestamp>;
}

/// A crossing as the packs see it: only facts that were verified or declared by someone accountable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    pub from: Party,
    pub to: Party,
    pub artefact: Artefact,
    /// Never empty: an artefact without a label is denied before a pack is asked.
    #[serde(deserialize_with = "some_labels")]
    pub labels: BTreeSet<Label>,
    /// Where the artefact was made.
    pub origin: Country,
    /// In which countries it was trained, where signed statements prove that of every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_in: Option<BTreeSet<Country>>,
    /// The countries whose people the data is about.
    pub subjects: BTreeSet<Country>,
    pub purpose: Purpose,
    #[serde(rename = "use")]
    pub use_: Use,
    pub circumstances: BTreeSet<Circumstance>,
    /// How many people's data the exporter has sent abroad this year, this crossing included.
    pub volume: Volume,
    /// The members whose authorities have banned this destination or this recipient.
    pub bans: BTreeSet<Country>,
    /// Verified safeguards that cover this crossing, by the member that issued them. Each counts before that member's law only.
    pub safeguards: BTreeMap<Country, BTreeMap<SafeguardKind, Grant>>,
}

/// People whose data an exporter has sent abroad in a calendar year (UTC). Each artefact counts once, however often it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Those whose data has no label of a special category.
    pub people: People,
    /// Those whose data has one.
    pub sensitive_people: People,
}

/// A number of people; [`People::UNKNOWN`], which is more than any other, where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct People(u64);

/// A verified token, as far as the rules look at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The ids of the rules that it may satisfy; before every other rule it is not there.
    pub rules: BTreeSet<String>,
    /// When its validity began.
    pub since: Timestamp,
    /// When what it confirms was filed, for waiting periods.
    #[serde(deserialize_with = "stated")]
    pub filed: Option<Timestamp>,
}

/// A value that may be null, but not left out: what is missing is not the same as what is not there.
fn stated<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

fn some_labels<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Label>, D::Error> {
    let labels = BTreeSet::deserialize(deserializer)?;
    if labels.is_empty() { Err(serde::de::Error::custom("an artefact has at least one label")) } else { Ok(labels) }
}

/// One end of a crossing, as its authority accredited it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    pub country: Country,
    #[serde(deserialize_with = "stated")]
    pub zone: Option<Zone>,
    pub organisation: String,
    pub roles: BTreeSet<OrganisationRole>,
    pub controlled_by: Country,
    pub state_controlled: bool,
    /// How well it is established where its node is.
    #[serde(default, skip_serializing_if = "Tier::is_default")]
    pub tier: Tier,
}

impl Facts {
    /// Which members' packs are asked, and in which capacity. The baseline and the house are asked besides.
    ///
    /// Where no border is crossed no export or import rule applies; a zone with law of its own has a border, and a recipient
    /// that another country's law can compel is taken for one abroad. Rules about people apply wherever they are. The people of a country that is no member have no pack here to speak for them.
    pub fn questions(&self, is_member: impl Fn(Country) -> bool) -> Vec<(Country, Action)> {
        let (from, to) = (self.from.country, self.to.country);
        let mut questions = Vec::new();
        if (from, self.from.zone) != (to, self.to.zone) || self.to.controlled_by != from {
            questions.extend([(from, Action::Export), (to, Action::Import)]);
        }
        let subjects = self.subjects.iter().copied().filter(|country| is_member(*country));
        questions.extend(subjects.map(|country| (country, Action::Concern)));
        questions
    }
}

impl People {
    /// More than any number.
    pub const UNKNOWN: Self = Self(i64::MAX.unsigned_abs());

    /// So many people; a number that no count can reach is taken for unknown.
    #[must_use]
    pub const fn new(people: u64) -> Self {
        if people > Self::UNKNOWN.0 { Self::UNKNOWN } else { Self(people) }
    }

    /// The number, at most `i64::MAX`.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Both together; unknown where one of them is.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self::new(self.0.saturating_add(more.0))
    }
}

impl Grant {
    /// Takes in a second token of the same kind and issuer. Where they differ, the one that helps less counts.
    pub(crate) fn join(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.since = self.since.min(other.since);
        // A token that was not filed lends none of its rules the filing of the other.
        self.filed = self.filed.zip(other.filed).map(|(one, two)| one.max(two));
    }
}

impl<'de> Deserialize<'de> for People {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let people = u64::deserialize(deserializer)?;
        if people > Self::UNKNOWN.0 {
            return Err(serde::de::Error::custom("more people than can be counted"));
        }
        Ok(Self(people))
    }
}

impl Volume {
    /// Nobody's.
    pub const NONE: Self = Self { people: People(0), sensitive_people: People(0) };

    /// The volume of one artefact alone: none where nothing in it is personal, unknown where nobody counted.
    #[must_use]
    pub fn of(labels: &BTreeSet<Label>, people: Option<u64>) -> Self {
        // Data that is about people is not about none.
        let people = people.filter(|people| *people > 0).map_or(People::UNKNOWN, People::new);
        if labels.iter().any(|label| label.is_special()) {
            Self { sensitive_people: people, ..Self::default() }
        } else if labels.iter().any(|label| label.is_personal()) {
            Self { people, ..Self::default() }
        } else {
            Self::default()
        }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self { people: self.people.and(more.people), sensitive_people: self.sensitive_people.and(more.sensitive_people) }
    }

    /// What of each is more than there is in another: all of it, or none.
    #[must_use]
    pub(crate) fn beyond(self, other: Self) -> Self {
        let beyond = |own: People, other: People| if own > other { own } else { People(0) };
        Self {
            people: beyond(self.people, other.people),
            sensitive_people: beyond(self.sensitive_people, other.sensitive_people),
        }
    }

    /// The larger of each, for an instant that may lie in either of two years.
    #[must_use]
    pub fn larger(self, other: Self) -> Self {
        Self { people: self.people.max(other.people), sensitive_people: self.sensitive_people.max(other.sensitive_people) }
    }
}

/// In which capacity a pack is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The artefact leaves the pack's country.
    Export,
    /// The artefact enters the pack's country.
    Import,
    /// The data is about people of the pack's country, wherever it is.
    Concern,
}

/// Whose rules a pack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackOwner {
    /// The alliance's baseline: design choices that bind all members, never cited as law.
    Alliance,
    Member(Country),
    /// The operator's own rules, which can only tighten.
    House,
}

/// The text of a pack, ready to be asked. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    pub owner: PackOwner,
    pub epoch: u64,
    pub law: Arc<str>,
    pub directives: Arc<str>,
    /// BLAKE3 over owner, law and directives; names the compiled form.
    digest: [u8; 32],
}

/// What one pack says of one crossing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    pub pack: PackOwner,
    pub epoch: u64,
    pub action: Action,
    pub allowed: bool,
    /// The rules that decided: those that deny, or, where allowed, those that were satisfied or permit.
    pub rules: Vec<Arc<RuleCited>>,
    /// Duties that come with the crossing.
    pub obligations: BTreeSet<Obligation>,
    /// Set where the pack could not be asked, or an evaluation failed. Always a denial.
    pub error: Option<String>,
}

/// A rule with what a person needs to look it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleCited {
    pub id: String,
    pub title: String,
    pub role: RuleRole,
    /// Whether this is law, a directive, or a choice of the project.
    pub nature: RuleNature,
    /// The statute and article, in English; for what is not law, where the choice is documented.
    pub citation: String,
    /// The same in the original language.
    pub native: String,
    /// In force since, as a date; empty where there is none.
    pub since: String,
    /// How sure the encoding is: `high`, `medium`, ...
    pub confidence: String,
    /// What would satisfy the rule: any one of these sets of safeguards. Empty: nothing would.
    pub remedies: Vec<BTreeSet<SafeguardKind>>,
}

/// What a rule did in a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleRole {
    /// It forbids, and nothing satisfied it.
    Denies,
    /// It would forbid, but safeguards satisfied it.
    Satisfied,
    /// It permits.
    Permits,
}

/// Law, or something that must not be mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleNature {
    Law,
    Directive,
    DesignChoice,
    House,
}

/// What a pack holds, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackSummary {
    pub owner: PackOwner,
    pub rules: Vec<Arc<RuleCited>>,
}

/// The text of a pack is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pack of {owner} cannot be used: {reason}")]
pub struct PackError {
    pub owner: PackOwner,
    pub reason: String,
}

impl Pack {
    #[must_use]
    pub fn new(owner: PackOwner, epoch: u64, law: &str, directives: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("alliance law pack v1");
        let name = owner.to_string();
        for part in [name.as_str(), law, directives] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        Self { owner, epoch, law: law.into(), directives: directives.into(), digest: *hasher.finalize().as_bytes() }
    }

    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl Verdict {
    /// Whether it is a yes: what met an error is a no, whatever else it says.
    #[must_use]
    pub fn permits(&self) -> bool {
        self.allowed && self.error.is_none()
    }

    /// A denial because the pack could not be asked.
    #[must_use]
    pub fn failed(pack: PackOwner, epoch: u64, action: Action, error: String) -> Self {
        let (rules, obligations) = (Vec::new(), BTreeSet::new());
        Self { pack, epoch, action, allowed: false, rules, obligations, error: Some(error) }
    }
}

impl Action {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Import => "import",
            Self::Concern => "concern",
        }
    }
}

impl fmt::Display for PackOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alliance => f.pad("alliance"),
            Self::Member(country) => f.pad(country.as_str()),
            Self::House => f.pad("house"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lends_its_rules_no_filing_of_another() {
        let grant = |rule: &str, since: u64, filed: Option<u64>| Grant {
            rules: BTreeSet::from([rule.to_owned()]),
            since: Timestamp(since),
            filed: filed.map(Timestamp),
        };
        let table = [(Some(1), None, None), (None, Some(1), None), (Some(1), Some(2), Some(2)), (None, None, None)];
        for (one, other, expected) in table {
            let mut joined = grant("RU-02", 5, one);
            joined.join(grant("RU-04", 3, other));
            assert_eq!((joined.filed, joined.since), (expected.map(Timestamp), Timestamp(3)));
            assert_eq!(joined.rules.len(), 2);
        }
    }
}
