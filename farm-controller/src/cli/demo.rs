//! `roadbed demo`: the whole farm in one command.

use std::process::ExitCode;

use clap::Args;

/// Arguments of `roadbed demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Lines instead of the console
    #[arg(long)]
    headless: bool,
}

impl DemoArgs {
    pub(super) fn draws(&self) -> bool {
        !self.headless
    }
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let _ = args;
    anyhow::bail!("the demo is being built")
}
