//! Reading completion requests: what we can do is read, what we cannot do is said, nothing is silently ignored that
//! would change the answer. What only OpenAI's own service knows (`user`, `metadata`, `store`, `service_tier`, ..) is.

use roadbed_compute::llm::TOP_LOGPROBS_MAX;
use roadbed_compute::{Conversation, LogprobsMode, Sampling};
use serde_json::{Map, Value};

use super::super::body::Fields;
use super::form::read_form;
use super::message::read_messages;
use super::sampling::{ContractTerms, read_contract, read_logprobs_mode, read_sampling, read_stop};
use super::tool::{ToolUse, read_tools};
use crate::engine::{Prompt, ReplayExtent, ScoreRequest, TextRequest};
use crate::grammar::GrammarSpec;

/// Alternatives per position of a replay when the request does not say.
const TOP_DEFAULT: usize = 5;
/// Most tokens of a given answer, and of the alternatives named with each: the limits of the network's own engine.
const ENFORCED_TOKENS_MAX: usize = 32768;
const ENFORCED_TOP_MAX: usize = 64;
/// Most answers of a request, over all its prompts; half of what the engine's queue takes, so that one customer never
/// fills it.
const CHOICES_MAX: usize = 32;

/// A completion request of either path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Completion {
    /// Must be the served one, if it is given.
    pub(super) model: Option<String>,
    /// What is continued; one for a chat.
    pub(super) prompts: Vec<Prompt>,
    /// Answers per prompt.
    pub(super) answers: usize,
    /// What is wanted of each answer; its prompt is the first.
    pub(super) text: TextRequest,
    /// The form of each answer, not compiled yet.
    pub(super) form: Option<GrammarSpec>,
    pub(super) tools: Option<ToolUse>,
    /// The prompt is a part of the answer.
    pub(super) echo: bool,
    /// Given: nothing is generated, this is scored.
    pub(super) score: Option<ScoreRequest>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// Tokens are shown as their ids: `"1234"`. The network's checks want them so.
    pub(super) numeric_tokens: bool,
    /// Ids of prompt and answer are given too.
    pub(super) return_ids: bool,
    /// What log probabilities tell of; `None` leaves it to the node.
    pub(super) logprobs_mode: Option<LogprobsMode>,
    pub(super) contract: ContractTerms,
}

/// The body of `/v1/chat/completions`.
pub(super) fn read_chat(fields: &Fields<'_>) -> Option<Completion> {
    let messages = read_messages(fields);
    let tools = read_tools(fields);
    let wanted_form = read_form(fields);
    let called_form = tools.as_ref().and_then(ToolUse::form);
    if wanted_form.is_some() && called_form.is_some() {
        let message = "an answer that must call a tool has that call's form";
        fields.complain("response_format", "value_error", message);
    }
    for name in ["audio", "web_search_options"] {
        if fields.value(name).is_some() {
            fields.complain(name, "not_supported", "not supported by this engine");
        }
    }
    let wanted = fields.optional("logprobs").unwrap_or(false);
    let top: Option<usize> = fields.optional("top_logprobs");
    if top.is_some_and(|top| top > 0) && !wanted {
        fields.complain("top_logprobs", "value_error", "needs `logprobs` to be true");
    }
    check_top(fields, "top_logprobs", top);
    let conversation = Conversation {
        messages: messages?,
        tools: tools.as_ref().map(|tools| tools.tools.clone()).unwrap_or_default(),
        variables: read_variables(fields),
    };
    let prompts = vec![Prompt::Chat(conversation)];
    let names = ["max_completion_tokens", "max_tokens"];
    let common = read_common(fields, prompts, wanted.then_some(top.unwrap_or(0)), &names, None)?;
    let text = TextRequest {
        // The marks of calls are control tokens in some vocabularies.
        keep_control: common.text.keep_control || tools.is_some(),
        ..common.text
    };
    Some(Completion { text, form: called_form.or(wanted_form), tools, ..common })
}

