// Q6_K: six-bit levels, -32 to 31, with a signed byte of scale per 16 and an f16 per 256.
//
// A row is the low four bits of all its blocks (level + 32), as in levels_4bit.wgsl, then two words of
// high bits per block: bits 8k + 4p + 2h and the next of word w are of weight 16w + 8p + 4h + k.
// Scales: five words per eight blocks, sixteen bytes in four words and the f16.
// Level times byte times f16 is exact in f32, in any order.
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    let at = (row * (matrix.columns >> 8u) + (block >> 3u)) * 5u + 4u;
    return vec2<f32>(unpack2x16float(scales[at]).x, 0.0);
}

// The byte of half a block.
fn part_factor(row: u32, block: u32, part: u32) -> i32 {
    let word = scales[(row * (matrix.columns >> 8u) + (block >> 3u)) * 5u + ((block & 7u) >> 1u)];
    let shift = 24u - ((block & 1u) * 16u + (part >> 1u) * 8u);
    return bitcast<i32>(word << shift) >> 24u;
}

fn packed8(row: u32, block: u32, part: u32) -> vec2<u32> {
    let blocks = matrix.columns >> 5u;
    let first = row * (blocks + (blocks >> 1u));
    let low = quants[first + block][part];
    let word = quants[first + blocks + (block >> 1u)][(block & 1u) * 2u + (part >> 1u)];
    let high = word >> (4u * (part & 1u));
    let bytes = (vec2<u32>(low, low >> 4u) & vec2<u32>(0x0f0f0f0fu))
        | ((vec2<u32>(high, high >> 2u) & vec2<u32>(0x03030303u)) << vec2<u32>(4u));
    // Minus 32 in every byte: the top bit, set first, keeps borrows inside.
    return ((bytes | vec2<u32>(0x80808080u)) - vec2<u32>(0x20202020u)) ^ vec2<u32>(0x80808080u);
}

// Levels times their byte: whole numbers up to 4096.
fn levels8(row: u32, block: u32, part: u32) -> Eight {
    let levels = unpack_signed_bytes(packed8(row, block, part));
    let factor = f32(part_factor(row, block, part));
    return Eight(levels.a * factor, levels.b * factor);
}
