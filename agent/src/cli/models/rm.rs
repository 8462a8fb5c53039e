//! `roadbed-agent models rm`: remove a model from the cache.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use serde_json::json;

use crate::cli::progress::bytes;
use crate::engine::catalogue::ModelStore;

/// Arguments of `models rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roadbed-agent models rm smollm2-135m
  roadbed-agent models rm hf:org/repo:Q4_K_M
  roadbed-agent models rm --yes hf:org/repo

Only what lies in the folder of models (ROADBED_MODELS, else ~/.cache/roadbed/models) can be removed.")]
pub struct ModelsRmArgs {
    /// Catalogue name, hf:org/repo[:file], or a path in the folder of models.
    pub model: String,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// It is not here, lies elsewhere, or nobody said yes.
pub async fn rm(args: ModelsRmArgs) -> anyhow::Result<()> {
    let store = ModelStore::from_environment()?;
    let removal = store.removal(&args.model)?;
    let paths = removal.paths.clone();
    let size = removal.bytes;
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let shown = shown.join(", ");
    if !args.yes && !said_yes(&format!("remove {shown} ({})?", bytes(size)))? {
        anyhow::bail!("nothing was removed");
    }
    removal.carry_out()?;
    if args.json {
        println!("{}", json!({"removed": paths, "bytes": size}));
    } else {
        println!("removed {shown} ({})", bytes(size));
    }
    Ok(())
}

fn said_yes(question: &str) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "{question} There is nobody to ask; say --yes");
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
