//! Each call of the Hub's clients that is answered.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use alliance_protocol::{
    core::admin::{AdminCall, Reply},
    manifest::{File, Manifest},
    vocabulary::Country,
};
use axum::{
    Extension, Json,
    body::{Body, BodyDataStream, HttpBody as _},
    extract::{OriginalUri, Path, Query, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Desk,
    crossings::Content,
    denied::ascii,
    empty,
    hub::{self, Kind, Place, Refusal, Repo},
    reading::{self, Stopped, Wanted},
};
use crate::{
    models::SourceError,
    shelf::Shelved,
    tokens::{Scope, Token},
};

/// Entries of a tree or of a list of repositories in one answer, as at the Hub; and paths that may be asked about at once.
const PAGE: usize = 1000;

/// Bytes of the body of a request that names paths or files. Longer ones are read as they come.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a body of no use that are taken all the same: a commit that a client makes of small files.
const DRAINED_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How long a body, or the next part of a long one, may take to come; it comes from this machine.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(10);

type Answer = Result<Response, Refusal>;
/// What stands behind `?`, in its order; filters may come several times.
type Asked = Query<Vec<(String, String)>>;

pub(super) async fn whoami(State(desk): State<Arc<Desk>>, Extension(token): Extension<Token>) -> Answer {
    let Reply::Status(status) = desk.ask(AdminCall::Status).await? else { return Err(Refusal::Internal) };
    let role = if token.scopes.contains(&Scope::Write) { "write" } else { "read" };
    let answer = json!({
        "type": "user",
        "id": token.id,
        "name": token.user,
        "fullname": token.user,
        "orgs": [{ "type": "org", "name": status.organisation, "fullname": status.organisation, "roleInOrg": role }],
        "auth": { "type": "access_token", "accessToken": { "displayName": token.id, "role": role } },
    });
    Ok(Json(answer).into_response())
}

pub(super) async fn search(
    State(desk): State<Arc<Desk>>,
    Path(kind): Path<String>,
    OriginalUri(uri): OriginalUri,
    Query(asked): Asked,
    headers: HeaderMap,
) -> Answer {
    let kind = kind_of(&kind)?;
    let find = |name: &str| asked.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let tags: Vec<String> = asked.iter().filter(|(name, _)| name == "filter").map(|(_, tag)| tag.clone()).collect();
    let limit = find("limit").map(|text| text.parse().map_err(|_| Refusal::Request("`limit` is a number".to_owned())));
    let limit: usize = limit.transpose()?.unwrap_or(PAGE).clamp(1, PAGE);
    let repos = desk.repos().await?;
    let after = find("cursor").unwrap_or_default();
    let wanted = |repo: &&Repo| repo.matches(kind, find("search").unwrap_or_default(), find("author"), &tags);
    let mut found = repos.values().filter(|repo| repo.name.as_str() > after).filter(wanted);
    let page: Vec<&Repo> = found.by_ref().take(limit).collect();
    let next = found.next().and(page.last()).map(|last| last.name.clone());
    let mut list: Vec<Value> = page.iter().map(|repo| repo.info(None, false)).collect();
    // After all that can be read; there are few.
    if next.is_none() && tags.is_empty() && list.len() < limit {
        let searched = find("search").unwrap_or_default().to_lowercase();
        let own = |(name, state): &&(String, Shelved)| {
            state.dataset == (kind == Kind::Datasets) && name.to_lowercase().contains(&searched)
        };
        let unlabelled = desk.unlabelled().await?;
        let room = limit.saturating_sub(list.len());
        list.extend(unlabelled.iter().filter(own).take(room).map(|(name, state)| hub::shelved_info(name, state)));
    }
    Ok(paged(&uri, &headers, &asked, next, Json(list).into_response()))
}

pub(super) async fn info(
    State(desk): State<Arc<Desk>>,
    Path((kind, organisation, name)): Path<(String, String, String)>,
    Query(asked): Asked,
) -> Answer {
    let repo = match desk.repo(kind_of(&kind)?, &organisation, &name).await {
        Err(Refusal::Unlabelled(name)) => return desk.shelved(name).await,
        repo => repo?,
    };
    // Of what does not lie here no files are named: that would take a crossing, and this is asked to look around.
    let manifest = match repo.place {
        Place::Here(_) => Some(desk.manifest(&repo.name, repo.model.manifest).await?),
        Place::Offered(_) => None,
    };
    Ok(Json(repo.info(manifest.as_ref(), blobs(&asked))).into_response())
}

/// What clients ask before they ask for files: a denial is told here, before the first of them.
pub(super) async fn revision(
    State(desk): State<Arc<Desk>>,
    Extension(token): Extension<Token>,
    Path((kind, organisation, name, revision)): Path<(String, String, String, String)>,
    Query(asked): Asked,
) -> Answer {
    let repo = match desk.at(kind_of(&kind)?, &organisation, &name, &revision).await {
        // Clients that are about to upload ask this.
        Err(Refusal::Unlabelled(name)) => return desk.shelved(name).await,
        repo => repo?,
    };
    let (manifest, _) = desk.files(&repo, &token).await?;
    let mut response = Json(repo.info(Some(&manifest), blobs(&asked))).into_response();
    // A hint: where it cannot be had, what was asked for can.
    if let Ok(Some(country)) = desk.offers_another(&repo).await {
        let name = &repo.name;
        let text = format!("another version of {name} is offered by {country}: alliance pull {name} --to DIR brings it");
        put(&mut response, header::HeaderName::from_static("x-hf-warning"), &format!("alliance-version; {}", ascii(&text)));
    }
    Ok(response)
}

/// Whether more is to be said of each file than its name.
fn blobs(asked: &[(String, String)]) -> bool {
    asked.iter().any(|(name, value)| name == "blobs" && value.eq_ignore_ascii_case("true"))
}

/// Whether the holder of a token may read it.
pub(super) async fn auth_check(
    State(desk): State<Arc<Desk>>,
    Path((kind, organisation, name)): Path<(String, String, String)>,
) -> Answer {
    desk.repo(kind_of(&kind)?, &organisation, &name).await?;
    Ok(empty(StatusCode::OK))
}

pub(super) async fn refs(
    State(desk): State<Arc<Desk>>,
    Path((kind, organisation, name)): Path<(String, String, String)>,
) -> Answer {
    Ok(Json(desk.repo(kind_of(&kind)?, &organisation, &name).await?.refs()).into_response())
}

pub(super) async fn tree(
    state: State<Arc<Desk>>,
    token: Extension<Token>,
    Path((kind, organisation, name, revision)): Path<(String, String, String, String)>,
    uri: OriginalUri,
    asked: Asked,
    headers: HeaderMap,
) -> Answer {
    subtree(state, token, Path((kind, organisation, name, revision, String::new())), uri, asked, headers).await
}

pub(super) async fn subtree(
    State(desk): State<Arc<Desk>>,
    Extension(token): Extension<Token>,
    Path((kind, organisation, name, revision, folder)): Path<(String, String, String, String, String)>,
    OriginalUri(uri): OriginalUri,
    Query(asked): Asked,
    headers: HeaderMap,
) -> Answer {
    let repo = desk.at(kind_of(&kind)?, &organisation, &name, &revision).await?;
    let (manifest, _) = desk.files(&repo, &token).await?;
    let recursive = asked.iter().any(|(name, value)| name == "recursive" && value.eq_ignore_ascii_case("true"));
    let folder = folder.trim_end_matches('/');
    let missing = || Refusal::Entry { name: repo.name.clone(), path: folder.to_owned(), commit: repo.commit() };
    let mut entries = hub::entries(&manifest, folder, recursive).ok_or_else(missing)?;
    let cursor = asked.iter().find(|(name, _)| name == "cursor").map(|(_, value)| value.parse::<usize>());
    let from = cursor.transpose().map_err(|_| Refusal::Request("`cursor` is not one that was given".to_owned()))?;
    let from = from.unwrap_or(0);
    let page: Vec<Value> = entries.by_ref().skip(from).take(PAGE).map(hub::Entry::to_json).collect();
    let more = entries.next().map(|_| from.saturating_add(PAGE).to_string());
    Ok(paged(&uri, &headers, &asked, more, Json(page).into_response()))
}

/// The paths that a client asks about: as JSON, or as the Python client sends them, as a form.
#[derive(Deserialize)]
struct Paths {
    paths: OneOrMore,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(BTreeSet<String>),
}

impl Paths {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<BTreeSet<String>, Refusal> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/x-www-form-urlencoded") {
            let pairs = form_urlencoded::parse(body).filter(|(name, _)| name == "paths");
            return Ok(pairs.map(|(_, path)| path.into_owned()).collect());
        }
        let asked: Self = serde_json::from_slice(body)
            .map_err(|error| Refusal::Request(format!("the body is no object with `paths`: {error}")))?;
        Ok(match asked.paths {
            OneOrMore::One(path) => [path].into(),
            OneOrMore::More(paths) => paths,
        })
    }
}

