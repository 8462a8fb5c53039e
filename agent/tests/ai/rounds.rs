//! Proof rounds and validations as a Network Node sees them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use roadbed_agent::journal::Journal;
use roadbed_agent::proof::{ArtifactJournal, JobState, MemoryJournal, ProofEvent, ProofSettings};
use roadbed_compute::gguf::TensorType;
use roadbed_compute::poc::artifact::encode;
use roadbed_compute::poc::{Identity, Round, Scheme};
use roadbed_protocol::ProofActivity;
use serde_json::{Value, json};

use super::callback::Callback;
use super::stand_in::vector;
use super::{MODEL, Rig, RigParts, quick, rig, until};

const PATH: &str = "/v2/poc-batches/MiniMaxAI%252FMiniMax-M2.7//x%2fy";

fn init(callback: &Callback) -> Value {
    json!({
        "block_hash": "A1B2", "block_height": 6_353_400, "public_key": "02ab", "node_id": 1,
        "node_count": 3, "params": {"model": MODEL, "seq_len": 64}, "url": callback.url(PATH),
    })
}

fn round() -> Round {
    let identity = Identity { block_hash: "A1B2".into(), public_key: "02ab".into() };
    Round { identity, seq_len: 64, k_dim: 12, stronger_rng: false, scheme: Scheme::Prefill }
}

fn vector_b64(nonce: u32) -> String {
    encode(&vector(&round(), nonce)).unwrap()
}

async fn start(rig: &Rig, body: Value) {
    let (status, answer) = rig.post("/api/v1/inference/pow/init/generate", body).await;
    let expected = json!({
        "status": "OK", "backends": 1, "n_groups": 1,
        "results": [{"port": 5001, "status": "OK"}], "errors": null,
    });
    assert_eq!((status, answer), (200, expected));
}

async fn stop(rig: &Rig) {
    assert_eq!(rig.post("/api/v1/inference/pow/stop", json!({})).await.0, 200);
}

#[tokio::test]
async fn artifacts_are_delivered_as_the_contract_says() {
    let callback = Callback::start([]).await;
    let rig = rig().await;
    start(&rig, init(&callback)).await;
    let (_, status) = rig.get("/api/v1/inference/pow/status").await;
    assert_eq!(status["status"], "GENERATING");
    assert_eq!(
        status["backends"][0]["config"],
        json!({
            "block_hash": "A1B2", "block_height": 6_353_400, "public_key": "02ab", "node_id": 1,
            "node_count": 3, "group_id": 0, "n_groups": 1, "seq_len": 64, "k_dim": 12,
        })
    );
    assert!(status["backends"][0]["stats"]["nonces_per_second"].is_number());
    assert_eq!(rig.get("/api/v1/state").await.1["poc_status"], "GENERATING");
    let again = rig.post("/api/v1/inference/pow/init/generate", init(&callback)).await;
    assert_eq!(again, (409, json!({"detail": "Already generating"})));

    until("two deliveries", || (callback.taken().len() >= 2).then_some(())).await;
    stop(&rig).await;
    assert_eq!(rig.get("/api/v1/inference/pow/status").await.1["status"], "IDLE");
    // A rate of real steps, and when it was measured.
    let page = rig.send(Method::GET, "/metrics", None).await.text().await.unwrap();
    let of = format!("{{model=\"{MODEL}\",seq_len=\"64\",max_tokens=\"0\",gpus=");
    for name in ["roadbed_proof_millinonces_per_minute", "roadbed_proof_rate_measured_seconds"] {
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{of}"))).unwrap();
        assert!(line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 0, "{line}");
    }
    let first = &callback.taken()[0];
    // Byte for byte as it was given, slashes and double encoding included.
    assert_eq!(first.path, format!("{PATH}/generated"));
    let mut body = first.body.clone();
    let artifacts = body["artifacts"].take();
    assert_eq!(
        body,
        json!({
            "public_key": "02ab", "block_hash": "A1B2", "block_height": 6_353_400, "node_id": 1,
            "artifacts": null, "encoding": {"dtype": "f16", "k_dim": 12, "endian": "le"},
        })
    );
    assert_eq!(artifacts[0], json!({"nonce": 1, "vector_b64": vector_b64(1)}));
    assert_eq!(artifacts[1], json!({"nonce": 4, "vector_b64": vector_b64(4)}));
    let nonces = callback.nonces();
    assert!(nonces.iter().enumerate().all(|(x, &nonce)| nonce == 1 + 3 * x as u64), "{nonces:?}");
}

