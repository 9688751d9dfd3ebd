//! `alliance pull`: asks for an offered artefact, follows the crossing, and says how it ended.

use std::{path::PathBuf, time::Duration};

use alliance_protocol::{
    core::{
        BulkFailure,
        admin::{AdminCall, CrossingState, CrossingView, PullCall, Reply},
    },
    id::{CrossingId, StatementId},
    limits,
    offer::split_name,
    vocabulary::{Circumstance, Purpose, Use},
};
use clap::Args;
use indicatif::ProgressBar;
use serde_bytes::ByteBuf;

use super::{
    Context, Problem, crossing, denial, figures,
    problem::unexpected,
    progress,
    screen::{Fields, Tone},
};
use crate::{api::ApiClient, durable, exit::Exit, models::TensorPattern};

/// Pull an offered model to this node, if the law of both sides lets it cross
///
/// Both sides decide before a byte moves, and both record it. If it is denied, this says which rule of which country denies
/// and what would satisfy it. The daemon does the work: interrupting this command does not stop the pull. A pull whose
/// connection is lost is taken up again where it was, with a new clearance; so is one that is ordered again later.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  alliance pull usp/amazonia-7b\n  \
    alliance pull isp/taiga --purpose evaluation --safeguard notice.alliance --to /srv/models/taiga\n\n\
    Exits with 3 if it is denied, 8 if what came is not what was promised, 10 if the other side cannot be reached.")]
pub(super) struct Pull {
    /// The name of the offer, or its id
    #[arg(value_name = "NAME")]
    offer: String,
    /// What it is wanted for: research, evaluation, commercial, ...
    #[arg(long, default_value_t = Purpose::Research, value_name = "PURPOSE")]
    purpose: Purpose,
    /// What will be done with it: inference, fine_tuning, training, ...
    #[arg(long = "use", default_value_t = Use::Inference, value_name = "USE")]
    use_: Use,
    /// What is true of it, with commas: public_audience where it will reach the public here, ...
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    circumstances: Vec<Circumstance>,
    /// A safeguard that an authority issued; may be repeated
    #[arg(long, value_name = "FILE")]
    safeguard: Vec<PathBuf>,
    /// Where the files go [default: models/ORG/NAME in the node's home]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Peers to pull from at a time, where others offer the same on; each is asked and decided by itself
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::SOURCES_MAX)))]
    sources: u32,
    /// Offer it on while it comes and afterwards, where its offer permits that
    #[arg(long)]
    offer_on: bool,
    /// Take only what fits: names of tensors, or paths of files without tensors, with *, ?, [...] and {...}; FILES::TENSORS for
    /// tensors of some files. May be repeated; each must fit something. What may not cross is left out. Files without tensors,
    /// an index of tensors among them, come as they are
    #[arg(long, value_name = "PATTERN", conflicts_with = "offer_on", requires = "to")]
    tensors: Vec<TensorPattern>,
    /// How often it is taken up again when the connection is lost or the daemon is busy, unless more came in between
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
}

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

impl Pull {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let home = context.home()?;
        let to = match &self.to {
            Some(to) => to.clone(),
            None if is_name_or_id(&self.offer) => home.models_path().join(&self.offer),
            None => {
                let message = format!("`{}` is neither a name of the form ORG/NAME nor the id of an offer", self.offer);
                return Err(Problem::new(Exit::Usage, message).hint("alliance offer list"));
            }
        };
        let to = std::path::absolute(&to).map_err(|error| Problem::of(Exit::Usage, &error))?;
        if self.safeguard.len() > limits::SAFEGUARDS_PER_REQUEST_MAX {
            let message = format!("a request carries at most {} safeguards", limits::SAFEGUARDS_PER_REQUEST_MAX);
            return Err(Problem::new(Exit::Usage, message));
        }
        let read = |path: &PathBuf| durable::read(path, limits::STATEMENT_BYTES_MAX).map(ByteBuf::from);
        let safeguards = self.safeguard.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let circumstances = self.circumstances.into_iter().collect();
        let call = PullCall {
            offer: self.offer,
            purpose: self.purpose,
            use_: self.use_,
            circumstances,
            safeguards,
            to,
            sources: self.sources,
            onward: self.offer_on,
            tensors: self.tensors.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            read_meanwhile: false,
        };
        let daemon = context.daemon().await?;
        let bar = progress::bytes_bar(&context.screen, "reaching");
        let mut attempts = Attempts::new(self.retries);
        let followed = loop {
            let crossing = match daemon.call(&AdminCall::Pull(call.clone())).await.map_err(Problem::from) {
                Ok(Reply::Pulling { crossing }) => crossing,
                Ok(_) => return Err(unexpected()),
                Err(busy) if busy.exit == Exit::TryAgain => {
                    let Some(wait) = attempts.wait_longer() else { return Err(busy) };
                    bar.set_message("waiting");
                    // Once listened for, Ctrl-C no longer ends a process by itself.
                    tokio::select! {
                        biased;
                        _ = tokio::signal::ctrl_c() => return Err(busy),
                        () = tokio::time::sleep(wait) => continue,
                    }
                }
                Err(problem) => return Err(problem),
            };
            let followed = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => Err(interrupted(crossing)),
                sources = follow(&daemon, crossing, &bar) => sources,
            };
            let wait = followed.as_ref().ok().and_then(|sources| attempts.wait_after(sources.decisive()));
            let Some(wait) = wait else { break followed };
            bar.set_message("waiting");
            tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => break followed,
                () = tokio::time::sleep(wait) => {}
            }
        };
        bar.finish_and_clear();
        conclude(context, &followed?)
    }
}

