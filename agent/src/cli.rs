//! The command line: one subcommand a module, `--json` prints one document on stdout, logs go to stderr.

#[cfg(feature = "gpu")]
pub mod bench;
#[cfg(feature = "gpu")]
pub mod embeddings;
#[cfg(feature = "gpu")]
pub mod generate;
#[cfg(feature = "gpu")]
pub mod gpus;
#[cfg(feature = "gpu")]
pub mod hash;
#[cfg(feature = "gpu")]
pub mod infval;
#[cfg(feature = "gpu")]
mod looks;
#[cfg(feature = "gpu")]
pub mod mine;
#[cfg(feature = "gpu")]
pub mod miners;
#[cfg(feature = "gpu")]
pub mod models;
#[cfg(feature = "gpu")]
pub mod poc;
mod progress;
pub mod run;
#[cfg(feature = "gpu")]
pub mod serve;
#[cfg(feature = "gpu")]
pub mod tokenize;
#[cfg(feature = "gpu")]
mod upstream;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[cfg(feature = "gpu")]
use crate::engine::rendering;

/// The agent of a rig of a Roadbed farm.
#[derive(Debug, Parser)]
#[command(name = "roadbed-agent", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn text into token ids.
    #[cfg(feature = "gpu")]
    Tokenize(tokenize::TokenizeArgs),
    /// Answer one chat message.
    #[cfg(feature = "gpu")]
    Generate(generate::GenerateArgs),
    /// Measure how fast this machine runs a model.
    #[cfg(feature = "gpu")]
    Bench(bench::BenchArgs),
    /// Proof of Compute.
    #[cfg(feature = "gpu")]
    #[command(subcommand)]
    Poc(PocCommand),
    /// Tell whether an answer was made by a model, as the network's validators do.
    #[cfg(feature = "gpu")]
    Infval(infval::InfvalArgs),
    /// SHA-256d hashing.
    #[cfg(feature = "gpu")]
    #[command(subcommand)]
    Hash(HashCommand),
    /// Mine for a pool, or for the pools of a config file, without a controller.
    #[cfg(feature = "gpu")]
    Mine(Box<mine::MineArgs>),
    /// External miners: which there are, whether a profile is right, run one.
    #[cfg(feature = "gpu")]
    #[command(subcommand)]
    Miners(miners::MinersCommand),
    /// Serve the MLNode and OpenAI faces without a controller.
    #[cfg(feature = "gpu")]
    Serve(Box<serve::ServeArgs>),
    /// List the GPUs of this machine.
    #[cfg(feature = "gpu")]
    Gpus(gpus::GpusArgs),
    /// Run the rigs of a config file under a controller.
    Run(run::RunArgs),
    /// Models: fetch, list, remove, look into, make up.
    #[cfg(feature = "gpu")]
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Render one chat by its model's template, read from stdin, within limits of memory and time.
    #[cfg(feature = "gpu")]
    #[command(hide = true, name = rendering::COMMAND)]
    RenderTemplate,
}

#[cfg(feature = "gpu")]
#[derive(Debug, Subcommand)]
enum PocCommand {
    /// Compute the artifacts of given nonces.
    Compute(poc::PocComputeArgs),
    /// Measure nonces a minute, beside plain prefill of the same length.
    Bench(poc::bench::PocBenchArgs),
    /// Compute a golden file's nonces again and judge whether its artifacts are this model's.
    Verify(poc::verify::PocVerifyArgs),
}

#[cfg(feature = "gpu")]
#[derive(Debug, Subcommand)]
enum HashCommand {
    /// Scan a range of nonces for headers at or below a target.
    Scan(hash::HashScanArgs),
}

/// Runs one command to its end. Only `poc verify` and `infval` have an exit code of their own.
///
/// # Errors
/// What went wrong, with the context of what was being done.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "gpu")]
    {
        if matches!(cli.command, Command::RenderTemplate) {
            // Before there are threads: each would take of the memory it allows itself.
            return rendering::answer_one()
                .context("cannot render the chat")
                .map(|()| ExitCode::SUCCESS);
        }
        rendering::use_own_program();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let done = match cli.command {
            #[cfg(feature = "gpu")]
            Command::Tokenize(args) => tokenize::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Generate(args) => generate::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Bench(args) => bench::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Poc(PocCommand::Compute(args)) => poc::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Poc(PocCommand::Bench(args)) => poc::bench::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Poc(PocCommand::Verify(args)) => return poc::verify::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Infval(args) => return infval::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Hash(HashCommand::Scan(args)) => hash::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Mine(args) => mine::run(*args).await,
            #[cfg(feature = "gpu")]
            Command::Miners(command) => miners::run(command).await,
            #[cfg(feature = "gpu")]
            Command::Serve(args) => serve::run(*args).await,
            #[cfg(feature = "gpu")]
            Command::Gpus(args) => gpus::run(args).await,
            Command::Run(args) => run::run(args).await,
            #[cfg(feature = "gpu")]
            Command::Models(command) => models::run(command).await,
            #[cfg(feature = "gpu")]
            Command::RenderTemplate => Ok(()),
        };
        done.map(|()| ExitCode::SUCCESS)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
