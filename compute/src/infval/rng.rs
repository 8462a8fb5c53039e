//! The contract's random numbers: SHA-256 of the seed and a counter.

use sha2::{Digest, Sha256};

/// Random numbers of one position. Equal seeds give equal numbers everywhere.
#[derive(Clone)]
pub struct CounterRng {
    /// The seed, hashed already.
    seeded: Sha256,
    counter: u64,
}

impl CounterRng {
    #[must_use]
    pub fn new(seed: &str) -> Self {
        Self { seeded: Sha256::new_with_prefix(seed), counter: 0 }
    }

    /// The first eight bytes, most significant first, of SHA-256(seed, counter as eight bytes).
    pub fn next_u64(&mut self) -> u64 {
        let hash = self.seeded.clone().chain_update(self.counter.to_be_bytes()).finalize();
        self.counter += 1;
        hash.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    /// A number below `bound`, all equally likely: the last, incomplete run of multiples is thrown away.
    /// A bound of 0 gives 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let bound = bound.max(1);
        // 2^64 mod bound
        let over = (u64::MAX % bound + 1) % bound;
        loop {
            let number = self.next_u64();
            if number <= u64::MAX - over {
                return number % bound;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;
    use serde_json::Value;

    fn number(value: &Value) -> u64 {
        value.as_str().unwrap().parse().unwrap()
    }

    #[test]
    fn numbers_are_the_networks() {
        for case in vectors::document("det_sampling.json")["rng"].as_array().unwrap() {
            let mut rng = CounterRng::new(case["seed"].as_str().unwrap());
            for wanted in case["first_u64"].as_array().unwrap() {
                assert_eq!(rng.next_u64(), number(wanted));
            }
        }
    }

    #[test]
    fn draws_below_a_bound_are_the_networks() {
        for case in vectors::document("det_sampling.json")["uint64_below"].as_array().unwrap() {
            let mut rng = CounterRng::new(case["seed"].as_str().unwrap());
            for wanted in case["draws"].as_array().unwrap() {
                assert_eq!(rng.below(number(&case["n"])), number(wanted), "{case}");
            }
            assert_eq!(rng.counter, case["counter_after"].as_u64().unwrap());
        }
    }

    #[test]
    fn bounds_at_the_edges_end() {
        let mut rng = CounterRng::new("a");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
        // More than half of all numbers are thrown away.
        assert!(rng.below((1 << 63) + 1) <= 1 << 63);
        assert!(rng.below(u64::MAX) < u64::MAX);
    }
}
