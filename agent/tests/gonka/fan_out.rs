//! Several rigs as one MLNode, behind the controller's gateway: every group its own residues, also when one dies.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use farm_controller::config::{AiFace, GatewaySettings, SingleMlNode, Site};
use farm_controller::gateway::{Gateway, Pace};
use farm_tests::gonka::GonkaNode;
use farm_tests::gonka::registry::NodeConfig;
use roadbed_protocol::{RigId, RigKind};
use serde_json::Value;

use super::rig::{
    Home, MODEL, Rig, config, is_whole, last_stage, node_of, nonces, registration, until_async,
    validated,
};

/// Looks follow one another at once, so that a test need not wait for them.
const PACE: Pace = Pace { pause: Duration::from_millis(5), patience: Duration::from_secs(10) };

fn site_of(homes: &[Home], folder: &Path) -> Site {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/demo-site.yaml");
    let mut site = Site::load(&path).unwrap();
    let gpu = site.rigs.iter().find(|rig| rig.profile.kind == RigKind::Gpu).unwrap().clone();
    let id = |place: usize| RigId::new(format!("gpu-{}", place + 1)).unwrap();
    let entry = |(place, home): (usize, &Home)| {
        let mut entry = gpu.clone();
        entry.id = id(place);
        entry.model = Some(MODEL.into());
        let authority = home.address.to_string().parse().unwrap();
        entry.ai = Some(AiFace { authority, token: None });
        entry
    };
    site.rigs = homes.iter().enumerate().map(entry).collect();
    site.state_dir = folder.to_path_buf();
    let rigs = (0..homes.len()).map(id).collect();
    let base = Some("mlnode".into());
    site.gateway = Some(GatewaySettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        auth_token: None,
        rig_tokens: std::collections::BTreeMap::new(),
        openai_keys: vec![],
        single_mlnode: Some(SingleMlNode { rigs, base, model: MODEL.into() }),
    });
    site
}

/// Waits until the fan-out speaks of so many rigs.
async fn backends(gateway: &Gateway, count: usize) {
    let url = format!("http://{}/mlnode/api/v1/inference/pow/status", gateway.address());
    until_async("the rigs behind the fan-out", async || {
        let text = reqwest::get(&url).await.ok()?.text().await.ok()?;
        let status: Value = serde_json::from_str(&text).ok()?;
        (status["backends"].as_array()?.len() == count).then_some(())
    })
    .await;
}

/// Nonces of a group, of so many.
fn of_group(node: &GonkaNode, group: usize, groups: usize) -> BTreeSet<u32> {
    let (group, groups) = (u32::try_from(group).unwrap(), u32::try_from(groups).unwrap());
    let all = nonces(node, 0, "farm");
    all.into_iter().filter(|nonce| (nonce - 1) % groups == group).collect()
}

/// Waits until every group has so many nonces more than it had.
async fn all_go_on(node: &GonkaNode, groups: usize) {
    let before: Vec<usize> = (0..groups).map(|group| of_group(node, group, groups).len()).collect();
    until_async("nonces of every group", async || {
        let more = |group: usize| of_group(node, group, groups).len() >= before[group] + 6;
        (0..groups).all(more).then_some(())
    })
    .await;
}

#[tokio::test]
async fn groups_keep_their_residues_when_one_dies_and_comes_back() {
    for groups in [1, 2, 7] {
        let folder = tempfile::tempdir().unwrap();
        let (mut homes, mut rigs) = (vec![], vec![]);
        for _ in 0..groups {
            let home = Home::new().await;
            rigs.push(Some(Rig::start(&home, true).await));
            homes.push(home);
        }
        let site = site_of(&homes, folder.path());
        let gateway = Gateway::start(&site, site.gateway.as_ref().unwrap(), PACE).await.unwrap();
        backends(&gateway, groups).await;
        let node = node_of(config(), &[]).await;
        let entry = NodeConfig {
            base_url: format!("http://{}/mlnode", gateway.address()),
            host: String::new(),
            inference_port: 0,
            poc_port: 0,
            ..registration("farm", homes[0].address)
        };
        node.with(|world| world.registry.upsert(entry, &[MODEL.to_owned()], 409).map(|_| ()))
            .unwrap();
        node.step_to(1_000).await;
        all_go_on(&node, groups).await;

        // One rig dies; the others go on through status queries and reconciliations.
        let victim = groups / 2;
        let proved = rigs[victim].take().unwrap().kill().await;
        backends(&gateway, groups - 1).await;
        node.step_to(1_004).await;
        rigs[victim] = Some(Rig::start(&homes[victim], true).await);
        backends(&gateway, groups).await;
        node.step_to(1_006).await;
        all_go_on(&node, groups).await;
        let again = rigs[victim].as_ref().unwrap().script.proved.lock().unwrap().clone();
        validated(&node, 1_013, 1_030).await;
        for group in 0..groups {
            let own = of_group(&node, group, groups);
            let (first, step) = (u32::try_from(group + 1).unwrap(), u32::try_from(groups).unwrap());
            assert!(is_whole(&own, first, step), "group {group} of {groups}: {own:?}");
        }
        let twice = again.iter().filter(|nonce| proved.contains(nonce)).count();
        assert!(twice <= 2, "{twice} of {groups}");
        let frauds: Vec<bool> =
            last_stage(&node).verdicts.iter().map(|verdict| verdict.fraud_detected).collect();
        assert_eq!(frauds.iter().filter(|fraud| **fraud).count(), 1, "{frauds:?}");
        assert_eq!(frauds.len(), 3);
        assert_eq!(node.status().errors, Vec::<String>::new());
        gateway.stop().await;
        for rig in rigs.into_iter().flatten() {
            rig.kill().await;
        }
    }
}
