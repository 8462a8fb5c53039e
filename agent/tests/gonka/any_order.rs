//! Any calls in any order with any bodies: no panic, and never a state the contract forbids.
//!
//! Two kinds of bodies: valid ones with a few fields exchanged for anything, and hostile ones that nobody means. After every
//! call the rig is asked what it does, and its three answers (state, proof status, health) must agree with each other and with
//! what the call promised. The cases are the same in every run.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::{Value, json};

use super::rig::{Home, MODEL, Rig, until};

/// Sequences of calls, and calls in each at most.
const CASES: u32 = 120;
const CALLS_MAX: usize = 24;
/// Every status the contract knows for what is called here. 500 is not among them.
const LEGAL: [u16; 17] =
    [200, 202, 204, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 501, 502, 503, 504];

const STATE: &str = "/api/v1/state";
const PROOF: &str = "/api/v1/inference/pow/status";
const ENGINE: &str = "/api/v1/pow/status";
const READY: &str = "/readyz";

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Up,
    UpAsync,
    Down,
    Stop,
    Init,
    Generate,
    ProofStop,
    Poll,
    EngineInit,
    EngineGenerate,
    EngineStop,
    EnginePoll,
    Chat,
    Completions,
    Tokenize,
    Embed,
    ModelStatus,
    Train,
}

impl Route {
    const ALL: [Self; 18] = [
        Self::Up,
        Self::UpAsync,
        Self::Down,
        Self::Stop,
        Self::Init,
        Self::Generate,
        Self::ProofStop,
        Self::Poll,
        Self::EngineInit,
        Self::EngineGenerate,
        Self::EngineStop,
        Self::EnginePoll,
        Self::Chat,
        Self::Completions,
        Self::Tokenize,
        Self::Embed,
        Self::ModelStatus,
        Self::Train,
    ];

    const fn path(self) -> &'static str {
        match self {
            Self::Up => "/api/v1/inference/up",
            Self::UpAsync => "/api/v1/inference/up/async",
            Self::Down => "/api/v1/inference/down",
            Self::Stop => "/api/v1/stop",
            Self::Init => "/api/v1/inference/pow/init/generate",
            Self::Generate => "/api/v1/inference/pow/generate",
            Self::ProofStop => "/api/v1/inference/pow/stop",
            Self::Poll => "/api/v1/inference/pow/generate/",
            Self::EngineInit => "/api/v1/pow/init/generate",
            Self::EngineGenerate => "/api/v1/pow/generate",
            Self::EngineStop => "/api/v1/pow/stop",
            Self::EnginePoll => "/api/v1/pow/generate/",
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Tokenize => "/tokenize",
            Self::Embed => "/api/v1/embed",
            Self::ModelStatus => "/api/v1/models/status",
            Self::Train => "/api/v1/train/start",
        }
    }

    /// A body that is meant.
    fn valid(self) -> Value {
        let order = json!({
            "block_hash": "AB", "block_height": 100, "public_key": "02ab", "node_id": 0,
            "node_count": 1, "params": { "model": MODEL, "seq_len": 64 }, "url": null,
        });
        let with = |more: Value| {
            let mut order = order.clone();
            for (name, value) in more.as_object().into_iter().flatten() {
                order[name.as_str()] = value.clone();
            }
            order
        };
        match self {
            Self::Up | Self::UpAsync => {
                json!({ "model": MODEL, "dtype": "float16", "additional_args": [] })
            }
            Self::Down
            | Self::Stop
            | Self::ProofStop
            | Self::EngineStop
            | Self::Poll
            | Self::EnginePoll => json!({}),
            Self::Init => order,
            Self::EngineInit => with(json!({ "group_id": 1, "n_groups": 2 })),
            Self::Generate | Self::EngineGenerate => with(json!({
                "nonces": [1, 2], "wait": false, "batch_size": 32,
                "validation": { "artifacts": [
                    { "nonce": 1, "vector_b64": "SjJjtP+36itbMOG0OLN6tJQ1xjbPNC0n" },
                    { "nonce": 2, "vector_b64": "" },
                ] },
                "stat_test": { "dist_threshold": 0.4, "p_mismatch": 0.1, "p_value_threshold": 0.05 },
            })),
            Self::Chat => json!({
                "model": MODEL, "messages": [{ "role": "user", "content": "x" }], "max_tokens": 2,
                "logprobs": true, "top_logprobs": 5, "seed": 1, "temperature": 0.5,
                "enforced_tokens": { "tokens": [{ "token": "97", "top_tokens": ["97"] }] },
            }),
            Self::Completions => json!({ "model": MODEL, "prompt": "x", "max_tokens": 2 }),
            Self::Tokenize => json!({ "model": MODEL, "prompt": "x" }),
            Self::Embed => json!({ "text": "x" }),
            Self::ModelStatus => json!({ "hf_repo": "a/b", "hf_commit": null }),
            Self::Train => json!({ "train_config": {} }),
        }
    }
}

