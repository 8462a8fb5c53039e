//! The queue before the engine, and what happens when things behind it break.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roadbed_agent::engine::{
    EngineFault, EngineService, EngineState, JOBS_QUEUED_MAX, Prompt, ProofOrder, TextRequest,
};
use roadbed_compute::FinishReason;
use roadbed_compute::poc::{Identity, Round, Scheme};
use tokio_util::sync::CancellationToken;

use super::stand_in::{ALPHABET, Script, StandInLoader};
use super::{load_request, until};

async fn engine() -> (EngineService, Arc<Script>) {
    let script = Arc::new(Script::default());
    let engine = EngineService::start(StandInLoader(Arc::clone(&script))).unwrap();
    engine.load(load_request()).await.unwrap();
    (engine, script)
}

fn request(max_tokens: usize) -> TextRequest {
    TextRequest { max_tokens: Some(max_tokens), ..TextRequest::greedy(Prompt::Text("hi".into())) }
}

fn round() -> Round {
    let identity = Identity { block_hash: "B".into(), public_key: "K".into() };
    Round { identity, seq_len: 8, k_dim: 12, stronger_rng: false, scheme: Scheme::Prefill }
}

fn endless() -> ProofOrder {
    ProofOrder {
        claims: None,
        cancel: CancellationToken::new(),
        round: round(),
        nonces: Box::new(0..u32::MAX),
        batch: 32,
        on_step: Box::new(|_| ControlFlow::Continue(())),
    }
}

#[tokio::test]
async fn a_cancelled_proof_begins_no_further_step() {
    let (engine, script) = engine().await;
    script.tokens.shut();
    let chat = engine.generate(request(3)).unwrap();
    until("a step of the chat", || script.tokens.was_waited_at().then_some(())).await;
    // The engine thread is busy with the chat: the proof waits for its turn, and nobody wants it before that comes.
    let cancel = CancellationToken::new();
    let long = ProofOrder { cancel: cancel.clone(), nonces: Box::new(100..200), ..endless() };
    let ended = engine.prove(long).unwrap();
    cancel.cancel();
    let next = engine.prove(ProofOrder { nonces: Box::new(0..3), ..endless() }).unwrap();
    script.tokens.open();
    assert_eq!(ended.await.unwrap(), Ok(()));
    assert_eq!(next.await.unwrap(), Ok(()));
    assert_eq!(*script.proved.lock().unwrap(), [0, 1, 2]);
    chat.finish().await.unwrap();
}

#[tokio::test]
async fn an_answer_comes_token_by_token_and_whole() {
    let (engine, _script) = engine().await;
    let mut running = engine.generate(request(100)).unwrap();
    assert_eq!(running.tokens.recv().await.unwrap().text, "a");
    let answer = running.finish().await.unwrap();
    assert_eq!(answer.generation.text, ALPHABET);
    assert_eq!(answer.finish(), FinishReason::Stop);
    assert_eq!(answer.prompt_ids, [104, 105]);
    let stats = engine.stats();
    assert_eq!((stats.completions, stats.tokens, stats.prompt_tokens), (1, 27, 2));
}

#[tokio::test]
async fn a_full_queue_refuses_and_drains() {
    let (engine, script) = engine().await;
    script.tokens.shut();
    let first = engine.generate(request(1)).unwrap();
    // The first job leaves the queue for the engine; then the queue takes exactly its limit.
    let mut waiting = vec![];
    let refused = until("a full queue", || match engine.generate(request(1)) {
        Ok(running) => {
            waiting.push(running);
            None
        }
        Err(fault) if waiting.len() == JOBS_QUEUED_MAX => Some(fault),
        Err(_) => None,
    })
    .await;
    assert!(
        matches!(refused, EngineFault::QueueFull { queued: JOBS_QUEUED_MAX, .. }),
        "{refused:?}"
    );
    assert!(engine.open_jobs() > JOBS_QUEUED_MAX);
    engine.set_accepting(false);
    assert_eq!(engine.generate(request(1)).unwrap_err(), EngineFault::Draining);
    script.tokens.open();
    engine.drained().await;
    assert_eq!(engine.open_jobs(), 0);
    assert!(first.finish().await.is_ok());
    for running in waiting {
        assert!(running.finish().await.is_ok());
    }
    engine.set_accepting(true);
    assert!(engine.generate(request(1)).unwrap().finish().await.is_ok());
}

