//! Callbacks that a Network Node fetches: tonic's own client against the rig's gRPC face.

use axum::http::uri::PathAndQuery;
use roadbed_agent::faces::pocstream::{
    ACK_PATH, AckCallbacksRequest, AckCallbacksResponse, CallbackMessage, STREAM_PATH,
    StreamCallbacksRequest, serve_callbacks,
};
use roadbed_agent::proof::CallbackStream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::{MODEL, Rig, RigParts, until};

/// As the Network Node spells it.
const PATH: &str = "/v2/poc-batches/MiniMaxAI%252FMiniMax-M2.7";

/// A rig whose callbacks are fetched, and where.
async fn rig() -> (Rig, String, CallbackStream, DropGuard) {
    let stream = CallbackStream::start().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(serve_callbacks(listener, stream.clone(), stop.clone()));
    let parts = RigParts { stream: Some(stream.clone()), ..RigParts::default() };
    (Rig::start(parts).await, address, stream, stop.drop_guard())
}

fn init(block_hash: &str) -> Value {
    json!({
        "block_hash": block_hash, "block_height": 7, "public_key": "02ab", "node_id": 0, "node_count": 1,
        "params": {"model": MODEL, "seq_len": 64}, "url": format!("http://nobody.invalid:9100{PATH}"),
    })
}

async fn connect(address: &str) -> Grpc<Channel> {
    let channel = Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    grpc
}

async fn open(address: &str, resume_after_id: &str) -> Streaming<CallbackMessage> {
    let request = StreamCallbacksRequest { resume_after_id: resume_after_id.to_owned() };
    let codec = ProstCodec::<StreamCallbacksRequest, CallbackMessage>::default();
    let path = PathAndQuery::from_static(STREAM_PATH);
    let mut grpc = connect(address).await;
    grpc.server_streaming(tonic::Request::new(request), path, codec).await.unwrap().into_inner()
}

async fn acknowledge(address: &str, ids: Vec<String>) {
    let codec = ProstCodec::<AckCallbacksRequest, AckCallbacksResponse>::default();
    let path = PathAndQuery::from_static(ACK_PATH);
    let request = tonic::Request::new(AckCallbacksRequest { ids });
    connect(address).await.unary(request, path, codec).await.unwrap();
}

fn nonces(callback: &CallbackMessage) -> Vec<u64> {
    let body: Value = serde_json::from_slice(&callback.body).unwrap();
    let artifacts = body["artifacts"].as_array().unwrap();
    artifacts.iter().map(|artifact| artifact["nonce"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn artifacts_are_fetched_and_count_when_they_are_acknowledged() {
    let (rig, address, _stream, _serving) = rig().await;
    assert_eq!(rig.post("/api/v1/inference/pow/init/generate", init("A1")).await.0, 200);
    let mut feed = open(&address, "").await;
    let first = feed.message().await.unwrap().unwrap();
    assert_eq!(first.path, format!("{PATH}/generated"));
    let (boot, number) = first.id.split_once('-').unwrap();
    assert!(boot.len() == 16 && boot.bytes().all(|b| b.is_ascii_hexdigit()) && number == "1");
    assert_eq!(rig.proof.counters().delivered, 0, "handed out is not delivered");

    // The line breaks before the acknowledgement: it comes again, and the older stream ends.
    let mut again = open(&address, "").await;
    assert_eq!(again.message().await.unwrap().unwrap(), first);
    assert_eq!(feed.message().await.unwrap(), None);

    acknowledge(&address, vec![first.id.clone(), "0000000000000000-7".into()]).await;
    let delivered = nonces(&first).len() as u64;
    until("the count", || (rig.proof.counters().delivered == delivered).then_some(())).await;
    let second = again.message().await.unwrap().unwrap();
    assert_eq!(nonces(&second)[0], nonces(&first).last().unwrap() + 1, "no gap, no repetition");

    // The next stream says how far it had come: no acknowledgement is needed for that.
    let mut resumed = open(&address, &second.id).await;
    let third = resumed.message().await.unwrap().unwrap();
    assert_eq!(nonces(&third)[0], nonces(&second).last().unwrap() + 1);
    assert_eq!(rig.post("/api/v1/inference/pow/stop", json!({})).await.0, 200);
}

#[tokio::test]
async fn a_stop_discards_what_nobody_fetched_and_the_round_brings_it_again() {
    let (rig, address, stream, _serving) = rig().await;
    assert_eq!(rig.post("/api/v1/inference/pow/init/generate", init("A1")).await.0, 200);
    until("a callback", || (stream.waiting() == 1).then_some(())).await;
    assert_eq!(rig.post("/api/v1/inference/pow/stop", json!({})).await.0, 200);
    until("an empty line", || (stream.waiting() == 0).then_some(())).await;
    assert_eq!(rig.post("/api/v1/inference/pow/init/generate", init("A1")).await.0, 200);
    let mut feed = open(&address, "").await;
    let callback = feed.message().await.unwrap().unwrap();
    assert_eq!(nonces(&callback)[0], 0);
    assert_eq!(rig.post("/api/v1/inference/pow/stop", json!({})).await.0, 200);
}

#[tokio::test]
async fn a_verdict_is_fetched_too() {
    let (rig, address, _stream, _serving) = rig().await;
    let artifacts = json!([{"nonce": 1, "vector_b64": "AAAA"}]);
    let mut body = init("A1");
    (body["nonces"], body["validation"]) = (json!([1]), json!({ "artifacts": artifacts }));
    body["stat_test"] = json!({"dist_threshold": 0.4, "p_mismatch": 0.1});
    assert_eq!(rig.post("/api/v1/inference/pow/generate", body).await.0, 200);
    let callback = open(&address, "").await.message().await.unwrap().unwrap();
    assert_eq!(callback.path, format!("{PATH}/validated"));
    let verdict: Value = serde_json::from_slice(&callback.body).unwrap();
    assert_eq!((&verdict["n_total"], &verdict["n_mismatch"]), (&json!(1), &json!(1)));
}
