//! Feed-forward parts made of experts: a router gives every token a few of them.
//!
//! ```text
//! normed -> router -> route_experts -> chosen
//! normed -> gate of the chosen | up of the chosen -> silu_mul -> down of the chosen, by share -> x
//! ```
//! The matrices of all experts lie in one tensor, one expert's rows behind the other's, and stay so on
//! the GPU. Each token is multiplied with its own experts alone, in prefill too: tokens that share an
//! expert do not share its reading.

use crate::gpu::GpuError;
use crate::kernels::llm::{self, Method};

use super::config::Experts;
use super::error::EngineError;
use super::loader::Loader;
use super::matrix::{Fused, Matrix, Product, Target};
use super::op::{Grid, Op, Variant};
use super::params::{ExpertsShape, RouteShape};
use super::plan::Plan;
use super::tensors::layer_tensor;

/// Rows of activations one workgroup of `route_experts.wgsl` serves.
const ROUTE_WORKGROUP: u32 = 64;

/// The experts of one layer.
pub(super) struct ExpertWeights {
    router: Fused,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// Whether a product spreads a row over its experts or gathers their results.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Spread,
    Gather,
}

impl ExpertWeights {
    pub fn upload(loader: &Loader<'_>, layer: usize) -> Result<Self, EngineError> {
        let one = |part: &str| Matrix::upload_one(loader, &layer_tensor(layer, part));
        Ok(Self {
            router: Fused::upload(loader, &[layer_tensor(layer, "ffn_gate_inp.weight")])?,
            gate: one("ffn_gate_exps.weight")?,
            up: one("ffn_up_exps.weight")?,
            down: one("ffn_down_exps.weight")?,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.router.bytes() + self.gate.bytes() + self.up.bytes() + self.down.bytes()
    }
}

impl Plan<'_> {
    /// From the normed rows to the residual stream.
    pub fn experts(
        &self,
        weights: &ExpertWeights,
        shape: Experts,
        ops: &mut Vec<Op>,
    ) -> Result<(), GpuError> {
        let b = self.buffers;
        let product = Product {
            step: &b.step,
            x: &b.normed,
            // A narrow matrix; quantising would take longer than it saves.
            quantised: None,
            out: &b.router,
            accumulate: false,
            selecting: false,
        };
        ops.extend(weights.router.product(self.gpu, self.choice, product)?);
        ops.push(self.route(shape)?);
        let width = shape.used * shape.ffn;
        for (matrix, first) in [(&weights.gate, 0), (&weights.up, width)] {
            let target = Target { stride: 2 * width, first, accumulate: false, selecting: false };
            let rows = shape.ffn;
            self.chosen(matrix, shape, rows, Way::Spread, &b.normed, &b.gate_up, target, ops)?;
        }
        ops.push(self.gate()?);
        let hidden = self.config.hidden;
        let target = Target { stride: hidden, first: 0, accumulate: true, selecting: false };
        self.chosen(&weights.down, shape, hidden, Way::Gather, &b.ffn, &b.x, target, ops)
    }

    fn route(&self, shape: Experts) -> Result<Op, GpuError> {
        let b = self.buffers;
        let uniform =
            RouteShape { experts: shape.count as u32, used: shape.used as u32, padding: [0; 2] };
        let uniform = self.gpu.uniform("route", &uniform)?;
        let grid =
            Grid::Lines { lines_per_row: 1, lines_per_group: ROUTE_WORKGROUP, selecting: false };
        self.single(&llm::ROUTE_EXPERTS, &[&b.step, &uniform, &b.router, &b.chosen], grid)
    }

    #[expect(clippy::too_many_arguments, reason = "a product has this many parts")]
    fn chosen(
        &self,
        matrix: &Matrix,
        experts: Experts,
        expert_rows: usize,
        way: Way,
        x: &wgpu::Buffer,
        out: &wgpu::Buffer,
        target: Target,
        ops: &mut Vec<Op>,
    ) -> Result<(), GpuError> {
        let b = self.buffers;
        let shape = ExpertsShape {
            expert_rows: expert_rows as u32,
            used: experts.used as u32,
            gathering: u32::from(way == Way::Gather),
            padding: 0,
        };
        let shape = self.gpu.uniform("experts", &shape)?;
        let (workgroup, lanes) = match self.method {
            Method::Lane => (8, 1),
            Method::Group => (64, 16),
        };
        let constants = [("WORKGROUP", f64::from(workgroup)), ("LANES", f64::from(lanes))];
        let pipeline = self.gpu.planned(llm::experts(matrix.format()), &constants)?;
        let across = (expert_rows as u32).div_ceil(workgroup / lanes);
        for shard in matrix.bindings(self.gpu, target)? {
            let buffers =
                [&b.step, &shard.shape, shard.quants, shard.scales, &shape, &b.chosen, x, out];
            ops.push(Op::Single(Variant {
                bind_group: self.gpu.bind(&pipeline, &buffers)?,
                pipeline: pipeline.clone(),
                grid: match way {
                    Way::Spread => Grid::Slots { across, slots: experts.used as u32 },
                    Way::Gather => Grid::Elements { across },
                },
            }));
        }
        Ok(())
    }
}
