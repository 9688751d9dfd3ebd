//! Tests of selections: partial artefacts, put together from the bytes of the whole, are what their manifests say.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sha2::Digest as _;

use super::*;
use crate::{
    limits::GROUP_BYTES,
    manifest::{
        Dtype,
        tests::{made, opaque, tensors},
    },
    vocabulary::Artefact,
};

fn labels(list: &[Label]) -> BTreeSet<Label> {
    list.iter().copied().collect()
}

/// An artefact and the bytes of its files, by path.
fn whole(files: Vec<(File, Vec<u8>)>) -> (Manifest, BTreeMap<String, Vec<u8>>) {
    let contents = files.iter().map(|(file, bytes)| (file.path.clone(), bytes.clone())).collect();
    (made(files.into_iter().map(|(file, _)| file).collect()).expect("a manifest"), contents)
}

fn alone(path: &str, bytes: &[u8]) -> (File, Vec<u8>) {
    (opaque(path, bytes), bytes.to_vec())
}

/// Takes the tensors with these names, and the files with these paths that have none.
fn named<'a>(names: &'a [&str]) -> impl Fn(Candidate<'_>) -> bool + 'a {
    |candidate| match candidate {
        Candidate::Tensor { name, .. } => names.contains(&name),
        Candidate::File(file) => names.contains(&file.path.as_str()),
    }
}

/// What is fetched, and where it comes to lie.
fn extents(selection: &Selection) -> impl Iterator<Item = (Extent, Place)> {
    let extents = selection.whole().extents_in(selection.runs().to_vec());
    extents.map(|extent| (extent, selection.place(&extent).expect("taken")))
}

/// The files of the partial artefact as an importer makes them: headers, and verified extents in their places.
fn fetch(selection: &Selection, contents: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let (mut missing, mut fetched) = (0, 0);
    for file in selection.files() {
        let mut bytes = vec![0xee; size(file.bytes)];
        if let Content::Rewritten { header } = file.content {
            bytes[..header.len()].copy_from_slice(header);
            missing += header.len() as u64;
        }
        files.push((file.path.into(), bytes));
    }
    for (extent, place) in extents(selection) {
        let content = &contents[&selection.whole().files()[extent.file as usize].path];
        let (from, to) = (size(extent.offset), size(place.offset));
        let bytes = &content[from..from + extent.bytes as usize];
        assert_eq!(selection.whole().verify_extent(&extent, bytes), Ok(()));
        let (path, file) = &mut files[place.file as usize];
        assert_eq!(*path, selection.whole().files()[extent.file as usize].path);
        file[to..to + bytes.len()].copy_from_slice(bytes);
        fetched += bytes.len() as u64;
    }
    assert_eq!(fetched, selection.fetched_bytes());
    assert_eq!(fetched + missing, selection.bytes());
    files.into_iter().collect()
}

/// The manifest of the partial artefact, after everything in it was compared with the bytes.
fn checked(selection: &Selection, files: &BTreeMap<String, Vec<u8>>) -> Manifest {
    let sha256 = |path: &str| Sha256(sha2::Sha256::digest(&files[path]).into());
    let rewritten = selection.files().filter(|file| file.content != Content::Whole).map(|file| sha256(file.path));
    let manifest = selection.manifest(&rewritten.collect::<Vec<_>>()).expect("a manifest");
    assert!(manifest.files().iter().map(|file| &file.path).eq(files.keys()));
    for group in manifest.groups() {
        let start = size(group.offset);
        let bytes = &files[&manifest.files()[group.file as usize].path][start..start + group.bytes as usize];
        assert!(manifest.verify_group(&group, bytes), "{}", manifest.describe_group(&group));
    }
    for (file, made) in manifest.files().iter().zip(selection.files()) {
        assert_eq!((file.path.as_str(), file.bytes), (made.path, made.bytes));
        if let Content::Rewritten { header } = made.content {
            assert_eq!(file.sha256, sha256(&file.path));
            assert_eq!(file.bytes, files[&file.path].len() as u64);
            assert_eq!(told(header), stated(file), "the header says what the manifest says");
        }
    }
    assert_eq!((manifest.bytes(), manifest.parts()), (selection.bytes(), selection.parts()));
    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
    manifest
}

/// The tensors of a header, by name: type, shape and range.
type Told = BTreeMap<String, (String, Vec<u64>, [u64; 2])>;

fn told(header: &[u8]) -> Told {
    let read: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&header[8..]).expect("JSON");
    let entry = |value: &serde_json::Value| {
        let field = |name: &str| value[name].clone();
        let dtype = field("dtype").as_str().expect("text").to_owned();
        let (shape, range) = (serde_json::from_value(field("shape")), serde_json::from_value(field("data_offsets")));
        (dtype, shape.expect("numbers"), range.expect("two numbers"))
    };
    read.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, value)| (name.clone(), entry(value))).collect()
}

