//! The buffers and dispatches of a model, made once at load.

use crate::gpu::{Gpu, GpuError, Readback};
use crate::kernels::Kernel;
use crate::kernels::attention::KvFormat;
use crate::kernels::llm::Method;
use crate::kernels::matvec::Activations;

use super::attention::{chunk_rows_max, span_floats};
use super::config::ModelConfig;
use super::matrix::QuantisedRows;
use super::op::{Grid, Op, Variant};
use super::params::{PAGE, Row, Step};
use super::split::Span;
use super::top::top_bytes;
use super::tuning::Choice;

/// Rows whose logits fit the logits buffer at once.
pub(super) const LOGIT_ROWS_MAX: usize = 32;

/// Keys and values of one layer.
pub(super) struct LayerCache {
    pub keys: wgpu::Buffer,
    pub values: wgpu::Buffer,
    pub format: KvFormat,
}

impl LayerCache {
    fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        pages: usize,
        format: KvFormat,
    ) -> Result<Self, GpuError> {
        let bytes = record_bytes(config, format) * (pages * PAGE) as u64;
        Ok(Self {
            keys: gpu.storage("keys", bytes)?,
            values: gpu.storage("values", bytes)?,
            format,
        })
    }

    fn bytes(&self) -> u64 {
        self.keys.size() + self.values.size()
    }
}

/// Everything a pass of one stage writes. Sizes: rows of a chunk, except the caches (all positions).
pub(super) struct Buffers {
    pub step: wgpu::Buffer,
    /// Rows of the pass, then its selection.
    pub rows: wgpu::Buffer,
    /// Page tables.
    pub pages: wgpu::Buffer,
    pub ids: wgpu::Buffer,
    pub x: wgpu::Buffer,
    pub normed: wgpu::Buffer,
    pub qkv: wgpu::Buffer,
    pub q: wgpu::Buffer,
    /// What attention found in each span of positions.
    pub spans: wgpu::Buffer,
    pub attended: wgpu::Buffer,
    pub gate_up: wgpu::Buffer,
    pub ffn: wgpu::Buffer,
    /// Logits of the experts, and (expert, share) of the chosen.
    pub router: wgpu::Buffer,
    /// The first expert of every row in every layer, where they are given.
    pub firsts: wgpu::Buffer,
    pub chosen: wgpu::Buffer,
    /// Slots by expert, tiles of them, and what every slot's expert has made: where prompts are read.
    pub pairs: wgpu::Buffer,
    pub tiles: wgpu::Buffer,
    pub expert_parts: wgpu::Buffer,
    /// One float but on the last stage.
    pub logits: wgpu::Buffer,
    /// What answers use, for the stage's layers.
    pub caches: Vec<LayerCache>,
    /// What proofs and replays use where answers do not keep floats.
    pub scratch_caches: Option<Vec<LayerCache>>,
    /// Rows as whole numbers, if decoding quantises them.
    pub quantised: Option<QuantisedRows>,
    pub readback: Readback,
}

/// The chunk, reduced to what one attention dispatch may take.
pub(super) fn fitting_chunk(
    gpu: &Gpu,
    config: &ModelConfig,
    choice: &Choice,
    context: usize,
    wanted: usize,
) -> usize {
    let by_grid = gpu.limits().max_compute_workgroups_per_dimension as usize;
    // A CPU driver has no watchdog.
    let by_work = match gpu.is_software() {
        true => usize::MAX,
        false => chunk_rows_max(config, context, choice.flop_per_second()),
    };
    wanted.min(by_work).min(by_grid).min(context)
}

/// Pages that hold a context.
pub(super) fn page_count(context: usize) -> usize {
    context.div_ceil(PAGE)
}

/// How large the caches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheSize {
    /// Longest sequence.
    pub context: usize,
    /// Pages that sequences share among them.
    pub pages: usize,
    /// Sequences that run together; each has a page table for a whole context.
    pub sequences: usize,
    /// How answers keep theirs. Proofs and replays keep floats.
    pub format: KvFormat,
}

