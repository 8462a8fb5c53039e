//! Reading completion requests: what we can do is read, what we cannot do is said, nothing is silently ignored that
//! would change the answer.

use roadbed_compute::llm::{STOP_STRINGS_MAX, TOP_LOGPROBS_MAX};
use roadbed_compute::{Message, Sampling};
use serde_json::{Value, json};

use super::super::body::Fields;
use crate::engine::{Prompt, ScoreRequest, TextRequest};

/// Most messages of a conversation; each costs at least a few tokens, so no context holds more.
const MESSAGES_MAX: usize = 4096;
/// Alternatives per position of a replay when the request does not say.
const TOP_DEFAULT: usize = 5;

/// A completion request of either path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Completion {
    /// Must be the served one, if it is given.
    pub(super) model: Option<String>,
    pub(super) text: TextRequest,
    /// Given: nothing is generated, this is scored.
    pub(super) score: Option<ScoreRequest>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// Tokens are shown as their ids: `"1234"`. The network's checks want them so.
    pub(super) numeric_tokens: bool,
    /// Ids of prompt and answer are given too.
    pub(super) return_ids: bool,
}

/// The body of `/v1/chat/completions`.
pub(super) fn read_chat(fields: &Fields<'_>) -> Option<Completion> {
    let prompt = read_messages(fields).map(|messages| Prompt::Chat(messages.into()));
    for (name, none) in [("tools", json!([])), ("functions", json!([])), ("logit_bias", json!({}))]
    {
        if fields.value(name).is_some_and(|value| *value != none) {
            fields.complain(name, "not_supported", "not supported by this engine");
        }
    }
    if let Some(format) = fields.object("response_format") {
        let kind: Option<String> = format.required("type");
        if kind.is_some_and(|kind| kind != "text") {
            format.complain("type", "not_supported", "only `text` is supported");
        }
    }
    let wanted = fields.optional("logprobs").unwrap_or(false);
    let top: Option<usize> = fields.optional("top_logprobs");
    if top.is_some_and(|top| top > 0) && !wanted {
        fields.complain("top_logprobs", "value_error", "needs `logprobs` to be true");
    }
    check_top(fields, "top_logprobs", top);
    let top_logprobs = wanted.then_some(top.unwrap_or(0));
    read_common(fields, prompt?, top_logprobs, &["max_completion_tokens", "max_tokens"], None)
}

/// The body of `/v1/completions`.
pub(super) fn read_text(fields: &Fields<'_>) -> Option<Completion> {
    let prompt = read_prompt(fields);
    if fields.optional("echo").unwrap_or(false) {
        fields.complain("echo", "not_supported", "not supported by this engine");
    }
    if fields.optional::<String>("suffix").is_some_and(|suffix| !suffix.is_empty()) {
        fields.complain("suffix", "not_supported", "not supported by this engine");
    }
    if fields.value("best_of").is_some() && fields.optional("best_of") != Some(1i64) {
        fields.complain("best_of", "not_supported", "only 1 is supported");
    }
    let top: Option<usize> = fields.optional("logprobs");
    check_top(fields, "logprobs", top);
    // OpenAI's default of this older path.
    read_common(fields, prompt?, top, &["max_tokens", "max_completion_tokens"], Some(16))
}

fn check_top(fields: &Fields<'_>, name: &str, top: Option<usize>) {
    if top.is_some_and(|top| top > TOP_LOGPROBS_MAX) {
        fields.complain(name, "less_than_equal", format!("at most {TOP_LOGPROBS_MAX}"));
    }
}

fn read_common(
    fields: &Fields<'_>,
    prompt: Prompt,
    top_logprobs: Option<usize>,
    length_names: &[&str],
    length_default: Option<usize>,
) -> Option<Completion> {
    if fields.value("n").is_some() && fields.optional("n") != Some(1i64) {
        fields.complain("n", "not_supported", "only n = 1 is supported; send the request n times");
    }
    for name in ["frequency_penalty", "presence_penalty"] {
        if fields.within(name, -2.0, 2.0).is_some_and(|penalty| penalty != 0.0) {
            fields.complain(name, "not_supported", "only 0 is supported by this engine");
        }
    }
    if fields.within("repetition_penalty", 0.0, 10.0).is_some_and(|penalty| penalty != 1.0) {
        fields.complain("repetition_penalty", "not_supported", "only 1 is supported");
    }
    let stream = fields.optional("stream").unwrap_or(false);
    let include_usage = fields
        .object("stream_options")
        .and_then(|options| options.optional("include_usage"))
        .unwrap_or(false);
    let lengths: Vec<usize> =
        length_names.iter().filter_map(|name| fields.optional(name)).collect();
    let max_tokens = lengths.first().copied().or(length_default);
    if max_tokens == Some(0) {
        fields.complain(length_names[0], "greater_than", "at least 1");
    }
    let return_ids = fields.optional("return_token_ids").unwrap_or(false);
    let score = read_score(fields, &prompt, top_logprobs);
    if score.is_some() && stream {
        fields.complain("stream", "value_error", "a replay is not streamed");
    }
    let numeric_tokens = return_ids
        || score.is_some()
        || fields.optional("return_tokens_as_token_ids").unwrap_or(false);
    let sampling = read_sampling(fields);
    let stop = read_stop(fields);
    Some(Completion {
        model: fields.optional("model"),
        text: TextRequest {
            max_tokens,
            sampling,
            stop,
            top_logprobs,
            ..TextRequest::greedy(prompt)
        },
        score,
        stream,
        include_usage,
        numeric_tokens,
        return_ids,
    })
}

