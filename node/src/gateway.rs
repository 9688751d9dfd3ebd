//! The gateway: what lies at this node, for the people and programs of its organisation, with the clients that they have.
//!
//! HTTP on this machine alone, with a token. Under `/hf` it answers as the Hugging Face Hub does. What it gives out was imported
//! here, has crossed, or is crossing: asking for the files of what another node offers starts a crossing, as `alliance pull`
//! does. What is uploaded is imported and offered, as `alliance model import` and `alliance offer publish` do. Nothing is decided
//! here.
//!
//! - `routes`: what is asked for; `reading`: the bytes of a file; `crossings`: what another node offers, brought here
//! - `uploads`, `lfs`: what is sent, and what becomes of it
//! - `hub`, `denied`: the words of the Hub, and a denial in one line; pure

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alliance_protocol::{
    core::admin::{AdminCall, LocalModel, Reply},
    id::ManifestId,
    manifest::Manifest,
    offer,
    time::Timestamp,
};
use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};
use tokio_io_timeout::TimeoutStream;

use self::{
    crossings::Crossings,
    denied::{LINE_BYTES_MAX, ascii, cut},
    hub::{Offered, Place, Refusal, Repo},
    lfs::Tickets,
    uploads::Turns,
};
use crate::{
    api::Waiting,
    bulk::Arrivals,
    models::{Compared, load_manifest},
    shelf::{Shelf, Shelved},
    tokens::{Doorkeeper, Scope, Token, TokenFile},
};

mod crossings;
mod denied;
mod hub;
mod lfs;
mod reading;
mod routes;
mod uploads;

/// Connections at a time; more wait. A client has eight by default.
const CONNECTIONS_MAX: usize = 256;

/// How long the head of a request may take to come, and how long a connection may stand without one.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// How long to wait after the system refused a connection, for example for want of file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Questions to the loop at a time; more wait.
const ASKED_MAX: usize = 16;

/// How long to wait for the loop. Clients give up after ten seconds.
const WITHIN: Duration = Duration::from_secs(4);

/// Pieces that are read from the disk at a time, of 1 MiB.
const READING_MAX: usize = 16;

/// How long a client may take nothing of what is written to it; then its connection is closed. Longer than a program stops for by
/// itself, and not for ever, as there are only so many connections.
const TAKEN_WITHIN: Duration = Duration::from_secs(5 * 60);

/// Lines of commits that are taken in at a time, each of at most some MiB and held several times over; and commits that are made a
/// version, each on a thread that copies or hashes all of its files. Others wait.
const LINES_TAKEN_MAX: usize = 8;
const COMMITS_MADE_MAX: usize = 4;

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
    crossings: Crossings,
    shelf: Shelf,
    tickets: Tickets,
    turns: Turns,
    /// The ones used last, the latest at the end.
    kept: tokio::sync::Mutex<Vec<Manifest>>,
    compared: Arc<Compared>,
    asking: Semaphore,
    reading: Arc<Semaphore>,
    taking: Semaphore,
    making: Semaphore,
}

impl Gateway {
    /// Starts to serve. `manifests` is where the manifests of local models lie, and `models` where what is pulled goes.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(
        listen: SocketAddr,
        tokens: TokenFile,
        (manifests, models): (PathBuf, PathBuf),
        shelf: Shelf,
        arrivals: Arrivals,
        calls: mpsc::Sender<Waiting>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let left_over = shelf.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            left_over.clear_away()?;
            left_over.sweep(SystemTime::now())
        });
        if let Ok(Err(error)) = cleared.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "what is left of uploads is not cleared away");
        }
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk {
            compared: arrivals.compared(),
            calls,
            door: Mutex::new(Doorkeeper::new(tokens)),
            manifests,
            crossings: Crossings::new(arrivals, models),
            shelf,
            tickets: Tickets::default(),
            turns: Turns::default(),
            kept: tokio::sync::Mutex::default(),
            asking: Semaphore::new(ASKED_MAX),
            reading: Arc::new(Semaphore::new(READING_MAX)),
            taking: Semaphore::new(LINES_TAKEN_MAX),
            making: Semaphore::new(COMMITS_MADE_MAX),
        });
        let router = router(desk);
        Ok(Self { address, task: tokio::spawn(serve(listener, router)) })
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

/// Accepts connections for ever. They end with this.
async fn serve(listener: TcpListener, router: Router) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // INVARIANT: nobody closes the semaphore.
        let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the gateway could not accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(TAKEN_WITHIN));
            if let Err(error) = http.serve_connection(TokioIo::new(Box::pin(stream)), service).await {
                tracing::debug!(%error, "a connection to the gateway ended early");
            }
            drop(place);
        });
    }
}