fn stated(file: &File) -> Told {
    let mut offset = 0;
    let entries = file.segments.iter().filter_map(|segment| match &segment.kind {
        SegmentKind::Tensor { name, dtype, shape } => {
            let from = offset;
            offset += segment.bytes;
            Some((name.clone(), (dtype.as_str().to_owned(), shape.clone(), [from, offset])))
        }
        SegmentKind::Header | SegmentKind::Opaque => None,
    });
    entries.collect()
}

/// The bytes of each tensor, by file and name.
fn tensor_bytes(manifest: &Manifest, files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<(String, String), Vec<u8>> {
    let mut found = BTreeMap::new();
    for file in manifest.files() {
        let mut rest = files[&file.path].as_slice();
        for segment in &file.segments {
            let (own, after) = rest.split_at(size(segment.bytes));
            if let SegmentKind::Tensor { name, .. } = &segment.kind {
                found.insert((file.path.clone(), name.clone()), own.to_vec());
            }
            rest = after;
        }
    }
    found
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("fits")
}

fn group() -> usize {
    size(GROUP_BYTES)
}

#[test]
fn some_tensors_and_files_are_taken() {
    let sizes = [5, 0, 2 * group() + 1, 3, 4, group()];
    let (whole, contents) = whole(vec![
        alone("config.json", b"{}"),
        tensors("a.safetensors", &sizes),
        tensors("b.safetensors", &[7, 8]),
        alone("README.md", b"read me"),
        alone("empty", b""),
        alone("other", b""),
    ]);
    // Groups: README.md 0; a: header 1, t0 2, t2 3..6, t3 6, t4 7, t5 8; b: header 9, t0 10, t1 11; config.json 12.
    let selection =
        Selection::new(&whole, |_| true, named(&["t1", "t2", "t3", "config.json", "empty"])).expect("a selection");
    assert_eq!(selection.runs(), [(3, 7), (11, 13)]);
    assert_eq!(selection.fetched_bytes(), 2 * GROUP_BYTES + 1 + 3 + 8 + 2);
    let files = fetch(&selection, &contents);
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["a.safetensors", "b.safetensors", "config.json", "empty"].iter().collect::<Vec<_>>()
    );
    let manifest = checked(&selection, &files);
    assert_eq!(manifest.tensors(), 4);
    let (taken, all) = (tensor_bytes(&manifest, &files), tensor_bytes(&whole, &contents));
    assert!(taken.iter().all(|(name, bytes)| all[name] == *bytes));
    let header = &files["a.safetensors"];
    let text = String::from_utf8_lossy(&header[8..header.len().min(400)]).into_owned();
    assert!(!text.contains("t0") && !text.contains("t5"), "nothing is told of what is not taken: {text}");
}

