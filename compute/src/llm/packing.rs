//! From ggml's blocks to the layouts of `shaders/lib/`, once, at load.
//!
//! ggml's blocks of 17 to 210 bytes would make every GPU load unaligned. Here levels and scales are
//! apart: levels in rows of whole vectors of 16 bytes, scales beside them. Nothing is rounded or
//! widened: a packed weight decodes to exactly the f32 that ggml's formula gives, from as many bits
//! (Q6_K takes 6.63 for 6.56, and rows of Q5 and Q8 types are padded to whole vectors and words).

use half::f16;

use super::error::EngineError;
use crate::gguf::TensorType;
use crate::gguf::dequant::k_scale_min;
use crate::kernels::llm::WeightFormat;

/// Weights per block in every layout.
pub const BLOCK: usize = 32;
/// Weights of one block of ggml's K types.
const SUPER: usize = 256;

/// Levels of a block, in order.
type Levels = [u8; BLOCK];

/// Rows of packed weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    pub quants: Vec<u8>,
    pub scales: Vec<u8>,
}

/// The layout a type is packed into.
#[must_use]
pub fn format_of(kind: TensorType) -> WeightFormat {
    match kind {
        TensorType::F32 => WeightFormat::F32,
        TensorType::F16 => WeightFormat::F16,
        TensorType::Bf16 => WeightFormat::Bf16,
        TensorType::Q8_0 => WeightFormat::Q8,
        TensorType::Q4_0 | TensorType::Q4_1 => WeightFormat::Q4,
        TensorType::Q5_0 | TensorType::Q5_1 => WeightFormat::Q5,
        TensorType::Q4K => WeightFormat::Q4K,
        TensorType::Q5K => WeightFormat::Q5K,
        TensorType::Q6K => WeightFormat::Q6K,
        TensorType::Mxfp4 => WeightFormat::Mxfp4,
    }
}

/// Bytes of one row's levels and of its scales.
#[must_use]
pub fn row_bytes(format: WeightFormat, columns: usize) -> (usize, usize) {
    let blocks = columns / BLOCK;
    let five_bits = blocks * 16 + (blocks * 4).next_multiple_of(16);
    match format {
        WeightFormat::F32 => (columns * 4, 0),
        WeightFormat::F16 | WeightFormat::Bf16 => (columns * 2, 0),
        WeightFormat::Q8 => (columns, (blocks * 2).next_multiple_of(4)),
        WeightFormat::Q4 => (blocks * 16, blocks * 4),
        WeightFormat::Q5 => (five_bits, blocks * 4),
        WeightFormat::Q4K => (blocks * 16, columns / SUPER * 16),
        WeightFormat::Q5K => (five_bits, columns / SUPER * 16),
        WeightFormat::Q6K => (blocks * 24, columns / SUPER * 20),
        WeightFormat::Mxfp4 => (blocks * 16, blocks.next_multiple_of(4)),
    }
}

/// Packs one row, `data` being its bytes in the file, and appends it to `into`. `name` is for errors.
pub fn pack_row(
    kind: TensorType,
    name: &str,
    data: &[u8],
    into: &mut Packed,
) -> Result<(), EngineError> {
    let Packed { quants, scales } = into;
    let blocks = data.chunks_exact(kind.block_bytes());
    match kind {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 => quants.extend_from_slice(data),
        TensorType::Q8_0 => {
            for block in blocks {
                scales.extend_from_slice(&block[..2]);
                quants.extend_from_slice(&block[2..]);
            }
            pad(scales, 4);
        }
        TensorType::Q4_0 => {
            for block in blocks {
                scales.extend(centred(block, 8.0, name)?);
                push_nibbles(&halves(&block[2..]), quants);
            }
        }
        TensorType::Q4_1 => {
            for block in blocks {
                scales.extend_from_slice(&block[..4]);
                push_nibbles(&halves(&block[4..]), quants);
            }
        }
        TensorType::Q5_0 => {
            for block in blocks.clone() {
                scales.extend(centred(block, 16.0, name)?);
            }
            push_five_bits(|| blocks.clone().map(|b| with_fifth(&b[6..], &b[2..6])), quants);
        }
        TensorType::Q5_1 => {
            for block in blocks.clone() {
                scales.extend_from_slice(&block[..4]);
            }
            push_five_bits(|| blocks.clone().map(|b| with_fifth(&b[8..], &b[4..8])), quants);
        }
        TensorType::Q4K => {
            for block in blocks {
                scales.extend(super_scales(block));
                for sub in 0..8 {
                    push_nibbles(&k_nibbles(&block[16..], sub), quants);
                }
            }
        }
        TensorType::Q5K => {
            for block in blocks.clone() {
                scales.extend(super_scales(block));
            }
            push_five_bits(
                || blocks.clone().flat_map(|b| (0..8).map(|s| q5k_levels(b, s))),
                quants,
            );
        }
        TensorType::Q6K => {
            for block in blocks.clone() {
                scales.extend_from_slice(&block[192..210]);
                pad(scales, 4);
            }
            let levels = || blocks.clone().flat_map(|b| (0..8).map(|s| q6k_levels(b, s)));
            levels().for_each(|block| push_nibbles(&block, quants));
            levels().for_each(|block| quants.extend(high_pairs(&block)));
        }
        TensorType::Mxfp4 => {
            for block in blocks {
                scales.push(block[0]);
                push_nibbles(&halves(&block[1..]), quants);
            }
            pad(scales, 4);
        }
    }
    Ok(())
}

