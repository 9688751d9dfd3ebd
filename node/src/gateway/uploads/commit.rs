//! What becomes of a commit: a version on the shelf, a model of this node, and an offer of it as there was one before.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use alliance_protocol::{
    core::admin::{AdminCall, FailureKind, LocalModel, OfferDraft, OfferView, Reply},
    offer::Offered,
    vocabulary::Artefact,
};
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue},
    response::{IntoResponse as _, Response},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, oneshot},
    time::timeout,
};

use super::{
    super::{
        Desk,
        denied::{LINE_BYTES_MAX, ascii, cut},
        hub::{self, Kind, Refusal},
        now,
        routes::{kind_of, link},
    },
    Answer, Upload, blocking, may_write, on_main,
    operations::Lines,
    unlabelled,
};
use crate::{
    models::{
        ImportError, ImportRequest,
        card::{Card, Choices, Member},
        import,
    },
    shelf::{Draft, Finished, Shelved},
    tokens::Token,
};

/// How long a commit may wait for the one before it, and for its own end before the answer begins. Clients give up after ten
/// seconds without a byte.
const WAIT: Duration = Duration::from_secs(5);

/// Between two blanks before the answer to a commit that takes long.
const BLANK_EVERY: Duration = Duration::from_secs(2);

/// Who may conclude a commit, by the name: one at a time.
#[derive(Debug, Default)]
pub(in super::super) struct Turns(std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>);

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

/// `POST /api/models/{id}/commit/{revision}`: the files that came with it and before it become the newest version.
pub(in super::super) async fn commit(
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
        lines.drain().await;
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
