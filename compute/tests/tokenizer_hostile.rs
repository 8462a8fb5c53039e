//! Tokenizer files and texts from strangers: errors that name the part, bounded work, nothing lost.

use std::sync::LazyLock;

use proptest::prelude::*;
use roadbed_compute::gguf::GgufFile;
use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::tokenizer::{TEXT_BYTES_MAX, Tokenizer, Utf8Stream};
use serde_json::{Value, json};

use crate::tokenizer_goldens::pipeline;

/// One tokenizer of each kind of model, from files as they are published.
static KINDS: LazyLock<Vec<(&str, Tokenizer)>> = LazyLock::new(|| {
    ["llama-bpe", "qwen2", "tekken", "llama", "gemma", "bert"].map(|n| (n, pipeline(n))).into()
});

/// A small file that is in order.
fn small() -> Value {
    let tokens = ["<unk>", "▁", "a", "b", "ab", "▁ab", "<0x0A>", "<0xC3>", "<0xA9>"];
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), json!(id))).collect();
    json!({
        "added_tokens": [{"id": 9, "content": "<end>", "special": true, "normalized": false}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<end>"}}]},
        "decoder": {"type": "Metaspace", "replacement": "▁"},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": vocab,
                  "merges": ["a b", "▁ ab"]},
    })
}

fn read(document: &Value) -> Result<Tokenizer, String> {
    Tokenizer::from_tokenizer_json(&document.to_string(), None).map_err(|e| e.to_string())
}

