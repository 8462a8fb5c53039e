//! Asking a coin feed.

use roadbed_protocol::{Millis, UnixMillis};

use super::CoinReading;
use super::read::{Wanted, of_csv, of_json};
use crate::config::{CoinFeed, CoinsFrom, Site};
use crate::gonka::client::NodeClient;
use crate::hashprice::{AskError, Source, Words};

/// Reads a feed once.
///
/// # Errors
/// [`AskError`] when it cannot be read, or none of its rows counts.
pub async fn ask(
    feed: &CoinFeed,
    currency: &str,
    now: UnixMillis,
) -> Result<CoinReading, AskError> {
    let wanted = Wanted { currency, now, hold: feed.hold };
    match &feed.from {
        CoinsFrom::Csv(file) => of_csv(file, &wanted),
        CoinsFrom::Http { url, authorities } => {
            let document = NodeClient::new(url, authorities.as_ref()).get("").await?;
            of_json(&document, url, &wanted)
        }
    }
}

/// The coin feed of a site, asked again and again.
pub struct CoinSource {
    feed: CoinFeed,
    currency: String,
}

impl CoinSource {
    /// Of a site that names one.
    #[must_use]
    pub fn of(site: &Site) -> Option<Self> {
        let feed = site.income.coins.clone()?;
        Some(Self { feed, currency: site.currency.clone() })
    }
}

impl Source for CoinSource {
    type Reading = CoinReading;

    const FILE: &'static str = "coins.json";
    const WORDS: Words = Words {
        key: "coins",
        none: "no coin's figure counts, so GPU rigs earn nothing by hashing",
        again: "there are figures of coins again",
    };

    fn hold(&self) -> Millis {
        self.feed.hold
    }

    fn every(&self) -> Millis {
        self.feed.every
    }

    fn asked_at(reading: &CoinReading) -> UnixMillis {
        reading.asked_at
    }

    async fn ask(&mut self, now: UnixMillis) -> Result<CoinReading, AskError> {
        ask(&self.feed, &self.currency, now).await
    }
}
