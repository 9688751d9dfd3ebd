//! The card of a model that leaves a node's care: the front matter that it had, with what the node knows under `alliance:`.
//!
//! What is written is read again before it is used: where the front matter that was there does not take it, a new one is
//! written in its place.

use std::fmt::{Display, Write as _};

use alliance_protocol::{
    core::admin::LocalModel,
    id::{CrossingId, StatementId},
    key::PublicKey,
    time::Timestamp,
    vocabulary::{Country, Purpose, Use},
};
use serde_json::Value;

use super::{Card, Declared, OWN, front, licence};

/// What the card of an exported model says.
#[derive(Clone, Debug)]
pub struct Passport<'a> {
    pub model: &'a LocalModel,
    /// The file that has the card as it was, beside the new one.
    pub original_card: Option<&'a str>,
    /// How it came, where it came by a crossing.
    pub came: Option<&'a Came>,
}

/// The crossing by which a model came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    pub crossing: CrossingId,
    pub exporter: PublicKey,
    pub organisation: String,
    pub country: Country,
    pub purpose: Purpose,
    pub use_: Use,
    /// When the exporter cleared it.
    pub cleared: Timestamp,
    pub clearance: StatementId,
    /// None where the receipt has only one signature so far.
    pub receipt: Option<StatementId>,
    /// The file with the signed statements, beside the card.
    pub statements: String,
    /// When it has to be gone, where a duty says so.
    pub delete_by: Option<Timestamp>,
}

/// A card, but for the text after its front matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// With the lines around it.
    pub front: String,
    /// Bytes of the original file that its text begins after; the text is kept as it is.
    pub body_at: usize,
    /// Whether what the front matter said was kept.
    pub kept: bool,
}

/// The front matter for a model. `original` is the beginning of the card that it has, at least as long as front matter may be.
#[must_use]
pub fn write(original: Option<&[u8]>, passport: &Passport<'_>) -> Written {
    let block = passport.block();
    let cut = original.map(front::cut);
    let body_at = match &cut {
        Some(Ok(Some(front))) => front.body_at,
        Some(Ok(None) | Err(_)) | None => 0,
    };
    let spliced = match &cut {
        Some(Ok(Some(front))) => spliced(front, &block),
        Some(Ok(None) | Err(_)) | None => None,
    };
    let good = |front: &String| {
        let before = original.and_then(|original| Card::of(original).ok()).flatten();
        let after = Card::parse(front).ok();
        after == before.map(|before| Card { declared: passport.declared(), ..before })
    };
    match spliced.filter(good) {
        Some(front) => Written { front, body_at, kept: true },
        None => Written { front: passport.anew(&block), body_at, kept: false },
    }
}

/// Bytes of a card that [`write()`] looks at.
pub const LOOKED_AT_BYTES: usize = super::READ_BYTES_MAX;

/// Front matter with this block in place of the one of this project, or at its end.
fn spliced(front: &front::Front<'_>, block: &str) -> Option<String> {
    let fields = front.fields(&[]).ok()?;
    if !fields.in_lines {
        return None;
    }
    let lines: Vec<&str> = front.yaml.split_inclusive('\n').collect();
    let own = fields.keys.iter().position(|(key, _)| key == OWN);
    let (from, to) = match own {
        None => (lines.len(), lines.len()),
        Some(at) => {
            let from = fields.keys.get(at)?.1;
            let next = at.checked_add(1).and_then(|next| fields.keys.get(next)).map_or(lines.len(), |(_, line)| *line);
            // What stands before the next key at the beginning of a line is a comment on that.
            let about_next = lines.get(from..next)?.iter().rev();
            let about_next = about_next.take_while(|line| line.trim().is_empty() || line.starts_with('#')).count();
            (from, next.checked_sub(about_next)?)
        }
    };
    let (before, after) = (lines.get(..from)?.concat(), lines.get(to..)?.concat());
    let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    Some(format!("---\n{before}{end}{block}{after}---\n"))
}