/// Artifacts that one group delivers, `count` of them.
async fn group_nonces(group_id: u32, n_groups: u32, count: usize) -> Vec<u64> {
    let callback = Callback::start([]).await;
    let rig = rig().await;
    let mut body = init(&callback);
    (body["group_id"], body["n_groups"]) = (json!(group_id), json!(n_groups));
    let (status, answer) = rig.post("/api/v1/pow/init/generate", body.clone()).await;
    let expected = json!({"status": "OK", "pow_status": {"status": "GENERATING"}});
    assert_eq!((status, answer), (200, expected));
    let (_, view) = rig.get("/api/v1/pow/status").await;
    let config = &view["config"];
    assert_eq!(
        (&config["group_id"], &config["n_groups"]),
        (&json!(group_id), &json!(n_groups)),
        "{view}"
    );
    until("nonces", || (callback.nonces().len() >= count).then_some(())).await;
    assert_eq!(rig.post("/api/v1/pow/stop", json!({})).await.0, 200);
    callback.nonces()[..count].to_vec()
}

#[tokio::test]
async fn groups_share_the_nodes_nonces_without_a_gap_or_an_overlap() {
    for n_groups in [1_u32, 2, 7] {
        let mut all = BTreeSet::new();
        for group_id in 0..n_groups {
            for nonce in group_nonces(group_id, n_groups, 3).await {
                assert!(all.insert(nonce), "twice: {nonce}");
            }
        }
        // Node 1 of 3: together the groups walk what one engine alone would.
        let alone: BTreeSet<u64> = (0..u64::from(n_groups) * 3).map(|x| 1 + 3 * x).collect();
        assert_eq!(all, alone);
    }
}

#[tokio::test]
async fn a_nan_is_left_out() {
    let callback = Callback::start([]).await;
    let rig = rig().await;
    *rig.script.nan_nonce.lock().unwrap() = Some(4);
    start(&rig, init(&callback)).await;
    until("nonces", || (callback.nonces().len() >= 4).then_some(())).await;
    assert_eq!(callback.nonces()[..3], [1, 7, 10]);
}

#[tokio::test]
async fn a_delivery_that_is_not_taken_is_repeated_unchanged() {
    let callback = Callback::start([503, 400]).await;
    let rig = rig().await;
    start(&rig, init(&callback)).await;
    until("a delivery", || callback.taken().first().cloned()).await;
    stop(&rig).await;
    let all = callback.deliveries();
    assert_eq!((all[0].status, all[1].status, all[2].status), (503, 400, 200));
    assert_eq!(rig.proof.counters().refused_payloads, 1);
    assert_eq!(all[0].bytes, all[1].bytes);
    assert_eq!(all[0].bytes, all[2].bytes);
    assert_eq!(rig.proof.counters().failed_posts, 2);
    let nonces = callback.nonces();
    assert_eq!(nonces.iter().collect::<BTreeSet<_>>().len(), nonces.len(), "none twice");
}

#[tokio::test]
async fn what_a_network_node_refused_before_it_knew_us_goes_out_again_unchanged() {
    let callback = Callback::start([400; 6]).await;
    let rig = rig().await;
    start(&rig, init(&callback)).await;
    let third = until("what was set aside", || callback.taken().get(2).cloned()).await;
    stop(&rig).await;
    let all = callback.deliveries();
    // Two payloads, each refused three times; then a third is taken, and both come again before anything new.
    let (first, second) = (&all[0], &all[3]);
    assert!(first.nonces().iter().all(|nonce| !second.nonces().contains(nonce)));
    assert_eq!((all[6].status, &all[7].bytes, &all[8].bytes), (200, &first.bytes, &second.bytes));
    assert_eq!(third.bytes, second.bytes);
    let counters = rig.proof.counters();
    assert_eq!((counters.refused_payloads, counters.refused), (2, 0));
    let mut nonces = callback.nonces();
    assert_eq!(counters.delivered, nonces.len() as u64);
    nonces.sort_unstable();
    let expected: Vec<u64> = (0..nonces.len() as u64).map(|x| 1 + 3 * x).collect();
    assert_eq!(nonces, expected, "none twice, none left out");
}

