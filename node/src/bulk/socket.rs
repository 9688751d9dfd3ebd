//! The UDP socket under the bulk endpoint, counting what crosses it.
//!
//! It never looks into a datagram: what it counts is the payload of UDP, all of QUIC included. A test or an operator can
//! thereby see that a refused crossing moved next to nothing, whatever the layers above believe.

use std::{
    convert::Infallible,
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, yield_now},
};

use super::batch::{BATCH_BYTES_MAX, Batch, Offered};

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

/// Finds out whether nothing else has an address.
pub(super) fn check_free(listen: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&listen.into())
}

/// Binds `listen` with large buffers, for datagrams of up to `mtu` bytes; other sockets of this process may have the same
/// address where it is `shared`. `open` is dropped when the socket is closed. Must be called within a tokio runtime. With it,
/// the bytes that the kernel granted for what has arrived, its own bookkeeping included.
pub(super) fn bind(
    listen: SocketAddr,
    mtu: u16,
    shared: bool,
    counters: Arc<SocketCounters>,
    open: mpsc::Sender<Infallible>,
) -> io::Result<(Arc<CountingSocket>, usize)> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    // Both are wishes: a smaller buffer is slower, not wrong.
    if let Err(error) = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES) {
        tracing::debug!(%error, "the receive buffer of the bulk socket stays as it is");
    }
    if let Err(error) = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES) {
        tracing::debug!(%error, "the send buffer of the bulk socket stays as it is");
    }
    let granted = socket.recv_buffer_size()?;
    socket.set_nonblocking(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&listen.into())?;
    let inner = TokioRuntime.wrap_udp_socket(UdpSocket::from(socket))?;
    let outbox = Arc::new(Outbox { inner, counters, batch: Mutex::default(), waiting: Notify::new(), _open: open });
    let flushing = tokio::spawn(flush_task(Arc::clone(&outbox))).abort_handle();
    let segments_max = (BATCH_BYTES_MAX / usize::from(mtu.max(1))).max(1);
    Ok((Arc::new(CountingSocket { outbox, segments_max, flushing }), granted))
}

/// Sends what waits as soon as nothing else is to be done on this thread: whoever has more to send has then had its turn.
async fn flush_task(outbox: Arc<Outbox>) {
    let mut writable = Arc::clone(&outbox.inner).create_io_poller();
    loop {
        outbox.waiting.notified().await;
        yield_now().await;
        while let Err(error) = outbox.flush() {
            if error.kind() != io::ErrorKind::WouldBlock {
                tracing::debug!(%error, "datagrams cannot be sent");
                break;
            }
            if let Err(error) = poll_fn(|context| writable.as_mut().poll_writable(context)).await {
                tracing::debug!(%error, "the bulk socket cannot be written");
                break;
            }
        }
    }
}

/// The way out: the socket, and the datagrams that wait to go in one call.
#[derive(Debug)]
struct Outbox {
    inner: Arc<dyn AsyncUdpSocket>,
    counters: Arc<SocketCounters>,
    batch: Mutex<Batch>,
    /// Told when something waits that nothing else will send.
    waiting: Notify,
    /// Last, so that it goes after the socket.
    _open: mpsc::Sender<Infallible>,
}

impl Outbox {
    fn offer(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = batch.is_empty();
        match batch.offer(transmit, self.inner.max_transmit_segments()) {
            Offered::Held if was_empty => self.waiting.notify_one(),
            Offered::Held => {}
            // It waits where the kernel takes no more; the next in the way finds that out.
            Offered::Full => match self.send_batch(&mut batch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.waiting.notify_one(),
                outcome => return outcome,
            },
            Offered::Apart => {
                self.send_batch(&mut batch)?;
                match batch.offer(transmit, self.inner.max_transmit_segments()) {
                    Offered::Held => self.waiting.notify_one(),
                    Offered::Full => return self.send_batch(&mut batch),
                    Offered::Apart => return self.send(transmit),
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.send_batch(&mut self.batch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends the batch and empties it. It stays where the kernel cannot take it now; whatever else fails loses it, as a
    /// network may.
    fn send_batch(&self, batch: &mut Batch) -> io::Result<()> {
        let Some(transmit) = batch.transmit() else { return Ok(()) };
        let sent = self.send(&transmit);
        if !matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            batch.clear();
        }
        sent
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        self.counters.sent.fetch_add(as_u64(transmit.contents.len()), Ordering::Relaxed);
        Ok(())
    }
}

/// A socket of quinn's runtime that adds up the payload it moves, and sends many datagrams at a time.
#[derive(Debug)]
pub(super) struct CountingSocket {
    outbox: Arc<Outbox>,
    /// Datagrams of the largest size that the kernel takes in a call; quinn does not count their bytes.
    segments_max: usize,
    flushing: AbortHandle,
}

impl Drop for CountingSocket {
    fn drop(&mut self) {
        // What still waits are the last words of connections; they are not lost because of a moment.
        if let Err(error) = self.outbox.flush() {
            tracing::debug!(%error, "the last datagrams were not sent");
        }
        self.flushing.abort();
    }
}

impl AsyncUdpSocket for CountingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.outbox.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.outbox.offer(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.outbox.inner.poll_recv(context, buffers, meta);
        if let Poll::Ready(Ok(messages)) = &polled {
            let bytes = meta.iter().take(*messages).map(|meta| as_u64(meta.len)).sum();
            self.outbox.counters.received.fetch_add(bytes, Ordering::Relaxed);
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.outbox.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.outbox.inner.max_transmit_segments().min(self.segments_max)
    }

    fn max_receive_segments(&self) -> usize {
        self.outbox.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.outbox.inner.may_fragment()
    }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
