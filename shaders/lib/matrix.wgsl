// One shard of a weight matrix: `rows` rows of `columns` weights, the first being row `row_first` of
// the whole. Weights come in blocks of 32 (a row is a whole number of them), each block with a scale
// and an offset: weight = level * scale.x + scale.y.
struct Matrix {
    columns: u32,
    rows: u32,
    row_first: u32,
    // Floats per row of the result, and where in it this matrix's first row goes.
    out_stride: u32,
    out_first: u32,
    // 1: add to what is there (residual); 0: overwrite.
    accumulate: u32,
    // 1: the activations are the step's selected rows; 0: all of its rows.
    selecting: u32,
    padding: u32,
}

@group(0) @binding(1) var<uniform> matrix: Matrix;

fn x_rows() -> u32 {
    return select(step_now.rows, step_now.selected, matrix.selecting == 1u);
}

// Eight neighbouring levels of a block.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}
