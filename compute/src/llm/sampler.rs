//! What a request asks of the choice of tokens: penalties and biases over what was said, then a draw, from
//! the whole vocabulary or from the likeliest tokens if they settle it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::draw::{TokenLogit, draw, draw_sorted, total, weight};
use super::engine::bad;
use super::error::EngineError;
use super::likeliest::{Likeliest, Scores};
use super::logprobs::{LogSoftmax, likeliest};
use super::processed;
use super::request::{
    AtLeast, ContractDraw, LOGIT_BIAS_MAX, LogprobsMode, PositionLogprobs, Sampling,
    TOP_LOGPROBS_MAX, TokenLogprob,
};
use crate::grammar::TokenMask;
use crate::infval::{Decimal, contract, seed};
use crate::kernels::top::{KEPT, Wish};

/// Largest relative error of a GPU's sum of weights: f32 sums and exponentials of a vocabulary err by
/// less than 1e-5; ten times that.
const TOTAL_TOLERANCE: f64 = 1e-4;

/// What one running answer needs to draw its next token: the wishes of its request and, for the
/// penalties, which tokens it has seen. Draws depend on the seed and the position alone, so an
/// answer is the same whatever runs beside it and a replay may start anywhere.
pub(super) struct Sampler {
    sampling: Sampling,
    at_least: AtLeast,
    mode: LogprobsMode,
    /// Tokens of the prompt, if a penalty asks for them.
    in_prompt: HashSet<u32>,
    /// How often each token was taken, if a penalty asks for it.
    taken: BTreeMap<u32, u32>,
}

/// A drawn token.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Drawn {
    pub id: u32,
    /// What it was drawn from, best first, if others shall repeat the draw.
    pub from: Vec<TokenLogprob>,
}

impl Sampler {
    pub fn new(sampling: &Sampling, prompt_ids: &[u32]) -> Self {
        let in_prompt = match sampling.repetition_penalty == 1.0 {
            true => HashSet::new(),
            false => prompt_ids.iter().copied().collect(),
        };
        let (at_least, mode) = (AtLeast::default(), LogprobsMode::Raw);
        Self { sampling: sampling.clone(), at_least, mode, in_prompt, taken: BTreeMap::new() }
    }

    /// With a least length, and telling logprobs in a mode.
    pub fn telling(self, at_least: &AtLeast, mode: LogprobsMode) -> Self {
        Self { at_least: at_least.clone(), mode, ..self }
    }

    /// If the likeliest tokens may be all that [`Self::draw_among`] needs: what their weights are raised
    /// to. Else [`Self::draw`] needs the logits of the whole vocabulary.
    pub fn inverse_temperature(&self) -> Option<f32> {
        let sampling = &self.sampling;
        let few = sampling.temperature <= 0.0
            || (1..=KEPT).contains(&(sampling.top_k as usize))
            || (sampling.top_k == 0 && sampling.top_p < 1.0)
            || sampling.contract.as_ref().is_some_and(|contract| contract.listed <= KEPT);
        self.power().filter(|_| few)
    }

    /// What weights are raised to, unless penalties change the logits before.
    fn power(&self) -> Option<f32> {
        let inverse = match self.sampling.temperature {
            temperature if temperature > 0.0 => temperature.recip(),
            _ => 1.0,
        };
        (!self.sampling.changes_logits() && inverse.is_finite()).then_some(inverse)
    }

    /// What to ask the GPU in order to tell of a given token; `None` if all logits may be needed.
    pub fn wish_of(&self, token: u32) -> Option<Wish> {
        let inverse_temperature = match self.mode {
            LogprobsMode::Raw => 1.0,
            LogprobsMode::Processed => self.power()?,
        };
        Some(Wish { token, inverse_temperature })
    }

    /// Tokens that may not come at this position yet.
    fn withheld(&self, index: usize) -> &[u32] {
        if index < self.at_least.tokens { &self.at_least.ends } else { &[] }
    }

    /// Draws the token at position `index` of the answer. With `allowed` only its tokens are drawn,
    /// whatever their logits. `None` if the likeliest do not settle what the whole vocabulary would give;
    /// see [`Self::inverse_temperature`].
    pub fn draw(
        &self,
        scores: Scores<'_>,
        allowed: Option<&TokenMask>,
        index: usize,
    ) -> Option<Drawn> {
        let by_contract = self.sampling.contract.as_ref().map(|contract| {
            let from = self.listed(scores, allowed, index, contract.listed)?;
            draw_by_contract(contract, &from, index).map(|id| Drawn { id, from })
        });
        match (by_contract, scores) {
            (Some(Some(drawn)), _) => Some(drawn),
            (None, Scores::Likeliest(likeliest)) => {
                self.draw_among(likeliest, index).map(|id| Drawn { id, from: vec![] })
            }
            (Some(None), Scores::Likeliest(_)) => None,
            // Where no logit is finite, a contract has nothing to draw from, but the answer must go on.
            (Some(None) | None, Scores::All(logits)) => {
                let logits = self.changed(logits, allowed, index);
                Some(Drawn { id: draw(&logits, &self.sampling, index), from: vec![] })
            }
        }
    }

