//! The public face: load a model, render a chat, score, prove. Generation is in `generation.rs`.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::config::ModelConfig;
use super::error::EngineError;
use super::forward::{Forward, Input, Output, Pass};
use super::loader::{LoadProgress, Loader};
use super::memory::weight_bytes;
use super::op::Phase;
use super::params::{PAGE, Row};
use super::plan::{CacheSize, LOGIT_ROWS_MAX, page_bytes, page_count, work_bytes};
use super::proof::{ProofEmbeddings, ProofInputs};
use super::request::{PositionLogprobs, TOP_LOGPROBS_MAX};
use super::sampling::LogSoftmax;
use super::sequence::SequenceEvent;
use super::tuning::Choice;
use super::weights::Weights;
use crate::adapter::{AdapterChoice, AdapterSummary};
use crate::gpu::Gpu;
use crate::kernels::llm::Method;
use crate::kernels::matvec::Activations;
use crate::source::{self, WeightSource};
use crate::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Context unless asked for: enough for a conversation, small enough for a cheap card's memory.
pub(super) const CONTEXT_TOKENS_DEFAULT: usize = 2048;
/// Tokens per prefill pass. A GPU needs many rows to be busy; a CPU driver is busy with few, and its
/// passes should stay short enough to notice a cancelled request.
pub(super) const CHUNK_TOKENS_GPU: usize = 256;
pub(super) const CHUNK_TOKENS_SOFTWARE: usize = 64;

/// Answers under way together unless asked for. A CPU driver gains nothing from more rows than share
/// one reading of the weights; a GPU does, until the cache is full.
const SEQUENCES_SOFTWARE: usize = 8;
const SEQUENCES_GPU: usize = 16;
/// Requests that wait unless asked for; more would wait longer than anybody does.
const WAITING_DEFAULT: usize = 64;
/// Contexts that the cache holds without a memory budget.
const CACHE_CONTEXTS: usize = 2;

/// What may be chosen when a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Longest sequence, prompt and answer together; default 2048, never more than the model's own.
    pub context_tokens: Option<usize>,
    /// Tokens per prefill pass; default 64 on a software adapter, 256 on a GPU.
    pub chunk_tokens: Option<usize>,
    /// How kernels share out work; default by the adapter's kind.
    pub method: Option<Method>,
    /// What decoding multiplies with; proofs and replays always take floats.
    pub activations: Activations,
    /// Most answers under way together; default 8 on a software adapter, 16 on a GPU, at most 32.
    pub sequences: Option<usize>,
    /// Most requests that wait for a place; default 64.
    pub waiting: Option<usize>,
    /// Tokens whose keys and values are kept, of all sequences together; at least a context. Default:
    /// what the memory budget leaves, or two contexts without one.
    pub cache_tokens: Option<usize>,
    /// Bytes of GPU memory the model may take, if that is known.
    pub memory_bytes: Option<u64>,
}

/// The adapter an engine runs on, as health pages show it.
pub type AdapterLabel = AdapterSummary;

/// What is loaded, for `/v1/models`, health pages and `roadbed-agent models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `general.name` of the file, or its file name.
    pub model_name: String,
    /// `llama`, `qwen2`, ..: the word of the file.
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
    /// Tokens whose keys and values are kept, of all sequences together.
    pub cache_tokens: usize,
    /// Answers that may be under way together.
    pub sequences: usize,
}

/// A loaded model on an open GPU. Dropping it frees everything.
pub struct Engine {
    info: EngineInfo,
    gpu: Arc<Gpu>,
    config: ModelConfig,
    pub(super) tokenizer: Option<Tokenizer>,
    template: Option<ChatTemplate>,
    pub(super) forward: Forward,
    pub(super) batch: Batch,
    /// What has happened since the last step.
    pub(super) events: Vec<SequenceEvent>,
    /// Prompt tokens read per second, as measured.
    pub(super) prefill_rate: Option<f64>,
}

