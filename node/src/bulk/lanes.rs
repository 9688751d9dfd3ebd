//! The threads that move packets, and the endpoints on them.
//!
//! One thread moves more than most lines carry, and on a machine of two processors it is the quickest. Where there are more,
//! several share the load: each has an endpoint of its own that listens on the node's one address (SO_REUSEPORT: the kernel
//! gives all packets of a connection to the same socket, for none migrates), and one of its own from which it calls others,
//! because an answer to the common address could come to any of them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use alliance_protocol::key::SecretKey;
use quinn::Endpoint;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    BulkConfig, BulkError,
    endpoint::{Line, Use},
    runtime::PacketThread,
    socket::{self, SocketCounters},
};

/// Threads that move packets, at the most: as many connections as a peer may have.
pub const LANES_MAX: usize = alliance_protocol::limits::CROSSINGS_PER_PEER_MAX;

/// The usual number: half of the processors, for files and hashes need as much; more than four were never needed.
#[must_use]
pub fn lanes_usual() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).clamp(1, 4))
}

/// One thread's endpoints.
#[derive(Debug)]
pub(super) struct Lane {
    handle: Handle,
    answering: Line,
    /// None where the other one calls as well.
    calling: Option<Line>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Lanes {
    first: Arc<Lane>,
    others: Vec<Arc<Lane>>,
    next: AtomicUsize,
}

impl Lane {
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Where others call.
    pub(super) fn endpoint(&self) -> &Endpoint {
        self.answering.endpoint()
    }

    /// What calls others.
    pub(super) fn line(&self) -> &Line {
        self.calling.as_ref().unwrap_or(&self.answering)
    }
}

impl Lanes {
    /// Binds the sockets and starts to listen, with one thread for each lane. `open` is dropped when the last socket is closed.
    pub(super) fn open(
        key: &SecretKey,
        config: &BulkConfig,
        counters: &Arc<SocketCounters>,
        open: &mpsc::Sender<Infallible>,
    ) -> Result<(Self, Vec<PacketThread>), BulkError> {
        let count = config.lanes.clamp(1, LANES_MAX);
        let alone = count == 1;
        if !alone {
            // Another program with the same right to the address would be given some of the connections.
            socket::check_free(config.listen).map_err(|source| BulkError::of_socket(config.listen, source))?;
        }
        let mut threads = Vec::new();
        let mut lane = |listen: SocketAddr| {
            let thread = PacketThread::start().map_err(BulkError::Thread)?;
            let _entered = thread.handle().enter();
            let line = |address, use_| Line::open(key, address, config.mtu, use_, Arc::clone(counters), open.clone());
            let answering = line(listen, if alone { Use::Both } else { Use::Answering })?;
            let anywhere = SocketAddr::new(listen.ip(), 0);
            let calling = if alone { None } else { Some(line(anywhere, Use::Calling)?) };
            let handle = thread.handle().clone();
            threads.push(thread);
            Ok(Arc::new(Lane { handle, answering, calling }))
        };
        let first = lane(config.listen)?;
        let address = first.endpoint().local_addr().map_err(|source| BulkError::of_socket(config.listen, source))?;
        let others = (1..count).map(|_| lane(address)).collect::<Result<_, BulkError>>()?;
        Ok((Self { first, others, next: AtomicUsize::new(0) }, threads))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Lane>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The lanes in turn. Several connections for one artefact, which are begun one after the other, are on several.
    pub(super) fn next(&self) -> &Arc<Lane> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.others.len().saturating_add(1);
        at.checked_sub(1).and_then(|at| self.others.get(at)).unwrap_or(&self.first)
    }

    /// Every endpoint.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let lines = self.all().flat_map(|lane| std::iter::once(&lane.answering).chain(&lane.calling));
        lines.map(|line| line.endpoint().clone()).collect()
    }
}
