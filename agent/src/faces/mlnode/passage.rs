//! The PoC v2 routes of a rig whose engine is an external server.
//!
//! An official MLNode takes them as they come. A single engine of one (vLLM with the network's plugin) takes them one
//! floor below, where the MLNode's front adds the engine's share of the nonces and puts the answers of all engines
//! together; this face does that for its one engine. Any other server proves nothing, and is not made to: an artifact
//! of anything but the model itself would be fraud.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use roadbed_compute::poc::NonceShare;
use serde_json::{Value, json};

use super::super::body::{BodyFault, read_body};
use super::super::door::WholeBody;
use super::super::node::UpstreamNode;
use super::super::path_end::PathEnd;
use super::super::reply::{detail, unprocessable};
use super::order::Floor;
use super::pow::BACKEND;
use super::round::read_share;
use crate::engine::EngineFault;
use crate::engine::upstream::{
    PassFault, ProofPaths, UpstreamFault, UpstreamService, set_inner, set_member,
};

type Behind = State<Arc<UpstreamNode>>;

pub(in super::super) fn routes() -> Router<Arc<UpstreamNode>> {
    Router::new()
        .route("/api/v1/inference/pow/init/generate", post(init))
        .route("/api/v1/inference/pow/generate", post(generate))
        .route("/api/v1/inference/pow/generate/{id}", get(job))
        .route("/api/v1/inference/pow/status", get(status))
        .route("/api/v1/inference/pow/stop", post(stop))
        .route("/api/v1/pow/init/generate", post(engine_init))
        .route("/api/v1/pow/generate", post(engine_generate))
        .route("/api/v1/pow/generate/{id}", get(engine_job))
        .route("/api/v1/pow/status", get(engine_status))
        .route("/api/v1/pow/stop", post(engine_stop))
}

/// What the server does of proofs, for `state`; the reference's word for a node that cannot prove is `NO_BACKENDS`.
pub(super) async fn overall(server: &UpstreamService) -> String {
    match server_status(server).await {
        Ok(view) => view["status"].as_str().unwrap_or("NO_BACKENDS").to_owned(),
        Err(_) => "NO_BACKENDS".to_owned(),
    }
}

/// The server's status in the form of an MLNode's front.
async fn server_status(server: &UpstreamService) -> Result<Value, PassFault> {
    if server.proofs() == ProofPaths::Absent {
        return Ok(json!({"status": "NO_BACKENDS", "backends": []}));
    }
    let (code, body) = server.pass_proof(Method::GET, "status", None).await?;
    let view: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !code.is_success() || !view["status"].is_string() {
        let reason = format!("its proof status is {code} {view}");
        return Err(UpstreamFault::BadAnswer { reason }.into());
    }
    if view["backends"].is_array() {
        return Ok(view);
    }
    let backend = json!({
        "port": BACKEND, "status": view["status"], "config": view["config"], "stats": view["stats"],
    });
    Ok(json!({"status": view["status"], "backends": [backend]}))
}

fn unsupported(server: &UpstreamService) -> Response {
    let message = format!(
        "the server at {} offers no Proof of Compute: attach an official MLNode, or use this rig's own engine (`kind: wgpu`)",
        server.url()
    );
    detail(StatusCode::NOT_IMPLEMENTED, message)
}

/// The order as the server takes it, or why it is not passed on.
fn order(node: &UpstreamNode, body: &[u8]) -> Result<(Bytes, NonceShare), Box<Response>> {
    let (model, share) = read_order(body).map_err(|fault| Box::new(unprocessable(&fault)))?;
    let (Some(info), Some(server_model)) = (node.model(), node.server.server_model()) else {
        return Err(Box::new(Floor::Node.nothing()));
    };
    let paths = node.server.proofs();
    if paths == ProofPaths::Absent {
        return Err(Box::new(unsupported(&node.server)));
    }
    if model != info.served_as {
        let mismatch = json!({
            "error": "params mismatch",
            "requested": {"model": model}, "deployed": {"model": info.served_as},
        });
        return Err(Box::new(detail(StatusCode::CONFLICT, mismatch)));
    }
    let name = Value::from(server_model).to_string();
    let mut body = set_inner(body, "params", "model", &name);
    match paths {
        // It numbers its own engines and would walk the nonces of other groups too.
        ProofPaths::MlNode if share.n_groups > 1 => return Err(Box::new(no_group())),
        ProofPaths::MlNode | ProofPaths::Absent => {}
        ProofPaths::Engine => {
            // The only engine of its front, unless a front end above this one says otherwise.
            body = set_member(&body, "group_id", &share.group_id.to_string());
            body = set_member(&body, "n_groups", &share.n_groups.to_string());
        }
    }
    Ok((Bytes::from(body), share))
}

fn no_group() -> Response {
    let message = "an official MLNode shares its nonces out by itself and cannot be one group of several: register this rig as a node of its own";
    detail(StatusCode::NOT_IMPLEMENTED, message)
}

/// The model, and which nonces of the node are meant.
fn read_order(body: &[u8]) -> Result<(String, NonceShare), BodyFault> {
    read_body(body, |fields| {
        let share = read_share(fields);
        let Some(params) = fields.object("params") else {
            if fields.value("params").is_none() {
                fields.complain("params", "missing", "Field required");
            }
            return None;
        };
        let model = params.required("model");
        Some((model?, share?))
    })
}

