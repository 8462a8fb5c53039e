//! Input embeddings of a nonce: `[seq_len, dim]` seeded normals in place of token embeddings.
//!
//! The plain generator is one stream over the whole tensor. The stronger one
//! (`poc_stronger_rng`) cuts the flat tensor into eight segments, each a stream of its own seed
//! with its own cosine and sine halves. Both are described by the same [`InputStreams`], which is
//! also what the GPU generator is fed.

use super::normal::NormalStream;
use super::seed::{Identity, Seed};

/// Largest tensor of one nonce, in values: 2^31 f32 are 8 GiB, above any buffer we bind.
pub const INPUT_VALUES_MAX: u32 = 1 << 31;

/// The streams whose concatenation is the flat, row-major input tensor of one nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputStreams {
    /// One stream, or up to eight with the stronger generator. Only the last may be shorter.
    pub segments: Vec<NormalStream>,
    /// Values in all segments.
    pub count: u32,
}

impl InputStreams {
    /// Streams for `count = seq_len * dim` values of `nonce`.
    #[must_use]
    pub fn new(identity: &Identity, nonce: u32, count: u32, stronger_rng: bool) -> Self {
        let text = identity.input_text(nonce);
        if !stronger_rng {
            return Self { segments: vec![NormalStream { seed: Seed::of(&text), count }], count };
        }
        let length = count.div_ceil(8);
        let mut segments = Vec::with_capacity(8);
        let mut left = count;
        for seed in Seed::eight_of(&text) {
            let take = length.min(left);
            if take > 0 {
                segments.push(NormalStream { seed, count: take });
            }
            left -= take;
        }
        Self { segments, count }
    }

    /// The flat tensor, made on the host.
    #[must_use]
    pub fn generate(&self) -> Vec<f32> {
        let mut values = vec![0f32; self.count as usize];
        let mut rest = values.as_mut_slice();
        for segment in &self.segments {
            let (head, tail) = rest.split_at_mut(segment.count as usize);
            segment.fill(head);
            rest = tail;
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;

    #[test]
    fn embeddings_match_the_published_tensors() {
        let (mut entries, mut bf16_off, mut f16_off) = (0u32, 0u32, 0u32);
        for case in vectors::cases("inputs.json") {
            let count = vectors::word(&case["dim"]) * vectors::word(&case["seq_len"]);
            let stronger = case["poc_stronger_rng"].as_bool().unwrap();
            let nonce = vectors::word(&case["nonce"]);
            let values =
                InputStreams::new(&vectors::identity(&case), nonce, count, stronger).generate();
            assert_eq!(values.len(), count as usize);
            let expected = vectors::reals(&case["value_f32"]);
            for (slot, index) in vectors::counts(&case["flat_index"]).into_iter().enumerate() {
                let value = values[index];
                let error = (f64::from(value) - expected[slot]).abs();
                assert!(error <= 2e-6, "nonce {nonce} index {index}: {error}");
                let bf16 = u32::from(half::bf16::from_f32(value).to_bits());
                let f16 = u32::from(half::f16::from_f32(value).to_bits());
                let bf16_want = vectors::word(&case["bf16_bits"][slot]);
                let f16_want = vectors::word(&case["f16_bits"][slot]);
                assert!(bf16.abs_diff(bf16_want) <= 1 && f16.abs_diff(f16_want) <= 1);
                entries += 1;
                bf16_off += u32::from(bf16 != bf16_want);
                f16_off += u32::from(f16 != f16_want);
            }
            let sum: f64 = values.iter().map(|&z| f64::from(z)).sum();
            let squares: f64 = values.iter().map(|&z| f64::from(z) * f64::from(z)).sum();
            assert!((sum - case["sum_f64"].as_f64().unwrap()).abs() <= 1e-2);
            let squares_want = case["sumsq_f64"].as_f64().unwrap();
            assert!((squares - squares_want).abs() <= 1e-5 * squares_want);
        }
        assert!(bf16_off * 200 <= entries, "{bf16_off} of {entries} bf16 values round elsewhere");
        assert!(f16_off * 200 <= entries, "{f16_off} of {entries} f16 values round elsewhere");
    }

    #[test]
    fn stronger_segments_cover_any_length() {
        let identity = Identity { block_hash: "b".into(), public_key: "k".into() };
        for count in [1, 7, 8, 9, 15, 2885] {
            let streams = InputStreams::new(&identity, 0, count, true);
            assert!(streams.segments.len() <= 8);
            assert_eq!(streams.segments.iter().map(|s| s.count).sum::<u32>(), count);
            assert_eq!(streams.generate().len(), count as usize);
        }
    }
}
