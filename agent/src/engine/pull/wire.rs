//! One GET at the Hub: TLS, access token, redirects, and what each status means.
//!
//! Redirects are followed by hand, for two reasons: the access token must stay with the host it belongs to (files come
//! from another one), and the first answer of a redirect carries the file's SHA-256.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER,
    USER_AGENT,
};
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::StreamExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use url::Url;

use super::dialler::Dialler;
use super::error::PullError;
use crate::tls::{tls, with_causes};

/// The Hub itself, unless `HF_ENDPOINT` names a mirror.
const ENDPOINT_DEFAULT: &str = "https://huggingface.co";
/// A real download goes through two or three.
const REDIRECTS_MAX: usize = 10;
/// A listing of the largest repositories has about a megabyte.
const JSON_BYTES_MAX: usize = 16 << 20;

/// How long a pull puts up with a bad line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries in a row that bring nothing.
    pub tries_max: u32,
    /// Wait after the first such try; doubled after each further one.
    pub first_wait: Duration,
    /// Longest wait; a server that asks for a longer one is given up.
    pub wait_max: Duration,
    /// Longest silence of a server.
    pub silence_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries_max: 6,
            first_wait: Duration::from_secs(1),
            wait_max: Duration::from_secs(120),
            silence_max: Duration::from_secs(60),
        }
    }
}

/// Where models come from, and who asks.
#[derive(Clone)]
pub struct Hub {
    pub(super) endpoint: Url,
    token: Option<String>,
    pub(super) patience: Patience,
    client: Client<HttpsConnector<Dialler>, Body>,
}

/// What a GET brought.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Bytes that follow, if the server says so.
    pub(super) length: Option<u64>,
    /// First byte and whole size from `Content-Range`.
    pub(super) range: Option<(u64, Option<u64>)>,
    /// SHA-256 of the whole file, if an answer on the way said it.
    pub(super) linked_sha256: Option<String>,
    body: BodyDataStream,
    silence_max: Duration,
}

/// A try that failed.
pub(super) enum Setback {
    /// Trying again would not help.
    Final(PullError),
    /// It may, after a while.
    Passing { reason: String, retry_after: Option<Duration> },
}

impl From<PullError> for Setback {
    fn from(error: PullError) -> Self {
        Self::Final(error)
    }
}

impl Setback {
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), retry_after: None }
    }
}

impl Hub {
    /// `HF_ENDPOINT` and `HF_TOKEN`.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn from_environment(patience: Patience) -> Result<Self, PullError> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
        Self::new(&endpoint, set("HF_TOKEN"), patience)
    }

    /// A hub at an address; `token` goes to this address only.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn new(
        endpoint: &str,
        token: Option<String>,
        patience: Patience,
    ) -> Result<Self, PullError> {
        let bad = |reason: String| PullError::BadAnswer { place: endpoint.to_owned(), reason };
        let parsed = Url::parse(endpoint.trim_end_matches('/'))
            .map_err(|error| bad(format!("is no address ({error}); see HF_ENDPOINT")))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(bad("is no http or https address; see HF_ENDPOINT".into()));
        }
        let tls = tls(parsed.scheme() == "https").map_err(bad)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Dialler::from_environment());
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { endpoint: parsed, token: token.map(|t| t.trim().to_owned()), patience, client })
    }

    /// An address below the endpoint, each part escaped.
    pub(super) fn address(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Gets an address from byte `from` on.
    pub(super) async fn get(&self, url: &Url, from: u64) -> Result<Answer, Setback> {
        let mut here = url.clone();
        let mut linked_sha256 = None;
        for _ in 0..REDIRECTS_MAX {
            let request = self.request(&here, from)?;
            let answer =
                tokio::time::timeout(self.patience.silence_max, self.client.request(request));
            let answer = answer
                .await
                .map_err(|_elapsed| Setback::passing("the server does not answer"))?
                .map_err(|error| Setback::passing(with_causes(&error)))?;
            let (head, body) = answer.into_parts();
            linked_sha256 = linked_sha256.or_else(|| sha256_in(&head.headers));
            if head.status.is_redirection() {
                here = redirected(&here, &head.headers)?;
                continue;
            }
            self.judge(url, head.status, &head.headers)?;
            return Ok(Answer {
                status: head.status,
                length: number(&head.headers, CONTENT_LENGTH.as_str()),
                range: head
                    .headers
                    .get(CONTENT_RANGE)
                    .and_then(|value| content_range(value.to_str().ok()?)),
                linked_sha256,
                body: Body::new(body).into_data_stream(),
                silence_max: self.patience.silence_max,
            });
        }
        Err(bad_answer(url, format!("more than {REDIRECTS_MAX} redirects")))
    }

    fn request(&self, url: &Url, from: u64) -> Result<Request<Body>, Setback> {
        let mut request = Request::get(url.as_str())
            .header(USER_AGENT, concat!("roadbed-agent/", env!("CARGO_PKG_VERSION")))
            // Sums and ranges are those of the file as it is.
            .header(ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = &self.token
            && url.origin() == self.endpoint.origin()
        {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Body::empty()).map_err(|error| bad_answer(url, error.to_string()))
    }

    fn judge(&self, url: &Url, status: StatusCode, headers: &HeaderMap) -> Result<(), Setback> {
        let place = place(url);
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(())
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let advice = match (&self.token, status) {
                    (None, _) => "set HF_TOKEN to an access token of an account that may read it",
                    (Some(_), StatusCode::UNAUTHORIZED) => {
                        "HF_TOKEN was refused: it is wrong or has expired"
                    }
                    (Some(_), _) => {
                        "the account of HF_TOKEN must accept the model's conditions on its page first"
                    }
                };
                Err(PullError::Denied { place, status: status.as_u16(), advice }.into())
            }
            StatusCode::NOT_FOUND => Err(PullError::NotFound { place }.into()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Err(Setback::Passing {
                reason: format!("HTTP {status}"),
                retry_after: retry_after(headers),
            }),
            _ if status.is_server_error() => Err(Setback::Passing {
                reason: format!("HTTP {status}"),
                retry_after: retry_after(headers),
            }),
            _ => Err(bad_answer(url, format!("HTTP {status}"))),
        }
    }

    /// A whole small document.
    pub(super) async fn get_json(&self, url: &Url) -> Result<Vec<u8>, Setback> {
        let mut answer = self.get(url, 0).await?;
        let mut document = Vec::new();
        while let Some(piece) = answer.next().await? {
            if document.len() + piece.len() > JSON_BYTES_MAX {
                return Err(bad_answer(url, format!("is larger than {JSON_BYTES_MAX} bytes")));
            }
            document.extend_from_slice(&piece);
        }
        Ok(document)
    }
}

