//! The Network Node's HTTP client, with the manners of the original: POSTs carry JSON but no Content-Type.
//!
//! Source: gonka-ai/gonka decentralized-api/mlnodeclient/client.go. Two ways of addressing are legal and tried once each: a
//! version before the path (`/v3.0.16/api/v1/…`, rolling upgrades) and a double slash where base and path were joined.

use std::time::Duration;

use serde_json::Value;

/// The original waits 15 minutes for every management call; loading a model may take most of that.
const CALL_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest answer read.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How a path is joined to the base address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// `{base}{path}`
    Plain,
    /// `{base}/v3.0.16{path}`
    Versioned,
    /// `{base}/{path}`, which makes two slashes.
    DoubleSlash,
}

impl Addressing {
    /// What stands between base and path.
    const fn joint(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Versioned => "/v3.0.16",
            Self::DoubleSlash => "/",
        }
    }
}

/// An HTTP answer: the status and the body as JSON, null when it is none.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Value,
}

impl Answer {
    /// Whether the original takes the call for a success.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.status == 200
    }
}

/// A client of one MLNode.
#[derive(Debug, Clone)]
pub struct MlNode {
    client: reqwest::Client,
    base: String,
}

impl MlNode {
    /// A client of the MLNode at this address.
    ///
    /// # Errors
    /// When no client can be made at all.
    pub fn new(base: &str) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: reqwest::Client::builder().timeout(CALL_TIME_MAX).build()?,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    /// A GET.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn get(&self, path: &str, addressing: Addressing) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{}{path}", self.base, addressing.joint());
        read(self.client.get(url).send().await?).await
    }

    /// A POST of JSON without a Content-Type; without a body at all when there is none.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{path}", self.base);
        let request = self.client.post(url);
        // `json()` would set the header that the original does not send.
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        read(request.send().await?).await
    }
}

async fn read(mut response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&part);
    }
    Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}
