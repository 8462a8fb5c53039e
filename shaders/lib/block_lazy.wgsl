// Blocks of formats that gain nothing from loading a block at once: read part by part.
struct Block {
    row: u32,
    block: u32,
}

fn block_of(row: u32, block: u32) -> Block {
    return Block(row, block);
}

fn levels_of(block: Block, part: u32) -> Eight {
    return levels8(block.row, block.block, part);
}
