//! Variants of the matrix-vector product, which is what decoding spends its time on.
//!
//! They differ in what they multiply with (floats, or activations quantised to whole numbers) and in who adds
//! up with whom. [`MatvecVariant::x_rows`] rows of activations share one reading of the weights, each
//! summed in the order it has alone.

use serde::{Deserialize, Serialize};

use super::Kernel;
use super::llm::{Method, WeightFormat};
use super::{Binding, Binding::Read, Binding::ReadWrite, Binding::Uniform};

/// Weight rows that one invocation, or the lanes that work together, multiply at once.
const ROWS_PER_SET: u32 = 4;
/// Neighbours that hand each other activations in `matvec_spread.wgsl`.
pub const SPREAD_LANES: u32 = 8;

/// Most rows of activations that share one reading of the weights.
pub const X_ROWS_MAX: u32 = 8;

/// f32 sums in another order than the twin's: a few units in the last place of the terms.
const SUM_TOLERANCE: f32 = 2e-5;
/// Whole numbers add up exactly; what is left are the blocks' products.
const Q16_TOLERANCE: f32 = 1e-5;

/// What activations are when decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// Floats: results agree with an f32 reference to the last bits.
    #[default]
    F32,
    /// Whole numbers of two bytes with a scale per 32, for weights whose levels are whole numbers too;
    /// others keep f32. Fewer operations per weight than decoding it to a float. One byte would be
    /// fewer still, but costs SmolLM2 2.8e-3 nats and 7 % of its first choices.
    Q16,
}

/// Who adds up with whom; each has its `shaders/lib/sum_*.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Every invocation alone: CPU adapters.
    Lane,
    /// As `Lane`, but the lanes of a subgroup load activations for each other: CPU adapters that
    /// offer subgroups of [`SPREAD_LANES`] or more. Floats only.
    Spread,
    /// Lanes in a tree through shared memory: any GPU.
    Tree,
    /// Lanes of one subgroup through registers: GPUs that offer subgroups.
    Subgroup,
}

/// A matrix, as far as the choice of a kernel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatvecShape {
    pub format: WeightFormat,
    pub columns: usize,
    pub rows: usize,
}

impl MatvecShape {
    /// Operations for one row of activations.
    #[must_use]
    pub fn flop_per_row(self) -> f64 {
        2.0 * self.rows as f64 * self.columns as f64
    }
}

/// One way to multiply, for matrices of some width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MatvecVariant {
    pub activations: Activations,
    pub sharing: Sharing,
    /// Invocations of a workgroup.
    pub workgroup: u32,
    /// Invocations that share a set of rows; a power of two that divides `workgroup`.
    pub lanes: u32,
    /// Eights of columns that an invocation takes at a time: 1 (floats only), 2 or 4.
    pub parts: u32,
    /// True if the kernel for most rows of activations is taken for fewer too: where a driver's compiler rounds
    /// otherwise in each of the kernels for 1, 2, 4 and 8.
    #[serde(default)]
    pub whole: bool,
}

impl MatvecVariant {
    /// What suits a kind of adapter untried. `subgroup_lanes` is the size of its smallest subgroup, if
    /// it offers any.
    #[must_use]
    pub fn of(
        method: Method,
        subgroup_lanes: Option<u32>,
        activations: Activations,
        format: WeightFormat,
        columns: usize,
    ) -> Self {
        let activations = if is_whole(format) { activations } else { Activations::F32 };
        let (sharing, workgroup, lanes, parts) = match method {
            // Lanes of lavapipe's vector unit.
            Method::Lane => match activations {
                Activations::F32 if spreads(subgroup_lanes) => (Sharing::Spread, 8, 1, 4),
                Activations::F32 | Activations::Q16 => (Sharing::Lane, 8, 1, 4),
            },
            Method::Group => {
                let lanes = (columns as u32 / 32).next_power_of_two().clamp(8, 32);
                let parts = match activations {
                    // Neighbours read neighbouring words, and vectors of x side by side.
                    Activations::F32 => 1,
                    Activations::Q16 => 4,
                };
                (Sharing::Tree, 64, lanes, parts)
            }
        };
        Self { activations, sharing, workgroup, lanes, parts, whole: false }
    }

