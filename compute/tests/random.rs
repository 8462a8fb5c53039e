//! Random numbers for tests: seeded, so that a failure repeats.

use half::f16;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::writer::encode;

/// Xorshift; quality does not matter here.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn word(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        self.word() as f32 / (1_u64 << 31) as f32 - 1.0
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Encoded weights of any type, of size about one.
    pub fn weights(&mut self, kind: TensorType, count: usize) -> Vec<u8> {
        if let Some(data) = encode(kind, &self.floats(count)) {
            return data;
        }
        // No encoder: random bits everywhere but in the f16 scales, which must be sane numbers.
        let scales: &[(usize, f32)] = match kind {
            TensorType::Q5_0 => &[(0, 0.06)],
            TensorType::Q5_1 => &[(0, 0.06), (2, -1.0)],
            TensorType::Q4K => &[(0, 0.002), (2, 0.02)],
            TensorType::Q6K => &[(208, 0.0005)],
            other => panic!("{other} has an encoder"),
        };
        let blocks = count / kind.block_weights();
        let mut data = Vec::new();
        for _ in 0..blocks {
            let mut block: Vec<u8> = (0..kind.block_bytes()).map(|_| self.word() as u8).collect();
            for (at, scale) in scales {
                block[*at..at + 2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
            }
            data.extend(block);
        }
        data
    }
}
