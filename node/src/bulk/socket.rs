//! The UDP socket under the bulk endpoint, counting what crosses it.
//!
//! It never looks into a datagram: what it counts is the payload of UDP, all of QUIC included. A test or an operator can
//! thereby see that a refused crossing moved next to nothing, whatever the layers above believe.

use std::{
    convert::Infallible,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

/// Bytes asked of the kernel for each direction. The largest that stock Linux gives without a sysctl is less; what it
/// grants is taken. A burst that does not fit is lost and sent again, which is the main brake on fast paths.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of UDP payload since the endpoint was opened.
#[derive(Debug, Default)]
pub(super) struct SocketCounters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl SocketCounters {
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Binds `listen` with large buffers. `open` is dropped when the socket is closed. Must be called within a tokio runtime.
pub(super) fn bind(
    listen: SocketAddr,
    counters: Arc<SocketCounters>,
    open: mpsc::Sender<Infallible>,
) -> io::Result<Arc<CountingSocket>> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    // Both are wishes: a smaller buffer is slower, not wrong.
    if let Err(error) = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES) {
        tracing::debug!(%error, "the receive buffer of the bulk socket stays as it is");
    }
    if let Err(error) = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES) {
        tracing::debug!(%error, "the send buffer of the bulk socket stays as it is");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    let inner = TokioRuntime.wrap_udp_socket(UdpSocket::from(socket))?;
    Ok(Arc::new(CountingSocket { inner, counters, _open: open }))
}

/// A socket of quinn's runtime that adds up the payload it moves.
#[derive(Debug)]
pub(super) struct CountingSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    counters: Arc<SocketCounters>,
    /// Last, so that it goes after the socket.
    _open: mpsc::Sender<Infallible>,
}

impl AsyncUdpSocket for CountingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        self.counters.sent.fetch_add(as_u64(transmit.contents.len()), Ordering::Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.inner.poll_recv(context, buffers, meta);
        if let Poll::Ready(Ok(messages)) = &polled {
            let bytes = meta.iter().take(*messages).map(|meta| as_u64(meta.len)).sum();
            self.counters.received.fetch_add(bytes, Ordering::Relaxed);
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
