//! What GPU coins pay, as a site file names it: a CSV file, or a JSON document of somebody's.

use std::path::PathBuf;

use farm_core::coins::WHOLE_FEE;
use roadbed_protocol::Millis;
use serde::Deserialize;

use super::authorities::Authorities;
use super::decimal::Decimal;
use super::hashprice::{EVERY_MINUTES_MAX, a_day, ten};
use super::site_check::Checker;
use super::source::FieldPath;

/// Longest hold: what a coin pays moves faster than that.
const HOLD_HOURS_MAX: u64 = 7 * 24;

/// Who tells what coins pay on this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoinFeed {
    /// Where it is told.
    pub from: CoinsFrom,
    /// What pools keep, in millionths of a percent.
    pub fee: i64,
    /// A figure older than this is none.
    pub hold: Millis,
    /// Farm time between two looks.
    pub every: Millis,
}

/// Where coins are told of; both in the form of `docs/coin-feed.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoinsFrom {
    /// A file.
    Csv(PathBuf),
    /// A JSON document.
    Http {
        /// Where it is asked for.
        url: String,
        /// Who vouches for an `https` address; without them whom this machine trusts.
        authorities: Option<Authorities>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CoinsFile {
    #[serde(default)]
    csv: Option<PathBuf>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    pool_fee_percent: Decimal,
    #[serde(default = "a_day")]
    hold_hours: u64,
    #[serde(default = "ten")]
    every_minutes: u64,
}

impl CoinFeed {
    /// The line that tells people where it comes from.
    #[must_use]
    pub fn line(&self) -> String {
        let from = match &self.from {
            CoinsFrom::Csv(file) => file.display().to_string(),
            CoinsFrom::Http { url, .. } => url.clone(),
        };
        format!("GPU mining: the best coin of {from} (see roadbed coins)")
    }
}

impl Checker<'_> {
    pub(super) fn coins(&mut self, file: CoinsFile) -> Option<CoinFeed> {
        let path = FieldPath::of("income").key("coins");
        let fee = file.pool_fee_percent.0;
        if !(0..=WHOLE_FEE).contains(&fee) {
            let text = format!("is {}; expected 0 to 100", file.pool_fee_percent);
            self.say(&path.key("pool_fee_percent"), text);
        }
        self.span(&path, "hold_hours", file.hold_hours, HOLD_HOURS_MAX);
        self.span(&path, "every_minutes", file.every_minutes, EVERY_MINUTES_MAX);
        let from = match (file.csv, file.url) {
            (Some(csv), None) => CoinsFrom::Csv(self.beside(&csv)),
            (None, Some(url)) => {
                let base = url.split('?').next().unwrap_or_default();
                let is_good = self.url(&path.key("url"), base);
                let authorities = self.authorities(&path, file.ca_file.as_deref());
                is_good.then_some(CoinsFrom::Http { url, authorities })?
            }
            (Some(_), Some(_)) | (None, None) => {
                self.say(&path, "expected either csv or url");
                return None;
            }
        };
        let hold = Millis::from_hours(file.hold_hours.min(HOLD_HOURS_MAX));
        let every = Millis::from_mins(file.every_minutes.min(EVERY_MINUTES_MAX));
        Some(CoinFeed { from, fee: fee.clamp(0, WHOLE_FEE), hold, every })
    }
}
