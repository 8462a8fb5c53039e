//! What a model must be able to do to stand behind the queue. All calls block and are made from one thread.

use roadbed_compute::AdapterSummary;

use crate::engine::{EngineFault, LoadRequest};

/// What is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedderInfo {
    /// The name it is served under.
    pub served_as: String,
    /// The GPU it runs on.
    pub adapter: AdapterSummary,
    /// Floats of an embedding.
    pub dimensions: usize,
    /// Tokens of the longest text.
    pub tokens_max: usize,
    /// Number of token ids; every id is below.
    pub vocabulary: usize,
    /// Bytes of GPU memory taken.
    pub memory_bytes: u64,
}

/// Loads models; called on the embedding thread, which then owns what it returns.
pub trait EmbeddingLoader: Send + 'static {
    /// Loads a model; blocks until it answers.
    ///
    /// # Errors
    /// [`EngineFault::Load`] with what failed and where.
    fn load(&mut self, request: &LoadRequest) -> Result<Box<dyn EmbeddingBackend>, EngineFault>;
}

/// One loaded model. Dropping it frees everything it holds.
pub trait EmbeddingBackend {
    /// What is loaded.
    fn info(&self) -> EmbedderInfo;

    /// Token ids of a text, with those that the model wants around it.
    ///
    /// # Errors
    /// Text the tokenizer cannot take.
    fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineFault>;

    /// Cuts ids down to `tokens`, keeping what the model wants behind a text.
    fn truncate(&self, ids: &mut Vec<u32>, tokens: usize);

    /// How many texts of these lengths one pass takes: the first ones, at least one.
    fn fitting(&self, lengths: &[usize]) -> usize;

    /// Embeddings of texts that fit a pass, each at most `tokens_max` ids below `vocabulary` and not empty.
    ///
    /// # Errors
    /// A device that failed; then none of the texts counts.
    fn pass(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineFault>;
}
