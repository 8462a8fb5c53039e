// Eight-bit levels, -128 to 127: a block is 32 signed bytes (two vec4<u32>) and one f16 scale, two
// scales to a word, every row starting at a whole word.
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    let words_per_row = ((matrix.columns >> 5u) + 1u) >> 1u;
    let pair = unpack2x16float(scales[row * words_per_row + (block >> 1u)]);
    return vec2<f32>(select(pair.x, pair.y, (block & 1u) == 1u), 0.0);
}

fn packed8(row: u32, block: u32, part: u32) -> vec2<u32> {
    let words = quants[(row * (matrix.columns >> 5u) + block) * 2u + (part >> 1u)];
    return select(words.xy, words.zw, (part & 1u) == 1u);
}

fn part_factor(row: u32, block: u32, part: u32) -> i32 {
    return 1;
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    return unpack_signed_bytes(packed8(row, block, part));
}
