//! How a Network Node judges artifacts: decode, distance to what is known to be right, and the binomial fraud test.
//!
//! What is known to be right are the golden vectors of `tests/data/poc/e2e_smollm2.json`, made by the network's reference
//! functions. Written without a look at the prover's code, so that the two can disagree.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::f16;
use serde::Deserialize;

/// Numbers in an artifact.
pub const K_DIM: usize = 12;
/// An artifact's vector has unit length before it is rounded to f16.
const NORM_TOLERANCE: f64 = 0.01;

/// Block hash, key and right answers of the golden run.
#[derive(Debug, Clone)]
pub struct Golden {
    /// Text used verbatim in every seed.
    pub block_hash: String,
    /// Text used verbatim in every seed.
    pub public_key: String,
    vectors: HashMap<u32, Vec<f64>>,
}

#[derive(Deserialize)]
struct GoldenFile {
    block_hash: String,
    public_key: String,
    runs: Vec<GoldenRun>,
}

#[derive(Deserialize)]
struct GoldenRun {
    seq_len: u32,
    poc_stronger_rng: bool,
    artifacts: Vec<GoldenArtifact>,
}

#[derive(Deserialize)]
struct GoldenArtifact {
    nonce: u32,
    vector_f32: Vec<f64>,
}

impl Golden {
    /// The golden run of this sequence length, without vectors when there is none.
    ///
    /// # Panics
    /// When the file in `tests/data/poc` is broken: a fault of the repository.
    #[must_use]
    pub fn of_seq_len(seq_len: u32) -> Self {
        let file: GoldenFile =
            serde_json::from_str(include_str!("../../data/poc/e2e_smollm2.json"))
                .expect("tests/data/poc/e2e_smollm2.json is as its README says");
        let vectors = file
            .runs
            .into_iter()
            .filter(|run| run.seq_len == seq_len && !run.poc_stronger_rng)
            .flat_map(|run| run.artifacts)
            .map(|artifact| (artifact.nonce, artifact.vector_f32))
            .collect();
        Self { block_hash: file.block_hash, public_key: file.public_key, vectors }
    }

    /// L2 distance of a vector to the right one, if that is known.
    #[must_use]
    pub fn distance(&self, nonce: u32, vector: &[f64]) -> Option<f64> {
        self.vectors.get(&nonce).map(|golden| distance(golden, vector))
    }

    /// Whether the right vector of a nonce is known.
    #[must_use]
    pub fn knows(&self, nonce: u32) -> bool {
        self.vectors.contains_key(&nonce)
    }
}

/// The numbers of an artifact: [`K_DIM`] half floats, little-endian, base64.
///
/// # Errors
/// What is wrong with the text.
pub fn decode(vector_b64: &str) -> Result<Vec<f64>, &'static str> {
    let bytes = STANDARD.decode(vector_b64).map_err(|_| "not base64")?;
    if bytes.len() != 2 * K_DIM {
        return Err("not 12 half floats");
    }
    let vector: Vec<f64> =
        bytes.chunks(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f64()).collect();
    if vector.iter().all(|number| number.is_finite()) {
        Ok(vector)
    } else {
        Err("a number that is not finite")
    }
}

/// Text of an artifact with these numbers.
#[must_use]
pub fn encode(vector: &[f64]) -> String {
    let bytes: Vec<u8> =
        vector.iter().flat_map(|number| f16::from_f64(*number).to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// L2 distance.
#[must_use]
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    squares.sqrt()
}

/// Whether a vector has the length every honest one has.
#[must_use]
pub fn has_unit_norm(vector: &[f64]) -> bool {
    let squares: f64 = vector.iter().map(|number| number * number).sum();
    (squares.sqrt() - 1.0).abs() <= NORM_TOLERANCE
}

/// `P[Binomial(total, chance) >= mismatches]`, the p-value of the fraud test.
#[must_use]
pub fn p_value(total: u32, mismatches: u32, chance: f64) -> f64 {
    if mismatches == 0 || total == 0 {
        return 1.0;
    }
    if chance <= 0.0 {
        return 0.0;
    }
    if chance >= 1.0 {
        return 1.0;
    }
    let odds = (chance / (1.0 - chance)).ln();
    let mut logarithm = f64::from(total) * (1.0 - chance).ln();
    let mut sum = 0.0;
    for count in 0..=total {
        if count >= mismatches {
            sum += logarithm.exp();
        }
        logarithm += (f64::from(total - count) / f64::from(count + 1)).ln() + odds;
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn golden_vectors_match_their_own_encoding() {
        let golden = Golden::of_seq_len(64);
        assert_eq!(golden.vectors.len(), 8);
        let near = golden.distance(0, &decode("jTAiotq3uTVBNDUuaa3CNUO3KBeCKOy2").unwrap());
        assert!(near.is_some_and(|distance| distance < 4e-4), "{near:?}");
        assert!(has_unit_norm(&decode("jTAiotq3uTVBNDUuaa3CNUO3KBeCKOy2").unwrap()));
        assert_eq!(golden.distance(99, &[0.0; 12]), None);
    }

    #[test]
    fn distances_of_the_vectors() {
        let file: Value =
            serde_json::from_str(include_str!("../../data/poc/distance.json")).unwrap();
        let pairs = file["cases"].as_array().unwrap();
        assert!(!pairs.is_empty());
        for pair in pairs {
            let text = |key: &str| pair[key].as_str().unwrap();
            let got = distance(&decode(text("a_b64")).unwrap(), &decode(text("b_b64")).unwrap());
            assert!((got - pair["l2"].as_f64().unwrap()).abs() <= 1e-6, "{pair}");
        }
    }

    #[test]
    fn bad_vectors_are_named() {
        assert_eq!(decode("*"), Err("not base64"));
        assert_eq!(decode("AAAA"), Err("not 12 half floats"));
        assert_eq!(decode(&encode(&[f64::NAN; 12])), Err("a number that is not finite"));
        assert_eq!(decode(&encode(&[0.5; 12])), Ok(vec![0.5; 12]));
    }

    #[test]
    fn tails_of_the_vectors() {
        let file: Value =
            serde_json::from_str(include_str!("../../data/poc/fraud_test.json")).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let count = |key: &str| u32::try_from(case[key].as_u64().unwrap()).unwrap();
            let (n, m) = (count("n_total"), count("n_mismatch"));
            let want = case["p_value"].as_f64().unwrap();
            let got = p_value(n, m, case["p_mismatch"].as_f64().unwrap());
            assert!((got - want).abs() <= 1e-9 * want + 1e-300, "{case}: {got}");
        }
    }
}
