//! What a request asks of the choice of tokens: penalties and biases over what was said, then a draw, from
//! the whole vocabulary or from the likeliest tokens if they settle it.

use std::collections::{BTreeMap, HashSet};

use super::draw::{draw, draw_sorted, total, weight};
use super::engine::bad;
use super::error::EngineError;
use super::likeliest::Likeliest;
use super::request::{LOGIT_BIAS_MAX, Sampling};
use crate::grammar::TokenMask;
use crate::kernels::top::KEPT;

/// Largest relative error of a GPU's sum of weights: f32 sums and exponentials of a vocabulary err by
/// less than 1e-5; ten times that.
const TOTAL_TOLERANCE: f64 = 1e-4;

/// What one running answer needs to draw its next token: the wishes of its request and, for the
/// penalties, which tokens it has seen. Draws depend on the seed and the position alone, so an
/// answer is the same whatever runs beside it and a replay may start anywhere.
pub(super) struct Sampler {
    sampling: Sampling,
    /// Tokens of the prompt, if a penalty asks for them.
    in_prompt: HashSet<u32>,
    /// How often each token was taken, if a penalty asks for it.
    taken: BTreeMap<u32, u32>,
}

impl Sampler {
    pub fn new(sampling: &Sampling, prompt_ids: &[u32]) -> Self {
        let in_prompt = match sampling.repetition_penalty == 1.0 {
            true => HashSet::new(),
            false => prompt_ids.iter().copied().collect(),
        };
        Self { sampling: sampling.clone(), in_prompt, taken: BTreeMap::new() }
    }

    /// If the likeliest tokens may be all that [`Self::draw_among`] needs: what their weights are raised
    /// to. Else [`Self::draw`] needs the logits of the whole vocabulary.
    pub fn inverse_temperature(&self) -> Option<f32> {
        let sampling = &self.sampling;
        let inverse = match sampling.temperature {
            temperature if temperature > 0.0 => temperature.recip(),
            _ => 1.0,
        };
        let few = sampling.temperature <= 0.0
            || (1..=KEPT).contains(&(sampling.top_k as usize))
            || (sampling.top_k == 0 && sampling.top_p < 1.0);
        (few && !sampling.changes_logits() && inverse.is_finite()).then_some(inverse)
    }

    /// Draws the token at position `index` of the answer from the logits of the whole vocabulary.
    /// With `allowed` only its tokens are drawn, whatever their logits.
    pub fn draw(&self, logits: &[f32], allowed: Option<&TokenMask>, index: usize) -> u32 {
        if allowed.is_none() && !self.sampling.changes_logits() {
            return draw(logits, &self.sampling, index);
        }
        let mut changed = logits.to_vec();
        self.penalise(&mut changed);
        if let Some(allowed) = allowed {
            for (id, logit) in (0_u32..).zip(&mut changed) {
                if !allowed.contains(id) {
                    *logit = f32::NAN;
                } else if logit.is_nan() {
                    *logit = f32::MIN;
                }
            }
        }
        draw(&changed, &self.sampling, index)
    }

    /// As [`Self::draw`], from the likeliest tokens alone; `None` if they do not settle what the whole
    /// vocabulary would give. See [`Self::inverse_temperature`].
    pub fn draw_among(&self, likeliest: &Likeliest, index: usize) -> Option<u32> {
        let sampling = &self.sampling;
        let tokens = likeliest.tokens();
        self.inverse_temperature()?;
        let best = tokens.first()?;
        if sampling.temperature <= 0.0 {
            return Some(best.id);
        }
        if sampling.top_k > 0 {
            let kept = &tokens[..tokens.len().min(sampling.top_k as usize)];
            return Some(draw_sorted(kept, total(kept, sampling), sampling, index));
        }
        let whole = likeliest.tempered_total();
        let reached = |by: f64| {
            let mut cumulative = 0.0;
            tokens.iter().position(|token| {
                cumulative += weight(token.logit, best.logit, sampling);
                cumulative >= f64::from(sampling.top_p) * whole * by
            })
        };
        // The sum is a GPU's: where its last bits might move the cut, nothing is settled.
        let [low, high] = [1.0 - TOTAL_TOLERANCE, 1.0 + TOTAL_TOLERANCE].map(reached);
        let settled = low.is_some() && low == high;
        settled.then(|| draw_sorted(tokens, whole, sampling, index))
    }

