//! Uploads: what a client of the Hub sends becomes a model of this node, and is offered where its labels are known.
//!
//! Labels come from the card of the model, `alliance: labels:` in the front matter of its `README.md`, or from the model of that
//! name that is here. Without labels it is kept and read by nobody, until `alliance label` says them.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use alliance_protocol::{
    core::admin::{AdminCall, FailureKind, LocalModel, OfferDraft, OfferView, Reply},
    id::Sha256,
    limits,
    manifest::check_path,
    offer::{Offered, split_name},
    vocabulary::{Artefact, Country},
};
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use base64::Engine as _;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{
    Desk,
    denied::{LINE_BYTES_MAX, ascii, cut},
    hub::{self, Kind, Refusal},
    now,
    routes::{BODY_WITHIN, drain, json_body, kind_of, link},
};
use crate::{
    models::{
        ImportError, ImportRequest,
        card::{Card, Choices, Member},
        import,
    },
    shelf::{Draft, Finished, ShelfError, Shelved},
    tokens::{Scope, Token},
};

/// Bytes of a file that may come within a commit, in base64. Clients hold some five times as much in memory for it.
pub(super) const INLINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Bytes of a line of a commit: such a file, its path, and what is around them.
const LINE_BYTES: u64 = INLINE_BYTES_MAX / 3 * 4 + 64 * 1024;

/// Files of which a client asks at once how to send them. It asks for 256.
const FILES_MAX: usize = 1024;

/// Lines of a commit: one for each file that an artefact may have, and as many for what is taken away.
const OPERATIONS_MAX: usize = 2 * limits::FILES_PER_MANIFEST_MAX;

/// How long the lines of a commit may take to come, all of them.
const COMMIT_WITHIN: Duration = Duration::from_secs(60 * 60);

/// How long a commit may wait for the one before it, and for its own end before the answer begins. Clients give up after ten
/// seconds without a byte.
const WAIT: Duration = Duration::from_secs(5);

/// Between two blanks before the answer to a commit that takes long.
const BLANK_EVERY: Duration = Duration::from_secs(2);

type Answer = Result<Response, Refusal>;

/// What somebody may upload to.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    name: String,
    kind: Kind,
    /// The country of this node.
    home: Country,
}

impl Upload {
    /// Where clients find it, behind the address of the gateway.
    fn path(&self) -> String {
        let kind = if self.kind == Kind::Datasets { "datasets/" } else { "" };
        format!("{kind}{}", self.name)
    }
}

/// Whether the holder of a token may upload under this name.
pub(super) async fn may_write(
    desk: &Desk,
    token: &Token,
    kind: Kind,
    organisation: &str,
    name: &str,
) -> Result<Upload, Refusal> {
    if !token.scopes.contains(&Scope::Write) {
        return Err(Refusal::Scope(Scope::Write));
    }
    let Reply::Status(status) = desk.ask(AdminCall::Status).await? else { return Err(Refusal::Internal) };
    if status.organisation != organisation {
        return Err(Refusal::Foreign { organisation: organisation.to_owned(), own: status.organisation });
    }
    let name = format!("{organisation}/{name}");
    split_name(&name).map_err(|error| Refusal::Rejected(error.to_string()))?;
    Ok(Upload { name, kind, home: status.country })
}

/// Does what waits for the disk, on a thread for it.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Refusal>
where
    T: Send + 'static,
    E: Into<Refusal> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Internal)?.map_err(Into::into)
}

#[derive(Deserialize)]
struct Create {
    name: String,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    private: Option<bool>,
    #[serde(default)]
    visibility: Option<String>,
}

