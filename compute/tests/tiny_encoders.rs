//! Hugging Face folders of tiny encoders with random weights, the same bytes at every run.

use std::fs::{create_dir_all, write};
use std::path::Path;

use roadbed_compute::embedding::Pooling;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::encode::encode;
use serde_json::{Value, json};

use crate::folders::{Tensor, safetensors};
use crate::random::Random;

pub const VOCABULARY: usize = 60;

/// What a folder is made of.
#[derive(Clone)]
pub struct Recipe {
    pub name: &'static str,
    pub kind: TensorType,
    pub hidden: usize,
    pub heads: usize,
    pub ffn: usize,
    pub layers: usize,
    /// Tokens of the longest text.
    pub tokens: usize,
    pub activation: &'static str,
    /// `None`: a plain folder of transformers, without modules.
    pub pooling: Option<Pooling>,
    pub normalises: bool,
    /// RoBERTa's config and positions.
    pub roberta: bool,
    /// In front of every tensor's name.
    pub prefix: &'static str,
}

/// The models that the goldens are about.
pub fn all() -> Vec<Recipe> {
    let base = Recipe {
        name: "cls-gelu-f32",
        kind: TensorType::F32,
        hidden: 64,
        heads: 4,
        ffn: 96,
        layers: 2,
        tokens: 40,
        activation: "gelu",
        pooling: Some(Pooling::Cls),
        normalises: true,
        roberta: false,
        prefix: "",
    };
    vec![
        base.clone(),
        Recipe {
            name: "mean-tanh-f16",
            kind: TensorType::F16,
            hidden: 96,
            heads: 3,
            ffn: 160,
            layers: 3,
            activation: "gelu_new",
            pooling: Some(Pooling::Mean),
            normalises: false,
            ..base.clone()
        },
        Recipe {
            name: "max-relu-bf16",
            kind: TensorType::Bf16,
            hidden: 32,
            heads: 8,
            ffn: 64,
            activation: "relu",
            pooling: Some(Pooling::Max),
            ..base.clone()
        },
        Recipe {
            name: "plain-silu-f32",
            hidden: 256,
            heads: 2,
            ffn: 32,
            layers: 1,
            activation: "silu",
            pooling: None,
            normalises: false,
            prefix: "bert.",
            ..base.clone()
        },
        Recipe {
            name: "roberta-mean-f32",
            hidden: 32,
            heads: 1,
            ffn: 224,
            tokens: 37,
            pooling: Some(Pooling::Mean),
            roberta: true,
            ..base
        },
    ]
}

/// Texts as ids: from one token to the longest. RoBERTa's padding token has no position, so it is left out.
pub fn texts(recipe: &Recipe) -> Vec<Vec<u32>> {
    [1, 2, 7, 16, recipe.tokens]
        .into_iter()
        .enumerate()
        .map(|(text, length)| {
            let id = |i: usize| 2 + (i * 29 + i * i * 5 + 11 * text) % (VOCABULARY - 2);
            (0..length).map(|i| id(i) as u32).collect()
        })
        .collect()
}

impl Recipe {
    pub fn config(&self) -> Value {
        let extra = if self.roberta { 2 } else { 0 };
        json!({
            "model_type": if self.roberta { "roberta" } else { "bert" },
            "architectures": [if self.roberta { "RobertaModel" } else { "BertModel" }],
            "num_hidden_layers": self.layers, "hidden_size": self.hidden,
            "intermediate_size": self.ffn, "num_attention_heads": self.heads,
            "max_position_embeddings": self.tokens + extra, "type_vocab_size": 2,
            "vocab_size": VOCABULARY, "hidden_act": self.activation, "layer_norm_eps": 1e-12,
            "pad_token_id": if self.roberta { 1 } else { 0 },
        })
    }

