//! Encoders: embeddings against those of transformers and sentence-transformers, and what is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use roadbed_compute::embedding::EncoderConfig;
use roadbed_compute::gguf::TensorType;
use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::kernels::llm::Method;
use roadbed_compute::{Encoder, EncoderOptions, Gpu, source};
use serde_json::{Value, json};

use crate::adapters;
use crate::folders::safetensors;
use crate::kernels_equal::METHODS;
use crate::models::vectors;
use crate::tiny_encoders::{self, Recipe, VOCABULARY, texts};

/// f32 sums in another order than torch's, of embeddings as large as 2.6: measured 9.1e-7 of that on lavapipe.
const TOLERANCE: f32 = 1e-5;

fn load(folder: &Path, gpu: &Arc<Gpu>, method: Method) -> Result<Encoder, String> {
    let file = source::open(folder).map_err(|error| error.to_string())?;
    // Short passes, so that texts are spread over several.
    let options =
        EncoderOptions { pass_tokens: Some(48), method: Some(method), ..EncoderOptions::default() };
    Encoder::load_file(&*file, "tiny", Arc::clone(gpu), &options, &|_| ())
        .map_err(|error| error.to_string())
}

/// With `ROADBED_WRITE_ENCODERS` set to a folder, the models and texts are written there for
/// `tests/peers/embeddings_goldens.py`.
#[test]
fn tiny_encoders_can_be_written() {
    let Some(root) = std::env::var_os("ROADBED_WRITE_ENCODERS").map(PathBuf::from) else { return };
    for recipe in tiny_encoders::all() {
        let folder = root.join(recipe.name);
        std::fs::create_dir_all(&folder).unwrap();
        recipe.write(&folder);
        std::fs::write(folder.join("texts.json"), json!(texts(&recipe)).to_string()).unwrap();
    }
}

#[test]
fn embeddings_are_those_of_transformers() {
    let goldens = vectors("embeddings/goldens.json");
    for recipe in tiny_encoders::all() {
        let folder = tempfile::tempdir().unwrap();
        recipe.write(folder.path());
        let golden = &goldens["models"][recipe.name];
        let texts = texts(&recipe);
        assert_eq!(
            golden["texts"],
            json!(texts),
            "{}: the goldens are about other texts",
            recipe.name
        );
        let expected: Vec<Vec<f32>> = serde_json::from_value(golden["embeddings"].clone()).unwrap();
        for gpu in adapters::all() {
            for method in METHODS {
                let mut encoder = load(folder.path(), gpu, method).unwrap();
                let found = encoder.embed(&texts).unwrap();
                assert_eq!(found.len(), expected.len());
                for (text, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let scale = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
                    let worst =
                        found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
                    let what =
                        format!("{} text {text} {method:?} on {}", recipe.name, gpu.summary());
                    assert_eq!(found.len(), expected.len(), "{what}");
                    assert!(worst <= TOLERANCE * scale, "{what}: {worst} off, of {scale}");
                }
                // Alone and among others: the same to the last bit.
                for (text, together) in texts.iter().zip(&found) {
                    assert_eq!(&encoder.pass(&[text]).unwrap()[0], together, "{}", recipe.name);
                }
            }
        }
    }
}

#[test]
fn a_gguf_file_embeds_as_its_folder() {
    // Files of llama.cpp's say cls by a number, and leave gelu and unit length to whoever reads them.
    let recipe = &tiny_encoders::all()[0];
    let folder = tempfile::tempdir().unwrap();
    recipe.write(folder.path());
    let source = source::open(folder.path()).unwrap();
    let mut file = GgufWriter::default();
    file.field("general.architecture", &Field::Text("bert"));
    for (key, value) in [
        ("block_count", recipe.layers),
        ("embedding_length", recipe.hidden),
        ("feed_forward_length", recipe.ffn),
        ("attention.head_count", recipe.heads),
        ("context_length", recipe.tokens),
        ("pooling_type", 2),
    ] {
        file.field(&format!("bert.{key}"), &Field::U32(value as u32));
    }
    file.field("bert.attention.layer_norm_epsilon", &Field::F32(1e-12));
    for (name, entry) in source.entries() {
        file.tensor(name, TensorType::F32, entry.columns, &source.weights(entry)).unwrap();
    }
    let path = folder.path().join("encoder.gguf");
    std::fs::write(&path, file.finish()).unwrap();
    for gpu in adapters::all() {
        let method = Method::of(gpu.is_software());
        let embed = |path: &Path| load(path, gpu, method).unwrap().embed(&texts(recipe)).unwrap();
        assert_eq!(embed(&path), embed(folder.path()));
    }
}

