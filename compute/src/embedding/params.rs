//! Uniform blocks and rows of the encoders' kernels, field for field as `shaders/` declares them.

use bytemuck::{Pod, Zeroable};

/// Where a text lies among the rows of a pass; `shaders/lib/texts.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TextRows {
    pub first: u32,
    pub count: u32,
}

/// `shaders/encoder/attend.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct AttendShape {
    pub heads: u32,
    pub head: u32,
    pub score_scale: f32,
    pub padding: u32,
}
