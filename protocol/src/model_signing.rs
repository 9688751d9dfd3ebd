//! Signatures over the files of a model that PyPI `model-signing` verifies, and the verification of those that it makes:
//! OpenSSF Model Signing v1.0, with the method `key` on P-256 and files hashed with SHA-256.
//!
//! A signature is a Sigstore bundle with a DSSE envelope ([`crate::dsse`]) around an in-toto statement, which names each file
//! and its hash. Start reading at [`sign`], [`SignedModel::open`] and [`SignedModel::check`].
//!
//! Never: shards, symbolic links, other hashes, a model of a single file without a folder, certificates, Sigstore. They are
//! refused by name. A signature says who vouches for bytes; it does not say that they may cross a border.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::Digest as _;

use crate::{
    dsse::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, IN_TOTO, SealError, Shape, Signer, Verifier},
    id::Sha256,
    model_key::{ModelSigningKey, ModelVerifyingKey},
};

mod path;
mod wire;

pub use path::{BadModelPath, ModelPath, PATH_BYTES_MAX};

/// What tools write beside the files of a model unless they are told otherwise.
pub const SIGNATURE_FILE: &str = "model.sig";

/// Files of a model: as many as a manifest may have.
pub const FILES_MAX: usize = 4096;

/// Bytes of a bundle: an envelope, and what names the key.
pub const BUNDLE_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + 16 * 1024;

/// Bytes of the name of a model: that of its folder.
pub const MODEL_NAME_BYTES_MAX: usize = 255;

/// Bytes that a file takes in a statement of ours beyond its path: its hash, the names of members, punctuation.
const RESOURCE_BYTES_MAX: usize = 160;

/// As many files as there may be, with the longest paths, fit into an envelope; base64 makes 4 bytes of 3. Other tools
/// write more around each file and escape letters, and with very many long names what they make can be too large for us.
const _: () = assert!(FILES_MAX * (PATH_BYTES_MAX + RESOURCE_BYTES_MAX) / 3 * 4 + 64 * 1024 <= ENVELOPE_BYTES_MAX);

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";

/// The one way of listing files that is known here, and the hash of each.
const METHOD: &str = "files";
const HASH: &str = "sha256";

/// The files of a model and the SHA-256 of each; no path is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFiles(BTreeMap<ModelPath, Sha256>);

/// A bundle that a known key signed, and that is whole. What lies on the disk is another question: see [`Self::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedModel {
    name: String,
    root: Sha256,
    files: ModelFiles,
    left_out: Vec<ModelPath>,
}

/// A bundle that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What goes into the file beside the model.
    pub json: String,
    /// See [`SignedModel::root`].
    pub root: Sha256,
}

/// Why files are not a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelFilesError {
    #[error("more than the {max} files that a model may have", max = FILES_MAX)]
    TooMany,
    #[error("`{0}` is there twice")]
    Twice(ModelPath),
}

