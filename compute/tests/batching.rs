//! A batch never changes an answer: every sequence gives what it gives alone, whoever runs beside it,
//! whatever pages it shares, and however often it has to give them up.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::llm::{Architecture, KvFormat};
use roadbed_compute::{
    BatchLoad, Engine, EngineError, EngineOptions, FinishReason, GenerateRequest, Generation, Gpu,
    Sampling, SequenceEvent, SequenceId, TokenEvent,
};

use crate::adapters;
use crate::models::{ids, smollm2, vectors};
use crate::tiny_families::Recipe;
use crate::tiny_language::random_model;

/// Tokens of an answer. On a CPU driver the method of GPUs is slow, so there it answers less.
fn new_tokens(method: Method) -> usize {
    match method {
        Method::Lane => 64,
        Method::Group => 12,
    }
}

/// Positions of a page.
const PAGE: usize = 16;

fn load(gpu: &Arc<Gpu>, file: &GgufFile, options: EngineOptions) -> Engine {
    let options = EngineOptions { context_tokens: Some(128), ..options };
    Engine::load_file(file, "tiny", Arc::clone(gpu), &options).unwrap()
}

fn options(method: Method) -> EngineOptions {
    EngineOptions { method: Some(method), sequences: Some(9), ..EngineOptions::default() }
}

/// Nine prompts of many lengths; some begin alike for more than a page, and two are the same.
fn requests(method: Method) -> Vec<GenerateRequest> {
    let common: Vec<u32> = (0..40).map(|i| i * 11 % 61).collect();
    let own = |n: u32, length: u32| (0..length).map(move |i| (i * (n + 3) + n) % 61);
    let prompts: Vec<Vec<u32>> = vec![
        own(1, 1).collect(),
        own(2, 5).collect(),
        common.iter().copied().chain(own(3, 7)).collect(),
        own(4, 17).collect(),
        common.iter().copied().chain(own(5, 1)).collect(),
        own(6, 33).collect(),
        own(7, 16).collect(),
        common.iter().copied().chain(own(3, 7)).collect(),
        own(9, 50).collect(),
    ];
    let request = |(n, prompt_ids): (usize, Vec<u32>)| GenerateRequest {
        prompt_ids,
        max_tokens: new_tokens(method),
        // Mostly greedy; a drawn answer depends on its seed alone.
        sampling: match n % 4 {
            3 => Sampling { temperature: 1.0, seed: n as u64, ..Sampling::GREEDY },
            _ => Sampling::GREEDY,
        },
        top_logprobs: Some(2),
        ..GenerateRequest::default()
    };
    prompts.into_iter().enumerate().map(request).collect()
}

