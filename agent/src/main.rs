//! `roadbed-agent`: parse the command line, start logging, call one `run`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use roadbed_agent::cli::{Cli, run};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told that standard error is gone.
            drop(error.print());
            // Not clap's 2: with that, `poc verify` says fraud, and a mistyped option accuses nobody.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("ROADBED_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("roadbed-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
