// Turns queries and keys by their position and files keys and values in the cache:
// (a, b) -> (a cos t - b sin t, a sin t + b cos t), t = position * base^(-2i / rope).
//
// Shapes: qkv [rows, (heads + 2 kv_heads) * head], angles [positions, rope / 2] as (cos, sin) from the
// host (f64 there: shader sine and cosine are not exact enough), q [rows, heads * head], caches
// [slots, kv_heads * head]. One invocation moves one pair of one head: x counts pairs over all heads
// of a row, y counts rows.
// CPU twin: compute/src/reference/ops.rs, rope.
override WORKGROUP: u32 = 64u;

@group(0) @binding(4) var<storage, read> qkv: array<f32>;
@group(0) @binding(5) var<storage, read> angles: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> q: array<f32>;
@group(0) @binding(7) var<storage, read_write> k_cache: array<f32>;
@group(0) @binding(8) var<storage, read_write> v_cache: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let half_head = attention.head >> 1u;
    let all_heads = attention.heads + 2u * attention.kv_heads;
    let head = id.x / half_head;
    let pair = id.x % half_head;
    let row = id.y;
    if (row >= step_now.rows || head >= all_heads) {
        return;
    }
    let turned = pair < (attention.rope >> 1u);
    var at = vec2<u32>(2u * pair, 2u * pair + 1u);
    if (attention.half_split == 1u && turned) {
        at = vec2<u32>(pair, pair + (attention.rope >> 1u));
    }
    let base = (row * all_heads + head) * attention.head;
    let value = vec2<f32>(qkv[base + at.x], qkv[base + at.y]);
    let is_value = head >= attention.heads + attention.kv_heads;
    var result = value;
    if (turned && !is_value) {
        let angle = angles[position_of(row) * (attention.rope >> 1u) + pair];
        result = vec2<f32>(
            value.x * angle.x - value.y * angle.y,
            value.x * angle.y + value.y * angle.x,
        );
    }
    if (head < attention.heads) {
        let to = (row * attention.heads + head) * attention.head;
        q[to + at.x] = result.x;
        q[to + at.y] = result.y;
        return;
    }
    let slot = slot_of(row, position_of(row));
    let kv_head = (head - attention.heads) % attention.kv_heads;
    let to = (slot * attention.kv_heads + kv_head) * attention.head;
    if (is_value) {
        v_cache[to + at.x] = result.x;
        v_cache[to + at.y] = result.y;
    } else {
        k_cache[to + at.x] = result.x;
        k_cache[to + at.y] = result.y;
    }
}