    /// Notes that `id` was taken, by a draw or because it was enforced.
    pub fn took(&mut self, id: u32) {
        if self.sampling.changes_logits() {
            *self.taken.entry(id).or_default() += 1;
        }
    }

    /// Repetition penalty over prompt and answer, frequency and presence penalty over the answer,
    /// then the biases; the formulas and their order are those of vLLM and OpenAI's reference.
    fn penalise(&self, logits: &mut [f32]) {
        let sampling = &self.sampling;
        let mut change = |id: u32, to: &dyn Fn(f32) -> f32| {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = to(*logit);
            }
        };
        if sampling.repetition_penalty != 1.0 {
            let by = sampling.repetition_penalty;
            let fresh = self.taken.keys().filter(|id| !self.in_prompt.contains(id));
            for id in self.in_prompt.iter().chain(fresh) {
                change(*id, &|logit| if logit > 0.0 { logit / by } else { logit * by });
            }
        }
        for (id, count) in &self.taken {
            let by = sampling.frequency_penalty * *count as f32 + sampling.presence_penalty;
            change(*id, &|logit| logit - by);
        }
        for (id, bias) in &sampling.logit_bias {
            change(*id, &|logit| logit + bias);
        }
    }
}

impl Sampling {
    /// True if the logits are changed before anything is drawn from them.
    fn changes_logits(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || !self.logit_bias.is_empty()
    }

