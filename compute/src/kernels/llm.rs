//! Kernels of the language-model forward pass, and the choice among their variants.
//!
//! A weight kernel exists once per format and method. Methods are chosen by what kind of adapter it
//! is: on a CPU driver a lane works alone, on a GPU lanes share rows and memory. Never by a GPU's name.

use serde::{Deserialize, Serialize};

use super::{Binding, Kernel, matvec};
use Binding::{Read, ReadWrite, Uniform};

/// How weights lie in GPU memory: levels and scales apart, both described in `shaders/lib/`.
///
/// Each decodes to exactly the f32 of ggml's formula, whether a kernel multiplies and adds in one
/// rounding or two: every product of level and scale is exact in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    F32,
    F16,
    Bf16,
    /// Signed bytes, an f16 scale per 32.
    Q8,
    /// Four bits, an f16 scale and an f16 offset per 32.
    Q4,
    /// Five bits, an f16 scale and an f16 offset per 32.
    Q5,
    /// Four bits, a six-bit scale and minimum per 32, two f16 factors per 256.
    Q4K,
    /// Five bits, scales as in `Q4K`.
    Q5K,
    /// Six bits, an eight-bit scale per 16, an f16 factor per 256.
    Q6K,
    /// Four-bit floats, a power of two per 32.
    Mxfp4,
}

impl WeightFormat {
    /// In the order of the kernels' table.
    pub const ALL: [Self; 10] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8,
        Self::Q4,
        Self::Q5,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Mxfp4,
    ];
}

/// How a kernel shares its work out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Every invocation alone: CPU adapters.
    Lane,
    /// Invocations of a workgroup together: GPUs.
    Group,
}

impl Method {
    /// The method that suits an adapter.
    #[must_use]
    pub fn of(is_software: bool) -> Self {
        if is_software { Self::Lane } else { Self::Group }
    }
}

const WEIGHTS: &[Binding] = &[Uniform, Uniform, Read, Read, Read, ReadWrite];
const EXPERT_TILES: &[Binding] =
    &[Uniform, Uniform, Read, Read, Uniform, Read, Read, Read, ReadWrite];
/// f32 sums in another order than the twin's: a few units in the last place of the terms.
const SUM_TOLERANCE: f32 = 2e-5;
/// Values that are moved, or scaled once.
const COPY_TOLERANCE: f32 = 1e-6;
/// Lanes of a software adapter's vector unit (lavapipe: 8).
const LANE: &[(&str, f64)] = &[("WORKGROUP", 8.0)];
const GROUP: &[(&str, f64)] = &[("WORKGROUP", 64.0)];
/// As many as WebGPU's smallest limit allows: one row is one workgroup, which waits for its memory turn after turn.
const WHOLE_ROW: &[(&str, f64)] = &[("WORKGROUP", 256.0), ("LANES", 256.0)];

/// How several rows of activations are multiplied with a matrix: prefill. The tuner tries each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matmul {
    /// `matmul_lane.wgsl`: every invocation alone, no shared memory.
    Lane,
    /// `matvec_spread.wgsl`: as `Lane`, with activations handed round in a subgroup.
    Spread,
    /// `matmul_tile.wgsl`: tiles of weights and activations in shared memory.
    Tile,
    /// `matmul_registers.wgsl`: such tiles, and 8 by 8 sums in the registers of each invocation.
    Registers,
    /// The same with tiles of half the width: less shared memory, more workgroups at a time.
    RegistersNarrow,
}

impl Matmul {
    pub const ALL: [Self; 5] =
        [Self::Lane, Self::Spread, Self::Tile, Self::Registers, Self::RegistersNarrow];

    /// What suits a kind of adapter untried. `subgroup_lanes` is the size of its smallest subgroup, if
    /// it offers any.
    #[must_use]
    pub fn of(method: Method, subgroup_lanes: Option<u32>) -> Self {
        match method {
            Method::Lane if matvec::spreads(subgroup_lanes) => Self::Spread,
            Method::Lane => Self::Lane,
            Method::Group => Self::Tile,
        }
    }

    /// True if an adapter can run it.
    #[must_use]
    pub fn runs_with(self, subgroup_lanes: Option<u32>) -> bool {
        match self {
            Self::Lane | Self::Tile | Self::Registers | Self::RegistersNarrow => true,
            Self::Spread => matvec::spreads(subgroup_lanes),
        }
    }

