//! Asking other people's servers over `http://` and `https://`: bounded time, bounded answers, and TLS's refusals in words.
//!
//! No redirect is followed and no proxy is used: what is asked stands where the operator wrote it. Whoever is asked over
//! TLS must be vouched for, by a CA that this machine trusts or, where the site file names a `ca_file`, by one in there.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Request};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use roadbed_protocol::Millis;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde_json::Value;

use crate::config::{Authorities, span_words};

/// How long a connection may take.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebFault {
    /// Nobody can be asked.
    #[error("{0}")]
    Unasked(String),
    /// Nobody answers, is trusted, or the connection broke.
    #[error("{0}")]
    Broken(String),
    /// Not in time.
    #[error("timed out after {0:?}")]
    Silent(Duration),
    /// Larger than anything that was asked for.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// One question.
#[derive(Debug)]
pub struct Asked<'a> {
    /// GET or POST.
    pub method: Method,
    /// The whole address.
    pub url: &'a str,
    /// Name and password, or a token.
    pub login: Option<&'a Login>,
    /// What is sent.
    pub json: Option<&'a Value>,
    /// For all of the answer, wall time.
    pub wait: Duration,
    /// Longest body that is read.
    pub bytes_max: usize,
}

/// An answer of any status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What is shown to be let in.
#[derive(Clone)]
pub struct Login(HeaderValue);

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    /// Name and password (RFC 7617).
    ///
    /// # Errors
    /// No header can carry them.
    pub fn basic(user: &str, password: &str) -> Result<Self, WebFault> {
        Self::of(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
    }

    /// A token (RFC 6750).
    ///
    /// # Errors
    /// No header can carry it.
    pub fn bearer(token: &str) -> Result<Self, WebFault> {
        Self::of(&format!("Bearer {token}"))
    }

    fn of(text: &str) -> Result<Self, WebFault> {
        let mut value = HeaderValue::try_from(text).map_err(|_error| {
            WebFault::Unasked("the token has characters that no header can carry".to_owned())
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// What asks one server.
#[derive(Clone)]
pub struct Web(Result<Client<HttpsConnector<HttpConnector>, Body>, WebFault>);

impl Web {
    /// For a server at `url`, whom `authorities` vouch for, or without them whom this machine trusts.
    #[must_use]
    pub fn to(url: &str, authorities: Option<&Authorities>) -> Self {
        // Reading what this machine trusts takes a while, and nobody asks for it over plain HTTP.
        let tls = if url.starts_with("https://") { trusting(authorities) } else { untrusting() };
        Self(tls.map(|tls| {
            let mut http = HttpConnector::new();
            http.set_connect_timeout(Some(CONNECT_WAIT_MAX));
            http.set_nodelay(true);
            http.enforce_http(false);
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_http1()
                .wrap_connector(http);
            Client::builder(TokioExecutor::new()).build(connector)
        }))
    }

    /// Asks, and gives the whole answer.
    ///
    /// # Errors
    /// [`WebFault`]; a status is none.
    pub async fn ask(&self, asked: Asked<'_>) -> Result<Reply, WebFault> {
        let client = self.0.as_ref().map_err(Clone::clone)?;
        let mut request = Request::builder().method(asked.method).uri(asked.url);
        if let Some(Login(value)) = asked.login {
            request = request.header(AUTHORIZATION, value);
        }
        let body = match asked.json {
            None => Body::empty(),
            Some(json) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
        };
        let request = request.body(body).map_err(|error| {
            WebFault::Unasked(format!("is no address that can be asked: {error}"))
        })?;
        let whole = async {
            let response = client.request(request).await.map_err(|error| broken(&error))?;
            let (head, body) = response.into_parts();
            let mut chunks = Body::new(body).into_data_stream();
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|error| broken(&error))?;
                if bytes.len() + chunk.len() > asked.bytes_max {
                    return Err(WebFault::TooLong(asked.bytes_max));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: bytes.into() })
        };
        tokio::time::timeout(asked.wait, whole).await.unwrap_or(Err(WebFault::Silent(asked.wait)))
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, WebFault> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| WebFault::Unasked(format!("no TLS: {error}")))
}

/// Trusts nobody, which no plain connection asks for.
fn untrusting() -> Result<ClientConfig, WebFault> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn trusting(authorities: Option<&Authorities>) -> Result<ClientConfig, WebFault> {
    let builder = builder()?;
    let trusting = match authorities {
        Some(authorities) => builder.with_root_certificates(authorities.roots()),
        None => builder.with_native_roots().map_err(|error| {
            let text = format!(
                "this machine trusts no CA ({error}): install ca-certificates, or name a ca_file"
            );
            WebFault::Unasked(text)
        })?,
    };
    Ok(trusting.with_no_client_auth())
}

fn broken(error: &(dyn Error + 'static)) -> WebFault {
    WebFault::Broken(tls_fault(error).map_or_else(|| innermost(error), tls_words))
}

/// The cause at the bottom of an error: "connection refused" says more than "error sending request".
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// TLS's own refusal among the causes; it is wrapped in errors of I/O, whose `source` skips what they wrap.
fn tls_fault<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(fault) = error.downcast_ref() {
        return Some(fault);
    }
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let wrapped = wrapped.map(|inner| inner as &(dyn Error + 'static));
    tls_fault(wrapped.or_else(|| error.source())?)
}

fn tls_words(fault: &rustls::Error) -> String {
    match fault {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer => {
                "nobody who is trusted here vouches for its certificate; for a CA of your own, name its file with ca_file".to_owned()
            }
            CertificateError::Expired => "its certificate has run out".to_owned(),
            CertificateError::ExpiredContext { time, not_after } => {
                let since = Millis::from_secs(time.as_secs().saturating_sub(not_after.as_secs()));
                format!("its certificate ran out {} ago", span_words(since))
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is this machine's clock behind?".to_owned()
            }
            CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "its certificate is for {}, not for {}",
                presented.join(", "),
                expected.to_str()
            ),
            CertificateError::Revoked => "its certificate was revoked".to_owned(),
            other => format!("its certificate is refused: {other}"),
        },
        rustls::Error::InvalidMessage(_) => {
            "it does not speak TLS there; is its address http://?".to_owned()
        }
        other => format!("TLS: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_refusal_of_tls_is_found_among_its_wrappings_and_told_in_words() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired =
            CertificateError::ExpiredContext { time: time(90_000), not_after: time(3_600) };
        let fault = rustls::Error::InvalidCertificate(expired);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, fault));
        let words = broken(&wrapped).to_string();
        assert_eq!(words, "its certificate ran out 24 h ago");
        let plain = io::Error::other(io::Error::new(io::ErrorKind::NotFound, "nobody there"));
        assert_eq!(broken(&plain).to_string(), "nobody there");
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        assert!(Login::bearer("a\nb").is_err());
        let Login(value) = Login::basic("roadbed", "secret").unwrap();
        assert_eq!(value, "Basic cm9hZGJlZDpzZWNyZXQ=");
    }
}
