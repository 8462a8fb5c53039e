//! The scheme DECODE end to end: the engine's cached steps against a reference that reads everything anew at each step.
//!
//! The codebook of these tests is a rebuilt one, which is near the network's and not the network's; what is held
//! against each other here is the way of the steps, not the points.

use std::sync::Arc;

use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::llm::Architecture;
use roadbed_compute::poc::codebook::{POINTS, SPHERE_DIMS};
use roadbed_compute::poc::inputs::InputStreams;
use roadbed_compute::poc::reflection::layer_vectors;
use roadbed_compute::poc::steps::{ForcedExperts, NonceSteps};
use roadbed_compute::poc::{
    Artifact, Codebook, Comparison, DecodeRefusal, DecodeTerms, Identity, PocError, Prover, Round,
    Scheme, StatTest, judge_trajectories,
};
use roadbed_compute::reference::model::{Cache, ReferenceModel};
use roadbed_compute::{AdapterChoice, Card, Engine, EngineOptions, GenerateRequest, Gpu};
use serde_json::json;

use crate::adapters;
use crate::models::vectors;
use crate::tiny_families::Recipe;
use crate::tiny_models::TinyModel;

const SEQ_LEN: usize = 9;
const STEPS: usize = 6;
/// Below this, rounding may choose between two points; the network judges by 0.025 and more.
const CLOSE_CALL: f64 = 1e-3;

/// Wide enough that 256 dimensions are a choice.
fn model(hidden: usize) -> GgufFile {
    let config = json!({
        "num_hidden_layers": 2, "hidden_size": hidden, "intermediate_size": 384,
        "num_attention_heads": hidden / 64, "num_key_value_heads": 1, "vocab_size": 64,
        "rope_theta": 10000.0, "tie_word_embeddings": true,
    });
    let folder = tempfile::tempdir().unwrap();
    let tiny = TinyModel::from_vectors(&json!({"tag": format!("wide{hidden}"), "config": config}));
    GgufFile::open(&tiny.write(&folder)).unwrap()
}

fn load(gpu: &Arc<Gpu>, file: &GgufFile) -> Engine {
    let options = EngineOptions { context_tokens: Some(128), ..EngineOptions::default() };
    Engine::load_file(file, "wide", Arc::clone(gpu), &options).unwrap()
}

fn round() -> Round {
    Round {
        identity: Identity { block_hash: "PARITY".into(), public_key: "pk".into() },
        seq_len: SEQ_LEN,
        k_dim: 12,
        // This scheme has the plain generator whatever this says.
        stronger_rng: true,
        scheme: Scheme::Decode(DecodeTerms { max_tokens: STEPS }),
    }
}

/// The rebuilt points, `[POINTS][SPHERE_DIMS]`.
fn points() -> Vec<Vec<f32>> {
    let rebuilt = vectors("poc/sphere_codebook_rebuilt.json");
    let row = |row: &serde_json::Value| {
        row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    let rows: Vec<Vec<f32>> = rebuilt["rows"].as_array().unwrap().iter().map(row).collect();
    assert!(rows.len() == POINTS && rows.iter().all(|row| row.len() == SPHERE_DIMS));
    rows
}

fn codebook() -> Arc<Codebook> {
    Arc::new(Codebook::not_the_networks(points().concat()).unwrap())
}

/// Who decides which experts a row meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Routing {
    /// The scheme.
    Forced,
    /// The model's own router: wrong in this scheme.
    Chosen,
}

/// The first expert of every row of a sequence, in each layer.
fn firsts(reference: &ReferenceModel, nonce: u32, rows: usize) -> Vec<Vec<u32>> {
    let Some(experts) = reference.config.experts else { return vec![] };
    let layers = reference.config.layers;
    let forced = ForcedExperts::new(&round().identity, nonce, layers, experts.count as u32);
    let steps: Vec<Vec<u32>> =
        (0..rows).map(|row| forced.firsts((row + 1).saturating_sub(SEQ_LEN) as u32)).collect();
    (0..layers).map(|layer| steps.iter().map(|step| step[layer]).collect()).collect()
}

