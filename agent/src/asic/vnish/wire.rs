//! The transport of VNish: HTTP with a bearer token that is renewed when the miner says 401.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode, redirect};
use serde_json::{Value, json};

use super::super::field::excerpt;
use super::super::firmware::FirmwareError;
use super::super::secret::Secret;

/// A miner on the farm's own network answers a connect in milliseconds. Wall time, as all network
/// time-outs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// From the request to the end of the reply; writes of settings are the slow ones.
const REPLY_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest reply read. Settings with chip tables of four boards stay below 20 kB.
const REPLY_BYTES_MAX: usize = 256 * 1024;
/// After a refused password nothing is unlocked for this long: some builds lock the web face for
/// everybody after a few wrong ones.
const LOGIN_PAUSE: Duration = Duration::from_secs(60);

/// A miner's REST face.
pub struct Wire {
    client: Client,
    address: SocketAddr,
    password: Secret,
    token: Option<Secret>,
    barred_until: Option<Instant>,
}

impl Wire {
    pub fn new(address: SocketAddr, password: Secret) -> Result<Self, FirmwareError> {
        // No proxy and no redirect: a miner is on our own network, and its token is for it alone.
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REPLY_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| FirmwareError::Unsupported {
                what: "HTTP on this machine".into(),
                why: error.to_string(),
            })?;
        Ok(Self { client, address, password, token: None, barred_until: None })
    }

    /// Several reads need no login; the token is sent when there is one.
    pub async fn get(&mut self, path: &str) -> Result<Value, FirmwareError> {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&mut self, path: &str, body: Option<&Value>) -> Result<Value, FirmwareError> {
        if self.token.is_none() {
            self.unlock().await?;
        }
        let value = self.call(Method::POST, path, body).await?;
        if value.get("success") == Some(&Value::Bool(false)) {
            return Err(FirmwareError::Refused {
                what: path.into(),
                reason: excerpt(&value.to_string()),
            });
        }
        Ok(value)
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, FirmwareError> {
        let (status, bytes) = self.send(method.clone(), path, body).await?;
        if !is_unauthorized(status) {
            return open(path, status, &bytes);
        }
        self.token = None;
        self.unlock().await?;
        let (status, bytes) = self.send(method, path, body).await?;
        if is_unauthorized(status) {
            self.token = None;
            return Err(self.auth_failed(format!("{path}: {status} with a fresh token")));
        }
        open(path, status, &bytes)
    }

    async fn unlock(&mut self) -> Result<(), FirmwareError> {
        if self.barred_until.is_some_and(|until| Instant::now() < until) {
            return Err(self.auth_failed("the password was refused less than a minute ago".into()));
        }
        let body = json!({ "pw": self.password.reveal() });
        let (status, bytes) = self.send(Method::POST, "unlock", Some(&body)).await?;
        if status.is_client_error() {
            self.barred_until = Some(Instant::now() + LOGIN_PAUSE);
            return Err(self.auth_failed(format!("unlock: {status}")));
        }
        let value = open("unlock", status, &bytes)?;
        match value.get("token").and_then(Value::as_str) {
            Some(token) if !token.is_empty() => {
                self.token = Some(Secret::new(token.to_owned()));
                self.barred_until = None;
                Ok(())
            }
            Some(_) | None => {
                Err(FirmwareError::Garbled { what: "unlock".into(), why: "no token in it".into() })
            }
        }
    }

    /// Status and body; the body is read up to one byte past what is allowed.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Vec<u8>), FirmwareError> {
        let unreachable = |error: reqwest::Error| FirmwareError::Unreachable {
            address: self.address.to_string(),
            why: excerpt(&format!("{path}: {}", root_of(&error))),
        };
        let url = format!("http://{}/api/v1/{path}", self.address);
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        // The web server is up before the miner behind it: after a boot it says so for a while.
        if matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) {
            return Err(FirmwareError::Unreachable {
                address: self.address.to_string(),
                why: format!("{path}: {status}"),
            });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > REPLY_BYTES_MAX {
                bytes.truncate(REPLY_BYTES_MAX + 1);
                break;
            }
        }
        Ok((status, bytes))
    }

    fn auth_failed(&self, why: String) -> FirmwareError {
        FirmwareError::AuthFailed { address: self.address.to_string(), why }
    }
}

fn is_unauthorized(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN
}

/// The innermost cause: reqwest's own text only says which phase failed.
fn root_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A reply with its status judged.
pub fn open(path: &str, status: StatusCode, bytes: &[u8]) -> Result<Value, FirmwareError> {
    let garbled = |why: String| FirmwareError::Garbled { what: path.into(), why };
    if bytes.len() > REPLY_BYTES_MAX {
        return Err(garbled(format!("longer than {REPLY_BYTES_MAX} bytes")));
    }
    if status == StatusCode::NOT_FOUND || status == StatusCode::METHOD_NOT_ALLOWED {
        return Err(FirmwareError::Unsupported {
            what: path.into(),
            why: format!("the miner answers {status}"),
        });
    }
    if !status.is_success() {
        let text = String::from_utf8_lossy(bytes);
        return Err(FirmwareError::Refused {
            what: path.into(),
            reason: excerpt(&format!("{status} {text}")),
        });
    }
    // Some writes answer with an empty body.
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes)
        .map_err(|error| garbled(format!("{error}, in {} bytes", bytes.len())))
}
