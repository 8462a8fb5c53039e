//! Draws an answer again, from the executor's own lists: fraud, honest, or nothing can be said.
//!
//! Only a draw that could be repeated and gave another token is fraud, and one such draw is enough.
//! Whatever cannot be repeated accuses nobody: another version, temperature 0, filters without `top_k` or
//! `min_p`, whose choice may lie outside any list. This check alone does not show that the lists are the
//! model's; [`super::similarity`] does.

use std::collections::BTreeMap;

use super::contract::{ContractError, Filters, VERSION, draw};
use super::decimal::Decimal;
use super::seed;

/// What came of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingVerdict {
    /// A position gives another token than was reported.
    Fraud,
    /// At least one position was drawn again, and all that were gave the reported token.
    Honest,
    /// Nothing could be drawn again.
    Inconclusive,
}

impl SamplingVerdict {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fraud => "fraud",
            Self::Honest => "honest",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// One position of an answer as its executor reported it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampledPosition {
    /// The id drawn, as text.
    pub token: String,
    /// What it was drawn from: id and logprob, both as text. `None` if it was not reported.
    pub listed: Option<BTreeMap<String, String>>,
}

/// An answer with what is needed to draw it again.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledAnswer {
    /// Of the contract.
    pub version: String,
    pub seed_domain: String,
    pub base_seed: String,
    /// From the request.
    pub filters: Result<Filters, ContractError>,
    pub positions: Vec<SampledPosition>,
}

/// What a replay found.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    pub verdict: SamplingVerdict,
    /// The first position that gave another token, and that token.
    pub fraud: Option<(usize, String)>,
    /// Positions that gave the reported token.
    pub honest: usize,
    /// Positions that could not be drawn again.
    pub inconclusive: usize,
    /// Why nothing could be said, where nothing could.
    pub reason: Option<String>,
}

impl Replayed {
    fn nothing(reason: String) -> Self {
        let verdict = SamplingVerdict::Inconclusive;
        Self { verdict, fraud: None, honest: 0, inconclusive: 0, reason: Some(reason) }
    }
}

/// Draws every position again.
#[must_use]
pub fn replay(answer: &SampledAnswer) -> Replayed {
    if answer.version != VERSION {
        let reason = format!("contract {:?} is not {VERSION}, which is known here", answer.version);
        return Replayed::nothing(reason);
    }
    if answer.seed_domain != seed::DOMAIN {
        let reason = format!("seeds of {:?} are not those of {}", answer.seed_domain, seed::DOMAIN);
        return Replayed::nothing(reason);
    }
    let filters = match &answer.filters {
        Ok(filters) => filters,
        Err(error) => return Replayed::nothing(error.to_string()),
    };
    if filters.listed_least().is_none() {
        let reason = "without top_k or min_p the token may be none of the list";
        return Replayed::nothing(reason.to_owned());
    }
    let (mut honest, mut inconclusive) = (0, 0);
    for (at, position) in answer.positions.iter().enumerate() {
        match redraw(position, filters, &seed::at(&answer.base_seed, at)) {
            Some(token) if token == position.token => honest += 1,
            Some(token) => {
                let (verdict, fraud) = (SamplingVerdict::Fraud, Some((at, token)));
                return Replayed { verdict, fraud, honest, inconclusive, reason: None };
            }
            None => inconclusive += 1,
        }
    }
    let (verdict, reason) = match honest {
        0 => (SamplingVerdict::Inconclusive, Some("no position could be drawn again".to_owned())),
        1.. => (SamplingVerdict::Honest, None),
    };
    Replayed { verdict, fraud: None, honest, inconclusive, reason }
}

