//! A stage, a confirmation PoC and an inference validation with real kernels: a tiny model of random weights.

use std::sync::Arc;

use farm_tests::gonka::GonkaConfig;
use roadbed_agent::engine::WgpuLoader;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::synthetic::{Architecture, Shape, Synthetic};

use super::epoch::confirmations;
use super::rig::{
    Home, Rig, artifacts, config, is_whole, last_stage, load_request, nonces, registration, until,
    validated,
};
use farm_tests::gonka::GonkaNode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[tokio::test]
async fn a_real_model_proves_is_checked_and_checks_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let model = Synthetic {
        architecture: Architecture::Llama,
        shape: Shape::named("tiny").unwrap(),
        kind: TensorType::Q8_0,
        seed: 4,
    };
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    model.write(&mut file, &mut |_| {}).unwrap();
    drop(file);

    let home = Home::new().await;
    let configured = load_request(path.to_str().unwrap());
    let loader = WgpuLoader::default();
    let rig = Rig::over(&home, Arc::default(), loader, configured, false).await;
    let mut config = GonkaConfig { validation_sample: 4, ..config() };
    config.models[0].seq_len = 16;
    config.nodes = vec![registration("rig-0", home.address)];
    let stop = CancellationToken::new();
    // Without a source of right artifacts the Host's own are checked: as they are, and spoiled.
    let node = GonkaNode::start(config, None, &stop, &TaskTracker::new()).await.unwrap();
    node.step_to(1_000).await;
    artifacts(&node, 8).await;
    validated(&node, 1_013, 1_030).await;
    let frauds = |node: &GonkaNode| -> Vec<bool> {
        last_stage(node).verdicts.iter().map(|v| v.fraud_detected).collect()
    };
    assert_eq!(frauds(&node), [false, true]);
    assert!(is_whole(&nonces(&node, 0, "rig-0"), 1, 1));
    let similarity = node.validate_inference("rig-0", "rig-0", "one two three").await.unwrap();
    assert!(similarity > 0.99, "{similarity}");
    let event = confirmations(&node)[0];
    node.step_to(event.generation_start_height).await;
    artifacts(&node, 8).await;
    validated(&node, event.validation_start_height, event.validation_end_height + 2).await;
    assert_eq!(frauds(&node), [false, true]);
    until("the end of the proof", || (!rig.proof.is_generating()).then_some(())).await;
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}
