//! Ours: daemons of members, an offer, and pulls to files, cleared, verified and recorded.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use alliance_node::models::import::{ImportRequest, import};
use alliance_protocol::{
    core::admin::{AdminCall, CrossingState, CrossingView, OfferDraft, PullCall, Reply},
    id::CrossingId,
    limits,
    offer::{Provenance, Terms},
    vocabulary::{Artefact, Country, Label, Purpose, Use},
};
use futures::future::try_join_all;

use super::{
    BenchError, Round, data, io_error,
    process::{Spent, Usage, forget_peak, usage},
    resume::Resumed,
};
use crate::{
    network::{Network, Options, TestNode},
    wan::Wan,
};

/// The member that has the models, and those that may pull them: their law lets open weights come and go.
const MEMBERS: [&str; 11] = ["BR", "CN", "IN", "RU", "ZA", "EG", "ET", "IR", "AE", "ID", "SA"];

/// How long a pull may take. It only ends a hang.
const PULL_MAX: Duration = Duration::from_secs(3600);

/// How often a pull is looked at. How long it took is in its record, to the millisecond; to look costs the node as much as a
/// MiB.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_SELDOM: Duration = Duration::from_millis(250);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The daemons of the member that has the models, and of those that pull them.
pub struct Daemons {
    network: Network,
    dir: PathBuf,
}

/// Something to pull.
pub struct Offered {
    name: String,
    bytes: u64,
}

impl Offered {
    /// `organisation/name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The member that has the models, and so many others.
#[must_use]
pub fn members(importers: usize) -> Vec<Country> {
    MEMBERS.iter().take(importers.saturating_add(1)).filter_map(|code| code.parse().ok()).collect()
}

impl Daemons {
    /// Founds an alliance with so many importers, and starts its daemons. Models lie in `dir`; what the nodes keep, their
    /// ledgers among it, in `homes`.
    ///
    /// # Errors
    /// They do not come up.
    pub async fn up(dir: &Path, homes: &Path, importers: usize, wan: Option<Arc<Wan>>) -> Result<Self, BenchError> {
        let home = Some(homes.join("alliance"));
        let mut network = Network::found(Options {
            members: members(importers),
            nodes: None,
            home,
            program: None,
            wan,
            witnesses: None,
        })?;
        network.start().await?;
        Ok(Self { network, dir: dir.to_owned() })
    }

    fn exporter(&self) -> Result<&TestNode, BenchError> {
        self.network.nodes().next().ok_or_else(|| failed("ours", "a node is missing".to_owned()))
    }

    /// The first of those that pull.
    ///
    /// # Errors
    /// There is none.
    pub fn importer(&self) -> Result<&TestNode, BenchError> {
        self.importers().next().ok_or_else(|| failed("ours", "a node is missing".to_owned()))
    }

    fn importers(&self) -> impl Iterator<Item = &TestNode> {
        self.network.nodes().skip(1)
    }

    /// Writes, imports and offers a model of tensors, each `(bytes, count)`.
    ///
    /// # Errors
    /// The disk is full, or the node does not take it.
    pub async fn offer(&self, name: &str, tensors: &[(u64, u64)]) -> Result<Offered, BenchError> {
        let from = self.exporter()?;
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
        match from.call(&AdminCall::Import(Box::new(model))).await? {
            Reply::Imported(_) => {}
            other => return Err(failed("ours", format!("the model is not imported: {other:?}"))),
        }
        let terms = Terms { purposes: [].into(), to: [].into(), onward: true };
        let draft = OfferDraft { name: name.clone(), compute: None, terms, ttl_ms: DAY_MS };
        match from.call(&AdminCall::Publish(draft)).await? {
            Reply::Published(view) => {
                try_join_all(self.importers().map(|to| self.network.until_known(to, view.offer, true))).await?;
            }
            other => return Err(failed("ours", format!("the model is not offered: {other:?}"))),
        }
        Ok(Offered { name, bytes })
    }

    /// Pulls it once, to a place where nothing is yet, and removes it.
    ///
    /// # Errors
    /// It does not cross.
    pub async fn pull(&self, offered: &Offered) -> Result<Round, BenchError> {
        let rounds = self.pulls(offered, 1, PULL_MAX, Sources::ExporterAlone).await?;
        match rounds.first() {
            Some(round) if round.bytes == offered.bytes => Ok(*round),
            _ => Err(failed("ours", "the pull does not end".to_owned())),
        }
    }

    /// Orders pulls at so many importers at once, each to a place where nothing is yet, which is removed when it is there.
    /// Looks no longer than `within`: a pull that has not ended by then goes on, and its round says what had come.
    ///
    /// # Errors
    /// It does not cross.
    pub async fn pulls(
        &self,
        offered: &Offered,
        importers: usize,
        within: Duration,
        sources: Sources,
    ) -> Result<Vec<Round>, BenchError> {
        let from = self.exporter()?;
        let sent = begin(from).await?;
        let place = |number: usize| self.dir.join(format!("pulled-{number}"));
        let rounds = try_join_all(self.importers().take(importers).enumerate().map(async |(number, to)| {
            let taken = begin(to).await?;
            let (bytes, seconds) = pull_to(to, offered, &place(number), within, sources).await?;
            let (sender, receiver) = (since(from, sent).await?, since(to, taken).await?);
            Ok::<_, BenchError>(Round { bytes, seconds, sender, receiver })
        }))
        .await?;
        // Others may have taken it from there until now.
        for (number, round) in rounds.iter().enumerate() {
            if round.bytes == offered.bytes {
                let place = place(number);
                fs::remove_dir_all(&place).map_err(io_error(format!("remove `{}`", place.display())))?;
            }
        }
        Ok(rounds)
    }

