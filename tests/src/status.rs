//! The stand-ins' status server: what they counted and judged, and the switch for the miners' faults.
//!
//! `GET /status` one JSON document; `GET /healthz`; `POST /asics/{id}/fault {"fault": "slow" | … | null}`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::asic::fault::Fault;
use crate::standins::Parts;

/// Serves the status until `stop`.
pub async fn serve(listener: TcpListener, parts: Arc<Parts>, stop: CancellationToken) {
    let router = Router::new()
        .route("/status", get(status))
        .route("/healthz", get(|| async { Json(json!({ "ok": true })) }))
        .route("/asics/{id}/fault", post(set_fault))
        .with_state(parts);
    if let Err(error) = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
    {
        tracing::warn!(%error, "the status server ended");
    }
}

async fn status(State(parts): State<Arc<Parts>>) -> Json<Value> {
    Json(document(&parts))
}

/// The status document; a part that does not run is null.
#[must_use]
pub fn document(parts: &Parts) -> Value {
    json!({
        "pool": parts.pool.as_ref().map(|pool| pool.status()),
        "templates": parts.templates.as_ref().map(|templates| templates.status()),
        "network_node": parts.network_node.as_ref().map(|node| node.status()),
        "gonka": parts.gonka.as_ref().map(|node| json!({
            "public_url": node.public_url(), "admin_url": node.admin_url(),
            "callback_url": node.callback_url(), "status": node.status(),
        })),
        "customer": parts.customer.as_ref().map(|customer| customer.status()),
        "asics": parts.asics.iter().map(|asic| asic.miner.status()).collect::<Vec<_>>(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    fault: Option<Fault>,
}

async fn set_fault(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let Some(asic) = parts.asics.iter().find(|asic| asic.miner.id() == id) else {
        return refusal(StatusCode::NOT_FOUND, format!("no miner {id}"));
    };
    let order: FaultOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return refusal(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
    };
    match asic.miner.set_fault(order.fault) {
        Ok(()) => Json(asic.miner.status()).into_response(),
        Err(error) => refusal(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
    }
}

fn refusal(status: StatusCode, reason: String) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}
