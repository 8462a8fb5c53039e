//! The MLNode face: what Gonka's Network Node drives, route by route.
//!
//! Facts of paths, bodies and statuses are those of the network's own node as of 2026 (PoC v2); its Go client sends
//! neither a Content-Type nor, often, a body.

mod downloads;
mod embed;
mod engine;
mod gpu;
mod health;
mod models;
mod order;
mod passage;
mod pow;
mod round;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use roadbed_compute::LogprobsMode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::body::{BodyFault, read_body};
use super::door::WholeBody;
use super::node::{Node, NodeState, OwnNode, UpFault, UpStatus};
use super::openai::logprobs_mode;
use super::reply::{detail, unprocessable};
use crate::inference::Inference;

pub use downloads::ModelHub;

pub(super) use downloads::Downloads;
pub(super) use passage::routes as passing_proof_routes;

/// The version this face claims to be: the contract it was written from.
const CONTRACT_VERSION: &str = "3.0.16";

/// The node behind every handler.
type Behind = State<Arc<Node>>;

/// All management paths but those of proofs; without the metrics page if it is switched off.
pub(super) fn routes(metrics: bool) -> Router<Arc<Node>> {
    let pages = if metrics { health::metrics_routes() } else { Router::new() };
    Router::new()
        .route("/api/v1/state", get(state))
        .route("/api/v1/stop", post(stop))
        .route("/api/v1/inference/up", post(up))
        .route("/api/v1/inference/up/async", post(up_async))
        .route("/api/v1/inference/up/status", get(up_status))
        .route("/api/v1/inference/down", post(stop))
        .merge(gpu::routes())
        .merge(models::routes())
        .merge(embed::routes())
        .merge(health::routes())
        .merge(pages)
}

/// The paths of proofs, of the node and of its engine.
pub(super) fn proof_routes() -> Router<Arc<OwnNode>> {
    pow::routes().merge(engine::routes())
}

async fn state(State(node): Behind) -> Json<Value> {
    let (state, poc_status, healthy, model) = match node.state() {
        NodeState::Stopped => ("STOPPED", Value::Null, Value::Null, Value::Null),
        NodeState::Inference(info) => {
            ("INFERENCE", json!(poc_status(&node).await), json!(true), json!(info.served_as))
        }
        NodeState::Broken { model } => {
            ("INFERENCE", json!("NO_BACKENDS"), json!(false), json!(model))
        }
    };
    Json(json!({
        "state": state,
        "version": CONTRACT_VERSION,
        "poc_status": poc_status,
        "inference_healthy": healthy,
        "loaded_model": model,
    }))
}

/// What the node does of proofs while a model is up.
async fn poc_status(node: &Node) -> String {
    match &node.inference {
        Inference::Own { proof, .. } if proof.is_generating() => "GENERATING".into(),
        Inference::Own { proof, .. } if proof.is_validating() => "VALIDATING".into(),
        Inference::Own { .. } => "IDLE".into(),
        Inference::Upstream(server) => passage::overall(server).await,
    }
}

async fn stop(State(node): Behind) -> Response {
    match node.stop().await {
        Ok(()) => Json(json!({"status": "OK"})).into_response(),
        Err(fault) => detail(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    }
}

/// The part of an `up` request we use.
struct UpRequest {
    model: String,
    context_tokens: Option<usize>,
    logprobs_mode: Option<LogprobsMode>,
}

impl UpRequest {
    /// Brings the model up, in a task of its own: a client that goes away must not leave a model half loaded and nobody
    /// knowing. From the return on the node says that it is starting.
    fn begin(self, node: &Arc<Node>) -> Result<JoinHandle<Result<(), UpFault>>, UpFault> {
        let turn = node.begin_up(&self.model)?;
        if let Some(mode) = self.logprobs_mode {
            node.set_logprobs_mode(mode);
        }
        Ok(tokio::spawn(async move {
            let came = turn.run(&self.model, self.context_tokens).await;
            if let Err(fault) = &came {
                tracing::error!(%fault, model = self.model, "the model did not come up");
            }
            came
        }))
    }
}

fn read_up(body: &[u8]) -> Result<UpRequest, BodyFault> {
    read_body(body, |fields| {
        let model = fields.required("model");
        // Precision is that of the model file; the field must be there all the same.
        let _dtype: Option<String> = fields.required("dtype");
        let args: Vec<String> = fields.list("additional_args").unwrap_or_default();
        let logprobs_mode =
            argument(&args, "--logprobs-mode").and_then(|word| logprobs_mode(&word));
        Some(UpRequest { model: model?, context_tokens: context_tokens(&args), logprobs_mode })
    })
}

/// Engine arguments that mean something here; the others are of another engine and passed over.
const ARGUMENTS: [&str; 2] = ["--max-model-len", "--logprobs-mode"];

/// `--max-model-len N` of the engine arguments.
fn context_tokens(args: &[String]) -> Option<usize> {
    for arg in args {
        let name = arg.split_once('=').map_or(arg.as_str(), |(name, _)| name);
        if name.starts_with("--") && !ARGUMENTS.contains(&name) {
            tracing::warn!(arg, "an engine argument is not used here");
        }
    }
    let value = argument(args, "--max-model-len")?;
    value.parse().ok().filter(|&tokens: &usize| tokens > 0)
}

/// The value of an engine argument, the last if it is given more than once.
fn argument(args: &[String], wanted: &str) -> Option<String> {
    let mut found = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.split_once('=') {
            Some((name, value)) if name == wanted => found = Some(value.to_owned()),
            None if arg == wanted => found = args.next().cloned().or(found),
            Some(_) | None => {}
        }
    }
    found
}