impl Answer {
    /// The next piece of the body, or nothing at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Setback> {
        match tokio::time::timeout(self.silence_max, self.body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(error))) => {
                Err(Setback::passing(format!("the connection broke: {}", with_causes(&error))))
            }
            Err(_elapsed) => Err(Setback::passing("the server fell silent")),
        }
    }
}

/// The address without what may be secret in it.
pub(super) fn place(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    let _kept = shown.set_password(None);
    shown.to_string()
}

fn bad_answer(url: &Url, reason: String) -> Setback {
    PullError::BadAnswer { place: place(url), reason }.into()
}

fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, Setback> {
    let to = headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| bad_answer(from, "redirects to nowhere".into()))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        _ => Err(bad_answer(from, format!("redirects to {}, which is not safe", place(&to)))),
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Only seconds: dates are allowed by the standard and not used by the Hub.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    number(headers, RETRY_AFTER.as_str()).map(Duration::from_secs)
}

/// The Hub's name for a large file is its SHA-256; other tags are something else.
fn sha256_in(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get("x-linked-etag")?.to_str().ok()?.trim_matches('"').to_ascii_lowercase();
    is_sha256(&tag).then_some(tag)
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `bytes 5-9/10` or `bytes 5-9/*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(endpoint: &str, token: Option<&str>) -> Hub {
        Hub::new(endpoint, token.map(str::to_owned), Patience::default()).unwrap()
    }

    #[test]
    fn addresses_are_escaped_and_endpoints_checked() {
        let address = hub("http://mirror:1/sub/", None).address(&[
            "o",
            "r",
            "resolve",
            "refs/pr/1",
            "a b.gguf",
        ]);
        assert_eq!(address.as_str(), "http://mirror:1/sub/o/r/resolve/refs%2Fpr%2F1/a%20b.gguf");
        for bad in ["", "huggingface.co", "file:///etc", "http://"] {
            assert!(Hub::new(bad, None, Patience::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_stays_at_home() {
        let hub = hub("http://home:1", Some(" secret\n"));
        let sent = |url: &str| {
            let Ok(request) = hub.request(&Url::parse(url).unwrap(), 5) else { panic!("{url}") };
            assert_eq!(request.headers()[RANGE], "bytes=5-");
            request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(sent("http://home:1/x").as_deref(), Some("Bearer secret"));
        for other in ["http://home:2/x", "https://home:1/x", "http://cdn:1/x"] {
            assert_eq!(sent(other), None);
        }
    }

    #[test]
    fn redirects_never_leave_tls() {
        let check = |from: &str, to: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, to.parse().unwrap())]);
            redirected(&Url::parse(from).unwrap(), &headers).map(String::from).ok()
        };
        assert_eq!(check("https://a/x/y", "/z").as_deref(), Some("https://a/z"));
        assert_eq!(check("http://a/x", "https://b/z").as_deref(), Some("https://b/z"));
        assert_eq!(check("http://a/x", "http://b/z").as_deref(), Some("http://b/z"));
        assert_eq!(check("https://a/x", "http://b/z"), None);
        assert_eq!(check("https://a/x", "file:///etc/passwd"), None);
    }

    #[test]
    fn headers_are_read_with_care() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes */10", "items 5-9/10", "bytes 5", "bytes x-9/10"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
        let tag = |value: &str| {
            sha256_in(&HeaderMap::from_iter([(
                "x-linked-etag".parse().unwrap(),
                value.parse().unwrap(),
            )]))
        };
        let sum = "AB".repeat(32);
        assert_eq!(tag(&format!("\"{sum}\"")), Some(sum.to_lowercase()));
        assert_eq!(tag("\"da39a3ee5e6b4b0d3255bfef95601890afd80709\""), None);
    }
}
