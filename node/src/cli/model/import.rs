//! `alliance model import`: a directory is hashed and registered; what its card says stands in for what was not given.

use std::path::PathBuf;

use alliance_protocol::{
    core::admin::{AdminCall, LocalModel, Reply},
    vocabulary::{Artefact, Circumstance, Country, Evidence, Label},
};
use clap::Args;

use super::{
    super::{Context, Problem, figures, problem::unexpected, progress, screen::plain, status, words::Name},
    fields,
    signature::{self, Demand},
};
use crate::{
    api::ApiClient,
    exit::Exit,
    models::{
        LabelsOf,
        card::{Card, CardError, Choices, Completed, Declared, propose},
        import, signed,
    },
    shelf::{Shelf, Version},
};

/// What is said of a model; its card stands in for what is not.
#[derive(Debug, Args)]
pub(in super::super) struct Said {
    /// What it is about, with commas: public, non_personal, personal, health, ... [default: `alliance.labels` of its card]
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    pub(in super::super) labels: Vec<Label>,
    /// Tensors or files that have other labels: a pattern of their names with * and ?, `=`, labels with commas
    ///
    /// May be given several times; what fits several has the labels of all. FILES::TENSORS=LABELS is for the tensors of some
    /// files only. The law is asked about each set of labels, and about all of it together.
    #[arg(long, value_name = "PATTERN=LABELS")]
    labels_of: Vec<LabelsOf>,
    /// What it is: weights, adapter, dataset, embedding, ... [default: `alliance.artefact` of its card, or weights]
    #[arg(long, value_name = "KIND")]
    pub(in super::super) artefact: Option<Artefact>,
    /// The country where it was made [default: `alliance.origin` of its card, or this node's]
    #[arg(long, value_name = "CC")]
    pub(in super::super) origin: Option<Country>,
    /// The countries whose people the data behind it is about, with commas [default: `alliance.subjects` of its card]
    #[arg(long, value_delimiter = ',', value_name = "CC")]
    pub(in super::super) subjects: Vec<Country>,
    /// How many people its personal data is about; the law takes unknown for more than any number [default: `alliance.people` of
    /// its card]
    #[arg(long, value_name = "N")]
    pub(in super::super) people: Option<u64>,
    /// What is true of where it comes from, with commas: collection, outbound_investment, ... [default: `alliance.circumstances`
    /// of its card]
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    pub(in super::super) circumstances: Vec<Circumstance>,
    /// Technical evidence that is at hand, with commas: anonymisation_evidence, ai_label, ... [default: `alliance.evidence` of its
    /// card]
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    pub(in super::super) evidence: Vec<Evidence>,
    /// The SPDX expression of its licence [default: `license` of its card, or other]
    #[arg(long, value_name = "SPDX")]
    pub(in super::super) licence: Option<String>,
    /// Take nothing from the card, `README.md`, and do not read it
    #[arg(long)]
    no_card: bool,
}

#[derive(Debug, Args)]
pub(in super::super) struct Import {
    /// The directory that holds the files
    dir: PathBuf,
    /// Its name: ORGANISATION/NAME, the organisation being this node's
    #[arg(long, value_name = "ORG/NAME")]
    name: Name,
    #[command(flatten)]
    said: Said,
    /// The public key, in PEM, of who signed it (`model.sig` beside the files); refuse it otherwise
    #[arg(long, value_name = "FILE")]
    signature_key: Option<PathBuf>,
    /// Refuse it unless a node that is known here has signed it
    #[arg(long)]
    require_signature: bool,
    #[arg(skip)]
    of: Of,
}

/// What it is that is imported.
#[derive(Debug, Default)]
pub(in super::super) enum Of {
    /// A directory of the operator's.
    #[default]
    Directory,
    /// A model that is here. What law reads of it is not the card's to change.
    Known(Box<LocalModel>),
    /// What was uploaded, as long as it is the newest version.
    Uploaded { shelf: Shelf, version: Version, dataset: bool },
}

