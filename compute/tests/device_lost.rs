//! A device that goes away: every call says so with a typed error, nothing hangs or panics, and a model loaded anew
//! answers as before. `wgpu::Device::destroy` is the nearest thing to a driver reset that can be had on purpose.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use roadbed_compute::gguf::GgufFile;
use roadbed_compute::{AdapterChoice, Engine, EngineOptions, GenerateRequest, Gpu};

use crate::adapters;
use crate::models::vectors;
use crate::tiny_models::TinyModel;

fn open(path: &Path, adapter: usize) -> Engine {
    let file = GgufFile::open(path).unwrap();
    let gpu = Gpu::open(&AdapterChoice::Index(adapter)).unwrap();
    Engine::load_file(&file, "tiny", gpu, &EngineOptions::default()).unwrap()
}

fn request() -> GenerateRequest {
    GenerateRequest {
        prompt_ids: vec![1, 2, 3],
        max_tokens: 8,
        ignore_end: true,
        ..GenerateRequest::default()
    }
}

fn answer(engine: &mut Engine) -> Vec<u32> {
    engine.generate(&request(), &mut |_| ControlFlow::Continue(())).unwrap().ids
}

#[test]
fn a_lost_device_is_told_and_a_new_one_answers_the_same() {
    let vectors = vectors("poc/tiny_e2e.json");
    let folder = tempfile::tempdir().unwrap();
    let path = TinyModel::from_vectors(&vectors["models"][0]).write(&folder);
    for gpu in adapters::all() {
        let adapter = gpu.summary().index;
        let mut engine = open(&path, adapter);
        let expected = answer(&mut engine);
        assert!(engine.health().is_ok());

        // In the middle of an answer.
        let device = Arc::clone(engine.gpu());
        let lost = engine.generate(&request(), &mut |event| {
            if event.index == 2 {
                device.device().destroy();
            }
            ControlFlow::Continue(())
        });
        let error = lost.unwrap_err();
        assert!(error.is_device_lost(), "{error}");
        let error = engine.health().unwrap_err();
        assert!(error.is_device_lost() && error.to_string().contains("loaded again"), "{error}");

        // Everything after that says the same, at once.
        let refused = engine.generate(&request(), &mut |_| ControlFlow::Continue(()));
        assert!(refused.unwrap_err().is_device_lost());
        assert!(engine.score(&[1, 2], &[3], 1).unwrap_err().is_device_lost());
        let reload = Engine::load_file(
            &GgufFile::open(&path).unwrap(),
            "tiny",
            device,
            &EngineOptions::default(),
        );
        assert!(reload.is_err_and(|error| error.is_device_lost()));
        drop(engine);

        assert_eq!(answer(&mut open(&path, adapter)), expected);
    }
}
