//! The words of the Hugging Face Hub: what its clients read of repositories, files and errors. Pure.
//!
//! Source: the requests of `huggingface_hub` 2.4, `hf-hub` 0.5 and 1.0 and llama.cpp, and what they need of the answers. A commit
//! has 40 hexadecimal digits there: the first of the manifest's id. A file is named by its SHA-256, as those are that the Hub
//! keeps in LFS.

use std::{collections::BTreeSet, path::PathBuf};

use alliance_protocol::{
    core::admin::OfferView,
    id::{ManifestId, Sha256, StatementId},
    key::PublicKey,
    manifest::{File, Manifest},
    offer::{ModelOffer, Terms},
    time::Timestamp,
    vocabulary::{Artefact, Country, Purpose},
};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sha1::Digest as _;

use super::{denied::Denied, uploads::unlabelled};
use crate::{shelf::Shelved, tokens::Scope};

/// The Hub's `X-Error-Code` of a repository for which somebody must give leave. Libraries show the reason that comes with it;
/// the command `hf` shows that of any other code, and not of this one.
pub(super) const GATED: &str = "GatedRepo";

/// The code for that command.
pub(super) const POLICY: &str = "PolicyDenied";

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

/// Where the files of a repository are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In this directory.
    Here(PathBuf),
    /// At a node of another country, or of this one, which offers them.
    Offered(Box<Offered>),
}

/// The offer of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) offer: StatementId,
    pub(super) node: PublicKey,
    pub(super) country: Country,
    pub(super) terms: Terms,
    from: Timestamp,
    /// Whether it could cross to this node now, without safeguards, for each purpose.
    preview: Vec<(Purpose, bool)>,
    /// Offers of the same name by other nodes.
    others: Vec<StatementId>,
}

impl Offered {
    pub(super) fn of(view: &OfferView) -> Self {
        Self {
            offer: view.offer,
            node: view.node,
            country: view.country,
            terms: view.terms.clone(),
            from: view.from,
            preview: view.preview.clone(),
            others: Vec::new(),
        }
    }

    /// Of two offers of one name the newer; one of another node is noted, for it is not known which is meant.
    pub(super) fn or(self, other: Self) -> Self {
        let (newer, older) = if other.from > self.from { (other, self) } else { (self, other) };
        let mut others = newer.others.clone();
        others.extend(&older.others);
        if older.node != newer.node {
            others.push(older.offer);
        }
        Self { others, ..newer }
    }

    /// The offers that the name may mean, where it may mean several.
    pub(super) fn ambiguous(&self) -> Option<Vec<StatementId>> {
        (!self.others.is_empty()).then(|| self.others.iter().chain([&self.offer]).copied().collect())
    }

    /// The conditions, and what the law makes of it now.
    fn tags(&self) -> Vec<String> {
        let mut tags = vec![format!("alliance:offered-by:{}", self.country)];
        tags.extend(self.terms.purposes.iter().map(|purpose| format!("alliance:offered-for:{purpose}")));
        tags.extend(self.terms.to.iter().map(|country| format!("alliance:offered-to:{country}")));
        tags.extend(self.preview.iter().map(|(purpose, may)| {
            let says = if *may { "may-cross-for" } else { "may-not-cross-for" };
            format!("alliance:{says}:{purpose}")
        }));
        tags
    }
}

