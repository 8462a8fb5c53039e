//! From a hidden state to the 24 bytes that go on chain, and back.
//!
//! Pick, rotate, normalise, round to f16, base64. The forward pass may run anywhere; these dozen
//! numbers are always finished on the host in f64, so only the hidden state carries device noise.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::f16;

use super::PocError;
use super::pick::pick;
use super::reflection::{haar_rotate, norm};
use super::seed::Identity;
use super::trajectory::Comparison;

/// Dimensions of an artifact everywhere on the network today; the chain never sends another.
pub const K_DIM: usize = 12;

/// Added to lengths before dividing by them, as the network does.
const NORM_FLOOR: f64 = 1e-8;

/// Evidence of one forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    pub nonce: u32,
    /// The unit vector `[k]` before rounding to f16.
    pub vector: Vec<f32>,
    /// The vector as `k` little-endian half floats in standard base64: what is sent and compared.
    pub vector_b64: String,
    /// DECODE: the points its steps came to, the prefill's first. Empty in the scheme PREFILL, as the vector is in this.
    pub points: Vec<u8>,
    /// DECODE: how a trajectory compares that somebody claimed.
    pub comparison: Option<Comparison>,
}

impl Artifact {
    /// Reads `k` numbers out of `hidden` `[dim]`, the last token's final-norm output.
    ///
    /// `None` when a NaN appears on the way: the network drops such a nonce without a word.
    #[must_use]
    pub fn read_out(identity: &Identity, nonce: u32, hidden: &[f32], k: usize) -> Option<Self> {
        if hidden.iter().any(|value| value.is_nan()) {
            return None;
        }
        let exact: Vec<f64> = hidden.iter().map(|&value| f64::from(value)).collect();
        let length = norm(&exact) + NORM_FLOOR;
        let indices = pick(identity.pick_seed(nonce, k), u32::try_from(hidden.len()).ok()?, k);
        let mut x: Vec<f64> = indices.into_iter().map(|index| exact[index] / length).collect();
        haar_rotate(identity, nonce, &mut x);
        let length = norm(&x) + NORM_FLOOR;
        let vector: Vec<f32> = x.into_iter().map(|value| (value / length) as f32).collect();
        let vector_b64 = encode(&vector)?;
        Some(Self { nonce, vector, vector_b64, points: vec![], comparison: None })
    }
}

impl Artifact {
    /// The artifact of a DECODE round.
    #[must_use]
    pub fn of_trajectory(nonce: u32, points: Vec<u8>, comparison: Option<Comparison>) -> Self {
        Self { nonce, vector: vec![], vector_b64: String::new(), points, comparison }
    }
}

/// Packs a vector; `None` if a value is NaN.
#[must_use]
pub fn encode(vector: &[f32]) -> Option<String> {
    let mut bytes = Vec::with_capacity(vector.len() * 2);
    for &value in vector {
        // Rounds to nearest, ties to even.
        let value = f16::from_f32(value);
        if value.is_nan() {
            return None;
        }
        bytes.extend(value.to_le_bytes());
    }
    Some(STANDARD.encode(bytes))
}