#[test]
fn the_signature_over_the_whole_is_no_part_of_a_part() {
    let files = [("config.json", b"{}"), ("model.sig", b"xx"), ("sub/model.sig", b"yy"), ("tokenizer.json", b"zz")];
    let (whole, contents) = whole(files.map(|(path, bytes)| alone(path, bytes)).into());
    let selection = Selection::new(&whole, |_| true, |_| true).expect("some");
    // What comes behind it lies where it lay.
    let fetched = fetch(&selection, &contents);
    assert_eq!((&fetched["sub/model.sig"], &fetched["tokenizer.json"]), (&b"yy".to_vec(), &b"zz".to_vec()));
    checked(&selection, &fetched);
    assert_eq!(
        selection.files().map(|file| file.path).collect::<Vec<_>>(),
        ["config.json", "sub/model.sig", "tokenizer.json"]
    );
    let none = Selection::new(&whole, |_| true, named(&["model.sig"]));
    assert!(matches!(none, Err(SelectionError::Nothing { left_out: 0 })));
}

#[test]
fn what_is_taken_entirely_stays_as_it_is() {
    let (whole, _) = whole(vec![
        tensors("a.safetensors", &[5, 0, 6]),
        tensors("b.safetensors", &[7, 8]),
        tensors("bare.safetensors", &[]),
        alone("empty", b""),
    ]);
    let everything = Selection::new(&whole, |_| true, |_| true).expect("a selection");
    assert!(everything.files().all(|file| file.content == Content::Whole));
    assert_eq!(everything.runs(), [(0, whole.group_count())]);
    assert_eq!(everything.manifest(&[]), Ok(whole.clone()));
    // One file as it is, with its header; and a header alone is a file without tensors.
    let one = Selection::new(&whole, |_| true, named(&["t0", "t1", "bare.safetensors"])).expect("a selection");
    let contents: Vec<(&str, bool)> = one.files().map(|file| (file.path, file.content == Content::Whole)).collect();
    assert_eq!(contents, [("a.safetensors", false), ("b.safetensors", true), ("bare.safetensors", true)]);
    assert_eq!(one.runs(), [(1, 2), (3, 7)]);
}

#[test]
fn what_cannot_be_taken_is_refused() {
    let (large, _) = whole(vec![tensors("a.safetensors", &[5, 6]), alone("empty", b"")]);
    assert_eq!(Selection::new(&large, |_| true, |_| false).expect_err("nothing"), SelectionError::Nothing { left_out: 0 });
    let renamed = |name: &str, at: usize| {
        let (mut file, bytes) = tensors("x", &[5, 6, 7]);
        file.segments[at].kind = SegmentKind::Tensor { name: name.into(), dtype: Dtype::U8, shape: vec![at as u64 + 4] };
        whole(vec![(file, bytes)]).0
    };
    let reserved = SelectionError::ReservedName { path: "x".into() };
    assert_eq!(
        Selection::new(&renamed("__metadata__", 2), |_| true, named(&["t0", "__metadata__"])).expect_err("no"),
        reserved
    );
    assert!(Selection::new(&renamed("__metadata__", 2), |_| true, named(&["t0"])).is_ok());
    let some = Selection::new(&large, |_| true, named(&["t0"])).expect("a selection");
    for given in [0, 2] {
        let error = some.manifest(&vec![Sha256([1; 32]); given]).expect_err("a wrong number");
        assert_eq!(error, SelectionError::Digests { files: 1, given });
    }
    // A maker can give a file a header too short for what it says of its tensors.
    let (mut file, _) = tensors("x", &[0]);
    let empty = file.segments[1].clone();
    let segments = (0..60_000).map(|at| {
        let kind = SegmentKind::Tensor { name: format!("{at:0>500}"), dtype: Dtype::U8, shape: vec![0] };
        Segment { kind, ..empty.clone() }
    });
    file.segments.splice(1.., segments);
    let error = Selection::new(
        &made(vec![file]).expect("a manifest"),
        |_| true,
        |candidate| match candidate {
            Candidate::Tensor { name, .. } => !name.ends_with("00000"),
            Candidate::File(_) => false,
        },
    );
    assert!(matches!(error, Err(SelectionError::HeaderTooLarge { path, .. }) if path == "x"));
}

