// x[r, c] *= factor: the embeddings of models that want them larger.
//
// Shape: x [rows, columns]. One invocation scales one float: x counts them in a row, y counts rows.
// CPU twin: compute/src/reference/ops.rs, scale.
override WORKGROUP: u32 = 64u;

@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y >= step_now.rows || id.x >= shape.columns) {
        return;
    }
    x[id.y * shape.columns + id.x] *= shape.factor;
}
