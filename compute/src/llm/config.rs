//! Shape of a model, read from its metadata and checked before anything is allocated.

use crate::gguf::{GgufError, Metadata};
use crate::source::WeightSource;

use super::architecture::{Architecture, Family, Windows};
use super::error::EngineError;
use super::rope::Rope;
use super::tensors;

/// Bounds on what a file may claim; several times the largest published dense model.
const LAYERS_MAX: usize = 1024;
const WIDTH_MAX: usize = 1 << 17;
const HEAD_MAX: usize = 512;
const VOCABULARY_MAX: usize = 1 << 21;
const CONTEXT_MAX: usize = 1 << 24;
const EXPERTS_MAX: usize = 1024;
/// Experts of one token; the kernel that chooses them looks at every expert so many times.
const EXPERTS_USED_MAX: usize = 32;
/// Weights come in blocks of 32, and so do the rows every matrix is multiplied with.
const BLOCK: usize = 32;

/// Feed-forward parts of which every token goes through a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    pub count: usize,
    /// How many a token goes through.
    pub used: usize,
    /// Floats of one token between gate and down of one expert.
    pub ffn: usize,
}

/// Everything about a model but its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub layers: usize,
    pub hidden: usize,
    /// Floats of one token between gate and down; of its experts together, where there are any.
    pub ffn: usize,
    /// `None` where the feed-forward part is one and the same for all tokens.
    pub experts: Option<Experts>,
    pub heads: usize,
    pub kv_heads: usize,
    /// Floats per head.
    pub head: usize,
    pub rope: Rope,
    /// Rotations of layers with a window.
    pub local_rope: Rope,
    pub epsilon: f32,
    /// Context the model was trained for.
    pub context_tokens: usize,
    pub vocabulary: usize,
    /// True if the output matrix is the embedding table.
    pub tied: bool,
    /// Positions a layer with a window sees, its own included; 0 is no window anywhere.
    pub window: usize,
    /// Products of queries and keys are multiplied by this.
    pub score_scale: f32,
    /// A score s becomes `cap * tanh(s / cap)`; 0 leaves it.
    pub score_softcap: f32,
    /// The same for logits.
    pub logit_softcap: f32,
    /// Embeddings of tokens are multiplied by this.
    pub embedding_scale: f32,
}

fn unsupported(reason: impl Into<String>) -> EngineError {
    EngineError::UnsupportedModel { reason: reason.into() }
}

impl ModelConfig {
    /// Reads and checks the shape of a model, its tensors' shapes included.
    pub fn from_source(file: &dyn WeightSource) -> Result<Self, EngineError> {
        let config = Self::from_metadata(
            file.metadata(),
            file.require_tensor("token_embd.weight").map(|table| table.rows),
            file.tensor("output.weight").is_none(),
        )?;
        tensors::check(file, &config)?;
        Ok(config)
    }

    fn from_metadata(
        metadata: &Metadata,
        vocabulary: Result<usize, GgufError>,
        tied: bool,
    ) -> Result<Self, EngineError> {
        let word = metadata.require_string("general.architecture")?;
        let architecture = Architecture::from_word(word).ok_or_else(|| {
            let known = Architecture::ALL.map(Architecture::word).join(", ");
            unsupported(match word == crate::embedding::ARCHITECTURE {
                true => "it is an encoder: it gives embeddings (serve --embeddings) and no text"
                    .to_owned(),
                false => format!("architecture '{word}'; known are {known}"),
            })
        })?;
        let family = architecture.family();
        let key = |name: &str| format!("{word}.{name}");
        let count = |name: &str| metadata.require_count(&key(name));
        let float = |name: &str| metadata.float(&key(name));
        let layers = count("block_count")?;
        let hidden = count("embedding_length")?;
        let heads = count("attention.head_count")?;
        let head = head_size(metadata, word, hidden.checked_div(heads).unwrap_or(0))?;
        let context_tokens = count("context_length")?;
        // Before anything divides by a size.
        within("layer count", layers, LAYERS_MAX, 1)?;
        within("hidden size", hidden, WIDTH_MAX, BLOCK)?;
        within("head size", head, HEAD_MAX, 4)?;
        within("query heads", heads, WIDTH_MAX / head, 1)?;
        within("context", context_tokens, CONTEXT_MAX, 1)?;
        let rope = Rope::from_metadata(metadata, architecture, head, context_tokens)?;
        let given_local_base = float("rope.freq_base_swa")?;
        let local_rope = match given_local_base.or(family.local_rope_base) {
            Some(base) => rope.local(base, head)?,
            None => rope.clone(),
        };
        let experts = experts(metadata, word, family)?;
        let score_width =
            if family.wide_score_scale_layers == Some(layers) { hidden / heads } else { head };
        let config = Self {
            architecture,
            layers,
            hidden,
            ffn: match experts {
                Some(experts) => experts.used * experts.ffn,
                None => count("feed_forward_length")?,
            },
            experts,
            heads,
            kv_heads: metadata.count(&key("attention.head_count_kv"))?.unwrap_or(heads),
            head,
            rope,
            local_rope,
            epsilon: float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32,
            context_tokens,
            vocabulary: vocabulary?,
            tied,
            window: window(metadata, &key("attention.sliding_window"), family)?,
            score_scale: (1.0 / (score_width as f64).sqrt()) as f32,
            score_softcap: match family.score_softcap == 0.0 {
                true => 0.0,
                false => float("attn_logit_softcapping")?.unwrap_or(family.score_softcap) as f32,
            },
            logit_softcap: float("final_logit_softcapping")?.unwrap_or(family.logit_softcap) as f32,
            embedding_scale: match family.scaled_embeddings {
                true => (hidden as f64).sqrt() as f32,
                false => 1.0,
            },
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), EngineError> {
        within("feed-forward size", self.ffn, WIDTH_MAX, BLOCK)?;
        within("query width", self.heads * self.head, WIDTH_MAX, BLOCK)?;
        within("KV heads", self.kv_heads, self.heads, 1)?;
        within("vocabulary", self.vocabulary, VOCABULARY_MAX, 1)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(unsupported(format!(
                "{} query heads are no multiple of {} KV heads",
                self.heads, self.kv_heads
            )));
        }
        let sane = |what: &str, value: f32, most: f32| {
            if value.is_finite() && (0.0..=most).contains(&value) {
                Ok(())
            } else {
                Err(unsupported(format!("{what} is {value}; expected 0 to {most}")))
            }
        };
        sane("norm epsilon", self.epsilon, 1.0)?;
        sane("softcap of attention scores", self.score_softcap, 1e6)?;
        sane("softcap of logits", self.logit_softcap, 1e6)
    }

