//! Recipes of tiny models, one for every family and every way a family may differ, as GGUF files
//! that llama.cpp loads too.

use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::llm::Architecture;

use crate::random::Random;

/// Tokens of every recipe.
pub const VOCABULARY: usize = 64;
pub const CONTEXT_TOKENS: usize = 128;

/// A model to be written. The same recipe gives the same bytes everywhere.
#[derive(Clone)]
pub struct Recipe {
    pub name: String,
    pub architecture: Architecture,
    /// Type of every matrix.
    pub kind: TensorType,
    pub layers: usize,
    hidden: usize,
    ffn: usize,
    heads: usize,
    kv_heads: usize,
    head: usize,
    tied: bool,
    /// Matrices that have biases.
    biases: &'static [&'static str],
    /// Number of experts; 0 is a feed-forward part for all tokens.
    experts: usize,
    /// Factors of the rotations, one per pair.
    rope_factors: Vec<f32>,
    /// Metadata beyond the sizes, without the architecture's prefix.
    extra: Vec<(&'static str, Field<'static>)>,
}

fn count(n: usize) -> Field<'static> {
    Field::U32(u32::try_from(n).unwrap())
}

const QKV: &[&str] = &["attn_q", "attn_k", "attn_v"];
const ALL_BIASES: &[&str] =
    &["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
/// Small, so that short prompts look beyond it.
const WINDOW: Field<'static> = Field::U32(6);

impl Recipe {
    /// The plainest model of a family whose every part is used.
    pub fn of(architecture: Architecture, kind: TensorType) -> Self {
        // Blocks of the K types are 256 weights long.
        let hidden = kind.block_weights().max(64);
        let plain = Self {
            name: format!("{}-{}", architecture.word(), kind.to_string().to_lowercase()),
            architecture,
            kind,
            layers: 2,
            hidden,
            ffn: 2 * hidden,
            heads: 4,
            kv_heads: 2,
            head: hidden / 4,
            tied: true,
            biases: &[],
            experts: 0,
            rope_factors: Vec::new(),
            extra: Vec::new(),
        };
        match architecture {
            Architecture::Llama => Self { tied: false, ..plain },
            Architecture::Qwen2 => Self { biases: QKV, ..plain },
            // The head's size is its own.
            Architecture::Qwen3 => Self { head: hidden / 2, ..plain },
            Architecture::Qwen3Moe => Self {
                ffn: hidden,
                experts: 5,
                extra: vec![
                    ("expert_count", Field::U32(5)),
                    ("expert_used_count", Field::U32(2)),
                    ("expert_feed_forward_length", count(hidden)),
                ],
                ..plain
            },
            Architecture::Gemma2 => {
                Self { layers: 3, extra: vec![("attention.sliding_window", WINDOW)], ..plain }
            }
            // Five layers with a window, one without, and one of the next round.
            Architecture::Gemma3 => Self {
                layers: 7,
                extra: vec![
                    ("attention.sliding_window", WINDOW),
                    ("rope.freq_base", Field::F32(1_000_000.0)),
                    ("rope.scaling.type", Field::Text("linear")),
                    ("rope.scaling.factor", Field::F32(8.0)),
                ],
                ..plain
            },
        }
    }

    /// A Llama with something more.
    fn llama(name: &str, extra: Vec<(&'static str, Field<'static>)>) -> Self {
        Self { name: name.to_owned(), extra, ..Self::of(Architecture::Llama, TensorType::F32) }
    }

    /// Heads of another size than the hidden size shared out, so that the scale of scores shows.
    fn wide(architecture: Architecture) -> Self {
        Self { head: 24, ..Self::of(architecture, TensorType::F32) }
    }

    /// Every recipe that llama.cpp is asked about.
    pub fn all() -> Vec<Self> {
        let kinds = TensorType::ALL.into_iter();
        let mut all: Vec<Self> = kinds
            .flat_map(|kind| Architecture::ALL.map(|architecture| Self::of(architecture, kind)))
            .collect();
        let yarn = |factor: f32| {
            vec![
                ("rope.scaling.type", Field::Text("yarn")),
                ("rope.scaling.factor", Field::F32(factor)),
                ("rope.scaling.original_context_length", Field::U32(32)),
            ]
        };
        let also = |key: &'static str, value: f32| {
            let mut fields = yarn(8.0);
            fields.push((key, Field::F32(value)));
            fields
        };
        let linear = vec![
            ("rope.scaling.type", Field::Text("linear")),
            ("rope.scaling.factor", Field::F32(4.0)),
        ];
        let base = Self::llama("llama-rope-base", vec![("rope.freq_base", Field::F32(500.0))]);
        all.extend([
            Self::llama("llama-linear", linear),
            Self::llama("llama-yarn", yarn(4.0)),
            Self::llama("llama-yarn-attn", also("rope.scaling.attn_factor", 1.2)),
            Self::llama("llama-yarn-fast", also("rope.scaling.yarn_beta_fast", 4.0)),
            Self::llama("llama-yarn-slow", also("rope.scaling.yarn_beta_slow", 0.5)),
            Self::llama("llama-yarn-ext", also("rope.scaling.yarn_ext_factor", 0.5)),
            Self::llama("llama-yarn-ext-0", also("rope.scaling.yarn_ext_factor", 0.0)),
            Self { biases: ALL_BIASES, ..Self::llama("llama-biases", vec![]) },
            Self { head: 24, kv_heads: 1, ..Self::llama("llama-head-24", vec![]) },
            Self {
                rope_factors: vec![1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0],
                ..Self::llama("llama-factors", vec![("rope.freq_base", Field::F32(500_000.0))])
            },
            base,
            Self { name: "gemma2-27b".to_owned(), layers: 46, ..Self::wide(Architecture::Gemma2) },
            Self { name: "gemma3-27b".to_owned(), layers: 62, ..Self::wide(Architecture::Gemma3) },
            Self {
                name: "qwen3-yarn".to_owned(),
                extra: yarn(2.0),
                ..Self::of(Architecture::Qwen3, TensorType::F32)
            },
        ]);
        all
    }

    /// The same model with another value of one key, or one key more.
    pub fn with(mut self, key: &'static str, field: Field<'static>) -> Self {
        self.extra.retain(|(extra, _)| *extra != key);
        self.extra.push((key, field));
        self
    }

    /// The same model with a tensor more.
    pub fn with_rope_factors(mut self, factors: Vec<f32>) -> Self {
        self.rope_factors = factors;
        self
    }

    /// The same model with biases where its family has none.
    pub fn with_biases(mut self, biases: &'static [&'static str]) -> Self {
        self.biases = biases;
        self
    }

    /// The file, and the same model with every weight as f32.
    pub fn files(&self) -> (Vec<u8>, Vec<u8>) {
        let bytes = self.write(|writer, name, columns, weights| {
            writer.tensor(name, self.kind, columns, weights).unwrap();
        });
        let file = GgufFile::from_bytes(bytes.clone()).unwrap();
        let dequantised = self.write(|writer, name, columns, _| {
            let weights = file.weights(file.require_tensor(name).unwrap());
            writer.tensor(name, TensorType::F32, columns, &weights).unwrap();
        });
        (bytes, dequantised)
    }

    /// Matrices go through `matrix`; vectors are f32 always.
    fn write(&self, matrix: impl Fn(&mut GgufWriter, &str, usize, &[f32])) -> Vec<u8> {
        let mut writer = GgufWriter::default();
        self.metadata(&mut writer);
        let mut random = Random::new(self.architecture.word().len() as u64 + 40);
        let hidden = self.hidden;
        let (queries, keys) = (self.heads * self.head, self.kv_heads * self.head);
        // Spread so that scores and logits are a few units: neither flat nor certain.
        let mut put_matrix = |writer: &mut GgufWriter, name: &str, rows: usize, columns: usize| {
            let size = 2.5 / (columns as f32).sqrt();
            let weights: Vec<f32> =
                random.floats(rows * columns).iter().map(|w| w * size).collect();
            matrix(writer, &format!("{name}.weight"), columns, &weights);
        };
        put_matrix(&mut writer, "token_embd", VOCABULARY, hidden);
        if !self.tied {
            put_matrix(&mut writer, "output", VOCABULARY, hidden);
        }
        for layer in 0..self.layers {
            let attention = [
                ("attn_q", queries, hidden),
                ("attn_k", keys, hidden),
                ("attn_v", keys, hidden),
                ("attn_output", hidden, queries),
            ];
            let dense = [
                ("ffn_gate", self.ffn, hidden),
                ("ffn_up", self.ffn, hidden),
                ("ffn_down", hidden, self.ffn),
            ];
            let stacks = [
                ("ffn_gate_exps", self.experts * self.ffn, hidden),
                ("ffn_up_exps", self.experts * self.ffn, hidden),
                ("ffn_down_exps", self.experts * hidden, self.ffn),
            ];
            let feed_forward = if self.experts == 0 { dense } else { stacks };
            for (name, rows, columns) in attention.into_iter().chain(feed_forward) {
                put_matrix(&mut writer, &format!("blk.{layer}.{name}"), rows, columns);
                if name.ends_with("_exps") {
                    writer.stacked(self.experts);
                }
            }
        }
        self.vectors(&mut writer);
        writer.finish()
    }

    fn vectors(&self, writer: &mut GgufWriter) {
        let mut random = Random::new(50);
        let mut put = |writer: &mut GgufWriter, name: &str, width: usize, centre: f32| {
            let weights: Vec<f32> = random.floats(width).iter().map(|w| centre + 0.3 * w).collect();
            writer.tensor(name, TensorType::F32, width, &weights).unwrap();
        };
        let family = self.architecture.family();
        put(writer, "output_norm.weight", self.hidden, 1.0);
        for layer in 0..self.layers {
            let mut norm = |name: &str, width: usize| {
                put(writer, &format!("blk.{layer}.{name}.weight"), width, 1.0);
            };
            norm("attn_norm", self.hidden);
            norm("ffn_norm", self.hidden);
            if family.head_norms {
                norm("attn_q_norm", self.head);
                norm("attn_k_norm", self.head);
            }
            if family.post_norms {
                norm("post_attention_norm", self.hidden);
                norm("post_ffw_norm", self.hidden);
            }
            if family.experts {
                // The router stays f32 in published files.
                let mut random = Random::new(60 + layer as u64);
                let weights: Vec<f32> = random
                    .floats(self.experts * self.hidden)
                    .iter()
                    .map(|weight| 0.3 * weight)
                    .collect();
                let name = format!("blk.{layer}.ffn_gate_inp.weight");
                writer.tensor(&name, TensorType::F32, self.hidden, &weights).unwrap();
            }
            for name in self.biases {
                let width = match *name {
                    "attn_q" => self.heads * self.head,
                    "attn_k" | "attn_v" => self.kv_heads * self.head,
                    "ffn_gate" | "ffn_up" => self.ffn,
                    _ => self.hidden,
                };
                put(writer, &format!("blk.{layer}.{name}.bias"), width, 0.0);
            }
        }
        if !self.rope_factors.is_empty() {
            let factors = &self.rope_factors;
            writer.tensor("rope_freqs.weight", TensorType::F32, factors.len(), factors).unwrap();
        }
    }

    fn metadata(&self, writer: &mut GgufWriter) {
        let word = self.architecture.word();
        writer.field("general.architecture", &Field::Text(word));
        let sizes = [
            ("block_count", count(self.layers)),
            ("context_length", count(CONTEXT_TOKENS)),
            ("embedding_length", count(self.hidden)),
            ("feed_forward_length", count(self.ffn)),
            ("attention.head_count", count(self.heads)),
            ("attention.head_count_kv", count(self.kv_heads)),
            ("attention.key_length", count(self.head)),
            ("attention.value_length", count(self.head)),
            ("attention.layer_norm_rms_epsilon", Field::F32(1e-6)),
        ];
        let own = |key: &str| self.extra.iter().any(|(extra, _)| *extra == key);
        for (key, field) in sizes.iter().filter(|(key, _)| !own(key)).chain(&self.extra) {
            writer.field(&format!("{word}.{key}"), field);
        }
        // Names of no meaning, and the newline that llama.cpp looks for.
        let tokens: Vec<String> = (0..VOCABULARY)
            .map(|id| if id == 10 { "\u{10a}".to_owned() } else { format!("token{id}") })
            .collect();
        let fields = [
            ("tokenizer.ggml.model", Field::Text("gpt2")),
            ("tokenizer.ggml.pre", Field::Text("smollm")),
            ("tokenizer.ggml.tokens", Field::Texts(&tokens)),
            ("tokenizer.ggml.token_type", Field::I32s(&[1; VOCABULARY])),
            ("tokenizer.ggml.merges", Field::Texts(&[])),
            ("tokenizer.ggml.bos_token_id", Field::U32(0)),
            ("tokenizer.ggml.eos_token_id", Field::U32(0)),
        ];
        for (key, field) in &fields {
            writer.field(key, field);
        }
    }
}