#[test]
fn what_is_not_admitted_is_left_out_and_counted() {
    let (mut file, bytes) = tensors("a", &[3, 4, 5]);
    for (at, own) in [(0, [Label::Public, Label::Health].as_slice()), (2, &[Label::Health])] {
        file.segments[at].labels = Some(labels(own));
    }
    let (whole, contents) = whole(vec![(file, bytes), alone("z", b"end")]);
    let admits = |refused: &'static [Label]| move |own: &BTreeSet<Label>| *own != labels(refused);
    let taken = |refused: &'static [Label], wanted: &[&str]| {
        let selection = Selection::new(&whole, admits(refused), named(wanted)).expect("a selection");
        let files = fetch(&selection, &contents);
        let names: Vec<String> =
            tensor_bytes(&checked(&selection, &files), &files).into_keys().map(|(_, name)| name).collect();
        let rewritten = selection.files().any(|file| file.content != Content::Whole);
        (names.join(" "), selection.left_out(), rewritten)
    };
    let all = ["t0", "t1", "t2", "z"];
    assert_eq!(taken(&[Label::Health], &all), ("t0 t2".to_owned(), 1, true));
    assert_eq!(taken(&[Label::Health], &["t0", "z"]), ("t0".to_owned(), 0, true));
    // A header that tells of what it may not: another is written.
    assert_eq!(taken(&[Label::Public, Label::Health], &all), ("t0 t1 t2".to_owned(), 0, true));
    assert_eq!(taken(&[Label::Synthetic], &all), ("t0 t1 t2".to_owned(), 0, false));
    let nothing = Selection::new(&whole, admits(&[Label::Health]), named(&["t1"])).expect_err("nothing");
    assert_eq!(nothing, SelectionError::Nothing { left_out: 1 });
    assert_eq!(nothing.to_string(), "all that fits, 1 tensors or files, may not cross");
    // One that takes the same is the same.
    let id = |refused: &'static [Label], wanted: &[&str]| {
        Selection::new(&whole, admits(refused), named(wanted)).expect("a selection").id()
    };
    assert_eq!(id(&[Label::Health], &all), id(&[Label::Synthetic], &["t0", "t2", "z"]));
    assert_ne!(id(&[Label::Health], &all), id(&[Label::Synthetic], &all));
    assert_ne!(id(&[Label::Health], &all), whole.id());
}

#[test]
fn labels_are_those_of_what_is_taken() {
    let (open, closed, both) =
        (labels(&[Label::Public]), labels(&[Label::Health]), labels(&[Label::Public, Label::Health]));
    let synthetic = labels(&[Label::Synthetic]);
    let (mut file, _) = tensors("a", &[3, 4, 5, 6]);
    for (at, own) in [(0, &both), (2, &closed), (3, &closed), (4, &synthetic)] {
        file.segments[at].labels = Some(own.clone());
    }
    let (whole, _) = whole(vec![(file, Vec::new()), alone("empty", b""), alone("z.json", b"{}")]);
    let taken = |names: &[&str]| {
        let selection = Selection::new(&whole, |_| true, named(names)).expect("a selection");
        let manifest = selection.manifest(&vec![Sha256([1; 32]); selection.headers.len()]).expect("a manifest");
        let of = |segment: &Segment| segment.labels.clone();
        let segments = manifest.files().iter().flat_map(|file| &file.segments).map(of).collect::<Vec<_>>();
        (manifest.own_labels().clone(), manifest.labels(), segments)
    };
    // The artefact's own, where something that is taken has them.
    assert_eq!(taken(&["t0"]), (open.clone(), open.clone(), vec![None, None]));
    let header = Some(both.clone());
    assert_eq!(taken(&["t0", "t1"]), (open.clone(), both, vec![header, None, Some(closed.clone())]));
    // Otherwise the union, written once.
    assert_eq!(taken(&["t1", "t2"]), (closed.clone(), closed.clone(), vec![None, None, None]));
    let union = labels(&[Label::Health, Label::Synthetic]);
    let segments = vec![None, Some(closed.clone()), Some(synthetic.clone())];
    assert_eq!(taken(&["t1", "t3"]), (union.clone(), union, segments));
    // An empty file has a name.
    let union = labels(&[Label::Public, Label::Health]);
    assert_eq!(taken(&["t1", "empty"]), (open.clone(), union, vec![Some(closed.clone()), Some(closed)]));
    assert_eq!(taken(&["z.json"]), (open.clone(), open, vec![None]));
}

