//! The MLNode's state machine; what each route answers is in the contract's table ([`super::contract`]).

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use roadbed_agent::faces::{Gate, NodePatience};
use roadbed_protocol::WorkloadKind;
use serde_json::{Value, json};

use super::callback::Callback;
use super::{MODEL, Rig, RigParts, rig, until};

fn up_body() -> Value {
    json!({"model": MODEL, "dtype": "float16", "additional_args": ["--tensor-parallel-size", "4"]})
}

fn init_body() -> Value {
    json!({
        "block_hash": "AB", "block_height": 100, "public_key": "02ab", "node_id": 0,
        "node_count": 1, "params": {"model": MODEL, "seq_len": 64, "unknown": 1},
    })
}

#[tokio::test]
async fn the_clock_has_no_body_and_two_times() {
    let rig = rig().await;
    let response = rig.send(Method::GET, "/api/v1/clock", None).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let nanos =
        |name: &str| -> u128 { response.headers()[name].to_str().unwrap().parse().unwrap() };
    assert!(nanos("X-Server-Recv-Ns") <= nanos("X-Server-Send-Ns"));
    assert!(nanos("X-Server-Recv-Ns") > 1_600_000_000_000_000_000);
    assert_eq!(response.bytes().await.unwrap().len(), 0);
}

#[tokio::test]
async fn up_loads_and_stop_unloads_without_a_controller() {
    let rig = Rig::start(RigParts { loaded: false, ..RigParts::default() }).await;
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "STOPPED");
    assert_eq!(rig.get("/v1/models").await.0, 503);
    for _ in 0..2 {
        assert_eq!(rig.post("/api/v1/inference/up", up_body()).await.0, 200);
    }
    // The same model is not loaded twice.
    assert_eq!(rig.script.loads.load(Ordering::SeqCst), 1);
    assert_eq!(rig.get("/v1/models").await.1["data"][0]["id"], MODEL);
    for _ in 0..2 {
        assert_eq!(rig.send(Method::POST, "/api/v1/stop", None).await.status(), 200);
        assert_eq!(rig.get("/api/v1/state").await.1["state"], "STOPPED");
    }
    let mut body = up_body();
    body["additional_args"] = json!(["--max-model-len", "99"]);
    assert_eq!(rig.post("/api/v1/inference/up/async", body).await.0, 200);
    until("the model", || rig.engine.model()).await;
    assert_eq!(rig.get("/v1/models").await.1["data"][0]["max_model_len"], 99);
}

#[tokio::test]
async fn a_model_that_does_not_load_is_told() {
    let rig = Rig::start(RigParts { loaded: false, ..RigParts::default() }).await;
    rig.script.refuse_load.store(true, Ordering::SeqCst);
    let (status, value) = rig.post("/api/v1/inference/up", up_body()).await;
    assert_eq!(status, 500);
    assert!(value["detail"].as_str().unwrap().contains("told so"), "{value}");
    assert_eq!(rig.get("/api/v1/inference/up/status").await.1["status"], "failed");
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "STOPPED");
}

#[tokio::test]
async fn from_the_answer_to_up_async_on_the_node_is_starting_until_the_last_one_has_come_up() {
    let rig = rig().await;
    rig.script.loading.shut();
    let of_length = |tokens: &str| {
        let mut body = up_body();
        body["additional_args"] = json!(["--max-model-len", tokens]);
        body
    };
    // Another model answers still, and is not taken for the one that was asked for.
    for tokens in ["64", "128"] {
        let (status, answer) = rig.post("/api/v1/inference/up/async", of_length(tokens)).await;
        let seen = (&answer["status"], &answer["is_running"], &answer["is_starting"]);
        assert_eq!((status, seen), (200, (&json!("starting"), &json!(false), &json!(true))));
    }
    until("the first load", || rig.script.loading.was_waited_at().then_some(())).await;
    rig.script.loading.open();
    let deadline = std::time::Instant::now() + super::DEADLINE;
    loop {
        let (_, status) = rig.get("/api/v1/inference/up/status").await;
        if status["status"] == "running" {
            break;
        }
        assert_eq!((&status["status"], &status["error"]), (&json!("starting"), &Value::Null));
        assert!(std::time::Instant::now() < deadline, "{status}");
    }
    assert_eq!(rig.engine.model().unwrap().context_tokens, 128);
}

