//! What nodes say to the whole mesh: where they are, what they offer, and what they take back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    envelope::Statement,
    id::{ManifestId, Sha256, StatementId},
    key::PublicKey,
    limits,
    manifest::{Part, PartsError, check_parts},
    time::{Timestamp, Validity},
    vocabulary::{Artefact, Circumstance, Country, Evidence, Label, Purpose},
};

/// How to reach a node, with the accreditation that says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    pub node: PublicKey,
    /// The bytes of the node's signed accreditation.
    #[serde(with = "serde_bytes")]
    pub accreditation: Vec<u8>,
    /// Multiaddrs of the mesh endpoint.
    pub mesh: Vec<String>,
    /// Socket addresses of the bulk endpoint.
    pub bulk: Vec<String>,
    /// The bytes of the signed [`crate::model_key::ModelKeyBinding`] of the key with which it signs models, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_key: Option<serde_bytes::ByteBuf>,
    /// The version of the charter that the node knows: what it passes on may hold under that one.
    pub charter: u32,
    /// Rises with each record of the node.
    pub serial: u64,
    pub validity: Validity,
}

/// A signed, expiring invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub node: PublicKey,
    /// `organisation/name`, the organisation being the one that the node is accredited for.
    pub name: String,
    pub what: Offered,
    pub terms: Terms,
    /// Where this node offers on what it got from another: the offer that this goes back to, made by the artefact's first
    /// exporter. It has to stand, and to permit this, for as long as anything crosses under this one.
    pub root: Option<StatementId>,
    pub validity: Validity,
}

/// What is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Offered {
    Model(ModelOffer),
    Compute(ComputeOffer),
}

/// What of an offer is beyond the bounds that every node checks before it passes one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    #[error("the artefact has no label")]
    NoLabel,
    #[error("personal data names no country whose people it is about; nobody's law could speak for them")]
    NoSubjects,
    #[error("what it says of its parts does not hold: {0}")]
    Parts(PartsError),
    #[error("the licence has more than {max} bytes", max = limits::NAME_BYTES_MAX)]
    Licence,
    #[error("the name of the accelerator has more than {max} bytes", max = limits::NAME_BYTES_MAX)]
    Accelerator,
}

impl Offered {
    /// Checks the bounds that every node checks. A node that publishes beyond them is taken for one that breaks the rules.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn within_bounds(&self) -> Result<(), OutOfBounds> {
        match self {
            Self::Model(model) if model.labels.is_empty() => Err(OutOfBounds::NoLabel),
            Self::Model(model) if model.subjects.is_empty() && model.labels.iter().any(|label| label.is_personal()) => {
                Err(OutOfBounds::NoSubjects)
            }
            Self::Model(model) if model.licence.len() > limits::NAME_BYTES_MAX => Err(OutOfBounds::Licence),
            Self::Compute(compute) if compute.accelerator.len() > limits::NAME_BYTES_MAX => Err(OutOfBounds::Accelerator),
            Self::Model(model) => {
                check_parts(&model.parts, &model.labels, model.tensors, model.bytes).map_err(OutOfBounds::Parts)
            }
            Self::Compute(_) => Ok(()),
        }
    }
}

/// A model, an adapter or another artefact that lies at the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOffer {
    pub artefact: Artefact,
    pub manifest: ManifestId,
    pub bytes: u64,
    pub files: u32,
    pub tensors: u32,
    /// The union of the labels of all its tensors and files.
    pub labels: BTreeSet<Label>,
    /// What of it has the same labels, as its manifest says: [`crate::manifest::Manifest::parts`].
    pub parts: Vec<Part>,
    /// Where it was made.
    pub origin: Country,
    /// The countries whose people the data behind it is about.
    pub subjects: BTreeSet<Country>,
    pub provenance: Provenance,
    /// The SPDX expression of its licence, or `other`.
    pub licence: String,
}

/// What the exporter declares of where an artefact comes from, besides its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// How many people its personal data is about; none where nobody counted, which the law takes for more than any number.
    pub people: Option<u64>,
    pub circumstances: BTreeSet<Circumstance>,
    /// Technical evidence that is at hand for it.
    pub evidence: BTreeSet<Evidence>,
    /// Where it was trained, where that can be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Box<TrainingClaim>>,
}

/// What an attestation proves, which comes with the clearance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingClaim {
    /// The hash of the [`crate::training::Attestation`].
    pub attestation: Sha256,
    /// The countries in which its steps ran.
    pub countries: BTreeSet<Country>,
}

/// Compute that the node has to give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeOffer {
    /// For example `H200` or `cpu`.
    pub accelerator: String,
    pub count: u32,
    /// Memory of one accelerator, in MiB.
    pub memory_mib: u64,
    /// How long it may be used, in hours.
    pub hours: u32,
}

/// The conditions of the one who offers. They can only tighten what the law allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Purposes admitted; empty admits all that the law admits.
    pub purposes: BTreeSet<Purpose>,
    /// Countries admitted; empty admits all members.
    pub to: BTreeSet<Country>,
    /// Whether a node that got it may offer it on. These terms hold there too, besides those of that node, and each crossing
    /// from there is decided by itself.
    pub onward: bool,
}

impl Terms {
    /// Why these terms do not admit a crossing for this purpose to a node of this member, if they do not.
    #[must_use]
    pub fn objection(&self, purpose: Purpose, to: Country) -> Option<String> {
        if !self.purposes.is_empty() && !self.purposes.contains(&purpose) {
            return Some(format!("the offer does not admit the purpose `{purpose}`"));
        }
        (!self.to.is_empty() && !self.to.contains(&to)).then(|| format!("the offer does not admit {to}"))
    }
}

/// "This offer of mine no longer stands."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    pub node: PublicKey,
    pub offer: StatementId,
    pub at: Timestamp,
    pub reason: String,
}

impl Statement for NodeRecord {
    const KIND: &'static str = "node-record";
    const BYTES_MAX: usize = 2 * limits::STATEMENT_BYTES_MAX;
}

impl Statement for Offer {
    const KIND: &'static str = "offer";
    /// An offer names, it does not carry: half of this holds every label, purpose and country at once, the rest as many
    /// parts as an artefact has.
    const BYTES_MAX: usize = 8 * 1024;
}

impl Statement for Withdrawal {
    const KIND: &'static str = "withdrawal";
}

/// A name is not of the form `organisation/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name of the form `organisation/name` with letters, digits, `-`, `_` and `.`")]
pub struct BadName(pub String);

/// Splits `organisation/name` and checks both parts.
///
/// # Errors
/// A part is empty, too long, starts with a dot or has a character outside the allowed set.
pub fn split_name(name: &str) -> Result<(&str, &str), BadName> {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= limits::NAME_BYTES_MAX
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    match name.split_once('/') {
        Some((organisation, rest)) if part(organisation) && part(rest) => Ok((organisation, rest)),
        _ => Err(BadName(name.chars().take(limits::NAME_BYTES_MAX).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_plain_parts() {
        assert_eq!(split_name("usp/amazonia-7b.v1_2"), Ok(("usp", "amazonia-7b.v1_2")));
        for bad in ["", "usp", "/x", "usp/", "usp/../x", "usp/..", ".a/b", "a/b/c", "a b/c", "\u{430}/b"] {
            assert!(split_name(bad).is_err(), "{bad}");
        }
    }
}
