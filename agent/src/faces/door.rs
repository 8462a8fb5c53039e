//! The way in: address forms, authentication and bodies, before any route is looked at.
//!
//! A Network Node may put a version before every path (`/v3.0.16/api/v1/state`), joins addresses with double slashes,
//! and sends JSON without a Content-Type; all of it means the same here. Bodies are read whole and bounded, so that no
//! handler has to think about them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use roadbed_protocol::mlnode::{is_open, is_openai, plain_path, shows_bearer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::node::{Node, OwnNode, UpstreamNode};
use super::reply::{detail, openai_error};
use super::{mlnode, openai};
use crate::inference::Inference;

/// Largest management body: the largest validation the proof side queues, 100 000 nonces, is below 10 MB.
const MANAGEMENT_BODY_MAX: usize = 32 << 20;
/// Largest OpenAI body: far more text than any context holds.
const OPENAI_BODY_MAX: usize = 8 << 20;
/// How long a body may take to arrive.
const BODY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Requests answered at once; each may hold a body. A Network Node allows 500 customers per node.
const REQUESTS_MAX: usize = 600;

/// How the faces behave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FacesSettings {
    /// Bearer token that every request but the health probes must carry.
    pub auth_token: Option<String>,
    /// `/metrics` is not there, as `GONKA_METRICS=off` makes it in the network's own nodes.
    pub metrics_off: bool,
}

impl FacesSettings {
    /// With a token or without; the metrics page as the environment says.
    #[must_use]
    pub fn new(auth_token: Option<String>) -> Self {
        let metrics = std::env::var("GONKA_METRICS").unwrap_or_default();
        Self { auth_token, metrics_off: metrics.trim().eq_ignore_ascii_case("off") }
    }
}

struct Door {
    node: Arc<Node>,
    settings: FacesSettings,
    requests: Semaphore,
}

/// Both faces of one rig, ready to be served.
#[derive(Clone)]
pub struct Faces {
    router: Router,
}

impl Faces {
    /// The faces of a node.
    #[must_use]
    pub fn new(node: Arc<Node>, settings: FacesSettings) -> Self {
        let requests = Semaphore::new(REQUESTS_MAX);
        let metrics = !settings.metrics_off;
        let door = Arc::new(Door { node: Arc::clone(&node), settings, requests });
        let answering = match node.inference.clone() {
            Inference::Own { engine, proof } => Router::new()
                .merge(openai::routes())
                .merge(mlnode::proof_routes())
                .with_state(Arc::new(OwnNode::new(Arc::clone(&node), engine, proof))),
            Inference::Upstream(server) => Router::new()
                .merge(openai::passing_routes())
                .merge(mlnode::passing_proof_routes())
                .with_state(Arc::new(UpstreamNode::new(Arc::clone(&node), server))),
        };
        let routes = Router::new()
            .merge(mlnode::routes(metrics))
            .with_state(node)
            .merge(answering)
            .fallback(not_found)
            .method_not_allowed_fallback(not_allowed);
        // The routes are a fallback, so that the layer sees, and may rewrite, the address before they do.
        let router = Router::new().fallback_service(routes).layer(from_fn_with_state(door, pass));
        Self { router }
    }
}

/// Serves until told to stop; requests under way are finished.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: TcpListener, faces: Faces, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, faces.router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

async fn not_found(uri: Uri) -> Response {
    if is_openai(uri.path()) {
        let message = format!("no such path: {}", uri.path());
        return openai_error(StatusCode::NOT_FOUND, "not_found_error", &message, None);
    }
    detail(StatusCode::NOT_FOUND, "Not Found")
}

async fn not_allowed(uri: Uri) -> Response {
    if is_openai(uri.path()) {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return openai_error(status, "invalid_request_error", "Method Not Allowed", None);
    }
    detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

async fn pass(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    if let Some(uri) = plain_uri(request.uri()) {
        *request.uri_mut() = uri;
    }
    let asked = Instant::now();
    let uri = request.uri().clone();
    let response = admit(&door, request, next).await;
    door.node.metrics.answered(uri.path(), response.status().as_u16(), asked.elapsed());
    response
}

async fn admit(door: &Door, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let openai = is_openai(path);
    let refuse = |status: StatusCode, kind: &str, message: &str| {
        if openai { openai_error(status, kind, message, None) } else { detail(status, message) }
    };
    if !is_open(parts.method.as_str(), path) && !is_known(&door.settings, &parts.headers) {
        return refuse(StatusCode::UNAUTHORIZED, "authentication_error", "Unauthorized");
    }
    let Ok(_place) = door.requests.try_acquire() else {
        let mut response =
            refuse(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "Too many requests at once");
        response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        return response;
    };
    let most = if openai { OPENAI_BODY_MAX } else { MANAGEMENT_BODY_MAX };
    let body = match tokio::time::timeout(BODY_WAIT_MAX, to_bytes(body, most)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_too_large_or_broken)) => {
            let message = format!("the body is broken or larger than {most} bytes");
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", &message);
        }
        Err(_elapsed) => {
            let message = "the body did not arrive in time";
            return refuse(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message);
        }
    };
    next.run(Request::from_parts(parts, Body::from(body))).await
}

fn is_known(settings: &FacesSettings, headers: &HeaderMap) -> bool {
    let Some(token) = &settings.auth_token else { return true };
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    shows_bearer(given, token.as_bytes())
}

/// The address without a leading version and without empty steps; `None` if it is plain already.
fn plain_uri(uri: &Uri) -> Option<Uri> {
    let path = plain_path(uri.path());
    if path == uri.path() {
        return None;
    }
    let text = uri.query().map_or(path.clone(), |query| format!("{path}?{query}"));
    text.parse().ok()
}

/// The body as the door left it.
pub(super) type WholeBody = Bytes;

/// An empty answer with a status.
pub(super) fn empty(status: StatusCode) -> Response {
    status.into_response()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_must_be_equal() {
        let settings = FacesSettings { auth_token: Some("secret".into()), metrics_off: false };
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            is_known(&settings, &headers)
        };
        assert!(known("Bearer secret"));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer ", "secret", "Bearer Secret"] {
            assert!(!known(wrong), "{wrong}");
        }
        assert!(!is_known(&settings, &HeaderMap::new()));
        assert!(is_known(&FacesSettings::default(), &HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn making_plain_never_panics(path in "/[!-~]{0,40}") {
            let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
            if let Some(plain) = plain_uri(&uri) {
                prop_assert!(plain.path().starts_with('/'));
            }
        }
    }
}
