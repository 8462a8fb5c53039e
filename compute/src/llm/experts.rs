//! Feed-forward parts made of experts: a router gives every token a few of them.
//!
//! ```text
//! normed -> router -> route_experts -> chosen        (given instead, where a proof forces them)
//! normed -> gate of the chosen | up of the chosen -> silu_mul -> down of the chosen, by share -> x
//! ```
//! The matrices of all experts lie in one tensor, one expert's rows behind the other's, and stay so on
//! the GPU. While decoding, each token is multiplied with its own experts alone. While a prompt is read,
//! the slots of all tokens are first sorted by expert, and tiles of slots share a reading of its weights;
//! whatever else is in a tile, a slot's sums are the same.

use crate::gpu::GpuError;
use crate::kernels::llm::{self, ExpertTiles, Method, WeightFormat};

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
/// Invocations of a workgroup of `combine_experts.wgsl`.
const COMBINE_WORKGROUP: u32 = 64;

/// The experts of one layer.
pub(super) struct ExpertWeights {
    router: Fused,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// How rows meet their experts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Each row alone, a result for every slot.
    Spread,
    /// Each row alone, its slots' results added up by share.
    Gather,
    /// Tiles of slots with the same expert, a result for every slot.
    Tiles,
}

/// What the slots of a row are multiplied with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slots {
    /// All with the row.
    Alike,
    /// Each with what its own expert made before.
    Apart,
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
    /// From the normed rows to the residual stream, in layer `number` of this card.
    pub fn experts(
        &self,
        number: usize,
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
        ops.push(self.route(number, shape)?);
        ops.push(self.group(shape)?);
        let width = shape.used * shape.ffn;
        for (matrix, first) in [(&weights.gate, 0), (&weights.up, width)] {
            let target = Target { stride: 2 * width, first, accumulate: false, selecting: false };
            let [decode, prefill] = [Way::Spread, Way::Tiles].map(|way| {
                self.chosen(matrix, shape, way, Slots::Alike, &b.normed, &b.gate_up, target)
            });
            ops.extend(decode?.into_iter().map(Op::Decode));
            ops.extend(prefill?.into_iter().map(Op::Prefill));
        }
        ops.push(self.gate()?);
        let hidden = self.config.hidden;
        let onto_x = Target { stride: hidden, first: 0, accumulate: true, selecting: false };
        let parts = Target { stride: shape.used * hidden, accumulate: false, ..onto_x };
        let down = |way, out, target| {
            self.chosen(&weights.down, shape, way, Slots::Apart, &b.ffn, out, target)
        };
        ops.extend(down(Way::Gather, &b.x, onto_x)?.into_iter().map(Op::Decode));
        ops.extend(down(Way::Tiles, &b.expert_parts, parts)?.into_iter().map(Op::Prefill));
        ops.push(self.combine(shape)?);
        Ok(())
    }

    fn route_shape(&self, number: usize, shape: Experts) -> Result<wgpu::Buffer, GpuError> {
        let shape = RouteShape {
            experts: shape.count as u32,
            used: shape.used as u32,
            columns: self.config.hidden as u32,
            layer: number as u32,
            layers: self.buffers.caches.len() as u32,
            ..RouteShape::default()
        };
        self.gpu.uniform("route", &shape)
    }

    fn route(&self, number: usize, shape: Experts) -> Result<Op, GpuError> {
        let b = self.buffers;
        let uniform = self.route_shape(number, shape)?;
        let grid =
            Grid::Lines { lines_per_row: 1, lines_per_group: ROUTE_WORKGROUP, selecting: false };
        self.single(
            &llm::ROUTE_EXPERTS,
            &[&b.step, &uniform, &b.router, &b.firsts, &b.chosen],
            grid,
        )
    }

    /// Sorts the slots by expert.
    fn group(&self, shape: Experts) -> Result<Op, GpuError> {
        let b = self.buffers;
        // The number of slots in a tile does not depend on the format.
        let tile = ExpertTiles::of(self.method, WeightFormat::F32).pairs;
        let constants = [("EXPERTS", shape.count as f64), ("TILE", f64::from(tile))];
        let pipeline = self.gpu.planned(&llm::GROUP_EXPERTS, &constants)?;
        let buffers = [&b.step, &self.route_shape(0, shape)?, &b.chosen, &b.pairs, &b.tiles];
        let bind_group = self.gpu.bind(&pipeline, &buffers)?;
        Ok(Op::Prefill(Variant { bind_group, pipeline, grid: Grid::One }))
    }

    /// Adds up the experts of each row onto the residual stream.
    fn combine(&self, shape: Experts) -> Result<Op, GpuError> {
        let b = self.buffers;
        let pipeline = self.gpu.planned(&llm::COMBINE_EXPERTS, &[])?;
        let buffers = [&b.step, &self.route_shape(0, shape)?, &b.chosen, &b.expert_parts, &b.x];
        let bind_group = self.gpu.bind(&pipeline, &buffers)?;
        let across = (self.config.hidden as u32 / 4).div_ceil(COMBINE_WORKGROUP);
        Ok(Op::Prefill(Variant { bind_group, pipeline, grid: Grid::Elements { across } }))
    }

    /// Products of rows with the matrices of their experts, a dispatch for every shard.
    #[expect(clippy::too_many_arguments, reason = "a product has this many parts")]
    fn chosen(
        &self,
        matrix: &Matrix,
        experts: Experts,
        way: Way,
        slots: Slots,
        x: &wgpu::Buffer,
        out: &wgpu::Buffer,
        target: Target,
    ) -> Result<Vec<Variant>, GpuError> {
        let b = self.buffers;
        let expert_rows = (matrix.rows() / experts.count) as u32;
        let used = experts.used as u32;
        let gathering = u32::from(slots == Slots::Apart);
        let shape = ExpertsShape { expert_rows, used, gathering, padding: 0 };
        let shape = self.gpu.uniform("experts", &shape)?;
        let (workgroup, lanes) = match self.method {
            Method::Lane => (8, 1),
            Method::Group => (64, 16),
        };
        let constants = [("WORKGROUP", f64::from(workgroup)), ("LANES", f64::from(lanes))];
        let across = expert_rows.div_ceil(workgroup / lanes);
        let tiles = ExpertTiles::of(self.method, matrix.format());
        let (kernel, constants, grid) = match way {
            Way::Spread => {
                (llm::experts(matrix.format()), &constants[..], Grid::Slots { across, slots: used })
            }
            Way::Gather => {
                (llm::experts(matrix.format()), &constants[..], Grid::Elements { across })
            }
            Way::Tiles => {
                let across = expert_rows.div_ceil(tiles.rows);
                let (experts, pairs_per_tile) = (experts.count as u32, tiles.pairs);
                let grid = Grid::ExpertTiles { across, used, experts, pairs_per_tile };
                (tiles.kernel, &[][..], grid)
            }
        };
        let pipeline = self.gpu.planned(kernel, constants)?;
        let shards = matrix.bindings(self.gpu, target)?;
        shards
            .iter()
            .map(|shard| {
                let mut buffers = vec![&b.step, &shard.shape, shard.quants, shard.scales, &shape];
                match way {
                    Way::Spread | Way::Gather => buffers.push(&b.chosen),
                    Way::Tiles => buffers.extend([&b.pairs, &b.tiles]),
                }
                buffers.extend([x, out]);
                let bind_group = self.gpu.bind(&pipeline, &buffers)?;
                Ok(Variant { bind_group, pipeline: pipeline.clone(), grid })
            })
            .collect()
    }
}