/// Unpacks a vector of `k` finite half floats.
///
/// # Errors
/// Anything else is malformed, which the network counts as a mismatch of that nonce.
pub fn decode(vector_b64: &str, k: usize) -> Result<Vec<f32>, PocError> {
    let bytes = STANDARD
        .decode(vector_b64)
        .map_err(|error| PocError::Malformed(format!("not standard base64: {error}")))?;
    if bytes.len() != 2 * k {
        return Err(PocError::Malformed(format!("{} bytes, expected {}", bytes.len(), 2 * k)));
    }
    let vector: Vec<f32> =
        bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect();
    match vector.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(PocError::Malformed(format!("component {index} is not finite"))),
        None => Ok(vector),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::normal::NormalStream;
    use crate::poc::seed::Seed;
    use crate::poc::vectors;
    use proptest::prelude::*;

    #[test]
    fn read_out_matches_the_published_artifacts() {
        for case in vectors::cases("artifact.json") {
            let (identity, nonce) = (vectors::identity(&case), vectors::word(&case["nonce"]));
            let k = vectors::count(&case["k_dim"]);
            let stream = NormalStream {
                seed: Seed(vectors::word(&case["hidden_seed"])),
                count: vectors::word(&case["dim"]),
            };
            let scale = case["hidden_scale"].as_f64().unwrap() as f32;
            let mut hidden = vec![0f32; stream.count as usize];
            stream.fill(&mut hidden);
            hidden.iter_mut().for_each(|value| *value *= scale);
            let indices = pick(identity.pick_seed(nonce, k), stream.count, k);
            assert_eq!(indices, vectors::counts(&case["pick"]));

            let artifact = Artifact::read_out(&identity, nonce, &hidden, k).unwrap();
            let got: Vec<f64> = artifact.vector.iter().map(|&value| f64::from(value)).collect();
            let l2 = vectors::distance(&got, &vectors::reals(&case["vector_f64"]));
            assert!(l2 <= 1e-5, "nonce {nonce}: {l2}");

            let ours = STANDARD.decode(&artifact.vector_b64).unwrap();
            let theirs = STANDARD.decode(case["vector_b64"].as_str().unwrap()).unwrap();
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.chunks(2).zip(theirs.chunks(2)) {
                let steps = |pair: &[u8]| i32::from(i16::from_le_bytes([pair[0], pair[1]]));
                assert!((steps(ours) - steps(theirs)).abs() <= 1, "more than one f16 step apart");
            }
        }
    }

    #[test]
    fn a_nan_drops_the_nonce() {
        let identity = Identity { block_hash: "b".into(), public_key: "k".into() };
        let mut hidden = vec![1f32; 64];
        assert!(Artifact::read_out(&identity, 0, &hidden, 12).is_some());
        hidden[63] = f32::NAN;
        assert_eq!(Artifact::read_out(&identity, 0, &hidden, 12), None);
        hidden[63] = f32::INFINITY;
        assert_eq!(Artifact::read_out(&identity, 0, &hidden, 12), None);
        let zero = Artifact::read_out(&identity, 0, &[0f32; 64], 12).unwrap();
        assert_eq!(zero.vector, [0f32; 12]);
    }

    #[test]
    fn halves_round_to_nearest_even() {
        // One f16 step above 1 is 2^-10; the value half-way rounds to the even neighbour.
        let step = 2f32.powi(-10);
        let cases = [
            (1.0 + 0.5 * step, 1.0),
            (1.0 + 1.5 * step, 1.0 + 2.0 * step),
            (1.0 + 0.5 * step + 2f32.powi(-20), 1.0 + step),
            (2f32.powi(-25), 0.0),
            (3.0 * 2f32.powi(-25), 2f32.powi(-23)),
        ];
        for (value, expected) in cases {
            assert_eq!(decode(&encode(&[value]).unwrap(), 1).unwrap(), [expected], "{value}");
        }
        assert_eq!(encode(&[f32::NAN]), None);
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in ".{0,64}", k in 0usize..20) {
            if let Ok(vector) = decode(&text, k) {
                prop_assert_eq!(vector.len(), k);
            }
        }

        #[test]
        fn halves_survive_a_round_trip(bits in proptest::collection::vec(any::<u16>(), 1..16)) {
            let vector: Vec<f32> = bits.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect();
            match encode(&vector) {
                Some(text) if vector.iter().all(|value| value.is_finite()) => {
                    prop_assert_eq!(decode(&text, vector.len()).unwrap(), vector);
                }
                Some(text) => prop_assert!(decode(&text, vector.len()).is_err()),
                None => prop_assert!(vector.iter().any(|value| value.is_nan())),
            }
        }
    }
}