    /// What may be tried on an adapter for matrices of some width; the untried choice comes first.
    #[must_use]
    pub fn candidates(
        method: Method,
        subgroup_lanes: Option<u32>,
        activations: Activations,
        format: WeightFormat,
        columns: usize,
    ) -> Vec<Self> {
        let untried = Self::of(method, subgroup_lanes, activations, format, columns);
        let activations = untried.activations;
        let variant = |sharing, workgroup, lanes, parts| Self {
            activations,
            sharing,
            workgroup,
            lanes,
            parts,
            whole: false,
        };
        let mut candidates = vec![untried];
        match method {
            // Compiling is dear here and barriers are known to be: one of each kind.
            Method::Lane => {
                candidates.push(variant(Sharing::Lane, 8, 1, 4));
                candidates.push(variant(Sharing::Tree, 8, 8, untried.parts));
                candidates.extend(
                    subgroup_lanes.map(|lanes| variant(Sharing::Subgroup, lanes.max(8), lanes, 4)),
                );
            }
            Method::Group => {
                let parts = match activations {
                    Activations::F32 => &[1, 2, 4][..],
                    Activations::Q16 => &[4, 2],
                };
                // A large card is busy only with more lanes to a set of rows than a small one needs.
                let shares = [
                    (64, 8),
                    (64, 16),
                    (64, 32),
                    (64, 64),
                    (128, 128),
                    (256, 64),
                    (256, 128),
                    (256, 256),
                ];
                for &parts in parts {
                    for (workgroup, lanes) in shares {
                        candidates.push(variant(Sharing::Tree, workgroup, lanes, parts));
                    }
                    for workgroup in [64, 128] {
                        candidates.extend(
                            subgroup_lanes
                                .map(|lanes| variant(Sharing::Subgroup, workgroup, lanes, parts)),
                        );
                    }
                }
                candidates.push(variant(Sharing::Lane, 64, 1, 4));
            }
        }
        let fits = |v: &Self| v.lanes <= v.workgroup && v.lanes * v.parts * 8 <= columns as u32;
        let mut seen = Vec::new();
        candidates.retain(|candidate| {
            let is_new = !seen.contains(candidate);
            seen.push(*candidate);
            is_new && (*candidate == untried || fits(candidate))
        });
        candidates
    }

    /// How many rows of activations a dispatch over `rows` of them takes at a time: 1, 2, 4 or 8.
    #[must_use]
    pub fn x_rows(rows: u32) -> u32 {
        rows.next_power_of_two().clamp(1, X_ROWS_MAX)
    }

    /// How many of them its kernel for `x_rows` takes.
    #[must_use]
    pub fn together(self, x_rows: u32) -> u32 {
        if self.whole { X_ROWS_MAX } else { x_rows }
    }

    /// The kernel for weights in `format`; whatever it is, floats can be multiplied with it.
    #[must_use]
    pub fn kernel(self, format: WeightFormat) -> &'static Kernel {
        let floats = &F32_KERNELS[format as usize];
        let [lane, tree, subgroup] = match self.activations {
            Activations::F32 => floats,
            Activations::Q16 => Q16_KERNELS[format as usize].as_ref().unwrap_or(floats),
        };
        match self.sharing {
            Sharing::Lane => lane,
            Sharing::Spread => spread(format),
            Sharing::Tree => tree,
            Sharing::Subgroup => subgroup,
        }
    }

    #[must_use]
    pub fn constants(self, x_rows: u32) -> Vec<(&'static str, f64)> {
        let mut constants = vec![
            ("WORKGROUP", f64::from(self.workgroup)),
            ("PARTS", f64::from(self.parts)),
            ("X_ROWS", f64::from(x_rows)),
        ];
        match self.sharing {
            Sharing::Lane | Sharing::Spread => {}
            Sharing::Tree | Sharing::Subgroup => {
                constants.push(("LANES", f64::from(self.lanes)));
            }
        }
        constants
    }

    /// Workgroups over the rows of a matrix.
    #[must_use]
    pub fn groups(self, rows: u32) -> u32 {
        rows.div_ceil(self.workgroup / self.lanes * ROWS_PER_SET)
    }
}

