//! The buffers and dispatches of an encoder, made once at load; a pass writes what changes and runs them.

use std::sync::Arc;

use crate::gpu::{Gpu, GpuError, Pipeline, Readback};
use crate::kernels::Kernel;
use crate::kernels::encoder::{self, Pooling};
use crate::kernels::llm::{BIAS, Method};
use crate::llm::loader::Loader;
use crate::llm::matrix::{Fused, Product};
use crate::llm::op::{Grid, Op, Phase, Variant};
use crate::llm::params::{NormShape, RowShape, Step};
use crate::llm::plan::row_lines;
use crate::llm::tensors::layer_tensor;
use crate::llm::tuning::Choice;
use crate::llm::{Activations, EngineError};

use super::config::EncoderConfig;
use super::params::{AttendShape, TextRows};
use super::tensors::KINDS;

/// Most texts of a pass: enough short ones to fill a GPU.
pub(super) const PASS_TEXTS_MAX: usize = 256;

/// Everything a pass writes. Rows: as many as a pass has tokens at most.
pub(super) struct Buffers {
    pub step: wgpu::Buffer,
    /// Where each row's text lies, then where each text lies.
    pub texts: wgpu::Buffer,
    pub ids: wgpu::Buffer,
    pub positions: wgpu::Buffer,
    x: wgpu::Buffer,
    /// What is added to x next.
    branch: wgpu::Buffer,
    qkv: wgpu::Buffer,
    attended: wgpu::Buffer,
    ffn: wgpu::Buffer,
    /// One row for each text.
    pub pooled: wgpu::Buffer,
    pub readback: Readback,
}

/// Bytes of what [`Buffers`] holds, about.
pub(super) fn work_bytes(config: &EncoderConfig, pass_tokens: usize) -> u64 {
    let row = 6 * config.hidden + config.ffn;
    (4 * (pass_tokens * row + 2 * PASS_TEXTS_MAX * config.hidden)) as u64
}

impl Buffers {
    fn new(gpu: &Gpu, config: &EncoderConfig, pass_tokens: usize) -> Result<Self, GpuError> {
        let rows = |what: &str, width: usize| gpu.storage(what, (pass_tokens * width * 4) as u64);
        let places = (pass_tokens + PASS_TEXTS_MAX) * size_of::<TextRows>();
        let pooled = (PASS_TEXTS_MAX * config.hidden * 4) as u64;
        Ok(Self {
            step: gpu.uniform("step", &Step::default())?,
            texts: gpu.storage("texts", places as u64)?,
            ids: rows("token ids", 1)?,
            positions: rows("positions", 1)?,
            x: rows("rows", config.hidden)?,
            branch: rows("branch", config.hidden)?,
            qkv: rows("queries, keys, values", 3 * config.hidden)?,
            attended: rows("attention", config.hidden)?,
            ffn: rows("feed-forward", config.ffn)?,
            pooled: gpu.storage("embeddings", pooled)?,
            readback: gpu.readback("read-back", pooled)?,
        })
    }
}

/// A model's dispatches; the bind groups keep its weights alive.
pub(super) struct Graph {
    pub buffers: Buffers,
    pub embed: Vec<Op>,
    pub layers: Vec<Vec<Op>>,
    pub pool: Op,
    pub weight_bytes: u64,
}

impl Graph {
    /// Uploads the weights and makes the dispatches.
    pub fn new(
        loader: &Loader<'_>,
        config: &EncoderConfig,
        method: Method,
        pass_tokens: usize,
    ) -> Result<Self, EngineError> {
        let buffers = Buffers::new(loader.gpu, config, pass_tokens)?;
        let choice = Choice::untried(loader.gpu, Some(method), Activations::F32);
        let maker = Maker { loader, config, choice: &choice, buffers: &buffers };
        let mut weight_bytes = 0;
        let embed = maker.embed(&mut weight_bytes)?;
        let layers = (0..config.layers)
            .map(|layer| maker.layer(layer, &mut weight_bytes))
            .collect::<Result<_, EngineError>>()?;
        let pool = maker.pool(config.pooling)?;
        Ok(Self { buffers, embed, layers, pool, weight_bytes })
    }

