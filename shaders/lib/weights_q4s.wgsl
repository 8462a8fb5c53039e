// Four-bit weights whose scale and offset need f32 (Q4_K: six-bit times f16): nibbles as in
// weights_q4.wgsl, and a pair of f32 per block.
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<vec2<f32>>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    return scales[row * (matrix.columns >> 5u) + block];
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    let word = quants[row * (matrix.columns >> 5u) + block][part];
    return Eight(
        vec4<f32>((vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)),
        vec4<f32>((vec4<u32>(word) >> vec4<u32>(16u, 20u, 24u, 28u)) & vec4<u32>(15u)),
    );
}
