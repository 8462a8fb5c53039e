//! DECODE walks before the queue: many passes a nonce, each of them a turn.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use roadbed_agent::engine::{
    EngineFault, EngineService, Prompt, ProofOrder, ProofStep, ScoreRequest, TextRequest,
};
use roadbed_compute::poc::{DecodeTerms, Identity, Round, Scheme};
use roadbed_compute::{LogprobsMode, Sampling};
use tokio_util::sync::CancellationToken;

use super::stand_in::{Script, StandInLoader};
use super::{load_request, until};

async fn engine(walk_passes: u64) -> (EngineService, Arc<Script>) {
    let script = Arc::new(Script::default());
    script.walk_passes.store(walk_passes, Ordering::SeqCst);
    let engine = EngineService::start(StandInLoader(Arc::clone(&script))).unwrap();
    engine.load(load_request()).await.unwrap();
    (engine, script)
}

fn order(scheme: Scheme, nonces: std::ops::Range<u32>) -> ProofOrder {
    let identity = Identity { block_hash: "B".into(), public_key: "K".into() };
    ProofOrder {
        claims: None,
        cancel: CancellationToken::new(),
        round: Round { identity, seq_len: 8, k_dim: 12, stronger_rng: false, scheme },
        nonces: Box::new(nonces),
        batch: 32,
        on_step: Box::new(|_| ControlFlow::Continue(())),
    }
}

const DECODE: Scheme = Scheme::Decode(DecodeTerms { max_tokens: 4 });

fn chat() -> TextRequest {
    TextRequest { max_tokens: Some(2), ..TextRequest::greedy(Prompt::Text("hi".into())) }
}

async fn score(engine: EngineService) -> Result<(), EngineFault> {
    let request = ScoreRequest {
        prompt: Prompt::Text("hi".into()),
        continuation: Prompt::Text("there".into()),
        top: 1,
        logprobs_mode: LogprobsMode::Raw,
        sampling: Sampling::GREEDY,
        extent: None,
    };
    engine.score(request).await.map(drop)
}

#[tokio::test]
async fn chats_are_answered_within_a_walk_and_a_stop_ends_it() {
    // Longer than this test will ever wait.
    let (engine, script) = engine(u64::MAX).await;
    let mut proof = engine.prove(order(DECODE, 0..2)).unwrap();
    let walked = || script.walked.load(Ordering::SeqCst);
    for _ in 0..3 {
        let before = walked();
        assert!(engine.generate(chat()).unwrap().finish().await.is_ok());
        until("more passes", || (walked() > before).then_some(())).await;
    }
    assert!(proof.try_recv().is_err());
    // A replay may not begin within a walk; the stop lets it.
    let replay = tokio::spawn(score(engine.clone()));
    engine.stop_work();
    assert_eq!(proof.await.unwrap(), Err(EngineFault::Cancelled));
    drop(replay.await.unwrap());
    assert!(engine.generate(chat()).unwrap().finish().await.is_ok());
    let stopped_at = walked();
    assert!(engine.generate(chat()).unwrap().finish().await.is_ok());
    assert_eq!(walked(), stopped_at);
    assert!(script.proved.lock().unwrap().is_empty(), "half a walk is no artifact");
}

#[tokio::test]
async fn every_nonce_is_walked_once_whatever_else_is_proved_replayed_or_lost() {
    let (engine, script) = engine(5).await;
    let calls = script.calls.load(Ordering::SeqCst);
    script.lose_device_at.lock().unwrap().push(calls + 9);
    let told: Arc<Mutex<Vec<(u32, usize)>>> = Arc::default();
    let telling = Arc::clone(&told);
    let walks = ProofOrder {
        on_step: Box::new(move |step| {
            let ProofStep::Artifact(artifact) = step else { return ControlFlow::Break(()) };
            telling.lock().unwrap().push((artifact.nonce, artifact.points.len()));
            ControlFlow::Continue(())
        }),
        ..order(DECODE, 0..9)
    };
    let walks = engine.prove(walks).unwrap();
    let prefills = engine.prove(order(Scheme::Prefill, 100..104)).unwrap();
    assert!(score(engine.clone()).await.is_ok());
    assert_eq!(walks.await.unwrap(), Ok(()));
    assert_eq!(prefills.await.unwrap(), Ok(()));
    let expected: Vec<(u32, usize)> = (0..9).map(|nonce| (nonce, 5)).collect();
    assert_eq!(*told.lock().unwrap(), expected);
    assert_eq!(engine.stats().artifacts, 13);
    assert_eq!(script.loads.load(Ordering::SeqCst), 2);
}