#[test]
fn more_sets_of_labels_than_allowed_are_refused_at_once() {
    // Each header has the union of its tensors: sets that the whole, with one header for all, does not have.
    let (mut files, names) = (Vec::new(), ["t0", "t1"]);
    for at in 0..limits::PARTS_PER_ARTEFACT_MAX {
        let (mut file, bytes) = tensors(&format!("{at:02}"), &[1, 1, 1]);
        let of = |bits: usize| {
            let chosen = Label::ALL.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
            chosen.map(|(_, label)| *label).collect()
        };
        file.segments[1].labels = Some(of(1 << (at % 4)));
        file.segments[2].labels = Some(of(1 << (4 + at / 4)));
        files.push((file, bytes));
    }
    let (whole, _) = whole(files);
    assert!(whole.parts().len() < limits::PARTS_PER_ARTEFACT_MAX);
    let error = Selection::new(&whole, |_| true, named(&names)).expect_err("too many");
    assert_eq!(error, SelectionError::Manifest(ManifestError::TooManyParts));
}

#[test]
fn tensors_without_elements_need_no_bytes() {
    let (whole, contents) = whole(vec![tensors("a", &[0, 5, 0, 0, 6, 0]), alone("empty", b"")]);
    let none = Selection::new(&whole, |_| true, named(&["t0", "t2", "t5", "empty"])).expect("a selection");
    assert_eq!((none.runs().len(), none.fetched_bytes()), (0, 0));
    let files = fetch(&none, &contents);
    let manifest = checked(&none, &files);
    assert_eq!((manifest.tensors(), manifest.group_count()), (3, 1));
    // They part nothing: what lies on both sides of one crosses together, taken or not.
    for names in [&["t1", "t4"][..], &["t1", "t3", "t4"]] {
        let selection = Selection::new(&whole, |_| true, named(names)).expect("a selection");
        let places: Vec<(u64, u64, u64)> =
            extents(&selection).map(|(extent, place)| (extent.first, extent.end, place.offset)).collect();
        let header = selection.bytes() - 11;
        assert_eq!(places, [(1, 3, header)]);
        checked(&selection, &fetch(&selection, &contents));
    }
}

#[test]
fn tensors_in_the_order_of_the_library_stay_aligned() {
    let kinds = [(Dtype::F64, 3), (Dtype::I64, 1), (Dtype::F32, 3), (Dtype::BF16, 5), (Dtype::F16, 1), (Dtype::U8, 3)];
    let mut segments = vec![Segment::of(SegmentKind::Header, b"header")];
    segments.extend(kinds.iter().zip('a'..).map(|((dtype, elements), name)| {
        let kind = SegmentKind::Tensor { name: name.into(), dtype: *dtype, shape: vec![*elements] };
        Segment::of(kind, &vec![1; size(elements * dtype.bits() / 8)])
    }));
    let bytes = segments.iter().map(|segment| segment.bytes).sum();
    let whole = made(vec![File { path: "x".into(), bytes, sha256: Sha256([0; 32]), segments }]).expect("a manifest");
    for chosen in 1..(1_u32 << kinds.len()) - 1 {
        let mut bit = 0;
        let selection = Selection::new(
            &whole,
            |_| true,
            |_| {
                bit += 1;
                chosen >> (bit - 1) & 1 == 1
            },
        );
        let mut offset = 0;
        for segment in &selection.expect("a selection").draft.files()[0].segments {
            let element = match segment.kind {
                SegmentKind::Tensor { dtype, .. } => dtype.bits() / 8,
                SegmentKind::Header | SegmentKind::Opaque => 1,
            };
            assert_eq!(offset % element, 0, "{chosen:b}: {segment:?}");
            offset += segment.bytes;
        }
    }
}

