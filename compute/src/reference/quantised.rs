//! Twin of the quantised activations: what `shaders/quantise_q16.wgsl` makes of rows.

/// Levels per scale.
const BLOCK: usize = 32;

/// Levels whose bytes lie together.
const HALF: usize = 16;

/// The largest level, 127 * 128: its high byte is the largest of those that are as large both ways.
const LEVEL_MAX: f32 = 16_256.0;

/// Rows of floats as whole numbers, with (scale, scale times the sum of the levels) per block of 32.
#[must_use]
pub fn quantise_q16(x: &[f32]) -> (Vec<i16>, Vec<[f32; 2]>) {
    let mut levels = Vec::with_capacity(x.len());
    let scales = x
        .chunks(BLOCK)
        .map(|block| {
            let scale = block.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / LEVEL_MAX;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let first = levels.len();
            levels.extend(
                block
                    .iter()
                    .map(|v| (v * inverse).round_ties_even().clamp(-LEVEL_MAX, LEVEL_MAX) as i16),
            );
            let sum: i32 = levels[first..].iter().map(|level| i32::from(*level)).sum();
            [scale, scale * sum as f32]
        })
        .collect();
    (levels, scales)
}

/// Levels as the kernels read them: sixteen high bytes, then their low bytes.
#[must_use]
pub fn split_levels(levels: &[i16]) -> Vec<i8> {
    let high = |level: i16| (level + 64) >> 7;
    levels
        .chunks(HALF)
        .flat_map(|half| {
            let low = half.iter().map(move |level| (level - (high(*level) << 7)) as i8);
            half.iter().map(move |level| high(*level) as i8).chain(low)
        })
        .collect()
}

/// The floats that levels and scales stand for.
#[must_use]
pub fn dequantise_q16(levels: &[i16], scales: &[[f32; 2]]) -> Vec<f32> {
    levels
        .chunks(BLOCK)
        .zip(scales)
        .flat_map(|(block, [scale, _])| block.iter().map(move |level| f32::from(*level) * scale))
        .collect()
}
