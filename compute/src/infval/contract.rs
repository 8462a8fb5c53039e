//! From a list of logprobs to a token: Gonka's deterministic sampling contract 1.0.0.
//!
//! Tokens are their ids as *text*, and text is their order: "10" comes before "9". All sums run in that
//! order, because a rounded sum depends on it. Temperature 0 is not drawn at all.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decimal::{Decimal, NotDecimal};
use super::rng::CounterRng;

/// The version that is implemented; an answer drawn by another cannot be replayed here.
pub const VERSION: &str = "1.0.0";
/// Sum of the weights of a position.
const WEIGHTS_SUM: u64 = 1 << 16;

/// Why something cannot be drawn, or cannot be drawn again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    #[error("an inference id has 1 to {most} printable ASCII letters and no blanks")]
    InferenceId { most: usize },
    #[error("at temperature 0 nothing is drawn")]
    Greedy,
    #[error("{0} is out of its range")]
    OutOfRange(&'static str),
    #[error("a position lists no tokens")]
    NothingListed,
    #[error(transparent)]
    NotDecimal(#[from] NotDecimal),
}

/// What a request asks of the draw. `None` is a filter that is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// Above 0.
    temperature: Decimal,
    /// Below 1.
    top_p: Option<Decimal>,
    /// Above 0.
    top_k: Option<usize>,
    /// Above 0, at most 1.
    min_p: Option<Decimal>,
}

impl Filters {
    /// From a request's numbers. What keeps every token is off: a `top_p` of 1, a `top_k` of 0 or -1, a
    /// `min_p` of 0.
    ///
    /// # Errors
    /// [`ContractError::Greedy`] at temperature 0, and numbers out of their range.
    pub fn new(
        temperature: f64,
        top_p: Option<f64>,
        top_k: Option<i64>,
        min_p: Option<f64>,
    ) -> Result<Self, ContractError> {
        if temperature == 0.0 {
            return Err(ContractError::Greedy);
        }
        let number = |name, value: f64, within: bool| {
            Decimal::of(value).filter(|_| within).ok_or(ContractError::OutOfRange(name))
        };
        let share = |name, value: Option<f64>, off: f64| {
            let on = value.filter(|value| *value != off);
            on.map(|value| number(name, value, (0.0..=1.0).contains(&value))).transpose()
        };
        let top_k = match top_k.unwrap_or(0) {
            ..-1 => return Err(ContractError::OutOfRange("top_k")),
            -1..=0 => None,
            top_k @ 1.. => Some(usize::try_from(top_k).unwrap_or(usize::MAX)),
        };
        Ok(Self {
            temperature: number("temperature", temperature, temperature > 0.0)?,
            top_p: share("top_p", top_p, 1.0)?,
            top_k,
            min_p: share("min_p", min_p, 0.0)?,
        })
    }

    /// How many tokens have to be listed at the least for a draw that a replay can repeat; `None` if no
    /// number is enough, because neither `top_k` nor `min_p` bounds them. Tokens within `min_p` of the
    /// likeliest are seldom more than `1 / min_p`.
    #[must_use]
    pub fn listed_least(&self) -> Option<usize> {
        let within = |min_p: &Decimal| Decimal::ONE.div(min_p).map(|count| count.to_integer());
        let by_min_p = self.min_p.as_ref().and_then(within).map(|count| count.max(1) as usize);
        [self.top_k, by_min_p].into_iter().flatten().min()
    }
}

