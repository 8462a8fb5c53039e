//! The miner of a GPU rig, our own or somebody else's, behind one pair of hands.

use roadbed_protocol::{HashesPerSecond, JobCounters, PoolReport};

use crate::miner::MinerHandle;
use crate::miner::external::ExternalHandle;
use crate::miner::external::supervisor::Ended;

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
