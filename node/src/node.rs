//! The one loop: wait for an input, let Core decide, make it durable, carry it out.
//!
//! Nothing here decides anything. Nothing becomes visible to anybody before the commit that records it; if the ledger cannot
//! be written, the node stops, and with it every transfer (no record, no release).

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alliance_policy::CedarGate;
use alliance_protocol::{
    core::{
        BulkOrder, Core, Effects, Input, RequestId,
        admin::{AdminCall, Failure, FailureKind, LocalModel, Reply},
        transfers::{LIMITS_MAX, TransferCall},
    },
    ledger::{Entry, Record},
    time::Timestamp,
};
use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::{
    bulk::Bulk,
    catalogue::Catalogue,
    durable::{self, Existing, FileError, Readers},
    ledger::{LedgerError, LedgerFile},
    limits::write_limits,
    mesh::Mesh,
    models,
    notes::Notes,
};

/// A call of the local API, and where its answer goes.
pub type LocalCall = (AdminCall, oneshot::Sender<Reply>);

/// A running node: Core and the five things that touch the world.
pub struct Node {
    pub(crate) core: Core,
    pub(crate) gate: CedarGate,
    pub(crate) ledger: LedgerFile,
    pub(crate) notes: Notes,
    pub(crate) catalogue: Catalogue,
    pub(crate) mesh: Mesh,
    pub(crate) bulk: Bulk,
    pub(crate) calls: mpsc::Receiver<LocalCall>,
    /// Where manifests of local models lie.
    pub(crate) manifests: PathBuf,
    /// Where the limits of transfers are kept.
    pub(crate) limits: PathBuf,
    /// Where the log of the charter is kept for those who do not ask the daemon.
    pub(crate) charter: PathBuf,
    /// Where the gateway listens, if there is one.
    pub(crate) gateway: Option<SocketAddr>,
    pub(crate) waiting: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    pub(crate) requests: u64,
    pub(crate) clock: Clock,
    pub(crate) spent: Spent,
}

/// What stops a running node. A restart repairs it, once the cause is gone.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("the ledger cannot be written, so nothing may be released; free or repair the disk and start again")]
    Ledger(#[from] LedgerError),
    #[error(
        "what this node signs as a witness cannot be kept, so nothing may be signed; free or repair the disk and start again"
    )]
    Notes(#[from] FileError),
}

/// Time spent on inputs since the daemon started, as it passes on the wall, taken from a clock that nobody sets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// By Core: everything that it is handed, the ticks in which running crossings are decided again among it.
    deciding: Duration,
    /// On commits, from encoding the records until the disk has them.
    recording: Duration,
}

/// The wall clock, held back from running backwards while the daemon runs.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// What was told last, and when that was by a clock that nobody sets.
    last: Option<(Timestamp, Instant)>,
}

/// Milliseconds by which a clock may have been put back since the last record. More is a clock that was wrong then, and must not
/// stay so.
const PUT_BACK_MS_MAX: u64 = 10 * 60 * 1000;

/// Inputs that are ready together and share one commit.
const INPUTS_PER_COMMIT_MAX: usize = 64;

