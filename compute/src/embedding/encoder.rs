//! The public face: load an encoder, tokenize, embed.

use std::path::Path;
use std::sync::Arc;

use super::config::EncoderConfig;
use super::graph::{Graph, PASS_TEXTS_MAX, work_bytes};
use super::params::TextRows;
use crate::adapter::{AdapterChoice, AdapterSummary};
use crate::gguf::TensorEntry;
use crate::gpu::Gpu;
use crate::kernels::llm::Method;
use crate::llm::loader::Loader;
use crate::llm::params::Step;
use crate::llm::{EngineError, LoadProgress, packing};
use crate::source::{self, WeightSource};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Tokens of a pass unless asked for, if no text is longer. A GPU needs many rows to be busy; a CPU driver
/// is busy with few, and its passes should stay short enough to notice a request that was given up.
const PASS_TOKENS_GPU: usize = 4096;
const PASS_TOKENS_SOFTWARE: usize = 256;
/// Most tokens of a pass, whatever is asked for: one workgroup per row must fit a dispatch.
const PASS_TOKENS_MAX: usize = 16_384;
/// Work of one dispatch on a GPU: about 30 ms on the slowest cards we meet (1 TFLOP/s in our kernels), far
/// below every driver's watchdog.
const DISPATCH_FLOP_MAX: f64 = 30e9;
/// Attention loads a key for every row, a product shares it among many: its work counts so many times.
const ATTENTION_COST: usize = 8;
/// Work per submission on a GPU. A CPU driver has no watchdog and takes whole passes.
const SUBMIT_FLOP_MAX: f64 = 40e9;

/// What may be chosen when an encoder is loaded.
#[derive(Clone, Debug, Default)]
pub struct EncoderOptions {
    /// Tokens of all texts of a pass together; default 256 on a software adapter, 4096 on a GPU, and never
    /// fewer than the longest text has.
    pub pass_tokens: Option<usize>,
    /// How kernels share out work; default by the adapter's kind.
    pub method: Option<Method>,
    /// Bytes of GPU memory the model may take, if that is known.
    pub memory_bytes: Option<u64>,
}

/// What is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderInfo {
    /// `general.name` of the file, or its file name.
    pub model_name: String,
    pub adapter: AdapterSummary,
    pub config: EncoderConfig,
    /// Tokens of all texts of a pass together.
    pub pass_tokens: usize,
    /// Weights on the GPU.
    pub weight_bytes: u64,
    /// Activations on the GPU.
    pub working_bytes: u64,
}

/// How much GPU memory an encoder takes, before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderNeed {
    pub weight_bytes: u64,
    /// Activations.
    pub work_bytes: u64,
}

impl EncoderNeed {
    /// Of a model with default options; an adapter of software works on fewer rows at a time.
    pub fn of(file: &dyn WeightSource, software: bool) -> Result<Self, EngineError> {
        let config = EncoderConfig::from_source(file)?;
        let pass_tokens = pass_tokens(&config, None, software);
        Ok(Self { weight_bytes: weight_bytes(file), work_bytes: work_bytes(&config, pass_tokens) })
    }

    /// Everything together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.work_bytes)
    }
}

/// Bytes of all weights in the layouts they have on the GPU.
fn weight_bytes(file: &dyn WeightSource) -> u64 {
    let of = |tensor: &TensorEntry| {
        let (quants, scales) = packing::row_bytes(packing::format_of(tensor.kind), tensor.columns);
        ((quants + scales) * tensor.rows) as u64
    };
    file.entries().values().map(of).sum()
}

/// A pass holds at least one text, at most what keeps every dispatch short.
fn pass_tokens(config: &EncoderConfig, wanted: Option<usize>, software: bool) -> usize {
    let wanted = wanted.unwrap_or(match software {
        true => PASS_TOKENS_SOFTWARE,
        false => PASS_TOKENS_GPU,
    });
    let by_work = match software {
        true => usize::MAX,
        false => {
            let product = 2 * config.hidden * config.ffn.max(3 * config.hidden);
            let attention = ATTENTION_COST * 4 * config.hidden * config.tokens_max;
            (DISPATCH_FLOP_MAX / product.max(attention) as f64) as usize
        }
    };
    wanted.min(by_work).min(PASS_TOKENS_MAX).max(config.tokens_max)
}

/// A loaded encoder on an open GPU. Dropping it frees everything.
pub struct Encoder {
    info: EncoderInfo,
    gpu: Arc<Gpu>,
    tokenizer: Option<Tokenizer>,
    graph: Graph,
}

