//! Labels that a card suggests, each with the reason. Proposals are shown to whoever imports a model and never applied: a tag
//! says what a model is for, and only those who made it know what it was made of.

use alliance_protocol::{manifest::is_printable, vocabulary::Label};

use super::{Card, licence};

/// A label that may fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub label: Label,
    pub because: String,
}

/// Tags, and kinds of task, whose models are often made from data that has a label. Compared as whole words, so that nothing is
/// read into a name.
const TAGGED: &[(Label, &[&str])] = &[
    (Label::Synthetic, &["synthetic", "synthetic-data"]),
    (Label::Financial, &["finance", "financial", "banking"]),
    (Label::Insurance, &["insurance"]),
    (
        Label::Health,
        &["medical", "medicine", "clinical", "health", "healthcare", "ehr", "radiology", "pathology", "medical-imaging"],
    ),
    (
        Label::Biometric,
        &["biometrics", "face-recognition", "face-verification", "speaker-recognition", "speaker-verification"],
    ),
    (Label::Genetic, &["genetics", "genomics", "human-genome"]),
    (Label::Criminal, &["criminal", "crime"]),
    (Label::GeoPrecise, &["geospatial", "remote-sensing", "satellite-imagery"]),
];

/// What a card suggests, in the order of the vocabulary, each label once. Whether a model is about people no card says, so
/// `personal` and `non_personal` are never proposed.
#[must_use]
pub fn propose(card: &Card) -> Vec<Proposal> {
    let mut proposals = Vec::new();
    if let Some(licence) = card.licence().filter(|licence| licence::is_open(licence) && !card.gated) {
        proposals
            .push(Proposal { label: Label::Public, because: format!("by its licence, {licence}, anybody may have it") });
    }
    for (label, tags) in TAGGED {
        let tagged = card.tags.iter().chain(&card.pipeline_tag).find(|tag| tags.iter().any(|known| is_tag(tag, known)));
        if let Some(tag) = tagged.filter(|tag| is_printable(tag)) {
            proposals.push(Proposal { label: *label, because: format!("it has the tag `{tag}`") });
        }
    }
    proposals
}

fn is_tag(tag: &str, known: &str) -> bool {
    tag.replace(['_', ' '], "-").eq_ignore_ascii_case(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_proposed_with_their_reasons() {
        for (card, expected) in [
            ("license: apache-2.0\ntags: [medical, clinical, x]", &["public", "health"][..]),
            ("license: apache-2.0\nextra_gated_prompt: who are you?", &[]),
            ("license: cc-by-nc-4.0\ntags: Medical Imaging", &["health"]),
            ("license: [mit, cc-by-nc-4.0]", &[]),
            ("license: llama3\npipeline_tag: text-generation\ndatasets: usp/clinical-notes", &[]),
            ("tags: [medicalese, biology, genomics, synthetic_data, finance]", &["synthetic", "financial", "genetic"]),
            ("alliance: {licence: MIT}", &["public"]),
            ("", &[]),
        ] {
            let proposed = propose(&Card::parse(&format!("---\n{card}\n---\n")).expect("a card"));
            let labels: Vec<&str> = proposed.iter().map(|proposal| proposal.label.as_str()).collect();
            assert_eq!(labels, expected, "{card}");
            assert!(proposed.iter().all(|proposal| !proposal.because.is_empty()));
        }
        assert!(TAGGED.iter().map(|(label, _)| label).is_sorted(), "in the order of the vocabulary");
    }
}
