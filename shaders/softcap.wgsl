// x[r, c] = factor * tanh(x[r, c] / factor): bounds logits softly.
//
// Shape: x [selected rows, columns]. One invocation bounds one float: x counts them in a row, y counts
// the step's selected rows.
// CPU twin: compute/src/reference/ops.rs, softcap.
override WORKGROUP: u32 = 64u;

@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y >= step_now.selected || id.x >= shape.columns) {
        return;
    }
    let at = id.y * shape.columns + id.x;
    // tanh is 1 to the last bit beyond 9, and some drivers make it of exponentials that overflow.
    x[at] = shape.factor * tanh(clamp(x[at] / shape.factor, -10.0, 10.0));
}
