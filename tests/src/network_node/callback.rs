//! The Network Node's side of the callbacks: `/v2/poc-batches/{model}/generated` and `…/validated`.
//!
//! The model id in the address is percent-encoded *twice*, as the original does it. A client that decodes or tidies the
//! address it was given ends up somewhere else, and that is a breach worth naming.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;

/// The desk, shared by the driver and the callbacks.
pub type SharedDesk = Arc<Mutex<Desk>>;

#[derive(Clone)]
struct Counter {
    desk: SharedDesk,
    segment: Arc<str>,
}

/// Serves callbacks until `stop`.
pub async fn serve(listener: TcpListener, desk: SharedDesk, model: &str, stop: CancellationToken) {
    let router = Router::new()
        .fallback(take)
        .with_state(Counter { desk, segment: encoded_twice(model).into() });
    if let Err(error) = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
    {
        tracing::warn!(%error, "the callback server ended");
    }
}

async fn take(State(counter): State<Counter>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut desk = counter.desk.lock().unwrap_or_else(PoisonError::into_inner);
    let parts: Vec<&str> = uri.path().split('/').collect();
    let ["", "v2", "poc-batches", segment, kind] = parts[..] else {
        desk.complain(format!("a callback to {method} {}", uri.path()));
        return StatusCode::NOT_FOUND.into_response();
    };
    if segment != &*counter.segment {
        desk.complain(format!("the callback address was altered: {segment}"));
        return (StatusCode::BAD_REQUEST, "bad model id").into_response();
    }
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let taken = match kind {
        "generated" => desk.take_artifacts(&body),
        "validated" => desk.take_verdict(&body),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    match taken {
        // An empty body, as the original.
        Ok(()) => StatusCode::OK.into_response(),
        Err((status, why)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, why).into_response()
        }
    }
}

/// A model id as it stands in the callback address: percent-encoded, and the percent signs encoded again.
#[must_use]
pub fn encoded_twice(model: &str) -> String {
    encoded(&encoded(model))
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_ids_are_encoded_twice() {
        assert_eq!(encoded_twice("MiniMaxAI/MiniMax-M2.7"), "MiniMaxAI%252FMiniMax-M2.7");
    }
}