#[test]
fn only_extents_of_what_is_taken_have_a_place() {
    let (whole, _) = whole(vec![tensors("a", &[3, 4, 5, 6, 7]), alone("z", b"end")]);
    let selection = Selection::new(&whole, |_| true, named(&["t1", "t2", "t4", "z"])).expect("a selection");
    let header = selection.files().next().expect("a file").bytes - 4 - 5 - 7;
    let at = |first: u64, end: u64| {
        let first_group = whole.group(first).expect("a group");
        let bytes = (first..end).map(|index| whole.group(index).expect("a group").bytes).sum();
        Extent { first, end, file: first_group.file, offset: first_group.offset, bytes }
    };
    let place = |file: u32, offset: u64| Some(Place { file, offset });
    let table = [
        (at(2, 3), place(0, header)),
        (at(2, 4), place(0, header)),
        (at(3, 4), place(0, header + 4)),
        (at(5, 6), place(0, header + 9)),
        (at(6, 7), place(1, 0)),
        // A header that is written anew, tensors that are not taken, holes, and more than one file.
        (at(0, 1), None),
        (at(1, 2), None),
        (at(1, 3), None),
        (at(3, 5), None),
        (at(3, 6), None),
        (at(5, 7), None),
        // Nothing of this artefact.
        (Extent { end: 2, ..at(2, 3) }, None),
        (Extent { end: 0, ..at(2, 3) }, None),
        (Extent { end: u64::MAX, ..at(2, 3) }, None),
        (Extent { first: 7, end: 8, ..at(6, 7) }, None),
        (Extent { first: u64::MAX, end: u64::MAX, ..at(6, 7) }, None),
        (Extent { file: 1, ..at(2, 3) }, None),
        (Extent { offset: 0, ..at(2, 3) }, None),
        (Extent { bytes: 5, ..at(2, 3) }, None),
    ];
    for (extent, expected) in table {
        assert_eq!(selection.place(&extent), expected, "{extent:?}");
    }
}

#[test]
fn a_hundred_thousand_tensors_are_taken() {
    // Every other one, so that nothing lies beside another: as many runs as there can be.
    let content = vec![7_u8; group() + 1];
    let one = Segment::of(SegmentKind::Opaque, &content);
    let segments = (0..100_000).map(|at| {
        let name = format!("model.language_model.layers.{at:05}.self_attn.q_proj.weight");
        let kind = SegmentKind::Tensor { name, dtype: Dtype::U8, shape: vec![one.bytes] };
        Segment { kind, ..one.clone() }
    });
    let segments: Vec<Segment> = iter::once(Segment::of(SegmentKind::Header, b"h")).chain(segments).collect();
    let bytes = segments.iter().map(|segment| segment.bytes).sum();
    let whole = made(vec![File { path: "x".into(), bytes, sha256: Sha256([0; 32]), segments }]).expect("a manifest");
    let mut asked = 0_u64;
    let selection = Selection::new(
        &whole,
        |_| true,
        |_| {
            asked += 1;
            asked % 2 == 1
        },
    );
    let selection = selection.expect("a selection");
    assert_eq!((asked, selection.runs().len()), (100_000, 50_000));
    assert_eq!(selection.fetched_bytes(), 50_000 * one.bytes);
    let mut next = selection.bytes() - selection.fetched_bytes();
    for (extent, place) in extents(&selection) {
        assert_eq!(place, Place { file: 0, offset: next });
        next += u64::from(extent.bytes);
    }
    assert_eq!(next, selection.bytes());
    assert_eq!(selection.manifest(&[Sha256([1; 32])]).expect("a manifest").tensors(), 50_000);
}