pub(super) async fn paths_info(
    State(desk): State<Arc<Desk>>,
    Extension(token): Extension<Token>,
    Path((kind, organisation, name, revision)): Path<(String, String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let repo = desk.at(kind_of(&kind)?, &organisation, &name, &revision).await?;
    let (manifest, _) = desk.files(&repo, &token).await?;
    let asked = Paths::read(&headers, &whole(body).await?)?;
    if asked.len() > PAGE {
        return Err(Refusal::TooLong);
    }
    let found: Vec<Value> = hub::paths(&manifest, &asked).map(hub::Entry::to_json).collect();
    Ok(Json(found).into_response())
}

pub(super) async fn model_file(
    State(desk): State<Arc<Desk>>,
    Path(place): Path<(String, String, String, String)>,
    Extension(token): Extension<Token>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    desk.file(Kind::Models, place, (token, method), &headers).await
}

pub(super) async fn dataset_file(
    State(desk): State<Arc<Desk>>,
    Path(place): Path<(String, String, String, String)>,
    Extension(token): Extension<Token>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    desk.file(Kind::Datasets, place, (token, method), &headers).await
}

/// A body, all of it.
async fn whole(body: Body) -> Result<Bytes, Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > BODY_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let read = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
    let late = |_| Refusal::Request("the body did not come to its end in time".to_owned());
    read.map_err(late)?.map_err(|_| Refusal::TooLong)
}

