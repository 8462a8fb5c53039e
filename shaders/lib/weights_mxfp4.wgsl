// MXFP4: e2m1 codes, laid out as the levels of levels_4bit.wgsl, and a byte per block, four to a word,
// every row starting at a whole word: the exponent of a power of two. Levels are twice the codes'
// values, whole numbers from -12 to 12, and the scale is half the power.
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

// Twice the magnitude of code c, at bit 4c.
const MAGNITUDES: u32 = 0xc8643210u;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    let words_per_row = ((matrix.columns >> 5u) + 3u) >> 2u;
    let e = (scales[row * words_per_row + (block >> 2u)] >> (8u * (block & 3u))) & 255u;
    // 2^(e - 128); below the smallest normal f32 for e under 2, which a GPU may take for zero.
    return vec2<f32>(bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u)), 0.0);
}

fn values_of(codes: vec4<u32>) -> vec4<i32> {
    let shifts = (codes & vec4<u32>(7u)) << vec4<u32>(2u);
    let magnitudes = vec4<i32>((vec4<u32>(MAGNITUDES) >> shifts) & vec4<u32>(15u));
    return select(magnitudes, -magnitudes, (codes & vec4<u32>(8u)) != vec4<u32>(0u));
}

fn packed8(row: u32, block: u32, part: u32) -> vec2<u32> {
    let word = vec4<u32>(quants[row * (matrix.columns >> 5u) + block][part]);
    let a = bitcast<vec4<u32>>(values_of(word >> vec4<u32>(0u, 8u, 16u, 24u))) & vec4<u32>(255u);
    let b = bitcast<vec4<u32>>(values_of(word >> vec4<u32>(4u, 12u, 20u, 28u))) & vec4<u32>(255u);
    return vec2<u32>(
        a.x | (a.y << 8u) | (a.z << 16u) | (a.w << 24u),
        b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u),
    );
}

fn part_factor(row: u32, block: u32, part: u32) -> i32 {
    return 1;
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    let word = vec4<u32>(quants[row * (matrix.columns >> 5u) + block][part]);
    return Eight(
        vec4<f32>(values_of(word >> vec4<u32>(0u, 8u, 16u, 24u))),
        vec4<f32>(values_of(word >> vec4<u32>(4u, 12u, 20u, 28u))),
    );
}