/// A repository as it is listed: a model that lies here, or one that a node offers.
#[derive(Clone, Debug)]
pub(super) struct Repo {
    pub(super) name: String,
    pub(super) model: ModelOffer,
    pub(super) place: Place,
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
        is_main(revision) || revision == self.commit()
    }

    /// What search and filters look at, and people see: where it is from and under which conditions.
    fn tags(&self) -> Vec<String> {
        let mut tags = vec![format!("license:{}", self.model.licence.to_lowercase())];
        tags.push(format!("alliance:origin:{}", self.model.origin));
        tags.extend(self.model.labels.iter().map(|label| format!("alliance:label:{label}")));
        if let Place::Offered(offered) = &self.place {
            tags.extend(offered.tags());
        }
        tags
    }

    /// `GET /api/models/{id}`, and an element of a list. Files are named where they are known.
    pub(super) fn info(&self, manifest: Option<&Manifest>, blobs: bool) -> Value {
        let author = self.name.split('/').next().unwrap_or_default();
        let sibling = |file: &File| match blobs {
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

/// As [`Repo::info`], of what was uploaded and is no model yet.
pub(super) fn shelved_info(name: &str, state: &Shelved) -> Value {
    let commit = state.version.as_ref().map_or_else(|| "0".repeat(40), |version| version.commit.clone());
    json!({
        "_id": commit.get(..24),
        "id": name,
        "author": name.split('/').next().unwrap_or_default(),
        "sha": commit,
        "private": true,
        "gated": false,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": ["alliance:unlabelled"],
        "description": unlabelled(name),
    })
}

/// Whether a revision is the one branch that there is, by one of its names.
pub(super) fn is_main(revision: &str) -> bool {
    matches!(revision, "main" | "refs/heads/main" | "HEAD")
}

/// The digits that clients name a version by.
pub(super) fn commit(manifest: ManifestId) -> String {
    manifest.to_string().chars().take(40).collect()
}

/// A file or a folder in a tree.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    File(&'a File),
    Folder(&'a str),
}

/// What lies in a folder; with `recursive`, what lies below it as well. None where there is no such folder.
pub(super) fn entries<'a>(
    manifest: &'a Manifest,
    folder: &str,
    recursive: bool,
) -> Option<impl Iterator<Item = Entry<'a>> + use<'a>> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let below = prefix.len();
    // Files stand in the order of their paths, so that those of a folder stand together.
    let files = manifest.files();
    let first = files.partition_point(|file| file.path < prefix);
    let inside = files.get(first..)?;
    let inside = inside.get(..inside.partition_point(|file| file.path.starts_with(&prefix)))?;
    if inside.is_empty() && !folder.is_empty() {
        return None;
    }
    let mut before = "";
    Some(inside.iter().flat_map(move |file| {
        let (path, last) = (file.path.as_str(), before);
        before = path;
        // Every folder on the way that the file before was not in, or the first one alone.
        let cuts = path.match_indices('/').map(|(at, _)| at).filter(move |at| *at >= below);
        let cuts: Vec<usize> = if recursive { cuts.collect() } else { cuts.take(1).collect() };
        let shown = recursive || cuts.is_empty();
        let known = move |cut: &usize| last.get(..=*cut).is_some_and(|start| path.get(..=*cut) == Some(start));
        let folders = cuts.into_iter().filter(move |cut| !known(cut)).filter_map(|cut| path.get(..cut)).map(Entry::Folder);
        folders.chain(shown.then_some(Entry::File(file)))
    }))
}

impl Entry<'_> {
    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Folder(path) => json!({ "type": "directory", "path": path, "oid": folder_id(path), "size": 0 }),
            Self::File(File { path, bytes, sha256, .. }) => json!({
                "type": "file",
                "path": path,
                "size": bytes,
                "oid": pointer(*sha256, *bytes),
                "lfs": { "oid": sha256.to_string(), "size": bytes, "pointerSize": pointer_text(*sha256, *bytes).len() },
            }),
        }
    }
}

/// Files and folders with these paths; others are left out, as the Hub does.
pub(super) fn paths<'a>(manifest: &'a Manifest, paths: &'a BTreeSet<String>) -> impl Iterator<Item = Entry<'a>> {
    let files = manifest.files();
    paths.iter().filter_map(move |path| {
        let path = path.trim_end_matches('/');
        let found = files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().and_then(|at| files.get(at));
        let inside = format!("{path}/");
        let next = files.get(files.partition_point(|file| file.path < inside));
        let folder = || next.is_some_and(|file| file.path.starts_with(&inside)).then_some(Entry::Folder(path));
        found.map(Entry::File).or_else(folder)
    })
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
    #[error(
        "`{name}` is offered by a node in {country} and does not lie here yet, and this token may start no crossing: \
         alliance pull {name}, or a token with `--scope read,pull`"
    )]
    NotHere { name: String, country: Country },
    #[error("{}", .0.line)]
    Denied(Box<Denied>),
    #[error("several nodes offer `{name}`; pull one by its id: alliance pull {}", .offers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))]
    Ambiguous { name: String, offers: Vec<StatementId> },
    #[error("nothing of `{name}` has come from {country} yet; try again")]
    NotBegun { name: String, country: Country },
    #[error("`{name}` does not come from {country} now: {problem}")]
    NotArrived { name: String, country: Country, problem: String },
    #[error("`{name}` cannot be taken: {problem}")]
    NotTaken { name: String, problem: String },
    #[error("{0}")]
    Request(String),
    #[error("`{0}` cannot be read as it was imported; its operator can tell why: alliance model verify")]
    Damaged(String),
    #[error("the node has more to do than it can; try again")]
    Busy,
    #[error("the node could not answer; its log says why")]
    Internal,
    #[error("the body of the request is too long, or names too many paths")]
    TooLong,
    #[error("this gateway has no such call")]
    Call,
    #[error("the token has no scope `{}`: alliance token create NAME --scope read,{}", .0.as_str(), .0.as_str())]
    Scope(Scope),
    #[error("`{0}` has no labels yet, so that nobody reads it: alliance label {0} --labels LABELS")]
    Unlabelled(String),
    #[error("this node is accredited for `{own}` and can name and offer only `{own}/...`, not `{organisation}/...`")]
    Foreign { organisation: String, own: String },
    #[error("{0}")]
    Rejected(String),
    #[error("somebody else has uploaded in the meantime; look at what is there now, and upload again")]
    Behind,
    #[error("the disk of the node is full; nothing was kept")]
    Full,
    #[error(
        "this gateway takes files by LFS and not by Xet: set HF_HUB_DISABLE_XET=1, as `alliance env` does, and upload again"
    )]
    Xet,
    #[error("this address takes no file, or not any more; upload again")]
    Ticket,
    #[error("more files are announced and not sent than may be at a time; send some of them, or try again later")]
    Announced,
    #[error("another commit to `{0}` is being made; try again")]
    Committing(String),
}

