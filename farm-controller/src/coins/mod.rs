//! What GPU coins pay, asked of whoever the site file names, and which of them a rig would mine.
//!
//! Every row of a feed has its own moment. One that is too old, or that cannot be read, is left out with the reason; a rig
//! earns by hashing what the best of the others pays for an algorithm it has a rate for.

mod income;
mod read;
mod source;

use roadbed_protocol::{HashesPerSecond, Millis, Money, UnixMillis};
use serde::{Deserialize, Serialize};

pub use income::{Choice, RigRate, choices, rig_rates};
pub use source::{CoinSource, ask};

/// What a coin pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The coin's name.
    pub coin: String,
    /// What is hashed for it, as the feed writes it.
    pub algorithm: String,
    /// What is earned in a day, before any fee of a pool.
    pub revenue_per_day: Money,
    /// By as many hashes a second.
    pub per_hashes_per_second: HashesPerSecond,
    /// When it was true.
    pub as_of: UnixMillis,
    /// Who says so.
    pub source: String,
}

impl Offer {
    /// Whether it still counts at `now`.
    #[must_use]
    pub fn stands(&self, now: UnixMillis, hold: Millis) -> bool {
        now.since(self.as_of) <= hold
    }
}

/// A feed, read once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoinReading {
    /// When it was read, farm time.
    pub asked_at: UnixMillis,
    /// What it says and is not too old.
    pub offers: Vec<Offer>,
    /// Why other rows are left out.
    pub left_out: Vec<String>,
}
