//! Signatures over the files of a model on disk: made, and checked against what really lies there.
//!
//! Follows no symbolic link, and refuses what is neither a folder nor a plain file, so that what is hashed is what the folder
//! itself has. What a signature is, and how it is verified, is in [`alliance_protocol::model_signing`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use sha2::Digest as _;

use alliance_protocol::{
    core::admin::SignedBy,
    id::Sha256,
    key::PublicKey,
    manifest::Manifest,
    model_key::{ModelSigningKey, ModelVerifyingKey},
    model_signing::{
        self, BUNDLE_BYTES_MAX, BadModelPath, BundleError, FILES_MAX, ModelFiles, ModelFilesError, ModelPath,
        SIGNATURE_FILE, SignError, VerifyError,
    },
};

use crate::durable::{self, Existing, FileError, Readers};

/// Files and folders that are looked at: as many folders as files, and more of either is no model of ours. Without it a
/// folder full of empty folders would be walked to its end.
const ENTRIES_MAX: usize = 2 * FILES_MAX;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A key with which models may be signed, and whose it is.
#[derive(Clone, Debug)]
pub struct KnownKey {
    pub key: ModelVerifyingKey,
    /// The node to which it is bound; none where the operator gave the key.
    pub node: Option<PublicKey>,
}

/// What was found of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// There is none.
    Unsigned,
    /// It is by a key that is not known here, or of a kind that is not supported, and so it says nothing.
    Unknown(String),
    Good(SignedBy),
}

/// Why a model was not signed, or its signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "`{0}` is hidden: it would be signed and is no part of an artefact, so that nobody who gets that could verify it; move it away"
    )]
    Hidden(String),
    #[error("it has {0} files, and with its signature an artefact may have {FILES_MAX}")]
    TooMany(usize),
    #[error("the name of the folder cannot be signed; give it a plain one")]
    Name,
    #[error("the model was not signed")]
    Sign(#[from] SignError),
    #[error("the signature `{}` changed while the model was read; try again when nothing writes to it", .0.display())]
    Changed(PathBuf),
    #[error("the signature `{}` does not hold", path.display())]
    Bad {
        path: PathBuf,
        #[source]
        source: VerifyError,
    },
}

/// Signs the files in a folder and puts the signature beside them, as `model.sig`; one that is there is replaced.
///
/// # Errors
/// What cannot be signed, or the disk.
pub fn sign(dir: &Path, key: &ModelSigningKey) -> Result<Sha256, SignatureError> {
    let signature = in_folder()?;
    if dir.is_dir() {
        // What a signing that was killed has left would be signed.
        durable::sweep(&dir.join(SIGNATURE_FILE))?;
    }
    // Before anything is hashed: models are large.
    let place = dir.join(SIGNATURE_FILE);
    if place.is_dir() {
        return Err(WalkError::Special(place).into());
    }
    let listed = list(dir, Some(&signature))?;
    if let Some(hidden) = listed.iter().find_map(|(path, _)| hidden_in(path.as_str())) {
        return Err(SignatureError::Hidden(hidden.to_owned()));
    }
    // With the signature beside them they are an artefact.
    if listed.len() >= FILES_MAX {
        return Err(SignatureError::TooMany(listed.len()));
    }
    let files = hashed(listed)?;
    let whole = dir.canonicalize().map_err(at(dir))?;
    let name = whole.file_name().and_then(|name| name.to_str()).ok_or(SignatureError::Name)?;
    let bundle = model_signing::sign(name, &files, Some(&signature), key)?;
    durable::write(&place, bundle.json.as_bytes(), Readers::All, Existing::Replace)?;
    Ok(bundle.root)
}

