// out[r, h] = sum_p weights[r, h, p] * v[p, h'], over the positions the row may see.
//
// Shapes: weights [rows, heads, kv_length], v_cache [slots, kv_heads, head], out [rows, heads, head].
// One workgroup computes one head (x) of one row (y). Neighbouring invocations take neighbouring
// vectors of the head; as many such strands as fit share the positions, and the first adds them up.
// CPU twin: compute/src/reference/ops.rs, attention.
override WORKGROUP: u32 = 256u;

@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> v_cache: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> partial: array<vec4<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let head = group.x;
    let row = group.y;
    let vectors = attention.head >> 2u;
    let strands = WORKGROUP / vectors;
    let strand = local / vectors;
    let vector = local % vectors;
    let kv_head = head / (attention.heads / attention.kv_heads);
    let stride = attention.kv_heads * vectors;
    let from_v = kv_head * vectors + vector;
    let from_w = (row * attention.heads + head) * step_now.kv_length;
    // Leftover invocations of an uneven split see no position.
    let length = select(0u, position_of(row) + 1u, strand < strands);
    var sum = vec4<f32>(0.0);
    for (var p = first_seen(position_of(row)) + strand; p < length; p += strands) {
        sum += weights[from_w + p] * v_cache[from_v + slot_of(row, p) * stride];
    }
    partial[local] = sum;
    workgroupBarrier();
    if (strand == 0u) {
        for (var other = 1u; other < strands; other++) {
            sum += partial[other * vectors + vector];
        }
        out[(row * attention.heads + head) * vectors + vector] = sum;
    }
}
