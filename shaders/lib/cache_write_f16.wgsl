// Files keys and values as halves, two to a word; lib/cache_read_f16.wgsl reads them.
const PIECE: u32 = 1u;
// Beyond it a half is infinite, and one such key would make every score of its head so.
const LARGEST_HALF: vec4<f32> = vec4<f32>(65504.0);

@group(0) @binding(7) var<storage, read_write> keys: array<vec2<u32>>;
@group(0) @binding(8) var<storage, read_write> values: array<vec2<u32>>;

fn file_piece(is_value: bool, record: u32, first: u32, count: u32) {
    let bounded = clamp(piece[0], -LARGEST_HALF, LARGEST_HALF);
    let words = vec2<u32>(pack2x16float(bounded.xy), pack2x16float(bounded.zw));
    let to = record * (attention.head >> 2u) + first;
    if (is_value) {
        values[to] = words;
    } else {
        keys[to] = words;
    }
}
