//! Jobs with given nonces: computed one after another, judged if the other side's artifacts came with them.
//!
//! A wrong verdict would cost an honest participant an epoch. So whatever goes wrong here makes the job `failed`, and a
//! failed job is never reported to the Network Node as a verdict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roadbed_compute::poc::{Artifact, Verdict};
use serde::Serialize;
use tokio::sync::watch;

use super::request::{JobRequest, ProofRefusal};

/// Nonces that may wait in jobs, as in the network's own nodes.
pub const NONCES_QUEUED_MAX: usize = 100_000;
/// How long the result of a job is kept.
const RESULT_KEPT: Duration = Duration::from_secs(300);
/// Jobs remembered, waiting and finished; beyond it the oldest finished ones go early.
const JOBS_KEPT_MAX: usize = 1024;

/// What a job gave.
#[derive(Debug, Clone, PartialEq)]
pub enum JobOutcome {
    /// No artifacts came with it: ours.
    Artifacts(Vec<Artifact>),
    /// The verdict over those that came.
    Verdict(Verdict),
}

/// How far a job has got.
#[derive(Debug, Clone, PartialEq)]
pub enum JobState {
    /// Waiting for its turn.
    Queued,
    /// Being computed.
    Running,
    /// Done.
    Completed(JobOutcome),
    /// Not done, and why.
    Failed(String),
    /// Stopped.
    Cancelled,
}

impl JobState {
    /// The word on the wire.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed(_) => "completed",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// True once nothing more will happen.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Completed(_) | Self::Failed(_) | Self::Cancelled => true,
        }
    }
}

/// A job as it is looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Its id, without the label of the back-end.
    pub id: String,
    /// How far it has got.
    pub state: JobState,
    /// Numbers in an artifact.
    pub k_dim: usize,
}

struct Entry {
    state: watch::Sender<JobState>,
    nonces: usize,
    k_dim: usize,
    finished: Option<Instant>,
}

/// All jobs known.
#[derive(Default)]
pub(super) struct JobTable {
    entries: BTreeMap<String, Entry>,
    nonces_queued: usize,
}

impl JobTable {
    /// Takes a job in.
    pub(super) fn admit(&mut self, id: &str, job: &JobRequest) -> Result<(), ProofRefusal> {
        self.forget(Instant::now());
        let unfinished = self.entries.values().filter(|entry| entry.finished.is_none()).count();
        if self.nonces_queued + job.nonces.len() > NONCES_QUEUED_MAX || unfinished >= JOBS_KEPT_MAX
        {
            return Err(ProofRefusal::QueueFull { queued: self.nonces_queued });
        }
        self.nonces_queued += job.nonces.len();
        let state = watch::Sender::new(JobState::Queued);
        let (nonces, k_dim) = (job.nonces.len(), job.request.round.k_dim);
        self.entries.insert(id.to_owned(), Entry { state, nonces, k_dim, finished: None });
        Ok(())
    }

    pub(super) fn set(&mut self, id: &str, state: JobState) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if state.is_final() && entry.finished.is_none() {
            entry.finished = Some(Instant::now());
            self.nonces_queued = self.nonces_queued.saturating_sub(entry.nonces);
        }
        entry.state.send_replace(state);
    }

    pub(super) fn view(&mut self, id: &str) -> Option<JobView> {
        self.forget(Instant::now());
        self.entries.get(id).map(|entry| JobView {
            id: id.to_owned(),
            state: entry.state.borrow().clone(),
            k_dim: entry.k_dim,
        })
    }

    pub(super) fn watch(&self, id: &str) -> Option<watch::Receiver<JobState>> {
        self.entries.get(id).map(|entry| entry.state.subscribe())
    }

    pub(super) const fn nonces_queued(&self) -> usize {
        self.nonces_queued
    }

    pub(super) fn is_busy(&self) -> bool {
        self.entries.values().any(|entry| entry.finished.is_none())
    }

    fn forget(&mut self, now: Instant) {
        self.entries.retain(|_, entry| {
            entry.finished.is_none_or(|at| now.saturating_duration_since(at) < RESULT_KEPT)
        });
        while self.entries.len() > JOBS_KEPT_MAX {
            let oldest = self
                .entries
                .iter()
                .filter_map(|(id, entry)| entry.finished.map(|at| (at, id.clone())))
                .min();
            let Some((_, id)) = oldest else { break };
            self.entries.remove(&id);
        }
    }
}

/// The body of `{url}/validated`.
#[derive(Serialize)]
struct Validated<'a> {
    request_id: &'a str,
    block_hash: &'a str,
    block_height: i64,
    public_key: &'a str,
    node_id: u32,
    n_total: usize,
    n_mismatch: usize,
    mismatch_nonces: &'a [u32],
    p_value: f64,
    fraud_detected: bool,
}

pub(super) fn validated_body(
    id: &str,
    job: &JobRequest,
    verdict: &Verdict,
) -> Result<Vec<u8>, serde_json::Error> {
    let request = &job.request;
    serde_json::to_vec(&Validated {
        request_id: id,
        block_hash: &request.round.identity.block_hash,
        block_height: request.block_height,
        public_key: &request.round.identity.public_key,
        node_id: request.share.node_id,
        n_total: verdict.n_total,
        n_mismatch: verdict.mismatch_nonces.len(),
        mismatch_nonces: &verdict.mismatch_nonces,
        p_value: verdict.p_value,
        fraud_detected: verdict.fraud_detected,
    })
}