/// A file: whether it has tensors, and of which lengths, or else how long it is.
fn any_files() -> impl Strategy<Value = Vec<Result<Vec<usize>, usize>>> {
    let length = prop_oneof![3 => 0_usize..3, 5 => 1_usize..2000, 1 => group() - 1..group() + 2, 1 => 1_usize..600_000];
    let tensors = prop::collection::vec(length, 0..9).prop_map(Ok);
    prop::collection::vec(prop_oneof![3 => tensors, 1 => (0_usize..2000).prop_map(Err)], 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_part_is_an_artefact_by_itself(
        files in any_files(), kept in prop::collection::vec(any::<bool>(), 64),
        sets in prop::collection::vec(0_usize..4, 64),
    ) {
        let with_labels = |(mut file, bytes): (File, Vec<u8>), at: usize| {
            for (segment, set) in file.segments.iter_mut().zip(sets.iter().cycle().skip(at)) {
                let own = [None, Some(Label::Health), Some(Label::Synthetic), Some(Label::Dp)][*set];
                segment.labels = own.map(|label| labels(&[label]));
            }
            (file, bytes)
        };
        let named = files.iter().enumerate().map(|(at, file)| match file {
            Ok(lengths) => with_labels(tensors(&format!("{at}.safetensors"), lengths), at),
            Err(bytes) => alone(&format!("{at}"), &vec![7; *bytes]),
        });
        let (whole, contents) = whole(named.collect());
        let mut answers = kept.iter().copied();
        let mut wanted = Vec::new();
        let selection = Selection::new(&whole, |_| true, |candidate| {
            let keep = answers.next().expect("not asked more than once");
            if keep {
                wanted.push(match candidate {
                    Candidate::Tensor { file, name, .. } => (file.path.clone(), name.to_owned()),
                    Candidate::File(file) => (file.path.clone(), String::new()),
                });
            }
            keep
        });
        if wanted.is_empty() {
            prop_assert_eq!(selection.expect_err("nothing"), SelectionError::Nothing { left_out: 0 });
            return Ok(());
        }
        let selection = selection.expect("a selection");
        let files = fetch(&selection, &contents);
        let manifest = checked(&selection, &files);
        prop_assert_eq!(manifest.artefact(), Artefact::Weights);
        // Exactly what was wanted is there, and has the bytes and the labels that it had.
        let (taken, all) = (tensor_bytes(&manifest, &files), tensor_bytes(&whole, &contents));
        let found: BTreeSet<_> = taken.keys().cloned().collect();
        let (tensors, alone): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, name)| !name.is_empty());
        prop_assert_eq!(&found, &tensors.iter().cloned().collect());
        let paths: BTreeSet<String> = tensors.into_iter().chain(alone).map(|(path, _)| path).collect();
        prop_assert!(files.keys().eq(&paths));
        for (name, bytes) in &taken {
            prop_assert_eq!(bytes, &all[name]);
        }
        let labels_of = |manifest: &Manifest| -> BTreeMap<(String, String), BTreeSet<Label>> {
            let segments = manifest.files().iter().flat_map(|file| file.segments.iter().map(move |of| (&file.path, of)));
            let own = manifest.own_labels();
            segments.map(|(path, of)| ((path.clone(), of.kind.describe()), of.labels_in(own).clone())).collect()
        };
        let before = labels_of(&whole);
        for ((path, what), own) in labels_of(&manifest) {
            if what != ", header" {
                prop_assert_eq!(&own, &before[&(path, what)]);
            }
            prop_assert!(own.is_subset(&manifest.labels()));
        }
        // What is fetched is what is in the runs, once.
        let fetched: Vec<u64> = extents(&selection).flat_map(|(extent, _)| extent.first..extent.end).collect();
        let wanted = selection.runs().iter().flat_map(|(first, end)| *first..*end);
        prop_assert_eq!(fetched, wanted.collect::<Vec<_>>());
        for found in whole.groups() {
            let in_runs = selection.runs().iter().any(|(first, end)| (*first..*end).contains(&found.index));
            prop_assert_eq!(selection.place(&Extent::from(&found)).is_some(), in_runs);
        }
    }
}
