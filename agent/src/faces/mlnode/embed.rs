//! `/api/v1/embed`: the vector of one text, as a newer Network Node's cache of prompts asks for it.
//!
//! The reference always has an encoder of its own; this rig has one if its operator chose one, and answers as if there were
//! no such path otherwise.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use super::super::body::read_body;
use super::super::door::WholeBody;
use super::super::node::Node;
use super::super::reply::{detail, unprocessable};
use super::Behind;
use crate::embedding::{EmbeddingInput, EmbeddingRequest};
use crate::engine::EngineFault;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new().route("/api/v1/embed", post(embed))
}

async fn embed(State(node): Behind, body: WholeBody) -> Response {
    let Some((service, info)) =
        node.embeddings().and_then(|service| Some((service, service.model()?)))
    else {
        return detail(StatusCode::NOT_FOUND, "Not Found");
    };
    let text = match read_body(&body, |fields| fields.required::<String>("text")) {
        Ok(text) => text,
        Err(fault) => return unprocessable(&fault),
    };
    if text.is_empty() {
        return detail(StatusCode::BAD_REQUEST, "text must not be empty");
    }
    // What the encoder cannot read is cut off, as the reference's does.
    let truncate_tokens = Some(info.tokens_max);
    let request = EmbeddingRequest { inputs: vec![EmbeddingInput::Text(text)], truncate_tokens };
    let embedded = match service.embed(request).await {
        Ok(embedded) => embedded,
        Err(fault @ EngineFault::QueueFull { .. }) => {
            return detail(StatusCode::TOO_MANY_REQUESTS, fault.to_string());
        }
        Err(fault) => return detail(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    };
    match embedded.vectors.into_iter().next() {
        Some(vector) => Json(json!({
            "dimensions": vector.len(), "embedding": vector, "model": info.served_as,
        }))
        .into_response(),
        None => detail(StatusCode::INTERNAL_SERVER_ERROR, "the encoder gave no vector"),
    }
}
