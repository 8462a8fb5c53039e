//! Kernels that only encoders have; products, look-ups and biases are those of language models.

use super::Kernel;
use super::llm::Method;
use super::{Binding::Read, Binding::ReadWrite, Binding::Uniform};

/// Largest head of `attend.wgsl`, which keeps it in registers.
pub const HEAD_MAX: usize = 128;

/// f32 sums in another order than the twin's: a few units in the last place of the terms.
const SUM_TOLERANCE: f32 = 2e-5;

/// How one vector is made of a text's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The first row, whose token was put there for this.
    Cls,
    Mean,
    /// The largest value of every column.
    Max,
}

/// What lies between the two products of a layer's feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Gelu with the error function.
    GeluErf,
    /// Its approximation with tanh.
    GeluTanh,
    Relu,
    Silu,
}

macro_rules! activate {
    ($name:literal, $part:literal) => {
        Kernel {
            name: concat!("activate_", $name),
            source: crate::wgsl!("lib/step.wgsl", $part, "encoder/activate.wgsl"),
            entry: "main",
            bindings: &[Uniform, Uniform, Read, ReadWrite],
            constants: &[("WORKGROUP", 64.0)],
            tolerance: 1e-5,
        }
    };
}

static GELU_ERF: Kernel = activate!("gelu_erf", "lib/activation_gelu_erf.wgsl");
static GELU_TANH: Kernel = activate!("gelu_tanh", "lib/activation_gelu.wgsl");
static RELU: Kernel = activate!("relu", "lib/activation_relu.wgsl");
static SILU: Kernel = activate!("silu", "lib/activation_silu.wgsl");

macro_rules! layer_norm {
    ($name:literal, $reduce:literal, $constants:expr) => {
        Kernel {
            name: concat!("layer_norm_", $name),
            source: crate::wgsl!(
                "lib/step.wgsl",
                "lib/norm_shape.wgsl",
                $reduce,
                "encoder/layer_norm.wgsl"
            ),
            entry: "main",
            bindings: &[Uniform, Uniform, Read, Read, ReadWrite],
            constants: $constants,
            tolerance: SUM_TOLERANCE,
        }
    };
}

static LAYER_NORM: [Kernel; 2] = [
    layer_norm!("lane", "lib/reduce_lane.wgsl", &[("WORKGROUP", 8.0)]),
    layer_norm!("tree", "lib/reduce_tree.wgsl", &[("WORKGROUP", 64.0), ("LANES", 64.0)]),
];

/// Every row of a text attends to all of them; see [`attend_constants`].
pub static ATTEND: Kernel = Kernel {
    name: "encoder_attend",
    source: crate::wgsl!("lib/step.wgsl", "lib/texts.wgsl", "encoder/attend.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, ReadWrite],
    constants: &[("WORKGROUP", 64.0), ("VECTORS", (HEAD_MAX / 4) as f64)],
    tolerance: SUM_TOLERANCE,
};

/// One vector of each text's rows; see [`pool_constants`].
pub static POOL: Kernel = Kernel {
    name: "encoder_pool",
    source: crate::wgsl!("lib/step.wgsl", "lib/texts.wgsl", "encoder/pool.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, ReadWrite],
    constants: &[("WORKGROUP", 64.0), ("MODE", 1.0)],
    tolerance: SUM_TOLERANCE,
};

/// Adds a bias and bends.
#[must_use]
pub fn activate(activation: Activation) -> &'static Kernel {
    match activation {
        Activation::GeluErf => &GELU_ERF,
        Activation::GeluTanh => &GELU_TANH,
        Activation::Relu => &RELU,
        Activation::Silu => &SILU,
    }
}

/// Adds a branch with its bias to the rows and norms them.
#[must_use]
pub fn layer_norm(method: Method) -> &'static Kernel {
    let [lane, tree] = &LAYER_NORM;
    match method {
        Method::Lane => lane,
        Method::Group => tree,
    }
}

/// Rows that a workgroup of [`ATTEND`] takes: on a CPU driver the lanes of its vector unit (lavapipe: 8).
#[must_use]
pub fn attend_rows(method: Method) -> u32 {
    match method {
        Method::Lane => 8,
        Method::Group => 64,
    }
}

/// Constants of [`ATTEND`] for heads of `head` floats.
#[must_use]
pub fn attend_constants(method: Method, head: u32) -> Vec<(&'static str, f64)> {
    vec![("WORKGROUP", f64::from(attend_rows(method))), ("VECTORS", f64::from(head / 4))]
}

/// Constants of [`POOL`].
#[must_use]
pub fn pool_constants(pooling: Pooling) -> Vec<(&'static str, f64)> {
    let mode = match pooling {
        Pooling::Cls => 0.0,
        Pooling::Mean => 1.0,
        Pooling::Max => 2.0,
    };
    vec![("MODE", mode)]
}

/// Every row of this file.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> {
    LAYER_NORM.iter().chain([&GELU_ERF, &GELU_TANH, &RELU, &SILU, &ATTEND, &POOL])
}
