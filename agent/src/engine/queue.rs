//! The queue before the engine thread: control orders first, then chats and proof steps in turn.
//!
//! A proof is endless and a chat is paid, so neither may starve the other: after each chat one proof step runs, after
//! each proof step one chat. Proofs take their steps one proof after another, in the order they came.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
    chat_was_last: bool,
}

/// What the engine thread does next.
pub(super) enum Turn {
    Control(Control),
    Job(QueuedJob),
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

    /// Waits for the next turn.
    pub(super) fn next(&self) -> Turn {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return Turn::Closed;
            }
            if let Some(control) = waiting.controls.pop_front() {
                return Turn::Control(control);
            }
            let chat_first = !waiting.chat_was_last || waiting.proofs.is_empty();
            if chat_first && let Some(job) = waiting.jobs.pop_front() {
                waiting.chat_was_last = true;
                return Turn::Job(job);
            }
            waiting.chat_was_last = false;
            if let Some(proof) = waiting.proofs.pop_front() {
                return Turn::Proof(proof);
            }
            if waiting.jobs.is_empty() {
                waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
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
