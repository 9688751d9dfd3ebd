//! `alliance label`: says what a model is about that was uploaded without labels, or that was labelled otherwise before.

use alliance_protocol::core::admin::{AdminCall, LocalModel, OfferDraft, OfferView, Reply};
use clap::Args;
use serde::Serialize;

use super::{
    Context, Problem,
    model::{self, Import, Of, Said},
    problem::disk,
    words::Name,
};
use crate::{
    exit::Exit,
    shelf::{Shelf, ShelfError, Shelved, Version},
};

/// Say what a model of this node is about, so that it can be offered
///
/// A model that was uploaded without labels is private: nobody reads it. With labels it is imported from where it lies, and
/// offered as an upload is, unless it was made private. One that is here already is imported again: what is not given stays as it
/// is known, but for labels of parts of it, which have to be given again; its card changes none of that. Its offers end then, and
/// you offer it anew. You are accountable for the labels.
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
        let (of, dir, said, offered) = match known {
            Some(known) if known.crossing.is_some() => {
                let message =
                    format!("`{}` came by a crossing; what it is about is for the node to say that offered it", self.name);
                return Err(Problem::new(Exit::Usage, message));
            }
            Some(known) => {
                let (dir, said) = (known.path.clone(), self.said.or_of(&known));
                (Of::Known(Box::new(known)), dir, said, false)
            }
            None => {
                let (state, version) = uploaded(&shelf, &self.name)?;
                let (dir, dataset, offered) = (shelf.files(&self.name.0, &version), state.dataset, !state.private);
                (Of::Uploaded { shelf, version, dataset }, dir, self.said, offered)
            }
        };
        let (model, notes) = Import::of(of, dir, self.name.clone(), said).imported(context, &daemon).await?;
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
                None => format!("not offered by this: alliance offer list, alliance offer publish {}", self.name),
            };
            format!("labelled\n{}{notes}\n{offer}", model::fields(&labelled.model))
        }))
    }
}

/// What was uploaded under a name, and its newest version.
fn uploaded(shelf: &Shelf, name: &Name) -> Result<(Shelved, Version), Problem> {
    let state = shelf.get(&name.0)?;
    let version = state.as_ref().and_then(|state| state.version.clone());
    match state.zip(version) {
        Some(found) => Ok(found),
        None => {
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
