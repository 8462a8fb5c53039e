// scores[r, h, p] = scale q[r, h] . k[p, h'], softcapped, for every position p the row may see.
//
// Shapes: q [rows, heads, head], k_cache [slots, kv_heads, head], scores [rows, heads, kv_length].
// One invocation computes one score: x counts positions, y counts rows * heads.
// CPU twin: compute/src/reference/ops.rs, attention.
override WORKGROUP: u32 = 64u;

@group(0) @binding(4) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> k_cache: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let position = id.x;
    let row = id.y / attention.heads;
    let head = id.y % attention.heads;
    if (row >= step_now.rows) {
        return;
    }
    let own = position_of(row);
    if (position > own || position < first_seen(own)) {
        return;
    }
    let vectors = attention.head >> 2u;
    let kv_head = head / (attention.heads / attention.kv_heads);
    let from_q = id.y * vectors;
    let from_k = (slot_of(row, position) * attention.kv_heads + kv_head) * vectors;
    var sum = 0.0;
    for (var i = 0u; i < vectors; i++) {
        sum += dot(q[from_q + i], k_cache[from_k + i]);
    }
    scores[id.y * step_now.kv_length + position] = score_of(sum);
}
