// Files keys and values as floats; lib/cache_read_f32.wgsl reads them.
const PIECE: u32 = 1u;

@group(0) @binding(7) var<storage, read_write> keys: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> values: array<vec4<f32>>;

fn file_piece(is_value: bool, record: u32, first: u32, count: u32) {
    let to = record * (attention.head >> 2u) + first;
    if (is_value) {
        values[to] = piece[0];
    } else {
        keys[to] = piece[0];
    }
}