async fn init(State(node): Behind, body: WholeBody) -> Response {
    let (body, share) = match order(&node, &body) {
        Ok(order) => order,
        Err(refusal) => return *refusal,
    };
    match node.server.pass_proof(Method::POST, "init/generate", Some(body)).await {
        Ok((status, _)) if status.is_success() && is_engine(&node) => axum::Json(json!({
            "status": "OK", "backends": 1, "n_groups": share.n_groups,
            "results": [{"port": BACKEND, "status": "OK"}], "errors": null,
        }))
        .into_response(),
        answer => passed(answer),
    }
}

async fn generate(State(node): Behind, body: WholeBody) -> Response {
    let (body, _share) = match order(&node, &body) {
        Ok(order) => order,
        Err(refusal) => return *refusal,
    };
    let answer = node.server.pass_proof(Method::POST, "generate", Some(body)).await;
    passed(answer.map(|(status, body)| (status, labelled(&node, body))))
}

async fn job(State(node): Behind, PathEnd(id): PathEnd) -> Response {
    if node.server.proofs() == ProofPaths::Absent {
        return detail(StatusCode::NOT_FOUND, format!("request {id} is not known"));
    }
    let Some((_label, uuid)) = id.split_once(':') else {
        return detail(StatusCode::BAD_REQUEST, "request_id should be <port>:<uuid>");
    };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:".contains(&b));
    if !plain(&id) {
        return detail(StatusCode::NOT_FOUND, "no such request");
    }
    let wanted = if is_engine(&node) { uuid } else { &id };
    let answer = node.server.pass_proof(Method::GET, &format!("generate/{wanted}"), None).await;
    passed(answer.map(|(status, body)| (status, labelled(&node, body))))
}

async fn status(State(node): Behind) -> Response {
    if node.model().is_none() {
        return axum::Json(json!({"status": "NO_BACKENDS", "backends": []})).into_response();
    }
    match server_status(&node.server).await {
        Ok(view) => axum::Json(view).into_response(),
        Err(fault) => passed(Err(fault)),
    }
}

async fn stop(State(node): Behind) -> Response {
    if node.model().is_none() || node.server.proofs() == ProofPaths::Absent {
        let message = json!({"status": "OK", "message": "No backends to stop"});
        return axum::Json(message).into_response();
    }
    let body = Some(Bytes::from_static(b"{}"));
    match node.server.pass_proof(Method::POST, "stop", body).await {
        Ok((status, _)) if status.is_success() && is_engine(&node) => {
            let results = json!([{"port": BACKEND, "status": "stopped"}]);
            axum::Json(json!({"status": "OK", "results": results, "errors": null})).into_response()
        }
        answer => passed(answer),
    }
}

async fn engine_init(State(node): Behind, body: WholeBody) -> Response {
    engine_order(&node, &body, "init/generate").await
}

async fn engine_generate(State(node): Behind, body: WholeBody) -> Response {
    engine_order(&node, &body, "generate").await
}

async fn engine_order(node: &UpstreamNode, body: &[u8], step: &str) -> Response {
    match order(node, body) {
        Ok((body, _share)) if is_engine(node) => {
            passed(node.server.pass_proof(Method::POST, step, Some(body)).await)
        }
        Ok(_) => no_group(),
        Err(refusal) => *refusal,
    }
}

async fn engine_job(State(node): Behind, PathEnd(id): PathEnd) -> Response {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if !plain || !is_engine(&node) {
        return detail(StatusCode::NOT_FOUND, format!("Request {id} not found"));
    }
    passed(node.server.pass_proof(Method::GET, &format!("generate/{id}"), None).await)
}

async fn engine_status(State(node): Behind) -> Response {
    if !is_engine(&node) {
        return no_group();
    }
    passed(node.server.pass_proof(Method::GET, "status", None).await)
}

async fn engine_stop(State(node): Behind) -> Response {
    if !is_engine(&node) {
        return no_group();
    }
    let body = Some(Bytes::from_static(b"{}"));
    passed(node.server.pass_proof(Method::POST, "stop", body).await)
}

fn is_engine(node: &UpstreamNode) -> bool {
    node.server.proofs() == ProofPaths::Engine
}

/// An engine's id of a job, under the label a front gives it.
fn labelled(node: &UpstreamNode, body: Vec<u8>) -> Vec<u8> {
    let view: Value = serde_json::from_slice(&body).unwrap_or_default();
    match view["request_id"].as_str() {
        Some(id) if is_engine(node) && !id.contains(':') => {
            let id = Value::from(format!("{BACKEND}:{id}")).to_string();
            set_member(&body, "request_id", &id)
        }
        Some(_) | None => body,
    }
}

/// The server's own answer, or that there is none.
fn passed(answer: Result<(StatusCode, Vec<u8>), PassFault>) -> Response {
    match answer {
        Ok((status, body)) => {
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(PassFault::Engine(EngineFault::NoModel)) => Floor::Node.nothing(),
        Err(fault) => detail(
            StatusCode::BAD_GATEWAY,
            json!({"errors": [{"port": BACKEND, "error": fault.to_string()}]}),
        ),
    }
}
