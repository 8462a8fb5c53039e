//! Seeds of the contract's draws: bound to an inference that the chain numbered.
//!
//! A seed of the executor's own choice could be tried until the answer suits it. So the client's seed is
//! hashed with the inference's id, which the executor is given. What may be an id is the same in every
//! language: printable ASCII, because what counts as a blank is not.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::contract::ContractError;

/// How seeds are derived; an answer that names another way cannot be replayed here.
pub const DOMAIN: &str = "gonka-deterministic-sampling-v1";
/// Letters of an inference id.
const INFERENCE_ID_MAX: usize = 256;

/// The base seed of an answer: 64 hex digits.
///
/// # Errors
/// An id that is empty, too long or not of printable ASCII letters.
pub fn derive(user_seed: i64, inference_id: &str) -> Result<String, ContractError> {
    let printable = inference_id.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if inference_id.is_empty() || inference_id.len() > INFERENCE_ID_MAX || !printable {
        return Err(ContractError::InferenceId { most: INFERENCE_ID_MAX });
    }
    let user_seed = user_seed.to_string();
    let hash = Sha256::new_with_prefix(DOMAIN)
        .chain_update(format!("\nuser_seed_len={}\n{user_seed}", user_seed.len()))
        .chain_update(format!("\ninference_id_len={}\n{inference_id}", inference_id.len()))
        .finalize();
    Ok(hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// The seed of one position of an answer. Each has its own, so that what is thrown away at one changes
/// nothing at the next, and a replay may begin anywhere.
#[must_use]
pub fn at(base: &str, position: usize) -> String {
    format!("{base}|{position}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;

    #[test]
    fn seeds_are_the_networks() {
        let document = vectors::document("det_sampling.json");
        for case in document["seed_accept"].as_array().unwrap() {
            let user_seed = case["user_seed"].as_str().unwrap().parse().unwrap();
            let seed = derive(user_seed, case["inference_id"].as_str().unwrap()).unwrap();
            assert_eq!(seed, case["seed"].as_str().unwrap());
        }
        for id in document["seed_reject_inference_id"].as_array().unwrap() {
            assert!(derive(7, id.as_str().unwrap()).is_err(), "{id}");
        }
    }
}
