//! The Network Node with a chain: what its public and admin APIs say, well and ill.

use farm_tests::gonka::registry::{Doing, ModelArgs, NodeConfig};
use farm_tests::gonka::{Decimal, GonkaConfig, GonkaNode, Model, Stranger};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MODEL: &str = "Org/Model-1B";
const MODULE: &str = "/chain-api/productscience/inference/inference";

fn config() -> GonkaConfig {
    GonkaConfig {
        models: vec![Model {
            id: MODEL.to_owned(),
            seq_len: 64,
            coefficient: Decimal { value: 3_024, exponent: -4 },
            v_ram: 280,
            price_per_token: 100,
        }],
        strangers: vec![Stranger {
            address: "gonka1other".to_owned(),
            public_key: "03cd".to_owned(),
            weight: 1_000,
            node_num: 0,
            node_count: 1,
            honest: true,
        }],
        ..GonkaConfig::default()
    }
}

async fn start(config: GonkaConfig) -> GonkaNode {
    let stop = CancellationToken::new();
    GonkaNode::start(config, None, &stop, &TaskTracker::new()).await.unwrap()
}

async fn get(node: &GonkaNode, path: &str) -> (u16, Value) {
    let answer = reqwest::get(format!("{}{path}", node.public_url())).await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
}

async fn admin(node: &GonkaNode, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = reqwest::Client::new().request(method, format!("{}{path}", node.admin_url()));
    let request = if body.is_null() { request } else { request.body(body.to_string()) };
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
}

fn registration(id: &str, port: u16) -> Value {
    let node = NodeConfig {
        id: id.to_owned(),
        host: "127.0.0.1".to_owned(),
        inference_segment: String::new(),
        inference_port: i64::from(port),
        poc_segment: String::new(),
        poc_port: i64::from(port),
        base_url: String::new(),
        auth_token: String::new(),
        models: [(MODEL.to_owned(), ModelArgs::default())].into(),
        max_concurrent: 8,
        hardware: Vec::new(),
    };
    serde_json::to_value(node).unwrap()
}

#[tokio::test]
async fn the_public_api_tells_of_the_epoch() {
    let node = start(config()).await;
    let (_, before) = get(&node, "/v1/epochs/latest").await;
    assert_eq!(
        (&before["phase"], &before["latest_epoch"]["index"]),
        (&json!("Inference"), &json!(409))
    );
    node.step_to(1_000).await;
    let (_, latest) = get(&node, "/v1/epochs/latest").await;
    assert_eq!((&latest["block_height"], &latest["phase"]), (&json!(1_000), &json!("PoCGenerate")));
    assert_eq!(latest["epoch_stages"]["poc_generation_end"], 1_010);
    assert_eq!(
        latest["epoch_stages"]["poc_exchange_window"],
        json!({"start": 1_001, "end": 1_012})
    );
    assert_eq!(latest["next_epoch_stages"]["epoch_index"], 411);
    assert_eq!(latest["effective_epoch_index"], 409);
    assert_eq!(get(&node, "/v1/epochs/410/participants").await.0, 404, "not yet");

    node.step_to(1_026).await;
    let (_, current) = get(&node, "/v1/epochs/current/participants").await;
    let group = &current["active_participants"];
    assert_eq!(
        (&group["epoch_id"], &group["poc_start_block_height"]),
        (&json!(410), &json!(1_000))
    );
    assert_eq!(group["participants"].as_array().unwrap().len(), 1, "we proved nothing");
    assert_eq!(group["participants"][0]["index"], "gonka1other");

    let (_, params) = get(&node, &format!("{MODULE}/params")).await;
    let models = &params["params"]["poc_params"]["models"][0];
    assert_eq!(models["weight_scale_factor"], json!({"value": "3024", "exponent": -4}));
    assert_eq!(params["params"]["epoch_params"]["epoch_length"], "80");
    let (_, data) =
        get(&node, &format!("{MODULE}/epoch_group_data/410?model_id=Org%2FModel-1B")).await;
    assert_eq!(data["epoch_group_data"]["total_weight"], "1000");
    assert_eq!(data["epoch_group_data"]["model_id"], MODEL);
    for path in [
        "/v1/pricing",
        "/v1/models",
        "/v1/versions",
        "/v1/status",
        "/chain-rpc/status",
        &format!("{MODULE}/current_epoch_group_data"),
        &format!("{MODULE}/dynamic_coefficients/0"),
        &format!("{MODULE}/hardware_nodes_all"),
        &format!("{MODULE}/epoch_info"),
        &format!("{MODULE}/all_model_per_token_prices"),
        &format!("{MODULE}/models_all"),
    ] {
        assert_eq!(get(&node, path).await.0, 200, "{path}");
    }
    assert_eq!(get(&node, &format!("{MODULE}/settle_amount/gonka1standinhost")).await.0, 404);
    assert_eq!(get(&node, "/v1/nothing").await.0, 404);
}

#[tokio::test]
async fn confirmation_pocs_are_announced_and_over() {
    let node = start(config()).await;
    let events = node.with(|world| {
        let stages = world.chain.stages_of(410);
        world.chain.confirmations(&stages)
    });
    let active = format!("{MODULE}/active_confirmation_poc_event");
    node.step_to(events[0].trigger_height - 1).await;
    assert_eq!(get(&node, &active).await.1, json!({"is_active": false, "event": null}));
    node.step().await;
    let (_, latest) = get(&node, "/v1/epochs/latest").await;
    assert_eq!(latest["is_confirmation_poc_active"], true);
    let event = &latest["active_confirmation_poc_event"];
    assert_eq!((&event["phase"], &event["event_sequence"]), (&json!(1), &json!(0)));
    assert!(event.get("poc_seed_block_hash").is_none(), "not known in the grace period");
    node.step().await;
    let (_, event) = get(&node, &active).await;
    assert_eq!(event["event"]["phase"], "CONFIRMATION_POC_GENERATION");
    assert_eq!(event["event"]["trigger_height"], events[0].trigger_height.to_string());
    assert_eq!(event["event"]["poc_seed_block_hash"].as_str().unwrap().len(), 64);
    node.step_to(events[1].validation_end_height + 1).await;
    let (_, past) = get(&node, &format!("{MODULE}/confirmation_poc_events")).await;
    assert_eq!(past["events"].as_array().unwrap().len(), 2);
    assert_eq!(past["events"][1]["phase"], "CONFIRMATION_POC_COMPLETED");
}

