//! Random numbers for tests: seeded, so that a failure repeats.

use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::encode::encode;

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
        encode(kind, &self.floats(count))
    }
}
