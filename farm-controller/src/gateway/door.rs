//! The way in: which face, who may, and how much at once.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use roadbed_protocol::mlnode::{is_open, is_openai, plain_path};
use serde_json::json;

use super::Shared;
use super::address::{Base, Target, target};
use super::reply::{detail, too_many, unanswered, unauthorized};
use super::rig::{Health, Rig};
use super::wire::Asked;
use super::{metrics, openai};

/// How long a Network Node waits for any management call.
pub(super) const CALL_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// How long the network's own proxy waits for the next piece of an answer.
pub(super) const READ_WAIT_MAX: Duration = Duration::from_secs(900);
/// Largest body that is read whole, as at a rig: the largest validation, 100 000 nonces, is below 10 MB.
const BODY_BYTES_MAX: usize = 32 << 20;
/// How long such a body may take to arrive.
const BODY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Answers any request.
pub(super) async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let uri = parts.uri.clone();
    let base = shared.base();
    let target = target(uri.path(), base);
    let openai = match &target {
        Target::Rig { path, .. } => is_openai(&plain_path(path)),
        Target::FanOut { path } => is_openai(path),
        Target::OpenAi { .. } => true,
        Target::Own { .. } => false,
    };
    if !may_enter(&shared, &target, &parts) {
        return unauthorized(openai);
    }
    let Ok(_place) = shared.places.try_acquire() else { return too_many(openai) };
    match target {
        Target::Rig { id, path } => match shared.rig(id) {
            Some(rig) => pass_to(&shared, rig, &path, parts, body, openai).await,
            None => detail(StatusCode::NOT_FOUND, format!("no rig \"{id}\" behind this gateway")),
        },
        Target::FanOut { path } => match &shared.fan_out {
            Some(fan_out) => fan_out.answer(&path, parts, body).await,
            None => detail(StatusCode::NOT_FOUND, "Not Found"),
        },
        Target::OpenAi { path } => {
            openai::answer(&shared.wire, &shared.rigs, &path, parts, body).await
        }
        Target::Own { path } => own(&shared, &parts.method, &path),
    }
}

fn may_enter(shared: &Shared, target: &Target<'_>, parts: &Parts) -> bool {
    let (method, headers) = (&parts.method, &parts.headers);
    match target {
        Target::Rig { id, path } => match shared.rig(id) {
            Some(rig) => {
                is_open(method.as_str(), &plain_path(path))
                    || shared.locks.opens_rig(&rig.id, headers)
            }
            // Which rigs there are is told to who may use them.
            None => shared.locks.opens_fan_out(headers),
        },
        Target::FanOut { path } => {
            is_open(method.as_str(), path) || shared.locks.opens_fan_out(headers)
        }
        Target::OpenAi { path } => match shared.base() {
            Base::Root if is_open(method.as_str(), path) => true,
            Base::Root | Base::Absent | Base::Step(_) => shared.locks.opens_openai(headers),
        },
        Target::Own { path } => {
            is_open(method.as_str(), path) || shared.locks.opens_fan_out(headers)
        }
    }
}

/// Passes a request to a rig as it came.
async fn pass_to(
    shared: &Shared,
    rig: &Arc<Rig>,
    path: &str,
    parts: Parts,
    body: Body,
    openai: bool,
) -> Response {
    let Ok(path) = with_query(path, parts.uri.query()) else {
        return detail(StatusCode::BAD_REQUEST, "the address cannot be passed on");
    };
    let mut headers = parts.headers;
    if shared.locks.guards_rig(&rig.id) {
        // It was meant for the gateway. Without a lock here it is between the client and the rig.
        headers.remove(header::AUTHORIZATION);
    }
    let asked = Asked { method: parts.method, path, headers, body };
    let wait = if openai { READ_WAIT_MAX } else { CALL_WAIT_MAX };
    match shared.wire.pass(rig, asked, wait).await {
        Ok(response) => response,
        Err(fault) => {
            tracing::debug!(%fault, "a request was not answered");
            unanswered(&fault, openai, rig.health() == Health::Down)
        }
    }
}

/// A path with its query, neither changed.
pub(super) fn with_query(
    path: &str,
    query: Option<&str>,
) -> Result<PathAndQuery, axum::http::uri::InvalidUri> {
    match query {
        Some(query) => format!("{path}?{query}").parse(),
        None => path.parse(),
    }
}

/// A body that is looked at before it goes on, or why it cannot be.
pub(super) async fn whole(body: Body) -> Result<Bytes, (StatusCode, String)> {
    match tokio::time::timeout(BODY_WAIT_MAX, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_too_large_or_broken)) => {
            let message = format!("the body is broken or larger than {BODY_BYTES_MAX} bytes");
            Err((StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Err(_elapsed) => {
            Err((StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".to_owned()))
        }
    }
}

/// The gateway's own pages.
fn own(shared: &Shared, method: &Method, path: &str) -> Response {
    let rigs = shared.rigs.iter();
    let up = rigs.filter(|rig| rig.health() == Health::Up).count();
    match (path, method) {
        ("/health" | "/livez" | "/readyz", &Method::GET) => {
            // The gateway itself is well whenever it answers.
            Json(json!({"status": "healthy", "rigs": shared.rigs.len(), "rigs_up": up}))
                .into_response()
        }
        ("/metrics", &Method::GET) => metrics::page(&shared.rigs, ""),
        ("/health" | "/livez" | "/readyz" | "/metrics", _) => {
            detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        }
        _ => detail(StatusCode::NOT_FOUND, "Not Found"),
    }
}
