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
    /// The pools of each mining rig instead: what each gets, and what it makes of the shares
    #[arg(long)]
    pools: bool,
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
    } else if args.pools {
        print!("{}", pools(&view));
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

fn pools(view: &FarmView) -> Table {
    let mut table = Table::new(&[
        "rig",
        "pool",
        "standing",
        "hashes",
        "difficulty",
        "shares",
        "answers in",
        "trouble",
    ]);
    for rig in &view.rigs {
        let all: u64 = rig.pools.iter().map(|pool| pool.hashes).sum();
        for pool in &rig.pools {
            table.row(vec![
                rig.id.to_string(),
                pool.url.clone(),
                pool.standing.to_string(),
                format!("{} %", pool.hash_percent(all)),
                pool.difficulty(),
                pool.shares.to_string(),
                pool.answer_after.map_or("-".to_owned(), |after| format!("{} ms", after.0)),
                pool.trouble.clone(),
            ]);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::sample;

    #[test]
    fn each_pool_has_a_row() {
        let mut view = sample::view();
        view.rigs[0].pools = sample::pools();
        let text = pools(&view).to_string();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert!(rows[1].starts_with("asic-1") && rows[1].contains("75 %"), "{text}");
        assert!(rows[1].contains("41 accepted, 3 refused") && rows[1].contains("35 ms"), "{text}");
        assert!(rows[2].ends_with("-           it closed the connection"), "{text}");
    }
}
