//! A model split over several cards answers, replays and proves as on one, bit for bit. The cards are one adapter opened
//! several times: devices of their own, with nothing shared.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::llm::{Architecture, ProofEmbeddings, ProofInputs, ProofPlace, Reflections};
use roadbed_compute::{
    Card, Engine, EngineError, EngineOptions, GenerateRequest, Generation, Gpu, PositionLogprobs,
    Sampling, SequenceEvent,
};

use crate::adapters;
use crate::random::Random;
use crate::tiny_families::{CONTEXT_TOKENS, Recipe};

/// The first adapter, opened three times.
static CARDS: LazyLock<Vec<Arc<Gpu>>> = LazyLock::new(|| {
    let Some(first) = adapters::all().first() else { return Vec::new() };
    let again = || open(first);
    vec![Arc::clone(first), again(), again()]
});

fn open(like: &Arc<Gpu>) -> Arc<Gpu> {
    Gpu::open(&roadbed_compute::AdapterChoice::Index(like.summary().index)).unwrap()
}

fn model(architecture: Architecture, kind: TensorType, layers: usize) -> GgufFile {
    let mut recipe = Recipe::of(architecture, kind);
    recipe.layers = layers;
    GgufFile::from_bytes(recipe.files().0).unwrap()
}

fn load(file: &GgufFile, gpus: &[Arc<Gpu>], memory_bytes: Option<u64>) -> Engine {
    let cards: Vec<Card> =
        gpus.iter().map(|gpu| Card { gpu: Arc::clone(gpu), memory_bytes }).collect();
    Engine::load_over(file, "tiny", &cards, &options(), &|_| ()).unwrap()
}

/// Chunks that cut through prompts.
fn options() -> EngineOptions {
    EngineOptions {
        context_tokens: Some(CONTEXT_TOKENS),
        chunk_tokens: Some(9),
        sequences: Some(4),
        ..EngineOptions::default()
    }
}

fn prompt(n: usize, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * (n + 3) + 5 * n) % 60) as u32).collect()
}

/// Everything an engine may be asked for.
#[derive(Debug, PartialEq)]
struct Said {
    answers: Vec<Generation>,
    scored: Vec<PositionLogprobs>,
    hidden: Vec<Vec<f32>>,
    hidden_on_device: Vec<Vec<f32>>,
}

fn ask(engine: &mut Engine) -> Said {
    Said {
        answers: answers(engine),
        scored: engine.score(&prompt(1, 21), &prompt(2, 14), 3).unwrap(),
        hidden: prove(engine, false),
        hidden_on_device: prove(engine, true),
    }
}

