//! What can go wrong when a model is loaded or run.

use crate::gguf::GgufError;
use crate::gpu::GpuError;
use crate::safetensors::SafetensorsError;
use crate::template::TemplateError;
use crate::tokenizer::TokenizerError;

/// The one error of the engine's edge: what failed, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error("model file: {0}")]
    Gguf(#[from] GgufError),
    #[error("model folder: {0}")]
    Safetensors(#[from] SafetensorsError),
    #[error("tokenizer: {0}")]
    Tokenizer(#[from] TokenizerError),
    #[error("chat template: {0}")]
    Template(#[from] TemplateError),
    #[error("the model is not one this engine can run: {reason}")]
    UnsupportedModel { reason: String },
    #[error(
        "{tokens} tokens do not fit the context of {context_tokens}: shorten the prompt or load with a longer context"
    )]
    ContextFull { tokens: usize, context_tokens: usize },
    #[error("{waiting} requests are waiting already: try again later")]
    Busy { waiting: usize },
    #[error(
        "the model needs {weight_bytes} bytes for weights, {work_bytes} to work and at least {cache_bytes} for keys and values, more than the {budget_bytes} it may have: choose a shorter context or a smaller model"
    )]
    Memory { weight_bytes: u64, work_bytes: u64, cache_bytes: u64, budget_bytes: u64 },
    #[error("stage {stage} of {stages}, on {adapter}: {error}")]
    Stage { stage: usize, stages: usize, adapter: String, error: Box<EngineError> },
    #[error(
        "the model does not fit the {} given: {missing_bytes} bytes are missing: add a card, or choose a shorter context or a smaller model",
        adapters.join(" and ")
    )]
    Split { adapters: Vec<String>, missing_bytes: u64 },
    #[error("loading was broken off")]
    BrokenOff,
    #[error("bad request: {field}: {reason}")]
    BadRequest { field: &'static str, reason: String },
}

impl EngineError {
    /// True if the device is gone: drop the engine, report the rig unhealthy, load again.
    #[must_use]
    pub fn is_device_lost(&self) -> bool {
        match self {
            Self::Gpu(error) => error.is_device_lost(),
            Self::Stage { error, .. } => error.is_device_lost(),
            Self::Gguf(_)
            | Self::Safetensors(_)
            | Self::Tokenizer(_)
            | Self::Template(_)
            | Self::UnsupportedModel { .. }
            | Self::ContextFull { .. }
            | Self::Busy { .. }
            | Self::Memory { .. }
            | Self::Split { .. }
            | Self::BrokenOff
            | Self::BadRequest { .. } => false,
        }
    }

    /// True if the caller asked for something impossible (an HTTP 4xx), false if we failed (a 5xx).
    #[must_use]
    pub fn is_callers_fault(&self) -> bool {
        match self {
            Self::ContextFull { .. } | Self::BadRequest { .. } | Self::Template(_) => true,
            Self::Stage { error, .. } => error.is_callers_fault(),
            Self::Gpu(_)
            | Self::Gguf(_)
            | Self::Safetensors(_)
            | Self::Tokenizer(_)
            | Self::UnsupportedModel { .. }
            | Self::Busy { .. }
            | Self::Memory { .. }
            | Self::Split { .. }
            | Self::BrokenOff => false,
        }
    }
}
