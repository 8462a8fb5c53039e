//! Tiny models of every family and weight type against logprobs that llama.cpp gave for the same
//! files (`tests/data/llama_cpp/README.md`).

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::llm::Architecture;
use roadbed_compute::reference::model::{Cache, ReferenceModel};
use roadbed_compute::{Engine, EngineOptions, GenerateRequest, Gpu};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::adapters;
use crate::models::{ids, vectors};
use crate::tiny_families::{CONTEXT_TOKENS, Recipe, VOCABULARY};

static GOLDENS: LazyLock<Value> = LazyLock::new(|| vectors("llama_cpp/logprobs.json"));

/// Writes the models where the script that asks llama.cpp finds them.
#[test]
fn models_for_llama_cpp_can_be_written() {
    let Some(folder) = std::env::var_os("ROADBED_WRITE_TINY").map(PathBuf::from) else {
        return;
    };
    for recipe in Recipe::all() {
        let (bytes, dequantised) = recipe.files();
        std::fs::write(folder.join(format!("{}.gguf", recipe.name)), bytes).unwrap();
        std::fs::write(folder.join(format!("{}.dequantised.gguf", recipe.name)), dequantised)
            .unwrap();
    }
}

fn logprobs(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
    logits.iter().map(|l| (f64::from(l - largest) - sum.ln()) as f32).collect()
}

fn reals(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn farthest(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).fold(0.0, |most, (f, w)| most.max((f - w).abs()))
}

/// A recipe's file and what llama.cpp says about it.
struct Case {
    file: GgufFile,
    /// (ids, logprobs) by llama.cpp on f32 weights.
    exact: Vec<(Vec<u32>, Vec<f32>)>,
    /// Logprobs of the longest prompt by llama.cpp on the weights as they are.
    quantised: Option<Vec<f32>>,
}

impl Case {
    fn of(recipe: &Recipe) -> Self {
        let (bytes, _) = recipe.files();
        let golden = &GOLDENS["models"][&recipe.name];
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            golden["sha256"].as_str(),
            Some(digest.as_str()),
            "{}: another file than llama.cpp was asked about; see tests/data/llama_cpp/README.md",
            recipe.name
        );
        let prompt = ids(&GOLDENS["prompt"]);
        let lengths = ids(&GOLDENS["lengths"]);
        let rows = golden["dequantised"].as_array().unwrap();
        Self {
            file: GgufFile::from_bytes(bytes).unwrap(),
            exact: lengths
                .iter()
                .zip(rows)
                .map(|(length, row)| (prompt[..*length as usize].to_vec(), reals(row)))
                .collect(),
            quantised: golden.get("quantised").map(reals),
        }
    }

    fn by_reference(&self) -> Vec<Vec<f32>> {
        let model = ReferenceModel::from_source(&self.file, CONTEXT_TOKENS).unwrap();
        self.exact
            .iter()
            .map(|(ids, _)| {
                let hidden = model.forward(model.embed(ids), &mut Cache::default(), &[]);
                logprobs(&model.logits(&hidden[hidden.len() - model.config.hidden..]))
            })
            .collect()
    }
}

/// Largest accepted difference of a logprob from llama.cpp on f32 weights. Measured: 1.2e-5, but in
/// Gemma, whose gate llama.cpp looks up in a table of f16, 2.3e-3 over 7 layers and 7e-3 over 46;
/// errors of layers add up like steps of a random walk. With such a table here: 6e-6.
fn tolerance(recipe: &Recipe) -> f32 {
    match recipe.architecture {
        Architecture::Llama
        | Architecture::Qwen2
        | Architecture::Qwen3
        | Architecture::Qwen3Moe => 1e-4,
        Architecture::Gemma2 | Architecture::Gemma3 => 2e-3 * (recipe.layers as f32).sqrt(),
    }
}

/// The same from llama.cpp on the weights as they are: it rounds the activations to 8 bits (f16 and
/// bf16 for weights of these types) before it multiplies. Measured: 0.005, 0.05 and 0.17, and 0.26
/// where rounding lets the router choose another expert.
fn rounded_tolerance(recipe: &Recipe) -> f32 {
    match recipe.kind {
        TensorType::F32 => 1e-4,
        TensorType::F16 => 0.01,
        TensorType::Bf16 => 0.1,
        TensorType::Q4_0
        | TensorType::Q4_1
        | TensorType::Q5_0
        | TensorType::Q5_1
        | TensorType::Q8_0
        | TensorType::Q4K
        | TensorType::Q5K
        | TensorType::Q6K
        | TensorType::Mxfp4 => match recipe.architecture.family().experts {
            true => 0.4,
            false => 0.25,
        },
    }
}

