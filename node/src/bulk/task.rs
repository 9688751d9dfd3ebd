//! What the tasks of the bulk plane share: how they report, how they are cut, how long they wait.
//!
//! A task never waits without a bound and never holds a lock over an await.

use std::{
    future::{Future, pending},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alliance_protocol::{
    core::{AskId, BulkEvent, BulkFailure},
    crossing::RefusalCode,
    id::{CrossingId, SessionBinding},
    key::PublicKey,
    limits,
};
use futures::FutureExt as _;
use quinn::{Connection, SendStream};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    Deadlines,
    admission::Admission,
    ending::{Ending, connection_ended, ended_by_peer},
    frame::{self, Inbox, Kind},
    gathering::Gatherings,
    gauge::Gauges,
    lanes::Lanes,
    serve::ServeOrder,
};
use crate::models::Compared;

/// Orders of Core that wait for one task: it is told one thing at a time, so more is Core's error.
pub(super) const ORDERS_WAITING_MAX: usize = 4;

/// Artefact bytes since the endpoint was opened.
#[derive(Debug, Default)]
pub(super) struct ArtefactCounters {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// What every task of one endpoint knows.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) lanes: Lanes,
    pub(super) manifests: PathBuf,
    /// Groups are verified and written on threads of their own, for there are processors for them.
    pub(super) writes_apart: bool,
    pub(super) deadlines: Deadlines,
    pub(super) artefact: ArtefactCounters,
    /// What was compared with its manifest already.
    pub(super) compared: Arc<Compared>,
    /// What runs, and the limits for it.
    pub(super) gauges: Gauges,
    /// What is on its way to this node.
    pub(super) gatherings: Arc<Gatherings>,
    pub(super) admission: Admission,
    /// Transfers that run, both ways together.
    pub(super) running: Arc<Semaphore>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) asks: AtomicU64,
}

/// What a task says to [`super::Bulk`].
#[derive(Debug)]
pub(super) enum Report {
    Event(BulkEvent),
    /// A peer asks; orders for it go this way from now on.
    Asked(AskId, Handle<ServeOrder>, BulkEvent),
    /// The serving is over; there will be no more events of it.
    ServeOver(AskId),
    /// The pull is over; there will be no more events of it.
    PullOver(CrossingId),
}

/// How Core reaches a task.
#[derive(Debug)]
pub(super) struct Handle<O> {
    pub(super) orders: mpsc::Sender<O>,
    pub(super) cut: watch::Sender<Option<RefusalCode>>,
}

/// The task's end of a [`Handle`].
#[derive(Debug)]
pub(super) struct Desk<O> {
    pub(super) orders: mpsc::Receiver<O>,
    pub(super) cut: Cut,
}

impl<O> Handle<O> {
    pub(super) fn new() -> (Self, Desk<O>) {
        let (orders, waiting) = mpsc::channel(ORDERS_WAITING_MAX);
        let (cut, watched) = watch::channel(None);
        (Self { orders, cut }, Desk { orders: waiting, cut: Cut(watched) })
    }
}

impl Plane {
    /// Tells Core, waiting while Core is behind.
    pub(super) async fn tell(&self, event: BulkEvent) {
        self.report(Report::Event(event)).await;
    }

    /// As [`Plane::tell`], for what `Bulk` must know beyond the event.
    pub(super) async fn report(&self, report: Report) {
        // Fails only when the node is closing and nobody listens any more.
        if self.reports.send(report).await.is_err() {
            tracing::debug!("a transfer reports to a node that is closing");
        }
    }

    /// Counts the transfers that run: none beyond the bound.
    pub(super) fn start_running(&self) -> Result<tokio::sync::OwnedSemaphorePermit, BulkFailure> {
        Arc::clone(&self.running).try_acquire_owned().map_err(|_| BulkFailure::EndedHere(RefusalCode::Busy))
    }

    pub(super) fn running_max() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(limits::CROSSINGS_RUNNING_MAX))
    }
}

/// Core's wish that a task ends.
#[derive(Debug, Clone)]
pub(super) struct Cut(watch::Receiver<Option<RefusalCode>>);

