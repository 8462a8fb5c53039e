//! Shape of a model, read from its metadata and checked before anything is allocated.

use crate::gguf::{GgufError, GgufFile, TensorEntry};

use super::error::EngineError;

/// Bounds on what a file may claim; several times the largest published dense model.
const LAYERS_MAX: usize = 1024;
const WIDTH_MAX: usize = 1 << 17;
const HEAD_MAX: usize = 512;
const VOCABULARY_MAX: usize = 1 << 21;
/// Weights come in blocks of 32, and so do the rows every matrix is multiplied with.
const BLOCK: usize = 32;

/// A Llama-family model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: String,
    pub layers: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Floats per head.
    pub head: usize,
    /// Floats per head that turn with the position.
    pub rope: usize,
    pub rope_base: f64,
    /// Positions are divided by this (linear rope scaling).
    pub rope_scale: f64,
    pub epsilon: f32,
    /// Context the model was trained for.
    pub context_tokens: usize,
    pub vocabulary: usize,
    /// True if the output matrix is the embedding table.
    pub tied: bool,
}

fn unsupported(reason: impl Into<String>) -> EngineError {
    EngineError::UnsupportedModel { reason: reason.into() }
}

impl ModelConfig {
    /// Reads and checks the shape of a model file, its tensors' shapes included.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, EngineError> {
        let metadata = &file.metadata;
        let architecture = metadata.require_string("general.architecture")?.to_owned();
        if architecture != "llama" {
            return Err(unsupported(format!("architecture '{architecture}'; 'llama' is known")));
        }
        let key = |name: &str| format!("{architecture}.{name}");
        let count = |name: &str| metadata.require_count(&key(name));
        let hidden = count("embedding_length")?;
        let heads = count("attention.head_count")?;
        let head = match metadata.count(&key("attention.key_length"))? {
            Some(head) => head,
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        let config = Self {
            layers: count("block_count")?,
            ffn: count("feed_forward_length")?,
            kv_heads: metadata.count(&key("attention.head_count_kv"))?.unwrap_or(heads),
            rope: metadata.count(&key("rope.dimension_count"))?.unwrap_or(head),
            rope_base: metadata.float(&key("rope.freq_base"))?.unwrap_or(10_000.0),
            rope_scale: rope_scale(file, &architecture)?,
            epsilon: metadata.float(&key("attention.layer_norm_rms_epsilon"))?.unwrap_or(1e-5)
                as f32,
            context_tokens: count("context_length")?,
            vocabulary: file.require_tensor("token_embd.weight")?.rows,
            tied: file.tensor("output.weight").is_none(),
            architecture,
            hidden,
            heads,
            head,
        };
        config.check()?;
        if metadata.count(&key_of(&config, "expert_count"))?.unwrap_or(0) > 0 {
            return Err(unsupported("mixture-of-experts models are not known"));
        }
        config.check_tensors(file)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), EngineError> {
        let within = |what: &str, value: usize, max: usize, multiple: usize| {
            if value == 0 || value > max || !value.is_multiple_of(multiple) {
                Err(unsupported(format!(
                    "{what} is {value}; expected a multiple of {multiple} from {multiple} to {max}"
                )))
            } else {
                Ok(())
            }
        };
        within("layer count", self.layers, LAYERS_MAX, 1)?;
        within("hidden size", self.hidden, WIDTH_MAX, BLOCK)?;
        within("feed-forward size", self.ffn, WIDTH_MAX, BLOCK)?;
        within("head size", self.head, HEAD_MAX, 4)?;
        within("query heads", self.heads, WIDTH_MAX / self.head, 1)?;
        within("query width", self.heads * self.head, WIDTH_MAX, BLOCK)?;
        within("KV heads", self.kv_heads, self.heads, 1)?;
        within("rope dimensions", self.rope, self.head, 2)?;
        within("vocabulary", self.vocabulary, VOCABULARY_MAX, 1)?;
        within("context", self.context_tokens, 1 << 24, 1)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(unsupported(format!(
                "{} query heads are no multiple of {} KV heads",
                self.heads, self.kv_heads
            )));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.rope_base) || !positive(self.rope_scale) || self.epsilon < 0.0 {
            return Err(unsupported("rope base or norm epsilon is not positive"));
        }
        Ok(())
    }

    fn check_tensors(&self, file: &GgufFile) -> Result<(), EngineError> {
        for layer in 0..self.layers {
            for (name, rows, columns) in self.layer_tensors() {
                shaped(file, &format!("blk.{layer}.{name}.weight"), rows, columns)?;
                let bias = format!("blk.{layer}.{name}.bias");
                if file.tensor(&bias).is_some() {
                    return Err(unsupported(format!("{bias}: biases are not known")));
                }
            }
        }
        shaped(file, "output_norm.weight", 1, self.hidden)?;
        shaped(file, "token_embd.weight", self.vocabulary, self.hidden)?;
        if !self.tied {
            shaped(file, "output.weight", self.vocabulary, self.hidden)?;
        }
        Ok(())
    }

    /// Name, rows and columns of a layer's tensors.
    fn layer_tensors(&self) -> [(&'static str, usize, usize); 9] {
        let (queries, keys) = (self.heads * self.head, self.kv_heads * self.head);
        [
            ("attn_norm", 1, self.hidden),
            ("attn_q", queries, self.hidden),
            ("attn_k", keys, self.hidden),
            ("attn_v", keys, self.hidden),
            ("attn_output", self.hidden, queries),
            ("ffn_norm", 1, self.hidden),
            ("ffn_gate", self.ffn, self.hidden),
            ("ffn_up", self.ffn, self.hidden),
            ("ffn_down", self.hidden, self.ffn),
        ]
    }

    /// Floats of queries, keys and values of one token.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head
    }

    /// (cos, sin) of every position and pair, computed in f64: `[positions, rope / 2]`.
    /// `factors` divide the frequencies (the optional tensor `rope_freqs.weight` of Llama 3.1).
    #[must_use]
    pub fn rope_angles(&self, positions: usize, factors: Option<&[f32]>) -> Vec<[f32; 2]> {
        let pairs = self.rope / 2;
        let frequencies: Vec<f64> = (0..pairs)
            .map(|pair| {
                let exponent = -2.0 * pair as f64 / self.rope as f64;
                let factor = factors.and_then(|f| f.get(pair)).map_or(1.0, |f| f64::from(*f));
                self.rope_base.powf(exponent) / factor / self.rope_scale
            })
            .collect();
        (0..positions)
            .flat_map(|position| {
                frequencies.iter().map(move |frequency| {
                    let (sin, cos) = (position as f64 * frequency).sin_cos();
                    [cos as f32, sin as f32]
                })
            })
            .collect()
    }
}

fn key_of(config: &ModelConfig, name: &str) -> String {
    format!("{}.{name}", config.architecture)
}

fn rope_scale(file: &GgufFile, architecture: &str) -> Result<f64, EngineError> {
    let kind = format!("{architecture}.rope.scaling.type");
    match file.metadata.string(&kind)? {
        None | Some("none") => Ok(1.0),
        Some("linear") => {
            let factor = format!("{architecture}.rope.scaling.factor");
            Ok(file.metadata.float(&factor)?.unwrap_or(1.0))
        }
        Some(other) => Err(unsupported(format!("rope scaling '{other}'"))),
    }
}

/// A tensor that must have exactly this shape.
fn shaped<'f>(
    file: &'f GgufFile,
    name: &str,
    rows: usize,
    columns: usize,
) -> Result<&'f TensorEntry, GgufError> {
    let entry = file.require_tensor(name)?;
    if (entry.rows, entry.columns) != (rows, columns) {
        return Err(GgufError::Tensor {
            name: name.to_owned(),
            reason: format!("is {} x {}, expected {rows} x {columns}", entry.rows, entry.columns),
        });
    }
    Ok(entry)
}
