//! `roadbed rigs`: every rig of a running controller, once.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::table::Table;
use crate::config::Site;
use crate::control::socket;
use crate::view::{FarmView, RigView};

/// Arguments of `roadbed rigs`.
#[derive(Debug, Args)]
pub struct RigsArgs {
    /// Site file of the running controller
    #[arg(long)]
    site: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: RigsArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let path = site.socket_path();
    let (views, _actions) = socket::connect(&path).await.with_context(|| {
        format!("no controller answers at {}; start it with `roadbed up`", path.display())
    })?;
    let view = views.borrow().clone();
    if args.json {
        println!("{}", serde_json::to_string(&view.rigs)?);
    } else {
        print!("{}", table(&view));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(view: &FarmView) -> Table {
    let mut table = Table::new(&["rig", "state", "doing", "target", "power", "hashrate", "why"]);
    for rig in &view.rigs {
        table.row(cells(rig));
    }
    table
}

fn cells(rig: &RigView) -> Vec<String> {
    let dash = || "-".to_owned();
    let state = match (rig.online, rig.state) {
        (true, Some(state)) => state.to_string(),
        (false, Some(state)) => format!("{state}, agent away"),
        (_, None) => "never reported".to_owned(),
    };
    vec![
        rig.id.to_string(),
        state,
        rig.workload.as_ref().map_or_else(dash, ToString::to_string),
        rig.target.as_ref().map_or_else(dash, ToString::to_string),
        rig.power.map_or_else(dash, |power| power.watts.to_string()),
        rig.hashrate.map_or_else(dash, |rate| rate.to_string()),
        rig.reason.clone(),
    ]
}
