// A block of lib/levels_4bit.wgsl, loaded at once.
struct Block {
    words: vec4<u32>,
}

fn block_of(row: u32, block: u32) -> Block {
    return Block(quants[row * (matrix.columns >> 5u) + block]);
}

fn levels_of(block: Block, part: u32) -> Eight {
    return levels_of_word(block.words[part]);
}
