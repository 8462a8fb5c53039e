//! The forward pass: static buffers, a list of dispatches made once, one encoder per pass.
//!
//! ```text
//! ids -> embed -> x --+-> norm -> qkv -> rope -> scores -> softmax -> values -> output --+-> x
//!                     +------------------------------------------------------------------+
//!        x --+-> norm -> gate|up -> silu_mul -> down --+-> x  [-> reflect]      (every layer)
//!            +-----------------------------------------+
//!        selected rows of x -> norm -> normed [-> head -> logits]
//! ```
//! Nothing is allocated per token. What changes from pass to pass is the 32 bytes of [`Step`].

use std::sync::Arc;

use crate::gpu::{Gpu, GpuError, Readback};
use crate::kernels::llm::{self, Method};

use super::config::LlamaConfig;
use super::error::EngineError;
use super::matrix::Product;
use super::op::{Grid, Op, Variant};
use super::params::{AttentionShape, NormShape, RowShape, Step};
use super::weights::{LayerWeights, Weights};

/// Rows whose logits fit the logits buffer at once.
pub(super) const LOGIT_ROWS_MAX: usize = 16;
/// Most bytes for attention scores; long contexts get smaller chunks instead.
const SCORES_BYTES_MAX: u64 = 256 << 20;
/// Work per submission on a GPU: 40 GFLOP is about 40 ms on the slowest cards we meet (1 TFLOP/s in
/// our kernels), far below every driver's watchdog. A CPU driver has none and takes whole chunks.
const SUBMIT_FLOP_MAX: f64 = 40e9;

