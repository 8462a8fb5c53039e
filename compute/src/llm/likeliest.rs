//! The likeliest tokens of a row as the GPU found them, and the sums that their probabilities need: a
//! record of under a kilobyte instead of a vocabulary.

use crate::kernels::top::{CAPACITY, Wish};

use super::draw::TokenLogit;
use super::logprobs::LogSoftmax;
use super::request::{PositionLogprobs, TokenLogprob};

/// What is known of the tokens after a position.
#[derive(Clone, Copy)]
pub(super) enum Scores<'a> {
    /// The logits of the whole vocabulary.
    All(&'a [f32]),
    Likeliest(&'a Likeliest),
}

impl Scores<'_> {
    /// The token `id` with the `top` likeliest; `None` if all logits are needed to tell.
    pub fn position(self, id: u32, top: usize) -> Option<PositionLogprobs> {
        match self {
            Self::All(logits) => Some(LogSoftmax::new(logits).position(id, top)),
            Self::Likeliest(likeliest) => likeliest.position(id, top),
        }
    }
}

pub(super) struct Likeliest {
    /// At least [`KEPT`](crate::kernels::top::KEPT), or all there are, best first.
    tokens: Vec<TokenLogit>,
    /// The token that was asked for.
    wanted: TokenLogit,
    /// `ln(sum(exp(logit)))`.
    normaliser: f64,
    /// Sum of the weights of all tokens at the wish's temperature, relative to the likeliest.
    tempered_total: f64,
}

impl Likeliest {
    /// Reads a record of `top_k.wgsl`; `None` if the row has to be read whole: too many tokens share
    /// the last place, or a logit is not finite in a way that sums do not survive.
    pub fn read(record: &[f32], wish: Wish) -> Option<Self> {
        let (head, pairs) = record.split_at_checked(8)?;
        let [count, largest, sum, tempered, wanted, ..] = *head else { return None };
        if !(0.0..=CAPACITY as f32).contains(&count) || !largest.is_finite() {
            return None;
        }
        let mut tokens: Vec<TokenLogit> = pairs
            .chunks_exact(2)
            .take(count as usize)
            .map(|pair| TokenLogit { logit: pair[0], id: pair[1] as u32 })
            .collect();
        tokens.sort_unstable_by(TokenLogit::before);
        Some(Self {
            tokens,
            wanted: TokenLogit { logit: wanted, id: wish.token },
            normaliser: f64::from(largest) + f64::from(sum).ln(),
            tempered_total: f64::from(tempered),
        })
    }

    pub fn tokens(&self) -> &[TokenLogit] {
        &self.tokens
    }

    pub fn tempered_total(&self) -> f64 {
        self.tempered_total
    }

    fn position(&self, id: u32, top: usize) -> Option<PositionLogprobs> {
        let of = |token: &TokenLogit| TokenLogprob { id: token.id, logprob: self.logprob(token) };
        let mut known = std::iter::once(&self.wanted).chain(&self.tokens);
        let logprob = of(known.find(|token| token.id == id)?).logprob;
        let top = self.tokens.iter().take(top).map(of).collect();
        Some(PositionLogprobs { id, logprob, top, drawn_from: vec![] })
    }

    /// Its logprob before anything a request asks for.
    pub fn logprob(&self, token: &TokenLogit) -> f32 {
        (f64::from(token.logit) - self.normaliser) as f32
    }

    /// The logit of a token that is listed or was asked for.
    pub fn logit(&self, id: u32) -> Option<f32> {
        let mut known = std::iter::once(&self.wanted).chain(&self.tokens);
        known.find(|token| token.id == id).map(|token| token.logit)
    }

    /// What the GPU finds, by the CPU twin.
    #[cfg(test)]
    pub fn of_logits(logits: &[f32], inverse_temperature: f32) -> Option<Self> {
        use crate::reference::top::record;
        let wish = Wish { token: 0, inverse_temperature };
        Self::read(&record(logits, wish), wish)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::draw::tests::any_logits;
    use super::*;

    proptest! {
        #[test]
        fn logprobs_are_those_of_all_logits(
            logits in any_logits(), id in 0_usize..80, top in 0_usize..64,
        ) {
            let id = (id % logits.len()) as u32;
            let wish = Wish { token: id, inverse_temperature: 1.0 };
            let Some(likeliest) = Likeliest::read(&crate::reference::top::record(&logits, wish), wish)
            else { return Ok(()) };
            let found = Scores::Likeliest(&likeliest).position(id, top).unwrap();
            let wanted = Scores::All(&logits).position(id, top).unwrap();
            let close = |a: f32, b: f32| a == b || (a - b).abs() <= 1e-5;
            prop_assert!(close(found.logprob, wanted.logprob), "{found:?} {wanted:?}");
            prop_assert_eq!(found.top.len(), wanted.top.len());
            for (found, wanted) in found.top.iter().zip(&wanted.top) {
                prop_assert_eq!(found.id, wanted.id);
                prop_assert!(close(found.logprob, wanted.logprob));
            }
        }
    }

    #[test]
    fn rows_that_records_cannot_tell_are_read_whole() {
        assert!(Likeliest::of_logits(&[f32::NAN, 1.0], 1.0).is_none());
        assert!(Likeliest::of_logits(&[f32::INFINITY, 1.0], 1.0).is_none());
        assert!(Likeliest::of_logits(&[f32::NEG_INFINITY; 3], 1.0).is_none());
        assert!(Likeliest::of_logits(&[1.0; CAPACITY + 1], 1.0).is_none());
        assert!(Likeliest::of_logits(&[1.0; CAPACITY], 1.0).is_some());
        let unknown = Likeliest::of_logits(&[1.0; 5], 1.0).unwrap();
        assert!(Scores::Likeliest(&unknown).position(9, 0).is_none());
    }
}
