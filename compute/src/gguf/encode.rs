//! From f32 to ggml's blocks: for test models, synthetic models and re-quantised ones.
//!
//! Simple and correct rather than best: nearest rounding per block, no search. What `dequantise`
//! gives back is within half a step of the weight, a step being the block's range over its levels
//! (plus the rounding of the scales, which the K types store in six or eight bits).

use half::{bf16, f16};

use super::dequant::{E2M1_DOUBLED, e8m0_half};
use super::tensor::TensorType;

/// Encodes weights, a whole number of blocks of them; a ragged tail is left out.
#[must_use]
pub fn encode(kind: TensorType, weights: &[f32]) -> Vec<u8> {
    let blocks = weights.chunks_exact(kind.block_weights());
    match kind {
        TensorType::F32 => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
        TensorType::F16 => weights.iter().flat_map(|w| f16::from_f32(*w).to_le_bytes()).collect(),
        TensorType::Bf16 => weights.iter().flat_map(|w| bf16::from_f32(*w).to_le_bytes()).collect(),
        TensorType::Q4_0 => blocks.flat_map(|block| encode_centred(block, 8)).collect(),
        TensorType::Q5_0 => blocks.flat_map(|block| encode_centred(block, 16)).collect(),
        TensorType::Q4_1 => blocks.flat_map(|block| encode_ranged(block, 15)).collect(),
        TensorType::Q5_1 => blocks.flat_map(|block| encode_ranged(block, 31)).collect(),
        TensorType::Q8_0 => blocks.flat_map(encode_q8_0).collect(),
        TensorType::Q4K => blocks.flat_map(|block| encode_k(block, 15)).collect(),
        TensorType::Q5K => blocks.flat_map(|block| encode_k(block, 31)).collect(),
        TensorType::Q6K => blocks.flat_map(encode_q6k).collect(),
        TensorType::Mxfp4 => blocks.flat_map(encode_mxfp4).collect(),
    }
}

/// The level nearest to `weight / scale`.
fn level(weight: f32, scale: f32, low: f32, high: f32) -> i32 {
    if scale == 0.0 {
        return 0;
    }
    (weight / scale).round().clamp(low, high) as i32
}

/// The weight of largest magnitude, with its sign.
fn largest(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |m: f32, w| if w.abs() > m.abs() { *w } else { m })
}

fn range(weights: &[f32]) -> (f32, f32) {
    weights.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), w| (l.min(*w), h.max(*w)))
}

/// Sixteen bytes of the low four bits of 32 levels: the first half's in the low halves.
fn nibbles(levels: &[i32]) -> impl Iterator<Item = u8> {
    (0..16).map(|i| (levels[i] & 15 | (levels[i + 16] & 15) << 4) as u8)
}

/// The fifth bits of 32 levels, one to a bit.
fn fifth_bits(levels: &[i32]) -> [u8; 4] {
    levels.iter().enumerate().fold(0, |bits, (i, q)| bits | (q >> 4 & 1) << i).to_le_bytes()
}

/// Q4_0 (`centre` 8) and Q5_0 (16): d, then the fifth bits if there are any, then nibbles.
fn encode_centred(block: &[f32], centre: i32) -> Vec<u8> {
    let side = centre as f32;
    let d = f16::from_f32(largest(block) / -side);
    let levels: Vec<i32> =
        block.iter().map(|w| level(*w, d.to_f32(), -side, side - 1.0) + centre).collect();
    let mut out = d.to_le_bytes().to_vec();
    if centre == 16 {
        out.extend(fifth_bits(&levels));
    }
    out.extend(nibbles(&levels));
    out
}

/// Q4_1 (`top` 15) and Q5_1 (31): d and minimum, then the fifth bits if there are any, then nibbles.
fn encode_ranged(block: &[f32], top: u8) -> Vec<u8> {
    let (low, high) = range(block);
    let (d, m) = (f16::from_f32((high - low) / f32::from(top)), f16::from_f32(low));
    let levels: Vec<i32> =
        block.iter().map(|w| level(w - m.to_f32(), d.to_f32(), 0.0, f32::from(top))).collect();
    let mut out = d.to_le_bytes().to_vec();
    out.extend(m.to_le_bytes());
    if top == 31 {
        out.extend(fifth_bits(&levels));
    }
    out.extend(nibbles(&levels));
    out
}

fn encode_q8_0(block: &[f32]) -> Vec<u8> {
    let d = f16::from_f32(largest(block).abs() / 127.0);
    let mut out = d.to_le_bytes().to_vec();
    out.extend(block.iter().map(|w| level(*w, d.to_f32(), -127.0, 127.0) as i8 as u8));
    out
}

