//! One proof, shared by all replicas: who takes which nonces, and the order in which they are told.
//!
//! Each replica takes the next few nonces when it has time for them, so a fast GPU proves more than a slow one, and no
//! nonce is proved twice or left out. What comes of them is told in the order of the nonces, whoever was quicker: a round
//! that goes on after a crash begins behind the last nonce in the journal, and a hole before it would be a gap for ever.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use roadbed_compute::poc::Round;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::backend::ProofStep;
use super::job::{Claims, ProofEnd, ProofOrder};

/// Nonces taken and not yet told. A dozen GPUs at 32 nonces a step can be ten steps ahead of the slowest; a step that
/// waits to be told is a hundred bytes.
const NONCES_AHEAD_MAX: u64 = 4096;

/// Consecutive nonces that one replica works on.
pub(super) struct Portion {
    /// Place of the first one in the proof.
    first: u64,
    pub(super) nonces: Vec<u32>,
}

/// A proof under way.
pub(super) struct SharedProof {
    pub(super) round: Round,
    /// Most nonces per step.
    pub(super) batch: usize,
    /// Trajectories that are compared with.
    pub(super) claims: Option<Claims>,
    /// Which stop order it was handed in after.
    pub(super) epoch: u64,
    cancel: CancellationToken,
    /// Somebody may take a portion; kept beside the lock, which is held while artifacts are journalled.
    has_work: AtomicBool,
    progress: Mutex<Progress>,
}

struct Progress {
    nonces: Box<dyn Iterator<Item = u32> + Send>,
    exhausted: bool,
    /// Taken by a replica that was lost; they come before all others.
    again: VecDeque<Portion>,
    taken: u64,
    told: u64,
    /// What is proved but not yet told.
    proved: BTreeMap<u64, ProofStep>,
    on_step: Box<dyn FnMut(ProofStep) -> std::ops::ControlFlow<()> + Send>,
    /// `None` once it has ended.
    done: Option<oneshot::Sender<ProofEnd>>,
}

impl SharedProof {
    pub(super) fn new(order: ProofOrder, epoch: u64, done: oneshot::Sender<ProofEnd>) -> Self {
        let ProofOrder { round, nonces, batch, claims, cancel, on_step } = order;
        let progress = Progress {
            nonces,
            exhausted: false,
            again: VecDeque::new(),
            taken: 0,
            told: 0,
            proved: BTreeMap::new(),
            on_step,
            done: Some(done),
        };
        let has_work = AtomicBool::new(true);
        Self { round, batch, claims, epoch, cancel, has_work, progress: Mutex::new(progress) }
    }

    /// Whether it is worth a turn.
    pub(super) fn has_work(&self) -> bool {
        self.has_work.load(Ordering::Acquire)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock().done.is_none()
    }

    /// Ends it if whoever ordered it wants no more; true if so.
    pub(super) fn end_if_cancelled(&self) -> bool {
        let cancelled = self.cancel.is_cancelled();
        if cancelled {
            self.end(Ok(()));
        }
        cancelled
    }

    /// The next nonces, at most `most`; nothing if there are none or too many wait to be told.
    pub(super) fn take(&self, most: usize) -> Option<Portion> {
        let mut progress = self.lock();
        let portion = progress.take(most.max(1));
        progress.end_if_complete();
        self.note(&progress);
        portion
    }

    /// Hands in what came of a portion, one step for each nonce.
    pub(super) fn give(&self, portion: &Portion, steps: Vec<ProofStep>) {
        let mut progress = self.lock();
        progress.proved.extend((portion.first..).zip(steps));
        progress.tell();
        progress.end_if_complete();
        self.note(&progress);
    }

    /// None of the portion's nonces counts: somebody else takes them.
    pub(super) fn put_back(&self, portion: Portion) {
        let mut progress = self.lock();
        progress.again.push_back(portion);
        self.note(&progress);
    }

    /// Ends it, unless it has ended.
    pub(super) fn end(&self, end: ProofEnd) {
        let mut progress = self.lock();
        progress.end(end);
        self.note(&progress);
    }

