// SHA-256d of a block header for many nonces: which of them may be work.
//
//   hash = SHA256(SHA256(header76 | nonce_le)),  candidate iff byteswap(H7) <= top_word
//
// The hash is a little-endian number, so its top 32 bits are the last state word with its bytes
// swapped; the host hashes every candidate again and compares all 256 bits.
// One invocation tries one nonce: params.start + its index in the grid, modulo 2^32.
// Of the first hash only the second block is computed, and of that block's 64 rounds the first
// three depend on no nonce: the host sends the state after them. Of the second hash the last three
// rounds are left out: H7 is word e after round 60. No array is indexed at run time.
// CPU twin: compute/src/hash/sha256.rs.

struct Params {
    middle_abcd: vec4<u32>,   // state after the header's first 64 bytes
    middle_efgh: vec4<u32>,
    third_abcd: vec4<u32>,    // state after rounds 0..2 of the second block
    third_efgh: vec4<u32>,
    tail: vec3<u32>,          // header bytes 64..76, big-endian words
    top_word: u32,            // top 32 bits of the target
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

struct State { abcd: vec4<u32>, efgh: vec4<u32> }
// Sixteen message words; the window moves on by sixteen every four quads of rounds.
struct Words { w0: vec4<u32>, w4: vec4<u32>, w8: vec4<u32>, w12: vec4<u32> }

const INITIAL = State(
    vec4<u32>(0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au),
    vec4<u32>(0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u));

const K = array<vec4<u32>, 16>(
    vec4<u32>(0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u),
    vec4<u32>(0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u),
    vec4<u32>(0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u),
    vec4<u32>(0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u),
    vec4<u32>(0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu),
    vec4<u32>(0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau),
    vec4<u32>(0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u),
    vec4<u32>(0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u),
    vec4<u32>(0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u),
    vec4<u32>(0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u),
    vec4<u32>(0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u),
    vec4<u32>(0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u),
    vec4<u32>(0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u),
    vec4<u32>(0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u),
    vec4<u32>(0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u),
    vec4<u32>(0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u));

fn rotate(x: u32, n: u32) -> u32 { return (x >> n) | (x << (32u - n)); }

fn swap_bytes(x: u32) -> u32 {
    return ((x & 0xffu) << 24u) | ((x & 0xff00u) << 8u) | ((x >> 8u) & 0xff00u) | (x >> 24u);
}

// One round; wk is message word plus round constant.
fn round1(s: State, wk: u32) -> State {
    let a = s.abcd.x; let b = s.abcd.y; let c = s.abcd.z;
    let e = s.efgh.x; let f = s.efgh.y; let g = s.efgh.z;
    let big_e = rotate(e, 6u) ^ rotate(e, 11u) ^ rotate(e, 25u);
    let big_a = rotate(a, 2u) ^ rotate(a, 13u) ^ rotate(a, 22u);
    let t = s.efgh.w + big_e + (g ^ (e & (f ^ g))) + wk;
    let top = t + big_a + ((a & b) | (c & (a | b)));
    return State(vec4<u32>(top, s.abcd.xyz), vec4<u32>(s.abcd.w + t, s.efgh.xyz));
}

fn quad(s: State, w: vec4<u32>, k: vec4<u32>) -> State {
    let wk = w + k;
    return round1(round1(round1(round1(s, wk.x), wk.y), wk.z), wk.w);
}

fn small0(x: u32) -> u32 { return rotate(x, 7u) ^ rotate(x, 18u) ^ (x >> 3u); }
fn small1(x: u32) -> u32 { return rotate(x, 17u) ^ rotate(x, 19u) ^ (x >> 10u); }

// Message words t+16..t+20 from the sixteen from t, given as four vectors.
fn next(w0: vec4<u32>, w4: vec4<u32>, w8: vec4<u32>, w12: vec4<u32>) -> vec4<u32> {
    let x = w0.x + small0(w0.y) + w8.y + small1(w12.z);
    let y = w0.y + small0(w0.z) + w8.z + small1(w12.w);
    let z = w0.z + small0(w0.w) + w8.w + small1(x);
    let w = w0.w + small0(w4.x) + w12.x + small1(y);
    return vec4<u32>(x, y, z, w);
}

fn advance(m: Words) -> Words {
    let w0 = next(m.w0, m.w4, m.w8, m.w12);
    let w4 = next(m.w4, m.w8, m.w12, w0);
    let w8 = next(m.w8, m.w12, w0, w4);
    return Words(w0, w4, w8, next(m.w12, w0, w4, w8));
}

// Rounds 4..59: what both hashes have in common.
fn rounds_4_to_59(state: State, words: Words) -> State {
    var s = quad(quad(quad(state, words.w4, K[1]), words.w8, K[2]), words.w12, K[3]);
    let m = advance(words);
    s = quad(quad(quad(quad(s, m.w0, K[4]), m.w4, K[5]), m.w8, K[6]), m.w12, K[7]);
    let n = advance(m);
    s = quad(quad(quad(quad(s, n.w0, K[8]), n.w4, K[9]), n.w8, K[10]), n.w12, K[11]);
    let o = advance(n);
    return quad(quad(quad(s, o.w0, K[12]), o.w4, K[13]), o.w8, K[14]);
}

// Message words 60..63.
fn last_words(words: Words) -> vec4<u32> {
    return advance(advance(advance(words))).w12;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = id.y * params.row + id.x;
    if index >= params.count { return; }
    let nonce = params.start + index;

    let pad = vec4<u32>(0x80000000u, 0u, 0u, 0u);
    let zero = vec4<u32>(0u);
    let header = Words(
        vec4<u32>(params.tail, swap_bytes(nonce)), pad, zero, vec4<u32>(0u, 0u, 0u, 640u));
    var s = State(params.third_abcd, params.third_efgh);
    s = rounds_4_to_59(round1(s, header.w0.w + K[0].w), header);
    s = quad(s, last_words(header), K[15]);

    let digest = Words(s.abcd + params.middle_abcd, s.efgh + params.middle_efgh, pad,
        vec4<u32>(0u, 0u, 0u, 256u));
    s = rounds_4_to_59(quad(INITIAL, digest.w0, K[0]), digest);
    s = round1(s, last_words(digest).x + K[15].x);
    if swap_bytes(s.efgh.x + INITIAL.efgh.w) > params.top_word { return; }

    let slot = atomicAdd(&found.count, 1u);
    if slot < arrayLength(&found.nonces) { found.nonces[slot] = nonce; }
}
