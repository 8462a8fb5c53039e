//! Proof of Compute end to end: artifacts of real forward passes against the published ones.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::poc::artifact::{Artifact, K_DIM, decode};
use roadbed_compute::poc::pick::pick;
use roadbed_compute::poc::reflection::haar_rotate;
use roadbed_compute::poc::verdict::l2;
use roadbed_compute::poc::{
    Identity, PocError, ProofRequest, Prover, Round, Scheme, compute_artifacts,
};
use roadbed_compute::source::WeightSource;
use roadbed_compute::{Engine, EngineOptions, Gpu};
use serde_json::Value;

use crate::adapters;
use crate::models::{smollm2, vectors};
use crate::requantised::Requantised;
use crate::tiny_models::TinyModel;

/// Nonces of the real model in the everyday test, by length: each costs seconds on a software adapter, one of 1024 tokens
/// 20 s of CPU time, which is more than an everyday test may take. Set
/// `ROADBED_PROVE_ALL=1` for every nonce at every length of the vectors (minutes to half an hour).
fn everyday_nonces(seq_len: usize) -> usize {
    match seq_len {
        0..=64 => 2,
        65..=256 => 1,
        _ => 0,
    }
}

fn load(gpu: &Arc<Gpu>, path: &Path) -> Engine {
    let file = GgufFile::open(path).unwrap();
    Engine::load_file(&file, "model", Arc::clone(gpu), &EngineOptions::default()).unwrap()
}

/// Every adapter. Without any nothing is shown of what the network pays for: that is a failure, not a skip.
fn gpus() -> &'static [Arc<Gpu>] {
    let all = adapters::all();
    assert!(!all.is_empty(), "no Vulkan adapter: nothing was proved");
    all
}

/// The adapter's name, for what is printed and what fails.
fn name(gpu: &Gpu) -> &str {
    &gpu.summary().name
}

fn round(table: &Value, run: &Value) -> Round {
    Round {
        identity: Identity {
            block_hash: table["block_hash"].as_str().unwrap().into(),
            public_key: table["public_key"].as_str().unwrap().into(),
        },
        seq_len: usize::try_from(run["seq_len"].as_u64().unwrap()).unwrap(),
        k_dim: K_DIM,
        stronger_rng: run["poc_stronger_rng"].as_bool().unwrap(),
        scheme: Scheme::Prefill,
    }
}

fn prove(engine: &mut Engine, round: &Round, nonces: &[u32]) -> Vec<Artifact> {
    let request = ProofRequest { round: round.clone(), nonces: nonces.to_vec() };
    let mut artifacts = Vec::new();
    let stop = AtomicBool::new(false);
    let summary =
        compute_artifacts(engine, &request, &stop, &mut |artifact| artifacts.push(artifact))
            .unwrap();
    assert!(summary.complete && summary.dropped.is_empty());
    assert_eq!(artifacts.iter().map(|a| a.nonce).collect::<Vec<_>>(), nonces);
    artifacts
}