#[tokio::test]
async fn proofs_and_chats_take_turns() {
    let (engine, script) = engine().await;
    let mut proof = engine.prove(endless()).unwrap();
    let proved = || script.proved.lock().unwrap().len();
    for _ in 0..3 {
        let before = proved();
        assert!(engine.generate(request(2)).unwrap().finish().await.is_ok());
        until("more nonces", || (proved() > before).then_some(())).await;
    }
    assert!(proof.try_recv().is_err());
    engine.stop_work();
    assert_eq!(proof.await.unwrap(), Err(EngineFault::Cancelled));
    let nonces = script.proved.lock().unwrap().clone();
    assert!(nonces.iter().enumerate().all(|(at, &nonce)| at == nonce as usize), "{nonces:?}");
}

#[tokio::test]
async fn chats_and_a_proof_do_not_starve_each_other() {
    let (engine, script) = engine().await;
    script.endless.store(true, Ordering::SeqCst);
    let chats: Vec<_> = (0..20).map(|_| engine.generate(request(1)).unwrap()).collect();
    let spoken = Arc::new(AtomicU64::new(0));
    let (kept, watched) = (Arc::clone(&spoken), Arc::clone(&script));
    let on_step = move |_| {
        kept.store(watched.spoken.load(Ordering::SeqCst), Ordering::SeqCst);
        ControlFlow::Continue(())
    };
    let order = ProofOrder { nonces: Box::new(0..20), on_step: Box::new(on_step), ..endless() };
    // The chats would go on for ever.
    assert_eq!(engine.prove(order).unwrap().await.unwrap(), Ok(()));
    // Two nonces a step, and at least one token between two steps.
    assert!(spoken.load(Ordering::SeqCst) >= 9, "{spoken:?}");
    drop(chats);
    engine.drained().await;
}

#[tokio::test]
async fn answers_run_together_and_leave_one_by_one() {
    let script = Arc::new(Script::default());
    script.answers_max.store(3, Ordering::SeqCst);
    script.endless.store(true, Ordering::SeqCst);
    let engine = EngineService::start(StandInLoader(Arc::clone(&script))).unwrap();
    engine.load(load_request()).await.unwrap();
    let mut chats: Vec<_> = (0..4).map(|_| engine.generate(request(1)).unwrap()).collect();
    let full = |running, waiting| {
        let now = engine.occupancy();
        ((now.running, now.waiting) == (running, waiting)).then_some(now)
    };
    let now = until("three together", || full(3, 1)).await;
    assert_eq!((now.pages_free, now.pages), (97, 100));
    for chat in &mut chats[..3] {
        assert_eq!(chat.tokens.recv().await.unwrap().text, "a");
    }
    // A reader who goes makes room for the next one before the next token.
    drop(chats.swap_remove(1));
    until("the fourth", || full(3, 0)).await;
    // One that is lost is lost with all the others, and each of them is told.
    script.lose_device.store(true, Ordering::SeqCst);
    for chat in chats {
        let fault = chat.finish().await.unwrap_err();
        assert!(matches!(fault, EngineFault::DeviceLost { .. }), "{fault:?}");
    }
    assert!(matches!(&*engine.state().borrow(), EngineState::Failed { .. }));
    assert_eq!(engine.open_jobs(), 0);
    until("an empty engine", || full(0, 0)).await;
}

#[tokio::test]
async fn a_job_nobody_waits_for_is_cancelled() {
    let (engine, script) = engine().await;
    script.tokens.shut();
    let running = engine.generate(request(100)).unwrap();
    let queued = engine.generate(request(100)).unwrap();
    drop(running);
    drop(queued);
    script.tokens.open();
    engine.drained().await;
    assert!(script.spoken.load(Ordering::SeqCst) <= 1);
    assert_eq!(engine.stats().cancelled, 2);
    assert_eq!(engine.stats().completions, 0);
}