/// Checks the signature that is among the files of an artefact, if one is: by the key that it names, of those that are known,
/// against the hashes in the manifest, which are of the bytes that were read when it was made or compared. `dir` is where the
/// files lie.
///
/// # Errors
/// A known key is named, and did not sign these files; or the signature is not the one in the manifest.
pub fn check(dir: &Path, manifest: &Manifest, known: &[KnownKey]) -> Result<Checked, SignatureError> {
    let Some(listed) = manifest.files().iter().find(|file| file.path == SIGNATURE_FILE) else {
        return Ok(Checked::Unsigned);
    };
    let path = dir.join(SIGNATURE_FILE);
    let bundle = durable::read(&path, BUNDLE_BYTES_MAX)?;
    if Sha256(sha2::Sha256::digest(&bundle).into()) != listed.sha256 {
        return Err(SignatureError::Changed(path));
    }
    let hint = match model_signing::hint(&bundle) {
        Ok(hint) => hint,
        Err(error @ (BundleError::Certificate | BundleError::NoKey)) => return Ok(Checked::Unknown(error.to_string())),
        Err(error) => return Err(SignatureError::Bad { path, source: error.into() }),
    };
    // One that is bound to a node says more than one that the operator gave.
    let named = || known.iter().filter(|known| known.key.hint() == hint);
    let Some(found) = named().find(|known| known.node.is_some()).or_else(|| named().next()) else {
        let short: String = hint.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        return Ok(Checked::Unknown(format!(
            "signed with the key {short}, which no node that is known here has named as its own"
        )));
    };
    let files = manifest.files().iter().map(|file| Ok((file.path.parse()?, file.sha256)));
    let files = files.collect::<Result<Vec<_>, BadModelPath>>().map_err(WalkError::from)?;
    let files = ModelFiles::new(files).map_err(WalkError::from)?;
    let signed = match model_signing::verify(&bundle, &found.key, &files, Some(&in_folder()?)) {
        Ok(signed) => signed,
        // Good or not, it is of a kind that is not looked into here.
        Err(VerifyError::Bundle(
            error @ (BundleError::Shards
            | BundleError::Method
            | BundleError::Hash
            | BundleError::Symlinks
            | BundleError::StatementType
            | BundleError::PredicateType),
        )) => return Ok(Checked::Unknown(error.to_string())),
        Err(source) => return Err(SignatureError::Bad { path, source }),
    };
    Ok(Checked::Good(SignedBy { root: signed.root(), key: hint, node: found.node }))
}

/// Where the signature lies in its model.
fn in_folder() -> Result<ModelPath, WalkError> {
    Ok(SIGNATURE_FILE.parse()?)
}

/// Why a folder is not a model that can be signed or verified.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is a symbolic link: put the file itself there", .0.display())]
    Symlink(PathBuf),
    #[error("`{}` is no plain file", .0.display())]
    Special(PathBuf),
    #[error("`{}` is not a folder; a model of a single file has to lie in one", .0.display())]
    NotAFolder(PathBuf),
    #[error("the name `{}` is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    #[error("a file cannot be signed under its name")]
    Path(#[from] BadModelPath),
    #[error("`{}` has more than {ENTRIES_MAX} files and folders in it", .0.display())]
    TooMany(PathBuf),
    #[error("the files in it are no model")]
    Files(#[from] ModelFilesError),
}

/// The path of the first hidden folder or file on the way to this one, if there is one.
fn hidden_in(path: &str) -> Option<&str> {
    let start = if path.starts_with('.') { 0 } else { path.find("/.")?.saturating_add(1) };
    let end = path.get(start..)?.find('/').map_or(path.len(), |length| start.saturating_add(length));
    path.get(..end)
}

/// Hashes files. Reads each to its end, whatever its size.
///
/// # Errors
/// The first one that is no file any more, or cannot be read.
fn hashed(listed: Vec<(ModelPath, PathBuf)>) -> Result<ModelFiles, WalkError> {
    let files = listed.into_iter().map(|(path, place)| Ok((path, hash(&place)?)));
    Ok(ModelFiles::new(files.collect::<Result<Vec<_>, WalkError>>()?)?)
}

/// The files of a model and where they lie, but for those that a signature at `signature` leaves out.
///
/// # Errors
/// The first thing in the folder that is no part of a model, or cannot be listed.
fn list(root: &Path, signature: Option<&ModelPath>) -> Result<Vec<(ModelPath, PathBuf)>, WalkError> {
    let kind = fs::symlink_metadata(root).map_err(at(root))?.file_type();
    if kind.is_symlink() {
        return Err(WalkError::Symlink(root.to_owned()));
    }
    if !kind.is_dir() {
        return Err(WalkError::NotAFolder(root.to_owned()));
    }
    let mut files = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    let mut entries: usize = 0;
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let entry = entry.map_err(at(&folder))?;
            entries = entries.saturating_add(1);
            if entries > ENTRIES_MAX {
                return Err(WalkError::TooMany(root.to_owned()));
            }
            let place = entry.path();
            let kind = entry.file_type().map_err(at(&place))?;
            // Also where the signature would leave it out, as the reference implementation does.
            if kind.is_symlink() {
                return Err(WalkError::Symlink(place));
            }
            let name = entry.file_name().into_string().map_err(|_| WalkError::NotUtf8(place.clone()))?;
            // Bounds the depth as well, since each folder adds to the path.
            let path: ModelPath = format!("{prefix}{name}").parse()?;
            if path.is_left_out(signature) {
                continue;
            }
            if kind.is_dir() {
                folders.push((place, format!("{path}/")));
            } else if kind.is_file() {
                files.push((path, place));
            } else {
                return Err(WalkError::Special(place));
            }
        }
    }
    Ok(files)
}