    /// Refuses values that have no meaning; `vocabulary` is the number of token ids.
    pub(super) fn check(&self, vocabulary: usize) -> Result<(), EngineError> {
        let in_unit = |value: f32| (0.0..=1.0).contains(&value);
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(bad("temperature", "must be 0 or more"));
        }
        if !in_unit(self.top_p) || !in_unit(self.min_p) {
            return Err(bad("top_p, min_p", "must be between 0 and 1"));
        }
        if !self.repetition_penalty.is_finite() || self.repetition_penalty <= 0.0 {
            return Err(bad("repetition_penalty", "must be above 0"));
        }
        if !self.presence_penalty.is_finite() || !self.frequency_penalty.is_finite() {
            return Err(bad("presence_penalty, frequency_penalty", "must be finite"));
        }
        if self.logit_bias.len() > LOGIT_BIAS_MAX {
            return Err(bad("logit_bias", format!("more than {LOGIT_BIAS_MAX} tokens")));
        }
        match self.logit_bias.iter().find(|(id, by)| *id as usize >= vocabulary || by.is_nan()) {
            Some((id, _)) => Err(bad(
                "logit_bias",
                format!("id {id} is outside the vocabulary of {vocabulary}, or its bias no number"),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::draw::tests::{any_logits, any_sampling};
    use super::*;

    fn mask_of(count: usize, allowed: &[usize]) -> TokenMask {
        let mut mask = TokenMask::none(count);
        for id in allowed {
            mask.allow((id % count) as u32);
        }
        mask
    }

    proptest! {
        #[test]
        fn only_allowed_tokens_are_drawn(
            logits in any_logits(), sampling in any_sampling(), index in 0_usize..9,
            allowed in proptest::collection::vec(0_usize..80, 1..5),
            prompt in proptest::collection::vec(0_u32..90, 0..9),
        ) {
            let mask = mask_of(logits.len(), &allowed);
            let id = Sampler::new(&sampling, &prompt).draw(&logits, Some(&mask), index);
            prop_assert!(mask.contains(id), "{id} of {allowed:?}");
        }

        #[test]
        fn the_likeliest_alone_give_the_same_token(
            logits in any_logits(), sampling in any_sampling(), index in 0_usize..9,
        ) {
            let plain = Sampling { repetition_penalty: 1.0, presence_penalty: 0.0,
                frequency_penalty: 0.0, logit_bias: vec![], ..sampling };
            let sampler = Sampler::new(&plain, &[]);
            let Some(inverse) = sampler.inverse_temperature() else { return Ok(()) };
            let Some(likeliest) = Likeliest::of_logits(&logits, inverse) else { return Ok(()) };
            if let Some(id) = sampler.draw_among(&likeliest, index) {
                prop_assert_eq!(id, sampler.draw(&logits, None, index));
            } else {
                // Only a cut of top-p may stay open.
                prop_assert!(plain.top_k == 0 && plain.temperature > 0.0);
            }
        }
    }

    #[test]
    fn usual_wishes_are_settled_by_the_likeliest() {
        // As peaked as a language model's: the likeliest hold nearly all of the probability.
        let logits: Vec<f32> =
            (0..5000_u32).map(|id| -3.0 * (f32::from(id as u16) + 1.0).ln()).collect();
        for (temperature, top_p, top_k) in
            [(0.0, 1.0, 0), (1.0, 0.95, 0), (0.7, 0.9, 0), (1.0, 1.0, 40), (0.8, 0.95, 64)]
        {
            let sampling = Sampling { temperature, top_p, top_k, ..Sampling::GREEDY };
            let sampler = Sampler::new(&sampling, &[]);
            let inverse = sampler.inverse_temperature().unwrap();
            let likeliest = Likeliest::of_logits(&logits, inverse).unwrap();
            for index in 0..50 {
                let whole = sampler.draw(&logits, None, index);
                assert_eq!(sampler.draw_among(&likeliest, index), Some(whole), "{sampling:?}");
            }
        }
        // A flat distribution reaches past them.
        let flat = Likeliest::of_logits(&[0.0; 5000], 1.0);
        assert!(flat.is_none());
        let wide: Vec<f32> = (0..5000_u32).map(|id| f32::from(id as u16) * -1e-4).collect();
        let sampler =
            Sampler::new(&Sampling { temperature: 1.0, top_p: 0.9, ..Sampling::GREEDY }, &[]);
        let likeliest = Likeliest::of_logits(&wide, 1.0).unwrap();
        assert_eq!(sampler.draw_among(&likeliest, 0), None);
    }

    #[test]
    fn what_changes_logits_needs_all_of_them() {
        let none =
            |sampling: Sampling| Sampler::new(&sampling, &[]).inverse_temperature().is_none();
        assert!(none(Sampling { presence_penalty: 0.5, ..Sampling::GREEDY }));
        assert!(none(Sampling { logit_bias: vec![(1, 1.0)], ..Sampling::GREEDY }));
        assert!(none(Sampling { temperature: 1.0, ..Sampling::GREEDY }));
        assert!(none(Sampling { temperature: 1.0, top_k: 65, ..Sampling::GREEDY }));
        assert!(none(Sampling { temperature: 1e-45, top_k: 5, ..Sampling::GREEDY }));
        assert!(!none(Sampling { top_p: 0.5, ..Sampling::GREEDY }));
    }

    #[test]
    fn penalties_follow_their_formulas() {
        let penalised = |sampling: Sampling| {
            let mut sampler = Sampler::new(&sampling, &[0]);
            sampler.took(1);
            sampler.took(1);
            let mut logits = [2.0_f32, 3.0, -1.0, 0.5];
            sampler.penalise(&mut logits);
            logits
        };
        let none = Sampling::GREEDY;
        assert_eq!(penalised(none.clone()), [2.0, 3.0, -1.0, 0.5]);
        let repetition = Sampling { repetition_penalty: 2.0, ..none.clone() };
        assert_eq!(penalised(repetition), [1.0, 1.5, -1.0, 0.5]);
        // Prompt tokens count for the repetition penalty alone.
        let presence = Sampling { presence_penalty: 0.5, ..none.clone() };
        assert_eq!(penalised(presence), [2.0, 2.5, -1.0, 0.5]);
        let frequency = Sampling { frequency_penalty: 0.5, ..none.clone() };
        assert_eq!(penalised(frequency), [2.0, 2.0, -1.0, 0.5]);
        let bias = Sampling { logit_bias: vec![(3, 100.0), (9, 1.0)], ..none };
        assert_eq!(penalised(bias), [2.0, 3.0, -1.0, 100.5]);
    }

    #[test]
    fn senseless_wishes_are_refused() {
        let refused = |sampling: Sampling| sampling.check(10).unwrap_err().to_string();
        let plain = || Sampling::GREEDY;
        assert!(plain().check(10).is_ok());
        let wrong = Sampling { temperature: f32::NAN, ..plain() };
        assert!(refused(wrong).contains("temperature"));
        let wrong = Sampling { repetition_penalty: 0.0, ..plain() };
        assert!(refused(wrong).contains("repetition_penalty"));
        let wrong = Sampling { logit_bias: vec![(10, 1.0)], ..plain() };
        assert!(refused(wrong).contains("id 10"));
        let wrong = Sampling { logit_bias: vec![(1, 1.0); LOGIT_BIAS_MAX + 1], ..plain() };
        assert!(refused(wrong).contains("more than"));
    }
}