impl Node {
    /// Runs until `shutdown` resolves or the ledger fails.
    ///
    /// # Errors
    /// What makes going on impossible.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Fatal> {
        tokio::pin!(shutdown);
        loop {
            let wake = Duration::from_millis(self.core.next_wake().0.saturating_sub(self.clock.now().0));
            let first = tokio::select! { biased;
                () = &mut shutdown => break,
                Some(call) = self.calls.recv() => self.local(call),
                event = self.bulk.next() => Some(Input::Bulk(event)),
                () = tokio::time::sleep(wake) => Some(Input::Tick),
                event = self.mesh.next() => Some(Input::Mesh(event)),
            };
            let mut batch: Vec<_> = first.into_iter().map(|input| self.decide(input)).collect();
            while batch.len() < INPUTS_PER_COMMIT_MAX
                && let Some(input) = self.ready()
            {
                batch.push(self.decide(input));
            }
            self.commit(&batch)?;
            for effects in batch {
                self.apply(effects);
            }
        }
        info!("stopping");
        self.bulk.close().await;
        if let Err(error) = self.catalogue.flush() {
            warn!(%error, "the catalogue was not written");
        }
        Ok(())
    }

    /// Records and carries out what starting the node decided.
    pub(crate) fn begin(&mut self, decided: (Timestamp, Effects)) -> Result<(), Fatal> {
        self.commit(std::slice::from_ref(&decided))?;
        self.apply(decided);
        Ok(())
    }

    /// Another input, if one is ready now.
    fn ready(&mut self) -> Option<Input> {
        if let Ok(call) = self.calls.try_recv() {
            return self.local(call);
        }
        if let Some(event) = self.bulk.next().now_or_never() {
            return Some(Input::Bulk(event));
        }
        self.mesh.next().now_or_never().map(Input::Mesh)
    }

    fn decide(&mut self, input: Input) -> (Timestamp, Effects) {
        let began = Instant::now();
        let now = self.clock.now();
        let effects = self.core.handle(input, now, &self.gate);
        self.spent.deciding += began.elapsed();
        (now, effects)
    }

    fn commit(&mut self, batch: &[(Timestamp, Effects)]) -> Result<(), Fatal> {
        let began = Instant::now();
        let recorded = self.record(batch);
        self.spent.recording += began.elapsed();
        recorded
    }

    /// Makes everything that was decided durable, in one commit. A crash before it leaves a node that has decided nothing;
    /// a crash after it leaves one that has decided and sent nothing, and whose peers ask again.
    fn record(&mut self, batch: &[(Timestamp, Effects)]) -> Result<(), Fatal> {
        let entries: Vec<_> = batch
            .iter()
            .flat_map(|(at, effects)| effects.persist.iter().map(|record| Entry { at: *at, record: record.clone() }))
            .collect();
        if !entries.is_empty() {
            self.record_entries(&entries)?;
        }
        for keep in batch.iter().flat_map(|(_, effects)| &effects.keep) {
            self.notes.keep(keep).inspect_err(|error| error!(%error, "a note was not kept"))?;
        }
        Ok(())
    }

    fn record_entries(&mut self, entries: &[Entry]) -> Result<(), Fatal> {
        for entry in entries {
            info!(record = entry.record.kind(), "record");
        }
        // Before the commit: a start takes a file that is ahead of the ledger into it, and cannot do with one that is behind.
        if entries.iter().any(|entry| matches!(entry.record, Record::CharterAccepted { .. })) {
            self.keep_charter();
        }
        self.ledger.commit(entries).inspect_err(|error| error!(%error, "commit failed"))?;
        Ok(())
    }

    /// Writes the log of the charter where commands that work without the daemon find it. The ledger has it in any case.
    fn keep_charter(&self) {
        let log = self.core.charter_log();
        if let Err(error) = durable::write(&self.charter, &log, Readers::Owner, Existing::Replace) {
            warn!(%error, "the log of the charter was not written beside the ledger");
        }
    }

    /// Carries out what was decided and is now durable. Never waits.
    fn apply(&mut self, (_, effects): (Timestamp, Effects)) {
        let Effects { persist: _, keep: _, catalogue, mesh, bulk, replies } = effects;
        if !catalogue.is_empty()
            && let Err(error) = self.catalogue.apply(&catalogue)
        {
            // Only a convenience is lost: the mesh gives it back after the next start.
            warn!(%error, "the catalogue was not written");
        }
        for order in mesh {
            self.mesh.apply(order);
        }
        for order in bulk {
            debug!(?order, "bulk");
            let peer = match &order {
                BulkOrder::Serve { outbound, .. } => Some(outbound.importer()),
                BulkOrder::Reach { peer, .. } => Some(*peer),
                _ => None,
            };
            if let Some(peer) = peer
                && let Some(member) = self.core.member_of(&peer)
            {
                self.bulk.belongs(peer, member);
            }
            self.bulk.apply(order);
        }
        for (id, mut reply) in replies {
            if let Reply::Status(status) = &mut reply {
                status.gateway = self.gateway.map(|address| address.to_string());
                let counters = self.bulk.counters();
                status.artefact_bytes_sent = counters.artefact_bytes_sent;
                status.bulk_socket_bytes_sent = counters.socket_bytes_sent;
                status.deciding_us = microseconds(self.spent.deciding);
                status.recording_us = microseconds(self.spent.recording);
            }
            if let Some(caller) = self.waiting.remove(&id)
                && caller.send(reply).is_err()
            {
                debug!(?id, "the caller went away before its answer");
            }
        }
    }

    /// Turns a local call into an input. An import is checked against the manifest on disk first.
    fn local(&mut self, (call, caller): LocalCall) -> Option<Input> {
        if let AdminCall::Import(model) | AdminCall::Replace { model, .. } = &call
            && let Err(message) = check_import(&self.manifests, model)
        {
            let failure = Failure { kind: FailureKind::Usage, message };
            if caller.send(Reply::Failed(failure)).is_err() {
                debug!("the caller went away before its answer");
            }
            return None;
        }
        if let AdminCall::Transfers(call) = call {
            let reply = self.transfers(call).unwrap_or_else(Reply::Failed);
            if caller.send(reply).is_err() {
                debug!("the caller went away before its answer");
            }
            return None;
        }
        self.requests += 1;
        let id = RequestId(self.requests);
        self.waiting.insert(id, caller);
        Some(Input::Admin(id, call))
    }
}