/// A trajectory with nothing kept from step to step, and the margin of every point.
fn walk(reference: &ReferenceModel, nonce: u32, routing: Routing) -> Vec<(u8, f64)> {
    let Round { identity, .. } = round();
    let (dim, layers) = (reference.config.hidden, reference.config.layers);
    let units = layer_vectors(&identity, layers, dim as u32);
    let steps = NonceSteps::new(&identity, nonce);
    let mut rows = InputStreams::new(&identity, nonce, (SEQ_LEN * dim) as u32, false).generate();
    let mut walked: Vec<(u8, f64)> = vec![];
    for step in 0..=STEPS as u32 {
        let picked = match walked.last() {
            None => steps.first_pick(dim as u32),
            Some((before, _)) => {
                rows.extend(steps.input(step, *before, dim as u32).generate());
                steps.pick(step, *before, dim as u32)
            }
        };
        let firsts = match routing {
            Routing::Forced => firsts(reference, nonce, rows.len() / dim),
            Routing::Chosen => vec![],
        };
        let mut cache = Cache::default();
        let hidden = reference.forward_routed(rows.clone(), &mut cache, &units, &firsts);
        let last = &hidden[hidden.len() - dim..];
        let query: Vec<f64> = picked.iter().map(|&index| f64::from(last[index])).collect();
        let length = query.iter().map(|q| q * q).sum::<f64>().sqrt();
        let score = |point: Vec<f32>| {
            point.iter().zip(&query).map(|(c, q)| f64::from(*c) * q).sum::<f64>() / length
        };
        let mut scores: Vec<(f64, u8)> = points().into_iter().map(score).zip(0..).collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        walked.push((scores[0].1, scores[0].0 - scores[1].0));
    }
    walked
}

fn proved(artifacts: Vec<Option<Artifact>>) -> Vec<Artifact> {
    artifacts.into_iter().map(Option::unwrap).collect()
}

#[test]
fn trajectories_are_the_references_and_a_claim_is_compared_step_by_step() {
    let file = model(320);
    let reference = ReferenceModel::from_source(&file, 64).unwrap();
    let nonces = [7, 8, 1_000_003];
    let walks: Vec<Vec<(u8, f64)>> =
        nonces.iter().map(|&nonce| walk(&reference, nonce, Routing::Forced)).collect();
    let expected: Vec<Vec<u8>> =
        walks.iter().map(|walk| walk.iter().map(|(point, _)| *point).collect()).collect();
    let closest = walks.iter().flatten().map(|(_, margin)| *margin).fold(f64::MAX, f64::min);
    assert!(closest > CLOSE_CALL, "choose other nonces: {closest} apart");
    for gpu in adapters::all() {
        let mut engine = load(gpu, &file);
        let prover = Prover::new(&engine, round(), Some(&codebook())).unwrap();
        assert!(prover.pass_nonces() >= nonces.len());
        let together = proved(prover.prove(&mut engine, &nonces).unwrap());
        for ((artifact, nonce), expected) in together.iter().zip(nonces).zip(&expected) {
            assert_eq!((artifact.nonce, &artifact.points), (nonce, expected));
            assert!(artifact.vector_b64.is_empty() && artifact.comparison.is_none());
        }
        let alone = proved(prover.prove(&mut engine, &nonces[1..2]).unwrap());
        assert_eq!(alone, together[1..2]);

        // Our own trajectory, then one that goes elsewhere at its third step, then another nonce's.
        let mut bent = expected[1].clone();
        bent[2] = (bent[2] + 1) % POINTS as u8;
        let claimed = [(7, &*expected[0]), (8, &*bent), (1_000_003, &*expected[0])];
        let compared = proved(prover.compare(&mut engine, &claimed).unwrap());
        let of = |at: usize| compared[at].comparison.unwrap();
        assert_eq!(of(0), Comparison { steps: STEPS + 1, ..Comparison::default() });
        assert_eq!(compared[0].points, expected[0]);
        assert!(of(1).claimed_margin_max > CLOSE_CALL && of(1).disagreeing >= 1);
        // Everything behind the third step goes on from the claimed point.
        assert_eq!(compared[1].points[..3], expected[1][..3]);
        assert!(of(2).disagreeing > STEPS / 2, "{:?}", of(2));
        let test = StatTest { dist_threshold: 0.025, p_mismatch: 0.1, fraud_threshold: 0.05 };
        let verdict = |count: usize| {
            let compared: Vec<_> = (0..count).map(|at| (nonces[at], Some(of(at)))).collect();
            judge_trajectories(&compared, Default::default(), test)
        };
        assert!(!verdict(1).fraud_detected);
        assert_eq!(verdict(3).mismatch_nonces.last(), Some(&1_000_003));

        let short = prover.compare(&mut engine, &[(7, &expected[0][1..])]).unwrap();
        assert_eq!(proved(short)[0].comparison, Some(Comparison::MALFORMED));
        let nothing = prover.compare(&mut engine, &[(7, &[])]);
        assert!(matches!(nothing, Err(PocError::Request(_))));
    }
}

