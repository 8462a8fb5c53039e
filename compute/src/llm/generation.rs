//! Generating answers: many at once, step by step, or one with a callback.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::batch::{BatchLoad, StepRows};
use super::engine::{Engine, bad, check_top, chunks};
use super::error::EngineError;
use super::forward::{Input, Output, Pass};
use super::likeliest::{Likeliest, Scores};
use super::op::Phase;
use super::params::Row;
use super::plan::LOGIT_ROWS_MAX;
use super::request::{FinishReason, GenerateRequest, Generation, STOP_STRINGS_MAX, TokenEvent};
use super::sequence::{SequenceEvent, SequenceId, Slice};
use crate::kernels::top::{RECORD_FLOATS, Wish};

/// Longest a prompt may hold up running answers in one step. A reader does not notice it, and what is
/// read in one go still keeps a GPU busy.
const PREFILL_BESIDE: Duration = Duration::from_millis(50);
/// Fewest tokens of a prompt a step reads, however slow the adapter: a row group of its kernels.
const PREFILL_ROWS_MIN: usize = 8;
/// Share of the newest measurement in the rate of prefill.
const RATE_SMOOTHING: f64 = 0.3;

/// What came of a selected row.
enum RowScores {
    All(Vec<f32>),
    Likeliest(Likeliest),
    /// Its logits have to be read.
    OnGpu,
}

impl Engine {
    /// Takes a request in; [`Self::step`] works on it, together with all others.
    ///
    /// # Errors
    /// A request that cannot be met, or [`EngineError::Busy`] when too many wait already.
    pub fn admit(&mut self, request: GenerateRequest) -> Result<SequenceId, EngineError> {
        self.check_request(&request)?;
        let room = self.forward.context() - request.prompt_ids.len();
        let waiting = self.batch.load().waiting;
        self.batch.admit(request, room).ok_or(EngineError::Busy { waiting })
    }