/// Largest accepted difference of the GPU's logprobs from our own f32 reference.
const OWN_TOLERANCE: f32 = 5e-5;

#[test]
fn every_family_and_weight_type_speaks_like_llama_cpp() {
    let recipes = Recipe::all();
    let asked = GOLDENS["models"].as_object().unwrap();
    assert_eq!(asked.len(), recipes.len(), "a recipe without an answer, or an answer without one");
    for recipe in recipes {
        let case = Case::of(&recipe);
        let reference = case.by_reference();
        for ((ids, wanted), own) in case.exact.iter().zip(&reference) {
            let far = farthest(own, wanted);
            let most = tolerance(&recipe);
            assert!(far <= most, "{}, {} ids: the reference is {far} off", recipe.name, ids.len());
        }
        if let Some(rounded) = &case.quantised {
            let far = farthest(reference.last().unwrap(), rounded);
            assert!(far <= rounded_tolerance(&recipe), "{}: {far} off", recipe.name);
        }
        for gpu in adapters::all() {
            let plain = recipe.kind == TensorType::F32;
            // Chunks of five cut the prompt inside windows.
            let ways: &[(Method, usize)] = match plain {
                true => &[(Method::Lane, 64), (Method::Group, 64), (Method::Lane, 5)],
                false => &[(Method::of(gpu.is_software()), 64)],
            };
            for (method, chunk) in ways {
                let mut engine = load(gpu, &case.file, *method, *chunk);
                assert_eq!(engine.info().architecture, recipe.architecture.word());
                for ((ids, wanted), own) in case.exact.iter().zip(&reference) {
                    let found = logprobs(&engine.logits(ids).unwrap());
                    let context = format!(
                        "{}, {method:?}, chunks of {chunk}, {} ids",
                        recipe.name,
                        ids.len()
                    );
                    let far = farthest(&found, own);
                    assert!(far <= OWN_TOLERANCE, "{context}: {far} off the reference");
                    let far = farthest(&found, wanted);
                    assert!(far <= tolerance(&recipe), "{context}: {far} off llama.cpp");
                }
            }
        }
    }
}

#[test]
fn every_family_decodes_beyond_its_window_like_the_reference() {
    for architecture in Architecture::ALL {
        let (bytes, _) = Recipe::of(architecture, TensorType::F32).files();
        let file = GgufFile::from_bytes(bytes).unwrap();
        let model = ReferenceModel::from_source(&file, CONTEXT_TOKENS).unwrap();
        for gpu in adapters::all() {
            for method in [Method::Lane, Method::Group] {
                let request = GenerateRequest {
                    prompt_ids: vec![3, 1, 4, 1],
                    max_tokens: 12,
                    ignore_end: true,
                    ..GenerateRequest::default()
                };
                let mut engine = load(gpu, &file, method, 64);
                let answer = engine.generate(&request, &mut |_| ControlFlow::Continue(())).unwrap();
                let all: Vec<u32> = request.prompt_ids.iter().chain(&answer.ids).copied().collect();
                let hidden = model.forward(model.embed(&all), &mut Cache::default(), &[]);
                let rows = model.logits(&hidden);
                for (row, id) in rows.chunks_exact(VOCABULARY).skip(3).zip(&answer.ids) {
                    let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let chosen = row[*id as usize];
                    assert!(
                        best - chosen <= 1e-4,
                        "{architecture:?}, {method:?}: {chosen} of {best}"
                    );
                }
            }
        }
    }
}

fn load(gpu: &Arc<Gpu>, file: &GgufFile, method: Method, chunk: usize) -> Engine {
    let options = EngineOptions {
        context_tokens: Some(CONTEXT_TOKENS),
        chunk_tokens: Some(chunk),
        method: Some(method),
        ..EngineOptions::default()
    };
    Engine::load_file(file, "tiny", Arc::clone(gpu), &options).unwrap()
}
