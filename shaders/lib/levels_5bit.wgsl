// Five-bit levels, 0 to 31. A row is the low four bits of all its blocks, as in levels_4bit.wgsl, then
// a word of fifth bits per block, padded to a vec4<u32>: bit 8k + 2p + h is of weight 8p + 4h + k.
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;

fn packed8(row: u32, block: u32, part: u32) -> vec2<u32> {
    let blocks = matrix.columns >> 5u;
    let first = row * (blocks + ((blocks + 3u) >> 2u));
    let low = quants[first + block][part];
    let fifth = quants[first + blocks + (block >> 2u)][block & 3u] >> (2u * part);
    return (vec2<u32>(low, low >> 4u) & vec2<u32>(0x0f0f0f0fu))
        | ((vec2<u32>(fifth, fifth >> 1u) & vec2<u32>(0x01010101u)) << vec2<u32>(4u));
}

fn part_factor(row: u32, block: u32, part: u32) -> i32 {
    return 1;
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    return unpack_bytes(packed8(row, block, part));
}
