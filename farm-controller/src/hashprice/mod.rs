//! What hashing earns, asked of whoever the site file names: a node, a pool's API, a file.
//!
//! A reading is a price with every part it was made of, each with its age. A source that fails costs nothing at first: the
//! last reading stands as long as the site file says, also over a restart, and is then no figure at all, never a guess.

mod asker;
mod figure;
mod kept;
mod node;
mod service;

use farm_core::plan::IncomeSource;
use roadbed_protocol::{Millis, Money, UnixMillis};
use serde::{Deserialize, Serialize};

pub use asker::Asker;
pub use kept::Kept;
pub use service::{Service, Source, Words};

use crate::config::{Hashprice, Site};
use crate::gonka::client::ClientError;

/// A hashprice with what it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// What one PH/s earns in a day, before the pool's fee.
    pub per_ph_day: Money,
    /// When it was asked, farm time.
    pub asked_at: UnixMillis,
    /// When the oldest of its parts was true; `None` when one of them is an assumption.
    pub true_at: Option<UnixMillis>,
    /// Its parts, for people.
    pub parts: Vec<Part>,
}

/// One part of a reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is.
    pub what: String,
    /// Its figure.
    pub figure: String,
    /// Who says so.
    pub from: String,
    /// When it was true; `None` for an assumption.
    pub true_at: Option<UnixMillis>,
}

impl Reading {
    /// Where its figure comes from, as the planner keeps it.
    #[must_use]
    pub fn origin(&self) -> IncomeSource {
        self.true_at.map_or(IncomeSource::Assumption, |at| IncomeSource::Data { at })
    }

    /// Whether it still stands at `now`.
    #[must_use]
    pub fn stands(&self, now: UnixMillis, hold: Millis) -> bool {
        now.since(self.asked_at) <= hold
    }

    fn new(per_ph_day: Money, asked_at: UnixMillis, parts: Vec<Part>) -> Self {
        let known: Option<Vec<UnixMillis>> = parts.iter().map(|part| part.true_at).collect();
        let true_at = known.and_then(|moments| moments.into_iter().min());
        Self { per_ph_day, asked_at, true_at, parts }
    }
}

/// The hashprice of a site, asked again and again.
pub struct HashpriceSource {
    hashprice: Hashprice,
    asker: Asker,
}

impl HashpriceSource {
    /// Of a site whose figure is not written down.
    #[must_use]
    pub fn of(site: &Site) -> Option<Self> {
        let hashprice = site.income.hashprice.clone().filter(|it| it.written().is_none())?;
        let asker = Asker::new(&hashprice.from);
        Some(Self { hashprice, asker })
    }
}

impl Source for HashpriceSource {
    type Reading = Reading;

    const FILE: &'static str = "hashprice.json";
    const WORDS: Words = Words {
        key: "hashprice",
        none: "there is no hashprice, so nothing is earned by hashing",
        again: "there is a hashprice again",
    };

    fn hold(&self) -> Millis {
        self.hashprice.hold
    }

    fn every(&self) -> Millis {
        self.hashprice.every
    }

    fn asked_at(reading: &Reading) -> UnixMillis {
        reading.asked_at
    }

    async fn ask(&mut self, now: UnixMillis) -> Result<Reading, AskError> {
        self.asker.ask(now).await
    }
}

/// Why there is no hashprice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody answers, or not what was asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file cannot be used.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A figure is none.
    #[error("{what} from {from}: {problem}")]
    Figure {
        /// What it should be.
        what: String,
        /// Who said so.
        from: String,
        /// What is wrong.
        problem: String,
    },
    /// The node refuses.
    #[error("{url}: {method}: {said}")]
    Node {
        /// The node.
        url: String,
        /// What was called.
        method: String,
        /// Its words.
        said: String,
    },
}