fn router(desk: Arc<Desk>) -> Router {
    let hub = Router::new()
        .route("/api/whoami-v2", get(routes::whoami))
        .route("/api/{kind}", get(routes::search))
        .route("/api/{kind}/{organisation}/{name}", get(routes::info))
        .route("/api/{kind}/{organisation}/{name}/revision/{revision}", get(routes::revision))
        .route("/api/{kind}/{organisation}/{name}/auth-check", get(routes::auth_check))
        .route("/api/{kind}/{organisation}/{name}/refs", get(routes::refs))
        .route("/api/{kind}/{organisation}/{name}/tree/{revision}", get(routes::tree))
        .route("/api/{kind}/{organisation}/{name}/tree/{revision}/{*folder}", get(routes::subtree))
        .route("/api/{kind}/{organisation}/{name}/paths-info/{revision}", post(routes::paths_info))
        .route("/api/repos/create", post(uploads::create))
        .route("/api/validate-yaml", post(uploads::validate_yaml))
        .route("/api/{kind}/{organisation}/{name}/preupload/{revision}", post(uploads::preupload))
        .route("/api/{kind}/{organisation}/{name}/commit/{revision}", post(uploads::commit))
        .route("/api/{kind}/{organisation}/{name}/xet-write-token/{revision}", get(uploads::xet))
        .route("/{organisation}/{name}/info/lfs/objects/batch", post(lfs::model_batch))
        .route("/datasets/{organisation}/{name}/info/lfs/objects/batch", post(lfs::dataset_batch))
        .route("/lfs-verify", post(lfs::verify))
        .route("/{organisation}/{name}/resolve/{revision}/{*path}", get(routes::model_file))
        .route("/datasets/{organisation}/{name}/resolve/{revision}/{*path}", get(routes::dataset_file))
        .fallback(|| async { Refusal::Call })
        .method_not_allowed_fallback(|| async { Refusal::Call })
        .layer(middleware::from_fn_with_state(Arc::clone(&desk), admitted))
        // The address of a file that is sent is leave enough; clients send no token with it.
        .route("/lfs/{ticket}", put(lfs::put))
        // What is read of a body is bounded where it is read.
        .layer(DefaultBodyLimit::disable())
        .with_state(desk);
    Router::new().nest("/hf", hub)
}

