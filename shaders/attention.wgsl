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

fn scores_of(from_q: vec4<u32>, record: u32) -> vec4<f32> {
    var sums = vec4<f32>(0.0);
    for (var i = 0u; i < (attention.head >> 2u); i++) {
        let k = key4(record, i);
        sums += vec4<f32>(
            dot(q[from_q.x + i], k),
            dot(q[from_q.y + i], k),
            dot(q[from_q.z + i], k),
            dot(q[from_q.w + i], k),
        );
    }
    return vec4<f32>(score_of(sums.x), score_of(sums.y), score_of(sums.z), score_of(sums.w));
}

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
    var total = vec4<f32>(0.0);
    var sum_x = vec4<f32>(0.0);
    var sum_y = vec4<f32>(0.0);
    var sum_z = vec4<f32>(0.0);
    var sum_w = vec4<f32>(0.0);
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
        total *= keep;
        sum_x *= keep.x;
        sum_y *= keep.y;
        sum_z *= keep.z;
        sum_w *= keep.w;
        // Leftover invocations of an uneven split see no position.
        for (var i = select(count, strand, strand < strands); i < count; i += strands) {
            let weight = weights[i];
            let value = value4(records[i], vector);
            total += weight;
            sum_x += weight.x * value;
            sum_y += weight.y * value;
            sum_z += weight.z * value;
            sum_w += weight.w * value;
        }
    }
    if (strands > 1u) {
        total = over_strands(total, local, vectors);
        sum_x = over_strands(sum_x, local, vectors);
        sum_y = over_strands(sum_y, local, vectors);
        sum_z = over_strands(sum_z, local, vectors);
        sum_w = over_strands(sum_w, local, vectors);
    }
    if (local >= vectors || first >= end) {
        return;
    }
    var sums = array<vec4<f32>, 4>(sum_x, sum_y, sum_z, sum_w);
    let first_out = (row * groups.z + group.z) * attention.heads;
    for (var i = 0u; i < min(4u, heads_end - head_first); i++) {
        let to = (first_out + head_first + i) * (vectors + 1u);
        out[to + local] = sums[i];
        if (local == 0u) {
            out[to + vectors] = vec4<f32>(largest[i], total[i], 0.0, 0.0);
        }
    }
}
