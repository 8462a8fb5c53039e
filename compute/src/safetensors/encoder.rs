//! Folders of encoders (BERT, RoBERTa): config, tensor names, and what sentence-transformers adds.
//!
//! A folder of sentence-transformers lists its modules in `modules.json`; which are known, and what their
//! files say, becomes metadata. What would change an embedding and is not known is refused by name.
//! Sources: huggingface/transformers, `models/bert/configuration_bert.py`; UKPLab/sentence-transformers,
//! `models/*.py`; llama.cpp, `gguf-py/gguf/tensor_mapping.py`, for names.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use super::error::SafetensorsError;
use super::names::{Fate, Renamed, layer_and_part};
use super::texts::{TEXT_BYTES_MAX, json, text};
use crate::embedding::ARCHITECTURE;
use crate::embedding::config::{
    ACTIVATION, LOWERCASES, NORMALISES, POOLING, POSITION_FIRST, TOKENS_MAX,
};
use crate::gguf::{Metadata, Value};

/// Most modules of a folder; published ones have at most four.
const MODULES_MAX: usize = 16;
/// Longest path in `modules.json`.
const PATH_BYTES_MAX: usize = 255;

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "_name_or_path")]
    name: Option<String>,
    num_hidden_layers: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_attention_heads: u64,
    max_position_embeddings: u64,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    pad_token_id: Option<u64>,
    is_decoder: Option<bool>,
    embedding_size: Option<u64>,
    quantization_config: Option<serde::de::IgnoredAny>,
}

/// Where positions begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Positions {
    /// At 0.
    Bert,
    /// Behind that of the padding token.
    Roberta,
}

fn bad(reason: impl Into<String>) -> SafetensorsError {
    SafetensorsError::Config { reason: reason.into() }
}

fn malformed(file: &str, reason: impl Into<String>) -> SafetensorsError {
    SafetensorsError::Malformed { file: file.to_owned(), reason: reason.into() }
}

fn positions(model_type: &str) -> Option<Positions> {
    match model_type {
        "bert" => Some(Positions::Bert),
        "roberta" | "xlm-roberta" | "camembert" => Some(Positions::Roberta),
        _ => None,
    }
}

/// True if a `config.json` is that of an encoder.
pub(super) fn is_encoder(config: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        model_type: String,
    }
    serde_json::from_str(config).is_ok_and(|Kind { model_type }| positions(&model_type).is_some())
}

/// Metadata of the encoder whose `config.json` this is, from all files of its folder.
pub(super) fn read(
    folder: &Path,
    config: &str,
    fallback_name: &str,
) -> Result<Metadata, SafetensorsError> {
    let mut metadata = describe(config, fallback_name)?;
    let tokens_max = add_modules(folder, &mut metadata)?;
    let tokens_max = match tokens_max {
        Some(tokens) => Some(tokens),
        None => tokenizer_tokens_max(folder)?,
    };
    if let Some(tokens) = tokens_max {
        metadata.insert(TOKENS_MAX.to_owned(), Value::Unsigned(tokens));
    }
    Ok(metadata)
}