impl Encoder {
    /// Loads a Hugging Face folder or a GGUF file onto the chosen adapter.
    pub fn load(
        path: &Path,
        choice: &AdapterChoice,
        options: &EncoderOptions,
    ) -> Result<Self, EngineError> {
        let file = source::open(path)?;
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::load_file(&*file, &name, Gpu::open(choice)?, options, &|_| ())
    }

    /// Loads an open model onto an open device, telling how far it is after every few megabytes;
    /// `fallback_name` serves if the model has no name.
    pub fn load_file(
        file: &dyn WeightSource,
        fallback_name: &str,
        gpu: Arc<Gpu>,
        options: &EncoderOptions,
        progress: &dyn Fn(LoadProgress),
    ) -> Result<Self, EngineError> {
        let config = EncoderConfig::from_source(file)?;
        let tokenizer = match file.tokenizer() {
            Ok(tokenizer) => Some(tokenizer),
            Err(TokenizerError::Missing) => None,
            Err(error) => return Err(error.into()),
        };
        let pass_tokens = pass_tokens(&config, options.pass_tokens, gpu.is_software());
        let need = EncoderNeed {
            weight_bytes: weight_bytes(file),
            work_bytes: work_bytes(&config, pass_tokens),
        };
        if let Some(budget_bytes) = options.memory_bytes.filter(|budget| need.bytes() > *budget) {
            return Err(EngineError::Memory {
                weight_bytes: need.weight_bytes,
                work_bytes: need.work_bytes,
                cache_bytes: 0,
                budget_bytes,
            });
        }
        let method = options.method.unwrap_or_else(|| Method::of(gpu.is_software()));
        let loader = Loader::new(&gpu, file, progress);
        let graph = Graph::new(&loader, &config, method, pass_tokens)?;
        gpu.compile(graph.pipelines(), &mut |done, total| {
            progress(LoadProgress::Kernels { done, total });
        })?;
        let name = file.metadata().string("general.name")?;
        let info = EncoderInfo {
            model_name: name.unwrap_or(fallback_name).to_owned(),
            adapter: gpu.summary().clone(),
            config,
            pass_tokens,
            weight_bytes: graph.weight_bytes,
            working_bytes: need.work_bytes,
        };
        let mut encoder = Self { info, gpu, tokenizer, graph };
        // Some drivers compile at first use only; and weights that are no numbers are found now.
        encoder.pass(&[&[0]])?;
        Ok(encoder)
    }

    /// What is loaded and where.
    #[must_use]
    pub fn info(&self) -> &EncoderInfo {
        &self.info
    }

    /// Fails if the device was lost since it was opened.
    pub fn health(&self) -> Result<(), EngineError> {
        Ok(self.gpu.check("health check")?)
    }

