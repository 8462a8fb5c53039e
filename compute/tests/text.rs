//! Tokenizer and chat template of the real model against the vectors: exact.

use std::sync::LazyLock;
use std::time::SystemTime;

use proptest::prelude::*;
use roadbed_compute::Message;
use roadbed_compute::gguf::GgufFile;
use roadbed_compute::template::ChatTemplate;
use roadbed_compute::tokenizer::{Tokenizer, Utf8Stream};

use crate::models::{ids, smollm2, vectors};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let file = GgufFile::open(&smollm2()).unwrap();
    Tokenizer::from_metadata(&file.metadata).unwrap()
});

#[test]
fn tokenizer_vectors_are_exact() {
    for case in vectors("llm/tokenizer.json")["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let found = TOKENIZER.encode(text).unwrap();
        assert_eq!(found, ids(&case["ids"]), "{text:?}");
        assert_eq!(TOKENIZER.decode(&found), text);
    }
}

#[test]
fn prompts_and_their_ids_are_exact() {
    let file = GgufFile::open(&smollm2()).unwrap();
    let source = file.metadata.require_string("tokenizer.chat_template").unwrap();
    let template = ChatTemplate::new(source, &TOKENIZER.bos_text(), &TOKENIZER.eos_text()).unwrap();
    for case in vectors("llm/greedy_smollm2.json")["cases"].as_array().unwrap() {
        let mut messages = Vec::new();
        if let Some(system) = case["system"].as_str() {
            messages.push(Message::new("system", system));
        }
        messages.push(Message::new("user", case["user"].as_str().unwrap()));
        let prompt = template.render(&messages.into(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(prompt, case["prompt"].as_str().unwrap());
        assert_eq!(TOKENIZER.encode_prompt(&prompt).unwrap(), ids(&case["prompt_ids"]));
        assert_eq!(TOKENIZER.decode(&ids(&case["greedy_ids"])), case["text"].as_str().unwrap());
    }
}

#[test]
fn ends_are_the_vectors_ends() {
    let ends = ids(&vectors("llm/greedy_smollm2.json")["eos_ids"]);
    for id in 0..u32::try_from(TOKENIZER.vocabulary()).unwrap() {
        assert_eq!(TOKENIZER.is_end(id), ends.contains(&id), "{id}");
    }
}

#[test]
fn a_megabyte_without_spaces_is_no_attack() {
    let text = "a".repeat(1 << 20);
    let found = TOKENIZER.encode(&text).unwrap();
    assert_eq!(TOKENIZER.decode(&found).len(), text.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_comes_back(text in "(\\PC|\\s|<\\|im_end\\|>|[0-9]{1,4}|'s){0,40}") {
        let found = TOKENIZER.encode(&text).unwrap();
        prop_assert_eq!(TOKENIZER.decode(&found), text.clone());
        let mut stream = Utf8Stream::default();
        let mut streamed: String =
            found.iter().map(|id| stream.push(TOKENIZER.bytes(*id))).collect();
        streamed += &stream.finish();
        prop_assert_eq!(streamed, text);
    }
}
