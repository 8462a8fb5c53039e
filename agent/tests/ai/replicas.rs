//! One service before several replicas: who gets what, and what becomes of it when one of them dies.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use roadbed_agent::engine::{
    BackendLoader, EngineBackend, EngineFault, EngineService, EngineState, JOBS_QUEUED_MAX,
    LoadRequest, Prompt, ProofOrder, Standing, TextRequest,
};
use roadbed_compute::AdapterChoice;
use roadbed_compute::poc::{Identity, Round, Scheme};
use tokio_util::sync::CancellationToken;

use super::stand_in::{ALPHABET, Script, StandInLoader};
use super::{load_request, until};

/// A rig of stand-ins, one GPU and one script for each replica.
struct RigLoader(Vec<Arc<Script>>);

impl BackendLoader for RigLoader {
    fn place(&mut self, _request: &LoadRequest) -> Result<Vec<Vec<AdapterChoice>>, EngineFault> {
        Ok((0..self.0.len()).map(|gpu| vec![AdapterChoice::Index(gpu)]).collect())
    }

    fn load(
        &mut self,
        request: &LoadRequest,
        break_off: &Arc<AtomicBool>,
    ) -> Result<Box<dyn EngineBackend>, EngineFault> {
        let own = |gpu: &usize| request.gpus == [AdapterChoice::Index(*gpu)];
        let gpu = (0..self.0.len()).find(own).unwrap();
        StandInLoader(Arc::clone(&self.0[gpu])).load(request, break_off)
    }
}

/// `answers` is how many each replica has under way together.
async fn rig(replicas: usize, answers: u64) -> (EngineService, Vec<Arc<Script>>) {
    let scripts: Vec<Arc<Script>> = (0..replicas).map(|_| Arc::default()).collect();
    scripts.iter().for_each(|s| s.answers_max.store(answers, Ordering::SeqCst));
    let engine = EngineService::start_over(RigLoader(scripts.clone()), replicas).unwrap();
    let info = engine.load(load_request()).await.unwrap();
    assert_eq!(info.answers_max as u64, answers * replicas as u64);
    (engine, scripts)
}

fn request() -> TextRequest {
    TextRequest { max_tokens: Some(100), ..TextRequest::greedy(Prompt::Text("hi".into())) }
}

fn running(engine: &EngineService) -> Vec<usize> {
    engine.replicas().iter().map(|replica| replica.load.running).collect()
}

fn ready(engine: &EngineService) -> Vec<bool> {
    let is_ready = |standing: &Standing| matches!(standing, Standing::Ready(_));
    engine.replicas().iter().map(|replica| is_ready(&replica.standing)).collect()
}

fn round() -> Round {
    let identity = Identity { block_hash: "B".into(), public_key: "K".into() };
    Round { identity, seq_len: 8, k_dim: 12, stronger_rng: false, scheme: Scheme::Prefill }
}

/// A proof of `count` nonces, and those that were told, in order.
fn order(count: u32) -> (ProofOrder, Arc<Mutex<Vec<u32>>>) {
    let told: Arc<Mutex<Vec<u32>>> = Arc::default();
    let telling = Arc::clone(&told);
    let order = ProofOrder {
        claims: None,
        cancel: CancellationToken::new(),
        round: round(),
        nonces: Box::new((0..count).map(|n| 10 * n + 3)),
        batch: 32,
        on_step: Box::new(move |step| {
            telling.lock().unwrap().push(step.nonce());
            ControlFlow::Continue(())
        }),
    };
    (order, told)
}