/// Answers one after another, nothing being shared.
fn alone(
    gpu: &Arc<Gpu>,
    file: &GgufFile,
    options: &EngineOptions,
    requests: &[GenerateRequest],
) -> Vec<Generation> {
    let ask = |request: &GenerateRequest| {
        let mut engine = load(gpu, file, options.clone());
        engine.generate(request, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    requests.iter().map(ask).collect()
}

/// What became of every sequence of an engine.
#[derive(Default)]
struct Outcome {
    said: BTreeMap<SequenceId, Vec<u32>>,
    ended: BTreeMap<SequenceId, Generation>,
}

impl Outcome {
    fn note(&mut self, events: Vec<SequenceEvent>) {
        for event in events {
            match event {
                SequenceEvent::Token { id, token } => {
                    assert!(!self.ended.contains_key(&id), "a token after the end");
                    let said = self.said.entry(id).or_default();
                    assert_eq!(token.index, said.len());
                    said.push(token.id);
                }
                SequenceEvent::Finished { id, generation } => {
                    assert_eq!(self.said.get(&id), Some(&generation.ids));
                    assert!(self.ended.insert(id, generation).is_none(), "ended twice");
                }
                SequenceEvent::Failed { id, error } => panic!("{id:?}: {error}"),
            }
        }
    }

    /// Steps until nobody runs or waits.
    fn work_off(&mut self, engine: &mut Engine) {
        while engine.batch_load().running + engine.batch_load().waiting > 0 {
            self.note(engine.step().unwrap());
        }
    }
}

/// Ids and logprobs, bit for bit.
#[track_caller]
fn same(found: &Generation, expected: &Generation) {
    assert_eq!(found.ids, expected.ids);
    assert_eq!(found.logprobs, expected.logprobs);
    assert_eq!(found.finish, expected.finish);
}

fn all_free(load: BatchLoad) -> bool {
    load.pages_free == load.pages
}

fn everywhere(check: impl Fn(&Arc<Gpu>, &GgufFile, Method)) {
    let file = random_model(TensorType::Q4_1, false);
    for gpu in adapters::all() {
        for method in [Method::Lane, Method::Group] {
            check(gpu, &file, method);
        }
    }
}

/// The answers of an engine with all requests together are those of engines with one.
fn together_as_alone(
    gpu: &Arc<Gpu>,
    file: &GgufFile,
    options: EngineOptions,
    requests: &[GenerateRequest],
) {
    let expected = alone(gpu, file, &options, requests);
    // As few pages as may be: everybody but the oldest gives up again and again.
    let tight = EngineOptions { cache_tokens: Some(128), chunk_tokens: Some(9), ..options.clone() };
    // The first engine answers twice, the second time with the prompts' pages already there.
    for (options, rounds) in [(options, 2), (tight, 1)] {
        let mut engine = load(gpu, file, options);
        for _ in 0..rounds {
            let mut outcome = Outcome::default();
            let admit = |request: &GenerateRequest| engine.admit(request.clone()).unwrap();
            let ids: Vec<SequenceId> = requests.iter().map(admit).collect();
            outcome.work_off(&mut engine);
            for (id, expected) in ids.iter().zip(&expected) {
                same(&outcome.ended[id], expected);
            }
            assert!(all_free(engine.batch_load()));
        }
    }
}

#[test]
fn answers_are_those_given_alone() {
    everywhere(|gpu, file, method| {
        together_as_alone(gpu, file, options(method), &requests(method));
    });
}

#[test]
fn answers_of_experts_are_those_given_alone() {
    let (bytes, _) = Recipe::of(Architecture::Qwen3Moe, TensorType::Q4_1).files();
    let file = GgufFile::from_bytes(bytes).unwrap();
    for gpu in adapters::all() {
        let requests = requests(Method::Group);
        together_as_alone(gpu, &file, options(Method::Lane), &requests);
        // The method of GPUs is slow on a CPU driver.
        together_as_alone(gpu, &file, options(Method::Group), &requests[1..4]);
    }
}

#[test]
fn answers_with_keys_in_fewer_bits_are_those_given_alone() {
    let file = random_model(TensorType::Q4_1, false);
    for gpu in adapters::all() {
        for kv in [KvFormat::F16, KvFormat::Q8] {
            let options = EngineOptions { kv, ..options(Method::Lane) };
            together_as_alone(gpu, &file, options, &requests(Method::Lane));
        }
    }
}

/// The real model: two of eight alone, then all together, then again with their common beginning kept.
#[test]
fn answers_of_the_real_model_are_those_given_alone() {
    let vectors = vectors("llm/greedy_smollm2.json");
    let requests: Vec<GenerateRequest> = (0..8)
        .map(|case| {
            let prompt = ids(&vectors["cases"][case]["prompt_ids"]);
            let own = &prompt[prompt.len() - 2 - case % 4..];
            GenerateRequest {
                prompt_ids: prompt[..PAGE].iter().chain(own).copied().collect(),
                max_tokens: 4,
                top_logprobs: Some(2),
                ignore_end: true,
                ..GenerateRequest::default()
            }
        })
        .collect();
    let file = GgufFile::open(&smollm2()).unwrap();
    let Some(gpu) = adapters::all().first() else {
        return;
    };
    let options = EngineOptions { sequences: Some(8), ..EngineOptions::default() };
    let expected = [0, 7].map(|number: usize| {
        let mut engine = load(gpu, &file, options.clone());
        let say_on = &mut |_: TokenEvent<'_>| ControlFlow::Continue(());
        (number, engine.generate(&requests[number], say_on).unwrap())
    });
    let mut engine = load(gpu, &file, options);
    for _ in 0..2 {
        let mut outcome = Outcome::default();
        let admit = |request: &GenerateRequest| engine.admit(request.clone()).unwrap();
        let ids: Vec<SequenceId> = requests.iter().map(admit).collect();
        outcome.work_off(&mut engine);
        for (number, expected) in &expected {
            same(&outcome.ended[&ids[*number]], expected);
        }
    }
}

#[test]
fn those_who_come_and_go_disturb_nobody() {
    everywhere(|gpu, file, method| {
        let expected = alone(gpu, file, &options(method), &requests(method));
        let mut engine =
            load(gpu, file, EngineOptions { cache_tokens: Some(256), ..options(method) });
        let mut outcome = Outcome::default();
        let mut ids = Vec::new();
        let mut cancelled = 0;
        for (number, request) in requests(method).into_iter().enumerate() {
            ids.push(engine.admit(request).unwrap());
            for _ in 0..number {
                outcome.note(engine.step().unwrap());
            }
            if number % 3 == 2 {
                // One that has begun, or perhaps ended.
                let gone = engine.cancel(ids[number - 1]);
                let ended = outcome.ended.contains_key(&ids[number - 1]);
                assert_eq!(gone.is_none(), ended);
                if let Some(gone) = gone {
                    cancelled += 1;
                    assert_eq!(gone.finish, FinishReason::Cancelled);
                    assert_eq!(gone.ids, expected[number - 1].ids[..gone.ids.len()]);
                }
            }
            // A replay in between uses pages of its own.
            engine.score(&[1, 2, 3], &[4, 5], 1).unwrap();
        }
        outcome.work_off(&mut engine);
        assert_eq!(outcome.ended.len() + cancelled, ids.len());
        for (id, generation) in &outcome.ended {
            let number = ids.iter().position(|i| i == id).unwrap();
            same(generation, &expected[number]);
        }
        assert!(all_free(engine.batch_load()));
    });
}

#[test]
fn prompts_that_begin_alike_share_pages() {
    let file = random_model(TensorType::F32, false);
    let Some(gpu) = adapters::all().first() else {
        return;
    };
    let mut engine = load(gpu, &file, options(Method::Lane));
    let request = |last: u32| GenerateRequest {
        prompt_ids: (0..50).map(|i| i % 61).chain([last]).collect(),
        max_tokens: 4,
        ..GenerateRequest::default()
    };
    let held = |engine: &Engine| engine.batch_load().pages - engine.batch_load().pages_free;
    engine.admit(request(7)).unwrap();
    engine.step().unwrap();
    assert_eq!(held(&engine), 51_usize.div_ceil(PAGE));
    engine.admit(request(8)).unwrap();
    engine.step().unwrap();
    // Three full pages are shared; each has the rest alone.
    assert_eq!(held(&engine), 3 + 2);
    Outcome::default().work_off_silently(&mut engine);
    assert!(all_free(engine.batch_load()));
}

impl Outcome {
    /// Steps on without looking: what came before is not known here.
    fn work_off_silently(&mut self, engine: &mut Engine) {
        while engine.batch_load().running > 0 {
            engine.step().unwrap();
        }
    }
}

#[test]
fn a_full_line_and_a_small_budget_are_refused() {
    let file = random_model(TensorType::F32, false);
    let Some(gpu) = adapters::all().first() else {
        return;
    };
    let waiting = EngineOptions { waiting: Some(2), ..options(Method::Lane) };
    let mut engine = load(gpu, &file, waiting);
    let request = GenerateRequest { prompt_ids: vec![1], max_tokens: 2, ..Default::default() };
    for _ in 0..2 {
        engine.admit(request.clone()).unwrap();
    }
    assert!(matches!(engine.admit(request.clone()), Err(EngineError::Busy { waiting: 2 })));
    engine.step().unwrap();
    engine.admit(request).unwrap();

    let tight = |memory_bytes| EngineOptions {
        memory_bytes: Some(memory_bytes),
        context_tokens: Some(128),
        ..options(Method::Lane)
    };
    let open = |bytes| Engine::load_file(&file, "tiny", Arc::clone(gpu), &tight(bytes));
    let Err(error @ EngineError::Memory { weight_bytes, work_bytes, cache_bytes, budget_bytes }) =
        open(1 << 20)
    else {
        panic!("a budget of 1 MiB was accepted");
    };
    assert_eq!(budget_bytes, 1 << 20);
    for number in [weight_bytes, work_bytes, cache_bytes] {
        assert!(error.to_string().contains(&number.to_string()), "{error}");
    }
    // Exactly enough is enough, and more goes to the cache.
    let least = weight_bytes + work_bytes + cache_bytes;
    assert!(open(least - 1).is_err());
    let small = open(least).unwrap();
    assert_eq!(small.info().cache_tokens, 128);
    let page_bytes = cache_bytes / (2 * 128 / PAGE as u64);
    let larger = open(least + 3 * page_bytes).unwrap();
    assert_eq!(larger.info().cache_tokens, 128 + 3 * PAGE);
}
