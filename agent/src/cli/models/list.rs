//! `roadbed-agent models list`: the catalogue and what is here.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use roadbed_compute::gguf::{GgufFile, TensorType};
use serde_json::{Value, json};

use crate::cli::progress::bytes;
use crate::engine::catalogue::{CATALOGUE, ModelStore};
use crate::engine::inventory::InstalledModel;

/// Arguments of `models list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roadbed-agent models list
  roadbed-agent models list --json | jq -r '.models[] | select(.here) | .path'")]
pub struct ModelsListArgs {
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// What a model's own file says, at a glance.
struct Glance {
    architecture: String,
    quant: String,
}

/// Runs the command.
///
/// # Errors
/// Where models are kept is not known.
pub async fn list(args: ModelsListArgs) -> anyhow::Result<()> {
    let store = ModelStore::from_environment()?;
    let installed = store.installed();
    let absent =
        CATALOGUE.iter().filter(|entry| installed.iter().all(|model| model.name != entry.name));
    if args.json {
        let here = installed.iter().map(document);
        let absent = absent.map(|entry| {
            json!({
                "name": entry.name, "served_as": entry.served_as, "bytes": entry.bytes,
                "sha256": entry.sha256, "here": false, "path": null, "arch": null, "quant": null,
            })
        });
        let models: Vec<Value> = here.chain(absent).collect();
        println!("{}", json!({ "models": models, "root": store.root() }));
        return Ok(());
    }
    let mut rows = vec![["NAME", "ARCH", "QUANT", "SIZE", "WHERE"].map(str::to_owned)];
    rows.extend(installed.iter().map(|model| {
        let glance = glance(&model.path);
        let place = model.path.display().to_string();
        [model.name.clone(), glance.architecture, glance.quant, bytes(model.bytes), place]
    }));
    rows.extend(absent.map(|entry| {
        let place = format!("not here; run: roadbed-agent models pull {}", entry.name);
        [entry.name.to_owned(), "-".into(), "-".into(), bytes(entry.bytes), place]
    }));
    print!("{}", table(&rows));
    Ok(())
}

fn document(model: &InstalledModel) -> Value {
    let glance = glance(&model.path);
    let entry = CATALOGUE.iter().find(|entry| entry.name == model.name);
    json!({
        "name": model.name, "served_as": entry.map(|entry| entry.served_as),
        "bytes": model.bytes, "sha256": entry.map(|entry| entry.sha256), "here": true,
        "path": model.path, "arch": glance.architecture, "quant": glance.quant,
    })
}

/// Columns as wide as they must be; the last one ends where it ends.
fn table(rows: &[[String; 5]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let [name, architecture, quant, size, place] = row;
        format!(
            "{name:0$}  {architecture:1$}  {quant:2$}  {size:>3$}  {place}\n",
            widths[0], widths[1], widths[2], widths[3]
        )
    };
    rows.iter().map(line).collect()
}

fn glance(path: &Path) -> Glance {
    let unknown = |word: &str| Glance { architecture: word.to_owned(), quant: "-".into() };
    if path.is_dir() {
        let config = std::fs::read(path.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let text = |key: &str| config[key].as_str().map(printable);
        return Glance {
            architecture: text("model_type").unwrap_or_else(|| "-".into()),
            quant: text("torch_dtype").or_else(|| text("dtype")).unwrap_or_else(|| "-".into()),
        };
    }
    let Ok(file) = GgufFile::open(path) else { return unknown("unreadable") };
    let architecture = match file.metadata.string("general.architecture") {
        Ok(Some(word)) => printable(word),
        Ok(None) | Err(_) => "-".into(),
    };
    Glance { architecture, quant: main_type(&file).map_or("-".into(), |kind| kind.to_string()) }
}

/// The type of most of the weights.
fn main_type(file: &GgufFile) -> Option<TensorType> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for tensor in file.tensors() {
        *counts.entry(tensor.kind.code()).or_default() += tensor.rows * tensor.columns;
    }
    let (code, _) = counts.into_iter().max_by_key(|(_, weights)| *weights)?;
    TensorType::from_code(code)
}

/// A word of a file, fit for a terminal.
pub(in crate::cli) fn printable(text: &str) -> String {
    printable_up_to(text, 64)
}

/// Text of a file may hold anything, and goes to a terminal.
pub(super) fn printable_up_to(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}