/// Why a model is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the model has no file to sign")]
    Empty,
    #[error("{0:?} is no name for a model: 1 to {max} bytes, printable, without `/`", max = MODEL_NAME_BYTES_MAX)]
    Name(String),
    #[error("the statement could not be written as JSON")]
    Json(#[source] serde_json::Error),
    #[error("the statement could not be signed")]
    Seal(#[source] SealError),
}

/// Why bytes are not a bundle that the expected key signed. Steps are tried in this order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("{bytes} bytes are more than the {max} that a bundle may have", max = BUNDLE_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("not a model signature: {0}")]
    Shape(Shape),
    #[error("not a Sigstore bundle of version 0.3")]
    MediaType,
    #[error("signed with a certificate; only signatures with a key are supported")]
    Certificate,
    #[error("it does not say which key signed it")]
    NoKey,
    #[error("signed with another key than the expected one")]
    OtherKey,
    #[error("its envelope is not one of the expected key")]
    Envelope(#[source] EnvelopeError),
    #[error("what is signed is not a statement about a model: {0}")]
    Statement(Shape),
    #[error("what is signed is not an in-toto statement of version 1")]
    StatementType,
    #[error("what is signed is a statement of another type than OpenSSF Model Signing v1.0")]
    PredicateType,
    #[error("it has to be about one model, which has a name")]
    Subject,
    #[error("signed in shards, which is not supported: sign the model by files")]
    Shards,
    #[error("signed in another way than by files")]
    Method,
    #[error("its files are hashed with another algorithm than SHA-256")]
    Hash,
    #[error("it was signed with symbolic links followed, which is not supported: sign the files themselves")]
    Symlinks,
    #[error("it names no file")]
    Empty,
    #[error("it names a file that cannot be in a model")]
    Path(#[from] BadModelPath),
    #[error("the hash of `{0}` is not 64 lower-case hexadecimal digits")]
    Digest(ModelPath),
    #[error("`{0}` is not after the files before it, or it is there twice")]
    Order(ModelPath),
    #[error("its root digest is not that of the files it names")]
    Root,
}

/// How a model differs from what was signed: the first difference, in this order and then by path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("whoever signed left `{0}` out: only the files of git and the signature may be left out")]
    Ignored(ModelPath),
    #[error("`{0}` was signed and is missing")]
    Missing(ModelPath),
    #[error("`{path}` is not the file that was signed: its SHA-256 is {found}, not {signed}")]
    Altered { path: ModelPath, signed: Sha256, found: Sha256 },
    #[error("`{0}` is there and was not signed")]
    Unexpected(ModelPath),
}

/// Why a model does not pass [`verify`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the signature is not good")]
    Bundle(#[from] BundleError),
    #[error("the signature is good, and the model is not the one that was signed")]
    Mismatch(#[from] Mismatch),
}

/// Signs the files of a model, but for those of git at its top and the signature itself, if it lies among them. `name` is
/// that of the folder and decides nothing. The same arguments always give the same bundle.
///
/// # Errors
/// There is nothing to sign, the name is none, or what would be signed is too large.
pub fn sign(
    name: &str,
    files: &ModelFiles,
    signature: Option<&ModelPath>,
    key: &ModelSigningKey,
) -> Result<Bundle, SignError> {
    if !is_name(name) {
        return Err(SignError::Name(name.chars().take(MODEL_NAME_BYTES_MAX).collect()));
    }
    let files = files.signed(signature);
    if files.0.is_empty() {
        return Err(SignError::Empty);
    }
    let root = files.root();
    let payload = serde_json::to_vec(&statement(name, &files, root, signature)).map_err(SignError::Json)?;
    let envelope = Envelope::sign(IN_TOTO, &payload, Signer::P256(key)).map_err(SignError::Seal)?;
    let bundle = wire::BundleOut {
        media_type: MEDIA_TYPE,
        verification_material: wire::MaterialOut {
            public_key: wire::KeyOut { hint: key.public().hint() },
            tlog_entries: [],
        },
        dsse_envelope: &envelope,
    };
    Ok(Bundle { json: serde_json::to_string(&bundle).map_err(SignError::Json)?, root })
}

/// Opens a bundle and compares it with what was found, in one step: [`SignedModel::open`], then [`SignedModel::check`].
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    bundle: &[u8],
    key: &ModelVerifyingKey,
    found: &ModelFiles,
    signature: Option<&ModelPath>,
) -> Result<SignedModel, VerifyError> {
    let signed = SignedModel::open(bundle, key)?;
    signed.check(found, signature)?;
    Ok(signed)
}

/// Which key a bundle says that it was signed with: what [`ModelVerifyingKey::hint`] gives. Good for choosing a key to try,
/// and for nothing else.
///
/// # Errors
/// It is no bundle, or names no key.
pub fn hint(bundle: &[u8]) -> Result<String, BundleError> {
    if bundle.len() > BUNDLE_BYTES_MAX {
        return Err(BundleError::TooLarge { bytes: bundle.len() });
    }
    let shape = |error: serde_json::Error| BundleError::Shape(Shape::of(&error));
    let bundle: wire::BundleIn = serde_json::from_slice(bundle).map_err(shape)?;
    let material = &bundle.verification_material;
    if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
        return Err(BundleError::Certificate);
    }
    let named = material.public_key.as_ref().ok_or(BundleError::NoKey)?;
    match (&named.hint, &named.raw_bytes) {
        (Some(hint), _) => Ok(hint.clone()),
        (None, Some(text)) => {
            let text = BASE64_STANDARD.decode(text).map_err(|_| BundleError::NoKey)?;
            Ok(hex::encode(sha2::Sha256::digest(text)))
        }
        (None, None) => Err(BundleError::NoKey),
    }
}

impl ModelFiles {
    /// # Errors
    /// There are too many, or a path is there twice.
    pub fn new(files: impl IntoIterator<Item = (ModelPath, Sha256)>) -> Result<Self, ModelFilesError> {
        let mut all = BTreeMap::new();
        for (path, sha256) in files {
            if all.len() == FILES_MAX {
                return Err(ModelFilesError::TooMany);
            }
            if all.contains_key(&path) {
                return Err(ModelFilesError::Twice(path));
            }
            all.insert(path, sha256);
        }
        Ok(Self(all))
    }

