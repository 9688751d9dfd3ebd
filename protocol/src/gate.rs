//! The question that is put to a law pack, and its answer. The policy crate implements [`Gate`]; nothing here knows Cedar.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    time::Timestamp,
    vocabulary::{Artefact, Country, Label, OrganisationRole, Purpose, SafeguardKind, Use},
};

/// Asks one law pack about one crossing. A pure function of its arguments; an implementation may remember compiled packs.
pub trait Gate: Send + Sync {
    /// What the pack says at an instant. Never fails: whatever goes wrong inside is a verdict that denies, with `error` set.
    fn judge(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> Verdict;

    /// Reads and strictly validates the text of a pack.
    ///
    /// # Errors
    /// Where the text is wrong, for the officer who wrote it.
    fn check(&self, pack: &Pack) -> Result<PackSummary, PackError>;
}

/// A crossing as the packs see it: only facts that were verified or declared by someone accountable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    pub from: Party,
    pub to: Party,
    pub artefact: Artefact,
    /// Never empty: an artefact without a label is denied before a pack is asked.
    pub labels: BTreeSet<Label>,
    /// Where the artefact was made.
    pub origin: Country,
    /// The countries whose people the data is about.
    pub subjects: BTreeSet<Country>,
    pub purpose: Purpose,
    #[serde(rename = "use")]
    pub use_: Use,
    /// Verified safeguards that cover this crossing, by the member that issued them. Each counts before that member's law only.
    pub safeguards: BTreeMap<Country, BTreeSet<SafeguardKind>>,
}

/// One end of a crossing, as its authority accredited it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    pub country: Country,
    pub zone: Option<String>,
    pub organisation: String,
    pub roles: BTreeSet<OrganisationRole>,
    pub controlled_by: Country,
    pub state_controlled: bool,
}

impl Facts {
    /// Which members' packs are asked, and in which capacity. The baseline and the house are asked besides.
    ///
    /// Where no border is crossed no export or import rule applies; rules about people apply wherever they are. The people of
    /// a country that is no member have no pack here to speak for them.
    pub fn questions(&self, is_member: impl Fn(Country) -> bool) -> Vec<(Country, Action)> {
        let (from, to) = (self.from.country, self.to.country);
        let mut questions = Vec::new();
        if from != to {
            questions.extend([(from, Action::Export), (to, Action::Import)]);
        }
        let subjects = self.subjects.iter().copied().filter(|country| is_member(*country));
        questions.extend(subjects.map(|country| (country, Action::Concern)));
        questions
    }
}

/// In which capacity a pack is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    pub rules: Vec<RuleCited>,
    /// Duties that come with the crossing, in the words of the pack.
    pub obligations: BTreeSet<String>,
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
    pub rules: Vec<RuleCited>,
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
