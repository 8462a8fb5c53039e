//! What the steps of a DECODE round are seeded with.
//!
//! A step's input, its picked dimensions and, where a model routes by them, its token id hang on the point the step
//! before came to; so no step can be computed before the last. The first point hangs on the prefill alone, and its pick
//! has a string of its own. Source: Gonka's vLLM plugin, `poc/decode_random.py`.

use super::codebook::SPHERE_DIMS;
use super::inputs::InputStreams;
use super::normal::NormalStream;
use super::pick::pick;
use super::seed::{Identity, Seed};

const MIX_POINT: u32 = 0x9E37_79B1;
const MIX_STEP: u32 = 0x85EB_CA77;
const SALT_EMBEDDING: u32 = 0x0D;
const SALT_PICK: u32 = 0x91;
const SALT_TOKEN_ID: u32 = 0x57;

/// Seeds of one nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceSteps {
    base: Seed,
    first_pick: Seed,
}

impl NonceSteps {
    /// Of `nonce` in a round.
    #[must_use]
    pub fn new(identity: &Identity, nonce: u32) -> Self {
        let Identity { block_hash, public_key } = identity;
        let first = format!("{block_hash}_{public_key}_nonce_{nonce}_pick_{SPHERE_DIMS}_decode0");
        Self { base: Seed::of(&identity.input_text(nonce)), first_pick: Seed::of(&first) }
    }

    /// Seed of a use in `step`, counted from 1, after a step that came to `before`.
    fn seed(self, step: u32, before: u8, salt: u32) -> Seed {
        let key = u32::from(before)
            .wrapping_mul(MIX_POINT)
            .wrapping_add(step.wrapping_mul(MIX_STEP))
            .wrapping_add(salt);
        Seed(self.base.hash(key))
    }

    /// The input row `[dim]` of a step.
    #[must_use]
    pub fn input(self, step: u32, before: u8, dim: u32) -> InputStreams {
        let seed = self.seed(step, before, SALT_EMBEDDING);
        InputStreams { segments: vec![NormalStream { seed, count: dim }], count: dim }
    }

    /// The dimensions that the prefill is judged by, in order.
    #[must_use]
    pub fn first_pick(self, dim: u32) -> Vec<usize> {
        pick(self.first_pick, dim, SPHERE_DIMS)
    }

    /// The dimensions that a step is judged by, in order.
    #[must_use]
    pub fn pick(self, step: u32, before: u8, dim: u32) -> Vec<usize> {
        pick(self.seed(step, before, SALT_PICK), dim, SPHERE_DIMS)
    }

    /// The token id of a step, for models that route by it.
    #[must_use]
    pub fn token_id(self, step: u32, before: u8, vocabulary: u32) -> u32 {
        self.seed(step, before, SALT_TOKEN_ID).hash(0) % vocabulary.max(1)
    }
}

/// Which experts the rows of a nonce meet, layer by layer: in this scheme no router is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForcedExperts {
    /// Of each layer of experts, counted from 0.
    layers: Vec<Seed>,
    experts: u32,
}

impl ForcedExperts {
    /// Of `nonce` in a model with so many layers, each with `experts` experts.
    #[must_use]
    pub fn new(identity: &Identity, nonce: u32, layers: usize, experts: u32) -> Self {
        let seed =
            |layer| Seed::of(&format!("{}_n{nonce}_route_layer_{layer}", identity.block_hash));
        Self { layers: (0..layers).map(seed).collect(), experts: experts.max(1) }
    }