/// Takes what still comes of a body that is of no use, so that its sender comes to read the answer; not without end.
pub(super) async fn drain(stream: &mut BodyDataStream) {
    let draining = async {
        let mut bytes = 0_usize;
        while let Some(Ok(part)) = stream.next().await {
            bytes = bytes.saturating_add(part.len());
            if bytes > DRAINED_BYTES_MAX {
                break;
            }
        }
    };
    // Whoever takes longer does not read it.
    let _ = tokio::time::timeout(BODY_WITHIN, draining).await;
}

/// What a body of JSON says.
pub(super) async fn json_body<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let wrong = |error| Refusal::Request(format!("the body is not what belongs to this call: {error}"));
    serde_json::from_slice(&whole(body).await?).map_err(wrong)
}

/// How a client reaches this gateway, by the name that it used.
pub(super) fn base(headers: &HeaderMap) -> Result<String, Refusal> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.map(|host| format!("http://{host}/hf")).ok_or_else(|| Refusal::Request("there is no header `Host`".to_owned()))
}

/// The address of something here, as it is told to a client. The Python client before its second version makes nothing of an
/// address with a path before the name, and takes the name alone.
pub(super) fn link(headers: &HeaderMap, path: &str) -> Result<String, Refusal> {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let old = agent.split("hf_hub/").nth(1).is_some_and(|version| version.starts_with("0.") || version.starts_with("1."));
    if old { Ok(path.to_owned()) } else { Ok(format!("{}/{path}", base(headers)?)) }
}

pub(super) fn kind_of(text: &str) -> Result<Kind, Refusal> {
    match text {
        "models" => Ok(Kind::Models),
        "datasets" => Ok(Kind::Datasets),
        _ => Err(Refusal::Request(format!("there are models and datasets here, and no {text}"))),
    }
}

/// Says where the rest of a list is.
fn paged(
    uri: &axum::http::Uri,
    headers: &HeaderMap,
    asked: &[(String, String)],
    next: Option<String>,
    mut response: Response,
) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if let (Some(next), Some(host)) = (next, host) {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(asked.iter().filter(|(name, _)| name != "cursor")).append_pair("cursor", &next);
        let link = format!("<http://{host}{}?{}>; rel=\"next\"", uri.path(), query.finish());
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    response
}

impl Desk {
    async fn repo(&self, kind: Kind, organisation: &str, name: &str) -> Result<Repo, Refusal> {
        let name = format!("{organisation}/{name}");
        // What lies here first: what others offer is a question to the law.
        let here = self.models().await?.into_iter().find(|model| model.name == name).map(|model| Repo::here(&model));
        let found = match here {
            Some(repo) => Some(repo),
            None => self.offered().await?.remove(&name),
        };
        if let Some(repo) = found.filter(|repo| repo.kind() == kind) {
            return Ok(repo);
        }
        let dataset = kind == Kind::Datasets;
        let uploaded = self.unlabelled().await?.into_iter().any(|(known, state)| known == name && state.dataset == dataset);
        Err(if uploaded { Refusal::Unlabelled(name) } else { Refusal::Repo(name) })
    }

    /// What is told of what was uploaded and is no model yet: that it is there, and none of its files.
    async fn shelved(&self, name: String) -> Answer {
        let state = self.unlabelled().await?.into_iter().find(|(known, _)| *known == name);
        let (name, state) = state.ok_or(Refusal::Repo(name))?;
        Ok(Json(hub::shelved_info(&name, &state)).into_response())
    }

    /// The country whose node offers another version of what lies here: what lies here is read until that is pulled.
    async fn offers_another(&self, repo: &Repo) -> Result<Option<Country>, Refusal> {
        let Place::Here(_) = repo.place else { return Ok(None) };
        Ok(match self.offered().await?.remove(&repo.name) {
            Some(Repo { model, place: Place::Offered(offered), .. }) if model.manifest != repo.model.manifest => {
                Some(offered.country)
            }
            _ => None,
        })
    }

