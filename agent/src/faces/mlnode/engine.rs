//! The PoC v2 routes of an engine, under `/api/v1/pow`: what a front end calls that shares a node out over engines.
//!
//! The front end (the reference's, or our gateway over many rigs) adds `group_id` and `n_groups` to an order and puts the
//! answers of all engines together. Job ids are plain here; the front end adds a label to know them apart.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::super::door::WholeBody;
use super::super::node::OwnNode;
use super::super::path_end::PathEnd;
use super::super::reply::detail;
use super::order::{Floor, begin, job_view, round_view, schemes, take_job, wait_for};

type Behind = State<Arc<OwnNode>>;

pub(in super::super) fn routes() -> Router<Arc<OwnNode>> {
    Router::new()
        .route("/api/v1/pow/init/generate", post(init))
        .route("/api/v1/pow/generate", post(generate))
        .route("/api/v1/pow/generate/{id}", get(job))
        .route("/api/v1/pow/status", get(status))
        .route("/api/v1/pow/stop", post(stop))
}

async fn init(State(node): Behind, body: WholeBody) -> Response {
    match begin(&node, &body, Floor::Engine).await {
        Ok(_share) => {
            Json(json!({"status": "OK", "pow_status": {"status": "GENERATING"}})).into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn generate(State(node): Behind, body: WholeBody) -> Response {
    let taken = match take_job(&node, &body, Floor::Engine) {
        Ok(taken) => taken,
        Err(refusal) => return *refusal,
    };
    if taken.wait {
        return wait_for(&node, &taken.id, Floor::Engine).await;
    }
    Json(json!({"status": "queued", "request_id": taken.id, "queued_count": taken.nonces}))
        .into_response()
}

async fn job(State(node): Behind, PathEnd(id): PathEnd) -> Response {
    match node.proof.job(&id) {
        Some(view) => Json(job_view(view, id)).into_response(),
        None => detail(StatusCode::NOT_FOUND, format!("Request {id} not found")),
    }
}

/// An engine that is not there answers nothing in the reference; ours does, and idles.
async fn status(State(node): Behind) -> Json<Value> {
    let mut view = round_view(&node);
    view["schemes"] = schemes(&node);
    Json(view)
}

async fn stop(State(node): Behind) -> Json<Value> {
    node.proof.stop();
    Json(json!({"status": "OK", "pow_status": {"status": "STOPPED"}}))
}