    /// The first expert in every layer; those of smaller shares follow it, around the end. All tokens of the prefill are
    /// step 0.
    #[must_use]
    pub fn firsts(&self, step: u32) -> Vec<u32> {
        self.layers.iter().map(|seed| seed.hash(step) % self.experts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::codebook::{POINTS, RAW_SHA256};
    use super::*;
    use crate::poc::vectors;

    #[test]
    fn the_published_chains_come_out() {
        let steps_of =
            |case: &serde_json::Value, name: &str| case[name].as_array().unwrap().clone();
        for case in vectors::cases("decode_chain.json") {
            let (identity, nonce) = (vectors::identity(&case), vectors::word(&case["nonce"]));
            let steps = NonceSteps::new(&identity, nonce);
            assert_eq!(steps.base.0, vectors::word(&case["base_seed"]));
            for step in steps_of(&case, "steps") {
                let number = vectors::word(&step["step"]);
                let before = u8::try_from(vectors::word(&step["prev_k"])).unwrap();
                for (salt, name) in [
                    (SALT_EMBEDDING, "seed_embed"),
                    (SALT_PICK, "seed_pick"),
                    (SALT_TOKEN_ID, "seed_token_id"),
                ] {
                    let seed = steps.seed(number, before, salt);
                    assert_eq!(seed.0, vectors::word(&step[name]), "{name} of step {number}");
                }
                let row = steps.input(number, before, 576).generate();
                let first = vectors::reals(&step["embed_first8"]);
                let last = vectors::reals(&step["embed_last2"]);
                let wanted = first.iter().chain(&last);
                for (value, want) in row[..8].iter().chain(&row[574..]).zip(wanted) {
                    assert!((f64::from(*value) - want).abs() <= 2e-6, "step {number}");
                }
                let picked = steps.pick(number, before, 576);
                assert_eq!(picked.len(), SPHERE_DIMS);
                assert_eq!(picked[..16], vectors::counts(&step["pick256_dim576_first16"])[..]);
                assert_eq!(picked[SPHERE_DIMS - 1] as u64, step["pick256_last"].as_u64().unwrap());
                let sum: usize = picked.iter().sum();
                assert_eq!(sum as u64, step["pick256_sum"].as_u64().unwrap());
                let id = steps.token_id(number, before, 129_280);
                assert_eq!(id, vectors::word(&step["token_id_vocab129280"]));
            }
            for routing in steps_of(&case, "routing") {
                let [layer, step, experts, used] = ["layer", "step", "n_experts", "top_k"]
                    .map(|name| vectors::word(&routing[name]));
                let forced = ForcedExperts::new(&identity, nonce, 1 + layer as usize, experts);
                let first = forced.firsts(step)[layer as usize];
                let forced: Vec<u32> = (0..used).map(|at| (first + at) % experts).collect();
                let wanted: Vec<u32> =
                    routing["experts"].as_array().unwrap().iter().map(vectors::word).collect();
                assert_eq!(forced, wanted, "layer {layer} step {step}");
            }
        }
    }

    /// The constants that stand beside the trajectories published for this scheme.
    #[test]
    fn the_constants_are_the_published_ones() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/gonka/poc_golden_decode.json");
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let published = |name: &str| {
            let text = golden["constants"][name].as_str().unwrap();
            u32::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
        };
        assert_eq!((published("mix_a"), published("mix_b")), (MIX_POINT, MIX_STEP));
        let salts = ["salt_embed", "salt_pick", "salt_token_id"].map(published);
        assert_eq!(salts, [SALT_EMBEDDING, SALT_PICK, SALT_TOKEN_ID]);
        let book = &golden["codebook"];
        assert_eq!(
            (vectors::count(&book["points"]), vectors::count(&book["dim"])),
            (POINTS, SPHERE_DIMS)
        );
        assert_eq!(book["sha256_of_raw_le_bytes"], RAW_SHA256);
        // A point for the prefill and one for each of the eight steps.
        for case in golden["cases"].as_array().unwrap() {
            let points = vectors::counts(&case["k_points_steps"]);
            assert_eq!(points.len(), 9);
            assert!(points.iter().all(|point| *point < POINTS));
        }
    }

    /// The value that a unit test of an older line of the network's plugin has for this string.
    #[test]
    fn the_first_pick_has_a_string_of_its_own() {
        let identity =
            Identity { block_hash: "deadbeef".repeat(8), public_key: "cafebabe".repeat(8) };
        assert_eq!(NonceSteps::new(&identity, 42).first_pick.0, 106_668_457);
    }
}
