//! Seeds of Proof of Compute: identity strings folded to u32 by SHA-256, spread by a murmur hash.
//!
//! Every random number of a proof comes from `M(key, seed)` below. It is the body and the
//! finaliser of Murmur3-32 for one 4-byte key *without* the length xor of the published
//! algorithm, so a stock library gives other values. All arithmetic is u32 modulo 2^32 and exact
//! on every device; the GPU twin is `shaders/poc/normals.wgsl`.
//!
//! Source of the strings and the hash: Gonka's vLLM plugin, `poc/gpu_random.py`, as fixed by the
//! vectors in `tests/data/poc`.

use sha2::{Digest, Sha256};

/// Start value of one random stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(pub u32);

impl Seed {
    /// First four bytes of SHA-256(UTF-8 text), big-endian.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self::eight_of(text)[0]
    }

    /// All eight big-endian words of SHA-256(UTF-8 text): the sub-seeds of the stronger generator.
    #[must_use]
    pub fn eight_of(text: &str) -> [Self; 8] {
        let digest = Sha256::digest(text.as_bytes());
        let mut words = [Self(0); 8];
        for (word, bytes) in words.iter_mut().zip(digest.chunks_exact(4)) {
            let folded = bytes.iter().fold(0u32, |sum, &byte| (sum << 8) | u32::from(byte));
            *word = Self(folded);
        }
        words
    }

    /// `M(key, self)`: the hash of one key in this stream.
    #[must_use]
    pub fn hash(self, key: u32) -> u32 {
        let key = key.wrapping_mul(0xCC9E_2D51).rotate_left(15).wrapping_mul(0x1B87_3593);
        let mut hash = (self.0 ^ key).rotate_left(13).wrapping_mul(5).wrapping_add(0xE654_6B64);
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xC2B2_AE35);
        hash ^ (hash >> 16)
    }
}

/// The two strings that make a proof ours: which block it answers and whose key earns it.
///
/// Both are used exactly as the request spells them; no normalisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub block_hash: String,
    pub public_key: String,
}

impl Identity {
    /// String of the input embeddings. Note `nonce7`, against `nonce_7` in the others.
    #[must_use]
    pub fn input_text(&self, nonce: u32) -> String {
        format!("{}_{}_nonce{nonce}", self.block_hash, self.public_key)
    }

    /// Seed of the pick of `k` dimensions.
    #[must_use]
    pub fn pick_seed(&self, nonce: u32, k: usize) -> Seed {
        Seed::of(&format!("{}_{}_nonce_{nonce}_pick_{k}", self.block_hash, self.public_key))
    }

    /// Seed of step `step` (0..=k-2) of the Haar rotation in `k` dimensions.
    #[must_use]
    pub fn haar_seed(&self, nonce: u32, k: usize, step: usize) -> Seed {
        Seed::of(&format!(
            "{}_{}_nonce_{nonce}_haar_hh_{k}_{step}",
            self.block_hash, self.public_key
        ))
    }

    /// Seed of the reflection after decoder layer `layer`. It depends on the block alone, so one
    /// set of vectors serves a whole round.
    #[must_use]
    pub fn layer_seed(&self, layer: usize) -> Seed {
        Seed::of(&format!("{}_layer_{layer}_householder", self.block_hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;
    use serde_json::Value;

    #[test]
    fn strings_fold_to_the_published_seeds() {
        for case in vectors::cases("seeds.json") {
            let text = case["string"].as_str().unwrap();
            assert_eq!(u64::from(Seed::of(text).0), case["seed"].as_u64().unwrap(), "{text}");
            let hex: String = Seed::eight_of(text).iter().map(|s| format!("{:08x}", s.0)).collect();
            assert_eq!(hex, case["sha256"].as_str().unwrap());
        }
    }

    #[test]
    fn identity_strings_are_spelled_like_the_network_spells_them() {
        let identity = Identity { block_hash: "TEST_BLOCK".into(), public_key: "test_node".into() };
        let published = |kind: &str, text: &str| -> u32 {
            let found = vectors::cases("seeds.json")
                .into_iter()
                .find(|case| case["kind"] == kind && case["string"] == text)
                .unwrap_or_else(|| panic!("{text} is not in seeds.json"));
            u32::try_from(found["seed"].as_u64().unwrap()).unwrap()
        };
        assert_eq!(
            Seed::of(&identity.input_text(0)).0,
            published("input", "TEST_BLOCK_test_node_nonce0")
        );
        assert_eq!(
            identity.pick_seed(1, 12).0,
            published("pick", "TEST_BLOCK_test_node_nonce_1_pick_12")
        );
        assert_eq!(
            identity.haar_seed(0, 12, 8).0,
            published("haar", "TEST_BLOCK_test_node_nonce_0_haar_hh_12_8")
        );
        assert_eq!(
            identity.layer_seed(88).0,
            published("layer", "TEST_BLOCK_layer_88_householder")
        );
    }

    #[test]
    fn murmur_matches_every_published_hash() {
        for case in vectors::cases("murmur.json") {
            let seed = Seed(vectors::word(&case["seed"]));
            let keys = case["keys"].as_array().unwrap();
            let hashes = case["hashes"].as_array().unwrap();
            assert_eq!(keys.len(), hashes.len());
            for (key, hash) in keys.iter().zip(hashes) {
                let (key, hash): (&Value, &Value) = (key, hash);
                assert_eq!(seed.hash(vectors::word(key)), vectors::word(hash), "key {key}");
            }
        }
    }
}
