//! `alliance policy diff`: what a new text of a law pack changes.

use std::path::PathBuf;

use alliance_policy::{
    CedarGate,
    diff::{Change, Changed, Difference, Filter, compare, over_the_grid},
};
use alliance_protocol::{
    core::admin::{AdminCall, CrossingView, Reply},
    gate::{Action, Facts, Gate as _, Pack, PackOwner},
    limits,
    time::Timestamp,
    vocabulary::{Artefact, Country, Label, Purpose},
};
use clap::Args;
use serde::Serialize;

use super::super::{Context, Problem, denial, figures, problem::unexpected, screen::Tone};
use crate::{durable, exit::Exit};

/// Show what a new text of a law pack changes: newly allowed, newly denied, other duties
///
/// Both texts are asked about a grid of crossings, spanned by every word that either names, and with --recorded about the
/// crossings that this node recorded, as of the day of each. The grid gives examples; that nothing else changes is for
/// `alliance policy prove` to say.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  alliance policy diff za-1.cedar za-2.cedar --member ZA\n  \
    alliance policy diff za-1.cedar za-2.cedar --member ZA --from ZA --to BR --labels personal,health --recorded\n\n\
    Exits with 0, whatever changes; with 1 if a text cannot be used.")]
pub(in crate::cli) struct Diff {
    /// The text in force
    old: PathBuf,
    /// The new text
    new: PathBuf,
    /// The member whose law it is
    #[arg(long, value_name = "CC")]
    member: Country,
    /// Only crossings from this country
    #[arg(long, value_name = "CC")]
    from: Option<Country>,
    /// Only crossings to this country
    #[arg(long, value_name = "CC")]
    to: Option<Country>,
    /// Only crossings with exactly these labels, with commas
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    labels: Vec<Label>,
    /// Only these artefacts, with commas
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    artefacts: Vec<Artefact>,
    /// Only these purposes, with commas
    #[arg(long, value_delimiter = ',', value_name = "PURPOSES")]
    purposes: Vec<Purpose>,
    /// The day or instant of the grid's crossings [default: now]
    #[arg(long, value_name = "DATE")]
    at: Option<Timestamp>,
    /// Also ask about the crossings that this node recorded
    #[arg(long)]
    recorded: bool,
}

#[derive(Debug, Serialize)]
struct View {
    grid: Difference,
    recorded: Option<Difference>,
}

impl Diff {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let gate = CedarGate::new();
        let read = |epoch: u64, path: &PathBuf| {
            let text = durable::read_text(path, limits::LAW_PACK_BYTES_MAX)?;
            let pack = Pack::new(PackOwner::Member(self.member), epoch, &text, "");
            gate.check(&pack)
                .map_err(|error| Problem::of(Exit::Failed, &error).hint(format!("law is `{}`", path.display())))?;
            Ok::<_, Problem>(pack)
        };
        let (old, new) = (read(1, &self.old)?, read(2, &self.new)?);
        let filter = Filter {
            from: self.from,
            to: self.to,
            labels: self.labels.iter().copied().collect(),
            artefacts: self.artefacts.iter().copied().collect(),
            purposes: self.purposes.iter().copied().collect(),
        };
        let grid = over_the_grid(&gate, &old, &new, &filter, self.at.unwrap_or(context.now))?;
        let recorded = match self.recorded {
            true => Some(compare(&gate, &old, &new, self.recorded(context).await?)),
            false => None,
        };
        let view = View { grid, recorded };
        Ok(context.screen.one(&view, || text(context, &view)))
    }

    /// Each recorded crossing that concerned the member, in each capacity in which its law was asked.
    async fn recorded(&self, context: &Context) -> Result<Vec<(Action, Facts, Timestamp)>, Problem> {
        let views: Vec<CrossingView> = match context.daemon().await?.call(&AdminCall::Crossings).await? {
            Reply::Crossings(views) => views,
            _ => return Err(unexpected()),
        };
        let mut asked = Vec::new();
        for view in views {
            for facts in about(&view) {
                let questions = facts.questions(|country| country == self.member);
                let concerned = questions.into_iter().filter(|(country, _)| *country == self.member);
                asked.extend(concerned.map(|(_, action)| (action, facts.clone(), view.began)));
            }
        }
        Ok(asked)
    }
}

/// What the law was asked about: the whole artefact, and each part of it that has other labels.
fn about(view: &CrossingView) -> Vec<Facts> {
    let Some(whole) = &view.facts else { return Vec::new() };
    let parts = view.parts.iter().map(|decided| &decided.part.labels).filter(|labels| **labels != whole.labels);
    let parts = parts.map(|labels| Facts { labels: labels.clone(), ..whole.clone() });
    std::iter::once(whole.clone()).chain(parts).collect()
}

fn text(context: &Context, view: &View) -> String {
    let mut text = String::from("over a grid of every word that either text names:\n");
    text.push_str(&difference(context, &view.grid));
    if let Some(recorded) = &view.recorded {
        text.push_str("\nover the crossings that this node recorded:\n");
        text.push_str(&difference(context, recorded));
    }
    text.trim_end().to_owned()
}

fn difference(context: &Context, found: &Difference) -> String {
    let mut text = format!("  {} questions asked", found.asked);
    text.push_str(if found.cut_off { ", not all of the grid: narrow it with --from, --to, --labels\n" } else { "\n" });
    if found.changes.is_empty() {
        text.push_str("  none of them is answered otherwise\n");
    }
    found.changes.iter().for_each(|change| text.push_str(&one(context, change)));
    text
}

fn one(context: &Context, change: &Change) -> String {
    let what = match change.what {
        Changed::NewlyAllowed => context.screen.paint(Tone::Bad, "newly allowed"),
        Changed::NewlyDenied => context.screen.paint(Tone::Good, "newly denied"),
        Changed::OtherDuties => "allowed under other duties".to_owned(),
        Changed::OtherRules => "denied by other rules".to_owned(),
    };
    let facts = &change.example;
    let safeguards = facts.safeguards.values().flat_map(|kinds| kinds.keys());
    format!(
        "  {what}: {} questions\n    before: {}\n    after:  {}\n    for example, asked about {}: {}; labels {}; safeguards {}\n",
        change.crossings,
        figures::words(&change.old_rules, "no rule"),
        figures::words(&change.new_rules, "no rule"),
        change.action.as_str(),
        denial::route(facts),
        figures::words(&facts.labels, "none"),
        figures::words(safeguards, "none"),
    )
}
