//! What sets the model families apart: one table, every fact with its source.
//!
//! A layer is always `x += output(attention(norm(x)))`, then `x += down(act(gate) * up)` of `norm(x)`. The
//! families differ in what stands around these parts. What is a number of one model (sizes, bases,
//! windows) comes from its file instead, see [`super::ModelConfig`].

/// A model family, `general.architecture` of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3.x, SmolLM, TinyLlama and Mistral.
    Llama,
    /// Qwen 2 and 2.5.
    Qwen2,
    Qwen3,
    /// Qwen 3 with experts.
    Qwen3Moe,
    Gemma2,
    Gemma3,
}

/// What the gate goes through before it multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `g / (1 + exp(-g))`.
    Silu,
    /// `g / 2 * (1 + tanh(sqrt(2 / pi) * (g + 0.044715 g^3)))`.
    Gelu,
}

/// Which layers see only the nearest positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// None; what the file says of a window is for training.
    Never,
    /// All of them, where the file gives a window.
    Every,
    /// Of every `period` layers all but the last; `tokens` unless the file says otherwise, 0 being none.
    AllButLast { period: usize, tokens: usize },
}

/// The facts of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// Rotary pairs are (i, i + dimensions / 2) instead of (2i, 2i + 1).
    pub half_split: bool,
    /// Each head of queries and keys has a norm of its own before it turns.
    pub head_norms: bool,
    /// A norm also stands behind each half of a layer, before the residual sum.
    pub post_norms: bool,
    pub activation: Activation,
    /// The feed-forward part is a choice of experts.
    pub experts: bool,
    /// Embeddings are multiplied by `sqrt(hidden)`.
    pub scaled_embeddings: bool,
    pub windows: Windows,
    /// Base of the rotations in layers with a window; `None` is the model's own.
    pub local_rope_base: Option<f64>,
    /// Soft bounds of attention scores and of logits unless the file says otherwise; 0 is none.
    pub score_softcap: f64,
    pub logit_softcap: f64,
    /// Layers of the model whose scores are scaled by `hidden / heads` instead of the head's size.
    pub wide_score_scale_layers: Option<usize>,
}

impl Architecture {
    pub const ALL: [Self; 6] =
        [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Qwen3Moe, Self::Gemma2, Self::Gemma3];

    /// `general.architecture` of the family's files, and the prefix of its keys.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
        }
    }

    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.word() == word)
    }

    /// The table. Sources: llama.cpp, `src/models/*.cpp` for graphs and defaults and `llama_model_rope_type`
    /// in `src/llama-model.cpp` for pairs; windows of Mistral 7B: arXiv 2310.06825, section 2.
    #[must_use]
    pub fn family(self) -> Family {
        // llama.cpp's converter reorders Llama's queries and keys so that pairs are neighbours.
        const LLAMA: Family = Family {
            half_split: false,
            head_norms: false,
            post_norms: false,
            activation: Activation::Silu,
            experts: false,
            scaled_embeddings: false,
            windows: Windows::Every,
            local_rope_base: None,
            score_softcap: 0.0,
            logit_softcap: 0.0,
            wide_score_scale_layers: None,
        };
        // Published Qwen models have `use_sliding_window: false`.
        const QWEN2: Family = Family { half_split: true, windows: Windows::Never, ..LLAMA };
        const QWEN3: Family = Family { head_norms: true, ..QWEN2 };
        const QWEN3_MOE: Family = Family { experts: true, ..QWEN3 };
        // Gemma's norms multiply by 1 + weight; the converter has added the 1 already.
        // 27 billion weights are 46 layers (Gemma 2) or 62 (Gemma 3): `query_pre_attn_scalar` is
        // hidden / heads there and the head's size in all smaller models.
        const GEMMA2: Family = Family {
            half_split: true,
            head_norms: false,
            post_norms: true,
            activation: Activation::Gelu,
            experts: false,
            scaled_embeddings: true,
            windows: Windows::AllButLast { period: 2, tokens: 4096 },
            local_rope_base: None,
            score_softcap: 50.0,
            logit_softcap: 30.0,
            wide_score_scale_layers: Some(46),
        };
        const GEMMA3: Family = Family {
            head_norms: true,
            windows: Windows::AllButLast { period: 6, tokens: 0 },
            local_rope_base: Some(10_000.0),
            score_softcap: 0.0,
            logit_softcap: 0.0,
            wide_score_scale_layers: Some(62),
            ..GEMMA2
        };
        match self {
            Self::Llama => LLAMA,
            Self::Qwen2 => QWEN2,
            Self::Qwen3 => QWEN3,
            Self::Qwen3Moe => QWEN3_MOE,
            Self::Gemma2 => GEMMA2,
            Self::Gemma3 => GEMMA3,
        }
    }
}
