//! Asking one Network Node: GET and POST of JSON, over http or https.
//!
//! A Network Node is somebody else's process, possibly somebody else's machine: it may hang, send without end, or point
//! elsewhere. No redirect is followed, no proxy is used, and an answer larger than any real one is given up.

use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use crate::config::Authorities;
use crate::web::{Asked, Login, Reply, Web, WebFault};

/// How long one answer may take, wall time. The chain's own queries take milliseconds; a list of participants with its
/// proof some seconds on a busy node.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// Largest answer read: the participants of mainnet with their Merkle proof are below one.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest piece of a refusal that is repeated.
const SAID_CHARS_MAX: usize = 200;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers, or the connection broke.
    #[error("{url}: no answer: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// It does not have this (404, 405, 501).
    #[error("{url}: not offered ({status})")]
    NotOffered {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// It refuses.
    #[error("{url}: {status}: {said}")]
    Refused {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
        /// The beginning of what it said.
        said: String,
    },
    /// The answer cannot be read.
    #[error("{url}: {reason}")]
    Unreadable {
        /// What was asked.
        url: String,
        /// Why.
        reason: String,
    },
}

impl ClientError {
    fn of(url: &str, fault: &WebFault) -> Self {
        let (url, reason) = (url.to_owned(), fault.to_string());
        match fault {
            WebFault::Unasked(_) | WebFault::Broken(_) | WebFault::Silent(_) => {
                Self::Unreachable { url, reason }
            }
            WebFault::TooLong(_) => Self::Unreadable { url, reason },
        }
    }
}

/// An answer with its status; admin calls look at both.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; `null` when it was empty.
    pub body: Value,
}

/// One Network Node, at the base address of its public or of its admin API.
#[derive(Clone)]
pub struct NodeClient {
    web: Web,
    base: String,
    wait: Duration,
    login: Option<Login>,
}

impl std::fmt::Debug for NodeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the login.
        f.debug_struct("NodeClient").field("base", &self.base).finish_non_exhaustive()
    }
}

impl NodeClient {
    /// A client of the API at `base`, like `http://10.0.0.5:8000`. Over `https://` it must be vouched for by `authorities`,
    /// or without them by those whom this machine trusts.
    #[must_use]
    pub fn new(base: &str, authorities: Option<&Authorities>) -> Self {
        Self {
            web: Web::to(base, authorities),
            base: base.trim_end_matches('/').to_owned(),
            wait: ANSWER_WAIT,
            login: None,
        }
    }

    /// The same with another patience.
    #[must_use]
    pub fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// The same with a name and a password on every request (HTTP basic authentication).
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when no header can carry them.
    pub fn logged_in(self, user: &str, password: &str) -> Result<Self, ClientError> {
        match Login::basic(user, password) {
            Ok(login) => Ok(Self { login: Some(login), ..self }),
            Err(fault) => Err(ClientError::of(&self.base, &fault)),
        }
    }

    /// Its base address.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks for `path`, which begins with a slash.
    ///
    /// # Errors
    /// [`ClientError`]; any status but 2xx is one.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.base);
        let answer = self.ask(Method::GET, &url, None).await?;
        match answer.status {
            200..=299 => Ok(answer.body),
            404 | 405 | 501 => Err(ClientError::NotOffered { url, status: answer.status }),
            status => Err(ClientError::Refused { url, status, said: said(&answer.body) }),
        }
    }

    /// Posts `body`, or nothing, to `path`; the caller judges the status.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] and [`ClientError::Unreadable`].
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        let url = format!("{}{path}", self.base);
        self.ask(Method::POST, &url, body).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        json: Option<&Value>,
    ) -> Result<Answer, ClientError> {
        let login = self.login.as_ref();
        let asked =
            Asked { method, url, login, json, wait: self.wait, bytes_max: ANSWER_BYTES_MAX };
        let Reply { status, body: bytes, .. } =
            self.web.ask(asked).await.map_err(|fault| ClientError::of(url, &fault))?;
        if bytes.is_empty() {
            return Ok(Answer { status, body: Value::Null });
        }
        match serde_json::from_slice(&bytes) {
            Ok(body) => Ok(Answer { status, body }),
            // A refusal is often no JSON; its status says enough.
            Err(_) if !(200..300).contains(&status) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Ok(Answer { status, body: Value::String(text) })
            }
            Err(error) => {
                let reason = format!("no JSON: {error}");
                Err(ClientError::Unreadable { url: url.to_owned(), reason })
            }
        }
    }
}

/// What a refusal says, for people: its `error`, `message` or `detail`, else its beginning.
#[must_use]
pub fn said(body: &Value) -> String {
    let field = |name: &str| body.get(name).filter(|value| !value.is_null());
    let part = field("error").or_else(|| field("message")).or_else(|| field("detail"));
    let text = match part.unwrap_or(body) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SAID_CHARS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
