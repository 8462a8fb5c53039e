//! The queue before the engine thread: control orders first, then chats and proof steps in turn.
//!
//! A proof is endless and a chat is paid, so neither may starve the other: while there is both, each gets half of the
//! engine's time, and never two proof steps follow one another. Proofs take their steps one proof after another, in the
//! order they came.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::job::{Control, Job, Proof};

/// Chats that may wait. At a few seconds an answer a customer behind so many would give up; refusing him at once
/// lets his client try another rig.
pub const JOBS_QUEUED_MAX: usize = 64;
/// Proofs that may be under way: one round and the validation jobs beside it, which are let in one by one.
pub const PROOFS_QUEUED_MAX: usize = 16;
/// Loads and unloads that may wait; more is a caller that repeats itself.
pub const CONTROLS_QUEUED_MAX: usize = 16;

/// A job with what the queue must know of it.
pub(super) struct QueuedJob {
    pub(super) job: Job,
    /// Which stop order it was handed in after; an older one is answered as cancelled.
    pub(super) epoch: u64,
    /// Counts it as open until it is dropped.
    pub(super) open: OpenJob,
}

/// A proof with what the queue must know of it.
pub(super) struct QueuedProof {
    pub(super) proof: Proof,
    pub(super) epoch: u64,
}

/// One open job: raises the count when made, lowers it when dropped.
pub(super) struct OpenJob(watch::Sender<usize>);

impl OpenJob {
    pub(super) fn count_in(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|open| *open += 1);
        Self(count.clone())
    }
}

impl Drop for OpenJob {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

#[derive(Default)]
struct Waiting {
    controls: VecDeque<Control>,
    jobs: VecDeque<QueuedJob>,
    proofs: VecDeque<QueuedProof>,
    closed: bool,
    balance: Balance,
}

/// The engine's time since chats and proofs began to compete for it.
#[derive(Debug, Default)]
struct Balance {
    chats: Duration,
    proofs: Duration,
    proof_was_last: bool,
}

impl Balance {
    fn is_proofs_turn(&self) -> bool {
        !self.proof_was_last && self.proofs <= self.chats
    }

    fn chats_took(&mut self, time: Duration, proofs_wait: bool) {
        // Time nobody else wanted is nobody's debt.
        let proofs = if proofs_wait { self.proofs } else { Duration::ZERO };
        let chats = if proofs_wait { self.chats + time } else { Duration::ZERO };
        *self = Self { chats, proofs, proof_was_last: false };
    }

    fn proofs_took(&mut self, time: Duration, chats_wait: bool) {
        let proofs = if chats_wait { self.proofs + time } else { Duration::ZERO };
        let chats = if chats_wait { self.chats } else { Duration::ZERO };
        *self = Self { chats, proofs, proof_was_last: true };
    }
}

/// What the engine thread is busy with when it asks for more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Busy {
    /// There are answers under way.
    pub(super) answers: bool,
    /// Another answer can be begun.
    pub(super) room: bool,
    /// The last turn was a job that held the answers up.
    pub(super) held_up: bool,
}

/// What the engine thread does next.
pub(super) enum Turn {
    Control(Control),
    Job(QueuedJob),
    /// A step of all answers under way.
    Step,
    /// The oldest proof may take one step; it is put back with [`EngineQueue::put_back`] while it has more.
    Proof(QueuedProof),
    /// No work will ever come again.
    Closed,
}

/// See the module head.
#[derive(Default)]
pub(super) struct EngineQueue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl EngineQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is whole between any two statements, whoever panicked while holding it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in a control order; gives it back if there are too many or the engine has ended.
    pub(super) fn push_control(&self, control: Control) -> Result<(), Control> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.controls.len() >= CONTROLS_QUEUED_MAX {
            return Err(control);
        }
        waiting.controls.push_back(control);
        self.wake.notify_one();
        Ok(())
    }

    /// Hands in a job; tells how many wait if there is no place.
    pub(super) fn push_job(&self, job: QueuedJob) -> Result<(), usize> {
        let mut waiting = self.lock();
        if waiting.jobs.len() >= JOBS_QUEUED_MAX {
            waiting.jobs.retain(|queued| !queued.job.is_abandoned());
        }
        let queued = waiting.jobs.len();
        if waiting.closed || queued >= JOBS_QUEUED_MAX {
            return Err(queued);
        }
        waiting.jobs.push_back(job);
        self.wake.notify_one();
        Ok(())
    }

    /// Hands in a proof; false if there are too many or the engine has ended.
    pub(super) fn push_proof(&self, proof: QueuedProof) -> bool {
        let mut waiting = self.lock();
        if waiting.closed || waiting.proofs.len() >= PROOFS_QUEUED_MAX {
            return false;
        }
        waiting.proofs.push_back(proof);
        self.wake.notify_one();
        true
    }

    /// Puts a proof with more nonces back at the front.
    pub(super) fn put_back(&self, proof: QueuedProof) {
        self.lock().proofs.push_front(proof);
    }

    /// Jobs that wait.
    pub(super) fn jobs(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Notes how long a turn for chats took.
    pub(super) fn chats_took(&self, time: Duration) {
        let mut waiting = self.lock();
        let proofs_wait = !waiting.proofs.is_empty();
        waiting.balance.chats_took(time, proofs_wait);
    }

    /// Notes how long a proof step took; `answers` says whether there are answers under way.
    pub(super) fn proofs_took(&self, time: Duration, answers: bool) {
        let mut waiting = self.lock();
        let chats_wait = answers || !waiting.jobs.is_empty();
        waiting.balance.proofs_took(time, chats_wait);
    }

    /// Waits for the next turn.
    pub(super) fn next(&self, busy: Busy) -> Turn {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return Turn::Closed;
            }
            if let Some(control) = waiting.controls.pop_front() {
                return Turn::Control(control);
            }
            let takeable = |queued: &QueuedJob| busy.room || !queued.job.is_generation();
            let job = waiting.jobs.iter().position(takeable);
            let chats = busy.answers || job.is_some();
            if (!chats || waiting.balance.is_proofs_turn())
                && let Some(proof) = waiting.proofs.pop_front()
            {
                return Turn::Proof(proof);
            }
            if busy.answers && busy.held_up {
                return Turn::Step;
            }
            if let Some(job) = job.and_then(|at| waiting.jobs.remove(at)) {
                return Turn::Job(job);
            }
            if busy.answers {
                return Turn::Step;
            }
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes everything out.
    pub(super) fn clear(&self) -> (Vec<QueuedJob>, Vec<QueuedProof>) {
        let mut waiting = self.lock();
        (waiting.jobs.drain(..).collect(), waiting.proofs.drain(..).collect())
    }

    /// Ends the engine thread after what it does now.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chats_and_proofs_share_the_time_and_owe_nothing_for_idle_hours() {
        let ms = Duration::from_millis;
        let mut balance = Balance::default();
        // Hours of chats alone.
        (0..1000).for_each(|_| balance.chats_took(ms(5000), false));
        let (mut chats, mut proofs, mut proofs_in_a_row) = (0, 0, 0);
        for _ in 0..1000 {
            if balance.is_proofs_turn() {
                balance.proofs_took(ms(90), true);
                proofs += 90;
                proofs_in_a_row += 1;
            } else {
                balance.chats_took(ms(20), true);
                chats += 20;
                proofs_in_a_row = 0;
            }
            assert!(proofs_in_a_row <= 1);
            assert!(i32::abs(chats - proofs) <= 110, "{chats} ms of chats, {proofs} of proofs");
        }
    }
}
