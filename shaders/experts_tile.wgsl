// out[r, s, n] = sum_k weights[e(r, s), n, k] * x[r(, s), k], for tiles of pairs (r, s) with the same
// expert: prefill on a GPU.
//
// Shapes: weights [experts * expert_rows, columns] in any format, a shard of them; pairs and tiles from
// group_experts.wgsl with TILE 16; x [rows, columns] or [rows, used, columns]; out [rows, out_stride] at
// out_first. One workgroup of 256 computes 64 rows of the expert (x) against the 16 pairs of a tile (y),
// block by block: all decode the block's 64 x 32 weights and some copy its 16 x 32 activations into
// shared memory, then each invocation adds to its four products.
// CPU twin: compute/src/reference/ops.rs, matmul.
const SIDE: u32 = 64u;
const PAIRS: u32 = 16u;
// One more than a block, so that reading down a column does not hit one memory bank.
const PITCH: u32 = 33u;

@group(0) @binding(5) var<storage, read> pairs: array<u32>;
@group(0) @binding(6) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;

var<workgroup> weight_tile: array<f32, 2112>;
var<workgroup> x_tile: array<f32, 528>;

fn put(to: u32, values: Eight, is_weight: bool) {
    for (var i = 0u; i < 4u; i++) {
        if (is_weight) {
            weight_tile[to + i] = values.a[i];
            weight_tile[to + 4u + i] = values.b[i];
        } else {
            x_tile[to + i] = values.a[i];
            x_tile[to + 4u + i] = values.b[i];
        }
    }
}

// Each invocation brings eight weights of tile row local / 4; the first quarter, eight activations too.
fn fill(block: u32, local: u32, tile: vec4<u32>, first: u32) {
    let tile_row = local >> 2u;
    let part = local & 3u;
    let to = tile_row * PITCH + part * 8u;
    var w = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    let whole_row = tile.x * experts.expert_rows + first + tile_row;
    if (first + tile_row < experts.expert_rows && in_shard(whole_row)) {
        let row = whole_row - matrix.row_first;
        let levels = levels8(row, block, part);
        let scale = scale_of(row, block);
        w = Eight(levels.a * scale.x + scale.y, levels.b * scale.x + scale.y);
    }
    put(to, w, true);
    if (tile_row < PAIRS) {
        var v = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
        if (tile_row < tile.z) {
            let at = x_of(pairs[tile.y + tile_row]) + block * 8u + part * 2u;
            v = Eight(x[at], x[at + 1u]);
        }
        put(to, v, false);
    }
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    if (group.y >= tiles[0].x) {
        return;
    }
    let tile = tiles[1u + group.y];
    let first = group.x * SIDE;
    // Invocation (i, j) owns rows i, i + 16, .. of the expert and pair j.
    let i = local & 15u;
    let j = local >> 4u;
    var sums = vec4<f32>(0.0);
    for (var block = 0u; block < (matrix.columns >> 5u); block++) {
        workgroupBarrier();
        fill(block, local, tile, first);
        workgroupBarrier();
        for (var k = 0u; k < 32u; k++) {
            let w = vec4<f32>(
                weight_tile[i * PITCH + k],
                weight_tile[(i + 16u) * PITCH + k],
                weight_tile[(i + 32u) * PITCH + k],
                weight_tile[(i + 48u) * PITCH + k],
            );
            sums += w * x_tile[j * PITCH + k];
        }
    }
    if (j >= tile.z) {
        return;
    }
    let to = out_of(pairs[tile.y + j], first);
    for (var r = 0u; r < 4u; r++) {
        let n = i + r * 16u;
        if (first + n < experts.expert_rows && in_shard(tile.x * experts.expert_rows + first + n)) {
            out[to + n] = sums[r];
        }
    }
}
