//! How much GPU memory a model takes, before it is loaded.

use super::config::ModelConfig;
use super::engine::{CHUNK_TOKENS_GPU, CHUNK_TOKENS_SOFTWARE, CONTEXT_TOKENS_DEFAULT};
use super::error::EngineError;
use super::packing;
use super::plan::{page_bytes, page_count, work_bytes};
use crate::source::WeightSource;

/// The least that a model takes at some context, about: one sequence, and a context for proofs and
/// replays beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Longest sequence this is for.
    pub context_tokens: usize,
    pub weight_bytes: u64,
    /// Keys and values.
    pub cache_bytes: u64,
    /// Activations and logits.
    pub work_bytes: u64,
}

impl MemoryNeed {
    /// Of a model at `context_tokens`, or at the default context, never more than the model's own. An adapter
    /// of software works on fewer rows at a time.
    pub fn of(
        file: &dyn WeightSource,
        context_tokens: Option<usize>,
        software: bool,
    ) -> Result<Self, EngineError> {
        let config = ModelConfig::from_source(file)?;
        let context =
            context_tokens.unwrap_or(CONTEXT_TOKENS_DEFAULT).clamp(1, config.context_tokens);
        let chunk = if software { CHUNK_TOKENS_SOFTWARE } else { CHUNK_TOKENS_GPU };
        Ok(Self {
            context_tokens: context,
            weight_bytes: weight_bytes(file),
            cache_bytes: 2 * page_count(context) as u64 * page_bytes(&config),
            work_bytes: work_bytes(&config, context, chunk),
        })
    }

    /// Everything together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.cache_bytes).saturating_add(self.work_bytes)
    }
}

/// Bytes of all weights in the layouts they have on the GPU.
pub(super) fn weight_bytes(file: &dyn WeightSource) -> u64 {
    file.entries()
        .values()
        .map(|t| {
            let (quants, scales) = packing::row_bytes(packing::format_of(t.kind), t.columns);
            ((quants + scales) * t.rows) as u64
        })
        .sum()
}