/// Where a pass gets its input rows.
pub(super) enum Input<'a> {
    Ids(&'a [u32]),
    Rows(&'a [f32]),
    /// Rows in a GPU buffer from this row on.
    Buffer(&'a wgpu::Buffer, usize),
}

/// What to read back after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Nothing,
    /// Final-norm hidden states of the selected rows.
    Hidden,
    /// Logits of the selected rows.
    Logits,
}

struct Buffers {
    step: wgpu::Buffer,
    ids: wgpu::Buffer,
    x: wgpu::Buffer,
    normed: wgpu::Buffer,
    qkv: wgpu::Buffer,
    q: wgpu::Buffer,
    scores: wgpu::Buffer,
    attended: wgpu::Buffer,
    gate_up: wgpu::Buffer,
    ffn: wgpu::Buffer,
    logits: wgpu::Buffer,
    caches: Vec<(wgpu::Buffer, wgpu::Buffer)>,
    readback: Readback,
}

/// A model ready to run.
pub(super) struct Forward {
    gpu: Arc<Gpu>,
    config: LlamaConfig,
    method: Method,
    context: usize,
    chunk: usize,
    buffers: Buffers,
    embed: Vec<Op>,
    layers: Vec<Vec<Op>>,
    final_norm: Op,
    head: Vec<Op>,
    flop_per_row_and_layer: f64,
    // Keeps the weight buffers' sizes known; the bind groups keep the buffers themselves alive.
    pub weight_bytes: u64,
    pub working_bytes: u64,
}

impl Forward {
    pub fn new(
        gpu: Arc<Gpu>,
        config: LlamaConfig,
        weights: &Weights,
        method: Method,
        context: usize,
        chunk: usize,
    ) -> Result<Self, EngineError> {
        let chunk = fitting_chunk(&gpu, &config, context, chunk)?;
        let buffers = Buffers::new(&gpu, &config, context, chunk)?;
        let plan = Plan { gpu: &gpu, config: &config, method, buffers: &buffers };
        let layers = weights
            .layers
            .iter()
            .zip(&buffers.caches)
            .map(|(layer, cache)| plan.layer(layer, cache, &weights.angles))
            .collect::<Result<Vec<_>, GpuError>>()?;
        let embed = weights.embedding.lookup(&gpu, &buffers.step, &buffers.ids, &buffers.x)?;
        let final_norm = plan.norm(&weights.output_norm, true)?;
        let head = weights.head().product(
            &gpu,
            method,
            Product {
                step: &buffers.step,
                x: &buffers.normed,
                out: &buffers.logits,
                accumulate: false,
                selecting: true,
            },
        )?;
        let width = config.qkv_width() + config.heads * config.head + 3 * config.ffn;
        Ok(Self {
            flop_per_row_and_layer: 2.0 * (width * config.hidden) as f64,
            weight_bytes: weights.bytes,
            working_bytes: buffers.bytes(),
            embed,
            layers,
            final_norm,
            head,
            gpu,
            config,
            method,
            context,
            chunk,
            buffers,
        })
    }

    /// KV slots: positions of one sequence, or of several short ones together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Most rows of one pass.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Binds a round's reflection vectors to the residual stream, one dispatch per layer.
    pub fn reflections(&self, vectors: &[wgpu::Buffer]) -> Result<Vec<Op>, GpuError> {
        let shape = RowShape { columns: self.config.hidden as u32, ..RowShape::default() };
        let shape = self.gpu.uniform("reflection", &shape)?;
        let pipeline = self.gpu.pipeline(llm::reflect(self.method), &[])?;
        vectors
            .iter()
            .map(|v| {
                let buffers = [&self.buffers.step, &shape, v, &self.buffers.x];
                Ok(Op::Single(Variant {
                    bind_group: self.gpu.bind(&pipeline, &buffers)?,
                    pipeline: pipeline.clone(),
                    grid: row_lines(self.method, 1, false),
                }))
            })
            .collect()
    }

    /// Runs all layers over `input`, then reads `output`. Reflections, if any, follow every layer.
    pub fn pass(
        &self,
        step: Step,
        input: &Input<'_>,
        reflections: &[Op],
        output: Output,
    ) -> Result<Vec<f32>, EngineError> {
        let rows = step.rows as usize;
        assert!(
            rows > 0 && rows <= self.chunk && step.kv_length as usize <= self.context,
            "the engine cuts its passes to the chunk and the context"
        );
        self.set_step(&step);
        let mut encoder = self.gpu.encoder("forward");
        self.encode_input(&mut encoder, &step, input);
        let submit_flop_max = match self.gpu.is_software() {
            true => f64::INFINITY,
            false => SUBMIT_FLOP_MAX,
        };
        let mut flop = 0.0;
        for (index, layer) in self.layers.iter().enumerate() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for op in layer.iter().chain(reflections.get(index)) {
                op.dispatch(&mut pass, &step);
            }
            drop(pass);
            flop += self.flop_per_row_and_layer * rows as f64;
            if flop > submit_flop_max {
                let full = std::mem::replace(&mut encoder, self.gpu.encoder("forward"));
                self.gpu.submit(full, "a prefill chunk")?;
                flop = 0.0;
            }
        }
        self.finish(encoder, &step, output)
    }

    /// Norm and head once more, for other rows of the last pass.
    pub fn select(&self, step: Step, output: Output) -> Result<Vec<f32>, EngineError> {
        self.set_step(&step);
        self.finish(self.gpu.encoder("head"), &step, output)
    }

    fn set_step(&self, step: &Step) {
        self.gpu.write(&self.buffers.step, 0, bytemuck::bytes_of(step));
    }

    fn encode_input(&self, encoder: &mut wgpu::CommandEncoder, step: &Step, input: &Input<'_>) {
        let row_bytes = self.config.hidden as u64 * 4;
        match input {
            Input::Ids(ids) => {
                self.gpu.write(&self.buffers.ids, 0, bytemuck::cast_slice(ids));
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                for op in &self.embed {
                    op.dispatch(&mut pass, step);
                }
            }
            Input::Rows(rows) => {
                self.gpu.write(&self.buffers.x, 0, bytemuck::cast_slice(rows));
            }
            Input::Buffer(buffer, first_row) => encoder.copy_buffer_to_buffer(
                buffer,
                *first_row as u64 * row_bytes,
                &self.buffers.x,
                0,
                u64::from(step.rows) * row_bytes,
            ),
        }
    }

    fn finish(
        &self,
        mut encoder: wgpu::CommandEncoder,
        step: &Step,
        output: Output,
    ) -> Result<Vec<f32>, EngineError> {
        const WHAT: &str = "a forward pass";
        let (source, width) = match output {
            Output::Nothing => {
                self.gpu.run(encoder, WHAT)?;
                return Ok(Vec::new());
            }
            Output::Hidden => (&self.buffers.normed, self.config.hidden),
            Output::Logits => (&self.buffers.logits, self.config.vocabulary),
        };
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.final_norm.dispatch(&mut pass, step);
            if output == Output::Logits {
                assert!(
                    step.selected as usize <= LOGIT_ROWS_MAX,
                    "the engine asks for few logits at a time"
                );
                for op in &self.head {
                    op.dispatch(&mut pass, step);
                }
            }
        }
        let bytes = u64::from(step.selected) * width as u64 * 4;
        let data =
            self.gpu.run_and_read(encoder, source, 0, bytes, &self.buffers.readback, WHAT)?;
        Ok(bytemuck::pod_collect_to_vec(&data))
    }
}

