//! Signatures over models: the key, the signing of a directory, and what is made of a signature that lies beside files.

use std::path::{Path, PathBuf};

use alliance_protocol::{
    core::admin::{AdminCall, LocalModel, PeerView, Reply, SignedBy},
    id::Sha256,
    model_key::{KEY_PEM_BYTES_MAX, ModelSigningKey, ModelVerifyingKey},
    model_signing::SIGNATURE_FILE,
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::super::{Context, Problem, problem::unexpected, screen::plain, status};
use crate::{
    api::ApiClient,
    durable::{self, Existing, Readers},
    exit::Exit,
    models::{
        load_manifest,
        signed::{self, Checked, KnownKey, SignatureError},
    },
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
    let key = context.home()?.model_key()?;
    let hint = key.public().hint();
    let signature = dir.join(SIGNATURE_FILE);
    let signing = tokio::task::spawn_blocking(move || signed::sign(&dir, &key));
    let root = signing.await.map_err(|error| Problem::of(Exit::Failed, &error))??;
    let done = SignedDir { signature, root, key: hint };
    Ok(context
        .screen
        .one(&done, || format!("signed; the signature is `{}`: import the directory with it", done.signature.display())))
}

/// What is known of who may have signed models: the nodes that this one knows, itself, and what the operator gave.
async fn known(context: &Context, daemon: &ApiClient, given: Option<&Path>) -> Result<Vec<KnownKey>, Problem> {
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
    if let Ok(own) = context.home()?.model_key() {
        known.push(KnownKey { key: own.public().clone(), node: Some(status::ask(daemon).await?.node) });
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

/// What the signature among the files of a model says, as far as it can be told here.
pub(super) async fn check(
    context: &Context,
    daemon: &ApiClient,
    model: &LocalModel,
    given: Option<&Path>,
) -> Result<Checked, Problem> {
    let known = known(context, daemon, given).await?;
    let manifest = load_manifest(&context.home()?.manifests_path(), model.manifest)?;
    Ok(signed::check(&model.path, &manifest, &known)?)
}

/// The verified signature of what is to be imported, if there is one; what was demanded must be there.
pub(super) fn demanded(checked: Checked, demanded: bool) -> Result<(Option<SignedBy>, Option<String>), Problem> {
    let refused = |why: String| {
        Problem::new(Exit::Untrusted, why)
            .hint("import it without --require-signature, or give the key: --signature-key FILE")
    };
    match checked {
        Checked::Good(good) => Ok((Some(good), None)),
        Checked::Unsigned if demanded => Err(refused(format!("there is no `{SIGNATURE_FILE}` beside the files"))),
        Checked::Unknown(why) if demanded => Err(refused(format!("the signature proves nothing here: {why}"))),
        Checked::Unsigned => Ok((None, None)),
        Checked::Unknown(why) => Ok((None, Some(format!("the signature was not verified: {}", plain(&why))))),
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
            SignatureError::Walk(_) | SignatureError::Hidden(_) | SignatureError::Name | SignatureError::Sign(_) => {
                Self::of(Exit::Usage, &error)
            }
        }
    }
}
