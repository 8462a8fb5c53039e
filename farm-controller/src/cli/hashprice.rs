//! `roadbed hashprice`: what hashing earns now, from which parts, and what energy may cost for it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use roadbed_protocol::{HashesPerSecond, MicrosPerHour, MicrosPerMwh, RigKind, UnixMillis, Watts};
use serde_json::json;

use super::table::Table;
use crate::config::{Decimal, Site, span_words};
use crate::feeds::{self, Hashing};
use crate::hashprice::{Asker, Reading};

/// Arguments of `roadbed hashprice`.
#[derive(Debug, Args)]
pub struct HashpriceArgs {
    /// Site file
    #[arg(long)]
    site: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// What a kind of rig earns at one of its powers.
struct Earning {
    model: String,
    power: Watts,
    hashrate: HashesPerSecond,
    per_hour: MicrosPerHour,
    /// The price of energy at which nothing is left.
    strike: MicrosPerMwh,
}

pub(super) async fn run(args: &HashpriceArgs) -> anyhow::Result<ExitCode> {
    let site = Site::load(&args.site)?;
    let hashprice = site.income.hashprice.as_ref();
    let hashprice = hashprice.context("the site file has no income.hashprice")?;
    if hashprice.written().is_none() {
        eprintln!("asking ..");
    }
    let now = site.clock.now();
    let reading = Asker::new(&hashprice.from).ask(now).await?;
    let earnings = earnings(&site, &reading, now);
    if args.json {
        let rigs: Vec<_> = earnings
            .iter()
            .map(|it| {
                json!({
                    "model": it.model, "power_watts": it.power.0, "hashes_per_second": it.hashrate.0,
                    "income_micros_per_hour": it.per_hour.0, "strike_micros_per_mwh": it.strike.0,
                })
            })
            .collect();
        let document = json!({
            "reading": reading, "currency": site.currency, "rigs": rigs,
            "pool_fee_percent": hashprice.fee_percent().to_string(),
        });
        println!("{document}");
    } else {
        print!("{}", render(&site, &reading, &earnings, &hashprice.fee_percent()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Each model of ASIC of the site once, at each of its powers.
fn earnings(site: &Site, reading: &Reading, now: UnixMillis) -> Vec<Earning> {
    let price = feeds::hash_income(site, Some(reading), now);
    let hashing = Hashing { price, ..Hashing::default() };
    let mut seen = std::collections::BTreeSet::new();
    let rigs = site.rigs.iter().filter(|rig| rig.profile.kind == RigKind::Asic);
    let mut earnings = Vec::new();
    for rig in rigs.filter(|rig| seen.insert(rig.profile.model.clone())) {
        for option in feeds::options(site, rig, &[], hashing, now) {
            let (Some(hashrate), power) = (option.hashrate, option.power) else { continue };
            let per_hour = option.income_at(0);
            let strike = i128::from(per_hour.0) * 1_000_000 / i128::from(power.0.max(1));
            let strike = MicrosPerMwh(i64::try_from(strike).unwrap_or(i64::MAX));
            let model = rig.profile.model.clone();
            earnings.push(Earning { model, power, hashrate, per_hour, strike });
        }
    }
    earnings
}

fn render(site: &Site, reading: &Reading, earnings: &[Earning], fee: &Decimal) -> String {
    let age = |at: Option<UnixMillis>| match at {
        Some(at) => format!("{} ago", span_words(reading.asked_at.since(at))),
        None => "assumption".to_owned(),
    };
    let mut parts = Table::new(&["part", "figure", "age", "from"]);
    for part in &reading.parts {
        parts.row(vec![
            part.what.clone(),
            part.figure.clone(),
            age(part.true_at),
            part.from.clone(),
        ]);
    }
    let mut rigs = Table::new(&["model", "power", "TH/s", "per hour", "strike price per MWh"]);
    for earning in earnings {
        let tera = Decimal(i64::try_from(earning.hashrate.0 / 1_000_000).unwrap_or(i64::MAX));
        rigs.row(vec![
            earning.model.clone(),
            earning.power.to_string(),
            tera.to_string(),
            Decimal(earning.per_hour.0).to_string(),
            Decimal(earning.strike.0).to_string(),
        ]);
    }
    let price = Decimal(reading.per_ph_day.0);
    let mut text = format!(
        "{price} {} per PH/s and day before the pool's fee of {fee} % ({})\n\n{parts}",
        site.currency,
        match reading.true_at {
            Some(_) => format!("oldest part: {}", age(reading.true_at)),
            None => "rests on an assumption".to_owned(),
        }
    );
    if !earnings.is_empty() {
        text.push_str(&format!("\nafter the fee, {}:\n{rigs}", site.currency));
    }
    text
}
