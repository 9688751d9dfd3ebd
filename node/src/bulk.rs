//! How tensors move: one QUIC connection per crossing, on an endpoint of our own, and one task at each end of it.
//!
//! The plane knows nothing of policy. It reports what happens ([`BulkEvent`]) and does what Core orders ([`BulkOrder`]);
//! what it does on its own is to end: on silence, on bytes that do not verify, on frames that the protocol does not allow.
//! There are two doors, `send` and `receive`: artefact bytes pass through no other function, and each takes by value
//! the permission that only the border makes.
//!
//! - `tls`, `endpoint`, `socket`, `batch`: who may connect, with which limits; counted, and sent many at a time, at the socket
//! - `congestion`: how much is in flight, by the path
//! - `frame`, `ending`: what is said on the one stream of a connection, and the codes with which it ends
//! - `runtime`, `timer`, `lanes`: the threads on which all of it runs, how they are woken, and how several share the load
//! - `admission`, `task`: places for strangers; what all tasks share
//! - `gauge`, `shaper`: the transfers that run, and the limits that the operator has set for them
//! - `serve`, `pull`: the two tasks, from the first packet to the receipt
//! - `send`, `receive`: the two doors
//! - `assembly`: from packets to groups that are verified and written
//! - `gathering`, `board`: what comes to one directory, and which source brings what of it
//!
//! Only this module and those below it name quinn or rustls.

mod admission;
mod assembly;
mod batch;
mod board;
mod congestion;
mod ending;
mod endpoint;
mod frame;
mod gathering;
mod gauge;
mod lanes;
mod pull;
mod receive;
mod runtime;
mod send;
mod serve;
mod shaper;
mod socket;
mod task;
mod timer;
mod tls;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alliance_protocol::{
    core::{
        AskId, BulkEvent, BulkFailure, BulkOrder,
        transfers::{ScopedLimit, TransferView},
    },
    crossing::RefusalCode,
    id::CrossingId,
    key::{PublicKey, SecretKey},
    vocabulary::Country,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time::timeout,
};

use self::{
    admission::Admission,
    ending::Ending,
    gathering::Gatherings,
    gauge::Gauges,
    lanes::Lanes,
    pull::{PullOrder, Reach, pull_task},
    receive::Usage,
    runtime::PacketThread,
    serve::{ServeOrder, accept_task},
    socket::SocketCounters,
    task::{ArtefactCounters, Handle, Plane, Report},
};
use crate::models::{BadPattern, Compared, Staging, delete::delete};

pub use self::{
    endpoint::{MTU_ETHERNET, MTU_JUMBO},
    gathering::{Arrival, ArrivalReader, Arrivals},
    lanes::{LANES_MAX, lanes_usual},
    tls::{TlsError, crypto_provider},
};

/// Reports that wait for Core. Tasks wait when it is full; progress is not reported then.
const REPORTS_WAITING_MAX: usize = 256;

/// How long a closing endpoint waits for its last packets.
const CLOSING: Duration = Duration::from_secs(2);

/// How the bulk plane is set up.
#[derive(Clone, Debug)]
pub struct BulkConfig {
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// The directory of the `<id>.manifest` files of what this node has.
    pub manifests: PathBuf,
    /// Bytes of UDP payload in a packet, at the most. What a path carries is found out (RFC 8899).
    pub mtu: u16,
    /// Threads that move packets, from 1 to [`LANES_MAX`].
    pub lanes: usize,
    /// How long the plane waits for what.
    pub deadlines: Deadlines,
}

impl BulkConfig {
    /// The usual settings, with one thread.
    #[must_use]
    pub fn new(listen: SocketAddr, manifests: PathBuf) -> Self {
        Self { listen, manifests, mtu: MTU_ETHERNET, lanes: 1, deadlines: Deadlines::default() }
    }
}

