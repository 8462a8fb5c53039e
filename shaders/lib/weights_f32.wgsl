// Weights stored as f32: a block is eight vec4<f32>; no scales.
@group(0) @binding(2) var<storage, read> quants: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    return vec2<f32>(1.0, 0.0);
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    let at = (row * (matrix.columns >> 5u) + block) * 8u + part * 2u;
    return Eight(quants[at], quants[at + 1u]);
}