#[test]
fn experts_are_forced_on_one_card_or_two_and_chats_may_come_between_steps() {
    let mut recipe = Recipe::of(Architecture::Qwen3Moe, TensorType::Q4K);
    recipe.layers = 3;
    let file = GgufFile::from_bytes(recipe.files().0).unwrap();
    let reference = ReferenceModel::from_source(&file, 64).unwrap();
    let points = |walk: Vec<(u8, f64)>| -> Vec<u8> { walk.into_iter().map(|(p, _)| p).collect() };
    // Nonces without a close call.
    let clear = |nonce: u32| {
        let walk = walk(&reference, nonce, Routing::Forced);
        walk.iter().all(|(_, margin)| *margin > CLOSE_CALL).then(|| (nonce, points(walk)))
    };
    let (nonces, expected): (Vec<u32>, Vec<Vec<u8>>) = (1..20).filter_map(clear).take(3).unzip();
    assert_eq!(nonces.len(), 3);
    let chosen: Vec<Vec<u8>> =
        nonces.iter().map(|&nonce| points(walk(&reference, nonce, Routing::Chosen))).collect();
    // What the router would do is another model's work, and is found out.
    assert_ne!(expected, chosen);
    for gpu in adapters::all() {
        let again = Gpu::open(&AdapterChoice::Index(gpu.summary().index)).unwrap();
        for gpus in [vec![Arc::clone(gpu)], vec![Arc::clone(gpu), again]] {
            let card = |gpu: &Arc<Gpu>| Card { gpu: Arc::clone(gpu), memory_bytes: None };
            let cards: Vec<Card> = gpus.iter().map(card).collect();
            // Chunks that cut through prefills.
            let options = EngineOptions {
                context_tokens: Some(64),
                chunk_tokens: Some(5),
                ..EngineOptions::default()
            };
            let mut engine = Engine::load_over(&file, "moe", &cards, &options, &|_| ()).unwrap();
            let prover = Prover::new(&engine, round(), Some(&codebook())).unwrap();
            let mut walks = prover.begin(&nonces).unwrap();
            let request = GenerateRequest {
                prompt_ids: vec![1, 2, 3],
                max_tokens: 64,
                ignore_end: true,
                ..GenerateRequest::default()
            };
            engine.admit(request).unwrap();
            let mut passes = 0;
            let together = loop {
                passes += 1;
                engine.step().unwrap();
                if let Some(artifacts) = prover.walk_on(&mut engine, &mut walks).unwrap() {
                    break proved(artifacts);
                }
            };
            assert!(passes > STEPS, "a step is a turn of its own");
            assert_eq!(engine.batch_load().running, 1, "the chat is still under way");
            let found: Vec<Vec<u8>> = together.into_iter().map(|a| a.points).collect();
            assert_eq!(found, expected);
            let claimed: Vec<(u32, &[u8])> =
                nonces.iter().copied().zip(chosen.iter().map(Vec::as_slice)).collect();
            let compared = proved(prover.compare(&mut engine, &claimed).unwrap());
            let margins = compared.iter().map(|a| a.comparison.unwrap().claimed_margin_max);
            assert!(margins.fold(0.0, f64::max) > 0.05, "{compared:?}");
        }
    }
}

#[test]
fn a_round_that_cannot_be_served_is_refused_by_name() {
    let Some(gpu) = adapters::all().first() else { return };
    let refusal = |engine: &Engine, codebook: Option<&Arc<Codebook>>, round| match Prover::new(
        engine, round, codebook,
    )
    .err()
    .unwrap()
    {
        PocError::Unsupported(refusal) => Some(refusal),
        PocError::Request(_) => None,
        other => panic!("{other}"),
    };
    let engine = load(gpu, &model(320));
    assert_eq!(refusal(&engine, None, round()), Some(DecodeRefusal::NoCodebook));
    let scheme = Scheme::Decode(DecodeTerms { max_tokens: 128 });
    assert_eq!(refusal(&engine, Some(&codebook()), Round { scheme, ..round() }), None);
    let narrow = load(gpu, &model(192));
    let refused = refusal(&narrow, Some(&codebook()), round());
    assert_eq!(refused, Some(DecodeRefusal::Narrow { hidden: 192 }));
    let prefill = Round { scheme: Scheme::Prefill, ..round() };
    let prover = Prover::new(&narrow, prefill, None).unwrap();
    let mut narrow = narrow;
    assert!(matches!(prover.compare(&mut narrow, &[(1, &[3])]), Err(PocError::Request(_))));
}
