// Of every strand of a row of logits: the largest, and sums of exponentials relative to it. top_k.wgsl
// goes on from there.
//
// Shapes: logits [selected, vocabulary], strands [selected, STRANDS], wishes [selected]. One invocation
// looks at one strand: x counts strands, y rows.
// CPU twin: compute/src/reference/ops.rs, likeliest and log_sum_exp.
override WORKGROUP: u32 = 64u;

// Key of minus infinity, which adds nothing to a sum.
const NOTHING: u32 = 0x007fffffu;

@group(0) @binding(2) var<storage, read> logits: array<u32>;
@group(0) @binding(3) var<storage, read> wishes: array<Wish>;
@group(0) @binding(4) var<storage, read_write> strands: array<Strand>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.y >= step_now.selected || id.x >= STRANDS) {
        return;
    }
    let first = id.y * top.vocabulary;
    var key = 0u;
    var odd = 0u;
    for (var token = id.x; token < top.vocabulary; token += STRANDS) {
        let bits = logits[first + token];
        key = max(key, key_of(bits));
        odd |= u32(is_odd(bits));
    }
    let largest = logit_of(key);
    let powers = vec2<f32>(1.0, wishes[id.y].inverse_temperature);
    var sums = vec2<f32>(0.0);
    for (var token = id.x; token < top.vocabulary; token += STRANDS) {
        let bits = logits[first + token];
        if (key_of(bits) > NOTHING) {
            sums += exp((bitcast<f32>(bits) - largest) * powers);
        }
    }
    strands[id.y * STRANDS + id.x] = Strand(key, sums.x, sums.y, odd);
}
