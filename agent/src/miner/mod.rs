//! The built-in miner: clients of pools and hash threads.
//!
//! A [`dialect`] is a pool's language, without a socket: [`stratum1`] and [`stratum2`] are two. Each pool of the list has a line, which owns
//! its socket; [`pools`] decides, without a clock, which of them is hashed for; the switchboard stands between them and the
//! threads. Hashing on a CPU or GPU is a proof that the whole way from a job to an accepted share works, not income: one
//! ASIC out-hashes ten thousand cards.
//!
//! ```text
//! pool <-> line (socket, dialect) --work--> switchboard --work--> board <- hash threads
//!               ^--------------finds----------- ^ ------finds-------+
//!                                             pools (which one)
//! ```

pub mod dialect;
pub mod external;
pub mod pools;
pub mod rates;
pub mod share;
pub mod stratum1;
pub mod stratum2;
pub mod work;

pub(crate) mod hasher;
mod line;
mod meter;
mod switchboard;
mod tls;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roadbed_compute::AdapterChoice;
use roadbed_compute::hash::{BackendKind, CpuBackend, HashBackend, HashError};
use roadbed_protocol::{
    HashesPerSecond, JobCounters, Millis, POOLS_REPORTED_MAX, PoolReport, PoolStanding,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::config::{AuthorityKey, PoolAddress};
use crate::config::{MiningConfig, PoolConfig, PoolProtocol};
use crate::engine::kept::kept_folder;
use dialect::{Dialect, DialectReport};
use hasher::Board;
use line::Line;
use meter::HashMeter;
use pools::{Pools, Rank};
use share::ShareTally;
use stratum1::Session;
use switchboard::{LineEnd, Switchboard, Switched};
use work::WorkNumbers;

/// Finds under way from the threads to the pool. At a sane difficulty there is one a second; more
/// than this a moment means a difficulty far too low, and the rest is dropped and counted.
const FINDS_MAX: usize = 256;
/// Events under way from the lines; the switchboard does nothing that takes time.
const EVENTS_MAX: usize = 64;
/// Longest wait for the threads to fall silent: several chunks on a starved core.
const SILENCE_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks whether they have.
const SILENCE_POLL: Duration = Duration::from_millis(2);
/// Most hash threads: no machine an agent runs on has more.
const THREADS_MAX: usize = 512;

/// Tells the time since the miner's start.
pub type MinerClock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// What a pool's connection is doing and has done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolStats {
    /// Its address.
    pub url: String,
    /// The socket is open.
    pub connected: bool,
    /// What the dialect tells.
    pub report: DialectReport,
    /// Connections made.
    pub connections: u64,
    /// Hashes done for it.
    pub hashes: u64,
    /// Why it does not let us mine now; empty while it does.
    pub trouble: String,
}

/// What a miner is doing and has done; sums are over all pools.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MinerStats {
    /// A socket is open.
    pub connected: bool,
    /// A pool has let us in and is hashed for.
    pub mining: bool,
    /// Place in the list of the pool that is hashed for.
    pub hash_for: Option<usize>,
    /// Difficulty of its newest work.
    pub difficulty: f64,
    /// Hashes done.
    pub hashes: u64,
    /// Mean of the last seconds, of hashes really done.
    pub hashrate: HashesPerSecond,
    /// The same of each thread, GPUs first.
    pub threads: Vec<HashesPerSecond>,
    /// Shares by what became of them.
    pub shares: ShareTally,
    /// Jobs received.
    pub jobs: u64,
    /// Connections made.
    pub connections: u64,
    /// Lines or frames that could not be understood.
    pub garbage: u64,
    /// Why it does not mine now; empty while it does.
    pub trouble: String,
    /// Every pool, in the order of the list.
    pub pools: Vec<PoolStats>,
}

impl MinerStats {
    /// The part of a rig's counters that mining fills.
    #[must_use]
    pub fn counters(&self) -> JobCounters {
        self.shares.counters()
    }

    /// What a rig's report tells of its pools.
    #[must_use]
    pub fn pool_reports(&self) -> Vec<PoolReport> {
        let report = |(place, pool): (usize, &PoolStats)| {
            let standing = match (self.hash_for == Some(place), pool.report.mining, pool.connected)
            {
                (true, _, _) => PoolStanding::Hashing,
                (false, true, _) => PoolStanding::StandingBy,
                (false, false, true) => PoolStanding::Connecting,
                (false, false, false) => PoolStanding::Away,
            };
            PoolReport {
                url: pool.url.clone(),
                standing,
                hashes: pool.hashes,
                // A float beyond the range becomes its end.
                difficulty_millionths: (pool.report.difficulty * 1e6).round() as u64,
                shares: pool.report.shares.pool_shares(),
                answer_after: pool.report.answer_after,
                trouble: pool.trouble.clone(),
            }
            .bounded()
        };
        self.pools.iter().enumerate().take(POOLS_REPORTED_MAX).map(report).collect()
    }
}

