//! The gateway: what lies at this node, for the people and programs of its organisation, with the clients that they have.
//!
//! HTTP on this machine alone, with a token. Under `/hf` it answers as the Hugging Face Hub does. What it gives out lies here
//! already: it was imported here, or has crossed. Nothing is decided here, and nothing crosses by a request to it.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alliance_protocol::{
    core::admin::{AdminCall, LocalModel, OfferView, Reply},
    id::ManifestId,
    manifest::Manifest,
    offer::Offered,
    time::Timestamp,
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use self::hub::{Refusal, Repo};
use crate::{
    api::Waiting,
    models::{Compared, load_manifest},
    tokens::{Doorkeeper, Token, TokenFile},
};

mod hub;
mod reading;
mod routes;

/// Requests that are looked at together; more wait. Each asks the loop.
const REQUESTS_MAX: usize = 32;

/// Files that are read at a time, by eight clients with as many connections as they have by default; more are told to come
/// again. Each takes some 1 MiB.
const DOWNLOADS_MAX: usize = 64;

/// How long to wait for the loop.
const WITHIN: Duration = Duration::from_secs(20);

/// Manifests that are kept decoded: of what is being downloaded. The largest have some 50 MiB.
const MANIFESTS_KEPT: usize = 8;

/// The server; it runs while this value lives.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// What each request needs.
struct Desk {
    calls: mpsc::Sender<Waiting>,
    door: Mutex<Doorkeeper>,
    manifests: PathBuf,
    /// The ones used last, the latest at the end.
    kept: Mutex<Vec<Manifest>>,
    compared: Arc<Compared>,
    free: Semaphore,
    downloads: Arc<Semaphore>,
}

impl Gateway {
    /// Starts to serve.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(
        listen: SocketAddr,
        tokens: TokenFile,
        manifests: PathBuf,
        calls: mpsc::Sender<Waiting>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk {
            calls,
            door: Mutex::new(Doorkeeper::new(tokens)),
            manifests,
            kept: Mutex::default(),
            compared: Arc::default(),
            free: Semaphore::new(REQUESTS_MAX),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
        });
        let router = router(desk);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the gateway ended");
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

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn router(desk: Arc<Desk>) -> Router {
    let hub = Router::new()
        .route("/api/whoami-v2", get(routes::whoami))
        .route("/api/{kind}", get(routes::search))
        .route("/api/{kind}/{organisation}/{name}", get(routes::info))
        .route("/api/{kind}/{organisation}/{name}/revision/{revision}", get(routes::revision))
        .route("/api/{kind}/{organisation}/{name}/refs", get(routes::refs))
        .route("/api/{kind}/{organisation}/{name}/tree/{revision}", get(routes::tree))
        .route("/api/{kind}/{organisation}/{name}/tree/{revision}/{*folder}", get(routes::subtree))
        .route("/api/{kind}/{organisation}/{name}/paths-info/{revision}", post(routes::paths_info))
        .route("/{organisation}/{name}/resolve/{revision}/{*path}", get(routes::model_file))
        .route("/datasets/{organisation}/{name}/resolve/{revision}/{*path}", get(routes::dataset_file))
        .fallback(|| async { Refusal::Request("this gateway has no such call".to_owned()) })
        .layer(middleware::from_fn_with_state(Arc::clone(&desk), admitted))
        .with_state(desk);
    Router::new().nest("/hf", hub)
}

/// Lets in who has a token, a bounded number at a time.
async fn admitted(State(desk): State<Arc<Desk>>, mut request: Request, next: Next) -> Result<Response, Refusal> {
    let secret = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let secret = secret.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Refusal::Token)?;
    let token = desk.token(secret.trim())?;
    request.extensions_mut().insert(token);
    // Whoever has no token takes no place.
    let waited = tokio::time::timeout(WITHIN, desk.free.acquire()).await;
    let _place = waited.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Busy)?;
    Ok(next.run(request).await)
}

impl Desk {
    fn token(&self, secret: &str) -> Result<Token, Refusal> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        match door.admit(secret, now) {
            Ok(found) => found.cloned().ok_or(Refusal::Token),
            Err(error) => {
                tracing::error!(%error, "nobody is let in by the gateway");
                Err(Refusal::Tokens)
            }
        }
    }

    async fn ask(&self, call: AdminCall) -> Result<Reply, Refusal> {
        let (sender, reply) = oneshot::channel();
        self.calls.try_send((call, sender)).map_err(|_| Refusal::Busy)?;
        match tokio::time::timeout(WITHIN, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
        }
    }

    async fn models(&self) -> Result<Vec<LocalModel>, Refusal> {
        match self.ask(AdminCall::Models).await? {
            Reply::Models(models) => Ok(models),
            _ => Err(Refusal::Busy),
        }
    }

    async fn offers(&self) -> Result<Vec<OfferView>, Refusal> {
        match self.ask(AdminCall::Offers).await? {
            Reply::Offers(offers) => Ok(offers),
            _ => Err(Refusal::Busy),
        }
    }

    /// All that there is, by name: what lies here, and what others offer and does not.
    async fn repos(&self) -> Result<Vec<Repo>, Refusal> {
        let mut repos: Vec<Repo> = self.models().await?.iter().map(Repo::here).collect();
        for offer in self.offers().await? {
            if let Offered::Model(model) = offer.what
                && !offer.own
                && !repos.iter().any(|known| known.name == offer.name)
            {
                repos.push(Repo { name: offer.name, model, offered_by: Some(offer.country) });
            }
        }
        repos.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(repos)
    }

    /// What an artefact that lies here consists of.
    async fn manifest(self: &Arc<Self>, name: &str, id: ManifestId) -> Result<Manifest, Refusal> {
        if let Some(known) = self.kept(id) {
            return Ok(known);
        }
        let place = self.manifests.clone();
        let loaded = tokio::task::spawn_blocking(move || load_manifest(&place, id)).await;
        let manifest = loaded.map_err(|_| Refusal::Busy)?.map_err(|error| {
            tracing::warn!(%error, name, "the gateway cannot read a manifest");
            Refusal::Damaged(name.to_owned())
        })?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MANIFESTS_KEPT {
            kept.remove(0);
        }
        kept.push(manifest.clone());
        Ok(manifest)
    }

    fn kept(&self, id: ManifestId) -> Option<Manifest> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|manifest| manifest.id() == id)?;
        let manifest = kept.remove(place);
        kept.push(manifest.clone());
        Some(manifest)
    }
}

impl Repo {
    fn here(model: &LocalModel) -> Self {
        Self { name: model.name.clone(), model: model.offered(), offered_by: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message: String = self.to_string().chars().filter(|character| !character.is_control()).collect();
        let mut response = (self.status(), Json(serde_json::json!({ "error": message }))).into_response();
        let headers = response.headers_mut();
        headers.insert("x-error-code", HeaderValue::from_static(self.code()));
        if let Ok(text) = HeaderValue::from_str(&message) {
            headers.insert("x-error-message", text);
        }
        // Clients show this one as it is, whatever they make of the rest.
        if self.warns()
            && let Ok(text) = HeaderValue::from_str(&format!("alliance-{}; {message}", self.code()))
        {
            headers.insert("x-hf-warning", text);
        }
        if let Some(commit) = self.commit().and_then(|commit| HeaderValue::from_str(commit).ok()) {
            headers.insert("x-repo-commit", commit);
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// An answer without a body.
fn empty(status: StatusCode) -> Response {
    (status, Body::empty()).into_response()
}
