//! Proofs about law packs, by an SMT solver: that no rule can fail, that what a law keeps at home never leaves whatever the
//! safeguards, that a ban overrides them, that no member's safeguard satisfies another's law, and what a new text of a pack
//! would newly allow.
//!
//! It starts a solver (cvc5, or what `CVC5` names) as a process of its own; no other crate but `node` touches the world.
//! Only an answer of "no such crossing exists" counts as proven: no solver, no answer in time and an answer that cannot be
//! confirmed are all "not proven", each with its reason. Start reading at [`Proofs::pack`].

mod joint;
mod prover;

use std::{collections::BTreeSet, fmt, time::Duration};

use alliance_policy::SCHEMA;
use alliance_protocol::{
    gate::{Pack, PackOwner},
    vocabulary::{Country, SafeguardKind, Zone},
};
use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema};
use serde::Serialize;

pub use crate::joint::JointError;
use crate::{
    joint::Side,
    prover::{Prover, Verdict},
};

/// What packs must keep, apart from their rules.
const CLAIMS: &str = include_str!("../claims.cedar");

/// One property of one pack, or of a pair of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// The pack, or the members as `CN to BR`.
    pub about: String,
    pub property: String,
    pub outcome: Outcome,
}

/// How a proof came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// No crossing breaks the property.
    Proven,
    /// This one does; plain Cedar confirms it.
    Refuted { counterexample: String },
    /// Nothing is known.
    NotProven { reason: String },
}

/// The proofs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("the schema cannot be used: {0}")]
    Schema(String),
    #[error("the claims cannot be read: {0}")]
    Claims(String),
    #[error("the pack of {owner} cannot be read: {reason}")]
    Pack { owner: PackOwner, reason: String },
    #[error(transparent)]
    Joint(#[from] JointError),
}

/// A region of crossings that a pack must not allow.
struct Claim {
    pack: String,
    text: String,
    region: PolicySet,
}

/// Asks one solver one question after another.
pub struct Proofs {
    plain: Prover,
    joint: Prover,
    claims: Vec<Claim>,
}

impl Outcome {
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        matches!(self, Self::Proven)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven => f.write_str("proven"),
            Self::Refuted { counterexample } => write!(f, "refuted: {counterexample}"),
            Self::NotProven { reason } => write!(f, "not proven: {reason}"),
        }
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Proven => Self::Proven,
            Verdict::Refuted(found) => Self::Refuted { counterexample: found.facts.to_string() },
            Verdict::NotProven(reason) => Self::NotProven { reason: reason.to_string() },
        }
    }
}

