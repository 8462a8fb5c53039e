// SHA-256d of a block header for many nonces: which of them may be work.
//
//   hash = SHA256(SHA256(header76 | nonce_le)),  candidate iff (H7 & mask) == 0
//
// The hash is a little-endian number, so its top 32 bits are the last state word with its bytes swapped; the mask has
// every bit that no share has there. The host hashes every candidate again and compares all 256 bits.
// One invocation tries LANES nonces, from params.start + LANES * its index in the grid, modulo 2^32; U is a vector of
// that many words (lanes_*.wgsl). What no nonce changes comes from the host (compute/src/hash/prepared.rs). Of the
// second hash the last three rounds are left out: H7 is word e after round 60. All rounds are written out and no array
// is indexed at run time. CPU twin: compute/src/hash/sha256.rs.

struct Params {
    middle_abcd: vec4<u32>,   // state after the header's first 64 bytes
    middle_efgh: vec4<u32>,
    third_abc: vec3<u32>,     // state after rounds 0..2 of the second block
    fourth_a: u32,            // a after round 3, less the nonce word
    third_efg: vec3<u32>,
    fourth_e: u32,
    words: vec4<u32>,         // message words 16 to 19, less what the nonce adds
    w31: u32,                 // W15 + small0(W16)
    mask: u32,
    start: u32,
    count: u32,
    row: u32,                 // invocations in one row of the grid
}

