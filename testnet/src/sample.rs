//! Sample artefacts: a model and an adapter as they lie on a hub, made from a seed.
//!
//! The files have the names, the structure and the statistics of a real Llama, but the weights are noise: they were trained on
//! nothing, so that no label of personal data applies to them. The same seed gives the same bytes on every machine.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde_json::{Value, json};

/// Bytes of the model that a demonstration uses, and that [`write_adapter`] adapts.
pub const MODEL_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of weights drawn at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// Separates the bytes of samples from every other use of a seed.
const CONTEXT: &str = "alliance-testnet 2026 sample weights v1";

/// Rank of the adapter.
const RANK: u64 = 32;

/// What the tokenizer has before its 256 bytes: unknown, beginning, end.
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Pairs that the tokenizer joins, in this order. U+0120 stands for a space in it.
const MERGES: [(&str, &str); 29] = [
    ("Ġ", "t"),
    ("Ġ", "a"),
    ("h", "e"),
    ("i", "n"),
    ("r", "e"),
    ("o", "n"),
    ("Ġt", "he"),
    ("e", "r"),
    ("Ġ", "s"),
    ("a", "t"),
    ("Ġ", "w"),
    ("Ġ", "o"),
    ("e", "n"),
    ("Ġ", "c"),
    ("i", "t"),
    ("i", "s"),
    ("a", "n"),
    ("o", "r"),
    ("e", "s"),
    ("Ġ", "b"),
    ("e", "d"),
    ("Ġ", "f"),
    ("in", "g"),
    ("Ġ", "p"),
    ("o", "u"),
    ("Ġa", "n"),
    ("a", "l"),
    ("a", "r"),
    ("Ġt", "o"),
];

/// The measures of a model.
#[derive(Clone, Copy)]
struct Measures {
    hidden: u64,
    intermediate: u64,
    heads: u64,
    /// Width of keys and values together: heads are grouped.
    key_value: u64,
    key_value_heads: u64,
    vocabulary: u64,
    layers: u64,
}

/// How the values of a tensor are drawn.
#[derive(Clone, Copy)]
enum Values {
    /// Around zero, small, both signs: projections and embeddings.
    Weights,
    /// Around one: norms.
    Scales,
}

struct Tensor {
    name: String,
    shape: Vec<u64>,
    values: Values,
}

/// Writes a model of at least `bytes_min` bytes of weights (BF16) into `dir`, which is created.
///
/// # Errors
/// The disk failed or is full.
pub fn write_sample(dir: &Path, seed: u64, bytes_min: u64) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let measures = Measures::for_bytes(bytes_min);
    write_safetensors(&dir.join("model.safetensors"), seed, &measures.tensors())?;
    write_json(dir, "config.json", &measures.config())?;
    write_json(dir, "tokenizer.json", &tokenizer())?;
    write_json(dir, "tokenizer_config.json", &tokenizer_config())?;
    let special = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
    write_json(dir, "special_tokens_map.json", &special)?;
    let generation = json!({
        "_from_model_config": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_length": 2048,
        "temperature": 0.7,
        "top_p": 0.9,
    });
    write_json(dir, "generation_config.json", &generation)?;
    fs::write(dir.join("README.md"), model_card(seed, &measures))
}

/// Writes a LoRA adapter for the model of [`MODEL_BYTES`], a few megabytes, into `dir`, which is created.
///
/// # Errors
/// The disk failed or is full.
pub fn write_adapter(dir: &Path, seed: u64) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let measures = Measures::for_bytes(MODEL_BYTES);
    let mut tensors = Vec::new();
    let targets = [("q_proj", measures.hidden), ("k_proj", measures.key_value), ("v_proj", measures.key_value)];
    for layer in 0..measures.layers {
        for (target, width) in targets.into_iter().chain([("o_proj", measures.hidden)]) {
            let name = format!("base_model.model.model.layers.{layer}.self_attn.{target}");
            tensors.push(weights(format!("{name}.lora_A.weight"), [RANK, measures.hidden]));
            tensors.push(weights(format!("{name}.lora_B.weight"), [width, RANK]));
        }
    }
    write_safetensors(&dir.join("adapter_model.safetensors"), seed, &tensors)?;
    let config = json!({
        "base_model_name_or_path": "sample-llama",
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.05,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "task_type": "CAUSAL_LM",
        "use_rslora": false,
    });
    write_json(dir, "adapter_config.json", &config)?;
    fs::write(dir.join("README.md"), adapter_card(seed))
}

