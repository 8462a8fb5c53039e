//! The PoC v2 routes under `/api/v1/inference/pow`.
//!
//! The reference fans out over engine processes, named by their ports; this rig is one engine, under one label. What the
//! engine itself answers, to a front end that numbers it as a group, is in [`super::engine`].

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

/// The label of our one engine, where the reference has the port of its first engine process.
pub(super) const BACKEND: u16 = 5001;

type Behind = State<Arc<OwnNode>>;

pub(in super::super) fn routes() -> Router<Arc<OwnNode>> {
    Router::new()
        .route("/api/v1/inference/pow/init/generate", post(init))
        .route("/api/v1/inference/pow/generate", post(generate))
        .route("/api/v1/inference/pow/generate/{id}", get(job))
        .route("/api/v1/inference/pow/status", get(status))
        .route("/api/v1/inference/pow/stop", post(stop))
}

async fn init(State(node): Behind, body: WholeBody) -> Response {
    match begin(&node, &body, Floor::Node).await {
        Ok(share) => Json(json!({
            "status": "OK", "backends": 1, "n_groups": share.n_groups,
            "results": [{"port": BACKEND, "status": "OK"}], "errors": null,
        }))
        .into_response(),
        Err(refusal) => *refusal,
    }
}

async fn generate(State(node): Behind, body: WholeBody) -> Response {
    let taken = match take_job(&node, &body, Floor::Node) {
        Ok(taken) => taken,
        Err(refusal) => return *refusal,
    };
    if taken.wait {
        return wait_for(&node, &taken.id, Floor::Node).await;
    }
    let id = format!("{BACKEND}:{}", taken.id);
    Json(json!({"status": "queued", "request_id": id, "queued_count": taken.nonces}))
        .into_response()
}

async fn job(State(node): Behind, PathEnd(id): PathEnd) -> Response {
    let Some((label, uuid)) = id.split_once(':') else {
        let message = "Invalid request_id format (expected port:uuid)";
        return detail(StatusCode::BAD_REQUEST, message);
    };
    if label.parse::<u16>().is_err() {
        return detail(StatusCode::BAD_REQUEST, "Invalid port in request_id");
    }
    match node.proof.job(uuid) {
        Some(view) => Json(job_view(view, id)).into_response(),
        None => detail(StatusCode::NOT_FOUND, "Request not found"),
    }
}

async fn status(State(node): Behind) -> Json<Value> {
    if node.model().is_none() {
        return Json(json!({"status": "NO_BACKENDS", "backends": [], "schemes": schemes(&node)}));
    }
    let mut backend = round_view(&node);
    let word = backend["status"].clone();
    backend["port"] = json!(BACKEND);
    Json(json!({"status": word, "backends": [backend], "schemes": schemes(&node)}))
}

async fn stop(State(node): Behind) -> Json<Value> {
    node.proof.stop();
    if node.model().is_none() {
        return Json(json!({"status": "OK", "message": "No backends to stop"}));
    }
    let results = json!([{"port": BACKEND, "status": "stopped"}]);
    Json(json!({"status": "OK", "results": results, "errors": null}))
}
