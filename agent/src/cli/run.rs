//! `roadbed-agent run`: the rigs of a config file under a controller.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The config file.
    #[arg(long)]
    pub config: PathBuf,
    /// Check the config and leave.
    #[arg(long)]
    pub check: bool,
}

/// Runs the command.
///
/// # Errors
/// What went wrong.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let config = crate::config::load(&args.config)?;
    tracing::info!(agent = %config.agent, rigs = config.rigs.len(), "config is valid");
    Ok(())
}
