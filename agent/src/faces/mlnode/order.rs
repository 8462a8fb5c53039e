//! Orders to prove as the proof side takes them, and its answers as JSON: one way for both floors of the PoC routes.
//!
//! The node's floor speaks of its back-ends, the engine's floor of itself; they differ in the frame of an answer and in
//! the words for "there is nothing here", not in what is done.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use roadbed_compute::poc::{Artifact, NonceShare};
use serde_json::{Map, Value, json};

use super::super::node::OwnNode;
use super::super::reply::{detail, unprocessable};
use super::pow::BACKEND;
use super::round::{OtherNonces, read_generate, read_init};
use crate::engine::EngineFault;
use crate::proof::{JobOutcome, JobState, JobView, ProofRefusal, RoundView, sent_form};

/// Which floor is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Floor {
    /// The node: `/api/v1/inference/pow`.
    Node,
    /// An engine of it: `/api/v1/pow`.
    Engine,
}

impl Floor {
    /// Nothing is here that could prove.
    pub(super) fn nothing(self) -> Response {
        let message = match self {
            Self::Node => "No vLLM backends available",
            Self::Engine => "Engine not available",
        };
        detail(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// It failed.
    fn failed(self, reason: &str) -> Response {
        match self {
            Self::Node => detail(
                StatusCode::BAD_GATEWAY,
                json!({"errors": [{"port": BACKEND, "error": reason}]}),
            ),
            Self::Engine => detail(StatusCode::SERVICE_UNAVAILABLE, reason),
        }
    }
}

/// A job that was taken in.
pub(super) struct Taken {
    pub(super) id: String,
    pub(super) nonces: usize,
    /// The caller waits for the outcome.
    pub(super) wait: bool,
}

/// Begins a round, or says why not.
pub(super) async fn begin(
    node: &OwnNode,
    body: &[u8],
    floor: Floor,
) -> Result<NonceShare, Box<Response>> {
    let request = match read_init(body) {
        Ok(request) => request,
        Err(fault) => return Err(Box::new(unprocessable(&fault))),
    };
    if node.model().is_none() {
        return Err(Box::new(floor.nothing()));
    }
    let share = request.share;
    match node.proof.start_round(request).await {
        Ok(()) => Ok(share),
        Err(refusal) => Err(Box::new(refusal_reply(&refusal, floor))),
    }
}

/// Takes a job in, or says why not.
pub(super) fn take_job(node: &OwnNode, body: &[u8], floor: Floor) -> Result<Taken, Box<Response>> {
    let (job, wait) = match read_generate(body) {
        Ok(Ok(read)) => read,
        Ok(Err(OtherNonces)) => {
            let message = "validation.artifacts nonces must match nonces field";
            return Err(Box::new(detail(StatusCode::BAD_REQUEST, message)));
        }
        Err(fault) => return Err(Box::new(unprocessable(&fault))),
    };
    if node.model().is_none() {
        return Err(Box::new(floor.nothing()));
    }
    let nonces = job.nonces.len();
    match node.proof.submit(job) {
        Ok(id) => Ok(Taken { id, nonces, wait }),
        Err(refusal) => Err(Box::new(refusal_reply(&refusal, floor))),
    }
}

/// The outcome of a job, once it is there.
pub(super) async fn wait_for(node: &OwnNode, id: &str, floor: Floor) -> Response {
    match node.proof.finished(id).await {
        Some(JobView { state: JobState::Failed(reason), .. }) => floor.failed(&reason),
        Some(JobView { state: JobState::Cancelled, .. }) | None => floor.failed("cancelled"),
        Some(view) => {
            let id = view.id.clone();
            Json(job_view(view, id)).into_response()
        }
    }
}

pub(super) fn job_view(view: JobView, id: String) -> Value {
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
    let mut view = json!({"nonce": artifact.nonce, "vector_b64": sent_form(artifact)});
    if !artifact.points.is_empty() {
        view["k_points_steps"] = json!(artifact.points);
    }
    view
}

/// Which of the network's schemes this engine proves in. Not the reference's field: its engines say nothing of it.
pub(super) fn schemes(node: &OwnNode) -> Value {
    let (decode, reason) = match node.proof.decode() {
        Some(Ok(())) => ("supported", None),
        Some(Err(refusal)) => ("unsupported", Some(refusal.to_string())),
        None => ("unsupported", Some("no model is up".to_owned())),
    };
    json!({"prefill": "supported", "decode": decode, "decode_reason": reason})
}

/// What the engine does of proofs: a round, or nothing. A validation is IDLE: the reference's engines know no other word.
pub(super) fn round_view(node: &OwnNode) -> Value {
    match node.proof.round().filter(|round| round.generating) {
        Some(round) => json!({
            "status": "GENERATING", "config": round_config(&round),
            "stats": {
                "total_processed": round.processed, "nonces_per_second": round.nonces_per_second,
            },
        }),
        None => json!({"status": "IDLE", "config": null, "stats": null}),
    }
}

fn round_config(view: &RoundView) -> Value {
    let (request, round) = (&view.request, &view.request.round);
    let NonceShare { node_id, node_count, group_id, n_groups } = request.share;
    json!({
        "block_hash": round.identity.block_hash, "block_height": request.block_height,
        "public_key": round.identity.public_key, "node_id": node_id, "node_count": node_count,
        "group_id": group_id, "n_groups": n_groups, "seq_len": round.seq_len, "k_dim": round.k_dim,
    })
}

fn refusal_reply(refusal: &ProofRefusal, floor: Floor) -> Response {
    match refusal {
        ProofRefusal::NoModel => floor.nothing(),
        ProofRefusal::AlreadyGenerating => detail(StatusCode::CONFLICT, "Already generating"),
        ProofRefusal::Mismatch { requested, deployed, seq_len, context } => detail(
            StatusCode::CONFLICT,
            json!({
                "error": "params mismatch",
                "requested": {"model": requested, "seq_len": seq_len},
                "deployed": {"model": deployed, "seq_len": context},
            }),
        ),
        ProofRefusal::Unsupported(refusal) => {
            detail(StatusCode::NOT_IMPLEMENTED, refusal.to_string())
        }
        ProofRefusal::QueueFull { .. } | ProofRefusal::Engine(EngineFault::QueueFull { .. }) => {
            detail(StatusCode::TOO_MANY_REQUESTS, refusal.to_string())
        }
        ProofRefusal::Engine(EngineFault::BadRequest { .. }) => {
            detail(StatusCode::BAD_REQUEST, refusal.to_string())
        }
        ProofRefusal::Engine(
            EngineFault::NoModel
            | EngineFault::Draining
            | EngineFault::ShutDown
            | EngineFault::Cancelled
            | EngineFault::DeviceLost { .. }
            | EngineFault::ServerLost { .. },
        ) => floor.nothing(),
        ProofRefusal::Engine(EngineFault::Load { .. } | EngineFault::Failed { .. })
        | ProofRefusal::Journal(_) => floor.failed(&refusal.to_string()),
    }
}
