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

// Eight neighbouring levels of a block: those of its part 0, 1, 2 or 3.
//
// A weight format gives `levels8(row, block, part) -> Eight` and `scale_of(row, block) -> vec2<f32>`.
// Formats of whole numbers also give `packed8(row, block, part) -> vec2<u32>`, the part's levels as
// eight signed bytes in order, and `part_factor(row, block, part) -> i32`, a whole number that levels8
// has multiplied in and packed8 has not; it is the same for parts 0 and 1, and for 2 and 3.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn unpack_bytes(words: vec2<u32>) -> Eight {
    let shifts = vec4<u32>(0u, 8u, 16u, 24u);
    return Eight(
        vec4<f32>((vec4<u32>(words.x) >> shifts) & vec4<u32>(255u)),
        vec4<f32>((vec4<u32>(words.y) >> shifts) & vec4<u32>(255u)),
    );
}

fn unpack_signed_bytes(words: vec2<u32>) -> Eight {
    let spread = vec4<u32>(24u, 16u, 8u, 0u);
    return Eight(
        vec4<f32>((vec4<i32>(bitcast<i32>(words.x)) << spread) >> vec4<u32>(24u)),
        vec4<f32>((vec4<i32>(bitcast<i32>(words.y)) << spread) >> vec4<u32>(24u)),
    );
}