impl Passport<'_> {
    /// What whoever imports the card reads of it.
    fn declared(&self) -> Declared {
        let model = self.model;
        let some = |empty: bool| (!empty).then_some(());
        Declared {
            labels: Some(model.labels.clone()),
            artefact: Some(model.artefact),
            origin: Some(model.origin),
            subjects: some(model.subjects.is_empty()).map(|()| model.subjects.clone()),
            people: model.provenance.people,
            circumstances: some(model.provenance.circumstances.is_empty()).map(|()| model.provenance.circumstances.clone()),
            evidence: some(model.provenance.evidence.is_empty()).map(|()| model.provenance.evidence.clone()),
            licence: Some(model.licence.clone()),
        }
    }

    /// The mapping of this project.
    fn block(&self) -> String {
        let (model, declared) = (self.model, self.declared());
        let mut block = format!("{OWN}:\n");
        block
            .push_str("  # Written by `alliance model export`: what the exporting node knows and declares of the model.\n");
        let mut add = |key: &str, value: String| {
            let _ = writeln!(block, "  {key}: {value}");
        };
        add("name", quoted(&model.name));
        add("manifest", quoted(model.manifest));
        add("artefact", model.artefact.to_string());
        add("labels", list(declared.labels.iter().flatten()));
        add("origin", quoted(model.origin));
        if let Some(subjects) = &declared.subjects {
            add("subjects", list(subjects));
        }
        if let Some(people) = declared.people {
            add("people", people.to_string());
        }
        if let Some(circumstances) = &declared.circumstances {
            add("circumstances", list(circumstances));
        }
        if let Some(evidence) = &declared.evidence {
            add("evidence", list(evidence));
        }
        add("licence", quoted(&model.licence));
        if let Some(original) = self.original_card {
            add("original_card", quoted(original));
        }
        if let Some(came) = self.came {
            block.push_str(&came.block());
        }
        block
    }

    /// Front matter for a model that has none that could be kept.
    fn anew(&self, block: &str) -> String {
        let mut front = String::from("---\n");
        let mut add = |key: &str, value: String| {
            let _ = writeln!(front, "{key}: {value}");
        };
        match licence::in_a_card(&self.model.licence) {
            Some(name) => add("license", name.to_owned()),
            None if self.model.licence == licence::UNSAID => {}
            None => {
                add("license", "other".to_owned());
                add("license_name", quoted(&self.model.licence));
            }
        }
        if let Some(card) = &self.model.provenance.card {
            let named = [("language", &card.languages), ("datasets", &card.datasets), ("base_model", &card.base_models)];
            for (key, names) in named.into_iter().filter(|(_, names)| !names.is_empty()) {
                add(key, list(names));
            }
        }
        format!("{front}{block}---\n")
    }
}

impl Came {
    fn block(&self) -> String {
        let mut block = String::from("  crossing:\n");
        let mut add = |key: &str, value: String| {
            let _ = writeln!(block, "    {key}: {value}");
        };
        add("id", quoted(self.crossing));
        add("organisation", quoted(&self.organisation));
        add("country", quoted(self.country));
        add("exporter", quoted(self.exporter));
        add("purpose", self.purpose.to_string());
        add("use", self.use_.to_string());
        add("cleared", quoted(self.cleared));
        add("clearance", quoted(self.clearance));
        if let Some(receipt) = self.receipt {
            add("receipt", quoted(receipt));
        }
        add("statements", quoted(&self.statements));
        if let Some(delete_by) = self.delete_by {
            add("delete_by", quoted(delete_by));
        }
        add("verify", quoted(format!("alliance crossing show {}", self.crossing)));
        block
    }
}

/// As JSON writes text, which YAML reads as the same text whatever it is.
fn quoted(text: impl Display) -> String {
    Value::String(text.to_string()).to_string()
}

fn list<T: Display>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(quoted).collect();
    format!("[{}]", words.join(", "))
}

#[cfg(test)]
mod tests {
    use alliance_protocol::vocabulary::Label;

    use super::*;
    use crate::models::import::tests::{model, request};

