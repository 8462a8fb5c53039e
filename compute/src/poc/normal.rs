//! Standard normals from a seed: Box-Muller over hashed uniforms.
//!
//! For `n` normals, `P = ceil(n / 2)` pairs are drawn: radii from the uniforms `0..P`, angles from
//! the uniforms `P..2P`. All cosines come first, then all sines; the two are not interleaved. So
//! value `i` of a stream depends on its length, and a prefix cannot be drawn alone.
//!
//! The network computes this in f32; here the formula runs in f64 and is rounded once, which
//! stays within 2e-6 of every conforming device. The GPU twin is `shaders/poc/normals.wgsl`.

use super::seed::Seed;

/// Floor of the uniform under the logarithm; bounds |z| at 6.79. `fl(1e-10)`.
const UNIFORM_MIN: f32 = 1e-10;

/// `fl(2 pi)`: the network's angle is this f32 times the uniform, not 2 pi.
const TURN: f32 = std::f32::consts::TAU;

/// Uniform in [0, 1] from a hash: the u32 rounded to nearest-even f32, times 2^-32.
///
/// Hashes from 0xFFFFFF80 up give exactly 1.0.
#[must_use]
pub fn unit(hash: u32) -> f32 {
    // `as` rounds an integer to the nearest f32, ties to even; the scale is a power of two.
    hash as f32 * (1.0 / 4_294_967_296.0)
}

/// A stream of `count` standard normals, addressable by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormalStream {
    pub seed: Seed,
    /// Length of the whole stream; it decides where the sine half begins.
    pub count: u32,
}

impl NormalStream {
    fn pairs(self) -> u32 {
        self.count.div_ceil(2)
    }

    /// Value at `position`, before rounding to f32. Position counts below `self.count`.
    #[must_use]
    pub fn at(self, position: u32) -> f64 {
        debug_assert!(position < self.count);
        let pairs = self.pairs();
        let pair = if position < pairs { position } else { position - pairs };
        let (cosine, sine) = self.pair(pair);
        if position < pairs { cosine } else { sine }
    }

    /// The whole stream as f64.
    #[must_use]
    pub fn exact(self) -> Vec<f64> {
        let (mut values, mut sines) = (Vec::new(), Vec::new());
        for pair in 0..self.pairs() {
            let (cosine, sine) = self.pair(pair);
            values.push(cosine);
            sines.push(sine);
        }
        values.extend(sines);
        values.truncate(self.count as usize);
        values
    }

    /// Writes the stream, rounded to f32, to `out`, whose length must be the stream's.
    pub fn fill(self, out: &mut [f32]) {
        debug_assert_eq!(out.len(), self.count as usize);
        let (cosines, sines) = out.split_at_mut(self.pairs() as usize);
        for (pair, slot) in (0..).zip(cosines.iter_mut()) {
            let (cosine, sine) = self.pair(pair);
            *slot = cosine as f32;
            // An odd stream has one cosine more than it has sines.
            if let Some(slot) = sines.get_mut(pair as usize) {
                *slot = sine as f32;
            }
        }
    }

    fn pair(self, pair: u32) -> (f64, f64) {
        let uniform = unit(self.seed.hash(pair)).max(UNIFORM_MIN);
        let turns = unit(self.seed.hash(self.pairs().wrapping_add(pair)));
        let radius = (-2.0 * f64::from(uniform).ln()).sqrt();
        let (sine, cosine) = (f64::from(TURN) * f64::from(turns)).sin_cos();
        (radius * cosine, radius * sine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;

    #[test]
    fn uniforms_are_bit_exact() {
        let table = vectors::document("u32_to_unit.json");
        let hashes = table["hash"].as_array().unwrap();
        let bits = table["f32_bits"].as_array().unwrap();
        assert!(!hashes.is_empty());
        assert_eq!(hashes.len(), bits.len());
        for (hash, bits) in hashes.iter().zip(bits) {
            assert_eq!(unit(vectors::word(hash)).to_bits(), vectors::word(bits), "hash {hash}");
        }
    }

    #[test]
    fn normals_match_to_two_millionths() {
        let mut worst = 0f64;
        for case in vectors::cases("normal.json") {
            let stream = NormalStream {
                seed: Seed(vectors::word(&case["seed"])),
                count: vectors::word(&case["n"]),
            };
            let mut values = vec![0f32; stream.count as usize];
            stream.fill(&mut values);
            let expected = vectors::reals(&case["normal_f64"]);
            for (slot, index) in vectors::counts(&case["index"]).into_iter().enumerate() {
                let key = u32::try_from(index).unwrap();
                let uniform = unit(stream.seed.hash(key));
                assert_eq!(uniform.to_bits(), vectors::word(&case["uniform_bits"][slot]));
                let error = (f64::from(values[index]) - expected[slot]).abs();
                worst = worst.max(error);
                assert!(error <= 2e-6, "n {} index {index}: {error}", stream.count);
            }
            let sum: f64 = values.iter().map(|&z| f64::from(z)).sum();
            let squares: f64 = values.iter().map(|&z| f64::from(z) * f64::from(z)).sum();
            let (sum_want, squares_want) =
                (case["sum_f64"].as_f64().unwrap(), case["sumsq_f64"].as_f64().unwrap());
            assert!((sum - sum_want).abs() <= 1e-5 * sum_want.abs().max(1.0));
            assert!((squares - squares_want).abs() <= 1e-5 * squares_want);
        }
        println!("largest error of a normal: {worst:.1e}");
    }

    #[test]
    fn every_way_to_read_a_stream_agrees() {
        for count in [1, 2, 3, 12, 577] {
            let stream = NormalStream { seed: Seed(7), count };
            let mut filled = vec![0f32; count as usize];
            stream.fill(&mut filled);
            let exact = stream.exact();
            assert_eq!(exact.len(), filled.len());
            for position in 0..count {
                let index = position as usize;
                assert_eq!(stream.at(position).to_bits(), exact[index].to_bits());
                assert_eq!((exact[index] as f32).to_bits(), filled[index].to_bits());
            }
        }
    }
}
