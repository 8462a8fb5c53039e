//! From the logits of a whole vocabulary to log-probabilities; on the host, in f64.

use super::request::{PositionLogprobs, TokenLogprob};

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
            drawn_from: vec![],
        }
    }
}

/// Ids of the `count` largest logits, best first, lower ids first among equals.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_id_of_equals_comes_first_and_no_nan() {
        assert_eq!(likeliest(&[1.0, 3.0, 2.0, 3.0, f32::NAN], 9), [1, 3, 2, 0]);
        assert_eq!(likeliest(&[-0.0, 0.0], 1), [0]);
    }

    #[test]
    fn logprobs_sum_to_one() {
        let soft = LogSoftmax::new(&[1.0, 3.0, 2.0, 3.0]);
        let sum: f64 = (0..4).map(|id| f64::from(soft.of(id)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        let position = soft.position(2, 2);
        assert_eq!(position.top.iter().map(|t| t.id).collect::<Vec<_>>(), [1, 3]);
        assert!(position.logprob < position.top[0].logprob);
    }
}
