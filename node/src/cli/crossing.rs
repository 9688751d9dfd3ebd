//! `alliance crossing`: what crossed or was not let across, and why.

mod replay;
mod tensors;

use alliance_protocol::{
    core::{
        PartTaken,
        admin::{AdminCall, CrossingState, CrossingView, Reply, Side},
    },
    id::CrossingId,
};
use clap::Subcommand;

use super::{
    Context, Problem,
    denial::{self, Detail},
    figures,
    problem::unexpected,
    screen::{Fields, Table},
};
use crate::{api::ApiClient, exit::Exit};

#[derive(Debug, Subcommand)]
pub(super) enum Crossing {
    /// List the crossings that this node took part in, newest last
    #[command(
        after_help = "Example:\n  alliance crossing list\n  alliance -o json crossing list | jq 'select(.state == \"denied\")'"
    )]
    List,
    /// Show one crossing with every verdict, rule and duty
    #[command(after_help = "Example:\n  alliance crossing show 4f0c12ab\n  alliance crossing show 4f0c12ab --tensors")]
    Show {
        /// Its id, or the beginning of it
        #[arg(value_name = "ID")]
        crossing: String,
        /// Show what was decided of each tensor and file instead
        #[arg(long)]
        tensors: bool,
    },
    /// Decide a recorded crossing again from the ledger alone, by the law of its day; needs no daemon
    ///
    /// The law packs, statuses and rules that were in force are taken from the entries before it, and asked about the facts
    /// that it records.
    #[command(after_help = "Example:\n  alliance crossing replay 4f0c12ab\n\nExits with 8 if another verdict comes out.")]
    Replay {
        /// Its id, or the beginning of it
        #[arg(value_name = "ID")]
        crossing: String,
    },
}

impl Crossing {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        if let Self::Replay { crossing } = &self {
            return replay::run(context, crossing);
        }
        let daemon = context.daemon().await?;
        match self {
            Self::Replay { crossing } => replay::run(context, &crossing),
            Self::List => {
                let crossings = list(&daemon).await?;
                Ok(context.screen.list(&crossings, || table(context, &crossings)))
            }
            Self::Show { crossing, tensors } => {
                let view = match crossing.parse::<CrossingId>() {
                    Ok(id) => ask(&daemon, id).await?,
                    Err(_) => that_begins(list(&daemon).await?, &crossing, "crossing", |view| view.crossing)?,
                };
                if tensors {
                    return tensors::show(context, &view);
                }
                Ok(context.screen.one(&view, || text(context, &view)))
            }
        }
    }
}

/// Asks the daemon for one crossing.
pub(super) async fn ask(daemon: &ApiClient, crossing: CrossingId) -> Result<CrossingView, Problem> {
    match daemon.call(&AdminCall::Crossing(crossing)).await? {
        Reply::Crossing(view) => Ok(*view),
        _ => Err(unexpected()),
    }
}

/// A state in one word.
pub(super) const fn state(state: CrossingState) -> &'static str {
    match state {
        CrossingState::Reaching => "reaching",
        CrossingState::Asked => "asked",
        CrossingState::Cleared => "cleared",
        CrossingState::Delivering => "delivering",
        CrossingState::Delivered => "delivered",
        CrossingState::Done => "done",
        CrossingState::DoneUnsettled => "unsettled",
        CrossingState::Denied => "denied",
        CrossingState::Failed => "failed",
    }
}

async fn list(daemon: &ApiClient) -> Result<Vec<CrossingView>, Problem> {
    match daemon.call(&AdminCall::Crossings).await? {
        Reply::Crossings(crossings) => Ok(crossings),
        _ => Err(unexpected()),
    }
}

/// The one of some things, each with the id of its crossing, whose id begins like this; `noun` is what they are called.
pub(super) fn that_begins<T>(
    things: Vec<T>,
    begins: &str,
    noun: &str,
    id: impl Fn(&T) -> CrossingId,
) -> Result<T, Problem> {
    let list = format!("alliance {noun} list");
    let mut found: Vec<T> = things.into_iter().filter(|thing| id(thing).to_string().starts_with(begins)).collect();
    match (found.pop(), found.len()) {
        (Some(thing), 0) if !begins.is_empty() => Ok(thing),
        (None, _) => Err(Problem::new(Exit::NotFound, format!("no {noun} `{begins}` is known")).hint(list)),
        (Some(_), _) if begins.is_empty() => {
            let message = format!("name the {noun} by its id, or by the beginning of it");
            Err(Problem::new(Exit::Usage, message).hint(list))
        }
        (Some(_), _) => {
            Err(Problem::new(Exit::Usage, format!("several {noun}s begin with `{begins}`")).hint("give more of the id"))
        }
    }
}

