//! The hash threads as the miner runs them: two beside one, how soon a new job is hashed, how soon all are silent.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use roadbed_compute::hash::{
    CpuBackend, Extranonce, HashBackend, HashError, Hit, Job, ScanJob, Target,
};
use rustix::time::ClockId;
use serde::Serialize;
use serde_json::json;

use super::hash::cpu_time;
use super::median;
use crate::miner::hasher::{self, Board};
use crate::miner::work::{Source, Work};

/// New jobs that are timed, and stops: enough for a 99th percentile.
const TRIALS: usize = 200;
/// Time between two of them, so that every thread is in the midst of a chunk.
const BETWEEN: Duration = Duration::from_millis(7);
/// Wall time of a turn of one thread or two.
const TURN: Duration = Duration::from_millis(150);
/// Longest wait for a thread.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long something took, of many trials.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Promptness {
    median_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    trials: usize,
}

impl Promptness {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let index = (share * times.len() as f64).ceil() as usize;
            times.get(index.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { median_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0), trials: times.len() }
    }
}

impl fmt::Display for Promptness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median_ms, p99_ms, max_ms, trials } = self;
        write!(
            f,
            "median {median_ms:.2} ms, p99 {p99_ms:.2} ms, longest {max_ms:.2} ms of {trials}"
        )
    }
}

/// Two threads beside one.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Scaling {
    /// By the wall: what the machine had left.
    by_wall: f64,
    /// By CPU time: twice what a second thread costs the first.
    by_cpu_time: f64,
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} x by CPU time, {:.2} x by the wall", self.by_cpu_time, self.by_wall)
    }
}

/// Two threads by one, turn by turn; the ratios are medians.
pub(super) fn two_by_one(rounds: u32) -> anyhow::Result<Scaling> {
    let (mut walls, mut by_cpu) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (one, one_by_cpu) = rates(1)?;
        let (two, two_by_cpu) = rates(2)?;
        walls.push(two / one);
        by_cpu.push(2.0 * two_by_cpu / one_by_cpu);
    }
    Ok(Scaling { by_wall: median(walls), by_cpu_time: median(by_cpu) })
}

/// Hashes a second of some threads by the wall, and by a CPU second.
fn rates(threads: usize) -> anyhow::Result<(f64, f64)> {
    let backends = (0..threads).map(|_| Box::new(CpuBackend::best()) as Box<dyn HashBackend>);
    let run = Run::start(backends.collect())?;
    run.board.give(Some(work(0)?));
    let (began, cpu) = (Instant::now(), cpu_time(ClockId::ProcessCPUTime));
    let before = run.board.hashes();
    std::thread::sleep(TURN);
    let hashes = (run.board.hashes() - before) as f64;
    let spent = cpu_time(ClockId::ProcessCPUTime) - cpu;
    Ok((hashes / began.elapsed().as_secs_f64(), hashes / spent.max(1e-9)))
}

/// From a notify's text to the first nonce of its job in the last thread to take it up, and from a pause to silence.
pub(super) fn promptness(
    backends: Vec<Box<dyn HashBackend>>,
) -> anyhow::Result<(Promptness, Promptness)> {
    let threads = backends.len();
    let (sender, begun) = channel();
    let probe = |inner| Box::new(Probe { inner, last: [0; 3], begun: sender.clone() }) as Box<_>;
    let run = Run::start(backends.into_iter().map(probe).collect())?;
    let mut switches = Vec::with_capacity(TRIALS);
    for number in 0..TRIALS {
        let line = notify(number as u64);
        let began = Instant::now();
        run.board.give(Some(work_of(&line)?));
        switches.push(last_of(&begun, threads)?.duration_since(began));
        std::thread::sleep(BETWEEN);
    }
    let mut silences = Vec::with_capacity(TRIALS);
    for _ in 0..TRIALS {
        let began = Instant::now();
        run.board.pause(true);
        while !run.board.is_silent() {
            anyhow::ensure!(began.elapsed() < WAIT_MAX, "a hash thread does not stop");
            std::thread::sleep(Duration::from_micros(50));
        }
        silences.push(began.elapsed());
        run.board.pause(false);
        std::thread::sleep(BETWEEN);
    }
    Ok((Promptness::of(switches), Promptness::of(silences)))
}

/// When the last of some threads began a new job.
fn last_of(begun: &Receiver<Instant>, threads: usize) -> anyhow::Result<Instant> {
    let mut last = None;
    for _ in 0..threads {
        last = last.max(Some(begun.recv_timeout(WAIT_MAX).context("a hash thread is stuck")?));
    }
    last.context("there are no threads")
}

/// Threads and their board; dropping it ends them.
struct Run {
    board: Arc<Board>,
}

impl Run {
    fn start(backends: Vec<Box<dyn HashBackend>>) -> anyhow::Result<Self> {
        let (sender, _nobody) = tokio::sync::mpsc::channel(1);
        let board = Board::new(backends.len(), sender);
        // Joined by nobody: they end within a chunk.
        hasher::spawn(&board, backends).context("cannot start a hash thread")?;
        Ok(Self { board })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.board.stop();
    }
}

/// A backend that tells when it begins another job.
struct Probe {
    inner: Box<dyn HashBackend>,
    /// Message words that tell jobs apart: the time is the job's number.
    last: [u32; 3],
    begun: Sender<Instant>,
}

impl HashBackend for Probe {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn chunk(&self) -> u32 {
        self.inner.chunk()
    }

    fn scan_chunk(
        &mut self,
        job: &ScanJob,
        start: u32,
        count: u32,
        hits: &mut Vec<Hit>,
    ) -> Result<(), HashError> {
        if job.midstate.tail[1] != self.last[1] {
            self.last = job.midstate.tail;
            // Nobody listens any more while the threads are being stopped.
            let _ = self.begun.send(Instant::now());
        }
        self.inner.scan_chunk(job, start, count, hits)
    }
}

/// A `mining.notify` with a time of its own; twelve branches, as a full block has.
fn notify(number: u64) -> String {
    let branches = vec!["11".repeat(32); 12];
    let time = format!("{:08x}", 0x6600_0000 + number);
    let params = json!([
        format!("{number:x}"),
        "22".repeat(32),
        "33".repeat(60),
        "44".repeat(120),
        branches,
        "20000000",
        "1702f128",
        time,
        true
    ]);
    params.to_string()
}

fn work(number: u64) -> anyhow::Result<Arc<Work>> {
    work_of(&notify(number))
}

fn work_of(line: &str) -> anyhow::Result<Arc<Work>> {
    let job = Job::from_notify(&serde_json::from_str(line)?)?;
    let extranonce = Extranonce { first: vec![1; 4], second_size: 4 };
    Ok(Arc::new(Work {
        source: Source::Coinbase { job, extranonce },
        version_mask: 0x1FFF_E000,
        // Nothing is found: what is timed is the search.
        target: Target([0; 32]),
        difficulty: 1.0,
        number: 0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_trials() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let expected = Promptness { median_ms: 100.0, p99_ms: 198.0, max_ms: 200.0, trials: 200 };
        assert_eq!(Promptness::of(times), expected);
        assert_eq!(Promptness::of(Vec::new()).max_ms, 0.0);
    }

    #[test]
    fn every_job_of_the_bench_is_another() {
        let (first, second) = (work(1).unwrap(), work(2).unwrap());
        let header = |work: &Work| work.header(&work.roll(0).unwrap());
        assert_ne!(header(&first).ntime, header(&second).ntime);
    }
}