/// How often a pull is taken up again. Law is asked anew each time.
#[derive(Debug)]
struct Attempts {
    most: u32,
    left: u32,
    wait: Duration,
    /// Whether the other side was there at all; one that never was is not waited for.
    reached: bool,
}

impl Attempts {
    const WAIT: Duration = Duration::from_secs(1);
    const WAIT_MAX: Duration = Duration::from_secs(60);

    fn new(most: u32) -> Self {
        Self { most, left: most, wait: Self::WAIT, reached: false }
    }

    /// How long to wait before the next attempt; none where there is to be none.
    fn wait_after(&mut self, view: &CrossingView) -> Option<Duration> {
        let problem = view.problem.as_deref().unwrap_or_default();
        let begins = |failure: BulkFailure| problem.starts_with(&failure.to_string());
        let lost = begins(BulkFailure::Lost(String::new()));
        let away = lost || begins(BulkFailure::Unreachable(String::new()));
        self.reached |= lost;
        if view.state != CrossingState::Failed || view.refusal.is_some() || !away || !self.reached {
            return None;
        }
        if view.bytes > 0 {
            (self.left, self.wait) = (self.most, Self::WAIT);
        }
        self.wait_longer()
    }

    /// Twice as long each time; none when that was often enough.
    fn wait_longer(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let wait = self.wait;
        self.wait = self.wait.saturating_mul(2).min(Self::WAIT_MAX);
        Some(wait)
    }
}

/// Whether it can be part of a path: neither leads out of a directory.
fn is_name_or_id(offer: &str) -> bool {
    split_name(offer).is_ok() || offer.parse::<StatementId>().is_ok()
}

fn interrupted(crossing: CrossingId) -> Problem {
    Problem::new(Exit::Interrupted, format!("no longer watching; the pull goes on in the daemon (crossing {crossing})"))
        .hint(format!("alliance crossing show {}", crossing.short()))
}

/// The crossings that serve one pull: one for each peer that it comes from, the first that was asked first.
#[derive(Debug)]
struct Sources {
    first: CrossingView,
    others: Vec<CrossingView>,
}

impl Sources {
    fn of(mut views: Vec<CrossingView>) -> Result<Self, Problem> {
        views.sort_by_key(|view| view.lead.is_some());
        let mut views = views.into_iter();
        let first = views.next().ok_or_else(unexpected)?;
        Ok(Self { first, others: views.collect() })
    }

    fn all(&self) -> impl Iterator<Item = &CrossingView> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The one that says how the pull ended.
    fn decisive(&self) -> &CrossingView {
        CrossingView::decisive(std::iter::once(&self.first).chain(&self.others)).unwrap_or(&self.first)
    }

    fn has_ended(&self) -> bool {
        self.all().any(CrossingView::is_done) || self.all().all(|view| view.state.is_final())
    }

    fn bytes(&self) -> u64 {
        self.all().map(|view| view.bytes).sum()
    }
}

