//! The daemon's side of the local API.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use alliance_protocol::core::admin::{AdminCall, Failure, FailureKind, Reply};
use axum::{
    Json, Router,
    body::{Body, HttpBody as _},
    extract::State,
    http::StatusCode,
    routing::{get, post},
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{CALL_BYTES_MAX, Version, Waiting};
use crate::durable;

/// Connections at a time; more wait. Each CLI command has one.
const CONNECTIONS_MAX: usize = 64;

/// How long the body of a call may take to come; it comes from this machine.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// How long a call may wait for the loop. Reading and deciding takes milliseconds; a disk may stall.
const REPLY_WITHIN: Duration = Duration::from_secs(60);

/// How long to wait after the system refused a connection, for example for want of file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The server; it runs while this value lives.
#[derive(Debug)]
pub struct ApiServer {
    path: PathBuf,
    task: JoinHandle<()>,
}

/// Why the local API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot listen on `{}`", path.display())]
    Bind {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot tell which user this is")]
    User(#[source] io::Error),
}

impl ApiServer {
    /// Starts to serve on a socket whose directory only the owner can enter (`Home::socket_for_daemon`). Calls go to
    /// `calls`; a call that finds the queue full is told to come again.
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub fn start(path: &Path, calls: mpsc::Sender<Waiting>) -> Result<Self, ApiError> {
        let bind = |source| ApiError::Bind { path: path.to_owned(), source };
        let socket = UnixListener::bind(path).map_err(bind)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(bind)?;
        let owner = durable::own_uid().map_err(ApiError::User)?;
        let listener = OwnerOnly { socket, owner, free: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        let router = Router::new()
            .route("/v1/call", post(call))
            .route("/v1/version", get(|| async { Json(Version::own()) }))
            .with_state(calls);
        let task = tokio::spawn(async move {
            // Serving a listener that never fails does not end by itself.
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the local API ended");
            }
        });
        Ok(Self { path: path.to_owned(), task })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
        // One that stays is removed by the next daemon.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn call(State(calls): State<mpsc::Sender<Waiting>>, body: Body) -> (StatusCode, Json<Reply>) {
    match answer(&calls, body).await {
        Ok(reply) => (StatusCode::OK, Json(reply)),
        Err((status, failure)) => (status, Json(Reply::Failed(failure))),
    }
}

async fn answer(calls: &mpsc::Sender<Waiting>, body: Body) -> Result<Reply, (StatusCode, Failure)> {
    let fail = |status, kind, message: &str| (status, Failure { kind, message: message.to_owned() });
    let too_large = || fail(StatusCode::PAYLOAD_TOO_LARGE, FailureKind::Usage, "the call is too long");
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > CALL_BYTES_MAX {
        return Err(too_large());
    }
    let body = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, CALL_BYTES_MAX))
        .await
        .map_err(|_| fail(StatusCode::REQUEST_TIMEOUT, FailureKind::Usage, "the call did not come to its end in time"))?
        .map_err(|_| too_large())?;
    let call: AdminCall = serde_json::from_slice(&body)
        .map_err(|error| fail(StatusCode::BAD_REQUEST, FailureKind::Usage, &format!("not a call: {error}")))?;
    let (sender, reply) = oneshot::channel();
    let ended = || fail(StatusCode::SERVICE_UNAVAILABLE, FailureKind::Internal, "the daemon is stopping");
    calls.try_send((call, sender)).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => {
            fail(StatusCode::SERVICE_UNAVAILABLE, FailureKind::Busy, "too many calls wait already; try again")
        }
        mpsc::error::TrySendError::Closed(_) => ended(),
    })?;
    match tokio::time::timeout(REPLY_WITHIN, reply).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(_)) => Err(ended()),
        Err(_) => Err(fail(StatusCode::GATEWAY_TIMEOUT, FailureKind::Busy, "the daemon did not answer within a minute")),
    }
}

/// Lets in the owner of the daemon and root, a bounded number at a time.
struct OwnerOnly {
    socket: UnixListener,
    owner: u32,
    free: Arc<Semaphore>,
}

/// A connection that holds one of the free places.
struct Place {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl Listener for OwnerOnly {
    type Io = Place;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Place, SocketAddr) {
        loop {
            let Ok(permit) = Arc::clone(&self.free).acquire_owned().await else {
                // INVARIANT: nobody closes the semaphore.
                std::future::pending::<()>().await;
                continue;
            };
            match self.socket.accept().await {
                Ok((stream, address)) if admitted(&stream, self.owner) => {
                    return (Place { stream, _permit: permit }, address);
                }
                Ok(_) => tracing::warn!("a connection of another user to the local API was refused"),
                Err(error) => {
                    tracing::warn!(%error, "the local API could not accept a connection");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

fn admitted(stream: &UnixStream, owner: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| may_call(peer.uid(), owner))
}

/// Root can read the owner's files anyway.
pub(super) const fn may_call(user: u32, owner: u32) -> bool {
    user == owner || user == 0
}

impl AsyncRead for Place {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Place {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
