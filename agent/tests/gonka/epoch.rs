//! A whole epoch, from the registration to the claim, and the next one's beginning.

use std::sync::atomic::Ordering;

use farm_tests::gonka::GonkaNode;
use farm_tests::gonka::chain::Confirmation;
use farm_tests::gonka::registry::Doing;
use farm_tests::gonka::stage::StageKind;
use serde_json::{Value, json};

use super::rig::{
    Home, Rig, artifacts, config, is_whole, last_stage, node_of, nonces, until, validated,
};

pub fn confirmations(node: &GonkaNode) -> Vec<Confirmation> {
    node.with(|world| world.chain.confirmations(&world.chain.stages_of(410)))
}

fn no_errors(node: &GonkaNode) {
    assert_eq!(node.status().errors, Vec::<String>::new());
}

async fn get(node: &GonkaNode, path: &str) -> Value {
    let answer = reqwest::get(format!("{}{path}", node.public_url())).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{path}");
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_epoch_from_registration_to_claim() {
    let home = Home::new().await;
    let rig = Rig::start(&home, false).await;
    let node = node_of(config(), &[&home]).await;

    // Loaded: state, stop, up.
    node.step().await;
    assert!(rig.engine.model().is_some());
    assert_eq!(node.status().calls["POST /api/v1/inference/up"], 1);

    // PoC: at its first block one start; one delivery is refused and comes again unchanged.
    node.step_to(999).await;
    node.with(|world| world.refuse_next = 1);
    node.step().await;
    let stage = last_stage(&node);
    assert_eq!((stage.kind, stage.height, stage.starts), (StageKind::Poc, 1_000, 1));
    until("the refused delivery again", || (last_stage(&node).retried == 1).then_some(())).await;
    artifacts(&node, 60).await;
    // Status queries and reconciliations in the middle change nothing.
    node.step_to(1_012).await;
    assert_eq!(last_stage(&node).starts, 1);

    // Validation of three strangers: the cheat is found, nobody else.
    validated(&node, 1_013, 1_024).await;
    let stage = last_stage(&node);
    let frauds: Vec<bool> = stage.verdicts.iter().map(|verdict| verdict.fraud_detected).collect();
    assert_eq!(frauds, [false, true, false]);
    let votes: Vec<i64> = stage.verdicts.iter().map(|verdict| verdict.validated_weight).collect();
    assert_eq!(votes, [8, -1, 8]);
    assert!(!rig.proof.is_generating());

    // Weights stand.
    node.step_to(1_027).await;
    let own = nonces(&node, 0, "rig-0");
    assert!(is_whole(&own, 1, 1), "{own:?}");
    let weight = own.len() as u64;
    assert_eq!(node.status().epochs[&410].weight, weight);
    let group = get(&node, "/v1/epochs/current/participants").await;
    let participants = group["active_participants"]["participants"].as_array().unwrap();
    assert_eq!(participants.last().unwrap()["weight"], weight);

    // Inference validation by enforced replay.
    let similarity = node.validate_inference("rig-0", "rig-0", "What is a hash?").await.unwrap();
    assert!(similarity > 0.999, "{similarity}");

    // Two confirmation PoCs, the second under load: each under its own hash and height, each from nonce 1.
    let events = confirmations(&node);
    for (place, event) in events.iter().enumerate() {
        let load = (place == 1).then(|| {
            rig.script.endless.store(true, Ordering::SeqCst);
            let body = json!({
                "messages": [{"role": "user", "content": "go on"}], "max_tokens": 100_000,
            });
            let url = format!("http://{}/v1/chat/completions", home.address);
            tokio::spawn(reqwest::Client::new().post(url).body(body.to_string()).send())
        });
        if load.is_some() {
            let running = || (rig.engine.occupancy().running == 1).then_some(());
            until("a chat under way", running).await;
        }
        node.step_to(event.trigger_height).await;
        assert_eq!(node.status().stages.len(), place + 1, "nothing in the grace period");
        node.step_to(event.generation_start_height).await;
        let stage = last_stage(&node);
        assert_eq!(stage.kind, StageKind::Confirmation(place as u64));
        assert_eq!((stage.height, stage.starts), (event.trigger_height, 1));
        artifacts(&node, 60).await;
        if let Some(load) = load {
            assert!(!load.is_finished(), "the chat goes on beside the proof");
            load.abort();
            rig.script.endless.store(false, Ordering::SeqCst);
        }
        let over = event.validation_end_height;
        validated(&node, event.validation_start_height, over + 1).await;
        assert_eq!(last_stage(&node).verdicts.len(), 3);
        assert!(is_whole(&nonces(&node, place + 1, "rig-0"), 1, 1));
        assert_eq!(node.status().epochs[&410].confirmations, place as u64 + 1);
        node.step().await;
        let seen = node.with(|world| world.registry.get("rig-0").map(|node| node.seen));
        assert_eq!(seen, Some(Doing::Inference));
    }
    let hashes: std::collections::BTreeSet<String> =
        node.status().stages.iter().map(|stage| stage.block_hash.clone()).collect();
    assert_eq!(hashes.len(), 3);

    // The next epoch's PoC, and the claim of this one.
    node.step_to(1_080).await;
    artifacts(&node, 10).await;
    validated(&node, 1_093, 1_106).await;
    let book = node.status().epochs[&410].clone();
    assert_eq!(book.claimed_at, Some(1_106));
    let want = 266_000_000_000_000_u128 * u128::from(book.rewarded_weight())
        / u128::from(book.total_weight);
    assert_eq!(book.reward_ngonka.map(u128::from), Some(want));
    let path = "/chain-api/productscience/inference/inference/settle_amount/gonka1standinhost";
    assert_eq!(get(&node, path).await["settle_amount"]["epoch_index"], "410");

    no_errors(&node);
    let status = node.status();
    assert_eq!(status.unreached, 0);
    assert_eq!(status.calls["POST /api/v1/inference/up"], 1, "never again");
    // Serving and proving in one process on one machine: the clocks agree.
    assert!(status.clock_skew_ms_max < 1_000, "{}", status.clock_skew_ms_max);
    rig.kill().await;
}

#[tokio::test]
async fn a_versioned_address_a_token_and_the_stronger_generator() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let config = farm_tests::gonka::GonkaConfig {
        version_prefix: "/v3.0.16/".to_owned(),
        stronger_rng: true,
        clock_skew_ms: 7_000,
        ..config()
    };
    let node = node_of(config, &[&home]).await;
    node.step_to(1_000).await;
    artifacts(&node, 20).await;
    assert!(rig.proof.round().unwrap().request.round.stronger_rng);
    validated(&node, 1_013, 1_030).await;
    let frauds: Vec<bool> =
        last_stage(&node).verdicts.iter().map(|verdict| verdict.fraud_detected).collect();
    assert_eq!(frauds, [false, true, false]);
    assert!(node.status().clock_skew_ms_max >= 6_000, "a skew is seen");
    no_errors(&node);
    rig.kill().await;
}

