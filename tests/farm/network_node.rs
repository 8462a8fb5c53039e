//! The Network Node, against a small MLNode that plays by the book, and its desk against deliveries that do not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use farm_tests::clock::FarmClock;
use farm_tests::network_node::desk::{Desk, Job, Round, Stage};
use farm_tests::network_node::judge::{Golden, p_value};
use farm_tests::network_node::{NetworkNodeConfig, Window};
use roadbed_protocol::UnixMillis;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Vectors of the golden run at 64 positions, by nonce from 0.
fn golden_vectors() -> Vec<String> {
    let file: Value = serde_json::from_str(include_str!("../data/poc/e2e_smollm2.json")).unwrap();
    let run = &file["runs"][0];
    assert_eq!(run["seq_len"], 64);
    let artifacts = run["artifacts"].as_array().unwrap();
    artifacts.iter().map(|artifact| artifact["vector_b64"].as_str().unwrap().to_owned()).collect()
}

/// What the small MLNode remembers.
#[derive(Default)]
struct Memory {
    serving: bool,
    generation: Option<CancellationToken>,
    mining: bool,
    paths: Vec<String>,
    content_types: u64,
    jobs: u64,
}

type Shared = Arc<Mutex<Memory>>;

/// An MLNode in a hundred lines: answers from the vectors, delivers in two batches, repeats a refused one unchanged.
async fn mlnode(memory: Shared) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(take).with_state(memory);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn take(
    State(memory): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut path = uri.path().replace("//", "/");
    let mut locked = memory.lock().unwrap();
    locked.paths.push(uri.path().to_owned());
    if method == Method::POST && headers.contains_key("content-type") {
        locked.content_types += 1;
    }
    if path.starts_with("/v3.") {
        path = path.splitn(3, '/').nth(2).map(|rest| format!("/{rest}")).unwrap();
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let ok = Json(json!({ "status": "OK" })).into_response();
    match (method.as_str(), path.as_str()) {
        ("GET", "/api/v1/state") => {
            let state = if locked.serving { "INFERENCE" } else { "STOPPED" };
            Json(json!({ "state": state })).into_response()
        }
        ("GET", "/health" | "/readyz") => StatusCode::OK.into_response(),
        ("GET", "/v1/models") => Json(json!({ "data": [{ "id": MODEL }] })).into_response(),
        ("GET", "/api/v1/inference/pow/status") => {
            let status = if locked.generation.is_some() { "GENERATING" } else { "IDLE" };
            Json(json!({ "status": status, "backends": [] })).into_response()
        }
        ("POST", "/api/v1/stop") => {
            locked.serving = false;
            ok
        }
        ("POST", "/api/v1/inference/up") if locked.mining => {
            (StatusCode::CONFLICT, Json(json!({ "detail": "mining" }))).into_response()
        }
        ("POST", "/api/v1/inference/up") => {
            assert_eq!(body["model"], MODEL);
            locked.serving = true;
            ok
        }
        ("POST", "/api/v1/inference/pow/init/generate") => {
            let stop = CancellationToken::new();
            locked.generation = Some(stop.clone());
            tokio::spawn(deliver(body, stop));
            Json(json!({ "status": "OK", "backends": 1, "n_groups": 1 })).into_response()
        }
        ("POST", "/api/v1/inference/pow/stop") => {
            if let Some(stop) = locked.generation.take() {
                stop.cancel();
            }
            ok
        }
        ("POST", "/api/v1/inference/pow/generate") => {
            locked.jobs += 1;
            let id = format!("job-{}", locked.jobs);
            let queued = body["nonces"].as_array().unwrap().len();
            tokio::spawn(validate(body, id.clone()));
            Json(json!({
                "status": "queued", "request_id": format!("5001:{id}"), "queued_count": queued
            }))
            .into_response()
        }
        _ => (StatusCode::NOT_FOUND, Json(json!({ "detail": "Not Found" }))).into_response(),
    }
}

async fn deliver(order: Value, stop: CancellationToken) {
    let artifacts: Vec<Value> = golden_vectors()
        .into_iter()
        .enumerate()
        .map(|(nonce, vector_b64)| json!({ "nonce": nonce, "vector_b64": vector_b64 }))
        .collect();
    let client = reqwest::Client::new();
    let url = format!("{}/generated", order["url"].as_str().unwrap());
    // The last batch comes twice, as after a lost answer.
    for batch in [&artifacts[..3], &artifacts[3..], &artifacts[3..]] {
        let payload = json!({
            "public_key": order["public_key"], "block_hash": order["block_hash"],
            "block_height": order["block_height"], "node_id": order["node_id"], "artifacts": batch,
            "encoding": { "dtype": "f16", "k_dim": 12, "endian": "le" },
        });
        while !stop.is_cancelled() {
            let sent = client.post(&url).json(&payload).send().await.unwrap();
            if sent.status().as_u16() < 400 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn validate(order: Value, id: String) {
    let golden = golden_vectors();
    let given = order["validation"]["artifacts"].as_array().unwrap();
    let mismatches: Vec<u64> = given
        .iter()
        .filter_map(|artifact| {
            let nonce = artifact["nonce"].as_u64()?;
            let right = &golden[usize::try_from(nonce).unwrap()];
            (artifact["vector_b64"] != right.as_str()).then_some(nonce)
        })
        .collect();
    let count = |n: usize| u32::try_from(n).unwrap();
    let chance = order["stat_test"]["p_mismatch"].as_f64().unwrap();
    let p = p_value(count(given.len()), count(mismatches.len()), chance);
    let report = json!({
        "request_id": id, "block_hash": order["block_hash"], "n_total": given.len(),
        "n_mismatch": mismatches.len(), "mismatch_nonces": mismatches, "p_value": p, "fraud_detected": p < 0.01,
    });
    let url = format!("{}/validated", order["url"].as_str().unwrap());
    let sent = reqwest::Client::new().post(url).json(&report).send().await;
    assert_eq!(sent.unwrap().status().as_u16(), 200);
}

fn config(mlnode: SocketAddr, windows: Vec<Window>) -> NetworkNodeConfig {
    NetworkNodeConfig {
        callback_listen: "127.0.0.1:0".parse().unwrap(),
        mlnode_url: format!("http://{mlnode}"),
        model: MODEL.to_owned(),
        seq_len: 64,
        windows,
        reconcile_wall_ms: 50,
        validation_sample: 8,
    }
}

#[tokio::test]
async fn a_window_is_driven_judged_and_validated() {
    let memory = Shared::default();
    let address = mlnode(Arc::clone(&memory)).await;
    let clock = FarmClock::starting_at(UnixMillis(0), 1.0);
    let window =
        Window { from_ms: 1_000, generate_until_ms: 9_000, until_ms: 40_000, block_hash: None };
    let stop = CancellationToken::new();
    let node = farm_tests::network_node::start(
        &config(address, vec![window]),
        clock,
        &stop,
        &TaskTracker::new(),
    )
    .await
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let round = loop {
        let status = node.status();
        if let Some(round) = status.rounds.first()
            && round.corrupted_validation.is_some()
            && round.validation.is_some()
        {
            break round.clone();
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let status = node.status();
    assert_eq!(status.errors, Vec::<String>::new());
    assert!(status.ups >= 1 && status.unreached == 0);
    assert!(round.started_farm_ms.is_some_and(|at| at >= 1_000));
    assert_eq!((round.artifacts, round.duplicates, round.judged), (8, 5, 8));
    assert!(round.distance_max < 4e-4 && round.distance_mean > 0.0);
    assert_eq!((round.callbacks, round.rejected_callbacks), (3, 1));
    assert!(round.retried);
    let honest = round.validation.unwrap();
    assert_eq!((honest.n_total, honest.n_mismatch), (8, 0));
    assert!(!honest.fraud_detected);
    let spoiled = round.corrupted_validation.unwrap();
    assert_eq!((spoiled.n_total, spoiled.n_mismatch), (8, 6));
    assert!(spoiled.fraud_detected);
    let memory = memory.lock().unwrap();
    assert_eq!(memory.content_types, 0);
    for path in ["/v3.0.16/api/v1/state", "//api/v1/state", "/v1/models"] {
        assert!(memory.paths.iter().any(|seen| seen == path), "{path}");
    }
    stop.cancel();
}

#[tokio::test]
async fn a_mining_node_is_asked_again_and_its_refusal_is_no_error() {
    let memory = Shared::default();
    memory.lock().unwrap().mining = true;
    let address = mlnode(Arc::clone(&memory)).await;
    let stop = CancellationToken::new();
    let node = farm_tests::network_node::start(
        &config(address, Vec::new()),
        FarmClock::starting_at(UnixMillis(0), 1.0),
        &stop,
        &TaskTracker::new(),
    )
    .await
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.status().ups_refused < 3 {
        assert!(Instant::now() < deadline, "{:?}", node.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    memory.lock().unwrap().mining = false;
    while !node.status().model_loaded {
        assert!(Instant::now() < deadline, "{:?}", node.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(node.status().errors, Vec::<String>::new());
    stop.cancel();
}

#[tokio::test]
async fn an_altered_callback_address_is_named() {
    let stop = CancellationToken::new();
    let nobody = "127.0.0.1:9".parse().unwrap();
    let node = farm_tests::network_node::start(
        &config(nobody, Vec::new()),
        FarmClock::default(),
        &stop,
        &TaskTracker::new(),
    )
    .await
    .unwrap();
    let base = format!("http://{}", node.callback_address());
    let client = reqwest::Client::new();
    let once = format!("{base}/v2/poc-batches/HuggingFaceTB%2FSmolLM2-135M-Instruct/generated");
    assert_eq!(client.post(once).send().await.unwrap().status().as_u16(), 400);
    let plain = format!("{base}/v2/poc-batches/{MODEL}/generated");
    assert_eq!(client.post(plain).send().await.unwrap().status().as_u16(), 404);
    let right = format!("{base}/v2/poc-batches/HuggingFaceTB%252FSmolLM2-135M-Instruct/generated");
    let early = client.post(right).body("{}").send().await.unwrap();
    assert_eq!(early.status().as_u16(), 503, "outside every stage");
    assert_eq!(node.status().errors.len(), 2);
    stop.cancel();
}

/// A desk in a generate stage, and a delivery it takes.
fn desk() -> (Desk, Value) {
    let mut desk = Desk::new(Golden::of_seq_len(64));
    let golden = desk.golden().clone();
    let round = desk.open_round(Round::open(golden.block_hash.clone(), 7));
    desk.stage = Stage::Generating(round);
    let delivery = json!({
        "public_key": golden.public_key, "block_hash": golden.block_hash, "block_height": 7, "node_id": 0,
        "artifacts": [{ "nonce": 0, "vector_b64": golden_vectors()[0] }],
    });
    (desk, delivery)
}

fn give(desk: &mut Desk, delivery: &Value) -> Result<(), u16> {
    desk.take_artifacts(delivery.to_string().as_bytes()).map_err(|(status, _)| status)
}

#[test]
fn deliveries_that_can_never_be_right_are_refused_for_good() {
    let (mut desk, good) = desk();
    let altered = |pointer: &str, value: Value| {
        let mut delivery = good.clone();
        *delivery.pointer_mut(pointer).unwrap() = value;
        delivery
    };
    for delivery in [
        altered("/node_id", json!(1)),
        altered("/public_key", json!("02ff")),
        altered("/block_hash", json!("00")),
        altered("/block_height", json!(8)),
        altered("/artifacts", json!([])),
        altered("/artifacts/0/nonce", json!(-1)),
        altered("/artifacts/0/nonce", json!(1_u64 << 31)),
        altered("/artifacts/0/vector_b64", json!("")),
        altered("/artifacts/0/vector_b64", json!("????")),
    ] {
        assert_eq!(give(&mut desk, &delivery), Err(400), "{delivery}");
    }
    assert_eq!(desk.take_artifacts(b"{").map_err(|(status, _)| status), Err(400));
    assert_eq!(give(&mut desk, &good), Ok(()));
    assert_eq!(give(&mut desk, &good), Ok(()), "again is fine, and does not count");
    let round = &desk.status().rounds[0];
    assert_eq!((round.artifacts, round.duplicates), (1, 1));
    assert_eq!(round.rejected_callbacks, 10);
}

#[test]
fn wrong_vectors_and_changed_retries_are_named() {
    let (mut desk, good) = desk();
    let mut wrong = good.clone();
    wrong["artifacts"][0]["nonce"] = json!(1);
    desk.refuse_next = true;
    assert_eq!(give(&mut desk, &good), Err(503));
    assert_eq!(give(&mut desk, &wrong), Ok(()));
    let errors = desk.status().errors;
    assert!(errors.iter().any(|error| error.contains("unchanged")), "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("golden")), "{errors:?}");
    assert!(!desk.status().rounds[0].retried);
}

#[test]
fn false_verdicts_are_named() {
    let (mut desk, _) = desk();
    desk.stage = Stage::Validating(0);
    desk.job_queued(
        0,
        Job {
            request_id: "5001:a".to_owned(),
            nonces: [0, 1, 2, 3].into(),
            spoiled: [2].into(),
            verdict: None,
        },
    );
    let report = |id: &str, mismatches: Value, p: f64, fraud: bool| {
        json!({
            "request_id": id, "n_total": 4, "n_mismatch": mismatches.as_array().unwrap().len(),
            "mismatch_nonces": mismatches, "p_value": p, "fraud_detected": fraud
        })
        .to_string()
    };
    let p = p_value(4, 1, 0.1);
    let unknown = desk.take_verdict(report("b", json!([2]), p, false).as_bytes());
    assert_eq!(unknown.map_err(|(status, _)| status), Err(400));
    assert_eq!(desk.take_verdict(report("a", json!([3]), 0.5, true).as_bytes()), Ok(()));
    assert_eq!(desk.status().errors.len(), 3, "{:?}", desk.status().errors);
    // The right one, late, replaces it without a word.
    assert_eq!(desk.take_verdict(report("a", json!([2]), p, false).as_bytes()), Ok(()));
    assert_eq!(desk.status().errors.len(), 3);
    desk.stage = Stage::Inference;
    let late = desk.take_verdict(report("a", json!([2]), p, false).as_bytes());
    assert_eq!(late.map_err(|(status, _)| status), Err(503));
}
