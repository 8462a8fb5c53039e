//! Between the pools and the hash threads: gives the threads the work of the pool that is hashed for, and each find to the
//! pool its work came from.

use std::sync::Arc;
use std::time::Duration;

use roadbed_protocol::{HashesPerSecond, Millis};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::MinerClock;
use super::hasher::Board;
use super::line::LineEvent;
use super::meter::HashMeter;
use super::pools::Pools;
use super::work::{Find, Work, WorkNumbers};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(500);

/// The switchboard's end of a line.
pub struct LineEnd {
    pub wanted: watch::Sender<bool>,
    pub finds: mpsc::Sender<Find>,
    /// The pool's newest work, while there is any.
    pub work: Option<Arc<Work>>,
}

/// What the switchboard tells of itself.
#[derive(Debug, Clone, Default)]
pub struct Switched {
    /// The pool that is hashed for.
    pub hash_for: Option<usize>,
    /// Hashes done for each pool.
    pub hashes: Vec<u64>,
    /// Mean of the last seconds.
    pub hashrate: HashesPerSecond,
    /// Finds whose pool was too slow to take them.
    pub lost_finds: u64,
    /// All is over.
    pub ended: bool,
}

/// Everything the task owns.
pub struct Switchboard {
    pub pools: Pools,
    pub lines: Vec<LineEnd>,
    pub events: mpsc::Receiver<(usize, LineEvent)>,
    pub finds: mpsc::Receiver<Find>,
    pub board: Arc<Board>,
    pub told: watch::Sender<Switched>,
    pub stop: CancellationToken,
    pub clock: MinerClock,
    pub meter: HashMeter,
    /// Hashes of the board that are credited to a pool.
    pub credited: u64,
}

impl Switchboard {
    /// Runs until it is told to stop; the lines end with it.
    pub async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        loop {
            let measures = tokio::select! {
                () = stop.cancelled() => break,
                Some((pool, event)) = self.events.recv() => {
                    self.take(pool, event);
                    false
                }
                Some(find) = self.finds.recv() => {
                    self.pass_on(find);
                    continue;
                }
                _ = ticks.tick() => true,
            };
            self.settle(measures);
        }
        self.board.stop();
        self.told.send_modify(|told| told.ended = true);
    }

    fn take(&mut self, pool: usize, event: LineEvent) {
        let now = self.now();
        let Some(line) = self.lines.get_mut(pool) else { return };
        match event {
            LineEvent::Work(work) => {
                line.work = Some(Arc::clone(&work));
                self.pools.up(pool, now);
                if self.told.borrow().hash_for == Some(pool) {
                    self.board.give(Some(work));
                }
            }
            LineEvent::Rest => {
                line.work = None;
                self.pools.rests(pool);
            }
            LineEvent::Ended(cause) => {
                line.work = None;
                self.pools.down(pool, now, cause);
            }
        }
    }

    fn pass_on(&self, find: Find) {
        let line = self.lines.get(WorkNumbers::pool_of(find.work));
        if line.is_none_or(|line| line.finds.try_send(find).is_err()) {
            self.told.send_modify(|told| told.lost_finds += 1);
        }
    }

    /// Credits the hashes done, and does what the policy says.
    fn settle(&mut self, measures: bool) {
        let now = self.now();
        let hashes = self.board.hashes();
        let done = hashes.saturating_sub(std::mem::replace(&mut self.credited, hashes));
        self.pools.hashed(done);
        let before = self.told.borrow().hash_for;
        let decision = self.pools.decide(now);
        for (line, connect) in self.lines.iter().zip(&decision.connect) {
            line.wanted.send_if_modified(|wanted| std::mem::replace(wanted, *connect) != *connect);
        }
        if decision.hash_for != before {
            let work = decision.hash_for.and_then(|pool| self.lines.get(pool)?.work.clone());
            self.board.give(work);
        }
        let hashrate = measures.then(|| self.meter.sample(now, hashes));
        self.told.send_modify(|told| {
            if let Some(credit) = before.and_then(|pool| told.hashes.get_mut(pool)) {
                *credit += done;
            }
            told.hash_for = decision.hash_for;
            told.hashrate = hashrate.unwrap_or(told.hashrate);
        });
    }

    fn now(&self) -> Millis {
        (self.clock)()
    }
}