/// How long the plane waits for what. None of them is ever infinite.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For one address of a peer to answer.
    pub connect: Duration,
    /// From a connection attempt to the whole request.
    pub request: Duration,
    /// For Core to decide.
    pub order: Duration,
    /// For the exporter to answer a request, or to countersign a receipt.
    pub answer: Duration,
    /// For the importer to put what it has in place, all of it made durable.
    pub receipt: Duration,
    /// For 4 MiB to be written. If it takes longer, the rest of the artefact is written by a thread of its own.
    pub write: Duration,
    /// Without any byte while an artefact is on its way.
    pub stall: Duration,
    /// For the peer to close after the last word.
    pub linger: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(10),
            order: Duration::from_secs(30),
            answer: Duration::from_secs(45),
            receipt: Duration::from_secs(600),
            // To hash it and copy it to the kernel takes three; what takes longer is a disk.
            write: Duration::from_millis(30),
            stall: Duration::from_secs(30),
            linger: Duration::from_secs(5),
        }
    }
}

/// Why the bulk plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// Something else listens there.
    #[error("the bulk port `{address}` is already in use")]
    PortInUse { address: SocketAddr },
    /// The socket cannot be opened.
    #[error("the bulk socket cannot be opened on `{address}`")]
    Socket {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// The packet size is not one that QUIC allows.
    #[error("packets of {0} bytes are not possible")]
    Mtu(u16),
    /// The certificate or the TLS settings.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The thread for packets cannot be started.
    #[error("the thread that moves packets cannot be started")]
    Thread(#[source] io::Error),
    /// The TLS library lacks the suite in which QUIC starts.
    #[error("TLS_AES_128_GCM_SHA256 is not available")]
    CipherSuite,
}

impl BulkError {
    /// Why a socket cannot be bound.
    fn of_socket(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { address },
            _ => Self::Socket { address, source },
        }
    }
}

/// What has moved since the start, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkCounters {
    /// Bytes of artefacts handed to connections: the most that can have left this node.
    pub artefact_bytes_sent: u64,
    /// Bytes of artefacts taken from connections, verified or not.
    pub artefact_bytes_received: u64,
    /// UDP payload sent, whatever it was.
    pub socket_bytes_sent: u64,
    /// UDP payload received, whatever it was.
    pub socket_bytes_received: u64,
}

/// The bulk plane of a node.
#[derive(Debug)]
pub struct Bulk {
    plane: Arc<Plane>,
    socket: Arc<SocketCounters>,
    local: SocketAddr,
    reports: mpsc::Receiver<Report>,
    /// What `apply` itself has to say.
    own: VecDeque<BulkEvent>,
    serving: HashMap<AskId, Handle<ServeOrder>>,
    pulling: HashMap<CrossingId, Handle<PullOrder>>,
    /// Pulls that were over when Core ordered something more. If their end is not reported yet, it will be none.
    voided: HashSet<CrossingId>,
    /// The accept loop, which holds the servings, and the pulls. Dropping it ends them.
    tasks: JoinSet<()>,
    /// Ends when the socket is closed.
    closed: mpsc::Receiver<Infallible>,
    /// Last, so that they outlive the tasks on them.
    threads: Vec<PacketThread>,
}

