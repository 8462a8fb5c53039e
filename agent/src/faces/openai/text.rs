//! Text to tokens and back, in vLLM's form.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use super::super::body::{Fields, read_body};
use super::super::door::WholeBody;
use super::super::node::OwnNode;
use super::super::reply::{no_backend, openai_bad_body, openai_fault};
use super::request::read_chat;
use super::{Behind, refuse_other};
use crate::engine::Prompt;

pub(super) fn routes() -> Router<Arc<OwnNode>> {
    Router::new()
        .route("/tokenize", post(tokenize))
        .route("/v1/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/v1/detokenize", post(detokenize))
}

/// A text, with or without what begins a sequence, or a chat.
fn read_prompt(fields: &Fields<'_>) -> Option<(Option<String>, Prompt)> {
    let model = fields.optional("model");
    if fields.value("messages").is_some() {
        let chat = read_chat(fields)?.prompts.into_iter().next()?;
        return Some((model, chat));
    }
    let text: String = fields.required("prompt")?;
    let begins = fields.optional("add_special_tokens").unwrap_or(true);
    Some((model, if begins { Prompt::Text(text) } else { Prompt::Piece(text) }))
}

async fn tokenize(State(node): Behind, body: WholeBody) -> Response {
    let Some(info) = node.model() else { return no_backend() };
    let (model, prompt) = match read_body(&body, read_prompt) {
        Ok(read) => read,
        Err(fault) => return openai_bad_body(&fault),
    };
    if let Some(refusal) = refuse_other(&info, model.as_ref()) {
        return refusal;
    }
    match node.engine.tokenize(prompt).await {
        Ok(tokenized) => Json(json!({
            "count": tokenized.ids.len(), "max_model_len": info.context_tokens,
            "tokens": tokenized.ids,
        }))
        .into_response(),
        Err(fault) => openai_fault(&fault),
    }
}

async fn detokenize(State(node): Behind, body: WholeBody) -> Response {
    let Some(info) = node.model() else { return no_backend() };
    let read = read_body(&body, |fields| {
        let ids: Option<Vec<u32>> = fields.list("tokens");
        if fields.value("tokens").is_none() {
            fields.complain("tokens", "missing", "Field required");
        }
        Some((fields.optional::<String>("model"), ids?))
    });
    let (model, ids) = match read {
        Ok(read) => read,
        Err(fault) => return openai_bad_body(&fault),
    };
    if let Some(refusal) = refuse_other(&info, model.as_ref()) {
        return refusal;
    }
    match node.engine.tokenize(Prompt::Ids(ids)).await {
        Ok(tokenized) => Json(json!({"prompt": tokenized.text})).into_response(),
        Err(fault) => openai_fault(&fault),
    }
}
