//! The MLNode contract: one table of requests and answers, then the state machine.

use std::sync::atomic::Ordering;

use reqwest::{Method, StatusCode};
use roadbed_agent::faces::Gate;
use roadbed_protocol::WorkloadKind;
use serde_json::{Value, json};

use super::callback::Callback;
use super::{MODEL, Rig, RigParts, read, rig, until};

fn up_body() -> Value {
    json!({"model": MODEL, "dtype": "float16", "additional_args": ["--tensor-parallel-size", "4"]})
}

fn init_body() -> Value {
    json!({
        "block_hash": "AB", "block_height": 100, "public_key": "02ab", "node_id": 0,
        "node_count": 1, "params": {"model": MODEL, "seq_len": 64, "unknown": 1},
    })
}

/// True if every field of `part` is in `whole` with the same value.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|own| holds(own, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(a, b)| holds(a, b))
        }
        (whole, part) => whole == part,
    }
}

type Row = (Method, &'static str, Option<Value>, u16, Value);

fn rows() -> Vec<Row> {
    let get = |path, status, body| (Method::GET, path, None, status, body);
    let post = |path, body, status, answer| (Method::POST, path, Some(body), status, answer);
    let bare = |path, status, answer| (Method::POST, path, None, status, answer);
    let detail = |text: &str| json!({ "detail": text });
    let with = |name: &str, value: Value| {
        let mut body = init_body();
        body[name] = value;
        body
    };
    vec![
        get(
            "/api/v1/state",
            200,
            json!({
                "state": "INFERENCE", "version": "3.0.16", "poc_status": "IDLE",
                "inference_healthy": true, "loaded_model": MODEL,
            }),
        ),
        get("/v3.0.16/api/v1/state", 200, json!({"state": "INFERENCE"})),
        get("//v3.0.16//api/v1//state", 200, json!({"state": "INFERENCE"})),
        get(
            "/api/v1/inference/up/status",
            200,
            json!({"status": "running", "is_running": true, "error": null}),
        ),
        get(
            "/health",
            200,
            json!({
                "status": "healthy", "service_state": "INFERENCE", "gpu": {"available": true, "count": 1},
                "managers": {"inference": {"running": true, "healthy": true},
                             "train": {"running": false, "healthy": false}},
            }),
        ),
        get("/livez", 200, json!({"status": "healthy"})),
        get("/readyz", 200, json!({"ready": true})),
        get(
            "/api/v1/gpu/devices",
            200,
            json!({"count": 1, "devices": [{
                "index": 0, "name": "Stand-in \"GPU\"", "total_memory_mb": null, "is_available": true,
                "error_message": null, "temperature_c": null,
            }]}),
        ),
        get("/api/v1/gpu/driver", 200, json!({"driver_version": "stand-in 1"})),
        get("/api/v1/models/list", 200, json!({"models": []})),
        get(
            "/api/v1/models/space",
            200,
            json!({"cache_size_gb": 0.0, "cache_path": "/nowhere/models"}),
        ),
        post(
            "/api/v1/models/status",
            json!({"hf_repo": "a/b", "hf_commit": null}),
            200,
            json!({
                "model": {"hf_repo": "a/b", "hf_commit": null}, "status": "NOT_FOUND",
                "progress": null, "error_message": null,
            }),
        ),
        post("/api/v1/models/download", json!({"hf_repo": "a/b"}), 404, json!({})),
        post("/api/v1/models/download", json!({}), 422, json!({})),
        (Method::DELETE, "/api/v1/models", Some(json!({"hf_repo": "a/b"})), 404, json!({})),
        get(
            "/api/v1/inference/pow/status",
            200,
            json!({"status": "IDLE", "backends": [
                {"port": 5001, "status": "IDLE", "config": null, "stats": null},
            ]}),
        ),
        post(
            "/api/v1/inference/pow/stop",
            json!({}),
            200,
            json!({
                "status": "OK", "results": [{"port": 5001, "status": "stopped"}], "errors": null,
            }),
        ),
        bare("/api/v1/inference/pow/stop", 200, json!({"status": "OK"})),
        get("/api/v1/inference/pow/generate/nocolon", 400, json!({})),
        get("/api/v1/inference/pow/generate/5001:unknown", 404, json!({})),
        // What is missing or wrong.
        get("/api/v1/nothing", 404, detail("Not Found")),
        get("/", 404, detail("Not Found")),
        bare("/api/v1/train/start", 404, detail("Not Found")),
        bare("/api/v1/state", 405, detail("Method Not Allowed")),
        get("/api/v1/stop", 405, detail("Method Not Allowed")),
        bare(
            "/api/v1/inference/up",
            422,
            json!({"detail": [{"type": "missing", "loc": ["body"]}]}),
        ),
        post(
            "/api/v1/inference/up",
            json!({}),
            422,
            json!({"detail": [
                {"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {}},
                {"type": "missing", "loc": ["body", "dtype"], "msg": "Field required", "input": {}},
            ]}),
        ),
        post(
            "/api/v1/inference/up",
            json!([1]),
            422,
            json!({"detail": [{"type": "model_attributes_type", "loc": ["body"]}]}),
        ),
        post(
            "/api/v1/inference/up",
            json!({"model": "../../etc/passwd", "dtype": "auto"}),
            400,
            json!({}),
        ),
        post("/api/v1/inference/pow/init/generate", json!({"params": {}}), 422, json!({})),
        post(
            "/api/v1/inference/pow/init/generate",
            with("node_id", json!("x")),
            422,
            json!({"detail": [{"type": "int_type", "loc": ["body", "node_id"], "input": "x"}]}),
        ),
        post("/api/v1/inference/pow/init/generate", with("node_count", json!(0)), 422, json!({})),
        post(
            "/api/v1/inference/pow/init/generate",
            with("url", json!("not a url")),
            422,
            json!({"detail": [{"loc": ["body", "url"]}]}),
        ),
        post(
            "/api/v1/inference/pow/init/generate",
            with("params", json!({"model": "org/other", "seq_len": 64})),
            409,
            json!({"detail": {"error": "params mismatch",
                "requested": {"model": "org/other", "seq_len": 64},
                "deployed": {"model": MODEL, "seq_len": 256}}}),
        ),
        post(
            "/api/v1/inference/pow/init/generate",
            with("params", json!({"model": MODEL, "seq_len": 257})),
            409,
            json!({}),
        ),
        post(
            "/api/v1/inference/pow/init/generate",
            with("params", json!({"model": MODEL, "seq_len": 64, "decode": true})),
            501,
            json!({}),
        ),
        post(
            "/api/v1/inference/pow/generate",
            init_body(),
            422,
            json!({"detail": [{"type": "missing", "loc": ["body", "nonces"]}]}),
        ),
        post(
            "/api/v1/inference/pow/generate",
            {
                let mut body = with("nonces", json!([1, 2]));
                body["validation"] = json!({"artifacts": [{"nonce": 1, "vector_b64": "AA=="}]});
                body
            },
            400,
            detail("validation.artifacts nonces must match nonces field"),
        ),
        post(
            "/api/v1/inference/pow/generate",
            with("nonces", (0..100_001).collect()),
            429,
            json!({}),
        ),
        post(
            "/api/v1/inference/pow/generate",
            with("nonces", json!([4_000_000_000u32])),
            422,
            json!({}),
        ),
        // The engine goes on answering after all that.
        post("/api/v1/inference/up", up_body(), 200, json!({"status": "OK"})),
        bare("/api/v1/inference/down", 200, json!({"status": "OK"})),
        bare("/api/v1/stop", 200, json!({"status": "OK"})),
        get(
            "/api/v1/state",
            200,
            json!({
                "state": "STOPPED", "poc_status": null, "inference_healthy": null, "loaded_model": null,
            }),
        ),
        get("/readyz", 200, json!({"ready": true})),
        get("/health", 200, json!({"status": "healthy", "service_state": "STOPPED"})),
        get("/api/v1/inference/pow/status", 200, json!({"status": "NO_BACKENDS", "backends": []})),
        post(
            "/api/v1/inference/pow/stop",
            json!({}),
            200,
            json!({"status": "OK", "message": "No backends to stop"}),
        ),
        post(
            "/api/v1/inference/pow/init/generate",
            init_body(),
            503,
            detail("No vLLM backends available"),
        ),
        get(
            "/api/v1/inference/up/status",
            200,
            json!({"status": "not_started", "is_running": false, "error": null}),
        ),
    ]
}

#[tokio::test]
async fn every_route_answers_as_the_contract_says() {
    let rig = rig().await;
    for (method, path, body, status, answer) in rows() {
        let sent = body.as_ref().map(Value::to_string).unwrap_or_default();
        let response = rig.send(method.clone(), path, body.map(|body| body.to_string())).await;
        let (got, value) = read(response).await;
        let sent = &sent[..sent.len().min(200)];
        assert_eq!(got, status, "{method} {path} {sent}: {value}");
        assert!(holds(&value, &answer), "{method} {path} {sent}: {value}\nis not {answer}");
    }
}

#[tokio::test]
async fn syntax_errors_are_in_the_networks_form() {
    let rig = rig().await;
    let body = Some("{\"model\": ".to_owned());
    let (status, value) = read(rig.send(Method::POST, "/api/v1/inference/up", body).await).await;
    assert_eq!(status, 422);
    assert_eq!(value["detail"][0]["type"], "json_invalid");
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
async fn metrics_are_prometheus_text() {
    let rig = rig().await;
    let response = rig.send(Method::GET, "/metrics", None).await;
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let page = response.text().await.unwrap();
    assert!(page.contains("mlnode_version_info{version=\"3.0.16\"} 1\n"), "{page}");
    assert!(page.contains("roadbed_model_up 1\n"), "{page}");
}

#[tokio::test]
async fn a_token_is_asked_for_where_it_is_set() {
    let parts = RigParts { auth_token: Some("secret".into()), ..RigParts::default() };
    let rig = Rig::start(parts).await;
    let unauthorized = json!({"detail": "Unauthorized"});
    assert_eq!(rig.get("/api/v1/state").await, (401, unauthorized.clone()));
    assert_eq!(rig.get("//v3.0.16//api/v1/state").await, (401, unauthorized));
    for open in ["/health", "/readyz", "/v1/models"] {
        assert_eq!(rig.get(open).await.0, 200, "{open}");
    }
    let url = format!("http://{}/api/v1/state", rig.address);
    let response = rig.http.get(url).bearer_auth("secret").send().await.unwrap();
    assert_eq!(response.status(), 200);
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
async fn a_lost_device_is_told_and_mended_by_up() {
    let rig = rig().await;
    rig.script.lose_device.store(true, Ordering::SeqCst);
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    assert_eq!(rig.post("/v1/chat/completions", chat.clone()).await.0, 503);
    let (_, state) = rig.get("/api/v1/state").await;
    assert!(
        holds(
            &state,
            &json!({
                "state": "INFERENCE", "poc_status": "NO_BACKENDS", "inference_healthy": false,
            })
        ),
        "{state}"
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
