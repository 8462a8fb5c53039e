//! `roadbed`: the controller of a farm and its command line.

use std::process::ExitCode;

use clap::Parser as _;
use farm_controller::cli::{self, Cli};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // mqtt5 logs every packet at info.
    let filter = EnvFilter::try_from_env("ROADBED_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,farm_controller=info"));
    if !cli.draws() {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    match cli::run(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