fn read_sampling(fields: &Fields<'_>) -> Sampling {
    let share = |name: &str, default: f64| fields.within(name, 0.0, 1.0).unwrap_or(default) as f32;
    // -1 keeps all tokens, as in the network's own engine.
    let top_k = fields.optional("top_k").unwrap_or(-1i64);
    if top_k < -1 {
        fields.complain("top_k", "greater_than_equal", "-1 or more");
    }
    Sampling {
        temperature: fields.within("temperature", 0.0, 2.0).unwrap_or(1.0) as f32,
        top_p: share("top_p", 1.0),
        top_k: u32::try_from(top_k.max(0)).unwrap_or(u32::MAX),
        min_p: share("min_p", 0.0),
        // Any integer is a seed; without one the answer shall differ from call to call.
        seed: fields.optional("seed").map_or_else(fresh_seed, i64::cast_unsigned),
        ..Sampling::GREEDY
    }
}

fn fresh_seed() -> u64 {
    let mut bytes = [0; 8];
    // Without entropy the answer is the same each time, which is allowed.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn read_stop(fields: &Fields<'_>) -> Vec<String> {
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

fn read_messages(fields: &Fields<'_>) -> Option<Vec<Message>> {
    let Some(messages) = fields.objects("messages") else {
        if fields.value("messages").is_none() {
            fields.complain("messages", "missing", "Field required");
        }
        return None;
    };
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        fields.complain("messages", "too_short", format!("1 to {MESSAGES_MAX} messages"));
        return None;
    }
    let read = |message: &Fields<'_>| {
        let role: Option<String> = message.required("role");
        let content = read_content(message);
        Some(Message::new(&role?, &content?))
    };
    let read: Vec<Message> = messages.iter().filter_map(read).collect();
    (read.len() == messages.len()).then_some(read)
}

/// A text, or a list of text parts.
fn read_content(message: &Fields<'_>) -> Option<String> {
    match message.value("content") {
        // An assistant's turn may have none.
        None => Some(String::new()),
        Some(Value::Array(_)) => {
            let part = |part: &Fields<'_>| {
                let kind: String = part.required("type")?;
                if kind != "text" {
                    part.complain("type", "not_supported", "only `text` parts are supported");
                    return None;
                }
                part.required::<String>("text")
            };
            let parts: Vec<Option<String>> = message.objects("content")?.iter().map(part).collect();
            parts.into_iter().collect()
        }
        Some(_) => message.required("content"),
    }
}

/// A text or token ids; a list of one of them counts as that one.
fn read_prompt(fields: &Fields<'_>) -> Option<Prompt> {
    let one = match fields.value("prompt") {
        None => {
            fields.complain("prompt", "missing", "Field required");
            return None;
        }
        Some(Value::Array(list)) => match list.as_slice() {
            [one @ (Value::String(_) | Value::Array(_))] => one,
            [Value::String(_) | Value::Array(_), ..] => {
                fields.complain("prompt", "not_supported", "one prompt per request");
                return None;
            }
            _ => return fields.list("prompt").map(Prompt::Ids),
        },
        Some(one) => one,
    };
    let read = match one {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(ids) => {
            let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
            ids.iter().map(id).collect::<Option<_>>().map(Prompt::Ids)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    };
    if read.is_none() {
        fields.complain("prompt", "string_type", "Input should be a text or a list of token ids");
    }
    read
}

/// `enforced_tokens` or, older, `enforced_str`: the answer to score.
fn read_score(fields: &Fields<'_>, prompt: &Prompt, top: Option<usize>) -> Option<ScoreRequest> {
    let continuation = match fields.object("enforced_tokens") {
        Some(enforced) => {
            let Some(tokens) = enforced.objects("tokens") else {
                if enforced.value("tokens").is_none() {
                    enforced.complain("tokens", "missing", "Field required");
                }
                return None;
            };
            let read = |token: &Fields<'_>| {
                let text: String = token.required("token")?;
                let id = text.parse().ok();
                if id.is_none() {
                    token.complain("token", "int_parsing", "expected a token id as text: \"1234\"");
                }
                id
            };
            Prompt::Ids(tokens.iter().filter_map(read).collect())
        }
        None => Prompt::Text(fields.optional("enforced_str")?),
    };
    let top = top.unwrap_or(TOP_DEFAULT);
    Some(ScoreRequest { prompt: prompt.clone(), continuation, top, to_end: true })
}

