// x[r, c] = activation(x[r, c] + bias[c]).
//
// Shapes: bias [columns], x [rows, columns]. One invocation computes four neighbouring floats: x counts
// them in a row, y counts rows. The activation comes from lib/activation_*.wgsl.
// CPU twin: compute/src/reference/encoder.rs, activate.
override WORKGROUP: u32 = 64u;

struct Activate {
    columns: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

@group(0) @binding(1) var<uniform> shape: Activate;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let vectors = shape.columns >> 2u;
    if (id.y >= step_now.rows || id.x >= vectors) {
        return;
    }
    let at = id.y * vectors + id.x;
    x[at] = activation(x[at] + bias[id.x]);
}