#[tokio::test]
async fn a_stop_breaks_a_load_off() {
    let rig = Rig::start(RigParts { loaded: false, ..RigParts::default() }).await;
    rig.script.loading.shut();
    let stop = async {
        until("the load", || rig.script.loading.was_waited_at().then_some(())).await;
        // The door stays shut: nothing would ever come up.
        rig.send(Method::POST, "/api/v1/stop", None).await.status().as_u16()
    };
    let both = async { tokio::join!(rig.post("/api/v1/inference/up", up_body()), stop) };
    let (up, stopped) = tokio::time::timeout(super::DEADLINE, both).await.unwrap();
    let overtaken = json!({"detail": "stopped before the model was up"});
    assert_eq!((up, stopped), ((409, overtaken), 200));
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "STOPPED");
    assert_eq!(rig.get("/api/v1/inference/up/status").await.1["status"], "not_started");
    rig.script.loading.open();
    assert_eq!(rig.post("/api/v1/inference/up", up_body()).await.0, 200);
    assert_eq!(rig.script.loads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_driver_that_hangs_keeps_nobody_waiting_for_ever() {
    let short = Duration::from_millis(30);
    let patience = NodePatience { up: short, stop: short };
    let rig = Rig::start(RigParts { loaded: false, patience, ..RigParts::default() }).await;
    rig.script.hangs.store(true, Ordering::SeqCst);
    rig.script.loading.shut();
    let (status, answer) = rig.post("/api/v1/inference/up", up_body()).await;
    let reason = answer["detail"].as_str().unwrap();
    assert!(status == 504 && reason.contains("did not come up"), "{status} {reason}");
    assert_eq!(rig.get("/api/v1/inference/up/status").await.1["status"], "failed");
    let (status, answer) = rig.post("/api/v1/stop", json!({})).await;
    let reason = answer["detail"].as_str().unwrap();
    assert!(status == 500 && reason.contains("not stopped"), "{status} {reason}");
    // The driver wakes up: what nobody waits for any more is not kept.
    rig.script.loading.open();
    let deadline = std::time::Instant::now() + super::DEADLINE;
    while rig.post("/api/v1/stop", json!({})).await.0 != 200 {
        assert!(std::time::Instant::now() < deadline, "stopped in vain");
    }
    assert!(rig.engine.model().is_none());
}

#[tokio::test]
async fn a_lost_device_is_told_and_mended_by_up() {
    let rig = rig().await;
    rig.script.lose_device.store(true, Ordering::SeqCst);
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    assert_eq!(rig.post("/v1/chat/completions", chat.clone()).await.0, 503);
    let (_, state) = rig.get("/api/v1/state").await;
    assert_eq!(
        (&state["state"], &state["inference_healthy"]),
        (&json!("INFERENCE"), &json!(false))
    );
    assert_eq!(rig.get("/readyz").await, (503, json!({"ready": false})));
    assert_eq!(rig.get("/health").await.0, 503);
    rig.script.lose_device.store(false, Ordering::SeqCst);
    assert_eq!(rig.post("/api/v1/inference/up", up_body()).await.0, 200);
    assert_eq!(rig.post("/v1/chat/completions", chat).await.0, 200);
}

#[tokio::test]
async fn under_a_controller_the_gate_decides() {
    let parts = RigParts { gate: Gate::Other(WorkloadKind::Mine), ..RigParts::default() };
    let rig = Rig::start(parts).await;
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "STOPPED");
    assert_eq!(rig.get("/v1/models").await.0, 503);
    let refused = json!({"detail": "Cannot run inference because MLNode is currently in MINE mode. Please stop MINE first."});
    assert_eq!(rig.post("/api/v1/inference/up", up_body()).await, (409, refused.clone()));
    assert_eq!(rig.post("/api/v1/inference/up/async", up_body()).await, (409, refused));

    rig.gate.set(Gate::Ai { model: MODEL.into() });
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "INFERENCE");
    assert_eq!(rig.post("/api/v1/inference/up", up_body()).await.0, 200);
    let mut other = up_body();
    other["model"] = json!("org/other");
    assert_eq!(rig.post("/api/v1/inference/up", other).await.0, 409);

    // A stop pauses this face; the model stays loaded for the rig machine.
    assert_eq!(rig.send(Method::POST, "/api/v1/stop", None).await.status(), 200);
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "STOPPED");
    assert!(rig.engine.model().is_some());
    assert_eq!(rig.post("/api/v1/inference/up", up_body()).await.0, 200);
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "INFERENCE");
    assert_eq!(rig.script.loads.load(Ordering::SeqCst), 1);

    // So does the gate's next turn end a pause.
    rig.send(Method::POST, "/api/v1/stop", None).await;
    rig.gate.set(Gate::Ai { model: MODEL.into() });
    assert_eq!(rig.get("/api/v1/state").await.1["state"], "INFERENCE");
}

/// A small generator with a fixed seed: the same calls in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[tokio::test]
async fn any_order_of_calls_is_answered() {
    let callback = Callback::start([]).await;
    let rig = rig().await;
    let mut init = init_body();
    init["url"] = json!(callback.url("/cb"));
    let mut generate = init.clone();
    generate["nonces"] = json!([1, 2, 3]);
    let calls: Vec<(Method, &str, Option<String>)> = vec![
        (Method::GET, "/api/v1/state", None),
        (Method::POST, "/api/v1/stop", None),
        (Method::POST, "/api/v1/inference/up", Some(up_body().to_string())),
        (Method::POST, "/api/v1/inference/up/async", Some(up_body().to_string())),
        (Method::POST, "/api/v1/inference/pow/init/generate", Some(init.to_string())),
        (Method::POST, "/api/v1/inference/pow/init/generate", Some("{\"params\":[]}".into())),
        (Method::POST, "/api/v1/inference/pow/generate", Some(generate.to_string())),
        (Method::POST, "/api/v1/inference/pow/stop", Some("{}".into())),
        (Method::GET, "/api/v1/inference/pow/status", None),
        (Method::POST, "/v1/chat/completions", Some("\u{0}".into())),
    ];
    let mut dice = Dice(7);
    for _ in 0..300 {
        let (method, path, body) = calls[dice.roll(calls.len())].clone();
        let status = rig.send(method.clone(), path, body).await.status().as_u16();
        let legal = [200, 400, 409, 422, 503];
        assert!(legal.contains(&status), "{method} {path}: {status}");
        let (_, state) = rig.get("/api/v1/state").await;
        let up = rig.engine.model().is_some();
        assert!(["STOPPED", "INFERENCE"].contains(&state["state"].as_str().unwrap()));
        if !up && rig.proof.is_generating() {
            until("the round to end with its model", || (!rig.proof.is_generating()).then_some(()))
                .await;
        }
    }
}