#[tokio::test]
async fn a_payload_that_is_not_wanted_is_set_aside_and_kept() {
    // Refused as it is, and once more after the second was taken.
    let callback = Callback::start([400, 404, 400, 200, 400]).await;
    let journal: Arc<dyn ArtifactJournal> = Arc::new(MemoryJournal::default());
    let parts = RigParts { journal: Arc::clone(&journal), ..RigParts::default() };
    let (told, mut events) = tokio::sync::mpsc::channel(64);
    let rig = Rig::start_telling(parts, Some(told)).await;
    start(&rig, init(&callback)).await;
    let taken = until("later payloads", || callback.taken().get(2).cloned()).await;
    stop(&rig).await;
    let all = callback.deliveries();
    let counters = rig.proof.counters();
    assert_eq!((counters.refused_payloads, counters.refused), (1, all[0].nonces().len() as u64));
    let (first, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|delivery| delivery.bytes == all[0].bytes);
    assert_eq!((first.len(), all[3].status, &all[4].bytes), (4, 200, &all[0].bytes));
    let (refused, wanted) = (all[0].nonces(), taken.nonces());
    assert!(refused.iter().all(|nonce| !wanted.contains(nonce)));
    assert!(others.iter().all(|delivery| delivery.status == 200));
    let event = events.recv().await.unwrap();
    let ProofEvent::CallbackRefused { block_hash, status, items, .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!((block_hash.as_str(), status, items), ("A1B2", 400, refused.len()));
    // Told once: what follows are deliveries.
    for _ in 0..2 {
        assert!(matches!(events.recv().await, Some(ProofEvent::Delivered { .. })));
    }

    // The same round again: what was set aside goes out once more, under the same nonces.
    let before = callback.taken().len();
    start(&rig, init(&callback)).await;
    let again = until("it", || callback.taken().get(before).cloned()).await;
    assert_eq!(again.nonces()[..refused.len()], refused);
}

#[tokio::test]
async fn a_stop_ends_generation_and_delivery() {
    let callback = Callback::start([]).await;
    callback.answer_always(503);
    let rig = rig().await;
    start(&rig, init(&callback)).await;
    let held = until("a refused delivery", || callback.deliveries().first().cloned()).await;
    let status = rig.proof.status();
    assert_eq!(status.activity, ProofActivity::Generating);
    assert_eq!(status.round.map(|round| round.block_hash), Some("A1B2".into()));
    stop(&rig).await;
    stop(&rig).await;
    let stopped = rig.proof.status();
    assert_eq!((stopped.activity, stopped.round), (ProofActivity::Idle, None));
    assert!(stopped.since >= status.since);
    // A server that is not ready refuses nothing; what it did not take is discarded, and counted.
    let left = || Some(rig.proof.counters().discarded).filter(|&count| count > 0);
    let discarded = until("the buffer to be discarded", left).await;
    assert!(discarded >= held.nonces().len() as u64);
    assert_eq!(rig.proof.counters().refused, 0);
    callback.answer_always(200);
    // A chat goes through the same engine thread: after two of them no nonce can be under way.
    for _ in 0..2 {
        let chat = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1});
        assert_eq!(rig.post("/v1/chat/completions", chat).await.0, 200);
    }
    let (proved, sent) = (rig.script.proved.lock().unwrap().len(), callback.deliveries().len());
    // Longer than the first repetition would take.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(rig.script.proved.lock().unwrap().len(), proved);
    assert_eq!(callback.deliveries().len(), sent);
}