impl Cut {
    /// Waits until Core cuts the task.
    async fn fired(&mut self) -> RefusalCode {
        match self.0.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(RefusalCode::Ended),
            // The handle is gone: so is the node.
            Err(_) => RefusalCode::Ended,
        }
    }

    /// Fails if Core has cut the task by now.
    pub(super) fn check(&self) -> Result<(), BulkFailure> {
        match *self.0.borrow() {
            Some(code) => Err(BulkFailure::EndedHere(code)),
            None => Ok(()),
        }
    }

    /// Runs `work` until it ends or Core cuts it. When cut, the connection is closed before `work` is dropped, so that
    /// nothing that it has handed over is sent after that.
    pub(super) async fn or<T>(
        &mut self,
        open: &OpenConnection,
        work: impl Future<Output = Result<T, BulkFailure>>,
    ) -> Result<T, BulkFailure> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            code = self.fired() => {
                open.close(Ending::Refused(code));
                Err(BulkFailure::EndedHere(code))
            }
            outcome = &mut work => outcome,
        }
    }
}

/// The connection of a task, as soon as there is one.
#[derive(Debug, Default)]
pub(super) struct OpenConnection(OnceLock<Connection>);

impl OpenConnection {
    pub(super) fn is(&self, connection: &Connection) {
        // A task opens one connection in its life; a second would be closed when its handles are dropped.
        let _ = self.0.set(connection.clone());
    }

    pub(super) fn close(&self, ending: Ending) {
        if let Some(connection) = self.0.get() {
            connection.close(ending.into(), b"");
        }
    }
}

/// One connection with its one stream, to a peer that has proved its key.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) peer: PublicKey,
    pub(super) session: SessionBinding,
    pub(super) send: SendStream,
    pub(super) inbox: Inbox,
    /// Grows with all that moves, for the watchdog.
    pub(super) activity: AtomicU64,
}

impl Link {
    pub(super) async fn write(&mut self, kind: Kind, payload: Vec<u8>) -> Result<(), BulkFailure> {
        frame::write(&mut self.send, kind, payload).await
    }

    pub(super) async fn read(&mut self, allowed: &[Kind]) -> Result<(Kind, Vec<u8>), BulkFailure> {
        self.inbox.frame(allowed, &self.activity).await
    }

    /// The receipt, within `limit`. What the peer has besides is of no use any more.
    pub(super) async fn receipt_within(&mut self, limit: Duration) -> Result<Vec<u8>, BulkFailure> {
        let reading = async {
            loop {
                match self.read(&[Kind::Receipt, Kind::Have]).await? {
                    (Kind::Receipt, receipt) => return Ok(receipt),
                    (_, _what_it_has) => {}
                }
            }
        };
        match timeout(limit, reading).await {
            Ok(receipt) => receipt,
            Err(_) => Err(BulkFailure::Lost(format!("no receipt within {} s", limit.as_secs()))),
        }
    }

    /// Waits for the next order of Core while the peer stays and says nothing against it: where it has taken back what it
    /// allowed, nothing more is done.
    pub(super) async fn order<O>(&mut self, orders: &mut mpsc::Receiver<O>, limit: Duration) -> Result<O, BulkFailure> {
        let recv = &mut self.inbox.stream;
        let reset = async {
            match recv.received_reset().await {
                Ok(Some(code)) => ended_by_peer(code),
                // It has only said all that it had to say, or is gone.
                Ok(None) | Err(_) => pending().await,
            }
        };
        tokio::select! {
            biased;
            failure = reset => Err(failure),
            order = orders.recv() => order.ok_or(BulkFailure::EndedHere(RefusalCode::Ended)),
            error = self.connection.closed() => Err(connection_ended(&error)),
            () = sleep(limit) => {
                tracing::warn!(seconds = limit.as_secs(), "no decision on a transfer came in time");
                Err(BulkFailure::EndedHere(RefusalCode::Ended))
            }
        }
    }

    /// Drops what is still to be sent, tells the peer why in a way that is repeated until it arrives, and closes when the
    /// peer has, or after `limit`. A peer that ended it itself is told nothing.
    pub(super) async fn give_up(&mut self, failure: &BulkFailure, limit: Duration) {
        let ending = Ending::after(failure);
        // It waits for this side to close, as this side would for it.
        if matches!(failure, BulkFailure::EndedByPeer(_)) || self.was_ended_by_peer() {
            return self.connection.close(ending.into(), b"");
        }
        // A stream that is closed already needs no word.
        let reset = self.send.reset(ending.into());
        let stopped = self.inbox.stream.stop(ending.into());
        if (reset.is_ok() || stopped.is_ok()) && timeout(limit, self.connection.closed()).await.is_err() {
            tracing::debug!("the peer did not close in time");
        }
        self.connection.close(ending.into(), b"");
    }