async fn up(State(node): Behind, body: WholeBody) -> Response {
    let request = match read_up(&body) {
        Ok(request) => request,
        Err(fault) => return unprocessable(&fault),
    };
    let task = match request.begin(&node) {
        Ok(task) => task,
        Err(fault) => return up_fault(&fault),
    };
    match task.await {
        Ok(Ok(())) => Json(json!({"status": "OK"})).into_response(),
        Ok(Err(fault)) => up_fault(&fault),
        Err(error) => detail(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn up_async(State(node): Behind, body: WholeBody) -> Response {
    let request = match read_up(&body) {
        Ok(request) => request,
        Err(fault) => return unprocessable(&fault),
    };
    // Whoever wants to know how it ends polls the status.
    match request.begin(&node) {
        Ok(_task) => Json(up_view(&node)).into_response(),
        Err(fault) => up_fault(&fault),
    }
}

async fn up_status(State(node): Behind) -> Json<Value> {
    Json(up_view(&node))
}

fn up_view(node: &Node) -> Value {
    let (status, elapsed) = node.up_status();
    let (word, error) = match status {
        UpStatus::NotStarted => ("not_started", None),
        UpStatus::Starting => ("starting", None),
        UpStatus::Running => ("running", None),
        UpStatus::Failed(reason) => ("failed", Some(reason)),
    };
    json!({
        "status": word, "is_running": word == "running", "is_starting": word == "starting",
        "elapsed_seconds": elapsed.map(|elapsed| elapsed.as_secs_f64()), "error": error,
    })
}

fn up_fault(fault: &UpFault) -> Response {
    let status = match fault {
        UpFault::OtherMode(_) | UpFault::OtherModel { .. } | UpFault::Stopped => {
            StatusCode::CONFLICT
        }
        UpFault::Unknown(_) => StatusCode::BAD_REQUEST,
        UpFault::Engine(_) => StatusCode::INTERNAL_SERVER_ERROR,
        UpFault::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
    };
    detail(status, fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_logprobs_is_read_from_the_engine_arguments() {
        let read = |args: Value| {
            let body = json!({"model": "m", "dtype": "auto", "additional_args": args});
            read_up(body.to_string().as_bytes()).unwrap().logprobs_mode
        };
        let processed = json!(["--logprobs-mode", "processed_logprobs", "--max-model-len", "9"]);
        assert_eq!(read(processed), Some(LogprobsMode::Processed));
        assert_eq!(read(json!(["--logprobs-mode=raw_logprobs"])), Some(LogprobsMode::Raw));
        assert_eq!(read(json!(["--logprobs-mode", "raw_logits"])), None);
        assert_eq!(read(json!([])), None);
    }

    #[test]
    fn the_context_is_read_from_the_engine_arguments() {
        let read = |args: &[&str]| {
            context_tokens(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(read(&["--tensor-parallel-size", "4", "--max-model-len", "512"]), Some(512));
        assert_eq!(read(&["--max-model-len=256"]), Some(256));
        assert_eq!(read(&["--max-model-len"]), None);
        assert_eq!(read(&["--max-model-len", "0"]), None);
        assert_eq!(read(&[]), None);
    }
}
