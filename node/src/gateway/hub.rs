//! The words of the Hugging Face Hub: what its clients read of repositories, files and errors. Pure.
//!
//! Source: the requests of `huggingface_hub` 2.4, `hf-hub` 0.5 and 1.0 and llama.cpp, and what they need of the answers. A commit
//! has 40 hexadecimal digits there: the first of the manifest's id. A file is named by its SHA-256, as those are that the Hub
//! keeps in LFS.

use std::collections::BTreeSet;

use alliance_protocol::{
    id::{ManifestId, Sha256},
    manifest::Manifest,
    offer::ModelOffer,
    vocabulary::{Artefact, Country},
};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sha1::Digest as _;

/// What stands between `/api/` and the name: the Hub keeps models and data sets apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Models,
    Datasets,
}

impl Kind {
    pub(super) fn of(artefact: Artefact) -> Self {
        match artefact {
            Artefact::Dataset | Artefact::DatasetSample => Self::Datasets,
            _ => Self::Models,
        }
    }
}

/// A repository as it is listed: a model that lies here, or one that a node offers.
#[derive(Clone, Debug)]
pub(super) struct Repo {
    pub(super) name: String,
    pub(super) model: ModelOffer,
    /// Whose offer it is; none where it lies here.
    pub(super) offered_by: Option<Country>,
}

impl Repo {
    pub(super) fn kind(&self) -> Kind {
        Kind::of(self.model.artefact)
    }

    pub(super) fn commit(&self) -> String {
        commit(self.model.manifest)
    }

    /// Whether a revision is the one that there is.
    pub(super) fn has(&self, revision: &str) -> bool {
        revision == "main" || revision == "refs/heads/main" || revision == self.commit()
    }

    /// What search and filters look at, and people see: where it is from and under which conditions.
    fn tags(&self) -> Vec<String> {
        let mut tags = vec![format!("license:{}", self.model.licence.to_lowercase())];
        tags.push(format!("alliance:origin:{}", self.model.origin));
        tags.extend(self.model.labels.iter().map(|label| format!("alliance:label:{label}")));
        tags.extend(self.offered_by.map(|country| format!("alliance:offered-by:{country}")));
        tags
    }

    /// `GET /api/models/{id}`, and an element of a list. Files are named where they are known.
    pub(super) fn info(&self, manifest: Option<&Manifest>, blobs: bool) -> Value {
        let author = self.name.split('/').next().unwrap_or_default();
        let sibling = |file: &alliance_protocol::manifest::File| match blobs {
            false => json!({ "rfilename": file.path }),
            true => json!({
                "rfilename": file.path,
                "size": file.bytes,
                "blobId": pointer(file.sha256, file.bytes),
                "lfs": { "sha256": file.sha256.to_string(), "size": file.bytes, "pointerSize": pointer_text(file.sha256, file.bytes).len() },
            }),
        };
        let mut info = json!({
            "_id": self.commit().get(..24),
            "id": self.name,
            "author": author,
            "sha": self.commit(),
            "private": false,
            "gated": false,
            "disabled": false,
            "downloads": 0,
            "likes": 0,
            "tags": self.tags(),
            "usedStorage": self.model.bytes,
        });
        if let (Some(members), Kind::Models) = (info.as_object_mut(), self.kind()) {
            members.insert("modelId".to_owned(), json!(self.name));
        }
        if let (Some(members), Some(manifest)) = (info.as_object_mut(), manifest) {
            members.insert("siblings".to_owned(), manifest.files().iter().map(sibling).collect());
        }
        info
    }

    /// `GET /api/models/{id}/refs`.
    pub(super) fn refs(&self) -> Value {
        let main = json!({ "name": "main", "ref": "refs/heads/main", "targetCommit": self.commit() });
        json!({ "branches": [main], "tags": [], "converts": [] })
    }

