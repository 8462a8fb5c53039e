//! A miner that costs little and goes by a clock the test sets, and stand-in pools for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use farm_tests::clock::FarmClock;
use farm_tests::pool::faults::Faults;
use farm_tests::pool::{Pool, PoolConfig as PoolSetup};
use roadbed_agent::config::{MiningConfig, PoolConfig};
use roadbed_agent::miner::share::ShareTally;
use roadbed_agent::miner::{Miner, MinerHandle, MinerStats};
use roadbed_compute::hash::{CpuBackend, HashBackend, HashError, Hit, ScanJob};
use roadbed_protocol::{Millis, UnixMillis};
use tokio::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::until;

/// One share in about 430,000 hashes: some a second for a [`Paced`] thread.
pub const SOME: f64 = 1e-4;
/// What a paced thread hashes at once, and how long it rests after that.
const CHUNK: u32 = 16_384;
const REST: Duration = Duration::from_millis(3);

/// A processor's thread that rests most of the time.
struct Paced(CpuBackend);

impl HashBackend for Paced {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn chunk(&self) -> u32 {
        CHUNK
    }

    fn scan_chunk(
        &mut self,
        job: &ScanJob,
        start: u32,
        count: u32,
        hits: &mut Vec<Hit>,
    ) -> Result<(), HashError> {
        std::thread::sleep(REST);
        self.0.scan_chunk(job, start, count, hits)
    }
}

/// A running miner and its clock.
pub struct PacedMiner {
    pub handle: MinerHandle,
    began: Instant,
    /// Milliseconds that its clock is ahead of this machine's.
    ahead: Arc<AtomicI64>,
}

impl PacedMiner {
    pub fn start(pools: Vec<PoolConfig>) -> Self {
        let (began, ahead) = (Instant::now(), Arc::new(AtomicI64::new(0)));
        let own = ahead.clone();
        let now = move || {
            let passed = i64::try_from(began.elapsed().as_millis()).unwrap();
            Millis(u64::try_from(passed + own.load(Ordering::SeqCst)).unwrap_or(0))
        };
        let config = MiningConfig { threads: 1, gpus: vec![], pools };
        let backends: Vec<Box<dyn HashBackend>> = vec![Box::new(Paced(CpuBackend::best()))];
        let handle = Miner::start_by(&config, "mine", backends, Arc::new(now)).unwrap();
        Self { handle, began, ahead }
    }

    pub fn jump(&self, seconds: i64) {
        self.ahead.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }

    /// Sets the clock to what it showed at the start.
    pub fn jump_to_the_start(&self) {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap();
        self.ahead.store(-passed, Ordering::SeqCst);
    }

    pub async fn until(&self, wanted: impl Fn(&MinerStats) -> bool) -> MinerStats {
        until(&self.handle, wanted).await
    }

    /// So many more shares are accepted, whoever takes them.
    pub async fn accepted(&self, more: u64) -> MinerStats {
        let want = self.handle.stats().shares.accepted + more;
        self.until(|stats| stats.shares.accepted >= want).await
    }

    /// Lets time pass in steps short enough that no pool seems silent: each waits until a share was answered and every
    /// Stratum V1 pool has said something.
    pub async fn pass(&self, seconds: i64, pools: &[&StandIn]) {
        for _ in 0..(seconds + 9) / 10 {
            self.jump(10);
            for pool in pools {
                pool.0.next_job(false);
            }
            self.accepted(1).await;
        }
    }

    /// The books after everything has ended: each share in one column.
    pub async fn end(self) -> MinerStats {
        self.handle.stop();
        assert!(self.handle.silence().await);
        self.handle.left().await;
        let stats = self.handle.stats();
        for pool in &stats.pools {
            let ShareTally { submitted, accepted, unanswered, .. } = pool.report.shares;
            assert_eq!(
                submitted,
                accepted + pool.report.shares.rejected() + unanswered,
                "{pool:?}"
            );
        }
        stats
    }
}

/// The stand-in pool, alone with its faults; it dies when dropped.
pub struct StandIn(
    pub Arc<Pool>,
    #[expect(dead_code, reason = "its drop ends the pool")] DropGuard,
);

impl StandIn {
    pub async fn start(difficulty: f64) -> Self {
        let setup = PoolSetup {
            listen: "127.0.0.1:0".parse().unwrap(),
            difficulty,
            job_wall_seconds: 3_600.0,
            jobs_per_block: 1_000_000,
            block_difficulty: Some(1e9),
            difficulty_jumps: Vec::new(),
            seconds_per_share: None,
            faults: Faults::default(),
        };
        let stop = CancellationToken::new();
        let clock = FarmClock::starting_at(UnixMillis(1_700_000_000_000), 1.0);
        let pool = farm_tests::pool::start(&setup, clock, &stop, &TaskTracker::new()).await;
        Self(pool.unwrap(), stop.drop_guard())
    }

    pub fn config(&self, priority: u32) -> PoolConfig {
        let address = format!("stratum+tcp://{}", self.0.address());
        PoolConfig { priority, ..PoolConfig::new(address.parse().unwrap(), "farm.rig", "x") }
    }

    pub fn misbehave(&self, change: impl FnOnce(&mut Faults)) {
        self.0.misbehave(change);
    }
}
