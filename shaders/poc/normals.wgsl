// Seeded standard normals: the input embeddings of Proof of Compute.
//
//   a = max(U(i), 1e-10), b = U(P + i), r = sqrt(-2 ln a), t = fl(2 pi) b      i = 0 .. P-1
//   P = ceil(count / 2), out[offset + i] = r cos t, out[offset + P + i] = r sin t if below count
//   U(i) = fl(M(i, seed)) 2^-32
//
// M and U are exact. WGSL promises sin, cos and log only to about 2^-11 and u32 -> f32 in no
// particular rounding, so all four are done here in integers and polynomials: at most 2e-6 from the
// exact value. The second grid dimension walks the segments; an invocation strides over the pairs
// of its segment. CPU twin: compute/src/poc/normal.rs.

struct Segment {
    seed: u32,
    count: u32,
    offset: u32,
    pad: u32,
}

struct Params {
    row: u32,        // invocations along the first grid dimension
    segments: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> segments: array<Segment>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

override WORKGROUP: u32 = 64u;

const TURN: f32 = 6.2831855;            // the network's fl(2 pi)
const TURN_EXCESS: f32 = 1.7484556e-7;  // fl(2 pi) - 2 pi
const LN_2: f32 = 0.69314718;
const SQRT_2: f32 = 1.4142135;
const UNIFORM_MIN: f32 = 1e-10;

fn rotate_left(x: u32, n: u32) -> u32 { return (x << n) | (x >> (32u - n)); }

// Murmur3-32 of one key without the length xor.
fn murmur(key: u32, seed: u32) -> u32 {
    let k = rotate_left(key * 0xcc9e2d51u, 15u) * 0x1b873593u;
    var h = rotate_left(seed ^ k, 13u) * 5u + 0xe6546b64u;
    h = (h ^ (h >> 16u)) * 0x85ebca6bu;
    h = (h ^ (h >> 13u)) * 0xc2b2ae35u;
    return h ^ (h >> 16u);
}

// The u32 rounded to nearest-even f32, times 2^-32.
fn unit(hash: u32) -> f32 {
    var mantissa = hash;
    var scale = 2.3283064365386963e-10; // 2^-32
    if hash >= 0x1000000u {
        let shift = firstLeadingBit(hash) - 23u;
        let half = 1u << (shift - 1u);
        let rest = hash & ((1u << shift) - 1u);
        mantissa = hash >> shift;
        if rest > half || (rest == half && (mantissa & 1u) == 1u) { mantissa += 1u; }
        scale *= f32(1u << shift);
    }
    // 24 bits at most (or 2^24 itself), times a power of two: both exact.
    return f32(mantissa) * scale;
}

// Natural logarithm of a normal f32: exponent and mantissa apart, ln m = 2 artanh((m-1)/(m+1)).
fn ln(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    var exponent = i32(bits >> 23u) - 127;
    var m = bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
    if m > SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = s * q * (0.33333333 + q * (0.2 + q * (0.14285714 + q * 0.11111111)));
    return f32(exponent) * LN_2 + 2.0 * (s + series);
}

// One Newton step on the hardware's root, whose error WGSL bounds only loosely.
fn root(x: f32) -> f32 {
    if x <= 0.0 { return 0.0; }
    let r = sqrt(x);
    return r + (x - r * r) / (2.0 * r);
}

// (cos, sin) of fl(2 pi) * turns for turns in [0, 1]: to the nearest quarter turn exactly, then
// Taylor.
fn cos_sin(turns: f32) -> vec2<f32> {
    let quarter = floor(turns * 4.0 + 0.5);
    let x = (turns - 0.25 * quarter) * TURN + 0.25 * quarter * TURN_EXCESS;
    let q = x * x;
    let s = x + x * q * (-0.16666667 + q * (8.3333333e-3 + q * (-1.9841270e-4 + q * 2.7557319e-6)));
    let c = 1.0 + q * (-0.5 + q * (0.041666667 + q * (-1.3888889e-3
        + q * (2.4801587e-5 - q * 2.7557319e-7))));
    switch u32(quarter) & 3u {
        case 1u: { return vec2<f32>(-s, c); }
        case 2u: { return vec2<f32>(-c, -s); }
        case 3u: { return vec2<f32>(s, -c); }
        default: { return vec2<f32>(c, s); }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.y >= params.segments { return; }
    let segment = segments[id.y];
    let pairs = segment.count - segment.count / 2u;
    for (var pair = id.x; pair < pairs; pair += params.row) {
        let radius = root(-2.0 * ln(max(unit(murmur(pair, segment.seed)), UNIFORM_MIN)));
        let value = radius * cos_sin(unit(murmur(pairs + pair, segment.seed)));
        out[segment.offset + pair] = value.x;
        if pairs + pair < segment.count { out[segment.offset + pairs + pair] = value.y; }
    }
}