    /// What the model's family has in common.
    #[must_use]
    pub fn family(&self) -> Family {
        self.architecture.family()
    }

    /// True if the layer sees only the nearest positions.
    #[must_use]
    pub fn is_local(&self, layer: usize) -> bool {
        self.window > 0
            && match self.family().windows {
                Windows::Never => false,
                Windows::Every => true,
                Windows::AllButLast { period, .. } => layer % period < period - 1,
            }
    }

    /// Positions the layer sees, its own included; 0 is all of them.
    #[must_use]
    pub fn layer_window(&self, layer: usize) -> usize {
        if self.is_local(layer) { self.window } else { 0 }
    }

    /// The layer's rotations.
    #[must_use]
    pub fn layer_rope(&self, layer: usize) -> &Rope {
        if self.is_local(layer) { &self.local_rope } else { &self.rope }
    }

    /// Floats of queries, keys and values of one token.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head
    }
}

fn within(what: &str, value: usize, max: usize, multiple: usize) -> Result<(), EngineError> {
    if value == 0 || value > max || !value.is_multiple_of(multiple) {
        return Err(unsupported(format!(
            "{what} is {value}; expected a multiple of {multiple} from {multiple} to {max}"
        )));
    }
    Ok(())
}

/// Floats per head: the file's, or the hidden size shared out.
fn head_size(metadata: &Metadata, word: &str, shared_out: usize) -> Result<usize, EngineError> {
    let length = |name: &str| metadata.count(&format!("{word}.attention.{name}"));
    let head = length("key_length")?.unwrap_or(shared_out);
    match length("value_length")? {
        Some(values) if values != head => Err(unsupported(format!(
            "heads of {head} floats for keys and {values} for values; they must be equal"
        ))),
        Some(_) | None => Ok(head),
    }
}

/// The experts of a family that has them. Keys: llama.cpp `src/llama-arch.cpp`; shares are the softmax over
/// the chosen and nothing else multiplies them (`src/models/qwen3moe.cpp`).
fn experts(
    metadata: &Metadata,
    word: &str,
    family: Family,
) -> Result<Option<Experts>, EngineError> {
    let key = |name: &str| format!("{word}.{name}");
    if !family.experts {
        return match metadata.count(&key("expert_count"))?.unwrap_or(0) {
            0 => Ok(None),
            count => Err(unsupported(format!("{count} experts in a model of '{word}'"))),
        };
    }
    let experts = Experts {
        count: metadata.require_count(&key("expert_count"))?,
        used: metadata.require_count(&key("expert_used_count"))?,
        ffn: metadata.require_count(&key("expert_feed_forward_length"))?,
    };
    within("expert count", experts.count, EXPERTS_MAX, 1)?;
    within("experts of a token", experts.used, experts.count.min(EXPERTS_USED_MAX), 1)?;
    within("expert feed-forward size", experts.ffn, WIDTH_MAX / experts.used, BLOCK)?;
    let scale = metadata.float(&key("expert_weights_scale"))?.unwrap_or(0.0);
    if scale != 0.0 && scale != 1.0 {
        return Err(unsupported(format!("shares of experts scaled by {scale}")));
    }
    Ok(Some(experts))
}

fn window(metadata: &Metadata, key: &str, family: Family) -> Result<usize, EngineError> {
    let given = metadata.count(key)?;
    let window = match family.windows {
        Windows::Never => 0,
        Windows::Every => given.unwrap_or(0),
        Windows::AllButLast { tokens, .. } => given.unwrap_or(tokens),
    };
    // No model looks further back than any context; more is "everything" in other words.
    Ok(if window > CONTEXT_MAX { 0 } else { window })
}
