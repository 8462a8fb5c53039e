//! What the farm is told about the world: prices of energy and what work earns, each with its age.
//!
//! One task reads them and speaks to the control loop in events of the farm machine. A feed that fails is a warning and
//! an old series, never a stop: the machine holds the last price for as long as the policy says, then sleeps.

mod csv;
mod income;
mod series;

use std::time::{Duration, SystemTime};

use farm_core::FarmEvent;
use farm_core::forecast::PriceSeries;
use roadbed_protocol::UnixMillis;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::FarmClock;
use crate::config::{EnergyPrice, Site};

pub use self::csv::{FeedError, PriceColumns, PriceTable, read_prices, read_prices_from};
pub use income::{commitments, options};
pub use series::{daily_series, fixed_series};

/// How often a price file is looked at for a new version.
const FILE_PAUSE: Duration = Duration::from_secs(5);

/// The site's prices as known at `now`, adder included.
///
/// # Errors
/// [`FeedError`] when the feed's file cannot be used.
pub fn prices(site: &Site, now: UnixMillis) -> Result<PriceSeries, FeedError> {
    let adder = site.tariff.adder;
    match &site.tariff.energy {
        EnergyPrice::Fixed(price) => Ok(fixed_series(*price + adder, now)),
        EnergyPrice::TimeOfUse(steps) => {
            Ok(daily_series(steps, adder, site.utc_offset_minutes, now))
        }
        EnergyPrice::Feed { csv, time_column, price_column, step } => {
            let columns = PriceColumns { time: time_column, price: price_column };
            let table = read_prices(csv, columns, *step)?;
            for gap in &table.gaps {
                tracing::warn!(file = %csv.display(), %gap, "the price feed has a gap");
            }
            Ok(table.series(adder))
        }
    }
}

/// Speaks to the control loop until `cancel` fires: prices when they change, incomes at every slot.
pub async fn run(
    site: Site,
    clock: FarmClock,
    events: mpsc::Sender<FarmEvent>,
    cancel: CancellationToken,
) {
    let slot = site.policy.timing.slot;
    let mut known: Option<(PriceSeries, Option<SystemTime>)> = None;
    let mut told: Vec<Vec<farm_core::plan::WorkOption>> = Vec::new();
    if events.send(FarmEvent::Commitments(commitments(&site))).await.is_err() {
        return;
    }
    loop {
        let now = clock.now();
        let mut news = Vec::new();
        let modified = modified(&site);
        let is_new = known.as_ref().is_none_or(|(_, at)| *at != modified);
        if is_new || !matches!(site.tariff.energy, EnergyPrice::Feed { .. }) {
            match prices(&site, now) {
                Ok(series) => {
                    if known.as_ref().is_none_or(|(former, _)| *former != series) {
                        news.push(FarmEvent::Prices(series.clone()));
                    }
                    known = Some((series, modified));
                }
                Err(error) => {
                    tracing::warn!(%error, "the price feed fails; the last series stands")
                }
            }
        }
        let current: Vec<_> = site.rigs.iter().map(|rig| options(&site, rig, now)).collect();
        for (index, rig) in site.rigs.iter().enumerate() {
            if told.get(index) != current.get(index) {
                let options = current.get(index).cloned().unwrap_or_default();
                news.push(FarmEvent::Options { rig: rig.id.clone(), options });
            }
        }
        told = current;
        // Incomes first: a price makes the farm plan, and it should plan with what work earns.
        news.reverse();
        for event in news {
            if events.send(event).await.is_err() {
                return;
            }
        }
        let next_slot = now.floor_to(slot) + slot;
        let pause = clock.wall_span(next_slot.since(clock.now())).min(FILE_PAUSE);
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause + Duration::from_millis(1)) => {}
        }
    }
}

fn modified(site: &Site) -> Option<SystemTime> {
    match &site.tariff.energy {
        EnergyPrice::Feed { csv, .. } => std::fs::metadata(csv).ok()?.modified().ok(),
        EnergyPrice::Fixed(_) | EnergyPrice::TimeOfUse(_) => None,
    }
}
