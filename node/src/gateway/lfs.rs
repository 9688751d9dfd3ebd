//! Large files come one by one before the commit that names them, as git-lfs has it.
//!
//! Source: the Batch API of git-lfs with the transfer `basic`. Clients send the file itself without their token, so that its
//! address holds a ticket, which counts for one file, for a day, and only as long as the token that it was given for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alliance_protocol::id::Sha256;
use axum::{
    Extension, Json,
    body::{Body, BodyDataStream, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Desk, empty,
    hub::{Kind, Refusal},
    routes::{BODY_WITHIN, base, drain, json_body},
    uploads::{blocking, may_write},
};
use crate::{
    shelf::{Receiver, ShelfError},
    tokens::{Token, random_digits},
};

/// Files that may be on their way, and those of one token. Clients announce some hundred at a time.
const TICKETS_MAX: usize = 16 * 1024;
const TICKETS_OF_ONE_MAX: usize = 4 * 1024;

/// Between two looks for files that nobody asked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// How long a ticket counts: all that a client announced at once may take long.
const TICKET_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Objects in one request.
const OBJECTS_MAX: usize = 1024;

/// Bytes that are written at a time.
const PIECE_BYTES: usize = 1024 * 1024;

type Answer = Result<Response, Refusal>;

/// Leave to send one file.
#[derive(Clone, Debug)]
struct Ticket {
    object: Object,
    token: Token,
    until: Instant,
}

/// Leave that was given.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    given: Mutex<HashMap<String, Ticket>>,
    swept: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub(super) struct Object {
    oid: Sha256,
    size: u64,
}

#[derive(Deserialize)]
struct Batch {
    operation: String,
    #[serde(default)]
    transfers: Vec<String>,
    objects: Vec<Object>,
    #[serde(default)]
    hash_algo: Option<String>,
}

impl Tickets {
    /// A ticket for each of these files; one that was given before counts again.
    fn give(&self, objects: &[Object], token: &Token, counts: impl Fn(&Token) -> bool) -> Result<Vec<String>, Refusal> {
        let now = Instant::now();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len().saturating_add(objects.len()) > TICKETS_MAX {
            // Each token is asked for once: that looks at the disk.
            let mut known: Vec<(Token, bool)> = Vec::new();
            given.retain(|_, ticket| {
                let told = known.iter().find(|(token, _)| *token == ticket.token).map(|(_, counts)| *counts);
                let counts = told.unwrap_or_else(|| {
                    let counts = counts(&ticket.token);
                    known.push((ticket.token.clone(), counts));
                    counts
                });
                ticket.until > now && counts
            });
        }
        let own = given.iter().filter(|(_, ticket)| ticket.token == *token && ticket.until > now);
        let mut known: HashMap<Object, String> = own.map(|(name, ticket)| (ticket.object, name.clone())).collect();
        for object in objects {
            if known.contains_key(object) {
                continue;
            }
            if known.len() >= TICKETS_OF_ONE_MAX || given.len() >= TICKETS_MAX {
                return Err(Refusal::Announced);
            }
            let name = random_digits().map_err(|_| Refusal::Internal)?.to_string();
            given.insert(name.clone(), Ticket { object: *object, token: token.clone(), until: now + TICKET_FOR });
            known.insert(*object, name);
        }
        Ok(objects.iter().filter_map(|object| known.get(object).cloned()).collect())
    }

    fn find(&self, name: &str) -> Option<Ticket> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get(name).filter(|ticket| ticket.until > Instant::now()).cloned()
    }

    fn spend(&self, name: &str) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Whether it is time to look for files that nobody asked for; from then on it is not.
    fn is_time_to_sweep(&self) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY);
        if due {
            *swept = Some(Instant::now());
        }
        due
    }
}

pub(super) async fn model_batch(
    desk: State<Arc<Desk>>,
    place: Path<(String, String)>,
    token: Extension<Token>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    batch(desk, Kind::Models, place, token, headers, body).await
}

pub(super) async fn dataset_batch(
    desk: State<Arc<Desk>>,
    place: Path<(String, String)>,
    token: Extension<Token>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    batch(desk, Kind::Datasets, place, token, headers, body).await
}

