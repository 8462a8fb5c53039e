// out[r, n] (+)= sum_k weights[n, k] * x[r, k], for several rows of x: prefill on a GPU.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// One workgroup of 256 computes a tile of 64 weight rows (x) by 64 rows of x (y), block by block: all
// decode the block's 64 x 32 weights and copy 64 x 32 activations into shared memory, then each
// invocation adds to its 4 x 4 products.
// CPU twin: compute/src/reference/ops.rs, matmul.
const SIDE: u32 = 64u;
// Columns of a block.
const COLUMNS: u32 = 32u;

@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

// Together the 16 KiB that WebGPU's smallest limit allows.
var<workgroup> weight_tile: array<f32, 2048>;
var<workgroup> x_tile: array<f32, 2048>;

// Each row has its columns in another order, so that reading down a column does not hit one memory bank.
fn place(row: u32, column: u32) -> u32 {
    return row * COLUMNS + (column ^ (row & 31u));
}

// Each invocation brings eight weights and eight activations of tile row local / 4.
fn fill(block: u32, local: u32, weight_first: u32, row_first: u32) {
    let tile_row = local >> 2u;
    let part = local & 3u;
    var w = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    let weight_row = weight_first + tile_row;
    if (weight_row < matrix.rows) {
        let levels = levels8(weight_row, block, part);
        let scale = scale_of(weight_row, block);
        w = Eight(levels.a * scale.x + scale.y, levels.b * scale.x + scale.y);
    }
    var v = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    let row = row_first + tile_row;
    if (row < x_rows()) {
        let at = row * (matrix.columns >> 2u) + block * 8u + part * 2u;
        v = Eight(x[at], x[at + 1u]);
    }
    for (var i = 0u; i < 4u; i++) {
        let to_a = place(tile_row, part * 8u + i);
        let to_b = place(tile_row, part * 8u + 4u + i);
        weight_tile[to_a] = w.a[i];
        weight_tile[to_b] = w.b[i];
        x_tile[to_a] = v.a[i];
        x_tile[to_b] = v.b[i];
    }
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let weight_first = group.x * SIDE;
    let row_first = group.y * SIDE;
    // Invocation (i, j) owns weight rows i, i + 16, .. and x rows j, j + 16, ..
    let i = local & 15u;
    let j = local >> 4u;
    var sums: array<vec4<f32>, 4>;
    for (var block = 0u; block < (matrix.columns >> 5u); block++) {
        workgroupBarrier();
        fill(block, local, weight_first, row_first);
        workgroupBarrier();
        for (var k = 0u; k < 32u; k++) {
            let w = vec4<f32>(
                weight_tile[place(i, k)],
                weight_tile[place(i + 16u, k)],
                weight_tile[place(i + 32u, k)],
                weight_tile[place(i + 48u, k)],
            );
            sums[0] += w * x_tile[place(j, k)];
            sums[1] += w * x_tile[place(j + 16u, k)];
            sums[2] += w * x_tile[place(j + 32u, k)];
            sums[3] += w * x_tile[place(j + 48u, k)];
        }
    }
    for (var c = 0u; c < 4u; c++) {
        let row = row_first + j + c * 16u;
        for (var r = 0u; r < 4u; r++) {
            let weight_row = weight_first + i + r * 16u;
            if (row < x_rows() && weight_row < matrix.rows) {
                let at = row * matrix.out_stride + matrix.out_first + matrix.row_first + weight_row;
                if (matrix.accumulate == 1u) {
                    out[at] += sums[c][r];
                } else {
                    out[at] = sums[c][r];
                }
            }
        }
    }
}
