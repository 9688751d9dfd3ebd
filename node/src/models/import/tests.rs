//! Tests of the import: what becomes of directories, good and bad.

use std::os::unix::fs::FileExt as _;

use alliance_protocol::manifest::SegmentKind;

use super::*;
use crate::models::{pickle::tests::zip, safetensors::SafetensorsError};

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A safetensors file with byte tensors of these lengths.
pub(crate) fn safetensors(lengths: &[usize]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (at, length) in lengths.iter().enumerate() {
        let (from, to) = (data.len(), data.len() + length);
        entries.push(format!(r#""layer.{at}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{from},{to}]}}"#));
        data.extend(noise(*length, at as u64));
    }
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    [(header.len() as u64).to_le_bytes().to_vec(), header.into_bytes(), data].concat()
}

/// A small model with tensors of awkward lengths, files in a directory, and an empty file.
pub(crate) fn model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |path: &str, bytes: &[u8]| fs::write(dir.path().join(path), bytes).expect("written");
    fs::create_dir(dir.path().join("original")).expect("made");
    let group = usize::try_from(limits::GROUP_BYTES).expect("fits");
    write("model.safetensors", &safetensors(&[0, 1, 1024, group, group + 1, 3 * group + 7]));
    write("config.json", b"{\"architectures\": [\"LlamaForCausalLM\"]}");
    write("empty.txt", b"");
    write("original/params.json", b"{}");
    write("original/model.gguf", &[b"GGUF".to_vec(), noise(2 * BUFFER_BYTES + 3, 7)].concat());
    dir
}

pub(crate) fn request() -> ImportRequest {
    ImportRequest {
        name: "usp/amazonia".into(),
        artefact: Artefact::Weights,
        labels: [Label::Public].into(),
        labels_of: Vec::new(),
        origin: "BR".parse().expect("a country"),
        subjects: BTreeSet::new(),
        provenance: Provenance::default(),
        licence: "Apache-2.0".into(),
        crossing: None,
    }
}

fn refused(change: impl FnOnce(&Path)) -> ImportError {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    change(dir.path());
    let error = import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect_err("refused");
    assert_eq!(fs::read_dir(manifests.path()).expect("read").count(), 0, "nothing is left behind");
    error
}

#[test]
fn a_directory_becomes_a_manifest() {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    let kept = manifests.path().join("kept");
    let mut steps = Vec::new();
    let local = import(dir.path(), request(), &kept, &mut |done, total| steps.push((done, total))).expect("imported");
    let manifest = load_manifest(&kept, local.manifest).expect("loaded");
    assert_eq!((local.files, local.tensors, local.bytes), (5, 6, manifest.bytes()));
    assert_eq!(local.path, dir.path().canonicalize().expect("real"));
    assert_eq!(steps.last(), Some(&(local.bytes, local.bytes)));
    assert!(steps.is_sorted());
    for file in manifest.files() {
        let content = fs::read(dir.path().join(&file.path)).expect("read");
        assert_eq!(file.bytes, content.len() as u64);
        assert_eq!(file.sha256.0, <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&content)), "{}", file.path);
        let mut rest = content.as_slice();
        for segment in &file.segments {
            let (part, later) = rest.split_at(usize::try_from(segment.bytes).expect("fits"));
            assert_eq!(segment.hash.0, *blake3::hash(part).as_bytes(), "{}{}", file.path, segment.kind.describe());
            rest = later;
        }
        assert!(rest.is_empty());
    }
    let kinds: Vec<usize> = manifest.files().iter().map(|file| file.segments.len()).collect();
    assert_eq!(kinds, [1, 0, 7, 1, 1]);
    assert_eq!(manifest.files()[4].segments[0].kind, SegmentKind::Opaque);
    // The same directory gives the same manifest, hidden files or not.
    fs::write(dir.path().join(".DS_Store"), b"x").expect("written");
    let again = import(dir.path(), request(), &kept, &mut |_, _| {}).expect("imported");
    assert_eq!(again, local);
    assert_eq!(fs::read_dir(&kept).expect("read").count(), 1);
}

#[test]
fn malformed_weights_are_refused_with_their_name() {
    let error = refused(|dir| {
        let path = dir.join("model.safetensors");
        let bytes = fs::read(&path).expect("read");
        fs::write(&path, &bytes[..bytes.len() - 10]).expect("written");
    });
    assert!(matches!(
        &error,
        ImportError::Format(FormatError::Safetensors { source: SafetensorsError::Truncated { .. }, .. })
    ));
    assert!(error.to_string().starts_with("`model.safetensors` is truncated: header says 1,"), "{error}");
    assert!(error.to_string().ends_with("fetch it again"), "{error}");
}

