//! Small models on every adapter and by every method: against the published logits, against the CPU
//! reference for every weight type, and against themselves when work is cut differently.

use std::ops::ControlFlow;
use std::sync::Arc;

use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::llm::{ProofEmbeddings, ProofInputs, ProofPlace, Reflections};
use roadbed_compute::reference::model::{Cache, ReferenceModel};
use roadbed_compute::{Engine, EngineError, EngineOptions, FinishReason, GenerateRequest, Gpu};
use serde_json::Value;

use crate::adapters;
use crate::models::{ids, vectors};
use crate::random::Random;
use crate::tiny_models::TinyModel;

fn load(gpu: &Arc<Gpu>, file: &GgufFile, method: Method, chunk: usize) -> Engine {
    let options = EngineOptions {
        context_tokens: Some(128),
        chunk_tokens: Some(chunk),
        method: Some(method),
        ..EngineOptions::default()
    };
    Engine::load_file(file, "tiny", Arc::clone(gpu), &options).unwrap()
}

fn reals(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance, "{f} is not {e} within {tolerance}");
    }
}

/// Every method and two chunk sizes, on every adapter.
fn everywhere(file: &GgufFile, check: impl Fn(&mut Engine)) {
    for gpu in adapters::all() {
        for (method, chunk) in [(Method::Lane, 64), (Method::Group, 64), (Method::Lane, 3)] {
            check(&mut load(gpu, file, method, chunk));
        }
    }
}

#[test]
fn published_logits_and_greedy_ids() {
    for model in vectors("poc/tiny_e2e.json")["models"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let file = GgufFile::open(&TinyModel::from_vectors(model).write(&folder)).unwrap();
        let lm = &model["lm"];
        let prompt_ids = ids(&lm["input_ids"]);
        let wanted = reals(&lm["last_logits_f64"]);

        let reference = ReferenceModel::from_source(&file, 128).unwrap();
        let rows = reference.embed(&prompt_ids);
        let hidden = reference.forward(rows, &mut Cache::default(), &[]);
        let last = &hidden[hidden.len() - reference.config.hidden..];
        close(&reference.logits(last)[..wanted.len()], &wanted, 1e-4);

        everywhere(&file, |engine| {
            let logits = engine.logits(&prompt_ids).unwrap();
            close(&logits[..wanted.len()], &wanted, 1e-4);
            check_positions(engine, &prompt_ids, &lm["top5_per_position"]);
            let request = GenerateRequest {
                prompt_ids: prompt_ids.clone(),
                max_tokens: 16,
                ignore_end: true,
                ..GenerateRequest::default()
            };
            let answer = engine.generate(&request, &mut |_| ControlFlow::Continue(())).unwrap();
            assert_eq!(answer.ids, ids(&lm["greedy_16"]));
            assert_eq!(answer.finish, FinishReason::Length);
        });
    }
}

/// The five best of every position of the prompt.
fn check_positions(engine: &mut Engine, prompt_ids: &[u32], tops: &Value) {
    let scored = engine.score(&prompt_ids[..1], &prompt_ids[1..], 5).unwrap();
    for (position, wanted) in scored.iter().zip(tops.as_array().unwrap()) {
        for (found, wanted) in position.top.iter().zip(wanted.as_array().unwrap()) {
            assert_eq!(u64::from(found.id), wanted[0].as_u64().unwrap());
            close(&[found.logprob], &[wanted[1].as_f64().unwrap() as f32], 1e-4);
        }
    }
}

