// qkv[r, h] = qkv[r, h] * weight[h'] / sqrt(mean(qkv[r, h]^2) + epsilon), in place, for every head h of
// the queries and keys.
//
// Shapes: qkv [rows, (heads + 2 kv_heads) * head], weight [2, head]: that of queries, then that of
// keys. Values are left alone. A line is one head of one row; lines, lanes and the sum come from
// lib/reduce_*.wgsl. Four floats at a time: head is a multiple of 4.
// CPU twin: compute/src/reference/ops.rs, rms_norm.
struct HeadNorm {
    heads: u32,
    kv_heads: u32,
    head: u32,
    epsilon: f32,
}

@group(0) @binding(1) var<uniform> norm: HeadNorm;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> qkv: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let vectors = norm.head >> 2u;
    let normed_heads = norm.heads + norm.kv_heads;
    let line = row_of(group, groups, local);
    let live = line < step_now.rows * normed_heads;
    let row = line / normed_heads;
    let head = line % normed_heads;
    let from_start = select(0u, row * (normed_heads + norm.kv_heads) + head, live) * vectors;
    let from_weight = select(0u, vectors, head >= norm.heads);
    var squares = 0.0;
    if (live) {
        for (var c = lane_of(local); c < vectors; c += LANES) {
            let v = qkv[from_start + c];
            squares += dot(v, v);
        }
    }
    let scale = inverseSqrt(sum_over_row(squares, local) / f32(norm.head) + norm.epsilon);
    if (live) {
        for (var c = lane_of(local); c < vectors; c += LANES) {
            qkv[from_start + c] = qkv[from_start + c] * scale * weight[from_weight + c];
        }
    }
}
