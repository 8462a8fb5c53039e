//! The built-in miner: clients of pools and hash threads.
//!
//! A [`dialect`] is a pool's language, without a socket: [`stratum1`] is one. [`link`] is the socket;
//! [`hasher`] are the threads. Hashing on a CPU or GPU is a proof that the whole way from a job to an accepted share
//! works, not income: one ASIC out-hashes ten thousand cards.
//!
//! ```text
//! pool <-> link <-> dialect --(work)--> board <- hash threads
//!            ^---------------(finds)----------------+
//! ```

pub mod address;
pub mod dialect;
pub mod share;
pub mod stratum1;
pub mod work;

mod hasher;
mod link;
mod meter;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roadbed_compute::hash::{CpuBackend, HashBackend};
use roadbed_protocol::{HashesPerSecond, JobCounters};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::PoolConfig;
use address::PoolProtocol;
use dialect::{Dialect, Login};
use hasher::Board;
use link::Link;
use meter::HashMeter;
use share::ShareTally;
use stratum1::Session;
use work::WorkNumbers;

/// Finds under way from the threads to the pool. At a sane difficulty there is one a second; more
/// than this a moment means a difficulty far too low, and the rest is dropped and counted.
const FINDS_MAX: usize = 256;
/// Longest wait for the threads to fall silent: several chunks on a starved core.
const SILENCE_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks whether they have.
const SILENCE_POLL: Duration = Duration::from_millis(2);
/// Most hash threads: no machine an agent runs on has more.
const THREADS_MAX: usize = 512;

/// What a miner is doing and has done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MinerStats {
    /// The socket is open.
    pub connected: bool,
    /// The pool has let us in.
    pub mining: bool,
    /// Difficulty of the newest work.
    pub difficulty: f64,
    /// Hashes done.
    pub hashes: u64,
    /// Mean of the last seconds, of hashes really done.
    pub hashrate: HashesPerSecond,
    /// Shares by what became of them.
    pub shares: ShareTally,
    /// Jobs received.
    pub jobs: u64,
    /// Connections made.
    pub connections: u64,
    /// Lines of the pool that were no Stratum.
    pub garbage: u64,
    /// Why it does not mine now; empty while it does.
    pub trouble: String,
}

impl MinerStats {
    /// The part of a rig's counters that mining fills.
    #[must_use]
    pub fn counters(&self) -> JobCounters {
        self.shares.counters()
    }
}

/// Why a miner could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// The operating system gives no more threads.
    #[error("cannot start a hash thread: {0}")]
    Threads(#[from] std::io::Error),
    /// A pool whose protocol is not spoken.
    #[error("{0} is not spoken by this agent")]
    Protocol(&'static str),
}

/// The built-in miner.
pub struct Miner;

impl Miner {
    /// Starts mining for `pool` on its number of CPU threads, on the current tokio runtime. The
    /// pool need not be there yet.
    ///
    /// # Errors
    /// When no threads can be started.
    pub fn start(pool: &PoolConfig) -> Result<MinerHandle, MinerError> {
        let threads = pool.threads.clamp(1, THREADS_MAX);
        let cpu = |_| Box::new(CpuBackend::best()) as Box<dyn HashBackend>;
        Self::start_on(pool, (0..threads).map(cpu).collect())
    }

    /// The same on given backends, one thread each.
    ///
    /// # Errors
    /// When no threads can be started.
    pub fn start_on(
        pool: &PoolConfig,
        backends: Vec<Box<dyn HashBackend>>,
    ) -> Result<MinerHandle, MinerError> {
        let dialect = dialect(pool, WorkNumbers::of_pool(0))?;
        let (sender, finds) = mpsc::channel(FINDS_MAX);
        let board = Board::new(backends.len(), sender);
        let threads = hasher::spawn(&board, backends)?;
        let (stats, seen) = watch::channel(MinerStats::default());
        let stop = CancellationToken::new();
        let link = Link {
            dialect,
            address: pool.address.clone(),
            board: board.clone(),
            finds,
            stats,
            stop: stop.clone(),
            began: Instant::now(),
            meter: HashMeter::default(),
        };
        tokio::spawn(link.run());
        Ok(MinerHandle { board, threads, stats: seen, stop })
    }
}

/// The language of a pool, before the first connection.
fn dialect(pool: &PoolConfig, numbers: WorkNumbers) -> Result<Box<dyn Dialect>, MinerError> {
    let login = Login {
        address: pool.address.clone(),
        user: pool.user.clone(),
        password: pool.password.clone(),
        suggest_difficulty: None,
        follow_to_other_hosts: false,
    };
    match pool.address.protocol {
        PoolProtocol::StratumV1 => Ok(Box::new(Session::new(login, numbers))),
        PoolProtocol::StratumV1Tls => Err(MinerError::Protocol("Stratum V1 in TLS")),
        PoolProtocol::StratumV2 { authority: _ } => Err(MinerError::Protocol("Stratum V2")),
    }
}

/// A running miner; dropping it stops it.
pub struct MinerHandle {
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
    stats: watch::Receiver<MinerStats>,
    stop: CancellationToken,
}

impl MinerHandle {
    /// What it is doing and has done.
    #[must_use]
    pub fn stats(&self) -> MinerStats {
        let mut stats = self.stats.borrow().clone();
        stats.hashes = self.board.hashes();
        stats.shares.stale_unsent += self.board.lost_finds();
        if self.board.is_silent() {
            stats.hashrate = HashesPerSecond::ZERO;
        }
        stats
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
