//! What becomes of a commit: a version on the shelf, a model of this node, and an offer of it as there was one before.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
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
    time::{Instant, timeout},
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
    shelf::{Base, Draft, Finished, ShelfError, Shelved},
    tokens::Token,
};

/// How long the answer to a commit may take to begin. Clients give up after ten seconds without a byte.
const WAIT: Duration = Duration::from_secs(8);

/// How long a commit may wait for the ones of the same name before it, and how long its client is kept waiting.
const TURN_WITHIN: Duration = Duration::from_secs(10 * 60);
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Between two blanks before the answer to a commit that takes long.
const BLANK_EVERY: Duration = Duration::from_secs(2);

/// Who may conclude a commit, by the name: one at a time.
#[derive(Debug, Default)]
pub(in super::super) struct Turns(std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>);

impl Turns {
    pub(super) async fn take(&self, name: &str) -> Result<OwnedMutexGuard<()>, Refusal> {
        let turn = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(known.entry(name.to_owned()).or_default())
        };
        timeout(TURN_WITHIN, turn.lock_owned()).await.map_err(|_| Refusal::Committing(name.to_owned()))
    }
}

/// What is here of a name: the model, and what was uploaded.
#[derive(Debug)]
struct Before {
    model: Option<LocalModel>,
    state: Option<Shelved>,
}

