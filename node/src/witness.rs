//! The witness's face on HTTP (C2SP `tlog-witness`), for logs and monitors that use other programs: off unless configured.
//!
//! Nodes of the alliance ask each other over the mesh. What is answered is the same: `Core` decides, and what it signs is
//! durable before the answer leaves.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use alliance_protocol::{
    core::admin::{AdminCall, Reply},
    ledger::ADD_CHECKPOINT_BYTES_MAX,
};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_bytes::ByteBuf;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use crate::api::Waiting;

/// Requests that are looked at together; further ones are told to come again. Each that is signed costs two syncs.
const REQUESTS_MAX: usize = 8;

/// How long a request may take to come, and to be answered.
const WITHIN: Duration = Duration::from_secs(20);

/// The content type of everything but a conflict.
const TEXT: &str = "text/plain; charset=utf-8";

/// The server; it runs while this value lives.
#[derive(Debug)]
pub struct WitnessServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// What each request needs.
#[derive(Clone)]
struct Desk {
    calls: mpsc::Sender<Waiting>,
    free: Arc<Semaphore>,
}

impl WitnessServer {
    /// Starts to serve `POST /add-checkpoint` and `GET /ORIGIN-HASH/checkpoint`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(listen: SocketAddr, calls: mpsc::Sender<Waiting>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/add-checkpoint", post(add))
            .route("/{origin}/checkpoint", get(held))
            .with_state(Desk { calls, free: Arc::new(Semaphore::new(REQUESTS_MAX)) });
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the witness's HTTP server ended");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for WitnessServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn add(State(desk): State<Desk>, body: Body) -> Response {
    // Before the body, which somebody may send slowly.
    let Ok(_place) = desk.free.clone().try_acquire_owned() else { return busy() };
    let read = tokio::time::timeout(WITHIN, axum::body::to_bytes(body, ADD_CHECKPOINT_BYTES_MAX)).await;
    match read {
        Ok(Ok(bytes)) => desk.ask(AdminCall::AddCheckpoint(ByteBuf::from(bytes.to_vec()))).await,
        Ok(Err(_)) => answer(StatusCode::BAD_REQUEST, TEXT, "the request is malformed: it is too long\n".to_owned()),
        Err(_) => answer(StatusCode::REQUEST_TIMEOUT, TEXT, "the request did not come to its end in time\n".to_owned()),
    }
}

async fn held(State(desk): State<Desk>, Path(origin): Path<String>) -> Response {
    let Ok(_place) = desk.free.clone().try_acquire_owned() else { return busy() };
    desk.ask(AdminCall::HeldCheckpoint { origin_hash: origin }).await
}

impl Desk {
    async fn ask(&self, call: AdminCall) -> Response {
        let (sender, reply) = oneshot::channel();
        if self.calls.try_send((call, sender)).is_err() {
            return busy();
        }
        match tokio::time::timeout(WITHIN, reply).await {
            Ok(Ok(Reply::Witness { status, content_type, body })) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                answer(status, &content_type, body)
            }
            Ok(Ok(_) | Err(_)) | Err(_) => busy(),
        }
    }
}

fn busy() -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many requests wait; try again\n".to_owned())
}

fn answer(status: StatusCode, content_type: &str, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, content_type.to_owned())], body).into_response()
}
