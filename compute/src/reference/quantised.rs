//! Twin of the quantised activations: what `shaders/quantise_q8.wgsl` makes of rows.

/// Levels per scale.
const BLOCK: usize = 32;

/// The largest level; -128 is not used, so that levels are as large both ways.
const LEVEL_MAX: f32 = 127.0;

/// Rows of floats as signed bytes, with (scale, scale times the sum of the levels) per block of 32.
#[must_use]
pub fn quantise_q8(x: &[f32]) -> (Vec<i8>, Vec<[f32; 2]>) {
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
                    .map(|v| (v * inverse).round_ties_even().clamp(-LEVEL_MAX, LEVEL_MAX) as i8),
            );
            let sum: i32 = levels[first..].iter().map(|level| i32::from(*level)).sum();
            [scale, scale * sum as f32]
        })
        .collect();
    (levels, scales)
}

/// The floats that levels and scales stand for.
#[must_use]
pub fn dequantise_q8(levels: &[i8], scales: &[[f32; 2]]) -> Vec<f32> {
    levels
        .chunks(BLOCK)
        .zip(scales)
        .flat_map(|(block, [scale, _])| block.iter().map(move |level| f32::from(*level) * scale))
        .collect()
}
