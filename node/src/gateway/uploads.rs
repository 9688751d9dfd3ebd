//! Uploads: what a client of the Hub sends becomes a model of this node, and is offered where its labels are known.
//!
//! Labels come from the card of the model, `alliance: labels:` in the front matter of its `README.md`, or from the model of that
//! name that is here. Without labels it is kept and read by nobody, until `alliance label` says them.
//!
//! - here: what a client asks before it sends anything
//! - `operations`: what a commit says, line by line; `commit`: what becomes of it

mod commit;
mod operations;

use std::{io, sync::Arc};

use alliance_protocol::{
    core::admin::{AdminCall, Reply},
    manifest::check_path,
    offer::split_name,
    vocabulary::Country,
};
use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) use self::commit::{Turns, commit};
use super::{
    Desk,
    hub::{self, Kind, Refusal},
    now,
    routes::{json_body, kind_of, link},
};
use crate::{
    models::{ImportError, card::Card},
    shelf::ShelfError,
    tokens::{Scope, Token},
};

/// Bytes of a file that may come within a commit, in base64. Clients hold some five times as much in memory for it.
pub(super) const INLINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Files of which a client asks at once how to send them. It asks for 256.
const FILES_MAX: usize = 1024;

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
    let _turn = desk.turns.take(&upload.name).await?;
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

fn on_main(upload: &Upload, revision: &str) -> Result<(), Refusal> {
    if hub::is_main(revision) {
        return Ok(());
    }
    Err(Refusal::Rejected(format!("`{}` has one branch, main; there is no `{revision}` to write to", upload.name)))
}

/// What is to be said to those whose upload has no labels.
pub(super) fn unlabelled(name: &str) -> String {
    format!(
        "{name} stays private: nothing says what it is about. Write `alliance: labels:` into its README.md and upload that, or \
         run: alliance label {name} --labels LABELS"
    )
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
            | ShelfError::Changed { .. }
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
