//! Drawing a token from logits: temperature and filters, and random numbers that depend on the seed and
//! the position alone. On the host, in f64.

use std::cmp::Ordering;

use super::logprobs::likeliest;
use super::request::Sampling;

/// The likeliest token; 0 if every logit is NaN.
fn greedy(logits: &[f32]) -> u32 {
    likeliest(logits, 1).first().copied().unwrap_or(0)
}

/// How many of the likeliest tokens top-p tries first; at usual temperatures they are enough.
const TOP_P_FIRST: usize = 256;
const TOP_P_GROWTH: usize = 8;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TokenLogit {
    pub logit: f32,
    pub id: u32,
}

impl TokenLogit {
    /// Best first, lower ids first among equals. Logits that are no numbers are never compared.
    pub fn before(&self, other: &Self) -> Ordering {
        let best_first = other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal);
        best_first.then(self.id.cmp(&other.id))
    }
}

/// Draws a token by temperature and filters alone; NaN logits are never drawn.
pub(super) fn draw(logits: &[f32], sampling: &Sampling, index: usize) -> u32 {
    if sampling.temperature <= 0.0 {
        return greedy(logits);
    }
    let (candidates, total) = candidates(logits, sampling);
    draw_sorted(&candidates, total, sampling, index)
}

/// The tokens of a whole vocabulary that the filters may keep, the best first and, if top-p cuts, all in
/// their order, and the sum of the weights that top-k left.
pub(super) fn candidates(logits: &[f32], sampling: &Sampling) -> (Vec<TokenLogit>, f64) {
    let mut candidates: Vec<TokenLogit> = logits
        .iter()
        .zip(0..)
        .filter(|(logit, _)| !logit.is_nan())
        .map(|(&logit, id)| TokenLogit { logit, id })
        .collect();
    let top = |candidates: &mut Vec<TokenLogit>, count: usize| {
        if count < candidates.len() {
            candidates.select_nth_unstable_by(count, TokenLogit::before);
            candidates.truncate(count);
        }
        candidates.sort_unstable_by(TokenLogit::before);
    };
    if sampling.top_k > 0 {
        top(&mut candidates, sampling.top_k as usize);
        let total = total(&candidates, sampling);
        return (candidates, total);
    }
    let whole = total(&candidates, sampling);
    if sampling.top_p >= 1.0 {
        // No filter asks for an order but that the best be first.
        let best = (0..candidates.len()).min_by(|a, b| candidates[*a].before(&candidates[*b]));
        if let Some(best) = best {
            candidates.swap(0, best);
        }
        return (candidates, whole);
    }
    // The few that top-p leaves: sorting a whole vocabulary takes longer than a small model's pass.
    let mut count = TOP_P_FIRST;
    while count < candidates.len() {
        let mut few = candidates.clone();
        top(&mut few, count);
        if total(&few, sampling) >= f64::from(sampling.top_p) * whole {
            return (few, whole);
        }
        count *= TOP_P_GROWTH;
    }
    candidates.sort_unstable_by(TokenLogit::before);
    (candidates, whole)
}

/// Weight of a token, relative to the likeliest, whose logit is `best`.
pub(super) fn weight(logit: f32, best: f32, sampling: &Sampling) -> f64 {
    (f64::from(logit - best) / f64::from(sampling.temperature)).exp()
}

/// Sum of the weights.
pub(super) fn total(candidates: &[TokenLogit], sampling: &Sampling) -> f64 {
    let best = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    candidates.iter().map(|candidate| weight(candidate.logit, best, sampling)).sum()
}

/// Draws from candidates, the best first and, if top-p cuts, all in their order; `total` is the sum
/// of the weights that top-k has left, of which these may be the first.
pub(super) fn draw_sorted(
    candidates: &[TokenLogit],
    total: f64,
    sampling: &Sampling,
    index: usize,
) -> u32 {
    let weights = kept_weights(candidates, total, sampling);
    let mut point = uniform(sampling.seed, index as u64) * weights.iter().sum::<f64>();
    for (weight, candidate) in weights.iter().zip(candidates) {
        point -= weight;
        if point < 0.0 {
            return candidate.id;
        }
    }
    candidates.first().map_or(0, |best| best.id)
}

