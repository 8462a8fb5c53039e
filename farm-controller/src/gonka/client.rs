//! Asking one Network Node: plain GET and POST with bounded time and bounded answers.
//!
//! A Network Node is somebody else's process, possibly somebody else's machine: it may hang, send without end, or point
//! elsewhere. No redirect is followed, no proxy is used, and an answer larger than any real one is given up.

use std::time::Duration;

use serde_json::Value;

/// How long one answer may take, wall time. The chain's own queries take milliseconds; a list of participants with its
/// proof some seconds on a busy node.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// How long a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
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
    http: reqwest::Client,
    base: String,
    /// Name and password sent along.
    login: Option<(String, String)>,
}

impl std::fmt::Debug for NodeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the login.
        f.debug_struct("NodeClient").field("base", &self.base).finish_non_exhaustive()
    }
}

impl NodeClient {
    /// A client of the API at `base`, like `http://10.0.0.5:8000`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self::with_wait(base, ANSWER_WAIT)
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_wait(base: &str, wait: Duration) -> Self {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WAIT.min(wait))
            .timeout(wait);
        Self {
            http: builder.build().unwrap_or_default(),
            base: base.trim_end_matches('/').to_owned(),
            login: None,
        }
    }

    /// The same with a name and a password on every request (HTTP basic authentication).
    #[must_use]
    pub fn logged_in(self, user: &str, password: &str) -> Self {
        Self { login: Some((user.to_owned(), password.to_owned())), ..self }
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
        let answer = self.ask(self.http.get(&url), &url).await?;
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
        let request = self.http.post(&url);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.ask(request, &url).await
    }

    async fn ask(
        &self,
        request: reqwest::RequestBuilder,
        url: &str,
    ) -> Result<Answer, ClientError> {
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            url: url.to_owned(),
            reason: innermost(&error),
        };
        let request = match &self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                let reason = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
                return Err(ClientError::Unreadable { url: url.to_owned(), reason });
            }
            bytes.extend_from_slice(&chunk);
        }
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

/// The cause at the bottom of an error: "connection refused" says more than "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(source) = at.source() {
        at = source;
    }
    if error.is_timeout() { format!("timed out ({at})") } else { at.to_string() }
}
