//! Kernels chosen by trying them out: results stay right, are kept, and bad files do no harm.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::llm::{TunedShape, Tuning};
use roadbed_compute::reference::model::{Cache, ReferenceModel};
use roadbed_compute::{
    AdapterChoice, Engine, EngineOptions, GenerateRequest, Gpu, SequenceEvent, list_adapters,
};

use crate::tiny_language::random_model;

fn load(file: &GgufFile, adapter: usize, folder: &Path, tuning: Tuning) -> Engine {
    let gpu = Gpu::open_keeping(&AdapterChoice::Index(adapter), Some(folder)).unwrap();
    let options = EngineOptions { context_tokens: Some(64), tuning, ..EngineOptions::default() };
    Engine::load_file(file, "tiny", gpu, &options).unwrap()
}

fn shapes(engine: &Engine) -> Vec<TunedShape> {
    engine.tuned_shapes().map(|(_, shape)| shape.clone()).collect()
}

fn request(salt: u32) -> GenerateRequest {
    GenerateRequest {
        prompt_ids: (0..7).map(|i| (i * 11 + salt * 5) % 61).collect(),
        max_tokens: 9,
        ignore_end: true,
        ..GenerateRequest::default()
    }
}

/// Answers alone, then together.
fn check_neighbours(engine: &mut Engine) {
    let alone: Vec<Vec<u32>> = (0..5)
        .map(|salt| {
            engine.generate(&request(salt), &mut |_| ControlFlow::Continue(())).unwrap().ids
        })
        .collect();
    let ids: Vec<_> = (0..5).map(|salt| engine.admit(request(salt)).unwrap()).collect();
    let mut together = vec![Vec::new(); 5];
    let mut open = 5;
    while open > 0 {
        for event in engine.step().unwrap() {
            if let SequenceEvent::Finished { id, generation } = event {
                together[ids.iter().position(|known| *known == id).unwrap()] = generation.ids;
                open -= 1;
            }
        }
    }
    assert_eq!(together, alone);
}

#[test]
fn tuned_engines_agree_with_the_reference_and_keep_what_they_found() {
    let file = random_model(TensorType::Q4_1, false);
    let prompt_ids: Vec<u32> = (0..20).map(|i| i * 7 % 61).collect();
    let reference = ReferenceModel::from_source(&file, 64).unwrap();
    let hidden = reference.forward(reference.embed(&prompt_ids), &mut Cache::default(), &[]);
    let wanted = reference.logits(&hidden[hidden.len() - reference.config.hidden..]);
    let largest = wanted.iter().fold(1.0_f32, |m, l| m.max(l.abs()));
    let check = |engine: &mut Engine| {
        for (found, wanted) in engine.logits(&prompt_ids).unwrap().iter().zip(&wanted) {
            assert!((found - wanted).abs() <= 1e-4 * largest, "{found} is not {wanted}");
        }
    };
    for adapter in list_adapters() {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = load(&file, adapter.index, folder.path(), Tuning::Stored);
        let found = shapes(&engine);
        assert!(!found.is_empty(), "{adapter}");
        check(&mut engine);
        check_neighbours(&mut engine);
        let kept = engine.gpu().store().unwrap().path("tuning.json");
        drop(engine);
        // Times and all: nothing was tried again. What time did not suffice for is tried once more.
        let again = shapes(&load(&file, adapter.index, folder.path(), Tuning::Stored));
        let whole = |shape: &&TunedShape| !shape.kernels.is_empty();
        assert!(found.iter().filter(whole).all(|shape| again.contains(shape)));

        // A choice that is none here is not taken, nor is a file that cannot be read.
        let text = fs::read_to_string(&kept).unwrap();
        let mut foreign: serde_json::Value = serde_json::from_str(&text).unwrap();
        foreign["shapes"].as_array_mut().unwrap().truncate(1);
        foreign["shapes"][0]["decode"]["chosen"]["workgroup"] = 3.into();
        for bad in [foreign.to_string(), text[..text.len() / 2].to_owned()] {
            fs::write(&kept, bad).unwrap();
            let mut engine = load(&file, adapter.index, folder.path(), Tuning::Stored);
            assert!(shapes(&engine).iter().all(|shape| shape.decode.chosen.workgroup != 3));
            check(&mut engine);
        }
        let off = load(&file, adapter.index, folder.path(), Tuning::Off);
        assert_eq!(shapes(&off), []);
    }
}
