//! What passes between a customer and the server, and what does not.

use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use reqwest::Method;
use roadbed_agent::engine::JOBS_QUEUED_MAX;
use serde_json::json;

use super::stand_in::{Lie, OWN_NAME, StandIn};
use super::{MODEL, Rig, attached, bounds, chat, until};

#[tokio::test]
async fn bodies_pass_as_they_were_written_but_for_the_name() {
    let stand_in = StandIn::start().await;
    let mut config = attached(&stand_in);
    config.api_key = Some("hush".into());
    let rig = Rig::start(config, bounds()).await;
    rig.server.load().await.unwrap();

    // What no reader of ours knows, and numbers that reading and writing would change.
    let body = format!(
        r#"{{ "enforced_tokens":[1,2],"temperature":1.0E-1,"model":"{MODEL}","x":{{"model":"{MODEL}"}} }}"#
    );
    let answer = rig.send(Method::POST, "/v1/chat/completions", Some(body.clone())).await;
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(text.contains("\"logprob\":-1.10E-1") && text.contains(MODEL), "{text}");
    assert!(!text.contains(OWN_NAME), "{text}");
    let sent = body.replacen(MODEL, OWN_NAME, 1);
    assert_eq!(stand_in.script.last("/v1/chat/completions"), sent);
    assert_eq!(*stand_in.script.key.lock().unwrap(), Some("Bearer hush".into()));

    // A request without a name is one for the only model.
    assert_eq!(rig.post("/v1/completions", json!({"prompt": "a"})).await.0, 200);
    let sent = stand_in.script.last("/v1/completions");
    assert_eq!(sent, format!(r#"{{"model":"{OWN_NAME}","prompt":"a"}}"#));

    let stats = rig.server.stats();
    assert_eq!((stats.completions, stats.prompt_tokens, stats.tokens), (2, 10, 6));
    let (status, vector) = rig.post("/v1/embeddings", json!({"input": "a"})).await;
    assert_eq!((status, &vector["data"][0]["embedding"]), (200, &json!([0.5, -1.25e-3])));
    assert_eq!(rig.post("/v1/tokenize", json!({"prompt": "a"})).await.1["count"], 2);

    let (_, models) = rig.get("/v1/models").await;
    assert_eq!(models["data"][0]["id"], MODEL);
    assert_eq!(models["data"][0]["max_model_len"], 4096);
    let (status, refusal) = rig.post("/v1/chat/completions", json!({"model": "lora"})).await;
    assert_eq!(status, 404, "{refusal}");
    assert_eq!(rig.post("/v1/chat/completions", json!([1])).await.0, 400);
    assert_eq!(rig.get("/v1/unheard/of").await.0, 404);

    let page = rig.send(Method::GET, "/metrics", None).await.text().await.unwrap();
    let engine = "roadbed_engine_info{engine=\"openai-upstream\",server=\"http://127.0.0.1:";
    assert!(page.contains(engine) && page.contains(",supervised=\"false\"} 1"), "{page}");
    assert!(page.contains("roadbed_upstream_restarts_total 0"), "{page}");
    let (status, health) = rig.get("/health").await;
    assert_eq!((status, &health["service_state"]), (200, &json!("INFERENCE")));
}

#[tokio::test]
async fn streams_pass_event_by_event() {
    let stand_in = StandIn::start().await;
    let rig = Rig::before(&stand_in, bounds()).await;
    for (asked, counted) in
        [(json!({}), false), (json!({"stream_options": {"include_usage": true}}), true)]
    {
        let mut body = chat(asked);
        body["stream"] = json!(true);
        let answer = rig.send(Method::POST, "/v1/chat/completions", Some(body.to_string())).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let text = answer.text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n") && !text.contains(OWN_NAME), "{text}");
        assert_eq!(text.matches("data: {").count(), 3 + usize::from(counted), "{text}");
        assert_eq!(text.contains("usage"), counted, "{text}");
    }
    // Counted either way.
    let stats = rig.server.stats();
    assert_eq!((stats.completions, stats.prompt_tokens, stats.tokens), (2, 10, 6));
    assert_eq!(rig.metric("roadbed_time_to_first_token_seconds_count").await, 2.0);
}

#[tokio::test]
async fn hanging_up_frees_the_server_at_once() {
    let stand_in = StandIn::start().await;
    let rig = Rig::before(&stand_in, bounds()).await;
    // In the middle of a stream.
    stand_in.script.lie(Lie::Stuck);
    let body = chat(json!({"stream": true})).to_string();
    let answer = rig.send(Method::POST, "/v1/chat/completions", Some(body)).await;
    let mut pieces = answer.bytes_stream();
    pieces.next().await.unwrap().unwrap();
    assert_eq!(rig.server.open_jobs(), 1);
    drop(pieces);
    let hung_up = || stand_in.script.hung_up.load(Ordering::SeqCst);
    until("the server to be let go", || (hung_up() == 1).then_some(())).await;
    until("the job to be closed", || (rig.server.open_jobs() == 0).then_some(())).await;
    // While a whole answer is made.
    stand_in.script.lie(Lie::Held);
    let request = rig.http.post(format!("http://{}/v1/chat/completions", rig.address));
    let asking = tokio::spawn(request.body(chat(json!({})).to_string()).send());
    until("the chat to be under way", || (rig.server.open_jobs() == 1).then_some(())).await;
    let begun = || stand_in.script.chats.load(Ordering::SeqCst);
    // One to be asked whether it can, one that hung, this one.
    until("the chat to have come", || (begun() == 3).then_some(())).await;
    asking.abort();
    until("the server to be let go", || (hung_up() == 2).then_some(())).await;
    until("the job to be closed", || (rig.server.open_jobs() == 0).then_some(())).await;
    assert_eq!(rig.server.stats().cancelled, 2);
}

#[tokio::test]
async fn more_than_can_wait_are_refused_with_a_time() {
    let stand_in = StandIn::start().await;
    let mut config = attached(&stand_in);
    config.concurrent = 2;
    let rig = Rig::start(config, bounds()).await;
    rig.server.load().await.unwrap();
    stand_in.script.lie(Lie::Held);
    let ask = || {
        let request = rig.http.post(format!("http://{}/v1/chat/completions", rig.address));
        tokio::spawn(request.body(chat(json!({})).to_string()).send())
    };
    let waiting: Vec<_> = (0..2 + JOBS_QUEUED_MAX).map(|_| ask()).collect();
    let full = 2 + JOBS_QUEUED_MAX;
    until("everybody to be in line", || (rig.server.open_jobs() == full).then_some(())).await;
    let occupancy = rig.server.occupancy();
    assert_eq!((occupancy.running, occupancy.waiting), (2, JOBS_QUEUED_MAX));
    let refused = ask().await.unwrap().unwrap();
    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(rig.server.stats().refused, 1);
    stand_in.script.release();
    for asking in waiting {
        assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(rig.server.open_jobs(), 0);
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_no_more() {
    let stand_in = StandIn::start().await;
    let rig = Rig::before(&stand_in, bounds()).await;
    stand_in.script.lie(Lie::Held);
    let request = rig.http.post(format!("http://{}/v1/chat/completions", rig.address));
    let asking = tokio::spawn(request.body(chat(json!({})).to_string()).send());
    until("the chat to be under way", || (rig.server.open_jobs() == 1).then_some(())).await;
    rig.server.set_accepting(false);
    assert_eq!(rig.chat().await.0, 503);
    let server = rig.server.clone();
    let drained = tokio::spawn(async move { server.drained().await });
    tokio::task::yield_now().await;
    assert!(!drained.is_finished());
    stand_in.script.release();
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    drained.await.unwrap();
    rig.server.set_accepting(true);
    assert_eq!(rig.chat().await.0, 200);
}

#[tokio::test]
async fn stop_ends_the_work_and_up_begins_again() {
    let stand_in = StandIn::start().await;
    let rig = Rig::before(&stand_in, bounds()).await;
    stand_in.script.lie(Lie::Stuck);
    let body = chat(json!({"stream": true})).to_string();
    let answer = rig.send(Method::POST, "/v1/chat/completions", Some(body)).await;
    assert_eq!(rig.post("/api/v1/stop", json!({})).await.0, 200);
    let text = answer.text().await.unwrap();
    assert!(text.contains("cancelled") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "STOPPED");
    assert_eq!(rig.chat().await.0, 503);
    stand_in.script.lie(Lie::Honest);
    let up = |model: &str| json!({"model": model, "dtype": "auto"});
    assert_eq!(rig.post("/api/v1/inference/up", up(MODEL)).await.0, 200);
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "INFERENCE");
    assert_eq!(rig.chat().await.0, 200);
    assert_eq!(rig.post("/api/v1/inference/up", up("org/other")).await.0, 400);
}
