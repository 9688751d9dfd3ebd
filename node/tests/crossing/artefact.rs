//! Models on disk, and the bytes of their groups as they go over the wire.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use alliance_node::models::{Source, load_manifest};
use alliance_protocol::{core::admin::LocalModel, limits, manifest::Manifest};

pub(crate) const GROUP: usize = 256 * 1024;

const _: () = assert!(GROUP as u64 == limits::GROUP_BYTES);

pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A safetensors file with byte tensors of these lengths.
pub(crate) fn safetensors(lengths: &[usize]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (at, length) in lengths.iter().enumerate() {
        let (from, to) = (data.len(), data.len() + length);
        entries.push(format!(r#""layer.{at:05}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{from},{to}]}}"#));
        data.extend(noise(*length, at as u64));
    }
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    [(header.len() as u64).to_le_bytes().to_vec(), header.into_bytes(), data].concat()
}

fn write(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().expect("inside")).expect("made");
    fs::write(path, bytes).expect("written");
}

/// Tensors of awkward lengths, a file of unknown structure, a directory, an empty file: about 4 MB.
pub(crate) fn awkward(dir: &Path) {
    write(dir, "config.json", br#"{"architectures": ["LlamaForCausalLM"]}"#);
    write(dir, "empty.txt", b"");
    let lengths = [0, 1, 1024, GROUP, GROUP + 1, 3 * GROUP + 7, 5 * GROUP];
    write(dir, "model.safetensors", &safetensors(&lengths));
    write(dir, "original/model.gguf", &[b"GGUF".to_vec(), noise(4 * GROUP + 3, 7)].concat());
}

/// Thousands of tensors of a few bytes in two files.
pub(crate) fn many_small(dir: &Path) {
    let lengths: Vec<usize> = (0..1500).map(|at| at % 61).collect();
    write(dir, "model-00001-of-00002.safetensors", &safetensors(&lengths));
    write(dir, "model-00002-of-00002.safetensors", &safetensors(&lengths[..700]));
}

/// One tensor of so many groups.
pub(crate) fn plain(dir: &Path, groups: usize) {
    write(dir, "model.safetensors", &safetensors(&[groups * GROUP]));
}

/// Every file under a directory; an empty map where it is not there.
pub(crate) fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten() {
            let path = entry.expect("read").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.strip_prefix(dir).expect("inside").to_owned(), fs::read(&path).expect("read"));
            }
        }
    }
    found
}

/// What an honest exporter of a model would send.
pub(crate) struct Goods {
    pub(crate) manifest: Manifest,
    pub(crate) groups: Vec<Vec<u8>>,
}

impl Goods {
    pub(crate) fn of(model: &LocalModel, manifests: &Path) -> Self {
        let manifest = load_manifest(manifests, model.manifest).expect("kept");
        let mut source = Source::open(&model.path, manifest.clone()).expect("as it was imported");
        let read = |group| {
            let mut bytes = Vec::new();
            source.read_group(&group, &mut bytes).expect("read");
            bytes
        };
        let groups = manifest.groups().map(read).collect();
        Self { manifest, groups }
    }

    /// The groups that are not held, one after the other.
    pub(crate) fn stream(&self, held: &[(u64, u64)]) -> Vec<u8> {
        let is_held = |index: u64| held.iter().any(|(first, end)| (*first..*end).contains(&index));
        let missing = self.manifest.groups().filter(|group| !is_held(group.index));
        missing.flat_map(|group| self.groups[usize::try_from(group.index).expect("few")].clone()).collect()
    }
}