impl Refusal {
    /// Where what failed may work later, clients try again; they must not where it will not.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Repo(_) | Self::Revision { .. } | Self::Entry { .. } | Self::Call => StatusCode::NOT_FOUND,
            Self::NotHere { .. } | Self::Denied(_) | Self::Scope(_) | Self::Unlabelled(_) | Self::Foreign { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::Xet | Self::Ticket => StatusCode::FORBIDDEN,
            Self::Request(_) | Self::Rejected(_) => StatusCode::BAD_REQUEST,
            Self::Behind => StatusCode::PRECONDITION_FAILED,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            // Clients try again what failed inside, and this stays as it is until somebody mends it.
            Self::Damaged(_) | Self::Ambiguous { .. } | Self::NotTaken { .. } => StatusCode::CONFLICT,
            Self::Tokens | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy | Self::NotBegun { .. } | Self::NotArrived { .. } | Self::Announced | Self::Committing(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
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
            // Of those that clients know the one whose reason most of them show.
            Self::Denied(_) => GATED,
            Self::Ambiguous { .. } => "Ambiguous",
            Self::NotTaken { .. } => "NotTaken",
            Self::Request(_) | Self::TooLong | Self::Call => "BadRequest",
            Self::Scope(_) => "Scope",
            Self::Unlabelled(_) => "Unlabelled",
            Self::Foreign { .. } => "Foreign",
            Self::Rejected(_) => "Rejected",
            Self::Behind => "Behind",
            Self::Full => "Full",
            Self::Xet => "Xet",
            Self::Ticket => "Ticket",
            Self::Damaged(_) => "Damaged",
            Self::Announced | Self::Committing(_) => "Busy",
            Self::Tokens | Self::Busy | Self::NotBegun { .. } | Self::NotArrived { .. } | Self::Internal => "Unavailable",
        }
    }

    /// Clients show one warning of each topic.
    pub(super) fn topic(&self) -> String {
        match self {
            Self::Denied(denied) => format!("policy-{}", denied.crossing.short()),
            _ => self.code().to_owned(),
        }
    }

    /// A client remembers that a file is not there only where it is told of which version that is so.
    pub(super) fn commit(&self) -> Option<&str> {
        match self {
            Self::Entry { commit, .. } => Some(commit),
            _ => None,
        }
    }

    /// What programs read of a denial.
    pub(super) fn denied(&self) -> Option<&Denied> {
        match self {
            Self::Denied(denied) => Some(denied),
            _ => None,
        }
    }

    /// What every client shows, whatever it makes of the status: the reason of what is no usual miss.
    pub(super) fn warns(&self) -> bool {
        !matches!(self, Self::Entry { .. } | Self::Revision { .. } | Self::Repo(_) | Self::Busy | Self::Call)
    }
}

#[cfg(test)]
mod tests {
    use alliance_protocol::manifest::{Segment, SegmentKind};

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
        let manifest = manifest();
        let entries = entries(&manifest, folder, recursive).expect("a folder").map(Entry::to_json);
        let text = |entry: &Value, name: &str| entry[name].as_str().expect("text").to_owned();
        entries.map(|entry| (text(&entry, "type"), text(&entry, "path"))).collect()
    }

    #[test]
    fn folders_are_listed_as_deep_as_was_asked() {
        let pair = |kind: &str, path: &str| (kind.to_owned(), path.to_owned());
        let (top, below) = (pair("file", "config.json"), pair("directory", "onnx"));
        assert_eq!(listed("", false), [top.clone(), below.clone()]);
        let all = [top, below, pair("directory", "onnx/a"), pair("file", "onnx/a/model.onnx"), pair("file", "onnx/b.txt")];
        assert_eq!(listed("", true), all);
        assert_eq!(listed("onnx", false), [pair("directory", "onnx/a"), pair("file", "onnx/b.txt")]);
        assert!(entries(&manifest(), "on", true).is_none(), "the beginning of a name is no folder");
        assert!(entries(&manifest(), "config.json", true).is_none());
        let asked = ["onnx/", "config.json", "absent"].map(str::to_owned).into();
        let manifest = manifest();
        let found = paths(&manifest, &asked).map(|entry| entry.to_json()["path"].as_str().expect("text").to_owned());
        assert_eq!(found.collect::<Vec<_>>(), ["config.json", "onnx"]);
    }

    /// As `git hash-object` says of the pointer of an empty file.
    #[test]
    fn files_have_the_id_of_their_pointer_in_git() {
        let empty = Sha256(sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new()).into());
        assert_eq!(pointer_text(empty, 12).len(), 127);
        assert_eq!(pointer(empty, 12), "ac4fe21e338c89b512763b7ec16f42e582703ce5");
    }
}