#[tokio::test]
async fn chats_go_where_least_is_to_do_and_all_are_counted() {
    let (engine, scripts) = rig(3, 4).await;
    scripts.iter().for_each(|script| script.endless.store(true, Ordering::SeqCst));
    let mut chats: Vec<_> = (0..7).map(|_| engine.generate(request()).unwrap()).collect();
    until("seven answers", || (running(&engine).iter().sum::<usize>() == 7).then_some(())).await;
    let mut spread = running(&engine);
    spread.sort_unstable();
    assert_eq!(spread, [2, 2, 3]);
    let now = engine.occupancy();
    assert_eq!((now.running, now.pages, now.pages_free), (7, 300, 293));

    // As many wait as before one replica: the bound is the rig's.
    chats.extend((0..5).map(|_| engine.generate(request()).unwrap()));
    until("twelve answers", || (running(&engine) == [4, 4, 4]).then_some(())).await;
    chats.extend((0..JOBS_QUEUED_MAX).map(|_| engine.generate(request()).unwrap()));
    assert!(matches!(engine.generate(request()), Err(EngineFault::QueueFull { .. })));
    engine.set_accepting(false);
    assert!(matches!(engine.generate(request()), Err(EngineFault::Draining)));

    // Those who leave make room at once, and the rig drains when the last answer ends.
    drop(chats.split_off(6));
    until("six answers", || (engine.open_jobs() == 6).then_some(())).await;
    scripts.iter().for_each(|script| script.endless.store(false, Ordering::SeqCst));
    engine.drained().await;
    let stats = engine.stats();
    assert_eq!((stats.cancelled, stats.refused), (6 + JOBS_QUEUED_MAX as u64, 1));
    assert_eq!(stats.tokens, scripts.iter().map(|s| s.spoken.load(Ordering::SeqCst)).sum::<u64>());
    let replicas = engine.replicas();
    assert_eq!(replicas.iter().map(|replica| replica.stats.tokens).sum::<u64>(), stats.tokens);
    assert!(replicas.iter().all(|replica| replica.adapters.len() == 1));

    engine.unload().await.unwrap();
    assert_eq!(*engine.state().borrow(), EngineState::Empty);
    assert!(engine.replicas().is_empty());
    engine.shut_down().await;
}

#[tokio::test]
async fn a_replica_that_dies_in_mid_answer_costs_nobody_an_answer() {
    let (engine, scripts) = rig(2, 8).await;
    scripts.iter().for_each(|script| script.tokens.shut());
    let chats: Vec<_> = (0..6).map(|_| engine.generate(request()).unwrap()).collect();
    until("at both doors", || scripts.iter().all(|s| s.tokens.was_waited_at()).then_some(())).await;
    // The first card falls off the bus and does not come back.
    scripts[0].lose_device_once.store(true, Ordering::SeqCst);
    scripts[0].refuse_load.store(true, Ordering::SeqCst);
    scripts.iter().for_each(|script| script.tokens.open());
    for chat in chats {
        let mut chat = chat;
        let mut told = String::new();
        while let Some(token) = chat.tokens.recv().await {
            told.push_str(&token.text);
        }
        let answer = chat.finish().await.unwrap();
        assert_eq!((told.as_str(), &*answer.generation.text), (ALPHABET, ALPHABET));
    }
    let stats = engine.stats();
    assert_eq!((stats.completions, stats.failed), (6, 0));
    assert!(matches!(&*engine.state().borrow(), EngineState::Ready(info) if info.answers_max == 8));
    // Once when it was lost, once more because others go on, and no third time within ten minutes.
    until("two attempts", || (scripts[0].loads.load(Ordering::SeqCst) == 3).then_some(())).await;
    until("a lost replica", || (ready(&engine) == [false, true]).then_some(())).await;
    assert!(engine.generate(request()).unwrap().finish().await.is_ok());
    assert_eq!(scripts[0].loads.load(Ordering::SeqCst), 3);

    // When the last one dies too, the model is lost.
    scripts[1].lose_device.store(true, Ordering::SeqCst);
    let fault = engine.generate(request()).unwrap().finish().await.unwrap_err();
    assert!(matches!(fault, EngineFault::DeviceLost { .. }), "{fault:?}");
    let failed = || matches!(&*engine.state().borrow(), EngineState::Failed { .. }).then_some(());
    until("a failed rig", failed).await;
    assert_eq!(engine.generate(request()).unwrap_err(), EngineFault::NoModel);

    // Whoever watches the rig loads it again.
    scripts[1].lose_device.store(false, Ordering::SeqCst);
    scripts[0].refuse_load.store(false, Ordering::SeqCst);
    engine.load(load_request()).await.unwrap();
    assert_eq!(ready(&engine), [true, true]);
}

#[tokio::test]
async fn a_replica_that_comes_back_works_again() {
    let (engine, scripts) = rig(2, 1).await;
    scripts.iter().for_each(|script| script.tokens.shut());
    let chats: Vec<_> = (0..2).map(|_| engine.generate(request()).unwrap()).collect();
    until("at both doors", || scripts.iter().all(|s| s.tokens.was_waited_at()).then_some(())).await;
    scripts[1].lose_device_once.store(true, Ordering::SeqCst);
    scripts.iter().for_each(|script| script.tokens.open());
    for chat in chats {
        assert_eq!(chat.finish().await.unwrap().generation.text, ALPHABET);
    }
    until("both again", || (ready(&engine) == [true, true]).then_some(())).await;
    assert_eq!(scripts[1].loads.load(Ordering::SeqCst), 2);
    scripts.iter().for_each(|script| script.endless.store(true, Ordering::SeqCst));
    let _chats: Vec<_> = (0..2).map(|_| engine.generate(request()).unwrap()).collect();
    until("an answer on each", || (running(&engine) == [1, 1]).then_some(())).await;
}

