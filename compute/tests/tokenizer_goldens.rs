//! Token ids against Hugging Face's `tokenizers`: 10 000 strings for every way of cutting, by hash.
//!
//! The strings are made here as `tests/peers/tokenizer_goldens.py` makes them; a hash covers a hundred.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use roadbed_compute::gguf::GgufFile;
use roadbed_compute::gguf::writer::{Field, GgufWriter};
use roadbed_compute::tokenizer::Tokenizer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::models::{ids, smollm2, vectors};

static GOLDENS: LazyLock<Value> = LazyLock::new(|| vectors("tokenizer/goldens.json"));
static PIPELINES: LazyLock<Value> = LazyLock::new(|| vectors("tokenizer/pipelines.json"));
static BASES: LazyLock<Value> = LazyLock::new(|| vectors("tokenizer/bases.json"));
static STRINGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let fragments = vectors("tokenizer/fragments.json");
    let kinds = fragments["kinds"].as_array().unwrap();
    let seed = GOLDENS["seed"].as_u64().unwrap();
    (0..GOLDENS["strings"].as_u64().unwrap()).map(|index| string(kinds, seed, index)).collect()
});

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 33) % bound
    }

    fn pick<'v>(&mut self, values: &'v Value) -> &'v Value {
        let values = values.as_array().unwrap();
        &values[usize::try_from(self.below(values.len() as u64)).unwrap()]
    }

    fn fragment(&mut self, kinds: &[Value]) -> String {
        let weight = |kind: &Value| kind["weight"].as_u64().unwrap();
        let mut draw = self.below(kinds.iter().map(weight).sum());
        let kind = kinds.iter().find(|kind| {
            let found = draw < weight(kind);
            draw = draw.wrapping_sub(weight(kind));
            found
        });
        let kind = kind.unwrap();
        let (low, high) = pair(&kind["repeat"]);
        if kind["same"].is_array() {
            let text = self.pick(&kind["same"]).as_str().unwrap();
            return text.repeat(usize::try_from(low + self.below(high - low + 1)).unwrap());
        }
        let times = low + self.below(high - low + 1);
        (0..times)
            .map(|_| match kind["items"].is_array() {
                true => self.pick(&kind["items"]).as_str().unwrap().to_owned(),
                false => {
                    let (first, last) = pair(self.pick(&kind["ranges"]));
                    let code = first + self.below(last - first + 1);
                    char::from_u32(u32::try_from(code).unwrap()).unwrap().to_string()
                }
            })
            .collect()
    }
}

fn pair(value: &Value) -> (u64, u64) {
    (value[0].as_u64().unwrap(), value[1].as_u64().unwrap())
}

fn string(kinds: &[Value], seed: u64, index: u64) -> String {
    let mut random = Random(seed.wrapping_add(index.wrapping_mul(0x2545_F491_4F6C_DD1D)));
    let mut text = String::new();
    for _ in 0..random.below(13) {
        text += &random.fragment(kinds);
        if random.below(2) == 0 {
            text.push(' ');
        }
    }
    text
}

