//! `alliance offer`: invitations to the whole alliance, and what would become of those of others here.

use alliance_protocol::{
    core::admin::{AdminCall, OfferDraft, OfferView, Reply},
    id::StatementId,
    offer::{ComputeOffer, Offered, Terms},
    vocabulary::{Country, Purpose},
};
use clap::{Args, Subcommand};

use super::{
    Context, Problem, figures,
    problem::unexpected,
    screen::{Fields, Table},
    words::{Name, Span},
};
use crate::{api::ApiClient, exit::Exit};

#[derive(Debug, Subcommand)]
pub(super) enum Offer {
    Publish(Publish),
    /// List the offers that stand, and for which purposes they could cross to this node
    #[command(after_help = "Example:\n  alliance offer list")]
    List,
    /// Show one offer, by its name, its id or the beginning of its id
    #[command(after_help = "Example:\n  alliance offer show usp/amazonia-7b\n  alliance offer show 4f0c")]
    Show {
        offer: String,
    },
    /// Take an offer of this node back
    #[command(after_help = "Example:\n  alliance offer withdraw usp/amazonia-7b --reason 'replaced by 1.1'")]
    Withdraw {
        /// Its name, its id or the beginning of its id
        offer: String,
        /// Why, for those who saw it
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Offer a model of this node, or compute, to the alliance
///
/// Terms can only tighten what the law of both countries allows. Publishing says that the offer exists; nothing moves until
/// somebody pulls, and then both sides decide. A model that was pulled can be offered on where its offer permits that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  alliance offer publish usp/amazonia-7b --purposes research --to IN,ZA --ttl 90d\n  \
    alliance offer publish usp/gpu-hours --compute --accelerator H200 --count 8 --memory-mib 143771 --hours 72")]
pub(super) struct Publish {
    /// For a model, the name it was imported or pulled under; for compute, a new name of this organisation
    #[arg(value_name = "ORG/NAME")]
    name: Name,
    /// Purposes admitted, with commas [default: all that the law admits]
    #[arg(long, value_delimiter = ',', value_name = "PURPOSES")]
    purposes: Vec<Purpose>,
    /// Countries admitted, with commas [default: all members]
    #[arg(long, value_delimiter = ',', value_name = "CC")]
    to: Vec<Country>,
    /// Let nodes that got it offer it on; these terms hold there too, and each crossing from there is decided by itself
    #[arg(long)]
    onward: bool,
    /// How long the offer stands: 12h, 30d, 8w; at most 366 days
    #[arg(long, default_value = "30d", value_name = "SPAN")]
    ttl: Span,
    /// Offer compute instead of a model
    #[arg(long, requires_all = ["accelerator", "count", "memory_mib", "hours"])]
    compute: bool,
    /// The kind of accelerator, such as H200, or cpu
    #[arg(long, requires = "compute")]
    accelerator: Option<String>,
    /// How many
    #[arg(long, requires = "compute", value_name = "N")]
    count: Option<u32>,
    /// Memory of each, in MiB
    #[arg(long, requires = "compute", value_name = "MIB")]
    memory_mib: Option<u64>,
    /// How long it may be used, in hours
    #[arg(long, requires = "compute", value_name = "HOURS")]
    hours: Option<u32>,
}

impl Offer {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let daemon = context.daemon().await?;
        match self {
            Self::Publish(publish) => match daemon.call(&AdminCall::Publish(publish.draft())).await? {
                Reply::Published(offer) => {
                    Ok(context.screen.one(&offer, || format!("published\n{}", fields(context, &offer))))
                }
                _ => Err(unexpected()),
            },
            Self::List => {
                let offers = list(&daemon).await?;
                Ok(context.screen.list(&offers, || table(context, &offers)))
            }
            Self::Show { offer } => {
                let offer = one(list(&daemon).await?, &offer)?;
                Ok(context.screen.one(&offer, || fields(context, &offer).to_string()))
            }
            Self::Withdraw { offer, reason } => {
                let own = list(&daemon).await?.into_iter().filter(|offer| offer.own).collect();
                let offer = withdrawable(own, &offer)?;
                match daemon.call(&AdminCall::Withdraw { offer, reason }).await? {
                    reply @ Reply::Withdrawn { offer } => Ok(context.screen.one(&reply, || format!("withdrawn: {offer}"))),
                    _ => Err(unexpected()),
                }
            }
        }
    }
}

impl Publish {
    fn draft(self) -> OfferDraft {
        let compute = match (self.accelerator, self.count, self.memory_mib, self.hours) {
            (Some(accelerator), Some(count), Some(memory_mib), Some(hours)) => {
                Some(ComputeOffer { accelerator, count, memory_mib, hours })
            }
            _ => None,
        };
        let (purposes, to) = (self.purposes.into_iter().collect(), self.to.into_iter().collect());
        let terms = Terms { purposes, to, onward: self.onward };
        OfferDraft { name: self.name.0, compute, terms, ttl_ms: self.ttl.ms }
    }
}

async fn list(daemon: &ApiClient) -> Result<Vec<OfferView>, Problem> {
    match daemon.call(&AdminCall::Offers).await? {
        Reply::Offers(offers) => Ok(offers),
        _ => Err(unexpected()),
    }
}

/// An id may be of an offer that is not listed any more; the daemon then says what became of it.
fn withdrawable(own: Vec<OfferView>, named: &str) -> Result<StatementId, Problem> {
    match named.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(one(own, named)?.offer),
    }
}