#[test]
fn passes_are_bounded_and_bad_ids_refused() {
    let recipe = &tiny_encoders::all()[0];
    let folder = tempfile::tempdir().unwrap();
    recipe.write(folder.path());
    for gpu in adapters::all() {
        let mut encoder = load(folder.path(), gpu, Method::of(gpu.is_software())).unwrap();
        assert_eq!(encoder.fitting([20, 20, 8, 1]), 3);
        assert_eq!(encoder.fitting([1; 300]), 48);
        assert!(encoder.pass(&[]).unwrap().is_empty());
        let mut refused = |ids: &[u32], words: &str| {
            let error = encoder.pass(&[&[2], ids]).unwrap_err();
            assert!(error.is_callers_fault() && error.to_string().contains(words), "{error}");
        };
        refused(&[], "no tokens");
        refused(&[VOCABULARY as u32], "not below 60");
        refused(&[3; 41], "41 tokens do not fit");
        let crowd: Vec<&[u32]> = vec![&[2; 20]; 3];
        assert!(encoder.pass(&crowd).unwrap_err().is_callers_fault());
        let memory = EncoderOptions { memory_bytes: Some(1000), ..EncoderOptions::default() };
        let file = source::open(folder.path()).unwrap();
        let error = Encoder::load_file(&*file, "tiny", Arc::clone(gpu), &memory, &|_| ());
        assert!(error.err().unwrap().to_string().contains("more than the 1000"));
    }
}