/// Any JSON, small.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3_i64..40).prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        Just(Value::from("../../etc/passwd")),
        Just(Value::from(MODEL)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,9}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a document, as JSON pointers, the whole excluded.
fn places(document: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match document {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (format!("{at}/{name}"), value)).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().map(|(place, item)| (format!("{at}/{place}"), item)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (pointer, child) in children {
        places(child, &pointer, found);
        found.push(pointer);
    }
}

/// What is sent.
#[derive(Debug, Clone)]
struct Call {
    route: Route,
    body: Vec<u8>,
    /// What a job is asked for by, as it stands in the address.
    id: String,
    /// The body is the valid one.
    meant: bool,
}

fn call() -> impl Strategy<Value = Call> {
    let route = (0..Route::ALL.len()).prop_map(|place| Route::ALL[place]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), anything()), 1..4);
    let raw = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..48),
        anything().prop_map(|value| value.to_string().into_bytes()),
        Just(b"[".repeat(20_000)),
        Just(b"{\"a\":".repeat(5_000)),
        Just(b"{\"params\": 1e999}".to_vec()),
        Just(b"\"\\ud800\"".to_vec()),
        Just(b"{\"model\":1,\"model\":2}".to_vec()),
        Just(Vec::new()),
    ];
    // Ids of all kinds: escapes of bytes that are no UTF-8, labels with nothing behind them, nothing at all.
    let id = prop_oneof![
        Just("5001:%20unknown".to_owned()),
        "(5001|[0-9]{1,6}|x)?(:|%3A|%3a)?(%[0-9A-F]{2}|[a-z0-9-]){0,9}",
    ];
    (route, 0..10, changes, raw, id).prop_map(|(route, kind, changes, raw, id)| {
        let valid = route.valid();
        match kind {
            0..5 => Call { route, body: valid.to_string().into_bytes(), id, meant: true },
            5..8 => {
                let mut pointers = Vec::new();
                places(&valid, "", &mut pointers);
                let mut body = valid;
                for (index, value) in changes {
                    let place = (!pointers.is_empty()).then(|| index.get(&pointers));
                    match place.and_then(|pointer| body.pointer_mut(pointer)) {
                        // A request may name any address; none but this machine's closed door is called here.
                        Some(spot) if place.is_none_or(|pointer| pointer != "/url") => {
                            *spot = value
                        }
                        Some(spot) => *spot = json!("http://127.0.0.1:9/x"),
                        None => {}
                    }
                }
                Call { route, body: body.to_string().into_bytes(), id, meant: false }
            }
            _ => Call { route, body: raw, id, meant: false },
        }
    })
}

/// One sequence against a fresh rig.
async fn play(calls: Vec<Call>) -> Result<(), String> {
    let home = Home::new().await;
    let rig = Rig::start(&home, false).await;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let url = |path: &str| format!("http://{}{path}", home.address);
    for (place, Call { route, body, id, meant }) in calls.into_iter().enumerate() {
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let told = |what: String| Err(format!("call {place}, {route:?} {shown}: {what}"));
        let request = match route {
            Route::Poll | Route::EnginePoll => http.get(url(route.path()) + &id),
            _ => http.post(url(route.path())).body(body),
        };
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return told(format!("no answer: {error}")),
        };
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        if !LEGAL.contains(&status) {
            return told(format!("{status} {text}"));
        }
        let document: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let told_why = match route.path().starts_with("/api/") {
            true => !document["detail"].is_null(),
            false => document["error"]["code"] == status || text == "No vLLM backend available",
        };
        if status >= 400 && !told_why {
            return told(format!("{status} in no form of the contract: {text} ({id})"));
        }
        if status == 422 && meant {
            return told(format!("a body that is meant is called unreadable: {text}"));
        }
        if let Err(what) = agrees(&rig, &http, &home, route, status).await {
            return told(format!("{status}, then {what}"));
        }
    }
    rig.kill().await;
    Ok(())
}

