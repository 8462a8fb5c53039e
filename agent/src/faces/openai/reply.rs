//! Writing answers in OpenAI's form, whole or in chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use roadbed_compute::{FinishReason, Usage};
use serde_json::{Map, Value, json};

use super::request::Completion;
use crate::engine::{Answer, EngineFault, ModelInfo, Scored, StreamToken, TokenText};

/// Which of the two paths answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Text,
}

/// What all parts of one answer share.
pub(super) struct ReplyForm {
    shape: Shape,
    id: String,
    created: u64,
    model: String,
    numeric_tokens: bool,
    return_ids: bool,
    wants_logprobs: bool,
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl ReplyForm {
    /// A form with an id of its own.
    pub(super) fn new(
        shape: Shape,
        info: &ModelInfo,
        completion: &Completion,
    ) -> Result<Self, EngineFault> {
        let mut bytes = [0u8; 12];
        getrandom::fill(&mut bytes)
            .map_err(|error| EngineFault::Failed { reason: format!("no random bytes: {error}") })?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let before = match shape {
            Shape::Chat => "chatcmpl",
            Shape::Text => "cmpl",
        };
        Ok(Self {
            shape,
            id: format!("{before}-{hex}"),
            created: unix_seconds(),
            model: info.served_as.clone(),
            numeric_tokens: completion.numeric_tokens,
            return_ids: completion.return_ids,
            wants_logprobs: completion.text.top_logprobs.is_some() || completion.score.is_some(),
        })
    }

    fn head(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let mut head = Map::new();
        head.insert("id".into(), json!(self.id));
        head.insert("object".into(), json!(object));
        head.insert("created".into(), json!(self.created));
        head.insert("model".into(), json!(self.model));
        head.insert("choices".into(), Value::Array(choices));
        head
    }

    const fn object(&self, chunk: bool) -> &'static str {
        match (self.shape, chunk) {
            (Shape::Chat, false) => "chat.completion",
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Text, _) => "text_completion",
        }
    }

    /// A generated answer.
    pub(super) fn answer(&self, answer: &Answer) -> Value {
        let finish = match answer.finish() {
            FinishReason::Stop => "stop",
            FinishReason::Length | FinishReason::Cancelled => "length",
        };
        let generation = &answer.generation;
        self.whole(
            &generation.text,
            &answer.tokens,
            finish,
            generation.usage,
            &answer.prompt_ids,
            &generation.ids,
        )
    }

    /// A replayed answer.
    pub(super) fn scored(&self, scored: &Scored) -> Value {
        let ids: Vec<u32> = scored.tokens.iter().map(|token| token.id).collect();
        let finish = if scored.ended { "stop" } else { "length" };
        self.whole(&scored.text, &scored.tokens, finish, scored.usage, &scored.prompt_ids, &ids)
    }

    fn whole(
        &self,
        text: &str,
        tokens: &[TokenText],
        finish: &str,
        usage: Usage,
        prompt_ids: &[u32],
        ids: &[u32],
    ) -> Value {
        let logprobs = self.logprobs(tokens, 0);
        let mut choice = Map::new();
        choice.insert("index".into(), json!(0));
        match self.shape {
            Shape::Chat => {
                choice.insert("message".into(), json!({"role": "assistant", "content": text}));
            }
            Shape::Text => {
                choice.insert("text".into(), json!(text));
            }
        }
        choice.insert("logprobs".into(), logprobs);
        choice.insert("finish_reason".into(), json!(finish));
        if self.return_ids {
            choice.insert("token_ids".into(), json!(ids));
        }
        let mut whole = self.head(self.object(false), vec![Value::Object(choice)]);
        whole.insert("usage".into(), usage_view(usage));
        if self.return_ids {
            whole.insert("prompt_token_ids".into(), json!(prompt_ids));
        }
        Value::Object(whole)
    }

    /// The first chunk of a chat: who speaks.
    pub(super) fn opening(&self) -> Option<Value> {
        match self.shape {
            Shape::Chat => {
                let delta = json!({"role": "assistant", "content": ""});
                Some(self.chunk(json!({
                    "index": 0, "delta": delta, "logprobs": null, "finish_reason": null,
                })))
            }
            Shape::Text => None,
        }
    }

    /// A chunk with one token; `None` if there is nothing to show yet. `offset` is where its text begins.
    pub(super) fn token(&self, token: &StreamToken, offset: usize) -> Option<Value> {
        if token.text.is_empty() && token.logprobs.is_none() && !self.return_ids {
            return None;
        }
        let tokens = token.logprobs.as_slice();
        let mut choice = Map::new();
        choice.insert("index".into(), json!(0));
        match self.shape {
            Shape::Chat => choice.insert("delta".into(), json!({"content": token.text})),
            Shape::Text => choice.insert("text".into(), json!(token.text)),
        };
        choice.insert("logprobs".into(), self.logprobs(tokens, offset));
        choice.insert("finish_reason".into(), Value::Null);
        if self.return_ids {
            choice.insert("token_ids".into(), json!([token.id]));
        }
        Some(self.chunk(Value::Object(choice)))
    }

    /// The last chunk of the answer itself, with text that was held back as a possible stop text.
    pub(super) fn closing(&self, finish: FinishReason, rest: &str) -> Value {
        let finish = match finish {
            FinishReason::Stop => "stop",
            FinishReason::Length | FinishReason::Cancelled => "length",
        };
        self.chunk(match self.shape {
            Shape::Chat => {
                let delta = if rest.is_empty() { json!({}) } else { json!({"content": rest}) };
                json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish})
            }
            Shape::Text => {
                json!({"index": 0, "text": rest, "logprobs": null, "finish_reason": finish})
            }
        })
    }

    /// The chunk after the answer that counts it.
    pub(super) fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.head(self.object(true), vec![]);
        chunk.insert("usage".into(), usage_view(usage));
        Value::Object(chunk)
    }

    fn chunk(&self, choice: Value) -> Value {
        Value::Object(self.head(self.object(true), vec![choice]))
    }

    fn logprobs(&self, tokens: &[TokenText], offset: usize) -> Value {
        if !self.wants_logprobs {
            return Value::Null;
        }
        match self.shape {
            Shape::Chat => {
                let content: Vec<Value> =
                    tokens.iter().map(|token| self.chat_logprob(token)).collect();
                json!({ "content": content })
            }
            Shape::Text => self.text_logprobs(tokens, offset),
        }
    }

    fn name(&self, token: &TokenText) -> String {
        if self.numeric_tokens { token.id.to_string() } else { token.text() }
    }

    fn chat_logprob(&self, token: &TokenText) -> Value {
        let one = |token: &TokenText| {
            json!({
                "token": self.name(token), "logprob": token.logprob, "bytes": token.bytes,
            })
        };
        let mut entry = one(token);
        entry["top_logprobs"] = token.top.iter().map(one).collect();
        entry
    }

    fn text_logprobs(&self, tokens: &[TokenText], offset: usize) -> Value {
        let names: Vec<String> = tokens.iter().map(|token| self.name(token)).collect();
        let logprobs: Vec<f32> = tokens.iter().map(|token| token.logprob).collect();
        let tops: Vec<Value> = tokens
            .iter()
            .map(|token| {
                let entries = token.top.iter().map(|top| (self.name(top), json!(top.logprob)));
                Value::Object(entries.collect())
            })
            .collect();
        let offsets: Vec<usize> = tokens
            .iter()
            .scan(offset, |at, token| {
                let here = *at;
                *at += token.text().chars().count();
                Some(here)
            })
            .collect();
        json!({
            "tokens": names, "token_logprobs": logprobs, "top_logprobs": tops,
            "text_offset": offsets,
        })
    }
}

fn usage_view(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