impl Before {
    /// Where the files of it are that others may read just now.
    fn places(&self, desk: &Desk, name: &str) -> Vec<PathBuf> {
        let version = self.state.as_ref().and_then(|state| state.version.as_ref());
        let uploaded = version.map(|version| desk.shelf.files(name, version));
        uploaded.into_iter().chain(self.model.as_ref().map(|model| model.path.clone())).collect()
    }

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
        // Before anything is taken in.
        desk.before(&upload).await?;
        let (shelf, name) = (desk.shelf.clone(), upload.name.clone());
        let draft = blocking(move || shelf.begin(&name)).await?;
        let (draft, parent) = desk.apply(draft, &mut lines, &token).await?;
        Ok((upload, draft, parent))
    };
    let drafted = drafted.await;
    if drafted.is_err() {
        lines.drain().await;
    }
    let (upload, draft, parent) = drafted?;
    let address = link(&headers, &upload.path())?;
    let (sender, mut concluded) = oneshot::channel();
    tokio::spawn(async move {
        let outcome = desk.conclude(&upload, draft, parent, &token).await;
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
    let until = Instant::now() + PATIENCE;
    let parts = stream::unfold(Some((concluded, address)), move |state| async move {
        let (mut concluded, address) = state?;
        match timeout(BLANK_EVERY, &mut concluded).await {
            Err(_) if Instant::now() >= until => {
                Some((Err(io::Error::other("it takes too long; the log says how it ends")), None))
            }
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
        let Reply::Models(models) = self.ask(AdminCall::Models).await? else { return Err(Refusal::Internal) };
        let model = models.into_iter().find(|model| model.name == upload.name);
        if model.as_ref().is_some_and(|model| model.crossing.is_some()) {
            let text =
                "came by a crossing, on the terms of another node: it is not changed here, and not made one of this node";
            return Err(Refusal::Rejected(format!("{} {text}", upload.name)));
        }
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

    /// Makes a model of what was uploaded, and offers it as it was offered before; or keeps it, where it has no labels.
    async fn conclude(
        self: &Arc<Self>,
        upload: &Upload,
        draft: Draft,
        parent: Option<String>,
        token: &Token,
    ) -> Result<Committed, Refusal> {
        let _turn = self.turns.take(&upload.name).await?;
        let before = self.before(upload).await?;
        if parent.is_some_and(|parent| before.commit().is_some_and(|commit| commit != parent)) {
            return Err(Refusal::Behind);
        }
        let finished = self.version(upload, draft, &before, token).await?;
        let dir = finished.path().to_owned();
        let card = blocking(move || Card::read(&dir).map_err(|error| Refusal::Rejected(error.to_string()))).await?;
        let Some(request) = request(upload, card.as_ref(), before.model.as_ref())? else {
            if !self.still(token) {
                return Err(Refusal::Token);
            }
            let commit = finished.version.commit.clone();
            // Meanwhile somebody may have labelled the version before: then this one is not the newest of anything.
            let is_model = async || self.before(upload).await.map(|now| now.model.is_some());
            if is_model().await? {
                return Err(Refusal::Behind);
            }
            self.accept(upload, finished, before.places(self, &upload.name)).await?;
            // Where that cannot be told, it was accepted.
            if is_model().await.is_ok_and(|is_model| is_model) {
                return Err(Refusal::Behind);
            }
            return Ok(Committed { commit, note: unlabelled(&upload.name), warns: true });
        };
        let (dir, manifests) = (finished.path().to_owned(), self.manifests.clone());
        let place = self.making.acquire().await;
        let model = blocking(move || {
            let (model, manifest) = import::read(&dir, request, &mut |_, _| {})?;
            import::keep(&manifests, &manifest)?;
            Ok::<_, ImportError>(model)
        })
        .await?;
        drop(place);
        self.register(upload, before, (model, finished), token).await
    }

    /// The files of the version before with what was uploaded, in their place.
    async fn version(
        self: &Arc<Self>,
        upload: &Upload,
        mut draft: Draft,
        before: &Before,
        token: &Token,
    ) -> Result<Finished, Refusal> {
        let (name, user) = (upload.name.clone(), token.user.clone());
        let uploaded = before.state.as_ref().and_then(|state| state.version.as_ref());
        let base = match &before.model {
            Some(model) => Some((model.path.clone(), Some(self.manifest(&model.name, model.manifest).await?))),
            None => uploaded.map(|version| (self.shelf.files(&upload.name, version), None)),
        };
        // INVARIANT: nobody closes the semaphore.
        let _place = self.making.acquire().await;
        blocking(move || {
            let base = base.as_ref().map(|(from, manifest)| Base { from, manifest: manifest.as_ref() });
            draft.take_over(base).map_err(|error| match error {
                ShelfError::Tree(error) => {
                    // Where that is, is for the operator.
                    tracing::warn!(error = &error as &dyn std::error::Error, name, "what is uploaded to is not there");
                    let text = format!("{name} does not lie where it was imported from any more");
                    Refusal::Rejected(format!("{text}; import it again, and then upload"))
                }
                error => error.into(),
            })?;
            if draft.is_empty() {
                return Err(Refusal::Rejected(format!("{name} would have no files; nothing was changed")));
            }
            Ok(draft.finish(&user, now())?)
        })
        .await
    }

    /// Makes it a model of this node, unless the one before is another by now, and offers it as that was.
    async fn register(
        &self,
        upload: &Upload,
        before: Before,
        (model, mut finished): (LocalModel, Finished),
        token: &Token,
    ) -> Result<Committed, Refusal> {
        let (commit, offers) = (hub::commit(model.manifest), self.own_offers(&upload.name).await?);
        if !self.still(token) {
            return Err(Refusal::Token);
        }
        let (is_new, spared) = (before.model.is_none(), before.places(self, &upload.name));
        // Once the node has heard of it, the files must be there, whoever goes away.
        finished.stay();
        let replace = AdminCall::Replace { model: Box::new(model), before: before.model.map(Box::new) };
        match self.carry_out(replace).await? {
            Reply::Imported(_) => {}
            Reply::Failed(failure) => {
                finished.give_up();
                return Err(match failure.kind {
                    FailureKind::Usage => Refusal::Rejected(failure.message),
                    FailureKind::Conflict => Refusal::Behind,
                    _ => Refusal::NotTaken { name: upload.name.clone(), problem: failure.message },
                });
            }
            _ => return Err(Refusal::Internal),
        }
        // Those who read the version before, or to whom it crosses, are not cut off.
        if let Err(error) = self.accept(upload, finished, spared).await {
            // It is a model, wherever that is written down; the next commit finds it.
            tracing::warn!(%error, name = upload.name, "what was uploaded is a model now, and not noted as uploaded");
        }
        let (shelf, name) = (self.shelf.clone(), upload.name.clone());
        let private = blocking(move || shelf.get(&name)).await?.is_some_and(|state| state.private);
        let name = &upload.name;
        let (note, warns) = match (is_new, offers.is_empty()) {
            (true, _) if private => (format!("{name} is offered to nobody, as it was made private"), false),
            (true, _) => self.offer(OfferDraft::usual(name)).await?,
            (false, true) => (format!("{name} is offered to nobody, as before: alliance offer publish {name}"), false),
            (false, false) => self.offer_again(&offers).await?,
        };
        Ok(Committed { commit, note, warns })
    }

    async fn accept(&self, upload: &Upload, finished: Finished, spared: Vec<PathBuf>) -> Result<(), Refusal> {
        let (shelf, name, dataset) = (self.shelf.clone(), upload.name.clone(), upload.kind == Kind::Datasets);
        blocking(move || shelf.accept(&name, dataset, finished, &spared)).await
    }

    /// The offers of this node of a model, the newest first.
    async fn own_offers(&self, name: &str) -> Result<Vec<OfferView>, Refusal> {
        let Reply::Offers(mut offers) = self.ask(AdminCall::Offers).await? else { return Err(Refusal::Internal) };
        let is_model = |offer: &OfferView| matches!(offer.what, Offered::Model(_)) && offer.root.is_none();
        offers.retain(|offer| offer.own && offer.name == name && is_model(offer));
        offers.sort_by_key(|offer| std::cmp::Reverse(offer.from));
        Ok(offers)
    }

    /// Offers another version as the one before was: on the terms of each of its offers, and for the time that was left to it.
    async fn offer_again(&self, before: &[OfferView]) -> Result<(String, bool), Refusal> {
        let mut said = (String::new(), false);
        for last in before {
            let standing = self.own_offers(&last.name).await?;
            if let Some(same) = standing.iter().find(|offer| offer.terms == last.terms) {
                said.0 = format!("{} is offered until {}, as before", same.name, same.until);
                continue;
            }
            let ttl_ms = last.until.0.saturating_sub(now().0);
            let draft = OfferDraft { name: last.name.clone(), compute: None, terms: last.terms.clone(), ttl_ms };
            let (note, warns) = self.offer(draft).await?;
            said = (note, said.1 || warns);
        }
        Ok(said)
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
/// law reads stays: an upload may add labels, and what else would change of that is for the operator to say. The licence, and what
/// the card claims of languages, data sets and base models, are those of the new card.
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
