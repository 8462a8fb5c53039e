//! Replays: what the model says of an answer that was given already.
//!
//! Its tokens are fed as those of a prompt, many at once. Positions are told as the request wants them, by
//! the same [`Sampler`] that draws answers, so that what was left out of a draw is left out here.

use super::engine::{Engine, bad, check_top, chunks};
use super::error::EngineError;
use super::forward::{Input, Output, Pass};
use super::likeliest::{Likeliest, Scores};
use super::op::Phase;
use super::plan::LOGIT_ROWS_MAX;
use super::request::{PositionLogprobs, Scoring};
use super::sampler::Sampler;
use crate::kernels::top::{RECORD_FLOATS, Wish};

impl Engine {
    /// Logprobs of `continuation_ids` after `prompt_ids`, teacher-forced, with `top` alternatives.
    ///
    /// # Errors
    /// A request that cannot be met, or a failure of the GPU.
    pub fn score(
        &mut self,
        prompt_ids: &[u32],
        continuation_ids: &[u32],
        top: usize,
    ) -> Result<Vec<PositionLogprobs>, EngineError> {
        self.replay(prompt_ids, continuation_ids, &Scoring::raw(top))
    }

    /// As [`Self::score`], in a mode of logprobs and with the wishes the answer was drawn with.
    ///
    /// # Errors
    /// As [`Self::score`], and wishes that have no meaning.
    pub fn replay(
        &mut self,
        prompt_ids: &[u32],
        continuation_ids: &[u32],
        scoring: &Scoring,
    ) -> Result<Vec<PositionLogprobs>, EngineError> {
        self.check_ids("prompt", prompt_ids)?;
        self.check_ids("continuation", continuation_ids)?;
        check_top(scoring.top)?;
        scoring.sampling.check(self.info().vocabulary)?;
        let Some(first) = prompt_ids.len().checked_sub(1) else {
            return Err(bad("prompt", "is empty"));
        };
        let whole: Vec<u32> = prompt_ids.iter().chain(continuation_ids).copied().collect();
        // The last id predicts nothing that was asked for.
        let fed = &whole[..whole.len() - usize::from(!continuation_ids.is_empty())];
        self.check_fits(fed.len())?;
        let mut sampler =
            Sampler::new(&scoring.sampling, prompt_ids).telling(&scoring.at_least, scoring.mode);
        let mut scored = Vec::with_capacity(continuation_ids.len());
        for (start, chunk) in chunks(fed, self.forward.rows_in_one()) {
            let rows = self.forward.scratch_rows(start, chunk.len(), 0);
            let pass = Pass { phase: Phase::Prefill, rows: &rows, selected: &[], experts: &[] };
            self.forward.pass_in_one(pass, &Input::Ids(chunk), &[], Output::Nothing)?;
            let wanted = first.max(start)..(start + chunk.len()).min(whole.len() - 1);
            for from in wanted.clone().step_by(LOGIT_ROWS_MAX) {
                let count = LOGIT_ROWS_MAX.min(wanted.end - from);
                let selected: Vec<u32> = (0..count).map(|i| (from - start + i) as u32).collect();
                let selection = Pass { selected: &selected, ..pass };
                let next = &whole[from + 1..from + 1 + count];
                self.score_rows(selection, next, &mut sampler, scoring.top, &mut scored)?;
            }
        }
        Ok(scored)
    }

    /// Logprobs of `ids`, each after its selected row of the last pass.
    fn score_rows(
        &self,
        selection: Pass<'_>,
        ids: &[u32],
        sampler: &mut Sampler,
        top: usize,
        scored: &mut Vec<PositionLogprobs>,
    ) -> Result<(), EngineError> {
        let wishes: Option<Vec<Wish>> = ids.iter().map(|id| sampler.wish_of(*id)).collect();
        let wishes = wishes.filter(|_| self.forward.tells_likeliest());
        let output = match &wishes {
            Some(wishes) => Output::Likeliest(wishes),
            None => Output::Logits,
        };
        let found = self.forward.select(selection, output)?;
        for (row, id) in ids.iter().enumerate() {
            let at = (*id, scored.len());
            let record = wishes.as_ref().and_then(|wishes| {
                let record = found.chunks_exact(RECORD_FLOATS).nth(row)?;
                let likeliest = Likeliest::read(record, *wishes.get(row)?)?;
                sampler.tell(Scores::Likeliest(&likeliest), None, at, top)
            });
            let position = match record {
                Some(position) => Some(position),
                None if wishes.is_some() => {
                    let logits = self.forward.logits_of(row)?;
                    sampler.tell(Scores::All(&logits), None, at, top)
                }
                None => {
                    let logits = found.chunks_exact(self.info().vocabulary).nth(row);
                    logits.and_then(|row| sampler.tell(Scores::All(row), None, at, top))
                }
            };
            scored.extend(position);
            sampler.took(*id);
        }
        Ok(())
    }
}