/// `POST /{repository}.git/info/lfs/objects/batch`: where each file is to be sent, or that it is here.
async fn batch(
    State(desk): State<Arc<Desk>>,
    kind: Kind,
    Path((organisation, name)): Path<(String, String)>,
    Extension(token): Extension<Token>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let name = name.strip_suffix(".git").ok_or(Refusal::Call)?;
    may_write(&desk, &token, kind, &organisation, name).await?;
    let asked: Batch = json_body(body).await?;
    if asked.operation != "upload" {
        let text = "files are not read by git-lfs here: take them with `hf download`";
        return Err(Refusal::Request(text.to_owned()));
    }
    let basic = asked.transfers.is_empty() || asked.transfers.iter().any(|transfer| transfer == "basic");
    if !basic || asked.hash_algo.is_some_and(|algorithm| !matches!(algorithm.as_str(), "sha256" | "sha_256")) {
        return Err(Refusal::Request("this gateway takes files by the transfer `basic`, named by SHA-256".to_owned()));
    }
    if asked.objects.len() > OBJECTS_MAX {
        return Err(Refusal::TooLong);
    }
    let base = base(&headers)?;
    let shelf = desk.shelf.clone();
    let held = move || asked.objects.into_iter().partition(|object| shelf.hold_blob(object.oid, object.size));
    let (here, wanted): (Vec<Object>, Vec<Object>) = blocking(move || Ok::<_, Refusal>(held())).await?;
    let tickets = desk.tickets.give(&wanted, &token, |token| desk.still(token))?;
    let mut objects: Vec<Value> =
        here.iter().map(|Object { oid, size }| json!({ "oid": oid.to_string(), "size": size })).collect();
    objects.extend(wanted.iter().zip(tickets).map(|(Object { oid, size }, ticket)| {
        json!({
            "oid": oid.to_string(),
            "size": size,
            "authenticated": true,
            "actions": {
                "upload": { "href": format!("{base}/lfs/{ticket}"), "header": {}, "expires_in": TICKET_FOR.as_secs() },
                "verify": { "href": format!("{base}/lfs-verify"), "header": {} },
            },
        })
    }));
    let kind = [(header::CONTENT_TYPE, "application/vnd.git-lfs+json")];
    Ok((kind, json!({ "transfer": "basic", "objects": objects, "hash_algo": "sha256" }).to_string()).into_response())
}

/// `PUT` to the address that the batch gave: the file, whole.
pub(super) async fn put(State(desk): State<Arc<Desk>>, Path(name): Path<String>, body: Body) -> Answer {
    let mut stream = body.into_data_stream();
    let taken = take(&desk, &name, &mut stream).await;
    if taken.is_err() {
        drain(&mut stream).await;
    }
    taken?;
    desk.tickets.spend(&name);
    Ok(empty(StatusCode::OK))
}

async fn take(desk: &Desk, name: &str, stream: &mut BodyDataStream) -> Result<(), Refusal> {
    let ticket = desk.tickets.find(name).filter(|ticket| desk.still(&ticket.token)).ok_or(Refusal::Ticket)?;
    let Object { oid, size } = ticket.object;
    let (shelf, sweeps) = (desk.shelf.clone(), desk.tickets.is_time_to_sweep());
    let mut receiver = blocking(move || {
        if sweeps && let Err(error) = shelf.sweep(std::time::SystemTime::now()) {
            tracing::warn!(error = &error as &dyn std::error::Error, "files that nobody asked for stay");
        }
        shelf.receive(oid, size)
    })
    .await?;
    let mut piece: Vec<u8> = Vec::new();
    loop {
        let next = tokio::time::timeout(BODY_WITHIN, stream.next()).await;
        let next = next.map_err(|_| Refusal::Request("the file did not come to its end in time".to_owned()))?;
        let ended = next.is_none();
        if let Some(part) = next {
            piece.extend_from_slice(&part.map_err(|_| Refusal::Request("the file broke off".to_owned()))?);
        }
        if piece.len() >= PIECE_BYTES || (ended && !piece.is_empty()) {
            if !desk.still(&ticket.token) {
                return Err(Refusal::Ticket);
            }
            receiver = write(receiver, std::mem::take(&mut piece).into()).await?;
        }
        if ended {
            return blocking(move || receiver.finish()).await;
        }
    }
}

async fn write(mut receiver: Receiver, piece: Bytes) -> Result<Receiver, Refusal> {
    blocking(move || {
        receiver.write(&piece)?;
        Ok::<_, ShelfError>(receiver)
    })
    .await
}

/// Whether a file that was sent is here.
pub(super) async fn verify(State(desk): State<Arc<Desk>>, Extension(_): Extension<Token>, body: Body) -> Answer {
    let Object { oid, size } = json_body(body).await?;
    if desk.shelf.has_blob(oid, size) {
        return Ok(Json(json!({ "oid": oid.to_string(), "size": size })).into_response());
    }
    Err(Refusal::Rejected(ShelfError::NotUploaded(oid).to_string()))
}