/// Asks until the pull has come to its end.
async fn follow(daemon: &ApiClient, crossing: CrossingId, bar: &ProgressBar) -> Result<Sources, Problem> {
    loop {
        let sources = match daemon.call(&AdminCall::Sources(crossing)).await? {
            Reply::Crossings(views) => Sources::of(views)?,
            _ => return Err(unexpected()),
        };
        if sources.has_ended() {
            return Ok(sources);
        }
        bar.set_length(sources.all().map(|view| view.total).max().unwrap_or_default().max(sources.bytes()));
        bar.set_position(sources.bytes());
        bar.set_message(crossing::state(sources.first.state));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Prints how it ended: the crossing to stdout, and what went wrong as an error.
fn conclude(context: &Context, sources: &Sources) -> Result<Exit, Problem> {
    let view = sources.decisive();
    match view.state {
        CrossingState::Denied => context.screen.one(view, || denial::crossing(view)),
        _ => context.screen.one(view, || text(context, sources)),
    };
    match ended(view) {
        None => Ok(Exit::Done),
        // People have just read why.
        Some(problem) if context.screen.for_people() && view.state == CrossingState::Denied => Ok(problem.exit),
        Some(problem) => Err(problem),
    }
}

/// What is to be said of a crossing that has ended, unless it is done.
fn ended(view: &CrossingView) -> Option<Problem> {
    let said = view.problem.clone().unwrap_or_else(|| "no reason was given".to_owned());
    match view.state {
        CrossingState::Done | CrossingState::DoneUnsettled => None,
        CrossingState::Denied => {
            let exit = view.refusal.map_or(Exit::Denied, Exit::from);
            let hint = format!("alliance crossing show {}", view.crossing.short());
            Some(Problem::new(exit, format!("{} may not cross: {said}", view.name)).hint(hint))
        }
        CrossingState::Failed
        | CrossingState::Reaching
        | CrossingState::Asked
        | CrossingState::Cleared
        | CrossingState::Delivering
        | CrossingState::Delivered => {
            let disk = BulkFailure::Disk(String::new()).to_string();
            let unwanted = BulkFailure::Unwanted(String::new()).to_string();
            let barred = BulkFailure::Barred(String::new()).to_string();
            let (exit, hint) = match view.refusal.map(Exit::from) {
                Some(Exit::Damaged) => (Exit::Damaged, "nothing was delivered; tell the operator of the other node"),
                Some(exit) => (exit, ""),
                // It is there, and the law keeps it.
                None if said.starts_with(&barred) => {
                    let hint = format!("alliance crossing show {}", view.crossing.short());
                    return Some(Problem::new(Exit::Denied, format!("{} may not cross: {said}", view.name)).hint(hint));
                }
                None if said.starts_with(&unwanted) => {
                    (Exit::NotFound, "check the pattern; `FILE::*` fits the tensors of a file, `*` all that there is")
                }
                None if said.starts_with(&disk) && said.contains("free some space") => {
                    (Exit::Disk, "make room, and pull again; what came is kept")
                }
                None if said.starts_with(&disk) => (Exit::Disk, "mend that, and pull again; what came is kept"),
                None => (Exit::TryAgain, "pull again; what came is kept and not fetched twice"),
            };
            Some(Problem::new(exit, format!("{} did not arrive: {said}", view.name)).hint(hint))
        }
    }
}

fn text(context: &Context, sources: &Sources) -> String {
    let view = sources.decisive();
    let mut fields = Fields::default();
    if let Some(to) = view.to.as_ref().filter(|_| view.is_done()) {
        fields.add("at", to.display());
    }
    fields.add("moved", format!("{} ({} bytes)", figures::size(sources.bytes()), sources.bytes()));
    if let Some(part) = &view.part {
        fields.add("taken", crossing::part_taken(part));
    }
    fields.add("crossing", view.crossing);
    if !sources.others.is_empty() {
        for source in sources.all() {
            let what = format!("{} in crossing {}", figures::size(source.bytes), source.crossing.short());
            fields.add("from", format!("{} ({what}, {})", source.peer, crossing::state(source.state)));
        }
    }
    match view.state {
        CrossingState::Done => fields.add("receipt", "signed by both sides, in both ledgers"),
        CrossingState::DoneUnsettled => {
            fields.add("receipt", "signed here; the exporter's signature did not come, which is recorded");
        }
        CrossingState::Reaching
        | CrossingState::Asked
        | CrossingState::Cleared
        | CrossingState::Delivering
        | CrossingState::Delivered
        | CrossingState::Denied
        | CrossingState::Failed => fields.add("state", crossing::state(view.state)),
    }
    let headline = if view.is_done() {
        context.screen.paint(Tone::Good, &format!("pulled {}", view.name))
    } else {
        context.screen.paint(Tone::Bad, &format!("not pulled: {}", view.name))
    };
    format!("{headline}\n{fields}")
}

#[cfg(test)]
mod tests;
