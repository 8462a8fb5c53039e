//! Random blocks of every tensor type, at the speed of a disk: levels are drawn as bits, not rounded
//! from floats.

use half::{bf16, f16};

use crate::gguf::TensorType;

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and three multiplications a word, any seed
/// is as good as any other.
pub struct Noise(u64);

impl Noise {
    /// The stream of one tensor of one model.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut noise = Self(seed);
        let seed = noise.word();
        Self(seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, count: usize, into: &mut Vec<u8>) {
        let end = into.len() + count;
        while into.len() < end {
            let word = self.word().to_le_bytes();
            let take = (end - into.len()).min(word.len());
            into.extend_from_slice(&word[..take]);
        }
    }

    /// Evenly distributed around zero with standard deviation 1.
    fn unit(&mut self) -> f32 {
        const HALF_WIDTH: f32 = 1.732_050_8;
        ((self.word() >> 40) as f32 / (1 << 23) as f32 - 1.0) * HALF_WIDTH
    }

    /// Little-endian f32 around `centre` with standard deviation `spread`.
    pub fn floats(&mut self, count: usize, centre: f32, spread: f32, into: &mut Vec<u8>) {
        for _ in 0..count {
            into.extend((centre + spread * self.unit()).to_le_bytes());
        }
    }

    /// Blocks of `kind` whose weights have mean 0 and standard deviation `spread`.
    ///
    /// A block is scale fields and random bits; the divisors below are the standard deviations of the
    /// level that the bits decode to under a scale of one (layouts: ggml `ggml-common.h`).
    pub fn blocks(&mut self, kind: TensorType, count: usize, spread: f32, into: &mut Vec<u8>) {
        match kind {
            TensorType::F32 => self.floats(count, 0.0, spread, into),
            TensorType::F16 => {
                for _ in 0..count {
                    into.extend(f16::from_f32(spread * self.unit()).to_le_bytes());
                }
            }
            TensorType::Bf16 => {
                for _ in 0..count {
                    into.extend(bf16::from_f32(spread * self.unit()).to_le_bytes());
                }
            }
            // Levels -8..=7, -16..=15 and -128..=127 have a mean of a half below zero, so the scale's sign is drawn.
            TensorType::Q4_0 => self.scaled(count, spread / 4.61, 16, into),
            TensorType::Q5_0 => self.scaled(count, spread / 9.23, 20, into),
            TensorType::Q8_0 => self.scaled(count, spread / 73.9, 32, into),
            TensorType::Q4_1 => self.offset(count, spread / 4.61, -7.5, 16, into),
            TensorType::Q5_1 => self.offset(count, spread / 9.23, -15.5, 20, into),
            // Level times 6-bit scale, less 6-bit minimum: with the minimum's unit at 7.5 scales the mean is 0.
            TensorType::Q4K => self.offset(count, spread / 258.2, 7.5, 140, into),
            TensorType::Q5K => self.offset(count, spread / 526.9, 15.5, 172, into),
            TensorType::Mxfp4 => self.microscaled(count, spread / 5.852, into),
            // Levels -32..=31 times signed 8-bit scales; the scale stands behind the bits.
            TensorType::Q6K => {
                for _ in 0..count {
                    self.bytes(208, into);
                    into.extend(f16::from_f32(spread / 1366.0).to_le_bytes());
                }
            }
        }
    }

    /// Blocks of e2m1 codes, whose doubled values have a scale of half a power of two: two neighbouring
    /// powers are mixed so that the variance comes out as that of `scale`.
    fn microscaled(&mut self, count: usize, scale: f32, into: &mut Vec<u8>) {
        let low = scale.log2().floor();
        let larger_share = ((scale / low.exp2()).powi(2) - 1.0) / 3.0;
        for _ in 0..count {
            let larger = (self.word() >> 40) as f32 / (1 << 24) as f32;
            into.push((low + 128.0) as u8 + u8::from(larger < larger_share));
            self.bytes(16, into);
        }
    }

    /// One f16 scale of random sign, then `bits` random bytes.
    fn scaled(&mut self, count: usize, scale: f32, bits: usize, into: &mut Vec<u8>) {
        for _ in 0..count {
            let sign = if self.word() >> 63 == 0 { 1.0 } else { -1.0 };
            into.extend(f16::from_f32(sign * scale).to_le_bytes());
            self.bytes(bits, into);
        }
    }

    /// An f16 scale, an f16 of `offset` scales, then `bits` random bytes.
    fn offset(&mut self, count: usize, scale: f32, offset: f32, bits: usize, into: &mut Vec<u8>) {
        let scale = f16::from_f32(scale);
        let head = [scale.to_le_bytes(), f16::from_f32(scale.to_f32() * offset).to_le_bytes()];
        for _ in 0..count {
            into.extend(head.as_flattened());
            self.bytes(bits, into);
        }
    }
}
