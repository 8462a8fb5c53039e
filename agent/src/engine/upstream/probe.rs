//! Whether a server answers, found out by letting it answer: a health page may say yes while nothing works behind it.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::fault::{UpstreamFault, words_of};
use super::wire::Wire;

/// One token takes milliseconds, but it may wait behind the prompts of others.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(60);
/// A list of models, or a health page.
const PAGE_WAIT_MAX: Duration = Duration::from_secs(10);

/// How far a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// It answers.
    Answers(Served),
    /// Not yet, or not now.
    Silent(UpstreamFault),
    /// It never will as it is configured; the text says what to change.
    Never(String),
}

/// What a server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    /// What it calls the model.
    pub(super) model: String,
    /// Longest sequence, if it says so.
    pub(super) context_tokens: Option<usize>,
    /// How it proves.
    pub(super) proofs: ProofPaths,
}

/// Where a server takes orders of Proof of Compute v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProofPaths {
    /// Nowhere.
    #[default]
    Absent,
    /// It is an MLNode: where we take them too.
    MlNode,
    /// It is one engine of an MLNode, whose front must add the engine's share.
    Engine,
}

impl ProofPaths {
    /// What stands before the last step of the path.
    pub(super) const fn base(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::MlNode => Some("/api/v1/inference/pow"),
            Self::Engine => Some("/api/v1/pow"),
        }
    }
}

/// Asks everything: the models, one token, and whether it proves.
pub(super) async fn look(wire: &Wire, wanted: Option<&str>) -> Reading {
    let (model, context_tokens) = match models(wire, wanted).await {
        Ok(found) => found,
        Err(reading) => return reading,
    };
    if let Err(reading) = answer(wire, &model).await {
        return reading;
    }
    Reading::Answers(Served { model, context_tokens, proofs: proofs(wire).await })
}

/// True if the server still answers a page. `GET /health` is asked first; a server without it lists its models.
pub(super) async fn is_alive(wire: &Wire) -> Result<(), UpstreamFault> {
    for path in ["/health", "/v1/models"] {
        let (status, body) = wire.ask_whole(Method::GET, path, None, PAGE_WAIT_MAX).await?;
        match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {}
            status if status.is_server_error() => {
                let words = words_of(&body);
                return Err(UpstreamFault::Failed { status: status.as_u16(), words });
            }
            _ => return Ok(()),
        }
    }
    Err(UpstreamFault::BadAnswer { reason: "neither /health nor /v1/models is there".into() })
}

/// The models a server lists, with the longest sequence of each if it says so.
pub(super) async fn models(
    wire: &Wire,
    wanted: Option<&str>,
) -> Result<(String, Option<usize>), Reading> {
    let page = wire.ask_whole(Method::GET, "/v1/models", None, PAGE_WAIT_MAX).await;
    let (status, body) = page.map_err(Reading::Silent)?;
    refuse_key(status)?;
    if !status.is_success() {
        return Err(silent(status, &body));
    }
    let listed: Value = serde_json::from_slice(&body).unwrap_or_default();
    let listed = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named =
        |entry: &&Value| entry["id"].as_str().is_some_and(|id| wanted.is_none_or(|w| w == id));
    let Some(found) = listed.iter().find(named) else {
        let names: Vec<&str> = listed.iter().filter_map(|entry| entry["id"].as_str()).collect();
        return Err(match wanted {
            Some(wanted) if !names.is_empty() => Reading::Never(format!(
                "the server does not serve {wanted:?}; it lists {}: set `model` to one of these",
                names.join(", ")
            )),
            Some(_) | None => Reading::Silent(UpstreamFault::BadAnswer {
                reason: format!("/v1/models lists no model: {}", words_of(&body)),
            }),
        });
    };
    // vLLM's name and llama.cpp's.
    let context = [&found["max_model_len"], &found["meta"]["n_ctx"], &found["meta"]["n_ctx_train"]];
    let context = context.into_iter().find_map(Value::as_u64);
    let context = context.and_then(|tokens| usize::try_from(tokens).ok());
    Ok((found["id"].as_str().unwrap_or_default().to_owned(), context))
}

/// Has the model make one token, or one vector if it makes no tokens.
async fn answer(wire: &Wire, model: &str) -> Result<(), Reading> {
    let chat = json!([{"role": "user", "content": "1"}]);
    let asks = [
        ("/v1/completions", json!({"model": model, "prompt": "1", "max_tokens": 1})),
        ("/v1/chat/completions", json!({"model": model, "messages": chat, "max_tokens": 1})),
        ("/v1/embeddings", json!({"model": model, "input": "1"})),
    ];
    let mut last = None;
    for (path, body) in asks {
        let body = Some(Bytes::from(body.to_string()));
        let answered = wire.ask_whole(Method::POST, path, body, TOKEN_WAIT_MAX).await;
        let (status, body) = answered.map_err(Reading::Silent)?;
        refuse_key(status)?;
        if status.is_success() {
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            if answer["choices"].is_array() || answer["data"].is_array() {
                return Ok(());
            }
            let reason = format!("POST {path} gave {}", words_of(&body));
            return Err(Reading::Silent(UpstreamFault::BadAnswer { reason }));
        }
        // A model of another kind says so by a 4xx, or by 501.
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            return Err(silent(status, &body));
        }
        last = Some(silent(status, &body));
    }
    let nothing = || UpstreamFault::BadAnswer { reason: "it answers no path".into() };
    Err(last.unwrap_or_else(|| Reading::Silent(nothing())))
}

async fn proofs(wire: &Wire) -> ProofPaths {
    for paths in [ProofPaths::MlNode, ProofPaths::Engine] {
        let Some(base) = paths.base() else { continue };
        let path = format!("{base}/status");
        let page = wire.ask_whole(Method::GET, &path, None, PAGE_WAIT_MAX).await;
        let Ok((status, body)) = page else { continue };
        let view: Value = serde_json::from_slice(&body).unwrap_or_default();
        // The first version of the protocol has the engine's path too, and this field.
        let first_version = !view["is_model_initialized"].is_null();
        if status.is_success() && view["status"].is_string() && !first_version {
            return paths;
        }
    }
    ProofPaths::Absent
}

fn silent(status: StatusCode, body: &[u8]) -> Reading {
    let words = words_of(body);
    Reading::Silent(UpstreamFault::Failed { status: status.as_u16(), words })
}

fn refuse_key(status: StatusCode) -> Result<(), Reading> {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let fault = UpstreamFault::KeyRefused { status: status.as_u16() };
        return Err(Reading::Never(fault.to_string()));
    }
    Ok(())
}
