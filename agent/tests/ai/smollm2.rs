//! The real engine behind the same faces: a chat that is answered and artifacts that match the golden vectors.

use std::path::Path;
use std::sync::Arc;

use roadbed_agent::engine::catalogue::ModelStore;
use roadbed_agent::engine::startup::load_request;
use roadbed_agent::engine::{EngineService, WgpuLoader};
use roadbed_agent::faces::{Faces, FacesSettings, Gate, GateControl, Node, NodeParts, serve};
use roadbed_agent::inference::Inference;
use roadbed_agent::proof::{MemoryJournal, ProofService};
use roadbed_compute::infval::Listed;
use roadbed_compute::infval::similarity::likeness;
use roadbed_compute::poc::{artifact::decode, verdict::l2};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{quick, read};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/poc/e2e_smollm2.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn a_chat_is_answered_and_artifacts_are_true() {
    // `make test` fetches the model; the message of a missing one says what to run.
    let configured = load_request("smollm2-135m", None).unwrap_or_else(|error| panic!("{error}"));
    let model = configured.served_as.clone();
    let engine = EngineService::start(WgpuLoader::default()).unwrap();
    let journal = Arc::new(MemoryJournal::default());
    let proof = ProofService::new(engine.clone(), journal, quick(), None);
    let node = Arc::new(Node::new(NodeParts {
        inference: Inference::Own { engine: engine.clone(), proof },
        gate: GateControl::new(Gate::Open),
        configured,
        store: ModelStore::from_environment().ok(),
        devices: vec![],
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let faces = Faces::new(node, FacesSettings::default());
    let serving = tokio::spawn(serve(listener, faces, stop.clone()));
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Value| {
        read(http.post(format!("{base}{path}")).body(body.to_string()).send().await.unwrap()).await
    };

    let (status, _) =
        post("/api/v1/inference/up", json!({"model": model, "dtype": "float16"})).await;
    assert_eq!(status, 200);
    let question = json!({"role": "user", "content": "What is the capital of France?"});
    let (status, answer) = post(
        "/v1/chat/completions",
        json!({
            "model": model, "messages": [question], "temperature": 0, "max_tokens": 16,
            "logprobs": true, "top_logprobs": 5, "return_token_ids": true,
        }),
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "The capital of France is Paris.");
    assert_eq!(choice["token_ids"], json!([504, 3575, 282, 4649, 314, 7042, 30, 2]));

    // The model's own words, in a form it would not choose.
    let place = json!({
        "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"], "additionalProperties": false,
    });
    let (status, formed) = post(
        "/v1/chat/completions",
        json!({
            "model": model, "messages": [question], "temperature": 0, "max_tokens": 24,
            "response_format": {
                "type": "json_schema", "json_schema": {"name": "place", "schema": place},
            },
        }),
    )
    .await;
    assert_eq!(status, 200, "{formed}");
    let formed = &formed["choices"][0];
    let read: Value = serde_json::from_str(formed["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(read, json!({"city": "Paris"}));
    assert_eq!(formed["finish_reason"], "stop");

    // A validator replays it and sees the same log probabilities.
    let tokens: Vec<Value> = choice["token_ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| json!({"token": id.to_string()}))
        .collect();
    let (_, replay) = post(
        "/v1/chat/completions",
        json!({
            "model": model, "messages": [question], "logprobs": true, "top_logprobs": 5,
            "enforced_tokens": {"tokens": tokens},
        }),
    )
    .await;
    let content = |answer: &Value| answer["choices"][0]["logprobs"]["content"].clone();
    let (said, replayed) = (content(&answer), content(&replay));
    assert_eq!(said.as_array().unwrap().len(), replayed.as_array().unwrap().len());
    let lists = |content: &Value| -> Vec<Vec<Listed>> {
        let listed = |top: &Value| Listed {
            id: top["token"].as_str().unwrap().parse().unwrap(),
            logprob: top["logprob"].as_f64().unwrap(),
        };
        let list =
            |token: &Value| token["top_logprobs"].as_array().unwrap().iter().map(listed).collect();
        content.as_array().unwrap().iter().map(list).collect()
    };
    let likeness = likeness(&lists(&said), &lists(&replayed)).unwrap();
    assert!(likeness.similarity >= 0.9999 && likeness.per_token < 1e-4, "{likeness:?}");
    for (said, replayed) in said.as_array().unwrap().iter().zip(replayed.as_array().unwrap()) {
        assert_eq!(said["token"], replayed["token"]);
        let difference = said["logprob"].as_f64().unwrap() - replayed["logprob"].as_f64().unwrap();
        assert!(difference.abs() < 1e-3, "{said} {replayed}");
    }

    let golden = golden();
    let run = golden["runs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["seq_len"] == 64 && run["poc_stronger_rng"] == false)
        .unwrap();
    let (status, proved) = post(
        "/api/v1/inference/pow/generate",
        json!({
            "block_hash": golden["block_hash"], "block_height": 1,
            "public_key": golden["public_key"], "node_id": 0, "node_count": 1,
            "params": {"model": model, "seq_len": 64}, "nonces": [0, 1], "wait": true,
        }),
    )
    .await;
    assert_eq!(status, 200, "{proved}");
    for nonce in 0..2 {
        let ours = decode(proved["artifacts"][nonce]["vector_b64"].as_str().unwrap(), 12).unwrap();
        let expected: Vec<f32> = run["artifacts"][nonce]["vector_f32"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap() as f32)
            .collect();
        assert_eq!(run["artifacts"][nonce]["nonce"], nonce);
        let distance = l2(&ours, &expected);
        assert!(distance <= 0.001, "nonce {nonce}: {distance}");
    }
    stop.cancel();
    engine.shut_down().await;
    serving.await.unwrap().unwrap();
}