#[test]
fn pickles_are_refused_by_content() {
    let pickle = b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.".as_slice();
    let archive = zip(&["archive/data.pkl", "archive/data/0"], false);
    let cases: &[(&str, &[u8])] = &[
        ("pytorch_model.bin", &archive),
        ("model.safetensors", &archive),
        ("weights.gguf", &archive),
        ("notes.txt", pickle),
        ("original/x.safetensors", pickle),
    ];
    for (name, bytes) in cases {
        let error = refused(|dir| fs::write(dir.join(name), bytes).expect("written"));
        assert!(matches!(&error, ImportError::Format(FormatError::Pickle { path, .. }) if path == name), "{name}: {error}");
        assert!(error.to_string().contains("convert it to safetensors"), "{error}");
    }
    // What a name suggests does not count.
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    fs::write(dir.path().join("data.pkl"), b"{\"not\": \"a pickle\"}").expect("written");
    assert!(import(dir.path(), request(), manifests.path(), &mut |_, _| {}).is_ok());
}

#[test]
fn a_file_that_changes_is_refused() {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().join("original/model.gguf");
    // Last written long ago: some clocks of file systems do not tell two writes within a few milliseconds apart.
    let old = File::options().write(true).open(&path).expect("opens");
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
    let mut flipped = false;
    let error = import(dir.path(), request(), manifests.path(), &mut |done, _| {
        // Well into the large file, which is the last but one: same length, other bytes.
        if !flipped && done > 2 * limits::GROUP_BYTES + BUFFER_BYTES as u64 {
            flipped = true;
            let file = File::options().write(true).open(&path).expect("opens");
            file.write_all_at(b"?", 100).expect("written");
        }
    });
    assert!(flipped);
    assert!(matches!(&error, Err(ImportError::Changed { path }) if path == "original/model.gguf"), "{error:?}");
}

#[test]
fn a_request_is_checked_before_anything_is_read() {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    let mut read = 0;
    let mut tried = |change: fn(&mut ImportRequest)| {
        let mut request = request();
        change(&mut request);
        import(dir.path(), request, manifests.path(), &mut |_, _| read += 1).expect_err("refused")
    };
    assert!(matches!(tried(|request| request.name = "amazonia".into()), ImportError::Name(_)));
    assert!(matches!(tried(|request| request.labels.clear()), ImportError::Manifest(ManifestError::NoLabel)));
    assert!(matches!(tried(|request| request.licence.clear()), ImportError::Licence));
    assert_eq!(read, 0);
}

#[test]
fn a_kept_manifest_is_checked_when_loaded() {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    let local = import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
    let path = manifest_path(manifests.path(), local.manifest);
    let bytes = fs::read(&path).expect("read");
    let none = ManifestId([0; 32]);
    assert!(matches!(load_manifest(manifests.path(), none), Err(LoadError::Missing(_))));
    fs::write(manifest_path(manifests.path(), none), &bytes).expect("written");
    assert!(matches!(load_manifest(manifests.path(), none), Err(LoadError::Other { .. })));
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    assert!(matches!(load_manifest(manifests.path(), local.manifest), Err(LoadError::Damaged { .. })));
    // A damaged one is replaced.
    import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
    assert_eq!(fs::read(&path).expect("read"), bytes);
}

#[test]
fn verification_names_what_differs() {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    let local = import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
    let manifest = load_manifest(manifests.path(), local.manifest).expect("loaded");
    let mut last = (0, 0);
    let report = verify(dir.path(), &manifest, &mut |done, total| last = (done, total)).expect("read");
    assert!(report.is_intact());
    assert_eq!((report.bytes, report.files_intact), (local.bytes, 5));
    assert_eq!(last, (local.bytes, local.bytes));

    let weights = File::options().write(true).open(dir.path().join("model.safetensors")).expect("opens");
    let length = weights.metadata().expect("read").len();
    let last_byte = noise(3 * usize::try_from(limits::GROUP_BYTES).expect("fits") + 7, 5).pop().expect("bytes");
    weights.write_all_at(&[last_byte ^ 1], length - 1).expect("written");
    fs::write(dir.path().join("config.json"), b"{}").expect("written");
    fs::remove_file(dir.path().join("original/params.json")).expect("removed");
    let report = verify(dir.path(), &manifest, &mut |_, _| {}).expect("read");
    let said: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "`config.json` has 2 bytes instead of 39",
            "`model.safetensors`: tensor `layer.5` has other bytes",
            "`original/params.json` is not there",
        ]
    );
    assert_eq!(report.files_intact, 2);
}

#[test]
fn a_wrong_sha256_is_told_apart_from_damage() {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    let local = import(dir.path(), request(), manifests.path(), &mut |_, _| {}).expect("imported");
    let manifest = load_manifest(manifests.path(), local.manifest).expect("loaded");
    let mut files = manifest.files().to_vec();
    files[0].sha256.0[0] ^= 1;
    let lying = Manifest::new(Artefact::Weights, request().labels, files).expect("a manifest");
    let report = verify(dir.path(), &lying, &mut |_, _| {}).expect("read");
    assert_eq!(report.problems, [VerifyProblem::Sha256 { path: "config.json".into() }]);
}

#[test]
fn a_link_that_is_made_meanwhile_is_no_change() {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    let (file, mut links) = (dir.path().join("original/model.gguf"), 0);
    let mut link = |_: u64, _: u64| {
        links += 1;
        fs::hard_link(&file, manifests.path().join(format!("link-{links}"))).expect("linked");
    };
    import(dir.path(), request(), manifests.path(), &mut link).expect("imported");
    assert!(links > 3, "while it was read too");
}