impl Engine {
    /// Loads a GGUF file or a Hugging Face folder onto the chosen adapter.
    pub fn load(
        path: &Path,
        choice: &AdapterChoice,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let file = source::open(path)?;
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::load_file(&*file, &name, Gpu::open(choice)?, options)
    }

    /// Loads an open model onto an open device; `fallback_name` serves if the model has no name.
    pub fn load_file(
        file: &dyn WeightSource,
        fallback_name: &str,
        gpu: Arc<Gpu>,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        Self::load_with_progress(file, fallback_name, gpu, options, &|_| ())
    }

    /// As [`Self::load_file`], telling how far it is after every few megabytes.
    pub fn load_with_progress(
        file: &dyn WeightSource,
        fallback_name: &str,
        gpu: Arc<Gpu>,
        options: &EngineOptions,
        progress: &dyn Fn(LoadProgress),
    ) -> Result<Self, EngineError> {
        let config = ModelConfig::from_source(file)?;
        let tokenizer = match file.tokenizer() {
            Ok(tokenizer) => Some(tokenizer),
            Err(TokenizerError::Missing) => None,
            Err(error) => return Err(error.into()),
        };
        let template = match (file.metadata().string("tokenizer.chat_template")?, &tokenizer) {
            (Some(source), Some(tokenizer)) => {
                Some(ChatTemplate::new(source, &tokenizer.bos_text(), &tokenizer.eos_text())?)
            }
            (None, _) | (_, None) => None,
        };
        let context = options
            .context_tokens
            .unwrap_or(CONTEXT_TOKENS_DEFAULT)
            .clamp(1, config.context_tokens);
        let chunk = options.chunk_tokens.unwrap_or(match gpu.is_software() {
            true => CHUNK_TOKENS_SOFTWARE,
            false => CHUNK_TOKENS_GPU,
        });
        let method = options.method.unwrap_or_else(|| Method::of(gpu.is_software()));
        let sequences = options
            .sequences
            .unwrap_or(match gpu.is_software() {
                true => SEQUENCES_SOFTWARE,
                false => SEQUENCES_GPU,
            })
            .clamp(1, LOGIT_ROWS_MAX.min(chunk.max(1)));
        let cache = cache_size(file, &config, context, chunk, sequences, options)?;
        let loader = Loader::new(&gpu, file, progress);
        let weights = Weights::upload(&loader, &config, context)?;
        let choice = Choice { method, activations: options.activations };
        let forward =
            Forward::new(Arc::clone(&gpu), config.clone(), &weights, &choice, cache, chunk.max(1))?;
        let name = file.metadata().string("general.name")?;
        Ok(Self {
            info: EngineInfo {
                model_name: name.unwrap_or(fallback_name).to_owned(),
                architecture: config.architecture.word().to_owned(),
                adapter: gpu.summary().clone(),
                layers: config.layers,
                hidden: config.hidden,
                heads: config.heads,
                kv_heads: config.kv_heads,
                vocabulary: config.vocabulary,
                context_tokens: context,
                model_context_tokens: config.context_tokens,
                weight_bytes: forward.weight_bytes,
                working_bytes: forward.working_bytes,
                cache_tokens: cache.pages * PAGE,
                sequences,
            },
            gpu,
            config,
            tokenizer,
            template,
            forward,
            batch: Batch::new(cache.pages, sequences, options.waiting.unwrap_or(WAITING_DEFAULT)),
            events: Vec::new(),
            prefill_rate: None,
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

    pub(super) fn tokenizer(&self) -> Result<&Tokenizer, EngineError> {
        Ok(self.tokenizer.as_ref().ok_or(TokenizerError::Missing)?)
    }

    /// Token ids of a prompt; control tokens such as `<|im_end|>` are recognised, and a
    /// begin-of-text token is put in front if the model wants one.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        Ok(self.tokenizer()?.encode_prompt(text)?)
    }

    /// Text of `ids`, control tokens included; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn detokenize(&self, ids: &[u32]) -> String {
        self.tokenizer.as_ref().map(|tokenizer| tokenizer.decode(ids)).unwrap_or_default()
    }

    /// The model's chat template.
    pub fn chat_template(&self) -> Result<&ChatTemplate, EngineError> {
        Ok(self.template.as_ref().ok_or(TemplateError::Missing)?)
    }

    /// Logprobs of `continuation_ids` after `prompt_ids`, teacher-forced, with `top` alternatives.
    pub fn score(
        &mut self,
        prompt_ids: &[u32],
        continuation_ids: &[u32],
        top: usize,
    ) -> Result<Vec<PositionLogprobs>, EngineError> {
        self.check_ids("prompt", prompt_ids)?;
        self.check_ids("continuation", continuation_ids)?;
        check_top(top)?;
        let Some(first) = prompt_ids.len().checked_sub(1) else {
            return Err(bad("prompt", "is empty"));
        };
        let whole: Vec<u32> = prompt_ids.iter().chain(continuation_ids).copied().collect();
        // The last id predicts nothing that was asked for.
        let fed = &whole[..whole.len() - usize::from(!continuation_ids.is_empty())];
        self.check_fits(fed.len())?;
        let mut scored = Vec::with_capacity(continuation_ids.len());
        for (start, chunk) in chunks(fed, self.forward.chunk()) {
            let rows = self.forward.scratch_rows(start, chunk.len(), 0);
            let pass = Pass { phase: Phase::Prefill, rows: &rows, selected: &[] };
            self.forward.pass(pass, &Input::Ids(chunk), &[], Output::Nothing)?;
            let wanted = first.max(start)..(start + chunk.len()).min(whole.len() - 1);
            for from in wanted.clone().step_by(LOGIT_ROWS_MAX) {
                let count = LOGIT_ROWS_MAX.min(wanted.end - from);
                let selected: Vec<u32> = (0..count).map(|i| (from - start + i) as u32).collect();
                let selection = Pass { selected: &selected, ..pass };
                let logits = self.forward.select(selection, Output::Logits)?;
                for (row, next) in
                    logits.chunks_exact(self.config.vocabulary).zip(&whole[from + 1..])
                {
                    scored.push(LogSoftmax::new(row).position(*next, top));
                }
            }
        }
        Ok(scored)
    }

    /// Runs the decoder on embeddings instead of token ids and returns, per sequence, the final-norm
    /// hidden state of its last token (`hidden` floats). Positions are 0..tokens, attention is causal,
    /// sequences do not see each other, nor the answers under way.
    ///
    /// As many sequences as fit a chunk run together; longer ones are cut into chunks.
    pub fn prove_hidden(&mut self, inputs: &ProofInputs<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        self.check_proof(inputs)?;
        let reflections = match inputs.reflections {
            Some(reflections) => self.forward.reflections(&reflections.layers)?,
            None => Vec::new(),
        };
        let tokens = inputs.tokens;
        let chunk = self.forward.chunk();
        let pages = tokens.div_ceil(PAGE);
        let together = (chunk / tokens).min(self.forward.scratch_pages() / pages).max(1);
        let mut hidden = Vec::with_capacity(inputs.sequences);
        for first in (0..inputs.sequences).step_by(together) {
            let batch = together.min(inputs.sequences - first);
            for start in (0..tokens).step_by(chunk) {
                let length = chunk.min(tokens - start);
                let rows: Vec<Row> = (0..batch)
                    .flat_map(|i| self.forward.scratch_rows(start, length, i * pages))
                    .collect();
                let selected: Vec<u32> = (1..=batch).map(|i| (i * length) as u32 - 1).collect();
                let pass = Pass { phase: Phase::Prefill, rows: &rows, selected: &selected };
                let row = first * tokens + start;
                let input = match inputs.embeddings {
                    ProofEmbeddings::Host(all) => {
                        let width = self.config.hidden;
                        Input::Rows(&all[row * width..(row + batch * length) * width])
                    }
                    ProofEmbeddings::Device(buffer) => Input::Buffer(buffer, row),
                };
                let last = start + length == tokens;
                let output = if last { Output::Hidden } else { Output::Nothing };
                let found = self.forward.pass(pass, &input, &reflections, output)?;
                hidden.extend(found.chunks_exact(self.config.hidden).map(<[f32]>::to_vec));
            }
        }
        Ok(hidden)
    }

    fn check_proof(&self, inputs: &ProofInputs<'_>) -> Result<(), EngineError> {
        if inputs.tokens == 0 {
            return Err(bad("tokens", "is 0"));
        }
        self.check_fits(inputs.tokens)?;
        let floats = inputs
            .sequences
            .checked_mul(inputs.tokens)
            .and_then(|n| n.checked_mul(self.config.hidden))
            .ok_or_else(|| bad("sequences", "is too large"))?;
        let given = match inputs.embeddings {
            ProofEmbeddings::Host(rows) => rows.len(),
            ProofEmbeddings::Device(buffer) => (buffer.size() / 4) as usize,
        };
        let exact = matches!(inputs.embeddings, ProofEmbeddings::Device(_)) || given == floats;
        if given < floats || !exact {
            return Err(bad("embeddings", format!("{given} floats for {floats}")));
        }
        match inputs.reflections {
            Some(r) if r.layer_count() != self.config.layers || r.hidden != self.config.hidden => {
                Err(bad(
                    "reflections",
                    format!(
                        "{} vectors of {}; the model has {} layers of {}",
                        r.layer_count(),
                        r.hidden,
                        self.config.layers,
                        self.config.hidden
                    ),
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn check_ids(&self, field: &'static str, ids: &[u32]) -> Result<(), EngineError> {
        match ids.iter().find(|id| **id as usize >= self.config.vocabulary) {
            Some(id) => Err(bad(
                field,
                format!("id {id} is outside the vocabulary of {}", self.config.vocabulary),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn check_fits(&self, tokens: usize) -> Result<(), EngineError> {
        if tokens > self.forward.context() {
            return Err(EngineError::ContextFull {
                tokens,
                context_tokens: self.forward.context(),
            });
        }
        Ok(())
    }
}

pub(super) fn bad(field: &'static str, reason: impl Into<String>) -> EngineError {
    EngineError::BadRequest { field, reason: reason.into() }
}

pub(super) fn check_top(top: usize) -> Result<(), EngineError> {
    if top > TOP_LOGPROBS_MAX {
        return Err(bad("top_logprobs", format!("{top} is more than {TOP_LOGPROBS_MAX}")));
    }
    Ok(())
}

/// Pieces of at most `size` ids with their positions.
pub(super) fn chunks(ids: &[u32], size: usize) -> impl Iterator<Item = (usize, &[u32])> {
    ids.chunks(size).enumerate().map(move |(i, chunk)| (i * size, chunk))
}

/// The cache that was asked for, or the largest the budget allows.
fn cache_size(
    file: &dyn WeightSource,
    config: &ModelConfig,
    context: usize,
    chunk: usize,
    sequences: usize,
    options: &EngineOptions,
) -> Result<CacheSize, EngineError> {
    let most = page_count(context) * sequences;
    let asked = options.cache_tokens.map(page_count);
    let size = |pages: usize| CacheSize { context, pages, sequences };
    let Some(budget_bytes) = options.memory_bytes else {
        let pages = asked.unwrap_or(CACHE_CONTEXTS * page_count(context));
        return Ok(size(pages.clamp(page_count(context), most)));
    };
    let weight_bytes = weight_bytes(file);
    let work_bytes = work_bytes(config, context, chunk);
    let smallest = size(page_count(context));
    let page = page_bytes(config);
    let cache_bytes = (smallest.pages + smallest.scratch_pages()) as u64 * page;
    let Some(left) = budget_bytes.checked_sub(weight_bytes + work_bytes + cache_bytes) else {
        return Err(EngineError::Memory { weight_bytes, work_bytes, cache_bytes, budget_bytes });
    };
    let fitting = smallest.pages + usize::try_from(left / page).unwrap_or(usize::MAX);
    Ok(size(fitting.min(asked.unwrap_or(most)).clamp(smallest.pages, most)))
}