/// A random model of one layer type; `mixed` gives Q, K and V three different types.
pub fn random_model(kind: TensorType, mixed: bool) -> GgufFile {
    // Q4_K and Q6_K need rows of 256.
    let (hidden, ffn, heads, kv_heads, vocabulary) = (256_usize, 512, 8, 2, 61);
    let kv = hidden / heads * kv_heads;
    let mut random = Random::new(7);
    let mut writer = GgufWriter::default();
    let count = |n: usize| Field::U32(u32::try_from(n).unwrap());
    let fields = [
        ("general.architecture", Field::Text("llama")),
        ("llama.block_count", count(2)),
        ("llama.context_length", count(128)),
        ("llama.embedding_length", count(hidden)),
        ("llama.feed_forward_length", count(ffn)),
        ("llama.attention.head_count", count(heads)),
        ("llama.attention.head_count_kv", count(kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Field::F32(1e-5)),
    ];
    for (key, field) in &fields {
        writer.field(key, field);
    }
    let mut matrix = |name: &str, kind: TensorType, columns: usize, rows: usize| {
        let data = random.weights(kind, rows * columns);
        writer.encoded_tensor(&format!("{name}.weight"), kind, columns, rows, data);
    };
    matrix("token_embd", kind, hidden, vocabulary);
    matrix("output_norm", TensorType::F32, hidden, 1);
    for layer in 0..2 {
        let mut part = |name: &str, kind, columns, rows| {
            matrix(&format!("blk.{layer}.{name}"), kind, columns, rows);
        };
        part("attn_norm", TensorType::F32, hidden, 1);
        part("attn_q", kind, hidden, hidden);
        part("attn_k", if mixed { TensorType::Q8_0 } else { kind }, hidden, kv);
        part("attn_v", if mixed { TensorType::F16 } else { kind }, hidden, kv);
        part("attn_output", kind, hidden, hidden);
        part("ffn_norm", TensorType::F32, hidden, 1);
        part("ffn_gate", kind, hidden, ffn);
        part("ffn_up", kind, hidden, ffn);
        part("ffn_down", kind, ffn, hidden);
    }
    GgufFile::from_bytes(writer.finish()).unwrap()
}

#[test]
fn every_weight_type_agrees_with_the_reference() {
    let prompt_ids: Vec<u32> = (0..20).map(|i| i * 7 % 61).collect();
    for (kind, mixed) in TensorType::ALL.into_iter().flat_map(|k| [(k, false), (k, true)]) {
        let file = random_model(kind, mixed);
        let reference = ReferenceModel::from_source(&file, 128).unwrap();
        let rows = reference.embed(&prompt_ids);
        let hidden = reference.forward(rows, &mut Cache::default(), &[]);
        let wanted = reference.logits(&hidden[hidden.len() - reference.config.hidden..]);
        let largest = wanted.iter().fold(0.0_f32, |m, l| m.max(l.abs()));
        for gpu in adapters::all() {
            let mut engine = load(gpu, &file, Method::of(gpu.is_software()), 64);
            close(&engine.logits(&prompt_ids).unwrap(), &wanted, 1e-4 * largest.max(1.0));
        }
    }
}

#[test]
fn proofs_agree_with_the_reference_however_they_are_cut() {
    let file = random_model(TensorType::Q4_1, false);
    let reference = ReferenceModel::from_source(&file, 128).unwrap();
    let (hidden, layers) = (reference.config.hidden, reference.config.layers);
    let mut random = Random::new(8);
    let (sequences, tokens) = (5, 11);
    let rows = random.floats(sequences * tokens * hidden);
    let units: Vec<Vec<f32>> = (0..layers)
        .map(|_| {
            let v = random.floats(hidden);
            let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
            v.iter().map(|x| x / norm).collect()
        })
        .collect();
    let wanted: Vec<f32> = rows
        .chunks_exact(tokens * hidden)
        .flat_map(|sequence| {
            let all = reference.forward(sequence.to_vec(), &mut Cache::default(), &units);
            all[(tokens - 1) * hidden..].to_vec()
        })
        .collect();
    everywhere(&file, |engine| {
        let reflections = Reflections::upload(engine, &units).unwrap();
        let buffer = engine.gpu().storage_with("rows", bytemuck::cast_slice(&rows)).unwrap();
        for embeddings in [ProofEmbeddings::Host(&rows), ProofEmbeddings::Device(&buffer)] {
            let found = engine
                .prove_hidden(&ProofInputs {
                    sequences,
                    tokens,
                    embeddings,
                    reflections: Some(&reflections),
                    place: ProofPlace::Whole,
                    experts: &[],
                })
                .unwrap();
            close(&found.concat(), &wanted, 2e-4);
        }
    });
}

#[test]
fn a_prompt_that_begins_like_the_last_one_gives_the_same_answer() {
    let file = random_model(TensorType::F32, false);
    let request = |last: u32| GenerateRequest {
        prompt_ids: (0..9).chain([last]).collect(),
        max_tokens: 5,
        ..GenerateRequest::default()
    };
    let ask = |engine: &mut Engine, last| {
        engine.generate(&request(last), &mut |_| ControlFlow::Continue(())).unwrap().ids
    };
    everywhere(&file, |engine| {
        let first = ask(engine, 30);
        let _ = ask(engine, 31);
        assert_eq!(ask(engine, 30), first);
    });
}

#[test]
fn bad_requests_are_refused_and_change_nothing() {
    let file = random_model(TensorType::F32, false);
    let Some(gpu) = adapters::all().first() else {
        return;
    };
    let mut engine = load(gpu, &file, Method::Lane, 64);
    let request = |prompt_ids: Vec<u32>| GenerateRequest {
        prompt_ids,
        max_tokens: 3,
        ..GenerateRequest::default()
    };
    let mut ask =
        |request: &GenerateRequest| engine.generate(request, &mut |_| ControlFlow::Continue(()));
    let callers_fault = |result: Result<_, EngineError>| {
        result.map(|_: roadbed_compute::Generation| ()).is_err_and(|e| e.is_callers_fault())
    };
    assert!(callers_fault(ask(&request(vec![]))));
    assert!(callers_fault(ask(&request(vec![61]))));
    assert!(callers_fault(ask(&request(vec![0; 128]))));
    let mut hot = request(vec![1]);
    hot.sampling.temperature = f32::NAN;
    assert!(callers_fault(ask(&hot)));
    let cancelled = engine.generate(&request(vec![1]), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((cancelled.finish, cancelled.ids.len()), (FinishReason::Cancelled, 1));
    // The file has no tokenizer: ids work, text does not.
    assert!(engine.tokenize("x").unwrap_err().to_string().contains("no tokenizer"));
    engine.health().unwrap();
}

#[test]
fn unsupported_models_say_why() {
    let Some(gpu) = adapters::all().first() else {
        return;
    };
    let check = |edit: &dyn Fn(&mut GgufWriter), expected: &str| {
        let mut writer = GgufWriter::default();
        edit(&mut writer);
        let file = GgufFile::from_bytes(writer.finish()).unwrap();
        let result = Engine::load_file(&file, "x", Arc::clone(gpu), &EngineOptions::default());
        let Err(error) = result else {
            panic!("accepted: {expected}");
        };
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&|_| (), "general.architecture: missing");
    let arch = |name: &'static str| {
        move |writer: &mut GgufWriter| {
            writer.field("general.architecture", &Field::Text(name));
        }
    };
    check(&arch("mamba"), "architecture 'mamba'");
    check(&arch("llama"), "llama.block_count: missing");
}
