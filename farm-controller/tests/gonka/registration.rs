//! What the admin API is sent, and what differs from what it has.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use farm_controller::config::{GonkaRig, Site};
use farm_controller::gonka::client::NodeClient;
use farm_controller::gonka::registration::{
    Difference, difference, document, register_all, shown, with_token,
};
use serde_json::{Value, json};

use super::{MODEL, answer};

fn rigs() -> Vec<GonkaRig> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/gonka-site.yaml");
    Site::load(&path).unwrap().gonka.unwrap().rigs
}

#[test]
fn a_node_has_one_mode() {
    let rigs = rigs();
    let by_url = document(&rigs[0]);
    assert_eq!(by_url["base_url"], "http://10.0.0.2:18890/rigs/h100-1");
    assert!(by_url.get("host").is_none() && by_url.get("poc_port").is_none());
    assert_eq!(by_url["models"][MODEL]["args"], json!(["--tensor-parallel-size", "4"]));
    let by_ports = document(&rigs[1]);
    assert!(by_ports.get("base_url").is_none());
    assert_eq!((&by_ports["inference_port"], &by_ports["poc_port"]), (&json!(5050), &json!(8080)));
    assert_eq!(by_ports["hardware"], json!([{"type": "NVIDIA H100 80GB HBM3", "count": 4}]));
}

#[test]
fn differences_are_named_field_by_field() {
    let rigs = rigs();
    let listed = answer("admin_nodes");
    let Difference::Changed(changes) = difference(&document(&rigs[0]), &listed) else {
        unreachable!("its address is another");
    };
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "base_url: \"http://controller:8090/rigs/h100-1\" -> \"http://10.0.0.2:18890/rigs/h100-1\"",
            "auth_token: one -> none",
        ]
    );
    assert_eq!(difference(&document(&rigs[0]), &json!([])), Difference::New);
    let same = json!([{"node": document(&rigs[1]), "state": {}}]);
    assert_eq!(difference(&document(&rigs[1]), &same), Difference::Same);
}

#[test]
fn a_token_is_sent_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let mut rig = rigs().remove(0);
    rig.auth_token_file = Some(file.clone());
    assert!(with_token(&rig).unwrap_err().to_string().contains("token file"));
    std::fs::write(&file, "two lines\nhere").unwrap();
    assert!(with_token(&rig).unwrap_err().to_string().contains("one line"));
    std::fs::write(&file, "s3cret\n").unwrap();
    assert_eq!(with_token(&rig).unwrap()["auth_token"], "s3cret");
    assert!(!shown(&rig).to_string().contains("s3cret"));
}

/// An admin API that answers the batch route with `batch`, and knows who was registered alone; it refuses the second.
async fn admin_api(batch: StatusCode) -> (NodeClient, Arc<Mutex<Vec<String>>>) {
    let alone: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&alone);
    let one = move |Json(node): Json<Value>| async move {
        let id = node["id"].as_str().unwrap().to_owned();
        let mut heard = heard.lock().unwrap();
        heard.push(id);
        match heard.len() {
            2 => (StatusCode::BAD_REQUEST, Json(json!({ "error": "no room" }))),
            _ => (StatusCode::OK, Json(node)),
        }
    };
    let all = move || async move { (batch, Json(json!({ "error": "as it is" }))) };
    let router =
        Router::new().route("/admin/v1/nodes", post(one)).route("/admin/v1/nodes/batch", post(all));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (NodeClient::new(&url, None), alone)
}

#[tokio::test]
async fn without_a_batch_route_nodes_are_registered_one_by_one() {
    let rigs = rigs();
    let rigs: Vec<&GonkaRig> = rigs.iter().collect();
    for absent in
        [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED]
    {
        let (admin, alone) = admin_api(absent).await;
        let done = register_all(&admin, &rigs).await.unwrap();
        assert_eq!(*alone.lock().unwrap(), ["farm-h100-1", "farm-h100-2"]);
        assert!(done[0].is_ok(), "{done:?}");
        assert!(done[1].as_ref().unwrap_err().to_string().contains("no room"), "{done:?}");
    }
    // A refusal is none of these: nobody is sent twice.
    let (admin, alone) = admin_api(StatusCode::BAD_REQUEST).await;
    let done = register_all(&admin, &rigs).await.unwrap();
    assert!(alone.lock().unwrap().is_empty() && done.iter().all(Result::is_err), "{done:?}");
}
