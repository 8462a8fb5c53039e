//! The miner of a GPU rig, our own or somebody else's, behind one pair of hands.

use std::time::{Duration, Instant};

use roadbed_protocol::{HashesPerSecond, JobCounters, PoolReport};

use crate::clock::wall_now;
use crate::config::RigMining;
use crate::miner::MinerHandle;
use crate::miner::external::ExternalHandle;
use crate::miner::external::supervisor::Ended;
use crate::miner::rates::HashRate;

/// An external miner's rate is its usual one after this long without a break: cards get warm and slower, DAGs are built.
const STEADY_AFTER: Duration = Duration::from_mins(10);
/// Between two figures of it that are kept.
const KEPT_EVERY: Duration = Duration::from_mins(60);

/// A miner that runs.
pub(super) enum RigMiner {
    /// Our own SHA-256d.
    BuiltIn(MinerHandle),
    /// A supervised program.
    External(Box<ExternalHandle>),
}

/// What a rig's miner shows now.
#[derive(Default)]
pub(super) struct Shown {
    /// A pool has let it in and it has a rate.
    pub(super) hashing: bool,
    pub(super) hashrate: HashesPerSecond,
    pub(super) counters: JobCounters,
    pub(super) pools: Vec<PoolReport>,
    /// Why it does not hash; empty while it does.
    pub(super) trouble: String,
    /// It has given up.
    pub(super) alarm: bool,
}

impl RigMiner {
    pub(super) fn shown(&self) -> Shown {
        match self {
            Self::BuiltIn(miner) => {
                let stats = miner.stats();
                Shown {
                    hashing: stats.mining && stats.hashrate > HashesPerSecond::ZERO,
                    hashrate: stats.hashrate,
                    counters: stats.counters(),
                    pools: stats.pool_reports(),
                    trouble: stats.trouble,
                    alarm: false,
                }
            }
            Self::External(miner) => {
                let status = miner.status();
                Shown {
                    hashing: status.hashing,
                    hashrate: status.hashrate(),
                    counters: status.counters(),
                    pools: Vec::from_iter(miner.pool_report()),
                    trouble: status.trouble,
                    alarm: status.alarm,
                }
            }
        }
    }

    /// What hashes and for whom, for reports.
    pub(super) fn name(&self) -> String {
        match self {
            Self::BuiltIn(miner) => match miner.pool() {
                Some(pool) => format!("sha256d for {pool}"),
                None => "sha256d".into(),
            },
            Self::External(miner) => miner.description(),
        }
    }

    /// Ends it in good order. Returns at once.
    pub(super) fn stop(&self) {
        match self {
            Self::BuiltIn(miner) => miner.stop(),
            Self::External(miner) => miner.stop(),
        }
    }

    /// Ends it by the quickest means. Returns at once.
    pub(super) fn cut(&self) {
        match self {
            Self::BuiltIn(miner) => miner.stop(),
            Self::External(miner) => miner.cut(),
        }
    }

    /// Waits until it has ended and the GPU is free, as far as anybody tells. To be called after [`Self::stop`].
    ///
    /// # Errors
    /// What of it is still there.
    pub(super) async fn ended(&self) -> Result<(), String> {
        match self {
            Self::BuiltIn(miner) => match miner.silence().await {
                true => Ok(()),
                false => Err("hash threads do not end".into()),
            },
            Self::External(miner) => {
                match miner.ended().await? {
                    Ended::NeverRan | Ended::Confirmed => {}
                    Ended::NotConfirmed => tracing::warn!(
                        miner = miner.description(),
                        "every process is gone; that its GPU memory is free is not confirmed, nobody here tells"
                    ),
                }
                Ok(())
            }
        }
    }
}

/// Keeps what an external miner says of its rate: it has no benchmark of ours, and the planner must know.
pub(super) struct RateKeeper {
    backend: String,
    algorithm: String,
    hashing_since: Option<Instant>,
    kept_at: Option<Instant>,
}

impl RateKeeper {
    /// Of an external miner whose algorithm has a name.
    pub(super) fn of(mining: &RigMining) -> Option<Self> {
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

    /// Takes the rate of now, or that there is none; a figure when one is to be kept.
    pub(super) fn look(&mut self, now: Instant, rate: Option<HashesPerSecond>) -> Option<HashRate> {
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