fn reals(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// L2 distances to the golden vectors: of the exact vector, and of what is sent.
fn distances(artifact: &Artifact, golden: &Value) -> (f64, f64) {
    let golden = reals(&golden["vector_f32"]);
    let sent = decode(&artifact.vector_b64, K_DIM).unwrap();
    (l2(&artifact.vector, &golden), l2(&sent, &golden))
}

#[test]
fn tiny_models_prove_like_the_published_ones() {
    let table = vectors("poc/tiny_e2e.json");
    let folder = tempfile::tempdir().unwrap();
    for gpu in gpus() {
        let (mut worst, mut worst_sent) = (0f64, 0f64);
        for model in table["models"].as_array().unwrap() {
            let mut engine = load(gpu, &TinyModel::from_vectors(model).write(&folder));
            for run in model["poc"].as_array().unwrap() {
                let round = round(&table, run);
                let golden = run["artifacts"].as_array().unwrap();
                let artifacts = prove(&mut engine, &round, &nonces(golden));
                for (artifact, golden) in artifacts.iter().zip(golden) {
                    let (exact, sent) = distances(artifact, golden);
                    let (adapter, nonce) = (name(gpu), artifact.nonce);
                    let place = format!("{adapter}: seq_len {} nonce {nonce}", round.seq_len);
                    assert!(exact <= 1e-4, "{place}: {exact} before encoding");
                    assert!(sent <= 6e-4, "{place}: {sent} after encoding");
                    worst = worst.max(exact);
                    worst_sent = worst_sent.max(sent);
                }
            }
        }
        println!(
            "{}: tiny models, L2 at most {worst:.1e} before encoding, {worst_sent:.1e} after",
            name(gpu)
        );
    }
}

/// Negative controls on a small model: each of these mistakes must show, or the other tests prove nothing.
#[test]
fn wrong_proofs_are_far_away() {
    let table = vectors("poc/tiny_e2e.json");
    let folder = tempfile::tempdir().unwrap();
    let model = &table["models"][1];
    let run = &model["poc"][6];
    let golden = run["artifacts"].as_array().unwrap();
    let right = round(&table, run);
    assert_eq!((right.seq_len, right.stronger_rng), (33, false));
    let mut other_block = right.clone();
    other_block.identity.block_hash.push('5');
    let mut other_key = right.clone();
    other_key.identity.public_key.push('5');
    let wrong = [
        ("wrong block hash", other_block),
        ("wrong public key", other_key),
        ("wrong generator", Round { stronger_rng: true, ..right.clone() }),
        ("one token less", Round { seq_len: 32, ..right.clone() }),
        ("one token more", Round { seq_len: 34, ..right }),
    ];
    for gpu in gpus() {
        let mut engine = load(gpu, &TinyModel::from_vectors(model).write(&folder));
        for (mistake, round) in &wrong {
            let artifacts = prove(&mut engine, round, &nonces(golden));
            assert_far(mistake, artifacts.iter().zip(golden).map(|(a, g)| distances(a, g).1));
        }
    }
}

/// Tokens of a nonce where the real model is held against its own right artifacts; each token costs a software adapter
/// 10 ms.
const CONTROL_TOKENS: usize = 16;
/// Nonces of each control.
const CONTROL_NONCES: [u32; 3] = [0, 1, 2];

/// Negative controls on the real model: what must fail does, and what may differ a little passes.
#[test]
fn mistakes_show_on_the_real_model_and_halves_do_not() {
    gpus().iter().for_each(mistakes_show);
}

fn mistakes_show(gpu: &Arc<Gpu>) {
    let table = vectors("poc/e2e_smollm2.json");
    let file = GgufFile::open(&smollm2()).unwrap();
    let options =
        EngineOptions { context_tokens: Some(CONTROL_TOKENS + 1), ..EngineOptions::default() };
    let load = |file: &dyn WeightSource| {
        Engine::load_file(file, "smollm2", Arc::clone(gpu), &options).unwrap()
    };
    let mut engine = load(&file);
    let mut right = round(&table, &table["runs"][0]);
    right.seq_len = CONTROL_TOKENS;
    let golden = prove(&mut engine, &right, &CONTROL_NONCES);
    let from_golden = |artifacts: Vec<Artifact>| -> Vec<f64> {
        artifacts.iter().zip(&golden).map(|(a, g)| l2(&a.vector, &g.vector)).collect()
    };
    let of_block = |block_hash: &str| Identity {
        block_hash: block_hash.into(),
        public_key: right.identity.public_key.clone(),
    };
    let wrong = [
        ("wrong block hash", Round { identity: of_block("4E1A"), ..right.clone() }),
        ("wrong generator", Round { stronger_rng: true, ..right.clone() }),
        ("one token less", Round { seq_len: CONTROL_TOKENS - 1, ..right.clone() }),
        ("one token more", Round { seq_len: CONTROL_TOKENS + 1, ..right.clone() }),
    ];
    for (mistake, round) in wrong {
        let artifacts = prove(&mut engine, &round, &CONTROL_NONCES);
        assert_far(mistake, from_golden(artifacts).into_iter());
    }
    let prover = Prover::new(&engine, right.clone(), None).unwrap();
    let ascending: Vec<f64> = CONTROL_NONCES
        .iter()
        .zip(&golden)
        .map(|(&nonce, golden)| {
            let hidden = prover.hidden_states(&mut engine, &[nonce]).unwrap().remove(0);
            l2(&read_out_ascending(&right.identity, nonce, &hidden), &golden.vector)
        })
        .collect();
    assert_far("picks in ascending order", ascending.into_iter());
    drop(prover);
    drop(engine);

    let of = |kind| {
        let mut engine = load(&Requantised::of(&file, kind));
        from_golden(prove(&mut engine, &right, &CONTROL_NONCES))
    };
    assert_far("weights in 4 bits once more", of(TensorType::Q4_0).into_iter());
    let halves = of(TensorType::F16);
    let mean = halves.iter().sum::<f64>() / halves.len() as f64;
    println!("{}: weights in halves, mean L2 {mean:.1e}", name(gpu));
    assert!(mean <= 0.01 && halves.iter().all(|l2| *l2 <= 0.02), "{halves:?}");
}

#[test]
fn the_real_model_proves_like_the_network() {
    gpus().iter().for_each(proves_like_the_network);
}

fn proves_like_the_network(gpu: &Arc<Gpu>) {
    let table = vectors("poc/e2e_smollm2.json");
    let mut engine = load(gpu, &smollm2());
    let mut ascending = Vec::new();
    for run in table["runs"].as_array().unwrap() {
        let round = round(&table, run);
        let mut golden = run["artifacts"].as_array().unwrap().as_slice();
        if std::env::var_os("ROADBED_PROVE_ALL").is_none() {
            golden = &golden[..everyday_nonces(round.seq_len)];
        }
        if golden.is_empty() {
            continue;
        }
        let prover = Prover::new(&engine, round.clone(), None).unwrap();
        let begun = std::time::Instant::now();
        for (golden, nonce) in golden.iter().zip(nonces(golden)) {
            let hidden = prover.hidden_states(&mut engine, &[nonce]).unwrap().remove(0);
            let artifact = Artifact::read_out(&round.identity, nonce, &hidden, K_DIM).unwrap();
            let (exact, sent) = distances(&artifact, golden);
            let (adapter, seq_len) = (name(gpu), round.seq_len);
            println!(
                "{adapter}: seq_len {seq_len} stronger {} nonce {nonce}: L2 {exact:.1e}, as sent {sent:.1e}",
                round.stronger_rng
            );
            assert!(sent <= 0.001, "{adapter}: seq_len {seq_len} nonce {nonce}: {sent}");
            let wrong = read_out_ascending(&round.identity, nonce, &hidden);
            ascending.push(l2(&wrong, &reals(&golden["vector_f32"])));
        }
        println!("{:.2?} per nonce", begun.elapsed() / golden.len() as u32);
    }
    assert_far("picks in ascending order", ascending.into_iter());
}

fn nonces(golden: &[Value]) -> Vec<u32> {
    golden.iter().map(|artifact| artifact["nonce"].as_u64().unwrap() as u32).collect()
}

fn assert_far(mistake: &str, distances: impl Iterator<Item = f64>) {
    let distances: Vec<f64> = distances.collect();
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    println!("{mistake}: mean L2 {mean:.2}");
    assert!(mean >= 0.3, "{mistake}: mean {mean}, would pass for honest");
}

/// The read-out of an implementation that lists the picked dimensions by index.
fn read_out_ascending(identity: &Identity, nonce: u32, hidden: &[f32]) -> Vec<f32> {
    let mut indices = pick(identity.pick_seed(nonce, K_DIM), hidden.len() as u32, K_DIM);
    indices.sort_unstable();
    let mut x: Vec<f64> = indices.into_iter().map(|index| f64::from(hidden[index])).collect();
    haar_rotate(identity, nonce, &mut x);
    let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    x.into_iter().map(|x| (x / length) as f32).collect()
}

#[test]
fn a_stop_ends_a_request_before_the_next_pass() {
    let table = vectors("poc/tiny_e2e.json");
    let folder = tempfile::tempdir().unwrap();
    let mut engine = load(&gpus()[0], &TinyModel::from_vectors(&table["models"][0]).write(&folder));
    let round = round(&table, &table["models"][0]["poc"][0]);
    let nonces: Vec<u32> = (0..200).collect();
    let stop = AtomicBool::new(false);
    let request = ProofRequest { round: round.clone(), nonces };
    let summary = compute_artifacts(&mut engine, &request, &stop, &mut |_| {
        stop.store(true, Ordering::Relaxed)
    })
    .unwrap();
    assert!(!summary.complete);
    assert!((1..200).contains(&summary.artifacts));

    for (seq_len, k_dim) in [(0, K_DIM), (1 << 20, K_DIM), (4, 0), (4, 65)] {
        let impossible = Round { seq_len, k_dim, ..round.clone() };
        assert!(matches!(Prover::new(&engine, impossible, None), Err(PocError::Request(_))));
    }
}
