// The largest logits of a row with their tokens, and its sums of exponentials: what drawing a token and
// telling log-probabilities usually need, in less than a kilobyte.
//
// Shapes: logits [selected, vocabulary], strands [selected, STRANDS] from top_strands.wgsl, wishes
// [selected], records [selected, 8 + 2 * CAPACITY]: how many logits follow (-1: the row is odd, more than
// CAPACITY: they did not fit; then the row has to be read whole), the largest, the two sums relative to
// it, the wanted logit, three floats unused, then logits and tokens in turn, in any order.
//
// The KEPT-th largest of the strands' largest logits, found bit by bit, is a bound: at least KEPT logits
// reach it, and few more do, for the largest are spread over the strands. One workgroup takes one row.
// CPU twin: compute/src/reference/ops.rs, likeliest and log_sum_exp.
override WORKGROUP: u32 = 256u;

@group(0) @binding(2) var<storage, read> logits: array<u32>;
@group(0) @binding(3) var<storage, read> wishes: array<Wish>;
@group(0) @binding(4) var<storage, read> strands: array<Strand>;
@group(0) @binding(5) var<storage, read_write> records: array<f32>;

var<workgroup> keys: array<u32, STRANDS>;
// Strands that have something to keep.
var<workgroup> hot: array<u32, STRANDS>;
var<workgroup> hot_count: atomic<u32>;
var<workgroup> kept_count: atomic<u32>;
// How many keys reach the bound that is tried with each bit.
var<workgroup> reaching: array<atomic<u32>, 32>;
// Of each invocation: the sums, and 1 if a strand is odd.
var<workgroup> partial: array<vec3<f32>, WORKGROUP>;
var<workgroup> largest_key: atomic<u32>;

fn fill(row: u32, local: u32) {
    if (local == 0u) {
        atomicStore(&hot_count, 0u);
        atomicStore(&kept_count, 0u);
        atomicStore(&largest_key, 0u);
    }
    for (var bit = local; bit < 32u; bit += WORKGROUP) {
        atomicStore(&reaching[bit], 0u);
    }
    workgroupBarrier();
    var largest = 0u;
    for (var s = local; s < STRANDS; s += WORKGROUP) {
        keys[s] = strands[row * STRANDS + s].key;
        largest = max(largest, keys[s]);
    }
    atomicMax(&largest_key, largest);
    workgroupBarrier();
}

// The KEPT-th largest key, or 1 if there are fewer: the empty strand's 0 is never reached.
fn bound(local: u32) -> u32 {
    var found = 0u;
    for (var bit = 0u; bit < 32u; bit++) {
        let tried = found | (0x80000000u >> bit);
        var count = 0u;
        for (var s = local; s < STRANDS; s += WORKGROUP) {
            count += u32(keys[s] >= tried);
        }
        atomicAdd(&reaching[bit], count);
        workgroupBarrier();
        found = select(found, tried, atomicLoad(&reaching[bit]) >= KEPT);
    }
    return max(found, 1u);
}

// Sums over all strands relative to the row's largest, and whether one is odd; in invocation 0.
fn whole_sums(row: u32, local: u32, largest: f32) -> vec3<f32> {
    let powers = vec2<f32>(1.0, wishes[row].inverse_temperature);
    var own = vec3<f32>(0.0);
    for (var s = local; s < STRANDS; s += WORKGROUP) {
        let strand = strands[row * STRANDS + s];
        if (strand.sum > 0.0) {
            let less = exp((logit_of(strand.key) - largest) * powers);
            own += vec3<f32>(less * vec2<f32>(strand.sum, strand.tempered), 0.0);
        }
        own.z = max(own.z, f32(strand.odd));
    }
    partial[local] = own;
    for (var width = WORKGROUP / 2u; width > 0u; width >>= 1u) {
        workgroupBarrier();
        if (local < width) {
            partial[local] += partial[local + width];
        }
    }
    return partial[0];
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.y;
    let first = row * top.vocabulary;
    let record = row * (8u + 2u * CAPACITY);
    fill(row, local);
    let largest = logit_of(atomicLoad(&largest_key));
    let least = bound(local);
    for (var s = local; s < STRANDS; s += WORKGROUP) {
        if (keys[s] >= least) {
            hot[atomicAdd(&hot_count, 1u)] = s;
        }
    }
    workgroupBarrier();
    let count = atomicLoad(&hot_count);
    let depth = (top.vocabulary + STRANDS - 1u) / STRANDS;
    for (var i = local; i < count * depth; i += WORKGROUP) {
        let token = hot[i % count] + i / count * STRANDS;
        if (token < top.vocabulary && key_of(logits[first + token]) >= least) {
            let place = atomicAdd(&kept_count, 1u);
            if (place < CAPACITY) {
                records[record + 8u + 2u * place] = bitcast<f32>(logits[first + token]);
                records[record + 9u + 2u * place] = f32(token);
            }
        }
    }
    let sums = whole_sums(row, local, largest);
    workgroupBarrier();
    if (local == 0u) {
        records[record] = select(f32(atomicLoad(&kept_count)), -1.0, sums.z > 0.0);
        records[record + 1u] = largest;
        records[record + 2u] = sums.x;
        records[record + 3u] = sums.y;
        let wanted = min(wishes[row].token, top.vocabulary - 1u);
        records[record + 4u] = bitcast<f32>(logits[first + wanted]);
    }
}