    fn note(&self, progress: &Progress) {
        self.has_work.store(progress.has_work(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // A caller's `on_step` that panics costs the replica that told it; what was proved is in its place before.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn has_work(&self) -> bool {
        let more = !self.exhausted && self.taken - self.told < NONCES_AHEAD_MAX;
        self.done.is_some() && (more || !self.again.is_empty())
    }

    fn take(&mut self, most: usize) -> Option<Portion> {
        if !self.has_work() {
            return None;
        }
        if let Some(mut portion) = self.again.pop_front() {
            // Another GPU may have room for fewer at once.
            if portion.nonces.len() > most {
                let rest = portion.nonces.split_off(most);
                let first = portion.first + most as u64;
                self.again.push_front(Portion { first, nonces: rest });
            }
            return Some(portion);
        }
        let nonces: Vec<u32> = self.nonces.by_ref().take(most).collect();
        self.exhausted = nonces.len() < most;
        let first = self.taken;
        self.taken += nonces.len() as u64;
        (!nonces.is_empty()).then_some(Portion { first, nonces })
    }

    /// Tells everything up to the first nonce that is still being proved.
    fn tell(&mut self) {
        while self.done.is_some()
            && let Some(step) = self.proved.remove(&self.told)
        {
            self.told += 1;
            if (self.on_step)(step).is_break() {
                self.end(Ok(()));
            }
        }
    }

    fn end_if_complete(&mut self) {
        if self.exhausted && self.told == self.taken {
            self.end(Ok(()));
        }
    }

    fn end(&mut self, end: ProofEnd) {
        if let Some(done) = self.done.take() {
            // Whoever ordered it may be gone.
            drop(done.send(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use proptest::prelude::*;
    use roadbed_compute::poc::{Identity, Scheme};

    use super::*;

    fn proof(
        count: u32,
        stop_after: usize,
    ) -> (SharedProof, Arc<Mutex<Vec<u32>>>, oneshot::Receiver<ProofEnd>) {
        let told: Arc<Mutex<Vec<u32>>> = Arc::default();
        let telling = Arc::clone(&told);
        let identity = Identity { block_hash: "b".into(), public_key: "k".into() };
        let order = ProofOrder {
            round: Round {
                identity,
                seq_len: 4,
                k_dim: 2,
                stronger_rng: false,
                scheme: Scheme::Prefill,
            },
            nonces: Box::new((0..count).map(|n| 3 * n + 1)),
            batch: 8,
            claims: None,
            cancel: CancellationToken::new(),
            on_step: Box::new(move |step| {
                let mut told = telling.lock().unwrap();
                told.push(step.nonce());
                if told.len() == stop_after {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            }),
        };
        let (done, ended) = oneshot::channel();
        (SharedProof::new(order, 0, done), told, ended)
    }

    fn steps(portion: &Portion) -> Vec<ProofStep> {
        portion.nonces.iter().map(|&nonce| ProofStep::Dropped { nonce }).collect()
    }

    proptest! {
        /// Replicas of any speed and fate tell every nonce once and in order.
        #[test]
        fn no_nonce_is_left_out_or_told_twice(
            count in 0_u32..60,
            replicas in 1_usize..8,
            turns in prop::collection::vec((0_usize..8, 1_usize..6, 0_u8..5), 0..200),
        ) {
            let (proof, told, mut ended) = proof(count, usize::MAX);
            let mut working: Vec<Option<Portion>> = (0..replicas).map(|_| None).collect();
            let act = |working: &mut Option<Portion>, most: usize, fate: u8| match working.take() {
                None => *working = proof.take(most),
                Some(portion) if fate == 0 => proof.put_back(portion),
                Some(portion) => proof.give(&portion, steps(&portion)),
            };
            for (replica, most, fate) in turns {
                act(&mut working[replica % replicas], most, fate);
            }
            // The others die, and one works it off.
            for portion in working.iter_mut().skip(1).filter_map(Option::take) {
                proof.put_back(portion);
            }
            while !proof.is_ended() {
                prop_assert!(working[0].is_some() || proof.has_work());
                act(&mut working[0], 4, 1);
            }
            let expected: Vec<u32> = (0..count).map(|n| 3 * n + 1).collect();
            prop_assert_eq!(&*told.lock().unwrap(), &expected);
            prop_assert_eq!(ended.try_recv().unwrap(), Ok(()));
            prop_assert!(!proof.has_work());
        }
    }

    #[test]
    fn nobody_runs_ahead_without_bound_and_a_stop_is_the_end() {
        let (proof, told, mut ended) = proof(u32::MAX / 4, 100);
        let slow = proof.take(1).unwrap();
        let mut ahead = 0;
        while let Some(portion) = proof.take(32) {
            ahead += portion.nonces.len() as u64;
            proof.give(&portion, steps(&portion));
        }
        assert!((NONCES_AHEAD_MAX - 32..NONCES_AHEAD_MAX + 32).contains(&ahead));
        assert!(!proof.has_work() && told.lock().unwrap().is_empty());
        proof.give(&slow, steps(&slow));
        assert!(proof.is_ended() && !proof.has_work() && proof.take(1).is_none());
        assert_eq!(told.lock().unwrap().len(), 100);
        assert_eq!(ended.try_recv().unwrap(), Ok(()));
    }
}
