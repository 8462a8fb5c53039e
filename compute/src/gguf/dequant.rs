//! From ggml's blocks to f32: the reference every kernel that reads weights is held against.
//!
//! Formulas and bit layouts are those of ggml's `ggml-quants.c` (`dequantize_row_*`); all are exact in
//! f32 up to the one rounding each formula has.

use half::{bf16, f16};

use super::tensor::TensorType;

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Decodes whole blocks; a ragged tail is ignored (the reader guarantees there is none).
#[must_use]
pub fn dequantise(kind: TensorType, data: &[u8]) -> Vec<f32> {
    let blocks = data.chunks_exact(kind.block_bytes());
    let mut weights = Vec::with_capacity(blocks.len() * kind.block_weights());
    for block in blocks {
        decode_block(kind, block, &mut weights);
    }
    weights
}

fn decode_block(kind: TensorType, block: &[u8], out: &mut Vec<f32>) {
    match kind {
        TensorType::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
        TensorType::F16 => out.push(half_at(block, 0)),
        TensorType::Bf16 => out.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
        TensorType::Q4_0 => {
            nibbles(&block[2..18], out, |q, _| (f32::from(q) - 8.0) * half_at(block, 0))
        }
        TensorType::Q4_1 => {
            let (d, m) = (half_at(block, 0), half_at(block, 2));
            nibbles(&block[4..20], out, |q, _| f32::from(q) * d + m);
        }
        TensorType::Q5_0 => {
            let (d, high) = (half_at(block, 0), fifth_bits(&block[2..6]));
            nibbles(&block[6..22], out, |q, i| (f32::from(q | high(i)) - 16.0) * d);
        }
        TensorType::Q5_1 => {
            let (d, m, high) = (half_at(block, 0), half_at(block, 2), fifth_bits(&block[4..8]));
            nibbles(&block[8..24], out, |q, i| f32::from(q | high(i)) * d + m);
        }
        TensorType::Q8_0 => {
            let d = half_at(block, 0);
            out.extend(block[2..34].iter().map(|q| f32::from(q.cast_signed()) * d));
        }
        TensorType::Q4K => decode_q4k(block, out),
        TensorType::Q5K => decode_q5k(block, out),
        TensorType::Q6K => decode_q6k(block, out),
        TensorType::Mxfp4 => {
            let d = e8m0_half(block[0]);
            nibbles(&block[1..17], out, |q, _| d * f32::from(E2M1_DOUBLED[usize::from(q)]));
        }
    }
}

/// Twice the values of the sixteen e2m1 codes, which are then whole numbers.
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of 2^(e - 127), to go with [`E2M1_DOUBLED`]; ggml's `ggml_e8m0_to_fp32_half`.
#[must_use]
pub fn e8m0_half(e: u8) -> f32 {
    f32::from_bits(match e {
        // Below the smallest normal f32: 2^-128 and 2^-127.
        0 | 1 => 0x0020_0000 << e,
        _ => u32::from(e - 1) << 23,
    })
}

/// 32 nibbles of 16 bytes: first all low halves, then all high ones.
fn nibbles(quants: &[u8], out: &mut Vec<f32>, weight: impl Fn(u8, usize) -> f32) {
    out.extend(quants.iter().enumerate().map(|(i, q)| weight(q & 15, i)));
    out.extend(quants.iter().enumerate().map(|(i, q)| weight(q >> 4, i + 16)));
}

/// The fifth bit of weight i of a Q5 block, already shifted into place.
fn fifth_bits(bytes: &[u8]) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    move |i| if bits >> i & 1 == 1 { 16 } else { 0 }
}

/// The six-bit scale and minimum of sub-block `j` of a Q4_K or Q5_K block, from its 12 packed bytes.
#[must_use]
pub fn k_scale_min(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4),
            (packed[j + 4] >> 4) | (packed[j] >> 6 << 4),
        )
    }
}

fn decode_q4k(block: &[u8], out: &mut Vec<f32>) {
    let (d, min) = (half_at(block, 0), half_at(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..144]);
    for (pair, chunk) in quants.chunks_exact(32).enumerate() {
        for (half, shift) in [(0, 0), (1, 4)] {
            let (scale, minimum) = k_scale_min(packed, 2 * pair + half);
            let (d, m) = (d * f32::from(scale), min * f32::from(minimum));
            out.extend(chunk.iter().map(|q| d * f32::from(q >> shift & 15) - m));
        }
    }
}

