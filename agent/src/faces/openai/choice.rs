//! The answers of one request: several generations under way at once, each read as it comes.

use std::time::Instant;

use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use roadbed_compute::{FinishReason, Usage};

use super::super::metrics::ServingTimes;
use super::answer::{AnswerReader, Said};
use crate::engine::{Answer, EngineFault, RunningGeneration, StreamToken, TokenText};

/// What comes of the answer with this number.
pub(super) enum Event {
    Token(usize, StreamToken),
    End(usize, Result<Box<Answer>, EngineFault>),
}

/// Where an answer comes from.
pub(super) enum Source {
    /// The engine. Dropping it cancels the job.
    Running(RunningGeneration),
    /// There is nothing to generate.
    Empty(Box<Answer>),
}

/// What happens to the answers, in the order it happens. Dropped, it cancels what still runs.
pub(super) type Events = SelectAll<BoxStream<'static, Event>>;

/// Joins the answers of a request that came in at `asked`.
pub(super) fn events(sources: Vec<Source>, times: &ServingTimes, asked: Instant) -> Events {
    let one = |(index, source): (usize, Source)| match source {
        Source::Empty(answer) => stream::once(async move { Event::End(index, Ok(answer)) }).boxed(),
        Source::Running(running) => running_events(index, running, times.clone(), asked).boxed(),
    };
    stream::select_all(sources.into_iter().enumerate().map(one).collect::<Vec<_>>())
}

fn running_events(
    index: usize,
    running: RunningGeneration,
    times: ServingTimes,
    asked: Instant,
) -> impl futures_util::Stream<Item = Event> + Send {
    let state = (Some(running), None::<Instant>);
    stream::unfold(state, move |(running, first)| {
        let times = times.clone();
        async move {
            let mut running = running?;
            if let Some(token) = running.tokens.recv().await {
                let first = first.unwrap_or_else(|| {
                    times.first_token(asked.elapsed());
                    Instant::now()
                });
                return Some((Event::Token(index, token), (Some(running), Some(first))));
            }
            let end = running.finish().await.map(Box::new);
            if let (Ok(answer), Some(first)) = (&end, first) {
                times.further_tokens(first.elapsed(), answer.generation.ids.len());
            }
            Some((Event::End(index, end), (None, first)))
        }
    })
}

/// A prompt that is a part of its answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Echo {
    pub(super) text: String,
    /// Its tokens with their log probabilities, if they were asked for; the first has none.
    pub(super) tokens: Vec<TokenText>,
    pub(super) ids: Vec<u32>,
}

/// One answer being read.
pub(super) struct Choice {
    pub(super) echo: Echo,
    /// Text of the answer read so far.
    sent: String,
    reader: AnswerReader,
}

impl Choice {
    pub(super) const fn new(echo: Echo, reader: AnswerReader) -> Self {
        Self { echo, sent: String::new(), reader }
    }

    /// Letters before what comes next.
    pub(super) fn offset(&self) -> usize {
        self.echo.text.chars().count() + self.sent.chars().count()
    }

    /// Reads a token's text.
    pub(super) fn read(&mut self, text: &str) -> Said {
        self.sent.push_str(text);
        self.reader.push(text)
    }

    /// Reads what is left at the end, text that was held back in case it became a stop text among it, and why it ended.
    pub(super) fn end(&mut self, answer: &Answer) -> (Said, &'static str) {
        let text = &answer.generation.text;
        let rest = text.strip_prefix(self.sent.as_str()).unwrap_or_default().to_owned();
        let mut said = self.read(&rest);
        let last = self.reader.finish();
        said.reasoning.push_str(&last.reasoning);
        said.content.push_str(&last.content);
        said.calls.extend(last.calls);
        let finish = match answer.finish() {
            FinishReason::Stop if self.reader.ends_with_calls() => "tool_calls",
            FinishReason::Stop => "stop",
            FinishReason::Length | FinishReason::Cancelled => "length",
        };
        (said, finish)
    }
}

/// Counts the tokens of a request: each prompt once, each answer.
#[derive(Debug, Default)]
pub(super) struct UsageSum {
    sum: Usage,
}

impl UsageSum {
    /// Adds the answer with this number, of `answers` to each prompt.
    pub(super) fn add(&mut self, index: usize, answers: usize, usage: Usage) {
        if index.is_multiple_of(answers.max(1)) {
            self.sum.prompt_tokens += usage.prompt_tokens;
        }
        self.sum.completion_tokens += usage.completion_tokens;
    }

    pub(super) const fn sum(&self) -> Usage {
        self.sum
    }
}