/// `POST /api/repos/create`.
pub(super) async fn create(
    State(desk): State<Arc<Desk>>,
    Extension(token): Extension<Token>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let asked: Create = json_body(body).await?;
    let (organisation, name) = match (asked.organization, asked.name.split_once('/')) {
        (Some(organisation), None) => (organisation, asked.name),
        (None, Some((organisation, name))) => (organisation.to_owned(), name.to_owned()),
        _ => return Err(Refusal::Rejected(format!("`{}` is not of the form ORGANISATION/NAME", asked.name))),
    };
    let kind = match asked.kind.as_deref() {
        None | Some("model") => Kind::Models,
        Some("dataset") => Kind::Datasets,
        Some(other) => return Err(Refusal::Rejected(format!("there are models and datasets here, and no {other}"))),
    };
    let upload = may_write(&desk, &token, kind, &organisation, &name).await?;
    let private = asked.private.unwrap_or(false) || asked.visibility.is_some_and(|visibility| visibility != "public");
    let url = link(&headers, &upload.path())?;
    let known = desk.models().await?.iter().any(|model| model.name == upload.name);
    let (shelf, name) = (desk.shelf.clone(), upload.name.clone());
    let made = !known
        && blocking(move || {
            let made = shelf.create(&name, private, kind == Kind::Datasets, now())?;
            // Clients are content with what is there already. What is a model may be offered, and that is for its operator to end.
            if private {
                shelf.set_private(&name)?;
            }
            Ok::<_, ShelfError>(made)
        })
        .await?;
    let named = json!({ "url": url, "name": upload.name, "id": upload.name });
    if made {
        return Ok(Json(named).into_response());
    }
    // Clients read the address of what is there already from the answer that says so.
    let error = format!("`{}` is here already", upload.name);
    Ok((StatusCode::CONFLICT, Json(json!({ "error": error, "url": url }))).into_response())
}

#[derive(Deserialize)]
struct Yaml {
    content: String,
}

