//! The shape of an encoder, read from metadata and checked before anything is computed with it.
//!
//! Keys are those of llama.cpp's `bert` architecture. What sentence-transformers says beside them and
//! GGUF has no key for is under `roadbed.`: a folder's files are shown by these keys
//! (`safetensors/encoder.rs`).

use crate::gguf::Metadata;
use crate::kernels::encoder::{Activation, HEAD_MAX, Pooling};
use crate::llm::EngineError;
use crate::llm::packing::BLOCK;
use crate::source::WeightSource;

use super::tensors;

/// The word for all encoders of BERT's kind, RoBERTa's among them.
pub const ARCHITECTURE: &str = "bert";

pub(crate) const POOLING: &str = "roadbed.pooling";
pub(crate) const NORMALISES: &str = "roadbed.normalise";
pub(crate) const ACTIVATION: &str = "roadbed.activation";
pub(crate) const TOKENS_MAX: &str = "roadbed.tokens_max";
pub(crate) const POSITION_FIRST: &str = "roadbed.position_first";
pub(crate) const LOWERCASES: &str = "roadbed.lowercase";

/// No published encoder has a tenth of this.
const LAYERS_MAX: usize = 1024;
/// Largest width; keeps every product of two sizes far from overflowing.
const WIDTH_MAX: usize = 1 << 16;
/// Longest text: attention's work on one text grows with its square, and a dispatch must stay short.
const POSITIONS_MAX: usize = 1 << 14;

/// What an encoder is.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    pub layers: usize,
    /// Floats of a row, and of an embedding.
    pub hidden: usize,
    pub ffn: usize,
    pub heads: usize,
    /// Floats per head.
    pub head: usize,
    pub vocabulary: usize,
    /// Rows of the table of positions, and which of them a text's first token takes.
    pub positions: usize,
    pub position_first: usize,
    /// Tokens of the longest text, those that the model puts around it included.
    pub tokens_max: usize,
    pub epsilon: f32,
    pub activation: Activation,
    pub pooling: Pooling,
    /// Embeddings have unit length.
    pub normalises: bool,
    /// Texts are lower-cased before the tokenizer sees them.
    pub lowercases: bool,
}

fn unsupported(reason: impl Into<String>) -> EngineError {
    EngineError::UnsupportedModel { reason: reason.into() }
}

fn within(what: &str, value: usize, max: usize, multiple: usize) -> Result<(), EngineError> {
    if value == 0 || value > max || !value.is_multiple_of(multiple) {
        return Err(unsupported(format!(
            "{what} is {value}; expected 1 to {max}, a multiple of {multiple}"
        )));
    }
    Ok(())
}

impl EncoderConfig {
    /// True if this is an encoder, which language models' engine does not run.
    #[must_use]
    pub fn is_encoder(metadata: &Metadata) -> bool {
        metadata.string("general.architecture").is_ok_and(|word| word == Some(ARCHITECTURE))
    }

    /// Reads and checks the shape of a model, its tensors' shapes included.
    pub fn from_source(file: &dyn WeightSource) -> Result<Self, EngineError> {
        let metadata = file.metadata();
        let word = metadata.require_string("general.architecture")?;
        if word != ARCHITECTURE {
            return Err(unsupported(format!(
                "architecture '{word}' gives no embeddings here; known are encoders of the '{ARCHITECTURE}' family"
            )));
        }
        let key = |name: &str| format!("{ARCHITECTURE}.{name}");
        let count = |name: &str| metadata.require_count(&key(name));
        let (layers, hidden) = (count("block_count")?, count("embedding_length")?);
        let (ffn, heads) = (count("feed_forward_length")?, count("attention.head_count")?);
        within("layer count", layers, LAYERS_MAX, 1)?;
        within("hidden size", hidden, WIDTH_MAX, BLOCK)?;
        within("feed-forward size", ffn, WIDTH_MAX, BLOCK)?;
        within("number of heads", heads, hidden, 1)?;
        if !hidden.is_multiple_of(heads) {
            return Err(unsupported(format!("{heads} heads do not share {hidden} floats evenly")));
        }
        within("head size", hidden / heads, HEAD_MAX, 4)?;
        let positions = file.require_tensor("position_embd.weight")?.rows;
        let position_first = metadata.count(POSITION_FIRST)?.unwrap_or(0);
        let room = positions.saturating_sub(position_first);
        let context = count("context_length")?.min(room).min(POSITIONS_MAX);
        within("number of positions", context, POSITIONS_MAX, 1)?;
        let epsilon = metadata.float(&key("attention.layer_norm_epsilon"))?.unwrap_or(1e-12);
        if !(0.0..=1.0).contains(&epsilon) {
            return Err(unsupported(format!("the norms' epsilon is {epsilon}; expected 0 to 1")));
        }
        let config = Self {
            layers,
            hidden,
            ffn,
            heads,
            head: hidden / heads,
            vocabulary: file.require_tensor("token_embd.weight")?.rows,
            positions,
            position_first,
            tokens_max: metadata.count(TOKENS_MAX)?.unwrap_or(context).clamp(1, context),
            epsilon: epsilon as f32,
            activation: activation(metadata)?,
            pooling: pooling(metadata)?,
            // llama.cpp normalises what its files leave open, and so does whoever compares embeddings.
            normalises: metadata.bool(NORMALISES)?.unwrap_or(true),
            lowercases: metadata.bool(LOWERCASES)?.unwrap_or(false),
        };
        tensors::check(file, &config)?;
        Ok(config)
    }

    /// Multiplications and additions of one row in one layer, in a text of `tokens` tokens.
    #[must_use]
    pub(super) fn layer_flop(&self, tokens: usize) -> f64 {
        let products = 4 * self.hidden * self.hidden + 2 * self.hidden * self.ffn;
        2.0 * products as f64 + 4.0 * (tokens * self.hidden) as f64
    }
}

fn activation(metadata: &Metadata) -> Result<Activation, EngineError> {
    // Hugging Face's names (transformers, `activations.py`).
    Ok(match metadata.string(ACTIVATION)?.unwrap_or("gelu") {
        "gelu" | "gelu_python" => Activation::GeluErf,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        other => {
            return Err(unsupported(format!(
                "activation '{other}'; known are gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu and silu"
            )));
        }
    })
}

fn pooling(metadata: &Metadata) -> Result<Pooling, EngineError> {
    match metadata.string(POOLING)? {
        Some("cls") => return Ok(Pooling::Cls),
        Some("mean") => return Ok(Pooling::Mean),
        Some("max") => return Ok(Pooling::Max),
        Some(other) => {
            return Err(unsupported(format!("pooling '{other}'; known are cls, mean and max")));
        }
        None => {}
    }
    // llama.cpp, `enum llama_pooling_type`.
    match metadata.count(&format!("{ARCHITECTURE}.pooling_type"))? {
        None | Some(1) => Ok(Pooling::Mean),
        Some(2) => Ok(Pooling::Cls),
        Some(other) => {
            Err(unsupported(format!("pooling type {other}; known are 1 (mean) and 2 (cls)")))
        }
    }
}
