//! How fast a rig hashes, for its reports: what was measured before its start, and of an external miner what it says.

use std::time::{Duration, Instant};

use roadbed_compute::adapter::choose;
use roadbed_compute::hash::{CpuBackend, HashBackend as _};
use roadbed_compute::{AdapterChoice, AdapterSummary};
use roadbed_protocol::{self as protocol, HashesPerSecond};

use crate::clock::{FarmClock, wall_now};
use crate::config::RigMining;
use crate::engine::kept_folder;
use crate::engine::pace::adapter_label;
use crate::miner::rates::{HashRate, HashRates, SHA256D};

/// An external miner's rate is its usual one after this long without a break: cards get warm and slower, DAGs are built.
const STEADY_AFTER: Duration = Duration::from_mins(10);
/// Between two figures of it that are kept.
const KEPT_EVERY: Duration = Duration::from_mins(60);

/// What a rig's reports say.
#[derive(Default)]
pub(super) struct RigRates {
    told: Vec<protocol::HashRate>,
    /// Of a rig that hashes with an external miner, whose algorithm has a name.
    keeper: Option<RateKeeper>,
}

impl RigRates {
    /// Of a rig that hashes like this, as was measured before this start.
    pub(super) fn of(mining: &RigMining, devices: &[AdapterSummary], clock: FarmClock) -> Self {
        let keeper = RateKeeper::of(mining);
        let rates = HashRates::open(kept_folder().as_deref());
        let told = match (mining, &keeper) {
            (RigMining::BuiltIn(mining), _) => {
                let label = |gpu: &String| {
                    let Ok(choice) = gpu.parse::<AdapterChoice>();
                    choose(devices, &choice).ok().map_or_else(|| gpu.clone(), adapter_label)
                };
                let gpus: Vec<String> = mining.gpus.iter().map(label).collect();
                let told = rates.of_rig(&gpus, mining.threads, CpuBackend::best().name());
                in_farm_time(told, SHA256D, clock)
            }
            (RigMining::External(_), Some(keeper)) => keeper.told(&rates, clock),
            (RigMining::External(_), None) => Vec::new(),
        };
        Self { told, keeper }
    }

    /// For a report; `measured_at` in farm time.
    pub(super) fn told(&self) -> Vec<protocol::HashRate> {
        self.told.clone()
    }

    /// Takes the rate of now, or that there is none; an external miner's is written down when that is due.
    pub(super) fn look(&mut self, rate: Option<HashesPerSecond>, clock: FarmClock) {
        let Some(keeper) = &mut self.keeper else { return };
        let Some(figure) = keeper.look(Instant::now(), rate) else { return };
        let mut rates = HashRates::open(kept_folder().as_deref());
        rates.put(figure);
        rates.write();
        self.told = keeper.told(&rates, clock);
    }
}

/// Those of one algorithm, with the farm's time.
fn in_farm_time(
    rates: Vec<protocol::HashRate>,
    algorithm: &str,
    clock: FarmClock,
) -> Vec<protocol::HashRate> {
    let of_it = rates.into_iter().filter(|rate| rate.algorithm == algorithm);
    of_it
        .map(|rate| protocol::HashRate { measured_at: clock.at_wall(rate.measured_at), ..rate })
        .collect()
}

/// Keeps what an external miner says of its rate: it has no benchmark of ours, and the planner must know.
struct RateKeeper {
    backend: String,
    algorithm: String,
    hashing_since: Option<Instant>,
    kept_at: Option<Instant>,
}

impl RateKeeper {
    /// Of an external miner whose algorithm has a name.
    fn of(mining: &RigMining) -> Option<Self> {
        match mining {
            RigMining::External(external) if !external.algorithm.is_empty() => Some(Self {
                backend: external.profile.title.clone(),
                algorithm: external.algorithm.clone(),
                hashing_since: None,
                kept_at: None,
            }),
            RigMining::External(_) | RigMining::BuiltIn(_) => None,
        }
    }

    /// What is known of its algorithm.
    fn told(&self, rates: &HashRates, clock: FarmClock) -> Vec<protocol::HashRate> {
        // It drives all cards by itself, so nothing is added up.
        in_farm_time(rates.of_rig(&[], 0, ""), &self.algorithm, clock)
    }

    /// Takes the rate of now, or that there is none; a figure when one is to be kept.
    fn look(&mut self, now: Instant, rate: Option<HashesPerSecond>) -> Option<HashRate> {
        let Some(rate) = rate else {
            self.hashing_since = None;
            return None;
        };
        let passed = |since: Instant| now.saturating_duration_since(since);
        let is_steady = passed(*self.hashing_since.get_or_insert(now)) >= STEADY_AFTER;
        let is_due = self.kept_at.is_none_or(|at| passed(at) >= KEPT_EVERY);
        if !is_steady || !is_due {
            return None;
        }
        self.kept_at = Some(now);
        Some(HashRate {
            backend: self.backend.clone(),
            algorithm: self.algorithm.clone(),
            hashes_per_second: rate.0,
            milliwatts: None,
            measured_at: wall_now(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_once_it_is_steady_and_then_now_and_again() {
        let mut keeper = RateKeeper {
            backend: "T-Rex".into(),
            algorithm: "kawpow".into(),
            hashing_since: None,
            kept_at: None,
        };
        let began = Instant::now();
        let mut kept = |minutes: u64, rate: Option<u64>| {
            let now = began + Duration::from_mins(minutes);
            keeper.look(now, rate.map(HashesPerSecond)).map(|figure| figure.hashes_per_second)
        };
        assert_eq!((kept(0, Some(9)), kept(9, Some(9))), (None, None), "the cards get warm");
        assert_eq!(kept(9, None), None, "a break");
        assert_eq!((kept(10, Some(8)), kept(19, Some(8))), (None, None));
        assert_eq!(
            (kept(20, Some(7)), kept(21, Some(6)), kept(79, Some(6))),
            (Some(7), None, None)
        );
        assert_eq!(kept(80, Some(5)), Some(5));
    }
}
