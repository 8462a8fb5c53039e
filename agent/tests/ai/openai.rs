//! The OpenAI face: whole and streamed answers, replays, and every way to be refused.

use std::sync::atomic::Ordering;

use reqwest::Method;
use roadbed_agent::engine::{JOBS_QUEUED_MAX, TOKENS_BUFFERED_MAX};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stand_in::{ALPHABET, END};
use super::{MODEL, Rig, RigParts, read, rig, until};

pub fn chat(more: Value) -> Value {
    let mut body = json!({
        "model": MODEL, "messages": [{"role": "user", "content": "hi"}], "temperature": 0,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name.as_str()] = value.clone();
    }
    body
}

/// The chunks of a stream, and whether it ended with `[DONE]`.
pub async fn chunks(rig: &Rig, path: &str, body: Value) -> (Vec<Value>, bool) {
    let response = rig.send(Method::POST, path, Some(body.to_string())).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let mut chunks = vec![];
    let mut done = false;
    for event in text.split("\n\n").filter(|event| !event.is_empty()) {
        assert!(!done, "something after [DONE]");
        let data = event.strip_prefix("data: ").unwrap();
        if data == "[DONE]" {
            done = true;
        } else {
            chunks.push(serde_json::from_str(data).unwrap());
        }
    }
    (chunks, done)
}

#[tokio::test]
async fn a_chat_is_answered() {
    let rig = rig().await;
    let (status, answer) = rig.post("/v1/chat/completions", chat(json!({"max_tokens": 3}))).await;
    assert_eq!(status, 200);
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], MODEL);
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "abc"}));
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["logprobs"], Value::Null);
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11})
    );
    // Without a length it goes on to its own end; parts of text are joined.
    let parts = json!([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]);
    let (_, answer) = rig
        .post(
            "/v1/chat/completions",
            chat(json!({"messages": [{"role": "user", "content": parts}]})),
        )
        .await;
    assert_eq!(answer["choices"][0]["message"]["content"], ALPHABET);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["prompt_tokens"], 8);
}