impl Said {
    /// What is known of a model stands in for what is not said anew; labels of its parts have to be.
    pub(in super::super) fn or_of(self, known: &LocalModel) -> Self {
        fn list<T: Copy>(said: Vec<T>, known: impl IntoIterator<Item = T>) -> Vec<T> {
            if said.is_empty() { known.into_iter().collect() } else { said }
        }
        let given = &known.provenance;
        Self {
            labels: list(self.labels, known.labels.iter().copied()),
            artefact: self.artefact.or(Some(known.artefact)),
            origin: self.origin.or(Some(known.origin)),
            subjects: list(self.subjects, known.subjects.iter().copied()),
            people: self.people.or(given.people),
            circumstances: list(self.circumstances, given.circumstances.iter().copied()),
            evidence: list(self.evidence, given.evidence.iter().copied()),
            licence: self.licence.or_else(|| Some(known.licence.clone())),
            ..self
        }
    }

    /// A list that is empty was not given.
    fn choices(&self) -> Choices {
        let labels = Some(&self.labels).filter(|labels| !labels.is_empty());
        let subjects = Some(&self.subjects).filter(|subjects| !subjects.is_empty());
        let circumstances = Some(&self.circumstances).filter(|circumstances| !circumstances.is_empty());
        let evidence = Some(&self.evidence).filter(|evidence| !evidence.is_empty());
        Choices {
            labels: labels.map(|labels| labels.iter().copied().collect()),
            labels_of: self.labels_of.clone(),
            artefact: self.artefact,
            origin: self.origin,
            subjects: subjects.map(|subjects| subjects.iter().copied().collect()),
            people: self.people,
            circumstances: circumstances.map(|circumstances| circumstances.iter().copied().collect()),
            evidence: evidence.map(|evidence| evidence.iter().copied().collect()),
            licence: self.licence.clone(),
        }
    }
}

impl Import {
    pub(super) async fn run(self, context: &Context, daemon: &ApiClient) -> Result<Exit, Problem> {
        let (model, notes) = self.imported(context, daemon).await?;
        Ok(context.screen.one(&model, || format!("imported\n{}{notes}", fields(&model))))
    }

    /// The import under a name of what lies in a directory, of which this is said.
    pub(in super::super) fn of(of: Of, dir: PathBuf, name: Name, said: Said) -> Self {
        Self { dir, name, said, signature_key: None, require_signature: false, of }
    }

    /// Imports it; gives the model, and what is to be said besides.
    pub(in super::super) async fn imported(
        self,
        context: &Context,
        daemon: &ApiClient,
    ) -> Result<(Box<LocalModel>, String), Problem> {
        let mut card = if self.said.no_card { None } else { Card::read(&self.dir)? };
        let mut choices = self.said.choices();
        match &self.of {
            Of::Directory => {}
            Of::Known(_) => {
                if let Some(card) = &mut card {
                    card.declared = Declared { licence: card.declared.licence.take(), ..Declared::default() };
                }
            }
            Of::Uploaded { dataset, .. } => {
                let said = card.as_ref().and_then(|card| card.declared.artefact);
                choices.artefact = choices.artefact.or(said).or(dataset.then_some(Artefact::Dataset));
            }
        }
        let home = status::ask(daemon).await?.country;
        let completed = match choices.complete(card.as_ref(), self.name.0.clone(), home) {
            Ok(completed) => completed,
            Err(error) => return Err(self.unlabelled(&error, card.as_ref())),
        };
        self.import(context, daemon, completed).await
    }