    /// What may be tried on an adapter; the untried choice comes first.
    #[must_use]
    pub fn candidates(method: Method, subgroup_lanes: Option<u32>) -> Vec<Self> {
        let untried = Self::of(method, subgroup_lanes);
        let is_worth_it = |matmul: Self| match (matmul, method) {
            (Self::Lane | Self::Spread | Self::Tile, Method::Lane) => true,
            // Barriers are dear on a CPU, and so is compiling: one kernel with them is enough there.
            (Self::Registers | Self::RegistersNarrow, Method::Lane) => false,
            // A small card would take a watchdog's time over one dispatch of them.
            (Self::Lane | Self::Spread, Method::Group) => false,
            (Self::Tile | Self::Registers | Self::RegistersNarrow, Method::Group) => true,
        };
        let others = Self::ALL.into_iter().filter(|matmul| {
            *matmul != untried && matmul.runs_with(subgroup_lanes) && is_worth_it(*matmul)
        });
        std::iter::once(untried).chain(others).collect()
    }

    /// The kernel for weights in `format`.
    #[must_use]
    pub fn kernel(self, format: WeightFormat) -> &'static Kernel {
        match self {
            Self::Lane => &of_format(format).matmul_lane,
            Self::Spread => matvec::spread(format),
            Self::Tile => &of_format(format).matmul_tile,
            Self::Registers | Self::RegistersNarrow => &of_format(format).matmul_registers,
        }
    }

    #[must_use]
    pub fn constants(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Lane | Self::Tile => &[],
            Self::Registers => &[("PARTS", 4.0)],
            Self::RegistersNarrow => &[("PARTS", 2.0)],
            // As the form of decoding for so many rows: one pipeline serves both.
            Self::Spread => {
                &[("WORKGROUP", 8.0), ("PARTS", 4.0), ("X_ROWS", matvec::X_ROWS_MAX as f64)]
            }
        }
    }

    /// Weight rows and activation rows that one workgroup covers.
    #[must_use]
    pub fn tile(self) -> [u32; 2] {
        match self {
            Self::Lane => [32, 8],
            Self::Spread => [32, matvec::X_ROWS_MAX],
            Self::Tile | Self::Registers | Self::RegistersNarrow => [64, 64],
        }
    }

    /// The dimension in which the kernel counts tiles of activation rows; weight rows are the first.
    #[must_use]
    pub fn dimension(self) -> usize {
        match self {
            Self::Lane | Self::Tile | Self::Registers | Self::RegistersNarrow => 1,
            Self::Spread => 2,
        }
    }

    /// Workgroups for a product.
    #[must_use]
    pub fn groups(self, rows: u32, x_rows: u32) -> [u32; 3] {
        let [tile_rows, tile_x_rows] = self.tile();
        let mut groups = [rows.div_ceil(tile_rows), 1, 1];
        groups[self.dimension()] = x_rows.div_ceil(tile_x_rows);
        groups
    }
}

/// The kernels that read one weight format.
struct WeightKernels {
    embed: Kernel,
    experts: Kernel,
    experts_lane: Kernel,
    experts_tile: Kernel,
    matmul_lane: Kernel,
    matmul_registers: Kernel,
    matmul_tile: Kernel,
}

macro_rules! weight_kernels {
    ($name:literal, $($part:literal),+) => {
        WeightKernels {
            embed: Kernel {
                name: concat!("embed_", $name),
                source: crate::wgsl!("lib/step.wgsl", "lib/matrix.wgsl", $($part),+, "embed.wgsl"),
                entry: "main",
                bindings: WEIGHTS,
                constants: GROUP,
                tolerance: COPY_TOLERANCE,
            },
            experts: Kernel {
                name: concat!("experts_", $name),
                source: crate::wgsl!(
                    "lib/step.wgsl",
                    "lib/matrix.wgsl",
                    $($part),+,
                    "lib/expert_rows.wgsl",
                    "experts.wgsl"
                ),
                entry: "main",
                bindings: &[Uniform, Uniform, Read, Read, Uniform, Read, Read, ReadWrite],
                constants: &[("WORKGROUP", 64.0), ("LANES", 16.0)],
                tolerance: SUM_TOLERANCE,
            },
            experts_lane: Kernel {
                name: concat!("experts_lane_", $name),
                source: crate::wgsl!(
                    "lib/step.wgsl",
                    "lib/matrix.wgsl",
                    $($part),+,
                    "lib/four.wgsl",
                    "lib/expert_rows.wgsl",
                    "experts_lane.wgsl"
                ),
                entry: "main",
                bindings: EXPERT_TILES,
                constants: LANE,
                tolerance: SUM_TOLERANCE,
            },
            experts_tile: Kernel {
                name: concat!("experts_tile_", $name),
                source: crate::wgsl!(
                    "lib/step.wgsl",
                    "lib/matrix.wgsl",
                    $($part),+,
                    "lib/expert_rows.wgsl",
                    "experts_tile.wgsl"
                ),
                entry: "main",
                bindings: EXPERT_TILES,
                constants: &[],
                tolerance: SUM_TOLERANCE,
            },
            matmul_lane: Kernel {
                name: concat!("matmul_lane_", $name),
                source: crate::wgsl!(
                    "lib/step.wgsl", "lib/matrix.wgsl", $($part),+, "lib/four.wgsl", "lib/store_four.wgsl",
                    "matmul_lane.wgsl"
                ),
                entry: "main",
                bindings: WEIGHTS,
                constants: LANE,
                tolerance: SUM_TOLERANCE,
            },
            matmul_registers: Kernel {
                name: concat!("matmul_registers_", $name),
                source: crate::wgsl!(
                    "lib/step.wgsl", "lib/matrix.wgsl", $($part),+, "lib/four.wgsl", "lib/store_four.wgsl",
                    "matmul_registers.wgsl"
                ),
                entry: "main",
                bindings: WEIGHTS,
                constants: &[("PARTS", 4.0)],
                tolerance: SUM_TOLERANCE,
            },
            matmul_tile: Kernel {
                name: concat!("matmul_tile_", $name),
                source: crate::wgsl!("lib/step.wgsl", "lib/matrix.wgsl", $($part),+, "matmul_tile.wgsl"),
                entry: "main",
                bindings: WEIGHTS,
                constants: &[],
                tolerance: SUM_TOLERANCE,
            },
        }
    };
}