/// Lets in who has a token that says so.
async fn admitted(State(desk): State<Arc<Desk>>, mut request: Request, next: Next) -> Result<Response, Refusal> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, secret) = given.and_then(|value| value.split_once(' ')).ok_or(Refusal::Token)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Token);
    }
    let token = desk.token(secret.trim())?;
    if !token.scopes.contains(&Scope::Read) {
        return Err(Refusal::Scope(Scope::Read));
    }
    request.extensions_mut().insert(token);
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let is_command = agent.is_some_and(|agent| agent.starts_with("huggingface-cli/"));
    let mut response = next.run(request).await;
    if let Some(code) = response.headers_mut().get_mut("x-error-code").filter(|code| is_command && *code == hub::GATED) {
        *code = HeaderValue::from_static(hub::POLICY);
    }
    Ok(response)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Desk {
    fn token(&self, secret: &str) -> Result<Token, Refusal> {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        match door.admit(secret, now()) {
            Ok(found) => found.cloned().ok_or(Refusal::Token),
            Err(error) => {
                tracing::error!(%error, "nobody is let in by the gateway");
                Err(Refusal::Tokens)
            }
        }
    }

    /// Whether a token that let somebody in would do so now.
    fn still(&self, token: &Token) -> bool {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        door.counts(token, now()).unwrap_or_else(|error| {
            tracing::error!(%error, "downloads over the gateway are ended");
            false
        })
    }

    /// Gives an order, and says what became of it.
    async fn order(&self, call: AdminCall) -> Result<Reply, Refusal> {
        let asked = async {
            // INVARIANT: nobody closes the semaphore.
            let _place = self.asking.acquire().await.map_err(|_| Refusal::Internal)?;
            let (sender, reply) = oneshot::channel();
            self.calls.try_send((call, sender)).map_err(|_| Refusal::Busy)?;
            reply.await.map_err(|_| Refusal::Busy)
        };
        tokio::time::timeout(WITHIN, asked).await.map_err(|_| Refusal::Busy)?
    }

    /// Gives an order that is not given up once it was heard.
    async fn carry_out(&self, call: AdminCall) -> Result<Reply, Refusal> {
        let (sender, reply) = oneshot::channel();
        self.calls.send((call, sender)).await.map_err(|_| Refusal::Busy)?;
        reply.await.map_err(|_| Refusal::Busy)
    }

    /// Asks what there is; there is no reason to say no to that.
    async fn ask(&self, call: AdminCall) -> Result<Reply, Refusal> {
        match self.order(call).await? {
            Reply::Failed(failure) => {
                tracing::error!(?failure, "the gateway was not told what there is");
                Err(Refusal::Internal)
            }
            reply => Ok(reply),
        }
    }

    async fn models(&self) -> Result<Vec<LocalModel>, Refusal> {
        match self.ask(AdminCall::ReadableModels).await? {
            Reply::Models(models) => Ok(models),
            _ => Err(Refusal::Internal),
        }
    }

    /// Where an artefact lies under its name, if it does.
    async fn lies_here(&self, name: &str, id: ManifestId) -> Result<Option<PathBuf>, Refusal> {
        let models = self.models().await?;
        Ok(models.into_iter().find(|model| model.name == name && model.manifest == id).map(|model| model.path))
    }

    /// What others offer, by name.
    async fn offered(&self) -> Result<BTreeMap<String, Repo>, Refusal> {
        let Reply::Offers(offers) = self.ask(AdminCall::Offers).await? else { return Err(Refusal::Internal) };
        let mut repos: BTreeMap<String, Repo> = BTreeMap::new();
        // What a node offers on is found through the offer that it goes back to.
        for view in offers.into_iter().filter(|view| !view.own && view.root.is_none()) {
            let offer::Offered::Model(model) = &view.what else { continue };
            let mut offered = Offered::of(&view);
            let mut repo =
                Repo { name: view.name.clone(), model: model.clone(), place: Place::Offered(Box::new(offered.clone())) };
            if let Some(Repo { model, place: Place::Offered(known), .. }) = repos.remove(&view.name) {
                offered = offered.or(*known);
                if offered.offer != view.offer {
                    repo.model = model;
                }
                repo.place = Place::Offered(Box::new(offered));
            }
            repos.insert(view.name, repo);
        }
        Ok(repos)
    }

    /// All that there is, by name: what lies here, and what others offer and does not.
    async fn repos(&self) -> Result<BTreeMap<String, Repo>, Refusal> {
        let mut repos = self.offered().await?;
        repos.extend(self.models().await?.iter().map(|model| (model.name.clone(), Repo::here(model))));
        Ok(repos)
    }

    /// What was uploaded and is no model, because it has no labels.
    async fn unlabelled(&self) -> Result<Vec<(String, Shelved)>, Refusal> {
        let shelf = self.shelf.clone();
        let all = uploads::blocking(move || shelf.all()).await?;
        let models: BTreeSet<String> = self.models().await?.into_iter().map(|model| model.name).collect();
        Ok(all.into_iter().filter(|(name, _)| !models.contains(name)).collect())
    }

    /// What an artefact that lies here consists of. One is read at a time: the largest take a while, and many ask for the same.
    async fn manifest(self: &Arc<Self>, name: &str, id: ManifestId) -> Result<Manifest, Refusal> {
        let mut kept = self.kept.lock().await;
        if let Some(place) = kept.iter().position(|manifest| manifest.id() == id) {
            let manifest = kept.remove(place);
            kept.push(manifest.clone());
            return Ok(manifest);
        }
        let place = self.manifests.clone();
        let loaded = tokio::task::spawn_blocking(move || load_manifest(&place, id)).await;
        let loaded = loaded.map_err(|_| Refusal::Internal)?;
        let manifest = loaded.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, name, "the gateway cannot read a manifest");
            Refusal::Damaged(name.to_owned())
        })?;
        if kept.len() >= MANIFESTS_KEPT {
            kept.remove(0);
        }
        kept.push(manifest.clone());
        Ok(manifest)
    }
}

impl Repo {
    fn here(model: &LocalModel) -> Self {
        Self { name: model.name.clone(), model: model.offered(), place: Place::Here(model.path.clone()) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message: String = self.to_string().chars().filter(|character| !character.is_control()).collect();
        let mut body = serde_json::json!({ "error": message });
        if let (Some(members), Some(denied)) = (body.as_object_mut(), self.denied()) {
            let known = serde_json::json!({ "crossing": denied.crossing.to_string(), "rules": denied.rules });
            members.insert("alliance".to_owned(), known);
        }
        let mut response = (self.status(), Json(body)).into_response();
        // In a header only what every client takes.
        let message = cut(&ascii(&message), LINE_BYTES_MAX);
        let mut put = |name: &'static str, text: &str| {
            if let Ok(text) = HeaderValue::from_str(text) {
                response.headers_mut().insert(name, text);
            }
        };
        put("x-error-code", self.code());
        put("x-error-message", &message);
        // Clients show this one as it is, whatever they make of the rest.
        if self.warns() {
            put("x-hf-warning", &format!("alliance-{}; {message}", self.topic()));
        }
        if let Some(commit) = self.commit() {
            put("x-repo-commit", commit);
        }
        if let Some(denied) = self.denied() {
            put("x-request-id", &denied.crossing.to_string());
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            put("www-authenticate", "Bearer");
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            put("retry-after", "1");
        }
        response
    }
}

/// An answer without a body.
fn empty(status: StatusCode) -> Response {
    (status, Body::empty()).into_response()
}