    /// In the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&ModelPath, &Sha256)> {
        self.0.iter()
    }

    #[must_use]
    pub fn get(&self, path: &ModelPath) -> Option<Sha256> {
        self.0.get(path).copied()
    }

    /// The hash that a signature of ours over them names the model by (section 6.5.1 of the specification), without the
    /// files that one at `signature` leaves out.
    #[must_use]
    pub fn root_without(&self, signature: Option<&ModelPath>) -> Sha256 {
        self.signed(signature).root()
    }

    /// Those that a signature is made over.
    fn signed(&self, signature: Option<&ModelPath>) -> Self {
        let signed = |(path, _): &(&ModelPath, &Sha256)| !path.is_left_out(signature);
        Self(self.iter().filter(signed).map(|(path, sha256)| (path.clone(), *sha256)).collect())
    }

    fn root(&self) -> Sha256 {
        root_of(self.0.values())
    }
}

impl SignedModel {
    /// Reads a bundle that `key` signed. Nothing of the statement is parsed before its signature was verified.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn open(bundle: &[u8], key: &ModelVerifyingKey) -> Result<Self, BundleError> {
        if bundle.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { bytes: bundle.len() });
        }
        let shape = |error: serde_json::Error| BundleError::Shape(Shape::of(&error));
        let bundle: wire::BundleIn = serde_json::from_slice(bundle).map_err(shape)?;
        if bundle.media_type != MEDIA_TYPE {
            return Err(BundleError::MediaType);
        }
        check_key(&bundle.verification_material, key)?;
        let envelope = Envelope::try_from(bundle.dsse_envelope).map_err(BundleError::Envelope)?;
        let payload = envelope.verify(IN_TOTO, &Verifier::P256(key.clone())).map_err(BundleError::Envelope)?;
        let shape = |error: serde_json::Error| BundleError::Statement(Shape::of(&error));
        Self::read(serde_json::from_slice(payload).map_err(shape)?)
    }

    /// Compares what was signed with the files that were found. Files of git at the top and the signature itself may be
    /// there without having been signed; they are returned, because nobody vouches for them.
    ///
    /// # Errors
    /// The first difference.
    pub fn check<'a>(&self, found: &'a ModelFiles, signature: Option<&ModelPath>) -> Result<Vec<&'a ModelPath>, Mismatch> {
        if let Some(path) = self.left_out.iter().find(|path| !path.is_left_out(signature)) {
            return Err(Mismatch::Ignored(path.clone()));
        }
        for (path, signed) in self.files.iter() {
            match found.get(path) {
                None => return Err(Mismatch::Missing(path.clone())),
                Some(found) if found != *signed => {
                    return Err(Mismatch::Altered { path: path.clone(), signed: *signed, found });
                }
                Some(_) => {}
            }
        }
        let unsigned = || found.iter().map(|(path, _)| path).filter(|path| self.files.get(path).is_none());
        match unsigned().find(|path| !path.is_left_out(signature)) {
            Some(path) => Err(Mismatch::Unexpected(path.clone())),
            None => Ok(unsigned().collect()),
        }
    }

    /// What the model is called by whoever signed it, fit for a terminal. Decides nothing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash over the hashes of the files, in the order in which they were signed: what other statements name the model
    /// by. The reference implementation has another order than the specification, so that the same files can have two roots:
    /// take it from here, and do not compute it from what was found.
    #[must_use]
    pub fn root(&self) -> Sha256 {
        self.root
    }

    #[must_use]
    pub fn files(&self) -> &ModelFiles {
        &self.files
    }

    fn read(statement: wire::Statement) -> Result<Self, BundleError> {
        if statement.kind != STATEMENT_TYPE {
            return Err(BundleError::StatementType);
        }
        if statement.predicate_type != PREDICATE_TYPE {
            return Err(BundleError::PredicateType);
        }
        let [subject] = <[wire::Subject; 1]>::try_from(statement.subject).map_err(|_| BundleError::Subject)?;
        if subject.name.is_empty() {
            return Err(BundleError::Subject);
        }
        let wire::Predicate { serialization, resources } = statement.predicate;
        check_method(&serialization)?;
        let left_out = serialization.ignore_paths.iter().map(|path| path.parse()).collect::<Result<Vec<ModelPath>, _>>()?;
        let files = read_files(resources)?;
        let root = root_of(files.iter().map(|(_, sha256)| sha256));
        if subject.digest.sha256 != root.to_string() {
            return Err(BundleError::Root);
        }
        Ok(Self { name: shown(&subject.name), root, files: ModelFiles(files.into_iter().collect()), left_out })
    }
}