    /// Whether a search finds it.
    pub(super) fn matches(&self, kind: Kind, search: &str, author: Option<&str>, tags: &[String]) -> bool {
        let name = self.name.to_lowercase();
        let owner = self.name.split('/').next().unwrap_or_default();
        let own: BTreeSet<String> = self.tags().into_iter().collect();
        self.kind() == kind
            && search.split_whitespace().all(|word| name.contains(&word.to_lowercase()))
            && author.is_none_or(|author| owner.eq_ignore_ascii_case(author))
            && tags.iter().all(|tag| own.contains(tag))
    }
}

/// The digits that clients name a version by.
pub(super) fn commit(manifest: ManifestId) -> String {
    manifest.to_string().chars().take(40).collect()
}

/// A file or a folder in a tree.
pub(super) fn entries(manifest: &Manifest, folder: &str, recursive: bool) -> Option<Vec<Value>> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut found = false;
    let mut folders: BTreeSet<&str> = BTreeSet::new();
    let mut entries = Vec::new();
    for file in manifest.files() {
        let Some(inside) = file.path.strip_prefix(&prefix) else { continue };
        found = true;
        // Every folder on the way, or the first one alone.
        let cuts = inside.match_indices('/').map(|(at, _)| prefix.len().saturating_add(at));
        let cuts: Vec<usize> = if recursive { cuts.collect() } else { cuts.take(1).collect() };
        for cut in &cuts {
            if let Some(path) = file.path.get(..*cut)
                && folders.insert(path)
            {
                entries.push(json!({ "type": "directory", "path": path, "oid": folder_id(path), "size": 0 }));
            }
        }
        if recursive || cuts.is_empty() {
            entries.push(entry(&file.path, file.bytes, file.sha256));
        }
    }
    (found || folder.is_empty()).then_some(entries)
}

fn entry(path: &str, bytes: u64, sha256: Sha256) -> Value {
    json!({
        "type": "file",
        "path": path,
        "size": bytes,
        "oid": pointer(sha256, bytes),
        "lfs": { "oid": sha256.to_string(), "size": bytes, "pointerSize": pointer_text(sha256, bytes).len() },
    })
}

/// Files and folders with these paths; others are left out, as the Hub does.
pub(super) fn paths(manifest: &Manifest, paths: &BTreeSet<String>) -> Vec<Value> {
    let folder = |path: &str| {
        manifest.files().iter().any(|file| file.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    };
    let files = manifest.files().iter().filter(|file| paths.contains(&file.path));
    let files = files.map(|file| entry(&file.path, file.bytes, file.sha256));
    let folders = paths.iter().map(|path| path.trim_end_matches('/')).filter(|path| folder(path));
    let folders = folders.map(|path| json!({ "type": "directory", "path": path, "oid": folder_id(path), "size": 0 }));
    files.chain(folders).collect()
}

/// The pointer that git has in the place of a file in LFS (git-lfs specification, version 1).
fn pointer_text(sha256: Sha256, bytes: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {bytes}\n")
}

/// The id that git gives to that.
fn pointer(sha256: Sha256, bytes: u64) -> String {
    let text = pointer_text(sha256, bytes);
    hex::encode(sha1::Sha1::digest(format!("blob {}\0{text}", text.len())))
}

/// An id for a folder, which has none here: clients want one and compare it with nothing.
fn folder_id(path: &str) -> String {
    hex::encode(sha1::Sha1::digest(format!("folder {path}")))
}

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "no token, or none that opens anything here: make one with `alliance token create NAME` and set HF_TOKEN to it"
    )]
    Token,
    #[error("the tokens of this node cannot be read; its log says why")]
    Tokens,
    #[error("no model or data set `{0}` lies at this node or is offered to it")]
    Repo(String),
    #[error("`{name}` has no revision `{revision}` here; there is main, and {commit}")]
    Revision { name: String, revision: String, commit: String },
    #[error("`{name}` has no file `{path}`")]
    Entry { name: String, path: String, commit: String },
    #[error("`{name}` is offered by a node in {country} and does not lie here yet: alliance pull {name}")]
    NotHere { name: String, country: Country },
    #[error("{0}")]
    Request(String),
    #[error("`{0}` cannot be read as it was imported; its operator can tell why: alliance model verify")]
    Damaged(String),
    #[error("the node has more to do than it can; try again")]
    Busy,
    #[error("the body of the request is too long")]
    TooLong,
}

