//! Requests to rigs: a connection each, which closes when whoever asked lets go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{Method, Request, StatusCode, Uri, Version};
use axum::response::Response;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::passage::Passage;
use super::rig::{Rig, Visit};

/// A rig stands in the same network: it takes a connection at once, or is not there.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest answer that is read whole: artifacts of 100 000 nonces are below 10 MB.
const REPLY_BYTES_MAX: usize = 32 << 20;
/// Headers that concern one connection only (RFC 9110, section 7.6.1), and `Expect`, which the server here has met.
const HOP_HEADERS: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// Why a rig gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireFault {
    /// It takes no connection.
    #[error("rig {rig} cannot be reached: {reason}")]
    Unreached {
        /// The rig.
        rig: String,
        /// What the system says.
        reason: String,
    },
    /// The connection ended before the answer was there.
    #[error("rig {rig} hung up before its answer: {reason}")]
    Broken {
        /// The rig.
        rig: String,
        /// What happened.
        reason: String,
    },
    /// No answer in time.
    #[error("rig {rig} gave no answer within {} s", waited.as_secs())]
    Silent {
        /// The rig.
        rig: String,
        /// How long was waited.
        waited: Duration,
    },
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// The body as JSON, null when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The same answer to somebody else.
    pub(super) fn relayed(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
            if let Some(value) = self.headers.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }
}

/// What is asked of a rig.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// How rigs are asked.
#[derive(Clone)]
pub(super) struct Wire {
    client: Client<HttpConnector, Body>,
}

impl Wire {
    pub(super) fn new() -> Self {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT_WAIT_MAX));
        http.set_nodelay(true);
        // No connection is kept: whoever lets go of an answer closes its connection, and the rig knows at once.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(http);
        Self { client }
    }

    /// Asks, and gives the answer when its head has come; between two pieces of its body `wait` may pass too.
    pub(super) async fn pass(
        &self,
        rig: &Arc<Rig>,
        asked: Asked,
        wait: Duration,
    ) -> Result<Response, WireFault> {
        let visit = Visit::begin(rig);
        let passed = self.ask(rig, asked, wait).await;
        let response = passed.inspect_err(|_| {
            rig.counters.unanswered.fetch_add(1, Ordering::Relaxed);
        })?;
        let (mut head, body) = response.into_parts();
        without_hops(&mut head.headers);
        Ok(Response::from_parts(head, Body::new(Passage::new(body, wait, visit))))
    }

    /// Asks with JSON or nothing, and gives the whole answer, all of it within `wait`.
    pub(super) async fn call(
        &self,
        rig: &Arc<Rig>,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        wait: Duration,
    ) -> Result<Reply, WireFault> {
        let mut headers = HeaderMap::new();
        if body.is_some() {
            let json = header::HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        let asked = Asked {
            method,
            path: path.parse().map_err(|error| broken(rig, &error))?,
            headers,
            body: body.map_or_else(Body::empty, Body::from),
        };
        let whole = async {
            let (head, body) = self.ask(rig, asked, wait).await?.into_parts();
            let body = to_bytes(body, REPLY_BYTES_MAX).await.map_err(|e| broken(rig, &e))?;
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(wait, whole).await.map_err(|_elapsed| silent(rig, wait))?
    }

    async fn ask(&self, rig: &Rig, asked: Asked, wait: Duration) -> Result<Response, WireFault> {
        let mut address = axum::http::uri::Parts::default();
        address.scheme = Some(Scheme::HTTP);
        address.authority = Some(rig.authority.clone());
        address.path_and_query = Some(asked.path);
        let mut request = Request::new(asked.body);
        *request.uri_mut() = Uri::from_parts(address).map_err(|error| broken(rig, &error))?;
        *request.method_mut() = asked.method;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = asked.headers;
        without_hops(request.headers_mut());
        request.headers_mut().remove(header::HOST);
        if let Some(authorization) = &rig.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        match tokio::time::timeout(wait, self.client.request(request)).await {
            Err(_elapsed) => Err(silent(rig, wait)),
            Ok(Err(error)) if error.is_connect() => {
                Err(WireFault::Unreached { rig: rig.id.to_string(), reason: causes(&error) })
            }
            Ok(Err(error)) => Err(broken(rig, &error)),
            Ok(Ok(response)) => Ok(response.map(Body::new)),
        }
    }
}

fn without_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_HEADERS.iter().chain(&named) {
        headers.remove(name);
    }
}

fn silent(rig: &Rig, waited: Duration) -> WireFault {
    WireFault::Silent { rig: rig.id.to_string(), waited }
}

fn broken(rig: &Rig, error: &(dyn std::error::Error + 'static)) -> WireFault {
    WireFault::Broken { rig: rig.id.to_string(), reason: causes(error) }
}

/// An error with what caused it.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
