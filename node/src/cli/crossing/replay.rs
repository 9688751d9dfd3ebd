//! `alliance crossing replay`: a recorded crossing is decided again, from the ledger alone.

use alliance_policy::CedarGate;
use alliance_protocol::{
    gate::Verdict,
    id::CrossingId,
    ledger::Entry,
    replay::{Again, NotReplayed, Replayed, replay},
};
use serde::Serialize;

use crate::{
    cli::{Context, Problem, figures, screen::Tone},
    exit::Exit,
    ledger,
};

#[derive(Debug, Serialize)]
struct Answer {
    crossing: CrossingId,
    /// Whether every decision came out as it is recorded.
    same: bool,
    decisions: Vec<Replayed>,
}

/// Replays the crossing with this id, or whose id begins so.
pub(super) fn run(context: &Context, crossing: &str) -> Result<Exit, Problem> {
    let home = context.home()?;
    let node = home.public()?;
    let (_, entries) = ledger::whole(&home.ledger_path(), &node)?;
    let crossing = that_begins(&entries, crossing)?;
    let decisions = replay(&entries, crossing, &CedarGate::default())?;
    let same = decisions.iter().all(|decision| matches!(decision.again, Again::Same { .. } | Again::NotAsked));
    let answer = Answer { crossing, same, decisions };
    context.screen.one(&answer, || text(context, &answer));
    Ok(if same { Exit::Done } else { Exit::Damaged })
}

fn that_begins(entries: &[Entry], begins: &str) -> Result<CrossingId, Problem> {
    let mut found: Vec<_> = entries.iter().filter_map(|entry| entry.record.crossing()).collect();
    found.sort_unstable();
    found.dedup();
    found.retain(|id| !begins.is_empty() && id.to_string().starts_with(begins));
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            Err(Problem::new(Exit::NotFound, format!("the ledger has no crossing `{begins}`"))
                .hint("alliance crossing list"))
        }
        several => {
            let message = format!("{} crossings begin with `{begins}`; give more of the id", several.len());
            Err(Problem::new(Exit::Usage, message))
        }
    }
}

impl From<NotReplayed> for Problem {
    fn from(error: NotReplayed) -> Self {
        let exit = match error {
            NotReplayed::NotThere(_) => Exit::NotFound,
            _ => Exit::Damaged,
        };
        Self::of(exit, &error)
    }
}

fn text(context: &Context, answer: &Answer) -> String {
    let mut out = format!("crossing {}\n", answer.crossing);
    for decision in &answer.decisions {
        let recorded = match (decision.allowed, &decision.problem) {
            (true, _) => "allowed".to_owned(),
            (false, Some(problem)) => format!("denied: {problem}"),
            (false, None) => "denied".to_owned(),
        };
        let at = figures::instant(decision.at, context.now);
        out.push_str(&format!("\nentry {}, {}, {at}\n  recorded  {recorded}\n", decision.entry, decision.kind));
        let (tone, again) = match &decision.again {
            Again::Same { verdicts } => (Tone::Good, format!("the same; {}", verdicts_in_words(verdicts))),
            Again::Different { again, recorded } => (
                Tone::Bad,
                format!("OTHER verdicts; {}; recorded are: {}", verdicts_in_words(again), verdicts_in_words(recorded)),
            ),
            Again::NotAsked => (Tone::Warning, "it was denied before any law was asked".to_owned()),
            Again::NoLaw { why } => (Tone::Bad, format!("the law cannot be asked by this ledger: {why}")),
        };
        out.push_str(&context.screen.paint(tone, &format!("  again     {again}\n")));
    }
    out
}

/// What each pack said, in a few words.
fn verdicts_in_words(verdicts: &[std::sync::Arc<Verdict>]) -> String {
    let word = |verdict: &std::sync::Arc<Verdict>| {
        let said = if verdict.permits() { "allows" } else { "denies" };
        format!("{} epoch {} {said} ({:?})", verdict.pack, verdict.epoch, verdict.action).to_lowercase()
    };
    verdicts.iter().map(word).collect::<Vec<_>>().join(", ")
}
