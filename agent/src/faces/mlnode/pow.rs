//! The PoC v2 routes under `/api/v1/inference/pow`.
//!
//! The reference fans out over engine processes, named by their ports; this rig is one engine, under one label.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use roadbed_compute::poc::Artifact;
use serde_json::{Map, Value, json};

use super::super::door::WholeBody;
use super::super::node::OwnNode;
use super::super::reply::{detail, unprocessable};
use super::round::{Unserved, read_generate, read_init};
use crate::engine::EngineFault;
use crate::proof::{JobOutcome, JobState, JobView, ProofRefusal, RoundView};

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

pub(super) fn no_backends() -> Response {
    detail(StatusCode::SERVICE_UNAVAILABLE, "No vLLM backends available")
}

async fn init(State(node): Behind, body: WholeBody) -> Response {
    let request = match read_init(&body) {
        Ok(Ok(request)) => request,
        Ok(Err(unserved)) => return unserved_reply(&unserved),
        Err(fault) => return unprocessable(&fault),
    };
    if node.model().is_none() {
        return no_backends();
    }
    match node.proof.start_round(request).await {
        Ok(()) => Json(json!({
            "status": "OK", "backends": 1, "n_groups": 1,
            "results": [{"port": BACKEND, "status": "OK"}], "errors": null,
        }))
        .into_response(),
        Err(refusal) => refusal_reply(&refusal),
    }
}

async fn generate(State(node): Behind, body: WholeBody) -> Response {
    let (job, wait) = match read_generate(&body) {
        Ok(Ok(read)) => read,
        Ok(Err(unserved)) => return unserved_reply(&unserved),
        Err(fault) => return unprocessable(&fault),
    };
    if node.model().is_none() {
        return no_backends();
    }
    let id = match node.proof.submit(job) {
        Ok(id) => id,
        Err(refusal) => return refusal_reply(&refusal),
    };
    if !wait {
        let queued = node.proof.nonces_queued();
        let id = format!("{BACKEND}:{id}");
        let view = json!({"status": "queued", "request_id": id, "queued_count": queued});
        return Json(view).into_response();
    }
    match node.proof.finished(&id).await {
        Some(JobView { state: JobState::Failed(reason), .. }) => {
            detail(StatusCode::BAD_GATEWAY, json!({"errors": [{"port": BACKEND, "error": reason}]}))
        }
        Some(JobView { state: JobState::Cancelled, .. }) | None => detail(
            StatusCode::BAD_GATEWAY,
            json!({"errors": [{"port": BACKEND, "error": "cancelled"}]}),
        ),
        Some(view) => {
            let id = view.id.clone();
            Json(job_view(view, id)).into_response()
        }
    }
}

async fn job(State(node): Behind, Path(id): Path<String>) -> Response {
    let Some((_label, uuid)) = id.split_once(':') else {
        return detail(StatusCode::BAD_REQUEST, "request_id should be <port>:<uuid>");
    };
    match node.proof.job(uuid) {
        Some(view) => Json(job_view(view, id)).into_response(),
        None => detail(StatusCode::NOT_FOUND, format!("request {id} is not known")),
    }
}

fn job_view(view: JobView, id: String) -> Value {
    let mut fields = Map::new();
    fields.insert("status".into(), json!(view.state.word()));
    fields.insert("request_id".into(), json!(id));
    match view.state {
        JobState::Queued | JobState::Running | JobState::Cancelled => {}
        JobState::Failed(reason) => {
            fields.insert("error".into(), json!(reason));
        }
        JobState::Completed(JobOutcome::Artifacts(artifacts)) => {
            fields.insert("artifacts".into(), artifacts.iter().map(artifact_view).collect());
            let encoding = json!({"dtype": "f16", "k_dim": view.k_dim, "endian": "le"});
            fields.insert("encoding".into(), encoding);
        }
        JobState::Completed(JobOutcome::Verdict(verdict)) => {
            fields.insert("n_total".into(), json!(verdict.n_total));
            fields.insert("n_mismatch".into(), json!(verdict.mismatch_nonces.len()));
            fields.insert("mismatch_nonces".into(), json!(verdict.mismatch_nonces));
            fields.insert("p_value".into(), json!(verdict.p_value));
            fields.insert("fraud_detected".into(), json!(verdict.fraud_detected));
        }
    }
    Value::Object(fields)
}

