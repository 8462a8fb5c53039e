// Weights stored as f16 pairs in u32 words (no f16 feature needed): a block is four vec4<u32>.
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    return vec2<f32>(1.0, 0.0);
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    let words = quants[(row * (matrix.columns >> 5u) + block) * 4u + part];
    return Eight(
        vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)),
        vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)),
    );
}
