// scores[r, h, p] = exp(s_p - max s) / sum exp(s - max s), over the positions the row may see.
//
// Shapes: scores [rows * heads, kv_length], in place; entries beyond the row's position are not read.
// Rows, lanes and the reductions come from lib/reduce_*.wgsl.
// CPU twin: compute/src/reference/ops.rs, softmax.
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let line = row_of(group, groups, local);
    let live = line < step_now.rows * attention.heads;
    let own = position_of(select(0u, line / attention.heads, live));
    let first = first_seen(own);
    let length = select(0u, own + 1u, live);
    let start = line * step_now.kv_length;
    var largest = -3.4e38;
    for (var p = first + lane_of(local); p < length; p += LANES) {
        largest = max(largest, scores[start + p]);
    }
    largest = max_over_row(largest, local);
    var sum = 0.0;
    for (var p = first + lane_of(local); p < length; p += LANES) {
        let e = exp(scores[start + p] - largest);
        scores[start + p] = e;
        sum += e;
    }
    sum = sum_over_row(sum, local);
    for (var p = first + lane_of(local); p < length; p += LANES) {
        scores[start + p] /= sum;
    }
}
