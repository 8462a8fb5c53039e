// Scales of Q4_K and Q5_K: a vec4<u32> per eight blocks. x: the f16 factors of scales (low half) and
// of minima (high half), both over six-bit numbers; y: the low four bits of the blocks' scales, z: of
// their minima, block b at bit 4b; w: the two high bits, of scales at bit 2b, of minima at 16 + 2b.
// An f16 times six bits is exact in f32.
@group(0) @binding(3) var<storage, read> scales: array<vec4<u32>>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    let words = scales[row * (matrix.columns >> 8u) + (block >> 3u)];
    let b = block & 7u;
    let low = (words.yz >> vec2<u32>(4u * b)) & vec2<u32>(15u);
    let high = (vec2<u32>(words.w) >> vec2<u32>(2u * b, 16u + 2u * b)) & vec2<u32>(3u);
    let pair = unpack2x16float(words.x) * vec2<f32>(low | (high << vec2<u32>(4u)));
    return vec2<f32>(pair.x, -pair.y);
}
