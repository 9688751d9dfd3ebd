//! The JSON of bundles and statements. What is written has the members that `model_signing` 1.1 writes; what is read may
//! have those that the schemas of OpenSSF Model Signing v1.0 permit for the method `key`, and no others.

use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::FILES_MAX;
use crate::{
    dsse::{Envelope, EnvelopeJson},
    envelope::at_most,
};

/// Paths that a statement leaves out: the four of git, the signature, and room to name in the refusal what else there is.
const IGNORED_MAX: usize = 16;

/// Subjects of a statement: one, and room for a refusal that says so.
const SUBJECTS_MAX: usize = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BundleOut<'a> {
    pub(super) media_type: &'a str,
    pub(super) verification_material: MaterialOut,
    pub(super) dsse_envelope: &'a Envelope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MaterialOut {
    pub(super) public_key: KeyOut,
    /// Always empty. Readers before 1.1 want it there.
    pub(super) tlog_entries: [(); 0],
}

#[derive(Serialize)]
pub(super) struct KeyOut {
    pub(super) hint: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct BundleIn {
    pub(super) media_type: String,
    pub(super) verification_material: MaterialIn,
    pub(super) dsse_envelope: EnvelopeJson,
}

/// Nothing here is signed. Entries of logs and time stamps are passed over: the method `key` does not rest on them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct MaterialIn {
    #[serde(default)]
    pub(super) public_key: Option<KeyIn>,
    #[serde(default)]
    pub(super) certificate: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) x509_certificate_chain: Option<IgnoredAny>,
    #[serde(default, rename = "tlogEntries")]
    _tlog_entries: Option<Vec<IgnoredAny>>,
    #[serde(default, rename = "timestampVerificationData")]
    _timestamps: Option<IgnoredAny>,
}

/// Other members are permitted; older bundles have `keyDetails`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyIn {
    #[serde(default)]
    pub(super) hint: Option<String>,
    /// In place of the hint, before version 1.1.
    #[serde(default)]
    pub(super) raw_bytes: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    #[serde(deserialize_with = "at_most::<_, _, SUBJECTS_MAX>")]
    pub(super) subject: Vec<Subject>,
    pub(super) predicate_type: String,
    pub(super) predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) digest: DigestSet,
}

#[derive(Serialize, Deserialize)]
pub(super) struct DigestSet {
    pub(super) sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Predicate {
    pub(super) serialization: Serialization,
    #[serde(deserialize_with = "at_most::<_, _, FILES_MAX>")]
    pub(super) resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serialization {
    pub(super) method: String,
    pub(super) hash_type: String,
    /// Only shards have it, and the reference implementation writes it as `1000.0`.
    #[serde(default, skip_serializing)]
    pub(super) shard_size: Option<IgnoredAny>,
    pub(super) allow_symlinks: bool,
    #[serde(default, deserialize_with = "at_most::<_, _, IGNORED_MAX>")]
    pub(super) ignore_paths: Vec<String>,
}

/// Section 5.2.1 has readers pass over members that they do not know.
#[derive(Serialize, Deserialize)]
pub(super) struct Resource {
    pub(super) name: String,
    pub(super) algorithm: String,
    pub(super) digest: String,
}
