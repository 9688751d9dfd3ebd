//! The annotations of one rule, read strictly: a closed set of names, each with a grammar.
//!
//! What a rule may say of itself depends on whose it is. Only a member's law may cite law; a draft is never a rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use alliance_protocol::{
    gate::{PackOwner, RuleCited, RuleNature, RuleRole},
    limits::TEXT_BYTES_MAX,
    obligation::{Duty, NotADuty, Obligation},
    vocabulary::{SafeguardKind, UnknownWord},
};
use jiff::civil::Date;

use crate::calendar::DaysOff;

/// Obligations of one rule. The longest list of a founding pack has four.
const OBLIGATIONS_MAX: usize = 16;

/// Working days of one waiting period: a year has about 250.
const WORKING_DAYS_MAX: u32 = 250;

/// Years for which a safeguard may count.
const YEARS_MAX: u32 = 100;

/// Alternatives in one `@satisfied_by`. The longest list of grounds in a founding pack has ten.
pub(crate) const ALTERNATIVES_MAX: usize = 32;

/// Which part of a pack a rule stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Law,
    Directives,
}

/// How a rule stands in the legal order, as its `@status` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    InForce,
    InForceDormant,
    NotCommenced,
    SoftLaw,
    DesignChoice,
    Directive,
    House,
    Residual,
}

/// A rule as its annotations describe it.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    /// As it is shown to people and recorded: where it denies, where it is satisfied, where it permits. Made once, because
    /// every answer of the law cites some.
    cited: [Arc<RuleCited>; 3],
    /// First and last day in force.
    pub(crate) from: Option<Date>,
    pub(crate) until: Option<Date>,
    pub(crate) obligations: Vec<Obligation>,
    /// Sets of safeguards, any one of which satisfies a rule that forbids.
    pub(crate) satisfied_by: BTreeSet<BTreeSet<SafeguardKind>>,
    /// How long after the filing of a notification it counts a waiting period as elapsed.
    pub(crate) waits: Option<Waits>,
    /// Calendar years after its issue for which a kind of safeguard counts before this rule.
    pub(crate) valid_for: BTreeMap<SafeguardKind, u32>,
    /// It only says that what no other rule forbids may cross.
    pub(crate) residual: bool,
    pub(crate) forbids: bool,
}

/// A waiting period.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(crate) working_days: u32,
    pub(crate) days_off: DaysOff,
}

