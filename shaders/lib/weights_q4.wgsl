// Four-bit weights with offset: a block is 32 nibbles (one vec4<u32>, nibble j of word p being weight
// 8p + j) and a word with the f16 scale (low half) and the f16 offset (high half).
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    return unpack2x16float(scales[row * (matrix.columns >> 5u) + block]);
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    let word = quants[row * (matrix.columns >> 5u) + block][part];
    return Eight(
        vec4<f32>((vec4<u32>(word) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)),
        vec4<f32>((vec4<u32>(word) >> vec4<u32>(16u, 20u, 24u, 28u)) & vec4<u32>(15u)),
    );
}
