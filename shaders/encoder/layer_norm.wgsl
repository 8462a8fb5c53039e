// x[r] = layer_norm(x[r] + branch[r] + bias): the end of every branch of an encoder, whose norms come
// after the sums. layer_norm(v)[c] = (v[c] - mean(v)) / sqrt(variance(v) + epsilon) * gain[c] + shift[c].
//
// Shapes: branch and x [rows, columns], vectors [3, columns]: bias, gain, shift. Rows, lanes and the
// sums come from lib/reduce_*.wgsl, columns and epsilon from lib/norm_shape.wgsl.
// CPU twin: compute/src/reference/encoder.rs, layer_norm.
@group(0) @binding(2) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let width = norm.columns >> 2u;
    let row = row_of(group, groups, local);
    let live = row < step_now.rows;
    let from_start = select(0u, row, live) * width;
    var sum = 0.0;
    if (live) {
        for (var c = lane_of(local); c < width; c += LANES) {
            let v = x[from_start + c] + branch[from_start + c] + vectors[c];
            x[from_start + c] = v;
            sum += v.x + v.y + v.z + v.w;
        }
    }
    let mean = sum_over_row(sum, local) / f32(norm.columns);
    // A lane reads back only what it wrote itself.
    var squares = 0.0;
    if (live) {
        for (var c = lane_of(local); c < width; c += LANES) {
            let v = x[from_start + c] - mean;
            squares += dot(v, v);
        }
    }
    let scale = inverseSqrt(sum_over_row(squares, local) / f32(norm.columns) + norm.epsilon);
    if (live) {
        for (var c = lane_of(local); c < width; c += LANES) {
            let v = (x[from_start + c] - mean) * scale;
            x[from_start + c] = v * vectors[width + c] + vectors[2u * width + c];
        }
    }
}
