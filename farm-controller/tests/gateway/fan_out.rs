//! `/mlnode/..`: several rigs as one MLNode, with rigs that die, come back, were away, refuse and lie.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use farm_controller::config::{SingleMlNode, Site};
use serde_json::{Value, json};

use super::stand_in::StandIn;
use super::{MODEL, id, site_of, start, until, until_up};

pub(super) const INIT: &str = "/api/v1/inference/pow/init/generate";
pub(super) const STATUS: &str = "/api/v1/inference/pow/status";
pub(super) const STOP: &str = "/api/v1/inference/pow/stop";
pub(super) const GENERATE: &str = "/api/v1/inference/pow/generate";
/// Another node of the host, to see that its residues are kept free: `i` of `N`.
const NODE: (u64, u64) = (1, 3);

pub(super) fn single_of(rigs: &[StandIn], folder: &Path) -> Site {
    let mut site = site_of(&rigs.iter().collect::<Vec<_>>(), folder);
    let rigs = (0..rigs.len()).map(id).collect();
    site.gateway.as_mut().unwrap().single_mlnode =
        Some(SingleMlNode { rigs, base: Some("mlnode".into()), model: MODEL.into() });
    site
}

pub(super) async fn stand_ins(count: usize) -> Vec<StandIn> {
    const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
    let mut rigs = vec![];
    for name in &NAMES[..count] {
        rigs.push(StandIn::start(name, MODEL).await);
    }
    rigs
}

async fn all_up(at: SocketAddr, count: usize) {
    for place in 0..count {
        until_up(at, place, true).await;
    }
}

pub(super) fn order(hash: &str) -> Value {
    json!({
        "block_hash": hash, "block_height": 6_353_400, "public_key": "02ab",
        "node_id": NODE.0, "node_count": NODE.1, "params": {"model": MODEL, "seq_len": 64},
        "url": "http://n:9100/v2/poc-batches/MiniMaxAI%252FMiniMax-M2.7",
    })
}

/// Like the Go client: no Content-Type, and no body where there is none.
async fn post(at: SocketAddr, path: &str, body: Option<&Value>) -> (u16, Value) {
    let request = reqwest::Client::new().post(format!("http://{at}/mlnode{path}"));
    let request = match body {
        Some(body) => request.body(body.to_string()),
        None => request,
    };
    read(request.send().await.unwrap()).await
}

async fn get(at: SocketAddr, path: &str) -> (u16, Value) {
    read(reqwest::get(format!("http://{at}/mlnode{path}")).await.unwrap()).await
}