/// Q4_K (`top` 15) and Q5_K (31): eight sub-blocks of 32, scales and minima in six bits each.
fn encode_k(block: &[f32], top: u8) -> Vec<u8> {
    let ranges: Vec<(f32, f32)> = block
        .chunks_exact(32)
        .map(|sub| {
            let (low, high) = range(sub);
            let low = low.min(0.0);
            ((high - low) / f32::from(top), -low)
        })
        .collect();
    let most = |of: fn(&(f32, f32)) -> f32| ranges.iter().map(of).fold(0.0, f32::max);
    let d = f16::from_f32(most(|r| r.0) / 63.0);
    let min = f16::from_f32(most(|r| r.1) / 63.0);
    let mut scales = [0_u8; 12];
    let mut levels = Vec::with_capacity(block.len());
    for (j, ((scale, minimum), sub)) in ranges.iter().zip(block.chunks_exact(32)).enumerate() {
        let scale = level(*scale, d.to_f32(), 0.0, 63.0) as u8;
        let minimum = level(*minimum, min.to_f32(), 0.0, 63.0) as u8;
        if j < 4 {
            scales[j] |= scale;
            scales[j + 4] |= minimum;
        } else {
            scales[j + 4] = scale & 15 | minimum << 4;
            scales[j - 4] |= scale >> 4 << 6;
            scales[j] |= minimum >> 4 << 6;
        }
        let (step, offset) = (d.to_f32() * f32::from(scale), min.to_f32() * f32::from(minimum));
        levels.extend(sub.iter().map(|w| level(w + offset, step, 0.0, f32::from(top))));
    }
    let mut out = d.to_le_bytes().to_vec();
    out.extend(min.to_le_bytes());
    out.extend(scales);
    if top == 31 {
        out.extend((0..32).map(|i| {
            (0..8).fold(0, |bits, sub| bits | ((levels[32 * sub + i] >> 4 & 1) << sub) as u8)
        }));
    }
    for pair in levels.chunks_exact(64) {
        out.extend((0..32).map(|i| (pair[i] & 15 | (pair[i + 32] & 15) << 4) as u8));
    }
    out
}

/// Sixteen sub-blocks of 16 with signed eight-bit scales.
fn encode_q6k(block: &[f32]) -> Vec<u8> {
    let steps: Vec<f32> = block.chunks_exact(16).map(|sub| largest(sub) / -32.0).collect();
    let d = f16::from_f32(largest(&steps) / -128.0);
    let scales: Vec<i32> =
        steps.iter().map(|step| level(*step, d.to_f32(), -128.0, 127.0)).collect();
    let levels: Vec<i32> = block
        .iter()
        .enumerate()
        .map(|(i, w)| level(*w, d.to_f32() * scales[i / 16] as f32, -32.0, 31.0) + 32)
        .collect();
    let (mut low, mut high) = (vec![0_u8; 128], vec![0_u8; 64]);
    for (i, q) in levels.iter().enumerate() {
        let (half, quarter, l) = (i / 128, i / 32 % 4, i % 32);
        low[64 * half + 32 * (quarter % 2) + l] |= ((q & 15) << (4 * (quarter / 2))) as u8;
        high[32 * half + l] |= ((q >> 4) << (2 * quarter)) as u8;
    }
    let mut out = [low, high].concat();
    out.extend(scales.iter().map(|scale| *scale as i8 as u8));
    out.extend(d.to_le_bytes());
    out
}

/// The exponent lets the largest weight fall between 4 and 8 (and then be cut to 6), as the format's
/// specification proposes.
fn encode_mxfp4(block: &[f32]) -> Vec<u8> {
    let exponent = (largest(block).abs().to_bits() >> 23).saturating_sub(2).min(254) as u8;
    let d = e8m0_half(exponent);
    let levels: Vec<i32> = block
        .iter()
        .map(|w| {
            let distance = |code: &usize| (d * f32::from(E2M1_DOUBLED[*code]) - w).abs();
            (0..16).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0) as i32
        })
        .collect();
    let mut out = vec![exponent];
    out.extend(nibbles(&levels));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gguf::dequant::dequantise;

    /// Largest error of a weight, as a share of its block's largest magnitude: half a step, and what
    /// the scales of the K types add.
    fn tolerance(kind: TensorType) -> f32 {
        match kind {
            TensorType::F32 => 0.0,
            TensorType::F16 => 1.0 / 2048.0,
            TensorType::Bf16 => 1.0 / 256.0,
            TensorType::Q8_0 => 0.5 / 127.0 + 0.001,
            // One side of a centred range lacks a level.
            TensorType::Q4_0 => 1.0 / 8.0 + 0.001,
            TensorType::Q5_0 => 1.0 / 16.0 + 0.001,
            TensorType::Q4_1 => 1.0 / 15.0 + 0.001,
            TensorType::Q5_1 => 1.0 / 31.0 + 0.001,
            TensorType::Q4K => 1.0 / 15.0 + 0.04,
            TensorType::Q5K => 1.0 / 31.0 + 0.04,
            TensorType::Q6K => 1.0 / 32.0 + 0.01,
            // From 6 to 8 (scaled) is cut to 6.
            TensorType::Mxfp4 => 0.25,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_encoded_comes_back(
            weights in prop::collection::vec(-1.0_f32..1.0, 512),
            scale in 0.001_f32..100.0,
        ) {
            let weights: Vec<f32> = weights.iter().map(|w| w * scale).collect();
            for kind in TensorType::ALL {
                let data = encode(kind, &weights);
                prop_assert_eq!(data.len(), 512 / kind.block_weights() * kind.block_bytes());
                let back = dequantise(kind, &data);
                for (block, back) in weights.chunks(256).zip(back.chunks(256)) {
                    let bound = largest(block).abs() * tolerance(kind);
                    for (w, b) in block.iter().zip(back) {
                        prop_assert!((w - b).abs() <= bound, "{kind}: {b} for {w}, bound {bound}");
                    }
                }
            }
        }

        #[test]
        fn levels_that_fit_exactly_stay(raw in prop::collection::vec(-7_i8..=7, 256)) {
            let mut weights: Vec<f32> = raw.iter().map(|q| f32::from(*q)).collect();
            for block in weights.chunks_mut(32) {
                block[0] = -8.0;
            }
            for kind in [TensorType::Q4_0, TensorType::F16, TensorType::Bf16, TensorType::F32] {
                prop_assert_eq!(dequantise(kind, &encode(kind, &weights)), weights.clone());
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for kind in TensorType::ALL {
            assert!(
                dequantise(kind, &encode(kind, &[0.0; 256])).iter().all(|w| *w == 0.0),
                "{kind}"
            );
        }
    }
}
