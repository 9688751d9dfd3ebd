//! What another node offers, brought here because somebody asks for its files: the crossing is started as `alliance pull` would,
//! and what comes is read while it comes.
//!
//! Nothing is decided here. One crossing is started for each artefact, however many ask at a time, and a denial is remembered
//! for a moment: a client asks for every file by itself, and the ledger holds the question once.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use alliance_protocol::{
    core::{
        BulkFailure,
        admin::{AdminCall, CrossingState, CrossingView, FailureKind, PullCall, Reply},
    },
    id::{CrossingId, ManifestId, StatementId},
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    Desk,
    denied::Denied,
    hub::{Offered, Refusal, Repo},
};
use crate::{
    bulk::{Arrival, Arrivals},
    tokens::{Declared, Scope, Token},
};

/// How long a crossing may take to begin. Clients give up after ten seconds without an answer.
const BEGIN_WITHIN: Duration = Duration::from_secs(8);

/// How long a denial stands for the same question. What was forbidden and is not any more can be had after that.
const DENIED_FOR: Duration = Duration::from_secs(10);

/// Between two looks at how far a crossing is.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Before a node that cannot be reached is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Peers to pull from at a time, as `alliance pull` has it.
const SOURCES: u32 = 4;

/// Artefacts that somebody asks for at a time, or that were denied a moment ago.
const ASKED_FOR_MAX: usize = 256;

/// Where the files of an artefact are that somebody asks for.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Here(PathBuf),
    Coming(Arrival),
}

/// The crossings that were started here.
#[derive(Debug)]
pub(super) struct Crossings {
    arrivals: Arrivals,
    /// Where what is pulled goes.
    models: PathBuf,
    asked_for: Mutex<HashMap<ManifestId, Arc<Mutex<Answers>>>>,
}

/// What was answered to those who asked for an artefact, by the offer and by what they declared. Whoever asks holds it, so that
/// one crossing is started.
#[derive(Debug, Default)]
struct Answers(Vec<((StatementId, Declared), Instant, Refusal)>);

/// How a crossing went that was started.
enum Outcome {
    Coming(Arrival),
    /// It may lie here.
    Over,
    /// The other node may be back soon.
    Away(Refusal),
    Refused(Refusal),
}

impl Crossings {
    pub(super) fn new(arrivals: Arrivals, models: PathBuf) -> Self {
        Self { arrivals, models, asked_for: Mutex::default() }
    }

    /// The files of what a node offers: those that come by a crossing that runs, or by one that is started now.
    pub(super) async fn bring(
        &self,
        desk: &Desk,
        repo: &Repo,
        offered: &Offered,
        token: &Token,
    ) -> Result<Content, Refusal> {
        let (to, id) = (self.models.join(&repo.name), repo.model.manifest);
        if let Some(arrival) = self.arrivals.find(&to, id) {
            return Ok(Content::Coming(arrival));
        }
        if !token.scopes.contains(&Scope::Pull) {
            return Err(Refusal::NotHere { name: repo.name.clone(), country: offered.country });
        }
        if let Some(ambiguous) = offered.ambiguous() {
            return Err(Refusal::Ambiguous { name: repo.name.clone(), offers: ambiguous });
        }
        let call = PullCall {
            offer: offered.offer.to_string(),
            purpose: token.declared.purpose,
            use_: token.declared.use_,
            circumstances: token.declared.circumstances.clone(),
            safeguards: Vec::new(),
            to,
            sources: SOURCES,
            onward: false,
            tensors: Vec::new(),
            read_meanwhile: true,
        };
        let answers = self.answers(id).await;
        let late = |_| Refusal::NotBegun { name: repo.name.clone(), country: offered.country };
        let begun = async {
            let mut answers = answers.lock().await;
            answers.0.retain(|(_, at, _)| at.elapsed() < DENIED_FOR);
            let question = (offered.offer, token.declared.clone());
            if let Some((.., refusal)) = answers.0.iter().find(|(answered, ..)| *answered == question) {
                return Err(refusal.clone());
            }
            let begun = self.begin(desk, repo, offered, &call).await;
            if let Err(refusal @ Refusal::Denied(_)) = &begun {
                answers.0.push((question, Instant::now(), refusal.clone()));
            }
            begun
        };
        timeout(BEGIN_WITHIN, begun).await.map_err(late)?
    }

