//! Logprobs after penalties, temperature and filters: of what is drawn from, and nothing else.
//!
//! The network's engines give a place to every alternative that was asked for, also to those that the
//! filters leave out: [`FILTERED_OUT`], with the lowest ids that are not left. (Theirs is the order of a
//! top-k over equal values.) A validator knows the mode by them.

use std::cmp::Ordering;

use super::draw::{TokenLogit, candidates, kept_weights};
use super::logprobs::LogSoftmax;
use super::request::{PositionLogprobs, Sampling, TokenLogprob};
use crate::infval::judgement::FILTERED_OUT;

/// From the logits of the whole vocabulary, after penalties.
pub(super) fn of_all(logits: &[f32], sampling: &Sampling, id: u32, top: usize) -> PositionLogprobs {
    if sampling.temperature > 0.0 {
        let (tokens, total) = candidates(logits, sampling);
        return of_candidates(&tokens, total, sampling, id, top, logits.len());
    }
    // At temperature 0 nothing is filtered.
    let mut position = LogSoftmax::new(logits).position(id, top);
    let finite = |logprob: &mut f32| *logprob = logprob.max(FILTERED_OUT as f32);
    finite(&mut position.logprob);
    position.top.iter_mut().for_each(|token| finite(&mut token.logprob));
    position
}

/// From what the filters may keep; see [`candidates`].
pub(super) fn of_candidates(
    tokens: &[TokenLogit],
    total: f64,
    sampling: &Sampling,
    id: u32,
    top: usize,
    vocabulary: usize,
) -> PositionLogprobs {
    let weights = kept_weights(tokens, total, sampling);
    let sum: f64 = weights.iter().sum();
    let mut kept: Vec<(TokenLogit, f64)> =
        tokens.iter().copied().zip(weights).filter(|(_, weight)| *weight > 0.0).collect();
    let logprob = |weight: f64| (weight / sum).ln() as f32;
    let chosen = kept.iter().find(|(token, _)| token.id == id);
    let chosen = chosen.map_or(FILTERED_OUT as f32, |(_, weight)| logprob(*weight));
    let before = |a: &(TokenLogit, f64), b: &(TokenLogit, f64)| -> Ordering { a.0.before(&b.0) };
    if top < kept.len() {
        kept.select_nth_unstable_by(top, before);
        kept.truncate(top);
    }
    kept.sort_unstable_by(before);
    let mut listed: Vec<TokenLogprob> = kept
        .iter()
        .map(|(token, weight)| TokenLogprob { id: token.id, logprob: logprob(*weight) })
        .collect();
    let vocabulary = u32::try_from(vocabulary).unwrap_or(u32::MAX);
    let left_out = (0..vocabulary).filter(|id| kept.iter().all(|(token, _)| token.id != *id));
    let places = top - listed.len();
    listed
        .extend(left_out.take(places).map(|id| TokenLogprob { id, logprob: FILTERED_OUT as f32 }));
    PositionLogprobs { id, logprob: chosen, top: listed, drawn_from: vec![] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::draw::draw;
    use super::super::draw::tests::{any_logits, any_sampling};
    use super::*;

    fn ids(position: &PositionLogprobs) -> Vec<u32> {
        position.top.iter().map(|token| token.id).collect()
    }

    #[test]
    fn places_of_filtered_tokens_go_to_the_lowest_ids() {
        let logits = [0.0, 1.0, 5.0, 4.0, 2.0];
        let two = Sampling { temperature: 1.0, top_k: 2, ..Sampling::GREEDY };
        let position = of_all(&logits, &two, 3, 4);
        assert_eq!(ids(&position), [2, 3, 0, 1]);
        let softmax = (1.0_f64 / (1.0 + 1.0_f64.exp())).ln() as f32;
        assert!((position.logprob - softmax).abs() < 1e-6, "{position:?}");
        assert_eq!(position.top[2].logprob, -9999.0);
        // A token that the filters left out is told as such, and there are no more places than tokens.
        let position = of_all(&logits, &two, 4, 9);
        assert_eq!((position.logprob, ids(&position)), (-9999.0, vec![2, 3, 0, 1, 4]));
        let greedy = of_all(&[1.0, f32::NEG_INFINITY, 2.0], &Sampling::GREEDY, 1, 3);
        assert_eq!((greedy.logprob, ids(&greedy)), (-9999.0, vec![2, 0, 1]));
    }

    proptest! {
        #[test]
        fn they_are_of_what_is_drawn_from(
            logits in any_logits(), sampling in any_sampling(), index in 0_usize..9, top in 0_usize..70,
        ) {
            let drawn = draw(&logits, &sampling, index);
            prop_assume!(logits.iter().any(|logit| logit.is_finite()));
            let position = of_all(&logits, &sampling, drawn, top);
            prop_assert!(position.logprob > FILTERED_OUT as f32, "{position:?}");
            prop_assert_eq!(position.top.len(), top.min(logits.len()));
            let sum: f64 = position.top.iter().map(|token| f64::from(token.logprob).exp()).sum();
            prop_assert!(sum <= 1.0 + 1e-4, "{sum}");
            let falling = position.top.windows(2).all(|two| two[0].logprob >= two[1].logprob);
            prop_assert!(falling, "{position:?}");
        }
    }
}
