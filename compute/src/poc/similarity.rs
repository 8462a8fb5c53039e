//! Did another machine generate this text with this model? Compares top-k logprobs of a replay.
//!
//! The validator replays the executor's tokens and both list the likeliest tokens of every
//! position. Tokens the executor did not list are given the logprob that continues its two lowest
//! ones, and each pair adds its relative difference. Source: Gonka's vLLM fork,
//! `vllm/validation.py`.

/// One listed token and its natural-log probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Listed {
    pub id: u32,
    pub logprob: f64,
}

/// Sequences shorter than this count as this long, so a short answer is judged mildly.
const POSITIONS_MIN: usize = 100;
/// Keeps two logprobs of zero from dividing by zero.
const SCALE_FLOOR: f64 = 1e-6;
/// Stands below a lone listed logprob as its 'second lowest'. It puts unlisted tokens 100 *above*
/// the lone one; the network does so, and a verdict must agree with the network's.
const LONE_GAP: f64 = 100.0;

/// `1 - mean distance` of the validator's lists from the executor's, from 0 to 1.
///
/// Each slice holds one list per position. `None` if there is nothing to compare: an empty list, or
/// a replay shorter than the original (a longer one is cut).
#[must_use]
pub fn similarity(executor: &[Vec<Listed>], validator: &[Vec<Listed>]) -> Option<f64> {
    let listed = executor.first()?.len();
    if listed == 0 || validator.len() < executor.len() {
        return None;
    }
    let mut total = 0.0;
    for (ours, theirs) in executor.iter().zip(validator) {
        total += position_distance(ours, theirs)?;
    }
    let slots = (executor.len().max(POSITIONS_MIN) * listed) as f64;
    Some((1.0 - total / slots).max(0.0))
}

/// Sum of the relative differences of one position; `None` if the executor listed nothing.
fn position_distance(executor: &[Listed], validator: &[Listed]) -> Option<f64> {
    let mut ordered: Vec<f64> = executor.iter().map(|token| token.logprob).collect();
    ordered.sort_unstable_by(f64::total_cmp);
    let lowest = *ordered.first()?;
    let second = ordered.get(1).copied().unwrap_or(lowest - LONE_GAP);
    let missing = lowest - (second - lowest);
    let distance = |token: &Listed| {
        let ours = executor.iter().find(|known| known.id == token.id);
        let (a, b) = (ours.map_or(missing, |known| known.logprob), token.logprob);
        (b - a).abs() / (SCALE_FLOOR + a.abs() + b.abs()) / 2.0
    };
    Some(validator.iter().map(distance).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;
    use serde_json::Value;

    fn lists(value: &Value) -> Vec<Vec<Listed>> {
        let listed = |pair: &Value| Listed {
            id: pair[0].as_str().unwrap().parse().unwrap(),
            logprob: pair[1].as_f64().unwrap(),
        };
        let position = |list: &Value| list.as_array().unwrap().iter().map(listed).collect();
        value.as_array().unwrap().iter().map(position).collect()
    }

    #[test]
    fn similarities_match() {
        for case in vectors::cases("infval.json") {
            let got = similarity(&lists(&case["executor"]), &lists(&case["validator"])).unwrap();
            let want = case["similarity"].as_f64().unwrap();
            assert!((got - want).abs() <= 1e-9, "{got} against {want}");
        }
    }

    #[test]
    fn nothing_to_compare_is_no_similarity() {
        let one = vec![vec![Listed { id: 1, logprob: -0.5 }]];
        assert_eq!(similarity(&[], &one), None);
        assert_eq!(similarity(&one, &[]), None);
        assert_eq!(similarity(&[vec![]], &one), None);
        assert_eq!(similarity(&one, &one), Some(1.0));
        let twice = [one.clone(), one.clone()].concat();
        assert_eq!(similarity(&one, &twice), Some(1.0));
    }
}