/// What `config.json` says.
fn describe(text: &str, fallback_name: &str) -> Result<Metadata, SafetensorsError> {
    let config: Config = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    let kind: Json = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    let kind = kind.get("model_type").and_then(Json::as_str).unwrap_or_default();
    let Some(positions) = positions(kind) else {
        return Err(bad(format!("model_type '{kind}' is no encoder")));
    };
    if config.quantization_config.is_some() {
        return Err(bad(
            "quantization_config: the weights are packed in a way this engine does not know",
        ));
    }
    if config.is_decoder == Some(true) {
        return Err(bad("is_decoder is true; such a model gives no embeddings"));
    }
    if let Some(kind) = config.position_embedding_type.filter(|kind| kind != "absolute") {
        return Err(bad(format!("position_embedding_type '{kind}'; absolute was expected")));
    }
    if config.embedding_size.is_some_and(|size| size != config.hidden_size) {
        return Err(bad("embedding_size is not hidden_size; such a model is not known"));
    }
    let mut metadata = Metadata::default();
    let mut put = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    let name = config.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(fallback_name);
    put("general.architecture", Value::String(ARCHITECTURE.to_owned()));
    put("general.name", Value::String(name.to_owned()));
    let counts = [
        ("block_count", config.num_hidden_layers),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("context_length", config.max_position_embeddings),
    ];
    for (key, count) in counts {
        put(&format!("{ARCHITECTURE}.{key}"), Value::Unsigned(count));
    }
    let epsilon = config.layer_norm_eps.unwrap_or(1e-12);
    put(&format!("{ARCHITECTURE}.attention.layer_norm_epsilon"), Value::Float(epsilon));
    put(ACTIVATION, Value::String(config.hidden_act.unwrap_or_else(|| "gelu".to_owned())));
    if positions == Positions::Roberta {
        let padding = config.pad_token_id.unwrap_or(1);
        let first = padding.checked_add(1).ok_or_else(|| bad("pad_token_id is too large"))?;
        put(POSITION_FIRST, Value::Unsigned(first));
    }
    // What sentence-transformers makes of a folder without modules.
    put(POOLING, Value::String("mean".to_owned()));
    put(NORMALISES, Value::Bool(false));
    Ok(metadata)
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// Reads `modules.json` and the files it leads to; returns the longest text if one of them says it.
fn add_modules(folder: &Path, metadata: &mut Metadata) -> Result<Option<u64>, SafetensorsError> {
    const FILE: &str = "modules.json";
    refuse_prompt(folder)?;
    let tokens_max = transformer(folder, metadata)?;
    let Some(modules) = text(folder, FILE, TEXT_BYTES_MAX)? else { return Ok(tokens_max) };
    let modules: Vec<Module> =
        serde_json::from_str(&modules).map_err(|error| malformed(FILE, error.to_string()))?;
    if modules.len() > MODULES_MAX {
        return Err(malformed(FILE, format!("more than {MODULES_MAX} modules")));
    }
    for (place, module) in modules.iter().enumerate() {
        // "sentence_transformers.models.Pooling": the last word says what it is.
        let kind = module.kind.rsplit('.').next().unwrap_or_default();
        let path = inside(folder, &module.path).ok_or_else(|| {
            malformed(FILE, format!("the path {:?} leads elsewhere", module.path))
        })?;
        match (place, kind) {
            (0, "Transformer") if module.path.is_empty() => {}
            (0, "Transformer") => {
                return Err(malformed(
                    FILE,
                    "the transformer lies in a folder of its own; serve that folder",
                ));
            }
            (1, "Pooling") => {
                metadata.insert(POOLING.to_owned(), Value::String(pooling(&path)?.to_owned()));
            }
            (2.., "Normalize") => metadata.insert(NORMALISES.to_owned(), Value::Bool(true)),
            (_, other) => {
                return Err(malformed(
                    FILE,
                    format!(
                        "module {place} is {other:?}; Transformer, Pooling and Normalize are known, in this order"
                    ),
                ));
            }
        }
    }
    if modules.len() < 2 {
        return Err(malformed(FILE, "there is no pooling module"));
    }
    Ok(tokens_max)
}

/// `sentence_bert_config.json`.
fn transformer(folder: &Path, metadata: &mut Metadata) -> Result<Option<u64>, SafetensorsError> {
    const FILE: &str = "sentence_bert_config.json";
    #[derive(Deserialize)]
    struct Sentence {
        max_seq_length: Option<u64>,
        do_lower_case: Option<bool>,
    }
    let Some(text) = text(folder, FILE, TEXT_BYTES_MAX)? else { return Ok(None) };
    let read: Sentence =
        serde_json::from_str(&text).map_err(|error| malformed(FILE, error.to_string()))?;
    if read.do_lower_case == Some(true) {
        metadata.insert(LOWERCASES.to_owned(), Value::Bool(true));
    }
    Ok(read.max_seq_length)
}

/// A prompt that would be put before every text.
fn refuse_prompt(folder: &Path) -> Result<(), SafetensorsError> {
    const FILE: &str = "config_sentence_transformers.json";
    let config = json(folder, FILE)?;
    match config.as_ref().and_then(|config| config.get("default_prompt_name")) {
        None | Some(Json::Null) => Ok(()),
        Some(name) => Err(malformed(
            FILE,
            format!("default_prompt_name is {name}; prompts are the caller's here"),
        )),
    }
}

/// What the `config.json` of a pooling module asks for.
fn pooling(folder: &Path) -> Result<&'static str, SafetensorsError> {
    let file = "the pooling module's config.json";
    let config = json(folder, "config.json")?.ok_or_else(|| malformed(file, "missing"))?;
    let Json::Object(config) = config else { return Err(malformed(file, "it is no object")) };
    if config.get("include_prompt") == Some(&Json::Bool(false)) {
        return Err(malformed(file, "include_prompt is false; such a model is not known"));
    }
    // Newer files name the mode, older ones have a flag for each.
    let mode = config.get("pooling_mode").and_then(Json::as_str);
    let on = |(key, value): (&String, &Json)| {
        (*value == Json::Bool(true))
            .then(|| key.strip_prefix("pooling_mode_").map(str::to_owned))?
    };
    let mut modes: Vec<String> = config.iter().filter_map(on).collect();
    if modes.is_empty() {
        modes.extend(mode.map(str::to_owned));
    }
    match modes.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["cls_token" | "cls"] => Ok("cls"),
        ["mean_tokens" | "mean"] => Ok("mean"),
        ["max_tokens" | "max"] => Ok("max"),
        other => {
            Err(malformed(file, format!("pooling by {other:?}; cls, mean or max was expected")))
        }
    }
}

