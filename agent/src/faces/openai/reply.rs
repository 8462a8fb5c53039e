//! Writing answers in OpenAI's form, whole or in chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use roadbed_compute::infval::decimal::python_text;
use roadbed_compute::{TokenLogprob, Usage};
use serde_json::{Map, Value, json};

use super::answer::{CallPart, Said};
use super::request::Completion;
use crate::engine::{EngineFault, ModelInfo, Scored, TokenText};

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
    include_usage: bool,
    /// How the answer is drawn, if others shall repeat it.
    contract: Option<Value>,
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
        let id = random_text(24)?;
        let before = match shape {
            Shape::Chat => "chatcmpl",
            Shape::Text => "cmpl",
        };
        Ok(Self {
            shape,
            id: format!("{before}-{id}"),
            created: unix_seconds(),
            model: info.served_as.clone(),
            numeric_tokens: completion.numeric_tokens,
            return_ids: completion.return_ids,
            include_usage: completion.include_usage,
            wants_logprobs: completion.text.top_logprobs.is_some() || completion.score.is_some(),
            contract: None,
        })
    }

    /// The form of an answer that says how it was drawn.
    pub(super) fn drawn_by(self, contract: Option<Value>) -> Self {
        Self { contract, ..self }
    }

    fn head(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let mut head = Map::new();
        head.insert("id".into(), json!(self.id));
        head.insert("object".into(), json!(object));
        head.insert("created".into(), json!(self.created));
        head.insert("model".into(), json!(self.model));
        head.insert("choices".into(), Value::Array(choices));
        if let Some(contract) = &self.contract {
            head.insert("deterministic_sampling".into(), contract.clone());
        }
        head
    }

    const fn object(&self, chunk: bool) -> &'static str {
        match (self.shape, chunk) {
            (Shape::Chat, false) => "chat.completion",
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Text, _) => "text_completion",
        }
    }

    /// A whole reply.
    pub(super) fn whole(&self, choices: Vec<Value>, usage: Usage, prompt_ids: &[u32]) -> Value {
        let mut whole = self.head(self.object(false), choices);
        whole.insert("usage".into(), usage_view(usage));
        if self.return_ids {
            whole.insert("prompt_token_ids".into(), json!(prompt_ids));
        }
        Value::Object(whole)
    }

    /// A replayed answer.
    pub(super) fn scored(&self, scored: &Scored) -> Value {
        let said = Said { content: scored.text.clone(), ..Said::default() };
        let finish = if scored.ended { "stop" } else { "length" };
        let choice = self.choice(0, &said, &scored.tokens, &ids_of(&scored.tokens), finish);
        self.whole(vec![choice], scored.usage, &scored.prompt_ids)
    }

    /// One answer of a whole reply.
    pub(super) fn choice(
        &self,
        index: usize,
        said: &Said,
        tokens: &[TokenText],
        ids: &[u32],
        finish: &str,
    ) -> Value {
        let mut choice = Map::new();
        choice.insert("index".into(), json!(index));
        match self.shape {
            Shape::Chat => choice.insert("message".into(), message(said)),
            Shape::Text => choice.insert("text".into(), json!(said.content)),
        };
        choice.insert("logprobs".into(), self.logprobs(tokens, 0));
        choice.insert("finish_reason".into(), json!(finish));
        if self.return_ids {
            choice.insert("token_ids".into(), json!(ids));
        }
        Value::Object(choice)
    }

    /// The first chunk of a chat's answer: who speaks.
    pub(super) fn opening(&self, index: usize) -> Option<Value> {
        match self.shape {
            Shape::Chat => {
                let delta = json!({"role": "assistant", "content": ""});
                Some(self.chunk(json!({
                    "index": index, "delta": delta, "logprobs": null, "finish_reason": null,
                })))
            }
            Shape::Text => None,
        }
    }

    /// A chunk of an answer; `None` if there is nothing to show yet. `offset` is where its text begins.
    pub(super) fn piece(
        &self,
        index: usize,
        said: &Said,
        tokens: &[TokenText],
        ids: &[u32],
        offset: usize,
    ) -> Option<Value> {
        if said.is_empty() && tokens.is_empty() && !self.return_ids {
            return None;
        }
        let mut choice = self.chunk_choice(index, said, Value::Null);
        choice.insert("logprobs".into(), self.logprobs(tokens, offset));
        if self.return_ids {
            choice.insert("token_ids".into(), json!(ids));
        }
        Some(self.chunk(Value::Object(choice)))
    }

    /// The last chunk of an answer, with text that was held back.
    pub(super) fn closing(&self, index: usize, rest: &Said, finish: &str) -> Value {
        self.chunk(Value::Object(self.chunk_choice(index, rest, json!(finish))))
    }

    fn chunk_choice(&self, index: usize, said: &Said, finish: Value) -> Map<String, Value> {
        let mut choice = Map::new();
        choice.insert("index".into(), json!(index));
        match self.shape {
            Shape::Chat => choice.insert("delta".into(), delta(said)),
            Shape::Text => choice.insert("text".into(), json!(said.content)),
        };
        choice.insert("logprobs".into(), Value::Null);
        choice.insert("finish_reason".into(), finish);
        choice
    }

    /// The chunk after the answers that counts them.
    pub(super) fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.head(self.object(true), vec![]);
        chunk.insert("usage".into(), usage_view(usage));
        Value::Object(chunk)
    }

    fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.head(self.object(true), vec![choice]);
        if self.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        Value::Object(chunk)
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
        if !token.drawn_from.is_empty() {
            entry["drawn_from"] = drawn_from(token);
        }
        entry
    }

    fn text_logprobs(&self, tokens: &[TokenText], offset: usize) -> Value {
        let names: Vec<String> = tokens.iter().map(|token| self.name(token)).collect();
        let logprobs: Vec<f32> = tokens.iter().map(|token| token.logprob).collect();
        let tops: Vec<Value> = tokens
            .iter()
            .map(|token| {
                // The first token of a prompt follows nothing.
                if token.logprob.is_nan() {
                    return Value::Null;
                }
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
        let mut view = json!({
            "tokens": names, "token_logprobs": logprobs, "top_logprobs": tops,
            "text_offset": offsets,
        });
        if tokens.iter().any(|token| !token.drawn_from.is_empty()) {
            view["drawn_from"] = tokens.iter().map(drawn_from).collect();
        }
        view
    }
}

/// What a token was drawn from: ids and log probabilities as texts, the one form that every reader takes for the same
/// number.
fn drawn_from(token: &TokenText) -> Value {
    let text = |listed: &TokenLogprob| {
        (listed.id.to_string(), json!(python_text(f64::from(listed.logprob))))
    };
    Value::Object(token.drawn_from.iter().map(text).collect())
}

fn ids_of(tokens: &[TokenText]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

/// Random letters and digits.
fn random_text(length: usize) -> Result<String, EngineFault> {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut bytes = vec![0u8; length];
    getrandom::fill(&mut bytes)
        .map_err(|error| EngineFault::Failed { reason: format!("no random bytes: {error}") })?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

/// The parts of calls as OpenAI writes them; a new call gets an id.
fn calls_view(calls: &[CallPart], chunk: bool) -> Value {
    calls
        .iter()
        .map(|call| {
            let mut view = Map::new();
            if chunk {
                view.insert("index".into(), json!(call.index));
            }
            let mut function = Map::new();
            if let Some(name) = &call.name {
                // Nine letters: some templates refuse any other id when it comes back.
                let id = random_text(9).unwrap_or_else(|_| format!("call{:05}", call.index));
                view.insert("id".into(), json!(id));
                view.insert("type".into(), json!("function"));
                function.insert("name".into(), json!(name));
            }
            function.insert("arguments".into(), json!(call.arguments));
            view.insert("function".into(), Value::Object(function));
            Value::Object(view)
        })
        .collect()
}

fn message(said: &Said) -> Value {
    let mut message = json!({"role": "assistant"});
    message["content"] = match said.calls.is_empty() {
        true => json!(said.content),
        // Beside calls, blanks are no content.
        false if said.content.trim().is_empty() => Value::Null,
        false => json!(said.content.trim_end()),
    };
    if !said.reasoning.is_empty() {
        message["reasoning_content"] = json!(said.reasoning);
    }
    if !said.calls.is_empty() {
        message["tool_calls"] = calls_view(&said.calls, false);
    }
    message
}

fn delta(said: &Said) -> Value {
    let mut delta = json!({});
    if !said.reasoning.is_empty() {
        delta["reasoning_content"] = json!(said.reasoning);
    }
    if !said.content.is_empty() {
        delta["content"] = json!(said.content);
    }
    if !said.calls.is_empty() {
        delta["tool_calls"] = calls_view(&said.calls, true);
    }
    delta
}

fn usage_view(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
