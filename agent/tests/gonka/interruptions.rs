//! What interrupts a stage: a dead rig, a callback that is down, a Network Node that restarts, a generation nobody ended.
//!
//! After each: what could be delivered was, nothing was delivered under another stage's name, and no nonce is missing in
//! between.

use farm_tests::gonka::GonkaConfig;
use farm_tests::gonka::chain::EpochParams;

use super::epoch::confirmations;
use super::rig::{
    Home, Rig, artifacts, config, is_whole, last_stage, node_of, nonces, until, validated,
};

#[tokio::test]
async fn a_rig_killed_in_the_middle_goes_on_where_it_was() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let node = node_of(config(), &[&home]).await;
    node.step_to(1_000).await;
    artifacts(&node, 30).await;
    let proved = rig.kill().await;
    // Nobody answers; the status query sees it, starts are tried in vain.
    node.step_to(1_004).await;
    assert!(node.status().unreached > 0);

    let rig = Rig::start(&home, true).await;
    node.step_to(1_006).await;
    assert_eq!(last_stage(&node).starts, 2);
    let before = last_stage(&node).artifacts;
    artifacts(&node, before.max(proved.len() as u64) + 30).await;
    // Before strangers' nonces are computed too.
    let again = rig.script.proved.lock().unwrap().clone();
    validated(&node, 1_013, 1_030).await;
    rig.kill().await;
    let own = nonces(&node, 0, "rig-0");
    assert!(is_whole(&own, 1, 1), "{own:?}");
    assert!(proved.iter().all(|nonce| own.contains(nonce) || again.contains(nonce)));
    // At most the step under way when it died is done twice.
    let twice = again.iter().filter(|nonce| proved.contains(nonce)).count();
    assert!(twice <= 2, "{twice}");
    assert_eq!(last_stage(&node).verdicts.len(), 3);
    assert_eq!(node.status().errors, Vec::<String>::new());
}

#[tokio::test]
async fn a_rig_that_comes_back_empty_has_lost_the_stage_and_is_loaded_after_it() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let node = node_of(config(), &[&home]).await;
    node.step_to(1_000).await;
    artifacts(&node, 10).await;
    rig.kill().await;
    let rig = Rig::start(&home, false).await;
    node.step_to(1_022).await;
    assert!(rig.engine.model().is_none(), "during a PoC nobody calls inference/up");
    assert!(last_stage(&node).refused_starts > 0);
    node.step_to(1_025).await;
    assert!(rig.engine.model().is_some());
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}

#[tokio::test]
async fn a_callback_that_was_down_gets_everything_in_the_exchange_window() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let node = node_of(config(), &[&home]).await;
    node.step_to(999).await;
    node.with(|world| world.refuse = Some(503));
    node.step_to(1_010).await;
    until("nonces", || (rig.proved() > 60).then_some(())).await;
    let made = rig.proved() as u64;
    until("a refusal", || last_stage(&node).refused.get(&503).copied()).await;
    assert_eq!(last_stage(&node).artifacts, 0);
    node.with(|world| world.refuse = None);
    node.step_to(1_012).await;
    artifacts(&node, made).await;
    assert!(last_stage(&node).retried >= 1, "the refused delivery came again unchanged");
    validated(&node, 1_013, 1_030).await;
    assert!(is_whole(&nonces(&node, 0, "rig-0"), 1, 1));
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}

#[tokio::test]
async fn a_callback_that_nobody_listens_at_gets_everything_in_the_exchange_window() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let node = node_of(config(), &[&home]).await;
    node.step_to(999).await;
    node.close_callback().await;
    assert!(
        tokio::net::TcpStream::connect(node.callback_url().replace("http://", "")).await.is_err()
    );
    node.step_to(1_010).await;
    until("nonces", || (rig.proved() > 60).then_some(())).await;
    let made = rig.proved() as u64;
    until("tries in vain", || (rig.proof.counters().failed_posts > 2).then_some(())).await;
    assert_eq!((last_stage(&node).artifacts, last_stage(&node).refused.len()), (0, 0));
    node.open_callback().await.unwrap();
    node.step_to(1_012).await;
    artifacts(&node, made).await;
    validated(&node, 1_013, 1_030).await;
    assert!(is_whole(&nonces(&node, 0, "rig-0"), 1, 1));
    assert_eq!(last_stage(&node).duplicates, 0);
    let counters = rig.proof.counters();
    assert_eq!((counters.refused_payloads, counters.dropped), (0, 0));
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}