    /// Whether the peer has cut either direction of the stream, for whatever reason.
    fn was_ended_by_peer(&mut self) -> bool {
        let stopped = self.send.stopped().now_or_never();
        let reset = self.inbox.stream.received_reset().now_or_never();
        matches!(stopped, Some(Ok(Some(_)))) || matches!(reset, Some(Ok(Some(_))))
    }

    /// Ends the stream and waits, briefly, until the peer has read it all and closes.
    pub(super) async fn finish(&mut self, limit: Duration) {
        if self.send.finish().is_ok() && timeout(limit, self.connection.closed()).await.is_err() {
            tracing::debug!("the peer did not close in time");
        }
        self.connection.close(Ending::Done.into(), b"");
    }
}

/// Returns when `activity` has not changed for `limit`, give or take a quarter, while something was waited for all the time.
pub(super) async fn stalled(activity: &AtomicU64, is_waited_for: impl Fn() -> bool, limit: Duration) {
    const LOOKS: u32 = 4;
    let (mut last, mut quiet) = (activity.load(Ordering::Relaxed), 0u32);
    while quiet < LOOKS {
        sleep(limit / LOOKS).await;
        let now = activity.load(Ordering::Relaxed);
        quiet = if now == last && is_waited_for() { quiet.saturating_add(1) } else { 0 };
        last = now;
    }
}

/// The failure after [`stalled`].
pub(super) fn no_progress(limit: Duration) -> BulkFailure {
    BulkFailure::Lost(format!("no progress for {} s", limit.as_secs()))
}

/// Runs blocking work, file access for the most part, off the threads that move packets.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BulkFailure> + Send + 'static,
) -> Result<T, BulkFailure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(BulkFailure::Disk(format!("the work on files broke off: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::tests::{links, soon};

    #[tokio::test]
    async fn a_cut_ends_work_that_would_never_end() {
        let (handle, desk) = Handle::<()>::new();
        let mut cut = desk.cut.clone();
        assert_eq!(cut.check(), Ok(()));
        handle.cut.send_replace(Some(RefusalCode::DeniedByLaw));
        assert_eq!(cut.check(), Err(BulkFailure::EndedHere(RefusalCode::DeniedByLaw)));
        let outcome = cut.or(&OpenConnection::default(), pending::<Result<(), _>>()).await;
        assert_eq!(outcome, Err(BulkFailure::EndedHere(RefusalCode::DeniedByLaw)));
        drop(desk);
    }

    #[tokio::test]
    async fn a_cut_wins_over_work_that_is_ready() {
        let (handle, mut desk) = Handle::<()>::new();
        handle.cut.send_replace(Some(RefusalCode::Ended));
        let outcome = desk.cut.or(&OpenConnection::default(), async { Ok(()) }).await;
        assert_eq!(outcome, Err(BulkFailure::EndedHere(RefusalCode::Ended)));
    }

    #[tokio::test]
    async fn a_task_whose_node_is_gone_ends() {
        let (handle, mut desk) = Handle::<()>::new();
        drop(handle);
        let outcome = desk.cut.or(&OpenConnection::default(), pending::<Result<(), _>>()).await;
        assert_eq!(outcome, Err(BulkFailure::EndedHere(RefusalCode::Ended)));
    }

    #[tokio::test]
    async fn two_sides_that_give_up_do_not_wait_for_each_other() {
        // Far beyond what `soon` waits for.
        const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
        for gone in [BulkFailure::Disk("full".to_owned()), BulkFailure::Tampered("changed".to_owned())] {
            let (mut exporter, mut importer, _lines) = links().await;
            let failing = importer.give_up(&gone, NEVER);
            let serving = async {
                let code = exporter.send.stopped().await.expect("connected").expect("told why");
                exporter.give_up(&ended_by_peer(code), NEVER).await;
            };
            soon(futures::future::join(failing, serving)).await;
        }
    }

    #[tokio::test]
    async fn silence_is_noticed() {
        // Hangs if it is not.
        stalled(&AtomicU64::new(7), || true, Duration::from_millis(20)).await;
    }
}