    pub fn tensors(&self) -> Vec<Tensor> {
        let mut random = Random::new(61 + self.hidden as u64);
        let mut tensors = Vec::new();
        let (hidden, ffn) = (self.hidden, self.ffn);
        let mut add = |name: &str, shape: &[usize], spread: f32, centre: f32| {
            let count = shape.iter().product();
            let weights: Vec<f32> =
                random.floats(count).iter().map(|v| v * spread + centre).collect();
            let dtype = match self.kind {
                TensorType::F16 => "F16",
                TensorType::Bf16 => "BF16",
                _ => "F32",
            };
            let (name, data) = (format!("{}{name}", self.prefix), encode(self.kind, &weights));
            tensors.push(Tensor { name, dtype, shape: shape.to_vec(), data });
        };
        let positions = self.config()["max_position_embeddings"].as_u64().unwrap() as usize;
        add("embeddings.word_embeddings.weight", &[VOCABULARY, hidden], 1.0, 0.0);
        add("embeddings.position_embeddings.weight", &[positions, hidden], 0.5, 0.0);
        add("embeddings.token_type_embeddings.weight", &[2, hidden], 0.5, 0.0);
        add("embeddings.LayerNorm.weight", &[hidden], 0.2, 1.0);
        add("embeddings.LayerNorm.bias", &[hidden], 0.2, 0.0);
        for layer in 0..self.layers {
            let parts = [
                ("attention.self.query", hidden, hidden),
                ("attention.self.key", hidden, hidden),
                ("attention.self.value", hidden, hidden),
                ("attention.output.dense", hidden, hidden),
                ("intermediate.dense", ffn, hidden),
                ("output.dense", hidden, ffn),
            ];
            for (part, rows, columns) in parts {
                let spread = 2.0 / (columns as f32).sqrt();
                let name = format!("encoder.layer.{layer}.{part}");
                add(&format!("{name}.weight"), &[rows, columns], spread, 0.0);
                add(&format!("{name}.bias"), &[rows], 0.2, 0.0);
            }
            for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
                let name = format!("encoder.layer.{layer}.{part}");
                add(&format!("{name}.weight"), &[hidden], 0.2, 1.0);
                add(&format!("{name}.bias"), &[hidden], 0.2, 0.0);
            }
        }
        // Of no use for embeddings, and in most folders.
        add("pooler.dense.weight", &[hidden, hidden], 0.1, 0.0);
        add("pooler.dense.bias", &[hidden], 0.1, 0.0);
        if self.pooling.is_none() {
            let data = (0..self.tokens as i64).flat_map(i64::to_le_bytes).collect();
            let name = format!("{}embeddings.position_ids", self.prefix);
            tensors.push(Tensor { name, dtype: "I64", shape: vec![1, self.tokens], data });
        }
        tensors
    }

    /// Writes the whole folder and returns the bytes of its weights.
    pub fn write(&self, folder: &Path) -> Vec<u8> {
        let weights = safetensors(&self.tensors());
        write(folder.join("model.safetensors"), &weights).unwrap();
        write(folder.join("config.json"), self.config().to_string()).unwrap();
        let Some(pooling) = self.pooling else { return weights };
        let of = |kind: &str, path: &str| json!({"path": path, "type": format!("sentence_transformers.models.{kind}")});
        let mut modules = vec![of("Transformer", ""), of("Pooling", "1_Pooling")];
        if self.normalises {
            modules.push(of("Normalize", "2_Normalize"));
        }
        write(folder.join("modules.json"), json!(modules).to_string()).unwrap();
        create_dir_all(folder.join("1_Pooling")).unwrap();
        let pooling = json!({
            "word_embedding_dimension": self.hidden,
            "pooling_mode_cls_token": pooling == Pooling::Cls,
            "pooling_mode_mean_tokens": pooling == Pooling::Mean,
            "pooling_mode_max_tokens": pooling == Pooling::Max,
            "pooling_mode_mean_sqrt_len_tokens": false,
        });
        write(folder.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
        weights
    }
}