/// `POST /api/validate-yaml`: what the card says, before anything is sent.
pub(super) async fn validate_yaml(Extension(_): Extension<Token>, body: Body) -> Answer {
    let asked: Yaml = json_body(body).await?;
    Ok(match Card::parse(&asked.content) {
        Ok(card) if card.declared.labels.is_some() => Json(json!({ "errors": [], "warnings": [] })).into_response(),
        Ok(_) => {
            let warning = "the card has no `alliance: labels:`; a model of a new name stays private until it has labels";
            Json(json!({ "errors": [], "warnings": [{ "message": warning }] })).into_response()
        }
        Err(error) => {
            let errors = [json!({ "message": error.to_string() })];
            let body = json!({ "error": error.to_string(), "errors": errors, "warnings": [] });
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    })
}

#[derive(Deserialize)]
struct Preupload {
    files: Vec<Announced>,
}

#[derive(Deserialize)]
struct Announced {
    path: String,
    size: u64,
}

/// `POST /api/models/{id}/preupload/{revision}`: how each file is to be sent.
pub(super) async fn preupload(
    State(desk): State<Arc<Desk>>,
    Path((kind, organisation, name, revision)): Path<(String, String, String, String)>,
    Extension(token): Extension<Token>,
    body: Body,
) -> Answer {
    let upload = may_write(&desk, &token, kind_of(&kind)?, &organisation, &name).await?;
    on_main(&upload, &revision)?;
    let asked: Preupload = json_body(body).await?;
    if asked.files.len() > FILES_MAX {
        return Err(Refusal::TooLong);
    }
    let here = desk.models().await?.into_iter().find(|model| model.name == upload.name);
    let manifest = match here {
        Some(model) => Some(desk.manifest(&model.name, model.manifest).await?),
        None => None,
    };
    let answer = |file: &Announced| {
        // What begins with a dot is no part of an artefact, and is not sent.
        let hidden = file.path.split('/').any(|part| part.starts_with('.'));
        if !hidden && let Err(error) = check_path(&file.path) {
            return Err(Refusal::Rejected(format!("`{}` cannot be a path in a model: {error}", file.path)));
        }
        let large = file.size > INLINE_BYTES_MAX;
        let known = manifest.as_ref().filter(|_| large).and_then(|manifest| {
            manifest.files().iter().find(|known| known.path == file.path).map(|known| known.sha256.to_string())
        });
        let mode = if large { "lfs" } else { "regular" };
        Ok(json!({ "path": file.path, "uploadMode": mode, "shouldIgnore": hidden, "oid": known }))
    };
    let files: Vec<Value> = asked.files.iter().map(answer).collect::<Result<_, _>>()?;
    Ok(Json(json!({ "files": files })).into_response())
}

/// `GET /api/models/{id}/xet-write-token/{revision}`: what a client asks that was not told to use LFS.
pub(super) async fn xet() -> Refusal {
    Refusal::Xet
}

/// What a line of a commit says.
#[derive(Debug, Deserialize)]
#[serde(tag = "key", content = "value", rename_all = "camelCase")]
enum Operation {
    #[serde(rename_all = "camelCase")]
    Header {
        #[serde(default)]
        parent_commit: Option<String>,
    },
    File {
        path: String,
        content: String,
        #[serde(default)]
        encoding: Option<String>,
    },
    LfsFile {
        path: String,
        oid: Sha256,
        size: u64,
    },
    DeletedFile {
        path: String,
    },
    DeletedFolder {
        path: String,
    },
}

/// `POST /api/models/{id}/commit/{revision}`: the files that came with it and before it become the newest version.
pub(super) async fn commit(
    State(desk): State<Arc<Desk>>,
    Path((kind, organisation, name, revision)): Path<(String, String, String, String)>,
    Extension(token): Extension<Token>,
    Query(asked): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mut lines = Lines::of(body);
    let drafted = async {
        let upload = may_write(&desk, &token, kind_of(&kind)?, &organisation, &name).await?;
        on_main(&upload, &revision)?;
        if asked.iter().any(|(name, value)| name == "create_pr" && matches!(value.as_str(), "1" | "true" | "True")) {
            return Err(Refusal::Rejected("there are no pull requests here; commit to main".to_owned()));
        }
        let before = desk.before(&upload).await?;
        let draft = desk.draft(&upload, &before).await?;
        let draft = desk.apply(draft, &mut lines, (before.commit().as_deref(), &token)).await?;
        Ok((upload, before, draft))
    };
    let drafted = drafted.await;
    if drafted.is_err() {
        drain(&mut lines.stream).await;
    }
    let (upload, before, draft) = drafted?;
    let address = link(&headers, &upload.path())?;
    let turn = desk.turns.take(&upload.name).await?;
    let (sender, mut concluded) = oneshot::channel();
    tokio::spawn(async move {
        let outcome = desk.conclude(&upload, draft, before, &token).await;
        drop(turn);
        if let Err(error) = &outcome {
            tracing::warn!(%error, name = upload.name, "an upload was not taken");
        }
        // Whoever waited may be gone; what was done is done.
        let _ = sender.send(outcome);
    });
    match timeout(WAIT, &mut concluded).await {
        Ok(outcome) => {
            let committed = outcome.map_err(|_| Refusal::Internal)??;
            Ok(committed.response(&address))
        }
        Err(_) => Ok(patience(concluded, address)),
    }
}

/// An answer that begins with blanks, so that nobody gives up. If there is none after all, it breaks off.
fn patience(concluded: oneshot::Receiver<Result<Committed, Refusal>>, address: String) -> Response {
    let parts = stream::unfold(Some((concluded, address)), |state| async move {
        let (mut concluded, address) = state?;
        match timeout(BLANK_EVERY, &mut concluded).await {
            Err(_) => Some((Ok(Bytes::from_static(b" ")), Some((concluded, address)))),
            Ok(Ok(Ok(committed))) => Some((Ok(committed.json(&address).to_string().into()), None)),
            Ok(Ok(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(Err(_)) => Some((Err(io::Error::other("the upload was given up")), None)),
        }
    });
    ([("content-type", "application/json")], Body::from_stream(parts)).into_response()
}

fn on_main(upload: &Upload, revision: &str) -> Result<(), Refusal> {
    if hub::is_main(revision) {
        return Ok(());
    }
    Err(Refusal::Rejected(format!("`{}` has one branch, main; there is no `{revision}` to write to", upload.name)))
}

/// Who may conclude a commit, by the name: one at a time.
#[derive(Debug, Default)]
pub(super) struct Turns(std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>);

impl Turns {
    async fn take(&self, name: &str) -> Result<OwnedMutexGuard<()>, Refusal> {
        let turn = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(known.entry(name.to_owned()).or_default())
        };
        timeout(WAIT, turn.lock_owned()).await.map_err(|_| Refusal::Committing(name.to_owned()))
    }
}

/// What is here of a name: the model, and what was uploaded.
#[derive(Debug)]
struct Before {
    model: Option<LocalModel>,
    state: Option<Shelved>,
}

impl Before {
    /// How clients name the newest version.
    fn commit(&self) -> Option<String> {
        let uploaded = || self.state.as_ref()?.version.as_ref().map(|version| version.commit.clone());
        self.model.as_ref().map(|model| hub::commit(model.manifest)).or_else(uploaded)
    }
}

impl Desk {
    /// Reads a commit line by line, and does what it says to the draft.
    async fn apply(
        &self,
        mut draft: Draft,
        lines: &mut Lines,
        (current, token): (Option<&str>, &Token),
    ) -> Result<Draft, Refusal> {
        let mut count = 0_usize;
        while let Some(line) = lines.next().await? {
            count = count.saturating_add(1);
            if count > OPERATIONS_MAX {
                return Err(Refusal::TooLong);
            }
            if !self.still(token) {
                return Err(Refusal::Token);
            }
            draft = operate(draft, &line, current).await?;
        }
        Ok(draft)
    }
}

/// Does to the draft what a line says.
async fn operate(mut draft: Draft, line: &[u8], current: Option<&str>) -> Result<Draft, Refusal> {
    let operation: Operation = serde_json::from_slice(line)
        .map_err(|error| Refusal::Rejected(format!("a line of the commit is none that is known here: {error}")))?;
    match operation {
        Operation::Header { parent_commit: Some(parent) } if current.is_some_and(|current| current != parent) => {
            Err(Refusal::Behind)
        }
        Operation::Header { .. } => Ok(draft),
        operation => {
            blocking(move || {
                change(&mut draft, operation)?;
                Ok::<_, Refusal>(draft)
            })
            .await
        }
    }
}

fn change(draft: &mut Draft, operation: Operation) -> Result<(), Refusal> {
    match operation {
        Operation::Header { .. } => {}
        Operation::File { path, content, encoding } => {
            let content = match encoding.as_deref() {
                None | Some("utf-8") => content.into_bytes(),
                Some("base64") => base64::engine::general_purpose::STANDARD
                    .decode(content)
                    .map_err(|error| Refusal::Rejected(format!("`{path}` is no base64: {error}")))?,
                Some(other) => return Err(Refusal::Rejected(format!("`{path}` has the unknown encoding `{other}`"))),
            };
            draft.put(&path, &content)?;
        }
        Operation::LfsFile { path, oid, size } => draft.put_blob(&path, oid, size)?,
        Operation::DeletedFile { path } | Operation::DeletedFolder { path } => draft.remove(&path)?,
    }
    Ok(())
}

/// The lines of a body, as they come.
struct Lines {
    stream: axum::body::BodyDataStream,
    buffer: BytesMut,
    /// Bytes in which there is no end of a line.
    searched: usize,
    until: Instant,
}

impl Lines {
    fn of(body: Body) -> Self {
        Self {
            stream: body.into_data_stream(),
            buffer: BytesMut::new(),
            searched: 0,
            until: Instant::now() + COMMIT_WITHIN,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let unseen = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched.saturating_add(at)).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if u64::try_from(self.searched).unwrap_or(u64::MAX) > LINE_BYTES {
                return Err(Refusal::TooLong);
            }
            let next = timeout_at(self.until.min(Instant::now() + BODY_WITHIN), self.stream.next()).await;
            match next.map_err(|_| Refusal::Request("the commit did not come to its end in time".to_owned()))? {
                Some(part) => {
                    self.buffer.extend_from_slice(&part.map_err(|_| Refusal::Request("the commit broke off".to_owned()))?);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}

/// What became of a commit.
#[derive(Debug)]
struct Committed {
    commit: String,
    /// What the person must be told.
    note: String,
    warns: bool,
}

impl Committed {
    /// `address` is that of what was uploaded to.
    fn json(&self, address: &str) -> Value {
        let url = format!("{address}/commit/{}", self.commit);
        json!({ "success": true, "commitOid": self.commit, "commitUrl": url, "hookOutput": self.note })
    }

    fn response(&self, address: &str) -> Response {
        let mut response = Json(self.json(address)).into_response();
        let told = format!("alliance-upload; {}", cut(&ascii(&self.note), LINE_BYTES_MAX));
        if let (true, Ok(told)) = (self.warns, HeaderValue::from_str(&told)) {
            response.headers_mut().insert("x-hf-warning", told);
        }
        response
    }
}

impl Desk {
    async fn before(&self, upload: &Upload) -> Result<Before, Refusal> {
        let model = self.models().await?.into_iter().find(|model| model.name == upload.name);
        let (shelf, name) = (self.shelf.clone(), upload.name.clone());
        let state = blocking(move || shelf.get(&name)).await?;
        let dataset = upload.kind == Kind::Datasets;
        let is_model = model.as_ref().map(|model| Kind::of(model.artefact) == Kind::Datasets);
        let is = is_model.or_else(|| state.as_ref().map(|state| state.dataset));
        if is.is_some_and(|is| is != dataset) {
            let what = if dataset { "a model, and not a data set" } else { "a data set, and not a model" };
            return Err(Refusal::Rejected(format!("`{}` is {what}", upload.name)));
        }
        Ok(Before { model, state })
    }

    /// A draft with the files of the version before.
    async fn draft(&self, upload: &Upload, before: &Before) -> Result<Draft, Refusal> {
        let version = before.state.as_ref().and_then(|state| state.version.as_ref());
        let uploaded = version.map(|version| self.shelf.files(&upload.name, version));
        let places = [before.model.as_ref().map(|model| model.path.clone()), uploaded];
        let (shelf, name, known) = (self.shelf.clone(), upload.name.clone(), before.commit().is_some());
        blocking(move || {
            let mut draft = shelf.begin(&name)?;
            match places.into_iter().flatten().find(|place| place.is_dir()) {
                Some(place) => draft.take_over(&place)?,
                None if known => {
                    let text =
                        "its files are not where it was imported from; import it again: alliance model import DIR --name";
                    return Err(Refusal::Rejected(format!("{text} {name}")));
                }
                None => {}
            }
            Ok(draft)
        })
        .await
    }

    /// Makes a model of what was uploaded, and offers it as it was offered before; or keeps it, where it has no labels.
    async fn conclude(&self, upload: &Upload, draft: Draft, began: Before, token: &Token) -> Result<Committed, Refusal> {
        let before = self.before(upload).await?;
        if before.commit() != began.commit() {
            return Err(Refusal::Behind);
        }
        let user = token.user.clone();
        let name = upload.name.clone();
        let finished = blocking(move || {
            if draft.is_empty() {
                return Err(Refusal::Rejected(format!("{name} would have no files; nothing was changed")));
            }
            Ok(draft.finish(&user, now())?)
        });
        let mut finished = finished.await?;
        let dir = finished.path().to_owned();
        let card = blocking(move || Card::read(&dir).map_err(|error| Refusal::Rejected(error.to_string()))).await?;
        let Some(request) = request(upload, card.as_ref(), before.model.as_ref())? else {
            let commit = finished.version.commit.clone();
            self.accept(upload, finished).await?;
            return Ok(Committed { commit, note: unlabelled(&upload.name), warns: true });
        };
        let (dir, manifests) = (finished.path().to_owned(), self.manifests.clone());
        let model = blocking(move || {
            let (model, manifest) = import::read(&dir, request, &mut |_, _| {})?;
            import::keep(&manifests, &manifest)?;
            Ok::<_, ImportError>(model)
        })
        .await?;
        let (commit, offers) = (hub::commit(model.manifest), self.own_offers(&upload.name).await?);
        if !self.still(token) {
            return Err(Refusal::Token);
        }
        // Once the node has heard of it, the files must be there, whoever goes away.
        finished.stay();
        match self.carry_out(AdminCall::Import(Box::new(model))).await? {
            Reply::Imported(_) => {}
            Reply::Failed(failure) => {
                finished.give_up();
                return Err(match failure.kind {
                    FailureKind::Usage => Refusal::Rejected(failure.message),
                    _ => Refusal::NotTaken { name: upload.name.clone(), problem: failure.message },
                });
            }
            _ => return Err(Refusal::Internal),
        }
        if let Err(error) = self.accept(upload, finished).await {
            // It is a model, wherever that is written down; the next commit finds it.
            tracing::warn!(%error, name = upload.name, "what was uploaded is a model now, and not noted as uploaded");
        }
        let private = before.state.is_some_and(|state| state.private);
        let (note, warns) = match (before.model.is_some(), offers.first()) {
            (false, _) if private => (format!("{} is offered to nobody, as it was made private", upload.name), false),
            (false, _) => self.offer(OfferDraft::usual(&upload.name)).await?,
            (true, None) => {
                let name = &upload.name;
                (format!("{name} is offered to nobody, as before: alliance offer publish {name}"), false)
            }
            (true, Some(last)) => self.offer_again(last).await?,
        };
        Ok(Committed { commit, note, warns })
    }

    async fn accept(&self, upload: &Upload, finished: Finished) -> Result<(), Refusal> {
        let (shelf, name, dataset) = (self.shelf.clone(), upload.name.clone(), upload.kind == Kind::Datasets);
        blocking(move || shelf.accept(&name, dataset, finished)).await
    }

    /// The offers of this node of a model, the newest first.
    async fn own_offers(&self, name: &str) -> Result<Vec<OfferView>, Refusal> {
        let Reply::Offers(mut offers) = self.ask(AdminCall::Offers).await? else { return Err(Refusal::Internal) };
        offers.retain(|offer| offer.own && offer.name == name && matches!(offer.what, Offered::Model(_)));
        offers.sort_by_key(|offer| std::cmp::Reverse(offer.from));
        Ok(offers)
    }

    /// Offers another version as the one before was: on its terms, and for the time that was left to it.
    async fn offer_again(&self, last: &OfferView) -> Result<(String, bool), Refusal> {
        if let Some(standing) = self.own_offers(&last.name).await?.first() {
            return Ok((format!("{} is offered until {}, as before", standing.name, standing.until), false));
        }
        let ttl_ms = last.until.0.saturating_sub(now().0);
        self.offer(OfferDraft { name: last.name.clone(), compute: None, terms: last.terms.clone(), ttl_ms }).await
    }

    async fn offer(&self, draft: OfferDraft) -> Result<(String, bool), Refusal> {
        let name = draft.name.clone();
        match self.carry_out(AdminCall::Publish(draft)).await? {
            Reply::Published(offer) => Ok((format!("{name} is offered until {}", offer.until), false)),
            Reply::Failed(failure) => {
                Ok((format!("{name} is a model of this node and not offered: {}", failure.message), true))
            }
            _ => Err(Refusal::Internal),
        }
    }
}

/// What is to be said to those whose upload has no labels.
pub(super) fn unlabelled(name: &str) -> String {
    format!(
        "{name} stays private: nothing says what it is about. Write `alliance: labels:` into its README.md and upload that, or \
         run: alliance label {name} --labels LABELS"
    )
}

/// What is said of what was uploaded: of a new model by its card, and nothing where that has no labels. Of one that is here what
/// is known stays: an upload may add labels, and what else would change is for the operator to say.
fn request(upload: &Upload, card: Option<&Card>, model: Option<&LocalModel>) -> Result<Option<ImportRequest>, Refusal> {
    let name = &upload.name;
    let Some(model) = model else {
        let said = card.and_then(|card| card.declared.artefact);
        let usual = (upload.kind == Kind::Datasets).then_some(Artefact::Dataset);
        let choices = Choices { artefact: said.or(usual), ..Choices::default() };
        let Ok(completed) = choices.complete(card, name.clone(), upload.home) else { return Ok(None) };
        let artefact = completed.request.artefact;
        if Kind::of(artefact) != upload.kind {
            return Err(Refusal::Rejected(format!(
                "the card of {name} calls it {artefact}, and it was not uploaded as such"
            )));
        }
        return Ok(Some(completed.request));
    };
    let by_operator = format!("only the operator of the node can say so: alliance label {name} --labels LABELS");
    if model.parts.len() > 1 {
        let text = "tensors of it have labels of their own, which are not known for what was uploaded";
        return Err(Refusal::Rejected(format!("{name}: {text}; import it with `alliance model import --labels-of`")));
    }
    let said = card.and_then(|card| card.declared.labels.clone());
    let dropped: Vec<String> =
        said.iter().flat_map(|said| model.labels.difference(said)).map(ToString::to_string).collect();
    if !dropped.is_empty() {
        return Err(Refusal::Rejected(format!("the card of {name} drops {}; {by_operator}", dropped.join(", "))));
    }
    let given = &model.provenance;
    let choices = Choices {
        labels: Some(model.labels.iter().copied().chain(said.into_iter().flatten()).collect()),
        labels_of: Vec::new(),
        artefact: Some(model.artefact),
        origin: Some(model.origin),
        subjects: Some(model.subjects.clone()),
        people: given.people,
        circumstances: Some(given.circumstances.clone()),
        evidence: Some(given.evidence.clone()),
        licence: card.is_none_or(|card| card.licence().is_none()).then(|| model.licence.clone()),
    };
    let completed = choices.complete(card, name.clone(), upload.home);
    let completed = completed.map_err(|error| Refusal::Rejected(error.to_string()))?;
    let otherwise: Vec<String> =
        completed.overruled.iter().filter(|member| **member != Member::Labels).map(ToString::to_string).collect();
    if !otherwise.is_empty() {
        let text = format!("the card of {name} says otherwise of {} than is known of it", otherwise.join(", "));
        return Err(Refusal::Rejected(format!("{text}; {by_operator}")));
    }
    // How many people it is about: a card cannot make that a number where nobody counted.
    let mut request = completed.request;
    request.provenance.people = given.people;
    Ok(Some(request))
}

impl From<ShelfError> for Refusal {
    fn from(error: ShelfError) -> Self {
        match &error {
            ShelfError::File(file)
                if matches!(file.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self::Full
            }
            ShelfError::Path { .. }
            | ShelfError::InTheWay { .. }
            | ShelfError::Absent { .. }
            | ShelfError::NotUploaded(_)
            | ShelfError::OtherFile => Self::Rejected(error.to_string()),
            ShelfError::File(_) | ShelfError::State { .. } | ShelfError::Tree(_) | ShelfError::Randomness(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an upload cannot be kept");
                Self::Internal
            }
        }
    }
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        match &error {
            ImportError::Store { source, .. } if source.kind() == io::ErrorKind::StorageFull => Self::Full,
            ImportError::Store { .. } | ImportError::Read { .. } | ImportError::Tree(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an upload cannot be imported");
                Self::Internal
            }
            _ => Self::Rejected(error.to_string()),
        }
    }
}
