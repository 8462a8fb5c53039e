//! What GPUs this machine has, under honest names.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::super::node::Node;
use super::super::reply::detail;
use super::Behind;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/api/v1/gpu/devices", get(devices))
        .route("/api/v1/gpu/driver", get(driver))
}

/// One entry per adapter; what nobody tells of it is null.
pub(super) async fn device_list(node: &Arc<Node>) -> Vec<Value> {
    let asked = Arc::clone(node);
    let facts = tokio::task::spawn_blocking(move || asked.boards.facts(&asked.devices)).await;
    let facts = facts.unwrap_or_default();
    let entry = |(index, adapter): (usize, &roadbed_compute::AdapterSummary)| {
        let facts = facts.get(index).cloned().unwrap_or_default();
        json!({
            "index": index, "name": adapter.name, "total_memory_mb": facts.total_mib,
            "free_memory_mb": facts.free_mib(), "used_memory_mb": facts.used_mib,
            "utilization_percent": facts.utilization_percent,
            "temperature_c": facts.temperature_c, "is_available": true, "error_message": null,
        })
    };
    node.devices.iter().enumerate().map(entry).collect()
}

async fn devices(State(node): Behind) -> Json<Value> {
    let devices = device_list(&node).await;
    Json(json!({"count": devices.len(), "devices": devices}))
}

async fn driver(State(node): Behind) -> Response {
    let asked = Arc::clone(&node);
    let of_nvml = tokio::task::spawn_blocking(move || asked.boards.driver()).await.ok().flatten();
    match (of_nvml, node.devices.first()) {
        (Some(facts), Some(_)) => Json(json!({
            "driver_version": facts.driver, "cuda_driver_version": facts.cuda,
            "nvml_version": facts.nvml,
        }))
        .into_response(),
        (None, Some(adapter)) => Json(json!({
            "driver_version": adapter.driver, "cuda_driver_version": "", "nvml_version": "",
        }))
        .into_response(),
        (_, None) => {
            detail(StatusCode::SERVICE_UNAVAILABLE, "GPU driver information is not available")
        }
    }
}