#[tokio::test]
async fn a_stopped_round_computes_nothing_before_the_next_ones_first_nonce() {
    let callback = Callback::start([]).await;
    let rig = rig().await;
    start(&rig, init(&callback)).await;
    until("nonces", || (rig.script.proved.lock().unwrap().len() > 2).then_some(())).await;
    // Between two steps of the round: the engine thread is busy with a chat.
    rig.script.tokens.shut();
    let chat = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1});
    let next = async {
        let waited = || rig.script.tokens.was_waited_at().then_some(());
        until("a step of the chat", waited).await;
        let before = rig.script.proved.lock().unwrap().len();
        stop(&rig).await;
        let mut other = init(&callback);
        (other["block_hash"], other["node_id"]) = (json!("C3"), json!(2));
        start(&rig, other).await;
        rig.script.tokens.open();
        before
    };
    let (answered, before) = tokio::join!(rig.post("/v1/chat/completions", chat), next);
    assert_eq!(answered.0, 200);
    let proved = until("nonces of the next round", || {
        let proved = rig.script.proved.lock().unwrap();
        (proved.len() > before + 4).then(|| proved[before..].to_vec())
    })
    .await;
    stop(&rig).await;
    assert!(proved.iter().all(|nonce| nonce % 3 == 2), "{proved:?}");
}

async fn begin(rig: &Rig, body: Value) {
    assert_eq!(rig.post("/api/v1/pow/init/generate", body).await.0, 200);
}

async fn resumes(journal: impl Fn() -> Arc<dyn ArtifactJournal>) {
    let callback = Callback::start([]).await;
    callback.answer_always(503);
    let group = |group_id: u32| {
        let mut body = init(&callback);
        (body["group_id"], body["n_groups"]) = (json!(group_id), json!(2));
        body
    };
    let before = Rig::start(RigParts { journal: journal(), ..RigParts::default() }).await;
    begin(&before, group(1)).await;
    until("nonces", || (before.script.proved.lock().unwrap().len() > 6).then_some(())).await;
    // The agent dies: nothing is said to anybody.
    before.engine.clone().shut_down().await;
    before.proof.stop();
    let proved = before.script.proved.lock().unwrap().clone();
    drop(before);

    callback.answer_always(200);
    let after = Rig::start(RigParts { journal: journal(), ..RigParts::default() }).await;
    begin(&after, group(1)).await;
    until("everything and more", || (callback.nonces().len() > proved.len() + 4).then_some(()))
        .await;
    stop(&after).await;
    let again = after.script.proved.lock().unwrap().clone();
    // At most the step that was under way when the agent died.
    let repeated: Vec<_> = again.iter().filter(|nonce| proved.contains(nonce)).collect();
    assert!(repeated.len() <= 2, "{repeated:?}");
    let nonces = callback.nonces();
    assert_eq!(nonces.iter().collect::<BTreeSet<_>>().len(), nonces.len(), "none twice");
    let expected: Vec<u64> = (0..nonces.len() as u64).map(|x| 4 + 6 * x).collect();
    assert_eq!(nonces, expected, "none left out");

    // Another group of the same block begins at its own first nonce.
    begin(&after, group(0)).await;
    until("the other group", || (callback.nonces().len() > nonces.len() + 2).then_some(())).await;
    stop(&after).await;
    assert_eq!(callback.nonces()[nonces.len()..][..3], [1, 7, 13]);

    // Another block is another round.
    let mut other = init(&callback);
    other["block_hash"] = json!("C3");
    start(&after, other).await;
    let nonces = until("the other round", || {
        let taken = callback.taken();
        taken.iter().find(|delivery| delivery.body["block_hash"] == "C3").map(|d| d.nonces())
    })
    .await;
    assert_eq!(nonces[0], 1);
}

#[tokio::test]
async fn a_round_goes_on_after_a_crash() {
    let journal: Arc<dyn ArtifactJournal> = Arc::new(MemoryJournal::default());
    resumes(move || Arc::clone(&journal)).await;
}

#[tokio::test]
async fn a_round_goes_on_after_a_crash_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let agent = roadbed_protocol::AgentId::new("gpu-box").unwrap();
    let journal = Journal::open(folder.path(), &agent).unwrap();
    resumes(move || Arc::new(journal.clone())).await;
}