#[test]
fn texts_are_framed_cut_and_lower_cased() {
    let recipe = &tiny_encoders::all()[0];
    let folder = tempfile::tempdir().unwrap();
    recipe.write(folder.path());
    let special = |id: u32, name: &str| {
        json!({ "id": id, "content": name, "special": true, "normalized": false,
                "lstrip": false, "rstrip": false, "single_word": false })
    };
    let bert = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let tokenizer = json!({
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": { "type": "BertNormalizer", "lowercase": false },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing", "single": [
            bert("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, bert("[SEP]")] },
        "decoder": { "type": "WordPiece" },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "vocab": { "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "road": 4, "##bed": 5 } },
    });
    let write = |file: &str, text: Value| {
        std::fs::write(folder.path().join(file), text.to_string()).unwrap();
    };
    write("tokenizer.json", tokenizer);
    write("sentence_bert_config.json", json!({ "max_seq_length": 12, "do_lower_case": true }));
    for gpu in adapters::all() {
        let mut encoder = load(folder.path(), gpu, Method::of(gpu.is_software())).unwrap();
        assert_eq!(encoder.info().config.tokens_max, 12);
        let mut ids = encoder.tokenize("Roadbed road?").unwrap();
        assert_eq!(ids, [2, 4, 5, 4, 1, 3]);
        encoder.truncate(&mut ids, 6);
        assert_eq!(ids.len(), 6);
        encoder.truncate(&mut ids, 4);
        assert_eq!(ids, [2, 4, 5, 3]);
        assert_eq!(encoder.tokenize("").unwrap(), [2, 3]);
        assert_eq!(encoder.embed(&[vec![2, 3], ids]).unwrap().len(), 2);
    }
}

/// What comes of a folder whose files were changed.
fn spoiled(change: impl FnOnce(&mut Recipe, &Path)) -> Result<EncoderConfig, String> {
    let mut recipe = tiny_encoders::all().remove(0);
    let folder = tempfile::tempdir().unwrap();
    recipe.write(folder.path());
    change(&mut recipe, folder.path());
    let file = source::open(folder.path()).map_err(|error| error.to_string())?;
    EncoderConfig::from_source(&*file).map_err(|error| error.to_string())
}

fn with_config(changes: &Value) -> Result<EncoderConfig, String> {
    spoiled(|recipe, folder| {
        let mut config = recipe.config();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    })
}

#[test]
fn claims_that_cannot_be_met_are_refused_by_name() {
    let cases = [
        (json!({ "hidden_size": u64::MAX }), "hidden size"),
        (json!({ "hidden_size": 0 }), "hidden size is 0"),
        (json!({ "hidden_size": 96 }), "expected"),
        (json!({ "num_hidden_layers": 1_000_000_000 }), "layer count"),
        (json!({ "num_hidden_layers": 1 }), "blk.1."),
        (json!({ "num_hidden_layers": 3 }), "blk.2."),
        (json!({ "num_attention_heads": 0 }), "number of heads is 0"),
        (json!({ "num_attention_heads": 3 }), "do not share 64"),
        (json!({ "num_attention_heads": 64 }), "head size is 1"),
        (json!({ "intermediate_size": 100 }), "feed-forward size is 100"),
        (json!({ "intermediate_size": -1 }), "-1"),
        (json!({ "max_position_embeddings": 0 }), "number of positions is 0"),
        (json!({ "layer_norm_eps": -1.0 }), "epsilon is -1"),
        (json!({ "hidden_act": "mish" }), "activation 'mish'"),
        (json!({ "position_embedding_type": "relative_key" }), "relative_key"),
        (json!({ "is_decoder": true }), "is_decoder"),
        (json!({ "embedding_size": 32 }), "embedding_size"),
        (json!({ "quantization_config": {} }), "quantization_config"),
        (json!({ "model_type": "mpnet" }), "mpnet"),
    ];
    for (changes, words) in cases {
        let error = with_config(&changes).unwrap_err();
        assert!(error.contains(words), "{changes}: {error}");
    }
    // Claims that only promise more than the tables have: the tables count.
    assert_eq!(
        with_config(&json!({ "max_position_embeddings": 1_u64 << 40 })).unwrap().tokens_max,
        40
    );
    assert!(with_config(&json!({ "vocab_size": 1_u64 << 40 })).is_ok());
}

#[test]
fn modules_that_are_not_known_are_refused_by_name() {
    let file = |name: &'static str, text: &'static str| {
        spoiled(move |_, folder| std::fs::write(folder.join(name), text).unwrap()).unwrap_err()
    };
    let cases = [
        ("modules.json", "[", "modules.json"),
        ("modules.json", "[]", "no pooling module"),
        ("modules.json", r#"[{"path": "", "type": "a.CLIPModel"}]"#, "CLIPModel"),
        ("modules.json", r#"[{"path": "x", "type": "Transformer"}]"#, "a folder of its own"),
        (
            "modules.json",
            r#"[{"path": "", "type": "Transformer"}, {"path": "../x", "type": "Pooling"}]"#,
            "leads elsewhere",
        ),
        (
            "modules.json",
            r#"[{"path": "", "type": "Transformer"}, {"path": "9", "type": "Pooling"}]"#,
            "missing",
        ),
        ("1_Pooling/config.json", r#"{"pooling_mode_lasttoken": true}"#, "lasttoken"),
        (
            "1_Pooling/config.json",
            r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#,
            "pooling by",
        ),
        ("1_Pooling/config.json", "7", "no object"),
        ("sentence_bert_config.json", "{", "sentence_bert_config.json"),
        ("config_sentence_transformers.json", r#"{"default_prompt_name": "query"}"#, "query"),
    ];
    for (name, text, words) in cases {
        let error = file(name, text);
        assert!(error.contains(words), "{name} {text}: {error}");
    }
}

#[test]
fn weights_that_are_missing_misshapen_or_no_numbers_are_refused() {
    let weights = |change: &dyn Fn(&mut Vec<crate::folders::Tensor>)| {
        spoiled(|recipe, folder| {
            let mut tensors = recipe.tensors();
            change(&mut tensors);
            std::fs::write(folder.join("model.safetensors"), safetensors(&tensors)).unwrap();
        })
    };
    let missing = weights(&|tensors| drop(tensors.remove(7))).unwrap_err();
    assert!(missing.contains("blk.0.attn_k.weight"), "{missing}");
    let misshapen = weights(&|tensors| tensors[5].shape = vec![32, 128]).unwrap_err();
    assert!(misshapen.contains("is 32 x 128, expected 64 x 64"), "{misshapen}");
    let stranger = weights(&|tensors| tensors[5].name = "encoder.gate".to_owned()).unwrap_err();
    assert!(stranger.contains("encoder.gate"), "{stranger}");
    // Numbers are looked at when they are computed with.
    let recipe = &tiny_encoders::all()[0];
    for poison in [f32::NAN, f32::INFINITY] {
        let folder = tempfile::tempdir().unwrap();
        recipe.write(folder.path());
        let mut tensors = recipe.tensors();
        tensors[5].data[..4].copy_from_slice(&poison.to_le_bytes());
        std::fs::write(folder.path().join("model.safetensors"), safetensors(&tensors)).unwrap();
        for gpu in adapters::all() {
            let method = Method::of(gpu.is_software());
            let error = load(folder.path(), gpu, method).err().unwrap();
            assert!(error.contains("no numbers"), "{error}");
        }
    }
}

const KEYS: [&str; 9] = [
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "max_position_embeddings",
    "layer_norm_eps",
    "pad_token_id",
    "hidden_act",
    "model_type",
];

fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(|n| json!(n)),
        (0_u64..130).prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        Just(Value::Null),
        Just(json!("gelu")),
        Just(json!("roberta")),
        Just(json!([])),
        Just(json!(true)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn absurd_configs_are_refused_or_harmless(
        changes in proptest::collection::vec((proptest::sample::select(&KEYS[..]), anything()), 1..4),
    ) {
        let changes = Value::Object(changes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        match with_config(&changes) {
            Ok(config) => {
                prop_assert_eq!(config.heads * config.head, 64);
                prop_assert!((1..=40).contains(&config.tokens_max));
                prop_assert!(config.position_first + config.tokens_max <= config.positions);
            }
            Err(error) => prop_assert!(!error.is_empty()),
        }
    }
}
