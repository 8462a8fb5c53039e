//! One dispatch of the plan: pipeline and buffers fixed at load, size taken from the step.

use std::sync::Arc;

use crate::gpu::{Gpu, Pipeline};
use crate::kernels::llm::ExpertTiles;

use super::params::Step;

/// What a pass is for. It decides which kernels multiply, whatever the number of rows, so that a
/// token's result never depends on what else is in its pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Known tokens are read: products share weights among many rows.
    Prefill,
    /// One new token of each sequence: each row's sums are those it would have alone.
    Decode,
}

/// WebGPU's smallest limit on workgroups per dimension; longer lists fold into two dimensions.
const GROUPS_MAX: u32 = 65_535;

/// How many workgroups a dispatch needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grid {
    /// `groups` workgroups, folded if many, for every group of `x_rows` rows.
    Folded { groups: u32, x_rows: u32, selecting: bool },
    /// `across` workgroups for every row.
    Elements { across: u32 },
    /// `across` workgroups for every slot of every row.
    Slots { across: u32, slots: u32 },
    /// `across` workgroups for every tile of `pairs_per_tile` slots with the same of `experts` experts.
    ExpertTiles { across: u32, used: u32, experts: u32, pairs_per_tile: u32 },
    /// One workgroup.
    One,
    /// `across` workgroups for every group of `rows_per_tile` rows.
    Tiles { across: u32, rows_per_tile: u32, selecting: bool },
    /// Lines of work, `lines_per_row` for every row and `lines_per_group` to a workgroup, folded.
    Lines { lines_per_row: u32, lines_per_group: u32, selecting: bool },
    /// `across` workgroups for every row and every span of positions.
    Spans { across: u32, span: u32 },
}

/// Workgroups of a long list, in two dimensions if need be.
pub(super) fn fold(groups: u32) -> [u32; 3] {
    let across = groups.min(GROUPS_MAX);
    [across, groups.div_ceil(across.max(1)), 1]
}

impl Grid {
    fn size(self, step: &Step) -> [u32; 3] {
        let rows = |selecting: bool| if selecting { step.selected } else { step.rows };
        match self {
            Self::Folded { groups, x_rows, selecting } => {
                let [x, y, _] = fold(groups);
                [x, y, rows(selecting).div_ceil(x_rows)]
            }
            Self::Elements { across } => [across, step.rows, 1],
            Self::Slots { across, slots } => [across, step.rows * slots, 1],
            Self::ExpertTiles { across, used, experts, pairs_per_tile } => {
                let pairs = step.rows * used;
                [across, ExpertTiles::tiles_max(pairs, experts, pairs_per_tile), 1]
            }
            Self::One => [1, 1, 1],
            Self::Tiles { across, rows_per_tile, selecting } => {
                [across, rows(selecting).div_ceil(rows_per_tile), 1]
            }
            Self::Lines { lines_per_row, lines_per_group, selecting } => {
                fold((rows(selecting) * lines_per_row).div_ceil(lines_per_group))
            }
            Self::Spans { across, span } => [across, step.rows, step.kv_length.div_ceil(span)],
        }
    }
}

pub(crate) struct Variant {
    pub pipeline: Arc<Pipeline>,
    pub bind_group: wgpu::BindGroup,
    pub grid: Grid,
}

impl Variant {
    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, step: &Step) {
        Gpu::dispatch(pass, &self.pipeline, &self.bind_group, self.grid.size(step));
    }
}

pub(crate) enum Op {
    Single(Variant),
    ByPhase {
        decode: Variant,
        prefill: Variant,
    },
    /// Work that only decoding needs.
    Decode(Variant),
    /// Work that only reading prompts needs.
    Prefill(Variant),
    /// A matrix product: kernels per phase, and for decoding per number of rows that share a reading
    /// of the weights (1, 2, 4, 8). A row's result is the same from each of these.
    Product {
        decode: [Variant; 4],
        prefill: Variant,
        selecting: bool,
        flop_per_row: f64,
    },
}

impl Op {
    /// Everything that has to be compiled before the first dispatch.
    pub fn pipelines(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        let (few, other) = match self {
            Self::Single(variant) | Self::Decode(variant) | Self::Prefill(variant) => {
                (&[][..], [Some(variant), None])
            }
            Self::ByPhase { decode, prefill } => (&[][..], [Some(decode), Some(prefill)]),
            Self::Product { decode, prefill, .. } => (&decode[..], [Some(prefill), None]),
        };
        few.iter().chain(other.into_iter().flatten()).map(|variant| &variant.pipeline)
    }

    /// Operations of a product; what other dispatches take is small beside these, but for attention.
    pub fn product_flop(&self, step: &Step) -> f64 {
        match self {
            Self::Single(_) | Self::ByPhase { .. } | Self::Decode(_) | Self::Prefill(_) => 0.0,
            Self::Product { selecting, flop_per_row, .. } => {
                flop_per_row * f64::from(if *selecting { step.selected } else { step.rows })
            }
        }
    }

    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, phase: Phase, step: &Step) {
        match (self, phase) {
            (Self::Decode(_), Phase::Prefill) | (Self::Prefill(_), Phase::Decode) => {}
            (Self::Single(variant), Phase::Prefill | Phase::Decode)
            | (Self::Decode(variant) | Self::ByPhase { decode: variant, .. }, Phase::Decode)
            | (
                Self::Prefill(variant)
                | Self::ByPhase { prefill: variant, .. }
                | Self::Product { prefill: variant, .. },
                Phase::Prefill,
            ) => {
                variant.dispatch(pass, step);
            }
            (Self::Product { decode: [one, two, four, eight], selecting, .. }, Phase::Decode) => {
                let variant = match if *selecting { step.selected } else { step.rows } {
                    0 | 1 => one,
                    2 => two,
                    3 | 4 => four,
                    _ => eight,
                };
                variant.dispatch(pass, step);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_fold_and_cover_everything() {
        for groups in [1, 2, 65_535, 65_536, 200_000] {
            let [x, y, z] = fold(groups);
            assert!(x <= GROUPS_MAX && x * y >= groups && z == 1, "{groups}");
        }
    }
}
