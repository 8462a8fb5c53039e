//! Asking every rig at once, and making one answer of theirs.
//!
//! An order succeeds when one rig has carried it out; what others said against it stands in `errors`. What all refuse alike
//! is answered as they answered it, everything else as the network's own fan-out does.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::super::reply::detail;
use super::super::rig::Rig;
use super::super::wire::{Reply, Wire, WireFault};
use super::{Backend, FanOut};

/// Characters of an error text that are passed on.
const ERROR_TEXT_MAX: usize = 500;

/// What a rig said.
pub(super) struct Said {
    pub(super) label: u16,
    pub(super) outcome: Result<Reply, WireFault>,
}

impl Said {
    /// The answer, if it is a success.
    pub(super) fn success(&self) -> Option<&Reply> {
        self.outcome.as_ref().ok().filter(|reply| reply.status.is_success())
    }

    /// Why it is none, in the form of the network's own fan-out.
    pub(super) fn error(&self) -> Option<Value> {
        let text = match &self.outcome {
            Ok(reply) if reply.status.is_success() => return None,
            Ok(reply) => reason(reply),
            Err(fault) => fault.to_string(),
        };
        Some(json!({"port": self.label, "error": text}))
    }
}

/// What an answer says against the order.
pub(super) fn reason(reply: &Reply) -> String {
    let body = reply.json();
    let text = match &body["detail"] {
        Value::String(text) => text.clone(),
        Value::Null => String::from_utf8_lossy(&reply.body).into_owned(),
        detail => detail.to_string(),
    };
    let text: String = text.chars().take(ERROR_TEXT_MAX).collect();
    if text.is_empty() { format!("status {}", reply.status) } else { text }
}

/// All errors, null if there is none.
pub(super) fn errors(said: &[Said]) -> Value {
    let errors: Vec<Value> = said.iter().filter_map(Said::error).collect();
    if errors.is_empty() { Value::Null } else { Value::Array(errors) }
}

/// The answer when no rig has carried the order out. A rig that takes no connection has no say in it.
pub(super) fn refusal(said: &[Said]) -> Response {
    let is_there = |said: &&Said| !matches!(said.outcome, Err(WireFault::Unreached { .. }));
    let there: Vec<&Said> = said.iter().filter(is_there).collect();
    let replies: Vec<&Reply> = there.iter().filter_map(|said| said.outcome.as_ref().ok()).collect();
    match replies.first() {
        None if there.is_empty() => no_backends(),
        Some(first)
            if replies.len() == there.len()
                && replies.iter().all(|reply| reply.status == first.status)
                && reason(first) != ALREADY_GENERATING =>
        {
            if first.status == StatusCode::SERVICE_UNAVAILABLE {
                no_backends()
            } else {
                in_form(first)
            }
        }
        None | Some(_) => detail(StatusCode::BAD_GATEWAY, json!({"errors": errors(said)})),
    }
}

/// A rig's answer as the node's own. What no MLNode says is told as a fault of the rig.
pub(super) fn in_form(reply: &Reply) -> Response {
    let (status, body) = (reply.status, reply.json());
    let is_error = status.is_client_error() || status.is_server_error();
    if (status.is_success() && body.is_object()) || (is_error && body.get("detail").is_some()) {
        reply.relayed()
    } else if is_error {
        detail(status, reason(reply))
    } else {
        detail(
            StatusCode::BAD_GATEWAY,
            format!("a rig answered {status} without what it was asked for"),
        )
    }
}

/// An engine's refusal to begin a second round; one of several engines, so an entry among the errors.
pub(super) const ALREADY_GENERATING: &str = "Already generating";

/// No rig has a model up.
pub(super) fn no_backends() -> Response {
    detail(StatusCode::SERVICE_UNAVAILABLE, "No vLLM backends available")
}

/// One question to one rig.
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Bytes>,
    pub(super) wait: Duration,
}

impl Question {
    pub(super) fn get(path: &str, wait: Duration) -> Self {
        Self { method: Method::GET, path: path.to_owned(), body: None, wait }
    }

    pub(super) fn post(path: &str, body: Option<Bytes>, wait: Duration) -> Self {
        Self { method: Method::POST, path: path.to_owned(), body, wait }
    }

    pub(super) async fn to(&self, wire: &Wire, rig: &Arc<Rig>) -> Result<Reply, WireFault> {
        let body = self.body.clone();
        wire.call(rig, self.method.clone(), &self.path, body, self.wait).await
    }
}

impl FanOut {
    /// Asks all rigs, the ones known to be down too.
    pub(super) async fn ask_all(&self, question: &Question) -> Vec<Said> {
        self.ask(self.backends.iter(), question).await
    }

    /// Asks the rigs that may answer.
    pub(super) async fn ask_present(&self, question: &Question) -> Vec<Said> {
        self.ask(self.present(), question).await
    }

    /// The rigs not known to be down.
    pub(super) fn present(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|backend| backend.rig.may_answer())
    }

    async fn ask(
        &self,
        backends: impl Iterator<Item = &Backend>,
        question: &Question,
    ) -> Vec<Said> {
        join_all(backends.map(async |backend| Said {
            label: backend.label,
            outcome: question.to(&self.wire, &backend.rig).await,
        }))
        .await
    }
}
