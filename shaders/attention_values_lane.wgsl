// out[r, h] = sum_p weights[r, h, p] * v[p, h'], over the positions the row may see.
//
// Shapes: weights [rows, heads, kv_length], v_cache [slots, kv_heads, head], out [rows, heads, head].
// One invocation computes four neighbouring floats alone, for CPU adapters: x counts them over the
// heads of a row, y counts rows.
// CPU twin: compute/src/reference/ops.rs, attention.
override WORKGROUP: u32 = 64u;

@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> v_cache: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let vectors = attention.head >> 2u;
    let head = id.x / vectors;
    let row = id.y;
    if (row >= step_now.rows || head >= attention.heads) {
        return;
    }
    let kv_head = head / (attention.heads / attention.kv_heads);
    let stride = attention.kv_heads * vectors;
    let from_v = kv_head * vectors + id.x % vectors;
    let from_w = (row * attention.heads + head) * step_now.kv_length;
    let own = position_of(row);
    var sum = vec4<f32>(0.0);
    for (var p = first_seen(own); p <= own; p++) {
        sum += weights[from_w + p] * v_cache[from_v + slot_of(row, p) * stride];
    }
    out[row * attention.heads * vectors + id.x] = sum;
}