/// True if an adapter's subgroups suit [`Sharing::Spread`].
#[must_use]
pub fn spreads(subgroup_lanes: Option<u32>) -> bool {
    subgroup_lanes.is_some_and(|lanes| lanes >= SPREAD_LANES)
}

/// The kernel of [`Sharing::Spread`], for any number of rows.
pub(super) fn spread(format: WeightFormat) -> &'static Kernel {
    &SPREAD_KERNELS[format as usize]
}

/// True if the format's levels are whole numbers, which quantised activations need.
#[must_use]
pub fn is_whole(format: WeightFormat) -> bool {
    Q16_KERNELS[format as usize].is_some()
}

/// Blocks that a workgroup of [`QUANTISE_Q16`] makes.
pub const QUANTISE_WORKGROUP: usize = 8;

/// Rows to quantised activations.
pub static QUANTISE_Q16: Kernel = Kernel {
    name: "quantise_q16",
    source: crate::wgsl!("lib/step.wgsl", "quantise_q16.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, ReadWrite, ReadWrite],
    constants: &[("WORKGROUP", QUANTISE_WORKGROUP as f64)],
    // Of a level: a driver's division may round the other way where a value lies between two.
    tolerance: 1.0,
};

const F32_BINDINGS: &[Binding] = &[Uniform, Uniform, Read, Read, Read, ReadWrite];
const Q16_BINDINGS: &[Binding] = &[Uniform, Uniform, Read, Read, Read, ReadWrite, Read];

macro_rules! kernel {
    ($name:expr, $sum:literal, [$($rest:literal),+], $bindings:expr, $tolerance:expr, [$($part:literal),+]) => {
        Kernel {
            name: $name,
            source: crate::wgsl!(
                "lib/step.wgsl",
                "lib/matrix.wgsl",
                $($part),+,
                $sum,
                "lib/matvec_rows.wgsl",
                "lib/store_four.wgsl",
                $($rest),+
            ),
            entry: "main",
            bindings: $bindings,
            constants: &[],
            tolerance: $tolerance,
        }
    };
}

/// One kernel per [`Sharing`], in its order.
macro_rules! sharings {
    ($name:literal, $rest:tt, $bindings:expr, $tolerance:expr, $parts:tt) => {
        [
            kernel!(
                concat!($name, "_lane"),
                "lib/sum_lane.wgsl",
                $rest,
                $bindings,
                $tolerance,
                $parts
            ),
            kernel!(
                concat!($name, "_tree"),
                "lib/sum_tree.wgsl",
                $rest,
                $bindings,
                $tolerance,
                $parts
            ),
            kernel!(
                concat!($name, "_subgroup"),
                "lib/sum_subgroup.wgsl",
                $rest,
                $bindings,
                $tolerance,
                $parts
            ),
        ]
    };
}

macro_rules! floats {
    ($name:literal, $($part:literal),+) => {
        sharings!(
            $name,
            ["lib/four.wgsl", "lib/matvec_pieces.wgsl", "matvec.wgsl"],
            F32_BINDINGS,
            SUM_TOLERANCE,
            [$($part),+]
        )
    };
}

macro_rules! bytes {
    ($name:literal, $($part:literal),+) => {
        Some(sharings!($name, ["matvec_q16.wgsl"], Q16_BINDINGS, Q16_TOLERANCE, [$($part),+]))
    };
}

macro_rules! spread {
    ($name:literal, $($part:literal),+) => {
        kernel!(
            concat!("matvec_", $name, "_spread"),
            "lib/sum_lane.wgsl",
            ["lib/four.wgsl", "lib/matvec_pieces.wgsl", "matvec_spread.wgsl"],
            F32_BINDINGS,
            SUM_TOLERANCE,
            [$($part),+]
        )
    };
}

type Kernels = [Kernel; 3];

/// In the order of [`WeightFormat::ALL`].
static F32_KERNELS: [Kernels; WeightFormat::ALL.len()] = [
    floats!("matvec_f32", "lib/weights_f32.wgsl"),
    floats!("matvec_f16", "lib/weights_f16.wgsl"),
    floats!("matvec_bf16", "lib/weights_bf16.wgsl"),
    floats!("matvec_q8", "lib/weights_q8.wgsl"),
    floats!("matvec_q4", "lib/levels_4bit.wgsl", "lib/scales_pair.wgsl"),
    floats!("matvec_q5", "lib/levels_5bit.wgsl", "lib/scales_pair.wgsl"),
    floats!("matvec_q4k", "lib/levels_4bit.wgsl", "lib/scales_super.wgsl"),
    floats!("matvec_q5k", "lib/levels_5bit.wgsl", "lib/scales_super.wgsl"),
    floats!("matvec_q6k", "lib/weights_q6k.wgsl"),
    floats!("matvec_mxfp4", "lib/weights_mxfp4.wgsl"),
];

/// In the order of [`WeightFormat::ALL`].
static SPREAD_KERNELS: [Kernel; WeightFormat::ALL.len()] = [
    spread!("f32", "lib/weights_f32.wgsl", "lib/block_lazy.wgsl"),
    spread!("f16", "lib/weights_f16.wgsl", "lib/block_lazy.wgsl"),
    spread!("bf16", "lib/weights_bf16.wgsl", "lib/block_lazy.wgsl"),
    spread!("q8", "lib/weights_q8.wgsl", "lib/block_8bit.wgsl"),
    spread!("q4", "lib/levels_4bit.wgsl", "lib/scales_pair.wgsl", "lib/block_4bit.wgsl"),
    spread!("q5", "lib/levels_5bit.wgsl", "lib/scales_pair.wgsl", "lib/block_lazy.wgsl"),
    spread!("q4k", "lib/levels_4bit.wgsl", "lib/scales_super.wgsl", "lib/block_4bit.wgsl"),
    spread!("q5k", "lib/levels_5bit.wgsl", "lib/scales_super.wgsl", "lib/block_lazy.wgsl"),
    spread!("q6k", "lib/weights_q6k.wgsl", "lib/block_lazy.wgsl"),
    spread!("mxfp4", "lib/weights_mxfp4.wgsl", "lib/block_lazy.wgsl"),
];

/// In the order of [`WeightFormat::ALL`]; formats of floats have none.
static Q16_KERNELS: [Option<Kernels>; WeightFormat::ALL.len()] = [
    None,
    None,
    None,
    bytes!("matvec_q8_by_q16", "lib/weights_q8.wgsl"),
    bytes!("matvec_q4_by_q16", "lib/levels_4bit.wgsl", "lib/scales_pair.wgsl"),
    bytes!("matvec_q5_by_q16", "lib/levels_5bit.wgsl", "lib/scales_pair.wgsl"),
    bytes!("matvec_q4k_by_q16", "lib/levels_4bit.wgsl", "lib/scales_super.wgsl"),
    bytes!("matvec_q5k_by_q16", "lib/levels_5bit.wgsl", "lib/scales_super.wgsl"),
    bytes!("matvec_q6k_by_q16", "lib/weights_q6k.wgsl"),
    bytes!("matvec_mxfp4_by_q16", "lib/weights_mxfp4.wgsl"),
];

/// Every row of this file.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> {
    F32_KERNELS
        .iter()
        .chain(Q16_KERNELS.iter().flatten())
        .flatten()
        .chain(&SPREAD_KERNELS)
        .chain([&QUANTISE_Q16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_in_their_places() {
        for format in WeightFormat::ALL {
            let name = format!("{format:?}").to_lowercase();
            let f32 = MatvecVariant::of(Method::Lane, None, Activations::F32, format, 256);
            assert_eq!(f32.kernel(format).name, format!("matvec_{name}_lane"));
            let f32 = MatvecVariant::of(Method::Lane, Some(8), Activations::F32, format, 256);
            assert_eq!(f32.kernel(format).name, format!("matvec_{name}_spread"));
            let q8 = MatvecVariant::of(Method::Group, Some(32), Activations::Q16, format, 256);
            let suffix = if is_whole(format) { "_by_q16" } else { "" };
            assert_eq!(q8.kernel(format).name, format!("matvec_{name}{suffix}_tree"));
        }
    }
}