#[tokio::test]
async fn answers_are_bent_as_told() {
    let node = start(config()).await;
    node.with(|world| world.faults.numbers_as_strings = true);
    node.with(|world| world.faults.no_optional_fields = true);
    let (_, latest) = get(&node, "/v1/epochs/latest").await;
    assert_eq!(latest["block_height"], "995");
    assert!(latest.get("next_epoch_stages").is_none());
    node.with(|world| world.faults = farm_tests::gonka::faults::Faults::default());
    node.with(|world| world.faults.halted = true);
    node.step().await;
    assert_eq!(get(&node, "/v1/epochs/latest").await.1["block_height"], 995, "the chain stands");
    node.with(|world| (world.faults.halted, world.faults.stale) = (false, true));
    get(&node, "/chain-rpc/status").await;
    node.step().await;
    let (_, comet) = get(&node, "/chain-rpc/status").await;
    assert_eq!(comet["result"]["sync_info"]["latest_block_height"], "995");
    node.with(|world| world.faults.not_found.insert("/v1/pricing".to_owned()));
    node.with(|world| world.faults.broken.insert("/v1/models".to_owned()));
    assert_eq!(get(&node, "/v1/pricing").await.0, 404);
    assert_eq!(get(&node, "/v1/models").await, (500, Value::Null));
    node.go_down();
    assert!(reqwest::get(format!("{}/v1/status", node.public_url())).await.is_err());
    node.step().await;
    node.come_back().await.unwrap();
    node.with(|world| world.faults.stale = false);
    assert_eq!(get(&node, "/v1/status").await.1["block_height"], 997, "the chain went on");
}

#[tokio::test]
async fn nodes_are_registered_as_the_admin_api_says() {
    let node = start(config()).await;
    let nodes = "/admin/v1/nodes";
    let (status, put) = admin(&node, Method::POST, nodes, registration("rig-1", 9)).await;
    assert_eq!((status, &put["id"]), (200, &json!("rig-1")));
    let mut foreign = registration("rig-2", 10);
    foreign["models"] = json!({"Org/Unapproved": {"args": []}});
    let (status, why) = admin(&node, Method::POST, nodes, foreign.clone()).await;
    assert_eq!(status, 400);
    assert!(why["error"].as_str().unwrap().contains("governance"), "{why}");
    let batch = json!([registration("rig-3", 11), foreign]);
    let (status, some) = admin(&node, Method::POST, "/admin/v1/nodes/batch", batch).await;
    assert_eq!((status, some["nodes"].as_array().unwrap().len()), (206, 1));
    let (status, none) =
        admin(&node, Method::POST, "/admin/v1/nodes/batch", json!([foreign])).await;
    assert_eq!((status, none["errors"].as_array().unwrap().len()), (400, 1));
    let all = json!([registration("rig-4", 12)]);
    assert_eq!(admin(&node, Method::POST, "/admin/v1/nodes/batch", all).await.0, 201);
    assert_eq!(admin(&node, Method::POST, nodes, json!("x")).await.0, 400);

    let moved = registration("rig-1", 13);
    assert_eq!(admin(&node, Method::PUT, "/admin/v1/nodes/rig-1", moved).await.0, 200);
    let (_, disabled) =
        admin(&node, Method::POST, "/admin/v1/nodes/rig-3/disable", Value::Null).await;
    assert_eq!(disabled, json!({"message": "node disabled successfully", "node_id": "rig-3"}));
    assert_eq!(
        admin(&node, Method::POST, "/admin/v1/nodes/nobody/enable", Value::Null).await.0,
        404
    );
    assert_eq!(admin(&node, Method::DELETE, "/admin/v1/nodes/rig-4", Value::Null).await.1, true);
    let (_, list) = admin(&node, Method::GET, nodes, Value::Null).await;
    let numbers: Vec<(&str, u64)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["node"]["id"].as_str().unwrap(), one["node"]["node_num"].as_u64().unwrap()))
        .collect();
    assert_eq!(numbers, [("rig-1", 1), ("rig-3", 2)]);
    assert_eq!(list[1]["state"]["admin_state"], json!({"enabled": false, "epoch": 409}));
    assert_eq!(list[0]["state"]["current_status"], "UNKNOWN");

    // Nobody is at home there: wanted INFERENCE, seen FAILED, and the disabled one leaves with the next PoC.
    node.step().await;
    let seen =
        |id: &str| node.with(|world| world.registry.get(id).map(|node| (node.wanted, node.seen)));
    assert_eq!(seen("rig-1"), Some((Doing::Inference, Doing::Failed)));
    assert_eq!(seen("rig-3"), Some((Doing::Inference, Doing::Failed)), "to the end of its epoch");
    node.step_to(1_000).await;
    assert_eq!(seen("rig-1"), Some((Doing::Generating, Doing::Failed)));
    assert_eq!(seen("rig-3"), Some((Doing::Stopped, Doing::Failed)));
}