#[tokio::test]
async fn a_preserved_node_serves_on_and_keeps_its_weight() {
    let (first, second) = (Home::new().await, Home::new().await);
    let rigs = [Rig::start(&first, true).await, Rig::start(&second, true).await];
    let config = farm_tests::gonka::GonkaConfig { preserved_nodes: 1, ..config() };
    let node = node_of(config, &[&first, &second]).await;
    node.step_to(1_000).await;
    until("both prove", || {
        (last_stage(&node).artifacts_by_node.values().filter(|held| **held > 4).count() == 2)
            .then_some(())
    })
    .await;
    assert!(
        is_whole(&nonces(&node, 0, "rig-0"), 1, 2) && is_whole(&nonces(&node, 0, "rig-1"), 2, 2)
    );
    validated(&node, 1_013, 1_030).await;
    let kept = node.with(|world| {
        let node = world.registry.iter().find(|node| node.preserved).unwrap();
        node.config.id.clone()
    });
    let weight = node.status().epochs[&410].node_weights[&kept];
    node.step_to(1_080).await;
    artifacts(&node, 10).await;
    assert!(!last_stage(&node).artifacts_by_node.contains_key(&kept));
    validated(&node, 1_093, 1_107).await;
    assert_eq!(node.status().epochs[&411].node_weights[&kept], weight);
    no_errors(&node);
    for rig in rigs {
        rig.kill().await;
    }
}