static WEIGHT_KERNELS: [WeightKernels; WeightFormat::ALL.len()] = [
    weight_kernels!("f32", "lib/weights_f32.wgsl"),
    weight_kernels!("f16", "lib/weights_f16.wgsl"),
    weight_kernels!("bf16", "lib/weights_bf16.wgsl"),
    weight_kernels!("q8", "lib/weights_q8.wgsl"),
    weight_kernels!("q4", "lib/levels_4bit.wgsl", "lib/scales_pair.wgsl"),
    weight_kernels!("q5", "lib/levels_5bit.wgsl", "lib/scales_pair.wgsl"),
    weight_kernels!("q4k", "lib/levels_4bit.wgsl", "lib/scales_super.wgsl"),
    weight_kernels!("q5k", "lib/levels_5bit.wgsl", "lib/scales_super.wgsl"),
    weight_kernels!("q6k", "lib/weights_q6k.wgsl"),
    weight_kernels!("mxfp4", "lib/weights_mxfp4.wgsl"),
];

/// A kernel that works on whole rows, once per method.
macro_rules! row_kernel {
    ($name:literal, [$($part:literal),*], $bindings:expr) => {
        [
            Kernel {
                name: concat!($name, "_lane"),
                source: crate::wgsl!("lib/step.wgsl", "lib/reduce_lane.wgsl", $($part),*),
                entry: "main",
                bindings: $bindings,
                constants: LANE,
                tolerance: SUM_TOLERANCE,
            },
            Kernel {
                name: concat!($name, "_tree"),
                source: crate::wgsl!("lib/step.wgsl", "lib/reduce_tree.wgsl", $($part),*),
                entry: "main",
                bindings: $bindings,
                constants: WHOLE_ROW,
                tolerance: SUM_TOLERANCE,
            },
        ]
    };
}

static RMS_NORM: [Kernel; 2] = row_kernel!(
    "rms_norm",
    ["lib/rows.wgsl", "lib/norm_shape.wgsl", "rms_norm.wgsl"],
    &[Uniform, Uniform, Read, Read, Read, ReadWrite]
);
static REFLECT: [Kernel; 2] =
    row_kernel!("reflect", ["reflect.wgsl"], &[Uniform, Uniform, Read, ReadWrite]);

