//! One answer in progress: what was asked, what has been drawn, and how far its keys and values are.

use std::ops::Range;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::engine::bad;
use super::error::EngineError;
use super::kv::{PageName, page_names};
use super::likeliest::Scores;
use super::op::Phase;
use super::params::PAGE;
use super::request::{
    FinishReason, GenerateRequest, Generation, PositionLogprobs, Timings, TokenEvent, Usage,
};
use super::sampler::{Drawn, Sampler};
use super::stream::TextStream;
use crate::grammar::{Grammar, GrammarFault, GrammarState};
use crate::kernels::top::Wish;
use crate::tokenizer::Tokenizer;

/// Names a sequence of one engine for its whole life; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SequenceId(pub u64);

/// One new token, owning what [`TokenEvent`] borrows.
#[derive(Clone, Debug, PartialEq)]
pub struct NewToken {
    /// Position among the new tokens.
    pub index: usize,
    pub id: u32,
    /// Text that became certain with it; may be empty.
    pub text: String,
    /// Present if the request asked for logprobs.
    pub logprobs: Option<PositionLogprobs>,
}

impl NewToken {
    #[must_use]
    pub fn event(&self) -> TokenEvent<'_> {
        TokenEvent {
            index: self.index,
            id: self.id,
            text: &self.text,
            logprobs: self.logprobs.as_ref(),
        }
    }
}

/// What a step brought.
#[derive(Debug)]
pub enum SequenceEvent {
    Token {
        id: SequenceId,
        token: NewToken,
    },
    /// The last event of a sequence.
    Finished {
        id: SequenceId,
        generation: Generation,
    },
    /// The last event of a sequence that cannot go on, whereas the others can.
    Failed {
        id: SequenceId,
        error: EngineError,
    },
}

impl SequenceEvent {
    /// The sequence it is about.
    #[must_use]
    pub fn id(&self) -> SequenceId {
        match self {
            Self::Token { id, .. } | Self::Finished { id, .. } | Self::Failed { id, .. } => *id,
        }
    }
}

/// Consecutive tokens of one sequence that a pass feeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub id: SequenceId,
    pub positions: Range<usize>,
    /// The logits after its last token are wanted.
    pub selects: bool,
}

pub(super) struct Sequence {
    pub id: SequenceId,
    request: GenerateRequest,
    /// Most new tokens.
    most: usize,
    stream: TextStream,
    sampler: Sampler,
    grammar: Option<Box<dyn GrammarState>>,
    ids: Vec<u32>,
    text: String,
    logprobs: Vec<PositionLogprobs>,
    began: Option<Instant>,
    first_token: Option<Instant>,
    /// Names of the prompt's pages that may be shared.
    names: Vec<PageName>,
    /// Pages with the keys and values of positions `0..fed`, and room for more.
    pub pages: Vec<u32>,
    /// Pages that the GPU's page table has.
    pub pages_written: usize,
    /// Which page table it has while it runs.
    pub table: usize,
    fed: usize,
}

impl Sequence {
    /// `room` is the number of tokens the context leaves for the answer.
    pub fn new(id: SequenceId, request: GenerateRequest, room: usize) -> Self {
        let enforced = request.enforced_ids.as_ref().map_or(usize::MAX, Vec::len);
        Self {
            id,
            most: request.max_tokens.min(room).min(enforced),
            stream: TextStream::new(request.stop.clone()),
            sampler: Sampler::new(&request.sampling, &request.prompt_ids)
                .telling(&request.at_least, request.logprobs_mode),
            grammar: request.grammar.as_ref().map(Grammar::start),
            ids: Vec::new(),
            text: String::new(),
            logprobs: Vec::new(),
            began: None,
            first_token: None,
            // The last token of a prompt is always fed, for its logits, so it is in no shared page.
            names: page_names(&request.prompt_ids[..request.prompt_ids.len().saturating_sub(1)]),
            pages: Vec::new(),
            pages_written: 0,
            table: 0,
            fed: 0,
            request,
        }
    }

    /// Tokens known so far: the prompt and what was drawn.
    pub fn len(&self) -> usize {
        self.request.prompt_ids.len() + self.ids.len()
    }

    pub fn names(&self) -> &[PageName] {
        &self.names
    }

    /// True if nothing is to be generated at all.
    pub fn is_done(&self) -> bool {
        self.ids.len() >= self.most
    }

    /// Pages that hold all tokens known so far.
    pub fn pages_needed(&self) -> usize {
        self.len().div_ceil(PAGE)
    }

    /// The token at a position of prompt and answer.
    pub fn token(&self, position: usize) -> u32 {
        let prompt = &self.request.prompt_ids;
        prompt.get(position).or_else(|| self.ids.get(position - prompt.len())).copied().unwrap_or(0)
    }

    /// How the next tokens are fed. A drawn token is always fed as decoding feeds it, also when it is
    /// fed again after the sequence had to give its pages up, so that the answer stays the same.
    pub fn phase(&self) -> Phase {
        match self.fed < self.request.prompt_ids.len() {
            true => Phase::Prefill,
            false => Phase::Decode,
        }
    }

    /// The next tokens to feed, at most `rows`, all of one phase.
    pub fn next(&self, rows: usize) -> Slice {
        let prompt = self.request.prompt_ids.len();
        let phase_end = match self.phase() {
            Phase::Prefill => prompt,
            Phase::Decode => self.len(),
        };
        let end = phase_end.min(self.fed + rows);
        Slice { id: self.id, positions: self.fed..end, selects: end == self.len() }
    }