    /// Everything that has to be compiled before the first pass: products have kernels for decoding too.
    pub fn pipelines(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        let ops = self.embed.iter().chain(self.layers.iter().flatten()).chain([&self.pool]);
        ops.map(|op| match op {
            Op::Single(variant)
            | Op::Decode(variant)
            | Op::Prefill(variant)
            | Op::ByPhase { prefill: variant, .. }
            | Op::Product { prefill: variant, .. } => &variant.pipeline,
        })
    }

    pub fn dispatch(pass: &mut wgpu::ComputePass<'_>, ops: &[Op], step: &Step) {
        for op in ops {
            op.dispatch(pass, Phase::Prefill, step);
        }
    }
}

/// Makes dispatches at load.
struct Maker<'a> {
    loader: &'a Loader<'a>,
    config: &'a EncoderConfig,
    choice: &'a Choice,
    buffers: &'a Buffers,
}

impl Maker<'_> {
    fn gpu(&self) -> &Gpu {
        self.loader.gpu
    }

    fn single(
        &self,
        kernel: &'static Kernel,
        constants: &[(&'static str, f64)],
        buffers: &[&wgpu::Buffer],
        grid: Grid,
    ) -> Result<Op, GpuError> {
        let pipeline = self.gpu().planned(kernel, constants)?;
        Ok(Op::Single(Variant { bind_group: self.gpu().bind(&pipeline, buffers)?, pipeline, grid }))
    }

    /// One invocation for four floats of every row.
    fn by_four(columns: usize) -> Grid {
        Grid::Elements { across: (columns as u32 / 4).div_ceil(64) }
    }

    /// Vectors of weights side by side, as f32 whatever their type.
    fn vectors(&self, names: &[String]) -> Result<wgpu::Buffer, EngineError> {
        let mut all = Vec::new();
        for name in names {
            all.extend(self.loader.floats(self.loader.source.require_tensor(name)?));
        }
        Ok(self.gpu().storage_with("vectors", bytemuck::cast_slice(&all))?)
    }

    fn fused(&self, names: &[String], bytes: &mut u64) -> Result<Fused, EngineError> {
        let fused = Fused::upload(self.loader, names)?;
        *bytes += fused.bytes();
        Ok(fused)
    }

    fn product(
        &self,
        weights: &Fused,
        x: &wgpu::Buffer,
        out: &wgpu::Buffer,
    ) -> Result<Vec<Op>, GpuError> {
        let step = &self.buffers.step;
        let product =
            Product { step, x, quantised: None, out, accumulate: false, selecting: false };
        weights.product(self.gpu(), self.choice, product)
    }

    fn layer_norm(&self, vectors: &wgpu::Buffer) -> Result<Op, GpuError> {
        let shape = NormShape {
            columns: self.config.hidden as u32,
            epsilon: self.config.epsilon,
            ..NormShape::default()
        };
        let shape = self.gpu().uniform("norm", &shape)?;
        let b = self.buffers;
        self.single(
            encoder::layer_norm(self.choice.method),
            &[],
            &[&b.step, &shape, &b.branch, vectors, &b.x],
            row_lines(self.choice.method, 1, false),
        )
    }

    fn row_shape(&self, columns: usize) -> Result<wgpu::Buffer, GpuError> {
        self.gpu().uniform("row", &RowShape { columns: columns as u32, ..RowShape::default() })
    }

    /// Words are looked up into x, positions into its branch; the kind of the text is their bias.
    fn embed(&self, bytes: &mut u64) -> Result<Vec<Op>, EngineError> {
        let b = self.buffers;
        let words = self.fused(&["token_embd.weight".to_owned()], bytes)?;
        let positions = self.fused(&["position_embd.weight".to_owned()], bytes)?;
        let source = self.loader.source;
        let mut vectors = match source.tensor(KINDS) {
            Some(kinds) => self.loader.floats(kinds),
            None => vec![0.0; self.config.hidden],
        };
        vectors.truncate(self.config.hidden);
        for ending in ["weight", "bias"] {
            let name = format!("token_embd_norm.{ending}");
            vectors.extend(self.loader.floats(source.require_tensor(&name)?));
        }
        let vectors = self.gpu().storage_with("vectors", bytemuck::cast_slice(&vectors))?;
        *bytes += vectors.size();
        let mut ops = words.lookup(self.gpu(), &b.step, &b.ids, &b.x)?;
        ops.extend(positions.lookup(self.gpu(), &b.step, &b.positions, &b.branch)?);
        ops.push(self.layer_norm(&vectors)?);
        Ok(ops)
    }

    fn layer(&self, layer: usize, bytes: &mut u64) -> Result<Vec<Op>, EngineError> {
        let (b, c) = (self.buffers, self.config);
        let names = |parts: &[&str]| -> Vec<String> {
            parts.iter().map(|part| layer_tensor(layer, part)).collect()
        };
        let qkv =
            self.fused(&names(&["attn_q.weight", "attn_k.weight", "attn_v.weight"]), bytes)?;
        let qkv_bias = self.vectors(&names(&["attn_q.bias", "attn_k.bias", "attn_v.bias"]))?;
        let output = self.fused(&names(&["attn_output.weight"]), bytes)?;
        let norms = |bias: &str, norm: &str| {
            [bias.to_owned(), format!("{norm}.weight"), format!("{norm}.bias")]
        };
        let norm_of = |bias, norm| {
            let parts = norms(bias, norm);
            self.vectors(&names(&parts.each_ref().map(String::as_str)))
        };
        let after_attention = norm_of("attn_output.bias", "attn_output_norm")?;
        let up = self.fused(&names(&["ffn_up.weight"]), bytes)?;
        let up_bias = self.vectors(&names(&["ffn_up.bias"]))?;
        let down = self.fused(&names(&["ffn_down.weight"]), bytes)?;
        let after_ffn = norm_of("ffn_down.bias", "layer_output_norm")?;
        *bytes += [&qkv_bias, &after_attention, &up_bias, &after_ffn]
            .iter()
            .map(|buffer| buffer.size())
            .sum::<u64>();

        let mut ops = self.product(&qkv, &b.x, &b.qkv)?;
        let wide = self.row_shape(3 * c.hidden)?;
        let grid = Self::by_four(3 * c.hidden);
        ops.push(self.single(&BIAS, &[], &[&b.step, &wide, &qkv_bias, &b.qkv], grid)?);
        ops.push(self.attend()?);
        ops.extend(self.product(&output, &b.attended, &b.branch)?);
        ops.push(self.layer_norm(&after_attention)?);
        ops.extend(self.product(&up, &b.x, &b.ffn)?);
        let wide = self.row_shape(c.ffn)?;
        let kernel = encoder::activate(c.activation);
        let grid = Self::by_four(c.ffn);
        ops.push(self.single(kernel, &[], &[&b.step, &wide, &up_bias, &b.ffn], grid)?);
        ops.extend(self.product(&down, &b.ffn, &b.branch)?);
        ops.push(self.layer_norm(&after_ffn)?);
        Ok(ops)
    }

    fn attend(&self) -> Result<Op, GpuError> {
        let (b, c) = (self.buffers, self.config);
        let shape = AttendShape {
            heads: c.heads as u32,
            head: c.head as u32,
            score_scale: (1.0 / (c.head as f64).sqrt()) as f32,
            padding: 0,
        };
        let (across, method) = (shape.heads, self.choice.method);
        let constants = encoder::attend_constants(method, shape.head);
        let shape = self.gpu().uniform("attention", &shape)?;
        let rows_per_tile = encoder::attend_rows(method);
        self.single(
            &encoder::ATTEND,
            &constants,
            &[&b.step, &shape, &b.texts, &b.qkv, &b.attended],
            Grid::Tiles { across, rows_per_tile, selecting: false },
        )
    }

    fn pool(&self, pooling: Pooling) -> Result<Op, GpuError> {
        let (b, hidden) = (self.buffers, self.config.hidden);
        let shape = self.row_shape(hidden)?;
        let across = (hidden as u32 / 4).div_ceil(64);
        self.single(
            &encoder::POOL,
            &encoder::pool_constants(pooling),
            &[&b.step, &shape, &b.texts, &b.x, &b.pooled],
            // Texts are what is selected of a pass.
            Grid::Tiles { across, rows_per_tile: 1, selecting: true },
        )
    }
}
