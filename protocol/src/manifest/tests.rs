//! Tests of manifests: vectors at the boundaries, damage, and what a decoder must refuse.

use proptest::prelude::*;

use super::*;
use crate::limits::GROUP_BYTES;

fn labels(list: &[Label]) -> BTreeSet<Label> {
    list.iter().copied().collect()
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

pub(super) fn opaque(path: &str, bytes: &[u8]) -> File {
    let segments = if bytes.is_empty() { Vec::new() } else { vec![Segment::of(SegmentKind::Opaque, bytes)] };
    File { path: path.into(), bytes: bytes.len() as u64, sha256: Sha256([7; 32]), segments }
}

fn tensor(name: &str, bytes: &[u8]) -> Segment {
    let shape = vec![bytes.len() as u64];
    Segment::of(SegmentKind::Tensor { name: name.into(), dtype: Dtype::U8, shape }, bytes)
}

/// A file with a header and tensors of these lengths, and its bytes.
pub(super) fn tensors(path: &str, lengths: &[usize]) -> (File, Vec<u8>) {
    let mut bytes = noise(100, 99);
    let mut segments = vec![Segment::of(SegmentKind::Header, &bytes)];
    for (at, length) in lengths.iter().enumerate() {
        let content = noise(*length, at as u64);
        segments.push(tensor(&format!("t{at}"), &content));
        bytes.extend(content);
    }
    (File { path: path.into(), bytes: bytes.len() as u64, sha256: Sha256([7; 32]), segments }, bytes)
}

pub(super) fn made(files: Vec<File>) -> Result<Manifest, ManifestError> {
    Manifest::new(Artefact::Weights, labels(&[Label::Public]), files)
}

fn fault(file: File) -> FileFault {
    match made(vec![file]) {
        Err(ManifestError::File { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

fn range(group: &Group) -> std::ops::Range<usize> {
    let start = usize::try_from(group.offset).expect("fits");
    start..start + group.bytes as usize
}

fn sizes() -> Vec<usize> {
    let group = usize::try_from(GROUP_BYTES).expect("fits");
    vec![0, 1, 1024, group - 1, group, group + 1, 2 * group, 3 * group + 7]
}

#[test]
fn groups_cover_every_byte_once_and_verify_alone() {
    let (weights, bytes) = tensors("b.safetensors", &sizes());
    let config = noise(1234, 5);
    let files = vec![weights, opaque("a.json", &config), opaque("empty", &[])];
    let manifest = made(files).expect("a manifest");
    let contents = [config, bytes, Vec::new()];
    assert_eq!(
        manifest.files().iter().map(|file| file.path.as_str()).collect::<Vec<_>>(),
        ["a.json", "b.safetensors", "empty"]
    );
    assert_eq!(manifest.tensors(), 8);
    assert_eq!(manifest.bytes(), contents.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
    let mut seen = [0_u64; 3];
    let mut before = 0;
    for (index, group) in manifest.groups().enumerate() {
        assert_eq!(group.index, index as u64);
        let file = group.file as usize;
        assert_eq!(group.offset, seen[file], "groups of a file follow each other");
        seen[file] += u64::from(group.bytes);
        let range = range(&group);
        assert!(manifest.verify_group(&group, &contents[file][range]), "{}", manifest.describe_group(&group));
        assert_eq!(manifest.bytes_of_runs(&[(0, group.index)]), before);
        before += u64::from(group.bytes);
        assert_eq!(manifest.bytes_of_runs(&[(group.index, group.index + 1)]), u64::from(group.bytes));
    }
    assert_eq!(seen.to_vec(), contents.iter().map(|bytes| bytes.len() as u64).collect::<Vec<_>>());
    assert_eq!(manifest.groups().count() as u64, manifest.group_count());
    assert_eq!(manifest.bytes_of_runs(&[(0, manifest.group_count())]), manifest.bytes());
    assert_eq!(manifest.group(manifest.group_count()), None);
    assert_eq!(manifest.group(u64::MAX), None);
}

#[test]
fn a_flipped_bit_is_found_in_every_byte() {
    for size in [1, 1025, 4096] {
        let mut bytes = noise(size, 1);
        let manifest = made(vec![opaque("x", &bytes)]).expect("a manifest");
        let group = manifest.group(0).expect("a group");
        for at in 0..size {
            bytes[at] ^= 1 << (at % 8);
            assert!(!manifest.verify_group(&group, &bytes), "byte {at} of {size}");
            bytes[at] ^= 1 << (at % 8);
        }
        assert!(manifest.verify_group(&group, &bytes));
    }
    // In large groups: one bit in every BLAKE3 chunk, since a chunk is a compression of its own.
    let group = usize::try_from(GROUP_BYTES).expect("fits");
    let mut bytes = noise(2 * group + 77, 2);
    let manifest = made(vec![opaque("x", &bytes)]).expect("a manifest");
    for found in manifest.groups() {
        let range = range(&found);
        for at in range.clone().step_by(1021) {
            bytes[at] ^= 0x80;
            assert!(!manifest.verify_group(&found, &bytes[range.clone()]), "byte {at}");
            bytes[at] ^= 0x80;
        }
        assert!(manifest.verify_group(&found, &bytes[range]));
    }
}

#[test]
fn a_group_verifies_only_in_its_place() {
    let group = usize::try_from(GROUP_BYTES).expect("fits");
    // The same bytes twice: the chaining value binds the place as well.
    let once = noise(group, 3);
    let bytes = [once.clone(), noise(group, 4), once.clone()].concat();
    let manifest = made(vec![opaque("x", &bytes)]).expect("a manifest");
    let [first, second, third] = [0, 1, 2].map(|index| manifest.group(index).expect("a group"));
    assert!(manifest.verify_group(&first, &once) && manifest.verify_group(&third, &once));
    assert!(!manifest.verify_group(&second, &once));
    assert!(!manifest.verify_group(&first, &once[..group - 1]));
    let moved = Group { offset: third.offset, ..first };
    assert!(!manifest.verify_group(&moved, &once));
    let other = made(vec![opaque("y", &noise(9, 9))]).expect("a manifest");
    assert!(!other.verify_group(&first, &once));
}

#[test]
fn the_bytes_of_runs_are_those_of_their_groups() {
    let (file, _) = tensors("b.safetensors", &sizes());
    let manifest = made(vec![file]).expect("a manifest");
    let bytes = |indices: &[u64]| -> u64 {
        let groups = manifest.groups().filter(|group| indices.contains(&group.index));
        groups.map(|group| u64::from(group.bytes)).sum()
    };
    assert_eq!(manifest.bytes_of_runs(&[(1, 3), (5, 6)]), bytes(&[1, 2, 5]));
    assert_eq!(manifest.bytes_of_runs(&[]), 0);
    assert_eq!(manifest.bytes_of_runs(&[(0, manifest.group_count())]), manifest.bytes());
}

#[test]
fn the_encoding_round_trips_and_is_canonical() {
    let (file, _) = tensors("b.safetensors", &sizes());
    let files = vec![file, opaque("a", b"x")];
    let manifest = made(files.clone()).expect("a manifest");
    let bytes = manifest.encode();
    assert_eq!(manifest.id().0, *blake3::hash(&bytes).as_bytes());
    let again = Manifest::decode(&bytes).expect("decodes");
    assert_eq!(again, manifest);
    assert_eq!(again.files(), manifest.files());
    // The order in which files are given does not matter.
    assert_eq!(made(files.into_iter().rev().collect()).expect("a manifest").id(), manifest.id());
    // Bytes after the end, and any cut, are refused.
    assert!(Manifest::decode(&[bytes.clone(), vec![0]].concat()).is_err());
    for end in (0..bytes.len()).step_by(7) {
        assert!(Manifest::decode(&bytes[..end]).is_err());
    }
}

/// Encodes a body that `new` would refuse or repair.
fn encoded(change: impl FnOnce(&mut Body)) -> Vec<u8> {
    let files = vec![opaque("a", b"x"), opaque("b", b"y")];
    let mut body = Body { files, labels: labels(&[Label::Public]), version: VERSION, artefact: Artefact::Weights };
    change(&mut body);
    envelope::encode(&body)
}

#[test]
fn what_was_not_made_by_new_is_refused() {
    assert!(Manifest::decode(&encoded(|_| {})).is_ok());
    let refused = |change: fn(&mut Body)| Manifest::decode(&encoded(change)).expect_err("refused");
    assert_eq!(refused(|body| body.version = 2), ManifestError::Version(2));
    assert_eq!(refused(|body| body.labels.clear()), ManifestError::NoLabel);
    assert_eq!(refused(|body| body.files.clear()), ManifestError::NoFile);
    assert_eq!(refused(|body| body.files.reverse()), ManifestError::Order("a".into()));
    assert_eq!(refused(|body| body.files[1].path = "a".into()), ManifestError::Clash("a".into()));
    assert_eq!(refused(|body| body.files[1].path = "a/b".into()), ManifestError::Clash("a/b".into()));
    for path in ["../x", "/x", ".git/config", "a//b", "a\\b", "x\0"] {
        let bytes = encoded(|body| body.files[0].path = path.into());
        assert!(matches!(Manifest::decode(&bytes), Err(ManifestError::Path { .. })), "{path:?}");
    }
    let many = encoded(|body| {
        let paths = (0..=limits::FILES_PER_MANIFEST_MAX).map(|at| opaque(&format!("{at:05}"), b"x"));
        body.files = paths.collect();
    });
    assert!(matches!(Manifest::decode(&many), Err(ManifestError::Encoding(_))));
    let huge = vec![0; limits::MANIFEST_BYTES_MAX + 1];
    assert!(matches!(Manifest::decode(&huge), Err(ManifestError::TooLarge { .. })));
}

#[test]
fn broken_files_are_refused() {
    let group = usize::try_from(GROUP_BYTES).expect("fits");
    let whole = tensors("x", &[10, 2 * group + 1]).0;
    let with = |change: fn(&mut File)| {
        let mut file = whole.clone();
        change(&mut file);
        fault(file)
    };
    assert!(made(vec![whole.clone()]).is_ok());
    assert!(matches!(with(|file| file.bytes += 1), FileFault::Length { .. }));
    assert!(matches!(with(|file| file.segments[1].bytes = u64::MAX), FileFault::Length { parts: u64::MAX, .. }));
    assert!(matches!(with(|file| file.segments[0].kind = SegmentKind::Opaque), FileFault::Structure));
    assert!(matches!(with(|file| file.segments.swap(0, 1)), FileFault::Structure));
    assert!(matches!(with(|file| file.segments[2].groups[40] ^= 1), FileFault::GroupHashes { part: 2 }));
    assert!(matches!(with(|file| file.segments[2].groups.truncate(64)), FileFault::GroupCount { part: 2, .. }));
    assert!(matches!(with(|file| file.segments[1].groups.extend([0; 32])), FileFault::GroupCount { part: 1, .. }));
    assert!(matches!(with(|file| file.segments[2].hash.0[0] ^= 1), FileFault::GroupHashes { part: 2 }));
    assert!(matches!(with(|file| file.segments[1].labels = Some(BTreeSet::new())), FileFault::NoLabel { part: 1 }));
    let renamed = |name: &str| {
        let mut file = whole.clone();
        file.segments[1].kind = SegmentKind::Tensor { name: name.into(), dtype: Dtype::U8, shape: vec![10] };
        fault(file)
    };
    assert_eq!(renamed(""), FileFault::TensorName { part: 1 });
    assert_eq!(renamed("a\nb"), FileFault::TensorName { part: 1 });
    assert_eq!(renamed(&"x".repeat(TENSOR_NAME_BYTES_MAX + 1)), FileFault::TensorName { part: 1 });
    assert_eq!(renamed("t1"), FileFault::TwoTensors("t1".into()));
    let reshaped = |dtype: Dtype, shape: Vec<u64>| {
        let mut file = whole.clone();
        file.segments[1].kind = SegmentKind::Tensor { name: "t".into(), dtype, shape };
        fault(file)
    };
    assert!(matches!(reshaped(Dtype::U8, vec![11]), FileFault::TensorLength { .. }));
    assert!(matches!(reshaped(Dtype::F32, vec![u64::MAX, 2]), FileFault::TensorLength { .. }));
    assert!(matches!(reshaped(Dtype::U8, vec![1; 17]), FileFault::TooManyDimensions(_)));
    let empty = |kind: SegmentKind, hash: ContentId| File {
        path: "x".into(),
        bytes: 0,
        sha256: Sha256([0; 32]),
        segments: vec![Segment { bytes: 0, groups: ByteBuf::new(), hash, kind, labels: None }],
    };
    let nothing = ContentId(*blake3::hash(&[]).as_bytes());
    assert_eq!(fault(empty(SegmentKind::Opaque, nothing)), FileFault::EmptyPart { part: 0 });
    assert_eq!(fault(empty(SegmentKind::Header, nothing)), FileFault::EmptyPart { part: 0 });
    let mut wrong = tensors("x", &[0]).0;
    wrong.segments[1].hash = ContentId([0; 32]);
    assert_eq!(fault(wrong), FileFault::GroupHashes { part: 1 });
}

#[test]
fn parts_are_what_has_the_same_labels() {
    let closed = labels(&[Label::Health, Label::Personal]);
    let (mut one, _) = tensors("a", &[3, 4, 0]);
    one.segments[2].labels = Some(closed.clone());
    one.segments[3].labels = Some(closed.clone());
    let (mut other, _) = tensors("b", &[5]);
    // The same as the artefact's: written out, and no part of its own.
    other.segments[0].labels = Some(labels(&[Label::Public]));
    other.segments[1].labels = Some(labels(&[Label::Synthetic]));
    let manifest = made(vec![one, other]).expect("a manifest");
    let part = |labels, tensors, bytes| Part { labels, tensors, bytes };
    let expected = [part(labels(&[Label::Public]), 1, 203), part(closed, 2, 4), part(labels(&[Label::Synthetic]), 1, 5)];
    assert_eq!(manifest.parts(), expected);
    assert_eq!(check_parts(manifest.parts(), &manifest.labels(), manifest.tensors(), manifest.bytes()), Ok(()));
    assert_eq!(Manifest::decode(&manifest.encode()).expect("the same").parts(), expected);
    // Names and paths have the artefact's own labels, even where no byte has.
    let (mut all, _) = tensors("a", &[1]);
    all.segments.iter_mut().for_each(|segment| segment.labels = Some(labels(&[Label::Dp])));
    let manifest = made(vec![all]).expect("a manifest");
    assert_eq!(manifest.parts(), [part(labels(&[Label::Public]), 0, 0), part(labels(&[Label::Dp]), 1, 101)]);
}

#[test]
fn sets_of_labels_are_bounded() {
    let with = |sets: usize| {
        let (mut file, _) = tensors("x", &vec![1; sets]);
        for (at, segment) in file.segments.iter_mut().skip(1).enumerate() {
            let chosen = Label::ALL.iter().enumerate().filter(|(bit, _)| (at + 2) >> bit & 1 == 1);
            segment.labels = Some(chosen.map(|(_, label)| *label).collect());
        }
        made(vec![file])
    };
    let others = limits::PARTS_PER_ARTEFACT_MAX - 1;
    assert_eq!(with(others).expect("a manifest").parts().len(), limits::PARTS_PER_ARTEFACT_MAX);
    assert_eq!(with(others + 1), Err(ManifestError::TooManyParts));
}

#[test]
fn labels_are_the_union() {
    let (mut file, _) = tensors("x", &[3, 4]);
    file.segments[2].labels = Some(labels(&[Label::Health, Label::Personal]));
    let manifest = made(vec![file]).expect("a manifest");
    assert_eq!(manifest.labels(), labels(&[Label::Public, Label::Health, Label::Personal]));
}

#[test]
fn errors_name_file_tensor_and_bytes() {
    let (file, _) = tensors("model.safetensors", &[3, 4]);
    let manifest = made(vec![file, opaque("z.json", b"{}")]).expect("a manifest");
    let said = |index| manifest.describe_group(&manifest.group(index).expect("a group"));
    assert_eq!(said(0), "`model.safetensors`, header, bytes 0..100");
    assert_eq!(said(2), "`model.safetensors`, tensor `t1`, bytes 103..107");
    assert_eq!(said(3), "`z.json`, bytes 0..2");
}

#[test]
fn many_tensors_fit() {
    // What limits::MANIFEST_BYTES_MAX promises: 100,000 tensors of several groups each, with names of a usual length.
    let group = usize::try_from(GROUP_BYTES).expect("fits");
    let content = vec![0_u8; 2 * group];
    let mut one = tensor("t", &content);
    let segments = (0..100_000).map(|at| {
        let name = format!("model.language_model.layers.{at:05}.self_attn.q_proj.weight");
        one.kind = SegmentKind::Tensor { name, dtype: Dtype::U8, shape: vec![content.len() as u64] };
        one.clone()
    });
    let segments: Vec<Segment> = std::iter::once(Segment::of(SegmentKind::Header, b"h")).chain(segments).collect();
    let bytes = segments.iter().map(|segment| segment.bytes).sum();
    let manifest = made(vec![File { path: "x".into(), bytes, sha256: Sha256([0; 32]), segments }]).expect("fits");
    assert_eq!(manifest.group_count(), 200_001);
    assert!(manifest.encode().len() < limits::MANIFEST_BYTES_MAX / 2);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Manifest::decode(&bytes);
    }

    #[test]
    fn altered_encodings_never_panic_and_never_keep_the_id(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (file, _) = tensors("b.safetensors", &[5, 300_000]);
        let manifest = made(vec![file, opaque("a", b"x")]).expect("a manifest");
        let mut bytes = manifest.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(other) = Manifest::decode(&bytes) {
            prop_assert_ne!(other.id(), manifest.id());
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn any_runs_are_answered(runs in prop::collection::vec((0_u64..20, 0_u64..20), 0..8)) {
        let (file, _) = tensors("x", &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let manifest = made(vec![file]).expect("a manifest");
        let there = |index: &u64| *index < manifest.group_count();
        let wanted: Vec<u64> = runs.iter().flat_map(|(first, end)| (*first..*end).take_while(there)).collect();
        let given: Vec<u64> =
            runs.iter().flat_map(|run| manifest.extents_in(vec![*run])).flat_map(|extent| extent.first..extent.end).collect();
        prop_assert_eq!(given, wanted);
        let _ = manifest.bytes_of_runs(&runs);
    }
}
