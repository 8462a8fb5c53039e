//! `roadbed-agent`: parse the command line, start logging, call one `run`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use roadbed_agent::cli::{Cli, run};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("ROADBED_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roadbed-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
