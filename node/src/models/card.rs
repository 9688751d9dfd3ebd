//! Model cards: what the `README.md` of a model says of it in its front matter, as on the Hugging Face Hub.
//!
//! A card is read for defaults and proposals. Labels come from it only where it has some in so many words, under `alliance:`;
//! nothing else in a card is ever made into a label. What it says of languages, data sets and base models is kept as a claim.
//!
//! - `front`: the front matter in the file, and the YAML of it; `licence`: its names and those of SPDX
//! - [`choices`]: what an operator chooses and what the card says, together, make an import
//! - [`proposal`]: labels that a card suggests
//! - [`written`]: the card of a model that is exported

use std::{collections::BTreeSet, fmt::Display, io, io::Read as _, path::Path, str::FromStr};

use alliance_protocol::{
    limits,
    manifest::is_printable,
    offer::CardFacts,
    vocabulary::{Artefact, Circumstance, Country, Evidence, Label},
};

use super::tree::{TreeError, open_inside};

pub mod choices;
mod front;
mod licence;
pub mod proposal;
pub mod written;

use self::front::{FRONT_BYTES_MAX, Kind, Node};

pub use self::{
    choices::{Choices, Completed, Member, NoLabels},
    front::FrontError,
    proposal::{Proposal, propose},
};

/// The file that is the card of a model, at the top of its directory.
pub const CARD_FILE: &str = "README.md";

/// Bytes of a file that are read for its front matter: that, and blanks before it. How long the text after it is does not
/// matter.
const READ_BYTES_MAX: usize = FRONT_BYTES_MAX + 4096;

/// What is read of a card. Real ones have many more keys.
const WANTED: &[&str] = &[
    "license",
    "license_name",
    "license_link",
    "language",
    "datasets",
    "base_model",
    "tags",
    "pipeline_tag",
    "library_name",
    "extra_gated_prompt",
    "extra_gated_fields",
    OWN,
];

/// The key of this project.
const OWN: &str = "alliance";

/// What an export writes under `alliance:` besides what an import reads: how the model came, which an import has no reason to
/// believe.
const EXPORTED: &[&str] = &["name", "manifest", "original_card", "crossing"];

/// A model card, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// As on the Hugging Face Hub: `apache-2.0`, `llama3`, `other`.
    pub license: Vec<String>,
    pub license_name: Option<String>,
    pub license_link: Option<String>,
    pub languages: Vec<String>,
    pub datasets: Vec<String>,
    pub base_models: Vec<String>,
    pub tags: Vec<String>,
    pub pipeline_tag: Option<String>,
    pub library_name: Option<String>,
    /// Whether the Hub gives the model only to those who were asked something first.
    pub gated: bool,
    pub declared: Declared,
}

/// What a card says under `alliance:`, in the words of the vocabulary. What is not there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub labels: Option<BTreeSet<Label>>,
    pub artefact: Option<Artefact>,
    pub origin: Option<Country>,
    pub subjects: Option<BTreeSet<Country>>,
    pub people: Option<u64>,
    pub circumstances: Option<BTreeSet<Circumstance>>,
    pub evidence: Option<BTreeSet<Evidence>>,
    /// An SPDX expression.
    pub licence: Option<String>,
}

/// Why a card cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("cannot read `{CARD_FILE}`: {source}; check the disk")]
    Read { source: io::Error },
    #[error("`{CARD_FILE}`: {0}")]
    Front(#[from] FrontError),
    #[error("`{CARD_FILE}`, line {line}: `{member}` {why}")]
    Member { line: usize, member: String, why: String },
}

impl Card {
    /// Reads the card of the model in a directory; none where it has no `README.md`, or one without front matter. As with all
    /// files of an artefact, a link may not lead out of the directory.
    ///
    /// # Errors
    /// The file cannot be read, or what it says under a key that matters makes no sense.
    pub fn read(dir: &Path) -> Result<Option<Self>, CardError> {
        let root = dir.canonicalize().map_err(|_| TreeError::NotADirectory { path: dir.to_owned() })?;
        let file = match open_inside(&root, CARD_FILE) {
            Ok((file, _)) => file,
            Err(TreeError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        let limit = u64::try_from(READ_BYTES_MAX).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut bytes).map_err(|source| CardError::Read { source })?;
        Self::of(&bytes)
    }

    /// Reads a card from the text of a `README.md`. One without front matter says nothing.
    ///
    /// # Errors
    /// What it says under a key that matters makes no sense.
    pub fn parse(text: &str) -> Result<Self, CardError> {
        Ok(Self::of(text.as_bytes())?.unwrap_or_default())
    }

    fn of(file: &[u8]) -> Result<Option<Self>, CardError> {
        let Some(front) = front::cut(file)? else { return Ok(None) };
        let mut card = Self::default();
        for (key, node) in front.fields(WANTED)?.wanted {
            card.take(&key, &node)?;
        }
        Ok(Some(card))
    }

    fn take(&mut self, key: &str, node: &Node) -> Result<(), CardError> {
        match key {
            "license" => self.license = words(key, node)?,
            "license_name" => self.license_name = word(key, node)?,
            "license_link" => self.license_link = word(key, node)?,
            "language" => self.languages = words(key, node)?,
            "datasets" => self.datasets = words(key, node)?,
            "base_model" => self.base_models = words(key, node)?,
            "tags" => self.tags = words(key, node)?,
            "pipeline_tag" => self.pipeline_tag = word(key, node)?,
            "library_name" => self.library_name = word(key, node)?,
            OWN => self.declared = Declared::of(node)?,
            _ => self.gated |= node.kind != Kind::Nothing,
        }
        Ok(())
    }

    /// Its licence as an SPDX expression: what it says under `alliance:`, and otherwise what it says to the Hub; none where it
    /// says nothing of it.
    #[must_use]
    pub fn licence(&self) -> Option<String> {
        let own = self.declared.licence.clone();
        own.or_else(|| licence::spdx(&self.license, self.license_name.as_deref()))
    }

    /// What it claims of where the model comes from; none where it claims nothing.
    #[must_use]
    pub fn facts(&self) -> Option<CardFacts> {
        CardFacts::new(self.languages.iter().cloned(), self.datasets.iter().cloned(), self.base_models.iter().cloned())
    }
}

impl Declared {
    fn of(node: &Node) -> Result<Self, CardError> {
        let mut declared = Self::default();
        let entries = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Nothing => return Ok(declared),
            Kind::Word(_) | Kind::List(_) | Kind::Alias => {
                return Err(wrong(OWN, node, "is no list of keys with values; write `labels: [...]` beneath it"));
            }
        };
        for (key, node) in entries {
            let member = format!("{OWN}.{key}");
            match key.as_str() {
                "labels" => declared.labels = labels(&member, node)?,
                "artefact" => declared.artefact = parsed(&member, node)?,
                "origin" => declared.origin = parsed(&member, node)?,
                "subjects" => declared.subjects = set(&member, node)?,
                "people" => declared.people = number(&member, node)?,
                "circumstances" => declared.circumstances = set(&member, node)?,
                "evidence" => declared.evidence = set(&member, node)?,
                "licence" => declared.licence = licence_of(&member, node)?,
                key if EXPORTED.contains(&key) => {}
                _ => return Err(unknown(&member, node)),
            }
        }
        Ok(declared)
    }
}

