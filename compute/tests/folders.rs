//! Hugging Face folders for tests: one model written as such a folder and as a GGUF file.

use std::path::Path;

use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::encode::encode;
use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::llm::Architecture;
use serde_json::{Map, Value, json};

use crate::random::Random;

/// One tensor of a folder, as stored.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// The bytes of a safetensors file.
pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut at = 0;
    for tensor in tensors {
        let end = at + tensor.data.len();
        let entry =
            json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end] });
        header.insert(tensor.name.clone(), entry);
        at = end;
    }
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.data.clone()).collect();
    with_header(&Value::Object(header).to_string(), &data)
}

/// A file of any header and data.
pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let padded = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    let mut out = (padded.len() as u64).to_le_bytes().to_vec();
    out.extend(padded.as_bytes());
    out.extend(data);
    out
}

/// A tiny model of a family.
pub struct TinyFolder {
    pub architecture: Architecture,
    pub kind: TensorType,
    pub config: Value,
    pub tensors: Vec<Tensor>,
    gguf: Vec<u8>,
}

const LAYERS: usize = 2;
const HIDDEN: usize = 64;
const FFN: usize = 96;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 32;
pub const VOCABULARY: usize = 50;

impl TinyFolder {
    /// Random weights, rounded to `kind` (F32, F16 or BF16).
    pub fn new(architecture: Architecture, kind: TensorType) -> Self {
        let gemma = matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3);
        let qwen3_or_gemma3 = matches!(architecture, Architecture::Qwen3 | Architecture::Gemma3);
        let mut model = Self {
            architecture,
            kind,
            config: config(architecture),
            tensors: Vec::new(),
            gguf: Vec::new(),
        };
        let mut random = Random::new(21);
        let mut file = GgufWriter::default();
        model.metadata(&mut file);
        let mut add = |theirs: &str, ours: &str, rows: usize, columns: usize| {
            let spread = if rows == 1 { 0.1 } else { 1.0 / (columns as f32).sqrt() };
            let centre = if rows == 1 && !gemma && ours.ends_with("norm") { 1.0 } else { 0.0 };
            let weights: Vec<f32> =
                (0..rows * columns).map(|_| centre + spread * random.float()).collect();
            model.add(&mut file, (theirs, ours), rows, columns, &weights);
        };
        add("model.embed_tokens.weight", "token_embd.weight", VOCABULARY, HIDDEN);
        add("model.norm.weight", "output_norm.weight", 1, HIDDEN);
        if architecture == Architecture::Llama {
            add("lm_head.weight", "output.weight", VOCABULARY, HIDDEN);
        }
        for layer in 0..LAYERS {
            let mut part = |theirs: &str, ours: &str, rows, columns| {
                add(
                    &format!("model.layers.{layer}.{theirs}"),
                    &format!("blk.{layer}.{ours}"),
                    rows,
                    columns,
                );
            };
            let (queries, keys) = (HEADS * HEAD, KV_HEADS * HEAD);
            part("input_layernorm.weight", "attn_norm.weight", 1, HIDDEN);
            part("self_attn.q_proj.weight", "attn_q.weight", queries, HIDDEN);
            part("self_attn.k_proj.weight", "attn_k.weight", keys, HIDDEN);
            part("self_attn.v_proj.weight", "attn_v.weight", keys, HIDDEN);
            part("self_attn.o_proj.weight", "attn_output.weight", HIDDEN, queries);
            part("mlp.gate_proj.weight", "ffn_gate.weight", FFN, HIDDEN);
            part("mlp.up_proj.weight", "ffn_up.weight", FFN, HIDDEN);
            part("mlp.down_proj.weight", "ffn_down.weight", HIDDEN, FFN);
            // Llama's biases turn with their rows; Qwen 2 always has some.
            if matches!(architecture, Architecture::Llama | Architecture::Qwen2) {
                part("self_attn.q_proj.bias", "attn_q.bias", 1, queries);
                part("self_attn.k_proj.bias", "attn_k.bias", 1, keys);
                part("self_attn.v_proj.bias", "attn_v.bias", 1, keys);
            }
            if qwen3_or_gemma3 {
                part("self_attn.q_norm.weight", "attn_q_norm.weight", 1, HEAD);
                part("self_attn.k_norm.weight", "attn_k_norm.weight", 1, HEAD);
            }
            if gemma {
                part("post_attention_layernorm.weight", "post_attention_norm.weight", 1, HIDDEN);
                part("pre_feedforward_layernorm.weight", "ffn_norm.weight", 1, HIDDEN);
                part("post_feedforward_layernorm.weight", "post_ffw_norm.weight", 1, HIDDEN);
            } else {
                part("post_attention_layernorm.weight", "ffn_norm.weight", 1, HIDDEN);
            }
        }
        model.gguf = file.finish();
        model
    }

    /// Adds a tensor to both, in the file as llama.cpp's converter stores it.
    fn add(
        &mut self,
        file: &mut GgufWriter,
        (theirs, ours): (&str, &str),
        rows: usize,
        columns: usize,
        weights: &[f32],
    ) {
        let data = encode(self.kind, weights);
        let mut stored = roadbed_compute::gguf::dequant::dequantise(self.kind, &data);
        let dtype = match self.kind {
            TensorType::F16 => "F16",
            TensorType::Bf16 => "BF16",
            _ => "F32",
        };
        let shape = if rows == 1 { vec![columns] } else { vec![rows, columns] };
        self.tensors.push(Tensor { name: theirs.to_owned(), dtype, shape, data });
        let gemma = matches!(self.architecture, Architecture::Gemma2 | Architecture::Gemma3);
        if gemma && ours.ends_with("norm.weight") {
            stored.iter_mut().for_each(|w| *w += 1.0);
        }
        let turns = ["attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"];
        if self.architecture == Architecture::Llama && turns.iter().any(|t| ours.ends_with(t)) {
            let width = if rows == 1 { 1 } else { columns };
            stored = interleave(&stored, width);
        }
        let kind = if rows == 1 { TensorType::F32 } else { self.kind };
        file.tensor(ours, kind, columns, &stored).unwrap();
    }

    fn metadata(&self, file: &mut GgufWriter) {
        let word = self.architecture.word();
        file.field("general.architecture", &Field::Text(word));
        let counts = [
            ("block_count", LAYERS),
            ("context_length", 128),
            ("embedding_length", HIDDEN),
            ("feed_forward_length", FFN),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
            ("attention.key_length", HEAD),
            ("attention.value_length", HEAD),
            ("attention.sliding_window", 5),
        ];
        for (key, value) in counts {
            file.field(&format!("{word}.{key}"), &Field::U32(value as u32));
        }
        let floats = [
            ("attention.layer_norm_rms_epsilon", 1e-5),
            ("rope.freq_base", 5e5),
            ("rope.freq_base_swa", 2e4),
        ];
        for (key, value) in floats {
            file.field(&format!("{word}.{key}"), &Field::F32(value));
        }
    }

    pub fn gguf(&self) -> Vec<u8> {
        self.gguf.clone()
    }

    /// Writes the folder in one file.
    pub fn write(&self, folder: &Path) {
        self.write_config(folder);
        std::fs::write(folder.join("model.safetensors"), safetensors(&self.tensors)).unwrap();
    }

    /// Writes nothing but a family's `config.json`.
    pub fn config_only(architecture: Architecture, folder: &Path) {
        std::fs::write(folder.join("config.json"), config(architecture).to_string()).unwrap();
    }

    pub fn write_config(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
    }

    /// Writes the folder in two files with an index, and returns the index.
    pub fn write_shards(&self, folder: &Path) -> Value {
        self.write_config(folder);
        let (first, second) = self.tensors.split_at(self.tensors.len() / 2);
        let mut map = Map::new();
        for (name, tensors) in [("model-00001-of-00002", first), ("model-00002-of-00002", second)] {
            let name = format!("{name}.safetensors");
            std::fs::write(folder.join(&name), safetensors(tensors)).unwrap();
            for tensor in tensors {
                map.insert(tensor.name.clone(), json!(name));
            }
        }
        let index = json!({ "metadata": {}, "weight_map": map });
        write_index(folder, &index);
        index
    }
}

pub fn write_index(folder: &Path, index: &Value) {
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn config(architecture: Architecture) -> Value {
    let (model_type, activation) = match architecture {
        Architecture::Llama => ("llama", "silu"),
        Architecture::Qwen2 => ("qwen2", "silu"),
        Architecture::Qwen3 => ("qwen3", "silu"),
        Architecture::Qwen3Moe => ("qwen3_moe", "silu"),
        Architecture::Gemma2 => ("gemma2", "gelu_pytorch_tanh"),
        Architecture::Gemma3 => ("gemma3_text", "gelu_pytorch_tanh"),
    };
    json!({
        "model_type": model_type, "hidden_act": activation, "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "rope_theta": 5e5, "rope_local_base_freq": 2e4, "sliding_window": 5,
        "tie_word_embeddings": architecture != Architecture::Llama,
    })
}

/// Rows of each head from two halves to neighbouring pairs, as llama.cpp's converter does it.
fn interleave(weights: &[f32], width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(weights.len());
    for rows in weights.chunks(HEAD * width) {
        let (first, second) = rows.split_at(rows.len() / 2);
        for (a, b) in first.chunks(width).zip(second.chunks(width)) {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
    }
    out
}
