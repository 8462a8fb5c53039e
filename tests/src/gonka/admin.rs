//! The admin API: nodes registered, changed, listed, taken out, enabled and disabled (`/admin/v1/nodes…`).
//!
//! Bodies come without a Content-Type as often as with one, and both are read. Errors are `{"error": "…"}`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use serde_json::{Value, json};

use super::registry::NodeConfig;
use super::world::{Shared, World, lock};

/// The routes.
pub(super) fn router(world: Shared) -> Router {
    Router::new()
        .route("/admin/v1/nodes", get(list).post(register))
        .route("/admin/v1/nodes/batch", post(register_all))
        .route("/admin/v1/nodes/{id}", put(replace).delete(remove))
        .route("/admin/v1/nodes/{id}/enable", post(enable))
        .route("/admin/v1/nodes/{id}/disable", post(disable))
        .route("/admin/v1/claim-reward/recover", post(recover))
        .with_state(world)
}

async fn list(State(world): State<Shared>) -> Response {
    let world = lock(&world);
    let book = world.books.get(&world.chain.effective_epoch());
    let nodes: Vec<Value> = world
        .registry
        .iter()
        .map(|node| {
            let model = world.config.model_for(&node.config).map(|model| model.id.as_str());
            let nonces = book.and_then(|book| book.node_nonces.get(&node.config.id)).copied();
            node.document(nonces.and(model), nonces.unwrap_or(0))
        })
        .collect();
    Json(nodes).into_response()
}

/// Puts a node in; what the original answers.
fn put_in(world: &mut World, config: NodeConfig) -> Result<Value, String> {
    let (approved, epoch) = (world.config.approved(), world.chain.stages().epoch_index);
    let put = world.registry.upsert(config, &approved, epoch);
    let node = put.map_err(|faults| format!("validation failed: {}", faults.join("; ")))?;
    serde_json::to_value(&node.config).map_err(|error| error.to_string())
}

async fn register(State(world): State<Shared>, body: Bytes) -> Response {
    let config: NodeConfig = match serde_json::from_slice(&body) {
        Ok(config) => config,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match put_in(&mut lock(&world), config) {
        Ok(node) => Json(node).into_response(),
        Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
    }
}

async fn register_all(State(world): State<Shared>, body: Bytes) -> Response {
    let configs: Vec<NodeConfig> = match serde_json::from_slice(&body) {
        Ok(configs) => configs,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let mut world = lock(&world);
    let (mut nodes, mut errors) = (Vec::new(), Vec::new());
    for config in configs {
        let id = config.id.clone();
        match put_in(&mut world, config) {
            Ok(node) => nodes.push(node),
            Err(why) => errors.push(format!("{id}: {why}")),
        }
    }
    if errors.is_empty() {
        (StatusCode::CREATED, Json(nodes)).into_response()
    } else if nodes.is_empty() {
        let body = json!({ "error": "Failed to register any nodes", "errors": errors });
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    } else {
        let body = json!({ "nodes": nodes, "errors": errors });
        (StatusCode::PARTIAL_CONTENT, Json(body)).into_response()
    }
}

async fn replace(State(world): State<Shared>, Path(id): Path<String>, body: Bytes) -> Response {
    let mut config: NodeConfig = match serde_json::from_slice(&body) {
        Ok(config) => config,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if config.id.is_empty() {
        config.id.clone_from(&id);
    }
    if config.id != id {
        return refusal(StatusCode::BAD_REQUEST, "node id in path and body differ");
    }
    match put_in(&mut lock(&world), config) {
        Ok(node) => Json(node).into_response(),
        Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
    }
}

async fn remove(State(world): State<Shared>, Path(id): Path<String>) -> Json<bool> {
    Json(lock(&world).registry.remove(&id))
}

async fn enable(State(world): State<Shared>, Path(id): Path<String>) -> Response {
    switch(&world, &id, true)
}

async fn disable(State(world): State<Shared>, Path(id): Path<String>) -> Response {
    switch(&world, &id, false)
}

fn switch(world: &Shared, id: &str, enabled: bool) -> Response {
    let mut world = lock(world);
    let epoch = world.chain.stages().epoch_index;
    if !world.registry.enable(id, enabled, epoch) {
        return refusal(StatusCode::NOT_FOUND, &format!("node not found: {id}"));
    }
    let word = if enabled { "enabled" } else { "disabled" };
    let message = format!("node {word} successfully");
    Json(json!({ "message": message, "node_id": id })).into_response()
}

async fn recover(State(world): State<Shared>, body: Bytes) -> Response {
    let order: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut world = lock(&world);
    let epoch = order["epoch_index"].as_u64().unwrap_or(world.chain.stages().epoch_index - 1);
    let height = world.chain.height;
    let claimed = world.books.get_mut(&epoch).is_some_and(|book| {
        book.claimed_at.get_or_insert(height);
        true
    });
    Json(json!({ "success": claimed, "epoch_index": epoch })).into_response()
}

fn refusal(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}