    /// Token ids of a text, with those the model wants around it.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let tokenizer = self.tokenizer.as_ref().ok_or(TokenizerError::Missing)?;
        let (prefix, suffix) = tokenizer.frame();
        let lowered = self.info.config.lowercases.then(|| text.to_lowercase());
        let mut ids = prefix.to_vec();
        ids.extend(tokenizer.encode(lowered.as_deref().unwrap_or(text))?);
        ids.extend(suffix);
        Ok(ids)
    }

    /// Cuts the ids of a text down to `tokens`, from its end; what the model wants behind a text stays, as
    /// sentence-transformers does it.
    pub fn truncate(&self, ids: &mut Vec<u32>, tokens: usize) {
        if ids.len() <= tokens {
            return;
        }
        let suffix = self.tokenizer.as_ref().map_or(&[][..], |tokenizer| tokenizer.frame().1);
        let kept = if ids.ends_with(suffix) { suffix } else { &[] };
        ids.truncate(tokens.saturating_sub(kept.len()));
        ids.extend(&kept[..kept.len().min(tokens)]);
    }

    /// How many of these texts, given by their numbers of tokens, one pass takes: the first ones.
    #[must_use]
    pub fn fitting(&self, lengths: impl IntoIterator<Item = usize>) -> usize {
        let mut room = self.info.pass_tokens;
        lengths
            .into_iter()
            .take(PASS_TEXTS_MAX)
            .take_while(|length| {
                let fits = *length <= room;
                room = room.saturating_sub(*length);
                fits
            })
            .count()
    }

    /// Embeddings of texts, however many, in their order.
    pub fn embed(&mut self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EngineError> {
        texts.iter().try_for_each(|ids| self.check(ids))?;
        let mut embeddings = Vec::with_capacity(texts.len());
        while embeddings.len() < texts.len() {
            let rest = &texts[embeddings.len()..];
            // At least one text fits: each was checked, and a pass takes the longest.
            let count = self.fitting(rest.iter().map(Vec::len)).max(1);
            let pass: Vec<&[u32]> = rest[..count].iter().map(Vec::as_slice).collect();
            embeddings.extend(self.pass(&pass)?);
        }
        Ok(embeddings)
    }

    /// Fails unless these ids are a text the model can read.
    pub fn check(&self, ids: &[u32]) -> Result<(), EngineError> {
        let bad = |reason: String| Err(EngineError::BadRequest { field: "input", reason });
        let config = &self.info.config;
        if ids.is_empty() {
            return bad("a text has no tokens".to_owned());
        }
        if ids.len() > config.tokens_max {
            return Err(EngineError::ContextFull {
                tokens: ids.len(),
                context_tokens: config.tokens_max,
            });
        }
        match ids.iter().find(|id| **id as usize >= config.vocabulary) {
            None => Ok(()),
            Some(id) => bad(format!("token id {id} is not below {}", config.vocabulary)),
        }
    }

    /// Embeddings of texts that fit one pass ([`Self::fitting`]).
    pub fn pass(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        const WHAT: &str = "a pass of texts";
        texts.iter().try_for_each(|ids| self.check(ids))?;
        if self.fitting(texts.iter().map(|ids| ids.len())) < texts.len() {
            return Err(EngineError::BadRequest {
                field: "input",
                reason: format!(
                    "more than {PASS_TEXTS_MAX} texts or {} tokens in one pass",
                    self.info.pass_tokens
                ),
            });
        }
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let (step, longest) = self.write(texts);
        let (gpu, graph, config) = (&self.gpu, &self.graph, &self.info.config);
        let submit_flop_max = if gpu.is_software() { f64::INFINITY } else { SUBMIT_FLOP_MAX };
        let mut encoder = gpu.encoder(WHAT);
        let mut flop = 0.0;
        for ops in std::iter::once(&graph.embed).chain(&graph.layers) {
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                Graph::dispatch(&mut pass, ops, &step);
            }
            flop += config.layer_flop(longest) * f64::from(step.rows);
            if flop > submit_flop_max {
                gpu.submit(std::mem::replace(&mut encoder, gpu.encoder(WHAT)), WHAT)?;
                flop = 0.0;
            }
        }
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            Graph::dispatch(&mut pass, std::slice::from_ref(&graph.pool), &step);
        }
        let bytes = (texts.len() * config.hidden * 4) as u64;
        let buffers = &graph.buffers;
        let data = gpu.run_and_read(encoder, &buffers.pooled, 0, bytes, &buffers.readback, WHAT)?;
        let floats: Vec<f32> = bytemuck::pod_collect_to_vec(&data);
        floats.chunks_exact(config.hidden).map(|row| self.finish(row)).collect()
    }

    /// Writes what changes from pass to pass; returns the step and the length of the longest text.
    fn write(&self, texts: &[&[u32]]) -> (Step, usize) {
        let ids: Vec<u32> = texts.concat();
        let mut places = Vec::with_capacity(ids.len() + texts.len());
        let mut positions = Vec::with_capacity(ids.len());
        let mut all = Vec::with_capacity(texts.len());
        let position_first = self.info.config.position_first as u32;
        for text in texts {
            let rows = TextRows { first: places.len() as u32, count: text.len() as u32 };
            places.resize(places.len() + text.len(), rows);
            positions.extend((position_first..).take(text.len()));
            all.push(rows);
        }
        places.extend(all);
        let step = Step { rows: ids.len() as u32, selected: texts.len() as u32, ..Step::default() };
        let buffers = &self.graph.buffers;
        self.gpu.write(&buffers.step, 0, bytemuck::bytes_of(&step));
        self.gpu.write(&buffers.texts, 0, bytemuck::cast_slice(&places));
        self.gpu.write(&buffers.ids, 0, bytemuck::cast_slice(&ids));
        self.gpu.write(&buffers.positions, 0, bytemuck::cast_slice(&positions));
        (step, texts.iter().map(|text| text.len()).max().unwrap_or(0))
    }

    fn finish(&self, row: &[f32]) -> Result<Vec<f32>, EngineError> {
        let length = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(EngineError::UnsupportedModel {
                reason: "its weights give embeddings that are no numbers".to_owned(),
            });
        }
        Ok(match self.info.config.normalises {
            // As torch.nn.functional.normalize: a vector of zeros stays one.
            true => row.iter().map(|v| (f64::from(*v) / length.max(1e-12)) as f32).collect(),
            false => row.to_vec(),
        })
    }
}
