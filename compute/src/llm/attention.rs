//! The dispatches of attention: rope and filing, attending over spans, putting the spans together.

use crate::gpu::GpuError;
use crate::kernels::Kernel;
use crate::kernels::attention::{self, Attending, SPAN_PREFILL, span_decode};
use crate::kernels::llm::Method;

use super::config::ModelConfig;
use super::op::{Grid, Op, Variant};
use super::params::AttentionShape;
use super::plan::{LOGIT_ROWS_MAX, LayerCache, Plan};

/// Longest that one attention dispatch of a GPU should take: far below every driver's watchdog.
const DISPATCH_SECONDS_MAX: f64 = 0.030;
/// What the slowest cards we meet reach in our kernels.
const FLOP_PER_SECOND_MIN: f64 = 1e12;
/// Attention of prompts reaches at least this part of what their products do (an estimate: it loads four floats for
/// eight products, they load four for 32).
const SHARE_OF_PRODUCTS: f64 = 1.0 / 8.0;
/// Fewest rows of a chunk, however long the context.
const CHUNK_ROWS_MIN: usize = 16;

/// Floats that the spans of all rows of a pass take.
pub(super) fn span_floats(
    config: &ModelConfig,
    method: Method,
    context: usize,
    chunk: usize,
) -> usize {
    let decode = LOGIT_ROWS_MAX.min(chunk) * context.div_ceil(span_decode(method) as usize);
    decode.max(chunk) * config.heads * (config.head + 4)
}

/// Rows of a chunk that one attention dispatch of a GPU may have at the end of a context, if its products were
/// measured at so many operations a second.
pub(super) fn chunk_rows_max(
    config: &ModelConfig,
    context: usize,
    products_per_second: Option<f64>,
) -> usize {
    let row_flop = (4 * config.heads * config.head * context) as f64;
    let measured = products_per_second.map_or(0.0, |products| products * SHARE_OF_PRODUCTS);
    let rows = measured.max(FLOP_PER_SECOND_MIN) * DISPATCH_SECONDS_MAX / row_flop;
    (rows as usize).max(CHUNK_ROWS_MIN)
}

impl Plan<'_> {
    /// `window` is the number of positions a row sees, 0 being all of them.
    pub fn attention(
        &self,
        cache: &LayerCache,
        angles: &wgpu::Buffer,
        window: usize,
    ) -> Result<[Op; 3], GpuError> {
        let c = self.config;
        let shape = AttentionShape {
            heads: c.heads as u32,
            kv_heads: c.kv_heads as u32,
            head: c.head as u32,
            rope: c.rope.dimensions as u32,
            half_split: u32::from(c.family().half_split),
            score_scale: c.score_scale,
            window: window as u32,
            softcap: c.score_softcap,
        };
        let (heads, kv_heads, head) = (shape.heads, shape.kv_heads, shape.head);
        let shape = self.gpu.constant("attention", &shape)?;
        let b = self.buffers;
        let LayerCache { keys, values, format } = cache;
        let pieces = (c.qkv_width() / c.head * c.head.div_ceil(format.piece())) as u32;
        let across = attention::head_blocks(heads, kv_heads);
        let vectors = heads * head / 4;
        let attending = Attending::of(self.method, self.gpu.subgroup_lanes(), head);
        Ok([
            self.single(
                attention::rope(*format),
                &[&b.step, &shape, &b.rows, &b.pages, &b.qkv, angles, &b.q, keys, values],
                Grid::Elements { across: pieces.div_ceil(64) },
            )?,
            self.by_phase(
                attending.kernel(*format),
                &[&b.step, &shape, &b.rows, &b.pages, &b.q, keys, values, &b.spans],
                |span| attending.constants(head, span),
                |span| Grid::Spans { across, span },
            )?,
            self.by_phase(
                &attention::ATTENTION_REDUCE,
                &[&b.step, &shape, &b.rows, &b.spans, &b.attended],
                |span| vec![("SPAN", f64::from(span))],
                |_| Grid::Elements { across: vectors.div_ceil(64) },
            )?,
        ])
    }

    /// The same kernel with the spans of prefill and with those of decoding.
    fn by_phase(
        &self,
        kernel: &'static Kernel,
        buffers: &[&wgpu::Buffer],
        constants: impl Fn(u32) -> Vec<(&'static str, f64)>,
        grid: impl Fn(u32) -> Grid,
    ) -> Result<Op, GpuError> {
        let variant = |span| {
            let pipeline = self.gpu.planned(kernel, &constants(span))?;
            let bind_group = self.gpu.bind(&pipeline, buffers)?;
            Ok::<Variant, GpuError>(Variant { bind_group, pipeline, grid: grid(span) })
        };
        let decode = variant(span_decode(self.method))?;
        Ok(Op::ByPhase { decode, prefill: variant(SPAN_PREFILL)? })
    }
}