    /// The `count` likeliest tokens that may come, with their logprobs; `None` if all logits are needed.
    fn listed(
        &self,
        scores: Scores<'_>,
        allowed: Option<&TokenMask>,
        index: usize,
        count: usize,
    ) -> Option<Vec<TokenLogprob>> {
        let listed: Vec<TokenLogprob> = match scores {
            Scores::All(logits) => {
                let logits = self.changed(logits, allowed, index);
                let soft = LogSoftmax::new(&logits);
                let ids = likeliest(&logits, count).into_iter();
                ids.map(|id| TokenLogprob { id, logprob: soft.of(id) }).collect()
            }
            Scores::Likeliest(likeliest) => {
                let tokens = self.without_withheld(likeliest, index);
                if tokens.len() < count && likeliest.tokens().len() >= KEPT {
                    return None;
                }
                let of = |token: &TokenLogit| TokenLogprob {
                    id: token.id,
                    logprob: likeliest.logprob(token),
                };
                tokens.iter().take(count).map(of).collect()
            }
        };
        Some(listed.into_iter().filter(|token| token.logprob.is_finite()).collect())
    }

    /// The token that the likeliest settle.
    fn draw_among(&self, likeliest: &Likeliest, index: usize) -> Option<u32> {
        if self.sampling.temperature <= 0.0 {
            let tokens = self.without_withheld(likeliest, index);
            return tokens.first().map(|token| token.id);
        }
        self.inverse_temperature()?;
        let (tokens, total) = self.settled(likeliest, index)?;
        Some(draw_sorted(&tokens, total, &self.sampling, index))
    }

    /// The token `id` with the `top` likeliest, as the mode has it; `None` if all logits are needed.
    pub fn tell(
        &self,
        scores: Scores<'_>,
        allowed: Option<&TokenMask>,
        (id, index): (u32, usize),
        top: usize,
    ) -> Option<PositionLogprobs> {
        let sampling = &self.sampling;
        let likeliest = match (self.mode, scores) {
            (LogprobsMode::Raw, _) => return scores.position(id, top),
            (LogprobsMode::Processed, Scores::All(logits)) => {
                let logits = self.changed(logits, allowed, index);
                return Some(processed::of_all(&logits, sampling, id, top));
            }
            (LogprobsMode::Processed, Scores::Likeliest(likeliest)) => likeliest,
        };
        if sampling.temperature > 0.0 && (sampling.top_k > 0 || sampling.top_p < 1.0) {
            let (tokens, total) = self.settled(likeliest, index)?;
            let all = likeliest.tokens().len();
            let vocabulary = if all < KEPT { all } else { usize::MAX };
            return Some(processed::of_candidates(&tokens, total, sampling, id, top, vocabulary));
        }
        if sampling.min_p > 0.0 || !self.withheld(index).is_empty() {
            return None;
        }
        if sampling.temperature <= 0.0 {
            return scores.position(id, top);
        }
        // Nothing is filtered.
        let first = likeliest.tokens().first()?.logit;
        let of = |id: u32, logit: f32| {
            let power = f64::from(logit - first) / f64::from(sampling.temperature);
            TokenLogprob { id, logprob: (power - likeliest.tempered_total().ln()) as f32 }
        };
        let logprob = of(id, likeliest.logit(id)?).logprob;
        let listed = likeliest.tokens().iter().take(top);
        let top = listed.map(|token| of(token.id, token.logit)).collect();
        Some(PositionLogprobs { id, logprob, top, drawn_from: vec![] })
    }