impl CacheSize {
    /// Pages of their own for proofs and replays: a whole context, so that these never take pages from
    /// answers under way. They come after the others, or in a cache of their own if answers keep no
    /// floats.
    pub fn scratch_pages(&self) -> usize {
        page_count(self.context)
    }

    /// Word of the page tables at which the scratch pages are listed.
    pub fn scratch_at(&self) -> usize {
        self.sequences * page_count(self.context)
    }

    /// True if proofs and replays have a cache of their own.
    pub fn scratch_apart(&self) -> bool {
        self.format != KvFormat::F32
    }

    /// Numbers of the scratch pages, in the cache they are in.
    fn scratch_numbers(&self) -> std::ops::Range<u32> {
        let first = if self.scratch_apart() { 0 } else { self.pages };
        first as u32..(first + self.scratch_pages()) as u32
    }

    /// The same with no more pages than one buffer of keys may have in bytes, but never less than a context.
    pub fn within(self, config: &ModelConfig, buffer_bytes: u64) -> Self {
        let page = record_bytes(config, self.format) * PAGE as u64;
        let most = usize::try_from(buffer_bytes / page).unwrap_or(usize::MAX);
        let beside = if self.scratch_apart() { 0 } else { self.scratch_pages() };
        let most = most.saturating_sub(beside).max(page_count(self.context));
        Self { pages: self.pages.min(most), ..self }
    }

    /// Bytes of all pages in so many layers.
    pub fn bytes(&self, config: &ModelConfig, layers: usize) -> u64 {
        self.pages as u64 * page_bytes(config, layers, self.format)
            + self.scratch_pages() as u64 * page_bytes(config, layers, KvFormat::F32)
    }
}

/// Floats that the experts of all rows of a pass make.
fn expert_part_floats(config: &ModelConfig, chunk: usize) -> usize {
    config.experts.map_or(1, |e| chunk * e.used * config.hidden)
}

/// Words of the experts that are given to the rows of a pass in so many layers; a buffer cannot be empty.
fn given_words(config: &ModelConfig, chunk: usize, layers: usize) -> usize {
    config.experts.map_or(1, |_| chunk * layers)
}

/// Bytes of everything a pass writes but the caches and logits, about.
pub(super) fn work_bytes(config: &ModelConfig, context: usize, chunk: usize) -> u64 {
    let (q, ffn) = (config.heads * config.head, config.ffn);
    let row = 2 * config.hidden + config.qkv_width() + 2 * q + 3 * ffn;
    let experts = expert_part_floats(config, chunk);
    let given = given_words(config, chunk, config.layers);
    // The shorter spans of a GPU take more.
    let spans = span_floats(config, Method::Group, context, chunk);
    4 * (chunk * row + experts + given + spans) as u64
}

/// Bytes of the logits and of reading them back.
pub(super) fn logit_bytes(config: &ModelConfig) -> u64 {
    4 * (2 * LOGIT_ROWS_MAX * config.vocabulary) as u64 + top_bytes()
}

/// Bytes of the keys, or the values, of one position in one layer.
fn record_bytes(config: &ModelConfig, format: KvFormat) -> u64 {
    (config.kv_heads * format.record_words(config.head) * 4) as u64
}

/// Bytes of one page of keys and values in so many layers.
pub(super) fn page_bytes(config: &ModelConfig, layers: usize, format: KvFormat) -> u64 {
    record_bytes(config, format) * (2 * PAGE * layers) as u64
}

