// Where the sums of a product go: four neighbouring weight rows for one row of x.
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

// Rows beyond an end are left out.
fn store_four(x_row: u32, first: u32, values: vec4<f32>) {
    if (x_row >= x_rows() || first >= matrix.rows) {
        return;
    }
    let at = x_row * matrix.out_stride + matrix.out_first + matrix.row_first + first;
    for (var i = 0u; i < min(4u, matrix.rows - first); i++) {
        if (matrix.accumulate == 1u) {
            out[at + i] += values[i];
        } else {
            out[at + i] = values[i];
        }
    }
}