fn short_hash(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Compares with the case `name`: its examples, its prompt, and every `stride`th hundred strings.
#[track_caller]
fn check(name: &str, tokenizer: &Tokenizer, stride: usize) {
    let case = &GOLDENS["cases"][name];
    for example in case["examples"].as_array().unwrap() {
        let text = example["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids(&example["ids"]), "{name}: {text:?}");
    }
    let prompt = tokenizer.encode_prompt(case["prompt"]["text"].as_str().unwrap()).unwrap();
    assert_eq!(prompt, ids(&case["prompt"]["ids"]), "{name}");
    let chunk = usize::try_from(GOLDENS["chunk"].as_u64().unwrap()).unwrap();
    let hashes = texts(&case["hashes"]);
    assert_eq!(hashes.len() * chunk, STRINGS.len());
    for (place, strings) in STRINGS.chunks(chunk).enumerate().step_by(stride) {
        let mut hash = Sha256::new();
        for text in strings {
            let found = tokenizer.encode(text).unwrap();
            hash.update(u32::try_from(found.len()).unwrap().to_le_bytes());
            found.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
        assert_eq!(short_hash(hash), hashes[place], "{name}: strings from {}", place * chunk);
    }
}

/// A whole `tokenizer.json`: a pipeline and its base's vocabulary.
fn assemble(pipeline: &Value) -> String {
    let mut document = pipeline["tokenizer"].clone();
    let base = &BASES[pipeline["base"].as_str().unwrap()];
    let tokens = texts(&base["tokens"]);
    let vocab: BTreeMap<String, usize> = tokens.into_iter().zip(0..).collect();
    document["model"]["vocab"] = json!(vocab);
    if base["merges"].is_array() {
        let merges = texts(&base["merges"]);
        document["model"]["merges"] = match pipeline["merges_as_pairs"].as_bool() {
            Some(true) => {
                merges.iter().map(|merge| json!(merge.split_once(' ').unwrap())).collect()
            }
            Some(false) | None => json!(merges),
        };
    }
    document.to_string()
}

fn from_json(pipeline: &Value) -> Tokenizer {
    let config = pipeline["config"].is_object().then(|| pipeline["config"].to_string());
    Tokenizer::from_tokenizer_json(&assemble(pipeline), config.as_deref()).unwrap()
}

/// The tokenizer of a pipeline.
pub fn pipeline(name: &str) -> Tokenizer {
    from_json(&PIPELINES[name])
}

/// The metadata that a converted model would have.
fn from_gguf(pipeline: &Value) -> Tokenizer {
    let ggml = &pipeline["ggml"];
    let base = &BASES[pipeline["base"].as_str().unwrap()];
    let mut tokens = texts(&base["tokens"]);
    let mut kinds = match base["kinds"].is_array() {
        true => ids(&base["kinds"]).into_iter().map(u32::cast_signed).collect(),
        false => vec![1; tokens.len()],
    };
    let model = ggml["model"].as_str().unwrap();
    if model == "bert" {
        for token in &mut tokens {
            *token = match token.strip_prefix("##") {
                Some(rest) => rest.to_owned(),
                None => format!("▁{token}"),
            };
        }
    }
    for added in pipeline["tokenizer"]["added_tokens"].as_array().unwrap() {
        let place = usize::try_from(added["id"].as_u64().unwrap()).unwrap();
        if place >= tokens.len() {
            tokens.resize(place + 1, String::new());
            kinds.resize(place + 1, 1);
        }
        tokens[place] = added["content"].as_str().unwrap().to_owned();
        kinds[place] = if added["special"] == true { 3 } else { 4 };
    }
    let mut writer = GgufWriter::default();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    writer.field(&key("model"), &Field::Text(model));
    if let Some(pre) = ggml["pre"].as_str() {
        writer.field(&key("pre"), &Field::Text(pre));
    }
    for (name, text) in
        [("bos", &pipeline["config"]["bos_token"]), ("eos", &pipeline["config"]["eos_token"])]
    {
        let text = text.as_str().or(text["content"].as_str());
        if let Some(place) = text.and_then(|text| tokens.iter().position(|token| token == text)) {
            let id = u32::try_from(place).unwrap();
            writer.field(&key(&format!("{name}_token_id")), &Field::U32(id));
        }
    }
    if model == "bert" {
        for (name, id) in [("unknown", 1), ("cls", 2), ("seperator", 3)] {
            writer.field(&key(&format!("{name}_token_id")), &Field::U32(id));
        }
    }
    writer.field(&key("tokens"), &Field::Texts(&tokens));
    writer.field(&key("token_type"), &Field::I32s(&kinds));
    if model == "gpt2" {
        writer.field(&key("merges"), &Field::Texts(&texts(&base["merges"])));
    }
    if base["scores"].is_array() {
        #[expect(clippy::cast_possible_truncation, reason = "the scores are f32")]
        let mut scores: Vec<f32> =
            base["scores"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap() as f32).collect();
        scores.resize(tokens.len(), 0.0);
        writer.field(&key("scores"), &Field::F32s(&scores));
    }
    let file = GgufFile::from_bytes(writer.finish()).unwrap();
    Tokenizer::from_metadata(&file.metadata).unwrap()
}

/// Cases of `base`, as far as they have a form in GGUF.
fn cases(base: &str) -> impl Iterator<Item = (&'static String, &'static Value)> {
    let cases = PIPELINES.as_object().unwrap().iter();
    cases.filter(move |(_, pipeline)| pipeline["base"] == base)
}

#[test]
fn the_strings_are_those_of_the_script() {
    let hash = Sha256::new().chain_update(STRINGS.join("\0"));
    assert_eq!(short_hash(hash), GOLDENS["strings_sha256"].as_str().unwrap());
}

#[test]
fn byte_level_ids_from_json() {
    cases("byte_level").for_each(|(name, pipeline)| check(name, &from_json(pipeline), 1));
}

#[test]
fn sentence_piece_ids_from_json() {
    cases("sentence_piece").for_each(|(name, pipeline)| check(name, &from_json(pipeline), 1));
}

#[test]
fn word_piece_ids_from_json() {
    cases("word_piece").for_each(|(name, pipeline)| check(name, &from_json(pipeline), 1));
}

#[test]
fn ids_from_gguf() {
    for base in ["byte_level", "sentence_piece", "word_piece"] {
        for (name, pipeline) in cases(base).filter(|(_, pipeline)| pipeline["ggml"].is_object()) {
            check(name, &from_gguf(pipeline), 2);
        }
    }
}

#[test]
fn ids_of_the_real_model() {
    let file = GgufFile::open(&smollm2()).unwrap();
    check("smollm2-135m", &Tokenizer::from_metadata(&file.metadata).unwrap(), 1);
}
