//! Uniform blocks of the kernels, field for field as `shaders/` declares them.

use bytemuck::{Pod, Zeroable};

/// What changes from pass to pass; `shaders/lib/step.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Step {
    /// Tokens of all sequences together.
    pub rows: u32,
    pub rows_per_sequence: u32,
    /// Position of every sequence's first row.
    pub position: u32,
    pub sequence_slots: u32,
    pub select_first: u32,
    pub select_stride: u32,
    pub selected: u32,
    /// `position + rows_per_sequence`.
    pub kv_length: u32,
}

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

/// `shaders/rms_norm.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct NormShape {
    pub columns: u32,
    pub selecting: u32,
    pub epsilon: f32,
    pub padding: u32,
}

/// `shaders/silu_mul.wgsl` and `shaders/reflect.wgsl`.
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
    pub padding: [u32; 2],
}
