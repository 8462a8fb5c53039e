// A word per block: the f16 scale in its low half, the f16 offset in its high half.
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn scale_of(row: u32, block: u32) -> vec2<f32> {
    return unpack2x16float(scales[row * (matrix.columns >> 5u) + block]);
}
