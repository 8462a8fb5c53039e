// Turns queries and keys by their position and files keys and values in the cache:
// (a, b) -> (a cos t - b sin t, a sin t + b cos t), t = position * base^(-2i / rope).
//
// Shapes: qkv [rows, (heads + 2 kv_heads) * head], angles [positions, rope / 2] as (cos, sin) from the
// host (f64 there: shader sine and cosine are not exact enough), q [rows, heads * head], caches
// [slots, kv_heads] records (lib/cache_write_*.wgsl). One invocation makes PIECE neighbouring vectors of
// four floats of one head, so that it alone writes their words: x counts pieces over all heads of a
// row, y counts rows.
// CPU twins: compute/src/reference/ops.rs, rope, and compute/src/reference/cache.rs.
override WORKGROUP: u32 = 64u;

@group(0) @binding(4) var<storage, read> qkv: array<f32>;
@group(0) @binding(5) var<storage, read> angles: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> q: array<vec4<f32>>;

// What this invocation made; lib/cache_write_*.wgsl files it.
var<private> piece: array<vec4<f32>, PIECE>;

// Float i of the head that begins at `base`, turned with the other of its pair.
fn turned(base: u32, i: u32, position: u32) -> f32 {
    let own = qkv[base + i];
    if (i >= attention.rope) {
        return own;
    }
    let pairs = attention.rope >> 1u;
    var pair = i >> 1u;
    var partner = i ^ 1u;
    var second = (i & 1u) == 1u;
    if (attention.half_split == 1u) {
        second = i >= pairs;
        pair = select(i, i - pairs, second);
        partner = select(i + pairs, i - pairs, second);
    }
    let angle = angles[position * pairs + pair];
    let other = qkv[base + partner];
    return own * angle.x + select(-other, other, second) * angle.y;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let vectors = attention.head >> 2u;
    let pieces = (vectors + PIECE - 1u) / PIECE;
    let all_heads = attention.heads + 2u * attention.kv_heads;
    let head = id.x / pieces;
    let first = id.x % pieces * PIECE;
    let row = id.y;
    if (row >= step_now.rows || head >= all_heads) {
        return;
    }
    let base = (row * all_heads + head) * attention.head;
    let is_value = head >= attention.heads + attention.kv_heads;
    let position = position_of(row);
    let count = min(PIECE, vectors - first);
    for (var v = 0u; v < count; v++) {
        let i = (first + v) * 4u;
        if (is_value) {
            let at = base + i;
            piece[v] = vec4<f32>(qkv[at], qkv[at + 1u], qkv[at + 2u], qkv[at + 3u]);
        } else {
            piece[v] = vec4<f32>(
                turned(base, i, position),
                turned(base, i + 1u, position),
                turned(base, i + 2u, position),
                turned(base, i + 3u, position),
            );
        }
    }
    if (head < attention.heads) {
        let to = (row * attention.heads + head) * vectors + first;
        for (var v = 0u; v < count; v++) {
            q[to + v] = piece[v];
        }
        return;
    }
    let kv_head = (head - attention.heads) % attention.kv_heads;
    file_piece(is_value, slot_of(row, position) * attention.kv_heads + kv_head, first, count);
}