    /// It runs from here on, its first tokens being in shared `pages`.
    pub fn begin(&mut self, pages: Vec<u32>, table: usize, now: Instant) {
        self.began.get_or_insert(now);
        self.fed = pages.len() * PAGE;
        self.pages = pages;
        self.pages_written = 0;
        self.table = table;
    }

    /// It stops running and loses its pages, which the caller releases.
    pub fn give_up(&mut self) -> Vec<u32> {
        self.fed = 0;
        self.pages_written = 0;
        std::mem::take(&mut self.pages)
    }

    /// Keys and values up to `end` are in its pages. Returns the prompt's pages that became full, each
    /// with its name.
    pub fn feed(&mut self, end: usize) -> Vec<(u32, PageName)> {
        let full = self.fed / PAGE..end / PAGE;
        self.fed = end;
        let pages = self.pages.iter().zip(&self.names).map(|(page, name)| (*page, *name));
        pages.take(full.end).skip(full.start).collect()
    }

    /// What to ask the GPU of the row after the last token; `None` if all logits are needed.
    pub fn wish(&self) -> Option<Wish> {
        let enforced = self.request.enforced_ids.as_ref();
        if let Some(id) = enforced.and_then(|ids| ids.get(self.ids.len())) {
            return self.sampler.wish_of(*id);
        }
        let inverse_temperature = self.sampler.inverse_temperature()?;
        self.grammar.is_none().then_some(Wish { token: 0, inverse_temperature })
    }

    /// Chooses the next token from what is known of those after the last. Returns it, and why it is the
    /// last one, if it is; `None`, and nothing happens, if the likeliest do not settle it. A grammar that
    /// can go no further is an error of this sequence alone.
    pub fn take(
        &mut self,
        scores: Scores<'_>,
        tokenizer: Option<&Tokenizer>,
        now: Instant,
    ) -> Result<Option<(NewToken, Option<FinishReason>)>, EngineError> {
        let index = self.ids.len();
        self.first_token.get_or_insert(now);
        let enforced = self.request.enforced_ids.as_ref();
        let allowed = match (&mut self.grammar, scores) {
            (Some(grammar), Scores::All(_)) if enforced.is_none() => {
                Some(grammar.allowed().map_err(off_grammar)?)
            }
            (Some(_) | None, _) => None,
        };
        let drawn = match enforced.and_then(|ids| ids.get(index)) {
            Some(id) => Some(Drawn { id: *id, ..Drawn::default() }),
            None => self.sampler.draw(scores, allowed.as_ref(), index),
        };
        let Some(Drawn { id, from }) = drawn else { return Ok(None) };
        let tell = |top| self.sampler.tell(scores, allowed.as_ref(), (id, index), top);
        let logprobs = match self.request.top_logprobs.map(tell) {
            Some(None) => return Ok(None),
            Some(Some(position)) => Some(PositionLogprobs { drawn_from: from, ..position }),
            None => None,
        };
        self.sampler.took(id);
        if enforced.is_none()
            && let Some(grammar) = &mut self.grammar
        {
            grammar.take(id).map_err(off_grammar)?;
        }
        self.ids.push(id);
        self.logprobs.extend(logprobs.clone());
        let shown =
            |t: &&Tokenizer| !t.is_control(id) || (self.request.keep_control && !t.is_end(id));
        let bytes = tokenizer.filter(shown).map_or(&[][..], |t| t.bytes(id));
        let (text, stopped) = match self.ids.len() < self.request.at_least.tokens {
            true => (self.stream.push_unstopped(bytes), false),
            false => self.stream.push(bytes),
        };
        self.text.push_str(&text);
        let ended = enforced.is_none()
            && !self.request.ignore_end
            && (tokenizer.is_some_and(|t| t.is_end(id))
                || self.grammar.as_ref().is_some_and(|grammar| grammar.is_complete()));
        let finish = if stopped {
            self.stream.clear();
            Some(FinishReason::Stop)
        } else if ended {
            Some(FinishReason::Stop)
        } else {
            self.is_done().then_some(FinishReason::Length)
        };
        Ok(Some((NewToken { index, id, text, logprobs }, finish)))
    }

    /// Ends it: text still held back (the start of a stop string that never came) comes as one more
    /// event of the last token, unless it was cancelled.
    pub fn finish(mut self, finish: FinishReason, now: Instant) -> (Option<NewToken>, Generation) {
        let rest = match finish {
            FinishReason::Cancelled => String::new(),
            FinishReason::Stop | FinishReason::Length => self.stream.finish(),
        };
        self.text.push_str(&rest);
        let last = self.ids.last().filter(|_| !rest.is_empty());
        let token = last.map(|id| NewToken {
            index: self.ids.len() - 1,
            id: *id,
            text: rest,
            logprobs: None,
        });
        let began = self.began.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        let generation = Generation {
            usage: Usage {
                prompt_tokens: self.request.prompt_ids.len(),
                completion_tokens: self.ids.len(),
            },
            ids: self.ids,
            text: self.text,
            finish,
            logprobs: self.logprobs,
            timings: Timings {
                prefill: first.saturating_duration_since(began),
                decode: now.saturating_duration_since(first),
            },
        };
        (token, generation)
    }
}

fn off_grammar(fault: GrammarFault) -> EngineError {
    bad("response_format", fault.0)
}
