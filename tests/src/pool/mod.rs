//! Stand-in of a Stratum V1 mining pool that really checks: every share is rebuilt to its header and hashed again.
//!
//! Its jobs are invented (no chain stands behind them), all else is as pools do it: an extranonce a connection, version
//! rolling by mask, a difficulty per job, stale, duplicate and low shares told apart. Hashing is real work, so the pool runs
//! in wall time; only `ntime` is farm time.
//!
//! Misbehaves on purpose, as pools have been seen to: difficulty and the first job arrive *before* the answer to
//! `mining.authorize`, difficulties are fractions and may jump between jobs, and a job may come between a share and its answer.
//! Worse things are done as [`Faults`] says.

pub mod connection;
pub mod difficulty;
pub mod faults;
pub mod job;
pub mod vardiff;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::FarmClock;
use difficulty::Target;
use faults::Faults;
use job::{Job, Solution};

/// Jobs of one block that are still good: pools keep some for shares under way (SRI's translator keeps 16).
const LIVE_JOBS_MAX: usize = 16;
/// Blocks told of in the status document, the newest.
const BLOCKS_MAX: usize = 64;
/// Connections served at once.
const CONNECTIONS_MAX: usize = 256;

/// The pool as the config file gives it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Share difficulty.
    pub difficulty: f64,
    /// Wall seconds between jobs.
    #[serde(default = "default_job_wall_seconds")]
    pub job_wall_seconds: f64,
    /// Jobs until somebody else finds the block and all earlier work is void.
    #[serde(default = "default_jobs_per_block")]
    pub jobs_per_block: u64,
    /// Difficulty of a whole block; absent: a thousand shares' worth.
    #[serde(default)]
    pub block_difficulty: Option<f64>,
    /// Difficulties taken in turn, one with every new job, instead of `difficulty` alone.
    #[serde(default)]
    pub difficulty_jumps: Vec<f64>,
    /// Wall seconds between two shares of a miner that its difficulty is moved to; absent: it is not moved.
    #[serde(default)]
    pub seconds_per_share: Option<f64>,
    /// What it does wrong from the start.
    #[serde(default)]
    pub faults: Faults,
}

fn default_job_wall_seconds() -> f64 {
    10.0
}

fn default_jobs_per_block() -> u64 {
    6
}

impl PoolConfig {
    /// The first value that makes no sense: its field, and what was expected there.
    #[must_use]
    pub fn first_fault(&self) -> Option<(&'static str, &'static str)> {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        if !positive(self.difficulty) {
            return Some(("difficulty", "a number above zero expected"));
        }
        if !(positive(self.job_wall_seconds) && self.job_wall_seconds <= 3_600.0) {
            return Some(("job_wall_seconds", "a number above 0 and up to 3600 expected"));
        }
        if self.jobs_per_block == 0 {
            return Some(("jobs_per_block", "a whole number above zero expected"));
        }
        if !self.block_difficulty.is_none_or(positive) {
            return Some(("block_difficulty", "a number above zero expected"));
        }
        if !self.difficulty_jumps.iter().copied().all(positive) {
            return Some(("difficulty_jumps", "numbers above zero expected"));
        }
        if !self.seconds_per_share.is_none_or(positive) {
            return Some(("seconds_per_share", "a number above zero expected"));
        }
        self.faults.first_fault()
    }

    fn network_bits(&self) -> u32 {
        let difficulty = self.block_difficulty.unwrap_or(self.difficulty * 1_000.0);
        Target::of_difficulty(difficulty).map_or(0, Target::to_bits)
    }

    /// Difficulty of the `n`-th job.
    fn difficulty_of_job(&self, n: u64) -> f64 {
        let count = u64::try_from(self.difficulty_jumps.len()).unwrap_or(0);
        n.checked_rem(count)
            .and_then(|place| self.difficulty_jumps.get(usize::try_from(place).ok()?))
            .copied()
            .unwrap_or(self.difficulty)
    }
}

