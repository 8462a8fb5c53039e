//! The OpenAI face: chat and text completions, streamed or whole, and the replay a validator asks for.
//!
//! The Network Node sends its customers' requests here too, with log probabilities always on, and checks other rigs'
//! answers by `enforced_tokens`: then nothing is sampled, the given answer is scored.

mod reply;
mod request;
mod stream;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::body::read_body;
use super::door::WholeBody;
use super::node::Node;
use super::reply::{no_backend, openai_bad_body, openai_error, openai_fault};
use crate::engine::{ModelInfo, Prompt, Tokenized};
use reply::{Shape, unix_seconds};
use request::{Completion, read_chat, read_text};

type Behind = State<Arc<Node>>;

/// All OpenAI paths.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(text))
        .route("/tokenize", post(tokenize))
        .route("/v1/tokenize", post(tokenize))
}

async fn models(State(node): Behind) -> Response {
    let Some(info) = node.model() else { return no_backend() };
    let model = json!({
        "id": info.served_as, "object": "model", "created": unix_seconds(),
        "owned_by": "roadbed", "root": info.served_as, "parent": null,
        "max_model_len": info.context_tokens,
    });
    Json(json!({"object": "list", "data": [model]})).into_response()
}

async fn chat(State(node): Behind, body: WholeBody) -> Response {
    let Some(info) = node.model() else { return no_backend() };
    match read_body(&body, read_chat) {
        Ok(completion) => complete(&node, &info, completion, Shape::Chat).await,
        Err(fault) => openai_bad_body(&fault),
    }
}

async fn text(State(node): Behind, body: WholeBody) -> Response {
    let Some(info) = node.model() else { return no_backend() };
    match read_body(&body, read_text) {
        Ok(completion) => complete(&node, &info, completion, Shape::Text).await,
        Err(fault) => openai_bad_body(&fault),
    }
}

async fn complete(node: &Node, info: &ModelInfo, completion: Completion, shape: Shape) -> Response {
    if let Some(wanted) = completion.model.as_ref().filter(|model| **model != info.served_as) {
        let message =
            format!("the model `{wanted}` does not exist here; served is `{}`", info.served_as);
        return openai_error(StatusCode::NOT_FOUND, "not_found_error", &message, Some("model"));
    }
    let form = match reply::ReplyForm::new(shape, info, &completion) {
        Ok(form) => form,
        Err(fault) => return openai_fault(&fault),
    };
    if let Some(score) = completion.score {
        return match node.engine.score(score).await {
            Ok(scored) => Json(form.scored(&scored)).into_response(),
            Err(fault) => openai_fault(&fault),
        };
    }
    let running = match node.engine.generate(completion.text) {
        Ok(running) => running,
        Err(fault) => return openai_fault(&fault),
    };
    if completion.stream {
        return stream::respond(running, form, completion.include_usage).await;
    }
    match running.finish().await {
        Ok(answer) => Json(form.answer(&answer)).into_response(),
        Err(fault) => openai_fault(&fault),
    }
}

async fn tokenize(State(node): Behind, body: WholeBody) -> Response {
    let Some(info) = node.model() else { return no_backend() };
    let read = read_body(&body, |fields| {
        let messages = fields.value("messages").is_some();
        if messages {
            return read_chat(fields).map(|completion| completion.text.prompt);
        }
        fields.required("prompt").map(Prompt::Text)
    });
    let prompt = match read {
        Ok(prompt) => prompt,
        Err(fault) => return openai_bad_body(&fault),
    };
    match node.engine.tokenize(prompt).await {
        Ok(Tokenized { ids, .. }) => {
            let view: Value =
                json!({"count": ids.len(), "max_model_len": info.context_tokens, "tokens": ids});
            Json(view).into_response()
        }
        Err(fault) => openai_fault(&fault),
    }
}
