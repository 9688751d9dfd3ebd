//! Tests of patterns: what they fit, and that what they take of a directory is a directory that imports as what was said.

use std::{fs, io::Write as _, path::Path};

use alliance_protocol::{
    id::Sha256,
    manifest::{Content, Dtype, Manifest, Segment, SegmentKind, Selection, SelectionError},
};
use sha2::Digest as _;

use super::*;
use crate::models::{
    import::{
        self,
        tests::{model, request, safetensors},
    },
    load_manifest,
};

fn pattern(text: &str) -> TensorPattern {
    text.parse().expect("good")
}

#[test]
fn patterns_fit_tensors_and_files_without_any() {
    // Pattern, path, tensor (or none), whether it fits.
    let table: &[(&str, &str, Option<&str>, bool)] = &[
        ("*", "a.safetensors", Some("model.layers.0.w"), true),
        ("*", "original/params.json", None, true),
        ("model.layers.?.*", "a", Some("model.layers.7.w"), true),
        ("model.layers.?.*", "a", Some("model.layers.17.w"), false),
        ("layers.{0,1[0-9]}.w", "a", Some("layers.12.w"), true),
        ("layers.{0,1[0-9]}.w", "a", Some("layers.2.w"), false),
        ("W", "a", Some("w"), false),
        ("*.json", "config.json", None, true),
        ("a", "a", Some("w"), false),
        // The second half is about tensors, of the files that the first half fits.
        ("adapter*::*", "adapter.safetensors", Some("w"), true),
        ("adapter*::*", "model.safetensors", Some("w"), false),
        ("adapter*::*", "adapter.json", None, false),
        ("a::b::c", "a", Some("b::c"), true),
    ];
    for (text, path, tensor, expected) in table {
        let matcher = pattern(text).matcher();
        let fits = tensor.map_or_else(|| matcher.fits_file(path), |name| matcher.fits_tensor(path, name));
        assert_eq!(fits, *expected, "{text} {path} {tensor:?}");
    }
}

#[test]
fn what_is_no_pattern_is_refused() {
    for text in ["", &"a".repeat(PATTERN_BYTES_MAX + 1)] {
        assert!(matches!(text.parse::<TensorPattern>(), Err(BadPattern::Length(shown)) if shown.len() <= 128));
    }
    for text in ["a[", "a{b", "x[::*", "*::x["] {
        let error = text.parse::<TensorPattern>().expect_err("unusable");
        assert!(error.to_string().contains(&format!("`{text}` cannot be used: ")), "{error}");
    }
    assert_eq!(pattern("a=b").as_str(), "a=b");
}

/// Writes the part of a directory that a selection takes, as an importer does, and returns its manifest.
fn write_part(selection: &Selection, from: &Path, to: &Path) -> Manifest {
    let mut written: Vec<Vec<u8>> = Vec::new();
    for file in selection.files() {
        let mut bytes = match file.content {
            Content::Whole => Vec::new(),
            Content::Rewritten { header } => header.to_vec(),
        };
        bytes.resize(usize::try_from(file.bytes).expect("fits"), 0xee);
        written.push(bytes);
    }
    let whole = selection.whole();
    for extent in selection.whole().extents_in(selection.runs().to_vec()) {
        let place = selection.place(&extent).expect("taken");
        let content = fs::read(from.join(&whole.files()[extent.file as usize].path)).expect("read");
        let start = usize::try_from(extent.offset).expect("fits");
        let bytes = &content[start..start + extent.bytes as usize];
        whole.verify_extent(&extent, bytes).expect("true");
        let start = usize::try_from(place.offset).expect("fits");
        written[place.file as usize][start..start + bytes.len()].copy_from_slice(bytes);
    }
    let mut rewritten = Vec::new();
    for (file, bytes) in selection.files().zip(&written) {
        let path = to.join(file.path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("written");
        if file.content != Content::Whole {
            rewritten.push(Sha256(sha2::Sha256::digest(bytes).into()));
        }
    }
    selection.manifest(&rewritten).expect("a manifest")
}

#[test]
fn what_is_taken_imports_as_what_was_said() {
    let (dir, manifests) = (model(), tempfile::tempdir().expect("a directory"));
    fs::write(dir.path().join("adapter.safetensors"), safetensors(&[0, 10, 2000, 70_000])).expect("written");
    fs::write(dir.path().join("bare.safetensors"), safetensors(&[])).expect("written");
    let labels_of: Vec<_> = ["adapter*::layer.[12]=health", "layer.4=health"].map(|of| of.parse().expect("good")).into();
    let import = |dir: &Path, labels_of: &[_]| {
        let request = import::ImportRequest { labels_of: labels_of.to_vec(), ..request() };
        let local = import::import(dir, request, manifests.path(), &mut |_, _| {}).expect("imported");
        load_manifest(manifests.path(), local.manifest).expect("loaded")
    };
    let whole = import(dir.path(), &labels_of);
    // Patterns, how many files and tensors they take, and whether all of the labels above are still needed.
    let table: &[(&[&str], usize, u32, &[_])] = &[
        (&["*"], 7, 10, &labels_of),
        (&["layer.[135]"], 2, 5, &labels_of[..1]),
        (&["layer.[0145]", "config.json", "empty.txt"], 4, 6, &labels_of),
        (&["model*::layer.[0-4]", "original/*"], 3, 5, &labels_of[1..]),
        (&["layer.0", "bare.*"], 3, 2, &[]),
        (&["adapter*::*"], 1, 4, &labels_of[..1]),
    ];
    for (texts, files, tensors, labels_of) in table {
        let patterns: Vec<TensorPattern> = texts.iter().map(|text| pattern(text)).collect();
        let mut taking = Taking::new(&patterns);
        let selection = Selection::new(&whole, |_| true, |candidate| taking.takes(candidate)).expect("a selection");
        assert_eq!(taking.unused(), None);
        let part = tempfile::tempdir().expect("a directory");
        let said = write_part(&selection, dir.path(), part.path());
        assert_eq!((said.files().len(), said.tensors()), (*files, *tensors), "{texts:?}");
        assert_eq!(import(part.path(), labels_of), said, "{texts:?}");
    }
}

#[test]
fn a_pattern_that_takes_nothing_is_named() {
    let tensor = SegmentKind::Tensor { name: "w".into(), dtype: Dtype::U8, shape: vec![1] };
    let segments = vec![Segment::of(SegmentKind::Header, &[0; 16]), Segment::of(tensor, &[1])];
    let file = alliance_protocol::manifest::File { path: "x".into(), bytes: 17, sha256: Sha256([0; 32]), segments };
    let whole = Manifest::new(request().artefact, request().labels, vec![file]).expect("a manifest");
    let patterns = ["w", "nothing", "x"].map(pattern);
    let mut taking = Taking::new(&patterns);
    assert!(Selection::new(&whole, |_| true, |candidate| taking.takes(candidate)).is_ok());
    assert_eq!(taking.unused(), Some(&patterns[1]));
    let mut taking = Taking::new(&patterns[1..]);
    let error = Selection::new(&whole, |_| true, |candidate| taking.takes(candidate)).expect_err("nothing");
    assert_eq!(error, SelectionError::Nothing { left_out: 0 });
}