impl Buffers {
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        cache: CacheSize,
        chunk: usize,
        choice: &Choice,
        span: &Span,
    ) -> Result<Self, GpuError> {
        let floats = |what: &str, count: usize| gpu.storage(what, count as u64 * 4);
        let rows = |what: &str, width: usize| floats(what, chunk * width);
        let row = size_of::<Row>() as u64;
        let mut tables = vec![0; cache.scratch_at()];
        tables.extend(cache.scratch_numbers());
        let widest = config.hidden.max(config.heads * config.head).max(config.ffn);
        let logits = if span.is_last() { LOGIT_ROWS_MAX * config.vocabulary } else { 1 };
        let largest = logits.max(chunk * config.hidden) as u64 * 4;
        let caches = |pages, format| {
            let layers = span.layers.clone().map(|_| LayerCache::new(gpu, config, pages, format));
            layers.collect::<Result<Vec<_>, GpuError>>()
        };
        let (pages, scratch_pages) = (cache.pages, cache.scratch_pages());
        let (caches, scratch_caches) = match cache.scratch_apart() {
            false => (caches(pages + scratch_pages, cache.format)?, None),
            true => {
                let scratch = caches(scratch_pages, KvFormat::F32)?;
                (caches(pages, cache.format)?, Some(scratch))
            }
        };
        Ok(Self {
            step: gpu.uniform("step", &Step::default())?,
            rows: gpu.storage("rows", 2 * chunk as u64 * row)?,
            pages: gpu.storage_with("page tables", bytemuck::cast_slice(&tables))?,
            ids: rows("token ids", 1)?,
            x: rows("residual stream", config.hidden)?,
            normed: rows("normed rows", config.hidden)?,
            qkv: rows("queries, keys, values", config.qkv_width())?,
            q: rows("queries", config.heads * config.head)?,
            spans: floats(
                "attention spans",
                span_floats(config, choice.method, cache.context, chunk),
            )?,
            attended: rows("attention", config.heads * config.head)?,
            gate_up: rows("gate and up", 2 * config.ffn)?,
            ffn: rows("feed-forward", config.ffn)?,
            // One float where there are no experts: a buffer cannot be empty.
            router: rows("expert logits", config.experts.map_or(1, |e| e.count))?,
            firsts: floats("given experts", given_words(config, chunk, span.layers.len()))?,
            chosen: rows("chosen experts", config.experts.map_or(1, |e| 2 * e.used))?,
            pairs: rows("slots by expert", config.experts.map_or(1, |e| e.used))?,
            // No tile has fewer than one slot.
            tiles: floats(
                "tiles of slots",
                4 * (1 + chunk * config.experts.map_or(1, |e| e.used)),
            )?,
            expert_parts: floats("parts of experts", expert_part_floats(config, chunk))?,
            logits: floats("logits", logits)?,
            caches,
            scratch_caches,
            quantised: match choice.activations {
                Activations::F32 => None,
                Activations::Q16 => Some(QuantisedRows::new(gpu, chunk, widest)?),
            },
            readback: gpu.readback("read-back", largest)?,
        })
    }

    pub fn bytes(&self) -> u64 {
        let caches = self.caches.iter().chain(self.scratch_caches.iter().flatten());
        let caches: u64 = caches.map(LayerCache::bytes).sum();
        [
            &self.x,
            &self.normed,
            &self.qkv,
            &self.q,
            &self.spans,
            &self.attended,
            &self.gate_up,
            &self.ffn,
            &self.expert_parts,
            &self.firsts,
            &self.logits,
        ]
        .iter()
        .map(|b| b.size())
        .sum::<u64>()
            + caches
            + self.quantised.as_ref().map_or(0, QuantisedRows::bytes)
    }
}

/// A grid for kernels built on `lib/reduce_*.wgsl`.
pub(crate) fn row_lines(method: Method, lines_per_row: u32, selecting: bool) -> Grid {
    Grid::Lines {
        lines_per_row,
        // reduce_lane.wgsl: eight rows to a workgroup; reduce_tree.wgsl: one.
        lines_per_group: match method {
            Method::Lane => 8,
            Method::Group => 1,
        },
        selecting,
    }
}

/// Makes dispatches; those of a layer are in `layer.rs`.
pub(super) struct Plan<'a> {
    pub gpu: &'a Gpu,
    pub config: &'a ModelConfig,
    pub method: Method,
    pub choice: &'a Choice,
    pub buffers: &'a Buffers,
}

impl Plan<'_> {
    pub fn single(
        &self,
        kernel: &'static Kernel,
        buffers: &[&wgpu::Buffer],
        grid: Grid,
    ) -> Result<Op, GpuError> {
        let pipeline = self.gpu.planned(kernel, &[])?;
        Ok(Op::Single(Variant { bind_group: self.gpu.bind(&pipeline, buffers)?, pipeline, grid }))
    }
}
