//! The dispatches of one layer: what every family has, and what only some have.

use crate::gpu::GpuError;
use crate::kernels::llm;

use super::architecture::Activation;
use super::matrix::{Fused, Product};
use super::op::{Grid, Op};
use super::params::{HeadNormShape, NormShape, RowShape, ScaleShape};
use super::plan::{LayerCache, Plan, row_lines};
use super::weights::{FeedForward, LayerWeights};

/// Invocations of a workgroup of the kernels that treat every float alike.
const WORKGROUP: u32 = 64;

impl Plan<'_> {
    /// All dispatches of layer `number` of this card, from and to the residual stream.
    pub fn layer(
        &self,
        number: usize,
        weights: &LayerWeights,
        cache: &LayerCache,
    ) -> Result<Vec<Op>, GpuError> {
        let (b, w) = (self.buffers, weights);
        let mut ops = vec![self.norm(&w.attention_norm, false)?];
        self.product_of(&w.qkv, w.qkv_bias.as_ref(), &b.normed, &b.qkv, &mut ops)?;
        if let Some(norms) = &w.head_norms {
            ops.push(self.head_norms(norms)?);
        }
        ops.extend(self.attention(cache, &w.angles, w.window)?);
        let bias = w.attention_output_bias.as_ref();
        let post_norm = w.attention_post_norm.as_ref();
        self.onto_x(&w.attention_output, bias, post_norm, &b.attended, &mut ops)?;
        ops.push(self.norm(&w.ffn_norm, false)?);
        match &w.feed_forward {
            FeedForward::Dense(dense) => {
                let bias = dense.gate_up_bias.as_ref();
                self.product_of(&dense.gate_up, bias, &b.normed, &b.gate_up, &mut ops)?;
                ops.push(self.gate()?);
                let (bias, post_norm) = (dense.down_bias.as_ref(), w.ffn_post_norm.as_ref());
                self.onto_x(&dense.down, bias, post_norm, &b.ffn, &mut ops)?;
            }
            FeedForward::Experts(experts, shape) => {
                self.experts(number, experts, *shape, &mut ops)?;
            }
        }
        Ok(ops)
    }

    /// `out = matrix x + bias`.
    fn product_of(
        &self,
        matrix: &Fused,
        bias: Option<&wgpu::Buffer>,
        x: &wgpu::Buffer,
        out: &wgpu::Buffer,
        ops: &mut Vec<Op>,
    ) -> Result<(), GpuError> {
        let step = &self.buffers.step;
        let quantised = self.buffers.quantised.as_ref();
        let product = Product { step, x, quantised, out, accumulate: false, selecting: false };
        ops.extend(matrix.product(self.gpu, self.choice, product)?);
        ops.extend(bias.map(|bias| self.bias(bias, out)).transpose()?);
        Ok(())
    }

    /// Adds `matrix rows + bias` to the residual stream, through a norm if there is one.
    fn onto_x(
        &self,
        matrix: &Fused,
        bias: Option<&wgpu::Buffer>,
        post_norm: Option<&wgpu::Buffer>,
        rows: &wgpu::Buffer,
        ops: &mut Vec<Op>,
    ) -> Result<(), GpuError> {
        let b = self.buffers;
        let Some(weight) = post_norm else {
            let product = Product {
                step: &b.step,
                x: rows,
                quantised: b.quantised.as_ref(),
                out: &b.x,
                accumulate: true,
                selecting: false,
            };
            ops.extend(matrix.product(self.gpu, self.choice, product)?);
            ops.extend(bias.map(|bias| self.bias(bias, &b.x)).transpose()?);
            return Ok(());
        };
        // Nobody reads the rows of the norm in front any more.
        self.product_of(matrix, bias, rows, &b.normed, ops)?;
        let shape = self.gpu.constant("norm", &self.norm_shape(false))?;
        ops.push(self.single(
            llm::post_norm(self.method),
            &[&b.step, &shape, &b.normed, weight, &b.x],
            row_lines(self.method, 1, false),
        )?);
        Ok(())
    }

    fn norm_shape(&self, selecting: bool) -> NormShape {
        NormShape {
            columns: self.config.hidden as u32,
            selecting: u32::from(selecting),
            epsilon: self.config.epsilon,
            padding: 0,
        }
    }

    /// Norm of the residual stream, of all rows or of the step's selection.
    pub fn norm(&self, weight: &wgpu::Buffer, selecting: bool) -> Result<Op, GpuError> {
        let shape = self.gpu.constant("norm", &self.norm_shape(selecting))?;
        let b = self.buffers;
        self.single(
            llm::rms_norm(self.method),
            &[&b.step, &shape, &b.rows, &b.x, weight, &b.normed],
            row_lines(self.method, 1, selecting),
        )
    }

    fn head_norms(&self, weights: &wgpu::Buffer) -> Result<Op, GpuError> {
        let c = self.config;
        let shape = HeadNormShape {
            heads: c.heads as u32,
            kv_heads: c.kv_heads as u32,
            head: c.head as u32,
            epsilon: c.epsilon,
        };
        let shape = self.gpu.constant("head norms", &shape)?;
        self.single(
            llm::head_norm(self.method),
            &[&self.buffers.step, &shape, weights, &self.buffers.qkv],
            row_lines(self.method, (c.heads + c.kv_heads) as u32, false),
        )
    }

    fn bias(&self, bias: &wgpu::Buffer, x: &wgpu::Buffer) -> Result<Op, GpuError> {
        let columns = (bias.size() / 4) as u32;
        let shape = self.gpu.constant("bias", &RowShape { columns, ..RowShape::default() })?;
        let across = (columns / 4).div_ceil(WORKGROUP);
        self.single(&llm::BIAS, &[&self.buffers.step, &shape, bias, x], Grid::Elements { across })
    }

    /// The activated gate times up; of experts, all slots of a row side by side.
    pub fn gate(&self) -> Result<Op, GpuError> {
        let shape = RowShape { columns: self.config.ffn as u32, ..RowShape::default() };
        let shape = self.gpu.constant("gate", &shape)?;
        let b = self.buffers;
        let across = (self.config.ffn as u32 / 4).div_ceil(WORKGROUP);
        let kernel = match self.config.family().activation {
            Activation::Silu => &llm::SILU_MUL,
            Activation::Gelu => &llm::GELU_MUL,
        };
        self.single(kernel, &[&b.step, &shape, &b.gate_up, &b.ffn], Grid::Elements { across })
    }

    /// Multiplies the embeddings, in models that do.
    pub fn scaled_embeddings(&self) -> Result<Option<Op>, GpuError> {
        if !self.config.family().scaled_embeddings {
            return Ok(None);
        }
        let columns = self.config.hidden as u32;
        let factor = self.config.embedding_scale;
        let shape = self.gpu.constant("scale", &ScaleShape { columns, factor, padding: [0; 2] })?;
        let grid = Grid::Elements { across: columns.div_ceil(WORKGROUP) };
        let b = self.buffers;
        Ok(Some(self.single(&llm::SCALE, &[&b.step, &shape, &b.x], grid)?))
    }

    /// Bounds the logits softly, in models that do.
    pub fn softcap(&self) -> Result<Option<Op>, GpuError> {
        let factor = self.config.logit_softcap;
        if factor == 0.0 {
            return Ok(None);
        }
        let columns = self.config.vocabulary as u32;
        let shape =
            self.gpu.constant("softcap", &ScaleShape { columns, factor, padding: [0; 2] })?;
        let across = columns.div_ceil(WORKGROUP);
        let grid = Grid::Tiles { across, rows_per_tile: 1, selecting: true };
        let b = self.buffers;
        Ok(Some(self.single(&llm::SOFTCAP, &[&b.step, &shape, &b.logits], grid)?))
    }
}