/// What the template is told beside the messages.
fn read_variables(fields: &Fields<'_>) -> Map<String, Value> {
    let given: Option<&Map<String, Value>> = fields.optional("chat_template_kwargs");
    let mut variables = given.cloned().unwrap_or_default();
    if let Some(effort) = fields.optional::<String>("reasoning_effort") {
        variables.insert("reasoning_effort".into(), effort.into());
    }
    variables
}

/// The body of `/v1/completions`.
pub(super) fn read_text(fields: &Fields<'_>) -> Option<Completion> {
    let prompts = read_prompts(fields);
    let form = read_form(fields);
    let echo = fields.optional("echo").unwrap_or(false);
    if fields.optional::<String>("suffix").is_some_and(|suffix| !suffix.is_empty()) {
        fields.complain("suffix", "not_supported", "not supported by this engine");
    }
    let top: Option<usize> = fields.optional("logprobs");
    check_top(fields, "logprobs", top);
    let names = ["max_tokens", "max_completion_tokens"];
    // OpenAI's default of this older path.
    let common = read_common(fields, prompts?, top, &names, Some(16))?;
    if echo && common.score.is_some() {
        fields.complain("echo", "value_error", "a replay has no echo");
    }
    Some(Completion { form, echo, ..common })
}

fn check_top(fields: &Fields<'_>, name: &str, top: Option<usize>) {
    if top.is_some_and(|top| top > TOP_LOGPROBS_MAX) {
        fields.complain(name, "less_than_equal", format!("at most {TOP_LOGPROBS_MAX}"));
    }
}

fn read_common(
    fields: &Fields<'_>,
    prompts: Vec<Prompt>,
    top_logprobs: Option<usize>,
    length_names: &[&str],
    length_default: Option<usize>,
) -> Option<Completion> {
    let answers = read_answers(fields, prompts.len());
    let stream = fields.optional("stream").unwrap_or(false);
    let include_usage = fields
        .object("stream_options")
        .and_then(|options| options.optional("include_usage"))
        .unwrap_or(false);
    let lengths: Vec<usize> =
        length_names.iter().filter_map(|name| fields.optional(name)).collect();
    let max_tokens = lengths.first().copied().or(length_default);
    // With an echo there is an answer all the same: the prompt with its log probabilities.
    if max_tokens == Some(0) && !fields.optional("echo").unwrap_or(false) {
        fields.complain(length_names[0], "greater_than", "at least 1");
    }
    let return_ids = fields.optional("return_token_ids").unwrap_or(false);
    let first = prompts.first()?.clone();
    let sampling = read_sampling(fields);
    let min_tokens = fields.optional("min_tokens").unwrap_or(0);
    let extent = ReplayExtent { min_tokens, max_tokens: lengths.first().copied() };
    let score = read_score(fields, &first, top_logprobs).map(|continuation| ScoreRequest {
        sampling: sampling.clone(),
        extent: Some(extent),
        ..continuation
    });
    if score.is_some() && (stream || answers > 1 || prompts.len() > 1) {
        let name = if stream { "stream" } else { "n" };
        fields.complain(name, "value_error", "a replay is one answer, not streamed");
    }
    let numeric_tokens = return_ids
        || score.is_some()
        || fields.optional("return_tokens_as_token_ids").unwrap_or(false);
    let text = TextRequest {
        max_tokens,
        sampling,
        stop: read_stop(fields),
        top_logprobs,
        min_tokens,
        // The network's requests say that control tokens are not to be left out.
        keep_control: !fields.optional("skip_special_tokens").unwrap_or(true),
        ..TextRequest::greedy(first)
    };
    Some(Completion {
        model: fields.optional("model"),
        prompts,
        answers,
        text,
        form: None,
        tools: None,
        echo: false,
        score,
        stream,
        include_usage,
        numeric_tokens,
        return_ids,
        logprobs_mode: read_logprobs_mode(fields),
        contract: read_contract(fields),
    })
}

/// `n`, within what one request may ask for.
fn read_answers(fields: &Fields<'_>, prompts: usize) -> usize {
    let answers: usize = fields.optional("n").unwrap_or(1);
    if answers == 0 || answers > CHOICES_MAX {
        fields.complain("n", "out_of_range", format!("1 to {CHOICES_MAX}"));
        return 1;
    }
    if answers.saturating_mul(prompts) > CHOICES_MAX {
        let message = format!("at most {CHOICES_MAX} answers, over all prompts, per request");
        fields.complain("prompt", "too_long", message);
        return 1;
    }
    if fields.optional::<usize>("best_of").is_some_and(|best_of| best_of != answers) {
        let message = "only as many as `n`: answers are not ranked and thrown away";
        fields.complain("best_of", "not_supported", message);
    }
    answers
}