/// The token of a position; `None` if its list cannot be drawn from.
fn redraw(position: &SampledPosition, filters: &Filters, seed: &str) -> Option<String> {
    let listed = position.listed.as_ref()?;
    let parsed = |(id, logprob): (&String, &String)| Some((id.clone(), logprob.parse().ok()?));
    let listed: BTreeMap<String, Decimal> = listed.iter().map(parsed).collect::<Option<_>>()?;
    draw(&listed, filters, seed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer() -> SampledAnswer {
        let filters = Filters::new(0.7, None, Some(3), None).unwrap();
        let listed: BTreeMap<String, String> =
            (0..5_u32).map(|id| (id.to_string(), format!("-0.{}", 5 + id))).collect();
        let base_seed = seed::derive(7, "chain-abc").unwrap();
        let decimals = listed.iter().map(|(id, p)| (id.clone(), p.parse().unwrap())).collect();
        let drawn = |at| draw(&decimals, &filters, &seed::at(&base_seed, at)).unwrap();
        let position = |at| SampledPosition { token: drawn(at), listed: Some(listed.clone()) };
        SampledAnswer {
            version: VERSION.into(),
            seed_domain: seed::DOMAIN.into(),
            positions: (0..20).map(position).collect(),
            base_seed,
            filters: Ok(filters),
        }
    }

    #[test]
    fn one_other_token_is_fraud_and_the_first_is_told() {
        let honest = replay(&answer());
        assert_eq!((honest.verdict, honest.honest), (SamplingVerdict::Honest, 20));
        let mut tampered = answer();
        let was = std::mem::replace(&mut tampered.positions[4].token, "4".into());
        tampered.positions[9].token = "4".into();
        let found = replay(&tampered);
        assert_eq!((found.verdict, found.fraud), (SamplingVerdict::Fraud, Some((4, was))));
        let other_seed = SampledAnswer { base_seed: "ab".into(), ..answer() };
        assert_eq!(replay(&other_seed).verdict, SamplingVerdict::Fraud);
    }

    #[test]
    fn what_cannot_be_repeated_accuses_nobody() {
        let inconclusive = |answer: SampledAnswer| {
            let found = replay(&answer);
            assert_eq!(found.verdict, SamplingVerdict::Inconclusive, "{found:?}");
            found.reason.unwrap()
        };
        let version = SampledAnswer { version: "1.1.0".into(), ..answer() };
        assert!(inconclusive(version).contains("1.1.0"));
        let domain = SampledAnswer { seed_domain: "other".into(), ..answer() };
        assert!(inconclusive(domain).contains("other"));
        let greedy = Filters::new(0.0, None, Some(3), None);
        assert!(inconclusive(SampledAnswer { filters: greedy, ..answer() }).contains("temp"));
        let unbounded = Filters::new(1.0, Some(0.9), None, None);
        assert!(inconclusive(SampledAnswer { filters: unbounded, ..answer() }).contains("top_k"));
        let mut unlisted = answer();
        for position in &mut unlisted.positions {
            position.listed = None;
        }
        assert!(inconclusive(unlisted.clone()).contains("no position"));
        // One that can is enough, and lists that are no numbers are not counted against anybody.
        unlisted.positions[3] = answer().positions[3].clone();
        unlisted.positions[4].listed = Some([("1".into(), "NaN".into())].into());
        let found = replay(&unlisted);
        assert_eq!((found.verdict, found.honest), (SamplingVerdict::Honest, 1));
        assert_eq!(found.inconclusive, 19);
    }

    proptest! {
        #[test]
        fn any_answer_gets_a_verdict(
            token in "[0-9]{0,3}|.{0,4}", logprob in "-?[0-9.eE+-]{0,30}|.{0,6}",
            version in prop_oneof![Just(VERSION.to_owned()), any::<String>()],
        ) {
            let listed = [("1".to_owned(), logprob), (token.clone(), "-1".to_owned())].into();
            let position = SampledPosition { token, listed: Some(listed) };
            let any = SampledAnswer { version, positions: vec![position], ..answer() };
            let found = replay(&any);
            prop_assert_eq!(found.fraud.is_some(), found.verdict == SamplingVerdict::Fraud);
        }
    }
}
