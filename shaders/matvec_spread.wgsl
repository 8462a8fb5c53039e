// out[r, n] (+)= sum_k weights[n, k] * x[r, k], where a load is dear: on CPU drivers, whose vector lanes load
// one after the other. For X_ROWS rows of x at a time, when decoding and when prompts are read.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// An invocation multiplies four weight rows alone (lib/matvec_rows.wgsl). All need the same x: of each block
// of 32 columns each of eight neighbours in a subgroup loads four floats and hands them round, and the
// levels of a block are loaded together (block_of, levels_of; see lib/matrix.wgsl).
// A row's sums are added in the same order whatever X_ROWS is. What belongs to rows that are not stored is
// left out by the compiler.
// CPU twin: compute/src/reference/ops.rs, matmul.
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;

// A block of four weight rows.
struct Blocks {
    a: Block,
    b: Block,
    c: Block,
    d: Block,
}

fn part_of(blocks: Blocks, part: u32) -> Four {
    return Four(
        levels_of(blocks.a, part),
        levels_of(blocks.b, part),
        levels_of(blocks.c, part),
        levels_of(blocks.d, part),
    );
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
    for (var block = 0u; block < (matrix.columns >> 5u); block++) {
        let blocks = Blocks(
            block_of(rows.x, block),
            block_of(rows.y, block),
            block_of(rows.z, block),
            block_of(rows.w, block),
        );
        let at = block * 8u + (local & 7u);
        let x_0 = x[from_a.x + at];
        let x_1 = x[from_a.y + at];
        let x_2 = x[from_a.z + at];
        let x_3 = x[from_a.w + at];
        let x_4 = x[from_b.x + at];
        let x_5 = x[from_b.y + at];
        let x_6 = x[from_b.z + at];
        let x_7 = x[from_b.w + at];
        var piece_0 = Piece();
        var piece_1 = Piece();
        var piece_2 = Piece();
        var piece_3 = Piece();
        var piece_4 = Piece();
        var piece_5 = Piece();
        var piece_6 = Piece();
        var piece_7 = Piece();
        let part_0 = part_of(blocks, 0u);
        piece_0 = more(piece_0, part_0, subgroupBroadcast(x_0, 0u), subgroupBroadcast(x_0, 1u));
        piece_1 = more(piece_1, part_0, subgroupBroadcast(x_1, 0u), subgroupBroadcast(x_1, 1u));
        piece_2 = more(piece_2, part_0, subgroupBroadcast(x_2, 0u), subgroupBroadcast(x_2, 1u));
        piece_3 = more(piece_3, part_0, subgroupBroadcast(x_3, 0u), subgroupBroadcast(x_3, 1u));
        piece_4 = more(piece_4, part_0, subgroupBroadcast(x_4, 0u), subgroupBroadcast(x_4, 1u));
        piece_5 = more(piece_5, part_0, subgroupBroadcast(x_5, 0u), subgroupBroadcast(x_5, 1u));
        piece_6 = more(piece_6, part_0, subgroupBroadcast(x_6, 0u), subgroupBroadcast(x_6, 1u));
        piece_7 = more(piece_7, part_0, subgroupBroadcast(x_7, 0u), subgroupBroadcast(x_7, 1u));
        let part_1 = part_of(blocks, 1u);
        piece_0 = more(piece_0, part_1, subgroupBroadcast(x_0, 2u), subgroupBroadcast(x_0, 3u));
        piece_1 = more(piece_1, part_1, subgroupBroadcast(x_1, 2u), subgroupBroadcast(x_1, 3u));
        piece_2 = more(piece_2, part_1, subgroupBroadcast(x_2, 2u), subgroupBroadcast(x_2, 3u));
        piece_3 = more(piece_3, part_1, subgroupBroadcast(x_3, 2u), subgroupBroadcast(x_3, 3u));
        piece_4 = more(piece_4, part_1, subgroupBroadcast(x_4, 2u), subgroupBroadcast(x_4, 3u));
        piece_5 = more(piece_5, part_1, subgroupBroadcast(x_5, 2u), subgroupBroadcast(x_5, 3u));
        piece_6 = more(piece_6, part_1, subgroupBroadcast(x_6, 2u), subgroupBroadcast(x_6, 3u));
        piece_7 = more(piece_7, part_1, subgroupBroadcast(x_7, 2u), subgroupBroadcast(x_7, 3u));
        let part_2 = part_of(blocks, 2u);
        piece_0 = more(piece_0, part_2, subgroupBroadcast(x_0, 4u), subgroupBroadcast(x_0, 5u));
        piece_1 = more(piece_1, part_2, subgroupBroadcast(x_1, 4u), subgroupBroadcast(x_1, 5u));
        piece_2 = more(piece_2, part_2, subgroupBroadcast(x_2, 4u), subgroupBroadcast(x_2, 5u));
        piece_3 = more(piece_3, part_2, subgroupBroadcast(x_3, 4u), subgroupBroadcast(x_3, 5u));
        piece_4 = more(piece_4, part_2, subgroupBroadcast(x_4, 4u), subgroupBroadcast(x_4, 5u));
        piece_5 = more(piece_5, part_2, subgroupBroadcast(x_5, 4u), subgroupBroadcast(x_5, 5u));
        piece_6 = more(piece_6, part_2, subgroupBroadcast(x_6, 4u), subgroupBroadcast(x_6, 5u));
        piece_7 = more(piece_7, part_2, subgroupBroadcast(x_7, 4u), subgroupBroadcast(x_7, 5u));
        let part_3 = part_of(blocks, 3u);
        piece_0 = more(piece_0, part_3, subgroupBroadcast(x_0, 6u), subgroupBroadcast(x_0, 7u));
        piece_1 = more(piece_1, part_3, subgroupBroadcast(x_1, 6u), subgroupBroadcast(x_1, 7u));
        piece_2 = more(piece_2, part_3, subgroupBroadcast(x_2, 6u), subgroupBroadcast(x_2, 7u));
        piece_3 = more(piece_3, part_3, subgroupBroadcast(x_3, 6u), subgroupBroadcast(x_3, 7u));
        piece_4 = more(piece_4, part_3, subgroupBroadcast(x_4, 6u), subgroupBroadcast(x_4, 7u));
        piece_5 = more(piece_5, part_3, subgroupBroadcast(x_5, 6u), subgroupBroadcast(x_5, 7u));
        piece_6 = more(piece_6, part_3, subgroupBroadcast(x_6, 6u), subgroupBroadcast(x_6, 7u));
        piece_7 = more(piece_7, part_3, subgroupBroadcast(x_7, 6u), subgroupBroadcast(x_7, 7u));
        let scales = scales_of(rows, block);
        sums_0 += scaled(piece_0, scales);
        sums_1 += scaled(piece_1, scales);
        sums_2 += scaled(piece_2, scales);
        sums_3 += scaled(piece_3, scales);
        sums_4 += scaled(piece_4, scales);
        sums_5 += scaled(piece_5, scales);
        sums_6 += scaled(piece_6, scales);
        sums_7 += scaled(piece_7, scales);
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