    /// Pulls to the first importer, which is killed half way, started again, and pulls again.
    ///
    /// # Errors
    /// It does not cross, or the importer does not come up again.
    pub async fn interrupted(&mut self, offered: &Offered) -> Result<Resumed, BenchError> {
        let place = self.dir.join("pulled");
        let first = self.importers().next().ok_or_else(|| failed("ours", "a node is missing".to_owned()))?;
        let crossing = order(first, offered, &place, Sources::ExporterAlone).await?;
        let came = until(first, crossing, |view| view.bytes >= offered.bytes / 2).await?.bytes;
        let key = first.key();
        let again = self.network.nodes_all_mut().find(|node| node.key() == key);
        let again = again.ok_or_else(|| failed("ours", "a node is missing".to_owned()))?;
        again.kill().await?;
        again.launch()?;
        let first = self.importers().next().ok_or_else(|| failed("ours", "a node is missing".to_owned()))?;
        first
            .until("its peers, all law and witnesses", |status| {
                let fresh = status.members.iter().all(|member| member.fresh);
                status.peers_admitted > 0 && fresh && status.witnessed.problem.is_none()
            })
            .await?;
        self.network.until_offered(first, &offered.name).await?;

        let began = Instant::now();
        let crossing = order(first, offered, &place, Sources::ExporterAlone).await?;
        until(first, crossing, |view| view.bytes > 0).await?;
        let seconds_to_go_on = began.elapsed().as_secs_f64();
        let seconds = seconds(&until(first, crossing, |_| false).await?)?;
        let sent = self.exporter()?.status().await?.artefact_bytes_sent;
        fs::remove_dir_all(&place).map_err(io_error(format!("remove `{}`", place.display())))?;
        Ok(Resumed { bytes: offered.bytes, came, sent, seconds_to_go_on, seconds })
    }

    /// Stops the daemons.
    pub async fn down(self) {
        self.network.stop().await;
    }
}

/// Whom an importer pulls from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    ExporterAlone,
    /// The others that pull the same, too; and it gives to them what it has.
    Together,
}

/// Orders a pull.
async fn order(to: &TestNode, offered: &Offered, place: &Path, sources: Sources) -> Result<CrossingId, BenchError> {
    let together = sources == Sources::Together;
    let call = PullCall {
        offer: offered.name.clone(),
        purpose: Purpose::Research,
        use_: Use::Inference,
        circumstances: [].into(),
        safeguards: Vec::new(),
        to: place.to_owned(),
        sources: if together { limits::SOURCES_MAX } else { 1 },
        onward: together,
        tensors: Vec::new(),
        read_meanwhile: false,
    };
    match to.call(&AdminCall::Pull(call)).await? {
        Reply::Pulling { crossing } => Ok(crossing),
        other => Err(failed("ours", format!("the pull does not begin: {other:?}"))),
    }
}

/// Looks at a crossing until it is as wanted, or has come to its end.
async fn until(
    at: &TestNode,
    crossing: CrossingId,
    wanted: impl Fn(&CrossingView) -> bool,
) -> Result<CrossingView, BenchError> {
    let began = Instant::now();
    loop {
        match at.call(&AdminCall::Crossing(crossing)).await? {
            Reply::Crossing(view) if view.state.is_final() || wanted(&view) => return Ok(*view),
            _ if began.elapsed() > PULL_MAX => return Err(failed("ours", "the pull does not end".to_owned())),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Pulls it to one importer. Returns how many bytes came, in how many seconds.
async fn pull_to(
    to: &TestNode,
    offered: &Offered,
    place: &Path,
    within: Duration,
    sources: Sources,
) -> Result<(u64, f64), BenchError> {
    let began = Instant::now();
    let crossing = order(to, offered, place, sources).await?;
    loop {
        let Reply::Crossings(views) = to.call(&AdminCall::Sources(crossing)).await? else {
            return Err(failed("ours", "the pull is not known".to_owned()));
        };
        let first = views.iter().find(|view| view.crossing == crossing);
        let first = first.ok_or_else(|| failed("ours", "the pull is not known".to_owned()))?;
        if let Some(done) = views.iter().find(|view| view.state == CrossingState::Done) {
            return Ok((offered.bytes, seconds(&CrossingView { began: first.began, ..done.clone() })?));
        }
        if views.iter().all(|view| view.state.is_final()) {
            seconds(first)?;
        }
        if began.elapsed() > within {
            return Ok((views.iter().map(|view| view.bytes).sum(), began.elapsed().as_secs_f64()));
        }
        tokio::time::sleep(LOOK_SELDOM).await;
    }
}

/// What a node has used so far; its peak is counted anew from here.
async fn begin(node: &TestNode) -> Result<Usage, BenchError> {
    forget_peak(node.pid())?;
    used(node).await
}

/// What a node has used since. To look at a pull, and what else the node was asked and told meanwhile, is among it.
async fn since(node: &TestNode, before: Usage) -> Result<Usage, BenchError> {
    let now = used(node).await?;
    let spent = now.spent.zip(before.spent).map(|(now, before)| Spent {
        deciding_seconds: now.deciding_seconds - before.deciding_seconds,
        recording_seconds: now.recording_seconds - before.recording_seconds,
    });
    Ok(Usage { cpu_seconds: now.cpu_seconds - before.cpu_seconds, spent, ..now })
}

async fn used(node: &TestNode) -> Result<Usage, BenchError> {
    let status = node.status().await?;
    let seconds = |us| Duration::from_micros(us).as_secs_f64();
    let spent = Spent { deciding_seconds: seconds(status.deciding_us), recording_seconds: seconds(status.recording_us) };
    Ok(Usage { spent: Some(spent), ..usage(node.pid())? })
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