/// Whether what the rig says of itself fits together, and fits what the call promised.
async fn agrees(
    rig: &Rig,
    http: &reqwest::Client,
    home: &Home,
    route: Route,
    status: u16,
) -> Result<(), String> {
    if rig.engine.model().is_none() && rig.proof.is_generating() {
        // The round is told of its model's end; until then the two may differ.
        until("the round's end", || (!rig.proof.is_generating()).then_some(())).await;
    }
    let get = async |path: &str| {
        let answer = http.get(format!("http://{}{path}", home.address)).send().await;
        let answer = answer.map_err(|error| format!("{path}: {error}"))?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>((status, serde_json::from_str::<Value>(&text).unwrap_or(Value::Null)))
    };
    // A model may come up between two questions: only answers about one and the same moment are held together.
    let (mut before, mut proof, mut ready) =
        (get(STATE).await?, get(PROOF).await?, get(READY).await?);
    let mut engine = get(ENGINE).await?;
    let mut after = get(STATE).await?;
    while before != after {
        before = after;
        (proof, ready, engine) = (get(PROOF).await?, get(READY).await?, get(ENGINE).await?);
        after = get(STATE).await?;
    }
    let generates = |view: &Value| view["status"] == "GENERATING";
    if engine.0 != 200 || generates(&engine.1) != generates(&proof.1) {
        return Err(format!("the engine says {engine:?} and its node {proof:?}"));
    }
    let ((state_status, state), (proof_status, proof), (ready, _)) = (after, proof, ready);
    let word = state["state"].as_str().unwrap_or("");
    let proving = proof["status"].as_str().unwrap_or("");
    let seen = format!("state {state}, proof {proof}, readyz {ready}");
    let wrong = |what: &str| Err(format!("{what}: {seen}"));
    if (state_status, proof_status) != (200, 200) {
        return wrong("state and proof status are always answered");
    }
    match word {
        "STOPPED" => {
            let silent = ["poc_status", "inference_healthy", "loaded_model"];
            if silent.iter().any(|field| !state[*field].is_null()) {
                return wrong("a stopped node says nothing of an engine");
            }
            if proving != "NO_BACKENDS" || ready != 200 {
                return wrong("a stopped node has no back-ends and is ready");
            }
        }
        "INFERENCE" if state["inference_healthy"] == true => {
            if state["loaded_model"] != MODEL || ready != 200 {
                return wrong("a healthy node names its model and is ready");
            }
            if !matches!(proving, "IDLE" | "GENERATING" | "VALIDATING") {
                return wrong("a healthy node is idle, proves or validates");
            }
        }
        "INFERENCE" => {
            if proving != "NO_BACKENDS" {
                return wrong("a node that is not healthy has no back-ends");
            }
        }
        _ => return wrong("a state that does not exist"),
    }
    let promised = match (route, status) {
        (Route::Up, 200) => word == "INFERENCE",
        (Route::Stop | Route::Down, 200) => word == "STOPPED",
        (Route::ProofStop | Route::EngineStop, 200) => proving != "GENERATING",
        (Route::Init | Route::EngineInit, 200) => proving == "GENERATING",
        _ => true,
    };
    if promised { Ok(()) } else { wrong("not what was promised") }
}

#[test]
fn any_calls_in_any_order_leave_a_legal_state() {
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    let shrinks = Config { max_shrink_iters: 200, ..Config::default() };
    let config = Config { cases: CASES, failure_persistence: None, ..shrinks };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let sequences = prop::collection::vec(call(), 1..CALLS_MAX);
    let outcome =
        runner.run(&sequences, |calls| runtime.block_on(play(calls)).map_err(TestCaseError::fail));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
