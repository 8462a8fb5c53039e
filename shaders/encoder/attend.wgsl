// out[r, h] = softmax_j(q[r, h] . k[j, h] / sqrt(head)) v[j, h] over all rows j of r's own text, before
// and behind it, in one go: the running maximum of the scores rescales what was summed before (online
// softmax), so no score is stored.
//
// Shapes: qkv [rows, 3, heads, head], out [rows, heads, head]. One invocation computes one row (y, with
// its place in the workgroup) of one head (x), without a barrier: its neighbours read the same keys. The
// query and the sum are in registers, VECTORS times four floats, VECTORS at most 32. A row's result
// depends on its own text alone.
// CPU twin: compute/src/reference/encoder.rs, attend.
override WORKGROUP: u32 = 64u;
// head / 4
override VECTORS: u32 = 32u;

const LOWEST: f32 = -3.4e38;

struct Attend {
    heads: u32,
    head: u32,
    // Usually 1 / sqrt(head).
    score_scale: f32,
    padding: u32,
}

@group(0) @binding(1) var<uniform> shape: Attend;
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y * WORKGROUP + local;
    let head = group.x;
    if (row >= step_now.rows || head >= shape.heads) {
        return;
    }
    let width = shape.heads * VECTORS;
    let text = text_of(row);
    let from_q = row * 3u * width + head * VECTORS;
    var q: array<vec4<f32>, 32>;
    var sum: array<vec4<f32>, 32>;
    for (var i = 0u; i < VECTORS; i++) {
        q[i] = qkv[from_q + i] * shape.score_scale;
        sum[i] = vec4<f32>(0.0);
    }
    var largest = LOWEST;
    var total = 0.0;
    for (var j = text.first; j < text.first + text.count; j++) {
        let from_k = (j * 3u + 1u) * width + head * VECTORS;
        var score = 0.0;
        for (var i = 0u; i < VECTORS; i++) {
            score += dot(q[i], qkv[from_k + i]);
        }
        let now = max(largest, score);
        let keep = exp(largest - now);
        let weight = exp(score - now);
        largest = now;
        total = total * keep + weight;
        for (var i = 0u; i < VECTORS; i++) {
            sum[i] = sum[i] * keep + weight * qkv[from_k + width + i];
        }
    }
    for (var i = 0u; i < VECTORS; i++) {
        out[row * width + head * VECTORS + i] = sum[i] / total;
    }
}