/// Which way the bytes of a crossing go.
pub(super) const fn way(side: Side) -> &'static str {
    match side {
        Side::Exporter => "out",
        Side::Importer => "in",
    }
}

fn table(context: &Context, crossings: &[CrossingView]) -> String {
    let mut table = Table::new(["crossing", "began", "way", "name", "peer", "state", "moved", "problem"]);
    for view in crossings {
        table.row([
            view.crossing.short(),
            figures::instant(view.began, context.now),
            way(view.side).to_owned(),
            view.name.clone(),
            view.peer.short(),
            state(view.state).to_owned(),
            figures::size(view.bytes),
            view.problem.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

fn text(context: &Context, view: &CrossingView) -> String {
    let mut fields = Fields::default();
    fields.add("crossing", view.crossing);
    fields.add("name", &view.name);
    fields.add("state", state(view.state));
    fields.add("way", way(view.side));
    fields.add("peer", view.peer);
    fields.add("offer", view.offer);
    fields.add("manifest", view.manifest);
    fields.add("began", figures::instant(view.began, context.now));
    if let Some(ended) = view.ended {
        fields.add("ended", figures::instant(ended, context.now));
    }
    fields.add("moved", format!("{} of {}", figures::size(view.bytes), figures::size(view.total)));
    if let Some(to) = &view.to {
        fields.add("at", to.display());
    }
    if let Some(deleted) = view.deleted {
        fields.add("deleted", format!("{deleted}, in fulfilment of a duty"));
    } else if let Some(due) = view.delete_by {
        fields.add("to be deleted", due);
    }
    if let Some(code) = view.refusal {
        fields.add("refusal", code);
    }
    if let Some(problem) = &view.problem {
        fields.add("problem", problem);
    }
    if let Some(facts) = &view.facts {
        fields.add("asked about", denial::route(facts));
        fields.add("labels", figures::words(&facts.labels, "none"));
        fields.add("subjects", figures::words(&facts.subjects, "none"));
        if let Some(countries) = &facts.trained_in {
            fields.add("trained in", figures::words(countries, "none"));
        }
        let safeguards =
            facts.safeguards.iter().flat_map(|(issuer, kinds)| kinds.keys().map(move |kind| format!("{kind}@{issuer}")));
        fields.add("safeguards", figures::words(safeguards, "none"));
    }
    if view.parts.len() > 1 {
        for decided in &view.parts {
            let said = match tensors::denied_by(&view.verdicts, decided).as_slice() {
                [] => "allowed".to_owned(),
                by => format!("denied by {}", by.join(", ")),
            };
            fields.add("part", format!("{}: {said}", figures::part(&decided.part)));
        }
    }
    if view.partial {
        fields.add("asked for", "what may cross of it; which of that was taken is the importer's business");
    }
    for left_out in &view.left_out {
        let why = match tensors::against(&view.against, left_out).as_slice() {
            [] => "by the exporter; its own records say why".to_owned(),
            by => format!("denied by {}", by.join(", ")),
        };
        fields.add("left out", format!("{}: {why}", figures::part(&left_out.part)));
    }
    if let Some(part) = &view.part {
        fields.add("taken", part_taken(part));
        fields.add("manifest of it", part.manifest);
    }
    for ignored in &view.safeguards_ignored {
        fields.add("did not count", ignored);
    }
    let against = match view.against.as_slice() {
        [] => String::new(),
        against => format!("\nOf what was left out:\n{}", denial::verdicts(against, Detail::All)),
    };
    format!("{fields}\n{}{against}", denial::verdicts(&view.verdicts, Detail::All))
}

/// What came of a model of which a part was wanted.
pub(super) fn part_taken(part: &PartTaken) -> String {
    let left_out = match part.left_out {
        0 => String::new(),
        some => format!("; {some} that fit were left out, for they may not cross"),
    };
    format!("{} tensors in {} files, {}{left_out}", part.tensors, part.files, figures::size(part.bytes))
}
