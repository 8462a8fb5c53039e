//! `roadbed gonka preflight` and `roadbed gonka post-mortem`: the check list gone through now, and the account of an epoch.
//!
//! The list measures anew, from here, with what the running controller knows of rates and circuits. The account reads what
//! the controller wrote down while the epoch went by; nobody else could tell it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use farm_core::gonka::{Grade, Preflight, preflight};
use futures_util::future::join_all;
use roadbed_protocol::RigId;
use serde_json::{Value, json};

use super::gonka_asking::{asked, check_listed, farm_view, written_down};
use super::table::Table;
use crate::config::Site;
use crate::gonka::adviser::{rates_among, trials};
use crate::gonka::epoch_record::{EpochRecord, lines};
use crate::gonka::preflight::measure;
use crate::store::read_kept;

/// Exit code of a rig that is not ready.
const NOT_READY: u8 = 2;

/// Arguments of `roadbed gonka preflight`.
#[derive(Debug, Args)]
pub struct PreflightArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
    /// Only this rig
    #[arg(long)]
    rig: Option<RigId>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Arguments of `roadbed gonka post-mortem`.
#[derive(Debug, Args)]
pub struct PostMortemArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
    /// Which epoch; the newest that is over when absent
    #[arg(long)]
    epoch: Option<u64>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Goes through the list now. Exit code 2: a rig is not ready.
pub(super) async fn run_preflight(args: &PreflightArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let gonka = site.gonka.as_ref().context("the site file has no gonka section")?;
    if let Some(rig) = &args.rig {
        check_listed(gonka, rig)?;
    }
    let view = farm_view(&site, "rates and loads are").await;
    let kept = written_down(&site);
    eprintln!("asking {} and the rigs, up to 30 s ..", gonka.nodes.join(", "));
    let facts = asked(&site, gonka, &kept).await;
    let (chain, _) = facts
        .epoch
        .last()
        .context("no Network Node said where the chain stands; see gonka.nodes of the site file")?;
    let next = chain.stages.next_poc_start;
    let mut trials = trials(&site, &view, &rates_among(&kept), chain, next);
    trials.retain(|trial| args.rig.as_ref().is_none_or(|rig| trial.rig == *rig));
    let now = site.clock.now();
    let measured = join_all(trials.iter().map(|trial| measure(trial, now))).await;
    let lists: Vec<Preflight> = measured.iter().map(preflight).collect();
    if args.json {
        println!("{}", Value::from(lists.iter().map(document).collect::<Vec<_>>()));
    } else {
        for list in &lists {
            print!("{}", shown(list));
        }
        println!("callbacks were tried from here; rigs deliver by their own way");
    }
    let is_lost = lists.iter().any(|list| list.grade() == Grade::NotReady);
    Ok(if is_lost { ExitCode::from(NOT_READY) } else { ExitCode::SUCCESS })
}

fn shown(list: &Preflight) -> String {
    let mut table = Table::new(&["check", "grade", "finding", "advice"]);
    for point in &list.points {
        table.row(vec![
            point.check.to_string(),
            point.grade.to_string(),
            point.finding.clone(),
            point.advice.clone().unwrap_or_default(),
        ]);
    }
    format!("{} for the PoC at block {}: {}\n{table}\n", list.rig, list.poc_start, list.grade())
}

fn document(list: &Preflight) -> Value {
    let points = list.points.iter().map(|point| {
        json!({
            "check": point.check.word(), "grade": point.grade.word(), "finding": point.finding,
            "advice": point.advice,
        })
    });
    json!({
        "rig": list.rig.as_str(), "poc_start": list.poc_start.0, "grade": list.grade().word(),
        "points": points.collect::<Vec<_>>(),
    })
}

/// Shows the account of an epoch out of the store.
pub(super) fn run_post_mortem(args: &PostMortemArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let kept = read_kept(&site.store_path())?;
    let records = EpochRecord::among(&kept.gonka);
    let record = match args.epoch {
        Some(epoch) => records.get(&epoch),
        None => records.values().rev().find(|record| record.told).or(records.values().next_back()),
    };
    let Some(record) = record else {
        let known: Vec<String> = records.keys().map(ToString::to_string).collect();
        bail!(
            "nothing was written down of that epoch: a controller with a gonka section must run through its PoC; known: {}",
            if known.is_empty() { "none".into() } else { known.join(", ") }
        );
    };
    let Some(account) = record.post_mortem() else {
        bail!("the chain has not told the weights of epoch {} yet", record.epoch_index);
    };
    if !args.json {
        println!("{}", lines(&account).join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let losses = account.losses.iter().map(|loss| {
        json!({
            "rig": loss.rig.as_ref().map(RigId::as_str), "cause": loss.cause.word(),
            "culprit": loss.culprit.word(), "weight": loss.weight, "evidence": loss.evidence,
        })
    });
    let document = json!({
        "epoch": account.epoch_index, "expected": account.expected, "earned": account.earned,
        "gained": account.gained, "is_final": account.is_final, "losses": losses.collect::<Vec<_>>(),
    });
    println!("{document}");
    Ok(ExitCode::SUCCESS)
}
