//! The real model on every adapter against an independent f32 implementation: greedy ids exact,
//! logprobs within 1e-3.

use std::ops::ControlFlow;
use std::sync::Arc;

use roadbed_compute::gguf::GgufFile;
use roadbed_compute::{
    Engine, EngineOptions, FinishReason, GenerateRequest, Gpu, PositionLogprobs,
};
use serde_json::Value;

use crate::adapters;
use crate::models::{ids, smollm2, vectors};

const LOGPROB_TOLERANCE: f32 = 1e-3;
/// Cases that also run token by token; the others are teacher-forced, which prefills in chunks.
const FREE_RUNNING_CASES: usize = 3;

fn load(gpu: &Arc<Gpu>) -> Engine {
    let file = GgufFile::open(&smollm2()).unwrap();
    let options = EngineOptions { context_tokens: Some(512), ..EngineOptions::default() };
    Engine::load_file(&file, "smollm2", Arc::clone(gpu), &options).unwrap()
}

fn check_logprobs(found: &[PositionLogprobs], case: &Value) {
    let ids = ids(&case["greedy_ids"]);
    let tops = case["top5"].as_array().unwrap();
    assert_eq!(found.len(), ids.len());
    let mut worst = 0.0_f32;
    for ((position, id), top) in found.iter().zip(&ids).zip(tops) {
        assert_eq!(position.id, *id);
        assert_eq!(position.top[0].id, *id, "greedy takes the likeliest");
        for expected in top.as_array().unwrap() {
            let (id, logprob) = (expected[0].as_u64().unwrap(), expected[1].as_f64().unwrap());
            // Two near-equal alternatives may swap places; their logprobs still have to agree.
            let Some(entry) = position.top.iter().find(|t| u64::from(t.id) == id) else {
                panic!("id {id} is not among the likeliest of {position:?}");
            };
            worst = worst.max((entry.logprob - logprob as f32).abs());
        }
    }
    assert!(worst <= LOGPROB_TOLERANCE, "logprobs differ by {worst}");
}

#[test]
fn greedy_ids_are_exact_and_logprobs_close() {
    let vectors = vectors("llm/greedy_smollm2.json");
    for gpu in adapters::all() {
        let mut engine = load(gpu);
        for (number, case) in vectors["cases"].as_array().unwrap().iter().enumerate() {
            let prompt_ids = ids(&case["prompt_ids"]);
            let scored = engine.score(&prompt_ids, &ids(&case["greedy_ids"]), 8).unwrap();
            check_logprobs(&scored, case);
            if number >= FREE_RUNNING_CASES {
                continue;
            }
            let request = GenerateRequest {
                prompt_ids,
                max_tokens: vectors["max_new_tokens"].as_u64().unwrap() as usize,
                top_logprobs: Some(8),
                ..GenerateRequest::default()
            };
            let mut streamed = String::new();
            let answer = engine
                .generate(&request, &mut |event| {
                    streamed.push_str(event.text);
                    ControlFlow::Continue(())
                })
                .unwrap();
            check_logprobs(&answer.logprobs, case);
            let expected = case["text"].as_str().unwrap().trim_end_matches("<|im_end|>");
            assert_eq!(answer.text, expected);
            assert_eq!(streamed, expected);
            let stopped = case["stopped"].as_bool().unwrap();
            assert_eq!(answer.finish == FinishReason::Stop, stopped);
            eprintln!(
                "{}: case {number}: prefill {:?} for {} tokens, {:.1} tokens/s",
                engine.info().adapter,
                answer.timings.prefill,
                request.prompt_ids.len(),
                answer.timings.decode_tokens_per_second(answer.ids.len())
            );
        }
    }
}
