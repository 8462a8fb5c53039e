//! How much GPU memory a model takes, before it is loaded.

use super::config::ModelConfig;
use super::engine::{CHUNK_TOKENS_GPU, CHUNK_TOKENS_SOFTWARE, CONTEXT_TOKENS_DEFAULT};
use super::error::EngineError;
use super::packing;
use super::plan::{CacheSize, logit_bytes, page_count, work_bytes};
use super::split::{Costs, Span};
use crate::kernels::attention::KvFormat;
use crate::source::WeightSource;

/// The least that a model takes at some context, about: one sequence, and a context for proofs and
/// replays beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Longest sequence this is for.
    pub context_tokens: usize,
    pub weight_bytes: u64,
    /// How answers keep keys and values.
    pub kv: KvFormat,
    /// Keys and values, those of proofs and replays included.
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
        kv: KvFormat,
        software: bool,
    ) -> Result<Self, EngineError> {
        let config = ModelConfig::from_source(file)?;
        let context =
            context_tokens.unwrap_or(CONTEXT_TOKENS_DEFAULT).clamp(1, config.context_tokens);
        let chunk = if software { CHUNK_TOKENS_SOFTWARE } else { CHUNK_TOKENS_GPU };
        let pages = page_count(context);
        let cache = CacheSize { context, pages, sequences: 1, format: kv };
        Ok(Self {
            context_tokens: context,
            kv,
            weight_bytes: WeightBytes::of(file, &config).of_span(&Span::whole(config.layers)),
            cache_bytes: cache.bytes(&config, config.layers),
            work_bytes: work_bytes(&config, context, chunk) + logit_bytes(&config),
        })
    }

    /// Layers on each of several cards that may take `budgets` bytes each, if the model is split over them, or
    /// the bytes that are missing. A single card has it whole.
    pub fn split(
        file: &dyn WeightSource,
        context_tokens: Option<usize>,
        kv: KvFormat,
        software: bool,
        budgets: &[u64],
    ) -> Result<Result<Vec<usize>, u64>, EngineError> {
        let need = Self::of(file, context_tokens, kv, software)?;
        let config = ModelConfig::from_source(file)?;
        // More cards than layers are of no use.
        let budgets = &budgets[..budgets.len().min(config.layers)];
        if let [] | [_] = budgets {
            let missing = need.bytes().saturating_sub(budgets.iter().sum());
            return Ok(if missing == 0 { Ok(vec![config.layers]) } else { Err(missing) });
        }
        let chunk = if software { CHUNK_TOKENS_SOFTWARE } else { CHUNK_TOKENS_GPU };
        let context = need.context_tokens;
        let least = CacheSize { context, pages: page_count(context), sequences: 1, format: kv };
        let costs = WeightBytes::of(file, &config).costs(&config, chunk, least);
        Ok(match costs.split(budgets) {
            Ok(spans) => Ok(spans.iter().map(ExactSizeIterator::len).collect()),
            Err(shortfall) => Err(shortfall.missing_bytes),
        })
    }

    /// Everything together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.cache_bytes).saturating_add(self.work_bytes)
    }
}

/// Bytes of a model's weights in the layouts they have on the GPU, part by part.
pub(super) struct WeightBytes {
    /// The embedding table.
    table: u64,
    layers: Vec<u64>,
    /// Final norm, and the output matrix unless it is the table.
    head: u64,
    tied: bool,
}

impl WeightBytes {
    pub fn of(file: &dyn WeightSource, config: &ModelConfig) -> Self {
        let mut bytes =
            Self { table: 0, layers: vec![0; config.layers], head: 0, tied: config.tied };
        let layer_of = |name: &str| name.strip_prefix("blk.")?.split('.').next()?.parse().ok();
        for (name, tensor) in file.entries() {
            let format = packing::format_of(tensor.kind);
            let (quants, scales) = packing::row_bytes(format, tensor.columns);
            let part = match layer_of(name).and_then(|layer: usize| bytes.layers.get_mut(layer)) {
                Some(layer) => layer,
                None if name.starts_with("output") => &mut bytes.head,
                None => &mut bytes.table,
            };
            *part += ((quants + scales) * tensor.rows) as u64;
        }
        bytes
    }

    pub fn of_span(&self, span: &Span) -> u64 {
        let table = span.is_first() || (span.is_last() && self.tied);
        let head = if span.is_last() { self.head } else { 0 };
        let layers: u64 = self.layers[span.layers.clone()].iter().sum();
        layers + head + if table { self.table } else { 0 }
    }

    /// What the parts of the model take if it is split, keys and values included.
    pub fn costs(&self, config: &ModelConfig, chunk: usize, cache: CacheSize) -> Costs {
        let pages = cache.bytes(config, 1);
        Costs {
            first: self.table,
            layers: self.layers.iter().map(|layer| layer + pages).collect(),
            last: self.head + logit_bytes(config) + if self.tied { self.table } else { 0 },
            every: work_bytes(config, cache.context, chunk),
        }
    }
}