/// The integer weight of every token the filters leave, in the order of the contract; they add up to
/// 65536.
///
/// # Errors
/// Nothing is listed.
pub fn weights(
    listed: &BTreeMap<String, Decimal>,
    filters: &Filters,
) -> Result<BTreeMap<String, i64>, ContractError> {
    let scaled: Vec<Decimal> =
        listed.values().filter_map(|logprob| logprob.div(&filters.temperature)).collect();
    let largest = scaled.iter().max().ok_or(ContractError::NothingListed)?;
    let powers = scaled.iter().map(|logprob| logprob.sub(largest).exp());
    let mut kept: Vec<(&str, Decimal)> =
        shares(listed.keys().map(String::as_str).zip(powers).collect());
    // Sorting is stable: equally likely tokens stay in the order of their texts.
    if let Some(top_k) = filters.top_k.filter(|top_k| *top_k < kept.len()) {
        kept.sort_by_key(|(_, share)| Reverse(*share));
        kept.truncate(top_k);
        kept.sort_unstable_by_key(|(id, _)| *id);
    }
    if let Some(top_p) = &filters.top_p {
        kept.sort_by_key(|(_, share)| Reverse(*share));
        let mut reached = Decimal::ZERO;
        let crossing = kept.iter().position(|(_, share)| {
            reached = reached.add(share);
            reached >= *top_p
        });
        kept.truncate(crossing.map_or(kept.len(), |last| last + 1));
        kept.sort_unstable_by_key(|(id, _)| *id);
    }
    if let Some(min_p) = &filters.min_p {
        let likeliest = kept.iter().map(|(_, share)| *share).max().unwrap_or(Decimal::ZERO);
        let least = likeliest.mul(min_p);
        kept.retain(|(_, share)| *share >= least);
    }
    let scale = Decimal::integer(WEIGHTS_SUM);
    let mut weights: BTreeMap<String, i64> = shares(kept)
        .into_iter()
        .map(|(id, share)| (id.to_owned(), share.mul(&scale).to_integer()))
        .collect();
    let missing = WEIGHTS_SUM.cast_signed() - weights.values().sum::<i64>();
    if let Some((_, heaviest)) = weights.iter_mut().max_by_key(|(id, weight)| (**weight, *id)) {
        *heaviest += missing;
    }
    Ok(weights)
}

/// Each number as a share of their sum.
fn shares(numbers: Vec<(&str, Decimal)>) -> Vec<(&str, Decimal)> {
    let sum = numbers.iter().fold(Decimal::ZERO, |sum, (_, number)| sum.add(number));
    let share = |(id, number): (_, Decimal)| Some((id, number.div(&sum)?));
    numbers.into_iter().filter_map(share).collect()
}