#[tokio::test]
async fn what_could_not_be_delivered_in_its_stage_is_never_delivered_as_anothers() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let node = node_of(config(), &[&home]).await;
    node.step_to(999).await;
    node.with(|world| world.refuse = Some(503));
    node.step_to(1_012).await;
    until("nonces", || (rig.proved() > 30).then_some(())).await;
    // Back up when the stage is over: the stop comes, and with it the end of the buffer.
    node.step_to(1_013).await;
    node.with(|world| world.refuse = None);
    validated(&node, 1_014, 1_030).await;
    assert_eq!(node.status().stages[0].artifacts, 0);
    assert_eq!(node.status().epochs[&410].weight, 0);
    let event = confirmations(&node)[0];
    node.step_to(event.generation_start_height).await;
    artifacts(&node, 30).await;
    validated(&node, event.validation_start_height, event.validation_end_height + 2).await;
    assert!(is_whole(&nonces(&node, 1, "rig-0"), 1, 1), "its own nonces, from the first");
    assert_eq!(node.status().stages[0].artifacts, 0);
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}

#[tokio::test]
async fn a_network_node_restarted_in_the_middle_loses_nothing() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let node = node_of(config(), &[&home]).await;
    node.step_to(1_000).await;
    artifacts(&node, 20).await;
    node.go_down();
    let held = last_stage(&node).artifacts;
    let proved = rig.proved();
    until("nonces meanwhile", || (rig.proved() > proved + 40).then_some(())).await;
    node.step_to(1_003).await;
    let made = rig.proved() as u64;
    node.come_back().await.unwrap();
    // It asks, sees the generation of this block, and lets it run.
    assert_eq!(last_stage(&node).starts, 1);
    artifacts(&node, made).await;
    assert!(made > held);
    validated(&node, 1_013, 1_030).await;
    assert!(is_whole(&nonces(&node, 0, "rig-0"), 1, 1));
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}

#[tokio::test]
async fn a_network_node_that_does_not_know_its_nodes_after_a_restart_gets_everything_once_it_does()
{
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let node = node_of(config(), &[&home]).await;
    node.step_to(1_000).await;
    artifacts(&node, 20).await;
    node.go_down();
    node.step_to(1_003).await;
    // Two blocks: half a minute of the chain's time.
    node.with(|world| world.forgetful_until = 1_006);
    node.come_back().await.unwrap();
    node.step_to(1_005).await;
    let refused = || last_stage(&node).refused.get(&400).copied().filter(|&refused| refused >= 9);
    until("three payloads that were set aside", refused).await;
    let (held, made) = (last_stage(&node).artifacts, rig.proved() as u64);
    assert!(made > held && rig.proof.counters().refused_payloads >= 3);
    node.step_to(1_006).await;
    artifacts(&node, made).await;
    assert_eq!(last_stage(&node).starts, 1, "it reads GENERATING and starts nothing");
    validated(&node, 1_013, 1_030).await;
    let stage = last_stage(&node);
    assert!(stage.retried >= 3, "{} came again unchanged", stage.retried);
    assert_eq!(stage.duplicates, 0, "nothing twice, under whatever name");
    assert!(is_whole(&nonces(&node, 0, "rig-0"), 1, 1));
    assert_eq!(rig.proof.counters().refused, 0);
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}

#[tokio::test]
async fn a_generation_nobody_ended_is_ended_before_the_next() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let params = EpochParams { epoch_length: 140, ..EpochParams::default() };
    let node = node_of(GonkaConfig { params, ..config() }, &[&home]).await;
    let [first, second] = confirmations(&node)[..] else { panic!("two expected") };
    let quiet = first.validation_end_height + 1;
    assert!(second.trigger_height > quiet + 4, "the seed leaves room between them");
    node.step_to(1_000).await;
    artifacts(&node, 10).await;
    node.go_down();
    node.step_to(quiet).await;
    assert!(rig.proof.is_generating(), "nobody has told it to stop");
    node.come_back().await.unwrap();
    node.step_to(quiet + 4).await;
    assert!(!rig.proof.is_generating(), "the way to INFERENCE stops it");
    node.step_to(second.generation_start_height).await;
    artifacts(&node, 10).await;
    assert_eq!(last_stage(&node).starts, 1);
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}

#[tokio::test]
async fn a_disabled_node_serves_its_epoch_and_is_stopped_at_the_next_poc() {
    let home = Home::new().await;
    let rig = Rig::start(&home, true).await;
    let node = node_of(config(), &[&home]).await;
    node.step_to(1_000).await;
    artifacts(&node, 10).await;
    validated(&node, 1_013, 1_030).await;
    let url = format!("{}/admin/v1/nodes/rig-0/disable", node.admin_url());
    assert_eq!(reqwest::Client::new().post(url).send().await.unwrap().status().as_u16(), 200);
    let event = confirmations(&node)[1];
    node.step_to(event.generation_start_height).await;
    artifacts(&node, 10).await;
    node.step_to(1_079).await;
    assert!(rig.engine.model().is_some());
    node.step_to(1_080).await;
    assert!(rig.engine.model().is_none(), "stopped");
    assert_eq!(last_stage(&node).starts, 0);
    assert_eq!(node.status().errors, Vec::<String>::new());
    rig.kill().await;
}
