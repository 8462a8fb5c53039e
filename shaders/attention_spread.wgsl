// As attention.wgsl, for CPU drivers: a workgroup is eight invocations of one subgroup, which hand each other
// queries, scores and places in the caches. No shared memory, no barrier, and an eighth of the loads.
//
// Shapes: as attention.wgsl; heads are 32 * PIECES floats, PIECES at most 4. A tile is eight positions:
// first an invocation scores its own, then each sums its share of the values, four floats of every 32.
// CPU twin: compute/src/reference/ops.rs, attention.
override SPAN: u32 = 256u;
override PIECES: u32 = 2u;

const LOWEST: f32 = -3.4e38;

@group(0) @binding(4) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>;

// This invocation's share of a head: four floats of each 32. What lies beyond PIECES is left out by the
// compiler, since its results are not stored.
struct Share {
    a: Heads,
    b: Heads,
    c: Heads,
    d: Heads,
}

fn queries(from_q: vec4<u32>, piece: u32, lane: u32) -> Heads {
    let at = from_q + vec4<u32>(min(piece, PIECES - 1u) * 8u + lane);
    return Heads(q[at.x], q[at.y], q[at.z], q[at.w]);
}

fn shrunk_share(s: Share, by: vec4<f32>) -> Share {
    return Share(shrunk(s.a, by), shrunk(s.b, by), shrunk(s.c, by), shrunk(s.d, by));
}

// The value of one position, by its weight, added to the share.
fn taken(s: Share, weight: vec4<f32>, record: u32, lane: u32) -> Share {
    return Share(
        grown(s.a, weight, value4(record, lane)),
        grown(s.b, weight, value4(record, min(1u, PIECES - 1u) * 8u + lane)),
        grown(s.c, weight, value4(record, min(2u, PIECES - 1u) * 8u + lane)),
        grown(s.d, weight, value4(record, min(3u, PIECES - 1u) * 8u + lane)),
    );
}

fn store(heads: Heads, to: u32, stride: u32, count: u32) {
    out[to] = heads.x;
    if (count > 1u) {
        out[to + stride] = heads.y;
    }
    if (count > 2u) {
        out[to + 2u * stride] = heads.z;
    }
    if (count > 3u) {
        out[to + 3u * stride] = heads.w;
    }
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y;
    let together = attention.heads / attention.kv_heads;
    let blocks = (together + 3u) / 4u;
    let kv_head = group.x / blocks;
    let heads_end = (kv_head + 1u) * together;
    let head_first = kv_head * together + group.x % blocks * 4u;
    // Heads beyond the end repeat the last one; their results are not stored.
    let heads = min(vec4<u32>(0u, 1u, 2u, 3u) + head_first, vec4<u32>(heads_end - 1u));
    let vectors = PIECES * 8u;
    let from_q = (row * attention.heads + heads) * vectors;
    let own = position_of(row);
    let first = max(first_seen(own), group.z * SPAN);
    let end = min(own + 1u, (group.z + 1u) * SPAN);
    if (first >= end) {
        return;
    }
    let query = Share(
        queries(from_q, 0u, lane),
        queries(from_q, 1u, lane),
        queries(from_q, 2u, lane),
        queries(from_q, 3u, lane),
    );
    var largest = vec4<f32>(LOWEST);
    var total = vec4<f32>(0.0);
    var sums = Share();
    for (var tile = first; tile < end; tile += 8u) {
        // Positions beyond the end repeat the last and weigh nothing.
        let position = min(tile + lane, end - 1u);
        let record = slot_of(row, position) * attention.kv_heads + kv_head;
        var score = scored(query.a, record, 0u);
        if (PIECES > 1u) {
            score += scored(query.b, record, 1u);
        }
        if (PIECES > 2u) {
            score += scored(query.c, record, 2u);
        }
        if (PIECES > 3u) {
            score += scored(query.d, record, 3u);
        }
        score = vec4<f32>(score_of(score.x), score_of(score.y), score_of(score.z), score_of(score.w));
        score = select(vec4<f32>(LOWEST), score, tile + lane < end);
        let now = max(largest, largest_of(score));
        let weight = exp(score - now);
        let keep = exp(largest - now);
        largest = now;
        total = total * keep + sum_of(weight);
        sums = shrunk_share(sums, keep);
        sums = taken(sums, subgroupBroadcast(weight, 0u), subgroupBroadcast(record, 0u), lane);
        sums = taken(sums, subgroupBroadcast(weight, 1u), subgroupBroadcast(record, 1u), lane);
        sums = taken(sums, subgroupBroadcast(weight, 2u), subgroupBroadcast(record, 2u), lane);
        sums = taken(sums, subgroupBroadcast(weight, 3u), subgroupBroadcast(record, 3u), lane);
        sums = taken(sums, subgroupBroadcast(weight, 4u), subgroupBroadcast(record, 4u), lane);
        sums = taken(sums, subgroupBroadcast(weight, 5u), subgroupBroadcast(record, 5u), lane);
        sums = taken(sums, subgroupBroadcast(weight, 6u), subgroupBroadcast(record, 6u), lane);
        sums = taken(sums, subgroupBroadcast(weight, 7u), subgroupBroadcast(record, 7u), lane);
    }
    let to = ((row * groups.z + group.z) * attention.heads + head_first) * (vectors + 1u);
    let count = heads_end - head_first;
    store(sums.a, to + lane, vectors + 1u, count);
    if (PIECES > 1u) {
        store(sums.b, to + 8u + lane, vectors + 1u, count);
    }
    if (PIECES > 2u) {
        store(sums.c, to + 16u + lane, vectors + 1u, count);
    }
    if (PIECES > 3u) {
        store(sums.d, to + 24u + lane, vectors + 1u, count);
    }
    if (lane == 0u) {
        let pairs = Heads(
            vec4<f32>(largest.x, total.x, 0.0, 0.0),
            vec4<f32>(largest.y, total.y, 0.0, 0.0),
            vec4<f32>(largest.z, total.z, 0.0, 0.0),
            vec4<f32>(largest.w, total.w, 0.0, 0.0),
        );
        store(pairs, to + vectors, vectors + 1u, count);
    }
}
