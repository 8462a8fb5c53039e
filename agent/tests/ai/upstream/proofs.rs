//! Orders to prove, where the server takes them, and that nothing is proved where it does not.

use serde_json::{Value, json};

use super::stand_in::{OWN_NAME, Proves, StandIn};
use super::{MODEL, Rig, bounds};

const POW: &str = "/api/v1/inference/pow";

fn init(model: &str) -> Value {
    json!({
        "block_hash": "A1", "block_height": 7, "public_key": "02ab", "node_id": 1, "node_count": 3,
        "params": {"model": model, "seq_len": 64}, "url": "http://n:9100/v2/poc-batches/a%252Fb",
    })
}

async fn rig(proves: Proves) -> (StandIn, Rig) {
    let stand_in = StandIn::start().await;
    *stand_in.script.proves.lock().unwrap() = proves;
    let rig = Rig::before(&stand_in, bounds()).await;
    (stand_in, rig)
}

#[tokio::test]
async fn an_mlnode_is_given_every_order_as_it_came() {
    let (stand_in, rig) = rig(Proves::AsMlNode).await;
    let (status, answer) = rig.post(&format!("{POW}/init/generate"), init(MODEL)).await;
    assert_eq!((status, &answer["of"]), (200, &json!("the stand-in")));
    let sent = stand_in.script.last("/inference/pow/init/generate");
    assert_eq!(sent, init(OWN_NAME).to_string());
    let (_, view) = rig.get(&format!("{POW}/status")).await;
    assert_eq!(view["backends"][0]["port"], 5007);
    assert_eq!(rig.get("/api/v1/state").await.1["poc_status"], "GENERATING");
    let (_, queued) = rig.post(&format!("{POW}/generate"), init(MODEL)).await;
    assert_eq!(queued["request_id"], "5007:u-1");
    let (_, job) = rig.get(&format!("{POW}/generate/5007:u-1")).await;
    assert_eq!(job["status"], "running");
    assert_eq!(rig.get(&format!("{POW}/generate/5007:..%2F..%2Fstop")).await.0, 404);
    assert_eq!(rig.post(&format!("{POW}/stop"), json!({})).await.1["of"], "the stand-in");

    // A proof under another model's name is nobody's.
    let (status, refusal) = rig.post(&format!("{POW}/init/generate"), init("org/other")).await;
    assert_eq!((status, &refusal["detail"]["error"]), (409, &json!("params mismatch")));
    assert_eq!(rig.post(&format!("{POW}/generate"), json!({"params": {}})).await.0, 422);

    // A rig that stops proves no more, whoever else the server works for.
    stand_in.script.seen.lock().unwrap().clear();
    assert_eq!(rig.post("/api/v1/stop", json!({})).await.0, 200);
    assert_eq!(stand_in.script.last("/inference/pow/stop"), "{}");
    assert_eq!(rig.post(&format!("{POW}/init/generate"), init(MODEL)).await.0, 503);
}

#[tokio::test]
async fn an_engine_is_given_its_share_by_this_face() {
    let (stand_in, rig) = rig(Proves::AsEngine).await;
    let (status, answer) = rig.post(&format!("{POW}/init/generate"), init(MODEL)).await;
    assert_eq!((status, &answer["n_groups"]), (200, &json!(1)));
    let sent: Value =
        serde_json::from_str(&stand_in.script.last("/api/v1/pow/init/generate")).unwrap();
    assert_eq!((&sent["group_id"], &sent["n_groups"]), (&json!(0), &json!(1)));
    assert_eq!(sent["params"]["model"], OWN_NAME);
    let (_, view) = rig.get(&format!("{POW}/status")).await;
    assert_eq!((&view["status"], &view["backends"][0]["port"]), (&json!("IDLE"), &json!(5001)));
    assert_eq!(view["backends"][0]["stats"]["total_processed"], 4);
    let (_, queued) = rig.post(&format!("{POW}/generate"), init(MODEL)).await;
    assert_eq!(queued["request_id"], "5001:u-1");
    let (_, job) = rig.get(&format!("{POW}/generate/5001:u-1")).await;
    assert_eq!(job["request_id"], "5001:u-1");
    let (_, stopped) = rig.post(&format!("{POW}/stop"), json!({})).await;
    assert_eq!(stopped["results"][0]["status"], "stopped");
}

#[tokio::test]
async fn a_front_end_above_this_one_numbers_the_engine() {
    let (stand_in, rig) = rig(Proves::AsEngine).await;
    let mut group = init(MODEL);
    (group["group_id"], group["n_groups"]) = (json!(2), json!(7));
    assert_eq!(rig.post("/api/v1/pow/init/generate", group.clone()).await.0, 200);
    let sent: Value =
        serde_json::from_str(&stand_in.script.last("/api/v1/pow/init/generate")).unwrap();
    assert_eq!((&sent["group_id"], &sent["n_groups"]), (&json!(2), &json!(7)));
    assert_eq!(sent["params"]["model"], OWN_NAME);
    let (_, queued) = rig.post("/api/v1/pow/generate", init(MODEL)).await;
    assert_eq!(queued["request_id"], "u-1");
    assert_eq!(rig.get("/api/v1/pow/generate/u-1").await.1["request_id"], "u-1");
    assert_eq!(rig.get("/api/v1/pow/status").await.1["status"], "IDLE");
    assert_eq!(rig.post("/api/v1/pow/stop", json!({})).await.0, 200);

    // An MLNode numbers its own engines: it would walk the nonces of other groups.
    let (stand_in, rig) = self::rig(Proves::AsMlNode).await;
    stand_in.script.seen.lock().unwrap().clear();
    for path in ["/api/v1/pow/init/generate", "/api/v1/inference/pow/init/generate"] {
        assert_eq!(rig.post(path, group.clone()).await.0, 501, "{path}");
    }
    assert!(stand_in.script.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_cannot_prove_is_never_made_to() {
    let (stand_in, rig) = rig(Proves::Nothing).await;
    stand_in.script.seen.lock().unwrap().clear();
    for path in ["init/generate", "generate"] {
        let (status, refusal) = rig.post(&format!("{POW}/{path}"), init(MODEL)).await;
        let words = refusal["detail"].as_str().unwrap_or_default();
        assert!(status == 501 && words.contains("official MLNode"), "{status} {refusal}");
    }
    let (_, view) = rig.get(&format!("{POW}/status")).await;
    assert_eq!(view, json!({"status": "NO_BACKENDS", "backends": []}));
    assert_eq!(rig.get("/api/v1/state").await.1["poc_status"], "NO_BACKENDS");
    assert_eq!(rig.post(&format!("{POW}/stop"), json!({})).await.0, 200);
    assert_eq!(rig.get(&format!("{POW}/generate/5001:u")).await.0, 404);
    assert!(stand_in.script.seen.lock().unwrap().is_empty());
}