#[tokio::test]
async fn a_round_that_lost_its_engine_is_told_and_can_begin_again() {
    let callback = Callback::start([]).await;
    let rig = rig().await;
    start(&rig, init(&callback)).await;
    until("nonces", || (callback.nonces().len() > 2).then_some(())).await;
    rig.script.lose_device.store(true, std::sync::atomic::Ordering::SeqCst);
    until("the loss", || (!rig.proof.is_generating()).then_some(())).await;
    assert_eq!(rig.get("/api/v1/inference/pow/status").await.1["status"], "NO_BACKENDS");
    rig.script.lose_device.store(false, std::sync::atomic::Ordering::SeqCst);
    rig.engine.load(super::load_request()).await.unwrap();
    assert_eq!(rig.get("/api/v1/inference/pow/status").await.1["status"], "IDLE");
    let delivered = callback.nonces().len();
    start(&rig, init(&callback)).await;
    until("more nonces", || (callback.nonces().len() > delivered + 4).then_some(())).await;
    let nonces = callback.nonces();
    let expected: BTreeSet<u64> = (0..nonces.len() as u64).map(|x| 1 + 3 * x).collect();
    assert_eq!(nonces.into_iter().collect::<BTreeSet<_>>(), expected);
}

fn job(callback: Option<&Callback>, wrong: &[u32]) -> Value {
    let nonces: Vec<u32> = (0..8).collect();
    let artifacts: Vec<Value> = nonces
        .iter()
        .map(|&nonce| {
            let of = if wrong.contains(&nonce) { nonce + 100 } else { nonce };
            json!({"nonce": nonce, "vector_b64": vector_b64(of)})
        })
        .collect();
    json!({
        "block_hash": "A1B2", "block_height": 9, "public_key": "02ab", "node_id": 7,
        "node_count": 9, "params": {"model": MODEL, "seq_len": 64}, "nonces": nonces,
        "validation": {"artifacts": artifacts}, "wait": callback.is_none(),
        "stat_test": {"dist_threshold": 0.4, "p_mismatch": 0.1, "p_value_threshold": 0.05},
        "url": callback.map(|callback| callback.url(PATH)),
    })
}

const GENERATE: &str = "/api/v1/inference/pow/generate";

#[tokio::test]
async fn others_are_judged() {
    let rig = rig().await;
    let (status, honest) = rig.post(GENERATE, job(None, &[])).await;
    assert_eq!(status, 200);
    assert_eq!((&honest["status"], &honest["n_total"]), (&json!("completed"), &json!(8)));
    assert_eq!((&honest["n_mismatch"], &honest["p_value"]), (&json!(0), &json!(1.0)));
    assert_eq!(honest["fraud_detected"], false);
    let (_, fraud) = rig.post(GENERATE, job(None, &[1, 2, 3, 5])).await;
    assert_eq!(fraud["mismatch_nonces"], json!([1, 2, 3, 5]));
    assert_eq!(fraud["fraud_detected"], true);
    // p_value_threshold is passed over: two of eight are unlikely at 0.05 of nothing, not at 0.01.
    let (_, doubt) = rig.post(GENERATE, job(None, &[1, 2, 3])).await;
    let p = doubt["p_value"].as_f64().unwrap();
    assert!((0.01..0.05).contains(&p), "{p}");
    assert_eq!(doubt["fraud_detected"], false);
}

#[tokio::test]
async fn the_network_nodes_own_cut_counts_if_the_operator_says_so() {
    let settings = ProofSettings { apply_p_value_threshold: true, ..quick() };
    let rig = Rig::start(RigParts { settings, ..RigParts::default() }).await;
    let (_, fraud) = rig.post(GENERATE, job(None, &[1, 2, 3])).await;
    assert_eq!(fraud["fraud_detected"], true, "{fraud}");
    let (_, honest) = rig.post(GENERATE, job(None, &[1, 2])).await;
    assert_eq!(honest["fraud_detected"], false, "{honest}");
}

