//! What can be wrong with an external server, as its customers and its owner are told.

use std::time::Duration;

use super::super::fault::EngineFault;

/// The one error of a server's edge. Each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFault {
    /// Nobody answers at its address, or it hung up before it answered.
    #[error("the server behind this rig cannot be reached ({reason}); try again in a moment")]
    Unreachable {
        /// What the system said.
        reason: String,
    },
    /// It did not answer in time.
    #[error(
        "the server behind this rig said nothing for {} s; ask for a shorter answer, or try again later",
        waited.as_secs_f64()
    )]
    Silent {
        /// How long was waited.
        waited: Duration,
    },
    /// It said something that no such server says.
    #[error(
        "the server behind this rig gave no proper answer: {reason}; try again, and tell its operator if it stays so"
    )]
    BadAnswer {
        /// What was wrong with it.
        reason: String,
    },
    /// It failed and said so.
    #[error("the server behind this rig failed with status {status}: {words}")]
    Failed {
        /// Its status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// It takes no more work now.
    #[error("the server behind this rig is busy: {words}")]
    Busy {
        /// Its words.
        words: String,
        /// When to come again, if it said so.
        retry_seconds: Option<u64>,
    },
    /// It does not know our key.
    #[error(
        "the server behind this rig refuses the rig's key (status {status}); its operator must set `api_key_file`"
    )]
    KeyRefused {
        /// Its status.
        status: u16,
    },
    /// The customer took nothing of his answer for too long.
    #[error("the answer was not read for {} s", waited.as_secs_f64())]
    NotRead {
        /// How long was waited.
        waited: Duration,
    },
}

impl UpstreamFault {
    /// True if the server, and not the request, is to blame: a few of these in a row and it is looked at.
    #[must_use]
    pub const fn is_servers(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::BadAnswer { .. }
            | Self::Failed { .. } => true,
            Self::Busy { .. } | Self::KeyRefused { .. } | Self::NotRead { .. } => false,
        }
    }
}

/// Why a request was not passed on, or not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassFault {
    /// By the rig's own rules.
    #[error(transparent)]
    Engine(#[from] EngineFault),
    /// By the server.
    #[error(transparent)]
    Server(#[from] UpstreamFault),
}

/// Printable beginning of what a server said.
pub(super) fn words_of(body: &[u8]) -> String {
    /// Enough to recognise a fault by.
    const LETTERS_MAX: usize = 300;
    let words = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|value| {
        let error = value.get("error").unwrap_or(&value);
        let message = [error.get("message"), error.get("detail"), Some(error)];
        message.into_iter().flatten().find_map(|words| words.as_str().map(str::to_owned))
    });
    let text = words.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.trim();
    match text.char_indices().nth(LETTERS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None if text.is_empty() => "it gave no reason".to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_found_where_servers_put_them() {
        for (body, words) in [
            (r#"{"error":{"message":"no such model","code":404}}"#, "no such model"),
            (r#"{"object":"error","message":"too long"}"#, "too long"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"error":"plain"}"#, "plain"),
            ("<html>\n\u{7}</html>", "<html>  </html>"),
            ("", "it gave no reason"),
        ] {
            assert_eq!(words_of(body.as_bytes()), words);
        }
        assert_eq!(words_of("x".repeat(1000).as_bytes()).len(), 302);
    }
}
