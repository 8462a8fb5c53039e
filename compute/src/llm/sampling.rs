//! From logits to logprobs and to the next token; on the host, in f64.

use super::request::{PositionLogprobs, Sampling, TokenLogprob};

/// Log-probability of every token: `logit - ln(sum(exp))`, in f64.
pub(super) struct LogSoftmax<'a> {
    logits: &'a [f32],
    /// `ln(sum(exp(logit)))`.
    normaliser: f64,
}

impl<'a> LogSoftmax<'a> {
    pub fn new(logits: &'a [f32]) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|l| f64::from(*l - largest).exp()).sum();
        Self { logits, normaliser: f64::from(largest) + sum.ln() }
    }

    pub fn of(&self, id: u32) -> f32 {
        let logit = self.logits.get(id as usize).copied();
        (f64::from(logit.unwrap_or(f32::NEG_INFINITY)) - self.normaliser) as f32
    }

    /// The chosen token with the `top` likeliest.
    pub fn position(&self, id: u32, top: usize) -> PositionLogprobs {
        PositionLogprobs {
            id,
            logprob: self.of(id),
            top: likeliest(self.logits, top)
                .into_iter()
                .map(|id| TokenLogprob { id, logprob: self.of(id) })
                .collect(),
        }
    }
}

/// Ids of the `count` largest logits, best first, lower ids first among equals.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(count + 1);
    for (id, logit) in (0_u32..).zip(logits) {
        let beaten = best.len() == count && best.last().is_none_or(|(last, _)| logit <= last);
        if beaten || logit.is_nan() {
            continue;
        }
        let at = best.partition_point(|(l, _)| l >= logit);
        best.insert(at, (*logit, id));
        best.truncate(count);
    }
    best.into_iter().map(|(_, id)| id).collect()
}

/// The likeliest token; 0 if every logit is NaN.
pub(super) fn greedy(logits: &[f32]) -> u32 {
    likeliest(logits, 1).first().copied().unwrap_or(0)
}

/// Draws a token. `index` is its position among the new tokens: draws are independent of how many
/// came before, so a replay may start anywhere.
pub(super) fn draw(logits: &[f32], sampling: &Sampling, index: usize) -> u32 {
    if sampling.temperature <= 0.0 {
        return greedy(logits);
    }
    let keep = match sampling.top_k {
        0 => logits.len(),
        k => (k as usize).min(logits.len()),
    };
    let mut candidates: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
    candidates.retain(|(logit, _)| !logit.is_nan());
    candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    candidates.truncate(keep);
    let Some(&(largest, best)) = candidates.first() else {
        return 0;
    };
    let temperature = f64::from(sampling.temperature);
    let mut weights: Vec<f64> = candidates
        .iter()
        .map(|(logit, _)| (f64::from(logit - largest) / temperature).exp())
        .collect();

    // top-p: the shortest prefix whose share of what top-k left reaches top_p, at least one token.
    let total: f64 = weights.iter().sum();
    let mut cumulative = 0.0;
    let reaching = weights.iter().position(|w| {
        cumulative += w;
        cumulative >= f64::from(sampling.top_p) * total
    });
    if let Some(last) = reaching {
        weights.truncate(last + 1);
    }
    // min-p: weights are relative to the likeliest token already.
    weights.retain(|w| *w >= f64::from(sampling.min_p));

    let mut point = uniform(sampling.seed, index as u64) * weights.iter().sum::<f64>();
    for (weight, (_, id)) in weights.iter().zip(&candidates) {
        point -= weight;
        if point < 0.0 {
            return *id;
        }
    }
    best
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
mod tests {
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
        assert_eq!(likeliest(&LOGITS, 9), [1, 3, 2, 0]);
        assert_eq!(greedy(&[f32::NAN]), 0);
    }

    #[test]
    fn logprobs_sum_to_one() {
        let soft = LogSoftmax::new(&LOGITS[..4]);
        let sum: f64 = (0..4).map(|id| f64::from(soft.of(id)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        let position = soft.position(2, 2);
        assert_eq!(position.top.iter().map(|t| t.id).collect::<Vec<_>>(), [1, 3]);
        assert!(position.logprob < position.top[0].logprob);
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
    fn a_seed_repeats_and_another_differs() {
        let run = |seed| -> Vec<u32> {
            let sampling = Sampling { seed, ..sampling(3.0) };
            (0..50).map(|i| draw(&LOGITS, &sampling, i)).collect()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
