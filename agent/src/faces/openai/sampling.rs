//! How the tokens of an answer are drawn: the ranges are OpenAI's, the further fields are vLLM's and the network's.

use roadbed_compute::infval::{ContractError, Filters};
use roadbed_compute::llm::{LOGIT_BIAS_MAX, STOP_STRINGS_MAX};
use roadbed_compute::{LogprobsMode, Sampling};
use serde_json::{Map, Value};

use super::super::body::Fields;

pub(super) fn read_sampling(fields: &Fields<'_>) -> Sampling {
    let within = |name: &str, least: f64, most: f64, default: f64| {
        fields.within(name, least, most).unwrap_or(default) as f32
    };
    // -1 keeps all tokens, as in the network's own engine.
    let top_k = fields.optional("top_k").unwrap_or(-1i64);
    if top_k < -1 {
        fields.complain("top_k", "greater_than_equal", "-1 or more");
    }
    let repetition_penalty = within("repetition_penalty", 0.0, 10.0, 1.0);
    if repetition_penalty == 0.0 {
        fields.complain("repetition_penalty", "greater_than", "above 0");
    }
    Sampling {
        temperature: within("temperature", 0.0, 2.0, 1.0),
        top_p: within("top_p", 0.0, 1.0, 1.0),
        top_k: u32::try_from(top_k.max(0)).unwrap_or(u32::MAX),
        min_p: within("min_p", 0.0, 1.0, 0.0),
        // Any integer is a seed; without one the answer shall differ from call to call.
        seed: fields.optional("seed").map_or_else(fresh_seed, i64::cast_unsigned),
        repetition_penalty,
        presence_penalty: within("presence_penalty", -2.0, 2.0, 0.0),
        frequency_penalty: within("frequency_penalty", -2.0, 2.0, 0.0),
        logit_bias: read_logit_bias(fields),
        contract: None,
    }
}

/// What a draw by the sampling contract is made from, if one is wanted: the request's numbers as they were written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContractTerms {
    /// `deterministic_sampling`; `None` leaves it to the node.
    pub(super) wanted: Option<ContractWish>,
    pub(super) user_seed: Option<i64>,
    pub(super) filters: Result<Filters, ContractError>,
}

/// `deterministic_sampling`: `true`, `false`, or `{"contract_version": "1.0.0", "inference_id": ".."}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContractWish {
    No,
    Yes { version: Option<String>, inference_id: Option<String> },
}

pub(super) fn read_contract(fields: &Fields<'_>) -> ContractTerms {
    let wanted = match fields.value("deterministic_sampling") {
        None => None,
        Some(Value::Bool(false)) => Some(ContractWish::No),
        Some(Value::Bool(true)) => Some(ContractWish::Yes { version: None, inference_id: None }),
        Some(_) => fields.object("deterministic_sampling").map(|terms| ContractWish::Yes {
            version: terms.optional("contract_version"),
            inference_id: terms.optional("inference_id"),
        }),
    };
    let number = |name: &str| fields.value(name).and_then(Value::as_f64);
    let top_k = fields.value("top_k").and_then(Value::as_i64);
    let temperature = number("temperature").unwrap_or(1.0);
    let filters = Filters::new(temperature, number("top_p"), top_k, number("min_p"));
    let user_seed = fields.value("seed").and_then(Value::as_i64);
    ContractTerms { wanted, user_seed, filters }
}

/// `logprobs_mode`, in the network's words or vLLM's.
pub(super) fn read_logprobs_mode(fields: &Fields<'_>) -> Option<LogprobsMode> {
    let word: String = fields.optional("logprobs_mode")?;
    let mode = logprobs_mode(&word);
    if mode.is_none() {
        let message = "expected \"raw\" or \"processed\"; logits are not told";
        fields.complain("logprobs_mode", "literal_error", message);
    }
    mode
}

/// A mode by its name.
pub(in super::super) fn logprobs_mode(word: &str) -> Option<LogprobsMode> {
    match word {
        "raw" | "raw_logprobs" => Some(LogprobsMode::Raw),
        "processed" | "processed_logprobs" => Some(LogprobsMode::Processed),
        _ => None,
    }
}

fn fresh_seed() -> u64 {
    let mut bytes = [0; 8];
    // Without entropy the answer is the same each time, which is allowed.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// `{"1234": -100}`: token ids as text, biases from -100 to 100.
fn read_logit_bias(fields: &Fields<'_>) -> Vec<(u32, f32)> {
    let Some(biases) = fields.optional::<&Map<String, Value>>("logit_bias") else { return vec![] };
    if biases.len() > LOGIT_BIAS_MAX {
        fields.complain("logit_bias", "too_long", format!("at most {LOGIT_BIAS_MAX} tokens"));
        return vec![];
    }
    let read = |(id, bias): (&String, &Value)| {
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        Some((id.parse().ok()?, bias? as f32))
    };
    let read: Option<Vec<(u32, f32)>> = biases.iter().map(read).collect();
    read.unwrap_or_else(|| {
        let message = "expected token ids as text with biases from -100 to 100: {\"1234\": -100}";
        fields.complain("logit_bias", "value_error", message);
        vec![]
    })
}

pub(super) fn read_stop(fields: &Fields<'_>) -> Vec<String> {
    let stop = match fields.value("stop") {
        None => return vec![],
        Some(Value::String(text)) => vec![text.clone()],
        Some(_) => fields.list("stop").unwrap_or_default(),
    };
    if stop.len() > STOP_STRINGS_MAX {
        fields.complain("stop", "too_long", format!("at most {STOP_STRINGS_MAX} texts"));
    }
    if stop.iter().any(String::is_empty) {
        fields.complain("stop", "string_too_short", "an empty text would end every answer");
    }
    stop
}
