//! What goes into a generation and what comes out: plain values, no GPU.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::grammar::Grammar;
use crate::infval::Filters;

/// Most logprobs a request may ask for per position (OpenAI's limit is 20; replay checks use 5).
pub const TOP_LOGPROBS_MAX: usize = 64;
/// Most stop strings a request may carry; OpenAI allows 4, we are lenient but bounded.
pub const STOP_STRINGS_MAX: usize = 16;
/// Most tokens a request may bias; OpenAI allows 300.
pub const LOGIT_BIAS_MAX: usize = 1024;

/// One turn of a conversation, as the model's template sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what else the model's template knows.
    pub role: String,
    pub content: String,
    /// Further fields that templates read: `name`, `tool_calls`, `tool_call_id`, ..
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned(), more: Map::new() }
    }
}

/// A conversation with what its model's template is told beside the messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// Tools the model may call, in OpenAI's form; the template's `tools`.
    pub tools: Vec<Value>,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}

/// How the next token is drawn. First the penalties and biases change the logits, then the
/// temperature flattens them, then the filters apply in the order top-k, top-p, min-p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 means greedy: the likeliest token, lowest id on a tie.
    pub temperature: f32,
    /// Keep the likeliest tokens until their probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keep this many tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Same seed, prompt and model give the same text on the same adapter.
    pub seed: u64,
    /// Divides positive and multiplies negative logits of tokens in prompt and answer; 1 is none.
    pub repetition_penalty: f32,
    /// Taken from the logit of every token that the answer has; 0 is none.
    pub presence_penalty: f32,
    /// Taken from the logit of a token for each time that the answer has it; 0 is none.
    pub frequency_penalty: f32,
    /// Added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Draws by the network's deterministic sampling contract instead of the filters above.
    pub contract: Option<ContractDraw>,
}

/// A draw that others repeat: from a list of the likeliest tokens, which is reported with each token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractDraw {
    pub base_seed: String,
    pub filters: Filters,
    /// Tokens of a list, at most [`TOP_LOGPROBS_MAX`]. Nothing outside it is drawn.
    pub listed: usize,
}

/// A least length: until there are so many tokens, none of `ends` is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtLeast {
    pub tokens: usize,
    pub ends: Vec<u32>,
}

/// What logprobs tell of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogprobsMode {
    /// The model itself, before anything a request asks for.
    #[default]
    Raw,
    /// What is drawn from: after penalties, temperature and filters. Tokens that these leave out have
    /// [`FILTERED_OUT`](crate::infval::judgement::FILTERED_OUT).
    Processed,
}

/// How a given answer is scored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scoring {
    /// Alternatives per position.
    pub top: usize,
    pub mode: LogprobsMode,
    /// What the answer was drawn with; counts where logprobs are processed.
    pub sampling: Sampling,
    pub at_least: AtLeast,
}

impl Scoring {
    /// What the model itself says.
    #[must_use]
    pub fn raw(top: usize) -> Self {
        Self { top, ..Self::default() }
    }
}

impl Sampling {
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        seed: 0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Vec::new(),
        contract: None,
    };
}

impl Default for Sampling {
    fn default() -> Self {
        Self::GREEDY
    }
}

/// One generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateRequest {
    pub prompt_ids: Vec<u32>,
    /// Upper bound on new tokens; the context's end also bounds it.
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Text that ends the generation; it is not part of the answer.
    pub stop: Vec<String>,
    /// Number of alternatives per position; `None` returns no logprobs at all.
    pub top_logprobs: Option<usize>,
    /// Go on past the end-of-text token (benchmarks).
    pub ignore_end: bool,
    /// Replay: these ids are taken whatever the model prefers, and their logprobs returned.
    pub enforced_ids: Option<Vec<u32>>,
    /// The form the answer must have; it ends where the grammar does.
    pub grammar: Option<Grammar>,
    /// Control tokens are part of the text, but for those that end it: some models mark tool calls
    /// with them.
    pub keep_control: bool,
    /// Not kept where a grammar has come to its end.
    pub at_least: AtLeast,
    pub logprobs_mode: LogprobsMode,
}

/// A token and its natural-log probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    pub id: u32,
    pub logprob: f32,
}

/// The chosen token of one position and the likeliest ones, best first.
///
/// Logprobs are those of the request's [`LogprobsMode`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionLogprobs {
    pub id: u32,
    pub logprob: f32,
    pub top: Vec<TokenLogprob>,
    /// What a [`ContractDraw`] drew the token from, best first; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drawn_from: Vec<TokenLogprob>,
}

/// One step of a running generation, handed to the callback.
#[derive(Clone, Copy, Debug)]
pub struct TokenEvent<'a> {
    /// Position among the new tokens, from 0.
    pub index: usize,
    pub id: u32,
    /// Text that became certain with this token: whole UTF-8 characters, nothing that may still turn
    /// out to be the start of a stop string. May be empty.
    pub text: &'a str,
    /// Present if the request asked for logprobs.
    pub logprobs: Option<&'a PositionLogprobs>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// End-of-text token or a stop string.
    Stop,
    /// `max_tokens` or the context's end.
    Length,
    /// The callback asked to break off.
    Cancelled,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    pub prefill: Duration,
    pub decode: Duration,
}

impl Timings {
    /// New tokens per second after the first (the first belongs to the prefill).
    #[must_use]
    pub fn decode_tokens_per_second(&self, completion_tokens: usize) -> f64 {
        let steps = completion_tokens.saturating_sub(1) as f64;
        let seconds = self.decode.as_secs_f64();
        if seconds > 0.0 { steps / seconds } else { 0.0 }
    }
}

/// A finished generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// New ids, the end-of-text token included if the model produced it.
    pub ids: Vec<u32>,
    /// Their text without control tokens and without the stop string.
    pub text: String,
    pub finish: FinishReason,
    pub usage: Usage,
    /// One entry per id if the request asked for logprobs, else empty.
    pub logprobs: Vec<PositionLogprobs>,
    pub timings: Timings,
}
