//! Householder reflections: between the decoder layers, and as a random rotation of the picks.
//!
//! `H_v(x) = x - 2 (x.v) v` with a unit vector `v` drawn from a seed. One after every decoder layer
//! (the last included) ties the forward pass to the block; `k - 1` of them in `k` dimensions make a
//! Haar-distributed rotation that ties the read-out to key and nonce.

use super::normal::NormalStream;
use super::seed::{Identity, Seed};

/// Keeps a zero vector from dividing by zero in the rotation, as the network does.
const HAAR_NORM_FLOOR: f64 = 1e-30;

/// Unit vector `[dim]` of the reflection after decoder layer `layer`.
#[must_use]
pub fn layer_vector(identity: &Identity, layer: usize, dim: u32) -> Vec<f32> {
    let values = NormalStream { seed: identity.layer_seed(layer), count: dim }.exact();
    let norm = norm(&values);
    values.into_iter().map(|value| (value / norm) as f32).collect()
}

/// Reflection vectors of all `layers`, each `[dim]`: one set serves every nonce of a round.
#[must_use]
pub fn layer_vectors(identity: &Identity, layers: usize, dim: u32) -> Vec<Vec<f32>> {
    (0..layers).map(|layer| layer_vector(identity, layer, dim)).collect()
}

/// Replaces `x` by its mirror image `x - 2 (x.v) v`.
pub fn reflect(x: &mut [f64], v: &[f64]) {
    let twice_dot = 2.0 * x.iter().zip(v).map(|(x, v)| x * v).sum::<f64>();
    for (x, v) in x.iter_mut().zip(v) {
        *x -= twice_dot * v;
    }
}

/// Rotates the picked values `x` of `nonce` by `x.len() - 1` seeded reflections.
pub fn haar_rotate(identity: &Identity, nonce: u32, x: &mut [f64]) {
    let k = x.len();
    for step in 0..k.saturating_sub(1) {
        let v = haar_vector(identity.haar_seed(nonce, k, step), k);
        reflect(x, &v);
    }
}

/// Unit vector `[k]` of one step of the rotation.
fn haar_vector(seed: Seed, k: usize) -> Vec<f64> {
    // `k` is bounded by a model dimension, far below u32::MAX.
    let mut values = NormalStream { seed, count: k as u32 }.exact();
    let norm = norm(&values) + HAAR_NORM_FLOOR;
    for value in &mut values {
        *value /= norm;
    }
    values
}

/// Euclidean length.
pub(super) fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;

    #[test]
    fn layer_vectors_and_reflections_match() {
        for case in vectors::cases("householder.json") {
            let (dim, layer) = (vectors::word(&case["dim"]), vectors::count(&case["layer"]));
            let v = layer_vector(&vectors::identity(&case), layer, dim);
            let x_stream = NormalStream { seed: Seed(vectors::word(&case["x_seed"])), count: dim };
            let mut y = x_stream.exact();
            let v_exact: Vec<f64> = v.iter().map(|&v| f64::from(v)).collect();
            reflect(&mut y, &v_exact);
            let v_want = vectors::reals(&case["v"]);
            let y_want = vectors::reals(&case["reflected_f64"]);
            for (slot, index) in vectors::counts(&case["index"]).into_iter().enumerate() {
                assert!((v_exact[index] - v_want[slot]).abs() <= 1e-6, "layer {layer} v[{index}]");
                assert!((y[index] - y_want[slot]).abs() <= 1e-5, "layer {layer} y[{index}]");
            }
        }
    }

    #[test]
    fn rotation_matches_step_by_step() {
        for case in vectors::cases("haar.json") {
            let identity = vectors::identity(&case);
            let (nonce, k) = (vectors::word(&case["nonce"]), vectors::count(&case["k"]));
            for (step, seed) in case["step_seeds"].as_array().unwrap().iter().enumerate() {
                assert_eq!(identity.haar_seed(nonce, k, step).0, vectors::word(seed));
            }
            for (step, want) in case["v"].as_array().unwrap().iter().enumerate() {
                let v = haar_vector(identity.haar_seed(nonce, k, step), k);
                for (got, want) in v.iter().zip(vectors::reals(want)) {
                    assert!((got - want).abs() <= 1e-6);
                }
            }
            let mut x = vectors::reals(&case["x"]);
            let scale = norm(&x);
            haar_rotate(&identity, nonce, &mut x);
            for (got, want) in x.iter().zip(vectors::reals(&case["y_f64"])) {
                assert!((got - want).abs() <= 1e-6 * scale, "nonce {nonce}");
            }
        }
    }

    #[test]
    fn a_rotation_keeps_the_length_and_one_dimension_is_left_alone() {
        let identity = Identity { block_hash: "b".into(), public_key: "k".into() };
        let mut x = vec![3.0, 4.0, 12.0];
        haar_rotate(&identity, 5, &mut x);
        assert!((norm(&x) - 13.0).abs() < 1e-12);
        let mut one = vec![2.5];
        haar_rotate(&identity, 5, &mut one);
        assert_eq!(one, [2.5]);
    }
}
