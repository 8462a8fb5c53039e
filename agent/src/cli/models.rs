//! `roadbed-agent models`: what there is, what is here, and what to do with it.

mod synth;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::engine::catalogue::{CATALOGUE, ModelStore, entry};
use crate::engine::pull as pull_model;

/// The subcommands of `models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Fetch a model into the cache.
    Pull(ModelsPullArgs),
    /// List the catalogue and what is in the cache.
    List(ModelsListArgs),
    /// Write a model of random weights in the shape of a real one.
    Synth(synth::ModelsSynthArgs),
}

/// Runs a subcommand.
///
/// # Errors
/// What went wrong.
pub async fn run(command: ModelsCommand) -> anyhow::Result<()> {
    match command {
        ModelsCommand::Pull(args) => pull(args).await,
        ModelsCommand::List(args) => list(args).await,
        ModelsCommand::Synth(args) => synth::synth(args).await,
    }
}

/// Arguments of `models pull`.
#[derive(Debug, Args)]
pub struct ModelsPullArgs {
    /// Catalogue name.
    pub name: String,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `models list`.
#[derive(Debug, Args)]
pub struct ModelsListArgs {
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Fetches a model.
///
/// # Errors
/// An unknown name, or the step that failed.
pub async fn pull(args: ModelsPullArgs) -> anyhow::Result<()> {
    let store = ModelStore::from_environment()?;
    let Some(entry) = entry(&args.name) else {
        let known: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
        anyhow::bail!("{} is not in the catalogue; known: {}", args.name, known.join(", "));
    };
    let path: PathBuf = tokio::task::spawn_blocking(move || {
        pull_model(&store, entry, &mut |step| eprintln!("{}: {step}", entry.name))
    })
    .await?
    .with_context(|| format!("cannot pull {}", entry.name))?;
    if args.json {
        println!("{}", json!({"name": entry.name, "path": path, "sha256": entry.sha256}));
    } else {
        println!("{}", path.display());
    }
    Ok(())
}

/// Lists the catalogue.
///
/// # Errors
/// Where models are kept is not known.
pub async fn list(args: ModelsListArgs) -> anyhow::Result<()> {
    let store = ModelStore::from_environment()?;
    if args.json {
        let models: Vec<Value> = CATALOGUE
            .iter()
            .map(|entry| {
                let here = store.holds(entry);
                json!({
                    "name": entry.name, "served_as": entry.served_as, "bytes": entry.bytes,
                    "sha256": entry.sha256, "here": here,
                    "path": here.then(|| store.path_of(entry)),
                })
            })
            .collect();
        println!("{}", json!({ "models": models }));
        return Ok(());
    }
    for entry in CATALOGUE {
        let place = if store.holds(entry) {
            store.path_of(entry).display().to_string()
        } else {
            format!("not here; run: roadbed-agent models pull {}", entry.name)
        };
        println!("{:<16} {:>6} MB  {place}", entry.name, entry.bytes / 1_000_000);
    }
    Ok(())
}
