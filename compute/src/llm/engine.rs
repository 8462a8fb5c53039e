//! The public face: load a model, render a chat, generate, score, prove.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::EngineError;
use super::proof::ProofInputs;
use super::request::{GenerateRequest, Generation, Message, PositionLogprobs, TokenEvent};
use crate::adapter::{AdapterChoice, AdapterSummary};
use crate::gpu::Gpu;

/// What may be chosen when a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Longest sequence, prompt and answer together; default 2048, never more than the model's own.
    pub context_tokens: Option<usize>,
    /// Tokens per prefill pass; default 64 on a software adapter, 256 on a GPU.
    pub chunk_tokens: Option<usize>,
}

/// The adapter an engine runs on, as health pages show it.
pub type AdapterLabel = AdapterSummary;

/// What is loaded, for `/v1/models`, health pages and `roadbed-agent models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `general.name` of the file, or its file name.
    pub model_name: String,
    /// `llama`.
    pub architecture: String,
    pub adapter: AdapterLabel,
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocabulary: usize,
    /// Context this engine was loaded with.
    pub context_tokens: usize,
    /// Context the model was trained for.
    pub model_context_tokens: usize,
    /// Weights on the GPU.
    pub weight_bytes: u64,
    /// KV cache and activations on the GPU.
    pub working_bytes: u64,
}

/// A loaded model on an open GPU. Dropping it frees everything.
pub struct Engine {
    info: EngineInfo,
    gpu: Arc<Gpu>,
}

impl Engine {
    /// Loads a GGUF file onto the chosen adapter.
    pub fn load(
        _path: &Path,
        _choice: &AdapterChoice,
        _options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        Err(EngineError::UnsupportedModel {
            reason: "loading is not written yet".into(),
        })
    }

    /// What is loaded and where.
    #[must_use]
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// The open device, for kernels that feed this engine (PoC inputs).
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Fails if the device was lost since it was opened.
    pub fn health(&self) -> Result<(), EngineError> {
        Ok(self.gpu.check("health check")?)
    }

    /// Token ids of `text`; control tokens such as `<|im_end|>` are recognised.
    pub fn tokenize(&self, _text: &str) -> Result<Vec<u32>, EngineError> {
        Ok(vec![])
    }

    /// Text of `ids`, control tokens included; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn detokenize(&self, _ids: &[u32]) -> String {
        String::new()
    }

    /// The prompt for a conversation, by the model's own chat template, ready for the answer.
    pub fn render_chat(&self, _messages: &[Message]) -> Result<String, EngineError> {
        Ok(String::new())
    }

    /// Generates, handing every token to `on_token`; `ControlFlow::Break` cancels.
    pub fn generate(
        &mut self,
        _request: &GenerateRequest,
        _on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        Err(EngineError::UnsupportedModel {
            reason: "generation is not written yet".into(),
        })
    }

    /// Logprobs of `continuation_ids` after `prompt_ids`, teacher-forced, with `top` alternatives.
    pub fn score(
        &mut self,
        _prompt_ids: &[u32],
        _continuation_ids: &[u32],
        _top: usize,
    ) -> Result<Vec<PositionLogprobs>, EngineError> {
        Ok(vec![])
    }

    /// Runs the decoder on embeddings instead of token ids and returns, per sequence, the final-norm
    /// hidden state of its last token (`hidden` floats). Positions are 0..tokens, attention is causal,
    /// sequences do not see each other, and whatever was generated before is forgotten.
    pub fn prove_hidden(&mut self, _inputs: &ProofInputs<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        Ok(vec![])
    }
}