async fn read(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Waits until a rig proves, and gives group and number of groups.
async fn proving(rig: &StandIn, hash: &str) -> (u64, u64) {
    until(async || {
        let round = rig.inside().round.clone()?;
        let told = |name: &str| round[name].as_u64();
        (round["block_hash"] == hash).then_some((told("group_id")?, told("n_groups")?))
    })
    .await
}

fn nonces(rig: &StandIn, hash: &str) -> Vec<u64> {
    let inside = rig.inside();
    inside.mined.iter().filter(|(of, _)| of == hash).map(|(_, nonce)| *nonce).collect()
}

#[tokio::test]
async fn every_rig_proves_its_own_residues_also_after_it_died() {
    for count in [1, 2, 7] {
        let folder = tempfile::tempdir().unwrap();
        let mut rigs = stand_ins(count).await;
        let gateway = start(&single_of(&rigs, folder.path())).await;
        let at = gateway.address();
        all_up(at, count).await;
        let (status, answer) = post(at, INIT, Some(&order("A"))).await;
        assert_eq!((status, &answer["status"]), (200, &json!("OK")), "{answer}");
        assert_eq!((&answer["backends"], &answer["n_groups"]), (&json!(count), &json!(count)));
        assert_eq!(
            (&answer["results"][0]["port"], &answer["errors"]),
            (&json!(5001), &Value::Null)
        );
        assert_eq!(get(at, STATUS).await.1["status"], "GENERATING");
        rigs.iter().for_each(|rig| rig.mine(4));
        // One dies; the others go on, and its residues are not mined.
        let victim = count / 2;
        rigs[victim].die().await;
        until_up(at, victim, false).await;
        rigs.iter().for_each(|rig| rig.mine(4));
        let view = get(at, STATUS).await.1;
        assert_eq!(view["status"], if count == 1 { "NO_BACKENDS" } else { "GENERATING" });
        assert_eq!(view["backends"].as_array().unwrap().len(), count - 1);
        // It comes back within the round: its own group, where it left off.
        rigs[victim].come_back().await;
        assert_eq!(proving(&rigs[victim], "A").await, (victim as u64, count as u64));
        rigs.iter().for_each(|rig| rig.mine(4));
        let mut all = BTreeSet::new();
        for (group, rig) in (0_u64..).zip(&rigs) {
            let step = count as u64 * NODE.1;
            let long = if group as usize == victim { 8 } else { 12 };
            let expected: Vec<u64> =
                (0..long).map(|x| NODE.0 + group * NODE.1 + x * step).collect();
            assert_eq!(nonces(rig, "A"), expected, "group {group} of {count}");
            all.extend(expected);
        }
        assert_eq!(all.len(), 12 * count - 4, "nothing twice");
        let url = rigs[victim].inside().round.as_ref().unwrap()["url"].clone();
        assert_eq!(url, order("A")["url"], "to the letter");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_restarted_controller_finds_the_groups_again() {
    for file_is_lost in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut rigs = stand_ins(3).await;
        let site = single_of(&rigs, folder.path());
        let gateway = start(&site).await;
        all_up(gateway.address(), 3).await;
        assert_eq!(post(gateway.address(), INIT, Some(&order("A"))).await.0, 200);
        gateway.stop().await;
        if file_is_lost {
            std::fs::remove_file(folder.path().join("gateway-round.json")).unwrap();
        }
        // Meanwhile a rig starts anew, and somebody turns the list round.
        rigs[1].die().await;
        rigs[1].come_back().await;
        let mut site = site;
        site.gateway.as_mut().unwrap().single_mlnode.as_mut().unwrap().rigs.reverse();
        let gateway = start(&site).await;
        all_up(gateway.address(), 3).await;
        if file_is_lost {
            // The Network Node finds a mixed node and orders the round again.
            assert_eq!(get(gateway.address(), STATUS).await.1["status"], "MIXED");
            let (status, answer) = post(gateway.address(), INIT, Some(&order("A"))).await;
            assert_eq!((status, &answer["n_groups"]), (200, &json!(3)), "{answer}");
            // The two that prove already say so; they go on.
            assert_eq!(answer["errors"].as_array().unwrap().len(), 2);
        }
        for (group, rig) in rigs.iter().enumerate() {
            assert_eq!(proving(rig, "A").await, (group as u64, 3));
        }
        for rig in [&rigs[0], &rigs[2]] {
            assert_eq!(rig.seen("/api/v1/pow/init").len(), 1, "left alone");
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_rig_that_missed_the_stop_is_stopped_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut rigs = stand_ins(2).await;
    let gateway = start(&single_of(&rigs, folder.path())).await;
    let at = gateway.address();
    all_up(at, 2).await;
    assert_eq!(post(at, INIT, Some(&order("A"))).await.0, 200);
    rigs[1].go_dark().await;
    until_up(at, 1, false).await;
    let (status, answer) = post(at, STOP, Some(&json!({}))).await;
    assert_eq!((status, &answer["results"]), (200, &json!([{"port": 5001, "status": "stopped"}])));
    rigs[1].come_back().await;
    until(async || rigs[1].inside().round.is_none().then_some(())).await;
    // A round that began while it was away: it ends the old one and joins with its group.
    assert_eq!(post(at, INIT, Some(&order("B"))).await.0, 200);
    rigs[1].go_dark().await;
    until_up(at, 1, false).await;
    assert_eq!(post(at, STOP, None).await.0, 200);
    let (_, answer) = post(at, INIT, Some(&order("C"))).await;
    assert_eq!((&answer["backends"], &answer["n_groups"]), (&json!(1), &json!(2)));
    rigs[1].come_back().await;
    assert_eq!(proving(&rigs[1], "C").await, (1, 2));
    assert_eq!(proving(&rigs[0], "C").await, (0, 2));
    // While a round runs nothing else is begun.
    let (status, answer) = post(at, INIT, Some(&order("D"))).await;
    assert_eq!(status, 502);
    assert_eq!(answer["detail"]["errors"][1], json!({"port": 5002, "error": "Already generating"}));
    assert_eq!(proving(&rigs[0], "C").await, (0, 2));
    gateway.stop().await;
}

#[tokio::test]
async fn validations_go_round_and_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut rigs = stand_ins(3).await;
    let gateway = start(&single_of(&rigs, folder.path())).await;
    let at = gateway.address();
    all_up(at, 3).await;
    let mut job = order("A");
    job["nonces"] = json!([4, 7]);
    let mut ids = vec![];
    for _ in 0..3 {
        let (status, answer) = post(at, GENERATE, Some(&job)).await;
        assert_eq!((status, &answer["queued_count"]), (200, &json!(2)));
        ids.push(answer["request_id"].as_str().unwrap().to_owned());
    }
    let labels: BTreeSet<&str> = ids.iter().map(|id| id.split_once(':').unwrap().0).collect();
    assert_eq!(labels, BTreeSet::from(["5001", "5002", "5003"]));
    for id in &ids {
        for id in [id.clone(), id.replace(':', "%3A")] {
            let (status, answer) = get(at, &format!("{GENERATE}/{id}")).await;
            assert_eq!((status, &answer["status"]), (200, &json!("completed")));
            assert_eq!(answer["request_id"], id.replace("%3A", ":"));
        }
    }
    for (id, status) in
        [("nocolon", 400), ("x:y", 400), ("5001:nothing", 404), ("5009:a", 404), ("5001:..", 404)]
    {
        assert_eq!(get(at, &format!("{GENERATE}/{id}")).await.0, status, "{id}");
    }
    job["wait"] = json!(true);
    assert_eq!(post(at, GENERATE, Some(&job)).await.1["request_id"], "w");
    // One gone, one without a model, one full: the answer says so, and nothing is lost as long as one can.
    job["wait"] = json!(false);
    rigs[0].die().await;
    rigs[1].inside().loaded = false;
    for _ in 0..3 {
        let answer = post(at, GENERATE, Some(&job)).await.1;
        assert!(answer["request_id"].as_str().unwrap().starts_with("5003:"), "{answer}");
    }
    rigs[2].inside().orders.push(("/api/v1/pow/generate", 429, json!({"detail": "full"})));
    assert_eq!(post(at, GENERATE, Some(&job)).await, (429, json!({"detail": "full"})));
    rigs[2].inside().orders = vec![("/api/v1/pow/generate", 400, json!({"detail": "no"}))];
    assert_eq!(post(at, GENERATE, Some(&job)).await, (400, json!({"detail": "no"})));
    rigs[2].inside().orders.clear();
    rigs[2].inside().loaded = false;
    let none = json!({"detail": "No vLLM backends available"});
    assert_eq!(post(at, GENERATE, Some(&job)).await, (503, none.clone()));
    assert_eq!(post(at, INIT, Some(&order("A"))).await, (503, none));
    until_up(at, 0, false).await;
    let nothing = json!({"status": "OK", "message": "No backends to stop"});
    assert_eq!(post(at, STOP, Some(&json!({}))).await, (200, nothing));
    gateway.stop().await;
}

#[tokio::test]
async fn states_of_several_rigs_are_one_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut rigs = stand_ins(2).await;
    let gateway = start(&single_of(&rigs, folder.path())).await;
    let at = gateway.address();
    all_up(at, 2).await;
    let up = json!({
        "state": "INFERENCE", "version": "3.0.16", "poc_status": "IDLE",
        "inference_healthy": true, "loaded_model": MODEL,
    });
    assert_eq!(get(at, "//v3.0.16/api/v1//state").await, (200, up.clone()));
    assert_eq!(
        get(at, "/api/v1/gpu/devices").await.1,
        json!({"count": 2, "devices": [
            {"index": 0, "name": "a", "is_available": true},
            {"index": 1, "name": "b", "is_available": true},
        ]})
    );
    assert_eq!(get(at, "/v1/models").await.1["data"][0]["id"], MODEL);
    assert_eq!(get(at, "/readyz").await, (200, json!({"ready": true})));
    let clock = reqwest::get(format!("http://{at}/mlnode/api/v1/clock")).await.unwrap();
    assert_eq!(clock.status().as_u16(), 204);
    assert!(clock.headers()["x-server-recv-ns"].to_str().unwrap().parse::<u128>().is_ok());
    // What one does not do, the node does; what none does, it does not.
    assert_eq!(post(at, "/api/v1/stop", None).await, (200, json!({"status": "OK"})));
    assert_eq!(get(at, "/api/v1/state").await.1["state"], "STOPPED");
    assert_eq!(get(at, "/v1/models").await.0, 503);
    let order = json!({"model": MODEL, "dtype": "float16"});
    let refusal =
        json!({"detail": "Cannot run inference because MLNode is currently in MINE mode."});
    rigs[0].inside().orders.push(("/api/v1/inference/up", 409, refusal.clone()));
    let (status, answer) = post(at, "/api/v1/inference/up", Some(&order)).await;
    assert_eq!((status, &answer["status"]), (200, &json!("OK")));
    assert_eq!(answer["errors"], json!([{"port": 5001, "error": refusal["detail"]}]));
    assert_eq!(get(at, "/api/v1/state").await.1, up);
    assert_eq!(get(at, "/v1/models").await.0, 200, "customers need not wait for the next look");
    rigs[1].inside().orders.push(("/api/v1/inference/up", 409, refusal.clone()));
    assert_eq!(post(at, "/api/v1/inference/up", Some(&order)).await, (409, refusal));
    rigs[1].inside().orders = vec![("/api/v1/inference/up", 500, json!({"detail": "no memory"}))];
    let (status, answer) = post(at, "/api/v1/inference/up", Some(&order)).await;
    assert_eq!((status, answer["detail"]["errors"].as_array().unwrap().len()), (502, 2));
    // One that was away is brought up, or stopped, as the others were meanwhile.
    rigs.iter().for_each(|rig| rig.inside().orders.clear());
    assert_eq!(post(at, "/api/v1/inference/up", Some(&order)).await.0, 200);
    rigs[1].die().await;
    until_up(at, 1, false).await;
    assert_eq!(get(at, "/health").await.1["degraded"], true);
    assert_eq!(post(at, "/api/v1/stop", None).await.0, 200);
    rigs[1].come_back().await;
    until(async || (!rigs[1].inside().loaded).then_some(())).await;
    assert_eq!(post(at, "/api/v1/inference/up", Some(&order)).await.0, 200);
    rigs[0].die().await;
    until_up(at, 0, false).await;
    rigs[0].inside().loaded = false;
    rigs[0].come_back().await;
    until(async || rigs[0].inside().loaded.then_some(())).await;
    // All gone: it was brought up, so it is up and ill, as an MLNode whose engines died.
    rigs[0].die().await;
    rigs[1].die().await;
    let lost = get(at, "/api/v1/state").await.1;
    assert_eq!((&lost["state"], &lost["poc_status"]), (&json!("INFERENCE"), &json!("NO_BACKENDS")));
    assert_eq!(lost["inference_healthy"], false);
    assert_eq!(get(at, "/health").await.0, 503);
    gateway.stop().await;
}
