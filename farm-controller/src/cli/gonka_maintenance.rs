//! `roadbed gonka maintenance`: when a rig may be taken away, and what it costs to do so now.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use farm_core::gonka::{Advice, Standing};
use roadbed_protocol::{Millis, RigId, UnixMillis};
use serde_json::{Value, json};

use super::gonka_asking::{asked, check_listed, farm_view, written_down};
use super::gonka_text::moment;
use crate::config::{Site, span_words};
use crate::gonka::maintenance::{Outlook, RigMaintenance, outlook};

/// Longest work that can be asked for: longer than an epoch it is no maintenance but a departure.
const MINUTES_MAX: u64 = 24 * 60;

/// Arguments of `roadbed gonka maintenance`.
#[derive(Debug, Args)]
pub struct MaintenanceArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
    /// Only this rig
    #[arg(long)]
    rig: Option<RigId>,
    /// How long the work takes, in minutes, without the time to load the model again
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: u64,
    /// Take it out for good instead
    #[arg(long, conflicts_with = "minutes")]
    for_good: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &MaintenanceArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let gonka = site.gonka.as_ref().context("the site file has no gonka section")?;
    if let Some(rig) = &args.rig {
        check_listed(gonka, rig)?;
    }
    let view = farm_view(&site, "what an epoch is worth is").await;
    eprintln!("asking {} ..", gonka.nodes.join(", "));
    let facts = asked(&site, gonka, &written_down(&site)).await;
    let Some((chain, read_at)) = facts.epoch.last() else {
        let why = facts.epoch.failing().map_or("", |failing| failing.reason.as_str());
        bail!(
            "no Network Node said where the chain stands; see gonka.nodes of the site file: {why}"
        );
    };
    let now = site.clock.now();
    let needs = (!args.for_good).then(|| Millis::from_mins(args.minutes));
    let Some(mut outlook) = outlook(&site, &view, &facts, needs, now) else {
        bail!(
            "no pace of blocks is known, so no height has a time: let a controller run for a minute (roadbed up), it measures it"
        );
    };
    outlook.rigs.retain(|one| args.rig.as_ref().is_none_or(|rig| one.rig.rig == *rig));
    if args.json {
        let mut document = document(&outlook);
        document["at"] = json!(now.0);
        document["chain_read_at"] = json!(read_at.0);
        document["height"] = json!(chain.height.0);
        document["minutes"] = json!((!args.for_good).then_some(args.minutes));
        println!("{document}");
    } else {
        let age = span_words(now.since(read_at));
        println!("height {}, read {age} ago; times on the site's clock", chain.height);
        print!("{}", shown(&outlook, &site, now));
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(outlook: &Outlook, site: &Site, now: UnixMillis) -> String {
    let mut text = String::new();
    for (epoch, span) in &outlook.quiet {
        let _ = writeln!(
            text,
            "no confirmation PoC is raised from {} to {} (give or take {}): the last blocks of epoch {epoch}, from {}",
            moment(span.from.at, now, site),
            moment(span.until.at, now, site),
            span_words(span.from.error),
            span.blocks.start,
        );
    }
    if outlook.quiet.is_empty() {
        let _ = writeln!(text, "the chain names no blocks in which no confirmation PoC is raised");
    }
    for one in &outlook.rigs {
        let _ = writeln!(text, "\n{} (node {}): {}", one.rig.rig, one.rig.node_id, standing(one));
        let _ = writeln!(text, "  {}", advice(&one.answer.advice, site, now));
        let cost = match one.answer.cost_now {
            Some(cost) if cost.0 == 0 => "leaving now costs nothing".to_owned(),
            Some(cost) => {
                let mark = if one.assumed { " (assumption)" } else { "" };
                format!("leaving now puts {cost} {}{mark} at risk", site.currency)
            }
            None => "what leaving now would cost is not known".to_owned(),
        };
        let _ = writeln!(text, "  {cost}");
        for line in &one.answer.lines {
            let _ = writeln!(text, "  - {line}");
        }
    }
    text
}

fn standing(one: &RigMaintenance) -> &'static str {
    match one.standing {
        Standing::Active { is_preserved: false } => "has weight in this epoch",
        Standing::Active { is_preserved: true } => {
            "has weight in this epoch and serves on through the PoC"
        }
        Standing::Leaving { is_preserved: false } => "disabled, has weight to the epoch's end",
        Standing::Leaving { is_preserved: true } => "disabled, but serves on through the PoC",
        Standing::Free => "has no weight in this epoch",
        Standing::Unknown => "not known whether it has weight in this epoch",
    }
}

fn advice(advice: &Advice, site: &Site, now: UnixMillis) -> String {
    let at = |time: UnixMillis| moment(time, now, site);
    match advice {
        Advice::Now { back_by: Some(back_by) } => {
            format!("NOW: be back by {} so that it is loaded for the PoC", at(*back_by))
        }
        Advice::Now { back_by: None } => "NOW".to_owned(),
        Advice::Wait { from, back_by, at_worst, first } => {
            let mut text = format!("WAIT until {}", at(*from));
            if let Some(back_by) = back_by {
                let _ = write!(text, ", be back by {}", at(*back_by));
            }
            if let Some(worst) = at_worst {
                let _ = write!(text, "; it may have to serve until {} instead", at(*worst));
            }
            if let Some(first) = first {
                let _ = write!(text, "; first: {first}");
            }
            text
        }
        Advice::None { why } => format!("NO TIME can be named: {why}"),
    }
}

fn document(outlook: &Outlook) -> Value {
    let quiet = outlook.quiet.iter().map(|(epoch, span)| {
        json!({
            "epoch": epoch, "from_block": span.blocks.start.0, "from": span.from.at.0,
            "until": span.until.at.0, "error_ms": span.from.error.0,
        })
    });
    let rigs = outlook.rigs.iter().map(|one| {
        let mut document = match &one.answer.advice {
            Advice::Now { back_by } => json!({ "advice": "now", "back_by": back_by }),
            Advice::Wait { from, back_by, at_worst, first } => json!({
                "advice": "wait", "from": from, "back_by": back_by, "at_worst": at_worst,
                "first": first,
            }),
            Advice::None { why } => json!({ "advice": "none", "why": why }),
        };
        let (word, is_preserved) = match one.standing {
            Standing::Active { is_preserved } => ("active", Some(is_preserved)),
            Standing::Leaving { is_preserved } => ("leaving", Some(is_preserved)),
            Standing::Free => ("free", None),
            Standing::Unknown => ("unknown", None),
        };
        document["rig"] = json!(one.rig.rig.as_str());
        document["node_id"] = json!(one.rig.node_id);
        document["standing"] = json!(word);
        document["is_preserved"] = json!(is_preserved);
        document["cost_now"] = json!(one.answer.cost_now.map(|cost| cost.to_string()));
        document["cost_is_assumed"] = json!(one.assumed);
        document["lines"] = json!(one.answer.lines);
        document
    });
    json!({ "quiet": quiet.collect::<Vec<_>>(), "rigs": rigs.collect::<Vec<_>>() })
}