impl Measures {
    /// A model with at least so many bytes of weights; small ones are narrow, so that they stay small.
    fn for_bytes(bytes_min: u64) -> Self {
        let vocabulary = [SPECIAL.len(), 256, MERGES.len()].into_iter().filter_map(|part| u64::try_from(part).ok()).sum();
        let narrow =
            Self { hidden: 64, intermediate: 176, heads: 4, key_value: 32, key_value_heads: 2, vocabulary, layers: 1 };
        let wide = Self { hidden: 512, intermediate: 1408, heads: 8, key_value: 256, key_value_heads: 4, ..narrow };
        let one = if bytes_min < 16 * 1024 * 1024 { narrow } else { wide };
        let (with_one, with_two) = (one.bytes(), Self { layers: 2, ..one }.bytes());
        let layer = with_two.saturating_sub(with_one).max(1);
        Self { layers: bytes_min.saturating_sub(with_one).div_ceil(layer).saturating_add(1), ..one }
    }

    fn bytes(&self) -> u64 {
        self.tensors().iter().map(Tensor::bytes).sum()
    }

    fn tensors(&self) -> Vec<Tensor> {
        let Self { hidden, intermediate, key_value, vocabulary, layers, .. } = *self;
        let mut tensors = vec![weights("model.embed_tokens.weight".into(), [vocabulary, hidden])];
        for layer in 0..layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            tensors.extend([
                scales(name("input_layernorm"), hidden),
                weights(name("self_attn.q_proj"), [hidden, hidden]),
                weights(name("self_attn.k_proj"), [key_value, hidden]),
                weights(name("self_attn.v_proj"), [key_value, hidden]),
                weights(name("self_attn.o_proj"), [hidden, hidden]),
                scales(name("post_attention_layernorm"), hidden),
                weights(name("mlp.gate_proj"), [intermediate, hidden]),
                weights(name("mlp.up_proj"), [intermediate, hidden]),
                weights(name("mlp.down_proj"), [hidden, intermediate]),
            ]);
        }
        tensors.push(scales("model.norm.weight".into(), hidden));
        tensors.push(weights("lm_head.weight".into(), [vocabulary, hidden]));
        tensors
    }

    fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "head_dim": self.hidden / self.heads,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 2048,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_value_heads,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "use_cache": true,
            "vocab_size": self.vocabulary,
        })
    }
}

impl Tensor {
    /// In BF16.
    fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>().saturating_mul(2)
    }
}

fn weights(name: String, shape: [u64; 2]) -> Tensor {
    Tensor { name, shape: shape.to_vec(), values: Values::Weights }
}

fn scales(name: String, width: u64) -> Tensor {
    Tensor { name, shape: vec![width], values: Values::Scales }
}

impl Values {
    /// A BF16 number from sixteen random bits: sign, eight bits of exponent, seven of mantissa. Never infinite, never NaN.
    fn draw(self, random: u16) -> u16 {
        let mantissa = random & 0x007f;
        match self {
            // Each step down in magnitude is half as likely as the one before: 2^-6 at most, as in trained projections.
            Self::Weights => {
                let [_, scale] = (random >> 7).to_be_bytes();
                // At most 8.
                let exponent = 120 - u16::try_from(scale.leading_zeros()).unwrap_or(8);
                (random & 0x8000) | exponent << 7 | mantissa
            }
            // 1.0 to 1.12.
            Self::Scales => 0x3f80 | (mantissa >> 3),
        }
    }
}

