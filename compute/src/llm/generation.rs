//! Generating an answer, token by token.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::engine::{Engine, bad, check_top, rows_of};
use super::error::EngineError;
use super::forward::{Input, Output, Pass};
use super::op::Phase;
use super::request::{
    FinishReason, GenerateRequest, Generation, PositionLogprobs, STOP_STRINGS_MAX, Timings,
    TokenEvent, Usage,
};
use super::sampling::{LogSoftmax, Sampler};
use super::stream::TextStream;
use crate::grammar::{Grammar, GrammarFault, GrammarState};
use crate::tokenizer::Tokenizer;

impl Engine {
    /// Generates, handing every token to `on_token`; `ControlFlow::Break` cancels.
    ///
    /// A prompt that begins like the last one reuses the keys and values already computed.
    pub fn generate(
        &mut self,
        request: &GenerateRequest,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        self.check_request(request)?;
        let room = self.forward.context() - request.prompt_ids.len();
        let most = request
            .max_tokens
            .min(room)
            .min(request.enforced_ids.as_ref().map_or(usize::MAX, Vec::len));
        let mut run = Run::new(request);
        let started = Instant::now();
        let mut logits = match most {
            0 => Vec::new(),
            _ => self.prefill(&request.prompt_ids)?,
        };
        run.timings.prefill = started.elapsed();
        let decoding = Instant::now();
        while run.ids.len() < most {
            let finish = run.take(self, &logits, on_token)?;
            if let Some(finish) = finish {
                run.finish = finish;
                break;
            }
            if let Some(last) = run.ids.last().filter(|_| run.ids.len() < most) {
                logits = self.decode(*last)?;
            }
        }
        run.timings.decode = decoding.elapsed();
        Ok(run.into_generation(on_token))
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

    /// Raw logits after `ids`, for tests and replay tools.
    pub fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
        if ids.is_empty() {
            return Err(bad("prompt", "is empty"));
        }
        self.check_ids("prompt", ids)?;
        self.check_fits(ids.len())?;
        self.prefill(ids)
    }

    /// Feeds a prompt and returns the logits after its last token.
    fn prefill(&mut self, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
        // At least the last id is fed again, for its logits.
        let common =
            self.cached_ids.iter().zip(&ids[..ids.len() - 1]).take_while(|(a, b)| a == b).count();
        self.cached_ids.truncate(common);
        let mut logits = Vec::new();
        while self.cached_ids.len() < ids.len() {
            let start = self.cached_ids.len();
            let chunk = &ids[start..ids.len().min(start + self.forward.chunk())];
            let last = start + chunk.len() == ids.len();
            let output = if last { Output::Logits } else { Output::Nothing };
            let rows = rows_of(start, chunk.len(), 0);
            let selected = [chunk.len() as u32 - 1];
            let pass = Pass { phase: Phase::Prefill, rows: &rows, selected: &selected };
            logits = self.forward.pass(pass, &Input::Ids(chunk), &[], output)?;
            self.cached_ids.extend_from_slice(chunk);
        }
        Ok(logits)
    }

    /// Feeds one more id and returns the logits after it.
    fn decode(&mut self, id: u32) -> Result<Vec<f32>, EngineError> {
        let rows = rows_of(self.cached_ids.len(), 1, 0);
        let pass = Pass { phase: Phase::Decode, rows: &rows, selected: &[0] };
        let logits = self.forward.pass(pass, &Input::Ids(&[id]), &[], Output::Logits)?;
        self.cached_ids.push(id);
        Ok(logits)
    }
}

fn off_grammar(fault: GrammarFault) -> EngineError {
    bad("response_format", fault.0)
}

/// A generation in progress.
struct Run<'r> {
    request: &'r GenerateRequest,
    stream: TextStream<'r>,
    sampler: Sampler,
    grammar: Option<Box<dyn GrammarState>>,
    ids: Vec<u32>,
    text: String,
    logprobs: Vec<PositionLogprobs>,
    finish: FinishReason,
    timings: Timings,
    /// A stop string or the callback ended it: text still held back is not wanted.
    cut: bool,
}

impl<'r> Run<'r> {
    fn new(request: &'r GenerateRequest) -> Self {
        Self {
            request,
            stream: TextStream::new(&request.stop),
            sampler: Sampler::new(&request.sampling, &request.prompt_ids),
            grammar: request.grammar.as_ref().map(Grammar::start),
            ids: Vec::new(),
            text: String::new(),
            logprobs: Vec::new(),
            finish: FinishReason::Length,
            timings: Timings { prefill: Duration::ZERO, decode: Duration::ZERO },
            cut: false,
        }
    }

    /// Chooses the next token from `logits` and hands it on; returns why to stop, if so.
    fn take(
        &mut self,
        engine: &Engine,
        logits: &[f32],
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Option<FinishReason>, EngineError> {
        let index = self.ids.len();
        let enforced = self.request.enforced_ids.as_ref();
        let id = match enforced.and_then(|ids| ids.get(index)) {
            Some(id) => *id,
            None => {
                let allowed = self.grammar.as_mut().map(|g| g.allowed()).transpose();
                let allowed = allowed.map_err(off_grammar)?;
                self.sampler.draw(logits, allowed.as_ref(), index)
            }
        };
        self.sampler.took(id);
        if enforced.is_none()
            && let Some(grammar) = &mut self.grammar
        {
            grammar.take(id).map_err(off_grammar)?;
        }
        self.ids.push(id);
        if let Some(top) = self.request.top_logprobs {
            self.logprobs.push(LogSoftmax::new(logits).position(id, top));
        }
        let tokenizer = engine.tokenizer().ok();
        let shown =
            |t: &&Tokenizer| !t.is_control(id) || (self.request.keep_control && !t.is_end(id));
        let bytes = tokenizer.filter(shown).map_or(&[][..], |t| t.bytes(id));
        let (text, stopped) = self.stream.push(bytes);
        self.text.push_str(&text);
        let flow = on_token(TokenEvent { index, id, text: &text, logprobs: self.logprobs.last() });
        let ended = enforced.is_none()
            && !self.request.ignore_end
            && (tokenizer.is_some_and(|t| t.is_end(id))
                || self.grammar.as_ref().is_some_and(|grammar| grammar.is_complete()));
        self.cut = stopped || flow.is_break();
        Ok(if flow.is_break() {
            Some(FinishReason::Cancelled)
        } else if stopped || ended {
            Some(FinishReason::Stop)
        } else {
            None
        })
    }

    /// Hands on text still held back (the start of a stop string that never came).
    fn into_generation(
        mut self,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Generation {
        if !self.cut {
            let rest = self.stream.finish();
            self.text.push_str(&rest);
            if let Some(id) = self.ids.last().filter(|_| !rest.is_empty()) {
                // The answer is complete; there is nothing left to cancel.
                let _ = on_token(TokenEvent {
                    index: self.ids.len() - 1,
                    id: *id,
                    text: &rest,
                    logprobs: None,
                });
            }
        }
        Generation {
            usage: Usage {
                prompt_tokens: self.request.prompt_ids.len(),
                completion_tokens: self.ids.len(),
            },
            ids: self.ids,
            text: self.text,
            finish: self.finish,
            logprobs: self.logprobs,
            timings: self.timings,
        }
    }
}
