//! Kernels that turn and file queries, keys and values, and those that attend over the paged caches.
//!
//! Attention runs over *spans* of positions and puts them together afterwards, so that a long context
//! fills a GPU even for a single row. Prefill has rows enough and takes all positions as one span.

use super::Kernel;
use super::llm::Method;
use super::{Binding::Read, Binding::ReadWrite, Binding::Uniform};

/// Positions of a span while decoding: a few tiles of work for each workgroup.
pub const SPAN_DECODE: u32 = 256;
/// Longer than any sequence.
pub const SPAN_PREFILL: u32 = 1 << 30;
/// Query heads that share one loading of keys and values in a workgroup.
pub const HEADS_TOGETHER: u32 = 4;
/// Invocations of a workgroup on a GPU. Each holds four floats of a head, of which there are 512 at
/// most; WebGPU's smallest limit is 256 invocations.
const WORKGROUP_GROUP: u32 = 128;
/// Fewest on a CPU adapter: the lanes of its vector unit (lavapipe: 8).
const WORKGROUP_LANE_MIN: u32 = 8;

/// Values that are moved, or turned once.
const COPY_TOLERANCE: f32 = 1e-6;
/// f32 sums in another order than the twin's: a few units in the last place of the terms.
const SUM_TOLERANCE: f32 = 2e-5;

/// Turns queries and keys and files keys and values.
pub static ROPE: Kernel = Kernel {
    name: "rope",
    source: crate::wgsl!(
        "lib/step.wgsl",
        "lib/rows.wgsl",
        "lib/pages.wgsl",
        "lib/attention_shape.wgsl",
        "rope.wgsl"
    ),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, Read, Read, ReadWrite, ReadWrite, ReadWrite],
    constants: &[("WORKGROUP", 64.0)],
    tolerance: COPY_TOLERANCE,
};

/// Attends over one span; see [`constants`].
pub static ATTENTION: Kernel = Kernel {
    name: "attention",
    source: crate::wgsl!(
        "lib/step.wgsl",
        "lib/rows.wgsl",
        "lib/pages.wgsl",
        "lib/attention_shape.wgsl",
        "attention.wgsl"
    ),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, Read, Read, Read, ReadWrite],
    constants: &[
        ("WORKGROUP", WORKGROUP_GROUP as f64),
        ("SPAN", SPAN_DECODE as f64),
        ("TREE", 1.0),
    ],
    tolerance: SUM_TOLERANCE,
};

/// Puts the spans together.
pub static ATTENTION_REDUCE: Kernel = Kernel {
    name: "attention_reduce",
    source: crate::wgsl!(
        "lib/step.wgsl",
        "lib/rows.wgsl",
        "lib/attention_shape.wgsl",
        "attention_reduce.wgsl"
    ),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, ReadWrite],
    constants: &[("WORKGROUP", 64.0), ("SPAN", SPAN_DECODE as f64)],
    tolerance: SUM_TOLERANCE,
};

/// Constants of [`ATTENTION`] for heads of `head` floats. On a CPU driver a barrier is dear, so there a
/// workgroup has no more invocations than a head has vectors.
#[must_use]
pub fn constants(method: Method, head: u32, span: u32) -> Vec<(&'static str, f64)> {
    let vectors = (head / 4).next_power_of_two();
    let (workgroup, tree) = match method {
        Method::Lane => (vectors.max(WORKGROUP_LANE_MIN), 0.0),
        Method::Group => (vectors.max(WORKGROUP_GROUP), 1.0),
    };
    vec![("WORKGROUP", f64::from(workgroup)), ("SPAN", f64::from(span)), ("TREE", tree)]
}

/// Workgroups for each row and span: KV heads, times the blocks of query heads that share one.
#[must_use]
pub fn head_blocks(heads: u32, kv_heads: u32) -> u32 {
    kv_heads * (heads / kv_heads).div_ceil(HEADS_TOGETHER)
}

/// Every row of this file.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> {
    [&ROPE, &ATTENTION, &ATTENTION_REDUCE].into_iter()
}
