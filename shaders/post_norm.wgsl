// x[r, c] += branch[r, c] * weight[c] / sqrt(mean_c(branch[r, c]^2) + epsilon).
//
// Shapes: branch and x [rows, columns], weight [columns]. Rows, lanes and the sum come from
// lib/reduce_*.wgsl. Four columns at a time: columns is a multiple of 4.
// CPU twin: compute/src/reference/ops.rs, rms_norm and add.
@group(0) @binding(2) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let vectors = norm.columns >> 2u;
    let row = row_of(group, groups, local);
    let live = row < step_now.rows;
    let from_start = select(0u, row, live) * vectors;
    var squares = 0.0;
    if (live) {
        for (var c = lane_of(local); c < vectors; c += LANES) {
            let v = branch[from_start + c];
            squares += dot(v, v);
        }
    }
    let scale = inverseSqrt(sum_over_row(squares, local) / f32(norm.columns) + norm.epsilon);
    if (live) {
        for (var c = lane_of(local); c < vectors; c += LANES) {
            x[from_start + c] += branch[from_start + c] * scale * weight[c];
        }
    }
}
