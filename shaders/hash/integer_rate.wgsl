// How many 32-bit integer instructions a device does in a second, in the mix of SHA-256: rotations, logic, additions.
//
// Each turn is one add, one rotation and one exclusive or on each of eight words that do not wait for each other; 8 turns are
// written out in one loop. Nothing can be left out: the last word depends on all, and is written. The twin is
// compute/tests/hash_equal.rs.

struct Params { turns: u32, seed: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;

override WORKGROUP: u32 = 64u;

struct Words { a: vec4<u32>, b: vec4<u32> }

fn rotate(x: vec4<u32>) -> vec4<u32> { return (x >> vec4<u32>(7u)) | (x << vec4<u32>(25u)); }

// 24 instructions: on each of eight words one addition, one rotation, one exclusive or.
fn turn(w: Words, k: vec4<u32>) -> Words {
    return Words(rotate(w.a + w.b) ^ k, rotate(w.b + k) ^ w.a);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let k = vec4<u32>(params.seed, params.seed + 1u, params.seed + 2u, params.seed + 3u);
    var w = Words(vec4<u32>(id.x) + k, vec4<u32>(id.x) ^ k);
    for (var i = 0u; i < params.turns; i += 8u) {
        w = turn(turn(turn(turn(w, k), k), k), k);
        w = turn(turn(turn(turn(w, k), k), k), k);
    }
    let both = w.a ^ w.b;
    sums[id.x % arrayLength(&sums)] = both.x ^ both.y ^ both.z ^ both.w;
}