#[tokio::test]
async fn weights_of_fewer_than_16_bits_accuse_nobody_unless_the_operator_says_so() {
    let loaded = async |rig: &Rig, kind: TensorType| {
        *rig.script.weights.lock().unwrap() = Some(kind);
        rig.engine.load(super::load_request()).await.unwrap();
    };
    let wrong = [1, 2, 3, 5];
    let callback = Callback::start([]).await;
    let rig = rig().await;
    loaded(&rig, TensorType::Q4K).await;
    let (status, answer) = rig.post(GENERATE, job(None, &wrong)).await;
    let reason = answer["detail"]["errors"][0]["error"].as_str().unwrap_or_default();
    let says = reason.contains("no accusation: the weights here are Q4_K");
    assert!(status == 502 && says, "{status} {answer}");
    // Nothing is computed twice for a verdict that cannot count, and nobody is told of one.
    assert_eq!(rig.script.proved.lock().unwrap().len(), 8);
    let (_, queued) = rig.post(GENERATE, job(Some(&callback), &wrong)).await;
    let id = queued["request_id"].as_str().unwrap().strip_prefix("5001:").unwrap().to_owned();
    let ended = rig.proof.finished(&id).await.unwrap();
    assert!(matches!(ended.state, JobState::Failed(_)), "{ended:?}");
    // Whoever agrees with such a rig is as honest as it is.
    let (_, honest) = rig.post(GENERATE, job(Some(&callback), &[1])).await;
    assert_eq!(honest["status"], "queued");
    let told = until("the verdict", || callback.taken().first().cloned()).await;
    assert_eq!(told.body["fraud_detected"], false);
    assert_eq!(callback.deliveries().len(), 1);
    loaded(&rig, TensorType::Bf16).await;
    assert_eq!(rig.post(GENERATE, job(None, &wrong)).await.1["fraud_detected"], true);

    let settings = ProofSettings { accuse_with_own_weights: true, ..quick() };
    let rig = Rig::start(RigParts { settings, ..RigParts::default() }).await;
    loaded(&rig, TensorType::Q4K).await;
    assert_eq!(rig.post(GENERATE, job(None, &wrong)).await.1["fraud_detected"], true);
}

#[tokio::test]
async fn an_accusation_is_computed_twice_and_dropped_on_doubt() {
    let rig = rig().await;
    let wrong = [1, 2, 3, 5];
    assert_eq!(rig.post(GENERATE, job(None, &wrong)).await.1["fraud_detected"], true);
    let proved = rig.script.proved.lock().unwrap().clone();
    assert_eq!(proved, [0, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 5]);

    // This engine is not sound: a second pass gives other numbers.
    rig.script.proved.lock().unwrap().clear();
    rig.script.wavers.store(true, std::sync::atomic::Ordering::SeqCst);
    let (status, answer) = rig.post(GENERATE, job(None, &wrong)).await;
    let reason = answer["detail"]["errors"][0]["error"].as_str().unwrap_or_default();
    assert!(status == 502 && reason.contains("no accusation"), "{status} {answer}");
    // Where nobody is accused one pass is enough.
    rig.script.wavers.store(false, std::sync::atomic::Ordering::SeqCst);
    rig.script.proved.lock().unwrap().clear();
    assert_eq!(rig.post(GENERATE, job(None, &[1])).await.1["fraud_detected"], false);
    assert_eq!(rig.script.proved.lock().unwrap().len(), 8);

    // A number it cannot give is no proof of anything.
    *rig.script.nan_nonce.lock().unwrap() = Some(7);
    let (status, answer) = rig.post(GENERATE, job(None, &wrong)).await;
    assert_eq!(status, 502, "{answer}");
    assert_eq!(rig.post(GENERATE, job(None, &[])).await.1["fraud_detected"], false);
}

#[tokio::test]
async fn a_job_without_artifacts_gives_ours() {
    let rig = rig().await;
    let mut body = job(None, &[]);
    body["validation"] = Value::Null;
    body["nonces"] = json!([5, 5, 2]);
    let (_, answer) = rig.post(GENERATE, body).await;
    assert_eq!(
        answer["artifacts"],
        json!([{"nonce": 5, "vector_b64": vector_b64(5)}, {"nonce": 2, "vector_b64": vector_b64(2)}])
    );
    assert_eq!(answer["encoding"], json!({"dtype": "f16", "k_dim": 12, "endian": "le"}));
}

