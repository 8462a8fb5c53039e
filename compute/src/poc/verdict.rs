//! Does a set of artifacts come from the model it claims? Distance per nonce, binomial over all.
//!
//! Honest hardware disagrees a little on every nonce, so no single mismatch proves anything: a
//! validator counts nonces farther apart than a threshold and asks how likely that many are if a
//! mismatch has the honest probability. Source: the plugin's `poc/validation.py`.

use super::artifact::{Artifact, decode};

/// Thresholds of a validation; the defaults are those of an MLNode that is sent none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StatTest {
    /// L2 distance above which a nonce mismatches.
    pub dist_threshold: f64,
    /// Probability that an honest nonce mismatches.
    pub p_mismatch: f64,
    /// Fraud when the p-value is below this.
    pub fraud_threshold: f64,
}

impl Default for StatTest {
    fn default() -> Self {
        Self { dist_threshold: 0.02, p_mismatch: 0.001, fraud_threshold: 0.01 }
    }
}

/// Outcome of a validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Nonces asked for, those without an artifact of our own included.
    pub n_total: usize,
    /// Nonces that mismatched, in request order.
    pub mismatch_nonces: Vec<u32>,
    pub p_value: f64,
    pub fraud_detected: bool,
}

/// Compares received vectors, `(nonce, vector_b64)`, with those computed here.
///
/// A nonce that gave NaN here has no counterpart and counts as compared, not as mismatched.
#[must_use]
pub fn judge(received: &[(u32, String)], computed: &[Artifact], test: StatTest) -> Verdict {
    let ours: std::collections::BTreeMap<u32, &Artifact> =
        computed.iter().map(|artifact| (artifact.nonce, artifact)).collect();
    let mismatch_nonces: Vec<u32> = received
        .iter()
        .filter(|(nonce, vector_b64)| {
            ours.get(nonce).is_some_and(|artifact| {
                // Both sides are compared as rounded to f16.
                decode(&artifact.vector_b64, artifact.vector.len())
                    .is_ok_and(|ours| is_mismatch(vector_b64, &ours, test.dist_threshold))
            })
        })
        .map(|(nonce, _)| *nonce)
        .collect();
    let n_total = received.len();
    let p_value = binomial_tail(n_total as u64, mismatch_nonces.len() as u64, test.p_mismatch);
    Verdict { n_total, mismatch_nonces, p_value, fraud_detected: p_value < test.fraud_threshold }
}

/// Whether a received vector is malformed or farther than the threshold from `expected`.
#[must_use]
pub fn is_mismatch(received_b64: &str, expected: &[f32], dist_threshold: f64) -> bool {
    match decode(received_b64, expected.len()) {
        Ok(received) => l2(&received, expected) > dist_threshold,
        Err(_) => true,
    }
}

/// Euclidean distance; infinite for vectors of different lengths.
#[must_use]
pub fn l2(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

/// `P[Bin(n, p) >= m]`: how likely at least `m` of `n` honest nonces mismatch.
///
/// Exact summation from the term next to the cut outwards, on the side where the terms fall.
#[must_use]
pub fn binomial_tail(n: u64, m: u64, p: f64) -> f64 {
    if m == 0 {
        return 1.0;
    }
    if m > n || p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return 1.0;
    }
    let odds = p / (1.0 - p);
    if m as f64 > n as f64 * p {
        // Terms fall from m upwards.
        sum_falling(binomial_term(n, m, p), |step| {
            let k = m + step;
            (k < n).then(|| (n - k) as f64 / (k + 1) as f64 * odds)
        })
    } else {
        // The mass is on our side: one minus the terms falling from m - 1 downwards.
        let below = sum_falling(binomial_term(n, m - 1, p), |step| {
            let k = m - 1 - step;
            (k > 0).then(|| k as f64 / ((n - k + 1) as f64 * odds))
        });
        1.0 - below
    }
}

