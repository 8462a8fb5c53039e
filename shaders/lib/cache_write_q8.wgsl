// Files keys and values as signed bytes with a scale for each block of 16; lib/cache_read_q8.wgsl reads
// them. An invocation has the two blocks whose scales share a word, so that it alone writes its words.
const PIECE: u32 = 8u;

@group(0) @binding(7) var<storage, read_write> keys: array<u32>;
@group(0) @binding(8) var<storage, read_write> values: array<u32>;

fn file_word(is_value: bool, to: u32, word: u32) {
    if (is_value) {
        values[to] = word;
    } else {
        keys[to] = word;
    }
}

// Files vectors `begin` to `end` of the piece with a scale of their own, whose bits it returns.
fn file_block(is_value: bool, to: u32, begin: u32, end: u32) -> u32 {
    var largest = vec4<f32>(0.0);
    for (var i = begin; i < end; i++) {
        largest = max(largest, abs(piece[i]));
    }
    let exact = max(max(largest.x, largest.y), max(largest.z, largest.w)) / 127.0;
    // Rounded up, so that no level is beyond 127.
    let bits = (bitcast<u32>(exact) + 0xffffu) & 0xffff0000u;
    let inverse = select(0.0, 1.0 / bitcast<f32>(bits), bits > 0u);
    for (var i = begin; i < end; i++) {
        let levels = vec4<i32>(clamp(round(piece[i] * inverse), vec4<f32>(-127.0), vec4<f32>(127.0)));
        let bytes = (bitcast<vec4<u32>>(levels) & vec4<u32>(255u)) << vec4<u32>(0u, 8u, 16u, 24u);
        file_word(is_value, to + i, bytes.x | bytes.y | bytes.z | bytes.w);
    }
    return bits;
}

fn file_piece(is_value: bool, record: u32, first: u32, count: u32) {
    let vectors = attention.head >> 2u;
    let to = record * (vectors + ((vectors + 7u) >> 3u));
    let low = file_block(is_value, to + first, 0u, min(4u, count));
    let high = file_block(is_value, to + first, 4u, max(4u, count));
    file_word(is_value, to + vectors + (first >> 3u), (low >> 16u) | high);
}
