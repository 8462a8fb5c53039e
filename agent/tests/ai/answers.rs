//! The OpenAI face beyond one answer to one prompt: many choices, echoes, forms, tools, tokens and back, metrics; and
//! that no body, however odd, is answered with anything but an answer or a proper refusal.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::openai::{chat, chunks};
use super::{MODEL, Rig, rig};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[tokio::test]
async fn several_answers_are_numbered_and_counted() {
    let rig = rig().await;
    let (status, answer) = rig.post(CHAT, chat(json!({"n": 3, "max_tokens": 2}))).await;
    assert_eq!(status, 200, "{answer}");
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], "ab");
    }
    // The prompt is counted once.
    let usage = json!({"prompt_tokens": 8, "completion_tokens": 6, "total_tokens": 14});
    assert_eq!(answer["usage"], usage);

    let options = json!({"include_usage": true});
    let body = chat(json!({"n": 2, "max_tokens": 2, "stream": true, "stream_options": options}));
    let (chunks, done) = chunks(&rig, CHAT, body).await;
    assert!(done);
    let mut texts = [String::new(), String::new()];
    let mut ends = [0, 0];
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        texts[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        ends[index] += usize::from(choice["finish_reason"] == "length");
    }
    assert_eq!((texts, ends), (["ab".to_owned(), "ab".to_owned()], [1, 1]));
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["usage"]["completion_tokens"], 4);
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
}

#[tokio::test]
async fn several_prompts_are_answered_in_their_order() {
    let rig = rig().await;
    let body = json!({"model": MODEL, "prompt": ["hi", "you"], "n": 2, "max_tokens": 1});
    let (status, answer) = rig.post(TEXT, body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"].as_array().unwrap().len(), 4);
    assert_eq!(answer["choices"][3]["index"], 3);
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    let body = json!({"prompt": [[104, 105], [97]], "max_tokens": 1});
    assert_eq!(rig.post(TEXT, body).await.1["usage"]["prompt_tokens"], 3);
}

#[tokio::test]
async fn an_echo_is_a_part_of_the_answer() {
    let rig = rig().await;
    let body = json!({"prompt": "hi", "echo": true, "logprobs": 1, "max_tokens": 2});
    let (status, answer) = rig.post(TEXT, body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "hiab");
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["h", "i", "a", "b"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 3]));
    let first = (&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]);
    assert_eq!(first, (&Value::Null, &Value::Null));
    assert_eq!(logprobs["token_logprobs"][1], json!(-105.0 / 256.0));
    assert_eq!(answer["usage"]["completion_tokens"], 2);

    let mut scored = body.clone();
    scored["max_tokens"] = json!(0);
    let (status, answer) = rig.post(TEXT, scored).await;
    assert_eq!((status, &answer["choices"][0]["text"]), (200, &json!("hi")), "{answer}");
    assert_eq!(answer["usage"]["total_tokens"], 2);

    let mut streamed = body;
    streamed["stream"] = json!(true);
    let (chunks, _) = chunks(&rig, TEXT, streamed).await;
    let choices: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]).collect();
    let text: String = choices.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(text, "hiab");
    assert_eq!(choices[1]["logprobs"]["text_offset"], json!([2]));
}

#[tokio::test]
async fn a_model_is_shown_by_its_name() {
    let rig = rig().await;
    let (status, model) = rig.get(&format!("/v1/models/{MODEL}")).await;
    assert_eq!((status, &model["id"], &model["object"]), (200, &json!(MODEL), &json!("model")));
    let (status, answer) = rig.get("/v1/models/org/other").await;
    assert_eq!((status, &answer["error"]["type"]), (404, &json!("not_found_error")));
}

#[tokio::test]
async fn tokens_are_made_and_read_back() {
    let rig = rig().await;
    let tokens = json!([104, 105]);
    let (_, answer) = rig.post("/detokenize", json!({"model": MODEL, "tokens": tokens})).await;
    assert_eq!(answer, json!({"prompt": "hi"}));
    let plain = json!({"prompt": "hi", "add_special_tokens": false});
    assert_eq!(rig.post("/tokenize", plain).await.1["tokens"], tokens);
    for (path, body, status) in [
        ("/detokenize", json!({"tokens": [999]}), 400),
        ("/detokenize", json!({"tokens": ["a"]}), 400),
        ("/detokenize", json!({}), 400),
        ("/tokenize", json!({"prompt": "a", "model": "other"}), 404),
        ("/v1/embeddings", json!({"input": "a"}), 400),
    ] {
        let (got, answer) = rig.post(path, body).await;
        assert_eq!(got, status, "{path} {answer}");
        assert!(answer["error"]["message"].is_string(), "{path} {answer}");
    }
}

