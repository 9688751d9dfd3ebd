//! What an operator chooses of a model and what its card says make an import together. Pure: whoever imports, from the command
//! line or over HTTP, completes what was chosen in the same way.

use std::{collections::BTreeSet, fmt};

use alliance_protocol::{
    offer::Provenance,
    vocabulary::{Artefact, Circumstance, Country, Evidence, Label},
};

use super::{Card, licence};
use crate::models::{ImportRequest, LabelsOf};

/// What was chosen; the card stands in for what was not, and what is usual for what neither says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    pub labels: Option<BTreeSet<Label>>,
    pub labels_of: Vec<LabelsOf>,
    /// Otherwise weights.
    pub artefact: Option<Artefact>,
    /// Otherwise the country of the node.
    pub origin: Option<Country>,
    pub subjects: Option<BTreeSet<Country>>,
    pub people: Option<u64>,
    pub circumstances: Option<BTreeSet<Circumstance>>,
    pub evidence: Option<BTreeSet<Evidence>>,
    /// An SPDX expression; otherwise `other`.
    pub licence: Option<String>,
}

/// An import, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    pub request: ImportRequest,
    /// What the card said.
    pub from_card: Vec<Member>,
    /// What the card said otherwise than was chosen. What was chosen counts.
    pub overruled: Vec<Member>,
}

/// Something that both an operator and a card can say of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    Labels,
    Artefact,
    Origin,
    Subjects,
    People,
    Circumstances,
    Evidence,
    Licence,
    Languages,
    Datasets,
    BaseModels,
}

/// Neither the operator nor the card says what the model is about. Nothing is guessed: whoever imports it is accountable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing says what it is about: no label was given, and its card has no `alliance.labels`")]
pub struct NoLabels;

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Labels => "labels",
            Self::Artefact => "artefact",
            Self::Origin => "origin",
            Self::Subjects => "subjects",
            Self::People => "people",
            Self::Circumstances => "circumstances",
            Self::Evidence => "evidence",
            Self::Licence => "licence",
            Self::Languages => "languages",
            Self::Datasets => "datasets",
            Self::BaseModels => "base models",
        })
    }
}

impl Card {
    /// The import of a model of which nothing was chosen: what the card says. `home` is the country of the node.
    ///
    /// # Errors
    /// The card has no labels.
    pub fn request(&self, name: String, home: Country) -> Result<ImportRequest, NoLabels> {
        Ok(Choices::default().complete(Some(self), name, home)?.request)
    }
}

impl Choices {
    /// Completes what was chosen with what the card says. `home` is the country of the node.
    ///
    /// # Errors
    /// Neither has labels.
    pub fn complete(self, card: Option<&Card>, name: String, home: Country) -> Result<Completed, NoLabels> {
        let mut taking = Taking::default();
        let said = card.map(|card| card.declared.clone()).unwrap_or_default();
        let labels = taking.one(Member::Labels, self.labels, said.labels).ok_or(NoLabels)?;
        let artefact = taking.one(Member::Artefact, self.artefact, said.artefact).unwrap_or(Artefact::Weights);
        let origin = taking.one(Member::Origin, self.origin, said.origin).unwrap_or(home);
        let subjects = taking.one(Member::Subjects, self.subjects, said.subjects).unwrap_or_default();
        let people = taking.one(Member::People, self.people, said.people);
        let circumstances = taking.one(Member::Circumstances, self.circumstances, said.circumstances).unwrap_or_default();
        let evidence = taking.one(Member::Evidence, self.evidence, said.evidence).unwrap_or_default();
        let licence = taking.one(Member::Licence, self.licence, card.and_then(Card::licence));
        let facts = card.and_then(Card::facts);
        if let Some(facts) = &facts {
            let named = [
                (Member::Languages, facts.languages.is_empty()),
                (Member::Datasets, facts.datasets.is_empty()),
                (Member::BaseModels, facts.base_models.is_empty()),
            ];
            taking.from_card.extend(named.into_iter().filter(|(_, empty)| !empty).map(|(member, _)| member));
        }
        let request = ImportRequest {
            name,
            artefact,
            labels,
            labels_of: self.labels_of,
            origin,
            subjects,
            provenance: Provenance { people, circumstances, evidence, training: None, card: facts.map(Box::new) },
            licence: licence.unwrap_or_else(|| licence::UNSAID.to_owned()),
            crossing: None,
        };
        Ok(Completed { request, from_card: taking.from_card, overruled: taking.overruled })
    }
}

/// What was taken from the card so far.
#[derive(Debug, Default)]
struct Taking {
    from_card: Vec<Member>,
    overruled: Vec<Member>,
}

impl Taking {
    fn one<T: PartialEq>(&mut self, member: Member, chosen: Option<T>, said: Option<T>) -> Option<T> {
        match (chosen, said) {
            (Some(chosen), said) => {
                if said.is_some_and(|said| said != chosen) {
                    self.overruled.push(member);
                }
                Some(chosen)
            }
            (None, Some(said)) => {
                self.from_card.push(member);
                Some(said)
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn country(code: &str) -> Country {
        code.parse().expect("a country")
    }

    #[test]
    fn what_was_chosen_counts_and_the_card_stands_in_for_the_rest() {
        let card = Card::parse(
            "---\nlicense: apache-2.0\nlanguage: pt\nbase_model: usp/base\nalliance:\n  labels: [personal, health]\n  \
             origin: ZA\n  subjects: [BR]\n  people: 12\n  artefact: adapter\n  evidence: dp_budget\n---\n",
        )
        .expect("a card");
        let request = card.request("usp/x".to_owned(), country("IN")).expect("with labels");
        assert_eq!(request.labels, [Label::Personal, Label::Health].into());
        assert_eq!((request.origin, request.subjects.len(), request.artefact), (country("ZA"), 1, Artefact::Adapter));
        assert_eq!((request.licence.as_str(), request.provenance.people), ("Apache-2.0", Some(12)));
        assert_eq!(request.provenance.evidence, [Evidence::DpBudget].into());
        assert_eq!(request.provenance.card.as_ref().map(|card| card.languages.len()), Some(1));

        let choices = Choices {
            labels: Some([Label::Public].into()),
            people: Some(12),
            licence: Some("MIT".to_owned()),
            ..Choices::default()
        };
        let completed = choices.complete(Some(&card), "usp/x".to_owned(), country("IN")).expect("with labels");
        assert_eq!((completed.request.licence.as_str(), completed.request.labels.len()), ("MIT", 1));
        assert_eq!(completed.overruled, [Member::Labels, Member::Licence], "the same number of people is no other");
        let from_card: Vec<String> = completed.from_card.iter().map(ToString::to_string).collect();
        assert_eq!(from_card, ["artefact", "origin", "subjects", "evidence", "languages", "base models"]);
    }

    #[test]
    fn without_labels_nothing_is_guessed() {
        let card = Card::parse("---\nlicense: mit\ntags: [medical]\n---\n").expect("a card");
        assert_eq!(card.request("usp/x".to_owned(), country("IN")), Err(NoLabels));
        assert_eq!(Choices::default().complete(None, "usp/x".to_owned(), country("IN")), Err(NoLabels));
        let choices = Choices { labels: Some([Label::Public].into()), ..Choices::default() };
        let completed = choices.complete(None, "usp/x".to_owned(), country("IN")).expect("with labels");
        assert_eq!((completed.request.origin, completed.request.licence.as_str()), (country("IN"), "other"));
        assert_eq!((completed.request.artefact, completed.request.provenance), (Artefact::Weights, Provenance::default()));
        assert!(completed.from_card.is_empty() && completed.overruled.is_empty());
    }
}