    /// What was answered to those who asked for this artefact.
    async fn answers(&self, id: ManifestId) -> Arc<Mutex<Answers>> {
        let mut asked_for = self.asked_for.lock().await;
        if asked_for.len() >= ASKED_FOR_MAX {
            let in_use = |answers: &Arc<Mutex<Answers>>| {
                let recent = |(_, at, _): &(_, Instant, _)| at.elapsed() < DENIED_FOR;
                let asked = Arc::strong_count(answers) > 1;
                asked || answers.try_lock().is_ok_and(|answers| answers.0.iter().any(recent))
            };
            asked_for.retain(|_, answers| in_use(answers));
        }
        Arc::clone(asked_for.entry(id).or_default())
    }

    /// Starts a crossing, unless one runs or is over by now, and waits until it was cleared.
    async fn begin(&self, desk: &Desk, repo: &Repo, offered: &Offered, call: &PullCall) -> Result<Content, Refusal> {
        let (mut away, mut over) = (None, false);
        let until = Instant::now() + BEGIN_WITHIN.saturating_sub(TRY_AGAIN_AFTER.saturating_mul(2));
        loop {
            if let Some(arrival) = self.arrivals.find(&call.to, repo.model.manifest) {
                return Ok(Content::Coming(arrival));
            }
            if let Some(path) = desk.lies_here(&repo.name, repo.model.manifest).await? {
                return Ok(Content::Here(path));
            }
            if let Some(refusal) = away.take_if(|_| Instant::now() >= until) {
                return Err(refusal);
            }
            match desk.order(AdminCall::Pull(call.clone())).await? {
                Reply::Pulling { crossing } => match self.outcome(desk, repo, offered, (crossing, &call.to)).await? {
                    Outcome::Coming(arrival) => return Ok(Content::Coming(arrival)),
                    Outcome::Refused(refusal) => return Err(refusal),
                    // It came, and is not readable: it should be deleted by now, for example.
                    Outcome::Over if over => {
                        let problem = "it has come and is not to be read here".to_owned();
                        return Err(Refusal::NotTaken { name: repo.name.clone(), problem });
                    }
                    Outcome::Over => over = true,
                    Outcome::Away(refusal) => away = Some(refusal),
                },
                // One that the command line started, or that is over and is being put in its place.
                Reply::Failed(failure) if failure.kind == FailureKind::Conflict => {}
                Reply::Failed(failure) if failure.kind == FailureKind::Busy => {
                    let name = repo.name.clone();
                    away = Some(Refusal::NotArrived { name, country: offered.country, problem: failure.message });
                }
                Reply::Failed(failure) => {
                    return Err(Refusal::NotTaken { name: repo.name.clone(), problem: failure.message });
                }
                _ => return Err(Refusal::Internal),
            }
            sleep(TRY_AGAIN_AFTER).await;
        }
    }

    /// Waits until a crossing was cleared, or until there is nothing to wait for.
    async fn outcome(
        &self,
        desk: &Desk,
        repo: &Repo,
        offered: &Offered,
        (crossing, to): (CrossingId, &Path),
    ) -> Result<Outcome, Refusal> {
        loop {
            let Reply::Crossings(views) = desk.ask(AdminCall::Sources(crossing)).await? else {
                return Err(Refusal::Internal);
            };
            if views.iter().any(CrossingView::is_done) {
                return Ok(Outcome::Over);
            }
            if views.iter().all(|view| view.state.is_final()) {
                let view = CrossingView::decisive(&views).ok_or(Refusal::Internal)?;
                return Ok(ended(view, repo, offered));
            }
            tokio::select! {
                arrival = self.arrivals.await_one(to, repo.model.manifest) => return Ok(Outcome::Coming(arrival)),
                () = sleep(ASK_EVERY) => {}
            }
        }
    }
}

/// What became of a crossing that brought nothing.
fn ended(view: &CrossingView, repo: &Repo, offered: &Offered) -> Outcome {
    if view.state == CrossingState::Denied {
        return Outcome::Refused(Refusal::Denied(Box::new(Denied::of(view))));
    }
    let (name, country) = (repo.name.clone(), offered.country);
    let problem = view.problem.clone().unwrap_or_else(|| "no reason was given".to_owned());
    let begins = |failure: BulkFailure| problem.starts_with(&failure.to_string());
    let away = begins(BulkFailure::Lost(String::new())) || begins(BulkFailure::Unreachable(String::new()));
    if view.refusal.is_none() && away {
        Outcome::Away(Refusal::NotArrived { name, country, problem })
    } else {
        Outcome::Refused(Refusal::NotTaken { name, problem })
    }
}