fn weather() -> Value {
    let parameters = json!({
        "type": "object", "properties": {"city": {"enum": ["Graz"]}}, "required": ["city"],
        "additionalProperties": false,
    });
    json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}])
}

#[tokio::test]
async fn calls_are_read_out_of_an_answer() {
    let rig = rig().await;
    let call = r#"{"name": "weather", "arguments": {"city": "Graz"}}"#;
    let says = format!("Let me see. <tool_call>{call}</tool_call>");
    *rig.script.says.lock().unwrap() = Some(says.clone());
    let body = chat(json!({"tools": weather()}));
    let (status, answer) = rig.post(CHAT, body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "Let me see.");
    let called = &choice["message"]["tool_calls"][0];
    assert_eq!(called["function"]["name"], "weather");
    assert_eq!(called["function"]["arguments"], r#"{"city":"Graz"}"#);
    assert_eq!((&called["type"], called["id"].as_str().unwrap().len()), (&json!("function"), 9));

    let mut streamed = body;
    streamed["stream"] = json!(true);
    let (chunks, _) = chunks(&rig, CHAT, streamed).await;
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let content: String = deltas.iter().filter_map(|delta| delta["content"].as_str()).collect();
    assert_eq!(content, "Let me see. ");
    let calls: Vec<&Value> = deltas.iter().filter_map(|d| d["tool_calls"].get(0)).collect();
    assert_eq!(calls.len(), 1);
    assert_eq!((&calls[0]["index"], &calls[0]["function"]["name"]), (&json!(0), &json!("weather")));
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "tool_calls");

    // Without tools, or with none wanted, it is text like any other.
    for more in [json!({}), json!({"tools": weather(), "tool_choice": "none"})] {
        let (_, answer) = rig.post(CHAT, chat(more)).await;
        assert_eq!(answer["choices"][0]["message"]["content"], says);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn a_call_can_be_demanded() {
    let rig = rig().await;
    let function = json!({"type": "function", "function": {"name": "weather"}});
    for (choice, finish) in [(json!("required"), "tool_calls"), (function, "stop")] {
        let body = chat(json!({"tools": weather(), "tool_choice": choice}));
        let (status, answer) = rig.post(CHAT, body.clone()).await;
        assert_eq!(status, 200, "{answer}");
        let read = &answer["choices"][0];
        assert_eq!(read["finish_reason"], finish, "{answer}");
        let function = &read["message"]["tool_calls"][0]["function"];
        assert_eq!(function["name"], "weather");
        let arguments: Value =
            serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(arguments, json!({"city": "Graz"}));

        let mut streamed = body;
        streamed["stream"] = json!(true);
        let (chunks, _) = chunks(&rig, CHAT, streamed).await;
        let calls = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["tool_calls"].get(0));
        let (mut names, mut arguments) = (String::new(), String::new());
        for function in calls.map(|call| &call["function"]) {
            names.push_str(function["name"].as_str().unwrap_or_default());
            arguments.push_str(function["arguments"].as_str().unwrap());
        }
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        assert_eq!((names.as_str(), arguments), ("weather", json!({"city": "Graz"})));
    }
}

#[tokio::test]
async fn an_answer_has_the_wanted_form() {
    let rig = rig().await;
    let format = |schema: Value| {
        let named = json!({"name": "form", "schema": schema});
        chat(json!({"response_format": {"type": "json_schema", "json_schema": named}}))
    };
    let schema = weather()[0]["function"]["parameters"].clone();
    let (status, answer) = rig.post(CHAT, format(schema)).await;
    assert_eq!(status, 200, "{answer}");
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let content: Value = serde_json::from_str(content).unwrap();
    assert_eq!(content, json!({"city": "Graz"}));
    let (_, answer) =
        rig.post(CHAT, chat(json!({"response_format": {"type": "json_object"}}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "{}");

    for wrong in [json!({"$ref": "http://elsewhere"}), json!({"not": {"type": "null"}})] {
        let (status, answer) = rig.post(CHAT, format(wrong)).await;
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!("response_format")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn thoughts_are_told_apart() {
    let rig = rig().await;
    *rig.script.says.lock().unwrap() = Some("<think>hm</think>\n\nYes.".into());
    let (_, answer) = rig.post(CHAT, chat(json!({}))).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["reasoning_content"], &message["content"]),
        (&json!("hm"), &json!("Yes."))
    );
    let (chunks, _) = chunks(&rig, CHAT, chat(json!({"stream": true}))).await;
    let joined = |name: &str| -> String {
        chunks.iter().filter_map(|c| c["choices"][0]["delta"][name].as_str()).collect()
    };
    assert_eq!((joined("reasoning_content"), joined("content")), ("hm".into(), "Yes.".into()));
}

/// Checks a page against the text format's rules, as far as they can be broken here.
fn check_page(page: &str) {
    let mut kinds: Map<String, Value> = Map::new();
    let mut below = 0.0;
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            let before = kinds.insert(name.into(), kind.into());
            assert!(before.is_none(), "{name} is declared twice");
            below = 0.0;
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect(line);
        let value: f64 = value.parse().expect(line);
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        assert!(labels.ends_with('}'), "{line}");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.chars().all(plain), "{line}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|family| kinds.contains_key(*family)))
            .unwrap_or(name);
        assert!(kinds.contains_key(family), "{line} has no type");
        if name.ends_with("_bucket") {
            assert!(value >= below, "{line} is less than the bucket before");
            below = value;
        }
    }
}

#[tokio::test]
async fn metrics_count_requests_and_waits() {
    let rig = rig().await;
    assert_eq!(rig.post(CHAT, chat(json!({"max_tokens": 3}))).await.0, 200);
    assert_eq!(rig.post(CHAT, json!({})).await.0, 400);
    let page = rig.send(Method::GET, "/metrics", None).await.text().await.unwrap();
    check_page(&page);
    for line in [
        "roadbed_http_requests_total{path=\"/v1/chat/completions\",status=\"200\"} 1",
        "roadbed_http_requests_total{path=\"/v1/chat/completions\",status=\"400\"} 1",
        "roadbed_time_to_first_token_seconds_count 1",
        "roadbed_time_per_output_token_seconds_count 1",
        "roadbed_tokens_total 3",
        "roadbed_prompt_tokens_total 8",
    ] {
        assert!(page.lines().any(|have| have == line), "{line} in {page}");
    }
}

/// Any JSON, mostly small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0_i64), Just(1), Just(-1), Just(2), any::<i64>()].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z{}\\[\\]\"<>|_ ]{0,12}".prop_map(Value::from),
        prop_oneof![Just("user"), Just("text"), Just("function"), Just("json_schema")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![
            "[a-z]{1,4}",
            prop_oneof![
                Just("type".to_owned()),
                Just("name".to_owned()),
                Just("function".to_owned()),
                Just("schema".to_owned()),
                Just("content".to_owned()),
                Just("role".to_owned()),
                Just("json_schema".to_owned()),
            ],
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A body that is right but for some fields.
fn any_body() -> impl Strategy<Value = (&'static str, Value)> {
    let names = [
        "messages",
        "prompt",
        "n",
        "stop",
        "seed",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "logprobs",
        "top_logprobs",
        "tools",
        "tool_choice",
        "response_format",
        "logit_bias",
        "stream_options",
        "echo",
        "best_of",
        "enforced_tokens",
        "chat_template_kwargs",
        "model",
        "guided_json",
        "repetition_penalty",
        "parallel_tool_calls",
        "tokens",
    ];
    let wrong =
        proptest::collection::vec((proptest::sample::select(names.to_vec()), any_json()), 1..3);
    let paths = vec![CHAT, TEXT, "/tokenize", "/detokenize"];
    (proptest::sample::select(paths), wrong).prop_map(|(path, wrong)| {
        let mut body = chat(json!({"prompt": "hi", "max_tokens": 2}));
        for (name, value) in wrong {
            body[name] = value;
        }
        (path, body)
    })
}

async fn answered_properly(rig: &Rig, path: &str, body: &Value) -> Result<(), String> {
    let (status, answer) = rig.post(path, body.clone()).await;
    let refused = (400..500).contains(&status) && answer["error"]["message"].is_string();
    if status == 200 || refused { Ok(()) } else { Err(format!("{status} {answer} to {body}")) }
}

#[test]
fn no_body_is_answered_but_by_an_answer_or_a_refusal() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rig = runtime.block_on(rig());
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner
        .run(&any_body(), |(path, body)| {
            let outcome = runtime.block_on(answered_properly(&rig, path, &body));
            prop_assert!(outcome.is_ok(), "{outcome:?}");
            Ok(())
        })
        .unwrap();
    // The engine has outlived it.
    let outcome = runtime.block_on(rig.post(CHAT, chat(json!({"max_tokens": 1}))));
    assert_eq!(outcome.0, 200, "{}", outcome.1);
}