impl Proofs {
    /// Prepares; `limit` is the time for one question. Whether there is a solver shows when it is asked.
    ///
    /// # Errors
    /// The schema or the claims that the program was built with cannot be used.
    pub fn new(limit: Duration) -> Result<Self, ProofError> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| ProofError::Schema(error.to_string()))?;
        let joint = joint::joint_schema(SCHEMA)?;
        Ok(Self { plain: Prover::new(schema, limit), joint: Prover::new(joint, limit), claims: claims()? })
    }

    /// Everything that is proven of one pack by itself.
    ///
    /// # Errors
    /// The text of the pack cannot be read.
    pub async fn pack(&mut self, pack: &Pack) -> Result<Vec<Proof>, ProofError> {
        let policies = read(pack)?;
        let about = pack.owner.to_string();
        let proof = |property: String, outcome| Proof { about: about.clone(), property, outcome };
        let mut failing = Outcome::Proven;
        for (id, verdict) in self.plain.never_errors(&policies).await {
            failing = match (failing, Outcome::from(verdict)) {
                (Outcome::Proven, Outcome::Proven) => Outcome::Proven,
                (Outcome::Proven, Outcome::Refuted { counterexample }) => {
                    Outcome::Refuted { counterexample: format!("rule {id}: {counterexample}") }
                }
                (Outcome::Proven, Outcome::NotProven { reason }) => {
                    Outcome::NotProven { reason: format!("rule {id}: {reason}") }
                }
                (first, _) => first,
            };
        }
        let mut proofs = vec![proof("no rule can fail".to_owned(), failing)];
        let name = match pack.owner {
            PackOwner::Alliance => "alliance".to_owned(),
            PackOwner::Member(country) => country.to_string(),
            PackOwner::House => return Ok(proofs),
        };
        for claim in self.claims.iter().filter(|claim| claim.pack == name) {
            let verdict = self.plain.disjoint(&policies, &claim.region).await;
            proofs.push(proof(claim.text.clone(), verdict.into()));
        }
        Ok(proofs)
    }

    /// What is proven of crossings from one member to another under both laws and the baseline together.
    ///
    /// # Errors
    /// A text cannot be read or put beside the others.
    pub async fn pair(&mut self, from: &Pack, to: &Pack, baseline: &Pack) -> Result<Vec<Proof>, ProofError> {
        let about = format!("{} to {}", from.owner, to.owner);
        let proof = |property: &str, verdict: Verdict| Proof {
            about: about.clone(),
            property: property.to_owned(),
            outcome: verdict.into(),
        };
        let of_from = joint::forbids(&complete(from)?, Side::X, "export")?;
        let of_to = joint::forbids(&complete(to)?, Side::Y, "import")?;
        let of_both = joint::forbids(&complete(baseline)?, Side::Baseline, "export")?;
        let all = joint::set(of_from.iter().chain(&of_to).chain(&of_both).cloned())?;
        let (part_from, part_to) = (joint::set(of_from.clone())?, joint::set(of_to.clone())?);
        let region = |condition: &str| {
            let text = format!("permit (principal, action, resource) when {{ {condition} }};");
            text.parse::<PolicySet>().map_err(|error| ProofError::Claims(error.to_string()))
        };
        let secrets =
            region("context.labels.contains(Label::\"state_secret\") || context.labels.contains(Label::\"core\")")?;
        let banned = region("context.regulator_ban_x || context.regulator_ban_y || context.regulator_ban_other")?;
        let everything: BTreeSet<String> = SafeguardKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
        let granted_from = joint::set(joint::with_everything(&of_from, "safeguards_y", &everything)?)?;
        let granted_to = joint::set(joint::with_everything(&of_to, "safeguards_x", &everything)?)?;
        let prover = &mut self.joint;
        Ok(vec![
            proof("state secrets and core data never cross", prover.disjoint(&all, &secrets).await),
            proof("a ban of any authority concerned overrides every safeguard", prover.disjoint(&all, &banned).await),
            proof("nothing crosses that the baseline forbids", prover.implies(&all, &joint::set(of_both.clone())?).await),
            proof("nothing crosses that the exporter's law forbids", prover.implies(&all, &part_from).await),
            proof("nothing crosses that the importer's law forbids", prover.implies(&all, &part_to).await),
            proof(
                "no safeguard of the importer's authority satisfies the exporter's law",
                prover.equivalent(&part_from, &granted_from).await,
            ),
            proof(
                "no safeguard of the exporter's authority satisfies the importer's law",
                prover.equivalent(&part_to, &granted_to).await,
            ),
        ])
    }

    /// Whether a new text of a pack allows nothing that the old one denies; if it does, a crossing that shows it.
    ///
    /// # Errors
    /// A text cannot be read.
    pub async fn newly_allowed(&mut self, old: &Pack, new: &Pack) -> Result<Outcome, ProofError> {
        let [old, new] = [old, new].map(|pack| only_what_is_asked(read(pack)?, pack.owner));
        Ok(self.plain.newly_allowed(&old?, &new?).await.into())
    }
}

/// All ordered pairs of members.
pub fn pairs(members: &[Country]) -> impl Iterator<Item = (Country, Country)> {
    members.iter().flat_map(move |from| members.iter().filter(move |to| *to != from).map(move |to| (*from, *to)))
}

