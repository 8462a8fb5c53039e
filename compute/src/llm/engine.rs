//! The public face: load a model, render a chat, score, prove. Generation is in `generation.rs`.

use std::iter::repeat_n;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::config::ModelConfig;
use super::error::EngineError;
use super::forward::{Forward, Input, Output, Pass};
use super::host_work::HostWork;
use super::loader::{LoadProgress, Loader};
use super::memory::WeightBytes;
use super::op::Phase;
use super::params::{PAGE, Row};
use super::pipeline::LayerPipeline;
use super::plan::{
    CacheSize, LOGIT_ROWS_MAX, fitting_chunk, logit_bytes, page_bytes, page_count, work_bytes,
};
use super::proof::{ProofEmbeddings, ProofInputs, ProofPlace};
use super::request::TOP_LOGPROBS_MAX;
use super::sequence::SequenceEvent;
use super::split::{Costs, Span};
use super::tuner::tune;
use super::tuning::{Choice, TunedShape, Tuning, product_rows_max};
use super::weights::Weights;
use crate::adapter::{AdapterChoice, AdapterSummary};
use crate::gguf::TensorType;
use crate::gpu::Gpu;
use crate::kernels::attention::KvFormat;
use crate::kernels::llm::Method;
use crate::kernels::matvec::Activations;
use crate::source::{self, WeightSource};
use crate::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Context unless asked for: enough for a conversation, small enough for a cheap card's memory.
pub(super) const CONTEXT_TOKENS_DEFAULT: usize = 2048;
/// Tokens per prefill pass. A GPU needs many rows to be busy; a CPU driver is busy with few, and its
/// passes should stay short enough to notice a cancelled request.
pub(super) const CHUNK_TOKENS_GPU: usize = 512;
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
    /// Tokens per prefill pass; default 64 on a software adapter, 512 on a GPU, fewer where that would take it too long.
    pub chunk_tokens: Option<usize>,
    /// How kernels share out work; default by the adapter's kind.
    pub method: Option<Method>,
    /// What decoding multiplies with; proofs and replays always take floats.
    pub activations: Activations,
    /// How answers keep keys and values; proofs and replays always keep floats, in a cache of their own.
    pub kv: KvFormat,
    /// Most answers under way together; default 8 on a software adapter, 16 on a GPU, at most 32.
    pub sequences: Option<usize>,
    /// Most requests that wait for a place; default 64.
    pub waiting: Option<usize>,
    /// Tokens whose keys and values are kept, of all sequences together; at least a context. Default:
    /// what the memory budget leaves, or two contexts without one.
    pub cache_tokens: Option<usize>,
    /// Bytes of GPU memory the model may take, if that is known.
    pub memory_bytes: Option<u64>,
    /// Whether the kernels of products are tried out; not if `method` is given.
    pub tuning: Tuning,
    /// Once another thread has set it, the load ends with [`EngineError::BrokenOff`] at the next piece of weights, kernel
    /// to try out, or card.
    pub break_off: Option<Arc<AtomicBool>>,
}

/// The adapter an engine runs on, as health pages show it.
pub type AdapterLabel = AdapterSummary;

/// An open GPU that takes a model or a part of one.
#[derive(Clone)]
pub struct Card {
    pub gpu: Arc<Gpu>,
    /// Bytes of its memory the model may take, if that is known.
    pub memory_bytes: Option<u64>,
}

/// The part of a model that one card has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageInfo {
    pub adapter: AdapterLabel,
    pub layers: usize,
    pub weight_bytes: u64,
    /// KV cache and activations.
    pub working_bytes: u64,
}

/// What is loaded, for `/v1/models`, health pages and `roadbed-agent models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `general.name` of the file, or its file name.
    pub model_name: String,
    /// `llama`, `qwen2`, ..: the word of the file.
    pub architecture: String,
    /// The first card.
    pub adapter: AdapterLabel,
    /// All cards, in the order in which layers pass; one unless the model is split.
    pub stages: Vec<StageInfo>,
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocabulary: usize,
    /// Context this engine was loaded with.
    pub context_tokens: usize,
    /// Context the model was trained for.
    pub model_context_tokens: usize,
    /// Of the layers' matrices; of several types, the one with the fewest bits.
    pub weights: TensorType,
    /// Weights on the GPU.
    pub weight_bytes: u64,
    /// KV cache and activations on the GPU.
    pub working_bytes: u64,
    /// Tokens whose keys and values are kept, of all sequences together.
    pub cache_tokens: usize,
    /// How answers keep keys and values.
    pub kv: KvFormat,
    /// Answers that may be under way together.
    pub sequences: usize,
}