#[tokio::test]
async fn a_proof_is_broken_off_by_its_caller() {
    let (engine, _script) = engine().await;
    let mut left = 3;
    let on_step = move |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let order = ProofOrder { on_step: Box::new(on_step), ..endless() };
    assert_eq!(engine.prove(order).unwrap().await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_lost_device_and_a_panic_cost_the_model_only() {
    let (engine, script) = engine().await;
    for broken in [&script.lose_device, &script.panic] {
        broken.store(true, Ordering::SeqCst);
        let fault = engine.generate(request(1)).unwrap().finish().await.unwrap_err();
        assert!(matches!(fault, EngineFault::DeviceLost { .. }), "{fault:?}");
        let state = engine.state().borrow().clone();
        assert!(
            matches!(&state, EngineState::Failed { served_as, .. } if served_as == super::MODEL)
        );
        assert_eq!(engine.generate(request(1)).unwrap_err(), EngineFault::NoModel);
        assert!(matches!(engine.prove(endless()), Err(EngineFault::NoModel)));
        broken.store(false, Ordering::SeqCst);
        engine.load(load_request()).await.unwrap();
        assert!(engine.generate(request(1)).unwrap().finish().await.is_ok());
    }
}

#[tokio::test]
async fn a_device_that_comes_back_loses_no_answer_and_no_nonce() {
    let (engine, script) = engine().await;
    // The chat alone takes 52 calls.
    let calls = script.calls.load(Ordering::SeqCst);
    script.lose_device_at.lock().unwrap().extend([calls + 6, calls + 18]);
    let mut chat = engine.generate(request(100)).unwrap();
    let order = ProofOrder { nonces: Box::new(0..9), ..endless() };
    let proof = engine.prove(order).unwrap();
    let mut told = String::new();
    // If both losses hit the chat the second ends it, and what its reader has stays right.
    while let Some(token) = chat.tokens.recv().await {
        told.push_str(&token.text);
    }
    match chat.finish().await {
        Ok(answer) => assert_eq!((told.as_str(), &*answer.generation.text), (ALPHABET, ALPHABET)),
        Err(EngineFault::DeviceLost { .. }) => assert!(ALPHABET.starts_with(&told), "{told}"),
        Err(fault) => panic!("{fault:?}"),
    }
    // The proof goes on all the same, and every nonce counts once.
    assert_eq!(proof.await.unwrap(), Ok(()));
    assert_eq!(*script.proved.lock().unwrap(), (0..9).collect::<Vec<_>>());
    assert_eq!(engine.stats().artifacts, 9);
    assert_eq!(script.loads.load(Ordering::SeqCst), 3);

    // The third within ten minutes is reported instead.
    script.lose_device_once.store(true, Ordering::SeqCst);
    let fault = engine.generate(request(1)).unwrap().finish().await.unwrap_err();
    assert!(matches!(fault, EngineFault::DeviceLost { .. }), "{fault:?}");
    assert!(matches!(&*engine.state().borrow(), EngineState::Failed { .. }));
    assert_eq!(script.loads.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_answer_goes_on_where_it_was_when_the_device_was_lost() {
    let (engine, script) = engine().await;
    script.tokens.shut();
    let mut chat = engine.generate(request(100)).unwrap();
    until("at the door", || script.tokens.was_waited_at().then_some(())).await;
    script.lose_device_once.store(true, Ordering::SeqCst);
    script.tokens.open();
    let mut told = String::new();
    while let Some(token) = chat.tokens.recv().await {
        told.push_str(&token.text);
    }
    let answer = chat.finish().await.unwrap();
    assert_eq!((told.as_str(), &*answer.generation.text), (ALPHABET, ALPHABET));
    assert_eq!(script.loads.load(Ordering::SeqCst), 2);
    assert_eq!((engine.stats().completions, engine.stats().failed), (1, 0));
}

#[tokio::test]
async fn unloading_ends_everything() {
    let (engine, script) = engine().await;
    script.tokens.shut();
    let chat = engine.generate(request(100)).unwrap();
    let proof = engine.prove(endless()).unwrap();
    let unloading = tokio::spawn({
        let engine = engine.clone();
        async move { engine.unload().await }
    });
    // It waited behind the chat, so it is cancelled at once.
    assert_eq!(proof.await.unwrap(), Err(EngineFault::Cancelled));
    script.tokens.open();
    unloading.await.unwrap().unwrap();
    assert_eq!(chat.finish().await.unwrap_err(), EngineFault::Cancelled);
    assert_eq!(*engine.state().borrow(), EngineState::Empty);
    engine.shut_down().await;
}

#[tokio::test]
async fn a_prompt_must_fit() {
    let (engine, _script) = engine().await;
    for (prompt, names) in [
        (Prompt::Text(String::new()), "no tokens"),
        (Prompt::Text("x".repeat(300)), "context of 256"),
        (Prompt::Ids(vec![1, 257]), "position 1"),
    ] {
        let fault = engine
            .generate(TextRequest { prompt, ..request(1) })
            .unwrap()
            .finish()
            .await
            .unwrap_err();
        assert!(fault.to_string().contains(names), "{fault}");
    }
}
