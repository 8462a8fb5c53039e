//! Hugging Face folders: the same model as a GGUF file gives the same logits, and bad folders are
//! refused with the reason.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use roadbed_compute::gguf::{GgufFile, TensorType};
use roadbed_compute::llm::{Architecture, LoadProgress};
use roadbed_compute::reference::model::{Cache, ReferenceModel};
use roadbed_compute::safetensors::SafetensorsFolder;
use roadbed_compute::source::{self, WeightSource};
use roadbed_compute::tokenizer::TokenizerError;
use roadbed_compute::{Engine, EngineOptions, Gpu};
use serde_json::json;

use crate::adapters;
use crate::folders::{self, Tensor, TinyFolder, VOCABULARY};

fn prompt() -> Vec<u32> {
    (0..11).map(|i| (i * 7 + 3) % VOCABULARY as u32).collect()
}

fn reference_logits(source: &dyn WeightSource) -> Vec<f32> {
    let model = ReferenceModel::from_source(source, 64).unwrap();
    let rows = model.embed(&prompt());
    let hidden = model.forward(rows, &mut Cache::default(), &[]);
    model.logits(&hidden[hidden.len() - model.config.hidden..])
}

fn engine_logits(source: &dyn WeightSource, gpu: &Arc<Gpu>) -> Vec<f32> {
    let options = EngineOptions { context_tokens: Some(64), ..EngineOptions::default() };
    let mut engine = Engine::load_file(source, "tiny", Arc::clone(gpu), &options).unwrap();
    engine.logits(&prompt()).unwrap()
}

#[test]
fn a_folder_computes_what_its_gguf_file_computes() {
    // Folders keep every expert in a tensor of its own, which is not read.
    for architecture in Architecture::ALL.into_iter().filter(|a| !a.family().experts) {
        for kind in [TensorType::F32, TensorType::F16, TensorType::Bf16] {
            let tiny = TinyFolder::new(architecture, kind);
            let folder = tempfile::tempdir().unwrap();
            if kind == TensorType::F16 {
                tiny.write_shards(folder.path());
            } else {
                tiny.write(folder.path());
            }
            let folder = source::open(folder.path()).unwrap();
            let file = GgufFile::from_bytes(tiny.gguf()).unwrap();
            let (found, wanted) = (reference_logits(&*folder), reference_logits(&file));
            assert!(wanted.iter().all(|logit| logit.is_finite()));
            assert_eq!(found, wanted, "{architecture:?} {kind}");
            // On the GPU weights go row by row; once per family shows all of it.
            if kind == TensorType::Bf16 {
                for gpu in adapters::all() {
                    let what = format!("{architecture:?} on {}", gpu.summary());
                    assert_eq!(engine_logits(&*folder, gpu), engine_logits(&file, gpu), "{what}");
                }
            }
        }
    }
}