/// Why a miner could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// The operating system gives no more threads.
    #[error("cannot start a hash thread: {0}")]
    Threads(#[from] std::io::Error),
    /// A GPU that shall hash does not.
    #[error("GPU {gpu} cannot hash: {error}")]
    Gpu {
        /// As configured.
        gpu: String,
        /// Why not.
        error: HashError,
    },
}

/// The built-in miner.
pub struct Miner;

impl Miner {
    /// Starts mining on the configured threads and GPUs, on the current tokio runtime, for a workload of this name. No
    /// pool need be there yet. Opening a GPU blocks for seconds the first time: see [`Self::open`].
    ///
    /// # Errors
    /// When a thread or GPU cannot be used.
    pub fn start(config: &MiningConfig, workload: &str) -> Result<MinerHandle, MinerError> {
        let backends = Self::open(config, &AtomicBool::new(false))?;
        Self::start_on(config, workload, backends)
    }

    /// Makes everything ready that shall hash. The first time on a GPU its forms of the kernel are tried out, for seconds
    /// at full load; a raised `stop` ends that within one form.
    ///
    /// # Errors
    /// When a GPU cannot be used, or it was told to stop.
    pub fn open(
        config: &MiningConfig,
        stop: &AtomicBool,
    ) -> Result<Vec<Box<dyn HashBackend>>, MinerError> {
        let mut backends: Vec<Box<dyn HashBackend>> = Vec::new();
        for gpu in &config.gpus {
            let Ok(adapter) = gpu.parse::<AdapterChoice>();
            let backend = BackendKind::Gpu.open(&adapter, kept_folder().as_deref(), stop);
            backends.push(backend.map_err(|error| MinerError::Gpu { gpu: gpu.clone(), error })?);
        }
        for _ in 0..config.threads.min(THREADS_MAX) {
            backends.push(Box::new(CpuBackend::best()));
        }
        Ok(backends)
    }

    /// As [`Self::start`] on given backends, one thread each.
    ///
    /// # Errors
    /// When no threads can be started.
    pub fn start_on(
        config: &MiningConfig,
        workload: &str,
        backends: Vec<Box<dyn HashBackend>>,
    ) -> Result<MinerHandle, MinerError> {
        let began = Instant::now();
        let since = move || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self::start_by(config, workload, backends, Arc::new(move || Millis(since())))
    }

    /// As [`Self::start_on`] by another clock than this machine's, which all patience with pools goes by; sockets,
    /// certificates and the waits between two connections stay on the wall.
    ///
    /// # Errors
    /// When no threads can be started.
    pub fn start_by(
        config: &MiningConfig,
        workload: &str,
        backends: Vec<Box<dyn HashBackend>>,
        clock: MinerClock,
    ) -> Result<MinerHandle, MinerError> {
        let (sender, finds) = mpsc::channel(FINDS_MAX);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (told_of, events) = mpsc::channel(EVENTS_MAX);
        let hashes = vec![0; config.pools.len()];
        let (told, switched) = watch::channel(Switched { hashes, ..Switched::default() });
        let (mut lines, mut ends, mut stats) = (Vec::new(), Vec::new(), Vec::new());
        for (place, pool) in config.pools.iter().enumerate() {
            let (wanted, wants) = watch::channel(false);
            let (finds_to, finds) = mpsc::channel(FINDS_MAX);
            let (shown, seen) = watch::channel(PoolStats::default());
            lines.push(Line {
                pool: place,
                dialect: dialect(pool, workload, WorkNumbers::of_pool(place)),
                place: (pool.address.host.clone(), pool.address.port),
                tls: (pool.address.protocol == PoolProtocol::StratumV1Tls)
                    .then(|| tls::connector(&pool.trust)),
                wanted: wants,
                finds,
                events: told_of.clone(),
                stats: shown,
                switched: switched.clone(),
                meter: HashMeter::default(),
                clock: clock.clone(),
            });
            ends.push(LineEnd { wanted, finds: finds_to, work: None });
            stats.push((pool.address.clone(), seen));
        }
        let board = Board::new(backends.len(), sender);
        let threads = hasher::spawn(&board, backends)?;
        let rank = |pool: &PoolConfig| Rank { priority: pool.priority, weight: pool.weight };
        let switchboard = Switchboard {
            pools: Pools::new(config.pools.iter().map(rank)),
            lines: ends,
            events,
            finds,
            board: board.clone(),
            told,
            stop: stop.clone(),
            clock,
            meter: HashMeter::default(),
            credited: 0,
        };
        tokio::spawn(switchboard.run());
        for line in lines {
            let stop = stop.clone();
            tasks.spawn(line.run(stop));
        }
        tasks.close();
        Ok(MinerHandle { board, threads, pools: stats, switched, stop, lines: tasks })
    }
}