/// Weights of the first of these candidates after the filters; of those after them it is 0.
pub(super) fn kept_weights(candidates: &[TokenLogit], total: f64, sampling: &Sampling) -> Vec<f64> {
    let Some(best) = candidates.first() else {
        return vec![];
    };
    let mut weights: Vec<f64> =
        candidates.iter().map(|c| weight(c.logit, best.logit, sampling)).collect();

    // top-p: the shortest prefix whose share of what top-k left reaches top_p, at least one token.
    if sampling.top_p < 1.0 {
        let mut cumulative = 0.0;
        let reaching = weights.iter().position(|w| {
            cumulative += w;
            cumulative >= f64::from(sampling.top_p) * total
        });
        weights.truncate(reaching.map_or(weights.len(), |last| last + 1));
    }
    // min-p: weights are relative to the likeliest token already.
    for weight in &mut weights {
        if *weight < f64::from(sampling.min_p) {
            *weight = 0.0;
        }
    }
    weights
}

/// A uniform number in [0, 1) from a counter (SplitMix64's output function).
fn uniform(seed: u64, counter: u64) -> f64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = mix(seed.wrapping_add(GOLDEN)).wrapping_add(counter.wrapping_mul(GOLDEN));
    z = mix(z);
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, f32::NAN];

    fn sampling(temperature: f32) -> Sampling {
        Sampling { temperature, ..Sampling::GREEDY }
    }

    /// Tokens drawn in 2000 positions, as shares.
    fn shares(sampling: &Sampling) -> [f64; 5] {
        let mut counts = [0_u32; 5];
        for index in 0..2000 {
            counts[draw(&LOGITS, sampling, index) as usize] += 1;
        }
        counts.map(|count| f64::from(count) / 2000.0)
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_equals_and_no_nan() {
        assert_eq!(greedy(&LOGITS), 1);
        assert_eq!(draw(&LOGITS, &Sampling::GREEDY, 7), 1);
        assert_eq!(greedy(&[f32::NAN]), 0);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let shares = shares(&sampling(1.0));
        let weights = [1.0_f64, 3.0, 2.0, 3.0].map(f64::exp);
        let sum: f64 = weights.iter().sum();
        for (share, weight) in shares.iter().zip(weights) {
            assert!((share - weight / sum).abs() < 0.04, "{shares:?}");
        }
        assert_eq!(shares[4], 0.0);
    }

    #[test]
    fn filters_cut_the_tail() {
        let two = Sampling { top_k: 2, ..sampling(5.0) };
        assert_eq!(shares(&two)[0] + shares(&two)[2], 0.0);
        let likely = Sampling { top_p: 0.5, ..sampling(1.0) };
        assert_eq!(shares(&likely)[2], 0.0);
        let near = Sampling { min_p: 0.5, ..sampling(1.0) };
        assert_eq!(shares(&near)[0] + shares(&near)[2], 0.0);
        let one = Sampling { top_p: 0.0, ..sampling(1.0) };
        assert_eq!(shares(&one)[1], 1.0);
    }

    #[test]
    fn top_p_of_a_large_vocabulary_is_that_of_the_sorted_one() {
        // Nearly alike, so that top-p keeps more than it tries first.
        let logits: Vec<f32> = (0..9000).map(|id| ((id * 7919) % 9000) as f32 * 1e-4).collect();
        for (top_p, top_k) in [(0.01, 0), (0.5, 0), (0.99, 0), (0.5, 8999), (1.0, 0)] {
            let sampling = Sampling { top_p, top_k, ..sampling(1.0) };
            let mut sorted: Vec<TokenLogit> =
                logits.iter().zip(0..).map(|(&logit, id)| TokenLogit { logit, id }).collect();
            sorted.sort_unstable_by(TokenLogit::before);
            if top_k > 0 {
                sorted.truncate(top_k as usize);
            }
            let whole = total(&sorted, &sampling);
            for index in 0..20 {
                let drawn = draw(&logits, &sampling, index);
                if top_p < 1.0 {
                    assert_eq!(drawn, draw_sorted(&sorted, whole, &sampling, index), "{top_p}");
                }
                let place = sorted.iter().position(|candidate| candidate.id == drawn).unwrap();
                let before = total(&sorted[..place], &sampling);
                // Relative to the best, which the first of the sorted is too.
                assert!(place == 0 || before < f64::from(top_p) * whole + 1e-6, "{top_p} {place}");
            }
        }
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let run = |seed| -> Vec<u32> {
            let sampling = Sampling { seed, ..sampling(3.0) };
            (0..50).map(|i| draw(&LOGITS, &sampling, i)).collect()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    /// Any logits, NaN and infinities among them.
    pub fn any_logits() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![
            8 => -30.0_f32..30.0,
            1 => prop_oneof![Just(f32::NAN), Just(f32::NEG_INFINITY), Just(0.0), Just(-0.0)],
        ];
        proptest::collection::vec(logit, 1..80)
    }

    pub fn any_sampling() -> impl Strategy<Value = Sampling> {
        let penalties = (0.1_f32..3.0, -2.0_f32..2.0, -2.0_f32..2.0);
        let bias = proptest::collection::vec((0_u32..90, -100.0_f32..100.0), 0..4);
        (0.0_f32..4.0, 0.0_f32..=1.0, 0_u32..90, 0.0_f32..=1.0, any::<u64>(), penalties, bias)
            .prop_map(|(temperature, top_p, top_k, min_p, seed, penalties, logit_bias)| Sampling {
                temperature,
                top_p,
                top_k,
                min_p,
                seed,
                repetition_penalty: penalties.0,
                presence_penalty: penalties.1,
                frequency_penalty: penalties.2,
                logit_bias,
                contract: None,
            })
    }

    proptest! {
        /// The filters, said the obvious way: a drawn token is among the top_k likeliest, at least
        /// min_p as likely as the likeliest, and the likelier ones do not reach top_p without it.
        #[test]
        fn a_drawn_token_passes_every_filter(
            logits in any_logits(), sampling in any_sampling(), index in 0_usize..9,
        ) {
            let sampling = Sampling { logit_bias: vec![], ..sampling };
            let id = draw(&logits, &sampling, index);
            prop_assume!(logits.iter().any(|logit| logit.is_finite()));
            let logit = logits[id as usize];
            prop_assert!(!logit.is_nan());
            let likelier: Vec<f32> = (0..).zip(&logits)
                .filter(|(other, l)| **l > logit || (**l == logit && *other < id))
                .map(|(_, l)| *l).collect();
            if sampling.temperature == 0.0 {
                prop_assert!(likelier.is_empty());
            }
            let keep = if sampling.top_k == 0 { usize::MAX } else { sampling.top_k as usize };
            prop_assert!(likelier.len() < keep);
            let t = f64::from(sampling.temperature);
            let top = logits.iter().copied().filter(|l| !l.is_nan()).fold(f32::MIN, f32::max);
            let weight = |l: f32| (f64::from(l - top) / t).exp();
            let mut kept: Vec<f32> = logits.iter().copied().filter(|l| !l.is_nan()).collect();
            kept.sort_by(|a, b| b.total_cmp(a));
            kept.truncate(keep);
            let total: f64 = kept.iter().copied().map(weight).sum();
            let before: f64 = likelier.iter().copied().map(weight).sum();
            prop_assert!(likelier.is_empty() || before < f64::from(sampling.top_p) * total + 1e-9);
            prop_assert!(weight(logit) >= f64::from(sampling.min_p) - 1e-9);
        }
    }
}
