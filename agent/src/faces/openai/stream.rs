//! Streamed answers: server-sent events, one chunk a token, ended by `[DONE]`.
//!
//! The status goes out with the first byte, so the first token is waited for: a request the engine refuses still gets
//! its proper status. A customer who goes away drops the stream, which cancels the jobs.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::super::reply::{openai_fault, openai_fault_body};
use super::answer::Said;
use super::choice::{Choice, Event, Events, UsageSum};
use super::reply::ReplyForm;
use crate::engine::StreamToken;

/// Ends every stream.
pub(super) const DONE: &str = "data: [DONE]\n\n";

/// A stream under way.
struct Running {
    /// `None` once the end has been sent.
    events: Option<Events>,
    /// What was waited for before the status went out.
    first: Option<Event>,
    form: ReplyForm,
    choices: Vec<Choice>,
    opened: Vec<bool>,
    /// Answers to each prompt.
    answers: usize,
    usage: UsageSum,
    include_usage: bool,
}

/// The answers as a stream.
pub(super) async fn respond(
    mut events: Events,
    form: ReplyForm,
    choices: Vec<Choice>,
    answers: usize,
    include_usage: bool,
) -> Response {
    let first = events.next().await;
    if let Some(Event::End(_, Err(fault))) = &first {
        return openai_fault(fault);
    }
    let running = Running {
        events: Some(events),
        first,
        form,
        opened: vec![false; choices.len()],
        choices,
        answers,
        usage: UsageSum::default(),
        include_usage,
    };
    let chunks = stream::unfold(running, |mut running| async move {
        let text = running.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), running))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(chunks)).into_response()
}

impl Running {
    /// The next piece of the body.
    async fn next(&mut self) -> Option<String> {
        loop {
            let event = match self.first.take() {
                Some(event) => Some(event),
                None => self.events.as_mut()?.next().await,
            };
            let text = match event {
                Some(Event::Token(index, token)) => self.token(index, &token),
                Some(Event::End(index, Ok(answer))) => {
                    self.usage.add(index, self.answers, answer.generation.usage);
                    let mut text = self.opening(index);
                    let Some(choice) = self.choices.get_mut(index) else { continue };
                    let (rest, finish) = choice.end(&answer);
                    text.push_str(&event_of(self.form.closing(index, &rest, finish)));
                    text
                }
                Some(Event::End(_, Err(fault))) => {
                    // The other answers are cancelled with the events.
                    self.events = None;
                    event_of(openai_fault_body(&fault)) + DONE
                }
                None => {
                    self.events = None;
                    let usage = self.include_usage.then(|| self.form.usage(self.usage.sum()));
                    usage.map(event_of).unwrap_or_default() + DONE
                }
            };
            if !text.is_empty() {
                return Some(text);
            }
        }
    }

    /// What goes before the first token of an answer: who speaks, and the prompt if it is a part of the answer.
    fn opening(&mut self, index: usize) -> String {
        if self.opened.get(index) != Some(&false) {
            return String::new();
        }
        self.opened[index] = true;
        let opening = self.form.opening(index).map(event_of).unwrap_or_default();
        let echo = &self.choices[index].echo;
        if echo.text.is_empty() {
            return opening;
        }
        let said = Said { content: echo.text.clone(), ..Said::default() };
        let piece = self.form.piece(index, &said, &echo.tokens, &echo.ids, 0);
        opening + &piece.map(event_of).unwrap_or_default()
    }

    /// The chunk of a token, if it shows anything.
    fn token(&mut self, index: usize, token: &StreamToken) -> String {
        let opening = self.opening(index);
        let Some(choice) = self.choices.get_mut(index) else { return opening };
        let offset = choice.offset();
        let said = choice.read(&token.text);
        let piece = self.form.piece(index, &said, token.logprobs.as_slice(), &[token.id], offset);
        opening + &piece.map(event_of).unwrap_or_default()
    }
}

/// A chunk as a line of the stream.
pub(super) fn event_of(chunk: Value) -> String {
    format!("data: {chunk}\n\n")
}
