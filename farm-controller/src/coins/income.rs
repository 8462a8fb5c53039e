//! What a rig would earn on each coin, by measured rates where there are some and by its profile's else.

use farm_core::coins::{DayRevenue, algorithm_key};
use roadbed_protocol::{HashRate, HashesPerSecond, MicrosPerHour, RigProfile, UnixMillis};

use super::{CoinReading, Offer};
use crate::config::CoinFeed;

/// What profiles' mining steps are for.
const PROFILE_ALGORITHM: &str = "sha256d";

/// How fast a rig hashes one algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigRate {
    /// The algorithm, as it is compared.
    pub algorithm: String,
    /// The rate.
    pub rate: HashesPerSecond,
    /// When its agent measured it; `None` when the figure is the profile's.
    pub measured_at: Option<UnixMillis>,
}

/// The rates of a rig: what its agent measured, and the profile's figure for what it did not.
#[must_use]
pub fn rig_rates(profile: &RigProfile, measured: &[HashRate]) -> Vec<RigRate> {
    let mut rates: Vec<RigRate> = measured
        .iter()
        .filter(|rate| rate.hashes_per_second.0 > 0)
        .map(|rate| RigRate {
            algorithm: algorithm_key(&rate.algorithm),
            rate: rate.hashes_per_second,
            measured_at: Some(rate.measured_at),
        })
        .collect();
    if let Some(step) = profile.normal_mining()
        && !rates.iter().any(|rate| rate.algorithm == PROFILE_ALGORITHM)
    {
        let algorithm = PROFILE_ALGORITHM.to_owned();
        rates.push(RigRate { algorithm, rate: step.hashes_per_second, measured_at: None });
    }
    rates
}

/// A coin that a rig could hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<'r> {
    /// What the coin pays.
    pub offer: &'r Offer,
    /// With which rate.
    pub rate: &'r RigRate,
    /// After the pool's fee, before energy.
    pub per_hour: MicrosPerHour,
}

/// What a rig could hash at `now`, the best first.
#[must_use]
pub fn choices<'r>(
    feed: &CoinFeed,
    reading: &'r CoinReading,
    rates: &'r [RigRate],
    now: UnixMillis,
) -> Vec<Choice<'r>> {
    let fresh = reading.offers.iter().filter(|offer| offer.stands(now, feed.hold));
    let mut choices: Vec<Choice<'r>> = fresh
        .filter_map(|offer| {
            let algorithm = algorithm_key(&offer.algorithm);
            let rate = rates.iter().find(|rate| rate.algorithm == algorithm)?;
            let day =
                DayRevenue { revenue: offer.revenue_per_day, per: offer.per_hashes_per_second };
            Some(Choice { offer, rate, per_hour: day.per_hour(rate.rate, feed.fee)? })
        })
        .collect();
    choices
        .sort_by(|a, b| b.per_hour.cmp(&a.per_hour).then_with(|| a.offer.coin.cmp(&b.offer.coin)));
    choices
}
