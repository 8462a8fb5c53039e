//! `roadbed-agent miners`: programs of others that hash, and what is known of them.

mod check;
mod list;
mod run;

use clap::Subcommand;

/// The subcommands of `miners`.
#[derive(Debug, Subcommand)]
pub enum MinersCommand {
    /// List the miners that profiles are known of, and whether their programs are here.
    List(list::MinersListArgs),
    /// Tell whether a profile is right, and what it would start.
    Check(check::MinersCheckArgs),
    /// Run one under supervision, with live figures, without a controller.
    Run(Box<run::MinersRunArgs>),
}

/// Runs a subcommand.
///
/// # Errors
/// What went wrong.
pub async fn run(command: MinersCommand) -> anyhow::Result<()> {
    match command {
        MinersCommand::List(args) => list::list(args).await,
        MinersCommand::Check(args) => check::check(&args),
        MinersCommand::Run(args) => run::run(*args).await,
    }
}
