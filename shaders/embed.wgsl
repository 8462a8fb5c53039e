// out[r, c] = table[ids[r], c]: the input embeddings.
//
// Shapes: table [vocabulary, columns] in any weight format, ids [rows], out [rows, columns].
// One invocation decodes eight weights: x counts groups of eight in a row, y counts rows. A shard
// writes only the rows whose id it holds, so shards may run in any order.
// CPU twin: compute/src/reference/ops.rs, embed.
override WORKGROUP: u32 = 64u;

@group(0) @binding(4) var<storage, read> ids: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    if (row >= step_now.rows || id.x * 8u >= matrix.columns) {
        return;
    }
    let token = ids[row];
    if (token < matrix.row_first || token >= matrix.row_first + matrix.rows) {
        return;
    }
    let block = id.x >> 2u;
    let levels = levels8(token - matrix.row_first, block, id.x & 3u);
    let scale = scale_of(token - matrix.row_first, block);
    let at = (row * matrix.columns + id.x * 8u) >> 2u;
    out[at] = levels.a * scale.x + scale.y;
    out[at + 1u] = levels.b * scale.x + scale.y;
}
