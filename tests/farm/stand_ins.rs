//! The config file, the status server and all stand-ins together.

use std::path::Path;

use farm_tests::config::StandinsConfig;
use farm_tests::standins::Standins;
use serde_json::{Value, json};

const WHOLE: &str = r#"
clock: {rate: 288.0, farm_origin_ms: 1614556800000, wall_origin_ms: 0}
status_listen: 127.0.0.1:0
pool: {listen: 127.0.0.1:0, difficulty: 0.0001}
asics:
  - {id: asic-1, family: luxos, listen: "127.0.0.1:0", floor_watts: 18, wake_seconds: 60, steps: [{watts: 1384, terahash: 65.0}, {watts: 2794, terahash: 121.8}]}
  - {id: asic-4, family: vnish, listen: "127.0.0.1:0", floor_watts: 21, wake_seconds: 240, steps: [{watts: 2550, terahash: 170.0}, {watts: 3520, terahash: 236.0}]}
network_node:
  callback_listen: 127.0.0.1:0
  mlnode_url: http://127.0.0.1:9
  model: HuggingFaceTB/SmolLM2-135M-Instruct
  seq_len: 64
  windows: [{from_ms: 10, generate_until_ms: 20, until_ms: 30}]
customer: {base_url: http://127.0.0.1:9, model: m, pause_wall_ms: 3000, max_tokens: 24}
"#;

#[tokio::test]
async fn all_of_them_run_and_tell_their_status() {
    let config = StandinsConfig::parse(WHOLE, Path::new("standins.yaml")).unwrap();
    let standins = Standins::start(&config).await.unwrap();
    let base = format!("http://{}", standins.status_address());
    let client = reqwest::Client::new();
    let health = client.get(format!("{base}/healthz")).send().await.unwrap();
    assert_eq!(health.status().as_u16(), 200);
    let get = async || -> Value {
        let response = client.get(format!("{base}/status")).send().await.unwrap();
        response.json().await.unwrap()
    };
    let status = get().await;
    for pointer in [
        "/pool/connections",
        "/pool/submitted",
        "/pool/accepted",
        "/pool/rejected/stale",
        "/pool/rejected/duplicate",
        "/pool/rejected/low_difficulty",
        "/pool/rejected/other",
        "/pool/accepted_difficulty",
        "/pool/blocks",
        "/network_node/rounds",
        "/network_node/errors",
        "/customer/asked",
        "/customer/answered",
        "/customer/refused",
        "/customer/failed",
        "/customer/tokens",
        "/customer/last_text",
        "/asics/1/watts",
        "/asics/1/terahash",
        "/asics/1/commands",
    ] {
        assert!(status.pointer(pointer).is_some(), "{pointer}");
    }
    assert_eq!(status["asics"][0]["state"], "hashing");
    assert_eq!(status["asics"][1]["family"], "vnish");

    let set = async |id: &str, body: Value| {
        let request = client.post(format!("{base}/asics/{id}/fault"));
        let response = request.body(body.to_string()).send().await.unwrap();
        response.status().as_u16()
    };
    assert_eq!(set("asic-1", json!({ "fault": "session_held" })).await, 200);
    assert_eq!(get().await["asics"][0]["fault"], "session_held");
    assert_eq!(set("asic-1", json!({ "fault": null })).await, 200);
    assert_eq!(set("asic-4", json!({ "fault": "session_held" })).await, 422);
    assert_eq!(set("asic-1", json!({ "fault": "plague" })).await, 422);
    assert_eq!(set("asic-9", json!({ "fault": null })).await, 404);
    assert_eq!(set("asic-1", json!({ "fault": "reboot" })).await, 200);
    assert_eq!(get().await["asics"][0]["state"], "rebooting");
    standins.stop().await;
}

#[test]
fn bad_configs_are_refused_with_the_place() {
    let check = |from: &str, to: &str, wanted: &str| {
        let text = WHOLE.replace(from, to);
        assert_ne!(text, WHOLE, "{from}");
        let error =
            StandinsConfig::parse(&text, Path::new("standins.yaml")).expect_err(to).to_string();
        assert!(error.starts_with("standins.yaml: "), "{error}");
        assert!(error.contains(wanted), "{wanted} in: {error}");
    };
    check("rate: 288.0", "rate: 0", "clock.rate");
    check("rate: 288.0", "rate: .nan", "clock.rate");
    check("family: luxos", "family: luxor", "asics[0].family");
    check("id: asic-4", "id: asic-1", "asics[1].id");
    check("floor_watts: 21", "floor_watts: 2550", "asics[1].steps");
    check("difficulty: 0.0001", "difficulty: -1", "pool.difficulty");
    check("seq_len: 64", "seq_len: 0", "network_node.seq_len");
    check("until_ms: 30", "until_ms: 15", "network_node.windows[0]");
    check("max_tokens: 24", "max_token: 24", "customer");
    check("pool: {listen: 127.0.0.1:0", "pool: {listen: nowhere", "pool.listen");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = WHOLE.replace(
        "listen: \"127.0.0.1:0\", floor_watts: 18",
        &format!("listen: \"{address}\", floor_watts: 18"),
    );
    let config = StandinsConfig::parse(&text, Path::new("standins.yaml")).unwrap();
    let error = Standins::start(&config).await.expect_err("address in use").to_string();
    assert!(error.starts_with(&format!("asic-1 at {address}: ")), "{error}");
}