pub static SILU_MUL: Kernel = Kernel {
    name: "silu_mul",
    source: crate::wgsl!("lib/step.wgsl", "lib/activation_silu.wgsl", "gate_mul.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, ReadWrite],
    constants: GROUP,
    tolerance: 1e-5,
};

static HEAD_NORM: [Kernel; 2] =
    row_kernel!("head_norm", ["head_norm.wgsl"], &[Uniform, Uniform, Read, ReadWrite]);
static POST_NORM: [Kernel; 2] = row_kernel!(
    "post_norm",
    ["lib/norm_shape.wgsl", "post_norm.wgsl"],
    &[Uniform, Uniform, Read, Read, ReadWrite]
);

pub static GELU_MUL: Kernel = Kernel {
    name: "gelu_mul",
    source: crate::wgsl!("lib/step.wgsl", "lib/activation_gelu.wgsl", "gate_mul.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, ReadWrite],
    constants: GROUP,
    tolerance: 1e-5,
};

pub static ROUTE_EXPERTS: Kernel = Kernel {
    name: "route_experts",
    source: crate::wgsl!("lib/step.wgsl", "lib/route.wgsl", "route_experts.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, ReadWrite],
    constants: GROUP,
    tolerance: 1e-5,
};

/// Sorts the slots of all rows by expert, for tiles of [`ExpertTiles::pairs`].
pub static GROUP_EXPERTS: Kernel = Kernel {
    name: "group_experts",
    source: crate::wgsl!("lib/step.wgsl", "lib/route.wgsl", "group_experts.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, ReadWrite, ReadWrite],
    constants: &[("WORKGROUP", 64.0), ("EXPERTS", 8.0), ("TILE", 8.0)],
    tolerance: 0.0,
};

pub static COMBINE_EXPERTS: Kernel = Kernel {
    name: "combine_experts",
    source: crate::wgsl!("lib/step.wgsl", "lib/route.wgsl", "combine_experts.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, ReadWrite],
    constants: GROUP,
    tolerance: 1e-5,
};

/// How tiles of rows that have an expert in common are multiplied with its matrix: prefill.
#[derive(Clone, Copy, Debug)]
pub struct ExpertTiles {
    pub kernel: &'static Kernel,
    /// Rows of the expert that a workgroup multiplies.
    pub rows: u32,
    /// Slots of a tile.
    pub pairs: u32,
}

impl ExpertTiles {
    #[must_use]
    pub fn of(method: Method, format: WeightFormat) -> Self {
        let kernels = of_format(format);
        match method {
            Method::Lane => Self { kernel: &kernels.experts_lane, rows: 32, pairs: 8 },
            Method::Group => Self { kernel: &kernels.experts_tile, rows: 64, pairs: 16 },
        }
    }

    /// Tiles that `pairs` slots of `experts` experts can come to at most.
    #[must_use]
    pub fn tiles_max(pairs: u32, experts: u32, pairs_per_tile: u32) -> u32 {
        // Every expert that is used may have one tile that is not full.
        pairs / pairs_per_tile + experts.min(pairs)
    }
}

pub static BIAS: Kernel = Kernel {
    name: "bias",
    source: crate::wgsl!("lib/step.wgsl", "bias.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, ReadWrite],
    constants: GROUP,
    tolerance: COPY_TOLERANCE,
};

pub static SCALE: Kernel = Kernel {
    name: "scale",
    source: crate::wgsl!("lib/step.wgsl", "lib/scale_shape.wgsl", "scale.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, ReadWrite],
    constants: GROUP,
    tolerance: COPY_TOLERANCE,
};

pub static SOFTCAP: Kernel = Kernel {
    name: "softcap",
    source: crate::wgsl!("lib/step.wgsl", "lib/scale_shape.wgsl", "softcap.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, ReadWrite],
    constants: GROUP,
    tolerance: 1e-5,
};

fn of_format(format: WeightFormat) -> &'static WeightKernels {
    // The table is in the order of the formats; a test holds it there.
    &WEIGHT_KERNELS[format as usize]
}

fn of_method(pair: &'static [Kernel; 2], method: Method) -> &'static Kernel {
    let [lane, group] = pair;
    match method {
        Method::Lane => lane,
        Method::Group => group,
    }
}

/// Looks tokens up in a table of this format.
#[must_use]
pub fn embed(format: WeightFormat) -> &'static Kernel {
    &of_format(format).embed
}

/// Rows of activations times the matrices of their experts, each row alone.
#[must_use]
pub fn experts(format: WeightFormat) -> &'static Kernel {
    &of_format(format).experts
}

#[must_use]
pub fn rms_norm(method: Method) -> &'static Kernel {
    of_method(&RMS_NORM, method)
}

/// Norms of the heads of queries and keys.
#[must_use]
pub fn head_norm(method: Method) -> &'static Kernel {
    of_method(&HEAD_NORM, method)
}

/// Adds the norm of a branch to the residual stream.
#[must_use]
pub fn post_norm(method: Method) -> &'static Kernel {
    of_method(&POST_NORM, method)
}

#[must_use]
pub fn reflect(method: Method) -> &'static Kernel {
    of_method(&REFLECT, method)
}

/// Every row of this file.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> {
    WEIGHT_KERNELS
        .iter()
        .flat_map(|k| [&k.embed, &k.experts, &k.experts_lane, &k.experts_tile])
        .chain(
            WEIGHT_KERNELS
                .iter()
                .flat_map(|k| [&k.matmul_lane, &k.matmul_registers, &k.matmul_tile]),
        )
        .chain(RMS_NORM.iter().chain(&REFLECT))
        .chain(HEAD_NORM.iter().chain(&POST_NORM))
        .chain([&SILU_MUL, &GELU_MUL, &BIAS, &SCALE, &SOFTCAP])
        .chain([&ROUTE_EXPERTS, &GROUP_EXPERTS, &COMBINE_EXPERTS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_in_their_places() {
        for format in WeightFormat::ALL {
            let name = format!("{format:?}").to_lowercase();
            assert_eq!(embed(format).name, format!("embed_{name}"));
            assert_eq!(Matmul::Lane.kernel(format).name, format!("matmul_lane_{name}"));
        }
    }
}
