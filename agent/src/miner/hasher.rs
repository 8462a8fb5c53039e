//! Hash threads: each searches its own corner of a job, and all fall silent within a chunk.
//!
//! Thread `i` of `n` takes the headers `i`, `i + n`, `i + 2n`, .. of a work so that no two ever hash the
//! same one, without talking to each other.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roadbed_compute::hash::{COUNT_MAX, HashBackend, ScanRequest, scan};
use roadbed_protocol::HashesPerSecond;
use tokio::sync::mpsc;

use super::work::{Find, Work};

/// Chunks between two updates of the hash counter: milliseconds on a CPU, some tenths of a second on a GPU, so the rate
/// is live and preparing a range costs nothing.
const CHUNKS_PER_UPDATE: u64 = 16;

/// What all threads share.
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
    /// Raised to make every thread look at the state again.
    interrupts: Vec<AtomicBool>,
    counts: Vec<Count>,
    busy: AtomicUsize,
    finds: mpsc::Sender<Find>,
    lost_finds: AtomicU64,
}

/// What one thread has done.
#[derive(Debug, Default)]
struct Count {
    hashes: AtomicU64,
    per_second: AtomicU64,
}

impl Count {
    /// Takes a batch into the mean of about the last second.
    fn add(&self, hashes: u64, took: Duration) {
        self.hashes.fetch_add(hashes, Ordering::Relaxed);
        let seconds = took.as_secs_f64().max(1e-9);
        let before = self.per_second.load(Ordering::Relaxed) as f64;
        let rate = hashes as f64 / seconds;
        // The first batch is all there is to go by.
        let share = if before == 0.0 { 1.0 } else { seconds.min(1.0) };
        self.per_second.store((before + (rate - before) * share) as u64, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    work: Option<Arc<Work>>,
    paused: bool,
    stopped: bool,
}

impl Board {
    pub fn new(threads: usize, finds: mpsc::Sender<Find>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            interrupts: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            counts: (0..threads).map(|_| Count::default()).collect(),
            busy: AtomicUsize::new(0),
            finds,
            lost_finds: AtomicU64::new(0),
        })
    }

    /// Gives every thread this work, or none.
    pub fn give(&self, work: Option<Arc<Work>>) {
        self.change(|state| state.work = work);
    }

    /// Silences the threads without forgetting the work.
    pub fn pause(&self, paused: bool) {
        self.change(|state| state.paused = paused);
    }

    /// Ends the threads.
    pub fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    /// Hashes done so far by all threads.
    pub fn hashes(&self) -> u64 {
        self.counts.iter().map(|count| count.hashes.load(Ordering::Relaxed)).sum()
    }

    /// What each thread hashes a second, over about the last second in which it did: hashes counted, whatever a pool sees
    /// of them. Nothing while all are silent.
    pub fn rates(&self) -> Vec<HashesPerSecond> {
        let silent = self.is_silent();
        let rate = |count: &Count| match silent {
            true => HashesPerSecond::ZERO,
            false => HashesPerSecond(count.per_second.load(Ordering::Relaxed)),
        };
        self.counts.iter().map(rate).collect()
    }

    /// Whether no thread hashes now.
    pub fn is_silent(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 0
    }

    /// Finds that nobody took: the connection was not fast enough for the difficulty.
    pub fn lost_finds(&self) -> u64 {
        self.lost_finds.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        for interrupt in &self.interrupts {
            interrupt.store(true, Ordering::Relaxed);
        }
        self.changed.notify_all();
    }

    /// The state is plain data, valid whatever thread died holding it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work; `None` when it is over. The thread counts as busy from here on.
    fn next(&self, thread: usize) -> Option<Arc<Work>> {
        let mut state = self.lock();
        loop {
            self.interrupts[thread].store(false, Ordering::Relaxed);
            if state.stopped {
                return None;
            }
            if let (Some(work), false) = (&state.work, state.paused) {
                self.busy.fetch_add(1, Ordering::SeqCst);
                return Some(work.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts one thread per backend.
///
/// # Errors
/// When the operating system gives no more threads; those already started are ended.
pub fn spawn(
    board: &Arc<Board>,
    backends: Vec<Box<dyn HashBackend>>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let threads = backends.len();
    let mut handles = Vec::with_capacity(threads);
    for (thread, mut backend) in backends.into_iter().enumerate() {
        let own = board.clone();
        let run = move || {
            while let Some(work) = own.next(thread) {
                search(&own, &work, backend.as_mut(), thread, threads);
                own.busy.fetch_sub(1, Ordering::SeqCst);
            }
        };
        match std::thread::Builder::new().name(format!("hash-{thread}")).spawn(run) {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                board.stop();
                return Err(error);
            }
        }
    }
    Ok(handles)
}

/// Hashes one work until it is interrupted.
fn search(
    board: &Board,
    work: &Work,
    backend: &mut dyn HashBackend,
    thread: usize,
    threads: usize,
) {
    let interrupt = &board.interrupts[thread];
    let mut index = thread as u64;
    while let Some(roll) = work.roll(index) {
        let header = work.header(&roll).prefix();
        let mut done = 0;
        while done < COUNT_MAX {
            // A GPU's chunk grows until it fills the device, so it is asked for anew.
            let batch = u64::from(backend.chunk().max(1)).saturating_mul(CHUNKS_PER_UPDATE);
            let count = batch.min(COUNT_MAX - done);
            // `done` is below 2^32 here.
            let request = ScanRequest { header, target: work.target, start: done as u32, count };
            let mut tell = |hit: roadbed_compute::hash::Hit| {
                let find = Find { work: work.number, roll: roll.clone(), nonce: hit.nonce };
                if board.finds.try_send(find).is_err() {
                    board.lost_finds.fetch_add(1, Ordering::Relaxed);
                }
                ControlFlow::Continue(())
            };
            let began = Instant::now();
            match scan(backend, &request, interrupt, &mut tell) {
                Ok(summary) => {
                    board.counts[thread].add(summary.hashes, began.elapsed());
                    if !summary.complete {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!("hash thread {thread} ({}): {error}", backend.name());
                    // Wait for other work instead of failing a thousand times a second.
                    idle(board, thread);
                    return;
                }
            }
            done += count;
        }
        index = index.saturating_add(threads as u64);
    }
    // Nothing is left of this work.
    idle(board, thread);
}

/// Waits until the state changes.
fn idle(board: &Board, thread: usize) {
    let mut state = board.lock();
    while !board.interrupts[thread].load(Ordering::Relaxed) {
        state = board.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_rate_follows_its_batches_and_all_is_counted() {
        let (sender, _finds) = mpsc::channel(1);
        let board = Board::new(2, sender);
        board.counts[0].add(1_000, Duration::from_millis(1));
        board.counts[1].add(500, Duration::from_millis(1));
        assert_eq!(board.hashes(), 1_500);
        assert!(board.rates().iter().all(|rate| *rate == HashesPerSecond::ZERO), "all are silent");
        board.busy.store(1, Ordering::SeqCst);
        assert_eq!(board.rates(), [HashesPerSecond(1_000_000), HashesPerSecond(500_000)]);
        // A second at half the rate replaces what was known, a millisecond of it hardly.
        board.counts[0].add(500, Duration::from_millis(1));
        assert!(board.rates()[0] > HashesPerSecond(999_000));
        board.counts[0].add(500_000, Duration::from_secs(1));
        assert_eq!(board.rates()[0], HashesPerSecond(500_000));
        // A batch that was broken off at once is no division by zero.
        board.counts[1].add(0, Duration::ZERO);
    }
}