/// What is wrong with the annotations of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RuleError {
    #[error("`@{0}` is not an annotation of a rule; known are: {known}", known = KNOWN.join(", "))]
    UnknownAnnotation(String),
    #[error("`@{0}` is missing")]
    Missing(&'static str),
    #[error("`@{0}` is empty")]
    Empty(&'static str),
    #[error("`@{0}` has more than {TEXT_BYTES_MAX} bytes")]
    TooLong(&'static str),
    #[error("`@{name}` does not belong on {whose}")]
    NotHere { name: &'static str, whose: &'static str },
    #[error(
        "`{id}` is not an id of this pack: write {prefix}-NN, or {prefix}-DNN for a directive, perhaps with one small \
         letter"
    )]
    Id { id: String, prefix: String },
    #[error("`{status}` is not the status of a rule here; known are: {known}")]
    Status { status: String, known: &'static str },
    #[error("`{text}` in `@{name}` is not a date such as 2025-07-01")]
    Date { name: &'static str, text: String },
    #[error("`@until` is before `@from`")]
    Backwards,
    #[error("`@confidence` must begin with high, medium or low, not `{0}`")]
    Confidence(String),
    #[error("`@satisfied_by`: {0}")]
    Safeguard(#[from] UnknownWord),
    #[error("`@satisfied_by` has an empty alternative; write `a + b | c`")]
    EmptyAlternative,
    #[error("`@{0}` lists too much")]
    TooMany(&'static str),
    #[error("`@obligation`: {0}")]
    Obligation(#[from] NotADuty),
    #[error("`@obligation`: nobody approves for the alliance, so the baseline cannot demand `{0}`")]
    NobodyApproves(Obligation),
    #[error("`@waits` is written `10 working days`, and goes with `waiting_period_elapsed` in `@satisfied_by`")]
    Waits,
    #[error("`@days_off` is written `01-01..01-08, 02-23`, and goes with `@waits`")]
    DaysOff,
    #[error("`@valid_for` is written `kind 3 years, kind 1 years`, of kinds that `@satisfied_by` names")]
    ValidFor,
    #[error("a rule with the status residual must permit")]
    ResidualForbids,
}

/// Every name that an annotation may have.
const KNOWN: &[&str] = &[
    "id",
    "title",
    "law",
    "directive",
    "design",
    "house",
    "native",
    "from",
    "until",
    "status",
    "confidence",
    "source",
    "caveat",
    "obligation",
    "satisfied_by",
    "waits",
    "days_off",
    "valid_for",
];

/// The annotations of one rule by their known names.
struct Annotations<'a>(BTreeMap<&'static str, &'a str>);

impl Rule {
    /// Reads a rule's annotations.
    pub(crate) fn read<'a>(
        owner: PackOwner,
        section: Section,
        forbids: bool,
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, RuleError> {
        let annotations = Annotations::read(annotations)?;
        let id = read_id(owner, section, annotations.required("id")?)?;
        let status = Status::read(owner, section, annotations.required("status")?)?;
        let basis = status.basis(owner);
        for name in ["law", "directive", "design", "house"].into_iter().filter(|name| *name != basis) {
            annotations.absent(name, status.whose())?;
        }
        let is_law = basis == "law";
        if is_law {
            annotations.required("from")?;
            annotations.required("native")?;
            annotations.required("confidence")?;
            annotations.required("source")?;
        }
        if !forbids {
            for name in ["satisfied_by", "waits", "days_off", "valid_for"] {
                annotations.absent(name, "a rule that permits")?;
            }
        }
        let residual = status == Status::Residual;
        if residual && forbids {
            return Err(RuleError::ResidualForbids);
        }
        let (from, until) = (annotations.date("from")?, annotations.date("until")?);
        if let (Some(from), Some(until)) = (from, until)
            && until < from
        {
            return Err(RuleError::Backwards);
        }
        let satisfied_by = annotations.satisfied_by()?;
        let obligations = annotations.obligations()?;
        let approval = obligations.iter().find(|duty| matches!(duty.duty(), Duty::Approval { .. }));
        if let (PackOwner::Alliance, Some(duty)) = (owner, approval) {
            return Err(RuleError::NobodyApproves(duty.clone()));
        }
        let cited = RuleCited {
            id: id.clone(),
            title: annotations.required("title")?.to_owned(),
            role: RuleRole::Denies,
            nature: if owner == PackOwner::House { RuleNature::House } else { status.nature() },
            citation: annotations.required(basis)?.to_owned(),
            native: annotations.optional("native").to_owned(),
            since: from.map(|from| from.to_string()).unwrap_or_default(),
            confidence: annotations.confidence(status)?,
            remedies: satisfied_by.iter().cloned().collect(),
        };
        Ok(Self {
            id,
            cited: [RuleRole::Denies, RuleRole::Satisfied, RuleRole::Permits]
                .map(|role| Arc::new(RuleCited { role, ..cited.clone() })),
            from,
            until,
            obligations,
            waits: annotations.waits(&satisfied_by)?,
            valid_for: annotations.valid_for(&satisfied_by)?,
            satisfied_by,
            residual,
            forbids,
        })
    }

    /// The rule as it is shown to people and recorded.
    pub(crate) fn cited(&self, role: RuleRole) -> Arc<RuleCited> {
        let [denies, satisfied, permits] = &self.cited;
        Arc::clone(match role {
            RuleRole::Denies => denies,
            RuleRole::Satisfied => satisfied,
            RuleRole::Permits => permits,
        })
    }
}

impl<'a> Annotations<'a> {
    fn read(annotations: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, RuleError> {
        let mut read = BTreeMap::new();
        for (name, text) in annotations {
            let known = KNOWN.iter().find(|known| **known == name);
            let known = *known.ok_or_else(|| RuleError::UnknownAnnotation(name.chars().take(64).collect()))?;
            if text.trim().is_empty() {
                return Err(RuleError::Empty(known));
            }
            if text.len() > TEXT_BYTES_MAX {
                return Err(RuleError::TooLong(known));
            }
            read.insert(known, text);
        }
        Ok(Self(read))
    }

    fn required(&self, name: &'static str) -> Result<&'a str, RuleError> {
        self.0.get(name).copied().ok_or(RuleError::Missing(name))
    }

    fn optional(&self, name: &'static str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn absent(&self, name: &'static str, whose: &'static str) -> Result<(), RuleError> {
        if self.0.contains_key(name) { Err(RuleError::NotHere { name, whose }) } else { Ok(()) }
    }

    fn date(&self, name: &'static str) -> Result<Option<Date>, RuleError> {
        let Some(text) = self.0.get(name) else { return Ok(None) };
        let date: Option<Date> = text.parse().ok();
        // The shape is checked too: the library also reads dates with a time behind them.
        match date.filter(|date| date.to_string() == *text) {
            Some(date) => Ok(Some(date)),
            None => Err(RuleError::Date { name, text: text.chars().take(64).collect() }),
        }
    }

    /// How sure the encoding is, with its caveat, which must be seen wherever the rule is.
    fn confidence(&self, status: Status) -> Result<String, RuleError> {
        let confidence = self.optional("confidence");
        let graded = ["high", "medium", "low"].iter().any(|grade| confidence.starts_with(grade));
        if !graded && !confidence.is_empty() {
            return Err(RuleError::Confidence(confidence.to_owned()));
        }
        let dormant = match status {
            Status::InForceDormant => "in force, but an act that it needs is missing",
            Status::NotCommenced => "commences on a later date",
            Status::SoftLaw => "not binding",
            Status::InForce | Status::DesignChoice | Status::Directive | Status::House | Status::Residual => "",
        };
        let parts = [confidence, dormant, self.optional("caveat")];
        Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; "))
    }

    fn obligations(&self) -> Result<Vec<Obligation>, RuleError> {
        let Some(text) = self.0.get("obligation") else { return Ok(Vec::new()) };
        if text.split(',').count() > OBLIGATIONS_MAX {
            return Err(RuleError::TooMany("obligation"));
        }
        text.split(',').map(|duty| Ok(duty.trim().parse()?)).collect()
    }

    fn waits(&self, satisfied_by: &BTreeSet<BTreeSet<SafeguardKind>>) -> Result<Option<Waits>, RuleError> {
        let needed = satisfied_by.iter().any(|set| set.contains(&SafeguardKind::WaitingPeriodElapsed));
        let Some(text) = self.0.get("waits") else {
            self.absent("days_off", "a rule without `@waits`")?;
            return if needed { Err(RuleError::Waits) } else { Ok(None) };
        };
        let digits = text.strip_suffix(" working days").filter(|_| needed).ok_or(RuleError::Waits)?;
        let working_days = digits.parse().ok().filter(|days| (1..=WORKING_DAYS_MAX).contains(days));
        let working_days: u32 = working_days.filter(|days| days.to_string() == digits).ok_or(RuleError::Waits)?;
        let days_off = match self.0.get("days_off") {
            Some(text) => DaysOff::read(text).ok_or(RuleError::DaysOff)?,
            None => DaysOff::default(),
        };
        Ok(Some(Waits { working_days, days_off }))
    }

    fn valid_for(
        &self,
        satisfied_by: &BTreeSet<BTreeSet<SafeguardKind>>,
    ) -> Result<BTreeMap<SafeguardKind, u32>, RuleError> {
        let Some(text) = self.0.get("valid_for") else { return Ok(BTreeMap::new()) };
        let one = |entry: &str| {
            let (kind, years) = entry.trim().strip_suffix(" years")?.split_once(' ')?;
            let kind: SafeguardKind = kind.parse().ok()?;
            let number: u32 = years.parse().ok().filter(|number| (1..=YEARS_MAX).contains(number))?;
            let named = satisfied_by.iter().any(|set| set.contains(&kind));
            (named && number.to_string() == years).then_some((kind, number))
        };
        text.split(',').map(|entry| one(entry).ok_or(RuleError::ValidFor)).collect()
    }

    fn satisfied_by(&self) -> Result<BTreeSet<BTreeSet<SafeguardKind>>, RuleError> {
        let Some(text) = self.0.get("satisfied_by") else { return Ok(BTreeSet::new()) };
        if text.split('|').count() > ALTERNATIVES_MAX {
            return Err(RuleError::TooMany("satisfied_by"));
        }
        text.split('|').map(read_alternative).collect()
    }
}

fn read_alternative(text: &str) -> Result<BTreeSet<SafeguardKind>, RuleError> {
    if text.trim().is_empty() {
        return Err(RuleError::EmptyAlternative);
    }
    text.split('+').map(|word| Ok(word.trim().parse()?)).collect()
}

impl Status {
    fn read(owner: PackOwner, section: Section, text: &str) -> Result<Self, RuleError> {
        let (status, known) = match (owner, section) {
            (PackOwner::Member(_), Section::Law) => (
                match text {
                    "in_force" => Some(Self::InForce),
                    "in_force_dormant" => Some(Self::InForceDormant),
                    "not_commenced" => Some(Self::NotCommenced),
                    "residual" => Some(Self::Residual),
                    _ => None,
                },
                "in_force, in_force_dormant, not_commenced, residual",
            ),
            (PackOwner::Member(_), Section::Directives) => ((text == "directive").then_some(Self::Directive), "directive"),
            (PackOwner::Alliance, Section::Law) => (
                match text {
                    "design_choice" => Some(Self::DesignChoice),
                    "soft_law" => Some(Self::SoftLaw),
                    "residual" => Some(Self::Residual),
                    _ => None,
                },
                "design_choice, soft_law, residual",
            ),
            (PackOwner::House, Section::Law) => (
                match text {
                    "house" => Some(Self::House),
                    "residual" => Some(Self::Residual),
                    _ => None,
                },
                "house, residual",
            ),
            (PackOwner::Alliance | PackOwner::House, Section::Directives) => (None, "none: only members give directives"),
        };
        status.ok_or_else(|| RuleError::Status { status: text.chars().take(64).collect(), known })
    }

    /// The annotation that says what the rule rests on.
    fn basis(self, owner: PackOwner) -> &'static str {
        match (self, owner) {
            (Self::InForce | Self::InForceDormant | Self::NotCommenced, _) => "law",
            (Self::Directive, _) => "directive",
            (Self::House, _) | (Self::Residual, PackOwner::House) => "house",
            (Self::SoftLaw | Self::DesignChoice | Self::Residual, _) => "design",
        }
    }

    fn nature(self) -> RuleNature {
        match self {
            Self::InForce | Self::InForceDormant | Self::NotCommenced => RuleNature::Law,
            Self::Directive => RuleNature::Directive,
            Self::SoftLaw | Self::DesignChoice | Self::Residual => RuleNature::DesignChoice,
            Self::House => RuleNature::House,
        }
    }

    fn whose(self) -> &'static str {
        match self {
            Self::InForce | Self::InForceDormant | Self::NotCommenced => "a rule of law, which cites it with `@law`",
            Self::Directive => "a directive, which cites the decision with `@directive`",
            Self::SoftLaw | Self::DesignChoice => "a choice of the project, which says why with `@design`",
            Self::House => "a rule of the house, which says why with `@house`",
            Self::Residual => "the residual rule, which is not law",
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Law => "law",
            Self::Directives => "directives",
        })
    }
}

/// What the ids of a pack begin with.
fn prefix(owner: PackOwner) -> String {
    match owner {
        PackOwner::Alliance => "BX".to_owned(),
        PackOwner::Member(country) => country.to_string(),
        PackOwner::House => "HOUSE".to_owned(),
    }
}

fn read_id(owner: PackOwner, section: Section, id: &str) -> Result<String, RuleError> {
    let prefix = prefix(owner);
    let number = id.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('-'));
    let number = number.and_then(|number| match section {
        Section::Law => Some(number),
        Section::Directives => number.strip_prefix('D'),
    });
    let digits = number.map(|number| number.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(number));
    match digits {
        Some(digits) if (2..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(id.to_owned()),
        _ => Err(RuleError::Id { id: id.chars().take(64).collect(), prefix }),
    }
}
