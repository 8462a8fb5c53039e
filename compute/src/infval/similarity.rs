//! Did another machine generate this text with this model? Compares top-k logprobs of a replay.
//!
//! The validator replays the executor's tokens and both list the likeliest tokens of every
//! position. Tokens the executor did not list are given the logprob that continues its two lowest
//! ones, and each pair adds its relative difference. Source: Gonka's vLLM fork,
//! `vllm/validation.py`.
//!
//! An answer of fewer than 100 tokens is divided by 100 all the same, so that a short one is similar
//! whatever model made it; [`Likeness::per_token`] is what tells models apart there.

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

/// How alike two sets of lists are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likeness {
    /// What the network judges by, from 0 to 1.
    pub similarity: f64,
    /// Mean relative difference of a listed token, over the positions there are. Measured on a 135M model
    /// against its f32: 3e-4 for f16 weights, 7e-3 for bf16, 0.01 for 8 bits, 0.1 for 4 bits.
    pub per_token: f64,
}

/// Compares the validator's lists with the executor's, one list per position.
///
/// `None` if there is nothing to compare: an empty list, or a replay shorter than the original (a longer
/// one is cut).
#[must_use]
pub fn likeness(executor: &[Vec<Listed>], validator: &[Vec<Listed>]) -> Option<Likeness> {
    let listed = executor.first()?.len();
    if listed == 0 || validator.len() < executor.len() {
        return None;
    }
    let mut total = 0.0;
    for (ours, theirs) in executor.iter().zip(validator) {
        total += position_distance(ours, theirs)?;
    }
    let slots = |positions: usize| (positions * listed) as f64;
    let similarity = (1.0 - total / slots(executor.len().max(POSITIONS_MIN))).max(0.0);
    Some(Likeness { similarity, per_token: total / slots(executor.len()) })
}

/// Sum of the relative differences of one position; `None` if the executor listed nothing.
fn position_distance(executor: &[Listed], validator: &[Listed]) -> Option<f64> {
    let mut ordered: Vec<f64> = executor.iter().map(|token| token.logprob).collect();
    ordered.sort_unstable_by(f64::total_cmp);
    let lowest = *ordered.first()?;
    let second = ordered.get(1).copied().unwrap_or(lowest - LONE_GAP);
    let missing = lowest - (second - lowest);
    let distance = |token: &Listed| {
        // As a map keeps the last of two that have one key.
        let ours = executor.iter().rfind(|known| known.id == token.id);
        let (a, b) = (ours.map_or(missing, |known| known.logprob), token.logprob);
        (b - a).abs() / (SCALE_FLOOR + a.abs() + b.abs()) / 2.0
    };
    Some(validator.iter().map(distance).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;
    use proptest::prelude::*;
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
            let got = likeness(&lists(&case["executor"]), &lists(&case["validator"])).unwrap();
            let want = case["similarity"].as_f64().unwrap();
            assert!((got.similarity - want).abs() <= 1e-9, "{got:?} against {want}");
        }
    }

    #[test]
    fn nothing_to_compare_is_no_likeness() {
        let one = vec![vec![Listed { id: 1, logprob: -0.5 }]];
        assert_eq!(likeness(&[], &one), None);
        assert_eq!(likeness(&one, &[]), None);
        assert_eq!(likeness(&[vec![]], &one), None);
        assert_eq!(likeness(&[one[0].clone(), vec![]], &[one[0].clone(), vec![]]), None);
        let same = Some(Likeness { similarity: 1.0, per_token: 0.0 });
        assert_eq!(likeness(&one, &one), same);
        let twice = [one.clone(), one.clone()].concat();
        assert_eq!(likeness(&one, &twice), same);
    }

    fn any_lists() -> impl Strategy<Value = Vec<Vec<Listed>>> {
        let logprob = prop_oneof![-30.0..0.0, Just(-9999.0), Just(0.0), proptest::num::f64::ANY];
        let listed = (0_u32..40, logprob).prop_map(|(id, logprob)| Listed { id, logprob });
        proptest::collection::vec(proptest::collection::vec(listed, 0..7), 0..130)
    }

    proptest! {
        #[test]
        fn any_lists_are_compared_or_refused(executor in any_lists(), validator in any_lists()) {
            if let Some(found) = likeness(&executor, &validator) {
                prop_assert!((0.0..=1.0).contains(&found.similarity), "{found:?}");
            }
        }

        #[test]
        fn a_list_is_like_itself(
            lists in proptest::collection::vec(
                proptest::collection::btree_map(0_u32..99, -30.0..0.0, 1..7), 1..130),
        ) {
            let list = |list: std::collections::BTreeMap<u32, f64>| -> Vec<Listed> {
                list.into_iter().map(|(id, logprob)| Listed { id, logprob }).collect()
            };
            let lists: Vec<Vec<Listed>> = lists.into_iter().map(list).collect();
            let same = Likeness { similarity: 1.0, per_token: 0.0 };
            prop_assert_eq!(likeness(&lists, &lists), Some(same));
        }
    }
}
