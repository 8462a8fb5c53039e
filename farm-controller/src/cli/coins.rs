//! `roadbed coins`: what each coin pays each kind of GPU rig, by which rate, and what energy leaves of it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use farm_core::forecast::PriceQuality;
use roadbed_protocol::{HashRate, MicrosPerHour, RigId, RigKind, UnixMillis};
use serde_json::json;

use super::table::Table;
use crate::coins::{CoinReading, RigRate, ask, choices, rig_rates};
use crate::config::{CoinFeed, Decimal, Site, SiteRig, span_words};
use crate::control::socket;
use crate::feeds;

/// Arguments of `roadbed coins`.
#[derive(Debug, Args)]
pub struct CoinsArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// What a coin leaves a kind of rig.
struct Row {
    model: String,
    rigs: usize,
    coin: String,
    algorithm: String,
    rate: RigRate,
    per_hour: MicrosPerHour,
    /// `None` while no price of energy is known.
    energy: Option<MicrosPerHour>,
    as_of: UnixMillis,
    source: String,
}

pub(super) async fn run(args: &CoinsArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let feed = site.income.coins.as_ref();
    let feed = feed.context("the site file has no income.coins (docs/coin-feed.md)")?;
    eprintln!("asking ..");
    let now = site.clock.now();
    let reading = ask(feed, &site.currency, now).await?;
    let (measured, note) = match socket::connect(&site.socket_path()).await {
        Ok((views, _actions)) => {
            let view = views.borrow().clone();
            let rates = view.rigs.into_iter().map(|rig| (rig.id, rig.hash_rates)).collect();
            (rates, None)
        }
        Err(_) => (
            Vec::new(),
            Some("no controller runs here, so measured rates are not known: all are of profiles"),
        ),
    };
    let (rows, without) = rows(&site, feed, &reading, &measured, now)?;
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "model": row.model, "rigs": row.rigs, "coin": row.coin,
                    "algorithm": row.algorithm, "hashes_per_second": row.rate.rate.0,
                    "rate_measured_at": row.rate.measured_at,
                    "income_micros_per_hour": row.per_hour.0,
                    "energy_micros_per_hour": row.energy.map(|energy| energy.0),
                    "as_of": row.as_of, "source": row.source,
                })
            })
            .collect();
        let document = json!({
            "currency": site.currency, "rows": rows, "left_out": reading.left_out,
            "without_power": without,
        });
        println!("{document}");
    } else {
        print!("{}", table(&rows, &site.currency, now));
        for line in note.map(str::to_owned).into_iter().chain(without) {
            println!("{line}");
        }
        for reason in &reading.left_out {
            println!("left out: {reason}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows by kind of rig, the best coin first; and a line for each rig that has no power to hash with.
fn rows(
    site: &Site,
    feed: &CoinFeed,
    reading: &CoinReading,
    measured: &[(RigId, Vec<HashRate>)],
    now: UnixMillis,
) -> anyhow::Result<(Vec<Row>, Vec<String>)> {
    let (price, quality) = feeds::prices(site, now)?.at(now, &site.settings().rules);
    let mut kinds: Vec<(&SiteRig, Vec<RigRate>, usize)> = Vec::new();
    let mut without = Vec::new();
    for rig in site.rigs.iter().filter(|rig| rig.profile.kind == RigKind::Gpu) {
        if rig.profile.normal_mining().is_none() {
            without.push(format!(
                "{}: the profile of {} has no mining step, so its power while hashing is not known",
                rig.id, rig.profile.model
            ));
            continue;
        }
        let own = measured.iter().find(|(id, _)| *id == rig.id);
        let rates = rig_rates(&rig.profile, own.map_or(&[], |(_, rates)| rates));
        let same = kinds
            .iter_mut()
            .find(|(kind, known, _)| kind.profile.model == rig.profile.model && *known == rates);
        match same {
            Some((_, _, count)) => *count += 1,
            None => kinds.push((rig, rates, 1)),
        }
    }
    let mut rows = Vec::new();
    for (rig, rates, count) in &kinds {
        let Some(step) = rig.profile.normal_mining() else { continue };
        let energy = (quality != PriceQuality::Missing).then(|| price.rate(step.watts));
        rows.extend(choices(feed, reading, rates, now).into_iter().map(|choice| Row {
            model: rig.profile.model.clone(),
            rigs: *count,
            coin: choice.offer.coin.clone(),
            algorithm: choice.offer.algorithm.clone(),
            rate: choice.rate.clone(),
            per_hour: choice.per_hour,
            energy,
            as_of: choice.offer.as_of,
            source: choice.offer.source.clone(),
        }));
    }
    Ok((rows, without))
}

fn table(rows: &[Row], currency: &str, now: UnixMillis) -> String {
    if rows.is_empty() {
        return "no GPU rig has a rate for an algorithm of the feed (roadbed-agent bench hash)\n"
            .to_owned();
    }
    let mut table = Table::new(&[
        "rigs",
        "coin",
        "algorithm",
        "rate",
        "rate from",
        "per hour",
        "energy",
        "left",
        "age",
        "source",
    ]);
    let dash = || "-".to_owned();
    let money = |micros: i64| Decimal(micros).to_string();
    for row in rows {
        let left = row.energy.map(|energy| row.per_hour.0.saturating_sub(energy.0));
        table.row(vec![
            format!("{} x {}", row.rigs, row.model),
            row.coin.clone(),
            row.algorithm.clone(),
            row.rate.rate.to_string(),
            match row.rate.measured_at {
                Some(at) => format!("measured {} ago", span_words(now.since(at))),
                None => "profile".to_owned(),
            },
            money(row.per_hour.0),
            row.energy.map_or_else(dash, |energy| money(energy.0)),
            left.map_or_else(dash, money),
            span_words(now.since(row.as_of)),
            row.source.clone(),
        ]);
    }
    format!("{currency} per hour and rig, after the pool's fee\n\n{table}")
}
