//! `roadbed hold` and `roadbed release`: what the console's `h` and `r` do, from a script.
//!
//! A hold that would break a promise is shown with its cost and not sent without `--yes`; the controller refuses it as
//! well, should the promise be newer than what was looked at.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use roadbed_protocol::{RigId, Workload};
use tokio::sync::{mpsc, watch};

use crate::config::Site;
use crate::control::socket;
use crate::gonka::view::risk;
use crate::view::{Action, FarmView, RigView};

/// How long the controller may take to show that it obeyed, wall time.
const OBEYED_WAIT: Duration = Duration::from_secs(10);

/// Arguments of `roadbed hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Site file of the running controller
    #[arg(long)]
    site: PathBuf,
    /// The rig; may be given several times
    #[arg(long = "rig", required = true)]
    rigs: Vec<RigId>,
    /// Break promises that stand against it
    #[arg(long)]
    yes: bool,
    /// Name that goes into the log
    #[arg(long, env = "USER", default_value = "operator")]
    operator: String,
}

/// Arguments of `roadbed release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Site file of the running controller
    #[arg(long)]
    site: PathBuf,
    /// The rig; may be given several times
    #[arg(long = "rig", required = true)]
    rigs: Vec<RigId>,
}

pub(super) async fn hold(args: HoldArgs) -> anyhow::Result<ExitCode> {
    let (mut views, actions) = connected(&args.site, &args.rigs).await?;
    let view = views.borrow().clone();
    let meant = view.rigs.iter().filter(|rig| args.rigs.contains(&rig.id));
    let risks: Vec<String> = meant
        .filter_map(|rig| Some(format!("{}: {}", rig.id, risk(&rig.promises, view.at)?)))
        .collect();
    for line in &risks {
        eprintln!("{line} {}", view.currency);
    }
    if !risks.is_empty() && !args.yes {
        eprintln!("nothing was done; --yes holds them nevertheless");
        return Ok(ExitCode::FAILURE);
    }
    for rig in &args.rigs {
        let (rig, operator) = (rig.clone(), args.operator.clone());
        let workload = Workload::Curtailed;
        send(&actions, Action::Hold { rig, workload, operator, accept_loss: args.yes }).await?;
    }
    shown(&mut views, &args.rigs, true).await
}

pub(super) async fn release(args: ReleaseArgs) -> anyhow::Result<ExitCode> {
    let (mut views, actions) = connected(&args.site, &args.rigs).await?;
    for rig in &args.rigs {
        send(&actions, Action::Release { rig: rig.clone() }).await?;
    }
    shown(&mut views, &args.rigs, false).await
}

async fn connected(
    site: &std::path::Path,
    rigs: &[RigId],
) -> anyhow::Result<(watch::Receiver<FarmView>, mpsc::Sender<Action>)> {
    let site = Site::load(site)?;
    let path = site.socket_path();
    let ends = socket::connect(&path).await.with_context(|| {
        format!("no controller answers at {}; start it with `roadbed up`", path.display())
    })?;
    if let Some(unknown) = rigs.iter().find(|id| site.rig(id).is_none()) {
        bail!("rig \"{unknown}\" is not in the site file");
    }
    Ok(ends)
}

async fn send(actions: &mpsc::Sender<Action>, action: Action) -> anyhow::Result<()> {
    actions.send(action).await.context("the controller went away")
}

/// Waits until the controller shows what was asked for, and says of which rigs it has to wait.
async fn shown(
    views: &mut watch::Receiver<FarmView>,
    rigs: &[RigId],
    held: bool,
) -> anyhow::Result<ExitCode> {
    let meant = |view: &FarmView| -> Vec<RigView> {
        view.rigs.iter().filter(|rig| rigs.contains(&rig.id)).cloned().collect()
    };
    let is_so = |view: &FarmView| meant(view).iter().all(|rig| rig.held_by.is_some() == held);
    match tokio::time::timeout(OBEYED_WAIT, views.wait_for(is_so)).await {
        Ok(Ok(view)) => {
            println!("{}", if held { "held" } else { "released" });
            for rig in meant(&view).iter().filter(|rig| !rig.online) {
                eprintln!("{} is silent: the order reaches it when it is heard again", rig.id);
            }
            Ok(ExitCode::SUCCESS)
        }
        Ok(Err(_)) => bail!("the controller went away"),
        Err(_) => bail!(
            "the controller does not show it after {} s; its log says why",
            OBEYED_WAIT.as_secs()
        ),
    }
}