/// Answers of five requests that run together, one of them drawn.
fn answers(engine: &mut Engine) -> Vec<Generation> {
    let ids: Vec<_> = [1, 30, 16, 7, 23]
        .into_iter()
        .enumerate()
        .map(|(n, length)| {
            let request = GenerateRequest {
                prompt_ids: prompt(n, length),
                max_tokens: 6,
                sampling: match n {
                    3 => Sampling { temperature: 1.0, seed: 8, ..Sampling::GREEDY },
                    _ => Sampling::GREEDY,
                },
                top_logprobs: Some(2),
                ignore_end: true,
                ..GenerateRequest::default()
            };
            engine.admit(request).unwrap()
        })
        .collect();
    let mut ended = Vec::new();
    while ended.len() < ids.len() {
        for event in engine.step().unwrap() {
            match event {
                SequenceEvent::Token { .. } => {}
                SequenceEvent::Finished { id, generation } => ended.push((id, generation)),
                SequenceEvent::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    ended.sort_by_key(|(id, _)| *id);
    // How long it took is another matter.
    ended.into_iter().map(|(_, g)| Generation { timings: Default::default(), ..g }).collect()
}

fn prove(engine: &mut Engine, on_device: bool) -> Vec<Vec<f32>> {
    let info = engine.info();
    let (hidden, layers, sequences, tokens) = (info.hidden, info.layers, 3, 13);
    let mut random = Random::new(5);
    let vectors: Vec<Vec<f32>> = (0..layers)
        .map(|_| {
            let v = random.floats(hidden);
            let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
            v.iter().map(|x| x / norm).collect()
        })
        .collect();
    let rows = random.floats(sequences * tokens * hidden);
    let reflections = Reflections::upload(engine, &vectors).unwrap();
    let buffer = engine.gpu().storage_with("rows", bytemuck::cast_slice(&rows)).unwrap();
    let embeddings = match on_device {
        true => ProofEmbeddings::Device(&buffer),
        false => ProofEmbeddings::Host(&rows),
    };
    let (reflections, place) = (Some(&reflections), ProofPlace::Whole);
    let inputs = ProofInputs { sequences, tokens, embeddings, reflections, place, experts: &[] };
    engine.prove_hidden(&inputs).unwrap()
}

#[test]
fn stages_answer_replay_and_prove_as_one_card_does() {
    if CARDS.is_empty() {
        return;
    }
    // Own output matrix; tied; tied with soft caps, scaled embeddings and windows; two rotations; experts.
    for (architecture, kind, layers) in [
        (Architecture::Llama, TensorType::Q4_1, 3),
        (Architecture::Qwen2, TensorType::Q8_0, 4),
        (Architecture::Gemma2, TensorType::F16, 3),
        (Architecture::Gemma3, TensorType::Q4_0, 7),
        (Architecture::Qwen3Moe, TensorType::Q8_0, 3),
    ] {
        let file = model(architecture, kind, layers);
        let expected = ask(&mut load(&file, &CARDS[..1], None));
        for stages in 2..=3 {
            let mut engine = load(&file, &CARDS[..stages], None);
            let info = engine.info();
            assert_eq!(info.stages.len(), stages);
            assert_eq!(info.stages.iter().map(|stage| stage.layers).sum::<usize>(), layers);
            assert_eq!(ask(&mut engine), expected, "{architecture:?} on {stages}");
        }
    }
}

#[test]
fn a_lost_stage_is_told_by_name_and_all_opened_anew_answer_the_same() {
    if CARDS.is_empty() {
        return;
    }
    let file = model(Architecture::Llama, TensorType::Q4_1, 3);
    let request = GenerateRequest {
        prompt_ids: prompt(1, 12),
        max_tokens: 6,
        ignore_end: true,
        ..GenerateRequest::default()
    };
    let expected = load(&file, &CARDS[..1], None)
        .generate(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let two = || -> Vec<Arc<Gpu>> { (0..2).map(|_| open(&CARDS[0])).collect() };
    for lost in 0..2 {
        let cards = two();
        let mut engine = load(&file, &cards, None);
        let error = engine
            .generate(&request, &mut |event| {
                if event.index == 2 {
                    cards[lost].device().destroy();
                }
                ControlFlow::Continue(())
            })
            .unwrap_err();
        assert!(error.is_device_lost(), "{error}");
        let words = error.to_string();
        let name = &cards[lost].summary().name;
        let place = format!("stage {} of 2, on ", lost + 1);
        assert!(words.contains(&place) && words.contains(name), "{words}");
        assert!(
            engine.health().is_err_and(|e| e.is_device_lost() && e.to_string().contains(&place))
        );
        assert!(engine.score(&[1, 2], &[3], 1).is_err_and(|error| error.is_device_lost()));
        drop(engine);
    }
    let again =
        load(&file, &two(), None).generate(&request, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(again.ids, expected.ids);
}

#[test]
fn budgets_decide_the_split_and_a_model_too_large_says_by_how_much() {
    if CARDS.is_empty() {
        return;
    }
    let file = model(Architecture::Llama, TensorType::F32, 6);
    let engine = load(&file, &CARDS[..2], Some(1 << 30));
    assert!(engine.info().stages.iter().all(|stage| stage.layers >= 2));
    let card =
        |at: usize, bytes: u64| Card { gpu: Arc::clone(&CARDS[at]), memory_bytes: Some(bytes) };
    let over = |cards: &[Card]| Engine::load_over(&file, "tiny", cards, &options(), &|_| ());
    let stages = |first: u64, second: u64| {
        let engine = over(&[card(0, first), card(1, second)]).unwrap();
        engine.info().stages.iter().map(|stage| stage.layers).collect::<Vec<_>>()
    };
    assert!(stages(4 << 20, 64 << 20)[0] < stages(64 << 20, 4 << 20)[0]);
    let error = over(&[card(0, 100_000), card(1, 100_000)]).err().unwrap();
    let EngineError::Split { missing_bytes, ref adapters } = error else { panic!("{error}") };
    assert_eq!(adapters.len(), 2);
    let enough = 100_000 + missing_bytes;
    assert!(over(&[card(0, enough), card(1, enough)]).is_ok());
    let many: Vec<Card> = (0..7).map(|_| card(0, 1 << 30)).collect();
    assert!(over(&many).err().unwrap().to_string().contains("7 cards for 6 layers"));
    assert!(over(&[]).is_err());
}