/// The one offer of this name or id.
fn one(offers: Vec<OfferView>, named: &str) -> Result<OfferView, Problem> {
    let fits = |offer: &OfferView| offer.name == named || offer.offer.to_string().starts_with(named);
    let mut found: Vec<OfferView> = offers.into_iter().filter(fits).collect();
    // A name stands for the offer of the first exporter, where that is known too.
    if found.iter().any(|offer| offer.root.is_none()) && found.iter().all(|offer| offer.name == named) {
        found.retain(|offer| offer.root.is_none());
    }
    match (found.pop(), found.len()) {
        (Some(offer), 0) if !named.is_empty() => Ok(offer),
        (None, _) => Err(Problem::new(Exit::NotFound, format!("no offer `{named}` stands")).hint("alliance offer list")),
        (Some(_), others) => {
            let message = format!("`{named}` fits {} offers", others.saturating_add(1));
            Err(Problem::new(Exit::Usage, message).hint("give more of its id: alliance offer list"))
        }
    }
}

fn table(context: &Context, offers: &[OfferView]) -> String {
    let mut table = Table::new(["offer", "name", "country", "what", "size", "labels", "until", "could cross here"]);
    for offer in offers {
        let (what, size, labels) = match &offer.what {
            Offered::Model(model) => {
                (model.artefact.to_string(), figures::size(model.bytes), figures::words(&model.labels, "none"))
            }
            Offered::Compute(compute) => {
                (format!("{} x {}", compute.count, compute.accelerator), String::new(), String::new())
            }
        };
        table.row([
            offer.offer.short(),
            offer.name.clone(),
            offer.country.to_string(),
            what,
            size,
            labels,
            figures::instant(offer.until, context.now),
            preview(offer),
        ]);
    }
    table.to_string()
}

fn preview(offer: &OfferView) -> String {
    let allowed = offer.preview.iter().filter(|(_, allowed)| *allowed).map(|(purpose, _)| purpose);
    match (&offer.what, offer.own, offer.preview.is_empty()) {
        (_, true, _) => "own".to_owned(),
        (Offered::Compute(_), false, _) => "compute".to_owned(),
        (Offered::Model(_), false, true) => "not asked".to_owned(),
        (Offered::Model(_), false, false) => figures::words(allowed, "not as it stands"),
    }
}

fn fields(context: &Context, offer: &OfferView) -> Fields {
    let mut fields = Fields::default();
    fields.add("offer", offer.offer);
    fields.add("name", &offer.name);
    fields.add("node", offer.node);
    fields.add("from", format!("{}, {}", offer.organisation, offer.country));
    match &offer.what {
        Offered::Model(model) => {
            fields.add("artefact", model.artefact);
            fields.add("manifest", model.manifest);
            fields.add("size", format!("{} ({} bytes)", figures::size(model.bytes), model.bytes));
            fields.add("files", model.files);
            fields.add("tensors", model.tensors);
            fields.add("labels", figures::words(&model.labels, "none"));
            figures::parts(&mut fields, &model.parts);
            fields.add("origin", model.origin);
            fields.add("subjects", figures::words(&model.subjects, "none"));
            figures::card(&mut fields, model.provenance.card.as_deref());
            if let Some(training) = &model.provenance.training {
                fields.add("trained in", format!("{}, says the offer", figures::words(&training.countries, "none")));
                fields.add("attestation", training.attestation);
            }
            fields.add("licence", &model.licence);
        }
        Offered::Compute(compute) => {
            fields.add("compute", format!("{} x {}", compute.count, compute.accelerator));
            fields.add("memory of each", format!("{} MiB", compute.memory_mib));
            fields.add("for", format!("{} hours", compute.hours));
        }
    }
    fields.add("purposes", figures::words(&offer.terms.purposes, "all that the law admits"));
    fields.add("to", figures::words(&offer.terms.to, "all members"));
    if let Some(root) = offer.root {
        fields.add("offered on from", root);
    }
    if offer.terms.onward {
        fields.add("onward", "may be offered on by those who got it");
    }
    fields.add("until", figures::instant(offer.until, context.now));
    fields.add("could cross here", preview(offer));
    fields
}
