// out[r, c] = activation(gate[r, c]) * up[r, c]; the activation is one of lib/activation_*.wgsl.
//
// Shapes: gate_up [rows, 2 * columns] with the gate first, out [rows, columns]. One invocation
// computes four neighbouring floats: x counts them in a row, y counts rows.
// CPU twins: compute/src/reference/ops.rs, silu_mul and gelu_mul.
override WORKGROUP: u32 = 64u;

struct Gate {
    columns: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

@group(0) @binding(1) var<uniform> shape: Gate;
@group(0) @binding(2) var<storage, read> gate_up: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let vectors = shape.columns >> 2u;
    if (id.y >= step_now.rows || id.x >= vectors) {
        return;
    }
    let gate = gate_up[id.y * 2u * vectors + id.x];
    let up = gate_up[id.y * 2u * vectors + vectors + id.x];
    out[id.y * vectors + id.x] = activation(gate) * up;
}
