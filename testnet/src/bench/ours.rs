//! Ours: two daemons of two members, an offer, and a pull to a file, cleared, verified and recorded.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use alliance_node::models::import::{ImportRequest, import};
use alliance_protocol::{
    core::admin::{AdminCall, CrossingState, CrossingView, OfferDraft, PullCall, Reply},
    offer::{Provenance, Terms},
    vocabulary::{Artefact, Label, Purpose, Use},
};

use super::{
    BenchError, Round, data, io_error,
    process::{Usage, forget_peak, usage},
};
use crate::network::{Network, Options, TestNode};

/// The member that has the models, and the one that pulls them.
const MEMBERS: [&str; 2] = ["BR", "CN"];

/// How long a pull may take. It only ends a hang.
const PULL_MAX: Duration = Duration::from_secs(3600);

/// How often a pull is looked at. How long it took is in its record, to the millisecond.
const LOOK: Duration = Duration::from_millis(20);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Two daemons.
pub struct Pair {
    network: Network,
    dir: PathBuf,
}

/// Something to pull.
pub struct Offered {
    name: String,
    bytes: u64,
}

impl Pair {
    /// Founds an alliance of two members and starts its daemons.
    ///
    /// # Errors
    /// They do not come up.
    pub async fn up(dir: &Path) -> Result<Self, BenchError> {
        let members = MEMBERS.iter().filter_map(|code| code.parse().ok()).collect();
        let home = Some(dir.join("alliance"));
        let mut network = Network::found(Options { members, home, program: None })?;
        network.start().await?;
        Ok(Self { network, dir: dir.to_owned() })
    }

    fn node(&self, at: usize) -> Result<&TestNode, BenchError> {
        let node = self.network.nodes().nth(at);
        node.ok_or_else(|| failed("ours", "a node is missing".to_owned()))
    }

    /// Writes, imports and offers a model of tensors, each `(bytes, count)`.
    ///
    /// # Errors
    /// The disk is full, or the node does not take it.
    pub async fn offer(&self, name: &str, tensors: &[(u64, u64)]) -> Result<Offered, BenchError> {
        let (from, to) = (self.node(0)?, self.node(1)?);
        let dir = self.dir.join(name);
        let write = || {
            fs::create_dir_all(&dir)?;
            data::write_tensors(&dir.join("model.safetensors"), tensors)
        };
        write().map_err(io_error(format!("write `{}`", dir.display())))?;
        let name = format!("{}/{name}", from.organisation());
        let request = ImportRequest {
            name: name.clone(),
            artefact: Artefact::Weights,
            labels: [Label::Public, Label::NonPersonal].into(),
            labels_of: Vec::new(),
            origin: from.country(),
            subjects: [].into(),
            provenance: Provenance::default(),
            licence: "other".to_owned(),
            crossing: None,
        };
        let model = import(&dir, request, &from.home().manifests_path(), &mut |_, _| {})
            .map_err(|error| failed("ours", error.to_string()))?;
        let bytes = model.bytes;
        match from.call(&AdminCall::Import(model)).await? {
            Reply::Imported(_) => {}
            other => return Err(failed("ours", format!("the model is not imported: {other:?}"))),
        }
        let terms = Terms { purposes: [].into(), to: [].into() };
        let draft = OfferDraft { name: name.clone(), compute: None, terms, ttl_ms: DAY_MS };
        match from.call(&AdminCall::Publish(draft)).await? {
            Reply::Published(view) => self.network.until_known(to, view.offer, true).await?,
            other => return Err(failed("ours", format!("the model is not offered: {other:?}"))),
        }
        Ok(Offered { name, bytes })
    }

    /// Pulls it once, to a place where nothing is yet, and removes it.
    ///
    /// # Errors
    /// It does not cross.
    pub async fn pull(&mut self, offered: &Offered) -> Result<Round, BenchError> {
        let (from, to) = (self.node(0)?, self.node(1)?);
        let place = self.dir.join("pulled");
        let before = [from, to].map(TestNode::pid);
        for pid in before {
            forget_peak(pid)?;
        }
        let used = [usage(from.pid())?, usage(to.pid())?];
        let call = PullCall {
            offer: offered.name.clone(),
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: [].into(),
            safeguards: Vec::new(),
            to: place.clone(),
        };
        let crossing = match to.call(&AdminCall::Pull(call)).await? {
            Reply::Pulling { crossing } => crossing,
            other => return Err(failed("ours", format!("the pull does not begin: {other:?}"))),
        };
        let until = Instant::now() + PULL_MAX;
        let view = loop {
            match to.call(&AdminCall::Crossing(crossing)).await? {
                Reply::Crossing(view) if view.state.is_final() => break *view,
                _ if Instant::now() > until => return Err(failed("ours", "the pull does not end".to_owned())),
                _ => tokio::time::sleep(LOOK).await,
            }
        };
        let seconds = seconds(&view)?;
        let [sender, receiver] = [(from, 0), (to, 1)].map(|(node, at)| (usage(node.pid()), used.get(at).copied()));
        let since = |(now, before): (Result<Usage, BenchError>, Option<Usage>)| {
            let (now, before) = (now?, before.unwrap_or_default());
            Ok::<_, BenchError>(Usage { cpu_seconds: now.cpu_seconds - before.cpu_seconds, ..now })
        };
        let round = Round { bytes: offered.bytes, seconds, sender: since(sender)?, receiver: since(receiver)? };
        fs::remove_dir_all(&place).map_err(io_error(format!("remove `{}`", place.display())))?;
        Ok(round)
    }

    /// Stops the daemons.
    pub async fn down(self) {
        self.network.stop().await;
    }
}

/// How long a crossing took, from the wish to the receipt with both signatures.
fn seconds(view: &CrossingView) -> Result<f64, BenchError> {
    let problem = view.problem.clone().unwrap_or_default();
    match (view.state, view.ended) {
        (CrossingState::Done, Some(ended)) => Ok(Duration::from_millis(ended.0.saturating_sub(view.began.0)).as_secs_f64()),
        (state, _) => Err(failed("ours", format!("the pull ended as {state:?}: {problem}"))),
    }
}

fn failed(contender: &str, problem: String) -> BenchError {
    BenchError::Contender { contender: contender.to_owned(), problem }
}