/// A text or token ids, or a list of texts or of lists of token ids.
fn read_prompts(fields: &Fields<'_>) -> Option<Vec<Prompt>> {
    let read = match fields.value("prompt") {
        None => {
            fields.complain("prompt", "missing", "Field required");
            return None;
        }
        Some(Value::String(text)) => Some(vec![Prompt::Text(text.clone())]),
        Some(Value::Array(list)) if list.is_empty() => None,
        Some(Value::Array(list)) if list[0].is_number() => ids(list).map(|ids| vec![ids]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|prompt| match prompt {
                Value::String(text) => Some(Prompt::Text(text.clone())),
                Value::Array(list) => ids(list),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
            })
            .collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => None,
    };
    if read.is_none() {
        let message = "Input should be a text, a list of token ids, or a list of such";
        fields.complain("prompt", "string_type", message);
    }
    read
}

fn ids(list: &[Value]) -> Option<Prompt> {
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    list.iter().map(id).collect::<Option<_>>().map(Prompt::Ids)
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
            if tokens.len() > ENFORCED_TOKENS_MAX {
                enforced.complain("tokens", "too_long", format!("at most {ENFORCED_TOKENS_MAX}"));
                return None;
            }
            let read = |token: &Fields<'_>| {
                let text: String = token.required("token")?;
                if token
                    .list::<String>("top_tokens")
                    .is_some_and(|top| top.len() > ENFORCED_TOP_MAX)
                {
                    token.complain("top_tokens", "too_long", format!("at most {ENFORCED_TOP_MAX}"));
                }
                // vLLM's own name of an id has a prefix.
                let id = text.strip_prefix("token_id:").unwrap_or(&text).parse().ok();
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
    Some(ScoreRequest {
        prompt: prompt.clone(),
        continuation,
        top,
        logprobs_mode: LogprobsMode::Raw,
        sampling: Sampling::GREEDY,
        extent: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::body::{BodyFault, read_body};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

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
        assert_eq!(refused(json!({"n": 0})), "n");
        assert_eq!(refused(json!({"n": 33})), "n");
        assert_eq!(refused(json!({"n": 2, "best_of": 3})), "best_of");
        assert_eq!(refused(json!({"tools": [{}]})), "tools.0.type");
        assert_eq!(refused(json!({"functions": [{}]})), "functions");
        let format = |format: Value| refused(json!({ "response_format": format }));
        assert_eq!(format(json!({"type": "xml"})), "response_format.type");
        assert_eq!(format(json!({"type": "json_schema"})), "response_format.json_schema");
        let named = json!({"type": "json_schema", "json_schema": {"name": "a"}});
        assert_eq!(format(named), "response_format.json_schema.schema");
        assert_eq!(refused(json!({"guided_regex": "a"})), "guided_regex");
        assert_eq!(refused(json!({"temperature": 3})), "temperature");
        assert_eq!(refused(json!({"frequency_penalty": 2.5})), "frequency_penalty");
        assert_eq!(refused(json!({"repetition_penalty": 0})), "repetition_penalty");
        assert_eq!(refused(json!({"logit_bias": {"a": 1}})), "logit_bias");
        assert_eq!(refused(json!({"logit_bias": {"1": 101}})), "logit_bias");
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
    fn prompts_come_in_five_forms() {
        let read = |prompt: Value| {
            read_body(json!({"prompt": prompt}).to_string().as_bytes(), read_text)
                .map(|completion| completion.prompts)
        };
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(read(json!("a")).unwrap(), [text("a")]);
        assert_eq!(read(json!(["a", "b"])).unwrap(), [text("a"), text("b")]);
        assert_eq!(read(json!([1, 2])).unwrap(), [Prompt::Ids(vec![1, 2])]);
        let two = [Prompt::Ids(vec![1, 2]), Prompt::Ids(vec![3])];
        assert_eq!(read(json!([[1, 2], [3]])).unwrap(), two);
        let many: Vec<&str> = vec!["a"; 33];
        for wrong in
            [json!(many), json!([]), json!(1), json!([["a"]]), json!([-1]), json!([1, "a"])]
        {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    fn add() -> Value {
        let parameters = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}},
            "$defs": {"n": {"type": "integer"}}});
        json!({"type": "function", "function": {"name": "add", "parameters": parameters}})
    }

    #[test]
    fn tools_are_read_with_what_is_wanted_of_them() {
        let read = |choice: Value| chat(json!({"tools": [add()], "tool_choice": choice})).unwrap();
        let auto = read(Value::Null);
        assert!(auto.form.is_none() && auto.text.keep_control);
        let Prompt::Chat(conversation) = &auto.prompts[0] else { panic!() };
        assert_eq!(conversation.tools, [add()]);
        let none = read(json!("none"));
        assert!(none.tools.is_none() && !none.text.keep_control);
        let Some(GrammarSpec::JsonSchema(form)) = read(json!("required")).form else { panic!() };
        let call = &form["items"]["anyOf"][0]["properties"];
        assert_eq!(call["name"]["const"], "add");
        assert_eq!(call["parameters"]["properties"]["a"]["$ref"], "#/$defs/0-n");
        assert_eq!(form["$defs"]["0-n"]["type"], "integer");
        let named = read(json!({"type": "function", "function": {"name": "add"}}));
        let Some(GrammarSpec::JsonSchema(form)) = named.form else { panic!() };
        assert_eq!(form, add()["function"]["parameters"]);

        let wrong = |choice: Value| refused(json!({"tools": [add()], "tool_choice": choice}));
        assert_eq!(wrong(json!("any")), "tool_choice");
        assert_eq!(wrong(json!({"type": "function"})), "tool_choice.function");
        assert_eq!(wrong(json!({"function": {"name": "sub"}})), "tool_choice");
        assert_eq!(refused(json!({"tool_choice": "required"})), "tool_choice");
        let named = json!({"type": "function", "function": {"name": "a b"}});
        assert_eq!(refused(json!({"tools": [named]})), "tools.0.function.name");
        let format = json!({"type": "json_object"});
        let both = json!({"tools": [add()], "tool_choice": "required", "response_format": format});
        assert_eq!(refused(both), "response_format");
    }

    #[test]
    fn messages_keep_what_templates_read() {
        let call = json!({"id": "c1", "function": {"name": "add", "arguments": "{\"a\": 1}"}});
        let read = chat(json!({
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "be"}]},
                {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "2", "name": "add"},
            ],
            "chat_template_kwargs": {"enable_thinking": false}, "reasoning_effort": "low",
        }));
        let Prompt::Chat(chat) = read.unwrap().prompts.remove(0) else { panic!() };
        assert_eq!(
            (chat.messages[0].role.as_str(), chat.messages[0].content.as_str()),
            ("system", "be")
        );
        assert_eq!(
            chat.messages[1].more["tool_calls"][0]["function"]["arguments"],
            json!({"a": 1})
        );
        assert_eq!(chat.messages[2].more["tool_call_id"], "c1");
        assert_eq!(chat.variables["enable_thinking"], false);
        assert_eq!(chat.variables["reasoning_effort"], "low");
    }

    proptest! {
        #[test]
        fn hostile_requests_never_panic(
            name in prop_oneof![
                Just("messages"), Just("prompt"), Just("n"), Just("stop"), Just("seed"),
                Just("max_tokens"), Just("top_k"), Just("enforced_tokens"), Just("logprobs"),
                Just("tools"), Just("tool_choice"), Just("response_format"), Just("logit_bias"),
            ],
            text in "[\\[\\]{}\",:0-9a-z-]{0,40}",
        ) {
            let body = format!("{{\"messages\":[{{\"role\":\"u\",\"content\":\"\"}}],\"{name}\":{text}}}");
            drop(read_body(body.as_bytes(), read_chat));
            drop(read_body(body.as_bytes(), read_text));
        }
    }
}
