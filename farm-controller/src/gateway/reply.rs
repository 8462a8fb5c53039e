//! Answers of the gateway itself: FastAPI's `detail`, OpenAI's `error`, and the two plain texts a Network Node expects.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::wire::WireFault;

/// Nothing answers behind the OpenAI paths; the words of the network's own proxy.
const NO_BACKEND: &str = "No vLLM backend available";
/// What answered a moment ago does not; likewise.
const BACKEND_FAILED: &str = "vLLM connection failed";
/// When a customer may come again: rigs are looked at every 2 s.
const RETRY_SECONDS: u32 = 2;

/// An answer of the management paths that is no success.
pub(super) fn detail(status: StatusCode, detail: impl Into<Value>) -> Response {
    (status, Json(json!({"detail": detail.into()}))).into_response()
}

/// An answer of the OpenAI paths that is no success.
pub(super) fn openai_error(status: StatusCode, kind: &str, message: &str) -> Response {
    let error = json!({"message": message, "type": kind, "param": null, "code": status.as_u16()});
    (status, Json(json!({"error": error}))).into_response()
}

/// No rig is there to answer.
pub(super) fn no_backend() -> Response {
    retry_later((StatusCode::SERVICE_UNAVAILABLE, NO_BACKEND).into_response())
}

/// A rig was there and did not answer.
pub(super) fn backend_failed() -> Response {
    (StatusCode::BAD_GATEWAY, BACKEND_FAILED).into_response()
}

/// What a client is told who is not known here.
pub(super) fn unauthorized(openai: bool) -> Response {
    let mut response = if openai {
        openai_error(StatusCode::UNAUTHORIZED, "authentication_error", "Unauthorized")
    } else {
        detail(StatusCode::UNAUTHORIZED, "Unauthorized")
    };
    let challenge = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// What a client is told when the gateway holds as many requests as it may.
pub(super) fn too_many(openai: bool) -> Response {
    let message = "Too many requests at once";
    let status = StatusCode::TOO_MANY_REQUESTS;
    retry_later(if openai {
        openai_error(status, "rate_limit_error", message)
    } else {
        detail(status, message)
    })
}

/// A rig that gave no answer, as the client of its own paths is told; `known_down` by the watch.
pub(super) fn unanswered(fault: &WireFault, openai: bool, known_down: bool) -> Response {
    match (openai, fault) {
        (true, WireFault::Unreached { .. }) if known_down => no_backend(),
        (true, _) => backend_failed(),
        (false, WireFault::Silent { .. }) => detail(StatusCode::GATEWAY_TIMEOUT, fault.to_string()),
        (false, WireFault::Unreached { .. }) if known_down => {
            retry_later(detail(StatusCode::SERVICE_UNAVAILABLE, fault.to_string()))
        }
        (false, _) => detail(StatusCode::BAD_GATEWAY, fault.to_string()),
    }
}

fn retry_later(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_SECONDS.into());
    response
}