/// `small` with the value at `pointer` replaced is refused with `reason`.
#[track_caller]
fn refuse(pointer: &str, value: Value, reason: &str) {
    let mut document = small();
    *document.pointer_mut(pointer).unwrap() = value;
    let error = read(&document).err().unwrap();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn what_is_not_supported_is_named() {
    assert_eq!(read(&small()).unwrap().encode_prompt("ab\n").unwrap(), [5, 6, 9]);
    refuse("/model/type", json!("Unigram"), "model is not supported: Unigram");
    refuse("/model/vocab", json!([["a", 0.5]]), "tokenizer.json cannot be read");
    refuse("/model/merges", json!(["a x"]), "merge 'a x'");
    refuse("/model/merges", json!(["ab"]), "merge 'ab'");
    refuse("/model/vocab/a", json!(u32::MAX), "token id 4294967295");
    refuse("/model/vocab/a", json!(-1), "tokenizer.json cannot be read");
    refuse("/added_tokens/0/content", json!("x".repeat(5000)), "5000 bytes");
    refuse("/normalizer/normalizers/0", json!({"type": "Precompiled"}), "'Precompiled'");
    refuse("/pre_tokenizer", json!({"type": "UnicodeScripts"}), "'UnicodeScripts'");
    refuse("/pre_tokenizer/replacement", json!("_"), "U+2581");
    let split =
        |pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": "Isolated"});
    refuse("/pre_tokenizer", split(json!({"Regex": r"a(?=b)"})), "a(?=b)");
    refuse("/pre_tokenizer", split(json!({"Regex": "(?:a{999}){999}"})), "cannot be used");
    refuse("/pre_tokenizer", split(json!("a")), "String or a Regex");
    refuse("/post_processor/single/1/SpecialToken/id", json!("nobody"), "'nobody'");
    refuse("/decoder", json!({"type": "CTC"}), "'CTC'");
    let mut nested = json!({"type": "NFC"});
    for _ in 0..200 {
        nested = json!({"type": "Sequence", "normalizers": [nested]});
    }
    refuse("/normalizer", nested, "recursion");
    refuse("/normalizer/normalizers", json!(vec![json!({"type": "NFC"}); 65]), "more than 64");
    assert!(Tokenizer::from_tokenizer_json("{", None).is_err());
    assert!(Tokenizer::from_tokenizer_json(&small().to_string(), Some("[]")).is_err());
}

#[test]
fn metadata_that_does_not_fit_is_refused() {
    let names = ["<unk>".to_owned(), "a".to_owned()];
    let read = |model: &str, scores: &[f32]| {
        let mut writer = GgufWriter::default();
        writer.field("tokenizer.ggml.model", &Field::Text(model));
        writer.field("tokenizer.ggml.tokens", &Field::Texts(&names));
        writer.field("tokenizer.ggml.scores", &Field::F32s(scores));
        let file = GgufFile::from_bytes(writer.finish()).unwrap();
        Tokenizer::from_metadata(&file.metadata).map_err(|error| error.to_string())
    };
    assert!(read("llama", &[0.0]).err().unwrap().contains("1 scores for 2 tokens"));
    assert!(read("gpt2", &[]).err().unwrap().contains("tokenizer.ggml.merges"));
    assert!(read("rwkv", &[]).err().unwrap().contains("gpt2, llama, gemma, bert"));
    let odd = read("llama", &[f32::NAN, f32::INFINITY]).unwrap();
    assert_eq!(odd.encode("a b").unwrap(), [0, 1, 0, 0]);
}

#[test]
fn long_texts_of_one_kind_are_no_attack() {
    for (name, tokenizer) in KINDS.iter() {
        for unit in ["a", " ", "\n", "🙂", "<|", "é\u{301}", "1"] {
            let text = unit.repeat((1 << 17) / unit.len());
            let ids = tokenizer.encode(&text).unwrap();
            assert!(ids.len() <= 2 * text.len(), "{name}");
        }
    }
    let error = KINDS[0].1.encode(&" ".repeat(TEXT_BYTES_MAX + 1)).unwrap_err();
    assert!(error.to_string().contains("too long"));
}

#[test]
fn ends_and_texts_come_from_the_config() {
    let config = r#"{"bos_token": null, "eos_token": {"content": "<end>"}, "add_eos_token": true}"#;
    let mut document = small();
    document["post_processor"] = Value::Null;
    let tokenizer = Tokenizer::from_tokenizer_json(&document.to_string(), Some(config)).unwrap();
    assert_eq!((tokenizer.bos_text(), tokenizer.eos_text()), (String::new(), "<end>".to_owned()));
    assert!(tokenizer.is_end(9) && tokenizer.is_control(9) && !tokenizer.is_end(2));
    assert_eq!(tokenizer.encode_prompt("b").unwrap(), [1, 3, 9]);
    assert!(tokenizer.with_ends([2, 1000]).is_end(2));
}

/// Cuts a text somewhere and puts something else there.
fn mutate(text: &str, place: usize, length: usize, with: &str) -> String {
    let start = text.floor_char_boundary(place % (text.len() + 1));
    let end = text.ceil_char_boundary((start + length).min(text.len()));
    format!("{}{with}{}", &text[..start], &text[end..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_file_is_refused_or_works(
        place in any::<usize>(),
        length in 0_usize..40,
        with in r#"(\PC|[0-9]|"|\{|\}|\[|\]|null|true|-1|1e9|"type"|\\u0000){0,6}"#,
        text in "(\\PC|ab|\\s|<end>){0,20}",
    ) {
        let document = mutate(&small().to_string(), place, length, &with);
        if let Ok(tokenizer) = Tokenizer::from_tokenizer_json(&document, None) {
            let ids = tokenizer.encode_prompt(&text).unwrap();
            let _ = tokenizer.decode(&ids);
        }
    }

    #[test]
    fn any_text_comes_back(text in "(\\PC|\\s|[a-z]{1,9}|[0-9]{1,4}|'s| ){0,40}") {
        // U+2581 is SentencePiece's space; composing changes what it composes.
        let text = text.replace('▁', "_");
        for (_, tokenizer) in KINDS.iter().filter(|(name, _)| !["qwen2", "bert"].contains(name)) {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids), text.clone());
            let mut stream = Utf8Stream::default();
            let mut streamed: String =
                ids.iter().map(|id| stream.push(tokenizer.bytes(*id))).collect();
            streamed += &stream.finish();
            prop_assert!(streamed == text || streamed == format!(" {text}"), "{}", streamed);
        }
    }
}