/// The chunk, reduced until the attention scores fit one binding and every dispatch its grid.
fn fitting_chunk(
    gpu: &Gpu,
    config: &LlamaConfig,
    context: usize,
    wanted: usize,
) -> Result<usize, GpuError> {
    let limits = gpu.limits();
    let scores_max =
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(SCORES_BYTES_MAX);
    let row = (config.heads * context * 4) as u64;
    let by_scores = usize::try_from(scores_max / row).unwrap_or(usize::MAX);
    let by_grid = limits.max_compute_workgroups_per_dimension as usize / config.heads;
    let chunk = wanted.min(by_scores).min(by_grid).min(context);
    if chunk == 0 {
        return Err(GpuError::Limit {
            what: "the attention scores of one token (choose a shorter context)".to_owned(),
            needed_bytes: row,
            limit_bytes: scores_max,
            limit: "max_storage_buffer_binding_size",
        });
    }
    Ok(chunk)
}

impl Buffers {
    fn new(
        gpu: &Gpu,
        config: &LlamaConfig,
        context: usize,
        chunk: usize,
    ) -> Result<Self, GpuError> {
        let floats = |what: &str, count: usize| gpu.storage(what, count as u64 * 4);
        let rows = |what: &str, width: usize| floats(what, chunk * width);
        let cache = context * config.kv_heads * config.head;
        let logits = LOGIT_ROWS_MAX * config.vocabulary;
        let largest = logits.max(chunk * config.hidden) as u64 * 4;
        Ok(Self {
            step: gpu.uniform("step", &Step::default())?,
            ids: rows("token ids", 1)?,
            x: rows("residual stream", config.hidden)?,
            normed: rows("normed rows", config.hidden)?,
            qkv: rows("queries, keys, values", config.qkv_width())?,
            q: rows("queries", config.heads * config.head)?,
            scores: rows("attention scores", config.heads * context)?,
            attended: rows("attention", config.heads * config.head)?,
            gate_up: rows("gate and up", 2 * config.ffn)?,
            ffn: rows("feed-forward", config.ffn)?,
            logits: floats("logits", logits)?,
            caches: (0..config.layers)
                .map(|_| Ok((floats("keys", cache)?, floats("values", cache)?)))
                .collect::<Result<_, GpuError>>()?,
            readback: gpu.readback("read-back", largest)?,
        })
    }

    fn bytes(&self) -> u64 {
        let caches: u64 = self.caches.iter().map(|(k, v)| k.size() + v.size()).sum();
        [
            &self.x,
            &self.normed,
            &self.qkv,
            &self.q,
            &self.scores,
            &self.attended,
            &self.gate_up,
            &self.ffn,
            &self.logits,
        ]
        .iter()
        .map(|b| b.size())
        .sum::<u64>()
            + caches
    }
}

/// A grid for kernels built on `lib/reduce_*.wgsl`.
fn row_lines(method: Method, lines_per_row: u32, selecting: bool) -> Grid {
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

/// Makes the dispatches of a layer.
struct Plan<'a> {
    gpu: &'a Gpu,
    config: &'a LlamaConfig,
    method: Method,
    buffers: &'a Buffers,
}

