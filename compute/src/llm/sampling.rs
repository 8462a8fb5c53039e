//! From logits to logprobs and to the next token; on the host, in f64.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use super::engine::bad;
use super::error::EngineError;
use super::request::{LOGIT_BIAS_MAX, PositionLogprobs, Sampling, TokenLogprob};
use crate::grammar::TokenMask;

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
fn greedy(logits: &[f32]) -> u32 {
    likeliest(logits, 1).first().copied().unwrap_or(0)
}

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

    /// True if the likeliest `count` tokens with their logits are all that [`Self::draw_among`]
    /// needs; else [`Self::draw`] needs the logits of the whole vocabulary.
    #[cfg_attr(not(test), expect(dead_code, reason = "for engines that read back few logits"))]
    pub fn is_met_by_likeliest(&self, count: usize) -> bool {
        let sampling = &self.sampling;
        let few = sampling.temperature <= 0.0
            || (1..=count).contains(&usize::try_from(sampling.top_k).unwrap_or(usize::MAX));
        few && !sampling.changes_logits()
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

    /// As [`Self::draw`], from the likeliest tokens alone, best first; see
    /// [`Self::is_met_by_likeliest`].
    #[cfg_attr(not(test), expect(dead_code, reason = "for engines that read back few logits"))]
    pub fn draw_among(&self, likeliest: &[TokenLogit], index: usize) -> u32 {
        let Some(best) = likeliest.first() else { return 0 };
        if self.sampling.temperature <= 0.0 {
            return best.id;
        }
        let keep = (self.sampling.top_k as usize).clamp(1, likeliest.len());
        let kept = &likeliest[..keep];
        draw_sorted(kept, total(kept, &self.sampling), &self.sampling, index)
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

/// How many of the likeliest tokens top-p tries first; at usual temperatures they are enough.
const TOP_P_FIRST: usize = 256;
const TOP_P_GROWTH: usize = 8;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TokenLogit {
    pub logit: f32,
    pub id: u32,
}

impl TokenLogit {
    /// Best first, lower ids first among equals.
    fn before(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

/// Draws a token by temperature and filters alone; NaN logits are never drawn.
fn draw(logits: &[f32], sampling: &Sampling, index: usize) -> u32 {
    if sampling.temperature <= 0.0 {
        return greedy(logits);
    }
    let mut candidates: Vec<TokenLogit> = logits
        .iter()
        .zip(0..)
        .filter(|(logit, _)| !logit.is_nan())
        .map(|(&logit, id)| TokenLogit { logit, id })
        .collect();
    if candidates.is_empty() {
        return 0;
    }
    let top = |candidates: &mut Vec<TokenLogit>, count: usize| {
        if count < candidates.len() {
            candidates.select_nth_unstable_by(count, TokenLogit::before);
            candidates.truncate(count);
        }
        candidates.sort_unstable_by(TokenLogit::before);
    };
    if sampling.top_k > 0 {
        top(&mut candidates, sampling.top_k as usize);
        return draw_sorted(&candidates, total(&candidates, sampling), sampling, index);
    }
    let whole = total(&candidates, sampling);
    if sampling.top_p >= 1.0 {
        // No filter asks for an order but that the best be first.
        let best = (0..candidates.len()).min_by(|a, b| candidates[*a].before(&candidates[*b]));
        candidates.swap(0, best.unwrap_or(0));
        return draw_sorted(&candidates, whole, sampling, index);
    }
    // The few that top-p leaves: sorting a whole vocabulary takes longer than a small model's pass.
    let mut count = TOP_P_FIRST;
    while count < candidates.len() {
        let mut few = candidates.clone();
        top(&mut few, count);
        if total(&few, sampling) >= f64::from(sampling.top_p) * whole {
            return draw_sorted(&few, whole, sampling, index);
        }
        count *= TOP_P_GROWTH;
    }
    candidates.sort_unstable_by(TokenLogit::before);
    draw_sorted(&candidates, whole, sampling, index)
}

/// Weight of a token, relative to the likeliest, whose logit is `best`.
fn weight(logit: f32, best: f32, sampling: &Sampling) -> f64 {
    (f64::from(logit - best) / f64::from(sampling.temperature)).exp()
}

/// Sum of the weights.
fn total(candidates: &[TokenLogit], sampling: &Sampling) -> f64 {
    let best = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    candidates.iter().map(|candidate| weight(candidate.logit, best, sampling)).sum()
}

/// Draws from candidates, the best first and, if top-p cuts, all in their order; `total` is the sum
/// of the weights that top-k has left, of which these may be the first.
fn draw_sorted(candidates: &[TokenLogit], total: f64, sampling: &Sampling, index: usize) -> u32 {
    let Some(best) = candidates.first() else {
        return 0;
    };
    let mut weights: Vec<f64> =
        candidates.iter().map(|c| weight(c.logit, best.logit, sampling)).collect();

    // top-p: the shortest prefix whose share of what top-k left reaches top_p, at least one token.
    if sampling.top_p < 1.0 {
        let mut cumulative = 0.0;
        let reaching = weights.iter().position(|w| {
            cumulative += w;
            cumulative >= f64::from(sampling.top_p) * total
        });
        weights.truncate(reaching.map_or(weights.len(), |last| last + 1));
    }
    // min-p: weights are relative to the likeliest token already.
    for weight in &mut weights {
        if *weight < f64::from(sampling.min_p) {
            *weight = 0.0;
        }
    }

    let mut point = uniform(sampling.seed, index as u64) * weights.iter().sum::<f64>();
    for (weight, candidate) in weights.iter().zip(candidates) {
        point -= weight;
        if point < 0.0 {
            return candidate.id;
        }
    }
    best.id
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
    use proptest::prelude::*;

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
    fn top_p_of_a_large_vocabulary_is_that_of_the_sorted_one() {
        // Nearly alike, so that top-p keeps more than it tries first.
        let logits: Vec<f32> = (0..9000).map(|id| ((id * 7919) % 9000) as f32 * 1e-4).collect();
        for (top_p, top_k) in [(0.01, 0), (0.5, 0), (0.99, 0), (0.5, 8999), (1.0, 0)] {
            let sampling = Sampling { top_p, top_k, ..sampling(1.0) };
            let mut sorted: Vec<TokenLogit> =
                logits.iter().zip(0..).map(|(&logit, id)| TokenLogit { logit, id }).collect();
            sorted.sort_unstable_by(TokenLogit::before);
            if top_k > 0 {
                sorted.truncate(top_k as usize);
            }
            let whole = total(&sorted, &sampling);
            for index in 0..20 {
                let drawn = draw(&logits, &sampling, index);
                if top_p < 1.0 {
                    assert_eq!(drawn, draw_sorted(&sorted, whole, &sampling, index), "{top_p}");
                }
                let place = sorted.iter().position(|candidate| candidate.id == drawn).unwrap();
                let before = total(&sorted[..place], &sampling);
                // Relative to the best, which the first of the sorted is too.
                assert!(place == 0 || before < f64::from(top_p) * whole + 1e-6, "{top_p} {place}");
            }
        }
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

    /// Any logits, NaN and infinities among them.
    fn any_logits() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![
            8 => -30.0_f32..30.0,
            1 => prop_oneof![Just(f32::NAN), Just(f32::NEG_INFINITY), Just(0.0), Just(-0.0)],
        ];
        proptest::collection::vec(logit, 1..80)
    }

    fn any_sampling() -> impl Strategy<Value = Sampling> {
        let penalties = (0.1_f32..3.0, -2.0_f32..2.0, -2.0_f32..2.0);
        let bias = proptest::collection::vec((0_u32..90, -100.0_f32..100.0), 0..4);
        (0.0_f32..4.0, 0.0_f32..=1.0, 0_u32..90, 0.0_f32..=1.0, any::<u64>(), penalties, bias)
            .prop_map(|(temperature, top_p, top_k, min_p, seed, penalties, logit_bias)| Sampling {
                temperature,
                top_p,
                top_k,
                min_p,
                seed,
                repetition_penalty: penalties.0,
                presence_penalty: penalties.1,
                frequency_penalty: penalties.2,
                logit_bias,
            })
    }

    fn mask_of(count: usize, allowed: &[usize]) -> TokenMask {
        let mut mask = TokenMask::none(count);
        for id in allowed {
            mask.allow((id % count) as u32);
        }
        mask
    }

    proptest! {
        /// The filters, said the obvious way: a drawn token is among the top_k likeliest, at least
        /// min_p as likely as the likeliest, and the likelier ones do not reach top_p without it.
        #[test]
        fn a_drawn_token_passes_every_filter(
            logits in any_logits(), sampling in any_sampling(), index in 0_usize..9,
        ) {
            let sampling = Sampling { logit_bias: vec![], ..sampling };
            let id = draw(&logits, &sampling, index);
            prop_assume!(logits.iter().any(|logit| logit.is_finite()));
            let logit = logits[id as usize];
            prop_assert!(!logit.is_nan());
            let likelier: Vec<f32> = (0..).zip(&logits)
                .filter(|(other, l)| **l > logit || (**l == logit && *other < id))
                .map(|(_, l)| *l).collect();
            if sampling.temperature == 0.0 {
                prop_assert!(likelier.is_empty());
            }
            let keep = if sampling.top_k == 0 { usize::MAX } else { sampling.top_k as usize };
            prop_assert!(likelier.len() < keep);
            let t = f64::from(sampling.temperature);
            let top = logits.iter().copied().filter(|l| !l.is_nan()).fold(f32::MIN, f32::max);
            let weight = |l: f32| (f64::from(l - top) / t).exp();
            let mut kept: Vec<f32> = logits.iter().copied().filter(|l| !l.is_nan()).collect();
            kept.sort_by(|a, b| b.total_cmp(a));
            kept.truncate(keep);
            let total: f64 = kept.iter().copied().map(weight).sum();
            let before: f64 = likelier.iter().copied().map(weight).sum();
            prop_assert!(likelier.is_empty() || before < f64::from(sampling.top_p) * total + 1e-9);
            prop_assert!(weight(logit) >= f64::from(sampling.min_p) - 1e-9);
        }

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
            prop_assume!(sampler.is_met_by_likeliest(64));
            let few: Vec<TokenLogit> = likeliest(&logits, 64).into_iter()
                .map(|id| TokenLogit { logit: logits[id as usize], id }).collect();
            prop_assert_eq!(sampler.draw_among(&few, index), sampler.draw(&logits, None, index));
        }
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
