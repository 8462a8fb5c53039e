// Four-bit levels, 0 to 15. A block is one vec4<u32>: byte k of word p holds weight 8p + k in its low
// half and weight 8p + 4 + k in its high half.
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;

fn packed8(row: u32, block: u32, part: u32) -> vec2<u32> {
    let word = quants[row * (matrix.columns >> 5u) + block][part];
    return vec2<u32>(word, word >> 4u) & vec2<u32>(0x0f0f0f0fu);
}

fn part_factor(row: u32, block: u32, part: u32) -> i32 {
    return 1;
}

// As unpack_bytes(packed8(..)), with fewer operations.
fn levels_of_word(word: u32) -> Eight {
    return Eight(
        vec4<f32>((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u)),
        vec4<f32>((vec4<u32>(word) >> vec4<u32>(4u, 12u, 20u, 28u)) & vec4<u32>(15u)),
    );
}

fn levels8(row: u32, block: u32, part: u32) -> Eight {
    return levels_of_word(quants[row * (matrix.columns >> 5u) + block][part]);
}
