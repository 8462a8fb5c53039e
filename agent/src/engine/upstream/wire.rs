//! Requests to an external server: one connection each, which closes when whoever asked lets go.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use futures_util::StreamExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::fault::UpstreamFault;
use crate::config::{UpstreamConfig, UpstreamUrl};
use crate::tls::{tls, with_causes};

/// A server on this machine or beside it takes a connection at once, or is not there.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// How a server is asked.
#[derive(Clone)]
pub(super) struct Wire {
    url: UpstreamUrl,
    key: Option<HeaderValue>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    answer_bytes_max: usize,
}

/// What came back, before its body.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: BodyDataStream,
    bytes_max: usize,
}

impl Wire {
    /// # Errors
    /// A key that cannot stand in a header, or no TLS on this machine where the address asks for it.
    pub(super) fn new(config: &UpstreamConfig, answer_bytes_max: usize) -> Result<Self, String> {
        let key = match &config.api_key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                    .map_err(|_error| "the server's key has characters no header can carry")?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT_WAIT_MAX));
        http.set_nodelay(true);
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(!config.url.is_plain())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // No connection is kept: whoever lets go of an answer closes its connection, and the server knows at once.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { url: config.url.clone(), key, client, answer_bytes_max })
    }

    /// Asks, and gives the answer when its status has come, which must be within `wait`.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        wait: Duration,
    ) -> Result<Answer, UpstreamFault> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.url.at(path))
            .header(ACCEPT, "application/json, text/event-stream")
            .header(USER_AGENT, concat!("roadbed-agent/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(body.map_or_else(Body::empty, Body::from))
            .map_err(|error| UpstreamFault::Unreachable { reason: error.to_string() })?;
        let answer = tokio::time::timeout(wait, self.client.request(request))
            .await
            .map_err(|_elapsed| UpstreamFault::Silent { waited: wait })?
            .map_err(|error| UpstreamFault::Unreachable { reason: with_causes(&error) })?;
        let (head, body) = answer.into_parts();
        let body = Body::new(body).into_data_stream();
        let bytes_max = self.answer_bytes_max;
        Ok(Answer { status: head.status, headers: head.headers, body, bytes_max })
    }

    /// Asks, and gives status and whole body, both within `wait`.
    pub(super) async fn ask_whole(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        wait: Duration,
    ) -> Result<(StatusCode, Vec<u8>), UpstreamFault> {
        let whole = async {
            let mut answer = self.ask(method, path, body, wait).await?;
            let body = answer.whole(wait).await?;
            Ok((answer.status, body))
        };
        let whole = tokio::time::timeout(wait, whole).await;
        whole.unwrap_or(Err(UpstreamFault::Silent { waited: wait }))
    }
}

impl Answer {
    /// True if a stream of events follows.
    pub(super) fn is_events(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| kind.trim_start().starts_with("text/event-stream"))
    }

    /// Seconds after which the server wants to be asked again.
    pub(super) fn retry_seconds(&self) -> Option<u64> {
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
    }

    /// The next bytes of the body, within `wait`; `None` at its end.
    pub(super) async fn piece(&mut self, wait: Duration) -> Result<Option<Bytes>, UpstreamFault> {
        match tokio::time::timeout(wait, self.body.next()).await {
            Err(_elapsed) => Err(UpstreamFault::Silent { waited: wait }),
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => Err(UpstreamFault::Unreachable {
                reason: format!("it hung up in the middle: {}", with_causes(&error)),
            }),
        }
    }

    /// The whole body, no two pieces of it further apart than `wait`.
    pub(super) async fn whole(&mut self, wait: Duration) -> Result<Vec<u8>, UpstreamFault> {
        let mut body = vec![];
        while let Some(piece) = self.piece(wait).await? {
            if body.len() + piece.len() > self.bytes_max {
                let reason = format!("it is longer than {} bytes", self.bytes_max);
                return Err(UpstreamFault::BadAnswer { reason });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}
