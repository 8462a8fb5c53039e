//! From ggml's blocks to the layouts of `shaders/lib/weights_*.wgsl`, once, at load.
//!
//! ggml's blocks of 18, 20 and 34 bytes would make every GPU load unaligned. Here levels and scales
//! are apart: levels in rows of whole words, scales beside them. Nothing is rounded: a packed weight
//! decodes to exactly the f32 that ggml's formula gives. Types without a layout of their own go to one
//! that holds them exactly, if need be to f32.

use half::f16;

use super::error::EngineError;
use crate::gguf::TensorType;
use crate::gguf::dequant::{dequantise, q4k_scale_min};
use crate::kernels::llm::WeightFormat;

/// Weights per block in every layout.
pub const BLOCK: usize = 32;

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
        TensorType::F32 | TensorType::Bf16 | TensorType::Q5_1 | TensorType::Q6K => {
            WeightFormat::F32
        }
        TensorType::F16 => WeightFormat::F16,
        TensorType::Q8_0 | TensorType::Q5_0 => WeightFormat::Q8,
        TensorType::Q4_0 | TensorType::Q4_1 => WeightFormat::Q4,
        TensorType::Q4K => WeightFormat::Q4S,
    }
}

/// Bytes of one row's levels and of its scales.
#[must_use]
pub fn row_bytes(format: WeightFormat, columns: usize) -> (usize, usize) {
    let blocks = columns / BLOCK;
    match format {
        WeightFormat::F32 => (columns * 4, 0),
        WeightFormat::F16 => (columns * 2, 0),
        WeightFormat::Q8 => (columns, blocks.next_multiple_of(2) * 2),
        WeightFormat::Q4 => (columns / 2, blocks * 4),
        WeightFormat::Q4S => (columns / 2, blocks * 8),
    }
}

/// Packs one row, `data` being its bytes in the file, and appends it to `into`. `name` is for errors.
pub fn pack_row(
    kind: TensorType,
    name: &str,
    data: &[u8],
    into: &mut Packed,
) -> Result<(), EngineError> {
    let blocks = data.chunks_exact(kind.block_bytes());
    match kind {
        TensorType::F32 | TensorType::F16 => into.quants.extend_from_slice(data),
        TensorType::Bf16 | TensorType::Q5_1 | TensorType::Q6K => {
            let weights = dequantise(kind, data);
            into.quants.extend(weights.iter().flat_map(|w| w.to_le_bytes()));
        }
        TensorType::Q8_0 => {
            for block in blocks {
                into.scales.extend_from_slice(&block[..2]);
                into.quants.extend_from_slice(&block[2..]);
            }
            into.scales.resize(into.scales.len().next_multiple_of(4), 0);
        }
        TensorType::Q5_0 => {
            for block in blocks {
                into.scales.extend_from_slice(&block[..2]);
                let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
                into.quants.extend((0..BLOCK).map(|i| {
                    let low = nibble(&block[6..], i);
                    (low | ((high >> i & 1) << 4) as u8).wrapping_sub(16)
                }));
            }
            into.scales.resize(into.scales.len().next_multiple_of(4), 0);
        }
        TensorType::Q4_1 => {
            for block in blocks {
                into.scales.extend_from_slice(&block[..4]);
                pack_nibbles(|i| nibble(&block[4..], i), &mut into.quants);
            }
        }
        TensorType::Q4_0 => {
            for block in blocks {
                // (q - 8) d = q d - 8 d, and -8 d is exact in f16 unless it overflows.
                let d = f16::from_le_bytes([block[0], block[1]]);
                let offset = f16::from_f32(-8.0 * d.to_f32());
                if !offset.is_finite() {
                    return Err(EngineError::UnsupportedModel {
                        reason: format!("tensor {name}: a scale of {d} is absurd"),
                    });
                }
                into.scales.extend(d.to_le_bytes());
                into.scales.extend(offset.to_le_bytes());
                pack_nibbles(|i| nibble(&block[2..], i), &mut into.quants);
            }
        }
        TensorType::Q4K => blocks.for_each(|block| pack_q4k(block, into)),
    }
    Ok(())
}

/// Weight i of a ggml block of 16 bytes: low halves first, then high halves.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 }
}

/// Two neighbouring weights to a byte, the first in the low half.
fn pack_nibbles(level: impl Fn(usize) -> u8, quants: &mut Vec<u8>) {
    quants.extend((0..16).map(|i| level(2 * i) | level(2 * i + 1) << 4));
}

/// A Q4_K block is eight of our blocks; each scale and offset is a product rounded once, as in ggml.
fn pack_q4k(block: &[u8], into: &mut Packed) {
    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
    let min = f16::from_le_bytes([block[2], block[3]]).to_f32();
    for sub in 0..8 {
        let (scale, minimum) = q4k_scale_min(&block[4..16], sub);
        into.scales.extend((d * f32::from(scale)).to_le_bytes());
        into.scales.extend((-(min * f32::from(minimum))).to_le_bytes());
        let quants = &block[16 + sub / 2 * 32..][..32];
        pack_nibbles(|i| quants[i] >> (sub % 2 * 4) & 15, &mut into.quants);
    }
}