    async fn at(&self, kind: Kind, organisation: &str, name: &str, revision: &str) -> Result<Repo, Refusal> {
        let repo = self.repo(kind, organisation, name).await?;
        if repo.has(revision) {
            return Ok(repo);
        }
        Err(Refusal::Revision { commit: repo.commit(), name: repo.name, revision: revision.to_owned() })
    }

    /// The files of what lies here or can be brought here, for which a crossing is started.
    async fn files(self: &Arc<Self>, repo: &Repo, token: &Token) -> Result<(Manifest, Content), Refusal> {
        let content = match &repo.place {
            Place::Here(dir) => Content::Here(dir.clone()),
            Place::Offered(offered) => self.crossings.bring(self, repo, offered, token).await?,
        };
        let manifest = match &content {
            Content::Here(_) => self.manifest(&repo.name, repo.model.manifest).await?,
            Content::Coming(arrival) => arrival.manifest().clone(),
        };
        Ok((manifest, content))
    }

    async fn file(
        self: &Arc<Self>,
        kind: Kind,
        (organisation, name, revision, path): (String, String, String, String),
        (token, method): (Token, Method),
        headers: &HeaderMap,
    ) -> Answer {
        let repo = self.at(kind, &organisation, &name, &revision).await?;
        let (manifest, content) = self.files(&repo, &token).await?;
        let found = (0..).zip(manifest.files()).find(|(_, file)| file.path == path);
        let missing = || Refusal::Entry { name: repo.name.clone(), path: path.clone(), commit: repo.commit() };
        let (number, file) = found.ok_or_else(missing)?;
        let whole = 0..file.bytes;
        // A range is for GET alone (RFC 9110, section 14.2).
        let wanted = if method == Method::HEAD { Wanted::Whole } else { wanted(headers, file) };
        let (status, range) = match wanted {
            Wanted::Whole => (StatusCode::OK, whole),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Wanted::NothingOfNothing => (StatusCode::PARTIAL_CONTENT, whole),
            Wanted::Beyond => {
                let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
                put(&mut response, header::CONTENT_RANGE, &format!("bytes */{}", file.bytes));
                return Ok(response);
            }
        };
        let body = match method {
            Method::HEAD => Body::empty(),
            _ => self.body(&repo, content, &manifest, (number, range.clone()), token).await?,
        };
        let mut response = (status, body).into_response();
        describe(&mut response, &repo, file, &range);
        Ok(response)
    }

    async fn body(
        self: &Arc<Self>,
        repo: &Repo,
        content: Content,
        manifest: &Manifest,
        part: (u32, Range<u64>),
        token: Token,
    ) -> Result<Body, Refusal> {
        let (compared, places) = (Arc::clone(&self.compared), Arc::clone(&self.reading));
        let desk = Arc::clone(self);
        let body = reading::body(content, manifest.clone(), part, compared, places, move || desk.still(&token)).await;
        body.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, name = repo.name, "the gateway cannot read a file");
            match error {
                Stopped::Source(SourceError::Length { .. } | SourceError::Changed { .. } | SourceError::Tree(_)) => {
                    Refusal::Damaged(repo.name.clone())
                }
                Stopped::Source(_) | Stopped::Task(_) | Stopped::Coming(_) | Stopped::Over => Refusal::Internal,
            }
        })
    }
}

/// A range counts where the client has the beginning of the same file (RFC 9110, section 13.1.5).
fn wanted(headers: &HeaderMap, file: &File) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let tag = format!("\"{}\"", file.sha256);
    let same = headers.get(header::IF_RANGE).is_none_or(|given| given.as_bytes() == tag.as_bytes());
    Wanted::of(text(header::RANGE).filter(|_| same), file.bytes)
}

/// What clients read before they read a file: its length, its name in their cache, and of which version it is.
fn describe(response: &mut Response, repo: &Repo, file: &File, range: &Range<u64>) {
    let tag = format!("\"{}\"", file.sha256);
    put(response, header::CONTENT_LENGTH, &range.end.saturating_sub(range.start).to_string());
    put(response, header::CONTENT_TYPE, "application/octet-stream");
    put(response, header::ACCEPT_RANGES, "bytes");
    put(response, header::ETAG, &tag);
    put(response, header::HeaderName::from_static("x-linked-etag"), &tag);
    put(response, header::HeaderName::from_static("x-linked-size"), &file.bytes.to_string());
    put(response, header::HeaderName::from_static("x-repo-commit"), &repo.commit());
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        put(response, header::CONTENT_RANGE, &format!("bytes {}-{last}/{}", range.start, file.bytes));
    }
}

/// None of these values can be none of a header: they are digits and plain words.
fn put(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