    /// What to do where nothing says what it is about: the command with what the card suggests, which nobody but the operator
    /// can know to be right.
    fn unlabelled(&self, error: &dyn std::error::Error, card: Option<&Card>) -> Problem {
        let proposals = card.map(propose).unwrap_or_default();
        let mut labels: Vec<Label> = proposals.iter().map(|proposal| proposal.label).collect();
        let personal = labels.iter().any(|label| label.is_personal());
        if !personal {
            labels.push(Label::NonPersonal);
        }
        let suggested = match proposals.as_slice() {
            [] => String::new(),
            some => {
                let one = |proposal: &crate::models::card::Proposal| format!("`{}` ({})", proposal.label, proposal.because);
                format!("; the card suggests {}", figures::words(some.iter().map(one), ""))
            }
        };
        let (dir, name) = (self.dir.display(), &self.name);
        let subjects = if personal { " --subjects CC" } else { "" };
        let labels = figures::words(labels, "").replace(", ", ",");
        let command = match self.of {
            Of::Directory => format!("alliance model import {dir} --name {name} --labels {labels}{subjects}"),
            Of::Known(_) | Of::Uploaded { .. } => format!("alliance label {name} --labels {labels}{subjects}"),
        };
        let hint = if personal {
            format!("if that is what it is about: {command}")
        } else {
            format!(
                "if it is about no people: {command}; else with `personal` in place of `non_personal`, and --subjects CC"
            )
        };
        Problem::new(Exit::Usage, format!("{error} (--labels){suggested}")).hint(hint)
    }

    async fn import(
        self,
        context: &Context,
        daemon: &ApiClient,
        completed: Completed,
    ) -> Result<(Box<LocalModel>, String), Problem> {
        let Completed { request, from_card, overruled } = completed;
        let manifests = context.home()?.manifests_path();
        // What can be refused is refused before a hundred gigabytes are hashed.
        let known = signature::known(context, daemon, self.signature_key.as_deref()).await?;
        let demand = Demand::of(self.signature_key.as_deref(), self.require_signature);
        let dir = self.dir;
        demand.check_there(&dir)?;
        let bar = progress::bytes_bar(&context.screen, "hashing");
        let shown = bar.clone();
        let hashing = tokio::task::spawn_blocking(move || {
            import::read(&dir, request, &mut |done, total| {
                shown.set_length(total);
                shown.set_position(done);
            })
        });
        let read = hashing.await.map_err(|error| Problem::of(Exit::Failed, &error))?;
        bar.finish_and_clear();
        let (model, manifest) = read?;
        let (signed, unverified) = demand.check(signed::check(&model.path, &manifest, &known)?)?;
        import::keep(&manifests, &manifest)?;
        let model = LocalModel { signed: signed.map(Box::new), ..model };
        let model = match daemon.call(&call(self.of, Box::new(model), &self.name)?).await? {
            Reply::Imported(model) => model,
            _ => return Err(unexpected()),
        };
        let mut notes = String::new();
        if !from_card.is_empty() {
            notes.push_str(&format!("\nfrom the card: {}", figures::words(&from_card, "")));
        }
        if !overruled.is_empty() {
            let what = figures::words(&overruled, "");
            notes.push_str(&format!("\nnote: the card says otherwise of: {what}; what was given counts"));
        }
        if let Some(why) = unverified {
            notes.push_str(&format!("\nnote: the signature was not verified: {}", plain(&why)));
        }
        Ok((model, notes))
    }
}

/// How a model is registered: what was there before must not have changed meanwhile.
fn call(of: Of, model: Box<LocalModel>, name: &Name) -> Result<AdminCall, Problem> {
    match of {
        Of::Directory => Ok(AdminCall::Import(model)),
        Of::Known(before) => Ok(AdminCall::Replace { model, before: Some(before) }),
        Of::Uploaded { shelf, version, .. } => {
            let newest = shelf.get(&name.0)?.and_then(|state| state.version);
            if newest.as_ref() != Some(&version) {
                let message = format!("another version of `{name}` was uploaded in the meantime");
                return Err(Problem::new(Exit::Conflict, message).hint("run the same again"));
            }
            Ok(AdminCall::Replace { model, before: None })
        }
    }
}

impl From<CardError> for Problem {
    fn from(error: CardError) -> Self {
        match error {
            CardError::Tree(error) => crate::models::ImportError::from(error).into(),
            CardError::Read { .. } => Self::of(Exit::Disk, &error),
            CardError::Front(_) | CardError::Member { .. } => {
                Self::of(Exit::Usage, &error).hint("mend the card, or import without it: --no-card")
            }
        }
    }
}