#[tokio::test]
async fn a_card_that_never_comes_up_leaves_the_others() {
    let scripts: Vec<Arc<Script>> = (0..3).map(|_| Arc::default()).collect();
    scripts[1].refuse_load.store(true, Ordering::SeqCst);
    let engine = EngineService::start_over(RigLoader(scripts.clone()), 3).unwrap();
    engine.load(load_request()).await.unwrap();
    assert_eq!(ready(&engine), [true, false, true]);
    scripts.iter().for_each(|script| script.refuse_load.store(true, Ordering::SeqCst));
    let fault = engine.load(load_request()).await.unwrap_err();
    assert_eq!(fault, EngineFault::Load { reason: "told so".into() });
    assert!(matches!(&*engine.state().borrow(), EngineState::Failed { .. }));
}

#[tokio::test]
async fn nonces_are_spread_without_gap_or_overlap() {
    for replicas in [1, 2, 7] {
        let (engine, scripts) = rig(replicas, 1).await;
        scripts.iter().for_each(|script| script.nonces.shut());
        let (order, told) = order(200);
        let proof = engine.prove(order).unwrap();
        let all_wait = || scripts.iter().all(|s| s.nonces.was_waited_at()).then_some(());
        until("every replica at work", all_wait).await;
        // All but one run ahead; what they have waits for its turn.
        scripts[1..].iter().for_each(|script| script.nonces.open());
        assert!(replicas == 1 || told.lock().unwrap().len() < 200);
        scripts[0].nonces.open();
        assert_eq!(proof.await.unwrap(), Ok(()));
        let expected: Vec<u32> = (0..200).map(|n| 10 * n + 3).collect();
        assert_eq!(*told.lock().unwrap(), expected);
        let proved = |s: &Arc<Script>| s.proved.lock().unwrap().clone();
        let shares: Vec<Vec<u32>> = scripts.iter().map(proved).collect();
        assert!(shares.iter().all(|share| !share.is_empty()));
        assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), 200);
        assert_eq!(shares.concat().into_iter().collect::<BTreeSet<_>>().len(), 200);
        assert_eq!(engine.stats().artifacts, 200);
    }
}

#[tokio::test]
async fn a_replica_that_dies_while_it_proves_leaves_no_gap() {
    let (engine, scripts) = rig(2, 1).await;
    scripts.iter().for_each(|script| script.nonces.shut());
    let (order, told) = order(60);
    let proof = engine.prove(order).unwrap();
    until("both at work", || scripts.iter().all(|s| s.nonces.was_waited_at()).then_some(())).await;
    scripts[0].lose_device.store(true, Ordering::SeqCst);
    scripts.iter().for_each(|script| script.nonces.open());
    assert_eq!(proof.await.unwrap(), Ok(()));
    assert_eq!(*told.lock().unwrap(), (0..60).map(|n| 10 * n + 3).collect::<Vec<_>>());
    assert!(scripts[0].proved.lock().unwrap().is_empty());
    assert_eq!(scripts[1].proved.lock().unwrap().len(), 60);
    assert_eq!(engine.stats().artifacts, 60);
}

#[tokio::test]
async fn a_stop_ends_the_work_of_all() {
    let (engine, scripts) = rig(3, 2).await;
    scripts.iter().for_each(|script| script.endless.store(true, Ordering::SeqCst));
    let chats: Vec<_> = (0..6).map(|_| engine.generate(request()).unwrap()).collect();
    let proof = engine.prove(order(u32::MAX / 16).0).unwrap();
    until("work everywhere", || (running(&engine) == [2, 2, 2]).then_some(())).await;
    engine.stop_work();
    assert_eq!(proof.await.unwrap(), Err(EngineFault::Cancelled));
    for chat in chats {
        assert_eq!(chat.finish().await.unwrap_err(), EngineFault::Cancelled);
    }
    assert_eq!(ready(&engine), [true; 3]);
    engine.shut_down().await;
}
