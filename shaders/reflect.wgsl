// x[r] = x[r] - 2 (x[r] . v) v, in place: the reflection between decoder layers that Proof of Compute
// asks for (Gonka PoC v2). v is a unit vector, the same for every row.
//
// Shapes: x [step.rows, columns], v [columns]. Rows, lanes and the sum come from lib/reduce_*.wgsl.
// CPU twin: compute/src/reference/ops.rs, reflect.
struct Reflect {
    columns: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

@group(0) @binding(1) var<uniform> shape: Reflect;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let vectors = shape.columns >> 2u;
    let row = row_of(group, groups, local);
    let live = row < step_now.rows;
    let start = select(0u, row, live) * vectors;
    var product = 0.0;
    if (live) {
        for (var c = lane_of(local); c < vectors; c += LANES) {
            product += dot(x[start + c], v[c]);
        }
    }
    let twice = 2.0 * sum_over_row(product, local);
    if (live) {
        for (var c = lane_of(local); c < vectors; c += LANES) {
            x[start + c] -= twice * v[c];
        }
    }
}