    fn local() -> LocalModel {
        let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
        let request = crate::models::ImportRequest {
            labels: [Label::Personal, Label::Health].into(),
            subjects: ["BR".parse().expect("a country"), "NO".parse().expect("a country")].into(),
            ..request()
        };
        crate::models::import(dir.path(), request, manifests.path(), &mut |_, _| {}).expect("imported")
    }

    fn came() -> Came {
        Came {
            crossing: CrossingId([1; 32]),
            exporter: PublicKey([2; 32]),
            organisation: "usp \"x\": #y".to_owned(),
            country: "NO".parse().expect("a country"),
            purpose: Purpose::Research,
            use_: Use::Inference,
            cleared: Timestamp(1_800_000_000_000),
            clearance: StatementId([3; 32]),
            receipt: Some(StatementId([4; 32])),
            statements: "alliance-receipt.json".to_owned(),
            delete_by: Some(Timestamp(1_900_000_000_000)),
        }
    }

    #[test]
    fn a_card_keeps_what_it_said_and_says_what_the_node_knows() {
        let (model, came) = (local(), came());
        let passport = Passport { model: &model, original_card: Some("README.original.md"), came: Some(&came) };
        let rest = "license: mit\nlanguage: [pt, en]\nx: {y: *z}\n".replace("*z", "1");
        for original in [
            format!("---\n{rest}---\n# Text\n---\n"),
            format!("\u{feff}\n---\r\n{}---\r\n# Text\n---\n", rest.replace('\n', "\r\n")),
            format!("---\nalliance:\n  labels: [public]\n  origin: ZA\n\n# of the licence\n{rest}---\n# Text\n---\n"),
            format!("---\n{rest}alliance: {{labels: public}}\n---\n# Text\n---\n"),
            format!("---\n{}---\n# Text\n---\n", rest.replace("x: {y: 1}\n", "x: |\n  alliance:\n    labels: 1\n")),
        ] {
            let written = write(Some(original.as_bytes()), &passport);
            assert!(written.kept, "{original}");
            assert_eq!(original.get(written.body_at..), Some("# Text\n---\n"));
            assert_eq!(written.front.contains("# of the licence"), original.contains("# of the licence"));
            let card = Card::parse(&written.front).expect("a card");
            assert_eq!((card.license.as_slice(), card.languages.len()), (&["mit".to_owned()][..], 2));
            assert_eq!(card.declared, passport.declared());
            let again = write(Some(written.front.as_bytes()), &passport);
            assert_eq!((again.front, again.kept), (written.front, true), "nothing is added twice");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_written_anew() {
        let model = local();
        let passport = Passport { model: &model, original_card: None, came: None };
        for (original, body_at) in [
            (None, 0),
            (Some("# Text\n"), 0),
            (Some("---\nunclosed: 1\n"), 0),
            (Some("---\n{license: mit}\n---\n# Text\n"), 23),
            (Some("---\n  license: mit\n---\n# Text\n"), 23),
            (Some("---\na: [\n---\n# Text\n"), 13),
            (Some("---\nlicense: mit\nalliance: {labels: foo}\n---\n# Text\n"), 45),
        ] {
            let written = write(original.map(str::as_bytes), &passport);
            assert_eq!((written.body_at, written.kept), (body_at, false), "{original:?}");
            let card = Card::parse(&written.front).expect("a card");
            assert_eq!(card.license, ["apache-2.0"]);
            let request = card.request("usp/x".to_owned(), "IN".parse().expect("a country")).expect("labels");
            assert_eq!(
                (request.labels, request.origin, request.subjects),
                (model.labels.clone(), model.origin, model.subjects.clone())
            );
            assert_eq!((request.licence, request.artefact), (model.licence.clone(), model.artefact));
        }
        let odd = LocalModel { licence: "LicenseRef-x".to_owned(), ..model };
        let written = write(None, &Passport { model: &odd, original_card: None, came: None });
        assert!(written.front.contains("license: other\nlicense_name: \"LicenseRef-x\"\n"), "{}", written.front);
    }
}