/// The token drawn from a list, with the seed of its position.
///
/// # Errors
/// Nothing is listed.
pub fn draw(
    listed: &BTreeMap<String, Decimal>,
    filters: &Filters,
    seed: &str,
) -> Result<String, ContractError> {
    let weights = weights(listed, filters)?;
    let point = CounterRng::new(seed).below(WEIGHTS_SUM).cast_signed();
    let mut sum = 0;
    let chosen = weights.into_iter().find(|(_, weight)| {
        sum += weight;
        sum > point
    });
    chosen.map(|(id, _)| id).ok_or(ContractError::NothingListed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poc::vectors;
    use proptest::prelude::*;
    use serde_json::Value;

    fn number(value: &Value) -> Option<f64> {
        value.as_str().map(|text| text.parse().unwrap())
    }

    #[test]
    fn weights_and_tokens_are_the_networks() {
        for case in vectors::cases("det_sampling.json") {
            let filters = Filters::new(
                number(&case["temperature"]).unwrap(),
                number(&case["top_p"]),
                case["top_k"].as_i64(),
                number(&case["min_p"]),
            )
            .unwrap();
            let listed: BTreeMap<String, Decimal> = case["logprobs"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(id, logprob)| (id.clone(), logprob.as_str().unwrap().parse().unwrap()))
                .collect();
            let wanted: BTreeMap<String, i64> =
                serde_json::from_value(case["weights"].clone()).unwrap();
            assert_eq!(weights(&listed, &filters).unwrap(), wanted, "{case}");
            let token = draw(&listed, &filters, case["seed_str"].as_str().unwrap()).unwrap();
            assert_eq!(token, case["token"].as_str().unwrap(), "{case}");
        }
    }

    /// Long lists, ties, tiny temperatures: as Python's `decimal` draws.
    #[test]
    fn weights_and_tokens_are_pythons() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/infval/sampling.json");
        let document: Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = document["cases"].as_array().unwrap();
        assert!(cases.len() >= 100);
        for case in cases {
            let number = |name: &str| case[name].as_f64();
            let filters = Filters::new(
                number("temperature").unwrap(),
                number("top_p"),
                case["top_k"].as_i64(),
                number("min_p"),
            );
            let listed: BTreeMap<String, String> =
                serde_json::from_value(case["logprobs"].clone()).unwrap();
            let listed = listed.into_iter().map(|(id, text)| (id, text.parse().unwrap())).collect();
            let wanted: BTreeMap<String, i64> =
                serde_json::from_value(case["weights"].clone()).unwrap();
            let filters = filters.unwrap();
            assert_eq!(weights(&listed, &filters).unwrap(), wanted, "{case}");
            let token = draw(&listed, &filters, case["seed"].as_str().unwrap()).unwrap();
            assert_eq!(token, case["token"].as_str().unwrap(), "{case}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let error = |temperature, top_p, top_k, min_p| {
            Filters::new(temperature, top_p, top_k, min_p).unwrap_err()
        };
        assert_eq!(error(0.0, None, None, None), ContractError::Greedy);
        assert_eq!(error(-0.0, None, None, None), ContractError::Greedy);
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(error(wrong, None, None, None), ContractError::OutOfRange("temperature"));
            assert_eq!(error(1.0, Some(wrong), None, None), ContractError::OutOfRange("top_p"));
            assert_eq!(error(1.0, None, None, Some(wrong)), ContractError::OutOfRange("min_p"));
        }
        assert_eq!(error(1.0, None, Some(-2), None), ContractError::OutOfRange("top_k"));
        let off = Filters::new(1.0, Some(1.0), Some(-1), Some(0.0)).unwrap();
        assert_eq!(off, Filters::new(1.0, None, None, None).unwrap());
        assert_eq!(weights(&BTreeMap::new(), &off), Err(ContractError::NothingListed));
    }

    #[test]
    fn what_a_replay_needs_is_bounded_by_top_k_or_min_p() {
        let least =
            |top_p, top_k, min_p| Filters::new(0.7, top_p, top_k, min_p).unwrap().listed_least();
        assert_eq!(least(Some(0.9), None, None), None);
        assert_eq!(least(None, Some(40), None), Some(40));
        assert_eq!(least(None, None, Some(0.05)), Some(20));
        assert_eq!(least(None, Some(5), Some(0.05)), Some(5));
        assert_eq!(least(None, None, Some(1.0)), Some(1));
    }

    proptest! {
        /// Any list at all: weights of at least 0 that add up, of listed tokens, and a draw among them.
        #[test]
        fn weights_add_up_for_any_list(
            logprobs in proptest::collection::btree_map(0_u32..100_000, -1e4_f32..0.0, 1..70),
            temperature in prop_oneof![0.001_f64..3.0, Just(1e-9), Just(1e9)],
            top_p in proptest::option::of(0.0_f64..=1.0),
            top_k in proptest::option::of(-1_i64..80),
            min_p in proptest::option::of(0.0_f64..=1.0),
            seed in "[a-z]{0,9}",
        ) {
            let listed: BTreeMap<String, Decimal> = logprobs
                .iter()
                .map(|(id, logprob)| (id.to_string(), Decimal::of(f64::from(*logprob)).unwrap()))
                .collect();
            let filters = Filters::new(temperature, top_p, top_k, min_p).unwrap();
            let weights = weights(&listed, &filters).unwrap();
            prop_assert_eq!(weights.values().sum::<i64>(), 1 << 16);
            prop_assert!(weights.iter().all(|(id, weight)| *weight >= 0 && listed.contains_key(id)));
            if let Some(top_k) = top_k.filter(|top_k| *top_k > 0) {
                prop_assert!(weights.len() <= top_k as usize);
            }
            let token = draw(&listed, &filters, &seed).unwrap();
            prop_assert!(weights[&token] > 0);
            prop_assert_eq!(draw(&listed, &filters, &seed), Ok(token));
        }
    }
}