fn decode_q5k(block: &[u8], out: &mut Vec<f32>) {
    let (d, min) = (half_at(block, 0), half_at(block, 2));
    let (packed, fifth, quants) = (&block[4..16], &block[16..48], &block[48..176]);
    for sub in 0..8 {
        let (scale, minimum) = k_scale_min(packed, sub);
        let (d, m) = (d * f32::from(scale), min * f32::from(minimum));
        out.extend((0..32).map(|i| {
            let four = quants[sub / 2 * 32 + i] >> (sub % 2 * 4) & 15;
            d * f32::from(four | (fifth[i] >> sub & 1) << 4) - m
        }));
    }
}

fn decode_q6k(block: &[u8], out: &mut Vec<f32>) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for half in 0..2 {
        let (low, high) = (&low[64 * half..], &high[32 * half..]);
        for quarter in 0..4 {
            for l in 0..32 {
                let four = low[l + 32 * (quarter % 2)] >> (4 * (quarter / 2)) & 15;
                let two = high[l] >> (2 * quarter) & 3;
                let q = f32::from(four | two << 4) - 32.0;
                let scale = scales[8 * half + 2 * quarter + l / 16].cast_signed();
                out.push(d * f32::from(scale) * q);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(head: &[f32], body: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            head.iter().flat_map(|f| f16::from_f32(*f).to_le_bytes()).collect();
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn q4_1_splits_low_and_high_nibbles() {
        let quants: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let weights = dequantise(TensorType::Q4_1, &block(&[0.5, -1.0], &quants));
        assert_eq!(weights.len(), 32);
        assert_eq!(&weights[..3], &[-1.0, -0.5, 0.0]);
        assert_eq!(&weights[16..18], &[6.5, 6.0]);
    }

    #[test]
    fn q4_0_is_centred_on_eight() {
        let weights = dequantise(TensorType::Q4_0, &block(&[2.0], &[0xF0; 16]));
        assert_eq!((weights[0], weights[16]), (-16.0, 14.0));
    }

    #[test]
    fn q8_0_is_signed() {
        let mut quants = [0_u8; 32];
        (quants[0], quants[31]) = (0x80, 0x7F);
        let weights = dequantise(TensorType::Q8_0, &block(&[0.25], &quants));
        assert_eq!((weights[0], weights[31]), (-32.0, 31.75));
    }

    #[test]
    fn q5_takes_its_fifth_bit_from_the_mask() {
        let mut body = vec![0x01, 0x00, 0x01, 0x00];
        body.extend([0x21; 16]);
        let weights = dequantise(TensorType::Q5_0, &block(&[1.0], &body));
        assert_eq!((weights[0], weights[1], weights[16], weights[17]), (1.0, -15.0, 2.0, -14.0));
        let weights = dequantise(TensorType::Q5_1, &block(&[1.0, 3.0], &body));
        assert_eq!((weights[0], weights[1]), (20.0, 4.0));
    }

    #[test]
    fn q4_k_unpacks_scales_on_both_sides_of_four() {
        let mut body = vec![0_u8; 12];
        (body[0], body[4]) = (0b1100_0010, 0b0100_0011); // sub-block 0: scale 2, min 3
        body[8] = 0b0101_0001; // sub-block 4: low bits scale 1, min 5
        body.extend([0x21; 128]);
        let weights = dequantise(TensorType::Q4K, &block(&[1.0, 0.5], &body));
        assert_eq!(weights.len(), 256);
        assert_eq!(weights[0], 2.0 * 1.0 - 1.5);
        assert_eq!(weights[128], f32::from(1_u8 | 3 << 4) - 0.5 * f32::from(5_u8 | 1 << 4));
    }

    #[test]
    fn q6_k_joins_four_low_and_two_high_bits() {
        let mut bytes = vec![0x21_u8; 128];
        bytes.extend([0b11_10_01_00; 64]);
        bytes.extend([1_u8; 16]);
        bytes.extend(f16::from_f32(1.0).to_le_bytes());
        let weights = dequantise(TensorType::Q6K, &bytes);
        assert_eq!(weights.len(), 256);
        assert_eq!([weights[0], weights[32], weights[64], weights[96]], [-31.0, -15.0, 2.0, 18.0]);
    }
}