/// The language of a pool, before the first connection.
fn dialect(pool: &PoolConfig, workload: &str, numbers: WorkNumbers) -> Box<dyn Dialect> {
    let pool = PoolConfig { user: pool.user.replace("{workload}", workload), ..pool.clone() };
    match pool.address.protocol {
        PoolProtocol::StratumV1 | PoolProtocol::StratumV1Tls => {
            Box::new(Session::new(pool, numbers))
        }
        PoolProtocol::StratumV2 { identity, channel } => {
            Box::new(stratum2::Session::new(pool, identity, channel, numbers, unix_seconds))
        }
    }
}

/// Time of day in seconds since 1970; by it certificates are valid.
fn unix_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    u32::try_from(since).unwrap_or(u32::MAX)
}

/// A running miner; dropping it stops it.
pub struct MinerHandle {
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
    pools: Vec<(PoolAddress, watch::Receiver<PoolStats>)>,
    switched: watch::Receiver<Switched>,
    stop: CancellationToken,
    lines: TaskTracker,
}

impl MinerHandle {
    /// What it is doing and has done.
    #[must_use]
    pub fn stats(&self) -> MinerStats {
        let switched = self.switched.borrow().clone();
        let hashes = self.board.hashes();
        let mut stats = MinerStats {
            hash_for: switched.hash_for,
            hashes,
            hashrate: switched.hashrate,
            threads: self.board.rates(),
            ..MinerStats::default()
        };
        let mut troubles = Vec::new();
        for (place, (address, seen)) in self.pools.iter().enumerate() {
            let mut pool = seen.borrow().clone();
            pool.url = address.to_string();
            pool.hashes = switched.hashes.get(place).copied().unwrap_or(0);
            stats.connected |= pool.connected;
            if switched.hash_for == Some(place) {
                (stats.mining, stats.difficulty) = (pool.report.mining, pool.report.difficulty);
            }
            stats.shares += pool.report.shares;
            stats.jobs += pool.report.jobs;
            stats.garbage += pool.report.garbage;
            stats.connections += pool.connections;
            if !pool.trouble.is_empty() {
                troubles.push(format!("{address}: {}", pool.trouble));
            }
            stats.pools.push(pool);
        }
        if !stats.mining {
            stats.trouble = troubles.join("; ");
        }
        stats.shares.held_back += self.board.lost_finds() + switched.lost_finds;
        if self.board.is_silent() || switched.ended {
            stats.hashrate = HashesPerSecond::ZERO;
        }
        stats
    }

    /// The pool that is hashed for.
    #[must_use]
    pub fn pool(&self) -> Option<&PoolAddress> {
        let place = self.switched.borrow().hash_for?;
        self.pools.get(place).map(|(address, _)| address)
    }

    /// Silences the threads; the connection and the job stay. Returns at once.
    pub fn pause(&self) {
        self.board.pause(true);
    }

    /// Hashes again.
    pub fn resume(&self) {
        self.board.pause(false);
    }

    /// Ends the threads and the connection. Returns at once; the threads fall silent within a
    /// chunk, tens of milliseconds.
    pub fn stop(&self) {
        self.board.stop();
        self.stop.cancel();
    }

    /// Whether no thread hashes now.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.board.is_silent()
    }

    /// After [`Self::stop`], waits until every pool was told that we leave, or has not listened for half a second.
    pub async fn left(&self) {
        self.lines.wait().await;
    }

    /// Waits until no thread hashes; false when that takes implausibly long.
    pub async fn silence(&self) -> bool {
        let began = Instant::now();
        while !self.board.is_silent() {
            if began.elapsed() > SILENCE_WITHIN {
                return false;
            }
            tokio::time::sleep(SILENCE_POLL).await;
        }
        true
    }
}

impl Drop for MinerHandle {
    fn drop(&mut self) {
        self.stop();
        // Joined by nobody: they end within a chunk, and a drop must not wait for them.
        self.threads.clear();
    }
}
