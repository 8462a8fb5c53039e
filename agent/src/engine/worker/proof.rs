//! A worker's part of a proof: a step of PREFILL, or one forward pass of a DECODE walk.
//!
//! A walk has as many passes as a nonce has steps, and each is a turn like any other, so chats and stop orders are heard in
//! between. What else proves or replays would write over the walk's keys and values: a walk that was begun goes on before
//! another proof's nonces, and is walked to its end before a replay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roadbed_compute::poc::Scheme;

use super::super::backend::ProofStep;
use super::super::fault::EngineFault;
use super::super::job::Claims;
use super::super::proving::{Portion, SharedProof};
use super::super::replica::Counters;
use super::{Worker, guarded};

/// Nonces of a DECODE round on their way.
pub(super) struct Walking {
    proof: Arc<SharedProof>,
    portion: Portion,
    /// How long they have been worked on.
    took: Duration,
}

impl Walking {
    /// None of its nonces counts: somebody else takes them.
    pub(super) fn put_back(self) {
        self.proof.put_back(self.portion);
    }
}

impl Worker {
    /// One step of a proof: up to a batch of nonces, or the next pass of those that are walked.
    pub(super) fn step_proof(&mut self, proof: Arc<SharedProof>) {
        if self.walking.is_some() {
            return self.walk_on();
        }
        if !self.shared.is_current(proof.epoch) {
            return proof.end(Err(EngineFault::Cancelled));
        }
        if proof.end_if_cancelled() {
            return;
        }
        let began = Instant::now();
        let mut taken = None;
        let proved = self.with_backend(|backend| {
            let most = backend.prepare_proof(&proof.round)?.min(proof.batch);
            taken = proof.take(most);
            let Some(portion) = &taken else { return Ok(Some(vec![])) };
            match (proof.round.scheme, &proof.claims) {
                (Scheme::Prefill, _) => backend.prove(&proof.round, &portion.nonces).map(Some),
                (Scheme::Decode(_), None) => {
                    backend.begin_walk(&proof.round, &portion.nonces)?;
                    backend.walk_on()
                }
                (Scheme::Decode(_), Some(claims)) => {
                    backend.begin_comparing(&proof.round, &claimed(claims, &portion.nonces)?)?;
                    backend.walk_on()
                }
            }
        });
        self.proved(proof, taken, proved, began.elapsed());
    }

    /// The next pass of the nonces that are walked, unless nobody wants them any more.
    pub(super) fn walk_on(&mut self) {
        let Some(Walking { proof, portion, took }) = self.walking.take() else { return };
        if !self.shared.is_current(proof.epoch) {
            return proof.end(Err(EngineFault::Cancelled));
        }
        if proof.end_if_cancelled() || proof.is_ended() {
            return;
        }
        let began = Instant::now();
        let proved = self.with_backend(|backend| backend.walk_on());
        self.proved(proof, Some(portion), proved, took + began.elapsed());
    }

    /// Tells what came of a portion; one that is under way is walked on at a later turn.
    fn proved(
        &mut self,
        proof: Arc<SharedProof>,
        taken: Option<Portion>,
        proved: Result<Option<Vec<ProofStep>>, EngineFault>,
        took: Duration,
    ) {
        match (proved, taken) {
            (Ok(None), Some(portion)) => self.walking = Some(Walking { proof, portion, took }),
            (Ok(Some(steps)), Some(portion)) => {
                self.pace(&proof, steps.len(), took);
                if !self.shared.is_current(proof.epoch) {
                    return proof.end(Err(EngineFault::Cancelled));
                }
                if !proof.is_ended() {
                    let dropped = |step: &&ProofStep| matches!(step, ProofStep::Dropped { .. });
                    let dropped = steps.iter().filter(dropped).count();
                    Counters::add(&self.counters().nonces_dropped, dropped);
                    Counters::add(&self.counters().artifacts, steps.len() - dropped);
                }
                // Whoever is told may panic: that is the end of his proof, not of the thread.
                let told = guarded(|| {
                    proof.give(&portion, steps);
                    Ok(())
                });
                if let Err(fault) = told {
                    proof.end(Err(fault));
                }
                if proof.is_ended() {
                    self.shared.pace.keep();
                }
            }
            (Ok(_), None) => {}
            // The device is open again, or another replica goes on, and none of the step's nonces counted.
            (Err(EngineFault::DeviceLost { .. }), portion) if self.shared.replicas.any_alive() => {
                portion.into_iter().for_each(|portion| proof.put_back(portion));
            }
            (Err(fault), _) => proof.end(Err(fault)),
        }
    }

    /// Notes how long a step of a proof took. Where answers run beside it, they wait for the step and not it for them.
    fn pace(&self, proof: &SharedProof, nonces: usize, took: Duration) {
        let Some(request) = &self.loaded else { return };
        let gpus = self.shared.replicas.ready_adapters();
        let pace = &self.shared.pace;
        pace.stepped(self.number, &request.served_as, &proof.round, &gpus, nonces, took);
    }
}

/// What is claimed for each of the nonces.
fn claimed<'c>(claims: &'c Claims, nonces: &[u32]) -> Result<Vec<(u32, &'c [u8])>, EngineFault> {
    let of = |nonce: &u32| match claims.get(nonce) {
        Some(points) => Ok((*nonce, points.as_slice())),
        None => {
            let reason = format!("there is no trajectory to compare nonce {nonce} with");
            Err(EngineFault::bad_request("validation", reason))
        }
    };
    nonces.iter().map(of).collect()
}
