//! `roadbed-agent models inspect`: what a model is and what memory it needs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use roadbed_compute::embedding::{EncoderConfig, EncoderNeed};
use roadbed_compute::list_adapters;
use roadbed_compute::llm::{KvFormat, MemoryNeed, ModelConfig};
use roadbed_compute::source::{self, WeightSource};
use roadbed_compute::{AdapterKind, AdapterSummary};
use serde_json::{Value, json};

use super::list::{printable, printable_up_to};
use crate::cli::progress::bytes;
use crate::config::Kv;
use crate::engine::adapter_memory::{adapter_memory, usable, usable_memory};
use crate::engine::catalogue::ModelStore;
use crate::engine::startup::GPUS_MAX;

/// Memory of the cards that rigs have.
const CARDS_GIB: [u64; 6] = [4, 6, 8, 12, 16, 24];

/// Arguments of `models inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roadbed-agent models inspect smollm2-135m
  roadbed-agent models inspect --context 8192 /data/model.gguf
  roadbed-agent models inspect hf:org/repo:Q4_K_M --json | jq .fits")]
pub struct ModelsInspectArgs {
    /// Model file or folder, catalogue name, or hf:org/repo[:file].
    pub model: String,
    /// Longest sequence the memory is reckoned for; 2048 unless given, never more than the model's own.
    #[arg(long)]
    pub context: Option<usize>,
    /// How answers keep keys and values, for the memory.
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    pub kv: Kv,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// The model is not here or is none.
pub async fn inspect(args: ModelsInspectArgs) -> anyhow::Result<()> {
    let found = ModelStore::from_environment()?.find(&args.model)?;
    let document =
        tokio::task::spawn_blocking(move || look(found.path, args.context, args.kv.into()))
            .await??;
    if args.json {
        println!("{document}");
    } else {
        print!("{}", text(&document));
    }
    Ok(())
}

fn look(path: PathBuf, context: Option<usize>, kv: KvFormat) -> anyhow::Result<Value> {
    let file = source::open(&path).with_context(|| path.display().to_string())?;
    let metadata = file.metadata();
    let word = |key: &str| metadata.string(key).ok().flatten().map(printable);
    let parameters: u64 = file.entries().values().map(|t| (t.rows * t.columns) as u64).sum();
    let stored: u64 = file.entries().values().map(|t| t.bytes() as u64).sum();
    let mut document = json!({
        "path": path, "name": word("general.name"), "arch": word("general.architecture"),
        "parameters": parameters, "tensors": file.entries().len(), "tensor_bytes": stored,
        "quants": quants(&*file),
        "tokenizer": word("tokenizer.ggml.model"), "pre_tokenizer": word("tokenizer.ggml.pre"),
        "tokenizer_loads": file.tokenizer().is_ok(),
        "chat_template": word("tokenizer.chat_template").is_some(),
    });
    if EncoderConfig::is_encoder(metadata) {
        describe_encoder(&*file, &mut document)?;
        return Ok(document);
    }
    let described = ModelConfig::from_source(&*file);
    match described {
        Ok(config) => {
            document["shape"] = json!({
                "layers": config.layers, "hidden": config.hidden, "ffn": config.ffn,
                "heads": config.heads, "kv_heads": config.kv_heads, "head": config.head,
                "vocabulary": config.vocabulary, "context": config.context_tokens,
            });
            let fits: Vec<Value> =
                list_adapters().iter().map(|adapter| fit(&*file, context, kv, adapter)).collect();
            let need = MemoryNeed::of(&*file, context, kv, false)?;
            document["memory"] = need_document(&need);
            document["cards"] = cards(&*file, context, kv, need.bytes())?;
            document["fits"] = json!(fits);
            document["runs_here"] = json!(true);
        }
        // The file may be good and of a kind that is not known here: the rest is shown all the same.
        Err(error) => {
            document["runs_here"] = json!(false);
            document["reason"] = json!(printable_up_to(&error.to_string(), 400));
        }
    }
    Ok(document)
}

/// An encoder has no cache, and its longest text is its context.
fn describe_encoder(file: &dyn WeightSource, document: &mut Value) -> anyhow::Result<()> {
    let config = match EncoderConfig::from_source(file) {
        Ok(config) => config,
        Err(error) => {
            document["runs_here"] = json!(false);
            document["reason"] = json!(printable_up_to(&error.to_string(), 400));
            return Ok(());
        }
    };
    document["shape"] = json!({
        "layers": config.layers, "hidden": config.hidden, "ffn": config.ffn,
        "heads": config.heads, "kv_heads": config.heads, "head": config.head,
        "vocabulary": config.vocabulary, "context": config.tokens_max,
    });
    document["embeddings"] = json!({
        "dimensions": config.hidden, "tokens_max": config.tokens_max,
        "pooling": format!("{:?}", config.pooling).to_lowercase(),
        "unit_length": config.normalises,
    });
    let fits: Vec<Value> = list_adapters()
        .iter()
        .map(|adapter| {
            let software = adapter.kind == AdapterKind::Software;
            let need = EncoderNeed::of(file, software).map(|need| need.bytes()).ok();
            fit_document(adapter, need)
        })
        .collect();
    let need = EncoderNeed::of(file, false)?;
    document["memory"] = json!({
        "context": config.tokens_max, "weight_bytes": need.weight_bytes, "cache_bytes": 0,
        "work_bytes": need.work_bytes, "bytes": need.bytes(),
    });
    document["fits"] = json!(fits);
    document["runs_here"] = json!(true);
    Ok(())
}

fn need_document(need: &MemoryNeed) -> Value {
    json!({
        "context": need.context_tokens, "kv": need.kv, "weight_bytes": need.weight_bytes,
        "cache_bytes": need.cache_bytes, "work_bytes": need.work_bytes, "bytes": need.bytes(),
    })
}

/// How many equal cards a replica takes, for sizes that rigs have, and how many layers each card has of it.
fn cards(
    file: &dyn WeightSource,
    context: Option<usize>,
    kv: KvFormat,
    need_bytes: u64,
) -> anyhow::Result<Value> {
    let mut found = Vec::new();
    for gib in CARDS_GIB {
        let budget = usable(gib << 30);
        // Split, it takes no less.
        let least = usize::try_from(need_bytes.div_ceil(budget)).unwrap_or(GPUS_MAX).max(1);
        for count in least..=GPUS_MAX {
            if let Ok(layers) = MemoryNeed::split(file, context, kv, false, &vec![budget; count])? {
                found.push(json!({"card_gib": gib, "cards": layers.len(), "layers": layers}));
                break;
            }
        }
    }
    Ok(json!(found))
}

/// Whether the model fits an adapter; `null` where its memory is not known.
fn fit(
    file: &dyn WeightSource,
    context: Option<usize>,
    kv: KvFormat,
    adapter: &AdapterSummary,
) -> Value {
    let software = adapter.kind == AdapterKind::Software;
    let need = MemoryNeed::of(file, context, kv, software).map(|need| need.bytes()).ok();
    fit_document(adapter, need)
}

fn fit_document(adapter: &AdapterSummary, need: Option<u64>) -> Value {
    let memory = adapter_memory(adapter);
    let fits = need.zip(usable_memory(adapter)).map(|(need, usable)| need <= usable);
    json!({
        "adapter": adapter.to_string(), "needed_bytes": need, "memory_bytes": memory, "fits": fits,
    })
}

/// Weights and bytes by type.
fn quants(file: &dyn WeightSource) -> BTreeMap<String, Value> {
    let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for tensor in file.entries().values() {
        let sum = sums.entry(tensor.kind.to_string()).or_default();
        sum.0 += 1;
        sum.1 += (tensor.rows * tensor.columns) as u64;
        sum.2 += tensor.bytes() as u64;
    }
    let view =
        |(tensors, weights, bytes)| json!({"tensors": tensors, "weights": weights, "bytes": bytes});
    sums.into_iter().map(|(kind, sum)| (kind, view(sum))).collect()
}

fn text(document: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let size = |value: &Value| value.as_u64().map_or("not known".into(), bytes);
    let mut lines = vec![
        format!("{}", word(&document["path"])),
        format!("  architecture   {} ({})", word(&document["arch"]), word(&document["name"])),
        format!(
            "  parameters     {} in {} tensors, {}",
            document["parameters"],
            document["tensors"],
            size(&document["tensor_bytes"])
        ),
    ];
    for (kind, sum) in document["quants"].as_object().into_iter().flatten() {
        lines.push(format!("    {kind:<6} {} in {} tensors", size(&sum["bytes"]), sum["tensors"]));
    }
    let loads = if document["tokenizer_loads"] == true { "" } else { ", which is not known here" };
    let tokenizer = [&document["tokenizer"], &document["pre_tokenizer"]].map(word).join(" ");
    lines.push(format!("  tokenizer      {tokenizer}{loads}"));
    let template = if document["chat_template"] == true { "yes" } else { "no" };
    lines.push(format!("  chat template  {template}"));
    let shape = &document["shape"];
    if shape.is_object() {
        lines.push(format!(
            "  shape          {} layers of {}, {} heads of {} ({} for keys), context {}",
            shape["layers"],
            shape["hidden"],
            shape["heads"],
            shape["head"],
            shape["kv_heads"],
            shape["context"]
        ));
        let embeddings = &document["embeddings"];
        if embeddings.is_object() {
            let length = if embeddings["unit_length"] == true { ", of unit length" } else { "" };
            lines.push(format!(
                "  embeddings     {} dimensions by {} pooling{length}; serve with --embeddings",
                embeddings["dimensions"],
                word(&embeddings["pooling"]),
            ));
        }
        let need = &document["memory"];
        if embeddings.is_object() {
            lines.push(format!(
                "  GPU memory     {}: weights {}, working {}",
                size(&need["bytes"]),
                size(&need["weight_bytes"]),
                size(&need["work_bytes"])
            ));
        } else {
            lines.push(format!(
            "  GPU memory     {} at a context of {}: weights {}, keys and values ({}) {}, working {}",
            size(&need["bytes"]),
            need["context"],
            size(&need["weight_bytes"]),
            word(&need["kv"]),
            size(&need["cache_bytes"]),
            size(&need["work_bytes"])
        ));
        }
        let cards: Vec<String> = document["cards"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| format!("{} of {} GiB", entry["cards"], entry["card_gib"]))
            .collect();
        if !cards.is_empty() {
            lines.push(format!("  cards          {}", cards.join(", or ")));
        }
    } else {
        lines.push(format!("  does not run here: {}", word(&document["reason"])));
    }
    for fit in document["fits"].as_array().into_iter().flatten() {
        let answer = match fit["fits"].as_bool() {
            Some(true) => "fits",
            Some(false) => "does not fit",
            None => "may fit",
        };
        lines.push(format!(
            "  {answer:<13}  {}; memory {}",
            word(&fit["adapter"]),
            size(&fit["memory_bytes"])
        ));
    }
    lines.join("\n") + "\n"
}
