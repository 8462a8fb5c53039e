//! Answers in the two forms clients expect: the MLNode's (FastAPI's) `detail`, and OpenAI's `error`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::body::BodyFault;
use crate::engine::EngineFault;
use crate::engine::upstream::{PassFault, UpstreamFault};

/// What the Network Node expects, to the letter, when nothing answers behind the OpenAI paths.
pub(super) const NO_BACKEND: &str = "No vLLM backend available";

/// An error of the management paths.
pub(super) fn detail(status: StatusCode, detail: impl Into<Value>) -> Response {
    (status, Json(json!({"detail": detail.into()}))).into_response()
}

/// A body the management paths cannot use.
pub(super) fn unprocessable(fault: &BodyFault) -> Response {
    detail(StatusCode::UNPROCESSABLE_ENTITY, fault.details())
}

/// An error of the OpenAI paths.
pub(super) fn openai_error(
    status: StatusCode,
    kind: &str,
    message: &str,
    place: Option<&str>,
) -> Response {
    (status, Json(openai_error_body(status, kind, message, place))).into_response()
}

fn openai_error_body(status: StatusCode, kind: &str, message: &str, place: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": place, "code": status.as_u16()}})
}

/// A body the OpenAI paths cannot use.
pub(super) fn openai_bad_body(fault: &BodyFault) -> Response {
    let (message, place) = match fault {
        BodyFault::Syntax { line, column, message, .. } => {
            (format!("the body is no JSON: line {line}, column {column}: {message}"), None)
        }
        BodyFault::Fields(problems) => problems.first().map_or_else(
            || ("the body cannot be used".to_owned(), None),
            |problem| {
                let place = problem.place_text();
                let before = if place.is_empty() { "body" } else { &place };
                (format!("{before}: {}", problem.message), (!place.is_empty()).then_some(place))
            },
        ),
    };
    openai_error(StatusCode::BAD_REQUEST, "invalid_request_error", &message, place.as_deref())
}

/// Nothing answers behind the OpenAI paths.
pub(super) fn no_backend() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, NO_BACKEND).into_response()
}

/// The error object of an engine fault, for the middle of a stream.
pub(super) fn openai_fault_body(fault: &EngineFault) -> Value {
    let (status, kind) = status_of(fault);
    openai_error_body(status, kind, &fault.to_string(), None)
}

/// An engine fault on the OpenAI paths.
pub(super) fn openai_fault(fault: &EngineFault) -> Response {
    let (status, kind) = status_of(fault);
    match fault {
        EngineFault::NoModel
        | EngineFault::Draining
        | EngineFault::DeviceLost { .. }
        | EngineFault::ServerLost { .. }
        | EngineFault::Cancelled
        | EngineFault::ShutDown => no_backend(),
        EngineFault::QueueFull { retry_seconds, .. } => {
            let mut response = openai_error(status, kind, &fault.to_string(), None);
            let seconds = HeaderValue::from(*retry_seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
            response
        }
        EngineFault::BadRequest { field, .. } => {
            openai_error(status, kind, &fault.to_string(), Some(field))
        }
        EngineFault::Load { .. } | EngineFault::Failed { .. } => {
            openai_error(status, kind, &fault.to_string(), None)
        }
    }
}

/// What kept a request from its answer, where an external server gives it.
pub(super) fn openai_pass_fault(fault: &PassFault) -> Response {
    let fault = match fault {
        PassFault::Engine(fault) => return openai_fault(fault),
        PassFault::Server(fault) => fault,
    };
    let (status, kind) = status_of_server(fault);
    let mut response = openai_error(status, kind, &fault.to_string(), None);
    if let UpstreamFault::Busy { retry_seconds, .. } = fault {
        let seconds = HeaderValue::from(retry_seconds.unwrap_or(1));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// The same for the middle of a stream.
pub(super) fn openai_pass_fault_body(fault: &PassFault) -> Value {
    match fault {
        PassFault::Engine(fault) => openai_fault_body(fault),
        PassFault::Server(fault) => {
            let (status, kind) = status_of_server(fault);
            openai_error_body(status, kind, &fault.to_string(), None)
        }
    }
}

fn status_of_server(fault: &UpstreamFault) -> (StatusCode, &'static str) {
    match fault {
        UpstreamFault::Failed { status: 503, .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error")
        }
        UpstreamFault::Silent { .. } | UpstreamFault::Failed { status: 408 | 504, .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "server_error")
        }
        UpstreamFault::Unreachable { .. }
        | UpstreamFault::BadAnswer { .. }
        | UpstreamFault::Failed { .. }
        | UpstreamFault::KeyRefused { .. } => (StatusCode::BAD_GATEWAY, "server_error"),
        UpstreamFault::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        UpstreamFault::NotRead { .. } => (StatusCode::REQUEST_TIMEOUT, "invalid_request_error"),
    }
}

fn status_of(fault: &EngineFault) -> (StatusCode, &'static str) {
    match fault {
        EngineFault::NoModel
        | EngineFault::Draining
        | EngineFault::DeviceLost { .. }
        | EngineFault::ServerLost { .. }
        | EngineFault::Cancelled
        | EngineFault::ShutDown => (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error"),
        EngineFault::QueueFull { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        EngineFault::BadRequest { .. } => (StatusCode::BAD_REQUEST, "invalid_request_error"),
        EngineFault::Load { .. } | EngineFault::Failed { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "server_error")
        }
    }
}