/// The pool's part of the status document.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PoolStatus {
    /// Connections ever accepted.
    pub connections: u64,
    /// Shares received.
    pub submitted: u64,
    /// Shares that were good.
    pub accepted: u64,
    /// Shares that were not, by reason.
    pub rejected: Rejected,
    /// Sum of the difficulties of good shares.
    pub accepted_difficulty: f64,
    /// Good shares that met the network's target too.
    pub blocks: u64,
    /// The newest of them, oldest first.
    pub found: VecDeque<FoundBlock>,
    /// Workers named in `mining.authorize`, each once.
    pub workers: Vec<String>,
}

/// A share that met the network's target: all that whoever doubts it needs to hash it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundBlock {
    /// The job it is of.
    pub job: String,
    /// The 80 bytes of its header.
    pub header_hex: String,
    /// Its coinbase transaction, whole.
    pub coinbase_hex: String,
    /// From the coinbase up to the root, as hashed.
    pub branches_hex: Vec<String>,
    /// Version before rolling.
    pub version: u32,
}

impl FoundBlock {
    fn of(job: &Job, share: &Solution) -> Self {
        Self {
            job: job.id.clone(),
            header_hex: job::to_hex(&job.header(share)),
            coinbase_hex: job::to_hex(&job.coinbase(share)),
            branches_hex: job.branches.iter().map(|branch| job::to_hex(branch)).collect(),
            version: job.version,
        }
    }

    /// As computed.
    fn hash(&self) -> [u8; 32] {
        job::double_digest(&job::from_hex(&self.header_hex, 80).unwrap_or_default())
    }
}

/// Shares that were no good.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Rejected {
    /// For a job of an earlier block.
    pub stale: u64,
    /// Sent before.
    pub duplicate: u64,
    /// Hash above the share target.
    pub low_difficulty: u64,
    /// Unknown job, bad field, time or version out of range, not authorised.
    pub other: u64,
}

/// Why a share is no good, with the numbers pools use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Job of an earlier block.
    Stale,
    /// Same share twice.
    Duplicate,
    /// Hash above the target.
    LowDifficulty,
    /// Anything else, in words.
    Other(&'static str),
}

/// Jobs as the pool holds them.
#[derive(Debug)]
struct JobBook {
    live: VecDeque<(u64, Arc<Job>)>,
    next: u64,
    height: u64,
    /// Hash of the block that one of ours became, which the next builds on; none when somebody else found it.
    tip: Option<[u8; 32]>,
}

/// A running pool.
#[derive(Debug)]
pub struct Pool {
    config: PoolConfig,
    clock: FarmClock,
    address: SocketAddr,
    book: Mutex<JobBook>,
    status: Mutex<PoolStatus>,
    extranonces: AtomicU32,
    latest: watch::Sender<u64>,
    faults: watch::Sender<Faults>,
    /// Answers that a connection did not get before it ended.
    late: Mutex<Vec<Value>>,
}

