// out[r, s, n] = sum_k weights[e(r, s), n, k] * x[r(, s), k], for tiles of pairs (r, s) with the same
// expert: prefill on a CPU adapter.
//
// Shapes: weights [experts * expert_rows, columns] in any format, a shard of them; pairs and tiles from
// group_experts.wgsl with TILE 8; x [rows, columns] or [rows, used, columns]; out [rows, out_stride] at
// out_first. One invocation computes four rows of the expert (x) against the pairs of a tile (y), so
// that weights are decoded once for eight pairs; see matmul_lane.wgsl.
// CPU twin: compute/src/reference/ops.rs, matmul.
override WORKGROUP: u32 = 8u;

@group(0) @binding(5) var<storage, read> pairs: array<u32>;
@group(0) @binding(6) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;

fn products(w: Four, at: u32) -> vec4<f32> {
    let low = x[at];
    let high = x[at + 1u];
    return vec4<f32>(
        dot(w.a.a, low) + dot(w.a.b, high),
        dot(w.b.a, low) + dot(w.b.b, high),
        dot(w.c.a, low) + dot(w.c.b, high),
        dot(w.d.a, low) + dot(w.d.b, high),
    );
}

// Pairs beyond the tile's end repeat the last; their results are not stored.
fn pairs_of(tile: vec4<u32>, first: u32) -> vec4<u32> {
    let entry = tile.y + min(vec4<u32>(0u, 1u, 2u, 3u) + first, vec4<u32>(tile.z - 1u));
    return vec4<u32>(pairs[entry.x], pairs[entry.y], pairs[entry.z], pairs[entry.w]);
}

fn store(kept: bool, pair: u32, tile: vec4<u32>, first: u32, values: vec4<f32>) {
    if (!kept) {
        return;
    }
    let to = out_of(pair, first);
    let whole = tile.x * experts.expert_rows + first;
    for (var i = 0u; i < min(4u, experts.expert_rows - first); i++) {
        if (in_shard(whole + i)) {
            out[to + i] = values[i];
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
) {
    let first = id.x * 4u;
    if (group.y >= tiles[0].x || first >= experts.expert_rows) {
        return;
    }
    let tile = tiles[1u + group.y];
    let whole = tile.x * experts.expert_rows + first + vec4<u32>(0u, 1u, 2u, 3u);
    let begin = vec4<u32>(matrix.row_first);
    // Rows of another shard repeat one of this; their results are not stored.
    let rows = min(max(whole, begin) - begin, vec4<u32>(matrix.rows - 1u));
    let pairs_a = pairs_of(tile, 0u);
    let pairs_b = pairs_of(tile, 4u);
    let from_a = vec4<u32>(x_of(pairs_a.x), x_of(pairs_a.y), x_of(pairs_a.z), x_of(pairs_a.w));
    let from_b = vec4<u32>(x_of(pairs_b.x), x_of(pairs_b.y), x_of(pairs_b.z), x_of(pairs_b.w));
    let both = tile.z > 4u;
    var sums_0 = vec4<f32>(0.0);
    var sums_1 = vec4<f32>(0.0);
    var sums_2 = vec4<f32>(0.0);
    var sums_3 = vec4<f32>(0.0);
    var sums_4 = vec4<f32>(0.0);
    var sums_5 = vec4<f32>(0.0);
    var sums_6 = vec4<f32>(0.0);
    var sums_7 = vec4<f32>(0.0);
    for (var eight = 0u; eight < (matrix.columns >> 3u); eight++) {
        let block = eight >> 2u;
        let part = eight & 3u;
        let w = Four(
            decode(rows.x, block, part),
            decode(rows.y, block, part),
            decode(rows.z, block, part),
            decode(rows.w, block, part),
        );
        let at = eight * 2u;
        sums_0 += products(w, from_a.x + at);
        sums_1 += products(w, from_a.y + at);
        sums_2 += products(w, from_a.z + at);
        sums_3 += products(w, from_a.w + at);
        if (both) {
            sums_4 += products(w, from_b.x + at);
            sums_5 += products(w, from_b.y + at);
            sums_6 += products(w, from_b.z + at);
            sums_7 += products(w, from_b.w + at);
        }
    }
    store(true, pairs_a.x, tile, first, sums_0);
    store(tile.z > 1u, pairs_a.y, tile, first, sums_1);
    store(tile.z > 2u, pairs_a.z, tile, first, sums_2);
    store(tile.z > 3u, pairs_a.w, tile, first, sums_3);
    store(both, pairs_b.x, tile, first, sums_4);
    store(tile.z > 5u, pairs_b.y, tile, first, sums_5);
    store(tile.z > 6u, pairs_b.z, tile, first, sums_6);
    store(tile.z > 7u, pairs_b.w, tile, first, sums_7);
}