fn unknown(member: &str, node: &Node) -> CardError {
    let known = "labels, artefact, origin, subjects, people, circumstances, evidence, licence";
    let member: String = member.chars().take(limits::NAME_BYTES_MAX).collect();
    wrong(&member, node, &format!("is not known; known are: {known}"))
}

fn wrong(member: &str, node: &Node, why: &str) -> CardError {
    CardError::Member { line: node.line, member: member.to_owned(), why: why.to_owned() }
}

/// A word that can be shown, or none where nothing stands there.
fn word(member: &str, node: &Node) -> Result<Option<String>, CardError> {
    match &node.kind {
        Kind::Nothing => Ok(None),
        Kind::Word(word) if word.len() > limits::TEXT_BYTES_MAX => {
            Err(wrong(member, node, &format!("has more than {} bytes", limits::TEXT_BYTES_MAX)))
        }
        // Text over several lines is one line with blanks.
        Kind::Word(word) => {
            let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
            match (word.is_empty(), is_printable(&word)) {
                (true, _) => Ok(None),
                (false, true) => Ok(Some(word)),
                (false, false) => Err(wrong(member, node, "has characters that cannot be shown")),
            }
        }
        Kind::Alias => Err(wrong(member, node, "is an alias; write out what it stands for")),
        Kind::List(_) => Err(wrong(member, node, "is a list; write one word")),
        Kind::Map(_) => Err(wrong(member, node, "has keys beneath it; write one word")),
    }
}

/// One word or a list of words.
fn words(member: &str, node: &Node) -> Result<Vec<String>, CardError> {
    match &node.kind {
        Kind::List(items) => items.iter().filter_map(|item| word(member, item).transpose()).collect(),
        Kind::Nothing | Kind::Word(_) | Kind::Map(_) | Kind::Alias => Ok(word(member, node)?.into_iter().collect()),
    }
}

/// A word of a closed list.
fn parsed<T: FromStr<Err: Display>>(member: &str, node: &Node) -> Result<Option<T>, CardError> {
    let parse =
        |word: String| word.parse().map_err(|error: T::Err| wrong(member, node, &format!("does not hold: {error}")));
    word(member, node)?.map(parse).transpose()
}

/// A set of words of a closed list; one word is a set too.
fn set<T: FromStr<Err: Display> + Ord>(member: &str, node: &Node) -> Result<Option<BTreeSet<T>>, CardError> {
    match &node.kind {
        Kind::List(items) => {
            items.iter().filter_map(|item| parsed(member, item).transpose()).collect::<Result<_, _>>().map(Some)
        }
        Kind::Nothing | Kind::Word(_) | Kind::Map(_) | Kind::Alias => {
            Ok(parsed(member, node)?.map(|one| BTreeSet::from([one])))
        }
    }
}

fn labels(member: &str, node: &Node) -> Result<Option<BTreeSet<Label>>, CardError> {
    match set(member, node)? {
        Some(labels) if labels.is_empty() => Err(wrong(member, node, "is empty; name labels, or leave it out")),
        labels => Ok(labels),
    }
}

fn number(member: &str, node: &Node) -> Result<Option<u64>, CardError> {
    let parse = |word: String| word.parse().map_err(|_| wrong(member, node, "is not a whole number"));
    word(member, node)?.map(parse).transpose()
}

fn licence_of(member: &str, node: &Node) -> Result<Option<String>, CardError> {
    match word(member, node)? {
        Some(licence) if licence.len() > limits::NAME_BYTES_MAX => {
            Err(wrong(member, node, &format!("has more than {} bytes", limits::NAME_BYTES_MAX)))
        }
        licence => Ok(licence),
    }
}

#[cfg(test)]
mod tests;
