//! Signatures over models: the key, the signing of a directory, and what is made of a signature that lies beside files.

use std::path::{Path, PathBuf};

use alliance_protocol::{
    core::admin::{AdminCall, PeerView, Reply, SignedBy},
    id::Sha256,
    model_key::{KEY_PEM_BYTES_MAX, ModelSigningKey, ModelVerifyingKey},
    model_signing::SIGNATURE_FILE,
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::super::{
    Context, Problem,
    problem::{chain, unexpected},
    status,
};
use crate::{
    api::ApiClient,
    durable::{self, Existing, Readers},
    exit::Exit,
    home::HomeError,
    models::signed::{self, Checked, KnownKey, SignatureError},
};

#[derive(Debug, Serialize)]
struct Key {
    /// The name that bundles give it: SHA-256 of the PEM text.
    key: String,
    public_key: String,
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct SignedDir {
    signature: PathBuf,
    /// What the signature names the model by.
    root: Sha256,
    key: String,
    /// What keeps others from telling whose signature it is.
    note: Option<String>,
}

/// Makes the key with which this node signs models, or takes one, and binds it to the node's own.
pub(super) fn signing_key(context: &Context, import: Option<&Path>, out: Option<&Path>) -> Result<Exit, Problem> {
    let home = context.home()?;
    let given = match import {
        None => None,
        Some(path) => {
            let text = Zeroizing::new(durable::read_text(path, KEY_PEM_BYTES_MAX)?);
            let key = ModelSigningKey::from_pem(&text);
            Some(key.map_err(|error| {
                Problem::of(Exit::Usage, &error).hint("give a P-256 key in PEM, as `model_signing` uses it")
            })?)
        }
    };
    let papers = home.papers(home.public()?, context.now)?;
    let key = home.bind_model_key(given, &papers.charter, context.now)?;
    if let Some(out) = out {
        durable::write(out, key.pem().as_bytes(), Readers::All, Existing::Replace)?;
    }
    let shown = Key { key: key.hint(), public_key: key.pem().to_owned(), file: home.model_key_path() };
    Ok(context.screen.one(&shown, || {
        format!(
            "this node signs models with the key {}\n{}bound to the node; restart the daemon, so that others hear of it",
            shown.key, shown.public_key
        )
    }))
}

/// Signs what lies in a directory.
pub(super) async fn sign(context: &Context, dir: PathBuf) -> Result<Exit, Problem> {
    let home = context.home()?;
    let key = home.model_key()?;
    let node = home.public()?;
    let papers = home.papers(node, context.now);
    let bound = papers.and_then(|papers| home.is_bound(&key, &node, &papers.charter));
    let hint = key.public().hint();
    let signature = dir.join(SIGNATURE_FILE);
    let signing = tokio::task::spawn_blocking(move || signed::sign(&dir, &key));
    let root = signing.await.map_err(|error| Problem::of(Exit::Failed, &error))??;
    let note = match bound {
        Ok(true) => None,
        Ok(false) => Some("nothing says whose the key is: bind it to the node, alliance model signing-key".to_owned()),
        Err(error) => Some(format!("whether the key is bound to the node is not known: {}", chain(&error))),
    };
    let done = SignedDir { signature, root, key: hint, note };
    Ok(context.screen.one(&done, || {
        let note = done.note.as_ref().map(|note| format!("\nnote: {note}")).unwrap_or_default();
        format!("signed; the signature is `{}`: import the directory with it{note}", done.signature.display())
    }))
}

/// What is known of who may have signed models: the nodes that this one knows, itself, and what the operator gave.
pub(super) async fn known(context: &Context, daemon: &ApiClient, given: Option<&Path>) -> Result<Vec<KnownKey>, Problem> {
    let peers: Vec<PeerView> = match daemon.call(&AdminCall::Peers).await? {
        Reply::Peers(peers) => peers,
        _ => return Err(unexpected()),
    };
    let of_peer = |peer: &PeerView| {
        let key = ModelVerifyingKey::from_pem(peer.model_key.as_ref()?).ok()?;
        // One that has no standing now speaks for nobody.
        peer.problem.is_none().then_some(KnownKey { key, node: Some(peer.node) })
    };
    let mut known: Vec<KnownKey> = peers.iter().filter_map(of_peer).collect();
    match context.home()?.model_key() {
        Ok(own) => known.push(KnownKey { key: own.public().clone(), node: Some(status::ask(daemon).await?.node) }),
        Err(HomeError::NoModelKey) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(path) = given {
        let text = durable::read_text(path, KEY_PEM_BYTES_MAX)?;
        let key = ModelVerifyingKey::from_pem(&text).map_err(|error| Problem::of(Exit::Usage, &error))?;
        // Nobody else's will do.
        known.retain(|other| other.key == key);
        known.push(KnownKey { key, node: None });
    }
    Ok(known)
}

/// Whose signature must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Nobodys,
    /// That of a node that is known here.
    ANodes,
    /// That of the key that the operator gave.
    OfTheKey,
}

impl Demand {
    pub(super) fn of(key: Option<&Path>, require: bool) -> Self {
        match (key, require) {
            (Some(_), _) => Self::OfTheKey,
            (None, true) => Self::ANodes,
            (None, false) => Self::Nobodys,
        }
    }

    /// Whether there can be one at all.
    pub(super) fn check_there(self, dir: &Path) -> Result<(), Problem> {
        // What cannot be looked at is said when it is read.
        let lacking = || dir.is_dir() && matches!(dir.join(SIGNATURE_FILE).try_exists(), Ok(false));
        if self != Self::Nobodys && lacking() { Err(Self::unsigned()) } else { Ok(()) }
    }

    /// The verified signature, if there is one, or why one was not verified.
    pub(super) fn check(self, checked: Checked) -> Result<(Option<SignedBy>, Option<String>), Problem> {
        match (checked, self) {
            (Checked::Good(good), _) => Ok((Some(good), None)),
            (Checked::Unsigned, Self::Nobodys) => Ok((None, None)),
            (Checked::Unsigned, Self::ANodes | Self::OfTheKey) => Err(Self::unsigned()),
            (Checked::Unknown(why), Self::Nobodys) => Ok((None, Some(why))),
            (Checked::Unknown(why), Self::ANodes) => {
                Err(Problem::new(Exit::Untrusted, format!("the signature proves nothing here: {why}"))
                    .hint("if you know whose key it is, give it: --signature-key FILE"))
            }
            (Checked::Unknown(_), Self::OfTheKey) => {
                Err(Problem::new(Exit::Untrusted, "the signature is not one of the key that was given")
                    .hint("ask whoever made the model for the key, by a way that you trust"))
            }
        }
    }

    fn unsigned() -> Problem {
        Problem::new(Exit::Untrusted, format!("there is no `{SIGNATURE_FILE}` beside the files"))
            .hint("whoever made the model signs it: alliance model sign DIR")
    }
}

/// In one line for people.
pub(super) fn shown(signed: &SignedBy) -> String {
    let key = signed.key.get(..16).unwrap_or(&signed.key);
    match signed.node {
        Some(node) => format!("verified, by node {} (key {key})", node.short()),
        None => format!("verified, by the key {key} that was given"),
    }
}

impl From<SignatureError> for Problem {
    fn from(error: SignatureError) -> Self {
        match &error {
            SignatureError::Bad { .. } => Self::of(Exit::Damaged, &error).hint(
                "the files are not those that were signed, or the signature is damaged: get both again from who made them",
            ),
            SignatureError::File(inner) => Self::of(super::super::problem::disk(&inner.source), &error),
            SignatureError::Walk(signed::WalkError::Read { source, .. }) => {
                Self::of(super::super::problem::disk(source), &error)
            }
            SignatureError::Changed(_) => Self::of(Exit::Conflict, &error),
            SignatureError::Hidden(hidden) if hidden.starts_with(".cache") => Self::of(Exit::Usage, &error)
                .hint("the Hugging Face client leaves it beside what it downloads, and needs it no more: remove it"),
            SignatureError::Walk(_)
            | SignatureError::Hidden(_)
            | SignatureError::TooMany(_)
            | SignatureError::Name
            | SignatureError::Sign(_) => Self::of(Exit::Usage, &error),
        }
    }
}
