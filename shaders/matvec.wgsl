// out[r, n] (+)= sum_k weights[n, k] * x[r, k]: decoding, for X_ROWS rows of x at a time.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// Who computes what is in lib/matvec_rows.wgsl. A row's sums are added in the same order whatever
// X_ROWS is, so a token's result does not depend on its neighbours.
// Written out by hand: loops over arrays are not unrolled on lavapipe.
// CPU twin: compute/src/reference/ops.rs, matmul.
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = first_row(group, groups, local);
    let x_first = group.z * X_ROWS;
    let rows = four_of(first, matrix.rows);
    let from_a = four_of(x_first, x_rows()) * (matrix.columns >> 2u);
    let from_b = four_of(x_first + 4u, x_rows()) * (matrix.columns >> 2u);
    var sums_0 = vec4<f32>(0.0);
    var sums_1 = vec4<f32>(0.0);
    var sums_2 = vec4<f32>(0.0);
    var sums_3 = vec4<f32>(0.0);
    var sums_4 = vec4<f32>(0.0);
    var sums_5 = vec4<f32>(0.0);
    var sums_6 = vec4<f32>(0.0);
    var sums_7 = vec4<f32>(0.0);
    // Lanes without rows skip the work but not the barriers.
    let end = select(0u, (matrix.columns >> 3u) / PARTS, first < matrix.rows);
    for (var unit = local % LANES; unit < end; unit += LANES) {
        let block = unit * PARTS >> 2u;
        let part_first = unit * PARTS & 3u;
        var piece_0 = Piece();
        var piece_1 = Piece();
        var piece_2 = Piece();
        var piece_3 = Piece();
        var piece_4 = Piece();
        var piece_5 = Piece();
        var piece_6 = Piece();
        var piece_7 = Piece();
        for (var i = 0u; i < PARTS; i++) {
            let part = part_first + i;
            let at = block * 8u + part * 2u;
            let w = Four(
                levels8(rows.x, block, part),
                levels8(rows.y, block, part),
                levels8(rows.z, block, part),
                levels8(rows.w, block, part),
            );
            piece_0 = more(piece_0, w, x[from_a.x + at], x[from_a.x + at + 1u]);
            if (X_ROWS > 1u) {
                piece_1 = more(piece_1, w, x[from_a.y + at], x[from_a.y + at + 1u]);
            }
            if (X_ROWS > 2u) {
                piece_2 = more(piece_2, w, x[from_a.z + at], x[from_a.z + at + 1u]);
                piece_3 = more(piece_3, w, x[from_a.w + at], x[from_a.w + at + 1u]);
            }
            if (X_ROWS > 4u) {
                piece_4 = more(piece_4, w, x[from_b.x + at], x[from_b.x + at + 1u]);
                piece_5 = more(piece_5, w, x[from_b.y + at], x[from_b.y + at + 1u]);
                piece_6 = more(piece_6, w, x[from_b.z + at], x[from_b.z + at + 1u]);
                piece_7 = more(piece_7, w, x[from_b.w + at], x[from_b.w + at + 1u]);
            }
        }
        let scales = scales_of(rows, block);
        sums_0 += scaled(piece_0, scales);
        if (X_ROWS > 1u) {
            sums_1 += scaled(piece_1, scales);
        }
        if (X_ROWS > 2u) {
            sums_2 += scaled(piece_2, scales);
            sums_3 += scaled(piece_3, scales);
        }
        if (X_ROWS > 4u) {
            sums_4 += scaled(piece_4, scales);
            sums_5 += scaled(piece_5, scales);
            sums_6 += scaled(piece_6, scales);
            sums_7 += scaled(piece_7, scales);
        }
    }
    store(x_first, first, sums_0, local);
    if (X_ROWS > 1u) {
        store(x_first + 1u, first, sums_1, local);
    }
    if (X_ROWS > 2u) {
        store(x_first + 2u, first, sums_2, local);
        store(x_first + 3u, first, sums_3, local);
    }
    if (X_ROWS > 4u) {
        store(x_first + 4u, first, sums_4, local);
        store(x_first + 5u, first, sums_5, local);
        store(x_first + 6u, first, sums_6, local);
        store(x_first + 7u, first, sums_7, local);
    }
}
