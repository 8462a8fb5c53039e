// A block of lib/weights_q8.wgsl, loaded at once.
struct Block {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn block_of(row: u32, block: u32) -> Block {
    let at = (row * (matrix.columns >> 5u) + block) * 2u;
    return Block(quants[at], quants[at + 1u]);
}

fn levels_of(block: Block, part: u32) -> Eight {
    let words = select(block.low, block.high, part > 1u);
    return unpack_signed_bytes(select(words.xy, words.zw, (part & 1u) == 1u));
}