/// The rules of a pack, law and directives together, named by their ids.
fn read(pack: &Pack) -> Result<PolicySet, ProofError> {
    let fail = |reason: String| ProofError::Pack { owner: pack.owner, reason };
    let mut policies = Vec::new();
    for text in [&pack.law, &pack.directives] {
        let parsed: PolicySet = text.parse().map_err(|error: cedar_policy::ParseErrors| fail(error.to_string()))?;
        for policy in parsed.policies() {
            let id = policy.annotation("id").ok_or_else(|| fail("a rule has no `@id`".to_owned()))?;
            policies.push(policy.new_id(PolicyId::new(id)));
        }
    }
    PolicySet::from_policies(policies).map_err(|error| fail(error.to_string()))
}

/// A text with what it is never asked about denied, so that two texts are compared over crossings that can be: a member's law
/// is asked about what leaves it, enters it or is about its people, and a zone lies in its own country.
fn only_what_is_asked(policies: PolicySet, owner: PackOwner) -> Result<PolicySet, ProofError> {
    let fail = |reason: String| ProofError::Pack { owner, reason };
    let mut never = Vec::new();
    if let PackOwner::Member(member) = owner {
        for (action, asked) in [
            ("export", format!("context.from.country == Country::\"{member}\"")),
            ("import", format!("context.to.country == Country::\"{member}\"")),
            ("concern", format!("context.subjects.contains(Country::\"{member}\")")),
        ] {
            never.push(format!("forbid (principal, action == Action::\"{action}\", resource) unless {{ {asked} }};"));
        }
    }
    for (end, zone) in ["from", "to"].into_iter().flat_map(|end| Zone::ALL.iter().map(move |zone| (end, zone))) {
        never.push(format!(
            "forbid (principal, action, resource) when {{ context.{end}.zone == Zone::\"{zone}\" && \
             context.{end}.country != Country::\"{}\" }};",
            zone.country()
        ));
    }
    let mut all: Vec<Policy> = policies.policies().cloned().collect();
    for (number, text) in never.iter().enumerate() {
        let id = PolicyId::new(format!("never asked {number}"));
        all.push(Policy::parse(Some(id), text).map_err(|error| fail(error.to_string()))?);
    }
    PolicySet::from_policies(all).map_err(|error| fail(error.to_string()))
}

/// As [`read`], for a pack whose prohibitions are the whole list of what it denies: only such packs can be put together.
fn complete(pack: &Pack) -> Result<PolicySet, ProofError> {
    let policies = read(pack)?;
    let residual = |policy: &Policy| policy.effect() == Effect::Permit && policy.annotation("status") == Some("residual");
    if !policies.policies().any(residual) {
        let reason = "it has no residual rule, so what it denies is not only what it forbids".to_owned();
        return Err(ProofError::Pack { owner: pack.owner, reason });
    }
    Ok(policies)
}

fn claims() -> Result<Vec<Claim>, ProofError> {
    let fail = |reason: String| ProofError::Claims(reason);
    let parsed: PolicySet = CLAIMS.parse().map_err(|error: cedar_policy::ParseErrors| fail(error.to_string()))?;
    let mut policies: Vec<&Policy> = parsed.policies().collect();
    policies.sort_by_key(|policy| policy.annotation("id").unwrap_or_default().to_owned());
    let one = |policy: &Policy| {
        let annotation = |name: &str| {
            policy.annotation(name).map(str::to_owned).ok_or_else(|| fail(format!("a claim has no `@{name}`")))
        };
        let id = PolicyId::new(annotation("id")?);
        let region = PolicySet::from_policies([policy.new_id(id)]).map_err(|error| fail(error.to_string()))?;
        Ok(Claim { pack: annotation("pack")?, text: annotation("claim")?, region })
    };
    policies.into_iter().map(one).collect()
}