impl Plan<'_> {
    fn layer(
        &self,
        weights: &LayerWeights,
        cache: &(wgpu::Buffer, wgpu::Buffer),
        angles: &wgpu::Buffer,
    ) -> Result<Vec<Op>, GpuError> {
        let b = self.buffers;
        let product =
            |x, out, accumulate| Product { step: &b.step, x, out, accumulate, selecting: false };
        let (gpu, method) = (self.gpu, self.method);
        let mut ops = vec![self.norm(&weights.attention_norm, false)?];
        ops.extend(weights.qkv.product(gpu, method, product(&b.normed, &b.qkv, false))?);
        ops.extend(self.attention(cache, angles)?);
        let onto_x = product(&b.attended, &b.x, true);
        ops.extend(weights.attention_output.product(gpu, method, onto_x)?);
        ops.push(self.norm(&weights.ffn_norm, false)?);
        ops.extend(weights.gate_up.product(gpu, method, product(&b.normed, &b.gate_up, false))?);
        ops.push(self.gate()?);
        ops.extend(weights.down.product(gpu, method, product(&b.ffn, &b.x, true))?);
        Ok(ops)
    }

    /// Norm of the residual stream, of all rows or of the step's selection.
    fn norm(&self, weight: &wgpu::Buffer, selecting: bool) -> Result<Op, GpuError> {
        let shape = NormShape {
            columns: self.config.hidden as u32,
            selecting: u32::from(selecting),
            epsilon: self.config.epsilon,
            padding: 0,
        };
        let shape = self.gpu.uniform("norm", &shape)?;
        let b = self.buffers;
        self.single(
            llm::rms_norm(self.method),
            &[&b.step, &shape, &b.x, weight, &b.normed],
            row_lines(self.method, 1, selecting),
        )
    }

    fn gate(&self) -> Result<Op, GpuError> {
        let shape = RowShape { columns: self.config.ffn as u32, ..RowShape::default() };
        let shape = self.gpu.uniform("gate", &shape)?;
        let b = self.buffers;
        let across = (self.config.ffn as u32 / 4).div_ceil(64);
        self.single(
            &llm::SILU_MUL,
            &[&b.step, &shape, &b.gate_up, &b.ffn],
            Grid::Elements { across },
        )
    }

    fn attention(
        &self,
        (keys, values): &(wgpu::Buffer, wgpu::Buffer),
        angles: &wgpu::Buffer,
    ) -> Result<[Op; 4], GpuError> {
        let c = self.config;
        let shape = AttentionShape {
            heads: c.heads as u32,
            kv_heads: c.kv_heads as u32,
            head: c.head as u32,
            rope: c.rope as u32,
            half_split: 0,
            score_scale: 1.0 / (c.head as f32).sqrt(),
            padding: [0; 2],
        };
        let shape = self.gpu.uniform("attention", &shape)?;
        let b = self.buffers;
        let pairs = (c.qkv_width() / 2) as u32;
        let vectors = (c.heads * c.head / 4) as u32;
        let heads = c.heads as u32;
        Ok([
            self.single(
                &llm::ROPE,
                &[&b.step, &shape, &b.qkv, angles, &b.q, keys, values],
                Grid::Elements { across: pairs.div_ceil(64) },
            )?,
            self.single(
                &llm::ATTENTION_SCORES,
                &[&b.step, &shape, &b.q, keys, &b.scores],
                Grid::Scores { heads },
            )?,
            self.single(
                llm::softmax(self.method),
                &[&b.step, &shape, &b.scores],
                row_lines(self.method, heads, false),
            )?,
            self.single(
                &llm::ATTENTION_VALUES,
                &[&b.step, &shape, &b.scores, values, &b.attended],
                Grid::Elements { across: vectors.div_ceil(64) },
            )?,
        ])
    }

    fn single(
        &self,
        kernel: &'static crate::kernels::Kernel,
        buffers: &[&wgpu::Buffer],
        grid: Grid,
    ) -> Result<Op, GpuError> {
        let pipeline = self.gpu.pipeline(kernel, &[])?;
        Ok(Op::Single(Variant { bind_group: self.gpu.bind(&pipeline, buffers)?, pipeline, grid }))
    }
}
