//! What the farm is told about the world: prices of energy and what work earns, each with its age.
//!
//! One task reads them and speaks to the control loop in events of the farm machine. A feed that fails is a warning and
//! an old series, never a stop: the machine holds the last price for as long as the policy says, then sleeps.

mod csv;
mod income;
mod series;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farm_core::FarmEvent;
use farm_core::forecast::PriceSeries;
use farm_core::plan::{Commitment, WorkOption};
use roadbed_protocol::{HashRate, UnixMillis};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::FarmClock;
use crate::coins::CoinReading;
use crate::config::{EnergyPrice, Site, SiteRig};
use crate::hashprice::Reading;
use crate::view::FarmView;

pub use self::csv::{
    FeedError, PriceColumns, PriceTable, open_bounded, read_prices, read_prices_from,
};
pub use income::{HashIncome, Hashing, commitments, hash_income, options};
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

/// The rates that each rig of the site has measured, in its order; only a site with a coin feed has a use for them.
fn measured(site: &Site, views: &watch::Receiver<FarmView>) -> Vec<Vec<HashRate>> {
    if site.income.coins.is_none() {
        return vec![Vec::new(); site.rigs.len()];
    }
    let view = views.borrow();
    let own = |rig: &SiteRig| view.rigs.iter().find(|seen| seen.id == rig.id);
    site.rigs
        .iter()
        .map(|rig| own(rig).map(|it| it.hash_rates.clone()).unwrap_or_default())
        .collect()
}

/// The events of a site, news by news.
pub struct Feeds {
    site: Site,
    clock: FarmClock,
    known: Option<(PriceSeries, Option<SystemTime>)>,
    told: Vec<Vec<WorkOption>>,
    promised: watch::Receiver<Arc<Vec<Commitment>>>,
    /// The promises as last told.
    promises_told: Arc<Vec<Commitment>>,
    known_of: Known,
}

/// What others in the controller know that incomes are made of.
pub struct Known {
    /// What hashing earns on ASICs.
    pub hashprice: watch::Receiver<Option<Arc<Reading>>>,
    /// What coins pay.
    pub coins: watch::Receiver<Option<Arc<CoinReading>>>,
    /// What rigs report, for the rates they have measured.
    pub views: watch::Receiver<FarmView>,
}

impl Feeds {
    /// Feeds that have told nothing yet.
    #[must_use]
    pub fn new(
        site: Site,
        clock: FarmClock,
        promised: watch::Receiver<Arc<Vec<Commitment>>>,
        known_of: Known,
    ) -> Self {
        let promises_told = Arc::default();
        Self { site, clock, known: None, told: Vec::new(), promised, promises_told, known_of }
    }

    /// What a farm must know before its first rig connects: promises, incomes, prices.
    pub fn first(&mut self) -> Vec<FarmEvent> {
        self.news()
    }

    /// What has changed since the last call. Promises come before the incomes that pay for them, those before prices.
    pub fn news(&mut self) -> Vec<FarmEvent> {
        let now = self.clock.now();
        let promised = Arc::clone(&self.promised.borrow_and_update());
        let reading = self.known_of.hashprice.borrow_and_update().clone();
        let coins = self.known_of.coins.borrow_and_update().clone();
        let price = hash_income(&self.site, reading.as_deref(), now);
        let measured = measured(&self.site, &self.known_of.views);
        let own = |(rig, rates): (&SiteRig, &Vec<HashRate>)| {
            let hashing = Hashing { price, coins: coins.as_deref(), rates };
            options(&self.site, rig, &promised, hashing, now)
        };
        let current: Vec<_> = self.site.rigs.iter().zip(&measured).map(own).collect();
        let mut news = Vec::new();
        if promised != self.promises_told || self.told.is_empty() {
            news.push(FarmEvent::Commitments(commitments(&promised)));
            self.promises_told = promised;
        }
        for (index, rig) in self.site.rigs.iter().enumerate() {
            if self.told.get(index) != current.get(index) {
                let options = current.get(index).cloned().unwrap_or_default();
                news.push(FarmEvent::Options { rig: rig.id.clone(), options });
            }
        }
        self.told = current;
        news.extend(self.new_prices(now).map(FarmEvent::Prices));
        news
    }

    fn new_prices(&mut self, now: UnixMillis) -> Option<PriceSeries> {
        let modified = modified(&self.site);
        let is_same = self.known.as_ref().is_some_and(|(_, at)| *at == modified);
        if is_same && matches!(self.site.tariff.energy, EnergyPrice::Feed { .. }) {
            return None;
        }
        match prices(&self.site, now) {
            Ok(series) => {
                let is_new = self.known.as_ref().is_none_or(|(former, _)| *former != series);
                self.known = Some((series.clone(), modified));
                is_new.then_some(series)
            }
            Err(error) => {
                tracing::warn!(%error, "the price feed fails; the last series stands");
                None
            }
        }
    }

    /// Speaks to the control loop until `cancel` fires: prices and promises when they change, incomes at every slot.
    pub async fn run(mut self, events: mpsc::Sender<FarmEvent>, cancel: CancellationToken) {
        let slot = self.site.policy.timing.slot;
        let (mut promised_open, mut hashprice_open, mut coins_open) = (true, true, true);
        loop {
            let next_slot = self.clock.now().floor_to(slot) + slot;
            let pause = self.clock.wall_span(next_slot.since(self.clock.now())).min(FILE_PAUSE);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause + Duration::from_millis(1)) => {}
                changed = self.promised.changed(), if promised_open => {
                    promised_open = changed.is_ok();
                }
                changed = self.known_of.hashprice.changed(), if hashprice_open => {
                    hashprice_open = changed.is_ok();
                }
                changed = self.known_of.coins.changed(), if coins_open => {
                    coins_open = changed.is_ok();
                }
            }
            for event in self.news() {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn modified(site: &Site) -> Option<SystemTime> {
    match &site.tariff.energy {
        EnergyPrice::Feed { csv, .. } => std::fs::metadata(csv).ok()?.modified().ok(),
        EnergyPrice::Fixed(_) | EnergyPrice::TimeOfUse(_) => None,
    }
}
