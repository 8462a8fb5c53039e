// out = softmax(scale q . k, softcapped) v over a span of the positions a row may see, in one go: the
// running maximum of the scores rescales what was summed before (online softmax), so no score leaves
// the workgroup. Spans end at multiples of SPAN, so a row's sums depend on its own position alone.
//
// Shapes: q [rows, heads, head], caches [slots, kv_heads] records of a head (lib/cache_read_*.wgsl), out
// [rows, spans, heads, head + 4]: the unnormalised sum of values, then the largest score and the sum of
// weights (two floats unused).
// One workgroup takes one row (y), one span (z) and up to four query heads of one KV head (x), so that
// each key and value is loaded once for four heads. It works in tiles of WORKGROUP positions: first an
// invocation scores a position, then it sums four floats of the values in strands of positions.
// Loads are asked for four at a time: a decoding GPU waits for memory here, and for nothing else.
// A CPU adapter has few invocations to a workgroup and looks for the largest score one by one (TREE 0).
// CPU twin: compute/src/reference/ops.rs, attention.
override WORKGROUP: u32 = 128u;
override SPAN: u32 = 256u;
override TREE: u32 = 1u;

const LOWEST: f32 = -3.4e38;

@group(0) @binding(4) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>;

// Of each position of the tile: its four scores, then weights, and its record in the caches.
var<workgroup> weights: array<vec4<f32>, WORKGROUP>;
var<workgroup> records: array<u32, WORKGROUP>;
var<workgroup> partial: array<vec4<f32>, WORKGROUP>;

// The largest scores of the tile's `count` positions; `weights` may be overwritten afterwards.
fn tile_largest(own: vec4<f32>, count: u32, local: u32) -> vec4<f32> {
    var largest = own;
    if (TREE == 1u) {
        partial[local] = own;
        for (var width = WORKGROUP / 2u; width > 0u; width >>= 1u) {
            workgroupBarrier();
            if (local < width) {
                partial[local] = max(partial[local], partial[local + width]);
            }
        }
        workgroupBarrier();
        largest = partial[0];
    } else {
        workgroupBarrier();
        for (var i = 0u; i < count; i++) {
            largest = max(largest, weights[i]);
        }
    }
    workgroupBarrier();
    return largest;
}

// The sum over all strands, in the invocations of the first.
fn over_strands(own: vec4<f32>, local: u32, vectors: u32) -> vec4<f32> {
    workgroupBarrier();
    partial[local] = own;
    workgroupBarrier();
    var sum = own;
    for (var other = local + vectors; other < WORKGROUP / vectors * vectors; other += vectors) {
        sum += partial[other];
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y;
    let together = attention.heads / attention.kv_heads;
    let blocks = (together + 3u) / 4u;
    let kv_head = group.x / blocks;
    let heads_end = (kv_head + 1u) * together;
    let head_first = kv_head * together + group.x % blocks * 4u;
    // Heads beyond the end repeat the last one; their results are not stored.
    let heads = min(vec4<u32>(0u, 1u, 2u, 3u) + head_first, vec4<u32>(heads_end - 1u));
    let vectors = attention.head >> 2u;
    let from_q = (row * attention.heads + heads) * vectors;
    let strands = WORKGROUP / vectors;
    let strand = local / vectors;
    let vector = local % vectors;

    let own = position_of(row);
    let first = max(first_seen(own), group.z * SPAN);
    let end = min(own + 1u, (group.z + 1u) * SPAN);
    var largest = vec4<f32>(LOWEST);
    var sums = Sums();
    for (var tile = first; tile < end; tile += WORKGROUP) {
        let count = min(WORKGROUP, end - tile);
        var score = vec4<f32>(LOWEST);
        workgroupBarrier();
        if (local < count) {
            let record = slot_of(row, tile + local) * attention.kv_heads + kv_head;
            records[local] = record;
            score = scores_of(from_q, record);
            weights[local] = score;
        }
        let now = max(largest, tile_largest(score, count, local));
        weights[local] = exp(score - now);
        workgroupBarrier();
        let keep = exp(largest - now);
        largest = now;
        sums = Sums(
            sums.total * keep,
            sums.x * keep.x,
            sums.y * keep.y,
            sums.z * keep.z,
            sums.w * keep.w,
        );
        // Leftover invocations of an uneven split see no position.
        var i = select(count, strand, strand < strands);
        for (; i + 3u * strands < count; i += 4u * strands) {
            let value_0 = value4(records[i], vector);
            let value_1 = value4(records[i + strands], vector);
            let value_2 = value4(records[i + 2u * strands], vector);
            let value_3 = value4(records[i + 3u * strands], vector);
            sums = plus(sums, weights[i], value_0);
            sums = plus(sums, weights[i + strands], value_1);
            sums = plus(sums, weights[i + 2u * strands], value_2);
            sums = plus(sums, weights[i + 3u * strands], value_3);
        }
        for (; i < count; i += strands) {
            sums = plus(sums, weights[i], value4(records[i], vector));
        }
    }
    if (strands > 1u) {
        sums.total = over_strands(sums.total, local, vectors);
        sums.x = over_strands(sums.x, local, vectors);
        sums.y = over_strands(sums.y, local, vectors);
        sums.z = over_strands(sums.z, local, vectors);
        sums.w = over_strands(sums.w, local, vectors);
    }
    if (local >= vectors || first >= end) {
        return;
    }
    var of_heads = array<vec4<f32>, 4>(sums.x, sums.y, sums.z, sums.w);
    let first_out = (row * groups.z + group.z) * attention.heads;
    for (var i = 0u; i < min(4u, heads_end - head_first); i++) {
        let to = (first_out + head_first + i) * (vectors + 1u);
        out[to + local] = of_heads[i];
        if (local == 0u) {
            out[to + vectors] = vec4<f32>(largest[i], sums.total[i], 0.0, 0.0);
        }
    }
}
