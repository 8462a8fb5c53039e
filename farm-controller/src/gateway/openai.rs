//! One OpenAI endpoint over several rigs: by model, to the least loaded, once more elsewhere if nothing was sent yet.
//!
//! Read is the model's name, nothing else; bodies and answers pass as they were written. A rig that is down, drains or is
//! full is no reason to turn a customer away while another serves the same model.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use super::door::{READ_WAIT_MAX, whole, with_query};
use super::health::look;
use super::reply::{backend_failed, no_backend, openai_error};
use super::rig::Rig;
use super::wire::{Asked, Wire, WireFault};

/// Rigs asked for one request.
const TRIES_MAX: usize = 2;

/// For a look at a rig of which nothing is known yet.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(10);

/// What is read of a body.
#[derive(Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    model: Option<Value>,
}

/// Answers a request from a pool of rigs; `path` is plain.
pub(super) async fn answer(
    wire: &Wire,
    pool: &[Arc<Rig>],
    path: &str,
    parts: Parts,
    body: Body,
) -> Response {
    if parts.method == Method::GET {
        if pool.iter().all(|rig| rig.models().is_empty()) {
            // Nobody looked yet, or a model came up a moment ago.
            let looks = pool.iter().map(|rig| look(wire, rig, LOOK_WAIT_MAX));
            for unwell in join_all(looks).await.into_iter().filter_map(Result::err) {
                tracing::debug!(unwell, "a rig does not show what it serves");
            }
        }
        return match path.strip_prefix("/v1/models") {
            Some("" | "/") => list(pool),
            Some(id) => one(pool, id.trim_start_matches('/')),
            None => no_path(path),
        };
    }
    let body = match whole(body).await {
        Ok(body) => body,
        Err((status, message)) => return openai_error(status, "invalid_request_error", &message),
    };
    // What is no JSON object is a rig's to refuse.
    let wanted: Wanted = serde_json::from_slice(&body).unwrap_or_default();
    let model = wanted.model.as_ref().and_then(Value::as_str);
    if let Some(model) = model
        && !pool.iter().any(|rig| rig.model == model || rig.serves(model))
    {
        let message = format!("the model `{model}` does not exist here");
        return openai_error(StatusCode::NOT_FOUND, "not_found_error", &message);
    }
    balanced(wire, pool, model, path, &parts, &body).await
}

async fn balanced(
    wire: &Wire,
    pool: &[Arc<Rig>],
    model: Option<&str>,
    path: &str,
    parts: &Parts,
    body: &Bytes,
) -> Response {
    let Ok(path) = with_query(path, parts.uri.query()) else { return no_path(path) };
    let mut headers = parts.headers.clone();
    // It was the customer's key for the gateway.
    headers.remove(header::AUTHORIZATION);
    let mut tried: Vec<&Arc<Rig>> = vec![];
    let mut last = None;
    while tried.len() < TRIES_MAX {
        let Some(rig) = least_loaded(pool, model, &tried) else { break };
        tried.push(rig);
        let asked = Asked {
            method: parts.method.clone(),
            path: path.clone(),
            headers: headers.clone(),
            body: Body::from(body.clone()),
        };
        last = Some(match wire.pass(rig, asked, READ_WAIT_MAX).await {
            Ok(response) if !is_elsewhere(response.status()) => return response,
            Ok(response) => response,
            Err(fault) => {
                tracing::debug!(%fault, "a customer is served by another rig, if there is one");
                match fault {
                    // Nothing was sent, and the rig may be there in a moment.
                    WireFault::Unreached { .. } => no_backend(),
                    WireFault::Broken { .. } | WireFault::Silent { .. } => backend_failed(),
                }
            }
        });
    }
    last.unwrap_or_else(no_backend)
}

/// Answers that another rig may not give.
fn is_elsewhere(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE
    )
}

fn least_loaded<'p>(
    pool: &'p [Arc<Rig>],
    model: Option<&str>,
    tried: &[&Arc<Rig>],
) -> Option<&'p Arc<Rig>> {
    let fresh = || {
        let untried = |rig: &&Arc<Rig>| !tried.iter().any(|other| Arc::ptr_eq(other, rig));
        pool.iter().filter(untried)
    };
    let serves = |rig: &&Arc<Rig>| match model {
        Some(model) => rig.serves(model),
        None => rig.serves_any(),
    };
    // One that serves it a moment from now says so itself.
    let might = |rig: &&Arc<Rig>| rig.may_answer() && model.is_none_or(|model| rig.model == model);
    let load = |rig: &&Arc<Rig>| (rig.open(), rig.used());
    fresh().filter(serves).min_by_key(load).or_else(|| fresh().filter(might).min_by_key(load))
}

/// Every model that some rig serves now, once.
fn list(pool: &[Arc<Rig>]) -> Response {
    let mut models: Vec<Value> = vec![];
    for entry in pool.iter().flat_map(|rig| rig.models()) {
        if !models.iter().any(|known| known["id"] == entry["id"]) {
            models.push(entry);
        }
    }
    if models.is_empty() {
        return no_backend();
    }
    Json(json!({"object": "list", "data": models})).into_response()
}

fn one(pool: &[Arc<Rig>], id: &str) -> Response {
    let mut models = pool.iter().flat_map(|rig| rig.models());
    let slash = id.replace("%2F", "/").replace("%2f", "/");
    match models.find(|entry| entry["id"] == id || entry["id"] == slash.as_str()) {
        Some(entry) => Json(entry).into_response(),
        None => {
            let message = format!("the model `{slash}` does not exist here");
            openai_error(StatusCode::NOT_FOUND, "not_found_error", &message)
        }
    }
}

fn no_path(path: &str) -> Response {
    openai_error(StatusCode::NOT_FOUND, "not_found_error", &format!("no such path: {path}"))
}