    /// Works one step: one token of every answer under way, and a chunk of the prompts before them.
    /// Says what came of it; nothing at all if nothing was to do.
    ///
    /// # Errors
    /// A failure of the GPU. Events that came before it are in the next step's.
    pub fn step(&mut self) -> Result<Vec<SequenceEvent>, EngineError> {
        let work = self.batch.plan(self.step_rows(), Instant::now());
        for sequence in work.nothing_to_do {
            let (id, (_, generation)) =
                (sequence.id, sequence.finish(FinishReason::Length, Instant::now()));
            self.events.push(SequenceEvent::Finished { id, generation });
        }
        if !work.decode.is_empty() {
            self.feed(Phase::Decode, &work.decode)?;
        }
        if !work.prefill.is_empty() {
            let began = Instant::now();
            self.feed(Phase::Prefill, &work.prefill)?;
            let rows: usize = work.prefill.iter().map(|slice| slice.positions.len()).sum();
            let rate = rows as f64 / began.elapsed().as_secs_f64().max(1e-6);
            let before = self.prefill_rate.unwrap_or(rate);
            self.prefill_rate = Some(before + RATE_SMOOTHING * (rate - before));
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Ends a sequence at once and frees its pages. Returns what it had come to, with
    /// [`FinishReason::Cancelled`]; `None` if it has ended already.
    pub fn cancel(&mut self, id: SequenceId) -> Option<Generation> {
        // What it said since the last step is of no use to anybody any more.
        self.events.retain(|event| event.id() != id);
        let sequence = self.batch.remove(id)?;
        Some(sequence.finish(FinishReason::Cancelled, Instant::now()).1)
    }

    /// How many sequences there are and how much room is left.
    #[must_use]
    pub fn batch_load(&self) -> BatchLoad {
        self.batch.load()
    }

    /// Generates one answer, handing every token to `on_token`; `ControlFlow::Break` cancels. Other
    /// sequences go on meanwhile; what becomes of them comes with the next [`Self::step`].
    ///
    /// # Errors
    /// As [`Self::admit`] and [`Self::step`].
    pub fn generate(
        &mut self,
        request: &GenerateRequest,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let own = self.admit(request.clone())?;
        let mut others = Vec::new();
        let generation = loop {
            let mut ended = None;
            let events = match self.step() {
                Ok(events) => events,
                Err(error) => {
                    self.events.splice(0..0, others);
                    return Err(error);
                }
            };
            for event in events {
                if event.id() != own {
                    others.push(event);
                    continue;
                }
                match event {
                    // If it has just ended, there is nothing left to cancel.
                    SequenceEvent::Token { token, .. } if on_token(token.event()).is_break() => {
                        ended = self.cancel(own).map(Ok).or(ended);
                    }
                    SequenceEvent::Token { .. } => {}
                    SequenceEvent::Finished { generation, .. } => ended = Some(Ok(generation)),
                    SequenceEvent::Failed { error, .. } => ended = Some(Err(error)),
                }
            }
            if let Some(ended) = ended {
                break ended;
            }
        };
        self.events.splice(0..0, others);
        generation
    }

    fn step_rows(&self) -> StepRows {
        let chunk = self.forward.chunk();
        let measured = self.prefill_rate.map(|rate| (rate * PREFILL_BESIDE.as_secs_f64()) as usize);
        StepRows {
            decode: LOGIT_ROWS_MAX.min(chunk),
            prefill_alone: chunk,
            prefill_beside: measured.unwrap_or(0).clamp(PREFILL_ROWS_MIN.min(chunk), chunk),
        }
    }

    /// Runs slices of one phase through the model and draws a token where one is due.
    fn feed(&mut self, phase: Phase, slices: &[Slice]) -> Result<(), EngineError> {
        let (mut rows, mut ids, mut selected) = (Vec::new(), Vec::new(), Vec::new());
        let mut wishes = Vec::new();
        for slice in slices {
            let Some(sequence) = self.batch.running_mut(slice.id) else { continue };
            let at = self.forward.table_at(sequence.table);
            let new = &sequence.pages[sequence.pages_written..];
            self.forward.write_pages(at + sequence.pages_written, new);
            sequence.pages_written = sequence.pages.len();
            for position in slice.positions.clone() {
                rows.push(Row { position: position as u32, pages_at: at as u32 });
                ids.push(sequence.token(position));
            }
            if slice.selects {
                selected.push(rows.len() as u32 - 1);
                wishes.push(sequence.wish());
            }
        }
        let pass = Pass { phase, rows: &rows, selected: &selected, experts: &[] };
        let rows = self.scores_after(pass, &Input::Ids(&ids), &wishes)?;
        let mut rows = rows.into_iter().enumerate();
        for slice in slices {
            self.batch.fed(slice);
            if slice.selects
                && let Some((row, scores)) = rows.next()
            {
                let settled = match &scores {
                    RowScores::All(logits) => self.draw(slice.id, Scores::All(logits)),
                    RowScores::Likeliest(found) => self.draw(slice.id, Scores::Likeliest(found)),
                    RowScores::OnGpu => false,
                };
                if !settled {
                    let logits = self.forward.logits_of(row)?;
                    self.draw(slice.id, Scores::All(&logits));
                }
            }
        }
        Ok(())
    }

    /// Runs a pass and reads what its selected rows are asked: few floats, if that is enough for any.
    fn scores_after(
        &self,
        pass: Pass<'_>,
        input: &Input<'_>,
        wishes: &[Option<Wish>],
    ) -> Result<Vec<RowScores>, EngineError> {
        if wishes.is_empty() {
            self.forward.pass(pass, input, &[], Output::Nothing)?;
            return Ok(Vec::new());
        }
        if !self.forward.tells_likeliest() || wishes.iter().all(Option::is_none) {
            let logits = self.forward.pass(pass, input, &[], Output::Logits)?;
            let rows = logits.chunks_exact(self.info().vocabulary);
            return Ok(rows.map(|row| RowScores::All(row.to_vec())).collect());
        }
        let asked: Vec<Wish> = wishes.iter().map(|wish| wish.unwrap_or(Wish::NONE)).collect();
        let records = self.forward.pass(pass, input, &[], Output::Likeliest(&asked))?;
        let rows = records.chunks_exact(RECORD_FLOATS).zip(wishes);
        Ok(rows
            .map(|(record, wish)| {
                let found = wish.and_then(|wish| Likeliest::read(record, wish));
                found.map_or(RowScores::OnGpu, RowScores::Likeliest)
            })
            .collect())
    }

    /// Draws the next token of a sequence; false if `scores` do not settle it.
    fn draw(&mut self, id: SequenceId, scores: Scores<'_>) -> bool {
        let now = Instant::now();
        let Some(sequence) = self.batch.running_mut(id) else { return true };
        let (token, finish) = match sequence.take(scores, self.tokenizer.as_ref(), now) {
            Ok(Some(taken)) => taken,
            Ok(None) => return false,
            Err(error) => {
                self.batch.remove(id);
                self.events.push(SequenceEvent::Failed { id, error });
                return true;
            }
        };
        self.events.push(SequenceEvent::Token { id, token });
        let Some(finish) = finish else { return true };
        if let Some(sequence) = self.batch.remove(id) {
            let (token, generation) = sequence.finish(finish, now);
            self.events.extend(token.map(|token| SequenceEvent::Token { id, token }));
            self.events.push(SequenceEvent::Finished { id, generation });
        }
        true
    }

    fn check_request(&self, request: &GenerateRequest) -> Result<(), EngineError> {
        if request.prompt_ids.is_empty() {
            return Err(bad("prompt", "is empty"));
        }
        self.check_ids("prompt", &request.prompt_ids)?;
        self.check_fits(request.prompt_ids.len() + 1)?;
        if let Some(ids) = &request.enforced_ids {
            self.check_ids("enforced_tokens", ids)?;
        }
        check_top(request.top_logprobs.unwrap_or(0))?;
        if request.stop.len() > STOP_STRINGS_MAX {
            return Err(bad("stop", format!("more than {STOP_STRINGS_MAX} strings")));
        }
        request.sampling.check(self.info().vocabulary)
    }

    /// Raw logits after each of `ids`, which follow `prompt_ids`, for tests and replay tools. The ids
    /// are fed as those of an answer are (`decoding`), keys and values where answers keep theirs, or as
    /// those of a replay.
    ///
    /// # Errors
    /// A request that cannot be met, or [`EngineError::Busy`] when answers under way leave no pages.
    pub fn logits_after_each(
        &mut self,
        prompt_ids: &[u32],
        ids: &[u32],
        decoding: bool,
    ) -> Result<Vec<f32>, EngineError> {
        if prompt_ids.is_empty() {
            return Err(bad("prompt", "is empty"));
        }
        self.check_ids("prompt", prompt_ids)?;
        self.check_ids("continuation", ids)?;
        let tokens = prompt_ids.len() + ids.len();
        self.check_fits(tokens)?;
        if !decoding {
            let pages_at = self.forward.scratch_at();
            return self.logits_on(pages_at, prompt_ids, ids, Phase::Prefill);
        }
        let waiting = self.batch.load().waiting;
        let loan = self.batch.lend(tokens).ok_or(EngineError::Busy { waiting })?;
        let pages_at = self.forward.table_at(loan.table);
        self.forward.write_pages(pages_at, &loan.pages);
        let logits = self.logits_on(pages_at, prompt_ids, ids, Phase::Decode);
        self.batch.take_back(loan);
        logits
    }

    /// Logits after each of `ids`, fed in `phase`, with the page table at `pages_at`.
    fn logits_on(
        &self,
        pages_at: usize,
        prompt_ids: &[u32],
        ids: &[u32],
        phase: Phase,
    ) -> Result<Vec<f32>, EngineError> {
        let rows = |position: usize, count: usize| -> Vec<Row> {
            let positions = position as u32..(position + count) as u32;
            positions.map(|position| Row { position, pages_at: pages_at as u32 }).collect()
        };
        for (start, chunk) in chunks(prompt_ids, self.forward.chunk()) {
            let rows = rows(start, chunk.len());
            let pass = Pass { phase: Phase::Prefill, rows: &rows, selected: &[], experts: &[] };
            self.forward.pass(pass, &Input::Ids(chunk), &[], Output::Nothing)?;
        }
        let mut logits = Vec::new();
        for (start, chunk) in chunks(ids, LOGIT_ROWS_MAX.min(self.forward.chunk())) {
            let rows = rows(prompt_ids.len() + start, chunk.len());
            let selected: Vec<u32> = (0..chunk.len() as u32).collect();
            let pass = Pass { phase, rows: &rows, selected: &selected, experts: &[] };
            logits.extend(self.forward.pass(pass, &Input::Ids(chunk), &[], Output::Logits)?);
        }
        Ok(logits)
    }

    /// Raw logits after `ids`, for tests and replay tools.
    pub fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
        if ids.is_empty() {
            return Err(bad("prompt", "is empty"));
        }
        self.check_ids("prompt", ids)?;
        self.check_fits(ids.len())?;
        let mut logits = Vec::new();
        for (start, chunk) in chunks(ids, self.forward.chunk()) {
            let rows = self.forward.scratch_rows(start, chunk.len(), 0);
            let last = start + chunk.len() == ids.len();
            let output = if last { Output::Logits } else { Output::Nothing };
            let selected = [chunk.len() as u32 - 1];
            let pass =
                Pass { phase: Phase::Prefill, rows: &rows, selected: &selected, experts: &[] };
            logits = self.forward.pass(pass, &Input::Ids(chunk), &[], output)?;
        }
        Ok(logits)
    }
}