fn write_safetensors(path: &Path, seed: u64, tensors: &[Tensor]) -> io::Result<()> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0_u64;
    for tensor in tensors {
        let start = end;
        end = start.saturating_add(tensor.bytes());
        let entry = json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = to_sorted(Value::Object(header)).to_string();
    // The data begins on a multiple of eight.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
    file.write_all(&u64::try_from(header.len()).map_err(io::Error::other)?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for tensor in tensors {
        write_values(&mut file, seed, tensor, &mut buffer)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.flush()
}

fn write_values(file: &mut impl io::Write, seed: u64, tensor: &Tensor, buffer: &mut [u8]) -> io::Result<()> {
    let mut random = blake3::Hasher::new_derive_key(CONTEXT);
    random.update(&seed.to_be_bytes()).update(tensor.name.as_bytes());
    let mut random = random.finalize_xof();
    let mut left = tensor.bytes();
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let (part, _) = buffer.split_at_mut(length);
        random.fill(part);
        for pair in part.as_chunks_mut::<2>().0 {
            *pair = tensor.values.draw(u16::from_le_bytes(*pair)).to_le_bytes();
        }
        file.write_all(part)?;
        left = left.saturating_sub(u64::try_from(length).map_err(io::Error::other)?);
    }
    Ok(())
}

/// A byte-level BPE, in the form of the `tokenizers` library.
fn tokenizer() -> Value {
    let bytes = (0..=u8::MAX).map(|byte| byte_symbol(byte).to_string());
    let joined = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    let words = SPECIAL.iter().map(|word| (*word).to_owned()).chain(bytes).chain(joined);
    let vocabulary: serde_json::Map<String, Value> = words.zip(0_u64..).map(|(word, id)| (word, json!(id))).collect();
    let merges: Vec<String> = MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .zip(0_u64..)
        .map(|(word, id)| {
            json!({
                "id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let text = |id: &str, kind: u64| json!({"Sequence": {"id": id, "type_id": kind}});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text("A", 0)],
            "pair": [begin, text("A", 0), text("B", 1)],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

/// The letter by which byte-level tokenizers write a byte: itself where it is printable, else one from U+0100 on, in order.
fn byte_symbol(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|lower| !printable(lower)).fold(0_u32, |count, _| count.saturating_add(1));
    char::from_u32(0x100_u32.saturating_add(before)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn tokenizer_config() -> Value {
    json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": false,
        "eos_token": "</s>",
        "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    })
}

fn model_card(seed: u64, measures: &Measures) -> String {
    format!(
        "---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- sample\n---\n\n\
         # Sample Llama\n\n\
         A model with the structure of a Llama ({layers} layers, hidden size {hidden}) for trying out how models cross\n\
         borders. Its weights are noise drawn from seed {seed}: it was trained on nothing and says nothing sensible.\n\n\
         - **Data:** none. No personal data, no work of others.\n\
         - **Use:** tests and demonstrations of Alliance.\n\
         - **Licence:** Apache-2.0.\n",
        layers = measures.layers,
        hidden = measures.hidden,
    )
}

fn adapter_card(seed: u64) -> String {
    format!(
        "---\nlicense: apache-2.0\nlibrary_name: peft\nbase_model: sample-llama\ntags:\n- sample\n- lora\n---\n\n\
         # Sample adapter\n\n\
         A LoRA adapter of rank {RANK} for the sample Llama, for trying out how adapters cross borders. Its weights are noise\n\
         drawn from seed {seed}.\n\n\
         - **Data:** none. No personal data, no work of others.\n\
         - **Licence:** Apache-2.0.\n"
    )
}

/// In the order of the keys, which otherwise depends on the features that other crates ask of the JSON library.
fn to_sorted(mut value: Value) -> Value {
    value.sort_all_objects();
    value
}

fn write_json(dir: &Path, name: &str, value: &Value) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(&to_sorted(value.clone()))?;
    text.push('\n');
    fs::write(dir.join(name), text)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use alliance_node::models::{ImportRequest, import, load_manifest};
    use alliance_protocol::{
        manifest::{Manifest, SegmentKind},
        vocabulary::{Artefact, Label},
    };

    use super::*;

    fn imported(dir: &Path, artefact: Artefact) -> Manifest {
        let manifests = tempfile::tempdir().expect("a directory");
        let request = ImportRequest {
            name: "usp/sample".into(),
            artefact,
            labels: [Label::NonPersonal].into(),
            labels_of: Vec::new(),
            origin: "BR".parse().expect("a country"),
            subjects: BTreeSet::new(),
            provenance: alliance_protocol::offer::Provenance::default(),
            licence: "Apache-2.0".into(),
            crossing: None,
        };
        let local = import(dir, request, manifests.path(), &mut |_, _| {}).expect("imported");
        load_manifest(manifests.path(), local.manifest).expect("loaded")
    }

    fn digest(dir: &Path) -> String {
        let mut names: Vec<_> = fs::read_dir(dir).expect("read").map(|entry| entry.expect("read").path()).collect();
        names.sort();
        let mut hasher = blake3::Hasher::new();
        for path in names {
            hasher.update(path.file_name().expect("a name").as_encoded_bytes());
            hasher.update(&fs::read(path).expect("read"));
        }
        hasher.finalize().to_hex().to_string()
    }

    #[test]
    fn the_seed_decides_every_byte() {
        let dirs = [1, 1, 2].map(|seed| {
            let dir = tempfile::tempdir().expect("a directory");
            write_sample(dir.path(), seed, 1).expect("written");
            dir
        });
        let [one, same, other] = [&dirs[0], &dirs[1], &dirs[2]].map(|dir| digest(dir.path()));
        assert_eq!(one, same);
        assert_ne!(one, other);
        // Stands for "on every machine": it changes only when the sample is meant to change.
        assert_eq!(one, "7fed2df9f7b9ed835aa1417b10a4d825ed2c1203cb2f5053a111d5a782a66b1f");
    }

    #[test]
    fn the_numbers_of_the_model_agree() {
        let dir = tempfile::tempdir().expect("a directory");
        let bytes_min = 3_000_000;
        write_sample(dir.path(), 7, bytes_min).expect("written");
        let manifest = imported(dir.path(), Artefact::Weights);
        let read = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(dir.path().join(name)).expect("read")).expect("JSON")
        };
        let config = read("config.json");
        let number = |key: &str| config[key].as_u64().expect("a number");
        let weights = manifest.files().iter().find(|file| file.path == "model.safetensors").expect("weights");
        let shapes: BTreeMap<&str, &[u64]> = weights
            .segments
            .iter()
            .filter_map(|segment| match &segment.kind {
                SegmentKind::Tensor { name, shape, .. } => Some((name.as_str(), shape.as_slice())),
                SegmentKind::Header | SegmentKind::Opaque => None,
            })
            .collect();
        assert!(weights.bytes >= bytes_min && weights.bytes < bytes_min + 200_000, "{}", weights.bytes);
        assert_eq!(shapes["model.embed_tokens.weight"], [number("vocab_size"), number("hidden_size")]);
        assert_eq!(shapes.len() as u64, 3 + 9 * number("num_hidden_layers"));
        let key = number("num_key_value_heads") * number("head_dim");
        assert_eq!(shapes["model.layers.0.self_attn.k_proj.weight"], [key, number("hidden_size")]);
        assert_eq!(number("num_attention_heads") * number("head_dim"), number("hidden_size"));
        let tokenizer = read("tokenizer.json");
        let vocabulary = tokenizer["model"]["vocab"].as_object().expect("an object");
        assert_eq!(vocabulary.len() as u64, number("vocab_size"), "no word twice");
        for merge in tokenizer["model"]["merges"].as_array().expect("a list") {
            let (left, right) = merge.as_str().expect("text").split_once(' ').expect("a pair");
            for word in [left.to_owned(), right.to_owned(), format!("{left}{right}")] {
                assert!(vocabulary.contains_key(&word), "{word}");
            }
        }
    }

    #[test]
    fn a_model_of_the_demonstration_is_large_enough() {
        assert!(Measures::for_bytes(MODEL_BYTES).bytes() >= MODEL_BYTES);
        assert!(Measures::for_bytes(MODEL_BYTES).bytes() < MODEL_BYTES + 7_000_000);
    }

    #[test]
    fn an_adapter_is_an_artefact_of_a_few_megabytes() {
        let dir = tempfile::tempdir().expect("a directory");
        write_adapter(dir.path(), 3).expect("written");
        let manifest = imported(dir.path(), Artefact::Adapter);
        assert!((1_000_000..8_000_000).contains(&manifest.bytes()), "{}", manifest.bytes());
        assert_eq!(manifest.files().len(), 3);
    }

    #[test]
    fn no_value_is_infinite_or_not_a_number() {
        for random in 0..=u16::MAX {
            for values in [Values::Weights, Values::Scales] {
                let value = f32::from_bits(u32::from(values.draw(random)) << 16);
                assert!(value.is_finite() && value.abs() < 1.2 && value != 0.0, "{random}: {value}");
            }
        }
    }
}
