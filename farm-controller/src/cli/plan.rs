//! `roadbed plan`: what the planner would do, slot by slot, with its reasons.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use roadbed_protocol::{UnixMillis, Workload};

use super::table::Table;
use crate::config::{Moment, Site, local_hour_minute};
use crate::preview::preview;
use crate::view::{ChoiceView, PlanRowView, PlanView};

/// Arguments of `roadbed plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
    /// Plan as of this moment, like 2021-10-25T00:00:00-05:00; now when absent
    #[arg(long)]
    at: Option<Moment>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let now = args.at.map_or_else(|| site.clock.now(), |moment| moment.0);
    let plan = preview(&site, now)?;
    if args.json {
        println!("{}", serde_json::to_string(&plan)?);
    } else {
        print!("{}", render(&plan, &site));
    }
    Ok(ExitCode::SUCCESS)
}

/// The plan as text: a table of slots by rigs, then each rig's reasons, then notes.
fn render(plan: &PlanView, site: &Site) -> String {
    let clock = |at: UnixMillis| local_hour_minute(at, site.utc_offset_minutes);
    let rigs: Vec<String> = plan.rows.iter().map(|row| row.rig.to_string()).collect();
    let head: Vec<&str> =
        ["from", "price", "power"].into_iter().chain(rigs.iter().map(String::as_str)).collect();
    let mut table = Table::new(&head);
    let mut former = None;
    for (index, slot) in plan.slots.iter().enumerate() {
        let words: Vec<String> =
            plan.rows.iter().filter_map(|row| row.choices.get(index)).map(word).collect();
        let key = (slot.price, words.clone());
        if former.as_ref() == Some(&key) {
            continue;
        }
        former = Some(key);
        let price = slot.price.map_or_else(|| "unknown".to_owned(), |price| price.to_string());
        let cells = [clock(slot.start), price, slot.power.to_string()];
        table.row(cells.into_iter().chain(words).collect());
    }
    let mut text = format!(
        "{}, times on the site's clock, money in {}\n\n{table}\n",
        site.name, site.currency
    );
    for row in &plan.rows {
        text.push_str(&format!("{}\n", row.rig));
        for line in reasons(row, plan, &clock) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    for (what, lines) in [("note", &plan.notes), ("shed", &plan.sheds)] {
        for line in lines {
            text.push_str(&format!("{what}: {line}\n"));
        }
    }
    for origin in &site.income.origins {
        text.push_str(&format!("income: {origin}\n"));
    }
    text
}

fn word(choice: &ChoiceView) -> String {
    match &choice.workload {
        Workload::Idle | Workload::Curtailed => "sleep".to_owned(),
        active => active.to_string(),
    }
}

/// One line for every stretch in which a rig does the same.
fn reasons(
    row: &PlanRowView,
    plan: &PlanView,
    clock: &impl Fn(UnixMillis) -> String,
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut former = None;
    for (choice, slot) in row.choices.iter().zip(&plan.slots) {
        if former == Some(&choice.workload) {
            continue;
        }
        former = Some(&choice.workload);
        let mark = if choice.assumed { ", income assumed" } else { "" };
        lines.push(format!(
            "{} {}: {} (margin {}{mark})",
            clock(slot.start),
            word(choice),
            choice.reason,
            choice.margin
        ));
    }
    lines
}
