//! Uploads: what a client of the Hub sends becomes a model of this node, and is offered where its labels are known.
//!
//! Labels come from the card of the model, `alliance: labels:` in the front matter of its `README.md`, or from the model of that
//! name that is here. Without labels it is kept and read by nobody, until `alliance label` says them.

use std::{io, sync::Arc, time::Duration};

use alliance_protocol::{
    core::admin::{AdminCall, FailureKind, LocalModel, OfferDraft, Reply},
    id::Sha256,
    manifest::check_path,
    offer::split_name,
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
use tokio::{sync::oneshot, time::timeout};

use super::{
    Desk,
    denied::{LINE_BYTES_MAX, ascii, cut},
    hub::{self, Kind, Refusal},
    now,
    routes::{BODY_WITHIN, base, json_body, kind_of},
};
use crate::{
    models::{
        ImportError, ImportRequest,
        card::{Card, Choices},
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
    let url = format!("{}{}/{}", base(&headers)?, if kind == Kind::Datasets { "/datasets" } else { "" }, upload.name);
    let known = desk.models().await?.iter().any(|model| model.name == upload.name);
    let (shelf, name) = (desk.shelf.clone(), upload.name.clone());
    let made = !known && blocking(move || shelf.create(&name, private, kind == Kind::Datasets, now())).await?;
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
    let upload = may_write(&desk, &token, kind_of(&kind)?, &organisation, &name).await?;
    on_main(&upload, &revision)?;
    if asked.iter().any(|(name, value)| name == "create_pr" && matches!(value.as_str(), "1" | "true" | "True")) {
        return Err(Refusal::Rejected("there are no pull requests here; commit to main".to_owned()));
    }
    let base = base(&headers)?;
    // One at a time: each takes over the files of the one before it.
    let turn = timeout(WAIT, Arc::clone(&desk.committing).lock_owned()).await.map_err(|_| Refusal::Busy)?;
    let (model, state) = desk.before(&upload).await?;
    let draft = desk.draft(&upload, model.as_ref(), &state).await?;
    let draft = apply(draft, body, current(model.as_ref(), &state).as_deref()).await?;
    let (sender, mut concluded) = oneshot::channel();
    tokio::spawn(async move {
        let outcome = desk.conclude(&upload, draft, (model, state), &token.user).await;
        drop(turn);
        if let Err(error) = &outcome {
            tracing::warn!(%error, name = upload.name, "an upload was not taken");
        }
        // Whoever waited may be gone; what was done is done.
        let _ = sender.send(outcome.map(|committed| (upload.name, committed)));
    });
    match timeout(WAIT, &mut concluded).await {
        Ok(outcome) => {
            let (name, committed) = outcome.map_err(|_| Refusal::Internal)??;
            Ok(committed.response(&base, &name))
        }
        Err(_) => Ok(patience(concluded, base)),
    }
}

/// An answer that begins with blanks, so that nobody gives up. If there is none after all, it breaks off.
fn patience(concluded: oneshot::Receiver<Result<(String, Committed), Refusal>>, base: String) -> Response {
    let parts = stream::unfold(Some((concluded, base)), |state| async move {
        let (mut concluded, base) = state?;
        match timeout(BLANK_EVERY, &mut concluded).await {
            Err(_) => Some((Ok(Bytes::from_static(b" ")), Some((concluded, base)))),
            Ok(Ok(Ok((name, committed)))) => Some((Ok(committed.json(&base, &name).to_string().into()), None)),
            Ok(Ok(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(Err(_)) => Some((Err(io::Error::other("the upload was given up")), None)),
        }
    });
    ([("content-type", "application/json")], Body::from_stream(parts)).into_response()
}

fn on_main(upload: &Upload, revision: &str) -> Result<(), Refusal> {
    match revision {
        "main" | "refs/heads/main" | "refs%2Fheads%2Fmain" => Ok(()),
        _ => {
            Err(Refusal::Rejected(format!("`{}` has one branch, main; there is no `{revision}` to write to", upload.name)))
        }
    }
}

/// How clients name the newest version.
fn current(model: Option<&LocalModel>, state: &Shelved) -> Option<String> {
    model.map(|model| hub::commit(model.manifest)).or_else(|| state.version.as_ref().map(|version| version.commit.clone()))
}

/// Reads a commit line by line, and does what it says to the draft.
async fn apply(mut draft: Draft, body: Body, current: Option<&str>) -> Result<Draft, Refusal> {
    let mut lines = Lines::of(body);
    while let Some(line) = lines.next().await? {
        let operation: Operation = serde_json::from_slice(&line)
            .map_err(|error| Refusal::Rejected(format!("a line of the commit is none that is known here: {error}")))?;
        draft = match operation {
            Operation::Header { parent_commit: Some(parent) } if current.is_some_and(|current| current != parent) => {
                return Err(Refusal::Behind);
            }
            Operation::Header { .. } => draft,
            operation => {
                blocking(move || {
                    change(&mut draft, operation)?;
                    Ok::<_, Refusal>(draft)
                })
                .await?
            }
        };
    }
    Ok(draft)
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
}

impl Lines {
    fn of(body: Body) -> Self {
        Self { stream: body.into_data_stream(), buffer: BytesMut::new(), searched: 0 }
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
            let next = timeout(BODY_WITHIN, self.stream.next()).await;
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
    fn json(&self, base: &str, name: &str) -> Value {
        let url = format!("{base}/{name}/commit/{}", self.commit);
        json!({ "success": true, "commitOid": self.commit, "commitUrl": url, "hookOutput": self.note })
    }

    fn response(&self, base: &str, name: &str) -> Response {
        let mut response = Json(self.json(base, name)).into_response();
        let told = format!("alliance-upload; {}", cut(&ascii(&self.note), LINE_BYTES_MAX));
        if let (true, Ok(told)) = (self.warns, HeaderValue::from_str(&told)) {
            response.headers_mut().insert("x-hf-warning", told);
        }
        response
    }
}

impl Desk {
    /// What is here of the name: the model, and what was uploaded.
    async fn before(&self, upload: &Upload) -> Result<(Option<LocalModel>, Shelved), Refusal> {
        let model = self.models().await?.into_iter().find(|model| model.name == upload.name);
        let (shelf, name, dataset) = (self.shelf.clone(), upload.name.clone(), upload.kind == Kind::Datasets);
        let state = blocking(move || {
            shelf.create(&name, false, dataset, now())?;
            shelf.get(&name)
        });
        Ok((model, state.await?.ok_or(Refusal::Internal)?))
    }

    /// A draft with the files of the version before.
    async fn draft(&self, upload: &Upload, model: Option<&LocalModel>, state: &Shelved) -> Result<Draft, Refusal> {
        let uploaded = state.version.as_ref().map(|version| self.shelf.files(&upload.name, version));
        let from = model.map(|model| model.path.clone()).or(uploaded);
        let (shelf, name) = (self.shelf.clone(), upload.name.clone());
        blocking(move || {
            let mut draft = shelf.begin(&name)?;
            if let Some(from) = from {
                draft.take_over(&from)?;
            }
            Ok::<_, ShelfError>(draft)
        })
        .await
    }

    /// Makes a model of what was uploaded, and offers it; or keeps it, where it has no labels.
    async fn conclude(
        &self,
        upload: &Upload,
        draft: Draft,
        (model, state): (Option<LocalModel>, Shelved),
        user: &str,
    ) -> Result<Committed, Refusal> {
        let by = user.to_owned();
        let finished = blocking(move || draft.finish(&by, now())).await?;
        let dir = finished.path().to_owned();
        let card = blocking(move || Card::read(&dir).map_err(|error| Refusal::Rejected(error.to_string()))).await?;
        let Some(request) = request(upload, card.as_ref(), model.as_ref())? else {
            let commit = finished.version.commit.clone();
            self.accept(upload, state, finished).await?;
            return Ok(Committed { commit, note: unlabelled(&upload.name), warns: true });
        };
        let (dir, manifests) = (finished.path().to_owned(), self.manifests.clone());
        let model = blocking(move || {
            let (model, manifest) = import::read(&dir, request, &mut |_, _| {})?;
            import::keep(&manifests, &manifest)?;
            Ok::<_, ImportError>(model)
        })
        .await?;
        let commit = hub::commit(model.manifest);
        match self.order(AdminCall::Import(Box::new(model))).await? {
            Reply::Imported(_) => {}
            Reply::Failed(failure) if failure.kind == FailureKind::Usage => return Err(Refusal::Rejected(failure.message)),
            Reply::Failed(failure) => {
                return Err(Refusal::NotTaken { name: upload.name.clone(), problem: failure.message });
            }
            _ => return Err(Refusal::Internal),
        }
        let private = state.private;
        self.accept(upload, state, finished).await?;
        if private {
            let note = format!("{} is a model of this node and offered to nobody, as it was made private", upload.name);
            return Ok(Committed { commit, note, warns: false });
        }
        let (note, warns) = self.offer(upload).await?;
        Ok(Committed { commit, note, warns })
    }

    /// From here on the files stay, whatever happens.
    async fn accept(&self, upload: &Upload, state: Shelved, finished: Finished) -> Result<(), Refusal> {
        let (shelf, name) = (self.shelf.clone(), upload.name.clone());
        blocking(move || shelf.accept(&name, state, finished.keep())).await
    }

    async fn offer(&self, upload: &Upload) -> Result<(String, bool), Refusal> {
        match self.order(AdminCall::Publish(OfferDraft::usual(&upload.name))).await? {
            Reply::Published(offer) => Ok((format!("{} is offered until {}", offer.name, offer.until), false)),
            Reply::Failed(failure) => {
                Ok((format!("{} is a model of this node and not offered: {}", upload.name, failure.message), true))
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

/// What is said of what was uploaded: by its card, or else by the model that was here under its name; none where nothing is.
fn request(upload: &Upload, card: Option<&Card>, model: Option<&LocalModel>) -> Result<Option<ImportRequest>, Refusal> {
    let mut choices = Choices::default();
    let says = card.is_some_and(|card| card.declared.labels.is_some());
    if let (false, Some(model)) = (says, model) {
        if model.parts.len() > 1 {
            let text = "tensors of it have labels of their own, which are not known for what was uploaded: write \
                        `alliance: labels:` into its README.md, or import it with `alliance model import`";
            return Err(Refusal::Rejected(format!("{}: {text}", upload.name)));
        }
        let given = &model.provenance;
        choices = Choices {
            labels: Some(model.labels.clone()),
            artefact: Some(model.artefact),
            origin: Some(model.origin),
            subjects: Some(model.subjects.clone()),
            people: given.people,
            circumstances: Some(given.circumstances.clone()),
            evidence: Some(given.evidence.clone()),
            licence: card.is_none_or(|card| card.licence().is_none()).then(|| model.licence.clone()),
            ..choices
        };
    } else if upload.kind == Kind::Datasets {
        let said = card.and_then(|card| card.declared.artefact);
        choices.artefact = Some(said.unwrap_or(Artefact::Dataset));
    }
    let completed = choices.complete(card, upload.name.clone(), upload.home);
    let Ok(completed) = completed else { return Ok(None) };
    if Kind::of(completed.request.artefact) != upload.kind {
        let (name, artefact) = (&upload.name, completed.request.artefact);
        return Err(Refusal::Rejected(format!("the card of {name} calls it {artefact}, and it was not uploaded as such")));
    }
    Ok(Some(completed.request))
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
            ImportError::Store { .. } | ImportError::Read { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "an upload cannot be imported");
                Self::Internal
            }
            _ => Self::Rejected(error.to_string()),
        }
    }
}
