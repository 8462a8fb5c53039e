// out[r, n] (+)= sum_k weights[n, k] * x[r, k], for several rows of x: prefill on a GPU.
//
// Shapes: weights [rows, columns], x [x_rows(), columns], out [x_rows(), out_stride] at out_first.
// One workgroup of 64 computes a tile of 64 weight rows (x) by 64 rows of x (y). PARTS eights of columns at a
// time, all decode weights once into shared memory and copy activations there, both with four rows to a
// vector; then every invocation reads eight weights and eight activations of a column for 64 products.
// Shared memory: 4 KiB for each of PARTS, of which WebGPU's smallest limit allows 4. Its banks are 8 vectors
// wide on most cards: `place` spreads what eight neighbours store at once over all of them.
// Written out by hand, so that sums stay in registers.
// CPU twin: compute/src/reference/ops.rs, matmul.
override PARTS: u32 = 4u;

const SIDE: u32 = 64u;
// Groups of four rows in a tile.
const FOURS: u32 = 16u;

@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;

// [PARTS * 8 columns, FOURS] each, the fours of a part in the order of `place`.
var<workgroup> weight_tile: array<vec4<f32>, PARTS * 128u>;
var<workgroup> x_tile: array<vec4<f32>, PARTS * 128u>;

fn place(four: u32, part: u32) -> u32 {
    return four ^ (part * (8u / PARTS));
}

fn x_of(row: u32, eight: u32) -> Eight {
    let at = min(row, x_rows() - 1u) * (matrix.columns >> 2u) + eight * 2u;
    return Eight(x[at], x[at + 1u]);
}

// Column i of eight, of four rows.
fn column_low(w: Four, i: u32) -> vec4<f32> {
    return vec4<f32>(w.a.a[i], w.b.a[i], w.c.a[i], w.d.a[i]);
}

fn column_high(w: Four, i: u32) -> vec4<f32> {
    return vec4<f32>(w.a.b[i], w.b.b[i], w.c.b[i], w.d.b[i]);
}

// Brings the tiles of PARTS eights of columns from `eight` on; four rows by eight columns at a time.
fn fill(eight: u32, local: u32, weight_first: u32, x_first: u32) {
    // Rows beyond an end repeat the last one; their results are not stored.
    let last = matrix.rows - 1u;
    for (var task = local; task < FOURS * PARTS; task += 64u) {
        let four = task / PARTS;
        let part = task % PARTS;
        let row = weight_first + four * 4u;
        let block = (eight + part) >> 2u;
        let in_block = (eight + part) & 3u;
        let w = Four(
            decode(min(row, last), block, in_block),
            decode(min(row + 1u, last), block, in_block),
            decode(min(row + 2u, last), block, in_block),
            decode(min(row + 3u, last), block, in_block),
        );
        let x_row = x_first + four * 4u;
        let v = Four(
            x_of(x_row, eight + part),
            x_of(x_row + 1u, eight + part),
            x_of(x_row + 2u, eight + part),
            x_of(x_row + 3u, eight + part),
        );
        let to = part * 8u * FOURS + place(four, part);
        weight_tile[to + 0u * FOURS] = column_low(w, 0u);
        x_tile[to + 0u * FOURS] = column_low(v, 0u);
        weight_tile[to + 1u * FOURS] = column_low(w, 1u);
        x_tile[to + 1u * FOURS] = column_low(v, 1u);
        weight_tile[to + 2u * FOURS] = column_low(w, 2u);
        x_tile[to + 2u * FOURS] = column_low(v, 2u);
        weight_tile[to + 3u * FOURS] = column_low(w, 3u);
        x_tile[to + 3u * FOURS] = column_low(v, 3u);
        weight_tile[to + 4u * FOURS] = column_high(w, 0u);
        x_tile[to + 4u * FOURS] = column_high(v, 0u);
        weight_tile[to + 5u * FOURS] = column_high(w, 1u);
        x_tile[to + 5u * FOURS] = column_high(v, 1u);
        weight_tile[to + 6u * FOURS] = column_high(w, 2u);
        x_tile[to + 6u * FOURS] = column_high(v, 2u);
        weight_tile[to + 7u * FOURS] = column_high(w, 3u);
        x_tile[to + 7u * FOURS] = column_high(v, 3u);
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let weight_first = group.x * SIDE;
    let x_first = group.y * SIDE;
    // Invocation (i, j) owns the fours i and i + 8 of the weight rows, j and j + 8 of the rows of x.
    let i = local & 7u;
    let j = local >> 3u;
    var low_0 = vec4<f32>(0.0);
    var high_0 = vec4<f32>(0.0);
    var low_1 = vec4<f32>(0.0);
    var high_1 = vec4<f32>(0.0);
    var low_2 = vec4<f32>(0.0);
    var high_2 = vec4<f32>(0.0);
    var low_3 = vec4<f32>(0.0);
    var high_3 = vec4<f32>(0.0);
    var low_4 = vec4<f32>(0.0);
    var high_4 = vec4<f32>(0.0);
    var low_5 = vec4<f32>(0.0);
    var high_5 = vec4<f32>(0.0);
    var low_6 = vec4<f32>(0.0);
    var high_6 = vec4<f32>(0.0);
    var low_7 = vec4<f32>(0.0);
    var high_7 = vec4<f32>(0.0);
    for (var eight = 0u; eight < (matrix.columns >> 3u); eight += PARTS) {
        workgroupBarrier();
        fill(eight, local, weight_first, x_first);
        workgroupBarrier();
        for (var part = 0u; part < PARTS; part++) {
            let from_i = part * 8u * FOURS + place(i, part);
            let from_j = part * 8u * FOURS + place(j, part);
            for (var k = 0u; k < 8u * FOURS; k += FOURS) {
                let low = weight_tile[from_i + k];
                let high = weight_tile[(from_i ^ 8u) + k];
                let u = x_tile[from_j + k];
                let v = x_tile[(from_j ^ 8u) + k];
                low_0 += low * u.x;
                high_0 += high * u.x;
                low_1 += low * u.y;
                high_1 += high * u.y;
                low_2 += low * u.z;
                high_2 += high * u.z;
                low_3 += low * u.w;
                high_3 += high * u.w;
                low_4 += low * v.x;
                high_4 += high * v.x;
                low_5 += low * v.y;
                high_5 += high * v.y;
                low_6 += low * v.z;
                high_6 += high * v.z;
                low_7 += low * v.w;
                high_7 += high * v.w;
            }
        }
    }
    let row = weight_first + i * 4u;
    let x_row = x_first + j * 4u;
    store_four(x_row, row, low_0);
    store_four(x_row, row + 32u, high_0);
    store_four(x_row + 1u, row, low_1);
    store_four(x_row + 1u, row + 32u, high_1);
    store_four(x_row + 2u, row, low_2);
    store_four(x_row + 2u, row + 32u, high_2);
    store_four(x_row + 3u, row, low_3);
    store_four(x_row + 3u, row + 32u, high_3);
    store_four(x_row + 32u, row, low_4);
    store_four(x_row + 32u, row + 32u, high_4);
    store_four(x_row + 33u, row, low_5);
    store_four(x_row + 33u, row + 32u, high_5);
    store_four(x_row + 34u, row, low_6);
    store_four(x_row + 34u, row + 32u, high_6);
    store_four(x_row + 35u, row, low_7);
    store_four(x_row + 35u, row + 32u, high_7);
}