impl Node {
    /// Answers what is asked about transfers, and keeps the limits that are set.
    fn transfers(&mut self, call: TransferCall) -> Result<Reply, Failure> {
        let limit = match call {
            TransferCall::List => return Ok(Reply::Transfers(self.bulk.transfers())),
            TransferCall::Limits => return Ok(Reply::Limits(self.bulk.limits())),
            TransferCall::Limit(limit) => limit,
        };
        let usage = |message| Failure { kind: FailureKind::Usage, message };
        if let Some(problem) = limit.limit.problem() {
            return Err(usage(problem));
        }
        let mut limits = self.bulk.limits();
        limits.retain(|known| known.scope != limit.scope);
        if limits.len() >= LIMITS_MAX {
            return Err(usage(format!("no more than {LIMITS_MAX} limits are kept; remove one first")));
        }
        if !limit.limit.is_empty() {
            limits.push(limit);
        }
        write_limits(&self.limits, &limits)
            .map_err(|error| Failure { kind: FailureKind::Internal, message: error.to_string() })?;
        self.bulk.limit(limit);
        Ok(Reply::Limits(self.bulk.limits()))
    }
}

fn microseconds(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A model is registered as its manifest on disk says, or not at all.
fn check_import(manifests: &Path, model: &LocalModel) -> Result<(), String> {
    let manifest = models::load_manifest(manifests, model.manifest).map_err(|error| error.to_string())?;
    let files = u32::try_from(manifest.files().len()).unwrap_or(u32::MAX);
    let says = (manifest.artefact(), manifest.labels(), manifest.bytes(), files, manifest.tensors());
    if says == (model.artefact, model.labels.clone(), model.bytes, model.files, model.tensors) {
        Ok(())
    } else {
        Err(format!("the manifest of `{}` does not say what the import says; import it again", model.name))
    }
}

impl Clock {
    /// Goes on from the last thing that was recorded, where the wall clock has been put back a little since.
    pub(crate) fn not_before(&mut self, recorded: Timestamp) {
        let now = self.now();
        if now < recorded && recorded <= now.plus_ms(PUT_BACK_MS_MAX) {
            self.last = Some((recorded, Instant::now()));
        }
    }

    pub(crate) fn now(&mut self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        // Where the wall clock is set back, time goes on from where it was, so that what is fresh still runs out.
        let held = self.last.map(|(last, at)| last.plus_ms(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)));
        let now = held.map_or(now, |held| held.max(now));
        self.last = Some((now, Instant::now()));
        now
    }
}