impl Refusal {
    /// Where what failed may work later, clients try again; they must not where it will not.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Repo(_) | Self::Revision { .. } | Self::Entry { .. } => StatusCode::NOT_FOUND,
            Self::NotHere { .. } => StatusCode::FORBIDDEN,
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Damaged(_) | Self::Tokens => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// `X-Error-Code`: clients act on those of the Hub.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Token => "InvalidToken",
            Self::Repo(_) => "RepoNotFound",
            Self::Revision { .. } => "RevisionNotFound",
            Self::Entry { .. } => "EntryNotFound",
            Self::NotHere { .. } => "NotHere",
            Self::Request(_) | Self::TooLong => "BadRequest",
            Self::Damaged(_) => "Damaged",
            Self::Tokens | Self::Busy => "Unavailable",
        }
    }

    /// A client remembers that a file is not there only where it is told of which version that is so.
    pub(super) fn commit(&self) -> Option<&str> {
        match self {
            Self::Entry { commit, .. } => Some(commit),
            _ => None,
        }
    }

    /// What every client shows, whatever it makes of the status: the reason of what is no usual miss.
    pub(super) fn warns(&self) -> bool {
        !matches!(self, Self::Entry { .. } | Self::Revision { .. } | Self::Repo(_) | Self::Busy)
    }
}

#[cfg(test)]
mod tests {
    use alliance_protocol::manifest::{File, Segment, SegmentKind};

    use super::*;

    fn manifest() -> Manifest {
        let file = |path: &str, bytes: &[u8]| File {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            sha256: Sha256(
                sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), bytes)).into(),
            ),
            segments: vec![Segment::of(SegmentKind::Opaque, bytes)],
        };
        let files = vec![file("config.json", b"{}"), file("onnx/a/model.onnx", b"x"), file("onnx/b.txt", b"y")];
        Manifest::new(Artefact::Weights, [alliance_protocol::vocabulary::Label::Public].into(), files).expect("a manifest")
    }

    fn listed(folder: &str, recursive: bool) -> Vec<(String, String)> {
        let entries = entries(&manifest(), folder, recursive).expect("a folder");
        let text = |entry: &Value, name: &str| entry[name].as_str().expect("text").to_owned();
        entries.iter().map(|entry| (text(entry, "type"), text(entry, "path"))).collect()
    }

    #[test]
    fn folders_are_listed_as_deep_as_was_asked() {
        let pair = |kind: &str, path: &str| (kind.to_owned(), path.to_owned());
        let (top, below) = (pair("file", "config.json"), pair("directory", "onnx"));
        assert_eq!(listed("", false), [top.clone(), below.clone()]);
        let all = [top, below, pair("directory", "onnx/a"), pair("file", "onnx/a/model.onnx"), pair("file", "onnx/b.txt")];
        assert_eq!(listed("", true), all);
        assert_eq!(listed("onnx", false), [pair("directory", "onnx/a"), pair("file", "onnx/b.txt")]);
        assert_eq!(entries(&manifest(), "on", true), None, "the beginning of a name is no folder");
        assert_eq!(entries(&manifest(), "config.json", true), None);
        let asked = ["onnx/", "config.json", "absent"].map(str::to_owned).into();
        let found = paths(&manifest(), &asked);
        assert_eq!(
            found.iter().map(|entry| entry["path"].as_str().expect("text")).collect::<Vec<_>>(),
            ["config.json", "onnx"]
        );
    }

    /// As `git hash-object` says of the pointer of an empty file.
    #[test]
    fn files_have_the_id_of_their_pointer_in_git() {
        let empty = Sha256(sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new()).into());
        assert_eq!(pointer_text(empty, 12).len(), 127);
        assert_eq!(pointer(empty, 12), "ac4fe21e338c89b512763b7ec16f42e582703ce5");
    }
}