fn statement(name: &str, files: &ModelFiles, root: Sha256, signature: Option<&ModelPath>) -> wire::Statement {
    let resource = |(path, sha256): (&ModelPath, &Sha256)| wire::Resource {
        name: path.to_string(),
        algorithm: HASH.to_owned(),
        digest: sha256.to_string(),
    };
    wire::Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![wire::Subject { name: name.to_owned(), digest: wire::DigestSet { sha256: root.to_string() } }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: wire::Predicate {
            serialization: wire::Serialization {
                method: METHOD.to_owned(),
                hash_type: HASH.to_owned(),
                shard_size: None,
                allow_symlinks: false,
                ignore_paths: ModelPath::left_out(signature).map(str::to_owned).collect(),
            },
            resources: files.iter().map(resource).collect(),
        },
    }
}

/// Whether the bundle says that `key` signed it. Only a better message hangs on this: the signature decides.
fn check_key(material: &wire::MaterialIn, key: &ModelVerifyingKey) -> Result<(), BundleError> {
    if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
        return Err(BundleError::Certificate);
    }
    let named = material.public_key.as_ref().ok_or(BundleError::NoKey)?;
    let same_hint = named.hint.as_ref().map(|hint| *hint == key.hint());
    // Before version 1.1 the key itself stood there, as its PEM text.
    let same_text =
        named.raw_bytes.as_ref().map(|bytes| BASE64_STANDARD.decode(bytes).is_ok_and(|text| text == key.pem().as_bytes()));
    match (same_hint, same_text) {
        (None, None) => Err(BundleError::NoKey),
        (Some(false), _) | (_, Some(false)) => Err(BundleError::OtherKey),
        (Some(true), _) | (None, Some(true)) => Ok(()),
    }
}

fn check_method(serialization: &wire::Serialization) -> Result<(), BundleError> {
    if serialization.method == "shards" {
        return Err(BundleError::Shards);
    }
    if serialization.method != METHOD || serialization.shard_size.is_some() {
        return Err(BundleError::Method);
    }
    if serialization.hash_type != HASH {
        return Err(BundleError::Hash);
    }
    if serialization.allow_symlinks { Err(BundleError::Symlinks) } else { Ok(()) }
}

/// The files in the order in which they stand, which must be that of the specification, by code points, or that of the
/// reference implementation, part by part: either shows that none is there twice.
fn read_files(resources: Vec<wire::Resource>) -> Result<Vec<(ModelPath, Sha256)>, BundleError> {
    let mut files: Vec<(ModelPath, Sha256)> = Vec::with_capacity(resources.len());
    let (mut by_code_points, mut by_parts) = (true, true);
    for resource in resources {
        let path: ModelPath = resource.name.parse()?;
        if resource.algorithm != HASH {
            return Err(BundleError::Hash);
        }
        // A hash has one spelling, and hexadecimal more than one.
        let sha256 = resource.digest.parse().ok().filter(|sha256: &Sha256| sha256.to_string() == resource.digest);
        let sha256 = sha256.ok_or_else(|| BundleError::Digest(path.clone()))?;
        if let Some((last, _)) = files.last() {
            by_code_points &= *last < path;
            by_parts &= last.cmp_by_parts(&path).is_lt();
        }
        if !by_code_points && !by_parts {
            return Err(BundleError::Order(path));
        }
        files.push((path, sha256));
    }
    if files.is_empty() { Err(BundleError::Empty) } else { Ok(files) }
}

/// Section 6.5.1: SHA-256 over the hashes as bytes, one after the other.
fn root_of<'a>(hashes: impl Iterator<Item = &'a Sha256>) -> Sha256 {
    Sha256(hashes.fold(sha2::Sha256::new(), |hasher, sha256| hasher.chain_update(sha256.0)).finalize().into())
}

/// Readers have to accept any name (section 6.5.1); what cannot be shown of it becomes `?`, and what is too long is cut.
fn shown(name: &str) -> String {
    name.chars().take(MODEL_NAME_BYTES_MAX).map(|letter| if path::is_plain(letter) { letter } else { '?' }).collect()
}

fn is_name(name: &str) -> bool {
    (1..=MODEL_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(|letter| path::is_plain(letter) && letter != '/')
}

#[cfg(test)]
mod tests;
