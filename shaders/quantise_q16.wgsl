// Rows of floats to blocks of 32 whole numbers of two bytes: scale = max |x| / 16256 (= 127 * 128),
// level = round(x / scale) = 128 * high + low, both of them signed bytes.
//
// Shapes: x [rows, columns], words [rows, columns / 16, 2] (the high bytes of sixteen levels, then
// their low bytes), scales [rows, columns / 32] of (scale, sum of the block's levels times scale: what
// a weight's offset multiplies). One invocation makes a block: x counts blocks of a row, y rows.
// CPU twin: compute/src/reference/quantised.rs, quantise_q16.
override WORKGROUP: u32 = 8u;

const LEVEL_MAX: f32 = 16256.0;

struct Quantise {
    columns: u32,
    // 1: rows are the step's selected rows; 0: all of its rows.
    selecting: u32,
    padding_a: u32,
    padding_b: u32,
}

@group(0) @binding(1) var<uniform> shape: Quantise;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> words: array<vec4<u32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let blocks = shape.columns >> 5u;
    if (id.x >= blocks || id.y >= select(step_now.rows, step_now.selected, shape.selecting == 1u)) {
        return;
    }
    let at = id.y * blocks + id.x;
    var largest = vec4<f32>(0.0);
    for (var i = 0u; i < 8u; i++) {
        largest = max(largest, abs(x[at * 8u + i]));
    }
    let scale = max(max(largest.x, largest.y), max(largest.z, largest.w)) / LEVEL_MAX;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    var total = vec4<i32>(0);
    for (var half = 0u; half < 2u; half++) {
        let from_x = at * 8u + half * 4u;
        let a = levels_of(x[from_x], inverse);
        let b = levels_of(x[from_x + 1u], inverse);
        let c = levels_of(x[from_x + 2u], inverse);
        let d = levels_of(x[from_x + 3u], inverse);
        total += (a + b) + (c + d);
        let to = (at * 2u + half) * 2u;
        words[to] = vec4<u32>(high_bytes(a), high_bytes(b), high_bytes(c), high_bytes(d));
        words[to + 1u] = vec4<u32>(low_bytes(a), low_bytes(b), low_bytes(c), low_bytes(d));
    }
    scales[at] = vec2<f32>(scale, scale * f32(total.x + total.y + total.z + total.w));
}

fn levels_of(values: vec4<f32>, inverse: f32) -> vec4<i32> {
    return vec4<i32>(clamp(round(values * inverse), vec4<f32>(-LEVEL_MAX), vec4<f32>(LEVEL_MAX)));
}

fn high_of(levels: vec4<i32>) -> vec4<i32> {
    return (levels + vec4<i32>(64)) >> vec4<u32>(7u);
}

fn high_bytes(levels: vec4<i32>) -> u32 {
    return packed(high_of(levels));
}

fn low_bytes(levels: vec4<i32>) -> u32 {
    return packed(levels - (high_of(levels) << vec4<u32>(7u)));
}

fn packed(levels: vec4<i32>) -> u32 {
    let bytes = bitcast<vec4<u32>>(levels) & vec4<u32>(255u);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