fn artifact_view(artifact: &Artifact) -> Value {
    json!({"nonce": artifact.nonce, "vector_b64": artifact.vector_b64})
}

async fn status(State(node): Behind) -> Json<Value> {
    if node.model().is_none() {
        return Json(json!({"status": "NO_BACKENDS", "backends": []}));
    }
    let round = node.proof.round();
    let generating = round.as_ref().is_some_and(|round| round.generating);
    // A validation is IDLE here: the reference's engines know no other word.
    let word = if generating { "GENERATING" } else { "IDLE" };
    let (config, stats) = round.filter(|round| round.generating).map_or_else(
        || (Value::Null, Value::Null),
        |round| (round_config(&round), round_stats(&round)),
    );
    Json(json!({
        "status": word,
        "backends": [{"port": BACKEND, "status": word, "config": config, "stats": stats}],
    }))
}

fn round_config(view: &RoundView) -> Value {
    let (request, round) = (&view.request, &view.request.round);
    json!({
        "block_hash": round.identity.block_hash, "block_height": request.block_height,
        "public_key": round.identity.public_key,
        "node_id": request.share.node_id, "node_count": request.share.node_count,
        "group_id": 0, "n_groups": 1, "seq_len": round.seq_len, "k_dim": round.k_dim,
    })
}

fn round_stats(view: &RoundView) -> Value {
    json!({"total_processed": view.processed, "nonces_per_second": view.nonces_per_second})
}

async fn stop(State(node): Behind) -> Json<Value> {
    node.proof.stop();
    if node.model().is_none() {
        return Json(json!({"status": "OK", "message": "No backends to stop"}));
    }
    let results = json!([{"port": BACKEND, "status": "stopped"}]);
    Json(json!({"status": "OK", "results": results, "errors": null}))
}

pub(super) fn unserved_reply(unserved: &Unserved) -> Response {
    match unserved {
        Unserved::Decode => detail(
            StatusCode::NOT_IMPLEMENTED,
            "the DECODE scheme is not supported: its codebook is not on this node",
        ),
        Unserved::OtherNonces => {
            detail(StatusCode::BAD_REQUEST, "validation.artifacts nonces must match nonces field")
        }
    }
}

fn refusal_reply(refusal: &ProofRefusal) -> Response {
    match refusal {
        ProofRefusal::NoModel => no_backends(),
        ProofRefusal::AlreadyGenerating => detail(StatusCode::CONFLICT, "Already generating"),
        ProofRefusal::Mismatch { requested, deployed, seq_len, context } => detail(
            StatusCode::CONFLICT,
            json!({
                "error": "params mismatch",
                "requested": {"model": requested, "seq_len": seq_len},
                "deployed": {"model": deployed, "seq_len": context},
            }),
        ),
        ProofRefusal::QueueFull { .. } => {
            detail(StatusCode::TOO_MANY_REQUESTS, refusal.to_string())
        }
        ProofRefusal::Engine(EngineFault::BadRequest { .. }) => {
            detail(StatusCode::BAD_REQUEST, refusal.to_string())
        }
        ProofRefusal::Engine(EngineFault::QueueFull { .. }) => {
            detail(StatusCode::TOO_MANY_REQUESTS, refusal.to_string())
        }
        ProofRefusal::Engine(
            EngineFault::NoModel
            | EngineFault::Draining
            | EngineFault::ShutDown
            | EngineFault::Cancelled
            | EngineFault::DeviceLost { .. }
            | EngineFault::ServerLost { .. },
        ) => no_backends(),
        ProofRefusal::Engine(EngineFault::Load { .. } | EngineFault::Failed { .. })
        | ProofRefusal::Journal(_) => detail(
            StatusCode::BAD_GATEWAY,
            json!({"errors": [{"port": BACKEND, "error": refusal.to_string()}]}),
        ),
    }
}
