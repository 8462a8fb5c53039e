// out[r, c] = x[s, c] * weight[c] / sqrt(mean_c(x[s, c]^2) + epsilon).
//
// Shapes: x [.., columns], weight [columns], out [rows, columns]. s = r, or the step's selection of
// rows (the last token of each sequence) when `selecting` is 1. Rows, lanes and the sum come from
// lib/reduce_*.wgsl. Four columns at a time: columns is a multiple of 4.
// CPU twin: compute/src/reference/ops.rs, rms_norm.
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let vectors = norm.columns >> 2u;
    let row = row_of(group, groups, local);
    let selecting = norm.selecting == 1u;
    let live = row < select(step_now.rows, step_now.selected, selecting);
    var chosen = select(0u, row, live);
    if (selecting) {
        chosen = selected_row(chosen);
    }
    let from_start = chosen * vectors;
    var squares = 0.0;
    if (live) {
        for (var c = lane_of(local); c < vectors; c += LANES) {
            let v = x[from_start + c];
            squares += dot(v, v);
        }
    }
    let scale = inverseSqrt(sum_over_row(squares, local) / f32(norm.columns) + norm.epsilon);
    if (live) {
        for (var c = lane_of(local); c < vectors; c += LANES) {
            out[row * vectors + c] = x[from_start + c] * scale * weight[c];
        }
    }
}
