// out[r, n] (+)= sum_k weights[n, k] * x[r, k]: decoding, for X_ROWS rows of x at a time.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// Who computes what is in lib/matvec_rows.wgsl. A row's sums are added in the same order whatever
// X_ROWS is, so a token's result does not depend on its neighbours.
// Written out by hand: loops over arrays are not unrolled on lavapipe.
// CPU twin: compute/src/reference/ops.rs, matmul.
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;

// The same eight columns of four weight rows.
struct Four {
    a: Eight,
    b: Eight,
    c: Eight,
    d: Eight,
}

// One row of x over part of a block: products with the levels, and the sum that offsets multiply.
struct Piece {
    dots: vec4<f32>,
    total: vec4<f32>,
}

fn product(levels: Eight, low: vec4<f32>, high: vec4<f32>) -> f32 {
    return dot(levels.a, low) + dot(levels.b, high);
}

fn more(piece: Piece, w: Four, at: u32) -> Piece {
    let low = x[at];
    let high = x[at + 1u];
    let dots = vec4<f32>(
        product(w.a, low, high),
        product(w.b, low, high),
        product(w.c, low, high),
        product(w.d, low, high),
    );
    return Piece(piece.dots + dots, piece.total + (low + high));
}

fn scaled(piece: Piece, scale: vec4<f32>, offset: vec4<f32>) -> vec4<f32> {
    let total = piece.total.x + piece.total.y + piece.total.z + piece.total.w;
    return scale * piece.dots + offset * total;
}

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
            piece_0 = more(piece_0, w, from_a.x + at);
            if (X_ROWS > 1u) {
                piece_1 = more(piece_1, w, from_a.y + at);
            }
            if (X_ROWS > 2u) {
                piece_2 = more(piece_2, w, from_a.z + at);
                piece_3 = more(piece_3, w, from_a.w + at);
            }
            if (X_ROWS > 4u) {
                piece_4 = more(piece_4, w, from_b.x + at);
                piece_5 = more(piece_5, w, from_b.y + at);
                piece_6 = more(piece_6, w, from_b.z + at);
                piece_7 = more(piece_7, w, from_b.w + at);
            }
        }
        let a = scale_of(rows.x, block);
        let b = scale_of(rows.y, block);
        let c = scale_of(rows.z, block);
        let d = scale_of(rows.w, block);
        let scale = vec4<f32>(a.x, b.x, c.x, d.x);
        let offset = vec4<f32>(a.y, b.y, c.y, d.y);
        sums_0 += scaled(piece_0, scale, offset);
        if (X_ROWS > 1u) {
            sums_1 += scaled(piece_1, scale, offset);
        }
        if (X_ROWS > 2u) {
            sums_2 += scaled(piece_2, scale, offset);
            sums_3 += scaled(piece_3, scale, offset);
        }
        if (X_ROWS > 4u) {
            sums_4 += scaled(piece_4, scale, offset);
            sums_5 += scaled(piece_5, scale, offset);
            sums_6 += scaled(piece_6, scale, offset);
            sums_7 += scaled(piece_7, scale, offset);
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