struct Found {
    count: atomic<u32>,       // may pass the capacity: then the host asks again with less
    nonces: array<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> found: Found;

override WORKGROUP: u32 = 64u;

struct State { a: U, b: U, c: U, d: U, e: U, f: U, g: U, h: U }
struct Four { x: U, y: U, z: U, w: U }
struct Block { s: State, w0: Four, w4: Four, w8: Four, w12: Four }

const PAD: u32 = 0x80000000u;
const INITIAL_A = vec4<u32>(0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au);
const INITIAL_E = vec4<u32>(0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u);
const K0 = vec4<u32>(0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u);
const K4 = vec4<u32>(0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u);
const K8 = vec4<u32>(0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u);
const K12 = vec4<u32>(0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u);
const K16 = vec4<u32>(0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu);
const K20 = vec4<u32>(0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau);
const K24 = vec4<u32>(0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u);
const K28 = vec4<u32>(0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u);
const K32 = vec4<u32>(0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u);
const K36 = vec4<u32>(0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u);
const K40 = vec4<u32>(0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u);
const K44 = vec4<u32>(0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u);
const K48 = vec4<u32>(0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u);
const K52 = vec4<u32>(0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u);
const K56 = vec4<u32>(0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u);
const K60 = vec4<u32>(0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u);

fn rotate(x: U, n: u32) -> U { return (x >> U(n)) | (x << U(32u - n)); }
fn big_e(e: U) -> U { return rotate(e, 6u) ^ rotate(e, 11u) ^ rotate(e, 25u); }
fn choose(e: U, f: U, g: U) -> U { return g ^ (e & (f ^ g)); }
fn small0(x: U) -> U { return rotate(x, 7u) ^ rotate(x, 18u) ^ (x >> U(3u)); }
fn small1(x: U) -> U { return rotate(x, 17u) ^ rotate(x, 19u) ^ (x >> U(10u)); }

// One round; wk is message word plus round constant.
fn round1(s: State, wk: U) -> State {
    let big_a = rotate(s.a, 2u) ^ rotate(s.a, 13u) ^ rotate(s.a, 22u);
    let t = s.h + wk + choose(s.e, s.f, s.g) + big_e(s.e);
    let top = t + (big_a + majority(s.a, s.b, s.c));
    return State(top, s.a, s.b, s.c, s.d + t, s.e, s.f, s.g);
}

fn four(s: State, w: Four, k: vec4<u32>) -> State {
    let t = round1(round1(s, w.x + U(k.x)), w.y + U(k.y));
    return round1(round1(t, w.z + U(k.z)), w.w + U(k.w));
}

// The message words after a block's sixteen.
fn next(b: Block) -> Four {
    let x = small1(b.w12.z) + b.w8.y + (small0(b.w0.y) + b.w0.x);
    let y = small1(b.w12.w) + b.w8.z + (small0(b.w0.z) + b.w0.y);
    let z = small1(x) + b.w8.w + (small0(b.w0.w) + b.w0.z);
    return Four(x, y, z, small1(y) + b.w12.x + (small0(b.w4.x) + b.w0.w));
}

// Four rounds; the window of message words moves on by as many.
fn step(b: Block, k: vec4<u32>) -> Block {
    let w = next(b);
    return Block(four(b.s, w, k), b.w4, b.w8, b.w12, w);
}

// Rounds 36..59, which both hashes have in common.
fn steps_36_to_59(b: Block) -> Block {
    return step(step(step(step(step(step(b, K36), K40), K44), K48), K52), K56);
}

// Message words 16 to 31 of the second block whose word 3 is n, and its rounds 3 to 31.
fn header_to_31(n: U) -> Block {
    let o = U(0u);
    let third = State(n + U(params.fourth_a), U(params.third_abc.x), U(params.third_abc.y), U(params.third_abc.z),
        n + U(params.fourth_e), U(params.third_efg.x), U(params.third_efg.y), U(params.third_efg.z));
    let s = four(four(four(third, Four(U(PAD), o, o, o), K4), Four(o, o, o, o), K8), Four(o, o, o, U(640u)), K12);
    let v = params.words;
    let w16 = Four(U(v.x), U(v.y), U(v.z) + small0(n), U(v.w) + n);
    let w20 = small1(w16.z) + U(PAD);
    let w21 = small1(w16.w);
    let w20s = Four(w20, w21, small1(w20) + U(640u), small1(w21) + w16.x);
    let w24 = small1(w20s.z) + w16.y;
    let w25 = small1(w20s.w) + w16.z;
    let w24s = Four(w24, w25, small1(w24) + w16.w, small1(w25) + w20);
    let w28 = small1(w24s.z) + w21;
    let w29 = small1(w24s.w) + w20s.z;
    let w28s = Four(w28, w29, small1(w28) + (w20s.w + small0(U(640u))), small1(w29) + (w24 + U(params.w31)));
    return Block(four(four(four(four(s, w16, K16), w20s, K20), w24s, K24), w28s, K28), w16, w20s, w24s, w28s);
}

fn keep(nonce: u32) {
    if nonce - params.start >= params.count { return; }
    let slot = atomicAdd(&found.count, 1u);
    if slot < arrayLength(&found.nonces) { found.nonces[slot] = nonce; }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = (id.y * params.row + id.x) * LANES;
    if index >= params.count { return; }
    let first = params.start + index;
    let nonces = from_first(first);
    let swapped = (rotate(nonces, 8u) & U(0xff00ff00u)) | (rotate(nonces, 24u) & U(0x00ff00ffu));

    let header = step(steps_36_to_59(step(header_to_31(swapped), K32)), K60).s;
    let m = params.middle_abcd;
    let n = params.middle_efgh;
    let w0 = Four(header.a + U(m.x), header.b + U(m.y), header.c + U(m.z), header.d + U(m.w));
    let w4 = Four(header.e + U(n.x), header.f + U(n.y), header.g + U(n.z), header.h + U(n.w));
    let o = U(0u);
    let w8 = Four(U(PAD), o, o, o);
    let w12 = Four(o, o, o, U(256u));
    let a = INITIAL_A;
    let e = INITIAL_E;
    let initial = State(U(a.x), U(a.y), U(a.z), U(a.w), U(e.x), U(e.y), U(e.z), U(e.w));
    let s = four(four(four(four(initial, w0, K0), w4, K4), w8, K8), w12, K12);
    let digest = step(step(step(step(step(Block(s, w0, w4, w8, w12), K16), K20), K24), K28), K32);
    let last = steps_36_to_59(digest);
    let t = last.s.h + (next(last).x + U(K60.x)) + choose(last.s.e, last.s.f, last.s.g) + big_e(last.s.e);
    report(first, (last.s.d + t + U(e.w)) & U(params.mask));
}