/// Binds the pool and serves it until `stop`.
///
/// # Errors
/// What binding the address said.
pub async fn start(
    config: &PoolConfig,
    clock: FarmClock,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<Arc<Pool>> {
    let listener = TcpListener::bind(config.listen).await?;
    let pool = Arc::new(Pool {
        config: config.clone(),
        clock,
        address: listener.local_addr()?,
        book: Mutex::new(JobBook { live: VecDeque::new(), next: 1, height: 1, tip: None }),
        status: Mutex::default(),
        extranonces: AtomicU32::new(0x2b00_0001),
        latest: watch::Sender::new(0),
        faults: watch::Sender::new(config.faults.clone()),
        late: Mutex::default(),
    });
    pool.make_job(true);
    tasks.spawn(Arc::clone(&pool).keep_making_jobs(stop.clone()));
    tasks.spawn(Arc::clone(&pool).accept(listener, stop.clone()));
    Ok(pool)
}

impl Pool {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its part of the status document.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.counters().clone()
    }

    /// Changes what it does wrong, from the next thing said on.
    pub fn misbehave(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }

    /// Makes a job at once; with `new_block` somebody else has found the one before.
    pub fn next_job(&self, new_block: bool) {
        if new_block {
            self.book().tip = None;
        }
        self.make_job(new_block);
    }

    fn faults(&self) -> Faults {
        self.faults.borrow().clone()
    }

    /// Jobs like this one that are void from the start.
    fn void_jobs(&self, like: &Job, count: u32) -> Vec<Job> {
        let mut book = self.book();
        let first = book.next;
        book.next += u64::from(count);
        let of = |n| Job { id: format!("{n:x}"), clean: false, ..like.clone() };
        (first..book.next).map(of).collect()
    }

    fn remember_answers(&self, answers: Vec<Value>) {
        if self.faults().answers_late {
            *self.late.lock().unwrap_or_else(PoisonError::into_inner) = answers;
        }
    }

    fn remembered_answers(&self) -> Vec<Value> {
        std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn keep_making_jobs(self: Arc<Self>, stop: CancellationToken) {
        let pause = Duration::from_secs_f64(self.config.job_wall_seconds);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let next = self.book().next;
            self.next_job(next.is_multiple_of(self.config.jobs_per_block));
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of descriptors or alike: let some go before the next try.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                continue;
            };
            self.counters().connections += 1;
            let (pool, stop) = (Arc::clone(&self), stop.clone());
            tokio::spawn(async move {
                let _slot = slot;
                tokio::select! {
                    () = stop.cancelled() => {}
                    ended = connection::serve(stream, pool) => {
                        if let Err(error) = ended {
                            tracing::debug!(%peer, %error, "a miner's connection ended");
                        }
                    }
                }
            });
        }
    }

    /// Makes the next job, of a new block if `new_block`, and tells every connection.
    fn make_job(&self, new_block: bool) {
        let seconds = self.clock.now().0.div_euclid(1_000) + self.faults().seconds_off;
        let time = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        let mut book = self.book();
        if new_block {
            book.height += 1;
            book.live.clear();
        }
        let n = book.next;
        book.next += 1;
        let mut job = Job::invented(n, book.height, self.config.network_bits(), time, new_block);
        job.previous_hash = book.tip.unwrap_or(job.previous_hash);
        if book.live.len() == LIVE_JOBS_MAX {
            book.live.pop_front();
        }
        book.live.push_back((n, Arc::new(job)));
        drop(book);
        self.latest.send_replace(n);
    }

    /// The newest job and its number.
    fn newest(&self) -> Option<(u64, Arc<Job>)> {
        self.book().live.back().cloned()
    }

    /// The job of this name.
    ///
    /// # Errors
    /// [`Rejection::Stale`] when it is void, [`Rejection::Other`] when there never was one.
    fn find(&self, id: &str) -> Result<(u64, Arc<Job>), Rejection> {
        let book = self.book();
        if let Some(found) = book.live.iter().find(|(_, job)| job.id == id) {
            return Ok(found.clone());
        }
        let was_issued = u64::from_str_radix(id, 16).is_ok_and(|n| n > 0 && n < book.next);
        Err(if was_issued { Rejection::Stale } else { Rejection::Other("no such job") })
    }

    fn next_extranonce(&self) -> [u8; 4] {
        self.extranonces.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }

    fn count_accepted(&self, difficulty: f64, block: Option<FoundBlock>) {
        let is_block = block.is_some();
        let mut status = self.counters();
        status.submitted += 1;
        status.accepted += 1;
        status.accepted_difficulty += difficulty;
        status.blocks += u64::from(is_block);
        let tip = block.as_ref().map(FoundBlock::hash);
        status.found.extend(block);
        while status.found.len() > BLOCKS_MAX {
            status.found.pop_front();
        }
        drop(status);
        if is_block {
            self.book().tip = tip;
            self.make_job(true);
        }
    }

    fn count_rejected(&self, reason: Rejection) {
        let mut status = self.counters();
        status.submitted += 1;
        let rejected = &mut status.rejected;
        match reason {
            Rejection::Stale => rejected.stale += 1,
            Rejection::Duplicate => rejected.duplicate += 1,
            Rejection::LowDifficulty => rejected.low_difficulty += 1,
            Rejection::Other(_) => rejected.other += 1,
        }
    }

    fn book(&self) -> MutexGuard<'_, JobBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> MutexGuard<'_, PoolStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