#[test]
fn loading_tells_how_far_it_is() {
    let tiny = TinyFolder::new(Architecture::Qwen3, TensorType::F32);
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    let source = source::open(folder.path()).unwrap();
    let total: usize = tiny.tensors.iter().map(|tensor| tensor.data.len()).sum();
    for gpu in adapters::all() {
        let told: RefCell<Vec<LoadProgress>> = RefCell::default();
        let tell = |progress| told.borrow_mut().push(progress);
        let options = EngineOptions::default();
        Engine::load_with_progress(&*source, "tiny", Arc::clone(gpu), &options, &tell).unwrap();
        let told = told.into_inner();
        let weights: Vec<(u64, u64)> = told
            .iter()
            .filter_map(|progress| match progress {
                LoadProgress::Weights { done_bytes, total_bytes } => {
                    Some((*done_bytes, *total_bytes))
                }
                LoadProgress::Kernels { .. } | LoadProgress::Tuning { .. } => None,
            })
            .collect();
        assert!(weights.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(weights.last(), Some(&(total as u64, total as u64)));
    }
}

#[test]
fn a_folder_brings_its_tokenizer_and_template() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: String| std::fs::write(folder.path().join(file), text).unwrap();
    TinyFolder::new(Architecture::Qwen2, TensorType::F32).write(folder.path());
    let open = || source::open(folder.path()).unwrap();
    let template =
        || open().metadata().string("tokenizer.chat_template").unwrap().map(str::to_owned);
    assert!(matches!(open().tokenizer(), Err(TokenizerError::Missing)));
    assert_eq!(template(), None);

    let special = |id: u32, name: &str| {
        json!({ "id": id, "content": name, "special": true, "normalized": false,
                "lstrip": false, "rstrip": false, "single_word": false })
    };
    let tokenizer = json!({
        "added_tokens": [special(3, "<end>"), special(4, "<stop>")],
        "normalizer": null, "post_processor": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
        "decoder": { "type": "ByteLevel" },
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": ["a b"] },
    });
    write("tokenizer.json", tokenizer.to_string());
    write("generation_config.json", json!({ "eos_token_id": [4] }).to_string());
    let named = json!([{ "name": "rag", "template": "r" }, { "name": "default", "template": "d" }]);
    let config = json!({ "eos_token": "<end>", "chat_template": named });
    write("tokenizer_config.json", config.to_string());
    let read = open().tokenizer().unwrap();
    assert_eq!(read.encode("aab<stop>").unwrap(), [0, 2, 4]);
    assert_eq!([2, 3, 4].map(|id| read.is_end(id)), [false, true, true]);
    assert_eq!(template().as_deref(), Some("d"));
    write("chat_template.jinja", "j".to_owned());
    assert_eq!(template().as_deref(), Some("j"));

    write("generation_config.json", "[".to_owned());
    refuses(folder.path(), &["generation_config.json"]);
}

fn refusal(folder: &Path) -> String {
    SafetensorsFolder::open(folder).map(|_| ()).unwrap_err().to_string()
}

#[track_caller]
fn refuses(folder: &Path, words: &[&str]) {
    let error = refusal(folder);
    for word in words {
        assert!(error.contains(word), "{error}: no '{word}'");
    }
}

#[test]
fn bad_folders_are_refused_with_the_reason() {
    let tiny = TinyFolder::new(Architecture::Llama, TensorType::F32);
    let fresh = || tempfile::tempdir().unwrap();

    let folder = fresh();
    refuses(folder.path(), &["config.json", "missing"]);
    tiny.write_config(folder.path());
    refuses(folder.path(), &["model.safetensors"]);
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    refuses(folder.path(), &["config.json"]);

    // Shards: missing, named in another folder, holding what the index does not know.
    let folder = fresh();
    let index = tiny.write_shards(folder.path());
    let second = folder.path().join("model-00002-of-00002.safetensors");
    for trick in [
        "../evil.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
        "x.bin",
        "c:x.safetensors",
        "a\\b.safetensors",
    ] {
        let mut bad = index.clone();
        bad["weight_map"]["lm_head.weight"] = json!(trick);
        folders::write_index(folder.path(), &bad);
        refuses(folder.path(), &["is no safetensors file of this folder"]);
    }
    let mut bad = index.clone();
    bad["weight_map"].as_object_mut().unwrap().remove("lm_head.weight");
    folders::write_index(folder.path(), &bad);
    refuses(folder.path(), &["lm_head.weight", "index"]);
    let mut bad = index.clone();
    bad["weight_map"]["model.extra"] = json!("model-00002-of-00002.safetensors");
    folders::write_index(folder.path(), &bad);
    refuses(folder.path(), &["names"]);
    folders::write_index(folder.path(), &index);
    assert!(SafetensorsFolder::open(folder.path()).is_ok());
    std::fs::remove_file(&second).unwrap();
    refuses(folder.path(), &["model-00002-of-00002.safetensors"]);

    // Tensors of types that are no weights, of odd shapes, twice.
    let with = |change: &dyn Fn(&mut Vec<Tensor>)| {
        let folder = fresh();
        tiny.write_config(folder.path());
        let mut tensors = tiny.tensors.clone();
        change(&mut tensors);
        let data = folders::safetensors(&tensors);
        std::fs::write(folder.path().join("model.safetensors"), data).unwrap();
        folder
    };
    refuses(with(&|t| t[0].dtype = "I32").path(), &["model.embed_tokens.weight", "dtype I32"]);
    refuses(with(&|t| t[0].dtype = "F64").path(), &["offsets"]);
    refuses(with(&|t| t[0].dtype = "Q7").path(), &["unknown dtype Q7"]);
    refuses(with(&|t| t[0].shape = vec![50, 8, 8]).path(), &["3 dimensions"]);
    refuses(with(&|t| t[0].shape = vec![usize::MAX, 2]).path(), &["overflows"]);
    refuses(with(&|t| t[4].name = "model.vision.weight".to_owned()).path(), &["no such tensor"]);
    refuses(with(&|t| t[4].name = "blk.0.attn_q.weight".to_owned()).path(), &["no such tensor"]);
    // A matrix of another shape is refused where all models are.
    let folder = with(&|t| t[1].shape = vec![32, 2]);
    let source = source::open(folder.path()).unwrap();
    let error = ReferenceModel::from_source(&*source, 8).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("output_norm.weight"), "{error}");
}