/// `model_max_length` of the tokenizer, which is astronomical where nobody set it.
fn tokenizer_tokens_max(folder: &Path) -> Result<Option<u64>, SafetensorsError> {
    let config = json(folder, "tokenizer_config.json")?;
    Ok(config.as_ref().and_then(|config| config.get("model_max_length")).and_then(Json::as_u64))
}

/// A folder of the model's own folder, if that is what the path names.
fn inside(folder: &Path, path: &str) -> Option<std::path::PathBuf> {
    let plain = path.len() <= PATH_BYTES_MAX
        && Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    plain.then(|| folder.join(path))
}

/// What becomes of a tensor of an encoder.
pub(super) fn fate(name: &str) -> Fate {
    // Checkpoints of a task keep the encoder under its family's name and the task's own weights beside it.
    let bare = ["bert.", "roberta."].iter().find_map(|family| name.strip_prefix(family));
    let name = bare.unwrap_or(name);
    let heads = ["cls.", "lm_head.", "pooler.", "classifier.", "qa_outputs."];
    if heads.iter().any(|head| name.starts_with(head)) || name == "embeddings.position_ids" {
        return Fate::Dropped;
    }
    let new = match name {
        "embeddings.word_embeddings.weight" => "token_embd.weight".to_owned(),
        "embeddings.position_embeddings.weight" => "position_embd.weight".to_owned(),
        "embeddings.token_type_embeddings.weight" => "token_types.weight".to_owned(),
        "embeddings.LayerNorm.weight" | "embeddings.LayerNorm.gamma" => {
            "token_embd_norm.weight".to_owned()
        }
        "embeddings.LayerNorm.bias" | "embeddings.LayerNorm.beta" => {
            "token_embd_norm.bias".to_owned()
        }
        _ => match layer_part(name) {
            Some(new) => new,
            None => return Fate::Unknown,
        },
    };
    Fate::Weight(Renamed { name: new, interleaved: false, plus_one: false })
}

fn layer_part(name: &str) -> Option<String> {
    let (layer, part, ending) = layer_and_part(name.strip_prefix("encoder.layer.")?)?;
    let part = match part {
        "attention.self.query" => "attn_q",
        "attention.self.key" => "attn_k",
        "attention.self.value" => "attn_v",
        "attention.output.dense" => "attn_output",
        "attention.output.LayerNorm" => "attn_output_norm",
        "intermediate.dense" => "ffn_up",
        "output.dense" => "ffn_down",
        "output.LayerNorm" => "layer_output_norm",
        _ => return None,
    };
    let ending = match ending {
        // What TensorFlow called them.
        "gamma" => "weight",
        "beta" => "bias",
        ending => ending,
    };
    Some(format!("blk.{layer}.{part}.{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_gguf() {
        let new = |name| match fate(name) {
            Fate::Weight(renamed) => renamed.name,
            other => format!("{other:?}"),
        };
        assert_eq!(new("bert.encoder.layer.11.attention.self.key.bias"), "blk.11.attn_k.bias");
        assert_eq!(new("encoder.layer.0.output.LayerNorm.gamma"), "blk.0.layer_output_norm.weight");
        assert_eq!(new("roberta.embeddings.word_embeddings.weight"), "token_embd.weight");
        assert_eq!(new("pooler.dense.weight"), "Dropped");
        assert_eq!(new("embeddings.position_ids"), "Dropped");
        for odd in ["encoder.layer.00.output.dense.weight", "blk.0.attn_q.weight", "", "bert."] {
            assert_eq!(new(odd), "Unknown", "{odd}");
        }
    }

    #[test]
    fn paths_stay_in_the_folder() {
        let folder = Path::new("/model");
        assert_eq!(inside(folder, "1_Pooling").unwrap(), Path::new("/model/1_Pooling"));
        assert_eq!(inside(folder, "").unwrap(), Path::new("/model/"));
        for elsewhere in ["..", "/etc", "a/../../b", "./a"] {
            assert_eq!(inside(folder, elsewhere), None, "{elsewhere}");
        }
    }
}