#[tokio::test]
async fn a_queued_job_is_polled_and_reported_once() {
    let callback = Callback::start([503]).await;
    let rig = rig().await;
    rig.script.nonces.shut();
    let (status, queued) = rig.post(GENERATE, job(Some(&callback), &[3])).await;
    assert_eq!((status, &queued["status"]), (200, &json!("queued")));
    assert_eq!(queued["queued_count"], 8);
    let id = queued["request_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("5001:"));
    assert_eq!(rig.get("/api/v1/state").await.1["poc_status"], "VALIDATING");
    let path = format!("{GENERATE}/{id}");
    let (_, view) = rig.get(&path).await;
    assert!(["queued", "running"].contains(&view["status"].as_str().unwrap()), "{view}");
    rig.script.nonces.open();
    let report = until("the report", || callback.taken().first().cloned()).await;
    let (_, view) = rig.get(&path).await;
    assert_eq!((&view["status"], &view["request_id"]), (&json!("completed"), &json!(id)));
    assert_eq!(report.path, format!("{PATH}/validated"));
    let p_value = report.body["p_value"].clone();
    assert_eq!(
        report.body,
        json!({
            "request_id": id.strip_prefix("5001:").unwrap(), "block_hash": "A1B2",
            "block_height": 9, "public_key": "02ab", "node_id": 7, "n_total": 8, "n_mismatch": 1,
            "mismatch_nonces": [3], "p_value": p_value, "fraud_detected": false,
        })
    );
    assert_eq!(callback.deliveries().len(), 2);
    assert_eq!(rig.get("/api/v1/state").await.1["poc_status"], "IDLE");
}

#[tokio::test]
async fn a_fault_of_ours_is_never_an_accusation() {
    let callback = Callback::start([]).await;
    let rig = rig().await;
    rig.script.nonces.shut();
    let (_, queued) = rig.post(GENERATE, job(Some(&callback), &[0, 1, 2, 3, 4, 5, 6, 7])).await;
    rig.script.lose_device.store(true, std::sync::atomic::Ordering::SeqCst);
    rig.script.nonces.open();
    let path = format!("{GENERATE}/{}", queued["request_id"].as_str().unwrap());
    let deadline = std::time::Instant::now() + super::DEADLINE;
    let view = loop {
        let (_, view) = rig.get(&path).await;
        if view["status"] == "failed" {
            break view;
        }
        assert!(std::time::Instant::now() < deadline, "{view}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(view["error"].as_str().unwrap().contains("told so"), "{view}");
    assert!(view.get("fraud_detected").is_none());
    assert_eq!(callback.deliveries().len(), 0);
}

#[tokio::test]
async fn jobs_wait_for_a_round_and_a_stop_clears_them() {
    let callback = Callback::start([]).await;
    let long = ProofSettings { job_wait_max: super::DEADLINE, ..quick() };
    let rig = Rig::start(RigParts { settings: long, ..RigParts::default() }).await;
    start(&rig, init(&callback)).await;
    let (_, queued) = rig.post(GENERATE, job(Some(&callback), &[])).await;
    until("nonces", || (rig.proof.round()?.processed > 4).then_some(())).await;
    let path = format!("{GENERATE}/{}", queued["request_id"].as_str().unwrap());
    assert_eq!(rig.get(&path).await.1["status"], "queued");
    stop(&rig).await;
    until("an empty queue", || (!rig.proof.is_validating()).then_some(())).await;
    assert_eq!(rig.get(&path).await.1["status"], "cancelled");
    assert_eq!(rig.proof.nonces_queued(), 0);
    // A stop is no ban.
    assert_eq!(rig.post(GENERATE, job(None, &[])).await.0, 200);
}

#[tokio::test]
async fn a_job_that_waits_too_long_fails() {
    let callback = Callback::start([]).await;
    let rig = rig().await;
    start(&rig, init(&callback)).await;
    let (status, answer) = rig.post(GENERATE, job(None, &[])).await;
    assert_eq!(status, 502);
    let reason = answer["detail"]["errors"][0]["error"].as_str().unwrap();
    assert!(reason.contains("a round was under way"), "{reason}");
}