#[tokio::test]
async fn a_stop_text_ends_the_answer() {
    let rig = rig().await;
    let (_, answer) = rig.post("/v1/chat/completions", chat(json!({"stop": ["cd"]}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "ab");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn log_probabilities_are_text_or_ids() {
    let rig = rig().await;
    let body = chat(json!({"max_tokens": 2, "logprobs": true, "top_logprobs": 2}));
    let (_, answer) = rig.post("/v1/chat/completions", body).await;
    let content = &answer["choices"][0]["logprobs"]["content"];
    assert_eq!(content[0]["token"], "a");
    assert_eq!(content[0]["bytes"], json!([97]));
    assert_eq!(content[1]["top_logprobs"][1]["token"], "c");
    assert_eq!(content[1]["top_logprobs"][1]["logprob"], json!(-99.0 / 256.0));

    let body = chat(json!({
        "max_tokens": 2, "logprobs": true, "top_logprobs": 5, "return_token_ids": true,
    }));
    let (_, answer) = rig.post("/v1/chat/completions", body).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["logprobs"]["content"][0]["token"], "97");
    assert_eq!(choice["logprobs"]["content"][0]["top_logprobs"].as_array().unwrap().len(), 5);
    assert_eq!(choice["token_ids"], json!([97, 98]));
    assert_eq!(answer["prompt_token_ids"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn a_chat_is_streamed() {
    let rig = rig().await;
    let body = chat(json!({
        "max_tokens": 3, "stream": true, "stream_options": {"include_usage": true},
        "logprobs": true, "top_logprobs": 1,
    }));
    let (chunks, done) = chunks(&rig, "/v1/chat/completions", body).await;
    assert!(done);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String = chunks[1..4]
        .iter()
        .map(|c| c["choices"][0]["delta"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(text, "abc");
    assert_eq!(chunks[2]["choices"][0]["logprobs"]["content"][0]["token"], "b");
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "length");
    assert_eq!(chunks[5]["choices"], json!([]));
    assert_eq!(chunks[5]["usage"]["completion_tokens"], 3);
    assert_eq!(chunks.len(), 6);
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
}

#[tokio::test]
async fn text_is_completed() {
    let rig = rig().await;
    let body = json!({"model": MODEL, "prompt": "hi", "max_tokens": 3, "logprobs": 2});
    let (status, answer) = rig.post("/v1/completions", body.clone()).await;
    assert_eq!(status, 200);
    let choice = &answer["choices"][0];
    assert_eq!((&answer["object"], &choice["text"]), (&json!("text_completion"), &json!("abc")));
    assert_eq!(choice["logprobs"]["tokens"], json!(["a", "b", "c"]));
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 1, 2]));
    assert_eq!(choice["logprobs"]["top_logprobs"][0]["b"], json!(-98.0 / 256.0));
    let mut body = body;
    body["stream"] = json!(true);
    let (chunks, done) = chunks(&rig, "/v1/completions", body).await;
    let text: String =
        chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!((text.as_str(), done), ("abc", true));
}

#[tokio::test]
async fn a_given_answer_is_scored() {
    let rig = rig().await;
    let token = |id: u32| json!({"token": id.to_string(), "top_tokens": []});
    let enforced = json!({"tokens": [token(104), token(101)]});
    let body = chat(json!({"enforced_tokens": enforced, "logprobs": true, "top_logprobs": 5}));
    let (status, answer) = rig.post("/v1/chat/completions", body).await;
    assert_eq!(status, 200);
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let tokens: Vec<&str> = content.iter().map(|t| t["token"].as_str().unwrap()).collect();
    // The end is added, as the network's replay does.
    assert_eq!(tokens, ["104", "101", &END.to_string()]);
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 5);
    assert_eq!(answer["choices"][0]["message"]["content"], "he");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(rig.script.spoken.load(Ordering::SeqCst), 0, "nothing may be sampled");

    let (_, answer) = rig.post("/v1/chat/completions", chat(json!({"enforced_str": "yes"}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "yes");
    assert_eq!(answer["usage"]["completion_tokens"], 4);

    let enforced = json!({"tokens": [token(999)]});
    let (status, _) =
        rig.post("/v1/chat/completions", chat(json!({"enforced_tokens": enforced}))).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn tokens_are_counted() {
    let rig = rig().await;
    let (_, answer) = rig.post("/tokenize", json!({"model": MODEL, "prompt": "abc"})).await;
    assert_eq!(answer, json!({"count": 3, "max_model_len": 256, "tokens": [97, 98, 99]}));
}

#[tokio::test]
async fn refusals_say_what_and_where() {
    let rig = rig().await;
    for (body, status, place, says) in [
        (chat(json!({"n": 0})), 400, json!("n"), "1 to 32"),
        (chat(json!({"messages": [{"role": 5}]})), 400, json!("messages.0.role"), "valid string"),
        (json!({"model": MODEL}), 400, json!("messages"), "Field required"),
        (chat(json!({"model": "gpt-4"})), 404, json!("model"), MODEL),
        (
            chat(json!({"messages": [{"role": "user", "content": "x".repeat(300)}]})),
            400,
            json!("prompt"),
            "context of 256",
        ),
    ] {
        let (got, answer) = rig.post("/v1/chat/completions", body).await;
        assert_eq!(got, status, "{answer}");
        assert_eq!(answer["error"]["param"], place, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
    let body = Some("{\"model\": \"m\",\n oops}".to_owned());
    let (status, answer) = read(rig.send(Method::POST, "/v1/chat/completions", body).await).await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("line 2, column 2"), "{answer}");
    let body = Some("x".repeat(9 << 20));
    let response = rig.send(Method::POST, "/v1/chat/completions", body).await;
    assert_eq!(response.status(), 413);
    assert_eq!(rig.get("/v1/nothing").await.1["error"]["type"], "not_found_error");
}

#[tokio::test]
async fn without_a_model_the_answer_is_the_networks_own() {
    let rig = Rig::start(RigParts { loaded: false, ..RigParts::default() }).await;
    for path in ["/v1/chat/completions", "/v1/completions", "/tokenize"] {
        let answer = rig.post(path, chat(json!({}))).await;
        assert_eq!(answer, (503, json!("No vLLM backend available")), "{path}");
    }
    rig.engine.load(super::load_request()).await.unwrap();
    rig.engine.set_accepting(false);
    assert_eq!(rig.post("/v1/chat/completions", chat(json!({}))).await.0, 503);
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    let rig = rig().await;
    rig.script.tokens.shut();
    let ask = || {
        let url = format!("http://{}/v1/chat/completions", rig.address);
        let request = rig.http.post(url).body(chat(json!({"max_tokens": 1})).to_string());
        tokio::spawn(request.send())
    };
    let mut waiting = vec![ask()];
    // One is out of the queue and in the engine; then the queue takes exactly its limit.
    let at_work = || rig.script.tokens.was_waited_at().then_some(());
    until("the first to be at work", at_work).await;
    waiting.extend((0..JOBS_QUEUED_MAX).map(|_| ask()));
    until("all to be open", || (rig.engine.open_jobs() > JOBS_QUEUED_MAX).then_some(())).await;
    let body = Some(chat(json!({})).to_string());
    let response = rig.send(Method::POST, "/v1/chat/completions", body).await;
    assert_eq!(response.status(), 429);
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    rig.script.tokens.open();
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_customer_who_goes_away_frees_the_engine() {
    let rig = rig().await;
    rig.script.endless.store(true, Ordering::SeqCst);
    for (cancelled, stream) in [(1, false), (2, true)] {
        let before = rig.script.spoken.load(Ordering::SeqCst);
        let body = chat(json!({ "stream": stream })).to_string();
        let mut socket = TcpStream::connect(rig.address).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: rig\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(body.as_bytes()).await.unwrap();
        let spoken = || rig.script.spoken.load(Ordering::SeqCst) - before;
        until("a token", || (spoken() > 0).then_some(())).await;
        drop(socket);
        until("the engine to be free", || (rig.engine.open_jobs() == 0).then_some(())).await;
        assert_eq!(rig.engine.stats().cancelled, cancelled, "stream: {stream}");
        // It is the hang-up that ended it, not a full buffer.
        assert!(spoken() < TOKENS_BUFFERED_MAX as u64);
    }
}

#[tokio::test]
async fn an_engine_that_dies_while_it_streams_is_told() {
    let rig = rig().await;
    rig.script.tokens.shut();
    let url = format!("http://{}/v1/chat/completions", rig.address);
    let body = chat(json!({"stream": true, "max_tokens": 20})).to_string();
    let request = tokio::spawn(rig.http.post(url).body(body).send());
    until("the job", || (rig.engine.open_jobs() == 1).then_some(())).await;
    rig.script.lose_device.store(true, Ordering::SeqCst);
    rig.script.tokens.open();
    let response = request.await.unwrap().unwrap();
    // Nothing had been said yet, so it is a proper status.
    assert_eq!(response.status(), 503);
}

/// Reads what a raw connection answers.
async fn raw(rig: &Rig, request: &str) -> String {
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn hostile_requests_do_not_stop_the_server() {
    let rig = rig().await;
    for request in [
        "GARBAGE\r\n\r\n".to_owned(),
        "GET /%zz%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a/".repeat(5000)),
    ] {
        let answer = raw(&rig, &request).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{}", &answer[..answer.len().min(80)]);
    }
    assert_eq!(rig.get("/readyz").await.0, 200);
}
