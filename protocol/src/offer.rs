//! What nodes say to the whole mesh: where they are, what they offer, and what they take back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    envelope::Statement,
    id::{ManifestId, Sha256, StatementId},
    key::PublicKey,
    limits,
    manifest::{Part, PartsError, check_parts, is_printable},
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
    #[error("what it says of its model card does not hold: {0}")]
    Card(BadCardFacts),
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
                model.provenance.check_card().map_err(OutOfBounds::Card)?;
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
    /// What its model card claims, where it was imported with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<Box<CardFacts>>,
}

impl Provenance {
    /// Checks the bounds of what the model card claims.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn check_card(&self) -> Result<(), BadCardFacts> {
        self.card.as_deref().map_or(Ok(()), CardFacts::within_bounds)
    }
}

/// What a model card claims of where a model comes from. Claims for people: no law and no term of an offer reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFacts {
    /// Codes of the languages that it is for, as the card has them.
    pub languages: BTreeSet<String>,
    /// Names of the data sets that it was trained on.
    pub datasets: BTreeSet<String>,
    /// Names of the models that it was made from.
    pub base_models: BTreeSet<String>,
    /// How many more the card names, which the bounds left no room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

/// Which bound does not hold of what a model card claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCardFacts {
    #[error("it claims nothing; then it is left out")]
    Empty,
    #[error("it has more than {max} names of one kind", max = limits::CARD_NAMES_MAX)]
    TooMany,
    #[error("a name is empty, has more than {max} bytes, or cannot be shown", max = limits::NAME_BYTES_MAX)]
    Name,
    #[error("its names have more than {max} bytes together", max = limits::CARD_BYTES_MAX)]
    TooLong,
}

impl CardFacts {
    /// As much of this as the bounds have room for; none where it claims nothing. Models that it was made from come before
    /// data sets, and those before languages: the fewer there are of them, the more each says. What is no name is left out.
    #[must_use]
    pub fn new(
        languages: impl IntoIterator<Item = String>,
        datasets: impl IntoIterator<Item = String>,
        base_models: impl IntoIterator<Item = String>,
    ) -> Option<Self> {
        let (mut room, mut left_out) = (limits::CARD_BYTES_MAX, 0_u32);
        let mut fitting = |names: &mut dyn Iterator<Item = String>| {
            let mut kept = BTreeSet::new();
            for name in names.filter(|name| !name.is_empty()).collect::<BTreeSet<_>>() {
                let rest = room.checked_sub(name.len()).filter(|_| kept.len() < limits::CARD_NAMES_MAX && is_name(&name));
                match rest {
                    Some(rest) => {
                        room = rest;
                        kept.insert(name);
                    }
                    None => left_out = left_out.saturating_add(1),
                }
            }
            kept
        };
        let base_models = fitting(&mut base_models.into_iter());
        let datasets = fitting(&mut datasets.into_iter());
        let languages = fitting(&mut languages.into_iter());
        let facts = Self { languages, datasets, base_models, left_out };
        facts.within_bounds().is_ok().then_some(facts)
    }

    fn within_bounds(&self) -> Result<(), BadCardFacts> {
        let all = [&self.languages, &self.datasets, &self.base_models];
        if all.iter().all(|names| names.is_empty()) && self.left_out == 0 {
            return Err(BadCardFacts::Empty);
        }
        if all.iter().any(|names| names.len() > limits::CARD_NAMES_MAX) {
            return Err(BadCardFacts::TooMany);
        }
        if !all.iter().all(|names| names.iter().all(|name| is_name(name))) {
            return Err(BadCardFacts::Name);
        }
        // At most 3 * 256 names of at most 128 bytes.
        let bytes: usize = all.iter().flat_map(|names| names.iter()).map(String::len).sum();
        if bytes > limits::CARD_BYTES_MAX { Err(BadCardFacts::TooLong) } else { Ok(()) }
    }
}

/// Whether a name in a card can be kept and shown.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && is_printable(name)
}

// As serde calls it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
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

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_card_claims_is_kept_as_far_as_there_is_room() {
        assert_eq!(CardFacts::new(names(&[]), names(&[""]), names(&[])), None);
        let facts = CardFacts::new(names(&["pt", "en", "en"]), names(&["a\u{202e}b"]), names(&["usp/base"])).expect("some");
        assert_eq!(facts.languages, ["en".to_owned(), "pt".to_owned()].into());
        assert_eq!((facts.datasets.len(), facts.left_out), (0, 1), "what cannot be shown is counted");
        let many = || (0..1000).map(|number| format!("d{number:04}"));
        let facts = CardFacts::new(many(), many(), names(&["usp/base"])).expect("some");
        assert_eq!((facts.base_models.len(), facts.datasets.len()), (1, limits::CARD_NAMES_MAX));
        assert_eq!(facts.left_out, 2000 - 256 - u32::try_from(facts.languages.len()).expect("few"));
        let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
        let of = |languages: Vec<String>, left_out| CardFacts {
            languages: languages.into_iter().collect(),
            left_out,
            ..CardFacts::default()
        };
        let wide = || (0..40).map(|number| format!("{number:0100}"));
        for (facts, bound) in [
            (of(vec![], 0), Err(BadCardFacts::Empty)),
            (of(vec![], 1), Ok(())),
            (of(many().take(257).collect(), 0), Err(BadCardFacts::TooMany)),
            (of(vec![String::new()], 0), Err(BadCardFacts::Name)),
            (of(vec![long], 0), Err(BadCardFacts::Name)),
            (of(vec!["a\tb".to_owned()], 0), Err(BadCardFacts::Name)),
            (of(wide().collect(), 0), Err(BadCardFacts::TooLong)),
            (of(wide().take(30).collect(), 0), Ok(())),
        ] {
            let provenance = Provenance { card: Some(Box::new(facts)), ..Provenance::default() };
            assert_eq!(provenance.check_card(), bound);
        }
    }

    #[test]
    fn names_have_two_plain_parts() {
        assert_eq!(split_name("usp/amazonia-7b.v1_2"), Ok(("usp", "amazonia-7b.v1_2")));
        for bad in ["", "usp", "/x", "usp/", "usp/../x", "usp/..", ".a/b", "a/b/c", "a b/c", "\u{430}/b"] {
            assert!(split_name(bad).is_err(), "{bad}");
        }
    }
}
