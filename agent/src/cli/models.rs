//! `roadbed-agent models`: what there is, what is here, and what to do with it.

mod inspect;
mod list;
mod pull;
mod rm;
mod synth;

pub(super) use list::printable;

use clap::Subcommand;

/// The subcommands of `models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Fetch a model into the cache.
    Pull(pull::ModelsPullArgs),
    /// List the catalogue and what is in the cache.
    List(list::ModelsListArgs),
    /// Show what a model is, and what memory it needs.
    Inspect(inspect::ModelsInspectArgs),
    /// Remove a model from the cache.
    Rm(rm::ModelsRmArgs),
    /// Write a model of random weights in the shape of a real one.
    Synth(synth::ModelsSynthArgs),
}

/// Runs a subcommand.
///
/// # Errors
/// What went wrong.
pub async fn run(command: ModelsCommand) -> anyhow::Result<()> {
    match command {
        ModelsCommand::Pull(args) => pull::pull(args).await,
        ModelsCommand::List(args) => list::list(args).await,
        ModelsCommand::Inspect(args) => inspect::inspect(args).await,
        ModelsCommand::Rm(args) => rm::rm(args).await,
        ModelsCommand::Synth(args) => synth::synth(args).await,
    }
}
