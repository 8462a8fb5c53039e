//! Streamed answers: server-sent events, one chunk a token, ended by `[DONE]`.
//!
//! The status goes out with the first byte, so the first token is waited for: a request the engine refuses still gets
//! its proper status. A customer who goes away drops the stream, which cancels the job.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;

use super::super::reply::{openai_fault, openai_fault_body};
use super::reply::ReplyForm;
use crate::engine::{Answer, RunningGeneration, StreamToken};

/// A stream under way.
struct Running {
    /// `None` once the end has been sent.
    generation: Option<RunningGeneration>,
    /// The token that was waited for before the status went out.
    first: Option<StreamToken>,
    form: ReplyForm,
    include_usage: bool,
    /// Text sent so far.
    sent: String,
}

/// The answer as a stream.
pub(super) async fn respond(
    mut generation: RunningGeneration,
    form: ReplyForm,
    include_usage: bool,
) -> Response {
    let first = generation.tokens.recv().await;
    let mut running = Running { generation: None, first, form, include_usage, sent: String::new() };
    if running.first.is_none() {
        // Over before it began: refused, or an empty answer.
        return match generation.finish().await {
            Ok(answer) => {
                let opening = running.form.opening().as_ref().map(event).unwrap_or_default();
                reply(Body::from(opening + &running.end(&answer)))
            }
            Err(fault) => openai_fault(&fault),
        };
    }
    running.generation = Some(generation);
    let chunks = stream::unfold(running, |mut running| async move {
        let text = running.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), running))
    });
    reply(Body::from_stream(chunks))
}

const DONE: &str = "data: [DONE]\n\n";

fn reply(body: Body) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, body).into_response()
}

fn event(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

impl Running {
    /// The next piece of the body.
    async fn next(&mut self) -> Option<String> {
        if let Some(token) = self.first.take() {
            let opening = self.form.opening().as_ref().map(event).unwrap_or_default();
            return Some(opening + &self.token(&token).unwrap_or_default());
        }
        let mut generation = self.generation.take()?;
        while let Some(token) = generation.tokens.recv().await {
            if let Some(text) = self.token(&token) {
                self.generation = Some(generation);
                return Some(text);
            }
        }
        Some(match generation.finish().await {
            Ok(answer) => self.end(&answer),
            Err(fault) => event(&openai_fault_body(&fault)) + DONE,
        })
    }

    /// The chunk of a token, if it shows anything.
    fn token(&mut self, token: &StreamToken) -> Option<String> {
        let offset = self.sent.chars().count();
        self.sent.push_str(&token.text);
        self.form.token(token, offset).as_ref().map(event)
    }

    fn end(&self, answer: &Answer) -> String {
        let generation = &answer.generation;
        // Text held back in case it became a stop text, and then did not.
        let rest = generation.text.strip_prefix(self.sent.as_str()).unwrap_or_default();
        let mut text = event(&self.form.closing(answer.finish(), rest));
        if self.include_usage {
            text.push_str(&event(&self.form.usage(generation.usage)));
        }
        text + DONE
    }
}