impl Bulk {
    /// Opens the endpoint and starts to take connections, on a thread of its own.
    ///
    /// # Errors
    /// The address cannot be listened on, or the key cannot be used.
    pub fn start(key: &SecretKey, config: BulkConfig) -> Result<Self, BulkError> {
        let socket = Arc::new(SocketCounters::default());
        let (open, closed) = mpsc::channel(1);
        let (lanes, threads) = Lanes::open(key, &config, &socket, &open)?;
        drop(open);
        let writes_apart = config.lanes > 1;
        let BulkConfig { listen, manifests, deadlines, .. } = config;
        let local = lanes.next().endpoint().local_addr().map_err(|source| BulkError::of_socket(listen, source))?;
        let (report, reports) = mpsc::channel(REPORTS_WAITING_MAX);
        let compared = Arc::new(Compared::default());
        let plane = Arc::new(Plane {
            lanes,
            manifests,
            writes_apart,
            deadlines,
            artefact: ArtefactCounters::default(),
            gauges: Gauges::default(),
            gatherings: Arc::new(Gatherings::new(key.public(), Arc::clone(&compared))),
            compared,
            admission: Admission::new(),
            running: Plane::running_max(),
            reports: report,
            asks: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for lane in plane.lanes.all() {
            tasks.spawn_on(accept_task(Arc::clone(&plane), lane.endpoint().clone()), lane.handle());
        }
        Ok(Self {
            plane,
            socket,
            local,
            reports,
            own: VecDeque::new(),
            serving: HashMap::new(),
            pulling: HashMap::new(),
            voided: HashSet::new(),
            tasks,
            closed,
            threads,
        })
    }

    /// Where to look for what is on its way to this node.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        Arrivals::of(Arc::clone(&self.plane.gatherings))
    }

    /// The next thing that happened. May be dropped and called again without losing anything.
    pub async fn next(&mut self) -> BulkEvent {
        loop {
            if let Some(event) = self.own.pop_front() {
                return event;
            }
            match self.reports.recv().await {
                Some(Report::Event(event)) => return event,
                Some(Report::Asked(ask, handle, event)) => {
                    self.serving.insert(ask, handle);
                    return event;
                }
                Some(Report::ServeOver(ask)) => {
                    self.serving.remove(&ask);
                }
                Some(Report::PullOver(crossing)) => {
                    self.pulling.remove(&crossing);
                    if self.voided.remove(&crossing) {
                        return Self::over(crossing);
                    }
                }
                // Not while `self.plane` holds a sender.
                None => std::future::pending().await,
            }
        }
    }

    /// Carries out an order, without waiting: tasks do the work.
    pub fn apply(&mut self, order: BulkOrder) {
        match order {
            BulkOrder::Refuse { ask, refusal } => self.order_serve(ask, ServeOrder::Refuse { refusal }),
            BulkOrder::Serve { ask, clearance, outbound, path, arriving } => {
                self.order_serve(ask, ServeOrder::Serve { clearance, outbound, path, arriving });
            }
            BulkOrder::Countersign { ask, receipt } => self.order_serve(ask, ServeOrder::Countersign { receipt }),
            BulkOrder::AbortServe { ask, code } => {
                if let Some(handle) = self.serving.get(&ask) {
                    handle.cut.send_replace(Some(code));
                }
            }
            BulkOrder::Reach { crossing, peer, addresses, manifest, to, piecewise, local, tensors } => {
                match tensors.iter().map(|pattern| pattern.parse()).collect::<Result<_, BadPattern>>() {
                    Ok(tensors) => {
                        let usage = Usage { piecewise, local };
                        self.start_pull(Reach { crossing, peer, addresses, manifest, to, tensors, usage });
                    }
                    Err(error) => {
                        let failure = BulkFailure::Unwanted(error.to_string());
                        self.own.push_back(BulkEvent::PullFailed { crossing, failure });
                    }
                }
            }
            BulkOrder::Ask { crossing, request, ahead } => {
                self.order_pull(crossing, PullOrder::Ask { request, ahead });
            }
            BulkOrder::Receive { crossing, inbound } => {
                self.order_pull(crossing, PullOrder::Receive { inbound: Box::new(inbound) })
            }
            BulkOrder::Deliver { crossing, receipt } => self.order_pull(crossing, PullOrder::Deliver { receipt }),
            BulkOrder::Delete { crossing, manifest, path } => {
                let manifests = self.plane.manifests.clone();
                self.delete(crossing, move || delete(&manifests, manifest, &path).map_err(|error| error.to_string()));
            }
            BulkOrder::Discard { crossing, manifest, to } => {
                self.delete(crossing, move || Staging::clear_away(&to, manifest).map_err(|error| error.to_string()));
            }
            BulkOrder::AbortPull { crossing, code } => {
                if let Some(handle) = self.pulling.get(&crossing) {
                    handle.cut.send_replace(Some(code));
                }
            }
        }
    }

    /// Deletes what a crossing brought; says how it went.
    fn delete(&mut self, crossing: CrossingId, deleting: impl FnOnce() -> Result<(), String> + Send + 'static) {
        let reports = self.plane.reports.clone();
        let lane = Arc::clone(self.plane.lanes.next());
        self.tasks.spawn_on(
            async move {
                let deleting = tokio::task::spawn_blocking(deleting);
                let problem = match deleting.await {
                    Ok(Ok(())) => None,
                    Ok(Err(problem)) => Some(problem),
                    Err(error) => Some(error.to_string()),
                };
                // Nobody listens any more when the daemon stops; it is ordered again when it starts.
                let _ = reports.send(Report::Event(BulkEvent::Deleted { crossing, problem })).await;
            },
            lane.handle(),
        );
    }

    /// The transfers that run.
    #[must_use]
    pub fn transfers(&self) -> Vec<TransferView> {
        self.plane.gauges.list()
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Vec<ScopedLimit> {
        self.plane.gauges.shaper.limits()
    }

    /// Sets a limit, for running transfers too; an empty one is removed.
    pub fn limit(&self, limit: ScopedLimit) {
        self.plane.gauges.shaper.set(limit);
    }

    /// Says whose node a peer is, for the limits of members.
    pub fn belongs(&self, peer: PublicKey, member: Country) {
        self.plane.gauges.belongs(peer, member);
    }

    /// Where the endpoint listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    #[must_use]
    pub fn counters(&self) -> BulkCounters {
        BulkCounters {
            artefact_bytes_sent: self.plane.artefact.sent.load(Ordering::Relaxed),
            artefact_bytes_received: self.plane.artefact.received.load(Ordering::Relaxed),
            socket_bytes_sent: self.socket.sent(),
            socket_bytes_received: self.socket.received(),
        }
    }

    /// Cuts everything that runs and gives the port back.
    pub async fn close(self) {
        let Self { plane, reports, mut tasks, mut closed, threads, .. } = self;
        let endpoints = plane.lanes.endpoints();
        for endpoint in &endpoints {
            endpoint.close(Ending::GaveUp.into(), b"");
        }
        drop(reports);
        tasks.shutdown().await;
        let quiet = async {
            for endpoint in &endpoints {
                endpoint.wait_idle().await;
            }
            drop((plane, endpoints));
            closed.recv().await;
        };
        if timeout(CLOSING, quiet).await.is_err() {
            tracing::debug!("the bulk endpoint closed before its last packets were gone");
        }
        drop(threads);
    }

    fn start_pull(&mut self, reach: Reach) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a transfer broke off");
            }
        }
        let crossing = reach.crossing;
        if self.pulling.contains_key(&crossing) {
            tracing::error!(%crossing, "a pull of this crossing runs already");
            return;
        }
        let (handle, desk) = Handle::new();
        self.pulling.insert(crossing, handle);
        let lane = Arc::clone(self.plane.lanes.next());
        let pulling = Box::pin(pull_task(Arc::clone(&self.plane), Arc::clone(&lane), reach, desk));
        self.tasks.spawn_on(pulling, lane.handle());
    }

    /// Where the task is gone, its end was reported or there is nothing to report: the order is void, and with it the
    /// permission that it may hold.
    fn order_serve(&self, ask: AskId, order: ServeOrder) {
        let Some(handle) = self.serving.get(&ask) else {
            return tracing::debug!(ask = ask.0, "an order for a serving that is over");
        };
        match handle.orders.try_send(order) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tracing::error!(ask = ask.0, "too many orders for one serving"),
            Err(TrySendError::Closed(_)) => tracing::debug!(ask = ask.0, "an order for a serving that is over"),
        }
    }

    fn order_pull(&mut self, crossing: CrossingId, order: PullOrder) {
        let Some(handle) = self.pulling.get(&crossing) else {
            return self.own.push_back(Self::over(crossing));
        };
        match handle.orders.try_send(order) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tracing::error!(%crossing, "too many orders for one pull"),
            Err(TrySendError::Closed(_)) => {
                tracing::debug!(%crossing, "an order for a pull whose end is on its way to Core");
                self.voided.insert(crossing);
            }
        }
    }

    /// After a refusal the task ends without a failure. Core may take the answer for a clearance all the same; it must then
    /// hear that there is no transfer any more. Where it has heard of a failure, it does not hear this.
    fn over(crossing: CrossingId) -> BulkEvent {
        BulkEvent::PullFailed { crossing, failure: BulkFailure::EndedHere(RefusalCode::Ended) }
    }
}

#[cfg(test)]
mod tests;
