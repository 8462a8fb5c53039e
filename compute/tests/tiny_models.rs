//! Small Llama models rebuilt from the recipe of `tests/data/poc/tiny_e2e.json`, as GGUF files.
//!
//! Every weight comes from the proof's own generator, so nothing has to be downloaded: tensor
//! `name` of model `tag` is `Z(S("tag_name"), numel)`, matrices over sqrt(columns), norms as `1 + z
//! / 10`.

use std::path::PathBuf;

use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::poc::normal::NormalStream;
use roadbed_compute::poc::seed::Seed;
use serde_json::Value;

/// Shape of a model, as the `config` object of the vectors gives it.
pub struct TinyModel {
    tag: String,
    layers: usize,
    hidden: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    rope_base: f32,
    tied: bool,
}

impl TinyModel {
    pub fn from_vectors(model: &Value) -> Self {
        let config = &model["config"];
        let size = |key: &str| usize::try_from(config[key].as_u64().unwrap()).unwrap();
        Self {
            tag: model["tag"].as_str().unwrap().to_owned(),
            layers: size("num_hidden_layers"),
            hidden: size("hidden_size"),
            feed_forward: size("intermediate_size"),
            heads: size("num_attention_heads"),
            kv_heads: size("num_key_value_heads"),
            vocabulary: size("vocab_size"),
            rope_base: config["rope_theta"].as_f64().unwrap() as f32,
            tied: config["tie_word_embeddings"].as_bool().unwrap(),
        }
    }

    /// Weights of one tensor, row-major `[rows, columns]`; a norm has one row.
    pub fn weights(&self, name: &str, rows: usize, columns: usize) -> Vec<f32> {
        let seed = Seed::of(&format!("{}_{name}", self.tag));
        let stream = NormalStream { seed, count: u32::try_from(rows * columns).unwrap() };
        let scale = 1.0 / (columns as f64).sqrt();
        let shape = |z: f64| if rows == 1 { 1.0 + 0.1 * z } else { z * scale };
        stream.exact().into_iter().map(|z| shape(z) as f32).collect()
    }

    /// Writes the model, weights in f32, into `folder`.
    pub fn write(&self, folder: &tempfile::TempDir) -> PathBuf {
        let mut file = GgufWriter::default();
        self.metadata(&mut file);
        let head = self.hidden / self.heads;
        let (hidden, kv) = (self.hidden, self.kv_heads * head);
        self.tensor(&mut file, "token_embd", "model.embed_tokens", self.vocabulary, hidden);
        self.tensor(&mut file, "output_norm", "model.norm", 1, hidden);
        if !self.tied {
            self.tensor(&mut file, "output", "lm_head", self.vocabulary, hidden);
        }
        for layer in 0..self.layers {
            let rows_and_columns = [
                ("attn_norm", "input_layernorm", 1, hidden),
                ("attn_v", "self_attn.v_proj", kv, hidden),
                ("attn_output", "self_attn.o_proj", hidden, hidden),
                ("ffn_norm", "post_attention_layernorm", 1, hidden),
                ("ffn_gate", "mlp.gate_proj", self.feed_forward, hidden),
                ("ffn_up", "mlp.up_proj", self.feed_forward, hidden),
                ("ffn_down", "mlp.down_proj", hidden, self.feed_forward),
            ];
            for (ours, theirs, rows, columns) in rows_and_columns {
                let theirs = format!("model.layers.{layer}.{theirs}");
                self.tensor(&mut file, &format!("blk.{layer}.{ours}"), &theirs, rows, columns);
            }
            for (ours, theirs, rows) in [("attn_q", "q_proj", hidden), ("attn_k", "k_proj", kv)] {
                let theirs = format!("model.layers.{layer}.self_attn.{theirs}.weight");
                let weights = interleave(&self.weights(&theirs, rows, hidden), hidden, head);
                let ours = format!("blk.{layer}.{ours}.weight");
                file.tensor(&ours, TensorType::F32, hidden, &weights).unwrap();
            }
        }
        let path = folder.path().join(format!("{}.gguf", self.tag));
        std::fs::write(&path, file.finish()).unwrap();
        path
    }

    fn tensor(&self, file: &mut GgufWriter, ours: &str, theirs: &str, rows: usize, columns: usize) {
        let weights = self.weights(&format!("{theirs}.weight"), rows, columns);
        file.tensor(&format!("{ours}.weight"), TensorType::F32, columns, &weights).unwrap();
    }

    fn metadata(&self, file: &mut GgufWriter) {
        let count = |value: usize| Field::U32(u32::try_from(value).unwrap());
        let tokens: Vec<String> = (0..self.vocabulary).map(|id| format!("token{id}")).collect();
        let fields = [
            ("general.architecture", Field::Text("llama")),
            ("general.name", Field::Text(&self.tag)),
            ("llama.block_count", count(self.layers)),
            ("llama.context_length", Field::U32(512)),
            ("llama.embedding_length", count(self.hidden)),
            ("llama.feed_forward_length", count(self.feed_forward)),
            ("llama.attention.head_count", count(self.heads)),
            ("llama.attention.head_count_kv", count(self.kv_heads)),
            ("llama.attention.layer_norm_rms_epsilon", Field::F32(1e-5)),
            ("llama.rope.freq_base", Field::F32(self.rope_base)),
            ("llama.rope.dimension_count", count(self.hidden / self.heads)),
            ("llama.vocab_size", count(self.vocabulary)),
            ("tokenizer.ggml.model", Field::Text("gpt2")),
            ("tokenizer.ggml.pre", Field::Text("smollm")),
            ("tokenizer.ggml.tokens", Field::Texts(&tokens)),
            ("tokenizer.ggml.merges", Field::Texts(&[])),
            ("tokenizer.ggml.eos_token_id", Field::U32(0)),
        ];
        for (key, field) in &fields {
            file.field(key, field);
        }
    }
}

/// Rows of each head from half-split to interleaved rotary pairs, as GGUF stores Q and K.
fn interleave(weights: &[f32], columns: usize, head: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(weights.len());
    for rows in weights.chunks(head * columns) {
        let (first, second) = rows.split_at(rows.len() / 2);
        for (a, b) in first.chunks(columns).zip(second.chunks(columns)) {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
    }
    out
}

#[test]
fn the_recipe_gives_the_published_weights() {
    for model in crate::models::vectors("poc/tiny_e2e.json")["models"].as_array().unwrap() {
        let tiny = TinyModel::from_vectors(model);
        for (name, check) in model["weights_check"].as_object().unwrap() {
            let shape = crate::models::ids(&check["shape"]);
            let weights = tiny.weights(name, shape[0] as usize, shape[1] as usize);
            for (weight, want) in weights.iter().zip(check["first3"].as_array().unwrap()) {
                assert!((f64::from(*weight) - want.as_f64().unwrap()).abs() <= 1e-6, "{name}");
            }
        }
    }
}