fn pad(bytes: &mut Vec<u8>, multiple: usize) {
    bytes.resize(bytes.len().next_multiple_of(multiple), 0);
}

/// Scale and offset of a block of levels that count from `-centre`: (q - centre) d = q d - centre d,
/// and centre d, a power of two times d, is exact in f16 unless it overflows.
fn centred(block: &[u8], centre: f32, name: &str) -> Result<[u8; 4], EngineError> {
    let d = f16::from_le_bytes([block[0], block[1]]);
    let offset = f16::from_f32(-centre * d.to_f32());
    if !offset.is_finite() {
        return Err(EngineError::UnsupportedModel {
            reason: format!("tensor {name}: a scale of {d} is absurd"),
        });
    }
    let ([a, b], [c, d]) = (d.to_le_bytes(), offset.to_le_bytes());
    Ok([a, b, c, d])
}

/// Levels of a ggml block of 16 bytes: low halves first, then high halves.
fn halves(bytes: &[u8]) -> Levels {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

fn with_fifth(nibbles: &[u8], fifth: &[u8]) -> Levels {
    let low = halves(nibbles);
    std::array::from_fn(|i| low[i] | (fifth[i / 8] >> (i % 8) & 1) << 4)
}

/// Low four bits of sub-block `sub` of a Q4_K or Q5_K block.
fn k_nibbles(quants: &[u8], sub: usize) -> Levels {
    let bytes = &quants[sub / 2 * 32..][..32];
    std::array::from_fn(|i| bytes[i] >> (sub % 2 * 4) & 15)
}

fn q5k_levels(block: &[u8], sub: usize) -> Levels {
    let low = k_nibbles(&block[48..], sub);
    std::array::from_fn(|i| low[i] | (block[16 + i] >> sub & 1) << 4)
}

/// Levels, counted from 0, of 32 weights of a Q6_K block.
fn q6k_levels(block: &[u8], sub: usize) -> Levels {
    let (half, quarter) = (sub / 4, sub % 4);
    let low = &block[64 * half + 32 * (quarter % 2)..][..32];
    let high = &block[128 + 32 * half..][..32];
    std::array::from_fn(|i| {
        (low[i] >> (4 * (quarter / 2)) & 15) | (high[i] >> (2 * quarter) & 3) << 4
    })
}

/// Position of byte k of half h of part p: weight 8p + 4h + k.
fn weight(part: usize, half: usize, byte: usize) -> usize {
    8 * part + 4 * half + byte
}

/// Low four bits, as `levels_4bit.wgsl` wants them.
fn push_nibbles(levels: &Levels, quants: &mut Vec<u8>) {
    let at = |i: usize, half: usize| levels[weight(i / 4, half, i % 4)] & 15;
    quants.extend_from_slice(&std::array::from_fn::<u8, 16, _>(|i| at(i, 0) | at(i, 1) << 4));
}

/// A row as `levels_5bit.wgsl` wants it: low four bits of all blocks, then all fifth bits.
fn push_five_bits<I: Iterator<Item = Levels>>(blocks: impl Fn() -> I, quants: &mut Vec<u8>) {
    blocks().for_each(|levels| push_nibbles(&levels, quants));
    for levels in blocks() {
        let byte = |k: usize| {
            (0..8).fold(0, |bits, i| bits | (levels[weight(i / 2, i % 2, k)] >> 4 & 1) << i)
        };
        quants.extend_from_slice(&std::array::from_fn::<u8, 4, _>(byte));
    }
    pad(quants, 16);
}

/// The two high bits of six, as `weights_q6k.wgsl` wants them: word w holds parts 2w and 2w + 1.
fn high_pairs(levels: &Levels) -> [u8; 8] {
    std::array::from_fn(|at| {
        let (word, k) = (at / 4, at % 4);
        (0..4).fold(0, |bits, i| {
            bits | (levels[weight(2 * word + i / 2, i % 2, k)] >> 4 & 3) << (2 * i)
        })
    })
}

/// Scales of a Q4_K or Q5_K block, as `scales_super.wgsl` wants them.
fn super_scales(block: &[u8]) -> [u8; 16] {
    let (mut scale_low, mut minimum_low, mut high) = (0_u32, 0_u32, 0_u32);
    for b in 0..8 {
        let (scale, minimum) = k_scale_min(&block[4..16], b);
        scale_low |= u32::from(scale & 15) << (4 * b);
        minimum_low |= u32::from(minimum & 15) << (4 * b);
        high |= u32::from(scale >> 4) << (2 * b) | u32::from(minimum >> 4) << (16 + 2 * b);
    }
    let mut out = [0; 16];
    out[..4].copy_from_slice(&block[..4]);
    for (at, word) in [(4, scale_low), (8, minimum_low), (12, high)] {
        out[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    out
}