    /// The likeliest tokens that may come. They are all there are if fewer than [`KEPT`] were found.
    fn without_withheld<'a>(
        &self,
        likeliest: &'a Likeliest,
        index: usize,
    ) -> Cow<'a, [TokenLogit]> {
        let (tokens, withheld) = (likeliest.tokens(), self.withheld(index));
        if withheld.is_empty() {
            return Cow::Borrowed(tokens);
        }
        let may_come = tokens.iter().filter(|token| !withheld.contains(&token.id));
        Cow::Owned(may_come.copied().collect())
    }

    /// The tokens that top-k and top-p leave, or more of them, and the sum of the weights that the cut of
    /// top-p is of; `None` if the likeliest do not settle where that cut is.
    fn settled<'a>(
        &self,
        likeliest: &'a Likeliest,
        index: usize,
    ) -> Option<(Cow<'a, [TokenLogit]>, f64)> {
        let sampling = &self.sampling;
        let tokens = self.without_withheld(likeliest, index);
        if sampling.top_k > 0 {
            let count = sampling.top_k as usize;
            if tokens.len() < count && likeliest.tokens().len() >= KEPT {
                return None;
            }
            let kept: Cow<'a, [TokenLogit]> = match tokens {
                Cow::Borrowed(tokens) => Cow::Borrowed(&tokens[..tokens.len().min(count)]),
                Cow::Owned(mut tokens) => {
                    tokens.truncate(count);
                    Cow::Owned(tokens)
                }
            };
            let total = total(&kept, sampling);
            return Some((kept, total));
        }
        // Weights count from the likeliest that may come; those that may not are none of the whole, and
        // those of them that are not listed weigh at most as much as the last that is.
        let (first, last) = (likeliest.tokens().first()?.logit, likeliest.tokens().last()?.logit);
        let best = tokens.first()?.logit;
        let scale = weight(best, first, sampling).recip();
        let withheld = self.withheld(index);
        let is_out = |token: &&TokenLogit| withheld.contains(&token.id);
        let out: Vec<f64> = likeliest
            .tokens()
            .iter()
            .filter(is_out)
            .map(|token| weight(token.logit, first, sampling))
            .collect();
        let unseen = (withheld.len() - out.len()) as f64 * weight(last, first, sampling);
        let (whole, out) = (likeliest.tempered_total(), out.iter().sum::<f64>());
        let reached = |whole: f64| {
            let mut cumulative = 0.0;
            tokens.iter().position(|token| {
                cumulative += weight(token.logit, best, sampling);
                cumulative >= f64::from(sampling.top_p) * whole
            })
        };
        // The sum is a GPU's: where its last bits might move the cut, nothing is settled.
        let low = reached((whole * (1.0 - TOTAL_TOLERANCE) - out - unseen) * scale);
        let high = reached((whole * (1.0 + TOTAL_TOLERANCE) - out) * scale);
        let settled = low.is_some() && low == high;
        settled.then_some((tokens, (whole - out) * scale))
    }

    /// The logits after penalties and biases, without what may not come.
    fn changed<'a>(
        &self,
        logits: &'a [f32],
        allowed: Option<&TokenMask>,
        index: usize,
    ) -> Cow<'a, [f32]> {
        // A form that has come to its end leaves nothing but the end.
        let withheld = if allowed.is_none() { self.withheld(index) } else { &[] };
        if allowed.is_none() && withheld.is_empty() && !self.sampling.changes_logits() {
            return Cow::Borrowed(logits);
        }
        let mut changed = logits.to_vec();
        self.penalise(&mut changed);
        for id in withheld {
            if let Some(logit) = changed.get_mut(*id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if let Some(allowed) = allowed {
            for (id, logit) in (0_u32..).zip(&mut changed) {
                if !allowed.contains(id) {
                    *logit = f32::NEG_INFINITY;
                } else if logit.is_nan() || *logit == f32::NEG_INFINITY {
                    *logit = f32::MIN;
                }
            }
        }
        Cow::Owned(changed)
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

/// Draws by the contract; `None` only of an empty list, or one that is not finite.
fn draw_by_contract(contract: &ContractDraw, from: &[TokenLogprob], index: usize) -> Option<u32> {
    let listed =
        |token: &TokenLogprob| Some((token.id.to_string(), Decimal::of(f64::from(token.logprob))?));
    let listed: BTreeMap<String, Decimal> = from.iter().filter_map(listed).collect();
    let seed = seed::at(&contract.base_seed, index);
    contract::draw(&listed, &contract.filters, &seed).ok()?.parse().ok()
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
        let listed = self.contract.as_ref().map_or(1, |contract| contract.listed);
        if !(1..=TOP_LOGPROBS_MAX).contains(&listed) {
            let message = format!("draws from 1 to {TOP_LOGPROBS_MAX} tokens, not from {listed}");
            return Err(bad("deterministic_sampling", message));
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
    use crate::infval::{
        Filters, SampledAnswer, SampledPosition, SamplingVerdict, decimal, replay,
    };

    fn mask_of(count: usize, allowed: &[usize]) -> TokenMask {
        let mut mask = TokenMask::none(count);
        for id in allowed {
            mask.allow((id % count) as u32);
        }
        mask
    }

    /// Drawn from all logits.
    fn whole(sampler: &Sampler, logits: &[f32], index: usize) -> u32 {
        sampler.draw(Scores::All(logits), None, index).unwrap().id
    }

    proptest! {
        #[test]
        fn only_allowed_tokens_are_drawn(
            logits in any_logits(), sampling in any_sampling(), index in 0_usize..9,
            allowed in proptest::collection::vec(0_usize..80, 1..5),
            prompt in proptest::collection::vec(0_u32..90, 0..9),
        ) {
            let mask = mask_of(logits.len(), &allowed);
            let sampler = Sampler::new(&sampling, &prompt);
            let id = sampler.draw(Scores::All(&logits), Some(&mask), index).unwrap().id;
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
                prop_assert_eq!(id, whole(&sampler, &logits, index));
            } else {
                // Only a cut of top-p may stay open.
                prop_assert!(plain.top_k == 0 && plain.temperature > 0.0);
            }
        }
    }

    proptest! {
        /// Ends that may not come yet never come, and the likeliest settle what all logits would give.
        #[test]
        fn withheld_tokens_do_not_come(
            logits in any_logits(), sampling in any_sampling(), index in 0_usize..9,
            ends in proptest::collection::vec(0_u32..80, 1..4), top in 0_usize..64,
        ) {
            let free = (0_u32..).zip(&logits).any(|(id, l)| l.is_finite() && !ends.contains(&id));
            prop_assume!(free);
            let plain = Sampling { repetition_penalty: 1.0, presence_penalty: 0.0,
                frequency_penalty: 0.0, logit_bias: vec![], ..sampling };
            let at_least = AtLeast { tokens: 5, ends: ends.clone() };
            let sampler = Sampler::new(&plain, &[]).telling(&at_least, LogprobsMode::Processed);
            let id = whole(&sampler, &logits, index);
            prop_assert!(index >= 5 || !ends.contains(&id), "{id} of {ends:?}");
            let told = sampler.tell(Scores::All(&logits), None, (id, index), top).unwrap();
            let inverse = sampler.power().unwrap_or(1.0);
            let wish = Wish { token: id, inverse_temperature: inverse };
            let Some(few) = Likeliest::read(&crate::reference::top::record(&logits, wish), wish)
            else { return Ok(()) };
            let scores = Scores::Likeliest(&few);
            if sampler.inverse_temperature().is_some()
                && let Some(drawn) = sampler.draw(scores, None, index)
            {
                prop_assert_eq!(drawn.id, id);
            }
            if sampler.power().is_some()
                && let Some(found) = sampler.tell(scores, None, (id, index), top)
            {
                let close = |a: f32, b: f32| a == b || (a - b).abs() <= 2e-4;
                prop_assert!(close(found.logprob, told.logprob), "{found:?} {told:?}");
                prop_assert_eq!(found.top.len(), told.top.len());
                for (found, told) in found.top.iter().zip(&told.top) {
                    prop_assert_eq!(found.id, told.id);
                    prop_assert!(close(found.logprob, told.logprob), "{found:?} {told:?}");
                }
            }
        }

        /// What a contract's draw was made from is enough to make it again.
        #[test]
        fn draws_by_contract_are_repeated(
            logits in any_logits(), sampling in any_sampling(), index in 0_usize..99,
            listed in 1_usize..=64, end in 0_u32..80,
        ) {
            let finite = logits.iter().all(|l| l.is_finite());
            prop_assume!(finite && (logits.len() > 1 || end > 0));
            let filters = Filters::new(0.8, Some(0.9), Some(7), None).unwrap();
            let contract = ContractDraw { base_seed: "base".into(), filters, listed };
            let sampling = Sampling { contract: Some(contract), ..sampling };
            let at_least = AtLeast { tokens: 9, ends: vec![end] };
            let sampler = Sampler::new(&sampling, &[]).telling(&at_least, LogprobsMode::Raw);
            let drawn = sampler.draw(Scores::All(&logits), None, index).unwrap();
            prop_assert!(drawn.from.len() <= listed && (index >= 9 || drawn.id != end));
            let listed = drawn.from.iter().map(|token| {
                (token.id.to_string(), decimal::python_text(f64::from(token.logprob)))
            });
            let position =
                SampledPosition { token: drawn.id.to_string(), listed: Some(listed.collect()) };
            let mut positions = vec![SampledPosition::default(); index];
            positions.push(position);
            let answer = SampledAnswer { version: contract::VERSION.into(),
                seed_domain: seed::DOMAIN.into(), base_seed: "base".into(), filters: Ok(filters),
                positions };
            prop_assert_eq!(replay(&answer).verdict, SamplingVerdict::Honest);
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
                let whole = whole(&sampler, &logits, index);
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
