//! `alliance policy upcoming`: what law that is known today will end.

use alliance_protocol::core::admin::{AdminCall, EndingOf, OutlookView, Reply, Turn};

use crate::{
    cli::{
        Context, Problem, figures,
        problem::unexpected,
        screen::{Table, Tone},
    },
    exit::Exit,
};

/// Asks the daemon and prints the turns of the law, each with what it ends.
pub(super) async fn run(context: &Context) -> Result<Exit, Problem> {
    match context.daemon().await?.call(&AdminCall::Outlook).await? {
        Reply::Outlook(view) => Ok(context.screen.one(&view, || text(context, &view))),
        _ => Err(unexpected()),
    }
}

fn text(context: &Context, view: &OutlookView) -> String {
    let mut text = String::new();
    if view.turns.is_empty() {
        text.push_str("No change of law is known for the year ahead.");
    }
    for turn in &view.turns {
        let head = format!("{}: {}", figures::instant(turn.at, context.now), turn.causes.join("; "));
        let head = if turn.endings.is_empty() { head } else { context.screen.paint(Tone::Warning, &head) };
        text.push_str(&format!("{head}\n{}\n", endings(turn)));
    }
    if !view.complete {
        text.push_str("There is more than was looked at: some of what ends is not listed.");
    }
    text.trim_end().to_owned()
}

fn endings(turn: &Turn) -> String {
    if turn.endings.is_empty() {
        return "  ends nothing that stands now".to_owned();
    }
    let mut table = Table::new(["ends", "with", "for", "why"]);
    for ending in &turn.endings {
        let what = match ending.of {
            EndingOf::Crossing(crossing) => format!("crossing {} of {}", crossing.short(), ending.name),
            EndingOf::Offer(offer) => format!("offer {} of {}", offer.short(), ending.name),
        };
        let purposes = figures::words(&ending.purposes, "what it was cleared for");
        table.row([what, ending.country.to_string(), purposes, ending.why.clone()]);
    }
    table.to_string()
}
