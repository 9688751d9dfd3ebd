//! `alliance label`: says what a model is about that was uploaded without labels, or that was labelled otherwise before.

use std::path::PathBuf;

use alliance_protocol::{
    core::admin::{AdminCall, LocalModel, OfferDraft, OfferView, Reply},
    vocabulary::Artefact,
};
use clap::Args;
use serde::Serialize;

use super::{
    Context, Problem,
    model::{self, Import, Said},
    problem::disk,
    words::Name,
};
use crate::{
    exit::Exit,
    shelf::{Shelf, ShelfError, Shelved},
};

/// Say what a model of this node is about, so that it can be offered
///
/// A model that was uploaded without labels is private: nobody reads it. With labels it is imported from where it lies, and
/// offered as an upload is, unless it was made private. One that is here already is imported again with other labels; its offers
/// end then, and you offer it anew. You are accountable for the labels.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  alliance label usp/amazonia-7b --labels public,non_personal\n  \
    alliance label usp/clinic-lora --labels personal,health --subjects BR --no-offer")]
pub(super) struct Label {
    /// The name under which it was uploaded or imported
    #[arg(value_name = "ORG/NAME")]
    name: Name,
    #[command(flatten)]
    said: Said,
    /// Do not offer it
    #[arg(long)]
    no_offer: bool,
}

/// A model that was labelled, and the offer of it.
#[derive(Serialize)]
struct Labelled {
    #[serde(flatten)]
    model: Box<LocalModel>,
    offer: Option<Box<OfferView>>,
}

impl Label {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let shelf = Shelf::of_home(context.home()?.root());
        let daemon = context.daemon().await?;
        let known = model::list(&daemon).await?.into_iter().find(|model| model.name == self.name.0);
        let (dir, said, offered) = match known {
            Some(known) => (known.path.clone(), self.said.or_of(&known), false),
            None => {
                let (dir, state) = uploaded(&shelf, &self.name)?;
                let usual = state.dataset.then_some(Artefact::Dataset);
                (dir, self.said.or_artefact(usual), !state.private)
            }
        };
        let (model, notes) = Import::of(dir, self.name.clone(), said).imported(context, &daemon).await?;
        let offer = match offered && !self.no_offer {
            true => match daemon.call(&AdminCall::Publish(OfferDraft::usual(&self.name.0))).await? {
                Reply::Published(offer) => Some(offer),
                _ => return Err(super::problem::unexpected()),
            },
            false => None,
        };
        let labelled = Labelled { model, offer };
        Ok(context.screen.one(&labelled, || {
            let offer = match &labelled.offer {
                Some(offer) => format!("offered until {}", offer.until),
                None => format!("offered to nobody: alliance offer publish {}", self.name),
            };
            format!("labelled\n{}{notes}\n{offer}", model::fields(&labelled.model))
        }))
    }
}

/// Where the files are that were uploaded under a name, and how that was made.
fn uploaded(shelf: &Shelf, name: &Name) -> Result<(PathBuf, Shelved), Problem> {
    let state = shelf.get(&name.0)?;
    let version = state.as_ref().and_then(|state| state.version.clone());
    match (state, version) {
        (Some(state), Some(version)) => Ok((shelf.files(&name.0, &version), state)),
        _ => {
            let message = format!("nothing was uploaded or imported under the name `{name}`");
            Err(Problem::new(Exit::NotFound, message).hint("alliance model import DIR --name ORG/NAME --labels LABELS"))
        }
    }
}

impl From<ShelfError> for Problem {
    fn from(error: ShelfError) -> Self {
        match &error {
            ShelfError::File(file) => Self::of(disk(&file.source), &error),
            _ => Self::of(Exit::Damaged, &error),
        }
    }
}
