//! Kernels that find the largest logits of a row and the sums its probabilities need, so that neither
//! drawing nor telling log-probabilities has to read a whole vocabulary back.

use super::Kernel;
use super::llm::Method;
use super::{Binding::Read, Binding::ReadWrite, Binding::Uniform};

/// Strands a row is looked at in; `shaders/lib/top.wgsl`. The largest logits are spread over them, so
/// that few strands hold all of the largest.
pub const STRANDS: usize = 1024;
/// So many of the largest logits a record is sure to have, if the row has as many.
pub const KEPT: usize = 64;
/// Logits a record has room for. Strands share about two of the 64 largest, so that 66 is usual.
pub const CAPACITY: usize = 96;
/// Floats of a record: its head, then logits and tokens in turn.
pub const RECORD_FLOATS: usize = 8 + 2 * CAPACITY;
/// Tokens come as floats, which hold whole numbers up to here.
pub const VOCABULARY_MAX: usize = 1 << 24;

/// Sums of exponentials, relative.
const SUM_TOLERANCE: f32 = 1e-5;
const STRANDS_WORKGROUP: u32 = 64;

/// What is asked of a row; `shaders/lib/top.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Wish {
    /// A token whose logit is wanted.
    pub token: u32,
    pub inverse_temperature: f32,
}

impl Wish {
    /// Of rows of which nothing in particular is asked.
    pub const NONE: Self = Self { token: 0, inverse_temperature: 1.0 };
}

/// The largest logit of every strand, and its sums.
pub static TOP_STRANDS: Kernel = Kernel {
    name: "top_strands",
    source: crate::wgsl!("lib/step.wgsl", "lib/top.wgsl", "top_strands.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, ReadWrite],
    constants: &[("WORKGROUP", STRANDS_WORKGROUP as f64)],
    tolerance: SUM_TOLERANCE,
};

/// Records from the strands; see [`constants`].
pub static TOP_K: Kernel = Kernel {
    name: "top_k",
    source: crate::wgsl!("lib/step.wgsl", "lib/top.wgsl", "top_k.wgsl"),
    entry: "main",
    bindings: &[Uniform, Uniform, Read, Read, Read, ReadWrite],
    constants: &[("WORKGROUP", 256.0)],
    tolerance: SUM_TOLERANCE,
};

/// Constants of [`TOP_K`]: on a CPU driver, where a barrier is dear, a workgroup is one vector.
#[must_use]
pub fn constants(method: Method) -> &'static [(&'static str, f64)] {
    match method {
        Method::Lane => &[("WORKGROUP", 8.0)],
        Method::Group => &[("WORKGROUP", 256.0)],
    }
}

/// Workgroups of [`TOP_STRANDS`] for each row; of [`TOP_K`] it is one.
#[must_use]
pub fn strand_groups() -> u32 {
    STRANDS as u32 / STRANDS_WORKGROUP
}

/// Every row of this file.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> {
    [&TOP_STRANDS, &TOP_K].into_iter()
}
