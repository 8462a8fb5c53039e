//! The queue before the engine threads: control orders first, then chats and proof steps in turn.
//!
//! Every replica of the model has a thread, and all take from this one queue when they have time. A chat goes to the
//! replica with the fewest answers under way, among equals to the one with the most free pages: the others leave it.
//!
//! A proof is endless and a chat is paid, so neither may starve the other: while there is both, each gets half of a
//! replica's time, and never two proof steps follow one another. Proofs take their steps one proof after another, in the
//! order they came, each from as many replicas as have time.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::answers::Answering;
use super::change::Change;
use super::job::{Control, Job};
use super::proving::SharedProof;

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

/// A customer is never asked to wait longer than this before he tries again.
pub(crate) const RETRY_SECONDS_MAX: u64 = 60;

/// One open job: raises the count when made, lowers it when dropped.
pub(crate) struct OpenJob(watch::Sender<usize>);

impl OpenJob {
    pub(crate) fn count_in(count: &watch::Sender<usize>) -> Self {
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
    /// The control order that is being carried out.
    change: Option<Changing>,
    /// Answers of a lost replica, for another to go on with; at most what one had under way.
    orphans: VecDeque<Answering>,
    jobs: VecDeque<QueuedJob>,
    /// Oldest first; those that have ended are taken out.
    proofs: Vec<Arc<SharedProof>>,
    closed: bool,
    places: Vec<Place>,
}

/// Which replicas have begun a change, how many have freed their GPUs, how many are done.
struct Changing {
    change: Arc<Change>,
    begun: Vec<bool>,
    met: usize,
    done: usize,
}

/// What the queue knows of a replica.
#[derive(Debug, Default)]
struct Place {
    standing: Busy,
    /// It does something that takes its time, and will not take a job before that is over.
    away: bool,
    balance: Balance,
}

/// A replica's time since chats and proofs began to compete for it.
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

/// What a replica is busy with when it asks for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Busy {
    /// It has a model, or is about to.
    pub(super) alive: bool,
    /// Answers under way.
    pub(super) answers: usize,
    /// Another answer can be begun.
    pub(super) room: bool,
    /// Pages of its cache that no answer holds.
    pub(super) pages_free: usize,
    /// The last turn was a job that held the answers up.
    pub(super) held_up: bool,
    /// It has nonces of a DECODE round on their way.
    pub(super) walking: bool,
    /// When a lost replica is to be loaded again.
    pub(super) mend_at: Option<Instant>,
}

/// What an engine thread does next.
pub(super) enum Turn {
    /// Its part of a change, which it begins now and ends with [`EngineQueue::changed`].
    Change(Arc<Change>),
    Job(QueuedJob),
    /// An answer that another replica could not end.
    GoOn(Answering),
    /// A step of all answers under way.
    Step,
    /// The proof may take one step.
    Proof(Arc<SharedProof>),
    /// The nonces that are on their way may take one.
    Walk,
    /// A lost replica may be loaded again.
    Mend,
    /// No work will ever come again.
    Closed,
}

/// See the module head.
pub(super) struct EngineQueue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl EngineQueue {
    /// For so many replicas.
    pub(super) fn new(replicas: usize) -> Self {
        let places = (0..replicas).map(|_| Place::default()).collect();
        let waiting = Mutex::new(Waiting { places, ..Waiting::default() });
        Self { waiting, wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is whole between any two statements, whoever panicked while holding it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'w>(&self, waiting: MutexGuard<'w, Waiting>) -> MutexGuard<'w, Waiting> {
        self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in a control order; gives it back if there are too many or the engine has ended.
    pub(super) fn push_control(&self, control: Control) -> Result<(), Control> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.controls.len() >= CONTROLS_QUEUED_MAX {
            return Err(control);
        }
        waiting.controls.push_back(control);
        self.wake.notify_all();
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
        self.wake.notify_all();
        Ok(())
    }

    /// Hands in a proof; false if there are too many or the engine has ended.
    pub(super) fn push_proof(&self, proof: Arc<SharedProof>) -> bool {
        let mut waiting = self.lock();
        waiting.proofs.retain(|proof| !proof.is_ended());
        if waiting.closed || waiting.proofs.len() >= PROOFS_QUEUED_MAX {
            return false;
        }
        waiting.proofs.push(proof);
        self.wake.notify_all();
        true
    }

    /// Hands in answers of a lost replica; they go before all jobs.
    pub(super) fn push_orphans(&self, answers: Vec<Answering>) {
        self.lock().orphans.extend(answers);
        self.wake.notify_all();
    }

    /// Jobs that wait.
    pub(super) fn jobs(&self) -> usize {
        let waiting = self.lock();
        waiting.jobs.len() + waiting.orphans.len()
    }

    /// A replica will not ask for a while: others take what would have been its own.
    pub(super) fn away(&self, replica: usize) {
        self.lock().places[replica].away = true;
        self.wake.notify_all();
    }

    /// Notes how long a turn for chats took.
    pub(super) fn chats_took(&self, replica: usize, time: Duration) {
        let mut waiting = self.lock();
        let walking = waiting.places[replica].standing.walking;
        let proofs_wait = walking || waiting.proofs.iter().any(|proof| proof.has_work());
        waiting.places[replica].balance.chats_took(time, proofs_wait);
    }

    /// Notes how long a proof step took; `answers` says whether there are answers under way. The proof may have ended,
    /// or have more for others.
    pub(super) fn proofs_took(&self, replica: usize, time: Duration, answers: bool) {
        let mut waiting = self.lock();
        let chats_wait = answers || !waiting.jobs.is_empty();
        waiting.places[replica].balance.proofs_took(time, chats_wait);
        waiting.proofs.retain(|proof| !proof.is_ended());
        self.wake.notify_all();
    }

