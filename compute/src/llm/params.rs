//! Uniform blocks and rows of the kernels, field for field as `shaders/` declares them.

use bytemuck::{Pod, Zeroable};

/// What changes from pass to pass; `shaders/lib/step.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Step {
    /// Tokens of all sequences together.
    pub rows: u32,
    pub selected: u32,
    /// One more than the largest position of the pass.
    pub kv_length: u32,
    /// 1 where the experts of every row are given, not chosen.
    pub forced: u32,
}

/// What differs from row to row; `shaders/lib/rows.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Row {
    /// Position of the token in its sequence; in the selection, the number of a row.
    pub position: u32,
    /// Word of the page tables at which the sequence's own begins.
    pub pages_at: u32,
}

/// Positions of one page of the caches; `shaders/lib/pages.wgsl`.
pub const PAGE: usize = 16;

/// One shard of a weight matrix; `shaders/lib/matrix.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MatrixShape {
    pub columns: u32,
    pub rows: u32,
    pub row_first: u32,
    pub out_stride: u32,
    pub out_first: u32,
    pub accumulate: u32,
    pub selecting: u32,
    pub padding: u32,
}

/// `shaders/lib/norm_shape.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct NormShape {
    pub columns: u32,
    pub selecting: u32,
    pub epsilon: f32,
    pub padding: u32,
}

/// `shaders/head_norm.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct HeadNormShape {
    pub heads: u32,
    pub kv_heads: u32,
    pub head: u32,
    pub epsilon: f32,
}

/// `shaders/lib/route.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RouteShape {
    pub experts: u32,
    pub used: u32,
    /// Width of the residual stream.
    pub columns: u32,
    /// Which of the card's layers it is, and how many there are: where given experts are read.
    pub layer: u32,
    pub layers: u32,
    pub padding: [u32; 3],
}

/// `shaders/lib/expert_rows.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ExpertsShape {
    /// Rows of one expert's matrix.
    pub expert_rows: u32,
    pub used: u32,
    /// 1: every slot of a row has an x of its own; 0: all slots have the row's.
    pub gathering: u32,
    pub padding: u32,
}

/// `shaders/lib/scale_shape.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct ScaleShape {
    pub columns: u32,
    pub factor: f32,
    pub padding: [u32; 2],
}

/// `shaders/quantise_q16.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct QuantiseShape {
    pub columns: u32,
    pub selecting: u32,
    pub padding: [u32; 2],
}

/// `shaders/gate_mul.wgsl`, `shaders/bias.wgsl` and `shaders/reflect.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RowShape {
    pub columns: u32,
    pub padding: [u32; 3],
}

/// `shaders/lib/attention_shape.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct AttentionShape {
    pub heads: u32,
    pub kv_heads: u32,
    pub head: u32,
    pub rope: u32,
    pub half_split: u32,
    pub score_scale: f32,
    /// Positions a row sees, its own included; 0 is no window.
    pub window: u32,
    /// Scores are softly bounded by this; 0 is no bound.
    pub softcap: f32,
}
