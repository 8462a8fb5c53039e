//! `roadbed-standins --config FILE`: runs the stand-ins of one config file until SIGTERM or until standard input closes.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use farm_tests::config::StandinsConfig;
use farm_tests::standins::Standins;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Stand-ins for the systems a farm talks to: mining pool, ASIC firmwares, Network Node, customer.
#[derive(Parser)]
#[command(name = "roadbed-standins", version)]
struct Arguments {
    /// Config file (standins.yaml).
    #[arg(long)]
    config: PathBuf,
    /// Keep running when standard input closes.
    #[arg(long)]
    detached: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    let config = StandinsConfig::read(&arguments.config)?;
    let standins = Standins::start(&config).await?;
    tracing::info!(status = %standins.status_address(), "stand-ins run");
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = input_closed(), if !arguments.detached => {}
    }
    standins.stop().await;
    // A read of standard input that never ends must not keep the process.
    std::process::exit(0);
}

/// Returns when the parent closes our standard input.
async fn input_closed() {
    let mut input = tokio::io::stdin();
    let mut byte = [0_u8; 64];
    while let Ok(count) = input.read(&mut byte).await {
        if count == 0 {
            return;
        }
    }
}