/// SHA-256 of a file. Opens without following a link and without waiting, whatever has been put there since the folder was listed.
pub(crate) fn hash(path: &Path) -> Result<Sha256, WalkError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(at(path))?;
    if !file.metadata().map_err(at(path))?.is_file() {
        return Err(WalkError::Special(path.to_owned()));
    }
    let (mut hasher, mut chunk) = (sha2::Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Sha256(hasher.finalize().into())),
            Ok(count) => hasher.update(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(at(path)(error)),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> WalkError + '_ {
    move |source| WalkError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn walk(root: &Path, signature: Option<&ModelPath>) -> Result<ModelFiles, WalkError> {
        hashed(list(root, signature)?)
    }

    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        for folder in ["sub/deep", ".git", ".github/a", "sub/.git", "empty"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        for file in ["a", "sub/x", "sub/deep/y", ".git/config", ".github/a/b", ".gitignore", "sub/.git/kept", "model.sig"] {
            fs::write(at(file), file).expect("written");
        }
        fs::write(at("large"), vec![7; 3 * CHUNK_BYTES + 1]).expect("written");
        dir
    }

    #[test]
    fn files_are_found_and_hashed() {
        let (dir, signature) = (model(), "model.sig".parse().expect("a path"));
        let files = walk(dir.path(), Some(&signature)).expect("a model");
        let names: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["a", "large", "sub/.git/kept", "sub/deep/y", "sub/x"]);
        for (path, sha256) in files.iter() {
            let bytes = fs::read(dir.path().join(path.as_str())).expect("there");
            assert_eq!(*sha256, Sha256(sha2::Sha256::digest(bytes).into()), "{path}");
        }
        assert_eq!(walk(dir.path(), None).expect("a model").iter().count(), 6);
    }

    #[test]
    fn links_and_what_is_no_file_are_refused() {
        for (name, target) in
            [("link", "a"), ("sub/link", "/etc/passwd"), ("gone", "absent"), ("folder", "sub"), (".git2", ".")]
        {
            let dir = model();
            symlink(target, dir.path().join(name)).expect("a link");
            let refused = walk(dir.path(), None);
            assert!(matches!(refused, Err(WalkError::Symlink(path)) if path == dir.path().join(name)), "{name}");
        }
        let dir = model();
        fs::remove_file(dir.path().join(".gitignore")).expect("removed");
        symlink("a", dir.path().join(".gitignore")).expect("a link");
        assert!(matches!(walk(dir.path(), None), Err(WalkError::Symlink(_))));

        let dir = model();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        assert!(walk(dir.path(), None).is_err());
        let pipe = dir.path().join("pipe");
        fs::remove_file(&socket).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("run");
        assert!(made.success());
        assert!(matches!(walk(dir.path(), None), Err(WalkError::Special(path)) if path == pipe));

        // Put there after the folder was listed.
        let link = dir.path().join("late");
        symlink("a", &link).expect("a link");
        assert!(matches!(hash(&link), Err(WalkError::Read { .. })));

        let link = dir.path().join("root");
        symlink(dir.path(), &link).expect("a link");
        assert!(matches!(walk(&link, None), Err(WalkError::Symlink(_))));
        assert!(matches!(walk(&dir.path().join("a"), None), Err(WalkError::NotAFolder(_))));
        assert!(matches!(walk(&dir.path().join("absent"), None), Err(WalkError::Read { .. })));
    }

    /// The manifest of a folder, as an import makes it.
    fn manifest(folder: &Path) -> Manifest {
        let request = crate::models::ImportRequest {
            name: "usp/x".to_owned(),
            artefact: alliance_protocol::vocabulary::Artefact::Weights,
            labels: [alliance_protocol::vocabulary::Label::Public].into(),
            labels_of: Vec::new(),
            origin: "BR".parse().expect("assigned"),
            subjects: [].into(),
            provenance: alliance_protocol::offer::Provenance::default(),
            licence: "other".to_owned(),
            crossing: None,
        };
        let manifests = tempfile::tempdir().expect("a folder");
        let model = crate::models::import(folder, request, manifests.path(), &mut |_, _| {}).expect("imported");
        crate::models::load_manifest(manifests.path(), model.manifest).expect("kept")
    }

    #[test]
    fn a_signature_is_made_and_checked() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("mdl");
        fs::create_dir_all(folder.join("sub")).expect("made");
        fs::write(folder.join("config.json"), "{}").expect("written");
        fs::write(folder.join("sub/x"), "weights").expect("written");
        let key = |byte| ModelSigningKey::from_scalar(&[byte; 32]).expect("encoded").expect("a key");
        let node = PublicKey([5; 32]);
        let known = [
            KnownKey { key: key(9).public().clone(), node: None },
            KnownKey { key: key(7).public().clone(), node: None },
            KnownKey { key: key(7).public().clone(), node: Some(node) },
        ];
        let found = |known: &[KnownKey]| check(&folder, &manifest(&folder), known);
        assert_eq!(found(&known).expect("read"), Checked::Unsigned);
        let root = sign(&folder, &key(7)).expect("signed");
        let Checked::Good(good) = found(&known).expect("good") else { panic!("good") };
        assert_eq!((good.root, good.node), (root, Some(node)));
        assert!(matches!(found(&known[..1]).expect("read"), Checked::Unknown(_)));
        assert_eq!(sign(&folder, &key(7)).expect("signed again"), root);

        let whole = manifest(&folder);
        fs::write(folder.join("sub/x"), "weighty").expect("written");
        assert!(matches!(found(&known), Err(SignatureError::Bad { .. })));
        assert!(matches!(found(&known[..1]).expect("read"), Checked::Unknown(_)));
        fs::write(folder.join(SIGNATURE_FILE), "{}").expect("written");
        assert!(matches!(found(&known), Err(SignatureError::Bad { .. })));
        assert!(matches!(check(&folder, &whole, &known), Err(SignatureError::Changed(_))), "it is another one by now");
        // What a signing that was killed left is no part of the model, and any other hidden file would be.
        let left = folder.join(".model.sig.0123456789abcdef.tmp");
        fs::write(&left, "x").expect("written");
        sign(&folder, &key(7)).expect("signed");
        assert!(!left.exists());
        fs::write(folder.join(".hidden"), "x").expect("written");
        assert!(matches!(sign(&folder, &key(7)), Err(SignatureError::Hidden(_))));
    }

    #[test]
    fn what_is_hidden_is_named_from_the_top() {
        for (path, hidden) in [
            (".cache/huggingface/x", Some(".cache")),
            ("sub/.x/y", Some("sub/.x")),
            ("sub/.x", Some("sub/.x")),
            (".x", Some(".x")),
            ("a.b/c.d", None),
        ] {
            assert_eq!(hidden_in(path), hidden, "{path}");
        }
    }

    #[test]
    fn what_would_be_too_many_files_with_its_signature_is_not_signed() {
        let dir = tempfile::tempdir().expect("a folder");
        for number in 0..FILES_MAX {
            fs::write(dir.path().join(number.to_string()), "").expect("written");
        }
        let key = ModelSigningKey::from_scalar(&[7; 32]).expect("encoded").expect("a key");
        assert!(matches!(sign(dir.path(), &key), Err(SignatureError::TooMany(FILES_MAX))));
        fs::remove_file(dir.path().join("0")).expect("removed");
        sign(dir.path(), &key).expect("signed");
        let manifest = manifest(dir.path());
        assert_eq!(manifest.files().len(), FILES_MAX);
        let known = [KnownKey { key: key.public().clone(), node: None }];
        assert!(matches!(check(dir.path(), &manifest, &known), Ok(Checked::Good(_))));
    }

    #[test]
    fn names_that_cannot_be_signed_are_refused() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
        let dir = model();
        fs::write(dir.path().join(OsStr::from_bytes(b"a\xff")), "").expect("written");
        assert!(matches!(walk(dir.path(), None), Err(WalkError::NotUtf8(_))));
        for name in ["a\nb", "a\\b"] {
            let dir = model();
            fs::write(dir.path().join(name), "").expect("written");
            assert!(matches!(walk(dir.path(), None), Err(WalkError::Path(_))), "{name}");
        }
    }

    #[test]
    fn folders_are_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        for number in 0..ENTRIES_MAX {
            fs::create_dir(dir.path().join(number.to_string())).expect("a folder");
        }
        assert!(walk(dir.path(), None).is_ok());
        fs::write(dir.path().join("x"), "").expect("written");
        assert!(matches!(walk(dir.path(), None), Err(WalkError::TooMany(_))));
    }
}
