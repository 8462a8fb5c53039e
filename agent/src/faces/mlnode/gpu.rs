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

/// One entry per adapter. Memory, load and heat come from another place than the graphics API and are unknown here.
pub(super) fn device_list(node: &Node) -> Vec<Value> {
    node.devices
        .iter()
        .enumerate()
        .map(|(index, adapter)| {
            json!({
                "index": index, "name": adapter.name,
                "total_memory_mb": null, "free_memory_mb": null, "used_memory_mb": null,
                "utilization_percent": null, "temperature_c": null,
                "is_available": true, "error_message": null,
            })
        })
        .collect()
}

async fn devices(State(node): Behind) -> Json<Value> {
    let devices = device_list(&node);
    Json(json!({"count": devices.len(), "devices": devices}))
}

async fn driver(State(node): Behind) -> Response {
    match node.devices.first() {
        Some(adapter) => Json(json!({
            "driver_version": adapter.driver, "cuda_driver_version": "", "nvml_version": "",
        }))
        .into_response(),
        None => detail(StatusCode::SERVICE_UNAVAILABLE, "GPU driver information is not available"),
    }
}
