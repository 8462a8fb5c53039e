//! What quantised activations, and keys and values kept in fewer bits, cost in quality on the real
//! model: the answers of the greedy vectors, teacher-forced, once as a replay reads them (floats) and
//! once as an answer is decoded.

use std::sync::Arc;

use roadbed_compute::gguf::GgufFile;
use roadbed_compute::llm::{Activations, KvFormat};
use roadbed_compute::{Engine, EngineOptions};

use crate::adapters;
use crate::models::{ids, smollm2, vectors};

/// Mean divergence of the next token's distribution, in nats.
const KL_NATS_MAX: f64 = 2e-3;
const KL_NATS_MAX_KV_F16: f64 = 1e-5;
const TOP_1_AGREEMENT_MIN: f64 = 0.98;
/// Cases taken, 232 positions.
const CASES: [usize; 8] = [1, 3, 7, 0, 2, 4, 5, 6];
/// How many of them where hardly a choice changes: about a hundred positions, which take five seconds on
/// two cores. Keys and values in a byte change some, so that two near ties in a hundred would decide.
const FEW: usize = 3;

fn probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = logits.iter().map(|l| f64::from(l - largest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// Logits after each id of each case's answer, in a replay or as an answer is decoded.
fn logits(engine: &mut Engine, cases: &[usize], decoding: bool) -> Vec<Vec<f32>> {
    let vectors = vectors("llm/greedy_smollm2.json");
    let vocabulary = engine.info().vocabulary;
    let mut rows = Vec::new();
    for case in cases.iter().map(|case| &vectors["cases"][case]) {
        let (prompt, answer) = (ids(&case["prompt_ids"]), ids(&case["greedy_ids"]));
        let logits = engine.logits_after_each(&prompt, &answer, decoding).unwrap();
        rows.extend(logits.chunks_exact(vocabulary).map(<[f32]>::to_vec));
    }
    rows
}

/// Mean divergence in nats, and share of equal first choices.
fn divergence(exact: &[Vec<f32>], found: &[Vec<f32>]) -> (f64, f64) {
    let (mut nats, mut agreed) = (0.0, 0);
    for (p, q) in exact.iter().zip(found) {
        agreed += usize::from(likeliest(p) == likeliest(q));
        let (p, q) = (probabilities(p), probabilities(q));
        nats += p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    }
    (nats / found.len() as f64, agreed as f64 / found.len() as f64)
}

#[test]
fn fewer_bits_change_little() {
    let file = GgufFile::open(&smollm2()).unwrap();
    let of = |activations, kv| EngineOptions {
        context_tokens: Some(256),
        activations,
        kv,
        ..EngineOptions::default()
    };
    let cases = [
        (of(Activations::Q16, KvFormat::F32), FEW, KL_NATS_MAX, TOP_1_AGREEMENT_MIN),
        (of(Activations::F32, KvFormat::F16), FEW, KL_NATS_MAX_KV_F16, 1.0),
        (of(Activations::F32, KvFormat::Q8), CASES.len(), KL_NATS_MAX, TOP_1_AGREEMENT_MIN),
    ];
    for gpu in adapters::all() {
        let mut exact: Option<Vec<Vec<f32>>> = None;
        for (options, count, nats_max, agreement_min) in &cases {
            let mut engine = Engine::load_file(&file, "smollm2", Arc::clone(gpu), options).unwrap();
            // Replays take floats, whatever the options are.
            let exact = exact.get_or_insert_with(|| logits(&mut engine, &CASES, false));
            let found = logits(&mut engine, &CASES[..*count], true);
            let (nats, agreement) = divergence(exact, &found);
            let what =
                format!("{:?} activations, {:?} keys and values", options.activations, options.kv);
            let positions = found.len();
            eprintln!("{}: {what}: {nats:.2e} nats, {agreement:.4} of {positions}", gpu.summary());
            assert!(nats <= *nats_max, "{what}: {nats} nats");
            // The two are not the same path: fewer bits are really used.
            assert!(nats > 1e-12, "{what}: {nats} nats");
            assert!(agreement >= *agreement_min, "{what}: top-1 agreement {agreement}");
        }
    }
}