/// `first * (1 + r0 + r0 r1 + ..)` with `ratio(step)` until it ends or no longer matters.
fn sum_falling(first: f64, ratio: impl Fn(u64) -> Option<f64>) -> f64 {
    let (mut sum, mut term) = (first, first);
    let mut step = 0;
    while let Some(ratio) = ratio(step) {
        term *= ratio;
        sum += term;
        if term <= sum * 1e-18 {
            break;
        }
        step += 1;
    }
    sum
}

/// `C(n, m) p^m (1-p)^(n-m)` through logarithms.
fn binomial_term(n: u64, m: u64, p: f64) -> f64 {
    let few = m.min(n - m);
    let choose: f64 = (1..=few).map(|i| ((n - few + i) as f64 / i as f64).ln()).sum();
    (choose + m as f64 * p.ln() + (n - m) as f64 * (-p).ln_1p()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::artifact::encode;
    use crate::poc::vectors;
    use proptest::prelude::*;

    #[test]
    fn distances_and_verdicts_match() {
        let table = vectors::document("distance.json");
        for case in table["cases"].as_array().unwrap() {
            let ours: Vec<f32> = decode(case["a_b64"].as_str().unwrap(), 12).unwrap();
            let theirs_b64 = case["b_b64"].as_str().unwrap();
            let distance = l2(&ours, &decode(theirs_b64, 12).unwrap());
            assert!((distance - case["l2"].as_f64().unwrap()).abs() <= 1e-6);
            for (threshold, verdict) in case["mismatch"].as_object().unwrap() {
                let threshold: f64 = threshold.parse().unwrap();
                let got = is_mismatch(theirs_b64, &ours, threshold);
                assert_eq!(got, verdict.as_bool().unwrap(), "{distance} at {threshold}");
            }
        }
        for case in table["always_mismatch"].as_array().unwrap() {
            let received = case["received_b64"].as_str().unwrap();
            assert!(is_mismatch(received, &[0.1; 12], f64::INFINITY), "{}", case["name"]);
        }
    }

    #[test]
    fn p_values_match_to_nine_digits() {
        for case in vectors::cases("fraud_test.json") {
            let n = case["n_total"].as_u64().unwrap();
            let m = case["n_mismatch"].as_u64().unwrap();
            let p = binomial_tail(n, m, case["p_mismatch"].as_f64().unwrap());
            let want = case["p_value"].as_f64().unwrap();
            assert!((p - want).abs() <= 1e-9 * want + 1e-300, "{n} {m}: {p} against {want}");
            let fraud = p < case["fraud_threshold"].as_f64().unwrap();
            assert_eq!(fraud, case["fraud_detected"].as_bool().unwrap());
        }
    }

    #[test]
    fn a_missing_artifact_is_compared_but_never_mismatched() {
        let near = vec![0.5f32, 0.5];
        let near_b64 = encode(&near).unwrap();
        let far_b64 = encode(&[-0.5, 0.5]).unwrap();
        let artifact = |nonce| Artifact {
            nonce,
            vector: near.clone(),
            vector_b64: near_b64.clone(),
            points: vec![],
            comparison: None,
        };
        let computed = [artifact(1), artifact(2)];
        let received = [(1, near_b64.clone()), (2, far_b64.clone()), (3, far_b64)];
        let verdict = judge(&received, &computed, StatTest::default());
        assert_eq!((verdict.n_total, verdict.mismatch_nonces.as_slice()), (3, [2].as_slice()));
        assert!(verdict.fraud_detected);
        let nothing = judge(&[], &computed, StatTest::default());
        assert_eq!((nothing.p_value, nothing.fraud_detected), (1.0, false));
    }

    proptest! {
        #[test]
        fn tails_are_probabilities_that_fall_with_the_count(
            n in 0u64..500, m in 0u64..500, p in 0f64..=1.0
        ) {
            let here = binomial_tail(n, m, p);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&here));
            prop_assert!(binomial_tail(n, m + 1, p) <= here + 1e-12);
        }
    }
}