    /// Waits until all replicas have come as far in the change; false if the engine ends before.
    pub(super) fn meet(&self) -> bool {
        let mut waiting = self.lock();
        let replicas = waiting.places.len();
        if let Some(changing) = &mut waiting.change {
            changing.met += 1;
        }
        self.wake.notify_all();
        while !waiting.closed && waiting.change.as_ref().is_some_and(|c| c.met < replicas) {
            waiting = self.wait(waiting);
        }
        !waiting.closed
    }

    /// A replica has done its part of the change, and is `busy` now; true if it was the last one.
    pub(super) fn changed(&self, replica: usize, busy: Busy) -> bool {
        let mut waiting = self.lock();
        let place = &mut waiting.places[replica];
        (place.away, place.standing) = (false, busy);
        let replicas = waiting.places.len();
        let is_last = waiting.change.as_mut().is_some_and(|changing| {
            changing.done += 1;
            changing.done == replicas
        });
        if is_last {
            waiting.change = None;
            self.wake.notify_all();
        }
        is_last
    }

    /// Waits for the next turn of a replica.
    pub(super) fn next(&self, replica: usize, busy: Busy) -> Turn {
        let mut waiting = self.lock();
        let place = &mut waiting.places[replica];
        if place.away || place.standing != busy {
            (place.away, place.standing) = (false, busy);
            // What it leaves may be somebody else's now.
            self.wake.notify_all();
        }
        loop {
            if waiting.closed {
                return Turn::Closed;
            }
            if let Some(turn) = waiting.turn(replica) {
                let place = &mut waiting.places[replica];
                match &turn {
                    Turn::Step | Turn::Closed => return turn,
                    // It is soon back, with one answer more.
                    Turn::GoOn(_) => place.standing.answers += 1,
                    Turn::Job(queued) if queued.job.is_generation() => place.standing.answers += 1,
                    Turn::Job(_) | Turn::Change(_) | Turn::Proof(_) | Turn::Walk | Turn::Mend => {
                        place.away = true;
                    }
                }
                self.wake.notify_all();
                return turn;
            }
            waiting = match busy.mend_at {
                None => self.wait(waiting),
                Some(at) => {
                    let time = at.saturating_duration_since(Instant::now());
                    if time.is_zero() {
                        return Turn::Mend;
                    }
                    let waited = self.wake.wait_timeout(waiting, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes everything out.
    pub(super) fn clear(&self) -> (Vec<QueuedJob>, Vec<Answering>, Vec<Arc<SharedProof>>) {
        let mut waiting = self.lock();
        let Waiting { jobs, orphans, proofs, .. } = &mut *waiting;
        (jobs.drain(..).collect(), orphans.drain(..).collect(), std::mem::take(proofs))
    }

    /// Drops the control orders; whoever waits for one learns that the engine has ended.
    pub(super) fn abandon(&self) {
        let mut waiting = self.lock();
        let orders = (std::mem::take(&mut waiting.controls), waiting.change.take());
        drop(waiting);
        drop(orders);
    }

    /// Ends the engine threads after what they do now.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

impl Waiting {
    /// What a replica does next; `None` if there is nothing for it.
    fn turn(&mut self, replica: usize) -> Option<Turn> {
        if let Some(change) = self.begin_change(replica) {
            return Some(Turn::Change(change));
        }
        let busy = self.places[replica].standing;
        let answers = busy.answers > 0;
        let (mine, room) = (self.is_for(replica, false), self.is_for(replica, true));
        let takeable = |queued: &QueuedJob| if queued.job.is_generation() { room } else { mine };
        let job = self.jobs.iter().position(takeable);
        let orphan = room && !self.orphans.is_empty();
        let chats = answers || orphan || job.is_some();
        let dead = self.places.iter().all(|place| !place.standing.alive);
        if (!chats || self.places[replica].balance.is_proofs_turn()) && (busy.alive || dead) {
            if busy.walking {
                return Some(Turn::Walk);
            }
            if let Some(proof) = self.proofs.iter().find(|proof| proof.has_work()) {
                return Some(Turn::Proof(Arc::clone(proof)));
            }
        }
        if answers && busy.held_up {
            return Some(Turn::Step);
        }
        if orphan && let Some(answer) = self.orphans.pop_front() {
            return Some(Turn::GoOn(answer));
        }
        if let Some(job) = job.and_then(|at| self.jobs.remove(at)) {
            return Some(Turn::Job(job));
        }
        answers.then_some(Turn::Step)
    }

    fn begin_change(&mut self, replica: usize) -> Option<Arc<Change>> {
        if self.change.is_none() {
            let change = Arc::new(Change::new(self.controls.pop_front()?));
            let begun = vec![false; self.places.len()];
            self.change = Some(Changing { change, begun, met: 0, done: 0 });
        }
        let changing = self.change.as_mut()?;
        let begun = changing.begun.get_mut(replica)?;
        (!std::mem::replace(begun, true)).then(|| Arc::clone(&changing.change))
    }

    /// Whether a job is for this replica to take, or to leave to another. Where nobody has a model, anybody takes it, to
    /// say so.
    fn is_for(&self, replica: usize, generation: bool) -> bool {
        let own = &self.places[replica].standing;
        if self.places.iter().all(|place| !place.standing.alive) {
            return true;
        }
        let can = |busy: &Busy| busy.alive && (busy.room || !generation);
        let rank = |busy: &Busy, at: usize| (busy.answers, Reverse(busy.pages_free), at);
        let better = |(at, place): (usize, &Place)| {
            let other = &place.standing;
            !place.away && can(other) && rank(other, at) < rank(own, replica)
        };
        can(own) && !self.places.iter().enumerate().any(better)
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
