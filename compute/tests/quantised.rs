//! What quantised activations cost in quality, on the real model: the answers of the greedy vectors,
//! teacher-forced, once as a prompt is read (floats) and once as tokens are decoded (whole numbers).

use std::sync::Arc;

use roadbed_compute::gguf::GgufFile;
use roadbed_compute::llm::Activations;
use roadbed_compute::{Engine, EngineOptions};

use crate::adapters;
use crate::models::{ids, smollm2, vectors};

/// Mean divergence of the next token's distribution, in nats.
const KL_NATS_MAX: f64 = 2e-3;
const TOP_1_AGREEMENT_MIN: f64 = 0.98;
/// Cases taken: about a hundred positions, which take ten seconds on two cores.
const CASES: [usize; 3] = [1, 3, 7];

fn probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = logits.iter().map(|l| f64::from(l - largest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

#[test]
fn quantised_activations_change_little() {
    let vectors = vectors("llm/greedy_smollm2.json");
    let file = GgufFile::open(&smollm2()).unwrap();
    for gpu in adapters::all() {
        let options = EngineOptions {
            context_tokens: Some(256),
            activations: Activations::Q16,
            ..EngineOptions::default()
        };
        let mut engine = Engine::load_file(&file, "smollm2", Arc::clone(gpu), &options).unwrap();
        let vocabulary = engine.info().vocabulary;
        let (mut nats, mut agreed, mut positions) = (0.0, 0, 0);
        for case in CASES.map(|case| &vectors["cases"][case]) {
            let (prompt, answer) = (ids(&case["prompt_ids"]), ids(&case["greedy_ids"]));
            let exact = engine.logits_after_each(&prompt, &answer, false).unwrap();
            let quantised = engine.logits_after_each(&prompt, &answer, true).unwrap();
            for (p, q) in exact.chunks_exact(vocabulary).zip(quantised.chunks_exact(vocabulary)) {
                positions += 1;
                agreed += usize::from(likeliest(p) == likeliest(q));
                let (p, q) = (probabilities(p), probabilities(q));
                nats += p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
            }
        }
        let (nats, agreement) = (nats / f64::from(positions), agreed as f64 / f64::from(positions));
        eprintln!("{}: {nats:.2e} nats, top-1 {agreement:.4} of {positions}", gpu.summary());
        assert!(nats <= KL_NATS_MAX, "{nats} nats");
        // The two are not the same path: whole numbers are really used.
        assert!(nats > 1e-12, "{nats} nats");
        assert!(agreement >= TOP_1_AGREEMENT_MIN, "top-1 agreement {agreement}");
    }
}
