//! `roadbed-agent tokenize`: text to token ids.

use anyhow::Context as _;
use clap::Args;
use roadbed_compute::source;
use serde_json::json;

use crate::engine::catalogue::ModelStore;

/// Arguments of `tokenize`.
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// Model file or catalogue name.
    #[arg(long)]
    pub model: String,
    /// The text.
    #[arg(long)]
    pub text: String,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(args: TokenizeArgs) -> anyhow::Result<()> {
    // The file alone is read: no GPU is needed for this.
    let found = ModelStore::from_environment()?.find(&args.model)?;
    let place = || found.path.display().to_string();
    let file = source::open(&found.path).with_context(place)?;
    let ids =
        file.tokenizer().and_then(|tokenizer| tokenizer.encode(&args.text)).with_context(place)?;
    if args.json {
        println!("{}", json!({ "ids": ids }));
    } else {
        println!("{}", ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
