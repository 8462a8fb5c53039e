//! `roadbed console`: the terminal of a running controller.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::config::Site;
use crate::control::socket;

/// Arguments of `roadbed console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Site file of the running controller
    #[arg(long)]
    site: PathBuf,
    /// Name that goes into the log with every order
    #[arg(long, env = "USER", default_value = "operator")]
    operator: String,
}

pub(super) async fn run(args: ConsoleArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let path = site.socket_path();
    let (views, actions) = socket::connect(&path).await.with_context(|| {
        format!("no controller answers at {}; start it with `roadbed up`", path.display())
    })?;
    crate::console::run(views, actions, args.operator, CancellationToken::new()).await?;
    Ok(ExitCode::SUCCESS)
}
