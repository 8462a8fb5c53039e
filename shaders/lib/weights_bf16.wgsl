// Weights stored as bf16 pairs in u32 words: the upper half of an f32 each. A block is four vec4<u32>.
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    return vec2<f32>(1.0, 0.0);
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    let words = quants[(row * (matrix.columns >> 5u) + block) * 4u + part];
    let even = bitcast<vec4<f32>>(words << vec4<u32>(16u));
    let odd = bitcast<vec4<f32>>(words & vec4<u32>(0xffff0000u));
    return Eight(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}