/// A loaded model on an open GPU, or split over several. Dropping it frees everything.
pub struct Engine {
    info: EngineInfo,
    config: ModelConfig,
    pub(super) tokenizer: Option<Tokenizer>,
    template: Option<ChatTemplate>,
    pub(super) forward: LayerPipeline,
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
        let card = Card { gpu, memory_bytes: options.memory_bytes };
        Self::load_over(file, fallback_name, &[card], options, progress)
    }

    /// As [`Self::load_with_progress`], with the layers split over all of `cards`, in their order. What a
    /// card may take is its own; `options.memory_bytes` is not looked at.
    pub fn load_over(
        file: &dyn WeightSource,
        fallback_name: &str,
        cards: &[Card],
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
        let software = cards.iter().any(|card| card.gpu.is_software());
        let chunk = options.chunk_tokens.unwrap_or(match software {
            true => CHUNK_TOKENS_SOFTWARE,
            false => CHUNK_TOKENS_GPU,
        });
        let chunk = chunk.max(1);
        let sequences = options
            .sequences
            .unwrap_or(match software {
                true => SEQUENCES_SOFTWARE,
                false => SEQUENCES_GPU,
            })
            .clamp(1, LOGIT_ROWS_MAX.min(chunk));
        let weight_bytes = WeightBytes::of(file, &config);
        let least =
            CacheSize { context, pages: page_count(context), sequences: 1, format: options.kv };
        let spans = spans(&weight_bytes.costs(&config, chunk, least), cards)?;
        let needs: Vec<StageNeed> = cards
            .iter()
            .zip(&spans)
            .map(|(card, span)| StageNeed {
                weight_bytes: weight_bytes.of_span(span),
                work_bytes: work_bytes(&config, context, chunk)
                    + if span.is_last() { logit_bytes(&config) } else { 0 },
                layers: span.layers.len(),
                budget_bytes: card.memory_bytes,
            })
            .collect();
        let cache = cache_size(&needs, &config, context, sequences, options)?;
        let bindable = cards.iter().map(|card| card.gpu.binding_bytes_max()).min();
        let cache = cache.within(&config, bindable.unwrap_or(u64::MAX));
        let stages = upload(file, &config, cards, spans, (cache, chunk), options, progress)?;
        let Some(forward) = LayerPipeline::new(stages) else {
            return Err(bad("cards", "there is none"));
        };
        let name = file.metadata().string("general.name")?;
        Ok(Self {
            info: EngineInfo {
                model_name: name.unwrap_or(fallback_name).to_owned(),
                architecture: config.architecture.word().to_owned(),
                adapter: forward.gpu().summary().clone(),
                stages: forward.stages().map(stage_info).collect(),
                layers: config.layers,
                hidden: config.hidden,
                heads: config.heads,
                kv_heads: config.kv_heads,
                vocabulary: config.vocabulary,
                context_tokens: context,
                model_context_tokens: config.context_tokens,
                weights: narrowest(file),
                weight_bytes: forward.stages().map(|stage| stage.weight_bytes).sum(),
                working_bytes: forward.stages().map(|stage| stage.working_bytes).sum(),
                cache_tokens: cache.pages * PAGE,
                kv: cache.format,
                sequences,
            },
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

    /// The open device, the first of several, for kernels that feed this engine (PoC inputs).
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        self.forward.gpu()
    }

    /// What was found out about the kernels of this model's matrices, on all cards; nothing without tuning.
    pub fn tuned_shapes(&self) -> impl Iterator<Item = (&AdapterSummary, &TunedShape)> {
        self.forward.stages().flat_map(|stage| {
            stage.choice().shapes().iter().map(|shape| (stage.gpu().summary(), shape))
        })
    }

    /// What passes that decoded have cost the host so far, on all cards together.
    #[must_use]
    pub fn host_work(&self) -> HostWork {
        let of_stages = self.forward.stages().map(Forward::host_work);
        of_stages.fold(HostWork::default(), |all, stage| HostWork {
            passes: all.passes.max(stage.passes),
            time: all.time + stage.time,
        })
    }

    /// Fails if the device was lost since it was opened.
    pub fn health(&self) -> Result<(), EngineError> {
        self.forward.check("health check")
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

    /// Runs the decoder on embeddings instead of token ids and returns, per sequence, the final-norm
    /// hidden state of its last token (`hidden` floats). Positions are those of the place, attention is
    /// causal, sequences do not see each other, nor the answers under way.
    ///
    /// As many sequences as fit a chunk run together; longer ones are cut into chunks.
    pub fn prove_hidden(&mut self, inputs: &ProofInputs<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        self.check_proof(inputs)?;
        let reflections = inputs.reflections.map_or(&[][..], |reflections| &reflections.ops);
        let tokens = inputs.tokens;
        let chunk = self.forward.chunk();
        let (position, pages, kept) = match inputs.place {
            ProofPlace::Whole => (0, tokens.div_ceil(PAGE), None),
            ProofPlace::Kept { position, room, first } => {
                (position, room.div_ceil(PAGE), Some(first))
            }
        };
        // Kernels of prefill take floats, and so do those of decoding unless they were told otherwise.
        let stepping = kept.is_some() && position > 0 && tokens == 1;
        let phase = match stepping && self.forward.decodes_floats() {
            true => Phase::Decode,
            false => Phase::Prefill,
        };
        let together = (chunk / tokens).min(self.forward.scratch_pages() / pages).max(1);
        let mut hidden = Vec::with_capacity(inputs.sequences);
        for first in (0..inputs.sequences).step_by(together) {
            let batch = together.min(inputs.sequences - first);
            // Whole sequences use the same pages one after the other.
            let page = kept.map_or(0, |kept| (kept + first) * pages);
            for start in (0..tokens).step_by(chunk) {
                let length = chunk.min(tokens - start);
                let rows: Vec<Row> = (0..batch)
                    .flat_map(|i| {
                        self.forward.scratch_rows(position + start, length, page + i * pages)
                    })
                    .collect();
                let selected: Vec<u32> = (1..=batch).map(|i| (i * length) as u32 - 1).collect();
                let given = inputs.experts.get(first..first + batch).unwrap_or_default();
                let experts: Vec<&[u32]> =
                    given.iter().flat_map(|firsts| repeat_n(&**firsts, length)).collect();
                let pass = Pass { phase, rows: &rows, selected: &selected, experts: &experts };
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
                let found = self.forward.pass(pass, &input, reflections, output)?;
                hidden.extend(found.chunks_exact(self.config.hidden).map(<[f32]>::to_vec));
            }
        }
        Ok(hidden)
    }

    /// Sequences of so many tokens whose keys and values can be kept at once ([`ProofPlace::Kept`]).
    #[must_use]
    pub fn proof_sequences(&self, tokens: usize) -> usize {
        self.forward.scratch_pages() / tokens.div_ceil(PAGE).max(1)
    }

    /// How many experts a layer has, where the model has any.
    #[must_use]
    pub fn expert_count(&self) -> Option<usize> {
        self.config.experts.map(|experts| experts.count)
    }

    fn check_proof(&self, inputs: &ProofInputs<'_>) -> Result<(), EngineError> {
        if inputs.tokens == 0 {
            return Err(bad("tokens", "is 0"));
        }
        match inputs.place {
            ProofPlace::Whole => self.check_fits(inputs.tokens)?,
            ProofPlace::Kept { position, room, first } => {
                self.check_fits(room)?;
                if position.checked_add(inputs.tokens).is_none_or(|end| end > room) {
                    return Err(bad(
                        "tokens",
                        format!("{} from {position} in {room}", inputs.tokens),
                    ));
                }
                if first.saturating_add(inputs.sequences) > self.proof_sequences(room) {
                    return Err(bad("sequences", format!("{} of {room} tokens", inputs.sequences)));
                }
            }
        }
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
        let (experts, layers) = (inputs.experts, self.config.layers);
        let whole = experts.len() == inputs.sequences && experts.iter().all(|f| f.len() == layers);
        if !experts.is_empty() && !whole {
            return Err(bad("experts", format!("not one for each sequence and {layers} layers")));
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

/// The layers of each card.
fn spans(costs: &Costs, cards: &[Card]) -> Result<Vec<Span>, EngineError> {
    let of = costs.layers.len();
    if cards.len() < 2 {
        // Too little memory on a single card is told in more words by `cache_size`.
        return Ok(cards.iter().map(|_| Span::whole(of)).collect());
    }
    if cards.len() > of {
        return Err(bad("cards", format!("{} cards for {of} layers", cards.len())));
    }
    let known: Option<Vec<u64>> = cards.iter().map(|card| card.memory_bytes).collect();
    // Where nobody knows, cards are taken to be alike and large enough.
    let budgets = known.unwrap_or_else(|| vec![costs.of(&(0..of)).saturating_mul(2); cards.len()]);
    match costs.split(&budgets) {
        Ok(spans) => Ok(spans.into_iter().map(|layers| Span { layers, of }).collect()),
        Err(shortfall) => Err(EngineError::Split {
            adapters: cards.iter().map(|card| card.gpu.summary().to_string()).collect(),
            missing_bytes: shortfall.missing_bytes,
        }),
    }
}

/// Loads every card with its layers, one card after the other.
fn upload(
    file: &dyn WeightSource,
    config: &ModelConfig,
    cards: &[Card],
    spans: Vec<Span>,
    (cache, chunk): (CacheSize, usize),
    options: &EngineOptions,
    progress: &dyn Fn(LoadProgress),
) -> Result<Vec<Forward>, EngineError> {
    let Some(first) = cards.first() else { return Ok(Vec::new()) };
    let mut loader = Loader::new(&first.gpu, file, progress);
    loader.break_off = options.break_off.as_deref();
    let mut parts = Vec::with_capacity(cards.len());
    let mut chunk = chunk;
    for (Card { gpu, .. }, span) in cards.iter().zip(spans) {
        loader = loader.next_onto(gpu);
        let weights = Weights::upload(&loader, config, cache.context, span)?;
        let untried = Choice::untried(gpu, options.method, options.activations);
        let tuning = if options.method.is_some() { Tuning::Off } else { options.tuning };
        let choice = tune(&loader, &weights, untried, tuning)?;
        let shapes = weights.layer_matrices().flat_map(|matrix| matrix.shards());
        let largest = shapes.map(|(shape, _)| shape).max_by_key(|s| s.rows * s.columns);
        chunk = chunk.min(product_rows_max(gpu, &choice, largest));
        chunk = fitting_chunk(gpu, config, &choice, cache.context, chunk);
        parts.push((gpu, weights, choice));
    }
    let mut told = |done, total| progress(LoadProgress::Kernels { done, total });
    parts
        .into_iter()
        .map(|(gpu, weights, choice)| {
            loader.check_wanted()?;
            let (gpu, config) = (Arc::clone(gpu), config.clone());
            let stage = Forward::new(gpu, config, &weights, &choice, cache, chunk, &mut told)?;
            stage.gpu().keep_pipelines();
            Ok(stage)
        })
        .collect()
}

/// The type of the layers' matrices with the fewest bits; vectors are kept whole in every file.
fn narrowest(file: &dyn WeightSource) -> TensorType {
    let layers = file.entries().values().filter(|entry| entry.name.starts_with("blk."));
    let kinds = layers.filter(|entry| entry.rows > 1).map(|entry| entry.kind);
    kinds.min_by_key(|kind| kind.millibits()).unwrap_or(TensorType::F32)
}

fn stage_info(stage: &Forward) -> StageInfo {
    StageInfo {
        adapter: stage.gpu().summary().clone(),
        layers: stage.layer_count(),
        weight_bytes: stage.weight_bytes,
        working_bytes: stage.working_bytes,
    }
}

/// What a card must hold beside keys and values, and what it may.
struct StageNeed {
    weight_bytes: u64,
    work_bytes: u64,
    layers: usize,
    budget_bytes: Option<u64>,
}

/// The cache that was asked for, or the largest the budgets allow; the scarcest card decides.
fn cache_size(
    stages: &[StageNeed],
    config: &ModelConfig,
    context: usize,
    sequences: usize,
    options: &EngineOptions,
) -> Result<CacheSize, EngineError> {
    let most = page_count(context) * sequences;
    let asked = options.cache_tokens.map(page_count);
    let size = |pages: usize| CacheSize { context, pages, sequences, format: options.kv };
    let smallest = size(page_count(context));
    let mut fitting = None;
    for stage in stages {
        let &StageNeed { weight_bytes, work_bytes, layers, budget_bytes } = stage;
        let Some(budget_bytes) = budget_bytes else { continue };
        let cache_bytes = smallest.bytes(config, layers);
        let Some(left) = budget_bytes.checked_sub(weight_bytes + work_bytes + cache_bytes) else {
            return Err(EngineError::Memory {
                weight_bytes,
                work_bytes,
                cache_bytes,
                budget_bytes,
            });
        };
        let page_bytes = page_bytes(config, layers, options.kv);
        let pages = smallest.pages + usize::try_from(left / page_bytes).unwrap_or(usize::MAX);
        fitting = Some(fitting.map_or(pages, |least: usize| least.min(pages)));
    }
    let Some(fitting) = fitting else {
        let pages = asked.unwrap_or(CACHE_CONTEXTS * page_count(context));
        return Ok(size(pages.clamp(smallest.pages, most)));
    };
    Ok(size(fitting.min(asked.unwrap_or(most)).clamp(smallest.pages, most)))
}
