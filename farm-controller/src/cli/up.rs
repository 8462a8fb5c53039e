//! `roadbed up`: runs the controller of a site until it is told to end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::Site;
use crate::controller::Controller;

/// Arguments of `roadbed up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
}

pub(super) async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let mut controller = Controller::start(&site).await?;
    for origin in &site.income.origins {
        tracing::info!("{origin}");
    }
    let ended = tokio::select! {
        () = super::asked_to_end() => None,
        ended = controller.ended() => Some(ended),
    };
    match ended {
        None => controller.stop().await?,
        Some(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}
