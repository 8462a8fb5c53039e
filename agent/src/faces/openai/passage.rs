//! The OpenAI paths of a rig whose engine is an external server: bodies pass as they were written.
//!
//! Read is only what the rig answers for: the model's name, and whether a stream is wanted. Everything else is between
//! the customer and the server, the refusals of its fields too.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use tokio::sync::mpsc;

use super::super::body::read_body;
use super::super::door::WholeBody;
use super::super::metrics::ServingTimes;
use super::super::node::UpstreamNode;
use super::super::path_end::PathEnd;
use super::super::reply::{no_backend, openai_bad_body, openai_pass_fault, openai_pass_fault_body};
use super::stream::{DONE, event_of};
use super::{model_page, models_page, refuse_other};
use crate::engine::upstream::{Asked, Passed, Piece};

type Behind = State<Arc<UpstreamNode>>;

/// Paths that are passed on, and what the server calls them. All take and give JSON.
const PASSED: [(&str, &str); 9] = [
    ("/v1/chat/completions", "/v1/chat/completions"),
    ("/v1/completions", "/v1/completions"),
    ("/v1/embeddings", "/v1/embeddings"),
    ("/v1/rerank", "/v1/rerank"),
    ("/v1/score", "/v1/score"),
    ("/tokenize", "/tokenize"),
    ("/v1/tokenize", "/tokenize"),
    ("/detokenize", "/detokenize"),
    ("/v1/detokenize", "/detokenize"),
];

/// All OpenAI paths, answered by the server.
pub(in super::super) fn routes() -> Router<Arc<UpstreamNode>> {
    let own = Router::new().route("/v1/models", get(models)).route("/v1/models/{*id}", get(model));
    PASSED.iter().fold(own, |routes, &(path, server_path)| {
        routes.route(path, post(move |node: Behind, body| pass(node, server_path, body)))
    })
}

async fn models(State(node): Behind) -> Response {
    models_page(&node)
}

async fn model(State(node): Behind, PathEnd(id): PathEnd) -> Response {
    model_page(&node, &id)
}

async fn pass(State(node): Behind, path: &'static str, body: WholeBody) -> Response {
    let asked_at = Instant::now();
    let Some(info) = node.model() else { return no_backend() };
    let read = read_body(&body, |fields| {
        let model: Option<String> = fields.optional("model");
        let stream = fields.optional("stream").unwrap_or(false);
        let has_stream_options = fields.value("stream_options").is_some();
        Some((model, stream, has_stream_options))
    });
    let (model, stream, has_stream_options) = match read {
        Ok(read) => read,
        Err(fault) => return openai_bad_body(&fault),
    };
    if let Some(refusal) = refuse_other(&info, model.as_ref()) {
        return refusal;
    }
    match node.server.pass(Asked { path, body, stream, has_stream_options }).await {
        Ok(Passed::Whole { status, body, tokens: _ }) => {
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Ok(Passed::Stream(pieces)) => respond(pieces, node.metrics.times().clone(), asked_at),
        Err(fault) => openai_pass_fault(&fault),
    }
}

/// A stream under way.
struct Running {
    /// `None` once the end has been sent.
    pieces: Option<mpsc::Receiver<Piece>>,
    times: ServingTimes,
    asked_at: Instant,
    first_at: Option<Instant>,
}

fn respond(pieces: mpsc::Receiver<Piece>, times: ServingTimes, asked_at: Instant) -> Response {
    let running = Running { pieces: Some(pieces), times, asked_at, first_at: None };
    let chunks = stream::unfold(running, |mut running| async move {
        let text = running.next().await?;
        Some((Ok::<_, Infallible>(text), running))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(chunks)).into_response()
}

impl Running {
    async fn next(&mut self) -> Option<Bytes> {
        match self.pieces.as_mut()?.recv().await {
            Some(Piece::Event(lines)) => {
                if self.first_at.is_none() {
                    self.times.first_token(self.asked_at.elapsed());
                    self.first_at = Some(Instant::now());
                }
                Some(lines)
            }
            Some(Piece::End(Ok(tokens))) => {
                self.pieces = None;
                if let Some(first_at) = self.first_at {
                    let tokens = usize::try_from(tokens).unwrap_or(0);
                    self.times.further_tokens(first_at.elapsed(), tokens);
                }
                Some(Bytes::from_static(DONE.as_bytes()))
            }
            Some(Piece::End(Err(fault))) => {
                self.pieces = None;
                Some(Bytes::from(event_of(openai_pass_fault_body(&fault)) + DONE))
            }
            None => None,
        }
    }
}