#[cfg(test)]
mod tests {
    use super::super::super::body::{BodyFault, read_body};
    use super::*;
    use proptest::prelude::*;

    fn chat(more: Value) -> Result<Completion, BodyFault> {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        for (name, value) in more.as_object().unwrap() {
            body[name.as_str()] = value.clone();
        }
        read_body(body.to_string().as_bytes(), read_chat)
    }

    fn refused(more: Value) -> String {
        match chat(more).unwrap_err() {
            BodyFault::Fields(problems) => problems[0].place_text(),
            BodyFault::Syntax { .. } => panic!("syntax"),
        }
    }

    #[test]
    fn a_network_nodes_request_is_read() {
        let read = chat(json!({
            "model": "m", "logprobs": true, "top_logprobs": 5, "max_tokens": 7,
            "max_completion_tokens": 9, "seed": -3, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true}, "skip_special_tokens": false,
            "return_token_ids": true, "min_tokens": 64, "tools": [], "stop": "x",
        }))
        .unwrap();
        assert_eq!(read.text.max_tokens, Some(9));
        assert_eq!(read.text.top_logprobs, Some(5));
        assert_eq!(read.text.sampling.temperature, 0.0);
        assert_eq!(read.text.stop, ["x"]);
        assert!(read.stream && read.include_usage && read.numeric_tokens && read.return_ids);
    }

    #[test]
    fn what_we_cannot_do_is_said() {
        assert_eq!(refused(json!({"n": 2})), "n");
        assert_eq!(refused(json!({"tools": [{}]})), "tools");
        assert_eq!(
            refused(json!({"response_format": {"type": "json_object"}})),
            "response_format.type"
        );
        assert_eq!(refused(json!({"temperature": 3})), "temperature");
        assert_eq!(refused(json!({"frequency_penalty": 0.5})), "frequency_penalty");
        assert_eq!(refused(json!({"stop": [""]})), "stop");
        assert_eq!(refused(json!({"max_tokens": 0})), "max_completion_tokens");
        assert_eq!(
            refused(json!({"messages": [{"role": "user", "content": 1}]})),
            "messages.0.content"
        );
        let image = json!([{"type": "image_url", "image_url": {}}]);
        let messages = json!([{"role": "user", "content": image}]);
        assert_eq!(refused(json!({"messages": messages})), "messages.0.content.0.type");
    }

    #[test]
    fn a_replay_is_read_in_both_forms() {
        let tokens = json!([{"token": "5", "top_tokens": ["5", "6"]}, {"token": "7"}]);
        let read = chat(json!({"enforced_tokens": {"tokens": tokens}})).unwrap();
        assert_eq!(read.score.unwrap().continuation, Prompt::Ids(vec![5, 7]));
        let read = chat(json!({"enforced_str": "yes", "logprobs": true})).unwrap();
        let score = read.score.unwrap();
        assert_eq!((score.continuation, score.top), (Prompt::Text("yes".into()), 0));
        let tokens = json!([{"token": "five"}]);
        assert_eq!(
            refused(json!({"enforced_tokens": {"tokens": tokens}})),
            "enforced_tokens.tokens.0.token"
        );
    }

    #[test]
    fn prompts_come_in_four_forms() {
        let read = |prompt: Value| {
            read_body(json!({"prompt": prompt}).to_string().as_bytes(), read_text)
                .map(|completion| completion.text.prompt)
        };
        assert_eq!(read(json!("a")).unwrap(), Prompt::Text("a".into()));
        assert_eq!(read(json!(["a"])).unwrap(), Prompt::Text("a".into()));
        assert_eq!(read(json!([1, 2])).unwrap(), Prompt::Ids(vec![1, 2]));
        assert_eq!(read(json!([[1, 2]])).unwrap(), Prompt::Ids(vec![1, 2]));
        for wrong in [json!(["a", "b"]), json!([[1], [2]]), json!(1), json!([["a"]]), json!([-1])] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn hostile_requests_never_panic(
            name in prop_oneof![
                Just("messages"), Just("prompt"), Just("n"), Just("stop"), Just("seed"),
                Just("max_tokens"), Just("top_k"), Just("enforced_tokens"), Just("logprobs"),
            ],
            text in "[\\[\\]{}\",:0-9a-z-]{0,40}",
        ) {
            let body = format!("{{\"messages\":[{{\"role\":\"u\",\"content\":\"\"}}],\"{name}\":{text}}}");
            drop(read_body(body.as_bytes(), read_chat));
            drop(read_body(body.as_bytes(), read_text));
        }
    }
}