#[test]
fn headers_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    TinyFolder::new(Architecture::Llama, TensorType::F32).write_config(folder.path());
    let refuses_file = |bytes: &[u8], words: &[&str]| {
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        refuses(folder.path(), words);
    };
    let two = |first: [u64; 2], second: [u64; 2]| {
        let entry = |offsets| json!({ "dtype": "F32", "shape": [2], "data_offsets": offsets });
        folders::with_header(
            &json!({ "a": entry(first), "b": entry(second) }).to_string(),
            &[0; 16],
        )
    };
    refuses_file(&[], &["too short"]);
    refuses_file(&u64::MAX.to_le_bytes(), &["header of"]);
    refuses_file(&folders::with_header("[]", &[]), &["header"]);
    refuses_file(&folders::with_header(r#"{"a":{}}"#, &[]), &["header"]);
    refuses_file(&two([0, 8], [4, 12]), &["overlaps"]);
    refuses_file(&two([0, 8], [0, 8]), &["overlaps"]);
    refuses_file(&two([0, 8], [12, 20]), &["gap"]);
    refuses_file(&two([8, 16], [16, 24]), &["gap"]);
    refuses_file(&two([8, 0], [8, 16]), &["offsets"]);
    refuses_file(&two([0, 8], [8, 16])[..130], &["reaches"]);
    let entry = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let twice = format!(r#"{{"a":{entry},"a":{entry}}}"#);
    refuses_file(&folders::with_header(&twice, &[0; 8]), &["appears twice"]);
    let one = format!(r#"{{"a":{entry}}}"#);
    refuses_file(&folders::with_header(&one, &[0; 12]), &["belong to none"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn mutated_folders_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let tensors = [
            Tensor { name: "model.norm.weight".to_owned(), dtype: "F32", shape: vec![4], data: vec![0; 16] },
            Tensor { name: "model.embed_tokens.weight".to_owned(), dtype: "BF16", shape: vec![3, 2], data: vec![0; 12] },
        ];
        let folder = tempfile::tempdir().unwrap();
        TinyFolder::config_only(Architecture::Llama, folder.path());
        let mut bytes = folders::safetensors(&tensors);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        if let Ok(open) = SafetensorsFolder::open(folder.path()) {
            for entry in open.entries().values() {
                prop_assert_eq!(open.weights(entry).len(), entry.rows * entry.columns);
                for row in 0..entry.rows {
                    prop_assert_eq!(open.row(entry, row).len(), entry.row_bytes());
                }
            }
        }
    }
}
