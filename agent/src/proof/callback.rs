//! The address a Network Node wants its artifacts at, kept exactly as it was given, and the request that goes there.
//!
//! The Network Node percent-encodes the model id twice and decodes it twice again, so `%252F` must arrive as `%252F`.
//! URL libraries like to tidy up what they are given (dot segments, backslashes, odd characters); an address that ours
//! would send differently from how it reads is refused at once instead of failing later.

use std::time::Duration;

use axum::body::Bytes;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderValue};

/// Longest address taken: a model id and a host, with room.
const URL_LENGTH_MAX: usize = 4096;
/// How long one delivery may take, as the network's own nodes do.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a refusal that are shown.
const WORDS_MAX: usize = 200;

/// Why an address is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackUrlError {
    /// It is no URL.
    #[error("not a URL: {0}")]
    NotAUrl(String),
    /// It is none we can post to.
    #[error("expected an http:// address with a host")]
    NotHttp,
    /// A library would change it on the way.
    #[error("it would be sent as {sent:?}; write it so that it needs no tidying")]
    Changes {
        /// What would be sent.
        sent: String,
    },
    /// It is too long.
    #[error("longer than {URL_LENGTH_MAX} bytes")]
    TooLong,
}

/// A callback base address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackUrl(String);

impl CallbackUrl {
    /// Takes an address that is sent as it reads.
    ///
    /// # Errors
    /// [`CallbackUrlError`].
    pub fn new(text: &str) -> Result<Self, CallbackUrlError> {
        if text.len() > URL_LENGTH_MAX {
            return Err(CallbackUrlError::TooLong);
        }
        let url = Url::parse(text).map_err(|error| CallbackUrlError::NotAUrl(error.to_string()))?;
        if url.scheme() != "http" || !url.has_host() {
            return Err(CallbackUrlError::NotHttp);
        }
        let path_at = text
            .split_once("://")
            .and_then(|(before, rest)| Some(before.len() + 3 + rest.find(['/', '?', '#', '\\'])?));
        let reads = path_at.map_or("/", |at| &text[at..]);
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        let sent = format!("{}{query}", url.path());
        if sent != reads {
            return Err(CallbackUrlError::Changes { sent });
        }
        Ok(Self(text.to_owned()))
    }

    /// The address with `/{end}` after it.
    #[must_use]
    pub fn at(&self, end: &str) -> String {
        format!("{}/{end}", self.0)
    }

    /// The path of [`CallbackUrl::at`], as it is sent.
    #[must_use]
    pub fn path_at(&self, end: &str) -> String {
        let after_scheme = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
        format!("{path}/{end}")
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The client all deliveries share. The Network Node is on the private side of the farm: no proxy of the environment
/// stands between, and an answer that points elsewhere is no delivery.
pub(super) fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    client.build().unwrap_or_default()
}

/// A delivery that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PostFault {
    /// What the Network Node answered, if it did.
    status: Option<u16>,
    /// What went wrong, in one line.
    pub(super) reason: String,
}

impl PostFault {
    /// The status that says the payload itself is not wanted: repeating it would not help. A server that is too slow
    /// or too busy says nothing about the payload.
    pub(super) fn refusal(&self) -> Option<u16> {
        self.status
            .filter(|status| (400..500).contains(status) && ![408, 425, 429].contains(status))
    }
}

/// Posts one JSON document; a status below 400 is success, as the network's own nodes count it.
///
/// # Errors
/// [`PostFault`].
pub(super) async fn post(http: &reqwest::Client, url: &str, body: Bytes) -> Result<(), PostFault> {
    let answer = http
        .post(url)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .timeout(POST_TIMEOUT)
        .body(body)
        .send()
        .await
        .map_err(|error| PostFault { status: None, reason: error.without_url().to_string() })?;
    let status = answer.status().as_u16();
    if status < 400 {
        return Ok(());
    }
    // What it says is for people; an answer without end says nothing.
    let words = tokio::time::timeout(POST_TIMEOUT, first_words(answer)).await.unwrap_or_default();
    Err(PostFault { status: Some(status), reason: format!("status {status} {words}") })
}

/// The beginning of an answer, as one line.
async fn first_words(mut answer: reqwest::Response) -> String {
    let mut words = Vec::new();
    while words.len() < WORDS_MAX
        && let Ok(Some(piece)) = answer.chunk().await
    {
        words.extend_from_slice(&piece);
    }
    words.truncate(WORDS_MAX);
    String::from_utf8_lossy(&words).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_given_is_what_is_sent() {
        for text in [
            "http://10.0.0.2:9100/v2/poc-batches/MiniMaxAI%252FMiniMax-M2.7",
            "http://10.0.0.2:9100/v2/poc-batches/a%2fb%252Fc%25252F",
            "http://node:9100//double//slash/",
            "http://node",
            "http://NODE:80/Upper/%C3%A9",
        ] {
            let url = CallbackUrl::new(text).unwrap();
            assert_eq!(url.at("generated"), format!("{text}/generated"));
            assert!(url.at("generated").ends_with(&url.path_at("generated")));
            assert!(url.path_at("generated").starts_with('/'));
        }
    }

    #[test]
    fn what_would_change_is_refused() {
        for text in [
            "http://node/a/../b",
            "http://node/a/%2e%2e/b",
            "http://node/a b",
            "http://node\\a",
            "http://node/\u{e9}",
            "http://node/a#b",
            "https://node/a",
            "file:///etc/passwd",
            "node:9100/a",
            "",
        ] {
            assert!(CallbackUrl::new(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_address_is_taken_that_changes(path in "[!-~]{0,40}") {
            let text = format!("http://node:9100/{path}");
            if let Ok(url) = CallbackUrl::new(&text) {
                let sent = Url::parse(&url.at("generated")).unwrap();
                prop_assert_eq!(sent.as_str(), url.at("generated"));
            }
        }

        #[test]
        fn hostile_addresses_never_panic(text in "\\PC{0,60}") {
            drop(CallbackUrl::new(&text));
        }
    }
}
